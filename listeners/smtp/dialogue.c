#include "listeners/smtp/dialogue.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "core/mail/address.h"
#include "core/mail/smtp_command.h"
#include "listeners/smtp/auth.h"
#include "listeners/smtp/extensions.h"
#include "listeners/smtp/policy.h"
#include "listeners/smtp/relay.h"
#include "listeners/smtp/session.h"
#include "listeners/smtp/session_log.h"
#include "listeners/smtp/session_trace.h"
#include "listeners/smtp/transaction.h"
#include "listeners/smtp/xclient.h"

static const struct smtp_refusal bare_lf = {500, "5.5.2", "Bare LF: lines end in CR LF"};
static const struct smtp_refusal long_line = {500, "5.5.2", "Line too long"};
static const struct smtp_refusal early_talker = {554, "5.5.1", "Spoke before the greeting"};
static const struct smtp_refusal early_data = {503, "5.5.1", "Unexpected input before 354"};
static const struct smtp_refusal not_offered = {502, "5.5.1", "Command not implemented"};
static const struct smtp_refusal early_tls = {554, "5.5.1", "Unexpected input after STARTTLS"};
static const struct smtp_refusal tls_twice = {503, "5.5.1", "TLS is on already"};
static const struct smtp_refusal needs_helo = {503, "5.5.1", "Send EHLO or HELO first"};
static const struct smtp_refusal nested_mail = {503, "5.5.1", "Sender was given already"};
static const struct smtp_refusal needs_mail = {503, "5.5.1", "Send MAIL first"};
static const struct smtp_refusal needs_rcpt = {503, "5.5.1", "Send RCPT first"};
static const struct smtp_refusal no_recipients = {554, "5.5.1", "No valid recipients"};
static const struct smtp_refusal chunks_begun = {503, "5.5.1", "Go on with BDAT, or send RSET"};
static const struct smtp_refusal needs_tls = {538, "5.7.11", "Encryption required"};
static const struct smtp_refusal requires_tls = {530, "5.7.0", "REQUIRETLS needs STARTTLS first"};
static const struct smtp_refusal needs_auth = {530, "5.7.0", "Authentication required"};
static const struct smtp_refusal auth_within_mail = {503, "5.5.1", "Not within a transaction"};
static const struct smtp_refusal auth_twice = {503, "5.5.1", "Already authenticated"};
static const struct smtp_refusal bad_proxy = {554, "5.7.1", "No proxy that is known"};
static const struct smtp_refusal no_xclient = {550, "5.7.0", "Not authorized to use XCLIENT"};
static const struct smtp_refusal early_xclient = {503, "5.5.1", "Unexpected input behind XCLIENT"};
static const struct smtp_refusal idle_limit = {421, "4.7.0",
					       "Too many commands without mail, closing"};
static const struct smtp_refusal reception_limit = {
	421, "4.7.0", "Too many messages on this connection, closing"};
static const struct smtp_refusal too_large = {552, "5.3.4", "Message is too large"};
static const struct smtp_refusal relaying_denied = {550, "5.7.1", "Relaying denied"};
static const struct smtp_refusal no_room = {452, "4.3.2", "Too much mail at once, try again later"};
static const struct smtp_refusal not_together = {
	452, "4.5.3", "Send what is for bounce domains by itself, and the rest after it"};
static const struct smtp_refusal too_many_recipients = {452, "4.5.3", "Too many recipients"};

/* What the scheduler's reasons to refuse mail become. */
static const struct {
	int error;
	enum smtp_count count;
	struct smtp_refusal refusal;
} pressures[] = {
	{-ENOSPC, SMTP_COUNT_REFUSED_SPOOL_FULL, {452, "4.3.1", "Insufficient system storage"}},
	{-ENOMEM,
	 SMTP_COUNT_REFUSED_MEMORY,
	 {452, "4.3.2", "Too much mail at once, try again later"}},
	{-ESHUTDOWN, SMTP_COUNT_REFUSED_STOPPING, {421, "4.3.2", "Shutting down"}},
	/* The last one is for all others. */
	{-EBUSY, SMTP_COUNT_REFUSED_BUSY, {451, "4.3.2", "Busy, try again later"}},
};

#define PRESSURES (sizeof(pressures) / sizeof(pressures[0]))

/* ---- refusals ---- */

