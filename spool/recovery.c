#include "spool/recovery.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "spool/account.h"
#include "spool/recovery_files.h"

/* Records are looked up, which is anywhere in memory: it is asked for so many ahead. */
#define LOOK_AHEAD 8U

/* ---- the records ---- */

static uint32_t root(struct recovery *x, uint32_t slot)
{
	while (x->parent[slot] != slot) {
		x->parent[slot] = x->parent[x->parent[slot]];
		slot = x->parent[slot];
	}
	return slot;
}

static void join(struct recovery *x, const struct segment *a, const struct segment *b)
{
	uint32_t ra = root(x, a->slot);
	uint32_t rb = root(x, b->slot);

	if (ra != rb) {
		x->parent[ra] = rb;
	}
}

static void pass_messages(struct recovery *x, struct segment *g, const struct index_record *r)
{
	uint64_t count = r->id.low & ((UINT64_C(1) << 56) - 1);
	struct spool_entry *e;

	if (count > x->highest_id) {
		x->highest_id = count;
	}
	if (r->sequence > x->highest_sequence) {
		x->highest_sequence = r->sequence;
	}
	if (r->type != RECORD_MESSAGE) {
		return;
	}
	if (r->delivery == 0 || r->delivery > ENVELOPE_RECIPIENTS_MAX) {
		x->found->damaged_records++;
		return;
	}
	e = index_find(&x->all.index, &r->id);
	if (e == NULL) {
		store_put_message(&x->all, g, r, false);
		return;
	}
	join(x, g, e->segment);
	if (e->delivery_count != r->delivery) {
		x->found->damaged_records++;
	} else if (r->sequence > e->sequence) {
		store_hold_copy(g, e->segment);
		store_move_message(&x->all, e, g, r);
	} else {
		store_hold_copy(e->segment, g);
	}
}

/* A tombstone is not where, or not what, it should be to outlive its message for certain: write it
 * again, and keep its segment until then. */
static void tomb_again(struct recovery *x, struct segment *g, const struct spool_entry *e,
		       const struct index_record *r)
{
	x->tombs.items = recovery_grow(x->tombs.items, x->tombs.count, &x->tombs.size,
				       sizeof(*x->tombs.items));
	x->tombs.items[x->tombs.count++] = (struct spool_tomb){
		.id = e->id,
		.first = r->delivery,
		.count = r->count,
		.target = e->segment,
		.pin = g,
	};
}

static void pass_rest(struct recovery *x, struct segment *g, const struct index_record *r)
{
	struct spool_entry *e;

	if (r->type != RECORD_DONE && r->type != RECORD_STATE) {
		return;
	}
	e = index_find(&x->all.index, &r->id);
	if (e == NULL) {
		return;
	}
	join(x, g, e->segment);
	if (r->type == RECORD_STATE) {
		store_put_state(&x->all, e, g, r);
	} else if (r->sequence > e->sequence) {
		if (r->units != e->segment->id) {
			tomb_again(x, g, e, r);
		}
		store_put_done(&x->all, e, g, r->delivery, r->count);
	} else {
		x->old_tombs = true;
	}
}

static bool all_done(const struct spool_entry *e, const struct index_record *r)
{
	uint64_t end = r->count == 0 ? e->delivery_count : (uint64_t)r->delivery + r->count;

	if (e->deliveries == NULL) {
		return false;
	}
	for (uint64_t i = r->count == 0 ? 0 : r->delivery; i < end && i < e->delivery_count; i++) {
		if (!e->deliveries[i].done) {
			return false;
		}
	}
	return true;
}

/*
 * The message was copied after this was written, and the copy has no tombstone of its own: the
 * program ended between the two. It gets one now, and this one's segment stays until then.
 */
static void pass_old_tombs(struct recovery *x, struct segment *g, const struct index_record *r)
{
	struct spool_entry *e;

	if (r->type != RECORD_DONE) {
		return;
	}
	e = index_find(&x->all.index, &r->id);
	if (e == NULL || r->sequence > e->sequence || all_done(e, r)) {
		return;
	}
	tomb_again(x, g, e, r);
	store_put_done(&x->all, e, NULL, r->delivery, r->count);
}

typedef void (*pass_fn)(struct recovery *x, struct segment *g, const struct index_record *r);

