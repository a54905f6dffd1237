#include "listeners/smtp/policy.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/runtime/text.h"
#include "listeners/smtp/policy_facts.h"
#include "listeners/smtp/policy_message.h"
#include "listeners/smtp/session_log.h"
#include "listeners/smtp/transaction.h"

static const struct smtp_refusal failed = {451, "4.3.0", "Policy failed, try again later"};
static const struct smtp_refusal dismissed = {421, "4.7.0", "Closing"};

static struct scheduler *scheduler_of(const struct smtp_session *ss)
{
	return ss->listener->scheduler;
}

/* ---- what is decided ---- */

/* What the hook has said, in the words of SMTP; NULL: go on. */
static const struct smtp_refusal *take_verdict(struct smtp_policy *p)
{
	struct policy_subject *s = &p->subject;
	struct smtp_refusal *r = &p->refusal;

	if (p->call.result == POLICY_FAILED) {
		smtp_count(smtp_session_counts(p->session), SMTP_COUNT_POLICY_FAILED);
		*r = failed;
		return r;
	}
	if (s->code < 400) {
		return s->disconnect ? &dismissed : NULL;
	}
	snprintf(p->refusal_text, sizeof(p->refusal_text), "%s",
		 s->text[0] != '\0' ? s->text : "Refused by policy");
	snprintf(p->refusal_status, sizeof(p->refusal_status), "%u.7.1", s->code / 100);
	*r = (struct smtp_refusal){(uint16_t)s->code, p->refusal_status, p->refusal_text};
	/* The text may have a status of its own. */
	if (s->text[0] == r->status[0] && s->text[1] == '.') {
		char *space = strchr(p->refusal_text, ' ');

		r->status = space != NULL ? p->refusal_text : NULL;
		if (space != NULL) {
			*space = '\0';
			r->text = space + 1;
		}
	}
	return r;
}

void smtp_policy_refuse(struct smtp_session *ss, enum smtp_stage stage,
			const struct smtp_refusal *refusal, const char *sender,
			const char *recipient)
{
	smtp_count(smtp_session_counts(ss), SMTP_COUNT_REFUSED_POLICY);
	smtp_log_rejection(ss, stage, refusal, sender, recipient);
	smtp_session_reply(ss, refusal->code, refusal->status, "%s", refusal->text);
}

static void conclude(struct smtp_policy *p)
{
	struct smtp_session *ss = p->session;
	const struct smtp_refusal *refusal = take_verdict(p);
	bool disconnect = p->subject.disconnect || (refusal != NULL && refusal->code == 421);

	p->subject.code = 0;
	p->subject.disconnect = false;
	p->subject.tarpit_ms = 0;
	p->then(ss, refusal);
	if (disconnect && ss->state != SMTP_SESSION_DEAD && ss->state != SMTP_SESSION_CLOSING &&
	    !ss->storing) {
		smtp_session_close(ss, true);
	}
}

/* ---- waiting ---- */

/* Back to commands; what was held back is looked at by who resumes. */
static void come_back(struct smtp_session *ss)
{
	ASSERT(ss->state == SMTP_SESSION_POLICY);
	ss->state = SMTP_SESSION_COMMANDS;
}

static void resume(struct smtp_session *ss)
{
	if (ss->state == SMTP_SESSION_COMMANDS && ss->listener->stopping) {
		smtp_count(smtp_session_counts(ss), SMTP_COUNT_REFUSED_STOPPING);
		smtp_session_dismiss(ss, "4.3.2", "Shutting down");
	}
	smtp_session_resume(ss);
	smtp_session_settle(ss);
}

static void on_tarpit(struct timer *t)
{
	struct smtp_policy *p = CONTAINER_OF(t, struct smtp_policy, tarpit);
	struct smtp_session *ss = p->session;

	CHECK_MAGIC(ss, SMTP_SESSION_MAGIC);
	p->delays = false;
	come_back(ss);
	conclude(p);
	resume(ss);
}

/* A hook is over. True: so is all that the session had to wait for. */
static bool passed(struct smtp_policy *p)
{
	struct smtp_session *ss = p->session;

	if (p->mail.body != NULL) {
		policy_mail_settle(&p->mail);
	}
	if (p->subject.tarpit_ms == 0) {
		return true;
	}
	p->delays = true;
	ss->state = SMTP_SESSION_POLICY;
	timer_arm(&p->tarpit, agent_now_ms(&scheduler_of(ss)->base) + p->subject.tarpit_ms);
	return false;
}

static void on_call_done(struct policy_call *c)
{
	struct smtp_policy *p = CONTAINER_OF(c, struct smtp_policy, call);
	struct smtp_session *ss = p->session;

	CHECK_MAGIC(ss, SMTP_SESSION_MAGIC);
	if (passed(p)) {
		come_back(ss);
		conclude(p);
		resume(ss);
	}
}

