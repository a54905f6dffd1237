/*
 * What the end of a life excuses, and the balance at the end of a run.
 */
#include <stdio.h>

#include "tests/sim/books_parts.h"
#include "tests/sim/world.h"

/* ---- the end of a life ---- */

/* In which life the program said that it keeps it. */
static uint32_t life_of(const struct book_entry *e)
{
	return e->life_kept != 0 ? e->life_kept : e->m.life_accepted;
}

/* The life that ended had it; its 250 may still be on its way. */
static bool had(const struct book_entry *e)
{
	return e->known || books_promised(e);
}

/* `harsh`: what was not written down is not known any more. */
static void end_entry(struct books *b, struct book_entry *e, int end)
{
	bool harsh = end != LIFE_STOPPED;
	bool faults = world->scenario != NULL && world->scenario->disk_faults;
	uint64_t open;

	if (end == LIFE_CUT) {
		e->perhaps_settled |= e->settled_cached;
		e->settled_cached = 0;
	} else if (!harsh && !faults) {
		e->settled |= e->settled_cached;
		e->settled_cached = 0;
	}
	open = ~(e->settled | e->settled_cached);
	for (struct book_take *t = e->takes; harsh && t != NULL; t = t->next) {
		t->excused |= open;
	}
	for (struct book_entry *n = e->notices; harsh && n != NULL; n = n->notice_next) {
		n->names_excused |= open;
	}
	/* What may have been written down may not be tried again. */
	e->written_off &= ~open | e->perhaps_settled;
	for (uint32_t i = 0; harsh && i < e->group_count; i++) {
		e->groups[i].failures = 0;
	}
	switch (e->m.durability) {
	case ENVELOPE_SYNCED:
		break;
	case ENVELOPE_CACHED:
		e->may_be_lost |=
			end == LIFE_CUT && had(e) && (faults || life_of(e) > b->life_synced);
		break;
	case ENVELOPE_MEMORY:
		e->may_be_lost |= !e->stored && had(e) && (harsh || e->store_failed);
		break;
	}
}

void books_life_ended(struct books *b, int end)
{
	if (world->life >= BOOKS_LIVES_MAX) {
		world_fail("the books have no room for life %u", world->life);
	}
	b->ends[world->life] = end;
	b->lives = world->life;
	b->harsh_ends |= end != LIFE_STOPPED;
	for (uint32_t i = 0; i < b->count; i++) {
		end_entry(b, b->entries[i], end);
	}
	for (struct book_message *m = b->all_notices != NULL ? &b->all_notices->m : NULL; m != NULL;
	     m = m->next) {
		end_entry(b, (struct book_entry *)(void *)m, end);
	}
	if (end == LIFE_STOPPED) {
		b->life_synced = world->life;
	}
	books_spool_forget(b);
	books_limits_new_life(b);
}

/* ---- operators ---- */

void books_fail_ordered(struct books *b, const char *domain, const char *id, bool quiet)
{
	struct book_domain *d = domain != NULL ? books_domain(b, domain) : NULL;
	struct message_id which;
	struct book_entry *e = NULL;

	if (id != NULL && message_id_parse(id, &which) == 0) {
		e = books_find(b, &which);
	}
	if (d != NULL) {
		d->ordered = true;
		d->quiet = d->quiet || quiet;
	}
	if (e != NULL) {
		e->fail_ordered = true;
		e->fail_quiet = e->fail_quiet || quiet;
	}
}

bool books_pick_id(const struct books *b, char id[MESSAGE_ID_TEXT])
{
	const struct book_entry *e;

	for (unsigned i = 0; i < 8 && b->count > 0; i++) {
		e = b->entries[world_below(b->count)];
		if (world_chance(200) && e->notices != NULL) {
			e = e->notices;
		}
		if (e->known) {
			message_id_format(&e->id, id);
			return true;
		}
	}
	return false;
}

/* ---- the end of a run ---- */

