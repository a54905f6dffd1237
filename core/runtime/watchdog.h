/*
 * The watchdog: a thread of its own that notices when another one no longer finishes its duty
 * cycles. It says so on stderr, with that thread's stack, since the log agent may be what stands
 * still; it can abort the program, for a core file and a restart; and it tells the service manager
 * that all is well for as long as it is (sd_watchdog_enabled(3)).
 *
 * A thread that waits in the kernel by its idle strategy rests, for however long. Time during which
 * the watchdog itself did not run, as the machine was stopped, counts as one look.
 *
 * Start reading at look_at(), in watchdog.c.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/runtime/counter.h"
#include "core/runtime/thread_class.h"

struct watchdog;

/* A thread that is watched: part of what runs on it. */
CONCURRENT
struct watched {
	/* Its own to write: it waits in the kernel, and is no stall. */
	_Atomic bool resting;

	/* Set when it enters, read by the watchdog until it leaves. */
	const char *name;
	/* Rises with each duty cycle. */
	const struct counter *cycles;
	pid_t thread;

	/* The watchdog's own. */
	struct watched *next;
	uint64_t seen;
	uint64_t still_ns;
	/* How long it has to stand still until something is said again. */
	uint64_t told_ns;
};

READONLY
struct watchdog_options {
	/* A duty cycle longer than this is a stall; ns, at least 1 ms; 0: none is, and only the
	 * service manager is told. */
	uint64_t stall_ns;
	/* A stall longer than this aborts the program; 0: none does. */
	uint64_t abort_ns;
};

/* Starts the thread. Never NULL: without memory or threads the program ends here. One at a time for
 * a process, as it takes a signal (WATCHDOG_SIGNAL). */
SINGLE
struct watchdog *watchdog_create(const struct watchdog_options *options);

/* Ends the thread. Everybody has left. */
SINGLE
void watchdog_destroy(struct watchdog *w);

/* The calling thread is watched from now on, under this name. Nothing is copied. */
CONCURRENT
void watchdog_enter(struct watchdog *w, struct watched *thread, const char *name,
		    const struct counter *cycles);

/* The calling thread is no longer watched. */
CONCURRENT
void watchdog_leave(struct watchdog *w, struct watched *thread);

/* The owner: it goes to sleep by its own will, or it is awake again. */
static inline void watched_rest(struct watched *thread, bool resting)
{
	atomic_store_explicit(&thread->resting, resting, memory_order_relaxed);
}
