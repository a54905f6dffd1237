/* How sessions end, and input cut at every place: clients that go, stopping, pipelines. */
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

static void test_half_close_still_gets_its_reply(void **state)
{
	int fd = client_in_data();

	(void)state;
	rig.store_holds = true;
	client_send(fd, "x\r\n.\r\nNOOP\r\n", 12);
	shutdown(fd, SHUT_WR);
	settle();
	rig.store_holds = false;
	settle();
	expect_heard(fd, "250 2.0.0 OK: queued as ", 2);
	expect_closed(fd);
}

static void test_client_that_goes_while_message_is_at_spool(void **state)
{
	int fd = client_in_data();

	(void)state;
	rig.store_holds = true;
	client_send(fd, "x\r\n.\r\n", 6);
	settle();
	close(fd);
	settle();
	assert_int_equal(listener()->session_count, 1);
	rig.store_holds = false;
	settle();
	assert_int_equal(listener()->session_count, 0);
	assert_non_null(strstr(rig.main_log, "@R@b@example.net@"));
}

/* Its replies are stuck, so that its going away is noticed while the message is stored. */
static void test_client_that_is_lost_while_message_is_at_spool(void **state)
{
	int fd = client_hello();
	struct smtp_session *ss = smtp_session_of_all(listener()->sessions.next);

	(void)state;
	clog_replies(fd, ss);
	client_send(fd, MAIL RCPT "DATA\r\n", strlen(MAIL RCPT "DATA\r\n"));
	settle();
	rig.store_holds = true;
	client_send(fd, "x\r\n.\r\n", 6);
	settle();
	assert_int_equal(rig.messages, 1);
	close(fd);
	settle();
	assert_int_equal(ss->state, SMTP_SESSION_DEAD);
	assert_string_equal(rig.main_log, "");
	rig.store_holds = false;
	settle();
	assert_int_equal(listener()->session_count, 0);
	assert_non_null(strstr(rig.main_log, "@R@b@example.net@"));
	assert_int_equal(count_of(SMTP_COUNT_LOST_STORING), 1);
}

static void test_stop_dismisses_the_idle_and_waits_for_the_others(void **state)
{
	int idle = client_hello();
	int in_data = client_in_data();
	int at_spool = client_in_data();

	(void)state;
	rig.store_holds = true;
	say(at_spool, "x\r\n.\r\n" MAIL);
	stop_listener(false);
	settle();
	expect_heard(idle, "421 4.3.2", 1);
	close(idle);
	settle();
	assert_int_equal(listener()->session_count, 2);
	rig.store_holds = false;
	settle();
	expect_heard(at_spool, "250 2.0.0", 2);
	assert_non_null(strstr(rig.got, "\n421 4.3.2"));
	close(at_spool);
	say(in_data, "y\r\n.\r\n");
	expect_lines("250 2.0.0", 2);
	close(in_data);
	settle();
	assert_true(drained());
}

static void test_stop_in_a_hurry_waits_for_the_spool_only(void **state)
{
	int in_data = client_in_data();
	int at_spool = client_in_data();
	int new;

	(void)state;
	rig.store_holds = true;
	say(at_spool, "x\r\n.\r\n");
	stop_listener(false);
	stop_listener(true);
	settle();
	expect_heard(in_data, "421 4.3.2", 1);
	close(in_data);
	new = client_open("192.0.2.1");
	settle();
	client_read(new);
	expect_lines("421 4.3.2", 1);
	close(new);
	settle();
	assert_int_equal(listener()->session_count, 1);
	rig.store_holds = false;
	settle();
	close(at_spool);
	settle();
}

static void test_idle_session_holds_no_buffers(void **state)
{
	int fd = client_hello();

	(void)state;
	assert_int_equal(rig.scheduler.pools.buffers.live, 0);
	say(fd, "NO");
	assert_int_equal(rig.scheduler.pools.buffers.live, 1);
	expect(fd, "OP\r\n", "250 ");
	assert_int_equal(rig.scheduler.pools.buffers.live, 0);
	quit(fd);
}

/* ---- a whole dialogue, cut at every place ---- */

static const char long_line[] =
	"NOOP xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/* The client waits for the replies before each next group. */
static struct {
	char bytes[2048];
	size_t len;
} groups[5];

static void make_groups(void)
{
	static const char one[] = "EHLO client.example\r\n";
	static const char two[] = "MAIL FROM:<a@example.com> SIZE=100 BODY=8BITMIME\r\n" RCPT
				  "RCPT TO:<c@elsewhere.example>\r\nRCPT TO:<c@example.net>\r\n"
				  "DATA\r\n";
	static const char three[] = "Subject: x\r\nReceived: y\r\n\r\n..dots\r\n.hidden\r\n..\r\n"
				    "\xe9\r\n.\r\nMAIL FROM:<>\r\n" RCPT "NOOP\r\nDATA\r\n";
	static const char four[] = "a\0b\r\n.\n.\r.\r\n.\r\nRSET\r\nVRFY x\r\nBAD\r\nNOOP\n\n\r\n"
				   "NOOP\r\r\nMAIL FROM:<a@example.com>\r\n" RCPT "DATA\r\n";
	static const char five[] = ".\r\nRSET\r\nQUIT\r\n";

	memcpy(groups[0].bytes, one, groups[0].len = sizeof(one) - 1);
	memcpy(groups[1].bytes, two, groups[1].len = sizeof(two) - 1);
	memcpy(groups[2].bytes, three, groups[2].len = sizeof(three) - 1);
	memcpy(groups[3].bytes, four, groups[3].len = sizeof(four) - 1);
	groups[4].len = 0;
	memcpy(groups[4].bytes, five, sizeof(five) - 7);
	groups[4].len = sizeof(five) - 7;
	for (unsigned i = 0; i < 12; i++) {
		memcpy(groups[4].bytes + groups[4].len, long_line, sizeof(long_line) - 1);
		groups[4].len += sizeof(long_line) - 1;
	}
	memcpy(groups[4].bytes + groups[4].len, "\r\nQUIT\r\n", 8);
	groups[4].len += 8;
}

