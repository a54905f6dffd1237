/*
 * The program of move_world.h with three schedulers, of which the first two are homes, and a crew's
 * part in what follows: all dispatchers hear of a layout, records go, and all is settled.
 *
 * Start reading at change(), then at domain_that() and check_places(). For test_relocate*.c only,
 * each of which has its own copy.
 */
#pragma once

#define SCHEDULERS 3

#include "tests/unit/move_world.h"

static uint32_t layout;

/* ---- the crew's part ---- */

static inline void adopt_at(uint32_t index, uint32_t count)
{
	enter(&rig->schedulers[index]);
	relocate_adopt(dispatcher_at(index), count, layout);
	leave(&rig->schedulers[index]);
}

/* All hear that the first `count` are homes. */
static inline void adopt(uint32_t count)
{
	layout++;
	rig->program.home_count = count;
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		adopt_at(i, count);
	}
}

static inline void tell_all(void (*what)(struct dispatcher *x))
{
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		enter(&rig->schedulers[i]);
		what(dispatcher_at(i));
		leave(&rig->schedulers[i]);
	}
}

/* All hear it, and what is to go begins to. */
static inline void begin(uint32_t count)
{
	adopt(count);
	tell_all(relocate_begin);
}

static inline bool all_complete(void)
{
	bool all = true;

	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		all = all && relocate_complete(dispatcher_at(i));
	}
	return all;
}

static inline void wait_until_complete(void)
{
	for (unsigned i = 0; !all_complete(); i++) {
		assert_true(i < 1000);
		pass_ms(PASS_MS);
	}
}

static inline uint64_t activity(void)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		sum += dispatcher_at(i)->relocation.activity;
	}
	return sum;
}

static inline void take_home(void)
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

static inline uint32_t home_under(uint32_t count, const char *name)
{
	return (uint32_t)(domain_hash(by, name, strlen(name)) % count);
}

/* With its site, if that is one of an MX set. */
static inline uint32_t place_of(const struct domain *d)
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

static inline void check_record(void *context, struct domain *d)
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

static inline void check_site(void *context, struct site *s)
{
	const struct tally *t = context;

	if (strncmp(s->key, SITE_OF_MX, strlen(SITE_OF_MX)) == 0) {
		assert_int_equal(home_under(rig->program.home_count, s->key), t->index);
	}
}

/* Each is where it belongs, and its first home knows where that is, and of nothing else. Returns
 * how many there are. */
static inline uint32_t check_places(void)
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
static inline void end(void)
{
	tell_all(relocate_end);
	wait_until_complete();
	check_places();
}

/* What was begun is carried through. */
static inline void finish(void)
{
	take_home();
	end();
}

static inline void change(uint32_t count)
{
	adopt(count);
	finish();
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

static inline bool goes(const struct journey *j, const char *name)
{
	return home_under(j->count, name) == j->home &&
	       home_under(j->next_count, name) == j->next_home;
}

/* The domain of that number whose first home changes so, from 0 on. */
static inline const char *domain_that(const struct journey *j, unsigned number)
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
static inline const char *set_that(const struct journey *j)
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

/* The first two. */
static inline void choose_homes(void)
{
	answer_here();
	layout = 0;
	rig->program.home_count = 2;
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		dispatcher_join(dispatcher_at(i), rig->program.dispatchers, 2, i);
	}
}

static inline int set_up_homes(void **state)
{
	return set_up_with(state, choose_homes);
}

static inline void nothing_is_sent(void)
{
	rig->program.limits.connections_max = 0;
}

static inline void all_is_sent(uint64_t count)
{
	rig->program.limits.connections_max = 100;
	pass_ms(1000);
	pass_ms(1000);
	assert_int_equal(TOTAL(delivered), count);
	assert_int_equal(rig->good->bodies, count);
}

/* One message to `name`, whose record is at `index` when all is quiet. */
static inline struct domain *mail_found_at(uint32_t index, const char *name)
{
	struct domain *d;

	mail("a", name);
	settle();
	d = record_at(index, name);
	assert_non_null(d);
	return d;
}

/* Mail that comes to scheduler `index`, whoever sent it there. */
static inline void mail_at(uint32_t index, const char *domain)
{
	struct scheduler *s = &rig->schedulers[index];

	enter(s);
	scheduler_on_delivery(&s->base, delivery_for(s, domain), 0);
	leave(s);
}

#define HOMES(function) cmocka_unit_test_setup_teardown(function, set_up_homes, tear_down)