static enum smtp_stage stage_of(enum smtp_verb verb)
{
	switch (verb) {
	case SMTP_VERB_MAIL:
		return SMTP_STAGE_DURING_MAIL;
	case SMTP_VERB_RCPT:
		return SMTP_STAGE_DURING_RCPT;
	case SMTP_VERB_XCLIENT:
		return SMTP_STAGE_DURING_XCLIENT;
	default:
		return SMTP_STAGE_DURING_DATA;
	}
}

/* The path without its brackets, as given. */
static void path_text(const struct smtp_command *c, char text[ADDRESS_MAX + 1])
{
	const char *path = c->path;
	size_t len = c->path_len;

	if (len >= 2 && path[0] == '<' && path[len - 1] == '>') {
		path++;
		len -= 2;
	}
	len = len < ADDRESS_MAX ? len : ADDRESS_MAX;
	if (len > 0) {
		memcpy(text, path, len);
	}
	text[len] = '\0';
}

/* Refused mail is logged, other commands are not. */
static void log_refusal(struct smtp_session *ss, const struct smtp_command *c,
			const struct smtp_refusal *r)
{
	char path[ADDRESS_MAX + 1];

	if (c->verb != SMTP_VERB_MAIL && c->verb != SMTP_VERB_RCPT && c->verb != SMTP_VERB_DATA &&
	    c->verb != SMTP_VERB_BDAT && c->verb != SMTP_VERB_XCLIENT) {
		return;
	}
	path_text(c, path);
	smtp_log_rejection(ss, stage_of(c->verb), r, c->verb == SMTP_VERB_MAIL ? path : NULL,
			   c->verb == SMTP_VERB_RCPT ? path : NULL);
}

static void refuse(struct smtp_session *ss, const struct smtp_command *c,
		   const struct smtp_refusal *r, enum smtp_count count)
{
	smtp_count(smtp_session_counts(ss), count);
	log_refusal(ss, c, r);
	smtp_session_reply(ss, r->code, r->status, "%s", r->text);
	if (r->code == 421) {
		smtp_session_close(ss, true);
	}
}

/* A command that moves no mail has come; false when it was one too many. */
static bool count_idle(struct smtp_session *ss)
{
	uint32_t max = ss->options->max_idle_commands;

	if (max == 0 || ++ss->idle_commands <= max) {
		return true;
	}
	smtp_count(smtp_session_counts(ss), SMTP_COUNT_LIMIT_IDLE_COMMANDS);
	smtp_session_dismiss(ss, idle_limit.status, idle_limit.text);
	return false;
}

/* Refuses what is no command, or comes at the wrong time. */
static void refuse_idle(struct smtp_session *ss, const struct smtp_command *c,
			const struct smtp_refusal *r, enum smtp_count count)
{
	if (count_idle(ss)) {
		refuse(ss, c, r, count);
	}
}

/* The scheduler can take no mail now: why not, and where that is counted. */
static const struct smtp_refusal *pressure(struct smtp_session *ss, int error,
					   enum smtp_count *count)
{
	unsigned i = 0;

	while (i < PRESSURES - 1 && pressures[i].error != error) {
		i++;
	}
	counter_inc(ss->listener->scheduler->rejected_busy);
	*count = pressures[i].count;
	return &pressures[i].refusal;
}

static void refuse_pressure(struct smtp_session *ss, const struct smtp_command *c, int error)
{
	enum smtp_count count;
	const struct smtp_refusal *r = pressure(ss, error, &count);

	refuse(ss, c, r, count);
}

/* ---- EHLO, HELO ---- */

static void welcome(struct smtp_session *ss, const struct smtp_refusal *refusal)
{
	if (refusal != NULL) {
		ss->has_helo = false;
		smtp_policy_refuse(ss, SMTP_STAGE_AFTER_EHLO, refusal, NULL, NULL);
	} else if (ss->esmtp) {
		smtp_extensions_say(ss);
	} else {
		smtp_session_reply(ss, 250, NULL, "%s", ss->options->hostname);
	}
}

static void on_hello(struct smtp_session *ss, const struct smtp_command *c)
{
	size_t len = c->argument_len < SMTP_HELO_MAX ? c->argument_len : SMTP_HELO_MAX;

	if (ss->has_helo && !count_idle(ss)) {
		return;
	}
	smtp_transaction_abort(ss);
	ss->has_helo = true;
	ss->esmtp = c->verb == SMTP_VERB_EHLO;
	if (!ss->helo_told) {
		memcpy(ss->helo, c->argument, len);
		ss->helo[len] = '\0';
	}
	if (smtp_policy_has(ss, POLICY_EHLO)) {
		smtp_policy_ask(ss, POLICY_EHLO, ss->helo, welcome);
	} else {
		welcome(ss, NULL);
	}
}

