/*
 * MIME parts of a message: tables with a class of their own, so that nothing in them can outlive
 * what they are of. Their fields are `type`, `transfer`, `headers`, `raw_body`, the array `parts`,
 * and `parent`; the one on top may have `writable`, `message` and `changes`, see lib_part.c.
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

void policy_set_part_string(lua_State *state, const char *name, const char *text, size_t len)
{
	lua_pushlstring(state, text, len);
	lua_setfield(state, -2, name);
}

static const char *const encodings[] = {"plain", "base64", "quoted-printable"};

static void set_kind(lua_State *state, const struct mime_part *part)
{
	policy_set_part_string(state, "type", part->type, strlen(part->type));
	lua_pushstring(state, encodings[part->encoding]);
	lua_setfield(state, -2, "transfer");
}

static void push_part(lua_State *state, const struct mime_part *part)
{
	lua_newtable(state);
	luaL_getmetatable(state, CLASS);
	lua_setmetatable(state, -2);
	lua_pushlstring(state, part->header, part->header_len);
	if (part->header_len > 0 && part->header[part->header_len - 1] != '\n') {
		/* A delimiter comes right behind: fields that are added must not go on with this.
		 */
		lua_pushliteral(state, "\r\n");
		lua_concat(state, 2);
	}
	lua_setfield(state, -2, "headers");
	policy_set_part_string(state, "raw_body", part->body, part->body_len);
	set_kind(state, part);
	lua_newtable(state);
	lua_setfield(state, -2, "parts");
}

void policy_check_part(lua_State *state, int index)
{
	luaL_checktype(state, index, LUA_TTABLE);
	luaL_getmetatable(state, CLASS);
	luaL_argcheck(state,
		      lua_getmetatable(state, index) != 0 && lua_rawequal(state, -1, -2) != 0,
		      index, "a part of a message expected");
	lua_pop(state, 2);
}

/* A field that is a text; it stays with the part. */
static const char *text_of(lua_State *state, int index, const char *name, size_t *len)
{
	const char *text;

	lua_getfield(state, index, name);
	/* The text that a number becomes would be nobody's. */
	text = lua_type(state, -1) == LUA_TSTRING ? lua_tolstring(state, -1, len) : NULL;
	if (text == NULL) {
		luaL_error(state, "this part has no \"%s\" any more", name);
	}
	lua_pop(state, 1);
	return text;
}

struct mime_part policy_part_at(lua_State *state, int index)
{
	struct mime_part part = {0};
	const char *transfer;
	const char *type;
	size_t len;

	policy_check_part(state, index);
	part.header = text_of(state, index, "headers", &part.header_len);
	part.body = text_of(state, index, "raw_body", &part.body_len);
	type = text_of(state, index, "type", &len);
	snprintf(part.type, sizeof(part.type), "%s", type);
	transfer = text_of(state, index, "transfer", &len);
	while (part.encoding < MIME_QUOTED_PRINTABLE &&
	       strcmp(transfer, encodings[part.encoding]) != 0) {
		part.encoding++;
	}
	return part;
}

void policy_describe_part(lua_State *state)
{
	struct mime_part part = policy_part_at(state, lua_gettop(state));

	mime_describe(&part);
	set_kind(state, &part);
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
		lua_pushvalue(state, w->base + depth);
		lua_setfield(state, -2, "parent");
	}
	return true;
}

bool policy_push_parts(lua_State *state, const char *text, size_t len)
{
	struct walk w = {.state = state, .base = lua_gettop(state)};
	bool all = mime_walk(text, len, visit, &w);

	lua_settop(state, w.base + 1);
	return all;
}

void policy_push_all_parts(lua_State *state, const char *text, size_t len)
{
	if (!policy_push_parts(state, text, len)) {
		luaL_error(state, "more than %d parts: they cannot be changed", MIME_PARTS_MAX);
	}
}

/* mime([readonly]): the message as a part, with its parts in it: a copy, or with false one whose
 * changes are the message's. */
static int mime(lua_State *state)
{
	bool writable = lua_isboolean(state, 2) && lua_toboolean(state, 2) == 0;
	struct policy_mail *m =
		writable ? policy_check_writable(state) : policy_check_mail(state, 1);
	const char *text;
	size_t len;

	policy_push_raw(state, m);
	text = lua_tolstring(state, -1, &len);
	if (!writable) {
		policy_push_parts(state, text, len);
		return 1;
	}
	policy_push_all_parts(state, text, len);
	lua_pushboolean(state, 1);
	lua_setfield(state, -2, "writable");
	lua_pushvalue(state, 1);
	lua_setfield(state, -2, "message");
	lua_pushnumber(state, m->changes);
	lua_setfield(state, -2, "changes");
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

int policy_part_text(lua_State *state)
{
	struct mime_part part = policy_part_at(state, 1);

	if (part.body_len == 0) {
		return 0;
	}
	if (strncmp(part.type, "text/", 5) == 0) {
		policy_push_text(state, &part);
	} else {
		policy_push_decoded(state, &part);
	}
	return 1;
}

static int part_encoding(lua_State *state)
{
	return get(state, "transfer");
}

static int part_children(lua_State *state)
{
	return get(state, "parts");
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
		{"body", part_body},
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
