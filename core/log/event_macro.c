#include "core/log/event_macro.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/log/plain.h"
#include "core/mail/context.h"
#include "core/mail/utf8.h"
#include "core/runtime/check.h"
#include "core/runtime/hex.h"
#include "core/runtime/text.h"

#define SANITIZE_ESCAPE 1U
#define SANITIZE_REPLACE 0x100U

/* Longest argument in braces; longest time that strftime() makes; digits behind a point. */
#define ARGUMENT_MAX 64
#define TIME_BYTES 256
#define DECIMALS_MAX 9
/* What a part that is no string takes at most. */
#define PART_BYTES 64

enum macro {
	LITERAL,
	TIME_SECONDS,
	TIME_FORMATTED,
	TIME_DECIMALS,
	MESSAGE_ID,
	BATCH,
	CONNECTION,
	/* Of an address, `field` says of which. */
	LOCAL_PART,
	DOMAIN_PART,
	FIELD,
	SIZE,
	/* `text` is its key. */
	PAIR,
	ATTEMPTS,
	STAGE_NAME,
	STAGE,
	CLASS_NAME,
	CLASS,
	QUEUED,
};

enum argument {
	ARGUMENT_NONE,
	ARGUMENT_TIME,
	ARGUMENT_DECIMALS,
	ARGUMENT_HEADER,
	ARGUMENT_KEY,
	ARGUMENT_CONNECTION_KEY,
};

READONLY
struct part {
	enum macro macro;
	enum event_field field;
	uint8_t decimals;
	/* A header field's. */
	bool is_header;
	char *text;
	uint32_t len;
};

READONLY
struct event_macro {
	struct part *parts;
	uint32_t count;
	/* Bytes of what is no string, and how many strings there are. */
	uint32_t fixed;
	uint32_t strings;
};

/* Longer names stand before those that they begin with. */
static const struct macro_row {
	const char *name;
	enum argument argument;
	enum macro macro;
	enum event_field field;
} rows[] = {
	{"vctx_mess{", ARGUMENT_KEY, PAIR, 0},
	{"vctx_conn{", ARGUMENT_CONNECTION_KEY, PAIR, 0},
	{"us{", ARGUMENT_DECIMALS, TIME_DECIMALS, 0},
	{"t{", ARGUMENT_TIME, TIME_FORMATTED, 0},
	{"h{", ARGUMENT_HEADER, PAIR, 0},
	{"T{", ARGUMENT_DECIMALS, QUEUED, 0},
	{"BI", ARGUMENT_NONE, BATCH, 0},
	{"CI", ARGUMENT_NONE, CONNECTION, 0},
	{"t", ARGUMENT_NONE, TIME_SECONDS, 0},
	{"i", ARGUMENT_NONE, MESSAGE_ID, 0},
	{"r", ARGUMENT_NONE, LOCAL_PART, EVENT_RECIPIENT},
	{"R", ARGUMENT_NONE, DOMAIN_PART, EVENT_RECIPIENT},
	{"m", ARGUMENT_NONE, LOCAL_PART, EVENT_SENDER},
	{"M", ARGUMENT_NONE, DOMAIN_PART, EVENT_SENDER},
	{"b", ARGUMENT_NONE, FIELD, EVENT_BINDING},
	{"g", ARGUMENT_NONE, FIELD, EVENT_BINDING_GROUP},
	{"d", ARGUMENT_NONE, FIELD, EVENT_DOMAIN},
	{"B", ARGUMENT_NONE, SIZE, 0},
	{"H", ARGUMENT_NONE, FIELD, EVENT_REMOTE_IP},
	{"P", ARGUMENT_NONE, FIELD, EVENT_LOCAL_ADDRESS},
	{"p", ARGUMENT_NONE, FIELD, EVENT_PROTOCOL},
	{"A", ARGUMENT_NONE, FIELD, EVENT_AUTH_METHOD},
	{"U", ARGUMENT_NONE, FIELD, EVENT_USER},
	{"n", ARGUMENT_NONE, FIELD, EVENT_REPLY},
	{"N", ARGUMENT_NONE, ATTEMPTS, 0},
	{"s", ARGUMENT_NONE, STAGE_NAME, 0},
	{"S", ARGUMENT_NONE, STAGE, 0},
	{"c", ARGUMENT_NONE, CLASS_NAME, 0},
	{"C", ARGUMENT_NONE, CLASS, 0},
	{"T", ARGUMENT_NONE, QUEUED, 0},
};

/* ---- sanitizing ---- */

void event_sanitizer_init(struct event_sanitizer *s)
{
	*s = (struct event_sanitizer){.plain = true};
	for (unsigned c = 0; c < ' '; c++) {
		s->octets[c] = SANITIZE_ESCAPE;
	}
	s->octets[127] = SANITIZE_ESCAPE;
	s->octets['\\'] = SANITIZE_ESCAPE;
}

