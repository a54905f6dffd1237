/*
 * What becomes of an attempt: log it, tell the sender of failures, tell the spool, queue again what
 * remains. Also the two things a dispatcher asks for: next hops and bodies.
 *
 * Start reading at on_attempt(), last in this file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/scheduler.h"
#include "agents/scheduler_request.h"
#include "core/mail/mainlog.h"
#include "core/outbound/next_hop.h"
#include "core/queue/retry.h"

static struct scheduler *scheduler_of(struct dispatcher *x)
{
	return CONTAINER_OF(x, struct scheduler, dispatcher);
}

/* ---- next hops ---- */

SINGLE
struct lookup {
	struct job job;
	struct scheduler *scheduler;
	struct domain *domain;
	const struct domain_options *options;
	struct next_hop_answer answer;
	char name[256];
};

static void lookup_work(struct job *job)
{
	struct lookup *l = CONTAINER_OF(job, struct lookup, job);

	next_hop_lookup(l->options, l->name, &l->answer);
}

static void lookup_done(struct agent *self, struct job *job, int result)
{
	struct lookup *l = CONTAINER_OF(job, struct lookup, job);
	struct scheduler *s = l->scheduler;

	(void)self;
	s->lookups_waiting--;
	if (result != 0) {
		snprintf(l->answer.trouble, sizeof l->answer.trouble,
			 "too many look-ups wait (pool backlog)");
	}
	dispatch_resolved(&s->dispatcher, l->domain, l->answer.hosts, l->answer.count, false,
			  l->answer.trouble, NEXT_HOP_TTL_MS);
	free(l);
}

static void resolve(struct dispatcher *x, struct domain *d)
{
	struct scheduler *s = scheduler_of(x);
	struct lookup *l = calloc(1, sizeof *l);

	if (l == NULL) {
		fatal("out of memory for a look-up");
	}
	l->job = (struct job){.work = lookup_work, .on_done = lookup_done, .from = &s->base};
	l->scheduler = s;
	l->domain = d;
	l->options = d->options;
	snprintf(l->name, sizeof l->name, "%s", d->name);
	s->lookups_waiting++;
	thread_pool_run(s->program->pool, &s->base, &l->job);
}

/* ---- bodies ---- */

static void on_loaded(struct agent *self, void *object, uint64_t value)
{
	struct scheduler_request *r = object;
	struct scheduler *s = CONTAINER_OF(self, struct scheduler, base);
	struct delivery *delivery = r->delivery;
	int result = r->spool.result;

	(void)value;
	delivery->body = r->spool.body;
	scheduler_request_put(r);
	counter_inc(s->bodies_loaded);
	dispatch_body_loaded(&s->dispatcher, delivery, result);
}

static void load_body(struct dispatcher *x, struct delivery *delivery)
{
	struct scheduler *s = scheduler_of(x);
	struct scheduler_request *r = scheduler_request_get(s, SPOOL_LOAD, on_loaded);

	r->delivery = delivery;
	r->spool.writer = delivery->message->writer;
	r->spool.entry = delivery->message->spool;
	spool_submit(s->program->spool, &s->base, &r->spool);
}

/* This delivery needs the message's body no more; the last one to say so frees it. True then. */
static bool give_up_body(struct scheduler *s, struct delivery *delivery)
{
	struct message *m = delivery->message;

	if (!delivery->uses_body) {
		return false;
	}
	delivery->uses_body = false;
	if (atomic_fetch_sub_explicit(&m->body_users, 1, memory_order_acq_rel) != 1) {
		return false;
	}
	message_drop_body(m, &s->pools);
	return true;
}

/* ---- logging ---- */

/* A reply to this recipient alone decided. */
static bool has_own_reply(const struct attempt *a, unsigned place)
{
	return a->replies != NULL && a->replies[place].text != NULL;
}

static const char *text_for(const struct attempt *a, unsigned place)
{
	return has_own_reply(a, place) ? a->replies[place].text : a->text;
}

