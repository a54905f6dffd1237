#include "core/log/event_json.h"

#include <stdbool.h>
#include <string.h>

#include "core/log/plain.h"
#include "core/mail/context.h"
#include "core/mail/utf8.h"
#include "core/runtime/check.h"
#include "core/runtime/hex.h"

/* What an object takes besides strings: keys, numbers, names of the kind, stage and class. */
#define FIXED_BYTES 1536
/* The longest that one octet becomes: \u00XX. */
#define OCTET_BYTES 6
/* Kept free for the ends of strings and objects. */
#define CLOSE_BYTES 8
#define NUMBER_BYTES 20

/* An object being written. */
struct json {
	char *at;
	const char *end;
	/* The next member has a comma before it. */
	bool comma;
};

#define ATTEMPTS                                                                                   \
	(1U << EVENT_DELIVERY | 1U << EVENT_TRANSIENT | 1U << EVENT_BOUNCE |                       \
	 1U << EVENT_EXPIRATION | 1U << EVENT_ADMIN_FAILURE)
#define MESSAGES (ATTEMPTS | 1U << EVENT_RECEPTION | 1U << EVENT_OUT_OF_BAND)
#define CONVERSATIONS                                                                              \
	((ATTEMPTS & ~(1U << EVENT_DELIVERY)) | 1U << EVENT_OUT_OF_BAND | 1U << EVENT_REJECTION)

/* The name of a member, with its quotes and colon. */
struct key {
	const char *text;
	size_t len;
};

#define KEY(name)                                                                                  \
	{                                                                                          \
		"\"" name "\":", sizeof("\"" name "\":") - 1                                       \
	}
#define MEMBER(name) (const struct key) KEY(name)

static const struct key keys[EVENT_FIELDS] = {
	[EVENT_RECIPIENT] = KEY("recipient"),
	[EVENT_SENDER] = KEY("sender"),
	[EVENT_REPLY] = KEY("text"),
	[EVENT_DOMAIN] = KEY("domain"),
	[EVENT_REPORTER] = KEY("reporter"),
	[EVENT_USER_STRING] = KEY("user_agent"),
	[EVENT_FEEDBACK_TYPE] = KEY("feedback_type"),
	[EVENT_ENHANCED] = KEY("enhanced_status"),
	[EVENT_BINDING_GROUP] = KEY("binding_group"),
	[EVENT_BINDING] = KEY("binding"),
	[EVENT_SITE] = KEY("site"),
	[EVENT_PROTOCOL] = KEY("protocol"),
	[EVENT_REMOTE_IP] = KEY("remote_ip"),
	[EVENT_REMOTE_NAME] = KEY("remote_name"),
	[EVENT_LOCAL_ADDRESS] = KEY("local_address"),
	[EVENT_TLS_VERSION] = KEY("tls_version"),
	[EVENT_TLS_CIPHER] = KEY("tls_cipher"),
	[EVENT_TLS_VERIFICATION] = KEY("tls_verification"),
	[EVENT_USER] = KEY("user"),
	[EVENT_AUTH_METHOD] = KEY("auth_method"),
};

static size_t room(const struct json *j)
{
	return (size_t)(j->end - j->at);
}

static void put(struct json *j, const char *text, size_t len)
{
	memcpy(j->at, text, len);
	j->at += len;
}

/* The escape of an octet that cannot be itself in a string; its length, or 0. */
static size_t escape(unsigned char c, char to[OCTET_BYTES])
{
	static const char named[] = "\"\"\\\\\bb\ff\nn\rr\tt";

	if (c >= ' ' && c != '"' && c != '\\') {
		return 0;
	}
	to[0] = '\\';
	for (const char *p = named; *p != '\0'; p += 2) {
		if (c == (unsigned char)p[0]) {
			to[1] = p[1];
			return 2;
		}
	}
	to[1] = 'u';
	to[2] = '0';
	to[3] = '0';
	to[4] = HEX_DIGITS[c >> 4];
	to[5] = HEX_DIGITS[c & 15];
	return OCTET_BYTES;
}

