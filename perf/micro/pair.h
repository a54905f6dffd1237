/*
 * Two agents on the real runtime, each in a thread of its own on a core of its own.
 */
#pragma once

#include "core/runtime/runtime.h"

struct pair {
	struct runtime runtime;
	struct agent first;
	struct agent second;
};

/* What is to be run: the agents' duties and how their threads idle. */
struct pair_plan {
	struct agent_ops first;
	struct agent_ops second;
	struct idle first_idle;
	struct idle second_idle;
};

/* The pair that runs now. */
extern struct pair pair;

/* Runs until an agent has called runtime_stop(); ends the program when it cannot start. */
void pair_run(const struct pair_plan *plan);

/* Does nothing: for an agent that only takes tasks. */
int pair_no_work(struct agent *self);
