/*
 * The io_uring back end.
 *
 * An op is in the kernel (op->list is NULL) or in one of four lists: `unqueued` waits for room in
 * the submission queue, `starved` for a receive buffer, `done` holds results that need no kernel,
 * and `uncancelled` holds ops that the kernel has but whose cancel request found no room.
 *
 * A cancel names its op by address. An op that is started again from its last callback cannot be
 * hit by an old cancel, because that stands before it in the submission queue.
 *
 * Start reading at uring_reap().
 */
#include <errno.h>
#include <liburing.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "core/runtime/clock.h"
#include "core/runtime/mux_backend.h"

/* Receive buffers: a power of two. */
#define BUFFERS 256U
#define BUFFER_GROUP 0
#define SQ_MIN 8U
#define SQ_MAX 4096U
/* 5.13: multishot poll. Older: EXT_ARG, NODROP, SUBMIT_STABLE, FAST_POLL. */
#define FEATURES_NEEDED                                                                            \
	(IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_FAST_POLL |                  \
	 IORING_FEAT_EXT_ARG | IORING_FEAT_RSRC_TAGS)

/* What user_data says when it is not the address of an op. */
#define TAG_DOORBELL UINT64_C(1)
#define TAG_CANCEL UINT64_C(2)

_Static_assert((BUFFERS & (BUFFERS - 1)) == 0, "the kernel masks buffer numbers");
_Static_assert(_Alignof(struct mux_op) >= 4, "the tags are no addresses of ops");

BOUND
struct mux_uring {
	struct mux mux;
	struct io_uring ring;
	unsigned lacks;
	struct mux_list unqueued;
	struct mux_list uncancelled;
	struct mux_list starved;
	struct mux_list done;
	int doorbell_fd;
	/* The doorbell's poll ended, or was not queued for want of room. */
	bool doorbell_unarmed;
	unsigned char *buffers;
	struct io_uring_buf_ring *buffer_ring;
	/* Buffers given back since ops were last taken from `starved`. */
	unsigned recycled;
	/* Without a buffer ring: a stack of free buffers. */
	uint16_t free_buffers[BUFFERS];
	unsigned free_count;
};

static struct mux_uring *uring_of(struct mux *m)
{
	return CONTAINER_OF(m, struct mux_uring, mux);
}

/* A failure to submit that passes; anything else is an error in this program. */
static void check_enter(int result)
{
	switch (-result) {
	case EAGAIN:
	case EBUSY:
	case EINTR:
	case ENOMEM:
	case ETIME:
		return;
	default:
		if (result < 0) {
			fatal("io_uring_enter: error %d", -result);
		}
	}
}

/* Room for one request, by submitting if need be; NULL when the kernel takes nothing now. */
static struct io_uring_sqe *sqe_get(struct mux_uring *u)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

	if (sqe == NULL && (u->lacks & MUX_LACK_ROOM) == 0) {
		check_enter(io_uring_submit(&u->ring));
		sqe = io_uring_get_sqe(&u->ring);
	}
	return sqe;
}

static void buffer_recycle(struct mux_uring *u, unsigned id)
{
	ASSERT(id < BUFFERS);
	u->recycled++;
	if (u->buffer_ring == NULL) {
		ASSERT(u->free_count < BUFFERS);
		u->free_buffers[u->free_count++] = (uint16_t)id;
		return;
	}
	io_uring_buf_ring_add(u->buffer_ring, u->buffers + (size_t)id * MUX_RECV_MAX, MUX_RECV_MAX,
			      (uint16_t)id, io_uring_buf_ring_mask(BUFFERS), 0);
	io_uring_buf_ring_advance(u->buffer_ring, 1);
}

/* For recv and send; the kernel waits by itself where it can. */
static int wait_flag(const struct mux_uring *u)
{
	return (u->lacks & MUX_LACK_WAITING) != 0 ? MSG_DONTWAIT : 0;
}

/* With a buffer ring the kernel chooses a buffer when data is there. It does not even look before a
 * poll says so: mostly we receive to wait, and a look in vain costs as much as another. A kernel
 * that has buffer rings knows the flag. */
