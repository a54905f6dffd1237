/*
 * What stands in the way of a queue, as operators are told: each limit and state by itself, several
 * at once, and which of them comes first. That the dispatcher decides by the same is checked after
 * each step of every test that has an outbound world.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/outbound/host_list.h"
#include "core/outbound/obstacle.h"
#include "core/queue/throttle.h"
#include "tests/unit/connection_world.h"

#define SET "10 mx.one.test"

static struct obstacle list[OBSTACLES_MAX];

/* The reasons of a domain are these, in this order; up to DOMAIN_FREE. They are in `list`. */
static void assert_reasons(const char *domain, const enum domain_hold *expected)
{
	unsigned count = obstacle_list(&w->dispatcher, outbound_record(w, domain), list);
	unsigned i = 0;

	for (; expected[i] != DOMAIN_FREE && i < count; i++) {
		assert_string_equal(domain_hold_key(list[i].why), domain_hold_key(expected[i]));
	}
	assert_int_equal(count, i);
	assert_int_equal(expected[i], DOMAIN_FREE);
	assert_int_equal(obstacle_first(&w->dispatcher, outbound_record(w, domain)).why,
			 expected[0]);
}

#define ASSERT_REASONS(domain, ...)                                                                \
	assert_reasons(domain, (const enum domain_hold[]){__VA_ARGS__, DOMAIN_FREE})
#define ASSERT_NO_REASON(domain) assert_reasons(domain, (const enum domain_hold[]){DOMAIN_FREE})

static void test_nothing_stands_in_the_way_of_a_queue_that_is_empty(void **state)
{
	(void)state;
	queue_many(DOMAIN, 2);
	outbound_until(w, 2);
	ASSERT_NO_REASON(DOMAIN);
}

static void test_own_limit_of_a_domain_that_is_alone_is_told_once(void **state)
{
	(void)state;
	options->max_outbound_connections = 2;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 5);
	outbound_settle(w);
	ASSERT_REASONS(DOMAIN, DOMAIN_CONNECTIONS);
	assert_int_equal(list[0].in_use, 2);
	assert_int_equal(list[0].limit, 2);
	assert_int_equal(list[0].until_ms, 0);
}

static void test_limits_of_site_and_domain_are_two(void **state)
{
	struct host host = outbound_host("127.0.0.1", peer->port, 10);

	(void)state;
	w->site_options.max_outbound_connections = 2;
	outbound_domain(w, "a.test", NULL)->max_outbound_connections = 1;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many("a.test", 3);
	queue_many("b.test", 3);
	outbound_resolve_set(w, SET, &host, 1, 60000);
	outbound_settle(w);
	ASSERT_REASONS("b.test", DOMAIN_CONNECTIONS);
	assert_int_equal(list[0].scope, OBSTACLE_OF_SITE);
	assert_int_equal(list[0].limit, 2);
	ASSERT_REASONS("a.test", DOMAIN_CONNECTIONS, DOMAIN_CONNECTIONS);
	assert_int_equal(list[0].scope, OBSTACLE_OF_SITE);
	assert_int_equal(list[1].scope, OBSTACLE_OF_DOMAIN);
	assert_int_equal(list[1].limit, 1);
	/* With room in the site only its own is left, which took it out of the ring. */
	w->site_options.max_outbound_connections = 9;
	outbound_enter(w);
	dispatch_flush(&w->dispatcher, outbound_record(w, "b.test"));
	outbound_leave(w);
	outbound_settle(w);
	ASSERT_REASONS("a.test", DOMAIN_CONNECTIONS);
	assert_int_equal(list[0].scope, OBSTACLE_OF_DOMAIN);
}

static void test_a_throttle_says_when_its_next_slot_comes(void **state)
{
	static struct throttle t;
	uint64_t now_ms;

	(void)state;
	throttle_init(&t, 60, 60, "domain");
	options->throttle_messages = &t;
	options->idle_timeout_ms = 60000;
	options->max_outbound_connections = 1;
	queue_many(DOMAIN, 3);
	outbound_until(w, 1);
	/* Its connection is idle: that there may be one only holds nobody up. */
	ASSERT_REASONS(DOMAIN, DOMAIN_THROTTLE_MESSAGES);
	assert_ptr_equal(list[0].throttle, &t);
	now_ms = w->now.mono_ns / NS_PER_MS;
	assert_in_range(list[0].wait_ns, 1, NS_PER_S);
	assert_in_range(list[0].until_ms, now_ms + 1, now_ms + 1001);
	/* Nothing before it, and one message then. */
	outbound_pass(w, list[0].wait_ns / NS_PER_MS - 5);
	assert_int_equal(w->outcome_count, 1);
	outbound_pass(w, 7);
	assert_int_equal(w->outcome_count, 2);
}

