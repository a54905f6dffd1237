/* What a session answers: commands, addresses, relaying, sizes, octets that may not be. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "listeners/smtp/relay.h"
#include "tests/unit/smtp_world.h"

static void test_message_is_stored_and_answered(void **state)
{
	int fd = client_in_data();

	(void)state;
	rig.store_holds = true;
	say(fd, "Subject: x\r\n\r\n..hello\r\n.\r\n");
	expect_lines("", 0);
	assert_string_equal(rig.main_log, "");
	rig.store_holds = false;
	settle();
	client_read(fd);
	expect_lines("250 2.0.0 OK: queued as ", 1);
	assert_non_null(strstr(rig.bodies, "Received: from client.example ([192.0.2.1])"));
	assert_non_null(strstr(rig.bodies, "\r\nSubject: x\r\n\r\n..hello\r\n"));
	assert_int_equal(strncmp(strrchr(rig.got, ' ') + 1, strstr(rig.bodies, "\tid ") + 4, 26),
			 0);
	assert_int_equal(rig.bodies[rig.bodies_len - 3], 'o');
	assert_non_null(strstr(rig.main_log, "@R@b@example.net@a@example.com@192.0.2.1@"));
	assert_non_null(strstr(rig.main_log, "@esmtp@default@default\n"));
	assert_int_equal(rig.envelope_flags, 0);
	assert_int_equal(count_of(SMTP_COUNT_ACCEPTED), 1);
	quit(fd);
}

static void test_ehlo_lists_what_is_offered(void **state)
{
	int fd = client_greeted();

	(void)state;
	say(fd, "EHLO client.example\r\n");
	assert_string_equal(
		rig.got,
		"250-mx.example.com\r\n250-PIPELINING\r\n250-SIZE 20000\r\n"
		"250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-SMTPUTF8\r\n250-CHUNKING\r\n"
		"250-DSN\r\n250 HELP\r\n");
	expect(fd, "HELO client.example\r\n", "250 mx.example.com\r\n");
	quit(fd);
}

static void test_commands_when_out_of_order(void **state)
{
	int fd = client_greeted();

	(void)state;
	expect(fd, MAIL, "503 5.5.1");
	expect(fd, RCPT, "503 5.5.1");
	expect(fd, "DATA\r\n", "503 5.5.1");
	expect(fd, "HELO c\r\n", "250 ");
	expect(fd, RCPT, "503 5.5.1");
	expect(fd, "DATA\r\n", "503 5.5.1");
	expect(fd, MAIL, "250 2.1.0");
	expect(fd, MAIL, "503 5.5.1");
	expect(fd, "DATA\r\n", "503 5.5.1");
	expect(fd, "RCPT TO:<x@elsewhere.example>\r\n", "550 5.7.1");
	expect(fd, "DATA\r\n", "554 5.5.1");
	expect(fd, "RSET\r\n", "250 2.0.0");
	expect(fd, RCPT, "503 5.5.1");
	expect(fd, MAIL, "250 2.1.0");
	expect(fd, "HELO again\r\n", "250 ");
	expect(fd, RCPT, "503 5.5.1");
	assert_int_equal(count_of(SMTP_COUNT_REFUSED_ORDER), 10);
	quit(fd);
}

static void test_other_commands(void **state)
{
	int fd = client_greeted();

	(void)state;
	expect(fd, "NOOP\r\n", "250 2.0.0");
	expect(fd, "noop whatever\r\n", "250 2.0.0");
	expect(fd, "HELP\r\n", "214 2.0.0");
	expect(fd, "VRFY x\r\n", "252 2.0.0");
	expect(fd, "EXPN x\r\n", "502 5.5.1");
	expect(fd, "STARTTLS\r\n", "502 5.5.1");
	expect(fd, "BDAT 3 LAST\r\nabc", "503 5.5.1");
	expect(fd, "XYZZY\r\n", "500 5.5.2");
	expect(fd, "\r\n", "500 5.5.2");
	expect(fd, "EHLO\r\n", "501 5.5.4");
	expect(fd, "DATA now\r\n", "501 5.5.4");
	expect(fd, "MAIL TO:<a@example.com>\r\n", "501 5.5.2");
	quit(fd);
}

static void test_addresses_when_invalid(void **state)
{
	int fd = client_hello();

	(void)state;
	expect(fd, "MAIL FROM:<a@@example.com>\r\n", "5");
	expect(fd, "MAIL FROM:<\xc3\xa9@example.com>\r\n", "5");
	expect(fd, "MAIL FROM:<> COLOUR=RED\r\n", "555 5.5.4");
	expect(fd, "MAIL FROM:<> BODY=8BITMIME SMTPUTF8\r\n", "250 2.1.0");
	expect(fd, "RCPT TO:<>\r\n", "5");
	expect(fd, "RCPT TO:<nobody>\r\n", "5");
	expect(fd, "RCPT TO:<\xc3\xa9@example.net>\r\n", "250 2.1.5");
	expect(fd, "RCPT TO:<Postmaster>\r\n", "250 2.1.5");
	expect(fd, "DATA\r\n", "354 ");
	expect(fd, ".\r\n", "250 2.0.0");
	assert_int_equal(rig.envelope_flags,
			 ENVELOPE_UNSTUFFED | ENVELOPE_8BITMIME | ENVELOPE_SMTPUTF8);
	assert_non_null(strstr(rig.main_log, "@R@postmaster@mx.example.com@@@"));
	assert_non_null(strstr(rig.bodies, "with UTF8SMTP\r\n"));
	assert_non_null(strstr(rig.reject_log, "@J@192.0.2.1@4@"));
	quit(fd);
}

static void test_notification_parameters_are_kept(void **state)
{
	int fd = client_hello();

	(void)state;
	expect(fd, "MAIL FROM:<a@example.com> RET=HDRS ENVID=QQ+2B1\r\n", "250 2.1.0");
	expect(fd, "RCPT TO:<b@example.net> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;x+2By@z\r\n",
	       "250 2.1.5");
	expect(fd, "RCPT TO:<c@example.net>\r\n", "250 2.1.5");
	/* The same one again changes nothing. */
	expect(fd, "RCPT TO:<b@example.net> NOTIFY=NEVER\r\n", "250 2.1.5");
	expect(fd, "RCPT TO:<d@example.net> NOTIFY=NEVER,DELAY\r\n", "501 5.5.4");
	expect(fd, "RCPT TO:<d@example.net> ORCPT=rfc822;+0D+0AX:\r\n", "501 5.5.4");
	expect(fd, "RCPT TO:<d@example.net> NOTIFY=NEVER\r\n", "250 2.1.5");
	expect(fd, "BDAT 3 LAST\r\nx\r\n", "250 2.0.0");
	assert_int_equal(rig.envelope_flags,
			 ENVELOPE_UNSTUFFED | ENVELOPE_RET_HDRS | ENVELOPE_ENVID);
	assert_string_equal(rig.envid, "QQ+2B1");
	assert_string_equal(rig.notify, "6 b@example.net rfc822;x+2By@z\n"
					"0 c@example.net -\n1 d@example.net -\n");
	expect(fd, MAIL, "250 2.1.0");
	expect(fd, RCPT, "250 2.1.5");
	expect(fd, "BDAT 3 LAST\r\nx\r\n", "250 2.0.0");
	assert_int_equal(rig.envelope_flags, ENVELOPE_UNSTUFFED);
	assert_string_equal(rig.notify, "0 b@example.net -\n");
	quit(fd);
}

