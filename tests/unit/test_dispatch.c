/*
 * What is sent when: limits, holds, hosts, throttles, expiry, an operator's orders, and the end of
 * the program.
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

#include "core/queue/throttle.h"
#include "tests/unit/connection_world.h"

static struct domain *record(void)
{
	return outbound_record(w, DOMAIN);
}

static unsigned delivered(uint32_t number)
{
	const struct outcome *o = outbound_outcome(w, number);

	return o != NULL ? recipient_set_count(&o->attempt.delivered) : 0;
}

static void assert_code(uint32_t number, unsigned code)
{
	const struct outcome *o = outbound_outcome(w, number);

	assert_non_null(o);
	assert_int_equal(o->attempt.code, code);
}

/* A peer that answers the body of a message only when told. */
static void test_order_is_first_in_first_out(void **state)
{
	(void)state;
	options->max_outbound_connections = 1;
	queue_many(DOMAIN, 5);
	outbound_until(w, 5);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(w->outcomes[i].number, i + 1);
	}
	assert_int_equal(record()->delivered, 5);
	assert_int_equal(outbound_hold(record()), DOMAIN_FREE);
}

/* ---- limits ---- */

static void test_max_outbound_connections(void **state)
{
	(void)state;
	options->max_outbound_connections = 4;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 12);
	outbound_settle(w);
	assert_int_equal(peer->open, 4);
	assert_int_equal(outbound_hold(record()), DOMAIN_CONNECTIONS);
	assert_int_equal(record()->active_count, 8);
	outbound_answer_bodies(peer);
	outbound_until(w, 4);
	assert_int_equal(peer->open, 4);
	peer->reply[PEER_BODY] = "250 2.0.0 kept";
	outbound_answer_bodies(peer);
	outbound_until(w, 12);
	assert_int_equal(peer->open_max, 4);
	assert_int_equal(record()->connections_max, 4);
	assert_int_equal(peer->accepted, 4);
}

/* One connection finds out whether the host is there; then their number doubles. */
static void test_connections_grow_with_success(void **state)
{
	(void)state;
	peer->reply[PEER_BANNER] = PEER_SILENT;
	queue_many(DOMAIN, 12);
	outbound_settle(w);
	assert_int_equal(peer->accepted, 1);
	assert_int_equal(outbound_lane(record())->connecting_count, 1);
	peer->reply[PEER_BANNER] = "220 mx.test";
	peer->reply[PEER_BODY] = PEER_SILENT;
	assert_int_equal(write(peer->connections[0].fd, "220 mx\r\n", 8), 8);
	outbound_settle(w);
	assert_int_equal(peer->open, 12);
}

static void test_server_limit(void **state)
{
	(void)state;
	w->limits.connections_max = 3;
	peer->reply[PEER_BODY] = PEER_SILENT;
	outbound_domain(w, "other.test", peer);
	queue_many(DOMAIN, 5);
	queue_many("other.test", 2);
	outbound_settle(w);
	assert_int_equal(peer->open, 3);
	assert_int_equal(outbound_hold(record()), DOMAIN_SERVER_CONNECTIONS);
	assert_int_equal(outbound_hold(outbound_record(w, "other.test")),
			 DOMAIN_SERVER_CONNECTIONS);
	assert_true(atomic_load(&w->limits.refused) > 0);
	peer->reply[PEER_BODY] = "250 2.0.0 kept";
	outbound_answer_bodies(peer);
	outbound_settle(w);
	for (unsigned i = 0; i < 50 && w->outcome_count < 7; i++) {
		outbound_pass(w, 200);
	}
	assert_int_equal(w->outcome_count, 7);
	assert_true(peer->open_max <= 3);
}

static void test_many_domains_of_which_one_hangs(void **state)
{
	struct peer *hanging = outbound_peer(w);
	char name[32];

	(void)state;
	hanging->reply[PEER_BANNER] = PEER_SILENT;
	outbound_domain(w, "hanging.test", hanging);
	queue_many("hanging.test", 20);
	for (unsigned i = 0; i < 30; i++) {
		snprintf(name, sizeof name, "d%u.test", i);
		outbound_domain(w, name, peer)->max_outbound_connections = 1;
		queue_many(name, 3);
	}
	outbound_until(w, 90);
	assert_int_equal(peer->bodies, 90);
	assert_int_equal(hanging->accepted, 1);
	assert_int_equal(outbound_record(w, "hanging.test")->active_count, 20);
}

