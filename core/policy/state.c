/*
 * The state: its memory, its budget of instructions, and what of Lua scripts get.
 *
 * Instructions are counted by a hook that LuaJIT's interpreter calls each POLICY_STEP of them.
 * Compiled traces call none, so the compiler stays off: policy is glue between functions of ours,
 * which no trace can contain anyway. An error that the hook raises may be caught by a script's
 * pcall(); from then on each single instruction raises it again, so that no loop can go on.
 */
#include <errno.h>
#include <luajit-2.1/luajit.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/policy/pack.h"
#include "core/policy/parts.h"
#include "core/runtime/cpu_clock.h"

/* For the text of an error when the limit is reached. */
#define RELIEF_BYTES (UINT64_C(256) << 10)
/* For a table of references that grows: more than there can be. */
#define REFERENCE_RELIEF_BYTES (UINT64_C(1) << 32)
/* Of a block that counts as instructions, too. */
#define LARGE_BYTES 4096
/* Time on the processor that one instruction may take, on the average of a call. */
#define NS_PER_INSTRUCTION 100

/* ---- memory ---- */

static void count(struct policy *p, uint64_t used)
{
	atomic_store_explicit(&p->used, used, memory_order_relaxed);
	if (used > atomic_load_explicit(&p->used_max, memory_order_relaxed)) {
		atomic_store_explicit(&p->used_max, used, memory_order_relaxed);
	}
}

static void *allocate(void *context, void *old, size_t old_size, size_t size)
{
	struct policy *p = context;
	uint64_t used = atomic_load_explicit(&p->used, memory_order_relaxed);
	void *fresh;

	if (size == 0) {
		free(old);
		count(p, used - old_size);
		return NULL;
	}
	if (size > old_size && used + (size - old_size) > p->limits.memory_bytes + p->relief) {
		return NULL;
	}
	/* What makes large strings takes long, and is one instruction. */
	if (size >= LARGE_BYTES) {
		policy_charge(p, size / POLICY_BYTES_PER_INSTRUCTION);
	}
	fresh = realloc(old, size);
	if (fresh != NULL) {
		count(p, used - old_size + size);
	}
	return fresh;
}

static int collect(lua_State *state)
{
	lua_gc(state, LUA_GCCOLLECT, 0);
	return 0;
}

void policy_state_tidy(struct policy *p, bool out_of_memory)
{
	char why[POLICY_WHY];

	/* Lua does not collect when memory is short: what is garbage would count until its next
	 * cycle comes round. */
	if (out_of_memory || policy_memory(p) > p->limits.memory_bytes / 4 * 3) {
		policy_protected(p, collect, NULL, why);
	}
}

int policy_reference(lua_State *state)
{
	struct policy *p = policy_of(state);
	uint64_t before = p->relief;
	int reference;

	p->relief = REFERENCE_RELIEF_BYTES;
	reference = luaL_ref(state, LUA_REGISTRYINDEX);
	p->relief = before;
	return reference;
}

/* ---- the budget ---- */

/* Whether it has taken more of the processor than its instructions may: functions of C do much in
 * one. The exact clock is a system call, so it is asked when the coarse one has gone on. */
static bool is_slow(struct policy *p)
{
	uint64_t coarse = clock_read_ns(CLOCK_MONOTONIC_COARSE);
	uint64_t now;

	if (coarse == p->step_coarse_ns) {
		return false;
	}
	now = cpu_clock_ns(&clock_system);
	if (p->step_coarse_ns == 0) {
		p->step_ns = now;
	}
	p->step_coarse_ns = coarse;
	return now - p->step_ns >
	       p->limits.instructions * NS_PER_INSTRUCTION * (p->starting ? 100 : 1);
}

static void on_step(lua_State *state, lua_Debug *unused)
{
	struct policy *p = policy_of(state);
	struct policy_run *r = p->running;

	(void)unused;
	if (r == NULL) {
		return;
	}
	if (!r->exhausted && r->budget > POLICY_STEP && !is_slow(p)) {
		r->budget -= POLICY_STEP;
		return;
	}
	r->budget = 0;
	policy_check_budget(state);
}

