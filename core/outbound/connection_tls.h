/*
 * TLS of outbound connections: when to begin it, what to demand of the peer, and what follows when
 * it fails (RFC 3207, RFC 7435, RFC 7672). The first half is called by connection.c, the second is
 * what that lends to this file.
 */
#pragma once

#include <stdbool.h>

#include "core/mail/smtp_stage.h"
#include "core/outbound/connection.h"
#include "core/runtime/thread_class.h"

/* Counters and the cache of sessions, in dispatcher_init(). */
SINGLE
void connection_tls_init(struct dispatcher *x);

/* EHLO or HELO was answered. True when more is to be done before mail can be sent: STARTTLS was
 * said, or the connection ends for want of it. */
BOUND
bool connection_tls_begin(struct connection *c);

/* The reply to STARTTLS. */
BOUND
void connection_tls_on_reply(struct connection *c);

/* State SECURING: begins the handshake, as soon as nothing is being sent. */
BOUND
void connection_tls_handshake(struct connection *c);

/* A connection that was being set up has failed. True when it was TLS, and the host may be sent to
 * without: then it is for a while, and is not to blame. */
BOUND
bool connection_tls_forgive(struct connection *c);

/* ---- in connection.c ---- */

/* Says `verb`, with its argument if that is not "", and waits in `state` for the reply as long as
 * for one to EHLO. */
BOUND
void connection_setup_say(struct connection *c, enum connection_state state, const char *verb,
			  const char *argument);

/* Waits as long in `state`, without a word. */
BOUND
void connection_setup_wait(struct connection *c, enum connection_state state);

/* Setting up has failed; `text` has code and enhanced status before it. */
BOUND
void connection_setup_fail(struct connection *c, enum smtp_stage stage, const char *enhanced,
			   const char *text);
