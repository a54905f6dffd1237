/*
 * How long a thread that sleeps in the kernel takes to wake: an agent whose group is parked, from
 * the moment a task for it is sent until the task runs; beside it a thread that sleeps in read() of
 * an eventfd, and one in a futex. And what ringing costs when nobody sleeps; beside it the bare
 * fence.
 */
#include "core/runtime/doorbell.h"

#include <ck_pr.h>
#include <err.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/runtime/check.h"
#include "core/runtime/idle.h"
#include "perf/micro/measure.h"
#include "perf/micro/micro.h"
#include "perf/micro/pair.h"

/* From one waking to the next: long enough to be asleep again. */
#define REST_NS 50000
#define REPEATS 64

static struct {
	uint64_t count;
	uint64_t sent;
	uint64_t woken;
	/* Ticks: how long to rest, and until when. */
	uint64_t rest;
	uint64_t next;
	struct histogram *wake;
	double each_ns;
	/* The bare ones. */
	int eventfd;
	_Alignas(CACHE_LINE) _Atomic uint64_t stamp;
	_Alignas(CACHE_LINE) _Atomic uint64_t back;
	_Alignas(CACHE_LINE) _Atomic uint32_t futex;
} world;

static void world_begin(void)
{
	memset(&world, 0, sizeof(world));
	world.count = micro_count(10000, 50);
	world.rest = measure_ns_to_ticks(REST_NS);
	world.wake = measure_histogram();
}

/* ---- an agent ---- */

static void on_back(struct agent *self, void *object, uint64_t value)
{
	(void)object;
	(void)value;
	world.woken++;
	world.next = measure_ticks() + world.rest;
	if (world.woken == world.count) {
		runtime_stop(self->runtime);
	}
}

static void on_wake(struct agent *self, void *object, uint64_t sent)
{
	(void)object;
	histogram_record(world.wake, measure_ticks() - sent);
	agent_send(self, &pair.first, on_back, NULL, 0);
}

static int wake(struct agent *self)
{
	const struct doorbell *d = &pair.second.group->doorbell;

	if (world.sent == world.count || world.sent != world.woken ||
	    measure_ticks() < world.next ||
	    atomic_load_explicit(&d->state, memory_order_relaxed) != DOORBELL_PARKED) {
		return 0;
	}
	world.sent++;
	agent_send(self, &pair.second, on_wake, NULL, measure_ticks());
	return 1;
}

static void run_agent(const struct micro_case *c, double *values)
{
	const struct pair_plan plan = {
		.first = {.kind = "wakes", .do_work = wake},
		.second = {.kind = "sleeps", .do_work = pair_no_work},
		.first_idle = {.kind = IDLE_BUSY_SPIN},
		.second_idle = {.kind = IDLE_PARK},
	};

	(void)c;
	world_begin();
	pair_run(&plan);
	measure_quantiles(world.wake, values);
}

/* ---- bare threads ---- */

static void rest(void)
{
	uint64_t until = measure_ticks() + world.rest;

	while (measure_ticks() < until) {
		ck_pr_stall();
	}
}

/* Wakes, and waits until the other has said that it was. */
static void wake_bare(void (*ring)(void))
{
	for (uint64_t i = 1; i <= world.count; i++) {
		rest();
		atomic_store_explicit(&world.stamp, measure_ticks(), memory_order_release);
		ring();
		while (atomic_load_explicit(&world.back, memory_order_acquire) != i) {
			ck_pr_stall();
		}
	}
}

static void sleep_bare(void (*wait)(uint64_t number))
{
	for (uint64_t i = 1; i <= world.count; i++) {
		wait(i);
		histogram_record(world.wake,
				 measure_ticks() -
					 atomic_load_explicit(&world.stamp, memory_order_acquire));
		atomic_store_explicit(&world.back, i, memory_order_release);
	}
}

static void ring_eventfd(void)
{
	uint64_t one = 1;

	ASSERT(write(world.eventfd, &one, sizeof(one)) == (ssize_t)sizeof(one));
}

static void wait_eventfd(uint64_t number)
{
	uint64_t value;

	(void)number;
	ASSERT(read(world.eventfd, &value, sizeof(value)) == (ssize_t)sizeof(value));
}

