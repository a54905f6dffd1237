/*
 * Messages that scripts write: build, text, forward; a message that is not the one at hand (what
 * msys.core.ec_message_new() makes); and parts that are put into one.
 *
 * What is put together is so in a block that the state's collector frees, whatever happens.
 */
#include <openssl/rand.h>
#include <string.h>
#include <strings.h>

#include "core/mail/header.h"
#include "core/mail/mime.h"
#include "core/policy/parts.h"

#define BLOCK "flywheel.block"
#define DRAFT "message"
#define BOUNDARY_BYTES 12
#define TYPE_BYTES 256
/* Alternatives and attachments; addresses that a message is forwarded to. */
#define PARTS_MAX 64

/* ---- blocks ---- */

static int free_block(lua_State *state)
{
	policy_text_close(lua_touserdata(state, 1));
	return 0;
}

struct policy_text *policy_push_block(lua_State *state)
{
	struct policy_text *t = lua_newuserdata(state, sizeof(*t));

	*t = (struct policy_text){0};
	luaL_getmetatable(state, BLOCK);
	lua_setmetatable(state, -2);
	return t;
}

static void add(struct policy_text *t, const char *text)
{
	policy_text_append(t, text, strlen(text));
}

static void add_field(struct policy_text *t, const char *name, const char *value)
{
	policy_field_set(t, name, value, strlen(value), POLICY_FIELD_APPEND);
}

static void add_body(lua_State *state, struct policy_text *t, const char *text, size_t len,
		     enum policy_transfer transfer)
{
	policy_push_encoded(state, text, len, transfer);
	text = lua_tolstring(state, -1, &len);
	policy_text_append(t, text, len);
	lua_pop(state, 1);
}

static void make_boundary(char boundary[2 * BOUNDARY_BYTES + 3])
{
	unsigned char random[BOUNDARY_BYTES];

	if (RAND_bytes(random, sizeof(random)) != 1) {
		fatal("there are no random numbers");
	}
	strcpy(boundary, "=_");
	for (size_t i = 0; i < sizeof(random); i++) {
		snprintf(boundary + 2 + 2 * i, 3, "%02x", random[i]);
	}
}

/* ---- build ---- */

static bool is_text(const char *type)
{
	return strncasecmp(type, "text/", 5) == 0;
}

/* Text without a charset is readable; whatever else is not. */
static enum policy_transfer transfer_of(const char *type)
{
	return is_text(type) && strcasestr(type, "charset") == NULL ? POLICY_QUOTED : POLICY_BASE64;
}

static void add_leaf(lua_State *state, struct policy_text *t, const char *type, const char *more,
		     int content)
{
	enum policy_transfer transfer = transfer_of(type);
	size_t len;
	const char *text = luaL_checklstring(state, content, &len);

	add_field(t, "Content-Type", type);
	add(t, more);
	add_field(t, "Content-Transfer-Encoding", policy_transfers[transfer]);
	add(t, "\r\n");
	add_body(state, t, text, len, transfer);
}

/* Keys of the table at `index`, sorted, but text/plain first, as an array on top. */
static int push_keys(lua_State *state, int index)
{
	int count = 0;

	lua_newtable(state);
	lua_pushnil(state);
	while (lua_next(state, index) != 0) {
		int at = ++count;
		const char *key;

		lua_pop(state, 1);
		luaL_checktype(state, -1, LUA_TSTRING);
		key = lua_tostring(state, -1);
		if (count > PARTS_MAX) {
			luaL_error(state, "more than %d of them", PARTS_MAX);
		}
		for (; at > 1; at--) {
			bool first = strncasecmp(key, "text/plain", 10) == 0;
			bool after;

			lua_rawgeti(state, -2, at - 1);
			after = !first && strcmp(lua_tostring(state, -1), key) < 0;
			after |= strncasecmp(lua_tostring(state, -1), "text/plain", 10) == 0;
			if (after) {
				lua_pop(state, 1);
				break;
			}
			lua_rawseti(state, -3, at);
		}
		lua_pushvalue(state, -1);
		lua_rawseti(state, -3, at);
	}
	return count;
}

