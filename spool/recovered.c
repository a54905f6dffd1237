/*
 * Hands out what the last run of the program left: a delivery at a time, in order of reception.
 * Each message's envelope is read when its turn comes, for the way home, with those of its
 * neighbours; both envelope and body are read when somebody asks for them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "spool/store.h"

/* Read at once: most envelopes are shorter. */
#define HEAD_BYTES 512U
/* What a read failed for is tried again after so long. */
#define READ_AGAIN_MS 10000U
/* Entries lie anywhere in memory: they are asked for so many messages ahead. */
#define LOOK_AHEAD 8U
/* Messages whose records are read together where they lie together. In order of reception they do,
 * but for as many as there were sessions at a time. */
#define READ_AHEAD 256U

static void damaged(struct segment_store *s, const struct segment *g, int error)
{
	counter_inc(s->stats.damaged);
	agent_error(s->agent, error, "spool: a damaged record in segment %08x: not delivered",
		    g->id);
}

/* What is read is right, or it is damaged for good; a read that fails says nothing of that. */
static bool may_pass(int error)
{
	return error != 0 && error != -EBADMSG && error != -ENODATA;
}

/* ---- what is read ahead ---- */

static struct span_want want_head(const struct spool_entry *e)
{
	uint64_t bytes = (uint64_t)e->units * RECORD_ALIGN;

	return (struct span_want){
		.segment = e->segment,
		.offset = (uint64_t)e->place * RECORD_ALIGN,
		.len = bytes < HEAD_BYTES ? (size_t)bytes : HEAD_BYTES,
	};
}

static struct span_want want_state(const struct entry_delivery *d)
{
	return (struct span_want){
		.segment = d->segment,
		.offset = (uint64_t)d->place * RECORD_ALIGN,
		.len = (size_t)d->units * RECORD_ALIGN,
	};
}

/* The first delivery from `i` on that is not over; delivery_count: none. */
static uint32_t next_pending(const struct spool_entry *e, uint32_t i)
{
	while (i < e->delivery_count && e->deliveries != NULL && e->deliveries[i].done) {
		i++;
	}
	return i;
}

/* Each message is looked at once, however much or little of what it needs lies with what its
 * neighbours need. */
static void read_ahead(struct recovered_list *list)
{
	struct span_want heads[READ_AHEAD] = {0};
	struct span_want states[READ_AHEAD] = {0};
	uint64_t left = list->count - list->at;
	unsigned count = left < READ_AHEAD ? (unsigned)left : READ_AHEAD;
	unsigned state_count = 0;

	for (unsigned n = 0; n < count; n++) {
		const struct recovered_message *r = &list->messages[list->at + n];
		const struct spool_entry *e = r->entry;
		uint32_t i = next_pending(e, r->delivery);

		if (n + LOOK_AHEAD < left) {
			__builtin_prefetch(r[LOOK_AHEAD].entry);
		}
		heads[n] = want_head(e);
		if (e->deliveries != NULL && e->deliveries[i].segment != NULL) {
			states[state_count++] = want_state(&e->deliveries[i]);
		}
	}
	span_read(&list->heads, heads, count);
	span_read(&list->states, states, state_count);
	list->ahead = list->at + count;
}

/* ---- messages ---- */

/* Takes the envelope from the message's record, which begins with `have` bytes at `data`. 0 or a
 * negative errno. */
static int take_envelope(const struct spool_entry *e, const unsigned char *data, size_t have,
			 struct mail_pools *pools, struct message **out)
{
	uint64_t offset = (uint64_t)e->place * RECORD_ALIGN;
	uint64_t bytes = (uint64_t)e->units * RECORD_ALIGN;
	struct record_header h;
	struct message *m;
	size_t first;
	int rc;

	memcpy(&h, data, sizeof(h));
	if (!record_plausible(&h, e->segment->id, e->segment->generation, bytes) ||
	    h.type != RECORD_MESSAGE || h.delivery != e->delivery_count ||
	    memcmp(&h.id, &e->id, sizeof(h.id)) != 0) {
		return -EBADMSG;
	}
	m = message_create(pools, h.head_bytes);
	first = have - sizeof(h) < h.head_bytes ? have - sizeof(h) : h.head_bytes;
	memcpy(m->content->envelope, data + sizeof(h), first);
	rc = segment_read(e->segment, offset + sizeof(h) + first, m->content->envelope + first,
			  h.head_bytes - first);
	if (rc == 0 && (!record_head_ok(&h, m->content->envelope) ||
			envelope_check(message_envelope(m), h.head_bytes) != 0 ||
			message_envelope(m)->size != h.head_bytes ||
			message_envelope(m)->delivery_count != h.delivery)) {
		rc = -EBADMSG;
	}
	if (rc != 0) {
		message_release(m, pools);
		return rc;
	}
	*out = m;
	return 0;
}

