/*
 * Log writer: owns the log files and does all their I/O, so that writing logs never blocks a
 * scheduler. Agents gather lines in blocks and hand a block over by ring; it comes back empty.
 *
 * No line is dropped: while the disk cannot take them, blocks wait here and log_client_pressure()
 * tells schedulers to stop reading from sockets.
 *
 * Start reading at log_writer_do_work(), last in log_writer.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "core/runtime/agent.h"
#include "core/runtime/pool.h"

enum log_file { LOG_MAIN, LOG_REJECT, LOG_PANIC, LOG_FILES };

#define LOG_BLOCK_SIZE 32768
/* Blocks of one agent that the writer may hold before the agent is under pressure. */
#define LOG_BLOCKS_HIGH 64
/* While the writer holds this many, a block is filled up before it is handed over. */
#define LOG_BLOCKS_EAGER 8

struct log_client;

SINGLE
struct log_block {
	struct log_block *next;
	/* Where it comes back to. */
	struct agent *from;
	struct log_client *client;
	enum log_file file;
	uint32_t len;
	char data[];
};

/* An agent's side. */
BOUND
struct log_client {
	struct agent *self;
	/* NULL: lines go to stderr at once (before the log agent is up, and in tests). */
	struct agent *writer;
	struct pool blocks;
	struct log_block *open[LOG_FILES];
	/* Blocks that the writer holds. */
	uint32_t outstanding;
};

/* Sets up; the client stays where it is until it is drained. `self` may be NULL in tests without a
 * writer. */
SINGLE
void log_client_init(struct log_client *c, struct agent *self, struct agent *writer);

/* Appends one line; `line` has no newline, or one at its end. At most LOG_BLOCK_SIZE - 1 bytes, and
 * never split over two blocks. */
BOUND
void log_line(struct log_client *c, enum log_file file, const char *line, size_t len);

/* "time@agent: text" to paniclog, escaped as in the main log. For an agent's errlog: set on_new to
 * this with the client as context. */
BOUND
void log_panic_on_new(void *client, const struct errlog_entry *entry);

/* Hands open blocks to the writer; once per duty cycle, and as the last thing that logs in it. */
BOUND
void log_client_flush(struct log_client *c);

/* Stop reading from sockets for now. */
BOUND
static inline bool log_client_pressure(const struct log_client *c)
{
	return c->outstanding > LOG_BLOCKS_HIGH;
}

/* Everything was handed over and has come back. */
BOUND
bool log_client_drained(const struct log_client *c);

/* For a drained client; what is left in open blocks all the same goes to stderr. */
SINGLE
void log_client_close(struct log_client *c);

READONLY
struct log_options {
	/* Directory; made if it is not there (one level). */
	const char *path;
	/* 0: none. */
	uint64_t heartbeat_ms;
};

struct log_writer;

/* Opens the files (append, mode 0644) so that a wrong path is known at start: NULL with one line on
 * `errors` when that fails. Stop phase 4. The path is copied, `name` is not. Counters: blocks,
 * bytes, writes, write_errors, waiting, waiting_max. */
SINGLE
struct log_writer *log_writer_create(const char *name, const struct log_options *options,
				     FILE *errors);

SINGLE
struct agent *log_writer_agent(struct log_writer *w);

/* Opens the files anew, after a rotation; a task for the writer's agent. When that fails, the old
 * file is used until it works; it is tried every second. */
BOUND
void log_writer_on_reopen(struct agent *writer, void *unused, uint64_t value);

SINGLE
void log_writer_destroy(struct log_writer *w);
