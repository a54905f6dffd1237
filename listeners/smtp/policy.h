/*
 * Policy in an SMTP session: when hooks are called, what they are told, and what becomes of what
 * they say. A session whose script waits looks at no input meanwhile; what comes for it is held
 * back, as while a password is checked.
 *
 * Start reading at smtp_policy_ask(); policy_message.h is about the message as a whole.
 */
#pragma once

#include <stdbool.h>

#include "core/mail/address.h"
#include "core/mail/smtp_command.h"
#include "core/mail/smtp_refusal.h"
#include "core/policy/policy.h"
#include "core/runtime/timer.h"
#include "listeners/smtp/session.h"

#define SMTP_POLICY_CAPABILITIES 8
#define SMTP_POLICY_CAPABILITY_MAX 64

struct smtp_copies;

/* The hook has been passed: go on, or, with a refusal, do not. */
typedef void (*smtp_policy_then)(struct smtp_session *ss, const struct smtp_refusal *refusal);

BOUND
struct smtp_policy {
	struct smtp_session *session;
	struct policy_subject subject;
	struct policy_mail mail;
	struct policy_call call;
	smtp_policy_then then;
	/* A reply that is delayed. */
	struct timer tarpit;
	bool delays;
	/* The string argument of the hook. */
	char argument[ADDRESS_MAX + 1];
	char refusal_text[POLICY_REASON_MAX + 1];
	char refusal_status[16];
	struct smtp_refusal refusal;
	/* Where a RCPT stands while it waits. */
	struct address recipient;
	uint16_t notify;
	char orcpt[DSN_ORCPT_MAX + 1];
	/* The message that goes through the hooks at its end; NULL: none does. */
	struct smtp_copies *copies;
	/* EHLO keywords that scripts added or took away. */
	char added[SMTP_POLICY_CAPABILITIES][SMTP_POLICY_CAPABILITY_MAX];
	char removed[SMTP_POLICY_CAPABILITIES][SMTP_POLICY_CAPABILITY_MAX];
	unsigned added_count;
	unsigned removed_count;
};

/* Whether any module has the hook. */
BOUND
static inline bool smtp_policy_has(const struct smtp_session *ss, enum policy_hook hook)
{
	return policy_host_has(&ss->listener->scheduler->policy, hook);
}

/* Calls the hook; `then` is called when it is over, perhaps from within. Until then the session is
 * in state SMTP_SESSION_POLICY, if that takes a while. */
BOUND
void smtp_policy_ask(struct smtp_session *ss, enum policy_hook hook, const char *argument,
		     smtp_policy_then then);

/* The same for a recipient, which waits in struct smtp_policy with what RCPT said besides. */
BOUND
void smtp_policy_ask_recipient(struct smtp_session *ss, const struct address *a,
			       const struct dsn_parameters *dsn, smtp_policy_then then);

/* The session's part, made when there is none. */
BOUND
struct smtp_policy *smtp_policy_open(struct smtp_session *ss);

/* The transaction has begun, and is over: what scripts know as msg. */
BOUND
void smtp_policy_begin_mail(struct smtp_session *ss);
BOUND
void smtp_policy_end_mail(struct smtp_session *ss);

/* Nothing waits any more. Idempotent. */
BOUND
void smtp_policy_abandon(struct smtp_session *ss);

/* The session leaves its scheduler, and comes to another one: what scripts keep of it in Lua ends,
 * its context stays. */
BOUND
void smtp_policy_leave(struct smtp_session *ss);
BOUND
void smtp_policy_take(struct smtp_session *ss);

/* The session is over. */
BOUND
void smtp_policy_free(struct smtp_session *ss);

/* Adds lines for keywords that scripts have added; whether they took `keyword` away. */
BOUND
void smtp_policy_say_capabilities(struct smtp_session *ss);
BOUND
bool smtp_policy_removed(const struct smtp_session *ss, const char *keyword);

/* Refuses for policy: counted and logged. `path`: of the sender or the recipient; NULL: none. */
BOUND
void smtp_policy_refuse(struct smtp_session *ss, enum smtp_stage stage,
			const struct smtp_refusal *refusal, const char *sender,
			const char *recipient);
