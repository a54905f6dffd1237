/*
 * From an accepted message to its end: two real schedulers, a spool writer on a directory of its
 * own, the log writer and the wheel in invoker mode, and servers that the test steps. What a
 * restart would find is looked at by opening the spool again.
 */
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

#define SCHEDULERS 2
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
};

static struct rig *rig;
/* NOTIFY of all recipients of the next messages. */
static uint16_t notify;

static uint64_t clock_mono(void *context)
{
	return ((struct rig *)context)->now.mono_ns;
}

static uint64_t clock_wall(void *context)
{
	return ((struct rig *)context)->now.wall_ns;
}

static void on_recovered(struct agent *self, void *context, struct delivery *delivery)
{
	rig->recovered++;
	scheduler_send_home(context, self, delivery);
}

static void write_config(void)
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
		"domain \"good.test\" { gateway = \"127.0.0.1:%u\" }\n"
		"domain \"other.test\" { gateway = \"127.0.0.1:%u\" }\n"
		"domain \"batch.test\" { gateway = \"127.0.0.1:%u\" max_recipients_per_batch = 2 }\n"
		"domain \"here.test\" { gateway = \"127.0.0.1:%u\" }\n",
		rig->path, rig->path, rig->good->port, rig->other->port, rig->good->port,
		rig->home->port);
}

static struct group *make_group(const char *name)
{
	struct idle idle = {.kind = IDLE_PARK};

	return runtime_group(&rig->program.runtime, name, -1, &idle);
}

static void open_spool(void)
{
	char path[80];
	struct spool_options options = {
		.path = path, .writers = 1, .segment_bytes = 1U << 20, .spare_segments = 1};

	snprintf(path, sizeof path, "%s/spool", rig->path);
	rig->program.spool = spool_open(&options, stderr, &rig->found);
	assert_non_null(rig->program.spool);
}

static void add_agents(void)
{
	static const char *const names[SCHEDULERS] = {"scheduler.0", "scheduler.1"};
	struct program *p = &rig->program;
	char log_path[80];
	struct log_options log_options = {.path = log_path};

	snprintf(log_path, sizeof log_path, "%s/log", rig->path);
	rig->log = log_writer_create("log", &log_options, stderr);
	assert_non_null(rig->log);
	p->log = log_writer_agent(rig->log);
	p->scheduler_count = SCHEDULERS;
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
}

static void settle(void)
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

static void start(void)
{
	struct clock clock = {clock_mono, clock_wall, rig};
	struct runtime *rt = &rig->program.runtime;

	memset(&rig->program, 0, sizeof rig->program);
	rig->recovered = 0;
	rig->program.config =
		config_load_text("test.conf", rig->config, strlen(rig->config), stderr);
	assert_non_null(rig->program.config);
	open_spool();
	runtime_init(rt, &clock);
	rt->backend = MUX_POLL;
	rig->program.limits.connections_max = 100;
	rig->program.epoch = UINT64_C(1) << 40;
	add_agents();
	assert_int_equal(runtime_prepare(rt), 0);
	assert_int_equal(runtime_invoke_start(rt), 0);
	settle();
}

/* Stops in order; the servers go on. `hurry`: what is under way is given up. */
static void stop(bool hurry)
{
	struct program *p = &rig->program;
	bool finished = false;

	runtime_stop(&p->runtime);
	atomic_store(&p->runtime.hurry, hurry);
	for (unsigned i = 0; !finished && i < 2000; i++) {
		outbound_step(rig->servers);
		finished = runtime_invoke_stop(&p->runtime, 1);
	}
	assert_true(finished);
	runtime_close(&p->runtime);
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		scheduler_close(&rig->schedulers[i]);
	}
	agent_close(&rig->writer.base);
	wheel_agent_destroy(rig->wheel);
	log_writer_destroy(rig->log);
	spool_close(p->spool);
	config_release(p->config);
}

static int set_up(void **state)
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

