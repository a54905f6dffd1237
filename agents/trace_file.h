/*
 * Files of traces: the log agent opens, writes and closes them, by task, so that no scheduler waits
 * for a disk. What a disk does not take is dropped and counted; nobody waits for it.
 *
 * Every function here is a task for the log agent.
 */
#pragma once

#include <stdint.h>

#include "agents/trace.h"
#include "core/runtime/agent.h"
#include "core/runtime/thread_class.h"

/* Makes the file of a trace, mode 0600, which must not be there: t->path has the folder, the file's
 * name is added. A trace without a name takes the next number whose file is not there yet,
 * beginning at t->number. Then t->on_opened(t, result) runs on t->owner; 0, or a negative errno,
 * and there is no file. */
BOUND
void trace_file_on_open(struct agent *log, void *trace, uint64_t unused);

/* Writes a block (struct trace_block) and sends it back. */
BOUND
void trace_file_on_block(struct agent *log, void *block, uint64_t unused);

/* One of t->users will send no more blocks. After the last one the file is closed, and
 * t->on_closed(t) runs on t->owner: nobody else knows of the trace any more. */
BOUND
void trace_file_on_leave(struct agent *log, void *trace, uint64_t unused);
