#include "core/outbound/connection.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/outbound/bind_address.h"
#include "core/outbound/connection_tls.h"
#include "core/outbound/international.h"
#include "core/outbound/lane_idle.h"
#include "core/outbound/parameters.h"
#include "core/runtime/check.h"
#include "core/runtime/text.h"

/* Bytes of a body that is sent before its recipients are answered. */
#define BODY_ALONG_MAX 65536

static void on_received(struct stream *stream, const unsigned char *data, int result);
static void on_sent(struct stream *stream, int result);
static void connection_on_reply(struct connection *c);
static void on_timer(struct timer *t);
static void attempt_end(struct connection *c);

static const struct domain_options *options_of(const struct connection *c)
{
	return c->options;
}

/* Of the domain whose delivery it carries. */
static const struct domain_options *carried_options(const struct connection *c)
{
	return c->domain->options;
}

static struct chain *body_of(struct connection *c)
{
	return &delivery_content(c->delivery)->body;
}

static bool sets_up(enum connection_state state)
{
	return state == CONNECTION_CONNECTING || state == CONNECTION_BANNER ||
	       state == CONNECTION_EHLO || state == CONNECTION_HELO ||
	       state == CONNECTION_STARTTLS || state == CONNECTION_SECURING;
}

/* The only place where the state changes, so that the lane's counts follow it. */
static void change_state(struct connection *c, enum connection_state state)
{
	c->lane->connecting_count += (uint32_t)sets_up(state) - (uint32_t)sets_up(c->state);
	if (c->state == CONNECTION_IDLE && state != CONNECTION_IDLE) {
		lane_remove_idle(c);
	} else if (c->state != CONNECTION_IDLE && state == CONNECTION_IDLE) {
		lane_add_idle(c);
	}
	c->state = state;
}

static void set_state(struct connection *c, enum connection_state state, uint64_t timeout_ms)
{
	change_state(c, state);
	c->since_ms = agent_now_ms(c->dispatcher->self);
	timer_arm(&c->timer, c->since_ms + timeout_ms);
}

/* ---- closing ---- */

/* Runs as a task of its own: whoever closed the connection may still be looking at it. */
static void on_free(struct agent *self, void *object, uint64_t value)
{
	struct connection *c = object;
	struct dispatcher *x = c->dispatcher;

	(void)self;
	(void)value;
	CHECK_MAGIC(c, CONNECTION_MAGIC);
	stream_close(&c->stream);
	chain_release(&c->commands, &x->pools->buffers);
	chain_release(&c->sending, &x->pools->buffers);
	dispatch_on_closed(c);
	c->magic = 0;
	pool_put(&x->connections, c);
}

/* An attempt that ended while its body was being sent is told of now: until here the kernel may
 * have read the body, which is the delivery's. */
static void finish_close(struct connection *c)
{
	if (c->freed || stream_busy(&c->stream)) {
		return;
	}
	c->freed = true;
	if (c->delivery != NULL) {
		attempt_end(c);
	}
	agent_send(c->dispatcher->self, c->dispatcher->self, on_free, c, 0);
}

static bool body_under_way(const struct connection *c)
{
	return (c->state == CONNECTION_BODY || c->along) && stream_send_busy(&c->stream);
}

static void start_close(struct connection *c)
{
	if (c->state == CONNECTION_CLOSING) {
		return;
	}
	if (c->delivery != NULL && !body_under_way(c)) {
		attempt_end(c);
	}
	change_state(c, CONNECTION_CLOSING);
	timer_cancel(&c->timer);
	stream_cancel(&c->stream);
	finish_close(c);
}

/* ---- sending ---- */

/* The next pieces of the chunk, behind `count` other ones; before the first its command. Returns
 * how many there are then. */
static unsigned next_of_chunk(struct connection *c, unsigned count)
{
	bool stuffed = (delivery_envelope(c->delivery)->flags & ENVELOPE_UNSTUFFED) == 0;

	if (!c->chunk_begun) {
		c->chunk_begun = true;
		chunk_begin(&c->chunk, body_of(c), stuffed);
		snprintf(c->chunk_command, sizeof c->chunk_command, "BDAT %llu LAST\r\n",
			 (unsigned long long)chunk_length(body_of(c), stuffed));
		c->iov[count++] = (struct iovec){c->chunk_command, strlen(c->chunk_command)};
	}
	count += chunk_iov(&c->chunk, c->iov + count, CONNECTION_IOV - count);
	c->body_sent = chunk_ended(&c->chunk);
	return count;
}

