/*
 * A new generation of options while mail flows: what holds at once, what ends first, what stays.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/outbound/connection.h"
#include "core/queue/site.h"
#include "core/queue/throttle.h"
#include "tests/unit/connection_world.h"

/* Options of another generation, which say the same for now. */
static struct domain_options *begin_generation(struct peer *to)
{
	struct domain_options before = *options;
	struct domain_options *fresh;

	for (unsigned i = 0; i < w->domain_count; i++) {
		if (strcmp(w->domains[i].name, DOMAIN) == 0) {
			snprintf(w->domains[i].name, sizeof(w->domains[i].name), "gone");
		}
	}
	fresh = outbound_domain(w, DOMAIN, to);
	before.gateways = fresh->gateways;
	before.gateway_count = fresh->gateway_count;
	*fresh = before;
	return fresh;
}

/* Everything goes over to them, and nothing reads those from before any more. */
static void take(struct domain_options *fresh)
{
	bool over = false;

	outbound_enter(w);
	dispatch_renew(&w->dispatcher, 2, false);
	for (unsigned i = 0; !over; i++) {
		assert_true(i < 100000);
		over = dispatch_renew_step(&w->dispatcher);
	}
	outbound_leave(w);
	memset(options, 0xa5, sizeof(*options));
	options = fresh;
	assert_ptr_equal(outbound_record(w, DOMAIN)->options, fresh);
}

static void test_raised_limit_holds_at_once(void **state)
{
	struct domain_options *fresh;

	(void)state;
	options->max_outbound_connections = 2;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 12);
	outbound_settle(w);
	assert_int_equal(peer->open, 2);
	fresh = begin_generation(peer);
	fresh->max_outbound_connections = 5;
	take(fresh);
	outbound_pass(w, 10);
	assert_int_equal(peer->open, 5);
	peer->reply[PEER_BODY] = "250 2.0.0 kept";
	outbound_answer_bodies(peer);
	outbound_until(w, 12);
	assert_int_equal(peer->open_max, 5);
}

static void test_lowered_limit_opens_no_more(void **state)
{
	struct domain_options *fresh;

	(void)state;
	options->max_outbound_connections = 4;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 12);
	outbound_settle(w);
	assert_int_equal(peer->open, 4);
	fresh = begin_generation(peer);
	fresh->max_outbound_connections = 1;
	w->lowered = true;
	take(fresh);
	outbound_pass(w, 10);
	outbound_answer_bodies(peer);
	outbound_until(w, 4);
	outbound_settle(w);
	/* Those above it have ended with their transactions, but for the one that there may be. */
	assert_int_equal(peer->open, 1);
	peer->reply[PEER_BODY] = "250 2.0.0 kept";
	outbound_answer_bodies(peer);
	outbound_until(w, 12);
	assert_int_equal(peer->accepted, 4);
}

static void test_same_options_keep_connections(void **state)
{
	struct lane *lane;

	(void)state;
	queue_many(DOMAIN, 1);
	outbound_until(w, 1);
	lane = outbound_lane(outbound_record(w, DOMAIN));
	take(begin_generation(peer));
	queue_many(DOMAIN, 1);
	outbound_until(w, 2);
	assert_ptr_equal(outbound_lane(outbound_record(w, DOMAIN)), lane);
	assert_ptr_equal(lane->options, options);
	assert_ptr_equal(lane->site->options, options);
	assert_int_equal(peer->accepted, 1);
}

static void test_other_connections_are_opened_when_they_differ(void **state)
{
	struct domain_options *fresh;

	(void)state;
	queue_many(DOMAIN, 1);
	outbound_until(w, 1);
	assert_int_equal(peer->open, 1);
	fresh = begin_generation(peer);
	fresh->ehlo_hostname = "other.test";
	take(fresh);
	outbound_settle(w);
	assert_int_equal(peer->open, 0);
	queue_many(DOMAIN, 1);
	outbound_until(w, 2);
	assert_int_equal(peer->accepted, 2);
}

/* One that is in the middle of a message ends it, and carries no other. */
static void test_what_is_under_way_goes_on(void **state)
{
	struct domain_options *fresh;

	(void)state;
	peer->reply[PEER_BODY] = PEER_SILENT;
	options->max_outbound_connections = 1;
	queue_many(DOMAIN, 1);
	outbound_settle(w);
	fresh = begin_generation(peer);
	fresh->ehlo_hostname = "other.test";
	take(fresh);
	outbound_settle(w);
	assert_int_equal(peer->open, 1);
	peer->reply[PEER_BODY] = "250 2.0.0 kept";
	outbound_answer_bodies(peer);
	outbound_until(w, 1);
	outbound_settle(w);
	assert_int_equal(peer->open, 0);
	assert_true(recipient_set_count(&outbound_attempt(w, 1)->delivered) == 1);
}

