/*
 * Text into fixed places: cut where it does not fit, always NUL-terminated. What stands in text of
 * ours for an octet that would tear its line. And whether two texts are one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "core/runtime/hex.h"
#include "core/runtime/thread_class.h"

/* Longest escape of an octet, bytes. */
#define TEXT_ESCAPE 4

/* Copies `from` into `to` of `size` bytes (1 or more), cut at the end. */
CONCURRENT
static inline void text_copy(char *to, size_t size, const char *from)
{
	size_t len = strnlen(from, size - 1);

	memcpy(to, from, len);
	to[len] = '\0';
}

/* Both say the same, or neither is there (NULL). */
CONCURRENT
static inline bool text_same(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* Writes the escape of an octet, whether it needs one or not: a backslash and one of "nrt" for a
 * line feed, a carriage return or a tab, the octet itself if it is printable ASCII, else "x" and
 * two digits. Returns the length. */
CONCURRENT
static inline size_t text_escape_octet(unsigned char c, char to[TEXT_ESCAPE])
{
	to[0] = '\\';
	to[1] = c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\t' ? 't' : (char)c;
	if (to[1] != (char)c || (c >= ' ' && c < 127)) {
		return 2;
	}
	to[1] = 'x';
	to[2] = HEX_DIGITS[c >> 4];
	to[3] = HEX_DIGITS[c & 15];
	return TEXT_ESCAPE;
}
