/*
 * Locks with names, for scripts: who holds each, and who waits for it, in the order in which they
 * asked. All of it is on one agent, which others ask by tasks, so that nobody blocks.
 *
 * Start reading at on_ask() in lock_keeper.c.
 */
#pragma once

#include "core/policy/policy.h"
#include "core/runtime/agent.h"
#include "core/runtime/thread_class.h"

/* Who may wait, for all locks together. */
#define LOCK_KEEPER_WAITING_MAX 10000

struct lock_keeper;

/* Never NULL. `home`: the agent that it is on. */
SINGLE
struct lock_keeper *lock_keeper_create(struct agent *home);

/* Nothing is held or waits any more. NULL is ignored. */
SINGLE
void lock_keeper_destroy(struct lock_keeper *k);

/* Asks for a lock: l->on_granted runs on `self` later. */
BOUND
void lock_keeper_ask(struct lock_keeper *k, struct agent *self, struct policy_lock *l);

/* Gives one back that was granted. */
BOUND
void lock_keeper_release(struct lock_keeper *k, struct agent *self, struct policy_lock *l);
