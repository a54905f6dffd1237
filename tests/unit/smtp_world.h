/*
 * SMTP reception against a scheduler of our own: a real group and multiplexor in invoker mode, a
 * clock that we turn, and a store that answers when and what we say. The client is the other end of
 * a socket pair. Start reading at set_up(), then at client_in_data().
 *
 * It defines what the listener asks of the scheduler, the log and the configuration, in place of
 * the library's: for test_smtp_session*.c and test_smtp_handover.c only, each of which has its own
 * copy.
 */
#pragma once

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <errno.h>

#include "agents/wheel.h"
#include "core/log/event_text.h"
#include "core/runtime/runtime.h"
#include "listeners/smtp/listener.h"
#include "listeners/smtp/session.h"
#include "tests/unit/smtp_given.h"

#define TEXT_SIZE (1 << 20)
#define STORES_MAX 16
#define HANDED_ON_MAX 16
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
	/* Connections that are on their way to another scheduler. */
	struct accept *handed_on[HANDED_ON_MAX];
	unsigned handed_on_count;
	uint64_t id_count;
	int64_t receiving;
	int receiving_count;
	/* Of a transaction that goes on, and of one that stalls; 0: there is room for all. */
	uint64_t share[2];
	unsigned closed;
	/* What it was given. */
	unsigned messages;
	/* Of them, for bounce domains. */
	unsigned understood;
	char *bodies;
	size_t bodies_len;
	uint16_t envelope_flags;
	uint8_t durability;
	char binding[ENVELOPE_BINDING_MAX + 1];
	uint32_t recipients;
	/* ENVID; and flags, address and ORCPT of each recipient, in lines. */
	char envid[128];
	char notify[4096];
	/* Jobs for the thread pool. */
	struct job *jobs;
	bool jobs_hold;
	int job_result;
	char acct_log[TEXT_SIZE];
	/* Keys of what is captured, and pairs of the last message. */
	const char *const *captured;
	uint32_t captured_count;
	struct context context;
	/* The last one; its strings may be gone. */
	struct event event;
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

void scheduler_receiving(struct scheduler *s, int64_t bytes, int transactions)
{
	(void)s;
	rig.receiving += bytes;
	rig.receiving_count += transactions;
	assert_true(rig.receiving >= 0 && rig.receiving_count >= 0);
	assert_int_equal(rig.receiving == 0, rig.receiving_count == 0);
}

uint64_t scheduler_reception_share(const struct scheduler *s, bool stalls)
{
	(void)s;
	return rig.share[stalls] != 0 ? rig.share[stalls] : UINT64_MAX;
}

/* Says how much there was to be signed. */
const struct dkim_policy *scheduler_sign(struct scheduler *s, struct chain *message)
{
	struct chain field = CHAIN_EMPTY;

	chain_printf(&field, &s->pools.buffers, "Signed: %u\r\n", (unsigned)message->len);
	chain_prepend_chain(message, &field);
	return NULL;
}

void scheduler_close_accept(struct scheduler *s, struct accept *a)
{
	mux_close(s->base.mux, a->fd);
	free(a);
	rig.closed++;
}

void scheduler_hand_on(struct scheduler *s, struct accept *a)
{
	(void)s;
	assert_true(rig.handed_on_count < HANDED_ON_MAX);
	rig.handed_on[rig.handed_on_count++] = a;
}

static inline void note_context(const struct envelope *e)
{
	uint32_t len;
	const char *pairs = envelope_context(e, &len);

	rig.context.len = len;
	if (len > 0) {
		memcpy(rig.context.pairs, pairs, len);
	}
}

static inline void note_notify(const struct envelope *e)
{
	size_t len = 0;

	snprintf(rig.envid, sizeof(rig.envid), "%s",
		 envelope_envid(e) != NULL ? envelope_envid(e) : "");
	for (uint32_t i = 0; i < e->recipient_count && i < 8; i++) {
		const char *orcpt = envelope_orcpt(e, i);

		len += (size_t)snprintf(rig.notify + len, sizeof(rig.notify) - len, "%u %s %s\n",
					(unsigned)envelope_recipient(e, i)->flags & ENVELOPE_NOTIFY,
					envelope_address(e, i), orcpt != NULL ? orcpt : "-");
	}
}