static void remove_directory(const char *path)
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

static int tear_down(void **state)
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

static void pass_ms(uint64_t ms)
{
	rig->now.mono_ns += ms * NS_PER_MS;
	rig->now.wall_ns += ms * NS_PER_MS;
	settle();
}

static void enter(struct scheduler *s)
{
	agent_current = &s->base;
	s->base.now = rig->now;
}

static void leave(struct scheduler *s)
{
	agent_flush(&s->base);
	agent_current = NULL;
}

static void on_stored(struct scheduler *s, void *owner, int result)
{
	(void)s;
	(void)owner;
	rig->stored++;
	rig->store_result = result;
}

/* A message received by scheduler 0; recipients as "a@b,c@d". */
static void receive(const char *sender, const char *recipients, enum envelope_durability durability)
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
	chain_printf(&m->body, &s->pools.buffers, "Subject: test\r\n\r\nHello.\r\n");
	e->body_bytes = m->body.len;
	scheduler_store(s, m, on_stored, NULL);
	leave(s);
	envelope_builder_close(&b);
}

static uint64_t total(size_t offset)
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

static struct domain *record(const char *name)
{
	uint32_t home = home_of(&rig->program, BINDING_DEFAULT, name);
	struct domain *d =
		domain_find(&rig->schedulers[home].dispatcher.domains, BINDING_DEFAULT, name);

	assert_non_null(d);
	return d;
}

/* Lines of the main log that hold `text`. */
static unsigned logged(const char *text)
{
	char path[96];
	char line[4096];
	unsigned count = 0;
	FILE *f;

	snprintf(path, sizeof path, "%s/log/mainlog", rig->path);
	f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof line, f) != NULL) {
		count += strstr(line, text) != NULL;
	}
	fclose(f);
	return count;
}

/* Nothing is left anywhere: neither in memory nor for a restart. */
static void assert_nothing_left(void)
{
	stop(false);
	start();
	assert_int_equal(rig->found.messages, 0);
	assert_int_equal(rig->recovered, 0);
}

/* ---- reception ---- */

static void test_ids_are_unique_and_sorted(void **state)
{
	struct message_id last = {0, 0};

	(void)state;
	for (unsigned i = 0; i < 10000; i++) {
		struct message_id id;

		enter(&rig->schedulers[0]);
		id = scheduler_new_id(&rig->schedulers[0]);
		leave(&rig->schedulers[0]);
		assert_true(id.high > last.high || (id.high == last.high && id.low > last.low));
		last = id;
		if (i % 100 == 0) {
			rig->now.wall_ns += NS_PER_MS;
		}
	}
	enter(&rig->schedulers[1]);
	assert_true(scheduler_new_id(&rig->schedulers[1]).low >> 56 != last.low >> 56);
	leave(&rig->schedulers[1]);
}

static void test_is_answered_when_stored_and_delivered(void **state)
{
	(void)state;
	receive("me@here.test", "a@good.test,b@good.test", ENVELOPE_SYNCED);
	assert_int_equal(rig->stored, 0);
	settle();
	assert_int_equal(rig->stored, 1);
	assert_int_equal(rig->store_result, 0);
	assert_int_equal(rig->good->bodies, 1);
	assert_int_equal(TOTAL(received), 1);
	assert_int_equal(TOTAL(recipients), 2);
	assert_int_equal(TOTAL(delivered), 2);
	assert_int_equal(logged("@D@"), 2);
	assert_int_equal(program_resident_bytes(&rig->program), 0);
	assert_nothing_left();
}

