#include "core/mail/dns.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/runtime/check.h"

/* RFC 1035 section 2.3.4. */
#define LABEL_MAX 63
#define NAME_MAX_WIRE 255
/* Of `why` and the canonical name. */
#define TEXT_MAX 1024

static const struct {
	enum dns_type type;
	const char *name;
} types[] = {
	{DNS_A, "A"},     {DNS_AAAA, "AAAA"}, {DNS_MX, "MX"},
	{DNS_PTR, "PTR"}, {DNS_TXT, "TXT"},   {DNS_TLSA, "TLSA"},
};

/* ---- names ---- */

/* One byte of a label; at most four characters. */
static size_t put_byte(unsigned char byte, char *text)
{
	if (byte == '.' || byte == '\\') {
		text[0] = '\\';
		text[1] = (char)byte;
		return 2;
	}
	if (byte <= ' ' || byte >= 0x7f) {
		return (size_t)sprintf(text, "\\%03u", byte);
	}
	text[0] = (char)tolower(byte);
	return 1;
}

size_t dns_name_parse(const unsigned char *data, size_t len, char text[DNS_NAME_TEXT])
{
	size_t at = 0;
	size_t out = 0;

	while (at < len && at < NAME_MAX_WIRE) {
		size_t label = data[at++];

		if (label == 0) {
			text[out] = '\0';
			return at;
		}
		if (label > LABEL_MAX || label > len - at || at + label >= NAME_MAX_WIRE) {
			return 0;
		}
		if (out > 0) {
			text[out++] = '.';
		}
		for (size_t i = 0; i < label; i++) {
			out += put_byte(data[at++], text + out);
		}
	}
	return 0;
}

/* ---- making an answer ---- */

/* The answer's own memory, in one piece: the answer, its records, then text. */
struct maker {
	struct dns_answer *answer;
	struct dns_record *records;
	char *text;
};

static char *keep(struct maker *m, const void *data, size_t len)
{
	char *kept = m->text;

	if (len > 0) {
		memcpy(kept, data, len);
	}
	kept[len] = '\0';
	m->text += len + 1;
	return kept;
}

/* A name that fills the rest of the rdata. */
static const char *keep_name(struct maker *m, const unsigned char *data, size_t len)
{
	char text[DNS_NAME_TEXT];
	size_t used = dns_name_parse(data, len, text);

	return used != 0 && used == len ? keep(m, text, strlen(text)) : NULL;
}

/* Character strings, RFC 1035 section 3.3; at least one. */
static bool parse_txt(struct maker *m, const unsigned char *data, size_t len, struct dns_record *r)
{
	char *text = m->text;
	size_t at = 0;
	size_t out = 0;

	while (at < len) {
		size_t n = data[at++];

		if (n > len - at) {
			return false;
		}
		memcpy(text + out, data + at, n);
		out += n;
		at += n;
	}
	text[out] = '\0';
	m->text += out + 1;
	r->txt.text = text;
	r->txt.len = out;
	return len > 0;
}

static bool parse_tlsa(struct maker *m, const unsigned char *data, size_t len, struct dns_record *r)
{
	if (len < 4) {
		return false;
	}
	r->tlsa.usage = data[0];
	r->tlsa.selector = data[1];
	r->tlsa.matching = data[2];
	r->tlsa.len = len - 3;
	r->tlsa.data = (const unsigned char *)keep(m, data + 3, len - 3);
	return true;
}

static bool parse_record(struct maker *m, const unsigned char *data, size_t len,
			 struct dns_record *r)
{
	switch (m->answer->type) {
	case DNS_A:
		if (len == sizeof r->a) {
			memcpy(&r->a, data, sizeof r->a);
		}
		return len == sizeof r->a;
	case DNS_AAAA:
		if (len == sizeof r->aaaa) {
			memcpy(&r->aaaa, data, sizeof r->aaaa);
		}
		return len == sizeof r->aaaa;
	case DNS_MX:
		if (len < 3) {
			return false;
		}
		r->mx.preference = (uint16_t)(data[0] << 8 | data[1]);
		r->mx.exchange = keep_name(m, data + 2, len - 2);
		return r->mx.exchange != NULL;
	case DNS_PTR:
		r->ptr = keep_name(m, data, len);
		return r->ptr != NULL;
	case DNS_TXT:
		return parse_txt(m, data, len, r);
	case DNS_TLSA:
		return parse_tlsa(m, data, len, r);
	}
	return false;
}

/* What text and data of one record take. */
static size_t record_room(enum dns_type type, const unsigned char *data, size_t len)
{
	size_t skip = type == DNS_MX && len > 2 ? 2 : 0;
	char text[DNS_NAME_TEXT];

	if (type != DNS_MX && type != DNS_PTR) {
		return len + 1;
	}
	return dns_name_parse(data + skip, len - skip, text) != 0 ? strlen(text) + 1 : 0;
}

static size_t text_size(const char *text)
{
	return text != NULL ? strnlen(text, TEXT_MAX) + 1 : 0;
}

static size_t text_room(const struct dns_raw *raw, uint32_t count)
{
	size_t room = text_size(raw->canonical) + text_size(raw->why);

	for (uint32_t i = 0; i < count; i++) {
		room += record_room(raw->type, raw->rdata[i], raw->rdata_len[i]);
	}
	return room;
}

