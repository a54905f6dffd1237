/*
 * msys.timer: when functions are called, and what stop() and start() change of that.
 */
#include "tests/unit/policy_world.h"

static void test_start_while_its_function_waits(void **state)
{
	(void)state;
	load("local n = 0 t = msys.timer.after(1, function() n = n + 1 print('begins', n) "
	     "if n < 3 then t:start() msys.sleep(5) end print('ends', n) end)");
	step_ms(1010);
	assert_printed("begins\t1;");
	/* It is due again meanwhile, and its function is called once at a time. */
	step_ms(4000);
	assert_printed("");
	step_ms(1100);
	assert_printed("ends\t1;begins\t2;");
	step_ms(5100);
	assert_printed("ends\t2;begins\t3;ends\t3;");
	step_ms(10000);
	assert_printed("");
}

static void test_stop_while_it_is_due_again(void **state)
{
	(void)state;
	load("t = msys.timer.after(1, function() print('begins') t:start() msys.sleep(5) print('ends') end)");
	step_ms(3000);
	ask("t:stop()");
	step_ms(10000);
	assert_printed("begins;;ends;");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_start_while_its_function_waits, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_stop_while_it_is_due_again, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
