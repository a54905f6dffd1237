/*
 * Trace: whole SMTP dialogues of connections that an operator asks for, in a file below log.path.
 * This is what a trace is, and which connections it wants; trace_client.h is the schedulers' side,
 * which listens, trace_file.h the log agent's, which writes.
 *
 * A trace is made by the console's scheduler, told to every scheduler by task, and gone when all of
 * them and the log agent have let go of it. It does not survive a restart.
 */
#pragma once

#include <limits.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "core/mail/envelope.h"
#include "core/runtime/agent.h"
#include "core/runtime/thread_class.h"
#include "core/runtime/timer.h"

#define TRACE_MAGIC 0x74726163U
/* At a time. */
#define TRACES_MAX 16
#define TRACE_DOMAIN_MAX 255
#define TRACE_LISTENER_MAX 107
#define TRACE_NAME_MAX 64
/* Of a trace that says nothing of them: a forgotten one fills no disk. */
#define TRACE_SESSIONS_DEFAULT 1000
#define TRACE_BYTES_DEFAULT (UINT64_C(64) << 20)
#define TRACE_TIME_DEFAULT_MS (60 * 60 * UINT64_C(1000))

enum trace_direction { TRACE_BOTH, TRACE_IN, TRACE_OUT };

/* Which connections, and how much of them. Empty strings: any. */
READONLY
struct trace_spec {
	enum trace_direction direction;
	/* Of a recipient; lower case. */
	char domain[TRACE_DOMAIN_MAX + 1];
	bool has_peer;
	struct cidr peer;
	/* Deliveries only: what a client's mail is sent by is known when it has ended. */
	char binding[ENVELOPE_BINDING_MAX + 1];
	/* As in `listen "NAME"`; receptions only. */
	char listener[TRACE_LISTENER_MAX + 1];
	/* One of so many that match, 1 or more. */
	uint64_t sample;
	/* Connections in all, bytes of the file. */
	uint64_t sessions_max;
	uint64_t bytes_max;
	/* It ends by itself after so long, ms. */
	uint64_t time_ms;
	/* Message content is written, too. */
	bool content;
	/* Of the file; empty: trace-NUMBER.log. */
	char name[TRACE_NAME_MAX + 1];
};

CONCURRENT
struct trace {
	uint32_t magic;
	/* Immutable once schedulers know of it. */
	struct trace_spec spec;
	/* Which of TRACES_MAX, and its number, which is in no other trace's file name. */
	unsigned slot;
	uint64_t number;
	/* Whose scheduler it belongs to, and who else is to let go of it. */
	struct agent *owner;
	uint32_t users;
	uint64_t until_wall_ms;

	/* The log agent's. */
	int fd;
	char path[PATH_MAX];
	uint32_t left;
	int open_result;

	/* The owner's: when it ends, and who is told of what was asked for. */
	struct timer timer;
	void (*on_opened)(struct trace *t, int result);
	void (*on_closed)(struct trace *t);

	/* Anybody's: connections that match, that are traced, and of them open; lines and bytes
	 * given to the log agent, lines that were not. */
	_Alignas(CACHE_LINE) _Atomic uint64_t matched;
	_Atomic uint64_t sessions;
	_Atomic uint64_t open;
	_Atomic uint64_t lines;
	_Atomic uint64_t bytes;
	_Atomic uint64_t dropped;
	/* No room by the limit of bytes; a write failed. What comes now is dropped. */
	_Atomic bool full;
	_Atomic bool failed;
};

/* What is known of a connection when it begins. */
SINGLE
struct trace_facts {
	bool inbound;
	/* IPv4 as v4-mapped. */
	struct in6_addr peer;
	uint16_t port;
	/* Of an inbound one; NULL: of none. */
	const char *listener;
	/* Of an outbound one. */
	const char *binding;
	/* Whose mail it is for; NULL: not known yet. */
	const char *domain;
};

enum trace_match { TRACE_NO, TRACE_YES, TRACE_WHEN_DOMAIN_IS_KNOWN };

/* Does the trace want such a connection? */
READONLY
enum trace_match trace_matches(const struct trace_spec *spec, const struct trace_facts *f);

/* One more connection matches: is it to be traced, by sample and limit? Counts it, if so. */
CONCURRENT
bool trace_admit(struct trace *t);

/* May `bytes` more be written, as the limits of bytes and time go? Counts them and a line, or a
 * dropped one. */
CONCURRENT
bool trace_take(struct trace *t, size_t bytes, uint64_t now_wall_ms);

/* A line was not written. */
CONCURRENT
void trace_drop(struct trace *t);

/* A name for a file in the logs' folder, and nowhere else: letters, digits, - _ and dots, not in
 * front. NULL when it is one, else what is wrong with it: the rest of a sentence. */
READONLY
const char *trace_name_wrong(const char *name);

/* The conditions as the console takes them, without the limits; empty: every connection. */
READONLY
void trace_describe(const struct trace_spec *spec, char *text, size_t size);
