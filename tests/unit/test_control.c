#include "listeners/control/control.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "agents/wheel.h"
#include "core/queue/throttle.h"
#include "core/runtime/runtime.h"
#include "listeners/control/command.h"
#include "listeners/control/peer.h"
#include "listeners/control/session.h"

#define SCHEDULERS 2
#define CLIENTS_MAX 4

/*
 * A program of a wheel, two schedulers that have real dispatchers but no scheduler agent's logic,
 * and an idle agent in a group of its own; stepped by hand, a millisecond each step.
 */
struct world {
	struct program program;
	struct instant now;
	struct wheel_agent *wheel;
	struct scheduler schedulers[SCHEDULERS];
	struct agent other;
	void *control;
	struct global_options global;
	struct domain_options options;
	struct throttle throttle;
	/* Connections given back, and deliveries that were failed. */
	unsigned closed;
	unsigned failed;
	bool failed_quietly;
	uint64_t ids;
	int client;
};

static struct world *world;

/* ---- what the control listener asks of the scheduler agent and the configuration ---- */

uint32_t home_of(const struct program *p, const char *binding, const char *domain)
{
	return (uint32_t)(domain_hash(binding, domain, strlen(domain)) % p->scheduler_count);
}

int64_t program_resident_bytes(const struct program *p)
{
	(void)p;
	return 4711;
}

void scheduler_close_accept(struct scheduler *s, struct accept *a)
{
	mux_close(s->base.mux, a->fd);
	free(a);
	world->closed++;
}

uint32_t config_control_listen_count(const struct config *config)
{
	(void)config;
	return 0;
}

const struct listen_options *config_control_listen(const struct config *config, uint32_t index)
{
	(void)config;
	(void)index;
	return NULL;
}

/* ---- the program ---- */

static uint64_t fake_monotonic(void *context)
{
	return ((struct world *)context)->now.mono_ns;
}

static uint64_t fake_wall(void *context)
{
	return ((struct world *)context)->now.wall_ns;
}

static int no_work(struct agent *self)
{
	(void)self;
	return 0;
}

static const struct agent_ops fake_ops = {.kind = "fake", .do_work = no_work};

static void never_resolve(struct dispatcher *x, struct domain *d)
{
	(void)x;
	(void)d;
}

static void on_attempt(struct dispatcher *x, struct domain *d, struct delivery *delivery,
		       const struct attempt *attempt)
{
	(void)d;
	assert_int_equal(attempt->code, 554);
	world->failed++;
	world->failed_quietly = delivery->doomed_quiet;
	delivery_destroy(delivery, x->pools);
}

static const struct domain_options *options_for(struct dispatcher *x, const char *domain)
{
	(void)x;
	(void)domain;
	return &world->options;
}

static const struct dispatch_ops dispatch_ops = {
	.resolve = never_resolve, .on_attempt = on_attempt, .options = options_for};

static void scheduler_make(uint32_t index, struct group *g)
{
	static const char *const names[SCHEDULERS] = {"scheduler.0", "scheduler.1"};
	struct scheduler *s = &world->schedulers[index];
	struct counter_set *set;

	agent_init(&s->base, &fake_ops, names[index], 2);
	s->program = &world->program;
	s->index = index;
	s->global = &world->global;
	set = s->base.counters;
	s->connections_open = counter_create(set, "inbound.open", COUNTER_GAUGE, "open now");
	s->received = counter_create(set, "received", COUNTER_SUM, "messages");
	s->rejected = counter_create(set, "rejected", COUNTER_SUM, "refused");
	s->delivered = counter_create(set, "delivered", COUNTER_SUM, "recipients");
	s->failed = counter_create(set, "failed", COUNTER_SUM, "recipients");
	s->transient = counter_create(set, "transient", COUNTER_SUM, "recipients");
	mail_pools_init(&s->pools);
	pool_init(&s->requests, "requests", 64, 1);
	log_client_init(&s->log, &s->base, NULL);
	dispatcher_init(&s->dispatcher, &s->base, &dispatch_ops, &s->pools, &world->program.limits);
	runtime_add(&world->program.runtime, g, &s->base);
	world->program.schedulers[world->program.scheduler_count++] = s;
}

static void options_make(void)
{
	world->global = (struct global_options){.hostname = "mx.example",
						.memory_budget_bytes = 1000000,
						.reception_budget_bytes = 500000};
	world->options = (struct domain_options){.max_outbound_connections = 20,
						 .message_expiration_ms = 86400000,
						 .max_recipients_per_batch = 100};
	world->program.limits.connections_max = 1000;
}

