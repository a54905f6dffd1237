/*
 * What domains of one site share: connections in turns, limits, failures; and what they do not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/outbound/dispatch_parts.h"
#include "core/queue/throttle.h"
#include "tests/unit/outbound_world.h"

#define SET "10 mx.one.test"

static struct outbound_world *w;
static struct peer *peer;
static struct host host;

static int set_up(void **state)
{
	(void)state;
	w = outbound_new(MUX_POLL);
	peer = outbound_peer(w);
	host = outbound_host("127.0.0.1", peer->port, 10);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	outbound_free(w);
	return 0;
}

/* So many messages to each of the domains a.test, b.test, ... */
static void queue_each(unsigned domains, unsigned count)
{
	char name[] = "a.test";

	for (unsigned i = 0; i < domains; i++, name[0]++) {
		for (unsigned j = 0; j < count; j++) {
			outbound_queue(w, name, "a");
		}
	}
}

static struct site *site_of(const char *name)
{
	return outbound_lane(outbound_record(w, name))->site;
}

static void test_domains_share_the_sites_connections(void **state)
{
	(void)state;
	w->site_options.max_outbound_connections = 3;
	queue_each(20, 5);
	outbound_resolve_set(w, SET, &host, 1, 60000);
	outbound_until(w, 100);
	assert_int_equal(peer->open_max, 3);
	assert_int_equal(peer->accepted, 3);
	assert_int_equal(site_of("a.test")->delivered, 100);
	assert_int_equal(site_of("a.test")->domain_count, 20);
	assert_ptr_equal(site_of("a.test"), site_of("t.test"));
	assert_int_equal(w->dispatcher.sites.count, 1);
}

/* A domain with a long queue does not keep another one waiting. */
static void test_domains_take_turns(void **state)
{
	(void)state;
	w->site_options.max_outbound_connections = 1;
	peer->reply[PEER_BANNER] = PEER_SILENT;
	for (unsigned i = 0; i < 50; i++) {
		outbound_queue(w, "a.test", "a");
	}
	outbound_queue(w, "b.test", "a");
	outbound_queue(w, "c.test", "a");
	outbound_resolve_set(w, SET, &host, 1, 60000);
	outbound_settle(w);
	peer->reply[PEER_BANNER] = "220 mx.test";
	assert_int_equal(write(peer->connections[0].fd, "220 mx\r\n", 8), 8);
	outbound_until(w, 52);
	assert_true(outbound_outcome(w, 51) - w->outcomes < 3);
	assert_true(outbound_outcome(w, 52) - w->outcomes < 3);
	assert_int_equal(w->outcomes[51].number, 50);
}

/* No throttle of ours holds it back. */
static void test_an_awaited_site_is_not_throttled(void **state)
{
	(void)state;
	queue_each(1, 1);
	outbound_resolve_set(w, SET, &host, 1, 60000);
	outbound_until(w, 1);
	outbound_pass(w, w->options.idle_timeout_ms + 1);
	assert_int_equal(peer->open, 0);
	site_of("a.test")->awaited = true;
	queue_each(1, 1);
	outbound_settle(w);
	assert_int_equal(outbound_hold(outbound_record(w, "a.test")), DOMAIN_MOVING);
	assert_int_equal(counter_get(w->dispatcher.throttled), 0);
}

static void test_two_sets_have_limits_of_their_own(void **state)
{
	struct peer *other = outbound_peer(w);
	struct host second = outbound_host("127.0.0.1", other->port, 10);

	(void)state;
	w->site_options.max_outbound_connections = 2;
	peer->reply[PEER_BODY] = PEER_SILENT;
	other->reply[PEER_BODY] = PEER_SILENT;
	queue_each(3, 3);
	outbound_resolve_set(w, SET, &host, 1, 60000);
	outbound_queue(w, "x.test", "a");
	outbound_queue(w, "x.test", "a");
	outbound_queue(w, "x.test", "a");
	outbound_resolve_set(w, "10 mx.two.test", &second, 1, 60000);
	outbound_settle(w);
	assert_int_equal(peer->open, 2);
	assert_int_equal(other->open, 2);
	assert_int_equal(outbound_hold(outbound_record(w, "x.test")), DOMAIN_CONNECTIONS);
}

