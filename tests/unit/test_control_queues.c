/* What operators see and change of the mail that is queued. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/control_world.h"

/* ---- tests: what operators look at ---- */

static void test_summary_adds_schedulers_up(void **state)
{
	json_t *v;

	(void)state;
	queue_mail("a.example", 1, 0);
	queue_mail("a.example", 1, 0);
	queue_mail("b.example", 1, 0);
	queue_mail("c.example", 1, 300);
	counter_add(world->schedulers[0].delivered, 5000);
	counter_add(world->schedulers[1].delivered, 1000);
	counter_add(world->schedulers[1].received, 600);
	atomic_store(&world->program.limits.connections, 7);
	pass_s(10);
	v = result_of("summary");
	assert_int_equal(number_at(v, "outbound_concurrency"), 7);
	assert_int_equal(number_at(v, "domains"), 3);
	assert_int_equal(number_at(v, "active_domains"), 2);
	assert_int_equal(number_at(v, "active_queue_size"), 3);
	assert_int_equal(number_at(v, "delayed_queue_size"), 1);
	assert_int_equal(number_at(v, "total_queue_size"), 4);
	assert_int_equal(number_at(v, "successfully_delivered_messages"), 6000);
	assert_int_equal(number_at(v, "resident_body_bytes"), 4711);
	assert_true(json_real_value(at(v, "delivery_rate_per_s")) > 550);
	assert_true(json_real_value(at(v, "delivery_rate_per_s")) < 600);
	assert_true(json_real_value(at(v, "uptime_s")) >= 10);
	json_decref(v);
	pass_s(10);
	v = result_of("summary");
	assert_true(json_real_value(at(v, "delivery_rate_per_s")) == 0);
	json_decref(v);
}

static void test_domain_says_what_holds_it_and_until_when(void **state)
{
	struct domain *d;
	json_t *v;

	(void)state;
	throttle_init(&world->throttle, 100, 60, "domain \"slow.example\"");
	world->options.throttle_messages = &world->throttle;
	queue_mail("slow.example", 1, 0);
	queue_mail("slow.example", 2, 600);
	d = record("slow.example");
	d->hold = DOMAIN_THROTTLE_MESSAGES;
	d->hold_until_ms = world->now.mono_ns / NS_PER_MS + 42000;
	v = result_of("domain SLOW.Example.");
	assert_string_equal(text_at(v, "domain"), "slow.example");
	assert_string_equal(text_at(v, "state"), "held");
	assert_string_equal(text_at(v, "held_by"), "outbound_throttle_messages");
	assert_string_equal(
		text_at(v, "reason"),
		"outbound_throttle_messages = 100/60 (test.conf:26), next slot in 42 s");
	assert_string_equal(text_at(v, "held_until_at"), "2023-11-14T22:14:02Z");
	assert_true(json_real_value(at(v, "time_left_s")) > 41);
	assert_int_equal(number_at(v, "queue.active"), 1);
	assert_int_equal(number_at(v, "queue.delayed"), 1);
	assert_string_equal(text_at(v, "queue.next_due_at"), "2023-11-14T22:23:20Z");
	assert_string_equal(text_at(v, "limits.0.limit"), "max_outbound_connections");
	assert_int_equal(number_at(v, "limits.0.value"), 20);
	assert_string_equal(text_at(v, "limits.2.value"), "100/60");
	assert_true(json_is_true(at(v, "limits.2.holds_now")));
	assert_string_equal(text_at(v, "limits.3.value"), "none");
	json_decref(v);
}

/* A lane for a record, as a look-up makes one. */
static struct lane *lane_of(struct domain *d)
{
	struct dispatcher *x = d->owner;
	struct site *s = site_create(&x->sites, d->binding, "mx 10 mx1.down.example", d->options);
	bool made;
	struct lane *l = lane_open(s, d->options, "10 mx1.down.example", false, &made);

	s->owner = x;
	timer_init(&s->hold_timer, x->self, NULL);
	timer_init(&l->down_timer, x->self, NULL);
	d->hold = DOMAIN_FREE;
	d->resolving = false;
	lane_enter(l, d);
	return l;
}

