#include "core/mail/dsn_parameter.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/mail/envelope.h"

typedef bool (*take_fn)(struct dsn_parameters *p, const char *keyword, size_t keyword_len,
			const char *value, size_t value_len, const struct smtp_refusal **refusal);

/* From memory of just its size, so that the sanitizer sees a byte too far. True when the value was
 * taken; the copies live until the next call. */
static bool takes(take_fn take, struct dsn_parameters *p, const char *keyword, const char *value)
{
	static char *copy;
	const struct smtp_refusal *refusal = NULL;
	size_t len = value != NULL ? strlen(value) : 0;

	free(copy);
	copy = value != NULL ? malloc(len + (len == 0)) : NULL;
	if (len > 0) {
		memcpy(copy, value, len);
	}
	assert_true(take(p, keyword, strlen(keyword), copy, len, &refusal));
	if (refusal != NULL) {
		assert_int_equal(refusal->code, 501);
		assert_string_equal(refusal->status, "5.5.4");
	}
	if (value == NULL) {
		assert_non_null(refusal);
	}
	return refusal == NULL;
}

static void test_ret(void **state)
{
	struct dsn_parameters p = {0};

	(void)state;
	assert_true(takes(dsn_parameter_mail, &p, "RET", "FULL"));
	assert_int_equal(p.ret, ENVELOPE_RET_FULL);
	assert_false(takes(dsn_parameter_mail, &p, "RET", "FULL"));
	p = (struct dsn_parameters){0};
	assert_true(takes(dsn_parameter_mail, &p, "ret", "hdrs"));
	assert_int_equal(p.ret, ENVELOPE_RET_HDRS);
	for (const char *const *v = (const char *const[]){"", "FULLER", "FUL", "BODY", NULL};
	     *v != NULL; v++) {
		p = (struct dsn_parameters){0};
		assert_false(takes(dsn_parameter_mail, &p, "RET", *v));
	}
	assert_false(takes(dsn_parameter_mail, &p, "RET", NULL));
}

static void test_notify(void **state)
{
	static const struct {
		const char *value;
		unsigned flags;
	} cases[] = {
		{"NEVER", ENVELOPE_NOTIFY_NEVER},
		{"never", ENVELOPE_NOTIFY_NEVER},
		{"NEVER,NEVER", ENVELOPE_NOTIFY_NEVER},
		{"SUCCESS", ENVELOPE_NOTIFY_SUCCESS},
		{"FAILURE", ENVELOPE_NOTIFY_FAILURE},
		{"Delay", ENVELOPE_NOTIFY_DELAY},
		{"SUCCESS,FAILURE,DELAY",
		 ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_FAILURE | ENVELOPE_NOTIFY_DELAY},
		{"DELAY,FAILURE", ENVELOPE_NOTIFY_DELAY | ENVELOPE_NOTIFY_FAILURE},
		/* Refused. */
		{"", 0},
		{",", 0},
		{"SUCCESS,", 0},
		{",SUCCESS", 0},
		{"SUCCESS,,DELAY", 0},
		{"NEVER,FAILURE", 0},
		{"FAILURE,NEVER", 0},
		{"ALWAYS", 0},
		{"SUCCESSFUL", 0},
		{"SUCCES", 0},
	};
	struct dsn_parameters p;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		p = (struct dsn_parameters){0};
		assert_int_equal(takes(dsn_parameter_rcpt, &p, "NOTIFY", cases[i].value),
				 cases[i].flags != 0);
		if (cases[i].flags != 0) {
			assert_int_equal(p.notify, cases[i].flags);
			assert_false(takes(dsn_parameter_rcpt, &p, "NOTIFY", "NEVER"));
		}
	}
	assert_false(takes(dsn_parameter_rcpt, &p, "NOTIFY", NULL));
}

static const struct {
	const char *text;
	/* NULL: no xtext. */
	const char *decoded;
} xtexts[] = {
	{"a", "a"},
	{"QQ314159", "QQ314159"},
	{"a+2Bb+3Dc", "a+b=c"},
	{"+20", " "},
	{"!~", "!~"},
	{"", NULL},
	{"+", NULL},
	{"a+2", NULL},
	{"a+2b", NULL},
	{"a+G0", NULL},
	{"a b", NULL},
	{"a=b", NULL},
	{"\xc3\xbc", NULL},
	{"\x7f", NULL},
	/* What it stands for is no printable text. */
	{"+0A", NULL},
	{"+0D+0AX:+20y", NULL},
	{"+00", NULL},
	{"+7F", NULL},
	{"+C3+BC", NULL},
};