/* All that was queued, of which what is for a.test goes by itself. */
static void answer_twenty(void)
{
	for (unsigned i = 0; i < 12 && w->outcome_count < 20; i++) {
		outbound_answer_bodies(peer);
		outbound_settle(w);
		assert_true(outbound_record(w, "a.test")->attempt_count <= 1);
	}
	assert_int_equal(w->outcome_count, 20);
	assert_int_equal(outbound_record(w, "a.test")->connections_max, 1);
}

/* A domain's own limit holds within that of its site, and for it alone. */
static void test_own_limit_within_the_sites(void **state)
{
	(void)state;
	outbound_domain(w, "a.test", NULL)->max_outbound_connections = 1;
	w->site_options.max_outbound_connections = 4;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_each(2, 10);
	outbound_resolve_set(w, SET, &host, 1, 60000);
	outbound_settle(w);
	assert_int_equal(peer->open, 4);
	assert_int_equal(outbound_record(w, "a.test")->attempt_count, 1);
	assert_int_equal(outbound_record(w, "b.test")->attempt_count, 3);
	answer_twenty();
}

static void test_throttles_of_site_and_domain_add_up(void **state)
{
	static struct throttle of_site;
	static struct throttle own;

	(void)state;
	throttle_init(&of_site, 3, 1, "site");
	throttle_init(&own, 1, 10, "a.test");
	w->site_options.throttle_messages = &of_site;
	w->options.throttle_messages = &of_site;
	w->options.idle_timeout_ms = 60000;
	w->site_options.idle_timeout_ms = 60000;
	outbound_domain(w, "a.test", NULL)->throttle_messages = &own;
	queue_each(2, 4);
	outbound_resolve_set(w, SET, &host, 1, 600000);
	outbound_settle(w);
	assert_int_equal(outbound_record(w, "a.test")->delivered, 1);
	assert_int_equal(outbound_record(w, "b.test")->delivered, 2);
	for (unsigned i = 0; i < 10; i++) {
		outbound_pass(w, 340);
	}
	assert_int_equal(outbound_record(w, "a.test")->delivered, 1);
	assert_int_equal(outbound_record(w, "b.test")->delivered, 4);
	assert_int_equal(outbound_hold(outbound_record(w, "a.test")), DOMAIN_THROTTLE_MESSAGES);
	for (unsigned i = 0; i < 30; i++) {
		outbound_pass(w, 1000);
	}
	assert_int_equal(outbound_record(w, "a.test")->delivered, 4);
	outbound_pass(w, 10000);
	/* What its own throttle does not grant, on a connection that is idle, is not the site's
	 * loss. */
	assert_true(outbound_lane(outbound_record(w, "a.test"))->idle_count > 0);
	for (unsigned i = 0; i < 2; i++) {
		outbound_queue(w, "a.test", "a");
		outbound_settle(w);
	}
	outbound_queue(w, "b.test", "a");
	outbound_queue(w, "b.test", "a");
	outbound_settle(w);
	assert_int_equal(outbound_record(w, "a.test")->delivered, 5);
	assert_int_equal(outbound_record(w, "b.test")->delivered, 6);
}

