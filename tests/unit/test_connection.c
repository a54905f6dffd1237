/*
 * One SMTP client session against a scripted server: what is said, and what is made of each reply,
 * wanted or not. test_connection_life.c goes on where connections end.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/connection_world.h"

/* ---- the plain conversation ---- */

static void test_delivers_without_pipelining(void **state)
{
	uint32_t number = send_one("a,b");

	(void)state;
	assert_verdict(number, 2, 0, 0);
	assert_said(number, SMTP_STAGE_CONFIRMATION, 250, "250 2.0.0 kept");
	assert_string_equal(attempt_of(number)->enhanced, "2.0.0");
	assert_string_equal(attempt_of(number)->remote_ip, "127.0.0.1");
	assert_string_equal(peer->log, "EHLO mta.test\n"
				       "MAIL FROM:<sender@here.test>\n"
				       "RCPT TO:<a@example.net>\n"
				       "RCPT TO:<b@example.net>\n"
				       "DATA\n");
	assert_int_equal(peer->bodies, 1);
	assert_int_equal(peer->body_bytes, outbound_record(w, DOMAIN)->bytes_sent);
	assert_int_equal(peer->lines_max, 1);
	assert_int_equal(counter_get(w->dispatcher.commands_pipelined), 0);
}

static void test_delivers_with_pipelining(void **state)
{
	uint32_t number;

	(void)state;
	peer->reply[PEER_EHLO] = PEER_PIPELINING;
	number = send_one("a,b,c");
	assert_verdict(number, 3, 0, 0);
	assert_string_equal(peer->log, "EHLO mta.test\n"
				       "MAIL FROM:<sender@here.test> SIZE=549\n"
				       "RCPT TO:<a@example.net>\n"
				       "RCPT TO:<b@example.net>\n"
				       "RCPT TO:<c@example.net>\n"
				       "DATA\n");
	assert_int_equal(peer->lines_max, 5);
	assert_int_equal(counter_get(w->dispatcher.commands_pipelined), 4);
}

static void test_falls_back_to_helo(void **state)
{
	uint32_t number;

	(void)state;
	peer->reply[PEER_EHLO] = "502 5.5.1 what is EHLO?";
	number = send_one("a");
	assert_verdict(number, 1, 0, 0);
	assert_int_equal(peer->count[PEER_EHLO], 1);
	assert_int_equal(peer->count[PEER_HELO], 1);
	assert_non_null(strstr(peer->log, "HELO mta.test\nMAIL FROM:<sender@here.test>\n"));
}

static void test_says_what_the_message_needs(void **state)
{
	(void)state;
	peer->reply[PEER_EHLO] = "250-mx.test\r\n250-8BITMIME\r\n250 SMTPUTF8";
	w->envelope_flags = ENVELOPE_8BITMIME | ENVELOPE_SMTPUTF8;
	assert_verdict(send_one("a"), 1, 0, 0);
	assert_non_null(strstr(peer->log, "MAIL FROM:<sender@here.test> BODY=8BITMIME SMTPUTF8\n"));
}

static void test_large_body_arrives_whole(void **state)
{
	(void)state;
	w->body_bytes = 3000000;
	assert_verdict(send_one("a"), 1, 0, 0);
	assert_true(peer->body_bytes >= 3000000);
	assert_int_equal(peer->body_bytes, outbound_record(w, DOMAIN)->bytes_sent);
	/* The body is not the connection's to keep or to give back. */
	assert_int_equal(w->pools.deliveries.live, 0);
}

static void test_body_is_read_back_first(void **state)
{
	uint32_t number;

	(void)state;
	w->not_resident = true;
	w->hold_loads = true;
	number = outbound_queue(w, DOMAIN, "a");
	outbound_settle(w);
	assert_int_equal(w->load_count, 1);
	assert_int_equal(peer->count[PEER_MAIL], 0);
	w->hold_loads = false;
	outbound_until(w, 1);
	assert_verdict(number, 1, 0, 0);
	assert_int_equal(peer->bodies, 1);
	assert_true(peer->body_bytes >= w->body_bytes);
}

