#include "core/log/destination.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

static void test_names_are_paths_of_one_spelling(void **state)
{
	static const char *const good[] = {"file:a",        "json:a/b.json", "file:/var/log/x",
					   "file:..a",      "file:a..",      "file:.a",
					   "jlog:main.jlog"};
	static const char *const bad[] = {"",          "a",           "files:a",   "FILE:a",
					  "file:",     "file:a/",     "file:/",    "file:..",
					  "file:../a", "file:a/../b", "file:a/..", "file:./a",
					  "file:a//b", "file:a\nb",   "jlog",      "syslog:a"};

	(void)state;
	for (unsigned i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_null(log_destination_check(good[i]));
		assert_string_equal(log_destination_name(good[i]), good[i] + 5);
	}
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_non_null(log_destination_check(bad[i]));
	}
}

static void test_long_names_are_refused(void **state)
{
	char name[600] = "file:";

	(void)state;
	memset(name + 5, 'x', 512);
	assert_null(log_destination_check(name));
	memset(name + 5, 'x', 513);
	assert_string_equal(log_destination_check(name), "is too long");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_are_paths_of_one_spelling),
		cmocka_unit_test(test_long_names_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
