/*
 * One delivery on a connection: MAIL, RCPT, the body by DATA or BDAT, and what is made of each
 * reply.
 *
 * Start reading at connection_begin().
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/outbound/connection_parts.h"
#include "core/outbound/international.h"
#include "core/outbound/parameters.h"
#include "core/runtime/check.h"
#include "core/runtime/text.h"

/* Bytes of a body that is sent before its recipients are answered. */
#define BODY_ALONG_MAX 65536

/* ---- the end of an attempt ---- */

void attempt_reset(struct connection *c)
{
	struct tls_agreed agreed;

	memset(&c->attempt, 0, offsetof(struct attempt, text));
	c->attempt.text[0] = '\0';
	c->attempt.replies = NULL;
	c->attempt.dsn_handed_on = false;
	c->attempt.given_up = ATTEMPT_NOT_GIVEN_UP;
	c->attempt.not_tried = false;
	memcpy(c->attempt.remote_ip, c->remote_ip, sizeof c->attempt.remote_ip);
	c->attempt.remote_name = c->host_name;
	memcpy(c->attempt.local_ip, c->local_ip, sizeof c->attempt.local_ip);
	memset(c->attempt.tls, 0, sizeof c->attempt.tls);
	if (stream_is_secure(&c->stream)) {
		agreed = stream_agreed(&c->stream);
		c->attempt.tls[0] = agreed.version;
		c->attempt.tls[1] = agreed.cipher;
		c->attempt.tls[2] = agreed.verification;
	}
}

static void replies_free(struct connection *c)
{
	if (c->replies != NULL) {
		for (unsigned i = 0; i < ENVELOPE_DELIVERY_RECIPIENTS; i++) {
			free(c->replies[i].text);
		}
		free(c->replies);
		c->replies = NULL;
	}
}

void attempt_end(struct connection *c)
{
	struct delivery *delivery = c->delivery;
	struct attempt *a = &c->attempt;

	for (unsigned i = 0; i < 2; i++) {
		a->deferred.bits[i] |=
			c->batch.bits[i] & ~a->delivered.bits[i] & ~a->failed.bits[i];
	}
	a->replies = c->replies;
	c->delivery = NULL;
	dispatch_on_unloaded(c);
	dispatch_on_attempt(c, delivery);
	replies_free(c);
}

void attempt_text(struct connection *c, uint16_t code, const char *enhanced, const char *text)
{
	struct attempt *a = &c->attempt;

	a->code = code;
	text_copy(a->enhanced, sizeof a->enhanced, enhanced);
	text_copy(a->text, sizeof a->text, text);
}

void attempt_reply(struct connection *c)
{
	attempt_text(c, c->reply.code, c->reply.status, c->reply.text);
}

/* A reply that decides for every accepted recipient, or for all of the batch. */
static void apply_reply(struct connection *c, const struct recipient_set *to)
{
	struct recipient_set *verdict = smtp_reply_class(&c->reply) == 2   ? &c->attempt.delivered
					: smtp_reply_class(&c->reply) == 5 ? &c->attempt.failed
									   : &c->attempt.deferred;

	attempt_reply(c);
	for (unsigned i = 0; i < 2; i++) {
		verdict->bits[i] |=
			to->bits[i] & ~c->attempt.failed.bits[i] & ~c->attempt.deferred.bits[i];
	}
}

/* ---- what is said ---- */

unsigned transaction_chunk(struct connection *c, unsigned count)
{
	bool stuffed = (delivery_envelope(c->delivery)->flags & ENVELOPE_UNSTUFFED) == 0;

	if (!c->chunk_begun) {
		c->chunk_begun = true;
		chunk_begin(&c->chunk, connection_body(c), stuffed);
		snprintf(c->chunk_command, sizeof c->chunk_command, "BDAT %llu LAST\r\n",
			 (unsigned long long)chunk_length(connection_body(c), stuffed));
		c->iov[count++] = (struct iovec){c->chunk_command, strlen(c->chunk_command)};
	}
	count += chunk_iov(&c->chunk, c->iov + count, CONNECTION_IOV - count);
	c->body_sent = chunk_ended(&c->chunk);
	return count;
}

void transaction_send_body(struct connection *c)
{
	unsigned count = 0;

	if (c->chunked) {
		count = transaction_chunk(c, 0);
	} else if (!c->body_sent) {
		count = chain_iov(connection_body(c), &c->body_cursor, c->iov, CONNECTION_IOV - 1);
		if (c->body_cursor == NULL) {
			c->body_sent = true;
			c->iov[count++] = (struct iovec){(void *)(uintptr_t) ".\r\n", 3};
		}
	}
	stream_send(&c->stream, c->iov, count);
}

