#include "core/mail/smtp_reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mail/utf8.h"

/* Feeds in pieces of `piece` bytes after a first one of `first`, from memory of just their size.
 * Returns what the last feeding did; `*used` is of all. */
static int feed(struct smtp_reply *r, const char *data, size_t len, size_t first, size_t piece,
		size_t *used)
{
	int result = 0;

	smtp_reply_reset(r);
	*used = 0;
	for (size_t n = first; *used < len && result == 0; n = piece) {
		char *copy;
		size_t taken;

		n = n < len - *used ? n : len - *used;
		copy = malloc(n > 0 ? n : 1);
		assert_non_null(copy);
		memcpy(copy, data + *used, n);
		result = smtp_reply_feed(r, copy, n, &taken);
		free(copy);
		assert_true(taken <= n && (result != 0 || taken == n));
		*used += taken;
	}
	return result;
}

static void assert_same(const struct smtp_reply *a, const struct smtp_reply *b)
{
	assert_int_equal(a->code, b->code);
	assert_int_equal(a->lines, b->lines);
	assert_string_equal(a->status, b->status);
	assert_int_equal(a->extensions, b->extensions);
	assert_true(a->size_max == b->size_max);
	assert_int_equal(a->text_len, b->text_len);
	assert_string_equal(a->text, b->text);
}

/* In one piece, in any two, byte by byte: one outcome. */
static int feed_all_ways(struct smtp_reply *r, const char *data, size_t len, size_t *used)
{
	static struct smtp_reply other;
	int result = feed(r, data, len, len, len, used);
	size_t other_used;

	for (size_t first = 0; first <= len; first++) {
		assert_int_equal(feed(&other, data, len, first, len, &other_used), result);
		if (result > 0) {
			assert_same(&other, r);
			assert_int_equal(other_used, *used);
		}
	}
	assert_int_equal(feed(&other, data, len, 1, 1, &other_used), result);
	if (result > 0) {
		assert_same(&other, r);
		assert_int_equal(other_used, *used);
	}
	return result;
}

static struct smtp_reply reply;

/* A whole reply, and nothing behind it is touched. */
static void read_reply(const char *data)
{
	char text[4096];
	size_t used;
	int len = snprintf(text, sizeof(text), "%s220 next\r\n", data);

	assert_int_equal(feed_all_ways(&reply, text, (size_t)len, &used), 1);
	assert_int_equal(used, strlen(data));
}

static void assert_error(const char *data, int error)
{
	size_t used;

	assert_int_equal(feed_all_ways(&reply, data, strlen(data), &used), error);
}

static void test_feed_single_line(void **state)
{
	(void)state;
	read_reply("250 2.1.0 Sender <a@b> ok\r\n");
	assert_int_equal(reply.code, 250);
	assert_int_equal(smtp_reply_class(&reply), 2);
	assert_string_equal(reply.status, "2.1.0");
	assert_string_equal(reply.text, "250 2.1.0 Sender <a@b> ok");
	assert_int_equal(reply.text_len, strlen(reply.text));
	assert_int_equal(reply.lines, 1);
}

static void test_feed_short_lines(void **state)
{
	(void)state;
	read_reply("250\r\n");
	assert_int_equal(reply.code, 250);
	assert_string_equal(reply.text, "250");
	read_reply("354 \r\n");
	assert_string_equal(reply.text, "354");
	read_reply("220 x\n");
	assert_string_equal(reply.text, "220 x");
	read_reply("421-\r\n421\r\n");
	assert_string_equal(reply.text, "421");
	assert_int_equal(reply.lines, 2);
}

static void test_feed_joins_lines_and_drops_repeated_codes(void **state)
{
	(void)state;
	read_reply("550-5.7.1 You are\r\n550-5.7.1 not welcome.\r\n550 5.7.1 See https://x/y\r\n");
	assert_int_equal(reply.code, 550);
	assert_int_equal(reply.lines, 3);
	assert_string_equal(reply.status, "5.7.1");
	assert_string_equal(reply.text, "550 5.7.1 You are not welcome. See https://x/y");
	read_reply("550-5.7.1 One\r\n550 5.7.2 other\r\n");
	assert_string_equal(reply.text, "550 5.7.1 One 5.7.2 other");
	read_reply("550-\r\n550 late text\r\n");
	assert_string_equal(reply.text, "550 late text");
	read_reply("550-5.1.1\r\n550 5.1.1\r\n");
	assert_string_equal(reply.text, "550 5.1.1");
}

static void test_feed_takes_statuses_of_the_code_s_class_only(void **state)
{
	static const struct {
		const char *line;
		const char *status;
	} cases[] = {
		{"450 4.2.0 x\r\n", "4.2.0"},   {"550 5.123.456 x\r\n", "5.123.456"},
		{"550 4.2.0 x\r\n", ""},        {"550 5.1.1x\r\n", ""},
		{"550 5.1. x\r\n", ""},         {"550 5.1\r\n", ""},
		{"550 5..1 x\r\n", ""},         {"550 5.1234.1 x\r\n", ""},
		{"550 5.1.1234\r\n", ""},       {"550 5.1.1\r\n", "5.1.1"},
		{"550 Error: 5.1.1 x\r\n", ""}, {"354 3.0.0 go\r\n", "3.0.0"},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		read_reply(cases[i].line);
		assert_string_equal(reply.status, cases[i].status);
	}
}

