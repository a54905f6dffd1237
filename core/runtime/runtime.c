#include "core/runtime/runtime.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/affinity.h"

#define GROUP_MAGIC 0x67726f75U

void runtime_init(struct runtime *rt, const struct clock *clock)
{
	memset(rt, 0, sizeof *rt);
	rt->clock = *clock;
	rt->backend = MUX_AUTO;
	rt->mux_entries = 1024;
	rt->ring_slots = 1024;
	rt->stall_ns = 100 * NS_PER_MS;
	rt->stop_timeout_ns = 8 * NS_PER_S;
	atomic_store(&rt->stop_phase, -1);
}

struct group *runtime_group(struct runtime *rt, const char *name, int core, const struct idle *idle)
{
	struct group *g =
		aligned_alloc(CACHE_LINE, (sizeof *g + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1));

	ASSERT(g != NULL && rt->group_count < RUNTIME_GROUPS_MAX);
	memset(g, 0, sizeof *g);
	g->magic = GROUP_MAGIC;
	g->name = name;
	atomic_store(&g->core, core);
	g->idle = *idle;
	atomic_store(&g->idle_kind, (int)idle->kind);
	g->runtime = rt;
	g->doorbell.eventfd = -1;
	g->seen_phase = -1;
	g->counters = counter_set_create(name);
	g->cycles = counter_create(g->counters, "group_cycles", COUNTER_SUM, "Duty cycles");
	g->idle_cycles = counter_create(g->counters, "group_idle", COUNTER_SUM,
					"Duty cycles in which no agent found work");
	g->parks = counter_create(g->counters, "group_parks", COUNTER_SUM,
				  "Times the thread went to sleep in the kernel");
	g->park_timeout_with_work =
		counter_create(g->counters, "park_timeout_with_work", COUNTER_SUM,
			       "Sleeps that timed out although work waited: lost wake-ups");
	g->completions = counter_create(g->counters, "completions", COUNTER_SUM,
					"Completions of the multiplexor");
	rt->groups[rt->group_count] = g;
	atomic_fetch_add_explicit(&rt->group_count, 1, memory_order_release);
	return g;
}

struct group *runtime_find_group(const struct runtime *rt, const char *name)
{
	for (uint32_t i = 0; i < rt->group_count; i++) {
		if (strcmp(rt->groups[i]->name, name) == 0) {
			return rt->groups[i];
		}
	}
	return NULL;
}

void runtime_add(struct runtime *rt, struct group *group, struct agent *agent)
{
	CHECK_MAGIC(agent, AGENT_MAGIC);
	ASSERT(rt->agent_count < AGENT_MAX && group->agent_count < GROUP_AGENTS_MAX);
	agent->id = (uint8_t)rt->agent_count;
	agent->runtime = rt;
	agent->runtime_agents = rt->agents;
	agent->group = group;
	rt->agents[rt->agent_count] = agent;
	atomic_fetch_add(&rt->agent_count, 1);
	group->agents[group->agent_count++] = agent;
}

void runtime_set_wheel(struct runtime *rt, struct agent *wheel, timer_arm_fn on_arm)
{
	rt->wheel = wheel;
	rt->wheel_on_arm = on_arm;
}

int runtime_connect(struct runtime *rt, struct agent *from, struct agent *to)
{
	struct link *l = aligned_alloc(CACHE_LINE, sizeof *l);

	_Static_assert(sizeof *l % CACHE_LINE == 0, "aligned_alloc wants a multiple");
	if (l == NULL) {
		return -ENOMEM;
	}
	memset(l, 0, sizeof *l);
	l->from = from;
	l->to = to;
	if (task_ring_init(&l->ring, rt->ring_slots) != 0) {
		free(l);
		return -ENOMEM;
	}
	atomic_store_explicit(&rt->links[from->id][to->id], l, memory_order_release);
	return 0;
}

static int connect_agents(struct runtime *rt, struct agent *from, struct agent *to)
{
	int rc = runtime_connect(rt, from, to);

	from->out[to->id] = atomic_load(&rt->links[from->id][to->id]);
	to->in[from->id] = from->out[to->id];
	return rc;
}

void runtime_equip(struct runtime *rt, struct agent *a)
{
	a->clock = &rt->clock;
	a->stall_ns = rt->stall_ns;
	a->timers.wheel = rt->wheel;
	a->timers.on_arm = rt->wheel_on_arm;
}

