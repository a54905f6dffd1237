/*
 * Policy on a scheduler: the state that its scripts run in, with what they ask of the program
 * around them: the name service, the thread pool, the logs; and the hooks for what became of a
 * message.
 *
 * A generation with other scripts makes another state. Hooks that wait end in the one before, which
 * is closed when none is left; all that begins is in the new one.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/policy/policy.h"
#include "core/runtime/thread_class.h"

/* States that wait for their hooks to end, at most: with so many, no other is made. */
#define POLICY_OLD_MAX 16
/* How long hooks may go on in a state that has been replaced: as long as a client waits for the
 * answer to a command, at least (RFC 5321, 4.5.3.2). */
#define POLICY_OLD_MS (UINT64_C(300) * 1000)

struct attempt;
struct delivery;
struct generation_change;
struct recipient_set;
struct scheduler;

struct policy_outcome;

/* A state that has been replaced. */
BOUND
struct policy_old {
	struct policy_old *next;
	struct scheduler *scheduler;
	struct policy *policy;
	/* Its time is over. */
	struct timer timer;
};

BOUND
struct policy_host {
	/* NULL: there are no scripts. */
	struct policy *policy;
	/* Bits of enum policy_hook: those that any module has. */
	uint32_t hooks;
	/* Of the scripts that it runs. */
	unsigned char digest[POLICY_DIGEST];
	/* Those before it that are not closed yet, the latest first. */
	struct policy_old *old;
	uint32_t old_count;
	struct counter *states;
	/* Hooks of outcomes that wait. */
	struct policy_outcome *outcomes;
	struct counter *errors;
	/* Those that were told since then, monotonic. */
	uint64_t errors_since_ms;
	uint32_t errors_told;
};

/* Runs the scripts of the configuration. False, and a line on `errors`, when one fails. */
SINGLE
bool scheduler_open_policy(struct scheduler *s, FILE *errors);

/* All agents run: timers of scripts begin. */
BOUND
void scheduler_start_policy(struct scheduler *s);

/* The scheduler has another generation, by `g`: if its scripts or their limits are others there is
 * another state. If they fail the one of before stays, which is logged, and is a warning of `g`. */
BOUND
void scheduler_renew_policy(struct scheduler *s, struct generation_change *g);

/* In each duty cycle: closes states that nothing waits in any more. */
BOUND
int scheduler_policy_do_work(struct scheduler *s);

SINGLE
void scheduler_close_policy(struct scheduler *s);

/* The program stops now: what operators have asked of scripts is dropped. */
BOUND
void scheduler_drop_policy_orders(struct scheduler *s);

/* The program stops, and nothing waits any more; `hurry`: what still does is dropped. */
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
