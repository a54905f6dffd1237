#include "spool/stage.h"

#include <errno.h>
#include <string.h>

#include "core/runtime/check.h"

_Static_assert(RECORD_ROUTE_MAX + SPOOL_REASON_MAX <= RECORD_TEXT_MAX, "a state's text fits");

/* What to do with the request at the head of the queue. */
enum admission {
	/* Stage it. */
	ADMIT,
	/* Answer it with `error`, or with 0 for nothing to do. */
	REFUSE,
	/* Later: in the next batch, or when something under way has ended. */
	WAIT,
};

void batch_reset(struct batch *b)
{
	queue_init(&b->requests);
	b->segment = NULL;
	b->filled = 0;
	b->padded = 0;
	b->written = 0;
	b->durable = false;
	b->encoding = false;
	b->closed = false;
	b->has_header = false;
	b->needs_sync = false;
	b->records = 0;
	b->bytes = 0;
}

/* The route's, with the NULs that end its names. */
static size_t route_bytes(const struct spool_request *r)
{
	return r->domain == NULL ? 0 : strlen(r->binding) + 1 + strlen(r->domain) + 1;
}

static size_t text_bytes(const struct spool_request *r)
{
	return route_bytes(r) + (r->reason == NULL ? 0 : strnlen(r->reason, SPOOL_REASON_MAX));
}

static uint16_t make_text(const struct spool_request *r, char text[RECORD_TEXT_MAX])
{
	size_t route = route_bytes(r);
	size_t bytes = text_bytes(r);

	ASSERT(route <= RECORD_ROUTE_MAX);
	if (route > 0) {
		size_t first = strlen(r->binding) + 1;

		memcpy(text, r->binding, first);
		memcpy(text + first, r->domain, route - first);
	}
	if (bytes > route) {
		memcpy(text + route, r->reason, bytes - route);
	}
	return (uint16_t)bytes;
}

struct record_header stage_copied_header(const struct spool_request *r)
{
	struct record_header h;

	memcpy(&h, CONTAINER_OF(r, struct spool_copy, request)->record, sizeof(h));
	return h;
}

uint64_t stage_record_bytes(const struct spool_request *r)
{
	switch (r->verb) {
	case SPOOL_STORE:
		return sizeof(struct record_header) + RECORD_ALIGN + RECORD_TRAILER +
		       message_envelope(r->message)->size + message_body(r->message)->len;
	case SPOOL_STATE:
		return record_bytes((uint32_t)(sizeof(struct record_state) + text_bytes(r)));
	case SPOOL_COPY:
		return record_bytes(stage_copied_header(r).length);
	case SPOOL_DONE:
	case SPOOL_TOMB:
	case SPOOL_LOAD:
		break;
	}
	return record_bytes(RECORD_DONE_HEAD);
}

/* New data, that may be refused; the rest keeps promises given before. */
bool stage_refusable(const struct spool_request *r)
{
	return (r->verb == SPOOL_STORE && !r->promised) || r->verb == SPOOL_COPY;
}

bool stage_needs_sync(const struct spool_request *r)
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

void stage_answer(struct committer *c, struct spool_request *r, int result)
{
	r->result = result;
	if (r->from == NULL) {
		r->on_done(c->agent, r, 0);
	} else {
		agent_send(c->agent, r->from, r->on_done, r, 0);
	}
}

/* Is the record still what compaction took it for? */
bool stage_copy_live(const struct segment_store *s, const struct spool_copy *copy)
{
	struct record_header h = stage_copied_header(&copy->request);
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
	       stage_copy_live(c->store, CONTAINER_OF(r, struct spool_copy, request));
}

/* What was tried in vain may be readable in an abandoned segment: whoever was told that it was not
 * stored will send it again, so it must not come back after a restart. */
void stage_refuse(struct committer *c, struct spool_request *r, int error)
{
	if (r->verb == SPOOL_STORE) {
		struct spool_tomb t = {.id = message_envelope(r->message)->id};

		counter_inc(c->store->stats.store_refused);
		if (c->failures > 0) {
			store_tomb(c->store, &t);
		}
	}
	stage_answer(c, r, error);
}

/* Nobody is to wait for what keeps failing, but those whose promise was given before. */
static void refuse_waiting(struct committer *c, int error)
{
	struct request_queue *q = &c->store->queue;
	struct spool_request *r;

	for (uint32_t count = q->count; count > 0; count--) {
		r = queue_pop(q);
		if (stage_refusable(r)) {
			stage_refuse(c, r, error);
		} else {
			queue_push(q, r);
		}
	}
}

