/*
 * msys.expandMacro: the macros of custom logs over the message at hand, and contexts as Momentum
 * writes them: %{vctx_mess:KEY} and %{vctx_conn:KEY}, also %vctx_mess{KEY} and %vctx_conn{KEY}.
 */
#include <stdlib.h>
#include <string.h>

#include "core/policy/parts.h"

#define KEY_MAX 128

static const struct form {
	const char *begin;
	enum policy_context context;
} forms[] = {
	{"%{vctx_mess:", POLICY_MESS},
	{"%{vctx_conn:", POLICY_CONN},
	{"%vctx_mess{", POLICY_MESS},
	{"%vctx_conn{", POLICY_CONN},
};

static const struct form *form_at(const char *at)
{
	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		if (strncmp(at, forms[i].begin, strlen(forms[i].begin)) == 0) {
			return &forms[i];
		}
	}
	return NULL;
}

/* Where the next context begins; its end when there is none. "%%" is none. */
static const char *find_form(const char *at)
{
	for (; *at != '\0'; at++) {
		if (at[0] == '%' && at[1] == '%') {
			at++;
		} else if (*at == '%' && form_at(at) != NULL) {
			break;
		}
	}
	return at;
}

/* To the text at index 2. */
static void add_text(lua_State *state, const char *text, size_t len)
{
	lua_pushvalue(state, 2);
	lua_pushlstring(state, text, len);
	lua_concat(state, 2);
	lua_replace(state, 2);
}

/* `len` bytes of the format in other macros, added to the text at index 2. */
static void add_others(lua_State *state, struct policy_subject *s, const char *format, size_t len)
{
	struct policy *p = policy_of(state);
	char why[POLICY_WHY];
	char *to;
	int n;

	if (memchr(format, '%', len) == NULL) {
		add_text(state, format, len);
		return;
	}
	if (p->ops->expand == NULL) {
		luaL_error(state, "msys.expandMacro: there are no macros here");
	}
	to = lua_newuserdata(state, POLICY_EXPANSION_MAX);
	lua_pushlstring(state, format, len);
	n = p->ops->expand(p->context, s, lua_tostring(state, -1), to, why);
	if (n < 0) {
		luaL_error(state, "msys.expandMacro: %s", why);
	}
	add_text(state, to, (size_t)n);
	lua_settop(state, 2);
}

/* What stands at `at`, added to the text; returns what is behind it. */
static const char *add_context(lua_State *state, struct policy_subject *s, const char *at)
{
	const struct form *f = form_at(at);
	const char *key = at + strlen(f->begin);
	size_t len = strcspn(key, "}");

	if (key[len] == '\0' || len == 0 || len > KEY_MAX) {
		luaL_error(state, "msys.expandMacro: \"%s\" expected 1 to 128 bytes and a brace",
			   f->begin);
	}
	lua_pushlstring(state, key, len);
	if (s == NULL || !policy_push_context(state, s, f->context, lua_tostring(state, 3))) {
		lua_settop(state, 3);
		lua_pushliteral(state, "");
	}
	lua_replace(state, 3);
	lua_concat(state, 2);
	return key + len + 1;
}

static int expand_macro(lua_State *state)
{
	struct policy *p = policy_of(state);
	struct policy_subject *s = p->running != NULL ? p->running->subject : NULL;
	const char *at = luaL_checkstring(state, 1);

	lua_settop(state, 1);
	lua_pushliteral(state, "");
	while (*at != '\0') {
		const char *next = find_form(at);

		add_others(state, s, at, (size_t)(next - at));
		at = *next != '\0' ? add_context(state, s, next) : next;
	}
	return 1;
}

void policy_open_macro(lua_State *state)
{
	static const luaL_Reg msys[] = {{"expandMacro", expand_macro}, {NULL, NULL}};

	luaL_register(state, NULL, msys);
}
