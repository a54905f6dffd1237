/*
 * string.find, match, gmatch and gsub: patterns of Lua 5.1, by a matcher of our own, since what the
 * interpreter's does is one instruction to it, however long that takes. Here each step counts
 * against the budget of the call, so that a pattern which backtracks is stopped like a loop.
 *
 * Start reading at match_here().
 */
#include <ctype.h>
#include <string.h>

#include "core/policy/parts.h"

#define CAPTURES_MAX 32
#define CAPTURE_OPEN (-1)
#define CAPTURE_POSITION (-2)
#define DEPTH_MAX 200
/* Steps between two charges, and how many count as one instruction. */
#define STEPS 1024
#define STEPS_PER_INSTRUCTION 2
#define SPECIALS "^$*+?.([%-"

SINGLE
struct matcher {
	lua_State *state;
	const char *text;
	const char *text_end;
	const char *pattern_end;
	unsigned depth;
	unsigned steps;
	int count;
	struct {
		const char *at;
		ptrdiff_t len;
	} captures[CAPTURES_MAX];
};

static const char *match_here(struct matcher *m, const char *s, const char *p);

static void step(struct matcher *m)
{
	if (++m->steps == STEPS) {
		m->steps = 0;
		policy_charge(policy_of(m->state), STEPS / STEPS_PER_INSTRUCTION);
		policy_check_budget(m->state);
	}
}

/* ---- single characters ---- */

static bool in_class(int c, int class)
{
	bool in;

	switch (tolower(class)) {
	case 'a':
		in = isalpha(c) != 0;
		break;
	case 'c':
		in = iscntrl(c) != 0;
		break;
	case 'd':
		in = isdigit(c) != 0;
		break;
	case 'g':
		in = isgraph(c) != 0;
		break;
	case 'l':
		in = islower(c) != 0;
		break;
	case 'p':
		in = ispunct(c) != 0;
		break;
	case 's':
		in = isspace(c) != 0;
		break;
	case 'u':
		in = isupper(c) != 0;
		break;
	case 'w':
		in = isalnum(c) != 0;
		break;
	case 'x':
		in = isxdigit(c) != 0;
		break;
	case 'z':
		in = c == 0;
		break;
	default:
		return class == c;
	}
	return isupper(class) != 0 ? !in : in;
}

/* Behind the item at `p`. */
static const char *item_end(struct matcher *m, const char *p)
{
	if (*p == '%') {
		if (p + 1 == m->pattern_end) {
			luaL_error(m->state, "malformed pattern (ends with '%%')");
		}
		return p + 2;
	}
	if (*p != '[') {
		return p + 1;
	}
	p += p + 1 < m->pattern_end && p[1] == '^' ? 2 : 1;
	/* A bracket in the first place stands for itself. */
	do {
		if (p == m->pattern_end) {
			luaL_error(m->state, "malformed pattern (missing ']')");
		}
		p += *p == '%' && p + 1 < m->pattern_end ? 2 : 1;
	} while (p >= m->pattern_end || *p != ']');
	return p + 1;
}

/* The set from `p`, its bracket, to `end`, behind the other one. */
static bool in_set(struct matcher *m, int c, const char *p, const char *end)
{
	bool wanted = true;

	end--;
	p++;
	if (*p == '^') {
		wanted = false;
		p++;
	}
	while (p < end) {
		step(m);
		if (*p == '%') {
			if (in_class(c, (unsigned char)p[1])) {
				return wanted;
			}
			p += 2;
		} else if (p[1] == '-' && p + 2 < end) {
			if ((unsigned char)p[0] <= c && c <= (unsigned char)p[2]) {
				return wanted;
			}
			p += 3;
		} else if ((unsigned char)*p++ == c) {
			return wanted;
		}
	}
	return !wanted;
}

static bool is_single(struct matcher *m, const char *s, const char *p, const char *end)
{
	int c;

	step(m);
	if (s >= m->text_end) {
		return false;
	}
	c = (unsigned char)*s;
	switch (*p) {
	case '.':
		return true;
	case '%':
		return in_class(c, (unsigned char)p[1]);
	case '[':
		return in_set(m, c, p, end);
	default:
		return (unsigned char)*p == c;
	}
}

/* ---- items ---- */

static const char *match_balance(struct matcher *m, const char *s, const char *p)
{
	unsigned depth = 1;

	if (p + 1 >= m->pattern_end) {
		luaL_error(m->state, "unbalanced pattern");
	}
	if (s >= m->text_end || *s != *p) {
		return NULL;
	}
	for (const char *at = s + 1; at < m->text_end; at++) {
		step(m);
		if (*at == p[1]) {
			if (--depth == 0) {
				return at + 1;
			}
		} else if (*at == *p) {
			depth++;
		}
	}
	return NULL;
}

