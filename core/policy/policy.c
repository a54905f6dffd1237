#include "core/policy/policy.h"

#include <stdlib.h>
#include <string.h>

#include "core/policy/parts.h"

/* Where the deinit of a module is called from. */
SINGLE
struct module_call {
	const struct policy_module *module;
	enum policy_hook hook;
};

uint32_t policy_hooks(const struct policy *p)
{
	return p != NULL ? p->hooks : 0;
}

uint32_t policy_module_count(const struct policy *p)
{
	return p != NULL ? p->module_count : 0;
}

const struct policy_module *policy_module_at(const struct policy *p, uint32_t index)
{
	ASSERT(index < p->module_count);
	return &p->modules[index];
}

uint64_t policy_memory(const struct policy *p)
{
	return atomic_load_explicit(&p->used, memory_order_relaxed);
}

uint64_t policy_memory_max(const struct policy *p)
{
	return atomic_load_explicit(&p->used_max, memory_order_relaxed);
}

uint64_t policy_ran_in_place(const struct policy *p)
{
	return atomic_load_explicit(&p->ran_in_place, memory_order_relaxed);
}

const struct policy_limits *policy_limits_of(const struct policy *p)
{
	return &p->limits;
}

bool policy_drained(const struct policy *p)
{
	return p == NULL || p->outside == 0;
}

/* ---- scripts ---- */

static int push_script(lua_State *state, void *context)
{
	const struct policy_script *s = context;

	if (luaL_loadbufferx(state, s->code, s->code_len, s->path, "b") != 0) {
		lua_error(state);
	}
	return 0;
}

static int push_module_call(lua_State *state, void *context)
{
	const struct module_call *m = context;

	lua_rawgeti(state, LUA_REGISTRYINDEX, m->module->reference);
	lua_getfield(state, -1, policy_hook_name(m->hook));
	lua_insert(state, -2);
	return 1;
}

SINGLE
struct passage {
	struct policy_run run;
	const char *where;
	bool failed;
};

static void on_start_end(struct policy_run *r, int status)
{
	struct passage *s = CONTAINER_OF(r, struct passage, run);

	s->failed = status != 0;
	if (status != 0 && r->thread != NULL) {
		policy_report(r->policy, r->thread, s->where, r->exhausted);
	}
	/* init may say so itself. */
	if (status == 0 && lua_type(r->thread, 1) == LUA_TBOOLEAN &&
	    lua_toboolean(r->thread, 1) == 0) {
		r->policy->ops->error(r->policy->context, "init returned false");
		s->failed = true;
	}
}

static bool run_now(struct policy *p, const char *where, policy_push_fn push, void *context)
{
	struct passage s = {.where = where, .run = {.on_end = on_start_end}};

	policy_run_start(p, &s.run, push, context);
	ASSERT(s.run.wait == NULL);
	return !s.failed;
}

static bool run_scripts(struct policy *p, const struct policy_scripts *scripts)
{
	for (uint32_t i = 0; i < scripts->count; i++) {
		struct policy_script *s = &scripts->list[i];

		p->folder = s->path;
		if (!run_now(p, s->name, push_script, s)) {
			return false;
		}
	}
	return true;
}

static bool run_modules(struct policy *p, enum policy_hook hook)
{
	bool good = true;

	/* init may register more of them. */
	for (uint32_t i = 0; i < p->module_count && (good || hook == POLICY_DEINIT); i++) {
		struct module_call m = {&p->modules[i], hook};

		if ((m.module->hooks & POLICY_BIT(hook)) != 0) {
			good = run_now(p, policy_hook_name(hook), push_module_call, &m);
		}
	}
	return good;
}

/* ---- life ---- */

/* While scripts are loaded their errors end the start. */
SINGLE
struct first_errors {
	const struct policy_ops *ops;
	void *context;
	FILE *errors;
};

static void tell_start(void *context, const char *text)
{
	struct first_errors *e = context;

	fprintf(e->errors, "%s\n", text);
}

