/* BDAT: chunks, what is stored of them, and what becomes of octets that nobody wants. */
#include "listeners/smtp/transaction.h"
#include "tests/unit/smtp_world.h"

static int client_with_recipient(void)
{
	int fd = client_hello();

	say(fd, MAIL RCPT);
	expect_lines("250 2.1.0", 2);
	return fd;
}

/* The last message as it was stored, behind its Received field. */
static const char *stored_body(void)
{
	const char *field = rig.bodies;
	const char *next = NULL;
	const char *end;

	while ((next = strstr(field + 1, "Received: from client.example ([192.0.2.1])")) != NULL) {
		field = next;
	}
	end = strstr(field, "\r\n");
	while (end != NULL && end[2] == '\t') {
		end = strstr(end + 2, "\r\n");
	}
	assert_non_null(end);
	return end + 2;
}

static void test_chunks_are_stored_in_wire_form(void **state)
{
	static const struct {
		const char *said;
		unsigned replies;
		const char *stored;
	} cases[] = {
		{"BDAT 0 LAST\r\n", 1, ""},
		{"BDAT 4 LAST\r\nab\r\n", 1, "ab\r\n"},
		/* The last line end may be missing. */
		{"BDAT 2 LAST\r\nab", 1, "ab\r\n"},
		/* What ends mail data elsewhere does not here. */
		{"BDAT 7 LAST\r\na\r\n.\r\nb", 1, "a\r\n..\r\nb\r\n"},
		{"BDAT 3 LAST\r\n.\r\n", 1, "..\r\n"},
		{"BDAT 1\r\n.BDAT 1 LAST\r\n.", 2, "...\r\n"},
		{"BDAT 7 LAST\r\n\r\n.QUIT", 1, "\r\n..QUIT\r\n"},
		/* A line end, and a dot behind it, in chunks of their own. */
		{"BDAT 2\r\na\rBDAT 1\r\n\nBDAT 1\r\n.BDAT 2 LAST\r\n\r\n", 4, "a\r\n..\r\n"},
		{"BDAT 1\r\naBDAT 0 LAST\r\n", 2, "a\r\n"},
		{"BDAT 0\r\nBDAT 3 LAST\r\na\r\n", 2, "a\r\n"},
		{"bdat 3 last\r\na\r\n", 1, "a\r\n"},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (unsigned split = 0; split < 2; split++) {
			int fd = client_with_recipient();

			if (split) {
				rig.got_len = 0;
				for (const char *p = cases[i].said; *p != '\0'; p++) {
					client_send(fd, p, 1);
					settle();
				}
				client_read(fd);
			} else {
				say(fd, cases[i].said);
			}
			expect_lines("250 2.0.0 ", cases[i].replies);
			assert_non_null(strstr(rig.got, "OK: queued as "));
			assert_string_equal(stored_body(), cases[i].stored);
			quit(fd);
		}
	}
	assert_int_equal(count_of(SMTP_COUNT_ACCEPTED), 2 * sizeof(cases) / sizeof(cases[0]));
}

static void test_chunks_in_one_group_with_their_envelope(void **state)
{
	int fd = client_hello();

	(void)state;
	say(fd, MAIL RCPT "BDAT 3\r\na\r\nBDAT 3 LAST\r\nb\r\n" MAIL RCPT
			  "BDAT 3 LAST\r\nc\r\nNOOP\r\nQUIT\r\n");
	expect_lines("250 2.1.0 Sender OK\r\n250 2.1.5 Recipient OK\r\n"
		     "250 2.0.0 3 octets received\r\n250 2.0.0 OK: queued as ",
		     9);
	assert_non_null(strstr(rig.got, "\r\n250 2.0.0 OK\r\n221 2.0.0 Bye\r\n"));
	assert_int_equal(rig.messages, 2);
	assert_string_equal(stored_body(), "c\r\n");
	expect_closed(fd);
}

/* The octets of a refused chunk look like commands, and are none; nothing of the message is kept,
 * and what was sent behind it is out of order. */
static void test_chunks_when_refused_are_thrown_away(void **state)
{
	int fd = client_greeted();

	(void)state;
	expect(fd, "BDAT 6 LAST\r\nQUIT\r\n", "503 5.5.1 Send EHLO");
	expect(fd, "HELO client.example\r\n", "250 ");
	expect(fd, "BDAT 6 LAST\r\nQUIT\r\n", "503 5.5.1 Send MAIL");
	expect(fd, MAIL, "250 2.1.0");
	expect(fd, "BDAT 6\r\nQUIT\r\n", "503 5.5.1 Send RCPT");
	/* It was the end of the transaction. */
	expect(fd, RCPT, "503 5.5.1 Send MAIL");
	say(fd, MAIL "RCPT TO:<x@elsewhere.example>\r\nBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\n");
	expect_lines("250 2.1.0 Sender OK\r\n550 5.7.1 Relaying denied\r\n"
		     "554 5.5.1 No valid recipients\r\n503 5.5.1 Send MAIL first\r\n",
		     4);
	rig.refuses = -ENOSPC;
	/* The pressure may end, the message has lost its beginning. */
	expect(fd, MAIL, "452 4.3.1");
	rig.refuses = 0;
	say(fd, MAIL RCPT);
	rig.refuses = -ENOSPC;
	expect(fd, "BDAT 6\r\nQUIT\r\n", "452 4.3.1");
	rig.refuses = 0;
	expect(fd, "BDAT 6 LAST\r\nQUIT\r\n", "503 5.5.1");
	assert_int_equal(rig.messages, 0);
	assert_non_null(strstr(rig.reject_log, "@J@192.0.2.1@6@452@a@example.com@b@example.net@"));
	expect(fd, MAIL, "250 2.1.0");
	quit(fd);
}

