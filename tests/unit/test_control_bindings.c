/* What operators see and change of bindings, and of one domain by several of them. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/outbound/dispatch_parts.h"
#include "tests/unit/control_world.h"

static void configure(void)
{
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		struct binding_table *t = &world->schedulers[i].dispatcher.bindings;

		binding_add(t, "a", "promo", 3, false);
		binding_add(t, "b", "promo", 1, true);
	}
}

static struct binding_record *binding(uint32_t scheduler, const char *name)
{
	return binding_find(&world->schedulers[scheduler].dispatcher.bindings, name);
}

static void test_bindings_add_schedulers_up(void **state)
{
	json_t *v;

	(void)state;
	configure();
	for (unsigned i = 0; i < 40; i++) {
		char name[32];

		snprintf(name, sizeof(name), "d%u.example", i);
		queue_mail_by(i % 2 == 0 ? "a" : "default", name, 1, i % 4 == 0 ? 100 : 0);
	}
	queue_mail_by("lost", "x.example", 1, 0);
	binding(0, "a")->received = 30;
	binding(1, "a")->received = 12;
	binding(0, "a")->delivered = 5;
	binding(1, "b")->failed = 6;
	binding(1, "b")->transient = 7;
	v = result_of("bindings");
	assert_int_equal(json_array_size(at(v, "bindings")), 4);
	assert_string_equal(text_at(v, "bindings.0.binding"), "default");
	assert_string_equal(text_at(v, "bindings.0.group"), "default");
	assert_int_equal(number_at(v, "bindings.0.domains"), 20);
	assert_int_equal(number_at(v, "bindings.0.active"), 20);
	assert_string_equal(text_at(v, "bindings.1.binding"), "a");
	assert_string_equal(text_at(v, "bindings.1.group"), "promo");
	assert_string_equal(text_at(v, "bindings.1.state"), "");
	assert_int_equal(number_at(v, "bindings.1.weight"), 3);
	assert_int_equal(number_at(v, "bindings.1.domains"), 20);
	assert_int_equal(number_at(v, "bindings.1.active"), 10);
	assert_int_equal(number_at(v, "bindings.1.delayed"), 10);
	assert_int_equal(number_at(v, "bindings.1.received"), 42);
	assert_int_equal(number_at(v, "bindings.1.delivered"), 5);
	assert_string_equal(text_at(v, "bindings.2.binding"), "b");
	assert_string_equal(text_at(v, "bindings.2.state"), "suspended");
	assert_int_equal(number_at(v, "bindings.2.failed"), 6);
	assert_int_equal(number_at(v, "bindings.2.transient"), 7);
	assert_string_equal(text_at(v, "bindings.3.binding"), "lost");
	assert_string_equal(text_at(v, "bindings.3.state"), "not configured");
	json_decref(v);
	v = result_of("bindings promo");
	assert_int_equal(json_array_size(at(v, "bindings")), 2);
	json_decref(v);
	v = result_of("binding a");
	assert_int_equal(number_at(v, "received"), 42);
	assert_int_equal(json_array_size(at(v, "bind_addresses")), 0);
	assert_int_equal(number_at(v, "max_outbound_connections"), 20);
	json_decref(v);
	assert_error("binding promo", "no binding \"promo\"; \"bindings\" lists what there is");
	assert_error("bindings c", "no binding \"c\"");
	assert_error("suspend binding c", "no binding \"c\"");
	assert_error("flush binding c", "no binding \"c\"");
	assert_error("fail binding c", "no binding \"c\"");
}

static void test_domain_by_each_binding(void **state)
{
	json_t *v;

	(void)state;
	configure();
	queue_mail_by("a", "d.example", 1, 0);
	v = result_of("domain d.example");
	assert_string_equal(text_at(v, "binding"), "a");
	assert_string_equal(text_at(v, "binding_group"), "promo");
	json_decref(v);
	queue_mail_by("b", "d.example", 1, 60);
	queue_mail("d.example", 1, 60);
	v = result_of("domain D.example");
	assert_string_equal(text_at(v, "domain"), "d.example");
	assert_int_equal(json_array_size(at(v, "bindings")), 3);
	json_decref(v);
	v = result_of("domain d.example b");
	assert_string_equal(text_at(v, "binding"), "b");
	assert_int_equal(number_at(v, "queue.delayed"), 1);
	json_decref(v);
	assert_error("domain d.example B", "no record of domain \"d.example\" by binding \"B\"");
	v = result_of("mailq 10 a");
	assert_int_equal(json_array_size(at(v, "queues")), 1);
	assert_string_equal(text_at(v, "queues.0.binding"), "a");
	assert_int_equal(number_at(v, "totals.active"), 1);
	json_decref(v);
	v = result_of("mailq b");
	assert_string_equal(text_at(v, "queues.0.binding"), "b");
	json_decref(v);
	assert_error("mailq a 10", "\"a\" is no selector");
	/* Orders reach one, or all. */
	v = result_of("flush domain d.example b");
	assert_int_equal(number_at(v, "messages_flushed"), 1);
	assert_int_equal(record_by("b", "d.example")->active_count, 1);
	assert_int_equal(record("d.example")->delayed_count, 1);
	json_decref(v);
	v = result_of("fail domain d.example b quiet");
	assert_int_equal(number_at(v, "messages_failed"), 1);
	assert_true(world->failed_quietly);
	assert_int_equal(record_by("a", "d.example")->active_count, 1);
	json_decref(v);
	v = result_of("fail domain d.example quiet");
	assert_int_equal(number_at(v, "messages_failed"), 2);
	assert_int_equal(world->failed, 3);
	json_decref(v);
	assert_error("flush domain all a", "no record of domain \"all\" by binding \"a\"");
}

