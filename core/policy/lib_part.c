/*
 * Parts that are changed, moved and put into others. What a part says of itself, its header and
 * body, is always right: a change in a part makes the bodies of those around it anew, up to the one
 * on top; and if that is a message (mime(false)), its text. Parts that nobody changes keep each of
 * their bytes; what a multipart has before its first part and behind its last one is given up.
 *
 * The one on top says whether a tree may be changed (`writable`), whose it is (`message`), and how
 * often that had been changed when the two were the same (`changes`).
 *
 * Start reading at pass_up().
 */
#include <string.h>

#include "core/mail/mime.h"
#include "core/policy/parts.h"

/* Parts in parts, also of those that scripts have made. */
#define DEPTH_MAX 32
#define BOUNDARY_BYTES 200

/* ---- the tree ---- */

/* Pushes the part that has the one on top in it; false, and nothing: that is on top of all. */
static bool push_parent(lua_State *state)
{
	lua_getfield(state, -1, "parent");
	if (lua_isnil(state, -1)) {
		lua_pop(state, 1);
		return false;
	}
	policy_check_part(state, lua_gettop(state));
	return true;
}

/* Pushes the one on top of the tree that the part at `index` is in. */
static void push_top(lua_State *state, int index)
{
	int depth = 0;

	lua_pushvalue(state, index);
	while (push_parent(state)) {
		lua_remove(state, -2);
		if (++depth > DEPTH_MAX) {
			luaL_error(state, "more than %d parts in parts", DEPTH_MAX);
		}
	}
}

/* The message that the part on top of all, on top of the stack, is; NULL: none. */
static struct policy_mail *mail_of(lua_State *state)
{
	struct policy_mail *m = NULL;

	lua_getfield(state, -1, "message");
	if (!lua_isnil(state, -1)) {
		m = policy_check_mail(state, lua_gettop(state));
	}
	lua_pop(state, 1);
	return m;
}

/* The part at `index` may be changed, or there is an error. */
static void check_writable(lua_State *state, int index)
{
	struct policy_mail *m;

	policy_check_part(state, index);
	push_top(state, index);
	lua_getfield(state, -1, "writable");
	if (lua_toboolean(state, -1) == 0) {
		luaL_error(state, "this part is a copy: mime(false) has parts that may be changed");
	}
	lua_pop(state, 1);
	m = mail_of(state);
	lua_getfield(state, -1, "changes");
	if (m != NULL && lua_tonumber(state, -1) != m->changes) {
		luaL_error(state, "the message was changed in another way since mime(false)");
	}
	lua_pop(state, 2);
}

static bool get_boundary(lua_State *state, int index, char boundary[BOUNDARY_BYTES])
{
	struct mime_part part = policy_part_at(state, index);

	return strncmp(part.type, "multipart/", 10) == 0 &&
	       policy_part_parameter(&part, "boundary", boundary, BOUNDARY_BYTES) &&
	       boundary[0] != '\0';
}

/* ---- texts of parts ---- */

/* Bytes that go one behind the other; without `to` they are counted only. */
SINGLE
struct writing {
	char *to;
	size_t len;
};

static void put(struct writing *w, const char *text, size_t len)
{
	if (w->to != NULL && len > 0) {
		memcpy(w->to + w->len, text, len);
	}
	w->len += len;
}

static void put_part(struct writing *w, const struct mime_part *part)
{
	put(w, part->header, part->header_len);
	put(w, "\r\n", 2);
	put(w, part->body, part->body_len);
}

/* The parts in the array on top of the stack, between their delimiters. */
static void put_parts(lua_State *state, struct writing *w, const char *boundary)
{
	int count = (int)lua_objlen(state, -1);

	for (int i = 1; i <= count; i++) {
		struct mime_part part;

		lua_rawgeti(state, -1, i);
		part = policy_part_at(state, lua_gettop(state));
		put(w, "--", 2);
		put(w, boundary, strlen(boundary));
		put(w, "\r\n", 2);
		put_part(w, &part);
		put(w, "\r\n", 2);
		lua_pop(state, 1);
	}
	put(w, "--", 2);
	put(w, boundary, strlen(boundary));
	put(w, "--\r\n", 4);
}