static bool spins_always(const struct idle *idle)
{
	return idle->kind == IDLE_BUSY_SPIN || idle->kind == IDLE_NOOP || idle->kind == IDLE_YIELD;
}

/* Threads that would keep a core busy while they look for work; `*worst` is one that always does,
 * if there is one. */
static uint32_t count_spinning(const struct runtime *rt, const struct group **worst)
{
	uint32_t count = 0;

	*worst = NULL;
	for (uint32_t i = 0; i < rt->group_count; i++) {
		const struct idle *idle = &rt->groups[i]->idle;

		if (!rt->groups[i]->live) {
			continue;
		}
		if (spins_always(idle)) {
			*worst = rt->groups[i];
		}
		count += spins_always(idle) || (idle->kind == IDLE_PARK && idle->spin_ns != 0);
	}
	return count;
}

void runtime_count_spinning(struct runtime *rt)
{
	const struct usable_cores *u = &rt->usable;
	const struct group *worst;
	uint32_t spinning = count_spinning(rt, &worst);
	bool crowded = spinning > u->usable || (spinning > 0 && u->limited);

	if (atomic_exchange(&rt->crowded, crowded) || !crowded) {
		return;
	}
	runtime_warn(rt,
		     "%u threads that spin share %u usable cores%s: park sleeps at once%s%s%s%s",
		     spinning, u->usable, u->limited ? " (CPU quota)" : "",
		     worst != NULL ? ", but group " : "", worst != NULL ? worst->name : "",
		     worst != NULL ? " still spins by its strategy " : "",
		     worst != NULL ? idle_name(worst->idle.kind) : "");
}

int runtime_prepare(struct runtime *rt)
{
	int rc = 0;

	rt->usable = affinity_usable();
	affinity_remember(&rt->cores);
	for (uint32_t i = 0; rc == 0 && i < rt->group_count; i++) {
		/* Those without agents wait for some to join. */
		rt->groups[i]->live = rt->groups[i]->agent_count > 0;
		rt->starting += rt->groups[i]->live;
		rc = doorbell_init(&rt->groups[i]->doorbell);
	}
	runtime_count_spinning(rt);
	for (uint32_t i = 0; i < rt->agent_count; i++) {
		struct agent *a = rt->agents[i];

		runtime_equip(rt, a);
		atomic_store(&a->live, true);
		for (uint32_t j = 0; rc == 0 && j < rt->agent_count; j++) {
			rc = connect_agents(rt, a, rt->agents[j]);
		}
	}
	for (uint32_t i = 0; rc == 0 && i < rt->agent_count; i++) {
		struct agent *a = rt->agents[i];

		rc = a->ops->init != NULL ? a->ops->init(a) : 0;
	}
	return rc;
}

/* After a failed start nobody drains: what the kernel still works on must stay. */
static void finish(struct group *g, bool started)
{
	if (started || (g->mux != NULL && mux_pending(g->mux) == 0)) {
		group_finish(g);
	}
	g->mux = NULL;
}

/* What a thread does last: who ends groups may wait for it. */
static void *end_thread(struct group *g)
{
	struct runtime *rt = g->runtime;

	group_leave_thread(g);
	atomic_store(&g->ended, true);
	doorbell_ring(&rt->groups[0]->doorbell);
	return NULL;
}

/* Start, and wait until every group has: then all run, or, if one failed, none. */
static void *group_main(void *argument)
{
	struct group *g = argument;
	struct runtime *rt = g->runtime;

	agent_role_assert();
	group_enter_thread(g);
	g->start_error = group_start(g);
	if (g->start_error != 0) {
		int none = 0;

		atomic_compare_exchange_strong(&rt->start_error, &none, g->start_error);
	}
	if (atomic_fetch_add(&rt->started, 1) + 1 == rt->starting) {
		if (rt->on_running != NULL && atomic_load(&rt->start_error) == 0) {
			rt->on_running(rt->on_running_context);
		}
		atomic_store_explicit(&rt->state,
				      atomic_load(&rt->start_error) == 0 ? RUNTIME_RUNNING
									 : RUNTIME_FINISHED,
				      memory_order_release);
		for (uint32_t i = 0; i < rt->group_count; i++) {
			doorbell_ring(&rt->groups[i]->doorbell);
		}
	}
	if (g->start_error == 0) {
		group_run(g);
	}
	finish(g, atomic_load(&rt->start_error) == 0);
	return end_thread(g);
}

