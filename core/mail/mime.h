/*
 * MIME: the parts of a message that someone else wrote (RFC 2045, RFC 2046), found without copying
 * them, as far as limits allow. What is malformed is text.
 *
 * Start reading at mime_walk().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "core/mail/chain.h"
#include "core/runtime/thread_class.h"

/* Multiparts in multiparts, and parts in all. */
#define MIME_DEPTH_MAX 8
#define MIME_PARTS_MAX 64
#define MIME_TYPE_MAX 128

enum mime_encoding { MIME_PLAIN, MIME_BASE64, MIME_QUOTED_PRINTABLE };

/* Points into the text that is walked. */
SINGLE
struct mime_part {
	const char *header;
	size_t header_len;
	const char *body;
	size_t body_len;
	/* "text/plain", in lower case. */
	char type[MIME_TYPE_MAX];
	enum mime_encoding encoding;
	/* 0: the message itself. */
	unsigned depth;
};

/* The first `max` bytes of a body in wire form, its dots taken out; malloc, with a NUL behind its
 * `*len` bytes. */
SINGLE
char *mime_unstuff(const struct chain *body, size_t max, size_t *len);

/* Calls `visit` for the message and each part in it, a multipart before its parts, until it returns
 * false. Messages in messages are not entered. False: not all parts have been visited. */
SINGLE
bool mime_walk(const char *text, size_t len,
	       bool (*visit)(void *context, const struct mime_part *part), void *context);

/* Fills in type and encoding from the part's header. */
SINGLE
void mime_describe(struct mime_part *part);

/* Parameter `name` (any case) of a field's value such as `text/plain; charset="utf-8"`, into `to`
 * of `size` bytes, cut if need be. False, and empty, when there is none. */
SINGLE
bool mime_parameter(const char *value, const char *name, char *to, size_t size);

/* The part's body, decoded, into `to` of `size` bytes, cut if need be, NUL-terminated. Returns its
 * length. */
SINGLE
size_t mime_decode(const struct mime_part *part, char *to, size_t size);