static void test_feed_ehlo_keywords(void **state)
{
	(void)state;
	read_reply("250-mx.example DSN\r\n250-PIPELINING\r\n250-SIZE 35882577\r\n250-8bitmime\r\n"
		   "250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250-AUTH LOGIN\r\n250-StartTLS\r\n"
		   "250-CHUNKING\r\n250 HELP\r\n");
	assert_int_equal(reply.extensions, 255 & ~SMTP_EXTENSION_DSN);
	assert_int_equal(reply.size_max, 35882577);
	read_reply("250-x\r\n250 DSN\r\n");
	assert_int_equal(reply.extensions, SMTP_EXTENSION_DSN);
	read_reply("250-x\r\n250 SIZE\r\n");
	assert_int_equal(reply.extensions, SMTP_EXTENSION_SIZE);
	assert_int_equal(reply.size_max, 0);
	read_reply("250-x\r\n250 SIZE 99999999999999999999999\r\n");
	assert_true(reply.size_max == UINT64_MAX);
	read_reply("250-x\r\n250 PIPELININGS\r\n");
	assert_int_equal(reply.extensions, 0);
	read_reply("550-x\r\n550 PIPELINING\r\n");
	assert_int_equal(reply.extensions, 0);
	read_reply("250 PIPELINING\r\n");
	assert_int_equal(reply.extensions, 0);
}

static void test_feed_replaces_what_no_log_should_show(void **state)
{
	size_t used;

	(void)state;
	read_reply("550 a\tb\x1b[31m\x7f\x01\r\n");
	assert_string_equal(reply.text, "550 a b?[31m??");
	read_reply("550 J\xc3\xb6rg \xc3( \xff\r\n");
	assert_string_equal(reply.text, "550 J\xc3\xb6rg ?( ?");
	read_reply("550 \xc2\x85\r\n");
	assert_string_equal(reply.text, "550 ??");
	read_reply("550 a\rb\r\n");
	assert_string_equal(reply.text, "550 a?b");
	assert_int_equal(feed_all_ways(&reply, "550 a\0b\r\n", 9, &used), 1);
	assert_string_equal(reply.text, "550 a?b");
}

static void test_feed_when_garbage_is_an_error(void **state)
{
	(void)state;
	assert_error("hello\r\n", -EPROTO);
	assert_error("\r\n", -EPROTO);
	assert_error("\n", -EPROTO);
	assert_error("25\r\n", -EPROTO);
	assert_error("25x ok\r\n", -EPROTO);
	assert_error("250x ok\r\n", -EPROTO);
	assert_error("2500 ok\r\n", -EPROTO);
	assert_error("150 ok\r\n", -EPROTO);
	assert_error("650 ok\r\n", -EPROTO);
	assert_error("250\rok\r\n", -EPROTO);
	assert_error(" 250 ok\r\n", -EPROTO);
	assert_error("\x16\x03\x01", -EPROTO);
	assert_error("HTTP/1.1 400", -EPROTO);
	assert_error("250-ok\r\n\r\n", -EPROTO);
	assert_string_equal(reply.text, "250 ok");
}

static void test_feed_when_code_changes_is_an_error(void **state)
{
	(void)state;
	assert_error("250-one\r\n251 two\r\n", -EPROTO);
	assert_error("250-one\r\n550 two\r\n", -EPROTO);
	assert_string_equal(reply.text, "250 one 550 two");
	assert_error("250-one\r\n250-two\r\n221 three\r\n", -EPROTO);
}

static void test_feed_when_incomplete_wants_more(void **state)
{
	(void)state;
	assert_error("", 0);
	assert_error("2", 0);
	assert_error("250", 0);
	assert_error("250 ok\r", 0);
	assert_error("250-ok\r\n", 0);
	assert_error("250-ok\r\n250", 0);
}

static void test_feed_long_line_is_cut_then_an_error(void **state)
{
	static char data[SMTP_REPLY_LINE_LIMIT + 100];
	static const size_t pieces[] = {1, 1000, sizeof(data)};
	size_t used;

	(void)state;
	for (unsigned p = 0; p < 3; p++) {
		memset(data, 'x', sizeof(data));
		memcpy(data, "550 5.1.1 ", 10);
		memcpy(data + SMTP_REPLY_LINE_LIMIT - 1, "\r\n", 2);
		assert_int_equal(feed(&reply, data, sizeof(data), pieces[p], pieces[p], &used), 1);
		assert_int_equal(used, SMTP_REPLY_LINE_LIMIT + 1);
		assert_int_equal(reply.text_len, SMTP_REPLY_TEXT_MAX);
		assert_int_equal(strlen(reply.text), SMTP_REPLY_TEXT_MAX);
		assert_string_equal(reply.status, "5.1.1");
		memset(data + SMTP_REPLY_LINE_LIMIT - 1, 'x', 2);
		assert_int_equal(feed(&reply, data, sizeof(data), pieces[p], pieces[p], &used),
				 -EMSGSIZE);
		assert_int_equal(reply.text_len, SMTP_REPLY_TEXT_MAX);
	}
}

