#include "core/mail/bounce_text.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How far behind an address, or a phrase, its reason may reach. */
#define REASON_MAX 600

/* What only a mail system says; the recipient follows, or is in the same sentence. */
static const char *const phrases[] = {
	"hi. this is the ",
	"wasn't able to deliver your message",
	"created automatically by mail delivery software",
	"this is the mail system at host",
	"addresses had permanent fatal errors",
	"addresses had permanent delivery errors",
	"addresses had delivery problems",
	"addresses failed",
	"delivery has failed to these recipients",
	"did not reach the following recipient",
	"did not reach some or all of the intended recipients",
	"recipient(s) cannot be reached",
	"recipients could not be reached",
	"delivery to the following recipient",
	"could not be delivered to",
	"couldn't be delivered to",
	"wasn't delivered to",
	"was not delivered to",
	"unable to deliver your message to",
	"unable to deliver message to",
	"undeliverable to the following",
	"konnte nicht zugestellt werden",
	"n'a pas pu etre remis",
	"no se ha podido entregar",
};

/* Of an original message below the report; what is behind is nobody's reason. */
static const char *const endings[] = {
	"--- Below this line is a copy of the message",
	"------ This is a copy of",
	"--- Undelivered message follows",
	"----- Original message",
	"-----Original Message",
	"------ The body of the message",
	"Original message headers:",
	"Return-Path: <",
};

static bool is_local_char(char c)
{
	return isalnum((unsigned char)c) ||
	       (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~.", c) != NULL) || (unsigned char)c >= 0x80;
}

static bool is_domain_char(char c)
{
	return isalnum((unsigned char)c) || c == '-' || c == '.' || (unsigned char)c >= 0x80;
}

bool bounce_text_address(const char *text, size_t len, char address[ADDRESS_MAX + 1])
{
	const char *end = text + len;

	address[0] = '\0';
	for (const char *at = memchr(text, '@', len); at != NULL;
	     at = memchr(at + 1, '@', (size_t)(end - at - 1))) {
		const char *from = at;
		const char *to = at + 1;

		while (from > text && is_local_char(from[-1])) {
			from--;
		}
		while (to < end && is_domain_char(*to)) {
			to++;
		}
		while (to > at + 1 && (to[-1] == '.' || to[-1] == '-')) {
			to--;
		}
		/* 'name@example.com' has its quotes for people. */
		while (from < at && *from == '\'') {
			from++;
		}
		if (from < at && to > at + 1 && to - from <= ADDRESS_MAX) {
			memcpy(address, from, (size_t)(to - from));
			address[to - from] = '\0';
			return true;
		}
	}
	return false;
}

void bounce_text_fold(const char *from, size_t len, char *to, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len && n < size - 1; i++) {
		unsigned char c = (unsigned char)from[i];

		if (c > ' ' && c != 127) {
			to[n++] = (char)c;
		} else if (n > 0 && to[n - 1] != ' ') {
			to[n++] = ' ';
		}
	}
	n -= n > 0 && to[n - 1] == ' ';
	to[n] = '\0';
}

/* ---- codes ---- */

/* Length of "5.1.1" at `p`, or 0. */
static size_t status_length(const char *p)
{
	size_t len = 1;

	if ((*p != '4' && *p != '5') || p[1] != '.') {
		return 0;
	}
	for (unsigned i = 0; i < 2; i++) {
		size_t n = p[len] == '.' ? strspn(p + len + 1, "0123456789") : 0;

		if (n == 0 || n > 3) {
			return 0;
		}
		len += 1 + n;
	}
	/* Not an IP address or a version. */
	return p[len] == '.' && isdigit((unsigned char)p[len + 1]) ? 0 : len;
}

static bool is_code(const char *p)
{
	return (*p == '4' || *p == '5') && p[1] >= '0' && p[1] <= '7' &&
	       isdigit((unsigned char)p[2]) && !isalnum((unsigned char)p[3]) && p[3] != '.';
}

void bounce_text_codes(struct report_recipient *x)
{
	bool starts = true;

	for (const char *p = x->text; *p != '\0'; p++) {
		size_t len = starts ? status_length(p) : 0;

		if (len != 0 && x->status[0] == '\0') {
			memcpy(x->status, p, len);
			x->status[len] = '\0';
		}
		if (starts && x->code == 0 && len == 0 && is_code(p)) {
			x->code = (unsigned)(p[0] - '0') * 100 + (unsigned)(p[1] - '0') * 10 +
				  (unsigned)(p[2] - '0');
		}
		starts = !isalnum((unsigned char)*p) && *p != '.';
	}
}

