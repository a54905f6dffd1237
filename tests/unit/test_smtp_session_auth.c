/* AUTH: who may authenticate when, what a failure costs, and what a user may do. */
#include "agents/password_file.h"
#include "listeners/smtp/auth.h"
#include "tests/unit/smtp_world.h"

/* The user is "tim", the password "open". */
static int verdict;
static unsigned checks;
static const char *users_binding = "";

int password_file_check(const char *path, const char *user, const char *password,
			char binding[ENVELOPE_BINDING_MAX + 1])
{
	checks++;
	strcpy(binding, users_binding);
	assert_string_equal(path, "/etc/users");
	if (verdict != 0) {
		return verdict;
	}
	return strcmp(user, "tim") == 0 && strcmp(password, "open") == 0 ? 0 : -EACCES;
}

/* base64 of NUL tim NUL open, and with a wrong password; of the words alone. */
#define GOOD "AHRpbQBvcGVu"
#define BAD "AHRpbQBzaHV0"
#define TIM "dGlt"
#define OPEN "b3Blbg=="
#define SHUT "c2h1dA=="
#define AWAY "RCPT TO:<x@elsewhere.example>\r\n"

static int client(void)
{
	int fd;

	verdict = 0;
	checks = 0;
	rig.options.auth_file = "/etc/users";
	rig.options.allow_plain_auth = true;
	rig.options.max_auth_failures = (struct rate){100, 60};
	fd = client_greeted();
	say(fd, "EHLO client.example\r\n");
	expect_lines("250-mx.example.com\r\n", 10);
	assert_non_null(strstr(rig.got, "\r\n250-AUTH PLAIN LOGIN\r\n"));
	return fd;
}

/* A failure is answered after a while, and not before. */
static void expect_late(int fd, const char *line, const char *reply)
{
	say(fd, line);
	expect_lines("", 0);
	pass_ms(SMTP_AUTH_DELAY_MS - 1);
	client_read(fd);
	expect_lines("", 0);
	pass_ms(1);
	client_read(fd);
	expect_lines(reply, 1);
}

static void test_users_may_relay(void **state)
{
	static const char *const ways[][3] = {
		{"AUTH PLAIN " GOOD "\r\n", NULL, NULL},
		{"auth plain\r\n", GOOD "\r\n", NULL},
		{"AUTH LOGIN\r\n", TIM "\r\n", OPEN "\r\n"},
		{"AUTH login " TIM "\r\n", OPEN "\r\n", NULL},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
		int fd = client();

		expect(fd, MAIL, "250 ");
		expect(fd, AWAY, "550 5.7.1");
		expect(fd, "RSET\r\n", "250 ");
		for (unsigned j = 0; j < 3 && ways[i][j] != NULL; j++) {
			bool last = j == 2 || ways[i][j + 1] == NULL;

			expect(fd, ways[i][j], last ? "235 2.7.0" : "334 ");
		}
		assert_int_equal(checks, 1);
		expect(fd, MAIL, "250 ");
		expect(fd, AWAY, "250 ");
		expect(fd, "BDAT 3 LAST\r\na\r\n", "250 2.0.0 OK");
		assert_non_null(strstr(rig.bodies, "with ESMTPA\r\n"));
		assert_non_null(strstr(rig.acct_log, "@N@esmtp@192.0.2.1@tim@1\n"));
		quit(fd);
	}
	assert_int_equal(count_of(SMTP_COUNT_AUTH_GRANTED), 4);
	assert_null(strstr(rig.reject_log, "uthentication"));
}

static void test_failures_are_answered_late(void **state)
{
	int fd = client();

	(void)state;
	expect_late(fd, "AUTH PLAIN " BAD "\r\n", "535 5.7.8");
	assert_non_null(strstr(rig.reject_log, "@J@192.0.2.1@11@535@@@@@5.7.8 Authentication "
					       "credentials invalid: user tim\n"));
	assert_null(strstr(rig.reject_log, "shut"));
	assert_non_null(strstr(rig.acct_log, "@N@esmtp@192.0.2.1@tim@0\n"));
	expect(fd, MAIL, "250 ");
	expect(fd, AWAY, "550 5.7.1");
	expect(fd, "RSET\r\n", "250 ");
	expect(fd, "AUTH LOGIN\r\n", "334 VXNlcm5hbWU6\r\n");
	expect(fd, TIM "\r\n", "334 UGFzc3dvcmQ6\r\n");
	expect_late(fd, SHUT "\r\n", "535 5.7.8");
	/* To act as somebody else: Ursel NUL tim NUL open. What was sent behind it waits. */
	expect_late(fd, "AUTH PLAIN VXJzZWwAdGltAG9wZW4=\r\nAUTH PLAIN " GOOD "\r\n", "421 4.7.0");
	assert_int_equal(checks, 2);
	assert_int_equal(count_of(SMTP_COUNT_AUTH_FAILED), 3);
	expect_closed(fd);
}

