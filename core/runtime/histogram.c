#include "core/runtime/histogram.h"

#include <string.h>

#include "core/runtime/check.h"

#define SUB_COUNT (1U << HISTOGRAM_SUB_BITS)

_Static_assert(HISTOGRAM_BUCKETS == 1920, "one linear range and 59 powers of two");

/* Values below SUB_COUNT have a bucket each; above, the top SUB_BITS+1 bits choose it. */
static unsigned bucket_of(uint64_t value)
{
	unsigned shift;

	if (value < SUB_COUNT) {
		return (unsigned)value;
	}
	shift = 63U - (unsigned)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
	return ((shift + 1) << HISTOGRAM_SUB_BITS) | (unsigned)((value >> shift) & (SUB_COUNT - 1));
}

static uint64_t bucket_upper_end(unsigned bucket)
{
	unsigned range = bucket >> HISTOGRAM_SUB_BITS;
	uint64_t sub = bucket & (SUB_COUNT - 1);

	if (range == 0) {
		return sub;
	}
	/* The last bucket's end wraps to UINT64_MAX, as it should. */
	return ((SUB_COUNT + sub + 1) << (range - 1)) - 1;
}

static uint64_t load(const _Atomic uint64_t *v)
{
	return atomic_load_explicit(v, memory_order_relaxed);
}

/* One writer: a plain load and store, no bus lock. */
static void add(_Atomic uint64_t *v, uint64_t n)
{
	atomic_store_explicit(v, load(v) + n, memory_order_relaxed);
}

static void raise_to(_Atomic uint64_t *v, uint64_t n)
{
	if (n > load(v)) {
		atomic_store_explicit(v, n, memory_order_relaxed);
	}
}

void histogram_record(struct histogram *h, uint64_t value)
{
	raise_to(&h->max, value);
	add(&h->buckets[bucket_of(value)], 1);
	add(&h->sum, value);
	add(&h->count, 1);
}

/* The buckets' own total, so that a walk through them ends where it should while the writer goes
 * on. */
static uint64_t buckets_total(const struct histogram *h)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		total += load(&h->buckets[i]);
	}
	return total;
}

static uint64_t rank_of(double quantile, uint64_t total)
{
	double exact = quantile * (double)total;
	uint64_t rank = (uint64_t)exact;

	if ((double)rank < exact) {
		rank++;
	}
	if (rank == 0) {
		return 1;
	}
	return rank > total ? total : rank;
}

uint64_t histogram_quantile(const struct histogram *h, double quantile)
{
	uint64_t total = buckets_total(h);
	uint64_t max = load(&h->max);
	uint64_t seen = 0;
	uint64_t rank;

	ASSERT(quantile >= 0.0 && quantile <= 1.0);
	if (total == 0) {
		return 0;
	}
	rank = rank_of(quantile, total);
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		seen += load(&h->buckets[i]);
		if (seen >= rank) {
			uint64_t end = bucket_upper_end(i);

			return end < max ? end : max;
		}
	}
	return max;
}

uint64_t histogram_cumulate(const struct histogram *h, const uint64_t *bounds, unsigned count,
			    uint64_t *counts)
{
	uint64_t total = 0;
	unsigned at = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		while (at < count && bucket_upper_end(i) > bounds[at]) {
			counts[at++] = total;
		}
		total += load(&h->buckets[i]);
	}
	while (at < count) {
		counts[at++] = total;
	}
	return total;
}

void histogram_difference(struct histogram *into, const struct histogram *now,
			  const struct histogram *before)
{
	memset(into, 0, sizeof(*into));
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t n = load(&now->buckets[i]) - load(&before->buckets[i]);
		uint64_t end = bucket_upper_end(i);

		if (n != 0) {
			add(&into->buckets[i], n);
			raise_to(&into->max, end < load(&now->max) ? end : load(&now->max));
		}
	}
	add(&into->sum, load(&now->sum) - load(&before->sum));
	add(&into->count, load(&now->count) - load(&before->count));
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
	raise_to(&into->max, load(&from->max));
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t n = load(&from->buckets[i]);

		if (n != 0) {
			add(&into->buckets[i], n);
		}
	}
	add(&into->sum, load(&from->sum));
	add(&into->count, load(&from->count));
}
