#include "core/runtime/idle.h"

#include "core/runtime/check.h"
#include "core/runtime/clock.h"

const char *idle_name(enum idle_kind kind)
{
	static const char *const names[] = {"busy-spin", "yield", "backoff",
					    "sleep",     "noop",  "park"};

	ASSERT((unsigned)kind < sizeof names / sizeof names[0]);
	return names[kind];
}

/* Pauses, then yields, then sleeps that double, as long as nothing turns up. */
static enum idle_action backoff_step(struct idle *i, uint64_t *sleep_ns)
{
	if (i->phase == IDLE_PHASE_NOT_IDLE) {
		i->phase = IDLE_PHASE_SPIN;
		i->spins = 0;
		i->yields = 0;
		i->park_ns = i->min_park_ns;
	}
	if (i->phase == IDLE_PHASE_SPIN) {
		if (i->spins++ < i->max_spins) {
			return IDLE_DO_PAUSE;
		}
		i->phase = IDLE_PHASE_YIELD;
	}
	if (i->phase == IDLE_PHASE_YIELD) {
		if (i->yields++ < i->max_yields) {
			return IDLE_DO_YIELD;
		}
		i->phase = IDLE_PHASE_PARK;
	}
	*sleep_ns = i->park_ns;
	i->park_ns = i->park_ns * 2 < i->max_park_ns ? i->park_ns * 2 : i->max_park_ns;
	return IDLE_DO_SLEEP;
}

/* A step takes less than a microsecond: after a longer pause the thread was not on its core. */
#define CROWDED_GAP_NS (20 * NS_PER_US)
#define CROWDED_NS (10 * NS_PER_MS)
/* Weight of the last wait in the average: one in so many. */
#define EXPECTED_WEIGHT 8
/* Longer waits count as one of this many budgets: after some short ones spinning pays again. */
#define EXPECTED_MAX 4

/* Work came: how long did it let wait for itself? */
static void note_wait(struct idle *i, uint64_t now_ns)
{
	uint64_t max_ns = EXPECTED_MAX * i->spin_ns;
	uint64_t wait_ns = now_ns - i->idle_since_ns;

	wait_ns = wait_ns < max_ns ? wait_ns : max_ns;
	i->expected_ns = (i->expected_ns * (EXPECTED_WEIGHT - 1) + wait_ns) / EXPECTED_WEIGHT;
}

static uint64_t spin_budget(const struct idle *i, uint64_t now_ns)
{
	bool pays = i->expected_ns < i->spin_ns;

	return pays && !i->crowded && now_ns >= i->crowded_until_ns ? i->spin_ns : 0;
}

/* Spins where work is expected soon and nobody else needs the core, else parks at once. */
static enum idle_action park_step(struct idle *i, uint64_t now_ns, uint64_t *sleep_ns)
{
	if (i->coalesce_ns != 0 && !i->coalesced) {
		i->coalesced = true;
		*sleep_ns = i->coalesce_ns;
		return IDLE_DO_SLEEP;
	}
	if (i->phase == IDLE_PHASE_NOT_IDLE) {
		i->phase = IDLE_PHASE_SPIN;
		i->idle_since_ns = now_ns;
		i->budget_ns = spin_budget(i, now_ns);
	} else if (i->spinning && now_ns - i->last_step_ns > CROWDED_GAP_NS) {
		i->crowded_until_ns = now_ns + CROWDED_NS;
		i->budget_ns = 0;
	}
	i->last_step_ns = now_ns;
	i->spinning = now_ns - i->idle_since_ns < i->budget_ns;
	return i->spinning ? IDLE_DO_PAUSE : IDLE_DO_PARK;
}

/* A thread that spins leaves its core now and then: what the kernel has to do on that very core,
 * such as to complete a write to a disk with a cache, would otherwise wait for the tick. */
#define SPIN_LEAVE_NS (200 * NS_PER_US)

static enum idle_action spin_step(struct idle *i, uint64_t now_ns)
{
	if (now_ns - i->last_step_ns < SPIN_LEAVE_NS) {
		return IDLE_DO_PAUSE;
	}
	i->last_step_ns = now_ns;
	return IDLE_DO_YIELD;
}

enum idle_action idle_step(struct idle *idle, int work, uint64_t now_ns, uint64_t *sleep_ns)
{
	*sleep_ns = 0;
	if (work > 0) {
		if (idle->kind == IDLE_PARK && idle->phase != IDLE_PHASE_NOT_IDLE) {
			note_wait(idle, now_ns);
		}
		idle->phase = IDLE_PHASE_NOT_IDLE;
		idle->coalesced = false;
		return IDLE_DO_NOTHING;
	}
	switch (idle->kind) {
	case IDLE_BUSY_SPIN:
		return spin_step(idle, now_ns);
	case IDLE_YIELD:
		return IDLE_DO_YIELD;
	case IDLE_BACKOFF:
		return backoff_step(idle, sleep_ns);
	case IDLE_SLEEP:
		*sleep_ns = idle->sleep_ns;
		return IDLE_DO_SLEEP;
	case IDLE_NOOP:
		return IDLE_DO_NOTHING;
	case IDLE_PARK:
		return park_step(idle, now_ns, sleep_ns);
	}
	return IDLE_DO_NOTHING;
}
