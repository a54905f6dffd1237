/*
 * Homes that change while mail flows: where mail and orders go meanwhile, what goes to its new
 * home and what stays, what is waited for, that limits hold, and what a stop in the middle leaves.
 * The test does the crew's part: all dispatchers hear of a layout, records go, and all is settled.
 */
#define SCHEDULERS 3

#include "tests/unit/move_world.h"

#define PASS_MS 5
#define MIXED 40

static uint32_t layout;

/* ---- the crew's part ---- */

static void adopt_at(uint32_t index, uint32_t count)
{
	enter(&rig->schedulers[index]);
	relocate_adopt(dispatcher_at(index), count, layout);
	leave(&rig->schedulers[index]);
}

/* All hear that the first `count` are homes. */
static void adopt(uint32_t count)
{
	layout++;
	rig->program.home_count = count;
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		adopt_at(i, count);
	}
}

static void tell_all(void (*what)(struct dispatcher *x))
{
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		enter(&rig->schedulers[i]);
		what(dispatcher_at(i));
		leave(&rig->schedulers[i]);
	}
}

static bool all_complete(void)
{
	bool all = true;

	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		all = all && relocate_complete(dispatcher_at(i));
	}
	return all;
}

static void wait_until_complete(void)
{
	for (unsigned i = 0; !all_complete(); i++) {
		assert_true(i < 1000);
		pass_ms(PASS_MS);
	}
}

static uint64_t activity(void)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		sum += dispatcher_at(i)->relocation.activity;
	}
	return sum;
}

static void take_home(void)
{
	uint64_t found = UINT64_MAX;
	uint64_t before;

	do {
		before = found;
		tell_all(relocate_begin);
		wait_until_complete();
		found = activity();
	} while (found != before);
}

/* ---- where things are ---- */

static uint32_t home_under(uint32_t count, const char *name)
{
	return (uint32_t)(domain_hash(by, name, strlen(name)) % count);
}

/* With its site, if that is one of an MX set. */
static uint32_t place_of(const struct domain *d)
{
	const char *key = d->lane != NULL ? d->lane->site->key : "";
	bool shared = strncmp(key, SITE_OF_MX, strlen(SITE_OF_MX)) == 0;

	return home_under(rig->program.home_count, shared ? key : d->name);
}

struct tally {
	uint32_t index;
	uint32_t records;
	uint32_t away;
};

static void check_record(void *context, struct domain *d)
{
	struct tally *t = context;
	uint32_t first = home_under(rig->program.home_count, d->name);

	assert_true(domain_validate(d));
	assert_int_equal(d->travel, DOMAIN_AT_HOME);
	assert_int_equal(place_of(d), t->index);
	if (first != t->index) {
		assert_ptr_equal(dispatch_away(dispatcher_at(first), d->binding, d->name),
				 dispatcher_at(t->index));
		t->away++;
	}
	t->records++;
}

static void check_site(void *context, struct site *s)
{
	const struct tally *t = context;

	if (strncmp(s->key, SITE_OF_MX, strlen(SITE_OF_MX)) == 0) {
		assert_int_equal(home_under(rig->program.home_count, s->key), t->index);
	}
}

/* Each is where it belongs, and its first home knows where that is, and of nothing else. Returns
 * how many there are. */
static uint32_t check_places(void)
{
	struct tally t = {0};
	uint32_t entries = 0;

	for (t.index = 0; t.index < SCHEDULERS; t.index++) {
		struct dispatcher *x = dispatcher_at(t.index);

		domain_each(&x->domains, check_record, &t);
		site_each(&x->sites, check_site, &t);
		entries += x->forwards.count;
		assert_int_equal(x->moves, 0);
	}
	assert_int_equal(entries, t.away);
	return t.records;
}

/* Nothing is left to be taken anywhere. */
static void end(void)
{
	tell_all(relocate_end);
	wait_until_complete();
	check_places();
}

static void change(uint32_t count)
{
	adopt(count);
	take_home();
	end();
}

