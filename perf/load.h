/*
 * The load generator: a number of SMTP sessions that share the messages of one run. One thread,
 * one edge-triggered epoll.
 *
 * load.c hands out messages, keeps time and counts; load_session.c speaks SMTP on one
 * connection; load_report.c prints. Start reading at load_run().
 *
 * In a closed loop (no rate) a session starts its next message when it is done with one, and
 * latency runs from MAIL to the final reply. In an open loop messages are due at their time
 * whatever the server does, and latency runs from that time: a server that stalls is charged for
 * every message that should have been sent meanwhile.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "perf/endpoint.h"
#include "perf/latency.h"
#include "perf/link.h"
#include "perf/message_pool.h"
#include "perf/text.h"

struct load_session;

struct load_options {
	struct endpoint to;
	unsigned sessions;
	uint64_t messages;
	uint64_t size;
	unsigned recipients;
	unsigned domains;
	/* All recipients of one message in one domain. */
	bool same_domain;
	/* What stands around the number of a domain; the second is NULL when there is no number. */
	const char *domain_prefix;
	const char *domain_suffix;
	uint64_t per_connection;
	/* Nothing is sent until every session is connected. */
	bool gather;
	/* The session that has been idle for longest is next, not the one that was used last. */
	bool turns;
	/* Messages per second; 0: closed loop. */
	double rate;
	const char *from;
	const char *id_prefix;
	const char *hostname;
	bool no_pipelining;
	/* NULL: plain text. After STARTTLS, or from the first byte. */
	SSL_CTX *tls;
	bool starttls;
	bool retry;
	uint64_t retry_delay_ns;
	/* Descriptor of the file of accepted ids, or -1. */
	int accepted_file;
	bool progress;
	uint64_t timeout_ns;
	uint64_t connect_retry_ns;
	uint64_t seed;
};

struct load_counts {
	/* How messages ended; the sum is the number of messages that were started. */
	uint64_t accepted;
	uint64_t tempfailed;
	uint64_t permfailed;
	uint64_t errors;
	/* Refusals and losses that were tried again. */
	uint64_t retries;
	uint64_t recipients_accepted;
	uint64_t recipients_refused;
	uint64_t bytes;
	uint64_t connections;
	uint64_t connect_failures;
	uint64_t tls_handshakes;
	uint64_t connections_lost;
	uint64_t timeouts;
	/* Answers that are no SMTP, or that nobody asked for. */
	uint64_t protocol_errors;
};

struct load {
	struct load_options options;
	struct load_counts counts;
	struct latency latency;
	struct message_pool pool;
	size_t header_len;
	int epoll;
	int signals;
	bool stopping;
	uint64_t now_ns;
	uint64_t start_ns;
	uint64_t end_ns;
	uint64_t tick_ns;
	/* When the sessions are looked at next for pauses that are over and deadlines that passed.
	 */
	uint64_t wake_ns;
	uint64_t next_message;
	struct load_session *sessions;
	/* Sessions that are connected and have nothing to do. */
	struct load_session *idle;
	struct load_session *idle_last;
	unsigned idle_count;
	unsigned sessions_alive;
	/* Sessions are still connecting, and none may send. */
	bool gathering;
	/* The first thing that went wrong, for the summary. */
	struct text first_trouble;
	char date[48];
	char *buffer;
	uint64_t accepted_reported;
	/* Spent before the clock started, and in the end since then. */
	uint64_t cpu_us;
};

#define LOAD_READ_MAX (64U * 1024)

/* Sends all messages, or as many as it can. Returns 0 or a negative errno for a failure here. */
int load_run(struct load *load);

/* True when every message was accepted for every recipient. */
bool load_succeeded(const struct load *load);

/* True when sessions take turns, and some have waited for theirs. */
bool load_others_are_first(const struct load *load);

/*
 * Gives session `s` the next message when one is due: sets its number and where its latency
 * starts. Returns false when none is.
 */
bool load_take_message(struct load *load, struct load_session *s);

/* Lists `s` as connected with nothing to do, and takes it from that list, from anywhere in it. */
void load_add_idle(struct load *load, struct load_session *s);
void load_remove_idle(struct load *load, struct load_session *s);

/* True when no message is left that has not been handed out. */
bool load_is_drained(const struct load *load);

/* Keeps the first trouble of the run, for the summary. */
void load_note_trouble(struct load *load, const char *what, const char *detail, size_t len);

/* The size in bytes of each header, and the header of message `number` itself. */
size_t load_header_len(const struct load_options *o);
void load_append_header(const struct load *load, struct text *t, uint64_t number, uint64_t sent_ns);

/* Appends recipient `index` of message `number`, without brackets. */
void load_append_recipient(const struct load_options *o, struct text *t, uint64_t number,
			   unsigned index);

/* Appends the summary for people, or as JSON. */
void load_append_summary(const struct load *load, struct text *t);
void load_append_json(const struct load *load, struct text *t);