static void step_groups(uint32_t count, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		world->now.mono_ns += NS_PER_MS;
		world->now.wall_ns += NS_PER_MS;
		for (uint32_t g = 0; g < count; g++) {
			group_cycle(world->program.runtime.groups[g]);
		}
	}
}

static void step(unsigned times)
{
	step_groups(world->program.runtime.group_count, times);
}

static void pass_s(uint64_t seconds)
{
	world->now.mono_ns += seconds * NS_PER_S;
	world->now.wall_ns += seconds * NS_PER_S;
	step(10);
}

/* Connects a client; returns its end. */
static int connect_client(void)
{
	struct accept *a = calloc(1, sizeof(*a));
	int pair[2];

	assert_non_null(a);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair),
			 0);
	a->magic = ACCEPT_MAGIC;
	a->fd = pair[0];
	control_listener.serve(&world->schedulers[0], world->control, a);
	return pair[1];
}

static int set_up(void **state)
{
	struct runtime *rt;
	struct clock clock;
	struct idle idle = {.kind = IDLE_NOOP};
	struct group *g;

	(void)state;
	world = aligned_alloc(64, (sizeof(*world) + 63) & ~(size_t)63);
	memset(world, 0, sizeof(*world));
	clock = (struct clock){fake_monotonic, fake_wall, world};
	rt = &world->program.runtime;
	world->now = (struct instant){100 * NS_PER_S, 1700000000 * NS_PER_S};
	options_make();
	runtime_init(rt, &clock);
	rt->backend = MUX_POLL;
	g = runtime_group(rt, "main", -1, &idle);
	world->wheel = wheel_agent_create("wheel");
	runtime_add(rt, g, wheel_agent_base(world->wheel));
	runtime_set_wheel(rt, wheel_agent_base(world->wheel), wheel_agent_on_arm);
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		scheduler_make(i, g);
	}
	agent_init(&world->other, &fake_ops, "worker.0", 6);
	runtime_add(rt, runtime_group(rt, "worker", 3, &idle), &world->other);
	assert_int_equal(runtime_prepare(rt), 0);
	assert_int_equal(runtime_invoke_start(rt), 0);
	step(2);
	assert_int_equal(control_listener.open(&world->schedulers[0], &world->control), 0);
	world->client = connect_client();
	return 0;
}

static int tear_down(void **state)
{
	struct runtime *rt = &world->program.runtime;

	(void)state;
	close(world->client);
	control_listener.stop(&world->schedulers[0], world->control, true);
	step(10);
	assert_true(control_listener.drained(&world->schedulers[0], world->control));
	control_listener.close(&world->schedulers[0], world->control);
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		struct scheduler *s = &world->schedulers[i];

		agent_current = &s->base;
		dispatcher_drop(&s->dispatcher);
		dispatcher_close(&s->dispatcher);
		agent_current = NULL;
	}
	assert_true(runtime_invoke_stop(rt, 200));
	runtime_close(rt);
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		struct scheduler *s = &world->schedulers[i];

		mail_pools_close(&s->pools);
		pool_close(&s->requests);
		log_client_close(&s->log);
		agent_close(&s->base);
	}
	agent_close(&world->other);
	wheel_agent_destroy(world->wheel);
	free(world);
	return 0;
}

/* ---- mail ---- */

static struct scheduler *home(const char *domain)
{
	return &world->schedulers[home_of(&world->program, "default", domain)];
}

static struct domain *record(const char *domain)
{
	struct domain *d = domain_find(&home(domain)->dispatcher.domains, "default", domain);

	assert_non_null(d);
	return d;
}

/* Queues a message with `recipients` of `domain`; `due_s` from now, 0: active. Returns its id. */
static struct message_id queue_mail(const char *domain, unsigned recipients, uint64_t due_s)
{
	struct scheduler *s = home(domain);
	struct envelope_builder b;
	struct message *m;
	struct envelope *e;
	struct delivery *d;
	char address[300];

	envelope_builder_init(&b);
	envelope_set_sender(&b, "sender@here.example", 19);
	for (unsigned i = 0; i < recipients; i++) {
		int len = snprintf(address, sizeof(address), "r%03u@%s", i, domain);

		assert_true(envelope_add_recipient(&b, address, (size_t)len));
	}
	m = message_create(&s->pools, envelope_size(&b));
	e = message_envelope(m);
	envelope_build(&b, e);
	envelope_builder_close(&b);
	e->id = (struct message_id){0x123456789abc0001, ++world->ids};
	e->received_ms = world->now.wall_ns / NS_PER_MS;
	e->body_bytes = 2048;
	agent_current = &s->base;
	d = delivery_create(&s->pools, m, 0);
	d->due_ms = due_s != 0 ? e->received_ms + due_s * 1000 : 0;
	if (due_s != 0) {
		d->attempts = 1;
		d->last_text = strdup("451 4.2.0 greylisted");
		dispatch_delay(&s->dispatcher, d);
	} else {
		dispatch_enqueue(&s->dispatcher, d);
	}
	agent_current = NULL;
	return e->id;
}