static void test_domain_is_suspended_for_one_or_all(void **state)
{
	json_t *v;

	(void)state;
	configure();
	v = result_of("suspend domain d.example a");
	assert_string_equal(text_at(v, "state"), "suspended");
	json_decref(v);
	queue_mail_by("a", "d.example", 1, 0);
	queue_mail("d.example", 1, 0);
	assert_true(record_by("a", "d.example")->suspended);
	assert_false(record("d.example")->suspended);
	/* All that there are, before they have mail. */
	v = result_of("suspend domain e.example");
	json_decref(v);
	assert_true(record_by("a", "e.example")->suspended);
	assert_true(record_by("b", "e.example")->suspended);
	assert_true(record("e.example")->suspended);
	/* Each at its home, and nowhere else: two of the other domain, and these. */
	assert_int_equal(world->schedulers[0].dispatcher.domains.count +
				 world->schedulers[1].dispatcher.domains.count,
			 2 + 3);
	json_decref(result_of("resume domain e.example b"));
	assert_true(record_by("a", "e.example")->suspended);
	assert_false(record_by("b", "e.example")->suspended);
	json_decref(result_of("resume domain e.example"));
	assert_false(record_by("a", "e.example")->suspended);
	assert_error("suspend domain e.example c", "by binding \"c\"");
}

static void test_binding_is_suspended_and_resumed(void **state)
{
	json_t *v;

	(void)state;
	configure();
	queue_mail_by("a", "d.example", 1, 0);
	queue_mail_by("a", "e.example", 1, 60);
	queue_mail("d.example", 1, 0);
	v = result_of("suspend binding a");
	assert_string_equal(text_at(v, "state"), "suspended");
	assert_int_equal(number_at(v, "domains"), 2);
	assert_int_equal(number_at(v, "active"), 1);
	assert_int_equal(number_at(v, "delayed"), 1);
	json_decref(v);
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		assert_true(binding_is_suspended(binding(i, "a")));
		/* Both are: the turn is that of either. */
		assert_non_null(binding_choose(&world->schedulers[i].dispatcher.bindings, "promo"));
	}
	v = result_of("domain d.example a");
	assert_string_equal(text_at(v, "state"), "suspended");
	assert_string_equal(text_at(v, "held_by"), "the binding is suspended");
	assert_non_null(strstr(text_at(v, "reason"), "\"resume binding a\" ends it"));
	json_decref(v);
	assert_int_equal(record("d.example")->hold, DOMAIN_RESOLVING);
	/* New records are held too; resuming the domain is not enough. */
	queue_mail_by("a", "f.example", 1, 0);
	json_decref(result_of("resume domain f.example"));
	assert_int_equal(record_by("a", "f.example")->hold, DOMAIN_BINDING_SUSPENDED);
	v = result_of("resume binding a");
	assert_string_equal(text_at(v, "state"), "resumed");
	json_decref(v);
	assert_int_equal(record_by("a", "d.example")->hold, DOMAIN_RESOLVING);
	assert_int_equal(record_by("a", "f.example")->hold, DOMAIN_RESOLVING);
	assert_int_equal(record_by("a", "e.example")->hold, DOMAIN_FREE);
}

