/*
 * What becomes of an attempt: log it, tell the sender of failures, tell the spool, queue again what
 * remains. Also what a dispatcher asks for: content read back; next hops are in lookup.c.
 *
 * Start reading at on_attempt(), last in this file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/attempt_log.h"
#include "agents/scheduler.h"
#include "agents/scheduler_request.h"
#include "core/queue/answers.h"
#include "core/queue/retry.h"

static struct scheduler *scheduler_of(struct dispatcher *x)
{
	return CONTAINER_OF(x, struct scheduler, dispatcher);
}

static void settle(struct scheduler *s, struct delivery *delivery);

/* ---- content ---- */

static void on_load_done(struct agent *self, void *object, uint64_t value)
{
	struct scheduler_request *r = object;
	struct scheduler *s = CONTAINER_OF(self, struct scheduler, base);
	struct content *content = r->spool.content;
	loaded_fn on_loaded = r->on_loaded;
	void *owner = r->owner;
	int result = r->spool.result;

	(void)value;
	scheduler_request_put(r);
	on_loaded(s, owner, content, result);
}

static void ask_for(struct scheduler *s, uint8_t writer, const struct message_id *id,
		    bool envelope_only, loaded_fn on_loaded, void *owner)
{
	struct scheduler_request *r = scheduler_request_get(s, SPOOL_LOAD, on_load_done);

	r->spool.writer = writer;
	r->spool.id = *id;
	r->spool.envelope_only = envelope_only;
	r->on_loaded = on_loaded;
	r->owner = owner;
	spool_submit(s->program->spool, &s->base, &r->spool);
}

void scheduler_load(struct scheduler *s, const struct message *m, loaded_fn on_loaded, void *owner)
{
	ask_for(s, m->writer, &m->id, false, on_loaded, owner);
}

void scheduler_load_envelope(struct scheduler *s, uint8_t writer, const struct message_id *id,
			     loaded_fn on_loaded, void *owner)
{
	ask_for(s, writer, id, true, on_loaded, owner);
}

static void on_loaded(struct scheduler *s, void *owner, struct content *content, int result)
{
	counter_inc(s->bodies_loaded);
	dispatch_loaded(&s->dispatcher, owner, content, result);
}

static void load(struct dispatcher *x, struct delivery *delivery)
{
	scheduler_load(scheduler_of(x), delivery->message, on_loaded, delivery);
}

/* ---- settling ---- */

static void on_done_written(struct agent *self, void *object, uint64_t value)
{
	struct scheduler_request *r = object;

	(void)value;
	delivery_destroy(r->delivery, &CONTAINER_OF(self, struct scheduler, base)->pools);
	scheduler_request_put(r);
}

static void on_state_written(struct agent *self, void *object, uint64_t value)
{
	struct scheduler_request *r = object;
	struct domain *d = r->domain;

	(void)self;
	(void)value;
	scheduler_request_put(r);
	dispatch_written(d);
}

/* A state's texts, copied: the delivery may be tried again before the spool has written it. */
static void copy_texts(struct scheduler_request *r, const struct delivery *delivery)
{
	const struct domain *d = delivery->domain;
	const char *reason = delivery->last_text != NULL ? delivery->last_text : "";
	const char *binding = "";
	const char *domain = "";
	size_t sizes[3];
	char *at;

	if (delivery->rerouted) {
		binding = delivery->sent_on ? delivery->route->binding : d->binding;
		domain = delivery->sent_on ? delivery->route->domain : d->name;
	} else if (*reason == '\0') {
		return;
	}
	sizes[0] = strnlen(reason, SPOOL_REASON_MAX) + 1;
	sizes[1] = strlen(binding) + 1;
	sizes[2] = strlen(domain) + 1;
	at = check_memory(calloc(1, sizes[0] + sizes[1] + sizes[2]), "a request to the spool");
	r->texts = at;
	r->spool.reason = memcpy(at, reason, sizes[0] - 1);
	if (delivery->rerouted) {
		r->spool.binding = memcpy(at + sizes[0], binding, sizes[1]);
		r->spool.domain = memcpy(at + sizes[0] + sizes[1], domain, sizes[2]);
	}
}

