/*
 * A histogram of durations: 64 steps to each power of two, so a percentile is off by less than
 * 1.6 %, from a nanosecond to centuries, in 30 KiB and without a branch on the way in.
 *
 * Zeroed memory is an empty histogram.
 */
#pragma once

#include <stdint.h>

#include "perf/text.h"

#define LATENCY_STEPS 64
#define LATENCY_BUCKETS (59 * LATENCY_STEPS)

struct latency {
	uint64_t count;
	uint64_t max_ns;
	uint64_t sum_ns;
	uint64_t buckets[LATENCY_BUCKETS];
};

void latency_add(struct latency *l, uint64_t ns);

/* The duration in nanoseconds that `fraction` (0 to 1) of the durations do not exceed; 0 if none.
 */
uint64_t latency_at(const struct latency *l, double fraction);

/* Appends {"p50": ..., "p99": ..., "p999": ..., "max": ..., "mean": ...}, in microseconds. */
void latency_append_json(const struct latency *l, struct text *t);
