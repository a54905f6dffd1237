/*
 * MIME parts of a message, as copies: tables with a class of their own, so that nothing in them can
 * outlive what they are of. And the quoted-printable, base64 and addresses that mail is made of.
 */
#include <string.h>

#include "core/mail/mime.h"
#include "core/policy/parts.h"

#define CLASS "msgpart"

/* A walk: the table of the part at each depth is on the stack. */
SINGLE
struct walk {
	lua_State *state;
	int base;
};

static void set_string(lua_State *state, const char *name, const char *text, size_t len)
{
	lua_pushlstring(state, text, len);
	lua_setfield(state, -2, name);
}

static void push_part(lua_State *state, const struct mime_part *part)
{
	static const char *const encodings[] = {"plain", "base64", "quoted-printable"};
	size_t room = part->body_len + 1;
	char *decoded;
	size_t len;

	lua_newtable(state);
	luaL_getmetatable(state, CLASS);
	lua_setmetatable(state, -2);
	set_string(state, "type", part->type, strlen(part->type));
	set_string(state, "headers", part->header, part->header_len);
	set_string(state, "raw_body", part->body, part->body_len);
	lua_pushstring(state, encodings[part->encoding]);
	lua_setfield(state, -2, "encoding");
	/* In memory that an error would free. */
	decoded = lua_newuserdata(state, room);
	len = mime_decode(part, decoded, room);
	lua_pushlstring(state, decoded, len);
	lua_setfield(state, -3, "decoded");
	lua_pop(state, 1);
	lua_newtable(state);
	lua_setfield(state, -2, "parts");
}

static bool visit(void *context, const struct mime_part *part)
{
	struct walk *w = context;
	lua_State *state = w->state;
	int depth = (int)part->depth;

	lua_settop(state, w->base + depth);
	luaL_checkstack(state, 8, "parts");
	push_part(state, part);
	if (depth > 0) {
		lua_getfield(state, w->base + depth, "parts");
		lua_pushvalue(state, -2);
		lua_rawseti(state, -2, (int)lua_objlen(state, -2) + 1);
		lua_pop(state, 1);
	}
	return true;
}

/* mime(): the message as a part, with its parts in it. */
static int mime(lua_State *state)
{
	struct policy_mail *m = policy_check_mail(state, 1);
	const struct policy_text *h = policy_mail_header(m);
	const struct policy_text *t = policy_mail_text(m);
	struct walk w = {.state = state};
	luaL_Buffer b;
	const char *text;
	size_t len;

	lua_settop(state, 1);
	luaL_buffinit(state, &b);
	luaL_addlstring(&b, h->data, h->len);
	luaL_addlstring(&b, "\r\n", 2);
	luaL_addlstring(&b, t->data, t->len);
	luaL_pushresult(&b);
	text = lua_tolstring(state, 2, &len);
	w.base = 2;
	mime_walk(text, len, visit, &w);
	if (lua_gettop(state) == 2) {
		return 0;
	}
	lua_settop(state, 3);
	return 1;
}

static int get(lua_State *state, const char *name)
{
	luaL_checktype(state, 1, LUA_TTABLE);
	lua_getfield(state, 1, name);
	return 1;
}

static int part_content_type(lua_State *state)
{
	return get(state, "type");
}

static int part_body(lua_State *state)
{
	return get(state, "raw_body");
}

static int part_text(lua_State *state)
{
	return get(state, "decoded");
}

static int part_encoding(lua_State *state)
{
	return get(state, "encoding");
}

static int part_children(lua_State *state)
{
	return get(state, "parts");
}

static int part_header(lua_State *state)
{
	const char *name = luaL_checkstring(state, 2);
	struct policy_field f = {0};
	const char *header;
	size_t len;
	int count = 0;

	get(state, "headers");
	header = luaL_checklstring(state, -1, &len);
	lua_newtable(state);
	while (policy_field_next(header, len, name, f.at + f.len, &f)) {
		policy_push_field(state, header, &f);
		lua_rawseti(state, -2, ++count);
	}
	return 1;
}

static int part_text_match(lua_State *state)
{
	const char *text;
	size_t len;

	get(state, "decoded");
	text = luaL_checklstring(state, -1, &len);
	return policy_pcre_match(state, text, len, luaL_checkstring(state, 2));
}

void policy_push_field(lua_State *state, const char *header, const struct policy_field *f)
{
	char small[1024];
	char *to = f->len <= sizeof(small) ? small : lua_newuserdata(state, f->len);
	size_t len = policy_field_value(header, f, to);

	lua_pushlstring(state, to, len);
	if (to != small) {
		lua_remove(state, -2);
	}
}

void policy_open_mime(lua_State *state)
{
	static const luaL_Reg of_message[] = {{"mime", mime}, {NULL, NULL}};
	static const luaL_Reg methods[] = {
		{"content_type", part_content_type},
		{"header", part_header},
		{"body", part_body},
		{"text", part_text},
		{"text_match", part_text_match},
		{"encoding", part_encoding},
		{"children", part_children},
		{NULL, NULL},
	};

	policy_class(state, CLASS, methods);
	luaL_getmetatable(state, "msg");
	lua_getfield(state, -1, "__index");
	luaL_register(state, NULL, of_message);
	lua_settop(state, 1);
}
