/*
 * Pace: long work goes on beside mail, which comes first. On a thread that has other work it rests
 * after each step, so that duty cycles stay as long and as full as they were; on one that has none
 * it goes on. What another thread does for it rests between its pieces while the thread that asked
 * is busy, as they may share the cores.
 *
 * Busy is what the thread's CPU time says (cpu_clock_ns()): whether it waited for a core or for
 * work is the same to the clock on the wall. Where that time is not told, as under a clock of
 * tests, nothing is busy.
 *
 * Start reading at pace_begin().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

/* Things that one step looks at: at most, and at least. */
#define PACE_STEP_MAX 4096
#define PACE_STEP_MIN 64
/* The rest after a step, in ms of the wheel: about one and a half. */
#define PACE_REST_MS 2

/* Steps on a thread that may have other work; nanoseconds are those of its CPU time. */
BOUND
struct pace {
	/* The last step's end; 0: there was none. */
	uint64_t ended_ns;
	/* This step's beginning, and on the monotonic clock. */
	uint64_t began_ns;
	uint64_t mono_ns;
	/* What one thing took in the last step that did some; 0: not known. */
	uint64_t each_ns;
	/* Steps since there was other work. */
	unsigned quiet;
	/* After this step it rests. */
	bool rests;
};

/* A step begins, at `mono_ns` of the monotonic clock. Returns how many things it may look at, which
 * is more when the step before was long ago, and says in p->rests whether a rest follows. */
BOUND
int pace_begin(struct pace *p, uint64_t mono_ns, uint64_t cpu_ns);

/* It ends, and has looked at so many. */
BOUND
void pace_end(struct pace *p, uint64_t cpu_ns, unsigned done);

/* Pieces of work on another thread. */
BOUND
struct pace_rest {
	/* The thread that asks is watched since then, and had used so much CPU time. */
	uint64_t since_ns;
	uint64_t cpu_ns;
	bool idle;
	/* The pieces so far are paid for at this time, monotonic. */
	uint64_t paid_ns;
};

/* Between two pieces, the one before of which took `work_ns` of CPU time: at `now_ns`, monotonic,
 * the thread that asks has used `cpu_ns`. Returns until when, monotonic ms, the next piece has to
 * wait; 0: it need not. */
BOUND
uint64_t pace_rest_until(struct pace_rest *r, uint64_t now_ns, uint64_t cpu_ns, uint64_t work_ns);
