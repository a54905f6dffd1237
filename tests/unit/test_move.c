/*
 * Records that travel between two schedulers: what comes along, what comes after, what is waited
 * for, what a stop in the middle leaves; and what a record weighs.
 */
#include "tests/unit/move_world.h"

/* Debug builds and the sanitizers have memory and time of their own. */
#if defined(FLYWHEEL_DEBUG) || defined(__SANITIZE_THREAD__)
#define MANY 20000U
#else
#define MANY 1000000U
#endif

/* Domains of the measurement have one of 50 MX sets, all others mx_now. */
static const char *set_of_many(const char *domain)
{
	static char set[64];
	unsigned number;

	if (sscanf(domain, "many%u.test", &number) != 1) {
		return mx_now;
	}
	snprintf(set, sizeof set, "10 mx%u.many.test", number % 50);
	return set;
}

static void test_record_goes_to_the_home_of_its_site(void **state)
{
	const char *name = domain_at_0();

	(void)state;
	mx_now = set_at(1, 0);
	mail("a", name);
	settle();
	assert_null(record_at(0, name));
	assert_non_null(record_at(1, name));
	assert_ptr_equal(dispatch_away(dispatcher_at(0), BINDING_DEFAULT, name), dispatcher_at(1));
	mail("b", name);
	settle();
	assert_int_equal(counter_get(dispatcher_at(0)->moved), 1);
	assert_int_equal(counter_get(dispatcher_at(0)->forwarded), 1);
	assert_int_equal(record_at(1, name)->delivered, 2);
	assert_int_equal(record_at(1, name)->received, 2);
	assert_int_equal(dispatcher_at(0)->moves + dispatcher_at(1)->moves, 0);
	assert_nothing_left();
}

/* It goes from one home to the other and back, mail of all ages with it, while more comes. */
static void test_queues_keep_their_order_on_the_way(void **state)
{
	const char *name = domain_at_0();
	const char *sets[2] = {set_at(1, 0), set_at(0, 1)};
	uint32_t count = 0;

	(void)state;
	/* Nothing is sent. */
	rig->program.limits.connections_max = 0;
	for (unsigned turn = 0; turn < 6; turn++) {
		mx_now = sets[turn % 2];
		/* What is known of its hosts holds no longer. */
		pass_ms(TTL_MS + 1);
		for (unsigned i = 0; i < 60; i++, count++) {
			mail("a", name);
			runtime_step(&rig->program.runtime);
		}
		settle();
		assert_null(record_at(turn % 2, name));
		assert_in_order(record_at(1 - turn % 2, name), count);
	}
	assert_int_equal(counter_get(dispatcher_at(0)->moved), 3);
	assert_int_equal(counter_get(dispatcher_at(1)->moved), 3);
	rig->program.limits.connections_max = 100;
	pass_ms(1000);
	assert_int_equal(TOTAL(delivered), count);
	assert_nothing_left();
}

/* While the record is on its way back, mail waits in its place, and comes after what the record
 * has. */
static void test_mail_waits_for_a_record_that_comes_back(void **state)
{
	struct scheduler *s = &rig->schedulers[0];
	const char *name = domain_at_0();
	unsigned steps = 0;

	(void)state;
	rig->program.limits.connections_max = 0;
	mx_now = set_at(1, 0);
	for (unsigned i = 0; i < 3; i++) {
		mail("a", name);
	}
	settle();
	assert_in_order(record_at(1, name), 3);
	mx_now = set_at(0, 1);
	/* The site looks again whether it may connect, and finds that its hosts must be looked up.
	 */
	turn_clock(TTL_MS + 1);
	/* One thread at a time, as the place is there for a moment only. */
	while (record_at(0, name) == NULL) {
		group_cycle(rig->program.runtime.groups[steps % rig->program.runtime.group_count]);
		assert_true(++steps < 100000);
	}
	assert_int_equal(record_at(0, name)->travel, DOMAIN_EXPECTED);
	enter(s);
	for (unsigned i = 0; i < 3; i++) {
		scheduler_on_delivery(&s->base, delivery_for(s, name), 0);
	}
	leave(s);
	assert_int_equal(record_at(0, name)->active_count, 3);
	settle();
	assert_in_order(record_at(0, name), 6);
	assert_int_equal(record_at(0, name)->received, 6);
	rig->program.limits.connections_max = 100;
	pass_ms(1000);
	assert_int_equal(TOTAL(delivered), 6);
}

