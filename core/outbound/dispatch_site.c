/*
 * What a site sends and opens: domains that have mail take turns within their lane, lanes that want
 * connections take turns within their site, and every limit is looked at here, at the moment when
 * something is sent or opened.
 *
 * Start reading at dispatch_lane(), last in this file.
 */
#include <stdlib.h>
#include <string.h>

#include "core/outbound/bind_address.h"
#include "core/outbound/connection.h"
#include "core/outbound/dispatch_parts.h"
#include "core/outbound/host_list.h"
#include "core/outbound/obstacle.h"
#include "core/runtime/check.h"

/* What a connection carries before a lane of the same site that waits for a place gets its own. */
#define YIELD_TRANSACTIONS 20

/* ---- what was read back ---- */

static void load_take(struct connection *c, uint64_t bytes)
{
	c->loaded_bytes = bytes;
	c->lane->site->loaded_bytes += bytes;
	atomic_fetch_add_explicit(&c->dispatcher->limits->loaded_bytes, bytes,
				  memory_order_relaxed);
}

void dispatch_on_unloaded(struct connection *c)
{
	c->lane->site->loaded_bytes -= c->loaded_bytes;
	atomic_fetch_sub_explicit(&c->dispatcher->limits->loaded_bytes, c->loaded_bytes,
				  memory_order_relaxed);
	c->loaded_bytes = 0;
}

/* ---- holds ---- */

/* Of the site, until something happens; or until then, 0 for that. */
static void hold_site(struct site *s, enum domain_hold why, uint64_t until_ms)
{
	s->hold = (uint8_t)why;
	s->hold_until_ms = until_ms;
	if (until_ms != 0) {
		timer_arm(&s->hold_timer, until_ms);
	} else if (timer_armed(&s->hold_timer)) {
		timer_cancel(&s->hold_timer);
	}
}

/* The domain leaves the ring, until something happens; or until then. */
static void hold_domain(struct domain *d, enum domain_hold why, uint64_t until_ms)
{
	lane_remove_ready(d);
	if (until_ms != 0) {
		dispatch_hold_until(d, why, until_ms);
	} else {
		dispatch_hold(d, why);
	}
}

/* Mail in a ring that does not move expires too: some of it, each time that it is looked at. */
static void expire_some(struct dispatcher *x, struct lane *l)
{
	for (int i = 0; i < DISPATCH_SLICE && l->ready != NULL; i++) {
		struct domain *d = l->ready;

		lane_turn(l);
		dispatch_expire(x, d);
		if (d->active_head == NULL && lane_is_ready(d)) {
			lane_remove_ready(d);
			dispatch_rest(x, d);
		}
	}
}

static void on_site_timer(struct timer *t)
{
	struct site *s = CONTAINER_OF(t, struct site, hold_timer);
	struct lane *next;

	s->hold_until_ms = 0;
	s->hold = DOMAIN_FREE;
	s->busy = true;
	for (struct lane *l = s->lanes; l != NULL; l = l->next) {
		expire_some(s->owner, l);
	}
	s->busy = false;
	/* A lane with mail keeps the site; but the first that is held back holds all. */
	for (struct lane *l = s->lanes; l != NULL; l = next) {
		next = l->next;
		if (l->ready != NULL) {
			dispatch_lane(s->owner, l);
		}
		if (next != NULL && s->hold != DOMAIN_FREE) {
			return;
		}
	}
}

void dispatch_site_go(struct site *s)
{
	timer_cancel(&s->hold_timer);
	on_site_timer(&s->hold_timer);
}

static void on_down_timer(struct timer *t)
{
	struct lane *l = CONTAINER_OF(t, struct lane, down_timer);
	struct dispatcher *x = l->site->owner;

	/* Over, whatever this group's clock says: nobody would ring again. */
	l->down_until_ms = 0;
	l->site->busy = true;
	expire_some(x, l);
	l->site->busy = false;
	dispatch_lane(x, l);
}

void dispatch_adopt_site(struct dispatcher *x, struct site *s)
{
	s->owner = x;
	timer_init(&s->hold_timer, x->self, on_site_timer);
	counter_set_value(x->sites_open, x->sites.count);
}

void dispatch_adopt_lane(struct dispatcher *x, struct lane *l)
{
	timer_init(&l->down_timer, x->self, on_down_timer);
}

