/*
 * What every script needs: registration, print(), require(), msys.core, counters.
 */
#include <stdlib.h>
#include <string.h>

#include "core/policy/parts.h"

/* Of what is kept until the code that prints it has ended. */
#define OUTPUT_MAX (UINT64_C(8) << 20)

/* ---- modules ---- */

static struct policy_module *find_module(const struct policy *p, const char *name)
{
	for (uint32_t i = 0; i < p->module_count; i++) {
		if (strcmp(p->modules[i].name, name) == 0) {
			return &p->modules[i];
		}
	}
	return NULL;
}

static struct policy_module *add_module(struct policy *p)
{
	struct policy_module *list =
		check_memory(reallocarray(p->modules, p->module_count + 1, sizeof(*p->modules)),
			     "policy modules");

	p->modules = list;
	list[p->module_count] = (struct policy_module){.reference = LUA_NOREF};
	return &list[p->module_count++];
}

/* The hooks that the table at the top of the stack has functions for. */
static uint32_t hooks_of(lua_State *state)
{
	uint32_t hooks = 0;

	for (int hook = 0; hook < POLICY_HOOKS; hook++) {
		lua_getfield(state, -1, policy_hook_name((enum policy_hook)hook));
		if (lua_isfunction(state, -1) != 0) {
			hooks |= POLICY_BIT(hook);
		}
		lua_pop(state, 1);
	}
	return hooks;
}

/* Those of the same name in the state before, if there are any. */
static struct policy_stats *hold_stats(const struct policy_module *before, int hook)
{
	struct policy_stats *s = before != NULL ? before->stats[hook] : NULL;

	if (s == NULL) {
		s = check_memory(calloc(1, sizeof(*s)), "a hook's counts");
	}
	s->users++;
	return s;
}

static void take_stats(const struct policy *p, struct policy_module *m)
{
	const struct policy_module *before =
		p->before != NULL ? find_module(p->before, m->name) : NULL;

	for (int hook = 0; hook < POLICY_HOOKS; hook++) {
		if ((m->hooks & POLICY_BIT(hook)) != 0) {
			m->stats[hook] = hold_stats(before, hook);
		}
	}
}

static int register_module(lua_State *state)
{
	struct policy *p = policy_of(state);
	size_t len;
	const char *name = luaL_checklstring(state, 1, &len);
	struct policy_module *m;
	uint32_t hooks;
	int reference;

	luaL_checktype(state, 2, LUA_TTABLE);
	luaL_argcheck(state, len > 0 && len < POLICY_MODULE_NAME, 1, "1 to 63 bytes expected");
	/* Who calls hooks counts on their modules: none come or change later. */
	if (!p->starting) {
		return luaL_error(state, "registerModule: only while scripts are loaded");
	}
	if (find_module(p, name) != NULL) {
		return luaL_error(state, "registerModule: there is a module \"%s\" already", name);
	}
	lua_settop(state, 2);
	hooks = hooks_of(state);
	if (hooks == 0) {
		return luaL_error(state, "registerModule: module \"%s\": no usable methods found",
				  name);
	}
	reference = policy_reference(state);
	m = add_module(p);
	strcpy(m->name, name);
	m->reference = reference;
	m->hooks = hooks;
	take_stats(p, m);
	p->hooks |= hooks;
	return 0;
}

static int register_control(lua_State *state)
{
	struct policy *p = policy_of(state);
	const char *name = luaL_checkstring(state, 1);

	luaL_checktype(state, 2, LUA_TFUNCTION);
	luaL_argcheck(state, name[0] != '\0' && strpbrk(name, " \t\"") == NULL, 1,
		      "one word expected");
	lua_settop(state, 2);
	lua_rawgeti(state, LUA_REGISTRYINDEX, p->controls);
	lua_insert(state, 1);
	lua_rawset(state, 1);
	return 0;
}

/* ---- print, require ---- */

