/*
 * A set of unique byte strings: equal bytes get one address, so that comparing is comparing
 * pointers, and 200 000 equal answers take the memory of one. Used for names and values of the
 * tree and for the flattened options. The bytes live in the arena, the slots in the set.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "config/arena.h"
#include "core/runtime/thread_class.h"

struct intern_slot;

SINGLE
struct intern {
	struct arena *arena;
	/* Open addressing, a power of two of them, at most three quarters in use. */
	struct intern_slot *slots;
	uint32_t mask;
	uint32_t used;
	/* Of the bytes kept: 1 for text, 8 for structs. */
	size_t align;
};

SINGLE
void intern_init(struct intern *set, struct arena *arena, size_t align);

/* The one copy of these bytes, made when there was none. A NUL follows them, outside of `len`.
 * Structs must have their padding zeroed. */
SINGLE
const void *intern_bytes(struct intern *set, const void *bytes, size_t len);

/* The one copy of these bytes, or NULL when there is none. Many threads may look at once. */
READONLY
const void *intern_find(const struct intern *set, const void *bytes, size_t len);

SINGLE
void intern_free(struct intern *set);

/* 32 well mixed bits of `len` bytes. */
CONCURRENT
uint32_t hash_bytes(const void *bytes, size_t len);

/* 32 well mixed bits of a word, such as an interned address. */
CONCURRENT
uint32_t hash_word(uint64_t word);
