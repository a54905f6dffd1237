/*
 * Errors and warnings of one load: FILE:LINE: what is wrong; expected ... They are gathered while
 * the files are parsed and understood, and printed in the order of the files' lines. All are
 * counted; the first REPORT_MAX are kept.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "config/tree.h"
#include "core/runtime/thread_class.h"

enum { REPORT_MAX = 100 };

SINGLE
struct report_message {
	struct source source;
	/* In order of discovery, for those of one line. */
	uint32_t number;
	char *text;
};

SINGLE
struct report {
	FILE *out;
	/* For the names of files. */
	const struct tree *tree;
	uint32_t errors;
	uint32_t warnings;
	struct report_message messages[REPORT_MAX];
	uint32_t message_count;
};

SINGLE
void report_error(struct report *report, struct source source, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

SINGLE
void report_warning(struct report *report, struct source source, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Prints what was gathered, with a last line when there was more. */
SINGLE
void report_close(struct report *report);