static void hold_first(struct scheduler *s, struct domain *d)
{
	enter(s);
	assert_true(dispatch_hold_delivery(&s->dispatcher, d->active_head, true));
	leave(s);
	assert_int_equal(d->writing_count + d->settling_count, 1);
}

/* Requests of two schedulers for one delivery would know no order. */
static void test_record_waits_for_what_the_spool_writes(void **state)
{
	const char *name = domain_at_0();
	struct domain *d;

	(void)state;
	rig->program.limits.connections_max = 0;
	mx_now = set_at(1, 0);
	mail("a", name);
	mail("b", name);
	settle();
	d = record_at(1, name);
	assert_non_null(d);
	hold_first(&rig->schedulers[1], d);
	mx_now = set_at(0, 1);
	turn_clock(TTL_MS + 1);
	cycles_without_spool();
	assert_ptr_equal(record_at(1, name), d);
	assert_int_equal(d->travel, DOMAIN_LEAVING);
	settle();
	assert_null(record_at(1, name));
	assert_int_equal(record_at(0, name)->held_count, 1);
	assert_int_equal(record_at(0, name)->writing_count, 0);
}

/* What waits in its place may be held by an operator meanwhile. */
static void test_record_waits_for_orders_to_its_place(void **state)
{
	struct scheduler *s = &rig->schedulers[0];
	const char *name = domain_at_0();
	struct domain *place;
	unsigned steps = 0;

	(void)state;
	rig->program.limits.connections_max = 0;
	mx_now = set_at(1, 0);
	mail("a", name);
	mail("b", name);
	settle();
	assert_in_order(record_at(1, name), 2);
	mx_now = set_at(0, 1);
	turn_clock(TTL_MS + 1);
	while ((place = record_at(0, name)) == NULL) {
		group_cycle(rig->program.runtime.groups[steps % rig->program.runtime.group_count]);
		assert_true(++steps < 100000);
	}
	enter(s);
	scheduler_on_delivery(&s->base, delivery_for(s, name), 0);
	leave(s);
	hold_first(s, place);
	cycles_without_spool();
	assert_ptr_equal(record_at(0, name), place);
	assert_int_equal(place->travel, DOMAIN_EXPECTED);
	settle();
	assert_int_equal(record_at(0, name)->travel, DOMAIN_AT_HOME);
	assert_in_order(record_at(0, name), 2);
	assert_int_equal(record_at(0, name)->held_count, 1);
	rig->program.limits.connections_max = 100;
	pass_ms(1000);
	assert_int_equal(TOTAL(delivered), 2);
}

static void test_delayed_mail_is_due_at_the_new_home(void **state)
{
	const char *name = domain_at_0();

	(void)state;
	mx_now = set_at(1, 0);
	mail("later1", name);
	settle();
	assert_int_equal(record_at(1, name)->delayed_count, 1);
	mx_now = set_at(0, 1);
	pass_ms(TTL_MS + 1);
	mail("later2", name);
	settle();
	assert_int_equal(record_at(0, name)->delayed_count, 2);
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 2);
	assert_nothing_left();
}