static void command_mail(struct connection *c)
{
	const struct envelope *e = delivery_envelope(c->delivery);
	char parameters[PARAMETERS_MAX];

	parameters_mail(e, c->extensions, parameters);
	connection_command(c, "MAIL FROM:<", envelope_sender(e), ">", parameters, NULL);
}

static void command_rcpt(struct connection *c, unsigned place)
{
	const struct envelope *e = delivery_envelope(c->delivery);
	uint32_t recipient = envelope_delivery(e, c->delivery->index)->first + place;
	char parameters[PARAMETERS_MAX];

	parameters_rcpt(e, recipient, c->extensions, parameters);
	connection_command(c, "RCPT TO:<", envelope_address(e, recipient), ">", parameters, NULL);
}

/* What step `step` says; places of recipients are walked in order. */
static void command_step(struct connection *c, uint32_t step, unsigned *place)
{
	if (step == 0) {
		command_mail(c);
	} else if (step <= c->batch_count) {
		*place = recipient_set_next(&c->batch, *place);
		command_rcpt(c, *place);
		++*place;
	} else {
		connection_command(c, "DATA", NULL);
	}
}

/* With BDAT the body follows the recipients. */
uint32_t transaction_last_step(const struct connection *c)
{
	return c->batch_count + !c->chunked;
}

/* With pipelining a small body is not held back until the recipients are answered: one more round
 * trip costs more than to send it for nothing now and then (RFC 3030 section 4.2). */
static bool goes_along(struct connection *c)
{
	return c->chunked && connection_body(c)->len <= BODY_ALONG_MAX;
}

void transaction_send_steps(struct connection *c)
{
	bool pipelining = (c->extensions & SMTP_EXTENSION_PIPELINING) != 0;
	uint32_t last = pipelining ? transaction_last_step(c) : c->steps_sent;
	unsigned place = c->rcpt_place;

	while (c->steps_sent <= last) {
		command_step(c, c->steps_sent++, &place);
		if (c->commands.buffers >= CONNECTION_IOV - 2) {
			break;
		}
	}
	if (pipelining) {
		counter_add(c->dispatcher->commands_pipelined, last);
		c->along = c->steps_sent > last && goes_along(c);
	}
	connection_send(c);
}

static uint64_t step_timeout_ms(const struct connection *c)
{
	const struct domain_options *o = connection_options(c);

	return c->step == 0                ? o->mailfrom_timeout_ms
	       : c->step <= c->batch_count ? o->rcptto_timeout_ms
					   : o->body_timeout_ms;
}

/* ---- the beginning ---- */

static void choose_batch(struct connection *c)
{
	struct recipient_set waiting =
		recipient_set_without(&c->delivery->pending, &c->delivery->tried);
	uint32_t max = connection_carried_options(c)->max_recipients_per_batch;
	unsigned place = 0;

	c->batch = (struct recipient_set){{0, 0}};
	c->accepted = c->batch;
	for (c->batch_count = 0; c->batch_count < max; c->batch_count++) {
		place = recipient_set_next(&waiting, place);
		if (place == ENVELOPE_DELIVERY_RECIPIENTS) {
			break;
		}
		recipient_set_add(&c->batch, place++);
	}
	ASSERT(c->batch_count > 0);
}

/* Whether the message, for those that are put into `refused`, needs SMTPUTF8, which is not offered.
 */
static bool lacks_smtputf8(const struct connection *c, struct recipient_set *refused)
{
	const struct delivery *d = c->delivery;
	struct recipient_set found;

	if ((delivery_envelope(d)->flags & ENVELOPE_SMTPUTF8) == 0 ||
	    (c->extensions & SMTP_EXTENSION_SMTPUTF8) != 0) {
		return false;
	}
	found = international_recipients(delivery_content(d), d->index, &d->pending);
	if (recipient_set_empty(&found)) {
		return false;
	}
	*refused = found;
	return true;
}

