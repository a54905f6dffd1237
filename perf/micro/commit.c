/*
 * Commits of the real spool writer, stepped by hand on one thread. Two batches of messages are on
 * their way at a time: while one is written and synced the writer stages the other, and a batch
 * that has been answered is handed over again. The reference writes as many bytes, as they are in
 * the spool, in one piece into a file that was written before, and syncs.
 *
 * The spool is run through before, so that its segments have been written once, as in the long run.
 * Messages are finished between two runs, outside of what is timed.
 */
#include <err.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "agents/spool_writer.h"
#include "core/mail/message.h"
#include "core/runtime/check.h"
#include "core/runtime/runtime.h"
#include "perf/micro/body.h"
#include "perf/micro/disk.h"
#include "perf/micro/measure.h"
#include "perf/micro/micro.h"
#include "perf/micro/pair.h"
#include "spool/record.h"
#include "spool/spool.h"

#define BATCH_MAX 256
/* Batches on their way. */
#define BATCHES 2
#define SEGMENT_BYTES (UINT64_C(64) << 20)
#define SEGMENTS 4
/* One run ends when so much was written, or so much time has gone. */
#define RUN_BYTES (UINT64_C(48) << 20)
#define RUN_NS (300 * NS_PER_MS)
#define STORED_MAX (RUN_BYTES / BODY_2K + (BATCHES + 1) * BATCH_MAX)

enum { SIZE_2K, SIZE_10K, SIZES };

/* What a case's own points to. */
struct size {
	unsigned index;
	size_t bytes;
};

static const struct size size_2k = {SIZE_2K, BODY_2K};
static const struct size size_10k = {SIZE_10K, BODY_10K};

static struct {
	struct spool *spool;
	struct runtime runtime;
	struct spool_writer writer;
	struct agent client;
	struct mail_pools pools;
	/* Stored again and again, with a new id each time. */
	struct message *messages[SIZES][BATCHES][BATCH_MAX];
	struct spool_request requests[BATCHES][BATCH_MAX];
	/* Of each batch, not answered yet. */
	unsigned under_way[BATCHES];
	struct spool_entry *stored[STORED_MAX];
	unsigned stored_count;
	uint64_t next_id;
	struct disk_file bare;
} world;

/* ---- the spool and its writer ---- */

/* Without work it leaves the core as spinning groups do, only sooner: see core/runtime/idle.c. */
static void step(void)
{
	if (runtime_step(&world.runtime) == 0) {
		sched_yield();
	}
}

static void on_recovered(struct agent *self, void *context, struct delivery *delivery)
{
	(void)self;
	(void)context;
	(void)delivery;
	errx(2, "a new spool was not empty");
}

static void on_answer(struct agent *self, void *object, uint64_t value)
{
	const struct spool_request *r = object;

	(void)self;
	(void)value;
	if (r->result != 0) {
		errx(2, "the spool: %s", strerror(-r->result));
	}
	if (r->verb == SPOOL_STORE) {
		ASSERT(world.stored_count < STORED_MAX);
		world.stored[world.stored_count++] = r->message->spool;
	}
	--*(unsigned *)r->owner;
}

/* Hands over the first `count` requests of a batch. */
static void submit(unsigned batch, unsigned count)
{
	agent_current = &world.client;
	for (unsigned i = 0; i < count; i++) {
		struct spool_request *r = &world.requests[batch][i];

		r->from = &world.client;
		r->on_done = on_answer;
		r->owner = &world.under_way[batch];
		spool_submit(world.spool, &world.client, r);
	}
	agent_flush(&world.client);
	agent_current = NULL;
	world.under_way[batch] += count;
}

static void settle(unsigned batch)
{
	while (world.under_way[batch] > 0) {
		step();
	}
}

/* Until upkeep has nothing to do any more. */
static void rest(void)
{
	for (unsigned idle = 0; idle < 1000;) {
		idle = runtime_step(&world.runtime) == 0 &&
				       mux_pending(world.runtime.groups[0]->mux) == 0
			       ? idle + 1
			       : 0;
	}
}

