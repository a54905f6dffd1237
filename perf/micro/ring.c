/*
 * A hop through the ring from one core to another: request and response one at a time, and one way
 * as fast as it goes. References: the same with a bare atomic word in a cache line of its own, and
 * one way through a bare ring that publishes once for each batch.
 *
 * Requests are due at fixed times or follow each other at once; each trip is counted from when its
 * request was due, so one that is late makes those behind it late. A hop is the request's way only,
 * from the same time to the look of the other thread at its clock.
 */
#include <ck_pr.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "core/runtime/agent.h"
#include "core/runtime/doorbell.h"
#include "core/runtime/idle.h"
#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

#define ALWAYS_INLINE inline __attribute__((always_inline))

/* Slots of a ring between two agents: runtime_init(). */
#define RING_SLOTS 1024

/* One direction between the two threads: a ring, or a word that holds the latest stamp. */
struct lane {
	struct task_ring ring;
	_Alignas(CACHE_LINE) _Atomic uint64_t word;
	/* The reader's. */
	_Alignas(CACHE_LINE) uint64_t seen;
};

enum lane_kind { LANE_RING, LANE_WORD };

static struct {
	struct lane request;
	struct lane reply;
	uint64_t count;
	/* Between two requests; 0: one after the other. */
	uint64_t interval;
	struct histogram *hop;
	struct histogram *trip;
	/* One way. */
	unsigned batch;
	struct doorbell doorbell;
	uint64_t sum;
} world;

static ALWAYS_INLINE void lane_send(struct lane *l, enum lane_kind kind, uint64_t stamp)
{
	if (kind == LANE_WORD) {
		atomic_store_explicit(&l->word, stamp, memory_order_release);
	} else {
		struct task t = {.value = stamp};

		/* One request is under way at a time: there is room. */
		ASSERT(task_ring_send(&l->ring, &t));
	}
}

static ALWAYS_INLINE bool lane_receive(struct lane *l, enum lane_kind kind, uint64_t *stamp)
{
	if (kind == LANE_WORD) {
		*stamp = atomic_load_explicit(&l->word, memory_order_acquire);
		if (*stamp == l->seen) {
			return false;
		}
		l->seen = *stamp;
		return true;
	} else {
		struct task t;

		if (!task_ring_receive(&l->ring, &t)) {
			return false;
		}
		*stamp = t.value;
		return true;
	}
}

/* As the idle strategy busy-spin does it. */
static ALWAYS_INLINE uint64_t lane_wait(struct lane *l, enum lane_kind kind)
{
	uint64_t stamp;

	while (!lane_receive(l, kind, &stamp)) {
		ck_pr_stall();
	}
	return stamp;
}

static ALWAYS_INLINE void ask(enum lane_kind kind)
{
	uint64_t due = measure_ticks();

	for (uint64_t i = 0; i < world.count; i++) {
		uint64_t arrived;

		if (world.interval == 0) {
			due = measure_ticks();
		} else {
			due += world.interval;
			while (measure_ticks() < due) {
				ck_pr_stall();
			}
		}
		lane_send(&world.request, kind, due);
		arrived = lane_wait(&world.reply, kind);
		histogram_record(world.trip, measure_ticks() - due);
		histogram_record(world.hop, arrived > due ? arrived - due : 0);
	}
}

static ALWAYS_INLINE void answer(enum lane_kind kind)
{
	for (uint64_t i = 0; i < world.count; i++) {
		lane_wait(&world.request, kind);
		lane_send(&world.reply, kind, measure_ticks());
	}
}

static void ask_by_ring(void *unused)
{
	(void)unused;
	ask(LANE_RING);
}

static void answer_by_ring(void *unused)
{
	(void)unused;
	answer(LANE_RING);
}

static void ask_by_word(void *unused)
{
	(void)unused;
	ask(LANE_WORD);
}

static void answer_by_word(void *unused)
{
	(void)unused;
	answer(LANE_WORD);
}

static void lane_open(struct lane *l)
{
	memset(l, 0, sizeof(*l));
	ASSERT(task_ring_init(&l->ring, RING_SLOTS) == 0);
}

/* The case's number is the interval in ns. */
static void trips_begin(const struct micro_case *c)
{
	world.count = micro_count(c->number == 0 ? 1000000 : 300000, 1000);
	world.interval = measure_ns_to_ticks(c->number);
	world.hop = measure_histogram();
	world.trip = measure_histogram();
	lane_open(&world.request);
	lane_open(&world.reply);
}

static void trips_end(double *values)
{
	measure_quantiles(world.hop, values);
	measure_quantiles(world.trip, values + 3);
	task_ring_close(&world.request.ring);
	task_ring_close(&world.reply.ring);
}

static void run_ring(const struct micro_case *c, double *values)
{
	trips_begin(c);
	measure_pair(ask_by_ring, answer_by_ring, NULL);
	trips_end(values);
}

static void run_word(const struct micro_case *c, double *values)
{
	trips_begin(c);
	measure_pair(ask_by_word, answer_by_word, NULL);
	trips_end(values);
}

/* ---- one way ---- */

/* The bare ring: indices of its own for each side, which looks at the other's only when it must. */
static struct {
	_Alignas(CACHE_LINE) _Atomic uint64_t written;
	uint64_t read_seen;
	_Alignas(CACHE_LINE) _Atomic uint64_t read;
	_Alignas(CACHE_LINE) struct task slots[RING_SLOTS];
} bare;

