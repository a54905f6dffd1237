/*
 * What operators order of single deliveries, down to what a restart finds: some recipients failed,
 * deliveries held, attempts given up; and that an order counts until the spool has it.
 */
#include "tests/unit/outcome_world.h"

static struct dispatcher *dispatcher_of(const struct domain *d)
{
	return d->owner;
}

static struct scheduler *home(const char *domain)
{
	return CONTAINER_OF(dispatcher_of(record(domain)), struct scheduler, dispatcher);
}

static void step_without_spool(void)
{
	for (unsigned i = 0; i < 1000; i++) {
		for (uint32_t g = 0; g < rig->program.runtime.group_count; g++) {
			if (strcmp(rig->program.runtime.groups[g]->name, "spool.0") != 0) {
				group_cycle(rig->program.runtime.groups[g]);
			}
		}
		outbound_step(rig->servers);
	}
}

/* Waits at its home until `due_ms`; the servers defer whoever is called "later". */
static struct delivery *deferred(const char *recipients)
{
	receive("me@here.test", recipients, ENVELOPE_SYNCED);
	settle();
	assert_int_equal(record("good.test")->delayed_count, 1);
	return record("good.test")->delayed[0];
}

static void order_failure(const char *domain, struct delivery *delivery, bool quiet)
{
	struct scheduler *s = home(domain);

	enter(s);
	dispatch_fail_delivery(&s->dispatcher, delivery, quiet);
	leave(s);
	assert_int_equal(s->orders_waiting, 1);
}

/* Whoever ordered it is answered when no kill can undo it. */
static void test_failing_counts_until_the_spool_has_it(void **state)
{
	const struct scheduler *s;

	(void)state;
	order_failure("good.test", deferred("later@good.test"), true);
	s = home("good.test");
	step_without_spool();
	assert_int_equal(s->orders_waiting, 1);
	settle();
	assert_int_equal(s->orders_waiting, 0);
	assert_int_equal(TOTAL(failed), 1);
	assert_int_equal(TOTAL(bounces), 0);
	assert_nothing_left();
}

/* The bounce is stored first, and takes its time. */
static void test_failing_counts_while_its_bounce_is_made(void **state)
{
	(void)state;
	order_failure("good.test", deferred("later@good.test"), false);
	settle();
	assert_int_equal(home("good.test")->orders_waiting, 0);
	assert_int_equal(TOTAL(bounces), 1);
	assert_int_equal(rig->home->bodies, 1);
	assert_nothing_left();
}

static void test_failing_what_only_memory_has_waits_for_nobody(void **state)
{
	struct scheduler *s;

	(void)state;
	rig->program.limits.connections_max = 0;
	receive("me@here.test", "a@good.test", ENVELOPE_MEMORY);
	settle();
	s = home("good.test");
	enter(s);
	dispatch_fail_delivery(&s->dispatcher, record("good.test")->active_head, true);
	leave(s);
	assert_int_equal(s->orders_waiting, 0);
	settle();
	assert_nothing_left();
}

static void test_failing_some_leaves_the_others_as_they_were(void **state)
{
	struct delivery *delivery = deferred("later1@good.test,later2@good.test");
	struct scheduler *s = home("good.test");
	struct recipient_set who = {{0, 0}};
	uint64_t due_ms = delivery->due_ms;

	(void)state;
	recipient_set_add(&who, 1);
	enter(s);
	dispatch_fail_some(&s->dispatcher, delivery, &who, true);
	leave(s);
	settle();
	assert_int_equal(s->orders_waiting, 0);
	assert_int_equal(record("good.test")->delayed_count, 1);
	delivery = record("good.test")->delayed[0];
	assert_int_equal(delivery->due_ms, due_ms);
	assert_int_equal(delivery->attempts, 1);
	assert_int_equal(recipient_set_count(&delivery->pending), 1);
	assert_true(recipient_set_has(&delivery->pending, 0));
	assert_int_equal(logged("554 manually failed."), 1);
	assert_int_equal(TOTAL(bounces), 0);
	stop(false);
	start();
	assert_int_equal(rig->recovered, 1);
	delivery = record("good.test")->delayed[0];
	assert_int_equal(delivery->due_ms, due_ms);
	assert_int_equal(recipient_set_count(&delivery->pending), 1);
	assert_true(recipient_set_has(&delivery->pending, 0));
}

