/*
 * How often something happened of late: counts of six spans of ten seconds, so that a record knows
 * its rate of the last minute at the cost of an addition for each event.
 */
#pragma once

#include <stdint.h>

#include "core/runtime/thread_class.h"

#define RECENT_SPANS 6
#define RECENT_SPAN_MS 10000

BOUND
struct recent {
	/* Number of the span that counts[span % RECENT_SPANS] is of. */
	uint32_t span;
	uint32_t counts[RECENT_SPANS];
};

/* Time has gone on to `now_ms` (monotonic): what is older than a minute is forgotten. */
BOUND
void recent_turn(struct recent *r, uint64_t now_ms);

/* One event, at `now_ms`. */
BOUND
static inline void recent_add(struct recent *r, uint64_t now_ms)
{
	if ((uint32_t)(now_ms / RECENT_SPAN_MS) != r->span) {
		recent_turn(r, now_ms);
	}
	r->counts[r->span % RECENT_SPANS]++;
}

/* Events in a second, since the first span of the last minute that had some, at least one second;
 * 0: there were none. */
BOUND
double recent_per_s(const struct recent *r, uint64_t now_ms);
