/*
 * What the message is, is decided by the first that holds: a part of type message/feedback-report,
 * one of type message/delivery-status, X-Failed-Recipients, words of a mail system, marks of an
 * auto-reply (some of which bounces have too).
 */
#include "core/mail/dsn_parse.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/mail/address.h"
#include "core/mail/bounce_text.h"
#include "core/mail/header.h"
#include "core/mail/mime.h"
#include "core/runtime/check.h"

#define VALUE_MAX 1024

/* What the walk over the parts finds. */
struct finds {
	struct mime_part whole;
	struct mime_part status;
	struct mime_part feedback;
	struct mime_part original;
	struct mime_part text;
	bool text_is_html;
};

struct parser {
	struct finds finds;
	struct report *report;
	/* The text for people, decoded. */
	char *text;
	/* The part that is read now, decoded. */
	char *part;
};

static bool is_type(const struct mime_part *part, const char *a, const char *b)
{
	return strcmp(part->type, a) == 0 || (b != NULL && strcmp(part->type, b) == 0);
}

static bool on_part(void *context, const struct mime_part *part)
{
	struct finds *f = context;

	if (part->depth == 0) {
		f->whole = *part;
	}
	if (is_type(part, "message/delivery-status", "message/global-delivery-status")) {
		f->status = f->status.body == NULL ? *part : f->status;
	} else if (is_type(part, "message/feedback-report", NULL)) {
		f->feedback = f->feedback.body == NULL ? *part : f->feedback;
	} else if (is_type(part, "message/rfc822", "text/rfc822-headers") ||
		   is_type(part, "message/global", "message/global-headers")) {
		f->original = f->original.body == NULL ? *part : f->original;
	} else if (is_type(part, "text/plain", NULL)) {
		f->text = f->text.body == NULL || f->text_is_html ? *part : f->text;
		f->text_is_html = false;
	} else if (is_type(part, "text/html", NULL) && f->text.body == NULL) {
		f->text = *part;
		f->text_is_html = true;
	}
	return true;
}

/* A field of the message; false when it has none. */
static bool field(const struct parser *p, const char *name, char value[VALUE_MAX])
{
	const struct mime_part *whole = &p->finds.whole;

	return header_find_in(whole->header, whole->header_len, name, value, VALUE_MAX) >= 0;
}

/* ---- addresses ---- */

/* The address of a field such as `rfc822; <local@domain>`; false when there is none. */
static bool typed_address(const char *value, char address[ADDRESS_MAX + 1])
{
	const char *text = strchr(value, ';');

	text = text != NULL ? text + 1 : value;
	return bounce_text_address(text, strlen(text), address);
}

bool dsn_verp(const char *bounce_address, char recipient[ADDRESS_MAX + 1])
{
	const char *end = strrchr(bounce_address, '@');
	const char *from = bounce_address + strcspn(bounce_address, "+-");
	const char *equals;
	size_t local;
	size_t domain;

	recipient[0] = '\0';
	if (end == NULL || from >= end) {
		return false;
	}
	from++;
	equals = memrchr(from, '=', (size_t)(end - from));
	if (equals == NULL || equals == from) {
		return false;
	}
	local = (size_t)(equals - from);
	domain = (size_t)(end - equals - 1);
	if (local + 1 + domain > ADDRESS_MAX || !address_domain_valid(equals + 1, domain, true)) {
		return false;
	}
	memcpy(recipient, from, local);
	recipient[local] = '@';
	memcpy(recipient + local + 1, equals + 1, domain);
	recipient[local + 1 + domain] = '\0';
	return true;
}

/* ---- delivery status (RFC 3464) ---- */

static enum report_action action_of(const char *value)
{
	if (strncasecmp(value, "failed", 6) == 0) {
		return REPORT_FAILED;
	}
	return strncasecmp(value, "delayed", 7) == 0 ? REPORT_DELAYED : REPORT_DONE;
}

static void take_status(const char *value, struct report_recipient *x)
{
	size_t len = strspn(value, "0123456789.");

	if (len >= 5 && len < sizeof(x->status)) {
		memcpy(x->status, value, len);
		x->status[len] = '\0';
	}
}

