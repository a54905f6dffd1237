#include "core/queue/throttle.h"

#include "core/runtime/check.h"
#include "core/runtime/clock.h"

/*
 * The generic cell rate algorithm (ITU-T I.371, virtual scheduling). `arrival_ns` is when the next
 * cell is due if all come evenly; a cell may come up to `burst_ns` before that. The word stands for
 * nothing but itself, so every access to it is relaxed.
 */

void throttle_init(struct throttle *t, uint64_t count, uint64_t period_s, const char *scope)
{
	ASSERT(count > 0 && period_s > 0 && period_s <= UINT64_MAX / NS_PER_S);
	uint64_t period_ns = period_s * NS_PER_S;
	uint64_t bucket = count / period_s;

	/* Rounded up, so that the rate is never exceeded by rounding. */
	t->interval_ns = period_ns / count + (period_ns % count != 0);
	t->burst_ns = bucket > 1 ? (bucket - 1) * t->interval_ns : 0;
	t->count = count;
	t->period_s = period_s;
	t->scope = scope;
	atomic_init(&t->arrival_ns, 0);
	atomic_init(&t->held, 0);
}

/* How long a cell that is due at `arrival_ns` has to wait at `now_ns`. */
static uint64_t wait_for(const struct throttle *t, uint64_t arrival_ns, uint64_t now_ns)
{
	if (arrival_ns <= now_ns || arrival_ns - now_ns <= t->burst_ns) {
		return 0;
	}
	return arrival_ns - now_ns - t->burst_ns;
}

uint64_t throttle_take(struct throttle *t, uint64_t now_ns)
{
	uint64_t arrival_ns = atomic_load_explicit(&t->arrival_ns, memory_order_relaxed);
	uint64_t next_ns;
	do {
		uint64_t wait_ns = wait_for(t, arrival_ns, now_ns);
		if (wait_ns != 0) {
			atomic_fetch_add_explicit(&t->held, 1, memory_order_relaxed);
			return wait_ns;
		}
		/* Time that nobody used is lost: that is what bounds the burst. */
		next_ns = (arrival_ns > now_ns ? arrival_ns : now_ns) + t->interval_ns;
	} while (!atomic_compare_exchange_weak_explicit(
		&t->arrival_ns, &arrival_ns, next_ns, memory_order_relaxed, memory_order_relaxed));
	return 0;
}

void throttle_return(struct throttle *t)
{
	/* Each cell taken moved the word on by at least one interval, so only a return without a
	 * take can get below it. */
	uint64_t before =
		atomic_fetch_sub_explicit(&t->arrival_ns, t->interval_ns, memory_order_relaxed);
	ASSERT(before >= t->interval_ns);
}

uint64_t throttle_wait_ns(const struct throttle *t, uint64_t now_ns)
{
	return wait_for(t, atomic_load_explicit(&t->arrival_ns, memory_order_relaxed), now_ns);
}

uint64_t throttle_wait_many_ns(const struct throttle *t, uint64_t now_ns, uint64_t count)
{
	uint64_t arrival_ns = atomic_load_explicit(&t->arrival_ns, memory_order_relaxed);
	uint64_t rest_ns;

	ASSERT(count > 0);
	arrival_ns = arrival_ns > now_ns ? arrival_ns : now_ns;
	if (__builtin_mul_overflow(count - 1, t->interval_ns, &rest_ns) ||
	    __builtin_add_overflow(arrival_ns, rest_ns, &arrival_ns)) {
		return UINT64_MAX;
	}
	return wait_for(t, arrival_ns, now_ns);
}
