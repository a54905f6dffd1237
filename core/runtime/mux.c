#include "core/runtime/mux.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>

#include "core/runtime/agent.h"
#include "core/runtime/check.h"
#include "core/runtime/mux_backend.h"

static const char *uring_refusal(int error)
{
	switch (error) {
	case -EPERM:
		return "io_uring is denied (seccomp profile or kernel.io_uring_disabled)";
	case -ENOSYS:
		return "this kernel has no io_uring, or one too old (5.13 is the least)";
	case -ENOMEM:
		return "io_uring got no memory (RLIMIT_MEMLOCK, ulimit -l, may be too low)";
	case -EMFILE:
	case -ENFILE:
		return "io_uring got no file descriptor (RLIMIT_NOFILE, ulimit -n, may be too low)";
	default:
		return "io_uring could not be set up";
	}
}

BOUND
static int create_best(struct mux **out, unsigned entries, const char **why)
{
	int error = mux_uring_create(out, entries, 0);

	if (error == 0) {
		return 0;
	}
	*why = uring_refusal(error);
	error = mux_epoll_create(out, entries);
	if (error == 0) {
		return 0;
	}
	return mux_poll_create(out, entries);
}

int mux_create(struct mux **out, enum mux_backend backend, unsigned entries, const char **why)
{
	const char *ignored;
	int error;

	if (why == NULL) {
		why = &ignored;
	}
	*why = NULL;
	*out = NULL;
	switch (backend) {
	case MUX_AUTO:
		return create_best(out, entries, why);
	case MUX_URING:
		error = mux_uring_create(out, entries, 0);
		if (error != 0) {
			*why = uring_refusal(error);
		}
		return error;
	case MUX_EPOLL:
		return mux_epoll_create(out, entries);
	case MUX_POLL:
		return mux_poll_create(out, entries);
	}
	return -EINVAL;
}

const char *mux_name(const struct mux *m)
{
	CHECK_MAGIC(m, MUX_MAGIC);
	return m->ops->name;
}

void mux_op_init(struct mux_op *op, struct agent *agent, mux_fn on_complete)
{
	memset(op, 0, sizeof(*op));
	op->on_complete = on_complete;
	op->agent = agent;
	op->fd = -1;
}

static void op_begin(struct mux *m, struct mux_op *op, enum mux_verb verb, int fd)
{
	CHECK_MAGIC(m, MUX_MAGIC);
	ASSERT(op->on_complete != NULL);
	ASSERT(!mux_op_busy(op) && op->list == NULL);
	op->verb = verb;
	op->fd = fd;
	op->cancelled = false;
	op->polling = false;
	op->synced = false;
	op->last = false;
	op->events = 0;
	op->result = 0;
	op->done = 0;
	m->pending++;
}

void mux_accept(struct mux *m, struct mux_op *op, int fd)
{
	op_begin(m, op, MUX_ACCEPT, fd);
	m->ops->start(m, op);
}

void mux_connect(struct mux *m, struct mux_op *op, int fd)
{
	ASSERT(op->address_len > 0 && op->address_len <= sizeof(op->address));
	op_begin(m, op, MUX_CONNECT, fd);
	m->ops->start(m, op);
}

void mux_recv(struct mux *m, struct mux_op *op, int fd)
{
	op_begin(m, op, MUX_RECV, fd);
	op->data = NULL;
	m->ops->start(m, op);
}

static void start_send(struct mux *m, struct mux_op *op, int fd, struct iovec *iov, unsigned count,
		       bool last)
{
	size_t total = 0;

	ASSERT(count >= 1 && count <= IOV_MAX);
	for (unsigned i = 0; i < count; i++) {
		total += iov[i].iov_len;
		ASSERT(total <= INT_MAX);
	}
	op_begin(m, op, MUX_SEND, fd);
	memset(&op->message, 0, sizeof(op->message));
	op->message.msg_iov = iov;
	op->message.msg_iovlen = count;
	op->len = (uint32_t)total;
	op->last = last;
	m->ops->start(m, op);
}

void mux_send(struct mux *m, struct mux_op *op, int fd, struct iovec *iov, unsigned count)
{
	start_send(m, op, fd, iov, count, false);
}

void mux_send_last(struct mux *m, struct mux_op *op, int fd, struct iovec *iov, unsigned count)
{
	start_send(m, op, fd, iov, count, true);
}

void mux_poll_fd(struct mux *m, struct mux_op *op, int fd, int events)
{
	ASSERT((events & (POLLIN | POLLOUT)) != 0 && (events & ~(POLLIN | POLLOUT)) == 0);
	op_begin(m, op, MUX_POLL_FD, fd);
	op->events = events;
	m->ops->start(m, op);
}