static int print(lua_State *state)
{
	struct policy *p = policy_of(state);
	struct policy_text *output = p->running != NULL ? p->running->output : NULL;
	int count = lua_gettop(state);
	luaL_Buffer b;
	const char *text;
	size_t len;

	/* tostring() of each, which may call scripts. */
	lua_getglobal(state, "tostring");
	for (int i = 1; i <= count; i++) {
		lua_pushvalue(state, count + 1);
		lua_pushvalue(state, i);
		lua_call(state, 1, 1);
		if (lua_isstring(state, -1) == 0) {
			return luaL_error(state, "tostring must return a string to print");
		}
		lua_replace(state, i);
	}
	lua_settop(state, count);
	luaL_buffinit(state, &b);
	for (int i = 1; i <= count; i++) {
		if (i > 1) {
			luaL_addchar(&b, '\t');
		}
		lua_pushvalue(state, i);
		luaL_addvalue(&b);
	}
	luaL_pushresult(&b);
	text = lua_tolstring(state, -1, &len);
	/* It leaves the memory of the state. */
	policy_charge(p, len / POLICY_BYTES_PER_INSTRUCTION);
	policy_check_budget(state);
	if (output != NULL) {
		if (len > OUTPUT_MAX || output->len + len + 1 > OUTPUT_MAX) {
			return luaL_error(state, "print: more than 8M in all");
		}
		policy_text_append(output, text, len);
		policy_text_append(output, "\n", 1);
	} else {
		p->ops->print(p->context, text, len);
	}
	return 0;
}

/* Path of a script beside the one that is loaded: dots are folders. */
static void push_path(lua_State *state, const struct policy *p, const char *name)
{
	const char *slash = strrchr(p->folder, '/');

	lua_pushlstring(state, p->folder, slash != NULL ? (size_t)(slash - p->folder) + 1 : 0);
	luaL_gsub(state, name, ".", "/");
	lua_pushliteral(state, ".lua");
	lua_concat(state, 3);
}

static int load_required(lua_State *state, struct policy *p, const char *name)
{
	struct policy_scripts one = {0};
	char why[POLICY_WHY];
	int rc;

	push_path(state, p, name);
	if (policy_scripts_add(&one, name, lua_tostring(state, -1), why) != 0) {
		return luaL_error(state, "require: %s", why);
	}
	rc = luaL_loadbufferx(state, one.list[0].code, one.list[0].code_len, name, "b");
	policy_scripts_close(&one);
	if (rc != 0) {
		return lua_error(state);
	}
	lua_pushvalue(state, 1);
	lua_call(state, 1, 1);
	if (lua_isnil(state, -1)) {
		lua_pop(state, 1);
		lua_pushboolean(state, 1);
	}
	lua_getfield(state, LUA_REGISTRYINDEX, "_LOADED");
	lua_pushvalue(state, -2);
	lua_setfield(state, -2, name);
	lua_pop(state, 1);
	return 1;
}

/* What is built in is always there. */
static int require(lua_State *state)
{
	struct policy *p = policy_of(state);
	const char *name = luaL_checkstring(state, 1);

	lua_settop(state, 1);
	if (strncmp(name, "msys", 4) == 0 && (name[4] == '\0' || name[4] == '.')) {
		lua_getglobal(state, "msys");
		return 1;
	}
	lua_getfield(state, LUA_REGISTRYINDEX, "_LOADED");
	lua_getfield(state, -1, name);
	if (!lua_isnil(state, -1)) {
		return 1;
	}
	lua_getglobal(state, name);
	if (lua_istable(state, -1) != 0) {
		return 1;
	}
	if (p->folder == NULL) {
		return luaL_error(state, "require: only while scripts are loaded");
	}
	return load_required(state, p, name);
}

/* ---- counters: of this scheduler ---- */

static void push_counter(lua_State *state, int index)
{
	luaL_checkstring(state, index);
	lua_rawgeti(state, LUA_REGISTRYINDEX, policy_of(state)->counters);
	lua_pushvalue(state, index);
	lua_rawget(state, -2);
}

static int counter_change(lua_State *state, lua_Number delta)
{
	lua_Number now;

	push_counter(state, 1);
	now = lua_tonumber(state, -1) + delta;
	lua_pushvalue(state, 1);
	lua_pushnumber(state, now);
	lua_rawset(state, -4);
	lua_pushnumber(state, now);
	return 1;
}

