/*
 * Policy on a scheduler: the state that its scripts run in, with what they ask of the program
 * around them: the name service, the thread pool, the logs; and the hooks for what became of a
 * message.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/policy/policy.h"
#include "core/runtime/thread_class.h"

struct attempt;
struct delivery;
struct recipient_set;
struct scheduler;

struct policy_outcome;

BOUND
struct policy_host {
	/* NULL: there are no scripts. */
	struct policy *policy;
	/* Bits of enum policy_hook: those that any module has. */
	uint32_t hooks;
	/* Hooks of outcomes that wait. */
	struct policy_outcome *outcomes;
	struct counter *errors;
};

/* Runs the scripts of the configuration. False, and a line on `errors`, when one fails. */
SINGLE
bool scheduler_open_policy(struct scheduler *s, FILE *errors);

/* NULL is ignored. */
SINGLE
void scheduler_close_policy(struct scheduler *s);

/* Nothing waits any more; `hurry`: what still does is dropped. */
BOUND
bool scheduler_policy_drained(struct scheduler *s, bool hurry);

/* Whether any module has this hook: the one branch that a hook costs where there are none. */
BOUND
static inline bool policy_host_has(const struct policy_host *h, enum policy_hook hook)
{
	return __builtin_expect((h->hooks & POLICY_BIT(hook)) != 0, 0);
}

/* Tells modules what an attempt did to the recipients of `set`. */
BOUND
void scheduler_policy_outcome(struct scheduler *s, const struct delivery *delivery,
			      const struct recipient_set *set, const struct attempt *a,
			      enum policy_hook hook);