static void print_start(void *context, const char *text, size_t len)
{
	struct first_errors *e = context;

	e->ops->print(e->context, text, len);
}

static void release_stats(struct policy_stats *s)
{
	if (s != NULL && --s->users == 0) {
		free(s);
	}
}

static void free_modules(struct policy *p)
{
	for (uint32_t i = 0; i < p->module_count; i++) {
		for (int hook = 0; hook < POLICY_HOOKS; hook++) {
			release_stats(p->modules[i].stats[hook]);
		}
	}
	free(p->modules);
	p->modules = NULL;
	p->module_count = 0;
}

static void free_rest(struct policy *p)
{
	p->magic = 0;
	free(p);
}

void policy_let_go(struct policy *p)
{
	if (p == NULL) {
		return;
	}
	CHECK_MAGIC(p, POLICY_MAGIC);
	ASSERT(p->subjects > 0);
	if (--p->subjects == 0 && p->lua == NULL) {
		free_rest(p);
	}
}

static void close_state(struct policy *p)
{
	policy_close_timers(p);
	policy_close_pool(p);
	policy_close_sources(p);
	if (p->lua != NULL) {
		policy_close_series(p);
		p->running = NULL;
		lua_close(p->lua);
		p->lua = NULL;
	}
	free_modules(p);
	if (p->subjects == 0) {
		free_rest(p);
	}
}

struct policy *policy_create(struct agent *self, const struct policy_start *start, FILE *errors)
{
	struct first_errors first = {start->ops, start->context, errors};
	const struct policy_ops start_ops = {.print = print_start, .error = tell_start};
	struct policy *p = check_memory(calloc(1, sizeof(*p)), "policy");

	p->magic = POLICY_MAGIC;
	p->agent = self;
	p->limits = start->limits;
	p->before = start->before;
	p->ops = &start_ops;
	p->context = &first;
	p->starting = true;
	if (policy_state_open(p) != 0) {
		fprintf(errors, "not enough memory for a Lua state\n");
		close_state(p);
		return NULL;
	}
	if (!run_scripts(p, start->scripts) || !run_modules(p, POLICY_INIT)) {
		p->starting = false;
		close_state(p);
		return NULL;
	}
	p->starting = false;
	p->folder = NULL;
	p->before = NULL;
	p->ops = start->ops;
	p->context = start->context;
	return p;
}

bool policy_idle(const struct policy *p)
{
	return p->calls == NULL && p->orders == NULL && policy_drained(p);
}

uint32_t policy_end_all(struct policy *p, const char *why)
{
	return policy_end_calls(p) + policy_drop_orders(p, why);
}

void policy_destroy(struct policy *p)
{
	if (p == NULL) {
		return;
	}
	CHECK_MAGIC(p, POLICY_MAGIC);
	ASSERT(policy_drained(p));
	p->starting = true;
	run_modules(p, POLICY_DEINIT);
	close_state(p);
}

/* ---- states for the pool ---- */

/* What a function may take there, in calls of a hook. */
#define POOL_INSTRUCTIONS 100

struct policy *policy_create_blocking(const struct policy_limits *limits)
{
	static const struct policy_ops no_ops = {.print = NULL};
	struct policy *p = check_memory(calloc(1, sizeof(*p)), "policy");

	p->magic = POLICY_MAGIC;
	p->limits = *limits;
	p->limits.instructions *= POOL_INSTRUCTIONS;
	p->ops = &no_ops;
	p->blocking = true;
	if (policy_state_open(p) != 0) {
		close_state(p);
		return NULL;
	}
	return p;
}

void policy_destroy_blocking(struct policy *p)
{
	if (p != NULL) {
		CHECK_MAGIC(p, POLICY_MAGIC);
		close_state(p);
	}
}

double policy_now_s(const struct policy *p)
{
	if (p->agent != NULL && !p->starting) {
		return (double)agent_wall_ms(p->agent) / 1000;
	}
	return (double)clock_system.wall_ns(NULL) / NS_PER_S;
}
