/*
 * msys.runInPool: a function runs on a thread of the pool, in a state of its own, which has the
 * libraries and no scripts. The function, what it takes along (upvalues), and what it returns go
 * there and back as bytes: data, and functions in Lua. What it waits for there it waits for in
 * place. A function that takes along what cannot be packed, such as a message, runs here.
 *
 * A state is given to one function at a time; some are kept, and a bounded number waits for one.
 *
 * Start reading at begin_in_pool().
 */
#include <stdlib.h>
#include <string.h>

#include "core/policy/pack.h"
#include "core/policy/parts.h"

/* States of one scheduler; functions that wait for one. */
#define STATES_MAX 4
#define WAITING_MAX 1000
#define RESULTS_MAX 64
/* Of a function with what it takes along, and of what it returns. */
#define PACKED_MAX (UINT64_C(8) << 20)
/* Of all that wait, with a scheduler. */
#define WAITING_BYTES_MAX (UINT64_C(64) << 20)

SINGLE
struct pool_task {
	struct policy_wait wait;
	struct policy *policy;
	struct policy_job job;
	struct policy_run run;
	/* Where it runs; NULL while it waits for a state. */
	struct policy *state;
	/* Nobody waits for it; of the scheduler's registry, a function that is called then. */
	bool detached;
	int completion;
	struct policy_run completion_run;
	/* Among those whose completions wait. */
	struct pool_task **place;
	/* The function; what it returned. */
	struct policy_text packed;
	struct policy_text results;
	struct policy_text printed;
	bool failed;
	char why[POLICY_WHY];
	struct pool_task *next;
};

SINGLE
struct policy_pool {
	struct policy *idle[STATES_MAX];
	uint32_t idle_count;
	uint32_t state_count;
	struct pool_task *first;
	struct pool_task **last;
	uint32_t waiting;
	uint64_t waiting_bytes;
	struct pool_task *completing;
	/* What nobody waits for begins no more. */
	bool ending;
};

/* ---- on a thread of the pool ---- */

static int push_function(lua_State *state, void *context)
{
	const struct pool_task *t = context;

	policy_unpack(state, &t->packed);
	return 0;
}

/* pack(task), in a protected call of the state that it ran in. */
static int pack_results(lua_State *state)
{
	struct pool_task *t = lua_touserdata(state, 1);
	int count = lua_gettop(t->run.thread);

	lua_settop(state, 0);
	if (count > RESULTS_MAX) {
		luaL_error(state, "more than %d results", RESULTS_MAX);
	}
	luaL_checkstack(state, count, "results");
	lua_xmove(t->run.thread, state, count);
	policy_pack(state, 1, count, false, "a result", &t->results, PACKED_MAX);
	return 0;
}

/* Its message, with its place, without the way there. */
static void on_error(void *context, const char *text)
{
	struct pool_task *t = context;

	snprintf(t->why, sizeof(t->why), "%.*s", (int)strcspn(text, "\n"), text);
}

static void on_function_end(struct policy_run *r, int status)
{
	struct pool_task *t = CONTAINER_OF(r, struct pool_task, run);

	t->failed = true;
	if (r->thread == NULL) {
		return;
	}
	if (status != 0) {
		policy_report(t->state, r->thread, "runInPool", r->exhausted);
		return;
	}
	t->failed = policy_protected(t->state, pack_results, t, t->why) != 0;
}

static void work(struct policy_job *job)
{
	static const struct policy_ops ops = {.error = on_error};
	struct pool_task *t = CONTAINER_OF(job, struct pool_task, job);

	t->state->ops = &ops;
	t->state->context = t;
	t->run = (struct policy_run){.on_end = on_function_end, .output = &t->printed};
	policy_run_start(t->state, &t->run, push_function, t);
}

/* ---- states ---- */

/* NULL: all are at work, or, when there is none, the memory is short. */
static struct policy *take_state(struct policy *p)
{
	struct policy_pool *pool = p->pool;
	struct policy *state;

	if (pool->idle_count > 0) {
		return pool->idle[--pool->idle_count];
	}
	if (pool->state_count >= STATES_MAX) {
		return NULL;
	}
	state = policy_create_blocking(&p->limits);
	pool->state_count += state != NULL;
	return state;
}

void policy_close_pool(struct policy *p)
{
	struct policy_pool *pool = p->pool;

	while (pool != NULL && pool->idle_count > 0) {
		policy_destroy_blocking(pool->idle[--pool->idle_count]);
	}
	free(pool);
	p->pool = NULL;
}

/* ---- what comes back ---- */

/* As pcall(): true and the results, or false and why. */
static int push_results(lua_State *state, void *context)
{
	const struct pool_task *t = context;

	lua_pushboolean(state, 0);
	lua_pushboolean(state, t->why[0] == '\0');
	if (t->why[0] != '\0') {
		lua_pushstring(state, t->why);
		return 3;
	}
	return 2 + policy_unpack(state, &t->results);
}

