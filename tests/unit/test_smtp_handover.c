/* Sessions that are handed on: when, with what, and how they go on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/smtp_world.h"

static void leave(void)
{
	leave_listener();
	settle();
}

static void go_on(void)
{
	take_handed_on();
	settle();
}

static void test_sessions_go_when_nothing_is_in_the_middle(void **state)
{
	int idle = client_hello();
	int in_data = client_in_data();
	int at_spool = client_in_data();

	(void)state;
	rig.store_holds = true;
	say(at_spool, "x\r\n.\r\n");
	leave();
	assert_int_equal(rig.handed_on_count, 1);
	assert_int_equal(listener()->session_count, 2);
	say(in_data, "y\r\n.\r\n");
	assert_int_equal(rig.handed_on_count, 1);
	rig.store_holds = false;
	settle();
	assert_int_equal(rig.handed_on_count, 3);
	assert_true(drained());
	assert_int_equal(count_of(SMTP_COUNT_HANDED_ON), 3);
	assert_int_equal(count_of(SMTP_COUNT_SESSIONS_OPEN), 0);
	expect_heard(at_spool, "250 2.0.0", 1);
	expect_heard(in_data, "250 2.0.0", 1);
	/* Nobody is greeted again, or has to say EHLO. */
	go_on();
	assert_int_equal(count_of(SMTP_COUNT_SESSIONS), 3);
	assert_int_equal(count_of(SMTP_COUNT_SESSIONS_OPEN), 3);
	expect(idle, MAIL, "250 2.1.0");
	expect(in_data, MAIL, "250 2.1.0");
	expect(at_spool, MAIL, "250 2.1.0");
	assert_int_equal(count_of(SMTP_COUNT_REFUSED_STOPPING), 0);
	close(idle);
	close(in_data);
	close(at_spool);
}

static void test_a_client_that_is_not_greeted_yet_is_greeted_first(void **state)
{
	int fd = client_open("192.0.2.1");

	(void)state;
	leave();
	assert_int_equal(rig.handed_on_count, 1);
	expect_heard(fd, "220 ", 1);
	go_on();
	expect(fd, "NOOP\r\n", "250 2.0.0");
	close(fd);
}

static void test_what_was_held_back_goes_along(void **state)
{
	int fd = client_in_data();

	(void)state;
	rig.store_holds = true;
	say(fd, "x\r\n.\r\n" MAIL RCPT "DATA\r\n");
	leave();
	rig.store_holds = false;
	settle();
	assert_int_equal(rig.handed_on_count, 1);
	expect_heard(fd, "250 2.0.0", 1);
	go_on();
	expect_heard(fd, "250 2.1.0 Sender OK\r\n250 2.1.5 Recipient OK\r\n354 ", 3);
	say(fd, "z\r\n.\r\n");
	expect_lines("250 2.0.0", 1);
	assert_int_equal(rig.messages, 2);
	close(fd);
}

static void test_its_deadline_stays(void **state)
{
	int fd = client_hello();
	uint64_t idle_ms = rig.options.idle_timeout_ms;

	(void)state;
	pass_ms(idle_ms - 1000);
	leave();
	assert_int_equal(rig.handed_on_count, 1);
	go_on();
	pass_ms(500);
	assert_int_equal(listener()->session_count, 1);
	pass_ms(600);
	expect_heard(fd, "421 4.4.2", 1);
	close(fd);
}

static void test_the_program_stops_while_it_is_on_its_way(void **state)
{
	int fd = client_hello();

	(void)state;
	leave();
	assert_int_equal(rig.handed_on_count, 1);
	stop_listener(false);
	go_on();
	expect_heard(fd, "421 4.3.2", 1);
	close(fd);
}

/* It leaves, and then the program stops: those that have not gone are told so. */
static void test_the_program_stops_before_it_could_go(void **state)
{
	int in_data = client_in_data();

	(void)state;
	leave();
	assert_int_equal(rig.handed_on_count, 0);
	stop_listener(false);
	say(in_data, "x\r\n.\r\n");
	expect_lines("250 2.0.0", 2);
	assert_non_null(strstr(rig.got, "\n421 4.3.2"));
	assert_int_equal(rig.handed_on_count, 0);
	assert_int_equal(count_of(SMTP_COUNT_REFUSED_STOPPING), 1);
	close(in_data);
}