static struct scheduler_request *delivery_request(struct scheduler *s, struct delivery *delivery,
						  enum spool_verb verb, task_fn on_done)
{
	struct scheduler_request *r = scheduler_request_get(s, verb, on_done);

	r->delivery = delivery;
	r->spool.writer = delivery->message->writer;
	r->spool.entry = delivery->message->spool;
	r->spool.delivery = delivery->index;
	r->spool.attempts = delivery->attempts;
	r->spool.delay_told = delivery->delay_told;
	r->spool.due_ms = delivery->due_ms;
	r->spool.pending = delivery->pending;
	r->spool.held = delivery->held;
	if (verb == SPOOL_STATE) {
		copy_texts(r, delivery);
	}
	return r;
}

/* The spool is to know of an operator's order: who gave it waits for that. */
static void begin_order(struct scheduler *s, struct delivery *delivery)
{
	s->orders_waiting += !delivery->ordered;
	delivery->ordered = true;
}

/* Nobody has to. */
static void end_order(struct scheduler *s, struct delivery *delivery)
{
	s->orders_waiting -= delivery->ordered;
	delivery->ordered = false;
}

/* The request's, from now on. */
static void pass_order(struct scheduler_request *r, struct delivery *delivery)
{
	r->ordered = delivery->ordered;
	delivery->ordered = false;
}

/* This run is done with the delivery: the spool is told that it is over, or who remains. */
static void part_with(struct scheduler *s, struct delivery *delivery, enum spool_verb verb)
{
	struct scheduler_request *r;

	if (delivery->message->spool == NULL) {
		end_order(s, delivery);
		delivery_destroy(delivery, &s->pools);
		return;
	}
	delivery_give_up_content(delivery, &s->pools);
	r = delivery_request(s, delivery, verb, on_done_written);
	pass_order(r, delivery);
	spool_submit(s->program->spool, &s->base, &r->spool);
}

void scheduler_leave_delivery(struct scheduler *s, struct delivery *delivery)
{
	part_with(s, delivery, SPOOL_STATE);
}

static void queue_again(struct scheduler *s, struct delivery *delivery)
{
	if (delivery->held) {
		dispatch_put_held(&s->dispatcher, delivery->domain, delivery);
	} else if (delivery->due_ms != 0) {
		dispatch_delay(&s->dispatcher, delivery->domain, delivery);
	} else {
		dispatch_enqueue(&s->dispatcher, delivery->domain, delivery);
	}
}

/* Only now it leaves: requests of two schedulers for one delivery would know no order. */
static void on_route_written(struct agent *self, void *object, uint64_t value)
{
	struct scheduler_request *r = object;
	struct scheduler *s = CONTAINER_OF(self, struct scheduler, base);
	struct delivery *delivery = r->delivery;
	struct domain *d = delivery->domain;

	(void)value;
	scheduler_request_put(r);
	delivery->domain = NULL;
	if (s->stopping) {
		delivery_destroy(delivery, &s->pools);
	} else {
		scheduler_send_home(s->program, self, delivery);
	}
	dispatch_settled(d);
}

static void settle_state(struct scheduler *s, struct delivery *delivery)
{
	bool leaves = delivery->sent_on;
	struct scheduler_request *r = delivery_request(
		s, delivery, SPOOL_STATE, leaves ? on_route_written : on_state_written);

	pass_order(r, delivery);
	spool_submit(s->program->spool, &s->base, &r->spool);
	if (delivery_give_up_content(delivery, &s->pools)) {
		counter_inc(s->bodies_dropped);
	}
	if (leaves) {
		delivery->domain->settling_count++;
	} else {
		r->domain = delivery->domain;
		r->domain->writing_count++;
		queue_again(s, delivery);
	}
}

