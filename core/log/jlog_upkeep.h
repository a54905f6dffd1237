/*
 * What a journal keeps. Segments that all subscribers have passed are removed, by the subscriber
 * that passes last or by the writer. A journal never takes more than its size limit:
 *
 * - at 80 % of it the slowest subscriber is warned of;
 * - where a further segment would go beyond it, the slowest subscriber is dropped: its checkpoint
 *   is removed, it is told when it reads next, and what only it needed is removed. Then the next.
 *   What it loses is kept in mind for when it comes back (jlog_dropped.h);
 * - what no subscriber needs, as there is none, is kept as far as the limit allows, so that one who
 *   comes later has something to begin with; the oldest goes first.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/log/jlog_format.h"

enum jlog_event {
	/* Something was put right at the start. */
	JLOG_REPAIRED,
	/* A subscriber holds 80 % of what the journal may take. */
	JLOG_NEARLY_FULL,
	/* A subscriber was dropped. */
	JLOG_DROPPED,
	/* One that was dropped has come back, without what was removed meanwhile. */
	JLOG_RETURNED,
	/* Upkeep met an error; the journal goes on. */
	JLOG_TROUBLE,
};

/* Where a journal says what an operator should know; the text is one line without the journal's
 * name, valid during the call. */
SINGLE
struct jlog_report {
	void (*say)(void *context, enum jlog_event event, const char *text);
	/* The caller's. */
	void *context;
};

CONCURRENT
void jlog_report(const struct jlog_report *report, enum jlog_event event, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Removes closed segments that all subscribers have passed; without subscribers none. Returns how
 * many, or a negative errno. */
SINGLE
int jlog_remove_passed(int directory, uint32_t storage_log);

SINGLE
struct jlog_limit {
	/* Of all segments and indexes; 0: none. */
	uint64_t bytes;
	/* What a further segment takes. */
	uint64_t segment_bytes;
	/* A warning was said and still holds. */
	bool warned;
	uint64_t removed_segments;
	uint64_t dropped_subscribers;
};

/* Holds a journal to its limit, as above; `storage_log` is never removed. Returns 0 or a negative
 * errno. */
SINGLE
int jlog_keep_limit(int directory, uint32_t storage_log, struct jlog_limit *limit,
		    const struct jlog_report *report);