void scheduler_store(struct scheduler *s, struct message *m, stored_fn on_stored, void *owner)
{
	const struct envelope *e = message_envelope(m);
	size_t len = message_body(m)->len;

	assert_int_equal(envelope_check(e, e->size), 0);
	assert_int_equal(e->body_bytes, len);
	message_set_resident(m, &s->pools);
	rig.bodies = realloc(rig.bodies, rig.bodies_len + len + 1);
	chain_copy_out(message_body(m), 0, rig.bodies + rig.bodies_len, len);
	rig.bodies_len += len;
	rig.bodies[rig.bodies_len] = '\0';
	rig.envelope_flags = e->flags;
	rig.durability = e->durability;
	snprintf(rig.binding, sizeof(rig.binding), "%s",
		 envelope_binding(e) != NULL ? envelope_binding(e) : "");
	rig.recipients = e->recipient_count;
	note_context(e);
	note_notify(e);
	rig.messages++;
	assert_true(rig.store_count < STORES_MAX);
	rig.stores[rig.store_count++] = (struct store){m, on_stored, owner};
}

void scheduler_understand(struct scheduler *s, struct message *m, uint64_t batch,
			  uint64_t connection, const char *peer_ip, stored_fn on_taken, void *owner)
{
	rig.understood++;
	(void)batch;
	(void)connection;
	(void)peer_ip;
	scheduler_store(s, m, on_taken, owner);
}

void log_event(struct log_client *c, const struct event *e)
{
	enum log_file file = event_log(e->kind);
	char *log = file == LOG_MAIN   ? rig.main_log
		    : file == LOG_ACCT ? rig.acct_log
				       : rig.reject_log;
	char line[EVENT_TEXT_LINE_MAX];
	size_t used = strlen(log);
	size_t len = event_text(line, file, e);

	(void)c;
	assert_true(file == LOG_MAIN || file == LOG_REJECT || file == LOG_ACCT);
	assert_true(len > 0 && used + len + 1 < TEXT_SIZE);
	memcpy(log + used, line, len);
	memcpy(log + used + len, "\n", 2);
	rig.event = *e;
}

void log_event_again(struct log_client *c, const struct event *e, uint32_t changed)
{
	(void)changed;
	log_event(c, e);
}

const struct smtp_options *config_smtp(const struct config *config, uint32_t index,
				       const struct in6_addr *peer)
{
	(void)config;
	(void)index;
	(void)peer;
	return &rig.options;
}

const char *const *config_captured(const struct config *config, uint32_t *count)
{
	(void)config;
	*count = rig.captured_count;
	return rig.captured;
}

bool config_smtp_listen_find(const struct config *config, const struct listen_options *same,
			     uint32_t *index)
{
	(void)config;
	(void)same;
	*index = 0;
	return true;
}

static inline void answer_stores(struct scheduler *s)
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

void thread_pool_run(struct thread_pool *p, struct agent *self, struct job *job)
{
	(void)p;
	assert_ptr_equal(job->from, self);
	job->next = rig.jobs;
	rig.jobs = job;
}

static inline int run_jobs(void)
{
	int work = 0;

	while (rig.jobs != NULL && !rig.jobs_hold) {
		struct job *job = rig.jobs;

		rig.jobs = job->next;
		if (rig.job_result == 0) {
			job->work(job);
		}
		job->on_done(job->from, job, rig.job_result);
		work++;
	}
	return work;
}

static inline int on_start(struct agent *self)
{
	(void)self;
	return smtp_listener.open(&rig.scheduler, &rig.state);
}

static inline int on_do_work(struct agent *self)
{
	int work = (int)rig.store_count;

	(void)self;
	if (!rig.store_holds) {
		answer_stores(&rig.scheduler);
	} else {
		work = 0;
	}
	return work + run_jobs() + smtp_listener.do_work(&rig.scheduler, rig.state);
}

static inline void on_tear_down(struct agent *self)
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

