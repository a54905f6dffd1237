/*
 * Text: msys.base64, msys.qp, msys.idn, and addresses as mail writes them.
 */
#include <idn2.h>
#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

#include "core/policy/parts.h"

/* Of a line that is folded. */
#define FOLD_COLUMNS 76

/* ---- base64 ---- */

/* encode(text[, fold]): folded with CR LF when `fold` is true. */
static int base64_encode(lua_State *state)
{
	size_t len;
	const char *text = luaL_checklstring(state, 1, &len);
	bool fold = lua_toboolean(state, 2) != 0;
	size_t room = (len + 2) / 3 * 4 + 1;
	unsigned char *to = lua_newuserdata(state, room);
	size_t made = (size_t)EVP_EncodeBlock(to, (const unsigned char *)text, (int)len);
	luaL_Buffer b;

	if (!fold) {
		lua_pushlstring(state, (char *)to, made);
		return 1;
	}
	luaL_buffinit(state, &b);
	for (size_t at = 0; at < made; at += FOLD_COLUMNS) {
		size_t n = made - at < FOLD_COLUMNS ? made - at : FOLD_COLUMNS;

		luaL_addlstring(&b, (char *)to + at, n);
		luaL_addlstring(&b, "\r\n", 2);
	}
	luaL_pushresult(&b);
	return 1;
}

static int base64_value(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c != '\0' ? strchr(digits, c) : NULL;

	return at != NULL ? (int)(at - digits) : -1;
}

/* What is no digit is passed over, as RFC 2045 has it; the first "=" ends it. */
static int base64_decode(lua_State *state)
{
	size_t len;
	const char *text = luaL_checklstring(state, 1, &len);
	unsigned bits = 0;
	unsigned count = 0;
	luaL_Buffer b;

	luaL_buffinit(state, &b);
	for (size_t i = 0; i < len && text[i] != '='; i++) {
		int value = base64_value(text[i]);

		if (value < 0) {
			continue;
		}
		bits = bits << 6 | (unsigned)value;
		count += 6;
		if (count >= 8) {
			count -= 8;
			luaL_addchar(&b, (char)(bits >> count & 0xff));
		}
	}
	luaL_pushresult(&b);
	return 1;
}

/* ---- quoted-printable ---- */

static bool plain(const char *text, size_t at, size_t len)
{
	unsigned char c = (unsigned char)text[at];

	if (c == ' ' || c == '\t') {
		return at + 1 < len && text[at + 1] != '\r' && text[at + 1] != '\n';
	}
	return c > ' ' && c < 127 && c != '=';
}

static int qp_encode(lua_State *state)
{
	size_t len;
	const char *text = luaL_checklstring(state, 1, &len);
	size_t column = 0;
	char code[4];
	luaL_Buffer b;

	luaL_buffinit(state, &b);
	for (size_t i = 0; i < len; i++) {
		bool crlf = text[i] == '\r' && i + 1 < len && text[i + 1] == '\n';

		if (crlf || text[i] == '\n') {
			luaL_addlstring(&b, "\r\n", 2);
			column = 0;
			i += crlf;
			continue;
		}
		if (column > FOLD_COLUMNS - 4) {
			luaL_addlstring(&b, "=\r\n", 3);
			column = 0;
		}
		if (plain(text, i, len)) {
			luaL_addchar(&b, text[i]);
			column++;
		} else {
			snprintf(code, sizeof(code), "=%02X", (unsigned char)text[i]);
			luaL_addlstring(&b, code, 3);
			column += 3;
		}
	}
	luaL_pushresult(&b);
	return 1;
}

static int hex_value(char c)
{
	return c >= '0' && c <= '9'   ? c - '0'
	       : c >= 'A' && c <= 'F' ? c - 'A' + 10
	       : c >= 'a' && c <= 'f' ? c - 'a' + 10
				      : -1;
}

static int qp_decode(lua_State *state)
{
	size_t len;
	const char *text = luaL_checklstring(state, 1, &len);
	luaL_Buffer b;

	luaL_buffinit(state, &b);
	for (size_t i = 0; i < len; i++) {
		int high = i + 2 < len && text[i] == '=' ? hex_value(text[i + 1]) : -1;
		int low = high >= 0 ? hex_value(text[i + 2]) : -1;

		if (low >= 0) {
			luaL_addchar(&b, (char)(high << 4 | low));
			i += 2;
		} else if (text[i] == '=' && i + 1 < len && text[i + 1] == '\n') {
			i += 1;
		} else if (text[i] == '=' && i + 2 < len && text[i + 1] == '\r' &&
			   text[i + 2] == '\n') {
			i += 2;
		} else {
			luaL_addchar(&b, text[i]);
		}
	}
	luaL_pushresult(&b);
	return 1;
}

/* ---- international names ---- */

static int push_name(lua_State *state, int rc, char *to)
{
	if (rc != IDN2_OK) {
		lua_pushnil(state);
		lua_pushstring(state, idn2_strerror(rc));
		return 2;
	}
	lua_pushstring(state, to);
	idn2_free(to);
	return 1;
}

