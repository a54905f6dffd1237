/*
 * What operators ask of a domain record: flush, suspend, fail, retry; and the program's stop.
 * Orders to a whole queue are carried out in slices.
 */
#include <stdlib.h>

#include "core/outbound/connection.h"
#include "core/outbound/dispatch_parts.h"
#include "core/runtime/check.h"

/* Orders to bindings are looked at once in this time at least. */
#define BINDINGS_LOOK_MS 60000U

/* An operator knows better: hosts and names are tried again now. */
static void forget_failures(struct domain *d)
{
	if (d->lane != NULL) {
		dispatch_lane_forgive(d->lane);
	}
	if (!d->resolving && d->travel == DOMAIN_AT_HOME) {
		dispatch_hold(d, DOMAIN_FREE);
	}
}

/* An order to a whole queue, carried out in slices: what was queued when it was given. */
SINGLE
struct sweep {
	struct domain *domain;
	uint64_t active;
	uint64_t delayed;
	uint64_t held;
	bool fail;
	bool quiet;
};

static void flush_next(struct dispatcher *x, struct domain *d)
{
	struct delivery *delivery = domain_peek_delayed(d);

	domain_remove(&x->domains, d, delivery);
	domain_push_active(&x->domains, d, delivery);
}

static void fail_queued(struct dispatcher *x, struct delivery *delivery, bool quiet,
			const char *text)
{
	struct domain *d = delivery->domain;
	struct attempt a = dispatch_attempt_text(554, "5.7.0", text);

	a.given_up = ATTEMPT_BY_OPERATOR;
	delivery->doomed_quiet = quiet;
	domain_remove(&x->domains, d, delivery);
	delivery->held = false;
	dispatch_without_connection(x, delivery, &a, true);
}

/* One delivery of the order; false when there are no more. */
static bool sweep_next(struct dispatcher *x, struct sweep *w)
{
	struct domain *d = w->domain;

	if (w->active > 0 && d->active_head != NULL) {
		w->active--;
		fail_queued(x, d->active_head, w->quiet, "554 Message manually purged.");
		return true;
	}
	w->active = 0;
	if (w->held > 0 && d->held_count > 0) {
		w->held--;
		fail_queued(x, d->held[d->held_count - 1], w->quiet,
			    "554 Message manually purged.");
		return true;
	}
	if (w->delayed == 0 || d->delayed_count == 0) {
		return false;
	}
	w->delayed--;
	if (w->fail) {
		fail_queued(x, d->delayed[d->delayed_count - 1], w->quiet,
			    "554 Message manually purged.");
	} else {
		flush_next(x, d);
	}
	return true;
}

static void on_sweep(struct agent *self, void *object, uint64_t value)
{
	struct sweep *w = object;
	struct domain *d = w->domain;
	struct dispatcher *x = d->owner;
	int count = 0;

	(void)value;
	OWNER_CHECK(d);
	while (count < DISPATCH_SLICE && sweep_next(x, w)) {
		count++;
	}
	dispatch_arm_delayed(x, d);
	if (count == DISPATCH_SLICE) {
		agent_send(self, self, on_sweep, w, 0);
	} else {
		d->sweeps--;
		x->failing -= w->fail;
		free(w);
	}
	dispatch_domain(x, d);
}

static void sweep_start(struct dispatcher *x, struct domain *d, bool fail, bool quiet)
{
	struct sweep *w = check_memory(malloc(sizeof *w), "an order");

	*w = (struct sweep){
		.domain = d,
		.active = fail ? d->active_count : 0,
		.delayed = d->delayed_count,
		.held = fail ? d->held_count : 0,
		.fail = fail,
		.quiet = quiet,
	};
	d->sweeps++;
	x->failing += fail;
	on_sweep(x->self, w, 0);
}

void dispatch_flush(struct dispatcher *x, struct domain *d)
{
	OWNER_CHECK(d);
	forget_failures(d);
	sweep_start(x, d, false, false);
}

uint64_t dispatch_fail(struct dispatcher *x, struct domain *d, bool quiet)
{
	uint64_t count = (uint64_t)d->active_count + d->delayed_count + d->held_count;

	OWNER_CHECK(d);
	for (struct connection *c = d->connections; c != NULL; c = c->next) {
		if (c->delivery != NULL) {
			c->delivery->doomed = true;
			c->delivery->doomed_quiet = quiet;
			count++;
		}
	}
	sweep_start(x, d, true, quiet);
	return count;
}

void dispatch_suspend(struct dispatcher *x, struct domain *d, struct suspension *suspension)
{
	OWNER_CHECK(d);
	d->suspended = suspension != NULL;
	suspension_keep(&d->suspension, suspension);
	if (d->travel == DOMAIN_AT_HOME) {
		dispatch_hold(d, d->suspended ? DOMAIN_SUSPENDED : DOMAIN_FREE);
	}
	dispatch_domain(x, d);
}

void dispatch_end_suspension(struct dispatcher *x, struct domain *d)
{
	if (d->suspended && suspension_is_over(d->suspension, agent_wall_ms(x->self))) {
		suspension_keep(&d->suspension, NULL);
		d->suspended = dispatch_begins_suspended(d);
	}
}

/* One timer for the earliest end; none when all last. */
static void arm_bindings(struct dispatcher *x)
{
	uint64_t wall_ms = agent_wall_ms(x->self);
	uint64_t first_ms = UINT64_MAX;

	for (uint32_t i = 0; i < x->bindings.count; i++) {
		uint64_t end_ms = suspension_end_ms(x->bindings.records[i]->suspension);

		first_ms = end_ms != 0 && end_ms < first_ms ? end_ms : first_ms;
	}
	if (first_ms == UINT64_MAX || x->stopping) {
		timer_cancel(&x->bindings_timer);
		return;
	}
	/* Wall clocks are set: it is looked at again before. */
	first_ms = first_ms > wall_ms ? first_ms - wall_ms : 1;
	timer_arm(&x->bindings_timer,
		  dispatch_now_ms(x) + (first_ms < BINDINGS_LOOK_MS ? first_ms : BINDINGS_LOOK_MS));
}

