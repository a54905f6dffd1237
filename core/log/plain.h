/*
 * Plain octets: the ASCII that is itself in every log, eight at a time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/runtime/thread_class.h"

#define PLAIN_ONES UINT64_C(0x0101010101010101)
#define PLAIN_HIGHS UINT64_C(0x8080808080808080)

/* High bits of the octets of `x` that are 0; those above the first one may be wrong. */
static inline uint64_t plain_zeros(uint64_t x)
{
	return (x - PLAIN_ONES) & ~x & PLAIN_HIGHS;
}

/* The number of the first of eight octets that is no printable ASCII, a backslash or `specials`
 * (eight of them); 8: none is. */
static inline size_t plain_octets(uint64_t x, uint64_t specials)
{
	uint64_t found = ((x - PLAIN_ONES * ' ') & ~x & PLAIN_HIGHS) | (x & PLAIN_HIGHS) |
			 plain_zeros(x ^ PLAIN_ONES * 127) | plain_zeros(x ^ PLAIN_ONES * '\\') |
			 plain_zeros(x ^ specials);

	return found != 0 ? (size_t)__builtin_ctzll(found) / 8 : 8;
}

/* How many octets from the first on are printable ASCII, no backslash, and not `special`. */
CONCURRENT
static inline size_t log_plain_run(const char *text, size_t len, char special)
{
	const uint64_t specials = PLAIN_ONES * (unsigned char)special;
	uint64_t x = 0;
	size_t n = 0;

	for (; len - n >= 8; n += 8) {
		size_t run;

		memcpy(&x, text + n, 8);
		run = plain_octets(x, specials);
		if (run < 8) {
			return n + run;
		}
	}
	/* The rest, and NULs behind it, which are not plain. */
	x = 0;
	memcpy(&x, text + n, len - n);
	return n + plain_octets(x, specials);
}
