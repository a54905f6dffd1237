/*
 * What the connection's files share: connection.c sets up, listens and closes, transaction.c says
 * what one delivery needs and judges the replies. Nobody else includes this.
 */
#pragma once

#include "core/outbound/connection.h"

static inline const struct domain_options *connection_options(const struct connection *c)
{
	return c->options;
}

/* Of the domain whose delivery it carries. */
static inline const struct domain_options *connection_carried_options(const struct connection *c)
{
	return c->domain->options;
}

static inline struct chain *connection_body(struct connection *c)
{
	return &delivery_content(c->delivery)->body;
}

/* ---- connection.c ---- */

/* The only place where the state changes, so that the counts follow it. */
BOUND
void connection_change_state(struct connection *c, enum connection_state state);
/* The state changes, and the time to wait for the peer begins, ms. */
BOUND
void connection_set_state(struct connection *c, enum connection_state state, uint64_t timeout_ms);
/* Says these words, the last of which is NULL, and ends the line: with the next connection_send().
 */
BOUND
void connection_command(struct connection *c, const char *word, ...) __attribute__((sentinel));
/* What was gathered goes out, now or when the last piece has gone. */
BOUND
void connection_send(struct connection *c);
/* The connection is of no more use: it broke, timed out, or the peer makes no sense. */
BOUND
void connection_fail(struct connection *c, const char *enhanced, const char *format, ...)
	__attribute__((format(printf, 3, 4)));
/* A peer that talks out of turn makes no sense. */
BOUND
void connection_unasked(struct connection *c);
/* Ends it, and the attempt, once nothing is under way. */
BOUND
void connection_close(struct connection *c);
/* Where in the conversation it is. */
BOUND
enum smtp_stage connection_stage(const struct connection *c);

/* ---- transaction.c ---- */

/* Nothing is known of the attempt yet. */
BOUND
void attempt_reset(struct connection *c);
/* What decides for recipients without a reply of their own: our words, or the reply. */
BOUND
void attempt_text(struct connection *c, uint16_t code, const char *enhanced, const char *text);
BOUND
void attempt_reply(struct connection *c);
/* Gives the delivery back with what was found out; recipients without a verdict are deferred. */
BOUND
void attempt_end(struct connection *c);

/* Sends the next command, or with pipelining (RFC 2920) all of them. */
BOUND
void transaction_send_steps(struct connection *c);
/* The reply that is awaited last before the body's. */
BOUND
uint32_t transaction_last_step(const struct connection *c);
/* The next piece of the body; with its last one goes the dot that ends it. */
BOUND
void transaction_send_body(struct connection *c);
/* The next pieces of the chunk, behind `count` others in c->iov, before the first its command; how
 * many there are then. */
BOUND
unsigned transaction_chunk(struct connection *c, unsigned count);
/* One complete reply, to MAIL, RCPT or DATA; to the body. */
BOUND
void transaction_on_envelope_reply(struct connection *c);
BOUND
void transaction_on_body_reply(struct connection *c);
