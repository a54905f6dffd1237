/*
 * Walks the records of one segment. What is not whole yet, or torn, is never given out. Segments
 * are read, not mapped: somebody may cut one short at any time.
 */
#pragma once

#include <stdint.h>

#include "core/log/jlog_format.h"

SINGLE
struct jlog_record {
	struct jlog_id id;
	/* When it was written, in microseconds since 1970. */
	uint64_t wall_us;
	/* Until the next call. */
	const unsigned char *data;
	uint32_t len;
};

SINGLE
struct jlog_scan {
	int fd;
	/* Of the record to come. */
	uint64_t offset;
	struct jlog_id last;
	/* Bytes that were passed over, as they are no records. */
	uint64_t skipped;
	/* What has been read: `filled` bytes from `at` on. */
	unsigned char *buffer;
	size_t size;
	size_t filled;
	uint64_t at;
};

/* Begins with the first record of segment `log`; `fd` stays the caller's. Never fails. */
SINGLE
void jlog_scan_begin(struct jlog_scan *s, int fd, uint32_t log);
SINGLE
void jlog_scan_end(struct jlog_scan *s);

/* Returns 1 and the next record, 0 (no whole one is left; more may come), -EBADMSG (what comes is
 * no record) or another negative errno. */
SINGLE
int jlog_scan_next(struct jlog_scan *s, struct jlog_record *r);

/*
 * Goes on to the next place that looks like a record: a header whose record ends where another
 * header or the end of the file is. For segments that nobody appends to any more. Returns 1, or 0
 * (there is none), or a negative errno.
 */
SINGLE
int jlog_scan_skip(struct jlog_scan *s);

/* The next record of a closed segment, whatever is between: like jlog_scan_next(), but never
 * -EBADMSG, and 0 means that there is no more. */
SINGLE
int jlog_scan_next_closed(struct jlog_scan *s, struct jlog_record *r);
