#include "core/queue/binding.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static struct binding_table table;

static int set_up(void **state)
{
	(void)state;
	binding_table_init(&table);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	binding_table_close(&table);
	return 0;
}

static void test_names(void **state)
{
	struct binding_record *lost;

	(void)state;
	binding_add(&table, "a", NULL, 1, false);
	binding_add(&table, "b", "g", 1, true);
	assert_string_equal(binding_choose(&table, "a")->name, "a");
	assert_string_equal(binding_choose(&table, "b")->name, "b");
	assert_string_equal(binding_choose(&table, "g")->name, "b");
	assert_string_equal(binding_choose(&table, BINDING_DEFAULT)->name, BINDING_DEFAULT);
	assert_null(binding_choose(&table, "A"));
	assert_null(binding_choose(&table, "gg"));
	assert_null(binding_choose(&table, ""));
	assert_string_equal(binding_group_name(binding_find(&table, "a")), BINDING_GROUP_DEFAULT);
	assert_string_equal(binding_group_name(binding_find(&table, "b")), "g");

	/* One of the last start's is a name for what is queued, and for nothing new. */
	lost = binding_open(&table, "lost");
	assert_ptr_equal(binding_open(&table, "lost"), lost);
	assert_ptr_equal(binding_find(&table, "lost"), lost);
	assert_false(lost->configured);
	assert_null(binding_choose(&table, "lost"));
	assert_string_equal(binding_group_name(lost), BINDING_GROUP_DEFAULT);
}

static void test_many(void **state)
{
	char name[16];

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "b%u", i);
		binding_add(&table, name, NULL, 1, false);
	}
	assert_int_equal(table.count, 1001);
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "b%u", i);
		assert_string_equal(binding_choose(&table, name)->name, name);
		assert_int_equal(binding_find(&table, name)->index, i + 1);
		assert_ptr_equal(table.records[i + 1], binding_find(&table, name));
	}
}

/* The names of the next turns, one letter each. */
static const char *turns(unsigned count)
{
	static char text[64];

	assert_true(count < sizeof(text));
	for (unsigned i = 0; i < count; i++) {
		text[i] = binding_choose(&table, "g")->name[0];
	}
	text[count] = '\0';
	return text;
}

static void test_turns_are_spread_by_weight(void **state)
{
	(void)state;
	binding_add(&table, "a", "g", 3, false);
	binding_add(&table, "b", "g", 1, false);
	assert_string_equal(turns(8), "aabaaaba");
	binding_table_close(&table);
	binding_table_init(&table);
	binding_add(&table, "a", "g", 5, false);
	binding_add(&table, "b", "g", 1, false);
	binding_add(&table, "c", "g", 1, false);
	assert_string_equal(turns(14), "aabacaaaabacaa");
	/* Whoever has begun elsewhere is at another place of the same row. */
	binding_pass_turns(&table, 2);
	assert_string_equal(turns(7), "bacaaaa");
}

static void test_shares_are_exact(void **state)
{
	static const uint32_t weights[] = {7, 1, 13, 100, 29, 2, 1000};
	unsigned counts[7] = {0};
	char name[2] = "A";

	(void)state;
	for (unsigned i = 0; i < 7; i++) {
		name[0] = (char)('A' + i);
		binding_add(&table, name, "g", weights[i], false);
	}
	binding_pass_turns(&table, 5);
	for (unsigned i = 0; i < 3 * 1152; i++) {
		counts[binding_choose(&table, "g")->name[0] - 'A']++;
	}
	for (unsigned i = 0; i < 7; i++) {
		assert_int_equal(counts[i], 3 * weights[i]);
	}
}

static void test_suspended_ones_are_passed_over(void **state)
{
	(void)state;
	binding_add(&table, "a", "g", 3, false);
	binding_add(&table, "b", "g", 2, true);
	binding_add(&table, "c", "g", 1, false);
	assert_string_equal(turns(8), "aacaaaca");

	/* By order: the rest share exactly, wherever the row was left. */
	binding_set_order(binding_find(&table, "b"), BINDING_RESUMED);
	assert_string_equal(turns(2), "ab");
	binding_set_order(binding_find(&table, "a"), BINDING_SUSPENDED);
	assert_string_equal(turns(6), "bcbbcb");
	/* By its own name it is had all the same. */
	assert_string_equal(binding_choose(&table, "a")->name, "a");

	/* All: their mail waits, and is shared as ever. */
	binding_set_order(binding_find(&table, "b"), BINDING_SUSPENDED);
	binding_set_order(binding_find(&table, "c"), BINDING_SUSPENDED);
	assert_string_equal(turns(6), "abacba");
	binding_set_order(binding_find(&table, "c"), BINDING_AS_CONFIGURED);
	assert_string_equal(turns(3), "ccc");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_names),
		TEST(test_many),
		TEST(test_turns_are_spread_by_weight),
		TEST(test_shares_are_exact),
		TEST(test_suspended_ones_are_passed_over),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
