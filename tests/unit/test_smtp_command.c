#include "core/mail/smtp_command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mail/envelope.h"

/* The line stays where the command points to. */
static char *line;

/* Parses from memory of just its size, so that the sanitizer sees a byte too far. */
static int parse_bytes(struct smtp_command *c, const char *text, size_t len,
		       struct smtp_refusal *refusal)
{
	free(line);
	line = malloc(len > 0 ? len : 1);
	assert_non_null(line);
	memcpy(line, text, len);
	return smtp_command_parse(c, line, len, refusal);
}

static struct smtp_command accepted(const char *text)
{
	struct smtp_refusal refusal = {.text = ""};
	struct smtp_command c;

	if (parse_bytes(&c, text, strlen(text), &refusal) != 0) {
		print_message("%s: %s\n", text, refusal.text);
	}
	assert_int_equal(smtp_command_parse(&c, line, strlen(text), &refusal), 0);
	return c;
}

static enum smtp_verb assert_refused(const char *text, size_t len, unsigned code,
				     const char *status)
{
	struct smtp_refusal refusal = {.code = 0};
	struct smtp_command c;

	assert_int_equal(parse_bytes(&c, text, len, &refusal), -EINVAL);
	assert_int_equal(refusal.code, code);
	assert_string_equal(refusal.status, status);
	assert_true(strlen(refusal.text) > 0);
	return c.verb;
}

#define REFUSED(text, code, status) assert_refused(text, sizeof(text) - 1, code, status)

static void assert_slice(const char *at, size_t len, const char *expected)
{
	assert_int_equal(len, strlen(expected));
	assert_memory_equal(at, expected, len);
}

static void test_parse_verbs_in_any_case(void **state)
{
	static const struct {
		const char *text;
		enum smtp_verb verb;
	} cases[] = {
		{"HELO x", SMTP_VERB_HELO},
		{"ehlo x", SMTP_VERB_EHLO},
		{"MAIL FROM:<>", SMTP_VERB_MAIL},
		{"Rcpt to:<a@b>", SMTP_VERB_RCPT},
		{"DATA", SMTP_VERB_DATA},
		{"rset", SMTP_VERB_RSET},
		{"NOOP", SMTP_VERB_NOOP},
		{"NOOP anything", SMTP_VERB_NOOP},
		{"QuIt", SMTP_VERB_QUIT},
		{"VRFY x", SMTP_VERB_VRFY},
		{"EXPN x", SMTP_VERB_EXPN},
		{"HELP", SMTP_VERB_HELP},
		{"HELP me", SMTP_VERB_HELP},
		{"STARTTLS", SMTP_VERB_STARTTLS},
		{"AUTH PLAIN abc=", SMTP_VERB_AUTH},
		{"BDAT 5", SMTP_VERB_BDAT},
		{"DATA  ", SMTP_VERB_DATA},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(accepted(cases[i].text).verb, cases[i].verb);
	}
	assert_string_equal(smtp_verb_name(SMTP_VERB_STARTTLS), "STARTTLS");
	assert_string_equal(smtp_verb_name(SMTP_VERB_UNKNOWN), "unknown");
}

static void test_parse_argument_is_trimmed(void **state)
{
	struct smtp_command c = accepted("EHLO   client.example  ");

	(void)state;
	assert_slice(c.argument, c.argument_len, "client.example");
	c = accepted("RSET");
	assert_int_equal(c.argument_len, 0);
	c = accepted("AUTH PLAIN abc=");
	assert_slice(c.argument, c.argument_len, "PLAIN abc=");
}

static void test_parse_mail_with_parameters(void **state)
{
	struct smtp_command c = accepted("MAIL FROM:<a@b> SIZE=12345 BODY=8BITMIME SMTPUTF8");

	(void)state;
	assert_slice(c.path, c.path_len, "<a@b>");
	assert_true(c.has_size);
	assert_int_equal(c.size, 12345);
	assert_true(c.has_body);
	assert_int_equal(c.body, SMTP_BODY_8BITMIME);
	assert_true(c.smtputf8);
	c = accepted("mail from:<> body=7bit size=0");
	assert_slice(c.path, c.path_len, "<>");
	assert_int_equal(c.body, SMTP_BODY_7BIT);
	assert_true(c.has_size);
	assert_int_equal(c.size, 0);
	assert_false(c.smtputf8);
	c = accepted("MAIL FROM:<a@b>");
	assert_false(c.has_size);
	assert_false(c.has_body);
}

