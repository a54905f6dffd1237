/*
 * Fixed-size objects from a free list that belongs to one agent. Empty lists are refilled from the
 * allocator; above `keep_max` freed objects go back to it, so that an object made by one agent may
 * be freed by another one, into that one's pool of the same size. Where objects go that way only,
 * or a burst is over, free lists grow to no use: pool_trim().
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

struct pool_item;

BOUND
struct pool {
	const char *name;
	size_t size;
	uint32_t keep_max;
	uint32_t kept;
	/* The fewest that were kept since pool_trim(). */
	uint32_t spare;
	struct pool_item *free;
	/* Objects handed out less objects taken back, here; the sum over agents is what is live. */
	int64_t live;
	uint64_t allocations;
};

/* `size` in bytes, at least a pointer's. `keep_max`: objects kept for reuse. `name` is not copied.
 */
SINGLE
void pool_init(struct pool *p, const char *name, size_t size, uint32_t keep_max);

/* Contents undefined. Never NULL: running out of memory ends the program. */
SINGLE
void *pool_get(struct pool *p);

/* NULL is ignored. */
SINGLE
void pool_put(struct pool *p, void *object);

/* Gives some of what lay unused since the last call back to the allocator: half of it, and `max`
 * objects at most. Called from time to time a pool keeps what its agent needs between two calls. */
SINGLE
void pool_trim(struct pool *p, uint32_t max);

/* Gives all of it back: the agent has nothing to do for a while. */
SINGLE
void pool_empty(struct pool *p);

SINGLE
void pool_close(struct pool *p);