/* A group that was begun while the program runs. */
static void *late_main(void *argument)
{
	struct group *g = argument;

	agent_role_assert();
	group_enter_thread(g);
	g->start_error = group_start(g);
	if (g->start_error == 0) {
		group_run(g);
	}
	finish(g, g->start_error == 0);
	return end_thread(g);
}

int runtime_begin_group(struct runtime *rt, struct group *g)
{
	int rc = g->doorbell.eventfd < 0 ? doorbell_init(&g->doorbell) : 0;

	doorbell_wake(&g->doorbell);
	atomic_store(&g->ended, rc != 0);
	g->start_error = rc;
	g->over = false;
	g->complete = false;
	g->seen_phase = -1;
	if (rc != 0) {
		return rc;
	}
	g->live = true;
	if (rt->one_thread) {
		rc = group_start(g);
		g->start_error = rc;
	} else {
		rc = -pthread_create(&g->thread, NULL, late_main, g);
		g->has_thread = rc == 0;
	}
	/* A thread that was made says so itself, and may have done so already. */
	if (rc != 0) {
		atomic_store(&g->ended, true);
	}
	return rc;
}

void runtime_end_group(struct runtime *rt, struct group *g)
{
	g->live = false;
	if (g->has_thread) {
		pthread_join(g->thread, NULL);
		g->has_thread = false;
	} else if (rt->one_thread) {
		finish(g, g->start_error == 0);
	}
	g->agent_count = 0;
}

int runtime_run(struct runtime *rt)
{
	int rc = 0;

	atomic_store(&rt->state, RUNTIME_STARTING);
	for (uint32_t i = 1; i < rt->group_count; i++) {
		struct group *g = rt->groups[i];

		if (!g->live) {
			continue;
		}
		rc = -pthread_create(&g->thread, NULL, group_main, g);
		if (rc != 0) {
			fatal("cannot make a thread for group %s: %s", g->name, strerror(-rc));
		}
		g->has_thread = true;
	}
	group_main(rt->groups[0]);
	for (uint32_t i = 1; i < rt->group_count; i++) {
		if (rt->groups[i]->has_thread) {
			pthread_join(rt->groups[i]->thread, NULL);
		}
	}
	return atomic_load(&rt->start_error);
}

void runtime_stop(struct runtime *rt)
{
	atomic_store(&rt->stop_requested, true);
	doorbell_ring(&rt->groups[0]->doorbell);
}

bool runtime_stopping(const struct runtime *rt)
{
	return atomic_load_explicit(&rt->stop_requested, memory_order_relaxed);
}

/* Drained, with nothing on its way to it. The order of the loads matters: see take_input(). */
static bool agent_quiet(const struct agent *a)
{
	return atomic_load_explicit(&a->in_bits, memory_order_acquire) == 0 &&
	       atomic_load_explicit(&a->state, memory_order_acquire) == AGENT_DRAINED;
}

/*
 * Agents that have drained may still send tasks to each other, so one look at each proves nothing:
 * a task may always be where the look is not. Two looks do, when no task ran in between: then all
 * were quiet at the moment between them.
 */
static bool phase_drained(const struct runtime *rt, int phase)
{
	uint64_t ran_before = 0;
	uint64_t ran_after = 0;

	for (uint32_t i = 0; i < rt->agent_count; i++) {
		const struct agent *a = rt->agents[i];

		if (a->live && a->stop_phase <= phase) {
			ran_before += counter_get(a->tasks_run);
			atomic_thread_fence(memory_order_acquire);
			if (!agent_quiet(a)) {
				return false;
			}
		}
	}
	for (uint32_t i = 0; i < rt->agent_count; i++) {
		const struct agent *a = rt->agents[i];

		if (a->live && a->stop_phase <= phase) {
			if (!agent_quiet(a)) {
				return false;
			}
			ran_after += counter_get(a->tasks_run);
		}
	}
	return ran_before == ran_after;
}

static void wake_all(struct runtime *rt)
{
	for (uint32_t i = 0; i < rt->group_count; i++) {
		doorbell_ring(&rt->groups[i]->doorbell);
	}
}