static void prepare_recv(struct mux_uring *u, struct io_uring_sqe *sqe, struct mux_op *op)
{
	if (u->buffer_ring != NULL) {
		io_uring_prep_recv(sqe, op->fd, NULL, MUX_RECV_MAX, wait_flag(u));
		sqe->flags |= IOSQE_BUFFER_SELECT;
		sqe->buf_group = BUFFER_GROUP;
		if (!op->more && (u->lacks & MUX_LACK_WAITING) == 0) {
			sqe->ioprio = IORING_RECVSEND_POLL_FIRST;
		}
		return;
	}
	op->buffer = u->free_buffers[--u->free_count];
	io_uring_prep_recv(sqe, op->fd, u->buffers + (size_t)op->buffer * MUX_RECV_MAX,
			   MUX_RECV_MAX, wait_flag(u));
}

/* MSG_WAITALL: the kernel itself goes on after a short send where it can. */
static void prepare_send(struct mux_uring *u, struct io_uring_sqe *sqe, struct mux_op *op)
{
	int go_on = (u->lacks & MUX_LACK_WAITALL) != 0 ? 0 : MSG_WAITALL;
	int last = op->last ? MSG_MORE : 0;

	io_uring_prep_sendmsg(sqe, op->fd, &op->message,
			      (unsigned)(MSG_NOSIGNAL | go_on | last | wait_flag(u)));
}

static void prepare_poll(struct io_uring_sqe *sqe, struct mux_op *op)
{
	bool writes = op->verb == MUX_SEND || op->verb == MUX_CONNECT;

	io_uring_prep_poll_add(sqe, op->fd, writes ? POLLOUT : POLLIN);
}

