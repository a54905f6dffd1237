#include "core/runtime/readiness.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define FD_SLOTS_MIN 64U
/* What a try says that has to wait; no errno, because connect(2) has a use of its own for EAGAIN.
 */
#define BLOCKED INT_MIN

static struct readiness *readiness_of(struct mux *m)
{
	return CONTAINER_OF(m, struct readiness, mux);
}

int readiness_init(struct readiness *r, const struct mux_ops *ops, readiness_watch watch)
{
	r->mux.magic = MUX_MAGIC;
	r->mux.ops = ops;
	r->watch = watch;
	r->doorbell_fd = -1;
	r->buffer = malloc(MUX_RECV_MAX);
	return r->buffer != NULL ? 0 : -ENOMEM;
}

struct fd_state *readiness_fd(struct readiness *r, int fd)
{
	return (unsigned)fd < r->fd_slots ? &r->fds[fd] : NULL;
}

static int fd_table_grow(struct readiness *r, unsigned fd)
{
	unsigned slots = r->fd_slots < FD_SLOTS_MIN ? FD_SLOTS_MIN : r->fd_slots;
	struct fd_state *fds;

	while (slots <= fd) {
		slots *= 2;
	}
	fds = realloc(r->fds, slots * sizeof(*fds));
	if (fds == NULL) {
		return -ENOMEM;
	}
	memset(fds + r->fd_slots, 0, (slots - r->fd_slots) * sizeof(*fds));
	r->fds = fds;
	r->fd_slots = slots;
	return 0;
}

/* The directions in which the op uses its descriptor; 0 for the verbs of files. */
static int op_events(const struct mux_op *op)
{
	switch (op->verb) {
	case MUX_ACCEPT:
	case MUX_RECV:
		return POLLIN;
	case MUX_CONNECT:
	case MUX_SEND:
		return POLLOUT;
	case MUX_POLL_FD:
		return op->events;
	default:
		return 0;
	}
}

static void op_attach(struct fd_state *state, struct mux_op *op, int events)
{
	if ((events & POLLIN) != 0) {
		ASSERT(state->reader == NULL);
		state->reader = op;
	}
	if ((events & POLLOUT) != 0) {
		ASSERT(state->writer == NULL);
		state->writer = op;
	}
}

/* What the ops of `state` that are not about to be tried wait for. */
static int fd_wanted(const struct fd_state *state)
{
	bool reads = state->reader != NULL && state->reader->list == NULL;
	bool writes = state->writer != NULL && state->writer->list == NULL;

	return (reads ? POLLIN : 0) | (writes ? POLLOUT : 0);
}

BOUND
static void op_detach(struct readiness *r, struct mux_op *op)
{
	struct fd_state *state = op_events(op) != 0 ? readiness_fd(r, op->fd) : NULL;

	if (state == NULL) {
		return;
	}
	if (state->reader == op) {
		state->reader = NULL;
	}
	if (state->writer == op) {
		state->writer = NULL;
	}
}

BOUND
static void op_done(struct readiness *r, struct mux_op *op, int result)
{
	op->result = result;
	mux_list_push(&r->done, op);
}

/* Leaves the op in no list, waiting for an event. */
BOUND
static void op_wait(struct readiness *r, struct mux_op *op)
{
	int error = r->watch(r, op->fd, fd_wanted(readiness_fd(r, op->fd)));

	if (error != 0) {
		op_detach(r, op);
		op_done(r, op, error);
	}
}

static bool op_blocked(const struct fd_state *state, int events)
{
	return ((events & POLLIN) == 0 || state->read_blocked) &&
	       ((events & POLLOUT) == 0 || state->write_blocked);
}

