#include "core/mail/context.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "core/mail/header.h"

static struct context c;

static void add(const char *key, const char *value, size_t limit)
{
	context_add(&c, key, value, strlen(value), limit);
}

static void test_finds_what_was_added(void **state)
{
	const char *key;
	const char *value;
	size_t at = 0;

	(void)state;
	context_reset(&c);
	assert_true(context_valid(c.pairs, c.len));
	assert_null(context_find(c.pairs, c.len, "subject:"));
	add("subject:", "hello", CONTEXT_MAX);
	add("tenant", "", CONTEXT_MAX);
	add(CONTEXT_DKIM, "a.example b.example", CONTEXT_MAX);
	assert_int_equal(c.count, 3);
	assert_false(c.cut);
	assert_true(context_valid(c.pairs, c.len));
	assert_string_equal(context_find(c.pairs, c.len, "subject:"), "hello");
	assert_string_equal(context_find(c.pairs, c.len, "tenant"), "");
	assert_string_equal(context_find(c.pairs, c.len, ":dkim"), "a.example b.example");
	assert_null(context_find(c.pairs, c.len, "hello"));
	for (unsigned i = 0; i < 3; i++) {
		assert_true(context_next(c.pairs, c.len, &at, &key, &value));
	}
	assert_string_equal(key, ":dkim");
	assert_false(context_next(c.pairs, c.len, &at, &key, &value));
}

static void test_long_values_are_cut_between_characters(void **state)
{
	char value[CONTEXT_VALUE_MAX + 3];

	(void)state;
	context_reset(&c);
	memset(value, 'x', sizeof(value));
	value[CONTEXT_VALUE_MAX] = '\0';
	add("a:", value, CONTEXT_MAX);
	assert_false(c.cut);
	assert_int_equal(strlen(context_find(c.pairs, c.len, "a:")), CONTEXT_VALUE_MAX);
	/* The last place has half of a character. */
	memcpy(value + CONTEXT_VALUE_MAX - 1, "\xc3\xa4", 3);
	add("b:", value, CONTEXT_MAX);
	assert_true(c.cut);
	assert_int_equal(strlen(context_find(c.pairs, c.len, "b:")), CONTEXT_VALUE_MAX - 1);
}

static void test_all_pairs_stay_within_the_limit(void **state)
{
	char value[CONTEXT_VALUE_MAX + 1];
	char key[] = "a:";

	(void)state;
	context_reset(&c);
	memset(value, 'x', sizeof(value));
	value[CONTEXT_VALUE_MAX] = '\0';
	for (char i = 'a'; i < 'k'; i++) {
		key[0] = i;
		add(key, value, CONTEXT_FIELDS_MAX);
	}
	assert_true(c.cut);
	assert_int_equal(c.len, CONTEXT_FIELDS_MAX);
	assert_int_equal(c.count, 4);
	assert_true(context_valid(c.pairs, c.len));
	assert_int_equal(strlen(context_find(c.pairs, c.len, "d:")),
			 CONTEXT_FIELDS_MAX - 3 * (CONTEXT_VALUE_MAX + 4) - 4);
	/* What comes after the fields still has room. */
	add(CONTEXT_DKIM, "a.example", CONTEXT_MAX);
	assert_string_equal(context_find(c.pairs, c.len, CONTEXT_DKIM), "a.example");
}

static void test_valid_refuses_what_is_no_pairs(void **state)
{
	(void)state;
	assert_true(context_valid("", 0));
	assert_true(context_valid("a\0b\0", 4));
	assert_true(context_valid("a\0\0", 3));
	assert_false(context_valid("a\0b", 3));
	assert_false(context_valid("a\0", 2));
	assert_false(context_valid("a", 1));
	assert_false(context_valid("\0b\0", 3));
}

static void test_capture_takes_the_first_field_of_each_name(void **state)
{
	static const char text[] = "Received: x\r\nsubject: one\r\n two\r\nX-Tenant:  t1 \r\n"
				   "Subject: second\r\nEmpty:\r\n\r\nX-Late: body\r\n";
	static const char *const keys[] = {"subject:", "x-tenant", "empty:", "x-late:", "nothing:"};
	struct chain body = CHAIN_EMPTY;
	struct pool buffers;

	(void)state;
	pool_init(&buffers, "buffers", CHAIN_BUFFER_SIZE, 1);
	chain_append(&body, &buffers, text, sizeof(text) - 1);
	context_reset(&c);
	header_capture(&body, keys, 5, &c);
	assert_int_equal(c.count, 2);
	assert_string_equal(context_find(c.pairs, c.len, "subject:"), "one two");
	assert_string_equal(context_find(c.pairs, c.len, "x-tenant"), "t1");
	chain_release(&body, &buffers);
	pool_close(&buffers);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finds_what_was_added),
		cmocka_unit_test(test_long_values_are_cut_between_characters),
		cmocka_unit_test(test_all_pairs_stay_within_the_limit),
		cmocka_unit_test(test_valid_refuses_what_is_no_pairs),
		cmocka_unit_test(test_capture_takes_the_first_field_of_each_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
