#include "core/log/event_text.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "core/log/plain.h"
#include "core/mail/utf8.h"
#include "core/runtime/check.h"
#include "core/runtime/hex.h"
#include "core/runtime/text.h"

#define LOCAL_MAX 256
#define DOMAIN_MAX 1020
#define WORD_MAX 128
#define ACCT_MAX 256
#define NUMBER_MAX 20

/* The longest line is of type B: two addresses, a text, three words, the prefix and numbers, and a
 * separator before each of its 15 other fields. */
_Static_assert(2 * (LOCAL_MAX + DOMAIN_MAX) + EVENT_TEXT_MAX + 3 * WORD_MAX + MESSAGE_ID_TEXT +
			       6 * NUMBER_MAX + 15 + 2 <=
		       EVENT_TEXT_LINE_MAX,
	       "no line is longer");

/* Where the next byte of the line goes. */
struct line {
	char *start;
	char *at;
};

static void put(struct line *l, char c)
{
	*l->at++ = c;
}

static void put_number(struct line *l, uint64_t n)
{
	char digits[NUMBER_MAX];
	unsigned i = NUMBER_MAX;

	do {
		digits[--i] = (char)('0' + n % 10);
		n /= 10;
	} while (n != 0);
	memcpy(l->at, digits + i, NUMBER_MAX - i);
	l->at += NUMBER_MAX - i;
}

/* 0: nothing. */
static void put_hex(struct line *l, uint64_t n)
{
	unsigned nibbles = n != 0 ? (67U - (unsigned)__builtin_clzll(n)) / 4 : 0;

	while (nibbles > 0) {
		nibbles--;
		put(l, HEX_DIGITS[n >> (4 * nibbles) & 15]);
	}
}

static bool needs_escape(unsigned char c)
{
	return c < ' ' || c == 127 || c == '@' || c == '\\';
}

/* One character, escaped if need be. Returns how many bytes of `text` it took; 0: no room. */
static size_t put_character(struct line *l, const char *text, size_t len, size_t room)
{
	char escaped[TEXT_ESCAPE];
	size_t taken = 1;
	size_t n;

	if (needs_escape((unsigned char)*text)) {
		n = text_escape_octet((unsigned char)*text, escaped);
		text = escaped;
	} else {
		taken = utf8_sequence(text, len);
		taken = taken != 0 ? taken : 1;
		n = taken;
	}
	if (n > room) {
		return 0;
	}
	memcpy(l->at, text, n);
	l->at += n;
	return taken;
}

static void put_escaped(struct line *l, const char *text, size_t len, size_t max)
{
	const char *limit = l->at + max;

	while (len > 0) {
		size_t room = (size_t)(limit - l->at);
		size_t n = log_plain_run(text, len < room ? len : room, '@');

		if (n > 0) {
			memcpy(l->at, text, n);
			l->at += n;
		} else {
			n = put_character(l, text, len, room);
		}
		if (n == 0) {
			return;
		}
		text += n;
		len -= n;
	}
}

size_t event_text_escape(const char *text, size_t len, char *to, size_t max)
{
	struct line l = {.at = to};

	put_escaped(&l, text, len, max);
	return (size_t)(l.at - to);
}

static void put_field(struct line *l, const char *text, size_t max)
{
	put(l, '@');
	if (text != NULL) {
		put_escaped(l, text, strlen(text), max);
	}
}

static void put_number_field(struct line *l, uint64_t n)
{
	put(l, '@');
	put_number(l, n);
}

/* Local part and domain as two fields; both empty for the null sender. */
static void put_address_fields(struct line *l, const char *address)
{
	const char *at;

	address = address != NULL ? address : "";
	at = strrchr(address, '@');
	put(l, '@');
	put_escaped(l, address, at != NULL ? (size_t)(at - address) : strlen(address), LOCAL_MAX);
	put_field(l, at != NULL ? at + 1 : NULL, DOMAIN_MAX);
}

static void put_time_and_id(struct line *l, const struct event *e)
{
	put_number(l, e->time_ms / 1000);
	put(l, '@');
	if (event_has_id(e)) {
		message_id_format(&e->id, l->at);
		l->at += MESSAGE_ID_TEXT - 1;
	}
}

