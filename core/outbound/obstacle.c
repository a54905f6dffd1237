#include "core/outbound/obstacle.h"

#include <string.h>

#include "core/outbound/connection.h"
#include "core/outbound/dispatch_parts.h"
#include "core/queue/throttle.h"

/* How long a site waits that a shared limit stands in the way of: others may make room. */
#define SHARED_LIMIT_MS 200
/* When memory is used up, each site may still read one message of this size back at a time. */
#define LOAD_SMALL_BYTES 65536

/* Looks at one thing; true: it is in the way, `*o` (all zero before) says how. */
typedef bool (*obstacle_fn)(const struct dispatcher *x, const struct domain *d, struct obstacle *o);

static bool first_of(const obstacle_fn *gates, const struct dispatcher *x, const struct domain *d,
		     struct obstacle *o)
{
	for (; *gates != NULL; gates++) {
		*o = (struct obstacle){.why = DOMAIN_FREE};
		if ((*gates)(x, d, o)) {
			return true;
		}
	}
	return false;
}

/* ---- of the record ---- */

static bool is_moving(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	(void)x;
	o->why = DOMAIN_MOVING;
	return d->travel != DOMAIN_AT_HOME;
}

static bool is_stopping(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	(void)d;
	o->why = DOMAIN_STOPPING;
	o->scope = OBSTACLE_OF_PROGRAM;
	return x->stopping;
}

/* Orders that end by themselves say so by the wall clock. At least a millisecond is left: whoever
 * asks again at its end finds that it is over. */
static uint64_t end_of(const struct dispatcher *x, const struct suspension *order)
{
	uint64_t end_ms = suspension_end_ms(order);
	uint64_t wall_ms = agent_wall_ms(x->self);

	if (end_ms == 0) {
		return 0;
	}
	return dispatch_now_ms(x) + (end_ms > wall_ms ? end_ms - wall_ms : 1);
}

static bool is_suspended(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	o->why = DOMAIN_SUSPENDED;
	o->until_ms = end_of(x, d->suspension);
	return d->suspended;
}

static bool is_binding_suspended(const struct dispatcher *x, const struct domain *d,
				 struct obstacle *o)
{
	o->why = DOMAIN_BINDING_SUSPENDED;
	o->until_ms = end_of(x, d->binding_record->suspension);
	o->scope = OBSTACLE_OF_BINDING;
	return d->binding_record->order == BINDING_SUSPENDED;
}

static bool is_refused(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	o->why = DOMAIN_NO_ROUTE;
	o->until_ms = d->hold_until_ms;
	return dispatch_is_refused(x, d);
}

/* The look-up failed, and there is no idle connection to go on with. */
static bool is_put_off(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	o->why = (enum domain_hold)d->hold;
	o->until_ms = d->hold_until_ms;
	return (d->hold == DOMAIN_UNRESOLVED || d->hold == DOMAIN_DNS_BOGUS ||
		d->hold == DOMAIN_DNS_TIMEOUT || d->hold == DOMAIN_TLS_POLICY) &&
	       d->hold_until_ms > dispatch_now_ms(x) && (d->lane == NULL || d->lane->idle == NULL);
}

static const obstacle_fn of_record[] = {is_moving,  is_stopping, is_suspended, is_binding_suspended,
					is_refused, is_put_off,  NULL};

bool obstacle_to_record(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	return first_of(of_record, x, d, o);
}

/* ---- of the lane ---- */

static bool is_resolving(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	(void)x;
	o->why = DOMAIN_RESOLVING;
	return d->resolving && (d->lane == NULL || d->lane->idle == NULL);
}

static bool is_down(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	const struct lane *l = d->lane;

	(void)x;
	if (l == NULL || l->down_until_ms == 0) {
		return false;
	}
	o->why = (enum domain_hold)l->down_why;
	o->scope = OBSTACLE_OF_LANE;
	o->until_ms = l->down_until_ms;
	return true;
}

bool obstacle_lane_is_served(const struct lane *l)
{
	/* At most one more than there are working ones, so that a dead host is probed by one and a
	 * good one is soon filled. */
	return l->waiting <= l->connecting_count ||
	       l->connecting_count > l->connection_count - l->connecting_count;
}

