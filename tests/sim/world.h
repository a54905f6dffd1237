/*
 * The simulated world: time, randomness, events, memory that outlives the program, and the trace.
 *
 * A run is one seed. The program under test (all of flywheel, composed by tools/server.c) lives in
 * a child process that is forked for each of its lives; a power cut or a kill is that child's
 * _exit() at any moment. Everything of the world, disk, network, peers, books, lies in memory that
 * is shared with the next life, taken by world_alloc(); the program's own memory is not, so nothing
 * of a life survives by mistake. At any time one process runs, on one thread.
 *
 * Nothing in the world may depend on addresses, real time, or the process: two runs of a seed print
 * the same trace hash.
 *
 * Start reading at life_run() in life.c, then kernel.h: what the program sees of the world.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/clock.h"

struct books;
struct disk;
struct net;
struct scenario;

/* How a life of the program ends: exit status of its process. Anything else is a failure. */
enum life_end {
	LIFE_STOPPED = 0,
	/* The process was killed: what it wrote is in the page cache. */
	LIFE_KILLED = 40,
	/* Power cut: what was not synced is there in part. */
	LIFE_CUT,
	/* The program did not start; the scenario may allow that (disk full). */
	LIFE_NOT_STARTED,
	/* A check of the simulator failed; the world has the text. */
	LIFE_FAILED,
};

typedef void (*world_fn)(void *object, uint64_t value);

struct world {
	uint64_t seed;
	uint64_t random_state[2];
	/* Monotonic, from 0; simulated. */
	uint64_t now_ns;
	uint64_t trace;
	uint64_t trace_events;
	/* Number of the current life, from 1 on. */
	uint32_t life;
	/* Group steps so far, and at most (0: no limit). */
	uint64_t steps;
	uint64_t steps_max;
	/* Print what happens (--verbose). */
	bool verbose;
	/* No more faults of disk, network, peers and operators: the end of a run, in which all mail
	 * must get through. */
	bool calm;
	struct net *net;
	struct disk *disk;
	struct books *books;
	struct scenario *scenario;
	/* Each kind of actor keeps its own. */
	void *senders;
	void *receivers;
	void *operators;
	/* Why the run failed; empty: it did not. */
	char failure[1024];
};

/* The one world of this process. */
extern struct world *world;

/* Makes the world of a seed, in memory of its own; one at a time. */
void world_create(uint64_t seed);
void world_destroy(void);

/* ---- memory ---- */

/* Zeroed, shared with later lives. Never NULL: a run that uses up the arena fails. */
void *world_alloc(size_t size);
/* `size` as it was taken. */
void world_free(void *data, size_t size);

/* ---- randomness: one stream for everything, xoroshiro128+ ---- */

uint64_t world_random(void);
/* 0 to n - 1; n at least 1. */
uint64_t world_below(uint64_t n);
/* low to high, both included. */
uint64_t world_between(uint64_t low, uint64_t high);
/* True `permille` times of 1000. Draws no number for 0 and 1000. */
bool world_chance(unsigned permille);

/* ---- events ---- */

/* Runs fn(object, value) at now + delay_ns. Objects are the world's (world_alloc); events survive
 * the program's lives unless made by world_at_life(). Equal times run in the order of the calls. */
void world_at(uint64_t delay_ns, world_fn fn, void *object, uint64_t value);
/* The same for what belongs to the program's process: dropped when this life ends. Its object may
 * be the program's memory. */
void world_at_life(uint64_t delay_ns, world_fn fn, void *object, uint64_t value);
/* Drops the events whose object is `object`, before it is freed. */
void world_forget(const void *object);
/* Time of the first event; UINT64_MAX: none. */
uint64_t world_next_ns(void);
/* Moves time on to `now_ns` and runs what is due on the way, in order. */
void world_advance(uint64_t now_ns);

/* ---- what happened ---- */

/* Goes into the hash; numbers only, nothing that depends on addresses. With --verbose one line. */
void world_trace(const char *what, uint64_t a, uint64_t b);
/* Ends the run as failed; in the program's process too. */
_Noreturn void world_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* With --verbose, one line with the time. */
void world_say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The program's clocks: now_ns, and a fixed date plus now_ns. */
extern const struct clock world_clock;
#define WORLD_EPOCH_NS (UINT64_C(1700000000) * NS_PER_S)