static void test_reply_in_pieces_and_multiline(void **state)
{
	(void)state;
	peer->reply[PEER_BANNER] = "220-mx.test\r\n220-no spam\r\n220 please";
	peer->reply[PEER_BODY] = "250-2.0.0 first\r\n250 2.0.0 second";
	assert_said(send_one("a"), SMTP_STAGE_CONFIRMATION, 250, "250 2.0.0 first second");
}

/* ---- refusals ---- */

static void partial(void)
{
	uint32_t number = send_one("a,bad1,bad2,later1,z");
	const struct outcome *o = outbound_outcome(w, number);

	assert_verdict(number, 2, 2, 1);
	assert_int_equal(o->own_replies, 3);
	assert_string_equal(o->first_text, "550 5.1.1 no such user");
	assert_string_equal(o->last_text, "451 4.2.1 try later");
	assert_int_equal(peer->bodies, 1);
	/* Only the deferred one comes again. */
	outbound_pass(w, options->retry_interval_ms);
	assert_int_equal(w->outcome_count, 2);
	assert_verdict(number, 0, 0, 1);
}

static void test_some_recipients_refused(void **state)
{
	(void)state;
	partial();
}

static void test_some_recipients_refused_with_pipelining(void **state)
{
	(void)state;
	peer->reply[PEER_EHLO] = PEER_PIPELINING;
	partial();
}

static void test_all_recipients_refused(void **state)
{
	uint32_t number = send_one("bad1,bad2");

	(void)state;
	assert_verdict(number, 0, 2, 0);
	assert_said(number, SMTP_STAGE_DURING_RCPT, 550, "550 5.1.1 no such user");
	assert_int_equal(peer->count[PEER_DATA], 0);
	assert_int_equal(peer->count[PEER_RSET], 1);
	/* The session lives on. */
	assert_verdict(send_one("a"), 1, 0, 0);
	assert_int_equal(peer->accepted, 1);
}

static void test_all_recipients_refused_with_pipelining(void **state)
{
	(void)state;
	peer->reply[PEER_EHLO] = PEER_PIPELINING;
	peer->reply[PEER_DATA] = "554 5.5.1 no valid recipients";
	assert_verdict(send_one("bad1,later1"), 0, 1, 1);
	assert_int_equal(peer->count[PEER_RSET], 1);
	peer->reply[PEER_DATA] = "354 go ahead";
	assert_verdict(send_one("a"), 1, 0, 0);
	assert_int_equal(peer->accepted, 1);
}

/* RFC 2920: a server that asks for data for nobody gets an empty message. */
static void test_354_for_nobody(void **state)
{
	uint32_t number;

	(void)state;
	peer->reply[PEER_EHLO] = PEER_PIPELINING;
	peer->reply[PEER_BODY] = "554 5.5.1 no valid recipients";
	number = send_one("bad1,bad2");
	assert_verdict(number, 0, 2, 0);
	assert_said(number, SMTP_STAGE_DURING_RCPT, 550, "550 5.1.1 no such user");
	assert_int_equal(peer->bodies, 1);
	assert_int_equal(peer->body_bytes, 0);
	peer->reply[PEER_BODY] = "250 2.0.0 kept";
	assert_verdict(send_one("a"), 1, 0, 0);
	assert_int_equal(peer->accepted, 1);
}

static void refused_at_mail(void)
{
	uint32_t number;

	peer->reply[PEER_MAIL] = "550 5.7.1 not you";
	peer->reply[PEER_RCPT] = "503 5.5.1 MAIL first";
	peer->reply[PEER_DATA] = "503 5.5.1 MAIL first";
	number = send_one("a,b");
	assert_verdict(number, 0, 2, 0);
	assert_said(number, SMTP_STAGE_DURING_MAIL, 550, "550 5.7.1 not you");
	assert_int_equal(outbound_outcome(w, number)->own_replies, 0);
	peer->reply[PEER_MAIL] = "451 4.7.1 not now";
	number = send_one("a,b");
	assert_verdict(number, 0, 0, 2);
	assert_said(number, SMTP_STAGE_DURING_MAIL, 451, "451 4.7.1 not now");
	assert_int_equal(peer->accepted, 1);
	assert_int_equal(peer->bodies, 0);
}

