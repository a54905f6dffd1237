/*
 * Objects: what scripts hold of a session. They are handles: when the message or the session is
 * over a handle that a script has kept says so, instead of pointing to what has gone.
 */
#include <string.h>

#include "core/policy/parts.h"

static const char *const classes[POLICY_KINDS] = {"msg", "vctx", "accept"};

void policy_class(lua_State *state, const char *name, const luaL_Reg *methods)
{
	luaL_newmetatable(state, name);
	lua_newtable(state);
	luaL_register(state, NULL, methods);
	lua_setfield(state, -2, "__index");
	/* Nobody changes it, or finds out how. */
	lua_pushstring(state, name);
	lua_setfield(state, -2, "__metatable");
	lua_pop(state, 1);
}

void policy_push_object(lua_State *state, struct policy_subject *s, enum policy_kind kind)
{
	struct policy_handle *h = s->handles[kind];

	if (h != NULL) {
		lua_rawgeti(state, LUA_REGISTRYINDEX, s->handle_references[kind]);
		return;
	}
	h = lua_newuserdata(state, sizeof(*h));
	h->subject = s;
	luaL_getmetatable(state, classes[kind]);
	lua_setmetatable(state, -2);
	lua_pushvalue(state, -1);
	s->handle_references[kind] = policy_reference(state);
	s->handles[kind] = h;
}

struct policy_subject *policy_check_object(lua_State *state, int index, enum policy_kind kind)
{
	struct policy_handle *h = luaL_checkudata(state, index, classes[kind]);

	if (h->subject == NULL) {
		luaL_error(state, "this %s is over: it cannot be kept beyond its %s", classes[kind],
			   kind == POLICY_MSG ? "transaction" : "session");
	}
	return h->subject;
}

struct policy_mail *policy_check_mail(lua_State *state, int index)
{
	struct policy_subject *s = policy_check_object(state, index, POLICY_MSG);

	ASSERT(s->mail != NULL);
	return s->mail;
}

void policy_check_domain(lua_State *state, const char *domain)
{
	size_t len = strlen(domain);

	if (len == 0 || len > POLICY_DOMAIN_MAX || domain[0] == '.' || domain[len - 1] == '.' ||
	    strpbrk(domain, "@ \t\r\n<>\"") != NULL || strstr(domain, "..") != NULL) {
		luaL_error(state, "\"%s\" is not a domain", domain);
	}
}

/* ---- life ---- */

static bool is_open(const struct policy_subject *s)
{
	return s->policy != NULL && s->policy->lua != NULL;
}

static void end_object(struct policy_subject *s, enum policy_kind kind)
{
	if (!is_open(s)) {
		/* It ended with the state. */
		s->handles[kind] = NULL;
	} else if (s->handles[kind] != NULL) {
		s->handles[kind]->subject = NULL;
		s->handles[kind] = NULL;
		luaL_unref(s->policy->lua, LUA_REGISTRYINDEX, s->handle_references[kind]);
	}
}

void policy_subject_init(struct policy_subject *s, struct policy *p,
			 const struct policy_subject_ops *ops, void *owner)
{
	*s = (struct policy_subject){
		.policy = p,
		.ops = ops,
		.owner = owner,
		.selves = LUA_NOREF,
	};
	if (p != NULL) {
		p->subjects++;
	}
}

static void end_self(struct policy_subject *s)
{
	if (is_open(s)) {
		luaL_unref(s->policy->lua, LUA_REGISTRYINDEX, s->selves);
	}
	s->selves = LUA_NOREF;
}

void policy_subject_move(struct policy_subject *s, struct policy *p)
{
	if (s->policy == p) {
		return;
	}
	for (int kind = 0; kind < POLICY_KINDS; kind++) {
		end_object(s, (enum policy_kind)kind);
	}
	end_self(s);
	policy_let_go(s->policy);
	s->policy = p;
	if (p != NULL) {
		p->subjects++;
	}
}

void policy_subject_set_mail(struct policy_subject *s, struct policy_mail *mail)
{
	end_object(s, POLICY_MSG);
	s->mail = mail;
}

void policy_subject_close(struct policy_subject *s)
{
	policy_subject_set_mail(s, NULL);
	policy_subject_move(s, NULL);
	policy_pairs_clear(&s->connection);
}
