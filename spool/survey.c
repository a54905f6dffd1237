#include "spool/survey.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "spool/store.h"

/* Read at once, where records are short; and where they are long and only their beginnings count.
 */
#define WINDOW_BYTES (256U * 1024)
#define HEAD_BYTES 4096U
/* From here on records are long. */
#define LONG_BYTES (3U * HEAD_BYTES)

/* ---- on the writer's agent ---- */

static bool wanted(const struct segment *g)
{
	return g != NULL && g->live_messages > 0 && g->end > SEGMENT_BLOCK;
}

static void on_open(struct agent *self, void *object, uint64_t value)
{
	struct survey *v = object;
	struct segment_store *s = spool_store(v->spool, v->writer);

	(void)value;
	ASSERT(s->agent == self);
	v->segments = check_memory(calloc(s->slot_count + 1, sizeof(*v->segments)), "the spool");
	for (uint32_t i = 0; i < s->slot_count; i++) {
		struct segment *g = s->segments[i];

		if (wanted(g)) {
			g->pins++;
			v->segments[v->count++] = (struct survey_segment){g, g->end};
		}
	}
	agent_send(self, v->from, v->on_done, v, 0);
}

static void on_close(struct agent *self, void *object, uint64_t value)
{
	struct survey *v = object;

	(void)value;
	for (uint32_t i = 0; i < v->count; i++) {
		v->segments[i].segment->pins--;
	}
	spool_store(v->spool, v->writer)->changes++;
	free(v->segments);
	free(v->data);
	v->segments = NULL;
	v->data = NULL;
	agent_send(self, v->from, v->on_done, v, 0);
}

/* ---- reading ---- */

static void make_room(struct survey *v, size_t size)
{
	if (size <= v->size) {
		return;
	}
	free(v->data);
	v->data = check_memory(malloc(size), "the spool");
	v->size = size;
}

/* `need` bytes of the segment from v->offset on; NULL: it has not so many, or cannot be read. */
static const unsigned char *at_hand(struct survey *v, size_t need)
{
	const struct survey_segment *g = &v->segments[v->at];
	uint64_t room = g->end - v->offset;
	size_t len = v->record_bytes >= LONG_BYTES ? HEAD_BYTES : WINDOW_BYTES;

	if (v->offset >= v->start && v->offset + need <= v->start + v->len) {
		return v->data + (v->offset - v->start);
	}
	len = len < need ? need : len;
	len = len > room ? (size_t)room : len;
	v->len = 0;
	if (len < need) {
		return NULL;
	}
	make_room(v, len);
	if (segment_read(g->segment, v->offset, v->data, len) != 0) {
		v->unread++;
		return NULL;
	}
	v->start = v->offset;
	v->len = len;
	v->bytes_read += len;
	return v->data;
}

static void next_segment(struct survey *v)
{
	v->at++;
	v->offset = SEGMENT_BLOCK;
	v->len = 0;
	v->record_bytes = 0;
}

static bool envelope_whole(const struct record_header *h, const unsigned char *head)
{
	const struct envelope *e = (const struct envelope *)(const void *)head;

	return record_head_ok(h, head) && envelope_check(e, h->head_bytes) == 0 &&
	       e->size == h->head_bytes && e->delivery_count == h->delivery;
}

/* The message whose record begins at v->offset. False: it is not whole. */
static bool take_message(struct survey *v, const struct record_header *h, survey_fn each,
			 void *context)
{
	uint64_t body = (uint64_t)h->length - h->head_bytes - RECORD_TRAILER;
	size_t body_len = body < v->body_bytes ? (size_t)body : v->body_bytes;
	const unsigned char *data = at_hand(v, sizeof(*h) + h->head_bytes + body_len);

	if (data == NULL || !envelope_whole(h, data + sizeof(*h))) {
		return false;
	}
	v->messages++;
	each(context, (const struct envelope *)(const void *)(data + sizeof(*h)),
	     (const char *)data + sizeof(*h) + h->head_bytes, body_len);
	return true;
}

/* Looks at what is at v->offset. Returns how far to go on; 0: the segment has no more. What is no
 * record is searched for the next one, as at a start. */
static uint64_t look(struct survey *v, survey_fn each, void *context)
{
	const struct survey_segment *g = &v->segments[v->at];
	const unsigned char *data;
	struct record_header h;

	if (g->end - v->offset < sizeof(h) || (data = at_hand(v, sizeof(h))) == NULL) {
		return 0;
	}
	memcpy(&h, data, sizeof(h));
	if (!record_plausible(&h, g->segment->id, g->segment->generation, g->end - v->offset)) {
		v->damaged += v->record_bytes != RECORD_ALIGN;
		v->record_bytes = RECORD_ALIGN;
		return RECORD_ALIGN;
	}
	if (h.type == RECORD_MESSAGE && !take_message(v, &h, each, context)) {
		v->damaged++;
		v->record_bytes = RECORD_ALIGN;
		return RECORD_ALIGN;
	}
	v->record_bytes = record_bytes(h.length);
	return v->record_bytes;
}

bool survey_read(struct survey *v, uint64_t bytes, survey_fn each, void *context)
{
	uint64_t end = v->bytes_read + bytes;
	uint64_t passed = 0;

	while (v->at < v->count) {
		uint64_t unread = v->unread;
		uint64_t step = look(v, each, context);

		if (step == 0 || v->unread != unread) {
			next_segment(v);
			continue;
		}
		v->offset += step;
		passed += step;
		if (v->bytes_read >= end || passed >= 8 * bytes) {
			return true;
		}
	}
	return false;
}

/* ---- on the agent that asks ---- */

static void ask(struct survey *v, struct agent *self, task_fn what)
{
	agent_send(self, spool_store(v->spool, v->writer)->agent, what, v, 0);
}

void survey_open(struct survey *v, struct spool *s, uint32_t writer, uint32_t body_bytes,
		 struct agent *self, task_fn on_done, void *owner)
{
	*v = (struct survey){.from = self,
			     .on_done = on_done,
			     .owner = owner,
			     .spool = s,
			     .writer = writer,
			     .body_bytes = body_bytes,
			     .offset = SEGMENT_BLOCK};
	ask(v, self, on_open);
}

void survey_close(struct survey *v, struct agent *self, task_fn on_done)
{
	v->on_done = on_done;
	ask(v, self, on_close);
}