/* What this peer can never take, found before it is asked; true when there was such a thing. */
static bool refuse_here(struct connection *c)
{
	const struct envelope *e = delivery_envelope(c->delivery);
	struct recipient_set refused = c->delivery->pending;

	if ((c->extensions & SMTP_EXTENSION_SIZE) && c->size_max != 0 &&
	    e->body_bytes > c->size_max) {
		attempt_text(c, 552, "5.3.4",
			     "552 5.3.4 [internal] message is larger than the peer's SIZE limit");
	} else if (lacks_smtputf8(c, &refused)) {
		attempt_text(c, 550, "5.6.7",
			     "550 5.6.7 [internal] the peer does not offer SMTPUTF8");
	} else if ((e->flags & ENVELOPE_REQUIRETLS) && !c->verified) {
		/* RFC 8689 section 4.2.1. */
		attempt_text(c, 550, "5.7.30",
			     "550 5.7.30 [internal] the message requires TLS to a verified peer");
	} else if ((e->flags & ENVELOPE_REQUIRETLS) &&
		   !(c->extensions & SMTP_EXTENSION_REQUIRETLS)) {
		attempt_text(c, 550, "5.7.30",
			     "550 5.7.30 [internal] the peer does not offer REQUIRETLS");
	} else if ((e->flags & ENVELOPE_8BITMIME) && !(c->extensions & SMTP_EXTENSION_8BITMIME) &&
		   connection_carried_options(c)->downgrade_8bit == DOMAIN_DOWNGRADE_BOUNCE) {
		attempt_text(c, 554, "5.6.3",
			     "554 5.6.3 [internal] the peer does not offer 8BITMIME");
	} else {
		return false;
	}
	/* The batch is what gets a verdict; others have their turn next. */
	c->batch = c->attempt.failed = refused;
	return true;
}

void connection_begin(struct connection *c)
{
	CHECK_MAGIC(c, CONNECTION_MAGIC);
	OWNER_CHECK(c);
	ASSERT(c->delivery != NULL);
	choose_batch(c);
	if (c->broken) {
		c->attempt.not_tried = c->transactions > 0;
		connection_close(c);
		return;
	}
	if (refuse_here(c)) {
		c->attempt.stage = SMTP_STAGE_IDLE;
		attempt_end(c);
		connection_set_state(c, CONNECTION_IDLE, connection_options(c)->idle_timeout_ms);
		return;
	}
	if (c->transactions++ > 0) {
		counter_inc(c->dispatcher->reused);
	}
	c->step = 0;
	c->steps_sent = 0;
	c->rcpt_place = 0;
	c->mail_refused = false;
	c->body_sent = false;
	c->body_cursor = NULL;
	c->chunked = connection_carried_options(c)->use_chunking &&
		     (c->extensions & SMTP_EXTENSION_CHUNKING) != 0;
	c->chunk_begun = false;
	c->along = false;
	c->reply_held = false;
	c->attempt.dsn_handed_on = (c->extensions & SMTP_EXTENSION_DSN) != 0;
	smtp_reply_reset(&c->reply);
	connection_set_state(c, CONNECTION_ENVELOPE,
			     connection_carried_options(c)->mailfrom_timeout_ms);
	transaction_send_steps(c);
}

void connection_assign(struct connection *c, struct delivery *delivery, bool loading)
{
	CHECK_MAGIC(c, CONNECTION_MAGIC);
	ASSERT(c->state == CONNECTION_IDLE && c->delivery == NULL);
	connection_change_state(c, CONNECTION_LOADING);
	c->delivery = delivery;
	delivery->connection = c;
	attempt_reset(c);
	if (loading) {
		timer_cancel(&c->timer);
	} else {
		connection_begin(c);
	}
}

/* ---- replies ---- */

/* The transaction is over and the session lives on: next one, or goodbye. */
static void transaction_done(struct connection *c, bool reset)
{
	uint32_t max = connection_options(c)->max_deliveries_per_connection;

	attempt_end(c);
	c->mail_refused = false;
	if (max != 0 && c->delivered >= max) {
		connection_quit(c);
		/* Others need not wait for the peer's goodbye. */
		dispatch_on_ready(c);
	} else if (reset) {
		connection_command(c, "RSET", NULL);
		connection_set_state(c, CONNECTION_RSET, connection_options(c)->rset_timeout_ms);
		connection_send(c);
	} else {
		connection_set_state(c, CONNECTION_IDLE, connection_options(c)->idle_timeout_ms);
		dispatch_on_ready(c);
	}
}

static void recipient_note(struct connection *c, unsigned place)
{
	struct recipient_reply *r;

	if (c->replies == NULL) {
		c->replies = check_memory(calloc(ENVELOPE_DELIVERY_RECIPIENTS, sizeof *c->replies),
					  "replies of recipients");
	}
	r = &c->replies[place];
	r->code = c->reply.code;
	memcpy(r->enhanced, c->reply.status, sizeof r->enhanced);
	free(r->text);
	r->text = strndup(c->reply.text, ATTEMPT_TEXT - 1);
}

