#include "core/mail/dsn_parameter.h"

#include <string.h>
#include <strings.h>

#include "core/mail/envelope.h"

static const struct smtp_refusal refuse_twice = {501, "5.5.4", "Parameter given twice"};
static const struct smtp_refusal refuse_ret = {501, "5.5.4", "Syntax: RET=FULL or HDRS"};
static const struct smtp_refusal refuse_envid = {501, "5.5.4", "Syntax: ENVID=xtext"};
static const struct smtp_refusal refuse_notify = {
	501, "5.5.4", "Syntax: NOTIFY=NEVER or a list of SUCCESS, FAILURE, DELAY"};
static const struct smtp_refusal refuse_orcpt = {501, "5.5.4", "Syntax: ORCPT=type;xtext"};

static bool is(const char *text, size_t len, const char *word)
{
	return strlen(word) == len && strncasecmp(text, word, len) == 0;
}

/* Capitals only: RFC 3461 section 4. */
static int hex(char c)
{
	if (c >= '0' && c <= '9') {
		return c - '0';
	}
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The character that starts at `text`; how many it takes goes to `*used`. -1: none. */
static int xtext_character(const char *text, size_t len, size_t *used)
{
	*used = 1;
	if (text[0] != '+') {
		return text[0] > ' ' && text[0] < 127 && text[0] != '=' ? text[0] : -1;
	}
	if (len < 3 || hex(text[1]) < 0 || hex(text[2]) < 0) {
		return -1;
	}
	*used = 3;
	return hex(text[1]) << 4 | hex(text[2]);
}

bool dsn_xtext_valid(const char *text, size_t len)
{
	size_t used;

	for (size_t i = 0; i < len; i += used) {
		int c = xtext_character(text + i, len - i, &used);

		if (c < ' ' || c >= 127) {
			return false;
		}
	}
	return len > 0;
}

size_t dsn_xtext_decode(const char *text, size_t len, char *to)
{
	size_t n = 0;
	size_t used;

	for (size_t i = 0; i < len; i += used) {
		to[n++] = (char)xtext_character(text + i, len - i, &used);
	}
	to[n] = '\0';
	return n;
}

/* RFC 5322 section 3.2.3. */
static bool is_atom(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

		if (!letter && !(c >= '0' && c <= '9') &&
		    (c == '\0' || strchr("!#$%&'*+-/=?^_`{|}~", c) == NULL)) {
			return false;
		}
	}
	return len > 0;
}

bool dsn_orcpt_valid(const char *text, size_t len)
{
	const char *semicolon = memchr(text, ';', len);
	size_t type_len = semicolon != NULL ? (size_t)(semicolon - text) : len;

	return semicolon != NULL && len <= DSN_ORCPT_MAX && is_atom(text, type_len) &&
	       dsn_xtext_valid(semicolon + 1, len - type_len - 1);
}

static const struct smtp_refusal *parse_ret(struct dsn_parameters *p, const char *value, size_t len)
{
	if (p->ret != 0) {
		return &refuse_twice;
	}
	p->ret = is(value, len, "FULL")   ? ENVELOPE_RET_FULL
		 : is(value, len, "HDRS") ? ENVELOPE_RET_HDRS
					  : 0;
	return p->ret != 0 ? NULL : &refuse_ret;
}

static const struct smtp_refusal *parse_envid(struct dsn_parameters *p, const char *value,
					      size_t len)
{
	if (p->envid != NULL) {
		return &refuse_twice;
	}
	p->envid = value;
	p->envid_len = len;
	return len <= DSN_ENVID_MAX && dsn_xtext_valid(value, len) ? NULL : &refuse_envid;
}

static uint16_t notify_of(const char *word, size_t len)
{
	static const struct {
		const char *word;
		uint16_t flag;
	} words[] = {
		{"NEVER", ENVELOPE_NOTIFY_NEVER},
		{"SUCCESS", ENVELOPE_NOTIFY_SUCCESS},
		{"FAILURE", ENVELOPE_NOTIFY_FAILURE},
		{"DELAY", ENVELOPE_NOTIFY_DELAY},
	};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (is(word, len, words[i].word)) {
			return words[i].flag;
		}
	}
	return 0;
}

/* NEVER stands alone; a word given twice does no harm. */
static const struct smtp_refusal *parse_notify(struct dsn_parameters *p, const char *value,
					       size_t len)
{
	const char *end = value + len;

	if (p->notify != 0) {
		return &refuse_twice;
	}
	for (;;) {
		const char *comma = memchr(value, ',', (size_t)(end - value));
		const char *stop = comma != NULL ? comma : end;
		uint16_t flag = notify_of(value, (size_t)(stop - value));

		if (flag == 0) {
			return &refuse_notify;
		}
		p->notify |= flag;
		if (comma == NULL) {
			break;
		}
		value = comma + 1;
	}
	return (p->notify & ENVELOPE_NOTIFY_NEVER) != 0 && p->notify != ENVELOPE_NOTIFY_NEVER
		       ? &refuse_notify
		       : NULL;
}

static const struct smtp_refusal *parse_orcpt(struct dsn_parameters *p, const char *value,
					      size_t len)
{
	if (p->orcpt != NULL) {
		return &refuse_twice;
	}
	p->orcpt = value;
	p->orcpt_len = len;
	return dsn_orcpt_valid(value, len) ? NULL : &refuse_orcpt;
}

bool dsn_parameter_mail(struct dsn_parameters *p, const char *keyword, size_t keyword_len,
			const char *value, size_t value_len, const struct smtp_refusal **refusal)
{
	if (is(keyword, keyword_len, "RET")) {
		*refusal = value != NULL ? parse_ret(p, value, value_len) : &refuse_ret;
		return true;
	}
	if (is(keyword, keyword_len, "ENVID")) {
		*refusal = value != NULL ? parse_envid(p, value, value_len) : &refuse_envid;
		return true;
	}
	return false;
}

bool dsn_parameter_rcpt(struct dsn_parameters *p, const char *keyword, size_t keyword_len,
			const char *value, size_t value_len, const struct smtp_refusal **refusal)
{
	if (is(keyword, keyword_len, "NOTIFY")) {
		*refusal = value != NULL ? parse_notify(p, value, value_len) : &refuse_notify;
		return true;
	}
	if (is(keyword, keyword_len, "ORCPT")) {
		*refusal = value != NULL ? parse_orcpt(p, value, value_len) : &refuse_orcpt;
		return true;
	}
	return false;
}