static int each_record(struct recovery *x, struct segment *g, pass_fn pass)
{
	struct index_record *records;
	uint32_t count;
	int rc;

	if (g->state != SEGMENT_SEALED) {
		for (const struct index_chunk *c = g->chunks; c != NULL; c = c->next) {
			for (uint32_t i = 0; i < c->count; i++) {
				pass(x, g, &c->records[i]);
			}
		}
		return 0;
	}
	rc = recovery_read_index(x, g, &records, &count);
	if (rc != 0) {
		recovery_warn(x, "the index of seg-%08x.fws cannot be read again: %s", g->id,
			      strerror(-rc));
		return rc;
	}
	for (uint32_t i = 0; i < count; i++) {
		if (count - i > LOOK_AHEAD) {
			index_prefetch(&x->all.index, &records[i + LOOK_AHEAD].id);
		}
		pass(x, g, &records[i]);
	}
	free(records);
	return 0;
}

static int each_segment(struct recovery *x, pass_fn pass)
{
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < x->all.slot_count; i++) {
		struct segment *g = x->all.segments[i];

		if (g != NULL && g->state != SEGMENT_SPARE) {
			rc = each_record(x, g, pass);
		}
	}
	return rc;
}

/* As many messages as there are records, at most. */
static void reserve(struct recovery *x)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < x->all.slot_count; i++) {
		count += x->all.segments[i] != NULL ? x->all.segments[i]->index_count : 0;
	}
	index_reserve(&x->all.index, count);
}

static int read_records(struct recovery *x)
{
	int rc;

	reserve(x);
	rc = each_segment(x, pass_messages);

	rc = rc != 0 ? rc : each_segment(x, pass_rest);
	return rc != 0 || !x->old_tombs ? rc : each_segment(x, pass_old_tombs);
}

static void seal_scanned(struct recovery *x)
{
	for (uint32_t i = 0; i < x->all.slot_count; i++) {
		struct segment *g = x->all.segments[i];
		int rc;

		if (g == NULL || g->state != SEGMENT_FULL || x->options->read_only) {
			continue;
		}
		rc = recovery_seal(x, g);
		if (rc != 0) {
			recovery_warn(x, "warning: seg-%08x.fws cannot be sealed: %s", g->id,
				      strerror(-rc));
			g->state = SEGMENT_ABANDONED;
			continue;
		}
		g->state = SEGMENT_SEALED;
		segment_index_drop(g, &x->all.chunks);
	}
}

/* ---- dealing out ---- */

/* Which writer gets the segments of each root: the one of the lowest id among them. */
static uint32_t *choose_writers(struct recovery *x)
{
	uint32_t *lowest =
		check_memory(malloc((x->all.slot_count + 1) * sizeof(*lowest)), "the spool");

	for (uint32_t i = 0; i < x->all.slot_count; i++) {
		lowest[i] = UINT32_MAX;
	}
	for (uint32_t i = 0; i < x->all.slot_count; i++) {
		if (x->all.segments[i] != NULL) {
			uint32_t r = root(x, i);
			uint32_t id = x->all.segments[i]->id;

			lowest[r] = id < lowest[r] ? id : lowest[r];
		}
	}
	for (uint32_t i = 0; i < x->all.slot_count; i++) {
		lowest[i] %= x->options->writers;
	}
	return lowest;
}

/* The sets speak of slots: from the old ones, `from`, to the new. */
static void renumber(struct segment_set *set, struct segment **from, uint32_t slots)
{
	struct segment_set renamed = {0};

	for (uint32_t i = 0; i < slots; i++) {
		if (segment_set_has(set, i)) {
			segment_set_add(&renamed, from[i]->slot);
		}
	}
	free(set->words);
	*set = renamed;
}

struct deal {
	struct recovery *x;
	struct segment_store *stores;
	/* Writer of a segment, by its old slot. */
	const uint32_t *writers;
};

static uint32_t writer_of(const struct deal *d, const struct segment *g)
{
	for (uint32_t w = 0; w < d->x->options->writers; w++) {
		if (g->slot < d->stores[w].slot_count && d->stores[w].segments[g->slot] == g) {
			return w;
		}
	}
	fatal("spool: segment %08x has no writer", g->id);
}

static void deal_entry(void *context, struct spool_entry *e)
{
	struct deal *d = context;

	index_transfer(&d->x->all.index, &d->stores[writer_of(d, e->segment)].index, e);
}

