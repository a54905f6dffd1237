/*
 * msys.timer: functions that are called later, on this scheduler, each in a coroutine of its own.
 * A timer is kept while it is set or its function runs, whether a script still has it or not.
 */
#include <string.h>

#include "core/policy/parts.h"

#define CLASS "timer"
#define TIMERS_MAX 1000
#define DELAY_MAX_S 31536000
/* Of one that goes off again and again. */
#define INTERVAL_MIN_MS 10
#define NAME_BYTES 64

BOUND
struct policy_timer {
	struct policy *policy;
	struct timer timer;
	struct policy_run run;
	/* 0: once. */
	uint64_t interval_ms;
	/* From the time it is set; or, of at(), seconds since 1970. */
	uint64_t delay_ms;
	double at_s;
	/* In the registry, while it is set or runs; its function is in its environment. */
	int self;
	bool runs;
	bool stopped;
	/* It went off while its function ran: that is called again when it has ended. */
	bool overdue;
	char name[NAME_BYTES];
	/* Those that are set or run. */
	struct policy_timer *next;
	struct policy_timer **place;
};

/* ---- life ---- */

/* Its own reference is on top of the stack. */
static void keep(lua_State *state, struct policy_timer *t)
{
	struct policy *p = t->policy;

	t->self = policy_reference(state);
	t->next = p->timers;
	t->place = &p->timers;
	if (t->next != NULL) {
		t->next->place = &t->next;
	}
	p->timers = t;
	p->timer_count++;
}

/* The collector may have it. */
static void release(struct policy_timer *t)
{
	struct policy *p = t->policy;

	*t->place = t->next;
	if (t->next != NULL) {
		t->next->place = t->place;
	}
	t->place = NULL;
	p->timer_count--;
	luaL_unref(p->lua, LUA_REGISTRYINDEX, t->self);
	t->self = LUA_NOREF;
}

static void arm(struct policy_timer *t, uint64_t delay_ms)
{
	t->stopped = false;
	t->overdue = false;
	/* Before the agent runs it is only noted. */
	if (t->policy->timers_run) {
		timer_arm(&t->timer, agent_now_ms(t->policy->agent) + delay_ms + 1);
	}
}

static uint64_t first_delay_ms(const struct policy_timer *t)
{
	double left_s = t->at_s - policy_now_s(t->policy);

	if (t->at_s == 0) {
		return t->delay_ms;
	}
	return left_s > 0 ? (uint64_t)(left_s * 1000) : 0;
}

static int push_function(lua_State *state, void *context)
{
	const struct policy_timer *t = context;

	lua_rawgeti(state, LUA_REGISTRYINDEX, t->self);
	lua_getfenv(state, -1);
	lua_getfield(state, -1, "f");
	lua_replace(state, -3);
	lua_pop(state, 1);
	return 0;
}

static void on_end(struct policy_run *r, int status)
{
	struct policy_timer *t = CONTAINER_OF(r, struct policy_timer, run);
	uint64_t penalty_ms = 0;
	char where[NAME_BYTES + 8];

	t->runs = false;
	if (status != 0) {
		snprintf(where, sizeof(where), "timer %s", t->name);
		if (r->thread != NULL) {
			policy_report(r->policy, r->thread, where, r->exhausted);
		}
		penalty_ms = policy_penalty_ms(r->policy, r->spent_ns);
	}
	if (t->interval_ms > 0 && !t->stopped) {
		arm(t, t->interval_ms > penalty_ms ? t->interval_ms : penalty_ms);
	} else if (t->overdue) {
		arm(t, penalty_ms);
	} else if (!timer_armed(&t->timer)) {
		release(t);
	}
}

static void on_expire(struct timer *timer)
{
	struct policy_timer *t = CONTAINER_OF(timer, struct policy_timer, timer);

	if (t->runs) {
		t->overdue = true;
		return;
	}
	t->runs = true;
	t->run = (struct policy_run){.on_end = on_end};
	policy_run_start(t->policy, &t->run, push_function, t);
}

void policy_start_timers(struct policy *p)
{
	if (p == NULL) {
		return;
	}
	p->timers_run = true;
	for (struct policy_timer *t = p->timers; t != NULL; t = t->next) {
		arm(t, first_delay_ms(t));
	}
}

