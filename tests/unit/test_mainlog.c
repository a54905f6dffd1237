#include "core/mail/mainlog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct message_id id = {0x0198c0ffee000001, 0x0200000000000003};

static struct mainlog_prefix prefix(void)
{
	return (struct mainlog_prefix){
		.time_s = 1753000000, .id = &id, .batch = 0x2a, .connection = 0xdeadbeef};
}

static void assert_line(const char *line, size_t len, const char *expected)
{
	char text[MAINLOG_LINE_MAX + 1];

	memcpy(text, line, len);
	text[len] = '\0';
	assert_string_equal(text, expected);
}

static void test_reception_line(void **state)
{
	char line[MAINLOG_LINE_MAX];
	struct mainlog_reception r = {
		.prefix = prefix(),
		.recipient = "to@b.example",
		.sender = "from@a.example",
		.peer_ip = "192.0.2.1",
		.size = 1234,
		.protocol = "esmtp",
		.binding_group = "default",
		.binding = "main",
	};
	char text[MESSAGE_ID_TEXT];
	char expected[300];

	(void)state;
	message_id_format(&id, text);
	snprintf(
		expected, sizeof(expected),
		"1753000000@%s@2a@deadbeef@R@to@b.example@from@a.example@192.0.2.1@1234@esmtp@default@"
		"main\n",
		text);
	assert_line(line, mainlog_reception(line, &r), expected);
	r.sender = "";
	r.prefix.batch = 0;
	r.prefix.connection = 0x10;
	r.binding = NULL;
	snprintf(expected, sizeof(expected),
		 "1753000000@%s@@10@R@to@b.example@@@192.0.2.1@1234@esmtp@default@\n", text);
	assert_line(line, mainlog_reception(line, &r), expected);
}

static void test_attempt_lines(void **state)
{
	char line[MAINLOG_LINE_MAX];
	struct mainlog_attempt a = {
		.prefix = {.time_s = 99},
		.domain = "b.example",
		.size = 18446744073709551615U,
		.binding_group = "g",
		.binding = "b",
		.stage = SMTP_STAGE_CONFIRMATION,
		.retries = 3,
		.queued_s = 60,
		.remote_ip = "2001:db8::1",
		.text = "451 4.2.0 try @ later",
	};

	(void)state;
	assert_line(line, mainlog_delivery(line, &a),
		    "99@@@@D@b.example@18446744073709551615@g@b@3@60@2001:db8::1\n");
	a.tls[0] = "TLSv1.3";
	a.tls[1] = "TLS_AES_128_GCM_SHA256";
	a.tls[2] = "dane";
	assert_line(line, mainlog_delivery(line, &a),
		    "99@@@@D@b.example@18446744073709551615@g@b@3@60@2001:db8::1@"
		    "TLSv1.3:TLS_AES_128_GCM_SHA256:dane\n");
	assert_line(line, mainlog_transient(line, &a),
		    "99@@@@T@b.example@18446744073709551615@g@b@9@3@60@2001:db8::1@"
		    "451 4.2.0 try \\@ later\n");
	a.stage = SMTP_STAGE_NOT_CONNECTED;
	a.text = NULL;
	assert_line(line, mainlog_permanent(line, &a),
		    "99@@@@P@b.example@18446744073709551615@g@b@0@3@60@2001:db8::1@\n");
}

static void test_rejection_and_heartbeat_lines(void **state)
{
	char line[MAINLOG_LINE_MAX];
	struct mainlog_rejection r = {
		.prefix = {.time_s = 99, .connection = 7},
		.peer_ip = "192.0.2.1",
		.stage = SMTP_STAGE_DURING_RCPT,
		.code = 550,
		.sender = "a@b",
		.recipient = "\"x@y\"@c",
		.text = "5.7.1 Relaying denied",
	};

	(void)state;
	assert_line(line, mainlog_rejection(line, &r),
		    "99@@@7@J@192.0.2.1@4@550@a@b@\"x\\@y\"@c@5.7.1 Relaying denied\n");
	assert_line(line, mainlog_heartbeat(line, 1753000000), "1753000000@@@@M1\n");
}

