/*
 * Where the value of an option comes from: file, line and scope; and that the scope which is named
 * is the one that decides.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "config/config.h"
#include "core/queue/throttle.h"
#include "tests/unit/config_world.h"

#define MAX "max_outbound_connections"

/* Each line sets the number of its own line. */
static const char *const every_scope = MAX " = 1\n"
					   "binding_group g {\n" MAX " = 3\n"
					   "domain d.test {\n" MAX " = 5\n"
					   "}\n"
					   "binding b {\n" MAX " = 8\n"
					   "provider p {\n" MAX " = 10\n"
					   "}\n"
					   "domain d.test {\n" MAX " = 13\n"
					   "} } }\n"
					   "binding b {\n" MAX " = 16\n"
					   "provider p {\n" MAX " = 18\n"
					   "}\n"
					   "domain d.test {\n" MAX " = 21\n"
					   "} }\n"
					   "provider p {\n"
					   "mx_suffix = .p.test\n" MAX " = 25\n"
					   "}\n"
					   "domain d.test {\n" MAX " = 28\n"
					   "}\n";

static struct config_origin origin_of(const struct config *config, const char *binding,
				      const char *provider, const char *domain, const char *option)
{
	struct config_origin o;

	config_outbound_origin(config, binding, provider, domain,
			       domain != NULL ? strlen(domain) : 0, option, &o);
	return o;
}

/* Takes line `number`, "name = value", out of the text. */
static char *without_line(const char *text, uint32_t number)
{
	char *copy = strdup(text);
	char *at = copy;

	assert_non_null(copy);
	for (uint32_t line = 1; line < number; line++) {
		at = strchr(at, '\n') + 1;
	}
	assert_memory_equal(at, MAX, strlen(MAX));
	memset(at, ' ', strcspn(at, "\n"));
	return copy;
}

/* From the most specific scope to the least, each one as soon as those before it say nothing. */
static void test_the_scope_that_decides_is_named(void **state)
{
	static const struct {
		uint32_t line;
		const char *scope;
	} expected[] = {
		{13, "domain \"d.test\" in binding \"b\" in binding_group \"g\""},
		{21, "domain \"d.test\" in binding \"b\""},
		{5, "domain \"d.test\" in binding_group \"g\""},
		{10, "provider \"p\" in binding \"b\" in binding_group \"g\""},
		{18, "provider \"p\" in binding \"b\""},
		{28, "domain \"d.test\""},
		{25, "provider \"p\""},
		{8, "binding \"b\" in binding_group \"g\""},
		{16, "binding \"b\""},
		{3, "binding_group \"g\""},
		{1, "the global scope"},
	};
	char *text = strdup(every_scope);

	(void)state;
	for (unsigned i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
		struct config *config = load_valid(text);
		struct config_origin o = origin_of(config, "b", "p", "d.test", MAX);
		char *less;

		assert_string_equal(o.scope, expected[i].scope);
		assert_string_equal(o.file, "test.conf");
		assert_int_equal(o.line, expected[i].line);
		/* The value is that of the line. */
		assert_int_equal(
			config_outbound(config, "b", "p", "d.test", 6)->max_outbound_connections,
			expected[i].line);
		less = without_line(text, o.line);
		free(text);
		text = less;
		config_release(config);
	}
	free(text);
}

static void test_nobody_is_the_default(void **state)
{
	struct config *config = load_valid("domain d.test { }\n");
	struct config_origin o = origin_of(config, "b", NULL, "d.test", MAX);

	(void)state;
	assert_string_equal(o.file, "default");
	assert_int_equal(o.line, 0);
	assert_string_equal(o.scope, "default");
	/* Without a default. */
	o = origin_of(config, NULL, NULL, "other.test", "outbound_throttle_messages");
	assert_string_equal(o.file, "default");
	config_program_origin(config, NULL, "server_max_outbound_connections", &o);
	assert_string_equal(o.file, "default");
	config_program_origin(config, "spool", "min_free", &o);
	assert_string_equal(o.file, "default");
	config_release(config);
}

static void test_the_last_of_two_lines_counts(void **state)
{
	struct config *config = load_valid("domain d.test {\n" MAX " = 7\n}\n"
					   "domain d.test {\n" MAX " = 9 }\n"
					   "server_max_outbound_connections = 5\n"
					   "spool {\nmin_free = 1G }\n");
	struct config_origin o = origin_of(config, NULL, NULL, "d.test", MAX);

	(void)state;
	assert_int_equal(o.line, 5);
	config_program_origin(config, NULL, "server_max_outbound_connections", &o);
	assert_int_equal(o.line, 6);
	assert_string_equal(o.scope, "the global scope");
	config_program_origin(config, "spool", "min_free", &o);
	assert_int_equal(o.line, 8);
	assert_string_equal(o.scope, "spool");
	config_release(config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_scope_that_decides_is_named),
		cmocka_unit_test(test_nobody_is_the_default),
		cmocka_unit_test(test_the_last_of_two_lines_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