static void test_gateways_change_for_the_next_attempt(void **state)
{
	struct peer *other = outbound_peer(w);

	(void)state;
	queue_many(DOMAIN, 1);
	outbound_until(w, 1);
	take(begin_generation(other));
	queue_many(DOMAIN, 2);
	outbound_until(w, 3);
	assert_int_equal(peer->bodies, 1);
	assert_int_equal(other->bodies, 2);
}

static void test_suspension_follows_but_orders_stay(void **state)
{
	struct domain_options *fresh;

	(void)state;
	queue_many(DOMAIN, 1);
	outbound_until(w, 1);
	fresh = begin_generation(peer);
	fresh->suspend_delivery = true;
	take(fresh);
	queue_many(DOMAIN, 1);
	outbound_pass(w, 10);
	assert_int_equal(outbound_hold(outbound_record(w, DOMAIN)), DOMAIN_SUSPENDED);
	/* What operators have said is none of the configuration's. */
	outbound_enter(w);
	dispatch_suspend(&w->dispatcher, outbound_record(w, DOMAIN), NULL);
	outbound_leave(w);
	outbound_until(w, 2);
	take(begin_generation(peer));
	queue_many(DOMAIN, 1);
	outbound_until(w, 3);
}

static void test_a_throttle_goes_on_where_it_is(void **state)
{
	static struct throttle before;
	static struct throttle after;
	struct domain_options *fresh;

	(void)state;
	throttle_init(&before, 1, 3600, "domain");
	throttle_detach(&before);
	throttle_init(&after, 1, 3600, "domain");
	throttle_detach(&after);
	throttle_inherit(&after, &before);
	options->throttle_messages = &before;
	queue_many(DOMAIN, 2);
	outbound_until(w, 1);
	fresh = begin_generation(peer);
	fresh->throttle_messages = &after;
	take(fresh);
	throttle_close(&before);
	outbound_pass(w, 10);
	assert_int_equal(w->outcome_count, 1);
	assert_int_equal(outbound_hold(outbound_record(w, DOMAIN)), DOMAIN_THROTTLE_MESSAGES);
	outbound_pass(w, 3600 * 1000);
	outbound_until(w, 2);
	options->throttle_messages = NULL;
	throttle_close(&after);
}

/* The record has gone over, its site has not: each has a throttle of its own generation. */
static void test_a_throttle_is_charged_once_meanwhile(void **state)
{
	static struct throttle before;
	static struct throttle after;

	(void)state;
	throttle_init(&before, 1, 300, "domain");
	throttle_detach(&before);
	throttle_init(&after, 1, 300, "domain");
	throttle_detach(&after);
	throttle_inherit(&after, &before);
	options->throttle_messages = &before;
	queue_many(DOMAIN, 1);
	outbound_until(w, 1);
	outbound_pass(w, 300 * 1000);
	begin_generation(peer)->throttle_messages = &after;
	outbound_enter(w);
	dispatch_renew(&w->dispatcher, 2, false);
	assert_false(dispatch_renew_step(&w->dispatcher));
	outbound_leave(w);
	queue_many(DOMAIN, 1);
	outbound_until(w, 2);
	queue_many(DOMAIN, 1);
	outbound_pass(w, 299 * 1000);
	assert_int_equal(w->outcome_count, 2);
	outbound_enter(w);
	while (!dispatch_renew_step(&w->dispatcher)) {
	}
	outbound_leave(w);
	outbound_pass(w, 2000);
	outbound_until(w, 3);
	throttle_close(&before);
	throttle_close(&after);
}