/* One character of a string that no run took; returns the octets that it had. */
static size_t put_character(struct json *j, const char *text, size_t len)
{
	char escaped[OCTET_BYTES];
	size_t n = escape((unsigned char)*text, escaped);

	if (n > 0) {
		put(j, escaped, n);
		return 1;
	}
	n = utf8_sequence(text, len);
	if (n == 0) {
		put(j, "\xef\xbf\xbd", 3);
		return 1;
	}
	put(j, text, n);
	return n;
}

/* In quotes; the end is left out when there is no room for it. */
static void put_string(struct json *j, const char *text, size_t len)
{
	*j->at++ = '"';
	while (len > 0 && room(j) > OCTET_BYTES + CLOSE_BYTES) {
		size_t most = room(j) - CLOSE_BYTES;
		size_t n = log_plain_run(text, len < most ? len : most, '"');

		if (n > 0) {
			put(j, text, n);
		} else {
			n = put_character(j, text, len);
		}
		text += n;
		len -= n;
	}
	*j->at++ = '"';
}

/* A name, and room for `more` bytes behind it and for the ends; false: there is none. */
static bool begin(struct json *j, struct key key, size_t more)
{
	if (room(j) < key.len + 1 + more + CLOSE_BYTES) {
		return false;
	}
	if (j->comma) {
		*j->at++ = ',';
	}
	put(j, key.text, key.len);
	j->comma = true;
	return true;
}

static void put_text(struct json *j, struct key key, const char *text)
{
	if (begin(j, key, 2)) {
		put_string(j, text, strlen(text));
	}
}

static void put_number(struct json *j, struct key key, uint64_t n)
{
	char digits[NUMBER_BYTES];
	unsigned i = NUMBER_BYTES;

	if (!begin(j, key, NUMBER_BYTES)) {
		return;
	}
	do {
		digits[--i] = (char)('0' + n % 10);
		n /= 10;
	} while (n != 0);
	put(j, digits + i, NUMBER_BYTES - i);
}

static void put_boolean(struct json *j, struct key key, bool value)
{
	if (begin(j, key, 5)) {
		put(j, value ? "true" : "false", value ? 4 : 5);
	}
}

/* As it is in other logs; 0: not at all. */
static void put_hex(struct json *j, struct key key, uint64_t n)
{
	unsigned nibbles = n != 0 ? (67U - (unsigned)__builtin_clzll(n)) / 4 : 0;

	if (n == 0 || !begin(j, key, 2 + 16)) {
		return;
	}
	*j->at++ = '"';
	while (nibbles > 0) {
		nibbles--;
		put(j, &HEX_DIGITS[n >> (4 * nibbles) & 15], 1);
	}
	*j->at++ = '"';
}

static bool is_of(const struct event *e, uint32_t kinds)
{
	return (kinds >> e->kind & 1) != 0;
}

static void put_head(struct json *j, const struct event *e)
{
	char id[MESSAGE_ID_TEXT];

	put_text(j, MEMBER("type"), event_kind_name(e->kind));
	put_number(j, MEMBER("time_ms"), e->time_ms);
	if (event_has_id(e)) {
		message_id_format(&e->id, id);
		put_text(j, MEMBER("id"), id);
	}
	put_hex(j, MEMBER("batch"), e->batch);
	put_hex(j, MEMBER("connection"), e->connection);
}

static void put_numbers(struct json *j, const struct event *e, const struct bounce_rules *rules)
{
	const char *name;

	if (is_of(e, MESSAGES)) {
		put_number(j, MEMBER("size_bytes"), e->size);
	}
	if (is_of(e, ATTEMPTS)) {
		put_number(j, MEMBER("attempt"), (uint64_t)e->retries + 1);
		put_number(j, MEMBER("queued_ms"), e->queued_ms);
	}
	if (is_of(e, CONVERSATIONS)) {
		put_number(j, MEMBER("stage"), (uint64_t)e->stage);
		put_text(j, MEMBER("stage_name"), smtp_stage_name(e->stage));
	}
	if (e->code != 0) {
		put_number(j, MEMBER("code"), e->code);
	}
	if (e->bounce_class != 0) {
		put_number(j, MEMBER("bounce_class"), e->bounce_class);
		name = rules != NULL ? bounce_class_name(rules, e->bounce_class) : NULL;
		if (name != NULL) {
			put_text(j, MEMBER("bounce_class_name"), name);
		}
	}
	if (e->kind == EVENT_OUT_OF_BAND) {
		put_boolean(j, MEMBER("permanent"), e->permanent);
	}
	if (e->kind == EVENT_AUTHENTICATION) {
		put_boolean(j, MEMBER("granted"), e->granted);
	}
}