/* What was gathered goes out, now or when the last piece has gone. */
static void send_commands(struct connection *c)
{
	struct chain_buffer *cursor = NULL;
	unsigned count;

	if (stream_send_busy(&c->stream) || c->commands.len == 0) {
		return;
	}
	c->sending = c->commands;
	c->commands = CHAIN_EMPTY;
	count = chain_iov(&c->sending, &cursor, c->iov, CONNECTION_IOV);
	ASSERT(count > 0 && cursor == NULL);
	if (c->along && !c->chunk_begun) {
		count = next_of_chunk(c, count);
	}
	stream_send(&c->stream, c->iov, count);
}

/* Says these words, the last of which is NULL, and ends the line. */
static void command(struct connection *c, const char *word, ...) __attribute__((sentinel));

static void command(struct connection *c, const char *word, ...)
{
	struct pool *buffers = &c->dispatcher->pools->buffers;
	va_list words;

	va_start(words, word);
	for (; word != NULL; word = va_arg(words, const char *)) {
		chain_append(&c->commands, buffers, word, strlen(word));
	}
	va_end(words);
	chain_append(&c->commands, buffers, "\r\n", 2);
}

/* The next piece of the body; with its last one goes the dot that ends it. */
static void send_body(struct connection *c)
{
	unsigned count = 0;

	if (c->chunked) {
		count = next_of_chunk(c, 0);
	} else if (!c->body_sent) {
		count = chain_iov(body_of(c), &c->body_cursor, c->iov, CONNECTION_IOV - 1);
		if (c->body_cursor == NULL) {
			c->body_sent = true;
			c->iov[count++] = (struct iovec){(void *)(uintptr_t) ".\r\n", 3};
		}
	}
	stream_send(&c->stream, c->iov, count);
}

/* ---- the end of an attempt ---- */

