/*
 * Traces of SMTP dialogues, as the console keeps them: it has the log agent make their files, tells
 * every scheduler when one begins and when it ends, by an operator's order or when its time is over
 * (agents/trace.h). Belongs to the console's scheduler.
 *
 * Start reading at traces_begin().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agents/scheduler.h"
#include "agents/trace.h"
#include "core/runtime/thread_class.h"

/* The trace has begun, or could not (a negative errno; it is gone); or it has ended: `t` is there
 * until this returns. */
typedef void (*traces_done_fn)(void *context, struct trace *t, int result);

BOUND
struct traces {
	struct scheduler *scheduler;
	/* By slot; NULL: none. */
	struct trace *slots[TRACES_MAX];
	uint64_t last_number;
	/* The log agent makes a file: the number of its trace is not known yet. */
	bool opening;
	/* Traces that are beginning or ending. */
	uint32_t under_way;
	bool stopping;
};

SINGLE
void traces_init(struct traces *ts, struct scheduler *s);

/* Begins one, and calls `done`. -EBUSY: there are TRACES_MAX already; -EAGAIN: another one is just
 * beginning; -ENOTSUP: no log agent runs, or the program stops; then `done` is not called. */
BOUND
int traces_begin(struct traces *ts, const struct trace_spec *spec, traces_done_fn done,
		 void *context);

/* Ends the one of this number, and calls `done`. -ENOENT; -EAGAIN: it is just beginning or ending.
 */
BOUND
int traces_end(struct traces *ts, uint64_t number, traces_done_fn done, void *context);

/* The program stops: no trace ends by itself any more; files are closed by traces_close(). */
BOUND
void traces_stop(struct traces *ts);

/* When every agent has been torn down that knows of traces. */
SINGLE
void traces_close(struct traces *ts);
