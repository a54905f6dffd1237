/*
 * The inbound audit of one scheduler: sessions that come and go, events in windows of time.
 */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agents/inbound_audit.h"

/* Windows of ten seconds, three of them beside the one that goes on; of a minute, none. */
static const struct inbound_monitor monitors[] = {{10, 3}, {60, 0}};

static struct in6_addr address(const char *text)
{
	struct in6_addr a;

	assert_int_equal(inet_pton(AF_INET6, text, &a), 1);
	return a;
}

static uint64_t sessions(const struct inbound_audit *a, const char *text, unsigned prefix,
			 uint32_t service)
{
	struct in6_addr client = address(text);

	return inbound_audit_sessions(a, service, &client, prefix);
}

static void test_sessions_are_counted_for_all_networks_around(void **state)
{
	struct inbound_audit *a = inbound_audit_create(NULL, 0);
	struct in6_addr one = address("::ffff:192.0.2.1");
	struct in6_addr two = address("::ffff:192.0.9.1");
	struct in6_addr six = address("2001:db8:1:2::1");

	(void)state;
	inbound_audit_begin(a, 0, &one);
	inbound_audit_begin(a, 0, &one);
	inbound_audit_begin(a, 1, &one);
	inbound_audit_begin(a, 0, &two);
	inbound_audit_begin(a, 0, &six);
	assert_int_equal(sessions(a, "::ffff:192.0.2.1", 128, 0), 2);
	assert_int_equal(sessions(a, "::ffff:192.0.2.1", 128, 1), 1);
	assert_int_equal(sessions(a, "::ffff:192.0.2.7", 120, 0), 2);
	assert_int_equal(sessions(a, "::ffff:192.0.2.1", 112, 0), 3);
	assert_int_equal(sessions(a, "::ffff:192.9.9.9", 104, 0), 3);
	assert_int_equal(sessions(a, "2001:db8:1:2::9", 64, 0), 1);
	assert_int_equal(sessions(a, "2001:db8:1:3::9", 64, 0), 0);
	inbound_audit_end(a, 0, &one);
	assert_int_equal(sessions(a, "::ffff:192.0.2.1", 128, 0), 1);
	inbound_audit_end(a, 0, &one);
	inbound_audit_end(a, 1, &one);
	assert_int_equal(sessions(a, "::ffff:192.0.2.1", 128, 0), 0);
	assert_int_equal(sessions(a, "::ffff:192.0.2.1", 112, 0), 1);
	inbound_audit_destroy(a);
}

static uint64_t sum(const struct inbound_audit *a, int monitor, enum policy_event event,
		    uint32_t first, uint32_t last, uint64_t now_s)
{
	struct policy_events asked = {.event = event,
				      .address = address("::ffff:192.0.2.77"),
				      .prefix = 120,
				      .first = first,
				      .last = last};

	return inbound_audit_sum(a, monitor, &asked, now_s);
}

static void test_events_are_counted_in_the_windows_of_each_monitor(void **state)
{
	struct inbound_audit *a = inbound_audit_create(monitors, 2);
	struct in6_addr client = address("::ffff:192.0.2.1");

	(void)state;
	assert_int_equal(inbound_audit_monitor(a, 10, 3), 0);
	assert_int_equal(inbound_audit_monitor(a, 60, 0), 1);
	assert_int_equal(inbound_audit_monitor(a, 60, 1), -1);
	inbound_audit_note(a, &client, POLICY_CONNECTION, 1200);
	inbound_audit_note(a, &client, POLICY_RECEPTION, 1209);
	inbound_audit_note(a, &client, POLICY_RECEPTION, 1210);
	inbound_audit_note(a, &client, POLICY_REJECTION, 1239);
	assert_int_equal(sum(a, 0, POLICY_CONNECTION, 0, 3, 1239), 1);
	assert_int_equal(sum(a, 0, POLICY_RECEPTION, 0, 3, 1239), 2);
	assert_int_equal(sum(a, 0, POLICY_RECEPTION, 2, 2, 1239), 1);
	assert_int_equal(sum(a, 0, POLICY_RECEPTION, 0, 2, 1239), 1);
	assert_int_equal(sum(a, 0, POLICY_REJECTION, 0, 0, 1239), 1);
	/* The oldest has gone, without anything happening. */
	assert_int_equal(sum(a, 0, POLICY_RECEPTION, 0, 3, 1240), 1);
	assert_int_equal(sum(a, 1, POLICY_RECEPTION, 0, 0, 1259), 2);
	assert_int_equal(sum(a, 1, POLICY_RECEPTION, 0, 0, 1260), 0);
	/* Long after: the places are used again. */
	inbound_audit_note(a, &client, POLICY_RECEPTION, 9000);
	assert_int_equal(sum(a, 0, POLICY_RECEPTION, 0, 3, 9000), 1);
	assert_int_equal(sum(a, 0, POLICY_CONNECTION, 0, 3, 9000), 0);
	/* A clock that went back adds to the newest. */
	inbound_audit_note(a, &client, POLICY_RECEPTION, 8000);
	assert_int_equal(sum(a, 0, POLICY_RECEPTION, 0, 0, 9000), 2);
	inbound_audit_destroy(a);
}

static void test_nothing_is_noted_without_monitors(void **state)
{
	struct inbound_audit *a = inbound_audit_create(NULL, 0);
	struct in6_addr client = address("::1");

	(void)state;
	inbound_audit_note(a, &client, POLICY_CONNECTION, 1);
	assert_int_equal(inbound_audit_monitor(a, 10, 3), -1);
	inbound_audit_destroy(a);
	inbound_audit_destroy(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sessions_are_counted_for_all_networks_around),
		cmocka_unit_test(test_events_are_counted_in_the_windows_of_each_monitor),
		cmocka_unit_test(test_nothing_is_noted_without_monitors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