static void test_requiretls_needs_tls(void **state)
{
	int fd = client_hello();

	(void)state;
	expect(fd, "MAIL FROM:<a@example.com> REQUIRETLS\r\n", "530 5.7.0");
	smtp_session_of_all(listener()->sessions.next)->secure = true;
	expect(fd, "MAIL FROM:<a@example.com> REQUIRETLS\r\n", "250 2.1.0");
	expect(fd, RCPT, "250 2.1.5");
	expect(fd, "BDAT 3 LAST\r\nx\r\n", "250 2.0.0");
	assert_int_equal(rig.envelope_flags, ENVELOPE_UNSTUFFED | ENVELOPE_REQUIRETLS);
	quit(fd);
}

static void test_relaying_by_domain(void **state)
{
	int fd = client_hello();

	(void)state;
	expect(fd, MAIL, "250 ");
	expect(fd, "RCPT TO:<b@EXAMPLE.net>\r\n", "250 ");
	expect(fd, "RCPT TO:<b@a.example.net>\r\n", "550 5.7.1");
	expect(fd, "RCPT TO:<b@example.org>\r\n", "550 5.7.1");
	expect(fd, "RCPT TO:<b@notexample.org>\r\n", "550 5.7.1");
	expect(fd, "RCPT TO:<b@x.y.example.org>\r\n", "250 ");
	assert_int_equal(count_of(SMTP_COUNT_REFUSED_RELAY), 3);
	assert_int_equal(counter_get(rig.scheduler.rejected), 3);
	assert_non_null(strstr(rig.reject_log,
			       "@42@J@192.0.2.1@4@550@a@example.com@b@a.example.net@5.7.1 "));
	quit(fd);
}

