#include "spool/load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

static void on_read(struct mux_op *op, int result);

void load_init(struct loader *l, struct segment_store *store, struct agent *agent,
	       struct mail_pools *pools)
{
	memset(l, 0, sizeof(*l));
	l->store = store;
	l->agent = agent;
	l->pools = pools;
	for (unsigned i = 0; i < LOAD_SLOTS; i++) {
		struct load_slot *slot = &l->slots[i];

		slot->loader = l;
		slot->buffer = check_memory(malloc(LOAD_PIECE), "the spool");
		mux_op_init(&slot->op, agent, on_read);
	}
}

void load_close(struct loader *l)
{
	for (unsigned i = 0; i < LOAD_SLOTS; i++) {
		free(l->slots[i].buffer);
	}
}

/* Most envelopes are shorter. */
#define ENVELOPE_PIECE 4096U

static uint32_t piece_bytes(const struct load_slot *slot)
{
	uint32_t most = slot->request->envelope_only ? ENVELOPE_PIECE : LOAD_PIECE;

	return slot->remaining < most ? (uint32_t)slot->remaining : most;
}

static void read_more(struct load_slot *slot)
{
	mux_read(slot->loader->agent->mux, &slot->op, slot->segment->fd, slot->buffer + slot->have,
		 piece_bytes(slot) - slot->have, slot->offset + slot->have);
}

static void answer(struct loader *l, struct spool_request *r, int result)
{
	r->result = result;
	agent_send(l->agent, r->from, r->on_done, r, 0);
}

/* The envelope has been read, and is what was written. */
static bool envelope_whole(const struct load_slot *slot)
{
	const struct record_check *check = &slot->check;
	const struct envelope *e;

	if (!slot->started || !record_check_head_ok(check)) {
		return false;
	}
	e = content_envelope(slot->request->content);
	return envelope_check(e, check->header.head_bytes) == 0 &&
	       e->size == check->header.head_bytes;
}

/* What remains when the message cannot be read: the envelope, or nothing. */
static void save_envelope(struct load_slot *slot)
{
	struct loader *l = slot->loader;
	struct spool_request *r = slot->request;

	if (envelope_whole(slot)) {
		chain_release(&r->content->body, &l->pools->buffers);
	} else {
		content_release(r->content, l->pools);
		r->content = NULL;
	}
}

static void finish(struct load_slot *slot, int result)
{
	struct loader *l = slot->loader;
	struct spool_request *r = slot->request;

	if (result != 0) {
		save_envelope(slot);
		counter_inc(l->store->stats.load_errors);
		agent_error(l->agent, result, "spool: a message in segment %08x cannot be read",
			    slot->segment->id);
	}
	counter_inc(l->store->stats.loads);
	slot->segment->pins--;
	l->store->changes++;
	slot->request = NULL;
	l->busy--;
	answer(l, r, result);
}

/* Is this the record that was asked for? */
static bool begin(struct load_slot *slot)
{
	struct spool_request *r = slot->request;
	const struct segment *g = slot->segment;
	struct record_header h;

	if (slot->have < sizeof(h)) {
		return false;
	}
	memcpy(&h, slot->buffer, sizeof(h));
	if (!record_plausible(&h, g->id, g->generation, slot->bytes) || h.type != RECORD_MESSAGE ||
	    memcmp(&h.id, &r->id, sizeof(h.id)) != 0) {
		return false;
	}
	record_check_begin(&slot->check, &h);
	r->content = content_create(slot->loader->pools, h.head_bytes);
	slot->started = true;
	return true;
}

/* Takes what of the piece, which begins `at` bytes into the record, belongs to envelope and body.
 */
static void take_content(struct load_slot *slot, uint64_t at, const unsigned char *data, size_t len)
{
	const struct record_header *h = &slot->check.header;
	struct content *content = slot->request->content;
	uint64_t body = sizeof(*h) + h->head_bytes;
	uint64_t end = sizeof(*h) + h->length - RECORD_TRAILER;
	uint64_t from = body > at ? body : at;
	uint64_t to = end < at + len ? end : at + len;

	if (at < body) {
		memcpy(content->envelope + (at - sizeof(*h)), data,
		       (size_t)(at + len < body ? len : body - at));
	}
	if (from < to && !slot->request->envelope_only) {
		chain_append(&content->body, &slot->loader->pools->buffers, data + (from - at),
			     (size_t)(to - from));
	}
}

static void take_piece(struct load_slot *slot)
{
	const unsigned char *data = slot->buffer;
	size_t len = slot->have;
	uint64_t at;

	if (!slot->started) {
		if (!begin(slot)) {
			finish(slot, -EIO);
			return;
		}
		data += sizeof(struct record_header);
		len -= sizeof(struct record_header);
	}
	at = slot->check.position;
	take_content(slot, at, data, record_check_feed(&slot->check, data, len));
	slot->offset += slot->have;
	slot->remaining -= slot->have;
	slot->have = 0;
	if (slot->request->envelope_only &&
	    slot->check.position >= sizeof(struct record_header) + slot->check.header.head_bytes) {
		finish(slot, envelope_whole(slot) ? 0 : -EIO);
	} else if (slot->remaining > 0) {
		read_more(slot);
	} else if (!record_check_ok(&slot->check) || !envelope_whole(slot)) {
		counter_inc(slot->loader->store->stats.damaged);
		finish(slot, -EIO);
	} else {
		finish(slot, 0);
	}
}

static void on_read(struct mux_op *op, int result)
{
	struct load_slot *slot = CONTAINER_OF(op, struct load_slot, op);

	if (result == -EINTR || result == -EAGAIN) {
		read_more(slot);
		return;
	}
	if (result <= 0) {
		finish(slot, result == 0 ? -EIO : result);
		return;
	}
	slot->have += (uint32_t)result;
	if (slot->have < piece_bytes(slot)) {
		read_more(slot);
	} else {
		take_piece(slot);
	}
}

static void start(struct load_slot *slot, struct spool_request *r, const struct spool_entry *e)
{
	slot->request = r;
	slot->segment = e->segment;
	slot->segment->pins++;
	slot->offset = (uint64_t)e->place * RECORD_ALIGN;
	slot->bytes = (uint64_t)e->units * RECORD_ALIGN;
	slot->remaining = slot->bytes;
	slot->have = 0;
	slot->started = false;
	slot->loader->busy++;
	read_more(slot);
}

/* Who asks may be late: all deliveries of the message are over, and its entry is gone. */
static void begin_next(struct load_slot *slot)
{
	struct segment_store *s = slot->loader->store;
	struct spool_request *r = queue_pop(&s->loads);
	const struct spool_entry *e = index_find(&s->index, &r->id);

	r->content = NULL;
	if (e != NULL) {
		start(slot, r, e);
	} else {
		answer(slot->loader, r, -ENOENT);
	}
}

int load_work(struct loader *l)
{
	int work = 0;

	for (unsigned i = 0; i < LOAD_SLOTS && l->store->loads.count > 0; i++) {
		if (l->slots[i].request == NULL) {
			begin_next(&l->slots[i]);
			work++;
		}
	}
	return work;
}
