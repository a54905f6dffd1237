#include "spool/commit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

_Static_assert(SPOOL_REASON_MAX <= sizeof(((struct record_encoder *)0)->made) -
					   sizeof(struct record_state),
	       "a state's reason fits");

/* What to do with the request at the head of the queue. */
enum admission {
	/* Stage it. */
	ADMIT,
	/* Answer it with `error`, or with 0 for nothing to do. */
	REFUSE,
	/* Later: in the next batch, or when something under way has ended. */
	WAIT,
};

static void on_complete(struct mux_op *op, int result);

static void batch_reset(struct batch *b)
{
	queue_init(&b->requests);
	b->segment = NULL;
	b->filled = 0;
	b->written = 0;
	b->encoding = false;
	b->closed = false;
	b->has_header = false;
	b->needs_sync = false;
	b->records = 0;
	b->bytes = 0;
}

void commit_init(struct committer *c, struct segment_store *store, struct agent *agent)
{
	memset(c, 0, sizeof(*c));
	c->store = store;
	c->agent = agent;
	for (unsigned i = 0; i < 2; i++) {
		c->batches[i].buffer = aligned_alloc(SEGMENT_BLOCK, COMMIT_STAGING);
		if (c->batches[i].buffer == NULL) {
			fatal("spool: out of memory");
		}
		batch_reset(&c->batches[i]);
	}
	c->next = &c->batches[0];
	mux_op_init(&c->op, agent, on_complete);
}

void commit_close(struct committer *c)
{
	for (unsigned i = 0; i < 2; i++) {
		free(c->batches[i].buffer);
		c->batches[i].buffer = NULL;
	}
}

static struct spool_tomb *tomb_of(struct spool_request *r)
{
	return CONTAINER_OF(r, struct spool_tomb, request);
}

static struct spool_copy *copy_of(struct spool_request *r)
{
	return CONTAINER_OF(r, struct spool_copy, request);
}

static uint16_t reason_bytes(const struct spool_request *r)
{
	return r->reason == NULL ? 0 : (uint16_t)strnlen(r->reason, SPOOL_REASON_MAX);
}

static struct record_header copied_header(const struct spool_request *r)
{
	struct record_header h;

	memcpy(&h, CONTAINER_OF(r, struct spool_copy, request)->record, sizeof(h));
	return h;
}

uint64_t commit_record_bytes(const struct spool_request *r)
{
	switch (r->verb) {
	case SPOOL_STORE:
		return sizeof(struct record_header) + RECORD_ALIGN + RECORD_TRAILER +
		       message_envelope(r->message)->size + r->message->body.len;
	case SPOOL_STATE:
		return record_bytes((uint32_t)sizeof(struct record_state) + reason_bytes(r));
	case SPOOL_COPY:
		return record_bytes(copied_header(r).length);
	case SPOOL_DONE:
	case SPOOL_TOMB:
	case SPOOL_LOAD:
		break;
	}
	return record_bytes(RECORD_DONE_HEAD);
}

/* New data, that may be refused; the rest keeps promises given before. */
static bool refusable(const struct spool_request *r)
{
	return r->verb == SPOOL_STORE || r->verb == SPOOL_COPY;
}

static bool needs_sync(const struct spool_request *r)
{
	switch (r->verb) {
	case SPOOL_STORE:
		return message_envelope(r->message)->durability != ENVELOPE_CACHED;
	case SPOOL_STATE:
	case SPOOL_DONE:
		return !r->entry->cached;
	case SPOOL_COPY:
	case SPOOL_TOMB:
	case SPOOL_LOAD:
		break;
	}
	return true;
}

static void answer(struct committer *c, struct spool_request *r, int result)
{
	r->result = result;
	if (r->from == NULL) {
		r->on_done(c->agent, r, 0);
	} else {
		agent_send(c->agent, r->from, r->on_done, r, 0);
	}
}

/* Is the record still what compaction took it for? */
static bool copy_live(const struct segment_store *s, const struct spool_copy *copy)
{
	struct record_header h = copied_header(&copy->request);
	const struct spool_entry *e = index_find(&s->index, &h.id);
	const struct entry_delivery *d;

	if (e == NULL) {
		return false;
	}
	if (h.type == RECORD_MESSAGE) {
		return e->segment == copy->segment && e->place == copy->place;
	}
	if (e->deliveries == NULL || h.delivery >= e->delivery_count) {
		return false;
	}
	d = &e->deliveries[h.delivery];
	return d->segment == copy->segment && d->place == copy->place;
}

static bool worth_writing(const struct committer *c, const struct spool_request *r)
{
	return r->verb != SPOOL_COPY ||
	       copy_live(c->store, CONTAINER_OF(r, struct spool_copy, request));
}