static void test_a_client_that_does_not_read_stays(void **state)
{
	int fd = client_hello();
	struct smtp_session *ss = smtp_session_of_all(listener()->sessions.next);

	(void)state;
	clog_replies(fd, ss);
	leave();
	assert_int_equal(rig.handed_on_count, 0);
	/* Until he does. */
	for (unsigned i = 0; rig.handed_on_count == 0; i++) {
		assert_true(i < 1000);
		hear(fd);
		settle();
	}
	go_on();
	close(fd);
}

static void test_a_client_that_goes_is_not_handed_on(void **state)
{
	int fd = client_hello();

	(void)state;
	close(fd);
	leave();
	assert_int_equal(rig.handed_on_count, 0);
	assert_int_equal(listener()->session_count, 0);
}

static const char script[] = "EHLO client.example\r\n" MAIL RCPT "DATA\r\nfirst\r\n.\r\n"
			     "NOOP\r\n" MAIL RCPT "BDAT 8 LAST\r\nsecond\r\n"
			     "RSET\r\nVRFY x\r\n" MAIL RCPT "RSET\r\n";

/* All of it but what waits for 354, in two pieces, between which the session is handed on. */
static void run_script(size_t cut, char *got, size_t size)
{
	int fd = client_greeted();
	size_t at_data = (size_t)(strstr(script, "first") - script);
	size_t ends[] = {at_data, sizeof(script) - 1};
	size_t from = 0;

	got[0] = '\0';
	for (unsigned i = 0; i < 2; i++) {
		if (cut > from && cut < ends[i]) {
			client_send(fd, script + from, cut - from);
			leave_listener();
			settle();
			take_handed_on();
			from = cut;
		}
		client_send(fd, script + from, ends[i] - from);
		settle();
		from = ends[i];
	}
	hear(fd);
	snprintf(got, size, "%s", rig.got);
	close(fd);
	settle();
}

/* Two numbers of ours differ from message to message. */
static void spoil_ids(char *text)
{
	for (char *p = text; (p = strstr(p, "queued as ")) != NULL; p++) {
		for (char *q = p + strlen("queued as "); *q != '\r' && *q != '\0'; q++) {
			*q = 'x';
		}
	}
}

static void test_replies_are_the_same_wherever_it_is_handed_on(void **state)
{
	static char wanted[TEXT_SIZE];
	static char got[TEXT_SIZE];
	uint64_t moves;

	(void)state;
	run_script(0, wanted, sizeof(wanted));
	spoil_ids(wanted);
	assert_non_null(strstr(wanted, "\r\n354 "));
	assert_int_equal(rig.messages, 2);
	for (size_t cut = 1; cut < sizeof(script) - 1; cut++) {
		run_script(cut, got, sizeof(got));
		spoil_ids(got);
		assert_string_equal(got, wanted);
	}
	moves = count_of(SMTP_COUNT_HANDED_ON);
	assert_true(moves > 50 && moves < sizeof(script));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_sessions_go_when_nothing_is_in_the_middle),
		TEST_WITH(test_sessions_go_when_nothing_is_in_the_middle, set_up_epoll),
		TEST_WITH(test_sessions_go_when_nothing_is_in_the_middle, set_up_auto),
		TEST(test_a_client_that_is_not_greeted_yet_is_greeted_first),
		TEST(test_what_was_held_back_goes_along),
		TEST(test_its_deadline_stays),
		TEST(test_the_program_stops_while_it_is_on_its_way),
		TEST(test_the_program_stops_before_it_could_go),
		TEST(test_a_client_that_does_not_read_stays),
		TEST(test_a_client_that_goes_is_not_handed_on),
		TEST_WITH(test_a_client_that_goes_is_not_handed_on, set_up_epoll),
		TEST(test_replies_are_the_same_wherever_it_is_handed_on),
		TEST_WITH(test_replies_are_the_same_wherever_it_is_handed_on, set_up_epoll),
		TEST_WITH(test_replies_are_the_same_wherever_it_is_handed_on, set_up_auto),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