static int idn_to_idn(lua_State *state)
{
	char *to = NULL;
	int rc = idn2_to_ascii_8z(luaL_checkstring(state, 1), &to, IDN2_NONTRANSITIONAL);

	return push_name(state, rc, to);
}

static int idn_to_utf8(lua_State *state)
{
	char *to = NULL;
	int rc = idn2_to_unicode_8z8z(luaL_checkstring(state, 1), &to, 0);

	return push_name(state, rc, to);
}

/* ---- addresses ---- */

/* The end of one address of a list: a comma outside of quotes, brackets and comments. */
static const char *address_end(const char *at)
{
	unsigned comments = 0;
	bool quoted = false;
	bool angle = false;

	for (; *at != '\0'; at++) {
		if (*at == '\\' && at[1] != '\0') {
			at++;
		} else if (*at == '"' && comments == 0) {
			quoted = !quoted;
		} else if (quoted) {
			continue;
		} else if (*at == '(') {
			comments++;
		} else if (*at == ')' && comments > 0) {
			comments--;
		} else if (*at == '<' || *at == '>') {
			angle = *at == '<';
		} else if ((*at == ',' || *at == ';') && comments == 0 && !angle) {
			break;
		}
	}
	return at;
}

static void trim(const char **from, const char **end)
{
	while (*from < *end && strchr(" \t\r\n", **from) != NULL) {
		(*from)++;
	}
	while (*end > *from && strchr(" \t\r\n", (*end)[-1]) != NULL) {
		(*end)--;
	}
}

/* A part of the mailbox from `from` to `end`, or nothing. */
static bool push_component(lua_State *state, const char *from, const char *end,
			   const char *component)
{
	const char *open = memrchr(from, '<', (size_t)(end - from));
	const char *name_end = open != NULL ? open : from;
	const char *address = open != NULL ? open + 1 : from;
	const char *close = open != NULL ? memchr(open, '>', (size_t)(end - open)) : NULL;
	const char *address_to = close != NULL ? close : end;
	const char *name = from;
	const char *at;

	if (strcmp(component, "complete") == 0) {
		lua_pushlstring(state, from, (size_t)(end - from));
		return true;
	}
	trim(&name, &name_end);
	trim(&address, &address_to);
	if (name_end - name >= 2 && *name == '"' && name_end[-1] == '"') {
		name++;
		name_end--;
	}
	if (strcmp(component, "name") == 0) {
		lua_pushlstring(state, name, (size_t)(name_end - name));
		return true;
	}
	at = memrchr(address, '@', (size_t)(address_to - address));
	if (at == NULL) {
		return false;
	}
	if (strcmp(component, "localpart") == 0) {
		address_to = at;
	} else if (strcmp(component, "domain") == 0) {
		address = at + 1;
	}
	lua_pushlstring(state, address, (size_t)(address_to - address));
	return true;
}

void policy_push_addresses(lua_State *state, int table, const char *text, const char *component)
{
	int count = (int)lua_objlen(state, table);

	while (*text != '\0') {
		const char *next = address_end(text);
		const char *end = next;
		const char *colon = memchr(text, ':', (size_t)(end - text));

		/* A group's name. */
		if (colon != NULL && memchr(text, '"', (size_t)(colon - text)) == NULL &&
		    memchr(text, '@', (size_t)(colon - text)) == NULL) {
			text = colon + 1;
		}
		trim(&text, &end);
		if (text < end && push_component(state, text, end, component)) {
			lua_rawseti(state, table, ++count);
		}
		text = *next != '\0' ? next + 1 : next;
	}
}

static int parse_addresses(lua_State *state)
{
	const char *text = luaL_checkstring(state, 1);
	const char *component = luaL_optstring(state, 2, "email");

	lua_settop(state, 2);
	lua_newtable(state);
	policy_push_addresses(state, 3, text, component);
	return 1;
}

void policy_open_text(lua_State *state)
{
	static const luaL_Reg base64[] = {
		{"encode", base64_encode}, {"decode", base64_decode}, {NULL, NULL}};
	static const luaL_Reg qp[] = {{"encode", qp_encode}, {"decode", qp_decode}, {NULL, NULL}};
	static const luaL_Reg idn[] = {
		{"to_idn", idn_to_idn}, {"to_utf8", idn_to_utf8}, {NULL, NULL}};
	static const luaL_Reg msys[] = {{"parseRFC2822Addresses", parse_addresses}, {NULL, NULL}};

	luaL_register(state, NULL, msys);
	lua_newtable(state);
	luaL_register(state, NULL, base64);
	lua_setfield(state, 1, "base64");
	lua_newtable(state);
	luaL_register(state, NULL, qp);
	lua_setfield(state, 1, "qp");
	lua_newtable(state);
	luaL_register(state, NULL, idn);
	lua_setfield(state, 1, "idn");
	lua_settop(state, 1);
}