static void on_kept(struct scheduler *s, void *owner, int result)
{
	struct delivery *delivery = owner;
	struct domain *d = delivery->domain;

	if (result == 0) {
		settle_state(s, delivery);
	} else {
		/* It stays in memory, as it was promised no more; the next failure tries again. */
		agent_error(&s->base, result, "a message of durability memory could not be kept");
		delivery_end_route(delivery);
		end_order(s, delivery);
		queue_again(s, delivery);
	}
	dispatch_settled(d);
}

/* Everything about the attempt is said; what remains of the delivery goes where it belongs. */
static void settle(struct scheduler *s, struct delivery *delivery)
{
	delivery_unload(delivery, &s->pools);
	delivery->doomed = false;
	delivery->doomed_quiet = false;
	if (recipient_set_empty(&delivery->pending)) {
		part_with(s, delivery, SPOOL_DONE);
	} else if (delivery->message->spool == NULL) {
		delivery->domain->settling_count++;
		scheduler_keep(s, delivery->message, on_kept, delivery);
	} else {
		settle_state(s, delivery);
	}
}

static void on_bounced(struct bounce *b)
{
	struct domain *d = b->delivery->domain;

	settle(b->scheduler, b->delivery);
	dispatch_settled(d);
}

/* ---- the attempt ---- */

static bool wants_bounce(const struct domain *d, const struct delivery *delivery)
{
	return d->options->generate_bounces && !delivery->doomed_quiet &&
	       delivery->message->has_sender;
}

/* Of whom the sender is told now: by default of failures, else as its NOTIFY said (RFC 3461). What
 * a next hop with DSN took, that one tells of. */
static struct recipient_set to_be_told(const struct delivery *delivery, const struct attempt *a)
{
	const struct envelope_delivery *own;
	const struct envelope *e;
	struct recipient_set told = {{0, 0}};

	/* What they asked for cannot be read. */
	if (delivery_content(delivery) == NULL) {
		return a->failed;
	}
	e = delivery_envelope(delivery);
	own = envelope_delivery(e, delivery->index);
	for (unsigned i = 0; i < own->count; i++) {
		uint16_t flags = envelope_recipient(e, own->first + i)->flags;
		bool failure =
			(flags & ENVELOPE_NOTIFY) == 0 || (flags & ENVELOPE_NOTIFY_FAILURE) != 0;
		bool success = (flags & ENVELOPE_NOTIFY_SUCCESS) != 0 && !a->dsn_handed_on;

		if ((failure && recipient_set_has(&a->failed, i)) ||
		    (success && recipient_set_has(&a->delivered, i))) {
			recipient_set_add(&told, i);
		}
	}
	return told;
}

/* Those who still wait, of whose delay the sender is told now: it asked for that (RFC 3461
 * section 4.1), or it asked for nothing and is to be told. Once for a delivery, when all of it had
 * its turn. */
static struct recipient_set to_be_told_of_delay(struct scheduler *s, const struct domain *d,
						const struct delivery *delivery)
{
	const struct domain_options *o = d->options;
	const struct envelope *e;
	struct recipient_set told = {{0, 0}};

	if (delivery->delay_told || delivery->due_ms == 0 || delivery_content(delivery) == NULL ||
	    agent_wall_ms(&s->base) <
		    delivery->message->received_ms + o->delay_dsn_retry_interval_ms) {
		return told;
	}
	e = delivery_envelope(delivery);
	for (unsigned i = recipient_set_next(&delivery->pending, 0);
	     i < ENVELOPE_DELIVERY_RECIPIENTS; i = recipient_set_next(&delivery->pending, i + 1)) {
		uint32_t first = envelope_delivery(e, delivery->index)->first;
		uint16_t notify = envelope_recipient(e, first + i)->flags & ENVELOPE_NOTIFY;

		if (notify == 0 ? o->generate_delay_dsn : (notify & ENVELOPE_NOTIFY_DELAY) != 0) {
			recipient_set_add(&told, i);
		}
	}
	return told;
}

static enum dsn_action action_of(const struct delivery *delivery, const struct attempt *a,
				 unsigned place)
{
	return recipient_set_has(&a->failed, place)           ? DSN_FAILED
	       : recipient_set_has(&delivery->pending, place) ? DSN_DELAYED
							      : DSN_RELAYED;
}

