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
struct start {
	struct policy_run run;
	const char *where;
	bool failed;
};

static void on_start_end(struct policy_run *r, int status)
{
	struct start *s = CONTAINER_OF(r, struct start, run);

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
	struct start s = {.where = where, .run = {.on_end = on_start_end}};

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

	fprintf(e->errors, "flywheeld: policy: %s\n", text);
}

static void print_start(void *context, const char *text, size_t len)
{
	struct first_errors *e = context;

	e->ops->print(e->context, text, len);
}

static void free_modules(struct policy *p)
{
	for (uint32_t i = 0; i < p->module_count; i++) {
		for (int hook = 0; hook < POLICY_HOOKS; hook++) {
			free(p->modules[i].stats[hook]);
		}
	}
	free(p->modules);
}

static void close_state(struct policy *p)
{
	if (p->lua != NULL) {
		p->running = NULL;
		lua_close(p->lua);
	}
	free_modules(p);
	p->magic = 0;
	free(p);
}

struct policy *policy_create(struct agent *self, const struct policy_scripts *scripts,
			     const struct policy_limits *limits, const struct policy_ops *ops,
			     void *context, FILE *errors)
{
	struct first_errors first = {ops, context, errors};
	const struct policy_ops start_ops = {.print = print_start, .error = tell_start};
	struct policy *p = calloc(1, sizeof(*p));

	if (p == NULL) {
		fatal("out of memory for policy");
	}
	p->magic = POLICY_MAGIC;
	p->agent = self;
	p->limits = *limits;
	p->ops = &start_ops;
	p->context = &first;
	p->starting = true;
	if (policy_state_open(p) != 0) {
		fprintf(errors, "flywheeld: policy: not enough memory for a Lua state\n");
		close_state(p);
		return NULL;
	}
	if (!run_scripts(p, scripts) || !run_modules(p, POLICY_INIT)) {
		p->starting = false;
		close_state(p);
		return NULL;
	}
	p->starting = false;
	p->ops = ops;
	p->context = context;
	return p;
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
