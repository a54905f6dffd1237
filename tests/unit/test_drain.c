#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/outbound/drain.h"
#include "core/queue/throttle.h"
#include "core/runtime/clock.h"

static const uint64_t NOW_NS = 1000 * NS_PER_S;

static struct drain estimate(uint64_t waiting, enum domain_hold why, double per_s,
			     const struct throttle *a, const struct throttle *b)
{
	struct drain_question q = {.waiting = waiting,
				   .why = why,
				   .throttles = {a, b},
				   .per_s = per_s,
				   .now_ns = NOW_NS};

	return drain_estimate(&q);
}

static void test_nothing_that_waits_needs_no_time(void **state)
{
	(void)state;
	assert_int_equal(estimate(0, DOMAIN_SUSPENDED, 5, NULL, NULL).basis, DRAIN_EMPTY);
}

static void test_the_rate_of_the_last_minute_goes_on(void **state)
{
	struct drain d = estimate(12031, DOMAIN_CONNECTIONS, 140, NULL, NULL);

	(void)state;
	assert_int_equal(d.basis, DRAIN_AT_RATE);
	assert_true(d.in_s > 85.9 && d.in_s < 86);
	assert_true(d.per_s == 140);
	assert_int_equal(estimate(10, DOMAIN_FREE, 0, NULL, NULL).basis, DRAIN_UNKNOWN);
	assert_int_equal(estimate(10, DOMAIN_CONNECTIONS, 0, NULL, NULL).basis, DRAIN_UNKNOWN);
}

static void test_what_waits_for_somebody_has_no_estimate(void **state)
{
	static const enum domain_hold held[] = {
		DOMAIN_SUSPENDED,  DOMAIN_BINDING_SUSPENDED, DOMAIN_RESOLVING, DOMAIN_UNRESOLVED,
		DOMAIN_DNS_BOGUS,  DOMAIN_DNS_TIMEOUT,       DOMAIN_NO_ROUTE,  DOMAIN_TLS_POLICY,
		DOMAIN_HOSTS_DOWN, DOMAIN_BIND_ADDRESS,      DOMAIN_MOVING,    DOMAIN_STOPPING,
	};
	struct throttle t;

	(void)state;
	throttle_init(&t, 60, 60, "x");
	for (unsigned i = 0; i < sizeof(held) / sizeof(held[0]); i++) {
		assert_int_equal(estimate(10, held[i], 5, &t, NULL).basis, DRAIN_HELD);
	}
}

static void test_a_throttle_that_holds_gives_its_slots(void **state)
{
	struct throttle t;
	struct drain d;

	(void)state;
	throttle_init(&t, 60, 60, "x");
	assert_int_equal(throttle_take(&t, NOW_NS), 0);
	d = estimate(100, DOMAIN_THROTTLE_MESSAGES, 30, &t, NULL);
	assert_int_equal(d.basis, DRAIN_AT_LIMIT);
	assert_ptr_equal(d.throttle, &t);
	assert_true(d.in_s == 100 && d.per_s == 1);
	/* Whatever was sent in the last minute. */
	assert_int_equal(estimate(100, DOMAIN_THROTTLE_MESSAGES, 0.1, &t, NULL).basis,
			 DRAIN_AT_LIMIT);
}

/* The slower one, of site and domain, whichever is first. */
static void test_the_slower_of_two_throttles_counts(void **state)
{
	struct throttle fast;
	struct throttle slow;

	(void)state;
	throttle_init(&fast, 600, 60, "x");
	throttle_init(&slow, 6, 60, "y");
	assert_ptr_equal(estimate(50, DOMAIN_THROTTLE_MESSAGES, 0, &fast, &slow).throttle, &slow);
	assert_ptr_equal(estimate(50, DOMAIN_THROTTLE_MESSAGES, 0, &slow, &fast).throttle, &slow);
}

/* Connections that are slower than the throttle decide; a throttle that is slower than they were,
 * too. */
static void test_the_slower_of_rate_and_throttle_counts(void **state)
{
	struct throttle t;

	(void)state;
	throttle_init(&t, 600, 60, "x");
	assert_int_equal(estimate(1000, DOMAIN_CONNECTIONS, 2, &t, NULL).basis, DRAIN_AT_RATE);
	assert_int_equal(estimate(1000, DOMAIN_CONNECTIONS, 50, &t, NULL).basis, DRAIN_AT_LIMIT);
	assert_int_equal(estimate(1000, DOMAIN_CONNECTIONS, 0, &t, NULL).basis, DRAIN_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing_that_waits_needs_no_time),
		cmocka_unit_test(test_the_rate_of_the_last_minute_goes_on),
		cmocka_unit_test(test_what_waits_for_somebody_has_no_estimate),
		cmocka_unit_test(test_a_throttle_that_holds_gives_its_slots),
		cmocka_unit_test(test_the_slower_of_two_throttles_counts),
		cmocka_unit_test(test_the_slower_of_rate_and_throttle_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
