/*
 * The epoll back end: each descriptor enters the set once, edge triggered in both directions, when
 * an op first has to wait for it. Closing the descriptor takes it out.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "core/runtime/clock.h"
#include "core/runtime/readiness.h"

#define EVENTS_MAX 256

_Static_assert(EPOLLIN == POLLIN && EPOLLOUT == POLLOUT && EPOLLERR == POLLERR &&
		       EPOLLHUP == POLLHUP && EPOLLRDHUP == POLLRDHUP,
	       "readiness_event() takes the events of poll(2)");

BOUND
struct mux_epoll {
	struct readiness readiness;
	int epoll_fd;
	/* epoll_pwait2() is there: time-outs in nanoseconds. */
	bool precise;
	/* A wait has asked the kernel since the last reap. */
	bool gathered;
	struct epoll_event events[EVENTS_MAX];
};

static struct mux_epoll *epoll_of(struct mux *m)
{
	return CONTAINER_OF(m, struct mux_epoll, readiness.mux);
}

/* An event that is there already counts as an edge when the descriptor enters the set, so nothing
 * is lost between the try and this. */
BOUND
static int epoll_watch(struct readiness *r, int fd, int events)
{
	struct mux_epoll *e = CONTAINER_OF(r, struct mux_epoll, readiness);
	struct fd_state *state = readiness_fd(r, fd);
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
				    .data.fd = fd};

	if (state->registered || events == 0) {
		return 0;
	}
	if (epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0) {
		return -errno;
	}
	state->registered = true;
	return 0;
}

/* An event of a descriptor that a child process still holds open may arrive under a number used
 * anew: it costs a try in vain. */
BOUND
static void epoll_close_fd(struct mux *m, int fd)
{
	readiness_forget(&epoll_of(m)->readiness, fd);
	close(fd);
}

/* As long as it is open the set would keep it. */
BOUND
static void epoll_forget_fd(struct mux *m, int fd)
{
	struct mux_epoll *e = epoll_of(m);
	struct fd_state *state = readiness_fd(&e->readiness, fd);

	if (state != NULL && state->registered) {
		epoll_ctl(e->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	}
	readiness_forget(&e->readiness, fd);
}

/* Edge triggered: each write to the eventfd is an event, and nobody has to read it. */
static void epoll_watch_doorbell(struct mux *m, int eventfd)
{
	struct mux_epoll *e = epoll_of(m);
	struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.fd = eventfd};

	ASSERT(e->readiness.doorbell_fd == -1);
	e->readiness.doorbell_fd = eventfd;
	if (epoll_ctl(e->epoll_fd, EPOLL_CTL_ADD, eventfd, &event) != 0) {
		fatal("epoll_ctl of the doorbell: error %d", errno);
	}
}

static int wait_precisely(struct mux_epoll *e, uint64_t timeout_ns)
{
	struct timespec timeout = {
		.tv_sec = (time_t)(timeout_ns / NS_PER_S),
		.tv_nsec = (long)(timeout_ns % NS_PER_S),
	};

	return epoll_pwait2(e->epoll_fd, e->events, EVENTS_MAX, &timeout, NULL);
}

static int wait_kernel(struct mux_epoll *e, uint64_t timeout_ns)
{
	uint64_t timeout_ms = timeout_ns / NS_PER_MS + (timeout_ns % NS_PER_MS != 0);

	if (e->precise && timeout_ns % NS_PER_MS != 0) {
		int n = wait_precisely(e, timeout_ns);

		if (n >= 0 || (errno != ENOSYS && errno != EPERM)) {
			return n;
		}
		e->precise = false;
	}
	return epoll_wait(e->epoll_fd, e->events, EVENTS_MAX,
			  timeout_ms < INT_MAX ? (int)timeout_ms : INT_MAX);
}

/* True when there was an event, or a signal. */
BOUND
static bool gather(struct mux_epoll *e, uint64_t timeout_ns)
{
	int n = wait_kernel(e, timeout_ns);

	if (n < 0) {
		ASSERT(errno == EINTR);
		return true;
	}
	for (int i = 0; i < n; i++) {
		if (e->events[i].data.fd != e->readiness.doorbell_fd) {
			readiness_event(&e->readiness, e->events[i].data.fd,
					(int)(e->events[i].events & 0xffffU));
		}
	}
	return n > 0;
}

BOUND
static int epoll_reap(struct mux *m, int limit)
{
	struct mux_epoll *e = epoll_of(m);

	if (!e->gathered) {
		gather(e, 0);
	}
	e->gathered = false;
	return readiness_reap(&e->readiness, limit);
}

static void epoll_submit(struct mux *m)
{
	(void)m;
}

BOUND
static bool epoll_mux_wait(struct mux *m, uint64_t timeout_ns)
{
	struct mux_epoll *e = epoll_of(m);

	if (readiness_ready(m)) {
		return true;
	}
	e->gathered = true;
	return gather(e, timeout_ns);
}

BOUND
static void epoll_destroy(struct mux *m)
{
	struct mux_epoll *e = epoll_of(m);

	close(e->epoll_fd);
	readiness_close(&e->readiness);
	free(e);
}

static const struct mux_ops epoll_ops = {
	.name = "epoll",
	.start = readiness_start,
	.cancel = readiness_cancel,
	.close_fd = epoll_close_fd,
	.forget_fd = epoll_forget_fd,
	.watch_doorbell = epoll_watch_doorbell,
	.reap = epoll_reap,
	.submit = epoll_submit,
	.ready = readiness_ready,
	.wait = epoll_mux_wait,
	.destroy = epoll_destroy,
};

/* Needs no size: `entries` is for rings. */
int mux_epoll_create(struct mux **out, unsigned entries)
{
	struct mux_epoll *e = calloc(1, sizeof(*e));
	int error;

	(void)entries;
	if (e == NULL) {
		return -ENOMEM;
	}
	e->precise = true;
	e->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (e->epoll_fd < 0) {
		error = -errno;
		free(e);
		return error;
	}
	error = readiness_init(&e->readiness, &epoll_ops, epoll_watch);
	if (error != 0) {
		close(e->epoll_fd);
		free(e);
		return error;
	}
	*out = &e->readiness.mux;
	return 0;
}
