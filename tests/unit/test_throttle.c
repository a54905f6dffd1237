#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>

#include "core/queue/throttle.h"
#include "core/runtime/clock.h"

static const uint64_t START_NS = 1000 * NS_PER_S;

static void test_init_when_slower_than_one_a_second(void **state)
{
	struct throttle t;
	(void)state;
	throttle_init(&t, 100, 60, "domain \"example.com\"");
	assert_int_equal(atomic_load(&t.own.interval_ns), 600 * NS_PER_MS);
	assert_int_equal(t.count, 100);
	assert_int_equal(t.period_s, 60);
	assert_string_equal(t.scope, "domain \"example.com\"");
}

static void test_take_when_bucket_is_one_second(void **state)
{
	struct throttle t;
	(void)state;
	throttle_init(&t, 10, 1, "global");
	for (int i = 0; i < 10; i++) {
		assert_int_equal(throttle_take(&t, START_NS), 0);
	}
	assert_int_equal(throttle_take(&t, START_NS), 100 * NS_PER_MS);
	assert_int_equal(atomic_load(&t.own.held), 1);
	/* What was refused was not taken: the wait stays the same. */
	assert_int_equal(throttle_take(&t, START_NS), 100 * NS_PER_MS);
	assert_int_equal(throttle_take(&t, START_NS + 100 * NS_PER_MS), 0);
	assert_int_equal(throttle_take(&t, START_NS + 100 * NS_PER_MS), 100 * NS_PER_MS);
	assert_int_equal(atomic_load(&t.own.held), 3);
}

static void test_take_when_bucket_is_one_cell(void **state)
{
	struct throttle t;
	(void)state;
	throttle_init(&t, 6, 60, "global");
	assert_int_equal(throttle_take(&t, START_NS), 0);
	assert_int_equal(throttle_take(&t, START_NS + 1), 10 * NS_PER_S - 1);
	assert_int_equal(throttle_take(&t, START_NS + 10 * NS_PER_S - 1), 1);
	assert_int_equal(throttle_take(&t, START_NS + 10 * NS_PER_S), 0);
}

static void test_take_when_unused_time_is_lost(void **state)
{
	struct throttle t;
	int granted = 0;
	(void)state;
	throttle_init(&t, 5, 1, "global");
	assert_int_equal(throttle_take(&t, START_NS), 0);
	/* An hour later there is one bucket, not an hour's worth. */
	while (throttle_take(&t, START_NS + 3600 * NS_PER_S) == 0) {
		granted++;
	}
	assert_int_equal(granted, 5);
}

static void test_take_when_asked_for_a_minute_keeps_the_rate(void **state)
{
	static const uint64_t rates[][2] = {{1, 1}, {3, 1}, {7, 60}, {100, 60}, {5000, 1}, {9, 7}};
	(void)state;
	for (size_t r = 0; r < sizeof(rates) / sizeof(rates[0]); r++) {
		struct throttle t;
		uint64_t granted = 0;
		throttle_init(&t, rates[r][0], rates[r][1], "global");
		uint64_t bucket = rates[r][0] / rates[r][1];
		for (uint64_t ms = 0; ms < 60000; ms++) {
			while (throttle_take(&t, START_NS + ms * NS_PER_MS) == 0) {
				granted++;
			}
		}
		uint64_t due = 60 * rates[r][0] / rates[r][1];
		assert_true(granted <= due + (bucket > 1 ? bucket : 1));
		assert_true(granted + 1 >= due);
	}
}

static void test_return_when_not_used(void **state)
{
	struct throttle t;
	(void)state;
	throttle_init(&t, 1, 1, "global");
	assert_int_equal(throttle_take(&t, START_NS), 0);
	assert_int_equal(throttle_wait_ns(&t, START_NS), NS_PER_S);
	throttle_return(&t);
	assert_int_equal(throttle_wait_ns(&t, START_NS), 0);
	assert_int_equal(throttle_take(&t, START_NS), 0);
}

static void test_wait_takes_nothing(void **state)
{
	struct throttle t;
	(void)state;
	throttle_init(&t, 1, 10, "global");
	for (int i = 0; i < 3; i++) {
		assert_int_equal(throttle_wait_ns(&t, START_NS), 0);
	}
	assert_int_equal(throttle_take(&t, START_NS), 0);
	assert_int_equal(throttle_wait_ns(&t, START_NS + 4 * NS_PER_S), 6 * NS_PER_S);
	assert_int_equal(atomic_load(&t.own.held), 0);
}

enum { THREADS = 4, TRIES = 5000 };

static void *take_many(void *argument)
{
	struct throttle *t = argument;
	uintptr_t granted = 0;
	for (int i = 0; i < TRIES; i++) {
		granted += throttle_take(t, START_NS) == 0;
	}
	return (void *)granted;
}

static void test_take_when_many_threads_share_one(void **state)
{
	struct throttle t;
	pthread_t threads[THREADS];
	uintptr_t granted = 0;
	(void)state;
	throttle_init(&t, 7000, 1, "global");
	for (int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_create(&threads[i], NULL, take_many, &t), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		void *result;
		assert_int_equal(pthread_join(threads[i], &result), 0);
		granted += (uintptr_t)result;
	}
	assert_int_equal(granted, 7000);
	assert_int_equal(atomic_load(&t.own.held), THREADS * TRIES - 7000);
}

static void test_wait_for_many_is_when_the_last_could_be_taken(void **state)
{
	struct throttle t;
	uint64_t wait_ns;
	(void)state;
	throttle_init(&t, 10, 1, "global");
	assert_int_equal(throttle_wait_many_ns(&t, START_NS, 10), 0);
	assert_int_equal(throttle_wait_many_ns(&t, START_NS, 11), 100 * NS_PER_MS);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(throttle_take(&t, START_NS), 0);
	}
	assert_int_equal(throttle_wait_many_ns(&t, START_NS, 1), throttle_wait_ns(&t, START_NS));
	wait_ns = throttle_wait_many_ns(&t, START_NS, 25);
	for (int i = 0; i < 24; i++) {
		assert_int_equal(throttle_take(&t, START_NS + (uint64_t)(i + 1) * 100 * NS_PER_MS),
				 0);
	}
	assert_int_equal(throttle_wait_ns(&t, START_NS), wait_ns);
	throttle_init(&t, 1, 86400, "global");
	assert_int_equal(throttle_wait_many_ns(&t, START_NS, UINT64_MAX), UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_init_when_slower_than_one_a_second),
		cmocka_unit_test(test_take_when_bucket_is_one_second),
		cmocka_unit_test(test_take_when_bucket_is_one_cell),
		cmocka_unit_test(test_take_when_unused_time_is_lost),
		cmocka_unit_test(test_take_when_asked_for_a_minute_keeps_the_rate),
		cmocka_unit_test(test_return_when_not_used),
		cmocka_unit_test(test_wait_takes_nothing),
		cmocka_unit_test(test_wait_for_many_is_when_the_last_could_be_taken),
		cmocka_unit_test(test_take_when_many_threads_share_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
