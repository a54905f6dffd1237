/*
 * Time as the runtime sees it. A group reads the clock once per duty cycle and its agents use that
 * reading. Tests and the invoker replace the source with a fake one before agents start.
 */
#pragma once

#include <stdint.h>
#include <time.h>

#include "core/runtime/thread_class.h"

#define NS_PER_US UINT64_C(1000)
#define NS_PER_MS UINT64_C(1000000)
#define NS_PER_S UINT64_C(1000000000)

READONLY
struct clock {
	/* Nanoseconds, monotonic; never goes back. */
	uint64_t (*monotonic_ns)(void *context);
	/* Nanoseconds since 1970-01-01 UTC. */
	uint64_t (*wall_ns)(void *context);
	void *context;
};

/* The system's clocks. */
extern const struct clock clock_system;

/* One reading of both clocks. */
SINGLE
struct instant {
	uint64_t mono_ns;
	uint64_t wall_ns;
};

CONCURRENT
struct instant clock_read(const struct clock *clock);

/* Room for a time as text. */
#define CLOCK_UTC_TEXT 32

/* Writes "2026-11-23T13:05:07Z"; `wall_ms`: milliseconds since 1970-01-01 UTC. Returns `text`. */
CONCURRENT
const char *clock_format_utc(uint64_t wall_ms, char text[CLOCK_UTC_TEXT]);

/* What a clock of the kernel says now, ns; 0: nothing, as that of a thread that has ended. */
CONCURRENT
uint64_t clock_read_ns(clockid_t id);
