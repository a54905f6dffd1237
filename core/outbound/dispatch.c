#include "core/outbound/dispatch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/outbound/bind_address.h"
#include "core/outbound/connection.h"
#include "core/outbound/connection_tls.h"
#include "core/outbound/dispatch_parts.h"
#include "core/outbound/host_list.h"
#include "core/outbound/route.h"
#include "core/queue/retry.h"
#include "core/queue/throttle.h"
#include "core/runtime/check.h"
#include "core/runtime/text.h"

/* A record in which nothing has happened for so long is freed. */
#define RECORD_KEEP_MS 600000
/* How long a domain waits that a shared limit stands in the way of: others may make room. */
#define SHARED_LIMIT_MS 200
/* What the name service refuses is asked again after this at the latest. */
#define REFUSAL_MS_MAX UINT64_C(86400000)
/* When memory is used up, each domain may still read one message of this size back at a time. */
#define LOAD_SMALL_BYTES 65536

static const char *const expired_text = "554 5.4.7 [internal] exceeded max time without delivery";

static uint64_t now_ms(const struct dispatcher *x)
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
	binding_table_init(&x->bindings);
	domain_table_init(&x->domains);
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

/* ---- limits that all schedulers share ---- */

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

static void limits_return(struct outbound_limits *l)
{
	atomic_fetch_sub_explicit(&l->connections, 1, memory_order_relaxed);
}

static bool limits_full(const struct outbound_limits *l)
{
	return atomic_load_explicit(&l->connections, memory_order_relaxed) >= l->connections_max;
}

/*
 * Whether there is room to read content of `bytes` back for `d`. Peers that do not take theirs keep
 * them for long, so one domain gets half of the room, the other half is for those that have little
 * of it, and even when all is used up a small message goes on.
 */
static bool load_fits(const struct dispatcher *x, const struct domain *d, uint64_t bytes)
{
	uint64_t max = x->limits->loaded_max;
	uint64_t after =
		bytes + atomic_load_explicit(&x->limits->loaded_bytes, memory_order_relaxed);

	return after == bytes || after <= max / 2 ||
	       (after <= max && d->loaded_bytes + bytes <= max / 16) ||
	       (d->loaded_bytes == 0 && bytes <= LOAD_SMALL_BYTES);
}

static void load_take(struct connection *c, uint64_t bytes)
{
	c->loaded_bytes = bytes;
	c->domain->loaded_bytes += bytes;
	atomic_fetch_add_explicit(&c->dispatcher->limits->loaded_bytes, bytes,
				  memory_order_relaxed);
}

void dispatch_on_unloaded(struct connection *c)
{
	c->domain->loaded_bytes -= c->loaded_bytes;
	atomic_fetch_sub_explicit(&c->dispatcher->limits->loaded_bytes, c->loaded_bytes,
				  memory_order_relaxed);
	c->loaded_bytes = 0;
}

/* ---- holds ---- */

void dispatch_hold(struct domain *d, enum domain_hold why)
{
	d->hold = why;
	d->hold_until_ms = 0;
	timer_cancel(&d->hold_timer);
}

static void hold_until(struct domain *d, enum domain_hold why, uint64_t until_ms)
{
	d->hold = why;
	d->hold_until_ms = until_ms;
	timer_arm(&d->hold_timer, until_ms);
}

/* Nothing is queued, sent, settled, looked up or ordered. */
static bool unused(const struct domain *d)
{
	return d->active_count == 0 && d->delayed_count == 0 && d->attempt_count == 0 &&
	       d->settling_count == 0 && d->sweeps == 0 && d->connections == NULL &&
	       !d->resolving && d->suspended == dispatch_begins_suspended(d);
}

static void free_record(struct domain *d)
{
	struct dispatcher *x = d->owner;

	timer_cancel(&d->hold_timer);
	timer_cancel(&d->delayed_timer);
	domain_destroy(&x->domains, d);
}

