/*
 * Upkeep of a writer's segments, beside its commits and never in their way for long: write the
 * active segment and the next one with zeros ahead of need, so that a commit overwrites blocks that
 * are there; write the index of a full segment and seal it; make a segment that nothing needs free
 * for reuse, or unlink it.
 *
 * Start reading at upkeep_work(), last in upkeep.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/mux.h"
#include "spool/store.h"

/* A write that is resumed until all is written. */
BOUND
struct upkeep_write {
	struct mux_op op;
	struct segment *segment;
	const unsigned char *data;
	uint32_t len;
	uint64_t offset;
};

enum upkeep_step { UPKEEP_IDLE, UPKEEP_INDEX, UPKEEP_HEADER, UPKEEP_SYNC };

BOUND
struct upkeep {
	struct segment_store *store;
	struct agent *agent;
	unsigned char *zeros;
	/* Preparing. */
	struct upkeep_write prepare;
	enum upkeep_step prepare_step;
	uint32_t slices;
	/* Sealing. */
	struct upkeep_write seal;
	enum upkeep_step seal_step;
	struct index_chunk *seal_chunk;
	unsigned char seal_head[SEGMENT_INDEX_HEAD];
	unsigned char *seal_block;
	/* Making free. */
	struct upkeep_write retire;
	enum upkeep_step retire_step;
	unsigned char *retire_block;
	/* What changed since, see segment_store.changes. */
	uint64_t seen_changes;
	/* What failed is not tried again before. */
	uint64_t retry_ms;
	uint64_t prepare_retry_ms;
	/* Something could go as soon as the active segment is synced. */
	bool want_sync;
	bool stopping;
};

SINGLE
void upkeep_init(struct upkeep *u, struct segment_store *store, struct agent *agent);
SINGLE
void upkeep_close(struct upkeep *u);

/* Nothing is under way, and, once `stopping`, the active segment is sealed. */
BOUND
bool upkeep_idle(const struct upkeep *u);

/* Prepare no more; seal the active segment as soon as nothing is written to it. */
BOUND
void upkeep_stop(struct upkeep *u);

/* Starts what there is to do. Returns how much that was. */
BOUND
int upkeep_work(struct upkeep *u);
