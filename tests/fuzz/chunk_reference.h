/*
 * The chunks of a message that BDAT brings (RFC 3030), put together in wire form byte by byte: what
 * listeners/smtp/chunk.c is compared with.
 */
#pragma once

#include <stdlib.h>

#include "core/mail/smtp_command.h"
#include "tests/fuzz/dot_reference.h"

struct chunk_reference {
	unsigned char *wire;
	size_t len;
	/* The last chunk is there. */
	bool ended;
};

/* The command line that ends before `at` or, with `from`, the one that starts there; false when it
 * is no BDAT. */
static inline bool chunk_reference_command(const unsigned char *line, size_t len,
					   struct smtp_command *c)
{
	struct smtp_refusal refusal;

	return len >= 2 && line[len - 2] == '\r' && len <= SMTP_COMMAND_LINE_MAX &&
	       smtp_command_parse(c, (const char *)line, len - 2, &refusal) == 0 &&
	       c->verb == SMTP_VERB_BDAT;
}

/* Whether a BDAT command ends at `at`: then the octets of its chunk start there. */
static inline bool chunk_reference_begins(const unsigned char *said, size_t at,
					  struct smtp_command *c)
{
	size_t start = at;

	while (start > 1 && said[start - 2] != '\n') {
		start--;
	}
	return at > 0 && chunk_reference_command(said + start - 1, at - start + 1, c);
}

static inline void chunk_reference_add(struct chunk_reference *r, unsigned char byte)
{
	if (byte == '.' && dot_after_crlf(r->wire, r->len)) {
		r->wire[r->len++] = '.';
	}
	r->wire[r->len++] = byte;
}

/* The next BDAT from `at` on; other commands may stand before it. */
static inline bool chunk_reference_next(const unsigned char *said, size_t end, size_t *at,
					struct smtp_command *c)
{
	while (*at < end) {
		const unsigned char *lf = memchr(said + *at, '\n', end - *at);
		const unsigned char *line = said + *at;

		if (lf == NULL) {
			return false;
		}
		*at = (size_t)(lf - said) + 1;
		if (chunk_reference_command(line, (size_t)(lf - line) + 1, c)) {
			return true;
		}
	}
	return false;
}

/* The message whose first chunk starts at `at`, as far as it was said until `end`. */
static inline struct chunk_reference chunk_reference(const unsigned char *said, size_t at,
						     size_t end)
{
	struct chunk_reference r = {.wire = malloc(2 * (end - at) + 8)};
	struct smtp_command c;
	bool more = chunk_reference_begins(said, at, &c);

	FUZZ_CHECK(r.wire != NULL);
	while (more && c.size <= end - at) {
		for (uint64_t i = 0; i < c.size; i++) {
			chunk_reference_add(&r, said[at++]);
		}
		r.ended = c.last;
		more = !c.last && chunk_reference_next(said, end, &at, &c);
	}
	if (r.ended && r.len > 0 && r.wire[r.len - 1] != '\n') {
		r.wire[r.len++] = '\r';
		r.wire[r.len++] = '\n';
	}
	return r;
}
