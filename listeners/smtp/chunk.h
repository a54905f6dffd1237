/*
 * Chunk: the octets that follow a BDAT command (RFC 3030). They are put into wire form as they
 * come, so that a message is stored alike whether DATA or BDAT brought it. The octets of a chunk
 * that is refused are read and thrown away before the refusal is sent, as the RFC asks: they are
 * never taken for commands. A refused chunk ends its transaction; the chunks that a client sent
 * behind it without waiting are out of order then, so that no message loses its middle.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/smtp_refusal.h"
#include "core/runtime/thread_class.h"
#include "listeners/smtp/counts.h"

struct smtp_session;

BOUND
struct smtp_chunk {
	/* Octets, and how many of them are still to come. */
	uint64_t size;
	uint64_t left;
	bool last;
	/* Why they are thrown away, and where that is counted; NULL: they are kept. */
	const struct smtp_refusal *refusal;
	enum smtp_count count;
};

/* A chunk of `size` octets follows: the next one of the transaction, or with `refusal` one that is
 * thrown away. An empty one is over at once. */
BOUND
void smtp_chunk_begin(struct smtp_session *ss, uint64_t size, bool last,
		      const struct smtp_refusal *refusal, enum smtp_count count);

/* Takes octets of the chunk; returns how many it used, 1 or more. At its end the session is
 * answered, or waits for the spool. */
BOUND
size_t smtp_chunk_feed(struct smtp_session *ss, const unsigned char *data, size_t len);
