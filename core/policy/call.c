/*
 * Hooks: each passage goes through the modules in the order of their registration.
 *
 * Start reading at policy_call_begin().
 */
#include <stdlib.h>
#include <string.h>

#include "core/policy/parts.h"

static struct policy *policy_of_call(const struct policy_call *c)
{
	return c->subject->policy;
}

static uint64_t now_ns(const struct policy *p)
{
	return p->agent->clock->monotonic_ns(p->agent->clock->context);
}

static struct policy_module *module_of(const struct policy_call *c)
{
	return &policy_of_call(c)->modules[c->module];
}

static void add(_Atomic uint64_t *count)
{
	/* One writer. */
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

static void subtract(_Atomic uint64_t *count)
{
	atomic_store_explicit(count, atomic_load_explicit(count, memory_order_relaxed) - 1,
			      memory_order_relaxed);
}

/* ---- arguments ---- */

/* `self`: a table of the session's own, behind which is the module's. */
static void push_self(lua_State *state, struct policy_subject *s, const struct policy_module *m,
		      uint32_t index)
{
	if (s->selves == LUA_NOREF) {
		lua_newtable(state);
		s->selves = policy_reference(state);
	}
	lua_rawgeti(state, LUA_REGISTRYINDEX, s->selves);
	lua_rawgeti(state, -1, (int)index + 1);
	if (lua_isnil(state, -1)) {
		lua_pop(state, 1);
		lua_newtable(state);
		lua_newtable(state);
		lua_rawgeti(state, LUA_REGISTRYINDEX, m->reference);
		lua_setfield(state, -2, "__index");
		lua_setmetatable(state, -2);
		lua_pushvalue(state, -1);
		lua_rawseti(state, -3, (int)index + 1);
	}
	lua_remove(state, -2);
}

static int push_session(lua_State *state, struct policy_subject *s)
{
	policy_push_object(state, s, POLICY_ACCEPT);
	policy_push_object(state, s, POLICY_VCTX);
	return 2;
}

static int push_arguments(lua_State *state, const struct policy_call *c)
{
	struct policy_subject *s = c->subject;

	switch (c->hook) {
	case POLICY_CONNECT:
		return push_session(state, s);
	case POLICY_EHLO:
	case POLICY_MAILFROM:
		lua_pushstring(state, c->argument);
		return 1 + push_session(state, s);
	case POLICY_RCPTTO:
		policy_push_object(state, s, POLICY_MSG);
		lua_pushstring(state, c->argument);
		return 2 + push_session(state, s);
	case POLICY_DATA:
	case POLICY_DATA_SPOOL:
	case POLICY_EACH_RCPT:
	case POLICY_FINAL:
		policy_push_object(state, s, POLICY_MSG);
		return 1 + push_session(state, s);
	case POLICY_SET_BINDING:
		policy_push_object(state, s, POLICY_MSG);
		return 1;
	case POLICY_ROUTING_DOMAIN:
		lua_pushliteral(state, "esmtp");
		policy_push_object(state, s, POLICY_MSG);
		lua_newtable(state);
		lua_pushliteral(state, "");
		lua_setfield(state, -2, "buffer");
		/* Read when the hook has ended. */
		lua_pushvalue(state, -1);
		lua_setfield(state, LUA_REGISTRYINDEX, "flywheel.buffer");
		return 3;
	case POLICY_DELIVERY:
	case POLICY_TRANSIENT:
	case POLICY_BOUNCE:
		policy_push_object(state, s, POLICY_MSG);
		lua_pushstring(state, c->argument);
		lua_pushinteger(state, (lua_Integer)c->number);
		return 3;
	case POLICY_INIT:
	case POLICY_DEINIT:
	case POLICY_HOOKS:
		break;
	}
	return 0;
}

static int push_call(lua_State *state, void *context)
{
	struct policy_call *c = context;
	const struct policy_module *m = module_of(c);

	lua_rawgeti(state, LUA_REGISTRYINDEX, m->reference);
	lua_getfield(state, -1, policy_hook_name(c->hook));
	lua_remove(state, -2);
	push_self(state, c->subject, m, c->module);
	return 1 + push_arguments(state, c);
}

/* ---- results ---- */

SINGLE
struct taking {
	struct policy_call *call;
	lua_State *thread;
};

/* A routing domain may be returned, or put into the buffer. */
static int take_domain(lua_State *state)
{
	const struct taking *t = lua_touserdata(state, 1);
	struct policy_mail *mail = t->call->subject->mail;
	const char *domain;

	lua_getfield(state, LUA_REGISTRYINDEX, "flywheel.buffer");
	lua_getfield(state, -1, "buffer");
	if (lua_gettop(t->thread) > 0 && lua_type(t->thread, 1) == LUA_TSTRING) {
		lua_pushvalue(t->thread, 1);
		lua_xmove(t->thread, state, 1);
	}
	domain = lua_tostring(state, -1);
	if (domain != NULL && domain[0] != '\0' && mail != NULL) {
		policy_check_domain(state, domain);
		strcpy(mail->routing_domain, domain);
	}
	return 0;
}

static bool take_routing(struct policy_call *c, lua_State *thread)
{
	struct policy *p = policy_of_call(c);
	struct taking t = {c, thread};
	char why[POLICY_WHY];

	if (policy_protected(p, take_domain, &t, why) == 0) {
		return true;
	}
	p->ops->error(p->context, why);
	return false;
}

static void tell_silent(struct policy_call *c)
{
	struct policy_module *m = module_of(c);
	char text[256];

	if ((m->silent & POLICY_BIT(c->hook)) != 0) {
		return;
	}
	m->silent |= POLICY_BIT(c->hook);
	snprintf(text, sizeof(text), "%s of module %s returns nothing: taken as VALIDATE_CONT",
		 policy_hook_name(c->hook), m->name);
	policy_of_call(c)->ops->print(policy_of_call(c)->context, text, strlen(text));
}

/* What the module has said, and who comes next. */
static void take_result(struct policy_call *c, lua_State *thread)
{
	int type = lua_type(thread, 1);
	int said = type == LUA_TNUMBER ? (int)lua_tonumber(thread, 1) : POLICY_RETURN_CONT;

	if (c->hook >= POLICY_DELIVERY) {
		said = POLICY_RETURN_CONT;
	} else if (type != LUA_TNUMBER && c->hook != POLICY_ROUTING_DOMAIN) {
		tell_silent(c);
	}
	if (said == POLICY_RETURN_AGAIN && ++c->again_count <= POLICY_AGAIN_MAX) {
		timer_arm(&c->again, agent_now_ms(policy_of_call(c)->agent) + POLICY_AGAIN_MS);
		return;
	}
	c->module++;
	c->again_count = 0;
	if (said == POLICY_RETURN_DONE) {
		c->module = policy_of_call(c)->module_count;
	}
}

static void fail(struct policy_call *c)
{
	struct policy *p = policy_of_call(c);
	uint64_t penalty_ms = policy_penalty_ms(p, c->run.spent_ns);

	c->module = p->module_count;
	c->result = POLICY_FAILED;
	if (penalty_ms > 0) {
		timer_arm(&c->again, agent_now_ms(p->agent) + penalty_ms);
	}
}

static void take_end(struct policy_call *c, int status)
{
	struct policy *p = policy_of_call(c);
	struct policy_stats *stats = module_of(c)->stats[c->hook];
	lua_State *thread = c->run.thread;

	histogram_record(&stats->ns, now_ns(p) - c->began_ns);
	if (status != 0) {
		add(c->run.exhausted ? &stats->stopped : &stats->errors);
		if (thread != NULL) {
			policy_report(p, thread, policy_hook_name(c->hook), c->run.exhausted);
		}
		fail(c);
	} else if (c->hook == POLICY_ROUTING_DOMAIN && !take_routing(c, thread)) {
		add(&stats->errors);
		fail(c);
	} else {
		take_result(c, thread);
	}
}

/* ---- the passage ---- */

static bool drive(struct policy_call *c);

/* It waits: it is found by policy_end_calls(). */
static void keep(struct policy_call *c)
{
	struct policy *p = policy_of_call(c);

	c->next = p->calls;
	c->place = &p->calls;
	if (c->next != NULL) {
		c->next->place = &c->next;
	}
	p->calls = c;
}

static void unkeep(struct policy_call *c)
{
	*c->place = c->next;
	if (c->next != NULL) {
		c->next->place = c->place;
	}
	c->place = NULL;
}

static void go_on(struct policy_call *c)
{
	if (drive(c)) {
		unkeep(c);
		c->on_done(c);
	}
}

static void on_hook_end(struct policy_run *r, int status)
{
	struct policy_call *c = CONTAINER_OF(r, struct policy_call, run);

	if (!c->drives) {
		subtract(&module_of(c)->stats[c->hook]->suspended);
	}
	take_end(c, status);
	if (!c->drives && !timer_armed(&c->again)) {
		go_on(c);
	}
}

static void on_again(struct timer *t)
{
	go_on(CONTAINER_OF(t, struct policy_call, again));
}

/* Calls the module whose turn it is; false: it waits. */
static bool call_module(struct policy_call *c)
{
	struct policy *p = policy_of_call(c);
	struct policy_stats *stats = module_of(c)->stats[c->hook];

	add(&stats->calls);
	c->began_ns = now_ns(p);
	c->run = (struct policy_run){.on_end = on_hook_end, .subject = c->subject};
	policy_run_start(p, &c->run, push_call, c);
	if (c->run.wait != NULL) {
		add(&stats->suspended);
		return false;
	}
	return !timer_armed(&c->again);
}

/* Calls one module after the other; true: all that are to be called have been. */
static bool drive(struct policy_call *c)
{
	struct policy *p = policy_of_call(c);
	bool over = true;

	c->drives = true;
	while (over && c->module < p->module_count) {
		if ((p->modules[c->module].hooks & POLICY_BIT(c->hook)) == 0) {
			c->module++;
		} else {
			over = call_module(c);
		}
	}
	c->drives = false;
	return over;
}

bool policy_call_begin(struct policy_call *c)
{
	struct policy *p = policy_of_call(c);

	CHECK_MAGIC(p, POLICY_MAGIC);
	c->result = POLICY_GO_ON;
	c->module = 0;
	c->again_count = 0;
	timer_init(&c->again, p->agent, on_again);
	c->place = NULL;
	if (drive(c)) {
		return true;
	}
	keep(c);
	return false;
}

void policy_call_cancel(struct policy_call *c)
{
	if (c->place == NULL) {
		return;
	}
	unkeep(c);
	if (timer_armed(&c->again)) {
		timer_cancel(&c->again);
	} else {
		subtract(&module_of(c)->stats[c->hook]->suspended);
		policy_run_cancel(&c->run);
	}
}

uint32_t policy_end_calls(struct policy *p)
{
	uint32_t count = 0;

	for (; p->calls != NULL; count++) {
		struct policy_call *c = p->calls;
		/* One whose answer is only put off has failed, and counts, already. */
		struct policy_stats *stats =
			c->module < p->module_count ? module_of(c)->stats[c->hook] : NULL;

		policy_call_cancel(c);
		if (stats != NULL) {
			add(&stats->stopped);
		}
		c->result = POLICY_FAILED;
		c->on_done(c);
	}
	return count;
}
