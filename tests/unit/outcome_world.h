/*
 * A program of two schedulers, or of SCHEDULERS, a spool writer, a wheel and a log on a real
 * directory, stepped by hand, with SMTP servers of outbound_world.h as next hops: "good.test" and
 * "batch.test" have one, "other.test" and "here.test", where senders live, one each.
 *
 * Start reading at receive(), then at settle(). For test_outcome*.c, and by move_world.h, only,
 * each of which has its own copy.
 */
#pragma once

#include <dirent.h>
#include <fcntl.h>
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

#include "agents/log_writer.h"
#include "agents/scheduler.h"
#include "agents/spool_writer.h"
#include "core/queue/retry.h"
#include "tests/unit/outbound_world.h"

#ifndef SCHEDULERS
#define SCHEDULERS 2
#endif
#define RETRY_MS 600000
#define EXPIRES_MS 6000000

struct rig {
	struct program program;
	struct scheduler schedulers[SCHEDULERS];
	struct spool_writer writer;
	struct wheel_agent *wheel;
	struct log_writer *log;
	struct spool_recovery found;
	/* Only for its servers. */
	struct outbound_world *servers;
	struct peer *good;
	struct peer *other;
	struct peer *home;
	struct instant now;
	char path[64];
	char config[2048];
	unsigned stored;
	int store_result;
	uint64_t recovered;
	/* Bodies of messages that are received are longer by so many lines of 80 bytes. */
	unsigned more_lines;
};

static struct rig *rig;
/* Called when agents are there and do not run yet; NULL: nothing. */
static void (*on_made)(void);
/* Called when they do not run any more, and are still there; NULL: nothing. */
static void (*on_ended)(void);
/* NOTIFY of all recipients of the next messages. */
static uint16_t notify;

static inline uint64_t clock_mono(void *context)
{
	return ((struct rig *)context)->now.mono_ns;
}

static inline uint64_t clock_wall(void *context)
{
	return ((struct rig *)context)->now.wall_ns;
}

/* Nobody has looked at the clock yet. */
static inline void turn_clock(uint64_t ms)
{
	rig->now.mono_ns += ms * NS_PER_MS;
	rig->now.wall_ns += ms * NS_PER_MS;
}

static inline void on_recovered(struct agent *self, void *context, struct delivery *delivery)
{
	rig->recovered++;
	scheduler_send_home(context, self, delivery);
}

static inline void write_config(void)
{
	snprintf(
		rig->config, sizeof rig->config,
		"hostname = \"mta.test\"\n"
		"spool { path = \"%s\" }\n"
		"log { path = \"%s/log\" }\n"
		"retry_interval = \"600s\"\n"
		"max_retry_interval = \"600s\"\n"
		"message_expiration = \"6000s\"\n"
		"max_outbound_connections = 1\n"
		"memory_budget = \"1M\"\n"
		"domain \"good.test\" { gateway = \"127.0.0.1:%u\" }\n"
		"domain \"other.test\" { gateway = \"127.0.0.1:%u\" }\n"
		"domain \"batch.test\" { gateway = \"127.0.0.1:%u\" max_recipients_per_batch = 2 }\n"
		"domain \"here.test\" { gateway = \"127.0.0.1:%u\" }\n",
		rig->path, rig->path, rig->good->port, rig->other->port, rig->good->port,
		rig->home->port);
}

static inline struct group *make_group(const char *name)
{
	struct idle idle = {.kind = IDLE_PARK};

	return runtime_group(&rig->program.runtime, name, -1, &idle);
}

static inline void open_spool(void)
{
	char path[80];
	struct spool_options options = {
		.path = path, .writers = 1, .segment_bytes = 1U << 20, .spare_segments = 1};

	snprintf(path, sizeof path, "%s/spool", rig->path);
	rig->program.spool = spool_open(&options, stderr, &rig->found);
	assert_non_null(rig->program.spool);
}

