/*
 * Multiplexor: a group's view of the kernel, in completion style. Back ends: uring, epoll and poll
 * (and one for simulation, in tests).
 *
 * Each pending operation is a struct mux_op embedded in its owner. An operation started in a duty
 * cycle is handed to the kernel by mux_submit() or mux_wait(); its callback runs from mux_reap(),
 * never from within the call that started it. A callback may start the same op again. The op and
 * what it points to must stay where they are until the callback has run.
 *
 * Results: 0 or more on success, a negative errno on failure; -ECANCELED after mux_cancel().
 * Every function is for the group's own thread. All but mux_reap(), mux_wait() and mux_destroy()
 * may be called from callbacks.
 *
 * Sockets are non-blocking. Each has at most one op that waits to read (accept, recv, poll for
 * POLLIN) and one that waits to write (connect, send, poll for POLLOUT) at a time, and whoever used
 * it here closes it by mux_close(), so that nothing is remembered of it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "core/runtime/thread_class.h"

struct agent;
struct mux;
struct mux_op;

enum mux_backend { MUX_AUTO, MUX_URING, MUX_EPOLL, MUX_POLL };

enum mux_verb {
	MUX_IDLE,
	MUX_ACCEPT,
	MUX_CONNECT,
	MUX_RECV,
	MUX_SEND,
	MUX_POLL_FD,
	MUX_READ,
	MUX_WRITE,
	MUX_FSYNC,
	MUX_NOP,
};

typedef void (*mux_fn)(struct mux_op *op, int result);

BOUND
struct mux_op {
	mux_fn on_complete;
	/* Whose code the callback is: agent_current while it runs. */
	struct agent *agent;
	enum mux_verb verb;
	bool cancelled;
	int fd;
	int events;
	/* RECV: the data, valid only while the callback runs. READ and WRITE: the caller's memory.
	 */
	unsigned char *data;
	uint32_t len;
	/* WRITE: done when it is durable. */
	bool synced;
	/* SEND: the kernel may keep it back until the socket is closed. */
	bool last;
	uint64_t offset;
	/* SEND: what remains to be sent; the array is the caller's and is changed. */
	struct msghdr message;
	/* CONNECT. */
	struct sockaddr_storage address;
	socklen_t address_len;
	/* Private to the back ends: the list that holds the op (NULL: the kernel, or nobody), and
	 * what the op has to remember there. */
	struct mux_list *list;
	struct mux_op *next;
	struct mux_op *prev;
	int result;
	uint32_t done;
	uint32_t buffer;
	bool polling;
	/* RECV: the last one left something to be received. */
	bool more;
};

/* Largest piece that one recv delivers, in bytes. */
#define MUX_RECV_MAX 16384

/* Makes a multiplexor on the thread that will use it. MUX_AUTO takes the best that the kernel
 * allows; `why` (may be NULL) is set to a sentence when that was not uring. `entries`: operations
 * under way that a ring is sized for; more are queued. 0 or a negative errno. */
BOUND
int mux_create(struct mux **out, enum mux_backend backend, unsigned entries, const char **why);

/* "uring", "epoll" or "poll". */
READONLY
const char *mux_name(const struct mux *m);

/* Sets `op` up, idle. `agent` may be NULL in tests. */
SINGLE
void mux_op_init(struct mux_op *op, struct agent *agent, mux_fn on_complete);

static inline bool mux_op_busy(const struct mux_op *op)
{
	return op->verb != MUX_IDLE;
}

/* Accepts again and again: the callback runs once for each connection, with a non-blocking
 * close-on-exec socket as result, until an error or mux_cancel() ends it (then the op is idle). A
 * passing shortage (-EMFILE, -ENFILE, -ENOBUFS, -ENOMEM) or an aborted connection is reported as
 * an error too; the owner starts again when it likes. After mux_cancel(), connections that were
 * accepted already are still delivered, before the -ECANCELED. */
BOUND
void mux_accept(struct mux *m, struct mux_op *op, int fd);

/* Connects `fd` to op->address, op->address_len (copied there by the caller). Result 0. */
BOUND
void mux_connect(struct mux *m, struct mux_op *op, int fd);