static void ring_futex(void)
{
	atomic_fetch_add(&world.futex, 1);
	syscall(SYS_futex, &world.futex, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

/* Until the futex has that number. */
static void wait_futex(uint64_t number)
{
	uint32_t before = (uint32_t)number - 1;

	while (atomic_load(&world.futex) == before) {
		syscall(SYS_futex, &world.futex, FUTEX_WAIT_PRIVATE, before, NULL, NULL, 0);
	}
}

static void first_eventfd(void *unused)
{
	(void)unused;
	wake_bare(ring_eventfd);
}

static void second_eventfd(void *unused)
{
	(void)unused;
	sleep_bare(wait_eventfd);
}

static void first_futex(void *unused)
{
	(void)unused;
	wake_bare(ring_futex);
}

static void second_futex(void *unused)
{
	(void)unused;
	sleep_bare(wait_futex);
}

static void run_eventfd(const struct micro_case *c, double *values)
{
	(void)c;
	world_begin();
	world.eventfd = eventfd(0, EFD_CLOEXEC);
	if (world.eventfd < 0) {
		err(2, "eventfd");
	}
	measure_pair(first_eventfd, second_eventfd, NULL);
	close(world.eventfd);
	measure_quantiles(world.wake, values);
}

static void run_futex(const struct micro_case *c, double *values)
{
	(void)c;
	world_begin();
	measure_pair(first_futex, second_futex, NULL);
	measure_quantiles(world.wake, values);
}

/* ---- when nobody sleeps ---- */

static struct doorbell awake = {.state = DOORBELL_AWAKE, .eventfd = -1};

/* Something is published before each ring, as always. */
static uint64_t ring_awake(const void *own)
{
	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		atomic_store_explicit(&world.stamp, i, memory_order_release);
		measure_use(doorbell_ring(&awake));
	}
	return REPEATS;
}

static uint64_t fence_only(const void *own)
{
	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		atomic_store_explicit(&world.stamp, i, memory_order_release);
		atomic_thread_fence(memory_order_seq_cst);
	}
	return REPEATS;
}

/* With the other core looking at what is published, as it does while it spins. */
static void ring_watched(void *argument)
{
	const struct micro_case *c = argument;

	world.each_ns = measure_ns_each(c->step, NULL);
	atomic_store_explicit(&world.back, 1, memory_order_release);
}

static void watch(void *unused)
{
	(void)unused;
	while (atomic_load_explicit(&world.back, memory_order_acquire) == 0) {
		measure_use(atomic_load_explicit(&world.stamp, memory_order_acquire));
		measure_use(atomic_load_explicit(&awake.state, memory_order_relaxed));
		ck_pr_stall();
	}
}

static void run_watched(const struct micro_case *c, double *values)
{
	atomic_store(&world.back, 0);
	measure_pair(ring_watched, watch, (void *)(uintptr_t)c);
	values[0] = world.each_ns;
}

#define WAKE(name, function, reference)                                                            \
	{                                                                                          \
		.run = (function), .rows = {                                                       \
			{name ".p50", "ns", reference("p50")},                                     \
			{name ".p99", "ns", reference("p99")},                                     \
			{name ".p99.9", "ns", reference("p99.9")},                                 \
		}                                                                                  \
	}
#define NONE(row) NULL
#define EVENTFD(row) "doorbell.eventfd." row

static const struct micro_case cases[] = {
	WAKE("doorbell.wake", run_agent, EVENTFD),
	WAKE("doorbell.eventfd", run_eventfd, NONE),
	WAKE("doorbell.futex", run_futex, NONE),
	{.run = measure_case_ns,
	 .step = ring_awake,
	 .rows = {{"doorbell.ring-awake", "ns", "doorbell.fence"}}},
	{.run = measure_case_ns, .step = fence_only, .rows = {{"doorbell.fence", "ns", NULL}}},
	{.run = run_watched,
	 .step = ring_awake,
	 .rows = {{"doorbell.ring-watched", "ns", "doorbell.fence-watched"}}},
	{.run = run_watched, .step = fence_only, .rows = {{"doorbell.fence-watched", "ns", NULL}}},
};

const struct micro_group micro_doorbell = {
	.name = "doorbell",
	.label = "waking an agent that is parked, and ringing one that is awake",
	.two_cores = true,
	MICRO_CASES(cases),
};