/* Who enters a lane of the generation before while its domains have left it takes it along. */
static void test_a_lane_entered_meanwhile_goes_over(void **state)
{
	struct host host = outbound_host("127.0.0.1", peer->port, 10);
	struct domain_options *old = outbound_domain(w, "x.test", NULL);
	struct lane *lane;

	(void)state;
	peer->reply[PEER_BODY] = PEER_SILENT;
	outbound_queue(w, "x.test", "a");
	outbound_resolve_set(w, "10 mx.test", &host, 1, 60000);
	outbound_settle(w);
	lane = outbound_lane(outbound_record(w, "x.test"));
	snprintf(w->domains[w->domain_count - 1].name, sizeof(w->domains[0].name), "gone");
	outbound_domain(w, "x.test", NULL)->ehlo_hostname = "other.test";
	outbound_enter(w);
	dispatch_renew(&w->dispatcher, 2, false);
	assert_false(dispatch_renew_step(&w->dispatcher));
	outbound_leave(w);
	assert_int_equal(lane->domain_count, 0);
	outbound_queue(w, "y.test", "a");
	outbound_resolve_set(w, "10 mx.test", &host, 1, 60000);
	assert_ptr_equal(outbound_lane(outbound_record(w, "y.test")), lane);
	outbound_enter(w);
	while (!dispatch_renew_step(&w->dispatcher)) {
	}
	outbound_leave(w);
	memset(old, 0xa5, sizeof *old);
	assert_ptr_equal(lane->options, &w->options);
	for (struct connection *c = lane->site->connections; c != NULL; c = c->site_next) {
		assert_ptr_equal(c->options, &w->options);
	}
	peer->reply[PEER_BODY] = "250 2.0.0 kept";
	outbound_answer_bodies(peer);
	outbound_until(w, 2);
}

/* A gateway for all mail comes while the exchangers of "x.test" are looked up: it has the record's
 * mail, and nobody else's mail goes to those exchangers. */
static void begin_gateway_while_looking_up(void)
{
	queue_many(DOMAIN, 1);
	outbound_until(w, 1);
	outbound_domain(w, "x.test", NULL);
	outbound_queue(w, "x.test", "a");
	assert_int_equal(w->resolving_count, 1);
	snprintf(w->domains[w->domain_count - 1].name, sizeof(w->domains[0].name), "gone");
	w->site_options = *outbound_domain(w, "x.test", peer);
	take(begin_generation(peer));
}

static void test_an_answer_of_the_generation_before_does_not_count(void **state)
{
	struct peer *stranger = outbound_peer(w);
	struct host host = outbound_host("127.0.0.1", stranger->port, 10);

	(void)state;
	begin_gateway_while_looking_up();
	outbound_resolve_set(w, "10 mx.stranger.test", &host, 1, 60000);
	outbound_until(w, 2);
	assert_int_equal(stranger->accepted, 0);
	assert_int_equal(peer->bodies, 2);
}

static void test_a_refusal_of_the_generation_before_does_not_count(void **state)
{
	(void)state;
	begin_gateway_while_looking_up();
	outbound_resolve(w, NULL, 0, true, 60000);
	outbound_until(w, 2);
	assert_int_equal(peer->bodies, 2);
}

/* It comes before the record has gone over. */
static void test_an_answer_without_the_policy_that_counts_now(void **state)
{
	struct host host = outbound_host("127.0.0.1", peer->port, 10);

	(void)state;
	outbound_domain(w, "x.test", NULL);
	outbound_queue(w, "x.test", "a");
	snprintf(w->domains[w->domain_count - 1].name, sizeof(w->domains[0].name), "gone");
	outbound_domain(w, "x.test", NULL)->mta_sts = true;
	outbound_enter(w);
	dispatch_renew(&w->dispatcher, 2, false);
	outbound_leave(w);
	outbound_resolve(w, &host, 1, false, 60000);
	assert_int_equal(w->resolving_count, 1);
	outbound_enter(w);
	while (!dispatch_renew_step(&w->dispatcher)) {
	}
	outbound_leave(w);
	outbound_resolve(w, &host, 1, false, 60000);
	assert_int_equal(w->resolving_count, 0);
	outbound_until(w, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_raised_limit_holds_at_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_lowered_limit_opens_no_more, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_same_options_keep_connections, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_other_connections_are_opened_when_they_differ,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_is_under_way_goes_on, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_gateways_change_for_the_next_attempt, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_suspension_follows_but_orders_stay, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_a_throttle_goes_on_where_it_is, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_a_throttle_is_charged_once_meanwhile, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_a_lane_entered_meanwhile_goes_over, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(
			test_an_answer_of_the_generation_before_does_not_count, set_up, tear_down),
		cmocka_unit_test_setup_teardown(
			test_a_refusal_of_the_generation_before_does_not_count, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_an_answer_without_the_policy_that_counts_now,
						set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
