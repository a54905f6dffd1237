/*
 * Mail to bounce domains: understood, logged, and then over. It is answered when the log agent has
 * written its lines, as those are all that remains of it.
 */
#include <stdlib.h>
#include <string.h>

#include "agents/scheduler.h"
#include "core/mail/dsn_parse.h"
#include "core/mail/mainlog.h"

/* One message on its way. */
SINGLE
struct understanding {
	struct log_wait wait;
	struct scheduler *scheduler;
	struct message *message;
	stored_fn on_taken;
	void *owner;
	/* What all lines of it share. */
	struct mainlog_bounce line;
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
	struct mainlog_bounce *line = &u->line;
	enum bounce_way way = line->permanent ? BOUNCE_OUT_OF_BAND : BOUNCE_DEFERRED;
	char text[MAINLOG_LINE_MAX];

	line->bounce_class = bounce_class;
	counter_inc(&s->bounce_classes[way][bounce_class]);
	if (line->permanent || s->global->log_transient_failures) {
		log_line(&s->log, LOG_BOUNCE, text, mainlog_bounce(text, line));
	}
}

static void log_recipient(struct understanding *u, const struct report_recipient *x,
			  const char *recipient)
{
	struct bounce_reason reason = {SMTP_STAGE_OUT_OF_BAND, x->code, x->status, x->text};

	if (x->action == REPORT_DONE) {
		return;
	}
	u->line.permanent = x->action == REPORT_FAILED;
	u->line.recipient = recipient;
	u->line.text = x->text;
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

	u->line.permanent = true;
	u->line.recipient = known[0] != '\0' ? known : r->from;
	u->line.text = r->text;
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
	struct scheduler *s = u->scheduler;
	const struct report *r = &u->report;
	char text[MAINLOG_LINE_MAX];
	struct mainlog_feedback line = {
		.prefix = u->line.prefix,
		.recipient = known[0] != '\0'         ? known
			     : r->recipient_count > 0 ? r->recipients[0].address
						      : "",
		.binding_group = binding_group_name(binding_default(&s->dispatcher.bindings)),
		.binding = BINDING_DEFAULT,
		.feedback_type = r->feedback_type,
		.domain = domain_of(r->from),
		.user_string = r->user_agent,
	};

	log_line(&s->log, LOG_FEEDBACK, text, mainlog_feedback(text, &line));
}

static void log_for(struct understanding *u, const char *bounce_address)
{
	char known[ADDRESS_MAX + 1];

	dsn_verp(bounce_address, known);
	u->line.sender = bounce_address;
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
	struct understanding *u = malloc(sizeof *u);
	bool feedback;

	if (u == NULL) {
		fatal("out of memory for a message that came back");
	}
	u->wait.on_written = on_written;
	u->scheduler = s;
	u->message = m;
	u->on_taken = on_taken;
	u->owner = owner;
	u->line = (struct mainlog_bounce){
		.prefix = {.time_s = s->base.now.wall_ns / NS_PER_S,
			   .id = &e->id,
			   .batch = batch,
			   .connection = connection},
		.binding_group = binding_group_name(binding_default(&s->dispatcher.bindings)),
		.binding = BINDING_DEFAULT,
		.stage = SMTP_STAGE_OUT_OF_BAND,
		.size = e->body_bytes,
		.remote_ip = peer_ip,
	};
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
