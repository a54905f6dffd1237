/*
 * vctx, the validation context: what is decided about a client and its message; and accept, the
 * connection.
 */
#include <string.h>
#include <strings.h>

#include "core/policy/parts.h"

static enum policy_context check_context(lua_State *state, int index)
{
	int context = luaL_checkint(state, index);

	luaL_argcheck(state, context == POLICY_MESS || context == POLICY_CONN, index,
		      "VCTX_MESS or VCTX_CONN expected");
	return (enum policy_context)context;
}

/* NULL: there is no message now. */
static struct policy_pairs *pairs_of(struct policy_subject *s, enum policy_context context)
{
	if (context == POLICY_CONN) {
		return &s->connection;
	}
	return s->mail != NULL ? &s->mail->context : NULL;
}

bool policy_push_context(lua_State *state, struct policy_subject *s, enum policy_context context,
			 const char *key)
{
	const struct policy_pairs *pairs = pairs_of(s, context);
	const struct policy_pair *pair = pairs != NULL ? policy_pairs_find(pairs, key) : NULL;
	char scratch[POLICY_KNOWN_MAX];
	const char *known = NULL;

	if (pair != NULL) {
		lua_pushlstring(state, pair->value, pair->value_len);
		return true;
	}
	if (s->ops->known != NULL) {
		known = s->ops->known(s->owner, context, key, scratch);
	}
	if (known != NULL) {
		lua_pushstring(state, known);
	} else {
		lua_pushnil(state);
	}
	return known != NULL;
}

static void set_context(lua_State *state, struct policy_subject *s, enum policy_context context,
			int key_index)
{
	struct policy_pairs *pairs = pairs_of(s, context);
	const char *key = luaL_checkstring(state, key_index);
	size_t len;
	const char *value;

	luaL_argcheck(state, key[0] != '\0', key_index, "a name expected");
	if (pairs == NULL) {
		luaL_error(state, "there is no message yet to keep \"%s\" with", key);
	}
	if (lua_isboolean(state, key_index + 1)) {
		lua_pushstring(state, lua_toboolean(state, key_index + 1) != 0 ? "true" : "false");
		lua_replace(state, key_index + 1);
	}
	value = luaL_checklstring(state, key_index + 1, &len);
	if (policy_pairs_set(pairs, key, value, len) != 0) {
		luaL_error(state, "too much context: at most %d values with %d bytes in all",
			   POLICY_PAIRS_MAX, (int)POLICY_PAIRS_BYTES);
	}
}

/* ---- of messages, too ---- */

static struct policy_subject *subject_at(lua_State *state)
{
	return policy_check_object(state, 1, POLICY_MSG);
}

static int msg_context_get(lua_State *state)
{
	policy_push_context(state, subject_at(state), check_context(state, 2),
			    luaL_checkstring(state, 3));
	return 1;
}

static int msg_context_set(lua_State *state)
{
	set_context(state, subject_at(state), check_context(state, 2), 3);
	return 0;
}

static int msg_context_exists(lua_State *state)
{
	lua_pushboolean(state,
			policy_push_context(state, subject_at(state), check_context(state, 2),
					    luaL_checkstring(state, 3)));
	return 1;
}

static int msg_context_exists_and_get(lua_State *state)
{
	bool there = policy_push_context(state, subject_at(state), check_context(state, 2),
					 luaL_checkstring(state, 3));

	lua_pushboolean(state, there);
	lua_insert(state, -2);
	return 2;
}

static int msg_context_delete(lua_State *state)
{
	struct policy_pairs *pairs = pairs_of(subject_at(state), check_context(state, 2));
	const char *key = luaL_checkstring(state, 3);

	if (pairs != NULL) {
		policy_pairs_delete(pairs, key);
	}
	return 0;
}

/* ---- vctx ---- */

static struct policy_subject *vctx_at(lua_State *state)
{
	return policy_check_object(state, 1, POLICY_VCTX);
}

static int vctx_get(lua_State *state)
{
	policy_push_context(state, vctx_at(state), check_context(state, 2),
			    luaL_checkstring(state, 3));
	return 1;
}

static int vctx_set(lua_State *state)
{
	set_context(state, vctx_at(state), check_context(state, 2), 3);
	return 0;
}

void policy_take_code(lua_State *state, struct policy_subject *s, int index)
{
	int code = luaL_checkint(state, index);
	const char *text = luaL_optstring(state, index + 1, "");

	luaL_argcheck(state, code >= 200 && code <= 599, index, "a reply code expected");
	s->code = (unsigned)code;
	snprintf(s->text, sizeof(s->text), "%s", text);
	/* One line, whatever it is. */
	for (char *c = s->text; *c != '\0'; c++) {
		if ((unsigned char)*c < ' ') {
			*c = ' ';
		}
	}
}

static int vctx_set_code(lua_State *state)
{
	policy_take_code(state, vctx_at(state), 2);
	return 0;
}

static int vctx_disconnect(lua_State *state)
{
	struct policy_subject *s = vctx_at(state);

	if (!lua_isnoneornil(state, 2)) {
		policy_take_code(state, s, 2);
	}
	s->disconnect = true;
	return 0;
}

static int vctx_tarpit(lua_State *state)
{
	struct policy_subject *s = vctx_at(state);
	double seconds = luaL_checknumber(state, 2);

	luaL_argcheck(state, seconds >= 0 && seconds <= 3600, 2, "0 to 3600 seconds expected");
	s->tarpit_ms = (uint64_t)(seconds * 1000);
	return 0;
}

