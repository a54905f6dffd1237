/*
 * msys.cidr: sets of networks that are defined again.
 */
#include "tests/unit/policy_world.h"

/* More often than there may be timers. */
static void test_set_that_is_defined_again_has_one_timer(void **state)
{
	(void)state;
	load("function define() "
	     "msys.cidr.define('n', { type = 'rbldnsd', source = '/dev/null', refresh = 60 }) end "
	     "for i = 1, 1001 do define() end");
	ask("define()");
	work_all();
	step_ms(60010);
	/* It reads the file. */
	assert_int_equal(world->job_count, 1);
	ask("msys.cidr.define('n', 'empty')");
	work_all();
	step_ms(60010);
	assert_int_equal(world->job_count, 0);
	assert_int_equal(world->error_count, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_set_that_is_defined_again_has_one_timer,
						set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
