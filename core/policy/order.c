/*
 * Orders: what operators call, a registered command or a piece of code, and what it prints.
 */
#include <stdlib.h>
#include <string.h>

#include "core/policy/parts.h"

BOUND
struct policy_order {
	struct policy_order *next;
	struct policy_order **place;
	struct policy_run run;
	struct policy_text output;
	char *const *words;
	unsigned count;
	const char *code;
	policy_ordered_fn on_done;
	void *context;
};

/* ---- which commands there are ---- */

SINGLE
struct search {
	const char *name;
	bool found;
};

static int search(lua_State *state)
{
	struct search *s = lua_touserdata(state, 1);

	lua_rawgeti(state, LUA_REGISTRYINDEX, policy_of(state)->controls);
	lua_getfield(state, -1, s->name);
	s->found = lua_isfunction(state, -1) != 0;
	return 0;
}

bool policy_has_control(struct policy *p, const char *name)
{
	struct search s = {name, false};
	char why[POLICY_WHY];

	return p != NULL && policy_protected(p, search, &s, why) == 0 && s.found;
}

/* ---- running one ---- */

/* cc.argc, and cc.argv from 0 on. */
static int push_control(lua_State *state, const struct policy_order *o)
{
	lua_rawgeti(state, LUA_REGISTRYINDEX, policy_of(state)->controls);
	lua_getfield(state, -1, o->words[0]);
	lua_remove(state, -2);
	lua_newtable(state);
	lua_pushinteger(state, (lua_Integer)o->count);
	lua_setfield(state, -2, "argc");
	lua_newtable(state);
	for (unsigned i = 0; i < o->count; i++) {
		lua_pushstring(state, o->words[i]);
		lua_rawseti(state, -2, (int)i);
	}
	lua_setfield(state, -2, "argv");
	return 1;
}

/* An expression has a value, which is printed. */
static int push_code(lua_State *state, const struct policy_order *o)
{
	lua_pushfstring(state, "return %s", o->code);
	if (luaL_loadbufferx(state, lua_tostring(state, -1), strlen(lua_tostring(state, -1)),
			     "=eval", "t") == 0) {
		return 0;
	}
	if (luaL_loadbufferx(state, o->code, strlen(o->code), "=eval", "t") != 0) {
		lua_error(state);
	}
	return 0;
}

static int push_order(lua_State *state, void *context)
{
	const struct policy_order *o = context;

	return o->words != NULL ? push_control(state, o) : push_code(state, o);
}

SINGLE
struct ending {
	struct policy_order *order;
	lua_State *thread;
	bool failed;
};

/* Results, or the message of an error, as print() would have them. */
static int write_end(lua_State *state)
{
	const struct ending *e = lua_touserdata(state, 1);
	int count = lua_gettop(e->thread);
	int first = e->failed && count > 0 ? count : 1;

	luaL_checkstack(state, count + 4, "results");
	for (int i = first; i <= count; i++) {
		size_t len;
		const char *text;

		lua_getglobal(state, "tostring");
		lua_pushvalue(e->thread, i);
		lua_xmove(e->thread, state, 1);
		lua_call(state, 1, 1);
		text = lua_tolstring(state, -1, &len);
		policy_text_append(&e->order->output, i > first ? "\t" : "", i > first);
		policy_text_append(&e->order->output, text != NULL ? text : "", len);
		lua_pop(state, 1);
	}
	if (count >= first) {
		policy_text_append(&e->order->output, "\n", 1);
	}
	return 0;
}

/* Tells who gave it, and frees it. */
static void conclude(struct policy_order *o, bool failed)
{
	*o->place = o->next;
	if (o->next != NULL) {
		o->next->place = o->place;
	}
	o->on_done(o->context, o->output.len > 0 ? o->output.data : "", o->output.len, failed);
	policy_text_close(&o->output);
	free(o);
}

static void on_order_end(struct policy_run *r, int status)
{
	struct policy_order *o = CONTAINER_OF(r, struct policy_order, run);
	struct ending e = {o, r->thread, status != 0};
	char why[POLICY_WHY];

	if (status != 0 && r->thread != NULL) {
		policy_report(r->policy, r->thread, o->words != NULL ? o->words[0] : "lua eval",
			      r->exhausted);
	}
	/* Of a command only what it prints. */
	if (r->thread == NULL) {
		policy_text_append(&o->output, r->why, strlen(r->why));
	} else if ((status != 0 || o->words == NULL) &&
		   policy_protected(r->policy, write_end, &e, why) != 0) {
		policy_text_append(&o->output, why, strlen(why));
	}
	conclude(o, status != 0);
}

uint32_t policy_drop_orders(struct policy *p, const char *why)
{
	uint32_t count = p != NULL ? policy_drop_tasks(p) : 0;

	for (; p != NULL && p->orders != NULL; count++) {
		struct policy_order *o = p->orders;

		policy_run_cancel(&o->run);
		policy_text_append(&o->output, why, strlen(why));
		conclude(o, true);
	}
	return count;
}

void policy_order(struct policy *p, char *const *words, unsigned count, const char *code,
		  policy_ordered_fn on_done, void *context)
{
	struct policy_order *o = check_memory(calloc(1, sizeof(*o)), "a command of policy");

	o->words = words;
	o->count = count;
	o->code = code;
	o->on_done = on_done;
	o->context = context;
	o->next = p->orders;
	o->place = &p->orders;
	if (o->next != NULL) {
		o->next->place = &o->next;
	}
	p->orders = o;
	o->run.on_end = on_order_end;
	o->run.output = &o->output;
	policy_run_start(p, &o->run, push_order, o);
}