/* ---- names ---- */

/* Homes under one layout and under the next one. */
struct journey {
	uint32_t count;
	uint32_t home;
	uint32_t next_count;
	uint32_t next_home;
};

static const struct journey to_the_third = {2, 0, 3, 2};

static bool goes(const struct journey *j, const char *name)
{
	return home_under(j->count, name) == j->home &&
	       home_under(j->next_count, name) == j->next_home;
}

/* The domain of that number whose first home changes so, from 0 on. */
static const char *domain_that(const struct journey *j, unsigned number)
{
	static char names[4][32];
	char *name = names[number];

	for (unsigned i = 0;; i++) {
		snprintf(name, sizeof names[0], "n%u.d%u.test", number, i);
		if (goes(j, name)) {
			return name;
		}
	}
}

/* An MX set whose site's home changes so. */
static const char *set_that(const struct journey *j)
{
	static char set[32];
	char key[64];

	for (unsigned i = 0;; i++) {
		snprintf(set, sizeof set, "10 mx%u.that.test", i);
		snprintf(key, sizeof key, SITE_OF_MX "%s", set);
		if (goes(j, key)) {
			return set;
		}
	}
}

/* ---- the world ---- */

static uint32_t homes_at_start;

static void choose_homes(void)
{
	answer_here();
	layout = 0;
	rig->program.home_count = homes_at_start;
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		dispatcher_join(dispatcher_at(i), rig->program.dispatchers, homes_at_start, i);
	}
}

static int set_up_homes(void **state)
{
	int rc;

	homes_at_start = 2;
	set_up_moves(state);
	stop(false);
	on_made = choose_homes;
	start();
	rc = rig->found.messages == 0 ? 0 : -1;
	return rc;
}

/* From the beginning, with `more` in the configuration. */
static void configure(const char *more)
{
	size_t used = strlen(rig->config);

	stop(false);
	snprintf(rig->config + used, sizeof rig->config - used, "%s", more);
	start();
}

static void nothing_is_sent(void)
{
	rig->program.limits.connections_max = 0;
}

static void all_is_sent(uint64_t count)
{
	rig->program.limits.connections_max = 100;
	pass_ms(1000);
	pass_ms(1000);
	assert_int_equal(TOTAL(delivered), count);
	assert_int_equal(rig->good->bodies, count);
}

/* Mail that comes to scheduler `index`, whoever sent it there. */
static void mail_at(uint32_t index, const char *domain)
{
	struct scheduler *s = &rig->schedulers[index];

	enter(s);
	scheduler_on_delivery(&s->base, delivery_for(s, domain), 0);
	leave(s);
}

/* Steps of all, however much there is to do. */
static void cycles(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		runtime_step(&rig->program.runtime);
		outbound_step(rig->servers);
		poll(NULL, 0, 1);
	}
}

static enum domain_hold hold_of(const struct domain *d)
{
	const char *scope;
	uint64_t until_ms;

	return dispatch_held(d, &until_ms, &scope);
}

/* ---- where mail goes ---- */

static struct dispatcher *elsewhere(uint32_t index, const char *name, bool *yours)
{
	struct dispatcher *to;

	enter(&rig->schedulers[index]);
	to = dispatch_elsewhere(dispatcher_at(index), by, name, yours);
	leave(&rig->schedulers[index]);
	return to;
}

static void assert_goes_to(uint32_t index, const char *name, struct dispatcher *expected,
			   bool says_yours)
{
	bool yours = false;

	assert_ptr_equal(elsewhere(index, name, &yours), expected);
	assert_int_equal(yours, says_yours);
}

