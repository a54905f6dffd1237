/*
 * Crew: who the schedulers are. It takes a wanted number of schedulers, cores and idle strategies
 * and changes the program to that while mail flows: schedulers join and leave by the runtime's
 * roster (core/runtime/roster.h), records are taken to their new homes by their dispatchers
 * (core/outbound/relocate.c), and totals of who leaves are left with the first scheduler. It works
 * on the master's agent, which is in the runtime's first group.
 *
 * More schedulers: those join, one after the other; then the layout changes. Fewer: the layout
 * changes, and new connections go to who stays; when all records are at home the others leave, one
 * after the other, as soon as their sessions have been handed on (scheduler_hand_on()) or
 * stop_timeout is over.
 *
 * One plan at a time: another one waits, and of several that wait only the last one is carried out,
 * which answers for all.
 *
 * Start reading at go_on(), last in crew.c.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agents/scheduler.h"
#include "core/runtime/agent.h"
#include "core/runtime/idle.h"
#include "core/runtime/runtime.h"
#include "core/runtime/thread_class.h"

#define CREW_NAME_MAX 64
#define CREW_THREADS_MAX (2 * RUNTIME_GROUPS_MAX)

/* What a thread is to be like. */
SINGLE
struct crew_thread {
	char name[CREW_NAME_MAX];
	int core;
	struct idle idle;
};

SINGLE
struct crew_plan {
	/* 1 to SCHEDULERS_MAX. */
	uint32_t schedulers;
	/* Of each scheduler that has a thread of its own. */
	int cores[SCHEDULERS_MAX];
	struct idle idle;
	/* Named group of all schedulers; empty: each has its own. Must be there. */
	char group[CREW_NAME_MAX];
	/* All other threads; those that are not there are passed over. */
	struct crew_thread threads[CREW_THREADS_MAX];
	uint32_t thread_count;
};

/* It is done: 0; -ESHUTDOWN: the program stops; or a negative errno of what could not be made, and
 * the schedulers are those that could; `why` is what there is to say of it, in one line, or NULL.
 * On the agent that asked. */
typedef void (*crew_done_fn)(struct agent *self, void *context, int result, const char *why);

/* `program` has its schedulers. */
SINGLE
struct crew *crew_create(struct program *program);

/* Has `plan`, which is copied, carried out. */
BOUND
void crew_set(struct crew *c, struct agent *self, const struct crew_plan *plan, crew_done_fn done,
	      void *context);

/* The program stops: whoever waits is told. By the master. */
BOUND
void crew_stop(struct crew *c);

/* A scheduler that leaves has its sums added to the first one's. By its tear-down. */
BOUND
void crew_leave_totals(struct scheduler *s);

/* All records of this scheduler are in their places: answers the crew's question. */
BOUND
void crew_answer_probe(struct scheduler *s);

/* After all schedulers, which the program frees: it has the names of those that it made. NULL is
 * ignored. */
SINGLE
void crew_destroy(struct crew *c);
