/*
 * The life of a connection: a server that closes, resets or falls silent at each stage, reuse, and
 * what is lost while a body is read back.
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

/* ---- 421, close and reset at each stage ---- */

struct stage_case {
	enum peer_verb verb;
	enum smtp_stage stage;
};

static const struct stage_case stage_cases[] = {
	{PEER_BANNER, SMTP_STAGE_BANNER},    {PEER_EHLO, SMTP_STAGE_DURING_EHLO},
	{PEER_MAIL, SMTP_STAGE_DURING_MAIL}, {PEER_RCPT, SMTP_STAGE_DURING_RCPT},
	{PEER_DATA, SMTP_STAGE_DURING_DATA}, {PEER_BODY, SMTP_STAGE_CONFIRMATION},
};

/* Once deferred, out of the way. */
static void retry_never(void)
{
	options->retry_interval_ms = options->message_expiration_ms;
	options->max_retry_interval_ms = options->message_expiration_ms;
}

static void at_each_stage(const char *reply, unsigned code, const char *text)
{
	retry_never();
	for (unsigned i = 0; i < sizeof stage_cases / sizeof stage_cases[0]; i++) {
		const struct stage_case *s = &stage_cases[i];
		const char *good = peer->reply[s->verb];
		uint32_t number;

		peer->reply[s->verb] = reply;
		number = send_one("a,b");
		assert_verdict(number, 0, 0, 2);
		/* A reset may be noticed before the connection was. */
		assert_true(attempt_of(number)->stage == s->stage ||
			    (i == 0 && attempt_of(number)->stage == SMTP_STAGE_NOT_CONNECTED));
		assert_int_equal(attempt_of(number)->code, code);
		if (text != NULL) {
			assert_string_equal(attempt_of(number)->text, text);
		}
		assert_int_equal(w->dispatcher.connection_count, 0);
		peer->reply[s->verb] = good;
		outbound_pass(w, options->host_failure_retry_ms);
	}
	/* Both stages of setting up count as failures of the host. */
	assert_int_equal(counter_get(w->dispatcher.connect_failures), 2);
}

static void test_421_at_each_stage(void **state)
{
	(void)state;
	at_each_stage("421 4.3.2 shutting down!", 421, "421 4.3.2 shutting down");
}

static void test_421_at_each_stage_with_pipelining(void **state)
{
	(void)state;
	peer->reply[PEER_EHLO] = PEER_PIPELINING;
	at_each_stage("421 4.3.2 shutting down!", 421, "421 4.3.2 shutting down");
}

static void test_close_at_each_stage(void **state)
{
	(void)state;
	at_each_stage(PEER_CLOSE, 451, "451 4.4.2 [internal] connection closed by remote host");
}

static void test_reset_at_each_stage(void **state)
{
	(void)state;
	at_each_stage(PEER_RESET, 451, NULL);
}

static void test_421_keeps_what_was_said_before(void **state)
{
	uint32_t number;

	(void)state;
	peer->reply[PEER_DATA] = "421 4.3.2 bye!";
	number = send_one("bad1,a,later1");
	assert_verdict(number, 0, 1, 2);
	assert_int_equal(outbound_outcome(w, number)->own_replies, 2);
}

static const char *stall_at_data(struct peer *p, struct peer_connection *c, enum peer_verb verb)
{
	(void)c;
	p->stalled = verb == PEER_DATA;
	return NULL;
}

/* A peer that claims to have what it cannot have: the body never left. */
static void test_accepted_after_failed_send_is_deferred(void **state)
{
	static const char claim[] = "250 2.0.0 kept\r\n";
	const struct connection *c;
	uint32_t number;

	(void)state;
	retry_never();
	peer->answer = stall_at_data;
	number = outbound_queue(w, DOMAIN, "a");
	while (!peer->stalled) {
		outbound_step(w);
	}
	c = outbound_record(w, DOMAIN)->connections;
	assert_int_equal(shutdown(c->stream.fd, SHUT_WR), 0);
	outbound_settle(w);
	assert_int_equal(c->state, CONNECTION_BODY);
	assert_int_equal(send(peer->connections[0].fd, claim, sizeof claim - 1, 0),
			 sizeof claim - 1);
	outbound_until(w, 1);
	assert_verdict(number, 0, 0, 1);
}

static void test_421_when_idle(void **state)
{
	(void)state;
	peer->reply[PEER_BODY] = "250 2.0.0 kept\r\n421 4.4.2 and goodbye!";
	assert_verdict(send_one("a"), 1, 0, 0);
	assert_int_equal(w->dispatcher.connection_count, 0);
	peer->reply[PEER_BODY] = "250 2.0.0 kept";
	assert_verdict(send_one("b"), 1, 0, 0);
	assert_int_equal(peer->accepted, 2);
}