/* What was tried in vain may be readable in an abandoned segment: whoever was told that it was not
 * stored will send it again, so it must not come back after a restart. */
static void refuse(struct committer *c, struct spool_request *r, int error)
{
	if (r->verb == SPOOL_STORE) {
		struct spool_tomb t = {.id = message_envelope(r->message)->id};

		counter_inc(c->store->stats.store_refused);
		if (c->failures > 0) {
			store_tomb(c->store, &t);
		}
	}
	answer(c, r, error);
}

/* Nobody is to wait for what keeps failing, but those whose promise was given before. */
static void refuse_waiting(struct committer *c, int error)
{
	struct request_queue *q = &c->store->queue;
	struct spool_request *r;

	for (uint32_t count = q->count; count > 0; count--) {
		r = queue_pop(q);
		if (refusable(r)) {
			refuse(c, r, error);
		} else {
			queue_push(q, r);
		}
	}
}

static void retry_later(struct committer *c, int error)
{
	c->retry_ms = agent_now_ms(c->agent) + STORE_RETRY_MS;
	refuse_waiting(c, error);
}

/* Finds a segment for the next record of the batch. */
static enum admission find_room(struct committer *c, const struct spool_request *r, uint64_t bytes,
				int *error)
{
	struct segment_store *s = c->store;
	bool urgent = !refusable(r);
	uint64_t reserve = urgent ? 0 : store_reserve(s);
	struct batch *b = c->next;

	if (s->active != NULL && s->active->sync_failed) {
		return WAIT;
	}
	if (s->active == NULL || !segment_fits(s->active, bytes, reserve)) {
		if (b->requests.count > 0) {
			b->closed = true;
			return WAIT;
		}
		*error = store_roll(s, bytes, urgent);
		if (*error != 0 && urgent) {
			retry_later(c, *error);
			return WAIT;
		}
		if (*error != 0) {
			return REFUSE;
		}
	}
	/* What is being prepared behind is written with zeros: not under our feet. */
	if (s->active->prepare_busy && s->active->end + bytes > s->active->prepared) {
		return WAIT;
	}
	return ADMIT;
}

static enum admission admit(struct committer *c, const struct spool_request *r, uint64_t bytes,
			    int *error)
{
	struct batch *b = c->next;

	*error = 0;
	if (!worth_writing(c, r)) {
		return REFUSE;
	}
	if (bytes > UINT32_MAX) {
		*error = -EFBIG;
		return REFUSE;
	}
	if (b->requests.count > 0 && b->filled + bytes > COMMIT_STAGING) {
		b->closed = true;
		return WAIT;
	}
	return find_room(c, r, bytes, error);
}

static void batch_begin(struct committer *c, struct batch *b)
{
	struct segment *g = c->store->active;

	b->segment = g;
	b->start = g->end;
	b->offset = g->fresh ? 0 : g->end;
	b->filled = 0;
	b->has_header = g->fresh;
	if (g->fresh) {
		segment_encode_header(g, c->store->writer, SEGMENT_DISK_OPEN, b->buffer);
		b->filled = SEGMENT_BLOCK;
		g->fresh = false;
	}
	g->batches++;
}

static struct record_header header_for(struct committer *c, struct spool_request *r)
{
	struct record_header h = {
		.segment = c->next->segment->id,
		.generation = c->next->segment->generation,
		.delivery = r->delivery,
		.sequence = c->store->next_sequence++,
	};

	r->sequence = h.sequence;
	return h;
}

static void encode(struct committer *c, struct record_encoder *e, struct spool_request *r)
{
	struct record_header h = header_for(c, r);

	switch (r->verb) {
	case SPOOL_STORE:
		h.type = RECORD_MESSAGE;
		h.id = message_envelope(r->message)->id;
		h.delivery = message_envelope(r->message)->delivery_count;
		record_encode_message(e, &h, message_envelope(r->message), &r->message->body);
		return;
	case SPOOL_STATE:
		h.type = RECORD_STATE;
		h.id = r->entry->id;
		record_encode_state(e, &h,
				    &(struct record_state){
					    .stamp = h.sequence,
					    .due_ms = r->due_ms,
					    .pending = {r->pending.bits[0], r->pending.bits[1]},
					    .attempts = r->attempts,
					    .reason_bytes = reason_bytes(r),
				    },
				    r->reason);
		return;
	case SPOOL_COPY:
		record_encode_copy(e, &h, copy_of(r)->record);
		return;
	case SPOOL_TOMB:
		h.type = RECORD_DONE;
		h.id = tomb_of(r)->id;
		h.delivery = tomb_of(r)->first;
		h.count = tomb_of(r)->count;
		r->target = tomb_of(r)->target != NULL ? tomb_of(r)->target->id : RECORD_ANYWHERE;
		record_encode_done(e, &h, r->target);
		return;
	case SPOOL_DONE:
	case SPOOL_LOAD:
		break;
	}
	h.type = RECORD_DONE;
	h.id = r->entry->id;
	h.count = 1;
	r->target = r->entry->segment->id;
	record_encode_done(e, &h, r->target);
}

