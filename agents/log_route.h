/*
 * Routes of log records: which outputs an event goes to, and in which form. Worked out once, at the
 * start, for each kind of event; outputs are shared by all that name them.
 *
 * Owner: the log writer. Start reading at log_routes_event().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "agents/log_client.h"
#include "agents/log_output.h"
#include "config/config.h"
#include "core/log/event.h"
#include "core/mail/bounce_class.h"

READONLY
struct log_options {
	/* Directory; made if it is not there (one level). */
	const char *path;
	/* 0: none. */
	uint64_t heartbeat_ms;
	/* By enum log_file; NULL: a file each, of its usual name. */
	const struct log_destinations *logs;
	/* Whether the bounce log has those that are tried again. */
	bool transient_failures;
	/* In the order in which they log. */
	const struct custom_logger *custom;
	uint32_t custom_count;
	/* They name classes of failures; NULL: nobody does. Kept by the caller. */
	const struct bounce_rules *rules;
	struct log_rotation rotation;
};

/* One log's, or custom logger's, wish for events of one kind. */
BOUND
struct log_target {
	/* Its place in log_routes.outputs. */
	uint32_t output;
	enum log_file log;
	/* NULL: as text, or as JSON, as the output is. */
	const struct event_macro *macro;
	const struct event_sanitizer *sanitizer;
};

BOUND
struct log_routes {
	struct log_output *outputs[LOG_DESTINATIONS_MAX];
	/* Static or the caller's, as configured. */
	const char *names[LOG_DESTINATIONS_MAX];
	uint32_t output_count;
	struct log_target *targets[EVENT_KINDS];
	uint32_t target_count[EVENT_KINDS];
	/* Outputs of what travels in each log's blocks, a bit each. */
	uint32_t reached[LOG_FILES];
	bool transient_failures;
	const struct bounce_rules *rules;
};

/* Opens all outputs. 0, or a negative errno after one line on `errors`: then, as later, there is
 * log_routes_close(). */
SINGLE
int log_routes_open(struct log_routes *r, struct log_output_host *h,
		    const struct log_options *options, FILE *errors);

SINGLE
void log_routes_close(struct log_routes *r);

/* Formats a decoded event for all who want it, into their outputs' buffers. */
BOUND
void log_routes_event(struct log_routes *r, const struct event *e);

/* A line of paniclog, `len` bytes without a newline. */
BOUND
void log_routes_line(struct log_routes *r, const char *line, size_t len);

/* Some output that blocks of `log` reach takes no more for now. */
BOUND
bool log_routes_full(const struct log_routes *r, enum log_file log);
