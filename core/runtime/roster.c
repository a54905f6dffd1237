#include "core/runtime/roster.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/runtime/runtime.h"

static uint64_t bit_of(const struct agent *a)
{
	return UINT64_C(1) << a->id;
}

/* ---- notices ---- */

int roster_take_notice(struct group *g)
{
	struct notice *n = atomic_load_explicit(&g->notice, memory_order_acquire);
	struct group *first = g->runtime->groups[0];

	if (n == NULL || !n->take(g, n)) {
		return 0;
	}
	/* Before it is counted: the next one may come at once. */
	atomic_store_explicit(&g->notice, NULL, memory_order_relaxed);
	if (atomic_fetch_sub_explicit(&n->waiting, 1, memory_order_acq_rel) == 1) {
		doorbell_ring(&first->doorbell);
	}
	return 1;
}

static void post(struct group *g, struct notice *n)
{
	/* Pairs with the acquire in roster_take_notice(). */
	atomic_store_explicit(&g->notice, n, memory_order_release);
	doorbell_ring(&g->doorbell);
}

static void prepare_notice(struct roster *r, uint32_t groups,
			   bool (*take)(struct group *g, const struct notice *n))
{
	r->notice.take = take;
	r->notice.agent = r->agent;
	atomic_store(&r->notice.result, 0);
	atomic_store(&r->notice.waiting, groups);
}

static void notify(struct roster *r, struct group *g,
		   bool (*take)(struct group *g, const struct notice *n))
{
	prepare_notice(r, 1, take);
	post(g, &r->notice);
}

static void notify_all(struct runtime *rt, bool (*take)(struct group *g, const struct notice *n))
{
	uint32_t live = 0;

	for (uint32_t i = 0; i < rt->group_count; i++) {
		live += rt->groups[i]->live;
	}
	prepare_notice(&rt->roster, live, take);
	for (uint32_t i = 0; i < rt->group_count; i++) {
		if (rt->groups[i]->live) {
			post(rt->groups[i], &rt->roster.notice);
		}
	}
}

static bool all_took_it(const struct roster *r)
{
	return atomic_load_explicit(&r->notice.waiting, memory_order_acquire) == 0;
}

/* ---- what groups do ---- */

static bool take_connect(struct group *g, const struct notice *n)
{
	struct runtime *rt = g->runtime;
	struct agent *x = n->agent;

	for (uint32_t i = 0; i < g->agent_count; i++) {
		struct agent *a = g->agents[i];

		a->out[x->id] = atomic_load(&rt->links[a->id][x->id]);
		a->in[x->id] = atomic_load(&rt->links[x->id][a->id]);
		a->out_leaving &= ~bit_of(x);
	}
	return true;
}

static bool take_start(struct group *g, const struct notice *n)
{
	atomic_store(&g->runtime->roster.notice.result, group_add(g, n->agent));
	return true;
}

/* All that was sent before is where the agent sees it. */
static bool take_fence(struct group *g, const struct notice *n)
{
	bool through = true;

	for (uint32_t i = 0; i < g->agent_count; i++) {
		g->agents[i]->out_leaving |= bit_of(n->agent);
		through = through && (g->agents[i]->out_dirty & bit_of(n->agent)) == 0;
	}
	return through;
}

/* What was sent to it before comes first. */
static bool take_retire(struct group *g, const struct notice *n)
{
	struct agent *x = n->agent;

	(void)g;
	if (agent_has_input(x)) {
		return false;
	}
	if (atomic_load_explicit(&x->state, memory_order_relaxed) == AGENT_RUNNING) {
		group_stop_agent(x);
	}
	return true;
}

/* True when nothing is on its way between the two. */
static bool is_apart(struct agent *a, const struct agent *x)
{
	const struct link *in = a->in[x->id];
	uint64_t input = atomic_load_explicit(&a->in_bits, memory_order_acquire) | a->in_pending;

	return ((input | a->out_dirty) & bit_of(x)) == 0 && task_ring_empty(&in->ring);
}

static bool take_detach(struct group *g, const struct notice *n)
{
	struct agent *x = n->agent;

	for (uint32_t i = 0; i < g->agent_count; i++) {
		struct agent *a = g->agents[i];

		if (a->in[x->id] != NULL) {
			if (!is_apart(a, x)) {
				return false;
			}
			a->out[x->id] = NULL;
			a->in[x->id] = NULL;
		}
	}
	return true;
}

/* Out of its group, when all that it has sent is on its way. */
static bool take_remove(struct group *g, const struct notice *n)
{
	struct agent *x = n->agent;

	if (atomic_load_explicit(&x->state, memory_order_relaxed) != AGENT_GONE &&
	    (agent_has_input(x) || x->out_dirty != 0)) {
		return false;
	}
	return group_remove(g, x);
}

static bool take_tune(struct group *g, const struct notice *n)
{
	const struct roster *r = &g->runtime->roster;

	(void)n;
	group_tune(g, r->core, &r->idle);
	return true;
}

/* ---- links ---- */

/* The link is made once; its ring whenever both ends are there. The counts of a ring go on, so that
 * who looks at its depth may do so at any time. */