static inline uint64_t clock_now(void *context)
{
	(void)context;
	return rig.now_ns;
}

/* ---- set-up ---- */

static const char *const relay_domains[] = {"example.net", ".example.org"};
static const char *const bounce_domains[] = {"b.example.com"};

static inline void default_options(void)
{
	rig.options = (struct smtp_options){
		.hostname = "mx.example.com",
		.banner = "ESMTP flywheel",
		.relay_domains = relay_domains,
		.relay_domain_count = 2,
		.bounce_domains = bounce_domains,
		.bounce_domain_count = 1,
		.max_message_bytes = 20000,
		.max_line_bytes = 1000,
		.max_recipients_per_message = 5,
		.max_idle_commands = 1000,
		.idle_timeout_ms = 60000,
		.session_timeout_ms = 600000,
	};
}

static inline struct smtp_listener *listener(void)
{
	return rig.state;
}

static inline uint64_t count_of(enum smtp_count what)
{
	return counter_get(listener()->counts.of[what]);
}

static inline void rig_start(enum mux_backend backend)
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
	binding_table_init(&s->dispatcher.bindings);
	s->rejected = counter_create(s->base.counters, "rejected", COUNTER_SUM, "Refused");
	s->captures_cut = counter_create(s->base.counters, "captures_cut", COUNTER_SUM, "Cut");
	s->rejected_busy = counter_create(s->base.counters, "rejected_busy", COUNTER_SUM, "Busy");
	runtime_add(&rig.runtime, group, &s->base);
	rig.wheel = wheel_agent_create("wheel");
	runtime_add(&rig.runtime, group, wheel_agent_base(rig.wheel));
	runtime_set_wheel(&rig.runtime, wheel_agent_base(rig.wheel), wheel_agent_on_arm);
	assert_int_equal(runtime_prepare(&rig.runtime), 0);
}

static inline int set_up_with(void **state, enum mux_backend backend)
{
	(void)state;
	rig_start(backend);
	return runtime_invoke_start(&rig.runtime);
}

static inline int set_up(void **state)
{
	return set_up_with(state, MUX_POLL);
}

static inline int set_up_epoll(void **state)
{
	return set_up_with(state, MUX_EPOLL);
}

static inline int set_up_auto(void **state)
{
	return set_up_with(state, MUX_AUTO);
}

static inline bool drained(void)
{
	bool result;

	agent_current = &rig.scheduler.base;
	result = smtp_listener.drained(&rig.scheduler, rig.state);
	agent_current = NULL;
	return result;
}

static inline void stop_listener(bool hurry)
{
	agent_current = &rig.scheduler.base;
	smtp_listener.stop(&rig.scheduler, rig.state, hurry);
	agent_current = NULL;
}

/* The scheduler leaves, and what is handed on is kept. */
static inline void leave_listener(void)
{
	agent_current = &rig.scheduler.base;
	smtp_listener.leave(&rig.scheduler, rig.state);
	agent_current = NULL;
}

/* Another scheduler, as it were, goes on with what was handed on. */
static inline void take_handed_on(void)
{
	agent_current = &rig.scheduler.base;
	listener()->leaving = false;
	while (rig.handed_on_count > 0) {
		smtp_listener.serve(&rig.scheduler, rig.state,
				    rig.handed_on[--rig.handed_on_count]);
	}
	agent_current = NULL;
}

/* Until nothing happens any more. */
static inline void settle(void)
{
	unsigned idle = 0;

	for (unsigned i = 0; idle < 4; i++) {
		assert_true(i < SETTLE_MAX);
		idle = runtime_step(&rig.runtime) > 0 ? 0 : idle + 1;
	}
}

static inline void pass_ms(uint64_t ms)
{
	rig.now_ns += ms * NS_PER_MS;
	settle();
}

