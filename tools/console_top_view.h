/*
 * The view of `top`: from what flywheeld says, now and a moment ago, to lines of text that fit on a
 * screen. It neither asks nor draws.
 *
 * Start reading at top_view(), last in console_top_view.c.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "core/runtime/thread_class.h"

enum top_rows { TOP_DOMAINS, TOP_BINDINGS };
enum top_sort { TOP_BY_RATE, TOP_BY_QUEUE, TOP_BY_CONNECTIONS, TOP_SORTS };

/* Answers to the commands of these names, and when they came, in seconds. NULL: there is none. */
SINGLE
struct top_sample {
	json_t *summary;
	json_t *memory;
	json_t *threads;
	json_t *version;
	/* `busiest` or `bindings`, as `kind` says. */
	json_t *rows;
	enum top_rows kind;
	double at_s;
};

SINGLE
struct top_screen {
	/* Characters, and lines; 0 lines: as many as there are. */
	unsigned width;
	unsigned height;
	enum top_sort sort;
	enum top_rows kind;
	bool paused;
	/* The keys are shown instead. */
	bool help;
	/* What went wrong, one line; NULL: nothing. */
	const char *trouble;
	/* Seconds between samples. */
	double interval_s;
};

/* A line of the view is a heading: it may be shown as one. */
#define TOP_HEADING '\001'

/* Writes the lines, each with a newline, headings with TOP_HEADING in front. Rates are from
 * `before` (NULL: since the start) to `now`. Control characters of what the server said are none
 * any more. */
SINGLE
void top_view(const struct top_sample *now, const struct top_sample *before,
	      const struct top_screen *screen, FILE *out);

/* The words after `busiest` that sort rows so. */
READONLY
const char *top_sort_word(enum top_sort sort);

SINGLE
void top_sample_free(struct top_sample *s);
