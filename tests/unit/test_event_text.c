#include "core/log/event_text.h"

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

/* With an id, and numbers of a batch and a connection. */
static struct event event_of(enum event_kind kind)
{
	return (struct event){.kind = kind,
			      .time_ms = 1753000000999,
			      .id = id,
			      .batch = 0x2a,
			      .connection = 0xdeadbeef};
}

/* `expected` has %s where the id is, if it has one. */
static void assert_event(enum log_file log, const struct event *e, const char *expected)
{
	char line[EVENT_TEXT_LINE_MAX + 1];
	char text[MESSAGE_ID_TEXT];
	char whole[400];
	const char *place = strstr(expected, "%s");

	message_id_format(&id, text);
	snprintf(whole, sizeof(whole), "%.*s%s%s",
		 place != NULL ? (int)(place - expected) : (int)strlen(expected), expected,
		 place != NULL ? text : "", place != NULL ? place + 2 : "");
	line[event_text(line, log, e)] = '\0';
	assert_string_equal(line, whole);
}

static void test_reception_line(void **state)
{
	struct event e = event_of(EVENT_RECEPTION);

	(void)state;
	e.size = 1234;
	e.text[EVENT_RECIPIENT] = "to@b.example";
	e.text[EVENT_SENDER] = "from@a.example";
	e.text[EVENT_REMOTE_IP] = "192.0.2.1";
	e.text[EVENT_PROTOCOL] = "esmtp";
	e.text[EVENT_BINDING_GROUP] = "default";
	e.text[EVENT_BINDING] = "main";
	assert_event(LOG_MAIN, &e,
		     "1753000000@%s@2a@deadbeef@R@to@b.example@from@a.example@192.0.2.1@1234@esmtp@"
		     "default@main");
	e.text[EVENT_SENDER] = "";
	e.batch = 0;
	e.connection = 0x10;
	e.text[EVENT_BINDING] = NULL;
	assert_event(LOG_MAIN, &e,
		     "1753000000@%s@@10@R@to@b.example@@@192.0.2.1@1234@esmtp@default@");
}

static struct event attempt_of(enum event_kind kind)
{
	return (struct event){.kind = kind,
			      .time_ms = 99000,
			      .size = 18446744073709551615U,
			      .stage = SMTP_STAGE_CONFIRMATION,
			      .retries = 3,
			      .queued_ms = 60999,
			      .bounce_class = 22,
			      .text = {[EVENT_RECIPIENT] = "a@b",
				       [EVENT_SENDER] = "\"x@y\"@c",
				       [EVENT_DOMAIN] = "b.example",
				       [EVENT_BINDING_GROUP] = "g",
				       [EVENT_BINDING] = "b",
				       [EVENT_REMOTE_IP] = "2001:db8::1",
				       [EVENT_REPLY] = "451 4.2.0 try @ later"}};
}

static void test_delivery_lines(void **state)
{
	struct event e = attempt_of(EVENT_DELIVERY);

	(void)state;
	assert_event(LOG_MAIN, &e, "99@@@@D@b.example@18446744073709551615@g@b@3@60@2001:db8::1");
	e.text[EVENT_TLS_VERSION] = "TLSv1.3";
	e.text[EVENT_TLS_CIPHER] = "TLS_AES_128_GCM_SHA256";
	e.text[EVENT_TLS_VERIFICATION] = "dane";
	assert_event(LOG_MAIN, &e,
		     "99@@@@D@b.example@18446744073709551615@g@b@3@60@2001:db8::1@"
		     "TLSv1.3:TLS_AES_128_GCM_SHA256:dane");
}

static void test_failures_are_lines_of_two_logs(void **state)
{
	static const enum event_kind lost[] = {EVENT_BOUNCE, EVENT_EXPIRATION, EVENT_ADMIN_FAILURE};
	struct event e = attempt_of(EVENT_TRANSIENT);

	(void)state;
	assert_event(LOG_MAIN, &e,
		     "99@@@@T@b.example@18446744073709551615@g@b@9@3@60@2001:db8::1@"
		     "451 4.2.0 try \\@ later");
	assert_event(LOG_BOUNCE, &e,
		     "99@@@@T@a@b@\"x\\@y\"@c@g@b@9@22@18446744073709551615@2001:db8::1@"
		     "451 4.2.0 try \\@ later");
	for (unsigned i = 0; i < sizeof(lost) / sizeof(lost[0]); i++) {
		e = attempt_of(lost[i]);
		e.stage = SMTP_STAGE_NOT_CONNECTED;
		e.text[EVENT_REPLY] = NULL;
		assert_event(LOG_MAIN, &e,
			     "99@@@@P@b.example@18446744073709551615@g@b@0@3@60@2001:db8::1@");
		assert_event(LOG_BOUNCE, &e,
			     "99@@@@B@a@b@\"x\\@y\"@c@g@b@0@22@18446744073709551615@"
			     "2001:db8::1@");
	}
}

