/*
 * Agents that join a program which runs and leave it again: who learns of it when, what is handed
 * over first, what stays, and what a stop does to a change.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/runtime/runtime.h"

struct guest {
	struct agent base;
	int start_result;
	bool busy;
	unsigned got;
	unsigned stopped;
	unsigned torn_down;
};

static struct guest host;
static struct guest other;
static struct guest guest;
static struct runtime rt;
static uint64_t now_ns;
static int result;
static unsigned done;
static unsigned warnings;

static struct guest *guest_of(struct agent *self)
{
	return CONTAINER_OF(self, struct guest, base);
}

static uint64_t fake_ns(void *context)
{
	(void)context;
	return now_ns;
}

static int on_start(struct agent *self)
{
	return guest_of(self)->start_result;
}

static int on_work(struct agent *self)
{
	(void)self;
	return 0;
}

static void on_stop(struct agent *self)
{
	guest_of(self)->stopped++;
}

static bool on_drained(struct agent *self)
{
	return !guest_of(self)->busy || atomic_load(&self->hurry);
}

static void on_tear_down(struct agent *self)
{
	guest_of(self)->torn_down++;
}

static const struct agent_ops ops = {
	.kind = "guest",
	.start = on_start,
	.do_work = on_work,
	.stop = on_stop,
	.drained = on_drained,
	.tear_down = on_tear_down,
};

static void on_task(struct agent *self, void *object, uint64_t value)
{
	(void)object;
	(void)value;
	guest_of(self)->got++;
}

static void on_done(void *context, int rc)
{
	(void)context;
	result = rc;
	done++;
}

static void on_warning(void *context, const char *text)
{
	(void)context;
	assert_non_null(strstr(text, "3 threads that spin share 2 usable cores: park sleeps"));
	warnings++;
}

static void steps(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		runtime_step(&rt);
	}
}

static int setup(void **state)
{
	static const struct idle idle = {.kind = IDLE_PARK};
	const struct clock clock = {.monotonic_ns = fake_ns, .wall_ns = fake_ns};

	(void)state;
	now_ns = NS_PER_S;
	done = 0;
	result = 1;
	warnings = 0;
	memset(&host, 0, sizeof host);
	memset(&other, 0, sizeof other);
	memset(&guest, 0, sizeof guest);
	runtime_init(&rt, &clock);
	rt.backend = MUX_POLL;
	rt.warn = on_warning;
	rt.ring_slots = 8;
	agent_init(&host.base, &ops, "host", 0);
	agent_init(&other.base, &ops, "other", 0);
	agent_init(&guest.base, &ops, "guest", 0);
	runtime_add(&rt, runtime_group(&rt, "host", -1, &idle), &host.base);
	runtime_add(&rt, runtime_group(&rt, "other", -1, &idle), &other.base);
	runtime_group(&rt, "guest", -1, &idle);
	assert_int_equal(runtime_prepare(&rt), 0);
	assert_int_equal(runtime_invoke_start(&rt), 0);
	steps(1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_true(runtime_invoke_stop(&rt, 100));
	runtime_close(&rt);
	agent_close(&host.base);
	agent_close(&other.base);
	agent_close(&guest.base);
	return 0;
}

static void join(struct group *g)
{
	done = 0;
	assert_int_equal(roster_enlist(&rt, &guest.base), 0);
	assert_int_equal(roster_join(&rt, g, &guest.base, on_done, NULL), 0);
	steps(5);
}

static void test_join_when_the_group_is_new(void **state)
{
	(void)state;
	join(rt.groups[2]);
	assert_int_equal(done, 1);
	assert_int_equal(result, 0);
	assert_true(agent_reaches(&other.base, &guest.base));
	assert_true(agent_reaches(&guest.base, &other.base));
	agent_send(&other.base, &guest.base, on_task, NULL, 0);
	agent_send(&guest.base, &other.base, on_task, NULL, 0);
	steps(2);
	assert_int_equal(guest.got, 1);
	assert_int_equal(other.got, 1);
}

static void test_join_when_the_group_runs(void **state)
{
	(void)state;
	join(rt.groups[1]);
	assert_int_equal(result, 0);
	assert_int_equal(rt.groups[1]->agent_count, 2);
	agent_send(&host.base, &guest.base, on_task, NULL, 0);
	steps(2);
	assert_int_equal(guest.got, 1);
	assert_int_equal(roster_leave(&rt, &guest.base, on_done, NULL), 0);
	steps(10);
	assert_int_equal(rt.groups[1]->agent_count, 1);
	assert_true(rt.groups[1]->live);
	assert_int_equal(guest.torn_down, 1);
}

/* Nothing is left behind of one that could not start, and it may try again. */
static void test_join_when_it_cannot_start(void **state)
{
	(void)state;
	guest.start_result = -EIO;
	join(rt.groups[2]);
	steps(5);
	assert_int_equal(result, -EIO);
	assert_null(other.base.out[guest.base.id]);
	assert_false(rt.groups[2]->live);
	guest.start_result = 0;
	join(rt.groups[2]);
	assert_int_equal(result, 0);
}

