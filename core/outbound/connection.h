/*
 * Outbound connection: one SMTP client session with one host, for the domains of one lane. It
 * carries one delivery at a time, pipelines when the peer offers that, and tells the dispatcher
 * when it is ready, when an attempt has ended, and when it is gone.
 *
 * Start reading at connection_on_reply(), last in connection.c.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "core/mail/smtp_reply.h"
#include "core/outbound/chunk.h"
#include "core/outbound/dispatch.h"
#include "core/queue/site.h"
#include "core/runtime/stream.h"
#include "core/runtime/timer.h"

#define CONNECTION_MAGIC 0x636f6e6eU
#define CONNECTION_IOV 64

enum connection_state {
	CONNECTION_CONNECTING,
	CONNECTION_BANNER,
	CONNECTION_EHLO,
	CONNECTION_HELO,
	/* STARTTLS was said; the handshake. */
	CONNECTION_STARTTLS,
	CONNECTION_SECURING,
	/* Waits for a delivery. */
	CONNECTION_IDLE,
	/* Has a delivery whose content is read back. */
	CONNECTION_LOADING,
	/* MAIL, RCPT and DATA. */
	CONNECTION_ENVELOPE,
	/* The body is on its way, or its confirmation is awaited. */
	CONNECTION_BODY,
	CONNECTION_RSET,
	CONNECTION_QUIT,
	/* Waits for its operations to end. */
	CONNECTION_CLOSING,
};

BOUND
struct connection {
	uint32_t magic;
	OWNER_FIELD
	enum connection_state state;
	struct dispatcher *dispatcher;
	struct lane *lane;
	/* Of the lane; those of what it carries are in domain->options. */
	const struct domain_options *options;
	/* Whose mail it carries, carried last, or was opened for; NULL: that one has gone. */
	struct domain *domain;
	/* Of the domain, of the site, and of idle ones of the lane. */
	struct connection *next;
	struct connection *prev;
	struct connection *site_next;
	struct connection *site_prev;
	struct connection *idle_next;
	struct connection *idle_prev;
	struct stream stream;
	struct timer timer;
	uint64_t since_ms;
	struct sockaddr_storage address;
	socklen_t address_len;
	char host_name[256];
	char remote_ip[INET6_ADDRSTRLEN];
	/* Empty: the kernel chose. */
	char local_ip[INET6_ADDRSTRLEN];
	/* By TLS, with a peer that has proven who it is. */
	bool verified;
	/* What the host had when the connection was opened: TLSA records; enum host_sts. */
	bool dane;
	uint8_t sts;
	/* It is the one that gets plain text because TLS has failed. */
	bool plain;
	/* Bytes that came together with the reply that is looked at. */
	size_t unread;
	uint32_t extensions;
	uint64_t size_max;
	/* Deliveries that ended in a 2xx. */
	uint32_t delivered;
	/* Transactions begun. */
	uint32_t transactions;

	struct delivery *delivery;
	/* Size of its content, while that was read back for it. */
	uint64_t loaded_bytes;
	/* Recipients of this transaction, of which the peer accepted some. */
	struct recipient_set batch;
	struct recipient_set accepted;
	uint32_t batch_count;
	/* Replies awaited, in order: 0 MAIL, 1 to batch_count RCPT, then DATA, if not by BDAT. */
	uint32_t step;
	uint32_t steps_sent;
	/* The recipient that the next RCPT reply is for. */
	unsigned rcpt_place;
	bool mail_refused;
	bool body_sent;
	/* The body goes by BDAT; along with the recipients; its command was said. */
	bool chunked;
	bool along;
	bool chunk_begun;
	char chunk_command[40];
	struct chunk_cursor chunk;
	/* The body was answered before we heard that it is out. */
	bool reply_held;
	/* A send failed; what the peer had said before is still read. */
	bool send_failed;
	/* Lost while the content was being read back. */
	bool broken;
	/* The task that frees it is on its way. */
	bool freed;
	struct attempt attempt;
	struct recipient_reply *replies;

	/* Text to be sent, text under way, and what describes it or the body to the kernel. */
	struct chain commands;
	struct chain sending;
	struct chain_buffer *body_cursor;
	struct iovec iov[CONNECTION_IOV];
	struct smtp_reply reply;
};

/* Opens a connection of the lane to `host`. The outcome comes through dispatch_on_ready() or
 * dispatch_on_closed(). NULL when no socket could be made (-errno in `*error`). */
BOUND
struct connection *connection_open(struct dispatcher *x, struct lane *l, struct host *host,
				   int *error);

/* An idle connection takes a delivery; its content is at hand, or `loading`: then
 * connection_begin() follows. */
BOUND
void connection_assign(struct connection *c, struct delivery *delivery, bool loading);

/* The content is at hand: begin the transaction. What this peer can never take fails at once, and
 * the connection is idle again. */
BOUND
void connection_begin(struct connection *c);

/* Says QUIT and closes; for idle connections. */
BOUND
void connection_quit(struct connection *c);

/* Closes it at once, which is nobody's fault; for one that has no delivery. */
BOUND
void connection_drop(struct connection *c);

/* Ends it at once. An attempt under way is deferred with the reason `text`. */
BOUND
void connection_abort(struct connection *c, const char *text);

/* What the connection tells the dispatcher; implemented in dispatch_events.c. */
BOUND
void dispatch_on_ready(struct connection *c);
/* The attempt is over, and with it the use of content that was read back. */
BOUND
void dispatch_on_unloaded(struct connection *c);
/* The attempt has ended; c->attempt says how, and the delivery is no longer the connection's. */
BOUND
void dispatch_on_attempt(struct connection *c, struct delivery *delivery);
/* Setting up failed at `stage`: the host is to blame, c->attempt.text says why. */
BOUND
void dispatch_on_setup_failed(struct connection *c);
/* The last word: the connection is freed afterwards. */
BOUND
void dispatch_on_closed(struct connection *c);
