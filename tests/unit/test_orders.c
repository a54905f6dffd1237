/*
 * Orders to long queues, and records that nobody needs any more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/outbound/dispatch_parts.h"
#include "tests/unit/connection_world.h"

#define KEEP_MS 600000

static void suspend(bool on)
{
	outbound_enter(w);
	dispatch_suspend(&w->dispatcher, outbound_record(w, DOMAIN),
			 on ? suspension_new("uid 0", 0, 0) : NULL);
	outbound_leave(w);
}

/* A queue that is longer than two slices and does not move. */
static void queue_long(unsigned count)
{
	outbound_queue(w, DOMAIN, "a");
	outbound_until(w, 1);
	suspend(true);
	queue_many(DOMAIN, count);
}

static void test_fail_works_in_slices(void **state)
{
	(void)state;
	queue_long(3000);
	outbound_enter(w);
	assert_int_equal(dispatch_fail(&w->dispatcher, outbound_record(w, DOMAIN), true), 3000);
	outbound_leave(w);
	assert_int_equal(w->outcome_count, 1 + DISPATCH_SLICE);
	/* What comes after the order is not meant by it. */
	outbound_queue(w, DOMAIN, "late");
	outbound_settle(w);
	assert_int_equal(w->outcome_count, 1 + 3000);
	assert_int_equal(outbound_record(w, DOMAIN)->active_count, 1);
	assert_int_equal(outbound_record(w, DOMAIN)->sweeps, 0);
}

static void test_flush_works_in_slices(void **state)
{
	struct domain *d;

	(void)state;
	queue_long(0);
	d = outbound_record(w, DOMAIN);
	outbound_enter(w);
	for (unsigned i = 0; i < 2500; i++) {
		struct delivery *delivery = outbound_delivery(w, DOMAIN, "a");

		delivery->due_ms = agent_wall_ms(&w->agent) + 60000 + i;
		dispatch_delay(&w->dispatcher, d, delivery);
	}
	dispatch_flush(&w->dispatcher, d);
	outbound_leave(w);
	assert_int_equal(d->active_count, DISPATCH_SLICE);
	outbound_settle(w);
	assert_int_equal(d->active_count, 2500);
	assert_int_equal(d->delayed_count, 0);
}

static void test_record_goes_when_unused_for_long(void **state)
{
	(void)state;
	outbound_queue(w, DOMAIN, "a");
	outbound_until(w, 1);
	assert_int_equal(w->dispatcher.domains.count, 1);
	/* The idle connection closes first. */
	outbound_pass(w, 10000);
	outbound_pass(w, KEEP_MS - 1000);
	assert_int_equal(w->dispatcher.domains.count, 1);
	outbound_pass(w, 1000);
	outbound_pass(w, 1000);
	assert_int_equal(w->dispatcher.domains.count, 0);
	/* The next message makes a new one. */
	outbound_queue(w, DOMAIN, "a");
	outbound_until(w, 2);
	assert_int_equal(outbound_record(w, DOMAIN)->delivered, 1);
}

static void test_record_stays_while_an_order_stands(void **state)
{
	(void)state;
	queue_long(0);
	for (unsigned i = 0; i < 4; i++) {
		outbound_pass(w, KEEP_MS);
	}
	assert_int_equal(w->dispatcher.domains.count, 1);
	suspend(false);
	for (unsigned i = 0; i < 2; i++) {
		outbound_pass(w, KEEP_MS + 1000);
	}
	assert_int_equal(w->dispatcher.domains.count, 0);
}

/* Its last mail is failed while it is held back. */
static void fail_all(struct domain *d)
{
	outbound_queue(w, DOMAIN, "a");
	outbound_enter(w);
	dispatch_fail(&w->dispatcher, d, true);
	outbound_leave(w);
	outbound_settle(w);
}

static struct domain *record_of_nothing(void)
{
	struct domain *d;

	outbound_enter(w);
	d = dispatch_find(&w->dispatcher, BINDING_DEFAULT, DOMAIN);
	outbound_leave(w);
	return d;
}

/* What the configuration and a binding's order say is known without it. */
static void test_record_goes_when_held_back_and_unused(void **state)
{
	struct domain *d;

	(void)state;
	w->domains[0].options.suspend_delivery = true;
	fail_all(record_of_nothing());
	outbound_pass(w, KEEP_MS + 1000);
	assert_int_equal(w->dispatcher.domains.count, 0);
	w->domains[0].options.suspend_delivery = false;
	d = record_of_nothing();
	outbound_enter(w);
	dispatch_order_binding(&w->dispatcher, d->binding_record, BINDING_SUSPENDED,
			       suspension_new("uid 0", w->now.wall_ns / NS_PER_MS, 0));
	outbound_leave(w);
	fail_all(d);
	outbound_pass(w, KEEP_MS + 1000);
	assert_int_equal(w->dispatcher.domains.count, 0);
	/* The next message is held back as well. */
	outbound_queue(w, DOMAIN, "a");
	outbound_pass(w, 1000);
	assert_int_equal(outbound_hold(outbound_record(w, DOMAIN)), DOMAIN_BINDING_SUSPENDED);
}

/* Who suspended it is not forgotten, although it would be suspended without. */
static void test_record_stays_while_somebody_has_suspended_it(void **state)
{
	struct domain *d;

	(void)state;
	w->domains[0].options.suspend_delivery = true;
	d = record_of_nothing();
	outbound_enter(w);
	dispatch_suspend(&w->dispatcher, d, suspension_new("uid 0", w->now.wall_ns / NS_PER_MS, 0));
	outbound_leave(w);
	fail_all(d);
	outbound_pass(w, KEEP_MS + 1000);
	outbound_pass(w, KEEP_MS + 1000);
	assert_non_null(outbound_record(w, DOMAIN)->suspension);
}

