#include "core/queue/throttle.h"

#include <stdlib.h>

#include "core/runtime/check.h"
#include "core/runtime/clock.h"

/*
 * The generic cell rate algorithm (ITU-T I.371, virtual scheduling). `arrival_ns` is when the next
 * cell is due if all come evenly; a cell may come up to `burst_ns` before that. The word stands for
 * nothing but itself, so every access to it is relaxed.
 */

static void set_rate(struct throttle_slot *s, uint64_t count, uint64_t period_s)
{
	uint64_t period_ns = period_s * NS_PER_S;
	uint64_t bucket = count / period_s;
	/* Rounded up, so that the rate is never exceeded by rounding. */
	uint64_t interval_ns = period_ns / count + (period_ns % count != 0);

	atomic_store_explicit(&s->interval_ns, interval_ns, memory_order_relaxed);
	atomic_store_explicit(&s->burst_ns, bucket > 1 ? (bucket - 1) * interval_ns : 0,
			      memory_order_relaxed);
}

void throttle_init(struct throttle *t, uint64_t count, uint64_t period_s, const char *scope)
{
	ASSERT(count > 0 && period_s > 0 && period_s <= UINT64_MAX / NS_PER_S);
	*t = (struct throttle){.count = count, .period_s = period_s, .scope = scope};
	t->slot = &t->own;
	set_rate(t->slot, count, period_s);
}

void throttle_detach(struct throttle *t)
{
	struct throttle_slot *s = check_memory(calloc(1, sizeof(*s)), "a throttle");

	ASSERT(t->slot == &t->own);
	atomic_init(&s->references, 1);
	set_rate(s, t->count, t->period_s);
	t->slot = s;
}

void throttle_close(struct throttle *t)
{
	struct throttle_slot *s = t->slot;

	/* What others did with it comes before its end. */
	if (s != &t->own &&
	    atomic_fetch_sub_explicit(&s->references, 1, memory_order_acq_rel) == 1) {
		free(s);
	}
	t->slot = NULL;
}

void throttle_inherit(struct throttle *t, const struct throttle *from)
{
	ASSERT(from->slot != &from->own);
	throttle_close(t);
	atomic_fetch_add_explicit(&from->slot->references, 1, memory_order_relaxed);
	t->slot = from->slot;
}

static uint64_t interval_of(const struct throttle *t)
{
	return atomic_load_explicit(&t->slot->interval_ns, memory_order_relaxed);
}

/* So much of `ahead_ns` at another interval; no more than a day, lest it does not fit. */
static uint64_t at_interval(uint64_t ahead_ns, uint64_t old_ns, uint64_t new_ns)
{
	long double scaled = (long double)ahead_ns / (long double)old_ns * (long double)new_ns;
	long double max = 86400.0L * NS_PER_S;

	return (uint64_t)(scaled < max ? scaled : max);
}

void throttle_apply(struct throttle *t, uint64_t now_ns)
{
	uint64_t old_ns = interval_of(t);
	uint64_t arrival_ns = atomic_load_explicit(&t->slot->arrival_ns, memory_order_relaxed);
	uint64_t moved_ns;

	set_rate(t->slot, t->count, t->period_s);
	if (interval_of(t) == old_ns) {
		return;
	}
	do {
		if (arrival_ns <= now_ns) {
			return;
		}
		moved_ns = now_ns + at_interval(arrival_ns - now_ns, old_ns, interval_of(t));
	} while (!atomic_compare_exchange_weak_explicit(&t->slot->arrival_ns, &arrival_ns, moved_ns,
							memory_order_relaxed,
							memory_order_relaxed));
}

/* How long a cell that is due at `arrival_ns` has to wait at `now_ns`. */
static uint64_t wait_for(const struct throttle *t, uint64_t arrival_ns, uint64_t now_ns)
{
	uint64_t burst_ns = atomic_load_explicit(&t->slot->burst_ns, memory_order_relaxed);

	if (arrival_ns <= now_ns || arrival_ns - now_ns <= burst_ns) {
		return 0;
	}
	return arrival_ns - now_ns - burst_ns;
}

uint64_t throttle_take(struct throttle *t, uint64_t now_ns)
{
	uint64_t arrival_ns = atomic_load_explicit(&t->slot->arrival_ns, memory_order_relaxed);
	uint64_t next_ns;
	do {
		uint64_t wait_ns = wait_for(t, arrival_ns, now_ns);
		if (wait_ns != 0) {
			atomic_fetch_add_explicit(&t->slot->held, 1, memory_order_relaxed);
			return wait_ns;
		}
		/* Time that nobody used is lost: that is what bounds the burst. */
		next_ns = (arrival_ns > now_ns ? arrival_ns : now_ns) + interval_of(t);
	} while (!atomic_compare_exchange_weak_explicit(&t->slot->arrival_ns, &arrival_ns, next_ns,
							memory_order_relaxed,
							memory_order_relaxed));
	return 0;
}

void throttle_return(struct throttle *t)
{
	uint64_t interval_ns = interval_of(t);
	uint64_t arrival_ns = atomic_load_explicit(&t->slot->arrival_ns, memory_order_relaxed);
	uint64_t before_ns;

	/* The cell may have been taken at another rate, with less of an interval. */
	do {
		before_ns = arrival_ns > interval_ns ? arrival_ns - interval_ns : 0;
	} while (!atomic_compare_exchange_weak_explicit(&t->slot->arrival_ns, &arrival_ns,
							before_ns, memory_order_relaxed,
							memory_order_relaxed));
}

uint64_t throttle_wait_ns(const struct throttle *t, uint64_t now_ns)
{
	return wait_for(t, atomic_load_explicit(&t->slot->arrival_ns, memory_order_relaxed),
			now_ns);
}

uint64_t throttle_wait_many_ns(const struct throttle *t, uint64_t now_ns, uint64_t count)
{
	uint64_t arrival_ns = atomic_load_explicit(&t->slot->arrival_ns, memory_order_relaxed);
	uint64_t rest_ns;

	ASSERT(count > 0);
	arrival_ns = arrival_ns > now_ns ? arrival_ns : now_ns;
	if (__builtin_mul_overflow(count - 1, interval_of(t), &rest_ns) ||
	    __builtin_add_overflow(arrival_ns, rest_ns, &arrival_ns)) {
		return UINT64_MAX;
	}
	return wait_for(t, arrival_ns, now_ns);
}