/* ---- throttles ---- */

static void test_message_throttle(void **state)
{
	static struct throttle t;

	(void)state;
	throttle_init(&t, 60, 60, "domain");
	options->throttle_messages = &t;
	options->idle_timeout_ms = 60000;
	queue_many(DOMAIN, 5);
	outbound_until(w, 1);
	assert_int_equal(outbound_hold(record()), DOMAIN_THROTTLE_MESSAGES);
	for (unsigned i = 2; i <= 5; i++) {
		outbound_pass(w, 900);
		assert_int_equal(w->outcome_count, i - 1);
		outbound_pass(w, 110);
		assert_int_equal(w->outcome_count, i);
	}
	assert_int_equal(peer->accepted, 1);
}

static void test_connection_throttle(void **state)
{
	static struct throttle t;

	(void)state;
	throttle_init(&t, 6, 60, "domain");
	options->throttle_connections = &t;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 3);
	outbound_settle(w);
	assert_int_equal(peer->accepted, 1);
	assert_int_equal(outbound_hold(record()), DOMAIN_THROTTLE_CONNECTIONS);
	outbound_pass(w, 9900);
	assert_int_equal(peer->accepted, 1);
	outbound_pass(w, 150);
	assert_int_equal(peer->accepted, 2);
	/* A connection that is idle needs no new one. */
	outbound_answer_bodies(peer);
	outbound_settle(w);
	assert_int_equal(record()->active_count, 0);
	assert_int_equal(peer->accepted, 2);
}

/* What a throttle granted to an attempt that was none is given back. */
static const char *close_second_mail(struct peer *p, struct peer_connection *c, enum peer_verb verb)
{
	(void)p;
	return verb == PEER_MAIL && c->mails == 2 ? PEER_CLOSE : NULL;
}

static void test_throttle_is_given_back_when_not_tried(void **state)
{
	static struct throttle t;

	(void)state;
	throttle_init(&t, 3, 1, "domain");
	options->throttle_messages = &t;
	options->max_outbound_connections = 1;
	peer->answer = close_second_mail;
	queue_many(DOMAIN, 2);
	outbound_until(w, 2);
	assert_int_equal(delivered(1) + delivered(2), 2);
	/* Two cells of three are gone. */
	assert_int_equal(throttle_take(&t, w->now.mono_ns), 0);
	assert_true(throttle_wait_ns(&t, w->now.mono_ns) > 0);
}

/* ---- hosts ---- */

static void test_host_down_holds_the_others(void **state)
{
	struct outbound_domain *d = &w->domains[0];

	(void)state;
	d->gateways[0].port = outbound_dead_port();
	queue_many(DOMAIN, 3);
	outbound_until(w, 1);
	/* The first one hears of it, the others wait. */
	assert_int_equal(w->outcomes[0].number, 1);
	assert_code(1, 451);
	assert_int_equal(w->outcomes[0].attempt.stage, SMTP_STAGE_NOT_CONNECTED);
	assert_int_equal(outbound_hold(record()), DOMAIN_HOSTS_DOWN);
	assert_int_equal(outbound_hold_until(record()),
			 w->now.mono_ns / NS_PER_MS + options->host_failure_retry_ms);
	assert_int_equal(record()->active_count, 2);
	assert_true(strlen(dispatch_trouble(record())) > 0);
	outbound_queue(w, DOMAIN, "late");
	outbound_pass(w, options->host_failure_retry_ms - 10);
	assert_int_equal(counter_get(w->dispatcher.connect_failures), 1);
	outbound_pass(w, 20);
	outbound_until(w, 2);
	assert_int_equal(counter_get(w->dispatcher.connect_failures), 2);
	assert_int_equal(w->outcomes[1].number, 2);
}