static void test_a_limit_and_a_throttle_at_once(void **state)
{
	static struct throttle t;

	(void)state;
	throttle_init(&t, 1, 3600, "domain");
	options->throttle_messages = &t;
	options->idle_timeout_ms = 60000;
	options->max_outbound_connections = 1;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 3);
	outbound_settle(w);
	ASSERT_REASONS(DOMAIN, DOMAIN_CONNECTIONS, DOMAIN_THROTTLE_MESSAGES);
	outbound_answer_bodies(peer);
	outbound_until(w, 1);
	ASSERT_REASONS(DOMAIN, DOMAIN_THROTTLE_MESSAGES);
}

static void test_throttles_of_connections(void **state)
{
	static struct throttle t;

	(void)state;
	throttle_init(&t, 1, 3600, "domain");
	options->throttle_connections = &t;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 3);
	outbound_settle(w);
	ASSERT_REASONS(DOMAIN, DOMAIN_THROTTLE_CONNECTIONS);
	assert_ptr_equal(list[0].throttle, &t);
	assert_true(list[0].wait_ns > 3500 * NS_PER_S);
}

static void test_the_whole_programs_limit(void **state)
{
	(void)state;
	w->limits.connections_max = 1;
	outbound_domain(w, "other.test", peer);
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 1);
	outbound_settle(w);
	queue_many("other.test", 1);
	outbound_settle(w);
	ASSERT_REASONS("other.test", DOMAIN_SERVER_CONNECTIONS);
	assert_int_equal(list[0].scope, OBSTACLE_OF_PROGRAM);
	assert_int_equal(list[0].in_use, 1);
	assert_int_equal(list[0].limit, 1);
	/* It is looked at again at the time that was noted, although there is room now. */
	outbound_answer_bodies(peer);
	peer->reply[PEER_BODY] = "250 2.0.0 kept";
	outbound_until(w, 1);
	outbound_pass(w, 250);
	outbound_until(w, 2);
	ASSERT_NO_REASON("other.test");
}

/* What would be charged after the limit that was met first. */
static void test_limits_of_domain_and_program_at_once(void **state)
{
	static struct throttle t;

	(void)state;
	throttle_init(&t, 1, 3600, "domain");
	options->throttle_connections = &t;
	options->max_outbound_connections = 1;
	w->limits.connections_max = 1;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 2);
	outbound_settle(w);
	ASSERT_REASONS(DOMAIN, DOMAIN_CONNECTIONS, DOMAIN_SERVER_CONNECTIONS,
		       DOMAIN_THROTTLE_CONNECTIONS);
}

static void test_an_order_comes_first_and_the_rest_after_it(void **state)
{
	static struct throttle t;
	struct binding_record *b;

	(void)state;
	throttle_init(&t, 1, 3600, "domain");
	options->throttle_messages = &t;
	options->idle_timeout_ms = 60000;
	queue_many(DOMAIN, 3);
	outbound_until(w, 1);
	b = outbound_record(w, DOMAIN)->binding_record;
	outbound_enter(w);
	dispatch_suspend(&w->dispatcher, outbound_record(w, DOMAIN), suspension_new("uid 0", 0, 0));
	binding_set_order(b, BINDING_SUSPENDED);
	outbound_leave(w);
	ASSERT_REASONS(DOMAIN, DOMAIN_SUSPENDED, DOMAIN_BINDING_SUSPENDED,
		       DOMAIN_THROTTLE_MESSAGES);
	assert_int_equal(list[1].scope, OBSTACLE_OF_BINDING);
	outbound_enter(w);
	binding_set_order(b, BINDING_AS_CONFIGURED);
	dispatch_suspend(&w->dispatcher, outbound_record(w, DOMAIN), NULL);
	outbound_leave(w);
	ASSERT_REASONS(DOMAIN, DOMAIN_THROTTLE_MESSAGES);
}

