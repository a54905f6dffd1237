#include "core/policy/pack.h"

#include <string.h>

#include "core/policy/parts.h"

/* Tables in tables. */
#define DEPTH_MAX 32
/* Libraries in libraries. */
#define LIBRARY_DEPTH_MAX 4
#define PATH_MAX_BYTES 128
/* Of the registry: each thing's name, and each name's thing. */
#define NAMES "flywheel.names"
#define THINGS "flywheel.things"

enum tag {
	TAG_NIL = 'n',
	TAG_TRUE = 't',
	TAG_FALSE = 'f',
	TAG_NUMBER = 'd',
	TAG_STRING = 's',
	/* What a library has: its name. */
	TAG_LIBRARY = 'l',
	/* A table or function that came before: its number, in the order of their beginnings. */
	TAG_AGAIN = 'a',
	/* Keys and values, and an end. */
	TAG_TABLE = 'T',
	TAG_END = 'e',
	/* Bytecode, how many values were taken along, and these. */
	TAG_FUNCTION = 'F',
};

SINGLE
struct packing {
	lua_State *state;
	struct policy_text *to;
	size_t max;
	/* A table: the numbers of tables and functions that came before. */
	int seen;
	uint32_t seen_count;
	bool functions;
	const char *what;
};

SINGLE
struct unpacking {
	lua_State *state;
	const char *at;
	const char *end;
	/* An array: tables and functions, in the order of their beginnings. */
	int seen;
	int seen_count;
};

/* ---- what libraries have ---- */

/* Notes what the table on top has, and goes on into tables; `path` is what leads there. A thing has
 * one of its names, and each name its thing, as tables come in any order. */
static void name_things(lua_State *state, int names, int things, const char *path, unsigned depth)
{
	int table = lua_gettop(state);

	luaL_checkstack(state, 8, "libraries");
	lua_pushnil(state);
	while (lua_next(state, table) != 0) {
		int type = lua_type(state, -1);
		char name[PATH_MAX_BYTES];

		if (lua_type(state, -2) == LUA_TSTRING &&
		    (type == LUA_TTABLE || type == LUA_TFUNCTION)) {
			snprintf(name, sizeof(name), "%s.%s", path, lua_tostring(state, -2));
			lua_pushvalue(state, -1);
			lua_pushstring(state, name);
			lua_rawset(state, names);
			lua_pushvalue(state, -1);
			lua_setfield(state, things, name);
			if (type == LUA_TTABLE && depth < LIBRARY_DEPTH_MAX &&
			    lua_rawequal(state, -1, LUA_GLOBALSINDEX) == 0) {
				name_things(state, names, things, name, depth + 1);
			}
		}
		lua_settop(state, table + 1);
	}
}

void policy_pack_open(lua_State *state)
{
	int top = lua_gettop(state);

	lua_newtable(state);
	lua_newtable(state);
	lua_pushvalue(state, LUA_GLOBALSINDEX);
	name_things(state, top + 1, top + 2, "", 0);
	lua_settop(state, top + 2);
	lua_setfield(state, LUA_REGISTRYINDEX, THINGS);
	lua_setfield(state, LUA_REGISTRYINDEX, NAMES);
}

/* ---- packing ---- */

static void put(struct packing *k, const void *data, size_t len)
{
	struct policy *p = policy_of(k->state);

	if (len > k->max || k->to->len > k->max - len) {
		luaL_error(k->state, "%s: too much to take along", k->what);
	}
	policy_charge(p, 1 + len / POLICY_BYTES_PER_INSTRUCTION);
	policy_check_budget(k->state);
	policy_text_append(k->to, data, len);
}

static void put_tag(struct packing *k, enum tag tag)
{
	char c = (char)tag;

	put(k, &c, 1);
}

static void put_text(struct packing *k, enum tag tag, const char *text, size_t len)
{
	put_tag(k, tag);
	put(k, &len, sizeof(len));
	put(k, text, len);
}

static int add_code(lua_State *state, const void *data, size_t len, void *context)
{
	(void)state;
	policy_text_append(context, data, len);
	return 0;
}