/* Copies as much of the record under way as the buffer takes. */
static void batch_fill(struct batch *b)
{
	b->filled += (uint32_t)record_encode(&b->encoder, b->buffer + b->filled,
					     COMMIT_STAGING - b->filled);
	b->encoding = !record_encoded(&b->encoder);
	b->closed |= b->encoding;
}

static void batch_add(struct committer *c, struct spool_request *r)
{
	struct batch *b = c->next;

	if (b->requests.count == 0) {
		batch_begin(c, b);
	}
	b->needs_sync |= needs_sync(r);
	r->progress = b->segment->end;
	encode(c, &b->encoder, r);
	b->segment->end += b->encoder.size;
	if (b->segment->prepared < b->segment->end) {
		b->segment->prepared = b->segment->end;
	}
	b->segment->placed++;
	b->records++;
	b->bytes += b->encoder.size;
	queue_push(&b->requests, r);
	batch_fill(b);
}

static int stage(struct committer *c)
{
	struct request_queue *q = &c->store->queue;
	int work = 0;

	while (q->head != NULL && !c->next->closed && c->retry_ms == 0) {
		struct spool_request *r = q->head;
		int error;
		enum admission what = admit(c, r, commit_record_bytes(r), &error);

		if (what == WAIT) {
			break;
		}
		work++;
		queue_pop(q);
		if (what == ADMIT) {
			batch_add(c, r);
			continue;
		}
		if (error != 0) {
			refuse(c, r, error);
		} else {
			answer(c, r, 0);
		}
	}
	return work;
}

static void write_more(struct committer *c)
{
	struct batch *b = c->current;

	mux_write(c->agent->mux, &c->op, b->segment->fd, b->buffer + b->written,
		  b->filled - b->written, b->offset + b->written);
}

static void begin_sync(struct committer *c)
{
	c->state = COMMIT_SYNCING;
	mux_fsync(c->agent->mux, &c->op, c->current->segment->fd);
}

static bool sync_wanted(const struct committer *c)
{
	return c->want_sync && c->store->active != NULL && c->store->active->unsynced;
}

/* Makes the staged batch the current one, or an empty one if only a sync is wanted. False when
 * there is nothing to do. */
static bool start(struct committer *c)
{
	bool empty = c->next->requests.count == 0;

	if (c->current != NULL || (empty && !sync_wanted(c))) {
		return false;
	}
	if (empty) {
		batch_begin(c, c->next);
	}
	c->current = c->next;
	c->next = c->next == &c->batches[0] ? &c->batches[1] : &c->batches[0];
	c->began_ns = c->agent->now.mono_ns;
	if (empty) {
		begin_sync(c);
	} else {
		c->state = COMMIT_WRITING;
		write_more(c);
	}
	return true;
}

static struct index_record described(const struct spool_request *r)
{
	return (struct index_record){
		.sequence = r->sequence,
		.place = (uint32_t)(r->progress / RECORD_ALIGN),
		.delivery = r->delivery,
		.type = RECORD_DONE,
		.count = 1,
		.units = r->target,
	};
}

static void apply_store(struct committer *c, struct spool_request *r, struct batch *b,
			struct index_record *d)
{
	const struct envelope *e = message_envelope(r->message);

	d->type = RECORD_MESSAGE;
	d->count = 0;
	d->id = e->id;
	d->delivery = e->delivery_count;
	d->units = (uint32_t)(record_bytes((uint32_t)(e->size + r->message->body.len +
						      RECORD_TRAILER)) /
			      RECORD_ALIGN);
	r->message->spool = store_put_message(c->store, b->segment, d,
					      e->durability == ENVELOPE_CACHED);
	r->message->writer = (uint8_t)c->store->writer;
}

/* A copy may come too late, because its message was over meanwhile. Compaction sees to it. */
static void apply_copy(struct committer *c, struct spool_request *r, struct batch *b,
		       struct index_record *d)
{
	struct spool_copy *copy = copy_of(r);
	struct record_header h = copied_header(r);
	struct spool_entry *e = index_find(&c->store->index, &h.id);

