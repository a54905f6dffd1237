/*
 * Obstacles: what stands in the way of a domain's mail. Each limit and each state that can hold it
 * back is looked at by one function, in obstacle.c. The dispatcher decides by the first that is in
 * the way, and operators are told of all of them, so that what is told is what is decided.
 *
 * Start reading at obstacle_list(), last in obstacle.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/outbound/dispatch.h"
#include "core/runtime/thread_class.h"

/* Whose state or limit it is. */
enum obstacle_scope {
	OBSTACLE_OF_DOMAIN,
	OBSTACLE_OF_LANE,
	OBSTACLE_OF_SITE,
	OBSTACLE_OF_BINDING,
	OBSTACLE_OF_PROGRAM,
};

BOUND
struct obstacle {
	enum domain_hold why;
	enum obstacle_scope scope;
	/* Of limits: connections or bytes in use, and how many there may be. Of DOMAIN_RETRY,
	 * OPENING, READING_BACK, SETTLING and HELD_MAIL: how many there are. */
	uint64_t in_use;
	uint64_t limit;
	/* DOMAIN_THROTTLE_*: which, and how long until its next slot, ns. */
	const struct throttle *throttle;
	uint64_t wait_ns;
	/* When it ends or is looked at again, monotonic ms; 0: when something happens. */
	uint64_t until_ms;
};

/* More than there can be at a time. */
#define OBSTACLES_MAX 24

/* ---- what the dispatcher decides by; true: in the way, and `*o` says what ---- */

/* Nothing of the record may be sent, whatever its lane has. */
BOUND
bool obstacle_to_record(const struct dispatcher *x, const struct domain *d, struct obstacle *o);
/* The lane has connections enough for now: for its mail, or under way. */
BOUND
bool obstacle_lane_is_served(const struct lane *l);
/* At its own limit, and no idle connection counts for it. */
BOUND
void obstacle_own_connections(const struct domain *d, struct obstacle *o);
/* The domain's next delivery may go on an idle connection now; if so, throttles have been charged.
 */
BOUND
bool obstacle_to_sending(struct dispatcher *x, const struct domain *d, struct obstacle *o);
/* One more connection may be opened for it; if so, what all schedulers share and throttles have
 * been charged. */
BOUND
bool obstacle_to_opening(struct dispatcher *x, const struct domain *d, struct obstacle *o);

/* An idle connection that the domain may use: any, or at its own limit one that counts for it.
 * NULL: none. */
BOUND
struct connection *obstacle_idle_for(const struct lane *l, const struct domain *d);

/* ---- what operators are told ---- */

/* All that is in the way of the record's mail now, the one that binds first, then what mail waits
 * for without being held back. Returns how many; 0: nothing, or there is no mail. */
BOUND
unsigned obstacle_list(const struct dispatcher *x, const struct domain *d,
		       struct obstacle list[OBSTACLES_MAX]);
/* The first of them; DOMAIN_FREE: nothing. */
BOUND
struct obstacle obstacle_first(const struct dispatcher *x, const struct domain *d);
