/* The console is a program of its own, not part of the library. */
#include "tools/console_render.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void assert_rendered(const char *json, const char *expected)
{
	json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(value);
	assert_non_null(out);
	console_render(value, out);
	fclose(out);
	json_decref(value);
	assert_string_equal(text, expected);
	free(text);
}

static void assert_value(const char *key, const char *json, const char *expected)
{
	json_t *value = json_loads(json, JSON_DECODE_ANY, NULL);
	char *text;

	assert_non_null(value);
	text = console_value_text(key, value);
	assert_string_equal(text, expected);
	free(text);
	json_decref(value);
}

static void test_object_is_lines_with_aligned_values(void **state)
{
	(void)state;
	assert_rendered("{\"active_queue_size\":12,\"pid\":7,\"pinned\":true,\"core\":null}",
			"Active queue size:  12\n"
			"Pid:                7\n"
			"Pinned:             yes\n"
			"Core:               -\n");
}

static void test_rows_are_a_table_with_numbers_to_the_right(void **state)
{
	(void)state;
	assert_rendered("[{\"domain\":\"a.example\",\"active\":1,\"held_by\":\"\"},"
			"{\"domain\":\"b\",\"active\":1000000,\"held_by\":\"throttle\"}]",
			"Domain      Active  Held by\n"
			"a.example        1\n"
			"b          1000000  throttle\n");
}

static void test_rows_with_other_keys_leave_cells_empty(void **state)
{
	(void)state;
	assert_rendered("[{\"a\":1},{\"b\":\"x\",\"a\":22}]", " A  B\n"
							      " 1\n"
							      "22  x\n");
}

static void test_nested_values_follow_under_headings(void **state)
{
	(void)state;
	assert_rendered("{\"queue\":{\"active\":1,\"delayed\":20},\"domain\":\"x\","
			"\"hosts\":[{\"host\":\"h\",\"port\":25}],\"connections\":[]}",
			"Domain:       x\n"
			"Connections:  none\n"
			"\n"
			"Queue\n"
			"  Active:   1\n"
			"  Delayed:  20\n"
			"\n"
			"Hosts\n"
			"  Host  Port\n"
			"  h       25\n");
}

/* They would not fit into the cells of a table. */
static void test_rows_with_nested_values_stand_one_after_the_other(void **state)
{
	(void)state;
	assert_rendered("{\"bindings\":[{\"binding\":\"a\",\"queue\":{\"active\":1}},"
			"{\"binding\":\"b\"}]}",
			"Bindings\n"
			"  Binding:  a\n"
			"\n"
			"  Queue\n"
			"    Active:  1\n"
			"\n"
			"  Binding:  b\n");
}

static void test_lists_of_words_are_one_line(void **state)
{
	(void)state;
	assert_rendered("{\"recipients\":[\"a@x\",\"b@x\"]}", "Recipients:  a@x, b@x\n");
	assert_rendered("[]", "none\n");
	assert_rendered("\"text\"", "text\n");
}

static void test_units_come_from_keys(void **state)
{
	(void)state;
	assert_value("size_bytes", "0", "0 B");
	assert_value("size_bytes", "1023", "1023 B");
	assert_value("size_bytes", "1536", "1.5 KiB");
	assert_value("size_bytes", "268435456", "256.0 MiB");
	assert_value("delivery_rate_per_s", "1234.56", "1234.6/s");
	assert_value("for_s", "0", "0 s");
	assert_value("for_s", "0.25", "250 ms");
	assert_value("for_s", "42.5", "42.5 s");
	assert_value("for_s", "61", "1m 01s");
	assert_value("for_s", "3723", "1h 02m 03s");
	assert_value("for_s", "180000", "2d 02h 00m");
	assert_value("retry_interval_ms", "1200000", "20m 00s");
	assert_value("longest_cycle_ns", "1500", "1.5 us");
	assert_value("count", "1200000", "1200000");
	assert_value("held_until_at", "\"2026-01-02T03:04:05Z\"", "2026-01-02T03:04:05Z");
	assert_value("bytes", "5", "5");
}

static void test_keys_lose_their_unit(void **state)
{
	char text[16];

	(void)state;
	console_key_text("next_due_in_s", text, sizeof(text));
	assert_string_equal(text, "Next due in");
	console_key_text("stalls", text, sizeof(text));
	assert_string_equal(text, "Stalls");
	console_key_text("a_very_long_key_indeed", text, sizeof(text));
	assert_string_equal(text, "A very long key");
}

static void test_control_characters_do_not_reach_the_terminal(void **state)
{
	(void)state;
	assert_value("last_reply", "\"550 \\u001b[2J\\u0007no\\r\\n\\u009bK\"", "550 ?[2J?no???K");
	assert_rendered("{\"a\\u001b\":\"b\\u0001c\"}", "A?:  b?c\n");
}

static void test_width_counts_characters(void **state)
{
	(void)state;
	assert_rendered("[{\"d\":\"\xc3\xa4\xc3\xb6\",\"n\":1},{\"d\":\"abc\",\"n\":2}]",
			"D    N\n"
			"\xc3\xa4\xc3\xb6   1\n"
			"abc  2\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_object_is_lines_with_aligned_values),
		cmocka_unit_test(test_rows_are_a_table_with_numbers_to_the_right),
		cmocka_unit_test(test_rows_with_other_keys_leave_cells_empty),
		cmocka_unit_test(test_nested_values_follow_under_headings),
		cmocka_unit_test(test_rows_with_nested_values_stand_one_after_the_other),
		cmocka_unit_test(test_lists_of_words_are_one_line),
		cmocka_unit_test(test_units_come_from_keys),
		cmocka_unit_test(test_keys_lose_their_unit),
		cmocka_unit_test(test_control_characters_do_not_reach_the_terminal),
		cmocka_unit_test(test_width_counts_characters),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
