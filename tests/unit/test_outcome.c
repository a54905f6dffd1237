/*
 * From an accepted message to its end: two real schedulers, a spool writer on a directory of its
 * own, the log writer and the wheel in invoker mode, and servers that the test steps. What a
 * restart would find is looked at by opening the spool again.
 */
#include "tests/unit/outcome_world.h"

/* ---- reception ---- */

static void test_ids_are_unique_and_sorted(void **state)
{
	struct message_id last = {0, 0};

	(void)state;
	for (unsigned i = 0; i < 10000; i++) {
		struct message_id id;

		enter(&rig->schedulers[0]);
		id = scheduler_new_id(&rig->schedulers[0]);
		leave(&rig->schedulers[0]);
		assert_true(id.high > last.high || (id.high == last.high && id.low > last.low));
		last = id;
		if (i % 100 == 0) {
			rig->now.wall_ns += NS_PER_MS;
		}
	}
	enter(&rig->schedulers[1]);
	assert_true(scheduler_new_id(&rig->schedulers[1]).low >> 56 != last.low >> 56);
	leave(&rig->schedulers[1]);
}

static void test_is_answered_when_stored_and_delivered(void **state)
{
	(void)state;
	receive("me@here.test", "a@good.test,b@good.test", ENVELOPE_SYNCED);
	assert_int_equal(rig->stored, 0);
	settle();
	assert_int_equal(rig->stored, 1);
	assert_int_equal(rig->store_result, 0);
	assert_int_equal(rig->good->bodies, 1);
	assert_int_equal(TOTAL(received), 1);
	assert_int_equal(TOTAL(recipients), 2);
	assert_int_equal(TOTAL(delivered), 2);
	assert_int_equal(logged("@D@"), 2);
	assert_int_equal(program_resident_bytes(&rig->program), 0);
	assert_nothing_left();
}

/* Each domain has its home, and the body stays until nobody reads it any more. */
static void test_body_is_dropped_by_the_last_that_defers(void **state)
{
	(void)state;
	receive("me@here.test", "later@good.test,later@other.test,x@batch.test", ENVELOPE_SYNCED);
	rig->other->reply[PEER_RCPT] = PEER_SILENT;
	settle();
	assert_int_equal(TOTAL(transient), 1);
	assert_int_equal(TOTAL(delivered), 1);
	/* One still reads it. */
	assert_int_equal(TOTAL(bodies_dropped), 0);
	assert_true(program_resident_bytes(&rig->program) > 0);
	for (unsigned i = 0; i < PEER_CONNECTIONS_MAX; i++) {
		if (rig->other->connections[i].fd >= 0) {
			assert_int_equal(
				write(rig->other->connections[i].fd, "451 4.2.1 later\r\n", 17),
				17);
		}
	}
	settle();
	assert_int_equal(TOTAL(transient), 2);
	assert_int_equal(TOTAL(bodies_dropped), 1);
	assert_int_equal(program_resident_bytes(&rig->program), 0);
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	rig->other->reply[PEER_RCPT] = "250 2.1.5 fine";
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 3);
	assert_int_equal(TOTAL(bodies_loaded), 2);
	assert_int_equal(rig->other->body_bytes, rig->good->body_bytes / 2);
	assert_nothing_left();
}

/* ---- what becomes of an attempt ---- */

