/*
 * Reads messages back, envelope and body, and checks every checksum: what was damaged on the disk
 * is never sent.
 *
 * Start reading at load_work(), last in load.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/mux.h"
#include "spool/record.h"
#include "spool/store.h"

#define LOAD_SLOTS 8
#define LOAD_PIECE (64U * 1024)

struct loader;

/* One message being read. */
BOUND
struct load_slot {
	struct loader *loader;
	struct mux_op op;
	/* NULL: free. */
	struct spool_request *request;
	struct segment *segment;
	/* Where the piece in the buffer is from; how much of the record is not read yet, that piece
	 * included. */
	uint64_t offset;
	uint64_t remaining;
	/* The whole record's. */
	uint64_t bytes;
	uint32_t have;
	bool started;
	struct record_check check;
	unsigned char *buffer;
};

BOUND
struct loader {
	struct segment_store *store;
	struct agent *agent;
	struct mail_pools *pools;
	struct load_slot slots[LOAD_SLOTS];
	uint32_t busy;
};

/* What is read goes into content from `pools`. */
SINGLE
void load_init(struct loader *l, struct segment_store *store, struct agent *agent,
	       struct mail_pools *pools);
SINGLE
void load_close(struct loader *l);

static inline bool load_idle(const struct loader *l)
{
	return l->busy == 0 && l->store->loads.count == 0;
}

/* Starts reading what waits. Returns how many. */
BOUND
int load_work(struct loader *l);
