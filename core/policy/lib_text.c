/*
 * Text: msys.base64, msys.qp, msys.idn, charsets, and addresses as mail writes them.
 */
#include <iconv.h>
#include <idn2.h>
#include <openssl/evp.h>
#include <string.h>
#include <strings.h>

#include "core/mail/mime.h"
#include "core/policy/parts.h"

/* Of a line that is folded. */
#define FOLD_COLUMNS 76
/* Of a field that says what a part is. */
#define FIELD_BYTES 998

const char *const policy_transfers[] = {"7bit", "8bit", "base64", "quoted-printable"};

/* ---- base64 ---- */

void policy_push_base64(lua_State *state, const char *text, size_t len, bool fold)
{
	size_t room = (len + 2) / 3 * 4 + 1;
	unsigned char *to = lua_newuserdata(state, room);
	size_t made = (size_t)EVP_EncodeBlock(to, (const unsigned char *)text, (int)len);
	luaL_Buffer b;

	if (!fold) {
		lua_pushlstring(state, (char *)to, made);
		lua_remove(state, -2);
		return;
	}
	luaL_buffinit(state, &b);
	for (size_t at = 0; at < made; at += FOLD_COLUMNS) {
		size_t n = made - at < FOLD_COLUMNS ? made - at : FOLD_COLUMNS;

		luaL_addlstring(&b, (char *)to + at, n);
		luaL_addlstring(&b, "\r\n", 2);
	}
	luaL_pushresult(&b);
	lua_remove(state, -2);
}

/* Argument 1, in the charset that argument `index` says, if it does. */
static const char *check_text(lua_State *state, int index, size_t *len)
{
	const char *charset = luaL_optstring(state, index, "utf-8");

	luaL_checkstring(state, 1);
	/* What is not said stays nothing, though more is pushed. */
	lua_settop(state, 3);
	lua_pushvalue(state, 1);
	luaL_argcheck(state, policy_convert(state, charset, "utf-8"), index,
		      "a charset expected in which the text can be written");
	return lua_tolstring(state, -1, len);
}

/* encode(text[, fold[, charset]]): folded with CR LF when `fold` is true. */
static int base64_encode(lua_State *state)
{
	size_t len;
	const char *text = check_text(state, 3, &len);

	policy_push_base64(state, text, len, lua_toboolean(state, 2) != 0);
	return 1;
}

void policy_push_decoded(lua_State *state, const struct mime_part *part)
{
	/* In memory that an error would free. */
	char *to = lua_newuserdata(state, part->body_len + 1);

	lua_pushlstring(state, to, mime_decode(part, to, part->body_len + 1));
	lua_remove(state, -2);
}

static int decode(lua_State *state, enum mime_encoding encoding)
{
	struct mime_part part = {.encoding = encoding};

	lua_settop(state, 2);
	part.body = luaL_checklstring(state, 1, &part.body_len);
	policy_push_decoded(state, &part);
	luaL_argcheck(state, policy_convert(state, "utf-8", luaL_optstring(state, 2, "utf-8")), 2,
		      "the charset of the text expected");
	return 1;
}

/* decode(text[, charset]): from the charset into UTF-8. */
static int base64_decode(lua_State *state)
{
	return decode(state, MIME_BASE64);
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

/* `dots`: those that come to stand first in a line are stuffed. */
static void push_quoted(lua_State *state, const char *text, size_t len, bool dots)
{
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
			column = dots && text[i] == '.' ? 1 : 0;
			luaL_addlstring(&b, ".", column);
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
}

void policy_push_quoted(lua_State *state, const char *text, size_t len)
{
	push_quoted(state, text, len, false);
}

/* encode(text[, charset[, dotstuffing]]) */
static int qp_encode(lua_State *state)
{
	size_t len;
	const char *text = check_text(state, 2, &len);

	push_quoted(state, text, len, lua_toboolean(state, 3) != 0);
	return 1;
}

static int qp_decode(lua_State *state)
{
	return decode(state, MIME_QUOTED_PRINTABLE);
}

/* ---- charsets ---- */

bool policy_convert(lua_State *state, const char *to, const char *from)
{
	size_t len;
	const char *text = lua_tolstring(state, -1, &len);
	char *in = (char *)(uintptr_t)text;
	size_t room = 4 * len + 16;
	char *block;
	char *out;
	iconv_t c;
	size_t rc;

	if (strcasecmp(to, from) == 0) {
		return true;
	}
	block = lua_newuserdata(state, room);
	out = block;
	c = iconv_open(to, from);
	if (c == (iconv_t)-1) {
		lua_pop(state, 1);
		return false;
	}
	rc = iconv(c, &in, &len, &out, &room);
	/* Some charsets end in the state in which they began. */
	if (rc != (size_t)-1) {
		rc = iconv(c, NULL, NULL, &out, &room);
	}
	iconv_close(c);
	if (rc == (size_t)-1) {
		lua_pop(state, 1);
		return false;
	}
	lua_pushlstring(state, block, (size_t)(out - block));
	lua_replace(state, -3);
	lua_pop(state, 1);
	return true;
}

bool policy_part_parameter(const struct mime_part *part, const char *name, char *to, size_t size)
{
	char value[FIELD_BYTES + 1];
	struct policy_field f;

	if (!policy_field_next(part->header, part->header_len, "Content-Type", 0, &f) ||
	    f.len > FIELD_BYTES) {
		return false;
	}
	value[policy_field_value(part->header, &f, value)] = '\0';
	return mime_parameter(value, name, to, size);
}

bool policy_push_text(lua_State *state, const struct mime_part *part)
{
	char charset[64];

	policy_push_decoded(state, part);
	return !policy_part_parameter(part, "charset", charset, sizeof(charset)) ||
	       policy_convert(state, "utf-8", charset);
}

void policy_push_encoded(lua_State *state, const char *text, size_t len,
			 enum policy_transfer transfer)
{
	if (transfer == POLICY_QUOTED) {
		policy_push_quoted(state, text, len);
	} else if (transfer == POLICY_BASE64) {
		policy_push_base64(state, text, len, true);
	} else {
		lua_pushlstring(state, text, len);
	}
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
