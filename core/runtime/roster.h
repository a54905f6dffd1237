/*
 * Roster: agents that join a program while it runs, and leave it, and groups that get another core
 * or idle strategy. The first group's thread conducts one change at a time, in steps; what belongs
 * to another group is changed by that group's own thread, which finds a notice between two of its
 * duty cycles.
 *
 * Who owns what. The runtime's tables of agents, groups and links only grow, and only the first
 * group's thread writes them: an agent keeps its id, and an agent that has left keeps its place
 * there, with its counters (`live` is false). An agent's links (a->in, a->out) are its own thread's
 * from the moment it runs; before that, and after it has left, they are the first group's. Memory
 * of rings is there while both ends are.
 *
 * Joining: links are made; every group takes the notice that its agents have one more peer; then
 * the agent starts, in a thread that is made for its group or in one that runs. Nobody sends to it
 * before it has joined.
 *
 * Leaving: every group takes the notice that nothing new goes to the agent (agent_reaches()) and
 * that what was sent before is in its ring; then the agent is told to stop, and drains as it would
 * at the end of the program, within the same time; it is torn down and is in no group; every group
 * takes what it sent and cuts the links; its thread ends if that was the group's last agent, and
 * rings are freed. What it is, and the memory of it, is its maker's, who may set it up again and
 * let it join again: ids stay.
 *
 * A stop of the program waits for a change that is on its way, but not for an agent to drain.
 *
 * Start reading at roster_advance(), last in roster.c.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/agent.h"
#include "core/runtime/idle.h"

struct group;
struct runtime;

/* Something that each group does for itself between two duty cycles. */
CONCURRENT
struct notice {
	/* On the group's thread; false: not yet, it is asked again after another duty cycle. */
	bool (*take)(struct group *g, const struct notice *n);
	struct agent *agent;
	/* Groups that have not taken it. */
	_Atomic uint32_t waiting;
	/* Of the group that the agent starts in: 0 or a negative errno. */
	_Atomic int result;
};

enum roster_step {
	ROSTER_IDLE,
	/* Joining. */
	ROSTER_CONNECT,
	ROSTER_START,
	/* Leaving; or it could not start. */
	ROSTER_FENCE,
	ROSTER_RETIRE,
	ROSTER_DRAIN,
	ROSTER_REMOVE,
	ROSTER_DETACH,
	ROSTER_END_THREAD,
	/* A group's core and strategy. */
	ROSTER_TUNE,
};

/* The change is complete: `result` 0, a negative errno of the agent's start, or -ECANCELED: the
 * program stops, and the agent with it. On the first group's thread; the next change may begin. */
typedef void (*roster_done_fn)(void *context, int result);

/* The change under way; the first group's. */
BOUND
struct roster {
	enum roster_step step;
	struct notice notice;
	struct agent *agent;
	struct group *group;
	int core;
	struct idle idle;
	int result;
	/* When the agent began to drain, monotonic ns. */
	uint64_t began_ns;
	roster_done_fn on_done;
	void *context;
};

/*
 * `a` joins group `g`: one that runs, or a new one (runtime_group()), or one that has ended. The
 * agent has been added with roster_enlist(). -EBUSY: another change is under way; -ESHUTDOWN: the
 * program stops; -ENOMEM. Then `on_done` is not called.
 */
BOUND
int roster_join(struct runtime *rt, struct group *g, struct agent *a, roster_done_fn on_done,
		void *context);

/* It leaves. Nobody else has anything of it, but for tasks under way to it and answers to it. */
BOUND
int roster_leave(struct runtime *rt, struct agent *a, roster_done_fn on_done, void *context);

/* Group `g`, which runs, gets core `core` (-1: it is not pinned) and this strategy. */
BOUND
int roster_tune(struct runtime *rt, struct group *g, int core, const struct idle *idle,
		roster_done_fn on_done, void *context);

/* Gives an agent of a program that runs its id, for ever; one that has one keeps it. 0, or -ENOSPC:
 * there is none left. */
BOUND
int roster_enlist(struct runtime *rt, struct agent *a);

/* A change can go a step further: for the first group, before it sleeps. */
BOUND
bool roster_has_news(const struct runtime *rt);

/* The program is to stop: true when no change is in the way. */
BOUND
bool roster_gives_way(struct runtime *rt);

/* The first group's: goes as far as it can. Returns the work done. */
BOUND
int roster_advance(struct runtime *rt, uint64_t now_ns);

/* Every group's, between two duty cycles: takes the notice, if there is one. Returns the work done.
 */
BOUND
int roster_take_notice(struct group *g);