bool books_settled(const struct books *b)
{
	struct books *mine = world->books;
	struct book_entry **at = &mine->open;

	(void)b;
	while (*at != NULL) {
		struct book_entry *e = *at;

		if (books_promised(e) && !books_all_accounted(mine, e)) {
			return false;
		}
		if (books_promised(e) || e->m.refused) {
			*at = e->open_next;
		} else {
			at = &e->open_next;
		}
	}
	return true;
}

const char *books_unsettled(const struct books *b)
{
	const size_t size = 256;
	char *text = world_alloc(size);
	const struct book_entry *first = NULL;
	uint64_t missing = 0;
	unsigned count = 0;

	for (const struct book_entry *e = b->open; e != NULL; e = e->open_next) {
		if (books_promised(e) && !books_all_accounted(b, e)) {
			first = e;
			missing = books_wanted(e) & ~books_accounted(b, e);
			count++;
		}
	}
	if (first == NULL) {
		return "nothing";
	}
	snprintf(text, size, "%s (durability %d, %s) for %s; %u in all", books_name(first),
		 (int)first->m.durability, first->stored ? "stored" : "not stored",
		 first->m.recipients[__builtin_ctzll(missing)].address, count);
	return text;
}

/* A notification that was made while the program stopped for good. */
static bool still_queued(const struct books *b, const struct book_entry *e)
{
	return e->about != NULL && b->closing_ns != 0 && e->known_ns >= b->closing_ns && e->stored;
}

void books_closing(struct books *b)
{
	b->closing_ns = world->now_ns;
}

static void check_message(const struct books *b, const struct book_entry *e)
{
	uint64_t lost = books_wanted(e) & ~books_accounted(b, e);

	if (!books_promised(e)) {
		return;
	}
	if (b->watching && e->about == NULL && !e->kept) {
		world_fail("%s was answered 250, but not stored", books_name(e));
	}
	if (!e->may_be_lost && lost != 0 && !still_queued(b, e)) {
		world_fail("%s was lost for %s", books_name(e),
			   e->m.recipients[__builtin_ctzll(lost)].address);
	}
	books_judge(e);
}

/* In a run in which nothing goes wrong, nothing has to be excused. */
static void check_clean(const struct book_entry *e)
{
	for (uint32_t i = 0; i < e->m.recipient_count; i++) {
		const struct book_recipient *r = &e->m.recipients[i];

		if (r->accepted && e->m.accepted && r->delivered != 1) {
			world_fail("%s came to %s %u times, and nothing had gone wrong",
				   books_name(e), r->address, r->delivered);
		}
	}
}

void books_check(struct books *b)
{
	for (uint32_t i = 0; i < b->count; i++) {
		check_message(b, b->entries[i]);
		if (world->scenario != NULL && world->scenario->clean) {
			check_clean(b->entries[i]);
		}
	}
	for (struct book_entry *n = b->all_notices; n != NULL;
	     n = (struct book_entry *)(void *)n->m.next) {
		check_message(b, n);
	}
	books_log_check(b);
}

static void count_recipients(const struct books *b, const struct book_entry *e,
			     struct books_totals *t)
{
	uint64_t told = 0;

	for (const struct book_entry *n = e->notices; n != NULL; n = n->notice_next) {
		told |= n->names;
	}
	for (uint32_t i = 0; i < e->m.recipient_count; i++) {
		const struct book_recipient *r = &e->m.recipients[i];

		if (!r->accepted) {
			continue;
		}
		t->recipients++;
		t->delivered += r->delivered > 0;
		t->duplicates_excused += r->delivered > 1 ? r->delivered - 1 : 0;
		if (r->delivered == 0) {
			bool accounted = (books_accounted(b, e) >> i & 1) != 0;

			t->bounced += told >> i & 1;
			t->failed += accounted && (told >> i & 1) == 0;
			t->lost_excused += !accounted && e->may_be_lost;
		}
	}
}

struct books_totals books_totals(const struct books *b)
{
	struct books_totals t = {.messages = b->count};

	for (uint32_t i = 0; i < b->count; i++) {
		if (b->entries[i]->m.accepted) {
			t.accepted++;
			count_recipients(b, b->entries[i], &t);
		}
	}
	return t;
}
