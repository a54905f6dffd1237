#include "core/runtime/group.h"

#include <ck_pr.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/runtime/affinity.h"
#include "core/runtime/runtime.h"

static int start_agent(struct group *g, struct agent *a)
{
	int rc;

	agent_current = a;
	a->mux = g->mux;
	a->now = clock_read(&g->runtime->clock);
	rc = a->ops->start != NULL ? a->ops->start(a) : 0;
	if (rc != 0) {
		agent_flush(a);
	}
	agent_current = NULL;
	if (rc == 0) {
		atomic_store(&a->state, AGENT_STARTED);
	}
	return rc;
}

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
		rc = start_agent(g, g->agents[i]);
	}
	return rc;
}

static void complete_agent(struct group *g, struct agent *a)
{
	agent_current = a;
	atomic_store(&a->state, AGENT_RUNNING);
	a->now = clock_read(&g->runtime->clock);
	if (a->ops->start_complete != NULL) {
		a->ops->start_complete(a);
	}
	agent_flush(a);
	agent_current = NULL;
}

static void start_complete(struct group *g)
{
	for (uint32_t i = 0; i < g->agent_count; i++) {
		complete_agent(g, g->agents[i]);
	}
	g->complete = true;
	/* It may wait for one that has joined. */
	doorbell_ring(&g->runtime->groups[0]->doorbell);
}

int group_add(struct group *g, struct agent *a)
{
	int rc = start_agent(g, a);

	if (rc == 0) {
		g->agents[g->agent_count++] = a;
		complete_agent(g, a);
	}
	return rc;
}

void group_stop_agent(struct agent *a)
{
	agent_current = a;
	atomic_store(&a->state, AGENT_STOPPING);
	if (a->ops->stop != NULL) {
		a->ops->stop(a);
	}
	agent_flush(a);
	agent_current = NULL;
}

/* An agent that has drained may yet get tasks from others, and then drains again. */
static void note_drained(struct group *g, struct agent *a)
{
	bool before = atomic_load_explicit(&a->state, memory_order_relaxed) == AGENT_DRAINED;
	bool now;

	agent_current = a;
	/* Last whether all went out: the agent may have sent something just when it was asked. */
	now = (a->ops->drained == NULL || a->ops->drained(a)) && !agent_has_input(a) &&
	      a->out_dirty == 0;
	agent_current = NULL;
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
		a->now = now;
		if (state == AGENT_RUNNING) {
			group_stop_agent(a);
		}
		note_drained(g, a);
	}
}

/* Notes whether those have drained that leave while the program goes on. */
static void follow_leaving(struct group *g)
{
	for (uint32_t i = 0; i < g->agent_count; i++) {
		if (atomic_load_explicit(&g->agents[i]->leaving, memory_order_relaxed)) {
			note_drained(g, g->agents[i]);
		}
	}
}

bool group_remove(struct group *g, struct agent *a)
{
	uint32_t at = 0;

	agent_current = a;
	if (atomic_load(&a->state) != AGENT_GONE) {
		if (a->ops->tear_down != NULL) {
			a->ops->tear_down(a);
		}
		atomic_store(&a->state, AGENT_GONE);
		while (g->agents[at] != a) {
			ASSERT(++at < g->agent_count);
		}
		g->agent_count--;
		memmove(&g->agents[at], &g->agents[at + 1],
			(g->agent_count - at) * sizeof(struct agent *));
	}
	agent_flush(a);
	agent_current = NULL;
	g->over = g->agent_count == 0 && a->out_dirty == 0;
	return a->out_dirty == 0;
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
		bool woken;

		watched_rest(&g->watched, true);
		woken = mux_wait(g->mux, ns);
		watched_rest(&g->watched, false);
		group_wake_up(g, woken, ns);
	}
}

static void idle(struct group *g, int work)
{
	enum idle_action action;
	uint64_t ns;

	g->idle.crowded = atomic_load_explicit(&g->runtime->crowded, memory_order_relaxed);
	action = idle_step(&g->idle, work, g->now.mono_ns, &ns);
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
			watched_rest(&g->watched, true);
			sleep_ns(ns);
			watched_rest(&g->watched, false);
		}
		break;
	case IDLE_DO_PARK:
		park(g, GROUP_PARK_MAX_NS);
		break;
	}
}

void group_run(struct group *g)
{
	struct watchdog *w = g->may_block ? NULL : g->runtime->watchdog;

	if (w != NULL) {
		watchdog_enter(w, &g->watched, g->name, g->cycles);
	}
	while (!g->over &&
	       atomic_load_explicit(&g->runtime->state, memory_order_acquire) != RUNTIME_FINISHED) {
		idle(g, group_cycle(g));
	}
	if (w != NULL) {
		watchdog_leave(w, &g->watched);
	}
}

uint64_t group_cpu_ns(struct group *g)
{
	uint64_t ns = atomic_load(&g->cpu_before_ns);
	uint64_t told = atomic_load(&g->cpu_told_ns);

	if (atomic_load(&g->has_cpu_clock)) {
		ns += clock_read_ns(atomic_load(&g->cpu_clock));
	}
	while (ns > told && !atomic_compare_exchange_weak(&g->cpu_told_ns, &told, ns)) {
	}
	return ns > told ? ns : told;
}

static void pin(struct group *g, int core)
{
	int rc = core >= 0 ? affinity_pin(core) : affinity_unpin(&g->runtime->cores);

	atomic_store(&g->core, core);
	atomic_store(&g->pinned, core >= 0 && rc == 0);
	if (rc != 0 && core >= 0) {
		runtime_warn(g->runtime, "group %s cannot be pinned to core %d: %s", g->name, core,
			     strerror(-rc));
	} else if (rc != 0) {
		runtime_warn(g->runtime, "group %s cannot be unpinned: %s", g->name, strerror(-rc));
	}
}

void group_enter_thread(struct group *g)
{
	clockid_t clock;
	int core = atomic_load(&g->core);

	affinity_name_thread(g->name);
	if (pthread_getcpuclockid(pthread_self(), &clock) == 0) {
		atomic_store(&g->cpu_clock, clock);
		atomic_store(&g->has_cpu_clock, true);
	}
	/* A thread has the cores of the one that made it. */
	pin(g, core);
}

void group_leave_thread(struct group *g)
{
	if (atomic_exchange(&g->has_cpu_clock, false)) {
		atomic_fetch_add(&g->cpu_before_ns, clock_read_ns(CLOCK_THREAD_CPUTIME_ID));
	}
}

void group_tune(struct group *g, int core, const struct idle *idle)
{
	if (g->runtime->one_thread) {
		atomic_store(&g->core, core);
	} else if (core != atomic_load(&g->core)) {
		pin(g, core);
	}
	g->idle = *idle;
	atomic_store(&g->idle_kind, (int)idle->kind);
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

/* Who comes and who goes, between two rounds of the agents. */
static int follow_roster(struct group *g)
{
	int work = 0;

	if (g == g->runtime->groups[0]) {
		work += roster_advance(g->runtime, g->now.mono_ns);
	}
	return work + roster_take_notice(g);
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
	work += follow_roster(g);
	for (uint32_t i = 0; i < g->agent_count; i++) {
		work += agent_duty(g->agents[i], g->now);
	}
	if (atomic_load_explicit(&g->runtime->stop_phase, memory_order_relaxed) >= 0) {
		follow_stop(g, g->now);
	} else {
		follow_leaving(g);
	}
	if (g == g->runtime->groups[0]) {
		runtime_advance_stop(g->runtime, g->now.mono_ns);
	}
	mux_submit(g->mux);
	return work;
}
