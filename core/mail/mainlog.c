#include "core/mail/mainlog.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "core/mail/utf8.h"
#include "core/runtime/check.h"

#define LOCAL_MAX 256
#define DOMAIN_MAX 1020
#define WORD_MAX 128
#define NUMBER_MAX 20

/* The longest line is of type B: two addresses, a text, three words, the prefix and numbers, and a
 * separator before each of its 15 other fields. */
_Static_assert(2 * (LOCAL_MAX + DOMAIN_MAX) + MAINLOG_TEXT_MAX + 3 * WORD_MAX + MESSAGE_ID_TEXT +
			       6 * NUMBER_MAX + 15 + 2 <=
		       MAINLOG_LINE_MAX,
	       "no line is longer");

/* Where the next byte of the line goes. */
struct line {
	char *start;
	char *at;
};

static const char hex[] = "0123456789abcdef";

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
		put(l, hex[n >> (4 * nibbles) & 15]);
	}
}

/* Writes the escape of a byte, if it needs one; returns its length, else 0. */
static size_t escape(unsigned char c, char to[4])
{
	static const char *const named = "@@\\\\\nn\rr\tt";

	if (c > '\\' && c != 127) {
		return 0;
	}
	for (const char *p = named; *p != '\0'; p += 2) {
		if (c == (unsigned char)p[0]) {
			to[0] = '\\';
			to[1] = p[1];
			return 2;
		}
	}
	if (c >= ' ' && c != 127) {
		return 0;
	}
	to[0] = '\\';
	to[1] = 'x';
	to[2] = hex[c >> 4];
	to[3] = hex[c & 15];
	return 4;
}