void policy_check_budget(lua_State *state)
{
	struct policy *p = policy_of(state);
	struct policy_run *r = p->running;

	if (r == NULL || r->budget > 0) {
		return;
	}
	r->exhausted = true;
	lua_sethook(p->lua, on_step, LUA_MASKCOUNT, 1);
	luaL_error(state, "instruction budget used up (%f)", (double)p->limits.instructions);
}

void policy_charge(struct policy *p, uint64_t instructions)
{
	struct policy_run *r = p->running;

	if (r == NULL || r->exhausted) {
		return;
	}
	if (r->budget > instructions) {
		r->budget -= instructions;
		return;
	}
	r->budget = 0;
	/* The next instruction looks. */
	lua_sethook(p->lua, on_step, LUA_MASKCOUNT, 1);
}

void policy_budget_begin(struct policy *p)
{
	p->step_coarse_ns = 0;
	lua_sethook(p->lua, on_step, LUA_MASKCOUNT, POLICY_STEP);
}

/* The handler of xpcall() runs while the hook that raised the error is still under way, so nothing
 * would count there: then it is not called. */
static int guarded_handler(lua_State *state)
{
	struct policy *p = policy_of(state);

	lua_settop(state, 1);
	if (p->running != NULL && p->running->exhausted) {
		return 1;
	}
	lua_pushvalue(state, lua_upvalueindex(1));
	lua_insert(state, 1);
	lua_call(state, 1, 1);
	return 1;
}

static int guard(lua_State *state)
{
	luaL_checkany(state, 1);
	lua_settop(state, 1);
	lua_pushcclosure(state, guarded_handler, 1);
	return 1;
}

/* ---- what scripts get ---- */

/* Text only: bytecode can do anything. */
static int load_text(lua_State *state)
{
	size_t len;
	const char *text = luaL_checklstring(state, 1, &len);
	const char *name = luaL_optstring(state, 2, text);

	if (luaL_loadbufferx(state, text, len, name, "t") != 0) {
		lua_pushnil(state);
		lua_insert(state, -2);
		return 2;
	}
	return 1;
}

static int collect_garbage(lua_State *state)
{
	const char *what = luaL_optstring(state, 1, "collect");

	if (strcmp(what, "count") == 0) {
		lua_pushnumber(state, (double)lua_gc(state, LUA_GCCOUNT, 0) +
					      (double)lua_gc(state, LUA_GCCOUNTB, 0) / 1024);
		return 1;
	}
	if (strcmp(what, "collect") != 0 && strcmp(what, "step") != 0) {
		return luaL_error(state,
				  "collectgarbage: only \"collect\", \"step\" and \"count\"");
	}
	lua_gc(state, LUA_GCCOLLECT, 0);
	lua_pushinteger(state, 0);
	return 1;
}

static void open(lua_State *state, lua_CFunction f, const char *name)
{
	lua_pushcfunction(state, f);
	lua_pushstring(state, name);
	lua_call(state, 1, 0);
}

static void clear(lua_State *state, const char *table, const char *const *names)
{
	if (table != NULL) {
		lua_getglobal(state, table);
	} else {
		lua_pushvalue(state, LUA_GLOBALSINDEX);
	}
	for (; *names != NULL; names++) {
		lua_pushnil(state);
		lua_setfield(state, -2, *names);
	}
	lua_pop(state, 1);
}

