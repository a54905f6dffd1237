/*
 * Idle strategies: what a group does when a whole duty cycle found no work.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

enum idle_kind { IDLE_BUSY_SPIN, IDLE_YIELD, IDLE_BACKOFF, IDLE_SLEEP, IDLE_NOOP, IDLE_PARK };

enum idle_phase { IDLE_PHASE_NOT_IDLE, IDLE_PHASE_SPIN, IDLE_PHASE_YIELD, IDLE_PHASE_PARK };

BOUND
struct idle {
	enum idle_kind kind;
	/* backoff: pauses, then yields, then sleeps of min to max, doubling */
	uint32_t max_spins;
	uint32_t max_yields;
	uint64_t min_park_ns;
	uint64_t max_park_ns;
	/* park: spin for at most this long, when that is likely to pay */
	uint64_t spin_ns;
	/* park: after work sleep this long, unannounced: what comes meanwhile is done together */
	uint64_t coalesce_ns;
	/* sleep */
	uint64_t sleep_ns;

	enum idle_phase phase;
	uint32_t spins;
	uint32_t yields;
	uint64_t park_ns;
	uint64_t idle_since_ns;
	/* park: how long work lately let wait for itself, on average; of a longer wait only that it
	 * was long. */
	uint64_t expected_ns;
	/* This time. */
	uint64_t budget_ns;
	uint64_t last_step_ns;
	/* Another thread took the core away while this one spun: it does not until then. */
	uint64_t crowded_until_ns;
	/* The last step was one of spinning. */
	bool spinning;
	/* park: threads that spin outnumber the cores, so that this one does not. */
	bool crowded;
	/* Slept since there was work. */
	bool coalesced;
};

/* What the group is to do now. */
enum idle_action { IDLE_DO_NOTHING, IDLE_DO_PAUSE, IDLE_DO_YIELD, IDLE_DO_SLEEP, IDLE_DO_PARK };

/* "busy-spin", "yield", ... */
READONLY
const char *idle_name(enum idle_kind kind);

/* One step of the strategy after a duty cycle that did `work`; `now_ns` monotonic. Pure: the
 * caller acts. With IDLE_DO_SLEEP `*sleep_ns` says how long. */
BOUND
enum idle_action idle_step(struct idle *idle, int work, uint64_t now_ns, uint64_t *sleep_ns);
