#include "core/log/event_macro.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

static struct event_sanitizer sanitizer;

static struct event event_of(void)
{
	static const char pairs[] = "x-mine:\0mine, ours\0tenant\0t1\0:conn:tenant\0t2";

	return (struct event){.kind = EVENT_BOUNCE,
			      .stage = SMTP_STAGE_DURING_RCPT,
			      .code = 550,
			      .bounce_class = 10,
			      .retries = 2,
			      .time_ms = 1753000000123,
			      .id = {0x0198c0ffee000001, 0x0200000000000003},
			      .batch = 0x2a,
			      .connection = 0xdeadbeef,
			      .size = 1234,
			      .queued_ms = 61999,
			      .text = {[EVENT_RECIPIENT] = "to@b.example",
				       [EVENT_SENDER] = "\"a@b\"@a.example",
				       [EVENT_REPLY] = "550 no\nsuch\\user\x01 \xc3\xa4\xff",
				       [EVENT_DOMAIN] = "d.example",
				       [EVENT_BINDING_GROUP] = "g",
				       [EVENT_BINDING] = "v",
				       [EVENT_PROTOCOL] = "esmtps",
				       [EVENT_REMOTE_IP] = "192.0.2.1",
				       [EVENT_LOCAL_ADDRESS] = "192.0.2.9:25",
				       [EVENT_USER] = "tim",
				       [EVENT_AUTH_METHOD] = "PLAIN"},
			      .context = pairs,
			      .context_len = sizeof(pairs)};
}

static const char *format(const char *text, const struct event *e)
{
	static char line[EVENT_MACRO_LINE_MAX + 1];
	struct bounce_rules *rules = bounce_rules_load(NULL, stderr);
	char why[EVENT_MACRO_WHY];
	struct event_macro *m = event_macro_compile(text, why);

	if (m == NULL) {
		fail_msg("%s: %s", text, why);
	}
	line[event_macro_format(m, &sanitizer, e, rules, line, EVENT_MACRO_LINE_MAX)] = '\0';
	event_macro_free(m);
	bounce_rules_free(rules);
	return line;
}

static int set_up(void **state)
{
	(void)state;
	event_sanitizer_init(&sanitizer);
	return 0;
}

static void test_every_macro(void **state)
{
	static const char *const cases[][2] = {
		{"%t", "1753000000"},
		{"%t{%Y-%m-%dT%H:%M:%SZ}", "2025-07-20T08:26:40Z"},
		{"%us{0} %us{1} %us{3} %us{9}",
		 "1753000000 1753000000.1 1753000000.123 1753000000.123000000"},
		{"%BI %CI", "2a deadbeef"},
		{"%r %R", "to b.example"},
		{"%m %M", "\"a@b\" a.example"},
		{"%b %g %d", "v g d.example"},
		{"%B", "1234"},
		{"%H %P %p", "192.0.2.1 192.0.2.9:25 esmtps"},
		{"%A %U", "PLAIN tim"},
		{"%h{X-Mine}|%h{Nothing}", "mine, ours|"},
		{"%n", "550 no\\nsuch\\\\user\\x01 \xc3\xa4\xff"},
		{"%N", "3"},
		{"%s %S", "during RCPT TO 4"},
		{"%c %C", "Invalid Recipient 10"},
		{"%T %T{0} %T{3}", "61.99 61 61.999"},
		{"%vctx_mess{tenant}|%vctx_mess{x-mine}", "t1|"},
		{"%vctx_conn{tenant}|%vctx_conn{x-mine}", "t2|"},
		{"100%% of\t%%r", "100% of\t%r"},
		{"plain", "plain"},
		{"", ""},
	};
	struct event e = event_of();
	char id[MESSAGE_ID_TEXT];

	(void)state;
	message_id_format(&e.id, id);
	assert_string_equal(format("%i", &e), id);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_string_equal(format(cases[i][0], &e), cases[i][1]);
	}
}

static void test_what_is_not_known_is_empty(void **state)
{
	struct event e = {.kind = EVENT_REJECTION};

	(void)state;
	assert_string_equal(format("%i|%BI|%CI|%r|%R|%m|%M|%h{A}|%c|%C|%n|%d|%U|%vctx_mess{a}", &e),
			    "|||||||||||||");
}

