#include "spool/apply.h"

#include "core/runtime/check.h"
#include "spool/account.h"
#include "spool/stage.h"

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
	d->units = (uint32_t)(record_bytes((uint32_t)(e->size + message_body(r->message)->len +
						      RECORD_TRAILER)) /
			      RECORD_ALIGN);
	r->message->spool =
		store_put_message(c->store, b->segment, d, e->durability == ENVELOPE_CACHED);
	r->message->writer = (uint8_t)c->store->writer;
}

/* A copy may come too late, because its message was over meanwhile. Compaction sees to it. */
static void apply_copy(struct committer *c, struct spool_request *r, struct batch *b,
		       struct index_record *d)
{
	struct spool_copy *copy = stage_copy(r);
	struct record_header h = stage_copied_header(r);
	struct spool_entry *e = index_find(&c->store->index, &h.id);

	copy->written = b->segment;
	copy->moved = stage_copy_live(c->store, copy);
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
	struct spool_tomb *t = stage_tomb(r);

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
void apply_record(struct committer *c, struct spool_request *r, struct batch *b)
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
		d.units = (uint32_t)(stage_record_bytes(r) / RECORD_ALIGN);
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
