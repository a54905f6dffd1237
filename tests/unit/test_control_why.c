/*
 * `why` as the console tells it: rows and words about obstacles, who gave an order, what is told of
 * messages and of the longest queues, and a scheduler that has too much to do.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CONTROL_WORLD_APART
#include "tests/unit/control_world.h"

static void test_limit_is_told_with_its_option_and_what_changes_it(void **state)
{
	struct domain *d;
	json_t *v;

	(void)state;
	world->options.max_outbound_connections = 0;
	for (unsigned i = 0; i < 1200; i++) {
		queue_mail("full.example", 1, 0);
	}
	d = record("full.example");
	d->resolving = false;
	d->hold = DOMAIN_CONNECTIONS;
	v = result_of("why domain Full.example");
	assert_string_equal(text_at(v, "why"),
			    "full.example: 1 200 messages wait for max_outbound_connections = 0 "
			    "(test.conf:24), 0 in use");
	assert_string_equal(text_at(v, "reason"), "max_outbound_connections");
	assert_string_equal(text_at(v, "reasons.0.option"), "max_outbound_connections");
	assert_string_equal(text_at(v, "reasons.0.value"), "0");
	assert_string_equal(text_at(v, "reasons.0.set_at"), "test.conf:24");
	assert_string_equal(text_at(v, "reasons.0.set_by"), "full.example of default");
	assert_string_equal(text_at(v, "reasons.0.what_changes_it"),
			    "max_outbound_connections in domain \"full.example\"");
	assert_true(json_is_null(at(v, "next_attempt_at")));
	assert_int_equal(number_at(v, "active"), 1200);
	assert_string_equal(text_at(v, "drain.assumption"),
			    "nothing was sent in the last minute that it could be told from");
	json_decref(v);
}

static void test_rate_of_the_last_minute_is_the_estimate(void **state)
{
	struct domain *d;
	json_t *v;

	(void)state;
	for (unsigned i = 0; i < 60; i++) {
		queue_mail("full.example", 1, 0);
	}
	d = record("full.example");
	d->resolving = false;
	d->hold = DOMAIN_CONNECTIONS;
	for (unsigned i = 0; i < 20; i++) {
		recent_add(&d->done, world->now.mono_ns / NS_PER_MS);
	}
	v = result_of("why domain full.example");
	assert_non_null(strstr(text_at(v, "why"), "; 20/s, drained in 3.0 s if nothing changes"));
	assert_string_equal(text_at(v, "drain.assumption"), "at the rate of the last minute, 20/s");
	json_decref(v);
}

static void test_suspension_is_told_with_who_and_when(void **state)
{
	char who[64];
	json_t *v;

	(void)state;
	queue_mail("s.example", 1, 0);
	json_decref(result_of("suspend domain s.example"));
	snprintf(who, sizeof(who), "uid %u (pid %d)", (unsigned)getuid(), (int)getpid());
	v = result_of("why domain s.example");
	assert_non_null(strstr(text_at(v, "reasons.0.what"), "an operator suspended it, uid "));
	assert_non_null(strstr(text_at(v, "reasons.0.what"), who));
	assert_non_null(strstr(text_at(v, "reasons.0.what"), ", at 2023-11-14T22:13:20Z; "));
	assert_string_equal(text_at(v, "drain.assumption"), "not before that ends");
	json_decref(v);
	/* With its end the note goes. */
	json_decref(result_of("resume domain s.example"));
	assert_null(record("s.example")->suspension);
	json_decref(result_of("suspend binding default"));
	v = result_of("why domain s.example");
	assert_string_equal(text_at(v, "reason"), "binding_suspended");
	assert_non_null(strstr(text_at(v, "why"), who));
	json_decref(v);
	json_decref(result_of("resume binding default"));
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		assert_null(binding_default(&world->schedulers[i].dispatcher.bindings)->suspension);
	}
}

static void test_delayed_mail_is_told_with_its_times(void **state)
{
	json_t *v;

	(void)state;
	queue_mail("later.example", 1, 30);
	queue_mail("later.example", 1, 40);
	queue_mail("later.example", 1, 600);
	queue_mail("later.example", 1, 7200);
	v = result_of("why domain later.example");
	assert_string_equal(text_at(v, "reason"), "retry");
	assert_int_equal(number_at(v, "due_in_a_minute"), 2);
	assert_int_equal(number_at(v, "due_in_an_hour"), 3);
	assert_int_equal(number_at(v, "reasons.0.count"), 4);
	assert_in_range(number_at(v, "next_attempt_in_ms"), 29900, 30000);
	assert_non_null(strstr(text_at(v, "why"), "later.example: 4 messages wait for the next "
						  "try; the first is due in 30 s; retry_interval"));
	assert_non_null(strstr(text_at(v, "why"), "last answer: 451 4.2.0 greylisted"));
	json_decref(v);
}

static json_t *result_for_id(const struct message_id *id)
{
	char text[MESSAGE_ID_TEXT];
	char command[128];

	message_id_format(id, text);
	snprintf(command, sizeof(command), "why message %s", text);
	return result_of(command);
}