static int counter_open(lua_State *state)
{
	counter_change(state, 0);
	lua_settop(state, 1);
	return 1;
}

static int counter_increment(lua_State *state)
{
	return counter_change(state, 1);
}

static int counter_add_number(lua_State *state)
{
	return counter_change(state, luaL_checknumber(state, 2));
}

static int counter_read(lua_State *state)
{
	push_counter(state, 1);
	lua_pushnumber(state, lua_tonumber(state, -1));
	return 1;
}

static int counter_reset(lua_State *state)
{
	push_counter(state, 1);
	lua_pushvalue(state, 1);
	lua_pushnumber(state, 0);
	lua_rawset(state, -4);
	return 0;
}

static int counter_unlink(lua_State *state)
{
	push_counter(state, 1);
	lua_pushvalue(state, 1);
	lua_pushnil(state);
	lua_rawset(state, -4);
	return 0;
}

/* ---- the rest ---- */

static int type(lua_State *state)
{
	luaL_checkany(state, 1);
	if (luaL_getmetafield(state, 1, "__metatable") != 0 && lua_isstring(state, -1) != 0) {
		return 1;
	}
	lua_pushstring(state, luaL_typename(state, 1));
	return 1;
}

static int now(lua_State *state)
{
	lua_pushnumber(state, policy_now_s(policy_of(state)));
	return 1;
}

static int async_ok(lua_State *state)
{
	lua_pushboolean(state, policy_run_may_wait(state));
	return 1;
}

static void set_number(lua_State *state, const char *name, int value)
{
	lua_pushinteger(state, value);
	lua_setfield(state, -2, name);
}

static void open_constants(lua_State *state)
{
	lua_newtable(state);
	set_number(state, "VALIDATE_CONT", POLICY_RETURN_CONT);
	set_number(state, "VALIDATE_DONE", POLICY_RETURN_DONE);
	set_number(state, "VALIDATE_AGAIN", POLICY_RETURN_AGAIN);
	set_number(state, "ECMESS_CTX_MESS", POLICY_MESS);
	set_number(state, "ECMESS_CTX_CONN", POLICY_CONN);
	set_number(state, "VCTX_MESS", POLICY_MESS);
	set_number(state, "VCTX_CONN", POLICY_CONN);
	set_number(state, "EC_MSG_ENV_FROM", 1);
	set_number(state, "EC_MSG_ENV_TO", 2);
	set_number(state, "EC_MSG_ENV_COMPLETE", 4);
	/* Of msys.runInPool(): where a completion runs, which is always on the scheduler. */
	set_number(state, "ECTP_COMPLETE_CALLBACK", 3);
	set_number(state, "ECTP_COMPLETE_CALLBACK_SCHED", 6);
	lua_pushcfunction(state, now);
	lua_setfield(state, -2, "get_now_ts");
	lua_setfield(state, 1, "core");
}

void policy_open_core(lua_State *state)
{
	static const luaL_Reg msys[] = {
		{"registerModule", register_module},
		{"registerControl", register_control},
		{"type", type},
		{"asyncOk", async_ok},
		{NULL, NULL},
	};
	static const luaL_Reg counters[] = {
		{"open", counter_open}, {"inc", counter_increment}, {"add", counter_add_number},
		{"read", counter_read}, {"reset", counter_reset},   {"unlink", counter_unlink},
		{NULL, NULL},
	};

	luaL_register(state, NULL, msys);
	open_constants(state);
	lua_newtable(state);
	luaL_register(state, NULL, counters);
	lua_setfield(state, 1, "counter");
	lua_pushcfunction(state, print);
	lua_setglobal(state, "print");
	lua_pushcfunction(state, require);
	lua_setglobal(state, "require");
	/* Loaded like a library, so that require("msys") finds it. */
	lua_getfield(state, LUA_REGISTRYINDEX, "_LOADED");
	lua_pushvalue(state, 1);
	lua_setfield(state, -2, "msys");
	lua_settop(state, 1);
}