static void test_bounce_for_who_failed(void **state)
{
	(void)state;
	receive("me@here.test", "bad1@good.test,a@good.test,bad2@good.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(delivered), 2);
	assert_int_equal(TOTAL(failed), 2);
	/* One for both. */
	assert_int_equal(TOTAL(bounces), 1);
	assert_int_equal(rig->home->bodies, 1);
	assert_non_null(strstr(rig->home->log, "MAIL FROM:<>\nRCPT TO:<me@here.test>\n"));
	assert_int_equal(logged("@P@"), 2);
	assert_int_equal(logged("550 5.1.1 no such user"), 2);
	assert_int_equal(record("good.test")->settling_count, 0);
	assert_nothing_left();
}

static void test_no_bounce_for_the_null_sender(void **state)
{
	(void)state;
	receive("", "bad1@good.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(failed), 1);
	assert_int_equal(TOTAL(bounces), 0);
	assert_nothing_left();
}

static void test_no_bounce_where_none_is_wanted(void **state)
{
	(void)state;
	notify = ENVELOPE_NOTIFY_NEVER;
	receive("me@here.test", "bad1@good.test,a@good.test", ENVELOPE_SYNCED);
	settle();
	notify = ENVELOPE_NOTIFY_SUCCESS;
	rig->good->reply[PEER_EHLO] = "250-good\r\n250 DSN";
	receive("me@here.test", "bad1@other.test,bad2@other.test", ENVELOPE_SYNCED);
	settle();
	notify = ENVELOPE_NOTIFY_DELAY;
	receive("me@here.test", "bad1@other.test,a@other.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(failed), 4);
	assert_int_equal(TOTAL(delivered), 2);
	assert_int_equal(TOTAL(bounces), 0);
	assert_nothing_left();
}

/* The sender asked for it, and the next hop does not know how to. */
static void test_notice_of_what_was_relayed(void **state)
{
	(void)state;
	notify = ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_FAILURE;
	receive("me@here.test", "bad1@good.test,a@good.test,b@good.test", ENVELOPE_SYNCED);
	settle();
	/* With the notice itself. */
	assert_int_equal(TOTAL(delivered), 3);
	assert_int_equal(TOTAL(failed), 1);
	assert_int_equal(TOTAL(bounces), 1);
	assert_non_null(strstr(rig->home->log, "MAIL FROM:<>\nRCPT TO:<me@here.test>\n"));
	assert_null(strstr(rig->good->log, "NOTIFY"));
	assert_nothing_left();
}

static void test_notice_is_left_to_a_next_hop_with_dsn(void **state)
{
	(void)state;
	rig->good->reply[PEER_EHLO] = "250-good\r\n250 DSN";
	notify = ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_FAILURE;
	receive("me@here.test", "a@good.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(delivered), 1);
	assert_int_equal(TOTAL(bounces), 0);
	assert_non_null(strstr(rig->good->log, "RCPT TO:<a@good.test> NOTIFY=SUCCESS,FAILURE "
					       "ORCPT=rfc822;old@x\n"));
	/* What it refuses is ours to tell. */
	receive("me@here.test", "bad1@good.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(bounces), 1);
	assert_nothing_left();
}

/* A bounce that fails is the end of it. */
static void test_no_bounce_of_a_bounce(void **state)
{
	(void)state;
	rig->home->reply[PEER_RCPT] = "550 5.1.1 nobody here";
	receive("me@here.test", "bad1@good.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(bounces), 1);
	assert_int_equal(TOTAL(failed), 2);
	assert_int_equal(TOTAL(received), 2);
	assert_nothing_left();
}

static void test_bounce_when_expired(void **state)
{
	(void)state;
	receive("me@here.test", "later@good.test,a@good.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(transient), 1);
	for (unsigned i = 0; i < EXPIRES_MS / RETRY_MS; i++) {
		pass_ms(RETRY_MS);
	}
	assert_int_equal(TOTAL(failed), 1);
	assert_int_equal(TOTAL(bounces), 1);
	assert_int_equal(rig->home->bodies, 1);
	assert_int_equal(logged("exceeded max time without delivery"), 1);
	assert_nothing_left();
}

static void test_deferred_survives_a_restart(void **state)
{
	(void)state;
	receive("me@here.test", "later@good.test,a@good.test", ENVELOPE_SYNCED);
	settle();
	pass_ms(RETRY_MS);
	assert_int_equal(record("good.test")->delayed[0]->attempts, 2);
	stop(false);
	start();
	assert_int_equal(rig->found.messages, 1);
	assert_int_equal(record("good.test")->delayed_count, 1);
	assert_int_equal(record("good.test")->delayed[0]->attempts, 2);
	/* It was read for the way home only. */
	assert_null(record("good.test")->delayed[0]->message->content);
	assert_int_equal(mail_pools_live(&rig->writer.pools) +
				 mail_pools_live(&rig->schedulers[0].pools) +
				 mail_pools_live(&rig->schedulers[1].pools),
			 1);
	assert_int_equal(recipient_set_count(&record("good.test")->delayed[0]->pending), 1);
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 1);
	assert_int_equal(rig->good->bodies, 2);
	assert_nothing_left();
}

/* A batch is no attempt of those whose turn has not come, and one that defers holds nobody up. */
static void test_batches(void **state)
{
	(void)state;
	receive("me@here.test",
		"later1@batch.test,b@batch.test,c@batch.test,d@batch.test,e@batch.test",
		ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(delivered), 4);
	assert_int_equal(TOTAL(transient), 1);
	assert_int_equal(record("batch.test")->delayed_count, 1);
	assert_int_equal(record("batch.test")->delayed[0]->attempts, 1);
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 5);
	assert_nothing_left();
}

/* An operator's fail during one batch is for all of the delivery. */
static void test_fail_during_a_batch(void **state)
{
	struct domain *d;
	struct scheduler *s =
		&rig->schedulers[home_of(&rig->program, BINDING_DEFAULT, "batch.test")];

	(void)state;
	rig->good->reply[PEER_BODY] = PEER_SILENT;
	receive("me@here.test", "a@batch.test,b@batch.test,c@batch.test", ENVELOPE_SYNCED);
	settle();
	d = record("batch.test");
	assert_int_equal(d->attempt_count, 1);
	enter(s);
	dispatch_fail_delivery(&s->dispatcher, d->connections->delivery, false);
	leave(s);
	outbound_answer_bodies(rig->good);
	settle();
	assert_int_equal(TOTAL(delivered), 3);
	assert_int_equal(TOTAL(failed), 1);
	assert_int_equal(TOTAL(bounces), 1);
	assert_int_equal(rig->good->bodies, 1);
	assert_nothing_left();
}

/* ---- durability "memory" ---- */

static void test_memory_is_delivered_without_the_spool(void **state)
{
	(void)state;
	receive("me@here.test", "a@good.test", ENVELOPE_MEMORY);
	settle();
	assert_int_equal(rig->stored, 1);
	assert_int_equal(TOTAL(delivered), 1);
	assert_int_equal(rig->writer.pools.deliveries.live, 0);
	assert_nothing_left();
}

static void test_memory_is_kept_when_deferred(void **state)
{
	(void)state;
	receive("me@here.test", "later@good.test", ENVELOPE_MEMORY);
	settle();
	assert_non_null(record("good.test")->delayed[0]->message->spool);
	assert_int_equal(program_resident_bytes(&rig->program), 0);
	stop(false);
	start();
	assert_int_equal(rig->found.messages, 1);
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 1);
	assert_nothing_left();
}

static void test_memory_is_kept_at_stop(void **state)
{
	(void)state;
	rig->good->reply[PEER_BODY] = PEER_SILENT;
	for (unsigned i = 0; i < 5; i++) {
		receive("me@here.test", "a@good.test", ENVELOPE_MEMORY);
	}
	settle();
	/* One is on a connection, four wait. */
	assert_int_equal(record("good.test")->active_count, 4);
	stop(true);
	rig->good->reply[PEER_BODY] = "250 2.0.0 kept";
	start();
	assert_int_equal(rig->found.messages, 5);
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 5);
	assert_nothing_left();
}

/* On a connection that had carried another one, what was begun and cut off was no attempt, but it
 * is not to be lost for that. */
static void test_memory_is_kept_at_stop_when_not_tried(void **state)
{
	(void)state;
	receive("me@here.test", "a@good.test", ENVELOPE_MEMORY);
	settle();
	rig->good->reply[PEER_MAIL] = PEER_SILENT;
	receive("me@here.test", "b@good.test", ENVELOPE_MEMORY);
	settle();
	assert_int_equal(record("good.test")->attempt_count, 1);
	stop(true);
	rig->good->reply[PEER_MAIL] = "250 2.1.0 fine";
	start();
	assert_int_equal(rig->found.messages, 1);
	pass_ms(RETRY_MS);
	assert_int_equal(rig->good->bodies, 2);
	assert_nothing_left();
}

static void test_memory_for_several_domains_is_stored(void **state)
{
	(void)state;
	rig->good->reply[PEER_BODY] = PEER_SILENT;
	rig->other->reply[PEER_BODY] = PEER_SILENT;
	receive("me@here.test", "a@good.test,a@other.test", ENVELOPE_MEMORY);
	settle();
	assert_non_null(record("good.test")->connections->delivery->message->spool);
	stop(true);
	rig->good->reply[PEER_BODY] = "250 2.0.0 kept";
	rig->other->reply[PEER_BODY] = "250 2.0.0 kept";
	start();
	assert_int_equal(rig->found.deliveries, 2);
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 2);
	assert_nothing_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ids_are_unique_and_sorted),
		TEST(test_is_answered_when_stored_and_delivered),
		TEST(test_body_is_dropped_by_the_last_that_defers),
		TEST(test_bounce_for_who_failed),
		TEST(test_no_bounce_for_the_null_sender),
		TEST(test_no_bounce_where_none_is_wanted),
		TEST(test_notice_of_what_was_relayed),
		TEST(test_notice_is_left_to_a_next_hop_with_dsn),
		TEST(test_no_bounce_of_a_bounce),
		TEST(test_bounce_when_expired),
		TEST(test_deferred_survives_a_restart),
		TEST(test_batches),
		TEST(test_fail_during_a_batch),
		TEST(test_memory_is_delivered_without_the_spool),
		TEST(test_memory_is_kept_when_deferred),
		TEST(test_memory_is_kept_at_stop),
		TEST(test_memory_is_kept_at_stop_when_not_tried),
		TEST(test_memory_for_several_domains_is_stored),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
