/*
 * 64-bit fingerprints of short strings, and a set of them. A million message ids take 16 MiB; the
 * chance that any two of a million share a fingerprint is below one in thirty million.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

uint64_t fingerprint(const char *bytes, size_t len);

/* One fingerprint of two, in this order. */
uint64_t fingerprint_pair(uint64_t first, uint64_t second);

/* Zeroed memory is an empty set. */
struct fingerprint_set {
	uint64_t *slots;
	size_t mask;
	size_t count;
};

/* Returns true when `f` was not yet in the set. */
bool fingerprint_set_add(struct fingerprint_set *set, uint64_t f);

bool fingerprint_set_has(const struct fingerprint_set *set, uint64_t f);

void fingerprint_set_free(struct fingerprint_set *set);