void stage_retry_later(struct committer *c, int error)
{
	c->retry_ms = agent_now_ms(c->agent) + STORE_RETRY_MS;
	refuse_waiting(c, error);
}

/* Finds a segment for the next record of the batch. */
static enum admission find_room(struct committer *c, const struct spool_request *r, uint64_t bytes,
				int *error)
{
	struct segment_store *s = c->store;
	bool urgent = !stage_refusable(r);
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
			stage_retry_later(c, *error);
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
	/* The block in which the next batch begins is not known yet. */
	if (c->current != NULL && c->current->encoding) {
		return WAIT;
	}
	return find_room(c, r, bytes, error);
}

/*
 * A batch is written in whole blocks, so it begins with the block that holds its first byte. What
 * was committed in that block is written again as it is: whatever a torn write leaves of its
 * sectors, old or new, the committed bytes are the same.
 */
void batch_begin(struct committer *c, struct batch *b)
{
	struct segment *g = c->store->active;

	b->segment = g;
	b->start = g->end;
	b->offset = segment_block_floor(g->end);
	b->filled = (uint32_t)(g->end - b->offset);
	memcpy(b->lead, c->tail, b->filled);
	memcpy(b->buffer, b->lead, b->filled);
	b->has_header = g->fresh;
	if (g->fresh) {
		ASSERT(g->end == SEGMENT_BLOCK);
		segment_encode_header(g, c->store->writer, SEGMENT_DISK_OPEN, b->buffer);
		b->offset = 0;
		b->filled = SEGMENT_BLOCK;
		g->fresh = false;
	}
	g->batches++;
}

void batch_pad(struct committer *c, struct batch *b)
{
	uint32_t end = (uint32_t)segment_block_floor(b->filled);

	b->padded = (uint32_t)segment_block_ceil(b->filled);
	ASSERT(b->padded <= COMMIT_STAGING && (!b->encoding || end == b->filled));
	memset(b->buffer + b->filled, 0, b->padded - b->filled);
	if (!b->encoding) {
		memcpy(c->tail, b->buffer + end, b->filled - end);
	}
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

static void encode_state(struct record_encoder *e, const struct record_header *h,
			 const struct spool_request *r)
{
	char text[RECORD_TEXT_MAX];
	struct record_state state = {
		.stamp = h->sequence,
		.due_ms = r->due_ms,
		.pending = {r->pending.bits[0], r->pending.bits[1]},
		.attempts = r->attempts,
		.text_bytes = make_text(r, text),
		.flags = (r->delay_told ? RECORD_DELAY_TOLD : 0U) | (r->held ? RECORD_HELD : 0U) |
			 (r->domain != NULL ? RECORD_ROUTED : 0U),
	};

	record_encode_state(e, h, &state, text);
}

static void encode(struct committer *c, struct record_encoder *e, struct spool_request *r)
{
	struct record_header h = header_for(c, r);

	switch (r->verb) {
	case SPOOL_STORE:
		h.type = RECORD_MESSAGE;
		h.id = message_envelope(r->message)->id;
		h.delivery = message_envelope(r->message)->delivery_count;
		record_encode_message(e, &h, message_envelope(r->message),
				      message_body(r->message));
		return;
	case SPOOL_STATE:
		h.type = RECORD_STATE;
		h.id = r->entry->id;
		encode_state(e, &h, r);
		return;
	case SPOOL_COPY:
		record_encode_copy(e, &h, stage_copy(r)->record);
		return;
	case SPOOL_TOMB:
		h.type = RECORD_DONE;
		h.id = stage_tomb(r)->id;
		h.delivery = stage_tomb(r)->first;
		h.count = stage_tomb(r)->count;
		r->target =
			stage_tomb(r)->target != NULL ? stage_tomb(r)->target->id : RECORD_ANYWHERE;
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
void batch_fill(struct batch *b)
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
	b->needs_sync |= stage_needs_sync(r);
	r->progress = b->segment->end;
	encode(c, &b->encoder, r);
	b->segment->end += b->encoder.size;
	if (b->segment->prepared < b->segment->end) {
		b->segment->prepared = segment_block_ceil(b->segment->end);
	}
	b->segment->placed++;
	b->records++;
	b->bytes += b->encoder.size;
	queue_push(&b->requests, r);
	batch_fill(b);
}

int stage_work(struct committer *c)
{
	struct request_queue *q = &c->store->queue;
	int work = 0;

	while (q->head != NULL && !c->next->closed && c->retry_ms == 0) {
		struct spool_request *r = q->head;
		int error;
		enum admission what = admit(c, r, stage_record_bytes(r), &error);

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
			stage_refuse(c, r, error);
		} else {
			stage_answer(c, r, 0);
		}
	}
	return work;
}