static void put_prefix(struct line *l, const struct event *e, const char *type)
{
	put_time_and_id(l, e);
	put(l, '@');
	put_hex(l, e->batch);
	put(l, '@');
	put_hex(l, e->connection);
	put_field(l, type, WORD_MAX);
}

static void put_binding(struct line *l, const struct event *e)
{
	put_field(l, e->text[EVENT_BINDING_GROUP], WORD_MAX);
	put_field(l, e->text[EVENT_BINDING], WORD_MAX);
}

static void put_addresses(struct line *l, const struct event *e)
{
	put_address_fields(l, e->text[EVENT_RECIPIENT]);
	put_address_fields(l, e->text[EVENT_SENDER]);
}

static void reception(struct line *l, const struct event *e)
{
	put_prefix(l, e, "R");
	put_addresses(l, e);
	put_field(l, e->text[EVENT_REMOTE_IP], WORD_MAX);
	put_number_field(l, e->size);
	put_field(l, e->text[EVENT_PROTOCOL], WORD_MAX);
	put_binding(l, e);
}

static void put_attempt_head(struct line *l, const struct event *e, const char *type)
{
	put_prefix(l, e, type);
	put_field(l, e->text[EVENT_DOMAIN], DOMAIN_MAX);
	put_number_field(l, e->size);
	put_binding(l, e);
}

static void put_attempt_tail(struct line *l, const struct event *e)
{
	put_number_field(l, e->retries);
	put_number_field(l, e->queued_ms / 1000);
	put_field(l, e->text[EVENT_REMOTE_IP], WORD_MAX);
}

/* Version, cipher and verification, only when the session had TLS. */
static void delivery(struct line *l, const struct event *e)
{
	put_attempt_head(l, e, "D");
	put_attempt_tail(l, e);
	for (unsigned i = EVENT_TLS_VERSION; i <= EVENT_TLS_VERIFICATION; i++) {
		const char *text = event_field(e, (enum event_field)i);

		if (text[0] == '\0') {
			break;
		}
		put(l, i == EVENT_TLS_VERSION ? '@' : ':');
		put_escaped(l, text, strlen(text), WORD_MAX);
	}
}

static void failure(struct line *l, const struct event *e, const char *type)
{
	put_attempt_head(l, e, type);
	put_number_field(l, (uint64_t)e->stage);
	put_attempt_tail(l, e);
	put_field(l, e->text[EVENT_REPLY], EVENT_TEXT_MAX);
}

static void bounce(struct line *l, const struct event *e, const char *type)
{
	put_prefix(l, e, type);
	put_addresses(l, e);
	put_binding(l, e);
	put_number_field(l, (uint64_t)e->stage);
	put_number_field(l, e->bounce_class);
	put_number_field(l, e->size);
	put_field(l, e->text[EVENT_REMOTE_IP], WORD_MAX);
	put_field(l, e->text[EVENT_REPLY], EVENT_TEXT_MAX);
}

static void rejection(struct line *l, const struct event *e)
{
	put_prefix(l, e, "J");
	put_field(l, e->text[EVENT_REMOTE_IP], WORD_MAX);
	put_number_field(l, (uint64_t)e->stage);
	put_number_field(l, e->code);
	put_address_fields(l, e->text[EVENT_SENDER]);
	put_address_fields(l, e->text[EVENT_RECIPIENT]);
	put_field(l, e->text[EVENT_REPLY], EVENT_TEXT_MAX);
}

static void feedback(struct line *l, const struct event *e)
{
	put_time_and_id(l, e);
	put_field(l, "F", WORD_MAX);
	put_address_fields(l, e->text[EVENT_RECIPIENT]);
	put_field(l, e->text[EVENT_BINDING], WORD_MAX);
	put_field(l, e->text[EVENT_BINDING_GROUP], WORD_MAX);
	put_field(l, e->text[EVENT_FEEDBACK_TYPE], WORD_MAX);
	put_field(l, e->text[EVENT_REPORTER], DOMAIN_MAX);
	put_field(l, e->text[EVENT_USER_STRING], EVENT_TEXT_MAX);
}