static void test_xtext(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(xtexts) / sizeof(xtexts[0]); i++) {
		size_t len = strlen(xtexts[i].text);
		struct dsn_parameters p = {0};
		char decoded[32];

		assert_int_equal(takes(dsn_parameter_mail, &p, "ENVID", xtexts[i].text),
				 xtexts[i].decoded != NULL);
		assert_int_equal(dsn_xtext_valid(xtexts[i].text, len), xtexts[i].decoded != NULL);
		if (xtexts[i].decoded != NULL) {
			assert_int_equal(dsn_xtext_decode(xtexts[i].text, len, decoded),
					 strlen(xtexts[i].decoded));
			assert_string_equal(decoded, xtexts[i].decoded);
			assert_int_equal(p.envid_len, len);
			assert_memory_equal(p.envid, xtexts[i].text, len);
		}
	}
}

static void test_orcpt(void **state)
{
	static const struct {
		const char *value;
		bool good;
	} cases[] = {
		{"rfc822;bob@example.com", true},
		{"x-odd!;a;b", true},
		{"utf-8;a+20b", true},
		{"rfc822;", false},
		{";bob@example.com", false},
		{"rfc822", false},
		{"", false},
		{"rfc 822;bob", false},
		{"rfc822;b ob", false},
		{"rfc822;bob+", false},
		{"rfc822;bob+0A", false},
		{"rfc(822);bob", false},
	};
	struct dsn_parameters p;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		p = (struct dsn_parameters){0};
		assert_int_equal(takes(dsn_parameter_rcpt, &p, "ORCPT", cases[i].value),
				 cases[i].good);
	}
	assert_false(takes(dsn_parameter_rcpt, &p, "ORCPT", NULL));
	p = (struct dsn_parameters){0};
	assert_true(takes(dsn_parameter_rcpt, &p, "ORCPT", "a;b"));
	assert_false(takes(dsn_parameter_rcpt, &p, "ORCPT", "a;b"));
}

static void test_lengths(void **state)
{
	char text[DSN_ORCPT_MAX + 2];
	struct dsn_parameters p = {0};

	(void)state;
	memset(text, 'x', sizeof(text));
	text[DSN_ENVID_MAX] = '\0';
	assert_true(takes(dsn_parameter_mail, &p, "ENVID", text));
	assert_false(takes(dsn_parameter_mail, &p, "ENVID", text));
	text[DSN_ENVID_MAX] = 'x';
	text[DSN_ENVID_MAX + 1] = '\0';
	p = (struct dsn_parameters){0};
	assert_false(takes(dsn_parameter_mail, &p, "ENVID", text));
	assert_false(takes(dsn_parameter_mail, &p, "ENVID", NULL));
	memset(text, 'x', sizeof(text));
	text[6] = ';';
	text[DSN_ORCPT_MAX] = '\0';
	assert_true(takes(dsn_parameter_rcpt, &p, "ORCPT", text));
	text[DSN_ORCPT_MAX] = 'x';
	text[DSN_ORCPT_MAX + 1] = '\0';
	p = (struct dsn_parameters){0};
	assert_false(takes(dsn_parameter_rcpt, &p, "ORCPT", text));
}

static void test_others_are_none_of_these(void **state)
{
	const struct smtp_refusal *refusal;
	struct dsn_parameters p = {0};

	(void)state;
	assert_false(dsn_parameter_mail(&p, "NOTIFY", 6, "NEVER", 5, &refusal));
	assert_false(dsn_parameter_mail(&p, "RETURN", 6, "FULL", 4, &refusal));
	assert_false(dsn_parameter_mail(&p, "RE", 2, "FULL", 4, &refusal));
	assert_false(dsn_parameter_rcpt(&p, "RET", 3, "FULL", 4, &refusal));
	assert_false(dsn_parameter_rcpt(&p, "ENVID", 5, "x", 1, &refusal));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ret),     cmocka_unit_test(test_notify),
		cmocka_unit_test(test_xtext),   cmocka_unit_test(test_orcpt),
		cmocka_unit_test(test_lengths), cmocka_unit_test(test_others_are_none_of_these),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
