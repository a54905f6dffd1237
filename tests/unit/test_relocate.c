/*
 * Homes that change while mail flows: where mail and orders go meanwhile, what goes to its new
 * home and what stays, and that nothing is lost.
 */
#include "tests/unit/relocate_world.h"

#define MIXED 40

/* ---- where mail goes ---- */

static struct dispatcher *elsewhere(uint32_t index, const char *name, uint64_t *yours)
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
	uint64_t yours = 0;

	assert_ptr_equal(elsewhere(index, name, &yours), expected);
	assert_int_equal(yours != 0, says_yours);
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
	uint64_t yours = 1;

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
	assert_int_equal(yours, 0);
	finish();
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
	finish();
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
	d = mail_found_at(0, name);
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
	begin(3);
	wait_until_complete();
	assert_non_null(record_at(2, name));
	pass_ms(10000);
	pass_ms(600000);
	assert_null(record_at(2, name));
	assert_ptr_equal(dispatch_away(dispatcher_at(0), by, name), dispatcher_at(2));
	mail("b", name);
	settle();
	assert_int_equal(record_at(2, name)->delivered, 1);
	finish();
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
	d = mail_found_at(1, name);
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
	d = mail_found_at(0, name);
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
	mail_found_at(1, name);
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
	begin(3);
	wait_until_complete();
	assert_non_null(record_at(2, name));
	assert_ptr_equal(dispatch_away(dispatcher_at(0), by, name), dispatcher_at(2));
	mx_now = set_that(&site);
	pass_ms(TTL_MS + 1);
	mail("b", name);
	settle();
	assert_in_order(record_at(0, name), 2);
	assert_null(dispatch_away(dispatcher_at(0), by, name));
	finish();
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
	finish();
	assert_int_equal(relocate_step(x), 0);
	assert_true(counter_get(x->moved) > 1000);
}

/* ---- other changes, and the end ---- */

/* Three homes of a record that travels: its first one, its site's, and the next site's. */
struct travel {
	struct journey first;
	struct journey site;
	struct journey next;
};

/* It is anywhere on its way from one site to another one when homes change. */
static void change_while_it_travels(const struct travel *t)
{
	const char *name = domain_that(&t->first, 0);
	uint32_t count = 0;
	bool travelled = false;

	nothing_is_sent();
	if (t->first.count != rig->program.home_count) {
		change(t->first.count);
	}
	for (unsigned steps = 0; steps < 25; steps++) {
		mx_now = set_that(&t->site);
		pass_ms(TTL_MS + 1);
		mail("a", name);
		settle();
		assert_in_order(record_at(t->site.home, name), ++count);
		mx_now = set_that(&t->next);
		rig->now.mono_ns += (TTL_MS + 1) * NS_PER_MS;
		rig->now.wall_ns += (TTL_MS + 1) * NS_PER_MS;
		for (unsigned i = 0; i < steps; i++) {
			runtime_step(&rig->program.runtime);
		}
		adopt(t->first.next_count);
		if (dispatcher_at(0)->moves + dispatcher_at(1)->moves > 0) {
			assert_false(all_complete());
			travelled = true;
		}
		mail("b", name);
		count++;
		take_home();
		end();
		assert_in_order(found(name), count);
		change(t->first.count);
		assert_in_order(found(name), count);
	}
	assert_true(travelled);
	all_is_sent(count);
	assert_nothing_left();
}

static void test_layout_changes_while_a_record_travels(void **state)
{
	static const struct travel apart = {{2, 0, 3, 2}, {2, 1, 3, 0}, {2, 0, 3, 1}};

	(void)state;
	change_while_it_travels(&apart);
}

/* It comes from its new first home, by the old one. */
static void test_layout_makes_a_first_home_of_where_a_record_leaves(void **state)
{
	static const struct travel away = {{3, 2, 1, 0}, {3, 0, 1, 0}, {3, 1, 1, 0}};

	(void)state;
	change_while_it_travels(&away);
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
		HOMES(test_layout_changes_while_a_record_travels),
		HOMES(test_layout_makes_a_first_home_of_where_a_record_leaves),
		HOMES(test_stop_in_the_middle_loses_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