static void bounce_recipients(struct scheduler *s, struct domain *d, struct delivery *delivery,
			      const struct attempt *a, const struct recipient_set *told)
{
	struct bounce *b = bounce_create(s, delivery, recipient_set_count(told));
	uint32_t n = 0;

	for (unsigned i = 0; i < ENVELOPE_DELIVERY_RECIPIENTS; i++) {
		bool own = attempt_has_own_reply(a, i);
		struct bounce_recipient *r = &b->recipients[n];

		if (!recipient_set_has(told, i)) {
			continue;
		}
		n++;
		r->action = action_of(delivery, a, i);
		r->place = i;
		r->code = own ? a->replies[i].code : a->code;
		memcpy(r->enhanced, own ? a->replies[i].enhanced : a->enhanced, sizeof r->enhanced);
		r->text = strdup(attempt_words(a, i));
		if (r->action == DSN_RELAYED && r->code / 100 != 2) {
			/* Others of the attempt were given up: those words are not for this one. */
			free(r->text);
			r->text = NULL;
			r->enhanced[0] = '\0';
		}
	}
	snprintf(b->remote_name, sizeof b->remote_name, "%s",
		 a->remote_name != NULL && a->remote_ip[0] != '\0' ? a->remote_name : "");
	b->on_done = on_bounced;
	d->settling_count++;
	bounce_send(b);
}

/* Recipients whose time is over, or whom an operator gave up, have failed: those that were deferred
 * now, and those whose turn has not come. They are added to a->failed and returned. */
static struct recipient_set give_up(struct scheduler *s, struct domain *d,
				    struct delivery *delivery, struct attempt *a)
{
	bool expired =
		retry_expired(d->options, delivery->message->received_ms, agent_wall_ms(&s->base));
	struct recipient_set rest = recipient_set_without(&delivery->pending, &a->delivered);

	rest = recipient_set_without(&rest, &a->failed);
	if (recipient_set_empty(&rest) || (!delivery->doomed && !expired)) {
		return (struct recipient_set){{0, 0}};
	}
	/* Those that failed keep what they were told: a notification of its own would be too much.
	 */
	recipient_set_join(&a->failed, &rest);
	a->deferred = (struct recipient_set){{0, 0}};
	a->given_up = delivery->doomed ? ATTEMPT_BY_OPERATOR : ATTEMPT_TOO_OLD;
	if (delivery->doomed) {
		snprintf(a->text, sizeof a->text, "554 manually failed.");
		snprintf(a->enhanced, sizeof a->enhanced, "5.7.0");
	} else {
		snprintf(a->text, sizeof a->text,
			 "554 5.4.7 [internal] exceeded max time without delivery");
		snprintf(a->enhanced, sizeof a->enhanced, "5.4.7");
	}
	a->code = 554;
	a->replies = NULL;
	return rest;
}

/* Recipients remain: those whose turn has not come are tried at once, and when there are none, all
 * wait, but not for longer than they may. */
static void schedule(struct scheduler *s, struct domain *d, struct delivery *delivery)
{
	uint64_t expires_ms = delivery->message->received_ms + d->options->message_expiration_ms;
	struct recipient_set rest = recipient_set_without(&delivery->pending, &delivery->tried);

	delivery->due_ms = 0;
	if (!recipient_set_empty(&rest) || recipient_set_empty(&delivery->tried)) {
		return;
	}
	delivery->tried = (struct recipient_set){{0, 0}};
	if (delivery->attempts < UINT16_MAX) {
		delivery->attempts++;
	}
	delivery->due_ms = agent_wall_ms(&s->base) + retry_wait_ms(d->options, delivery->attempts);
	if (delivery->due_ms > expires_ms) {
		delivery->due_ms = expires_ms;
	}
}

/* What those that wait were told, rather than what the others were. */
static const char *text_of_deferred(const struct attempt *a)
{
	unsigned first = recipient_set_next(&a->deferred, 0);

	return first < ENVELOPE_DELIVERY_RECIPIENTS ? attempt_words(a, first) : a->text;
}

