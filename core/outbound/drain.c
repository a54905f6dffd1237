#include "core/outbound/drain.h"

#include "core/queue/throttle.h"
#include "core/runtime/clock.h"

/* It only slows the queue down; everything else keeps it until something else happens. */
static bool goes_on(enum domain_hold why)
{
	switch (why) {
	case DOMAIN_FREE:
	case DOMAIN_PEER_LIMIT:
	case DOMAIN_CONNECTIONS:
	case DOMAIN_SERVER_CONNECTIONS:
	case DOMAIN_THROTTLE_MESSAGES:
	case DOMAIN_THROTTLE_CONNECTIONS:
	case DOMAIN_MEMORY:
	case DOMAIN_RETRY:
	case DOMAIN_OPENING:
	case DOMAIN_READING_BACK:
	case DOMAIN_SETTLING:
		return true;
	default:
		return false;
	}
}

struct drain drain_estimate(const struct drain_question *q)
{
	struct drain limit = {.basis = DRAIN_UNKNOWN};

	if (q->waiting == 0) {
		return (struct drain){.basis = DRAIN_EMPTY};
	}
	if (!goes_on(q->why)) {
		return (struct drain){.basis = DRAIN_HELD};
	}
	for (unsigned i = 0; i < 2; i++) {
		const struct throttle *t = q->throttles[i];
		double in_s;

		if (t == NULL) {
			continue;
		}
		in_s = (double)throttle_wait_many_ns(t, q->now_ns, q->waiting) / NS_PER_S;
		if (limit.throttle == NULL || in_s > limit.in_s) {
			limit = (struct drain){DRAIN_AT_LIMIT,
					       (double)t->count / (double)t->period_s, in_s, t};
		}
	}
	/* A queue that another limit slows down more does not have the throttle's rate. */
	if (q->per_s > 0 && q->why != DOMAIN_THROTTLE_MESSAGES &&
	    (double)q->waiting / q->per_s >= limit.in_s) {
		return (struct drain){DRAIN_AT_RATE, q->per_s, (double)q->waiting / q->per_s, NULL};
	}
	return q->per_s > 0 || q->why == DOMAIN_THROTTLE_MESSAGES
		       ? limit
		       : (struct drain){.basis = DRAIN_UNKNOWN};
}
