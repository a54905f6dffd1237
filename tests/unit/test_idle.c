#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/runtime/idle.h"

static void test_name_when_any_kind(void **state)
{
	(void)state;
	assert_string_equal(idle_name(IDLE_BUSY_SPIN), "busy-spin");
	assert_string_equal(idle_name(IDLE_YIELD), "yield");
	assert_string_equal(idle_name(IDLE_BACKOFF), "backoff");
	assert_string_equal(idle_name(IDLE_SLEEP), "sleep");
	assert_string_equal(idle_name(IDLE_NOOP), "noop");
	assert_string_equal(idle_name(IDLE_PARK), "park");
}

static void test_step_when_there_was_work(void **state)
{
	(void)state;
	for (int kind = IDLE_BUSY_SPIN; kind <= IDLE_PARK; kind++) {
		struct idle idle = {.kind = (enum idle_kind)kind, .sleep_ns = 5, .min_park_ns = 5};
		uint64_t ns = 99;

		assert_int_equal(idle_step(&idle, 1, 0, &ns), IDLE_DO_NOTHING);
	}
}

static void check_always(struct idle idle, enum idle_action action, uint64_t sleep_ns)
{
	uint64_t ns;

	for (uint64_t i = 0; i < 100; i++) {
		assert_int_equal(idle_step(&idle, 0, i * 1000, &ns), action);
		assert_int_equal(ns, sleep_ns);
	}
}

static void test_step_when_strategy_has_no_state(void **state)
{
	(void)state;
	check_always((struct idle){.kind = IDLE_BUSY_SPIN}, IDLE_DO_PAUSE, 0);
	check_always((struct idle){.kind = IDLE_YIELD}, IDLE_DO_YIELD, 0);
	check_always((struct idle){.kind = IDLE_NOOP}, IDLE_DO_NOTHING, 0);
	check_always((struct idle){.kind = IDLE_SLEEP, .sleep_ns = 777}, IDLE_DO_SLEEP, 777);
}

/* What the kernel has to do on the same core waits no longer than that. */
static void test_spinning_thread_leaves_its_core_now_and_then(void **state)
{
	struct idle idle = {.kind = IDLE_BUSY_SPIN};
	uint64_t ns;

	(void)state;
	assert_int_equal(idle_step(&idle, 0, 1000000, &ns), IDLE_DO_YIELD);
	assert_int_equal(idle_step(&idle, 0, 1199999, &ns), IDLE_DO_PAUSE);
	assert_int_equal(idle_step(&idle, 1, 1250000, &ns), IDLE_DO_NOTHING);
	assert_int_equal(idle_step(&idle, 0, 1250001, &ns), IDLE_DO_YIELD);
	assert_int_equal(idle_step(&idle, 0, 1250002, &ns), IDLE_DO_PAUSE);
}

static struct idle backoff(void)
{
	return (struct idle){
		.kind = IDLE_BACKOFF,
		.max_spins = 3,
		.max_yields = 2,
		.min_park_ns = 1000,
		.max_park_ns = 5000,
	};
}

/* Pauses, yields, then sleeps that double up to the longest. */
static void check_backoff_from_start(struct idle *idle)
{
	static const uint64_t sleeps[] = {1000, 2000, 4000, 5000, 5000, 5000};
	uint64_t ns;

	for (int i = 0; i < 3; i++) {
		assert_int_equal(idle_step(idle, 0, 0, &ns), IDLE_DO_PAUSE);
	}
	for (int i = 0; i < 2; i++) {
		assert_int_equal(idle_step(idle, 0, 0, &ns), IDLE_DO_YIELD);
	}
	for (unsigned i = 0; i < sizeof(sleeps) / sizeof(sleeps[0]); i++) {
		assert_int_equal(idle_step(idle, 0, 0, &ns), IDLE_DO_SLEEP);
		assert_int_equal(ns, sleeps[i]);
	}
}

