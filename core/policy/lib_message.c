/*
 * msg: the message that a hook is about. What it says of sender, recipient, binding and the like is
 * noted in struct policy_mail, and obeyed by its owner when the hook is over.
 */
#include <stdlib.h>
#include <string.h>

#include "core/policy/parts.h"

static struct policy_mail *mail_at(lua_State *state)
{
	return policy_check_mail(state, 1);
}

struct policy_mail *policy_check_writable(lua_State *state)
{
	struct policy_mail *m = mail_at(state);

	if (m->body == NULL || m->body->len == 0) {
		luaL_error(state, "the message has no text now");
	}
	return m;
}

/* ---- who it is ---- */

static int id(lua_State *state)
{
	lua_pushstring(state, mail_at(state)->id);
	return 1;
}

static int batch_id(lua_State *state)
{
	lua_pushstring(state, mail_at(state)->batch);
	return 1;
}

static int conn_id(lua_State *state)
{
	lua_pushstring(state, mail_at(state)->connection);
	return 1;
}

const char *policy_check_address(lua_State *state, int index, bool may_be_empty)
{
	size_t len;
	const char *a = luaL_checklstring(state, index, &len);
	const char *at;

	/* As SMTP has it, brackets are no part of it. */
	if (len >= 2 && a[0] == '<' && a[len - 1] == '>') {
		lua_pushlstring(state, a + 1, len - 2);
		lua_replace(state, index);
		a = lua_tolstring(state, index, &len);
	}
	if (len == 0 && may_be_empty) {
		return a;
	}
	at = memrchr(a, '@', len);
	luaL_argcheck(state,
		      len <= ADDRESS_MAX && strlen(a) == len && at != NULL && at != a &&
			      at[1] != '\0' && strpbrk(a, " \t\r\n<>") == NULL,
		      index, "an address such as user@example.com expected");
	return a;
}

static int mailfrom(lua_State *state)
{
	struct policy_mail *m = mail_at(state);

	if (!lua_isnoneornil(state, 2)) {
		strcpy(m->sender, policy_check_address(state, 2, true));
		m->sender_changed = true;
	}
	lua_pushstring(state, m->sender);
	return 1;
}

static int rcptto(lua_State *state)
{
	struct policy_mail *m = mail_at(state);

	if (!lua_isnoneornil(state, 2)) {
		strcpy(m->recipient, policy_check_address(state, 2, false));
		m->recipient_changed = true;
	}
	lua_pushstring(state, m->recipient);
	return 1;
}

/* get_envelope2(flags): the sender or recipient; its local part, and its domain. */
static int envelope(lua_State *state)
{
	struct policy_mail *m = mail_at(state);
	int flags = luaL_checkint(state, 2);
	const char *address = (flags & 2) != 0 ? m->recipient : m->sender;
	const char *at = strrchr(address, '@');

	lua_pushstring(state, address);
	lua_pushlstring(state, address, at != NULL ? (size_t)(at - address) : strlen(address));
	lua_pushstring(state, at != NULL ? at + 1 : "");
	return 3;
}

/* ---- header ---- */

const char *policy_check_field(lua_State *state, int index)
{
	const char *name = luaL_checkstring(state, index);

	luaL_argcheck(state, policy_field_is_name(name), index,
		      "the name of a header field expected");
	return name;
}

void policy_push_fields(lua_State *state, const char *header, size_t len, const char *name)
{
	struct policy_field f = {0};
	int count = 0;

	lua_newtable(state);
	while (policy_field_next(header, len, name, f.at + f.len, &f)) {
		policy_push_field(state, header, &f);
		lua_rawseti(state, -2, ++count);
	}
}

enum policy_field_mode policy_check_field_mode(lua_State *state, int index)
{
	static const char *const modes[] = {"replace", "prepend", "append", NULL};

	return (enum policy_field_mode)luaL_checkoption(state, index, "replace", modes);
}

/* header(name): an array of all values. header(name, value, mode): one more, or one instead. The
 * value of the empty string takes all out. */
static int header(lua_State *state)
{
	struct policy_mail *m;
	const char *name = policy_check_field(state, 2);
	const char *value;
	size_t len;

	if (lua_isnoneornil(state, 3)) {
		const struct policy_text *h = policy_mail_header(mail_at(state));

		policy_push_fields(state, h->data, h->len, name);
		return 1;
	}
	m = policy_check_writable(state);
	value = luaL_checklstring(state, 3, &len);
	policy_mail_set_field(m, name, value, len, policy_check_field_mode(state, 4));
	return 0;
}

int policy_push_address_header(lua_State *state, const char *header, size_t len)
{
	const char *name = policy_check_field(state, 2);
	const char *component = luaL_optstring(state, 3, "email");
	int table;

	lua_newtable(state);
	table = lua_gettop(state);
	policy_push_fields(state, header, len, name);
	for (int i = 1; i <= (int)lua_objlen(state, table + 1); i++) {
		lua_rawgeti(state, table + 1, i);
		policy_push_addresses(state, table, lua_tostring(state, -1), component);
		lua_settop(state, table + 1);
	}
	lua_settop(state, table);
	return 1;
}