/* "tr/ABC/abc/": lists of as many printable ASCII characters. */
static const char *add_translation(struct event_sanitizer *s, const char *rule)
{
	const char *from = rule + 3;
	size_t count = strcspn(from, "/");
	const char *to = from + count + 1;

	if (count == 0 || from[count] == '\0' || strcspn(to, "/") != count ||
	    strcmp(to + count, "/") != 0) {
		return "is no tr/FROM/TO/ with two lists of one length";
	}
	for (size_t i = 0; i < 2 * count + 1; i++) {
		if (from[i] < ' ' || from[i] > '~') {
			return "has other characters than printable ASCII";
		}
	}
	s->plain = false;
	for (size_t i = 0; i < count; i++) {
		s->octets[(unsigned char)from[i]] =
			(uint16_t)(SANITIZE_REPLACE | (unsigned char)to[i]);
	}
	return NULL;
}

const char *event_sanitizer_add(struct event_sanitizer *s, const char *rule)
{
	if (strncmp(rule, "tr/", 3) == 0) {
		return add_translation(s, rule);
	}
	if (strcmp(rule, "special_characters") == 0) {
		s->plain = false;
		for (const char *p = "@\"',;|="; *p != '\0'; p++) {
			s->octets[(unsigned char)*p] = SANITIZE_ESCAPE;
		}
		return NULL;
	}
	if (strcmp(rule, "non_printable") == 0) {
		for (unsigned c = 0; c < 128; c++) {
			s->octets[c] = c < ' ' || c == 127 ? SANITIZE_REPLACE | '?' : s->octets[c];
		}
		s->utf8 = true;
		return NULL;
	}
	return "is unknown";
}

/* ---- compiling ---- */

static struct part *add_part(struct event_macro *m, enum macro macro)
{
	if ((m->count & (m->count - 1)) == 0) {
		size_t room = m->count != 0 ? 2 * (size_t)m->count : 1;

		m->parts =
			check_memory(realloc(m->parts, room * sizeof(*m->parts)), "a log format");
	}
	m->parts[m->count] = (struct part){.macro = macro};
	return &m->parts[m->count++];
}

static void set_text(struct part *p, const char *text, size_t len)
{
	p->text = check_memory(strndup(text, len), "a log format");
	p->len = (uint32_t)len;
}

static const char *add_literal(struct event_macro *m, const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (((unsigned char)text[i] < ' ' && text[i] != '\t') || text[i] == 127) {
			return "has a control character";
		}
	}
	if (len > 0) {
		set_text(add_part(m, LITERAL), text, len);
		m->fixed += (uint32_t)len;
	}
	return NULL;
}

static const char *set_decimals(struct part *p, const char *text, size_t len)
{
	if (len != 1 || text[0] < '0' || text[0] > '0' + DECIMALS_MAX) {
		return "expected a number of decimals from 0 to 9";
	}
	p->decimals = (uint8_t)(text[0] - '0');
	return NULL;
}

/* Its name in lower case, with a colon. */
static const char *set_header(struct part *p, const char *text, size_t len)
{
	char key[ARGUMENT_MAX + 1];

	for (size_t i = 0; i < len; i++) {
		if (text[i] <= ' ' || text[i] > '~' || text[i] == ':') {
			return "expected the name of a header field";
		}
		key[i] = (char)tolower((unsigned char)text[i]);
	}
	key[len] = ':';
	set_text(p, key, len + 1);
	p->is_header = true;
	return NULL;
}

static const char *set_key(struct part *p, const char *before, const char *text, size_t len)
{
	char key[ARGUMENT_MAX + sizeof(CONTEXT_CONNECTION)];

	if (text[0] == ':' || text[len - 1] == ':') {
		return "expected a key without a colon";
	}
	set_text(p, key, (size_t)snprintf(key, sizeof(key), "%s%.*s", before, (int)len, text));
	return NULL;
}

/* What stands in the braces. */
static const char *set_argument(struct part *p, const struct macro_row *row, const char *text,
				size_t len)
{
	if (len == 0 || len >= ARGUMENT_MAX) {
		return "expected 1 to 63 characters in its braces";
	}
	switch (row->argument) {
	case ARGUMENT_DECIMALS:
		return set_decimals(p, text, len);
	case ARGUMENT_HEADER:
		return set_header(p, text, len);
	case ARGUMENT_KEY:
		return set_key(p, "", text, len);
	case ARGUMENT_CONNECTION_KEY:
		return set_key(p, CONTEXT_CONNECTION, text, len);
	case ARGUMENT_TIME:
	case ARGUMENT_NONE:
		break;
	}
	set_text(p, text, len);
	return NULL;
}