static void remember(struct scheduler *s, struct domain *d, struct delivery *delivery,
		     const struct attempt *a)
{
	if (!recipient_set_empty(&a->deferred)) {
		free(delivery->last_text);
		delivery->last_text = strdup(text_of_deferred(a));
	}
	delivery->pending = recipient_set_without(&delivery->pending, &a->delivered);
	delivery->pending = recipient_set_without(&delivery->pending, &a->failed);
	recipient_set_join(&delivery->tried, &a->deferred);
	if (!a->keeps_due) {
		schedule(s, d, delivery);
	}
	d->failed += recipient_set_count(&a->failed);
	d->transient += recipient_set_count(&a->deferred);
	d->binding_record->delivered += recipient_set_count(&a->delivered);
	d->binding_record->failed += recipient_set_count(&a->failed);
	d->binding_record->transient += recipient_set_count(&a->deferred);
}

/* What it is that those of the attempt failed by. */
static enum event_kind failure_kind(const struct attempt *a)
{
	switch (a->given_up) {
	case ATTEMPT_TOO_OLD:
		return EVENT_EXPIRATION;
	case ATTEMPT_BY_OPERATOR:
		return EVENT_ADMIN_FAILURE;
	case ATTEMPT_NOT_GIVEN_UP:
		break;
	}
	return EVENT_BOUNCE;
}

/* What was said to some that were refused, for who looks at what is said most often, and what was
 * said last. */
static void count_refusal(struct scheduler *s, const struct domain *d, struct answer *said)
{
	reply_top_count(&s->refusals, said->text, said->count, agent_now_ms(&s->base));
	if (d->lane != NULL) {
		answers_add(&d->lane->site->answers, said);
	}
}

static void count_refusals(struct scheduler *s, const struct domain *d,
			   const struct recipient_set *set, const struct attempt *a)
{
	struct answer said = {.at_ms = agent_wall_ms(&s->base),
			      .failed = set == &a->failed,
			      .domain = d->name,
			      .host = a->remote_ip};
	uint64_t shared = 0;

	for (unsigned i = recipient_set_next(set, 0); i < ENVELOPE_DELIVERY_RECIPIENTS;
	     i = recipient_set_next(set, i + 1)) {
		if (attempt_has_own_reply(a, i)) {
			said.count = 1;
			said.text = a->replies[i].text;
			count_refusal(s, d, &said);
		} else {
			shared++;
		}
	}
	if (shared != 0) {
		said.count = shared;
		said.text = a->text;
		count_refusal(s, d, &said);
	}
}

/* Logs first, then policy. */
static void tell(struct scheduler *s, const struct delivery *delivery,
		 const struct recipient_set *set, const struct attempt *a, enum event_kind kind)
{
	enum policy_hook hook = kind == EVENT_DELIVERY    ? POLICY_DELIVERY
				: kind == EVENT_TRANSIENT ? POLICY_TRANSIENT
							  : POLICY_BOUNCE;

	attempt_log(s, delivery, set, a, kind);
	if (policy_host_has(&s->policy, hook)) {
		scheduler_policy_outcome(s, delivery, set, a, hook);
	}
}

static void conclude(struct scheduler *s, struct delivery *delivery, const struct attempt *found)
{
	struct domain *d = delivery->domain;
	struct attempt a = *found;
	struct recipient_set given_up;
	struct recipient_set delayed;
	struct recipient_set told;

	tell(s, delivery, &a.delivered, &a, EVENT_DELIVERY);
	tell(s, delivery, &a.deferred, &a, EVENT_TRANSIENT);
	tell(s, delivery, &a.failed, &a, failure_kind(&a));
	count_refusals(s, d, &a.deferred, &a);
	count_refusals(s, d, &a.failed, &a);
	given_up = give_up(s, d, delivery, &a);
	tell(s, delivery, &given_up, &a, failure_kind(&a));
	remember(s, d, delivery, &a);
	told = to_be_told(delivery, &a);
	delayed = to_be_told_of_delay(s, d, delivery);
	if (!recipient_set_empty(&delayed) && wants_bounce(d, delivery)) {
		delivery->delay_told = true;
		recipient_set_join(&told, &delayed);
	}
	if (!recipient_set_empty(&told) && wants_bounce(d, delivery)) {
		bounce_recipients(s, d, delivery, &a, &told);
	} else {
		settle(s, delivery);
	}
}

