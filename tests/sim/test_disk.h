/*
 * What the tests of the simulated disk share: a world with a disk and nothing else, and what became
 * of files and operations, counted over many seeds.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>

#include "core/runtime/clock.h"
#include "tests/sim/disk.h"
#include "tests/sim/world.h"

#define SEEDS 300
#define PAGE 4096U
#define SECTOR 512U
#define SECTORS 24U

/* What became of something, over all seeds. */
struct tally {
	unsigned all;
	unsigned none;
	unsigned part;
};

static struct disk *d;

/* A world with the empty file /sim/file, and its first life has begun. */
static inline struct disk_node *begin(uint64_t seed)
{
	struct disk_node *n;

	world_create(seed);
	d = disk_create();
	world->disk = d;
	assert_int_equal(disk_open(d, NULL, "/sim/file", O_RDWR | O_CREAT, 0600, &n), 0);
	world->life = 1;
	return n;
}

static inline void cut_power(void)
{
	disk_process_died(d);
	disk_power_cut(d);
	world->life++;
}

static inline int try_open(const char *path, int flags, struct disk_node **out)
{
	return disk_open(d, NULL, path, flags, 0600, out);
}

static inline struct disk_node *open_at(const char *path, int flags)
{
	struct disk_node *n;

	assert_int_equal(try_open(path, flags, &n), 0);
	return n;
}

static inline bool exists(const char *path)
{
	struct stat st;

	return disk_stat(d, path, &st) == 0;
}

static inline void sync_path(const char *path)
{
	struct disk_node *n = open_at(path, O_RDONLY);

	assert_int_equal(disk_sync(d, n), 0);
	disk_release(d, n);
}

static inline void fill(struct disk_node *n, uint64_t offset, size_t len, char c)
{
	static char data[1 << 20];

	memset(data, c, len);
	assert_int_equal(disk_write(d, n, data, len, offset), len);
}

/* How many of the file's bytes are `c`. */
static inline size_t count_bytes(const char *path, char c)
{
	size_t len;
	char *data = disk_content(d, path, &len);
	size_t count = 0;

	assert_non_null(data);
	for (size_t i = 0; i < len; i++) {
		count += data[i] == c;
	}
	world_free(data, len);
	return count;
}

static inline void tally_count(struct tally *t, size_t count, size_t all)
{
	assert_true(count <= all);
	t->all += count == all;
	t->none += count == 0;
	t->part += count > 0 && count < all;
}

/* ---- operations under way ---- */

struct outcome {
	bool done;
	int result;
	/* 1 for what was done first. */
	unsigned place;
};

static unsigned places;

static inline void on_done(void *context, int result)
{
	struct outcome *o = context;

	assert_false(o->done);
	*o = (struct outcome){true, result, ++places};
}

static inline void start(enum disk_verb verb, struct disk_node *n, void *data, uint32_t len,
			 uint64_t offset, struct outcome *o)
{
	struct disk_op op = {.verb = verb, .node = n, .data = data, .len = len, .offset = offset};

	*o = (struct outcome){0};
	disk_start(d, &op, on_done, o);
	assert_false(o->done);
}

static inline void finish_all(void)
{
	while (world_next_ns() != UINT64_MAX) {
		world_advance(world_next_ns());
	}
}

static inline void advance_until(const struct outcome *o)
{
	while (!o->done) {
		world_advance(world_next_ns());
	}
}
