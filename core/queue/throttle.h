/*
 * A rate limit shared by all that refer to it, on any thread: the generic cell rate algorithm over
 * one atomic word (the theoretical arrival time of the next cell), so that it needs no lock.
 * Burst: a bucket of one second's worth, at least one.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

/* What a throttle counts by. It outlives the generation of the configuration that it was made for:
 * the throttle of the same scope in the next one goes on with it, at its own rate. */
CONCURRENT
struct throttle_slot {
	/* Throttles that use it, beyond the one that it is embedded in. */
	_Atomic uint32_t references;
	/* Nanoseconds between two cells. */
	_Atomic uint64_t interval_ns;
	/* How far ahead of its time a burst may run. */
	_Atomic uint64_t burst_ns;
	_Atomic uint64_t arrival_ns;
	/* Times that someone was told to wait. */
	_Atomic uint64_t held;
};

CONCURRENT
struct throttle {
	struct throttle_slot *slot;
	/* As configured: `count` in `period_s` seconds. */
	uint64_t count;
	uint64_t period_s;
	/* Where it was set, such as "domain \"example.com\"". For display. */
	const char *scope;
	struct throttle_slot own;
};

/* They count by one slot, be they of one generation or of two; or there is neither. */
CONCURRENT
static inline bool throttle_same_slot(const struct throttle *a, const struct throttle *b)
{
	return a == b || (a != NULL && b != NULL && a->slot == b->slot);
}

/* Set up: `count` (1 or more) cells in `period_s` (1 or more) seconds. */
SINGLE
void throttle_init(struct throttle *t, uint64_t count, uint64_t period_s, const char *scope);

/* Counts by a slot that outlives it: throttle_close() then. Before anybody uses it. */
SINGLE
void throttle_detach(struct throttle *t);
SINGLE
void throttle_close(struct throttle *t);

/* Goes on where `from`, which is detached, is; at the rate of `from` until throttle_apply(). Before
 * anybody uses it. */
SINGLE
void throttle_inherit(struct throttle *t, const struct throttle *from);

/* From now on, `now_ns` (monotonic), it has the rate that was configured, for all who use its slot:
 * what has been taken ahead of time is waited for at the new rate. One thread at a time; cells that
 * others take meanwhile may count at either rate. */
CONCURRENT
void throttle_apply(struct throttle *t, uint64_t now_ns);

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
