#include "perf/latency.h"

/* Values below 64 have a bucket each; above, the six bits below the leading one choose the step. */
static unsigned bucket_of(uint64_t ns)
{
	unsigned shift;

	if (ns < LATENCY_STEPS) {
		return (unsigned)ns;
	}
	shift = 57U - (unsigned)__builtin_clzll(ns);
	return shift * LATENCY_STEPS + (unsigned)(ns >> shift);
}

/* The greatest value that falls into `bucket`. */
static uint64_t bucket_top(unsigned bucket)
{
	unsigned shift;
	uint64_t step;

	if (bucket < 2 * LATENCY_STEPS) {
		return bucket;
	}
	shift = bucket / LATENCY_STEPS - 1;
	step = bucket % LATENCY_STEPS + LATENCY_STEPS;
	return ((step + 1) << shift) - 1;
}

void latency_add(struct latency *l, uint64_t ns)
{
	l->count++;
	l->sum_ns += ns;
	if (ns > l->max_ns) {
		l->max_ns = ns;
	}
	l->buckets[bucket_of(ns)]++;
}

uint64_t latency_at(const struct latency *l, double fraction)
{
	uint64_t wanted = (uint64_t)(fraction * (double)l->count + 0.999999);
	uint64_t seen = 0;

	for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
		seen += l->buckets[i];
		if (seen >= wanted && seen > 0) {
			uint64_t top = bucket_top(i);
			return top < l->max_ns ? top : l->max_ns;
		}
	}
	return l->max_ns;
}

void latency_append_json(const struct latency *l, struct text *t)
{
	double mean_ns = l->count > 0 ? (double)l->sum_ns / (double)l->count : 0;

	text_printf(t, "{\"p50\": %.1f, \"p99\": %.1f, \"p999\": %.1f, ",
		    (double)latency_at(l, 0.5) / 1e3, (double)latency_at(l, 0.99) / 1e3,
		    (double)latency_at(l, 0.999) / 1e3);
	text_printf(t, "\"max\": %.1f, \"mean\": %.1f}", (double)l->max_ns / 1e3, mean_ns / 1e3);
}
