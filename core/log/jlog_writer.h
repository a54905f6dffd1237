/*
 * Writes a journal, beside other writers and any readers. The owner gathers records, each behind
 * its header, in one piece of memory, and hands many over at once: one write takes them all, up to
 * the end of the segment. A record is in the journal in whole or not at all: what a full disk has
 * cut is taken back at once, and what a crash has cut by the next start.
 *
 * Disk I/O is done here and now; locks that others hold are tried, not waited for, except at the
 * opening. Start reading at jlog_writer_write(), last in jlog_writer.c.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "core/log/jlog_format.h"
#include "core/log/jlog_upkeep.h"

READONLY
struct jlog_options {
	/* The directory; made if it is not there (one level, mode 0755). */
	const char *path;
	/* A segment that has as many is full; at most a tenth of limit_bytes, and less is made of
	 * it. 0: 4 MiB. */
	uint32_t segment_bytes;
	/* What all segments may take (jlog_upkeep.h); 0: no limit. */
	uint64_t limit_bytes;
	enum jlog_safety safety;
	/* Made if they are not there, and then they begin with the oldest record. */
	const char *const *subscribers;
	unsigned subscriber_count;
	struct jlog_report report;
};

/* Since the opening. */
SINGLE
struct jlog_writer_counts {
	uint64_t bytes;
	uint64_t writes;
	uint64_t syncs;
	uint64_t segments;
	uint64_t removed_segments;
	uint64_t dropped_subscribers;
	/* Found at the opening. */
	uint64_t torn_bytes;
};

struct jlog_writer;

/* Opens a journal, or makes one, and puts right what was left of it. Strings are not copied.
 * Returns 0, or what jlog_recover() does; -EINVAL: a subscriber cannot be called so. */
SINGLE
int jlog_writer_open(struct jlog_writer **writer, const struct jlog_options *options);

/*
 * Appends records: `len` bytes of whole ones, each a header (jlog_put_header()) and its bytes.
 * With JLOG_SAFE they are on the disk when this returns. Returns how many bytes were taken, all or
 * whole records from the beginning, which are written for good; or, when it is none, a negative
 * errno: -EAGAIN while another program holds the segment, -ENOSPC and others of write(2) and
 * fdatasync(2). After a failed sync the records go to a new segment when they are handed over
 * again; readers may then see them twice.
 */
SINGLE
ssize_t jlog_writer_write(struct jlog_writer *w, const void *records, size_t len);

/* Makes all that was written durable, whatever the safety. Returns 0 or a negative errno. */
SINGLE
int jlog_writer_sync(struct jlog_writer *w);

SINGLE
const struct jlog_writer_counts *jlog_writer_counts(const struct jlog_writer *w);

/* Syncs, unless it is JLOG_UNSAFE. NULL is allowed. Returns 0 or that sync's negative errno. */
SINGLE
int jlog_writer_close(struct jlog_writer *w);
