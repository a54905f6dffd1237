/*
 * Staging: requests become records in a batch's buffer, in order, as long as it and the active
 * segment have room for them.
 *
 * Start reading at stage_work(), last in stage.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/check.h"
#include "spool/commit.h"

static inline struct spool_tomb *stage_tomb(struct spool_request *r)
{
	return CONTAINER_OF(r, struct spool_tomb, request);
}

static inline struct spool_copy *stage_copy(struct spool_request *r)
{
	return CONTAINER_OF(r, struct spool_copy, request);
}

/* The header of the record that a SPOOL_COPY is to copy. */
READONLY
struct record_header stage_copied_header(const struct spool_request *r);
/* Is that record still what compaction took it for? */
READONLY
bool stage_copy_live(const struct segment_store *s, const struct spool_copy *copy);

/* Bytes of the record that a request becomes, or a few more. */
READONLY
uint64_t stage_record_bytes(const struct spool_request *r);
/* New data, that may be refused; the rest keeps promises given before. */
READONLY
bool stage_refusable(const struct spool_request *r);
READONLY
bool stage_needs_sync(const struct spool_request *r);

/* Gives a request back to who sent it. */
BOUND
void stage_answer(struct committer *c, struct spool_request *r, int result);
/* The same with an error; a message that may be readable all the same gets a tombstone. */
BOUND
void stage_refuse(struct committer *c, struct spool_request *r, int error);
/* Nothing is tried for a second; who can be refused does not wait for that. */
BOUND
void stage_retry_later(struct committer *c, int error);

SINGLE
void batch_reset(struct batch *b);
/* The batch goes to the end of the active segment. */
BOUND
void batch_begin(struct committer *c, struct batch *b);
/* The buffer is as full as it gets before it is written: zeros fill its last block, which the next
 * batch will begin with. */
BOUND
void batch_pad(struct committer *c, struct batch *b);
/* Copies as much of the record under way as the buffer takes. */
BOUND
void batch_fill(struct batch *b);

/* Stages what waits into c->next. Returns how many requests were dealt with. */
BOUND
int stage_work(struct committer *c);
