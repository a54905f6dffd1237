/*
 * print(): how much of it there may be.
 */
#include "tests/unit/policy_world.h"

#define ENDLESS "local s = ('x'):rep(100000) while true do print(s) end"

static void test_output_counts_as_instructions(void **state)
{
	(void)state;
	instructions = 100000;
	load("");
	instructions = 1000000;
	/* Few calls, which print much. */
	ask("local s = ('x'):rep(100000) for i = 1, 1000 do print(s) end");
	assert_int_equal(world->error_count, 1);
	assert_non_null(strstr(world->errors, "instruction budget used up"));
	ask("print('more')");
	assert_int_equal(world->error_count, 1);
}

static void test_output_is_bounded_in_the_pool(void **state)
{
	(void)state;
	load("");
	ask("good, why = msys.runInPool('IO', function() " ENDLESS " end)");
	work_all();
	assert_int_equal(world->ordered, 1);
	world->printed[0] = '\0';
	ask("print(good, why)");
	assert_non_null(strstr(world->printed, "false\t"));
	assert_non_null(strstr(world->printed, "print: more than 8M in all"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_output_counts_as_instructions, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_output_is_bounded_in_the_pool, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