static void test_bounce_and_feedback_lines(void **state)
{
	struct mainlog_bounce b = {
		.prefix = {.time_s = 99, .id = &id, .batch = 10, .connection = 7},
		.permanent = true,
		.recipient = "a@b",
		.sender = "\"x@y\"@c",
		.binding_group = "g",
		.binding = "v",
		.stage = SMTP_STAGE_OUT_OF_BAND,
		.bounce_class = 22,
		.size = 4711,
		.remote_ip = "192.0.2.1",
		.text = "5.2.2 full@last",
	};
	struct mainlog_feedback f = {
		.prefix = {.time_s = 99, .batch = 10},
		.recipient = "a@b",
		.binding_group = "g",
		.binding = "v",
		.feedback_type = "abuse",
		.domain = "example.com",
		.user_string = "Some/1.0",
	};
	char id_text[MESSAGE_ID_TEXT];
	char expected[256];
	char line[MAINLOG_LINE_MAX];

	(void)state;
	message_id_format(&id, id_text);
	snprintf(expected, sizeof(expected),
		 "99@%s@a@7@B@a@b@\"x\\@y\"@c@g@v@21@22@4711@192.0.2.1@5.2.2 full\\@last\n",
		 id_text);
	assert_line(line, mainlog_bounce(line, &b), expected);
	b.permanent = false;
	b.prefix.id = NULL;
	assert_line(line, mainlog_bounce(line, &b),
		    "99@@a@7@T@a@b@\"x\\@y\"@c@g@v@21@22@4711@192.0.2.1@5.2.2 full\\@last\n");
	assert_line(line, mainlog_feedback(line, &f), "99@@F@a@b@v@g@abuse@example.com@Some/1.0\n");
	f.prefix.id = &id;
	snprintf(expected, sizeof(expected), "99@%s@F@a@b@v@g@abuse@example.com@Some/1.0\n",
		 id_text);
	assert_line(line, mainlog_feedback(line, &f), expected);
}

static void test_fields_escape_what_would_tear_them(void **state)
{
	char line[MAINLOG_LINE_MAX];
	struct mainlog_attempt a = {.text = "a@b\\c\nd\re\tf\x01\x1f\x7f\xc3\xa4\xff end"};

	(void)state;
	assert_line(line, mainlog_transient(line, &a),
		    "0@@@@T@@0@@@0@0@0@@a\\@b\\\\c\\nd\\re\\tf\\x01\\x1f\\x7f\xc3\xa4\xff end\n");
}

static void test_text_is_cut_at_its_limit_between_characters(void **state)
{
	char line[MAINLOG_LINE_MAX];
	char text[3000];
	static const char *const last[] = {"a", "@", "\n", "\x01", "\xc3\xa4", "\xf0\x9f\x98\x80"};
	static const size_t written[] = {1, 2, 2, 4, 2, 4};

	(void)state;
	for (unsigned c = 0; c < 6; c++) {
		for (size_t pad = 1015; pad < 1030; pad++) {
			struct mainlog_attempt a = {.text = text};
			size_t expected = pad < 1024 ? pad : 1024;
			size_t field_len;
			size_t len;

			memset(text, 'x', pad);
			strcpy(text + pad, last[c]);
			if (pad + written[c] <= 1024) {
				expected = pad + written[c];
			}
			len = mainlog_permanent(line, &a);
			assert_non_null(mainlog_field(line, len, 13, &field_len));
			assert_int_equal(field_len, expected);
			assert_int_equal(line[len - 1], '\n');
		}
	}
}

