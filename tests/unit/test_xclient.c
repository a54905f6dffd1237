#include "listeners/smtp/xclient.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int parse(const char *text, struct xclient *x)
{
	struct smtp_refusal refusal = {.code = 0};
	size_t len = strlen(text);
	char *copy = malloc(len + (len == 0));
	int rc;

	assert_non_null(copy);
	memcpy(copy, text, len);
	rc = xclient_parse(copy, len, x, &refusal);
	free(copy);
	assert_int_equal(refusal.code, rc != 0 ? 501 : 0);
	return rc;
}

static void assert_address(const struct xclient *x, const char *expected)
{
	char text[INET6_ADDRSTRLEN];

	assert_true(x->has_address);
	inet_ntop(AF_INET6, &x->address, text, sizeof(text));
	assert_string_equal(text, expected);
}

static void test_attributes(void **state)
{
	struct xclient x;

	(void)state;
	assert_int_equal(parse("NAME=spike.porcupine.org ADDR=168.100.189.2 PORT=1234 PROTO=ESMTP "
			       "HELO=spike+20x LOGIN=bob+2Bb DESTADDR=10.0.0.1 DESTPORT=25",
			       &x),
			 0);
	assert_address(&x, "::ffff:168.100.189.2");
	assert_true(x.has_port && x.has_helo && x.has_login);
	assert_int_equal(x.port, 1234);
	assert_string_equal(x.helo, "spike x");
	assert_string_equal(x.login, "bob+b");
	assert_int_equal(parse("addr=IPV6:2001:db8::1", &x), 0);
	assert_address(&x, "2001:db8::1");
	assert_false(x.has_port || x.has_helo || x.has_login);
	assert_int_equal(parse("  ADDR=10.0.0.1   proto=smtp ", &x), 0);
	assert_address(&x, "::ffff:10.0.0.1");
}

static void test_attributes_that_are_unavailable(void **state)
{
	struct xclient x;

	(void)state;
	assert_int_equal(parse("NAME=[TEMPUNAVAIL] ADDR=[UNAVAILABLE] PORT=[unavailable] "
			       "PROTO=[UNAVAILABLE] HELO=[UNAVAILABLE] LOGIN=[UNAVAILABLE]",
			       &x),
			 0);
	assert_false(x.has_address || x.has_port);
	assert_true(x.has_helo && x.has_login);
	assert_string_equal(x.helo, "");
	assert_string_equal(x.login, "");
}

static void test_attributes_when_bad(void **state)
{
	static const char *const bad[] = {
		"",
		"ADDR",
		"ADDR=",
		"=10.0.0.1",
		"ADDRESS=10.0.0.1",
		"ADDR=10.0.0.1 COLOUR=red",
		"ADDR=10.0.0",
		"ADDR=10.0.0.1+00",
		"ADDR=2001:db8::1",
		"ADDR=IPV6:10.0.0.1",
		"ADDR=IPV6:",
		"PORT=65536",
		"PORT=-1",
		"PORT=99999999999999999999",
		"PROTO=LMTP",
		"HELO=a+0Ab",
		"HELO=a+",
		"LOGIN=a+0D+0A",
		"LOGIN=a=b",
	};
	char text[1200] = "HELO=";
	struct xclient x;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (parse(bad[i], &x) != -EINVAL) {
			fail_msg("%s", bad[i]);
		}
	}
	memset(text + 5, 'x', XCLIENT_WORD_MAX);
	assert_int_equal(parse(text, &x), 0);
	text[5 + XCLIENT_WORD_MAX] = 'x';
	assert_int_equal(parse(text, &x), -EINVAL);
	for (size_t i = 0; i < XCLIENT_WORD_MAX; i++) {
		memcpy(text + 5 + 3 * i, "+2B", 3);
	}
	assert_int_equal(parse(text, &x), 0);
	assert_int_equal(strlen(x.helo), XCLIENT_WORD_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_attributes),
		cmocka_unit_test(test_attributes_that_are_unavailable),
		cmocka_unit_test(test_attributes_when_bad),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
