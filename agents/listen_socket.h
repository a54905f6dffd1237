/*
 * Sockets that listen, for listens of a configuration: opened by the master at the start, and on
 * the thread pool for a generation that has others than the one before.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "agents/scheduler.h"
#include "config/config.h"
#include "core/runtime/thread_class.h"

/* Of a configuration, in all. */
#define LISTENS_MAX 64

/* Sockets that are open and that nobody has taken, by listener and listen of a configuration. */
SINGLE
struct listen_sockets {
	uint32_t count;
	struct {
		uint32_t listener;
		uint32_t index;
		int fd;
		/* Of a Unix socket, the configuration's; NULL: it is none. */
		const char *path;
	} list[LISTENS_MAX];
};

/* Which listen of the service in `config` has the address of `o`; -1: none. */
READONLY
int64_t listen_find(const struct listener_ops *ops, const struct config *config,
		    const struct listen_options *o);

/* How long a start waits for an address that is in use, and a reload for one that has just been
 * given up, ms. */
#define LISTEN_PATIENCE_MS 1000
#define LISTEN_AGAIN_PATIENCE_MS 200

/* Opens the sockets that `config` asks for and `running` (NULL: nothing runs) does not; waits up to
 * `patience_ms` for each address that is in use. NULL: one cannot be opened, or there are too many;
 * each is a line on `errors`. May block. */
SINGLE
struct listen_sockets *listen_sockets_open(const struct program *p, const struct config *config,
					   const struct config *running, int patience_ms,
					   FILE *errors);
/* Closes those that nobody has taken: whoever does sets the descriptor to -1. NULL is ignored. */
SINGLE
void listen_sockets_close(struct listen_sockets *sockets);