	copy->written = b->segment;
	copy->moved = copy_live(c->store, copy);
	h.sequence = r->sequence;
	*d = record_describe(&h, d->place, copy->record + sizeof(h));
	if (h.type == RECORD_STATE) {
		if (copy->moved) {
			store_put_state(c->store, e, b->segment, d);
		}
		return;
	}
	store_hold_copy(b->segment, copy->segment);
	if (copy->moved) {
		store_move_message(c->store, e, b->segment, d);
	}
}

static void apply_tomb(struct committer *c, struct spool_request *r, struct batch *b,
		       struct index_record *d)
{
	struct segment_store *s = c->store;
	struct spool_tomb *t = tomb_of(r);

	d->id = t->id;
	d->delivery = t->first;
	d->count = t->count;
	if (t->target != NULL) {
		store_hold(b->segment, t->target);
		return;
	}
	for (uint32_t i = 0; i < s->slot_count; i++) {
		if (s->segments[i] != NULL && s->segments[i]->state == SEGMENT_ABANDONED) {
			store_hold(b->segment, s->segments[i]);
		}
	}
}

/* When the message was moved between the writing of its tombstone and now, what the tombstone says
 * of its place is wrong: compaction could drop it too early. One that is right follows. */
static void apply_done(struct committer *c, struct spool_request *r, struct batch *b)
{
	struct spool_entry *e = r->entry;
	struct spool_tomb t = {
		.id = e->id,
		.first = r->delivery,
		.count = 1,
		.target = e->segment,
		.pin = b->segment,
	};

	if (r->target != e->segment->id) {
		store_tomb(c->store, &t);
	}
	store_put_done(c->store, e, b->segment, r->delivery, 1);
}

/* Takes note of a record that has been committed. */
static void apply(struct committer *c, struct spool_request *r, struct batch *b)
{
	struct index_record d = described(r);

	switch (r->verb) {
	case SPOOL_STORE:
		apply_store(c, r, b, &d);
		break;
	case SPOOL_STATE:
		d.type = RECORD_STATE;
		d.count = 0;
		d.id = r->entry->id;
		d.units = (uint32_t)(commit_record_bytes(r) / RECORD_ALIGN);
		store_put_state(c->store, r->entry, b->segment, &d);
		break;
	case SPOOL_COPY:
		apply_copy(c, r, b, &d);
		break;
	case SPOOL_TOMB:
		apply_tomb(c, r, b, &d);
		break;
	case SPOOL_DONE:
	case SPOOL_LOAD:
		d.id = r->entry->id;
		apply_done(c, r, b);
		break;
	}
	segment_index_add(b->segment, &c->store->chunks, &d);
}

static void count_batch(struct committer *c, const struct batch *b)
{
	struct store_stats *t = &c->store->stats;

	counter_inc(t->commits);
	counter_add(t->records, b->records);
	counter_add(t->bytes, b->bytes);
	counter_max(t->batch_max, b->records);
	histogram_record(&t->commit_ns, c->agent->now.mono_ns - c->began_ns);
}

/* Everything in the batch is as durable as it asked for: take note, in order, and answer. */
static void finish(struct committer *c)
{
	struct batch *b = c->current;
	struct spool_request *r;

	if (b->records > 0) {
		count_batch(c, b);
		c->failures = 0;
		c->store->trouble = false;
		store_update_full(c->store);
	}
	while ((r = queue_pop(&b->requests)) != NULL) {
		apply(c, r, b);
		answer(c, r, 0);
	}
	b->segment->batches--;
	c->store->changes++;
	c->current = NULL;
	c->state = COMMIT_IDLE;
	batch_reset(b);
}

/* What asked for no sync is answered before it. Tombstones and copies always ask for one, so the
 * order of the records of a message is kept: who skips the sync skips it for the whole message. */
static void finish_cached(struct committer *c)
{
	struct batch *b = c->current;
	struct request_queue rest;
	struct spool_request *r;

	queue_init(&rest);
	while ((r = queue_pop(&b->requests)) != NULL) {
		if (needs_sync(r)) {
			queue_push(&rest, r);
			continue;
		}
		apply(c, r, b);
		answer(c, r, 0);
		b->segment->unsynced = true;
	}
	b->requests = rest;
	if (rest.head == NULL) {
		queue_init(&b->requests);
	}
}

/* Gives back what was staged in the active segment and not committed. */
static void unstage(struct batch *b, struct request_queue *all)
{
	struct request_queue mine = b->requests;
	struct segment *g = b->segment;

	if (b->requests.count > 0) {
		if (g->state != SEGMENT_ABANDONED) {
			g->end = b->start;
			g->placed = g->index_count;
			g->fresh = b->has_header;
		}
		queue_prepend(all, &mine);
	}
	if (g != NULL) {
		g->batches--;
	}
	batch_reset(b);
}