/* The group of fields of one recipient; others are left alone. */
static void take_group(struct parser *p, const char *group, size_t len)
{
	struct report *r = p->report;
	struct report_recipient *x = &r->recipients[r->recipient_count];
	char value[VALUE_MAX];
	const char *diagnostic = value;

	if (r->recipient_count == REPORT_RECIPIENTS_MAX) {
		return;
	}
	*x = (struct report_recipient){.action = REPORT_FAILED};
	if (header_find_in(group, len, "Original-Recipient", value, sizeof(value)) < 0 ||
	    !typed_address(value, x->address)) {
		if (header_find_in(group, len, "Final-Recipient", value, sizeof(value)) < 0) {
			return;
		}
		typed_address(value, x->address);
	}
	r->recipient_count++;
	if (header_find_in(group, len, "Action", value, sizeof(value)) >= 0) {
		x->action = action_of(value);
	}
	if (header_find_in(group, len, "Status", value, sizeof(value)) >= 0) {
		take_status(value, x);
	}
	if (header_find_in(group, len, "Remote-MTA", value, sizeof(value)) >= 0) {
		const char *name = strchr(value, ';');

		name = name != NULL ? name + 1 + strspn(name + 1, " ") : value;
		bounce_text_fold(name, strlen(name), x->remote_mta, sizeof(x->remote_mta));
	}
	if (header_find_in(group, len, "Diagnostic-Code", value, sizeof(value)) >= 0) {
		/* `smtp; 550 no`, but for those who leave out the type. */
		size_t type = strcspn(value, "; ");

		diagnostic = value[type] == ';' ? value + type + 1 : value;
		bounce_text_fold(diagnostic, strlen(diagnostic), x->text, sizeof(x->text));
	}
	if (x->text[0] == '\0') {
		bounce_text_fold(p->text, strlen(p->text), x->text, sizeof(x->text));
	}
	bounce_text_codes(x);
}

/* Length of the lines up to an empty one. */
static size_t group_length(const char *text)
{
	size_t len = 0;

	while (text[len] != '\0' && text[len] != '\n' && text[len] != '\r') {
		len += strcspn(text + len, "\n");
		len += text[len] == '\n';
	}
	return len;
}

static void parse_status(struct parser *p)
{
	const char *at = p->part;

	mime_decode(&p->finds.status, p->part, REPORT_BYTES_MAX + 1);
	while (*(at += strspn(at, "\r\n")) != '\0') {
		size_t len = group_length(at);

		take_group(p, at, len);
		at += len;
	}
	if (p->report->recipient_count > 0) {
		p->report->kind = REPORT_BOUNCE;
	}
}

/* ---- feedback (RFC 5965) ---- */

static void parse_feedback(struct parser *p)
{
	struct report *r = p->report;
	struct report_recipient *x = &r->recipients[0];
	const struct mime_part *original = &p->finds.original;
	char value[VALUE_MAX];
	size_t len = mime_decode(&p->finds.feedback, p->part, REPORT_BYTES_MAX + 1);
	/* Some begin with an empty line. */
	const char *fields = p->part + strspn(p->part, "\r\n");

	len -= (size_t)(fields - p->part);
	r->kind = REPORT_FEEDBACK;
	if (header_find_in(fields, len, "Feedback-Type", value, sizeof(value)) >= 0) {
		bounce_text_fold(value, strlen(value), r->feedback_type, sizeof(r->feedback_type));
	}
	if (header_find_in(fields, len, "User-Agent", value, sizeof(value)) >= 0) {
		bounce_text_fold(value, strlen(value), r->user_agent, sizeof(r->user_agent));
	}
	*x = (struct report_recipient){.action = REPORT_DONE};
	if ((header_find_in(fields, len, "Original-Rcpt-To", value, sizeof(value)) >= 0 &&
	     typed_address(value, x->address)) ||
	    (header_find_in(fields, len, "Removal-Recipient", value, sizeof(value)) >= 0 &&
	     typed_address(value, x->address))) {
		r->recipient_count = 1;
	} else if (original->body != NULL) {
		len = mime_decode(original, p->part, REPORT_BYTES_MAX + 1);
		r->recipient_count =
			header_find_in(p->part, len, "To", value, sizeof(value)) >= 0 &&
			typed_address(value, x->address);
	}
}

/* ---- what is neither ---- */