/* What is on a connection ends first; meanwhile mail waits, and operators find the record. */
static void test_record_waits_for_its_connections(void **state)
{
	const char *name = domain_at_0();
	struct domain *d;

	(void)state;
	mx_now = set_at(1, 0);
	rig->good->reply[PEER_BODY] = PEER_SILENT;
	mail("a", name);
	settle();
	d = record_at(1, name);
	assert_int_equal(d->attempt_count, 1);
	mx_now = set_at(0, 1);
	pass_ms(TTL_MS + 1);
	mail("b", name);
	settle();
	assert_ptr_equal(record_at(1, name), d);
	assert_int_equal(d->travel, DOMAIN_LEAVING);
	assert_int_equal(d->hold, DOMAIN_MOVING);
	assert_int_equal(d->active_count, 1);
	enter(&rig->schedulers[1]);
	dispatch_suspend(dispatcher_at(1), d, suspension_new("uid 0", 0, 0));
	leave(&rig->schedulers[1]);
	outbound_answer_bodies(rig->good);
	settle();
	assert_null(record_at(1, name));
	assert_ptr_equal(record_at(0, name), d);
	assert_int_equal(d->delivered, 1);
	/* The suspension came along. */
	assert_true(d->suspended);
	assert_int_equal(d->active_count, 1);
	rig->good->reply[PEER_BODY] = "250 2.0.0 kept";
	enter(&rig->schedulers[0]);
	dispatch_suspend(dispatcher_at(0), d, NULL);
	leave(&rig->schedulers[0]);
	settle();
	assert_int_equal(TOTAL(delivered), 2);
	assert_nothing_left();
}

static void test_unused_record_goes_home_and_is_freed(void **state)
{
	const char *name = domain_at_0();

	(void)state;
	mx_now = set_at(1, 0);
	mail("a", name);
	settle();
	assert_int_equal(dispatcher_at(0)->forwards.count, 1);
	assert_int_equal(dispatcher_at(1)->sites.count, 1);
	/* The time of its rest begins with the end of its connection. */
	pass_ms(10000);
	pass_ms(600000);
	assert_null(record_at(0, name));
	assert_null(record_at(1, name));
	assert_int_equal(dispatcher_at(0)->forwards.count, 0);
	assert_int_equal(dispatcher_at(1)->sites.count, 0);
	assert_int_equal(dispatcher_at(0)->moves + dispatcher_at(1)->moves, 0);
	mail("b", name);
	settle();
	assert_non_null(record_at(1, name));
	assert_int_equal(TOTAL(delivered), 2);
	assert_nothing_left();
}

/* A stop at each step of a journey to and fro: the spool has all. */
static void test_stop_in_the_middle_loses_nothing(void **state)
{
	const char *name = domain_at_0();

	(void)state;
	for (unsigned steps = 0; steps < 30; steps++) {
		rig->program.limits.connections_max = 0;
		mx_now = set_at(1, 0);
		mail("a", name);
		settle();
		mx_now = set_at(0, 1);
		pass_ms(TTL_MS + 1);
		receive("me@here.test", "b@d0.test,c@d1.test,d@d2.test,e@d3.test", ENVELOPE_SYNCED);
		mail("f", name);
		receive("me@here.test", "g@d1.test", ENVELOPE_MEMORY);
		for (unsigned i = 0; i < steps; i++) {
			runtime_step(&rig->program.runtime);
		}
		stop(false);
		start();
		assert_int_equal(rig->found.messages, 4);
		settle();
		assert_int_equal(TOTAL(delivered), 7);
		stop(false);
		start();
		assert_int_equal(rig->found.messages, 0);
	}
}

/* What is only in memory goes to the spool, wherever its record is when the program stops. */
static void test_stop_in_the_middle_keeps_what_is_in_memory(void **state)
{
	(void)state;
	for (unsigned steps = 0; steps < 20; steps++) {
		rig->program.limits.connections_max = 0;
		mx_now = set_at(1, 0);
		receive("me@here.test", "a@d0.test", ENVELOPE_MEMORY);
		receive("me@here.test", "a@d1.test", ENVELOPE_MEMORY);
		receive("me@here.test", "a@d2.test", ENVELOPE_MEMORY);
		for (unsigned i = 0; i < steps; i++) {
			runtime_step(&rig->program.runtime);
		}
		stop(false);
		start();
		assert_int_equal(rig->found.messages, 3);
		assert_int_equal(TOTAL(delivered), 3);
		stop(false);
		start();
	}
}

/* ---- bindings ---- */

static struct binding_record *binding_at(uint32_t index)
{
	return binding_find(&dispatcher_at(index)->bindings, by);
}

/* Mail by it for a domain of scheduler 0, whose site has its home on 1; nothing has run yet. */
static struct domain *begin_by(const char *binding)
{
	struct scheduler *s = &rig->schedulers[0];
	const char *name;

