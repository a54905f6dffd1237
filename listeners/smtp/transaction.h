/*
 * Transaction: the reception of one message, from MAIL to the reply after the final dot. The body
 * is kept as it comes, dot-stuffed, behind the Received field that is made when DATA is accepted.
 *
 * A message that will be refused is read to its end without being kept. An accepted one goes to the
 * spool; the reply is sent when the spool has it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/chain.h"
#include "core/mail/dot.h"
#include "core/mail/envelope.h"
#include "core/mail/message.h"
#include "core/runtime/thread_class.h"

#define SMTP_TRANSACTION_MAGIC 0x7472616eU
/* While the reception budget is used up, messages that are larger than this are put off. */
#define SMTP_FAIR_BYTES (UINT64_C(1) << 20)

struct smtp_listener;
struct smtp_session;

BOUND
struct smtp_transaction {
	uint32_t magic;
	/* Recipients that were refused. */
	uint32_t refused;
	/* While it is spare. */
	struct smtp_transaction *next;
	/* Its number in the logs. */
	uint64_t batch;
	struct envelope_builder envelope;
	bool smtputf8;
	/* From DATA on. */
	bool has_id;
	/* The message will be refused, and is not kept any more. */
	bool doomed;
	/* It has to be put off because of the reception budget. */
	bool crowded_out;
	/* What the scanner could not judge yet, and one byte more. */
	uint8_t tail_len;
	unsigned char tail[DOT_END_BYTES];
	struct message_id id;
	struct dot_scanner scanner;
	struct dot_converter converter;
	struct chain body;
	/* Bytes of mail data received. */
	uint64_t data_bytes;
	/* Bytes that scheduler_receiving() was told of. */
	uint64_t counted;
	/* At the spool; a reference of our own. */
	struct message *message;
};

/* A transaction for `ss`, which has none, with its sender. */
BOUND
void smtp_transaction_open(struct smtp_session *ss, const char *sender, size_t sender_len,
			   uint16_t envelope_flags);

/* DATA was accepted: what comes next is mail data. */
BOUND
void smtp_transaction_begin(struct smtp_session *ss);

/* Takes mail data, up to the final dot; returns how many bytes it used, 1 or more. At the final dot
 * the session is answered, or waits for the spool. */
BOUND
size_t smtp_transaction_feed(struct smtp_session *ss, const unsigned char *data, size_t len);

/* Forgets the transaction, if there is one; not while it is at the spool. */
BOUND
void smtp_transaction_abort(struct smtp_session *ss);

/* Frees the spare transactions. */
BOUND
void smtp_transaction_free_spare(struct smtp_listener *l);
