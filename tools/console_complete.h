/*
 * Completion: what the word before the cursor may become. Commands and the words they take are
 * known from flywheeld's own `help`; domains and bindings are asked for.
 *
 * Start reading at complete_words().
 */
#pragma once

#include <jansson.h>

#include "core/runtime/thread_class.h"

/* Names of a kind ("domain" or "binding") that begin with `prefix`: an array of strings, which the
 * caller gives back; NULL: nobody knows. */
typedef json_t *(*complete_names_fn)(void *context, const char *kind, const char *prefix);

SINGLE
struct complete {
	/* Rows of `help`: "command" and "arguments". */
	json_t *commands;
	complete_names_fn names;
	void *context;
};

/* What `word` may become when `before` stands before it on the line: an array of strings that begin
 * with it, sorted as they were found, each once. */
SINGLE
json_t *complete_words(const struct complete *c, const char *before, const char *word);