static int address_header(lua_State *state)
{
	const struct policy_text *h = policy_mail_header(mail_at(state));

	return policy_push_address_header(state, h->data, h->len);
}

/* ---- text ---- */

static int body(lua_State *state)
{
	struct policy_mail *m = mail_at(state);
	const struct policy_text *t;

	if (!lua_isnoneornil(state, 2)) {
		size_t len;
		const char *text = luaL_checklstring(state, 2, &len);

		policy_mail_set_text(policy_check_writable(state), text, len);
		return 0;
	}
	t = policy_mail_text(m);
	lua_pushlstring(state, t->data, t->len);
	return 1;
}

void policy_push_raw(lua_State *state, struct policy_mail *m)
{
	const struct policy_text *h = policy_mail_header(m);
	const struct policy_text *t = policy_mail_text(m);
	size_t len = h->len + strlen("\r\n") + t->len;
	/* In one piece: a luaL_Buffer would make many strings of it. */
	char *raw = lua_newuserdata(state, len);

	memcpy(raw, h->data, h->len);
	memcpy(raw + h->len, "\r\n", strlen("\r\n"));
	memcpy(raw + len - t->len, t->data, t->len);
	lua_pushlstring(state, raw, len);
	lua_remove(state, -2);
}

static int raw(lua_State *state)
{
	if (!lua_isnoneornil(state, 2)) {
		size_t len;
		const char *text = luaL_checklstring(state, 2, &len);

		policy_mail_set_raw(policy_check_writable(state), text, len);
		return 0;
	}
	policy_push_raw(state, mail_at(state));
	return 1;
}

static int body_match(lua_State *state)
{
	const struct policy_text *t = policy_mail_text(mail_at(state));

	return policy_pcre_match(state, t->data, t->len, luaL_checkstring(state, 2));
}

static int body_replace(lua_State *state)
{
	struct policy_mail *m = policy_check_writable(state);
	const struct policy_text *t = policy_mail_text(m);
	const char *text;
	size_t len;

	policy_pcre_replace(state, t->data, t->len, luaL_checkstring(state, 2),
			    luaL_checkstring(state, 3));
	text = lua_tolstring(state, -1, &len);
	policy_mail_set_text(m, text, len);
	return 0;
}

static int raw_match(lua_State *state)
{
	size_t len;
	const char *text;

	policy_push_raw(state, mail_at(state));
	text = lua_tolstring(state, -1, &len);
	return policy_pcre_match(state, text, len, luaL_checkstring(state, 2));
}

static int raw_replace(lua_State *state)
{
	struct policy_mail *m = policy_check_writable(state);
	const char *text;
	size_t len;

	policy_push_raw(state, m);
	text = lua_tolstring(state, -1, &len);
	policy_pcre_replace(state, text, len, luaL_checkstring(state, 2),
			    luaL_checkstring(state, 3));
	text = lua_tolstring(state, -1, &len);
	policy_mail_set_raw(m, text, len);
	return 0;
}

static int message_size(lua_State *state)
{
	struct policy_mail *m = mail_at(state);

	lua_pushnumber(state, m->body != NULL ? (double)m->body->len : 0);
	return 1;
}

/* ---- its way ---- */

static int binding(lua_State *state)
{
	struct policy_mail *m = mail_at(state);
	struct policy *p = policy_of(state);
	const char *name = NULL;

	if (lua_isnone(state, 2)) {
		lua_pushstring(state, m->binding);
		return 1;
	}
	/* What header() returns may be handed on: its first value. */
	if (lua_istable(state, 2) != 0) {
		lua_rawgeti(state, 2, 1);
		lua_replace(state, 2);
	}
	if (lua_isnil(state, 2)) {
		lua_pushliteral(state, "no binding was named");
		return 1;
	}
	name = luaL_checkstring(state, 2);
	if (strlen(name) > ENVELOPE_BINDING_MAX || p->ops->is_binding == NULL ||
	    !p->ops->is_binding(p->context, name)) {
		lua_pushfstring(state, "no binding or binding group \"%s\"", name);
		return 1;
	}
	strcpy(m->binding, name);
	lua_pushnil(state);
	return 1;
}

static int binding_group(lua_State *state)
{
	struct policy_mail *m = mail_at(state);

	if (lua_isnone(state, 2)) {
		lua_pushstring(state, m->binding_group[0] != '\0' ? m->binding_group : m->binding);
		return 1;
	}
	return binding(state);
}

