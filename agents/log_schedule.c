#include "agents/log_schedule.h"

#include <time.h>

#define HOUR_S 3600

/* The first full hour after `s`. Zones differ by parts of an hour, so local minutes count. */
static int64_t next_hour(int64_t s)
{
	time_t t = (time_t)s;
	struct tm tm;

	localtime_r(&t, &tm);
	return s - tm.tm_min * 60 - tm.tm_sec + HOUR_S;
}

/* The first midnight after `s`, or, on a day without one, the moment that stands for it. The
 * standard lets that be before `s`. */
static int64_t next_day(int64_t s)
{
	time_t t = (time_t)s;
	struct tm tm;
	int64_t day;

	localtime_r(&t, &tm);
	tm.tm_mday++;
	tm.tm_hour = 0;
	tm.tm_min = 0;
	tm.tm_sec = 0;
	tm.tm_isdst = -1;
	day = mktime(&tm);
	return day > s ? day : next_hour(s);
}

static int64_t next_after(const struct log_schedule *s, int64_t now_s)
{
	return s->period == LOG_PERIOD_HOURLY ? next_hour(now_s) : next_day(now_s);
}

void log_schedule_start(struct log_schedule *s, enum log_period period, int64_t since_s)
{
	*s = (struct log_schedule){.period = period, .checked_s = -1};
	log_schedule_next(s, since_s);
}

bool log_schedule_due(struct log_schedule *s, int64_t now_s)
{
	if (s->period == LOG_PERIOD_NEVER) {
		return false;
	}
	if (now_s != s->checked_s) {
		int64_t next = next_after(s, now_s);

		s->checked_s = now_s;
		/* Further away than a period: the clock has gone back. */
		if (s->next_s > next) {
			s->next_s = next;
		}
	}
	return now_s >= s->next_s;
}

void log_schedule_next(struct log_schedule *s, int64_t now_s)
{
	if (s->period != LOG_PERIOD_NEVER) {
		s->next_s = next_after(s, now_s);
	}
}