/* ---- recipients ---- */

/* One more that failed; `reason` up to `len` bytes. */
static void add(struct report *r, const char *address, const char *reason, size_t len)
{
	struct report_recipient *x;

	for (unsigned i = 0; i < r->recipient_count; i++) {
		if (strcasecmp(r->recipients[i].address, address) == 0) {
			return;
		}
	}
	if (r->recipient_count == REPORT_RECIPIENTS_MAX) {
		return;
	}
	x = &r->recipients[r->recipient_count++];
	*x = (struct report_recipient){.action = REPORT_FAILED};
	snprintf(x->address, sizeof(x->address), "%s", address);
	bounce_text_fold(reason, len, x->text, sizeof(x->text));
	bounce_text_codes(x);
	r->kind = REPORT_BOUNCE;
}

/* Up to the empty line that ends what belongs together, REASON_MAX bytes at most. */
static size_t paragraph(const char *text)
{
	size_t len = strspn(text, " \t\r\n");

	while (text[len] != '\0' && len < REASON_MAX) {
		const char *next = text + len + 1;

		next += *next == '\r';
		if (text[len] == '\n' && (*next == '\n' || *next == '\0')) {
			break;
		}
		len++;
	}
	return len;
}

/* `<address>: reason` and `<address>:` with the reason below, at the start of a line: qmail,
 * Postfix and those who write like them. */
static void parse_paragraphs(const char *text, struct report *r)
{
	char address[ADDRESS_MAX + 1];

	for (const char *line = text; line != NULL && *line != '\0';) {
		const char *close = *line == '<' ? strchr(line, '>') : NULL;
		const char *colon = close != NULL ? close + 1 + strspn(close + 1, " ") : NULL;
		const char *next;

		if (close != NULL && close - line <= ADDRESS_MAX + 1 &&
		    (*colon == ':' || *colon == '(') &&
		    bounce_text_address(line + 1, (size_t)(close - line - 1), address)) {
			colon += *colon == ':';
			add(r, address, colon, paragraph(colon));
		}
		next = strchr(line, '\n');
		line = next != NULL ? next + 1 : NULL;
	}
}

/* An address that is known to have failed: what stands behind it, where it is named. */
static void parse_known(const char *text, const char *failed, struct report *r)
{
	char address[ADDRESS_MAX + 1];

	while (*failed != '\0') {
		size_t len = strcspn(failed, ",");

		if (bounce_text_address(failed, len, address)) {
			const char *named = strcasestr(text, address);
			const char *reason = named != NULL ? named + strlen(address) : text;

			reason += strspn(reason, ">:");
			add(r, address, reason, paragraph(reason));
		}
		failed += len + (failed[len] == ',');
	}
}

static const char *find_phrase(const char *text)
{
	const char *first = NULL;

	for (size_t i = 0; i < sizeof(phrases) / sizeof(phrases[0]); i++) {
		const char *found = strcasestr(text, phrases[i]);

		if (found != NULL && (first == NULL || found < first)) {
			first = found;
		}
	}
	return first;
}

/* The first address behind the phrase, and what follows it. */
static void parse_phrase(const char *text, struct report *r)
{
	char address[ADDRESS_MAX + 1];
	const char *reason;
	size_t len = strlen(text);

	if (!bounce_text_address(text, len, address)) {
		return;
	}
	reason = strstr(text, address) + strlen(address);
	reason += strspn(reason, ">)'\":");
	len = strlen(reason);
	/* The reason may be in any paragraph behind it. */
	add(r, address, reason, len < REASON_MAX ? len : REASON_MAX);
}

static size_t report_length(const char *text)
{
	size_t len = strlen(text);

	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
		const char *end = strstr(text, endings[i]);

		if (end != NULL && (size_t)(end - text) < len) {
			len = (size_t)(end - text);
		}
	}
	return len;
}

void bounce_text_parse(const char *text, const char *failed, bool from_daemon, struct report *r)
{
	char *own = strndup(text, report_length(text));
	const char *phrase;

	if (own == NULL) {
		return;
	}
	phrase = find_phrase(own);
	if (failed != NULL) {
		parse_known(own, failed, r);
	}
	if (r->recipient_count == 0 && (from_daemon || phrase != NULL)) {
		parse_paragraphs(own, r);
	}
	if (r->recipient_count == 0 && phrase != NULL) {
		parse_phrase(phrase, r);
	} else if (r->recipient_count == 0 && from_daemon) {
		parse_phrase(own, r);
	}
	free(own);
}
