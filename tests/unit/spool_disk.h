/*
 * A disk, simulated below the multiplexor: operations take place when the test lets them, faults
 * are put in, and at any moment the directory can be copied as a power cut would leave it: what was
 * synced is there, of the rest any sectors. A synced write syncs what it wrote, and no more. What
 * is read or written through a descriptor with O_DIRECT must be aligned.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/runtime/mux_backend.h"

struct world;

struct disk_write {
	struct disk_write *next;
	uint64_t offset;
	size_t len;
	unsigned char data[];
};

struct disk_file {
	struct disk_file *next;
	char name[32];
	unsigned char *durable;
	size_t size;
	struct disk_write *first;
	struct disk_write **last;
};

struct disk {
	struct mux base;
	struct mux_list ops;
	struct disk_file *files;
	uint64_t seed;
	/* Operations run by one reap; 0: all. */
	int per_reap;
	/* Called for each operation: 0 to go on, a negative errno for its result, or, for a write,
	 * how many bytes of it to write. */
	int (*on_fault)(struct world *w, const struct mux_op *op);
	/* Called after each operation. */
	void (*on_op)(struct world *w);
	struct world *world;
	uint64_t writes;
	/* Of them, synced; and direct. */
	uint64_t synced_writes;
	uint64_t direct_writes;
	uint64_t syncs;
};

uint64_t disk_random(struct disk *d);
/* The directory as a power cut would leave it, in `to` (made). */
void disk_power_cut(struct disk *d, const char *from, const char *to);
/* Makes it a multiplexor with nothing under way. */
void disk_reset(struct disk *d);

void disk_copy_directory(const char *from, const char *to);
void disk_remove_directory(const char *path);
