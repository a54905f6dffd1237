/*
 * A network of one connection in memory, below the multiplexor: what the other side says comes in
 * the pieces that the target gives, what the program says is handed to the target, and both sides
 * may stall or fail. No system calls, so a script always has the same effect.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/mux_backend.h"

struct group;

struct net {
	struct mux base;
	struct mux_list ops;
	/* What was said and not yet received; net_say() copies it. */
	unsigned char *in;
	size_t in_len;
	/* Bytes received so far. */
	size_t received;
	/* After what was said: the end, or an error. */
	bool in_end;
	int in_error;
	/* Sends and connects wait, or end with an error. */
	bool out_stalled;
	int out_error;
	/* All of a send, when it is complete. */
	void (*on_sent)(void *context, const unsigned char *data, size_t len);
	void *context;
	/* Descriptors are real, and closed. */
	bool close_fds;
	unsigned closed;
};

/* Takes the place of the group's multiplexor. */
void net_install(struct net *n, struct group *g);
/* As new, for the next connection; no operation is under way. */
void net_reset(struct net *n);
/* `len` bytes to be received as one piece, or several if there are more than one recv takes. */
void net_say(struct net *n, const unsigned char *data, size_t len);