static void test_refused_banner_and_ehlo(void **state)
{
	uint32_t number;

	(void)state;
	peer->reply[PEER_BANNER] = "451 4.7.1 too busy";
	number = send_one("a");
	assert_verdict(number, 0, 0, 1);
	assert_said(number, SMTP_STAGE_BANNER, 451, "451 4.7.1 too busy");
	outbound_pass(w, options->host_failure_retry_ms);
	peer->reply[PEER_BANNER] = "220 mx.test";
	peer->reply[PEER_EHLO] = "550 5.7.1 no";
	peer->reply[PEER_HELO] = "450 4.7.1 no";
	number = send_one("a");
	assert_verdict(number, 0, 0, 1);
	assert_said(number, SMTP_STAGE_DURING_EHLO, 450, "450 4.7.1 no");
}

/* ---- reuse ---- */

static void test_connection_is_reused(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		assert_verdict(send_one("a"), 1, 0, 0);
	}
	assert_int_equal(peer->accepted, 1);
	assert_int_equal(counter_get(w->dispatcher.reused), 4);
	outbound_pass(w, options->idle_timeout_ms);
	assert_int_equal(peer->count[PEER_QUIT], 1);
	assert_int_equal(w->dispatcher.connection_count, 0);
}

static const char *close_second_mail(struct peer *p, struct peer_connection *c, enum peer_verb verb)
{
	(void)p;
	return verb == PEER_MAIL && c->mails == 2 ? PEER_CLOSE : NULL;
}

/* A server closes what was idle just when it is used again: that is nobody's fault. */
static void test_close_of_a_reused_connection_is_no_attempt(void **state)
{
	uint32_t first;
	uint32_t second;

	(void)state;
	options->max_outbound_connections = 1;
	peer->answer = close_second_mail;
	first = outbound_queue(w, DOMAIN, "a");
	second = outbound_queue(w, DOMAIN, "b");
	outbound_until(w, 2);
	assert_verdict(first, 1, 0, 0);
	assert_verdict(second, 1, 0, 0);
	assert_int_equal(peer->accepted, 2);
	assert_int_equal(peer->count[PEER_MAIL], 3);
}

/* On a new connection it is. */
static void test_close_of_a_new_connection_is_an_attempt(void **state)
{
	(void)state;
	peer->reply[PEER_MAIL] = PEER_CLOSE;
	assert_verdict(send_one("a"), 0, 0, 1);
	assert_int_equal(peer->accepted, 1);
}

static void test_max_deliveries_per_connection(void **state)
{
	(void)state;
	options->max_outbound_connections = 1;
	options->max_deliveries_per_connection = 3;
	queue_many(DOMAIN, 7);
	outbound_until(w, 7);
	assert_int_equal(peer->accepted, 3);
	assert_int_equal(peer->count[PEER_QUIT], 2);
	assert_int_equal(peer->bodies, 7);
}

/* A server that does not answer QUIT keeps nobody waiting. */
static void test_max_deliveries_when_quit_is_not_answered(void **state)
{
	(void)state;
	options->max_deliveries_per_connection = 1;
	options->max_outbound_connections = 10;
	peer->reply[PEER_QUIT] = PEER_SILENT;
	queue_many(DOMAIN, 5);
	outbound_until(w, 5);
	assert_int_equal(peer->bodies, 5);
	outbound_pass(w, options->rset_timeout_ms);
	assert_int_equal(w->dispatcher.connection_count, 0);
}

static void test_max_recipients_per_batch(void **state)
{
	uint32_t number;

	(void)state;
	options->max_recipients_per_batch = 2;
	options->max_outbound_connections = 1;
	number = outbound_queue(w, DOMAIN, "a,b,c,d,e");
	outbound_until(w, 3);
	assert_int_equal(recipient_set_count(&w->outcomes[0].attempt.delivered), 2);
	assert_int_equal(recipient_set_count(&w->outcomes[1].attempt.delivered), 2);
	assert_verdict(number, 1, 0, 0);
	assert_int_equal(peer->bodies, 3);
	assert_int_equal(peer->accepted, 1);
	assert_int_equal(w->pools.deliveries.live, 0);
}

