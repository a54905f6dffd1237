#include "tools/spool_view.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

static int compare_segments(const void *a, const void *b)
{
	const struct segment *x = *(struct segment *const *)a;
	const struct segment *y = *(struct segment *const *)b;

	return x->id < y->id ? -1 : x->id > y->id;
}

static void sort_segments(struct spool_view *v)
{
	const struct segment_store *s = v->store;

	v->segments = malloc((s->slot_count + 1) * sizeof(struct segment *));
	if (v->segments == NULL) {
		fatal("out of memory");
	}
	for (uint32_t i = 0; i < s->slot_count; i++) {
		if (s->segments[i] != NULL) {
			v->segments[v->segment_count++] = s->segments[i];
		}
	}
	qsort(v->segments, v->segment_count, sizeof(struct segment *), compare_segments);
}

int spool_view_open(struct spool_view *v, const char *path)
{
	struct spool_options options = {
		.path = path,
		.writers = 1,
		.segment_bytes = UINT64_C(1) << 28,
		.read_only = true,
	};

	memset(v, 0, sizeof(*v));
	v->spool = spool_open(&options, stderr, &v->found);
	if (v->spool == NULL) {
		return -1;
	}
	v->store = spool_store(v->spool, 0);
	sort_segments(v);
	return 0;
}

void spool_view_close(struct spool_view *v)
{
	free(v->segments);
	spool_close(v->spool);
}

struct segment *spool_view_segment(const struct spool_view *v, const char *text)
{
	uint32_t id;

	if (!segment_name_parse(text, &id)) {
		char *end;
		unsigned long n = strtoul(text, &end, 16);

		if (!isxdigit((unsigned char)text[0]) || *end != '\0' || n > UINT32_MAX) {
			return NULL;
		}
		id = (uint32_t)n;
	}
	for (uint32_t i = 0; i < v->segment_count; i++) {
		if (v->segments[i]->id == id) {
			return v->segments[i];
		}
	}
	return NULL;
}

int spool_view_records(const struct segment *g, struct index_record **records, uint32_t *count)
{
	uint64_t sequence;

	*count = 0;
	if (g->state == SEGMENT_SEALED) {
		return segment_read_index(g, records, count, &sequence);
	}
	*records = malloc((g->index_count + 1) * sizeof(**records));
	if (*records == NULL) {
		fatal("out of memory");
	}
	for (const struct index_chunk *c = g->chunks; c != NULL; c = c->next) {
		memcpy(*records + *count, c->records, c->count * sizeof(c->records[0]));
		*count += c->count;
	}
	return 0;
}

bool spool_view_live(const struct spool_view *v, const struct segment *g,
		     const struct index_record *r)
{
	const struct spool_entry *e = index_find(&v->store->index, &r->id);
	const struct entry_delivery *d;

	if (e == NULL) {
		return false;
	}
	if (r->type == RECORD_MESSAGE) {
		return e->segment == g && e->place == r->place;
	}
	if (r->type != RECORD_STATE || e->deliveries == NULL || r->delivery >= e->delivery_count) {
		return false;
	}
	d = &e->deliveries[r->delivery];
	return !d->done && d->segment == g && d->place == r->place;
}

struct index_record spool_view_describe(const struct spool_entry *e)
{
	return (struct index_record){
		.id = e->id,
		.sequence = e->sequence,
		.place = e->place,
		.units = e->units,
		.delivery = e->delivery_count,
		.type = RECORD_MESSAGE,
	};
}

/* A block after the other, so that one bad sector costs no more than what is in it. */
static int read_blocks(const struct segment *g, uint64_t offset, unsigned char *to, uint64_t len)
{
	uint64_t end = offset + len;
	int error = segment_read(g, offset, to, (size_t)len);

	if (error == 0) {
		return 0;
	}
	while (offset < end) {
		uint64_t next = segment_block_floor(offset) + SEGMENT_BLOCK;
		size_t n = (size_t)((next < end ? next : end) - offset);

		if (segment_read(g, offset, to, n) != 0) {
			memset(to, 0, n);
		}
		to += n;
		offset += n;
	}
	return error;
}

/* Is this the record that the index speaks of? */
static bool is_described(const struct segment *g, const struct index_record *r,
			 const struct spool_piece *p)
{
	const struct record_header *h = &p->header;

	return p->len >= sizeof(*h) && record_plausible(h, g->id, g->generation, p->len) &&
	       h->type == r->type && h->delivery == r->delivery &&
	       memcmp(&h->id, &r->id, sizeof(h->id)) == 0;
}

static bool envelope_right(const struct spool_piece *p)
{
	const struct envelope *e = spool_piece_envelope(p);

	return p->header.type != RECORD_MESSAGE ||
	       (envelope_check(e, p->header.head_bytes) == 0 && e->size == p->header.head_bytes &&
		e->delivery_count == p->header.delivery);
}

static enum piece_state judge(const struct segment *g, const struct index_record *r,
			      const struct spool_piece *p)
{
	struct record_check check;

	if (!is_described(g, r, p) || p->header.head_bytes > p->len - sizeof(p->header)) {
		return PIECE_DAMAGED;
	}
	record_check_begin(&check, &p->header);
	record_check_feed(&check, p->data + sizeof(p->header),
			  (size_t)(p->len - sizeof(p->header)));
	if (!record_check_head_ok(&check) || !envelope_right(p)) {
		return PIECE_DAMAGED;
	}
	return record_check_ok(&check) ? PIECE_WHOLE : PIECE_BODY_DAMAGED;
}

void spool_view_read(const struct segment *g, const struct index_record *r,
		     struct spool_piece *piece)
{
	uint64_t units =
		r->type == RECORD_DONE ? record_bytes(RECORD_DONE_HEAD) / RECORD_ALIGN : r->units;

	memset(piece, 0, sizeof(*piece));
	piece->len = units * RECORD_ALIGN;
	piece->data = calloc(1, (size_t)piece->len + sizeof(piece->header));
	if (piece->data == NULL) {
		fatal("out of memory");
	}
	piece->error = read_blocks(g, (uint64_t)r->place * RECORD_ALIGN, piece->data, piece->len);
	memcpy(&piece->header, piece->data, sizeof(piece->header));
	piece->state = judge(g, r, piece);
}

void spool_piece_release(struct spool_piece *piece)
{
	free(piece->data);
	piece->data = NULL;
}
