/*
 * Recovery's first half: the files of the directory, what state each is in, and its index, read or
 * built anew.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "spool/store.h"

SINGLE
struct tomb_list {
	struct spool_tomb *items;
	uint32_t count;
	uint32_t size;
};

/* The work in progress. */
SINGLE
struct recovery {
	const struct spool_options *options;
	FILE *errors;
	struct spool_recovery *found;
	/* All segments and messages, before they are dealt out. */
	struct segment_store all;
	/* Union-find over slots: segments that know of the same message. */
	uint32_t *parent;
	uint32_t parents;
	uint32_t *ids;
	uint32_t id_count;
	uint32_t highest_segment;
	uint64_t highest_id;
	uint64_t highest_sequence;
	/* Tombstones older than the copy of their message that counts. */
	bool old_tombs;
	struct tomb_list tombs;
};

/* One line on the errors, with the path before. */
SINGLE
void recovery_warn(struct recovery *x, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Room for one more of `count` items of `item` bytes. */
SINGLE
void *recovery_grow(void *items, uint32_t count, uint32_t *size, size_t item);

/* Finds the segments' ids. 0 or a negative errno. */
SINGLE
int recovery_list(struct recovery *x);

/* Opens a segment and adds it to x->all, with its index known; or a spare; or nothing, with a
 * warning. 0, or a negative errno: the spool cannot be used. */
SINGLE
int recovery_take_file(struct recovery *x, uint32_t id);

/* Reads a sealed segment's index; chunks of `g` stay empty. `*records` is the caller's to free. */
SINGLE
int recovery_read_index(struct recovery *x, const struct segment *g, struct index_record **records,
			uint32_t *count);

/* Writes the index and the header of a scanned segment, so that the next start need not scan it. */
SINGLE
int recovery_seal(struct recovery *x, struct segment *g);