static void test_parse_dsn_parameters(void **state)
{
	struct smtp_command c = accepted("MAIL FROM:<a@b> RET=FULL ENVID=QQ+2B SIZE=1");

	(void)state;
	assert_int_equal(c.dsn.ret, ENVELOPE_RET_FULL);
	assert_slice(c.dsn.envid, c.dsn.envid_len, "QQ+2B");
	assert_int_equal(c.size, 1);
	c = accepted("RCPT TO:<a@b> NOTIFY=SUCCESS,DELAY orcpt=rfc822;a@b");
	assert_int_equal(c.dsn.notify, ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_DELAY);
	assert_slice(c.dsn.orcpt, c.dsn.orcpt_len, "rfc822;a@b");
	c = accepted("RCPT TO:<a@b>");
	assert_int_equal(c.dsn.notify, 0);
	assert_null(c.dsn.orcpt);
	REFUSED("MAIL FROM:<a@b> RET", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> ENVID=a+", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> ENVID=a ENVID=a", 501, "5.5.4");
	REFUSED("RCPT TO:<a@b> NOTIFY=", 501, "5.5.4");
	REFUSED("RCPT TO:<a@b> ORCPT", 501, "5.5.4");
}

static void test_parse_path_tolerates_spaces_around(void **state)
{
	struct smtp_command c = accepted("MAIL FROM: <a@b>");

	(void)state;
	assert_slice(c.path, c.path_len, "<a@b>");
	c = accepted("MAIL   FROM:   <a@b>    SIZE=1   ");
	assert_slice(c.path, c.path_len, "<a@b>");
	assert_int_equal(c.size, 1);
	c = accepted("RCPT TO: <a@b> ");
	assert_slice(c.path, c.path_len, "<a@b>");
}

static void test_parse_path_ends_outside_of_quotes(void **state)
{
	struct smtp_command c = accepted("MAIL FROM:<\"a> SIZE=1 \\\" >\"@b> SIZE=7");

	(void)state;
	assert_slice(c.path, c.path_len, "<\"a> SIZE=1 \\\" >\"@b>");
	assert_int_equal(c.size, 7);
	assert_int_equal(REFUSED("MAIL FROM:<\"a>", 501, "5.5.2"), SMTP_VERB_MAIL);
	assert_int_equal(REFUSED("MAIL FROM:<\"a\\", 501, "5.5.2"), SMTP_VERB_MAIL);
}

static void test_parse_size_saturates(void **state)
{
	(void)state;
	assert_true(accepted("MAIL FROM:<> SIZE=18446744073709551615").size == UINT64_MAX);
	assert_true(accepted("MAIL FROM:<> SIZE=18446744073709551614").size == UINT64_MAX - 1);
	assert_true(accepted("MAIL FROM:<> SIZE=18446744073709551616").size == UINT64_MAX);
	assert_true(accepted("MAIL FROM:<> SIZE=99999999999999999999").size == UINT64_MAX);
	REFUSED("MAIL FROM:<> SIZE=100000000000000000000", 501, "5.5.4");
}

