/*
 * Log archive: the rotated files of one log file. They are called NAME.NUMBER-DATE, and .zst or .gz
 * behind it when compressed: "mainlog.000042-20261123T100000.zst". The number only ever grows, so
 * that files sort, and no two are the same, whatever the clock does; the date is when it was
 * rotated, local time.
 *
 * What is to be done with them is seen from the folder alone, so a pass over it continues what was
 * interrupted, by whatever. A pass blocks and runs on a worker of the thread pool, a part at a
 * time; meanwhile the log file's owner may add files, which the next pass sees.
 *
 * Start reading at log_archive_step().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agents/log_compress.h"
#include "core/runtime/thread_class.h"

struct archive_file;

READONLY
struct log_archive_options {
	enum log_compress compress;
	/* Rotated files that are kept; 0: all. */
	uint32_t keep;
};

/* A pass over the folder. */
SINGLE
struct archive_pass {
	/* Files with this number or a higher one are left alone. */
	uint64_t below;
	/* Rotated files, oldest first, and which one is next. NULL: none were looked for yet. */
	struct archive_file *files;
	size_t count;
	size_t next;
	/* Being compressed. */
	struct log_compressor *compressor;
	char *temporary;
	int from;
	int to;
	char *buffer;
};

SINGLE
struct log_archive {
	/* Read only. */
	char *folder;
	char *name;
	struct log_archive_options options;
	/* The log file's owner's: the number to be used next, and the path of the last file added.
	 */
	uint64_t next_number;
	char *last;
	/* Of whoever runs the pass. */
	struct archive_pass pass;
};

/* What one part of a pass did. */
SINGLE
struct log_archive_report {
	/* Files compressed, and their bytes before; files removed because they were too many. */
	uint64_t compressed;
	uint64_t compressed_bytes;
	uint64_t removed;
	/* 0, or a negative errno, and what failed: "compress". The pass is over then. */
	int error;
	const char *what;
};

/* Of the log file `path`. Looks at what is there: true when it has rotated files. */
SINGLE
bool log_archive_init(struct log_archive *a, const char *path,
		      const struct log_archive_options *options);

/* Moves the log file here: at `wall_s`, UNIX seconds. a->last is its path then. Never replaces a
 * file. 0 or a negative errno. */
SINGLE
int log_archive_add(struct log_archive *a, int64_t wall_s);

/* Moves the file that was added last back, unless there is a log file again: 0 or a negative errno.
 */
SINGLE
int log_archive_undo(struct log_archive *a);

/* Begins a pass over files with numbers up to and without `below`. */
SINGLE
void log_archive_begin(struct log_archive *a, uint64_t below);

/* Does a part of the pass: removes what was left half compressed and the oldest files of too many,
 * compresses a few megabytes. Blocks. True when the pass is over. */
SINGLE
bool log_archive_step(struct log_archive *a, struct log_archive_report *report);

/* Ends a pass, over or not. What was being compressed stays as it was. */
SINGLE
void log_archive_end(struct log_archive *a);

SINGLE
void log_archive_close(struct log_archive *a);