void dispatch_lane_down(struct dispatcher *x, struct lane *l, enum domain_hold why,
			uint64_t until_ms)
{
	(void)x;
	l->down_why = (uint8_t)why;
	l->down_until_ms = until_ms;
	timer_arm(&l->down_timer, until_ms);
	lane_set_hunger(l, LANE_SATED);
}

void dispatch_lane_failed(struct dispatcher *x, struct lane *l, enum domain_hold why,
			  uint64_t until_ms, const struct attempt *a)
{
	struct domain *d = l->ready;

	dispatch_lane_down(x, l, why, until_ms);
	if (d != NULL && d->active_head != NULL) {
		struct delivery *delivery = domain_pop_active(&x->domains, d);

		lane_turn(l);
		dispatch_without_connection(x, delivery, a, false);
	}
}

void dispatch_lane_forgive(struct lane *l)
{
	for (uint32_t i = 0; i < l->host_count; i++) {
		l->hosts[i].failed_until_ms = 0;
		l->hosts[i].plain_until_ms = 0;
		l->hosts[i].plain_owed = false;
	}
	l->down_until_ms = 0;
	timer_cancel(&l->down_timer);
}

/* ---- connections ---- */

bool dispatch_lane_works(const struct lane *l)
{
	const struct connection *c = l->site->connections;

	while (c != NULL &&
	       (c->lane != l || c->state < CONNECTION_IDLE || c->state > CONNECTION_RSET)) {
		c = c->site_next;
	}
	return c != NULL;
}

void dispatch_count_for(struct connection *c, struct domain *d)
{
	struct domain *old = c->domain;

	if (old == d) {
		return;
	}
	if (old != NULL) {
		*(c->prev != NULL ? &c->prev->next : &old->connections) = c->next;
		if (c->next != NULL) {
			c->next->prev = c->prev;
		}
		old->connection_count--;
	}
	c->domain = d;
	if (d != NULL) {
		c->prev = NULL;
		c->next = d->connections;
		if (c->next != NULL) {
			c->next->prev = c;
		}
		d->connections = c;
		d->connection_count++;
		if (d->connection_count > d->connections_max) {
			d->connections_max = d->connection_count;
		}
	}
	if (old != NULL && (old->hold == DOMAIN_CONNECTIONS || old->travel != DOMAIN_AT_HOME)) {
		dispatch_domain(c->dispatcher, old);
	} else if (old != NULL) {
		dispatch_rest(c->dispatcher, old);
	}
}

enum domain_hold dispatch_why_hosts_fail(const struct lane *l)
{
	return dispatch_lane_works(l) ? DOMAIN_PEER_LIMIT
	       : host_all_lack_tls(l) ? DOMAIN_TLS_POLICY
				      : DOMAIN_HOSTS_DOWN;
}

static void connection_link(struct dispatcher *x, struct lane *l, struct connection *c,
			    struct host *host)
{
	struct site *s = l->site;

	c->site_prev = NULL;
	c->site_next = s->connections;
	if (c->site_next != NULL) {
		c->site_next->site_prev = c;
	}
	s->connections = c;
	s->connection_count++;
	s->connections_opened++;
	if (s->connection_count > s->connections_max) {
		s->connections_max = s->connection_count;
	}
	l->connection_count++;
	host->connections++;
	x->connection_count++;
	counter_inc(x->connections_opened);
	counter_set_value(x->connections_open, x->connection_count);
}

void dispatch_give_up(struct connection *c)
{
	if (c->state == CONNECTION_IDLE) {
		connection_quit(c);
	} else if (c->delivery == NULL && c->state < CONNECTION_IDLE) {
		connection_drop(c);
	}
}

/* Frees `only` (NULL: each lane) that has no domains and connections, then the site if that was the
 * last. */
static void clean_site(struct dispatcher *x, struct site *s, struct lane *only)
{
	struct lane *next;

	s->stale = false;
	for (struct lane *l = only != NULL ? only : s->lanes; l != NULL; l = next) {
		next = only != NULL ? NULL : l->next;
		if (l->domain_count == 0 && l->connection_count == 0) {
			timer_cancel(&l->down_timer);
			lane_destroy(l);
		}
	}
	if (s->lanes == NULL) {
		timer_cancel(&s->hold_timer);
		relocate_site_gone(x, s);
		site_destroy(&x->sites, s);
		counter_set_value(x->sites_open, x->sites.count);
	}
}