static void test_sender_refused(void **state)
{
	(void)state;
	refused_at_mail();
	assert_int_equal(peer->count[PEER_RCPT], 0);
}

static void test_sender_refused_with_pipelining(void **state)
{
	(void)state;
	peer->reply[PEER_EHLO] = PEER_PIPELINING;
	refused_at_mail();
	assert_int_equal(peer->count[PEER_RCPT], 4);
}

/* The refusal is the reason, whatever becomes of the connection before the other replies. */
static void test_sender_refused_then_connection_lost(void **state)
{
	static const char *const ends[] = {PEER_CLOSE, PEER_RESET, "421 4.3.2 closing!",
					   "hello, who is there?"};

	(void)state;
	peer->reply[PEER_EHLO] = PEER_PIPELINING;
	peer->reply[PEER_MAIL] = "550 5.7.1 not you";
	for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
		uint32_t number;

		peer->reply[PEER_RCPT] = ends[i];
		number = send_one("a,b");
		assert_verdict(number, 0, 2, 0);
		assert_said(number, SMTP_STAGE_DURING_MAIL, 550, "550 5.7.1 not you");
	}
}

static void test_data_refused(void **state)
{
	uint32_t number;

	(void)state;
	peer->reply[PEER_DATA] = "452 4.3.1 disk full";
	number = send_one("a,bad1");
	assert_verdict(number, 0, 1, 1);
	assert_said(number, SMTP_STAGE_DURING_DATA, 452, "452 4.3.1 disk full");
	assert_int_equal(peer->count[PEER_RSET], 1);
	peer->reply[PEER_DATA] = "554 5.7.1 no";
	number = send_one("a");
	assert_verdict(number, 0, 1, 0);
	assert_int_equal(peer->accepted, 1);
}

static void test_data_answered_with_nonsense(void **state)
{
	uint32_t number;

	(void)state;
	peer->reply[PEER_DATA] = "250 2.0.0 fine?";
	number = send_one("a");
	assert_verdict(number, 0, 0, 1);
	assert_said(number, SMTP_STAGE_DURING_DATA, 451,
		    "451 4.5.0 [internal] DATA was answered with 250");
	assert_int_equal(peer->open, 0);
}

static void test_body_refused(void **state)
{
	uint32_t number;

	(void)state;
	peer->reply[PEER_BODY] = "554 5.6.0 spam";
	number = send_one("a,b,later1");
	assert_verdict(number, 0, 2, 1);
	assert_said(number, SMTP_STAGE_CONFIRMATION, 554, "554 5.6.0 spam");
	peer->reply[PEER_BODY] = "451 4.3.0 try again";
	number = send_one("a");
	assert_verdict(number, 0, 0, 1);
	/* No RSET is needed after a body. */
	assert_int_equal(peer->count[PEER_RSET], 0);
	assert_int_equal(peer->accepted, 1);
	peer->reply[PEER_BODY] = "354 go on";
	number = send_one("a");
	assert_verdict(number, 0, 0, 1);
	assert_said(number, SMTP_STAGE_CONFIRMATION, 451,
		    "451 4.5.0 [internal] the body was answered with 354");
}

static void test_rset_refused(void **state)
{
	(void)state;
	peer->reply[PEER_RSET] = "500 5.5.1 what?";
	assert_verdict(send_one("bad1"), 0, 1, 0);
	outbound_settle(w);
	assert_int_equal(peer->open, 0);
	assert_verdict(send_one("a"), 1, 0, 0);
	assert_int_equal(peer->accepted, 2);
}

/* ---- what this peer can never take ---- */

static void test_size_is_refused_here(void **state)
{
	uint32_t number;

	(void)state;
	peer->reply[PEER_EHLO] = "250-mx.test\r\n250 SIZE 1000";
	w->body_bytes = 2000;
	number = send_one("a,b");
	assert_verdict(number, 0, 2, 0);
	assert_int_equal(attempt_of(number)->code, 552);
	assert_string_equal(attempt_of(number)->enhanced, "5.3.4");
	w->body_bytes = 500;
	assert_verdict(send_one("a"), 1, 0, 0);
	assert_int_equal(peer->accepted, 1);
	assert_int_equal(peer->count[PEER_MAIL], 1);
}

