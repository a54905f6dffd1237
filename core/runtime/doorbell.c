#include "core/runtime/doorbell.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int doorbell_init(struct doorbell *d)
{
	atomic_store(&d->state, DOORBELL_AWAKE);
	d->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	return d->eventfd < 0 ? -errno : 0;
}

bool doorbell_ring(struct doorbell *d)
{
	uint64_t one = 1;
	ssize_t n;

#if !defined(__SANITIZE_THREAD__)
	/* Publish before the look at the state. Pairs with the fence in doorbell_park(). */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&d->state, memory_order_relaxed) != DOORBELL_PARKED) {
		return false;
	}
#endif
	if (atomic_exchange_explicit(&d->state, DOORBELL_AWAKE, memory_order_seq_cst) !=
	    DOORBELL_PARKED) {
		return false;
	}
	n = write(d->eventfd, &one, sizeof one);
	/* A full eventfd (EAGAIN) is a rung one. */
	ASSERT(n == (ssize_t)sizeof one || errno == EAGAIN);
	return true;
}

void doorbell_close(struct doorbell *d)
{
	if (d->eventfd >= 0) {
		close(d->eventfd);
		d->eventfd = -1;
	}
}
