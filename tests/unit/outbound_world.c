#include "tests/unit/outbound_world.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/queue/retry.h"
#include "core/runtime/check.h"

#define QUIET_ROUNDS 5
#define ROUNDS_MAX 20000

/* ---- what the dispatcher asks for ---- */

static struct outbound_world *world_of(struct dispatcher *x)
{
	return CONTAINER_OF(x, struct outbound_world, dispatcher);
}

static void on_resolve(struct dispatcher *x, struct domain *d)
{
	struct outbound_world *w = world_of(x);

	assert_true(w->resolving_count < OUTBOUND_DOMAINS_MAX);
	w->resolving[w->resolving_count++] = d;
	w->resolves++;
}

static void on_load(struct dispatcher *x, struct delivery *delivery)
{
	struct outbound_world *w = world_of(x);

	assert_true(w->load_count < OUTBOUND_LOADS_MAX);
	w->loads[w->load_count++] = delivery;
}

static const struct domain_options *on_options(struct dispatcher *x, struct binding_record *binding,
					       const char *domain, const char *provider)
{
	struct outbound_world *w = world_of(x);

	(void)binding;
	if (domain == NULL) {
		return provider != NULL ? &w->provider_options : &w->site_options;
	}
	for (unsigned i = 0; i < w->domain_count; i++) {
		if (strcmp(w->domains[i].name, domain) == 0) {
			return &w->domains[i].options;
		}
	}
	return &w->options;
}

static const char *on_provider(struct dispatcher *x, struct binding_record *binding, const char *mx)
{
	(void)x;
	(void)binding;
	return strstr(mx, ".big.test") != NULL ? "big" : NULL;
}

static void on_keep(struct dispatcher *x, struct domain *d)
{
	(void)x;
	(void)d;
}

static void outcome_note(struct outbound_world *w, const struct domain *d,
			 const struct delivery *delivery, const struct attempt *a)
{
	struct outcome *o = &w->outcomes[w->outcome_count++];

	assert_true(w->outcome_count <= OUTBOUND_OUTCOMES_MAX);
	o->number = (uint32_t)delivery->message->id.low;
	snprintf(o->domain, sizeof o->domain, "%s", d->name);
	o->attempt = *a;
	o->attempt.replies = NULL;
	o->attempt.remote_name = NULL;
	o->doomed_quiet = delivery->doomed_quiet;
	o->at_ms = w->now.mono_ns / NS_PER_MS;
	for (unsigned i = 0; a->replies != NULL && i < ENVELOPE_DELIVERY_RECIPIENTS; i++) {
		if (a->replies[i].text != NULL) {
			snprintf(o->own_replies++ == 0 ? o->first_text : o->last_text,
				 sizeof o->first_text, "%s", a->replies[i].text);
		}
	}
}

/* A verdict is for pending recipients only, and for each at most one. */
static void outcome_check(const struct delivery *delivery, const struct attempt *a)
{
	for (unsigned i = 0; i < 2; i++) {
		uint64_t all = a->delivered.bits[i] | a->failed.bits[i] | a->deferred.bits[i];

		assert_int_equal(a->delivered.bits[i] & a->failed.bits[i], 0);
		assert_int_equal(a->delivered.bits[i] & a->deferred.bits[i], 0);
		assert_int_equal(a->failed.bits[i] & a->deferred.bits[i], 0);
		assert_int_equal(all & ~delivery->pending.bits[i], 0);
	}
	assert_int_equal(delivery->place, DELIVERY_TRANSIT);
	assert_null(delivery->connection);
}

/* Whoever still sends it sends nonsense from here on. */
static void scribble(struct chain *body)
{
	for (struct chain_buffer *b = body->head; b != NULL; b = b->next) {
		memset(b->data, 'X', b->len);
	}
}

