/*
 * A body as one chunk of BDAT (RFC 3030): from the wire form in which it is kept, without the dots
 * that were stuffed, and without a copy.
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
	struct dot_walk walk;
};

/* Octets of the chunk that `body` makes. Looks at all of it. */
SINGLE
uint64_t chunk_length(const struct chain *body);

SINGLE
void chunk_begin(struct chunk_cursor *c, const struct chain *body);

/* Describes up to `max` further pieces as iovecs; returns how many. 0: all of it was. */
SINGLE
unsigned chunk_iov(struct chunk_cursor *c, struct iovec *iov, unsigned max);
