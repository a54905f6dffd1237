/*
 * Timers as their owners see them. The wheel agent keeps the deadlines of every other agent; arm
 * and cancel go to it by ring, expiry comes back by ring and runs on the owner.
 *
 * A timer is embedded in what it belongs to. The wheel never sees it: it knows (owner, slot,
 * generation), slots are the owner's, and a late expiry is recognised by its generation. Deadlines
 * are lazy: moving one later only writes it down here, and the wheel is asked again when the old
 * one fires; so a session time-out that moves with every byte costs nothing.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

struct agent;
struct timer;

typedef void (*timer_fn)(struct timer *t);
/* A task_fn: see core/runtime/agent.h. */
typedef void (*timer_arm_fn)(struct agent *self, void *object, uint64_t value);

#define TIMER_NO_SLOT UINT32_MAX

BOUND
struct timer {
	timer_fn on_expire;
	struct agent *owner;
	/* Due, monotonic ms; 0: not armed. */
	uint64_t due_ms;
	/* What the wheel was told; valid while slot is not TIMER_NO_SLOT. */
	uint64_t wheel_ms;
	uint32_t slot;
};

BOUND
struct timer_slot {
	struct timer *timer;
	uint32_t generation;
	uint32_t next_free;
};

/* An agent's side of the wheel. */
BOUND
struct timer_client {
	struct agent *wheel;
	/* The wheel's task for arm and cancel. */
	timer_arm_fn on_arm;
	struct timer_slot *slots;
	uint32_t slot_count;
	uint32_t free_slot;
	uint32_t armed;
};

SINGLE
void timer_init(struct timer *t, struct agent *owner, timer_fn on_expire);

/* Arms or moves: due at `due_ms` (monotonic milliseconds, 1 or more). In the past: as soon as
 * possible. The callback runs once, on the owner, not before it is due. */
BOUND
void timer_arm(struct timer *t, uint64_t due_ms);

/* Idempotent. Afterwards the callback does not run, and the timer's memory may go. */
BOUND
void timer_cancel(struct timer *t);

static inline bool timer_armed(const struct timer *t)
{
	return t->due_ms != 0;
}

SINGLE
void timer_client_close(struct timer_client *c);

/* The wheel's answer, run on the owner: `due_ms` is the deadline that has passed, as a
 * pointer-sized number; slot in the low, generation in the high half of `value`. */
BOUND
void timer_on_expired(struct agent *self, void *due_ms, uint64_t value);

/*
 * What the owner sends to the wheel: a task whose function is the wheel's `on_arm`, whose object is
 * the due time in ms as a pointer-sized number (0: cancel), and whose value packs slot and
 * generation like timer_on_expired(). The sender is known by the ring it came through.
 */
#define TIMER_VALUE(slot, generation) ((uint64_t)(generation) << 32 | (slot))
#define TIMER_VALUE_SLOT(value) ((uint32_t)(value))
#define TIMER_VALUE_GENERATION(value) ((uint32_t)((value) >> 32))