static void on_attempt(struct dispatcher *x, struct domain *d, struct delivery *delivery,
		       const struct attempt *a)
{
	struct outbound_world *w = world_of(x);
	bool doomed = delivery->doomed;

	outcome_check(delivery, a);
	outcome_note(w, d, delivery, a);
	if (delivery->loaded != NULL) {
		scribble(&delivery->loaded->body);
	}
	delivery_unload(delivery, &w->pools);
	for (unsigned i = 0; i < 2; i++) {
		delivery->pending.bits[i] &= ~(a->delivered.bits[i] | a->failed.bits[i]);
	}
	delivery->doomed = false;
	if (recipient_set_empty(&delivery->pending) || doomed) {
		if (delivery->uses_content) {
			scribble(message_body(delivery->message));
		}
		delivery_destroy(delivery, &w->pools);
	} else if (recipient_set_empty(&a->deferred)) {
		delivery->due_ms = 0;
		dispatch_enqueue(x, delivery->domain, delivery);
	} else {
		delivery->attempts++;
		delivery->due_ms =
			w->now.wall_ns / NS_PER_MS + retry_wait_ms(d->options, delivery->attempts);
		dispatch_delay(x, delivery->domain, delivery);
	}
}

static const struct dispatch_ops ops = {
	.resolve = on_resolve,
	.load = on_load,
	.on_attempt = on_attempt,
	.options = on_options,
	.provider = on_provider,
	.keep = on_keep,
};

/* ---- the agent ---- */

static struct outbound_world *world_of_agent(struct agent *self)
{
	return CONTAINER_OF(self, struct outbound_world, agent);
}

static void fill_body(struct outbound_world *w, struct chain *body)
{
	for (uint64_t n = 0; n < w->body_bytes; n += sizeof OUTBOUND_BODY_LINE + 1) {
		chain_append(body, &w->pools.buffers, OUTBOUND_BODY_LINE,
			     sizeof OUTBOUND_BODY_LINE - 1);
		chain_append(body, &w->pools.buffers, "\r\n", 2);
	}
}

/* An envelope on disk, so to speak. */
struct stored_envelope {
	struct stored_envelope *next;
	_Alignas(8) unsigned char envelope[];
};

static void store_envelope(struct outbound_world *w, const struct envelope *e)
{
	struct stored_envelope *x = malloc(sizeof *x + e->size);

	assert_non_null(x);
	memcpy(x->envelope, e, e->size);
	x->next = w->stored;
	w->stored = x;
}

static struct content *read_back(struct outbound_world *w, const struct message *m)
{
	const struct stored_envelope *x = w->stored;
	struct content *c;

	while (memcmp(&((const struct envelope *)(const void *)x->envelope)->id, &m->id,
		      sizeof m->id) != 0) {
		x = x->next;
		assert_non_null(x);
	}
	c = content_create(&w->pools, m->envelope_bytes);
	memcpy(c->envelope, x->envelope, m->envelope_bytes);
	fill_body(w, &c->body);
	return c;
}

static int on_do_work(struct agent *self)
{
	struct outbound_world *w = world_of_agent(self);
	struct delivery *delivery;

	if (w->load_count == 0 || w->hold_loads) {
		return 0;
	}
	delivery = w->loads[0];
	memmove(w->loads, w->loads + 1, --w->load_count * sizeof w->loads[0]);
	dispatch_loaded(&w->dispatcher, delivery,
			w->load_result == 0 ? read_back(w, delivery->message) : NULL,
			w->load_result);
	return 1;
}

static void on_stop(struct agent *self)
{
	struct outbound_world *w = world_of_agent(self);

	w->stopped = true;
	dispatch_stop(&w->dispatcher, false);
}

static bool on_drained(struct agent *self)
{
	return dispatch_drained(&world_of_agent(self)->dispatcher);
}

static void on_tear_down(struct agent *self)
{
	dispatcher_drop(&world_of_agent(self)->dispatcher);
}

static const struct agent_ops agent_ops = {
	.kind = "scheduler",
	.do_work = on_do_work,
	.stop = on_stop,
	.drained = on_drained,
	.tear_down = on_tear_down,
};

static uint64_t clock_mono(void *context)
{
	return ((struct outbound_world *)context)->now.mono_ns;
}

static uint64_t clock_wall(void *context)
{
	return ((struct outbound_world *)context)->now.wall_ns;
}

/* ---- life ---- */

