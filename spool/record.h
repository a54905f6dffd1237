/*
 * The spool's format on disk, version 1: segment header, records, and the index that ends a sealed
 * segment. Little-endian; every record starts at a multiple of 8 bytes.
 *
 * A record is its header, a payload and zeros up to the next multiple of 8. The header's CRC-32C
 * covers the header and the payload's head; a message's body has a CRC of its own behind it, that
 * starts from the message id, so that a body is written as it is read, once. A record names the
 * segment and the generation that it was written for, so what is left of a recycled file's earlier
 * life never matches.
 *
 * Start reading at struct record_header and record_encode().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/chain.h"
#include "core/mail/envelope.h"
#include "core/runtime/thread_class.h"

#define SPOOL_FORMAT_VERSION 1

#define RECORD_MAGIC 0x64725746U
#define RECORD_ALIGN 8U
#define RECORD_DONE_HEAD 4U
/* A tombstone of a message that may be in any of the abandoned segments. */
#define RECORD_ANYWHERE UINT32_MAX
/* A body's CRC, after the body. */
#define RECORD_TRAILER 4U

enum record_type {
	/* Head: the envelope. Then the body, and its CRC. `delivery` is the number of deliveries.
	 */
	RECORD_MESSAGE = 1,
	/* Head: struct record_state and its text. */
	RECORD_STATE = 2,
	/* `count` deliveries from `delivery` on are over; count 0: all of them. Head: the id of the
	 * segment that the message was in, 32 bits, or RECORD_ANYWHERE. */
	RECORD_DONE = 3,
	/* Reserved for bodies in pieces. */
	RECORD_CHUNK = 4,
	/* Head: struct record_index; then its struct index_record[]. The last of a sealed segment.
	 */
	RECORD_INDEX = 5,
};

READONLY
struct record_header {
	uint32_t magic;
	/* Of the header, with this field 0, and the head. */
	uint32_t crc;
	/* Payload bytes, without what fills up to a multiple of 8. */
	uint32_t length;
	uint32_t head_bytes;
	uint8_t type;
	uint8_t unused;
	uint16_t count;
	uint32_t segment;
	uint32_t generation;
	uint32_t delivery;
	/* Rises from record to record of a writer, and so within a segment. */
	uint64_t sequence;
	struct message_id id;
};
_Static_assert(sizeof(struct record_header) == 56, "on-disk layout");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "on-disk layout");

enum record_state_flag {
	/* The sender was told of the delay. */
	RECORD_DELAY_TOLD = 1,
	/* An operator holds it. */
	RECORD_HELD = 2,
	/* It goes by another binding, or to another domain, than its envelope says: the text begins
	 * with both, each ended by NUL. */
	RECORD_ROUTED = 4,
};

/* A state's text: where it goes, if that was changed, and why it was deferred last. */
#define RECORD_ROUTE_MAX (ENVELOPE_BINDING_MAX + 1 + 255 + 1)
#define RECORD_TEXT_MAX (RECORD_ROUTE_MAX + 512)

READONLY
struct record_state {
	/* Sequence of the record that first said so: a copy keeps it, so a copy never looks newer
	 * than a state that came after its original. */
	uint64_t stamp;
	uint64_t due_ms;
	uint64_t pending[2];
	uint16_t attempts;
	uint16_t text_bytes;
	/* enum record_state_flag */
	uint32_t flags;
};
_Static_assert(sizeof(struct record_state) == 40, "on-disk layout");

READONLY
struct record_index {
	/* Of the struct index_record[] that follow. */
	uint32_t crc;
	uint32_t count;
};

/* One record of a sealed segment. */
READONLY
struct index_record {
	struct message_id id;
	/* The record's sequence; of a STATE its stamp. */
	uint64_t sequence;
	/* Where it is, in units of 8 bytes. */
	uint32_t place;
	/* How long, padding included, in the same units; of a DONE, whose length is known, the
	 * segment that its message was in. */
	uint32_t units;
	uint32_t delivery;
	uint8_t type;
	uint8_t unused;
	uint16_t count;
};
_Static_assert(sizeof(struct index_record) == 40, "on-disk layout");

/* A segment's header has a block of its own. */
#define SEGMENT_BLOCK 4096U
#define SEGMENT_MAGIC UINT64_C(0x31676573706c7746)

enum segment_disk_state {
	/* Nothing in it counts. */
	SEGMENT_DISK_FREE = 1,
	/* Records up to the first that does not match. */
	SEGMENT_DISK_OPEN = 2,
	/* An index at index_offset. */
	SEGMENT_DISK_SEALED = 3,
};

