/*
 * The wheel with as many timers as a large installation has, due within an hour. They are armed in
 * no order, so that neighbours in a slot are strangers in memory, as they are when they belong to
 * connections that came and went. The reference writes to as many entries of the same memory, each
 * once and in no order: what the memory alone costs.
 */
#include "core/runtime/wheel.h"

#include <err.h>
#include <stdlib.h>

#include "perf/micro/measure.h"
#include "perf/micro/micro.h"
#include "perf/random.h"

#define TIMERS UINT64_C(10000000)
#define TIMERS_QUICK 10000
#define HOUR_MS (3600 * 1000)
#define START_MS 1000000
#define EXPIRE_LIMIT 256

static struct {
	uint64_t count;
	struct wheel_entry *entries;
	/* The entries' numbers, shuffled. */
	uint32_t *order;
	struct wheel wheel;
	uint64_t expired;
} world;

static void begin(void)
{
	uint64_t seed = 1;

	world.count = micro_count(TIMERS, TIMERS_QUICK);
	world.entries = calloc(world.count, sizeof(*world.entries));
	world.order = calloc(world.count, sizeof(*world.order));
	if (world.entries == NULL || world.order == NULL) {
		errx(2, "out of memory");
	}
	for (uint64_t i = 0; i < world.count; i++) {
		uint64_t other = random_next(&seed) % (i + 1);

		world.order[i] = world.order[other];
		world.order[other] = (uint32_t)i;
	}
}

static void end(void)
{
	free(world.entries);
	free(world.order);
}

/* Dues are drawn at once with arming: some ns of the figure. */
static double arm_all(void)
{
	uint64_t seed = 2;
	uint64_t began;

	wheel_init(&world.wheel, START_MS);
	began = measure_ticks();
	for (uint64_t i = 0; i < world.count; i++) {
		wheel_arm(&world.wheel, &world.entries[world.order[i]],
			  START_MS + 1 + random_below(&seed, HOUR_MS));
	}
	return measure_ticks_to_ns(measure_ticks() - began) / (double)world.count;
}

static double cancel_all(void)
{
	uint64_t began = measure_ticks();

	for (uint64_t i = 0; i < world.count; i++) {
		wheel_cancel(&world.wheel, &world.entries[i]);
	}
	return measure_ticks_to_ns(measure_ticks() - began) / (double)world.count;
}

static void on_expired(void *context, struct wheel_entry *e)
{
	(void)context;
	measure_use(e->due);
	world.expired++;
}

/* Millisecond by millisecond, as the wheel's agent does it. */
static double expire_all(void)
{
	uint64_t began = measure_ticks();

	world.expired = 0;
	for (uint64_t now = START_MS; now <= START_MS + HOUR_MS; now++) {
		while (wheel_expire(&world.wheel, now, EXPIRE_LIMIT, on_expired, NULL) ==
		       EXPIRE_LIMIT) {
		}
	}
	if (world.expired != world.count) {
		errx(2, "not all timers expired");
	}
	return measure_ticks_to_ns(measure_ticks() - began) / (double)world.count;
}

static void run_cancel(const struct micro_case *c, double *values)
{
	(void)c;
	values[0] = arm_all();
	values[1] = cancel_all();
	if (world.wheel.count != 0) {
		errx(2, "not all timers were cancelled");
	}
}

static void run_expire(const struct micro_case *c, double *values)
{
	(void)c;
	arm_all();
	values[0] = expire_all();
}

static void run_memory(const struct micro_case *c, double *values)
{
	uint64_t began = measure_ticks();

	(void)c;
	for (uint64_t i = 0; i < world.count; i++) {
		world.entries[world.order[i]].due++;
	}
	values[0] = measure_ticks_to_ns(measure_ticks() - began) / (double)world.count;
	measure_use(world.entries[0].due);
}

static const struct micro_case cases[] = {
	{.run = run_cancel,
	 .rows = {{"wheel.arm", "ns", "wheel.memory"}, {"wheel.cancel", "ns", "wheel.memory"}}},
	{.run = run_expire, .rows = {{"wheel.expire", "ns", "wheel.memory"}}},
	{.run = run_memory, .rows = {{"wheel.memory", "ns", NULL}}},
};

const struct micro_group micro_wheel = {
	.name = "wheel",
	.label = "10 million timers, armed, cancelled and expired",
	.begin = begin,
	.end = end,
	MICRO_CASES(cases),
};