static void test_mail_goes_to_first_homes_when_all_is_settled(void **state)
{
	const char *name = domain_that(&to_the_third, 0);

	(void)state;
	assert_goes_to(0, name, NULL, false);
	assert_goes_to(1, name, dispatcher_at(0), false);
	assert_goes_to(2, name, dispatcher_at(0), false);
	assert_true(dispatch_is_home(dispatcher_at(0), by, name));
	assert_false(dispatch_is_home(dispatcher_at(1), by, name));
	assert_null(dispatch_before(dispatcher_at(0), by, name));
	change(3);
	assert_goes_to(0, name, dispatcher_at(2), false);
	assert_goes_to(1, name, dispatcher_at(2), false);
	assert_goes_to(2, name, NULL, false);
	assert_true(dispatch_is_home(dispatcher_at(2), by, name));
	assert_null(dispatch_before(dispatcher_at(2), by, name));
}

/* The new home asks the old one, which knows of nothing, and says so whenever it is asked. */
static void test_mail_goes_by_old_homes_while_records_settle(void **state)
{
	const char *name = domain_that(&to_the_third, 0);
	bool yours = true;

	(void)state;
	adopt(3);
	assert_true(dispatch_is_home(dispatcher_at(2), by, name));
	assert_false(dispatch_is_home(dispatcher_at(0), by, name));
	assert_ptr_equal(dispatch_before(dispatcher_at(2), by, name), dispatcher_at(0));
	assert_null(dispatch_before(dispatcher_at(0), by, name));
	assert_goes_to(1, name, dispatcher_at(2), false);
	assert_goes_to(2, name, dispatcher_at(0), false);
	assert_null(dispatch_away(dispatcher_at(0), by, name));
	assert_goes_to(0, name, dispatcher_at(2), true);
	assert_ptr_equal(dispatch_away(dispatcher_at(0), by, name), dispatcher_at(2));
	assert_goes_to(0, name, dispatcher_at(2), true);
	assert_null(elsewhere(2, name, &yours));
	assert_false(yours);
	take_home();
	end();
	assert_null(dispatch_away(dispatcher_at(0), by, name));
}

static void test_mail_makes_its_record_at_the_new_home(void **state)
{
	const char *name = domain_that(&to_the_third, 0);

	(void)state;
	nothing_is_sent();
	adopt(3);
	/* By who knows of the layout, and by who does not yet. */
	mail("a", name);
	mail_at(0, name);
	mail_at(1, name);
	settle();
	assert_null(record_at(0, name));
	assert_int_equal(record_at(2, name)->active_count, 3);
	take_home();
	end();
	assert_int_equal(record_at(2, name)->active_count, 3);
	all_is_sent(3);
}

/* A record that has not left yet is where its mail goes, and takes it along. */
static void test_mail_finds_a_record_that_has_not_left(void **state)
{
	const char *name = domain_that(&to_the_third, 0);
	struct domain *d;

	(void)state;
	nothing_is_sent();
	mail("a", name);
	settle();
	d = record_at(0, name);
	adopt(3);
	mail("b", name);
	settle();
	assert_ptr_equal(record_at(0, name), d);
	assert_in_order(d, 2);
	take_home();
	assert_ptr_equal(record_at(2, name), d);
	assert_null(record_at(0, name));
	/* The old home still knows where it has gone, for who sends there. */
	mail_at(0, name);
	mail("c", name);
	settle();
	assert_int_equal(d->active_count, 4);
	end();
	all_is_sent(4);
}

/* Its record was freed for want of mail while others still settle; the old home has an entry for
 * it that names the new one. */
static void test_mail_for_a_record_that_was_freed_meanwhile(void **state)
{
	const char *name = domain_that(&to_the_third, 0);

	(void)state;
	mail("a", name);
	settle();
	adopt(3);
	tell_all(relocate_begin);
	wait_until_complete();
	assert_non_null(record_at(2, name));
	pass_ms(10000);
	pass_ms(600000);
	assert_null(record_at(2, name));
	assert_ptr_equal(dispatch_away(dispatcher_at(0), by, name), dispatcher_at(2));
	mail("b", name);
	settle();
	assert_int_equal(record_at(2, name)->delivered, 1);
	take_home();
	end();
	all_is_sent(2);
}

/* ---- what goes, and what stays ---- */

