/*
 * From an accepted message to deliveries at their homes: store, answer, hand over. Recovered
 * deliveries take the second half of the way.
 */
#include <stdlib.h>
#include <string.h>

#include "agents/scheduler.h"
#include "agents/scheduler_request.h"

struct scheduler_request *scheduler_request_get(struct scheduler *s, enum spool_verb verb,
						task_fn on_done)
{
	struct scheduler_request *r = pool_get(&s->requests);

	memset(r, 0, sizeof *r);
	r->spool.verb = verb;
	r->spool.from = &s->base;
	r->spool.on_done = on_done;
	r->scheduler = s;
	r->began_ns = s->base.now.mono_ns;
	s->spool_waiting++;
	return r;
}

void scheduler_request_put(struct scheduler_request *r)
{
	r->scheduler->spool_waiting--;
	r->scheduler->orders_waiting -= r->ordered;
	free(r->texts);
	pool_put(&r->scheduler->requests, r);
}

static bool over_budget(const struct scheduler *s)
{
	return program_resident_bytes(s->program) > (int64_t)s->global->memory_budget_bytes;
}

/* Where it goes: the envelope says so, or an operator has. */
static const char *binding_of(const struct delivery *delivery)
{
	const char *name = delivery->sent_on ? delivery->route->binding
					     : envelope_binding(delivery_envelope(delivery));

	return name != NULL ? name : BINDING_DEFAULT;
}

static const char *domain_of(const struct delivery *delivery)
{
	return delivery->sent_on ? delivery->route->domain
				 : envelope_domain(delivery_envelope(delivery), delivery->index);
}

/* At the record: into its queue. */
static void deliver_to(struct scheduler *s, struct domain *d, struct delivery *delivery)
{
	d->has_unlisted |= delivery->rerouted || delivery->message->spool == NULL;
	delivery_end_route(delivery);
	d->received += recipient_set_count(&delivery->pending);
	d->binding_record->received += recipient_set_count(&delivery->pending);
	/* It is found in its domain's record from here on: an envelope alone has done its work. */
	if (delivery->uses_content && !delivery->message->content->resident) {
		delivery_give_up_content(delivery, &s->pools);
	}
	if (delivery->held) {
		dispatch_put_held(&s->dispatcher, d, delivery);
	} else if (delivery->due_ms > agent_wall_ms(&s->base)) {
		dispatch_delay(&s->dispatcher, d, delivery);
	} else {
		dispatch_enqueue(&s->dispatcher, d, delivery);
	}
}

void scheduler_on_delivery(struct agent *self, void *object, uint64_t yours)
{
	struct scheduler *s = CONTAINER_OF(self, struct scheduler, base);
	struct dispatcher *x = &s->dispatcher;
	struct delivery *delivery = object;
	const struct dispatcher *elsewhere;
	const char *binding;
	const char *domain;
	struct domain *d;

	CHECK_MAGIC(delivery, DELIVERY_MAGIC);
	OWNER_CLAIM(delivery);
	/* The program stops: when only one scheduler does, others go on with what it gets. */
	if (s->stopping && delivery->message->spool == NULL && runtime_stopping(self->runtime)) {
		scheduler_keep_delivery(s, delivery);
		return;
	}
	binding = binding_of(delivery);
	domain = domain_of(delivery);
	d = domain_find(&x->domains, binding, domain);
	elsewhere = d == NULL ? dispatch_elsewhere(x, binding, domain, &yours) : NULL;
	if (elsewhere != NULL) {
		counter_inc(x->forwarded);
		OWNER_RELEASE(delivery);
		agent_send(self, elsewhere->self, scheduler_on_delivery, delivery, yours);
		return;
	}
	deliver_to(s, d != NULL ? d : dispatch_find(x, binding, domain), delivery);
}

void scheduler_send_home(struct program *p, struct agent *self, struct delivery *delivery)
{
	uint32_t home = home_of(p, binding_of(delivery), domain_of(delivery));

	OWNER_RELEASE(delivery);
	agent_send(self, &p->schedulers[home]->base, scheduler_on_delivery, delivery, 0);
}

static void route(struct scheduler *s, struct message *m)
{
	uint32_t count = message_envelope(m)->delivery_count;

	ASSERT(count > 0);
	message_use_content(m, count);
	message_hold(m, count - 1);
	for (uint32_t i = 0; i < count; i++) {
		struct delivery *delivery = delivery_create(&s->pools, m, i);

		delivery->uses_content = true;
		scheduler_send_home(s->program, &s->base, delivery);
	}
}

static void accepted(struct scheduler *s, struct message *m, stored_fn on_stored, void *owner)
{
	const struct envelope *e = message_envelope(m);

	counter_inc(s->received);
	counter_add(s->received_bytes, e->body_bytes);
	counter_add(s->recipients, e->recipient_count);
	if (m->spool != NULL && over_budget(s)) {
		/* Here, as the buffers came from here. */
		message_drop_body(m, &s->pools);
		counter_inc(s->bodies_dropped);
	}
	/* The answer first: what is logged of the reception comes before what is of deliveries. */
	message_hold(m, 1);
	on_stored(s, owner, 0);
	route(s, m);
	message_release(m, &s->pools);
}

