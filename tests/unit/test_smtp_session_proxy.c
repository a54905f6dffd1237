/* Proxies: XCLIENT and PROXY tell whose a session is, if who tells it is trusted. */
#include "tests/unit/smtp_world.h"

#define AWAY "RCPT TO:<x@elsewhere.example>\r\n"

static struct cidr proxies = {.prefix = 128};
static struct cidr relays = {.prefix = 128};

/* The client of the tests is a proxy, 198.51.100.7 may relay. */
static void trust(void)
{
	inet_pton(AF_INET6, "::ffff:192.0.2.1", &proxies.address);
	inet_pton(AF_INET6, "::ffff:198.51.100.7", &relays.address);
	rig.options.xclient_hosts = &proxies;
	rig.options.xclient_host_count = 1;
	rig.options.relay_hosts = &relays;
	rig.options.relay_host_count = 1;
}

static void expect_relay(int fd, bool may)
{
	expect(fd, MAIL, "250 ");
	expect(fd, AWAY, may ? "250 2.1.5" : "550 5.7.1");
	expect(fd, "RSET\r\n", "250 ");
}

static void test_xclient_changes_who_it_is(void **state)
{
	int fd;

	(void)state;
	trust();
	fd = client_greeted();
	say(fd, "EHLO proxy.example\r\n");
	assert_non_null(strstr(rig.got, "\r\n250-XCLIENT NAME ADDR PORT PROTO HELO LOGIN "));
	expect_relay(fd, false);
	expect(fd, "XCLIENT ADDR=198.51.100.7 PORT=4711 HELO=told.example\r\n",
	       "220 mx.example.com ESMTP flywheel\r\n");
	expect(fd, MAIL, "503 5.5.1");
	say(fd, "EHLO proxy.example\r\n");
	expect_relay(fd, true);
	expect(fd, MAIL, "250 ");
	expect(fd, RCPT, "250 ");
	expect(fd, "BDAT 3 LAST\r\na\r\n", "250 ");
	assert_non_null(strstr(rig.bodies, "from told.example ([198.51.100.7])"));
	assert_non_null(strstr(rig.main_log, "@R@b@example.net@a@example.com@198.51.100.7@"));
	/* The next one is told of by the same proxy, with a login, which says that it may relay. */
	expect(fd, "XCLIENT ADDR=203.0.113.1 LOGIN=bob\r\n", "220 ");
	say(fd, "EHLO proxy.example\r\n");
	expect_relay(fd, true);
	/* Another address is nobody's. */
	expect(fd, "XCLIENT ADDR=203.0.113.1\r\n", "220 ");
	say(fd, "EHLO other.example\r\n");
	expect_relay(fd, false);
	assert_non_null(strstr(rig.reject_log, "@J@203.0.113.1@4@550@"));
	assert_int_equal(count_of(SMTP_COUNT_XCLIENT), 3);
	quit(fd);
}

/* A certificate counts for who has it, in this generation of the configuration and in the next. */
static void test_xclient_after_a_verified_certificate(void **state)
{
	static char another_generation;
	struct smtp_session *ss;
	int fd;

	(void)state;
	trust();
	rig.options.tls_verified_peer_can_relay = true;
	fd = client_greeted();
	say(fd, "EHLO proxy.example\r\n");
	ss = smtp_session_of_all(listener()->sessions.next);
	ss->verified = true;
	ss->relay_host = true;
	expect_relay(fd, true);
	expect(fd, "XCLIENT ADDR=203.0.113.1\r\n", "220 ");
	say(fd, "EHLO stranger.example\r\n");
	expect_relay(fd, false);
	rig.scheduler.config = (struct config *)&another_generation;
	expect(fd, "NOOP\r\n", "250 ");
	expect_relay(fd, false);
	quit(fd);
}