static const char *set_of_mixed(const char *domain)
{
	static char set[64];
	unsigned number;

	assert_int_equal(sscanf(domain, "r%u.test", &number), 1);
	if (number % 7 == 6) {
		return NULL;
	}
	snprintf(set, sizeof set, "10 mx%u.mixed.test", number % 7);
	return set;
}

static const char *mixed(unsigned number)
{
	static char name[32];

	snprintf(name, sizeof name, "r%u.test", number);
	return name;
}

static struct domain *found(const char *name)
{
	struct domain *d = NULL;

	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		d = d != NULL ? d : record_at(i, name);
	}
	assert_non_null(d);
	return d;
}

/* One message for each of them, so many steps apart. */
static unsigned mail_for_all(unsigned steps)
{
	for (unsigned i = 0; i < MIXED; i++) {
		mail("a", mixed(i));
		for (unsigned n = 0; n < steps; n++) {
			runtime_step(&rig->program.runtime);
		}
	}
	return 1;
}

/* Domains of MX sets and such that are alone, to and fro, while mail comes at all times. */
static void test_all_are_at_home_after_any_layout(void **state)
{
	static const uint32_t counts[] = {3, 1, 2, 3, 2, 1, 3};
	unsigned each = 0;

	(void)state;
	nothing_is_sent();
	mx_of = set_of_mixed;
	each += mail_for_all(0);
	settle();
	assert_int_equal(check_places(), MIXED);
	for (unsigned i = 0; i < sizeof counts / sizeof counts[0]; i++) {
		each += mail_for_all(0);
		adopt(counts[i]);
		each += mail_for_all(1);
		tell_all(relocate_begin);
		each += mail_for_all(1);
		take_home();
		each += mail_for_all(0);
		tell_all(relocate_end);
		each += mail_for_all(1);
		settle();
		wait_until_complete();
		assert_int_equal(check_places(), MIXED);
		for (unsigned n = 0; n < MIXED; n++) {
			assert_in_order(found(mixed(n)), each);
			assert_int_equal(found(mixed(n))->received, each);
		}
	}
	all_is_sent((uint64_t)each * MIXED);
	assert_nothing_left();
}

/* Only who looks after it is another one: by an entry, that one knows where it is. */
static void test_record_stays_when_its_site_does(void **state)
{
	static const struct journey site = {2, 1, 3, 1};
	const char *name = domain_that(&to_the_third, 0);
	struct domain *d;

	(void)state;
	nothing_is_sent();
	mx_now = set_that(&site);
	mail("a", name);
	settle();
	d = record_at(1, name);
	assert_non_null(d);
	change(3);
	assert_ptr_equal(record_at(1, name), d);
	assert_int_equal(counter_get(dispatcher_at(1)->moved), 0);
	assert_ptr_equal(dispatch_away(dispatcher_at(2), by, name), dispatcher_at(1));
	assert_int_equal(dispatcher_at(0)->forwards.count, 0);
	mail("b", name);
	settle();
	assert_in_order(d, 2);
	all_is_sent(2);
}

/* It was at its first home, so there was no entry. */
static void test_record_stays_when_its_first_home_moves_away(void **state)
{
	static const struct journey site = {2, 0, 3, 0};
	const char *name = domain_that(&to_the_third, 0);
	struct domain *d;

	(void)state;
	nothing_is_sent();
	mx_now = set_that(&site);
	mail("a", name);
	settle();
	d = record_at(0, name);
	assert_non_null(d);
	for (unsigned i = 0; i < 2; i++) {
		change(3);
		assert_ptr_equal(record_at(0, name), d);
		assert_int_equal(counter_get(dispatcher_at(0)->moved), 0);
		assert_ptr_equal(dispatch_away(dispatcher_at(2), by, name), dispatcher_at(0));
		change(2);
		assert_ptr_equal(record_at(0, name), d);
		assert_int_equal(dispatcher_at(2)->forwards.count, 0);
	}
	all_is_sent(1);
}