static void test_preference_and_failover(void **state)
{
	struct peer *backup = outbound_peer(w);

	(void)state;
	outbound_gateway(w, DOMAIN, backup->port, 20);
	queue_many(DOMAIN, 4);
	outbound_until(w, 4);
	assert_int_equal(backup->accepted, 0);
	outbound_pass(w, options->idle_timeout_ms);
	/* The best one refuses: the next one takes it, and nobody is deferred. */
	peer->reply[PEER_BANNER] = "421 4.3.2 busy!";
	queue_many(DOMAIN, 3);
	outbound_until(w, 7);
	assert_true(backup->bodies == 3);
	assert_int_equal(delivered(5) + delivered(6) + delivered(7), 3);
	assert_int_equal(peer->accepted, record()->connections_opened - backup->accepted);
	/* When its time is over it is tried again. */
	peer->reply[PEER_BANNER] = "220 mx.test";
	outbound_pass(w, options->host_failure_retry_ms);
	queue_many(DOMAIN, 1);
	outbound_until(w, 8);
	assert_int_equal(peer->bodies, 5);
}

static void test_equal_preference_shares(void **state)
{
	struct peer *other = outbound_peer(w);

	(void)state;
	outbound_gateway(w, DOMAIN, other->port, 10);
	options->max_outbound_connections = 10;
	peer->reply[PEER_BODY] = PEER_SILENT;
	other->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 10);
	outbound_settle(w);
	assert_int_equal(peer->open, 5);
	assert_int_equal(other->open, 5);
}

/* A host that takes only so many connections refuses the next one: those that it has go on, and no
 * delivery is deferred for it. */
static const char *only_two(struct peer *p, struct peer_connection *c, enum peer_verb verb)
{
	(void)c;
	return verb == PEER_BANNER && p->open > 2 ? "421 4.7.0 too many connections!" : NULL;
}

static void test_refused_further_connection_is_no_attempt(void **state)
{
	unsigned accepted;

	(void)state;
	peer->answer = only_two;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 10);
	outbound_settle(w);
	assert_int_equal(w->outcome_count, 0);
	assert_int_equal(peer->open, 2);
	assert_int_equal(record()->active_count, 8);
	accepted = peer->accepted;
	for (unsigned i = 1; i <= 5; i++) {
		outbound_answer_bodies(peer);
		outbound_until(w, i * 2);
	}
	assert_int_equal(record()->delivered, 10);
	assert_int_equal(record()->transient, 0);
	/* It was not asked again after each message. */
	assert_int_equal(peer->accepted, accepted);
}

/* The same address twice is one host. */
static void test_duplicate_hosts(void **state)
{
	uint16_t port = outbound_dead_port();

	(void)state;
	w->domains[0].gateways[0].port = port;
	outbound_gateway(w, DOMAIN, port, 10);
	outbound_gateway(w, DOMAIN, port, 20);
	queue_many(DOMAIN, 2);
	outbound_until(w, 1);
	assert_int_equal(outbound_lane(record())->host_count, 1);
	assert_int_equal(outbound_lane(record())->hosts[0].preference, 10);
	assert_int_equal(outbound_hold(record()), DOMAIN_HOSTS_DOWN);
	assert_int_equal(counter_get(w->dispatcher.connect_failures), 1);
}

/* ---- look-ups ---- */

static void test_look_up_and_time_to_live(void **state)
{
	struct host hosts[2] = {outbound_host("127.0.0.1", peer->port, 10),
				outbound_host("127.0.0.1", outbound_dead_port(), 20)};

	(void)state;
	outbound_domain(w, "named.test", NULL);
	queue_many("named.test", 2);
	outbound_settle(w);
	assert_int_equal(w->resolving_count, 1);
	assert_int_equal(outbound_hold(outbound_record(w, "named.test")), DOMAIN_RESOLVING);
	queue_many("named.test", 1);
	assert_int_equal(w->resolves, 1);
	outbound_resolve(w, hosts, 2, false, 60000);
	outbound_until(w, 3);
	assert_int_equal(outbound_record(w, "named.test")->delivered, 3);
	outbound_pass(w, 59000);
	queue_many("named.test", 1);
	outbound_until(w, 4);
	assert_int_equal(w->resolves, 1);
	outbound_pass(w, 6000);
	queue_many("named.test", 1);
	outbound_settle(w);
	assert_int_equal(w->resolves, 2);
	outbound_resolve(w, hosts, 1, false, 60000);
	outbound_until(w, 5);
}

