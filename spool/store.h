/*
 * One writer's share of the spool: its segments, the index of its messages, the account of what in
 * each segment is still needed, and the requests that wait. Belongs to the writer's agent once that
 * runs, and to the main thread before.
 *
 * Start reading at store_roll(), which makes the next segment the active one, and at the
 * store_put_* functions, which take note of records that have been committed.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/agent.h"
#include "core/runtime/counter.h"
#include "core/runtime/histogram.h"
#include "spool/index.h"
#include "spool/segment.h"
#include "spool/span.h"
#include "spool/spool.h"

#define STORE_MAGIC 0x73746f72U
#define STORE_RETRY_MS 1000

/* Requests in order. */
SINGLE
struct request_queue {
	struct spool_request *head;
	struct spool_request **tail;
	uint32_t count;
};

/* The writer's counters; before the agent is known they count into `unseen`. */
BOUND
struct store_stats {
	struct counter unseen;
	struct counter *commits;
	struct counter *syncs;
	struct counter *records;
	struct counter *bytes;
	struct counter *batch_max;
	struct counter *write_errors;
	struct counter *sync_errors;
	struct counter *store_refused;
	struct counter *given_up;
	struct counter *segments_sealed;
	struct counter *segments_spare;
	struct counter *segments_made;
	struct counter *segments_reused;
	struct counter *segments_abandoned;
	struct counter *live_messages;
	struct counter *live_bytes;
	struct counter *recovery_left;
	struct counter *compactions;
	struct counter *compacted;
	struct counter *loads;
	struct counter *load_errors;
	struct counter *damaged;
	/* Nanoseconds from the first write of a batch to its answers. */
	struct histogram commit_ns;
	/* Records of a batch. */
	struct histogram batch_records;
};

struct message;

SINGLE
struct recovered_message {
	struct message_id id;
	/* Stays as long as a delivery has not been handed out. */
	struct spool_entry *entry;
	/* Deliveries before this one have been handed out. */
	uint32_t delivery;
};

/* Messages with deliveries that the last run of the program left, to be handed out. */
SINGLE
struct recovered_list {
	struct recovered_message *messages;
	uint64_t count;
	uint64_t at;
	/* Those that could not be read, moved to the front, and when they are tried again. */
	uint64_t again;
	uint64_t again_ms;
	/* The message whose deliveries are handed out now, and the next one of them. */
	struct message *message;
	const struct spool_entry *entry;
	uint32_t delivery;
	/* Beginnings of messages, and latest states, of those before `ahead`. */
	struct span heads;
	struct span states;
	uint64_t ahead;
};

BOUND
struct segment_store {
	uint32_t magic;
	uint32_t writer;
	/* A new segment has id `next_id`; the next one `id_step` more. */
	uint32_t next_id;
	uint32_t id_step;
	int dir_fd;
	const struct spool_options *options;
	/* The spool's: a bit for each writer that cannot take new mail. */
	_Atomic uint64_t *full_bits;
	struct agent *agent;
	struct spool_index index;
	struct pool chunks;
	/* By slot; NULL where there is none. */
	struct segment **segments;
	uint32_t slot_count;
	uint32_t segment_count;
	/* NULL before the first record, and after an abandoned one. */
	struct segment *active;
	struct segment *spares;
	uint32_t spare_count;
	/* The next record's. */
	uint64_t next_sequence;
	/* Counts what can make a segment free to go, or worth compacting: upkeep and compaction
	 * look when it is not what they saw last. */
	uint64_t changes;
	/* A batch is being written or synced: what can wait does. */
	bool committing;
	/* Requests were dropped, to end at all: nothing more is taken off the disk. */
	bool gave_up;
	/* Commits fail; cleared by one that does not. */
	bool trouble;
	/* The file system had too little room when last looked at. */
	bool low_space;
	/* A new segment could not be made; not tried again for a while. */
	int roll_error;
	uint64_t roll_retry_ms;
	struct request_queue queue;
	struct request_queue loads;
	struct spool_tomb *tombs;
	struct recovered_list recovered;
	struct store_stats stats;
};

