#include "core/outbound/dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "core/outbound/connection.h"
#include "core/outbound/connection_tls.h"
#include "core/outbound/dispatch_parts.h"
#include "core/outbound/obstacle.h"
#include "core/queue/retry.h"
#include "core/runtime/check.h"
#include "core/runtime/text.h"

/* A record in which nothing has happened for so long is freed. */
#define RECORD_KEEP_MS 600000
/* A suspended queue is looked at once in this time: what waits may expire. */
#define SUSPENDED_LOOK_MS 60000

static const char *const expired_text = "554 5.4.7 [internal] exceeded max time without delivery";

uint64_t dispatch_now_ms(const struct dispatcher *x)
{
	return agent_now_ms(x->self);
}

static void create_route_counters(struct dispatcher *x)
{
	static const char *const names[ROUTE_RESULTS][2] = {
		[ROUTE_HOSTS] = {"outbound.route_found", "Look-ups of next hops that found some"},
		[ROUTE_NXDOMAIN] = {"outbound.route_nxdomain", "... domains that do not exist"},
		[ROUTE_NULL_MX] = {"outbound.route_null_mx", "... domains that take no mail"},
		[ROUTE_NO_ADDRESS] = {"outbound.route_no_address", "... domains without addresses"},
		[ROUTE_LOOP] = {"outbound.route_loop", "... domains that are this machine's"},
		[ROUTE_BAD_LITERAL] = {"outbound.route_bad_literal", "... literals, no addresses"},
		[ROUTE_SERVFAIL] = {"outbound.route_servfail", "... the name service failed"},
		[ROUTE_BOGUS] = {"outbound.route_bogus", "... DNSSEC validation failed"},
		[ROUTE_TIMEOUT] = {"outbound.route_timeout", "... no answer in time"},
		[ROUTE_DANE] = {"outbound.route_dane", "... TLSA records failed, or are missing"},
		[ROUTE_STS] = {"outbound.route_sts", "... no exchanger that MTA-STS permits"},
		[ROUTE_CANCELLED] = {"outbound.route_cancelled", "... given up at the stop"},
	};
	struct counter_set *set = x->self->counters;

	for (int i = 0; i < ROUTE_RESULTS; i++) {
		x->routes[i] = counter_create(set, names[i][0], COUNTER_SUM, names[i][1]);
	}
	x->mx_aliases = counter_create(set, "outbound.mx_alias", COUNTER_SUM,
				       "Next hops whose name is an alias (CNAME)");
	x->mx_dead = counter_create(set, "outbound.mx_dead", COUNTER_SUM,
				    "Next hops whose name had no address");
	x->mx_literals = counter_create(set, "outbound.mx_literal", COUNTER_SUM,
					"Mail exchangers left out, being addresses");
}