static const struct macro_row *find_row(const char *at)
{
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (strncmp(at, rows[i].name, strlen(rows[i].name)) == 0) {
			return &rows[i];
		}
	}
	return NULL;
}

static bool is_string(enum macro macro)
{
	return macro == LOCAL_PART || macro == DOMAIN_PART || macro == FIELD || macro == PAIR;
}

/* The macro behind a "%"; *at goes behind it. NULL, or what is wrong. */
static const char *add_macro(struct event_macro *m, const char **at)
{
	const struct macro_row *row = find_row(*at);
	const char *argument;
	struct part *p;
	size_t len;

	if (row == NULL) {
		return "is unknown";
	}
	p = add_part(m, row->macro);
	p->field = row->field;
	p->decimals = 2;
	if (is_string(row->macro)) {
		m->strings++;
	} else {
		m->fixed += row->macro == TIME_FORMATTED ? TIME_BYTES : PART_BYTES;
	}
	*at += strlen(row->name);
	if (row->argument == ARGUMENT_NONE) {
		return NULL;
	}
	argument = *at;
	len = strcspn(argument, "}");
	if (argument[len] == '\0') {
		return "has no closing brace";
	}
	*at += len + 1;
	return set_argument(p, row, argument, len);
}

/* Up to the next "%", or that. */
static const char *add_next(struct event_macro *m, const char **at)
{
	size_t len = strcspn(*at, "%");
	const char *problem;

	if (len == 0 && (*at)[1] == '%') {
		problem = add_literal(m, "%", 1);
		*at += 2;
	} else if (len == 0) {
		++*at;
		problem = add_macro(m, at);
	} else {
		problem = add_literal(m, *at, len);
		*at += len;
	}
	return problem;
}

struct event_macro *event_macro_compile(const char *format, char why[EVENT_MACRO_WHY])
{
	struct event_macro *m = check_memory(calloc(1, sizeof(*m)), "a log format");
	const char *at = format;

	while (*at != '\0') {
		const char *start = at;
		const char *problem = add_next(m, &at);

		if (problem != NULL) {
			snprintf(why, EVENT_MACRO_WHY, "\"%.40s\" %s", start, problem);
			event_macro_free(m);
			return NULL;
		}
	}
	return m;
}

void event_macro_free(struct event_macro *m)
{
	if (m == NULL) {
		return;
	}
	for (uint32_t i = 0; i < m->count; i++) {
		free(m->parts[i].text);
	}
	free(m->parts);
	free(m);
}

const char *event_macro_header(const struct event_macro *m, uint32_t index)
{
	for (uint32_t i = 0; i < m->count; i++) {
		if (m->parts[i].is_header && index-- == 0) {
			return m->parts[i].text;
		}
	}
	return NULL;
}

/* ---- formatting ---- */

struct line {
	const struct event_sanitizer *sanitizer;
	char *at;
	const char *end;
};

static void put(struct line *l, const char *text, size_t len)
{
	size_t room = (size_t)(l->end - l->at);

	len = len < room ? len : room;
	memcpy(l->at, text, len);
	l->at += len;
}

/* Ours, and without anything that would tear a line. */
static void put_word(struct line *l, const char *text)
{
	put(l, text, strlen(text));
}

/* How an octet that is not itself is written; its length. */
static size_t sanitize(unsigned action, unsigned char c, char to[TEXT_ESCAPE])
{
	if ((action & SANITIZE_REPLACE) != 0) {
		to[0] = (char)(action & 255);
		return 1;
	}
	return text_escape_octet(c, to);
}

/* A character that no run took; returns how many octets it had, or 0: no room. */
static size_t put_character(struct line *l, const char *text, size_t len)
{
	unsigned char c = (unsigned char)*text;
	unsigned action = l->sanitizer->octets[c];
	size_t taken = c < 128 ? 1 : utf8_sequence(text, len);
	char written[TEXT_ESCAPE];
	size_t n;

	if (taken == 0) {
		taken = 1;
		action = l->sanitizer->utf8 ? SANITIZE_REPLACE | '?' : action;
	}
	n = taken;
	if (action != 0) {
		n = sanitize(action, c, written);
		text = written;
	}
	if (n > (size_t)(l->end - l->at)) {
		return 0;
	}
	put(l, text, n);
	return taken;
}

/* A value: cut at the end of the room, between characters. */
static void put_value(struct line *l, const char *text, size_t len)
{
	while (len > 0) {
		size_t room = (size_t)(l->end - l->at);
		size_t n = 0;

		if (l->sanitizer->plain) {
			n = log_plain_run(text, len < room ? len : room, '\\');
			put(l, text, n);
		}
		if (n == 0) {
			n = put_character(l, text, len);
		}
		if (n == 0) {
			return;
		}
		text += n;
		len -= n;
	}
}

