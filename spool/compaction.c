#include "spool/compaction.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "spool/account.h"
#include "spool/record.h"

/* Records of the index looked at in one duty cycle. */
#define RECORDS_PER_CYCLE 1024
/* How often to look for a segment to compact. */
#define LOOK_MS 10
/* So many dead segments may wait for the messages of their tombstones to go; a tombstone is small,
 * but most go without being copied. */
#define WAITING_MAX 4
#define SLOT_BYTES (64U * 1024)

static void on_index(struct mux_op *op, int result);
static void on_record(struct mux_op *op, int result);
static void on_copied(struct agent *self, void *object, uint64_t value);

void compaction_init(struct compaction *c, struct segment_store *store, struct agent *agent)
{
	memset(c, 0, sizeof(*c));
	c->store = store;
	c->agent = agent;
	c->buffer = check_memory(malloc(INDEX_CHUNK_RECORDS * sizeof(*c->buffer)), "the spool");
	mux_op_init(&c->index_op, agent, on_index);
	for (unsigned i = 0; i < COMPACTION_SLOTS; i++) {
		struct compaction_slot *slot = &c->slots[i];

		slot->compaction = c;
		slot->copy.request.verb = SPOOL_COPY;
		slot->copy.request.on_done = on_copied;
		mux_op_init(&slot->op, agent, on_record);
	}
}

void compaction_close(struct compaction *c)
{
	for (unsigned i = 0; i < COMPACTION_SLOTS; i++) {
		free(c->slots[i].copy.record);
	}
	free(c->buffer);
}

void compaction_stop(struct compaction *c)
{
	c->stopping = true;
}

/* ---- choosing ---- */

/* Kept only by its tombstones. */
static bool waiting(const struct segment *g)
{
	return segment_dead(g) && g->holds.count > 0 && !g->tombs_moved;
}

static uint32_t count_waiting(const struct segment_store *s)
{
	uint32_t count = 0;

	for (uint32_t i = 0; i < s->slot_count; i++) {
		const struct segment *g = s->segments[i];

		count += g != NULL && g->state == SEGMENT_SEALED && waiting(g);
	}
	return count;
}

static bool worthwhile(const struct segment_store *s, const struct segment *g, uint32_t waiters)
{
	if (g->stuck || (segment_dead(g) && !waiting(g))) {
		return false;
	}
	if (g->state == SEGMENT_ABANDONED) {
		return g->batches == 0 && g->index_count > 0;
	}
	if (g->state != SEGMENT_SEALED) {
		return false;
	}
	return waiting(g) ? waiters >= WAITING_MAX
			  : store_live_percent(g) < s->options->compact_percent;
}

static bool less_to_copy(const struct segment *a, const struct segment *b)
{
	return a->live_bytes != b->live_bytes ? a->live_bytes < b->live_bytes
					      : a->index_count < b->index_count;
}

static struct segment *choose(const struct segment_store *s)
{
	uint32_t waiters = count_waiting(s);
	struct segment *best = NULL;

	for (uint32_t i = 0; s->options->compact_percent > 0 && i < s->slot_count; i++) {
		struct segment *g = s->segments[i];

		if (g != NULL && worthwhile(s, g, waiters) &&
		    (best == NULL || less_to_copy(g, best))) {
			best = g;
		}
	}
	return best;
}

static int look(struct compaction *c)
{
	uint64_t now_ms = agent_now_ms(c->agent);

	if (c->stopping || now_ms < c->look_ms || c->seen_changes == c->store->changes) {
		return 0;
	}
	c->look_ms = now_ms + LOOK_MS;
	c->seen_changes = c->store->changes;
	c->source = choose(c->store);
	if (c->source == NULL) {
		return 0;
	}
	c->source->pins++;
	c->seen = 0;
	c->buffered = 0;
	c->at = 0;
	c->chunk = c->source->chunks;
	c->failed = false;
	return 1;
}

/* ---- one record ---- */

static void slot_free(struct compaction_slot *slot)
{
	slot->step = COMPACTION_FREE;
	slot->compaction->busy--;
	if (slot->capacity > SLOT_BYTES) {
		free(slot->copy.record);
		slot->copy.record = NULL;
		slot->capacity = 0;
	}
}

static void read_more(struct compaction_slot *slot)
{
	mux_read(slot->compaction->agent->mux, &slot->op, slot->copy.segment->fd,
		 slot->copy.record + slot->have, slot->len - slot->have,
		 (uint64_t)slot->copy.place * RECORD_ALIGN + slot->have);
}

/* The message stays where it is, and so does the segment. */
static void record_bad(struct compaction_slot *slot, int error)
{
	struct compaction *c = slot->compaction;

	c->source->stuck = true;
	counter_inc(c->store->stats.damaged);
	agent_error(c->agent, error, "spool: a record in segment %08x cannot be read",
		    c->source->id);
	slot_free(slot);
}