void smtp_policy_ask(struct smtp_session *ss, enum policy_hook hook, const char *argument,
		     smtp_policy_then then)
{
	struct smtp_policy *p = smtp_policy_open(ss);

	/* Scripts may be others since the last hook. */
	policy_subject_move(&p->subject, scheduler_of(ss)->policy.policy);
	text_copy(p->argument, sizeof(p->argument), argument);
	p->then = then;
	p->call = (struct policy_call){
		.subject = &p->subject,
		.hook = hook,
		.argument = p->argument,
		.on_done = on_call_done,
	};
	if (!policy_call_begin(&p->call)) {
		ss->state = SMTP_SESSION_POLICY;
	} else if (passed(p)) {
		conclude(p);
	}
}

void smtp_policy_ask_recipient(struct smtp_session *ss, const struct address *a,
			       const struct dsn_parameters *dsn, smtp_policy_then then)
{
	struct smtp_policy *p = smtp_policy_open(ss);

	smtp_policy_begin_mail(ss);
	p->recipient = *a;
	p->notify = dsn->notify;
	snprintf(p->orcpt, sizeof(p->orcpt), "%.*s", (int)dsn->orcpt_len,
		 dsn->orcpt != NULL ? dsn->orcpt : "");
	strcpy(p->mail.recipient, a->text);
	smtp_policy_ask(ss, POLICY_RCPTTO, a->text, then);
}

/* ---- life ---- */

struct smtp_policy *smtp_policy_open(struct smtp_session *ss)
{
	struct smtp_policy *p = ss->policy;
	struct scheduler *s = scheduler_of(ss);

	if (p != NULL) {
		return p;
	}
	p = check_memory(calloc(1, sizeof(*p)), "the policy of a session");
	p->session = ss;
	policy_subject_init(&p->subject, s->policy.policy, &smtp_policy_facts, p);
	policy_mail_init(&p->mail);
	timer_init(&p->tarpit, &s->base, on_tarpit);
	ss->policy = p;
	return p;
}

void smtp_policy_begin_mail(struct smtp_session *ss)
{
	struct smtp_transaction *tx = ss->transaction;
	struct scheduler *s = scheduler_of(ss);
	struct smtp_policy *p = smtp_policy_open(ss);
	struct policy_mail *m = &p->mail;

	if (p->subject.mail != NULL) {
		return;
	}
	policy_mail_init(m);
	m->buffers = &s->pools.buffers;
	text_copy(m->sender, sizeof(m->sender), tx->envelope.text);
	scheduler_format_number(s, tx->batch, m->batch);
	scheduler_format_number(s, ss->accept->number, m->connection);
	policy_subject_set_mail(&p->subject, m);
}

void smtp_policy_end_mail(struct smtp_session *ss)
{
	struct smtp_policy *p = ss->policy;

	if (p == NULL || p->subject.mail == NULL) {
		return;
	}
	policy_subject_set_mail(&p->subject, NULL);
	smtp_copies_free(ss);
	policy_mail_close(&p->mail);
	policy_mail_init(&p->mail);
}

void smtp_policy_abandon(struct smtp_session *ss)
{
	struct smtp_policy *p = ss->policy;

	if (p == NULL) {
		return;
	}
	policy_call_cancel(&p->call);
	if (p->delays) {
		p->delays = false;
		timer_cancel(&p->tarpit);
	}
}

void smtp_policy_leave(struct smtp_session *ss)
{
	if (ss->policy != NULL) {
		ASSERT(!ss->policy->delays);
		policy_subject_move(&ss->policy->subject, NULL);
	}
}

void smtp_policy_take(struct smtp_session *ss)
{
	struct scheduler *s = scheduler_of(ss);

	if (ss->policy != NULL) {
		policy_subject_move(&ss->policy->subject, s->policy.policy);
		timer_init(&ss->policy->tarpit, &s->base, on_tarpit);
	}
}

void smtp_policy_free(struct smtp_session *ss)
{
	struct smtp_policy *p = ss->policy;

	if (p == NULL) {
		return;
	}
	smtp_policy_end_mail(ss);
	policy_subject_close(&p->subject);
	ss->policy = NULL;
	free(p);
}

/* ---- EHLO ---- */

void smtp_policy_say_capabilities(struct smtp_session *ss)
{
	const struct smtp_policy *p = ss->policy;

	for (unsigned i = 0; p != NULL && i < p->added_count; i++) {
		smtp_session_say(ss, "250-");
		smtp_session_say(ss, p->added[i]);
		smtp_session_say(ss, "\r\n");
	}
}

bool smtp_policy_removed(const struct smtp_session *ss, const char *keyword)
{
	const struct smtp_policy *p = ss->policy;

	for (unsigned i = 0; p != NULL && i < p->removed_count; i++) {
		if (strcasecmp(p->removed[i], keyword) == 0) {
			return true;
		}
	}
	return false;
}
