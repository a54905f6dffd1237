/*
 * Who suspended a queue, and when: kept from an operator's order until it is ended, for those who
 * wonder why mail waits.
 */
#pragma once

#include <stdint.h>

#include "core/runtime/thread_class.h"

SINGLE
struct suspension {
	/* Wall clock, ms. */
	uint64_t since_ms;
	/* "uid 0 (pid 4711)" */
	char by[];
};

/* Keeps in `*at` (malloc, NULL: nothing) that `by` gave the order at `since_ms`; `by` NULL: it was
 * ended. */
SINGLE
void suspension_note(struct suspension **at, const char *by, uint64_t since_ms);