bool runtime_has_news(const struct runtime *rt, const struct group *g)
{
	int state = atomic_load_explicit(&rt->state, memory_order_relaxed);
	int phase = atomic_load_explicit(&rt->stop_phase, memory_order_relaxed);

	if (atomic_load_explicit(&g->notice, memory_order_relaxed) != NULL ||
	    (g == rt->groups[0] && roster_has_news(rt))) {
		return true;
	}
	if (g->complete ? state == RUNTIME_FINISHED || phase != g->seen_phase
			: state >= RUNTIME_RUNNING) {
		return true;
	}
	return g == rt->groups[0] && runtime_stopping(rt) &&
	       (phase < 0 || phase_drained(rt, phase));
}

void runtime_advance_stop(struct runtime *rt, uint64_t now_ns)
{
	int phase = atomic_load_explicit(&rt->stop_phase, memory_order_relaxed);

	if (!atomic_load_explicit(&rt->stop_requested, memory_order_relaxed) ||
	    atomic_load_explicit(&rt->state, memory_order_relaxed) == RUNTIME_FINISHED) {
		return;
	}
	if (phase < 0) {
		if (!roster_gives_way(rt)) {
			return;
		}
		rt->stop_began_ns = now_ns;
		if (rt->on_stopping != NULL) {
			rt->on_stopping();
		}
		atomic_store(&rt->state, RUNTIME_STOPPING);
	} else {
		if (now_ns - rt->stop_began_ns > rt->stop_timeout_ns) {
			atomic_store(&rt->hurry, true);
		}
		if (!phase_drained(rt, phase)) {
			return;
		}
	}
	if (phase + 1 < RUNTIME_PHASES) {
		atomic_store(&rt->stop_phase, phase + 1);
	} else {
		atomic_store(&rt->state, RUNTIME_FINISHED);
	}
	wake_all(rt);
}

int runtime_invoke_start(struct runtime *rt)
{
	int rc = 0;

	agent_role_assert();
	rt->one_thread = true;
	for (uint32_t i = 0; rc == 0 && i < rt->group_count; i++) {
		if (rt->groups[i]->live) {
			rc = group_start(rt->groups[i]);
		}
	}
	if (rc == 0) {
		atomic_store(&rt->state, RUNTIME_RUNNING);
	}
	return rc;
}

int runtime_step(struct runtime *rt)
{
	int work = 0;

	agent_role_assert();
	for (uint32_t i = 0; i < rt->group_count; i++) {
		if (rt->groups[i]->live) {
			work += group_cycle(rt->groups[i]);
		}
	}
	return work;
}

bool runtime_invoke_stop(struct runtime *rt, unsigned steps_max)
{
	agent_role_assert();
	runtime_stop(rt);
	for (unsigned i = 0; i < steps_max; i++) {
		runtime_step(rt);
		if (atomic_load(&rt->state) == RUNTIME_FINISHED) {
			for (uint32_t j = rt->group_count; j-- > 0;) {
				if (rt->groups[j]->live) {
					group_finish(rt->groups[j]);
				}
			}
			return true;
		}
	}
	return false;
}

void runtime_close(struct runtime *rt)
{
	for (uint32_t i = 0; i < AGENT_MAX; i++) {
		for (uint32_t j = 0; j < AGENT_MAX; j++) {
			struct link *l = atomic_exchange(&rt->links[i][j], NULL);

			if (l != NULL) {
				task_ring_close(&l->ring);
				free(l->overflow);
				free(l);
			}
		}
	}
	for (uint32_t i = 0; i < rt->agent_count; i++) {
		memset(rt->agents[i]->out, 0, sizeof rt->agents[i]->out);
		memset(rt->agents[i]->in, 0, sizeof rt->agents[i]->in);
	}
	for (uint32_t i = 0; i < rt->group_count; i++) {
		doorbell_close(&rt->groups[i]->doorbell);
		counter_set_destroy(rt->groups[i]->counters);
		free(rt->groups[i]);
	}
	rt->group_count = 0;
	rt->agent_count = 0;
}

void runtime_warn(struct runtime *rt, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (rt->warn != NULL) {
		rt->warn(rt->warn_context, text);
	} else {
		fprintf(stderr, "flywheel: warning: %s\n", text);
	}
}

void runtime_warn_once(struct runtime *rt, const char *text)
{
	if (!atomic_exchange(&rt->warned_backend, true)) {
		runtime_warn(rt, "%s", text);
	}
}
