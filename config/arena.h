/*
 * Memory that lives and dies with one configuration generation: blocks handed out from the front,
 * given back all at once. A generation is immutable once built, so nothing is ever freed alone.
 * Running out of memory is fatal(): a half-read configuration is of no use to anybody.
 */
#pragma once

#include <stddef.h>

#include "core/runtime/thread_class.h"

struct arena_block;

/* All zero is an empty arena. */
SINGLE
struct arena {
	struct arena_block *blocks;
	char *at;
	char *end;
};

/* `size` zeroed bytes at a multiple of `align`, a power of two of at most 16. Never NULL. */
SINGLE
void *arena_alloc(struct arena *arena, size_t size, size_t align);

/* A copy of `len` bytes with a NUL after them. */
SINGLE
char *arena_text(struct arena *arena, const char *text, size_t len);

/* Gives everything back; the arena is empty again. */
SINGLE
void arena_free(struct arena *arena);