static void test_look_up_fails(void **state)
{
	struct host host = outbound_host("127.0.0.1", peer->port, 10);

	(void)state;
	outbound_domain(w, "named.test", NULL);
	queue_many("named.test", 3);
	outbound_settle(w);
	outbound_resolve(w, NULL, 0, false, 0);
	outbound_until(w, 1);
	assert_code(1, 451);
	assert_string_equal(w->outcomes[0].attempt.enhanced, "4.4.3");
	assert_int_equal(outbound_hold(outbound_record(w, "named.test")), DOMAIN_UNRESOLVED);
	assert_string_equal(dispatch_trouble(outbound_record(w, "named.test")),
			    "cannot look it up");
	outbound_pass(w, options->host_failure_retry_ms - 10);
	assert_int_equal(w->resolves, 1);
	outbound_pass(w, 20);
	assert_int_equal(w->resolves, 2);
	outbound_resolve(w, &host, 1, false, 60000);
	outbound_until(w, 3);
	assert_int_equal(delivered(2) + delivered(3), 2);
}

static void test_look_up_fails_for_good(void **state)
{
	(void)state;
	outbound_domain(w, "named.test", NULL);
	queue_many("named.test", 3);
	outbound_settle(w);
	outbound_resolve(w, NULL, 0, true, 0);
	outbound_until(w, 3);
	for (uint32_t i = 1; i <= 3; i++) {
		assert_code(i, 550);
		assert_int_equal(recipient_set_count(&outbound_outcome(w, i)->attempt.failed), 1);
	}
}

/* All of a long queue, in slices, and what comes while the verdict holds; then it is asked again.
 */
static void test_refusal_holds_for_its_time(void **state)
{
	struct host host = outbound_host("127.0.0.1", peer->port, 10);

	(void)state;
	outbound_domain(w, "named.test", NULL);
	queue_many("named.test", 2500);
	outbound_settle(w);
	outbound_resolve(w, NULL, 0, true, 60000);
	outbound_until(w, 2500);
	assert_int_equal(outbound_hold(outbound_record(w, "named.test")), DOMAIN_NO_ROUTE);
	assert_int_equal(outbound_record(w, "named.test")->sweeps, 0);
	outbound_pass(w, 59000);
	queue_many("named.test", 1);
	outbound_until(w, 2501);
	assert_code(2501, 550);
	assert_string_equal(outbound_attempt(w, 2501)->enhanced, "5.1.2");
	assert_int_equal(w->resolves, 1);
	outbound_pass(w, 2000);
	queue_many("named.test", 1);
	outbound_settle(w);
	assert_int_equal(w->resolves, 2);
	outbound_resolve(w, &host, 1, false, 60000);
	outbound_until(w, 2502);
	assert_int_equal(delivered(2502), 1);
}

/* Connections to an address that left the list and came back are still counted. */
static void test_host_comes_back_into_the_list(void **state)
{
	struct peer *other = outbound_peer(w);
	struct host a = outbound_host("127.0.0.1", peer->port, 10);
	struct host b = outbound_host("127.0.0.1", other->port, 10);

	(void)state;
	outbound_domain(w, "named.test", NULL);
	peer->reply[PEER_BODY] = PEER_SILENT;
	other->reply[PEER_BODY] = PEER_SILENT;
	queue_many("named.test", 1);
	outbound_settle(w);
	outbound_resolve(w, &a, 1, false, 1000);
	outbound_settle(w);
	for (unsigned i = 0; i < 2; i++) {
		outbound_pass(w, 2000);
		queue_many("named.test", 1);
		outbound_settle(w);
		assert_int_equal(w->resolving_count, 1);
		outbound_resolve(w, i == 0 ? &b : &a, 1, false, 1000);
		outbound_settle(w);
	}
	assert_int_equal(outbound_lane(outbound_record(w, "named.test"))->host_count, 1);
	assert_int_equal(outbound_lane(outbound_record(w, "named.test"))->hosts[0].connections,
			 peer->open);
	outbound_pass(w, options->body_timeout_ms);
	outbound_pass(w, options->idle_timeout_ms);
	assert_int_equal(outbound_record(w, "named.test")->connection_count, 0);
	assert_int_equal(outbound_lane(outbound_record(w, "named.test"))->hosts[0].connections, 0);
}

/* ---- waiting, expiry ---- */