/* ---- the conversation ---- */

static void tell(int client, const char *text)
{
	assert_int_equal(write(client, text, strlen(text)), strlen(text));
}

/* The next answer, stepping until it is there; NULL when the connection was closed. */
static json_t *hear(int client)
{
	static char line[8 << 20];
	size_t len = 0;
	json_t *answer;

	for (unsigned idle = 0; idle < 3000; idle++) {
		ssize_t n = recv(client, line + len, 1, 0);

		if (n == 0) {
			return NULL;
		}
		if (n < 0) {
			step(1);
			continue;
		}
		idle = 0;
		if (line[len++] == '\n') {
			answer = json_loadb(line, len, 0, NULL);
			assert_non_null(answer);
			return answer;
		}
		assert_true(len < sizeof(line));
	}
	fail_msg("no answer");
	return NULL;
}

static json_t *ask(const char *command)
{
	tell(world->client, command);
	tell(world->client, "\n");
	return hear(world->client);
}

/* The result of a command that succeeds; the caller's. */
static json_t *result_of(const char *command)
{
	json_t *answer = ask(command);
	json_t *result;

	assert_non_null(answer);
	if (!json_is_true(json_object_get(answer, "ok"))) {
		fail_msg("%s: %s", command, json_string_value(json_object_get(answer, "error")));
	}
	result = json_incref(json_object_get(answer, "result"));
	json_decref(answer);
	assert_non_null(result);
	return result;
}

static void assert_error(const char *command, const char *part)
{
	json_t *answer = ask(command);

	assert_non_null(answer);
	assert_true(json_is_false(json_object_get(answer, "ok")));
	if (strstr(json_string_value(json_object_get(answer, "error")), part) == NULL) {
		fail_msg("%s: %s", command, json_string_value(json_object_get(answer, "error")));
	}
	json_decref(answer);
}

/* By a path such as "queue.active" or "limits.2.value". */
static const json_t *at(const json_t *value, const char *path)
{
	char copy[128];
	char *rest = copy;
	char *name;

	snprintf(copy, sizeof(copy), "%s", path);
	while ((name = strsep(&rest, ".")) != NULL) {
		value = json_is_array(value) ? json_array_get(value, strtoul(name, NULL, 10))
					     : json_object_get(value, name);
		if (value == NULL) {
			fail_msg("no %s in %s", name, path);
		}
	}
	return value;
}

static long long number_at(const json_t *value, const char *path)
{
	assert_true(json_is_integer(at(value, path)));
	return json_integer_value(at(value, path));
}

static const char *text_at(const json_t *value, const char *path)
{
	assert_true(json_is_string(at(value, path)));
	return json_string_value(at(value, path));
}

/* ---- tests: commands as text ---- */

static void test_unknown_commands_are_told_apart(void **state)
{
	(void)state;
	assert_error("sumary", "unknown command \"sumary\"; \"help\" lists");
	assert_error("flush", "did you mean \"flush domain NAME\"?");
	assert_error("suspend example.net", "did you mean \"suspend domain NAME\"?");
	assert_error("", "an empty command");
	assert_error("   \t ", "an empty command");
	assert_error("domain \"a", "a double quote is not closed");
	assert_error("active", "usage: active N");
	assert_error("summary now", "usage: summary");
	assert_error("active -3", "\"-3\" is not a whole number");
	assert_error("active 3x", "is not a whole number");
	assert_error("fail domain x.example loudly", "usage: fail domain NAME [quiet]");
	assert_error("a b c d e f g h i j k l m n o p q", "at most 16 words");
	assert_error("domain user@x", "is not a domain name");
	assert_error("message 123", "is not a message id");
}

static void test_help_lists_every_command(void **state)
{
	json_t *all = result_of("help");
	json_t *one = result_of("HELP Flush DOMAIN");
	size_t count = 0;

	(void)state;
	while (command_table[count].name != NULL) {
		count++;
	}
	assert_int_equal(json_array_size(all), count);
	assert_string_equal(text_at(one, "command"), "flush domain");
	assert_string_equal(text_at(one, "arguments"), "NAME");
	json_decref(all);
	json_decref(one);
	assert_error("help nothing", "no command \"nothing\"");
}