/* Bounces are taken from anybody, but by themselves. */
static void test_bounce_domains(void **state)
{
	int fd = client_hello();

	(void)state;
	expect(fd, MAIL, "250 ");
	expect(fd, "RCPT TO:<x@b.example.com>\r\n", "250 ");
	expect(fd, "RCPT TO:<b@example.net>\r\n", "452 4.5.3");
	expect(fd, "RCPT TO:<y@B.example.com>\r\n", "250 ");
	expect(fd, "RCPT TO:<y@a.b.example.com>\r\n", "550 5.7.1");
	expect(fd, "DATA\r\n", "354 ");
	expect(fd, "Subject: x\r\n\r\nhello\r\n.\r\n", "250 2.0.0 OK: taken as ");
	assert_int_equal(rig.understood, 1);
	assert_int_equal(rig.recipients, 2);
	/* It is no reception: nobody will get it. */
	assert_string_equal(rig.main_log, "");
	expect(fd, MAIL, "250 ");
	expect(fd, "RCPT TO:<b@example.net>\r\n", "250 ");
	expect(fd, "RCPT TO:<x@b.example.com>\r\n", "452 4.5.3");
	expect(fd, "DATA\r\n", "354 ");
	expect(fd, "Subject: x\r\n\r\nhello\r\n.\r\n", "250 2.0.0 OK: queued as ");
	assert_int_equal(rig.understood, 1);
	assert_int_equal(rig.messages, 2);
	/* The log agent could not write it. */
	rig.store_result = -EIO;
	expect(fd, MAIL, "250 ");
	expect(fd, "RCPT TO:<x@b.example.com>\r\n", "250 ");
	expect(fd, "DATA\r\n", "354 ");
	expect(fd, "Subject: x\r\n\r\nhello\r\n.\r\n", "451 4.3.0 ");
	rig.store_result = 0;
	quit(fd);
}

