/*
 * Bounces: a notification to the sender of what failed for good (RFC 3464), or of what was
 * delivered or waits if it asked for that (RFC 3461), itself stored and queued like any message.
 * The failed delivery is settled only when the notification is durable, so that a crash between the
 * two tells the sender twice rather than never.
 */
#include <stdlib.h>
#include <string.h>

#include "agents/scheduler.h"
#include "agents/scheduler_request.h"
#include "core/mail/dsn.h"

#define RETRY_MS 1000

static void on_retry(struct timer *t)
{
	bounce_send(CONTAINER_OF(t, struct bounce, retry));
}

struct bounce *bounce_create(struct scheduler *s, struct delivery *delivery, uint32_t count)
{
	struct bounce *b = check_memory(calloc(1, sizeof *b + count * sizeof b->recipients[0]),
					"a notification");

	b->scheduler = s;
	b->delivery = delivery;
	b->count = count;
	timer_init(&b->retry, &s->base, on_retry);
	s->bounces_waiting++;
	return b;
}

static void bounce_free(struct bounce *b)
{
	for (uint32_t i = 0; i < b->count; i++) {
		free(b->recipients[i].text);
	}
	b->scheduler->bounces_waiting--;
	free(b);
}

static void log_bounce(struct scheduler *s, const struct envelope *e)
{
	struct event event = {
		.kind = EVENT_RECEPTION,
		.time_ms = agent_wall_ms(&s->base),
		.id = e->id,
		.size = e->body_bytes,
		.text = {[EVENT_RECIPIENT] = envelope_address(e, 0),
			 [EVENT_DOMAIN] = envelope_domain(e, 0),
			 [EVENT_PROTOCOL] = "internal",
			 [EVENT_BINDING_GROUP] =
				 binding_group_name(binding_default(&s->dispatcher.bindings)),
			 [EVENT_BINDING] = BINDING_DEFAULT},
	};

	log_event(&s->log, &event);
}

/* The program ends on a spool that takes nothing, or gives nothing back: of those that failed
 * nobody was told, and the next start will find them. */
static void abandon(struct bounce *b)
{
	struct delivery *delivery = b->delivery;

	for (uint32_t i = 0; i < b->count; i++) {
		if (b->recipients[i].action == DSN_FAILED) {
			recipient_set_add(&delivery->pending, b->recipients[i].place);
		} else if (b->recipients[i].action == DSN_DELAYED) {
			delivery->delay_told = false;
		}
	}
	delivery->domain->settling_count--;
	scheduler_leave_delivery(b->scheduler, delivery);
	bounce_free(b);
}

static void retry_later(struct bounce *b, bool ends)
{
	if (ends) {
		abandon(b);
	} else {
		timer_arm(&b->retry, agent_now_ms(&b->scheduler->base) + RETRY_MS);
	}
}

/* The notification's own envelope must be looked at before it goes home. */
SINGLE
struct bounce_message {
	struct bounce *bounce;
	struct message *message;
};

static void on_stored(struct scheduler *s, void *owner, int result)
{
	struct bounce_message *bm = owner;
	struct bounce *b = bm->bounce;

	if (result != 0) {
		message_release(bm->message, &s->pools);
		free(bm);
		agent_error(&s->base, result, "a notification could not be stored");
		retry_later(b, s->hurried);
		return;
	}
	log_bounce(s, message_envelope(bm->message));
	message_release(bm->message, &s->pools);
	free(bm);
	counter_inc(s->bounces);
	b->on_done(b);
	bounce_free(b);
}

static uint16_t write_body(struct bounce *b, struct message_id id, struct chain *body)
{
	struct scheduler *s = b->scheduler;
	struct delivery *delivery = b->delivery;
	const struct envelope *e = delivery_envelope(delivery);
	uint32_t first = envelope_delivery(e, delivery->index)->first;
	struct dsn_recipient *list = check_memory(calloc(b->count, sizeof *list), "a notification");
	const struct chain *original = &delivery_content(delivery)->body;
	uint16_t flags;

	for (uint32_t i = 0; i < b->count; i++) {
		list[i] = (struct dsn_recipient){
			.address = envelope_address(e, first + b->recipients[i].place),
			.original = envelope_orcpt(e, first + b->recipients[i].place),
			.action = b->recipients[i].action,
			.code = b->remote_name[0] != '\0' ? b->recipients[i].code : 0,
			.status = b->recipients[i].enhanced,
			.diagnostic = b->recipients[i].text,
			.remote_mta = b->remote_name[0] != '\0' ? b->remote_name : NULL,
		};
	}
	flags = dsn_write(
		&(struct dsn){
			.id = id,
			.time_s = s->base.now.wall_ns / NS_PER_S,
			.reporting_mta = s->global->hostname,
			.mailerdaemon = delivery->domain->options->mailerdaemon,
			.original = e,
			.original_body = original->len != 0 ? original : NULL,
			.recipients = list,
			.recipient_count = b->count,
			.retry_until_s = (delivery->message->received_ms +
					  delivery->domain->options->message_expiration_ms) /
					 1000,
		},
		body, &s->pools.buffers);
	free(list);
	return flags;
}

static struct message *make_message(struct bounce *b)
{
	struct scheduler *s = b->scheduler;
	const struct envelope *original = delivery_envelope(b->delivery);
	struct envelope_builder *builder = &s->bounce_envelope;
	const char *sender = envelope_sender(original);
	struct message *m;
	struct envelope *e;

	envelope_builder_reset(builder);
	envelope_set_sender(builder, "", 0);
	envelope_add_recipient(builder, sender, strlen(sender));
	m = message_create(&s->pools, envelope_size(builder));
	e = message_envelope(m);
	envelope_build(builder, e);
	e->id = scheduler_new_id(s);
	e->received_ms = agent_wall_ms(&s->base);
	e->protocol = ENVELOPE_GENERATED;
	e->durability = original->durability;
	e->flags = (uint16_t)(write_body(b, e->id, message_body(m)) | ENVELOPE_INTERNAL);
	scheduler_sign(s, message_body(m));
	e->body_bytes = message_body(m)->len;
	return m;
}

static void store(struct bounce *b)
{
	struct bounce_message *bm = check_memory(malloc(sizeof *bm), "a notification");

	bm->bounce = b;
	bm->message = make_message(b);
	message_hold(bm->message, 1);
	scheduler_store(b->scheduler, bm->message, on_stored, bm);
}

static void on_loaded(struct scheduler *s, void *owner, struct content *content, int result)
{
	struct bounce *b = owner;

	if (content == NULL) {
		agent_error(&s->base, result, "a message that failed could not be read back");
		retry_later(b, s->stopping);
		return;
	}
	/* Without the original's header, if its body cannot be read. */
	b->delivery->loaded = content;
	store(b);
}

void bounce_send(struct bounce *b)
{
	if (delivery_content(b->delivery) != NULL) {
		store(b);
	} else {
		scheduler_load(b->scheduler, b->delivery->message, on_loaded, b);
	}
}
