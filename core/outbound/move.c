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
 * its order, and nothing is ever sent after a record that has left again. When homes change while
 * mail flows: relocate.c. What happens at a stop, a
 * kill or a power cut in the middle: the spool has all mail, and moves are in memory only.
 *
 * Start reading at move_begin(), last in this file.
 */
#include <stdlib.h>
#include <string.h>

#include "core/outbound/connection.h"
#include "core/outbound/dispatch_parts.h"
#include "core/runtime/check.h"

void move_free(struct move *m)
{
	route_verdict_free(&m->verdict);
	free(m->suspension);
	free(m->key);
	free(m);
}

static struct agent *agent_of(const struct dispatcher *x, uint32_t index)
{
	return x->peers[index]->self;
}

/* What is on its way counts until it has arrived; apart, what began under an earlier layout. */
static void count_begun(struct dispatcher *x, const struct move *m)
{
	x->moves++;
	x->moves_before += m->layout != x->layout;
}

static void count_ended(struct dispatcher *x, uint32_t layout)
{
	ASSERT(x->moves > 0);
	x->moves--;
	if (layout != x->layout) {
		ASSERT(x->moves_before > 0);
		x->moves_before--;
	}
}

/* ---- whole records ---- */

/* Nothing of it is in other hands. What the spool is writing of it counts, too: requests of two
 * schedulers for one delivery would know no order. */
static bool is_quiet(const struct domain *d)
{
	return d->attempt_count == 0 && d->connection_count == 0 && d->settling_count == 0 &&
	       d->writing_count == 0 && d->sweeps == 0 && !d->resolving;
}

static void let_go(struct dispatcher *x, struct move *m)
{
	struct domain *d = m->domain;

	relocate_note_progress(x, d);
	timer_cancel(&d->hold_timer);
	timer_cancel(&d->delayed_timer);
	ASSERT(is_quiet(d) && d->lane == NULL);
	m->order = d->binding_record->order;
	suspension_keep(&m->suspension, suspension_copy(d->binding_record->suspension));
	m->suspended_as_configured = d->suspended == dispatch_begins_suspended(d);
	domain_take(&x->domains, d);
	m->trip = ++x->trip;
	count_begun(x, m);
	counter_inc(x->moved);
}

/*
 * Orders to a binding go to each scheduler, and there to the records that it has: one that was on
 * its way has missed what was said meanwhile. A binding that is not configured is known only where
 * it has had mail: its order comes with its mail.
 */
static void obey_binding(struct dispatcher *x, struct domain *d, struct move *m)
{
	struct binding_record *b = d->binding_record;

	if (!b->configured && b->order == BINDING_AS_CONFIGURED &&
	    m->order != BINDING_AS_CONFIGURED) {
		dispatch_order_binding(x, b, m->order, m->suspension);
		m->suspension = NULL;
	}
	if (b->order == BINDING_RESUMED && m->order != BINDING_RESUMED) {
		d->suspended = false;
		suspension_keep(&d->suspension, NULL);
	}
}

/* Options do not travel: what applies is what applies here, be it of a generation before or after
 * the one where the record comes from. Nothing reads those that it left with. */
static void take_options(struct dispatcher *x, struct move *m)
{
	struct domain *d = m->domain;
	const char *provider = m->verdict.mx != NULL
				       ? x->ops->provider(x, d->binding_record, m->verdict.mx)
				       : NULL;
	const char *before;

	d->provider = provider;
	d->options = x->ops->options(x, d->binding_record, d->name, provider);
	if (m->suspended_as_configured) {
		d->suspended = dispatch_begins_suspended(d);
	}
	if (m->generation != x->generation) {
		/* Its next hops may be others by now. */
		m->until_ms = 0;
	}
	if (m->key == NULL) {
		return;
	}
	if (site_key_after(m->key, SITE_OF_DOMAIN) != NULL) {
		m->site_options = d->options;
		return;
	}
	m->site_options = dispatch_shared_options(x, d->binding_record, m->key);
	before = site_key_after(m->key, SITE_OF_PROVIDER);
	if (provider != NULL ? before == NULL || strcmp(before, provider) != 0 : before != NULL) {
		/* It belongs elsewhere by now. */
		m->until_ms = 0;
	}
}

static void take_in(struct dispatcher *x, struct move *m)
{
	struct domain *d = m->domain;

	dispatch_heard(x, m->trip);
	domain_put(&x->domains, d);
	dispatch_adopt(x, d);
	obey_binding(x, d, m);
	take_options(x, m);
	d->travel = DOMAIN_AT_HOME;
	d->first_told = false;
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
	relocate_note_place(x, d);
	dispatch_arm_delayed(x, d);
	dispatch_domain(x, d);
}

static void on_taken(struct agent *self, void *object, uint64_t layout)
{
	struct dispatcher *x = object;

	ASSERT(x->self == self);
	count_ended(x, (uint32_t)layout);
}