/* By way of its first home, which stays what it is. */
static void test_record_follows_its_site(void **state)
{
	static const struct journey first = {2, 0, 3, 0};
	static const struct journey site = {2, 1, 3, 2};
	const char *name = domain_that(&first, 0);

	(void)state;
	nothing_is_sent();
	mx_now = set_that(&site);
	mail("a", name);
	settle();
	assert_non_null(record_at(1, name));
	change(3);
	assert_in_order(record_at(2, name), 1);
	assert_int_equal(counter_get(dispatcher_at(1)->moved), 1);
	assert_int_equal(counter_get(dispatcher_at(0)->moved), 2);
	assert_ptr_equal(dispatch_away(dispatcher_at(0), by, name), dispatcher_at(2));
	all_is_sent(1);
}

/* It goes to its new first home, and from there to its site, which is where it was. */
static void test_record_that_comes_back_is_not_away(void **state)
{
	static const struct journey site = {2, 0, 3, 0};
	const char *name = domain_that(&to_the_third, 0);

	(void)state;
	nothing_is_sent();
	mail("a", name);
	settle();
	adopt(3);
	tell_all(relocate_begin);
	wait_until_complete();
	assert_non_null(record_at(2, name));
	assert_ptr_equal(dispatch_away(dispatcher_at(0), by, name), dispatcher_at(2));
	mx_now = set_that(&site);
	pass_ms(TTL_MS + 1);
	mail("b", name);
	settle();
	assert_in_order(record_at(0, name), 2);
	assert_null(dispatch_away(dispatcher_at(0), by, name));
	take_home();
	end();
	all_is_sent(2);
}

/* A site of gateways has a twin on each scheduler: its domains are at their first homes. */
static void test_domains_behind_gateways_go_to_their_first_homes(void **state)
{
	const char *name = domain_that(&to_the_third, 0);
	char gateway[64];

	(void)state;
	snprintf(gateway, sizeof gateway, "gateway = \"127.0.0.1:%u\"\n", rig->good->port);
	configure(gateway);
	nothing_is_sent();
	mail("a", name);
	settle();
	assert_int_equal(strncmp(record_at(0, name)->lane->site->key, SITE_OF_GATEWAYS,
				 strlen(SITE_OF_GATEWAYS)),
			 0);
	change(3);
	assert_in_order(record_at(2, name), 1);
	change(1);
	assert_in_order(record_at(0, name), 1);
	all_is_sent(1);
}

static void make_records(uint32_t home, unsigned from, unsigned to)
{
	char name[32];

	enter(&rig->schedulers[home]);
	for (unsigned i = from; i < to; i++) {
		snprintf(name, sizeof name, "x%u.test", i);
		if (home_under(2, name) == home) {
			dispatch_find(dispatcher_at(home), by, name);
		}
	}
	leave(&rig->schedulers[home]);
}

static void count_leaving(void *context, struct domain *d)
{
	*(unsigned *)context += d->travel != DOMAIN_AT_HOME;
}

/* However much there is, others have their turn in between; the table may grow meanwhile. */
static void test_a_step_is_bounded(void **state)
{
	struct dispatcher *x = dispatcher_at(0);
	uint32_t buckets;
	unsigned leaving = 0;
	unsigned more = 0;

	(void)state;
	make_records(0, 0, 2000);
	assert_int_equal(relocate_step(x), 0);
	adopt(3);
	enter(&rig->schedulers[0]);
	relocate_begin(x);
	assert_int_equal(relocate_step(x), 1);
	leave(&rig->schedulers[0]);
	assert_false(relocate_complete(x));
	domain_each(&x->domains, count_leaving, &leaving);
	assert_true(leaving > 0);
	assert_true(leaving < 64);
	buckets = x->domains.bucket_count;
	make_records(0, 2000, 6000);
	assert_true(x->domains.bucket_count > buckets);
	domain_each(&x->domains, count_leaving, &more);
	assert_int_equal(more, leaving);
	take_home();
	end();
	assert_int_equal(relocate_step(x), 0);
	assert_true(counter_get(x->moved) > 1000);
}

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
	adopt(3);
	tell_all(relocate_begin);
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
	take_home();
	end();
	all_is_sent(3);
	assert_int_equal(rig->good->open_max, 1);
}

