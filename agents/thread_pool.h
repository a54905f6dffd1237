/*
 * Thread pool for what may block: making a resolver's cache anew, which reads files. One agent, the
 * pool, keeps a bounded queue of jobs and hands them to worker agents, each a thread of its own
 * that parks when it has nothing to do. A job's blocking part runs on a worker, then its on_done
 * runs on the agent that asked.
 *
 * Start reading at thread_pool_run().
 */
#pragma once

#include "core/runtime/agent.h"
#include "core/runtime/runtime.h"

#define THREAD_POOL_WORKERS_MAX 16

/* Embedded in what it is for; must stay where it is until on_done has run. */
SINGLE
struct job {
	/* The blocking part; runs on a worker. Touches only what the job owns. */
	void (*work)(struct job *job);
	/* Runs on the agent that asked; result is 0, or -EAGAIN when the queue was full (work has
	 * not run). */
	void (*on_done)(struct agent *self, struct job *job, int result);
	struct agent *from;
	struct job *next;
	uint64_t queued_ns;
};

struct thread_pool;

/* Sets up the pool agent and `workers` (1 to 16) worker agents; adds the pool to `group` and gives
 * each worker a group of its own. `backlog`: jobs that may wait. Counters: queued, done, refused,
 * depth, depth_max, wait_max_us, busy. 0 or a negative errno. */
SINGLE
int thread_pool_create(struct thread_pool **out, struct runtime *rt, struct group *group,
		       uint32_t workers, uint32_t backlog, const struct idle *worker_idle);

/* Hands a job over. */
BOUND
void thread_pool_run(struct thread_pool *p, struct agent *self, struct job *job);

SINGLE
void thread_pool_destroy(struct thread_pool *p);
