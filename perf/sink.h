/*
 * The SMTP sink: accepts connections, serves a session on each, enters what arrives in the
 * ledger, and fails where it is told to. One thread, one edge-triggered epoll.
 *
 * sink.c has the loop, sink_session.c one session. Start reading at sink_run().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "perf/fault.h"
#include "perf/link.h"
#include "perf/sink_ledger.h"
#include "perf/text.h"

struct sink_session;

struct sink_options {
	const char *hostname;
	/* Literal replies with their CRLF, or NULL. */
	char *replies[STAGE_COUNT];
	/* fnmatch(3) patterns for recipients; lists end with NULL; NULL when there are none. */
	const char **reject_recipients;
	const char **defer_recipients;
	bool no_pipelining;
	bool chunking;
	bool no_ehlo;
	/* NULL: plain text only. After STARTTLS, or from the first byte. */
	SSL_CTX *tls;
	bool tls_first;
	uint64_t connections_max;
	uint64_t messages_per_connection_max;
	uint64_t size_max;
	/* 0: as fast as it goes. */
	uint64_t slow_read_bytes_s;
	/* 0: run until a signal. */
	uint64_t expect_messages;
	uint64_t expect_deliveries;
	uint64_t linger_ns;
	bool progress;
	const char *stats_file;
	FILE *log;
};

struct sink {
	struct sink_options options;
	struct fault_set faults;
	struct sink_ledger ledger;
	int listener;
	int epoll;
	int signals;
	uint64_t now_ns;
	bool stopping;
	/* When the sink has what it expects: how long it still waits for connections to end. */
	uint64_t stop_ns;
	uint64_t tick_ns;
	/* No paused session wants to go on before this. */
	uint64_t resume_ns;
	struct sink_session *sessions;
	struct sink_session *paused;
	/* What all sessions read into, one at a time. */
	char *buffer;
	/* For telling whether anything changed since the statistics were written. */
	uint64_t stats_written;
	uint64_t messages_reported;
};

/* Room for input: what one recv() takes, behind what an earlier one left. */
#define SINK_READ_MAX (256U * 1024)
#define SINK_BUFFER_SIZE (2U * SINK_READ_MAX)

/*
 * Serves the listening socket `sink->listener` until a signal or until what is expected has
 * arrived. The owner has filled in options, faults and the outputs of the ledger.
 * Returns 0 or a negative errno.
 */
int sink_run(struct sink *sink);

/* Writes the statistics file if one is wanted. Returns 0 or a negative errno. */
int sink_write_stats(struct sink *sink, bool final);