/* Who wants another name in EHLO does not get a connection that said this one. */
static void test_lanes_do_not_share_connections(void **state)
{
	(void)state;
	outbound_domain(w, "a.test", NULL)->ehlo_hostname = "other.test";
	w->site_options.max_outbound_connections = 1;
	queue_each(2, 30);
	outbound_resolve_set(w, SET, &host, 1, 60000);
	outbound_until(w, 60);
	assert_int_equal(site_of("a.test")->lane_count, 2);
	assert_ptr_equal(site_of("a.test"), site_of("b.test"));
	assert_int_equal(peer->open_max, 1);
	/* Each has its turn before the other is done, and not after each message. */
	assert_true(peer->accepted >= 3 && peer->accepted <= 6);
	assert_non_null(strstr(peer->log, "EHLO other.test"));
	assert_non_null(strstr(peer->log, "EHLO mta.test"));
}

/* Nor one that comes from another address; equal ones may be configured in two places. */
static void test_lanes_agree_in_bind_address(void **state)
{
	static const struct in6_addr two[2] = {IN6ADDR_LOOPBACK_INIT, IN6ADDR_ANY_INIT};
	static const struct in6_addr same[2] = {IN6ADDR_LOOPBACK_INIT, IN6ADDR_ANY_INIT};
	struct domain_options a = w->options;
	struct domain_options b = w->options;

	(void)state;
	a.bind_addresses = two;
	a.bind_address_count = 2;
	assert_false(lane_options_agree(&a, &b));
	b.bind_addresses = same;
	b.bind_address_count = 1;
	assert_false(lane_options_agree(&a, &b));
	b.bind_address_count = 2;
	assert_true(lane_options_agree(&a, &b));
	b.bind_addresses = &in6addr_any;
	b.bind_address_count = 1;
	a.bind_address_count = 1;
	assert_false(lane_options_agree(&a, &b));
}

static void test_mx_rollup_false_is_alone(void **state)
{
	(void)state;
	outbound_domain(w, "a.test", NULL)->mx_rollup = false;
	queue_each(2, 1);
	outbound_resolve_set(w, SET, &host, 1, 60000);
	outbound_until(w, 2);
	assert_string_equal(site_of("a.test")->key, "domain a.test");
	assert_string_equal(site_of("b.test")->key, "mx " SET);
}

/* All mail of the binding goes by way of `count` gateways, as far as nothing else is said of it. */
static void go_by_gateways(const struct gateway *gateways, uint32_t count)
{
	w->options.gateways = gateways;
	w->options.gateway_count = count;
	w->site_options.gateways = gateways;
	w->site_options.gateway_count = count;
}

static void test_domains_with_the_bindings_gateway_share_its_connections(void **state)
{
	const struct gateway gateway = {.host = "127.0.0.1", .port = peer->port, .preference = 10};
	char key[64];

	(void)state;
	go_by_gateways(&gateway, 1);
	w->options.max_outbound_connections = 3;
	w->site_options.max_outbound_connections = 3;
	queue_each(20, 5);
	outbound_until(w, 100);
	assert_int_equal(peer->accepted, 3);
	assert_int_equal(w->dispatcher.sites.count, 1);
	assert_int_equal(site_of("a.test")->domain_count, 20);
	assert_ptr_equal(outbound_record(w, "a.test")->lane, outbound_record(w, "t.test")->lane);
	snprintf(key, sizeof key, "gateway 10 127.0.0.1:%u", peer->port);
	assert_string_equal(site_of("a.test")->key, key);
}

/* Equal ones are the binding's, wherever they were written; others are the domain's own, and so is
 * one of two. */
static void test_domain_with_gateways_of_its_own_is_alone(void **state)
{
	struct peer *other = outbound_peer(w);
	const struct gateway gateways[] = {
		{.host = "127.0.0.1", .port = peer->port, .preference = 10},
		{.host = "127.0.0.1", .port = other->port, .preference = 20},
	};
	struct domain_options *own;

	(void)state;
	go_by_gateways(gateways, 2);
	outbound_domain(w, "a.test", peer);
	outbound_domain(w, "b.test", peer);
	outbound_gateway(w, "b.test", other->port, 20);
	outbound_domain(w, "c.test", peer);
	outbound_gateway(w, "c.test", other->port, 30);
	own = outbound_domain(w, "d.test", peer);
	outbound_gateway(w, "d.test", other->port, 20);
	own->mx_rollup = false;
	queue_each(5, 1);
	outbound_until(w, 5);
	assert_string_equal(site_of("a.test")->key, "domain a.test");
	assert_string_equal(site_of("c.test")->key, "domain c.test");
	assert_string_equal(site_of("d.test")->key, "domain d.test");
	assert_ptr_equal(site_of("b.test"), site_of("e.test"));
	assert_non_null(strstr(site_of("b.test")->key, "gateway 10 127.0.0.1:"));
	assert_non_null(strstr(site_of("b.test")->key, " 20 127.0.0.1:"));
}