/* The body of the multipart on top of the stack is what its parts are. */
static void make_body(lua_State *state)
{
	char boundary[BOUNDARY_BYTES];
	struct writing w = {0};

	if (!get_boundary(state, lua_gettop(state), boundary)) {
		luaL_error(state, "what has parts in it is to be a multipart with a boundary");
	}
	lua_getfield(state, -1, "parts");
	luaL_checktype(state, -1, LUA_TTABLE);
	put_parts(state, &w, boundary);
	lua_newuserdata(state, w.len);
	w = (struct writing){.to = lua_touserdata(state, -1)};
	lua_insert(state, -2);
	put_parts(state, &w, boundary);
	lua_pop(state, 1);
	lua_pushlstring(state, w.to, w.len);
	lua_setfield(state, -3, "raw_body");
	lua_pop(state, 1);
}

/* Pushes header and body of the part at `index`. */
static const char *push_raw(lua_State *state, int index, size_t *len)
{
	struct mime_part part = policy_part_at(state, index);
	struct writing w = {0};

	put_part(&w, &part);
	w = (struct writing){.to = lua_newuserdata(state, w.len)};
	put_part(&w, &part);
	lua_pushlstring(state, w.to, w.len);
	lua_remove(state, -2);
	return lua_tolstring(state, -1, len);
}

/* The part at `index` has changed: so have those around it, and the message. */
static void pass_up(lua_State *state, int index)
{
	struct policy_mail *m;
	const char *text;
	int depth = 0;
	size_t len;

	lua_pushvalue(state, index);
	while (push_parent(state)) {
		lua_remove(state, -2);
		make_body(state);
		if (++depth > DEPTH_MAX) {
			luaL_error(state, "more than %d parts in parts", DEPTH_MAX);
		}
	}
	m = mail_of(state);
	if (m != NULL) {
		text = push_raw(state, lua_gettop(state), &len);
		policy_mail_set_raw(m, text, len);
		lua_pop(state, 1);
		lua_pushnumber(state, m->changes);
		lua_setfield(state, -2, "changes");
	}
	lua_pop(state, 1);
}

/* ---- one part ---- */

static void set_field(lua_State *state, int index, const char *name, const char *value, size_t len,
		      enum policy_field_mode mode)
{
	struct mime_part part = policy_part_at(state, index);
	struct policy_text *header = policy_push_block(state);

	policy_text_append(header, part.header, part.header_len);
	policy_field_set(header, name, value, len, mode);
	lua_pushvalue(state, index);
	policy_set_part_string(state, "headers", header->data, header->len);
	policy_describe_part(state);
	lua_pop(state, 2);
	policy_text_close(header);
}

/* header(name): an array. header(name, value[, mode]) sets, or with nil or "" takes out. */
static int header(lua_State *state)
{
	const char *name = policy_check_field(state, 2);
	struct mime_part part = policy_part_at(state, 1);
	enum policy_field_mode mode;
	const char *value;
	size_t len;

	if (lua_isnone(state, 3)) {
		policy_push_fields(state, part.header, part.header_len, name);
		return 1;
	}
	check_writable(state, 1);
	mode = policy_check_field_mode(state, 4);
	value = luaL_optlstring(state, 3, "", &len);
	set_field(state, 1, name, value, len, len > 0 ? mode : POLICY_FIELD_REPLACE);
	pass_up(state, 1);
	return 0;
}

static int address_header(lua_State *state)
{
	struct mime_part part = policy_part_at(state, 1);

	return policy_push_address_header(state, part.header, part.header_len);
}

/* The part at `index` has no parts in it any more: those it had are on their own. */
static void let_go(lua_State *state, int index)
{
	lua_getfield(state, index, "parts");
	luaL_checktype(state, -1, LUA_TTABLE);
	for (int i = 1; i <= (int)lua_objlen(state, -1); i++) {
		lua_rawgeti(state, -1, i);
		policy_check_part(state, lua_gettop(state));
		lua_pushnil(state);
		lua_setfield(state, -2, "parent");
		lua_pop(state, 1);
	}
	lua_pop(state, 1);
	lua_newtable(state);
	lua_setfield(state, index, "parts");
}