static void test_all_of_128_recipients(void **state)
{
	char locals[128 * 6];
	size_t len = 0;

	(void)state;
	options->max_recipients_per_batch = 128;
	peer->reply[PEER_EHLO] = PEER_PIPELINING;
	for (unsigned i = 0; i < 128; i++) {
		len += (size_t)snprintf(locals + len, sizeof locals - len, "%sr%03u",
					i == 0 ? "" : ",", i);
	}
	assert_verdict(send_one(locals), 128, 0, 0);
	assert_int_equal(peer->count[PEER_RCPT], 128);
	assert_int_equal(counter_get(w->dispatcher.commands_pipelined), 129);
}

/* ---- a connection that is lost while the body is read back ---- */

static void load_on_used_connection(const char *farewell)
{
	peer->reply[PEER_BODY] = "250 2.0.0 kept";
	assert_verdict(send_one("a"), 1, 0, 0);
	w->not_resident = true;
	w->hold_loads = true;
	outbound_queue(w, DOMAIN, "b");
	outbound_settle(w);
	assert_int_equal(w->load_count, 1);
	assert_int_equal(peer->open, 1);
	for (unsigned i = 0; i < PEER_CONNECTIONS_MAX; i++) {
		struct peer_connection *c = &peer->connections[i];

		if (c->fd >= 0) {
			(void)!write(c->fd, farewell, strlen(farewell));
			close(c->fd);
			c->fd = -1;
			peer->open--;
		}
	}
	outbound_settle(w);
	assert_int_equal(w->outcome_count, 1);
	w->hold_loads = false;
	outbound_until(w, 2);
	assert_verdict(2, 1, 0, 0);
	assert_int_equal(peer->accepted, 2);
	assert_int_equal(w->load_count, 0);
}

static void test_closed_while_loading(void **state)
{
	(void)state;
	load_on_used_connection("");
}

static void test_421_while_loading(void **state)
{
	(void)state;
	load_on_used_connection("421 4.4.2 idle for too long\r\n");
}

static void test_chatter_while_loading(void **state)
{
	(void)state;
	load_on_used_connection("250 hello?\r\n");
}

static void test_garbage_while_loading(void **state)
{
	(void)state;
	load_on_used_connection("hello?\r\n");
}

static void test_421_while_loading_on_a_new_connection(void **state)
{
	uint32_t number;

	(void)state;
	w->not_resident = true;
	w->hold_loads = true;
	peer->reply[PEER_EHLO] = "250 mx.test\r\n421 4.3.2 on second thought!";
	number = outbound_queue(w, DOMAIN, "a");
	outbound_settle(w);
	assert_int_equal(w->outcome_count, 0);
	w->hold_loads = false;
	outbound_until(w, 1);
	assert_verdict(number, 0, 0, 1);
	assert_int_equal(attempt_of(number)->code, 421);
}

static void test_body_cannot_be_read_back(void **state)
{
	uint32_t number;

	(void)state;
	w->not_resident = true;
	w->load_result = -EIO;
	number = send_one("a");
	assert_verdict(number, 0, 0, 1);
	assert_string_equal(attempt_of(number)->text, "451 4.3.0 [internal] cannot read the "
						      "message back: Input/output error");
	w->load_result = 0;
	outbound_pass(w, options->retry_interval_ms);
	assert_verdict(number, 1, 0, 0);
}

/* ---- time-outs ---- */

static void silent_at(enum peer_verb verb, uint64_t timeout_ms, enum smtp_stage stage,
		      const char *what)
{
	const char *good = peer->reply[verb];
	unsigned before = w->outcome_count;
	char text[128];
	uint32_t number;

	peer->reply[verb] = PEER_SILENT;
	number = outbound_queue(w, DOMAIN, "a");
	outbound_settle(w);
	outbound_pass(w, timeout_ms - 100);
	assert_int_equal(w->outcome_count, before);
	assert_int_equal(w->dispatcher.connection_count, 1);
	outbound_pass(w, 200);
	assert_int_equal(w->outcome_count, before + 1);
	assert_verdict(number, 0, 0, 1);
	snprintf(text, sizeof text, "451 4.4.2 [internal] timed out: no %s", what);
	assert_said(number, stage, 451, text);
	assert_int_equal(w->dispatcher.connection_count, 0);
	peer->reply[verb] = good;
	outbound_pass(w, options->host_failure_retry_ms);
}

