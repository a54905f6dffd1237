/*
 * Generations: the configuration of a running program changes as a whole. What was loaded and
 * checked on the thread pool becomes the newest generation, or nothing changes; then every reader
 * takes it, between two tasks of its own, and tells. One change at a time: others wait.
 *
 *     first scheduler     thread pool                 schedulers, master
 *     begin ----------->  load, check, open sockets
 *     publish  <--------  ready, or why not
 *         ----------------------------------------->  take: what begins has it
 *     done  <--------------------------------------   nothing of the one before is left
 *
 * Who is in the middle of something holds what it has (config_hold()): an SMTP session for a
 * transaction, a look-up for its questions, a connection that was accepted for as long as its
 * listener wants it. This file has a reference of each generation too, and frees one when it has
 * the only one left, on the pool: no reader ever does.
 *
 * Keys alone (`tls reload`, `dkim reload`) are changed in the same way: ops that load, publish and
 * take something else.
 *
 * Start reading at generation_begin().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "agents/scheduler.h"
#include "agents/thread_pool.h"
#include "config/config.h"
#include "core/runtime/thread_class.h"

/* Generations that somebody still has, at most: with so many, no other is loaded. */
#define GENERATIONS_MAX 64

struct generation_change;
struct listen_sockets;

/* What is changed. */
READONLY
struct generation_ops {
	/* On the pool; may block, and must not change anything that others see. False: why not is
	 * on `errors`, in lines. `running` is the newest generation, and stays that meanwhile. */
	bool (*prepare)(struct generation_change *g, struct config *running, FILE *errors);
	/* On the first scheduler. False: there is nothing for others to take. */
	bool (*publish)(struct generation_change *g);
	/* On each scheduler, between two tasks: generation_taken() when nothing of what was before
	 * is in use there, now or later. */
	void (*take)(struct generation_change *g, struct scheduler *s);
	/* On the first scheduler, at the end, whatever came of it: frees what prepare() has made.
	 * May be NULL. */
	void (*free)(struct generation_change *g);
};

/*
 * One change, embedded in what it is for; stays until on_done has run. The first part is set by who
 * begins it.
 */
SINGLE
struct generation_change {
	/* On the pool: a generation that nobody has yet, from wherever; NULL: why not is on
	 * `errors`, a line each. NULL itself: the files of the running one are loaded again. */
	struct config *(*load)(struct generation_change *g, const struct config *running,
			       FILE *errors);
	/* On the first scheduler. */
	void (*on_done)(struct generation_change *g);

	/* What came of it: 0; or -EINVAL (wrong), -EAGAIN (not now), -ECANCELED (the program
	 * stops), and nothing has changed. */
	int result;
	/* Why not, else warnings; lines. malloc. */
	char *messages;
	/* The new generation's. */
	uint64_t number;
	/* What takes effect with a restart only, and does not now. */
	struct config_kept *kept;

	/* This file's own. */
	const struct generation_ops *ops;
	struct program *program;
	struct generation_change *next;
	struct job job;
	struct config *config;
	struct route_self self;
	/* The same, where it stays. */
	const struct route_self *self_of;
	/* Domains may have other providers than before. */
	bool reroutes;
	struct listen_sockets *sockets;
	uint32_t waiting;
};

/* Of a program with its first generation, p->config, whose references it takes over; before the
 * schedulers are made. */
SINGLE
struct generations *generations_create(struct program *p);
/* When the schedulers are made: counters; the first one is since `now_ms`, wall clock. */
SINGLE
void generations_open(struct program *p, uint64_t now_ms);
/* When nobody runs any more; frees those that nobody else has. */
SINGLE
void generations_destroy(struct generations *gs);

/* On the first scheduler, or before it runs: who this machine is, by the newest generation; for as
 * long as somebody holds that. */
BOUND
const struct route_self *generations_self(const struct program *p);

/* On the first scheduler: loads a generation and makes it the newest; g->on_done() runs later,
 * never from within. */
BOUND
void generation_begin(struct program *p, struct generation_change *g);

/* The same for something else than the configuration, as `ops` say; `g->load` is not used. */
BOUND
void generation_begin_other(struct program *p, struct generation_change *g,
			    const struct generation_ops *ops);

/* Frees what a change has told; when on_done is over with it. */
SINGLE
void generation_change_close(struct generation_change *g);

/* A reader has taken it, and nothing of what was before is in use by it. */
BOUND
void generation_taken(struct generation_change *g, struct agent *self);

/* A reader that is still to say that it has taken it: not all is as it should be. One line. */
BOUND
void generation_warn(struct generation_change *g, struct agent *self, const char *line);

/* On the first scheduler, in each duty cycle: frees what nobody has any more. */
BOUND
int generations_do_work(struct program *p);

/* On the first scheduler, by SIGHUP: loads the files again, and logs what came of it: a task. */
BOUND
void generations_on_hangup(struct agent *self, void *program, uint64_t unused);

/* One that is alive. */
READONLY
struct generation_fact {
	uint64_t number;
	/* Wall clock. */
	uint64_t since_ms;
	/* Who has it, but for this file. */
	uint32_t readers;
};

/* On the first scheduler: those that are alive, the newest first; returns how many. */
BOUND
uint32_t generations_list(const struct program *p, struct generation_fact list[GENERATIONS_MAX]);
/* A change is under way. */
BOUND
bool generations_busy(const struct program *p);

/* On the master: takes the generation, then tells. A task. */
BOUND
void master_on_generation(struct agent *self, void *change, uint64_t unused);
