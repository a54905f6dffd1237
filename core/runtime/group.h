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
#include "core/runtime/roster.h"
#include "core/runtime/watchdog.h"

#define GROUP_AGENTS_MAX 32
/* A safety net: a parked group looks around this often, and counts when it should have been woken.
 */
#define GROUP_PARK_MAX_NS (100 * NS_PER_MS)
#define GROUP_REAP_LIMIT 512

BOUND
struct group {
	uint32_t magic;
	const char *name;
	/* -1: not pinned. `pinned` says whether it worked. Its own thread writes them once it runs,
	 * and `idle`. */
	_Atomic int core;
	_Atomic bool pinned;
	struct idle idle;
	/* idle.kind, for others. */
	_Atomic int idle_kind;
	struct runtime *runtime;
	struct agent *agents[GROUP_AGENTS_MAX];
	uint32_t agent_count;
	struct doorbell doorbell;
	struct mux *mux;
	pthread_t thread;
	bool has_thread;
	/* Its agents may block for as long as they like: a worker of the thread pool. */
	bool may_block;
	struct watched watched;
	/* Of the CPU time of the thread it runs on; what threads used that have ended, ns; and the
	 * most that anybody was told. */
	_Atomic bool has_cpu_clock;
	_Atomic clockid_t cpu_clock;
	_Atomic uint64_t cpu_before_ns;
	_Atomic uint64_t cpu_told_ns;
	/* What the roster (roster.h) wants of it; NULL: nothing. */
	_Atomic(struct notice *) notice;
	/* Runs, or will at once; the first group's thread writes it. */
	bool live;
	/* Its last agent has left: the thread ends; and has ended, but for its return. */
	bool over;
	_Atomic bool ended;
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

/* The same for one more agent of a group that runs, start-complete and all. */
BOUND
int group_add(struct group *g, struct agent *a);

/* Tells one of a group's agents to stop. */
BOUND
void group_stop_agent(struct agent *a);

/* Tears one down that has drained, and has it no more; the last one ends the group. False: not all
 * that it sent could be handed over yet, to be called again. */
BOUND
bool group_remove(struct group *g, struct agent *a);

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

/* The thread's name, clock and core. */
BOUND
void group_enter_thread(struct group *g);
/* The last thing on its thread: what it used is kept. */
BOUND
void group_leave_thread(struct group *g);

/* Another core (-1: all that the process may use), or another strategy. */
BOUND
void group_tune(struct group *g, int core, const struct idle *idle);

/* CPU time of its threads, ns; it never falls. 0 when they have none of their own. */
CONCURRENT
uint64_t group_cpu_ns(struct group *g);

/* Tear the agents down, in reverse order. */
BOUND
void group_finish(struct group *g);