static void test_chunks_when_begun(void **state)
{
	int fd = client_with_recipient();

	(void)state;
	expect(fd, "BDAT 3\r\na\r\n", "250 2.0.0 3 octets received");
	expect(fd, MAIL, "503 5.5.1");
	expect(fd, RCPT, "503 5.5.1 Go on with BDAT");
	expect(fd, "DATA\r\n", "503 5.5.1 Go on with BDAT");
	expect(fd, "NOOP\r\n", "250 2.0.0");
	expect(fd, "BDAT 3\r\nb\r\n", "250 2.0.0");
	expect(fd, "RSET\r\n", "250 2.0.0");
	expect(fd, "BDAT 3 LAST\r\nc\r\n", "503 5.5.1 Send MAIL");
	assert_int_equal(rig.messages, 0);
	say(fd, MAIL RCPT "BDAT 3\r\na\r\nEHLO c\r\n");
	expect(fd, "BDAT 3 LAST\r\nc\r\n", "503 5.5.1 Send MAIL");
	say(fd, MAIL RCPT "BDAT 3\r\na\r\nDATA\r\nx");
	expect_lines(
		"250 2.1.0 Sender OK\r\n250 2.1.5 Recipient OK\r\n250 2.0.0 3 octets received\r\n"
		"503 5.5.1 Unexpected input before 354\r\n",
		4);
	expect_closed(fd);
}

static void test_chunks_of_unwanted_messages(void **state)
{
	static const struct {
		const char *said;
		size_t len;
		const char *reply;
		enum smtp_count count;
	} cases[] = {
		{"BDAT 3\r\na\0b", 11, "550 5.6.0", SMTP_COUNT_REFUSED_NUL},
		{"BDAT 3\r\na\nb", 11, "550 5.6.11", SMTP_COUNT_REFUSED_BARE},
		{"BDAT 3\r\na\rb", 11, "550 5.6.11", SMTP_COUNT_REFUSED_BARE},
		{"BDAT 2 LAST\r\na\r", 15, "550 5.6.11", SMTP_COUNT_REFUSED_BARE},
		{"BDAT 2 LAST\r\na\n", 15, "550 5.6.11", SMTP_COUNT_REFUSED_BARE},
		{"BDAT 5 LAST\r\na\n.\nb", 18, "550 5.6.11", SMTP_COUNT_REFUSED_BARE},
		{"BDAT 5 LAST\r\na\n.\r\n", 18, "550 5.6.11", SMTP_COUNT_REFUSED_BARE},
	};
	int fd = client_hello();

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t before = count_of(cases[i].count);

		say(fd, MAIL RCPT);
		say_bytes(fd, cases[i].said, cases[i].len);
		expect_lines(cases[i].reply, 1);
		assert_int_equal(count_of(cases[i].count), before + 1);
		expect(fd, "BDAT 0 LAST\r\n", "503 5.5.1 Send MAIL");
	}
	assert_int_equal(rig.messages, 0);
	assert_int_equal(rig.receiving, 0);
	quit(fd);
}

/* Bare line ends made whole: the dot behind one is stuffed, the message ends where its chunk does.
 */
static void test_chunks_with_bare_line_ends_accepted(void **state)
{
	int fd = client_hello();

	(void)state;
	rig.options.bare_lf = CONFIG_BARE_LF_ACCEPT;
	say(fd, MAIL RCPT "BDAT 8 LAST\r\na\n.\n\r\n.b");
	assert_non_null(strstr(rig.got, "queued as"));
	assert_string_equal(stored_body(), "a\r\n..\r\n\r\n..b\r\n");
	say(fd, MAIL RCPT "BDAT 2 LAST\r\na\n");
	assert_non_null(strstr(rig.got, "queued as"));
	assert_string_equal(stored_body(), "a\r\n");
	quit(fd);
}

static void say_chunk(int fd, unsigned lines, const char *last)
{
	char command[64];

	snprintf(command, sizeof(command), "BDAT %u%s\r\n", lines * 100, last);
	client_send(fd, command, strlen(command));
	rig.got_len = 0;
	say_data(fd, lines);
	client_read(fd);
}