	by = binding;
	name = domain_at_0();
	mx_now = set_at(1, 0);
	enter(s);
	scheduler_on_delivery(&s->base, delivery_for(s, name), 0);
	leave(s);
	return record_at(0, name);
}

static void order(uint32_t index, struct domain *d, enum binding_order what)
{
	enter(&rig->schedulers[index]);
	binding_set_order(binding_at(index), what);
	if (d != NULL) {
		dispatch_binding_order(dispatcher_at(index), d);
	}
	leave(&rig->schedulers[index]);
}

/* Its binding's record, counts and options are those of the scheduler where it is. */
static void test_record_is_its_bindings_where_it_lives(void **state)
{
	struct scheduler *s = &rig->schedulers[0];
	struct domain *d = begin_by("lost");

	(void)state;
	assert_ptr_equal(d->binding_record, binding_at(0));
	assert_null(binding_at(1));
	settle();
	assert_ptr_equal(record_at(1, d->name), d);
	assert_ptr_equal(d->binding_record, binding_at(1));
	assert_ptr_equal(d->binding, binding_at(1)->name);
	assert_ptr_equal(dispatch_away(dispatcher_at(0), "lost", d->name), dispatcher_at(1));
	assert_null(dispatch_away(dispatcher_at(0), BINDING_DEFAULT, d->name));
	assert_int_equal(binding_at(0)->received, 1);
	assert_int_equal(binding_at(1)->delivered, 1);
	assert_int_equal(binding_at(0)->delivered, 0);
	assert_string_equal(d->lane->site->binding, "lost");
	/* What comes after it is told apart from mail of another binding. */
	enter(s);
	scheduler_on_delivery(&s->base, delivery_for(s, d->name), 0);
	by = BINDING_DEFAULT;
	scheduler_on_delivery(&s->base, delivery_for(s, d->name), 0);
	leave(s);
	settle();
	by = "lost";
	assert_int_equal(d->received, 2);
	assert_int_equal(binding_at(1)->received, 1);
	assert_int_equal(TOTAL(delivered), 3);
	/* It is said once that it is not configured, however often its options are looked up. */
	assert_int_equal(rig->schedulers[0].base.errors.count, 1);
	assert_int_equal(rig->schedulers[0].base.errors.entries[0].count, 1);
}

/* The scheduler that it comes to has not heard of the binding, nor of what that was told. */
static void test_suspension_of_an_unknown_binding_comes_along(void **state)
{
	struct domain *d = begin_by("lost");
	const struct suspension *suspension;

	(void)state;
	enter(&rig->schedulers[0]);
	dispatch_order_binding(dispatcher_at(0), binding_at(0), BINDING_SUSPENDED,
			       suspension_new("uid 7 (pid 4711)", 1000, UINT64_MAX));
	dispatch_binding_order(dispatcher_at(0), d);
	leave(&rig->schedulers[0]);
	settle();
	assert_ptr_equal(record_at(1, d->name), d);
	assert_int_equal(binding_at(1)->order, BINDING_SUSPENDED);
	suspension = binding_at(1)->suspension;
	assert_string_equal(suspension->by, "uid 7 (pid 4711)");
	assert_int_equal(suspension->since_ms, 1000);
	assert_int_equal(suspension->until_ms, UINT64_MAX);
	assert_int_equal(d->hold, DOMAIN_BINDING_SUSPENDED);
	assert_int_equal(d->active_count, 1);
	order(1, d, BINDING_RESUMED);
	settle();
	assert_int_equal(TOTAL(delivered), 1);
}