/* One character, escaped if need be. Returns how many bytes of `text` it took; 0: no room. */
static size_t put_character(struct line *l, const char *text, size_t len, size_t room)
{
	char escaped[4];
	size_t n = escape((unsigned char)*text, escaped);
	size_t taken = 1;

	if (n > 0) {
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

/* How many bytes from the first on are themselves in the log, one by one. */
static size_t plain_run(const char *text, size_t len)
{
	/* ASCII but for controls, '@' and '\\'. */
	static const bool plain[256] = {
		[' ' ... '?'] = true, ['A' ... '['] = true, [']' ... '~'] = true};
	size_t n = 0;

	while (n < len && plain[(unsigned char)text[n]]) {
		n++;
	}
	return n;
}

static void put_escaped(struct line *l, const char *text, size_t len, size_t max)
{
	const char *limit = l->at + max;

	while (len > 0) {
		size_t room = (size_t)(limit - l->at);
		size_t n = plain_run(text, len < room ? len : room);

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

size_t mainlog_escape(const char *text, size_t len, char *to, size_t max)
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

static void put_time_and_id(struct line *l, const struct mainlog_prefix *prefix)
{
	put_number(l, prefix->time_s);
	put(l, '@');
	if (prefix->id != NULL) {
		message_id_format(prefix->id, l->at);
		l->at += MESSAGE_ID_TEXT - 1;
	}
}

static void put_prefix(struct line *l, const struct mainlog_prefix *prefix, const char *type)
{
	put_time_and_id(l, prefix);
	put(l, '@');
	put_hex(l, prefix->batch);
	put(l, '@');
	put_hex(l, prefix->connection);
	put_field(l, type, WORD_MAX);
}

static size_t line_close(struct line *l)
{
	size_t len;

	put(l, '\n');
	len = (size_t)(l->at - l->start);
	ASSERT(len <= MAINLOG_LINE_MAX);
	return len;
}

size_t mainlog_reception(char line[MAINLOG_LINE_MAX], const struct mainlog_reception *r)
{
	struct line l = {line, line};

	put_prefix(&l, &r->prefix, "R");
	put_address_fields(&l, r->recipient);
	put_address_fields(&l, r->sender);
	put_field(&l, r->peer_ip, WORD_MAX);
	put_number_field(&l, r->size);
	put_field(&l, r->protocol, WORD_MAX);
	put_field(&l, r->binding_group, WORD_MAX);
	put_field(&l, r->binding, WORD_MAX);
	return line_close(&l);
}

static void put_attempt_head(struct line *l, const struct mainlog_attempt *a, const char *type)
{
	put_prefix(l, &a->prefix, type);
	put_field(l, a->domain, DOMAIN_MAX);
	put_number_field(l, a->size);
	put_field(l, a->binding_group, WORD_MAX);
	put_field(l, a->binding, WORD_MAX);
}

static void put_attempt_tail(struct line *l, const struct mainlog_attempt *a)
{
	put_number_field(l, a->retries);
	put_number_field(l, a->queued_s);
	put_field(l, a->remote_ip, WORD_MAX);
}

size_t mainlog_delivery(char line[MAINLOG_LINE_MAX], const struct mainlog_attempt *a)
{
	struct line l = {line, line};

	put_attempt_head(&l, a, "D");
	put_attempt_tail(&l, a);
	for (unsigned i = 0; i < 3 && a->tls[i] != NULL; i++) {
		put(&l, i == 0 ? '@' : ':');
		put_escaped(&l, a->tls[i], strlen(a->tls[i]), WORD_MAX);
	}
	return line_close(&l);
}

static size_t failure(char line[MAINLOG_LINE_MAX], const struct mainlog_attempt *a,
		      const char *type)
{
	struct line l = {line, line};

	put_attempt_head(&l, a, type);
	put_number_field(&l, (uint64_t)a->stage);
	put_attempt_tail(&l, a);
	put_field(&l, a->text, MAINLOG_TEXT_MAX);
	return line_close(&l);
}

size_t mainlog_transient(char line[MAINLOG_LINE_MAX], const struct mainlog_attempt *a)
{
	return failure(line, a, "T");
}

size_t mainlog_permanent(char line[MAINLOG_LINE_MAX], const struct mainlog_attempt *a)
{
	return failure(line, a, "P");
}

size_t mainlog_rejection(char line[MAINLOG_LINE_MAX], const struct mainlog_rejection *r)
{
	struct line l = {line, line};

	put_prefix(&l, &r->prefix, "J");
	put_field(&l, r->peer_ip, WORD_MAX);
	put_number_field(&l, (uint64_t)r->stage);
	put_number_field(&l, r->code);
	put_address_fields(&l, r->sender);
	put_address_fields(&l, r->recipient);
	put_field(&l, r->text, MAINLOG_TEXT_MAX);
	return line_close(&l);
}

size_t mainlog_bounce(char line[MAINLOG_LINE_MAX], const struct mainlog_bounce *b)
{
	struct line l = {line, line};

	put_prefix(&l, &b->prefix, b->permanent ? "B" : "T");
	put_address_fields(&l, b->recipient);
	put_address_fields(&l, b->sender);
	put_field(&l, b->binding_group, WORD_MAX);
	put_field(&l, b->binding, WORD_MAX);
	put_number_field(&l, (uint64_t)b->stage);
	put_number_field(&l, b->bounce_class);
	put_number_field(&l, b->size);
	put_field(&l, b->remote_ip, WORD_MAX);
	put_field(&l, b->text, MAINLOG_TEXT_MAX);
	return line_close(&l);
}

size_t mainlog_feedback(char line[MAINLOG_LINE_MAX], const struct mainlog_feedback *f)
{
	struct line l = {line, line};

	put_time_and_id(&l, &f->prefix);
	put_field(&l, "F", WORD_MAX);
	put_address_fields(&l, f->recipient);
	put_field(&l, f->binding, WORD_MAX);
	put_field(&l, f->binding_group, WORD_MAX);
	put_field(&l, f->feedback_type, WORD_MAX);
	put_field(&l, f->domain, DOMAIN_MAX);
	put_field(&l, f->user_string, MAINLOG_TEXT_MAX);
	return line_close(&l);
}

size_t mainlog_heartbeat(char line[MAINLOG_LINE_MAX], uint64_t time_s)
{
	struct mainlog_prefix prefix = {.time_s = time_s};
	struct line l = {line, line};

	put_prefix(&l, &prefix, "M1");
	return line_close(&l);
}

/* The next "@" that no backslash precedes, or `end`. */
static const char *field_end(const char *p, const char *end)
{
	while (p < end && *p != '@') {
		p += *p == '\\' && p + 1 < end ? 2 : 1;
	}
	return p;
}

const char *mainlog_field(const char *line, size_t len, unsigned index, size_t *field_len)
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

/* 0 to 15, or -1. */
static int hex_value(char c)
{
	const char *p = c != '\0' ? strchr(hex, c) : NULL;

	return p != NULL ? (int)(p - hex) : -1;
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
	if (len < 3 || *p != 'x' || hex_value(p[1]) < 0 || hex_value(p[2]) < 0) {
		return 0;
	}
	*to = (char)(hex_value(p[1]) << 4 | hex_value(p[2]));
	return 3;
}

int mainlog_unescape(const char *field, size_t len, char *to)
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
