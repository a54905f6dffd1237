/*
 * The index of messages: found while it grows and shrinks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "spool/index.h"

#define ENTRIES 20000U

static struct message_id id_of(uint64_t n)
{
	return (struct message_id){.high = 1700000000000 << 16 | n % 3, .low = n / 3};
}

static void count_entry(void *context, struct spool_entry *e)
{
	(void)e;
	++*(uint64_t *)context;
}

static void test_entries_are_found_while_it_grows(void **state)
{
	struct spool_index x;
	uint64_t count = 0;

	(void)state;
	index_init(&x);
	for (uint64_t n = 0; n < ENTRIES; n++) {
		struct message_id id = id_of(n);

		assert_null(index_find(&x, &id));
		index_add(&x, &id, 1);
		if (n % 100 == 0) {
			for (uint64_t k = 0; k <= n; k += 17) {
				id = id_of(k);
				assert_non_null(index_find(&x, &id));
			}
		}
	}
	assert_int_equal(x.count, ENTRIES);
	assert_int_equal(x.buckets, ENTRIES);
	index_each(&x, count_entry, &count);
	assert_int_equal(count, ENTRIES);
	index_close(&x);
}

static void test_removed_entries_are_gone_and_others_stay(void **state)
{
	struct spool_index x;

	(void)state;
	index_init(&x);
	for (uint64_t n = 0; n < ENTRIES; n++) {
		struct message_id id = id_of(n);

		index_deliveries(&x, index_add(&x, &id, (uint32_t)(1 + n % 3)));
	}
	for (uint64_t n = 0; n < ENTRIES; n += 2) {
		struct message_id id = id_of(n);

		index_remove(&x, index_find(&x, &id));
	}
	for (uint64_t n = 0; n < ENTRIES; n++) {
		struct message_id id = id_of(n);

		assert_int_equal(index_find(&x, &id) != NULL, n % 2 == 1);
	}
	assert_int_equal(x.count, ENTRIES / 2);
	index_close(&x);
}

static void test_transfer_moves_an_entry(void **state)
{
	struct spool_index a;
	struct spool_index b;
	struct message_id id = id_of(7);
	struct spool_entry *e;

	(void)state;
	index_init(&a);
	index_init(&b);
	e = index_add(&a, &id, 2);
	index_deliveries(&a, e)[1].done = true;
	index_transfer(&a, &b, e);
	assert_null(index_find(&a, &id));
	assert_ptr_equal(index_find(&b, &id), e);
	assert_true(index_deliveries(&b, e)[1].done);
	assert_int_equal(a.count, 0);
	assert_int_equal(b.count, 1);
	index_close(&a);
	index_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_entries_are_found_while_it_grows),
		cmocka_unit_test(test_removed_entries_are_gone_and_others_stay),
		cmocka_unit_test(test_transfer_moves_an_entry),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