void policy_stop_timers(struct policy *p)
{
	if (p == NULL) {
		return;
	}
	p->timers_run = false;
	while (p->timers != NULL) {
		struct policy_timer *t = p->timers;

		timer_cancel(&t->timer);
		if (t->runs) {
			t->runs = false;
			policy_run_cancel(&t->run);
		}
		release(t);
	}
	policy_close_connections(p);
}

void policy_close_timers(struct policy *p)
{
	while (p->timers != NULL) {
		ASSERT(!timer_armed(&p->timers->timer) && !p->timers->runs);
		release(p->timers);
	}
}

/* ---- what scripts call ---- */

static struct policy_timer *make(lua_State *state, double first_s, const char *what)
{
	struct policy *p = policy_of(state);
	const char *name = luaL_optstring(state, 3, "");
	struct policy_timer *t;

	luaL_checktype(state, 2, LUA_TFUNCTION);
	luaL_argcheck(state, first_s >= 0 && first_s <= DELAY_MAX_S, 1,
		      "0 seconds to one year expected");
	if (p->blocking) {
		luaL_error(state, "%s: not on a thread of the pool", what);
	}
	if (p->timer_count >= TIMERS_MAX) {
		luaL_error(state, "%s: there are %d timers already", what, TIMERS_MAX);
	}
	t = lua_newuserdata(state, sizeof(*t));
	*t = (struct policy_timer){.policy = p, .self = LUA_NOREF};
	timer_init(&t->timer, p->agent, on_expire);
	t->delay_ms = (uint64_t)(first_s * 1000);
	snprintf(t->name, sizeof(t->name), "%s", name);
	luaL_getmetatable(state, CLASS);
	lua_setmetatable(state, -2);
	lua_newtable(state);
	lua_pushvalue(state, 2);
	lua_setfield(state, -2, "f");
	lua_setfenv(state, -2);
	return t;
}

/* It is on top of the stack, and stays there. */
static int set(lua_State *state, struct policy_timer *t)
{
	lua_pushvalue(state, -1);
	keep(state, t);
	arm(t, first_delay_ms(t));
	return 1;
}

/* after(seconds, function[, name]) */
static int timer_after(lua_State *state)
{
	return set(state, make(state, luaL_checknumber(state, 1), "msys.timer.after"));
}

/* at(seconds since 1970, function[, name]) */
static int timer_at(lua_State *state)
{
	double at_s = luaL_checknumber(state, 1);
	double left_s = at_s - policy_now_s(policy_of(state));
	struct policy_timer *t = make(state, left_s > 0 ? left_s : 0, "msys.timer.at");

	t->at_s = at_s;
	return set(state, t);
}

/* every(seconds, function[, name]): the next time begins when its function has ended. */
static int timer_every(lua_State *state)
{
	struct policy_timer *t = make(state, luaL_checknumber(state, 1), "msys.timer.every");

	t->interval_ms = t->delay_ms > INTERVAL_MIN_MS ? t->delay_ms : INTERVAL_MIN_MS;
	return set(state, t);
}

static int timer_stop(lua_State *state)
{
	struct policy_timer *t = luaL_checkudata(state, 1, CLASS);

	t->stopped = true;
	t->overdue = false;
	timer_cancel(&t->timer);
	if (t->place != NULL && !t->runs) {
		release(t);
	}
	return 0;
}

static int timer_start(lua_State *state)
{
	struct policy_timer *t = luaL_checkudata(state, 1, CLASS);

	if (t->place == NULL && t->policy->timer_count >= TIMERS_MAX) {
		return luaL_error(state, "timer:start: there are %d timers already", TIMERS_MAX);
	}
	if (t->place == NULL) {
		lua_settop(state, 1);
		keep(state, t);
	}
	if (t->runs && t->interval_ms > 0) {
		t->stopped = false;
	} else {
		arm(t, first_delay_ms(t));
	}
	return 0;
}

static int timer_name(lua_State *state)
{
	const struct policy_timer *t = luaL_checkudata(state, 1, CLASS);

	lua_pushstring(state, t->name);
	return 1;
}

void policy_open_timer(lua_State *state)
{
	static const luaL_Reg timers[] = {
		{"after", timer_after}, {"at", timer_at}, {"every", timer_every}, {NULL, NULL}};
	static const luaL_Reg methods[] = {
		{"stop", timer_stop}, {"start", timer_start}, {"name", timer_name}, {NULL, NULL}};

	policy_class(state, CLASS, methods);
	lua_newtable(state);
	luaL_register(state, NULL, timers);
	lua_setfield(state, 1, "timer");
	lua_settop(state, 1);
}
