/*
 * SMTP reception against a scheduler of our own: a real group and multiplexor in invoker mode, a
 * clock that we turn, and a store that answers when and what we say. The client is the other end of
 * a socket pair.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agents/wheel.h"
#include "core/runtime/runtime.h"
#include "listeners/smtp/listener.h"
#include "listeners/smtp/relay.h"
#include "listeners/smtp/session.h"

#define TEXT_SIZE (1 << 20)
#define STORES_MAX 16
#define SETTLE_MAX 100000

struct store {
	struct message *message;
	stored_fn on_stored;
	void *owner;
};

static struct rig {
	struct runtime runtime;
	struct program program;
	struct scheduler scheduler;
	struct wheel_agent *wheel;
	void *state;
	uint64_t now_ns;
	struct smtp_options options;
	/* What the fake scheduler says. */
	int refuses;
	int store_result;
	bool store_holds;
	struct store stores[STORES_MAX];
	unsigned store_count;
	uint64_t id_count;
	int64_t receiving;
	unsigned closed;
	/* What it was given. */
	unsigned messages;
	char *bodies;
	size_t bodies_len;
	uint16_t envelope_flags;
	uint8_t durability;
	uint32_t recipients;
	char main_log[TEXT_SIZE];
	char reject_log[TEXT_SIZE];
	/* What the client has read. */
	char got[TEXT_SIZE];
	size_t got_len;
	bool got_eof;
} rig;

/* ---- the scheduler that the listener is given ---- */

struct message_id scheduler_new_id(struct scheduler *s)
{
	(void)s;
	return (struct message_id){.high = 0x123456789abc0001, .low = ++rig.id_count};
}

int scheduler_refuses(const struct scheduler *s)
{
	(void)s;
	return rig.refuses;
}

void scheduler_receiving(struct scheduler *s, int64_t delta)
{
	(void)s;
	rig.receiving += delta;
	assert_true(rig.receiving >= 0);
}

void scheduler_close_accept(struct scheduler *s, struct accept *a)
{
	mux_close(s->base.mux, a->fd);
	free(a);
	rig.closed++;
}

void scheduler_store(struct scheduler *s, struct message *m, stored_fn on_stored, void *owner)
{
	const struct envelope *e = message_envelope(m);
	size_t len = m->body.len;

	assert_int_equal(envelope_check(e, e->size), 0);
	assert_int_equal(e->body_bytes, len);
	message_set_resident(m, &s->pools);
	rig.bodies = realloc(rig.bodies, rig.bodies_len + len + 1);
	chain_copy_out(&m->body, 0, rig.bodies + rig.bodies_len, len);
	rig.bodies_len += len;
	rig.bodies[rig.bodies_len] = '\0';
	rig.envelope_flags = e->flags;
	rig.durability = e->durability;
	rig.recipients = e->recipient_count;
	rig.messages++;
	assert_true(rig.store_count < STORES_MAX);
	rig.stores[rig.store_count++] = (struct store){m, on_stored, owner};
}

void log_line(struct log_client *c, enum log_file file, const char *line, size_t len)
{
	char *log = file == LOG_MAIN ? rig.main_log : rig.reject_log;
	size_t used = strlen(log);

	(void)c;
	assert_true(file == LOG_MAIN || file == LOG_REJECT);
	assert_true(used + len < TEXT_SIZE);
	memcpy(log + used, line, len);
	log[used + len] = '\0';
}

const struct smtp_options *config_smtp(const struct config *config, uint32_t index,
				       const struct in6_addr *peer)
{
	(void)config;
	(void)index;
	(void)peer;
	return &rig.options;
}

uint32_t config_smtp_listen_count(const struct config *config)
{
	(void)config;
	return 1;
}

const struct listen_options *config_smtp_listen(const struct config *config, uint32_t index)
{
	(void)config;
	(void)index;
	return NULL;
}

static void answer_stores(struct scheduler *s)
{
	unsigned count = rig.store_count;
	struct store stores[STORES_MAX];

	memcpy(stores, rig.stores, sizeof(stores));
	rig.store_count = 0;
	for (unsigned i = 0; i < count; i++) {
		if (rig.store_result != 0) {
			message_release(stores[i].message, &s->pools);
		}
		stores[i].on_stored(s, stores[i].owner, rig.store_result);
		if (rig.store_result == 0) {
			message_release(stores[i].message, &s->pools);
		}
	}
}

