/*
 * Completions made from readiness: what the epoll and the poll back end share. Each op is tried
 * first, in the next reap, and waits for its descriptor only when that would block. The back end
 * reports readiness by readiness_event().
 *
 * Owner: the multiplexor's thread. Start reading at readiness_reap().
 */
#pragma once

#include "core/runtime/mux_backend.h"

/* What is known about a descriptor; all zero for one never seen. */
BOUND
struct fd_state {
	struct mux_op *reader;
	struct mux_op *writer;
	/* The last try blocked, or took all that was there, and no event came since. */
	bool read_blocked;
	bool write_blocked;
	/* An end or an error was announced, and there will be no event for it again. */
	bool ended;
	/* epoll: in the set. */
	bool registered;
	/* poll: its place in the array plus one, or 0. */
	unsigned slot;
};

struct readiness;

/* Tells the back end that ops wait, from now on, for `events` (POLLIN, POLLOUT; 0: none) of `fd`. 0
 * or a negative errno. */
typedef int (*readiness_watch)(struct readiness *r, int fd, int events);

BOUND
struct readiness {
	struct mux mux;
	readiness_watch watch;
	struct fd_state *fds;
	unsigned fd_slots;
	/* Ops to try. */
	struct mux_list tries;
	/* Ops that have their result. */
	struct mux_list done;
	/* Where recv puts its data; lent to one callback at a time. */
	unsigned char *buffer;
	int doorbell_fd;
};

/* 0 or -ENOMEM. */
BOUND
int readiness_init(struct readiness *r, const struct mux_ops *ops, readiness_watch watch);

/* For struct mux_ops. */
BOUND
void readiness_start(struct mux *m, struct mux_op *op);
BOUND
void readiness_cancel(struct mux *m, struct mux_op *op);
BOUND
bool readiness_ready(struct mux *m);

/* Tries and completes what is ready, up to `limit` callbacks. */
BOUND
int readiness_reap(struct readiness *r, int limit);

/* The kernel says that `fd` has `events` (POLLIN, POLLOUT, POLLERR, POLLHUP). */
BOUND
void readiness_event(struct readiness *r, int fd, int events);

/* The state of `fd`, or NULL when nothing was ever known about it. */
BOUND
struct fd_state *readiness_fd(struct readiness *r, int fd);

/* Forgets `fd`, which no op uses. */
BOUND
void readiness_forget(struct readiness *r, int fd);

BOUND
void readiness_close(struct readiness *r);
