/*
 * A body as one chunk of BDAT (RFC 3030): from the wire form in which it is kept, without the dots
 * that were stuffed, and without a copy. One that is known to have none (ENVELOPE_UNSTUFFED) is not
 * looked at.
 */
#pragma once

#include <stdint.h>
#include <sys/uio.h>

#include "core/mail/chain.h"
#include "core/mail/dot_walk.h"
#include "core/runtime/thread_class.h"

SINGLE
struct chunk_cursor {
	/* Private: where in the body it is. */
	const struct chain_buffer *buffer;
	uint32_t at;
	bool stuffed;
	struct dot_walk walk;
};

/* Octets of the chunk that `body` makes. Looks at all of it when it may be `stuffed`. */
SINGLE
uint64_t chunk_length(const struct chain *body, bool stuffed);

SINGLE
void chunk_begin(struct chunk_cursor *c, const struct chain *body, bool stuffed);

/* Describes up to `max` further pieces as iovecs; returns how many. */
SINGLE
unsigned chunk_iov(struct chunk_cursor *c, struct iovec *iov, unsigned max);

/* Whether all of the body, which ends in CR LF, was described. */
SINGLE
bool chunk_ended(const struct chunk_cursor *c);
