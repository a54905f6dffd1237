#include "listeners/smtp/session_log.h"

#include <stdio.h>

#include "core/mail/mainlog.h"
#include "listeners/smtp/session.h"
#include "listeners/smtp/transaction.h"

#define TEXT_MAX 256

static struct mainlog_prefix prefix_of(const struct smtp_session *ss)
{
	const struct smtp_transaction *tx = ss->transaction;

	return (struct mainlog_prefix){
		.time_s = agent_wall_ms(&ss->listener->scheduler->base) / 1000,
		.id = tx != NULL && tx->has_id ? &tx->id : NULL,
		.batch = tx != NULL ? tx->batch : 0,
		.connection = ss->accept->number,
	};
}

void smtp_log_reception(struct smtp_session *ss, const struct message *m)
{
	const struct envelope *e = message_envelope(m);
	struct mainlog_reception r = {
		.prefix = prefix_of(ss),
		.sender = envelope_sender(e),
		.peer_ip = ss->peer_text,
		.size = e->body_bytes,
		.protocol = !ss->esmtp   ? "smtp"
			    : ss->secure ? "esmtps"
					 : "esmtp",
		.binding_group = binding_group_name(ss->transaction->binding),
		.binding = ss->transaction->binding->name,
	};
	char line[MAINLOG_LINE_MAX];

	for (uint32_t i = 0; i < e->recipient_count; i++) {
		size_t len;

		r.recipient = envelope_address(e, i);
		len = mainlog_reception(line, &r);
		log_line(&ss->listener->scheduler->log, LOG_MAIN, line, len);
	}
}

static const char *transaction_sender(const struct smtp_transaction *tx)
{
	return tx != NULL ? tx->envelope.text : NULL;
}

/* The one recipient of the transaction, if there is one. */
static const char *transaction_recipient(const struct smtp_transaction *tx)
{
	if (tx == NULL || tx->envelope.recipient_count != 1) {
		return NULL;
	}
	return tx->envelope.text + tx->envelope.recipients[0].offset;
}

void smtp_log_rejection(struct smtp_session *ss, enum smtp_stage stage,
			const struct smtp_refusal *refusal, const char *sender,
			const char *recipient)
{
	const struct smtp_transaction *tx = ss->transaction;
	struct scheduler *s = ss->listener->scheduler;
	char text[TEXT_MAX];
	char line[MAINLOG_LINE_MAX];
	struct mainlog_rejection r = {
		.prefix = prefix_of(ss),
		.peer_ip = ss->peer_text,
		.stage = stage,
		.code = refusal->code,
		.sender = sender != NULL ? sender : transaction_sender(tx),
		.recipient = recipient != NULL ? recipient : transaction_recipient(tx),
		.text = text,
	};

	snprintf(text, sizeof(text), "%s %s", refusal->status, refusal->text);
	counter_inc(s->rejected);
	log_line(&s->log, LOG_REJECT, line, mainlog_rejection(line, &r));
}