/* The part at `index` is what the text on top says, which is taken off: header, body and parts. */
static void set_raw(lua_State *state, int index)
{
	static const char *const fields[] = {"headers", "raw_body", "type", "transfer", "parts"};
	size_t len;
	const char *text = lua_tolstring(state, -1, &len);

	policy_push_all_parts(state, text, len);
	let_go(state, index);
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		lua_getfield(state, -1, fields[i]);
		lua_setfield(state, index, fields[i]);
	}
	lua_getfield(state, index, "parts");
	for (int i = 1; i <= (int)lua_objlen(state, -1); i++) {
		lua_rawgeti(state, -1, i);
		lua_pushvalue(state, index);
		lua_setfield(state, -2, "parent");
		lua_pop(state, 1);
	}
	lua_pop(state, 3);
}

static int body_match(lua_State *state)
{
	struct mime_part part = policy_part_at(state, 1);

	return policy_pcre_match(state, part.body, part.body_len, luaL_checkstring(state, 2));
}

static int raw_match(lua_State *state)
{
	const char *pattern = luaL_checkstring(state, 2);
	size_t len;
	const char *text = push_raw(state, 1, &len);

	return policy_pcre_match(state, text, len, pattern);
}

static int body_replace(lua_State *state)
{
	struct mime_part part = policy_part_at(state, 1);
	const char *pattern = luaL_checkstring(state, 2);
	const char *with = luaL_checkstring(state, 3);

	check_writable(state, 1);
	lua_pushlstring(state, part.header, part.header_len);
	lua_pushliteral(state, "\r\n");
	policy_pcre_replace(state, part.body, part.body_len, pattern, with);
	lua_concat(state, 3);
	set_raw(state, 1);
	pass_up(state, 1);
	return 0;
}

static int raw_replace(lua_State *state)
{
	const char *pattern = luaL_checkstring(state, 2);
	const char *with = luaL_checkstring(state, 3);
	const char *text;
	size_t len;

	check_writable(state, 1);
	text = push_raw(state, 1, &len);
	policy_pcre_replace(state, text, len, pattern, with);
	set_raw(state, 1);
	pass_up(state, 1);
	return 0;
}

/* ---- text ---- */

static void set_transfer(lua_State *state, int index, enum policy_transfer transfer)
{
	const char *name = policy_transfers[transfer];

	set_field(state, index, "Content-Transfer-Encoding", name, strlen(name),
		  POLICY_FIELD_REPLACE);
}

/* The text on top, encoded, is the body of the part at `index`. */
static void set_body(lua_State *state, int index, enum policy_transfer transfer)
{
	size_t len;
	const char *text = lua_tolstring(state, -1, &len);

	policy_push_encoded(state, text, len, transfer);
	lua_setfield(state, index, "raw_body");
	lua_pop(state, 1);
}

/* text(): see policy_part_text(). text(value[, type[, charset]]): that instead of its body. */
static int text(lua_State *state)
{
	struct policy_content content;

	if (lua_isnoneornil(state, 2)) {
		return policy_part_text(state);
	}
	check_writable(state, 1);
	content = policy_check_content(state);
	let_go(state, 1);
	set_body(state, 1, POLICY_QUOTED);
	set_field(state, 1, "Content-Type", content.field, strlen(content.field),
		  POLICY_FIELD_REPLACE);
	set_transfer(state, 1, POLICY_QUOTED);
	lua_getfield(state, 1, "parent");
	if (lua_isnil(state, -1)) {
		set_field(state, 1, "MIME-Version", "1.0", strlen("1.0"), POLICY_FIELD_REPLACE);
	}
	pass_up(state, 1);
	return 0;
}

static int text_match(lua_State *state)
{
	const char *pattern = luaL_checkstring(state, 2);
	const char *subject;
	size_t len;

	if (policy_part_text(state) == 0) {
		return 0;
	}
	subject = lua_tolstring(state, -1, &len);
	return policy_pcre_match(state, subject, len, pattern);
}

static bool is_plain(const char *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if ((bytes[i] & 0x80) != 0) {
			return false;
		}
	}
	return true;
}

/* As it was encoded before; what was plain and is not any more is encoded now. */
static enum policy_transfer transfer_for(lua_State *state, const struct mime_part *part)
{
	size_t len;
	const char *now = lua_tolstring(state, -1, &len);

	if (part->encoding == MIME_BASE64) {
		return POLICY_BASE64;
	}
	if (part->encoding == MIME_QUOTED_PRINTABLE) {
		return POLICY_QUOTED;
	}
	return is_plain(part->body, part->body_len) && !is_plain(now, len) ? POLICY_QUOTED
									   : POLICY_8BIT;
}