static void test_parse_when_mail_is_malformed_refuses(void **state)
{
	(void)state;
	REFUSED("MAIL", 501, "5.5.2");
	REFUSED("MAIL <a@b>", 501, "5.5.2");
	REFUSED("MAIL FROM <a@b>", 501, "5.5.2");
	REFUSED("MAIL FROM:", 501, "5.5.2");
	REFUSED("MAIL FROM:a@b", 501, "5.5.2");
	REFUSED("MAIL FROM:<a@b", 501, "5.5.2");
	REFUSED("MAIL FROM:<a@b>SIZE=1", 501, "5.5.2");
	REFUSED("MAIL TO:<a@b>", 501, "5.5.2");
	REFUSED("MAIL FROM:<a@b> SIZE", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> SIZE=", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> SIZE=1x", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> SIZE=-1", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> SIZE=1 SIZE=1", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> BODY=BINARYMIME", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> BODY", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> BODY=7BIT BODY=7BIT", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> SMTPUTF8=1", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> SMTPUTF8 SMTPUTF8", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> REQUIRETLS=1", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> REQUIRETLS REQUIRETLS", 501, "5.5.4");
	assert_true(accepted("MAIL FROM:<a@b> requiretls").requiretls);
	REFUSED("MAIL FROM:<a@b> =1", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> -X=1", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> X=1=2", 501, "5.5.4");
	REFUSED("MAIL FROM:<a@b> a@b", 501, "5.5.4");
}

static void test_parse_when_parameter_is_unknown_refuses(void **state)
{
	(void)state;
	REFUSED("MAIL FROM:<a@b> NOTIFY=NEVER", 555, "5.5.4");
	REFUSED("MAIL FROM:<a@b> SIZE=1 X-FOO", 555, "5.5.4");
	REFUSED("MAIL FROM:<a@b> SIZE2=1", 555, "5.5.4");
	assert_int_equal(REFUSED("RCPT TO:<a@b> RET=HDRS", 555, "5.5.4"), SMTP_VERB_RCPT);
	REFUSED("RCPT TO:<a@b> SIZE=1", 555, "5.5.4");
	REFUSED("RCPT TO:<a@b> =", 501, "5.5.4");
}

static void test_parse_when_argument_is_wrong_refuses(void **state)
{
	(void)state;
	REFUSED("DATA x", 501, "5.5.4");
	REFUSED("RSET x", 501, "5.5.4");
	REFUSED("QUIT x", 501, "5.5.4");
	REFUSED("STARTTLS x", 501, "5.5.4");
	REFUSED("HELO", 501, "5.5.4");
	REFUSED("EHLO a b", 501, "5.5.4");
	REFUSED("VRFY", 501, "5.5.4");
	REFUSED("EXPN ", 501, "5.5.4");
	REFUSED("AUTH", 501, "5.5.4");
	REFUSED("RCPT", 501, "5.5.2");
	REFUSED("RCPT FROM:<a@b>", 501, "5.5.2");
}

static void test_parse_bdat(void **state)
{
	struct smtp_command c = accepted("BDAT 1000");

	(void)state;
	assert_int_equal(c.size, 1000);
	assert_false(c.last);
	c = accepted("bdat 0 last");
	assert_int_equal(c.size, 0);
	assert_true(c.last);
	REFUSED("BDAT", 501, "5.5.4");
	REFUSED("BDAT x", 501, "5.5.4");
	REFUSED("BDAT 5 LASTLY", 501, "5.5.4");
	REFUSED("BDAT LAST", 501, "5.5.4");
}

static void test_parse_when_verb_is_unknown_refuses(void **state)
{
	(void)state;
	assert_int_equal(REFUSED("", 500, "5.5.2"), SMTP_VERB_UNKNOWN);
	assert_int_equal(REFUSED("FOO bar", 500, "5.5.2"), SMTP_VERB_UNKNOWN);
	assert_int_equal(REFUSED("MAILX FROM:<a@b>", 500, "5.5.2"), SMTP_VERB_UNKNOWN);
	assert_int_equal(REFUSED(" DATA", 500, "5.5.2"), SMTP_VERB_UNKNOWN);
	assert_int_equal(REFUSED("unknown", 500, "5.5.2"), SMTP_VERB_UNKNOWN);
	assert_int_equal(REFUSED("GET / HTTP/1.1", 500, "5.5.2"), SMTP_VERB_UNKNOWN);
}

static void test_parse_when_control_characters_refuses(void **state)
{
	(void)state;
	REFUSED("NOOP \r", 500, "5.5.2");
	REFUSED("NOOP\n", 500, "5.5.2");
	REFUSED("NOOP \0", 500, "5.5.2");
	REFUSED("NOOP\t", 500, "5.5.2");
	REFUSED("NOOP \x7f", 500, "5.5.2");
	REFUSED("MAIL FROM:<a\rb@c>", 500, "5.5.2");
	REFUSED("MAIL FROM:<a@c>\0", 500, "5.5.2");
}

static void test_parse_takes_8bit_in_paths_only(void **state)
{
	struct smtp_command c = accepted("MAIL FROM:<\xc3\xbc@b> SMTPUTF8");

	(void)state;
	assert_slice(c.path, c.path_len, "<\xc3\xbc@b>");
	REFUSED("EHLO \xc3\xbc", 500, "5.5.2");
	REFUSED("MAIL FROM:<a@b> X=\xc3\xbc", 500, "5.5.2");
	REFUSED("NOOP \xff", 500, "5.5.2");
}

static void test_parse_line_limits(void **state)
{
	static char text[SMTP_COMMAND_AUTH_LINE_MAX + 2];

	(void)state;
	memset(text, 'x', sizeof(text));
	memcpy(text, "NOOP ", 5);
	assert_int_equal(smtp_command_parse(&(struct smtp_command){0}, text, SMTP_COMMAND_LINE_MAX,
					    &(struct smtp_refusal){0}),
			 0);
	assert_refused(text, SMTP_COMMAND_LINE_MAX + 1, 500, "5.5.2");
	memcpy(text, "AUTH ", 5);
	assert_int_equal(smtp_command_parse(&(struct smtp_command){0}, text,
					    SMTP_COMMAND_AUTH_LINE_MAX, &(struct smtp_refusal){0}),
			 0);
	assert_refused(text, SMTP_COMMAND_AUTH_LINE_MAX + 1, 500, "5.5.2");
}

static void test_parse_of_mutations_stays_inside_the_line(void **state)
{
	static const char *const seeds[] = {
		"MAIL FROM:<a@b> SIZE=1 BODY=8BITMIME SMTPUTF8 ENVID=a+20",
		"RCPT TO:<\"a\\\"b\"@c> NOTIFY=DELAY ORCPT=a;b",
		"EHLO x",
		"BDAT 12 LAST",
	};
	static const char letters[] = "<>:\"\\= \0\r\x80"
				      "aA1-";
	unsigned seed = 11;
	unsigned good = 0;

	(void)state;
	for (unsigned i = 0; i < 100000; i++) {
		struct smtp_refusal refusal = {.code = 0};
		struct smtp_command c;
		char text[64];
		size_t len = strlen(seeds[i % 4]);

		memcpy(text, seeds[i % 4], len);
		for (unsigned n = 0; n < i % 4; n++) {
			seed = seed * 1103515245U + 12345U;
			text[(seed >> 8) % len] = letters[(seed >> 20) % (sizeof(letters) - 1)];
		}
		seed = seed * 1103515245U + 12345U;
		len -= i % 3 == 0 ? (seed >> 16) % len : 0;
		if (parse_bytes(&c, text, len, &refusal) != 0) {
			assert_true(refusal.code >= 500 && refusal.code <= 555);
			continue;
		}
		good++;
		assert_true(c.argument >= line && c.argument + c.argument_len <= line + len);
		assert_true(c.path == NULL || (c.path > line && c.path + c.path_len <= line + len &&
					       c.path[0] == '<' && c.path[c.path_len - 1] == '>'));
	}
	assert_true(good > 10000);
	free(line);
	line = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_verbs_in_any_case),
		cmocka_unit_test(test_parse_argument_is_trimmed),
		cmocka_unit_test(test_parse_mail_with_parameters),
		cmocka_unit_test(test_parse_dsn_parameters),
		cmocka_unit_test(test_parse_path_tolerates_spaces_around),
		cmocka_unit_test(test_parse_path_ends_outside_of_quotes),
		cmocka_unit_test(test_parse_size_saturates),
		cmocka_unit_test(test_parse_when_mail_is_malformed_refuses),
		cmocka_unit_test(test_parse_when_parameter_is_unknown_refuses),
		cmocka_unit_test(test_parse_when_argument_is_wrong_refuses),
		cmocka_unit_test(test_parse_bdat),
		cmocka_unit_test(test_parse_when_verb_is_unknown_refuses),
		cmocka_unit_test(test_parse_when_control_characters_refuses),
		cmocka_unit_test(test_parse_takes_8bit_in_paths_only),
		cmocka_unit_test(test_parse_line_limits),
		cmocka_unit_test(test_parse_of_mutations_stays_inside_the_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