static void test_rejection_heartbeat_and_authentication_lines(void **state)
{
	struct event e = {.kind = EVENT_REJECTION,
			  .time_ms = 99000,
			  .connection = 7,
			  .stage = SMTP_STAGE_DURING_RCPT,
			  .code = 550,
			  .text = {[EVENT_REMOTE_IP] = "192.0.2.1",
				   [EVENT_SENDER] = "a@b",
				   [EVENT_RECIPIENT] = "\"x@y\"@c",
				   [EVENT_REPLY] = "5.7.1 Relaying denied"}};

	(void)state;
	assert_event(LOG_REJECT, &e,
		     "99@@@7@J@192.0.2.1@4@550@a@b@\"x\\@y\"@c@5.7.1 Relaying denied");
	e = (struct event){.kind = EVENT_HEARTBEAT, .time_ms = 1753000000000};
	assert_event(LOG_MAIN, &e, "1753000000@@@@M1");
	assert_event(LOG_BOUNCE, &e, "1753000000@@@@M1");
	e = (struct event){.kind = EVENT_AUTHENTICATION,
			   .time_ms = 1750000000000,
			   .granted = true,
			   .text = {[EVENT_REMOTE_IP] = "192.0.2.1", [EVENT_USER] = "bob"}};
	assert_event(LOG_ACCT, &e, "1750000000@N@esmtp@192.0.2.1@bob@1");
	e.granted = false;
	e.text[EVENT_USER] = "bob@example.com\n1@N@";
	assert_event(LOG_ACCT, &e, "1750000000@N@esmtp@192.0.2.1@bob\\@example.com\\n1\\@N\\@@0");
}

static void test_out_of_band_and_feedback_lines(void **state)
{
	struct event e = event_of(EVENT_OUT_OF_BAND);

	(void)state;
	e.time_ms = 99000;
	e.permanent = true;
	e.text[EVENT_RECIPIENT] = "a@b";
	e.text[EVENT_SENDER] = "\"x@y\"@c";
	e.text[EVENT_BINDING_GROUP] = "g";
	e.text[EVENT_BINDING] = "v";
	e.stage = SMTP_STAGE_OUT_OF_BAND;
	e.bounce_class = 22;
	e.size = 4711;
	e.text[EVENT_REMOTE_IP] = "192.0.2.1";
	e.text[EVENT_REPLY] = "5.2.2 full@last";
	assert_event(LOG_BOUNCE, &e,
		     "99@%s@2a@deadbeef@B@a@b@\"x\\@y\"@c@g@v@21@22@4711@192.0.2.1@5.2.2 "
		     "full\\@last");
	e.permanent = false;
	e.id = (struct message_id){0};
	assert_event(LOG_BOUNCE, &e,
		     "99@@2a@deadbeef@T@a@b@\"x\\@y\"@c@g@v@21@22@4711@192.0.2.1@5.2.2 "
		     "full\\@last");
	e = event_of(EVENT_FEEDBACK);
	e.time_ms = 99000;
	e.text[EVENT_RECIPIENT] = "a@b";
	e.text[EVENT_BINDING_GROUP] = "g";
	e.text[EVENT_BINDING] = "v";
	e.text[EVENT_FEEDBACK_TYPE] = "abuse";
	e.text[EVENT_REPORTER] = "example.com";
	e.text[EVENT_USER_STRING] = "Some/1.0";
	assert_event(LOG_FEEDBACK, &e, "99@%s@F@a@b@v@g@abuse@example.com@Some/1.0");
}

static void test_events_are_in_their_logs_only(void **state)
{
	char line[EVENT_TEXT_LINE_MAX];

	(void)state;
	for (unsigned kind = 0; kind < EVENT_KINDS; kind++) {
		struct event e = {.kind = (enum event_kind)kind};

		for (unsigned log = 0; log < LOG_FILES; log++) {
			bool there = (event_logs(e.kind) >> log & 1) != 0;

			assert_int_equal(event_text(line, (enum log_file)log, &e) > 0, there);
		}
		assert_true((event_logs(e.kind) >> event_log(e.kind) & 1) != 0);
	}
}

static void test_fields_escape_what_would_tear_them(void **state)
{
	struct event e = {.kind = EVENT_TRANSIENT,
			  .text = {[EVENT_REPLY] = "a@b\\c\nd\re\tf\x01\x1f\x7f\xc3\xa4\xff end"}};

	(void)state;
	assert_event(LOG_MAIN, &e,
		     "0@@@@T@@0@@@0@0@0@@a\\@b\\\\c\\nd\\re\\tf\\x01\\x1f\\x7f\xc3\xa4\xff end");
}

