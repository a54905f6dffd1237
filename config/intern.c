#include "config/intern.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/runtime/fnv.h"

enum { SLOTS_FIRST = 256 };

struct intern_slot {
	const void *bytes;
	uint32_t len;
	uint32_t hash;
};

/* The finisher of MurmurHash3: every input bit reaches every output bit. */
uint32_t hash_word(uint64_t word)
{
	word ^= word >> 33;
	word *= UINT64_C(0xff51afd7ed558ccd);
	word ^= word >> 33;
	word *= UINT64_C(0xc4ceb9fe1a85ec53);
	word ^= word >> 33;
	return (uint32_t)word;
}

uint32_t hash_bytes(const void *bytes, size_t len)
{
	return hash_word(fnv_bytes(FNV_START, bytes, len));
}

static struct intern_slot *slots_new(uint32_t count)
{
	struct intern_slot *slots = calloc(count, sizeof(*slots));
	if (slots == NULL) {
		fatal("configuration: out of memory (%u slots)", count);
	}
	return slots;
}

void intern_init(struct intern *set, struct arena *arena, size_t align)
{
	*set = (struct intern){
		.arena = arena,
		.slots = slots_new(SLOTS_FIRST),
		.mask = SLOTS_FIRST - 1,
		.align = align,
	};
}

/* The slot that holds these bytes, or the empty one where they belong. */
static struct intern_slot *slot_of(const struct intern *set, const void *bytes, size_t len,
				   uint32_t hash)
{
	for (uint32_t i = hash & set->mask;; i = (i + 1) & set->mask) {
		struct intern_slot *slot = &set->slots[i];
		if (slot->bytes == NULL || (slot->hash == hash && slot->len == len &&
					    memcmp(slot->bytes, bytes, len) == 0)) {
			return slot;
		}
	}
}

static void grow(struct intern *set)
{
	struct intern_slot *old = set->slots;
	uint32_t old_count = set->mask + 1;
	ASSERT(old_count <= UINT32_MAX / 2);
	set->slots = slots_new(old_count * 2);
	set->mask = old_count * 2 - 1;
	for (uint32_t i = 0; i < old_count; i++) {
		if (old[i].bytes != NULL) {
			*slot_of(set, old[i].bytes, old[i].len, old[i].hash) = old[i];
		}
	}
	free(old);
}

const void *intern_bytes(struct intern *set, const void *bytes, size_t len)
{
	ASSERT(len < UINT32_MAX);
	uint32_t hash = hash_bytes(bytes, len);
	struct intern_slot *slot = slot_of(set, bytes, len, hash);
	if (slot->bytes != NULL) {
		return slot->bytes;
	}
	char *copy = arena_alloc(set->arena, len + 1, set->align);
	memcpy(copy, bytes, len);
	*slot = (struct intern_slot){.bytes = copy, .len = (uint32_t)len, .hash = hash};
	set->used++;
	if (set->used > (set->mask + 1) / 4 * 3) {
		grow(set);
	}
	return copy;
}

const void *intern_find(const struct intern *set, const void *bytes, size_t len)
{
	return slot_of(set, bytes, len, hash_bytes(bytes, len))->bytes;
}

void intern_free(struct intern *set)
{
	free(set->slots);
	*set = (struct intern){0};
}
