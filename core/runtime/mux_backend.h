/*
 * What a multiplexor back end is: a struct of functions behind core/runtime/mux.h, and what all of
 * them share. Only the back ends, mux.c and its tests include this.
 *
 * An op that the kernel does not have sits in one list of its back end; op->list tells which.
 */
#pragma once

#include <stddef.h>

#include "core/runtime/check.h"
#include "core/runtime/mux.h"

BOUND
struct mux_ops {
	const char *name;
	/* Start an op whose fields are filled in; op->verb says which. */
	void (*start)(struct mux *m, struct mux_op *op);
	/* Once for each op, which is busy. One whose result is queued already keeps it. */
	void (*cancel)(struct mux *m, struct mux_op *op);
	void (*close_fd)(struct mux *m, int fd);
	/* NULL: between ops nothing is remembered of a descriptor. */
	void (*forget_fd)(struct mux *m, int fd);
	void (*watch_doorbell)(struct mux *m, int eventfd);
	int (*reap)(struct mux *m, int limit);
	void (*submit)(struct mux *m);
	bool (*ready)(struct mux *m);
	bool (*wait)(struct mux *m, uint64_t timeout_ns);
	void (*destroy)(struct mux *m);
};

BOUND
struct mux {
	uint32_t magic;
	const struct mux_ops *ops;
	unsigned pending;
	/* Guards against reaping from a callback. */
	bool reaping;
};

#define MUX_MAGIC 0x6d757831U

/* First in, first out. */
BOUND
struct mux_list {
	struct mux_op *head;
	struct mux_op *tail;
};

/* What a kernel may lack, or do less well, with which mux_uring_create() copes; for tests. */
enum mux_uring_lack {
	MUX_LACK_DEFER_TASKRUN = 1,
	MUX_LACK_BUFFER_RING = 2,
	MUX_LACK_MULTISHOT_ACCEPT = 4,
	/* Sends end short. */
	MUX_LACK_WAITALL = 8,
	/* Requests on non-blocking sockets fail with -EAGAIN at once. */
	MUX_LACK_WAITING = 16,
	/* Nothing is taken while the submission queue is full. */
	MUX_LACK_ROOM = 32,
};

BOUND
int mux_uring_create(struct mux **out, unsigned entries, unsigned lacks);
BOUND
int mux_epoll_create(struct mux **out, unsigned entries);
BOUND
int mux_poll_create(struct mux **out, unsigned entries);

/* Runs the op's callback as its agent. The back end has left the op busy (accept). */
BOUND
void mux_complete(struct mux *m, struct mux_op *op, int result);

/* Makes the op idle and runs its callback, after which the op may be gone. */
BOUND
void mux_finish(struct mux *m, struct mux_op *op, int result);

/* Takes `bytes` that were sent off op->message. True when nothing remains. */
BOUND
bool mux_send_advance(struct mux_op *op, uint32_t bytes);

BOUND
static inline void mux_list_push(struct mux_list *list, struct mux_op *op)
{
	ASSERT(op->list == NULL);
	op->list = list;
	op->next = NULL;
	op->prev = list->tail;
	if (list->tail != NULL) {
		list->tail->next = op;
	} else {
		list->head = op;
	}
	list->tail = op;
}

BOUND
static inline void mux_list_remove(struct mux_op *op)
{
	struct mux_list *list = op->list;

	ASSERT(list != NULL);
	if (op->prev != NULL) {
		op->prev->next = op->next;
	} else {
		list->head = op->next;
	}
	if (op->next != NULL) {
		op->next->prev = op->prev;
	} else {
		list->tail = op->prev;
	}
	op->list = NULL;
}

/* The oldest op, taken off; NULL when the list is empty. */
BOUND
static inline struct mux_op *mux_list_pop(struct mux_list *list)
{
	struct mux_op *op = list->head;

	if (op != NULL) {
		mux_list_remove(op);
	}
	return op;
}