/* ---- MAIL ---- */

/* Order, then limits, then pressure. */
static bool may_begin(struct smtp_session *ss, const struct smtp_command *c)
{
	uint32_t max = ss->options->max_receptions_per_connection;
	int error;

	if (!ss->has_helo) {
		refuse_idle(ss, c, &needs_helo, SMTP_COUNT_REFUSED_ORDER);
		return false;
	}
	if (ss->transaction != NULL) {
		refuse_idle(ss, c, &nested_mail, SMTP_COUNT_REFUSED_ORDER);
		return false;
	}
	if (ss->options->require_authentication && ss->user == NULL) {
		refuse(ss, c, &needs_auth, SMTP_COUNT_AUTH_MISSING);
		return false;
	}
	if (max != 0 && ss->receptions >= max) {
		refuse(ss, c, &reception_limit, SMTP_COUNT_LIMIT_RECEPTIONS);
		return false;
	}
	error = scheduler_refuses(ss->listener->scheduler);
	if (error != 0) {
		refuse_pressure(ss, c, error);
		return false;
	}
	return true;
}

static bool too_large_by_itself(const struct smtp_session *ss, const struct smtp_command *c)
{
	uint64_t max = ss->options->max_message_bytes;

	return max != 0 && c->has_size && c->size > max;
}

/* What policy has said of the sender. */
static void take_sender(struct smtp_session *ss, const struct smtp_refusal *refusal)
{
	if (refusal != NULL) {
		smtp_policy_refuse(ss, SMTP_STAGE_DURING_MAIL, refusal, NULL, NULL);
		smtp_transaction_abort(ss);
		return;
	}
	smtp_session_say(ss, "250 2.1.0 Sender OK\r\n");
}

static void on_mail(struct smtp_session *ss, const struct smtp_command *c)
{
	struct smtp_refusal refusal;
	struct address a;
	uint16_t flags = c->dsn.ret;

	if (!may_begin(ss, c)) {
		return;
	}
	if (address_parse(&a, c->path, c->path_len, ADDRESS_SENDER, c->smtputf8, &refusal) != 0) {
		refuse(ss, c, &refusal, SMTP_COUNT_REFUSED_ADDRESS);
		return;
	}
	if (c->requiretls && !ss->secure) {
		refuse(ss, c, &requires_tls, SMTP_COUNT_REFUSED_ORDER);
		return;
	}
	if (too_large_by_itself(ss, c)) {
		refuse(ss, c, &too_large, SMTP_COUNT_REFUSED_SIZE);
		return;
	}
	flags |= c->body == SMTP_BODY_8BITMIME ? ENVELOPE_8BITMIME : 0;
	flags |= c->smtputf8 ? ENVELOPE_SMTPUTF8 : 0;
	flags |= c->requiretls ? ENVELOPE_REQUIRETLS : 0;
	smtp_transaction_open(ss, a.text, a.len, flags);
	if (c->dsn.envid != NULL) {
		envelope_set_envid(&ss->transaction->envelope, c->dsn.envid, c->dsn.envid_len);
	}
	if (smtp_policy_has(ss, POLICY_MAILFROM)) {
		smtp_policy_begin_mail(ss);
		smtp_policy_ask(ss, POLICY_MAILFROM, ss->transaction->envelope.text, take_sender);
	} else {
		take_sender(ss, NULL);
	}
}

/* ---- RCPT ---- */

/* `<postmaster>` alone is ours (RFC 5321 section 4.5.1): it gets our name. */
static void complete_postmaster(const struct smtp_session *ss, struct address *a)
{
	int len =
		snprintf(a->text + a->len, sizeof(a->text) - a->len, "@%s", ss->options->hostname);

	ASSERT(len > 0 && (size_t)len < sizeof(a->text) - a->len);
	a->len = (uint16_t)(a->len + len);
}

static bool may_relay(const struct smtp_session *ss, const struct address *a)
{
	return ss->relay_host || ss->user != NULL ||
	       relay_domain_allowed(ss->options, address_domain(a), a->domain_len);
}

