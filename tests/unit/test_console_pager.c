/* The console is a program of its own, not part of the library. */
#include "tools/console_pager.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void assert_lines(const char *text, size_t columns, size_t expected)
{
	assert_int_equal(pager_lines(text, strlen(text), columns), expected);
}

static void test_lines_are_counted_as_a_screen_breaks_them(void **state)
{
	(void)state;
	assert_lines("", 80, 0);
	assert_lines("a", 80, 1);
	assert_lines("a\n", 80, 1);
	assert_lines("a\n\nb", 80, 3);
	assert_lines("abcd\n", 4, 1);
	assert_lines("abcde\n", 4, 2);
	assert_lines("abcdefghi", 4, 3);
	assert_lines("\xc3\xa4\xc3\xb6\xc3\xbc\xc3\x9f\n", 4, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines_are_counted_as_a_screen_breaks_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
