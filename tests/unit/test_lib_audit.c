/*
 * msys.audit_series: counts in windows of time, by a clock that the test moves.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/policy_script.h"

struct world {
	struct agent agent;
	struct policy *policy;
	char said[1024];
	bool failed;
};

static struct world *world;

static void set_time(double now_s)
{
	world->agent.now.wall_ns = (uint64_t)(now_s * 1e9);
}

static void on_print(void *context, const char *text, size_t len)
{
	(void)context;
	(void)text;
	(void)len;
}

static void on_error(void *context, const char *text)
{
	(void)context;
	(void)text;
}

static const struct policy_ops ops = {.print = on_print, .error = on_error};

/* Windows of ten seconds, four of them. */
static const char script[] = "msys.audit_series.define('n', 'string', 10, 4)"
			     "msys.audit_series.define('four', 'cidr', 10, 4)"
			     "msys.audit_series.define('six', 'cidr_ipv6', 10, 4)";

static int setup(void **state)
{
	struct policy_scripts scripts = {0};
	const struct policy_start start = {
		.scripts = &scripts,
		.limits = {.memory_bytes = 4 << 20, .instructions = 100000000},
		.ops = &ops,
	};

	(void)state;
	world = calloc(1, sizeof(*world));
	assert_non_null(world);
	set_time(1000);
	world->agent.clock = &fixed;
	add_script(&scripts, "test", script);
	world->policy = policy_create(&world->agent, &start, stderr);
	assert_non_null(world->policy);
	policy_scripts_close(&scripts);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	policy_destroy(world->policy);
	free(world);
	return 0;
}

static void on_ordered(void *context, const char *output, size_t len, bool failed)
{
	(void)context;
	snprintf(world->said, sizeof(world->said), "%.*s", (int)len, output);
	world->failed = failed;
}

/* What the code prints. */
static const char *ask(const char *code)
{
	char text[1024];

	snprintf(text, sizeof(text),
		 "local add, count, remove = msys.audit_series.add, msys.audit_series.count, "
		 "msys.audit_series.remove_item %s",
		 code);
	policy_order(world->policy, NULL, 0, text, on_ordered, NULL);
	world->said[strcspn(world->said, "\n")] = '\0';
	return world->said;
}

static void test_count_when_windows_pass(void **state)
{
	(void)state;
	ask("add('n', 'k') add('n', { key = 'k', count = 2 })");
	assert_string_equal(ask("print(count('n', 'k'))"), "3");
	set_time(1009.9);
	assert_string_equal(ask("print(count('n', 'k'))"), "3");
	set_time(1010);
	assert_string_equal(ask("print(count('n', 'k'))"), "0");
	ask("add('n', { key = 'k', count = 10 })");
	assert_string_equal(ask("print(count('n', { key = 'k', startv = 0, endv = 1 }), "
				"count('n', { key = 'k', startv = 1 }))"),
			    "13\t3");
	set_time(1035);
	assert_string_equal(ask("print(count('n', { key = 'k', startv = 0, endv = 3 }), "
				"count('n', { key = 'k', startv = 3 }))"),
			    "13\t3");
	/* The oldest window is no more; adding takes its place. */
	set_time(1040);
	assert_string_equal(ask("print(count('n', { key = 'k', startv = 0, endv = 3 }))"), "10");
	ask("add('n', { key = 'k', count = 100 })");
	assert_string_equal(ask("print(count('n', { key = 'k', startv = 0, endv = 3 }))"), "110");
	set_time(99999);
	ask("add('n', 'k')");
	assert_string_equal(ask("print(count('n', { key = 'k', startv = 0, endv = 3 }))"), "1");
}

static void test_count_when_the_clock_goes_back(void **state)
{
	(void)state;
	ask("add('n', 'k')");
	set_time(985);
	ask("add('n', 'k')");
	set_time(1001);
	assert_string_equal(ask("print(count('n', 'k'))"), "2");
	/* Windows before all that are kept. */
	set_time(955);
	assert_string_equal(ask("print(count('n', { key = 'k', startv = 0, endv = 3 }))"), "0");
}

static void test_count_when_keys_are_networks(void **state)
{
	static const char *const bad[][2] = {
		{"'four', '192.0.2.1/23'", "a network of 32, 24, 16 or 8 bits expected"},
		{"'six', '2001:db8::/33'", "a network of 128, 64, 48 or 32 bits expected"},
		{"'four', '192.0.2.1/24x'", "is not a network such as"},
		{"'four', '192.0.2'", "is not a network such as"},
		{"'four', '2001:db8::1'", "an address of IPv4 expected"},
		{"'six', '192.0.2.1'", "an address of IPv6 expected"},
	};

	(void)state;
	ask("add('four', '192.0.2.1') add('four', '192.0.2.9') add('four', '192.0.7.1')");
	assert_string_equal(ask("print(count('four', '192.0.2.1'), count('four', '192.0.2.7/24'), "
				"count('four', '192.0.0.0/16'), count('four', '192.0.2.7'))"),
			    "1\t2\t3\t0");
	ask("add('six', '2001:db8:1:2::1') add('six', '2001:db8:1:3::1')");
	assert_string_equal(ask("print(count('six', '2001:db8:1:2::9/64'), "
				"count('six', '2001:db8:1::/48'))"),
			    "1\t2");
	assert_string_equal(ask("print(count('six', '[2001:db8:1:2::1]'))"), "1");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char code[128];

		snprintf(code, sizeof(code), "count(%s)", bad[i][0]);
		assert_non_null(strstr(ask(code), bad[i][1]));
	}
	assert_true(world->failed);
}

static void test_windows_that_are_none(void **state)
{
	static const char *const bad[] = {"startv = 0 / 0", "endv = 0 / 0", "startv = -1",
					  "startv = 2, endv = 1", "endv = 7"};
	char code[256];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(code, sizeof(code), "count('n', { key = 'k', %s })", bad[i]);
		assert_non_null(strstr(ask(code), "windows 0 to 3 expected"));
		snprintf(code, sizeof(code),
			 "msys.audit.connections('60,6', { cidr = '192.0.2.1', %s })", bad[i]);
		assert_non_null(strstr(ask(code), "windows 0 to 6 expected"));
	}
}

static void test_remove_when_one_or_all(void **state)
{
	(void)state;
	ask("for _, k in ipairs { 'a', 'b', 'c' } do add('n', k) end remove('n', 'b')");
	assert_string_equal(ask("print(count('n', 'a'), count('n', 'b'), count('n', 'c'))"),
			    "1\t0\t1");
	ask("remove('n')");
	assert_string_equal(ask("print(count('n', 'a'), count('n', 'c'))"), "0\t0");
}

/* Memory is bounded: what was added to longest ago goes. */
static void test_forget_when_keys_are_too_many(void **state)
{
	(void)state;
	assert_string_equal(ask("for i = 1, 60000 do add('n', 'key' .. i) add('n', 'kept') end "
				"print(count('n', 'kept'), count('n', 'key1'), "
				"count('n', 'key60000'))"),
			    "60000\t0\t1");
	assert_false(world->failed);
	assert_true(policy_memory_max(world->policy) <= (4 << 20) + (256 << 10));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_count_when_windows_pass, setup, teardown),
		cmocka_unit_test_setup_teardown(test_count_when_the_clock_goes_back, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_count_when_keys_are_networks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_windows_that_are_none, setup, teardown),
		cmocka_unit_test_setup_teardown(test_remove_when_one_or_all, setup, teardown),
		cmocka_unit_test_setup_teardown(test_forget_when_keys_are_too_many, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
