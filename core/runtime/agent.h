/*
 * An agent is a unit of work with a life cycle and a duty cycle. It talks to other agents only by
 * tasks that travel through single-producer single-consumer rings, one for each ordered pair of
 * agents, and it runs in an agent group (group.h), which is a thread.
 *
 * Life: init (main thread), start (its own thread), start-complete (when every agent of the
 * program has started), do_work again and again, stop (drain: nothing handed over is dropped),
 * tear-down. Tasks that reach an agent before start-complete stay in their rings and run then, in
 * order. An agent may join a program that runs, and leave it, and join it again: roster.h.
 *
 * Start reading at agent_duty().
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/clock.h"
#include "core/runtime/counter.h"
#include "core/runtime/doorbell.h"
#include "core/runtime/errlog.h"
#include "core/runtime/ring.h"
#include "core/runtime/thread_class.h"
#include "core/runtime/timer.h"

#define AGENT_MAX 64
#define AGENT_MAGIC 0x6167656eU
/* Tasks taken from one ring in one duty cycle. */
#define AGENT_DRAIN_LIMIT 256
/* A link with more tasks than this in its overflow puts its producer under pressure. */
#define LINK_HIGH_WATER 1024

struct agent;
struct group;
struct mux;
struct runtime;

/*
 * A closure with its data, run later by the agent that it was sent to. It travels by value: nothing
 * is allocated for the trip. Ownership of `object` moves with it.
 */
typedef void (*task_fn)(struct agent *self, void *object, uint64_t value);

SINGLE
struct task {
	task_fn run;
	void *object;
	uint64_t value;
};

RING_DEFINE(task_ring, task);

/* Hand-over from one agent to another: the ring, and what did not fit into it. */
SINGLE
struct link {
	struct task_ring ring;
	/* The producer's: tasks that wait for room in the ring, in order; a circular buffer. */
	_Alignas(CACHE_LINE) struct task *overflow;
	uint32_t overflow_head;
	uint32_t overflow_count;
	uint32_t overflow_slots;
	struct agent *from;
	struct agent *to;
};

READONLY
struct agent_ops {
	const char *kind;
	/* Each may be NULL but do_work. */
	int (*init)(struct agent *self);
	int (*start)(struct agent *self);
	void (*start_complete)(struct agent *self);
	/* Returns how much it did; 0 is idle. Never blocks, never loops without a bound. */
	int (*do_work)(struct agent *self);
	/* Begin to drain. */
	void (*stop)(struct agent *self);
	/* True when nothing is under way any more. NULL: at once. */
	bool (*drained)(struct agent *self);
	/* How long the group may sleep in the kernel, for an agent with deadlines of its own, ns
	 * from now, 1 or more. NULL: as long as it likes. */
	uint64_t (*sleep_max_ns)(struct agent *self);
	void (*tear_down)(struct agent *self);
};

enum agent_state {
	AGENT_INIT,
	AGENT_STARTED,
	AGENT_RUNNING,
	AGENT_STOPPING,
	AGENT_DRAINED,
	/* It has left a program that runs. */
	AGENT_GONE,
};

BOUND
struct agent {
	uint32_t magic;
	uint8_t id;
	/* When the program stops, agents of a lower phase drain before those of a higher one. */
	uint8_t stop_phase;
	const char *name;
	const struct agent_ops *ops;
	struct runtime *runtime;
	/* All agents by id, for messages about ownership. */
	struct agent *const *runtime_agents;
	const struct clock *clock;
	uint64_t stall_ns;
	struct group *group;
	/* The group's, from start on. */
	struct mux *mux;
	/* The group's reading of the clocks in this duty cycle. */
	struct instant now;
	/* Links to every agent by its id; NULL where there is none. Its own thread's, once it runs.
	 */
	struct link *out[AGENT_MAX];
	struct link *in[AGENT_MAX];
	/* Rings of `in` that this agent knows to hold more. */
	uint64_t in_pending;
	/* Links of `out` that need a flush. */
	uint64_t out_dirty;
	/* Those of `out` whose agents are about to leave: they get answers, and nothing new. */
	uint64_t out_leaving;
	/* True while some link's overflow is above its high-water mark: stop reading from sources.
	 */
	bool pressure;
	/* Whose task runs now; NULL outside of tasks. */
	struct agent *sender;
	struct timer_client timers;
	struct errlog errors;
	struct counter_set *counters;
	struct counter *tasks_run;
	struct counter *cycles_work;
	struct counter *cycles_idle;
	struct counter *cycle_max_ns;
	struct counter *stalls;
	struct counter *overflow_max;
	_Atomic int state;
	/* Connected, and runs or will; and it leaves, and it has taken too long. The first group's
	 * thread writes them. */
	_Atomic bool live;
	_Atomic bool leaving;
	_Atomic bool hurry;
	/* Producers' side: a bit for each ring that may hold something. */
	_Alignas(CACHE_LINE) _Atomic uint64_t in_bits;
};

/* The agent whose code this thread runs; NULL outside. */
extern _Thread_local struct agent *agent_current;

/* Sets up; `name` is not copied. The id is given by runtime_add(). */
SINGLE
void agent_init(struct agent *a, const struct agent_ops *ops, const char *name, uint8_t stop_phase);

/*
 * Sends a task to `to`, which may be the sender itself (then it runs in a later part of this duty
 * cycle or the next one). It never blocks and never drops: what the ring cannot take waits in the
 * link's overflow. Tasks of one sender to one receiver run in the order sent. Peers see it, and
 * are woken, when the sender's duty cycle ends.
 */
BOUND
void agent_send(struct agent *self, struct agent *to, task_fn run, void *object, uint64_t value);

/* Something new may be sent to `to`: it is there, and not about to leave. Who answers does not ask:
 * nobody leaves who waits for an answer. */
BOUND
static inline bool agent_reaches(const struct agent *self, const struct agent *to)
{
	return self->out[to->id] != NULL && (self->out_leaving & UINT64_C(1) << to->id) == 0;
}

/* One duty cycle: tasks that came in, do_work, flush of what was sent. Returns the work done. */
BOUND
int agent_duty(struct agent *self, struct instant now);

/* Anything to do that needs no new event? Asked after the group has announced that it parks. */
BOUND
bool agent_has_input(struct agent *self);

/* Flush links: retry overflows, publish what is dirty, ring each peer's doorbell once. */
BOUND
void agent_flush(struct agent *self);

/* Records an error in the agent's distinct error log, with its own time. */
BOUND
void agent_error(struct agent *self, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Tasks in the rings of an agent, roughly, as they go on: on their way to it, and from it. */
CONCURRENT
uint64_t agent_ring_depth_in(const struct agent *a);
CONCURRENT
uint64_t agent_ring_depth_out(const struct agent *a);

SINGLE
void agent_close(struct agent *a);

BOUND
static inline uint64_t agent_now_ms(const struct agent *a)
{
	return a->now.mono_ns / NS_PER_MS;
}

BOUND
static inline uint64_t agent_wall_ms(const struct agent *a)
{
	return a->now.wall_ns / NS_PER_MS;
}
