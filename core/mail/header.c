#include "core/mail/header.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/runtime/check.h"

#define NAME_MAX_BYTES 255
/* Of a line, without its CR LF: RFC 5322 section 2.1.1. */
#define COLUMNS 77
#define TAB_COLUMNS 8
#define PEER_MAX (INET6_ADDRSTRLEN + 16)
#define TLS_TEXT_MAX 96

/* A field in the making. */
struct field {
	char *text;
	size_t len;
	size_t column;
};

static void field_put(struct field *f, const char *text, size_t len)
{
	ASSERT(f->len + len < HEADER_RECEIVED_MAX);
	memcpy(f->text + f->len, text, len);
	f->len += len;
	f->column += len;
}

static void field_fold(struct field *f)
{
	field_put(f, "\r\n\t", 3);
	f->column = TAB_COLUMNS;
}

/* A word, on this line or the next. */
static void field_word(struct field *f, const char *word)
{
	size_t len = strlen(word);

	if (f->column > TAB_COLUMNS) {
		if (f->column + 1 + len > COLUMNS) {
			field_fold(f);
		} else {
			field_put(f, " ", 1);
		}
	}
	field_put(f, word, len);
}

/* Words that belong together: on a line of their own rather than torn apart. */
static void field_clause(struct field *f, const char *const *words, unsigned count)
{
	size_t len = 0;

	for (unsigned i = 0; i < count; i++) {
		len += 1 + strlen(words[i]);
	}
	if (f->column + len > COLUMNS) {
		field_fold(f);
	}
	for (unsigned i = 0; i < count; i++) {
		field_word(f, words[i]);
	}
}

/* A name that someone else chose, as one word without parentheses, quotes and semicolons, so that
 * it can end no clause. */
static void name_clean(char to[NAME_MAX_BYTES + 1], const char *name)
{
	size_t len = strnlen(name, NAME_MAX_BYTES);

	for (size_t i = 0; i < len; i++) {
		char c = name[i];
		bool good = c > ' ' && c < 127 && strchr("()\";\\<>,", c) == NULL;

		to[i] = '?';
		if (good) {
			to[i] = c;
		}
	}
	if (len == 0) {
		memcpy(to, "unknown", 7);
		len = 7;
	}
	to[len] = '\0';
}

/* Each message has a field: what it always has is written without printf, which takes ten times as
 * long. */

static char *text_put(char *at, const char *text)
{
	size_t len = strlen(text);

	memcpy(at, text, len);
	return at + len;
}

/* In at least `width` digits. */
static char *number_put(char *at, unsigned number, unsigned width)
{
	char digits[10];
	unsigned n = 0;

	do {
		digits[n++] = (char)('0' + number % 10);
		number /= 10;
	} while (number != 0 || n < width);
	while (n > 0) {
		*at++ = digits[--n];
	}
	return at;
}

static char *ipv4_put(char *at, const uint8_t ip[4])
{
	for (unsigned i = 0; i < 4; i++) {
		at = i > 0 ? text_put(at, ".") : at;
		at = number_put(at, ip[i], 1);
	}
	return at;
}

static char *ipv6_put(char *at, const uint8_t ip[16])
{
	at = text_put(at, "IPv6:");
	inet_ntop(AF_INET6, ip, at, INET6_ADDRSTRLEN);
	return at + strlen(at);
}

/* "([1.2.3.4])" or "([IPv6:...])" */
static void peer_format(char text[PEER_MAX], const uint8_t ip[16])
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	bool ipv4 = memcmp(ip, mapped, sizeof(mapped)) == 0;
	char *at = text_put(text, "([");

	at = ipv4 ? ipv4_put(at, ip + 12) : ipv6_put(at, ip);
	at = text_put(at, "])");
	*at = '\0';
}

/* RFC 3848, RFC 6531 section 4.3. */
static const char *protocol_name(const struct header_received *r)
{
	static const char *const names[2][2][2] = {
		{{"ESMTP", "ESMTPA"}, {"ESMTPS", "ESMTPSA"}},
		{{"UTF8SMTP", "UTF8SMTPA"}, {"UTF8SMTPS", "UTF8SMTPSA"}},
	};

	return r->protocol == ENVELOPE_SMTP ? "SMTP" : names[r->smtputf8][r->tls][r->auth];
}

static void put_from(struct field *f, const struct header_received *r)
{
	char helo[NAME_MAX_BYTES + 1];
	char peer[PEER_MAX] = "";

	name_clean(helo, r->helo);
	if (r->peer_ip != NULL) {
		peer_format(peer, r->peer_ip);
	}
	field_clause(f, (const char *const[]){"from", helo, peer}, r->peer_ip != NULL ? 3 : 2);
}

/* "with ESMTPS (TLSv1.3 TLS_AES_256_GCM_SHA384)" */
static void put_protocol(struct field *f, const struct header_received *r)
{
	char tls[TLS_TEXT_MAX];

	field_clause(f, (const char *const[]){"with", protocol_name(r)}, 2);
	if (r->tls && r->tls_version != NULL && r->tls_cipher != NULL) {
		snprintf(tls, sizeof(tls), "(%.20s %.60s)", r->tls_version, r->tls_cipher);
		field_clause(f, (const char *const[]){tls}, 1);
	}
}

static void put_id(struct field *f, const struct message_id *id)
{
	char text[MESSAGE_ID_TEXT + 1];

	message_id_format(id, text);
	memcpy(text + MESSAGE_ID_TEXT - 1, ";", 2);
	field_clause(f, (const char *const[]){"id", text}, 2);
}