static void test_join_when_another_change_is_under_way(void **state)
{
	(void)state;
	assert_int_equal(roster_enlist(&rt, &guest.base), 0);
	assert_int_equal(roster_join(&rt, rt.groups[2], &guest.base, on_done, NULL), 0);
	assert_int_equal(roster_leave(&rt, &other.base, on_done, NULL), -EBUSY);
	steps(5);
}

/* What was sent before arrives; then it gets nothing new, and drains; its id and counts stay. */
static void test_leave_when_tasks_are_under_way(void **state)
{
	uint8_t id;

	(void)state;
	join(rt.groups[2]);
	id = guest.base.id;
	guest.busy = true;
	/* More than the ring holds. */
	for (unsigned i = 0; i < 100; i++) {
		agent_send(&other.base, &guest.base, on_task, NULL, 0);
	}
	assert_int_equal(roster_leave(&rt, &guest.base, on_done, NULL), 0);
	steps(1);
	assert_false(agent_reaches(&other.base, &guest.base));
	assert_int_equal(guest.stopped, 0);
	steps(60);
	assert_int_equal(guest.got, 100);
	assert_int_equal(guest.stopped, 1);
	assert_int_equal(guest.torn_down, 0);
	guest.busy = false;
	done = 0;
	steps(10);
	assert_int_equal(done, 1);
	assert_int_equal(guest.torn_down, 1);
	assert_null(other.base.out[id]);
	assert_null(atomic_load(&rt.links[0][id])->ring.slots);
	assert_int_equal(counter_get(guest.base.tasks_run), 100);
	join(rt.groups[2]);
	assert_int_equal(guest.base.id, id);
	assert_int_equal(rt.agent_count, 3);
}

static void test_leave_when_it_takes_too_long(void **state)
{
	(void)state;
	join(rt.groups[2]);
	guest.busy = true;
	assert_int_equal(roster_leave(&rt, &guest.base, on_done, NULL), 0);
	steps(20);
	assert_int_equal(done, 1);
	now_ns += rt.stop_timeout_ns + 1;
	steps(20);
	assert_int_equal(done, 2);
	assert_int_equal(result, 0);
}

/* It drains with all the others. */
static void test_stop_when_one_is_leaving(void **state)
{
	(void)state;
	join(rt.groups[2]);
	guest.busy = true;
	assert_int_equal(roster_leave(&rt, &guest.base, on_done, NULL), 0);
	steps(20);
	runtime_stop(&rt);
	steps(5);
	assert_int_equal(result, -ECANCELED);
	assert_int_equal(guest.stopped, 1);
	guest.busy = false;
}

static void test_tune_when_the_group_runs(void **state)
{
	const struct idle idle = {.kind = IDLE_BACKOFF, .max_park_ns = 1000};

	(void)state;
	assert_int_equal(roster_tune(&rt, rt.groups[1], 0, &idle, on_done, NULL), 0);
	assert_int_equal(atomic_load(&rt.groups[1]->idle_kind), IDLE_PARK);
	steps(3);
	assert_int_equal(done, 1);
	assert_int_equal(atomic_load(&rt.groups[1]->idle_kind), IDLE_BACKOFF);
	assert_int_equal(atomic_load(&rt.groups[1]->core), 0);
}

static void let_spin(struct group *g, uint64_t spin_ns)
{
	const struct idle idle = {.kind = IDLE_PARK, .spin_ns = spin_ns};

	assert_int_equal(roster_tune(&rt, g, -1, &idle, on_done, NULL), 0);
	steps(3);
}

/* Threads that join, leave, and get another strategy count; those that are not there do not. */
static void test_cores_are_crowded_while_too_many_spin(void **state)
{
	(void)state;
	rt.usable = (struct usable_cores){.cores = 2, .quota = 2, .usable = 2};
	rt.groups[2]->idle.spin_ns = 1000;
	let_spin(rt.groups[0], 1000);
	let_spin(rt.groups[1], 1000);
	assert_false(rt.crowded);
	join(rt.groups[2]);
	assert_true(rt.crowded);
	assert_int_equal(warnings, 1);
	/* They spin again when there is room. */
	assert_int_equal(rt.groups[1]->idle.spin_ns, 1000);
	assert_int_equal(roster_leave(&rt, &guest.base, on_done, NULL), 0);
	steps(10);
	assert_false(rt.crowded);
	join(rt.groups[2]);
	assert_true(rt.crowded);
	assert_int_equal(warnings, 2);
	let_spin(rt.groups[1], 0);
	assert_false(rt.crowded);
	let_spin(rt.groups[1], 1000);
	assert_true(rt.crowded);
	assert_int_equal(warnings, 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_join_when_the_group_is_new),
		TEST(test_join_when_the_group_runs),
		TEST(test_join_when_it_cannot_start),
		TEST(test_join_when_another_change_is_under_way),
		TEST(test_leave_when_tasks_are_under_way),
		TEST(test_leave_when_it_takes_too_long),
		TEST(test_stop_when_one_is_leaving),
		TEST(test_tune_when_the_group_runs),
		TEST(test_cores_are_crowded_while_too_many_spin),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