static void test_relaying_by_host(void **state)
{
	static const struct {
		const char *network;
		uint8_t prefix;
		bool allowed;
	} cases[] = {
		{"::ffff:192.0.2.1", 128, true}, {"::ffff:192.0.2.0", 120, true},
		{"::ffff:192.0.2.0", 127, true}, {"::ffff:192.0.2.2", 127, false},
		{"::ffff:10.0.0.0", 104, false}, {"::ffff:128.0.0.0", 97, true},
		{"::ffff:0.0.0.0", 97, false},   {"::", 0, true},
		{"2001:db8::", 32, false},
	};
	struct in6_addr peer;

	(void)state;
	inet_pton(AF_INET6, "::ffff:192.0.2.1", &peer);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct cidr c = {.prefix = cases[i].prefix};

		inet_pton(AF_INET6, cases[i].network, &c.address);
		rig.options.relay_hosts = &c;
		rig.options.relay_host_count = 1;
		assert_int_equal(relay_host_allowed(&rig.options, &peer), cases[i].allowed);
		int fd = client_hello();
		expect(fd, MAIL, "250 ");
		expect(fd, "RCPT TO:<b@[10.0.0.1]>\r\n", cases[i].allowed ? "250 " : "550 5.7.1");
		quit(fd);
	}
}

static void test_lines_when_too_long(void **state)
{
	char line[5000];
	int fd = client_hello();

	(void)state;
	memset(line, 'x', sizeof(line));
	memcpy(line, "NOOP ", 5);
	memcpy(line + 998, "\r\n", 3);
	expect(fd, line, "250 2.0.0");
	memcpy(line + 998, "x\r\n", 4);
	expect(fd, line, "500 5.5.2 Line too long");
	memset(line + 998, 'x', 4);
	memcpy(line + 4990, "\r\n", 3);
	expect(fd, line, "500 5.5.2 Line too long");
	rig.options.max_line_bytes = 100000;
	memcpy(line + 2048, "\r\n", 3);
	expect(fd, line, "250 2.0.0");
	memcpy(line + 2048, "x\r\n", 4);
	expect(fd, line, "500 5.5.2 Line too long");
	assert_int_equal(count_of(SMTP_COUNT_REFUSED_LONG_COMMAND), 3);
	quit(fd);
}

static void test_recipients_when_too_many(void **state)
{
	int fd = client_hello();

	(void)state;
	say(fd, MAIL "RCPT TO:<1@example.net>\r\nRCPT TO:<2@example.net>\r\n"
		     "RCPT TO:<3@example.net>\r\nRCPT TO:<3@EXAMPLE.NET>\r\n"
		     "RCPT TO:<4@example.net>\r\nRCPT TO:<5@example.net>\r\n");
	expect_lines("250 2.1.0", 7);
	assert_null(strstr(rig.got, "452"));
	expect(fd, "RCPT TO:<6@example.net>\r\n", "452 4.5.3");
	expect(fd, "DATA\r\n", "354 ");
	expect(fd, "x\r\n.\r\n", "250 2.0.0");
	assert_int_equal(rig.recipients, 5);
	assert_int_equal(count_of(SMTP_COUNT_REFUSED_RECIPIENTS), 1);
	quit(fd);
}

static void test_message_when_too_large(void **state)
{
	int fd = client_hello();

	(void)state;
	expect(fd, "MAIL FROM:<a@example.com> SIZE=20001\r\n", "552 5.3.4");
	expect(fd, "MAIL FROM:<a@example.com> SIZE=20000\r\n", "250 ");
	say(fd, RCPT "DATA\r\n");
	say_data(fd, 200);
	expect(fd, ".\r\n", "250 2.0.0");
	say(fd, MAIL RCPT "DATA\r\n");
	say_data(fd, 201);
	/* The envelope is left. */
	assert_in_range(rig.receiving, 1, 1000);
	say_data(fd, 2000);
	assert_int_equal(rig.scheduler.pools.buffers.live, 0);
	expect(fd, ".\r\n", "552 5.3.4");
	assert_int_equal(rig.messages, 1);
	assert_int_equal(count_of(SMTP_COUNT_REFUSED_SIZE), 2);
	expect(fd, MAIL, "250 ");
	quit(fd);
}

static void test_message_when_lines_too_long(void **state)
{
	char line[1010];
	int fd = client_in_data();

	(void)state;
	memset(line, 'x', sizeof(line));
	memcpy(line + 998, "\r\n.\r\n", 6);
	expect(fd, line, "250 2.0.0");
	say(fd, MAIL RCPT "DATA\r\n");
	memcpy(line + 998, "x\r\n.\r\n", 7);
	expect(fd, line, "500 5.5.2");
	assert_int_equal(count_of(SMTP_COUNT_REFUSED_LONG_LINE), 1);
	quit(fd);
}