static int open_link(struct runtime *rt, struct agent *from, struct agent *to)
{
	struct link *l = atomic_load(&rt->links[from->id][to->id]);

	if (l == NULL) {
		return runtime_connect(rt, from, to);
	}
	ASSERT(l->ring.slots == NULL);
	l->ring.slots = calloc(l->ring.mask + 1, sizeof *l->ring.slots);
	return l->ring.slots != NULL ? 0 : -ENOMEM;
}

static void close_link(struct runtime *rt, const struct agent *from, const struct agent *to)
{
	struct link *l = atomic_load(&rt->links[from->id][to->id]);

	struct task t;

	if (l != NULL && l->ring.slots != NULL) {
		/* The wheel may still have told it of a timer that had been cancelled. */
		while (task_ring_receive(&l->ring, &t)) {
			ASSERT(t.run == timer_on_expired);
		}
		ASSERT(l->overflow_count == 0);
		task_ring_close(&l->ring);
		free(l->overflow);
		l->overflow = NULL;
		l->overflow_head = 0;
		l->overflow_slots = 0;
	}
}

static void close_links(struct runtime *rt, struct agent *x)
{
	for (uint32_t i = 0; i < rt->agent_count; i++) {
		close_link(rt, x, rt->agents[i]);
		if (rt->agents[i] != x) {
			close_link(rt, rt->agents[i], x);
		}
	}
	memset(x->in, 0, sizeof x->in);
	memset(x->out, 0, sizeof x->out);
}

static int open_links(struct runtime *rt, struct agent *x)
{
	int rc = open_link(rt, x, x);

	for (uint32_t i = 0; rc == 0 && i < rt->agent_count; i++) {
		struct agent *a = rt->agents[i];

		if (a != x && atomic_load_explicit(&a->live, memory_order_relaxed)) {
			rc = open_link(rt, x, a);
			rc = rc == 0 ? open_link(rt, a, x) : rc;
			x->out[a->id] = atomic_load(&rt->links[x->id][a->id]);
			x->in[a->id] = atomic_load(&rt->links[a->id][x->id]);
		}
	}
	x->out[x->id] = atomic_load(&rt->links[x->id][x->id]);
	x->in[x->id] = x->out[x->id];
	return rc;
}

/* ---- what can be asked for ---- */

int roster_enlist(struct runtime *rt, struct agent *a)
{
	uint32_t count = rt->agent_count;

	if (a->runtime == rt) {
		return 0;
	}
	if (count == AGENT_MAX) {
		return -ENOSPC;
	}
	a->id = (uint8_t)count;
	a->runtime = rt;
	a->runtime_agents = rt->agents;
	rt->agents[count] = a;
	return 0;
}

static int begin(struct runtime *rt, struct group *g, struct agent *a, roster_done_fn on_done,
		 void *context)
{
	struct roster *r = &rt->roster;

	if (r->step != ROSTER_IDLE) {
		return -EBUSY;
	}
	if (atomic_load(&rt->state) != RUNTIME_RUNNING || runtime_stopping(rt)) {
		return -ESHUTDOWN;
	}
	r->agent = a;
	r->group = g;
	r->result = 0;
	r->on_done = on_done;
	r->context = context;
	return 0;
}

int roster_join(struct runtime *rt, struct group *g, struct agent *a, roster_done_fn on_done,
		void *context)
{
	int rc = begin(rt, g, a, on_done, context);

	if (rc != 0) {
		return rc;
	}
	ASSERT(a->runtime == rt && !atomic_load(&a->live));
	ASSERT(!g->live || g->agent_count < GROUP_AGENTS_MAX);
	a->group = g;
	runtime_equip(rt, a);
	rc = open_links(rt, a);
	if (rc != 0) {
		close_links(rt, a);
		return rc;
	}
	a->in_pending = 0;
	a->out_dirty = 0;
	a->out_leaving = 0;
	a->pressure = false;
	atomic_store(&a->in_bits, 0);
	atomic_store(&a->hurry, false);
	atomic_store(&a->leaving, false);
	atomic_store(&a->state, AGENT_INIT);
	/* Whoever sees it counted may look at its group, and at its links. */
	if (a->id == rt->agent_count) {
		atomic_store_explicit(&rt->agent_count, a->id + 1U, memory_order_release);
	}
	notify_all(rt, take_connect);
	rt->roster.step = ROSTER_CONNECT;
	return 0;
}

int roster_leave(struct runtime *rt, struct agent *a, roster_done_fn on_done, void *context)
{
	int rc = begin(rt, a->group, a, on_done, context);

	if (rc == 0) {
		ASSERT(atomic_load(&a->live));
		notify_all(rt, take_fence);
		rt->roster.step = ROSTER_FENCE;
	}
	return rc;
}

int roster_tune(struct runtime *rt, struct group *g, int core, const struct idle *idle,
		roster_done_fn on_done, void *context)
{
	int rc = begin(rt, g, NULL, on_done, context);

	if (rc == 0) {
		ASSERT(g->live);
		rt->roster.core = core;
		rt->roster.idle = *idle;
		notify(&rt->roster, g, take_tune);
		rt->roster.step = ROSTER_TUNE;
	}
	return rc;
}