static void pack_value(struct packing *k, int index, unsigned depth);

static void pack_function(struct packing *k, int index, unsigned depth)
{
	lua_State *state = k->state;
	unsigned char count = 0;
	const char *name;
	size_t len = 0;
	size_t at;

	if (!k->functions) {
		luaL_error(state, "a function cannot be returned from there");
	}
	if (lua_iscfunction(state, index) != 0) {
		luaL_error(state, "%s is a function in C, which cannot be taken there", k->what);
	}
	put_text(k, TAG_FUNCTION, "", 0);
	at = k->to->len;
	lua_pushvalue(state, index);
	if (lua_dump(state, add_code, k->to) != 0) {
		luaL_error(state, "%s cannot be taken there", k->what);
	}
	lua_pop(state, 1);
	len = k->to->len - at;
	memcpy(k->to->data + at - sizeof(len), &len, sizeof(len));
	while (lua_getupvalue(state, index, count + 1) != NULL) {
		lua_pop(state, 1);
		count++;
	}
	put(k, &count, 1);
	for (int i = 1; i <= count; i++) {
		name = lua_getupvalue(state, index, i);
		k->what = name;
		pack_value(k, lua_gettop(state), depth + 1);
		lua_pop(state, 1);
	}
}

static void pack_table(struct packing *k, int index, unsigned depth)
{
	put_tag(k, TAG_TABLE);
	lua_pushnil(k->state);
	while (lua_next(k->state, index) != 0) {
		int value = lua_gettop(k->state);

		pack_value(k, value - 1, depth + 1);
		pack_value(k, value, depth + 1);
		lua_pop(k->state, 1);
	}
	put_tag(k, TAG_END);
}

/* What need not be packed again; notes it if it must be. */
static bool pack_known(struct packing *k, int index)
{
	lua_State *state = k->state;
	const char *name;
	uint32_t number;
	size_t len;

	lua_getfield(state, LUA_REGISTRYINDEX, NAMES);
	lua_pushvalue(state, index);
	lua_rawget(state, -2);
	name = lua_tolstring(state, -1, &len);
	if (name != NULL) {
		put_text(k, TAG_LIBRARY, name, len);
		lua_pop(state, 2);
		return true;
	}
	lua_pop(state, 2);
	lua_pushvalue(state, index);
	lua_rawget(state, k->seen);
	if (lua_isnil(state, -1) == 0) {
		number = (uint32_t)lua_tointeger(state, -1);
		put_tag(k, TAG_AGAIN);
		put(k, &number, sizeof(number));
		lua_pop(state, 1);
		return true;
	}
	lua_pop(state, 1);
	lua_pushvalue(state, index);
	lua_pushinteger(state, (lua_Integer)++k->seen_count);
	lua_rawset(state, k->seen);
	return false;
}

/* What is at `index`, an absolute one. */
static void pack_value(struct packing *k, int index, unsigned depth)
{
	lua_State *state = k->state;
	const char *text;
	double number;
	size_t len;

	if (depth > DEPTH_MAX) {
		luaL_error(state, "%s: tables in tables, too many of them", k->what);
	}
	luaL_checkstack(state, 8, "values");
	switch (lua_type(state, index)) {
	case LUA_TNIL:
		put_tag(k, TAG_NIL);
		break;
	case LUA_TBOOLEAN:
		put_tag(k, lua_toboolean(state, index) != 0 ? TAG_TRUE : TAG_FALSE);
		break;
	case LUA_TNUMBER:
		number = lua_tonumber(state, index);
		put_tag(k, TAG_NUMBER);
		put(k, &number, sizeof(number));
		break;
	case LUA_TSTRING:
		text = lua_tolstring(state, index, &len);
		put_text(k, TAG_STRING, text, len);
		break;
	case LUA_TTABLE:
		if (!pack_known(k, index)) {
			pack_table(k, index, depth);
		}
		break;
	case LUA_TFUNCTION:
		if (!pack_known(k, index)) {
			pack_function(k, index, depth);
		}
		break;
	default:
		luaL_error(state, "%s is a %s, which cannot be taken there: take its text along",
			   k->what, luaL_typename(state, index));
	}
}

