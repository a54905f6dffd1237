/*
 * Log journal: an output that appends records to a journal (core/log), for programs that follow it.
 * A record counts as written when the journal has it, and with JLOG_SAFE the disk.
 *
 * A subscriber that never reads stops nothing: at the size limit it is dropped, which the errors
 * and the counter dropped_subscribers tell. A full disk is another matter: then records wait, as
 * for a log file.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "agents/log_output.h"
#include "core/log/jlog_format.h"

#define LOG_JOURNAL_SEGMENT_BYTES (4U << 20)
#define LOG_JOURNAL_LIMIT_BYTES (UINT64_C(1) << 30)

/* How one journal is to be; strings outlive it. */
READONLY
struct log_journal_options {
	/* As in its destination, "jlog:NAME". */
	const char *name;
	uint32_t segment_bytes;
	/* 0: none. */
	uint64_t limit_bytes;
	enum jlog_safety safety;
	const char *const *subscribers;
	uint32_t subscriber_count;
};

/*
 * Opens journal `name` of the host's directory, by the host's options for it, or else segments of 4
 * MiB, 1 GiB at most, JLOG_ALMOST_SAFE. Returns 0, or a negative errno after one line on `errors`.
 * Counters, in the output's set: segments, removed_segments, dropped_subscribers, syncs.
 */
SINGLE
int log_journal_open(struct log_output **out, struct log_output_host *h, const char *name,
		     FILE *errors);
