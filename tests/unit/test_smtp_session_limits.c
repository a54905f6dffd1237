/* Sessions at their limits: early talkers, counts, pressure, timeouts, clients that read late. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "listeners/smtp/transaction.h"
#include "tests/unit/smtp_world.h"

static void test_early_talker_is_dismissed(void **state)
{
	int fd = client_open("192.0.2.1");

	(void)state;
	say(fd, "EHLO early\r\n");
	expect_lines("554 5.5.1", 1);
	assert_non_null(strstr(rig.reject_log, "@J@192.0.2.1@12@554@"));
	assert_int_equal(count_of(SMTP_COUNT_EARLY_TALKERS), 1);
	expect_closed(fd);
}

static void test_input_before_354_is_refused(void **state)
{
	static const char *const groups[] = {
		MAIL RCPT "DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n",
		MAIL "RCPT TO:<b@elsewhere.example>\r\nDATA\r\nMAIL FROM:<evil@example.com>\r\n",
		MAIL RCPT "DATA x\r\n" RCPT,
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
		int fd = client_hello();

		say(fd, groups[i]);
		expect_lines("250 2.1.0", 3);
		assert_non_null(strstr(rig.got, "\n503 5.5.1 Unexpected input"));
		expect_closed(fd);
	}
	assert_int_equal(rig.messages, 0);
	assert_int_equal(count_of(SMTP_COUNT_EARLY_DATA), 3);
}

static void test_idle_commands_when_too_many(void **state)
{
	int fd;

	(void)state;
	rig.options.max_idle_commands = 3;
	fd = client_hello();
	say(fd, "NOOP\r\nRSET\r\nBAD\r\n" MAIL RCPT "NOOP\r\nHELP\r\nVRFY x\r\n");
	expect_lines("250 2.0.0", 8);
	expect(fd, "NOOP\r\n", "421 4.7.0");
	assert_int_equal(count_of(SMTP_COUNT_LIMIT_IDLE_COMMANDS), 1);
	expect_closed(fd);
}

static void test_client_that_goes_on_talking_can_read_the_last_reply(void **state)
{
	int fd;

	(void)state;
	rig.options.max_idle_commands = 1;
	fd = client_hello();
	client_send(fd, "NOOP\r\nNOOP\r\nNOOP\r\n", 18);
	settle();
	client_send(fd, "NOOP\r\n", 6);
	settle();
	assert_int_equal(listener()->session_count, 1);
	expect_heard(fd, "250 2.0.0 OK\r\n421 4.7.0", 2);
	assert_true(rig.got_eof);
	pass_ms(SMTP_LINGER_MS + 1);
	assert_int_equal(listener()->session_count, 0);
	close(fd);
}

static void test_receptions_when_too_many(void **state)
{
	int fd;

	(void)state;
	rig.options.max_receptions_per_connection = 2;
	fd = client_in_data();
	expect(fd, ".\r\n", "250 2.0.0");
	say(fd, MAIL RCPT "DATA\r\n");
	expect(fd, "x\r\n.\r\n", "250 2.0.0");
	expect(fd, MAIL, "421 4.7.0");
	expect_closed(fd);
}

static void test_pressure_is_told(void **state)
{
	static const struct {
		int error;
		const char *reply;
	} cases[] = {{-ENOSPC, "452 4.3.1"}, {-ENOMEM, "452 4.3.2"}, {-EBUSY, "451 4.3.2"}};
	int fd = client_hello();

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		rig.refuses = cases[i].error;
		expect(fd, MAIL, cases[i].reply);
		rig.refuses = 0;
		say(fd, MAIL RCPT);
		rig.refuses = cases[i].error;
		expect(fd, "DATA\r\n", cases[i].reply);
		rig.refuses = 0;
		expect(fd, "DATA\r\n", "354 ");
		expect(fd, "x\r\n.\r\n", "250 ");
	}
	assert_int_equal(counter_get(rig.scheduler.rejected_busy), 6);
	rig.refuses = -ESHUTDOWN;
	expect(fd, MAIL, "421 4.3.2");
	expect_closed(fd);
}

static void test_large_message_gives_way_when_budget_is_used_up(void **state)
{
	int fd;

	(void)state;
	rig.options.max_message_bytes = 10 << 20;
	fd = client_in_data();
	rig.refuses = -ENOMEM;
	say_data(fd, 10000);
	assert_true(rig.receiving > 1000000);
	say_data(fd, 1000);
	/* The envelope is left. */
	assert_in_range(rig.receiving, 1, 1000);
	assert_int_equal(count_of(SMTP_COUNT_CROWDED_OUT), 1);
	expect(fd, ".\r\n", "452 4.3.2");
	assert_int_equal(rig.receiving, 0);
	rig.refuses = 0;
	quit(fd);
}

