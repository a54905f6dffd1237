/*
 * Text that grows while it is written: an answer in the making. Running out of memory ends the
 * program.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

SINGLE
struct text {
	/* malloc; NULL while there is nothing. Not NUL-terminated. */
	char *data;
	size_t len;
	size_t size;
};

SINGLE
void text_add(struct text *t, const char *data, size_t len);

/* Appends a NUL-terminated string. */
SINGLE
void text_put(struct text *t, const char *string);

/* Appends what a format makes, at most 4 KiB of it. */
SINGLE
void text_format(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

SINGLE
void text_close(struct text *t);
