/*
 * Log writer: owns the logs' outputs (log_output.h) and does all their I/O, so that writing logs
 * never blocks a scheduler. Agents gather lines in blocks and hand a block over by ring; it comes
 * back empty.
 *
 * No line is dropped: while the disk cannot take them, blocks wait here and log_client_pressure()
 * tells schedulers to stop reading from sockets.
 *
 * Start reading at log_writer_do_work(), last in log_writer.c.
 */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "agents/log_client.h"
#include "agents/log_output.h"
#include "agents/log_route.h"
#include "core/runtime/agent.h"

struct log_writer;

/* Opens the files (append, mode 0644) so that a wrong path is known at start: NULL with one line on
 * `errors` when that fails. Stop phase 4. The path is copied, `name` is not. Counters: blocks,
 * bytes, writes, write_errors, waiting, waiting_max. */
SINGLE
struct log_writer *log_writer_create(const char *name, const struct log_options *options,
				     FILE *errors);

SINGLE
struct agent *log_writer_agent(struct log_writer *w);

/* Rotated files are compressed and removed by jobs for `pool`; without one they stay as they are.
 * Before the agents run. */
SINGLE
void log_writer_set_jobs(struct log_writer *w, struct thread_pool *pool);

/* A client hands a block over: task. */
BOUND
void log_writer_on_block(struct agent *self, void *block, uint64_t unused);

/* Opens the files anew, after a rotation; a task for the writer's agent. When that fails, the old
 * file is used until it works; it is tried every second. */
BOUND
void log_writer_on_reopen(struct agent *writer, void *unused, uint64_t value);

/* Of one output: log_output_rotate() returned `result`. */
typedef void (*log_rotated_fn)(void *context, const struct log_output *o, int result);

/* Rotates every output, whatever is configured, and calls `each` for each of them. On the writer's
 * thread. */
BOUND
void log_writer_rotate(struct agent *writer, log_rotated_fn each, void *context);

SINGLE
void log_writer_destroy(struct log_writer *w);
