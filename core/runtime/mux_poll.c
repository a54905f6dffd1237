/*
 * The poll(2) back end, for where there is nothing better. The array holds the descriptors that an
 * op waits for now, in no order; it fits hundreds of connections.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "core/runtime/clock.h"
#include "core/runtime/readiness.h"

#define SLOTS_MIN 64U

BOUND
struct mux_poll {
	struct readiness readiness;
	/* The first entry is the doorbell's, with fd -1 before it is known. */
	struct pollfd *entries;
	unsigned count;
	unsigned slots;
	/* A wait has asked the kernel since the last reap. */
	bool gathered;
};

static struct mux_poll *poll_of(struct mux *m)
{
	return CONTAINER_OF(m, struct mux_poll, readiness.mux);
}

static int entry_add(struct mux_poll *p, struct fd_state *state, int fd)
{
	if (p->count == p->slots) {
		unsigned slots = p->slots < SLOTS_MIN ? SLOTS_MIN : p->slots * 2;
		struct pollfd *entries = realloc(p->entries, slots * sizeof(*entries));

		if (entries == NULL) {
			return -ENOMEM;
		}
		p->entries = entries;
		p->slots = slots;
	}
	p->entries[p->count] = (struct pollfd){.fd = fd};
	state->slot = ++p->count;
	return 0;
}

/* The last entry takes its place. */
BOUND
static void entry_remove(struct mux_poll *p, struct fd_state *state)
{
	unsigned place = state->slot - 1;

	state->slot = 0;
	p->count--;
	if (place != p->count) {
		p->entries[place] = p->entries[p->count];
		readiness_fd(&p->readiness, p->entries[place].fd)->slot = place + 1;
	}
}

BOUND
static int poll_watch(struct readiness *r, int fd, int events)
{
	struct mux_poll *p = CONTAINER_OF(r, struct mux_poll, readiness);
	struct fd_state *state = readiness_fd(r, fd);

	if (events == 0) {
		if (state->slot != 0) {
			entry_remove(p, state);
		}
		return 0;
	}
	if (state->slot == 0) {
		int error = entry_add(p, state, fd);

		if (error != 0) {
			return error;
		}
	}
	p->entries[state->slot - 1].events = (short)events;
	return 0;
}

BOUND
static void poll_forget_fd(struct mux *m, int fd)
{
	/* No op uses the descriptor, so the array does not hold it. */
	readiness_forget(&poll_of(m)->readiness, fd);
}

BOUND
static void poll_close_fd(struct mux *m, int fd)
{
	poll_forget_fd(m, fd);
	close(fd);
}

static void poll_watch_doorbell(struct mux *m, int eventfd)
{
	struct mux_poll *p = poll_of(m);

	ASSERT(p->readiness.doorbell_fd == -1);
	p->readiness.doorbell_fd = eventfd;
	p->entries[0].fd = eventfd;
	p->entries[0].events = POLLIN;
}

/* Level triggered: the eventfd has to be read, and only here is it read. */
static void drain_doorbell(struct mux_poll *p)
{
	uint64_t rung;

	if ((p->entries[0].revents & POLLIN) != 0) {
		ssize_t n = read(p->readiness.doorbell_fd, &rung, sizeof(rung));

		ASSERT(n == (ssize_t)sizeof(rung) || errno == EAGAIN || errno == EINTR);
	}
}

/* True when there was an event, or a signal. */
BOUND
static bool gather(struct mux_poll *p, uint64_t timeout_ns)
{
	struct timespec timeout = {
		.tv_sec = (time_t)(timeout_ns / NS_PER_S),
		.tv_nsec = (long)(timeout_ns % NS_PER_S),
	};
	int n = ppoll(p->entries, p->count, &timeout, NULL);

	if (n < 0) {
		ASSERT(errno == EINTR || errno == ENOMEM);
		return true;
	}
	if (n == 0) {
		return false;
	}
	drain_doorbell(p);
	/* Backwards, because an event may take its entry out: the last one then fills the place. */
	for (unsigned i = p->count; i-- > 1;) {
		if (p->entries[i].revents != 0) {
			readiness_event(&p->readiness, p->entries[i].fd, p->entries[i].revents);
		}
	}
	return true;
}

BOUND
static int poll_reap(struct mux *m, int limit)
{
	struct mux_poll *p = poll_of(m);

	if (!p->gathered) {
		gather(p, 0);
	}
	p->gathered = false;
	return readiness_reap(&p->readiness, limit);
}

static void poll_submit(struct mux *m)
{
	(void)m;
}

BOUND
static bool poll_wait(struct mux *m, uint64_t timeout_ns)
{
	struct mux_poll *p = poll_of(m);

	if (readiness_ready(m)) {
		return true;
	}
	p->gathered = true;
	return gather(p, timeout_ns);
}

BOUND
static void poll_destroy(struct mux *m)
{
	struct mux_poll *p = poll_of(m);

	readiness_close(&p->readiness);
	free(p->entries);
	free(p);
}

static const struct mux_ops poll_ops = {
	.name = "poll",
	.start = readiness_start,
	.cancel = readiness_cancel,
	.close_fd = poll_close_fd,
	.forget_fd = poll_forget_fd,
	.watch_doorbell = poll_watch_doorbell,
	.reap = poll_reap,
	.submit = poll_submit,
	.ready = readiness_ready,
	.wait = poll_wait,
	.destroy = poll_destroy,
};

/* Needs no size: `entries` is for rings. */
int mux_poll_create(struct mux **out, unsigned entries)
{
	struct mux_poll *p = calloc(1, sizeof(*p));

	(void)entries;
	if (p == NULL) {
		return -ENOMEM;
	}
	p->entries = calloc(SLOTS_MIN, sizeof(*p->entries));
	p->slots = SLOTS_MIN;
	if (p->entries == NULL || readiness_init(&p->readiness, &poll_ops, poll_watch) != 0) {
		poll_destroy(&p->readiness.mux);
		return -ENOMEM;
	}
	p->entries[0].fd = -1;
	p->count = 1;
	*out = &p->readiness.mux;
	return 0;
}