/* Nor does a gateway that all share take away what a domain was given. */
static void test_domain_with_wider_limits_than_its_gateway_is_alone(void **state)
{
	const struct gateway gateway = {.host = "127.0.0.1", .port = peer->port, .preference = 10};
	/* The world has it until it is closed. */
	static struct throttle all;

	(void)state;
	throttle_init(&all, 1, 3600, "all");
	go_by_gateways(&gateway, 1);
	w->options.throttle_messages = &all;
	w->site_options.throttle_messages = &all;
	outbound_domain(w, "a.test", peer)->throttle_messages = NULL;
	outbound_domain(w, "b.test", peer)->max_outbound_connections = 21;
	queue_each(3, 2);
	outbound_settle(w);
	assert_string_equal(site_of("a.test")->key, "domain a.test");
	assert_string_equal(site_of("b.test")->key, "domain b.test");
	assert_string_not_equal(site_of("c.test")->key, "domain c.test");
	assert_int_equal(outbound_record(w, "a.test")->delivered, 2);
}

static void test_own_limit_behind_a_gateway(void **state)
{
	const struct gateway gateway = {.host = "127.0.0.1", .port = peer->port, .preference = 10};
	struct domain_options *own;

	(void)state;
	go_by_gateways(&gateway, 1);
	own = outbound_domain(w, "a.test", peer);
	own->max_outbound_connections = 1;
	w->options.max_outbound_connections = 4;
	w->site_options.max_outbound_connections = 4;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_each(2, 10);
	outbound_settle(w);
	assert_int_equal(peer->open, 4);
	assert_int_equal(outbound_record(w, "a.test")->attempt_count, 1);
	answer_twenty();
}

/* Who has proven something to one domain has not to another, behind a gateway as elsewhere: they
 * share its limits, and no connection. */
static void test_what_is_proven_to_one_domain_behind_a_gateway(void **state)
{
	const struct gateway gateway = {
		.host = "mx.one.test", .port = peer->port, .preference = 10};
	struct host strict = host;

	(void)state;
	strict.sts = HOST_STS_TESTING;
	go_by_gateways(&gateway, 1);
	queue_each(1, 1);
	outbound_resolve(w, &strict, 1, false, 60000);
	outbound_queue(w, "b.test", "a");
	outbound_resolve(w, &strict, 1, false, 60000);
	outbound_until(w, 2);
	assert_ptr_equal(site_of("a.test"), site_of("b.test"));
	assert_int_equal(site_of("a.test")->lane_count, 2);
	assert_int_equal(peer->accepted, 2);
}

static void test_suspended_domain_behind_a_gateway_holds_nobody(void **state)
{
	const struct gateway gateway = {.host = "127.0.0.1", .port = peer->port, .preference = 10};

	(void)state;
	go_by_gateways(&gateway, 1);
	w->options.max_outbound_connections = 1;
	w->site_options.max_outbound_connections = 1;
	outbound_enter(w);
	dispatch_suspend(&w->dispatcher, dispatch_find(&w->dispatcher, "default", "a.test"),
			 suspension_new("uid 0", 0, 0));
	outbound_leave(w);
	queue_each(3, 2);
	outbound_until(w, 4);
	assert_int_equal(outbound_record(w, "a.test")->active_count, 2);
	assert_int_equal(outbound_hold(outbound_record(w, "a.test")), DOMAIN_SUSPENDED);
	outbound_enter(w);
	dispatch_suspend(&w->dispatcher, outbound_record(w, "a.test"), NULL);
	outbound_leave(w);
	outbound_until(w, 6);
	assert_int_equal(peer->accepted, 1);
}