static void add_headers(lua_State *state, struct policy_text *t, int index)
{
	int count = push_keys(state, index);

	for (int i = 1; i <= count; i++) {
		lua_rawgeti(state, -1, i);
		lua_pushvalue(state, -1);
		lua_gettable(state, index);
		if (!policy_field_is_name(lua_tostring(state, -2))) {
			luaL_error(state, "build: \"%s\" is not the name of a header field",
				   lua_tostring(state, -2));
		}
		add_field(t, lua_tostring(state, -2), luaL_checkstring(state, -1));
		lua_pop(state, 2);
	}
	lua_pop(state, 1);
	add(t, "MIME-Version: 1.0\r\n");
}

static void add_delimiter(struct policy_text *t, const char *boundary, bool last)
{
	add(t, "\r\n--");
	add(t, boundary);
	add(t, last ? "--\r\n" : "\r\n");
}

/* The table of contents at `index`: one, or several that say the same. */
static void add_alternatives(lua_State *state, struct policy_text *t, int index)
{
	char boundary[2 * BOUNDARY_BYTES + 3];
	char type[TYPE_BYTES];
	int count = push_keys(state, index);
	int keys = lua_gettop(state);

	if (count == 0) {
		luaL_error(state, "build: at least one part expected");
	}
	make_boundary(boundary);
	if (count > 1) {
		snprintf(type, sizeof(type), "multipart/alternative; boundary=\"%s\"", boundary);
		add_field(t, "Content-Type", type);
		add(t, "\r\n");
	}
	for (int i = 1; i <= count; i++) {
		lua_rawgeti(state, keys, i);
		lua_pushvalue(state, -1);
		lua_gettable(state, index);
		if (count > 1) {
			add_delimiter(t, boundary, false);
		}
		add_leaf(state, t, lua_tostring(state, -2),
			 count > 1 ? "Content-Disposition: inline\r\n" : "", lua_gettop(state));
		lua_settop(state, keys);
	}
	if (count > 1) {
		add_delimiter(t, boundary, true);
	}
	lua_pop(state, 1);
}

static const char *optional(lua_State *state, int index, const char *name)
{
	lua_getfield(state, index, name);
	return luaL_optstring(state, -1, "");
}

/* The attachment on top: type, name, headers, content. */
static void add_attachment(lua_State *state, struct policy_text *t)
{
	int index = lua_gettop(state);
	struct policy_text *more = policy_push_block(state);
	const char *type = optional(state, index, "type");
	const char *name = optional(state, index, "name");
	const char *headers = optional(state, index, "headers");

	add(more, "Content-Disposition: attachment");
	if (name[0] != '\0') {
		add(more, "; filename=\"");
		for (const char *c = name; *c != '\0'; c++) {
			bool plain = *c >= ' ' && *c != '"' && *c != '\\' && *c != 127;

			policy_text_append(more, plain ? c : "_", 1);
		}
		add(more, "\"");
	}
	add(more, "\r\n");
	if (headers[0] != '\0') {
		add(more, headers);
		add(more, "\r\n");
	}
	lua_getfield(state, index, "content");
	add_leaf(state, t, type[0] != '\0' ? type : "application/octet-stream", more->data,
		 lua_gettop(state));
	lua_settop(state, index);
}

/* build(headers, parts[, attachments]): the whole text, as a block on top. */
static struct policy_text *push_built(lua_State *state)
{
	int attachments = lua_istable(state, 4) != 0 ? (int)lua_objlen(state, 4) : 0;
	char boundary[2 * BOUNDARY_BYTES + 3];
	char type[TYPE_BYTES];
	struct policy_text *t;

	luaL_checktype(state, 2, LUA_TTABLE);
	luaL_checktype(state, 3, LUA_TTABLE);
	if (attachments > PARTS_MAX) {
		luaL_error(state, "build: more than %d attachments", PARTS_MAX);
	}
	lua_settop(state, 4);
	t = policy_push_block(state);
	add_headers(state, t, 2);
	make_boundary(boundary);
	if (attachments > 0) {
		snprintf(type, sizeof(type), "multipart/mixed; boundary=\"%s\"", boundary);
		add_field(t, "Content-Type", type);
		add(t, "\r\n");
		add_delimiter(t, boundary, false);
	}
	add_alternatives(state, t, 3);
	for (int i = 1; i <= attachments; i++) {
		add_delimiter(t, boundary, false);
		lua_rawgeti(state, 4, i);
		luaL_checktype(state, -1, LUA_TTABLE);
		add_attachment(state, t);
		lua_pop(state, 1);
	}
	if (attachments > 0) {
		add_delimiter(t, boundary, true);
	}
	return t;
}

