/* Now, in monotonic nanoseconds. */
#pragma once

#include <stdint.h>
#include <time.h>

#define NS_PER_S 1000000000ULL
#define NS_PER_MS 1000000ULL
#define MOMENT_NEVER UINT64_MAX

static inline uint64_t moment_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* How long to sleep from `now` until `due`, for epoll_pwait2(); NULL means for ever. */
static inline const struct timespec *moment_until(struct timespec *t, uint64_t now, uint64_t due)
{
	uint64_t ns = due > now ? due - now : 0;

	if (due == MOMENT_NEVER) {
		return NULL;
	}
	t->tv_sec = (time_t)(ns / NS_PER_S);
	t->tv_nsec = (long)(ns % NS_PER_S);
	return t;
}