/* Their records find out by timers of their own (obstacle.c). */
void dispatch_on_bindings_timer(struct timer *t)
{
	struct dispatcher *x = CONTAINER_OF(t, struct dispatcher, bindings_timer);

	for (uint32_t i = 0; i < x->bindings.count; i++) {
		struct binding_record *b = x->bindings.records[i];

		if (suspension_is_over(b->suspension, agent_wall_ms(x->self))) {
			binding_set_order(b, BINDING_AS_CONFIGURED);
		}
	}
	arm_bindings(x);
}

void dispatch_order_binding(struct dispatcher *x, struct binding_record *b,
			    enum binding_order order, struct suspension *suspension)
{
	binding_set_order(b, order);
	suspension_keep(&b->suspension, suspension);
	arm_bindings(x);
}

void dispatch_binding_order(struct dispatcher *x, struct domain *d)
{
	OWNER_CHECK(d);
	if (d->binding_record->order == BINDING_RESUMED) {
		d->suspended = false;
		suspension_keep(&d->suspension, NULL);
	}
	if (d->travel == DOMAIN_AT_HOME) {
		dispatch_hold(d, DOMAIN_FREE);
	}
	dispatch_domain(x, d);
}

void dispatch_fail_delivery(struct dispatcher *x, struct delivery *delivery, bool quiet)
{
	if (delivery->place == DELIVERY_ATTEMPT) {
		delivery->doomed = true;
		delivery->doomed_quiet = quiet;
	} else {
		fail_queued(x, delivery, quiet, "554 manually failed.");
	}
}

void dispatch_retry_delivery(struct dispatcher *x, struct delivery *delivery)
{
	struct domain *d = delivery->domain;

	if (delivery->place == DELIVERY_HELD) {
		delivery->due_ms = 0;
		dispatch_hold_delivery(x, delivery, false);
	} else if (delivery->place != DELIVERY_ATTEMPT) {
		domain_remove(&x->domains, d, delivery);
		domain_push_active_front(&x->domains, d, delivery);
		dispatch_arm_delayed(x, d);
		forget_failures(d);
		dispatch_domain(x, d);
	}
}

void dispatch_pin(struct domain *d)
{
	OWNER_CHECK(d);
	d->sweeps++;
}

void dispatch_unpin(struct dispatcher *x, struct domain *d)
{
	OWNER_CHECK(d);
	ASSERT(d->sweeps > 0);
	d->sweeps--;
	dispatch_domain(x, d);
}

bool dispatch_hold_delivery(struct dispatcher *x, struct delivery *delivery, bool hold)
{
	struct domain *d = delivery->domain;

	OWNER_CHECK(d);
	if (delivery->held == hold) {
		return false;
	}
	delivery->held = hold;
	if (delivery->place != DELIVERY_ATTEMPT) {
		domain_remove(&x->domains, d, delivery);
		x->ops->reorder(x, delivery);
		dispatch_arm_delayed(x, d);
	}
	return true;
}

void dispatch_send_on(struct dispatcher *x, struct delivery *delivery, const char *binding,
		      const char *domain)
{
	struct domain *d = delivery->domain;

	OWNER_CHECK(d);
	domain_remove(&x->domains, d, delivery);
	delivery_send_on(delivery, binding, domain);
	x->ops->reorder(x, delivery);
	dispatch_arm_delayed(x, d);
}

void dispatch_fail_some(struct dispatcher *x, struct delivery *delivery,
			const struct recipient_set *who, bool quiet)
{
	struct attempt a = dispatch_attempt_text(554, "5.7.0", "554 manually failed.");
	struct domain *d = delivery->domain;

	delivery->doomed_quiet = quiet;
	domain_remove(&x->domains, d, delivery);
	a.failed = *who;
	a.given_up = ATTEMPT_BY_OPERATOR;
	a.keeps_due = true;
	x->ops->on_attempt(x, d, delivery, &a);
	dispatch_arm_delayed(x, d);
}

static void stop_domain(void *context, struct domain *d)
{
	(void)context;
	if (d->lane != NULL) {
		lane_remove_ready(d);
	}
	dispatch_hold(d, DOMAIN_STOPPING);
	timer_cancel(&d->hold_timer);
	timer_cancel(&d->delayed_timer);
}

static void stop_site(void *context, struct site *s)
{
	struct dispatcher *x = context;
	struct connection *next;

	timer_cancel(&s->hold_timer);
	for (struct lane *l = s->lanes; l != NULL; l = l->next) {
		timer_cancel(&l->down_timer);
		lane_set_hunger(l, LANE_SATED);
	}
	/* Its lanes are not to go while their connections are looked at. */
	s->busy = true;
	for (struct connection *c = s->connections; c != NULL; c = next) {
		next = c->site_next;
		if (c->state == CONNECTION_IDLE) {
			connection_quit(c);
		} else if (x->hurry || c->state < CONNECTION_IDLE) {
			connection_abort(c, "451 4.3.2 [internal] the program stops");
		}
	}
	s->busy = false;
}

void dispatch_stop(struct dispatcher *x, bool hurry)
{
	x->stopping = true;
	timer_cancel(&x->bindings_timer);
	x->hurry = hurry;
	domain_each(&x->domains, stop_domain, x);
	site_each(&x->sites, stop_site, x);
}