/* Mail for a bounce domain is understood, not queued, so it is not to be queued for others too. */
static bool goes_back(const struct smtp_session *ss, const struct address *a)
{
	return a->domain_len != 0 &&
	       relay_domain_bounces(ss->options, address_domain(a), a->domain_len);
}

static uint32_t recipients_max(const struct smtp_session *ss)
{
	uint32_t max = ss->options->max_recipients_per_message;

	return max != 0 && max < ENVELOPE_RECIPIENTS_MAX ? max : ENVELOPE_RECIPIENTS_MAX;
}

/* The recipient is `a`; NULL, or why it is refused. */
static const struct smtp_refusal *judge_recipient(const struct smtp_session *ss, struct address *a,
						  enum smtp_count *count)
{
	const struct smtp_transaction *tx = ss->transaction;
	bool bounce = goes_back(ss, a);

	if (a->domain_len == 0) {
		complete_postmaster(ss, a);
	} else if (!bounce && !may_relay(ss, a)) {
		*count = SMTP_COUNT_REFUSED_RELAY;
		return &relaying_denied;
	}
	if (tx->envelope.recipient_count > 0 && bounce != tx->out_of_band) {
		*count = SMTP_COUNT_REFUSED_RECIPIENTS;
		return &not_together;
	}
	if (ss->transaction->envelope.recipient_count >= recipients_max(ss)) {
		*count = SMTP_COUNT_REFUSED_RECIPIENTS;
		return &too_many_recipients;
	}
	if (!smtp_transaction_has_room(ss)) {
		*count = SMTP_COUNT_REFUSED_MEMORY;
		return &no_room;
	}
	return NULL;
}

static void take_recipient(struct smtp_session *ss, const struct address *a, uint16_t notify,
			   const char *orcpt, size_t orcpt_len)
{
	struct smtp_transaction *tx = ss->transaction;

	tx->out_of_band = goes_back(ss, a);
	/* One that was given before is as welcome, and gets one copy. */
	if (envelope_add_recipient(&tx->envelope, a->text, a->len)) {
		envelope_set_notify(&tx->envelope, notify, orcpt, orcpt_len);
	}
	smtp_transaction_recount(ss);
	ss->recipients++;
	ss->idle_commands = 0;
	smtp_session_say(ss, "250 2.1.5 Recipient OK\r\n");
}

/* What policy has said of it. */
static void take_asked_recipient(struct smtp_session *ss, const struct smtp_refusal *refusal)
{
	const struct smtp_policy *p = ss->policy;

	if (refusal != NULL) {
		ss->transaction->refused++;
		smtp_policy_refuse(ss, SMTP_STAGE_DURING_RCPT, refusal, NULL, p->recipient.text);
		return;
	}
	take_recipient(ss, &p->recipient, p->notify, p->orcpt[0] != '\0' ? p->orcpt : NULL,
		       strlen(p->orcpt));
}

static void on_rcpt(struct smtp_session *ss, const struct smtp_command *c)
{
	struct smtp_transaction *tx = ss->transaction;
	enum smtp_count count = SMTP_COUNT_REFUSED_ADDRESS;
	const struct smtp_refusal *refused;
	struct smtp_refusal refusal;
	struct address a;

	if (tx == NULL) {
		refuse_idle(ss, c, ss->has_helo ? &needs_mail : &needs_helo,
			    SMTP_COUNT_REFUSED_ORDER);
		return;
	}
	if (tx->chunked) {
		refuse_idle(ss, c, &chunks_begun, SMTP_COUNT_REFUSED_ORDER);
		return;
	}
	if (address_parse(&a, c->path, c->path_len, ADDRESS_RECIPIENT,
			  (tx->envelope.flags & ENVELOPE_SMTPUTF8) != 0, &refusal) != 0) {
		refused = &refusal;
	} else {
		refused = judge_recipient(ss, &a, &count);
	}
	if (refused != NULL) {
		tx->refused++;
		refuse(ss, c, refused, count);
		return;
	}
	if (smtp_policy_has(ss, POLICY_RCPTTO) && !goes_back(ss, &a)) {
		smtp_policy_ask_recipient(ss, &a, &c->dsn, take_asked_recipient);
	} else {
		take_recipient(ss, &a, c->dsn.notify, c->dsn.orcpt, c->dsn.orcpt_len);
	}
}

/* ---- DATA ---- */