static bool is_auto_reply(const struct parser *p)
{
	static const char *const marks[] = {"X-Autoreply", "X-Autorespond", "X-Auto-Reply",
					    "X-Autoresponder", "X-AutoReply-From"};
	char value[VALUE_MAX];

	if (field(p, "Auto-Submitted", value) && strncasecmp(value, "auto-replied", 12) == 0) {
		return true;
	}
	if (field(p, "Precedence", value) && strcasestr(value, "auto") != NULL) {
		return true;
	}
	for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
		if (field(p, marks[i], value) && strcasecmp(value, "no") != 0) {
			return true;
		}
	}
	return field(p, "Subject", value) && (strcasestr(value, "out of office") != NULL ||
					      strcasestr(value, "out of the office") != NULL ||
					      strncasecmp(value, "automatic reply", 15) == 0 ||
					      strncasecmp(value, "auto-reply", 10) == 0 ||
					      strncasecmp(value, "autoreply", 9) == 0);
}

/* Sent by a mail system, as its author and its subject say. */
static bool is_from_daemon(const struct parser *p)
{
	static const char *const authors[] = {"mailer-daemon", "postmaster@", "mail delivery s",
					      "microsoftexchange", "mail-daemon"};
	static const char *const subjects[] = {
		"undeliver",       "returned mail",   "failure notice", "delivery failure",
		"delivery status", "delivery failed", "mail failure",   "could not be delivered",
		"non remis",       "unzustellbar",    "delivery report"};
	char value[VALUE_MAX];

	for (size_t i = 0; field(p, "From", value) && i < sizeof(authors) / sizeof(authors[0]);
	     i++) {
		if (strcasestr(value, authors[i]) != NULL) {
			return true;
		}
	}
	for (size_t i = 0; field(p, "Subject", value) && i < sizeof(subjects) / sizeof(subjects[0]);
	     i++) {
		if (strcasestr(value, subjects[i]) != NULL) {
			return true;
		}
	}
	return false;
}

/* Tags become spaces; entities stay. */
static void drop_tags(char *text)
{
	bool inside = false;

	for (char *c = text; *c != '\0'; c++) {
		if (*c == '<' && (isalpha((unsigned char)c[1]) || c[1] == '/' || c[1] == '!')) {
			inside = true;
		}
		if (inside) {
			inside = *c != '>';
			*c = ' ';
		}
	}
}

/* From, Subject and the text for people. */
static void take_text(struct parser *p)
{
	struct report *r = p->report;
	char value[VALUE_MAX];
	size_t len;

	if (field(p, "From", value)) {
		const char *bracket = strrchr(value, '<');
		const char *from = bracket != NULL ? bracket : value;

		bounce_text_address(from, strlen(from), r->from);
	}
	if (p->finds.text.body != NULL) {
		mime_decode(&p->finds.text, p->text, REPORT_BYTES_MAX + 1);
	}
	if (p->finds.text_is_html) {
		drop_tags(p->text);
	}
	field(p, "Subject", value);
	bounce_text_fold(value, strlen(value), r->text, sizeof(r->text) - 1);
	len = strlen(r->text);
	bounce_text_fold(p->text, strlen(p->text), r->text + len + 1, sizeof(r->text) - len - 1);
	if (len == 0) {
		memmove(r->text, r->text + 1, sizeof(r->text) - 1);
	} else if (r->text[len + 1] != '\0') {
		r->text[len] = ' ';
	}
}

static void parse_words(struct parser *p)
{
	char failed[VALUE_MAX];
	bool known = field(p, "X-Failed-Recipients", failed);

	bounce_text_parse(p->text, known ? failed : NULL, is_from_daemon(p), p->report);
	if (p->report->kind == REPORT_UNKNOWN && is_auto_reply(p)) {
		p->report->kind = REPORT_AUTO_REPLY;
	}
}

void dsn_parse(const struct chain *body, struct report *r)
{
	struct parser p = {.report = r};
	size_t len;
	char *text = mime_unstuff(body, REPORT_BYTES_MAX, &len);

	memset(r, 0, offsetof(struct report, recipients));
	p.text = check_memory(calloc(1, REPORT_BYTES_MAX + 1), "a message that came back");
	p.part = check_memory(calloc(1, REPORT_BYTES_MAX + 1), "a message that came back");
	/* A NUL ends what is read as a string. */
	for (char *nul = memchr(text, '\0', len); nul != NULL;
	     nul = memchr(nul, '\0', (size_t)(text + len - nul))) {
		*nul = ' ';
	}
	mime_walk(text, len, on_part, &p.finds);
	take_text(&p);
	if (p.finds.feedback.body != NULL) {
		parse_feedback(&p);
	} else if (p.finds.status.body != NULL) {
		parse_status(&p);
	}
	if (r->kind == REPORT_UNKNOWN) {
		parse_words(&p);
	}
	free(p.part);
	free(p.text);
	free(text);
}
