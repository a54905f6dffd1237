/*
 * What the disk can do, bare: pwrite() and fdatasync() into a file that was written before, so that
 * a sync writes data and nothing else. The reference of the spool's commits.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct disk_file {
	int fd;
	uint64_t size;
	uint64_t at;
	/* What is written, `block_bytes` at most in one piece. */
	unsigned char *block;
	size_t block_bytes;
};

/* A file of `size` bytes in micro.directory, written once and synced, without a name. Ends the
 * program when there is no room. */
void disk_open(struct disk_file *f, uint64_t size, size_t block_bytes);

/* Writes the next `bytes` in one piece and syncs; from the start again when the end is reached. */
void disk_commit(struct disk_file *f, size_t bytes);

void disk_close(struct disk_file *f);