void dispatcher_init(struct dispatcher *x, struct agent *self, const struct dispatch_ops *ops,
		     struct mail_pools *pools, struct outbound_limits *limits)
{
	memset(x, 0, sizeof *x);
	x->self = self;
	x->ops = ops;
	x->pools = pools;
	x->limits = limits;
	x->peer_count = 1;
	binding_table_init(&x->bindings);
	timer_init(&x->bindings_timer, self, dispatch_on_bindings_timer);
	domain_table_init(&x->domains);
	site_table_init(&x->sites);
	forward_table_init(&x->forwards);
	pool_init(&x->connections, "outbound connection", sizeof(struct connection), 256);
	x->connections_opened = counter_create(self->counters, "outbound.opened", COUNTER_SUM,
					       "Outbound connections opened");
	x->connections_open = counter_create(self->counters, "outbound.open", COUNTER_GAUGE,
					     "Outbound connections open now");
	x->connect_failures =
		counter_create(self->counters, "outbound.setup_failed", COUNTER_SUM,
			       "Outbound connections that failed before EHLO was done");
	x->throttled = counter_create(self->counters, "outbound.throttled", COUNTER_SUM,
				      "Times an outbound throttle told a domain to wait");
	x->held_by_connections =
		counter_create(self->counters, "outbound.held_by_connections", COUNTER_SUM,
			       "Times a domain had its max_outbound_connections");
	x->held_by_server = counter_create(self->counters, "outbound.held_by_server", COUNTER_SUM,
					   "Times server_max_outbound_connections were open");
	x->held_by_memory =
		counter_create(self->counters, "outbound.held_by_memory", COUNTER_SUM,
			       "Times a domain had to wait for room to read a body back");
	x->moved = counter_create(self->counters, "outbound.moves", COUNTER_SUM,
				  "Domain records that went to another scheduler");
	x->forwarded = counter_create(self->counters, "outbound.forwarded", COUNTER_SUM,
				      "Deliveries sent after a record that is away");
	x->sites_open = counter_create(self->counters, "outbound.sites", COUNTER_GAUGE,
				       "Sites that mail goes to now");
	x->commands_pipelined = counter_create(self->counters, "outbound.pipelined", COUNTER_SUM,
					       "SMTP commands sent without waiting for a reply");
	create_route_counters(x);
	x->bind_failures =
		counter_create(self->counters, "outbound.bind_failed", COUNTER_SUM,
			       "Times bind_address could not be used, or next hops were all of "
			       "another family");
	x->reused = counter_create(self->counters, "outbound.reused", COUNTER_SUM,
				   "Transactions on a connection that had carried one before");
	connection_tls_init(x);
}

void dispatcher_join(struct dispatcher *x, struct dispatcher *const *peers, uint32_t count,
		     uint32_t index)
{
	ASSERT(x->domains.count == 0 && peers[index] == x);
	x->peers = peers;
	x->peer_count = count;
	x->index = index;
}

/* ---- holds ---- */

void dispatch_hold(struct domain *d, enum domain_hold why)
{
	if (d->hold != DOMAIN_FREE) {
		/* When it is free the timer is that of its rest, which costs nothing. */
		timer_cancel(&d->hold_timer);
	}
	d->hold = (uint8_t)why;
	d->hold_until_ms = 0;
}

void dispatch_hold_until(struct domain *d, enum domain_hold why, uint64_t until_ms)
{
	d->hold = (uint8_t)why;
	d->hold_until_ms = until_ms;
	timer_arm(&d->hold_timer, until_ms);
}

enum domain_hold dispatch_held(const struct domain *d, uint64_t *until_ms, const char **scope)
{
	const struct lane *l = d->lane;

	*scope = "domain";
	*until_ms = d->hold_until_ms;
	if (d->hold != DOMAIN_FREE || l == NULL) {
		return (enum domain_hold)d->hold;
	}
	if (l->down_until_ms != 0) {
		*scope = "lane";
		*until_ms = l->down_until_ms;
		return (enum domain_hold)l->down_why;
	}
	*scope = "site";
	*until_ms = l->site->hold_until_ms;
	return (enum domain_hold)l->site->hold;
}

const char *dispatch_trouble(const struct domain *d)
{
	return d->trouble != NULL ? d->trouble : d->lane != NULL ? d->lane->trouble : NULL;
}

bool dispatch_unused(const struct domain *d)
{
	return d->active_count == 0 && d->delayed_count == 0 && d->held_count == 0 &&
	       d->attempt_count == 0 && d->settling_count == 0 && d->writing_count == 0 &&
	       d->sweeps == 0 && d->connection_count == 0 && !d->resolving &&
	       d->travel == DOMAIN_AT_HOME && !d->travel_posted &&
	       d->suspended == dispatch_begins_suspended(d) && d->suspension == NULL;
}

void dispatch_rest(struct dispatcher *x, struct domain *d)
{
	if (dispatch_unused(d)) {
		d->unused_since_ms = dispatch_now_ms(x);
		if (!timer_armed(&d->hold_timer)) {
			timer_arm(&d->hold_timer, d->unused_since_ms + RECORD_KEEP_MS);
		}
	}
}

