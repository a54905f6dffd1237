/*
 * The books between the program and its spool, by the linker's --wrap: what is made a message, what
 * is stored, and which recipients' ends are written down, is noted when the answer has come.
 *
 * What is DONE or a STATE in durability `cached` survives a kill when it is answered; all else that
 * is answered survives a cut: stage_needs_sync() in spool/stage.c.
 */
#include <string.h>

#include "spool/index.h"
#include "tests/sim/books_parts.h"
#include "tests/sim/books_wrap.h"
#include "tests/sim/world.h"

#define HEADER_BYTES 2048U

/* ---- messages in the making ---- */

static char *copy_body(const struct message *m, size_t max, size_t *len)
{
	char *text;

	*len = message_body(m)->len < max ? (size_t)message_body(m)->len : max;
	text = world_alloc(*len + 1);
	chain_copy_out(message_body(m), 0, text, *len);
	return text;
}

/* The envelope tells the order of groups and recipients by which the spool knows them. */
static void learn_envelope(struct books *b, struct book_entry *e, const struct envelope *v)
{
	struct book_group groups[BOOKS_RECIPIENTS_MAX];
	uint32_t index = 0;

	e->received_ms = v->received_ms;
	e->all = 0;
	if (v->recipient_count > BOOKS_RECIPIENTS_MAX) {
		world_fail("%s has %u recipients", books_name(e), v->recipient_count);
	}
	for (uint32_t i = 0; i < v->recipient_count; i++) {
		const char *address = envelope_address(v, i);

		if (e->about == NULL &&
		    books_find_address(b, address, strlen(address), &index) != e) {
			world_fail("%s was received for %s", books_name(e), address);
		}
		e->order[i] = (uint8_t)index;
		e->all |= UINT64_C(1) << index;
	}
	for (uint32_t i = 0; i < v->delivery_count; i++) {
		const struct envelope_delivery *d = envelope_delivery(v, i);

		groups[i] = *books_group(e, envelope_domain(v, i));
		groups[i].first = (uint8_t)d->first;
		groups[i].count = (uint8_t)d->count;
		groups[i].recipients = 0;
		for (uint32_t j = 0; j < d->count; j++) {
			groups[i].recipients |= UINT64_C(1) << e->order[d->first + j];
		}
	}
	e->group_count = v->delivery_count;
	memcpy(e->groups, groups, v->delivery_count * sizeof(groups[0]));
}

static struct book_entry *meet_message(struct books *b, const struct message *m)
{
	const struct envelope *v = message_envelope(m);
	size_t len;
	char *head = copy_body(m, HEADER_BYTES, &len);
	struct book_entry *e = books_entry(b, books_sim_number(head, len));

	world_free(head, len + 1);
	if (e == NULL || !e->m.dotted) {
		world_fail("a message was received that nobody sent");
	}
	books_know(b, e, &v->id);
	learn_envelope(b, e, v);
	if (e->all != books_wanted(e)) {
		world_fail("%s was received for other recipients than were accepted",
			   books_name(e));
	}
	if (v->durability != e->m.durability) {
		world_fail("%s has durability %u instead of %d", books_name(e), v->durability,
			   (int)e->m.durability);
	}
	return e;
}

static struct book_entry *meet_notice(struct books *b, const struct message *m)
{
	const struct envelope *v = message_envelope(m);
	struct book_entry *n = books_new_notice(b, envelope_address(v, 0));
	struct message_id id;
	size_t len;
	char *text = copy_body(m, SIZE_MAX, &len);

	books_know(b, n, &v->id);
	books_notice_read(b, n, text, len);
	learn_envelope(b, n, v);
	n->data_hash = books_hash(text, len, 0);
	n->m.durability = (enum envelope_durability)v->durability;
	if (!books_notice_id(text, len, &id) || id.high != v->id.high || id.low != v->id.low ||
	    n->m.durability != n->about->m.durability || envelope_sender(v)[0] != '\0') {
		world_fail("%s has another id or durability, or a sender", books_name(n));
	}
	world_free(text, len + 1);
	return n;
}

struct book_entry *books_meet(struct books *b, const struct message *m)
{
	b->watching = true;
	return (message_envelope(m)->flags & ENVELOPE_INTERNAL) != 0 ? meet_notice(b, m)
								     : meet_message(b, m);
}

void books_keep(struct book_entry *e)
{
	if (e->about != NULL) {
		books_keep_notice(e);
	} else {
		e->kept = true;
		e->life_kept = world->life;
	}
}

struct book_waiting {
	/* Of scheduler_store(). */
	stored_fn on_stored;
	void *owner;
	/* Of spool_submit(). */
	const struct spool_request *request;
	task_fn on_done;
	enum spool_verb verb;
	struct book_entry *entry;
	uint64_t leaving;
	struct book_waiting *next;
};

static void on_stored(struct scheduler *s, void *owner, int result)
{
	struct book_waiting *w = owner;
	struct book_entry *e = w->entry;
	stored_fn then = w->on_stored;

	owner = w->owner;
	world_free(w, sizeof(*w));
	if (result == 0) {
		books_keep(e);
	}
	then(s, owner, result);
}

void __wrap_scheduler_store(struct scheduler *s, struct message *m, stored_fn then, void *owner)
{
	struct book_waiting *w = world_alloc(sizeof(*w));

	*w = (struct book_waiting){
		.on_stored = then, .owner = owner, .entry = books_meet(world->books, m)};
	__real_scheduler_store(s, m, on_stored, w);
}