static bool is_opening(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	(void)x;
	if (d->lane == NULL || d->lane->connecting_count == 0) {
		return false;
	}
	o->why = DOMAIN_OPENING;
	o->scope = OBSTACLE_OF_LANE;
	o->in_use = d->lane->connecting_count;
	return obstacle_lane_is_served(d->lane);
}

/* ---- limits ---- */

struct connection *obstacle_idle_for(const struct lane *l, const struct domain *d)
{
	struct connection *c = l->idle;

	if (d->connection_count >= d->options->max_outbound_connections) {
		while (c != NULL && c->domain != d) {
			c = c->idle_next;
		}
	}
	return c;
}

static bool site_connections(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	const struct site *s;

	(void)x;
	if (d->lane == NULL) {
		return false;
	}
	s = d->lane->site;
	o->why = DOMAIN_CONNECTIONS;
	o->scope = OBSTACLE_OF_SITE;
	o->in_use = s->connection_count;
	o->limit = s->options->max_outbound_connections;
	return o->in_use >= o->limit;
}

void obstacle_own_connections(const struct domain *d, struct obstacle *o)
{
	*o = (struct obstacle){
		.why = DOMAIN_CONNECTIONS,
		.scope = OBSTACLE_OF_DOMAIN,
		.in_use = d->connection_count,
		.limit = d->options->max_outbound_connections,
	};
}

static bool own_connections(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	(void)x;
	obstacle_own_connections(d, o);
	return o->in_use >= o->limit;
}

static const struct throttle *site_throttle(const struct domain *d, enum domain_hold why)
{
	const struct domain_options *options = d->lane != NULL ? d->lane->site->options : NULL;

	return options == NULL                   ? NULL
	       : why == DOMAIN_THROTTLE_MESSAGES ? options->throttle_messages
						 : options->throttle_connections;
}

/* NULL: there is none, or it is the site's. */
static const struct throttle *own_throttle(const struct domain *d, enum domain_hold why)
{
	const struct throttle *t = why == DOMAIN_THROTTLE_MESSAGES
					   ? d->options->throttle_messages
					   : d->options->throttle_connections;

	return !throttle_same_slot(t, site_throttle(d, why)) ? t : NULL;
}

/* What a throttle that says to wait for so long stands for. */
static bool throttled(const struct dispatcher *x, const struct throttle *t, uint64_t wait_ns,
		      enum domain_hold why, enum obstacle_scope scope, struct obstacle *o)
{
	*o = (struct obstacle){
		.why = why,
		.scope = scope,
		.throttle = t,
		.wait_ns = wait_ns,
		.until_ms = dispatch_now_ms(x) + wait_ns / NS_PER_MS + 1,
	};
	return wait_ns != 0;
}

static bool throttle_waits(const struct dispatcher *x, const struct throttle *t,
			   enum domain_hold why, enum obstacle_scope scope, struct obstacle *o)
{
	return t != NULL &&
	       throttled(x, t, throttle_wait_ns(t, x->self->now.mono_ns), why, scope, o);
}

static bool site_messages(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	return throttle_waits(x, site_throttle(d, DOMAIN_THROTTLE_MESSAGES),
			      DOMAIN_THROTTLE_MESSAGES, OBSTACLE_OF_SITE, o);
}

static bool own_messages(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	return throttle_waits(x, own_throttle(d, DOMAIN_THROTTLE_MESSAGES),
			      DOMAIN_THROTTLE_MESSAGES, OBSTACLE_OF_DOMAIN, o);
}

static bool site_connection_rate(const struct dispatcher *x, const struct domain *d,
				 struct obstacle *o)
{
	return throttle_waits(x, site_throttle(d, DOMAIN_THROTTLE_CONNECTIONS),
			      DOMAIN_THROTTLE_CONNECTIONS, OBSTACLE_OF_SITE, o);
}

