/*
 * `flywheel log`: reads journals, and looks after them, on the disk and without flywheeld.
 * Start reading at log_command().
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "core/log/jlog_format.h"
#include "core/log/jlog_scan.h"
#include "core/runtime/thread_class.h"

enum { LOG_EXIT_OK = 0, LOG_EXIT_FAILED = 1, LOG_EXIT_USAGE = 2 };

#define LOG_SUBSCRIBERS_MAX 16
#define LOG_ID_TEXT 18

/* What was asked for. */
SINGLE
struct log_request {
	/* The journal's directory. */
	const char *path;
	/* What stands after it. */
	char **words;
	int word_count;
	const char *subscribers[LOG_SUBSCRIBERS_MAX];
	unsigned subscriber_count;
	/* 0: no limit; tail: 10. */
	uint64_t count;
	bool counted;
	bool json;
	bool follow;
	bool no_checkpoint;
	bool at_end;
	bool acknowledge;
	uint64_t segment_bytes;
	uint64_t limit_bytes;
	enum jlog_safety safety;
};

/* Is `flywheel log WORD` for here, and not for flywheeld? */
CONCURRENT
bool log_command_is(const char *word);

/* Runs "log COMMAND ...": `argv` begins with "log". Returns the program's exit status. */
SINGLE
int log_command(int argc, char **argv, bool json);

/* Each runs one command, and returns the exit status. */
SINGLE
int log_read(const struct log_request *q);
SINGLE
int log_tail(const struct log_request *q);
SINGLE
int log_write(const struct log_request *q);
SINGLE
int log_subscribers(const struct log_request *q);
SINGLE
int log_stats(const struct log_request *q);
SINGLE
int log_repair(const struct log_request *q);

/* Says on standard error what is wrong with a journal, by a negative errno. Returns
 * LOG_EXIT_FAILED. */
SINGLE
int log_fault(const char *path, int rc);

/* "00000001:0000002a" */
CONCURRENT
void log_id_text(struct jlog_id id, char text[LOG_ID_TEXT]);

/* Prints a record on a line of standard output: as it is, or as one JSON object. */
SINGLE
void log_put_record(const struct jlog_record *r, bool json);
