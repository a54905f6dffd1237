/*
 * The bounce log: each recipient that failed, or was deferred, with the class of what was said.
 * Private to the scheduler's files.
 */
#pragma once

#include "agents/scheduler.h"

/* One line for each recipient of `set`: of type B when they failed for good, of T when they are
 * tried again, unless that is not to be logged. Counts them either way. Without local parts when
 * the delivery's content is on disk only. */
BOUND
void bounce_log_attempt(struct scheduler *s, const struct delivery *delivery,
			const struct recipient_set *set, const struct attempt *a, bool permanent);