/* `resume binding` reaches every record, but not one that is on its way just then. */
static void test_resume_that_a_travelling_record_misses(void **state)
{
	(void)state;
	for (unsigned missed = 0; missed < 2; missed++) {
		struct domain *d = begin_by(missed != 0 ? "one" : "other");
		const char *name = domain_at_0();
		unsigned steps = 0;

		enter(&rig->schedulers[0]);
		binding_open(&dispatcher_at(0)->bindings, by)->configured = true;
		leave(&rig->schedulers[0]);
		if (missed == 0) {
			order(0, d, BINDING_RESUMED);
		}
		enter(&rig->schedulers[0]);
		dispatch_suspend(dispatcher_at(0), d, suspension_new("uid 0", 0, 0));
		leave(&rig->schedulers[0]);
		while (record_at(0, name) != NULL) {
			group_cycle(rig->program.runtime
					    .groups[steps % rig->program.runtime.group_count]);
			assert_true(++steps < 100000);
		}
		assert_null(record_at(1, name));
		enter(&rig->schedulers[1]);
		binding_open(&dispatcher_at(1)->bindings, by)->configured = true;
		leave(&rig->schedulers[1]);
		order(0, NULL, BINDING_RESUMED);
		order(1, NULL, BINDING_RESUMED);
		settle();
		assert_ptr_equal(record_at(1, name), d);
		/* What an operator said of the domain after that stays. */
		assert_int_equal(d->suspended, missed == 0);
		assert_int_equal(d->active_count, missed == 0);
	}
}

/* ---- providers ---- */

/* Whose customers all are, as each scheduler knows it, and what their sites have. */
static const char *provider_at[SCHEDULERS];
static struct domain_options of_provider[SCHEDULERS];

static const char *on_provider(struct dispatcher *x, struct binding_record *b, const char *mx)
{
	(void)b;
	(void)mx;
	return provider_at[x->index];
}

static const char *on_same_provider(struct dispatcher *x, const char *name)
{
	(void)x;
	return name;
}

static const struct domain_options *on_options(struct dispatcher *x, struct binding_record *b,
					       const char *domain, const char *provider)
{
	const struct domain_options *all = scheduler_dispatch_ops.options(x, b, domain, NULL);
	struct domain_options *own;

	if (provider == NULL || domain != NULL) {
		return all;
	}
	own = &of_provider[provider[0] == 'a' ? 0 : 1];
	*own = *all;
	return own;
}

/* A provider whose site has its home on scheduler 1. */
static const char *provider_called(char letter)
{
	static char names[2][16];
	char *name = names[letter == 'a' ? 0 : 1];
	char key[64];

	for (unsigned i = 0;; i++) {
		snprintf(name, sizeof names[0], "%c%u", letter, i);
		snprintf(key, sizeof key, SITE_OF_PROVIDER "%s", name);
		if (home_of(&rig->program, by, key) == 1) {
			return name;
		}
	}
}

/* The scheduler that it comes from does not know yet that its exchangers are another one's. */
static void test_record_of_a_provider_that_has_changed(void **state)
{
	const char *name = domain_at_0();
	const char *a = provider_called('a');
	const char *b = provider_called('b');
	const struct site *first;
	char other[32];

	(void)state;
	ops.provider = on_provider;
	ops.same_provider = on_same_provider;
	ops.options = on_options;
	provider_at[0] = provider_at[1] = a;
	mx_now = "10 mx.test";
	mail("a", name);
	settle();
	first = record_at(1, name)->lane->site;
	assert_string_equal(first->key + strlen(SITE_OF_PROVIDER), a);
	provider_at[1] = b;
	for (unsigned i = 0;; i++) {
		snprintf(other, sizeof other, "other%u.test", i);
		if (home_of(&rig->program, by, other) == 0) {
			break;
		}
	}
	mail("a", other);
	settle();
	assert_string_equal(record_at(1, other)->lane->site->key + strlen(SITE_OF_PROVIDER), b);
	assert_ptr_equal(record_at(1, other)->lane->site->options, &of_provider[1]);
	assert_ptr_equal(record_at(1, name)->lane->site, first);
	assert_ptr_equal(first->options, &of_provider[0]);
	assert_int_equal(TOTAL(delivered), 2);
}

/* ---- weight ---- */

