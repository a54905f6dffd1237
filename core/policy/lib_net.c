/*
 * msys.cidr: sets of networks with values, asked by address. The longest prefix wins. They are
 * written in the script, or come from a file of rbldnsd or a database, again and again.
 *
 * A set is a table in the registry: `options`; `nets`, values by address and length in bytes; and
 * `lengths`, those that there are.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "core/policy/parts.h"

bool policy_read_network(const char *text, struct in6_addr *address, unsigned *prefix)
{
	char copy[sizeof("[]/128") + INET6_ADDRSTRLEN];
	char *bare = copy;
	struct in_addr v4;
	unsigned width = 128;
	char *slash;
	char *end;
	unsigned long bits;

	if (strlen(text) >= sizeof(copy)) {
		return false;
	}
	strcpy(copy, text);
	slash = strchr(copy, '/');
	if (slash != NULL) {
		*slash = '\0';
	}
	if (copy[0] == '[' && copy[strlen(copy) - 1] == ']') {
		copy[strlen(copy) - 1] = '\0';
		bare++;
	}
	if (inet_pton(AF_INET, bare, &v4) == 1) {
		memset(address, 0, sizeof(*address));
		address->s6_addr[10] = 0xff;
		address->s6_addr[11] = 0xff;
		memcpy(&address->s6_addr[12], &v4, sizeof(v4));
		width = 32;
	} else if (inet_pton(AF_INET6, bare, address) != 1) {
		return false;
	}
	bits = width;
	if (slash != NULL) {
		bits = strtoul(slash + 1, &end, 10);
		if (slash[1] < '0' || slash[1] > '9' || *end != '\0' || bits > width) {
			return false;
		}
	}
	*prefix = (unsigned)bits + (128 - width);
	return true;
}

/* The bytes of an address that a network of so many bits has, and the bits. */
static void push_key(lua_State *state, const struct in6_addr *address, unsigned prefix)
{
	char key[sizeof(*address) + 1] = {0};
	unsigned whole = prefix / 8;

	memcpy(key, address, whole);
	if (prefix % 8 != 0) {
		key[whole] = (char)(address->s6_addr[whole] & 0xff00 >> prefix % 8);
	}
	key[sizeof(*address)] = (char)prefix;
	lua_pushlstring(state, key, sizeof(key));
}

/* Pushes the set that argument 1 names, or nil. */
static void push_set(lua_State *state)
{
	luaL_checkstring(state, 1);
	lua_rawgeti(state, LUA_REGISTRYINDEX, policy_of(state)->networks);
	lua_pushvalue(state, 1);
	lua_rawget(state, -2);
	lua_remove(state, -2);
}

static void check_set(lua_State *state, const char *function)
{
	push_set(state);
	if (lua_istable(state, -1) == 0) {
		luaL_error(state, "cidr.%s: nothing is defined as \"%s\"", function,
			   lua_tostring(state, 1));
	}
}

/* make(name, options): an empty one. */
static int make(lua_State *state)
{
	luaL_checkstring(state, 1);
	luaL_checktype(state, 2, LUA_TTABLE);
	lua_settop(state, 2);
	lua_rawgeti(state, LUA_REGISTRYINDEX, policy_of(state)->networks);
	lua_pushvalue(state, 1);
	lua_newtable(state);
	lua_pushvalue(state, 2);
	lua_setfield(state, -2, "options");
	lua_newtable(state);
	lua_setfield(state, -2, "nets");
	lua_newtable(state);
	lua_setfield(state, -2, "lengths");
	lua_rawset(state, 3);
	return 0;
}

/* One network and its value, which are on top and taken off, into `nets` and `lengths`. */
static void add(lua_State *state, int nets)
{
	struct in6_addr address;
	unsigned prefix;

	if (lua_type(state, -2) != LUA_TSTRING) {
		luaL_error(state, "cidr.define: networks are strings");
	}
	if (!policy_read_network(lua_tostring(state, -2), &address, &prefix)) {
		luaL_error(state, "\"%s\" is not a network such as \"192.0.2.0/24\"",
			   lua_tostring(state, -2));
	}
	push_key(state, &address, prefix);
	lua_insert(state, -2);
	lua_rawset(state, nets);
	lua_pushboolean(state, 1);
	lua_rawseti(state, nets + 1, (int)prefix);
	lua_pop(state, 1);
}