/* Who answers is an SMTP listener, so far. */
static void authentication(struct line *l, const struct event *e)
{
	put_number(l, e->time_ms / 1000);
	put_field(l, "N", WORD_MAX);
	put_field(l, "esmtp", ACCT_MAX);
	put_field(l, e->text[EVENT_REMOTE_IP], ACCT_MAX);
	put_field(l, e->text[EVENT_USER], ACCT_MAX);
	put_field(l, e->granted ? "1" : "0", WORD_MAX);
}

/* As failures are in the main log (P), and in the bounce log (B). */
static void lost(struct line *l, enum log_file log, const struct event *e)
{
	if (log == LOG_MAIN) {
		failure(l, e, "P");
	} else {
		bounce(l, e, "B");
	}
}

static void put_event(struct line *l, enum log_file log, const struct event *e)
{
	switch (e->kind) {
	case EVENT_RECEPTION:
		return reception(l, e);
	case EVENT_DELIVERY:
		return delivery(l, e);
	case EVENT_TRANSIENT:
		return log == LOG_MAIN ? failure(l, e, "T") : bounce(l, e, "T");
	case EVENT_BOUNCE:
	case EVENT_EXPIRATION:
	case EVENT_ADMIN_FAILURE:
		return lost(l, log, e);
	case EVENT_OUT_OF_BAND:
		return bounce(l, e, e->permanent ? "B" : "T");
	case EVENT_FEEDBACK:
		return feedback(l, e);
	case EVENT_REJECTION:
		return rejection(l, e);
	case EVENT_AUTHENTICATION:
		return authentication(l, e);
	case EVENT_HEARTBEAT:
		return put_prefix(l, e, "M1");
	case EVENT_KINDS:
		break;
	}
}

size_t event_text(char line[EVENT_TEXT_LINE_MAX], enum log_file log, const struct event *e)
{
	struct line l = {line, line};
	size_t len;

	if ((event_logs(e->kind) >> log & 1) == 0) {
		return 0;
	}
	put_event(&l, log, e);
	len = (size_t)(l.at - l.start);
	ASSERT(len <= EVENT_TEXT_LINE_MAX);
	return len;
}

/* The next "@" that no backslash precedes, or `end`. */
static const char *field_end(const char *p, const char *end)
{
	while (p < end && *p != '@') {
		p += *p == '\\' && p + 1 < end ? 2 : 1;
	}
	return p;
}

const char *event_text_field(const char *line, size_t len, unsigned index, size_t *field_len)
{
	const char *end = line + len;
	const char *stop;

	if (len > 0 && end[-1] == '\n') {
		end--;
	}
	for (stop = field_end(line, end); index > 0; index--) {
		if (stop == end) {
			return NULL;
		}
		line = stop + 1;
		stop = field_end(line, end);
	}
	*field_len = (size_t)(stop - line);
	return line;
}

/* `p` is behind the backslash. Returns how many bytes were used; 0: no escape of ours. */
static size_t unescape(const char *p, size_t len, char *to)
{
	static const char *const named = "@@\\\\n\nr\rt\t";

	for (const char *n = named; len > 0 && *n != '\0'; n += 2) {
		if (*p == n[0]) {
			*to = n[1];
			return 1;
		}
	}
	if (len < 3 || *p != 'x' || hex_own_value(p[1]) < 0 || hex_own_value(p[2]) < 0) {
		return 0;
	}
	*to = (char)(hex_own_value(p[1]) << 4 | hex_own_value(p[2]));
	return 3;
}

int event_text_unescape(const char *field, size_t len, char *to)
{
	int n = 0;

	for (size_t i = 0; i < len; n++) {
		size_t used;

		if (field[i] != '\\') {
			to[n] = field[i++];
			continue;
		}
		used = unescape(field + i + 1, len - i - 1, &to[n]);
		if (used == 0) {
			return -EINVAL;
		}
		i += 1 + used;
	}
	return n;
}