static const struct smtp_refusal *data_out_of_order(const struct smtp_session *ss)
{
	const struct smtp_transaction *tx = ss->transaction;

	if (!ss->has_helo) {
		return &needs_helo;
	}
	if (tx == NULL) {
		return &needs_mail;
	}
	if (tx->envelope.recipient_count == 0) {
		return tx->refused > 0 ? &no_recipients : &needs_rcpt;
	}
	return NULL;
}

/* DATA is the last command of a group (RFC 2920 section 3.1). What was sent after it and before our
 * reply may be meant as commands or as mail data: neither is safe to assume, so it is read as
 * nothing at all, whatever the reply to DATA would have been. */
static void on_data(struct smtp_session *ss, const struct smtp_command *c)
{
	const struct smtp_refusal *refused = data_out_of_order(ss);
	int error;

	if (ss->unread > 0) {
		refuse(ss, c, &early_data, SMTP_COUNT_EARLY_DATA);
		smtp_session_close(ss, true);
		return;
	}
	if (refused == NULL && ss->transaction->chunked) {
		refused = &chunks_begun;
	}
	if (refused != NULL) {
		refuse_idle(ss, c, refused, SMTP_COUNT_REFUSED_ORDER);
		return;
	}
	error = scheduler_refuses(ss->listener->scheduler);
	if (error != 0) {
		refuse_pressure(ss, c, error);
		return;
	}
	smtp_transaction_begin(ss, false);
	ss->state = SMTP_SESSION_DATA;
	smtp_session_say(ss, "354 End data with <CR><LF>.<CR><LF>\r\n");
}

/* ---- BDAT ---- */

static const struct smtp_command bdat_command = {.verb = SMTP_VERB_BDAT};

/* Unlike DATA, BDAT is not waited for: its octets come whatever it is answered. */
static void on_bdat(struct smtp_session *ss, const struct smtp_command *c)
{
	const struct smtp_refusal *refused = data_out_of_order(ss);
	enum smtp_count count = SMTP_COUNT_REFUSED_ORDER;
	int error = 0;

	if (refused == NULL && !ss->transaction->chunked) {
		error = scheduler_refuses(ss->listener->scheduler);
	}
	if (error != 0) {
		refused = pressure(ss, error, &count);
	} else if (refused == NULL && c->size == 0 && !c->last && !count_idle(ss)) {
		return;
	}
	if (refused == NULL && !ss->transaction->chunked) {
		smtp_transaction_begin(ss, true);
	}
	smtp_chunk_begin(ss, c->size, c->last, refused, count);
}

void smtp_dialogue_refuse_chunk(struct smtp_session *ss, const struct smtp_refusal *refusal,
				enum smtp_count count)
{
	if (count == SMTP_COUNT_REFUSED_ORDER) {
		refuse_idle(ss, &bdat_command, refusal, count);
	} else {
		refuse(ss, &bdat_command, refusal, count);
	}
	if (ss->state == SMTP_SESSION_COMMANDS) {
		smtp_transaction_abort(ss);
	}
}

/* A line that may be meant as BDAT, and was refused without knowing its size: the octets that
 * follow it are no commands. */
static void close_after_chunk(struct smtp_session *ss, const char *line, size_t len)
{
	if (len >= 4 && strncasecmp(line, "BDAT", 4) == 0 && ss->state == SMTP_SESSION_COMMANDS) {
		smtp_session_close(ss, true);
	}
}

/* ---- the others ---- */

static void on_rset(struct smtp_session *ss, const struct smtp_command *c)
{
	(void)c;
	if (count_idle(ss)) {
		smtp_transaction_abort(ss);
		smtp_session_say(ss, "250 2.0.0 OK\r\n");
	}
}

static void on_noop(struct smtp_session *ss, const struct smtp_command *c)
{
	(void)c;
	if (count_idle(ss)) {
		smtp_session_say(ss, "250 2.0.0 OK\r\n");
	}
}

static void on_help(struct smtp_session *ss, const struct smtp_command *c)
{
	(void)c;
	if (count_idle(ss)) {
		smtp_session_say(
			ss, "214 2.0.0 EHLO HELO MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT: "
			    "see RFC 5321\r\n");
	}
}

static void on_vrfy(struct smtp_session *ss, const struct smtp_command *c)
{
	(void)c;
	if (count_idle(ss)) {
		smtp_session_say(ss, "252 2.0.0 Cannot verify, but will accept and try\r\n");
	}
}

