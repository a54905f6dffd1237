/*
 * The scheduler-wheel agent: one hierarchical deadline wheel (core/runtime/wheel.h) for every other
 * agent's timers. Owners speak to it through core/runtime/timer.h; arm and cancel come by ring,
 * expiry goes back by ring. Its entries are found by (owner, slot), so no memory is shared.
 *
 * Start reading at wheel_agent_do_work().
 */
#pragma once

#include "core/runtime/agent.h"
#include "core/runtime/wheel.h"

struct wheel_agent;

/* Makes the agent; `name` is not copied. Never NULL. Add it with runtime_add() and
 * runtime_set_wheel(). */
SINGLE
struct wheel_agent *wheel_agent_create(const char *name);

SINGLE
struct agent *wheel_agent_base(struct wheel_agent *w);

/* Checks every link, slot and bit of the wheel; for tests. On the wheel's own thread, or when that
 * has ended. */
SINGLE
bool wheel_agent_valid(const struct wheel_agent *w);

SINGLE
void wheel_agent_destroy(struct wheel_agent *w);

/* The task that arms and cancels, for runtime_set_wheel(): `due_ms` as a pointer-sized number, 0 to
 * cancel; `value` packs slot and generation (core/runtime/timer.h); the owner is self->sender. */
BOUND
void wheel_agent_on_arm(struct agent *wheel, void *due_ms, uint64_t value);