size_t header_received_format(const struct header_received *r, char text[HEADER_RECEIVED_MAX])
{
	struct field f = {.text = text};
	char hostname[NAME_MAX_BYTES + 1];
	char date[HEADER_DATE_MAX];

	name_clean(hostname, r->hostname);
	header_date_format(r->time_s, date);
	field_put(&f, "Received:", 9);
	put_from(&f, r);
	field_clause(&f, (const char *const[]){"by", hostname}, 2);
	put_protocol(&f, r);
	put_id(&f, r->id);
	field_word(&f, date);
	field_put(&f, "\r\n", 2);
	f.text[f.len] = '\0';
	return f.len;
}

struct civil {
	unsigned year;
	/* 0: January. */
	unsigned month;
	unsigned day;
};

/* Days since 1970 to a date of the Gregorian calendar, by eras of 400 years that start in March. */
static struct civil civil_from_days(uint64_t days)
{
	uint64_t z = days + 719468;
	uint64_t era = z / 146097;
	uint64_t day_of_era = z % 146097;
	uint64_t year_of_era =
		(day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
	uint64_t day_of_year =
		day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
	uint64_t month_from_march = (5 * day_of_year + 2) / 153;
	unsigned month =
		(unsigned)(month_from_march < 10 ? month_from_march + 2 : month_from_march - 10);

	return (struct civil){
		.year = (unsigned)(year_of_era + era * 400 + (month < 2 ? 1 : 0)),
		.month = month,
		.day = (unsigned)(day_of_year - (153 * month_from_march + 2) / 5 + 1),
	};
}

size_t header_date_format(uint64_t time_s, char text[HEADER_DATE_MAX])
{
	static const char week_days[7][4] = {"Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"};
	static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
					   "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
	uint64_t days = time_s / 86400;
	unsigned second = (unsigned)(time_s % 86400);
	struct civil date = civil_from_days(days);
	char *at = text_put(text, week_days[days % 7]);

	at = number_put(text_put(at, ", "), date.day, 1);
	at = text_put(text_put(at, " "), months[date.month]);
	at = number_put(text_put(at, " "), date.year, 4);
	at = number_put(text_put(at, " "), second / 3600, 2);
	at = number_put(text_put(at, ":"), second / 60 % 60, 2);
	at = number_put(text_put(at, ":"), second % 60, 2);
	at = text_put(at, " +0000");
	*at = '\0';
	ASSERT(at - text < HEADER_DATE_MAX);
	return (size_t)(at - text);
}

/* Where the line at `line` ends, behind its LF, or `end`. */
static const char *line_after(const char *line, const char *end)
{
	const char *lf = memchr(line, '\n', (size_t)(end - line));

	return lf != NULL ? lf + 1 : end;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/* Where the value starts if the line is of field `name`, else NULL. */
static const char *value_of(const char *line, const char *end, const char *name)
{
	size_t name_len = strlen(name);

	if ((size_t)(end - line) <= name_len || strncasecmp(line, name, name_len) != 0) {
		return NULL;
	}
	for (line += name_len; line < end && is_blank(*line); line++) {
	}
	return line < end && *line == ':' ? line + 1 : NULL;
}

/* First line of the field, or NULL; the header ends with an empty line. */
static const char *field_find(const char *text, const char *end, const char *name)
{
	const char *value = NULL;

	while (value == NULL && text < end && *text != '\r' && *text != '\n') {
		value = value_of(text, end, name);
		text = line_after(text, end);
	}
	return value;
}

/* Lines that start with a blank continue the field. */
static const char *value_end(const char *value, const char *end)
{
	do {
		value = line_after(value, end);
	} while (value < end && is_blank(*value));
	return value;
}

static int value_copy(const char *from, const char *end, char *to, size_t size)
{
	size_t len = 0;

	for (; from < end && len < size - 1; from++) {
		unsigned char c = (unsigned char)*from;

		/* Folding leaves the blank that follows it. */
		if (c == '\r' || c == '\n') {
			continue;
		}
		if (c < ' ' || c == 127) {
			c = ' ';
		}
		if (c != ' ' || len > 0) {
			to[len++] = (char)c;
		}
	}
	while (len > 0 && to[len - 1] == ' ') {
		len--;
	}
	to[len] = '\0';
	return (int)len;
}

int header_find_in(const char *text, size_t len, const char *name, char *value, size_t size)
{
	const char *end = text + len;
	const char *found = field_find(text, end, name);

	ASSERT(size > 0);
	if (found == NULL) {
		value[0] = '\0';
		return -ENOENT;
	}
	return value_copy(found, value_end(found, end), value, size);
}

int header_find(const struct chain *body, const char *name, char *value, size_t size)
{
	char text[HEADER_SEARCH_MAX];
	size_t len = body->len < sizeof(text) ? (size_t)body->len : sizeof(text);

	chain_copy_out(body, 0, text, len);
	return header_find_in(text, len, name, value, size);
}

/* One of them, if it is there. */
static void capture_one(const char *text, size_t len, const char *key, struct context *to)
{
	char name[HEADER_NAME_MAX + 2];
	char value[HEADER_SEARCH_MAX];
	int found;

	snprintf(name, sizeof(name), "%s", key);
	name[strcspn(name, ":")] = '\0';
	found = header_find_in(text, len, name, value, sizeof(value));
	if (found > 0) {
		context_add(to, key, value, (size_t)found, CONTEXT_FIELDS_MAX);
	}
}

void header_capture(const struct chain *body, const char *const *keys, uint32_t count,
		    struct context *to)
{
	char text[HEADER_SEARCH_MAX];
	size_t len = body->len < sizeof(text) ? (size_t)body->len : sizeof(text);

	chain_copy_out(body, 0, text, len);
	for (uint32_t i = 0; i < count; i++) {
		capture_one(text, len, keys[i], to);
	}
}
