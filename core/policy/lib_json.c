/*
 * json, by jansson: json.decode(text), json.encode(value), json.new(). Arrays are tables with 1 to
 * n, null is json.null. What is decoded or new is written as JSON by tostring().
 */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "core/policy/parts.h"

/* Tables in tables. */
#define DEPTH_MAX 64
#define CLASS "flywheel.json"

/* The class of tables that are written as JSON. */
#define OBJECT "json"

/* Codes of errors, in the order that scripts of Momentum know; those above the first four come from
 * other parsers. */
static const struct {
	const char *name;
	const char *text;
} errors[] = {
	{NULL, "no error"},
	{"ERROR_DEPTH", "tables in tables, too many of them"},
	{"ERROR_PARSE_EOF", "the text ends too early"},
	{"ERROR_PARSE_UNEXPECTED", "something unexpected"},
	{"ERROR_PARSE_NULL", "null expected"},
	{"ERROR_PARSE_BOOLEAN", "true or false expected"},
	{"ERROR_PARSE_NUMBER", "a number expected"},
	{"ERROR_PARSE_ARRAY", "a comma between items expected"},
	{"ERROR_PARSE_OBJECT_KEY_NAME", "a name in quotes expected"},
	{"ERROR_PARSE_OBJECT_KEY_SEP", "a colon behind a name expected"},
	{"ERROR_PARSE_OBJECT_VALUE_SEP", "a comma between members expected"},
	{"ERROR_PARSE_STRING", "a text that is none"},
	{"ERROR_PARSE_COMMENT", "a comment expected"},
};

enum { DEPTH = 1, PARSE_EOF, PARSE_UNEXPECTED, PARSE_NUMBER = 6, PARSE_STRING = 11 };

/* What is decoded or encoded, where an error frees it. */
SINGLE
struct document {
	json_t *root;
};

static int free_document(lua_State *state)
{
	struct document *d = lua_touserdata(state, 1);

	json_decref(d->root);
	d->root = NULL;
	return 0;
}

static struct document *push_document(lua_State *state)
{
	struct document *d = lua_newuserdata(state, sizeof(*d));

	d->root = NULL;
	luaL_getmetatable(state, CLASS);
	lua_setmetatable(state, -2);
	return d;
}

static void push_value(lua_State *state, const json_t *v);

static void push_object(lua_State *state, const json_t *v)
{
	const char *key;
	json_t *member;

	lua_newtable(state);
	json_object_foreach((json_t *)(uintptr_t)v, key, member)
	{
		push_value(state, member);
		lua_setfield(state, -2, key);
	}
}

static void push_value(lua_State *state, const json_t *v)
{
	luaL_checkstack(state, 4, "json");
	switch (json_typeof(v)) {
	case JSON_OBJECT:
		push_object(state, v);
		break;
	case JSON_ARRAY:
		lua_newtable(state);
		for (size_t i = 0; i < json_array_size(v); i++) {
			push_value(state, json_array_get(v, i));
			lua_rawseti(state, -2, (int)i + 1);
		}
		break;
	case JSON_STRING:
		lua_pushlstring(state, json_string_value(v), json_string_length(v));
		break;
	case JSON_INTEGER:
	case JSON_REAL:
		lua_pushnumber(state, json_number_value(v));
		break;
	case JSON_TRUE:
	case JSON_FALSE:
		lua_pushboolean(state, json_is_true(v));
		break;
	case JSON_NULL:
		lua_pushlightuserdata(state, NULL);
		break;
	}
}

static int code_of(const json_error_t *error)
{
	switch (json_error_code(error)) {
	case json_error_premature_end_of_input:
		return PARSE_EOF;
	case json_error_stack_overflow:
		return DEPTH;
	case json_error_numeric_overflow:
		return PARSE_NUMBER;
	case json_error_invalid_utf8:
	case json_error_null_character:
		return PARSE_STRING;
	default:
		return PARSE_UNEXPECTED;
	}
}

/* Gives the table on top its class. */
static void set_class(lua_State *state)
{
	luaL_getmetatable(state, OBJECT);
	lua_setmetatable(state, -2);
}

