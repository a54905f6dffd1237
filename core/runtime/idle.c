#include "core/runtime/idle.h"

#include "core/runtime/check.h"

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

static enum idle_action park_step(struct idle *i, uint64_t now_ns)
{
	if (i->phase == IDLE_PHASE_NOT_IDLE) {
		i->phase = IDLE_PHASE_SPIN;
		i->idle_since_ns = now_ns;
	}
	return now_ns - i->idle_since_ns < i->spin_ns ? IDLE_DO_PAUSE : IDLE_DO_PARK;
}

enum idle_action idle_step(struct idle *idle, int work, uint64_t now_ns, uint64_t *sleep_ns)
{
	*sleep_ns = 0;
	if (work > 0) {
		idle->phase = IDLE_PHASE_NOT_IDLE;
		return IDLE_DO_NOTHING;
	}
	switch (idle->kind) {
	case IDLE_BUSY_SPIN:
		return IDLE_DO_PAUSE;
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
		return park_step(idle, now_ns);
	}
	return IDLE_DO_NOTHING;
}
