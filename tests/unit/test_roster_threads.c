/*
 * Threads that end when their last agent leaves a program which runs, and begin again when one
 * joins: those that were there from the start, and those that cannot start.
 */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "core/runtime/runtime.h"

/* A program that does not come to its end is ended. */
#define PATIENCE_S 120

/* What the host has done with the guest, one after the other; then it ends the program. */
enum order { STOP, JOIN, JOIN_IN_VAIN, LEAVE };

struct actor {
	struct agent base;
	int start_result;
	/* Waits for this to be readable from its start on; -1: for nothing. */
	int awaited_fd;
	struct mux_op op;
	unsigned starts;
	unsigned torn_down;
};

static struct actor host;
static struct actor guest;
static struct runtime rt;
static const enum order *orders;
static bool changing;
static int results[8];
static unsigned result_count;
/* Whoever makes a thread hears so when that has ended. */
static bool late_news;
/* What an actor waits for whose start fails; -1: nothing. */
static int fd_of_failure;

/* The one that everybody here calls. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*main_of)(void *),
		   void *argument)
{
	int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
	const struct group *g = argument;
	int rc;

	*(void **)&create = dlsym(RTLD_NEXT, "pthread_create");
	rc = create(thread, attributes, main_of, argument);
	while (rc == 0 && late_news && !atomic_load(&g->ended)) {
		sched_yield();
	}
	return rc;
}

static struct actor *actor_of(struct agent *self)
{
	return CONTAINER_OF(self, struct actor, base);
}

static void on_readable(struct mux_op *op, int result)
{
	(void)op;
	(void)result;
}

static int on_start(struct agent *self)
{
	struct actor *a = actor_of(self);

	a->starts++;
	if (a->awaited_fd >= 0) {
		mux_op_init(&a->op, self, on_readable);
		mux_poll_fd(self->mux, &a->op, a->awaited_fd, POLLIN);
	}
	return a->start_result;
}

static void on_tear_down(struct agent *self)
{
	actor_of(self)->torn_down++;
}

static void on_done(void *context, int result)
{
	(void)context;
	results[result_count++] = result;
	guest.start_result = 0;
	guest.awaited_fd = -1;
	late_news = false;
	changing = false;
}

static int conduct(struct agent *self)
{
	int rc = 0;

	if (self != &host.base || changing || runtime_stopping(&rt)) {
		return 0;
	}
	changing = true;
	switch (*orders++) {
	case STOP:
		runtime_stop(&rt);
		break;
	case JOIN:
		rc = roster_join(&rt, rt.groups[1], &guest.base, on_done, NULL);
		break;
	case JOIN_IN_VAIN:
		guest.start_result = -EIO;
		guest.awaited_fd = fd_of_failure;
		late_news = true;
		rc = roster_join(&rt, rt.groups[1], &guest.base, on_done, NULL);
		break;
	case LEAVE:
		rc = roster_leave(&rt, &guest.base, on_done, NULL);
		break;
	}
	if (rc != 0) {
		on_done(NULL, rc);
	}
	return 1;
}

static const struct agent_ops ops = {
	.kind = "actor",
	.start = on_start,
	.do_work = conduct,
	.tear_down = on_tear_down,
};

static int setup(void **state)
{
	static const struct idle idle = {.kind = IDLE_PARK};

	(void)state;
	alarm(PATIENCE_S);
	changing = false;
	late_news = false;
	fd_of_failure = -1;
	result_count = 0;
	memset(&host, 0, sizeof host);
	memset(&guest, 0, sizeof guest);
	host.awaited_fd = -1;
	guest.awaited_fd = -1;
	runtime_init(&rt, &clock_system);
	rt.backend = MUX_EPOLL;
	agent_init(&host.base, &ops, "host", 0);
	agent_init(&guest.base, &ops, "guest", 0);
	runtime_add(&rt, runtime_group(&rt, "host", -1, &idle), &host.base);
	runtime_add(&rt, runtime_group(&rt, "guest", -1, &idle), &guest.base);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	runtime_close(&rt);
	agent_close(&host.base);
	agent_close(&guest.base);
	alarm(0);
	return 0;
}

static void run(const enum order *what)
{
	orders = what;
	assert_int_equal(runtime_prepare(&rt), 0);
	assert_int_equal(runtime_run(&rt), 0);
	assert_int_equal(counter_total("park_timeout_with_work"), 0);
}

static void test_leave_when_the_thread_was_there_from_the_start(void **state)
{
	static const enum order what[] = {LEAVE, JOIN, LEAVE, JOIN, STOP};

	(void)state;
	run(what);
	assert_int_equal(result_count, 4);
	for (unsigned i = 0; i < result_count; i++) {
		assert_int_equal(results[i], 0);
	}
	assert_int_equal(guest.starts, 3);
	assert_int_equal(guest.torn_down, 3);
}

static void test_stop_when_a_thread_of_the_start_has_ended(void **state)
{
	static const enum order what[] = {LEAVE, STOP};

	(void)state;
	run(what);
	assert_int_equal(result_count, 1);
	assert_int_equal(results[0], 0);
	assert_int_equal(guest.torn_down, 1);
}

/* It is nobody's thread any more, and may be made again. */
static void test_join_when_the_thread_has_ended_before_it_is_known(void **state)
{
	static const enum order what[] = {LEAVE, JOIN_IN_VAIN, JOIN, LEAVE, JOIN_IN_VAIN, STOP};
	static const int wanted[] = {0, -EIO, 0, 0, -EIO};

	(void)state;
	run(what);
	assert_int_equal(result_count, 5);
	assert_memory_equal(results, wanted, sizeof wanted);
	assert_int_equal(guest.starts, 4);
	assert_int_equal(guest.torn_down, 2);
}

/* Operations of a start that failed may go on: the kernel has their memory, and the program runs.
 */
static void test_join_when_a_failed_start_leaves_operations(void **state)
{
	static const enum order what[] = {LEAVE, JOIN_IN_VAIN, STOP};
	int ends[2];

	(void)state;
	assert_int_equal(pipe(ends), 0);
	fd_of_failure = ends[0];
	run(what);
	assert_int_equal(results[1], -EIO);
	assert_int_equal(mux_pending(guest.base.mux), 1);
	mux_cancel(guest.base.mux, &guest.op);
	mux_reap(guest.base.mux, 1);
	mux_destroy(guest.base.mux);
	close(ends[0]);
	close(ends[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_leave_when_the_thread_was_there_from_the_start),
		TEST(test_stop_when_a_thread_of_the_start_has_ended),
		TEST(test_join_when_the_thread_has_ended_before_it_is_known),
		TEST(test_join_when_a_failed_start_leaves_operations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
