#include "core/outbound/parameters.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/mail/smtp_reply.h"
#include "core/runtime/check.h"

struct parameters {
	char *text;
	size_t len;
};

static void add(struct parameters *p, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void add(struct parameters *p, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(p->text + p->len, PARAMETERS_MAX - p->len, format, args);
	va_end(args);
	ASSERT(n > 0 && (size_t)n < PARAMETERS_MAX - p->len);
	p->len += (size_t)n;
}

void parameters_mail(const struct envelope *e, uint32_t extensions, char text[PARAMETERS_MAX])
{
	struct parameters p = {.text = text};

	text[0] = '\0';
	if ((extensions & SMTP_EXTENSION_SIZE) != 0) {
		add(&p, " SIZE=%llu", (unsigned long long)e->body_bytes);
	}
	if ((e->flags & ENVELOPE_8BITMIME) != 0 && (extensions & SMTP_EXTENSION_8BITMIME) != 0) {
		add(&p, " BODY=8BITMIME");
	}
	if ((e->flags & ENVELOPE_SMTPUTF8) != 0 && (extensions & SMTP_EXTENSION_SMTPUTF8) != 0) {
		add(&p, " SMTPUTF8");
	}
	if ((e->flags & ENVELOPE_REQUIRETLS) != 0 &&
	    (extensions & SMTP_EXTENSION_REQUIRETLS) != 0) {
		add(&p, " REQUIRETLS");
	}
	if ((extensions & SMTP_EXTENSION_DSN) == 0) {
		return;
	}
	if ((e->flags & (ENVELOPE_RET_FULL | ENVELOPE_RET_HDRS)) != 0) {
		add(&p, " RET=%s", (e->flags & ENVELOPE_RET_FULL) != 0 ? "FULL" : "HDRS");
	}
	if (envelope_envid(e) != NULL) {
		add(&p, " ENVID=%s", envelope_envid(e));
	}
}

void parameters_rcpt(const struct envelope *e, uint32_t recipient, uint32_t extensions,
		     char text[PARAMETERS_MAX])
{
	static const struct {
		uint16_t flag;
		const char *word;
	} words[] = {
		{ENVELOPE_NOTIFY_NEVER, "NEVER"},
		{ENVELOPE_NOTIFY_SUCCESS, "SUCCESS"},
		{ENVELOPE_NOTIFY_FAILURE, "FAILURE"},
		{ENVELOPE_NOTIFY_DELAY, "DELAY"},
	};
	uint16_t flags = envelope_recipient(e, recipient)->flags;
	struct parameters p = {.text = text};
	const char *before = " NOTIFY=";

	text[0] = '\0';
	if ((extensions & SMTP_EXTENSION_DSN) == 0) {
		return;
	}
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if ((flags & words[i].flag) != 0) {
			add(&p, "%s%s", before, words[i].word);
			before = ",";
		}
	}
	if (envelope_orcpt(e, recipient) != NULL) {
		add(&p, " ORCPT=%s", envelope_orcpt(e, recipient));
	}
}
