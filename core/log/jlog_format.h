/* clang-format off */
/*
 * Journals on disk, as libjlog of OmniTI Labs has them (jlog.h, jlog_private.h), so that its
 * readers and tools work with ours. A journal is a directory:
 *
 *     metastore           struct jlog_meta; locked while the number of the last segment changes
 *     0000001a            a segment: records one after the other; locked while one is appended.
 *                         Records go to the segment `storage_log` of the metastore; those before
 *                         it are closed, and never appended to again
 *     0000001a.idx        where its records begin, 8 bytes each; closed: one more entry of 0. It
 *                         may be missing or behind, and whoever reads by it brings it up to date
 *     cp.62696c6c696e67   the checkpoint of the subscriber "billing", its name in hexadecimal:
 *                         struct jlog_id of the last record that it is done with
 *     dr.62696c6c696e67   ours alone, and passed over by others: what "billing" has lost since it
 *                         was dropped (jlog_dropped.h)
 *     pre_commit          of writers that gather; we have none, and leave it alone
 *
 * Numbers are of the machine's byte order. A record is a header and its bytes, without padding or
 * checksum: what is cut short is found out by its length, and zeros by the magic number.
 */
/* clang-format on */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/runtime/thread_class.h"

#define JLOG_MAGIC UINT32_C(0x663A7318)
/* Of journals with compressed records, whose headers are longer: these bits, and others. */
#define JLOG_MAGIC_COMPRESSED UINT32_C(0x15106A00)
#define JLOG_HEADER_BYTES 16U
/* Of a segment's name, with NUL. */
#define JLOG_SEGMENT_NAME 9
#define JLOG_INDEX_NAME (JLOG_SEGMENT_NAME + 4)
/* Octets of a subscriber's name: a file name has 255, and each takes two. */
#define JLOG_SUBSCRIBER_MAX 126

/* A place in a journal: the record `marker` of the segment `log`, counted from 1; 0: before the
 * first. */
READONLY
struct jlog_id {
	uint32_t log;
	uint32_t marker;
};

READONLY
struct jlog_header {
	uint32_t magic;
	uint32_t seconds;
	uint32_t microseconds;
	/* Of the bytes that follow. */
	uint32_t len;
};

_Static_assert(sizeof(struct jlog_header) == JLOG_HEADER_BYTES, "as it is on disk");

/* What is synced to the disk, and when; libjlog's numbers. */
enum jlog_safety {
	/* Never. */
	JLOG_UNSAFE,
	/* A segment when it is full, and at the end. */
	JLOG_ALMOST_SAFE,
	/* Each batch before it counts as written, and checkpoints. */
	JLOG_SAFE,
};

READONLY
struct jlog_meta {
	uint32_t storage_log;
	/* A segment that has as many bytes or more is full. */
	uint32_t unit_limit;
	/* enum jlog_safety */
	uint32_t safety;
	/* Of the headers of records. */
	uint32_t magic;
};

_Static_assert(sizeof(struct jlog_meta) == 16, "as it is on disk");

/* Puts the header of a record of `len` bytes, written at `wall_us` since 1970, at `at`, which has
 * room for JLOG_HEADER_BYTES and needs no alignment. */
CONCURRENT
static inline void jlog_put_header(void *at, uint32_t len, uint64_t wall_us)
{
	const struct jlog_header h = {
		.magic = JLOG_MAGIC,
		.seconds = (uint32_t)(wall_us / 1000000),
		.microseconds = (uint32_t)(wall_us % 1000000),
		.len = len,
	};

	memcpy(at, &h, sizeof(h));
}

/* Negative, 0 or positive: `a` is before, at or after `b`. */
CONCURRENT
static inline int jlog_id_compare(struct jlog_id a, struct jlog_id b)
{
	if (a.log != b.log) {
		return a.log < b.log ? -1 : 1;
	}
	return (a.marker > b.marker) - (a.marker < b.marker);
}
