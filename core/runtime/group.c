#include "core/runtime/group.h"

#include <ck_pr.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

#include "core/runtime/affinity.h"
#include "core/runtime/runtime.h"

int group_start(struct group *g)
{
	const char *why = NULL;
	int rc = mux_create(&g->mux, g->runtime->backend, g->runtime->mux_entries, &why);

	if (why != NULL) {
		char text[256];

		snprintf(text, sizeof(text), "%s%s%s", why, rc == 0 ? "; goes on with " : "",
			 rc == 0 ? mux_name(g->mux) : "");
		runtime_warn_once(g->runtime, text);
	}
	if (rc != 0) {
		return rc;
	}
	mux_watch_doorbell(g->mux, g->doorbell.eventfd);
	for (uint32_t i = 0; rc == 0 && i < g->agent_count; i++) {
		struct agent *a = g->agents[i];

		agent_current = a;
		a->mux = g->mux;
		a->now = clock_read(&g->runtime->clock);
		rc = a->ops->start != NULL ? a->ops->start(a) : 0;
		agent_current = NULL;
		if (rc == 0) {
			atomic_store(&a->state, AGENT_STARTED);
		}
	}
	return rc;
}

static void start_complete(struct group *g)
{
	for (uint32_t i = 0; i < g->agent_count; i++) {
		struct agent *a = g->agents[i];

		agent_current = a;
		atomic_store(&a->state, AGENT_RUNNING);
		a->now = clock_read(&g->runtime->clock);
		if (a->ops->start_complete != NULL) {
			a->ops->start_complete(a);
		}
		agent_flush(a);
		agent_current = NULL;
	}
	g->complete = true;
}

/* An agent that has drained may yet get tasks from others, and then drains again. */
static void note_drained(struct group *g, struct agent *a)
{
	bool before = atomic_load_explicit(&a->state, memory_order_relaxed) == AGENT_DRAINED;
	/* Last whether all went out: the agent may have sent something just when it was asked. */
	bool now = (a->ops->drained == NULL || a->ops->drained(a)) && !agent_has_input(a) &&
		   a->out_dirty == 0;

	atomic_store(&a->state, now ? AGENT_DRAINED : AGENT_STOPPING);
	if (now && !before) {
		doorbell_ring(&g->runtime->groups[0]->doorbell);
	}
}

/* Tells agents whose phase has come to stop, and notes which have drained. */
static void follow_stop(struct group *g, struct instant now)
{
	int phase = atomic_load_explicit(&g->runtime->stop_phase, memory_order_acquire);

	g->seen_phase = phase;
	for (uint32_t i = 0; i < g->agent_count; i++) {
		struct agent *a = g->agents[i];
		int state = atomic_load_explicit(&a->state, memory_order_relaxed);

		if (a->stop_phase > phase) {
			continue;
		}
		agent_current = a;
		a->now = now;
		if (state == AGENT_RUNNING) {
			atomic_store(&a->state, AGENT_STOPPING);
			if (a->ops->stop != NULL) {
				a->ops->stop(a);
			}
			agent_flush(a);
		}
		note_drained(g, a);
		agent_current = NULL;
	}
}

/* Nobody rings when there is room in a ring again; a consumer that has no time is not given more by
 * a producer that spins. */
#define OVERFLOW_RETRY_NS (50 * NS_PER_US)
#define RING_PATIENCE_MS 500

static uint64_t park_limit_ns(struct group *g, uint64_t limit_ns)
{
	for (uint32_t i = 0; i < g->agent_count; i++) {
		struct agent *a = g->agents[i];
		uint64_t ns = a->out_dirty != 0 ? OVERFLOW_RETRY_NS : limit_ns;

		limit_ns = ns < limit_ns ? ns : limit_ns;
		if (a->ops->sleep_max_ns != NULL) {
			agent_current = a;
			ns = a->ops->sleep_max_ns(a);
			agent_current = NULL;
		}
		limit_ns = ns < limit_ns ? ns : limit_ns;
	}
	return limit_ns != 0 ? limit_ns : 1;
}

/* Something that a peer rings the doorbell for. */
static bool has_news(struct group *g)
{
	if (runtime_has_news(g->runtime, g)) {
		return true;
	}
	for (uint32_t i = 0; i < g->agent_count; i++) {
		if (agent_has_input(g->agents[i])) {
			return true;
		}
	}
	return false;
}

/* After the announcement: is there anything at all to do? Looks at every source. */
static bool has_work(struct group *g)
{
	return has_news(g) || mux_ready(g->mux);
}

