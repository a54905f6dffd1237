#include "perf/fingerprint.h"

#include <err.h>
#include <stdlib.h>
#include <string.h>

static uint64_t stir(uint64_t h)
{
	h ^= h >> 33;
	h *= 0xff51afd7ed558ccdULL;
	h ^= h >> 33;
	h *= 0xc4ceb9fe1a85ec53ULL;
	return h ^ (h >> 33);
}

uint64_t fingerprint(const char *bytes, size_t len)
{
	uint64_t h = len * 0x9e3779b97f4a7c15ULL;
	uint64_t word;

	for (; len >= 8; bytes += 8, len -= 8) {
		memcpy(&word, bytes, 8);
		h = stir(h ^ word);
	}
	word = 0;
	memcpy(&word, bytes, len);
	return stir(h ^ word);
}

uint64_t fingerprint_pair(uint64_t first, uint64_t second)
{
	return stir(first * 0x9e3779b97f4a7c15ULL + second);
}

/* Zero marks a free slot, so the fingerprint 0 is kept as 1. */
static uint64_t slot_value(uint64_t f)
{
	return f != 0 ? f : 1;
}

static size_t slot_of(const struct fingerprint_set *set, uint64_t value)
{
	size_t i = (size_t)value & set->mask;

	while (set->slots[i] != 0 && set->slots[i] != value) {
		i = (i + 1) & set->mask;
	}
	return i;
}

static void grow(struct fingerprint_set *set)
{
	struct fingerprint_set old = *set;
	size_t capacity = old.slots == NULL ? 1024 : 2 * (old.mask + 1);

	set->mask = capacity - 1;
	set->slots = calloc(capacity, sizeof(*set->slots));
	if (set->slots == NULL) {
		err(2, "%zu fingerprints", capacity);
	}
	for (size_t i = 0; old.slots != NULL && i <= old.mask; i++) {
		if (old.slots[i] != 0) {
			set->slots[slot_of(set, old.slots[i])] = old.slots[i];
		}
	}
	free(old.slots);
}

bool fingerprint_set_add(struct fingerprint_set *set, uint64_t f)
{
	uint64_t value = slot_value(f);
	size_t i;

	if (set->slots == NULL || set->count * 4 >= (set->mask + 1) * 3) {
		grow(set);
	}
	i = slot_of(set, value);
	if (set->slots[i] == value) {
		return false;
	}
	set->slots[i] = value;
	set->count++;
	return true;
}

bool fingerprint_set_has(const struct fingerprint_set *set, uint64_t f)
{
	uint64_t value = slot_value(f);

	return set->slots != NULL && set->slots[slot_of(set, value)] == value;
}

void fingerprint_set_free(struct fingerprint_set *set)
{
	free(set->slots);
	*set = (struct fingerprint_set){0};
}