static void test_provider_is_one_site_of_several_sets(void **state)
{
	struct peer *other = outbound_peer(w);
	struct host second = outbound_host("127.0.0.1", other->port, 10);

	(void)state;
	w->provider_options.max_outbound_connections = 1;
	queue_each(2, 25);
	outbound_resolve_set(w, "10 mx1.big.test", &host, 1, 60000);
	for (unsigned i = 0; i < 25; i++) {
		outbound_queue(w, "x.test", "a");
	}
	outbound_resolve_set(w, "10 mx2.big.test", &second, 1, 60000);
	outbound_until(w, 75);
	assert_string_equal(site_of("x.test")->key, "provider big");
	assert_ptr_equal(site_of("x.test"), site_of("a.test"));
	assert_int_equal(site_of("a.test")->connections_max, 1);
	assert_int_equal(peer->bodies, 50);
	assert_int_equal(other->bodies, 25);
}

/* One host that is down is found out once for all of them. */
static void test_failures_are_shared(void **state)
{
	struct host dead = outbound_host("127.0.0.1", outbound_dead_port(), 10);

	(void)state;
	queue_each(5, 2);
	outbound_resolve_set(w, SET, &dead, 1, 600000);
	outbound_until(w, 1);
	assert_int_equal(counter_get(w->dispatcher.connect_failures), 1);
	assert_int_equal(outbound_hold(outbound_record(w, "e.test")), DOMAIN_HOSTS_DOWN);
	outbound_pass(w, w->options.host_failure_retry_ms + 10);
	assert_int_equal(counter_get(w->dispatcher.connect_failures), 2);
	assert_int_equal(w->outcome_count, 2);
	/* Another one's turn. */
	assert_string_not_equal(w->outcomes[0].domain, w->outcomes[1].domain);
}

/* Mail of a queue that waits for its turn in a site that is down expires too. */
static void test_mail_expires_in_the_ring(void **state)
{
	struct host dead = outbound_host("127.0.0.1", outbound_dead_port(), 10);

	(void)state;
	queue_each(3, 1);
	for (unsigned i = 0; i < 3; i++) {
		outbound_queue_old(w, "z.test", "a", w->options.message_expiration_ms - 60000);
	}
	outbound_resolve_set(w, SET, &dead, 1, 600000);
	outbound_until(w, 1);
	outbound_pass(w, w->options.host_failure_retry_ms + 10);
	assert_int_equal(outbound_record(w, "z.test")->active_count, 0);
	assert_int_equal(outbound_record(w, "z.test")->attempt_count, 0);
}

static void test_set_that_changes_on_the_same_scheduler(void **state)
{
	struct peer *other = outbound_peer(w);
	struct host second = outbound_host("127.0.0.1", other->port, 10);

	(void)state;
	queue_each(1, 2);
	outbound_resolve_set(w, SET, &host, 1, 1000);
	outbound_until(w, 2);
	outbound_pass(w, 2000);
	queue_each(1, 2);
	outbound_settle(w);
	outbound_resolve_set(w, "10 mx.two.test", &second, 1, 60000);
	outbound_until(w, 4);
	outbound_queue(w, "a.test", "a");
	outbound_until(w, 5);
	assert_int_equal(other->bodies, 1);
	assert_string_equal(site_of("a.test")->key, "mx 10 mx.two.test");
	outbound_pass(w, w->options.idle_timeout_ms);
	/* Nobody goes to the old one any more. */
	assert_int_equal(w->dispatcher.sites.count, 1);
	assert_int_equal(peer->open, 0);
}