static void test_times_out_at_each_stage(void **state)
{
	(void)state;
	retry_never();
	silent_at(PEER_BANNER, options->connect_timeout_ms, SMTP_STAGE_BANNER, "banner");
	silent_at(PEER_EHLO, options->ehlo_timeout_ms, SMTP_STAGE_DURING_EHLO, "EHLO response");
	silent_at(PEER_MAIL, options->mailfrom_timeout_ms, SMTP_STAGE_DURING_MAIL,
		  "MAIL FROM response");
	silent_at(PEER_RCPT, options->rcptto_timeout_ms, SMTP_STAGE_DURING_RCPT,
		  "RCPT TO response");
	silent_at(PEER_DATA, options->body_timeout_ms, SMTP_STAGE_DURING_DATA, "DATA response");
	silent_at(PEER_BODY, options->body_timeout_ms, SMTP_STAGE_CONFIRMATION,
		  "response to the body");
}

static void test_times_out_when_the_body_is_not_read(void **state)
{
	uint32_t number;

	(void)state;
	w->body_bytes = 30000000;
	peer->reply[PEER_DATA] = "354 go ahead";
	number = outbound_queue(w, DOMAIN, "a");
	for (unsigned i = 0; peer->count[PEER_DATA] == 0; i++) {
		assert_true(i < 100000);
		outbound_step(w);
	}
	peer->stalled = true;
	outbound_settle(w);
	outbound_pass(w, options->body_timeout_ms + 100);
	assert_int_equal(w->outcome_count, 1);
	assert_verdict(number, 0, 0, 1);
	assert_said(number, SMTP_STAGE_BODY, 451,
		    "451 4.4.2 [internal] timed out: no progress in sending the body");
	assert_int_equal(w->dispatcher.connection_count, 0);
	peer->stalled = false;
}

static void test_times_out_at_rset_and_quit(void **state)
{
	(void)state;
	peer->reply[PEER_RSET] = PEER_SILENT;
	peer->reply[PEER_QUIT] = PEER_SILENT;
	assert_verdict(send_one("bad1"), 0, 1, 0);
	assert_int_equal(w->dispatcher.connection_count, 1);
	outbound_pass(w, options->rset_timeout_ms);
	assert_int_equal(w->dispatcher.connection_count, 0);
	assert_verdict(send_one("a"), 1, 0, 0);
	outbound_pass(w, options->idle_timeout_ms);
	assert_int_equal(peer->count[PEER_QUIT], 1);
	assert_int_equal(w->dispatcher.connection_count, 1);
	outbound_pass(w, options->rset_timeout_ms);
	assert_int_equal(w->dispatcher.connection_count, 0);
}

/* A server that is slow but moves is not timed out. */
static void test_slow_recipients_each_have_their_time(void **state)
{
	unsigned before;

	(void)state;
	peer->reply[PEER_RCPT] = PEER_SILENT;
	outbound_queue(w, DOMAIN, "a,b,c");
	outbound_settle(w);
	for (unsigned i = 0; i < 3; i++) {
		before = peer->count[PEER_RCPT];
		outbound_pass(w, options->rcptto_timeout_ms - 1000);
		assert_int_equal(w->outcome_count, 0);
		for (unsigned k = 0; k < PEER_CONNECTIONS_MAX; k++) {
			if (peer->connections[k].fd >= 0) {
				(void)!write(peer->connections[k].fd, "250 ok\r\n", 8);
			}
		}
		outbound_settle(w);
		assert_int_equal(peer->count[PEER_RCPT], before + (i < 2 ? 1 : 0));
	}
	outbound_until(w, 1);
	assert_verdict(1, 3, 0, 0);
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
		TEST_ALL(test_421_at_each_stage),
		TEST(test_421_at_each_stage_with_pipelining),
		TEST_ALL(test_close_at_each_stage),
		TEST_ALL(test_reset_at_each_stage),
		TEST(test_421_keeps_what_was_said_before),
		TEST(test_accepted_after_failed_send_is_deferred),
		TEST(test_421_when_idle),
		TEST(test_refused_banner_and_ehlo),
		TEST(test_connection_is_reused),
		TEST(test_close_of_a_reused_connection_is_no_attempt),
		TEST(test_close_of_a_new_connection_is_an_attempt),
		TEST(test_max_deliveries_per_connection),
		TEST(test_max_deliveries_when_quit_is_not_answered),
		TEST(test_max_recipients_per_batch),
		TEST(test_all_of_128_recipients),
		TEST_ALL(test_closed_while_loading),
		TEST(test_421_while_loading),
		TEST(test_chatter_while_loading),
		TEST(test_garbage_while_loading),
		TEST(test_421_while_loading_on_a_new_connection),
		TEST(test_body_cannot_be_read_back),
		TEST(test_times_out_at_each_stage),
		TEST_ALL(test_times_out_when_the_body_is_not_read),
		TEST(test_times_out_at_rset_and_quit),
		TEST(test_slow_recipients_each_have_their_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
