/*
 * The domain of a message's author, out of its From field: that of the first address (RFC 5322
 * section 3.4), however it is quoted, commented and folded. What comes is the field in DKIM's
 * relaxed form, in pieces.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

/* Longest domain, with its NUL. */
#define DKIM_AUTHOR_MAX 256

SINGLE
struct dkim_author {
	char *domain;
	size_t len;
	/* Depth of comments. */
	unsigned comments;
	/* Behind the name of the field. */
	bool value;
	bool quoted;
	bool escaped;
	bool angle;
	bool in_domain;
	/* The domain is too long, or none. */
	bool bad;
	bool done;
};

/* `domain` has room for DKIM_AUTHOR_MAX bytes. */
SINGLE
void dkim_author_init(struct dkim_author *a, char *domain);

/* For a sink; its context is the struct. */
SINGLE
void dkim_author_take(void *author, const void *data, size_t len);

/* True when there is a domain; then it is in lower case and NUL-terminated. */
SINGLE
bool dkim_author_end(struct dkim_author *a);