/* Group `g`, cut before byte `cut` of it (0: not), or sent byte by byte. */
static void send_group(int fd, unsigned g, size_t cut, bool bytewise)
{
	size_t len = groups[g].len;

	if (bytewise) {
		for (size_t i = 0; i < len; i++) {
			client_send(fd, groups[g].bytes + i, 1);
			settle();
		}
		return;
	}
	if (cut > 0 && cut < len) {
		client_send(fd, groups[g].bytes, cut);
		settle();
	} else {
		cut = 0;
	}
	client_send(fd, groups[g].bytes + cut, len - cut);
	settle();
}

/* Runs the dialogue, cut once; all replies are in rig.got, all bodies in rig.bodies. */
static void run_dialogue(unsigned cut_group, size_t cut, bool bytewise)
{
	int fd = client_open("192.0.2.1");

	rig.id_count = 0;
	rig.bodies_len = 0;
	settle();
	for (unsigned g = 0; g < 5; g++) {
		send_group(fd, g, g == cut_group ? cut : 0, bytewise);
		client_read(fd);
	}
	expect_closed(fd);
}

static void test_replies_are_the_same_wherever_input_is_cut(void **state)
{
	char *replies;
	char *bodies;

	(void)state;
	make_groups();
	run_dialogue(0, 0, false);
	replies = strdup(rig.got);
	bodies = strdup(rig.bodies);
	assert_int_equal(rig.messages, 2);
	assert_non_null(strstr(bodies, "\r\n..dots\r\n.hidden\r\n..\r\n\xe9\r\n"));
	assert_non_null(strstr(replies, "\r\n550 5.6.0"));
	assert_non_null(strstr(replies, "\r\n221 2.0.0 Bye\r\n"));
	for (unsigned g = 0; g < 5; g++) {
		for (size_t cut = 1; cut < groups[g].len; cut++) {
			run_dialogue(g, cut, false);
			assert_string_equal(rig.got, replies);
			assert_string_equal(rig.bodies, bodies);
		}
	}
	run_dialogue(0, 0, true);
	assert_string_equal(rig.got, replies);
	assert_string_equal(rig.bodies, bodies);
	free(replies);
	free(bodies);
}

/* Tear-down sees what is left over. */
static void test_client_that_goes_at_every_place(void **state)
{
	(void)state;
	make_groups();
	for (unsigned last = 0; last < 5; last++) {
		for (size_t cut = 1; cut <= groups[last].len; cut++) {
			int fd = client_open("192.0.2.1");

			settle();
			for (unsigned g = 0; g < last; g++) {
				send_group(fd, g, 0, false);
			}
			client_send(fd, groups[last].bytes, cut);
			if (cut % 2 == 0) {
				settle();
			}
			close(fd);
			settle();
			pass_ms(SMTP_CLOSE_GRACE_MS + SMTP_LINGER_MS);
			assert_int_equal(listener()->session_count, 0);
			assert_int_equal(rig.scheduler.pools.buffers.live, 0);
		}
	}
}

static void test_client_that_goes_at_once(void **state)
{
	int fd = client_open("192.0.2.1");

	(void)state;
	close(fd);
	settle();
	assert_int_equal(listener()->session_count, 0);
	fd = client_open("192.0.2.1");
	shutdown(fd, SHUT_WR);
	settle();
	expect_closed(fd);
}

static void test_messages_in_one_pipeline(void **state)
{
	int fd = client_in_data();

	(void)state;
	for (unsigned i = 0; i < 50; i++) {
		say(fd, "x\r\n.\r\n" MAIL RCPT "DATA\r\n");
		expect_lines("250 2.0.0", 4);
		assert_non_null(strstr(rig.got, "\n354 "));
	}
	assert_int_equal(rig.messages, 50);
	expect(fd, ".\r\n", "250 2.0.0");
	quit(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_half_close_still_gets_its_reply),
		TEST(test_client_that_goes_while_message_is_at_spool),
		TEST(test_client_that_is_lost_while_message_is_at_spool),
		TEST(test_stop_dismisses_the_idle_and_waits_for_the_others),
		TEST(test_stop_in_a_hurry_waits_for_the_spool_only),
		TEST(test_idle_session_holds_no_buffers),
		TEST(test_replies_are_the_same_wherever_input_is_cut),
		TEST_WITH(test_replies_are_the_same_wherever_input_is_cut, set_up_epoll),
		TEST_WITH(test_replies_are_the_same_wherever_input_is_cut, set_up_auto),
		TEST(test_client_that_goes_at_every_place),
		TEST_WITH(test_client_that_goes_at_every_place, set_up_auto),
		TEST(test_client_that_goes_at_once),
		TEST_WITH(test_client_that_goes_at_once, set_up_auto),
		TEST(test_messages_in_one_pipeline),
		TEST_WITH(test_messages_in_one_pipeline, set_up_auto),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
