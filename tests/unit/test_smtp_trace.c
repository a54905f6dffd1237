#include "core/mail/smtp_trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct smtp_trace trace;
static char lines[65536];
static size_t lines_len;
static char domains[1024];

static void on_line(void *context, enum smtp_trace_kind kind, const char *text, size_t len)
{
	assert_ptr_equal(context, &trace);
	assert_int_equal(strlen(text), len);
	assert_true(len < SMTP_TRACE_TEXT);
	assert_int_equal(kind == SMTP_TRACE_CONTENT, strncmp(text, "C>", 2) == 0);
	assert_true(lines_len + len + 2 < sizeof(lines));
	lines_len += (size_t)snprintf(lines + lines_len, sizeof(lines) - lines_len, "%s\n", text);
}

static void on_recipient(void *context, const char *domain)
{
	assert_ptr_equal(context, &trace);
	strcat(domains, domain);
	strcat(domains, " ");
}

static void begin(bool blind)
{
	smtp_trace_init(&trace, on_line, on_recipient, &trace, blind);
	lines_len = 0;
	lines[0] = '\0';
	domains[0] = '\0';
}

/* In pieces of `piece` octets. */
static void feed(bool client, const char *text, size_t piece)
{
	size_t len = strlen(text);

	for (size_t at = 0; at < len; at += piece) {
		size_t n = len - at < piece ? len - at : piece;

		if (client) {
			smtp_trace_client(&trace, text + at, n);
		} else {
			smtp_trace_server(&trace, text + at, n);
		}
	}
}

static void client_says(const char *text)
{
	feed(true, text, SIZE_MAX / 2);
}

static void server_says(const char *text)
{
	feed(false, text, SIZE_MAX / 2);
}

static void assert_lines(const char *expected)
{
	assert_string_equal(lines, expected);
}

static void test_a_dialogue_is_the_same_however_it_is_cut(void **state)
{
	(void)state;
	for (size_t piece = 1; piece < 40; piece++) {
		begin(false);
		feed(false, "220 mx.test ESMTP\r\n", piece);
		feed(true, "EHLO a.test\r\n", piece);
		feed(false, "250-mx.test\r\n250 PIPELINING\r\n", piece);
		feed(true, "MAIL FROM:<a@a.test>\r\nRCPT TO:<b@B.Test>\r\nDATA\r\n", piece);
		feed(false, "250 ok\r\n250 ok\r\n354 go\r\n", piece);
		feed(true, "Subject: x\r\n\r\n.\n..\r\n\r.\r\n.\r\nQUIT\r\n", piece);
		feed(false, "250 taken\r\n221 bye\r\n", piece);
		assert_lines(
			"S: 220 mx.test ESMTP\nC: EHLO a.test\nS: 250-mx.test\n"
			"S: 250 PIPELINING\nC: MAIL FROM:<a@a.test>\nC: RCPT TO:<b@B.Test>\n"
			"C: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\n"
			"C: (24 octets of content)\nC: .\nC: QUIT\nS: 250 taken\nS: 221 bye\n");
		assert_string_equal(domains, "b.test ");
	}
}

static void test_chunks_are_counted_and_not_taken_for_commands(void **state)
{
	(void)state;
	begin(false);
	trace.wants_content = true;
	server_says("220 x\r\n");
	client_says(
		"BDAT 20\r\nX-Session: sec\r\nQUITBDAT 11 LAST\r\n\r\nRSET\r\nNO!NOOP\r\nBDAT 0 "
		"LAST\r\nbdat 3 last\r\na:bNOOP\r\n");
	assert_lines("S: 220 x\nC: BDAT 20\nC> X-Session: (4 octets hidden)\n"
		     "C: (20 octets of content)\nC: BDAT 11 LAST\nC> QUIT\nC> RSET\nC> NO!\n"
		     "C: (11 octets of content)\nC: NOOP\nC: BDAT 0 LAST\nC: bdat 3 last\nC> a:b\n"
		     "C: (3 octets of content)\nC: NOOP\n");
}

static void test_only_crlf_dot_crlf_ends_content(void **state)
{
	static const char *const bodies[] = {"a\n.\r\nb", "a\r\n.\nb",    "a\r.\r\nb",
					     "a\n.\nb",   "a\r\n..\r\nb", "a\r\n. \r\nb"};

	(void)state;
	for (unsigned i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		begin(false);
		server_says("220 x\r\n354 go\r\n");
		client_says(bodies[i]);
		client_says("\r\nAUTH PLAIN is content\r\n.\r\n");
		assert_non_null(strstr(lines, " octets of content)\nC: .\n"));
		assert_null(strstr(lines, "AUTH"));
	}
	begin(false);
	server_says("354 go\r\n");
	client_says(".\r\nNOOP\r\n");
	assert_lines("S: 354 go\nC: (0 octets of content)\nC: .\nC: NOOP\n");
}