static void test_record_waits_for_its_next_hops(void **state)
{
	const char *name = domain_that(&to_the_third, 0);
	struct domain *d;

	(void)state;
	hold_answers = true;
	mail("a", name);
	settle();
	d = record_at(0, name);
	assert_int_equal(hold_of(d), DOMAIN_RESOLVING);
	adopt(3);
	tell_all(relocate_begin);
	pass_ms(100);
	assert_ptr_equal(record_at(0, name), d);
	assert_int_equal(d->travel, DOMAIN_AT_HOME);
	assert_false(relocate_complete(dispatcher_at(0)));
	answer_held();
	settle();
	take_home();
	end();
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
	take_home();
	end();
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
	dispatch_suspend(&s->dispatcher, d, true);
	dispatch_suspend_note(&s->dispatcher, d, "somebody", agent_wall_ms(&s->base), 0);
	assert_true(dispatch_hold_delivery(&s->dispatcher, record_at(0, held)->active_head, true));
	leave(s);
	settle();
	change(3);
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	all_is_sent(0);
	assert_int_equal(hold_of(record_at(2, suspended)), DOMAIN_SUSPENDED);
	assert_string_equal(record_at(2, suspended)->suspension->by, "somebody");
	assert_int_equal(record_at(2, held)->held_count, 1);
	assert_int_equal(record_at(2, delayed)->delayed_count, 1);
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 1);
	s = &rig->schedulers[2];
	enter(s);
	dispatch_suspend(&s->dispatcher, record_at(2, suspended), false);
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
	assert_int_equal(hold_of(record_at(0, name)), DOMAIN_THROTTLE_MESSAGES);
	change(3);
	pass_ms(60000);
	assert_int_equal(TOTAL(delivered), 1);
	assert_int_equal(hold_of(record_at(2, name)), DOMAIN_THROTTLE_MESSAGES);
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
	adopt(3);
	tell_all(relocate_begin);
	pass_ms(100);
	assert_int_equal(rig->good->open, 1);
	assert_int_equal(dispatcher_at(0)->sites.count, 1);
	assert_int_equal(hold_of(record_at(2, domain_that(&to_the_third, 1))), DOMAIN_MOVING);
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
	take_home();
	end();
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
	take_home();
	end();
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
	assert_int_equal(hold_of(record_at(2, domain_that(&to_the_third, 2))), DOMAIN_MOVING);
	assert_int_equal(dispatcher_at(2)->sites.count, 1);
	end_the_transaction();
	assert_int_equal(record_at(2, domain_that(&to_the_third, 2))->delivered, 1);
	take_home();
	end();
	/* That of the other set has not been answered. */
	all_is_sent(3);
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
	cycles(50);
	mail_at(0, domain_that(&to_the_third, 1));
	cycles(50);
	assert_int_equal(rig->good->accepted, 1);
	assert_int_equal(record_at(0, domain_that(&to_the_third, 1))->attempt_count, 1);
	assert_int_equal(hold_of(record_at(2, name)), DOMAIN_MOVING);
	adopt_at(0, 3);
	tell_all(relocate_begin);
	pass_ms(100);
	assert_int_equal(rig->good->accepted, 1);
	end_the_transaction();
	take_home();
	end();
	all_is_sent(2);
	assert_int_equal(rig->good->open_max, 1);
}

/* ---- other changes, and the end ---- */

