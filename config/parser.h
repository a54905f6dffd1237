/*
 * From files to a tree. Hand-written recursive descent over the stanza language; README.md has the
 * grammar. After an error it goes on at the next line, so that one load reports all of them.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "config/report.h"
#include "config/tree.h"
#include "core/runtime/thread_class.h"

/* Parse the file at `path`, and all it includes, into the root of `tree`. Errors are reported.
 * Returns 0 when the file could be read, whatever it says, else a negative errno. */
SINGLE
int parser_load_file(struct tree *tree, struct report *report, const char *path);

/* The same from memory; `path` names it in messages, and includes are relative to its folder. */
SINGLE
void parser_load_text(struct tree *tree, struct report *report, const char *path, const char *text,
		      size_t len);

/* One value alone, such as a default. Returns 0, or -EINVAL when `text` is not exactly one. */
SINGLE
int parser_value(struct tree *tree, const char *text, struct source source,
		 struct tree_value *value);

/* Where the value begins and ends in `text`, which has nothing else but comments around it and is
 * one line. 0, or -EINVAL when it is not like that. */
SINGLE
int parser_value_find(const char *text, const char **begin, const char **end);