static const char *expand_most(struct matcher *m, const char *s, const char *p, const char *end)
{
	ptrdiff_t n = 0;

	while (is_single(m, s + n, p, end)) {
		n++;
	}
	for (; n >= 0; n--) {
		const char *found = match_here(m, s + n, end + 1);

		if (found != NULL) {
			return found;
		}
	}
	return NULL;
}

static const char *expand_least(struct matcher *m, const char *s, const char *p, const char *end)
{
	for (;;) {
		const char *found = match_here(m, s, end + 1);

		if (found != NULL || !is_single(m, s, p, end)) {
			return found;
		}
		s++;
	}
}

static const char *open_capture(struct matcher *m, const char *s, const char *p, ptrdiff_t len)
{
	const char *found;

	if (m->count >= CAPTURES_MAX) {
		luaL_error(m->state, "too many captures");
	}
	m->captures[m->count].at = s;
	m->captures[m->count].len = len;
	m->count++;
	found = match_here(m, s, p);
	m->count -= found == NULL;
	return found;
}

static const char *close_capture(struct matcher *m, const char *s, const char *p)
{
	int open = m->count - 1;
	const char *found;

	while (open >= 0 && m->captures[open].len != CAPTURE_OPEN) {
		open--;
	}
	if (open < 0) {
		luaL_error(m->state, "invalid pattern capture");
	}
	m->captures[open].len = s - m->captures[open].at;
	found = match_here(m, s, p);
	if (found == NULL) {
		m->captures[open].len = CAPTURE_OPEN;
	}
	return found;
}

/* "%1": the same text again. */
static const char *match_again(struct matcher *m, const char *s, int digit)
{
	int index = digit - '1';
	size_t len;

	if (index < 0 || index >= m->count || m->captures[index].len == CAPTURE_OPEN) {
		luaL_error(m->state, "invalid capture index");
	}
	/* A position is no text, and matches none. */
	if (m->captures[index].len == CAPTURE_POSITION) {
		return NULL;
	}
	len = (size_t)m->captures[index].len;
	if ((size_t)(m->text_end - s) < len || memcmp(m->captures[index].at, s, len) != 0) {
		return NULL;
	}
	return s + len;
}

/* "%f[set]": here begins what is in the set. */
static bool is_frontier(struct matcher *m, const char *s, const char *p, const char *end)
{
	int before = s == m->text ? 0 : (unsigned char)s[-1];
	int here = s < m->text_end ? (unsigned char)*s : 0;

	return !in_set(m, before, p, end) && in_set(m, here, p, end);
}

/* What begins with "%" and is no class: *s goes on, NULL when it does not match, and *p behind it.
 * False: it is a class. */
static bool match_special(struct matcher *m, const char **s, const char **p)
{
	const char *end;

	if (*p + 1 == m->pattern_end) {
		return false;
	}
	if ((*p)[1] == 'b') {
		*s = match_balance(m, *s, *p + 2);
		*p += 4;
		return true;
	}
	if ((*p)[1] == 'f') {
		if (*p + 2 >= m->pattern_end || (*p)[2] != '[') {
			luaL_error(m->state, "missing '[' after '%%f' in pattern");
		}
		end = item_end(m, *p + 2);
		*s = is_frontier(m, *s, *p + 2, end) ? *s : NULL;
		*p = end;
		return true;
	}
	if (isdigit((unsigned char)(*p)[1]) != 0) {
		*s = match_again(m, *s, (*p)[1]);
		*p += 2;
		return true;
	}
	return false;
}

/* One item that may be repeated. *p goes on when the rest is to be matched at *s; else the result
 * is final. */
static const char *match_item(struct matcher *m, const char **s, const char **p, bool *final)
{
	const char *end = item_end(m, *p);
	char repeat = end < m->pattern_end ? *end : '\0';
	const char *found = NULL;

	*final = true;
	if (repeat == '*') {
		return expand_most(m, *s, *p, end);
	}
	if (repeat == '-') {
		return expand_least(m, *s, *p, end);
	}
	if (repeat == '+') {
		return is_single(m, *s, *p, end) ? expand_most(m, *s + 1, *p, end) : NULL;
	}
	if (repeat == '?') {
		if (is_single(m, *s, *p, end)) {
			found = match_here(m, *s + 1, end + 1);
		}
		*final = found != NULL;
		*p = end + 1;
		return found;
	}
	*final = !is_single(m, *s, *p, end);
	(*s)++;
	*p = end;
	return NULL;
}