/* Above twice the budget a message that holds more than its share gives way, whatever its size. */
static void test_message_above_its_share_gives_way(void **state)
{
	int fd;

	(void)state;
	rig.options.max_message_bytes = 10 << 20;
	fd = client_in_data();
	say_data(fd, 200);
	assert_in_range(rig.receiving, 15000, 100000);
	rig.share[false] = (uint64_t)rig.receiving + 4096;
	say_data(fd, 10);
	assert_int_equal(count_of(SMTP_COUNT_CROWDED_OUT), 0);
	say_data(fd, 100);
	assert_int_equal(count_of(SMTP_COUNT_CROWDED_OUT), 1);
	assert_in_range(rig.receiving, 1, 1000);
	expect(fd, ".\r\n", "452 4.3.2");
	rig.share[false] = 0;
	quit(fd);
}

/* Whoever stalls while the budget is used up gives up what is above its share, and nobody else. */
static void test_message_that_stalls_gives_way(void **state)
{
	int64_t both;
	int stalled;
	int busy;

	(void)state;
	rig.options.max_message_bytes = 10 << 20;
	stalled = client_in_data();
	busy = client_in_data();
	say_data(stalled, 200);
	say_data(busy, 200);
	both = rig.receiving;
	rig.share[true] = 10000;
	settle();
	pass_ms(SMTP_STALL_MS - 1);
	say_data(busy, 400);
	assert_int_equal(count_of(SMTP_COUNT_CROWDED_OUT), 0);
	pass_ms(1);
	assert_int_equal(count_of(SMTP_COUNT_CROWDED_OUT), 1);
	assert_true(rig.receiving > both / 2);
	/* What it has is looked at afresh when there was room in between. */
	rig.share[true] = 0;
	settle();
	rig.share[true] = 10000;
	settle();
	pass_ms(SMTP_STALL_MS - 1);
	assert_int_equal(count_of(SMTP_COUNT_CROWDED_OUT), 1);
	rig.share[true] = 0;
	expect(busy, ".\r\n", "250 ");
	expect(stalled, ".\r\n", "452 4.3.2");
	expect(stalled, "QUIT\r\n", "221 ");
	close(stalled);
	quit(busy);
}

/* Recipients take memory too. */
static void test_recipients_above_the_share_are_refused(void **state)
{
	int fd = client_hello();

	(void)state;
	rig.options.max_recipients_per_message = 1000;
	say(fd, MAIL);
	for (unsigned i = 0; i < 300; i++) {
		char line[128];

		snprintf(line, sizeof(line), "RCPT TO:<%040u@example.net>\r\n", i);
		expect(fd, line, "250 ");
	}
	assert_in_range(rig.receiving, 300 * 50, 300 * 100);
	rig.share[false] = 10000;
	expect(fd, RCPT, "452 4.3.2");
	assert_int_equal(count_of(SMTP_COUNT_REFUSED_MEMORY), 1);
	rig.share[true] = 10000;
	settle();
	pass_ms(SMTP_STALL_MS);
	client_read(fd);
	assert_non_null(strstr(rig.got, "421 4.3.2"));
	assert_int_equal(rig.receiving, 0);
	expect_closed(fd);
}

static void test_client_that_goes_on_sending_is_cut(void **state)
{
	char lines[60000];
	int fd;

	(void)state;
	rig.options.max_idle_commands = 1;
	memset(lines, '\n', sizeof(lines));
	fd = client_hello();
	client_send(fd, "NOOP\r\nNOOP\r\n", 12);
	settle();
	assert_int_equal(listener()->session_count, 1);
	for (unsigned i = 0; i < 1000 && listener()->session_count != 0; i++) {
		(void)!send(fd, lines, sizeof(lines), MSG_NOSIGNAL | MSG_DONTWAIT);
		settle();
	}
	assert_int_equal(listener()->session_count, 0);
	close(fd);
}

static void test_message_when_spool_fails(void **state)
{
	int fd = client_in_data();

	(void)state;
	rig.store_result = -ENOSPC;
	expect(fd, "x\r\n.\r\n", "452 4.3.1");
	say(fd, MAIL RCPT "DATA\r\n");
	rig.store_result = -EIO;
	expect(fd, "x\r\n.\r\n", "451 4.3.0");
	assert_string_equal(rig.main_log, "");
	assert_int_equal(count_of(SMTP_COUNT_STORE_FAILED), 2);
	quit(fd);
}

static void test_reading_pauses_under_pressure(void **state)
{
	int fd = client_hello();

	(void)state;
	rig.scheduler.log.outstanding = LOG_BLOCKS_HIGH + 1;
	/* The receive that is under way still brings something. */
	expect(fd, "NOOP\r\n", "250 ");
	say(fd, "NOOP\r\n");
	expect_lines("", 0);
	assert_int_equal(count_of(SMTP_COUNT_PAUSED), 1);
	pass_ms(rig.options.idle_timeout_ms * 2);
	say(fd, "NOOP\r\n");
	expect_lines("", 0);
	rig.scheduler.log.outstanding = 0;
	settle();
	client_read(fd);
	expect_lines("250 2.0.0 OK\r\n250 2.0.0 OK\r\n", 2);
	quit(fd);
}