static void on_hold_timer(struct timer *t)
{
	struct domain *d = CONTAINER_OF(t, struct domain, hold_timer);

	/* Over, whatever this group's clock says: nobody would ring again. */
	d->hold_until_ms = 0;
	if (unused(d)) {
		free_record(d);
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

struct attempt dispatch_attempt_text(uint16_t code, const char *enhanced, const char *text)
{
	struct attempt a = {.stage = SMTP_STAGE_NOT_CONNECTED, .code = code};

	text_copy(a.enhanced, sizeof a.enhanced, enhanced);
	text_copy(a.text, sizeof a.text, text);
	return a;
}

/* Those at the head have waited longest; a queue that does not move must expire them too. */
static void expire_head(struct dispatcher *x, struct domain *d)
{
	for (int i = 0; i < DISPATCH_SLICE && d->active_head != NULL; i++) {
		const struct message *m = d->active_head->message;
		struct attempt a;

		if (!retry_expired(d->options, m->received_ms, agent_wall_ms(x->self))) {
			return;
		}
		a = dispatch_attempt_text(554, "5.4.7", expired_text);
		dispatch_without_connection(x, domain_pop_active(&x->domains, d), &a, true);
	}
}

/* ---- next hops ---- */

static bool hosts_known(struct dispatcher *x, struct domain *d)
{
	struct route_verdict verdict;

	if (d->host_count != 0 && now_ms(x) < d->resolved_until_ms) {
		return true;
	}
	if (d->resolving) {
		return false;
	}
	if (route_literal(d->options, d->name, &verdict)) {
		dispatch_resolved(x, d, &verdict);
		return verdict.result == ROUTE_HOSTS;
	}
	d->resolving = true;
	x->ops->resolve(x, d);
	return false;
}

static enum domain_hold hold_of(enum route_result result)
{
	return route_is_permanent(result) ? DOMAIN_NO_ROUTE
	       : result == ROUTE_BOGUS    ? DOMAIN_DNS_BOGUS
	       : result == ROUTE_TIMEOUT  ? DOMAIN_DNS_TIMEOUT
					  : DOMAIN_UNRESOLVED;
}

static struct attempt refusal(uint16_t code, const char *enhanced, const char *trouble)
{
	char text[ATTEMPT_TEXT];

	snprintf(text, sizeof text, "%u %s [internal] %s", code, enhanced, trouble);
	return dispatch_attempt_text(code, enhanced, text);
}

/* A look-up that failed: the one that waits longest hears of it, the others wait. */
static void put_off(struct dispatcher *x, struct domain *d, const struct route_verdict *v)
{
	struct attempt a = refusal(route_code(v->result), route_enhanced(v->result), v->text);
	struct delivery *delivery = domain_pop_active(&x->domains, d);

	if (delivery != NULL) {
		dispatch_without_connection(x, delivery, &a, false);
	}
	hold_until(d, hold_of(v->result), now_ms(x) + d->options->host_failure_retry_ms);
}

static bool is_refused(const struct dispatcher *x, const struct domain *d)
{
	return d->hold == DOMAIN_NO_ROUTE && d->hold_until_ms > now_ms(x);
}

static void on_refuse_more(struct agent *self, void *object, uint64_t value)
{
	struct domain *d = object;

	(void)self;
	(void)value;
	OWNER_CHECK(d);
	d->sweeps--;
	dispatch_domain(d->owner, d);
}

/* What the name service says no to fails, all of it, in slices. */
static void refuse_active(struct dispatcher *x, struct domain *d)
{
	struct attempt a = refusal(d->refusal_code, d->refusal_enhanced, d->trouble);
	struct delivery *delivery;

	for (int i = 0; i < DISPATCH_SLICE; i++) {
		delivery = domain_pop_active(&x->domains, d);
		if (delivery == NULL) {
			return;
		}
		dispatch_without_connection(x, delivery, &a, true);
	}
	d->sweeps++;
	agent_send(x->self, x->self, on_refuse_more, d, 0);
}

/* It holds for as long as the name service says, and for mail that comes meanwhile, too. */
static void refuse(struct dispatcher *x, struct domain *d, const struct route_verdict *v)
{
	uint64_t ttl_ms = v->ttl_ms < REFUSAL_MS_MAX ? v->ttl_ms : REFUSAL_MS_MAX;

	host_list_clear(d);
	d->refusal_code = route_code(v->result);
	d->refusal_enhanced = route_enhanced(v->result);
	hold_until(d, DOMAIN_NO_ROUTE, now_ms(x) + ttl_ms + 1);
	refuse_active(x, d);
}

static void count_route(struct dispatcher *x, const struct route_verdict *v)
{
	counter_inc(x->routes[v->result]);
	counter_add(x->mx_aliases, v->alias_count);
	counter_add(x->mx_dead, v->dead_count);
	counter_add(x->mx_literals, v->literal_count);
}

void dispatch_resolved(struct dispatcher *x, struct domain *d, struct route_verdict *v)
{
	bool asked = d->resolving;

	OWNER_CHECK(d);
	d->resolving = false;
	count_route(x, v);
	if (x->stopping || v->result == ROUTE_CANCELLED) {
		free(v->hosts);
		return;
	}
	d->mx_secure = v->mx_secure;
	if (v->result != ROUTE_HOSTS) {
		text_copy(d->trouble, sizeof d->trouble, v->text);
		if (route_is_permanent(v->result)) {
			refuse(x, d, v);
		} else {
			put_off(x, d, v);
		}
		return;
	}
	host_list_replace(d, v->hosts, v->count);
	d->resolved_until_ms = now_ms(x) + v->ttl_ms;
	if (asked) {
		dispatch_domain(x, d);
	}
}

/* ---- the decision ---- */

/* The next delivery's content is at hand, or there is room for it. */
static bool has_room(const struct dispatcher *x, const struct domain *d)
{
	const struct delivery *next = d->active_head;

	return next == NULL || next->uses_content ||
	       load_fits(x, d, message_content_bytes(next->message));
}

static void assign(struct dispatcher *x, struct domain *d, struct connection *c)
{
	struct delivery *delivery = domain_pop_active(&x->domains, d);
	bool loading = !delivery->uses_content;

	delivery->place = DELIVERY_ATTEMPT;
	d->attempt_count++;
	connection_assign(c, delivery, loading);
	if (loading) {
		load_take(c, message_content_bytes(delivery->message));
		x->ops->load(x, delivery);
	}
}

static struct connection *idle_connection(struct domain *d)
{
	struct connection *c = d->connections;

	while (c != NULL && c->state != CONNECTION_IDLE) {
		c = c->next;
	}
	return c;
}

/* Feeds idle connections; false when memory_budget or outbound_throttle_messages says to wait. */
static bool feed_idle(struct dispatcher *x, struct domain *d)
{
	while (d->active_head != NULL && d->idle_count > 0) {
		struct connection *c = idle_connection(d);
		struct throttle *t = d->options->throttle_messages;
		uint64_t wait_ns;

		ASSERT(c != NULL);
		if (!has_room(x, d)) {
			counter_inc(x->held_by_memory);
			hold_until(d, DOMAIN_MEMORY, now_ms(x) + SHARED_LIMIT_MS);
			return false;
		}
		wait_ns = t != NULL ? throttle_take(t, x->self->now.mono_ns) : 0;
		if (wait_ns != 0) {
			counter_inc(x->throttled);
			hold_until(d, DOMAIN_THROTTLE_MESSAGES,
				   now_ms(x) + wait_ns / NS_PER_MS + 1);
			return false;
		}
		assign(x, d, c);
	}
	return true;
}

/* A limit that keeps the domain from one more connection now; DOMAIN_FREE: none, and the shared
 * limit and the throttle have been charged for it. */
static enum domain_hold connection_limit(struct dispatcher *x, struct domain *d, uint64_t *until_ms)
{
	struct throttle *messages = d->options->throttle_messages;
	struct throttle *t = d->options->throttle_connections;
	uint64_t wait_ns = messages != NULL ? throttle_wait_ns(messages, x->self->now.mono_ns) : 0;

	if (d->connection_count >= d->options->max_outbound_connections) {
		return DOMAIN_CONNECTIONS;
	}
	if (wait_ns != 0) {
		*until_ms = now_ms(x) + wait_ns / NS_PER_MS + 1;
		return DOMAIN_THROTTLE_MESSAGES;
	}
	/* Another domain or scheduler may make room for the next two: look again soon. */
	*until_ms = now_ms(x) + SHARED_LIMIT_MS;
	if (!has_room(x, d)) {
		return DOMAIN_MEMORY;
	}
	if (!limits_take(x->limits)) {
		return DOMAIN_SERVER_CONNECTIONS;
	}
	wait_ns = t != NULL ? throttle_take(t, x->self->now.mono_ns) : 0;
	if (wait_ns != 0) {
		limits_return(x->limits);
		*until_ms = now_ms(x) + wait_ns / NS_PER_MS + 1;
		return DOMAIN_THROTTLE_CONNECTIONS;
	}
	return DOMAIN_FREE;
}

static void connection_link(struct dispatcher *x, struct domain *d, struct connection *c,
			    struct host *host)
{
	c->prev = NULL;
	c->next = d->connections;
	if (c->next != NULL) {
		c->next->prev = c;
	}
	d->connections = c;
	d->connection_count++;
	d->connections_opened++;
	if (d->connection_count > d->connections_max) {
		d->connections_max = d->connection_count;
	}
	host->connections++;
	x->connection_count++;
	counter_inc(x->connections_opened);
	counter_set_value(x->connections_open, x->connection_count);
}

/* bind_address stands in the way until then: the one that waits longest hears of it, the others
 * wait. */
static void hold_by_bind_address(struct dispatcher *x, struct domain *d, const struct attempt *a,
				 uint64_t until_ms)
{
	text_copy(d->trouble, sizeof d->trouble, a->text);
	hold_until(d, DOMAIN_BIND_ADDRESS, until_ms);
	if (d->active_head != NULL) {
		dispatch_without_connection(x, domain_pop_active(&x->domains, d), a, false);
	}
}

/* No next hop is to be tried now: each has failed, or, UINT64_MAX, there is no bind_address of
 * their family. */
static void hold_hosts(struct dispatcher *x, struct domain *d, uint64_t until_ms)
{
	struct attempt a;

	if (until_ms != UINT64_MAX) {
		hold_until(d, DOMAIN_HOSTS_DOWN, until_ms);
		return;
	}
	counter_inc(x->bind_failures);
	a = bind_address_trouble(d, NULL, 0);
	hold_by_bind_address(x, d, &a, now_ms(x) + d->options->host_failure_retry_ms);
}

/* There is no socket. When that is because of bind_address, the host is left alone for a while. */
static void cannot_open(struct dispatcher *x, struct domain *d, struct host *host, int error)
{
	struct attempt a;
	uint64_t until_ms;

	if (!bind_address_is_wrong(d->options, error)) {
		agent_error(x->self, error, "cannot make a socket for an outbound connection");
		hold_until(d, DOMAIN_SERVER_CONNECTIONS, now_ms(x) + 1000);
		return;
	}
	counter_inc(x->bind_failures);
	a = bind_address_trouble(d, host, error);
	agent_error(x->self, error, "%s", a.text);
	host->failures++;
	host->failed_until_ms = now_ms(x) + d->options->host_failure_retry_ms;
	if (host_choose(d, now_ms(x), &until_ms) != NULL) {
		/* The next one has its turn at once, but not within this look. */
		hold_until(d, DOMAIN_FREE, now_ms(x) + 1);
	} else {
		hold_by_bind_address(x, d, &a, until_ms);
	}
}

/* Opens one more connection, or notes what is in its way; true when it was opened. */
static bool open_one(struct dispatcher *x, struct domain *d)
{
	uint64_t until_ms = 0;
	struct host *host;
	enum domain_hold why;
	struct connection *c;
	int error;

	if (!hosts_known(x, d)) {
		if (d->resolving) {
			dispatch_hold(d, DOMAIN_RESOLVING);
		}
		return false;
	}
	host = host_choose(d, now_ms(x), &until_ms);
	if (host == NULL) {
		hold_hosts(x, d, until_ms);
		return false;
	}
	why = connection_limit(x, d, &until_ms);
	if (why == DOMAIN_CONNECTIONS) {
		counter_inc(x->held_by_connections);
		dispatch_hold(d, why);
		return false;
	}
	if (why != DOMAIN_FREE) {
		counter_inc(why == DOMAIN_MEMORY               ? x->held_by_memory
			    : why == DOMAIN_SERVER_CONNECTIONS ? x->held_by_server
							       : x->throttled);
		hold_until(d, why, until_ms);
		return false;
	}
	c = connection_open(x, d, host, &error);
	if (c == NULL) {
		limits_return(x->limits);
		cannot_open(x, d, host, error);
		return false;
	}
	connection_link(x, d, c, host);
	return true;
}

static bool held_for_good(struct dispatcher *x, struct domain *d)
{
	bool binding_suspended = d->binding_record->order == BINDING_SUSPENDED;

	if (x->stopping || d->suspended || binding_suspended) {
		dispatch_hold(d, x->stopping    ? DOMAIN_STOPPING
				 : d->suspended ? DOMAIN_SUSPENDED
						: DOMAIN_BINDING_SUSPENDED);
		if (!x->stopping && d->active_head != NULL) {
			/* What waits may expire. */
			timer_arm(&d->hold_timer, now_ms(x) + 60000);
		}
		return true;
	}
	if (is_refused(x, d)) {
		refuse_active(x, d);
		return true;
	}
	return (d->hold == DOMAIN_UNRESOLVED || d->hold == DOMAIN_DNS_BOGUS ||
		d->hold == DOMAIN_DNS_TIMEOUT || d->hold == DOMAIN_HOSTS_DOWN ||
		d->hold == DOMAIN_BIND_ADDRESS) &&
	       d->hold_until_ms > now_ms(x) && d->idle_count == 0;
}

/*
 * Sends what may be sent now. Idle connections are fed first; then connections are opened, at most
 * one more than there are working ones at a time, so that a dead host is probed by one and a good
 * one is soon filled. What stops it is kept in d->hold.
 */
void dispatch_domain(struct dispatcher *x, struct domain *d)
{
	CHECK_MAGIC(d, DOMAIN_MAGIC);
	OWNER_CHECK(d);
	expire_head(x, d);
	if (held_for_good(x, d)) {
		return;
	}
	if (!feed_idle(x, d)) {
		return;
	}
	dispatch_hold(d, DOMAIN_FREE);
	while (d->active_count > d->connecting_count &&
	       d->connecting_count <= d->connection_count - d->connecting_count) {
		if (!open_one(x, d)) {
			return;
		}
	}
	if (unused(d)) {
		timer_arm(&d->hold_timer, now_ms(x) + RECORD_KEEP_MS);
	}
}

/* ---- what connections report ---- */

void dispatch_on_ready(struct connection *c)
{
	struct dispatcher *x = c->dispatcher;
	struct domain *d = c->domain;
	struct host *h = host_of(c);

	/* One that has worked for long says nothing about new ones. */
	if (c->transactions == 0) {
		if (d->hold != DOMAIN_NO_ROUTE) {
			d->trouble[0] = '\0';
		}
		if (h != NULL) {
			h->failed_until_ms = 0;
		}
	}
	if (x->stopping) {
		connection_quit(c);
		return;
	}
	dispatch_domain(x, d);
	/* Another domain may wait for what this one would keep idle. */
	if (c->state == CONNECTION_IDLE && limits_full(x->limits)) {
		connection_quit(c);
	}
}

static void count_attempt(struct domain *d, struct connection *c, const struct delivery *delivery)
{
	struct host *h = host_of(c);

	d->delivered += recipient_set_count(&c->attempt.delivered);
	if (!recipient_set_empty(&c->attempt.delivered)) {
		d->bytes_sent += delivery->message->body_bytes;
		if (h != NULL) {
			h->deliveries++;
		}
	}
}

/* Only in memory, while the program stops: no queue keeps that, but the scheduler does. */
static bool must_be_kept(const struct dispatcher *x, const struct delivery *delivery)
{
	return x->stopping && delivery->message->spool == NULL;
}

void dispatch_on_attempt(struct connection *c, struct delivery *delivery)
{
	struct dispatcher *x = c->dispatcher;
	struct domain *d = c->domain;

	OWNER_CHECK(d);
	ASSERT(delivery->place == DELIVERY_ATTEMPT);
	delivery->place = DELIVERY_TRANSIT;
	delivery->connection = NULL;
	d->attempt_count--;
	if (c->attempt.not_tried && !delivery->doomed && !must_be_kept(x, delivery)) {
		if (d->options->throttle_messages != NULL) {
			throttle_return(d->options->throttle_messages);
		}
		delivery_unload(delivery, x->pools);
		domain_push_active_front(&x->domains, d, delivery);
		return;
	}
	count_attempt(d, c, delivery);
	x->ops->on_attempt(x, d, delivery, &c->attempt);
}

/* While a connection works, a further one that fails has met a limit of the peer's. */
static bool some_connection_works(const struct domain *d)
{
	const struct connection *c = d->connections;

	while (c != NULL && (c->state < CONNECTION_IDLE || c->state > CONNECTION_RSET)) {
		c = c->next;
	}
	return c != NULL;
}

void dispatch_on_setup_failed(struct connection *c)
{
	struct dispatcher *x = c->dispatcher;
	struct domain *d = c->domain;
	struct host *h = host_of(c);
	uint64_t until_ms;
	bool first;

	counter_inc(x->connect_failures);
	if (h == NULL || x->stopping) {
		return;
	}
	h->failures++;
	first = h->failed_until_ms <= now_ms(x);
	h->failed_until_ms = now_ms(x) + d->options->host_failure_retry_ms;
	text_copy(d->trouble, sizeof d->trouble, c->attempt.text);
	/* Every next hop is down: the one that waits longest hears of it, the others wait. */
	if (first && host_choose(d, now_ms(x), &until_ms) == NULL && !some_connection_works(d) &&
	    d->active_head != NULL) {
		hold_until(d, DOMAIN_HOSTS_DOWN, until_ms);
		dispatch_without_connection(x, domain_pop_active(&x->domains, d), &c->attempt,
					    false);
	}
}

void dispatch_on_closed(struct connection *c)
{
	struct dispatcher *x = c->dispatcher;
	struct domain *d = c->domain;
	struct host *h = host_of(c);

	*(c->prev != NULL ? &c->prev->next : &d->connections) = c->next;
	if (c->next != NULL) {
		c->next->prev = c->prev;
	}
	d->connection_count--;
	if (h != NULL) {
		h->connections--;
		if (c->transactions > 0) {
			/* There is room for another one. */
			h->failed_until_ms = 0;
		}
	}
	x->connection_count--;
	counter_set_value(x->connections_open, x->connection_count);
	limits_return(x->limits);
	dispatch_domain(x, d);
}

void dispatch_loaded(struct dispatcher *x, struct delivery *delivery, struct content *content,
		     int result)
{
	struct connection *c = delivery->connection;

	ASSERT(c != NULL && c->delivery == delivery && c->state == CONNECTION_LOADING);
	delivery->loaded = content;
	if (result != 0) {
		agent_error(x->self, result, "cannot read a message back from the spool");
		c->broken = true;
		snprintf(c->attempt.text, sizeof c->attempt.text,
			 "451 4.3.0 [internal] cannot read the message back: %s",
			 strerror(-result));
		c->attempt.code = 451;
		snprintf(c->attempt.enhanced, sizeof c->attempt.enhanced, "4.3.0");
	}
	connection_begin(c);
	dispatch_domain(x, c->domain);
}

/* ---- what the host and operators ask for ---- */

/* One timer for the earliest: due times are wall clock, timers monotonic. */
void dispatch_arm_delayed(struct dispatcher *x, struct domain *d)
{
	struct delivery *first = domain_peek_delayed(d);
	uint64_t wall_ms = agent_wall_ms(x->self);

	if (first == NULL) {
		timer_cancel(&d->delayed_timer);
		return;
	}
	timer_arm(&d->delayed_timer,
		  now_ms(x) + (first->due_ms > wall_ms ? first->due_ms - wall_ms : 1));
}

static void on_delayed_timer(struct timer *t)
{
	struct domain *d = CONTAINER_OF(t, struct domain, delayed_timer);
	struct dispatcher *x = d->owner;
	struct delivery *delivery;

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

struct domain *dispatch_find(struct dispatcher *x, const char *binding, const char *domain)
{
	struct domain *d = domain_find(&x->domains, binding, domain);

	if (d == NULL) {
		struct binding_record *b = binding_open(&x->bindings, binding);

		d = domain_create(&x->domains, b->name, domain, x->ops->options(x, b, domain));
		d->binding_record = b;
		d->suspended = dispatch_begins_suspended(d);
		d->owner = x;
		timer_init(&d->delayed_timer, x->self, on_delayed_timer);
		timer_init(&d->hold_timer, x->self, on_hold_timer);
	}
	return d;
}

void dispatch_enqueue(struct dispatcher *x, struct domain *d, struct delivery *delivery)
{
	domain_push_active(&x->domains, d, delivery);
	/* A domain that is full or waits has nothing to decide. */
	if (d->idle_count > 0 || d->hold == DOMAIN_FREE || d->hold == DOMAIN_NO_ROUTE) {
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

bool dispatch_drained(const struct dispatcher *x)
{
	return x->connection_count == 0;
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
}

void dispatcher_drop(struct dispatcher *x)
{
	domain_each(&x->domains, drop_queues, x);
}

void dispatcher_close(struct dispatcher *x)
{
	domain_table_close(&x->domains);
	binding_table_close(&x->bindings);
	pool_close(&x->connections);
	tls_sessions_close(&x->tls_sessions);
}