/* In the text of the part at `index`, which has no parts: true when that changed it. */
static bool replace_in(lua_State *state, int index, const char *pattern, const char *with)
{
	struct mime_part part = policy_part_at(state, index);
	enum policy_transfer transfer;
	char charset[64];
	const char *subject;
	bool converted;
	size_t len;

	converted = policy_push_text(state, &part) &&
		    policy_part_parameter(&part, "charset", charset, sizeof(charset));
	subject = lua_tolstring(state, -1, &len);
	policy_pcre_replace(state, subject, len, pattern, with);
	if (lua_rawequal(state, -1, -2) != 0) {
		lua_pop(state, 2);
		return false;
	}
	lua_remove(state, -2);
	if (converted && !policy_convert(state, charset, "utf-8")) {
		luaL_error(state, "the text cannot be written in %s", charset);
	}
	transfer = transfer_for(state, &part);
	set_body(state, index, transfer);
	if (part.encoding == MIME_PLAIN && transfer == POLICY_QUOTED) {
		set_transfer(state, index, transfer);
	}
	return true;
}

/* In the part on top, and all parts in it, whose bodies are made anew: true when that changed any.
 */
static bool replace_all(lua_State *state, const char *pattern, const char *with, int depth)
{
	int index = lua_gettop(state);
	struct mime_part part = policy_part_at(state, index);
	bool changed = false;

	if (depth > DEPTH_MAX) {
		luaL_error(state, "more than %d parts in parts", DEPTH_MAX);
	}
	luaL_checkstack(state, 16, "parts");
	if (strncmp(part.type, "text/", 5) == 0) {
		return replace_in(state, index, pattern, with);
	}
	lua_getfield(state, index, "parts");
	luaL_checktype(state, -1, LUA_TTABLE);
	for (int i = 1; i <= (int)lua_objlen(state, index + 1); i++) {
		lua_rawgeti(state, index + 1, i);
		changed |= replace_all(state, pattern, with, depth + 1);
		lua_settop(state, index + 1);
	}
	lua_settop(state, index);
	if (changed) {
		make_body(state);
	}
	return changed;
}

/* text_replace(pattern, text): in all its texts, in UTF-8. */
static int text_replace(lua_State *state)
{
	const char *pattern = luaL_checkstring(state, 2);
	const char *with = luaL_checkstring(state, 3);

	check_writable(state, 1);
	lua_pushvalue(state, 1);
	if (replace_all(state, pattern, with, 0)) {
		pass_up(state, 1);
	}
	return 0;
}

static int msg_text_replace(lua_State *state)
{
	luaL_checkstring(state, 2);
	luaL_checkstring(state, 3);
	lua_settop(state, 3);
	lua_getfield(state, 1, "mime");
	lua_pushvalue(state, 1);
	lua_pushboolean(state, 0);
	lua_call(state, 2, 1);
	lua_replace(state, 1);
	return text_replace(state);
}

/* ---- places ---- */

/* Where the part at `index` is among the parts of what it is in, whose array is on top; 0: it is
 * not. */
static int place_of(lua_State *state, int index)
{
	for (int i = 1; i <= (int)lua_objlen(state, -1); i++) {
		bool same;

		lua_rawgeti(state, -1, i);
		same = lua_rawequal(state, -1, index) != 0;
		lua_pop(state, 1);
		if (same) {
			return i;
		}
	}
	return 0;
}

/* Takes the part at `index` out of what it is in, which is pushed; false, and nothing: it is in
 * nothing. */
static bool take_out(lua_State *state, int index)
{
	int at;

	lua_pushvalue(state, index);
	if (!push_parent(state)) {
		lua_pop(state, 1);
		return false;
	}
	lua_remove(state, -2);
	lua_getfield(state, -1, "parts");
	luaL_checktype(state, -1, LUA_TTABLE);
	at = place_of(state, index);
	for (int i = at; at > 0 && i <= (int)lua_objlen(state, -1); i++) {
		lua_rawgeti(state, -1, i + 1);
		lua_rawseti(state, -2, i);
	}
	lua_pop(state, 1);
	lua_pushnil(state);
	lua_setfield(state, index, "parent");
	/* It is on top of a tree of its own. */
	lua_pushboolean(state, 1);
	lua_setfield(state, index, "writable");
	return true;
}

