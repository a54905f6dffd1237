#include "core/runtime/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_format_utc_when_of_any_year(void **state)
{
	static const struct {
		uint64_t wall_ms;
		const char *text;
	} times[] = {
		{0, "1970-01-01T00:00:00Z"},
		{UINT64_C(1753000000999), "2025-07-20T08:26:40Z"},
		{UINT64_C(951782399000), "2000-02-28T23:59:59Z"},
		{UINT64_C(253402300800000), "10000-01-01T00:00:00Z"},
		{UINT64_MAX, "584556019-04-03T14:25:51Z"},
	};
	char text[CLOCK_UTC_TEXT];

	(void)state;
	for (unsigned i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		assert_ptr_equal(clock_format_utc(times[i].wall_ms, text), text);
		assert_string_equal(text, times[i].text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_format_utc_when_of_any_year),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
