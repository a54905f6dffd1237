/*
 * Graphite: metrics as lines of text over TCP, "PREFIX.NAME VALUE TIME\n", every interval, on a
 * connection of its own each time. It never waits: what cannot be sent before the next ones are due
 * is given up, and counted.
 *
 * Start reading at on_tick().
 */
#pragma once

#include <stdbool.h>
#include <sys/uio.h>

#include "core/runtime/mux.h"
#include "core/runtime/timer.h"
#include "listeners/http/gather.h"
#include "listeners/http/text.h"

#define GRAPHITE_PREFIX 320

struct http;

enum graphite_state { GRAPHITE_IDLE, GRAPHITE_GATHERING, GRAPHITE_CONNECTING, GRAPHITE_SENDING };

BOUND
struct graphite {
	struct http *http;
	const struct graphite_options *options;
	char prefix[GRAPHITE_PREFIX];
	enum graphite_state state;
	bool stopping;
	struct timer timer;
	struct gather_wait wait;
	struct mux_op op;
	/* -1: none. */
	int fd;
	struct text lines;
	struct iovec iov;
	struct counter *sent;
	struct counter *failed;
	struct counter *given_up;
};

/* Nothing happens when the configuration has no server. */
BOUND
void graphite_init(struct graphite *g, struct http *http);

/* Gives up what is under way. */
BOUND
void graphite_stop(struct graphite *g);

BOUND
bool graphite_stopped(const struct graphite *g);

/* The lines of one time, `wall_s` since 1970. */
BOUND
void graphite_write(struct text *t, const char *prefix, const struct http *http,
		    const struct snapshot *s, uint64_t wall_s);

/* A name as one part of a path: what is no letter, digit, "-" or "_" becomes "_". */
SINGLE
void graphite_put_name(struct text *t, const char *name);
