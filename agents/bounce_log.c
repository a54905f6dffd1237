#include "agents/bounce_log.h"

#include <stdio.h>

#include "core/mail/mainlog.h"

static struct bounce_reason reason_for(const struct attempt *a, unsigned place)
{
	if (attempt_has_own_reply(a, place)) {
		const struct recipient_reply *r = &a->replies[place];

		return (struct bounce_reason){SMTP_STAGE_DURING_RCPT, r->code, r->enhanced,
					      r->text};
	}
	return (struct bounce_reason){a->stage, a->code, a->enhanced, a->text};
}

static void log_recipient(struct scheduler *s, struct mainlog_bounce *line)
{
	char text[MAINLOG_LINE_MAX];
	enum bounce_way way = line->permanent ? BOUNCE_IN_BAND : BOUNCE_DEFERRED;

	counter_inc(&s->bounce_classes[way][line->bounce_class]);
	if (line->permanent || s->global->log_transient_failures) {
		log_line(&s->log, LOG_BOUNCE, text, mainlog_bounce(text, line));
	}
}

void bounce_log_attempt(struct scheduler *s, const struct delivery *delivery,
			const struct recipient_set *set, const struct attempt *a, bool permanent)
{
	const struct message *m = delivery->message;
	const struct envelope *e =
		delivery_content(delivery) != NULL ? delivery_envelope(delivery) : NULL;
	const char *classified = NULL;
	char unknown[ADDRESS_MAX];
	struct mainlog_bounce line = {
		.prefix = {.time_s = s->base.now.wall_ns / NS_PER_S, .id = &m->id},
		.permanent = permanent,
		.recipient = unknown,
		.sender = e != NULL ? envelope_sender(e) : "",
		.binding_group = binding_group_name(delivery->domain->binding_record),
		.binding = delivery->domain->binding,
		.size = m->body_bytes,
		.remote_ip = a->remote_ip,
	};

	snprintf(unknown, sizeof(unknown), "@%s", delivery->domain->name);
	for (unsigned i = recipient_set_next(set, 0); i < ENVELOPE_DELIVERY_RECIPIENTS;
	     i = recipient_set_next(set, i + 1)) {
		struct bounce_reason reason = reason_for(a, i);

		/* Most were told the same. */
		if (reason.text != classified) {
			line.bounce_class = bounce_classify(&s->classifier, &reason, NULL);
			classified = reason.text;
		}
		if (e != NULL) {
			uint32_t first = envelope_delivery(e, delivery->index)->first;

			line.recipient = envelope_address(e, first + i);
		}
		line.stage = reason.stage;
		line.text = reason.text;
		log_recipient(s, &line);
	}
}
