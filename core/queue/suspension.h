/*
 * Who suspended a queue, and when: kept from an operator's order until it is ended, for those who
 * wonder why mail waits.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

SINGLE
struct suspension {
	/* Wall clock, ms. It ends at `until_ms` by itself; 0: when somebody resumes. */
	uint64_t since_ms;
	uint64_t until_ms;
	/* "uid 0 (pid 4711)" */
	char by[];
};

/* Malloc. */
SINGLE
struct suspension *suspension_new(const char *by, uint64_t since_ms, uint64_t until_ms);

/* The same once more (malloc); NULL: there is none. */
SINGLE
struct suspension *suspension_copy(const struct suspension *s);

/* Keeps `s`, which is taken over, in `*at`, in place of the one before; NULL: it was ended. */
SINGLE
void suspension_keep(struct suspension **at, struct suspension *s);

/* When it ends by itself, wall clock, ms; 0: not at all, or there is none. */
SINGLE
static inline uint64_t suspension_end_ms(const struct suspension *s)
{
	return s != NULL ? s->until_ms : 0;
}

/* It has an end, and `wall_ms` is past it. */
SINGLE
static inline bool suspension_is_over(const struct suspension *s, uint64_t wall_ms)
{
	return s != NULL && s->until_ms != 0 && s->until_ms <= wall_ms;
}