/* A record is anywhere on its way back from its site when homes change. */
static void test_layout_changes_while_a_record_travels(void **state)
{
	static const struct journey first = {2, 0, 3, 2};
	static const struct journey site = {2, 1, 3, 0};
	static const struct journey next = {2, 0, 3, 1};
	const char *name = domain_that(&first, 0);
	uint32_t count = 0;
	bool travelled = false;

	(void)state;
	nothing_is_sent();
	for (unsigned steps = 0; steps < 25; steps++) {
		mx_now = set_that(&site);
		pass_ms(TTL_MS + 1);
		mail("a", name);
		settle();
		assert_in_order(record_at(1, name), ++count);
		mx_now = set_that(&next);
		rig->now.mono_ns += (TTL_MS + 1) * NS_PER_MS;
		rig->now.wall_ns += (TTL_MS + 1) * NS_PER_MS;
		for (unsigned i = 0; i < steps; i++) {
			runtime_step(&rig->program.runtime);
		}
		adopt(3);
		if (dispatcher_at(0)->moves + dispatcher_at(1)->moves > 0) {
			assert_false(all_complete());
			travelled = true;
		}
		mail("b", name);
		count++;
		take_home();
		end();
		assert_in_order(found(name), count);
		change(2);
		assert_in_order(found(name), count);
	}
	assert_true(travelled);
	all_is_sent(count);
	assert_nothing_left();
}

/* A stop at each step: the spool has all, and what only memory had goes there. */
static void test_stop_in_the_middle_loses_nothing(void **state)
{
	const unsigned many = 6;

	(void)state;
	mx_of = set_of_mixed;
	for (unsigned steps = 0; steps < 20; steps++) {
		nothing_is_sent();
		for (unsigned i = 0; i < many; i++) {
			mail("a", mixed(i));
		}
		receive("me@here.test", "m@r6.test", ENVELOPE_MEMORY);
		settle();
		adopt(steps % 2 == 0 ? 3 : 1);
		receive("me@here.test", "m@r0.test", ENVELOPE_MEMORY);
		tell_all(relocate_begin);
		for (unsigned i = 0; i < steps; i++) {
			runtime_step(&rig->program.runtime);
		}
		stop(false);
		start();
		assert_int_equal(rig->found.messages, many + 2);
		pass_ms(1000);
		assert_int_equal(TOTAL(delivered), many + 2);
		stop(false);
		start();
		assert_int_equal(rig->found.messages, 0);
	}
}

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
	assert_int_equal(hold_of(record_at(2, domain_that(&to_the_third, 1))), DOMAIN_MOVING);
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

#define HOMES(function) cmocka_unit_test_setup_teardown(function, set_up_homes, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		HOMES(test_mail_goes_to_first_homes_when_all_is_settled),
		HOMES(test_mail_goes_by_old_homes_while_records_settle),
		HOMES(test_mail_makes_its_record_at_the_new_home),
		HOMES(test_mail_finds_a_record_that_has_not_left),
		HOMES(test_mail_for_a_record_that_was_freed_meanwhile),
		HOMES(test_all_are_at_home_after_any_layout),
		HOMES(test_record_stays_when_its_site_does),
		HOMES(test_record_stays_when_its_first_home_moves_away),
		HOMES(test_record_follows_its_site),
		HOMES(test_record_that_comes_back_is_not_away),
		HOMES(test_domains_behind_gateways_go_to_their_first_homes),
		HOMES(test_a_step_is_bounded),
		HOMES(test_record_waits_for_its_attempt),
		HOMES(test_record_waits_for_its_next_hops),
		HOMES(test_passes_that_only_wait_grow_rare),
		HOMES(test_is_not_complete_while_an_entry_is_on_its_way),
		HOMES(test_what_holds_mail_back_comes_along),
		HOMES(test_throttle_holds_at_the_new_home),
		HOMES(test_site_waits_for_the_connections_of_its_old_home),
		HOMES(test_site_that_was_nowhere_waits_for_nobody),
		HOMES(test_site_ends_while_it_waits),
		HOMES(test_site_is_waited_for_where_nobody_has_heard_yet),
		HOMES(test_layout_changes_while_a_record_travels),
		HOMES(test_stop_in_the_middle_loses_nothing),
		HOMES(test_stop_while_a_site_is_waited_for),
		HOMES(test_stop_before_a_site_ends),
		HOMES(test_is_complete_when_it_stops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