static int msg_build(lua_State *state)
{
	struct policy_mail *m = policy_check_writable(state);
	struct policy_text *t = push_built(state);

	policy_mail_set_raw(m, t->data, t->len);
	policy_text_close(t);
	return 0;
}

/* ---- text ---- */

SINGLE
struct gathering {
	lua_State *state;
	int table;
	int count;
};

static bool gather(void *context, const struct mime_part *part)
{
	struct gathering *g = context;

	if (!is_text(part->type)) {
		return true;
	}
	policy_push_text(g->state, part);
	lua_rawseti(g->state, g->table, ++g->count);
	lua_settop(g->state, g->table);
	return true;
}

/* An array of the text parts, on top; how many. */
static int push_texts(lua_State *state)
{
	struct gathering g = {.state = state};
	const char *raw;
	size_t len;

	policy_push_raw(state, policy_check_mail(state, 1));
	raw = lua_tolstring(state, -1, &len);
	lua_newtable(state);
	g.table = lua_gettop(state);
	mime_walk(raw, len, gather, &g);
	return g.count;
}

struct policy_content policy_check_content(lua_State *state)
{
	struct policy_content content;
	const char *type = luaL_optstring(state, 3, "text/plain");
	const char *charset = luaL_optstring(state, 4, "utf-8");

	luaL_checkstring(state, 2);
	luaL_argcheck(state, strlen(type) < 100 && strpbrk(type, ";\r\n") == NULL, 3,
		      "a type such as text/html expected");
	luaL_argcheck(state, strlen(charset) < 64 && strpbrk(charset, ";\"\r\n") == NULL, 4,
		      "a charset expected");
	snprintf(content.field, sizeof(content.field), "%s; charset=%s", type, charset);
	lua_pushvalue(state, 2);
	luaL_argcheck(state, policy_convert(state, charset, "utf-8"), 4,
		      "the text cannot be written in this charset");
	return content;
}

/* text(): of all text parts, in UTF-8: a text, or an array when there are several. text(value[,
 * type[, charset]]): that instead of the whole body. */
static int msg_text(lua_State *state)
{
	const char *transfer = policy_transfers[POLICY_QUOTED];
	struct policy_content content;
	struct policy_mail *m;
	const char *text;
	size_t len;
	int count;

	if (lua_isnoneornil(state, 2)) {
		lua_settop(state, 1);
		count = push_texts(state);
		if (count == 1) {
			lua_rawgeti(state, -1, 1);
		}
		return count > 0 ? 1 : 0;
	}
	m = policy_check_writable(state);
	content = policy_check_content(state);
	text = lua_tolstring(state, -1, &len);
	policy_push_quoted(state, text, len);
	text = lua_tolstring(state, -1, &len);
	policy_mail_set_field(m, "Content-Type", content.field, strlen(content.field),
			      POLICY_FIELD_REPLACE);
	policy_mail_set_field(m, "Content-Transfer-Encoding", transfer, strlen(transfer),
			      POLICY_FIELD_REPLACE);
	policy_mail_set_field(m, "MIME-Version", "1.0", strlen("1.0"), POLICY_FIELD_REPLACE);
	policy_mail_set_text(m, text, len);
	return 0;
}

/* text_match(pattern): what msys.pcre.match() says of the first text part that matches. */
static int msg_text_match(lua_State *state)
{
	const char *pattern = luaL_checkstring(state, 2);
	int count = push_texts(state);
	int table = lua_gettop(state);

	for (int i = 1; i <= count; i++) {
		size_t len;
		const char *text;

		lua_rawgeti(state, table, i);
		text = lua_tolstring(state, -1, &len);
		if (policy_pcre_match(state, text, len, pattern) > 0 && !lua_isnil(state, -1)) {
			return 1;
		}
		lua_settop(state, table);
	}
	lua_pushnil(state);
	return 1;
}

/* ---- messages of one's own ---- */

static void inject(lua_State *state, struct policy_subject *s, const char *from, const char *to,
		   const char *text, size_t len)
{
	if (s == NULL || s->ops->inject == NULL || len == 0 ||
	    s->ops->inject(s->owner, from, to, text, len) != 0) {
		luaL_error(state, "nothing can be injected now");
	}
}