/* The end of a match of the pattern from `p` on, at `s`; NULL: there is none. */
static const char *match_here(struct matcher *m, const char *s, const char *p)
{
	const char *found = NULL;
	bool final = false;

	if (++m->depth > DEPTH_MAX) {
		luaL_error(m->state, "pattern too complex");
	}
	while (!final && s != NULL) {
		step(m);
		if (p == m->pattern_end || (*p == '$' && p + 1 == m->pattern_end)) {
			found = p == m->pattern_end || s == m->text_end ? s : NULL;
			final = true;
		} else if (*p == '(') {
			bool position = p + 1 < m->pattern_end && p[1] == ')';

			found = open_capture(m, s, p + 1 + position,
					     position ? CAPTURE_POSITION : CAPTURE_OPEN);
			final = true;
		} else if (*p == ')') {
			found = close_capture(m, s, p + 1);
			final = true;
		} else if (*p != '%' || !match_special(m, &s, &p)) {
			found = match_item(m, &s, &p, &final);
		}
	}
	m->depth--;
	return found;
}

/* ---- captures ---- */

/* Pushes capture `index`, or the whole match when there are none. */
static void push_capture(struct matcher *m, int index, const char *s, const char *end)
{
	if (index >= m->count) {
		if (index > 0) {
			luaL_error(m->state, "invalid capture index");
		}
		lua_pushlstring(m->state, s, (size_t)(end - s));
	} else if (m->captures[index].len == CAPTURE_POSITION) {
		lua_pushinteger(m->state, m->captures[index].at - m->text + 1);
	} else if (m->captures[index].len == CAPTURE_OPEN) {
		luaL_error(m->state, "unfinished capture");
	} else {
		lua_pushlstring(m->state, m->captures[index].at, (size_t)m->captures[index].len);
	}
}

/* All of them; the whole match, if `whole`, when there are none. Returns how many. */
static int push_captures(struct matcher *m, bool whole, const char *s, const char *end)
{
	int count = m->count == 0 && whole ? 1 : m->count;

	luaL_checkstack(m->state, count, "too many captures");
	for (int i = 0; i < count; i++) {
		push_capture(m, i, s, end);
	}
	return count;
}

static void begin(struct matcher *m, lua_State *state, const char *text, size_t len,
		  const char *pattern, size_t pattern_len)
{
	m->state = state;
	m->text = text;
	m->text_end = text + len;
	m->pattern_end = pattern + pattern_len;
	m->depth = 0;
	m->steps = 0;
	m->count = 0;
}

static const char *match_at(struct matcher *m, const char *s, const char *p)
{
	m->count = 0;
	m->depth = 0;
	return match_here(m, s, p);
}

/* ---- what scripts call ---- */

/* Where to begin, from 0 on: the argument counts from 1, and from the end when it is negative. */
static size_t first_of(lua_State *state, int index, size_t len)
{
	ptrdiff_t init = luaL_optinteger(state, index, 1);

	if (init < 0) {
		init += (ptrdiff_t)len + 1;
	}
	init = init > 0 ? init - 1 : 0;
	return (size_t)init < len ? (size_t)init : len;
}

static int find_plain(lua_State *state, const char *text, size_t len, size_t from,
		      const char *wanted, size_t wanted_len)
{
	const char *at =
		wanted_len == 0 ? text + from : memmem(text + from, len - from, wanted, wanted_len);

	policy_charge(policy_of(state), (len - from) / STEPS);
	if (at == NULL) {
		lua_pushnil(state);
		return 1;
	}
	lua_pushinteger(state, at - text + 1);
	lua_pushinteger(state, at - text + (ptrdiff_t)wanted_len);
	return 2;
}

static int find_or_match(lua_State *state, bool find)
{
	size_t len;
	size_t pattern_len;
	const char *text = luaL_checklstring(state, 1, &len);
	const char *pattern = luaL_checklstring(state, 2, &pattern_len);
	const char *s = text + first_of(state, 3, len);
	bool anchored = pattern[0] == '^';
	struct matcher m;

	if (find && (lua_toboolean(state, 4) != 0 ||
		     (strlen(pattern) == pattern_len && strpbrk(pattern, SPECIALS) == NULL))) {
		return find_plain(state, text, len, (size_t)(s - text), pattern, pattern_len);
	}
	begin(&m, state, text, len, pattern, pattern_len);
	do {
		const char *end = match_at(&m, s, pattern + anchored);

		if (end != NULL && find) {
			lua_pushinteger(state, s - text + 1);
			lua_pushinteger(state, end - text);
			return push_captures(&m, false, s, end) + 2;
		}
		if (end != NULL) {
			return push_captures(&m, true, s, end);
		}
	} while (s++ < m.text_end && !anchored);
	lua_pushnil(state);
	return 1;
}