static bool own_connection_rate(const struct dispatcher *x, const struct domain *d,
				struct obstacle *o)
{
	return throttle_waits(x, own_throttle(d, DOMAIN_THROTTLE_CONNECTIONS),
			      DOMAIN_THROTTLE_CONNECTIONS, OBSTACLE_OF_DOMAIN, o);
}

/*
 * Whether there is room to read content of `bytes` back for `s`. Peers that do not take theirs keep
 * them for long, so one site gets half of the room, the other half is for those that have little of
 * it, and even when all is used up a small message goes on.
 */
static bool load_fits(const struct dispatcher *x, const struct site *s, uint64_t bytes)
{
	uint64_t max = x->limits->loaded_max;
	uint64_t after =
		bytes + atomic_load_explicit(&x->limits->loaded_bytes, memory_order_relaxed);

	return after == bytes || after <= max / 2 ||
	       (after <= max && s->loaded_bytes + bytes <= max / 16) ||
	       (s->loaded_bytes == 0 && bytes <= LOAD_SMALL_BYTES);
}

/* The next delivery's content is not at hand, and there is no room for it. */
static bool memory(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	const struct delivery *next = d->active_head;

	if (next == NULL || next->uses_content || d->lane == NULL ||
	    load_fits(x, d->lane->site, message_content_bytes(next->message))) {
		return false;
	}
	o->why = DOMAIN_MEMORY;
	o->scope = OBSTACLE_OF_PROGRAM;
	o->in_use = atomic_load_explicit(&x->limits->loaded_bytes, memory_order_relaxed);
	o->limit = x->limits->loaded_max;
	/* Another site or scheduler may make room: look again soon. */
	o->until_ms = dispatch_now_ms(x) + SHARED_LIMIT_MS;
	return true;
}

static void fill_server(const struct dispatcher *x, struct obstacle *o)
{
	*o = (struct obstacle){
		.why = DOMAIN_SERVER_CONNECTIONS,
		.scope = OBSTACLE_OF_PROGRAM,
		.in_use = atomic_load_explicit(&x->limits->connections, memory_order_relaxed),
		.limit = x->limits->connections_max,
		.until_ms = dispatch_now_ms(x) + SHARED_LIMIT_MS,
	};
}

static bool server_connections(const struct dispatcher *x, const struct domain *d,
			       struct obstacle *o)
{
	(void)d;
	fill_server(x, o);
	return o->in_use >= o->limit;
}

bool dispatch_server_is_full(const struct dispatcher *x)
{
	struct obstacle o;

	return server_connections(x, NULL, &o);
}

/* Its site's connections of an earlier layout are not all closed. */
static bool is_awaited(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	(void)x;
	o->why = DOMAIN_MOVING;
	o->scope = OBSTACLE_OF_SITE;
	return d->lane != NULL && d->lane->site->awaited;
}

/* In the order in which they are looked at; what is charged afterwards, by charge_*(), last. */
static const obstacle_fn of_opening[] = {
	is_awaited, site_connections, own_connections, site_messages, own_messages, memory, NULL};
static const obstacle_fn of_charging[] = {server_connections, site_connection_rate,
					  own_connection_rate, NULL};
static const obstacle_fn of_sending[] = {memory, site_messages, own_messages, NULL};

/* ---- charges ---- */

static bool limits_take(struct outbound_limits *l)
{
	if (atomic_fetch_add_explicit(&l->connections, 1, memory_order_relaxed) <
	    l->connections_max) {
		return true;
	}
	atomic_fetch_sub_explicit(&l->connections, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&l->refused, 1, memory_order_relaxed);
	return false;
}

void dispatch_return_limit(struct dispatcher *x)
{
	atomic_fetch_sub_explicit(&x->limits->connections, 1, memory_order_relaxed);
}

/* The site's throttle and, where it is another one, the domain's: both or none. True: one of them
 * says to wait. */
static bool charge_throttles(const struct dispatcher *x, struct throttle *of_site,
			     struct throttle *of_domain, enum domain_hold why, struct obstacle *o)
{
	uint64_t now_ns = x->self->now.mono_ns;
	uint64_t wait_ns = of_site != NULL ? throttle_take(of_site, now_ns) : 0;

