/*
 * Programs that do the work of `flywheel config`: git, which is the engine of the repository, and
 * flywheeld, which knows what is valid. Each is run to its end, and what it printed is kept.
 */
#pragma once

#include <stdbool.h>

#include "core/runtime/thread_class.h"

/* How a program ended: its exit status (127: it could not be run, 128 and more: by a signal), and
 * what it printed, without the last newline. */
SINGLE
struct ran {
	int status;
	char *out;
	char *errors;
};

/* Runs a program, found in PATH unless it has a slash in it; `words` ends with NULL. Its standard
 * input is empty. True when it ended with 0. */
SINGLE
bool program_run(struct ran *r, const char *const *words);
SINGLE
void ran_free(struct ran *r);

/* Runs git in a folder, with the words up to NULL. */
SINGLE
bool git_run(struct ran *r, const char *folder, ...) __attribute__((sentinel));

/* The same when only its answer matters: what it printed, to be freed; NULL: it failed. */
SINGLE
char *git_ask(const char *folder, ...) __attribute__((sentinel));

/* The index that git works with from now on, instead of the folder's own; NULL: that one. */
SINGLE
void git_use_index(const char *path);
