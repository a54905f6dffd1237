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

/* Adds `from` into `into` (writer of `into`). */
CONCURRENT
void histogram_merge(struct histogram *into, const struct histogram *from);