static void hold(struct delivery *delivery, bool on)
{
	struct scheduler *s = home("good.test");

	enter(s);
	assert_true(dispatch_hold_delivery(&s->dispatcher, delivery, on));
	assert_int_equal(s->orders_waiting, 1);
	leave(s);
	settle();
	assert_int_equal(s->orders_waiting, 0);
}

static void test_held_mail_is_held_after_a_restart_and_fails_when_told(void **state)
{
	(void)state;
	hold(deferred("later@good.test"), true);
	assert_int_equal(record("good.test")->held_count, 1);
	stop(false);
	start();
	assert_int_equal(record("good.test")->held_count, 1);
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	pass_ms(2 * RETRY_MS);
	assert_int_equal(TOTAL(delivered), 0);
	hold(record("good.test")->held[0], false);
	settle();
	assert_int_equal(record("good.test")->held_count, 0);
	pass_ms(1000);
	assert_int_equal(TOTAL(delivered), 1);
	assert_nothing_left();
}

static void test_held_mail_can_be_failed(void **state)
{
	(void)state;
	hold(deferred("later@good.test"), true);
	order_failure("good.test", record("good.test")->held[0], true);
	settle();
	assert_int_equal(record("good.test")->held_count, 0);
	assert_int_equal(TOTAL(failed), 1);
	assert_nothing_left();
}

/* It was on a connection: what its attempt left is given up, in the operator's name. */
static void test_attempt_is_given_up_by_order(void **state)
{
	struct scheduler *s;

	(void)state;
	rig->good->reply[PEER_BODY] = PEER_SILENT;
	receive("me@here.test", "a@good.test", ENVELOPE_SYNCED);
	settle();
	s = home("good.test");
	enter(s);
	dispatch_fail_delivery(&s->dispatcher, record("good.test")->connections->delivery, true);
	leave(s);
	assert_int_equal(TOTAL(failed), 0);
	for (unsigned i = 0; i < PEER_CONNECTIONS_MAX; i++) {
		if (rig->good->connections[i].fd >= 0) {
			assert_int_equal(
				write(rig->good->connections[i].fd, "451 4.2.1 later\r\n", 17), 17);
		}
	}
	settle();
	assert_int_equal(TOTAL(failed), 1);
	assert_int_equal(logged("451 4.2.1 later"), 1);
	assert_int_equal(logged("554 manually failed."), 1);
	assert_int_equal(logged("exceeded max time"), 0);
	assert_nothing_left();
}

/* Its time was over when the operator came: that is not his doing. */
static void test_attempt_is_given_up_for_its_age(void **state)
{
	(void)state;
	deferred("later@good.test");
	pass_ms(EXPIRES_MS);
	assert_int_equal(TOTAL(failed), 1);
	assert_int_equal(logged("exceeded max time"), 1);
	assert_int_equal(logged("manually failed"), 0);
	assert_int_equal(home("good.test")->orders_waiting, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_failing_counts_until_the_spool_has_it),
		TEST(test_failing_counts_while_its_bounce_is_made),
		TEST(test_failing_what_only_memory_has_waits_for_nobody),
		TEST(test_failing_some_leaves_the_others_as_they_were),
		TEST(test_held_mail_is_held_after_a_restart_and_fails_when_told),
		TEST(test_held_mail_can_be_failed),
		TEST(test_attempt_is_given_up_by_order),
		TEST(test_attempt_is_given_up_for_its_age),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
