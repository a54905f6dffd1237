/*
 * SMTP session: one client's connection. This file is about bytes and time: lines come in, replies
 * go out gathered, deadlines pass, the connection closes. What the commands mean is in dialogue.h,
 * what becomes of a message in transaction.h.
 *
 * Replies are gathered and sent once per wake-up. Input is not looked at while a message is at the
 * spool or while the client does not read its replies: what was received already is held back, and
 * nothing more is asked for.
 *
 * Belongs to the scheduler that serves it. Start reading at smtp_session_settle(), which is where
 * every event ends.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agents/scheduler.h"
#include "core/mail/chain.h"
#include "core/mail/smtp_command.h"
#include "core/runtime/check.h"
#include "core/runtime/stream.h"
#include "core/runtime/thread_class.h"
#include "core/runtime/timer.h"
#include "listeners/smtp/chunk.h"
#include "listeners/smtp/listener.h"
#include "listeners/smtp/session_list.h"

#define SMTP_SESSION_MAGIC 0x73657373U
/* Replies that may wait to be read by the client, in bytes, before its input has to wait; the
 * kernel holds at least as many. */
#define SMTP_OUTPUT_MAX 16384
/* Time for the last reply to be sent, ms; and for the client to read it and close. */
#define SMTP_CLOSE_GRACE_MS 5000
#define SMTP_LINGER_MS 1000
/* What is thrown away meanwhile, bytes. */
#define SMTP_LINGER_BYTES (UINT64_C(1) << 20)
/* Buffers handed to the kernel at once. */
#define SMTP_SESSION_IOV 8
#define SMTP_HELO_MAX 255

struct smtp_auth;
struct smtp_policy;
struct smtp_transaction;

enum smtp_session_state {
	/* The PROXY header has not come yet; the client may not be the one that it is about. */
	SMTP_SESSION_PROXY,
	/* The banner was not sent yet: whoever talks now is dismissed. */
	SMTP_SESSION_GREETING,
	SMTP_SESSION_COMMANDS,
	/* STARTTLS was answered, or TLS comes first: the handshake follows what is being sent. */
	SMTP_SESSION_SECURING,
	SMTP_SESSION_DATA,
	/* The octets of a BDAT are received. */
	SMTP_SESSION_CHUNK,
	/* A message is at the spool. */
	SMTP_SESSION_STORING,
	/* A password is checked, or its refusal delayed. */
	SMTP_SESSION_AUTH,
	/* A script waits for something. */
	SMTP_SESSION_POLICY,
	/* The last replies are being sent. */
	SMTP_SESSION_CLOSING,
	/* They were sent; what the client still sends is thrown away, because closing at once could
	 * make it lose the reply (RFC 9293 section 3.6.1). */
	SMTP_SESSION_LINGERING,
	/* Waits for its operations to end. */
	SMTP_SESSION_DEAD,
};

BOUND
struct smtp_session {
	uint32_t magic;
	OWNER_FIELD
	enum smtp_session_state state;
	/* HELO or EHLO was obeyed; it was EHLO. */
	bool has_helo;
	bool esmtp;
	/* TLS is on. */
	bool secure;
	/* relay_hosts has the client, or its certificate counts as much. */
	bool relay_host;
	/* By TLS, and its certificate was verified. */
	bool verified;
	/* xclient_hosts has `teller`; and it told the name of HELO. */
	bool xclient;
	bool helo_told;
	/* The client will send nothing more. */
	bool eof;
	/* Read on for a while before closing. */
	bool linger;
	/* The spool has not answered yet. */
	bool storing;
	uint8_t auth_failures;
	struct smtp_listener *listener;
	struct accept *accept;
	const struct smtp_options *options;
	/* The client, as the master saw it or as those told who may. */
	struct in6_addr peer;
	uint16_t peer_port;
	char peer_text[INET6_ADDRSTRLEN];
	/* Who may tell of other clients by XCLIENT, if anybody: who connected, or whom the header
	 * of a proxy tells. */
	struct in6_addr teller;
	/* Who it is, once it has authenticated, malloc; NULL: anybody. */
	char *user;
	/* How, static. */
	const char *auth_method;
	/* Where it came in, as configured. */
	const char *listen_name;
	/* What its mail is sent by, as auth_file says, malloc; NULL: that says nothing. */
	char *binding;
	/* An AUTH in progress; NULL: none. */
	struct smtp_auth *auth;
	/* Its part in policy; NULL: no hook was called yet. */
	struct smtp_policy *policy;
	/* From MAIL to the end of the message; NULL: none. */
	struct smtp_transaction *transaction;
	/* The chunk that is received. */
	struct smtp_chunk chunk;
	struct timer deadline;
	uint64_t began_ms;
	/* On its way to another scheduler: when its deadline is. */
	uint64_t due_ms;
	/* In the listener's list of all, and in one of its lists of those that wait for it. */
	struct session_link all;
	struct session_link waiting;
	/* Commands in a row that moved no mail; messages accepted; RCPTs that were. */
	uint32_t idle_commands;
	uint32_t receptions;
	uint32_t recipients;
	/* Bytes that were received and not looked at yet; and, while lingering, thrown away. */
	size_t unread;
	size_t thrown_away;
	/* What of them has to wait. */
	struct chain held;
	/* Start of a line whose end is still to come: a buffer, only while there is one, and the
	 * line's length so far, which may be more than is kept. */
	char *line;
	size_t line_len;
	struct chain output;
	struct chain sending;
	struct chain_buffer *send_next;
	struct iovec iov[SMTP_SESSION_IOV];
	struct stream stream;
	char helo[SMTP_HELO_MAX + 1];
};
_Static_assert(sizeof(struct smtp_session) <= 2048, "an idle connection is to stay small");