static void test_pipelined_lines_are_answered_in_order(void **state)
{
	json_t *answer;

	(void)state;
	tell(world->client, "version\r\nactive x\nmail");
	answer = hear(world->client);
	assert_string_equal(text_at(answer, "result.hostname"), "mx.example");
	json_decref(answer);
	answer = hear(world->client);
	assert_non_null(strstr(text_at(answer, "error"), "\"x\" is not"));
	json_decref(answer);
	tell(world->client, "q\n");
	answer = hear(world->client);
	assert_int_equal(json_array_size(at(answer, "result.queues")), 0);
	json_decref(answer);
}

static void test_long_line_is_refused_and_the_connection_closed(void **state)
{
	char *line = calloc(1, 5001);
	json_t *answer;

	(void)state;
	memset(line, 'x', 5000);
	tell(world->client, line);
	free(line);
	answer = hear(world->client);
	assert_non_null(strstr(text_at(answer, "error"), "at most 4096 bytes"));
	json_decref(answer);
	assert_null(hear(world->client));
	assert_int_equal(world->closed, 1);
}

static void test_nul_in_a_line_is_refused(void **state)
{
	json_t *answer;

	(void)state;
	assert_int_equal(write(world->client, "sum\0mary\n", 9), 9);
	answer = hear(world->client);
	assert_string_equal(text_at(answer, "error"), "a command line has no NUL bytes");
	json_decref(answer);
}

/* ---- tests: sessions ---- */

static void test_idle_session_is_closed_after_a_minute(void **state)
{
	(void)state;
	pass_s(59);
	json_decref(result_of("version"));
	pass_s(59);
	assert_int_equal(world->closed, 0);
	pass_s(2);
	assert_int_equal(world->closed, 1);
	assert_null(hear(world->client));
}

static void test_client_that_leaves_during_an_order_harms_nothing(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		char name[32];

		snprintf(name, sizeof(name), "d%u.example", i);
		queue_mail(name, 1, 0);
	}
	tell(world->client, "domains\n");
	step(2);
	close(world->client);
	world->client = connect_client();
	step(20);
	assert_int_equal(world->closed, 1);
	json_decref(result_of("version"));
}

static void test_stop_closes_idle_sessions_and_lets_orders_end(void **state)
{
	struct scheduler *s = &world->schedulers[0];
	int second = connect_client();
	json_t *answer;

	(void)state;
	tell(world->client, "domains\n");
	step(1);
	assert_false(control_listener.drained(s, world->control));
	control_listener.stop(s, world->control, false);
	assert_null(hear(second));
	answer = hear(world->client);
	assert_true(json_is_true(at(answer, "ok")));
	json_decref(answer);
	assert_null(hear(world->client));
	assert_true(control_listener.drained(s, world->control));
	close(second);
}

static void test_peer_must_be_root_or_of_our_user_or_group(void **state)
{
	struct peer peer;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(peer_credentials(pair[0], &peer), 0);
	assert_int_equal(peer.pid, getpid());
	assert_int_equal(peer.uid, geteuid());
	assert_true(peer_authorised(pair[0], &peer));
	assert_true(peer_authorised(-1, &(struct peer){.uid = 0, .gid = getegid() + 1}));
	assert_true(peer_authorised(-1, &(struct peer){.uid = geteuid(), .gid = getegid() + 1}));
	assert_true(peer_authorised(-1, &(struct peer){.uid = geteuid() + 7, .gid = getegid()}));
	assert_false(
		peer_authorised(-1, &(struct peer){.uid = geteuid() + 7, .gid = getegid() + 1}));
	assert_int_equal(peer_credentials(-1, &peer), -EBADF);
	close(pair[0]);
	close(pair[1]);
}

/* A socket whose other end belongs to nobody. */
static int connect_nobody(pid_t *child)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	socklen_t len = sizeof(address);
	int fd;

	/* An abstract name, chosen by the kernel. */
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
	assert_int_equal(listen(listener, 1), 0);
	*child = fork();
	if (*child == 0) {
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		if (setgid(65534) != 0 || setuid(65534) != 0 ||
		    connect(fd, (struct sockaddr *)&address, len) != 0) {
			_exit(1);
		}
		for (char octet; read(fd, &octet, 1) == 1;) {
			(void)write(STDERR_FILENO, &octet, 1);
		}
		_exit(0);
	}
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	assert_true(fd >= 0);
	close(listener);
	return fd;
}