/* ---- away ---- */

static void on_arrive(struct agent *self, void *object, uint64_t index)
{
	struct move *m = object;
	struct dispatcher *x = m->from->peers[index];
	struct domain *d = m->domain;

	ASSERT(x->self == self);
	ASSERT(domain_find(&x->domains, d->binding, d->name) == NULL);
	agent_send(self, m->from->self, on_taken, m->from, m->layout);
	relocate_note_arrival(x, d);
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
	forward_add(&x->forwards, d->binding, d->name, d->hash, (uint8_t)m->to, m->trip);
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

static void take_place(struct dispatcher *x, struct domain *place, struct move *m)
{
	struct domain *d = m->domain;

	place->move = NULL;
	agent_send(x->self, m->from->self, on_taken, m->from, m->layout);
	timer_cancel(&place->hold_timer);
	timer_cancel(&place->delayed_timer);
	domain_take(&x->domains, place);
	relocate_note_arrival(x, d);
	take_in(x, m);
	domain_put(&x->domains, place);
	take_over_queue(x, d, place);
	domain_destroy(&x->domains, place);
	if (x->stopping || m->key == NULL) {
		bool unused = m->unused;

		move_free(m);
		resume(x, d);
		if (!x->stopping && unused && dispatch_unused(d)) {
			dispatch_free_record(x, d);
		}
	} else if (m->to == x->index) {
		dispatch_attach(x, d, m);
		resume(x, d);
	} else {
		depart(x, m);
	}
}

/* What waited for it may be in somebody's hands, as an operator's are. */
static void on_return(struct agent *self, void *object, uint64_t index)
{
	struct move *m = object;
	struct dispatcher *x = m->from->peers[index];
	struct domain *place = domain_find(&x->domains, m->domain->binding, m->domain->name);

	ASSERT(x->self == self && place != NULL && place->travel == DOMAIN_EXPECTED);
	relocate_note_progress(x, place);
	if (is_quiet(place) && !place->travel_posted) {
		take_place(x, place, m);
	} else {
		place->move = m;
		move_review(place);
	}
}

/* On the home of the site: whatever was sent after the record is here. */
static void on_released(struct agent *self, void *object, uint64_t first)
{
	struct move *m = object;

	ASSERT(m->from->self == self && m->domain->travel == DOMAIN_ASKING);
	/* Who has the place: the layout may have changed since it was asked for. */
	m->first = (uint32_t)first;
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

	ASSERT(x->self == self);
	if (f != NULL && f->home != m->from->index) {
		/* The entry went to another first home, with a new layout. */
		agent_send(self, agent_of(x, f->home), on_ask, m, f->home);
		return;
	}
	/* While records settle, one without an entry is where it was under the layout before. */
	if (f != NULL) {
		forward_remove(&x->forwards, f);
	}
	ASSERT(domain_find(&x->domains, away->binding, away->name) == NULL);
	place = dispatch_find(x, away->binding, away->name);
	place->travel = DOMAIN_EXPECTED;
	dispatch_hold(place, DOMAIN_MOVING);
	agent_send(self, m->from->self, on_released, m, x->index);
}

/* ---- when it can go ---- */

static void ask(struct dispatcher *x, struct move *m)
{
	m->from = x;
	m->domain->travel = DOMAIN_ASKING;
	count_begun(x, m);
	agent_send(x->self, agent_of(x, m->first), on_ask, m, m->first);
}

static void go_home(struct dispatcher *x, struct move *m)
{
	/* Counted since it asked. */
	count_ended(x, m->layout);
	let_go(x, m);
	relocate_note_departure(x, m);
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
	} else if (d->travel == DOMAIN_EXPECTED && d->move != NULL) {
		take_place(x, d, d->move);
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
	bool may_go = d->travel == DOMAIN_LEAVING || d->travel == DOMAIN_RELEASED ||
		      (d->travel == DOMAIN_EXPECTED && d->move != NULL);

	if (may_go && is_quiet(d) && !d->travel_posted) {
		d->travel_posted = true;
		agent_send(x->self, x->self, on_quiet, d, 0);
	}
}

void move_home(struct dispatcher *x, struct domain *d, bool unused)
{
	struct move *m = check_memory(calloc(1, sizeof(*m)), "a record that moves");

	m->domain = d;
	m->unused = unused;
	m->first = dispatch_home(x, d->hash);
	m->to = m->first;
	move_begin(x, m);
}

void move_begin(struct dispatcher *x, struct move *m)
{
	struct domain *d = m->domain;

	ASSERT(d->travel == DOMAIN_AT_HOME && d->move == NULL);
	m->from = x;
	m->layout = x->layout;
	m->generation = x->generation;
	d->travel = DOMAIN_LEAVING;
	d->move = m;
	dispatch_hold(d, DOMAIN_MOVING);
	dispatch_detach(x, d);
	move_review(d);
}