static void sleep_ns(uint64_t ns)
{
	struct timespec t = {(time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S)};

	nanosleep(&t, NULL);
}

/* After a sleep that timed out: was a doorbell not rung? A peer that has published something and
 * was interrupted before it rings is given some time. */
static bool wakeup_lost(struct group *g)
{
	for (unsigned i = 0; i < RING_PATIENCE_MS; i++) {
		if (atomic_load_explicit(&g->doorbell.state, memory_order_relaxed) !=
			    DOORBELL_PARKED ||
		    !has_news(g)) {
			return false;
		}
		sleep_ns(NS_PER_MS);
	}
	return true;
}

bool group_fall_asleep(struct group *g, uint64_t limit_ns, uint64_t *ns)
{
	*ns = park_limit_ns(g, limit_ns);
	doorbell_park(&g->doorbell);
	if (has_work(g)) {
		doorbell_wake(&g->doorbell);
		return false;
	}
	counter_inc(g->parks);
	return true;
}

void group_wake_up(struct group *g, bool woken, uint64_t ns)
{
	if (!woken && ns == GROUP_PARK_MAX_NS && wakeup_lost(g)) {
		counter_inc(g->park_timeout_with_work);
	}
	doorbell_wake(&g->doorbell);
}

/* Sleeps in the kernel until an event, the doorbell, a deadline or `limit_ns`. */
static void park(struct group *g, uint64_t limit_ns)
{
	uint64_t ns;

	if (group_fall_asleep(g, limit_ns, &ns)) {
		group_wake_up(g, mux_wait(g->mux, ns), ns);
	}
}

static void idle(struct group *g, int work)
{
	uint64_t ns;
	enum idle_action action = idle_step(&g->idle, work, g->now.mono_ns, &ns);

	if (work > 0) {
		return;
	}
	counter_inc(g->idle_cycles);
	switch (action) {
	case IDLE_DO_NOTHING:
		break;
	case IDLE_DO_PAUSE:
		ck_pr_stall();
		break;
	case IDLE_DO_YIELD:
		sched_yield();
		break;
	case IDLE_DO_SLEEP:
		/* A backoff sleeps behind the doorbell, so that its longest sleep delays nobody. */
		if (g->idle.kind == IDLE_BACKOFF) {
			park(g, ns);
		} else {
			sleep_ns(ns);
		}
		break;
	case IDLE_DO_PARK:
		park(g, GROUP_PARK_MAX_NS);
		break;
	}
}

void group_run(struct group *g)
{
	while (atomic_load_explicit(&g->runtime->state, memory_order_acquire) != RUNTIME_FINISHED) {
		idle(g, group_cycle(g));
	}
}

uint64_t group_cpu_ns(const struct group *g)
{
	struct timespec t;

	if (!g->has_cpu_clock || clock_gettime(g->cpu_clock, &t) != 0) {
		return 0;
	}
	return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

void group_finish(struct group *g)
{
	for (uint32_t i = g->agent_count; i-- > 0;) {
		struct agent *a = g->agents[i];

		agent_current = a;
		if (a->ops->tear_down != NULL && atomic_load(&a->state) >= AGENT_STARTED) {
			a->ops->tear_down(a);
		}
		agent_current = NULL;
	}
	if (g->mux != NULL) {
		mux_destroy(g->mux);
		g->mux = NULL;
	}
}

int group_cycle(struct group *g)
{
	int work;

	agent_role_assert();
	g->now = clock_read(&g->runtime->clock);
	counter_inc(g->cycles);
	if (!g->complete) {
		int state = atomic_load_explicit(&g->runtime->state, memory_order_acquire);

		/* Finished before it ran: another group could not start. */
		if (state < RUNTIME_RUNNING || state == RUNTIME_FINISHED) {
			return 0;
		}
		start_complete(g);
	}
	for (uint32_t i = 0; i < g->agent_count; i++) {
		g->agents[i]->now = g->now;
	}
	work = mux_reap(g->mux, GROUP_REAP_LIMIT);
	counter_add(g->completions, (uint64_t)work);
	for (uint32_t i = 0; i < g->agent_count; i++) {
		work += agent_duty(g->agents[i], g->now);
	}
	if (atomic_load_explicit(&g->runtime->stop_phase, memory_order_relaxed) >= 0) {
		follow_stop(g, g->now);
	}
	if (g == g->runtime->groups[0]) {
		runtime_advance_stop(g->runtime, g->now.mono_ns);
	}
	mux_submit(g->mux);
	return work;
}