static void test_auth_when_not_offered(void **state)
{
	int fd = client();

	(void)state;
	quit(fd);
	rig.options.allow_plain_auth = false;
	fd = client_hello();
	expect(fd, "AUTH PLAIN " GOOD "\r\n", "538 5.7.11");
	quit(fd);
	rig.options.auth_file = NULL;
	rig.options.allow_plain_auth = true;
	fd = client_hello();
	expect(fd, "AUTH PLAIN " GOOD "\r\n", "502 5.5.1");
	quit(fd);
	assert_int_equal(checks, 0);
}

static void test_auth_when_out_of_order(void **state)
{
	int fd = client();

	(void)state;
	expect(fd, MAIL, "250 ");
	expect(fd, "AUTH PLAIN " GOOD "\r\n", "503 5.5.1");
	expect(fd, "RSET\r\n", "250 ");
	expect(fd, "HELO c\r\n", "250 ");
	expect(fd, "AUTH PLAIN " GOOD "\r\n", "503 5.5.1");
	say(fd, "EHLO c\r\n");
	expect(fd, "AUTH PLAIN " GOOD "\r\n", "235 2.7.0");
	expect(fd, "AUTH PLAIN " GOOD "\r\n", "503 5.5.1");
	/* Another EHLO changes nothing of it. */
	say(fd, "EHLO c\r\n");
	expect(fd, MAIL, "250 ");
	expect(fd, AWAY, "250 ");
	quit(fd);
	fd = client_greeted();
	expect(fd, "AUTH PLAIN " GOOD "\r\n", "503 5.5.1");
	quit(fd);
}

static void test_exchanges_that_come_to_nothing(void **state)
{
	int fd = client();
	char line[2500];

	(void)state;
	expect(fd, "AUTH CRAM-MD5\r\n", "504 5.5.4");
	expect(fd, "AUTH PLAINER\r\n", "504 5.5.4");
	expect(fd, "AUTH PLAIN x\r\n", "501 5.5.2");
	expect(fd, "AUTH PLAIN =\r\n", "501 5.5.2");
	expect(fd, "AUTH PLAIN " GOOD " " GOOD "\r\n", "501 5.5.2");
	expect(fd, "AUTH PLAIN\r\n", "334 \r\n");
	expect(fd, "*\r\n", "501 5.0.0");
	expect(fd, "AUTH PLAIN\r\n", "334 \r\n");
	/* No command, but a response that is none. */
	expect(fd, "RSET\r\n", "501 5.5.2");
	expect(fd, "RSET\r\n", "250 ");
	expect(fd, "AUTH LOGIN\r\n", "334 ");
	expect(fd, "\r\n", "501 5.5.2");
	expect(fd, "AUTH LOGIN\r\n", "334 ");
	expect(fd, TIM "\r\n", "334 ");
	expect(fd, "*\r\n", "501 5.0.0");
	expect(fd, "AUTH LOGIN\r\n", "334 ");
	expect(fd, TIM "\n", "500 5.5.2");
	expect(fd, "NOOP\r\n", "250 ");
	memset(line, 'A', sizeof(line));
	memcpy(line + 2400, "\r\n", 3);
	expect(fd, "AUTH LOGIN\r\n", "334 ");
	expect(fd, line, "500 5.5.2");
	expect(fd, "NOOP\r\n", "250 ");
	/* One that is closed in the middle. */
	expect(fd, "AUTH LOGIN\r\n", "334 ");
	close(fd);
	settle();
	assert_int_equal(listener()->session_count, 0);
	assert_int_equal(checks, 0);
}