static void test_stranger_is_refused_and_noted(void **state)
{
	struct accept *a;
	pid_t child;
	int status;

	(void)state;
	if (geteuid() != 0) {
		skip();
	}
	a = calloc(1, sizeof(*a));
	a->magic = ACCEPT_MAGIC;
	a->fd = connect_nobody(&child);
	/* The child has left root's supplementary groups with it: what counts is ours. */
	control_listener.serve(&world->schedulers[0], world->control, a);
	step(10);
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	assert_int_equal(world->closed, 1);
	assert_int_equal(world->schedulers[0].base.errors.count, 1);
	assert_int_equal(world->schedulers[0].base.errors.entries[0].code, -EPERM);
}

/* ---- tests: what operators look at ---- */

static void test_summary_adds_schedulers_up(void **state)
{
	json_t *v;

	(void)state;
	queue_mail("a.example", 1, 0);
	queue_mail("a.example", 1, 0);
	queue_mail("b.example", 1, 0);
	queue_mail("c.example", 1, 300);
	counter_add(world->schedulers[0].delivered, 5000);
	counter_add(world->schedulers[1].delivered, 1000);
	counter_add(world->schedulers[1].received, 600);
	atomic_store(&world->program.limits.connections, 7);
	pass_s(10);
	v = result_of("summary");
	assert_int_equal(number_at(v, "outbound_concurrency"), 7);
	assert_int_equal(number_at(v, "domains"), 3);
	assert_int_equal(number_at(v, "active_domains"), 2);
	assert_int_equal(number_at(v, "active_queue_size"), 3);
	assert_int_equal(number_at(v, "delayed_queue_size"), 1);
	assert_int_equal(number_at(v, "total_queue_size"), 4);
	assert_int_equal(number_at(v, "successfully_delivered_messages"), 6000);
	assert_int_equal(number_at(v, "resident_body_bytes"), 4711);
	assert_true(json_real_value(at(v, "delivery_rate_per_s")) > 550);
	assert_true(json_real_value(at(v, "delivery_rate_per_s")) < 600);
	assert_true(json_real_value(at(v, "uptime_s")) >= 10);
	json_decref(v);
	pass_s(10);
	v = result_of("summary");
	assert_true(json_real_value(at(v, "delivery_rate_per_s")) == 0);
	json_decref(v);
}

static void test_domain_says_what_holds_it_and_until_when(void **state)
{
	struct domain *d;
	json_t *v;

	(void)state;
	throttle_init(&world->throttle, 100, 60, "domain \"slow.example\"");
	world->options.throttle_messages = &world->throttle;
	queue_mail("slow.example", 1, 0);
	queue_mail("slow.example", 2, 600);
	d = record("slow.example");
	d->hold = DOMAIN_THROTTLE_MESSAGES;
	d->hold_until_ms = world->now.mono_ns / NS_PER_MS + 42000;
	v = result_of("domain SLOW.Example.");
	assert_string_equal(text_at(v, "domain"), "slow.example");
	assert_string_equal(text_at(v, "state"), "held");
	assert_string_equal(text_at(v, "held_by"), "outbound_throttle_messages");
	assert_string_equal(text_at(v, "reason"), "outbound_throttle_messages = 100/60, set by "
						  "domain \"slow.example\"");
	assert_string_equal(text_at(v, "held_until_at"), "2023-11-14T22:14:02Z");
	assert_true(json_real_value(at(v, "time_left_s")) > 41);
	assert_int_equal(number_at(v, "queue.active"), 1);
	assert_int_equal(number_at(v, "queue.delayed"), 1);
	assert_string_equal(text_at(v, "queue.next_due_at"), "2023-11-14T22:23:20Z");
	assert_string_equal(text_at(v, "limits.0.limit"), "max_outbound_connections");
	assert_int_equal(number_at(v, "limits.0.value"), 20);
	assert_string_equal(text_at(v, "limits.2.value"), "100/60");
	assert_true(json_is_true(at(v, "limits.2.holds_now")));
	assert_string_equal(text_at(v, "limits.3.value"), "none");
	json_decref(v);
}

static void test_domain_names_hosts_and_the_last_trouble(void **state)
{
	struct domain *d;
	json_t *v;

	(void)state;
	queue_mail("down.example", 1, 0);
	d = record("down.example");
	d->hosts = calloc(1, sizeof(struct host));
	d->host_count = 1;
	snprintf(d->hosts[0].name, sizeof(d->hosts[0].name), "mx1.down.example");
	*(struct sockaddr_in *)(void *)&d->hosts[0].address = (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(25), .sin_addr.s_addr = htonl(0x0a000001)};
	d->hosts[0].failed_until_ms = world->now.mono_ns / NS_PER_MS + 90000;
	d->hold = DOMAIN_HOSTS_DOWN;
	d->hold_until_ms = d->hosts[0].failed_until_ms;
	snprintf(d->trouble, sizeof(d->trouble), "421 go \xff away");
	v = result_of("domain down.example");
	assert_string_equal(text_at(v, "reason"),
			    "every next hop failed and is left alone, last: 421 go ? away");
	assert_string_equal(text_at(v, "next_hops.0.address"), "10.0.0.1:25");
	assert_string_equal(text_at(v, "next_hops.0.state"), "failed, left alone");
	assert_true(json_real_value(at(v, "next_hops.0.for_s")) > 89);
	json_decref(v);
}