static uint64_t resident_bytes(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	assert_non_null(f);
	assert_int_equal(fscanf(f, "%*u %lu", &pages), 1);
	fclose(f);
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Its content is on disk only. */
static void queue_one(unsigned number)
{
	struct delivery *delivery;
	struct scheduler *s;
	char name[32];

	snprintf(name, sizeof name, "many%u.test", number);
	s = &rig->schedulers[home_of(&rig->program, BINDING_DEFAULT, name)];
	enter(s);
	delivery = delivery_for(s, name);
	delivery_give_up_content(delivery, &s->pools);
	dispatch_enqueue(&s->dispatcher, dispatch_find(&s->dispatcher, BINDING_DEFAULT, name),
			 delivery);
	leave(s);
}

/* So many domains over 50 MX sets, one delivery in the queue of each, half of them away from their
 * first home: less than a KiB of resident memory for each. */
static void test_a_record_weighs_less_than_a_kib(void **state)
{
	uint64_t before = resident_bytes();
	uint32_t records = 0;
	uint32_t sites = 0;
	uint64_t each;

	(void)state;
	mx_of = set_of_many;
	rig->program.limits.connections_max = 0;
	for (unsigned i = 0; i < MANY; i++) {
		queue_one(i);
		if (i % 500 == 0) {
			settle();
		}
	}
	settle();
	each = (resident_bytes() - before) / MANY;
	for (unsigned i = 0; i < SCHEDULERS; i++) {
		records += dispatcher_at(i)->domains.count;
		sites += dispatcher_at(i)->sites.count;
	}
	assert_int_equal(records, MANY);
	assert_int_equal(sites, 50);
	assert_int_equal(dispatcher_at(0)->domains.active + dispatcher_at(1)->domains.active, MANY);
	assert_true(counter_get(dispatcher_at(0)->moved) > MANY / 10);
	print_message("%u records, %llu resident bytes each, %u of them moved\n", records,
		      (unsigned long long)each,
		      dispatcher_at(0)->forwards.count + dispatcher_at(1)->forwards.count);
	assert_true(MANY < 1000000U || each < 1024);
	for (unsigned i = 0; i < SCHEDULERS; i++) {
		enter(&rig->schedulers[i]);
		dispatcher_drop(dispatcher_at(i));
		leave(&rig->schedulers[i]);
	}
}

static unsigned answers;

static const char *counted_set(const char *domain)
{
	(void)domain;
	answers++;
	return mx_now;
}

/* What it left with was asked for by options that may say something else where it arrives. */
static void test_next_hops_are_asked_for_again_in_another_generation(void **state)
{
	(void)state;
	mx_now = set_at(1, 0);
	mx_of = counted_set;
	answers = 0;
	enter(&rig->schedulers[1]);
	dispatch_renew(dispatcher_at(1), dispatcher_at(1)->generation + 1, false);
	while (!dispatch_renew_step(dispatcher_at(1))) {
	}
	leave(&rig->schedulers[1]);
	mail("a", domain_at_0());
	settle();
	assert_non_null(record_at(1, domain_at_0()));
	assert_int_equal(answers, 2);
	mail("b", domain_at_0());
	settle();
	assert_int_equal(answers, 2);
	assert_int_equal(record_at(1, domain_at_0())->delivered, 2);
	assert_nothing_left();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		MOVE(test_record_goes_to_the_home_of_its_site),
		MOVE(test_queues_keep_their_order_on_the_way),
		MOVE(test_record_waits_for_what_the_spool_writes),
		MOVE(test_record_waits_for_orders_to_its_place),
		MOVE(test_delayed_mail_is_due_at_the_new_home),
		MOVE(test_record_waits_for_its_connections),
		MOVE(test_unused_record_goes_home_and_is_freed),
		MOVE(test_stop_in_the_middle_loses_nothing),
		MOVE(test_stop_in_the_middle_keeps_what_is_in_memory),
		MOVE(test_mail_waits_for_a_record_that_comes_back),
		MOVE(test_record_is_its_bindings_where_it_lives),
		MOVE(test_suspension_of_an_unknown_binding_comes_along),
		MOVE(test_resume_that_a_travelling_record_misses),
		MOVE(test_record_of_a_provider_that_has_changed),
		MOVE(test_next_hops_are_asked_for_again_in_another_generation),
		MOVE(test_a_record_weighs_less_than_a_kib),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