static void log_recipients(struct scheduler *s, const struct delivery *delivery,
			   const struct recipient_set *set, const struct attempt *a,
			   size_t (*format)(char *line, const struct mainlog_attempt *a),
			   struct counter *counter)
{
	const struct envelope *e = message_envelope(delivery->message);
	struct mainlog_attempt line = {
		.prefix = {.time_s = s->base.now.wall_ns / NS_PER_S, .id = &e->id},
		.domain = envelope_domain(e, delivery->index),
		.size = e->body_bytes,
		.binding_group = BINDING_GROUP_DEFAULT,
		.binding = BINDING_DEFAULT,
		.retries = delivery->attempts,
		.queued_s = (agent_wall_ms(&s->base) - e->received_ms) / 1000,
		.remote_ip = a->remote_ip,
	};
	char text[MAINLOG_LINE_MAX];

	for (unsigned i = 0; i < ENVELOPE_DELIVERY_RECIPIENTS; i++) {
		if (recipient_set_has(set, i)) {
			line.text = text_for(a, i);
			line.stage = has_own_reply(a, i) ? SMTP_STAGE_DURING_RCPT : a->stage;
			log_line(&s->log, LOG_MAIN, text, format(text, &line));
			counter_inc(counter);
		}
	}
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
	(void)self;
	(void)value;
	scheduler_request_put(object);
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
	r->spool.due_ms = delivery->due_ms;
	r->spool.pending = delivery->pending;
	return r;
}

/* This run is done with the delivery: the spool is told that it is over, or who remains. */
static void part_with(struct scheduler *s, struct delivery *delivery, enum spool_verb verb)
{
	struct scheduler_request *r;

	if (delivery->message->spool == NULL) {
		delivery_destroy(delivery, &s->pools);
		return;
	}
	give_up_body(s, delivery);
	r = delivery_request(s, delivery, verb, on_done_written);
	spool_submit(s->program->spool, &s->base, &r->spool);
}

void scheduler_leave_delivery(struct scheduler *s, struct delivery *delivery)
{
	part_with(s, delivery, SPOOL_STATE);
}

static void settle_state(struct scheduler *s, struct delivery *delivery)
{
	struct scheduler_request *r = delivery_request(s, delivery, SPOOL_STATE, on_state_written);

	r->delivery = NULL;
	if (delivery->last_text != NULL) {
		r->reason = strndup(delivery->last_text, SPOOL_REASON_MAX);
		r->spool.reason = r->reason;
	}
	spool_submit(s->program->spool, &s->base, &r->spool);
	if (give_up_body(s, delivery)) {
		counter_inc(s->bodies_dropped);
	}
	if (delivery->due_ms != 0) {
		dispatch_delay(&s->dispatcher, delivery);
	} else {
		dispatch_enqueue(&s->dispatcher, delivery);
	}
}

static void on_kept(struct scheduler *s, void *owner, int result)
{
	struct delivery *delivery = owner;

	if (result == 0) {
		settle_state(s, delivery);
		return;
	}
	/* It stays in memory, as it was promised no more; the next failure tries again. */
	agent_error(&s->base, result, "a message of durability memory could not be kept");
	if (delivery->due_ms != 0) {
		dispatch_delay(&s->dispatcher, delivery);
	} else {
		dispatch_enqueue(&s->dispatcher, delivery);
	}
}

/* Everything about the attempt is said; what remains of the delivery goes where it belongs. */
static void settle(struct scheduler *s, struct delivery *delivery)
{
	chain_release(&delivery->body, &s->pools.buffers);
	delivery->doomed = false;
	if (recipient_set_empty(&delivery->pending)) {
		part_with(s, delivery, SPOOL_DONE);
	} else if (delivery->message->spool == NULL) {
		scheduler_keep(s, delivery->message, on_kept, delivery);
	} else {
		settle_state(s, delivery);
	}
}

static void on_bounced(struct bounce *b)
{
	b->delivery->domain->settling_count--;
	settle(b->scheduler, b->delivery);
}

/* ---- the attempt ---- */

static bool wants_bounce(const struct domain *d, const struct delivery *delivery)
{
	const char *sender = envelope_sender(message_envelope(delivery->message));

	return d->options->generate_bounces && !delivery->doomed_quiet &&
	       strchr(sender, '@') != NULL;
}

