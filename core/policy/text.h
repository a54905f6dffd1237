/*
 * Text that policy works on: a piece of a message without its stuffed dots, in one block that may
 * grow, and header fields in it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/mail/chain.h"
#include "core/runtime/thread_class.h"

SINGLE
struct policy_text {
	char *data;
	size_t len;
	size_t size;
};

enum policy_field_mode { POLICY_FIELD_REPLACE, POLICY_FIELD_PREPEND, POLICY_FIELD_APPEND };

/* Puts `with` in the place of `len` bytes at `at`. */
SINGLE
void policy_text_splice(struct policy_text *t, size_t at, size_t len, const char *with,
			size_t with_len);

SINGLE
void policy_text_append(struct policy_text *t, const char *data, size_t len);

/* Bytes of a chain in wire form, its dots taken out, after what `t` has. `from` must be the start
 * of a line. */
SINGLE
void policy_text_load(struct policy_text *t, const struct chain *c, uint64_t from, uint64_t len);

/* Appends lines to a chain in wire form: each line end becomes CR LF, dots are stuffed, NULs left
 * out. With `whole` the last line ends in CR LF, too. True: there are bytes above 127. */
SINGLE
bool policy_text_store(const char *data, size_t len, bool whole, struct chain *to,
		       struct pool *buffers);

SINGLE
void policy_text_close(struct policy_text *t);

/* One field of a header: its place, with the CR LF at its end, and its value in that. */
SINGLE
struct policy_field {
	size_t at;
	size_t len;
	size_t value_at;
};

/* Whether a field that is written may have it. */
SINGLE
bool policy_field_is_name(const char *name);

/* The next field `name` (any case; NULL: any) at or after `from`; false: none. */
SINGLE
bool policy_field_next(const char *header, size_t len, const char *name, size_t from,
		       struct policy_field *f);

/* Its value without white space around it and without its folds, into `to`, which has room for
 * f->len bytes. Returns its length. */
SINGLE
size_t policy_field_value(const char *header, const struct policy_field *f, char *to);

/* Sets, adds or takes out (empty `value`, or NULL, replaces by nothing). CR and LF in the value
 * become a fold when white space follows, else a space, so that nobody adds fields by a value. */
SINGLE
void policy_field_set(struct policy_text *header, const char *name, const char *value, size_t len,
		      enum policy_field_mode mode);
