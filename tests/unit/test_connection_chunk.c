/*
 * Bodies that go by BDAT (RFC 3030): along with the recipients when they are small and the server
 * takes commands in groups, else behind them. test_connection.c has the rest of the conversation.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/connection_world.h"

/* More than BODY_ALONG_MAX. */
#define LARGE 70000

static void by_chunks(uint16_t envelope_flags)
{
	options->use_chunking = true;
	peer->reply[PEER_EHLO] = PEER_CHUNKING;
	w->envelope_flags = envelope_flags;
}

static void test_small_body_goes_along(void **state)
{
	uint32_t number;

	(void)state;
	by_chunks(ENVELOPE_UNSTUFFED);
	number = send_one("a,b");
	assert_verdict(number, 2, 0, 0);
	assert_said(number, SMTP_STAGE_CONFIRMATION, 250, "250 2.0.0 kept");
	assert_string_equal(peer->log, "EHLO mta.test\n"
				       "MAIL FROM:<sender@here.test>\n"
				       "RCPT TO:<a@example.net>\n"
				       "RCPT TO:<b@example.net>\n"
				       "BDAT 549 LAST\n");
	assert_int_equal(peer->body_bytes, 549);
	assert_int_equal(peer->lines_max, 4);
}

static void test_large_body_waits_for_the_recipients(void **state)
{
	(void)state;
	by_chunks(ENVELOPE_UNSTUFFED);
	w->body_bytes = LARGE;
	assert_verdict(send_one("a"), 1, 0, 0);
	assert_int_equal(peer->lines_max, 2);
	/* Not sent for nothing. */
	assert_verdict(send_one("bad"), 0, 1, 0);
	assert_int_equal(peer->bodies, 1);
}

static void test_body_waits_without_pipelining(void **state)
{
	(void)state;
	by_chunks(0);
	peer->reply[PEER_EHLO] = "250-mx.test\r\n250 CHUNKING";
	assert_verdict(send_one("a"), 1, 0, 0);
	assert_int_equal(peer->lines_max, 1);
	assert_int_equal(peer->bodies, 1);
}

static void test_recipients_are_refused_before_the_body_that_came_along(void **state)
{
	uint32_t number;

	(void)state;
	by_chunks(0);
	assert_verdict(send_one("bad,a,later"), 1, 1, 1);
	peer->reply[PEER_BODY] = "503 5.5.1 nobody there";
	number = send_one("bad,bad2");
	assert_verdict(number, 0, 2, 0);
	assert_said(number, SMTP_STAGE_DURING_RCPT, 550, "550 5.1.1 no such user");
	/* The connection goes on after RSET. */
	peer->reply[PEER_BODY] = "250 2.0.0 kept";
	assert_verdict(send_one("a"), 1, 0, 0);
	assert_int_equal(peer->count[PEER_RSET], 1);
	assert_int_equal(peer->accepted, 1);
}

static void test_sender_is_refused_before_the_body_that_came_along(void **state)
{
	uint32_t number;

	(void)state;
	by_chunks(0);
	peer->reply[PEER_MAIL] = "550 5.7.1 not you";
	peer->reply[PEER_BODY] = "503 5.5.1 who is that from?";
	number = send_one("a,b");
	assert_verdict(number, 0, 2, 0);
	assert_said(number, SMTP_STAGE_DURING_MAIL, 550, "550 5.7.1 not you");
	peer->reply[PEER_MAIL] = "250 2.1.0 fine";
	peer->reply[PEER_BODY] = "250 2.0.0 kept";
	assert_verdict(send_one("a"), 1, 0, 0);
	assert_int_equal(peer->accepted, 1);
}

static void test_body_that_came_along_is_refused(void **state)
{
	uint32_t number;

	(void)state;
	by_chunks(0);
	peer->reply[PEER_BODY] = "554 5.7.1 spam";
	number = send_one("a,bad");
	assert_verdict(number, 0, 2, 0);
	assert_said(number, SMTP_STAGE_CONFIRMATION, 554, "554 5.7.1 spam");
}

/* The connection breaks at each reply; whoever had a verdict of his own keeps it. */
static void test_connection_lost_with_the_body_under_way(void **state)
{
	(void)state;
	for (unsigned verb = PEER_MAIL; verb <= PEER_BODY; verb++) {
		const char *right = peer->reply[verb];

		if (verb == PEER_DATA) {
			continue;
		}
		by_chunks(0);
		peer->reply[verb] = PEER_RESET;
		assert_verdict(send_one("a"), 0, 0, 1);
		peer->reply[verb] = right;
	}
	assert_verdict(send_one("a"), 1, 0, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
#define TEST_AUTO(function)                                                                        \
	{                                                                                          \
#function "_on_auto", function, set_up_auto, tear_down, NULL                       \
	}
#define TEST_ALL(function) TEST(function), TEST_AUTO(function)

int main(void)
{
	(void)set_up_epoll;
	const struct CMUnitTest tests[] = {
		TEST_ALL(test_small_body_goes_along),
		TEST_ALL(test_large_body_waits_for_the_recipients),
		TEST(test_body_waits_without_pipelining),
		TEST_ALL(test_recipients_are_refused_before_the_body_that_came_along),
		TEST(test_sender_is_refused_before_the_body_that_came_along),
		TEST(test_body_that_came_along_is_refused),
		TEST_ALL(test_connection_lost_with_the_body_under_way),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
