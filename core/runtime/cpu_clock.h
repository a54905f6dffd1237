/*
 * What a thread has used of its core, for work that gives way to other work on the same thread.
 */
#pragma once

#include <stdint.h>

#include "core/runtime/clock.h"
#include "core/runtime/thread_class.h"

/* CPU time of the calling thread, in nanoseconds, by a system call; 0 when `clock` is not the
 * system's, for then nothing of what happens may depend on it. */
CONCURRENT
uint64_t cpu_clock_ns(const struct clock *clock);
