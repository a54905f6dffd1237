#include "listeners/smtp/auth_limit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>

static struct auth_limit *limit;
static const struct rate three_a_minute = {3, 60};

static int set_up(void **state)
{
	(void)state;
	limit = calloc(1, sizeof(*limit));
	return limit != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	free(limit);
	return 0;
}

static struct in6_addr address(const char *text)
{
	struct in6_addr a;

	assert_int_equal(inet_pton(AF_INET6, text, &a), 1);
	return a;
}

static bool take(const char *peer, uint64_t now_ms)
{
	struct in6_addr a = address(peer);

	return auth_limit_take(limit, &a, three_a_minute, now_ms);
}

static void test_failures_within_a_period(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		assert_true(take("::ffff:192.0.2.1", 1000));
	}
	assert_false(take("::ffff:192.0.2.1", 1000));
	assert_false(take("::ffff:192.0.2.1", 60999));
	/* Others are not to blame. */
	assert_true(take("::ffff:192.0.2.2", 1000));
	for (unsigned i = 0; i < 3; i++) {
		assert_true(take("::ffff:192.0.2.1", 61000));
	}
	assert_false(take("::ffff:192.0.2.1", 61000));
}

static void test_success_does_not_count(void **state)
{
	struct in6_addr a = address("::ffff:192.0.2.1");

	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		assert_true(take("::ffff:192.0.2.1", 1000));
		auth_limit_return(limit, &a);
	}
	/* Attempts under way do. */
	for (unsigned i = 0; i < 3; i++) {
		assert_true(take("::ffff:192.0.2.1", 1000));
	}
	assert_false(take("::ffff:192.0.2.1", 1000));
	auth_limit_return(limit, &a);
	assert_true(take("::ffff:192.0.2.1", 1000));
	a = address("::ffff:192.0.2.9");
	auth_limit_return(limit, &a);
	assert_true(take("::ffff:192.0.2.9", 1000));
}

static void test_ipv6_counts_by_64(void **state)
{
	(void)state;
	assert_true(take("2001:db8::1", 0));
	assert_true(take("2001:db8::2", 0));
	assert_true(take("2001:db8::ffff:1", 0));
	assert_false(take("2001:db8::3", 0));
	assert_true(take("2001:db8:0:1::3", 0));
}

static void test_no_limit(void **state)
{
	struct in6_addr a = address("::1");

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		assert_true(auth_limit_take(limit, &a, (struct rate){0, 0}, 0));
	}
}

/* The table has a fixed size: in a storm of addresses the oldest are forgotten, not the newest. */
static void test_many_addresses(void **state)
{
	char text[64];

	(void)state;
	for (unsigned i = 0; i < 50000; i++) {
		snprintf(text, sizeof(text), "::ffff:10.%u.%u.%u", i >> 16, i >> 8 & 255, i & 255);
		assert_true(take(text, i));
	}
	for (unsigned i = 0; i < 2; i++) {
		assert_true(take(text, 50000));
	}
	assert_false(take(text, 50000));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_failures_within_a_period), TEST(test_success_does_not_count),
		TEST(test_ipv6_counts_by_64),        TEST(test_no_limit),
		TEST(test_many_addresses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