READONLY
struct segment_header {
	uint64_t magic;
	uint16_t version;
	uint16_t state;
	/* Of this struct, with this field 0. */
	uint32_t crc;
	uint32_t id;
	uint32_t generation;
	uint32_t writer;
	uint32_t unused;
	/* Of the file, in bytes. */
	uint64_t size;
	/* Bytes from the start that have been written before, so that writing them again allocates
	 * nothing. */
	uint64_t prepared;
	uint64_t index_offset;
};
_Static_assert(sizeof(struct segment_header) == 56, "on-disk layout");

/* CRC-32C; `crc` is 0 or what the bytes before gave. */
CONCURRENT
uint32_t record_crc(uint32_t crc, const void *data, size_t len);

/* Fills a header block: `h` with magic, version and crc set, then zeros. */
CONCURRENT
void segment_header_encode(unsigned char block[SEGMENT_BLOCK], const struct segment_header *h);

/* Reads one. 0; -ENODATA: all zeros; -EBADMSG: damaged, or no segment of ours; -EPROTO: of a newer
 * format than this program knows, with h->version set. */
CONCURRENT
int segment_header_decode(const unsigned char block[SEGMENT_BLOCK], struct segment_header *h);

/* Bytes in the file of a record with `length` bytes of payload. */
static inline uint64_t record_bytes(uint32_t length)
{
	uint64_t n = sizeof(struct record_header) + (uint64_t)length;

	return (n + RECORD_ALIGN - 1) & ~(uint64_t)(RECORD_ALIGN - 1);
}

/* Sets h->crc for `head`, of h->head_bytes bytes. */
CONCURRENT
void record_seal(struct record_header *h, const void *head);

/* Could this be the header of a record at this place? `room`: bytes from here to the segment's
 * end. Does not check the CRC. */
CONCURRENT
bool record_plausible(const struct record_header *h, uint32_t segment, uint32_t generation,
		      uint64_t room);

/* What the index says of a record; `head` is the head of a STATE or DONE, NULL for others. */
CONCURRENT
struct index_record record_describe(const struct record_header *h, uint32_t place,
				    const void *head);

/* Is this, read from `place` of the segment, the head of a message or state record that is whole?
 * `data` has h->head_bytes bytes. */
CONCURRENT
bool record_head_ok(const struct record_header *h, const void *head);

/* Is a state's text (text_bytes of it, then NUL) what its flags say: with RECORD_ROUTED two names,
 * neither empty nor too long, before the rest? */
CONCURRENT
bool record_state_text_ok(const struct record_state *state, const char *text);

/* Writes a record piece by piece: record_encode_*() once, then record_encode() until done. What it
 * was given must stay until then. */
SINGLE
struct record_encoder {
	struct record_header header;
	const unsigned char *head;
	/* The payload after the head: a chain and then its CRC, or bytes that end with the CRC. */
	const struct chain_buffer *body;
	size_t body_at;
	const unsigned char *flat;
	uint32_t body_crc;
	/* A state's head, or a tombstone's, made here. */
	unsigned char made[sizeof(struct record_state) + RECORD_TEXT_MAX];
	/* Bytes written, and in all. */
	uint64_t position;
	uint64_t size;
};

/* `header` has type, count, segment, generation, delivery, sequence and id; the rest is set here.
 */
SINGLE
void record_encode_message(struct record_encoder *e, const struct record_header *header,
			   const struct envelope *envelope, const struct chain *body);
SINGLE
void record_encode_state(struct record_encoder *e, const struct record_header *header,
			 const struct record_state *state, const char *text);
SINGLE
void record_encode_done(struct record_encoder *e, const struct record_header *header,
			uint32_t target);
/* `record`: a whole record as read, header included; only segment, generation and sequence change.
 */
SINGLE
void record_encode_copy(struct record_encoder *e, const struct record_header *header,
			const unsigned char *record);

/* Writes the next bytes, at most `room`; returns how many. */
SINGLE
size_t record_encode(struct record_encoder *e, unsigned char *out, size_t room);

static inline bool record_encoded(const struct record_encoder *e)
{
	return e->position == e->size;
}

/* Checks a record piece by piece. */
SINGLE
struct record_check {
	struct record_header header;
	/* Bytes seen, the header included, padding not. */
	uint64_t position;
	uint32_t head_crc;
	uint32_t tail_crc;
	unsigned char trailer[RECORD_TRAILER];
};

SINGLE
void record_check_begin(struct record_check *c, const struct record_header *h);
/* The next bytes of the payload; what is beyond its end is ignored. Returns how many were not. */
SINGLE
size_t record_check_feed(struct record_check *c, const unsigned char *data, size_t len);
/* The head was seen, and its CRC is right. */
SINGLE
bool record_check_head_ok(const struct record_check *c);
/* All was seen, and every CRC is right. An index's records are not covered: see its head. */
SINGLE
bool record_check_ok(const struct record_check *c);
