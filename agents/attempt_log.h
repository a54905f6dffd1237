/*
 * What the logs are told of an attempt: an event for each recipient that was delivered to, failed
 * or was deferred, with the class of what was said when it was not delivered.
 * Private to the scheduler's files.
 */
#pragma once

#include "agents/scheduler.h"

/* One event of `kind` for each recipient of `set`, which may be empty; counts them. Without local
 * parts when the delivery's content is on disk only. */
BOUND
void attempt_log(struct scheduler *s, const struct delivery *delivery,
		 const struct recipient_set *set, const struct attempt *a, enum event_kind kind);