static void test_step_when_backoff(void **state)
{
	struct idle idle = backoff();

	(void)state;
	check_backoff_from_start(&idle);
}

/* Work in any phase starts it over. */
static void test_step_when_backoff_finds_work(void **state)
{
	(void)state;
	for (int idle_steps = 0; idle_steps < 9; idle_steps++) {
		struct idle idle = backoff();
		uint64_t ns;

		for (int i = 0; i < idle_steps; i++) {
			idle_step(&idle, 0, 0, &ns);
		}
		assert_int_equal(idle_step(&idle, 1, 0, &ns), IDLE_DO_NOTHING);
		check_backoff_from_start(&idle);
	}
}

static void test_step_when_backoff_has_no_spins_and_yields(void **state)
{
	struct idle idle = {.kind = IDLE_BACKOFF, .min_park_ns = 10, .max_park_ns = 10};
	uint64_t ns;

	(void)state;
	assert_int_equal(idle_step(&idle, 0, 0, &ns), IDLE_DO_SLEEP);
	assert_int_equal(ns, 10);
	assert_int_equal(idle_step(&idle, 0, 0, &ns), IDLE_DO_SLEEP);
	assert_int_equal(ns, 10);
}

static void test_step_when_park_has_a_spin_budget(void **state)
{
	struct idle idle = {.kind = IDLE_PARK, .spin_ns = 50};
	uint64_t ns;

	(void)state;
	for (int round = 0; round < 3; round++) {
		uint64_t t = 1000 * (uint64_t)round;

		assert_int_equal(idle_step(&idle, 1, t, &ns), IDLE_DO_NOTHING);
		assert_int_equal(idle_step(&idle, 0, t + 10, &ns), IDLE_DO_PAUSE);
		assert_int_equal(idle_step(&idle, 0, t + 59, &ns), IDLE_DO_PAUSE);
		assert_int_equal(idle_step(&idle, 0, t + 60, &ns), IDLE_DO_PARK);
		assert_int_equal(idle_step(&idle, 0, t + 61, &ns), IDLE_DO_PARK);
	}
}

/* Work that came each time so long after the last. */
static void wait_often(struct idle *idle, uint64_t wait_ns)
{
	uint64_t ns;

	for (uint64_t i = 0; i < 100; i++) {
		uint64_t t = 1000000000 + i * 1000000;

		idle_step(idle, 1, t, &ns);
		idle_step(idle, 0, t, &ns);
		idle_step(idle, 1, t + wait_ns, &ns);
	}
}

static void test_step_when_park_learns_what_pays(void **state)
{
	struct idle idle = {.kind = IDLE_PARK, .spin_ns = 50000};
	uint64_t ns;

	(void)state;
	wait_often(&idle, 60000);
	assert_int_equal(idle_step(&idle, 0, UINT64_C(2000000000), &ns), IDLE_DO_PARK);
	wait_often(&idle, 40000);
	assert_int_equal(idle_step(&idle, 0, UINT64_C(3000000000), &ns), IDLE_DO_PAUSE);
	/* However long a wait was, some short ones make it forgotten. */
	assert_int_equal(idle_step(&idle, 1, UINT64_C(90000000000), &ns), IDLE_DO_NOTHING);
	wait_often(&idle, 10000);
	assert_int_equal(idle_step(&idle, 0, UINT64_C(91000000000), &ns), IDLE_DO_PAUSE);
}