static void default_options(struct outbound_world *w)
{
	w->options = (struct domain_options){
		.remote_smtp_port = 25,
		.max_outbound_connections = 20,
		.max_recipients_per_batch = 100,
		.retry_interval_ms = 600000,
		.max_retry_interval_ms = 3600000,
		.message_expiration_ms = 86400000,
		.connect_timeout_ms = 30000,
		.ehlo_timeout_ms = 31000,
		.mailfrom_timeout_ms = 32000,
		.rcptto_timeout_ms = 33000,
		.body_timeout_ms = 34000,
		.rset_timeout_ms = 35000,
		.idle_timeout_ms = 5000,
		.host_failure_retry_ms = 120000,
		.ehlo_hostname = "mta.test",
		.mailerdaemon = "mailer-daemon@mta.test",
		.mx_rollup = true,
	};
	w->site_options = w->options;
	w->provider_options = w->options;
}

struct outbound_world *outbound_new(enum mux_backend backend)
{
	struct outbound_world *w =
		aligned_alloc(CACHE_LINE, (sizeof *w + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1));
	struct clock clock = {clock_mono, clock_wall, w};
	struct idle idle = {.kind = IDLE_PARK};
	struct runtime *rt;

	assert_non_null(w);
	memset(w, 0, sizeof *w);
	w->now = (struct instant){1000 * NS_PER_S, UINT64_C(1750000000) * NS_PER_S};
	w->limits.connections_max = 1000;
	w->limits.loaded_max = UINT64_C(1) << 30;
	w->body_bytes = 500;
	default_options(w);
	rt = &w->runtime;
	runtime_init(rt, &clock);
	rt->backend = backend;
	agent_init(&w->agent, &agent_ops, "scheduler.0", 1);
	mail_pools_init(&w->pools);
	dispatcher_init(&w->dispatcher, &w->agent, &ops, &w->pools, &w->limits);
	runtime_add(rt, runtime_group(rt, "main", -1, &idle), &w->agent);
	w->wheel = wheel_agent_create("wheel");
	runtime_add(rt, runtime_group(rt, "service", -1, &idle), wheel_agent_base(w->wheel));
	runtime_set_wheel(rt, wheel_agent_base(w->wheel), wheel_agent_on_arm);
	assert_int_equal(runtime_prepare(rt), 0);
	assert_int_equal(runtime_invoke_start(rt), 0);
	outbound_settle(w);
	return w;
}

bool outbound_stop(struct outbound_world *w, bool hurry)
{
	if (!w->stopped) {
		runtime_stop(&w->runtime);
	}
	/* Until the dispatcher was told. */
	for (unsigned i = 0; i < 16 && !w->stopped; i++) {
		outbound_step(w);
	}
	assert_true(w->stopped);
	if (hurry) {
		w->hold_loads = false;
		outbound_enter(w);
		dispatch_stop(&w->dispatcher, true);
		outbound_leave(w);
	}
	outbound_settle(w);
	return dispatch_drained(&w->dispatcher);
}

void outbound_free(struct outbound_world *w)
{
	while (w->resolving_count > 0) {
		outbound_resolve(w, NULL, 0, false, 0);
	}
	assert_true(outbound_stop(w, true));
	assert_int_equal(w->dispatcher.connections.live, 0);
	assert_int_equal(atomic_load(&w->limits.connections), 0);
	assert_true(runtime_invoke_stop(&w->runtime, 1000));
	dispatcher_close(&w->dispatcher);
	assert_int_equal(w->pools.deliveries.live, 0);
	assert_int_equal(w->pools.buffers.live, 0);
	assert_int_equal(mail_pools_live(&w->pools), 0);
	assert_int_equal(w->agent.timers.armed, 0);
	runtime_close(&w->runtime);
	for (unsigned i = 0; i < w->peer_count; i++) {
		outbound_peer_close(&w->peers[i]);
	}
	while (w->stored != NULL) {
		struct stored_envelope *next = w->stored->next;

		free(w->stored);
		w->stored = next;
	}
	mail_pools_close(&w->pools);
	agent_close(&w->agent);
	wheel_agent_destroy(w->wheel);
	free(w);
}

/* ---- steps ---- */

struct tally {
	uint32_t connections;
	uint64_t active;
	uint64_t delayed;
};