static void test_feed_keeps_4096_bytes_and_whole_characters(void **state)
{
	static char data[8000];
	size_t used;

	(void)state;
	for (size_t pad = 4080; pad < 4100; pad++) {
		memset(data, 'x', pad);
		memcpy(data, "550 ", 4);
		memcpy(data + pad, "\xe2\x82\xac\r\n", 6);
		assert_int_equal(feed(&reply, data, pad + 5, pad, 1, &used), 1);
		if (pad + 3 <= SMTP_REPLY_TEXT_MAX) {
			assert_int_equal(reply.text_len, pad + 3);
		} else {
			assert_int_equal(reply.text_len,
					 pad < SMTP_REPLY_TEXT_MAX ? pad : SMTP_REPLY_TEXT_MAX);
		}
	}
}

static void test_feed_many_lines(void **state)
{
	static char data[300 * 30];
	size_t used;

	(void)state;
	for (unsigned lines = 250; lines < 260; lines++) {
		size_t len = 0;

		for (unsigned i = 1; i < lines; i++) {
			len += (size_t)sprintf(data + len, "250-some text %u xxxxxxxx\r\n", i);
		}
		len += (size_t)sprintf(data + len, "250 SIZE 7\r\n");
		assert_int_equal(feed(&reply, data, len, 77, 77, &used),
				 lines <= SMTP_REPLY_LINES_MAX ? 1 : -EMSGSIZE);
		if (lines <= SMTP_REPLY_LINES_MAX) {
			/* Far behind the text that is kept. */
			assert_int_equal(reply.size_max, 7);
			assert_int_equal(reply.text_len, SMTP_REPLY_TEXT_MAX);
		}
	}
}

static void test_feed_pipelined_replies_one_by_one(void **state)
{
	static const char data[] = "250 one\r\n250-two\r\n250 more\r\n354 three\r\n";
	static const char *const texts[] = {"250 one", "250 two more", "354 three"};
	size_t at = 0;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		size_t used;

		smtp_reply_reset(&reply);
		assert_int_equal(smtp_reply_feed(&reply, data + at, sizeof(data) - 1 - at, &used),
				 1);
		assert_string_equal(reply.text, texts[i]);
		at += used;
	}
	assert_int_equal(at, sizeof(data) - 1);
}

static void test_feed_of_mutations_gives_clean_text(void **state)
{
	static const char letters[] = "250-- \r\n\n5.1x\0\x80\xc3\xa4\xe2\t";
	unsigned seed = 3;
	unsigned complete = 0;

	(void)state;
	for (unsigned i = 0; i < 10000; i++) {
		char data[] = "250-5.1.1 hello\r\n250-SIZE 100\r\n250 5.1.1 end\r\n";
		size_t used;

		for (unsigned n = 0; n < 1 + i % 4; n++) {
			seed = seed * 1103515245U + 12345U;
			data[(seed >> 8) % (sizeof(data) - 1)] =
				letters[(seed >> 20) % (sizeof(letters) - 1)];
		}
		if (feed_all_ways(&reply, data, sizeof(data) - 1, &used) == 0) {
			continue;
		}
		complete += reply.lines > 1 ? 1 : 0;
		assert_int_equal(strlen(reply.text), reply.text_len);
		for (size_t at = 0; at < reply.text_len;) {
			size_t n = utf8_sequence(reply.text + at, reply.text_len - at);

			assert_true(n > 0 && (unsigned char)reply.text[at] >= ' ');
			at += n;
		}
	}
	assert_true(complete > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_feed_single_line),
		cmocka_unit_test(test_feed_short_lines),
		cmocka_unit_test(test_feed_joins_lines_and_drops_repeated_codes),
		cmocka_unit_test(test_feed_takes_statuses_of_the_code_s_class_only),
		cmocka_unit_test(test_feed_ehlo_keywords),
		cmocka_unit_test(test_feed_replaces_what_no_log_should_show),
		cmocka_unit_test(test_feed_when_garbage_is_an_error),
		cmocka_unit_test(test_feed_when_code_changes_is_an_error),
		cmocka_unit_test(test_feed_when_incomplete_wants_more),
		cmocka_unit_test(test_feed_long_line_is_cut_then_an_error),
		cmocka_unit_test(test_feed_keeps_4096_bytes_and_whole_characters),
		cmocka_unit_test(test_feed_many_lines),
		cmocka_unit_test(test_feed_pipelined_replies_one_by_one),
		cmocka_unit_test(test_feed_of_mutations_gives_clean_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
