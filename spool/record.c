#include "spool/record.h"

#include <errno.h>
#include <isa-l/crc.h>
#include <limits.h>
#include <string.h>

#include "core/runtime/check.h"

uint32_t record_crc(uint32_t crc, const void *data, size_t len)
{
	const unsigned char *at = data;
	uint32_t state = ~crc;

	while (len > 0) {
		size_t piece = len > INT_MAX ? INT_MAX : len;

		state = crc32_iscsi((unsigned char *)(uintptr_t)at, (int)piece, state);
		at += piece;
		len -= piece;
	}
	return ~state;
}

void segment_header_encode(unsigned char block[SEGMENT_BLOCK], const struct segment_header *h)
{
	struct segment_header out = *h;

	out.magic = SEGMENT_MAGIC;
	out.version = SPOOL_FORMAT_VERSION;
	out.crc = 0;
	out.unused = 0;
	out.crc = record_crc(0, &out, sizeof(out));
	memset(block, 0, SEGMENT_BLOCK);
	memcpy(block, &out, sizeof(out));
}

int segment_header_decode(const unsigned char block[SEGMENT_BLOCK], struct segment_header *h)
{
	static const struct segment_header zeros;
	struct segment_header copy;

	memcpy(h, block, sizeof(*h));
	if (memcmp(h, &zeros, sizeof(zeros)) == 0) {
		return -ENODATA;
	}
	if (h->magic != SEGMENT_MAGIC) {
		return -EBADMSG;
	}
	if (h->version > SPOOL_FORMAT_VERSION) {
		return -EPROTO;
	}
	copy = *h;
	copy.crc = 0;
	if (record_crc(0, &copy, sizeof(copy)) != h->crc || h->state < SEGMENT_DISK_FREE ||
	    h->state > SEGMENT_DISK_SEALED) {
		return -EBADMSG;
	}
	return 0;
}

static uint32_t header_crc(const struct record_header *h)
{
	struct record_header copy = *h;

	copy.crc = 0;
	return record_crc(0, &copy, sizeof(copy));
}

void record_seal(struct record_header *h, const void *head)
{
	h->crc = record_crc(header_crc(h), head, h->head_bytes);
}

bool record_head_ok(const struct record_header *h, const void *head)
{
	return h->crc == record_crc(header_crc(h), head, h->head_bytes);
}

bool record_state_text_ok(const struct record_state *state, const char *text)
{
	size_t binding;
	size_t domain;

	if ((state->flags & RECORD_ROUTED) == 0) {
		return true;
	}
	binding = strnlen(text, state->text_bytes);
	if (binding == 0 || binding > ENVELOPE_BINDING_MAX || binding + 1 >= state->text_bytes) {
		return false;
	}
	domain = strnlen(text + binding + 1, state->text_bytes - binding - 1);
	return domain > 0 && domain <= 255 && binding + 1 + domain < state->text_bytes;
}

/* Lengths that a record of this type can have. */
static bool lengths_ok(const struct record_header *h)
{
	switch (h->type) {
	case RECORD_MESSAGE:
		return h->head_bytes >= sizeof(struct envelope) && h->delivery > 0 &&
		       h->length >= h->head_bytes + (uint64_t)RECORD_TRAILER;
	case RECORD_STATE:
		return h->head_bytes >= sizeof(struct record_state) && h->length == h->head_bytes;
	case RECORD_DONE:
		return h->length == RECORD_DONE_HEAD && h->head_bytes == RECORD_DONE_HEAD;
	case RECORD_INDEX:
		return h->head_bytes == sizeof(struct record_index) && h->length >= h->head_bytes &&
		       (h->length - h->head_bytes) % sizeof(struct index_record) == 0;
	default:
		return false;
	}
}

bool record_plausible(const struct record_header *h, uint32_t segment, uint32_t generation,
		      uint64_t room)
{
	return h->magic == RECORD_MAGIC && h->segment == segment && h->generation == generation &&
	       lengths_ok(h) && record_bytes(h->length) <= room;
}

struct index_record record_describe(const struct record_header *h, uint32_t place, const void *head)
{
	struct index_record r = {
		.id = h->id,
		.sequence = h->sequence,
		.place = place,
		.units = (uint32_t)(record_bytes(h->length) / RECORD_ALIGN),
		.delivery = h->delivery,
		.type = h->type,
		.count = h->count,
	};

	if (h->type == RECORD_STATE) {
		memcpy(&r.sequence, (const char *)head + offsetof(struct record_state, stamp),
		       sizeof(r.sequence));
	} else if (h->type == RECORD_DONE) {
		memcpy(&r.units, head, sizeof(r.units));
	}
	return r;
}

/* A body's CRC starts from whose body it is: an older body of the same length, left in a recycled
 * file by another message, must not pass for this one's. */
static uint32_t body_crc_start(const struct record_header *h)
{
	return record_crc(0, &h->id, sizeof(h->id));
}

static void encode_begin(struct record_encoder *e, const struct record_header *header,
			 uint64_t length, uint32_t head_bytes, const void *head)
{
	ASSERT(length <= UINT32_MAX);
	e->header = *header;
	e->header.magic = RECORD_MAGIC;
	e->header.length = (uint32_t)length;
	e->header.head_bytes = head_bytes;
	e->header.unused = 0;
	e->head = head;
	e->body = NULL;
	e->body_at = 0;
	e->flat = NULL;
	e->body_crc = body_crc_start(header);
	e->position = 0;
	e->size = record_bytes(e->header.length);
	record_seal(&e->header, head);
}