void dispatch_free_record(struct dispatcher *x, struct domain *d)
{
	timer_cancel(&d->hold_timer);
	timer_cancel(&d->delayed_timer);
	dispatch_detach(x, d);
	domain_destroy(&x->domains, d);
}

/* Nothing has happened for long: away from its first home, that one frees it. */
static void end_rest(struct dispatcher *x, struct domain *d)
{
	uint64_t until_ms = d->unused_since_ms + RECORD_KEEP_MS;

	if (d->hold != DOMAIN_NO_ROUTE && until_ms > dispatch_now_ms(x) + 1) {
		timer_arm(&d->hold_timer, until_ms);
	} else if (dispatch_home(x, d->hash) == x->index) {
		dispatch_free_record(x, d);
	} else if (!x->stopping) {
		move_home(x, d, true);
	}
}

static void on_hold_timer(struct timer *t)
{
	struct domain *d = CONTAINER_OF(t, struct domain, hold_timer);

	/* Over, whatever this group's clock says: nobody would ring again. */
	d->hold_until_ms = 0;
	if (dispatch_unused(d)) {
		end_rest(d->owner, d);
	} else {
		dispatch_domain(d->owner, d);
	}
}

/* ---- attempts that need no connection ---- */

void dispatch_without_connection(struct dispatcher *x, struct delivery *delivery,
				 const struct attempt *model, bool permanent)
{
	struct attempt a = *model;

	a.delivered = (struct recipient_set){{0, 0}};
	if (permanent) {
		a.failed = delivery->pending;
	} else {
		a.deferred = delivery->pending;
	}
	x->ops->on_attempt(x, delivery->domain, delivery, &a);
}

void dispatch_expire(struct dispatcher *x, struct domain *d)
{
	for (int i = 0; i < DISPATCH_SLICE && d->active_head != NULL; i++) {
		struct delivery *oldest = domain_oldest_active(d);
		struct attempt a;

		if (!retry_expired(d->options, oldest->message->received_ms,
				   agent_wall_ms(x->self))) {
			return;
		}
		a = dispatch_attempt_text(554, "5.4.7", expired_text);
		a.given_up = ATTEMPT_TOO_OLD;
		domain_remove(&x->domains, d, oldest);
		dispatch_without_connection(x, oldest, &a, true);
	}
}

/* ---- the decision ---- */

/* Its timer looks again at the end of the order, and before, as what waits may expire. A record
 * without mail that its binding keeps back is found out about when mail comes. */
static void hold_till_its_end(struct dispatcher *x, struct domain *d, const struct obstacle *o)
{
	uint64_t look_ms = dispatch_now_ms(x) + SUSPENDED_LOOK_MS;

	if (o->why == DOMAIN_BINDING_SUSPENDED && d->active_head == NULL) {
		dispatch_hold(d, DOMAIN_FREE);
		dispatch_rest(x, d);
		return;
	}
	dispatch_hold_until(d, o->why, o->until_ms < look_ms ? o->until_ms : look_ms);
}

static bool is_order(enum domain_hold why)
{
	return why == DOMAIN_SUSPENDED || why == DOMAIN_BINDING_SUSPENDED;
}

/* Nothing may be sent, whatever its lane has. */
static bool held_for_good(struct dispatcher *x, struct domain *d)
{
	struct obstacle o;

	if (!obstacle_to_record(x, d, &o)) {
		return false;
	}
	if (o.why == DOMAIN_NO_ROUTE) {
		dispatch_refuse_active(x, d);
	} else if (is_order(o.why) && o.until_ms != 0) {
		hold_till_its_end(x, d, &o);
	} else if (o.until_ms == 0) {
		dispatch_hold(d, o.why);
		if (!x->stopping && d->active_head != NULL) {
			timer_arm(&d->hold_timer, dispatch_now_ms(x) + SUSPENDED_LOOK_MS);
		} else if (!x->stopping) {
			dispatch_rest(x, d);
		}
	}
	return true;
}