static void on_rcpt_reply(struct connection *c)
{
	unsigned place = recipient_set_next(&c->batch, c->rcpt_place);

	c->rcpt_place = place + 1;
	if (c->mail_refused) {
		return;
	}
	switch (smtp_reply_class(&c->reply)) {
	case 2:
		recipient_set_add(&c->accepted, place);
		return;
	case 5:
		recipient_set_add(&c->attempt.failed, place);
		break;
	default:
		recipient_set_add(&c->attempt.deferred, place);
		break;
	}
	c->attempt.stage = SMTP_STAGE_DURING_RCPT;
	attempt_reply(c);
	recipient_note(c, place);
}

static void on_data_reply(struct connection *c)
{
	bool wanted = !recipient_set_empty(&c->accepted);

	if (c->reply.code == 354) {
		c->body_sent = !wanted;
		connection_set_state(c, CONNECTION_BODY,
				     connection_carried_options(c)->body_timeout_ms);
		if (wanted && !stream_send_busy(&c->stream)) {
			transaction_send_body(c);
		} else if (!wanted) {
			/* RFC 2920 section 3.1: nobody is left, so end the data it asks for. */
			connection_command(c, ".", NULL);
			connection_send(c);
		}
		return;
	}
	if (wanted) {
		c->attempt.stage = SMTP_STAGE_DURING_DATA;
		if (smtp_reply_class(&c->reply) == 2 || smtp_reply_class(&c->reply) == 3) {
			connection_fail(c, "4.5.0",
					"451 4.5.0 [internal] DATA was answered with %u",
					c->reply.code);
			return;
		}
		apply_reply(c, &c->accepted);
	}
	transaction_done(c, !c->mail_refused);
}

/* All recipients were answered: the body follows without being asked for, if it has not gone. */
static void begin_chunk(struct connection *c)
{
	connection_set_state(c, CONNECTION_BODY, connection_carried_options(c)->body_timeout_ms);
	if (!c->along && !stream_send_busy(&c->stream)) {
		transaction_send_body(c);
	}
}

void transaction_on_envelope_reply(struct connection *c)
{
	if (c->step == c->steps_sent) {
		connection_unasked(c);
		return;
	}
	if (c->step == 0 && smtp_reply_class(&c->reply) != 2) {
		c->mail_refused = true;
		c->attempt.stage = SMTP_STAGE_DURING_MAIL;
		apply_reply(c, &c->batch);
	} else if (c->step > 0 && c->step <= c->batch_count) {
		on_rcpt_reply(c);
	} else if (c->step == c->batch_count + 1) {
		on_data_reply(c);
		return;
	}
	c->step++;
	timer_arm(&c->timer, agent_now_ms(c->dispatcher->self) + step_timeout_ms(c));
	if (c->steps_sent > c->step) {
		return;
	}
	/* No recipient is left to send the body for, or the sender was refused. */
	if (!c->along && (c->mail_refused ||
			  (c->step == c->batch_count + 1 && recipient_set_empty(&c->accepted)))) {
		transaction_done(c, !c->mail_refused);
		return;
	}
	if (c->step > transaction_last_step(c)) {
		begin_chunk(c);
	} else if (!stream_send_busy(&c->stream)) {
		transaction_send_steps(c);
	}
}

void transaction_on_body_reply(struct connection *c)
{
	if (!c->body_sent || c->send_failed || stream_send_busy(&c->stream)) {
		/* It did not wait for the end: what it says stands unless it claims to have it. */
		c->attempt.stage = SMTP_STAGE_BODY;
		if (smtp_reply_class(&c->reply) >= 4) {
			apply_reply(c, &c->accepted);
			connection_close(c);
		} else {
			connection_fail(c, "4.5.0",
					"451 4.5.0 [internal] reply before the end of the body");
		}
		return;
	}
	if (!recipient_set_empty(&c->accepted)) {
		c->attempt.stage = SMTP_STAGE_CONFIRMATION;
		if (smtp_reply_class(&c->reply) == 3) {
			connection_fail(c, "4.5.0",
					"451 4.5.0 [internal] the body was answered with %u",
					c->reply.code);
			return;
		}
		apply_reply(c, &c->accepted);
		if (smtp_reply_class(&c->reply) == 2) {
			c->delivered++;
		}
	}
	/* RFC 3030 section 2: after a chunk that failed only RSET helps. */
	transaction_done(c, c->chunked && smtp_reply_class(&c->reply) != 2);
}
