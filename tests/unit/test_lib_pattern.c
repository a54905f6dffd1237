/*
 * Patterns, beside those of Lua's own: many that are generated, over texts of few letters, so that
 * they match often. And what they may cost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/policy/parts.h"

#define ROUNDS 60000
#define PATTERN_MAX 64
#define TEXT_MAX 24
#define SEED 4711

static uint64_t random_state;

static unsigned draw(unsigned below)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)((random_state >> 33) % below);
}

static void add(char *to, const char *text)
{
	strncat(to, text, PATTERN_MAX - strlen(to) - 1);
}

/* What stands for one character, and may be repeated. */
static void add_single(char *to)
{
	static const char *const singles[] = {"a",    "b",      "(",     ".",     "%a",   "%d",
					      "%A",   "%s",     "%w",    "%%",    "%(",   "%z",
					      "[ab]", "[^a]",   "[%d_]", "[a-c]", "[]a]", "[^]a]",
					      "[a-]", "[%a-z]", "[^%s]"};

	add(to, singles[draw(sizeof(singles) / sizeof(singles[0]))]);
}

static void make_pattern(char to[PATTERN_MAX])
{
	static const char *const repeats[] = {"", "", "", "*", "+", "-", "?"};
	static const char *const others[] = {"(",    ")",    "()",     "%1",     "%2",
					     "%b()", "%bab", "%f[%a]", "%f[^a]", "$",
					     "^",    "%",    "[",      "%b",     "%f"};
	unsigned items = 1 + draw(6);
	unsigned open = 0;

	to[0] = '\0';
	if (draw(5) == 0) {
		add(to, "^");
	}
	while (items-- > 0) {
		/* Captures, mostly whole ones; seldom what is no pattern. */
		if (draw(6) == 0) {
			add(to, "(");
			open++;
		}
		if (draw(12) == 0) {
			add(to, others[draw(sizeof(others) / sizeof(others[0]))]);
		}
		add_single(to);
		add(to, repeats[draw(sizeof(repeats) / sizeof(repeats[0]))]);
		if (open > 0 && draw(2) == 0) {
			add(to, ")");
			open--;
		}
	}
	while (open > 0 && draw(20) != 0) {
		add(to, ")");
		open--;
	}
	if (draw(6) == 0) {
		add(to, "$");
	}
}

static size_t make_text(char to[TEXT_MAX])
{
	static const char letters[] = {'a', 'b', 'a', 'b', 'c', '(', ')', '1', ' ', '_', '\0', '%'};
	size_t len = draw(TEXT_MAX);

	for (size_t i = 0; i < len; i++) {
		to[i] = letters[draw(sizeof(letters))];
	}
	return len;
}

/* Calls f(text, pattern, ...) of the code; its results, or that it failed, on the stack. */
static bool call(lua_State *state, const char *code, const char *text, size_t len,
		 const char *pattern)
{
	lua_settop(state, 0);
	assert_int_equal(luaL_loadstring(state, code), 0);
	lua_pushlstring(state, text, len);
	lua_pushstring(state, pattern);
	return lua_pcall(state, 2, LUA_MULTRET, 0) == 0;
}

static void compare(lua_State *ours, lua_State *plain, const char *code, const char *text,
		    size_t len, const char *pattern)
{
	bool good = call(ours, code, text, len, pattern);

	if (call(plain, code, text, len, pattern) != good) {
		fail_msg("'%s' over '%.*s' in %s: %s", pattern, (int)len, text, code,
			 good ? lua_tostring(plain, -1) : lua_tostring(ours, -1));
	}
	if (!good) {
		return;
	}
	assert_int_equal(lua_gettop(ours), lua_gettop(plain));
	for (int i = 1; i <= lua_gettop(ours); i++) {
		size_t our_len = 0;
		size_t plain_len = 0;
		const char *one = lua_tolstring(ours, i, &our_len);
		const char *other = lua_tolstring(plain, i, &plain_len);

		if (lua_type(ours, i) != lua_type(plain, i) || our_len != plain_len ||
		    (our_len > 0 && memcmp(one, other, our_len) != 0)) {
			fail_msg("'%s' over '%.*s' in %s, result %d: '%s', not '%s'", pattern,
				 (int)len, text, code, i, one != NULL ? one : "nil",
				 other != NULL ? other : "nil");
		}
	}
}

