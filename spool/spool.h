/*
 * The spool: where accepted messages are kept until every delivery of theirs is done.
 *
 * Each spool writer (agents/spool_writer.c) owns append-only segments and commits what waits in
 * groups. Other agents speak to it by requests: spool_submit() hands the request over, and it comes
 * back, with its result, as a task that runs request->on_done on the agent that sent it. Requests
 * of one agent to one writer are carried out in the order sent.
 *
 * Start reading at spool_submit() and at agents/spool_writer.c: spool_writer_do_work().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/queue/delivery.h"
#include "core/runtime/agent.h"
#include "core/runtime/thread_class.h"

struct spool;
struct spool_entry;

enum spool_verb {
	/* Keep a message; done when it is as durable as its envelope asks. */
	SPOOL_STORE,
	/* A delivery was deferred: attempts, due time, recipients that remain, reason. */
	SPOOL_STATE,
	/* A delivery is over. The last one of a message frees its entry. */
	SPOOL_DONE,
	/* Read envelope and body back into request->content. */
	SPOOL_LOAD,
	/* The writer's own, not for spool_submit(): a record moved by compaction, and a tombstone
	 * written again. */
	SPOOL_COPY,
	SPOOL_TOMB,
};

SINGLE
struct spool_request {
	enum spool_verb verb;
	uint8_t writer;
	/* Who asks, and what runs there when it is done, with the request as object. */
	struct agent *from;
	task_fn on_done;
	/* The caller's. */
	void *owner;
	/* 0, or a negative errno: -ENOSPC, -EIO, -ENOENT (STORE and LOAD only; STATE and DONE are
	 * retried by the writer until they succeed, and their result is 0, except when the program
	 * has to end on a failing disk: -EIO, and they are lost). */
	int result;
	/* STORE: message->spool and message->writer are set when it comes back with 0. */
	struct message *message;
	/* STORE: its sender has been told that we have it, so it is retried as STATE and DONE are,
	 * and not refused. Were it, and stored later under the same id, the tombstone of the first
	 * try would be the end of it at the next start. */
	bool promised;
	/* STATE and DONE. */
	struct spool_entry *entry;
	/* LOAD: which message. All its deliveries may be over before its turn comes: -ENOENT. */
	struct message_id id;
	/* LOAD: without the body. */
	bool envelope_only;
	/* STATE and DONE. */
	uint32_t delivery;
	uint16_t attempts;
	bool delay_told;
	uint64_t due_ms;
	struct recipient_set pending;
	/* STATE: an operator holds it. */
	bool held;
	/* STATE: reason, cut to SPOOL_REASON_MAX; and by which binding it goes to which domain,
	 * NULL: those of its envelope. They point to memory that outlives the request. */
	const char *reason;
	const char *binding;
	const char *domain;
	/* LOAD: from the writer's own pools, now the caller's. When it failed: NULL, or the
	 * envelope without the body, when only that cannot be read. */
	struct content *content;
	/* The writer's. */
	struct spool_request *next;
	uint64_t progress;
	uint64_t sequence;
	uint32_t target;
};

#define SPOOL_REASON_MAX 512

READONLY
struct spool_options {
	const char *path;
	uint32_t writers;
	/* A segment file's size, 1 MiB to 4 GiB. */
	uint64_t segment_bytes;
	/* Free space on the file system below which spool_full() holds. */
	uint64_t min_free_bytes;
	/* Sealed segments with a smaller share of live bytes, percent, are compacted; 0: never. */
	uint32_t compact_percent;
	/* Retired segments kept for reuse, for each writer. */
	uint32_t spare_segments;
	/* To look at, not to use: nothing on the disk is changed but the lock. */
	bool read_only;
};

/* What a restart found. */
READONLY
struct spool_recovery {
	uint64_t segments;
	uint64_t segments_scanned;
	uint64_t messages;
	uint64_t deliveries;
	uint64_t torn_bytes;
	uint64_t damaged_records;
};

/*
 * Opens and locks the spool and recovers its index: every message with a delivery not done. Blocks;
 * for the main thread, before agents start. Returns NULL with one line on `errors` when the path
 * cannot be used: not a directory, read-only, no permission, or locked by another process (its
 * number is named).
 */
SINGLE
struct spool *spool_open(const struct spool_options *options, FILE *errors,
			 struct spool_recovery *found);

SINGLE
void spool_close(struct spool *s);

/* The agent that writes for `writer`, 0 to writers - 1: set up by spool_writer_init(). */
SINGLE
void spool_set_writer(struct spool *s, uint32_t writer, struct agent *agent);

/* Which writer keeps messages received by agent `id`. */
READONLY
uint32_t spool_writer_of(const struct spool *s, uint32_t id);

struct histogram;

/* Nanoseconds from the first write of a batch to its answers, one value for each batch. */
CONCURRENT
const struct histogram *spool_commit_ns(const struct spool *s, uint32_t writer);

/* Records of a batch, one value for each. */
CONCURRENT
const struct histogram *spool_batch_records(const struct spool *s, uint32_t writer);

READONLY
uint32_t spool_writer_count(const struct spool *s);

/* Hands a request to its writer. The request is the writer's until on_done runs. */
BOUND
void spool_submit(struct spool *s, struct agent *self, struct spool_request *request);

/* New mail should be refused for now: the disk is full, or a writer could not make a segment. */
CONCURRENT
bool spool_full(const struct spool *s);

/* Recovered deliveries, one by one and in order of reception, for the writer's agent to hand to
 * their homes after start-complete. Implemented in spool/; called by agents/spool_writer.c, which
 * takes at most a bounded number each cycle. Reads envelopes from disk; blocks for that long.
 * Returns a delivery in transit with its attempts, due time and pending recipients, whose message
 * has a spool entry; its content is the envelope, without the body and not resident, for the way
 * home, or for as long as its route says otherwise. NULL when there is no more, or none now. */
BOUND
struct delivery *spool_next_recovered(struct spool *s, uint32_t writer, struct mail_pools *pools);

/* After NULL: there are some that could not be read; ask again. */
BOUND
bool spool_recovered_waits(struct spool *s, uint32_t writer);

/* The highest count in a recovered message id of this node, so that new ids sort above. */
READONLY
uint64_t spool_highest_id(const struct spool *s);
