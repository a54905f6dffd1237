#include "spool/account.h"

#include <stdlib.h>

#include "core/runtime/check.h"

void store_hold(struct segment *holder, const struct segment *held)
{
	if (holder != held) {
		segment_set_add(&holder->holds, held->slot);
	}
}

void store_hold_copy(struct segment *holder, const struct segment *held)
{
	if (holder != held) {
		segment_set_add(&holder->copies, held->slot);
	}
}

static void add_live(struct segment_store *s, struct segment *g, uint64_t units)
{
	g->live_bytes += units * RECORD_ALIGN;
	counter_add(s->stats.live_bytes, units * RECORD_ALIGN);
}

static void remove_live(struct segment_store *s, struct segment *g, uint64_t units)
{
	ASSERT(g->live_bytes >= units * RECORD_ALIGN);
	g->live_bytes -= units * RECORD_ALIGN;
	counter_sub(s->stats.live_bytes, units * RECORD_ALIGN);
	s->changes++;
}

static void place_message(struct segment_store *s, struct spool_entry *e, struct segment *g,
			  const struct index_record *r)
{
	e->segment = g;
	e->place = r->place;
	e->units = r->units;
	e->sequence = r->sequence;
	g->live_messages++;
	add_live(s, g, e->units);
}

static void unplace_message(struct segment_store *s, struct spool_entry *e)
{
	ASSERT(e->segment->live_messages > 0);
	e->segment->live_messages--;
	remove_live(s, e->segment, e->units);
}

struct spool_entry *store_put_message(struct segment_store *s, struct segment *g,
				      const struct index_record *r, bool cached)
{
	struct spool_entry *e = index_add(&s->index, &r->id, r->delivery);

	e->cached = cached;
	place_message(s, e, g, r);
	counter_set_value(s->stats.live_messages, s->index.count);
	return e;
}

void store_move_message(struct segment_store *s, struct spool_entry *e, struct segment *g,
			const struct index_record *r)
{
	ASSERT(e->delivery_count == r->delivery);
	unplace_message(s, e);
	place_message(s, e, g, r);
}

static void forget_state(struct segment_store *s, struct entry_delivery *d)
{
	if (d->segment == NULL) {
		return;
	}
	ASSERT(d->segment->live_states > 0);
	d->segment->live_states--;
	remove_live(s, d->segment, d->units);
	d->segment = NULL;
}

void store_put_state(struct segment_store *s, struct spool_entry *e, struct segment *g,
		     const struct index_record *r)
{
	struct entry_delivery *d;

	if (r->delivery >= e->delivery_count) {
		return;
	}
	d = &index_deliveries(&s->index, e)[r->delivery];
	if (d->done || (d->segment != NULL && d->stamp > r->sequence)) {
		return;
	}
	forget_state(s, d);
	d->segment = g;
	d->stamp = r->sequence;
	d->place = r->place;
	d->units = (uint16_t)r->units;
	g->live_states++;
	add_live(s, g, d->units);
}

static void finish_delivery(struct segment_store *s, struct spool_entry *e, uint32_t delivery)
{
	struct entry_delivery *d;

	if (e->delivery_count == 1 && e->deliveries == NULL) {
		e->pending = 0;
		return;
	}
	d = &index_deliveries(&s->index, e)[delivery];
	if (!d->done) {
		d->done = true;
		forget_state(s, d);
		e->pending--;
	}
}

bool store_put_done(struct segment_store *s, struct spool_entry *e, struct segment *g,
		    uint32_t first, uint32_t count)
{
	uint64_t end = count == 0 ? e->delivery_count : (uint64_t)first + count;

	if (end > e->delivery_count) {
		end = e->delivery_count;
	}
	if (g != NULL) {
		store_hold(g, e->segment);
	}
	for (uint64_t i = count == 0 ? 0 : first; i < end; i++) {
		finish_delivery(s, e, (uint32_t)i);
	}
	if (e->pending > 0) {
		return false;
	}
	unplace_message(s, e);
	index_remove(&s->index, e);
	counter_set_value(s->stats.live_messages, s->index.count);
	return true;
}

uint32_t store_live_percent(const struct segment *g)
{
	return (uint32_t)(g->live_bytes * 100 / g->size);
}

/* What the index says should be in each segment. */
struct account {
	const struct segment_store *store;
	uint64_t *bytes;
	uint32_t *messages;
	uint32_t *states;
	bool wrong;
};

static void account_entry(void *context, struct spool_entry *e)
{
	struct account *a = context;
	uint32_t pending = 0;

	a->messages[e->segment->slot]++;
	a->bytes[e->segment->slot] += (uint64_t)e->units * RECORD_ALIGN;
	for (uint32_t i = 0; e->deliveries != NULL && i < e->delivery_count; i++) {
		const struct entry_delivery *d = &e->deliveries[i];

		pending += !d->done;
		if (d->segment != NULL) {
			a->wrong |= d->done;
			a->states[d->segment->slot]++;
			a->bytes[d->segment->slot] += (uint64_t)d->units * RECORD_ALIGN;
		}
	}
	a->wrong |= e->pending == 0 || (e->deliveries != NULL && pending != e->pending);
}

bool store_validate(struct segment_store *s)
{
	uint32_t slots = s->slot_count;
	struct account a = {.store = s,
			    .bytes = calloc(slots + 1, sizeof(uint64_t)),
			    .messages = calloc(slots + 1, sizeof(uint32_t)),
			    .states = calloc(slots + 1, sizeof(uint32_t))};

	ASSERT(a.bytes != NULL && a.messages != NULL && a.states != NULL);
	index_each(&s->index, account_entry, &a);
	for (uint32_t i = 0; i < slots; i++) {
		const struct segment *g = s->segments[i];

		a.wrong |= g == NULL && a.messages[i] + a.states[i] != 0;
		if (g != NULL) {
			a.wrong |= a.bytes[i] != g->live_bytes ||
				   a.messages[i] != g->live_messages ||
				   a.states[i] != g->live_states || g->slot != i;
		}
	}
	free(a.bytes);
	free(a.messages);
	free(a.states);
	return !a.wrong;
}