static void test_message_is_told_what_it_waits_for(void **state)
{
	struct message_id first = queue_mail("m.example", 1, 0);
	struct message_id second = queue_mail("m.example", 1, 0);
	struct message_id delayed = queue_mail("m.example", 1, 120);
	json_t *v;

	(void)state;
	v = result_for_id(&first);
	assert_int_equal(number_at(v, "deliveries.0.ahead"), 0);
	json_decref(v);
	v = result_for_id(&second);
	assert_int_equal(number_at(v, "deliveries.0.ahead"), 1);
	assert_string_equal(text_at(v, "deliveries.0.reason"), "resolving");
	assert_string_equal(text_at(v, "deliveries.0.place"), "active queue");
	json_decref(v);
	v = result_for_id(&delayed);
	assert_string_equal(text_at(v, "deliveries.0.reason"), "retry");
	assert_string_equal(text_at(v, "deliveries.0.last_reply"), "451 4.2.0 greylisted");
	assert_in_range(number_at(v, "deliveries.0.next_in_ms"), 119000, 120000);
	json_decref(v);
	assert_error("why message 00000000000000000000000001", "no delivery of message");
	assert_error("why message x", "is not a message id");
	assert_error("why domain nothere.example", "no record of domain \"nothere.example\"");
}

static void test_longest_queues_come_first_and_are_cut(void **state)
{
	json_t *v;

	(void)state;
	for (unsigned i = 1; i <= 30; i++) {
		char name[32];

		snprintf(name, sizeof(name), "q%u.example", i);
		for (unsigned n = 0; n < i; n++) {
			queue_mail(name, 1, i % 2 == 0 ? 0 : 60);
		}
	}
	v = result_of("why");
	assert_int_equal(json_array_size(at(v, "queues")), 20);
	assert_string_equal(text_at(v, "queues.0.domain"), "q30.example");
	assert_string_equal(text_at(v, "queues.0.reason"), "resolving");
	assert_true(json_is_null(at(v, "queues.0.next_in_ms")));
	assert_string_equal(text_at(v, "queues.1.reason"), "retry");
	assert_in_range(number_at(v, "queues.1.next_in_ms"), 59000, 60000);
	assert_string_equal(text_at(v, "queues.19.domain"), "q11.example");
	json_decref(v);
}

static void test_pressure_is_told_after_what_holds(void **state)
{
	json_t *v;

	(void)state;
	queue_mail("p.example", 1, 0);
	world->refuses = -ENOSPC;
	v = result_of("why domain p.example");
	assert_string_equal(text_at(v, "reason"), "resolving");
	assert_string_equal(text_at(v, "reasons.1.reason"), "disk_full");
	assert_true(json_is_false(at(v, "reasons.1.holds")));
	assert_string_equal(text_at(v, "reasons.1.option"), "min_free");
	json_decref(v);
	world->refuses = -ENOMEM;
	v = result_of("why domain p.example");
	assert_string_equal(text_at(v, "reasons.1.reason"), "reception_budget");
	json_decref(v);
}

/* It looks at the question only after more than a duty cycle should last. */
static void test_scheduler_with_too_much_to_do_is_told(void **state)
{
	json_t *answer;
	json_t *v;

	(void)state;
	world->global.stall_ns = 100 * NS_PER_MS;
	queue_mail("busy.example", 1, 0);
	assert_ptr_equal(home("busy.example"), &world->schedulers[1]);
	v = result_of("why domain busy.example");
	assert_true(json_is_false(at(v, "home.saturated")));
	assert_string_equal(text_at(v, "home.scheduler"), "scheduler.1");
	assert_int_equal(json_array_size(at(v, "reasons")), 1);
	json_decref(v);
	tell(world->client, "why domain busy.example\n");
	step_groups(1, 250);
	answer = hear(world->client);
	assert_true(json_is_true(at(answer, "result.home.saturated")));
	assert_in_range(number_at(answer, "result.home.answered_after_us"), 200000, 260000);
	assert_string_equal(text_at(answer, "result.reasons.1.reason"), "scheduler");
	assert_non_null(strstr(text_at(answer, "result.reasons.1.what"),
			       "scheduler.1 has too much to do: it took 2"));
	json_decref(answer);
}

/* The record is on its way to its first home, and when the program stops it never comes. */
static void test_order_to_a_record_on_its_way_ends_when_the_program_stops(void **state)
{
	struct runtime *rt = &world->program.runtime;
	struct domain *d;
	json_t *answer;
	char c;

	(void)state;
	queue_mail("busy.example", 1, 0);
	d = record("busy.example");
	assert_ptr_equal(((struct dispatcher *)d->owner)->self, &world->schedulers[1].base);
	d->travel = DOMAIN_EXPECTED;
	tell(world->client, "why domain busy.example\n");
	step(50);
	assert_int_equal(recv(world->client, &c, 1, 0), -1);
	/* Its thread takes a step while the stop is asked for, and the stop goes no further. */
	atomic_store(&rt->stop_requested, true);
	world->now.mono_ns += NS_PER_MS;
	group_cycle(rt->groups[1]);
	atomic_store(&rt->stop_requested, false);
	answer = hear(world->client);
	assert_true(json_is_false(at(answer, "ok")));
	assert_non_null(strstr(text_at(answer, "error"), "flywheeld stops"));
	json_decref(answer);
	d->travel = DOMAIN_AT_HOME;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_limit_is_told_with_its_option_and_what_changes_it),
		TEST(test_rate_of_the_last_minute_is_the_estimate),
		TEST(test_suspension_is_told_with_who_and_when),
		TEST(test_delayed_mail_is_told_with_its_times),
		TEST(test_message_is_told_what_it_waits_for),
		TEST(test_longest_queues_come_first_and_are_cut),
		TEST(test_pressure_is_told_after_what_holds),
		TEST(test_scheduler_with_too_much_to_do_is_told),
		TEST(test_order_to_a_record_on_its_way_ends_when_the_program_stops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