static void test_mistakes_are_told(void **state)
{
	static const char *const cases[][2] = {
		{"a %q b", "\"%q b\" is unknown"},
		{"%", "\"%\" is unknown"},
		{"%t{%Y", "has no closing brace"},
		{"%h{}", "expected 1 to 63 characters"},
		{"%h{a b}", "expected the name of a header field"},
		{"%h{a:}", "expected the name of a header field"},
		{"%us{12}", "expected a number of decimals from 0 to 9"},
		{"%T{x}", "expected a number of decimals from 0 to 9"},
		{"%vctx_mess{:dkim}", "expected a key without a colon"},
		{"%vctx_mess{subject:}", "expected a key without a colon"},
		{"a\nb", "has a control character"},
	};
	char why[EVENT_MACRO_WHY];

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_null(event_macro_compile(cases[i][0], why));
		if (strstr(why, cases[i][1]) == NULL) {
			fail_msg("%s: %s", cases[i][0], why);
		}
	}
}

static void test_headers_are_named_by_their_keys(void **state)
{
	char why[EVENT_MACRO_WHY];
	struct event_macro *m = event_macro_compile("%h{X-A} %r %vctx_mess{b} %h{Subject}", why);

	(void)state;
	assert_string_equal(event_macro_header(m, 0), "x-a:");
	assert_string_equal(event_macro_header(m, 1), "subject:");
	assert_null(event_macro_header(m, 2));
	event_macro_free(m);
}

static void test_sanitizers(void **state)
{
	struct event e = event_of();

	(void)state;
	e.text[EVENT_REPLY] = "a@b;c\nd\xff\xc3\xa4 \\";
	assert_null(event_sanitizer_add(&sanitizer, "special_characters"));
	/* What is not in a value is left alone. */
	assert_string_equal(format("@;%n", &e), "@;a\\@b\\;c\\nd\xff\xc3\xa4 \\\\");
	assert_null(event_sanitizer_add(&sanitizer, "tr/@;/_ /"));
	assert_string_equal(format("%n", &e), "a_b c\\nd\xff\xc3\xa4 \\\\");
	assert_null(event_sanitizer_add(&sanitizer, "non_printable"));
	assert_string_equal(format("%n", &e), "a_b c?d?\xc3\xa4 \\\\");
	assert_non_null(event_sanitizer_add(&sanitizer, "tr/ab/c/"));
	assert_non_null(event_sanitizer_add(&sanitizer, "tr/a/b"));
	assert_non_null(event_sanitizer_add(&sanitizer, "tr/a/\n/"));
	assert_non_null(event_sanitizer_add(&sanitizer, "tr//"));
	assert_non_null(event_sanitizer_add(&sanitizer, "everything"));
}

static void test_line_is_cut_at_its_room_between_characters(void **state)
{
	struct event e = event_of();
	char why[EVENT_MACRO_WHY];
	struct event_macro *m = event_macro_compile("%n%n", why);

	(void)state;
	e.text[EVENT_REPLY] = "\xc3\xa4\xc3\xa4\n";
	for (size_t room = 0; room < 14; room++) {
		char *line = malloc(room + 1);
		size_t len = event_macro_format(m, &sanitizer, &e, NULL, line, room);

		assert_true(len <= room);
		assert_memory_equal(line, "\xc3\xa4\xc3\xa4\\n\xc3\xa4\xc3\xa4\\n", len);
		assert_int_equal(len, room >= 12 ? 12 : room / 2 * 2);
		free(line);
	}
	event_macro_free(m);
}

/* What event_macro_room() says is enough for nothing to be cut. */
static void test_room_is_enough(void **state)
{
	struct event e = event_of();
	struct event back = {0};
	unsigned char record[EVENT_SIZE_MAX];
	char text[1001];
	char why[EVENT_MACRO_WHY];
	struct event_macro *m = event_macro_compile("%n %n %t %i %T %s", why);
	char *line = malloc(EVENT_MACRO_LINE_MAX);
	size_t room;

	(void)state;
	memset(text, '\x02', 1000);
	text[1000] = '\0';
	e.text[EVENT_REPLY] = text;
	event_encode(&e, record, sizeof(record));
	assert_true(event_decode(record, sizeof(record), &back) > 0);
	room = event_macro_room(m, &back);
	assert_int_equal(event_macro_format(m, &sanitizer, &back, NULL, line, room),
			 strlen(format("%n %n %t %i %T %s", &e)));
	event_macro_free(m);
	free(line);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_every_macro, set_up),
		cmocka_unit_test_setup(test_what_is_not_known_is_empty, set_up),
		cmocka_unit_test_setup(test_mistakes_are_told, set_up),
		cmocka_unit_test_setup(test_headers_are_named_by_their_keys, set_up),
		cmocka_unit_test_setup(test_sanitizers, set_up),
		cmocka_unit_test_setup(test_line_is_cut_at_its_room_between_characters, set_up),
		cmocka_unit_test_setup(test_room_is_enough, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