/* An attempt without a connection whose recipients' names have yet to be read back for the bounce
 * log; nobody was told anything of his own. */
struct unnamed_attempt {
	struct delivery *delivery;
	struct attempt attempt;
	char remote_name[256];
};

static void on_named(struct scheduler *s, void *owner, struct content *content, int result)
{
	struct unnamed_attempt *u = owner;
	struct domain *d = u->delivery->domain;

	if (content == NULL) {
		agent_error(&s->base, result, "the bounce log does not say whom a message was for");
	}
	u->delivery->loaded = content;
	conclude(s, u->delivery, &u->attempt);
	free(u);
	dispatch_settled(d);
}

static void read_names(struct scheduler *s, struct delivery *delivery, const struct attempt *a)
{
	struct unnamed_attempt *u = check_memory(malloc(sizeof(*u)), "an attempt");

	ASSERT(a->replies == NULL);
	u->delivery = delivery;
	u->attempt = *a;
	if (a->remote_name != NULL) {
		snprintf(u->remote_name, sizeof u->remote_name, "%s", a->remote_name);
		u->attempt.remote_name = u->remote_name;
	}
	delivery->domain->settling_count++;
	scheduler_load(s, delivery->message, on_named, u);
}

static void on_attempt(struct dispatcher *x, struct domain *d, struct delivery *delivery,
		       const struct attempt *a)
{
	struct scheduler *s = scheduler_of(x);

	(void)d;
	CHECK_MAGIC(delivery, DELIVERY_MAGIC);
	OWNER_CHECK(delivery);
	if (a->given_up == ATTEMPT_BY_OPERATOR) {
		begin_order(s, delivery);
	}
	if (delivery_content(delivery) == NULL) {
		read_names(s, delivery, a);
	} else {
		conclude(s, delivery, a);
	}
}

/* Whose options apply: a binding that is there no more has left its mail to the default one's. */
static const char *binding_of(struct scheduler *s, struct binding_record *b)
{
	if (!b->configured && !b->missed) {
		b->missed = true;
		agent_error(&s->base, 0,
			    "queued mail is of binding \"%s\", which is not configured any more: "
			    "the options of the default one apply",
			    b->name);
	}
	return b->configured ? b->name : BINDING_DEFAULT;
}

static const struct domain_options *options(struct dispatcher *x, struct binding_record *b,
					    const char *domain, const char *provider)
{
	struct scheduler *s = scheduler_of(x);

	return config_outbound(s->config, binding_of(s, b), provider, domain,
			       domain != NULL ? strlen(domain) : 0);
}

static const char *provider(struct dispatcher *x, struct binding_record *b, const char *mx)
{
	struct scheduler *s = scheduler_of(x);

	return config_provider(s->config, binding_of(s, b), mx);
}

static const char *same_provider(struct dispatcher *x, const char *name)
{
	return config_same_provider(scheduler_of(x)->config, name);
}

static void reorder(struct dispatcher *x, struct delivery *delivery)
{
	struct scheduler *s = scheduler_of(x);

	begin_order(s, delivery);
	settle(s, delivery);
}

static void keep(struct dispatcher *x, struct domain *d)
{
	scheduler_keep_domain(scheduler_of(x), d);
}

const struct dispatch_ops scheduler_dispatch_ops = {
	.resolve = scheduler_resolve,
	.load = load,
	.on_attempt = on_attempt,
	.options = options,
	.provider = provider,
	.same_provider = same_provider,
	.reorder = reorder,
	.keep = keep,
	.trace = scheduler_offer_connection,
};