static void test_chunks_when_too_large(void **state)
{
	int fd = client_with_recipient();

	(void)state;
	say_chunk(fd, 150, "");
	expect_lines("250 2.0.0 15000 octets received\r\n", 1);
	say_chunk(fd, 51, "");
	expect_lines("552 5.3.4", 1);
	assert_int_equal(rig.receiving, 0);
	say_chunk(fd, 1, " LAST");
	expect_lines("503 5.5.1", 1);
	/* All of it in one: it is read to its end. */
	say(fd, MAIL RCPT);
	say_chunk(fd, 5000, " LAST");
	expect_lines("552 5.3.4", 1);
	say(fd, MAIL RCPT);
	say_chunk(fd, 200, " LAST");
	expect_lines("250 2.0.0 OK: queued as", 1);
	assert_int_equal(count_of(SMTP_COUNT_REFUSED_SIZE), 2);
	quit(fd);
}

/* Of a command that is not understood nobody knows how many octets follow. */
static void test_bdat_when_malformed_closes(void **state)
{
	static const char *const lines[] = {
		"BDAT\r\n",          "BDAT x\r\n",
		"BDAT 5 FIRST\r\n",  "BDAT -5\r\n",
		"BDAT 5\n",          "BDAT\t5\r\n",
		"BDAT 5 \x01\r\n",   "bdat5\r\n",
		"BDAT 5 LAST x\r\n", "BDAT 123456789012345678901\r\n",
	};
	char line[4000];

	(void)state;
	for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		int fd = client_with_recipient();

		say(fd, lines[i]);
		expect_lines("50", 1);
		expect_closed(fd);
	}
	memset(line, ' ', sizeof(line));
	memcpy(line, "BDAT 5", 6);
	memcpy(line + 3000, "\r\n", 3);
	int fd = client_with_recipient();
	say(fd, line);
	expect_lines("500 5.5.2 Line too long", 1);
	expect_closed(fd);
}

static void test_chunks_that_never_end(void **state)
{
	int fd = client_with_recipient();

	(void)state;
	say(fd, "BDAT 18446744073709551615\r\nx");
	expect_lines("", 0);
	pass_ms(60001);
	client_read(fd);
	expect_lines("421 4.4.2", 1);
	expect_closed(fd);
	assert_non_null(strstr(rig.reject_log, "@J@192.0.2.1@8@421@"));
	fd = client_with_recipient();
	say(fd, "BDAT 5\r\nx");
	close(fd);
	settle();
	assert_int_equal(listener()->session_count, 0);
	assert_int_equal(count_of(SMTP_COUNT_LOST), 1);
}

static void test_empty_chunks_move_no_mail(void **state)
{
	int fd = client_with_recipient();

	(void)state;
	rig.options.max_idle_commands = 3;
	for (unsigned i = 0; i < 3; i++) {
		expect(fd, "BDAT 0\r\n", "250 2.0.0 0 octets received");
	}
	expect(fd, "BDAT 0\r\n", "421 4.7.0");
	expect_closed(fd);
}

/* Between two chunks a message that stalls gives its memory up, and is refused when it goes on. */
static void test_chunks_when_crowded_out(void **state)
{
	int fd = client_with_recipient();

	(void)state;
	say_chunk(fd, 150, "");
	expect_lines("250 2.0.0", 1);
	rig.share[true] = 1000;
	pass_ms(SMTP_STALL_MS + 1);
	pass_ms(SMTP_STALL_MS + 1);
	pass_ms(SMTP_STALL_MS + 1);
	assert_int_equal(count_of(SMTP_COUNT_CROWDED_OUT), 1);
	rig.share[true] = 0;
	expect(fd, "BDAT 3 LAST\r\nb\r\n", "452 4.3.2");
	assert_int_equal(rig.messages, 0);
	quit(fd);
}

static void test_chunks_wait_for_the_spool(void **state)
{
	int fd = client_with_recipient();

	(void)state;
	rig.store_holds = true;
	say(fd, "BDAT 3 LAST\r\na\r\n" MAIL RCPT "BDAT 3 LAST\r\nb\r\n");
	expect_lines("", 0);
	rig.store_result = -EIO;
	rig.store_holds = false;
	settle();
	client_read(fd);
	expect_lines("451 4.3.0", 4);
	assert_int_equal(rig.messages, 2);
	quit(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_chunks_are_stored_in_wire_form),
		TEST(test_chunks_in_one_group_with_their_envelope),
		TEST(test_chunks_when_refused_are_thrown_away),
		TEST(test_chunks_when_begun),
		TEST(test_chunks_of_unwanted_messages),
		TEST(test_chunks_with_bare_line_ends_accepted),
		TEST(test_chunks_when_too_large),
		TEST(test_bdat_when_malformed_closes),
		TEST(test_chunks_that_never_end),
		TEST(test_empty_chunks_move_no_mail),
		TEST(test_chunks_when_crowded_out),
		TEST(test_chunks_wait_for_the_spool),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