static inline int tear_down(void **state)
{
	struct scheduler *s = &rig.scheduler;

	(void)state;
	rig.store_holds = false;
	rig.jobs_hold = false;
	settle();
	pass_ms(UINT64_C(100) * 1000 * 1000);
	assert_true(drained());
	assert_int_equal(rig.receiving, 0);
	assert_int_equal(s->pools.buffers.live, 0);
	assert_int_equal(mail_pools_live(&s->pools), 0);
	assert_int_equal(s->base.timers.armed, 0);
	assert_true(runtime_invoke_stop(&rig.runtime, 1000));
	runtime_close(&rig.runtime);
	agent_close(&s->base);
	wheel_agent_destroy(rig.wheel);
	mail_pools_close(&s->pools);
	binding_table_close(&s->dispatcher.bindings);
	free(rig.bodies);
	return 0;
}

/* ---- the client ---- */

/* A connection from `peer`, not yet settled. */
static inline int client_open(const char *peer)
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

static inline void client_read(int fd)
{
	ssize_t n;

	while ((n = read(fd, rig.got + rig.got_len, sizeof(rig.got) - 1 - rig.got_len)) > 0) {
		rig.got_len += (size_t)n;
	}
	rig.got_eof |= n == 0;
	rig.got[rig.got_len] = '\0';
}

/* What has come since; it is in rig.got. */
static inline void hear(int fd)
{
	rig.got_len = 0;
	client_read(fd);
}

static inline void client_send(int fd, const void *data, size_t len)
{
	assert_int_equal(send(fd, data, len, MSG_NOSIGNAL), (ssize_t)len);
}

/* Says `len` bytes; what was answered to them is in rig.got. */
static inline void say_bytes(int fd, const void *data, size_t len)
{
	client_send(fd, data, len);
	settle();
	hear(fd);
}

static inline void say(int fd, const char *text)
{
	say_bytes(fd, text, strlen(text));
}

/* What was answered starts with `expected`, and is `lines` lines. */
static inline void expect_lines(const char *expected, unsigned lines)
{
	unsigned got = 0;

	for (const char *p = rig.got; (p = strchr(p, '\n')) != NULL; p++) {
		got++;
	}
	if (strncmp(rig.got, expected, strlen(expected)) != 0 || got != lines) {
		fail_msg("expected %u lines, \"%s\", got \"%s\"", lines, expected, rig.got);
	}
}

/* So does what has come since. */
static inline void expect_heard(int fd, const char *expected, unsigned lines)
{
	hear(fd);
	expect_lines(expected, lines);
}

static inline void expect(int fd, const char *command, const char *reply)
{
	say(fd, command);
	expect_lines(reply, 1);
}

static inline int client_greeted(void)
{
	int fd = client_open("192.0.2.1");

	settle();
	hear(fd);
	assert_string_equal(rig.got, "220 mx.example.com ESMTP flywheel\r\n");
	return fd;
}

static inline int client_hello(void)
{
	int fd = client_greeted();

	say(fd, "EHLO client.example\r\n");
	expect_lines("250-mx.example.com\r\n", 9);
	return fd;
}

#define MAIL "MAIL FROM:<a@example.com>\r\n"
#define RCPT "RCPT TO:<b@example.net>\r\n"

static inline int client_in_data(void)
{
	int fd = client_hello();

	say(fd, MAIL RCPT "DATA\r\n");
	expect_lines("250 2.1.0 Sender OK\r\n250 2.1.5 Recipient OK\r\n354 ", 3);
	return fd;
}

static inline void expect_closed(int fd)
{
	client_read(fd);
	assert_true(rig.got_eof);
	close(fd);
	settle();
	assert_int_equal(listener()->session_count, 0);
}

static inline void quit(int fd)
{
	expect(fd, "QUIT\r\n", "221 2.0.0");
	expect_closed(fd);
}

/* A line, over and over. */
static inline void say_data(int fd, unsigned lines)
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

/* Asks and does not read, until replies are stuck. */
static inline void clog_replies(int fd, const struct smtp_session *ss)
{
	rig.options.max_idle_commands = 0;
	while (!stream_send_busy(&ss->stream)) {
		for (unsigned i = 0; i < 100; i++) {
			client_send(fd, "HELP\r\n", 6);
		}
		settle();
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define TEST_WITH(name, setup) cmocka_unit_test_setup_teardown(name, setup, tear_down)
