/*
 * Puts a journal right that was left in any state: by a program that was killed, a power cut, a
 * disk with bad places, a copy that went wrong. Nothing that is whole is lost:
 *
 * - a record that was being written is cut off;
 * - what is no record amid records stays, and readers pass over it; repair takes it out;
 * - the metastore is made to name the last segment that there is, or the next when that one was
 *   closed already;
 * - indexes that contradict their segments, and checkpoints beyond the end, are set back.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/log/jlog_format.h"

/* What was found and put right. */
SINGLE
struct jlog_recovery {
	/* The segment that is written from now on. */
	uint32_t storage_log;
	/* The metastore was damaged, or named another segment. */
	bool metastore;
	/* Bytes of a record that was not whole. */
	uint64_t torn_bytes;
	/* Bytes amid records, or after the last of a closed segment, that are none. */
	uint64_t damaged_bytes;
	unsigned checkpoints;
};

/*
 * What a writer does first. `meta_fd` is the metastore, locked by the caller; what it says wins
 * over
 * `*meta` where it is sound, except that it takes unit_limit and safety from there. Closed segments
 * are not read. Returns 0, -EPROTONOSUPPORT (it is a journal of compressed records), -EAGAIN
 * (another program holds a lock) or another negative errno.
 */
SINGLE
int jlog_recover(int directory, int meta_fd, const struct jlog_meta *meta,
		 struct jlog_recovery *found);

/* The same for a whole journal, closed segments too, also while it is written and read. Keeps its
 * unit_limit and safety. Returns as above, or -ENOENT. */
SINGLE
int jlog_repair(const char *path, struct jlog_recovery *found);
