/*
 * Trace client: a scheduler's side of traces. It listens to the streams of connections that a trace
 * wants (core/runtime/stream.h), has their words made lines (core/mail/smtp_trace.h), and sends
 * those in blocks to the log agent. While there is no trace a connection costs one look at
 * trace_client_idle().
 *
 * Lines are dropped and counted when the log agent does not keep up: mail never waits for them.
 *
 * Whether a trace of a domain wants a connection is often known when a recipient is named: until
 * then the last lines of it are kept.
 *
 * Start reading at trace_client_offer().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agents/trace.h"
#include "core/runtime/agent.h"
#include "core/runtime/pool.h"
#include "core/runtime/stream.h"
#include "core/runtime/thread_class.h"

#define TRACE_BLOCK_SIZE 16384
/* Blocks of one scheduler that are being filled or written. */
#define TRACE_BLOCKS_MAX (TRACES_MAX + 16)
/* Connections of one scheduler that are listened to, and what is kept of one that no trace wants
 * yet, bytes. */
#define TRACE_LISTENED_MAX 4096
#define TRACE_KEPT_MAX 8192

struct trace_client;
struct trace_session;

SINGLE
struct trace_block {
	struct trace_client *client;
	struct trace *trace;
	/* Of the trace, which is gone perhaps when the block comes back. */
	unsigned slot;
	uint32_t lines;
	uint32_t len;
	char data[TRACE_BLOCK_SIZE];
};

BOUND
struct trace_client {
	struct agent *self;
	/* NULL: there are no traces (tests without a log agent). */
	struct agent *log;
	/* By slot. */
	struct trace *traces[TRACES_MAX];
	uint32_t count;
	struct trace_session *sessions;
	uint32_t session_count;
	struct trace_block *open[TRACES_MAX];
	/* Blocks at the log agent, by slot; those, and open ones. */
	uint32_t away[TRACES_MAX];
	uint32_t blocks_in_use;
	struct pool blocks;
	/* Outbound connections that were listened to, to number them. */
	uint64_t outbound;
};

/* Are the client's next octets, or ours when we are the client, the beginning of a command? Asked
 * before they are looked at, of a connection that was in the middle of something when a trace
 * began. */
typedef bool (*trace_begins_fn)(const struct stream *s);

SINGLE
void trace_client_init(struct trace_client *c, struct agent *self, struct agent *log);

/* Nobody is to be traced. */
BOUND
static inline bool trace_client_idle(const struct trace_client *c)
{
	return c->count == 0;
}

/*
 * A connection begins, or more is known of it: listens to it if some trace wants it. `number` is
 * its number in the logs, 0: none. `begins`: of a connection that is open already; NULL: nothing
 * was said on it yet. What was said so far in this callback of the stream is not seen.
 */
BOUND
void trace_client_offer(struct trace_client *c, struct stream *s, const struct trace_facts *f,
			uint64_t number, trace_begins_fn begins);

/* Hands what was gathered to the log agent, unless it still has some of the same trace; once per
 * duty cycle. */
BOUND
void trace_client_flush(struct trace_client *c);

/* All that was handed over has come back. */
BOUND
bool trace_client_drained(const struct trace_client *c);

/* For a drained client whose connections are closed. */
SINGLE
void trace_client_close(struct trace_client *c);

/* One more trace; connections that are open already are still to be offered. One less: the log
 * agent is told that no more blocks of it come. */
BOUND
void trace_client_add(struct trace_client *c, struct trace *t);
BOUND
void trace_client_remove(struct trace_client *c, struct trace *t);

/* A block comes back: task of the log agent's. */
BOUND
void trace_client_on_written(struct agent *self, void *block, uint64_t unused);
