/*
 * A hop from one agent to another, with all that a duty cycle does besides: clocks, multiplexor,
 * counters. Both threads idle by `park`, which spins as long as the next request comes soon.
 * Requests are due as in ring.c. One way, an agent sends a batch in each of its cycles and holds
 * back under pressure.
 */
#include <string.h>

#include "core/runtime/check.h"
#include "perf/micro/measure.h"
#include "perf/micro/micro.h"
#include "perf/micro/pair.h"

/* As shipped: config/flywheel.conf. */
static const struct idle park = {.kind = IDLE_PARK, .spin_ns = 50 * NS_PER_US};

static struct {
	uint64_t count;
	/* Requests sent, and answers or messages that came. */
	uint64_t sent;
	uint64_t came;
	/* Ticks. */
	uint64_t interval;
	uint64_t due;
	uint64_t began;
	uint64_t ended;
	struct histogram *hop;
	struct histogram *trip;
	uint64_t batch;
	uint64_t sum;
} world;

/* ---- there and back ---- */

static void on_answer(struct agent *self, void *object, uint64_t arrived)
{
	(void)object;
	histogram_record(world.trip, measure_ticks() - world.due);
	histogram_record(world.hop, arrived > world.due ? arrived - world.due : 0);
	world.came++;
	if (world.came == world.count) {
		runtime_stop(self->runtime);
	}
}

static void on_request(struct agent *self, void *object, uint64_t value)
{
	(void)object;
	(void)value;
	agent_send(self, &pair.first, on_answer, NULL, measure_ticks());
}

static int ask(struct agent *self)
{
	uint64_t now = measure_ticks();

	if (world.sent == world.count || world.sent != world.came) {
		return 0;
	}
	if (world.interval == 0 || world.sent == 0) {
		world.due = now;
	} else if (now < world.due + world.interval) {
		return 0;
	} else {
		world.due += world.interval;
	}
	world.sent++;
	agent_send(self, &pair.second, on_request, NULL, 0);
	return 1;
}

/* The case's number is the interval in ns. */
static void run_trips(const struct micro_case *c, double *values)
{
	const struct pair_plan plan = {
		.first = {.kind = "asks", .do_work = ask},
		.second = {.kind = "answers", .do_work = pair_no_work},
		.first_idle = park,
		.second_idle = park,
	};

	memset(&world, 0, sizeof(world));
	world.count = micro_count(c->number == 0 ? 300000 : 30000, 300);
	world.interval = measure_ns_to_ticks(c->number);
	world.hop = measure_histogram();
	world.trip = measure_histogram();
	pair_run(&plan);
	measure_quantiles(world.hop, values);
	measure_quantiles(world.trip, values + 3);
}

/* ---- one way ---- */

static void on_message(struct agent *self, void *object, uint64_t value)
{
	(void)object;
	world.sum += value;
	world.came++;
	if (world.came == world.count) {
		world.ended = measure_ticks();
		runtime_stop(self->runtime);
	}
}

static int push(struct agent *self)
{
	uint64_t n = world.count - world.sent;

	if (n == 0 || self->pressure) {
		return 0;
	}
	if (world.sent == 0) {
		world.began = measure_ticks();
	}
	n = n < world.batch ? n : world.batch;
	for (uint64_t i = 0; i < n; i++) {
		agent_send(self, &pair.second, on_message, NULL, world.sent++);
	}
	return (int)n;
}

/* The case's number is the batch. */
static void run_push(const struct micro_case *c, double *values)
{
	const struct pair_plan plan = {
		.first = {.kind = "sends", .do_work = push},
		.second = {.kind = "takes", .do_work = pair_no_work},
		.first_idle = park,
		.second_idle = park,
	};

	memset(&world, 0, sizeof(world));
	world.count = micro_count(c->number == 1 ? 500000 : 3000000, 3000);
	world.batch = c->number;
	pair_run(&plan);
	ASSERT(world.sum == world.count * (world.count - 1) / 2);
	values[0] = 1e3 * (double)world.count / measure_ticks_to_ns(world.ended - world.began);
}

/* ---- a cycle without work ---- */

static int count_cycle(struct agent *self)
{
	if (world.came == 0) {
		world.began = measure_ticks();
	}
	world.came++;
	if (world.came == world.count) {
		world.ended = measure_ticks();
		runtime_stop(self->runtime);
	}
	return 0;
}

static void run_cycle(const struct micro_case *c, double *values)
{
	const struct pair_plan plan = {
		.first = {.kind = "cycles", .do_work = count_cycle},
		.second = {.kind = "sleeps", .do_work = pair_no_work},
		.first_idle = {.kind = IDLE_NOOP},
		.second_idle = {.kind = IDLE_PARK},
	};

	(void)c;
	memset(&world, 0, sizeof(world));
	world.count = micro_count(1000000, 1000);
	pair_run(&plan);
	values[0] = measure_ticks_to_ns(world.ended - world.began) / (double)world.count;
}

/* At a hundred thousand requests a second, and as fast as they go. */
#define PACED_NS 10000

#define TRIPS(name, interval)                                                                      \
	{                                                                                          \
		.run = run_trips, .number = (interval), .rows = {                                  \
			{name ".hop.p50", "ns", NULL},                                             \
			{name ".hop.p99", "ns", NULL},                                             \
			{name ".hop.p99.9", "ns", NULL},                                           \
			{name ".trip.p50", "ns", NULL},                                            \
			{name ".trip.p99", "ns", NULL},                                            \
			{name ".trip.p99.9", "ns", NULL},                                          \
		}                                                                                  \
	}

static const struct micro_case cases[] = {
	TRIPS("agent", PACED_NS),
	TRIPS("agent.fast", 0),
	{.run = run_push, .number = 1, .rows = {{"agent.one-way.1", "M/s", NULL}}},
	{.run = run_push, .number = 16, .rows = {{"agent.one-way.16", "M/s", NULL}}},
	{.run = run_push, .number = 64, .rows = {{"agent.one-way.64", "M/s", NULL}}},
	{.run = run_cycle, .rows = {{"agent.cycle", "ns", NULL}}},
};

const struct micro_group micro_agent = {
	.name = "agent",
	.label = "from agent to agent, at 100 000 requests a second, and as fast as it goes",
	.two_cores = true,
	MICRO_CASES(cases),
};
