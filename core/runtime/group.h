/*
 * An agent group is a thread: it pins and names itself, starts its agents, runs their duty cycles,
 * and idles by its strategy. It owns the multiplexor and the doorbell that its agents share, so
 * that sockets, disk, timers and other agents all end one wait.
 *
 * Start reading at group_cycle(), last in group.c.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "core/runtime/agent.h"
#include "core/runtime/doorbell.h"
#include "core/runtime/idle.h"
#include "core/runtime/mux.h"

#define GROUP_AGENTS_MAX 32
/* A safety net: a parked group looks around this often, and counts when it should have been woken.
 */
#define GROUP_PARK_MAX_NS (100 * NS_PER_MS)
#define GROUP_REAP_LIMIT 512

BOUND
struct group {
	uint32_t magic;
	const char *name;
	/* -1: not pinned. `pinned` says whether it worked. */
	int core;
	bool pinned;
	struct idle idle;
	struct runtime *runtime;
	struct agent *agents[GROUP_AGENTS_MAX];
	uint32_t agent_count;
	struct doorbell doorbell;
	struct mux *mux;
	pthread_t thread;
	bool has_thread;
	/* Of the CPU time of the thread it runs on; set before anybody runs. */
	bool has_cpu_clock;
	clockid_t cpu_clock;
	int start_error;
	/* start-complete has run. */
	bool complete;
	/* Stop phase that the agents were last told of. */
	int seen_phase;
	struct instant now;
	struct counter_set *counters;
	struct counter *cycles;
	struct counter *idle_cycles;
	struct counter *parks;
	struct counter *park_timeout_with_work;
	struct counter *completions;
};

/* Start the agents on the calling thread, in order; makes doorbell and multiplexor. 0 or the
 * negative errno of the first that failed. */
BOUND
int group_start(struct group *g);

/* One duty cycle of all agents, without idling. Returns the work done. */
BOUND
int group_cycle(struct group *g);

/* The two halves of a park, between which a group waits in the kernel (mux_wait()); the simulator
 * waits elsewhere. The first announces the sleep and then looks at every source once more: false
 * when there was work after all, else `*ns` says how long to sleep at most, 1 ns to `limit_ns`. The
 * second ends it; `woken`: not by the time-out of `ns`. */
BOUND
bool group_fall_asleep(struct group *g, uint64_t limit_ns, uint64_t *ns);
BOUND
void group_wake_up(struct group *g, bool woken, uint64_t ns);

/* Until the runtime says that all is done: cycle and idle. */
BOUND
void group_run(struct group *g);

/* CPU time of its thread, ns; 0 when it has none of its own. */
CONCURRENT
uint64_t group_cpu_ns(const struct group *g);

/* Tear the agents down, in reverse order. */
BOUND
void group_finish(struct group *g);