static void test_unknown_domain_is_an_error_with_a_hint(void **state)
{
	(void)state;
	assert_error("domain nothere.example", "no record of domain \"nothere.example\"");
	assert_error("resume domain nothere.example", "\"domains\" lists what there is");
	assert_error("flush domain nothere.example", "no record");
	assert_error("fail domain nothere.example", "no record");
}

static void test_domains_lists_all_of_many(void **state)
{
	json_t *v;

	(void)state;
	for (unsigned i = 0; i < 3000; i++) {
		char name[32];

		snprintf(name, sizeof(name), "d%u.example", i);
		queue_mail(name, 1, i % 3 == 0 ? 100 : 0);
	}
	v = result_of("domain all");
	assert_int_equal(json_array_size(at(v, "domains")), 3000);
	assert_int_equal(number_at(v, "totals.domains"), 3000);
	assert_int_equal(number_at(v, "totals.active"), 2000);
	assert_int_equal(number_at(v, "totals.delayed"), 1000);
	json_decref(v);
}

static void test_listing_starts_anew_when_the_table_grows(void **state)
{
	json_t *answer;
	char name[32];

	(void)state;
	for (unsigned i = 0; i < 1800; i++) {
		snprintf(name, sizeof(name), "d%u.example", i);
		queue_mail(name, 1, 0);
	}
	tell(world->client, "domains\n");
	step(2);
	for (unsigned i = 1800; i < 6000; i++) {
		snprintf(name, sizeof(name), "d%u.example", i);
		queue_mail(name, 1, 0);
	}
	answer = hear(world->client);
	assert_int_equal(json_array_size(at(answer, "result.domains")), 6000);
	assert_int_equal(number_at(answer, "result.totals.domains"), 6000);
	json_decref(answer);
}

static void test_active_and_delayed_show_only_longer_queues(void **state)
{
	json_t *v;

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		queue_mail("long.example", 1, 0);
		queue_mail("late.example", 1, 60);
	}
	queue_mail("short.example", 1, 0);
	v = result_of("active 4");
	assert_int_equal(json_array_size(at(v, "domains")), 1);
	assert_string_equal(text_at(v, "domains.0.domain"), "long.example");
	assert_int_equal(number_at(v, "totals.domains"), 3);
	json_decref(v);
	v = result_of("active 5");
	assert_int_equal(json_array_size(at(v, "domains")), 0);
	json_decref(v);
	v = result_of("delayed 0");
	assert_int_equal(json_array_size(at(v, "domains")), 1);
	assert_int_equal(number_at(v, "domains.0.delayed"), 5);
	json_decref(v);
}

static void test_mailq_is_sorted_and_cut(void **state)
{
	json_t *v;

	(void)state;
	for (unsigned i = 1; i <= 30; i++) {
		char name[32];

		snprintf(name, sizeof(name), "q%u.example", i);
		for (unsigned n = 0; n < i; n++) {
			queue_mail(name, 1, n % 2 == 0 ? 0 : 60);
		}
	}
	v = result_of("mailq");
	assert_int_equal(json_array_size(at(v, "queues")), 20);
	assert_string_equal(text_at(v, "queues.0.domain"), "q30.example");
	assert_string_equal(text_at(v, "queues.19.domain"), "q11.example");
	assert_int_equal(number_at(v, "totals.active") + number_at(v, "totals.delayed"), 465);
	json_decref(v);
	v = result_of("mailq 3");
	assert_int_equal(json_array_size(at(v, "queues")), 3);
	assert_string_equal(text_at(v, "queues.2.domain"), "q28.example");
	json_decref(v);
	assert_error("mailq 0", "mailq shows 1 to 1000 queues");
}

/* ---- tests: what operators change ---- */

static json_t *result_for_id(const char *format, const struct message_id *id)
{
	char text[MESSAGE_ID_TEXT];
	char command[128];
	const char *place = strchr(format, '%');

	message_id_format(id, text);
	snprintf(command, sizeof(command), "%.*s%s%s", (int)(place - format), format, text,
		 place + 1);
	return result_of(command);
}