static int on_start(struct agent *self)
{
	(void)self;
	return smtp_listener.open(&rig.scheduler, &rig.state);
}

static int on_do_work(struct agent *self)
{
	int work = (int)rig.store_count;

	(void)self;
	if (!rig.store_holds) {
		answer_stores(&rig.scheduler);
	} else {
		work = 0;
	}
	return work + smtp_listener.do_work(&rig.scheduler, rig.state);
}

static void on_tear_down(struct agent *self)
{
	(void)self;
	smtp_listener.close(&rig.scheduler, rig.state);
}

static const struct agent_ops ops = {
	.kind = "scheduler",
	.start = on_start,
	.do_work = on_do_work,
	.tear_down = on_tear_down,
};

static uint64_t clock_now(void *context)
{
	(void)context;
	return rig.now_ns;
}

/* ---- set-up ---- */

static const char *const relay_domains[] = {"example.net", ".example.org"};

static void default_options(void)
{
	rig.options = (struct smtp_options){
		.hostname = "mx.example.com",
		.banner = "ESMTP flywheel",
		.relay_domains = relay_domains,
		.relay_domain_count = 2,
		.max_message_bytes = 20000,
		.max_line_bytes = 1000,
		.max_recipients_per_message = 5,
		.max_idle_commands = 1000,
		.idle_timeout_ms = 60000,
		.session_timeout_ms = 600000,
	};
}

static struct smtp_listener *listener(void)
{
	return rig.state;
}

static uint64_t count_of(enum smtp_count what)
{
	return counter_get(listener()->counts.of[what]);
}

static void rig_start(enum mux_backend backend)
{
	const struct clock clock = {clock_now, clock_now, NULL};
	const struct idle idle = {.kind = IDLE_NOOP};
	struct scheduler *s = &rig.scheduler;
	struct group *group;

	memset(&rig, 0, sizeof(rig));
	rig.now_ns = UINT64_C(1750000000) * NS_PER_S;
	default_options();
	runtime_init(&rig.runtime, &clock);
	rig.runtime.backend = backend;
	group = runtime_group(&rig.runtime, "test", -1, &idle);
	agent_init(&s->base, &ops, "scheduler.0", 1);
	s->program = &rig.program;
	mail_pools_init(&s->pools);
	s->rejected = counter_create(s->base.counters, "rejected", COUNTER_SUM, "Refused");
	s->rejected_busy = counter_create(s->base.counters, "rejected_busy", COUNTER_SUM, "Busy");
	runtime_add(&rig.runtime, group, &s->base);
	rig.wheel = wheel_agent_create("wheel");
	runtime_add(&rig.runtime, group, wheel_agent_base(rig.wheel));
	runtime_set_wheel(&rig.runtime, wheel_agent_base(rig.wheel), wheel_agent_on_arm);
	assert_int_equal(runtime_prepare(&rig.runtime), 0);
}

static int set_up_with(void **state, enum mux_backend backend)
{
	(void)state;
	rig_start(backend);
	return runtime_invoke_start(&rig.runtime);
}

static int set_up(void **state)
{
	return set_up_with(state, MUX_POLL);
}

static int set_up_epoll(void **state)
{
	return set_up_with(state, MUX_EPOLL);
}

static int set_up_auto(void **state)
{
	return set_up_with(state, MUX_AUTO);
}

static bool drained(void)
{
	bool result;

	agent_current = &rig.scheduler.base;
	result = smtp_listener.drained(&rig.scheduler, rig.state);
	agent_current = NULL;
	return result;
}

static void stop_listener(bool hurry)
{
	agent_current = &rig.scheduler.base;
	smtp_listener.stop(&rig.scheduler, rig.state, hurry);
	agent_current = NULL;
}

/* Until nothing happens any more. */
static void settle(void)
{
	unsigned idle = 0;

	for (unsigned i = 0; idle < 4; i++) {
		assert_true(i < SETTLE_MAX);
		idle = runtime_step(&rig.runtime) > 0 ? 0 : idle + 1;
	}
}

