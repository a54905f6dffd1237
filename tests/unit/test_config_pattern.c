/*
 * Scopes of domains by regular expressions: after the domain's own name, the first one in the order
 * of the files; in each scope by itself; what is wrong with them is told by line.
 */
#include "config/ask.h"
#include "config/config.h"
#include "tests/unit/config_world.h"

static const struct domain_options *find(const struct config *config, const char *binding,
					 const char *domain)
{
	return config_domain(config, binding, domain, strlen(domain));
}

static unsigned limit(const struct config *config, const char *binding, const char *domain)
{
	return find(config, binding, domain)->max_outbound_connections;
}

static void test_find_when_own_name_comes_first(void **state)
{
	(void)state;
	struct config *config =
		load_valid("max_outbound_connections = 1\n"
			   "domain \"/\\.example\\.com$/\" { max_outbound_connections = 2 }\n"
			   "domain \"/^mx[0-9]+\\./i\" { max_outbound_connections = 3 }\n"
			   "domain a.example.com { max_outbound_connections = 4 }\n"
			   "domain \"/example/\" { max_outbound_connections = 5 }\n");
	assert_int_equal(limit(config, NULL, "a.example.com"), 4);
	assert_int_equal(limit(config, NULL, "b.example.com"), 2);
	/* Two match: that which comes first. */
	assert_int_equal(limit(config, NULL, "mx7.example.com"), 2);
	assert_int_equal(limit(config, NULL, "mx7.example.net"), 3);
	assert_int_equal(limit(config, NULL, "example.org"), 5);
	assert_int_equal(limit(config, NULL, "other.org"), 1);
	assert_int_equal(limit(config, NULL, "xexample.com"), 5);
	/* No domain at all. */
	assert_int_equal(config_domain(config, NULL, NULL, 0)->max_outbound_connections, 1);
	/* All that it matches are of one scope. */
	assert_ptr_equal(find(config, NULL, "b.example.com"), find(config, NULL, "c.example.com"));
	assert_int_equal(config_pattern_failures(config), 0);
	config_release(config);
}

static void test_find_when_case_is_written(void **state)
{
	(void)state;
	struct config *config =
		load_valid("domain \"/^[A-Z]+\\.Example$/\" { max_outbound_connections = 2 }\n"
			   "domain \"/^\\D+\\.net$/\" { max_outbound_connections = 3 }\n");
	assert_int_equal(limit(config, NULL, "abc.example"), 2);
	/* \D is not \d. */
	assert_int_equal(limit(config, NULL, "abc.net"), 3);
	assert_int_not_equal(limit(config, NULL, "123.net"), 3);
	config_release(config);
}

static void test_find_when_in_bindings_and_groups(void **state)
{
	(void)state;
	struct config *config = load_valid(
		"domain \"/com$/\" { max_outbound_connections = 1 remote_smtp_port = 1025 }\n"
		"binding b {\n"
		"	domain \"/^a/\" { max_outbound_connections = 2 }\n"
		"	domain \"ab.com\" { max_outbound_connections = 3 }\n"
		"}\n"
		"binding_group g {\n"
		"	domain \"/^c/\" { max_outbound_connections = 4 }\n"
		"	binding d { domain \"/^cd/\" { max_outbound_connections = 5 } }\n"
		"}\n");
	assert_int_equal(limit(config, "b", "aa.com"), 2);
	assert_int_equal(find(config, "b", "aa.com")->remote_smtp_port, 1025);
	assert_int_equal(limit(config, "b", "aa.net"), 2);
	assert_int_not_equal(find(config, "b", "aa.net")->remote_smtp_port, 1025);
	assert_int_equal(limit(config, "b", "ab.com"), 3);
	assert_int_equal(limit(config, "b", "x.com"), 1);
	assert_int_equal(limit(config, "d", "cx.net"), 4);
	assert_int_equal(limit(config, "d", "cd.net"), 5);
	assert_int_equal(limit(config, "other", "cd.com"), 1);
	/* Equal scopes, equal answers. */
	assert_ptr_equal(find(config, "b", "a1.net"), find(config, "b", "a2.net"));
	config_release(config);
}

static void test_origin_when_a_pattern_decides(void **state)
{
	struct config_origin origin;
	(void)state;
	struct config *config =
		load_valid("hostname = x.example\n"
			   "domain \"/\\.com$/\" {\n\tmax_outbound_connections = 2 }\n");
	config_outbound_origin(config, NULL, NULL, "a.com", 5, "max_outbound_connections", &origin);
	assert_string_equal(origin.file, "test.conf");
	assert_int_equal(origin.line, 3);
	assert_string_equal(origin.scope, "domain \"/\\.com$/\"");
	config_release(config);
}

static void check_refused(const char *text, const char *says)
{
	char *errors;
	struct config *config = load(text, &errors);
	if (config != NULL || strstr(errors, says) == NULL) {
		print_error("%s\nsays %s\nnot %s\n", text, errors, says);
		fail();
	}
	free(errors);
}

static void test_load_when_patterns_are_wrong(void **state)
{
	(void)state;
	check_refused(
		"\ndomain \"/a(b/\" { }\n",
		"test.conf:2: scope domain \"/a(b/\": missing closing parenthesis, at byte 3; "
		"expected a regular expression as PCRE has them\n");
	check_refused("domain \"//\" { }\n",
		      "test.conf:1: scope domain \"//\": its name is no regular expression between "
		      "slashes; expected a pattern such as \"/\\.example\\.com$/\"\n");
	check_refused("domain \"/abc\" { }\n",
		      "test.conf:1: scope domain \"/abc\": its name is no");
	check_refused("domain \"/i\" { }\n", "test.conf:1: scope domain \"/i\": its name is no");
	check_refused("binding b { domain \"/(a+)+$/\" { } }\n",
		      "test.conf:1: scope domain \"/(a+)+$/\": takes too long; expected");
	check_refused("domain \"/([a-z0-9]+-?)+\\.com$/\" { }\n", "takes too long");
}

/* Not every expression is seen to be slow. */
static void test_find_when_a_match_takes_too_long_is_counted(void **state)
{
	char name[251];
	(void)state;
	struct config *config =
		load_valid("domain \"/^((xy)+)+q/\" { max_outbound_connections = 2 }\n"
			   "domain \"/^xy/\" { max_outbound_connections = 3 }\n");
	for (size_t i = 0; i < sizeof(name); i++) {
		name[i] = i % 2 == 0 ? 'x' : 'y';
	}
	memcpy(name + 248, ".q", 3);
	/* It does not match; the next one does. */
	assert_int_equal(limit(config, NULL, name), 3);
	assert_int_equal(config_pattern_failures(config), 1);
	assert_int_equal(limit(config, NULL, "xyq"), 2);
	assert_int_equal(config_pattern_failures(config), 1);
	config_release(config);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find_when_own_name_comes_first),
		cmocka_unit_test(test_find_when_case_is_written),
		cmocka_unit_test(test_find_when_in_bindings_and_groups),
		cmocka_unit_test(test_origin_when_a_pattern_decides),
		cmocka_unit_test(test_load_when_patterns_are_wrong),
		cmocka_unit_test(test_find_when_a_match_takes_too_long_is_counted),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