static void test_message_when_it_loops(void **state)
{
	int fd = client_in_data();

	(void)state;
	for (unsigned i = 0; i < 101; i++) {
		client_send(fd, "Received: x\r\n", 13);
	}
	expect(fd, "\r\n.\r\n", "554 5.4.6");
	assert_non_null(strstr(rig.reject_log, "@J@192.0.2.1@8@554@a@example.com@b@example.net@"));
	quit(fd);
}

static void test_octets_in_commands(void **state)
{
	int fd = client_hello();

	(void)state;
	expect(fd, "NOOP\n", "500 5.5.2");
	expect(fd, "NOOP\r\r\n", "500 5.5.2");
	expect(fd, "NO\rOP\r\n", "500 5.5.2");
	say_bytes(fd, "NOOP\0\r\n", 7);
	expect_lines("500 5.5.2", 1);
	expect(fd, "\xffNOOP\r\n", "500 5.5.2");
	say(fd, "MAIL FROM:<a@example.com>\nRCPT TO:<b@example.net>\r\n");
	expect_lines("500 5.5.2", 2);
	assert_non_null(strstr(rig.got, "\n503 5.5.1"));
	expect(fd, "NOOP\r\n", "250 2.0.0");
	quit(fd);
}

static void test_octets_in_data(void **state)
{
	int fd = client_in_data();

	(void)state;
	say_bytes(fd, "a\0b\r\n.\r\n", 8);
	expect_lines("550 5.6.0", 1);
	say(fd, MAIL RCPT "DATA\r\n");
	expect(fd, "\xe9t\xe9\r\n.\r\n", "250 2.0.0");
	assert_int_equal(rig.envelope_flags, ENVELOPE_UNSTUFFED | ENVELOPE_8BITMIME);
	say(fd, MAIL RCPT "DATA\r\n");
	expect(fd, "a\nb\r\n.\r\n", "550 5.6.11");
	say(fd, MAIL RCPT "DATA\r\n");
	expect(fd, "a\rb\r\n.\r\n", "550 5.6.11");
	assert_int_equal(count_of(SMTP_COUNT_REFUSED_BARE), 2);
	assert_int_equal(count_of(SMTP_COUNT_REFUSED_NUL), 1);
	assert_int_equal(rig.messages, 1);
	quit(fd);
}

/* What some server somewhere takes for the end of mail data. */
static const struct {
	const char *bytes;
	size_t len;
} false_ends[] = {
	{"\n.\n", 3}, {"\n.\r\n", 4}, {"\r.\r\n", 4},     {"\r\n.\n", 4},
	{"\r.\r", 3}, {"\r\n.\r", 4}, {"\r\n\0.\r\n", 6},
};

#define SMUGGLED                                                                                   \
	"MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.net>\r\nDATA\r\nevil\r\n.\r\n"

static void say_smuggled(int fd, unsigned i)
{
	char data[512];
	size_t len = 0;

	memcpy(data, "Subject: a\r\n\r\nhello", 19);
	len += 19;
	memcpy(data + len, false_ends[i].bytes, false_ends[i].len);
	len += false_ends[i].len;
	memcpy(data + len, SMUGGLED, sizeof(SMUGGLED) - 1);
	len += sizeof(SMUGGLED) - 1;
	say_bytes(fd, data, len);
}

static void test_smuggling_is_refused(void **state)
{
	(void)state;
	for (unsigned i = 0; i < sizeof(false_ends) / sizeof(false_ends[0]); i++) {
		int fd = client_in_data();

		say_smuggled(fd, i);
		expect_lines("550 5.6.", 1);
		assert_int_equal(rig.messages, 0);
		quit(fd);
	}
}

