/*
 * scheduler.h: how numbers of connections and batches are written. What a scheduler does is for
 * test_outcome*.c, the simulator and the flow tests.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agents/scheduler.h"

static void test_number_is_in_hexadecimal(void **state)
{
	static const uint64_t numbers[] = {0, 1, 0xabc, 0xfedcba98, 0x123456789, UINT64_MAX};
	static const uint32_t indexes[] = {0, 1, 16, 255, 256, 4711};
	struct scheduler *s = aligned_alloc(CACHE_LINE, sizeof(*s));

	(void)state;
	assert_non_null(s);
	memset(s, 0, sizeof(*s));
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		char text[24];
		char wanted[32];

		s->index = indexes[i];
		scheduler_format_number(s, numbers[i], text);
		snprintf(wanted, sizeof(wanted), "%02x-%08llx", indexes[i],
			 (unsigned long long)numbers[i]);
		assert_string_equal(text, wanted);
	}
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_number_is_in_hexadecimal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