static void test_domain_names_hosts_and_the_last_trouble(void **state)
{
	struct domain *d;
	struct lane *l;
	json_t *v;

	(void)state;
	queue_mail("down.example", 1, 0);
	d = record("down.example");
	l = lane_of(d);
	l->hosts = calloc(1, sizeof(struct host));
	l->host_count = 1;
	l->hosts[0].name = "mx1.down.example";
	*(struct sockaddr_in *)(void *)&l->hosts[0].address = (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(25), .sin_addr.s_addr = htonl(0x0a000001)};
	l->hosts[0].failed_until_ms = world->now.mono_ns / NS_PER_MS + 90000;
	l->down_why = DOMAIN_HOSTS_DOWN;
	l->down_until_ms = l->hosts[0].failed_until_ms;
	lane_set_trouble(l, "421 go \xff away");
	v = result_of("domain down.example");
	assert_string_equal(text_at(v, "reason"),
			    "every next hop failed and is left alone, last: 421 go ? away; tried "
			    "again in 90 s; host_failure_retry = 0s (test.conf:18)");
	assert_string_equal(text_at(v, "next_hops.0.address"), "10.0.0.1:25");
	assert_string_equal(text_at(v, "next_hops.0.state"), "failed, left alone");
	assert_true(json_real_value(at(v, "next_hops.0.for_s")) > 89);
	assert_string_equal(text_at(v, "site"), "mx 10 mx1.down.example");
	json_decref(v);
	lane_leave(d);
}

static void test_unknown_domain_is_an_error_with_a_hint(void **state)
{
	(void)state;
	assert_error("domain nothere.example", "no record of domain \"nothere.example\"");
	assert_error("resume domain nothere.example", "\"domains\" lists what there is");
	assert_error("flush domain nothere.example", "no record");
	assert_error("fail domain nothere.example", "no record");
}

/* Its first home of now asks the one of before, which has said already that it knows nothing. */
static void test_unknown_domain_is_told_while_homes_change(void **state)
{
	char command[64];
	char name[32];
	unsigned i = 0;

	(void)state;
	do {
		snprintf(name, sizeof(name), "gone%u.example", i++);
	} while (home(name) == &world->schedulers[0]);
	for (i = 0; i < SCHEDULERS; i++) {
		relocate_adopt(&world->schedulers[i].dispatcher, 1, 1);
	}
	snprintf(command, sizeof(command), "domain %s", name);
	for (i = 0; i < 3; i++) {
		assert_error(command, "nothing has been queued for it");
	}
}

static void test_domains_lists_all_of_many(void **state)
{
	json_t *v;

	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		char name[32];

		snprintf(name, sizeof(name), "d%u.example", i);
		queue_mail(name, 1, i % 3 == 0 ? 100 : 0);
	}
	v = result_of("domain all");
	assert_int_equal(json_array_size(at(v, "domains")), 3000);
	assert_int_equal(number_at(v, "totals.domains"), 3000);
	assert_int_equal(number_at(v, "totals.active"), 2000);
	assert_int_equal(number_at(v, "totals.delayed"), 1000);
	json_decref(v);
}

static void test_listing_starts_anew_when_the_table_grows(void **state)
{
	json_t *answer;
	char name[32];

	(void)state;
	for (unsigned i = 0; i < 1800; i++) {
		snprintf(name, sizeof(name), "d%u.example", i);
		queue_mail(name, 1, 0);
	}
	tell(world->client, "domains\n");
	step(2);
	for (unsigned i = 1800; i < 6000; i++) {
		snprintf(name, sizeof(name), "d%u.example", i);
		queue_mail(name, 1, 0);
	}
	answer = hear(world->client);
	assert_int_equal(json_array_size(at(answer, "result.domains")), 6000);
	assert_int_equal(number_at(answer, "result.totals.domains"), 6000);
	json_decref(answer);
}

static void test_active_and_delayed_show_only_longer_queues(void **state)
{
	json_t *v;

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		queue_mail("long.example", 1, 0);
		queue_mail("late.example", 1, 60);
	}
	queue_mail("short.example", 1, 0);
	v = result_of("active 4");
	assert_int_equal(json_array_size(at(v, "domains")), 1);
	assert_string_equal(text_at(v, "domains.0.domain"), "long.example");
	assert_int_equal(number_at(v, "totals.domains"), 3);
	json_decref(v);
	v = result_of("active 5");
	assert_int_equal(json_array_size(at(v, "domains")), 0);
	json_decref(v);
	v = result_of("delayed 0");
	assert_int_equal(json_array_size(at(v, "domains")), 1);
	assert_int_equal(number_at(v, "domains.0.delayed"), 5);
	json_decref(v);
}

