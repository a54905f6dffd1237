/*
 * Log output: one destination of log records, such as a file. Records are formatted straight into
 * its buffers and written from there; what cannot be written waits, and is tried again every
 * second. How bytes get to the disk is its operations': log_file.c,
 * log_journal.c.
 *
 * Owner: the log writer. Per log record: log_output_reserve(), log_output_commit(); per duty cycle:
 * log_output_full(), log_output_do_work(). Start reading at the latter.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "agents/log_archive.h"
#include "agents/log_schedule.h"
#include "core/runtime/agent.h"
#include "core/runtime/pool.h"

#define LOG_PIECE_SIZE 65536
/* The longest record. */
#define LOG_RECORD_MAX (LOG_PIECE_SIZE - 64)
/* Buffers that make an output full: 4 MiB. */
#define LOG_PIECES_MAX 64

struct log_output;
struct log_journal_options;
struct thread_pool;

/*
 * A buffer. Records lie one behind the other, framed as they will be on disk; from the other end
 * grows the table of where each of them ends.
 */
SINGLE
struct log_piece {
	struct log_piece *next;
	uint32_t len;
	uint32_t records;
	union {
		char data[LOG_PIECE_SIZE];
		uint32_t ends[LOG_PIECE_SIZE / sizeof(uint32_t)];
	};
};

/* How one kind of output frames and writes records. */
READONLY
struct log_output_ops {
	/* What it is, in messages, such as "log file". */
	const char *kind;
	/* Bytes before and behind each record on disk. */
	uint32_t head;
	uint32_t tail;
	/* Fills in both: `record` is what was committed, `len` bytes. */
	void (*frame)(struct log_output *o, char *record, size_t len);
	/* Once in each duty cycle, before it is written: whatever is due; o->wake_ms says when more
	 * will be. NULL: nothing ever is. */
	void (*prepare)(struct log_output *o, uint64_t now_ms);
	/* Writes some of what log_output_gather() gives, and returns how many of its bytes: 0 to be
	 * asked again at once. Or a negative errno. */
	ssize_t (*write)(struct log_output *o);
	/* Opens it anew, for an administrator who has moved it away. 0, or a negative errno and the
	 * old one is still used. NULL: there is nothing to do. */
	int (*reopen)(struct log_output *o);
	/* Puts what is there aside, and goes on with an empty one: as log_output_rotate(). NULL: it
	 * is not made of such parts. */
	int (*rotate)(struct log_output *o, uint64_t now_ms);
	/* To the disk; 0 or a negative errno. */
	int (*sync)(struct log_output *o);
	/* Closes it and frees all of `o`. */
	void (*close)(struct log_output *o);
};

/* When files are rotated by themselves, and what becomes of them. */
READONLY
struct log_rotation {
	enum log_period period;
	/* The size that a file does not exceed, unless one record does, in bytes; 0: any. */
	uint64_t size_max;
	struct log_archive_options archive;
};

/* What the outputs of one agent share. */
BOUND
struct log_output_host {
	struct agent *agent;
	/* Of relative names. */
	char *directory;
	struct log_rotation rotation;
	/* In the order in which they were opened. */
	struct log_output *outputs;
	/* Where jobs run that block; NULL: nowhere, then rotated files stay as they are. */
	struct thread_pool *jobs;
	/* The output that has one there: only one does, so that others than logs get their turn. */
	struct log_output *at_work;
	/* The program stops. */
	bool stopping;
	struct pool pieces;
	struct counter *bytes;
	struct counter *writes;
	struct counter *write_errors;
	/* How journals are to be (log_journal.h); the owner's, which sets them after
	 * log_output_host_init(). */
	const struct log_journal_options *journals;
	uint32_t journal_count;
};

BOUND
struct log_output {
	const struct log_output_ops *ops;
	struct log_output_host *host;
	/* The host's next one. */
	struct log_output *next;
	char *path;
	/* Where the records are that were put aside last; NULL: none in this run. */
	const char *rotated;
	/* It takes JSON objects, not lines of text. */
	bool json;
	/* Failed; left alone until `retry_ms`. */
	bool failed;
	/* To be opened anew. */
	bool reopen;
	uint64_t retry_ms;
	/* When something is due, monotonic; 0: nothing. */
	uint64_t wake_ms;
	/* Records ever committed, and written. */
	uint64_t committed;
	uint64_t written;
	/* Buffers with records that are not written in full, oldest first. */
	struct log_piece *first;
	struct log_piece *last;
	uint32_t pieces;
	/* In the first one: records that are written, and bytes, which may end within a record. */
	uint32_t done;
	uint32_t done_bytes;
	/* Bytes of records and their frames that are not written. */
	uint64_t buffered;
	struct counter_set *counters;
	struct counter *buffered_bytes;
	struct counter *waiting_records;
};