static void test_deferred_comes_again_when_due(void **state)
{
	(void)state;
	outbound_queue(w, DOMAIN, "later1");
	outbound_queue(w, DOMAIN, "later2");
	outbound_until(w, 2);
	assert_int_equal(record()->delayed_count, 2);
	outbound_pass(w, options->retry_interval_ms - 10);
	assert_int_equal(w->outcome_count, 2);
	outbound_pass(w, 10);
	outbound_until(w, 4);
	/* The second wait is twice as long. */
	outbound_pass(w, options->retry_interval_ms * 2 - 10);
	assert_int_equal(w->outcome_count, 4);
	peer->reply[PEER_RCPT] = "250 2.1.5 fine";
	outbound_pass(w, 10);
	outbound_until(w, 6);
	assert_int_equal(record()->delivered, 2);
}

static void test_expires_in_a_queue_that_is_held(void **state)
{
	(void)state;
	options->suspend_delivery = true;
	outbound_queue_old(w, DOMAIN, "a", options->message_expiration_ms - 90000);
	outbound_queue(w, DOMAIN, "b");
	outbound_settle(w);
	assert_int_equal(outbound_hold(record()), DOMAIN_SUSPENDED);
	assert_int_equal(w->outcome_count, 0);
	/* It is looked at once a minute. */
	outbound_pass(w, 60000);
	outbound_pass(w, 60000);
	assert_int_equal(w->outcome_count, 1);
	assert_code(1, 554);
	assert_string_equal(w->outcomes[0].attempt.enhanced, "5.4.7");
	assert_int_equal(record()->active_count, 1);
}

static void test_expires_behind_what_is_urgent(void **state)
{
	struct delivery *urgent;

	(void)state;
	options->suspend_delivery = true;
	outbound_queue_old(w, DOMAIN, "a", options->message_expiration_ms - 90000);
	urgent = outbound_delivery(w, DOMAIN, "b");
	urgent->urgent = true;
	outbound_enter(w);
	dispatch_enqueue(&w->dispatcher, record(), urgent);
	outbound_leave(w);
	outbound_pass(w, 60000);
	outbound_pass(w, 60000);
	assert_int_equal(w->outcome_count, 1);
	assert_code(1, 554);
	assert_ptr_equal(record()->active_head, urgent);
	assert_int_equal(record()->active_count, 1);
}

static void test_expired_is_not_tried(void **state)
{
	(void)state;
	outbound_queue_old(w, DOMAIN, "a", options->message_expiration_ms);
	outbound_settle(w);
	assert_int_equal(w->outcome_count, 1);
	assert_code(1, 554);
	assert_int_equal(peer->accepted, 0);
}

/* The wheel's clock may run a little ahead of this group's: who is rung early must not sleep on. */
static void test_hold_ends_when_the_wheel_is_ahead(void **state)
{
	(void)state;
	w->domains[0].gateways[0].port = outbound_dead_port();
	queue_many(DOMAIN, 2);
	outbound_until(w, 1);
	assert_int_equal(outbound_hold(record()), DOMAIN_HOSTS_DOWN);
	w->now.mono_ns += options->host_failure_retry_ms * NS_PER_MS;
	for (unsigned i = 0; i < 4; i++) {
		group_cycle(w->runtime.groups[1]);
	}
	w->now.mono_ns -= 2 * NS_PER_MS;
	for (unsigned i = 0; i < 4; i++) {
		group_cycle(w->runtime.groups[0]);
	}
	w->now.mono_ns += 10 * NS_PER_MS;
	outbound_until(w, 2);
}

/* ---- an operator's orders ---- */

static void test_suspend_and_resume(void **state)
{
	(void)state;
	queue_many(DOMAIN, 1);
	outbound_until(w, 1);
	outbound_enter(w);
	dispatch_suspend(&w->dispatcher, record(), suspension_new("uid 0", 0, 0));
	outbound_leave(w);
	queue_many(DOMAIN, 3);
	outbound_settle(w);
	/* Not even an idle connection is used. */
	assert_int_equal(w->outcome_count, 1);
	assert_int_equal(record()->active_count, 3);
	assert_int_equal(outbound_hold(record()), DOMAIN_SUSPENDED);
	outbound_enter(w);
	dispatch_suspend(&w->dispatcher, record(), NULL);
	outbound_leave(w);
	outbound_until(w, 4);
	assert_int_equal(record()->delivered, 4);
}

static void test_flush(void **state)
{
	(void)state;
	outbound_queue(w, DOMAIN, "later1");
	outbound_queue(w, DOMAIN, "later2");
	outbound_until(w, 2);
	peer->reply[PEER_RCPT] = "250 2.1.5 fine";
	outbound_enter(w);
	dispatch_flush(&w->dispatcher, record());
	outbound_leave(w);
	outbound_until(w, 4);
	assert_int_equal(record()->delivered, 2);
	assert_int_equal(record()->delayed_count, 0);
}

