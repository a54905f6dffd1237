/*
 * Group commit: requests are copied into a staging buffer as records, written to the active segment
 * in one piece, durably if anything in it asks for that, and answered. While one batch is written
 * the next one is staged in the other buffer, and it starts as soon as the write has returned.
 *
 * A batch is written in whole blocks. What is to be durable is written so, directly where the file
 * system allows that: one durable write does what else takes a buffered write and a sync. It covers
 * itself alone, so buffered write and sync it is after records that were answered without one, and
 * for a record too large for the buffer. On a disk with a cache that knows no forced unit access
 * Linux completes it on a kernel thread bound to the processor that took the interrupt: one reason
 * for threads that spin to leave their processor now and then (core/runtime/idle.c).
 *
 * A batch whose write or sync failed is staged again, in another segment: that one is abandoned. If
 * that fails too, what was to be stored is refused, and what was done is tried again every second.
 *
 * Requests become records in stage.c; what was committed is noted in apply.c.
 * Start reading at commit_work(), last in commit.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/mux.h"
#include "spool/record.h"
#include "spool/store.h"

#define COMMIT_STAGING (1024U * 1024)

enum commit_state { COMMIT_IDLE, COMMIT_WRITING, COMMIT_SYNCING };

/* One staging buffer, and the requests in it. */
BOUND
struct batch {
	struct request_queue requests;
	struct segment *segment;
	unsigned char *buffer;
	uint32_t filled;
	/* The same up to the end of the last block, and how much of that is written. */
	uint32_t padded;
	uint32_t written;
	/* Where buffer[0] goes: the start of a block. */
	uint64_t offset;
	/* Where the segment ended before, and what was in its last block. */
	uint64_t start;
	unsigned char lead[SEGMENT_BLOCK];
	/* The last record, when it did not fit into the buffer as a whole. */
	struct record_encoder encoder;
	bool encoding;
	/* Takes no more. */
	bool closed;
	bool has_header;
	bool needs_sync;
	/* By the write itself. */
	bool durable;
	uint32_t records;
	uint64_t bytes;
};

BOUND
struct committer {
	struct segment_store *store;
	struct agent *agent;
	struct batch batches[2];
	/* Being written or synced; NULL: none. */
	struct batch *current;
	/* Being staged. */
	struct batch *next;
	/* What is in the active segment's last block, as far as that is staged. */
	unsigned char tail[SEGMENT_BLOCK];
	enum commit_state state;
	struct mux_op op;
	uint64_t began_ns;
	/* Batches that failed since one went well. */
	uint32_t failures;
	/* Nothing is tried before; 0: at once. */
	uint64_t retry_ms;
	/* Sync what was answered without. */
	bool want_sync;
};

SINGLE
void commit_init(struct committer *c, struct segment_store *store, struct agent *agent);
SINGLE
void commit_close(struct committer *c);

/* Nothing queued, staged or under way, and all synced if `want_sync`. */
BOUND
bool commit_idle(const struct committer *c);

/* The program has to end: what waits because the disk does not take it is answered with `error`,
 * whatever it is. Nothing when the disk does. */
BOUND
void commit_give_up(struct committer *c, int error);

/* Stages what waits, and starts a batch when none is under way. Returns how much it did. */
BOUND
int commit_work(struct committer *c);