/* fill(name, { "10.0.0.0/8", ["192.0.2.0/24"] = value }): all that it has from now on. The value of
 * a network in the list is itself; false: nothing, though one around it has a value. */
static int fill(lua_State *state)
{
	luaL_checktype(state, 2, LUA_TTABLE);
	lua_settop(state, 2);
	check_set(state, "define");
	lua_newtable(state);
	lua_newtable(state);
	lua_pushnil(state);
	while (lua_next(state, 2) != 0) {
		bool listed = lua_type(state, -2) == LUA_TNUMBER;

		lua_pushvalue(state, listed ? -1 : -2);
		lua_insert(state, -2);
		add(state, 4);
	}
	lua_setfield(state, 3, "lengths");
	lua_setfield(state, 3, "nets");
	return 0;
}

/* What is found in the set at index 3: false, or a value on top. */
static bool find(lua_State *state, const struct in6_addr *address)
{
	lua_getfield(state, 3, "nets");
	lua_getfield(state, 3, "lengths");
	for (int prefix = 128; prefix >= 0; prefix--) {
		lua_rawgeti(state, 5, prefix);
		if (!lua_isnil(state, -1)) {
			push_key(state, address, (unsigned)prefix);
			lua_rawget(state, 4);
			if (!lua_isnil(state, -1)) {
				return lua_toboolean(state, -1) != 0;
			}
		}
		lua_settop(state, 5);
	}
	return false;
}

/* query(name[, address]): the value of the longest network that has it, or the default; without an
 * address, the client's. */
static int query(lua_State *state)
{
	struct policy *p = policy_of(state);
	struct policy_subject *s = p->running != NULL ? p->running->subject : NULL;
	struct in6_addr address;
	unsigned prefix;
	bool interpolate;
	bool found;

	lua_settop(state, 2);
	if (lua_isnil(state, 2)) {
		lua_pop(state, 1);
		if (s == NULL || !policy_push_context(state, s, POLICY_CONN, "#peer")) {
			return luaL_error(state, "cidr.query: there is no session here");
		}
	}
	luaL_argcheck(state, policy_read_network(luaL_checkstring(state, 2), &address, &prefix), 2,
		      "an address expected");
	check_set(state, "query");
	found = find(state, &address);
	lua_getfield(state, 3, "options");
	lua_getfield(state, -1, found ? "interpolate" : "default_value");
	if (!found) {
		return 1;
	}
	interpolate = lua_toboolean(state, -1) != 0;
	lua_pop(state, 2);
	if (interpolate && lua_type(state, -1) == LUA_TSTRING) {
		luaL_gsub(state, lua_tostring(state, -1), "$", lua_tostring(state, 2));
	}
	return 1;
}

/* ---- files of rbldnsd ---- */

#define LINE_BYTES 512

/* What entries have that say nothing of their own. */
SINGLE
struct values {
	char a[INET_ADDRSTRLEN];
	char txt[LINE_BYTES];
};

/* ":A:TEXT", or a text; what it does not say stays. */
static void read_values(const char *rest, struct values *v)
{
	size_t len;

	if (*rest == ':') {
		len = strcspn(++rest, ":");
		if (len > 0 && len < sizeof(v->a)) {
			bool last = strspn(rest, "0123456789") == len;

			snprintf(v->a, sizeof(v->a), "%s%.*s", last ? "127.0.0." : "", (int)len,
				 rest);
		}
		rest += len + (rest[len] == ':');
	}
	if (*rest != '\0' && *rest != '#' && *rest != ';') {
		snprintf(v->txt, sizeof(v->txt), "%s", rest);
	}
}