static void test_mailq_is_sorted_and_cut(void **state)
{
	json_t *v;

	(void)state;
	for (unsigned i = 1; i <= 30; i++) {
		char name[32];

		snprintf(name, sizeof(name), "q%u.example", i);
		for (unsigned n = 0; n < i; n++) {
			queue_mail(name, 1, n % 2 == 0 ? 0 : 60);
		}
	}
	v = result_of("mailq");
	assert_int_equal(json_array_size(at(v, "queues")), 20);
	assert_string_equal(text_at(v, "queues.0.domain"), "q30.example");
	assert_string_equal(text_at(v, "queues.19.domain"), "q11.example");
	assert_int_equal(number_at(v, "totals.active") + number_at(v, "totals.delayed"), 465);
	json_decref(v);
	v = result_of("mailq 3");
	assert_int_equal(json_array_size(at(v, "queues")), 3);
	assert_string_equal(text_at(v, "queues.2.domain"), "q28.example");
	json_decref(v);
	assert_error("mailq 0", "mailq shows 1 to 1000 queues");
}

/* A record, with so many deliveries that were over just now. */
static void make_done(const char *binding, const char *domain, unsigned count)
{
	struct scheduler *s = home_by(binding, domain);
	struct domain *d;

	agent_current = &s->base;
	d = dispatch_find(&s->dispatcher, binding, domain);
	agent_current = NULL;
	for (unsigned i = 0; i < count; i++) {
		recent_add(&d->done, agent_now_ms(&s->base));
	}
}

static void test_busiest_is_sorted_and_cut(void **state)
{
	json_t *v;

	(void)state;
	for (unsigned i = 1; i <= 30; i++) {
		char name[32];

		snprintf(name, sizeof(name), "q%u.example", i);
		for (unsigned n = 0; n < i; n++) {
			queue_mail(name, 1, 60);
		}
	}
	make_done("default", "q3.example", 5);
	make_done("default", "gone.example", 9);
	make_done("default", "idle.example", 0);
	v = result_of("busiest 3");
	assert_int_equal(json_array_size(v), 3);
	assert_string_equal(text_at(v, "0.domain"), "gone.example");
	assert_string_equal(text_at(v, "1.domain"), "q3.example");
	assert_string_equal(text_at(v, "2.domain"), "q30.example");
	assert_true(json_real_value(at(v, "0.rate_per_s")) >
		    json_real_value(at(v, "1.rate_per_s")));
	json_decref(v);
	v = result_of("busiest queue");
	assert_int_equal(json_array_size(v), 20);
	assert_string_equal(text_at(v, "0.domain"), "q30.example");
	assert_string_equal(text_at(v, "19.domain"), "q11.example");
	json_decref(v);
	/* Of equals the first names are kept, wherever they are met. */
	for (unsigned i = 1; i <= 30; i++) {
		char name[32];

		snprintf(name, sizeof(name), "same%02u.example", i);
		for (unsigned n = 0; n < 40; n++) {
			queue_mail(name, 1, 60);
		}
	}
	v = result_of("busiest 7 queue");
	assert_int_equal(json_array_size(v), 7);
	assert_string_equal(text_at(v, "0.domain"), "same01.example");
	assert_string_equal(text_at(v, "6.domain"), "same07.example");
	json_decref(v);
	/* Nothing is to be said of a record without mail. */
	v = result_of("busiest 1000 connections");
	assert_int_equal(json_array_size(v), 61);
	json_decref(v);
	assert_error("busiest 0", "busiest shows 1 to 1000 domains");
	assert_error("busiest 1001", "busiest shows 1 to 1000 domains");
	assert_error("busiest 5 size", "usage: busiest");
	assert_error("busiest rate 5", "usage: busiest");
}

