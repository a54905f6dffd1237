/*
 * When a log file is due for rotation by time: at the full hour, or at midnight, of local time.
 *
 * It goes by the wall clock, which may jump. Forward: what was passed over is one rotation. Back:
 * the next hour or day of the new time is the next one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

enum log_period { LOG_PERIOD_NEVER, LOG_PERIOD_HOURLY, LOG_PERIOD_DAILY };

BOUND
struct log_schedule {
	enum log_period period;
	/* The next one, UNIX seconds, and when that was last looked at. */
	int64_t next_s;
	int64_t checked_s;
};

/* What is there was written at `since_s`, UNIX seconds. */
BOUND
void log_schedule_start(struct log_schedule *s, enum log_period period, int64_t since_s);

/* Is it due? */
BOUND
bool log_schedule_due(struct log_schedule *s, int64_t now_s);

/* It was rotated: the next one is the first after `now_s`. */
BOUND
void log_schedule_next(struct log_schedule *s, int64_t now_s);