void dispatch_clean(struct dispatcher *x, struct lane *l)
{
	if (l->site->busy) {
		l->site->stale = true;
	} else {
		clean_site(x, l->site, l);
	}
}

void dispatch_clean_site(struct dispatcher *x, struct site *s)
{
	clean_site(x, s, NULL);
}

/* ---- sending ---- */

static void assign(struct dispatcher *x, struct domain *d, struct connection *c)
{
	struct delivery *delivery = domain_pop_active(&x->domains, d);
	bool loading = !delivery->uses_content;

	if (d->active_head == NULL) {
		lane_remove_ready(d);
	} else {
		lane_turn(d->lane);
	}
	delivery->place = DELIVERY_ATTEMPT;
	d->attempt_count++;
	dispatch_count_for(c, d);
	connection_assign(c, delivery, loading);
	if (loading) {
		load_take(c, message_content_bytes(delivery->message));
		x->ops->load(x, delivery);
	}
}

/* The site is full, and this lane has no connection to be idle: one that nobody needs gives way. */
static void make_room(const struct lane *l)
{
	if (l->connection_count != 0) {
		return;
	}
	for (struct connection *c = l->site->connections; c != NULL; c = c->site_next) {
		if (c->state == CONNECTION_IDLE && c->lane->ready == NULL) {
			connection_quit(c);
			return;
		}
	}
}

static void count_obstacle(struct dispatcher *x, enum domain_hold why)
{
	if (why != DOMAIN_MOVING) {
		counter_inc(why == DOMAIN_CONNECTIONS          ? x->held_by_connections
			    : why == DOMAIN_MEMORY             ? x->held_by_memory
			    : why == DOMAIN_SERVER_CONNECTIONS ? x->held_by_server
							       : x->throttled);
	}
}

/* Notes what is in the way; true when others of the site may go on. */
static bool held_back(struct dispatcher *x, struct domain *d, const struct obstacle *o)
{
	count_obstacle(x, o->why);
	if (o->scope == OBSTACLE_OF_DOMAIN) {
		hold_domain(d, o->why, o->until_ms);
		return true;
	}
	if (o->why == DOMAIN_CONNECTIONS) {
		make_room(d->lane);
	}
	hold_site(d->lane->site, o->why, o->until_ms);
	return false;
}

/* The first of the ring has its turn. False when the site has to wait. */
static bool feed_one(struct dispatcher *x, struct lane *l)
{
	struct domain *d = l->ready;
	struct obstacle o = {.why = DOMAIN_FREE};
	struct connection *c;

	dispatch_expire(x, d);
	if (d->active_head == NULL) {
		lane_remove_ready(d);
		dispatch_rest(x, d);
		return true;
	}
	c = obstacle_idle_for(l, d);
	if (c == NULL) {
		obstacle_own_connections(d, &o);
		return held_back(x, d, &o);
	}
	if (obstacle_to_sending(x, d, &o)) {
		return held_back(x, d, &o);
	}
	assign(x, d, c);
	return true;
}

/* ---- opening ---- */

static void review_hunger(const struct dispatcher *x, struct lane *l)
{
	bool wants = !x->stopping && l->down_until_ms == 0 && !obstacle_lane_is_served(l);

	lane_set_hunger(l, !wants                     ? LANE_SATED
			   : l->connection_count == 0 ? LANE_STARVING
						      : LANE_HUNGRY);
}

/* max_outbound_connections was lowered, and too few of those above it are closing. */
static bool is_over_its_limit(const struct site *s)
{
	uint32_t staying = 0;

	if (s->connection_count <= s->options->max_outbound_connections) {
		return false;
	}
	for (const struct connection *c = s->connections; c != NULL; c = c->site_next) {
		staying += c->state < CONNECTION_QUIT;
	}
	return staying > s->options->max_outbound_connections;
}

bool dispatch_must_yield(const struct connection *c)
{
	const struct site *s = c->lane->site;

	return c->lane->retired || is_over_its_limit(s) ||
	       (s->hungry[LANE_STARVING] != NULL &&
		s->connection_count >= s->options->max_outbound_connections &&
		(c->lane->ready == NULL ||
		 (c->transactions > 0 && c->transactions % YIELD_TRANSACTIONS == 0)));
}

/* The first of the ring may have a connection opened for it; NULL: the ring has changed. */
static struct domain *next_to_open(struct dispatcher *x, struct lane *l)
{
	struct domain *d = l->ready;

