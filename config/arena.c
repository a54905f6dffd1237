#include "config/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

enum { BLOCK_BYTES = 64 * 1024, ALIGN_MAX = 16 };

struct arena_block {
	_Alignas(ALIGN_MAX) struct arena_block *next;
	_Alignas(ALIGN_MAX) char bytes[];
};

/* A block for `size` bytes: a shared one that becomes the front, or one of its own. */
static struct arena_block *block_new(struct arena *arena, size_t size)
{
	ASSERT(size <= SIZE_MAX - sizeof(struct arena_block));
	struct arena_block *block = calloc(1, sizeof(*block) + size);
	if (block == NULL) {
		fatal("configuration: out of memory (%zu bytes)", size);
	}
	block->next = arena->blocks;
	arena->blocks = block;
	return block;
}

void *arena_alloc(struct arena *arena, size_t size, size_t align)
{
	ASSERT(align != 0 && align <= ALIGN_MAX && (align & (align - 1)) == 0);
	size_t pad = -(uintptr_t)arena->at & (align - 1);
	if (arena->at != NULL && size <= (size_t)(arena->end - arena->at) &&
	    pad <= (size_t)(arena->end - arena->at) - size) {
		void *result = arena->at + pad;
		arena->at += pad + size;
		return result;
	}
	/* Large objects do not waste what is left of the front block. */
	if (size > BLOCK_BYTES / 8) {
		return block_new(arena, size)->bytes;
	}
	struct arena_block *block = block_new(arena, BLOCK_BYTES);
	arena->at = block->bytes + size;
	arena->end = block->bytes + BLOCK_BYTES;
	return block->bytes;
}

char *arena_text(struct arena *arena, const char *text, size_t len)
{
	char *copy = arena_alloc(arena, len + 1, 1);
	memcpy(copy, text, len);
	return copy;
}

void arena_free(struct arena *arena)
{
	while (arena->blocks != NULL) {
		struct arena_block *next = arena->blocks->next;
		free(arena->blocks);
		arena->blocks = next;
	}
	*arena = (struct arena){0};
}