static bool record_whole(const struct compaction_slot *slot)
{
	const struct segment *g = slot->copy.segment;
	struct record_header h;
	struct record_check check;

	memcpy(&h, slot->copy.record, sizeof(h));
	if (!record_plausible(&h, g->id, g->generation, slot->len) ||
	    (h.type != RECORD_MESSAGE && h.type != RECORD_STATE)) {
		return false;
	}
	record_check_begin(&check, &h);
	record_check_feed(&check, slot->copy.record + sizeof(h), slot->len - sizeof(h));
	return record_check_ok(&check) && memcmp(&h.id, &slot->id, sizeof(h.id)) == 0;
}

static void on_record(struct mux_op *op, int result)
{
	struct compaction_slot *slot = CONTAINER_OF(op, struct compaction_slot, op);

	if (result > 0 || result == -EINTR || result == -EAGAIN) {
		slot->have += result > 0 ? (uint32_t)result : 0;
		if (slot->have < slot->len) {
			read_more(slot);
			return;
		}
	} else {
		record_bad(slot, result == 0 ? -EIO : result);
		return;
	}
	if (!record_whole(slot)) {
		record_bad(slot, -EIO);
		return;
	}
	slot->step = COMPACTION_WRITING;
	slot->copy.written = NULL;
	slot->copy.moved = false;
	queue_push(&slot->compaction->store->queue, &slot->copy.request);
}

static void tomb_more(struct compaction_slot *slot);

static void on_tomb(void *owner)
{
	tomb_more(owner);
}

static void tomb(struct compaction_slot *slot, struct segment *target, uint32_t first,
		 uint16_t count)
{
	struct spool_tomb t = {
		.id = slot->id,
		.first = first,
		.count = count,
		.target = target,
		.on_written = on_tomb,
		.owner = slot,
	};

	slot->delivery = count == 0 ? UINT32_MAX : first + count;
	store_tomb(slot->compaction->store, &t);
}

/* The tombstones of a message's deliveries were made to outlive its old place: the new one needs
 * its own. One record for each run of them, one at a time. */
static void tomb_more(struct compaction_slot *slot)
{
	const struct spool_entry *e = index_find(&slot->compaction->store->index, &slot->id);
	uint32_t first;
	uint16_t count = 0;

	if (slot->delivery == UINT32_MAX) {
		slot_free(slot);
		return;
	}
	if (e == NULL) {
		/* Over, while this went on. */
		tomb(slot, slot->copy.written, 0, 0);
		return;
	}
	if (e->deliveries == NULL) {
		slot_free(slot);
		return;
	}
	first = slot->delivery;
	while (first < e->delivery_count && !e->deliveries[first].done) {
		first++;
	}
	while (first + count < e->delivery_count && e->deliveries[first + count].done &&
	       count < UINT16_MAX) {
		count++;
	}
	if (count == 0) {
		slot_free(slot);
		return;
	}
	tomb(slot, slot->copy.written, first, count);
}

static void on_copied(struct agent *self, void *object, uint64_t value)
{
	struct spool_request *r = object;
	struct spool_copy *copy = CONTAINER_OF(r, struct spool_copy, request);
	struct compaction_slot *slot = CONTAINER_OF(copy, struct compaction_slot, copy);
	struct record_header h;

	(void)self;
	(void)value;
	memcpy(&h, copy->record, sizeof(h));
	if (r->result != 0) {
		slot->compaction->failed = true;
		slot_free(slot);
		return;
	}
	if (copy->written == NULL || h.type != RECORD_MESSAGE) {
		slot_free(slot);
		return;
	}
	counter_inc(slot->compaction->store->stats.compacted);
	slot->delivery = 0;
	if (copy->moved) {
		tomb_more(slot);
	} else {
		/* Over while it was copied: its tombstones need not outlive the copy. */
		tomb(slot, copy->written, 0, 0);
	}
}

/* Where the message of a tombstone still is; NULL when it is gone, or goes with the source. */
static bool tomb_needed(struct compaction *c, const struct index_record *r, struct segment **target)
{
	if (r->type != RECORD_DONE) {
		return false;
	}
	*target = NULL;
	if (r->units == RECORD_ANYWHERE) {
		return c->source->holds.count > 0;
	}
	*target = store_segment(c->store, r->units);
	if (*target != NULL && (*target)->state == SEGMENT_RETIRING) {
		/* Known for certain a little later. */
		c->failed = true;
		return false;
	}
	return *target != NULL && *target != c->source;
}

/* A tombstone is in the index as a whole: nothing is read. */
static void slot_tomb(struct compaction_slot *slot, const struct index_record *r,
		      struct segment *target)
{
	slot->id = r->id;
	slot->step = COMPACTION_WRITING;
	slot->copy.written = NULL;
	slot->compaction->busy++;
	tomb(slot, target, r->delivery, r->count);
	slot->delivery = UINT32_MAX;
}

