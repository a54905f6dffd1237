/*
 * Reply: the text of one answer, in pieces, so that rows which several schedulers have written are
 * sent as they are, without being copied together.
 */
#pragma once

#include <stddef.h>
#include <sys/uio.h>

#include "agents/scheduler.h"
#include "core/runtime/thread_class.h"

/* A row set and a comma from each scheduler, and what is around them. */
#define REPLY_PIECES (2 * SCHEDULERS_MAX + 16)

SINGLE
struct reply {
	char *owned[REPLY_PIECES];
	struct iovec iov[REPLY_PIECES];
	unsigned count;
};

/* Appends `len` bytes of `text` (malloc), which the reply takes over. Nothing is added for NULL or
 * no bytes. */
SINGLE
void reply_take(struct reply *r, char *text, size_t len);

/* Appends a copy. */
SINGLE
void reply_text(struct reply *r, const char *text);

SINGLE
void reply_close(struct reply *r);
