/*
 * What the stress programs share: how long to go on, numbers drawn at random, and a watchdog. A
 * program ends with one line on stdout and status 0; with a line on stderr and status 1 when
 * something was wrong; and so, too, when it makes no progress any more, as after a lost wake-up.
 *
 * Usage of each program: PROGRAM [SECONDS]. Start reading at stress_begin().
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Progress of any kind must come within this time, however busy the machine is. */
#define STRESS_PATIENCE_S 60

static struct {
	const char *name;
	uint64_t end_ns;
	/* Trips, turns, timers: whatever is counted. Only its movement matters to the watchdog. */
	_Atomic uint64_t progress;
} stress;

static inline uint64_t stress_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static inline void stress_fail(const char *what, uint64_t value)
{
	fprintf(stderr, "stress: %s: %s: %llu, after %llu\n", stress.name, what,
		(unsigned long long)value, (unsigned long long)atomic_load(&stress.progress));
	_exit(1);
}

/* Ends the program unless `found` is `wanted`. */
static inline void stress_expect(const char *what, uint64_t found, uint64_t wanted)
{
	if (found != wanted) {
		fprintf(stderr, "stress: wanted %llu\n", (unsigned long long)wanted);
		stress_fail(what, found);
	}
}

static inline void stress_progress(void)
{
	atomic_fetch_add_explicit(&stress.progress, 1, memory_order_relaxed);
}

static inline void *stress_watch(void *unused)
{
	uint64_t before = 0;

	(void)unused;
	for (;;) {
		uint64_t now;

		sleep(STRESS_PATIENCE_S);
		now = atomic_load(&stress.progress);
		if (now == before) {
			stress_fail("hangs", 0);
		}
		before = now;
	}
	return NULL;
}

static inline void stress_begin(const char *name, int argc, char **argv)
{
	double seconds = argc > 1 ? atof(argv[1]) : 2;
	pthread_t watchdog;

	stress.name = name;
	stress.end_ns = stress_now_ns() + (uint64_t)(seconds * 1e9);
	if (pthread_create(&watchdog, NULL, stress_watch, NULL) != 0) {
		stress_fail("cannot make a thread", 0);
	}
	pthread_detach(watchdog);
}

/* Gives a part of the program `share` of the time that is left, 0 to 1. */
static inline uint64_t stress_part_ns(double share)
{
	uint64_t now = stress_now_ns();

	return now + (stress.end_ns > now ? (uint64_t)((double)(stress.end_ns - now) * share) : 0);
}

static inline int stress_end(const char *unit)
{
	printf("%-16s %llu %s\n", stress.name, (unsigned long long)atomic_load(&stress.progress),
	       unit);
	return 0;
}

/* xorshift; `*seed` is not 0. */
static inline uint64_t stress_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}