static bool record_live(const struct compaction *c, const struct index_record *r)
{
	const struct spool_entry *e = index_find(&c->store->index, &r->id);

	if (e == NULL) {
		return false;
	}
	if (r->type == RECORD_MESSAGE) {
		return e->segment == c->source && e->place == r->place && e->units == r->units;
	}
	return r->type == RECORD_STATE && e->deliveries != NULL &&
	       r->delivery < e->delivery_count && e->deliveries[r->delivery].segment == c->source &&
	       e->deliveries[r->delivery].place == r->place &&
	       e->deliveries[r->delivery].units == r->units;
}

static void slot_start(struct compaction_slot *slot, const struct index_record *r)
{
	struct compaction *c = slot->compaction;
	uint32_t len = r->units * RECORD_ALIGN;

	if (slot->capacity < len || slot->copy.record == NULL) {
		uint32_t capacity = len > SLOT_BYTES ? len : SLOT_BYTES;

		free(slot->copy.record);
		slot->copy.record = check_memory(malloc(capacity), "the spool");
		slot->capacity = capacity;
	}
	slot->copy.segment = c->source;
	slot->copy.place = r->place;
	slot->id = r->id;
	slot->len = len;
	slot->have = 0;
	slot->step = COMPACTION_READING;
	c->busy++;
	read_more(slot);
}

/* ---- the source's index ---- */

static void index_read_more(struct compaction *c)
{
	uint64_t offset = c->source->index_offset + SEGMENT_INDEX_HEAD +
			  (uint64_t)c->seen * sizeof(*c->buffer);

	mux_read(c->agent->mux, &c->index_op, c->source->fd,
		 (unsigned char *)c->buffer + c->index_have,
		 c->buffered * (uint32_t)sizeof(*c->buffer) - c->index_have,
		 offset + c->index_have);
}

static void on_index(struct mux_op *op, int result)
{
	struct compaction *c = CONTAINER_OF(op, struct compaction, index_op);

	if (result <= 0 && result != -EINTR && result != -EAGAIN) {
		agent_error(c->agent, result, "spool: the index of segment %08x cannot be read",
			    c->source->id);
		c->source->stuck = true;
		c->buffered = 0;
		c->at = 0;
		c->seen = c->source->index_count;
		return;
	}
	c->index_have += result > 0 ? (uint32_t)result : 0;
	if (c->index_have < c->buffered * sizeof(*c->buffer)) {
		index_read_more(c);
		return;
	}
	c->at = 0;
}

/* Brings the next part of the index; true when it is there. */
static bool index_fetch(struct compaction *c)
{
	uint32_t left = c->source->index_count - c->seen;

	if (c->chunk != NULL) {
		c->buffered = c->chunk->count;
		memcpy(c->buffer, c->chunk->records, c->buffered * sizeof(*c->buffer));
		c->chunk = c->chunk->next;
		c->at = 0;
		return true;
	}
	c->buffered = left < INDEX_CHUNK_RECORDS ? left : INDEX_CHUNK_RECORDS;
	c->at = c->buffered;
	c->index_have = 0;
	index_read_more(c);
	return false;
}

/* The next record, or NULL: at the end, or while the index is read. */
static const struct index_record *index_next(struct compaction *c)
{
	if (c->failed || c->stopping || mux_op_busy(&c->index_op)) {
		return NULL;
	}
	if (c->at == c->buffered) {
		if (c->seen == c->source->index_count || !index_fetch(c)) {
			return NULL;
		}
	}
	c->seen++;
	return &c->buffer[c->at++];
}

static struct compaction_slot *free_slot(struct compaction *c)
{
	for (unsigned i = 0; i < COMPACTION_SLOTS; i++) {
		if (c->slots[i].step == COMPACTION_FREE) {
			return &c->slots[i];
		}
	}
	return NULL;
}

static void finish(struct compaction *c)
{
	struct segment *g = c->source;

	if (c->failed) {
		c->look_ms = agent_now_ms(c->agent) + STORE_RETRY_MS;
	} else if (!c->stopping) {
		counter_inc(c->store->stats.compactions);
		/* What lives there is not in its index, or cannot be read. */
		g->stuck |= !segment_dead(g);
		g->tombs_moved = !g->stuck;
	}
	g->pins--;
	c->store->changes++;
	c->source = NULL;
}

static int copy_records(struct compaction *c)
{
	const struct index_record *r = NULL;
	struct compaction_slot *slot;
	struct segment *target;
	int work = 0;

	while (work < RECORDS_PER_CYCLE && (slot = free_slot(c)) != NULL &&
	       (r = index_next(c)) != NULL) {
		work++;
		if (record_live(c, r)) {
			slot_start(slot, r);
		} else if (tomb_needed(c, r, &target)) {
			slot_tomb(slot, r, target);
		}
	}
	return work;
}

int compaction_work(struct compaction *c)
{
	int work;

	if (c->source == NULL) {
		return look(c);
	}
	work = copy_records(c);
	if (c->busy == 0 && !mux_op_busy(&c->index_op) &&
	    (c->failed || c->stopping ||
	     (c->at == c->buffered && c->seen == c->source->index_count))) {
		finish(c);
		work++;
	}
	return work;
}
