/*
 * Survey: the beginnings of all messages that a writer has on disk, one after another as they lie
 * there, read by another thread than the writer's. For who looks for something that only envelopes
 * and headers say, in millions of them.
 *
 * What the writer had when the survey was opened stays readable until it is closed. Messages that
 * are over are among it, and copies of those that were moved: who asks knows which of them count.
 *
 * Start reading at survey_read().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/envelope.h"
#include "core/runtime/agent.h"
#include "core/runtime/thread_class.h"

struct segment;
struct spool;

/* A segment, as far as it had been written. */
READONLY
struct survey_segment {
	struct segment *segment;
	uint64_t end;
};

SINGLE
struct survey {
	/* Who asked, and what runs there, with the survey as object, when it is open or closed. */
	struct agent *from;
	task_fn on_done;
	void *owner;
	struct spool *spool;
	uint32_t writer;
	/* So many bytes of each body are wanted, as far as it has them. */
	uint32_t body_bytes;

	struct survey_segment *segments;
	uint32_t count;
	/* Where it is. */
	uint32_t at;
	uint64_t offset;
	/* What was read last: `len` bytes from `start` on. */
	unsigned char *data;
	size_t size;
	uint64_t start;
	size_t len;
	/* Of the last record. */
	uint64_t record_bytes;

	/* Messages seen; bytes read; places that should have been records; segments that could not
	 * be read to their end. */
	uint64_t messages;
	uint64_t bytes_read;
	uint64_t damaged;
	uint64_t unread;
};

/* One message: its envelope, whole and checked, and the beginning of its body in wire form. */
typedef void (*survey_fn)(void *context, const struct envelope *e, const char *body,
			  size_t body_len);

/* Opens a survey of `writer`, with so many bytes of each body. `v` stays where it is until it has
 * been closed; `owner` is the caller's. `on_done` runs later. */
BOUND
void survey_open(struct survey *v, struct spool *s, uint32_t writer, uint32_t body_bytes,
		 struct agent *self, task_fn on_done, void *owner);

/* Calls `each` for the next messages, until about `bytes` have been passed over or looked at.
 * Blocks. False at the end. */
SINGLE
bool survey_read(struct survey *v, uint64_t bytes, survey_fn each, void *context);

/* Gives back what it has; open again, or forgotten, when `on_done` has run. */
BOUND
void survey_close(struct survey *v, struct agent *self, task_fn on_done);