static void test_complete_has_names_that_begin_so(void **state)
{
	json_t *v;

	(void)state;
	for (unsigned i = 0; i < 300; i++) {
		char name[32];

		snprintf(name, sizeof(name), "%s%u.example", i < 150 ? "a" : "b", i);
		make_done("default", name, 0);
	}
	make_done("other", "b200.example", 0);
	v = result_of("complete domain B20");
	assert_int_equal(json_array_size(v), 10);
	assert_string_equal(text_at(v, "0"), "b200.example");
	assert_string_equal(text_at(v, "9"), "b209.example");
	json_decref(v);
	v = result_of("complete domain");
	assert_int_equal(json_array_size(v), 100);
	json_decref(v);
	v = result_of("complete binding de");
	assert_int_equal(json_array_size(v), 1);
	assert_string_equal(text_at(v, "0"), "default");
	json_decref(v);
	assert_error("complete nonsense a", "usage: complete");
}

/* ---- tests: what operators change ---- */

static json_t *result_for_id(const char *format, const struct message_id *id)
{
	char text[MESSAGE_ID_TEXT];
	char command[128];
	const char *place = strchr(format, '%');

	message_id_format(id, text);
	snprintf(command, sizeof(command), "%.*s%s%s", (int)(place - format), format, text,
		 place + 1);
	return result_of(command);
}

static void test_message_is_found_where_it_waits(void **state)
{
	struct message_id active = queue_mail("m.example", 2, 0);
	struct message_id delayed = queue_mail("n.example", 15, 120);
	json_t *v = result_for_id("message %", &active);

	(void)state;
	assert_string_equal(text_at(v, "sender"), "sender@here.example");
	assert_int_equal(number_at(v, "body_bytes"), 2048);
	assert_string_equal(text_at(v, "deliveries.0.place"), "active queue");
	assert_string_equal(text_at(v, "deliveries.0.domain"), "m.example");
	assert_string_equal(text_at(v, "deliveries.0.domain_held_by"),
			    "next hops are being looked up");
	assert_string_equal(text_at(v, "deliveries.0.recipients.1"), "r001@m.example");
	json_decref(v);
	v = result_for_id("message %", &delayed);
	assert_string_equal(text_at(v, "deliveries.0.place"), "delayed queue");
	assert_string_equal(text_at(v, "deliveries.0.last_reply"), "451 4.2.0 greylisted");
	assert_int_equal(number_at(v, "deliveries.0.attempts"), 1);
	assert_int_equal(json_array_size(at(v, "deliveries.0.recipients")), 11);
	assert_string_equal(text_at(v, "deliveries.0.recipients.10"), "and 5 more");
	json_decref(v);
	v = result_for_id("message % full", &delayed);
	assert_int_equal(json_array_size(at(v, "deliveries.0.recipients")), 15);
	json_decref(v);
	assert_error("message 00000000000000000000000001", "no delivery of message");
}

/* What queues know is told at once; the envelope is read once for all rows, and given up again. */
static void test_message_on_disk_is_read_back(void **state)
{
	struct message_id id;
	json_t *v;

	(void)state;
	world->on_disk = true;
	id = queue_mail("m.example", 2, 0);
	v = result_for_id("message %", &id);
	assert_int_equal(world->loads, 1);
	assert_string_equal(text_at(v, "sender"), "sender@here.example");
	assert_string_equal(text_at(v, "durability"), "synced");
	assert_int_equal(number_at(v, "recipients_in_all"), 2);
	assert_int_equal(number_at(v, "body_bytes"), 2048);
	assert_int_equal(json_array_size(at(v, "deliveries.0.recipients")), 2);
	assert_string_equal(text_at(v, "deliveries.0.recipients.1"), "r001@m.example");
	assert_string_equal(text_at(v, "deliveries.0.place"), "active queue");
	json_decref(v);
	assert_int_equal(record("m.example")->active_count, 1);
	assert_int_equal(mail_pools_live(&home("m.example")->pools), 1);
}