/* The null sender is a sender, too. */
static void put_fields(struct json *j, const struct event *e)
{
	for (unsigned i = 0; i < EVENT_FIELDS; i++) {
		const char *text = event_field(e, (enum event_field)i);

		if (text[0] != '\0' || (i == EVENT_SENDER && is_of(e, MESSAGES))) {
			put_text(j, keys[i], text);
		}
	}
}

/* What a pair of the context is: a field of the header, metadata, or the program's own. */
enum pair { PAIR_FIELD, PAIR_METADATA, PAIR_OWN };

static enum pair pair_of(const char *key)
{
	return key[0] == ':' ? PAIR_OWN : key[strlen(key) - 1] == ':' ? PAIR_FIELD : PAIR_METADATA;
}

/* A member whose name may be any text. */
static void put_pair(struct json *j, const char *key, size_t len, const char *value)
{
	if (room(j) < OCTET_BYTES * len + 6 + CLOSE_BYTES) {
		return;
	}
	if (j->comma) {
		put(j, ",", 1);
	}
	put_string(j, key, len);
	put(j, ":", 1);
	put_string(j, value, strlen(value));
	j->comma = true;
}

/* The pairs of one kind as an object of their own, if there are any. */
static void put_pairs(struct json *j, const struct event *e, struct key name, enum pair kind)
{
	const char *key;
	const char *value;
	size_t at = 0;
	bool any = false;

	while (context_next(e->context, e->context_len, &at, &key, &value)) {
		size_t len = strlen(key) - (kind == PAIR_FIELD ? 1 : 0);

		if (pair_of(key) != kind) {
			continue;
		}
		if (!any) {
			if (!begin(j, name, 1)) {
				return;
			}
			put(j, "{", 1);
			j->comma = false;
			any = true;
		}
		put_pair(j, key, len, value);
	}
	if (any) {
		put(j, "}", 1);
		j->comma = true;
	}
}

/* Domains with spaces between. */
static void put_list(struct json *j, struct key name, const char *words)
{
	if (!begin(j, name, 2 + OCTET_BYTES * strlen(words) + strlen(words))) {
		return;
	}
	put(j, "[", 1);
	while (*words != '\0') {
		size_t len = strcspn(words, " ");

		put_string(j, words, len);
		words += len;
		words += strspn(words, " ");
		if (*words != '\0') {
			put(j, ",", 1);
		}
	}
	put(j, "]", 1);
}

static void put_context(struct json *j, const struct event *e)
{
	const char *signers;

	if (e->context_len == 0) {
		return;
	}
	signers = context_find(e->context, e->context_len, CONTEXT_DKIM);
	if (signers != NULL) {
		put_list(j, MEMBER("dkim_domains"), signers);
	}
	put_pairs(j, e, MEMBER("headers"), PAIR_FIELD);
	put_pairs(j, e, MEMBER("context"), PAIR_METADATA);
}

size_t event_json_room(const struct event *e)
{
	size_t bytes = FIXED_BYTES + OCTET_BYTES * (size_t)e->record_bytes;

	return bytes < EVENT_JSON_MAX ? bytes : EVENT_JSON_MAX;
}

size_t event_json(char *to, size_t size, const struct event *e, const struct bounce_rules *rules)
{
	struct json j = {to, to + size, false};

	ASSERT(size >= FIXED_BYTES);
	put(&j, "{", 1);
	put_head(&j, e);
	put_numbers(&j, e, rules);
	put_fields(&j, e);
	put_context(&j, e);
	put(&j, "}", 1);
	ASSERT(j.at <= j.end);
	return (size_t)(j.at - to);
}
