#include "agents/attempt_log.h"

#include <stdio.h>

/* What may differ between recipients of an attempt. */
#define OF_RECIPIENT                                                                               \
	(EVENT_BIT(EVENT_RECIPIENT) | EVENT_BIT(EVENT_REPLY) | EVENT_BIT(EVENT_ENHANCED))

static struct bounce_reason reason_for(const struct attempt *a, unsigned place)
{
	if (attempt_has_own_reply(a, place)) {
		const struct recipient_reply *r = &a->replies[place];

		return (struct bounce_reason){SMTP_STAGE_DURING_RCPT, r->code, r->enhanced,
					      r->text};
	}
	return (struct bounce_reason){a->stage, a->code, a->enhanced, a->text};
}

static struct event event_of(const struct scheduler *s, const struct delivery *delivery,
			     const struct envelope *e, const struct attempt *a,
			     enum event_kind kind)
{
	const struct message *m = delivery->message;
	const struct domain *d = delivery->domain;
	uint64_t now_ms = agent_wall_ms(&s->base);
	struct event event = {
		.kind = kind,
		.time_ms = now_ms,
		.id = m->id,
		.size = m->body_bytes,
		.retries = delivery->attempts,
		.queued_ms = now_ms - m->received_ms,
		.text = {[EVENT_SENDER] = e != NULL ? envelope_sender(e) : NULL,
			 [EVENT_DOMAIN] = d->name,
			 [EVENT_BINDING_GROUP] = binding_group_name(d->binding_record),
			 [EVENT_BINDING] = d->binding,
			 [EVENT_SITE] = d->lane != NULL ? d->lane->site->key : NULL,
			 [EVENT_REMOTE_IP] = a->remote_ip,
			 [EVENT_REMOTE_NAME] = a->remote_ip[0] != '\0' ? a->remote_name : NULL,
			 [EVENT_LOCAL_ADDRESS] = a->local_ip,
			 [EVENT_TLS_VERSION] = a->tls[0],
			 [EVENT_TLS_CIPHER] = a->tls[1],
			 [EVENT_TLS_VERIFICATION] = a->tls[2]},
	};

	if (e != NULL) {
		event.context = envelope_context(e, &event.context_len);
	}
	return event;
}

static struct counter *counter_of(const struct scheduler *s, enum event_kind kind)
{
	return kind == EVENT_DELIVERY    ? s->delivered
	       : kind == EVENT_TRANSIENT ? s->transient
					 : s->failed;
}

/* Counts it, and says what class of failure it is of. */
static void classify(struct scheduler *s, struct event *event, const struct bounce_reason *reason)
{
	enum bounce_way way = event->kind == EVENT_TRANSIENT ? BOUNCE_DEFERRED : BOUNCE_IN_BAND;

	/* Most were told the same. */
	if (event->bounce_class == 0 || event->text[EVENT_REPLY] != reason->text) {
		event->bounce_class = (uint16_t)bounce_classify(&s->classifier, reason, NULL);
	}
	counter_inc(&s->bounce_classes[way][event->bounce_class]);
}

void attempt_log(struct scheduler *s, const struct delivery *delivery,
		 const struct recipient_set *set, const struct attempt *a, enum event_kind kind)
{
	const struct envelope *e =
		delivery_content(delivery) != NULL ? delivery_envelope(delivery) : NULL;
	char unknown[ADDRESS_MAX];
	struct event event;
	bool again = false;

	if (recipient_set_empty(set)) {
		return;
	}
	event = event_of(s, delivery, e, a, kind);
	snprintf(unknown, sizeof(unknown), "@%s", delivery->domain->name);
	for (unsigned i = recipient_set_next(set, 0); i < ENVELOPE_DELIVERY_RECIPIENTS;
	     i = recipient_set_next(set, i + 1)) {
		struct bounce_reason reason = reason_for(a, i);

		if (kind != EVENT_DELIVERY) {
			classify(s, &event, &reason);
		}
		event.stage = reason.stage;
		event.code = (uint16_t)reason.code;
		event.text[EVENT_RECIPIENT] =
			e == NULL ? unknown
				  : envelope_address(
					    e, envelope_delivery(e, delivery->index)->first + i);
		event.text[EVENT_REPLY] = reason.text;
		event.text[EVENT_ENHANCED] = reason.status;
		if (again) {
			log_event_again(&s->log, &event, OF_RECIPIENT);
		} else {
			log_event(&s->log, &event);
		}
		again = true;
		counter_inc(counter_of(s, kind));
	}
}
