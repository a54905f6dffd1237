/*
 * Delivery status notification: tells a sender which recipients will not get the message, and why,
 * or, if it asked for that (RFC 3461), which have to wait, or where it was handed on and nobody
 * else will tell. RFC 3464 in the multipart/report of RFC 6522 (formerly 3462), statuses of RFC
 * 3463. It goes out with the null sender to the original sender; queueing it is the caller's
 * matter.
 */
#pragma once

#include <stdint.h>

#include "core/mail/chain.h"
#include "core/mail/envelope.h"
#include "core/runtime/thread_class.h"

enum dsn_action {
	/* For good. */
	DSN_FAILED,
	/* Delivered to a next hop that does not tell what becomes of it. */
	DSN_RELAYED,
	/* Waits, and is tried again. */
	DSN_DELAYED,
};

/* One recipient. Strings may hold anything; they are made fit. */
READONLY
struct dsn_recipient {
	const char *address;
	/* ORCPT as it was given, valid; NULL: none. */
	const char *original;
	enum dsn_action action;
	/* The server's reply code; 0: the failure was found here, without a server's reply. */
	uint16_t code;
	/* Enhanced status "5.1.1"; NULL, empty, malformed or of another class than the action's:
	 * 5.0.0, or 2.0.0 where it was delivered, 4.0.0 where it waits. */
	const char *status;
	/* The server's reply or the reason found here; NULL: none. */
	const char *diagnostic;
	/* Name or address of the server that said so; NULL: none. */
	const char *remote_mta;
};

READONLY
struct dsn {
	/* The notification's own id: makes Message-ID and boundary. */
	struct message_id id;
	uint64_t time_s;
	/* This MTA's name. */
	const char *reporting_mta;
	/* Address for From: without brackets. */
	const char *mailerdaemon;
	/* The message: sender, arrival, RET and ENVID are taken from it. The sender is not the null
	 * one. */
	const struct envelope *original;
	/* Its body in wire form; NULL: not at hand, then the part with its header is left out. */
	const struct chain *original_body;
	const struct dsn_recipient *recipients;
	uint32_t recipient_count;
	/* Until when those with DSN_DELAYED are tried. */
	uint64_t retry_until_s;
};

/* Original header bytes that are returned; what is longer is cut after a whole field's line. */
#define DSN_HEADER_MAX 65536
/* With RET=FULL a message that failed comes back whole, up to so many bytes; of one that is larger,
 * or has a header in UTF-8, the header. */
#define DSN_FULL_MAX (1 << 20)

/*
 * Appends the notification to `out` in SMTP wire form: CR LF, dot-stuffed, no line above 998 bytes
 * but those of a message that comes back whole. It is 7-bit: what has octets above 127 is encoded
 * (RFC 2045, RFC 6533 section 3), but for the address of a sender that has some, and for a message
 * that comes back whole. All inputs alike give all bytes alike.
 * Returns the envelope flags that it needs: 0, or with such a sender ENVELOPE_8BITMIME and
 * ENVELOPE_SMTPUTF8, with such a message ENVELOPE_8BITMIME.
 */
SINGLE
uint16_t dsn_write(const struct dsn *d, struct chain *out, struct pool *buffers);