static void test_names_that_are_asked_for_and_not_found(void **state)
{
	(void)state;
	queue_many("named.test", 2);
	outbound_settle(w);
	ASSERT_REASONS("named.test", DOMAIN_RESOLVING);
	outbound_pass(w, 3000);
	assert_int_equal(w->now.mono_ns / NS_PER_MS,
			 outbound_record(w, "named.test")->resolving_since_ms + 3000);
	outbound_resolve(w, NULL, 0, false, 0);
	outbound_settle(w);
	/* The one that heard of it has its time, the others have none. */
	ASSERT_REASONS("named.test", DOMAIN_UNRESOLVED, DOMAIN_RETRY);
	assert_int_equal(list[0].until_ms, outbound_record(w, "named.test")->hold_until_ms);
}

static void test_next_hops_that_failed_and_why_each_did(void **state)
{
	const struct host *h;

	(void)state;
	w->domains[0].gateways[0].port = outbound_dead_port();
	queue_many(DOMAIN, 3);
	outbound_until(w, 1);
	ASSERT_REASONS(DOMAIN, DOMAIN_HOSTS_DOWN, DOMAIN_RETRY);
	assert_int_equal(list[0].until_ms, outbound_hold_until(outbound_record(w, DOMAIN)));
	h = &outbound_lane(outbound_record(w, DOMAIN))->hosts[0];
	assert_non_null(strstr(h->trouble, "Connection refused"));
	assert_false(h->tls_failed);
}

/* A new list of next hops keeps what was remembered of those that it has too. */
static void test_last_error_of_a_host_outlives_its_list(void **state)
{
	struct host *hosts = calloc(2, sizeof(*hosts));
	struct lane *l;

	(void)state;
	assert_non_null(hosts);
	w->domains[0].gateways[0].port = outbound_dead_port();
	queue_many(DOMAIN, 1);
	outbound_until(w, 1);
	l = outbound_lane(outbound_record(w, DOMAIN));
	hosts[0] = outbound_host("127.0.0.2", 25, 5);
	hosts[1] = outbound_host("127.0.0.1", w->domains[0].gateways[0].port, 10);
	host_list_replace(l, hosts, 2);
	assert_int_equal(l->host_count, 2);
	assert_null(l->hosts[0].trouble);
	assert_non_null(strstr(l->hosts[1].trouble, "Connection refused"));
	assert_int_equal(l->hosts[1].failures, 1);
}

static void test_tls_that_is_demanded_is_told_apart(void **state)
{
	(void)state;
	options->tls = DOMAIN_TLS_REQUIRED;
	queue_many(DOMAIN, 2);
	outbound_until(w, 1);
	ASSERT_REASONS(DOMAIN, DOMAIN_TLS_POLICY, DOMAIN_RETRY);
	assert_int_equal(list[0].scope, OBSTACLE_OF_LANE);
	assert_true(outbound_lane(outbound_record(w, DOMAIN))->hosts[0].tls_failed);
}

/* One works, a further one is refused. */
static void test_a_peer_that_takes_no_further_connection(void **state)
{
	(void)state;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 1);
	outbound_settle(w);
	peer->reply[PEER_BANNER] = "421 too many!";
	queue_many(DOMAIN, 2);
	outbound_settle(w);
	ASSERT_REASONS(DOMAIN, DOMAIN_PEER_LIMIT);
	assert_int_equal(outbound_record(w, DOMAIN)->connection_count, 1);
	/* The one that works goes on. */
	peer->reply[PEER_BODY] = "250 2.0.0 kept";
	outbound_answer_bodies(peer);
	outbound_until(w, 3);
	ASSERT_NO_REASON(DOMAIN);
}

static void test_connections_that_are_being_opened(void **state)
{
	(void)state;
	peer->reply[PEER_BANNER] = PEER_SILENT;
	queue_many(DOMAIN, 5);
	outbound_settle(w);
	ASSERT_REASONS(DOMAIN, DOMAIN_OPENING);
	assert_int_equal(list[0].in_use, 1);
	assert_false(domain_hold_is_hold(list[0].why));
}