static int add_recipient(lua_State *state, struct policy_subject *s, int index)
{
	const char *address = policy_check_address(state, index, false);

	if (s->ops->add_recipient == NULL || s->ops->add_recipient(s->owner, address) != 0) {
		return luaL_error(state, "recipients cannot be added now");
	}
	return 0;
}

static int vctx_add_recipient(lua_State *state)
{
	return add_recipient(state, vctx_at(state), 2);
}

static int vctx_remove_recipient(lua_State *state)
{
	struct policy_subject *s = vctx_at(state);
	const char *address = luaL_checkstring(state, 2);

	if (s->ops->remove_recipient == NULL || s->ops->remove_recipient(s->owner, address) != 0) {
		lua_pushboolean(state, 0);
		return 1;
	}
	lua_pushboolean(state, 1);
	return 1;
}

static void push_recipients(lua_State *state, struct policy_subject *s)
{
	uint32_t count = s->ops->recipient_count != NULL ? s->ops->recipient_count(s->owner) : 0;

	lua_newtable(state);
	for (uint32_t i = 0; i < count; i++) {
		lua_pushstring(state, s->ops->recipient(s->owner, i));
		lua_rawseti(state, -2, (int)i + 1);
	}
}

static bool in_list(lua_State *state, int list, const char *address)
{
	for (int i = 1; i <= (int)lua_objlen(state, list); i++) {
		bool same;

		lua_rawgeti(state, list, i);
		same = lua_type(state, -1) == LUA_TSTRING &&
		       strcasecmp(lua_tostring(state, -1), address) == 0;
		lua_pop(state, 1);
		if (same) {
			return true;
		}
	}
	return false;
}

/* The list, or another one instead. */
static int vctx_recipient_list(lua_State *state)
{
	struct policy_subject *s = vctx_at(state);

	if (lua_isnoneornil(state, 2)) {
		push_recipients(state, s);
		return 1;
	}
	luaL_checktype(state, 2, LUA_TTABLE);
	lua_settop(state, 2);
	push_recipients(state, s);
	/* Those of argument 2 without brackets. */
	lua_newtable(state);
	for (int i = 1; i <= (int)lua_objlen(state, 2); i++) {
		lua_rawgeti(state, 2, i);
		add_recipient(state, s, 5);
		lua_rawseti(state, 4, i);
	}
	for (int i = 1; i <= (int)lua_objlen(state, 3); i++) {
		lua_rawgeti(state, 3, i);
		if (!in_list(state, 4, lua_tostring(state, -1))) {
			s->ops->remove_recipient(s->owner, lua_tostring(state, -1));
		}
		lua_pop(state, 1);
	}
	return 0;
}

/* ---- accept ---- */

static struct policy_subject *accept_at(lua_State *state)
{
	return policy_check_object(state, 1, POLICY_ACCEPT);
}

static int push_known(lua_State *state, const char *name)
{
	policy_push_context(state, accept_at(state), POLICY_CONN, name);
	return 1;
}

static int accept_listener(lua_State *state)
{
	return push_known(state, "#listener");
}

static int accept_peer(lua_State *state)
{
	return push_known(state, "#peer");
}

static int accept_peer_port(lua_State *state)
{
	push_known(state, "#peer_port");
	lua_pushnumber(state, lua_tonumber(state, -1));
	return 1;
}

/* inbound_session_count([cidr[, service]]): of its client, at SMTP, when they are not said. */
static int accept_sessions(lua_State *state)
{
	accept_at(state);
	lua_settop(state, 3);
	if (lua_isnil(state, 2)) {
		lua_pushvalue(state, 1);
		lua_replace(state, 2);
	}
	return policy_push_sessions(state, 2);
}

static int capability(lua_State *state, bool add)
{
	struct policy_subject *s = accept_at(state);
	const char *name = luaL_checkstring(state, 2);

	luaL_argcheck(state, name[0] != '\0' && strlen(name) < 64 && strpbrk(name, "\r\n") == NULL,
		      2, "an EHLO keyword expected");
	if (s->ops->capability != NULL) {
		s->ops->capability(s->owner, name, add);
	}
	return 0;
}

static int accept_capability_add(lua_State *state)
{
	return capability(state, true);
}

static int accept_capability_remove(lua_State *state)
{
	return capability(state, false);
}

void policy_open_session(lua_State *state)
{
	static const luaL_Reg contexts[] = {
		{"context_get", msg_context_get},
		{"context_set", msg_context_set},
		{"context_exists", msg_context_exists},
		{"context_exists_and_get", msg_context_exists_and_get},
		{"context_delete", msg_context_delete},
		{NULL, NULL},
	};
	static const luaL_Reg vctx[] = {
		{"get", vctx_get},
		{"set", vctx_set},
		{"set_code", vctx_set_code},
		{"disconnect", vctx_disconnect},
		{"tarpit", vctx_tarpit},
		{"add_recipient", vctx_add_recipient},
		{"remove_recipient", vctx_remove_recipient},
		{"recipient_list", vctx_recipient_list},
		{NULL, NULL},
	};
	static const luaL_Reg accept[] = {
		{"listener", accept_listener},
		{"peer", accept_peer},
		{"peer_port", accept_peer_port},
		{"inbound_session_count", accept_sessions},
		{"esmtp_capability_add", accept_capability_add},
		{"esmtp_capability_remove", accept_capability_remove},
		{NULL, NULL},
	};

	policy_class(state, "vctx", vctx);
	policy_class(state, "accept", accept);
	/* Methods of messages, too. */
	luaL_getmetatable(state, "msg");
	lua_getfield(state, -1, "__index");
	luaL_register(state, NULL, contexts);
	lua_settop(state, 1);
}