/* Reads the message's envelope. 0 or a negative errno. */
static int read_envelope(const struct recovered_list *list, const struct spool_entry *e,
			 struct mail_pools *pools, struct message **out)
{
	struct span_want want = want_head(e);
	const unsigned char *ahead = span_find(&list->heads, &want);
	unsigned char buffer[HEAD_BYTES];
	int rc;

	if (want.len < sizeof(struct record_header)) {
		return -EBADMSG;
	}
	if (ahead != NULL && take_envelope(e, ahead, want.len, pools, out) == 0) {
		return 0;
	}
	rc = segment_read(want.segment, want.offset, buffer, want.len);
	return rc != 0 ? rc : take_envelope(e, buffer, want.len, pools, out);
}

/* Takes a delivery's state from its record. 0 or -EBADMSG. */
static int take_state(const struct spool_entry *e, uint32_t delivery, const unsigned char *data,
		      struct record_state *state, char text[RECORD_TEXT_MAX + 1])
{
	const struct entry_delivery *at = &e->deliveries[delivery];
	struct record_header h;

	memcpy(&h, data, sizeof(h));
	memcpy(state, data + sizeof(h), sizeof(*state));
	if (!record_plausible(&h, at->segment->id, at->segment->generation,
			      (uint64_t)at->units * RECORD_ALIGN) ||
	    h.type != RECORD_STATE || h.delivery != delivery ||
	    memcmp(&h.id, &e->id, sizeof(h.id)) != 0 || !record_head_ok(&h, data + sizeof(h)) ||
	    h.head_bytes != sizeof(*state) + state->text_bytes ||
	    state->text_bytes > RECORD_TEXT_MAX) {
		return -EBADMSG;
	}
	memcpy(text, data + sizeof(h) + sizeof(*state), state->text_bytes);
	text[state->text_bytes] = '\0';
	return record_state_text_ok(state, text) ? 0 : -EBADMSG;
}

/* Reads the delivery's latest state. 0 or a negative errno; `text` ends with NUL. */
static int read_state(const struct recovered_list *list, const struct spool_entry *e,
		      uint32_t delivery, struct record_state *state, char text[RECORD_TEXT_MAX + 1])
{
	struct span_want want = want_state(&e->deliveries[delivery]);
	const unsigned char *ahead = span_find(&list->states, &want);
	unsigned char buffer[sizeof(struct record_header) + sizeof(*state) + RECORD_TEXT_MAX + 8];
	int rc;

	if (want.len < sizeof(struct record_header) + sizeof(*state) || want.len > sizeof(buffer)) {
		return -EBADMSG;
	}
	if (ahead != NULL && take_state(e, delivery, ahead, state, text) == 0) {
		return 0;
	}
	rc = segment_read(want.segment, want.offset, buffer, want.len);
	return rc != 0 ? rc : take_state(e, delivery, buffer, state, text);
}

/* What operators ordered, and why it was deferred. */
static void take_text(struct delivery *d, const struct record_state *state, const char *text)
{
	const char *end = text + state->text_bytes;

	d->held = (state->flags & RECORD_HELD) != 0;
	if ((state->flags & RECORD_ROUTED) != 0) {
		const char *domain = text + strlen(text) + 1;

		delivery_send_on(d, text, domain);
		text = domain + strlen(domain) + 1;
	}
	if (text < end) {
		free(d->last_text);
		d->last_text = strdup(text);
	}
}

/* With a damaged state it is tried again from the start, which is late or twice, but not lost. 0,
 * or the negative errno of a read that may succeed later. */
static int set_state(struct segment_store *s, const struct spool_entry *e, struct delivery *d)
{
	char text[RECORD_TEXT_MAX + 1];
	struct record_state state;
	struct recipient_set pending;
	int rc;

	if (e->deliveries == NULL || e->deliveries[d->index].segment == NULL) {
		return 0;
	}
	rc = read_state(&s->recovered, e, d->index, &state, text);
	if (may_pass(rc)) {
		return rc;
	}
	if (rc != 0) {
		damaged(s, e->deliveries[d->index].segment, rc);
		return 0;
	}
	for (unsigned i = 0; i < 2; i++) {
		pending.bits[i] = state.pending[i] & d->pending.bits[i];
	}
	if (!recipient_set_empty(&pending)) {
		d->pending = pending;
	}
	d->attempts = state.attempts;
	d->delay_told = (state.flags & RECORD_DELAY_TOLD) != 0;
	d->due_ms = state.due_ms;
	take_text(d, &state, text);
	return 0;
}