static inline void add_agents(void)
{
	static const char *const names[] = {"scheduler.0", "scheduler.1", "scheduler.2"};
	struct program *p = &rig->program;
	char log_path[80];
	struct log_options log_options = {.path = log_path, .transient_failures = true};

	snprintf(log_path, sizeof log_path, "%s/log", rig->path);
	rig->log = log_writer_create("log", &log_options, stderr);
	assert_non_null(rig->log);
	p->log = log_writer_agent(rig->log);
	p->scheduler_count = SCHEDULERS;
	p->home_count = SCHEDULERS;
	_Static_assert(SCHEDULERS <= sizeof names / sizeof names[0], "they have names");
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		p->schedulers[i] = &rig->schedulers[i];
		scheduler_init(p->schedulers[i], names[i], p, i);
		runtime_add(&p->runtime, make_group(names[i]), &p->schedulers[i]->base);
	}
	spool_writer_init(&rig->writer, "spool.0", p->spool, 0, on_recovered, p);
	runtime_add(&p->runtime, make_group("spool.0"), &rig->writer.base);
	rig->wheel = wheel_agent_create("wheel");
	runtime_add(&p->runtime, make_group("wheel"), wheel_agent_base(rig->wheel));
	runtime_set_wheel(&p->runtime, wheel_agent_base(rig->wheel), wheel_agent_on_arm);
	runtime_add(&p->runtime, make_group("log"), p->log);
	p->resolver = resolver_create("resolver", &config_global(p->config)->resolver, stderr);
	assert_non_null(p->resolver);
	runtime_add(&p->runtime, make_group("resolver"), resolver_agent(p->resolver));
}

static inline void settle(void)
{
	unsigned quiet = 0;

	for (unsigned i = 0; quiet < 5; i++) {
		int work = runtime_step(&rig->program.runtime) + outbound_step(rig->servers);

		assert_true(i < 20000);
		quiet = work > 0 ? 0 : quiet + 1;
		if (quiet > 1) {
			poll(NULL, 0, 1);
		}
	}
}

static inline void start(void)
{
	struct clock clock = {clock_mono, clock_wall, rig};
	struct runtime *rt = &rig->program.runtime;

	memset(&rig->program, 0, sizeof rig->program);
	rig->recovered = 0;
	rig->program.config =
		config_load_text("test.conf", rig->config, strlen(rig->config), stderr);
	assert_non_null(rig->program.config);
	rig->program.bounce_rules = bounce_rules_load(NULL, stderr);
	open_spool();
	runtime_init(rt, &clock);
	rt->backend = MUX_POLL;
	rig->program.limits.connections_max = 100;
	rig->program.epoch = UINT64_C(1) << 40;
	add_agents();
	if (on_made != NULL) {
		on_made();
	}
	assert_int_equal(runtime_prepare(rt), 0);
	assert_int_equal(runtime_invoke_start(rt), 0);
	settle();
}

/* Stops in order, in 2 s at most; the servers go on. `hurry`: what is under way is given up. */
static inline void stop(bool hurry)
{
	struct program *p = &rig->program;
	bool finished = false;

	runtime_stop(&p->runtime);
	atomic_store(&p->runtime.hurry, hurry);
	for (unsigned i = 0; !finished && i < 2000; i++) {
		outbound_step(rig->servers);
		turn_clock(1);
		finished = runtime_invoke_stop(&p->runtime, 1);
	}
	assert_true(finished);
	runtime_close(&p->runtime);
	if (on_ended != NULL) {
		on_ended();
	}
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		scheduler_close(&rig->schedulers[i]);
	}
	agent_close(&rig->writer.base);
	resolver_destroy(p->resolver);
	wheel_agent_destroy(rig->wheel);
	log_writer_destroy(rig->log);
	spool_close(p->spool);
	bounce_rules_free(p->bounce_rules);
	config_release(p->config);
}

static inline int set_up(void **state)
{
	(void)state;
	rig = aligned_alloc(CACHE_LINE, (sizeof *rig + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1));
	assert_non_null(rig);
	memset(rig, 0, sizeof *rig);
	notify = 0;
	strcpy(rig->path, "/tmp/flywheel-outcome-XXXXXX");
	assert_non_null(mkdtemp(rig->path));
	rig->now = (struct instant){1000 * NS_PER_S, UINT64_C(1750000000) * NS_PER_S};
	rig->servers = outbound_new(MUX_POLL);
	rig->good = outbound_peer(rig->servers);
	rig->other = outbound_peer(rig->servers);
	rig->home = outbound_peer(rig->servers);
	for (unsigned i = 0; i < rig->servers->peer_count; i++) {
		rig->servers->peers[i].any_body = true;
	}
	write_config();
	start();
	return 0;
}