/* A message comes back untried from a connection of where its domain's mail went, when there is
 * nowhere that it goes: that is found out anew. */
static void test_message_comes_back_when_its_lane_is_gone(void **state)
{
	(void)state;
	queue_each(1, 1);
	outbound_resolve_set(w, SET, &host, 1, 1000);
	outbound_until(w, 1);
	peer->reply[PEER_MAIL] = PEER_SILENT;
	queue_each(1, 1);
	outbound_pass(w, 1000);
	queue_each(1, 1);
	outbound_settle(w);
	outbound_resolve(w, NULL, 0, true, 1000);
	outbound_until(w, 2);
	assert_string_equal(w->outcomes[1].attempt.enhanced, "5.1.2");
	outbound_pass(w, 1100);
	assert_int_equal(outbound_record(w, "a.test")->attempt_count, 1);
	assert_int_equal(outbound_record(w, "a.test")->hold, DOMAIN_FREE);
	assert_null(outbound_record(w, "a.test")->lane);
	assert_int_equal(write(peer->connections[0].fd, "421 4.3.2 enough\r\n", 18), 18);
	peer->reply[PEER_MAIL] = "250 2.1.0 fine";
	outbound_settle(w);
	outbound_resolve_set(w, SET, &host, 1, 60000);
	outbound_until(w, 3);
	outbound_assert_verdict(w, 2, (struct outbound_verdict){.delivered = 1});
}

/* A record that leaves waits for the connections that count for it: none is kept for others who
 * cannot use it now, as their throttle does not let them. */
static void test_domain_that_leaves_keeps_no_idle_connection(void **state)
{
	static struct throttle of_site;

	(void)state;
	throttle_init(&of_site, 1, 3600, "site");
	w->site_options.throttle_messages = &of_site;
	w->options.throttle_messages = &of_site;
	w->options.idle_timeout_ms = 600000;
	w->site_options.idle_timeout_ms = 600000;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_each(2, 1);
	outbound_resolve_set(w, SET, &host, 1, 6000000);
	outbound_settle(w);
	assert_int_equal(outbound_record(w, "a.test")->attempt_count, 1);
	assert_true(lane_is_ready(outbound_record(w, "b.test")));
	dispatch_detach(&w->dispatcher, outbound_record(w, "a.test"));
	outbound_answer_bodies(peer);
	outbound_settle(w);
	assert_int_equal(w->outcome_count, 1);
	assert_int_equal(outbound_record(w, "b.test")->active_count, 1);
	assert_int_equal(outbound_record(w, "a.test")->connection_count, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_domains_share_the_sites_connections),
		TEST(test_domains_take_turns),
		TEST(test_an_awaited_site_is_not_throttled),
		TEST(test_two_sets_have_limits_of_their_own),
		TEST(test_own_limit_within_the_sites),
		TEST(test_throttles_of_site_and_domain_add_up),
		TEST(test_lanes_do_not_share_connections),
		TEST(test_lanes_agree_in_bind_address),
		TEST(test_mx_rollup_false_is_alone),
		TEST(test_domains_with_the_bindings_gateway_share_its_connections),
		TEST(test_domain_with_gateways_of_its_own_is_alone),
		TEST(test_domain_with_wider_limits_than_its_gateway_is_alone),
		TEST(test_own_limit_behind_a_gateway),
		TEST(test_what_is_proven_to_one_domain_behind_a_gateway),
		TEST(test_suspended_domain_behind_a_gateway_holds_nobody),
		TEST(test_provider_is_one_site_of_several_sets),
		TEST(test_failures_are_shared),
		TEST(test_mail_expires_in_the_ring),
		TEST(test_set_that_changes_on_the_same_scheduler),
		TEST(test_message_comes_back_when_its_lane_is_gone),
		TEST(test_domain_that_leaves_keeps_no_idle_connection),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