/* ---- requests ---- */

static struct book_waiting **waiting_of(struct books *b, const struct spool_request *r)
{
	struct book_waiting **at = &b->waiting[(uintptr_t)r / 64 % BOOKS_WAITING_HASH];

	while (*at != NULL && (*at)->request != r) {
		at = &(*at)->next;
	}
	return at;
}

uint64_t books_spool_asked(const struct book_entry *e, uint32_t delivery,
			   const struct recipient_set *pending)
{
	const struct book_group *g = &e->groups[delivery];
	uint64_t leaving = 0;
	uint64_t missing;

	if (delivery >= e->group_count) {
		world_fail("%s has no delivery %u", books_name(e), delivery);
	}
	for (uint32_t i = 0; i < g->count; i++) {
		if (pending == NULL || !recipient_set_has(pending, i)) {
			leaving |= UINT64_C(1) << e->order[g->first + i];
		}
	}
	missing = leaving & ~(e->settled | e->settled_cached | e->perhaps_settled | e->taken);
	if ((uint32_t)__builtin_popcountll(missing) > g->failures) {
		world_fail("%s: %s is written off, nobody took it, and it did not fail",
			   books_name(e), e->m.recipients[__builtin_ctzll(missing)].address);
	}
	return leaving;
}

/* It is written down: from now on the program must know. */
static void settle(struct books *b, struct book_entry *e, uint64_t leaving)
{
	uint64_t failed = leaving & ~e->taken;
	uint64_t told = 0;

	if (e->m.durability == ENVELOPE_CACHED) {
		e->settled_cached |= leaving & ~e->settled;
	} else {
		e->settled |= leaving;
	}
	e->written_off |= failed;
	for (const struct book_entry *n = e->notices; n != NULL; n = n->notice_next) {
		told |= n->names;
	}
	for (uint32_t i = 0; i < e->group_count; i++) {
		uint64_t untold = e->groups[i].recipients & failed & ~told;

		if (untold != 0 && books_tells(b, e, e->groups[i].domain)) {
			world_fail("%s: %s failed, and its sender was not told", books_name(e),
				   e->m.recipients[__builtin_ctzll(untold)].address);
		}
	}
}

void books_spool_answered(struct books *b, struct book_entry *e, enum spool_verb verb,
			  uint64_t leaving, int result)
{
	if (verb == SPOOL_STORE) {
		e->stored = e->stored || result == 0;
		e->store_failed = e->store_failed || result != 0;
	} else if (result == 0) {
		settle(b, e, leaving);
	} else {
		/* The program ends on a failing disk, and has said so. */
		e->perhaps_settled |= leaving;
		for (struct book_take *t = e->takes; t != NULL; t = t->next) {
			t->excused |= leaving;
		}
		for (struct book_entry *n = e->notices; n != NULL; n = n->notice_next) {
			n->names_excused |= leaving;
		}
	}
}

static void on_answered(struct agent *self, void *object, uint64_t value)
{
	struct spool_request *r = object;
	struct book_waiting **at = waiting_of(world->books, r);
	struct book_waiting *w = *at;

	if (w == NULL) {
		world_fail("the spool answered what was not asked");
	}
	*at = w->next;
	books_spool_answered(world->books, w->entry, w->verb, w->leaving, r->result);
	r->on_done = w->on_done;
	world_free(w, sizeof(*w));
	r->on_done(self, object, value);
}

void __wrap_spool_submit(struct spool *s, struct agent *self, struct spool_request *r)
{
	struct books *b = world->books;
	const struct message_id *id;
	struct book_waiting *w;
	struct book_entry *e;

	if (r->verb == SPOOL_LOAD) {
		__real_spool_submit(s, self, r);
		return;
	}
	id = r->verb == SPOOL_STORE ? &message_envelope(r->message)->id : &r->entry->id;
	e = books_find(b, id);
	if (e == NULL) {
		world_fail("a message came out of the spool that nobody ever received");
	}
	w = world_alloc(sizeof(*w));
	*w = (struct book_waiting){
		.request = r, .on_done = r->on_done, .verb = r->verb, .entry = e};
	if (r->verb != SPOOL_STORE) {
		w->leaving = books_spool_asked(e, r->delivery,
					       r->verb == SPOOL_DONE ? NULL : &r->pending);
	}
	if (*waiting_of(b, r) != NULL) {
		world_fail("%s: a request was sent twice", books_name(e));
	}
	*waiting_of(b, r) = w;
	r->on_done = on_answered;
	__real_spool_submit(s, self, r);
}

/* What it gives up there, it has said: a tombstone may be among it. */
void __wrap_commit_give_up(struct committer *c, int error)
{
	__real_commit_give_up(c, error);
	world->books->gave_up[world->life] |= c->store->gave_up;
}

void books_spool_forget(struct books *b)
{
	for (uint32_t i = 0; i < BOOKS_WAITING_HASH; i++) {
		struct book_waiting *w = b->waiting[i];

		while (w != NULL) {
			struct book_waiting *next = w->next;

			w->entry->perhaps_settled |= w->leaving;
			w->entry->written_off |= w->leaving & ~w->entry->taken;
			world_free(w, sizeof(*w));
			w = next;
		}
		b->waiting[i] = NULL;
	}
}
