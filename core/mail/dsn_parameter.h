/*
 * The parameters of RFC 3461: what a sender wants to be told of (NOTIFY), how much of the message
 * is to come back (RET), and what it calls message and recipients (ENVID, ORCPT). Syntax only; they
 * are kept in the envelope as they were given, obeyed by our own notifications (agents/outcome.c),
 * and handed on to next hops that know them (core/outbound/parameters.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/smtp_refusal.h"
#include "core/runtime/thread_class.h"

/* RFC 3461 sections 4.4 and 4.2, as given. */
#define DSN_ENVID_MAX 100
#define DSN_ORCPT_MAX 500

/* Pointers go into the command that was parsed. */
SINGLE
struct dsn_parameters {
	/* MAIL: enum envelope_flag, ENVELOPE_RET_FULL or ENVELOPE_RET_HDRS; 0: not given. */
	uint16_t ret;
	/* RCPT: enum envelope_recipient_flag, of NOTIFY; 0: not given. */
	uint16_t notify;
	/* MAIL: xtext; RCPT: type;xtext. NULL: not given. */
	const char *envid;
	size_t envid_len;
	const char *orcpt;
	size_t orcpt_len;
};

/*
 * Takes one parameter of MAIL (RET, ENVID) or RCPT (NOTIFY, ORCPT); `keyword` in any case. `value`
 * NULL: it has none. Returns false when the keyword is none of these; else true, and `*refusal` is
 * NULL or what to reply (501 5.5.4).
 */
SINGLE
bool dsn_parameter_mail(struct dsn_parameters *p, const char *keyword, size_t keyword_len,
			const char *value, size_t value_len, const struct smtp_refusal **refusal);
SINGLE
bool dsn_parameter_rcpt(struct dsn_parameters *p, const char *keyword, size_t keyword_len,
			const char *value, size_t value_len, const struct smtp_refusal **refusal);

/* Whether it is xtext (RFC 3461 section 4) of printable ASCII, one character at least. */
CONCURRENT
bool dsn_xtext_valid(const char *text, size_t len);

/* Undoes xtext that is valid; `to` has room for `len` + 1 bytes. NUL-terminated. Returns the
 * length. */
CONCURRENT
size_t dsn_xtext_decode(const char *text, size_t len, char *to);

/* Whether it is an address type and a semicolon before xtext: RFC 3461 section 4.2. */
CONCURRENT
bool dsn_orcpt_valid(const char *text, size_t len);