static inline struct smtp_session *smtp_session_of_all(struct session_link *link)
{
	return CONTAINER_OF(link, struct smtp_session, all);
}

static inline struct smtp_session *smtp_session_of_waiting(struct session_link *link)
{
	return CONTAINER_OF(link, struct smtp_session, waiting);
}

static inline struct smtp_counts *smtp_session_counts(struct smtp_session *ss)
{
	return &ss->listener->counts;
}

/* Nothing of what it began goes on: no transaction, no AUTH, no script. */
BOUND
static inline bool smtp_session_is_between(const struct smtp_session *ss)
{
	return ss->state == SMTP_SESSION_COMMANDS && ss->transaction == NULL && ss->auth == NULL;
}

/* Takes `a` over. The banner is sent by smtp_session_greet(), in a later duty cycle. */
BOUND
void smtp_session_serve(struct smtp_listener *l, struct accept *a);

/* Takes the generation of its scheduler, unless it is in the middle of something, or has a newer
 * one, or there is no such listen in it: then it goes on with its own. */
BOUND
void smtp_session_renew(struct smtp_session *ss);

/* Sends the banner; the session has been silent until now. */
BOUND
void smtp_session_greet(struct smtp_session *ss);

/* Adds one reply line, "code status text", to what will be sent. `status`: RFC 3463; NULL: none. */
BOUND
void smtp_session_reply(struct smtp_session *ss, unsigned code, const char *status,
			const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Adds finished lines, with their CR LF. */
BOUND
void smtp_session_say(struct smtp_session *ss, const char *lines);

/* The client is at `peer` (IPv4 as v4-mapped) from here on: what applies to it does. */
BOUND
void smtp_session_set_client(struct smtp_session *ss, const struct in6_addr *peer, uint16_t port);

/* The client is `user` from here on, whose mail is sent by `binding`; NULL: anybody; nobody has
 * said. */
BOUND
void smtp_session_set_user(struct smtp_session *ss, const char *user, const char *binding);

/* Nothing more is obeyed; the connection closes when the replies so far were sent. A transaction in
 * progress is forgotten. `linger`: the client may not expect it, so let it read them. */
BOUND
void smtp_session_close(struct smtp_session *ss, bool linger);

/* 421 with `status` and `text`, then close. */
BOUND
void smtp_session_dismiss(struct smtp_session *ss, const char *status, const char *text);

/* STARTTLS was obeyed: what comes after the replies so far is TLS. */
BOUND
void smtp_session_secure(struct smtp_session *ss);

/* The listener stops: see struct listener_ops. May free the session. */
BOUND
void smtp_session_stop(struct smtp_session *ss, bool hurry);

/* Goes on with input that was held back. To be followed by smtp_session_settle(). */
BOUND
void smtp_session_resume(struct smtp_session *ss);

/* Does what the session's state asks for now: send, read on, close. Every event ends with it; it
 * may free the session. */
BOUND
void smtp_session_settle(struct smtp_session *ss);
