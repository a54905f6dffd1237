/*
 * The multiplexor's back end `sim`: an operation that was submitted completes later, when the
 * simulated disk has carried it out or the network has something for it.
 *
 * An op sits in `started` until it is submitted, then nowhere while the disk or a descriptor has
 * it, and in `done` from its completion until it is reaped.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/mux_backend.h"
#include "tests/sim/disk.h"
#include "tests/sim/kernel_fd.h"
#include "tests/sim/kernel_wrap.h"
#include "tests/sim/net.h"
#include "tests/sim/world.h"

/* From an event to its completion, in the kernel. */
#define LOOK_NS_MAX (50 * NS_PER_US)

struct mux_sim {
	struct mux base;
	struct mux_list started;
	struct mux_list done;
	unsigned char buffer[MUX_RECV_MAX];
};

static struct mux_sim *sim_of(struct mux *m)
{
	return CONTAINER_OF(m, struct mux_sim, base);
}

/* `op` has its result, and waits to be reaped. */
static void complete(struct mux_sim *m, struct mux_op *op, int result)
{
	op->result = result;
	mux_list_push(&m->done, op);
}

/* ---- disk ---- */

struct disk_wait {
	struct mux_sim *mux;
	struct mux_op *op;
};

static void on_disk_done(void *context, int result)
{
	struct disk_wait *w = context;

	complete(w->mux, w->op, result);
	free(w);
}

static void start_disk(struct mux_sim *m, struct mux_op *op)
{
	struct disk_wait *w = malloc(sizeof *w);
	struct kernel_fd *f = kernel_open_fd(op->fd);
	struct disk_op d = {
		.verb = op->verb == MUX_READ    ? DISK_READ
			: op->verb == MUX_WRITE ? DISK_WRITE
						: DISK_SYNC,
		.node = f->node,
		.data = op->data,
		.len = op->len,
		.offset = op->offset,
		.direct = f->direct,
		.synced = op->synced,
	};

	ASSERT(w != NULL);
	if (op->verb != MUX_FSYNC) {
		kernel_check_aligned(f, op->data, op->len, op->offset);
	}
	*w = (struct disk_wait){m, op};
	disk_start(world->disk, &d, on_disk_done, w);
}

/* ---- sockets ---- */

static void look_reader(void *object, uint64_t unused);
static void look_writer(void *object, uint64_t unused);

void mux_sim_look(struct kernel_fd *f, int events)
{
	if ((events & (NET_READABLE | NET_BROKEN)) != 0 && f->reader != NULL && !f->look_reader) {
		f->look_reader = true;
		world_at_life(world_below(LOOK_NS_MAX), look_reader, f, 0);
	}
	if ((events & (NET_WRITABLE | NET_CONNECTED | NET_BROKEN)) != 0 && f->writer != NULL &&
	    !f->look_writer) {
		f->look_writer = true;
		world_at_life(world_below(LOOK_NS_MAX), look_writer, f, 0);
	}
}

static void on_end_event(struct net_end *end, int events, void *context)
{
	(void)end;
	mux_sim_look(context, events);
}

static void finish_reader(struct kernel_fd *f, int result)
{
	struct mux_op *op = f->reader;

	f->reader = NULL;
	complete(f->mux, op, result);
}

static void finish_writer(struct kernel_fd *f, int result)
{
	struct mux_op *op = f->writer;

	f->writer = NULL;
	complete(f->mux, op, result);
}

/* Has something come for the reader? The data itself is taken when it is reaped. */
static void look_reader(void *object, uint64_t unused)
{
	struct kernel_fd *f = object;

	(void)unused;
	f->look_reader = false;
	if (f->reader == NULL) {
		return;
	}
	if (f->kind == KERNEL_SIGNALFD) {
		if (f->signals != 0) {
			finish_reader(f, POLLIN);
		}
	} else if (f->kind == KERNEL_EVENTFD) {
		if (f->rung) {
			finish_reader(f, POLLIN);
		}
	} else if (f->kind == KERNEL_LISTENER) {
		/* Stays busy; reap() accepts. */
		if (f->reader->list == NULL) {
			mux_list_push(&f->mux->done, f->reader);
		}
	} else if (net_readable(f->end)) {
		finish_reader(f, f->reader->verb == MUX_POLL_FD ? POLLIN : 0);
	}
}

/* Sends what goes, in pieces of any size; true when the op has ended. */
static bool send_some(struct kernel_fd *f)
{
	struct mux_op *op = f->writer;

	for (;;) {
		const struct iovec *v = op->message.msg_iov;
		size_t len = v->iov_len;
		ssize_t n;

		if (len > 1 && world_chance(200)) {
			len = world_between(1, len);
		}
		n = len == 0 ? 0 : net_send(f->end, v->iov_base, len);
		if (n == -EAGAIN) {
			return false;
		}
		if (n < 0) {
			finish_writer(f, (int)n);
			return true;
		}
		if (mux_send_advance(op, (uint32_t)n)) {
			finish_writer(f, (int)op->done);
			return true;
		}
		if (world_chance(100)) {
			mux_sim_look(f, NET_WRITABLE);
			return false;
		}
	}
}

static void look_writer(void *object, uint64_t unused)
{
	struct kernel_fd *f = object;

	(void)unused;
	f->look_writer = false;
	if (f->writer == NULL) {
		return;
	}
	if (f->writer->verb == MUX_CONNECT) {
		if (f->end->error != 0) {
			finish_writer(f, -f->end->error);
		} else if (f->end->connected) {
			finish_writer(f, 0);
		}
	} else if (f->writer->verb == MUX_POLL_FD) {
		if (net_writable(f->end)) {
			finish_writer(f, POLLOUT);
		}
	} else {
		send_some(f);
	}
}

