#include "perf/micro/measure.h"

#include <cpuid.h>
#include <err.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/affinity.h"
#include "core/runtime/clock.h"

#define CALIBRATE_NS (20 * NS_PER_MS)
#define REPEAT_NS (100 * NS_PER_MS)

static double ns_per_tick;

static uint64_t now_ns(void)
{
	return clock_system.monotonic_ns(NULL);
}

/* CPUID leaf 0x80000007, EDX bit 8: the counter's rate does not depend on the core's. */
static bool constant_rate(void)
{
	unsigned a, b, c, d;

	return __get_cpuid(0x80000007U, &a, &b, &c, &d) != 0 && (d & (1U << 8)) != 0;
}

void measure_calibrate(void)
{
	uint64_t began_ns = now_ns();
	uint64_t began = measure_ticks();
	uint64_t ended_ns;

	if (!constant_rate()) {
		errx(2, "this processor's time stamp counter has no constant rate");
	}
	do {
		ended_ns = now_ns();
	} while (ended_ns - began_ns < CALIBRATE_NS);
	ns_per_tick = (double)(ended_ns - began_ns) / (double)(measure_ticks() - began);
}

double measure_ticks_to_ns(uint64_t ticks)
{
	return (double)ticks * ns_per_tick;
}

uint64_t measure_ns_to_ticks(uint64_t ns)
{
	return (uint64_t)((double)ns / ns_per_tick);
}

double measure_ns_each(uint64_t (*step)(const void *own), const void *own)
{
	uint64_t limit = measure_ns_to_ticks(micro.quick ? 1 : REPEAT_NS);
	uint64_t began;
	uint64_t ended;
	uint64_t count = 0;

	/* Caches and pools fill first. */
	measure_use(step(own));
	began = measure_ticks();
	do {
		count += step(own);
		ended = measure_ticks();
	} while (ended - began < limit);
	return measure_ticks_to_ns(ended - began) / (double)count;
}

void measure_case_ns(const struct micro_case *c, double *values)
{
	values[0] = measure_ns_each(c->step, c->own);
}

void measure_pin(unsigned which)
{
	int rc = affinity_pin(micro.cores[which]);

	if (rc != 0) {
		errx(2, "cannot run on core %d: %s", micro.cores[which], strerror(-rc));
	}
}

void measure_unpin(void)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	for (unsigned i = 0; i < 2 && micro.cores[i] >= 0; i++) {
		CPU_SET((unsigned)micro.cores[i], &set);
	}
	if (sched_setaffinity(0, sizeof(set), &set) != 0) {
		err(2, "cannot run on cores %d and %d", micro.cores[0], micro.cores[1]);
	}
}

struct second {
	void (*run)(void *context);
	void *context;
};

static void *second_main(void *argument)
{
	const struct second *s = argument;

	measure_pin(1);
	s->run(s->context);
	return NULL;
}

void measure_pair(void (*first)(void *context), void (*second)(void *context), void *context)
{
	struct second s = {second, context};
	pthread_t thread;

	if (pthread_create(&thread, NULL, second_main, &s) != 0) {
		errx(2, "cannot make a thread");
	}
	first(context);
	pthread_join(thread, NULL);
}

struct histogram *measure_histogram(void)
{
	struct histogram *h = calloc(1, sizeof(*h));

	if (h == NULL) {
		errx(2, "out of memory");
	}
	return h;
}

void measure_quantiles(struct histogram *h, double *values)
{
	values[0] = measure_ticks_to_ns(histogram_quantile(h, 0.5));
	values[1] = measure_ticks_to_ns(histogram_quantile(h, 0.99));
	values[2] = measure_ticks_to_ns(histogram_quantile(h, 0.999));
	free(h);
}