static void attempt_reset(struct connection *c)
{
	memset(&c->attempt, 0, offsetof(struct attempt, text));
	c->attempt.text[0] = '\0';
	c->attempt.replies = NULL;
	c->attempt.dsn_handed_on = false;
	c->attempt.not_tried = false;
	memcpy(c->attempt.remote_ip, c->remote_ip, sizeof c->attempt.remote_ip);
	c->attempt.remote_name = c->host_name;
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

/* Gives the delivery back with what was found out; recipients without a verdict are deferred. */
static void attempt_end(struct connection *c)
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

static void attempt_text(struct connection *c, uint16_t code, const char *enhanced,
			 const char *text)
{
	struct attempt *a = &c->attempt;

	a->code = code;
	text_copy(a->enhanced, sizeof a->enhanced, enhanced);
	text_copy(a->text, sizeof a->text, text);
}

static void attempt_reply(struct connection *c)
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

/* Nothing was answered yet in this transaction, and there was one before it. */
static bool used_before(const struct connection *c)
{
	return c->transactions > 1 && c->step == 0 && c->state == CONNECTION_ENVELOPE;
}

/* The host is to blame, unless it only failed to do what it need not. */
static void setup_failed(struct connection *c)
{
	if (!connection_tls_forgive(c)) {
		dispatch_on_setup_failed(c);
	}
}

/* The connection is of no more use: it broke, timed out, or the peer makes no sense. */
static void fail(struct connection *c, const char *enhanced, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void fail(struct connection *c, const char *enhanced, const char *format, ...)
{
	char text[ATTEMPT_TEXT];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	/* What decided for all recipients stands, whatever becomes of the connection then. */
	if (!c->mail_refused) {
		attempt_text(c, 451, enhanced, text);
	}
	if (c->state == CONNECTION_LOADING) {
		/* The content is on its way to the delivery: connection_begin() ends this. */
		c->broken = true;
		return;
	}
	if (sets_up(c->state)) {
		setup_failed(c);
	} else if (c->delivery != NULL) {
		/* A peer may close what has been idle just when we use it again. */
		c->attempt.not_tried = used_before(c) && c->reply.text_len == 0;
	}
	start_close(c);
}

/* ---- a transaction ---- */

static void command_mail(struct connection *c)
{
	const struct envelope *e = delivery_envelope(c->delivery);
	char parameters[PARAMETERS_MAX];

	parameters_mail(e, c->extensions, parameters);
	command(c, "MAIL FROM:<", envelope_sender(e), ">", parameters, NULL);
}

static void command_rcpt(struct connection *c, unsigned place)
{
	const struct envelope *e = delivery_envelope(c->delivery);
	uint32_t recipient = envelope_delivery(e, c->delivery->index)->first + place;
	char parameters[PARAMETERS_MAX];

	parameters_rcpt(e, recipient, c->extensions, parameters);
	command(c, "RCPT TO:<", envelope_address(e, recipient), ">", parameters, NULL);
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
		command(c, "DATA", NULL);
	}
}

/* With BDAT the body follows the recipients. */
static uint32_t last_step(const struct connection *c)
{
	return c->batch_count + !c->chunked;
}

/* With pipelining a small body is not held back until the recipients are answered: one more round
 * trip costs more than to send it for nothing now and then (RFC 3030 section 4.2). */
static bool goes_along(struct connection *c)
{
	return c->chunked && body_of(c)->len <= BODY_ALONG_MAX;
}

/* Sends the next command, or with pipelining (RFC 2920) all of them. */
static void send_steps(struct connection *c)
{
	bool pipelining = (c->extensions & SMTP_EXTENSION_PIPELINING) != 0;
	uint32_t last = pipelining ? last_step(c) : c->steps_sent;
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
	send_commands(c);
}

static uint64_t step_timeout_ms(const struct connection *c)
{
	const struct domain_options *o = options_of(c);

	return c->step == 0                ? o->mailfrom_timeout_ms
	       : c->step <= c->batch_count ? o->rcptto_timeout_ms
					   : o->body_timeout_ms;
}

static enum smtp_stage stage_of(const struct connection *c)
{
	if (c->mail_refused) {
		return SMTP_STAGE_DURING_MAIL;
	}
	switch (c->state) {
	case CONNECTION_CONNECTING:
		return SMTP_STAGE_NOT_CONNECTED;
	case CONNECTION_BANNER:
		return SMTP_STAGE_BANNER;
	case CONNECTION_EHLO:
	case CONNECTION_HELO:
		return SMTP_STAGE_DURING_EHLO;
	case CONNECTION_STARTTLS:
		return SMTP_STAGE_DURING_STARTTLS;
	case CONNECTION_SECURING:
		return SMTP_STAGE_TLS_HANDSHAKE;
	case CONNECTION_ENVELOPE:
		return c->step == 0                ? SMTP_STAGE_DURING_MAIL
		       : c->step <= c->batch_count ? SMTP_STAGE_DURING_RCPT
						   : SMTP_STAGE_DURING_DATA;
	case CONNECTION_BODY:
		return c->body_sent ? SMTP_STAGE_CONFIRMATION : SMTP_STAGE_BODY;
	case CONNECTION_RSET:
		return SMTP_STAGE_DURING_RSET;
	default:
		return SMTP_STAGE_IDLE;
	}
}

static void choose_batch(struct connection *c)
{
	struct recipient_set waiting =
		recipient_set_without(&c->delivery->pending, &c->delivery->tried);
	uint32_t max = carried_options(c)->max_recipients_per_batch;
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
		   carried_options(c)->downgrade_8bit == DOMAIN_DOWNGRADE_BOUNCE) {
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
		start_close(c);
		return;
	}
	if (refuse_here(c)) {
		c->attempt.stage = SMTP_STAGE_IDLE;
		attempt_end(c);
		set_state(c, CONNECTION_IDLE, options_of(c)->idle_timeout_ms);
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
	c->chunked =
		carried_options(c)->use_chunking && (c->extensions & SMTP_EXTENSION_CHUNKING) != 0;
	c->chunk_begun = false;
	c->along = false;
	c->reply_held = false;
	c->attempt.dsn_handed_on = (c->extensions & SMTP_EXTENSION_DSN) != 0;
	smtp_reply_reset(&c->reply);
	set_state(c, CONNECTION_ENVELOPE, carried_options(c)->mailfrom_timeout_ms);
	send_steps(c);
}

void connection_assign(struct connection *c, struct delivery *delivery, bool loading)
{
	CHECK_MAGIC(c, CONNECTION_MAGIC);
	ASSERT(c->state == CONNECTION_IDLE && c->delivery == NULL);
	change_state(c, CONNECTION_LOADING);
	c->delivery = delivery;
	delivery->connection = c;
	attempt_reset(c);
	if (loading) {
		timer_cancel(&c->timer);
	} else {
		connection_begin(c);
	}
}

/* The transaction is over and the session lives on: next one, or goodbye. */
static void transaction_done(struct connection *c, bool reset)
{
	uint32_t max = options_of(c)->max_deliveries_per_connection;

	attempt_end(c);
	c->mail_refused = false;
	if (max != 0 && c->delivered >= max) {
		connection_quit(c);
		/* Others need not wait for the peer's goodbye. */
		dispatch_on_ready(c);
	} else if (reset) {
		command(c, "RSET", NULL);
		set_state(c, CONNECTION_RSET, options_of(c)->rset_timeout_ms);
		send_commands(c);
	} else {
		set_state(c, CONNECTION_IDLE, options_of(c)->idle_timeout_ms);
		dispatch_on_ready(c);
	}
}

static void recipient_note(struct connection *c, unsigned place)
{
	struct recipient_reply *r;

	if (c->replies == NULL) {
		c->replies = calloc(ENVELOPE_DELIVERY_RECIPIENTS, sizeof *c->replies);
		if (c->replies == NULL) {
			fatal("out of memory for replies of recipients");
		}
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

/* A peer that talks out of turn makes no sense. */
static void unasked(struct connection *c)
{
	c->attempt.stage = stage_of(c);
	fail(c, "4.5.0", "451 4.5.0 [internal] a reply that nobody asked for");
}

static void on_data_reply(struct connection *c)
{
	bool wanted = !recipient_set_empty(&c->accepted);

	if (c->reply.code == 354) {
		c->body_sent = !wanted;
		set_state(c, CONNECTION_BODY, carried_options(c)->body_timeout_ms);
		if (wanted && !stream_send_busy(&c->stream)) {
			send_body(c);
		} else if (!wanted) {
			/* RFC 2920 section 3.1: nobody is left, so end the data it asks for. */
			command(c, ".", NULL);
			send_commands(c);
		}
		return;
	}
	if (wanted) {
		c->attempt.stage = SMTP_STAGE_DURING_DATA;
		if (smtp_reply_class(&c->reply) == 2 || smtp_reply_class(&c->reply) == 3) {
			fail(c, "4.5.0", "451 4.5.0 [internal] DATA was answered with %u",
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
	set_state(c, CONNECTION_BODY, carried_options(c)->body_timeout_ms);
	if (!c->along && !stream_send_busy(&c->stream)) {
		send_body(c);
	}
}

static void on_envelope_reply(struct connection *c)
{
	if (c->step == c->steps_sent) {
		unasked(c);
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
	if (c->step > last_step(c)) {
		begin_chunk(c);
	} else if (!stream_send_busy(&c->stream)) {
		send_steps(c);
	}
}

static void on_body_reply(struct connection *c)
{
	if (!c->body_sent || c->send_failed || stream_send_busy(&c->stream)) {
		/* It did not wait for the end: what it says stands unless it claims to have it. */
		c->attempt.stage = SMTP_STAGE_BODY;
		if (smtp_reply_class(&c->reply) >= 4) {
			apply_reply(c, &c->accepted);
			start_close(c);
		} else {
			fail(c, "4.5.0", "451 4.5.0 [internal] reply before the end of the body");
		}
		return;
	}
	if (!recipient_set_empty(&c->accepted)) {
		c->attempt.stage = SMTP_STAGE_CONFIRMATION;
		if (smtp_reply_class(&c->reply) == 3) {
			fail(c, "4.5.0", "451 4.5.0 [internal] the body was answered with %u",
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

/* ---- setting up ---- */

void connection_setup_say(struct connection *c, enum connection_state state, const char *verb,
			  const char *argument)
{
	set_state(c, state, options_of(c)->ehlo_timeout_ms);
	command(c, verb, argument[0] != '\0' ? " " : "", argument, NULL);
	send_commands(c);
}

void connection_setup_wait(struct connection *c, enum connection_state state)
{
	set_state(c, state, options_of(c)->ehlo_timeout_ms);
}

void connection_setup_fail(struct connection *c, enum smtp_stage stage, const char *enhanced,
			   const char *text)
{
	c->attempt.stage = stage;
	fail(c, enhanced, "%s", text);
}

static void setup_refused(struct connection *c)
{
	attempt_reply(c);
	c->attempt.stage = stage_of(c);
	setup_failed(c);
	start_close(c);
}

static void on_setup_reply(struct connection *c)
{
	unsigned class = smtp_reply_class(&c->reply);

	if (c->state == CONNECTION_BANNER && class == 2) {
		set_state(c, CONNECTION_EHLO, options_of(c)->ehlo_timeout_ms);
		command(c, "EHLO ", options_of(c)->ehlo_hostname, NULL);
		send_commands(c);
	} else if (c->state == CONNECTION_EHLO && class == 5) {
		/* RFC 5321 section 3.2: an old server. */
		set_state(c, CONNECTION_HELO, options_of(c)->ehlo_timeout_ms);
		command(c, "HELO ", options_of(c)->ehlo_hostname, NULL);
		send_commands(c);
	} else if (class == 2) {
		if (c->state == CONNECTION_EHLO) {
			c->extensions = c->reply.extensions;
			c->size_max = c->reply.size_max;
		}
		if (connection_tls_begin(c)) {
			return;
		}
		set_state(c, CONNECTION_IDLE, options_of(c)->idle_timeout_ms);
		dispatch_on_ready(c);
	} else {
		setup_refused(c);
	}
}

static void on_connected(struct connection *c, int result)
{
	int on = 1;

	if (result < 0) {
		c->attempt.stage = SMTP_STAGE_NOT_CONNECTED;
		fail(c, "4.4.1", "451 4.4.1 [internal] cannot connect to %s: %s", c->remote_ip,
		     strerror(-result));
		return;
	}
	setsockopt(c->stream.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	/* The banner is part of connecting: connect_timeout runs on. */
	change_state(c, CONNECTION_BANNER);
	c->since_ms = agent_now_ms(c->dispatcher->self);
	stream_recv(&c->stream);
}

static void describe_address(struct connection *c)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)(const void *)&c->address;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)(const void *)&c->address;

	if (c->address.ss_family == AF_INET) {
		inet_ntop(AF_INET, &v4->sin_addr, c->remote_ip, sizeof c->remote_ip);
	} else {
		inet_ntop(AF_INET6, &v6->sin6_addr, c->remote_ip, sizeof c->remote_ip);
	}
}

struct connection *connection_open(struct dispatcher *x, struct lane *l, const struct host *host,
				   int *error)
{
	int fd = socket(host->address.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct connection *c;

	if (fd < 0) {
		*error = -errno;
		return NULL;
	}
	*error = bind_address_apply(l->options, fd, host->address.any.sa_family);
	if (*error != 0) {
		close(fd);
		return NULL;
	}
	c = pool_get(&x->connections);
	memset(c, 0, offsetof(struct connection, reply));
	c->magic = CONNECTION_MAGIC;
	OWNER_CLAIM(c);
	c->dispatcher = x;
	c->lane = l;
	c->options = l->options;
	memcpy(&c->address, &host->address, host->address_len);
	c->address_len = host->address_len;
	text_copy(c->host_name, sizeof c->host_name, host->name);
	c->dane = host->dane != NULL;
	c->sts = host->sts;
	describe_address(c);
	attempt_reset(c);
	smtp_reply_reset(&c->reply);
	timer_init(&c->timer, x->self, on_timer);
	stream_init(&c->stream, x->self, on_received, on_sent);
	stream_open(&c->stream, fd);
	/* The state of a connection that does not count yet is CLOSING. */
	c->state = CONNECTION_CLOSING;
	set_state(c, CONNECTION_CONNECTING, options_of(c)->connect_timeout_ms);
	stream_connect(&c->stream, &c->address, c->address_len);
	return c;
}

/* ---- events ---- */

static const char *waited_for(const struct connection *c)
{
	switch (stage_of(c)) {
	case SMTP_STAGE_NOT_CONNECTED:
		return "connection";
	case SMTP_STAGE_BANNER:
		return "banner";
	case SMTP_STAGE_DURING_EHLO:
		return "EHLO response";
	case SMTP_STAGE_DURING_STARTTLS:
		return "STARTTLS response";
	case SMTP_STAGE_TLS_HANDSHAKE:
		return "end of the TLS handshake";
	case SMTP_STAGE_DURING_MAIL:
		return "MAIL FROM response";
	case SMTP_STAGE_DURING_RCPT:
		return "RCPT TO response";
	case SMTP_STAGE_DURING_DATA:
		return "DATA response";
	case SMTP_STAGE_BODY:
		return "progress in sending the body";
	case SMTP_STAGE_CONFIRMATION:
		return "response to the body";
	default:
		return "response";
	}
}

static void on_timer(struct timer *t)
{
	struct connection *c = CONTAINER_OF(t, struct connection, timer);

	CHECK_MAGIC(c, CONNECTION_MAGIC);
	OWNER_CHECK(c);
	if (c->state == CONNECTION_IDLE) {
		connection_quit(c);
		return;
	}
	c->attempt.stage = stage_of(c);
	fail(c, "4.4.2", "451 4.4.2 [internal] timed out: no %s", waited_for(c));
}

void connection_quit(struct connection *c)
{
	ASSERT(c->delivery == NULL);
	if (c->state == CONNECTION_CLOSING || c->state == CONNECTION_QUIT) {
		return;
	}
	set_state(c, CONNECTION_QUIT, options_of(c)->rset_timeout_ms);
	command(c, "QUIT", NULL);
	send_commands(c);
}

void connection_drop(struct connection *c)
{
	ASSERT(c->delivery == NULL);
	start_close(c);
}

void connection_abort(struct connection *c, const char *text)
{
	if (c->state != CONNECTION_CLOSING && !c->broken) {
		c->attempt.stage = stage_of(c);
		fail(c, "4.3.2", "%s", text);
	}
}

/* A body that came along may be answered before we hear that it is out; until then the kernel may
 * read it. */
static bool reply_is_early(const struct connection *c)
{
	return c->along && c->state == CONNECTION_BODY && stream_send_busy(&c->stream) &&
	       c->unread == 0;
}

static void go_on_reading(struct connection *c)
{
	if (c->state == CONNECTION_CLOSING) {
		finish_close(c);
	} else if (!c->broken && !c->reply_held && c->state != CONNECTION_SECURING) {
		stream_recv(&c->stream);
	}
}

static void take_held_reply(struct connection *c)
{
	c->reply_held = false;
	connection_on_reply(c);
	smtp_reply_reset(&c->reply);
	go_on_reading(c);
}

static void on_sent(struct stream *stream, int result)
{
	struct connection *c = CONTAINER_OF(stream, struct connection, stream);

	CHECK_MAGIC(c, CONNECTION_MAGIC);
	OWNER_CHECK(c);
	chain_release(&c->sending, &c->dispatcher->pools->buffers);
	if (c->state == CONNECTION_CLOSING) {
		finish_close(c);
	} else if (c->state == CONNECTION_CONNECTING) {
		on_connected(c, result);
	} else if (result < 0) {
		/* The peer may have said why before it closed: what it said is read first. */
		c->send_failed = true;
		if (c->reply_held) {
			take_held_reply(c);
		} else if (!stream_recv_busy(&c->stream)) {
			c->attempt.stage = stage_of(c);
			fail(c, "4.4.2", "451 4.4.2 [internal] cannot send: %s", strerror(-result));
		}
	} else if (c->commands.len != 0) {
		send_commands(c);
	} else if (c->state == CONNECTION_SECURING) {
		connection_tls_handshake(c);
	} else if (c->state == CONNECTION_ENVELOPE && c->steps_sent <= last_step(c) &&
		   ((c->extensions & SMTP_EXTENSION_PIPELINING) || c->steps_sent == c->step)) {
		send_steps(c);
	} else if ((c->state == CONNECTION_BODY || c->along) && !c->body_sent) {
		timer_arm(&c->timer,
			  agent_now_ms(c->dispatcher->self) + carried_options(c)->body_timeout_ms);
		send_body(c);
	} else if (c->reply_held) {
		take_held_reply(c);
	}
}

static void on_disconnect(struct connection *c, int result)
{
	if (c->state == CONNECTION_QUIT || c->state == CONNECTION_IDLE) {
		start_close(c);
		return;
	}
	c->attempt.stage = stage_of(c);
	if (result == 0 || result == -ECONNABORTED) {
		fail(c, "4.4.2", "451 4.4.2 [internal] connection closed by remote host");
	} else {
		fail(c, "4.4.2", "451 4.4.2 [internal] connection lost: %s", strerror(-result));
	}
}

/* 421 at any time: the peer closes (RFC 5321 section 3.8). */
static void on_service_closing(struct connection *c)
{
	if (sets_up(c->state)) {
		setup_refused(c);
		return;
	}
	if (c->delivery != NULL) {
		c->attempt.stage = stage_of(c);
		if (!c->mail_refused) {
			attempt_reply(c);
		}
		/* Many peers say so when a connection has carried enough: that is not the
		 * message's. */
		c->attempt.not_tried = used_before(c);
		if (c->state == CONNECTION_LOADING) {
			/* As in fail(). */
			c->broken = true;
			return;
		}
	}
	start_close(c);
}

/*
 * One complete reply: what it means depends on what was said last. This is the whole conversation
 * on one page.
 */
static void connection_on_reply(struct connection *c)
{
	if (c->reply.code == 421) {
		on_service_closing(c);
		return;
	}
	switch (c->state) {
	case CONNECTION_BANNER:
	case CONNECTION_EHLO:
	case CONNECTION_HELO:
		on_setup_reply(c);
		break;
	case CONNECTION_STARTTLS:
		connection_tls_on_reply(c);
		break;
	case CONNECTION_ENVELOPE:
		on_envelope_reply(c);
		break;
	case CONNECTION_BODY:
		on_body_reply(c);
		break;
	case CONNECTION_RSET:
		if (smtp_reply_class(&c->reply) == 2) {
			set_state(c, CONNECTION_IDLE, options_of(c)->idle_timeout_ms);
			dispatch_on_ready(c);
		} else {
			start_close(c);
		}
		break;
	case CONNECTION_CONNECTING:
	case CONNECTION_SECURING:
	case CONNECTION_IDLE:
	case CONNECTION_LOADING:
	case CONNECTION_QUIT:
	case CONNECTION_CLOSING:
		/* Nothing was asked. */
		if (c->delivery != NULL) {
			unasked(c);
		} else {
			start_close(c);
		}
		break;
	}
}

static void on_received(struct stream *stream, const unsigned char *data, int result)
{
	struct connection *c = CONTAINER_OF(stream, struct connection, stream);
	size_t len = result > 0 ? (size_t)result : 0;
	size_t used;

	CHECK_MAGIC(c, CONNECTION_MAGIC);
	OWNER_CHECK(c);
	if (c->state != CONNECTION_CLOSING && result <= 0) {
		on_disconnect(c, result);
		return;
	}
	while (len > 0 && c->state != CONNECTION_CLOSING && !c->broken && !c->reply_held) {
		int rc = smtp_reply_feed(&c->reply, data, len, &used);

		data += used;
		len -= used;
		if (rc < 0) {
			c->attempt.stage = stage_of(c);
			fail(c, "4.5.0", "451 4.5.0 [internal] the peer's reply is %s: %.200s",
			     rc == -EMSGSIZE ? "too long" : "none", c->reply.text);
		} else if (rc > 0) {
			c->unread = len;
			c->reply_held = reply_is_early(c);
			if (!c->reply_held) {
				connection_on_reply(c);
				smtp_reply_reset(&c->reply);
			}
		}
	}
	go_on_reading(c);
}