static void test_message_that_cannot_be_read_says_so(void **state)
{
	struct message_id id;
	json_t *v;

	(void)state;
	world->on_disk = true;
	world->load_result = -EIO;
	id = queue_mail("n.example", 2, 120);
	v = result_for_id("message %", &id);
	assert_string_equal(text_at(v, "trouble"),
			    "the envelope cannot be read back: Input/output error");
	assert_true(json_is_null(at(v, "sender")));
	assert_true(json_is_null(at(v, "deliveries.0.recipients")));
	assert_int_equal(number_at(v, "body_bytes"), 2048);
	assert_int_equal(number_at(v, "deliveries.0.recipients_pending"), 2);
	assert_string_equal(text_at(v, "deliveries.0.last_reply"), "451 4.2.0 greylisted");
	json_decref(v);
	assert_int_equal(record("n.example")->delayed_count, 1);
	world->load_result = 0;
	v = result_for_id("message %", &id);
	assert_string_equal(text_at(v, "sender"), "sender@here.example");
	json_decref(v);
}

static void test_message_fail_and_retry(void **state)
{
	struct message_id a = queue_mail("m.example", 1, 600);
	struct message_id b = queue_mail("m.example", 1, 600);
	json_t *v = result_for_id("message fail % quiet", &a);

	(void)state;
	assert_int_equal(number_at(v, "deliveries"), 1);
	assert_int_equal(world->failed, 1);
	assert_true(world->failed_quietly);
	assert_int_equal(record("m.example")->delayed_count, 1);
	json_decref(v);
	v = result_for_id("message retry %", &b);
	assert_int_equal(number_at(v, "deliveries"), 1);
	assert_int_equal(record("m.example")->delayed_count, 0);
	assert_int_equal(record("m.example")->active_count, 1);
	json_decref(v);
}

static void test_flush_moves_delayed_to_active(void **state)
{
	json_t *v;

	(void)state;
	queue_mail("f.example", 1, 600);
	queue_mail("g.example", 1, 600);
	queue_mail("h.example", 1, 600);
	v = result_of("flush domain F.example");
	assert_int_equal(number_at(v, "messages_flushed"), 1);
	assert_int_equal(record("f.example")->active_count, 1);
	assert_int_equal(record("g.example")->active_count, 0);
	json_decref(v);
	v = result_of("flush domain all");
	assert_int_equal(number_at(v, "messages_flushed"), 2);
	assert_int_equal(record("h.example")->active_count, 1);
	json_decref(v);
}

static void test_fail_domain_fails_all_of_it(void **state)
{
	json_t *v;

	(void)state;
	queue_mail("f.example", 1, 600);
	queue_mail("f.example", 1, 0);
	queue_mail("g.example", 1, 0);
	v = result_of("fail domain f.example");
	assert_int_equal(number_at(v, "messages_failed"), 2);
	assert_int_equal(world->failed, 2);
	assert_false(world->failed_quietly);
	assert_int_equal(record("g.example")->active_count, 1);
	json_decref(v);
}

static void test_domain_is_suspended_before_it_has_mail(void **state)
{
	json_t *v = result_of("suspend domain s.example");

	(void)state;
	assert_string_equal(text_at(v, "state"), "suspended");
	json_decref(v);
	queue_mail("s.example", 1, 0);
	v = result_of("domain s.example");
	assert_string_equal(text_at(v, "held_by"), "suspended");
	assert_non_null(strstr(text_at(v, "reason"), "an operator suspended it"));
	json_decref(v);
	json_decref(result_of("resume domain s.example"));
	v = result_of("domain s.example");
	assert_string_equal(text_at(v, "held_by"), "next hops are being looked up");
	json_decref(v);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_summary_adds_schedulers_up),
		TEST(test_domain_says_what_holds_it_and_until_when),
		TEST(test_domain_names_hosts_and_the_last_trouble),
		TEST(test_unknown_domain_is_an_error_with_a_hint),
		TEST(test_unknown_domain_is_told_while_homes_change),
		TEST(test_domains_lists_all_of_many),
		TEST(test_listing_starts_anew_when_the_table_grows),
		TEST(test_active_and_delayed_show_only_longer_queues),
		TEST(test_mailq_is_sorted_and_cut),
		TEST(test_busiest_is_sorted_and_cut),
		TEST(test_complete_has_names_that_begin_so),
		TEST(test_message_is_found_where_it_waits),
		TEST(test_message_on_disk_is_read_back),
		TEST(test_message_that_cannot_be_read_says_so),
		TEST(test_message_fail_and_retry),
		TEST(test_flush_moves_delayed_to_active),
		TEST(test_fail_domain_fails_all_of_it),
		TEST(test_domain_is_suspended_before_it_has_mail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
