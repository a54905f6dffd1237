/*
 * Homes that change while mail flows: what is waited for, that what holds mail back and limits hold
 * at the new homes, and what a stop does to what waits.
 */
#include "tests/unit/relocate_world.h"

/* ---- what is waited for ---- */

static void test_record_waits_for_its_attempt(void **state)
{
	const char *name = domain_that(&to_the_third, 0);
	struct domain *d;

	(void)state;
	rig->good->reply[PEER_BODY] = PEER_SILENT;
	mail("a", name);
	mail("b", name);
	settle();
	d = record_at(0, name);
	assert_int_equal(d->attempt_count, 1);
	begin(3);
	pass_ms(100);
	assert_ptr_equal(record_at(0, name), d);
	assert_int_equal(d->travel, DOMAIN_LEAVING);
	assert_false(relocate_complete(dispatcher_at(0)));
	/* It is found where it is, by its new first home, too. */
	mail("c", name);
	settle();
	assert_int_equal(d->active_count, 2);
	outbound_answer_bodies(rig->good);
	rig->good->reply[PEER_BODY] = "250 2.0.0 kept";
	settle();
	assert_ptr_equal(record_at(2, name), d);
	finish();
	all_is_sent(3);
	assert_int_equal(rig->good->open_max, 1);
}

static void test_record_waits_for_its_next_hops(void **state)
{
	const char *name = domain_that(&to_the_third, 0);
	struct domain *d;

	(void)state;
	hold_answers = true;
	d = mail_found_at(0, name);
	assert_int_equal(outbound_hold(d), DOMAIN_RESOLVING);
	begin(3);
	pass_ms(100);
	assert_ptr_equal(record_at(0, name), d);
	assert_int_equal(d->travel, DOMAIN_AT_HOME);
	assert_false(relocate_complete(dispatcher_at(0)));
	answer_held();
	settle();
	finish();
	assert_ptr_equal(record_at(2, name), d);
	all_is_sent(1);
}

/* An entry that was handed over counts until it has come. */
static void test_is_not_complete_while_an_entry_is_on_its_way(void **state)
{
	static const struct journey site = {2, 0, 3, 0};
	const char *name = domain_that(&to_the_third, 0);
	struct dispatcher *x = dispatcher_at(0);

	(void)state;
	nothing_is_sent();
	mx_now = set_that(&site);
	mail("a", name);
	settle();
	adopt(3);
	enter(&rig->schedulers[0]);
	relocate_begin(x);
	while (relocate_step(x) > 0) {
	}
	leave(&rig->schedulers[0]);
	assert_false(relocate_complete(x));
	/* It counts as found: who asks asks once more. */
	assert_int_equal(x->relocation.activity, 1);
	settle();
	assert_true(relocate_complete(x));
	assert_ptr_equal(dispatch_away(dispatcher_at(2), by, name), x);
	finish();
}

/* Suspended, held and delayed mail is so at its new home. */
static void test_what_holds_mail_back_comes_along(void **state)
{
	const char *suspended = domain_that(&to_the_third, 0);
	const char *held = domain_that(&to_the_third, 1);
	const char *delayed = domain_that(&to_the_third, 2);
	struct scheduler *s = &rig->schedulers[0];
	struct domain *d;

	(void)state;
	mail("later", delayed);
	settle();
	nothing_is_sent();
	mail("a", suspended);
	mail("a", held);
	settle();
	enter(s);
	d = record_at(0, suspended);
	dispatch_suspend(&s->dispatcher, d, suspension_new("somebody", agent_wall_ms(&s->base), 0));
	assert_true(dispatch_hold_delivery(&s->dispatcher, record_at(0, held)->active_head, true));
	leave(s);
	settle();
	change(3);
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	all_is_sent(0);
	assert_int_equal(outbound_hold(record_at(2, suspended)), DOMAIN_SUSPENDED);
	assert_string_equal(record_at(2, suspended)->suspension->by, "somebody");
	assert_int_equal(record_at(2, held)->held_count, 1);
	assert_int_equal(record_at(2, delayed)->delayed_count, 1);
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 1);
	s = &rig->schedulers[2];
	enter(s);
	dispatch_suspend(&s->dispatcher, record_at(2, suspended), NULL);
	assert_true(dispatch_hold_delivery(&s->dispatcher, record_at(2, held)->held[0], false));
	leave(s);
	settle();
	all_is_sent(3);
}

/* What it has used up is used up at the new home, too. */
static void test_throttle_holds_at_the_new_home(void **state)
{
	const char *name = domain_that(&to_the_third, 0);

	(void)state;
	configure("outbound_throttle_messages = \"1/hour\"\n");
	for (unsigned i = 0; i < 3; i++) {
		mail("a", name);
	}
	settle();
	assert_int_equal(TOTAL(delivered), 1);
	assert_int_equal(outbound_hold(record_at(0, name)), DOMAIN_THROTTLE_MESSAGES);
	change(3);
	pass_ms(60000);
	assert_int_equal(TOTAL(delivered), 1);
	assert_int_equal(outbound_hold(record_at(2, name)), DOMAIN_THROTTLE_MESSAGES);
	pass_ms(3600000);
	assert_int_equal(TOTAL(delivered), 2);
}