static void add_date(struct policy *p, struct policy_text *t)
{
	char text[HEADER_DATE_MAX];

	header_date_format((uint64_t)policy_now_s(p), text);
	add_field(t, "Date", text);
}

/* The message at hand, as an attachment. */
static struct policy_text *push_forward(lua_State *state, struct policy_mail *m)
{
	const char *subject = luaL_optstring(state, 5, "Forwarded message");
	const char *charset = luaL_optstring(state, 6, "us-ascii");
	char boundary[2 * BOUNDARY_BYTES + 3];
	char type[TYPE_BYTES];
	struct policy_text *t = policy_push_block(state);

	make_boundary(boundary);
	add_field(t, "From", lua_tostring(state, 2));
	add_field(t, "To", lua_tostring(state, 3));
	add_field(t, "Subject", subject);
	add_date(policy_of(state), t);
	add(t, "MIME-Version: 1.0\r\n");
	snprintf(type, sizeof(type), "multipart/mixed; boundary=\"%s\"", boundary);
	add_field(t, "Content-Type", type);
	add(t, "\r\n");
	add_delimiter(t, boundary, false);
	snprintf(type, sizeof(type), "text/plain; charset=\"%.64s\"", charset);
	add_leaf(state, t, type, "", 4);
	add_delimiter(t, boundary, false);
	add(t, "Content-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\n");
	policy_mail_raw(m, t);
	add_delimiter(t, boundary, true);
	return t;
}

/* forward(sender, recipients, text[, subject[, charset]]): recipients with commas between. */
static int msg_forward(lua_State *state)
{
	struct policy_subject *s = policy_check_object(state, 1, POLICY_MSG);
	struct policy_mail *m = policy_check_writable(state);
	const char *from = policy_check_address(state, 2, false);
	struct policy_text *t;
	int addresses;

	luaL_checkstring(state, 3);
	luaL_checkstring(state, 4);
	lua_settop(state, 6);
	t = push_forward(state, m);
	lua_newtable(state);
	addresses = lua_gettop(state);
	policy_push_addresses(state, addresses, lua_tostring(state, 3), "email");
	for (int i = 1; i <= (int)lua_objlen(state, addresses); i++) {
		luaL_argcheck(state, i <= PARTS_MAX, 3, "too many addresses");
		lua_rawgeti(state, addresses, i);
		inject(state, s, from, policy_check_address(state, addresses + 1, false), t->data,
		       t->len);
		lua_settop(state, addresses);
	}
	policy_text_close(t);
	return 0;
}

/* ---- drafts ---- */

/* The text on top is that of the draft, argument 1, from now on: a string of Lua's in its
 * environment, which counts as memory of the state. */
static void set_draft(lua_State *state)
{
	lua_getfenv(state, 1);
	lua_insert(state, -2);
	lua_setfield(state, -2, "text");
	lua_pop(state, 1);
}

/* Pushes it; what it is. */
static const char *push_draft(lua_State *state, size_t *len)
{
	luaL_checkudata(state, 1, DRAFT);
	lua_getfenv(state, 1);
	lua_getfield(state, -1, "text");
	lua_remove(state, -2);
	return lua_tolstring(state, -1, len);
}

/* ec_message_new(): one without text. */
static int draft_new(lua_State *state)
{
	lua_newuserdata(state, 1);
	luaL_getmetatable(state, DRAFT);
	lua_setmetatable(state, -2);
	lua_newtable(state);
	lua_pushliteral(state, "");
	lua_setfield(state, -2, "text");
	lua_setfenv(state, -2);
	return 1;
}

static int draft_build(lua_State *state)
{
	struct policy_text *built;

	luaL_checkudata(state, 1, DRAFT);
	built = push_built(state);
	lua_pushlstring(state, built->data, built->len);
	policy_text_close(built);
	set_draft(state);
	return 0;
}

static int draft_raw(lua_State *state)
{
	size_t len;

	if (lua_isnoneornil(state, 2)) {
		push_draft(state, &len);
		return 1;
	}
	luaL_checkudata(state, 1, DRAFT);
	luaL_checkstring(state, 2);
	lua_settop(state, 2);
	set_draft(state);
	return 0;
}

/* inject(sender, recipient): with what is received now. */
static int draft_inject(lua_State *state)
{
	struct policy *p = policy_of(state);
	const char *from = policy_check_address(state, 2, true);
	const char *to = policy_check_address(state, 3, false);
	size_t len;
	const char *text = push_draft(state, &len);

	inject(state, p->running != NULL ? p->running->subject : NULL, from, to, text, len);
	return 0;
}