/* Each domain has its home, and the body stays until nobody reads it any more. */
static void test_body_is_dropped_by_the_last_that_defers(void **state)
{
	(void)state;
	receive("me@here.test", "later@good.test,later@other.test,x@batch.test", ENVELOPE_SYNCED);
	rig->other->reply[PEER_RCPT] = PEER_SILENT;
	settle();
	assert_int_equal(TOTAL(transient), 1);
	assert_int_equal(TOTAL(delivered), 1);
	/* One still reads it. */
	assert_int_equal(TOTAL(bodies_dropped), 0);
	assert_true(program_resident_bytes(&rig->program) > 0);
	for (unsigned i = 0; i < PEER_CONNECTIONS_MAX; i++) {
		if (rig->other->connections[i].fd >= 0) {
			assert_int_equal(
				write(rig->other->connections[i].fd, "451 4.2.1 later\r\n", 17),
				17);
		}
	}
	settle();
	assert_int_equal(TOTAL(transient), 2);
	assert_int_equal(TOTAL(bodies_dropped), 1);
	assert_int_equal(program_resident_bytes(&rig->program), 0);
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	rig->other->reply[PEER_RCPT] = "250 2.1.5 fine";
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 3);
	assert_int_equal(TOTAL(bodies_loaded), 2);
	assert_int_equal(rig->other->body_bytes, rig->good->body_bytes / 2);
	assert_nothing_left();
}

/* ---- what becomes of an attempt ---- */