/* ---- sites ---- */

/* Two domains of a site that has one connection, on which the first one's message is, for as long
 * as nobody answers; the site and the second one go to scheduler 2. */
static void begin_with_a_transaction(void)
{
	rig->good->reply[PEER_BODY] = PEER_SILENT;
	mx_now = set_that(&to_the_third);
	mail("a", domain_that(&to_the_third, 0));
	settle();
	mail("b", domain_that(&to_the_third, 1));
	settle();
	assert_int_equal(record_at(0, domain_that(&to_the_third, 1))->active_count, 1);
	begin(3);
	pass_ms(100);
	assert_int_equal(rig->good->open, 1);
	assert_int_equal(dispatcher_at(0)->sites.count, 1);
	assert_int_equal(outbound_hold(record_at(2, domain_that(&to_the_third, 1))), DOMAIN_MOVING);
}

static void end_the_transaction(void)
{
	outbound_answer_bodies(rig->good);
	rig->good->reply[PEER_BODY] = "250 2.0.0 kept";
	settle();
	assert_int_equal(dispatcher_at(0)->sites.count, 0);
}

/* All domains have left the site's old home; it is there for what its connection does. */
static void test_site_waits_for_the_connections_of_its_old_home(void **state)
{
	(void)state;
	begin_with_a_transaction();
	assert_false(relocate_complete(dispatcher_at(0)));
	pass_ms(1000);
	assert_int_equal(rig->good->accepted, 1);
	end_the_transaction();
	assert_int_equal(TOTAL(delivered), 2);
	finish();
	all_is_sent(2);
	assert_int_equal(rig->good->open_max, 1);
}

/* ... but not for one where there is nothing of it. */
static void test_site_that_was_nowhere_waits_for_nobody(void **state)
{
	const char *name = domain_that(&to_the_third, 0);

	(void)state;
	mx_now = set_that(&to_the_third);
	adopt(3);
	mail("a", name);
	settle();
	assert_int_equal(record_at(2, name)->delivered, 1);
	finish();
}

/* It ends before it is told; and is made once more, and asked for again. */
static void test_site_ends_while_it_waits(void **state)
{
	const char *name = domain_that(&to_the_third, 1);
	const char *set = mx_now;
	struct domain *d;

	(void)state;
	begin_with_a_transaction();
	set = mx_now;
	d = record_at(2, name);
	mx_now = set_at(1, 0);
	/* What was known of its hosts holds no longer. */
	pass_ms(TTL_MS + 1);
	enter(&rig->schedulers[2]);
	dispatch_flush(dispatcher_at(2), d);
	leave(&rig->schedulers[2]);
	settle();
	assert_ptr_equal(record_at(1, name), d);
	assert_int_equal(dispatcher_at(2)->sites.count, 0);
	mx_now = set;
	mail("c", domain_that(&to_the_third, 2));
	settle();
	assert_int_equal(outbound_hold(record_at(2, domain_that(&to_the_third, 2))), DOMAIN_MOVING);
	assert_int_equal(dispatcher_at(2)->sites.count, 1);
	end_the_transaction();
	assert_int_equal(record_at(2, domain_that(&to_the_third, 2))->delivered, 1);
	finish();
	/* That of the other set has not been answered. */
	all_is_sent(3);
}

static bool waits_at_the_third(const char *name)
{
	const struct domain *d = record_at(2, name);

	return d != NULL && outbound_hold(d) == DOMAIN_MOVING;
}

static bool was_sent_from_the_first(const char *name)
{
	const struct domain *d = record_at(0, name);

	return d != NULL && d->attempt_count == 1 && rig->good->bodies == 1;
}

/* While who has not heard of a layout is asked about it again and again, it is never quiet. */
static void step_until(bool (*is_so)(const char *name), const char *name)
{
	for (unsigned i = 0; !is_so(name); i++) {
		assert_true(i < 20000);
		runtime_step(&rig->program.runtime);
		outbound_step(rig->servers);
		poll(NULL, 0, 1);
	}
}

/* Who is asked has not heard of the layout yet: it may open connections for as long. */
static void test_site_is_waited_for_where_nobody_has_heard_yet(void **state)
{
	static const struct journey first = {2, 1, 3, 2};
	const char *name = domain_that(&first, 0);

	(void)state;
	rig->good->reply[PEER_BODY] = PEER_SILENT;
	mx_now = set_that(&to_the_third);
	layout++;
	rig->program.home_count = 3;
	adopt_at(1, 3);
	adopt_at(2, 3);
	mail_at(2, name);
	step_until(waits_at_the_third, name);
	mail_at(0, domain_that(&to_the_third, 1));
	step_until(was_sent_from_the_first, domain_that(&to_the_third, 1));
	assert_true(waits_at_the_third(name));
	assert_int_equal(rig->good->accepted, 1);
	adopt_at(0, 3);
	tell_all(relocate_begin);
	pass_ms(100);
	assert_int_equal(rig->good->accepted, 1);
	end_the_transaction();
	finish();
	all_is_sent(2);
	assert_int_equal(rig->good->open_max, 1);
}

