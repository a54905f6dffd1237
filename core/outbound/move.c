/*
 * Records that travel. A record begins at its first home, the scheduler that hash(binding, domain)
 * chooses; mail and orders for it are sent there, always. When its site lives elsewhere the record
 * goes there whole, with its queues, and the first home keeps a forwarding entry:
 *
 *     first home                                   home of the site
 *     ---------                                    ----------------
 *     waits until nothing is on a connection
 *     entry made, record sent     --- arrive --->  in the table, timers armed
 *                                 <--- taken ---
 *     mail comes: after it        --- forward -->  found there
 *
 * It leaves the site's home only by way of the first one (which may send it on), and asks before:
 *
 *                                 <---- ask -----  waits until nothing is on a connection
 *     entry gone; a record in its
 *     place, where mail waits     -- released -->  all that was sent after it has come before this
 *     takes the place; what waited
 *     there goes to its queues    <--- return ---  sent, when nothing is under way again
 *                                 ---- taken ---->
 *
 * A link between two agents keeps order, so a task that is sent after a record finds it, mail keeps
 * its order, and nothing is ever sent after a record that has left again. What happens at a stop, a
 * kill or a power cut in the middle: the spool has all mail, and moves are in memory only.
 *
 * Start reading at move_begin(), last in this file.
 */
#include <stdlib.h>
#include <string.h>

#include "core/outbound/connection.h"
#include "core/outbound/dispatch_parts.h"
#include "core/runtime/check.h"

uint32_t dispatch_home(const struct dispatcher *x, uint64_t hash)
{
	return (uint32_t)(hash % x->peer_count);
}

void move_free(struct move *m)
{
	route_verdict_free(&m->verdict);
	free(m->key);
	free(m);
}

static struct agent *agent_of(const struct dispatcher *x, uint32_t index)
{
	return x->peers[index]->self;
}

/* ---- whole records ---- */

/* Nothing of it is in other hands. */
static bool is_quiet(const struct domain *d)
{
	return d->attempt_count == 0 && d->connection_count == 0 && d->settling_count == 0 &&
	       d->sweeps == 0 && !d->resolving;
}

static void let_go(struct dispatcher *x, struct move *m)
{
	struct domain *d = m->domain;

	timer_cancel(&d->hold_timer);
	timer_cancel(&d->delayed_timer);
	ASSERT(is_quiet(d) && d->lane == NULL);
	m->order = d->binding_record->order;
	domain_take(&x->domains, d);
	x->moves++;
	counter_inc(x->moved);
}

/*
 * Orders to a binding go to each scheduler, and there to the records that it has: one that was on
 * its way has missed what was said meanwhile. A binding that is not configured is known only where
 * it has had mail: its order comes with its mail.
 */
static void obey_binding(struct domain *d, enum binding_order order)
{
	struct binding_record *b = d->binding_record;

	if (!b->configured && b->order == BINDING_AS_CONFIGURED) {
		binding_set_order(b, order);
	}
	if (b->order == BINDING_RESUMED && order != BINDING_RESUMED) {
		d->suspended = false;
		suspension_note(&d->suspension, NULL, 0);
	}
}

static void take_in(struct dispatcher *x, const struct move *m)
{
	struct domain *d = m->domain;

	domain_put(&x->domains, d);
	dispatch_adopt(x, d);
	obey_binding(d, m->order);
	d->travel = DOMAIN_AT_HOME;
	d->move = NULL;
	d->hold = DOMAIN_FREE;
	d->hold_until_ms = 0;
}

/* It has a new place: its timers run again, and its mail goes. */
static void resume(struct dispatcher *x, struct domain *d)
{
	if (x->stopping) {
		x->ops->keep(x, d);
		dispatch_hold(d, DOMAIN_STOPPING);
		return;
	}
	dispatch_arm_delayed(x, d);
	dispatch_domain(x, d);
}

static void on_taken(struct agent *self, void *object, uint64_t value)
{
	struct dispatcher *x = object;

	(void)value;
	ASSERT(x->self == self && x->moves > 0);
	x->moves--;
}

/* ---- away ---- */

static void on_arrive(struct agent *self, void *object, uint64_t index)
{
	struct move *m = object;
	struct dispatcher *x = m->from->peers[index];
	struct domain *d = m->domain;

	ASSERT(x->self == self);
	ASSERT(domain_find(&x->domains, d->binding, d->name) == NULL);
	agent_send(self, m->from->self, on_taken, m->from, 0);
	take_in(x, m);
	if (x->stopping) {
		move_free(m);
	} else {
		dispatch_attach(x, d, m);
	}
	resume(x, d);
}

/* From the first home to that of the site. */
static void depart(struct dispatcher *x, struct move *m)
{
	struct domain *d = m->domain;

	let_go(x, m);
	m->from = x;
	forward_add(&x->forwards, d->binding, d->name, d->hash, (uint8_t)m->to);
	agent_send(x->self, agent_of(x, m->to), on_arrive, m, m->to);
}

/* ---- back ---- */

