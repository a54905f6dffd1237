/*
 * The books: what was handed over, what was answered, and what became of it. Senders, receivers,
 * operators and the end of each life write in; books_check() balances them.
 *
 * - every message answered 250 is delivered, bounced, or failed with a line in the log, as far as
 *   its durability promises: `synced` always, `cached` unless the power was cut since the last
 *   orderly stop, `memory` unless the program was killed or cut before the spool had it;
 * - nothing is delivered twice to a recipient, and nobody is told of a failure twice or of that of
 *   a delivery, unless the program never read the peer's 250, or a life ended between it and the
 *   record of it;
 * - nothing is delivered that nobody sent, and no body is changed: besides the trace header;
 * - log records match events one to one, as far as the log could be kept;
 * - no limit is exceeded at any instant.
 *
 * What the program takes note of, and when it is durable, is seen on its way: the linker's --wrap
 * puts the books between the program's modules (BOOKS_WRAPPED in the Makefile): books_spool.c,
 * books_log.c.
 *
 * World memory. A broken rule is world_fail() at once, or in books_check(). Start reading at
 * books_parts.h.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/envelope.h"

struct books;

#define BOOKS_RECIPIENTS_MAX 40

/* One message that a sender hands over, once. */
struct book_message {
	uint32_t number;
	enum envelope_durability durability;
	/* For MAIL FROM; empty: the null sender. */
	char sender[48];
	/* Body as submitted, wire form without the final dot: books_body(). */
	uint32_t body_len;
	uint32_t recipient_count;
	struct book_recipient *recipients;
	/* The program may keep it from the final dot on; it must once the sender has read the 250.
	 */
	bool dotted;
	bool accepted;
	/* Answered 4xx or 5xx. */
	bool refused;
	uint32_t life_dotted;
	uint32_t life_accepted;
	struct book_message *next;
};

struct book_recipient {
	/* For RCPT TO: "local@domain"; unique, as its message's and its own number are before what
	 * books_message() was given. */
	char address[96];
	/* RCPT answered 250 in the transaction that counted. */
	bool accepted;
	/* Receivers' 250s. */
	uint32_t delivered;
};

struct books *books_create(void);

/* ---- senders ---- */

/* A new message of `len` or more bytes to `count` addresses. The body is deterministic, with a
 * header X-Sim: NUMBER, lines of all sorts, dots at line starts. The sender is drawn: some are
 * null. Set `dotted` before the final dot goes out, `accepted` or `refused` when it is answered. */
struct book_message *books_message(struct books *b, enum envelope_durability durability,
				   const char *const *recipients, uint32_t count, uint32_t len);
/* Bytes `offset` on of the message in wire form (dot-stuffed, CRLF), without the final dot. How
 * many were written; 0: the end. */
size_t books_body(const struct book_message *m, size_t offset, char *out, size_t room);

/* ---- receivers ---- */

/* A receiver answers 250 to a message now: `data` is what came, wire form, without the final dot.
 * Finds out what it is: a message of the books (checks the body), or a notification (knows whom it
 * names). Returns a key for books_confirm(). */
uint64_t books_delivered(struct books *b, const char *domain, const char *const *recipients,
			 uint32_t count, const char *data, size_t len);
/* The program has read the 250 (true), or never will (false): a second delivery is excused then.
 * Once for each key; those that never come count as false. */
void books_confirm(struct books *b, uint64_t key, bool read);

/* The program begins a connection to a domain's receivers (1) for a binding of the scenario, or has
 * closed its end (-1), whatever became of it. Domains that share a receiver share their limits; any
 * of them is named. */
void books_connection(struct books *b, const char *domain, uint32_t binding, int change);
/* An operator's order to suspend or to resume a binding is about to be sent. */
void books_binding_ordered(struct books *b, uint32_t binding);
/* An operator's order to send mail of a domain by other bindings is about to be sent. */
void books_rebind_ordered(struct books *b, const char *domain);
/* A receiver has seen a transaction's RCPTs, so many; throttles and recipients per transaction are
 * checked. */
void books_transaction(struct books *b, const char *domain, uint32_t recipients);
/* The `count`th 250 to a message on one connection is sent, those before having been read. */
void books_delivery_of_connection(struct books *b, const char *domain, uint32_t count);

/* ---- operators and lives ---- */

/* An operator's order to fail mail is about to be sent: all queued of `domain`, or the message that
 * the program calls `id`. From now on it may fail, with `quiet` without a notification. */
void books_fail_ordered(struct books *b, const char *domain, const char *id, bool quiet);
/* The id of some message that the program has received; false: none yet. */
bool books_pick_id(const struct books *b, char id[MESSAGE_ID_TEXT]);
/* After what the process held is gone. */
void books_life_ended(struct books *b, int life_end);

/* True when nothing accepted is unaccounted for: the run may end. */
bool books_settled(const struct books *b);
/* What is: the first of it, and how much there is; for the report of a run that does not end. */
const char *books_unsettled(const struct books *b);
/* All is settled, and the program is about to be stopped for good. */
void books_closing(struct books *b);
/* The end of a run: everything balances, the log files on the disk match. World_fail()s. */
void books_check(struct books *b);

struct books_totals {
	uint64_t messages;
	uint64_t accepted;
	uint64_t recipients;
	uint64_t delivered;
	uint64_t bounced;
	uint64_t failed;
	uint64_t duplicates_excused;
	uint64_t lost_excused;
};

struct books_totals books_totals(const struct books *b);