static void deal_entries(struct deal *d)
{
	struct spool_index *all = &d->x->all.index;

	if (d->x->options->writers == 1) {
		struct spool_index empty = d->stores[0].index;

		d->stores[0].index = *all;
		*all = empty;
	} else {
		index_each(all, deal_entry, d);
	}
}

static void deal_segments(struct deal *d)
{
	struct segment_store *all = &d->x->all;
	struct segment *next;

	for (uint32_t i = 0; i < all->slot_count; i++) {
		struct segment *g = all->segments[i];

		if (g != NULL && g->state != SEGMENT_SPARE) {
			store_add_segment(&d->stores[d->writers[root(d->x, i)]], g);
		}
	}
	for (uint32_t i = 0; i < all->slot_count; i++) {
		struct segment *g = all->segments[i];

		if (g != NULL && g->state != SEGMENT_SPARE) {
			renumber(&g->holds, all->segments, all->slot_count);
			renumber(&g->copies, all->segments, all->slot_count);
		}
	}
	for (struct segment *g = all->spares; g != NULL; g = next) {
		struct segment_store *s = &d->stores[g->id % d->x->options->writers];

		next = g->next_spare;
		store_add_segment(s, g);
		store_add_spare(s, g);
	}
}

static int compare_messages(const void *a, const void *b)
{
	const struct recovered_message *x = a;
	const struct recovered_message *y = b;

	if (x->id.high != y->id.high) {
		return x->id.high < y->id.high ? -1 : 1;
	}
	return x->id.low < y->id.low ? -1 : x->id.low > y->id.low;
}

struct listing {
	struct recovered_list *list;
	struct spool_recovery *found;
};

static void list_entry(void *context, struct spool_entry *e)
{
	struct listing *l = context;

	l->list->messages[l->list->count++] = (struct recovered_message){.id = e->id, .entry = e};
	l->found->messages++;
	l->found->deliveries += e->pending;
}

static void list_recovered(struct segment_store *s, struct spool_recovery *found)
{
	struct recovered_list *list = &s->recovered;
	struct listing l = {.list = list, .found = found};

	list->messages =
		check_memory(malloc((s->index.count + 1) * sizeof(*list->messages)), "the spool");
	index_each(&s->index, list_entry, &l);
	qsort(list->messages, list->count, sizeof(*list->messages), compare_messages);
}

static void deal_out(struct recovery *x, struct segment_store *stores)
{
	uint32_t *writers = choose_writers(x);
	struct deal d = {.x = x, .stores = stores, .writers = writers};
	uint32_t step = x->options->writers;

	deal_segments(&d);
	deal_entries(&d);
	for (uint32_t i = 0; i < x->tombs.count; i++) {
		store_tomb(&stores[writer_of(&d, x->tombs.items[i].target)], &x->tombs.items[i]);
	}
	for (uint32_t w = 0; w < step; w++) {
		if (x->id_count > 0) {
			stores[w].next_id = (x->highest_segment / step + 1) * step + w;
		}
		stores[w].next_sequence = x->highest_sequence + 1;
		list_recovered(&stores[w], x->found);
	}
	free(writers);
}

/* What was not dealt out, because recovery failed. */
static void give_up(struct recovery *x)
{
	for (uint32_t i = 0; i < x->all.slot_count; i++) {
		if (x->all.segments[i] != NULL) {
			segment_free(x->all.segments[i], &x->all.chunks);
		}
	}
}

int recovery_run(struct segment_store *stores, const struct spool_options *options, int dir_fd,
		 FILE *errors, struct spool_recovery *found, uint64_t *highest)
{
	struct recovery x = {.options = options, .errors = errors, .found = found};
	int rc;

	store_init(&x.all, options, 0, dir_fd, NULL);
	rc = recovery_list(&x);
	for (uint32_t i = 0; rc == 0 && i < x.id_count; i++) {
		rc = recovery_take_file(&x, x.ids[i]);
	}
	rc = rc != 0 ? rc : read_records(&x);
	if (rc == 0) {
		seal_scanned(&x);
		deal_out(&x, stores);
		*highest = x.highest_id;
	} else {
		give_up(&x);
	}
	x.all.slot_count = 0;
	free(x.all.segments);
	x.all.segments = NULL;
	store_close(&x.all);
	free(x.parent);
	free(x.ids);
	free(x.tombs.items);
	return rc;
}
