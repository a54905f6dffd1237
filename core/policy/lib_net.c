/*
 * msys.cidr: sets of networks with values, asked by address. The longest prefix wins.
 */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "core/policy/parts.h"

/* "192.0.2.0/24" or an address alone, as v4-mapped IPv6. */
static bool parse(const char *text, struct in6_addr *address, unsigned *prefix)
{
	char copy[INET6_ADDRSTRLEN + 4];
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
	if (inet_pton(AF_INET, copy, &v4) == 1) {
		memset(address, 0, sizeof(*address));
		address->s6_addr[10] = 0xff;
		address->s6_addr[11] = 0xff;
		memcpy(&address->s6_addr[12], &v4, sizeof(v4));
		width = 32;
	} else if (inet_pton(AF_INET6, copy, address) != 1) {
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

static bool covers(const struct in6_addr *network, unsigned prefix, const struct in6_addr *a)
{
	unsigned whole = prefix / 8;
	unsigned rest = prefix % 8;
	unsigned char mask = (unsigned char)(0xff00 >> rest);

	return memcmp(network, a, whole) == 0 &&
	       (rest == 0 || ((network->s6_addr[whole] ^ a->s6_addr[whole]) & mask) == 0);
}

static void check_network(lua_State *state, const char *text)
{
	struct in6_addr address;
	unsigned prefix;

	if (!parse(text, &address, &prefix)) {
		luaL_error(state, "\"%s\" is not a network such as \"192.0.2.0/24\"", text);
	}
}

/* define(name, { "10.0.0.0/8", ["192.0.2.0/24"] = value }). */
static int define(lua_State *state)
{
	luaL_checkstring(state, 1);
	luaL_checktype(state, 2, LUA_TTABLE);
	lua_settop(state, 2);
	lua_newtable(state);
	lua_pushnil(state);
	while (lua_next(state, 2) != 0) {
		bool listed = lua_type(state, -2) == LUA_TNUMBER;

		if (lua_type(state, listed ? -1 : -2) != LUA_TSTRING) {
			return luaL_error(state, "cidr.define: networks are strings");
		}
		check_network(state, lua_tostring(state, listed ? -1 : -2));
		if (listed) {
			/* Its value is itself. */
			lua_pushvalue(state, -1);
			lua_rawset(state, 3);
		} else {
			lua_pushvalue(state, -2);
			lua_insert(state, -2);
			lua_rawset(state, 3);
		}
	}
	lua_rawgeti(state, LUA_REGISTRYINDEX, policy_of(state)->networks);
	lua_pushvalue(state, 1);
	lua_pushvalue(state, 3);
	lua_rawset(state, -3);
	return 0;
}

/* query(name, address): the value of the longest network that has it; nil. */
static int query(lua_State *state)
{
	const char *text = luaL_checkstring(state, 2);
	struct in6_addr address;
	unsigned prefix;
	int best = -1;

	luaL_checkstring(state, 1);
	luaL_argcheck(state, parse(text, &address, &prefix), 2, "an address expected");
	lua_settop(state, 2);
	lua_rawgeti(state, LUA_REGISTRYINDEX, policy_of(state)->networks);
	lua_pushvalue(state, 1);
	lua_rawget(state, 3);
	if (lua_istable(state, 4) == 0) {
		return luaL_error(state, "cidr.query: nothing is defined as \"%s\"",
				  lua_tostring(state, 1));
	}
	lua_pushnil(state);
	lua_pushnil(state);
	while (lua_next(state, 4) != 0) {
		struct in6_addr network;

		if (parse(lua_tostring(state, -2), &network, &prefix) && (int)prefix > best &&
		    covers(&network, prefix, &address)) {
			best = (int)prefix;
			lua_pushvalue(state, -1);
			lua_replace(state, 5);
		}
		lua_pop(state, 1);
	}
	lua_settop(state, 5);
	return 1;
}

void policy_open_net(lua_State *state)
{
	static const luaL_Reg cidr[] = {{"define", define}, {"query", query}, {NULL, NULL}};

	lua_newtable(state);
	luaL_register(state, NULL, cidr);
	lua_setfield(state, 1, "cidr");
}
