#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/queue/recent.h"

static const uint64_t START_MS = 1000000;

static void add_many(struct recent *r, unsigned count, uint64_t now_ms)
{
	for (unsigned i = 0; i < count; i++) {
		recent_add(r, now_ms);
	}
}

static void test_nothing_has_no_rate(void **state)
{
	struct recent r = {0};

	(void)state;
	assert_true(recent_per_s(&r, START_MS) == 0);
	add_many(&r, 5, START_MS);
	assert_true(recent_per_s(&r, START_MS + 60000) == 0);
}

static void test_a_steady_rate_is_told(void **state)
{
	struct recent r = {0};

	(void)state;
	for (unsigned i = 0; i < 300; i++) {
		add_many(&r, 7, START_MS + i * 1000);
	}
	assert_true(recent_per_s(&r, START_MS + 299999) > 6.9);
	assert_true(recent_per_s(&r, START_MS + 299999) < 7.1);
	/* Half a minute later half of them are forgotten, and the time counts. */
	assert_true(recent_per_s(&r, START_MS + 329999) < 3.6);
	assert_true(recent_per_s(&r, START_MS + 329999) > 3.4);
}

/* The span that it began in is all that is known; less than a second counts as one. */
static void test_a_young_rate_is_not_spread_over_a_minute(void **state)
{
	struct recent r = {0};

	(void)state;
	add_many(&r, 20, START_MS);
	assert_true(recent_per_s(&r, START_MS) == 20);
	assert_true(recent_per_s(&r, START_MS + 500) == 20);
	assert_true(recent_per_s(&r, START_MS + 4000) == 5);
	assert_true(recent_per_s(&r, START_MS + 40000) == 0.5);
}

static void test_what_is_older_than_a_minute_is_forgotten_after_a_gap(void **state)
{
	struct recent r = {0};

	(void)state;
	add_many(&r, 100, START_MS);
	add_many(&r, 4, START_MS + 50000);
	assert_true(recent_per_s(&r, START_MS + 62000) == 4.0 / 12);
	add_many(&r, 1, START_MS + 3600000);
	assert_true(recent_per_s(&r, START_MS + 3602000) == 0.5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_has_no_rate),
		cmocka_unit_test(test_a_steady_rate_is_told),
		cmocka_unit_test(test_a_young_rate_is_not_spread_over_a_minute),
		cmocka_unit_test(test_what_is_older_than_a_minute_is_forgotten_after_a_gap),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