static void test_many_failures_of_one_address(void **state)
{
	int fd = client();

	(void)state;
	rig.options.max_auth_failures = (struct rate){2, 60};
	expect_late(fd, "AUTH PLAIN " BAD "\r\n", "535 5.7.8");
	expect_late(fd, "AUTH PLAIN " BAD "\r\n", "535 5.7.8");
	quit(fd);
	/* On another connection, too; nobody looks at the password. */
	fd = client_greeted();
	say(fd, "EHLO c\r\n");
	expect(fd, "AUTH PLAIN " GOOD "\r\n", "421 4.7.0");
	expect_closed(fd);
	assert_int_equal(checks, 2);
	assert_int_equal(count_of(SMTP_COUNT_AUTH_LIMITED), 1);
	pass_ms(60000);
	fd = client_greeted();
	say(fd, "EHLO c\r\n");
	for (unsigned i = 0; i < 3; i++) {
		expect(fd, "AUTH PLAIN " GOOD "\r\n", i == 0 ? "235 2.7.0" : "503 5.5.1");
	}
	quit(fd);
}

static void test_when_nobody_can_tell(void **state)
{
	int fd = client();

	(void)state;
	rig.options.max_auth_failures = (struct rate){1, 60};
	verdict = -ENOENT;
	expect(fd, "AUTH PLAIN " GOOD "\r\n", "454 4.7.0");
	verdict = 0;
	rig.job_result = -EAGAIN;
	expect(fd, "AUTH PLAIN " GOOD "\r\n", "454 4.7.0");
	rig.job_result = 0;
	assert_int_equal(count_of(SMTP_COUNT_AUTH_TROUBLE), 2);
	/* It was no failure of the client's. */
	expect(fd, "AUTH PLAIN " GOOD "\r\n", "235 2.7.0");
	quit(fd);
}

static void test_mail_only_from_users(void **state)
{
	int fd = client();

	(void)state;
	rig.options.require_authentication = true;
	expect(fd, MAIL, "530 5.7.0");
	assert_non_null(strstr(rig.reject_log, "@2@530@a@example.com@"));
	expect(fd, "AUTH PLAIN " GOOD "\r\n", "235 2.7.0");
	expect(fd, MAIL, "250 ");
	quit(fd);
	assert_int_equal(count_of(SMTP_COUNT_AUTH_MISSING), 1);
}

/* What comes while a password is checked has to wait. */
static void test_input_waits_for_the_check(void **state)
{
	int fd = client();

	(void)state;
	rig.jobs_hold = true;
	say(fd, "AUTH PLAIN " GOOD "\r\n" MAIL AWAY);
	expect_lines("", 0);
	pass_ms(300000);
	client_read(fd);
	expect_lines("", 0);
	rig.jobs_hold = false;
	settle();
	client_read(fd);
	expect_lines("235 2.7.0 Authentication successful\r\n250 2.1.0 Sender OK\r\n250 2.1.5 ", 3);
	quit(fd);
}

static void test_clients_that_leave_during_the_check(void **state)
{
	int fd = client();

	(void)state;
	rig.jobs_hold = true;
	client_send(fd, "AUTH PLAIN " GOOD "\r\n", strlen("AUTH PLAIN " GOOD "\r\n"));
	settle();
	close(fd);
	settle();
	rig.jobs_hold = false;
	settle();
	assert_int_equal(listener()->session_count, 0);
	/* And while it is delayed. */
	fd = client();
	client_send(fd, "AUTH PLAIN " BAD "\r\n", strlen("AUTH PLAIN " GOOD "\r\n"));
	settle();
	close(fd);
	pass_ms(SMTP_AUTH_DELAY_MS);
	assert_int_equal(listener()->session_count, 0);
}

static void test_stop_during_the_check(void **state)
{
	int fd = client();

	(void)state;
	rig.jobs_hold = true;
	say(fd, "AUTH PLAIN " GOOD "\r\n");
	stop_listener(false);
	settle();
	assert_false(drained());
	rig.jobs_hold = false;
	settle();
	client_read(fd);
	expect_lines("235 2.7.0 Authentication successful\r\n421 4.3.2", 2);
	expect_closed(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_users_may_relay),
		TEST(test_failures_are_answered_late),
		TEST(test_auth_when_not_offered),
		TEST(test_auth_when_out_of_order),
		TEST(test_exchanges_that_come_to_nothing),
		TEST(test_many_failures_of_one_address),
		TEST(test_when_nobody_can_tell),
		TEST(test_mail_only_from_users),
		TEST(test_input_waits_for_the_check),
		TEST(test_clients_that_leave_during_the_check),
		TEST(test_stop_during_the_check),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