static void pass_ms(uint64_t ms)
{
	rig.now_ns += ms * NS_PER_MS;
	settle();
}

static int tear_down(void **state)
{
	struct scheduler *s = &rig.scheduler;

	(void)state;
	rig.store_holds = false;
	settle();
	pass_ms(UINT64_C(100) * 1000 * 1000);
	assert_true(drained());
	assert_int_equal(rig.receiving, 0);
	assert_int_equal(s->pools.buffers.live, 0);
	assert_int_equal(s->pools.messages[0].live + s->pools.messages[1].live, 0);
	assert_int_equal(s->base.timers.armed, 0);
	assert_true(runtime_invoke_stop(&rig.runtime, 1000));
	runtime_close(&rig.runtime);
	agent_close(&s->base);
	wheel_agent_destroy(rig.wheel);
	mail_pools_close(&s->pools);
	free(rig.bodies);
	return 0;
}

/* ---- the client ---- */

/* A connection from `peer`, not yet settled. */
static int client_open(const char *peer)
{
	struct accept *a = calloc(1, sizeof(*a));
	char text[64];
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
			 0);
	snprintf(text, sizeof(text), "::ffff:%s", peer);
	a->magic = ACCEPT_MAGIC;
	a->fd = fds[0];
	a->number = 0x42;
	snprintf(a->peer_text, sizeof(a->peer_text), "%s", peer);
	assert_int_equal(inet_pton(AF_INET6, text, &a->peer), 1);
	rig.got_len = 0;
	rig.got_eof = false;
	agent_current = &rig.scheduler.base;
	rig.scheduler.base.now = (struct instant){rig.now_ns, rig.now_ns};
	smtp_listener.serve(&rig.scheduler, rig.state, a);
	agent_current = NULL;
	return fds[1];
}

static void client_read(int fd)
{
	ssize_t n;

	while ((n = read(fd, rig.got + rig.got_len, sizeof(rig.got) - 1 - rig.got_len)) > 0) {
		rig.got_len += (size_t)n;
	}
	rig.got_eof |= n == 0;
	rig.got[rig.got_len] = '\0';
}