static void print_lines(struct pool_task *t)
{
	struct policy *p = t->policy;

	if (t->printed.len > 0) {
		p->ops->print(p->context, t->printed.data, t->printed.len);
	}
}

static void free_task(struct pool_task *t)
{
	struct policy *p = t->policy;

	luaL_unref(p->lua, LUA_REGISTRYINDEX, t->completion);
	policy_text_close(&t->packed);
	policy_text_close(&t->results);
	policy_text_close(&t->printed);
	free(t);
}

static int push_completion(lua_State *state, void *context)
{
	const struct pool_task *t = context;

	lua_rawgeti(state, LUA_REGISTRYINDEX, t->completion);
	return 0;
}

static void end_completion(struct pool_task *t)
{
	*t->place = t->next;
	if (t->next != NULL) {
		t->next->place = t->place;
	}
	t->policy->outside--;
	free_task(t);
}

static void on_completion_end(struct policy_run *r, int status)
{
	if (status != 0 && r->thread != NULL) {
		policy_report(r->policy, r->thread, "runInPool", r->exhausted);
	}
	end_completion(CONTAINER_OF(r, struct pool_task, completion_run));
}

/* It may wait, and the state stays while it does. */
static void complete(struct pool_task *t)
{
	struct policy_pool *pool = t->policy->pool;

	t->next = pool->completing;
	t->place = &pool->completing;
	if (t->next != NULL) {
		t->next->place = &t->next;
	}
	pool->completing = t;
	t->policy->outside++;
	t->completion_run = (struct policy_run){.on_end = on_completion_end};
	policy_run_start(t->policy, &t->completion_run, push_completion, t);
}

/* Tells who waits for it, if anybody does, and frees it. */
static void finish(struct pool_task *t)
{
	struct policy *p = t->policy;

	print_lines(t);
	if (t->detached && t->why[0] != '\0') {
		p->ops->error(p->context, t->why);
	}
	if (t->wait.run != NULL) {
		policy_run_wake(&t->wait, push_results, t);
	}
	if (t->completion != LUA_NOREF && !p->pool->ending) {
		complete(t);
	} else {
		free_task(t);
	}
}

/* ---- the way there ---- */

static void on_worked(struct policy_job *job, int result);

/* It has a state. */
static void begin(struct pool_task *t)
{
	struct policy *p = t->policy;

	t->job = (struct policy_job){.work = work, .on_done = on_worked};
	p->outside++;
	p->ops->run(p->context, &t->job);
}

static void wait_for_state(struct pool_task *t)
{
	struct policy_pool *pool = t->policy->pool;

	t->next = NULL;
	*pool->last = t;
	pool->last = &t->next;
	pool->waiting++;
	pool->waiting_bytes += t->packed.len;
	t->policy->outside++;
}

/* The first one waits no more. */
static struct pool_task *take_first(struct policy_pool *pool)
{
	struct pool_task *t = pool->first;

	pool->first = t->next;
	if (pool->first == NULL) {
		pool->last = &pool->first;
	}
	pool->waiting--;
	pool->waiting_bytes -= t->packed.len;
	t->policy->outside--;
	return t;
}

/* Who waited for it is gone. */
static bool is_abandoned(const struct pool_task *t)
{
	return !t->detached && t->wait.run == NULL;
}

/* Those that wait get states as these become free. */
static void serve(struct policy *p)
{
	struct policy_pool *pool = p->pool;

	while (pool->first != NULL) {
		struct policy *state;
		struct pool_task *t;

		if (is_abandoned(pool->first)) {
			free_task(take_first(pool));
			continue;
		}
		state = take_state(p);
		if (state == NULL) {
			return;
		}
		t = take_first(pool);
		t->state = state;
		begin(t);
	}
}

/* Of those that wait for a state. */
static uint32_t drop_detached(struct policy_pool *pool)
{
	uint32_t count = 0;

	for (uint32_t left = pool->waiting; left > 0; left--) {
		struct pool_task *t = take_first(pool);

		if (t->detached) {
			free_task(t);
			count++;
		} else {
			wait_for_state(t);
		}
	}
	return count;
}

uint32_t policy_drop_tasks(struct policy *p)
{
	struct policy_pool *pool = p->pool;
	uint32_t count;

	pool->ending = true;
	count = drop_detached(pool);
	for (; pool->completing != NULL; count++) {
		policy_run_cancel(&pool->completing->completion_run);
		end_completion(pool->completing);
	}
	return count;
}

static void on_worked(struct policy_job *job, int result)
{
	struct pool_task *t = CONTAINER_OF(job, struct pool_task, job);
	struct policy *p = t->policy;
	struct policy *state = t->state;

	p->outside--;
	if (result != 0) {
		snprintf(t->why, sizeof(t->why), "too many tasks wait (pool backlog)");
	} else if (t->failed && t->why[0] == '\0') {
		snprintf(t->why, sizeof(t->why), "it failed");
	}
	p->pool->idle[p->pool->idle_count++] = state;
	/* What waits was here before what this one's end may ask for. */
	serve(p);
	finish(t);
}

