/*
 * How time is taken: the processor's time stamp counter, which costs about 10 ns and is the same on
 * all cores of one machine, and loops that are long enough for it. Start reading at
 * measure_ns_each().
 */
#pragma once

#include <stdint.h>
#include <x86intrin.h>

#include "core/runtime/histogram.h"
#include "perf/micro/micro.h"

/* Learns how long a tick is; once, before all others. Fails the program when the counter is not one
 * of constant rate. */
void measure_calibrate(void);

double measure_ticks_to_ns(uint64_t ticks);
uint64_t measure_ns_to_ticks(uint64_t ns);

/* Now. What comes before in the program has been done, memory reads included. */
static inline uint64_t measure_ticks(void)
{
	unsigned core;

	return __rdtscp(&core);
}

/* Uses a value: the compiler can drop nothing that it depends on. */
static inline void measure_use(uint64_t value)
{
	__asm__ volatile("" : : "r"(value) : "memory");
}

/* A pointer that the compiler knows nothing of: what it points to may be anything now. */
static inline const void *measure_hide(const void *pointer)
{
	__asm__ volatile("" : "+r"(pointer) : : "memory");
	return pointer;
}

/*
 * Calls `step` for about a tenth of a second (--quick: once or twice); each call does a number of
 * operations, some microseconds of work, and returns how many. Returns nanoseconds for each.
 */
double measure_ns_each(uint64_t (*step)(const void *own), const void *own);

/* A case's `run`: nanoseconds for each operation of its step. */
void measure_case_ns(const struct micro_case *c, double *values);

/* Pins the calling thread to core 0 or 1 of micro.cores; ends the program when that fails. */
void measure_pin(unsigned which);

/* Lets the calling thread, and threads that it makes, run on both cores again: for what waits for
 * the disk, and should find a core when that is ready. */
void measure_unpin(void);

/* Runs `first` here and `second` in a thread of its own, each pinned to its core, until both have
 * returned. */
void measure_pair(void (*first)(void *context), void (*second)(void *context), void *context);

/* A histogram of ticks, empty; never NULL. */
struct histogram *measure_histogram(void);

/* p50, p99 and p99.9 in ns into values[0] to [2]; frees the histogram. */
void measure_quantiles(struct histogram *h, double *values);
