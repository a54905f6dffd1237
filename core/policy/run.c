/*
 * Coroutines: how they start, wait, go on and end. A thread of Lua that has ended well is used
 * again.
 */
#include <stdlib.h>
#include <string.h>

#include "core/policy/parts.h"

/* What failed after it took this much is answered later, by so many times that; at most so late. */
#define PENALTY_FROM_NS NS_PER_MS
#define PENALTY_FACTOR 4
#define PENALTY_MAX_NS (60 * NS_PER_S)

/* What is handed to a protected call. */
SINGLE
struct pushing {
	struct policy_run *run;
	policy_push_fn push;
	void *context;
	int count;
};

/* ---- threads ---- */

static void take_thread(lua_State *state, struct policy_run *r)
{
	struct policy *p = r->policy;

	if (p->thread_count > 0) {
		r->reference = p->threads[--p->thread_count];
		lua_rawgeti(state, LUA_REGISTRYINDEX, r->reference);
		r->thread = lua_tothread(state, -1);
		lua_pop(state, 1);
		return;
	}
	r->thread = lua_newthread(state);
	r->reference = policy_reference(state);
}

static void drop_thread(struct policy_run *r)
{
	if (r->thread != NULL) {
		luaL_unref(r->policy->lua, LUA_REGISTRYINDEX, r->reference);
		r->thread = NULL;
	}
}

static void give_thread(struct policy_run *r, bool ended_well)
{
	struct policy *p = r->policy;

	if (r->thread != NULL && ended_well && p->thread_count < POLICY_THREADS_KEEP) {
		lua_settop(r->thread, 0);
		p->threads[p->thread_count++] = r->reference;
		r->thread = NULL;
	}
	drop_thread(r);
}

/* ---- errors ---- */

SINGLE
struct report {
	struct policy *policy;
	lua_State *thread;
	const char *where;
	bool exhausted;
};

/* "FILE:LINE: " of the innermost function of a script, if the message does not begin so. */
static void push_place(lua_State *state, lua_State *thread, const char *message)
{
	lua_Debug at;

	for (int level = 0; lua_getstack(thread, level, &at) == 1; level++) {
		lua_getinfo(thread, "Sl", &at);
		if (at.currentline > 0) {
			size_t len = strlen(at.short_src);

			if (strncmp(message, at.short_src, len) == 0 && message[len] == ':') {
				break;
			}
			lua_pushfstring(state, "%s:%d: ", at.short_src, at.currentline);
			return;
		}
	}
	lua_pushliteral(state, "");
}

static int tell(lua_State *state)
{
	struct report *r = lua_touserdata(state, 1);
	const char *message = "an error that is no text";

	if (lua_gettop(r->thread) > 0 && lua_isstring(r->thread, -1) != 0) {
		lua_pushvalue(r->thread, -1);
		lua_xmove(r->thread, state, 1);
		message = lua_tostring(state, -1);
	} else if (r->exhausted) {
		message = "instruction budget used up";
	}
	push_place(state, r->thread, message);
	lua_pushfstring(state, "%s%s (in %s)", lua_tostring(state, -1), message, r->where);
	luaL_traceback(state, r->thread, lua_tostring(state, -1), 0);
	r->policy->ops->error(r->policy->context, lua_tostring(state, -1));
	return 0;
}

void policy_report(struct policy *p, lua_State *thread, const char *where, bool exhausted)
{
	struct report r = {p, thread, where, exhausted};
	char why[POLICY_WHY];

	if (p->ops->tells != NULL && !p->ops->tells(p->context)) {
		p->ops->error(p->context, NULL);
	} else if (policy_protected(p, tell, &r, why) != 0) {
		p->ops->error(p->context, why);
	}
}

/* ---- what it costs to fail ---- */

/* While scripts are loaded the agent has no clock yet. */
static uint64_t now_ns(const struct policy *p)
{
	if (p->agent == NULL || p->starting) {
		return 0;
	}
	return p->agent->clock->monotonic_ns(p->agent->clock->context);
}

/* Those that fail wait the longer; how long from now. */
static uint64_t put_off_ns(struct policy *p, uint64_t spent_ns)
{
	uint64_t now = now_ns(p);

	p->penalty_ns = (p->penalty_ns > now ? p->penalty_ns : now) + PENALTY_FACTOR * spent_ns;
	if (p->penalty_ns - now > PENALTY_MAX_NS) {
		p->penalty_ns = now + PENALTY_MAX_NS;
	}
	return p->penalty_ns - now;
}

uint64_t policy_penalty_ms(struct policy *p, uint64_t spent_ns)
{
	return spent_ns < PENALTY_FROM_NS ? 0 : put_off_ns(p, spent_ns) / NS_PER_MS;
}

/* ---- going on ---- */