static void test_flush_tries_hosts_again(void **state)
{
	(void)state;
	peer->reply[PEER_BANNER] = "421 4.3.2 busy!";
	queue_many(DOMAIN, 3);
	outbound_until(w, 1);
	assert_int_equal(outbound_hold(record()), DOMAIN_HOSTS_DOWN);
	peer->reply[PEER_BANNER] = "220 mx.test";
	outbound_enter(w);
	dispatch_flush(&w->dispatcher, record());
	outbound_leave(w);
	outbound_until(w, 4);
	assert_int_equal(record()->delivered, 3);
}

static void test_fail_everything(void **state)
{
	(void)state;
	options->max_outbound_connections = 1;
	outbound_queue(w, DOMAIN, "later1");
	outbound_until(w, 1);
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 3);
	outbound_settle(w);
	outbound_enter(w);
	assert_int_equal(dispatch_fail(&w->dispatcher, record(), true), 4);
	outbound_leave(w);
	assert_int_equal(w->outcome_count, 4);
	for (unsigned i = 1; i < 4; i++) {
		assert_int_equal(w->outcomes[i].attempt.code, 554);
		assert_int_equal(recipient_set_count(&w->outcomes[i].attempt.failed), 1);
		assert_true(w->outcomes[i].doomed_quiet);
	}
	assert_int_equal(record()->active_count + record()->delayed_count, 0);
	/* The one on a connection ends as the server says; if it is deferred, it is doomed. */
	assert_int_equal(record()->attempt_count, 1);
	outbound_pass(w, options->body_timeout_ms);
	outbound_until(w, 5);
	assert_int_equal(w->pools.deliveries.live, 0);
}

/* Doomed while its attempt comes to nothing: it does not go back to the queue. */
static void test_fail_when_the_attempt_is_none(void **state)
{
	struct delivery *second;

	(void)state;
	options->max_outbound_connections = 1;
	queue_many(DOMAIN, 1);
	outbound_until(w, 1);
	peer->reply[PEER_MAIL] = PEER_SILENT;
	queue_many(DOMAIN, 1);
	outbound_settle(w);
	second = record()->connections->delivery;
	assert_non_null(second);
	outbound_enter(w);
	dispatch_fail_delivery(&w->dispatcher, second, false);
	outbound_leave(w);
	for (unsigned i = 0; i < PEER_CONNECTIONS_MAX; i++) {
		if (peer->connections[i].fd >= 0) {
			shutdown(peer->connections[i].fd, SHUT_RDWR);
		}
	}
	outbound_until(w, 2);
	assert_int_equal(w->pools.deliveries.live, 0);
	assert_false(w->outcomes[1].doomed_quiet);
}

static void test_retry_one_delivery(void **state)
{
	(void)state;
	outbound_queue(w, DOMAIN, "later1");
	outbound_queue(w, DOMAIN, "later2");
	outbound_until(w, 2);
	peer->reply[PEER_RCPT] = "250 2.1.5 fine";
	outbound_enter(w);
	dispatch_retry_delivery(&w->dispatcher, domain_peek_delayed(record()));
	outbound_leave(w);
	outbound_until(w, 3);
	assert_int_equal(record()->delivered, 1);
	assert_int_equal(record()->delayed_count, 1);
	outbound_enter(w);
	dispatch_fail_delivery(&w->dispatcher, domain_peek_delayed(record()), false);
	outbound_leave(w);
	assert_int_equal(w->outcome_count, 4);
	assert_int_equal(w->outcomes[3].attempt.code, 554);
}

/* ---- the end ---- */

static void test_stop_lets_transactions_finish(void **state)
{
	(void)state;
	options->max_outbound_connections = 2;
	peer->reply[PEER_BODY] = PEER_SILENT;
	queue_many(DOMAIN, 5);
	outbound_settle(w);
	assert_false(outbound_stop(w, false));
	assert_int_equal(outbound_hold(record()), DOMAIN_STOPPING);
	assert_int_equal(w->outcome_count, 0);
	outbound_answer_bodies(peer);
	outbound_until(w, 2);
	assert_int_equal(record()->delivered, 2);
	assert_true(dispatch_drained(&w->dispatcher));
	assert_int_equal(peer->count[PEER_QUIT], 2);
	assert_int_equal(record()->active_count, 3);
}