/* A record that says again that deliveries are over: see store_tomb(). */
SINGLE
struct spool_tomb {
	struct spool_request request;
	struct segment_store *store;
	/* All of the store's. */
	struct spool_tomb *next;
	struct spool_tomb *prev;
	struct message_id id;
	uint32_t first;
	/* 0: all. */
	uint16_t count;
	/* Where the dead message is; NULL: in abandoned segments. */
	struct segment *target;
	/* Must stay until the record is on disk; NULL: none. */
	struct segment *pin;
	void (*on_written)(void *owner);
	void *owner;
};

/* Copies a live record out of a segment: see compaction.c. */
SINGLE
struct spool_copy {
	struct spool_request request;
	struct segment *segment;
	uint32_t place;
	/* As read, header included. */
	unsigned char *record;
	/* Out: where it was written, NULL if it was not; and whether that is its place now. */
	struct segment *written;
	bool moved;
};

SINGLE
void store_init(struct segment_store *s, const struct spool_options *options, uint32_t writer,
		int dir_fd, _Atomic uint64_t *full_bits);
/* Frees everything and closes all files. */
SINGLE
void store_close(struct segment_store *s);

/* Counters in `set`, made while the program is set up. */
SINGLE
void store_stats_create(struct segment_store *s, struct counter_set *set);

/* One writer's share of the spool. */
SINGLE
struct segment_store *spool_store(struct spool *s, uint32_t writer);

SINGLE
void queue_init(struct request_queue *q);
SINGLE
void queue_push(struct request_queue *q, struct spool_request *r);
/* NULL when empty. */
SINGLE
struct spool_request *queue_pop(struct request_queue *q);
/* Puts all of `front` before what `q` holds; `front` is empty afterwards. */
SINGLE
void queue_prepend(struct request_queue *q, struct request_queue *front);

/* Gives a segment a slot. */
SINGLE
void store_add_segment(struct segment_store *s, struct segment *g);
/* It is gone from the disk, or free there: nothing needs to outlive it any more. */
SINGLE
void store_forget(struct segment_store *s, struct segment *g);
/* Takes it out of the slots and frees it; store_forget() was called. */
SINGLE
void store_drop_segment(struct segment_store *s, struct segment *g);
/* Back to be used again. */
SINGLE
void store_add_spare(struct segment_store *s, struct segment *g);

/* Makes a new segment with a file. Blocks. 0 or a negative errno; -ENOSPC too when it would leave
 * less than min_free_bytes and `urgent` is not set. */
SINGLE
int store_make_segment(struct segment_store *s, uint64_t size, bool urgent, struct segment **out);

/*
 * Makes a spare or a new segment with room for a record of `bytes` the active one; what was active
 * is FULL from then on. `urgent`: for a record that keeps a promise given before (STATE, DONE),
 * down to the last byte of the disk. Blocks while a file is made. 0, or a negative errno: then all
 * is as it was; asked again within a second it says the same at once.
 */
BOUND
int store_roll(struct segment_store *s, uint64_t bytes, bool urgent);

/* A write to the active segment failed, or a sync: never again. */
SINGLE
void store_abandon(struct segment_store *s, struct segment *g);

/* Kept back in the active segment for records that promise nothing new. */
SINGLE
uint64_t store_reserve(const struct segment_store *s);

/* Looks at free space and sets or clears this writer's bit of spool_full(). */
SINGLE
void store_check_space(struct segment_store *s);
SINGLE
void store_update_full(struct segment_store *s);

/* What is on disk under this id, other than a spare; NULL: nothing. */
READONLY
struct segment *store_segment(const struct segment_store *s, uint32_t id);

/* The deliveries not handed out yet stay for the next start. */
SINGLE
void store_drop_recovered(struct segment_store *s, struct mail_pools *pools);

/* Counts the recovered messages that have not been handed out, or not all of them. */
SINGLE
void store_count_recovered(struct segment_store *s);

/* Queues a tombstone; memory comes from malloc, for it is rare. */
SINGLE
void store_tomb(struct segment_store *s, const struct spool_tomb *t);