/* A limit of 0 is none (RFC 1870). */
static void test_size_zero_is_no_limit(void **state)
{
	(void)state;
	peer->reply[PEER_EHLO] = "250-mx.test\r\n250 SIZE 0";
	assert_verdict(send_one("a"), 1, 0, 0);
}

static void test_smtputf8_is_refused_here(void **state)
{
	uint32_t number;

	(void)state;
	w->envelope_flags = ENVELOPE_SMTPUTF8;
	number = send_one("\xc3\xa4");
	assert_verdict(number, 0, 1, 0);
	assert_int_equal(attempt_of(number)->code, 550);
	assert_string_equal(attempt_of(number)->enhanced, "5.6.7");
	assert_int_equal(peer->count[PEER_MAIL], 0);
}

/* What is ASCII may go: those of a message that can, and a message that did not need it after all.
 */
static void test_smtputf8_is_refused_to_those_who_need_it(void **state)
{
	uint32_t number;

	(void)state;
	w->envelope_flags = ENVELOPE_SMTPUTF8;
	outbound_queue(w, DOMAIN, "a,\xc3\xa4,b,\xc3\xb6");
	outbound_until(w, 2);
	assert_int_equal(recipient_set_count(&w->outcomes[0].attempt.failed), 2);
	assert_int_equal(recipient_set_count(&w->outcomes[0].attempt.deferred), 0);
	assert_string_equal(w->outcomes[0].attempt.enhanced, "5.6.7");
	assert_int_equal(recipient_set_count(&w->outcomes[1].attempt.delivered), 2);
	assert_int_equal(peer->count[PEER_MAIL], 1);
	number = send_one("a,b");
	assert_verdict(number, 2, 0, 0);
}

static void test_requiretls_is_refused_here(void **state)
{
	uint32_t number;

	(void)state;
	w->envelope_flags = ENVELOPE_REQUIRETLS;
	number = send_one("a");
	assert_verdict(number, 0, 1, 0);
	assert_string_equal(attempt_of(number)->enhanced, "5.7.30");
	assert_int_equal(peer->count[PEER_MAIL], 0);
}

static void test_refused_here_after_loading(void **state)
{
	uint32_t number;

	(void)state;
	peer->reply[PEER_EHLO] = "250-mx.test\r\n250 SIZE 1000";
	w->body_bytes = 2000;
	w->not_resident = true;
	number = outbound_queue(w, DOMAIN, "a");
	outbound_queue(w, DOMAIN, "b");
	outbound_until(w, 2);
	assert_verdict(number, 0, 1, 0);
	assert_int_equal(peer->count[PEER_MAIL], 0);
}

/* ---- servers that talk out of turn ---- */

/* Without waiting for the body's end it says what it thinks of it. */
static void test_early_refusal_during_body(void **state)
{
	uint32_t number;

	(void)state;
	w->body_bytes = 3000000;
	peer->reply[PEER_DATA] = "354 go ahead\r\n552 5.3.4 too much";
	number = send_one("a");
	assert_verdict(number, 0, 1, 0);
	assert_said(number, SMTP_STAGE_BODY, 552, "552 5.3.4 too much");
	assert_int_equal(peer->bodies, 0);
}

static void test_early_acceptance_during_body(void **state)
{
	uint32_t number;

	(void)state;
	w->body_bytes = 3000000;
	peer->reply[PEER_DATA] = "354 go ahead\r\n250 2.0.0 kept already";
	number = send_one("a");
	assert_verdict(number, 0, 0, 1);
	assert_said(number, SMTP_STAGE_BODY, 451,
		    "451 4.5.0 [internal] reply before the end of the body");
}

/* Everything is answered before it is asked: nothing is sent for that, and nothing breaks. */
static void test_replies_before_commands(void **state)
{
	uint32_t number;

	(void)state;
	peer->reply[PEER_EHLO] = "250 mx.test\r\n250 fine\r\n250 fine\r\n354 go\r\n250 kept";
	number = send_one("a");
	assert_verdict(number, 0, 0, 1);
	assert_string_equal(attempt_of(number)->text,
			    "451 4.5.0 [internal] a reply that nobody asked for");
	assert_int_equal(peer->bodies, 0);
}

