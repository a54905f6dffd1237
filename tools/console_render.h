/*
 * Answers as people read them: an object as "Key: value" lines, an array of objects as a table,
 * what is nested under a heading of its own. Units are known by the ends of keys
 * (listeners/control/README.md). Control characters, which a remote server may have sent, are never
 * passed on to the terminal.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "core/runtime/thread_class.h"

SINGLE
void console_render(const json_t *result, FILE *out);

/* The same, or as JSON for programs. */
SINGLE
void console_put(const json_t *result, bool json, FILE *out);

/* A key as a heading: "next_due_in_s" is "Next due in". `text` has room for `size` bytes. */
CONCURRENT
void console_key_text(const char *key, char *text, size_t size);

/* A value as text in the unit that its key says; malloc. */
SINGLE
char *console_value_text(const char *key, const json_t *value);