/* What the configuration suspends is resumed as a whole, records that come later included. */
static void test_resume_ends_suspend_delivery(void **state)
{
	(void)state;
	configure();
	world->options.suspend_delivery = true;
	queue_mail_by("b", "d.example", 1, 0);
	assert_true(record_by("b", "d.example")->suspended);
	json_decref(result_of("resume binding b"));
	queue_mail_by("b", "e.example", 1, 0);
	assert_int_equal(record_by("b", "d.example")->hold, DOMAIN_RESOLVING);
	assert_int_equal(record_by("b", "e.example")->hold, DOMAIN_RESOLVING);
	queue_mail("d.example", 1, 0);
	assert_int_equal(record("d.example")->hold, DOMAIN_SUSPENDED);
}

static void test_flush_and_fail_a_binding(void **state)
{
	json_t *v;

	(void)state;
	configure();
	for (unsigned i = 0; i < 100; i++) {
		char name[32];

		snprintf(name, sizeof(name), "d%u.example", i);
		queue_mail_by(i % 4 == 0 ? "b" : "a", name, 1, 60);
	}
	v = result_of("flush binding b");
	assert_int_equal(number_at(v, "domains"), 25);
	assert_int_equal(number_at(v, "messages_flushed"), 25);
	json_decref(v);
	assert_int_equal(record_by("b", "d4.example")->active_count, 1);
	assert_int_equal(record_by("a", "d5.example")->active_count, 0);
	v = result_of("fail binding a quiet");
	assert_int_equal(number_at(v, "domains"), 75);
	assert_int_equal(number_at(v, "messages_failed"), 75);
	json_decref(v);
	assert_int_equal(world->failed, 75);
	assert_true(world->failed_quietly);
	assert_int_equal(record_by("b", "d4.example")->active_count, 1);
	assert_error("fail binding a loudly", "usage: fail binding NAME [quiet]");
}

/* The record of the domain by the binding goes to the other scheduler, as it does when its site is
 * there. */
static void send_away(const char *by, const char *domain)
{
	static struct dispatcher *all[SCHEDULERS];
	struct dispatcher *from = &home_by(by, domain)->dispatcher;
	struct domain *d = record_by(by, domain);
	struct dispatcher *to;

	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		all[i] = &world->schedulers[i].dispatcher;
		all[i]->peers = all;
		all[i]->peer_count = SCHEDULERS;
		all[i]->index = i;
	}
	to = all[1 - from->index];
	agent_current = from->self;
	timer_cancel(&d->hold_timer);
	timer_cancel(&d->delayed_timer);
	domain_take(&from->domains, d);
	forward_add(&from->forwards, d->binding, d->name, d->hash, (uint8_t)to->index, 1);
	agent_current = to->self;
	domain_put(&to->domains, d);
	dispatch_adopt(to, d);
	agent_current = NULL;
}

