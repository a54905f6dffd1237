/*
 * Compaction: copies what is still needed out of a segment that is mostly dead, through the
 * ordinary commits, so that the segment can go: live messages, latest states, and tombstones of
 * messages that are still on disk. Also taken are dead segments that only wait for older ones to
 * go, once there are several of them, and abandoned ones.
 *
 * Copies are synced before the account says that a record has moved, and the old segment goes only
 * when that account is empty. A crash between leaves two copies of a record, which recovery knows
 * to be one. Compaction has only a few records under way at a time, behind the mail that waits.
 *
 * Start reading at compaction_work(), last in compaction.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/mux.h"
#include "spool/store.h"

#define COMPACTION_SLOTS 8

struct compaction;

enum compaction_step { COMPACTION_FREE, COMPACTION_READING, COMPACTION_WRITING };

/* One record being copied. */
BOUND
struct compaction_slot {
	struct compaction *compaction;
	enum compaction_step step;
	struct spool_copy copy;
	struct mux_op op;
	uint32_t capacity;
	uint32_t len;
	uint32_t have;
	/* The message whose tombstones are written again, and the next delivery to look at. */
	struct message_id id;
	uint32_t delivery;
};

BOUND
struct compaction {
	struct segment_store *store;
	struct agent *agent;
	/* NULL: nothing is being compacted. */
	struct segment *source;
	/* Records looked at so far; those in the buffer, and the next of them. */
	uint32_t seen;
	uint32_t buffered;
	uint32_t at;
	struct index_chunk *chunk;
	struct index_record *buffer;
	struct mux_op index_op;
	uint32_t index_have;
	struct compaction_slot slots[COMPACTION_SLOTS];
	uint32_t busy;
	/* A copy could not be written: leave it for now. */
	bool failed;
	bool stopping;
	uint64_t seen_changes;
	uint64_t look_ms;
};

SINGLE
void compaction_init(struct compaction *c, struct segment_store *store, struct agent *agent);
SINGLE
void compaction_close(struct compaction *c);

/* No more: what is under way is finished. */
BOUND
void compaction_stop(struct compaction *c);

static inline bool compaction_idle(const struct compaction *c)
{
	return c->source == NULL;
}

/* When to call compaction_work() again though nothing has happened; 0: no need. */
BOUND
static inline uint64_t compaction_due_ms(const struct compaction *c)
{
	bool due = c->source == NULL && !c->stopping && c->seen_changes != c->store->changes;

	return due ? c->look_ms : 0;
}

/* Returns how much it did. */
BOUND
int compaction_work(struct compaction *c);
