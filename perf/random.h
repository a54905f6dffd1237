/* Repeatable random numbers (splitmix64): the same seed gives the same run. */
#pragma once

#include <stdint.h>

static inline uint64_t random_next(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* A number of 0 to bound - 1; `bound` is small, so the bias does not matter. */
static inline unsigned random_below(uint64_t *state, unsigned bound)
{
	return (unsigned)((random_next(state) >> 32) * bound >> 32);
}

/* A number of 0 to just under 1. */
static inline double random_fraction(uint64_t *state)
{
	return (double)(random_next(state) >> 11) * 0x1p-53;
}