static void test_messages_that_are_read_back(void **state)
{
	(void)state;
	w->not_resident = true;
	w->hold_loads = true;
	options->max_outbound_connections = 1;
	queue_many(DOMAIN, 2);
	outbound_settle(w);
	ASSERT_REASONS(DOMAIN, DOMAIN_CONNECTIONS, DOMAIN_READING_BACK);
	assert_int_equal(list[1].in_use, 1);
	w->hold_loads = false;
	for (unsigned i = 0; i < w->load_count; i++) {
		assert_non_null(w->loads[i]);
	}
}

static void test_memory_that_is_used_up(void **state)
{
	(void)state;
	w->not_resident = true;
	w->body_bytes = 100000;
	w->limits.loaded_max = 150000;
	peer->any_body = true;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 3);
	outbound_settle(w);
	ASSERT_REASONS(DOMAIN, DOMAIN_MEMORY);
	assert_int_equal(list[0].limit, 150000);
	assert_true(list[0].in_use >= 100000);
	assert_int_equal(list[0].scope, OBSTACLE_OF_PROGRAM);
}

static void test_what_is_delayed_waits_for_its_time(void **state)
{
	struct delivery *delivery = outbound_delivery(w, DOMAIN, "a");

	(void)state;
	delivery->due_ms = w->now.wall_ns / NS_PER_MS + 90000;
	outbound_enter(w);
	dispatch_delay(&w->dispatcher, dispatch_find(&w->dispatcher, BINDING_DEFAULT, DOMAIN),
		       delivery);
	outbound_leave(w);
	ASSERT_REASONS(DOMAIN, DOMAIN_RETRY);
	assert_int_equal(list[0].in_use, 1);
	assert_int_equal(list[0].until_ms, w->now.mono_ns / NS_PER_MS + 90000);
	/* Beside active mail it is the last that is told. */
	peer->reply[PEER_BANNER] = PEER_SILENT;
	queue_many(DOMAIN, 1);
	outbound_settle(w);
	ASSERT_REASONS(DOMAIN, DOMAIN_OPENING, DOMAIN_RETRY);
}

static void test_a_record_that_travels(void **state)
{
	struct domain *d;

	(void)state;
	options->max_outbound_connections = 1;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 2);
	outbound_settle(w);
	d = outbound_record(w, DOMAIN);
	d->travel = DOMAIN_ASKING;
	ASSERT_REASONS(DOMAIN, DOMAIN_MOVING, DOMAIN_CONNECTIONS);
	d->travel = DOMAIN_AT_HOME;
}

static void test_attempts_that_the_spool_writes_down(void **state)
{
	struct domain *d;

	(void)state;
	queue_many(DOMAIN, 1);
	outbound_until(w, 1);
	d = outbound_record(w, DOMAIN);
	d->settling_count = 3;
	ASSERT_REASONS(DOMAIN, DOMAIN_SETTLING);
	assert_int_equal(list[0].in_use, 3);
	d->settling_count = 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_nothing_stands_in_the_way_of_a_queue_that_is_empty),
		TEST(test_own_limit_of_a_domain_that_is_alone_is_told_once),
		TEST(test_limits_of_site_and_domain_are_two),
		TEST(test_a_throttle_says_when_its_next_slot_comes),
		TEST(test_a_limit_and_a_throttle_at_once),
		TEST(test_throttles_of_connections),
		TEST(test_the_whole_programs_limit),
		TEST(test_limits_of_domain_and_program_at_once),
		TEST(test_an_order_comes_first_and_the_rest_after_it),
		TEST(test_names_that_are_asked_for_and_not_found),
		TEST(test_next_hops_that_failed_and_why_each_did),
		TEST(test_last_error_of_a_host_outlives_its_list),
		TEST(test_tls_that_is_demanded_is_told_apart),
		TEST(test_a_peer_that_takes_no_further_connection),
		TEST(test_connections_that_are_being_opened),
		TEST(test_messages_that_are_read_back),
		TEST(test_memory_that_is_used_up),
		TEST(test_what_is_delayed_waits_for_its_time),
		TEST(test_a_record_that_travels),
		TEST(test_attempts_that_the_spool_writes_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