/* Counters bytes, writes, write_errors are made in the agent's set. `directory` is copied.
 * `rotation`: NULL for never. */
SINGLE
void log_output_host_init(struct log_output_host *h, struct agent *agent, const char *directory,
			  const struct log_rotation *rotation);

/* When work of some output is to be done next though nothing is committed, monotonic ms; 0: no
 * matter when. */
BOUND
uint64_t log_output_host_wake_ms(const struct log_output_host *h);

/* The program stops: jobs of the thread pool end soon. */
BOUND
void log_output_host_stop(struct log_output_host *h);

/* A job of the thread pool is under way: do not close its output. */
BOUND
static inline bool log_output_host_busy(const struct log_output_host *h)
{
	return h->at_work != NULL;
}

/* For a host without outputs. */
SINGLE
void log_output_host_close(struct log_output_host *h);

/*
 * Opens an output. `destination` is "file:NAME", text with one record a line, "jlog:NAME", a
 * journal of such records, or "json:NAME", JSON objects: a journal where NAME ends in .jlog, else a
 * file with one a line. A relative name is below the host's directory. Returns 0, or a
 * negative errno after one line on `errors`. Counters, in a set of its own named after the agent
 * and the output such as "log.mainlog": buffered_bytes, waiting_records; of files also rotations,
 * rotation_errors, compressed_files, compressed_bytes, removed_files, archive_errors.
 */
SINGLE
int log_output_open(struct log_output **out, struct log_output_host *h, const char *destination,
		    FILE *errors);

/* For operations' open: sets up what all outputs have. `name` is copied, and made a path. */
SINGLE
void log_output_init(struct log_output *o, const struct log_output_ops *ops,
		     struct log_output_host *h, const char *name);

/* For operations' close: frees what log_output_init() made and what is in the buffers. */
SINGLE
void log_output_free(struct log_output *o);

/* Room for one record of at most `max` bytes, up to LOG_RECORD_MAX. Never NULL: who asks
 * log_output_full() before each block of records may let that block overrun the limit. Ask for what
 * is needed: what does not fit into the rest of a buffer begins a new one. */
BOUND
char *log_output_reserve(struct log_output *o, size_t max);

/* The record that was reserved last is `len` bytes, without a newline. May be left out: then there
 * is no record. */
BOUND
void log_output_commit(struct log_output *o, size_t len);

/* Back-pressure: let no more blocks of records in for now. */
BOUND
static inline bool log_output_full(const struct log_output *o)
{
	return o->pieces >= LOG_PIECES_MAX;
}

BOUND
static inline bool log_output_empty(const struct log_output *o)
{
	return o->committed == o->written;
}

/* Records so far. What was committed when this was n is on disk, not synced, once
 * log_output_written() is n or more. */
BOUND
static inline uint64_t log_output_committed(const struct log_output *o)
{
	return o->committed;
}

BOUND
static inline uint64_t log_output_written(const struct log_output *o)
{
	return o->written;
}

/* Writes what is buffered: some of it, without blocking for long. `now_ms`: monotonic. Returns the
 * number of writes made. */
BOUND
int log_output_do_work(struct log_output *o, uint64_t now_ms);

/* Puts the records that are written aside, and goes on with an empty file, now. No record is lost,
 * split or repeated. 0, and o->rotated is where they are; -ENODATA when there are none, -EAGAIN
 * when a record was written in part (it happens when the rest is), -ESTALE when somebody else had
 * moved the file (it is opened anew), -ENOTSUP for outputs that are not rotated, or why it failed:
 * then nothing changes. */
BOUND
int log_output_rotate(struct log_output *o, uint64_t now_ms);

/* It failed, and tries again at o->retry_ms. */
BOUND
static inline bool log_output_failed(const struct log_output *o)
{
	return o->failed || o->reopen;
}

/* Opens it anew, now. When that fails the old file is used until it works; it is tried every
 * second. A record that the old file has in part goes to the new one as a whole. */
BOUND
void log_output_reopen(struct log_output *o, uint64_t now_ms);

/* The program must end although the output takes nothing: what is in the buffers goes to stderr,
 * and counts as written. */
BOUND
void log_output_abandon(struct log_output *o);

/* What was written reaches the disk; what goes wrong is said on stderr, as logs are over by then.
 */
BOUND
void log_output_sync(struct log_output *o);

/* NULL is ignored. What is in the buffers is lost. */
SINGLE
void log_output_close(struct log_output *o);

/*
 * For operations' write: what is to be written next, as up to `max` spans, and their number. They
 * begin where writing stopped and hold whole records of together at most `limit` bytes, but at
 * least one (the rest of one). They are valid until something is committed or written.
 */
BOUND
int log_output_gather(const struct log_output *o, struct iovec *iov, int max, uint64_t limit);

/* Did writing stop within a record? */
BOUND
bool log_output_in_record(const struct log_output *o);