static void push_ring(void *unused)
{
	struct task t = {0};

	(void)unused;
	for (uint64_t i = 0; i < world.count;) {
		for (unsigned n = 0; n < world.batch && i < world.count; n++, i++) {
			t.value = i;
			while (!task_ring_put(&world.request.ring, &t)) {
				task_ring_publish(&world.request.ring);
				ck_pr_stall();
			}
		}
		task_ring_publish(&world.request.ring);
		doorbell_ring(&world.doorbell);
	}
}

static void pull_ring(void *unused)
{
	uint64_t sum = 0;

	(void)unused;
	for (uint64_t i = 0; i < world.count;) {
		struct task t;

		if (task_ring_receive(&world.request.ring, &t)) {
			sum += t.value;
			i++;
		} else {
			ck_pr_stall();
		}
	}
	world.sum = sum;
}

static void bare_wait_for_room(uint64_t at)
{
	while (at - bare.read_seen == RING_SLOTS) {
		bare.read_seen = atomic_load_explicit(&bare.read, memory_order_acquire);
	}
}

static void push_bare(void *unused)
{
	(void)unused;
	for (uint64_t i = 0; i < world.count;) {
		for (unsigned n = 0; n < world.batch && i < world.count; n++, i++) {
			bare_wait_for_room(i);
			bare.slots[i % RING_SLOTS].value = i;
			if ((i + 1) % (RING_SLOTS / 2) == 0) {
				atomic_store_explicit(&bare.written, i + 1, memory_order_release);
			}
		}
		atomic_store_explicit(&bare.written, i, memory_order_release);
		doorbell_ring(&world.doorbell);
	}
}

static void pull_bare(void *unused)
{
	uint64_t sum = 0;
	uint64_t at = 0;

	(void)unused;
	while (at < world.count) {
		uint64_t written = atomic_load_explicit(&bare.written, memory_order_acquire);

		if (at == written) {
			ck_pr_stall();
			continue;
		}
		while (at < written) {
			sum += bare.slots[at++ % RING_SLOTS].value;
		}
		atomic_store_explicit(&bare.read, at, memory_order_release);
	}
	world.sum = sum;
}

/* The case's number is the batch. */
static void one_way(const struct micro_case *c, double *values, void (*push)(void *context),
		    void (*pull)(void *context))
{
	uint64_t began;

	world.count = micro_count(c->number == 1 ? 2000000 : 10000000, 10000);
	world.batch = (unsigned)c->number;
	lane_open(&world.request);
	memset(&bare, 0, sizeof(bare));
	ASSERT(doorbell_init(&world.doorbell) == 0);
	began = measure_ticks();
	measure_pair(push, pull, NULL);
	values[0] = 1e3 * (double)world.count / measure_ticks_to_ns(measure_ticks() - began);
	ASSERT(world.sum == world.count * (world.count - 1) / 2);
	doorbell_close(&world.doorbell);
	task_ring_close(&world.request.ring);
}

static void run_push_ring(const struct micro_case *c, double *values)
{
	one_way(c, values, push_ring, pull_ring);
}

static void run_push_bare(const struct micro_case *c, double *values)
{
	one_way(c, values, push_bare, pull_bare);
}

/* At a million requests a second, and as fast as they go. */
#define PACED_NS 1000

#define TRIPS(name, function, interval, reference)                                                 \
	{                                                                                          \
		.run = (function), .number = (interval), .rows = {                                 \
			{name ".hop.p50", "ns", reference("hop.p50")},                             \
			{name ".hop.p99", "ns", reference("hop.p99")},                             \
			{name ".hop.p99.9", "ns", reference("hop.p99.9")},                         \
			{name ".trip.p50", "ns", reference("trip.p50")},                           \
			{name ".trip.p99", "ns", reference("trip.p99")},                           \
			{name ".trip.p99.9", "ns", reference("trip.p99.9")},                       \
		}                                                                                  \
	}
#define NONE(row) NULL
#define BARE(row) "ring.bare." row
#define BARE_FAST(row) "ring.bare-fast." row

#define ONE_WAY(batch)                                                                             \
	{.run = run_push_ring,                                                                     \
	 .number = (batch),                                                                        \
	 .rows = {{"ring.one-way." #batch, "M/s", "ring.bare-way." #batch}}},                      \
	{                                                                                          \
		.run = run_push_bare, .number = (batch), .rows = {                                 \
			{"ring.bare-way." #batch, "M/s", NULL}                                     \
		}                                                                                  \
	}

static const struct micro_case cases[] = {
	TRIPS("ring", run_ring, PACED_NS, BARE),
	TRIPS("ring.bare", run_word, PACED_NS, NONE),
	TRIPS("ring.fast", run_ring, 0, BARE_FAST),
	TRIPS("ring.bare-fast", run_word, 0, NONE),
	ONE_WAY(1),
	ONE_WAY(16),
	ONE_WAY(64),
};

const struct micro_group micro_ring = {
	.name = "ring",
	.label =
		"the ring between two agents, at 1 million requests a second, and as fast as it goes",
	.two_cores = true,
	MICRO_CASES(cases),
};