static void test_text_is_cut_at_its_limit_between_characters(void **state)
{
	char line[EVENT_TEXT_LINE_MAX];
	char text[3000];
	static const char *const last[] = {"a", "@", "\n", "\x01", "\xc3\xa4", "\xf0\x9f\x98\x80"};
	static const size_t written[] = {1, 2, 2, 4, 2, 4};

	(void)state;
	for (unsigned c = 0; c < 6; c++) {
		for (size_t pad = 1015; pad < 1030; pad++) {
			struct event e = {.kind = EVENT_BOUNCE, .text = {[EVENT_REPLY] = text}};
			size_t expected = pad < 1024 ? pad : 1024;
			size_t field_len;
			size_t len;

			memset(text, 'x', pad);
			strcpy(text + pad, last[c]);
			if (pad + written[c] <= 1024) {
				expected = pad + written[c];
			}
			len = event_text(line, LOG_MAIN, &e);
			assert_non_null(event_text_field(line, len, 13, &field_len));
			assert_int_equal(field_len, expected);
		}
	}
}

static void test_longest_lines_fit(void **state)
{
	char *line = malloc(EVENT_TEXT_LINE_MAX);
	char *bad = malloc(20001);
	static const char fills[] = {'\x01', '@', 'x', '\xc3'};

	(void)state;
	assert_non_null(line);
	assert_non_null(bad);
	for (unsigned f = 0; f < sizeof(fills); f++) {
		memset(bad, fills[f], 20000);
		bad[10000] = '@';
		bad[20000] = '\0';
		for (unsigned kind = 0; kind < EVENT_KINDS * LOG_FILES; kind++) {
			struct event e = {.kind = (enum event_kind)(kind % EVENT_KINDS),
					  .stage = SMTP_STAGE_UNKNOWN,
					  .code = UINT16_MAX,
					  .bounce_class = UINT16_MAX,
					  .retries = UINT32_MAX,
					  .time_ms = UINT64_MAX,
					  .id = id,
					  .batch = UINT64_MAX,
					  .connection = UINT64_MAX,
					  .size = UINT64_MAX,
					  .queued_ms = UINT64_MAX};

			for (unsigned i = 0; i < EVENT_FIELDS; i++) {
				e.text[i] = bad;
			}
			assert_true(event_text(line, (enum log_file)(kind / EVENT_KINDS), &e) <=
				    EVENT_TEXT_LINE_MAX);
		}
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
		const char *field = event_text_field(line, sizeof(line) - 1, i, &len);

		assert_non_null(field);
		assert_int_equal(len, strlen(fields[i]));
		assert_memory_equal(field, fields[i], len);
	}
	assert_null(event_text_field(line, sizeof(line) - 1, 5, &len));
	assert_non_null(event_text_field("", 0, 0, &len));
	assert_int_equal(len, 0);
	assert_non_null(event_text_field("\\", 1, 0, &len));
	assert_int_equal(len, 1);
}

static void test_unescape_when_malformed_refuses(void **state)
{
	static const char *const bad[] = {"\\",   "a\\",   "\\q",   "\\x",
					  "\\x1", "\\xg0", "\\xFF", "\\x1@"};
	char to[16];

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(event_text_unescape(bad[i], strlen(bad[i]), to), -EINVAL);
	}
	assert_int_equal(event_text_unescape("", 0, to), 0);
}

static void test_random_texts_come_back(void **state)
{
	char line[EVENT_TEXT_LINE_MAX];
	unsigned seed = 17;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		char text[120];
		char back[EVENT_TEXT_LINE_MAX];
		struct event e = {.kind = EVENT_TRANSIENT,
				  .text = {[EVENT_DOMAIN] = text, [EVENT_REPLY] = text}};
		const char *field;
		size_t len = i % sizeof(text);
		size_t field_len;

		for (size_t k = 0; k < len; k++) {
			seed = seed * 1103515245U + 12345U;
			text[k] = (char)(seed >> 16 & (i % 2 != 0 ? 0x7f : 0xff));
			text[k] = text[k] == 0 ? '@' : text[k];
		}
		text[len] = '\0';
		len = event_text(line, LOG_MAIN, &e);
		assert_null(memchr(line, '\n', len));
		for (unsigned f = 5; f <= 13; f += 8) {
			field = event_text_field(line, len, f, &field_len);
			assert_non_null(field);
			assert_int_equal(event_text_unescape(field, field_len, back), strlen(text));
			assert_memory_equal(back, text, strlen(text));
		}
		assert_null(event_text_field(line, len, 14, &field_len));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reception_line),
		cmocka_unit_test(test_delivery_lines),
		cmocka_unit_test(test_failures_are_lines_of_two_logs),
		cmocka_unit_test(test_rejection_heartbeat_and_authentication_lines),
		cmocka_unit_test(test_out_of_band_and_feedback_lines),
		cmocka_unit_test(test_events_are_in_their_logs_only),
		cmocka_unit_test(test_fields_escape_what_would_tear_them),
		cmocka_unit_test(test_text_is_cut_at_its_limit_between_characters),
		cmocka_unit_test(test_longest_lines_fit),
		cmocka_unit_test(test_field_finds_fields_behind_escapes),
		cmocka_unit_test(test_unescape_when_malformed_refuses),
		cmocka_unit_test(test_random_texts_come_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
