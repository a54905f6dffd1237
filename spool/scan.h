/*
 * Reads a segment that has no usable index, record by record, and builds the index anew. Blocks:
 * for the main thread, before agents start.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/pool.h"
#include "core/runtime/thread_class.h"
#include "spool/segment.h"

SINGLE
struct scan_result {
	/* Records whose header was whole but not the rest, or that were jumped over in search of
	 * the next. */
	uint64_t damaged;
	/* Bytes of records begun and not finished at the end. */
	uint64_t torn_bytes;
	/* Of the last record. */
	uint64_t sequence;
};

/*
 * Looks at what is before `limit`, sets s->end and fills the index of `s` with every whole record.
 * Without `search` it ends at the first thing that is no record's header: what follows was never
 * promised to anyone, and a message half written there could hold anything. With `search`, for a
 * segment that had been sealed, the next whole record is looked for. 0, or the negative errno of a
 * failed read; what was read until then is in the index.
 */
SINGLE
int scan_segment(struct segment *s, struct pool *chunks, uint64_t limit, bool search,
		 struct scan_result *result);

/* The generation of the first record, for a segment whose header is damaged: 1, 0 when there is
 * none, or the negative errno of a failed read. */
SINGLE
int scan_generation(const struct segment *s, uint32_t *generation);