	if (wait_ns != 0) {
		return throttled(x, of_site, wait_ns, why, OBSTACLE_OF_SITE, o);
	}
	if (of_domain == NULL || throttle_same_slot(of_domain, of_site)) {
		return false;
	}
	wait_ns = throttle_take(of_domain, now_ns);
	if (wait_ns == 0) {
		return false;
	}
	if (of_site != NULL) {
		throttle_return(of_site);
	}
	return throttled(x, of_domain, wait_ns, why, OBSTACLE_OF_DOMAIN, o);
}

bool obstacle_to_sending(struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	const struct site *s = d->lane->site;

	return memory(x, d, o) ||
	       charge_throttles(x, s->options->throttle_messages, d->options->throttle_messages,
				DOMAIN_THROTTLE_MESSAGES, o);
}

bool obstacle_to_opening(struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	const struct site *s = d->lane->site;

	if (first_of(of_opening, x, d, o)) {
		return true;
	}
	if (!limits_take(x->limits)) {
		fill_server(x, o);
		return true;
	}
	if (charge_throttles(x, s->options->throttle_connections, d->options->throttle_connections,
			     DOMAIN_THROTTLE_CONNECTIONS, o)) {
		dispatch_return_limit(x);
		return true;
	}
	return false;
}

/* ---- what mail waits for without being held back ---- */

static bool is_read_back(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	(void)x;
	o->why = DOMAIN_READING_BACK;
	for (const struct connection *c = d->connections; c != NULL; c = c->next) {
		o->in_use += c->state == CONNECTION_LOADING;
	}
	return o->in_use != 0;
}

static bool is_settling(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	(void)x;
	o->why = DOMAIN_SETTLING;
	o->in_use = d->settling_count;
	return o->in_use != 0;
}

static bool is_delayed(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	const struct delivery *first = domain_peek_delayed(d);
	uint64_t wall_ms = agent_wall_ms(x->self);

	if (first == NULL) {
		return false;
	}
	o->why = DOMAIN_RETRY;
	o->in_use = d->delayed_count;
	o->until_ms = dispatch_now_ms(x) + (first->due_ms > wall_ms ? first->due_ms - wall_ms : 0);
	return true;
}

static bool has_held_mail(const struct dispatcher *x, const struct domain *d, struct obstacle *o)
{
	(void)x;
	o->why = DOMAIN_HELD_MAIL;
	o->in_use = d->held_count;
	return o->in_use != 0;
}

static const obstacle_fn of_lane[] = {is_resolving, is_down, NULL};
static const obstacle_fn of_waiting[] = {is_opening, NULL};
static const obstacle_fn of_delay[] = {is_delayed, NULL};
static const obstacle_fn of_attempts[] = {is_read_back, is_settling, NULL};
static const obstacle_fn of_held[] = {has_held_mail, NULL};

/* ---- the list ---- */

struct list {
	const struct dispatcher *x;
	const struct domain *d;
	struct obstacle *items;
	unsigned count;
};

static bool is_same(const struct obstacle *a, const struct obstacle *b)
{
	return a->why == b->why && a->in_use == b->in_use && a->limit == b->limit &&
	       throttle_same_slot(a->throttle, b->throttle);
}

static void list_add(struct list *list, const struct obstacle *o)
{
	/* A domain that is alone has the limits of its site. */
	for (unsigned i = 0; i < list->count; i++) {
		if (is_same(&list->items[i], o)) {
			return;
		}
	}
	ASSERT(list->count < OBSTACLES_MAX);
	list->items[list->count++] = *o;
}

static void list_all(struct list *list, const obstacle_fn *gates)
{
	for (; *gates != NULL; gates++) {
		struct obstacle o = {.why = DOMAIN_FREE};

		if ((*gates)(list->x, list->d, &o)) {
			list_add(list, &o);
		}
	}
}

/* What was decided and still stands, although what it was decided by has just changed: it is looked
 * at again at its time. */
static struct obstacle decided(const struct dispatcher *x, const struct domain *d,
			       enum domain_hold why, const char *scope, uint64_t until_ms)
{
	bool of_site = strcmp(scope, "site") == 0;
	struct obstacle o = {.why = why};

