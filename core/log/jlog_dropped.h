/*
 * Subscribers that were dropped at the size limit, for as long as nobody knows: a file of each in
 * the journal's directory, `dr.` and the name in hexadecimal, which readers of the format pass
 * over. It counts what was removed before the subscriber came back, and is void once that reads on:
 * when its checkpoint is another than it came back with, whoever has moved it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/log/jlog_directory.h"
#include "core/log/jlog_format.h"

READONLY
struct jlog_dropped {
	uint64_t magic;
	/* When, milliseconds since 1970, and where it was. */
	uint64_t wall_ms;
	struct jlog_id at;
	/* At least: of segments that were removed, as far as it had not passed them. */
	uint64_t lost_records;
	uint64_t lost_bytes;
	/* Where it begins since it came back; UINT32_MAX: it has not. */
	struct jlog_id back_at;
};

/* `name` is dropped at `at`; said before it is. What it lost an earlier time, and was not told of,
 * is kept. Returns 0 or a negative errno. */
SINGLE
int jlog_dropped_put(int directory, const char *name, struct jlog_id at);

/* A segment of so many records was removed, as far as its index told: those who have not come back
 * have lost it. */
SINGLE
void jlog_dropped_lose(int directory, const struct jlog_segment *segment, uint32_t records);

/* `name` has come back, and begins at `at`. */
SINGLE
void jlog_dropped_return(int directory, const char *name, struct jlog_id at);

/* What a subscriber whose checkpoint is now `checkpoint` has lost and does not know of; false:
 * nothing. */
SINGLE
bool jlog_dropped_get(int directory, const char *name, struct jlog_id checkpoint,
		      struct jlog_dropped *dropped);

/* It is known, or of nobody any more. */
SINGLE
void jlog_dropped_forget(int directory, const char *name);