static void test_longest_lines_fit(void **state)
{
	char *line = malloc(MAINLOG_LINE_MAX);
	char *bad = malloc(20001);
	struct mainlog_prefix p = {UINT64_MAX, &id, UINT64_MAX, UINT64_MAX};
	static const char fills[] = {'\x01', '@', 'x', '\xc3'};

	(void)state;
	assert_non_null(line);
	assert_non_null(bad);
	for (unsigned f = 0; f < sizeof(fills); f++) {
		struct mainlog_reception r = {p, bad, bad, bad, UINT64_MAX, bad, bad, bad};
		struct mainlog_attempt a = {.prefix = p,
					    .domain = bad,
					    .size = UINT64_MAX,
					    .binding_group = bad,
					    .binding = bad,
					    .stage = SMTP_STAGE_UNKNOWN,
					    .retries = UINT32_MAX,
					    .queued_s = UINT64_MAX,
					    .remote_ip = bad,
					    .text = bad};
		struct mainlog_rejection j = {p,   bad, SMTP_STAGE_UNKNOWN, UINT32_MAX, bad,
					      bad, bad};
		struct mainlog_bounce b = {
			p,          true,       bad, bad, bad, bad, SMTP_STAGE_UNKNOWN,
			UINT32_MAX, UINT64_MAX, bad, bad};
		struct mainlog_feedback c = {p, bad, bad, bad, bad, bad, bad};

		memset(bad, fills[f], 20000);
		bad[10000] = '@';
		bad[20000] = '\0';
		assert_true(mainlog_reception(line, &r) <= MAINLOG_LINE_MAX);
		assert_true(mainlog_delivery(line, &a) <= MAINLOG_LINE_MAX);
		assert_true(mainlog_transient(line, &a) <= MAINLOG_LINE_MAX);
		assert_true(mainlog_permanent(line, &a) <= MAINLOG_LINE_MAX);
		assert_true(mainlog_rejection(line, &j) <= MAINLOG_LINE_MAX);
		assert_true(mainlog_bounce(line, &b) <= MAINLOG_LINE_MAX);
		assert_true(mainlog_feedback(line, &c) <= MAINLOG_LINE_MAX);
	}
	free(line);
	free(bad);
}

static void test_field_finds_fields_behind_escapes(void **state)
{
	static const char line[] = "a@\\@b@@c\\\\@d\n";
	static const char *const fields[] = {"a", "\\@b", "", "c\\\\", "d"};
	size_t len;

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		const char *field = mainlog_field(line, sizeof(line) - 1, i, &len);

		assert_non_null(field);
		assert_int_equal(len, strlen(fields[i]));
		assert_memory_equal(field, fields[i], len);
	}
	assert_null(mainlog_field(line, sizeof(line) - 1, 5, &len));
	assert_non_null(mainlog_field("", 0, 0, &len));
	assert_int_equal(len, 0);
	assert_non_null(mainlog_field("\\", 1, 0, &len));
	assert_int_equal(len, 1);
}

static void test_unescape_when_malformed_refuses(void **state)
{
	static const char *const bad[] = {"\\",   "a\\",   "\\q",   "\\x",
					  "\\x1", "\\xg0", "\\xFF", "\\x1@"};
	char to[16];

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(mainlog_unescape(bad[i], strlen(bad[i]), to), -EINVAL);
	}
	assert_int_equal(mainlog_unescape("", 0, to), 0);
}

static void test_random_texts_come_back(void **state)
{
	char line[MAINLOG_LINE_MAX];
	unsigned seed = 17;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		char text[120];
		char back[MAINLOG_LINE_MAX];
		struct mainlog_attempt a = {.domain = text, .text = text};
		const char *field;
		size_t len = i % sizeof(text);
		size_t field_len;

		for (size_t k = 0; k < len; k++) {
			seed = seed * 1103515245U + 12345U;
			text[k] = (char)(seed >> 16 & (i % 2 != 0 ? 0x7f : 0xff));
			text[k] = text[k] == 0 ? '@' : text[k];
		}
		text[len] = '\0';
		len = mainlog_transient(line, &a);
		assert_ptr_equal(memchr(line, '\n', len), line + len - 1);
		for (unsigned f = 5; f <= 13; f += 8) {
			field = mainlog_field(line, len, f, &field_len);
			assert_non_null(field);
			assert_int_equal(mainlog_unescape(field, field_len, back), strlen(text));
			assert_memory_equal(back, text, strlen(text));
		}
		assert_null(mainlog_field(line, len, 14, &field_len));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reception_line),
		cmocka_unit_test(test_attempt_lines),
		cmocka_unit_test(test_rejection_and_heartbeat_lines),
		cmocka_unit_test(test_bounce_and_feedback_lines),
		cmocka_unit_test(test_fields_escape_what_would_tear_them),
		cmocka_unit_test(test_text_is_cut_at_its_limit_between_characters),
		cmocka_unit_test(test_longest_lines_fit),
		cmocka_unit_test(test_field_finds_fields_behind_escapes),
		cmocka_unit_test(test_unescape_when_malformed_refuses),
		cmocka_unit_test(test_random_texts_come_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