/* Hands over a batch of messages. The writer has begun with it, or is still busy with another. */
static void store(const struct size *size, unsigned batch, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct message *m = world.messages[size->index][batch][i];

		m->spool = NULL;
		message_envelope(m)->id.low = world.next_id++;
		world.requests[batch][i] =
			(struct spool_request){.verb = SPOOL_STORE, .message = m};
	}
	submit(batch, count);
	step();
}

/* All that is stored is over; its segments become free. */
static void finish_all(void)
{
	while (world.stored_count > 0) {
		unsigned n = world.stored_count < BATCH_MAX ? world.stored_count : BATCH_MAX;

		for (unsigned i = 0; i < n; i++) {
			world.requests[0][i] = (struct spool_request){
				.verb = SPOOL_DONE,
				.entry = world.stored[--world.stored_count],
			};
		}
		submit(0, n);
		settle(0);
	}
	rest();
}

static void start_writer(void)
{
	static const struct agent_ops ops = {.kind = "client", .do_work = pair_no_work};
	static struct spool_options options = {.writers = 1, .spare_segments = SEGMENTS};
	const struct idle idle = {.kind = IDLE_NOOP};
	struct group *g;

	options.path = micro.directory;
	options.segment_bytes = micro_count(SEGMENT_BYTES, SEGMENT_BYTES / 64);
	world.spool = spool_open(&options, stderr, NULL);
	if (world.spool == NULL) {
		exit(2);
	}
	runtime_init(&world.runtime, &clock_system);
	g = runtime_group(&world.runtime, "commit", -1, &idle);
	spool_writer_init(&world.writer, "spool.0", world.spool, 0, on_recovered, NULL);
	runtime_add(&world.runtime, g, &world.writer.base);
	agent_init(&world.client, &ops, "client", 0);
	runtime_add(&world.runtime, g, &world.client);
	if (runtime_prepare(&world.runtime) != 0 || runtime_invoke_start(&world.runtime) != 0) {
		errx(2, "the spool writer cannot start");
	}
}

/* ---- the group ---- */

static struct message *make_message(struct envelope_builder *b, size_t bytes)
{
	unsigned char body[BODY_10K];
	struct message *m;
	struct envelope *e;

	envelope_builder_reset(b);
	envelope_set_sender(b, "news@sender.example", 19);
	envelope_add_recipient(b, "someone@receiver.example", 24);
	m = message_create(&world.pools, envelope_size(b));
	e = message_envelope(m);
	envelope_build(b, e);
	e->id = (struct message_id){.high = 4711};
	e->durability = ENVELOPE_SYNCED;
	e->body_bytes = bytes;
	body_fill(body, bytes);
	chain_append(message_body(m), &world.pools.buffers, body, bytes);
	message_set_resident(m, &world.pools);
	return m;
}

static void make_messages(void)
{
	struct envelope_builder b;

	envelope_builder_init(&b);
	for (unsigned i = 0; i < BATCHES * BATCH_MAX; i++) {
		world.messages[SIZE_2K][i / BATCH_MAX][i % BATCH_MAX] = make_message(&b, BODY_2K);
		world.messages[SIZE_10K][i / BATCH_MAX][i % BATCH_MAX] = make_message(&b, BODY_10K);
	}
	envelope_builder_close(&b);
}

static void begin(void)
{
	uint64_t segments = micro_count((SEGMENTS - 1) * SEGMENT_BYTES, 1);

	measure_unpin();
	mail_pools_init(&world.pools);
	make_messages();
	start_writer();
	for (uint64_t written = 0; written < segments; written += BATCH_MAX * BODY_10K) {
		store(&size_10k, 0, BATCH_MAX);
		settle(0);
		if (world.stored_count + BATCH_MAX > STORED_MAX) {
			finish_all();
		}
	}
	finish_all();
	disk_open(&world.bare, micro_count(SEGMENT_BYTES, SEGMENT_BYTES / 8),
		  BATCH_MAX * (BODY_10K + 1024));
}

