/*
 * When a queue will be empty, if nothing changes: an estimate, and what it assumes.
 */
#pragma once

#include <stdint.h>

#include "core/queue/domain.h"
#include "core/runtime/thread_class.h"

enum drain_basis {
	/* Nothing waits. */
	DRAIN_EMPTY,
	/* Somebody or something else has to act first, and nobody knows when. */
	DRAIN_HELD,
	/* Nothing was sent in the last minute that it could be told from. */
	DRAIN_UNKNOWN,
	/* Each slot of a throttle is this queue's. */
	DRAIN_AT_LIMIT,
	/* As in the last minute. */
	DRAIN_AT_RATE,
};

READONLY
struct drain_question {
	/* Messages in the active queue. */
	uint64_t waiting;
	/* What binds; DOMAIN_FREE: nothing. */
	enum domain_hold why;
	/* Message throttles that apply; NULL: none. */
	const struct throttle *throttles[2];
	/* Messages in a second that were over in the last minute. */
	double per_s;
	uint64_t now_ns;
};

READONLY
struct drain {
	enum drain_basis basis;
	/* DRAIN_AT_*: the rate, messages in a second, and until the last has been sent. */
	double per_s;
	double in_s;
	/* DRAIN_AT_LIMIT. */
	const struct throttle *throttle;
};

READONLY
struct drain drain_estimate(const struct drain_question *q);