static int routing_domain(lua_State *state)
{
	struct policy_mail *m = mail_at(state);
	const char *at = strrchr(m->recipient, '@');

	if (lua_isnoneornil(state, 2)) {
		lua_pushstring(state, m->routing_domain[0] != '\0' ? m->routing_domain
				      : at != NULL                 ? at + 1
								   : "");
		return 1;
	}
	policy_check_domain(state, luaL_checkstring(state, 2));
	strcpy(m->routing_domain, lua_tostring(state, 2));
	for (char *c = m->routing_domain; *c != '\0'; c++) {
		*c = (char)(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
	}
	return 0;
}

static int priority(lua_State *state)
{
	struct policy_mail *m = mail_at(state);

	if (!lua_isnoneornil(state, 2)) {
		int value = luaL_checkint(state, 2);

		luaL_argcheck(state, value >= 0 && value <= 255, 2, "0 to 255 expected");
		m->priority = value;
	}
	lua_pushinteger(state, m->priority >= 0 ? m->priority : 0);
	return 1;
}

static int durability(lua_State *state)
{
	/* In the order of enum envelope_durability. */
	static const char *const names[] = {"synced", "cached", "memory", NULL};
	struct policy_mail *m = mail_at(state);

	if (!lua_isnoneornil(state, 2)) {
		m->durability = luaL_checkoption(state, 2, NULL, names);
	}
	if (m->durability < 0) {
		return 0;
	}
	lua_pushstring(state, names[m->durability]);
	return 1;
}

/* code(): "550 No", or nil when none was set. code(number, text) sets it; of the number 0 it is
 * what the text begins with. */
static int code(lua_State *state)
{
	struct policy_subject *s = policy_check_object(state, 1, POLICY_MSG);
	const char *text;

	if (lua_isnone(state, 2)) {
		if (s->code != 0) {
			lua_pushfstring(state, s->text[0] != '\0' ? "%d %s" : "%d", (int)s->code,
					s->text);
		} else {
			lua_pushnil(state);
		}
		return 1;
	}
	if (luaL_checkint(state, 2) == 0) {
		text = luaL_checkstring(state, 3);
		lua_settop(state, 3);
		lua_pushinteger(state, (lua_Integer)strtoul(text, NULL, 10));
		lua_replace(state, 2);
		text += strspn(text, "0123456789");
		lua_pushstring(state, text + strspn(text, " -"));
		lua_replace(state, 3);
	}
	policy_take_code(state, s, 2);
	return 0;
}

static int discard(lua_State *state)
{
	mail_at(state)->discarded = true;
	return 0;
}

static int inject(lua_State *state)
{
	struct policy_subject *s = policy_check_object(state, 1, POLICY_MSG);
	const char *from = policy_check_address(state, 2, true);
	const char *to = policy_check_address(state, 3, false);

	policy_check_writable(state);
	if (s->ops->inject == NULL || s->ops->inject(s->owner, from, to, NULL, 0) != 0) {
		return luaL_error(state, "nothing can be injected now");
	}
	return 0;
}

static int push_known(lua_State *state, const char *name)
{
	struct policy_subject *s = policy_check_object(state, 1, POLICY_MSG);
	char scratch[POLICY_KNOWN_MAX];
	const char *known =
		s->ops->known != NULL ? s->ops->known(s->owner, POLICY_CONN, name, scratch) : NULL;

	lua_pushstring(state, known != NULL ? known : "");
	return 1;
}

static int reception_peer(lua_State *state)
{
	return push_known(state, "#peer");
}

static int listener_addr(lua_State *state)
{
	return push_known(state, "#listener");
}

static int delivery_method(lua_State *state)
{
	mail_at(state);
	lua_pushliteral(state, "smtp");
	return 1;
}

/* Mail comes by SMTP only, never as a message of several channels. */
static int is_mcmt(lua_State *state)
{
	mail_at(state);
	lua_pushboolean(state, 0);
	return 1;
}

void policy_open_message(lua_State *state)
{
	static const luaL_Reg methods[] = {
		{"id", id},
		{"batch_id", batch_id},
		{"conn_id", conn_id},
		{"mailfrom", mailfrom},
		{"rcptto", rcptto},
		{"get_envelope2", envelope},
		{"header", header},
		{"address_header", address_header},
		{"body", body},
		{"raw", raw},
		{"body_match", body_match},
		{"body_replace", body_replace},
		{"raw_match", raw_match},
		{"raw_replace", raw_replace},
		{"get_message_size", message_size},
		{"binding", binding},
		{"binding_group", binding_group},
		{"routing_domain", routing_domain},
		{"priority", priority},
		{"durability", durability},
		{"code", code},
		{"discard", discard},
		{"inject", inject},
		{"reception_peer", reception_peer},
		{"listener_addr", listener_addr},
		{"get_delivery_method", delivery_method},
		{"is_mcmt", is_mcmt},
		{NULL, NULL},
	};

	policy_class(state, "msg", methods);
}
