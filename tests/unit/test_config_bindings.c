/*
 * Bindings of the configuration as mail is given to them: groups, weights, suspension; who may name
 * one; addresses that this machine has and has not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/config.h"

static struct config *load(const char *text, char **errors)
{
	size_t size;
	FILE *out = open_memstream(errors, &size);
	struct config *config;

	assert_non_null(out);
	config = config_load_text("x", text, strlen(text), out);
	fclose(out);
	return config;
}

#define LISTEN "esmtp_listener { listen 127.0.0.1:25 { } }\n"

static void test_groups_weights_and_suspension(void **state)
{
	static const struct binding_options expected[] = {
		{"a", "promo", 3, false}, {"b", "promo", 1, true},   {"c", "promo", 5, false},
		{"d", "other", 1, true},  {"alone", NULL, 1, false}, {"default", NULL, 1, false},
	};
	char *errors;
	struct config *config = load(
		"binding alone { }\nbinding c { weight = 5 suspend_delivery = false }\n"
		"binding_group promo { binding a { weight = 3 }\n"
		"binding b { suspend_delivery = true } binding c { } }\n"
		"binding_group other { suspend_delivery = true binding d { } }\n"
		"binding a { weight = 7 } binding default { } binding_group empty { }\n" LISTEN,
		&errors);

	(void)state;
	assert_string_equal(errors, "");
	assert_int_equal(config_binding_count(config), 6);
	for (uint32_t i = 0; i < 6; i++) {
		const struct binding_options *o = config_binding(config, i);

		assert_string_equal(o->name, expected[i].name);
		assert_int_equal(o->weight, expected[i].weight);
		assert_int_equal(o->suspend_delivery, expected[i].suspend_delivery);
		assert_int_equal(o->group == NULL, expected[i].group == NULL);
		if (o->group != NULL) {
			assert_string_equal(o->group, expected[i].group);
		}
	}
	config_release(config);
	free(errors);
}

/* A pattern that is found in the empty text is about domains, not about bindings. */
static void test_patterns_of_domains_suspend_no_bindings(void **state)
{
	char *errors;
	struct config *config = load(
		"domain \"/.*/\" { suspend_delivery = true }\n"
		"binding_group g { domain \"/^/\" { suspend_delivery = true } binding a { } }\n"
		"binding b { domain \"/$/\" { suspend_delivery = true } }\n" LISTEN,
		&errors);

	(void)state;
	assert_string_equal(errors, "");
	assert_int_equal(config_binding_count(config), 2);
	assert_false(config_binding(config, 0)->suspend_delivery);
	assert_false(config_binding(config, 1)->suspend_delivery);
	assert_true(config_domain(config, "b", "x.test", 6)->suspend_delivery);
	config_release(config);
	free(errors);
}

static void test_clients_get_bindings(void **state)
{
	struct in6_addr peer;
	char *errors;
	struct config *config =
		load("binding a { } binding_group g { binding b { } }\n"
		     "esmtp_listener { binding = a listen 127.0.0.1:25 {\n"
		     "peer 127.0.0.0/8 { binding = g binding_header = \"\" } }\n"
		     "listen 127.0.0.1:26 { binding = default binding_header = X-Way } }\n",
		     &errors);

	(void)state;
	assert_string_equal(errors, "");
	assert_int_equal(inet_pton(AF_INET6, "::ffff:127.0.0.1", &peer), 1);
	assert_string_equal(config_smtp(config, 0, &peer)->binding, "g");
	assert_string_equal(config_smtp(config, 0, &peer)->binding_header, "");
	assert_string_equal(config_smtp(config, 0, &in6addr_any)->binding, "a");
	assert_string_equal(config_smtp(config, 0, &in6addr_any)->binding_header, "X-Binding");
	assert_string_equal(config_smtp(config, 1, &peer)->binding, "default");
	assert_string_equal(config_smtp(config, 1, &peer)->binding_header, "X-Way");
	config_release(config);
	free(errors);
}

#define N8 "nnnnnnnn"
#define N64 N8 N8 N8 N8 N8 N8 N8 N8

