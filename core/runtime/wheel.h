/*
 * Hierarchical timing wheel: ticks of 1 ms, 32 slots a level, 6 levels, so about 12 days; deadlines
 * beyond that wait in the last level and are looked at again. Entries are intrusive; arm and cancel
 * are O(1). Not a thing of threads: the wheel agent owns one.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

#define WHEEL_BITS 5
#define WHEEL_SLOTS (1 << WHEEL_BITS)
#define WHEEL_LEVELS 6
#define WHEEL_NONE UINT64_MAX

SINGLE
struct wheel_entry {
	struct wheel_entry *next;
	struct wheel_entry *prev;
	/* Due tick; valid while linked (next not NULL). */
	uint64_t due;
};

typedef void (*wheel_fn)(void *context, struct wheel_entry *entry);

SINGLE
struct wheel {
	/* Ticks up to and including this one have expired. */
	uint64_t now;
	uint64_t count;
	/* A bit for each slot that holds something. */
	uint32_t occupied[WHEEL_LEVELS];
	struct wheel_entry slots[WHEEL_LEVELS][WHEEL_SLOTS];
};

SINGLE
void wheel_init(struct wheel *w, uint64_t now);

/* Arms, or moves an armed entry; a due tick in the past expires with the next wheel_expire(). */
SINGLE
void wheel_arm(struct wheel *w, struct wheel_entry *e, uint64_t due);

/* Idempotent. */
SINGLE
void wheel_cancel(struct wheel *w, struct wheel_entry *e);

static inline bool wheel_armed(const struct wheel_entry *e)
{
	return e->next != NULL;
}

/* Advances to `now`, calls `expire` for at most `limit` entries that are due, each unlinked before
 * (it may arm again). Returns how many; when it is `limit` call again, time has not fully advanced.
 */
SINGLE
unsigned wheel_expire(struct wheel *w, uint64_t now, unsigned limit, wheel_fn expire,
		      void *context);

/* A tick at or before the earliest deadline, exact within the first level's reach, so that a sleep
 * until then never oversleeps; WHEEL_NONE when nothing is armed. */
SINGLE
uint64_t wheel_next_deadline(const struct wheel *w);

/* Checks every link, slot and bit; for tests and debug builds. */
SINGLE
bool wheel_validate(const struct wheel *w);