/* What operators are told is what was decided: mail that stands still has a reason, and the reason
 * that was noted when the dispatcher looked last is among those that are told. */
static void check_reasons(const struct domain *d)
{
	struct dispatcher *x = d->owner;
	struct obstacle list[OBSTACLES_MAX];
	unsigned count = obstacle_list(x, d, list);
	const struct lane *l = d->lane;
	const char *scope;
	uint64_t until_ms;
	enum domain_hold noted = dispatch_held(d, &until_ms, &scope);
	unsigned at = 0;

	if (d->active_count == 0) {
		return;
	}
	/* While connections are idle, what was noted for those without does not count. */
	while (at < count && list[at].why != noted) {
		at++;
	}
	if (noted != DOMAIN_FREE && at == count && (l == NULL || l->idle == NULL)) {
		fail_msg("%s is held by \"%s\", which is not told", d->name,
			 domain_hold_text(noted));
	}
	if (noted == DOMAIN_FREE && (count == 0 || list[0].why == DOMAIN_RETRY) &&
	    d->attempt_count == 0 && (l == NULL || l->connection_count == 0)) {
		fail_msg("%u of %s stand still, and nobody knows why", d->active_count, d->name);
	}
}

static bool is_lowered(struct dispatcher *x)
{
	return CONTAINER_OF(x, struct outbound_world, dispatcher)->lowered;
}

static void check_domain(void *context, struct domain *d)
{
	struct tally *t = context;
	uint32_t count = 0;
	uint32_t attempts = 0;

	assert_true(domain_validate(d));
	assert_true(is_lowered(d->owner) ||
		    d->connection_count <= d->options->max_outbound_connections);
	for (const struct connection *c = d->connections; c != NULL; c = c->next) {
		assert_ptr_equal(c->domain, d);
		assert_true(c->delivery == NULL || c->delivery->domain == d);
		count++;
		attempts += c->delivery != NULL;
	}
	assert_int_equal(count, d->connection_count);
	assert_int_equal(attempts, d->attempt_count);
	check_reasons(d);
	t->active += d->active_count;
	t->delayed += d->delayed_count;
}

static void check_lane(const struct lane *l)
{
	uint32_t count = 0;
	uint32_t idle = 0;
	uint32_t on_hosts = 0;

	for (const struct connection *c = l->site->connections; c != NULL; c = c->site_next) {
		count += c->lane == l;
		idle += c->lane == l && c->state == CONNECTION_IDLE;
	}
	for (uint32_t i = 0; i < l->host_count; i++) {
		on_hosts += l->hosts[i].connections;
	}
	assert_int_equal(count, l->connection_count);
	assert_int_equal(idle, l->idle_count);
	assert_true(on_hosts <= l->connection_count);
}

static void check_site(void *context, struct site *s)
{
	struct tally *t = context;

	assert_true(site_validate(s));
	assert_true(is_lowered(s->owner) ||
		    s->connection_count <= s->options->max_outbound_connections);
	for (const struct lane *l = s->lanes; l != NULL; l = l->next) {
		check_lane(l);
	}
	t->connections += s->connection_count;
}

static void check_books(struct outbound_world *w)
{
	struct tally t = {0};

	domain_each(&w->dispatcher.domains, check_domain, &t);
	site_each(&w->dispatcher.sites, check_site, &t);
	assert_int_equal(t.connections, w->dispatcher.connection_count);
	assert_int_equal(t.connections, atomic_load(&w->limits.connections));
	assert_int_equal(t.active, w->dispatcher.domains.active);
	assert_int_equal(t.delayed, w->dispatcher.domains.delayed);
	assert_true(t.connections <= w->limits.connections_max);
}

int outbound_step(struct outbound_world *w)
{
	int work = runtime_step(&w->runtime);

	if (atomic_load(&w->agent.state) <= AGENT_STOPPING) {
		check_books(w);
	}
	for (unsigned i = 0; i < w->peer_count; i++) {
		work += outbound_peer_step(&w->peers[i]);
	}
	return work;
}

