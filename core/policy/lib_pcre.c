/*
 * msys.pcre: regular expressions by PCRE2, whose own limits bound what a pattern may cost. Compiled
 * patterns are kept in a table of the state, and freed by its collector.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "core/policy/parts.h"

#define CLASS "flywheel.pcre"
/* Steps of one match. */
#define MATCH_LIMIT 1000000
/* Patterns that are kept. */
#define KEEP_PATTERNS 256

SINGLE
struct pattern {
	pcre2_code *code;
	pcre2_match_data *match;
	pcre2_match_context *context;
};

static int free_pattern(lua_State *state)
{
	struct pattern *p = lua_touserdata(state, 1);

	pcre2_match_data_free(p->match);
	pcre2_match_context_free(p->context);
	pcre2_code_free(p->code);
	*p = (struct pattern){NULL, NULL, NULL};
	return 0;
}

static struct pattern *compile(lua_State *state, const char *text)
{
	struct pattern *p = lua_newuserdata(state, sizeof(*p));
	PCRE2_UCHAR why[128];
	PCRE2_SIZE at;
	int error;

	*p = (struct pattern){NULL, NULL, NULL};
	luaL_getmetatable(state, CLASS);
	lua_setmetatable(state, -2);
	p->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, 0, &error, &at, NULL);
	if (p->code == NULL) {
		pcre2_get_error_message(error, why, sizeof(why));
		luaL_error(state, "pattern \"%s\": %s at offset %d", text, (const char *)why,
			   (int)at);
	}
	p->match = pcre2_match_data_create_from_pattern(p->code, NULL);
	p->context = pcre2_match_context_create(NULL);
	if (p->match == NULL || p->context == NULL) {
		luaL_error(state, "pattern \"%s\": out of memory", text);
	}
	pcre2_set_match_limit(p->context, MATCH_LIMIT);
	return p;
}

/* Compiled before, or now; anchored on the stack. */
static struct pattern *find(lua_State *state, const char *text)
{
	struct pattern *p;

	lua_getfield(state, LUA_REGISTRYINDEX, "flywheel.patterns");
	lua_getfield(state, -1, text);
	p = lua_touserdata(state, -1);
	if (p != NULL) {
		return p;
	}
	lua_pop(state, 1);
	lua_getfield(state, LUA_REGISTRYINDEX, "flywheel.pattern_count");
	if (lua_tointeger(state, -1) >= KEEP_PATTERNS) {
		lua_newtable(state);
		lua_pushvalue(state, -1);
		lua_setfield(state, LUA_REGISTRYINDEX, "flywheel.patterns");
		lua_replace(state, -3);
		lua_pushinteger(state, 0);
		lua_replace(state, -2);
	}
	lua_pushinteger(state, lua_tointeger(state, -1) + 1);
	lua_setfield(state, LUA_REGISTRYINDEX, "flywheel.pattern_count");
	lua_pop(state, 1);
	p = compile(state, text);
	lua_pushvalue(state, -1);
	lua_setfield(state, -3, text);
	return p;
}

/* Groups, 0: no match. */
static int match(lua_State *state, struct pattern *p, const char *subject, size_t len, size_t from)
{
	int rc = pcre2_match(p->code, (PCRE2_SPTR)subject, len, from, 0, p->match, p->context);

	if (rc == PCRE2_ERROR_NOMATCH) {
		return 0;
	}
	if (rc < 0) {
		return luaL_error(state, "pcre: %s",
				  rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_HEAPLIMIT
					  ? "the match takes too long"
					  : "the match failed");
	}
	return rc;
}

/* Groups that have a name, into the table on top. */
static void set_names(lua_State *state, const struct pattern *p, int count)
{
	uint32_t names = 0;
	uint32_t size = 0;
	PCRE2_SPTR table = NULL;

	pcre2_pattern_info(p->code, PCRE2_INFO_NAMECOUNT, &names);
	pcre2_pattern_info(p->code, PCRE2_INFO_NAMEENTRYSIZE, &size);
	pcre2_pattern_info(p->code, PCRE2_INFO_NAMETABLE, &table);
	for (uint32_t i = 0; i < names; i++, table += size) {
		int group = table[0] << 8 | table[1];

		if (group < count) {
			lua_rawgeti(state, -1, group);
			lua_setfield(state, -2, (const char *)table + 2);
		}
	}
}

