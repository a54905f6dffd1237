#include "listeners/control/pace.h"

#include "core/runtime/clock.h"

/* A step takes about 1 in so many parts of the time since the one before, within bounds. */
#define TIME_PARTS 8U
#define STEP_NS_MIN (200 * NS_PER_US)
#define STEP_NS_MAX (1000 * NS_PER_US)
/* Less than this from step to step is nobody's work. After so many of them nobody is waited for. */
#define IDLE_NS (50 * NS_PER_US)
#define QUIET_STEPS 8U
/* Before it is known what one thing takes. */
#define EACH_NS 300U
/* Pieces take 1 in so many parts of a core. */
#define REST_PARTS 5U
/* A thread is looked at for so long, and is busy with more than 1 in so many parts of it. */
#define WATCH_NS (10 * NS_PER_MS)
#define BUSY_PARTS 4U

static uint64_t step_ns(const struct pace *p, uint64_t mono_ns)
{
	uint64_t ns = p->mono_ns != 0 ? (mono_ns - p->mono_ns) / TIME_PARTS : 0;

	return ns < STEP_NS_MIN ? STEP_NS_MIN : ns > STEP_NS_MAX ? STEP_NS_MAX : ns;
}

int pace_begin(struct pace *p, uint64_t mono_ns, uint64_t cpu_ns)
{
	uint64_t other_ns = p->ended_ns != 0 ? cpu_ns - p->ended_ns : 0;
	uint64_t count = step_ns(p, mono_ns) / (p->each_ns != 0 ? p->each_ns : EACH_NS);

	p->mono_ns = mono_ns;
	p->began_ns = cpu_ns;
	p->quiet = other_ns < IDLE_NS ? p->quiet + 1 : 0;
	p->rests = cpu_ns != 0 && p->quiet <= QUIET_STEPS;
	if (cpu_ns == 0 || count > PACE_STEP_MAX) {
		return PACE_STEP_MAX;
	}
	return count < PACE_STEP_MIN ? PACE_STEP_MIN : (int)count;
}

void pace_end(struct pace *p, uint64_t cpu_ns, unsigned done)
{
	if (done > 0) {
		p->each_ns = (cpu_ns - p->began_ns) / done;
	}
	p->ended_ns = cpu_ns;
}

/* At first a thread counts as busy, until it has been watched. */
static bool is_busy(struct pace_rest *r, uint64_t now_ns, uint64_t cpu_ns)
{
	if (cpu_ns == 0) {
		return false;
	}
	if (r->since_ns == 0) {
		r->since_ns = now_ns;
		r->cpu_ns = cpu_ns;
	} else if (now_ns >= r->since_ns + WATCH_NS) {
		r->idle = (cpu_ns - r->cpu_ns) * BUSY_PARTS < now_ns - r->since_ns;
		r->since_ns = now_ns;
		r->cpu_ns = cpu_ns;
	}
	return !r->idle;
}

uint64_t pace_rest_until(struct pace_rest *r, uint64_t now_ns, uint64_t cpu_ns, uint64_t work_ns)
{
	if (!is_busy(r, now_ns, cpu_ns)) {
		r->paid_ns = 0;
		return 0;
	}
	if (r->paid_ns == 0) {
		r->paid_ns = now_ns;
	}
	r->paid_ns += work_ns * REST_PARTS;
	/* Timers know milliseconds: what is less is kept for the next time. */
	return r->paid_ns >= now_ns + NS_PER_MS ? r->paid_ns / NS_PER_MS : 0;
}