/* ---- parts ---- */

static int boundary_of(lua_State *state)
{
	char boundary[2 * BOUNDARY_BYTES + 3];

	make_boundary(boundary);
	lua_pushstring(state, boundary);
	return 1;
}

/* The part that the text is, which may be put into a message. */
static int push_made(lua_State *state, struct policy_text *t)
{
	policy_push_all_parts(state, t->data, t->len);
	policy_text_close(t);
	lua_pushboolean(state, 1);
	lua_setfield(state, -2, "writable");
	return 1;
}

/* makePart(type[, body[, encoding]]): a part of no message yet, its body encoded here. */
static int msg_make_part(lua_State *state)
{
	const char *type = luaL_checkstring(state, 2);
	size_t len;
	const char *body = luaL_optlstring(state, 3, "", &len);
	int transfer = luaL_optint(state, 4, POLICY_7BIT);
	struct policy_text *t;

	luaL_argcheck(state, strlen(type) < TYPE_BYTES && strpbrk(type, "\r\n") == NULL, 2,
		      "a type such as text/html expected");
	luaL_argcheck(state, transfer >= POLICY_7BIT && transfer <= POLICY_QUOTED, 4,
		      "one of msys.core.EC_MIME_TE_... expected");
	t = policy_push_block(state);
	add_field(t, "Content-Type", type);
	add_field(t, "Content-Transfer-Encoding", policy_transfers[transfer]);
	add(t, "\r\n");
	add_body(state, t, body, len, (enum policy_transfer)transfer);
	return push_made(state, t);
}

/* makeContainer(type[, boundary]) */
static int msg_make_container(lua_State *state)
{
	const char *type = luaL_checkstring(state, 2);
	const char *given = luaL_optstring(state, 3, NULL);
	char boundary[2 * BOUNDARY_BYTES + 3];
	char field[TYPE_BYTES];
	struct policy_text *t;

	luaL_argcheck(state,
		      strncasecmp(type, "multipart/", 10) == 0 && strlen(type) < 100 &&
			      strpbrk(type, ";\r\n") == NULL,
		      2, "a type such as multipart/mixed expected");
	luaL_argcheck(state,
		      given == NULL || (given[0] != '\0' && strlen(given) <= 70 &&
					strpbrk(given, "\"\\\r\n") == NULL),
		      3, "a boundary of 1 to 70 bytes expected");
	make_boundary(boundary);
	snprintf(field, sizeof(field), "%s; boundary=\"%s\"", type,
		 given != NULL ? given : boundary);
	t = policy_push_block(state);
	add_field(t, "Content-Type", field);
	add(t, "\r\n");
	return push_made(state, t);
}

void policy_open_build(lua_State *state)
{
	static const luaL_Reg of_message[] = {
		{"build", msg_build},
		{"text", msg_text},
		{"text_match", msg_text_match},
		{"forward", msg_forward},
		{"makeBoundary", boundary_of},
		{"makePart", msg_make_part},
		{"makeContainer", msg_make_container},
		{NULL, NULL},
	};
	static const luaL_Reg of_draft[] = {
		{"build", draft_build}, {"raw", draft_raw}, {"inject", draft_inject}, {NULL, NULL}};
	static const char *const encodings[] = {"EC_MIME_TE_7BIT", "EC_MIME_TE_8BIT",
						"EC_MIME_TE_BASE64", "EC_MIME_TE_QUOTED_PRINTABLE"};

	luaL_newmetatable(state, BLOCK);
	lua_pushcfunction(state, free_block);
	lua_setfield(state, -2, "__gc");
	lua_pushliteral(state, BLOCK);
	lua_setfield(state, -2, "__metatable");
	policy_class(state, DRAFT, of_draft);
	luaL_getmetatable(state, "msg");
	lua_getfield(state, -1, "__index");
	luaL_register(state, NULL, of_message);
	lua_getfield(state, 1, "core");
	for (int i = 0; i < 4; i++) {
		lua_pushinteger(state, i);
		lua_setfield(state, -2, encodings[i]);
	}
	lua_pushcfunction(state, draft_new);
	lua_setfield(state, -2, "ec_message_new");
	lua_settop(state, 1);
}