static void end(struct policy_run *r, int status)
{
	struct policy *p = r->policy;
	struct policy_run ended;
	bool well = status == 0;
	uint64_t began_ns;

	r->wait = NULL;
	policy_release_locks(r);
	/* Its owner may free the run, and reads its thread until then. */
	ended = *r;
	/* A script may have caught the error, and come to its end all the same. */
	r->on_end(r, well && r->exhausted ? LUA_ERRRUN : status);
	give_thread(&ended, well);
	/* Taking back what one has used up takes long, too: the next one that fails pays for it. */
	began_ns = well ? 0 : now_ns(p);
	policy_state_tidy(p, status == LUA_ERRMEM);
	if (!well && now_ns(p) - began_ns >= PENALTY_FROM_NS) {
		put_off_ns(p, now_ns(p) - began_ns);
	}
}

static void resume(struct policy_run *r, int count)
{
	struct policy *p = r->policy;
	struct policy_run *before = p->running;
	uint64_t began_ns = now_ns(p);
	uint64_t step_ns = p->step_ns;
	uint64_t step_coarse_ns = p->step_coarse_ns;
	int status;

	p->running = r;
	policy_budget_begin(p);
	status = lua_resume(r->thread, count);
	r->spent_ns += now_ns(p) - began_ns;
	p->running = before;
	p->step_ns = step_ns;
	p->step_coarse_ns = step_coarse_ns;
	if (status == LUA_YIELD && r->wait != NULL) {
		return;
	}
	if (status == LUA_YIELD) {
		/* A thread that is suspended is not used again. */
		lua_settop(r->thread, 0);
		status = LUA_ERRRUN;
	}
	end(r, status);
}

/* It could not be started, or go on. */
static void give_up(struct policy_run *r, const char *why)
{
	r->policy->ops->error(r->policy->context, why);
	drop_thread(r);
	r->why = why;
	end(r, LUA_ERRMEM);
}

static int push_all(lua_State *state)
{
	struct pushing *g = lua_touserdata(state, 1);

	lua_settop(state, 0);
	if (g->run->thread == NULL) {
		take_thread(state, g->run);
		g->count = g->push(state, g->context);
		luaL_checkstack(state, 4, "arguments");
		lua_xmove(state, g->run->thread, g->count + 1);
	} else {
		g->count = g->push(state, g->context);
		lua_xmove(state, g->run->thread, g->count);
	}
	return 0;
}

void policy_run_start(struct policy *p, struct policy_run *r, policy_push_fn push, void *context)
{
	struct pushing g = {r, push, context, 0};
	char why[POLICY_WHY];

	r->policy = p;
	r->thread = NULL;
	r->wait = NULL;
	/* At the start tables are built, and nobody waits. */
	r->budget = p->limits.instructions * (p->starting ? 100 : 1);
	r->exhausted = false;
	r->spent_ns = 0;
	r->locks = NULL;
	if (policy_protected(p, push_all, &g, why) != 0) {
		give_up(r, why);
		return;
	}
	resume(r, g.count);
}

void policy_run_wake(struct policy_wait *w, policy_push_fn push, void *context)
{
	struct policy_run *r = w->run;
	struct pushing g = {r, push, context, 0};
	char why[POLICY_WHY];

	ASSERT(r != NULL && r->wait == w);
	r->wait = NULL;
	w->run = NULL;
	if (policy_protected(r->policy, push_all, &g, why) != 0) {
		give_up(r, why);
		return;
	}
	resume(r, g.count);
}

void policy_run_cancel(struct policy_run *r)
{
	struct policy_wait *w = r->wait;

	if (w != NULL) {
		r->wait = NULL;
		w->run = NULL;
		if (w->abandon != NULL) {
			w->abandon(w);
		}
	}
	policy_release_locks(r);
	drop_thread(r);
}

/* ---- waiting ---- */

bool policy_run_may_wait(lua_State *state)
{
	struct policy *p = policy_of(state);

	return p->running != NULL && p->running->thread == state && !p->starting && !p->blocking &&
	       lua_isyieldable(state) != 0;
}

void policy_run_check(lua_State *state, const char *what)
{
	struct policy *p = policy_of(state);

	if (p->running == NULL || p->starting) {
		luaL_error(state, "%s: nothing may wait while scripts are loaded", what);
	} else if (p->blocking) {
		luaL_error(state, "%s: not on a thread of the pool", what);
	} else if (p->running->thread != state) {
		luaL_error(state, "%s: only the hook itself may wait, not a coroutine in it", what);
	} else if (!policy_run_may_wait(state)) {
		luaL_error(state, "%s: nothing may wait in a function that sort or gsub calls",
			   what);
	}
}

int policy_run_wait(lua_State *state, struct policy_wait *w)
{
	struct policy *p = policy_of(state);

	ASSERT(policy_run_may_wait(state));
	w->run = p->running;
	p->running->wait = w;
	return lua_yield(state, 0);
}