static void put_number(struct line *l, uint64_t n, unsigned base)
{
	char digits[24];
	unsigned i = sizeof(digits);

	do {
		digits[--i] = HEX_DIGITS[n % base];
		n /= base;
	} while (n != 0);
	put(l, digits + i, sizeof(digits) - i);
}

/* Milliseconds as seconds with so many decimals, the rest cut off. */
static void put_seconds(struct line *l, uint64_t ms, unsigned decimals)
{
	char text[DECIMALS_MAX + 2] = ".000000000";

	put_number(l, ms / 1000, 10);
	text[1] = (char)('0' + ms / 100 % 10);
	text[2] = (char)('0' + ms / 10 % 10);
	text[3] = (char)('0' + ms % 10);
	put(l, text, decimals > 0 ? decimals + 1 : 0);
}

static void put_time(struct line *l, const char *format, uint64_t time_ms)
{
	time_t seconds = (time_t)(time_ms / 1000);
	char text[TIME_BYTES];
	struct tm tm;

	if (gmtime_r(&seconds, &tm) != NULL) {
		put_value(l, text, strftime(text, sizeof(text), format, &tm));
	}
}

static void put_address_part(struct line *l, const char *address, bool domain)
{
	const char *at = strrchr(address, '@');

	if (!domain) {
		put_value(l, address, at != NULL ? (size_t)(at - address) : strlen(address));
	} else if (at != NULL) {
		put_value(l, at + 1, strlen(at + 1));
	}
}

static void put_pair(struct line *l, const struct part *p, const struct event *e)
{
	const char *value = context_find(e->context, e->context_len, p->text);

	if (value != NULL) {
		put_value(l, value, strlen(value));
	}
}

static void put_id(struct line *l, const struct event *e)
{
	char id[MESSAGE_ID_TEXT];

	if (event_has_id(e)) {
		message_id_format(&e->id, id);
		put_word(l, id);
	}
}

/* The class, if the event has one. */
static void put_class_name(struct line *l, const struct event *e, const struct bounce_rules *rules)
{
	const char *name = e->bounce_class != 0 && rules != NULL
				   ? bounce_class_name(rules, e->bounce_class)
				   : NULL;

	if (name != NULL) {
		put_value(l, name, strlen(name));
	}
}

static void put_text_part(struct line *l, const struct part *p, const struct event *e)
{
	const char *text = event_field(e, p->field);

	switch (p->macro) {
	case LITERAL:
		put(l, p->text, p->len);
		break;
	case LOCAL_PART:
	case DOMAIN_PART:
		put_address_part(l, text, p->macro == DOMAIN_PART);
		break;
	case FIELD:
		put_value(l, text, strlen(text));
		break;
	case PAIR:
		put_pair(l, p, e);
		break;
	default:
		break;
	}
}

static void put_part(struct line *l, const struct part *p, const struct event *e,
		     const struct bounce_rules *rules)
{
	switch (p->macro) {
	case TIME_SECONDS:
		return put_number(l, e->time_ms / 1000, 10);
	case TIME_FORMATTED:
		return put_time(l, p->text, e->time_ms);
	case TIME_DECIMALS:
		return put_seconds(l, e->time_ms, p->decimals);
	case MESSAGE_ID:
		return put_id(l, e);
	case BATCH:
		return e->batch != 0 ? put_number(l, e->batch, 16) : (void)0;
	case CONNECTION:
		return e->connection != 0 ? put_number(l, e->connection, 16) : (void)0;
	case SIZE:
		return put_number(l, e->size, 10);
	case ATTEMPTS:
		return put_number(l, (uint64_t)e->retries + 1, 10);
	case STAGE_NAME:
		return put_word(l, smtp_stage_name(e->stage));
	case STAGE:
		return put_number(l, (uint64_t)e->stage, 10);
	case CLASS_NAME:
		return put_class_name(l, e, rules);
	case CLASS:
		return e->bounce_class != 0 ? put_number(l, e->bounce_class, 10) : (void)0;
	case QUEUED:
		return put_seconds(l, e->queued_ms, p->decimals);
	default:
		return put_text_part(l, p, e);
	}
}

size_t event_macro_room(const struct event_macro *m, const struct event *e)
{
	size_t bytes = m->fixed + (size_t)m->strings * 4 * e->record_bytes;

	return bytes < EVENT_MACRO_LINE_MAX ? bytes : EVENT_MACRO_LINE_MAX;
}

size_t event_macro_format(const struct event_macro *m, const struct event_sanitizer *s,
			  const struct event *e, const struct bounce_rules *rules, char *to,
			  size_t room)
{
	struct line l = {s, to, to + room};

	for (uint32_t i = 0; i < m->count; i++) {
		put_part(&l, &m->parts[i], e, rules);
	}
	return (size_t)(l.at - to);
}
