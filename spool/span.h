/*
 * Records that lie close together on the disk, read at once: for who is about to read the
 * beginnings of many, nearly in the order in which they were written.
 *
 * A span is a guess at what will be asked for. What it holds may be old, for its segment may have
 * been used again since: a record found in it counts only if its checksum, segment, generation and
 * id are right, and is otherwise read by itself.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"
#include "spool/segment.h"

/* At most so much is read at once. */
#define SPAN_BYTES (1024U * 1024)
/* So much for each record that is wanted: to copy more costs more than another system call. */
#define SPAN_BYTES_EACH 4096U

SINGLE
struct span {
	/* NULL: nothing is in it. */
	const struct segment *segment;
	uint64_t offset;
	size_t len;
	/* SPAN_BYTES, once needed. */
	unsigned char *data;
};

/* `len` bytes, 1 to 64 KiB. */
SINGLE
struct span_want {
	const struct segment *segment;
	uint64_t offset;
	size_t len;
};

/*
 * Reads what lies close to the middle one of `wants`, of which there are `count`, if that costs
 * less than to read each by itself; else the span is empty afterwards, as it is when the read
 * fails. Blocks.
 */
SINGLE
void span_read(struct span *x, const struct span_want *wants, unsigned count);

/* What the span has of these bytes; NULL unless it is all of them. */
SINGLE
const unsigned char *span_find(const struct span *x, const struct span_want *want);

/* Frees its memory, and leaves it empty. */
SINGLE
void span_drop(struct span *x);