static void test_results_when_beside_those_of_lua(void **state)
{
	static const char *const codes[] = {
		"local s, p = ... return s:find(p)",
		"local s, p = ... return s:find(p, -3)",
		"local s, p = ... return s:match(p)",
		"local s, p = ... return s:match(p, 4)",
		"local s, p = ... return s:gsub(p, '<%0>')",
		"local s, p = ... return s:gsub(p, '%1%%', 2)",
		"local s, p = ... return s:gsub(p, { a = 'x', b = false, [1] = 'y' })",
		"local s, p = ... return s:gsub(p, function(a, b) return b and a .. '|' .. b end)",
		"local s, p = ... local t = '' for a, b in s:gmatch(p) do t = a .. (b or t) end return t",
	};
	const struct policy_limits limits = {.memory_bytes = 32 << 20, .instructions = 1000000};
	struct policy *ours = policy_create_blocking(&limits);
	lua_State *plain = luaL_newstate();
	unsigned good = 0;

	(void)state;
	assert_non_null(ours);
	assert_non_null(plain);
	luaL_openlibs(plain);
	random_state = SEED;
	for (unsigned i = 0; i < ROUNDS; i++) {
		const char *code = codes[i % (sizeof(codes) / sizeof(codes[0]))];
		char pattern[PATTERN_MAX];
		char text[TEXT_MAX];
		size_t len = make_text(text);

		make_pattern(pattern);
		compare(ours->lua, plain, code, text, len, pattern);
		good += lua_gettop(ours->lua) > 1 || lua_toboolean(ours->lua, 1) != 0;
	}
	/* Else there is nothing to compare. */
	assert_true(good > ROUNDS / 4);
	lua_close(plain);
	policy_destroy_blocking(ours);
}

struct bounded {
	struct policy_run run;
	const char *code;
	int status;
	uint64_t left;
};

static int push_code(lua_State *state, void *context)
{
	const struct bounded *b = context;

	assert_int_equal(luaL_loadstring(state, b->code), 0);
	return 0;
}

static void on_end(struct policy_run *r, int status)
{
	struct bounded *b = CONTAINER_OF(r, struct bounded, run);

	b->status = status;
	b->left = r->budget;
}

static void run(struct policy *p, struct bounded *b, const char *code)
{
	*b = (struct bounded){.code = code, .run = {.on_end = on_end}};
	policy_run_start(p, &b->run, push_code, b);
}

/* Each would take longer than anybody has, and is stopped by its steps. */
static void test_stop_when_a_pattern_takes_too_long(void **state)
{
	static const char *const codes[] = {
		"return (('a'):rep(200)):find(('a*'):rep(20) .. 'b')",
		"return (('a'):rep(200)):match(('a-'):rep(20) .. 'b')",
		"return (('a'):rep(200)):gsub(('a?'):rep(60) .. ('a'):rep(50) .. 'b', '')",
		"for x in (('a'):rep(200)):gmatch(('(a*)'):rep(20) .. 'b') do end",
		"local s = ('('):rep(100000) return s:find('%b()')",
	};
	const struct policy_limits limits = {.memory_bytes = 32 << 20, .instructions = 20000};
	struct policy *p = policy_create_blocking(&limits);
	struct bounded b;

	(void)state;
	assert_non_null(p);
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		run(p, &b, codes[i]);
		assert_int_not_equal(b.status, 0);
		assert_true(b.run.exhausted);
	}
	run(p, &b, "assert((('a'):rep(1000)):find('a*$') == 1)");
	assert_int_equal(b.status, 0);
	assert_true(b.left > 0);
	policy_destroy_blocking(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_results_when_beside_those_of_lua),
		cmocka_unit_test(test_stop_when_a_pattern_takes_too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
