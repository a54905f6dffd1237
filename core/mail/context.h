/*
 * Context: what is known of a message besides its envelope, as pairs "key\0value\0" one after the
 * other: fields of its header that a log wants, metadata, and who signed it. It travels in the
 * envelope, is kept by the spool, and is told in events.
 *
 * The key of a field is its name in lower case with the colon ("subject:"), that of metadata a name
 * without one; keys that begin with a colon are the program's own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

/* Domains that signed the message by DKIM, with spaces between. */
#define CONTEXT_DKIM ":dkim"
/* What begins keys of the connection's metadata. */
#define CONTEXT_CONNECTION ":conn:"
/* Longest value of a field, and of all fields together with their keys, bytes. */
#define CONTEXT_VALUE_MAX 512
#define CONTEXT_FIELDS_MAX 2048
/* With what the program itself adds. */
#define CONTEXT_MAX 2560

SINGLE
struct context {
	uint32_t count;
	uint32_t len;
	/* Something had no room, or only a part of it. */
	bool cut;
	char pairs[CONTEXT_MAX];
};

SINGLE
static inline void context_reset(struct context *c)
{
	c->count = 0;
	c->len = 0;
	c->cut = false;
}

/* Adds a pair while all take at most `limit` bytes (up to CONTEXT_MAX). The value is cut, never
 * inside a UTF-8 character, and then c->cut is set; what has no room for its key and a byte is left
 * out. Neither has a NUL in it; the key is not empty. */
SINGLE
void context_add(struct context *c, const char *key, const char *value, size_t value_len,
		 size_t limit);

/* The value of `key` in `len` bytes of pairs, or NULL. */
CONCURRENT
const char *context_find(const char *pairs, size_t len, const char *key);

/* The next pair at `*at` (from 0 on); false: there is none. */
CONCURRENT
bool context_next(const char *pairs, size_t len, size_t *at, const char **key, const char **value);

/* Whole pairs, and nothing behind them. */
CONCURRENT
bool context_valid(const char *pairs, size_t len);