static const char *two_a_connection(struct peer *p, struct peer_connection *c, enum peer_verb verb)
{
	(void)p;
	return verb == PEER_MAIL && c->mails > 2 ? "421 4.7.0 enough!" : NULL;
}

/* At its end mail goes, whoever looks. */
static void test_suspension_ends_at_its_time(void **state)
{
	struct dispatcher *x = &w->dispatcher;
	struct domain *d;
	struct obstacle first;
	uint64_t wall_ms = w->now.wall_ns / NS_PER_MS;

	(void)state;
	outbound_enter(w);
	d = dispatch_find(x, BINDING_DEFAULT, DOMAIN);
	dispatch_suspend(x, d, suspension_new("uid 0", wall_ms, wall_ms + 7200000));
	outbound_leave(w);
	outbound_queue(w, DOMAIN, "a");
	outbound_settle(w);
	outbound_enter(w);
	first = obstacle_first(x, d);
	outbound_leave(w);
	assert_int_equal(first.why, DOMAIN_SUSPENDED);
	assert_int_equal(first.until_ms, w->now.mono_ns / NS_PER_MS + 7200000);
	outbound_pass(w, 7199000);
	assert_int_equal(w->outcome_count, 0);
	outbound_pass(w, 1100);
	outbound_until(w, 1);
	assert_null(d->suspension);
	assert_false(d->suspended);
	/* Resumed before, the end is forgotten. */
	wall_ms = w->now.wall_ns / NS_PER_MS;
	outbound_enter(w);
	dispatch_suspend(x, d, suspension_new("uid 0", wall_ms, wall_ms + 1000));
	dispatch_suspend(x, d, NULL);
	dispatch_suspend(x, d, suspension_new("uid 0", wall_ms, 0));
	outbound_leave(w);
	outbound_pass(w, 2000);
	assert_true(d->suspended);
}

/* What the configuration suspends is so again. */
static void test_suspension_ends_in_what_is_configured(void **state)
{
	struct dispatcher *x = &w->dispatcher;
	struct domain *d;
	uint64_t wall_ms = w->now.wall_ns / NS_PER_MS;

	(void)state;
	w->domains[0].options.suspend_delivery = true;
	outbound_enter(w);
	d = dispatch_find(x, BINDING_DEFAULT, DOMAIN);
	dispatch_suspend(x, d, suspension_new("uid 0", wall_ms, wall_ms + 1000));
	outbound_leave(w);
	outbound_queue(w, DOMAIN, "a");
	outbound_pass(w, 2000);
	assert_null(d->suspension);
	assert_true(d->suspended);
	assert_int_equal(w->outcome_count, 0);
}

static void test_suspension_of_a_binding_ends_at_its_time(void **state)
{
	struct dispatcher *x = &w->dispatcher;
	struct binding_record *b;
	struct domain *idle;
	uint64_t wall_ms = w->now.wall_ns / NS_PER_MS;

	(void)state;
	outbound_domain(w, "idle.test", peer);
	outbound_enter(w);
	idle = dispatch_find(x, BINDING_DEFAULT, "idle.test");
	outbound_leave(w);
	b = idle->binding_record;
	outbound_enter(w);
	dispatch_order_binding(x, b, BINDING_SUSPENDED,
			       suspension_new("uid 0", wall_ms, wall_ms + 100000));
	dispatch_binding_order(x, idle);
	outbound_leave(w);
	outbound_queue(w, DOMAIN, "a");
	outbound_settle(w);
	assert_int_equal(obstacle_first(x, outbound_record(w, DOMAIN)).why,
			 DOMAIN_BINDING_SUSPENDED);
	outbound_pass(w, 99000);
	assert_int_equal(w->outcome_count, 0);
	outbound_pass(w, 1100);
	outbound_until(w, 1);
	assert_int_equal(b->order, BINDING_AS_CONFIGURED);
	assert_null(b->suspension);
	/* Nor does one wait that had no mail then. */
	outbound_queue(w, "idle.test", "a");
	outbound_until(w, 2);
}

static void test_421_on_a_used_connection_is_no_attempt(void **state)
{
	(void)state;
	peer->answer = two_a_connection;
	queue_many(DOMAIN, 9);
	outbound_until(w, 9);
	assert_int_equal(outbound_record(w, DOMAIN)->delivered, 9);
	for (unsigned i = 0; i < w->outcome_count; i++) {
		assert_true(recipient_set_empty(&w->outcomes[i].attempt.deferred));
	}
}

static void test_banner_with_5xx_is_not_final(void **state)
{
	uint32_t number;

	(void)state;
	peer->reply[PEER_BANNER] = "554 no service here!";
	number = outbound_queue(w, DOMAIN, "a");
	outbound_until(w, 1);
	outbound_assert_verdict(w, number, (struct outbound_verdict){.deferred = 1});
	assert_int_equal(outbound_hold(outbound_record(w, DOMAIN)), DOMAIN_HOSTS_DOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_fail_works_in_slices, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_flush_works_in_slices, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_record_goes_when_unused_for_long, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_record_stays_while_an_order_stands, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_record_goes_when_held_back_and_unused, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_record_stays_while_somebody_has_suspended_it,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_suspension_ends_at_its_time, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_suspension_ends_in_what_is_configured, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_suspension_of_a_binding_ends_at_its_time,
						set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_421_on_a_used_connection_is_no_attempt, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_banner_with_5xx_is_not_final, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
