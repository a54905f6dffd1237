/*
 * Log-linear histogram: 32 linear buckets to each power of two, so every value is known within
 * about 3 %. One writer; readers take snapshots.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

#define HISTOGRAM_SUB_BITS 5
#define HISTOGRAM_BUCKETS ((64 - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

CONCURRENT
struct histogram {
	_Atomic uint64_t count;
	_Atomic uint64_t sum;
	_Atomic uint64_t max;
	_Atomic uint64_t buckets[HISTOGRAM_BUCKETS];
};

/* The writer: count `value`. */
SINGLE
void histogram_record(struct histogram *h, uint64_t value);

/* Smallest value not below the share `quantile` (0 to 1) of all recorded ones, rounded up to its
 * bucket's upper end, never above the maximum; 0 when empty. */
CONCURRENT
uint64_t histogram_quantile(const struct histogram *h, double quantile);

/* How many recorded values are at most bounds[i], into counts[i], for `count` rising bounds; a
 * value counts for a bound when its whole bucket lies below, so some within 3 % of a bound count
 * for the next one. Returns how many there are in all, as of the same look: never less than
 * counts[]. */
CONCURRENT
uint64_t histogram_cumulate(const struct histogram *h, const uint64_t *bounds, unsigned count,
			    uint64_t *counts);

/* What has been recorded in `now` since it was `before`, into `into`. The maximum is the end of its
 * last bucket, `now`'s at most. */
SINGLE
void histogram_difference(struct histogram *into, const struct histogram *now,
			  const struct histogram *before);

/* Adds `from` into `into` (writer of `into`). */
CONCURRENT
void histogram_merge(struct histogram *into, const struct histogram *from);