static inline void remove_directory(const char *path)
{
	DIR *d = opendir(path);
	const struct dirent *entry;

	assert_non_null(d);
	while ((entry = readdir(d)) != NULL) {
		unlinkat(dirfd(d), entry->d_name, 0);
	}
	closedir(d);
	assert_int_equal(rmdir(path), 0);
}

static inline int tear_down(void **state)
{
	char path[80];

	(void)state;
	stop(true);
	outbound_free(rig->servers);
	snprintf(path, sizeof path, "%s/spool", rig->path);
	remove_directory(path);
	snprintf(path, sizeof path, "%s/log", rig->path);
	remove_directory(path);
	rmdir(rig->path);
	free(rig);
	return 0;
}

/* ---- helpers ---- */

static inline void pass_ms(uint64_t ms)
{
	turn_clock(ms);
	settle();
}

static inline void enter(struct scheduler *s)
{
	agent_current = &s->base;
	s->base.now = rig->now;
}

static inline void leave(struct scheduler *s)
{
	agent_flush(&s->base);
	agent_current = NULL;
}

static inline void on_stored(struct scheduler *s, void *owner, int result)
{
	(void)s;
	(void)owner;
	rig->stored++;
	rig->store_result = result;
}

/* A message received by scheduler 0; recipients as "a@b,c@d". */
static inline void receive(const char *sender, const char *recipients,
			   enum envelope_durability durability)
{
	struct scheduler *s = &rig->schedulers[0];
	struct envelope_builder b;
	struct message *m;
	struct envelope *e;

	envelope_builder_init(&b);
	envelope_set_sender(&b, sender, strlen(sender));
	while (*recipients != '\0') {
		size_t len = strcspn(recipients, ",");

		envelope_add_recipient(&b, recipients, len);
		envelope_set_notify(&b, notify, "rfc822;old@x", 12);
		recipients += len + (recipients[len] == ',');
	}
	enter(s);
	m = message_create(&s->pools, envelope_size(&b));
	e = message_envelope(m);
	envelope_build(&b, e);
	e->id = scheduler_new_id(s);
	e->received_ms = agent_wall_ms(&s->base);
	e->durability = (uint8_t)durability;
	chain_printf(message_body(m), &s->pools.buffers, "Subject: test\r\n\r\nHello.\r\n");
	for (unsigned i = 0; i < rig->more_lines; i++) {
		chain_printf(message_body(m), &s->pools.buffers, "%078u\r\n", i);
	}
	e->body_bytes = message_body(m)->len;
	scheduler_store(s, m, on_stored, NULL);
	leave(s);
	envelope_builder_close(&b);
}

static inline uint64_t total(size_t offset)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		const struct counter *const *c =
			(const struct counter *const
				 *)(const void *)((const char *)&rig->schedulers[i] + offset);

		sum += counter_get(*c);
	}
	return sum;
}

#define TOTAL(member) total(offsetof(struct scheduler, member))

static inline struct domain *record(const char *name)
{
	uint32_t home = home_of(&rig->program, BINDING_DEFAULT, name);
	struct domain *d =
		domain_find(&rig->schedulers[home].dispatcher.domains, BINDING_DEFAULT, name);

	assert_non_null(d);
	return d;
}

/* Lines of a log that hold `text`. */
static inline unsigned logged_in(const char *log, const char *text)
{
	char path[96];
	char line[4096];
	unsigned count = 0;
	FILE *f;

	snprintf(path, sizeof path, "%s/log/%s", rig->path, log);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof line, f) != NULL) {
		count += strstr(line, text) != NULL;
	}
	fclose(f);
	return count;
}

static inline unsigned logged(const char *text)
{
	return logged_in("mainlog", text);
}

/* Nothing is left anywhere: neither in memory nor for a restart. */
static inline void assert_nothing_left(void)
{
	stop(false);
	start();
	assert_int_equal(rig->found.messages, 0);
	assert_int_equal(rig->recovered, 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