BOUND
static void start_socket(struct readiness *r, struct mux_op *op, int events)
{
	struct fd_state *state;

	if (op->fd < 0) {
		op_done(r, op, -EBADF);
		return;
	}
	if ((unsigned)op->fd >= r->fd_slots && fd_table_grow(r, (unsigned)op->fd) != 0) {
		op_done(r, op, -ENOMEM);
		return;
	}
	state = readiness_fd(r, op->fd);
	op_attach(state, op, events);
	if (op_blocked(state, events)) {
		op_wait(r, op);
	} else {
		mux_list_push(&r->tries, op);
	}
}

/* Where the kernel or its guard refuses the one call, two do the same. */
static ssize_t write_synced(const struct mux_op *op)
{
	struct iovec iov = {.iov_base = op->data, .iov_len = op->len};
	ssize_t n = pwritev2(op->fd, &iov, 1, (off_t)op->offset, RWF_DSYNC);

	if (n >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS && errno != EPERM)) {
		return n;
	}
	n = pwrite(op->fd, op->data, op->len, (off_t)op->offset);
	return n > 0 && fdatasync(op->fd) != 0 ? -1 : n;
}

static int do_file(struct mux_op *op)
{
	ssize_t n;

	do {
		if (op->verb == MUX_READ) {
			n = pread(op->fd, op->data, op->len, (off_t)op->offset);
		} else if (op->verb == MUX_WRITE && op->synced) {
			n = write_synced(op);
		} else if (op->verb == MUX_WRITE) {
			n = pwrite(op->fd, op->data, op->len, (off_t)op->offset);
		} else {
			n = fdatasync(op->fd);
		}
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : (int)n;
}

void readiness_start(struct mux *m, struct mux_op *op)
{
	struct readiness *r = readiness_of(m);
	int events = op_events(op);

	if (op->verb == MUX_NOP) {
		op_done(r, op, 0);
	} else if (events == 0) {
		op_done(r, op, do_file(op));
	} else {
		start_socket(r, op, events);
	}
}

void readiness_cancel(struct mux *m, struct mux_op *op)
{
	struct readiness *r = readiness_of(m);
	bool waited = op->list == NULL;

	if (op->list == &r->done) {
		return;
	}
	op_detach(r, op);
	if (waited) {
		/* Fewer events than before: that cannot fail. */
		r->watch(r, op->fd, fd_wanted(readiness_fd(r, op->fd)));
	} else {
		mux_list_remove(op);
	}
	op_done(r, op, -ECANCELED);
}

bool readiness_ready(struct mux *m)
{
	const struct readiness *r = readiness_of(m);

	return r->tries.head != NULL || r->done.head != NULL;
}

BOUND
static bool event_unblock(struct readiness *r, struct mux_op *op)
{
	if (op == NULL || op->list != NULL) {
		return false;
	}
	mux_list_push(&r->tries, op);
	return true;
}

void readiness_event(struct readiness *r, int fd, int events)
{
	struct fd_state *state = readiness_fd(r, fd);
	bool broken = (events & (POLLERR | POLLHUP | POLLNVAL)) != 0;
	bool unblocked = false;

	if (state == NULL) {
		return;
	}
	state->ended |= broken || (events & POLLRDHUP) != 0;
	if (broken || (events & (POLLIN | POLLRDHUP)) != 0) {
		state->read_blocked = false;
		unblocked |= event_unblock(r, state->reader);
	}
	if (broken || (events & POLLOUT) != 0) {
		state->write_blocked = false;
		unblocked |= event_unblock(r, state->writer);
	}
	if (unblocked) {
		/* Fewer events than before: that cannot fail. */
		r->watch(r, fd, fd_wanted(state));
	}
}

/* Each of the following tries an op once: its result, or BLOCKED. */

static int failure(void)
{
	return errno == EAGAIN ? BLOCKED : -errno;
}

/* Calling connect(2) again tells how the first one went: 0, -EALREADY or its error. */
static int try_connect(struct mux_op *op)
{
	if (connect(op->fd, (struct sockaddr *)&op->address, op->address_len) == 0) {
		return 0;
	}
	return errno == EINPROGRESS || errno == EALREADY ? BLOCKED : -errno;
}

static int try_recv(struct readiness *r, struct mux_op *op)
{
	ssize_t n = recv(op->fd, r->buffer, MUX_RECV_MAX, MSG_DONTWAIT);

	op->data = n >= 0 ? r->buffer : NULL;
	return n < 0 ? failure() : (int)n;
}

static int try_accept(struct mux_op *op)
{
	int fd = accept4(op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

	return fd < 0 ? failure() : fd;
}

BOUND
static int try_send(struct mux_op *op)
{
	for (;;) {
		ssize_t n = sendmsg(op->fd, &op->message,
				    MSG_NOSIGNAL | MSG_DONTWAIT | (op->last ? MSG_MORE : 0));

		if (n < 0) {
			return failure();
		}
		if (mux_send_advance(op, (uint32_t)n)) {
			return (int)op->len;
		}
	}
}

static int try_poll(struct mux_op *op)
{
	struct pollfd entry = {.fd = op->fd, .events = (short)op->events};
	int n = poll(&entry, 1, 0);

	if (n < 0) {
		return -errno;
	}
	return n == 0 ? BLOCKED : entry.revents;
}

BOUND
static int op_try(struct readiness *r, struct mux_op *op)
{
	int result;

	do {
		switch (op->verb) {
		case MUX_ACCEPT:
			result = try_accept(op);
			break;
		case MUX_CONNECT:
			result = try_connect(op);
			break;
		case MUX_RECV:
			result = try_recv(r, op);
			break;
		case MUX_SEND:
			result = try_send(op);
			break;
		default:
			result = try_poll(op);
			break;
		}
	} while (result == -EINTR);
	return result;
}

BOUND
static void op_block(struct readiness *r, struct mux_op *op)
{
	struct fd_state *state = readiness_fd(r, op->fd);
	int events = op_events(op);

	state->read_blocked |= (events & POLLIN) != 0;
	state->write_blocked |= (events & POLLOUT) != 0;
	op_wait(r, op);
}

/* A piece shorter than the buffer was all there is, so that the next recv can wait untried; but an
 * end of the stream that was announced together with it still has to be fetched. */
BOUND
static void note_drained(struct readiness *r, const struct mux_op *op, int result)
{
	struct fd_state *state = readiness_fd(r, op->fd);

	if (op->verb == MUX_RECV && result > 0 && result < MUX_RECV_MAX && !state->ended) {
		state->read_blocked = true;
	}
}

/* True when the callback ran. */
BOUND
static bool reap_try(struct readiness *r, struct mux_op *op)
{
	int result = op_try(r, op);

	if (result == BLOCKED) {
		op_block(r, op);
		return false;
	}
	if (op->verb == MUX_ACCEPT && result >= 0) {
		/* At the end of the list, so that the others have their turn. */
		mux_list_push(&r->tries, op);
		mux_complete(&r->mux, op, result);
		return true;
	}
	note_drained(r, op, result);
	op_detach(r, op);
	mux_finish(&r->mux, op, result);
	return true;
}

int readiness_reap(struct readiness *r, int limit)
{
	int ran = 0;

	while (ran < limit && r->done.head != NULL) {
		struct mux_op *op = mux_list_pop(&r->done);

		mux_finish(&r->mux, op, op->result);
		ran++;
	}
	while (ran < limit && r->tries.head != NULL) {
		ran += reap_try(r, mux_list_pop(&r->tries)) ? 1 : 0;
	}
	return ran;
}

void readiness_forget(struct readiness *r, int fd)
{
	struct fd_state *state = readiness_fd(r, fd);

	if (state != NULL) {
		ASSERT(state->reader == NULL && state->writer == NULL);
		memset(state, 0, sizeof(*state));
	}
}

void readiness_close(struct readiness *r)
{
	free(r->buffer);
	free(r->fds);
}
