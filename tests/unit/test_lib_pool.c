/*
 * msys.runInPool: what becomes of functions that wait for a state, or that nobody waits for.
 */
#include "core/policy/parts.h"
#include "tests/unit/policy_world.h"

/* As many as there are states. */
#define STATES 4

static void test_completion_that_waits_is_dropped(void **state)
{
	(void)state;
	load("function wait() print('begins') msys.sleep(86400) print('ends') end");
	ask("msys.runInPool('IO', function() end, wait) msys.runInPool('IO', function() end, wait)");
	work_all();
	assert_printed(";begins;begins;");
	assert_false(policy_drained(world->policy));
	assert_int_equal(policy_end_all(world->policy, "because"), 2);
	assert_true(policy_idle(world->policy));
	step_ms(100);
	assert_printed("");
}

static void test_completion_ends_by_itself(void **state)
{
	(void)state;
	load("function wait() msys.sleep(1) print('ends') end");
	ask("for i = 1, 3 do msys.runInPool('IO', function() end, wait) end");
	work_next(0);
	work_next(-EAGAIN);
	work_next(0);
	assert_string_equal(world->errors, "too many tasks wait (pool backlog);");
	step_ms(1010);
	assert_printed(";ends;ends;ends;");
	assert_true(policy_idle(world->policy));
	/* Of those that are over nothing is left to drop. */
	assert_int_equal(policy_end_all(world->policy, "because"), 0);
}

static void test_nothing_begins_that_nobody_waits_for(void **state)
{
	(void)state;
	load("function begin(n, more) for i = 1, n do msys.runInPool('IO', function() print(i) end, more) end end");
	ask("begin(6, function() print('completed') end)");
	ask("print(msys.runInPool('IO', function() return 'waited for' end))");
	assert_int_equal(world->job_count, STATES);
	/* Two wait for a state, and the command, whose function is in the queue behind them. */
	assert_int_equal(policy_drop_orders(world->policy, "because"), 3);
	work_all();
	assert_printed(";because;1;2;3;4;");
	assert_true(policy_idle(world->policy));
	ask("begin(1, true)");
	assert_int_equal(world->job_count, 0);
	assert_non_null(strstr(world->printed, "the state of this script ends"));
}

static void test_function_of_who_is_gone_is_not_run(void **state)
{
	struct policy_call c = ehlo("x");

	(void)state;
	load("msys.registerModule('m', { validate_ehlo = function() "
	     "msys.runInPool('IO', function() print('for nobody') end) return 0 end })");
	ask("for i = 1, 4 do msys.runInPool('IO', function() print(i) end, true) end");
	assert_false(policy_call_begin(&c));
	ask("msys.runInPool('IO', function() print('last') end)");
	policy_call_cancel(&c);
	work_all();
	assert_printed(";1;2;3;4;last;true;");
	assert_true(policy_idle(world->policy));
}

/* What the state has left when the script says so. */
static uint64_t left_bytes;

static void on_full(const char *text)
{
	(void)text;
	world->policy->limits.memory_bytes = policy_memory(world->policy) + left_bytes;
}

static void test_no_state_is_lost_when_memory_is_short(void **state)
{
	static const char begin[] =
		"for i = 1, 4 do msys.runInPool('IO', function() end, true) end";

	(void)state;
	load("local function f() end msys.registerModule('m', { validate_ehlo = function() "
	     "print('full') msys.runInPool('IO', f, f) return 0 end })");
	ask(begin);
	work_all();
	/* Each timer has a reference, and a table of these grows now and then. */
	for (int i = 0; i < 150; i++) {
		ask("msys.timer.after(3600, print)");
		for (left_bytes = 0; left_bytes < 2048; left_bytes += 64) {
			struct policy_call c = ehlo("x");

			world->on_printed = on_full;
			assert_true(policy_call_begin(&c));
			world->on_printed = NULL;
			world->policy->limits.memory_bytes = MEMORY_BYTES;
			work_all();
		}
	}
	assert_non_null(strstr(world->errors, "not enough memory"));
	ask(begin);
	assert_int_equal(world->job_count, STATES);
	work_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_completion_that_waits_is_dropped, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_completion_ends_by_itself, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nothing_begins_that_nobody_waits_for, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_function_of_who_is_gone_is_not_run, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_no_state_is_lost_when_memory_is_short, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