void policy_pack(lua_State *state, int first, int count, bool functions, const char *what,
		 struct policy_text *to, size_t max)
{
	struct packing k = {
		.state = state, .to = to, .max = max, .functions = functions, .what = what};

	luaL_checkstack(state, 8, "values");
	lua_newtable(state);
	k.seen = lua_gettop(state);
	for (int i = 0; i < count; i++) {
		k.what = what;
		pack_value(&k, first + i, 0);
	}
	lua_pop(state, 1);
}

/* ---- unpacking ---- */

static const char *take(struct unpacking *u, size_t len)
{
	const char *at = u->at;

	ASSERT(len <= (size_t)(u->end - at));
	u->at += len;
	return at;
}

static const char *take_text(struct unpacking *u, size_t *len)
{
	memcpy(len, take(u, sizeof(*len)), sizeof(*len));
	return take(u, *len);
}

/* What is on top has begun. */
static void note(struct unpacking *u)
{
	lua_pushvalue(u->state, -1);
	lua_rawseti(u->state, u->seen, ++u->seen_count);
}

static void unpack_value(struct unpacking *u);

static void unpack_table(struct unpacking *u)
{
	lua_newtable(u->state);
	note(u);
	while (*u->at != TAG_END) {
		unpack_value(u);
		unpack_value(u);
		lua_rawset(u->state, -3);
	}
	take(u, 1);
}

static void unpack_function(struct unpacking *u)
{
	size_t len;
	const char *code = take_text(u, &len);
	unsigned char count;

	if (luaL_loadbufferx(u->state, code, len, "=pool", "b") != 0) {
		lua_error(u->state);
	}
	note(u);
	count = (unsigned char)*take(u, 1);
	for (int i = 1; i <= count; i++) {
		unpack_value(u);
		lua_setupvalue(u->state, -2, i);
	}
}

static void unpack_again(struct unpacking *u)
{
	uint32_t number;

	memcpy(&number, take(u, sizeof(number)), sizeof(number));
	lua_rawgeti(u->state, u->seen, (int)number);
}

/* Names are those of this program's libraries, so that each state has them; what a script has put
 * in a library's place stays with that script. */
static void unpack_library(struct unpacking *u)
{
	size_t len;
	const char *name = take_text(u, &len);

	lua_getfield(u->state, LUA_REGISTRYINDEX, THINGS);
	lua_pushlstring(u->state, name, len);
	lua_rawget(u->state, -2);
	lua_remove(u->state, -2);
}

static void unpack_value(struct unpacking *u)
{
	lua_State *state = u->state;
	const char *text;
	double number;
	size_t len;

	luaL_checkstack(state, 8, "values");
	switch ((enum tag) * take(u, 1)) {
	case TAG_NIL:
		lua_pushnil(state);
		break;
	case TAG_TRUE:
		lua_pushboolean(state, 1);
		break;
	case TAG_FALSE:
		lua_pushboolean(state, 0);
		break;
	case TAG_NUMBER:
		memcpy(&number, take(u, sizeof(number)), sizeof(number));
		lua_pushnumber(state, number);
		break;
	case TAG_STRING:
		text = take_text(u, &len);
		lua_pushlstring(state, text, len);
		break;
	case TAG_LIBRARY:
		unpack_library(u);
		break;
	case TAG_AGAIN:
		unpack_again(u);
		break;
	case TAG_TABLE:
		unpack_table(u);
		break;
	case TAG_FUNCTION:
		unpack_function(u);
		break;
	case TAG_END:
		fatal("policy: an end of nothing in packed values");
	}
}

int policy_unpack(lua_State *state, const struct policy_text *from)
{
	struct unpacking u = {.state = state, .at = from->data, .end = from->data + from->len};
	int count = 0;

	luaL_checkstack(state, 8, "values");
	lua_newtable(state);
	u.seen = lua_gettop(state);
	while (u.at < u.end) {
		unpack_value(&u);
		count++;
	}
	lua_remove(state, u.seen);
	return count;
}
