/*
 * Transaction: the reception of one message, from MAIL to the reply after the final dot, or the
 * last chunk. The body is kept as it comes, dot-stuffed, behind the Received field that is made
 * when DATA, or the first BDAT, is accepted.
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
#include "core/mail/dot_walk.h"
#include "core/mail/envelope.h"
#include "core/mail/message.h"
#include "core/runtime/thread_class.h"

#define SMTP_TRANSACTION_MAGIC 0x7472616eU
/* While the reception budget is used up, messages that are larger than this are put off. */
#define SMTP_FAIR_BYTES (UINT64_C(1) << 20)
/* What every transaction may hold, whatever its share of the budget. */
#define SMTP_SMALL_BYTES UINT64_C(8192)
/* A transaction that brings less than this in so many ms stalls. */
#define SMTP_STALL_BYTES 16384
#define SMTP_STALL_MS 5000

struct smtp_listener;
struct smtp_refusal;
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
	/* All recipients are in bounce domains. */
	bool out_of_band;
	/* From DATA on. */
	bool has_id;
	/* BDAT brings it. */
	bool chunked;
	/* The message will be refused, and is not kept any more. */
	bool doomed;
	/* It has to be put off because of the reception budget. */
	bool crowded_out;
	/* What the scanner could not judge yet, and one byte more. */
	uint8_t tail_len;
	unsigned char tail[DOT_END_BYTES];
	struct message_id id;
	/* The one that the client is told. */
	struct message_id answered_id;
	struct dot_scanner scanner;
	struct dot_converter converter;
	/* Puts chunks into wire form. */
	struct dot_walk walk;
	struct chain body;
	/* Bytes of mail data received. */
	uint64_t data_bytes;
	/* Memory that scheduler_receiving() was told of. */
	uint64_t counted;
	/* What had come when it was last looked at for stalling. */
	uint64_t progress;
	/* Who sends it; from the end of the data on. */
	struct binding_record *binding;
	/* At the spool; a reference of our own. */
	struct message *message;
};

/* A transaction for `ss`, which has none, with its sender. */
BOUND
void smtp_transaction_open(struct smtp_session *ss, const char *sender, size_t sender_len,
			   uint16_t envelope_flags);

/* DATA was accepted, or the first BDAT (`chunked`): what comes next is mail data. */
BOUND
void smtp_transaction_begin(struct smtp_session *ss, bool chunked);

/* Takes mail data, up to the final dot; returns how many bytes it used, 1 or more. At the final dot
 * the session is answered, or waits for the spool. */
BOUND
size_t smtp_transaction_feed(struct smtp_session *ss, const unsigned char *data, size_t len);

/* Takes mail data of a chunk, in wire form: none of it is an end. */
BOUND
void smtp_transaction_take(struct smtp_session *ss, const unsigned char *data, size_t len);

/* The chunk is over. True: it is to be acknowledged, and the message goes on. False after the last
 * one, or when the message is refused: the session is answered, or waits for the spool. */
BOUND
bool smtp_transaction_end_chunk(struct smtp_session *ss, bool last);

/* Policy is done with the message: it goes to the spool; is answered as if it did; or is refused.
 */
BOUND
void smtp_transaction_store(struct smtp_session *ss);
BOUND
void smtp_transaction_discard(struct smtp_session *ss);
BOUND
void smtp_transaction_refuse(struct smtp_session *ss, const struct smtp_refusal *refusal);

/* The transaction got a recipient: it holds more memory. */
BOUND
void smtp_transaction_recount(struct smtp_session *ss);

/* Whether it may get one: the reception budget is not used up, or it holds no more than its share.
 */
BOUND
bool smtp_transaction_has_room(const struct smtp_session *ss);

/* The reception budget is used up: a transaction that has stalled since the last look, and holds
 * more than its share, gives it up. `first`: only look how far it is. May free the session. */
BOUND
void smtp_transaction_relieve(struct smtp_session *ss, bool first);

/* Forgets the transaction, if there is one; not while it is at the spool. */
BOUND
void smtp_transaction_abort(struct smtp_session *ss);

/* Frees the spare transactions. */
BOUND
void smtp_transaction_free_spare(struct smtp_listener *l);