/* Orders and questions find each record once, away or not. */
static void test_records_are_found_where_they_are(void **state)
{
	static const char *const all[] = {"default", "a", "b"};
	json_t *v;

	(void)state;
	configure();
	for (unsigned i = 0; i < 3; i++) {
		queue_mail_by(all[i], "d.example", 1, 60);
	}
	send_away("a", "d.example");
	send_away("b", "d.example");
	v = result_of("domain d.example");
	assert_int_equal(json_array_size(at(v, "bindings")), 3);
	json_decref(v);
	v = result_of("domain d.example a");
	assert_string_equal(text_at(v, "binding"), "a");
	assert_string_not_equal(text_at(v, "home"), home_by("a", "d.example")->base.name);
	json_decref(v);
	v = result_of("bindings promo");
	assert_int_equal(number_at(v, "bindings.0.delayed"), 1);
	json_decref(v);
	v = result_of("flush domain d.example");
	assert_int_equal(number_at(v, "messages_flushed"), 3);
	json_decref(v);
	v = result_of("suspend domain d.example");
	assert_int_equal(number_at(v, "active"), 3);
	json_decref(v);
	/* None was made in place of those that are away. */
	assert_int_equal(world->schedulers[0].dispatcher.domains.count +
				 world->schedulers[1].dispatcher.domains.count,
			 3);
	v = result_of("fail domain d.example");
	assert_int_equal(number_at(v, "messages_failed"), 3);
	json_decref(v);
}

static const json_t *suspension(const json_t *list, const char *binding)
{
	const json_t *rows = at(list, "suspensions");

	for (size_t i = 0; i < json_array_size(rows); i++) {
		if (strcmp(text_at(json_array_get(rows, i), "binding"), binding) == 0) {
			return json_array_get(rows, i);
		}
	}
	fail_msg("nothing of %s is suspended", binding);
	return NULL;
}

/* Who, since when and until when: in the list, in `domain` and in `why`. */
static void test_suspensions_have_an_end(void **state)
{
	json_t *v;

	(void)state;
	configure();
	queue_mail_by("b", "d.example", 1, 0);
	v = result_of("suspend domain d.example b for 2h");
	assert_string_equal(text_at(v, "until_at"), "2023-11-15T00:13:20Z");
	json_decref(v);
	v = result_of("suspend binding a until 2023-11-15T10:00Z");
	assert_string_equal(text_at(v, "until_at"), "2023-11-15T10:00:00Z");
	json_decref(v);
	v = result_of("suspensions");
	assert_int_equal(json_array_size(at(v, "suspensions")), 2);
	assert_string_equal(text_at(suspension(v, "a"), "until_at"), "2023-11-15T10:00:00Z");
	assert_string_equal(text_at(suspension(v, "a"), "domain"), "");
	assert_string_equal(text_at(suspension(v, "b"), "until_at"), "2023-11-15T00:13:20Z");
	assert_string_equal(text_at(suspension(v, "b"), "domain"), "d.example");
	assert_non_null(strstr(text_at(suspension(v, "b"), "by"), "uid"));
	json_decref(v);
	v = result_of("domain d.example b");
	assert_string_equal(text_at(v, "held_until_at"), "2023-11-15T00:13:20Z");
	assert_non_null(strstr(text_at(v, "reason"), "until "));
	json_decref(v);
	/* Said again, it has another end, or none. */
	json_decref(result_of("suspend binding a for 40s"));
	json_decref(result_of("suspend domain d.example b"));
	v = result_of("suspensions");
	assert_true(json_is_null(at(suspension(v, "b"), "until_at")));
	json_decref(v);
	pass_s(41);
	v = result_of("suspensions");
	assert_int_equal(json_array_size(at(v, "suspensions")), 1);
	json_decref(v);
	assert_error("suspend domain d.example for never", "is no time such as");
	assert_error("suspend domain d.example until 15:00", "is no moment such as");
	assert_error("suspend domain d.example until 2001-01-01T00:00:00Z", "is over");
	assert_error("suspend domain d.example b c", "usage: suspend domain");
	assert_error("suspend binding a b", "usage: suspend binding");
}

/* Asks, and has no answer yet. */
static void begin(const char *command)
{
	char c;

	tell(world->client, command);
	step(50);
	assert_int_equal(recv(world->client, &c, 1, 0), -1);
}

