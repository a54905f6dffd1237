/*
 * The runtime composes agents into groups, connects them, starts them, and stops them in phases.
 *
 * Set up: runtime_init, runtime_group, runtime_add for each agent, then either runtime_run
 * (threads; the first group runs on the calling thread) or, for tests, runtime_invoke_start and
 * runtime_step: all agents on one thread, stepped in a chosen order, with a clock of the caller's.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/affinity.h"
#include "core/runtime/agent.h"
#include "core/runtime/group.h"
#include "core/runtime/roster.h"

#define RUNTIME_GROUPS_MAX 64
#define RUNTIME_PHASES 8

enum runtime_state {
	RUNTIME_SETUP,
	RUNTIME_STARTING,
	RUNTIME_RUNNING,
	RUNTIME_STOPPING,
	RUNTIME_FINISHED,
};

SINGLE
struct runtime {
	struct clock clock;
	enum mux_backend backend;
	unsigned mux_entries;
	unsigned ring_slots;
	uint64_t stall_ns;
	/* Tables that only grow: what is counted may be read by anyone (roster.h). */
	struct agent *agents[AGENT_MAX];
	_Atomic uint32_t agent_count;
	struct group *groups[RUNTIME_GROUPS_MAX];
	/* Watches the threads of all groups but those that may block; NULL: nobody does. */
	struct watchdog *watchdog;
	_Atomic uint32_t group_count;
	/* By ids, from and to; one that was made stays. */
	_Atomic(struct link *) links[AGENT_MAX][AGENT_MAX];
	/* The change under way. */
	struct roster roster;
	/* Cores that the process may use, for who is not pinned. */
	cpu_set_t cores;
	/* What there is of them, as found before any thread was pinned. */
	struct usable_cores usable;
	/* Threads that spin outnumber the cores; the first group's thread writes it. */
	_Atomic bool crowded;
	/* The invoker steps it: there are no other threads. */
	bool one_thread;
	struct agent *wheel;
	timer_arm_fn wheel_on_arm;
	/* Told of warnings (one line, no newline); NULL: stderr. */
	void (*warn)(void *context, const char *text);
	void *warn_context;
	/* Called once, on some group's thread, when all have started; may be NULL. */
	void (*on_running)(void *context);
	void *on_running_context;
	/* Called once, on the first group's thread, when a stop begins; may be NULL. */
	void (*on_stopping)(void);
	_Atomic int state;
	/* Groups that start, and those that have, for the barrier before start-complete. */
	uint32_t starting;
	_Atomic uint32_t started;
	/* First failure at start, a negative errno. */
	_Atomic int start_error;
	/* Agents of this phase and below are to stop; -1: none. */
	_Atomic int stop_phase;
	/* An agent asked the program to end. */
	_Atomic bool stop_requested;
	/* Agents that may be hurried: set when the stop takes longer than it should. */
	_Atomic bool hurry;
	_Atomic bool warned_backend;
	_Atomic uint64_t stop_timeout_ns;
	uint64_t stop_began_ns;
};

/* `clock` is copied. Defaults: MUX_AUTO, 1024 ring slots, 100 ms stalls, 8 s to stop. */
SINGLE
void runtime_init(struct runtime *rt, const struct clock *clock);

/* Makes a group; `name` is not copied; `core` -1: not pinned. Never NULL. */
SINGLE
struct group *runtime_group(struct runtime *rt, const char *name, int core,
			    const struct idle *idle);

/* The group of this name, or NULL: there is none. */
SINGLE
struct group *runtime_find_group(const struct runtime *rt, const char *name);

/* Adds a set-up agent to a group and gives it its id. */
SINGLE
void runtime_add(struct runtime *rt, struct group *group, struct agent *agent);

/* The agent that keeps the deadlines of all others, and its task for arm and cancel; it must have
 * been added. */
SINGLE
void runtime_set_wheel(struct runtime *rt, struct agent *wheel, timer_arm_fn on_arm);

/* Runs init of all agents and connects every pair. 0 or the negative errno of the first init that
 * failed. */
SINGLE
int runtime_prepare(struct runtime *rt);

/* Starts a thread for every group but the first, which runs here; returns when all has stopped: 0,
 * or the negative errno of a failed start. */
SINGLE
int runtime_run(struct runtime *rt);

/* Ask for a graceful stop. */
CONCURRENT
void runtime_stop(struct runtime *rt);

/* True once a stop has been asked for. */
CONCURRENT
bool runtime_stopping(const struct runtime *rt);

/* The invoker: start every group on this thread; the first step runs start-complete. */
SINGLE
int runtime_invoke_start(struct runtime *rt);

/* The invoker: one duty cycle of every group, in order. Returns the work done. */
SINGLE
int runtime_step(struct runtime *rt);

/* The invoker: stop in phases, stepping until all have drained or `steps_max` is reached; true when
 * drained. Tears down. */
SINGLE
bool runtime_invoke_stop(struct runtime *rt, unsigned steps_max);

SINGLE
void runtime_close(struct runtime *rt);

CONCURRENT
void runtime_warn(struct runtime *rt, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* A group that is about to park: has the program's state changed since it last looked? */
BOUND
bool runtime_has_news(const struct runtime *rt, const struct group *g);

/* For what every group would say: only the first time. */
CONCURRENT
void runtime_warn_once(struct runtime *rt, const char *text);

/*
 * Do threads that spin outnumber the cores there are, or does a quota count their time? Then they
 * would take from those that work: park gives its spinning up for as long, other strategies keep
 * it, and this is said. At the start, and by the roster after every change; no group's strategy may
 * be changing.
 */
SINGLE
void runtime_count_spinning(struct runtime *rt);

/* For the roster: the link from one agent to another; 0 or -ENOMEM. */
SINGLE
int runtime_connect(struct runtime *rt, struct agent *from, struct agent *to);
/* What an agent needs of the runtime: clock, limits, wheel. */
SINGLE
void runtime_equip(struct runtime *rt, struct agent *a);
/* A thread for a group with agents, or, with the invoker, none; 0 or a negative errno: then it has
 * none. And its end: all its agents are gone, or could not start. */
BOUND
int runtime_begin_group(struct runtime *rt, struct group *g);
BOUND
void runtime_end_group(struct runtime *rt, struct group *g);

/* Group side: advance the stop from phase to phase; called by the first group's cycle. */
BOUND
void runtime_advance_stop(struct runtime *rt, uint64_t now_ns);
