/*
 * Values of Lua as bytes: what comes out in another state is what went in; what cannot be packed is
 * named.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/policy/pack.h"
#include "core/policy/parts.h"

static const struct policy_limits limits = {.memory_bytes = 16 << 20, .instructions = 1000000};

struct world {
	struct policy *from;
	struct policy *to;
	struct policy_text bytes;
};

static struct world world;
static bool functions;
static size_t max;

static int setup(void **state)
{
	(void)state;
	world.from = policy_create_blocking(&limits);
	world.to = policy_create_blocking(&limits);
	assert_non_null(world.from);
	assert_non_null(world.to);
	functions = true;
	max = 1 << 20;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	policy_text_close(&world.bytes);
	policy_destroy_blocking(world.from);
	policy_destroy_blocking(world.to);
	return 0;
}

static int pack(lua_State *state)
{
	int count;

	lua_settop(state, 0);
	if (luaL_loadstring(state, lua_touserdata(state, lua_upvalueindex(1))) != 0) {
		lua_error(state);
	}
	lua_call(state, 0, LUA_MULTRET);
	count = lua_gettop(state);
	policy_pack(state, 1, count, functions, "it", &world.bytes, max);
	assert_int_equal(lua_gettop(state), count);
	return 0;
}

static int unpack(lua_State *state)
{
	int count = policy_unpack(state, &world.bytes);

	assert_int_equal(lua_gettop(state), count);
	return count;
}

/* What the code returns in one state, in the other; "" or why not. */
static const char *carry(const char *code)
{
	lua_State *from = world.from->lua;

	world.bytes.len = 0;
	lua_settop(world.to->lua, 0);
	lua_settop(from, 0);
	lua_pushlightuserdata(from, (void *)(uintptr_t)code);
	lua_pushcclosure(from, pack, 1);
	if (lua_pcall(from, 0, 0, 0) != 0) {
		return lua_tostring(from, -1);
	}
	lua_pushcfunction(world.to->lua, unpack);
	assert_int_equal(lua_pcall(world.to->lua, 0, LUA_MULTRET, 0), 0);
	return "";
}

/* Whether the code, whose "..." are the values that came, is true there. */
static void check(const char *code)
{
	lua_State *to = world.to->lua;

	assert_int_equal(luaL_loadstring(to, code), 0);
	lua_insert(to, 1);
	if (lua_pcall(to, lua_gettop(to) - 1, 1, 0) != 0) {
		fail_msg("%s: %s", code, lua_tostring(to, -1));
	}
	if (lua_toboolean(to, -1) == 0) {
		fail_msg("not so: %s", code);
	}
}

static void test_values_when_data(void **state)
{
	(void)state;
	assert_string_equal(carry("return nil, true, false, 1.5, -0.0, 'a\\0b', '', 1e308"), "");
	check("local a = { n = select('#', ...), ... } return a.n == 8 and a[1] == nil and a[2] == "
	      "true and a[3] == false and a[4] == 1.5 and 1 / a[5] < 0 and a[6] == 'a\\0b' and "
	      "a[7] == '' and a[8] == 1e308");
	assert_string_equal(carry(""), "");
	check("return select('#', ...) == 0");
	assert_string_equal(carry("return { 1, { x = { 'y' } }, [true] = 2, [2.5] = 3 }"), "");
	check("local t = ... return t[1] == 1 and t[2].x[1] == 'y' and t[true] == 2 and t[2.5] == 3");
}

static void test_values_when_the_same_again(void **state)
{
	(void)state;
	assert_string_equal(carry("local t, u = {}, {} t.t, t.u, u.t = t, u, t return t, u, t"),
			    "");
	check("local t, u, again = ... return t == again and t.t == t and t.u == u and u.t == t and "
	      "t ~= u");
	assert_string_equal(carry("local k = {} return { [k] = k }"), "");
	check("local t = ... local k, v = next(t) return k == v");
}

static void test_functions_when_they_took_something_along(void **state)
{
	(void)state;
	assert_string_equal(carry("local n, t = 2, { 3 } local function g(x) return x + n end "
				  "return function(x) return g(x) * t[1], msys.pcre end"),
			    "");
	check("local f = ... local n, p = f(5) return n == 21 and p == msys.pcre");
	assert_string_equal(carry("local f f = function(n) return n == 0 and 1 or n * f(n - 1) end "
				  "return f"),
			    "");
	check("return (...)(5) == 120");
}

static void test_libraries_when_by_name(void **state)
{
	(void)state;
	functions = false;
	assert_string_equal(carry("return print, string, msys.pcre.match, _G, { json }, xpcall"),
			    "");
	check("local p, s, m, g, t, x = ... return p == print and s == string and m == "
	      "msys.pcre.match and g == _G and t[1] == json and x == xpcall");
}

static void test_refuse_when_it_cannot_be_packed(void **state)
{
	(void)state;
	assert_non_null(strstr(carry("local co = coroutine.create(print) return { co }"),
			       "it is a thread"));
	assert_non_null(strstr(carry("local msg = coroutine.create(print) "
				     "return function() return msg end"),
			       "msg is a thread"));
	assert_non_null(strstr(carry("local iter = ('x'):gmatch('x') return iter"),
			       "it is a function in C"));
	assert_non_null(strstr(carry("local t = {} for i = 1, 40 do t = { t } end return t"),
			       "too many of them"));
	functions = false;
	assert_non_null(strstr(carry("return function() end"), "cannot be returned"));
	functions = true;
	max = 1000;
	assert_non_null(strstr(carry("return ('x'):rep(2000)"), "too much"));
	assert_non_null(strstr(carry("local s = ('x'):rep(600) return s, s"), "too much"));
	assert_string_equal(carry("return ('x'):rep(600)"), "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_values_when_data, setup, teardown),
		cmocka_unit_test_setup_teardown(test_values_when_the_same_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_functions_when_they_took_something_along,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_libraries_when_by_name, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refuse_when_it_cannot_be_packed, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