static void test_stop_in_a_hurry(void **state)
{
	struct peer *silent = outbound_peer(w);

	(void)state;
	silent->reply[PEER_BANNER] = PEER_SILENT;
	outbound_domain(w, "silent.test", silent);
	peer->reply[PEER_BODY] = PEER_SILENT;
	peer->reply[PEER_QUIT] = PEER_SILENT;
	queue_many(DOMAIN, 1);
	queue_many("silent.test", 1);
	outbound_settle(w);
	assert_false(outbound_stop(w, false));
	/* Who only sets up is given up at once. */
	assert_int_equal(w->dispatcher.connection_count, 1);
	assert_true(outbound_stop(w, true));
	assert_int_equal(w->outcome_count, 1);
	assert_code(1, 451);
	assert_string_equal(w->outcomes[0].attempt.text, "451 4.3.2 [internal] the program stops");
	assert_int_equal(outbound_record(w, "silent.test")->active_count, 1);
}

static void test_stop_when_idle(void **state)
{
	(void)state;
	queue_many(DOMAIN, 1);
	outbound_until(w, 1);
	assert_true(outbound_stop(w, false));
	assert_int_equal(peer->count[PEER_QUIT], 1);
	queue_many(DOMAIN, 1);
	outbound_settle(w);
	assert_int_equal(peer->accepted, 1);
	assert_int_equal(outbound_hold(record()), DOMAIN_STOPPING);
}

static void test_stop_while_loading(void **state)
{
	(void)state;
	w->not_resident = true;
	w->hold_loads = true;
	queue_many(DOMAIN, 1);
	outbound_settle(w);
	assert_int_equal(w->load_count, 1);
	assert_false(outbound_stop(w, false));
	assert_true(outbound_stop(w, true));
	assert_int_equal(w->load_count, 0);
	assert_int_equal(w->outcome_count, 1);
}

/* What is only in memory is not put back into a queue that nobody will look at again: the host is
 * told, and keeps it. */
static void test_stop_hands_over_what_is_only_in_memory(void **state)
{
	(void)state;
	options->max_outbound_connections = 1;
	queue_many(DOMAIN, 1);
	outbound_until(w, 1);
	peer->reply[PEER_MAIL] = PEER_SILENT;
	w->durability = ENVELOPE_MEMORY;
	queue_many(DOMAIN, 1);
	outbound_settle(w);
	assert_false(outbound_stop(w, false));
	assert_true(outbound_stop(w, true));
	assert_int_equal(w->outcome_count, 2);
	assert_code(2, 451);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_order_is_first_in_first_out),
		TEST(test_max_outbound_connections),
		TEST(test_connections_grow_with_success),
		TEST(test_server_limit),
		TEST(test_many_domains_of_which_one_hangs),
		TEST(test_message_throttle),
		TEST(test_connection_throttle),
		TEST(test_throttle_is_given_back_when_not_tried),
		TEST(test_host_down_holds_the_others),
		TEST(test_preference_and_failover),
		TEST(test_equal_preference_shares),
		TEST(test_refused_further_connection_is_no_attempt),
		TEST(test_duplicate_hosts),
		TEST(test_look_up_and_time_to_live),
		TEST(test_look_up_fails),
		TEST(test_look_up_fails_for_good),
		TEST(test_refusal_holds_for_its_time),
		TEST(test_host_comes_back_into_the_list),
		TEST(test_deferred_comes_again_when_due),
		TEST(test_expires_in_a_queue_that_is_held),
		TEST(test_expires_behind_what_is_urgent),
		TEST(test_expired_is_not_tried),
		TEST(test_hold_ends_when_the_wheel_is_ahead),
		TEST(test_suspend_and_resume),
		TEST(test_flush),
		TEST(test_flush_tries_hosts_again),
		TEST(test_fail_everything),
		TEST(test_fail_when_the_attempt_is_none),
		TEST(test_retry_one_delivery),
		TEST(test_stop_lets_transactions_finish),
		TEST(test_stop_in_a_hurry),
		TEST(test_stop_when_idle),
		TEST(test_stop_while_loading),
		TEST(test_stop_hands_over_what_is_only_in_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