/*
 * A domain's turn: with mail to send, and next hops that are known, it enters the ring of its lane,
 * and the lane sends what may be sent. What keeps it out of the ring is in d->hold.
 */
void dispatch_domain(struct dispatcher *x, struct domain *d)
{
	CHECK_MAGIC(d, DOMAIN_MAGIC);
	OWNER_CHECK(d);
	if (d->travel != DOMAIN_AT_HOME) {
		move_review(d);
		return;
	}
	dispatch_expire(x, d);
	dispatch_end_suspension(x, d);
	if (held_for_good(x, d)) {
		if (d->lane != NULL) {
			lane_remove_ready(d);
		}
		return;
	}
	dispatch_hold(d, DOMAIN_FREE);
	if (d->active_head == NULL) {
		dispatch_rest(x, d);
		return;
	}
	if (!dispatch_hosts_known(x, d)) {
		/* That may have said no, or sent it away. While it is asked again, open connections
		 * go on. */
		if (d->resolving && (d->lane == NULL || d->lane->idle == NULL)) {
			dispatch_hold(d, DOMAIN_RESOLVING);
		}
		if (!d->resolving || d->lane == NULL || d->lane->idle == NULL) {
			if (d->lane != NULL) {
				lane_remove_ready(d);
			}
			return;
		}
	}
	lane_push_ready(d);
	dispatch_lane(x, d->lane);
}

/* ---- what the host asks for ---- */

/* One timer for the earliest: due times are wall clock, timers monotonic. */
void dispatch_arm_delayed(struct dispatcher *x, struct domain *d)
{
	const struct delivery *first = domain_peek_delayed(d);
	const struct delivery *held = domain_peek_held(d);
	uint64_t wall_ms = agent_wall_ms(x->self);
	uint64_t due_ms = first != NULL ? first->due_ms : UINT64_MAX;

	if (held != NULL) {
		uint64_t end_ms = held->message->received_ms + d->options->message_expiration_ms;

		due_ms = end_ms < due_ms ? end_ms : due_ms;
	}
	if (first == NULL && held == NULL) {
		timer_cancel(&d->delayed_timer);
		return;
	}
	timer_arm(&d->delayed_timer,
		  dispatch_now_ms(x) + (due_ms > wall_ms ? due_ms - wall_ms : 1));
}

/* To be held does not stop time. */
static void expire_held(struct dispatcher *x, struct domain *d)
{
	for (int i = 0; i < DISPATCH_SLICE; i++) {
		struct delivery *first = domain_peek_held(d);
		struct attempt a;

		if (first == NULL || !retry_expired(d->options, first->message->received_ms,
						    agent_wall_ms(x->self))) {
			return;
		}
		a = dispatch_attempt_text(554, "5.4.7", expired_text);
		a.given_up = ATTEMPT_TOO_OLD;
		domain_remove(&x->domains, d, first);
		first->held = false;
		dispatch_without_connection(x, first, &a, true);
	}
}

static void on_delayed_timer(struct timer *t)
{
	struct domain *d = CONTAINER_OF(t, struct domain, delayed_timer);
	struct dispatcher *x = d->owner;
	struct delivery *delivery;

	expire_held(x, d);
	for (int i = 0; i < DISPATCH_SLICE; i++) {
		delivery = domain_peek_delayed(d);
		if (delivery == NULL || delivery->due_ms > agent_wall_ms(x->self)) {
			break;
		}
		domain_remove(&x->domains, d, delivery);
		domain_push_active(&x->domains, d, delivery);
	}
	dispatch_arm_delayed(x, d);
	dispatch_domain(x, d);
}

void dispatch_adopt(struct dispatcher *x, struct domain *d)
{
	d->owner = x;
	/* A binding's record is the scheduler's. */
	d->binding_record = binding_open(&x->bindings, d->binding);
	d->binding = d->binding_record->name;
	timer_init(&d->delayed_timer, x->self, on_delayed_timer);
	timer_init(&d->hold_timer, x->self, on_hold_timer);
}