/* Files, processes, bytecode, finalizers, the compiler, and whatever reaches behind the state. */
static void restrict_libraries(lua_State *state)
{
	static const char *const base[] = {"dofile",     "loadfile", "newproxy", "load",
					   "loadstring", "module",   "require",  NULL};
	static const char *const string[] = {"dump", NULL};
	static const char *const os[] = {"execute", "exit",      "remove", "rename",
					 "tmpname", "setlocale", NULL};
	static const char xpcall_text[] =
		"local call, guard = xpcall, ...\n"
		"function xpcall(f, h, ...) return call(f, guard(h), ...) end";

	clear(state, NULL, base);
	clear(state, "string", string);
	clear(state, "os", os);
	lua_pushcfunction(state, load_text);
	lua_pushvalue(state, -1);
	lua_setglobal(state, "loadstring");
	lua_setglobal(state, "load");
	lua_pushcfunction(state, collect_garbage);
	lua_setglobal(state, "collectgarbage");
	luaL_loadbuffer(state, xpcall_text, sizeof(xpcall_text) - 1, "=xpcall");
	lua_pushcfunction(state, guard);
	lua_call(state, 1, 0);
	/* Of the debug library a traceback is all that anybody needs. */
	open(state, luaopen_debug, LUA_DBLIBNAME);
	lua_getglobal(state, "debug");
	lua_getfield(state, -1, "traceback");
	lua_newtable(state);
	lua_insert(state, -2);
	lua_setfield(state, -2, "traceback");
	lua_setglobal(state, "debug");
	lua_pop(state, 1);
	lua_getfield(state, LUA_REGISTRYINDEX, "_LOADED");
	lua_pushnil(state);
	lua_setfield(state, -2, LUA_DBLIBNAME);
	lua_pop(state, 1);
}

static int keep_table(lua_State *state)
{
	lua_newtable(state);
	return policy_reference(state);
}

static int open_libraries(lua_State *state)
{
	struct policy *p = lua_touserdata(state, 1);

	luaJIT_setmode(state, 0, LUAJIT_MODE_ENGINE | LUAJIT_MODE_OFF);
	open(state, luaopen_base, "");
	open(state, luaopen_table, LUA_TABLIBNAME);
	open(state, luaopen_string, LUA_STRLIBNAME);
	open(state, luaopen_math, LUA_MATHLIBNAME);
	open(state, luaopen_os, LUA_OSLIBNAME);
	open(state, luaopen_bit, LUA_BITLIBNAME);
	restrict_libraries(state);
	p->controls = keep_table(state);
	p->counters = keep_table(state);
	p->networks = keep_table(state);
	lua_settop(state, 0);
	lua_newtable(state);
	lua_pushvalue(state, 1);
	lua_setglobal(state, "msys");
	policy_open_core(state);
	policy_open_message(state);
	policy_open_session(state);
	policy_open_mime(state);
	policy_open_wait(state);
	policy_open_text(state);
	policy_open_net(state);
	policy_open_digest(state);
	policy_open_pcre(state);
	policy_open_xml(state);
	policy_open_json(state);
	policy_open_timer(state);
	policy_open_lock(state);
	policy_open_macro(state);
	policy_open_audit(state);
	policy_open_pool(state);
	policy_open_db(state);
	policy_open_build(state);
	policy_open_part(state);
	policy_open_pattern(state);
	policy_pack_open(state);
	/* So that luaL_unref() always finds its list of free ones. */
	luaL_unref(state, LUA_REGISTRYINDEX, keep_table(state));
	return 0;
}

/* Whatever calls Lua outside of a protected call is a mistake of ours. */
static int on_panic(lua_State *state)
{
	const char *text = lua_tostring(state, -1);

	fatal("policy: an error outside of a protected call: %s", text != NULL ? text : "?");
}

int policy_state_open(struct policy *p)
{
	char why[POLICY_WHY];

	p->lua = lua_newstate(allocate, p);
	if (p->lua == NULL) {
		return -ENOMEM;
	}
	lua_atpanic(p->lua, on_panic);
	return policy_protected(p, open_libraries, p, why) == 0 ? 0 : -ENOMEM;
}

int policy_protected(struct policy *p, lua_CFunction f, void *context, char why[POLICY_WHY])
{
	uint64_t before = p->relief;
	int rc;

	p->relief = RELIEF_BYTES;
	rc = lua_cpcall(p->lua, f, context);
	p->relief = before;
	why[0] = '\0';
	if (rc != 0) {
		if (lua_type(p->lua, -1) == LUA_TSTRING) {
			snprintf(why, POLICY_WHY, "%s", lua_tostring(p->lua, -1));
		} else {
			snprintf(why, POLICY_WHY, "an error that is no text");
		}
		lua_pop(p->lua, 1);
	}
	return rc;
}