static void test_step_when_another_thread_takes_the_core(void **state)
{
	struct idle idle = {.kind = IDLE_PARK, .spin_ns = 50000};
	uint64_t t = 1000000000;
	uint64_t ns;

	(void)state;
	assert_int_equal(idle_step(&idle, 0, t, &ns), IDLE_DO_PAUSE);
	assert_int_equal(idle_step(&idle, 0, t + 19000, &ns), IDLE_DO_PAUSE);
	assert_int_equal(idle_step(&idle, 0, t + 40000, &ns), IDLE_DO_PARK);
	idle_step(&idle, 1, t + 41000, &ns);
	assert_int_equal(idle_step(&idle, 0, t + 42000, &ns), IDLE_DO_PARK);
	idle_step(&idle, 1, t + 43000, &ns);
	assert_int_equal(idle_step(&idle, 0, t + 11000000, &ns), IDLE_DO_PAUSE);
	/* A sleep in the kernel is no crowd. */
	assert_int_equal(idle_step(&idle, 0, t + 11015000, &ns), IDLE_DO_PAUSE);
	assert_int_equal(idle_step(&idle, 0, t + 11030000, &ns), IDLE_DO_PAUSE);
	assert_int_equal(idle_step(&idle, 0, t + 11049000, &ns), IDLE_DO_PAUSE);
	assert_int_equal(idle_step(&idle, 0, t + 11051000, &ns), IDLE_DO_PARK);
	assert_int_equal(idle_step(&idle, 0, t + 90000000, &ns), IDLE_DO_PARK);
	wait_often(&idle, 1000);
	assert_int_equal(idle_step(&idle, 0, t + 91000000, &ns), IDLE_DO_PAUSE);
}

static void test_step_when_park_coalesces(void **state)
{
	struct idle idle = {.kind = IDLE_PARK, .coalesce_ns = 7000};
	uint64_t ns;

	(void)state;
	for (uint64_t t = 0; t < 3000000; t += 1000000) {
		assert_int_equal(idle_step(&idle, 1, t, &ns), IDLE_DO_NOTHING);
		assert_int_equal(idle_step(&idle, 0, t + 10, &ns), IDLE_DO_SLEEP);
		assert_int_equal(ns, 7000);
		assert_int_equal(idle_step(&idle, 0, t + 8000, &ns), IDLE_DO_PARK);
		assert_int_equal(idle_step(&idle, 0, t + 9000, &ns), IDLE_DO_PARK);
	}
}

static void test_step_when_park_has_no_spin_budget(void **state)
{
	struct idle idle = {.kind = IDLE_PARK};
	uint64_t ns;

	(void)state;
	assert_int_equal(idle_step(&idle, 0, 5, &ns), IDLE_DO_PARK);
	assert_int_equal(idle_step(&idle, 0, 5, &ns), IDLE_DO_PARK);
}

/* Whoever would have to give a core up for it to spin is more important. */
static void test_step_when_the_cores_are_crowded(void **state)
{
	struct idle idle = {.kind = IDLE_PARK, .spin_ns = 50, .crowded = true};
	uint64_t ns;

	(void)state;
	assert_int_equal(idle_step(&idle, 1, 1000, &ns), IDLE_DO_NOTHING);
	assert_int_equal(idle_step(&idle, 0, 1010, &ns), IDLE_DO_PARK);
	assert_int_equal(idle_step(&idle, 1, 1020, &ns), IDLE_DO_NOTHING);
	idle.crowded = false;
	assert_int_equal(idle_step(&idle, 0, 1030, &ns), IDLE_DO_PAUSE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_name_when_any_kind),
		cmocka_unit_test(test_step_when_there_was_work),
		cmocka_unit_test(test_step_when_strategy_has_no_state),
		cmocka_unit_test(test_spinning_thread_leaves_its_core_now_and_then),
		cmocka_unit_test(test_step_when_backoff),
		cmocka_unit_test(test_step_when_backoff_finds_work),
		cmocka_unit_test(test_step_when_backoff_has_no_spins_and_yields),
		cmocka_unit_test(test_step_when_park_has_a_spin_budget),
		cmocka_unit_test(test_step_when_park_learns_what_pays),
		cmocka_unit_test(test_step_when_another_thread_takes_the_core),
		cmocka_unit_test(test_step_when_park_coalesces),
		cmocka_unit_test(test_step_when_park_has_no_spin_budget),
		cmocka_unit_test(test_step_when_the_cores_are_crowded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