static bool no_space(int error)
{
	return error == -ENOSPC || error == -EDQUOT;
}

/*
 * A write or a sync failed. All that is staged goes back to the head of the queue; the segment is
 * given up, unless the disk was full: then the same place is written again, and what is there now
 * is known for old by its sequence.
 */
static void fail(struct committer *c, int error, bool syncing)
{
	struct segment_store *s = c->store;
	struct segment *g = c->current->segment;
	struct request_queue all;
	struct request_queue keep;
	struct spool_request *r;
	bool space = no_space(error) && !syncing;

	counter_inc(syncing ? s->stats.sync_errors : s->stats.write_errors);
	agent_error(c->agent, error, "spool: %s of segment %08x failed",
		    syncing ? "sync" : "write", g->id);
	if (!space) {
		store_abandon(s, g);
	}
	queue_init(&all);
	queue_init(&keep);
	unstage(c->next, &all);
	unstage(c->current, &all);
	c->current = NULL;
	c->state = COMMIT_IDLE;
	c->failures++;
	if (!space && c->failures == 1) {
		queue_prepend(&s->queue, &all);
		return;
	}
	while ((r = queue_pop(&all)) != NULL) {
		if (refusable(r)) {
			refuse(c, r, error);
		} else {
			queue_push(&keep, r);
		}
	}
	queue_prepend(&s->queue, &keep);
	if (space) {
		s->roll_error = error;
		s->roll_retry_ms = agent_now_ms(c->agent) + STORE_RETRY_MS;
	} else {
		s->trouble = true;
	}
	store_update_full(s);
	if (c->failures > 1) {
		retry_later(c, error);
	}
}

static void on_written(struct committer *c, int result)
{
	struct batch *b = c->current;

	if (result == -EINTR || result == -EAGAIN) {
		write_more(c);
		return;
	}
	if (result <= 0) {
		fail(c, result == 0 ? -EIO : result, false);
		return;
	}
	if (b->segment->sync_failed) {
		fail(c, -EIO, true);
		return;
	}
	b->written += (uint32_t)result;
	if (b->written == b->filled && b->encoding) {
		b->offset += b->filled;
		b->filled = 0;
		b->written = 0;
		batch_fill(b);
	}
	if (b->written < b->filled) {
		write_more(c);
		return;
	}
	finish_cached(c);
	if (b->needs_sync) {
		begin_sync(c);
	} else {
		finish(c);
	}
}

static void on_synced(struct committer *c, int result)
{
	struct segment *g = c->current->segment;

	if (result == -EINTR) {
		begin_sync(c);
		return;
	}
	/* The kernel reports an error once: to whoever synced the segment first. */
	if (result < 0 || g->sync_failed) {
		fail(c, result < 0 ? result : -EIO, true);
		return;
	}
	counter_inc(c->store->stats.syncs);
	g->unsynced = false;
	finish(c);
}

static void on_complete(struct mux_op *op, int result)
{
	struct committer *c = CONTAINER_OF(op, struct committer, op);

	if (c->state == COMMIT_WRITING) {
		on_written(c, result);
	} else {
		ASSERT(c->state == COMMIT_SYNCING);
		on_synced(c, result);
	}
	if (c->current == NULL) {
		commit_work(c);
	}
}

bool commit_idle(const struct committer *c)
{
	return c->current == NULL && c->next->requests.count == 0 && c->store->queue.count == 0 &&
	       !sync_wanted(c);
}

void commit_give_up(struct committer *c, int error)
{
	struct spool_request *r;

	if (c->current != NULL || c->next->requests.count > 0) {
		return;
	}
	while ((r = queue_pop(&c->store->queue)) != NULL) {
		answer(c, r, error);
	}
}

/* A sync of the active segment failed that was not a commit's. */
static void leave_failed(struct committer *c)
{
	struct segment *g = c->store->active;
	struct request_queue all;

	if (c->current != NULL || g == NULL || !g->sync_failed) {
		return;
	}
	queue_init(&all);
	unstage(c->next, &all);
	queue_prepend(&c->store->queue, &all);
	store_abandon(c->store, g);
}

int commit_work(struct committer *c)
{
	int work;

	leave_failed(c);
	if (c->retry_ms != 0 && agent_now_ms(c->agent) < c->retry_ms) {
		return 0;
	}
	c->retry_ms = 0;
	work = stage(c);
	if (start(c)) {
		work += 1 + stage(c);
	}
	return work;
}