void outbound_settle(struct outbound_world *w)
{
	unsigned quiet = 0;

	for (unsigned i = 0; quiet < QUIET_ROUNDS; i++) {
		assert_true(i < ROUNDS_MAX);
		quiet = outbound_step(w) > 0 ? 0 : quiet + 1;
		if (quiet > 1) {
			/* The kernel may still be carrying something from one end to the other. */
			poll(NULL, 0, 1);
		}
	}
}

void outbound_until(struct outbound_world *w, unsigned count)
{
	for (unsigned i = 0; w->outcome_count < count; i++) {
		if (i >= ROUNDS_MAX) {
			fail_msg("%u outcomes after many steps, not %u", w->outcome_count, count);
		}
		if (outbound_step(w) == 0) {
			poll(NULL, 0, 1);
		}
	}
	outbound_settle(w);
	assert_int_equal(w->outcome_count, count);
}

void outbound_pass(struct outbound_world *w, uint64_t ms)
{
	w->now.mono_ns += ms * NS_PER_MS;
	w->now.wall_ns += ms * NS_PER_MS;
	outbound_settle(w);
}

void outbound_enter(struct outbound_world *w)
{
	assert_null(agent_current);
	agent_current = &w->agent;
	w->agent.now = w->now;
}

void outbound_leave(struct outbound_world *w)
{
	agent_flush(&w->agent);
	agent_current = NULL;
}

/* ---- mail ---- */

struct domain_options *outbound_domain(struct outbound_world *w, const char *name,
				       const struct peer *peer)
{
	struct outbound_domain *d = &w->domains[w->domain_count++];

	assert_true(w->domain_count <= OUTBOUND_DOMAINS_MAX);
	snprintf(d->name, sizeof d->name, "%s", name);
	d->options = w->options;
	d->options.gateways = d->gateways;
	d->options.gateway_count = 0;
	if (peer != NULL) {
		outbound_gateway(w, name, peer->port, 10);
	}
	return &d->options;
}

void outbound_gateway(struct outbound_world *w, const char *name, uint16_t port,
		      uint16_t preference)
{
	for (unsigned i = 0; i < w->domain_count; i++) {
		struct outbound_domain *d = &w->domains[i];

		if (strcmp(d->name, name) == 0) {
			assert_true(d->options.gateway_count < 8);
			d->gateways[d->options.gateway_count++] = (struct gateway){
				.host = "127.0.0.1", .port = port, .preference = preference};
			return;
		}
	}
	fail_msg("no domain %s", name);
}

static void add_recipients(struct envelope_builder *b, const char *domain, const char *locals)
{
	char address[256];

	while (*locals != '\0') {
		int local_len = (int)strcspn(locals, ",");
		int len = snprintf(address, sizeof address, "%.*s@%s", local_len, locals, domain);

		assert_true(envelope_add_recipient(b, address, (size_t)len));
		locals += local_len + (locals[local_len] == ',');
	}
}

struct delivery *outbound_delivery(struct outbound_world *w, const char *domain, const char *locals)
{
	struct envelope_builder b;
	struct message *m;
	struct envelope *e;
	struct delivery *delivery;

	envelope_builder_init(&b);
	envelope_set_sender(&b, "sender@here.test", 16);
	add_recipients(&b, domain, locals);
	m = message_create(&w->pools, envelope_size(&b));
	e = message_envelope(m);
	envelope_build(&b, e);
	envelope_builder_close(&b);
	e->id = (struct message_id){0x123456789abc0001, ++w->numbers};
	e->received_ms = w->now.wall_ns / NS_PER_MS;
	e->flags = w->envelope_flags;
	e->durability = (uint8_t)w->durability;
	fill_body(w, message_body(m));
	e->body_bytes = message_body(m)->len;
	message_set_resident(m, &w->pools);
	delivery = delivery_create(&w->pools, m, 0);
	message_use_content(m, 1);
	delivery->uses_content = true;
	if (w->not_resident) {
		store_envelope(w, e);
		assert_true(delivery_give_up_content(delivery, &w->pools));
	}
	return delivery;
}