static void client_send(int fd, const void *data, size_t len)
{
	assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* Says `len` bytes; what was answered to them is in rig.got. */
static void say_bytes(int fd, const void *data, size_t len)
{
	client_send(fd, data, len);
	settle();
	rig.got_len = 0;
	client_read(fd);
}

static void say(int fd, const char *text)
{
	say_bytes(fd, text, strlen(text));
}

/* What was answered starts with `expected`, and is `lines` lines. */
static void expect_lines(const char *expected, unsigned lines)
{
	unsigned got = 0;

	for (const char *p = rig.got; (p = strchr(p, '\n')) != NULL; p++) {
		got++;
	}
	if (strncmp(rig.got, expected, strlen(expected)) != 0 || got != lines) {
		fail_msg("expected %u lines, \"%s\", got \"%s\"", lines, expected, rig.got);
	}
}

static void expect(int fd, const char *command, const char *reply)
{
	say(fd, command);
	expect_lines(reply, 1);
}

static int client_greeted(void)
{
	int fd = client_open("192.0.2.1");

	settle();
	rig.got_len = 0;
	client_read(fd);
	assert_string_equal(rig.got, "220 mx.example.com ESMTP flywheel\r\n");
	return fd;
}

static int client_hello(void)
{
	int fd = client_greeted();

	say(fd, "EHLO client.example\r\n");
	expect_lines("250-mx.example.com\r\n", 7);
	return fd;
}

#define MAIL "MAIL FROM:<a@example.com>\r\n"
#define RCPT "RCPT TO:<b@example.net>\r\n"

static int client_in_data(void)
{
	int fd = client_hello();

	say(fd, MAIL RCPT "DATA\r\n");
	expect_lines("250 2.1.0 Sender OK\r\n250 2.1.5 Recipient OK\r\n354 ", 3);
	return fd;
}

static void expect_closed(int fd)
{
	client_read(fd);
	assert_true(rig.got_eof);
	close(fd);
	settle();
	assert_int_equal(listener()->session_count, 0);
}

static void quit(int fd)
{
	expect(fd, "QUIT\r\n", "221 2.0.0");
	expect_closed(fd);
}

/* ---- tests ---- */

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
	assert_string_equal(rig.got, "250-mx.example.com\r\n250-PIPELINING\r\n250-SIZE 20000\r\n"
				     "250-8BITMIME\r\n250-ENHANCEDSTATUSCODES\r\n250-SMTPUTF8\r\n"
				     "250 HELP\r\n");
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
	expect(fd, "BDAT 3 LAST\r\n", "502 5.5.1");
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
	assert_int_equal(rig.envelope_flags, ENVELOPE_8BITMIME | ENVELOPE_SMTPUTF8);
	assert_non_null(strstr(rig.main_log, "@R@postmaster@mx.example.com@@@"));
	assert_non_null(strstr(rig.bodies, "with UTF8SMTP\r\n"));
	assert_non_null(strstr(rig.reject_log, "@J@192.0.2.1@4@"));
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

/* A line, over and over. */
static void say_data(int fd, unsigned lines)
{
	char line[101];

	memset(line, 'x', 98);
	memcpy(line + 98, "\r\n", 3);
	for (unsigned i = 0; i < lines; i++) {
		client_send(fd, line, 100);
		if (i % 100 == 0) {
			settle();
		}
	}
	settle();
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
	assert_int_equal(rig.receiving, 0);
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
	assert_int_equal(rig.envelope_flags, ENVELOPE_8BITMIME);
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
	rig.got_len = 0;
	client_read(fd);
	expect_lines("250 2.0.0 OK\r\n421 4.7.0", 2);
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
	assert_int_equal(rig.receiving, 0);
	expect(fd, ".\r\n", "452 4.3.2");
	rig.refuses = 0;
	quit(fd);
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
	rig.got_len = 0;
	client_read(fd);
	expect_lines("421 4.4.2", 1);
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
		rig.got_len = 0;
		client_read(fd);
		settle();
		for (const char *p = rig.got; (p = strchr(p, '\n')) != NULL; p++) {
			got++;
		}
	}
	assert_int_equal(got, sent * 1000);
	quit(fd);
}

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
	rig.got_len = 0;
	client_read(fd);
	expect_lines("250 2.0.0 OK: queued as ", 2);
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
	rig.options.max_idle_commands = 0;
	while (!mux_op_busy(&ss->send)) {
		for (unsigned i = 0; i < 100; i++) {
			client_send(fd, "HELP\r\n", 6);
		}
		settle();
	}
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
	rig.got_len = 0;
	client_read(idle);
	expect_lines("421 4.3.2", 1);
	close(idle);
	settle();
	assert_int_equal(listener()->session_count, 2);
	rig.store_holds = false;
	settle();
	rig.got_len = 0;
	client_read(at_spool);
	expect_lines("250 2.0.0", 2);
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
	rig.got_len = 0;
	client_read(in_data);
	expect_lines("421 4.3.2", 1);
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

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_WITH(name, setup) cmocka_unit_test_setup_teardown(name, setup, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_message_is_stored_and_answered),
		TEST(test_ehlo_lists_what_is_offered),
		TEST(test_commands_when_out_of_order),
		TEST(test_other_commands),
		TEST(test_addresses_when_invalid),
		TEST(test_relaying_by_domain),
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
		TEST(test_early_talker_is_dismissed),
		TEST_WITH(test_early_talker_is_dismissed, set_up_epoll),
		TEST_WITH(test_early_talker_is_dismissed, set_up_auto),
		TEST(test_input_before_354_is_refused),
		TEST(test_idle_commands_when_too_many),
		TEST(test_client_that_goes_on_talking_can_read_the_last_reply),
		TEST(test_receptions_when_too_many),
		TEST(test_pressure_is_told),
		TEST(test_large_message_gives_way_when_budget_is_used_up),
		TEST(test_message_when_spool_fails),
		TEST(test_reading_pauses_under_pressure),
		TEST(test_session_when_idle),
		TEST(test_session_when_too_long),
		TEST(test_data_when_it_drips),
		TEST(test_client_that_never_reads),
		TEST(test_client_that_reads_late_gets_every_reply),
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