static void on_not_offered(struct smtp_session *ss, const struct smtp_command *c)
{
	refuse_idle(ss, c, &not_offered, SMTP_COUNT_REFUSED_UNKNOWN);
}

/* RFC 3207. What was sent after it in plain text may be anybody's: obeyed after the handshake, it
 * would seem to be the client's (section 6). */
static void on_starttls(struct smtp_session *ss, const struct smtp_command *c)
{
	if (ss->options->tls == NULL || ss->options->use_ssl) {
		on_not_offered(ss, c);
		return;
	}
	if (ss->secure) {
		refuse_idle(ss, c, &tls_twice, SMTP_COUNT_REFUSED_ORDER);
		return;
	}
	if (ss->unread > 0 && ss->options->starttls_injection == CONFIG_INJECTION_REJECT) {
		smtp_log_rejection(ss, SMTP_STAGE_DURING_STARTTLS, &early_tls, NULL, NULL);
		refuse(ss, c, &early_tls, SMTP_COUNT_STARTTLS_INJECTION);
		smtp_session_close(ss, true);
		return;
	}
	if (count_idle(ss)) {
		smtp_session_say(ss, "220 2.0.0 Ready to start TLS\r\n");
		smtp_session_secure(ss);
	}
}

static const struct smtp_refusal *auth_out_of_order(const struct smtp_session *ss)
{
	if (!smtp_auth_offered(ss)) {
		return &needs_tls;
	}
	if (!ss->has_helo || !ss->esmtp) {
		return &needs_helo;
	}
	return ss->transaction != NULL ? &auth_within_mail : ss->user != NULL ? &auth_twice : NULL;
}

static void on_auth(struct smtp_session *ss, const struct smtp_command *c)
{
	const struct smtp_refusal *refused;

	if (ss->options->auth_file == NULL) {
		on_not_offered(ss, c);
		return;
	}
	refused = auth_out_of_order(ss);
	if (refused != NULL) {
		refuse_idle(ss, c, refused, SMTP_COUNT_REFUSED_ORDER);
	} else if (count_idle(ss)) {
		smtp_auth_begin(ss, c->argument, c->argument_len);
	}
}

/* The session begins anew, as that of another client. Who connected stays who may say so. */
static void become(struct smtp_session *ss, const struct xclient *x)
{
	if (x->has_address || x->has_port) {
		smtp_session_set_client(ss, x->has_address ? &x->address : &ss->peer,
					x->has_port ? x->port : ss->peer_port);
		smtp_session_offer_told(ss, "XCLIENT");
	}
	/* Another address is another client: nothing of the one before is left. */
	if (x->has_helo || x->has_address) {
		ss->helo_told = x->helo[0] != '\0';
		strcpy(ss->helo, x->helo);
	}
	if (x->has_login || x->has_address) {
		smtp_session_set_user(ss, x->login[0] != '\0' ? x->login : NULL, NULL);
	}
	ss->has_helo = false;
	ss->esmtp = false;
}

static void on_xclient(struct smtp_session *ss, const struct smtp_command *c)
{
	struct smtp_refusal refusal;
	struct xclient x;

	if (!ss->xclient) {
		refuse_idle(ss, c, &no_xclient, SMTP_COUNT_REFUSED_UNKNOWN);
	} else if (ss->transaction != NULL) {
		refuse_idle(ss, c, &auth_within_mail, SMTP_COUNT_REFUSED_ORDER);
	} else if (ss->unread > 0) {
		/* Whose words they are depends on how this is answered. */
		refuse(ss, c, &early_xclient, SMTP_COUNT_EARLY_DATA);
		smtp_session_close(ss, true);
	} else if (xclient_parse(c->argument, c->argument_len, &x, &refusal) != 0) {
		refuse_idle(ss, c, &refusal, SMTP_COUNT_REFUSED_SYNTAX);
	} else if (count_idle(ss)) {
		become(ss, &x);
		smtp_count(smtp_session_counts(ss), SMTP_COUNT_XCLIENT);
		smtp_session_reply(ss, 220, NULL, "%s %s", ss->options->hostname,
				   ss->options->banner);
	}
}

static void on_quit(struct smtp_session *ss, const struct smtp_command *c)
{
	(void)c;
	smtp_session_say(ss, "221 2.0.0 Bye\r\n");
	smtp_session_close(ss, ss->unread > 0);
}