static void parse_records(struct maker *m, const struct dns_raw *raw, uint32_t count)
{
	struct dns_answer *a = m->answer;

	for (uint32_t i = 0; i < count; i++) {
		if (parse_record(m, raw->rdata[i], raw->rdata_len[i], &m->records[a->count])) {
			a->count++;
		} else {
			a->malformed++;
		}
	}
	if (a->status == DNS_FOUND && a->count == 0) {
		a->status = DNS_SERVFAIL;
		a->why = "the answer's records are malformed";
	}
}

static char *keep_text(struct maker *m, const char *text)
{
	return text != NULL && text[0] != '\0' ? keep(m, text, strnlen(text, TEXT_MAX)) : NULL;
}

/* Without the dot at its end. */
static const char *keep_name_text(struct maker *m, const char *text)
{
	char *kept = keep_text(m, text);
	size_t len = kept != NULL ? strlen(kept) : 0;

	if (len > 1 && kept[len - 1] == '.') {
		kept[len - 1] = '\0';
	}
	return kept;
}

struct dns_answer *dns_answer_create(const struct dns_raw *raw)
{
	uint32_t count = raw->count < DNS_RECORDS_MAX ? raw->count : DNS_RECORDS_MAX;
	size_t head = sizeof(struct dns_answer) + count * sizeof(struct dns_record);
	struct maker m = {.answer = check_memory(malloc(head + text_room(raw, count)),
						 "an answer of the name service")};

	*m.answer = (struct dns_answer){
		.references = 1,
		.type = raw->type,
		.status = raw->status,
		.rcode = raw->rcode,
		.secure = raw->secure,
		.ttl_s = raw->ttl_s,
	};
	m.records = (struct dns_record *)(void *)(m.answer + 1);
	m.answer->records = m.records;
	m.text = (char *)(m.records + count);
	m.answer->canonical = keep_name_text(&m, raw->canonical);
	m.answer->why = keep_text(&m, raw->why);
	parse_records(&m, raw, count);
	return m.answer;
}

struct dns_answer *dns_answer_hold(struct dns_answer *a)
{
	atomic_fetch_add_explicit(&a->references, 1, memory_order_relaxed);
	return a;
}

void dns_answer_release(struct dns_answer *a)
{
	if (a != NULL && atomic_fetch_sub_explicit(&a->references, 1, memory_order_acq_rel) == 1) {
		free(a);
	}
}

/* ---- words ---- */

const char *dns_type_name(enum dns_type type)
{
	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
		if (types[i].type == type) {
			return types[i].name;
		}
	}
	return NULL;
}

bool dns_type_parse(const char *name, enum dns_type *type)
{
	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
		if (strcasecmp(types[i].name, name) == 0) {
			*type = types[i].type;
			return true;
		}
	}
	return false;
}

const char *dns_status_name(enum dns_status status)
{
	static const char *const names[DNS_STATUSES] = {
		[DNS_FOUND] = "noerror",       [DNS_NXDOMAIN] = "nxdomain",
		[DNS_NODATA] = "nodata",       [DNS_SERVFAIL] = "servfail",
		[DNS_BOGUS] = "bogus",         [DNS_TIMEOUT] = "timeout",
		[DNS_CANCELLED] = "cancelled",
	};

	return names[status];
}

static void format_txt(const struct dns_record *r, char *text, size_t size)
{
	size_t out = 0;

	text[out++] = '"';
	for (size_t i = 0; i < r->txt.len && out + 6 < size; i++) {
		unsigned char c = (unsigned char)r->txt.text[i];

		if (c == '"' || c == '\\') {
			text[out++] = '\\';
			text[out++] = (char)c;
		} else if (c < ' ' || c >= 0x7f) {
			out += (size_t)sprintf(text + out, "\\%03u", c);
		} else {
			text[out++] = (char)c;
		}
	}
	text[out++] = '"';
	text[out] = '\0';
}

static void format_tlsa(const struct dns_record *r, char *text, size_t size)
{
	size_t out = (size_t)snprintf(text, size, "%u %u %u ", r->tlsa.usage, r->tlsa.selector,
				      r->tlsa.matching);

	for (size_t i = 0; i < r->tlsa.len && out + 3 < size; i++) {
		out += (size_t)sprintf(text + out, "%02x", r->tlsa.data[i]);
	}
}

void dns_record_format(enum dns_type type, const struct dns_record *r, char *text, size_t size)
{
	ASSERT(size >= 64);
	switch (type) {
	case DNS_A:
		inet_ntop(AF_INET, &r->a, text, (socklen_t)size);
		break;
	case DNS_AAAA:
		inet_ntop(AF_INET6, &r->aaaa, text, (socklen_t)size);
		break;
	case DNS_MX:
		snprintf(text, size, "%u %s.", r->mx.preference, r->mx.exchange);
		break;
	case DNS_PTR:
		snprintf(text, size, "%s.", r->ptr);
		break;
	case DNS_TXT:
		format_txt(r, text, size);
		break;
	case DNS_TLSA:
		format_tlsa(r, text, size);
		break;
	}
}