	if (why == DOMAIN_SERVER_CONNECTIONS) {
		fill_server(x, &o);
	} else if (why == DOMAIN_MEMORY) {
		o.in_use = atomic_load_explicit(&x->limits->loaded_bytes, memory_order_relaxed);
		o.limit = x->limits->loaded_max;
	} else if (why == DOMAIN_CONNECTIONS && of_site) {
		site_connections(x, d, &o);
	} else if (why == DOMAIN_CONNECTIONS) {
		own_connections(x, d, &o);
	} else if (why == DOMAIN_THROTTLE_MESSAGES || why == DOMAIN_THROTTLE_CONNECTIONS) {
		o.throttle = of_site ? site_throttle(d, why) : own_throttle(d, why);
		o.wait_ns = until_ms > dispatch_now_ms(x)
				    ? (until_ms - dispatch_now_ms(x)) * NS_PER_MS
				    : 0;
	}
	o.scope = why == DOMAIN_SERVER_CONNECTIONS || why == DOMAIN_MEMORY ? OBSTACLE_OF_PROGRAM
		  : of_site                                                ? OBSTACLE_OF_SITE
									   : OBSTACLE_OF_DOMAIN;
	o.until_ms = until_ms;
	return o;
}

/* What the dispatcher noted when it looked last binds: it comes first. */
static void put_decided_first(struct list *list)
{
	const char *scope;
	uint64_t until_ms;
	enum domain_hold why = dispatch_held(list->d, &until_ms, &scope);
	struct obstacle first;
	unsigned at = 0;

	while (at < list->count && (list->items[at].why != why ||
				    (why == DOMAIN_CONNECTIONS && strcmp(scope, "site") == 0 &&
				     list->items[at].scope != OBSTACLE_OF_SITE))) {
		at++;
	}
	if (why == DOMAIN_FREE || strcmp(scope, "lane") == 0 || (at == 0 && list->count != 0)) {
		return;
	}
	if (at < list->count) {
		first = list->items[at];
	} else {
		first = decided(list->x, list->d, why, scope, until_ms);
		ASSERT(list->count < OBSTACLES_MAX);
		list->count++;
	}
	memmove(list->items + 1, list->items, at * sizeof(first));
	list->items[0] = first;
}

unsigned obstacle_list(const struct dispatcher *x, const struct domain *d,
		       struct obstacle items[OBSTACLES_MAX])
{
	struct list list = {.x = x, .d = d, .items = items};
	bool ordered;

	list_all(&list, of_record);
	ordered = list.count != 0 &&
		  (items[0].why == DOMAIN_SUSPENDED || items[0].why == DOMAIN_BINDING_SUSPENDED ||
		   items[0].why == DOMAIN_STOPPING || items[0].why == DOMAIN_MOVING);
	if (d->active_count != 0) {
		if (d->lane != NULL && obstacle_idle_for(d->lane, d) != NULL) {
			/* As dispatch_lane() does: idle connections first. */
			list_all(&list, of_sending);
		} else {
			list_all(&list, of_lane);
			list_all(&list, of_opening);
			list_all(&list, of_charging);
		}
		if (!ordered) {
			put_decided_first(&list);
		}
		list_all(&list, of_waiting);
	} else if (ordered) {
		list_all(&list, of_delay);
	} else {
		/* Its next try comes first, and then what stands in the way of it now. */
		list.count = 0;
		list_all(&list, of_delay);
		list_all(&list, of_record);
		if (d->delayed_count != 0 && (d->lane == NULL || d->lane->idle == NULL)) {
			list_all(&list, of_lane);
		}
	}
	list_all(&list, of_attempts);
	/* Of what is not active, if it has not been said. */
	list_all(&list, of_delay);
	list_all(&list, of_held);
	return list.count;
}

struct obstacle obstacle_first(const struct dispatcher *x, const struct domain *d)
{
	struct obstacle items[OBSTACLES_MAX];

	return obstacle_list(x, d, items) != 0 ? items[0] : (struct obstacle){.why = DOMAIN_FREE};
}