/* What came while the record was on its way, in its order. */
static void take_over_queue(struct dispatcher *x, struct domain *d, struct domain *place)
{
	struct delivery *delivery;

	d->received += place->received;
	while ((delivery = domain_pop_active(&x->domains, place)) != NULL) {
		domain_push_active(&x->domains, d, delivery);
	}
	while ((delivery = domain_peek_delayed(place)) != NULL) {
		domain_remove(&x->domains, place, delivery);
		domain_push_delayed(&x->domains, d, delivery);
	}
	while ((delivery = domain_peek_held(place)) != NULL) {
		domain_remove(&x->domains, place, delivery);
		domain_push_held(&x->domains, d, delivery);
	}
	d->has_unlisted |= place->has_unlisted;
}

static void on_return(struct agent *self, void *object, uint64_t index)
{
	struct move *m = object;
	struct dispatcher *x = m->from->peers[index];
	struct domain *d = m->domain;
	struct domain *place = domain_find(&x->domains, d->binding, d->name);

	ASSERT(x->self == self && place != NULL && place->travel == DOMAIN_EXPECTED);
	ASSERT(is_quiet(place));
	agent_send(self, m->from->self, on_taken, m->from, 0);
	timer_cancel(&place->hold_timer);
	timer_cancel(&place->delayed_timer);
	domain_take(&x->domains, place);
	take_in(x, m);
	domain_put(&x->domains, place);
	take_over_queue(x, d, place);
	domain_destroy(&x->domains, place);
	if (x->stopping || m->key == NULL) {
		move_free(m);
		resume(x, d);
		if (!x->stopping && dispatch_unused(d)) {
			dispatch_free_record(x, d);
		}
	} else if (m->to == x->index) {
		dispatch_attach(x, d, m);
		resume(x, d);
	} else {
		depart(x, m);
	}
}

/* On the home of the site: whatever was sent after the record is here. */
static void on_released(struct agent *self, void *object, uint64_t value)
{
	struct move *m = object;

	(void)value;
	ASSERT(m->from->self == self && m->domain->travel == DOMAIN_ASKING);
	m->domain->travel = DOMAIN_RELEASED;
	move_review(m->domain);
}

/* On the first home. What it reads of the record does not change while that asks. */
static void on_ask(struct agent *self, void *object, uint64_t index)
{
	struct move *m = object;
	const struct domain *away = m->domain;
	struct dispatcher *x = m->from->peers[index];
	struct forward *f = forward_find(&x->forwards, away->binding, away->name, away->hash);
	struct domain *place;

	ASSERT(x->self == self && f != NULL && f->home == m->from->index);
	forward_remove(&x->forwards, f);
	place = dispatch_find(x, away->binding, away->name);
	place->travel = DOMAIN_EXPECTED;
	dispatch_hold(place, DOMAIN_MOVING);
	agent_send(self, m->from->self, on_released, m, 0);
}

/* ---- when it can go ---- */

static void ask(struct dispatcher *x, struct move *m)
{
	m->from = x;
	m->domain->travel = DOMAIN_ASKING;
	x->moves++;
	agent_send(x->self, agent_of(x, m->first), on_ask, m, m->first);
}

static void go_home(struct dispatcher *x, struct move *m)
{
	/* Counted since it asked. */
	x->moves--;
	let_go(x, m);
	agent_send(x->self, agent_of(x, m->first), on_return, m, m->first);
}

/* A task of its own: whoever brought something to its end may still be looking at the record. */
static void on_quiet(struct agent *self, void *object, uint64_t value)
{
	struct domain *d = object;
	struct dispatcher *x = d->owner;

	(void)value;
	ASSERT(x->self == self);
	d->travel_posted = false;
	if (!is_quiet(d)) {
		return;
	}
	if (d->travel == DOMAIN_RELEASED) {
		go_home(x, d->move);
	} else if (d->travel == DOMAIN_LEAVING && !x->stopping) {
		if (d->move->first == x->index) {
			depart(x, d->move);
		} else {
			ask(x, d->move);
		}
	}
}

void move_review(struct domain *d)
{
	struct dispatcher *x = d->owner;

	if ((d->travel == DOMAIN_LEAVING || d->travel == DOMAIN_RELEASED) && is_quiet(d) &&
	    !d->travel_posted) {
		d->travel_posted = true;
		agent_send(x->self, x->self, on_quiet, d, 0);
	}
}

void move_home(struct dispatcher *x, struct domain *d)
{
	struct move *m = calloc(1, sizeof(*m));

	if (m == NULL) {
		fatal("out of memory for a record that moves");
	}
	m->domain = d;
	m->first = dispatch_home(x, d->hash);
	m->to = m->first;
	move_begin(x, m);
}

void move_begin(struct dispatcher *x, struct move *m)
{
	struct domain *d = m->domain;

	ASSERT(d->travel == DOMAIN_AT_HOME && d->move == NULL);
	m->from = x;
	d->travel = DOMAIN_LEAVING;
	d->move = m;
	dispatch_hold(d, DOMAIN_MOVING);
	dispatch_detach(x, d);
	move_review(d);
}

struct dispatcher *dispatch_away(const struct dispatcher *x, const char *binding,
				 const char *domain)
{
	const struct forward *f;

	if (x->forwards.count == 0) {
		return NULL;
	}
	f = forward_find(&x->forwards, binding, domain,
			 domain_hash(binding, domain, strlen(domain)));
	return f != NULL ? x->peers[f->home] : NULL;
}
