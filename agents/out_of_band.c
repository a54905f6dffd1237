/*
 * Mail to bounce domains: understood, logged, and then over. It is answered when the log agent has
 * written its events, as those are all that remains of it.
 */
#include <stdlib.h>
#include <string.h>

#include "agents/scheduler.h"
#include "core/mail/dsn_parse.h"

/* One message on its way. */
SINGLE
struct understanding {
	struct log_wait wait;
	struct scheduler *scheduler;
	struct message *message;
	stored_fn on_taken;
	void *owner;
	/* What all events of it share. */
	struct event event;
	struct report report;
};

static void on_written(struct log_wait *w, int result)
{
	struct understanding *u = CONTAINER_OF(w, struct understanding, wait);
	struct scheduler *s = u->scheduler;

	message_release(u->message, &s->pools);
	u->on_taken(s, u->owner, result);
	free(u);
}

static void log_failure(struct understanding *u, unsigned bounce_class)
{
	struct scheduler *s = u->scheduler;
	struct event *event = &u->event;
	enum bounce_way way = event->permanent ? BOUNCE_OUT_OF_BAND : BOUNCE_DEFERRED;

	event->kind = EVENT_OUT_OF_BAND;
	event->bounce_class = (uint16_t)bounce_class;
	counter_inc(&s->bounce_classes[way][bounce_class]);
	log_event(&s->log, event);
}

static void log_recipient(struct understanding *u, const struct report_recipient *x,
			  const char *recipient)
{
	struct bounce_reason reason = {SMTP_STAGE_OUT_OF_BAND, x->code, x->status, x->text};
	struct event *event = &u->event;

	if (x->action == REPORT_DONE) {
		return;
	}
	event->permanent = x->action == REPORT_FAILED;
	event->code = (uint16_t)x->code;
	event->text[EVENT_RECIPIENT] = recipient;
	event->text[EVENT_REPLY] = x->text;
	event->text[EVENT_ENHANCED] = x->status;
	log_failure(u, bounce_classify(&u->scheduler->classifier, &reason, NULL));
}

/* What is told of `address`; else the first recipient that failed; else the first. */
static const struct report_recipient *choose(const struct report *r, const char *address)
{
	const struct report_recipient *best = &r->recipients[0];

	for (unsigned i = 0; i < r->recipient_count; i++) {
		const struct report_recipient *x = &r->recipients[i];

		if (strcasecmp(x->address, address) == 0) {
			return x;
		}
		if (x->action == REPORT_FAILED && best->action != REPORT_FAILED) {
			best = x;
		}
	}
	return best;
}

/* `known`: the recipient that the bounce address has in it, or empty. It is right, whatever the
 * report says, as we wrote it. */
static void log_bounce(struct understanding *u, const char *known)
{
	const struct report *r = &u->report;

	if (known[0] != '\0') {
		log_recipient(u, choose(r, known), known);
		return;
	}
	for (unsigned i = 0; i < r->recipient_count; i++) {
		log_recipient(u, &r->recipients[i], r->recipients[i].address);
	}
}

/* An auto-reply, or what is not understood: of whoever wrote it. */
static void log_words(struct understanding *u, const char *known)
{
	const struct report *r = &u->report;
	struct bounce_reason reason = {.stage = SMTP_STAGE_OUT_OF_BAND, .text = r->text};

	u->event.permanent = true;
	u->event.text[EVENT_RECIPIENT] = known[0] != '\0' ? known : r->from;
	u->event.text[EVENT_REPLY] = r->text;
	log_failure(u, r->kind == REPORT_AUTO_REPLY
			       ? BOUNCE_AUTO_REPLY
			       : bounce_classify(&u->scheduler->classifier, &reason, NULL));
}

static const char *domain_of(const char *address)
{
	const char *at = strrchr(address, '@');

	return at != NULL ? at + 1 : "";
}

static void log_feedback(struct understanding *u, const char *known)
{
	const struct report *r = &u->report;
	struct event event = u->event;

	event.kind = EVENT_FEEDBACK;
	event.text[EVENT_RECIPIENT] = known[0] != '\0'         ? known
				      : r->recipient_count > 0 ? r->recipients[0].address
							       : "";
	event.text[EVENT_FEEDBACK_TYPE] = r->feedback_type;
	event.text[EVENT_REPORTER] = domain_of(r->from);
	event.text[EVENT_USER_STRING] = r->user_agent;
	log_event(&u->scheduler->log, &event);
}

static void log_for(struct understanding *u, const char *bounce_address)
{
	char known[ADDRESS_MAX + 1];

	dsn_verp(bounce_address, known);
	u->event.text[EVENT_SENDER] = bounce_address;
	switch (u->report.kind) {
	case REPORT_FEEDBACK:
		log_feedback(u, known);
		break;
	case REPORT_BOUNCE:
		log_bounce(u, known);
		break;
	case REPORT_AUTO_REPLY:
	case REPORT_UNKNOWN:
		log_words(u, known);
		break;
	}
}

void scheduler_understand(struct scheduler *s, struct message *m, uint64_t batch,
			  uint64_t connection, const char *peer_ip, stored_fn on_taken, void *owner)
{
	const struct envelope *e = message_envelope(m);
	struct understanding *u = check_memory(malloc(sizeof *u), "a message that came back");
	bool feedback;

	u->wait.on_written = on_written;
	u->scheduler = s;
	u->message = m;
	u->on_taken = on_taken;
	u->owner = owner;
	u->event = (struct event){
		.time_ms = agent_wall_ms(&s->base),
		.id = e->id,
		.batch = batch,
		.connection = connection,
		.stage = SMTP_STAGE_OUT_OF_BAND,
		.size = e->body_bytes,
		.text = {[EVENT_BINDING_GROUP] =
				 binding_group_name(binding_default(&s->dispatcher.bindings)),
			 [EVENT_BINDING] = BINDING_DEFAULT,
			 [EVENT_REMOTE_IP] = peer_ip},
	};
	u->event.context = envelope_context(e, &u->event.context_len);
	dsn_parse(message_body(m), &u->report);
	feedback = u->report.kind == REPORT_FEEDBACK;
	counter_inc(s->out_of_band);
	if (feedback) {
		counter_inc(s->feedback_reports);
	}
	for (uint32_t i = 0; i < e->recipient_count; i++) {
		log_for(u, envelope_address(e, i));
	}
	log_client_wait(&s->log, feedback ? LOG_FEEDBACK : LOG_BOUNCE, &u->wait);
}