static void test_xclient_when_refused(void **state)
{
	int fd = client_hello();

	(void)state;
	expect(fd, "XCLIENT ADDR=198.51.100.7\r\n", "550 5.7.0");
	assert_non_null(strstr(rig.reject_log, "@J@192.0.2.1@19@550@"));
	quit(fd);
	trust();
	fd = client_greeted();
	say(fd, "EHLO c\r\n");
	expect(fd, "XCLIENT ADDR=nowhere\r\n", "501 5.5.4");
	expect(fd, "XCLIENT\r\n", "501 5.5.4");
	expect(fd, MAIL, "250 ");
	expect(fd, "XCLIENT ADDR=198.51.100.7\r\n", "503 5.5.1");
	expect(fd, "RSET\r\n", "250 ");
	expect_relay(fd, false);
	/* Words behind it would be those of another client. */
	say(fd, "XCLIENT ADDR=198.51.100.7\r\nEHLO c\r\n");
	expect_lines("503 5.5.1", 1);
	expect_closed(fd);
	/* Being told of does not make a client a proxy. */
	proxies.prefix = 128;
	fd = client_open("203.0.113.9");
	settle();
	client_read(fd);
	expect(fd, "XCLIENT ADDR=192.0.2.1\r\n", "550 5.7.0");
	quit(fd);
}

static int proxied(const char *header, size_t len)
{
	int fd;

	trust();
	rig.options.proxy_protocol = true;
	fd = client_open("192.0.2.1");
	settle();
	client_read(fd);
	assert_int_equal(rig.got_len, 0);
	for (size_t i = 0; i < len; i++) {
		client_send(fd, header + i, 1);
		settle();
	}
	hear(fd);
	return fd;
}

#define V1 "PROXY TCP4 198.51.100.7 192.0.2.9 4711 25\r\n"

static void test_proxy_tells_who_it_is(void **state)
{
	static const char v2[] =
		"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc6\x33\x64\x07\xc0\0\2\1\x12\x67\0\x19";
	int fd;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		fd = i == 0 ? proxied(V1, sizeof(V1) - 1) : proxied(v2, sizeof(v2) - 1);
		expect_lines("220 mx.example.com", 1);
		say(fd, "EHLO c\r\n");
		/* It is no proxy itself. */
		assert_null(strstr(rig.got, "XCLIENT"));
		expect_relay(fd, true);
		quit(fd);
	}
	/* A health check is who it is. */
	fd = proxied("PROXY UNKNOWN\r\n", 15);
	say(fd, "EHLO c\r\n");
	assert_non_null(strstr(rig.got, "XCLIENT"));
	expect_relay(fd, false);
	quit(fd);
	assert_int_equal(count_of(SMTP_COUNT_PROXY), 3);
}

static void expect_dismissed(int fd)
{
	expect_lines("554 5.7.1 No proxy that is known\r\n", 1);
	expect_closed(fd);
}

static void test_proxy_when_bad(void **state)
{
	int fd;

	(void)state;
	expect_dismissed(proxied("EHLO c\r\n", 8));
	expect_dismissed(proxied("PROXY TCP4 nowhere\r\n", 20));
	/* Not one of ours. */
	fd = client_open("203.0.113.9");
	settle();
	client_read(fd);
	expect_dismissed(fd);
	assert_int_equal(count_of(SMTP_COUNT_REFUSED_PROXY), 3);
	assert_non_null(strstr(rig.reject_log, "@J@203.0.113.9@12@554@"));
	/* One that never comes, and one that breaks off. */
	fd = proxied("PROXY ", 6);
	pass_ms(60001);
	client_read(fd);
	expect_lines("421 4.4.2", 1);
	expect_closed(fd);
	fd = proxied("PROXY ", 6);
	close(fd);
	settle();
	assert_int_equal(listener()->session_count, 0);
}

/* What comes with the header was said before the greeting. */
static void test_proxy_header_with_more_behind_it(void **state)
{
	int fd;

	(void)state;
	trust();
	rig.options.proxy_protocol = true;
	fd = client_open("192.0.2.1");
	settle();
	say(fd, V1 "EHLO c\r\n");
	expect_lines("554 5.5.1 Spoke before the greeting\r\n", 1);
	assert_non_null(strstr(rig.reject_log, "@J@198.51.100.7@12@554@"));
	expect_closed(fd);
	fd = client_open("192.0.2.1");
	settle();
	stop_listener(false);
	settle();
	client_read(fd);
	assert_non_null(strstr(rig.got, "421 4.3.2"));
	expect_closed(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_xclient_changes_who_it_is),
		TEST(test_xclient_after_a_verified_certificate),
		TEST(test_xclient_when_refused),
		TEST(test_proxy_tells_who_it_is),
		TEST(test_proxy_when_bad),
		TEST(test_proxy_header_with_more_behind_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