static void test_smuggling_is_harmless_when_bare_is_accepted(void **state)
{
	(void)state;
	rig.options.bare_lf = CONFIG_BARE_LF_ACCEPT;
	for (unsigned i = 0; i < sizeof(false_ends) / sizeof(false_ends[0]); i++) {
		int fd = client_in_data();
		bool has_nul = false_ends[i].len == 6;

		rig.bodies_len = 0;
		rig.messages = 0;
		say_smuggled(fd, i);
		expect_lines(has_nul ? "550 5.6.0" : "250 2.0.0", 1);
		assert_int_equal(rig.messages, has_nul ? 0 : 1);
		if (!has_nul) {
			assert_null(strstr(rig.bodies, "\r\n.\r\n"));
			assert_non_null(strstr(rig.bodies, "evil@example.com"));
		}
		quit(fd);
	}
}

/* All of it, once, and before it goes to the spool. */
static void test_message_is_signed_when_it_is_complete(void **state)
{
	char first[40];

	(void)state;
	for (int on = 0; on < 2; on++) {
		int fd;

		rig.options.dkim_sign = on;
		rig.bodies_len = 0;
		fd = client_in_data();
		say(fd, "Subject: x\r\n\r\n");
		say(fd, "hello\r\n.\r\n");
		expect_lines("250 2.0.0", 1);
		snprintf(first, sizeof(first),
			 "Signed: %zu\r\nReceived: ", rig.bodies_len - strlen("Signed: 000\r\n"));
		assert_int_equal(strncmp(rig.bodies, first, strlen(first)) == 0, on);
		assert_int_equal(strstr(rig.bodies, "Signed:") != NULL, on);
		assert_int_equal(rig.messages, on + 1);
		quit(fd);
	}
}

/* Of each message its own; and the next one without any has none. */
static void test_captures_what_logs_want(void **state)
{
	static const char *const keys[] = {"subject:", "x-tenant"};
	int fd;

	(void)state;
	rig.captured = keys;
	rig.captured_count = 2;
	fd = client_in_data();
	say(fd, "Subject: one\r\n two\r\nX-Tenant: t1\r\n\r\nSubject: body\r\n.\r\n");
	client_read(fd);
	assert_int_equal(rig.context.len, sizeof("subject:\0one two\0x-tenant\0t1"));
	assert_string_equal(context_find(rig.context.pairs, rig.context.len, "subject:"),
			    "one two");
	assert_string_equal(context_find(rig.context.pairs, rig.context.len, "x-tenant"), "t1");
	assert_int_equal(rig.event.context_len, rig.context.len);
	say(fd, "MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n");
	client_read(fd);
	say(fd, "From: me\r\n\r\n.\r\n");
	client_read(fd);
	assert_int_equal(rig.context.len, 0);
	assert_int_equal(rig.event.context_len, 0);
	assert_int_equal(count_of(SMTP_COUNT_ACCEPTED), 2);
	quit(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_message_is_stored_and_answered),
		TEST(test_ehlo_lists_what_is_offered),
		TEST(test_commands_when_out_of_order),
		TEST(test_other_commands),
		TEST(test_addresses_when_invalid),
		TEST(test_notification_parameters_are_kept),
		TEST(test_requiretls_needs_tls),
		TEST(test_relaying_by_domain),
		TEST(test_bounce_domains),
		TEST(test_relaying_by_host),
		TEST(test_lines_when_too_long),
		TEST(test_recipients_when_too_many),
		TEST(test_message_when_too_large),
		TEST(test_message_when_lines_too_long),
		TEST(test_message_when_it_loops),
		TEST(test_octets_in_commands),
		TEST(test_octets_in_data),
		TEST(test_smuggling_is_refused),
		TEST(test_smuggling_is_harmless_when_bare_is_accepted),
		TEST(test_message_is_signed_when_it_is_complete),
		TEST(test_captures_what_logs_want),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