static void drop_message(struct recovered_list *list, struct mail_pools *pools)
{
	if (list->message != NULL) {
		message_give_up_content(list->message, pools);
		message_release(list->message, pools);
		list->message = NULL;
	}
}

/* The message last taken cannot be read now: its turn, from `delivery` on, comes again later. */
static void postpone(struct segment_store *s, const struct segment *g, uint32_t delivery, int error)
{
	struct recovered_list *list = &s->recovered;

	agent_error(s->agent, error,
		    "spool: segment %08x cannot be read: a message waits, and is tried again",
		    g->id);
	list->messages[list->again] = list->messages[list->at - 1];
	list->messages[list->again++].delivery = delivery;
	list->again_ms = agent_now_ms(s->agent) + READ_AGAIN_MS;
}

/* The next delivery of the message in hand; NULL when it cannot be read now. */
static struct delivery *next_delivery(struct segment_store *s, struct mail_pools *pools)
{
	struct recovered_list *list = &s->recovered;
	const struct spool_entry *e = list->entry;
	uint32_t i = list->delivery;
	struct delivery *d;
	int rc;

	message_hold(list->message, 1);
	d = delivery_create(pools, list->message, i);
	message_use_content(list->message, 1);
	d->uses_content = true;
	rc = set_state(s, e, d);
	if (rc != 0) {
		postpone(s, e->deliveries[i].segment, i, rc);
		delivery_destroy(d, pools);
		drop_message(list, pools);
		return NULL;
	}
	/* Of an entry whose last delivery has been handed out nothing is known any more. */
	list->delivery = next_pending(e, i + 1);
	if (list->delivery == e->delivery_count) {
		drop_message(list, pools);
	}
	return d;
}

static void take_message(struct segment_store *s, struct mail_pools *pools)
{
	struct recovered_list *list = &s->recovered;
	struct recovered_message *r;
	struct spool_entry *e;
	struct message *m;
	int rc;

	if (list->at == list->ahead) {
		read_ahead(list);
	}
	r = &list->messages[list->at++];
	e = r->entry;
	rc = read_envelope(list, e, pools, &m);
	if (may_pass(rc)) {
		postpone(s, e->segment, r->delivery, rc);
		return;
	}
	if (rc != 0) {
		damaged(s, e->segment, rc);
		return;
	}
	m->spool = e;
	m->writer = (uint8_t)s->writer;
	message_seal(m);
	message_use_content(m, 1);
	e->cached = message_envelope(m)->durability == ENVELOPE_CACHED;
	list->message = m;
	list->entry = e;
	list->delivery = next_pending(e, r->delivery);
	ASSERT(list->delivery < e->delivery_count);
}

/* The list has been gone through: those that could not be read come next, if it is time. */
static bool begin_again(struct segment_store *s)
{
	struct recovered_list *list = &s->recovered;

	if (list->again == 0) {
		span_drop(&list->heads);
		span_drop(&list->states);
		free(list->messages);
		*list = (struct recovered_list){0};
		return false;
	}
	if (agent_now_ms(s->agent) < list->again_ms) {
		return false;
	}
	list->count = list->again;
	list->again = 0;
	list->at = 0;
	list->ahead = 0;
	return true;
}

struct delivery *spool_next_recovered(struct spool *spool, uint32_t writer,
				      struct mail_pools *pools)
{
	struct segment_store *s = spool_store(spool, writer);
	struct recovered_list *list = &s->recovered;

	for (;;) {
		struct delivery *d = list->message != NULL ? next_delivery(s, pools) : NULL;

		if (d != NULL) {
			return d;
		}
		if (list->at == list->count && !begin_again(s)) {
			return NULL;
		}
		take_message(s, pools);
	}
}

bool spool_recovered_waits(struct spool *spool, uint32_t writer)
{
	return spool_store(spool, writer)->recovered.again > 0;
}

void store_drop_recovered(struct segment_store *s, struct mail_pools *pools)
{
	drop_message(&s->recovered, pools);
	s->recovered.at = s->recovered.count;
	s->recovered.again = 0;
}

void store_count_recovered(struct segment_store *s)
{
	const struct recovered_list *list = &s->recovered;

	counter_set_value(s->stats.recovery_left,
			  list->count - list->at + list->again + (list->message != NULL));
}
