#include "core/runtime/cpu_clock.h"

uint64_t cpu_clock_ns(const struct clock *clock)
{
	return clock->monotonic_ns == clock_system.monotonic_ns
		       ? clock_read_ns(CLOCK_THREAD_CPUTIME_ID)
		       : 0;
}