/* ---- what scripts call ---- */

static struct pool_task *make_task(struct policy *p, bool detached, int completion)
{
	struct pool_task *t = policy_make(sizeof(*t));

	t->policy = p;
	t->detached = detached;
	t->completion = completion;
	return t;
}

/* pack(function, task), in a protected call. */
static int pack_function(lua_State *state)
{
	struct pool_task *t = lua_touserdata(state, 2);

	policy_pack(state, 1, 1, true, "it", &t->packed, PACKED_MAX);
	return 0;
}

/* Whether the function at index 2 can be taken there, and has been packed, by pack_function(),
 * which is on top of the stack. */
static bool pack(lua_State *state, struct pool_task *t)
{
	bool packed;

	lua_pushvalue(state, 2);
	lua_pushlightuserdata(state, t);
	packed = lua_pcall(state, 2, 0, 0) == 0;
	lua_settop(state, 3);
	return packed;
}

static int refuse(lua_State *state, struct pool_task *t, const char *why)
{
	free_task(t);
	return luaL_error(state, "msys.runInPool: %s", why);
}

/* begin(pool, function[, true | completion]): false, and what pcall() would return, later; true at
 * once: it is to run here. When nobody waits for it: false at once. */
static int begin_in_pool(lua_State *state)
{
	struct policy *p = policy_of(state);
	bool completes = lua_isfunction(state, 3) != 0;
	bool detached = completes || lua_toboolean(state, 3) != 0;
	int completion = LUA_NOREF;
	struct pool_task *t;

	luaL_checkany(state, 1);
	luaL_checktype(state, 2, LUA_TFUNCTION);
	lua_settop(state, 3);
	lua_pushboolean(state, 1);
	if (p->starting || p->blocking) {
		return 1;
	}
	if (!detached) {
		policy_run_check(state, "msys.runInPool");
	} else if (p->pool->ending) {
		return luaL_error(state, "msys.runInPool: the state of this script ends");
	}
	/* What memory may be short for comes before there is anything to lose. */
	lua_pushcfunction(state, pack_function);
	if (completes) {
		lua_pushvalue(state, 3);
		completion = policy_reference(state);
	}
	t = make_task(p, detached, completion);
	if (!pack(state, t)) {
		free_task(t);
		policy_check_budget(state);
		atomic_fetch_add_explicit(&p->ran_in_place, 1, memory_order_relaxed);
		lua_pushboolean(state, 1);
		return 1;
	}
	t->state = p->pool->first == NULL ? take_state(p) : NULL;
	if (t->state == NULL && p->pool->state_count == 0) {
		return refuse(state, t, "not enough memory for a state");
	}
	if (t->state == NULL && (p->pool->waiting >= WAITING_MAX ||
				 p->pool->waiting_bytes + t->packed.len > WAITING_BYTES_MAX)) {
		return refuse(state, t, "too many functions wait already");
	}
	if (t->state != NULL) {
		begin(t);
	} else {
		wait_for_state(t);
	}
	if (!detached) {
		return policy_run_wait(state, &t->wait);
	}
	lua_pushboolean(state, 0);
	return 1;
}

/* tell(why): nobody waits for what failed. */
static int tell(lua_State *state)
{
	struct policy *p = policy_of(state);
	const char *why = lua_tostring(state, 1);

	lua_pushfstring(state, "%s (in runInPool)", why != NULL ? why : "an error that is no text");
	if (p->blocking) {
		/* What is told there ends the function. */
		lua_getglobal(state, "print");
		lua_insert(state, -2);
		lua_call(state, 1, 0);
		return 0;
	}
	p->ops->error(p->context, lua_tostring(state, -1));
	return 0;
}

/* In Lua, so that a function which runs here may wait, as one of the hook's own. */
static const char wrapper[] =
	"local runInPool, tell, pcall, type = ...\n"
	"local function run(f)\n"
	"  local good, why = pcall(f)\n"
	"  if not good then tell(why) end\n"
	"end\n"
	"local function finish(f, more, here, ...)\n"
	"  if not here then return ... end\n"
	"  if not more then return pcall(f) end\n"
	"  run(f)\n"
	"  if type(more) == 'function' then run(more) end\n"
	"end\n"
	"return function(pool, f, more) return finish(f, more, runInPool(pool, f, more)) end";

void policy_open_pool(lua_State *state)
{
	struct policy *p = policy_of(state);

	luaL_loadbuffer(state, wrapper, sizeof(wrapper) - 1, "=msys.runInPool");
	lua_pushcfunction(state, begin_in_pool);
	lua_pushcfunction(state, tell);
	lua_getglobal(state, "pcall");
	lua_getglobal(state, "type");
	lua_call(state, 4, 1);
	lua_setfield(state, 1, "runInPool");
	if (p->blocking) {
		return;
	}
	p->pool = check_memory(calloc(1, sizeof(*p->pool)), "policy");
	p->pool->last = &p->pool->first;
}
