#include "core/runtime/clock.h"

#include "core/runtime/check.h"

const char *clock_format_utc(uint64_t wall_ms, char text[CLOCK_UTC_TEXT])
{
	time_t seconds = (time_t)(wall_ms / 1000);
	struct tm parts;

	/* No number of milliseconds is beyond the years that it knows. */
	ASSERT(gmtime_r(&seconds, &parts) != NULL);
	strftime(text, CLOCK_UTC_TEXT, "%Y-%m-%dT%H:%M:%SZ", &parts);
	return text;
}

uint64_t clock_read_ns(clockid_t id)
{
	struct timespec t = {0};

	clock_gettime(id, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static uint64_t system_monotonic_ns(void *context)
{
	(void)context;
	return clock_read_ns(CLOCK_MONOTONIC);
}

static uint64_t system_wall_ns(void *context)
{
	(void)context;
	return clock_read_ns(CLOCK_REALTIME);
}

const struct clock clock_system = {system_monotonic_ns, system_wall_ns, NULL};

struct instant clock_read(const struct clock *clock)
{
	return (struct instant){clock->monotonic_ns(clock->context),
				clock->wall_ns(clock->context)};
}