/* Of whom the sender is told now: by default of failures, else as its NOTIFY said (RFC 3461). What
 * a next hop with DSN took, that one tells of. */
static struct recipient_set to_be_told(const struct delivery *delivery, const struct attempt *a)
{
	const struct envelope *e = message_envelope(delivery->message);
	const struct envelope_delivery *own = envelope_delivery(e, delivery->index);
	struct recipient_set told = {{0, 0}};

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

static void bounce_recipients(struct scheduler *s, struct domain *d, struct delivery *delivery,
			      const struct attempt *a, const struct recipient_set *told)
{
	struct bounce *b = bounce_create(s, delivery, recipient_set_count(told));
	uint32_t first =
		envelope_delivery(message_envelope(delivery->message), delivery->index)->first;
	uint32_t n = 0;

	for (unsigned i = 0; i < ENVELOPE_DELIVERY_RECIPIENTS; i++) {
		bool own = has_own_reply(a, i);
		struct bounce_recipient *r = &b->recipients[n];

		if (!recipient_set_has(told, i)) {
			continue;
		}
		n++;
		r->action = recipient_set_has(&a->failed, i) ? DSN_FAILED : DSN_RELAYED;
		r->recipient = first + i;
		r->code = own ? a->replies[i].code : a->code;
		memcpy(r->enhanced, own ? a->replies[i].enhanced : a->enhanced, sizeof r->enhanced);
		r->text = strdup(text_for(a, i));
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
	const struct envelope *e = message_envelope(delivery->message);
	bool expired = retry_expired(d->options, e->received_ms, agent_wall_ms(&s->base));
	struct recipient_set rest = recipient_set_without(&delivery->pending, &a->delivered);

	rest = recipient_set_without(&rest, &a->failed);
	if (recipient_set_empty(&rest) || (!delivery->doomed && !expired)) {
		return (struct recipient_set){{0, 0}};
	}
	/* Those that failed keep what they were told: a notification of its own would be too much.
	 */
	recipient_set_join(&a->failed, &rest);
	a->deferred = (struct recipient_set){{0, 0}};
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
	uint64_t expires_ms = message_envelope(delivery->message)->received_ms +
			      d->options->message_expiration_ms;
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
	for (unsigned i = 0; i < ENVELOPE_DELIVERY_RECIPIENTS; i++) {
		if (recipient_set_has(&a->deferred, i)) {
			return text_for(a, i);
		}
	}
	return a->text;
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
	schedule(s, d, delivery);
	d->failed += recipient_set_count(&a->failed);
	d->transient += recipient_set_count(&a->deferred);
}

static void on_attempt(struct dispatcher *x, struct domain *d, struct delivery *delivery,
		       const struct attempt *found)
{
	struct scheduler *s = scheduler_of(x);
	struct attempt a = *found;
	struct recipient_set given_up;
	struct recipient_set told;

	CHECK_MAGIC(delivery, DELIVERY_MAGIC);
	OWNER_CHECK(delivery);
	log_recipients(s, delivery, &a.delivered, &a, mainlog_delivery, s->delivered);
	log_recipients(s, delivery, &a.deferred, &a, mainlog_transient, s->transient);
	log_recipients(s, delivery, &a.failed, &a, mainlog_permanent, s->failed);
	given_up = give_up(s, d, delivery, &a);
	log_recipients(s, delivery, &given_up, &a, mainlog_permanent, s->failed);
	remember(s, d, delivery, &a);
	told = to_be_told(delivery, &a);
	if (!recipient_set_empty(&told) && wants_bounce(d, delivery)) {
		bounce_recipients(s, d, delivery, &a, &told);
	} else {
		settle(s, delivery);
	}
}

static const struct domain_options *options(struct dispatcher *x, const char *domain)
{
	return config_domain(scheduler_of(x)->program->config, BINDING_DEFAULT, domain,
			     strlen(domain));
}

const struct dispatch_ops scheduler_dispatch_ops = {
	.resolve = resolve,
	.load_body = load_body,
	.on_attempt = on_attempt,
	.options = options,
};