/* A record that is between two schedulers when the order comes is reached where it arrives. */
static void test_orders_reach_a_record_that_travels(void **state)
{
	struct dispatcher *x;
	struct domain *d;
	json_t *v;

	(void)state;
	configure();
	queue_mail_by("b", "here.example", 1, 60);
	queue_mail_by("b", "d.example", 1, 60);
	for (unsigned i = 0; i < 2; i++) {
		d = record_by("b", "d.example");
		x = d->owner;
		agent_current = x->self;
		domain_take(&x->domains, d);
		x->moves++;
		agent_current = NULL;
		begin(i == 0 ? "flush binding b\n" : "fail binding b quiet\n");
		agent_current = x->self;
		domain_put(&x->domains, d);
		x->moves--;
		counter_inc(x->moved);
		agent_current = NULL;
		v = hear(world->client);
		assert_int_equal(number_at(v, "result.domains"), 2);
		assert_int_equal(
			number_at(v, i == 0 ? "result.messages_flushed" : "result.messages_failed"),
			2);
		assert_null(json_object_get(at(v, "result"), "trouble"));
		json_decref(v);
	}
	assert_int_equal(world->failed, 2);
}

static void queue_mail_on(uint32_t scheduler)
{
	char name[32];

	for (uint32_t i = 0;; i++) {
		snprintf(name, sizeof(name), "d%u.example", i);
		if (home_by("b", name) == &world->schedulers[scheduler]) {
			queue_mail_by("b", name, 1, 60);
			return;
		}
	}
}

static void test_orders_reach_a_scheduler_that_joins(void **state)
{
	struct dispatcher *x = &world->schedulers[0].dispatcher;
	json_t *v;

	(void)state;
	configure();
	queue_mail_on(1);
	world->program.scheduler_count = 1;
	x->moves = 1;
	begin("flush binding b\n");
	x->moves = 0;
	world->program.scheduler_count = 2;
	v = hear(world->client);
	assert_int_equal(number_at(v, "result.messages_flushed"), 1);
	assert_null(json_object_get(at(v, "result"), "trouble"));
	json_decref(v);
}

/* Whoever leaves has nothing on its way any more. */
static void test_orders_do_not_wait_for_a_scheduler_that_left(void **state)
{
	struct agent *first = &world->schedulers[0].base;
	struct scheduler *s = &world->schedulers[1];
	json_t *v;

	(void)state;
	configure();
	s->dispatcher.moves = 1;
	begin("flush binding b\n");
	s->dispatcher.moves = 0;
	first->out_leaving = UINT64_C(1) << s->base.id;
	v = hear(world->client);
	assert_null(json_object_get(at(v, "result"), "trouble"));
	json_decref(v);
	first->out_leaving = 0;
}

/* What failed is answered when the spool has it, or after a while with a warning. */
static void test_fail_waits_for_the_spool(void **state)
{
	static const char *const orders[] = {"fail binding b\n", "fail domain d.example b\n"};
	json_t *v;

	(void)state;
	configure();
	for (unsigned i = 0; i < 2; i++) {
		queue_mail_by("b", "d.example", 1, 60);
		world->schedulers[1].orders_waiting = 3;
		begin(orders[i]);
		world->schedulers[1].orders_waiting = 0;
		v = hear(world->client);
		assert_int_equal(number_at(v, "result.messages_failed"), 1);
		assert_null(json_object_get(at(v, "result"), "trouble"));
		json_decref(v);
	}
	queue_mail_by("b", "d.example", 1, 60);
	world->schedulers[1].orders_waiting = 3;
	begin(orders[0]);
	pass_s(11);
	v = hear(world->client);
	assert_int_equal(number_at(v, "result.not_yet_written"), 3);
	assert_non_null(strstr(text_at(v, "result.trouble"), "has not written all"));
	json_decref(v);
	world->schedulers[1].orders_waiting = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_bindings_add_schedulers_up),
		TEST(test_domain_by_each_binding),
		TEST(test_records_are_found_where_they_are),
		TEST(test_domain_is_suspended_for_one_or_all),
		TEST(test_binding_is_suspended_and_resumed),
		TEST(test_resume_ends_suspend_delivery),
		TEST(test_flush_and_fail_a_binding),
		TEST(test_suspensions_have_an_end),
		TEST(test_orders_reach_a_record_that_travels),
		TEST(test_orders_reach_a_scheduler_that_joins),
		TEST(test_orders_do_not_wait_for_a_scheduler_that_left),
		TEST(test_fail_waits_for_the_spool),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
