/*
 * What is in a journal's directory: its metastore, segments and locks. Directories are descriptors,
 * opened once.
 *
 * Locks are those that libjlog takes, exclusive ones on whole files by fcntl(2); ours belong to the
 * open file (F_OFD_SETLK), so that closing another descriptor of the same file does not end them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/log/jlog_format.h"

/* Returns a descriptor, or a negative errno. */
SINGLE
int jlog_directory_open(const char *path);

/*
 * Reads the metastore. Returns 0, -ENOENT (there is none), -EBADMSG (it is damaged, or of a version
 * before there were magic numbers), -EPROTONOSUPPORT (records are compressed) or another negative
 * errno; `*meta` is only changed with 0.
 */
SINGLE
int jlog_meta_read(int directory, struct jlog_meta *meta);

/* The number of the segment that is written: the metastore's, or, where that is not to be had, the
 * last one's. Returns 0 or a negative errno. */
SINGLE
int jlog_storage_log(int directory, uint32_t *log);

/* Locks a whole file that is open for writing. Tries for `wait_ms`, 0: once. Returns 0, -EAGAIN
 * (somebody else has it) or another negative errno. */
SINGLE
int jlog_lock(int fd, unsigned wait_ms);
SINGLE
void jlog_unlock(int fd);

/* ---- segments ---- */

READONLY
struct jlog_segment {
	uint32_t log;
	uint64_t bytes;
	/* 0: there is none. */
	uint64_t index_bytes;
};

/* In the order of their numbers. */
SINGLE
struct jlog_segments {
	struct jlog_segment *items;
	unsigned count;
};

CONCURRENT
void jlog_segment_name(uint32_t log, char name[JLOG_SEGMENT_NAME]);
CONCURRENT
void jlog_index_name(uint32_t log, char name[JLOG_INDEX_NAME]);
/* False: no name of a segment. */
CONCURRENT
bool jlog_segment_parse(const char *name, uint32_t *log);

/* Returns a descriptor or a negative errno. With O_CREAT the file's mode is 0644. */
SINGLE
int jlog_segment_open(int directory, uint32_t log, int flags);

/* Lists what is there; jlog_segments_free() what comes. Returns 0 or a negative errno. */
SINGLE
int jlog_segments_list(int directory, struct jlog_segments *list);
SINGLE
void jlog_segments_free(struct jlog_segments *list);

/* Its index, too. Returns 0 or a negative errno. */
SINGLE
int jlog_segment_remove(int directory, uint32_t log);