/* ---- steps ---- */

static void complete(struct runtime *rt, int result)
{
	struct roster *r = &rt->roster;

	r->step = ROSTER_IDLE;
	/* Threads have come, gone, or got another strategy. */
	runtime_count_spinning(rt);
	r->on_done(r->context, result);
}

/* A group that has a thread takes the agent in; another one is begun with it. */
static void start(struct runtime *rt, struct roster *r)
{
	struct group *g = r->group;

	r->step = ROSTER_START;
	atomic_store(&r->agent->live, true);
	if (g->live) {
		notify(r, g, take_start);
		return;
	}
	prepare_notice(r, 0, NULL);
	g->agents[g->agent_count++] = r->agent;
	r->result = runtime_begin_group(rt, g);
}

/* Where `start` ended: it runs, or it could not. */
static bool has_started(const struct roster *r)
{
	if (!all_took_it(r)) {
		return false;
	}
	return r->result != 0 || atomic_load(&r->notice.result) != 0 ||
	       atomic_load(&r->group->ended) ||
	       atomic_load_explicit(&r->agent->state, memory_order_acquire) >= AGENT_RUNNING;
}

static void after_removal(struct runtime *rt, struct roster *r)
{
	atomic_store(&r->agent->live, false);
	/* A group without agents ends, and takes no notice any more. */
	r->group->live = r->group->agent_count > 0;
	notify_all(rt, take_detach);
	r->step = ROSTER_DETACH;
}

/* One that could not start is cut off again. */
static void after_start(struct runtime *rt, struct roster *r)
{
	int rc = r->result;

	rc = rc == 0 ? atomic_load(&r->notice.result) : rc;
	rc = rc == 0 && atomic_load(&r->group->ended) ? r->group->start_error : rc;
	if (rc == 0) {
		complete(rt, 0);
		return;
	}
	r->result = rc;
	if (atomic_load(&r->group->ended)) {
		r->group->agent_count = 0;
	}
	after_removal(rt, r);
}

static bool is_drained(const struct agent *a)
{
	return atomic_load_explicit(&a->in_bits, memory_order_acquire) == 0 &&
	       atomic_load_explicit(&a->state, memory_order_acquire) == AGENT_DRAINED;
}

static void end(struct runtime *rt, struct roster *r)
{
	struct agent *a = r->agent;

	if (!r->group->live) {
		runtime_end_group(rt, r->group);
	}
	close_links(rt, a);
	atomic_store(&a->leaving, false);
	complete(rt, r->result);
}

/* Whether the step that is under way has come to its end. */
static bool is_through(const struct runtime *rt)
{
	const struct roster *r = &rt->roster;

	switch (r->step) {
	case ROSTER_IDLE:
		return false;
	case ROSTER_START:
		return has_started(r);
	case ROSTER_DRAIN:
		return is_drained(r->agent);
	case ROSTER_END_THREAD:
		return r->group->live || rt->one_thread || atomic_load(&r->group->ended);
	default:
		return all_took_it(r);
	}
}

static void next_step(struct runtime *rt, uint64_t now_ns)
{
	struct roster *r = &rt->roster;

	switch (r->step) {
	case ROSTER_IDLE:
		break;
	case ROSTER_CONNECT:
		start(rt, r);
		break;
	case ROSTER_START:
		after_start(rt, r);
		break;
	case ROSTER_FENCE:
		r->step = ROSTER_RETIRE;
		notify(r, r->group, take_retire);
		break;
	case ROSTER_RETIRE:
		r->step = ROSTER_DRAIN;
		r->began_ns = now_ns;
		atomic_store(&r->agent->leaving, true);
		doorbell_ring(&r->group->doorbell);
		break;
	case ROSTER_DRAIN:
		r->step = ROSTER_REMOVE;
		notify(r, r->group, take_remove);
		break;
	case ROSTER_REMOVE:
		after_removal(rt, r);
		break;
	case ROSTER_DETACH:
		r->step = ROSTER_END_THREAD;
		break;
	case ROSTER_END_THREAD:
		end(rt, r);
		break;
	case ROSTER_TUNE:
		complete(rt, 0);
		break;
	}
}

bool roster_has_news(const struct runtime *rt)
{
	return is_through(rt);
}

bool roster_gives_way(struct runtime *rt)
{
	struct roster *r = &rt->roster;

	/* It drains with all the others. */
	if (r->step == ROSTER_DRAIN) {
		atomic_store(&r->agent->leaving, false);
		complete(rt, -ECANCELED);
	}
	return r->step == ROSTER_IDLE;
}

int roster_advance(struct runtime *rt, uint64_t now_ns)
{
	struct roster *r = &rt->roster;
	int work = 0;

	if (r->step == ROSTER_DRAIN && now_ns - r->began_ns > rt->stop_timeout_ns) {
		atomic_store(&r->agent->hurry, true);
	}
	while (is_through(rt)) {
		next_step(rt, now_ns);
		work++;
	}
	return work;
}