void record_encode_message(struct record_encoder *e, const struct record_header *header,
			   const struct envelope *envelope, const struct chain *body)
{
	ASSERT(header->type == RECORD_MESSAGE && header->delivery > 0);
	encode_begin(e, header, envelope->size + body->len + RECORD_TRAILER, envelope->size,
		     envelope);
	e->body = body->head;
}

void record_encode_state(struct record_encoder *e, const struct record_header *header,
			 const struct record_state *state, const char *text)
{
	ASSERT(header->type == RECORD_STATE);
	ASSERT(sizeof(*state) + state->text_bytes <= sizeof(e->made));
	memcpy(e->made, state, sizeof(*state));
	if (state->text_bytes > 0) {
		memcpy(e->made + sizeof(*state), text, state->text_bytes);
	}
	encode_begin(e, header, sizeof(*state) + state->text_bytes,
		     (uint32_t)sizeof(*state) + state->text_bytes, e->made);
}

void record_encode_done(struct record_encoder *e, const struct record_header *header,
			uint32_t target)
{
	ASSERT(header->type == RECORD_DONE);
	memcpy(e->made, &target, sizeof(target));
	encode_begin(e, header, RECORD_DONE_HEAD, RECORD_DONE_HEAD, e->made);
}

void record_encode_copy(struct record_encoder *e, const struct record_header *header,
			const unsigned char *record)
{
	struct record_header h;

	memcpy(&h, record, sizeof(h));
	h.segment = header->segment;
	h.generation = header->generation;
	h.sequence = header->sequence;
	encode_begin(e, &h, h.length, h.head_bytes, record + sizeof(h));
	e->flat = record + sizeof(h) + h.head_bytes;
}

/* Copies what lies in [start, start + len) of the record, from e->position on. */
static size_t encode_flat(struct record_encoder *e, uint64_t start, const void *data, uint64_t len,
			  unsigned char *out, size_t room)
{
	uint64_t skip = e->position - start;
	uint64_t n;

	if (e->position < start || skip >= len) {
		return 0;
	}
	n = len - skip;
	if (n > room) {
		n = room;
	}
	memcpy(out, (const unsigned char *)data + skip, (size_t)n);
	e->position += n;
	return (size_t)n;
}

static size_t encode_chain(struct record_encoder *e, unsigned char *out, size_t room)
{
	size_t done = 0;

	while (e->body != NULL && done < room) {
		size_t n = e->body->len - e->body_at;

		if (n > room - done) {
			n = room - done;
		}
		memcpy(out + done, e->body->data + e->body_at, n);
		e->body_crc = record_crc(e->body_crc, out + done, n);
		done += n;
		e->body_at += n;
		if (e->body_at == e->body->len) {
			e->body = e->body->next;
			e->body_at = 0;
		}
	}
	e->position += done;
	return done;
}

size_t record_encode(struct record_encoder *e, unsigned char *out, size_t room)
{
	static const unsigned char zeros[RECORD_ALIGN];
	const struct record_header *h = &e->header;
	uint64_t head_end = sizeof(*h) + h->head_bytes;
	uint64_t end = sizeof(*h) + h->length;
	size_t n = encode_flat(e, 0, h, sizeof(*h), out, room);

	n += encode_flat(e, sizeof(*h), e->head, h->head_bytes, out + n, room - n);
	if (e->flat != NULL) {
		n += encode_flat(e, head_end, e->flat, end - head_end, out + n, room - n);
	} else if (h->type == RECORD_MESSAGE) {
		if (e->position >= head_end) {
			n += encode_chain(e, out + n, room - n);
		}
		n += encode_flat(e, end - RECORD_TRAILER, &e->body_crc, RECORD_TRAILER, out + n,
				 room - n);
	}
	n += encode_flat(e, end, zeros, e->size - end, out + n, room - n);
	ASSERT(n == room || e->position == e->size);
	return n;
}

void record_check_begin(struct record_check *c, const struct record_header *h)
{
	c->header = *h;
	c->position = sizeof(*h);
	c->head_crc = header_crc(h);
	c->tail_crc = body_crc_start(h);
	memset(c->trailer, 0, sizeof(c->trailer));
}

size_t record_check_feed(struct record_check *c, const unsigned char *data, size_t len)
{
	uint64_t head_end = sizeof(c->header) + c->header.head_bytes;
	uint64_t end = sizeof(c->header) + c->header.length;
	uint64_t body_end = c->header.type == RECORD_MESSAGE ? end - RECORD_TRAILER : end;
	size_t used = 0;

	while (used < len && c->position < end) {
		uint64_t limit = c->position < head_end   ? head_end
				 : c->position < body_end ? body_end
							  : end;
		size_t n = len - used;

		if (n > limit - c->position) {
			n = (size_t)(limit - c->position);
		}
		if (limit == head_end) {
			c->head_crc = record_crc(c->head_crc, data + used, n);
		} else if (limit == body_end) {
			c->tail_crc = record_crc(c->tail_crc, data + used, n);
		} else {
			memcpy(c->trailer + (c->position - body_end), data + used, n);
		}
		c->position += n;
		used += n;
	}
	return used;
}

bool record_check_head_ok(const struct record_check *c)
{
	return c->position >= sizeof(c->header) + (uint64_t)c->header.head_bytes &&
	       c->head_crc == c->header.crc;
}

bool record_check_ok(const struct record_check *c)
{
	uint32_t trailer;

	if (c->position != sizeof(c->header) + c->header.length || !record_check_head_ok(c)) {
		return false;
	}
	memcpy(&trailer, c->trailer, sizeof(trailer));
	return c->header.type != RECORD_MESSAGE || trailer == c->tail_crc;
}
