#include "listeners/smtp/session_log.h"

#include <stdio.h>

#include "listeners/smtp/session.h"
#include "listeners/smtp/transaction.h"

#define TEXT_MAX 256

/* What all events of a session have. */
static struct event event_of(const struct smtp_session *ss, enum event_kind kind)
{
	const struct smtp_transaction *tx = ss->transaction;
	const struct scheduler *s = ss->listener->scheduler;
	struct tls_agreed agreed = {0};
	struct event event = {
		.kind = kind,
		.time_ms = agent_wall_ms(&s->base),
		.batch = tx != NULL ? tx->batch : 0,
		.connection = ss->accept->number,
	};

	if (tx != NULL && tx->has_id) {
		event.id = tx->id;
	}
	if (stream_is_secure(&ss->stream)) {
		agreed = stream_agreed(&ss->stream);
	}
	event.text[EVENT_REMOTE_IP] = ss->peer_text;
	event.text[EVENT_REMOTE_NAME] = ss->helo;
	event.text[EVENT_LOCAL_ADDRESS] = ss->listen_name;
	event.text[EVENT_PROTOCOL] = !ss->esmtp ? "smtp" : ss->secure ? "esmtps" : "esmtp";
	event.text[EVENT_TLS_VERSION] = agreed.version;
	event.text[EVENT_TLS_CIPHER] = agreed.cipher;
	event.text[EVENT_TLS_VERIFICATION] = agreed.verification;
	event.text[EVENT_USER] = ss->user;
	event.text[EVENT_AUTH_METHOD] = ss->user != NULL ? ss->auth_method : NULL;
	return event;
}

void smtp_log_reception(struct smtp_session *ss, const struct message *m)
{
	struct log_client *log = &ss->listener->scheduler->log;
	const struct binding_record *binding = ss->transaction->binding;
	const struct envelope *e = message_envelope(m);
	struct event event = event_of(ss, EVENT_RECEPTION);

	scheduler_audit(ss->listener->scheduler, &ss->peer, POLICY_RECEPTION);
	event.size = e->body_bytes;
	event.text[EVENT_SENDER] = envelope_sender(e);
	event.text[EVENT_BINDING_GROUP] = binding_group_name(binding);
	event.text[EVENT_BINDING] = binding->name;
	event.context = envelope_context(e, &event.context_len);
	for (uint32_t i = 0; i < e->recipient_count; i++) {
		event.text[EVENT_RECIPIENT] = envelope_address(e, i);
		if (i == 0) {
			log_event(log, &event);
		} else {
			log_event_again(log, &event, EVENT_BIT(EVENT_RECIPIENT));
		}
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
	struct event event = event_of(ss, EVENT_REJECTION);
	char text[TEXT_MAX];

	snprintf(text, sizeof(text), "%s %s", refusal->status, refusal->text);
	event.stage = stage;
	event.code = refusal->code;
	event.text[EVENT_SENDER] = sender != NULL ? sender : transaction_sender(tx);
	event.text[EVENT_RECIPIENT] = recipient != NULL ? recipient : transaction_recipient(tx);
	event.text[EVENT_REPLY] = text;
	event.text[EVENT_ENHANCED] = refusal->status;
	counter_inc(s->rejected);
	scheduler_audit(s, &ss->peer, POLICY_REJECTION);
	log_event(&s->log, &event);
}

void smtp_log_authentication(struct smtp_session *ss, const char *user, const char *method,
			     bool granted)
{
	struct event event = event_of(ss, EVENT_AUTHENTICATION);

	event.granted = granted;
	event.text[EVENT_USER] = user;
	event.text[EVENT_AUTH_METHOD] = method;
	log_event(&ss->listener->scheduler->log, &event);
}