/* nil, the number of the error, and the reason when it is no JSON. */
static int decode(lua_State *state)
{
	size_t len;
	const char *text = luaL_checklstring(state, 1, &len);
	struct document *d = push_document(state);
	json_error_t error;

	d->root = json_loadb(text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
	if (d->root == NULL) {
		lua_pushnil(state);
		lua_pushinteger(state, code_of(&error));
		lua_pushfstring(state, "line %d column %d: %s", error.line, error.column,
				error.text);
		return 3;
	}
	push_value(state, d->root);
	if (lua_istable(state, -1) != 0) {
		set_class(state);
	}
	return 1;
}

static json_t *make_value(lua_State *state, int index, int depth);

/* The new value belongs to `to` at once, so that an error frees it. */
static json_t *fill_array(lua_State *state, int index, json_t *to, int depth)
{
	for (int i = 1; i <= (int)lua_objlen(state, index); i++) {
		json_t *item;

		lua_rawgeti(state, index, i);
		item = make_value(state, lua_gettop(state), depth + 1);
		lua_pop(state, 1);
		if (item == NULL || json_array_append_new(to, item) != 0) {
			json_decref(to);
			return NULL;
		}
	}
	return to;
}

static json_t *fill_object(lua_State *state, int index, json_t *to, int depth)
{
	lua_pushnil(state);
	while (lua_next(state, index) != 0) {
		char number[32];
		const char *key = number;
		json_t *item;

		if (lua_type(state, -2) == LUA_TSTRING) {
			key = lua_tostring(state, -2);
		} else {
			snprintf(number, sizeof(number), "%.14g", lua_tonumber(state, -2));
		}
		item = make_value(state, lua_gettop(state), depth + 1);
		if (item == NULL || json_object_set_new(to, key, item) != 0) {
			json_decref(to);
			return NULL;
		}
		lua_pop(state, 1);
	}
	return to;
}

static json_t *make_number(double n)
{
	if (n == floor(n) && fabs(n) < 9007199254740992.0) {
		return json_integer((json_int_t)n);
	}
	return json_real(n);
}

/* NULL: that cannot be written. */
static json_t *make_value(lua_State *state, int index, int depth)
{
	size_t len;
	const char *text;

	if (depth > DEPTH_MAX || lua_checkstack(state, 8) == 0) {
		return NULL;
	}
	switch (lua_type(state, index)) {
	case LUA_TNIL:
		return json_null();
	case LUA_TLIGHTUSERDATA:
		return lua_touserdata(state, index) == NULL ? json_null() : NULL;
	case LUA_TBOOLEAN:
		return json_boolean(lua_toboolean(state, index));
	case LUA_TNUMBER:
		return make_number(lua_tonumber(state, index));
	case LUA_TSTRING:
		text = lua_tolstring(state, index, &len);
		return json_stringn(text, len);
	case LUA_TTABLE:
		return lua_objlen(state, index) > 0
			       ? fill_array(state, index, json_array(), depth)
			       : fill_object(state, index, json_object(), depth);
	default:
		return NULL;
	}
}

static int encode(lua_State *state)
{
	struct document *d;
	size_t len;
	char *to;

	luaL_checkany(state, 1);
	lua_settop(state, 1);
	d = push_document(state);
	d->root = make_value(state, 1, 0);
	if (d->root == NULL) {
		return luaL_error(state,
				  "json.encode: only UTF-8 text, numbers, booleans and "
				  "tables of those, %d deep at most",
				  DEPTH_MAX);
	}
	len = json_dumpb(d->root, NULL, 0, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS);
	to = lua_newuserdata(state, len + 1);
	json_dumpb(d->root, to, len, JSON_COMPACT | JSON_ENCODE_ANY | JSON_SORT_KEYS);
	lua_pushlstring(state, to, len);
	return 1;
}

static int new (lua_State *state)
{
	lua_newtable(state);
	set_class(state);
	return 1;
}

/* strerror(code) */
static int describe(lua_State *state)
{
	int code = luaL_checkint(state, 1);
	bool known = code >= 0 && code < (int)(sizeof(errors) / sizeof(errors[0]));

	lua_pushstring(state, known ? errors[code].text : "unknown error");
	return 1;
}

void policy_open_json(lua_State *state)
{
	static const luaL_Reg json[] = {{"decode", decode},
					{"encode", encode},
					{"new", new},
					{"strerror", describe},
					{NULL, NULL}};

	luaL_newmetatable(state, CLASS);
	lua_pushcfunction(state, free_document);
	lua_setfield(state, -2, "__gc");
	luaL_newmetatable(state, OBJECT);
	lua_pushcfunction(state, encode);
	lua_setfield(state, -2, "__tostring");
	lua_newtable(state);
	luaL_register(state, NULL, json);
	lua_pushlightuserdata(state, NULL);
	lua_setfield(state, -2, "null");
	for (int i = 1; i < (int)(sizeof(errors) / sizeof(errors[0])); i++) {
		lua_pushinteger(state, i);
		lua_setfield(state, -2, errors[i].name);
	}
	lua_setglobal(state, "json");
	lua_settop(state, 1);
}