static void test_message_is_found_where_it_waits(void **state)
{
	struct message_id active = queue_mail("m.example", 2, 0);
	struct message_id delayed = queue_mail("n.example", 15, 120);
	json_t *v = result_for_id("message %", &active);

	(void)state;
	assert_string_equal(text_at(v, "sender"), "sender@here.example");
	assert_int_equal(number_at(v, "body_bytes"), 2048);
	assert_string_equal(text_at(v, "deliveries.0.place"), "active queue");
	assert_string_equal(text_at(v, "deliveries.0.domain"), "m.example");
	assert_string_equal(text_at(v, "deliveries.0.domain_held_by"),
			    "next hops are being looked up");
	assert_string_equal(text_at(v, "deliveries.0.recipients.1"), "r001@m.example");
	json_decref(v);
	v = result_for_id("message %", &delayed);
	assert_string_equal(text_at(v, "deliveries.0.place"), "delayed queue");
	assert_string_equal(text_at(v, "deliveries.0.last_reply"), "451 4.2.0 greylisted");
	assert_int_equal(number_at(v, "deliveries.0.attempts"), 1);
	assert_int_equal(json_array_size(at(v, "deliveries.0.recipients")), 11);
	assert_string_equal(text_at(v, "deliveries.0.recipients.10"), "and 5 more");
	json_decref(v);
	v = result_for_id("message % full", &delayed);
	assert_int_equal(json_array_size(at(v, "deliveries.0.recipients")), 15);
	json_decref(v);
	assert_error("message 00000000000000000000000001", "no delivery of message");
}

static void test_message_fail_and_retry(void **state)
{
	struct message_id a = queue_mail("m.example", 1, 600);
	struct message_id b = queue_mail("m.example", 1, 600);
	json_t *v = result_for_id("message fail % quiet", &a);

	(void)state;
	assert_int_equal(number_at(v, "deliveries"), 1);
	assert_int_equal(world->failed, 1);
	assert_true(world->failed_quietly);
	assert_int_equal(record("m.example")->delayed_count, 1);
	json_decref(v);
	v = result_for_id("message retry %", &b);
	assert_int_equal(number_at(v, "deliveries"), 1);
	assert_int_equal(record("m.example")->delayed_count, 0);
	assert_int_equal(record("m.example")->active_count, 1);
	json_decref(v);
}

static void test_flush_moves_delayed_to_active(void **state)
{
	json_t *v;

	(void)state;
	queue_mail("f.example", 1, 600);
	queue_mail("g.example", 1, 600);
	queue_mail("h.example", 1, 600);
	v = result_of("flush domain F.example");
	assert_int_equal(number_at(v, "messages_flushed"), 1);
	assert_int_equal(record("f.example")->active_count, 1);
	assert_int_equal(record("g.example")->active_count, 0);
	json_decref(v);
	v = result_of("flush domain all");
	assert_int_equal(number_at(v, "messages_flushed"), 2);
	assert_int_equal(record("h.example")->active_count, 1);
	json_decref(v);
}

static void test_fail_domain_fails_all_of_it(void **state)
{
	json_t *v;

	(void)state;
	queue_mail("f.example", 1, 600);
	queue_mail("f.example", 1, 0);
	queue_mail("g.example", 1, 0);
	v = result_of("fail domain f.example");
	assert_int_equal(number_at(v, "messages_failed"), 2);
	assert_int_equal(world->failed, 2);
	assert_false(world->failed_quietly);
	assert_int_equal(record("g.example")->active_count, 1);
	json_decref(v);
}

static void test_domain_is_suspended_before_it_has_mail(void **state)
{
	json_t *v = result_of("suspend domain s.example");

	(void)state;
	assert_string_equal(text_at(v, "state"), "suspended");
	json_decref(v);
	queue_mail("s.example", 1, 0);
	v = result_of("domain s.example");
	assert_string_equal(text_at(v, "held_by"), "suspended");
	assert_non_null(strstr(text_at(v, "reason"), "an operator suspended it"));
	json_decref(v);
	json_decref(result_of("resume domain s.example"));
	v = result_of("domain s.example");
	assert_string_equal(text_at(v, "held_by"), "next hops are being looked up");
	json_decref(v);
}

/* ---- tests: the program ---- */

static void test_threads_shows_agents_and_their_threads(void **state)
{
	json_t *v = result_of("threads");

	(void)state;
	assert_int_equal(json_array_size(at(v, "agents")), 4);
	assert_string_equal(text_at(v, "agents.1.agent"), "scheduler.0");
	assert_string_equal(text_at(v, "agents.3.thread"), "worker");
	assert_string_equal(text_at(v, "threads.1.idle"), "noop");
	assert_int_equal(number_at(v, "threads.1.core"), 3);
	assert_true(json_is_null(at(v, "threads.0.core")));
	json_decref(v);
}