int policy_pcre_match(lua_State *state, const char *subject, size_t len, const char *pattern)
{
	struct pattern *p = find(state, pattern);
	int count = match(state, p, subject, len, 0);
	const PCRE2_SIZE *at = pcre2_get_ovector_pointer(p->match);

	if (count == 0) {
		lua_pushnil(state);
		return 1;
	}
	lua_newtable(state);
	for (int i = 0; i < count; i++) {
		if (at[2 * i] == PCRE2_UNSET) {
			continue;
		}
		lua_pushlstring(state, subject + at[2 * i], at[2 * i + 1] - at[2 * i]);
		lua_rawseti(state, -2, i);
	}
	set_names(state, p, count);
	return 1;
}

/* The text for one match: \0 to \9 and $0 to $9 are groups. */
static void add_replacement(luaL_Buffer *b, const char *with, const char *subject,
			    const PCRE2_SIZE *at, int count)
{
	for (; *with != '\0'; with++) {
		bool mark = (*with == '\\' || *with == '$') && with[1] >= '0' && with[1] <= '9';

		if (mark) {
			int group = *++with - '0';

			if (group < count && at[2 * group] != PCRE2_UNSET) {
				luaL_addlstring(b, subject + at[2 * group],
						at[2 * group + 1] - at[2 * group]);
			}
		} else {
			luaL_addchar(b, *with);
		}
	}
}

void policy_pcre_replace(lua_State *state, const char *subject, size_t len, const char *pattern,
			 const char *with)
{
	int top = lua_gettop(state);
	struct pattern *p = find(state, pattern);
	size_t from = 0;
	luaL_Buffer b;
	int count;

	luaL_buffinit(state, &b);
	while (from <= len && (count = match(state, p, subject, len, from)) > 0) {
		const PCRE2_SIZE *at = pcre2_get_ovector_pointer(p->match);

		luaL_addlstring(&b, subject + from, at[0] - from);
		add_replacement(&b, with, subject, at, count);
		/* An empty match takes one byte along. */
		if (at[1] == at[0]) {
			if (at[1] < len) {
				luaL_addchar(&b, subject[at[1]]);
			}
			from = at[1] + 1;
		} else {
			from = at[1];
		}
	}
	if (from < len) {
		luaL_addlstring(&b, subject + from, len - from);
	}
	luaL_pushresult(&b);
	/* In the place of what holds the pattern. */
	lua_replace(state, top + 1);
	lua_settop(state, top + 1);
}

static int pcre_match(lua_State *state)
{
	size_t len;
	const char *subject = luaL_checklstring(state, 1, &len);

	return policy_pcre_match(state, subject, len, luaL_checkstring(state, 2));
}

static int pcre_replace(lua_State *state)
{
	size_t len;
	const char *subject = luaL_checklstring(state, 1, &len);

	policy_pcre_replace(state, subject, len, luaL_checkstring(state, 2),
			    luaL_checkstring(state, 3));
	return 1;
}

static int pcre_split(lua_State *state)
{
	size_t len;
	const char *subject = luaL_checklstring(state, 1, &len);
	struct pattern *p = find(state, luaL_checkstring(state, 2));
	size_t from = 0;
	size_t look = 0;
	int count = 0;

	lua_newtable(state);
	while (look <= len && match(state, p, subject, len, look) > 0) {
		const PCRE2_SIZE *at = pcre2_get_ovector_pointer(p->match);

		if (at[1] == at[0]) {
			look = at[1] + 1;
			continue;
		}
		lua_pushlstring(state, subject + from, at[0] - from);
		lua_rawseti(state, -2, ++count);
		from = at[1];
		look = from;
	}
	lua_pushlstring(state, subject + from, len - from);
	lua_rawseti(state, -2, ++count);
	return 1;
}

void policy_open_pcre(lua_State *state)
{
	static const luaL_Reg pcre[] = {
		{"match", pcre_match},
		{"replace", pcre_replace},
		{"split", pcre_split},
		{NULL, NULL},
	};

	luaL_newmetatable(state, CLASS);
	lua_pushcfunction(state, free_pattern);
	lua_setfield(state, -2, "__gc");
	lua_newtable(state);
	lua_setfield(state, LUA_REGISTRYINDEX, "flywheel.patterns");
	lua_newtable(state);
	luaL_register(state, NULL, pcre);
	lua_setfield(state, 1, "pcre");
	lua_settop(state, 1);
}
