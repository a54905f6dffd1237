/* Long work beside mail: how much of a step, and how long a rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/runtime/cpu_clock.h"
#include "listeners/control/pace.h"

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)

/* Runs `count` steps of things that take `each_ns`, with so much other work after each, one in
 * `apart_ns` by the clock. Returns how many of them rest, and how much CPU time they took in
 * `took_ns`. */
static unsigned run_steps(struct pace *p, unsigned count, uint64_t each_ns, uint64_t other_ns,
			  uint64_t apart_ns, uint64_t *took_ns)
{
	static uint64_t mono_ns = 77 * MS;
	static uint64_t cpu_ns = 5 * MS;
	unsigned rests = 0;

	*took_ns = 0;
	for (unsigned i = 0; i < count; i++) {
		int most = pace_begin(p, mono_ns, cpu_ns);

		assert_in_range(most, PACE_STEP_MIN, PACE_STEP_MAX);
		rests += p->rests;
		*took_ns += (unsigned)most * each_ns;
		cpu_ns += (unsigned)most * each_ns;
		pace_end(p, cpu_ns, (unsigned)most);
		cpu_ns += other_ns;
		mono_ns += apart_ns;
	}
	return rests;
}

static void test_idle_threads_go_on_without_rest(void **state)
{
	struct pace p = {0};
	uint64_t took_ns;

	(void)state;
	/* When it has been idle for a while, and again when it has been busy. */
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(run_steps(&p, 8, 200, 5 * US, MS, &took_ns), 8);
		assert_int_equal(run_steps(&p, 99, 200, 5 * US, MS, &took_ns), 0);
		assert_int_equal(run_steps(&p, 1, 200, 90 * US, MS, &took_ns), 0);
		assert_int_equal(run_steps(&p, 1, 200, 5 * US, MS, &took_ns), 1);
		p.quiet = 0;
	}
	/* Nor is anything busy where CPU time is not told. */
	p = (struct pace){0};
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(pace_begin(&p, 5, 0), PACE_STEP_MAX);
		assert_false(p.rests);
		pace_end(&p, 0, PACE_STEP_MAX);
	}
}

static void test_busy_threads_rest_after_short_steps(void **state)
{
	struct pace p = {0};
	uint64_t took_ns;

	(void)state;
	assert_int_equal(run_steps(&p, 100, 250, 100 * US, MS, &took_ns), 100);
	assert_in_range(took_ns, 100 * 190 * US, 100 * 205 * US);
	/* Longer ones when cycles are long, up to a millisecond. */
	run_steps(&p, 1, 250, 100 * US, 4 * MS, &took_ns);
	assert_int_equal(run_steps(&p, 100, 250, 100 * US, 4 * MS, &took_ns), 100);
	assert_in_range(took_ns, 100 * 490 * US, 100 * 500 * US);
	run_steps(&p, 1, 250, 100 * US, 100 * MS, &took_ns);
	run_steps(&p, 1, 250, 100 * US, MS, &took_ns);
	assert_int_equal(took_ns, MS);
	/* Whatever one thing takes. */
	run_steps(&p, 1, 1000, 100 * US, MS, &took_ns);
	assert_int_equal(run_steps(&p, 100, 1000, 100 * US, MS, &took_ns), 100);
	assert_in_range(took_ns, 100 * 190 * US, 100 * 205 * US);
}

static void test_a_step_is_never_nothing(void **state)
{
	struct pace p = {0};

	(void)state;
	(void)pace_begin(&p, MS, 1 * MS);
	/* Each of them took long. */
	pace_end(&p, 5 * MS, 4);
	assert_int_equal(pace_begin(&p, 6 * MS, 6 * MS), PACE_STEP_MIN);
	pace_end(&p, 7 * MS, 0);
	assert_int_equal(pace_begin(&p, 8 * MS, 8 * MS), PACE_STEP_MIN);
}

/* Runs pieces of `work_ns` for a second, while the thread that asks uses so many hundredths of its
 * core. Returns what share of a core the pieces took, in thousandths. */
static uint64_t share_of(struct pace_rest *r, uint64_t work_ns, uint64_t busy_percent)
{
	uint64_t began_ns = 77 * MS;
	uint64_t now_ns = began_ns;
	uint64_t used_ns = 0;

	while (now_ns < began_ns + 1000 * MS) {
		uint64_t until_ms;

		now_ns += work_ns;
		used_ns += work_ns;
		until_ms = pace_rest_until(
			r, now_ns, 3 * MS + (now_ns - began_ns) * busy_percent / 100, work_ns);
		if (until_ms * MS > now_ns) {
			now_ns = until_ms * MS;
		}
	}
	return used_ns * 1000 / (now_ns - began_ns);
}

static void test_pieces_rest_while_others_work(void **state)
{
	struct pace_rest busy = {0};
	struct pace_rest small = {0};
	struct pace_rest idle = {0};
	struct pace_rest unknown = {0};

	(void)state;
	assert_in_range(share_of(&busy, 700 * US, 90), 180, 210);
	assert_in_range(share_of(&small, 90 * US, 60), 180, 210);
	assert_in_range(share_of(&idle, 700 * US, 15), 980, 1000);
	assert_int_equal(pace_rest_until(&unknown, 5 * MS, 0, 50 * MS), 0);
}

static uint64_t no_time(void *context)
{
	(void)context;
	return 1;
}

static void test_cpu_time_is_told_of_the_system_only(void **state)
{
	const struct clock other = {no_time, no_time, NULL};
	uint64_t before_ns = cpu_clock_ns(&clock_system);

	(void)state;
	while (cpu_clock_ns(&clock_system) == before_ns) {
	}
	assert_true(before_ns > 0);
	assert_true(cpu_clock_ns(&clock_system) > before_ns);
	assert_int_equal(cpu_clock_ns(&other), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_idle_threads_go_on_without_rest),
		cmocka_unit_test(test_busy_threads_rest_after_short_steps),
		cmocka_unit_test(test_a_step_is_never_nothing),
		cmocka_unit_test(test_pieces_rest_while_others_work),
		cmocka_unit_test(test_cpu_time_is_told_of_the_system_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