/* ---- the end ---- */

/* What waits for a site has nobody to tell any more. */
static void test_stop_while_a_site_is_waited_for(void **state)
{
	(void)state;
	begin_with_a_transaction();
	stop(true);
	rig->good->reply[PEER_BODY] = "250 2.0.0 kept";
	start();
	assert_int_equal(rig->found.messages, 2);
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 2);
}

/* ... at a home whose domains have not begun to leave. */
static void test_stop_before_a_site_ends(void **state)
{
	(void)state;
	nothing_is_sent();
	mx_now = set_that(&to_the_third);
	mail("a", domain_that(&to_the_third, 0));
	settle();
	adopt(3);
	mail("b", domain_that(&to_the_third, 1));
	settle();
	assert_int_equal(outbound_hold(record_at(2, domain_that(&to_the_third, 1))), DOMAIN_MOVING);
	stop(true);
	start();
	assert_int_equal(rig->found.messages, 2);
	all_is_sent(2);
}

/* What takes long is looked at now and then. */
static void test_passes_that_only_wait_grow_rare(void **state)
{
	struct dispatcher *x = dispatcher_at(0);
	uint64_t due_ms = 0;
	unsigned passes = 0;

	(void)state;
	begin_with_a_transaction();
	for (unsigned i = 0; i < 2000 / PASS_MS; i++) {
		pass_ms(PASS_MS);
		passes += x->relocation.timer.due_ms != due_ms;
		due_ms = x->relocation.timer.due_ms;
	}
	assert_in_range(passes, 5, 15);
	assert_true(due_ms > agent_now_ms(x->self));
	end_the_transaction();
}

/* Until passes are rare, and one has just been. */
static void wait_for_long(void)
{
	const struct timer *t = &dispatcher_at(0)->relocation.timer;
	unsigned i = 0;
	uint64_t now_ms;

	do {
		assert_true(i++ < 1000);
		pass_ms(PASS_MS);
		now_ms = agent_now_ms(dispatcher_at(0)->self);
	} while (!timer_armed(t) || t->due_ms < now_ms + 500);
}

/* What was waited for has come to its end: the next pass does not keep it waiting. */
static void assert_soon_complete(void)
{
	for (unsigned i = 0; i < 5; i++) {
		pass_ms(PASS_MS);
	}
	assert_true(relocate_complete(dispatcher_at(0)));
}

static void test_end_of_a_long_wait_for_a_site(void **state)
{
	(void)state;
	begin_with_a_transaction();
	wait_for_long();
	end_the_transaction();
	assert_soon_complete();
	finish();
}

static void test_end_of_a_long_wait_for_an_attempt(void **state)
{
	const char *name = domain_that(&to_the_third, 0);

	(void)state;
	rig->good->reply[PEER_BODY] = PEER_SILENT;
	mail("a", name);
	settle();
	begin(3);
	wait_for_long();
	outbound_answer_bodies(rig->good);
	settle();
	assert_soon_complete();
	finish();
	assert_non_null(record_at(2, name));
}

static void test_end_of_a_long_wait_for_next_hops(void **state)
{
	const char *name = domain_that(&to_the_third, 0);

	(void)state;
	hold_answers = true;
	mail_found_at(0, name);
	begin(3);
	wait_for_long();
	answer_held();
	settle();
	assert_soon_complete();
	finish();
	assert_non_null(record_at(2, name));
}

/* While it stops a dispatcher keeps nobody waiting. */
static void test_is_complete_when_it_stops(void **state)
{
	struct scheduler *s = &rig->schedulers[0];
	struct dispatcher *x = &s->dispatcher;

	(void)state;
	begin_with_a_transaction();
	assert_false(relocate_complete(x));
	enter(s);
	dispatch_stop(x, false);
	assert_true(relocate_complete(x));
	leave(s);
	pass_ms(2L * PASS_MS);
	assert_int_equal(relocate_step(x), 0);
	end_the_transaction();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		HOMES(test_record_waits_for_its_attempt),
		HOMES(test_record_waits_for_its_next_hops),
		HOMES(test_is_not_complete_while_an_entry_is_on_its_way),
		HOMES(test_what_holds_mail_back_comes_along),
		HOMES(test_throttle_holds_at_the_new_home),
		HOMES(test_site_waits_for_the_connections_of_its_old_home),
		HOMES(test_site_that_was_nowhere_waits_for_nobody),
		HOMES(test_site_ends_while_it_waits),
		HOMES(test_site_is_waited_for_where_nobody_has_heard_yet),
		HOMES(test_stop_while_a_site_is_waited_for),
		HOMES(test_stop_before_a_site_ends),
		HOMES(test_passes_that_only_wait_grow_rare),
		HOMES(test_end_of_a_long_wait_for_a_site),
		HOMES(test_end_of_a_long_wait_for_an_attempt),
		HOMES(test_end_of_a_long_wait_for_next_hops),
		HOMES(test_is_complete_when_it_stops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
