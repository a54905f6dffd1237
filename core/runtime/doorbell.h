/*
 * The doorbell wakes a group that sleeps in the kernel.
 *
 * Producer: publish everything for the peer, then doorbell_ring() once per duty cycle.
 * Consumer: doorbell_park(), look at every source once more, then either doorbell_wake() and go
 * on, or wait in the kernel for the eventfd and then doorbell_wake(). Each side's fence pairs with
 * the other's: with compiler barriers alone wake-ups were lost, on x86 too.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "core/runtime/ring.h"
#include "core/runtime/thread_class.h"

enum doorbell_state { DOORBELL_AWAKE, DOORBELL_PARKED };

CONCURRENT
struct doorbell {
	_Alignas(CACHE_LINE) atomic_uint state;
	int eventfd;
};

/* 0 or a negative errno from eventfd(2). */
SINGLE
int doorbell_init(struct doorbell *d);

/* Wakes the consumer if it sleeps or is about to. True when the eventfd had to be written. */
CONCURRENT
bool doorbell_ring(struct doorbell *d);

SINGLE
void doorbell_close(struct doorbell *d);

/* Consumer: announce the last look. */
static inline void doorbell_park(struct doorbell *d)
{
#if defined(__SANITIZE_THREAD__)
	atomic_exchange_explicit(&d->state, DOORBELL_PARKED, memory_order_seq_cst);
#else
	atomic_store_explicit(&d->state, DOORBELL_PARKED, memory_order_relaxed);
	/* Pairs with the fence in doorbell_ring(). */
	atomic_thread_fence(memory_order_seq_cst);
#endif
}

/* Consumer: awake, whatever woke it. */
static inline void doorbell_wake(struct doorbell *d)
{
	atomic_store_explicit(&d->state, DOORBELL_AWAKE, memory_order_relaxed);
}