static void prepare_accept(struct mux_uring *u, struct io_uring_sqe *sqe, struct mux_op *op)
{
	if ((u->lacks & MUX_LACK_MULTISHOT_ACCEPT) != 0 || op->buffer != 0) {
		io_uring_prep_accept(sqe, op->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	} else {
		io_uring_prep_multishot_accept(sqe, op->fd, NULL, NULL,
					       SOCK_NONBLOCK | SOCK_CLOEXEC);
	}
}

static void prepare(struct mux_uring *u, struct io_uring_sqe *sqe, struct mux_op *op)
{
	switch (op->verb) {
	case MUX_ACCEPT:
		prepare_accept(u, sqe, op);
		break;
	case MUX_CONNECT:
		io_uring_prep_connect(sqe, op->fd, (struct sockaddr *)&op->address,
				      op->address_len);
		break;
	case MUX_RECV:
		prepare_recv(u, sqe, op);
		break;
	case MUX_SEND:
		prepare_send(u, sqe, op);
		break;
	case MUX_POLL_FD:
		io_uring_prep_poll_add(sqe, op->fd, (unsigned)op->events);
		break;
	case MUX_READ:
		io_uring_prep_read(sqe, op->fd, op->data, op->len, op->offset);
		break;
	case MUX_WRITE:
		io_uring_prep_write(sqe, op->fd, op->data, op->len, op->offset);
		sqe->rw_flags = op->synced ? RWF_DSYNC : 0;
		break;
	case MUX_FSYNC:
		io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
		break;
	case MUX_IDLE:
	case MUX_NOP:
		ASSERT(op->verb != MUX_IDLE && op->verb != MUX_NOP);
	}
}

/* Puts the op's next request into the submission queue, or the op into the list of what it lacks.
 */
BOUND
static void uring_queue(struct mux_uring *u, struct mux_op *op)
{
	struct io_uring_sqe *sqe;
	bool needs_own_buffer = op->verb == MUX_RECV && !op->polling && u->buffer_ring == NULL;

	if (needs_own_buffer && u->free_count == 0) {
		mux_list_push(&u->starved, op);
		return;
	}
	sqe = sqe_get(u);
	if (sqe == NULL) {
		mux_list_push(&u->unqueued, op);
		return;
	}
	if (op->polling) {
		prepare_poll(sqe, op);
	} else {
		prepare(u, sqe, op);
	}
	io_uring_sqe_set_data64(sqe, (uintptr_t)op);
}

BOUND
static void queue_poll_first(struct mux_uring *u, struct mux_op *op)
{
	op->polling = true;
	uring_queue(u, op);
}

BOUND
static void queue_cancel(struct mux_uring *u, struct mux_op *op)
{
	struct io_uring_sqe *sqe = sqe_get(u);

	if (sqe == NULL) {
		mux_list_push(&u->uncancelled, op);
		return;
	}
	io_uring_prep_cancel64(sqe, (uintptr_t)op, 0);
	io_uring_sqe_set_data64(sqe, TAG_CANCEL);
}

/* The poll sees each write to the eventfd as an edge, so that nobody has to read it. A new poll
 * fires at once when it was ever written: one wake-up too many, none too few. */
static void arm_doorbell(struct mux_uring *u)
{
	struct io_uring_sqe *sqe = sqe_get(u);

	u->doorbell_unarmed = sqe == NULL;
	if (sqe != NULL) {
		io_uring_prep_poll_multishot(sqe, u->doorbell_fd, POLLIN);
		io_uring_sqe_set_data64(sqe, TAG_DOORBELL);
	}
}

BOUND
static void uring_start(struct mux *m, struct mux_op *op)
{
	struct mux_uring *u = uring_of(m);

	if (op->verb == MUX_NOP) {
		mux_list_push(&u->done, op);
		return;
	}
	op->buffer = 0;
	/* An idle connection must not hold a buffer. */
	op->polling = op->verb == MUX_RECV && u->buffer_ring == NULL;
	uring_queue(u, op);
}

BOUND
static void uring_cancel(struct mux *m, struct mux_op *op)
{
	struct mux_uring *u = uring_of(m);

	if (op->list == &u->done) {
		return;
	}
	if (op->list == NULL) {
		queue_cancel(u, op);
		return;
	}
	mux_list_remove(op);
	op->result = -ECANCELED;
	mux_list_push(&u->done, op);
}

static void uring_close_fd(struct mux *m, int fd)
{
	(void)m;
	close(fd);
}

static void uring_watch_doorbell(struct mux *m, int eventfd)
{
	struct mux_uring *u = uring_of(m);

	ASSERT(u->doorbell_fd == -1);
	u->doorbell_fd = eventfd;
	arm_doorbell(u);
}

/* True for a failure after which the same request is made again. */
static bool transient(const struct mux_op *op, int result)
{
	return !op->cancelled && (result == -EAGAIN || result == -EINTR);
}

BOUND
static void queue_again(struct mux_uring *u, struct mux_op *op, int result)
{
	if (result == -EAGAIN) {
		queue_poll_first(u, op);
	} else {
		uring_queue(u, op);
	}
}

/* Each of the following takes one completion of an op; true when it ran the callback. */

BOUND
static bool on_polled(struct mux_uring *u, struct mux_op *op, int result)
{
	op->polling = false;
	if (op->cancelled || result < 0) {
		mux_finish(&u->mux, op, op->cancelled ? -ECANCELED : result);
		return true;
	}
	uring_queue(u, op);
	return false;
}

/* A connection came; unless `more` are announced the kernel has let go of the op. */
BOUND
static void on_connection(struct mux_uring *u, struct mux_op *op, int fd, bool more)
{
	if (!more && op->cancelled) {
		op->result = -ECANCELED;
		mux_list_push(&u->done, op);
	} else if (!more) {
		uring_queue(u, op);
	}
	mux_complete(&u->mux, op, fd);
}

BOUND
static bool on_accept(struct mux_uring *u, struct mux_op *op, int result, bool more)
{
	if (result >= 0) {
		on_connection(u, op, result, more);
		return true;
	}
	if (transient(op, result)) {
		queue_again(u, op, result);
		return false;
	}
	if (result == -EINVAL && op->buffer == 0 && !op->cancelled) {
		/* Perhaps the kernel knows no multishot; if not, the same error comes again. */
		op->buffer = 1;
		uring_queue(u, op);
		return false;
	}
	mux_finish(&u->mux, op, op->cancelled ? -ECANCELED : result);
	return true;
}

BOUND
static bool on_recv(struct mux_uring *u, struct mux_op *op, int result, unsigned flags)
{
	bool ring = u->buffer_ring != NULL;
	bool holds = !ring || (flags & IORING_CQE_F_BUFFER) != 0;
	unsigned id = ring ? flags >> IORING_CQE_BUFFER_SHIFT : op->buffer;
	bool starved = result == -ENOBUFS && ring && !op->cancelled;
	bool again = starved || transient(op, result);

	op->more = (flags & IORING_CQE_F_SOCK_NONEMPTY) != 0;
	if (starved) {
		mux_list_push(&u->starved, op);
	} else if (!again) {
		op->data = holds ? u->buffers + (size_t)id * MUX_RECV_MAX : NULL;
		mux_finish(&u->mux, op, op->cancelled && result < 0 ? -ECANCELED : result);
	}
	if (holds) {
		buffer_recycle(u, id);
	}
	if (again && !starved) {
		queue_again(u, op, result);
	}
	return !again;
}

BOUND
static bool on_send(struct mux_uring *u, struct mux_op *op, int result)
{
	if (result >= 0 && mux_send_advance(op, (uint32_t)result)) {
		mux_finish(&u->mux, op, (int)op->len);
		return true;
	}
	if (op->cancelled && (result >= 0 || result == -EAGAIN || result == -EINTR)) {
		result = -ECANCELED;
	}
	if (result < 0 && !transient(op, result)) {
		mux_finish(&u->mux, op, result);
		return true;
	}
	queue_again(u, op, result);
	return false;
}

BOUND
static bool on_op(struct mux_uring *u, struct mux_op *op, int result, unsigned flags)
{
	if (op->list == &u->uncancelled) {
		mux_list_remove(op);
	}
	ASSERT(mux_op_busy(op));
	if (op->polling) {
		return on_polled(u, op, result);
	}
	switch (op->verb) {
	case MUX_ACCEPT:
		return on_accept(u, op, result, (flags & IORING_CQE_F_MORE) != 0);
	case MUX_RECV:
		return on_recv(u, op, result, flags);
	case MUX_SEND:
		return on_send(u, op, result);
	default:
		/* A file operation that a cancel found at work ends with -EINTR. */
		mux_finish(&u->mux, op, op->cancelled && result == -EINTR ? -ECANCELED : result);
		return true;
	}
}

BOUND
static bool on_cqe(struct mux_uring *u, const struct io_uring_cqe *cqe)
{
	if (cqe->user_data == TAG_CANCEL) {
		return false;
	}
	if (cqe->user_data == TAG_DOORBELL) {
		if ((cqe->flags & IORING_CQE_F_MORE) == 0) {
			arm_doorbell(u);
		}
		return false;
	}
	return on_op(u, (struct mux_op *)(uintptr_t)cqe->user_data, cqe->res, cqe->flags);
}

BOUND
static int reap_done(struct mux_uring *u, int limit)
{
	int ran = 0;

	while (ran < limit && u->done.head != NULL) {
		struct mux_op *op = mux_list_pop(&u->done);

		mux_finish(&u->mux, op, op->result);
		ran++;
	}
	return ran;
}

/* Peeking enters the kernel only when it has announced deferred work or an overflow. */
BOUND
static int uring_reap(struct mux *m, int limit)
{
	struct mux_uring *u = uring_of(m);
	int ran = reap_done(u, limit);

	for (int seen = ran; seen < limit; seen++) {
		struct io_uring_cqe *cqe;
		struct io_uring_cqe copy;

		if (io_uring_peek_cqe(&u->ring, &cqe) != 0) {
			break;
		}
		copy.user_data = cqe->user_data;
		copy.res = cqe->res;
		copy.flags = cqe->flags;
		io_uring_cqe_seen(&u->ring, cqe);
		ran += on_cqe(u, &copy) ? 1 : 0;
	}
	return ran;
}

/* As many as got a buffer back since, and one more so that the list cannot be forgotten. */
BOUND
static void feed_starved(struct mux_uring *u)
{
	unsigned count = u->recycled + 1;

	u->recycled = 0;
	while (count-- > 0 && u->starved.head != NULL) {
		if (u->buffer_ring == NULL && u->free_count == 0) {
			return;
		}
		uring_queue(u, mux_list_pop(&u->starved));
	}
}

/* Queues what had no room before. */
BOUND
static void queue_waiting(struct mux_uring *u)
{
	if (u->doorbell_unarmed) {
		arm_doorbell(u);
	}
	while (u->uncancelled.head != NULL && io_uring_sq_space_left(&u->ring) > 0) {
		queue_cancel(u, mux_list_pop(&u->uncancelled));
	}
	while (u->unqueued.head != NULL && io_uring_sq_space_left(&u->ring) > 0) {
		uring_queue(u, mux_list_pop(&u->unqueued));
	}
	feed_starved(u);
}

/* The same system call runs deferred work, so that the next reap need not. */
BOUND
static void uring_submit(struct mux *m)
{
	struct mux_uring *u = uring_of(m);

	queue_waiting(u);
	if (io_uring_sq_ready(&u->ring) > 0) {
		check_enter(io_uring_submit_and_get_events(&u->ring));
	}
}

static bool uring_ready(struct mux *m)
{
	struct mux_uring *u = uring_of(m);
	unsigned flags = __atomic_load_n(u->ring.sq.kflags, __ATOMIC_RELAXED);

	return u->done.head != NULL || io_uring_cq_ready(&u->ring) > 0 ||
	       (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

BOUND
static bool uring_wait(struct mux *m, uint64_t timeout_ns)
{
	struct mux_uring *u = uring_of(m);
	struct __kernel_timespec timeout = {
		.tv_sec = (int64_t)(timeout_ns / NS_PER_S),
		.tv_nsec = (long long)(timeout_ns % NS_PER_S),
	};
	struct io_uring_cqe *cqe;
	int result;

	if (uring_ready(m)) {
		uring_submit(m);
		return true;
	}
	queue_waiting(u);
	result = io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &timeout, NULL);
	check_enter(result);
	return uring_ready(m) || (result < 0 && result != -ETIME);
}

static void uring_free(struct mux_uring *u)
{
	if (u->buffers != NULL) {
		munmap(u->buffers, (size_t)BUFFERS * MUX_RECV_MAX);
	}
	if (u->buffer_ring != NULL) {
		munmap(u->buffer_ring, BUFFERS * sizeof(struct io_uring_buf));
	}
	free(u);
}

static void uring_destroy(struct mux *m)
{
	struct mux_uring *u = uring_of(m);

	io_uring_queue_exit(&u->ring);
	uring_free(u);
}

static const struct mux_ops uring_ops = {
	.name = "uring",
	.start = uring_start,
	.cancel = uring_cancel,
	.close_fd = uring_close_fd,
	.watch_doorbell = uring_watch_doorbell,
	.reap = uring_reap,
	.submit = uring_submit,
	.ready = uring_ready,
	.wait = uring_wait,
	.destroy = uring_destroy,
};

/* The kernel rejects flags that it does not know, so the best set is tried first. */
static int ring_setup(struct mux_uring *u, unsigned entries)
{
	static const unsigned sets[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
			IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL,
		0,
	};
	size_t first = (u->lacks & MUX_LACK_DEFER_TASKRUN) != 0 ? 1 : 0;
	int error = -EINVAL;

	for (size_t i = first; i < sizeof(sets) / sizeof(sets[0]) && error == -EINVAL; i++) {
		struct io_uring_params params = {
			.flags = sets[i] | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
			.cq_entries = 4 * entries,
		};

		error = io_uring_queue_init_params(entries, &u->ring, &params);
	}
	if (error == 0 && (u->ring.features & FEATURES_NEEDED) != FEATURES_NEEDED) {
		io_uring_queue_exit(&u->ring);
		return -ENOSYS;
	}
	return error;
}

static void *map_pages(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Leaves u->buffer_ring NULL when the kernel has none. */
static int buffers_setup(struct mux_uring *u)
{
	struct io_uring_buf_reg reg = {.ring_entries = BUFFERS, .bgid = BUFFER_GROUP};
	size_t ring_bytes = BUFFERS * sizeof(struct io_uring_buf);

	u->buffers = map_pages((size_t)BUFFERS * MUX_RECV_MAX);
	if (u->buffers == NULL) {
		return -ENOMEM;
	}
	if ((u->lacks & MUX_LACK_BUFFER_RING) == 0) {
		u->buffer_ring = map_pages(ring_bytes);
		if (u->buffer_ring == NULL) {
			return -ENOMEM;
		}
		reg.ring_addr = (uintptr_t)u->buffer_ring;
		if (io_uring_register_buf_ring(&u->ring, &reg, 0) != 0) {
			munmap(u->buffer_ring, ring_bytes);
			u->buffer_ring = NULL;
		}
	}
	for (unsigned id = 0; id < BUFFERS; id++) {
		buffer_recycle(u, id);
	}
	u->recycled = 0;
	return 0;
}

int mux_uring_create(struct mux **out, unsigned entries, unsigned lacks)
{
	struct mux_uring *u = calloc(1, sizeof(*u));
	int error;

	if (u == NULL) {
		return -ENOMEM;
	}
	u->mux.magic = MUX_MAGIC;
	u->mux.ops = &uring_ops;
	u->lacks = lacks;
	u->doorbell_fd = -1;
	entries = entries < SQ_MIN ? SQ_MIN : entries;
	error = ring_setup(u, entries > SQ_MAX ? SQ_MAX : entries);
	if (error != 0) {
		free(u);
		return error;
	}
	/* Saves a look-up in each system call; does no harm where it fails. */
	io_uring_register_ring_fd(&u->ring);
	error = buffers_setup(u);
	if (error != 0) {
		uring_destroy(&u->mux);
		return error;
	}
	*out = &u->mux;
	return 0;
}