/* Receives once what is there, at most MUX_RECV_MAX bytes, into a buffer of the multiplexor that is
 * lent for the length of the callback as op->data; the result is the number of bytes, 0 at the end
 * of the stream. An idle connection costs no buffer. */
BOUND
void mux_recv(struct mux *m, struct mux_op *op, int fd);

/* Sends all of `iov` (1 to 1024 entries, INT_MAX bytes), in as many steps as it takes; result:
 * bytes sent in all. The array and what it points to are the caller's, and the array is changed.
 * After an error or a cancel some of it may have been sent. No SIGPIPE. */
BOUND
void mux_send(struct mux *m, struct mux_op *op, int fd, struct iovec *iov, unsigned count);

/* The same for the last words before the socket is closed, or shut down for sending, as soon as the
 * result is there: the end of the stream goes along with them, in one segment for two. */
BOUND
void mux_send_last(struct mux *m, struct mux_op *op, int fd, struct iovec *iov, unsigned count);

/* Waits once until `fd` has one of `events` (POLLIN, POLLOUT); result: the events seen. */
BOUND
void mux_poll_fd(struct mux *m, struct mux_op *op, int fd, int events);

/* Files, not ordered among each other. Results may be short. Without io_uring these block the
 * thread when they are started, and complete at the next reap. */
BOUND
void mux_read(struct mux *m, struct mux_op *op, int fd, void *data, uint32_t len, uint64_t offset);
BOUND
void mux_write(struct mux *m, struct mux_op *op, int fd, const void *data, uint32_t len,
	       uint64_t offset);
/*
 * The same, and what was written is durable when it completes: pwritev2(2) with RWF_DSYNC. Only
 * that: what was written to the file before without it still needs mux_fsync(). After an error any
 * part of it may be written, durable or not. On a descriptor with O_DIRECT, for which address,
 * length and offset are aligned, io_uring needs no worker thread for it, as it does for a buffered
 * write and for a sync.
 */
BOUND
void mux_write_synced(struct mux *m, struct mux_op *op, int fd, const void *data, uint32_t len,
		      uint64_t offset);
/* fdatasync(2). */
BOUND
void mux_fsync(struct mux *m, struct mux_op *op, int fd);

/* Completes with 0 at the next reap, without a system call: for owners that have something to tell
 * already, and must not from within the call that asks for it. */
BOUND
void mux_nop(struct mux *m, struct mux_op *op);

/* Asks that a busy op ends soon: its callback runs once more, with -ECANCELED or the result that it
 * had won already. Idle ops are left alone. */
BOUND
void mux_cancel(struct mux *m, struct mux_op *op);

/* Closes a socket that no op of this multiplexor uses any more. */
BOUND
void mux_close(struct mux *m, int fd);

/* Forgets such a socket, which stays open: another multiplexor goes on with it. */
BOUND
void mux_forget(struct mux *m, int fd);

/* Wakes mux_wait() whenever `eventfd` is written; at most one per multiplexor, for its life. It
 * needs no reading: the back end that has to reads it. */
BOUND
void mux_watch_doorbell(struct mux *m, int eventfd);

/* Runs the callbacks of at most `limit` completions, without waiting. Returns how many ran. */
BOUND
int mux_reap(struct mux *m, int limit);

/* Hands what was started to the kernel: one system call at most with uring, none when nothing was
 * started. */
BOUND
void mux_submit(struct mux *m);

/* True when mux_reap() has something to look at; mostly that is a callback to run, now and then
 * only an event of the multiplexor's own. Cheap: no system call. With epoll and poll it knows only
 * what the last reap or wait learned. */
BOUND
bool mux_ready(struct mux *m);

/* Submits, then sleeps until something completes, the doorbell is rung or `timeout_ns` (1 or more)
 * have passed. Runs no callbacks. True when it was not the time-out. */
BOUND
bool mux_wait(struct mux *m, uint64_t timeout_ns);

/* Operations under way. */
BOUND
unsigned mux_pending(const struct mux *m);

/* All ops must be idle. */
BOUND
void mux_destroy(struct mux *m);