static void end(void)
{
	disk_close(&world.bare);
	if (!runtime_invoke_stop(&world.runtime, UINT32_MAX)) {
		errx(2, "the spool writer does not stop");
	}
	agent_close(&world.writer.base);
	agent_close(&world.client);
	runtime_close(&world.runtime);
	spool_close(world.spool);
	for (unsigned size = 0; size < SIZES; size++) {
		for (unsigned i = 0; i < BATCHES * BATCH_MAX; i++) {
			message_release(world.messages[size][i / BATCH_MAX][i % BATCH_MAX],
					&world.pools);
		}
	}
	mail_pools_close(&world.pools);
	measure_pin(0);
}

/* ---- runs; a case's number is the batch ---- */

/* Bytes of one message's record. */
static size_t stored_bytes(const struct size *size)
{
	const struct message *m = world.messages[size->index][0][0];

	return record_bytes(message_envelope(m)->size + (uint32_t)message_body(m)->len +
			    RECORD_TRAILER);
}

static bool run_over(uint64_t ticks, uint64_t bytes)
{
	return micro.quick || bytes >= RUN_BYTES || ticks >= measure_ns_to_ticks(RUN_NS);
}

static void run_spool(const struct micro_case *c, double *values)
{
	const struct size *size = c->own;
	unsigned count = (unsigned)c->number;
	uint64_t syncs = counter_total("syncs");
	uint64_t began = measure_ticks();
	uint64_t messages = 0;
	unsigned batch = 0;
	double s;

	while (!run_over(measure_ticks() - began, messages * stored_bytes(size)) || messages == 0) {
		settle(batch);
		store(size, batch, count);
		messages += count;
		batch = (batch + 1) % BATCHES;
	}
	for (unsigned i = 0; i < BATCHES; i++) {
		settle(i);
	}
	s = measure_ticks_to_ns(measure_ticks() - began) / 1e9;
	values[0] = (double)messages / s;
	values[1] = (double)(counter_total("syncs") - syncs) / s;
	finish_all();
}

static void run_bare(const struct micro_case *c, double *values)
{
	size_t bytes = stored_bytes(c->own) * c->number;
	uint64_t began = measure_ticks();
	uint64_t syncs = 0;
	double s;

	do {
		disk_commit(&world.bare, bytes);
		syncs++;
	} while (!run_over(measure_ticks() - began, syncs * bytes));
	s = measure_ticks_to_ns(measure_ticks() - began) / 1e9;
	values[0] = (double)(syncs * c->number) / s;
	values[1] = (double)syncs / s;
}

#define COMMITS(size, batch)                                                                       \
	{.run = run_spool,                                                                         \
	 .own = &size_##size,                                                                      \
	 .number = (batch),                                                                        \
	 .rows = {{"commit." #size "." #batch, "msg/s", "commit.bare-" #size "." #batch},          \
		  {"commit." #size "." #batch ".syncs", "/s",                                      \
		   "commit.bare-" #size "." #batch ".syncs"}}},                                    \
	{                                                                                          \
		.run = run_bare, .own = &size_##size, .number = (batch), .rows = {                 \
			{"commit.bare-" #size "." #batch, "msg/s", NULL},                          \
			{"commit.bare-" #size "." #batch ".syncs", "/s", NULL},                    \
		}                                                                                  \
	}

static const struct micro_case cases[] = {
	COMMITS(2k, 1),  COMMITS(2k, 8),  COMMITS(2k, 64),  COMMITS(2k, 256),
	COMMITS(10k, 1), COMMITS(10k, 8), COMMITS(10k, 64), COMMITS(10k, 256),
};

const struct micro_group micro_commit = {
	.name = "commit",
	.label = "commits of the spool, 2 and 10 KiB, in batches of 1 to 256 messages",
	.begin = begin,
	.end = end,
	MICRO_CASES(cases),
};
