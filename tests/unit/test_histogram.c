#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/runtime/histogram.h"

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static struct histogram *make(void)
{
	struct histogram *h = calloc(1, sizeof(*h));

	assert_non_null(h);
	return h;
}

static void test_quantile_when_empty(void **state)
{
	struct histogram *h = make();

	(void)state;
	assert_int_equal(histogram_quantile(h, 0.0), 0);
	assert_int_equal(histogram_quantile(h, 0.5), 0);
	assert_int_equal(histogram_quantile(h, 1.0), 0);
	free(h);
}

static void test_quantile_when_values_are_exact(void **state)
{
	struct histogram *h = make();

	(void)state;
	for (uint64_t v = 1; v <= 20; v++) {
		histogram_record(h, v);
	}
	assert_int_equal(histogram_quantile(h, 0.0), 1);
	assert_int_equal(histogram_quantile(h, 0.05), 1);
	assert_int_equal(histogram_quantile(h, 0.051), 2);
	assert_int_equal(histogram_quantile(h, 0.5), 10);
	assert_int_equal(histogram_quantile(h, 0.95), 19);
	assert_int_equal(histogram_quantile(h, 1.0), 20);
	assert_int_equal(atomic_load(&h->count), 20);
	assert_int_equal(atomic_load(&h->sum), 210);
	assert_int_equal(atomic_load(&h->max), 20);
	free(h);
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a;
	uint64_t y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

#define SAMPLES 10000

/* Against the sorted samples: never below the true value, at most 1/32 above, never above max. */
static void test_quantile_when_compared_with_sorted_samples(void **state)
{
	static const double quantiles[] = {0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1.0};
	uint64_t *samples = calloc(SAMPLES, sizeof(*samples));
	struct histogram *h = make();
	uint64_t seed = 0x1234567;

	(void)state;
	assert_non_null(samples);
	for (unsigned i = 0; i < SAMPLES; i++) {
		samples[i] = random_next(&seed) >> (random_next(&seed) % 64);
		histogram_record(h, samples[i]);
	}
	qsort(samples, SAMPLES, sizeof(*samples), compare);
	for (unsigned i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
		size_t rank = (size_t)(quantiles[i] * SAMPLES + 0.5);
		uint64_t truth = samples[rank - 1];
		uint64_t told = histogram_quantile(h, quantiles[i]);

		assert_true(told >= truth);
		assert_true(told - truth <= truth / 32);
		assert_true(told <= samples[SAMPLES - 1]);
	}
	free(samples);
	free(h);
}

static void test_record_when_at_the_ends_of_the_range(void **state)
{
	struct histogram *h = make();

	(void)state;
	histogram_record(h, 0);
	assert_int_equal(histogram_quantile(h, 1.0), 0);
	histogram_record(h, UINT64_MAX);
	assert_true(histogram_quantile(h, 1.0) == UINT64_MAX);
	assert_int_equal(histogram_quantile(h, 0.5), 0);
	assert_int_equal(atomic_load(&h->buckets[0]), 1);
	assert_int_equal(atomic_load(&h->buckets[HISTOGRAM_BUCKETS - 1]), 1);
	free(h);
}

/* Every power of two and its neighbours: the bucket's end is within 1/32 of the value. */
static void test_record_when_at_bucket_borders(void **state)
{
	(void)state;
	for (unsigned bit = 0; bit < 64; bit++) {
		for (int off = -1; off <= 1; off++) {
			uint64_t v = (UINT64_C(1) << bit) + (uint64_t)(int64_t)off;
			struct histogram *h = make();
			uint64_t told;

			histogram_record(h, v);
			histogram_record(h, UINT64_MAX);
			told = histogram_quantile(h, 0.5);
			assert_true(told >= v && told - v <= v / 32);
			free(h);
		}
	}
}

static void test_merge_when_both_hold_values(void **state)
{
	struct histogram *all = make();
	struct histogram *a = make();
	struct histogram *b = make();
	uint64_t seed = 99;

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t v = random_next(&seed) >> 40;

		histogram_record(all, v);
		histogram_record(i % 3 == 0 ? a : b, v);
	}
	histogram_merge(a, b);
	assert_memory_equal(a, all, sizeof(*a));
	free(all);
	free(a);
	free(b);
}

static void test_cumulate_when_bounds_are_between_values(void **state)
{
	static const uint64_t bounds[] = {0, 5, 31, 1000, UINT64_MAX};
	uint64_t counts[5];
	struct histogram *h = make();

	(void)state;
	assert_int_equal(histogram_cumulate(h, bounds, 5, counts), 0);
	assert_int_equal(counts[4], 0);
	histogram_record(h, 0);
	histogram_record(h, 5);
	histogram_record(h, 6);
	histogram_record(h, 900);
	histogram_record(h, 1001);
	histogram_record(h, UINT64_MAX);
	assert_int_equal(histogram_cumulate(h, bounds, 5, counts), 6);
	assert_int_equal(counts[0], 1);
	assert_int_equal(counts[1], 2);
	assert_int_equal(counts[2], 3);
	assert_int_equal(counts[3], 4);
	assert_int_equal(counts[4], 6);
	assert_int_equal(histogram_cumulate(h, bounds, 0, counts), 6);
	free(h);
}

static void test_difference_when_more_was_recorded(void **state)
{
	struct histogram *before = make();
	struct histogram *now = make();
	struct histogram *since = make();

	(void)state;
	histogram_record(before, 1000000);
	histogram_merge(now, before);
	histogram_difference(since, now, before);
	assert_int_equal(since->count, 0);
	assert_int_equal(histogram_quantile(since, 1), 0);
	histogram_record(now, 7);
	histogram_record(now, 9);
	histogram_difference(since, now, before);
	assert_int_equal(since->count, 2);
	assert_int_equal(since->sum, 16);
	assert_int_equal(histogram_quantile(since, 0.5), 7);
	assert_int_equal(histogram_quantile(since, 1), 9);
	free(before);
	free(now);
	free(since);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quantile_when_empty),
		cmocka_unit_test(test_quantile_when_values_are_exact),
		cmocka_unit_test(test_quantile_when_compared_with_sorted_samples),
		cmocka_unit_test(test_record_when_at_the_ends_of_the_range),
		cmocka_unit_test(test_record_when_at_bucket_borders),
		cmocka_unit_test(test_merge_when_both_hold_values),
		cmocka_unit_test(test_cumulate_when_bounds_are_between_values),
		cmocka_unit_test(test_difference_when_more_was_recorded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