void mux_read(struct mux *m, struct mux_op *op, int fd, void *data, uint32_t len, uint64_t offset)
{
	ASSERT(len <= INT_MAX);
	op_begin(m, op, MUX_READ, fd);
	op->data = data;
	op->len = len;
	op->offset = offset;
	m->ops->start(m, op);
}

static void start_write(struct mux *m, struct mux_op *op, int fd, const void *data, uint32_t len,
			uint64_t offset, bool synced)
{
	ASSERT(len <= INT_MAX);
	op_begin(m, op, MUX_WRITE, fd);
	op->data = (unsigned char *)(uintptr_t)data;
	op->len = len;
	op->offset = offset;
	op->synced = synced;
	m->ops->start(m, op);
}

void mux_write(struct mux *m, struct mux_op *op, int fd, const void *data, uint32_t len,
	       uint64_t offset)
{
	start_write(m, op, fd, data, len, offset, false);
}

void mux_write_synced(struct mux *m, struct mux_op *op, int fd, const void *data, uint32_t len,
		      uint64_t offset)
{
	start_write(m, op, fd, data, len, offset, true);
}

void mux_fsync(struct mux *m, struct mux_op *op, int fd)
{
	op_begin(m, op, MUX_FSYNC, fd);
	m->ops->start(m, op);
}

void mux_nop(struct mux *m, struct mux_op *op)
{
	op_begin(m, op, MUX_NOP, -1);
	op->data = NULL;
	m->ops->start(m, op);
}

void mux_cancel(struct mux *m, struct mux_op *op)
{
	CHECK_MAGIC(m, MUX_MAGIC);
	if (mux_op_busy(op) && !op->cancelled) {
		op->cancelled = true;
		m->ops->cancel(m, op);
	}
}

void mux_close(struct mux *m, int fd)
{
	CHECK_MAGIC(m, MUX_MAGIC);
	ASSERT(fd >= 0);
	m->ops->close_fd(m, fd);
}

void mux_forget(struct mux *m, int fd)
{
	CHECK_MAGIC(m, MUX_MAGIC);
	ASSERT(fd >= 0);
	if (m->ops->forget_fd != NULL) {
		m->ops->forget_fd(m, fd);
	}
}

void mux_watch_doorbell(struct mux *m, int eventfd)
{
	CHECK_MAGIC(m, MUX_MAGIC);
	ASSERT(eventfd >= 0);
	m->ops->watch_doorbell(m, eventfd);
}

int mux_reap(struct mux *m, int limit)
{
	int ran;

	CHECK_MAGIC(m, MUX_MAGIC);
	ASSERT(!m->reaping && limit > 0);
	m->reaping = true;
	ran = m->ops->reap(m, limit);
	m->reaping = false;
	return ran;
}

void mux_submit(struct mux *m)
{
	CHECK_MAGIC(m, MUX_MAGIC);
	m->ops->submit(m);
}

bool mux_ready(struct mux *m)
{
	CHECK_MAGIC(m, MUX_MAGIC);
	return m->ops->ready(m);
}

bool mux_wait(struct mux *m, uint64_t timeout_ns)
{
	CHECK_MAGIC(m, MUX_MAGIC);
	ASSERT(!m->reaping && timeout_ns > 0);
	return m->ops->wait(m, timeout_ns);
}

unsigned mux_pending(const struct mux *m)
{
	CHECK_MAGIC(m, MUX_MAGIC);
	return m->pending;
}

void mux_destroy(struct mux *m)
{
	CHECK_MAGIC(m, MUX_MAGIC);
	ASSERT(!m->reaping && m->pending == 0);
	m->magic = 0;
	m->ops->destroy(m);
}

void mux_complete(struct mux *m, struct mux_op *op, int result)
{
	struct agent *outer = agent_current;

	(void)m;
	agent_current = op->agent;
	op->on_complete(op, result);
	agent_current = outer;
}

void mux_finish(struct mux *m, struct mux_op *op, int result)
{
	ASSERT(op->list == NULL && m->pending > 0);
	op->verb = MUX_IDLE;
	m->pending--;
	mux_complete(m, op, result);
}

bool mux_send_advance(struct mux_op *op, uint32_t bytes)
{
	struct msghdr *message = &op->message;
	size_t left = bytes;

	op->done += bytes;
	ASSERT(op->done <= op->len);
	while (message->msg_iovlen > 0 && left >= message->msg_iov->iov_len) {
		left -= message->msg_iov->iov_len;
		message->msg_iov++;
		message->msg_iovlen--;
	}
	if (left > 0) {
		message->msg_iov->iov_base = (char *)message->msg_iov->iov_base + left;
		message->msg_iov->iov_len -= left;
	}
	return op->done == op->len;
}