typedef void (*command_fn)(struct smtp_session *ss, const struct smtp_command *c);

static const command_fn commands[] = {
	[SMTP_VERB_UNKNOWN] = on_not_offered, [SMTP_VERB_HELO] = on_hello,
	[SMTP_VERB_EHLO] = on_hello,          [SMTP_VERB_MAIL] = on_mail,
	[SMTP_VERB_RCPT] = on_rcpt,           [SMTP_VERB_DATA] = on_data,
	[SMTP_VERB_RSET] = on_rset,           [SMTP_VERB_NOOP] = on_noop,
	[SMTP_VERB_QUIT] = on_quit,           [SMTP_VERB_VRFY] = on_vrfy,
	[SMTP_VERB_EXPN] = on_not_offered,    [SMTP_VERB_HELP] = on_help,
	[SMTP_VERB_STARTTLS] = on_starttls,   [SMTP_VERB_AUTH] = on_auth,
	[SMTP_VERB_BDAT] = on_bdat,           [SMTP_VERB_XCLIENT] = on_xclient,
};

/* ---- lines ---- */

static const struct smtp_command no_command = {.verb = SMTP_VERB_UNKNOWN};

void smtp_dialogue_bare_lf(struct smtp_session *ss, const char *line, size_t len)
{
	smtp_auth_abandon(ss);
	refuse_idle(ss, &no_command, &bare_lf, SMTP_COUNT_REFUSED_SYNTAX);
	close_after_chunk(ss, line, len);
}

void smtp_dialogue_long_line(struct smtp_session *ss, const char *line, size_t len)
{
	smtp_auth_abandon(ss);
	refuse_idle(ss, &no_command, &long_line, SMTP_COUNT_REFUSED_LONG_COMMAND);
	close_after_chunk(ss, line, len);
}

void smtp_dialogue_bad_proxy(struct smtp_session *ss)
{
	smtp_count(smtp_session_counts(ss), SMTP_COUNT_REFUSED_PROXY);
	smtp_log_rejection(ss, SMTP_STAGE_BANNER, &bad_proxy, NULL, NULL);
	smtp_session_reply(ss, bad_proxy.code, bad_proxy.status, "%s", bad_proxy.text);
	smtp_session_close(ss, true);
}

void smtp_dialogue_early_talker(struct smtp_session *ss)
{
	smtp_count(smtp_session_counts(ss), SMTP_COUNT_EARLY_TALKERS);
	smtp_log_rejection(ss, SMTP_STAGE_BANNER, &early_talker, NULL, NULL);
	smtp_session_reply(ss, early_talker.code, early_talker.status, "%s", early_talker.text);
	smtp_session_close(ss, true);
}

void smtp_dialogue_greet(struct smtp_session *ss, const struct smtp_refusal *refusal)
{
	if (refusal != NULL) {
		smtp_policy_refuse(ss, SMTP_STAGE_BANNER, refusal, NULL, NULL);
		smtp_session_close(ss, true);
	} else if (ss->held.len > 0) {
		smtp_dialogue_early_talker(ss);
	} else {
		smtp_session_say(ss, "220 ");
		smtp_session_say(ss, ss->options->hostname);
		smtp_session_say(ss, " ");
		smtp_session_say(ss, ss->options->banner);
		smtp_session_say(ss, "\r\n");
	}
}

/* A line whose syntax is wrong. What DATA would have been followed by is no commands. */
static void refuse_syntax(struct smtp_session *ss, const struct smtp_command *c,
			  const struct smtp_refusal *r)
{
	if (c->verb == SMTP_VERB_DATA && ss->unread > 0) {
		on_data(ss, c);
		return;
	}
	refuse_idle(ss, c, r,
		    c->verb == SMTP_VERB_UNKNOWN ? SMTP_COUNT_REFUSED_UNKNOWN
						 : SMTP_COUNT_REFUSED_SYNTAX);
}

void smtp_dialogue_line(struct smtp_session *ss, const char *line, size_t len)
{
	struct smtp_refusal refusal;
	struct smtp_command c;

	if (smtp_auth_waits_for_line(ss)) {
		smtp_auth_line(ss, line, len);
		return;
	}
	if (smtp_command_parse(&c, line, len, &refusal) != 0) {
		refuse_syntax(ss, &c, &refusal);
		close_after_chunk(ss, line, len);
		return;
	}
	commands[c.verb](ss, &c);
}
