/*
 * Groups as threads: every idle strategy, every multiplexor, and that a parked group loses no
 * wake-up.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "agents/wheel.h"
#include "core/runtime/runtime.h"

/* One of two agents that throw a ball to each other. */
struct thrower {
	struct agent base;
	struct thrower *peer;
	uint64_t seen;
	uint64_t wrong;
	bool serves;
	uint64_t trips;
	pthread_t thread;
	char story[128];
};

struct pair {
	struct thrower a;
	struct thrower b;
	struct runtime rt;
};

static struct thrower *thrower_of(struct agent *a)
{
	CHECK_MAGIC(a, AGENT_MAGIC);
	return CONTAINER_OF(a, struct thrower, base);
}

static void on_ball(struct agent *self, void *object, uint64_t value)
{
	struct thrower *t = thrower_of(self);

	(void)object;
	/* Runs in a thread where an assertion of the test's own could not be caught. */
	t->wrong += !pthread_equal(t->thread, pthread_self());
	t->wrong += value != 2 * t->seen + (t->serves ? 1 : 0);
	t->seen++;
	if (value + 1 == 2 * t->trips) {
		runtime_stop(self->runtime);
		return;
	}
	agent_send(self, &t->peer->base, on_ball, NULL, value + 1);
}

static int thrower_start(struct agent *self)
{
	thrower_of(self)->thread = pthread_self();
	strcat(thrower_of(self)->story, "start;");
	return 0;
}

static void thrower_complete(struct agent *self)
{
	struct thrower *t = thrower_of(self);

	strcat(t->story, "complete;");
	if (t->serves) {
		agent_send(self, &t->peer->base, on_ball, NULL, 0);
	}
}

static int thrower_do_work(struct agent *self)
{
	thrower_of(self)->wrong += agent_current != self;
	return 0;
}

static void thrower_stop(struct agent *self)
{
	strcat(thrower_of(self)->story, "stop;");
}

static void thrower_tear_down(struct agent *self)
{
	thrower_of(self)->wrong += !pthread_equal(thrower_of(self)->thread, pthread_self());
	strcat(thrower_of(self)->story, "down;");
}

static const struct agent_ops thrower_ops = {
	.kind = "thrower",
	.start = thrower_start,
	.start_complete = thrower_complete,
	.do_work = thrower_do_work,
	.stop = thrower_stop,
	.tear_down = thrower_tear_down,
};

/* The threads of these tests are more than the cores there may be. */
static void ignore_warning(void *context, const char *text)
{
	(void)context;
	(void)text;
}

static struct pair *pair_make(enum mux_backend backend, const struct idle *idle, uint64_t trips)
{
	struct pair *p = aligned_alloc(CACHE_LINE, sizeof(*p));

	assert_non_null(p);
	memset(p, 0, sizeof(*p));
	runtime_init(&p->rt, &clock_system);
	p->rt.backend = backend;
	p->rt.mux_entries = 64;
	p->rt.warn = ignore_warning;
	agent_init(&p->a.base, &thrower_ops, "a", 0);
	agent_init(&p->b.base, &thrower_ops, "b", 0);
	p->a.peer = &p->b;
	p->b.peer = &p->a;
	p->a.trips = trips;
	p->b.trips = trips;
	p->a.serves = true;
	runtime_add(&p->rt, runtime_group(&p->rt, "group.a", -1, idle), &p->a.base);
	runtime_add(&p->rt, runtime_group(&p->rt, "group.b", -1, idle), &p->b.base);
	assert_int_equal(runtime_prepare(&p->rt), 0);
	return p;
}

static void pair_free(struct pair *p)
{
	runtime_close(&p->rt);
	agent_close(&p->a.base);
	agent_close(&p->b.base);
	free(p);
}

static void check_trips(enum mux_backend backend, const struct idle *idle, uint64_t trips)
{
	struct pair *p = pair_make(backend, idle, trips);

	assert_int_equal(runtime_run(&p->rt), 0);
	assert_int_equal(p->a.wrong + p->b.wrong, 0);
	assert_int_equal(p->a.seen + p->b.seen, 2 * trips);
	assert_int_equal(counter_total("park_timeout_with_work"), 0);
	assert_string_equal(p->a.story, "start;complete;stop;down;");
	assert_string_equal(p->b.story, "start;complete;stop;down;");
	assert_false(pthread_equal(p->a.thread, p->b.thread));
	if (idle->kind != IDLE_BACKOFF) {
		assert_int_equal(counter_get(p->rt.groups[0]->parks) > 0, idle->kind == IDLE_PARK);
	}
	pair_free(p);
}

/* Strategies that never give the core away need few trips where threads share a core. */
static void test_run_when_busy_spin(void **state)
{
	(void)state;
	check_trips(MUX_AUTO, &(struct idle){.kind = IDLE_BUSY_SPIN}, 300);
}

static void test_run_when_noop(void **state)
{
	(void)state;
	check_trips(MUX_AUTO, &(struct idle){.kind = IDLE_NOOP}, 300);
}

static void test_run_when_yield(void **state)
{
	(void)state;
	check_trips(MUX_AUTO, &(struct idle){.kind = IDLE_YIELD}, 2000);
}

static void test_run_when_sleep(void **state)
{
	(void)state;
	check_trips(MUX_AUTO, &(struct idle){.kind = IDLE_SLEEP, .sleep_ns = 1000}, 2000);
}

static void test_run_when_backoff(void **state)
{
	const struct idle idle = {
		.kind = IDLE_BACKOFF,
		.max_spins = 2,
		.max_yields = 2,
		.min_park_ns = NS_PER_US,
		.max_park_ns = NS_PER_MS,
	};

	(void)state;
	check_trips(MUX_AUTO, &idle, 5000);
}