/* "10.79" is 10.79.0.0/16; how many parts there are. */
static bool read_ipv4(const char *text, uint32_t *address, unsigned *bits)
{
	char *end;

	*address = 0;
	for (*bits = 8; *bits <= 32; *bits += 8, text = end + 1) {
		unsigned long part = strtoul(text, &end, 10);

		if (*text < '0' || *text > '9' || part > 255) {
			return false;
		}
		*address |= (uint32_t)part << (32 - *bits);
		if (*end == '\0') {
			return true;
		}
		if (*end != '.') {
			return false;
		}
	}
	return false;
}

/* One network of the table on top, whose value is on top of that. */
static void put_ipv4(lua_State *state, uint32_t address, unsigned bits)
{
	char text[INET_ADDRSTRLEN + 4];

	snprintf(text, sizeof(text), "%u.%u.%u.%u/%u", address >> 24, address >> 16 & 255,
		 address >> 8 & 255, address & 255, bits);
	lua_pushvalue(state, -1);
	lua_setfield(state, -3, text);
}

/* The networks that an entry is, with the value on top; false: it is none. */
static bool put_entry(lua_State *state, char *entry)
{
	char *dash = strchr(entry, '-');
	struct in6_addr address;
	uint32_t first;
	uint32_t last;
	unsigned bits;
	unsigned more;

	if (dash != NULL) {
		*dash = '\0';
	} else if (policy_read_network(entry, &address, &bits)) {
		lua_pushvalue(state, -1);
		lua_setfield(state, -3, entry);
		return true;
	}
	if (!read_ipv4(entry, &first, &bits)) {
		return false;
	}
	if (dash == NULL) {
		put_ipv4(state, first, bits);
		return true;
	}
	if (bits != 32 || !read_ipv4(dash + 1, &last, &more) || (more != 32 && more != 8)) {
		return false;
	}
	/* "192.0.2.1-9" is short for one that ends in its last part. */
	last = more == 8 ? (first & ~UINT32_C(255)) | last >> 24 : last;
	for (uint64_t at = first; at <= last;) {
		for (bits = 32; bits > 0 && (at & UINT64_C(1) << (32 - bits)) == 0 &&
				at + (UINT64_C(2) << (32 - bits)) - 1 <= last;
		     bits--) {
		}
		put_ipv4(state, (uint32_t)at, bits);
		at += UINT64_C(1) << (32 - bits);
	}
	return true;
}

/* One line, which is written to, into the table on top; false: it is nothing that is known. */
static bool read_line(lua_State *state, char *line, bool text, struct values *defaults)
{
	struct values own = *defaults;
	bool excluded;
	size_t len;
	bool good;

	line += strspn(line, " \t");
	if (*line == '\0' || *line == '#' || *line == '$' || *line == ';') {
		return true;
	}
	if (*line == ':') {
		read_values(line, defaults);
		return true;
	}
	excluded = *line == '!';
	line += excluded;
	len = strcspn(line, " \t");
	/* A colon ends an address of IPv4; one of IPv6 has some, and a space before that. */
	if (strcspn(line, ".") < strcspn(line, ":")) {
		len = strcspn(line, " \t:");
	}
	read_values(line + len + strspn(line + len, " \t"), &own);
	line[len] = '\0';
	if (excluded) {
		lua_pushboolean(state, 0);
	} else {
		lua_pushstring(state, text ? own.txt : own.a);
	}
	good = put_entry(state, line);
	lua_pop(state, 1);
	return good;
}

/* rbldnsd(text, "a" | "txt"): a table as fill() takes it, and how many lines are not understood. */
static int rbldnsd(lua_State *state)
{
	static const char *const kinds[] = {"a", "txt", NULL};
	struct values defaults = {.a = "127.0.0.2"};
	const char *at = luaL_checkstring(state, 1);
	bool text = luaL_checkoption(state, 2, "a", kinds) == 1;
	int strange = 0;

	lua_newtable(state);
	while (*at != '\0') {
		size_t len = strcspn(at, "\r\n");
		char line[LINE_BYTES];

		snprintf(line, sizeof(line), "%.*s", (int)(len < LINE_BYTES ? len : LINE_BYTES),
			 at);
		strange += !read_line(state, line, text, &defaults);
		at += len + (at[len] != '\0');
	}
	lua_pushinteger(state, strange);
	return 2;
}