static void on_store_done(struct agent *self, void *object, uint64_t value)
{
	struct scheduler_request *r = object;
	struct scheduler *s = CONTAINER_OF(self, struct scheduler, base);
	struct message *m = r->spool.message;
	stored_fn on_stored = r->on_stored;
	void *owner = r->owner;
	int result = r->spool.result;

	(void)value;
	histogram_record(&s->store_ns, self->now.mono_ns - r->began_ns);
	scheduler_request_put(r);
	if (result == 0) {
		accepted(s, m, on_stored, owner);
		return;
	}
	counter_inc(s->rejected_busy);
	message_release(m, &s->pools);
	on_stored(s, owner, result);
}

static struct scheduler_request *store_request(struct scheduler *s, struct message *m,
					       task_fn on_done, stored_fn on_stored, void *owner)
{
	struct scheduler_request *r = scheduler_request_get(s, SPOOL_STORE, on_done);

	m->writer = (uint8_t)spool_writer_of(s->program->spool, s->base.id);
	r->spool.writer = m->writer;
	r->spool.message = m;
	r->on_stored = on_stored;
	r->owner = owner;
	return r;
}

/* Durability "memory": one delivery, so that one scheduler decides when it must be spooled after
 * all; and only while bodies fit into the budget. */
static bool may_stay_in_memory(struct scheduler *s, const struct message *m)
{
	const struct envelope *e = message_envelope(m);

	return e->durability == ENVELOPE_MEMORY && e->delivery_count == 1 && !s->stopping &&
	       !over_budget(s);
}

static void on_memory_done(struct agent *self, void *object, uint64_t value)
{
	struct scheduler_request *r = object;
	struct scheduler *s = CONTAINER_OF(self, struct scheduler, base);
	struct message *m = r->spool.message;
	stored_fn on_stored = r->on_stored;
	void *owner = r->owner;

	(void)value;
	scheduler_request_put(r);
	accepted(s, m, on_stored, owner);
}

void scheduler_store(struct scheduler *s, struct message *m, stored_fn on_stored, void *owner)
{
	struct scheduler_request *r;

	CHECK_MAGIC(m, MESSAGE_MAGIC);
	message_set_resident(m, &s->pools);
	if (may_stay_in_memory(s, m)) {
		r = store_request(s, m, NULL, on_stored, owner);
		agent_send(&s->base, &s->base, on_memory_done, r, 0);
		return;
	}
	r = store_request(s, m, on_store_done, on_stored, owner);
	spool_submit(s->program->spool, &s->base, &r->spool);
}

/* ---- messages that were only in memory ---- */

static void on_kept(struct agent *self, void *object, uint64_t value)
{
	struct scheduler_request *r = object;
	struct scheduler *s = CONTAINER_OF(self, struct scheduler, base);
	stored_fn on_stored = r->on_stored;
	void *owner = r->owner;
	int result = r->spool.result;

	(void)value;
	scheduler_request_put(r);
	on_stored(s, owner, result);
}

void scheduler_keep(struct scheduler *s, struct message *m, stored_fn on_stored, void *owner)
{
	struct scheduler_request *r = store_request(s, m, on_kept, on_stored, owner);

	ASSERT(m->spool == NULL && m->content != NULL);
	r->spool.promised = true;
	spool_submit(s->program->spool, &s->base, &r->spool);
}

static void on_delivery_kept(struct scheduler *s, void *owner, int result)
{
	struct delivery *delivery = owner;

	if (result != 0) {
		agent_error(&s->base, result, "a message of durability memory could not be kept");
	}
	delivery_destroy(delivery, &s->pools);
}

void scheduler_keep_delivery(struct scheduler *s, struct delivery *delivery)
{
	scheduler_keep(s, delivery->message, on_delivery_kept, delivery);
}

/* Takes it out of its queue when it is only in memory. */
static bool keep_queued(struct scheduler *s, struct domain *d, struct delivery *x)
{
	if (x->message->spool != NULL) {
		return false;
	}
	domain_remove(&s->dispatcher.domains, d, x);
	scheduler_keep_delivery(s, x);
	return true;
}

/* Those in the delayed queue could not be kept when they were deferred; a removal may move others
 * to places that were looked at, so that it takes another look. */
void scheduler_keep_domain(struct scheduler *s, struct domain *d)
{
	struct delivery *next;
	bool again = true;

	for (struct delivery *x = d->active_head; x != NULL; x = next) {
		next = x->next;
		keep_queued(s, d, x);
	}
	while (again) {
		again = false;
		for (uint32_t i = d->delayed_count; i-- > 0;) {
			again = keep_queued(s, d, d->delayed[i]) || again;
		}
		for (uint32_t i = d->held_count; i-- > 0;) {
			again = keep_queued(s, d, d->held[i]) || again;
		}
	}
}

static void keep_each(void *context, struct domain *d)
{
	scheduler_keep_domain(context, d);
}

void scheduler_keep_all(struct scheduler *s)
{
	domain_each(&s->dispatcher.domains, keep_each, s);
}