static void test_run_when_park_with_the_best_multiplexor(void **state)
{
	(void)state;
	check_trips(MUX_AUTO, &(struct idle){.kind = IDLE_PARK}, 100000);
}

static void test_run_when_park_with_epoll(void **state)
{
	(void)state;
	check_trips(MUX_EPOLL, &(struct idle){.kind = IDLE_PARK}, 100000);
}

static void test_run_when_park_with_poll(void **state)
{
	(void)state;
	check_trips(MUX_POLL, &(struct idle){.kind = IDLE_PARK}, 100000);
}

/* Parking and ringing meet in other ways when there is a little spinning first. */
static void test_run_when_park_after_spinning(void **state)
{
	struct pair *p = pair_make(MUX_EPOLL, &(struct idle){.kind = IDLE_PARK}, 50000);

	(void)state;
	p->rt.groups[0]->idle.spin_ns = 2000;
	p->rt.groups[1]->idle.spin_ns = 5000;
	assert_int_equal(runtime_run(&p->rt), 0);
	assert_int_equal(p->a.wrong + p->b.wrong, 0);
	assert_int_equal(p->a.seen + p->b.seen, 100000);
	assert_int_equal(counter_total("park_timeout_with_work"), 0);
	pair_free(p);
}

/* ... of which there is none where threads that spin outnumber the cores. */
static void test_run_when_the_cores_are_crowded(void **state)
{
	struct pair *p = pair_make(MUX_EPOLL, &(struct idle){.kind = IDLE_PARK}, 1000);

	(void)state;
	p->rt.groups[0]->idle.spin_ns = NS_PER_S;
	p->rt.groups[1]->idle.spin_ns = NS_PER_S;
	atomic_store(&p->rt.crowded, true);
	assert_int_equal(runtime_run(&p->rt), 0);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(p->rt.groups[i]->idle.budget_ns, 0);
		assert_true(p->rt.groups[i]->idle.crowded);
	}
	pair_free(p);
}

/* An agent that lets its group sleep, and wakes it by a timer only. */
struct sleeper {
	struct agent base;
	struct timer timer;
	unsigned fired;
	unsigned early;
	uint64_t due_ms;
};

static void on_timer(struct timer *t)
{
	struct sleeper *s = CONTAINER_OF(t, struct sleeper, timer);

	/* The wheel's clock may be ahead of this agent's, whose cycle began before. */
	s->early += clock_read(&clock_system).mono_ns / NS_PER_MS + 1 < s->due_ms;
	if (++s->fired == 20) {
		runtime_stop(s->base.runtime);
		return;
	}
	s->due_ms = agent_now_ms(&s->base) + 2;
	timer_arm(t, s->due_ms);
}

static void sleeper_complete(struct agent *self)
{
	struct sleeper *s = CONTAINER_OF(self, struct sleeper, base);

	s->due_ms = agent_now_ms(self) + 2;
	timer_arm(&s->timer, s->due_ms);
}

static int sleeper_do_work(struct agent *self)
{
	(void)self;
	return 0;
}

static const struct agent_ops sleeper_ops = {
	.kind = "sleeper",
	.start_complete = sleeper_complete,
	.do_work = sleeper_do_work,
};

/* Two parked groups: the wheel's wakes for the deadline, not for the longest park. */
static void check_deadlines(enum mux_backend backend)
{
	const struct idle idle = {.kind = IDLE_PARK};
	struct wheel_agent *wheel = wheel_agent_create("wheel");
	struct sleeper *s = aligned_alloc(CACHE_LINE, sizeof(*s));
	struct runtime rt;
	struct instant began;
	uint64_t took_ns;

	assert_non_null(s);
	memset(s, 0, sizeof(*s));
	runtime_init(&rt, &clock_system);
	rt.backend = backend;
	rt.warn = ignore_warning;
	agent_init(&s->base, &sleeper_ops, "sleeper", 0);
	timer_init(&s->timer, &s->base, on_timer);
	runtime_add(&rt, runtime_group(&rt, "main", -1, &idle), &s->base);
	runtime_add(&rt, runtime_group(&rt, "service", -1, &idle), wheel_agent_base(wheel));
	runtime_set_wheel(&rt, wheel_agent_base(wheel), wheel_agent_on_arm);
	assert_int_equal(runtime_prepare(&rt), 0);
	began = clock_read(&clock_system);
	assert_int_equal(runtime_run(&rt), 0);
	took_ns = clock_read(&clock_system).mono_ns - began.mono_ns;
	assert_int_equal(s->fired, 20);
	assert_int_equal(s->early, 0);
	assert_true(took_ns >= 20 * NS_PER_MS);
	assert_int_equal(counter_total("expired"), 20);
	assert_int_equal(counter_total("park_timeout_with_work"), 0);
	runtime_close(&rt);
	agent_close(&s->base);
	free(s);
	wheel_agent_destroy(wheel);
}

static void test_park_when_a_deadline_is_near(void **state)
{
	(void)state;
	check_deadlines(MUX_AUTO);
	check_deadlines(MUX_EPOLL);
	check_deadlines(MUX_POLL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_run_when_busy_spin),
		cmocka_unit_test(test_run_when_noop),
		cmocka_unit_test(test_run_when_yield),
		cmocka_unit_test(test_run_when_sleep),
		cmocka_unit_test(test_run_when_backoff),
		cmocka_unit_test(test_run_when_park_with_the_best_multiplexor),
		cmocka_unit_test(test_run_when_park_with_epoll),
		cmocka_unit_test(test_run_when_park_with_poll),
		cmocka_unit_test(test_run_when_park_after_spinning),
		cmocka_unit_test(test_run_when_the_cores_are_crowded),
		cmocka_unit_test(test_park_when_a_deadline_is_near),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
