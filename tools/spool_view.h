/*
 * A stopped spool as flywheel-spool sees it: its segments, their records, and which of them a start
 * of flywheeld would still need. It knows the format and the recovery of spool/, and changes
 * nothing.
 *
 * Start reading at spool_view_open().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "spool/spool.h"
#include "spool/store.h"

SINGLE
struct spool_view {
	struct spool *spool;
	struct segment_store *store;
	struct spool_recovery found;
	/* By id. */
	struct segment **segments;
	uint32_t segment_count;
};

enum piece_state {
	PIECE_WHOLE,
	/* Of a message: the envelope is right, the body is not. */
	PIECE_BODY_DAMAGED,
	/* Nothing of it can be trusted. */
	PIECE_DAMAGED,
};

/* A record, as read. */
SINGLE
struct spool_piece {
	enum piece_state state;
	/* Of PIECE_DAMAGED: what is there. */
	struct record_header header;
	/* The whole record, header included; zeros where it cannot be read. */
	unsigned char *data;
	uint64_t len;
	/* 0, or the negative errno of a read that failed. */
	int error;
};

/* Locks the spool and finds out what is in it. 0, or -1 with the reason on stderr, as are warnings:
 * a running flywheeld has it, or it is none, or a segment cannot be read. */
SINGLE
int spool_view_open(struct spool_view *v, const char *path);
SINGLE
void spool_view_close(struct spool_view *v);

/* The segment that `text` names: "seg-0000002a.fws", or its number in hexadecimal. NULL: none. */
SINGLE
struct segment *spool_view_segment(const struct spool_view *v, const char *text);

/* What the segment's index says, on disk or built anew; `*records` is the caller's to free. 0 or a
 * negative errno. */
SINGLE
int spool_view_records(const struct segment *g, struct index_record **records, uint32_t *count);

/* A message with a delivery that is not over, or such a delivery's latest state, in the place that
 * counts. */
SINGLE
bool spool_view_live(const struct spool_view *v, const struct segment *g,
		     const struct index_record *r);

/* How many messages wait, and the one at `i`, in order of reception. */
static inline uint64_t spool_view_messages(const struct spool_view *v)
{
	return v->store->recovered.count;
}
static inline const struct spool_entry *spool_view_message(const struct spool_view *v, uint64_t i)
{
	return v->store->recovered.messages[i].entry;
}

/* What the index would say of the message. */
SINGLE
struct index_record spool_view_describe(const struct spool_entry *e);

/* Reads the record that `r` describes and checks all of it. `piece` is to be released. */
SINGLE
void spool_view_read(const struct segment *g, const struct index_record *r,
		     struct spool_piece *piece);
SINGLE
void spool_piece_release(struct spool_piece *piece);

/* Of a message that is not PIECE_DAMAGED. */
static inline const struct envelope *spool_piece_envelope(const struct spool_piece *p)
{
	return (const struct envelope *)(const void *)(p->data + sizeof(p->header));
}
/* Of a message: `*len` bytes, dot-stuffed. */
static inline const unsigned char *spool_piece_body(const struct spool_piece *p, uint64_t *len)
{
	*len = p->header.length - p->header.head_bytes - RECORD_TRAILER;
	return p->data + sizeof(p->header) + p->header.head_bytes;
}
