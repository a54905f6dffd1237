/*
 * A growable run of bytes, for output that waits, input that is not yet complete and JSON. The
 * load tools end with a message when memory runs out: nothing here can fail.
 *
 * Zeroed memory is an empty text. Start reading at text_append().
 */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct text {
	char *data;
	size_t len;
	size_t capacity;
};

/* Makes room for `more` bytes behind what is there. */
void text_reserve(struct text *t, size_t more);

void text_printf(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Appends `value` as a JSON string with its quotes; bytes that are not ASCII become \u00XX. */
void text_append_json(struct text *t, const char *value);

/* Appends `value` in decimal. */
void text_append_number(struct text *t, uint64_t value);

/* Drops the first `count` bytes. */
void text_consume(struct text *t, size_t count);

/*
 * Writes the whole text to `path` so that a reader sees either the old or the new contents.
 * Returns 0 or a negative errno.
 */
int text_write_file(const struct text *t, const char *path);

void text_free(struct text *t);

static inline void text_append(struct text *t, const void *bytes, size_t len)
{
	if (t->capacity - t->len < len) {
		text_reserve(t, len);
	}
	if (len > 0) {
		memcpy(t->data + t->len, bytes, len);
		t->len += len;
	}
}

static inline void text_append_string(struct text *t, const char *string)
{
	text_append(t, string, strlen(string));
}