static int string_find(lua_State *state)
{
	return find_or_match(state, true);
}

static int string_match(lua_State *state)
{
	return find_or_match(state, false);
}

/* Upvalues: text, pattern, where to go on. */
static int next_match(lua_State *state)
{
	size_t len;
	size_t pattern_len;
	const char *text = lua_tolstring(state, lua_upvalueindex(1), &len);
	const char *pattern = lua_tolstring(state, lua_upvalueindex(2), &pattern_len);
	struct matcher m;

	begin(&m, state, text, len, pattern, pattern_len);
	for (const char *s = text + lua_tointeger(state, lua_upvalueindex(3)); s <= m.text_end;
	     s++) {
		const char *end = match_at(&m, s, pattern);

		if (end != NULL) {
			lua_pushinteger(state, end - text + (end == s));
			lua_replace(state, lua_upvalueindex(3));
			return push_captures(&m, true, s, end);
		}
	}
	return 0;
}

static int string_gmatch(lua_State *state)
{
	luaL_checkstring(state, 1);
	luaL_checkstring(state, 2);
	lua_settop(state, 2);
	lua_pushinteger(state, 0);
	lua_pushcclosure(state, next_match, 3);
	return 1;
}

/* "%1" and the like in the text that takes a match's place. */
static void add_text(struct matcher *m, luaL_Buffer *b, const char *s, const char *end)
{
	size_t len;
	const char *with = lua_tolstring(m->state, 3, &len);

	for (size_t i = 0; i < len; i++) {
		if (with[i] != '%') {
			luaL_addchar(b, with[i]);
		} else if (isdigit((unsigned char)with[++i]) == 0) {
			luaL_addchar(b, with[i]);
		} else if (with[i] == '0') {
			luaL_addlstring(b, s, (size_t)(end - s));
		} else {
			push_capture(m, with[i] - '1', s, end);
			luaL_addvalue(b);
		}
	}
}

static void add_value(struct matcher *m, luaL_Buffer *b, const char *s, const char *end)
{
	lua_State *state = m->state;
	int type = lua_type(state, 3);

	if (type == LUA_TSTRING || type == LUA_TNUMBER) {
		add_text(m, b, s, end);
		return;
	}
	if (type == LUA_TTABLE) {
		push_capture(m, 0, s, end);
		lua_gettable(state, 3);
	} else {
		lua_pushvalue(state, 3);
		lua_call(state, push_captures(m, true, s, end), 1);
	}
	if (lua_toboolean(state, -1) == 0) {
		lua_pop(state, 1);
		lua_pushlstring(state, s, (size_t)(end - s));
	} else if (lua_isstring(state, -1) == 0) {
		luaL_error(state, "invalid replacement value (a %s)", luaL_typename(state, -1));
	}
	luaL_addvalue(b);
}

static int string_gsub(lua_State *state)
{
	size_t len;
	size_t pattern_len;
	const char *text = luaL_checklstring(state, 1, &len);
	const char *pattern = luaL_checklstring(state, 2, &pattern_len);
	int type = lua_type(state, 3);
	lua_Integer max = luaL_optinteger(state, 4, (lua_Integer)len + 1);
	bool anchored = pattern[0] == '^';
	const char *s = text;
	lua_Integer count = 0;
	struct matcher m;
	luaL_Buffer b;

	luaL_argcheck(state,
		      type == LUA_TNUMBER || type == LUA_TSTRING || type == LUA_TFUNCTION ||
			      type == LUA_TTABLE,
		      3, "string/function/table expected");
	begin(&m, state, text, len, pattern, pattern_len);
	luaL_buffinit(state, &b);
	while (count < max) {
		const char *end = match_at(&m, s, pattern + anchored);

		if (end != NULL) {
			count++;
			add_value(&m, &b, s, end);
		}
		if (end != NULL && end > s) {
			s = end;
		} else if (s < m.text_end) {
			luaL_addchar(&b, *s++);
		} else {
			break;
		}
		if (anchored) {
			break;
		}
	}
	luaL_addlstring(&b, s, (size_t)(m.text_end - s));
	luaL_pushresult(&b);
	lua_pushinteger(state, count);
	return 2;
}

void policy_open_pattern(lua_State *state)
{
	static const luaL_Reg functions[] = {{"find", string_find},
					     {"match", string_match},
					     {"gmatch", string_gmatch},
					     {"gsub", string_gsub},
					     {NULL, NULL}};

	lua_getglobal(state, LUA_STRLIBNAME);
	luaL_register(state, NULL, functions);
	lua_settop(state, 1);
}