static void test_counters_match_patterns(void **state)
{
	json_t *v = result_of("counters scheduler.?.delivered");

	(void)state;
	assert_int_equal(json_array_size(v), 2);
	assert_string_equal(text_at(v, "1.counter"), "scheduler.1.delivered");
	json_decref(v);
	v = result_of("counters inbound.open");
	assert_int_equal(json_array_size(v), 2);
	json_decref(v);
	v = result_of("counters");
	assert_true(json_array_size(v) > 20);
	json_decref(v);
	assert_error("counters nonsense", "no counter matches \"nonsense\"");
}

static void test_errors_come_from_all_agents(void **state)
{
	json_t *v;

	(void)state;
	agent_error(&world->other, -ENOSPC, "disk %d", 1);
	agent_error(&world->other, -ENOSPC, "disk %d", 1);
	agent_error(&world->schedulers[1].base, 0, "odd");
	v = result_of("errors");
	assert_int_equal(json_array_size(at(v, "errors")), 2);
	assert_string_equal(text_at(v, "errors.1.agent"), "worker.0");
	assert_string_equal(text_at(v, "errors.1.code"), "ENOSPC");
	assert_int_equal(number_at(v, "errors.1.count"), 2);
	assert_null(json_object_get(v, "agents_that_did_not_answer"));
	json_decref(v);
}

static void test_errors_do_not_wait_for_a_blocked_agent(void **state)
{
	char line[4096] = "";
	json_t *answer;

	(void)state;
	tell(world->client, "errors\n");
	step_groups(1, 10);
	assert_int_equal(recv(world->client, line, sizeof(line), 0), -1);
	world->now.mono_ns += 3 * NS_PER_S;
	step_groups(1, 10);
	assert_true(recv(world->client, line, sizeof(line), 0) > 0);
	answer = json_loads(line, 0, NULL);
	assert_string_equal(text_at(answer, "result.agents_that_did_not_answer.0"), "worker.0");
	json_decref(answer);
	step(5);
	json_decref(result_of("version"));
}

static void test_memory_shows_budgets_and_pools(void **state)
{
	json_t *v = result_of("memory");

	(void)state;
	assert_true(number_at(v, "resident_bytes") > 0);
	assert_int_equal(number_at(v, "memory_budget_bytes"), 1000000);
	assert_int_equal(json_array_size(at(v, "pools")), 2 * 8);
	json_decref(v);
}

static void test_shutdown_answers_then_stops(void **state)
{
	json_t *v = result_of("shutdown");

	(void)state;
	assert_true(runtime_stopping(&world->program.runtime));
	json_decref(v);
}

static void test_reopen_logs_without_a_log_agent(void **state)
{
	(void)state;
	assert_error("reopen logs", "no log agent runs");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_unknown_commands_are_told_apart),
		TEST(test_help_lists_every_command),
		TEST(test_pipelined_lines_are_answered_in_order),
		TEST(test_long_line_is_refused_and_the_connection_closed),
		TEST(test_nul_in_a_line_is_refused),
		TEST(test_idle_session_is_closed_after_a_minute),
		TEST(test_client_that_leaves_during_an_order_harms_nothing),
		TEST(test_stop_closes_idle_sessions_and_lets_orders_end),
		TEST(test_peer_must_be_root_or_of_our_user_or_group),
		TEST(test_stranger_is_refused_and_noted),
		TEST(test_summary_adds_schedulers_up),
		TEST(test_domain_says_what_holds_it_and_until_when),
		TEST(test_domain_names_hosts_and_the_last_trouble),
		TEST(test_unknown_domain_is_an_error_with_a_hint),
		TEST(test_domains_lists_all_of_many),
		TEST(test_listing_starts_anew_when_the_table_grows),
		TEST(test_active_and_delayed_show_only_longer_queues),
		TEST(test_mailq_is_sorted_and_cut),
		TEST(test_message_is_found_where_it_waits),
		TEST(test_message_fail_and_retry),
		TEST(test_flush_moves_delayed_to_active),
		TEST(test_fail_domain_fails_all_of_it),
		TEST(test_domain_is_suspended_before_it_has_mail),
		TEST(test_threads_shows_agents_and_their_threads),
		TEST(test_counters_match_patterns),
		TEST(test_errors_come_from_all_agents),
		TEST(test_errors_do_not_wait_for_a_blocked_agent),
		TEST(test_memory_shows_budgets_and_pools),
		TEST(test_shutdown_answers_then_stops),
		TEST(test_reopen_logs_without_a_log_agent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
