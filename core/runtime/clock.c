#include "core/runtime/clock.h"

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