struct domain *dispatch_find(struct dispatcher *x, const char *binding, const char *domain)
{
	struct domain *d = domain_find(&x->domains, binding, domain);

	if (d == NULL) {
		struct binding_record *b = binding_open(&x->bindings, binding);

		d = domain_create(&x->domains, b->name, domain,
				  x->ops->options(x, b, domain, NULL));
		dispatch_adopt(x, d);
		d->suspended = dispatch_begins_suspended(d);
	}
	return d;
}

void dispatch_enqueue(struct dispatcher *x, struct domain *d, struct delivery *delivery)
{
	bool was_ready = lane_is_ready(d);

	domain_push_active(&x->domains, d, delivery);
	/* A domain, or a site, that is full or waits has nothing to decide. */
	if (d->lane != NULL && d->lane->idle == NULL && d->lane->site->hold != DOMAIN_FREE &&
	    was_ready) {
		return;
	}
	if (d->hold == DOMAIN_FREE || d->hold == DOMAIN_NO_ROUTE ||
	    (d->lane != NULL && d->lane->idle != NULL)) {
		dispatch_domain(x, d);
	}
}

void dispatch_delay(struct dispatcher *x, struct domain *d, struct delivery *delivery)
{
	domain_push_delayed(&x->domains, d, delivery);
	if (d->delayed[0] == delivery) {
		dispatch_arm_delayed(x, d);
	}
}

void dispatch_put_held(struct dispatcher *x, struct domain *d, struct delivery *delivery)
{
	domain_push_held(&x->domains, d, delivery);
	if (d->held[0] == delivery) {
		dispatch_arm_delayed(x, d);
	}
}

static void count_down(struct domain *d, uint32_t *count)
{
	ASSERT(*count > 0);
	(*count)--;
	move_review(d);
	dispatch_rest(d->owner, d);
}

void dispatch_settled(struct domain *d)
{
	count_down(d, &d->settling_count);
}

void dispatch_written(struct domain *d)
{
	count_down(d, &d->writing_count);
}

bool dispatch_drained(const struct dispatcher *x)
{
	return x->connection_count == 0 && x->moves == 0;
}

static void drop_queues(void *context, struct domain *d)
{
	struct dispatcher *x = context;
	struct delivery *delivery;

	timer_cancel(&d->hold_timer);
	timer_cancel(&d->delayed_timer);
	while ((delivery = domain_pop_active(&x->domains, d)) != NULL) {
		delivery_destroy(delivery, x->pools);
	}
	while ((delivery = domain_peek_delayed(d)) != NULL) {
		domain_remove(&x->domains, d, delivery);
		delivery_destroy(delivery, x->pools);
	}
	while ((delivery = domain_peek_held(d)) != NULL) {
		domain_remove(&x->domains, d, delivery);
		delivery_destroy(delivery, x->pools);
	}
	lane_leave(d);
	if (d->move != NULL) {
		move_free(d->move);
		d->move = NULL;
	}
}

static void drop_site(void *context, struct site *s)
{
	(void)context;
	timer_cancel(&s->hold_timer);
	for (struct lane *l = s->lanes; l != NULL; l = l->next) {
		timer_cancel(&l->down_timer);
	}
}

void dispatcher_drop(struct dispatcher *x)
{
	domain_each(&x->domains, drop_queues, x);
	site_each(&x->sites, drop_site, x);
}

void dispatcher_close(struct dispatcher *x)
{
	domain_table_close(&x->domains);
	relocate_close(x);
	site_table_close(&x->sites);
	forward_table_close(&x->forwards);
	binding_table_close(&x->bindings);
	pool_close(&x->connections);
	tls_sessions_close(&x->tls_sessions);
	tls_reports_close(&x->tls_reports);
}
