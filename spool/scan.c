#include "spool/scan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/runtime/check.h"
#include "spool/record.h"

#define WINDOW_BYTES (1024U * 1024)

/* A part of the file in memory. */
SINGLE
struct window {
	const struct segment *segment;
	unsigned char *data;
	uint64_t offset;
	size_t len;
	int error;
};

/* The bytes at `offset`: up to `*len`, at least one; NULL at the end of the file or on an error. */
static const unsigned char *window_at(struct window *w, uint64_t offset, size_t want, size_t *len)
{
	ssize_t n;

	if (offset < w->offset || offset + want > w->offset + w->len) {
		do {
			n = pread(w->segment->fd, w->data, WINDOW_BYTES, (off_t)offset);
		} while (n < 0 && errno == EINTR);
		if (n < 0) {
			w->error = -errno;
		}
		w->offset = offset;
		w->len = n > 0 ? (size_t)n : 0;
	}
	*len = (size_t)(w->offset + w->len - offset);
	return *len >= want ? w->data + (offset - w->offset) : NULL;
}

/* Is the record whose header is `h` at `offset` whole? `head` gets what its index entry needs. */
static bool record_whole(struct window *w, const struct record_header *h, uint64_t offset,
			 unsigned char head[sizeof(struct record_state)])
{
	uint64_t end = offset + sizeof(*h) + h->length;
	uint64_t at = offset + sizeof(*h);
	struct record_check check;

	memset(head, 0, sizeof(struct record_state));
	record_check_begin(&check, h);
	while (at < end) {
		size_t len;
		const unsigned char *data = window_at(w, at, 1, &len);

		if (data == NULL) {
			return false;
		}
		for (size_t i = 0;
		     i < len && at + i < offset + sizeof(*h) + sizeof(struct record_state); i++) {
			head[at - offset - sizeof(*h) + i] = data[i];
		}
		at += record_check_feed(&check, data, len);
	}
	return record_check_ok(&check);
}

/* Is the head whole, so that the length can be trusted? */
static bool head_whole(struct window *w, const struct record_header *h, uint64_t offset)
{
	size_t len;
	const unsigned char *data = window_at(w, offset + sizeof(*h), h->head_bytes, &len);

	return data != NULL && record_head_ok(h, data);
}

struct scan {
	struct segment *segment;
	struct pool *chunks;
	struct window window;
	struct scan_result *result;
	uint64_t limit;
	bool search;
	/* After something unreadable; counted once the next record is found. */
	bool lost;
};

enum scan_step { SCAN_RECORD, SCAN_SKIP, SCAN_NOTHING, SCAN_END };

/* Looks at one place; with SCAN_RECORD and SCAN_SKIP `*bytes` is what to go on by. */
static enum scan_step look(struct scan *x, uint64_t at, uint64_t *bytes)
{
	struct segment *s = x->segment;
	unsigned char head[sizeof(struct record_state)];
	struct record_header h;
	struct index_record r;
	size_t len;
	const unsigned char *data = window_at(&x->window, at, sizeof(h), &len);

	if (data == NULL) {
		return SCAN_END;
	}
	memcpy(&h, data, sizeof(h));
	if (!record_plausible(&h, s->id, s->generation, x->limit - at) ||
	    h.sequence <= x->result->sequence) {
		return SCAN_NOTHING;
	}
	*bytes = record_bytes(h.length);
	if (h.type == RECORD_INDEX) {
		return head_whole(&x->window, &h, at) ? SCAN_END : SCAN_NOTHING;
	}
	if (!record_whole(&x->window, &h, at, head)) {
		return h.head_bytes <= WINDOW_BYTES && head_whole(&x->window, &h, at)
			       ? SCAN_SKIP
			       : SCAN_NOTHING;
	}
	x->result->sequence = h.sequence;
	r = record_describe(&h, (uint32_t)(at / RECORD_ALIGN), head);
	segment_index_add(s, x->chunks, &r);
	return SCAN_RECORD;
}

/* What the unfinished record at the end claims to be. */
static uint64_t torn_at(struct scan *x, uint64_t at)
{
	struct record_header h;
	size_t len;
	const unsigned char *data = window_at(&x->window, at, sizeof(h), &len);

	if (data == NULL) {
		return 0;
	}
	memcpy(&h, data, sizeof(h));
	if (h.magic != RECORD_MAGIC || h.segment != x->segment->id ||
	    h.generation != x->segment->generation || h.sequence <= x->result->sequence) {
		return 0;
	}
	return record_bytes(h.length) < x->limit - at ? record_bytes(h.length) : x->limit - at;
}

static void scan_records(struct scan *x)
{
	struct segment *s = x->segment;
	uint64_t at = SEGMENT_BLOCK;
	uint64_t bytes = 0;

	s->end = at;
	while (at + sizeof(struct record_header) <= x->limit) {
		enum scan_step step = look(x, at, &bytes);

		if (step == SCAN_RECORD) {
			x->result->damaged += x->lost;
			x->lost = false;
			at += bytes;
			s->end = at;
		} else if (step == SCAN_SKIP) {
			x->lost = true;
			at += bytes;
		} else if (step == SCAN_NOTHING && x->search) {
			x->lost = true;
			at += RECORD_ALIGN;
		} else {
			break;
		}
	}
	if (x->lost && x->search) {
		x->result->damaged++;
	} else {
		x->result->torn_bytes += torn_at(x, s->end);
	}
}

int scan_segment(struct segment *s, struct pool *chunks, uint64_t limit, bool search,
		 struct scan_result *result)
{
	struct scan x = {
		.segment = s,
		.chunks = chunks,
		.window = {.segment = s, .data = malloc(WINDOW_BYTES)},
		.result = result,
		.limit = limit,
		.search = search,
	};

	ASSERT(s->index_count == 0 && s->chunks == NULL);
	if (x.window.data == NULL) {
		fatal("spool: out of memory");
	}
	memset(result, 0, sizeof(*result));
	scan_records(&x);
	free(x.window.data);
	s->placed = s->index_count;
	return x.window.error;
}

int scan_generation(const struct segment *s, uint32_t *generation)
{
	struct record_header h;
	int rc = segment_read(s, SEGMENT_BLOCK, &h, sizeof(h));

	if (rc != 0) {
		return rc == -ENODATA ? 0 : rc;
	}
	if (h.generation == 0 ||
	    !record_plausible(&h, s->id, h.generation, s->size - SEGMENT_BLOCK)) {
		return 0;
	}
	*generation = h.generation;
	return 1;
}