static void test_replies_before_commands_with_pipelining(void **state)
{
	(void)state;
	w->body_bytes = 3000000;
	peer->reply[PEER_EHLO] = "250-mx.test\r\n250 PIPELINING\r\n250 fine\r\n250 fine\r\n354 go";
	outbound_queue(w, DOMAIN, "a");
	outbound_settle(w);
	/* What it is worth is its own affair; it is no reason to fall. */
	peer->stalled = true;
	outbound_pass(w, options->body_timeout_ms);
	assert_true(w->outcome_count >= 1);
}

static void test_garbage_at_each_stage(void **state)
{
	static const enum peer_verb verbs[] = {PEER_BANNER, PEER_EHLO, PEER_MAIL,
					       PEER_RCPT,   PEER_DATA, PEER_BODY};
	static const enum smtp_stage stages[] = {SMTP_STAGE_BANNER,      SMTP_STAGE_DURING_EHLO,
						 SMTP_STAGE_DURING_MAIL, SMTP_STAGE_DURING_RCPT,
						 SMTP_STAGE_DURING_DATA, SMTP_STAGE_CONFIRMATION};

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		const char *good = peer->reply[verbs[i]];
		uint32_t number;

		peer->reply[verbs[i]] = "HTTP/1.1 400 Bad Request";
		number = send_one("a");
		assert_verdict(number, 0, 0, 1);
		assert_int_equal(attempt_of(number)->stage, stages[i]);
		assert_int_equal(attempt_of(number)->code, 451);
		assert_int_equal(peer->open, 0);
		peer->reply[verbs[i]] = good;
		outbound_pass(w, options->host_failure_retry_ms);
	}
}

static void test_reply_without_end(void **state)
{
	static char endless[7000];
	uint32_t number;

	(void)state;
	for (unsigned i = 0; i + 10 < sizeof endless; i += 10) {
		memcpy(endless + i, "250-more\r\n", 10);
	}
	peer->reply[PEER_MAIL] = endless;
	number = send_one("a");
	assert_verdict(number, 0, 0, 1);
	assert_memory_equal(attempt_of(number)->text,
			    "451 4.5.0 [internal] the peer's reply is too long", 49);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
#define TEST_EPOLL(function)                                                                       \
	{                                                                                          \
#function "_on_epoll", function, set_up_epoll, tear_down, NULL                     \
	}
#define TEST_AUTO(function)                                                                        \
	{                                                                                          \
#function "_on_auto", function, set_up_auto, tear_down, NULL                       \
	}
#define TEST_ALL(function) TEST(function), TEST_EPOLL(function), TEST_AUTO(function)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST_ALL(test_delivers_without_pipelining),
		TEST_ALL(test_delivers_with_pipelining),
		TEST(test_falls_back_to_helo),
		TEST(test_says_what_the_message_needs),
		TEST_ALL(test_large_body_arrives_whole),
		TEST(test_body_is_read_back_first),
		TEST(test_reply_in_pieces_and_multiline),
		TEST(test_some_recipients_refused),
		TEST(test_some_recipients_refused_with_pipelining),
		TEST(test_all_recipients_refused),
		TEST(test_all_recipients_refused_with_pipelining),
		TEST(test_354_for_nobody),
		TEST(test_sender_refused),
		TEST(test_sender_refused_with_pipelining),
		TEST(test_sender_refused_then_connection_lost),
		TEST(test_data_refused),
		TEST(test_data_answered_with_nonsense),
		TEST(test_body_refused),
		TEST(test_rset_refused),
		TEST(test_size_is_refused_here),
		TEST(test_size_zero_is_no_limit),
		TEST(test_smtputf8_is_refused_here),
		TEST(test_smtputf8_is_refused_to_those_who_need_it),
		TEST(test_requiretls_is_refused_here),
		TEST(test_refused_here_after_loading),
		TEST_ALL(test_early_refusal_during_body),
		TEST(test_early_acceptance_during_body),
		TEST_ALL(test_replies_before_commands),
		TEST_ALL(test_replies_before_commands_with_pipelining),
		TEST(test_garbage_at_each_stage),
		TEST(test_reply_without_end),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