static void test_session_when_idle(void **state)
{
	int fd = client_hello();

	(void)state;
	pass_ms(59000);
	expect(fd, "NOOP\r\n", "250 ");
	pass_ms(59000);
	expect(fd, "NOOP\r\n", "250 ");
	pass_ms(61000);
	expect_heard(fd, "421 4.4.2", 1);
	assert_int_equal(count_of(SMTP_COUNT_TIMEOUT_IDLE), 1);
	expect_closed(fd);
	fd = client_in_data();
	say(fd, "x\r\n");
	pass_ms(61000);
	client_read(fd);
	expect_lines("421 4.4.2", 1);
	assert_non_null(strstr(rig.reject_log, "@J@192.0.2.1@8@421@a@"));
	expect_closed(fd);
}

static void test_session_when_too_long(void **state)
{
	int fd = client_hello();

	(void)state;
	for (unsigned i = 0; i < 11; i++) {
		pass_ms(50000);
		expect(fd, "NOOP\r\n", "250 ");
	}
	say(fd, MAIL RCPT "DATA\r\n");
	/* A transaction may end. */
	pass_ms(50000);
	say(fd, "x\r\n");
	pass_ms(50000);
	say(fd, ".\r\n");
	expect_lines("250 2.0.0", 2);
	assert_non_null(strstr(rig.got, "\n421 4.4.2"));
	assert_int_equal(count_of(SMTP_COUNT_TIMEOUT_SESSION), 1);
	expect_closed(fd);
}

static void test_data_when_it_drips(void **state)
{
	int fd = client_in_data();

	(void)state;
	for (unsigned i = 0; i < 23; i++) {
		pass_ms(50000);
		say(fd, "x\r\n");
		expect_lines("", 0);
	}
	pass_ms(50000);
	client_read(fd);
	expect_lines("421 4.4.2", 1);
	expect_closed(fd);
}

static void test_client_that_never_reads(void **state)
{
	char lines[6 * 1000 + 1];
	int fd = client_hello();

	(void)state;
	rig.options.max_idle_commands = 0;
	for (unsigned i = 0; i < 1000; i++) {
		memcpy(lines + (size_t)6 * i, "HELP\r\n", 7);
	}
	for (unsigned i = 0; i < 1000 && send(fd, lines, 6000, MSG_NOSIGNAL) == 6000; i++) {
		settle();
	}
	settle();
	assert_true(rig.scheduler.pools.buffers.live < 64);
	assert_true(count_of(SMTP_COUNT_OUTPUT_BLOCKED) > 0);
	pass_ms(61000);
	assert_int_equal(listener()->session_count, 1);
	pass_ms(SMTP_CLOSE_GRACE_MS + 1);
	assert_int_equal(listener()->session_count, 0);
	assert_int_equal(count_of(SMTP_COUNT_TIMEOUT_CLOSING), 1);
	close(fd);
}

static void test_client_that_reads_late_gets_every_reply(void **state)
{
	char lines[6 * 1000 + 1];
	unsigned sent = 0;
	unsigned got = 0;
	int fd = client_hello();

	(void)state;
	rig.options.max_idle_commands = 0;
	for (unsigned i = 0; i < 1000; i++) {
		memcpy(lines + (size_t)6 * i, "NOOP\r\n", 7);
	}
	for (; sent < 20; sent++) {
		client_send(fd, lines, 6000);
		settle();
	}
	for (unsigned i = 0; i < 1000; i++) {
		hear(fd);
		settle();
		for (const char *p = rig.got; (p = strchr(p, '\n')) != NULL; p++) {
			got++;
		}
	}
	assert_int_equal(got, sent * 1000);
	quit(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_early_talker_is_dismissed),
		TEST_WITH(test_early_talker_is_dismissed, set_up_epoll),
		TEST_WITH(test_early_talker_is_dismissed, set_up_auto),
		TEST(test_input_before_354_is_refused),
		TEST(test_idle_commands_when_too_many),
		TEST(test_client_that_goes_on_talking_can_read_the_last_reply),
		TEST(test_receptions_when_too_many),
		TEST(test_pressure_is_told),
		TEST(test_large_message_gives_way_when_budget_is_used_up),
		TEST(test_message_above_its_share_gives_way),
		TEST(test_message_that_stalls_gives_way),
		TEST(test_recipients_above_the_share_are_refused),
		TEST(test_client_that_goes_on_sending_is_cut),
		TEST(test_message_when_spool_fails),
		TEST(test_reading_pauses_under_pressure),
		TEST(test_session_when_idle),
		TEST(test_session_when_too_long),
		TEST(test_data_when_it_drips),
		TEST(test_client_that_never_reads),
		TEST(test_client_that_reads_late_gets_every_reply),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
