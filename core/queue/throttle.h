/*
 * A rate limit shared by all that refer to it, on any thread: the generic cell rate algorithm over
 * one atomic word (the theoretical arrival time of the next cell), so that it needs no lock.
 * Burst: a bucket of one second's worth, at least one.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

CONCURRENT
struct throttle {
	/* Nanoseconds between two cells. */
	uint64_t interval_ns;
	/* How far ahead of its time a burst may run. */
	uint64_t burst_ns;
	/* As configured: `count` in `period_s` seconds. For display. */
	uint64_t count;
	uint64_t period_s;
	/* Where it was set, such as "domain \"example.com\"". For display. */
	const char *scope;
	_Atomic uint64_t arrival_ns;
	/* Times that someone was told to wait. */
	_Atomic uint64_t held;
};

/* Set up: `count` (1 or more) cells in `period_s` (1 or more) seconds. */
SINGLE
void throttle_init(struct throttle *t, uint64_t count, uint64_t period_s, const char *scope);

/* Takes one cell at `now_ns` (monotonic). Returns 0 when it was granted, else the number of
 * nanoseconds until a cell could be granted (nothing was taken). */
CONCURRENT
uint64_t throttle_take(struct throttle *t, uint64_t now_ns);

/* Gives back a cell that was taken and not used. */
CONCURRENT
void throttle_return(struct throttle *t);

/* Nanoseconds until a cell could be granted, 0 for now; takes nothing. */
CONCURRENT
uint64_t throttle_wait_ns(const struct throttle *t, uint64_t now_ns);

/* Nanoseconds until the last of `count` (1 or more) cells could be granted, if all go to one who
 * takes each as soon as it can be had; UINT64_MAX: longer than that can say. */
CONCURRENT
uint64_t throttle_wait_many_ns(const struct throttle *t, uint64_t now_ns, uint64_t count);
