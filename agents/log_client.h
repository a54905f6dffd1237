/*
 * Log client: an agent's side of the logs. Events are gathered in blocks, which go to the log
 * writer by ring, once in each duty cycle, and come back empty. Formatting is the writer's.
 *
 * Start reading at log_event().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/log/destination.h"
#include "core/log/event.h"
#include "core/runtime/agent.h"
#include "core/runtime/pool.h"

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
	/* The writer's: records of each output up to the block's last one; 0: it got none. */
	uint64_t ends[LOG_DESTINATIONS_MAX];
	/* Given up by the writer: some of its records are not where they belong. */
	bool lost;
	/* Records of events (core/log/event.h); of LOG_PANIC lines, each with its LF. */
	unsigned char data[];
};

/* Somebody who waits until what was logged is in its files. */
SINGLE
struct log_wait {
	struct log_wait *next;
	/* The block to come back, by its number. */
	uint64_t block;
	/* 0, or -EIO when the line is lost. May free the wait. */
	void (*on_written)(struct log_wait *w, int result);
};

BOUND
struct log_client {
	struct agent *self;
	/* NULL: everything goes to stderr at once, as text (before the log agent is up, and in
	 * tests). */
	struct agent *writer;
	struct pool blocks;
	struct log_block *open[LOG_FILES];
	/* Blocks that the writer holds. */
	uint32_t outstanding;
	/* Of each file: blocks ever begun, and come back, which they do in order. */
	uint64_t begun[LOG_FILES];
	uint64_t back[LOG_FILES];
	struct log_wait *waits[LOG_FILES];
	struct log_wait **last_wait[LOG_FILES];
};

/* Sets up; the client stays where it is until it is drained. `self` may be NULL in tests without a
 * writer. */
SINGLE
void log_client_init(struct log_client *c, struct agent *self, struct agent *writer);

/* Tells the logs of an event; nothing of `e` is kept. */
BOUND
void log_event(struct log_client *c, const struct event *e);

/* The same of an event that has everything with the one before in common but numbers and the
 * strings in `changed` (bits of enum event_field), which are not NULL. */
BOUND
void log_event_again(struct log_client *c, const struct event *e, uint32_t changed);

/* Appends one line to paniclog; `line` has no newline, or one at its end. At most
 * LOG_BLOCK_SIZE - 1 bytes, and never split over two blocks. */
BOUND
void log_line(struct log_client *c, const char *line, size_t len);

/* Calls w->on_written when all events of `file` (event_log()) that this client has logged so far
 * are written, not synced, wherever they go. Later, never from within. There must be a writer. */
BOUND
void log_client_wait(struct log_client *c, enum log_file file, struct log_wait *w);

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

/* A block comes back: task of the writer's. */
BOUND
void log_client_on_written(struct agent *self, void *block, uint64_t unused);

/* Everything was handed over and has come back. */
BOUND
bool log_client_drained(const struct log_client *c);

/* For a drained client; what is left in open blocks all the same goes to stderr. */
SINGLE
void log_client_close(struct log_client *c);