static const struct {
	const char *text;
	const char *errors;
} broken[] = {
	{"esmtp_listener {\nbinding = a\nlisten 127.0.0.1:25 {\n"
	 "peer ::1 { binding = B } } }\nbinding b { }\n",
	 "x:2: option \"binding\": there is no binding \"a\", and no binding_group with a binding "
	 "in it; expected the name of one\n"
	 "x:4: option \"binding\": there is no binding \"B\", and no binding_group with a binding "
	 "in it; expected the name of one\n"},
	{"binding_group g { }\nbinding = g\n" LISTEN,
	 "x:2: option \"binding\": there is no binding \"g\", and no binding_group with a binding "
	 "in it; expected the name of one\n"},
	{"binding same { }\nbinding_group same { binding x { } }\n" LISTEN,
	 "x:2: scope binding_group \"same\": a binding has the same name; expected each name "
	 "once\n"},
	{"binding a { weight = 0 }\n" LISTEN,
	 "x:1: option \"weight\": \"0\" is too small; expected a number from 1 to 1000000\n"},
	{"weight = 2\n" LISTEN,
	 "x:1: option \"weight\": not possible here; expected it in binding\n"},
	{"binding " N64 " { }\nbinding x" N64 " { }\n" LISTEN,
	 "x:2: scope binding \"x" N64 "\": its name is longer than 64 bytes; expected a name such "
	 "as \"alpha\"\n"},
	{"binding_header = \"X Binding\"\n" LISTEN,
	 "x:1: option \"binding_header\": \"X Binding\" is not the name of a header field; "
	 "expected the name of a header field such as X-Binding, or \"\"\n"},
#define EXPECTED "expected an address such as \"192.0.2.1\", or one of each family in a list\n"
	{"binding a { bind_address = mx.example }\n" LISTEN,
	 "x:1: option \"bind_address\": \"mx.example\" is not an address; " EXPECTED},
	{"bind_address = 10.0.0.0/8\n" LISTEN,
	 "x:1: option \"bind_address\": \"10.0.0.0/8\" is not an address; " EXPECTED},
	{"bind_address = 0.0.0.0\n" LISTEN,
	 "x:1: option \"bind_address\": \"0.0.0.0\" is not the address of a machine; " EXPECTED},
	{"bind_address = ( \"::\" 224.0.0.1 )\n" LISTEN,
	 "x:1: option \"bind_address\": \"::\" is not the address of a machine; " EXPECTED
	 "x:1: option \"bind_address\": \"224.0.0.1\" is not the address of a machine; " EXPECTED},
	{"bind_address = ( 127.0.0.1 127.0.0.2 )\n" LISTEN,
	 "x:1: option \"bind_address\": a list has two addresses of one family; " EXPECTED},
	{"bind_address = ( )\n" LISTEN, "x:1: option \"bind_address\": a list is empty; " EXPECTED},
};

static void test_what_is_wrong(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		char *errors;

		assert_null(load(broken[i].text, &errors));
		assert_string_equal(errors, broken[i].errors);
		free(errors);
	}
}

/* 192.0.2.0/24 and 2001:db8::/32 are nobody's (RFC 5737, RFC 3849); all of 127.0.0.0/8 is here. */
static void test_addresses_of_other_machines(void **state)
{
	char *errors;
	struct config *config =
		load("bind_address = 127.0.0.1\nbinding_group g {\n bind_address = 192.0.2.1\n"
		     "binding a {\n bind_address = ( 127.0.0.77 \"2001:db8::1\" ) } }\n" LISTEN,
		     &errors);

	(void)state;
	assert_non_null(config);
	assert_non_null(strstr(errors,
			       "x:3: warning: option \"bind_address\": \"192.0.2.1\" cannot "
			       "be used on this machine: Cannot assign requested address; "
			       "its mail will wait\n"));
	assert_non_null(strstr(errors, "x:5: warning: option \"bind_address\": \"2001:db8::1\" "
				       "cannot be used on this machine: "));
	assert_null(strstr(errors, "127.0.0"));
	config_release(config);
	free(errors);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_groups_weights_and_suspension),
		cmocka_unit_test(test_patterns_of_domains_suspend_no_bindings),
		cmocka_unit_test(test_clients_get_bindings),
		cmocka_unit_test(test_what_is_wrong),
		cmocka_unit_test(test_addresses_of_other_machines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