static void test_bounce_for_who_failed(void **state)
{
	(void)state;
	receive("me@here.test", "bad1@good.test,a@good.test,bad2@good.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(delivered), 2);
	assert_int_equal(TOTAL(failed), 2);
	/* One for both. */
	assert_int_equal(TOTAL(bounces), 1);
	assert_int_equal(rig->home->bodies, 1);
	assert_non_null(strstr(rig->home->log, "MAIL FROM:<>\nRCPT TO:<me@here.test>\n"));
	assert_int_equal(logged("@P@"), 2);
	assert_int_equal(logged("550 5.1.1 no such user"), 2);
	assert_int_equal(record("good.test")->settling_count, 0);
	assert_nothing_left();
}

static void test_no_bounce_for_the_null_sender(void **state)
{
	(void)state;
	receive("", "bad1@good.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(failed), 1);
	assert_int_equal(TOTAL(bounces), 0);
	assert_nothing_left();
}

static void test_no_bounce_where_none_is_wanted(void **state)
{
	(void)state;
	notify = ENVELOPE_NOTIFY_NEVER;
	receive("me@here.test", "bad1@good.test,a@good.test", ENVELOPE_SYNCED);
	settle();
	notify = ENVELOPE_NOTIFY_SUCCESS;
	rig->good->reply[PEER_EHLO] = "250-good\r\n250 DSN";
	receive("me@here.test", "bad1@other.test,bad2@other.test", ENVELOPE_SYNCED);
	settle();
	notify = ENVELOPE_NOTIFY_DELAY;
	receive("me@here.test", "bad1@other.test,a@other.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(failed), 4);
	assert_int_equal(TOTAL(delivered), 2);
	assert_int_equal(TOTAL(bounces), 0);
	assert_nothing_left();
}

/* The sender asked for it, and the next hop does not know how to. */
static void test_notice_of_what_was_relayed(void **state)
{
	(void)state;
	notify = ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_FAILURE;
	receive("me@here.test", "bad1@good.test,a@good.test,b@good.test", ENVELOPE_SYNCED);
	settle();
	/* With the notice itself. */
	assert_int_equal(TOTAL(delivered), 3);
	assert_int_equal(TOTAL(failed), 1);
	assert_int_equal(TOTAL(bounces), 1);
	assert_non_null(strstr(rig->home->log, "MAIL FROM:<>\nRCPT TO:<me@here.test>\n"));
	assert_null(strstr(rig->good->log, "NOTIFY"));
	assert_nothing_left();
}

static void test_notice_is_left_to_a_next_hop_with_dsn(void **state)
{
	(void)state;
	rig->good->reply[PEER_EHLO] = "250-good\r\n250 DSN";
	notify = ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_FAILURE;
	receive("me@here.test", "a@good.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(delivered), 1);
	assert_int_equal(TOTAL(bounces), 0);
	assert_non_null(strstr(rig->good->log, "RCPT TO:<a@good.test> NOTIFY=SUCCESS,FAILURE "
					       "ORCPT=rfc822;old@x\n"));
	/* What it refuses is ours to tell. */
	receive("me@here.test", "bad1@good.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(bounces), 1);
	assert_nothing_left();
}

/* A bounce that fails is the end of it. */
static void test_no_bounce_of_a_bounce(void **state)
{
	(void)state;
	rig->home->reply[PEER_RCPT] = "550 5.1.1 nobody here";
	receive("me@here.test", "bad1@good.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(bounces), 1);
	assert_int_equal(TOTAL(failed), 2);
	assert_int_equal(TOTAL(received), 2);
	assert_nothing_left();
}

static void test_bounce_when_expired(void **state)
{
	(void)state;
	receive("me@here.test", "later@good.test,a@good.test", ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(transient), 1);
	for (unsigned i = 0; i < EXPIRES_MS / RETRY_MS; i++) {
		pass_ms(RETRY_MS);
	}
	assert_int_equal(TOTAL(failed), 1);
	assert_int_equal(TOTAL(bounces), 1);
	assert_int_equal(rig->home->bodies, 1);
	assert_int_equal(logged("exceeded max time without delivery"), 1);
	assert_nothing_left();
}

static void test_deferred_survives_a_restart(void **state)
{
	(void)state;
	receive("me@here.test", "later@good.test,a@good.test", ENVELOPE_SYNCED);
	settle();
	pass_ms(RETRY_MS);
	assert_int_equal(record("good.test")->delayed[0]->attempts, 2);
	stop(false);
	start();
	assert_int_equal(rig->found.messages, 1);
	assert_int_equal(record("good.test")->delayed_count, 1);
	assert_int_equal(record("good.test")->delayed[0]->attempts, 2);
	assert_int_equal(recipient_set_count(&record("good.test")->delayed[0]->pending), 1);
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 1);
	assert_int_equal(rig->good->bodies, 2);
	assert_nothing_left();
}

/* A batch is no attempt of those whose turn has not come, and one that defers holds nobody up. */
static void test_batches(void **state)
{
	(void)state;
	receive("me@here.test",
		"later1@batch.test,b@batch.test,c@batch.test,d@batch.test,e@batch.test",
		ENVELOPE_SYNCED);
	settle();
	assert_int_equal(TOTAL(delivered), 4);
	assert_int_equal(TOTAL(transient), 1);
	assert_int_equal(record("batch.test")->delayed_count, 1);
	assert_int_equal(record("batch.test")->delayed[0]->attempts, 1);
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 5);
	assert_nothing_left();
}

/* An operator's fail during one batch is for all of the delivery. */
static void test_fail_during_a_batch(void **state)
{
	struct domain *d;
	struct scheduler *s =
		&rig->schedulers[home_of(&rig->program, BINDING_DEFAULT, "batch.test")];

	(void)state;
	rig->good->reply[PEER_BODY] = PEER_SILENT;
	receive("me@here.test", "a@batch.test,b@batch.test,c@batch.test", ENVELOPE_SYNCED);
	settle();
	d = record("batch.test");
	assert_int_equal(d->attempt_count, 1);
	enter(s);
	dispatch_fail_delivery(&s->dispatcher, d->connections->delivery, false);
	leave(s);
	assert_int_equal(write(rig->good->connections[0].fd, "250 2.0.0 kept\r\n", 16), 16);
	settle();
	assert_int_equal(TOTAL(delivered), 3);
	assert_int_equal(TOTAL(failed), 1);
	assert_int_equal(TOTAL(bounces), 1);
	assert_int_equal(rig->good->bodies, 1);
	assert_nothing_left();
}

/* ---- durability "memory" ---- */

static void test_memory_is_delivered_without_the_spool(void **state)
{
	(void)state;
	receive("me@here.test", "a@good.test", ENVELOPE_MEMORY);
	settle();
	assert_int_equal(rig->stored, 1);
	assert_int_equal(TOTAL(delivered), 1);
	assert_int_equal(rig->writer.pools.deliveries.live, 0);
	assert_nothing_left();
}

static void test_memory_is_kept_when_deferred(void **state)
{
	(void)state;
	receive("me@here.test", "later@good.test", ENVELOPE_MEMORY);
	settle();
	assert_non_null(record("good.test")->delayed[0]->message->spool);
	assert_int_equal(program_resident_bytes(&rig->program), 0);
	stop(false);
	start();
	assert_int_equal(rig->found.messages, 1);
	rig->good->reply[PEER_RCPT] = "250 2.1.5 fine";
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 1);
	assert_nothing_left();
}

static void test_memory_is_kept_at_stop(void **state)
{
	(void)state;
	rig->good->reply[PEER_BODY] = PEER_SILENT;
	for (unsigned i = 0; i < 5; i++) {
		receive("me@here.test", "a@good.test", ENVELOPE_MEMORY);
	}
	settle();
	/* One is on a connection, four wait. */
	assert_int_equal(record("good.test")->active_count, 4);
	stop(true);
	rig->good->reply[PEER_BODY] = "250 2.0.0 kept";
	start();
	assert_int_equal(rig->found.messages, 5);
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 5);
	assert_nothing_left();
}

/* On a connection that had carried another one, what was begun and cut off was no attempt, but it
 * is not to be lost for that. */
static void test_memory_is_kept_at_stop_when_not_tried(void **state)
{
	(void)state;
	receive("me@here.test", "a@good.test", ENVELOPE_MEMORY);
	settle();
	rig->good->reply[PEER_MAIL] = PEER_SILENT;
	receive("me@here.test", "b@good.test", ENVELOPE_MEMORY);
	settle();
	assert_int_equal(record("good.test")->attempt_count, 1);
	stop(true);
	rig->good->reply[PEER_MAIL] = "250 2.1.0 fine";
	start();
	assert_int_equal(rig->found.messages, 1);
	pass_ms(RETRY_MS);
	assert_int_equal(rig->good->bodies, 2);
	assert_nothing_left();
}

static void test_memory_for_several_domains_is_stored(void **state)
{
	(void)state;
	rig->good->reply[PEER_BODY] = PEER_SILENT;
	rig->other->reply[PEER_BODY] = PEER_SILENT;
	receive("me@here.test", "a@good.test,a@other.test", ENVELOPE_MEMORY);
	settle();
	assert_non_null(record("good.test")->connections->delivery->message->spool);
	stop(true);
	rig->good->reply[PEER_BODY] = "250 2.0.0 kept";
	rig->other->reply[PEER_BODY] = "250 2.0.0 kept";
	start();
	assert_int_equal(rig->found.deliveries, 2);
	pass_ms(RETRY_MS);
	assert_int_equal(TOTAL(delivered), 2);
	assert_nothing_left();
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ids_are_unique_and_sorted),
		TEST(test_is_answered_when_stored_and_delivered),
		TEST(test_body_is_dropped_by_the_last_that_defers),
		TEST(test_bounce_for_who_failed),
		TEST(test_no_bounce_for_the_null_sender),
		TEST(test_no_bounce_where_none_is_wanted),
		TEST(test_notice_of_what_was_relayed),
		TEST(test_notice_is_left_to_a_next_hop_with_dsn),
		TEST(test_no_bounce_of_a_bounce),
		TEST(test_bounce_when_expired),
		TEST(test_deferred_survives_a_restart),
		TEST(test_batches),
		TEST(test_fail_during_a_batch),
		TEST(test_memory_is_delivered_without_the_spool),
		TEST(test_memory_is_kept_when_deferred),
		TEST(test_memory_is_kept_at_stop),
		TEST(test_memory_is_kept_at_stop_when_not_tried),
		TEST(test_memory_for_several_domains_is_stored),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
