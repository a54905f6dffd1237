/*
 * Fixed-size objects from a free list that belongs to one agent. Empty lists are refilled from the
 * allocator; above `keep_max` freed objects go back to it, so that an object made by one agent may
 * be freed by another one, into that one's pool of the same size.
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

SINGLE
void pool_close(struct pool *p);
