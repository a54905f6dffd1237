#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/queue/retry.h"

static const struct domain_options options = {.retry_interval_ms = 1200000,
					      .max_retry_interval_ms = 43200000,
					      .message_expiration_ms = 86400000};

static void test_wait_doubles_up_to_the_maximum(void **state)
{
	(void)state;
	assert_int_equal(retry_wait_ms(&options, 1), 1200000);
	assert_int_equal(retry_wait_ms(&options, 2), 2400000);
	assert_int_equal(retry_wait_ms(&options, 3), 4800000);
	assert_int_equal(retry_wait_ms(&options, 6), 38400000);
	assert_int_equal(retry_wait_ms(&options, 7), 43200000);
	assert_int_equal(retry_wait_ms(&options, 8), 43200000);
	assert_int_equal(retry_wait_ms(&options, UINT32_MAX), 43200000);
}

static void test_wait_when_maximum_is_below_the_interval(void **state)
{
	const struct domain_options o = {.retry_interval_ms = 5000, .max_retry_interval_ms = 1000};

	(void)state;
	assert_int_equal(retry_wait_ms(&o, 1), 1000);
	assert_int_equal(retry_wait_ms(&o, 50), 1000);
}

/* No product overflows on the way to a maximum that is near the end of what a number can hold. */
static void test_wait_when_maximum_is_huge(void **state)
{
	const struct domain_options o = {.retry_interval_ms = 3,
					 .max_retry_interval_ms = UINT64_C(1) << 62};

	(void)state;
	for (uint32_t n = 1; n <= 60; n++) {
		assert_int_equal(retry_wait_ms(&o, n), UINT64_C(3) << (n - 1));
	}
	for (uint32_t n = 62; n < 200; n++) {
		assert_int_equal(retry_wait_ms(&o, n), UINT64_C(1) << 62);
	}
}

static void test_expired_at_the_millisecond(void **state)
{
	const uint64_t received = UINT64_C(1750000000000);

	(void)state;
	assert_false(retry_expired(&options, received, received));
	assert_false(retry_expired(&options, received, received + 86399999));
	assert_true(retry_expired(&options, received, received + 86400000));
	assert_true(retry_expired(&options, received, received + 86400001));
}

/* The clock was set back: nothing expires for that. */
static void test_expired_when_received_in_the_future(void **state)
{
	(void)state;
	assert_false(retry_expired(&options, UINT64_C(1750000000000), UINT64_C(1740000000000)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_wait_doubles_up_to_the_maximum),
		cmocka_unit_test(test_wait_when_maximum_is_below_the_interval),
		cmocka_unit_test(test_wait_when_maximum_is_huge),
		cmocka_unit_test(test_expired_at_the_millisecond),
		cmocka_unit_test(test_expired_when_received_in_the_future),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