static void test_nothing_of_auth_is_shown(void **state)
{
	static const char *const pieces[] = {
		"AUTH PLAIN c2VjcmV0\r\n", "auth\tplain c2VjcmV0\r\n",
		"AUTH c2VjcmV0\r\n",       " AUTH LOGIN c2VjcmV0\r\n",
		"AUTH=PLAIN c2VjcmV0\r\n", "AUTH PLAINc2VjcmV0\r\n",
		"AUTH XYZ c2VjcmV0\r\n",   "AUTH CRAM-MD5\r\nc2VjcmV0\r\nc2VjcmV0\r\n",
		"AUTH PLAIN\rc2VjcmV0\n",  "AUTHc2VjcmV0\r\n"};

	(void)state;
	for (unsigned i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		begin(false);
		server_says("220 x\r\n");
		client_says("EHLO x\r\n");
		/* The reply to EHLO comes when AUTH was said already. */
		client_says(pieces[i]);
		server_says("250 x\r\n");
		client_says("c2VjcmV0\r\n");
		server_says("334 \r\n");
		client_says("c2VjcmV0\r\n");
		server_says("535 no\r\n");
		/* Goes on although it was refused. */
		client_says("c2VjcmV0\r\nMAIL FROM:<a@b>\r\n");
		assert_null(strstr(lines, "c2Vj"));
		assert_non_null(strstr(lines, "octets hidden)"));
		assert_non_null(strstr(lines, "MAIL FROM:<a@b>"));
	}
}

static void test_all_is_shown_again_after_auth(void **state)
{
	(void)state;
	begin(false);
	server_says("220 x\r\n");
	client_says("AUTH LOGIN\r\n");
	server_says("334 VXNlcm5hbWU6\r\n");
	client_says("*\r\n");
	server_says("501 cancelled\r\n");
	client_says("AUTH PLAIN\r\n");
	server_says("334 \r\n");
	client_says("c2VjcmV0\r\n");
	server_says("235 welcome\r\n");
	client_says("XWHAT is this\r\n");
	assert_lines("S: 220 x\nC: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: *\nS: 501 cancelled\n"
		     "C: AUTH PLAIN\nS: 334 \nC: (8 octets hidden)\nS: 235 welcome\n"
		     "C: XWHAT is this\n");
}

static void test_secrets_of_header_fields_are_hidden(void **state)
{
	(void)state;
	begin(false);
	trace.wants_content = true;
	server_says("354 go\r\n");
	client_says("X-My-TOKEN: a\r\n\tb\r\nX-Mailer: c\r\nCookie:d\r\nTo: e\r\n f\r\n\r\n"
		    "X-My-Token: g\r\n.\r\n");
	assert_lines("S: 354 go\nC> X-My-TOKEN: (2 octets hidden)\nC> (2 octets hidden)\n"
		     "C> X-Mailer: c\nC> Cookie: (1 octets hidden)\nC> To: e\nC>  f\nC> \n"
		     "C> X-My-Token: g\nC: (70 octets of content)\nC: .\n");
}

static void test_controls_are_escaped_and_long_lines_cut(void **state)
{
	char *text = malloc(100000);

	(void)state;
	assert_non_null(text);
	begin(false);
	client_says("NOOP \x1b[2J\\\t\x7f\r\r\n");
	assert_lines("C: NOOP \\x1b[2J\\\\\\t\\x7f\\r\n");
	memset(text, 1, 99999);
	text[99999] = '\0';
	begin(false);
	client_says(text);
	client_says("\r\n");
	assert_non_null(strstr(lines, "(98975 octets more)\n"));
	assert_int_equal(lines_len, 3 + 4 * SMTP_TRACE_KEPT + strlen(" (98975 octets more)\n"));
	free(text);
}

static void test_a_blind_trace_shows_only_replies_until_it_sees(void **state)
{
	(void)state;
	begin(true);
	client_says("private\r\n.\r\n");
	server_says("250 taken\r\n");
	smtp_trace_see(&trace);
	client_says("NOOP\r\n");
	smtp_trace_see(&trace);
	assert_lines("S: 250 taken\nC: NOOP\n");
}

static void test_the_end_shows_what_had_begun(void **state)
{
	(void)state;
	begin(false);
	server_says("220 x\r\n25");
	client_says("MAIL FR");
	smtp_trace_end(&trace);
	assert_lines("S: 220 x\nS: 25\nC: MAIL FR\n");
	begin(false);
	server_says("354 go\r\n");
	client_says("Subject: x\r\nhalf");
	smtp_trace_end(&trace);
	assert_lines("S: 354 go\nC: (16 octets of content)\n");
	begin(false);
	server_says("220 x\r\n");
	client_says("AUTH PLAIN c2Vj");
	smtp_trace_end(&trace);
	assert_lines("S: 220 x\nC: AUTH PLAIN (5 octets hidden)\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_dialogue_is_the_same_however_it_is_cut),
		cmocka_unit_test(test_chunks_are_counted_and_not_taken_for_commands),
		cmocka_unit_test(test_only_crlf_dot_crlf_ends_content),
		cmocka_unit_test(test_nothing_of_auth_is_shown),
		cmocka_unit_test(test_all_is_shown_again_after_auth),
		cmocka_unit_test(test_secrets_of_header_fields_are_hidden),
		cmocka_unit_test(test_controls_are_escaped_and_long_lines_cut),
		cmocka_unit_test(test_a_blind_trace_shows_only_replies_until_it_sees),
		cmocka_unit_test(test_the_end_shows_what_had_begun),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