/* In Lua, so that what has to wait for a file or a database may do so. A set that is defined while
 * scripts are loaded has a file's networks at once, a database's soon after; what is there stays
 * until the next can be had. */
static const char wrapper[] =
	"local msys, make, fill, rbldnsd, type, next, error, print = ...\n"
	"local sets, kinds, timers = {}, {}, {}\n"
	"function kinds.empty() return {} end\n"
	"function kinds.rbldnsd(name, o)\n"
	"  local text, why = msys.readfile(o.source)\n"
	"  if not text then error('cidr ' .. name .. ': ' .. why, 0) end\n"
	"  local nets, strange = rbldnsd(text, o.value)\n"
	"  if strange > 0 then print('cidr ' .. name .. ': ' .. strange .. ' lines are no networks') end\n"
	"  return nets\n"
	"end\n"
	"function kinds.datasource(name, o)\n"
	"  local nets = {}\n"
	"  for row in msys.db.query(o.cachename, o.query) do\n"
	"    local only = next(row)\n"
	"    local key = row[o.cidr_column or row[1] and 1 or only]\n"
	"    if o.cidr_column == nil and not row[1] and next(row, only) ~= nil then\n"
	"      error('cidr ' .. name .. ': cidr_column says which column has networks', 0)\n"
	"    end\n"
	"    local value = true\n"
	"    if o.value_column then value = row[o.value_column] end\n"
	"    nets[key] = value\n"
	"  end\n"
	"  return nets\n"
	"end\n"
	"local function reload(name)\n"
	"  local o = sets[name]\n"
	"  if o and o.type ~= 'empty' then fill(name, kinds[o.type](name, o)) end\n"
	"end\n"
	"local function define(name, o)\n"
	"  if type(o) ~= 'table' then o = { type = o } end\n"
	"  if timers[name] then timers[name]:stop() end\n"
	"  sets[name], timers[name] = o.type and o or nil, nil\n"
	"  make(name, o)\n"
	"  if not o.type then return fill(name, o) end\n"
	"  if not kinds[o.type] then\n"
	"    error(\"cidr.define: the type is 'datasource', 'rbldnsd' or 'empty'\", 2)\n"
	"  end\n"
	"  if o.type == 'empty' then return end\n"
	"  local function again() if sets[name] == o then reload(name) end end\n"
	"  if o.type == 'rbldnsd' or msys.asyncOk() then reload(name)\n"
	"  else msys.timer.after(0, again, 'cidr ' .. name) end\n"
	"  local refresh = o.refresh or 1800\n"
	"  if refresh > 0 then timers[name] = msys.timer.every(refresh, again, 'cidr ' .. name) end\n"
	"end\n"
	"return define, reload";

void policy_open_net(lua_State *state)
{
	static const char *const needs[] = {"type", "next", "error", "print"};

	lua_newtable(state);
	luaL_loadbuffer(state, wrapper, sizeof(wrapper) - 1, "=msys.cidr");
	lua_pushvalue(state, 1);
	lua_pushcfunction(state, make);
	lua_pushcfunction(state, fill);
	lua_pushcfunction(state, rbldnsd);
	for (size_t i = 0; i < sizeof(needs) / sizeof(needs[0]); i++) {
		lua_getglobal(state, needs[i]);
	}
	lua_call(state, 8, 2);
	lua_setfield(state, 2, "reload");
	lua_setfield(state, 2, "define");
	lua_pushcfunction(state, query);
	lua_setfield(state, 2, "query");
	lua_setfield(state, 1, "cidr");
}