uint32_t outbound_queue_old(struct outbound_world *w, const char *domain, const char *locals,
			    uint64_t age_ms)
{
	struct delivery *delivery = outbound_delivery(w, domain, locals);

	delivery->message->received_ms -= age_ms;
	outbound_enter(w);
	dispatch_enqueue(&w->dispatcher, dispatch_find(&w->dispatcher, BINDING_DEFAULT, domain),
			 delivery);
	outbound_leave(w);
	return w->numbers;
}

uint32_t outbound_queue(struct outbound_world *w, const char *domain, const char *locals)
{
	return outbound_queue_old(w, domain, locals, 0);
}

struct domain *outbound_record(struct outbound_world *w, const char *domain)
{
	struct domain *d = domain_find(&w->dispatcher.domains, BINDING_DEFAULT, domain);

	assert_non_null(d);
	return d;
}

const struct outcome *outbound_outcome(const struct outbound_world *w, uint32_t number)
{
	for (unsigned i = w->outcome_count; i-- > 0;) {
		if (w->outcomes[i].number == number) {
			return &w->outcomes[i];
		}
	}
	return NULL;
}

const struct attempt *outbound_attempt(const struct outbound_world *w, uint32_t number)
{
	const struct outcome *o = outbound_outcome(w, number);

	assert_non_null(o);
	return &o->attempt;
}

void outbound_assert_verdict(const struct outbound_world *w, uint32_t number,
			     struct outbound_verdict expected)
{
	const struct attempt *a = outbound_attempt(w, number);

	assert_int_equal(recipient_set_count(&a->delivered), expected.delivered);
	assert_int_equal(recipient_set_count(&a->failed), expected.failed);
	assert_int_equal(recipient_set_count(&a->deferred), expected.deferred);
}

/* ---- look-ups ---- */

struct host outbound_host(const char *address, uint16_t port, uint16_t preference)
{
	struct host h = {.preference = preference};
	struct sockaddr_in a = outbound_loopback(port);

	assert_int_equal(inet_pton(AF_INET, address, &a.sin_addr), 1);
	memcpy(&h.address, &a, sizeof a);
	h.address_len = sizeof a;
	h.name = address;
	return h;
}

/* The first look-up that waits; takes over what the verdict has. */
static void answer_next(struct outbound_world *w, struct route_verdict *v)
{
	struct domain *d = w->resolving[0];

	assert_true(w->resolving_count > 0);
	memmove(w->resolving, w->resolving + 1, --w->resolving_count * sizeof w->resolving[0]);
	outbound_enter(w);
	dispatch_resolved(&w->dispatcher, d, v);
	outbound_leave(w);
}

static struct host *hosts_copy(const struct host *hosts, uint32_t count)
{
	struct host *copy = calloc(count, sizeof *hosts);

	assert_non_null(copy);
	memcpy(copy, hosts, count * sizeof *hosts);
	return copy;
}

void outbound_resolve(struct outbound_world *w, const struct host *hosts, uint32_t count,
		      bool permanent, uint64_t ttl_ms)
{
	struct route_verdict v = {
		.result = count > 0   ? ROUTE_HOSTS
			  : permanent ? ROUTE_NXDOMAIN
				      : ROUTE_SERVFAIL,
		.count = count,
		.ttl_ms = ttl_ms,
		.text = "cannot look it up",
	};

	v.hosts = count > 0 ? hosts_copy(hosts, count) : NULL;
	answer_next(w, &v);
}

void outbound_resolve_set(struct outbound_world *w, const char *mx, const struct host *hosts,
			  uint32_t count, uint64_t ttl_ms)
{
	while (w->resolving_count > 0) {
		struct route_verdict v = {
			.result = ROUTE_HOSTS,
			.hosts = hosts_copy(hosts, count),
			.count = count,
			.mx = strdup(mx),
			.ttl_ms = ttl_ms,
		};

		answer_next(w, &v);
	}
}

enum domain_hold outbound_hold(const struct domain *d)
{
	const char *scope;
	uint64_t until_ms;

	return dispatch_held(d, &until_ms, &scope);
}

uint64_t outbound_hold_until(const struct domain *d)
{
	const char *scope;
	uint64_t until_ms;

	dispatch_held(d, &until_ms, &scope);
	return until_ms;
}

struct lane *outbound_lane(const struct domain *d)
{
	assert_non_null(d->lane);
	return d->lane;
}