/* unlink(): true, or false for what is on top of all. */
static int unlink_part(lua_State *state)
{
	bool was_in;

	check_writable(state, 1);
	lua_settop(state, 1);
	was_in = take_out(state, 1);
	if (was_in) {
		make_body(state);
		pass_up(state, 2);
	}
	lua_pushboolean(state, was_in);
	return 1;
}

/* Whether the part at `index` may come into the multipart at `container`: it is no message, and not
 * one that has that in it. */
static bool may_come(lua_State *state, int container, int index)
{
	char boundary[BOUNDARY_BYTES];
	bool good = get_boundary(state, container, boundary);
	int top = lua_gettop(state);
	bool more = true;

	lua_getfield(state, index, "message");
	good = good && lua_isnil(state, -1);
	lua_pushvalue(state, container);
	for (int depth = 0; more && depth <= DEPTH_MAX; depth++) {
		good = good && lua_rawequal(state, -1, index) == 0;
		more = push_parent(state);
	}
	lua_settop(state, top);
	return good;
}

/* Puts the part at `index` into the multipart at `container`: before or behind the part at `other`
 * (`step` 0 or 1); without one (0), first or last. Pushes whether that could be. */
static int put_in(lua_State *state, int container, int index, int other, int step)
{
	int count;
	int at;

	check_writable(state, container);
	check_writable(state, index);
	if (!may_come(state, container, index) ||
	    (other != 0 && lua_rawequal(state, other, index))) {
		lua_pushboolean(state, 0);
		return 1;
	}
	if (take_out(state, index)) {
		make_body(state);
		pass_up(state, lua_gettop(state));
		lua_pop(state, 1);
	}
	lua_getfield(state, container, "parts");
	luaL_checktype(state, -1, LUA_TTABLE);
	count = (int)lua_objlen(state, -1);
	at = other == 0 ? (step == 0 ? 1 : count + 1) : place_of(state, other) + step;
	for (int i = count; i >= at; i--) {
		lua_rawgeti(state, -1, i);
		lua_rawseti(state, -2, i + 1);
	}
	lua_pushvalue(state, index);
	lua_rawseti(state, -2, at);
	lua_pop(state, 1);
	lua_pushvalue(state, container);
	lua_setfield(state, index, "parent");
	pass_up(state, index);
	lua_pushboolean(state, 1);
	return 1;
}

static int add_first_child(lua_State *state)
{
	lua_settop(state, 2);
	return put_in(state, 1, 2, 0, 0);
}

static int add_last_child(lua_State *state)
{
	lua_settop(state, 2);
	return put_in(state, 1, 2, 0, 1);
}

/* Beside the part that argument 2 is. */
static int insert(lua_State *state, int step)
{
	lua_settop(state, 2);
	policy_check_part(state, 1);
	policy_check_part(state, 2);
	if (!push_parent(state)) {
		lua_pushboolean(state, 0);
		return 1;
	}
	return put_in(state, 3, 1, 2, step);
}

static int insert_before(lua_State *state)
{
	return insert(state, 0);
}

static int insert_after(lua_State *state)
{
	return insert(state, 1);
}

void policy_open_part(lua_State *state)
{
	static const luaL_Reg methods[] = {
		{"header", header},
		{"address_header", address_header},
		{"text", text},
		{"text_match", text_match},
		{"text_replace", text_replace},
		{"body_match", body_match},
		{"body_replace", body_replace},
		{"raw_match", raw_match},
		{"raw_replace", raw_replace},
		{"addFirstChild", add_first_child},
		{"addLastChild", add_last_child},
		{"insertBefore", insert_before},
		{"insertAfter", insert_after},
		{"unlink", unlink_part},
		{NULL, NULL},
	};
	static const luaL_Reg of_message[] = {{"text_replace", msg_text_replace}, {NULL, NULL}};

	luaL_getmetatable(state, "msgpart");
	lua_getfield(state, -1, "__index");
	luaL_register(state, NULL, methods);
	luaL_getmetatable(state, "msg");
	lua_getfield(state, -1, "__index");
	luaL_register(state, NULL, of_message);
	lua_settop(state, 1);
}
