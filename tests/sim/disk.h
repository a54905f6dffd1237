/*
 * The simulated disk: a file system with a page cache that is honest about what is durable.
 *
 * A file has what reads see (the cache) and what a power cut leaves: what was durable, and of all
 * writes since then any subset, in sectors of 512 bytes, torn; a sector is as it was in the cache
 * at some moment. A directory's entries are made durable by a sync of the directory, each by lot
 * without one; sizes and contents by a sync of the file. After a failed sync the writes that it
 * covered may be durable or not, reads go on to see them, and no later sync makes up for it: as
 * Linux does. A kill leaves the cache, and of operations under way any part.
 *
 * A synced write (RWF_DSYNC) makes durable the sectors that it wrote, and no others, when it
 * completes; one that fails, any of them. A direct write (O_DIRECT) that is not aligned fails the
 * run: Linux would refuse it.
 *
 * Called by kernel.c only, and by life.c between lives. All of it is world memory. Paths begin with
 * "/sim/"; "/sim" itself exists from the start. What is done before the first life does not fail
 * and is durable at once: so the scenario makes what the program finds.
 *
 * Start reading at disk_node.h, which says how it is divided.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

struct disk;
/* A file or a directory; counted by the descriptors and names that refer to it. */
struct disk_node;

/* Faults, each in permille of the operations; all are off while world->calm. */
struct disk_faults {
	/* Of writes, and of what changes a size or allocates: -EIO or -ENOSPC. A write may have
	 * been carried out in part. */
	unsigned write_error;
	unsigned write_short;
	unsigned sync_error;
	unsigned read_error;
	/* Of creating a file or a directory: -ENOSPC or -EIO. Of unlinking: -EIO. */
	unsigned create_error;
	/* Each operation takes from min to max, seldom `stall_ns`. */
	uint64_t latency_min_ns;
	uint64_t latency_max_ns;
	uint64_t stall_ns;
	unsigned stall;
	/* Data blocks that the disk has, bytes; -ENOSPC above. May be changed at any time, also to
	 * less than is used. */
	uint64_t capacity;
};

/* What becomes of files opened with O_DIRECT. */
enum disk_direct {
	DISK_DIRECT,
	/* They are not opened. */
	DISK_DIRECT_NOT_OPENED,
	/* Each write to them fails: blocks are larger than anybody thinks. */
	DISK_DIRECT_NOT_WRITTEN,
};

struct disk *disk_create(void);
struct disk_faults *disk_faults(struct disk *d);
/* DISK_DIRECT until then. */
void disk_set_direct(struct disk *d, enum disk_direct direct);

/* ---- what the kernel offers: 0 or more, or a negative errno ---- */

/* open(2): flags O_CREAT, O_EXCL, O_TRUNC, O_DIRECTORY are honoured, and O_DIRECT may be refused;
 * `dir` NULL: an absolute path.
 * The node is held until disk_release(). */
int disk_open(struct disk *d, struct disk_node *dir, const char *path, int flags, mode_t mode,
	      struct disk_node **out);
void disk_release(struct disk *d, struct disk_node *n);
int disk_mkdir(struct disk *d, const char *path, mode_t mode);
int disk_unlink(struct disk *d, struct disk_node *dir, const char *path);
int disk_stat(struct disk *d, const char *path, struct stat *out);
int disk_fstat(struct disk *d, struct disk_node *n, struct stat *out);
int disk_statvfs(struct disk *d, struct statvfs *out);
int disk_truncate(struct disk *d, struct disk_node *n, uint64_t size);
/* fallocate(2) with mode 0. */
int disk_allocate(struct disk *d, struct disk_node *n, uint64_t offset, uint64_t len);
/* The `index`th name in a directory, in an order that is the disk's own, without "." and "..";
 * NULL: no more. */
const char *disk_list(struct disk *d, struct disk_node *dir, unsigned index);

/* At once, as a blocking call sees them; with faults. On a directory -EISDIR. */
ssize_t disk_read(struct disk *d, struct disk_node *n, void *data, size_t len, uint64_t offset);
ssize_t disk_write(struct disk *d, struct disk_node *n, const void *data, size_t len,
		   uint64_t offset);
/* fdatasync of a file, fsync of a directory. */
int disk_sync(struct disk *d, struct disk_node *n);

/*
 * Started now, carried out later, in any order: a write takes its data from the caller's memory in
 * pieces until it is done, so what is changed too early is seen. A sync covers the writes that had
 * completed when it was started. `on_done` runs as an event of this life.
 */
enum disk_verb { DISK_READ, DISK_WRITE, DISK_SYNC };

struct disk_op {
	enum disk_verb verb;
	struct disk_node *node;
	unsigned char *data;
	uint32_t len;
	uint64_t offset;
	/* Of a write. */
	bool direct;
	bool synced;
	/* The disk's. */
	uint64_t covers;
};

typedef void (*disk_done_fn)(void *context, int result);

void disk_start(struct disk *d, const struct disk_op *op, disk_done_fn on_done, void *context);

/* ---- the end of a life ---- */

/* The process is gone, and its descriptors: operations under way took place in any part. The
 * memory of those writes is not looked at: what they had taken by now is what was written. */
void disk_process_died(struct disk *d);
/* The power is gone, after disk_process_died(): what was not durable is there in part. */
void disk_power_cut(struct disk *d);

/* Checks after a run in which the program stopped by itself: no node is held, no operation is under
 * way. World_fail()s. */
void disk_check_closed(struct disk *d);

/* For the checks of the books: the whole content of a file, in world memory (`*len` bytes, to be
 * freed with that size); NULL: not there. */
char *disk_content(struct disk *d, const char *path, size_t *len);