static void start_socket(struct mux_sim *m, struct mux_op *op)
{
	struct kernel_fd *f = kernel_open_fd(op->fd);
	bool reads = op->verb == MUX_ACCEPT || op->verb == MUX_RECV ||
		     (op->verb == MUX_POLL_FD && (op->events & POLLIN) != 0);

	ASSERT((reads ? f->reader : f->writer) == NULL);
	f->mux = m;
	if (reads) {
		f->reader = op;
	} else {
		f->writer = op;
	}
	if (op->verb == MUX_CONNECT) {
		ASSERT(f->kind == KERNEL_SOCKET);
		f->kind = KERNEL_CONNECTION;
		f->end = net_connect(world->net, NET_PROGRAM, (const struct sockaddr *)&op->address,
				     op->address_len,
				     f->address_len != 0 ? (const struct sockaddr *)&f->address
							 : NULL,
				     on_end_event, f);
		return;
	}
	mux_sim_look(f, reads ? NET_READABLE : NET_WRITABLE);
}

/* ---- the back end ---- */

static void sim_start(struct mux *base, struct mux_op *op)
{
	mux_list_push(&sim_of(base)->started, op);
}

static void sim_submit(struct mux *base)
{
	struct mux_sim *m = sim_of(base);
	struct mux_op *op;

	while ((op = mux_list_pop(&m->started)) != NULL) {
		if (op->verb == MUX_NOP) {
			complete(m, op, 0);
		} else if (op->verb == MUX_READ || op->verb == MUX_WRITE || op->verb == MUX_FSYNC) {
			start_disk(m, op);
		} else {
			start_socket(m, op);
		}
	}
}

static void sim_cancel(struct mux *base, struct mux_op *op)
{
	struct mux_sim *m = sim_of(base);
	struct kernel_fd *f = op->verb != MUX_NOP ? kernel_open_fd(op->fd) : NULL;

	if (op->list == &m->started) {
		mux_list_remove(op);
		complete(m, op, -ECANCELED);
	} else if (op->list == NULL && f != NULL && (op == f->reader || op == f->writer)) {
		if (op == f->reader) {
			f->reader = NULL;
		} else {
			f->writer = NULL;
		}
		complete(m, op, -ECANCELED);
	}
}

static void sim_close(struct mux *base, int fd)
{
	(void)base;
	__wrap_close(fd);
}

static void sim_watch(struct mux *base, int eventfd)
{
	(void)base;
	kernel_open_fd(eventfd);
}

/* An accepted connection as a descriptor; -1: none waits. */
static int take_connection(struct kernel_fd *l)
{
	struct net_end *end = net_accept(world->net, l->listener);
	struct kernel_fd *f;

	if (end == NULL) {
		return -1;
	}
	f = kernel_new_fd(KERNEL_CONNECTION);
	f->end = end;
	end->on_event = on_end_event;
	end->context = f;
	return f->number;
}

/* Every connection that waits, as one op that stays busy; then, when cancelled, its end. */
static int reap_accept(struct mux_sim *m, struct mux_op *op)
{
	struct kernel_fd *l = kernel_open_fd(op->fd);
	int ran = 0;
	int fd;

	while ((fd = take_connection(l)) >= 0) {
		mux_complete(&m->base, op, fd);
		ran++;
	}
	if (op->cancelled && mux_op_busy(op) && op->list == NULL) {
		l->reader = NULL;
		mux_finish(&m->base, op, -ECANCELED);
		ran++;
	}
	return ran;
}

static int reap_recv(struct mux_sim *m, struct mux_op *op)
{
	struct kernel_fd *f = kernel_open_fd(op->fd);
	ssize_t n = op->cancelled ? -ECANCELED : op->result;

	if (n == 0) {
		n = net_read(f->end, m->buffer, world_between(1, MUX_RECV_MAX));
	}
	if (n == -EAGAIN) {
		n = -ECONNRESET;
	}
	op->data = m->buffer;
	mux_finish(&m->base, op, (int)n);
	/* What the callback keeps of it is wrong from now on. */
	memset(m->buffer, 0xdb, n > 0 ? (size_t)n : 0);
	return 1;
}

static int sim_reap(struct mux *base, int limit)
{
	struct mux_sim *m = sim_of(base);
	int ran = 0;

	while (ran < limit && m->done.head != NULL) {
		struct mux_op *op = mux_list_pop(&m->done);

		if (op->verb == MUX_ACCEPT) {
			ran += reap_accept(m, op);
		} else if (op->verb == MUX_RECV) {
			ran += reap_recv(m, op);
		} else {
			mux_finish(base, op, op->result);
			ran++;
		}
	}
	return ran;
}

static bool sim_ready(struct mux *base)
{
	return sim_of(base)->done.head != NULL;
}

static bool sim_wait(struct mux *base, uint64_t timeout_ns)
{
	(void)base;
	(void)timeout_ns;
	world_fail("a group slept in its multiplexor instead of the simulator's loop");
}

static void sim_destroy(struct mux *base)
{
	free(sim_of(base));
}

static const struct mux_ops sim_ops = {
	.name = "sim",
	.start = sim_start,
	.cancel = sim_cancel,
	.close_fd = sim_close,
	.watch_doorbell = sim_watch,
	.reap = sim_reap,
	.submit = sim_submit,
	.ready = sim_ready,
	.wait = sim_wait,
	.destroy = sim_destroy,
};

int __wrap_mux_create(struct mux **out, enum mux_backend backend, unsigned entries,
		      const char **why)
{
	struct mux_sim *m = calloc(1, sizeof *m);

	(void)backend;
	(void)entries;
	ASSERT(m != NULL);
	m->base.magic = MUX_MAGIC;
	m->base.ops = &sim_ops;
	*out = &m->base;
	*why = NULL;
	return 0;
}