	if (d->active_head == NULL) {
		lane_remove_ready(d);
		return NULL;
	}
	if (!dispatch_hosts_known(x, d)) {
		if (d->lane == l && d->resolving) {
			hold_domain(d, DOMAIN_RESOLVING, 0);
		}
		return NULL;
	}
	return d->lane == l ? d : NULL;
}

/* Hosts cannot be reached from bind_address until then. Where connections work, they go on. */
static void held_by_bind_address(struct dispatcher *x, struct lane *l, const struct attempt *a,
				 uint64_t until_ms)
{
	lane_set_trouble(l, a->text);
	if (dispatch_lane_works(l)) {
		dispatch_lane_down(x, l, DOMAIN_BIND_ADDRESS, until_ms);
	} else {
		dispatch_lane_failed(x, l, DOMAIN_BIND_ADDRESS, until_ms, a);
	}
}

/* No host is to be tried now: each has failed, or, UINT64_MAX, there is no bind_address of their
 * family. */
static void no_host(struct dispatcher *x, struct lane *l, uint64_t until_ms)
{
	struct attempt a;

	if (until_ms != UINT64_MAX) {
		dispatch_lane_down(x, l, dispatch_why_hosts_fail(l), until_ms);
		return;
	}
	counter_inc(x->bind_failures);
	a = bind_address_trouble(l, NULL, 0);
	held_by_bind_address(x, l, &a, dispatch_now_ms(x) + l->options->host_failure_retry_ms);
}

/* There is no socket. When that is because of bind_address, the host is left alone for a while, and
 * the next one has its turn. False when the site has to wait. */
static bool cannot_open(struct dispatcher *x, struct lane *l, struct host *host, int error)
{
	struct attempt a;
	uint64_t until_ms;

	dispatch_return_limit(x);
	if (!bind_address_is_wrong(l->options, error)) {
		agent_error(x->self, error, "cannot make a socket for an outbound connection");
		hold_site(l->site, DOMAIN_SERVER_CONNECTIONS, dispatch_now_ms(x) + 1000);
		return false;
	}
	counter_inc(x->bind_failures);
	a = bind_address_trouble(l, host, error);
	agent_error(x->self, error, "%s", a.text);
	host_fail(host, dispatch_now_ms(x) + l->options->host_failure_retry_ms, a.text, false);
	if (host_choose(l, dispatch_now_ms(x), &until_ms) == NULL) {
		held_by_bind_address(x, l, &a, until_ms);
	}
	return true;
}

/* Opens one more connection of a lane that wants one; false when the site has to wait. */
static bool open_one(struct dispatcher *x, struct lane *l)
{
	struct domain *d = next_to_open(x, l);
	struct connection *c;
	struct obstacle o;
	uint64_t until_ms;
	struct host *host;
	int error;

	if (d == NULL) {
		return true;
	}
	host = host_choose(l, dispatch_now_ms(x), &until_ms);
	if (host == NULL) {
		no_host(x, l, until_ms);
		return true;
	}
	if (obstacle_to_opening(x, d, &o)) {
		return held_back(x, d, &o);
	}
	c = connection_open(x, l, host, &error);
	if (c == NULL) {
		return cannot_open(x, l, host, error);
	}
	connection_link(x, l, c, host);
	dispatch_count_for(c, d);
	d->connections_opened++;
	if (x->tracing) {
		x->ops->trace(x, c);
	}
	lane_turn(l);
	return true;
}

static void open_some(struct dispatcher *x, struct site *s)
{
	struct lane *l;

	while ((l = site_hungry(s)) != NULL) {
		if (l->ready != NULL && !open_one(x, l)) {
			return;
		}
		review_hunger(x, l);
		site_turn(s, l);
	}
}

void dispatch_lane(struct dispatcher *x, struct lane *l)
{
	struct site *s = l->site;

	CHECK_MAGIC(s, SITE_MAGIC);
	OWNER_CHECK(s);
	if (s->busy) {
		s->again = true;
		return;
	}
	s->busy = true;
	do {
		bool fed = true;

		s->again = false;
		while (fed && !x->stopping && l->ready != NULL && l->idle != NULL) {
			fed = feed_one(x, l);
		}
		if (fed && !x->stopping) {
			hold_site(s, DOMAIN_FREE, 0);
			review_hunger(x, l);
			open_some(x, s);
		}
	} while (s->again);
	s->busy = false;
	clean_site(x, s, s->stale ? NULL : l);
}
