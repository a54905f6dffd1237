/*
 * From what the name service says to where a domain's mail goes: a lane of a site on this scheduler
 * or on another one, a time to wait, or a refusal.
 *
 * Start reading at dispatch_resolved(), last in this file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/outbound/connection.h"
#include "core/outbound/dispatch_parts.h"
#include "core/outbound/host_list.h"
#include "core/outbound/route.h"
#include "core/runtime/check.h"
#include "core/runtime/text.h"

/* What the name service refuses is asked again after this at the latest. */
#define REFUSAL_MS_MAX UINT64_C(86400000)

static void ask(struct dispatcher *x, struct domain *d)
{
	if (x->renewal.running) {
		dispatch_take_options(x, d, dispatch_same_provider(x, d->provider));
	}
	d->resolving = true;
	d->resolving_in_vain = false;
	d->resolving_since_ms = dispatch_now_ms(x);
	x->ops->resolve(x, d);
}

bool dispatch_hosts_known(struct dispatcher *x, struct domain *d)
{
	struct route_verdict verdict;

	if (d->lane != NULL && dispatch_now_ms(x) < d->resolved_until_ms) {
		return true;
	}
	if (d->resolving) {
		return false;
	}
	if (route_literal(d->options, d->name, &verdict)) {
		dispatch_resolved(x, d, &verdict);
		return d->lane != NULL && !d->resolving && d->travel == DOMAIN_AT_HOME;
	}
	ask(x, d);
	return false;
}

static enum domain_hold hold_of(enum route_result result)
{
	return route_is_permanent(result)                    ? DOMAIN_NO_ROUTE
	       : result == ROUTE_BOGUS                       ? DOMAIN_DNS_BOGUS
	       : result == ROUTE_TIMEOUT                     ? DOMAIN_DNS_TIMEOUT
	       : result == ROUTE_DANE || result == ROUTE_STS ? DOMAIN_TLS_POLICY
							     : DOMAIN_UNRESOLVED;
}

static struct attempt refusal(uint16_t code, const char *enhanced, const char *trouble)
{
	char text[ATTEMPT_TEXT];

	snprintf(text, sizeof text, "%u %s [internal] %s", code, enhanced, trouble);
	return dispatch_attempt_text(code, enhanced, text);
}

/* A look-up that failed: the one that waits longest hears of it, the others wait. Where connections
 * work, what was known goes on. */
static void put_off(struct dispatcher *x, struct domain *d, const struct route_verdict *v)
{
	uint64_t until_ms = dispatch_now_ms(x) + d->options->host_failure_retry_ms;
	struct attempt a = refusal(route_code(v->result), route_enhanced(v->result), v->text);
	struct delivery *delivery;

	if (d->lane != NULL && dispatch_lane_works(d->lane)) {
		d->resolved_until_ms = until_ms;
		dispatch_domain(x, d);
		return;
	}
	if (d->lane != NULL) {
		lane_remove_ready(d);
	}
	delivery = domain_pop_active(&x->domains, d);
	dispatch_hold_until(d, hold_of(v->result), until_ms);
	if (delivery != NULL) {
		dispatch_without_connection(x, delivery, &a, false);
	}
}

bool dispatch_is_refused(const struct dispatcher *x, const struct domain *d)
{
	return d->hold == DOMAIN_NO_ROUTE && d->hold_until_ms > dispatch_now_ms(x);
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

void dispatch_refuse_active(struct dispatcher *x, struct domain *d)
{
	struct attempt a =
		refusal(d->refusal_code, d->refusal_enhanced, d->trouble != NULL ? d->trouble : "");
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

	dispatch_detach(x, d);
	d->refusal_code = route_code(v->result);
	d->refusal_enhanced = route_enhanced(v->result);
	dispatch_hold_until(d, DOMAIN_NO_ROUTE, dispatch_now_ms(x) + ttl_ms + 1);
	dispatch_refuse_active(x, d);
}

static void count_route(struct dispatcher *x, const struct route_verdict *v)
{
	counter_inc(x->routes[v->result]);
	counter_add(x->mx_aliases, v->alias_count);
	counter_add(x->mx_dead, v->dead_count);
	counter_add(x->mx_literals, v->literal_count);
	counter_add(x->dane_lookups_failed, v->dane_failed_count);
}

/* ---- sites ---- */

/* By which its mail goes together with that of others: nothing; the gateways that all mail of its
 * binding has; an MX set. */
enum company { ALONE, BY_GATEWAYS, BY_MX };

/* What a domain behind a gateway was given beyond what all have, the site would take away. */
static bool fits_within(const struct domain_options *own, const struct domain_options *all)
{
	return own->max_outbound_connections <= all->max_outbound_connections &&
	       (all->throttle_messages == NULL ||
		own->throttle_messages == all->throttle_messages) &&
	       (all->throttle_connections == NULL ||
		own->throttle_connections == all->throttle_connections);
}

/* Who has no MX set, has gateways of its own, or is told to, is alone: its site has its own limits.
 * `all`: what applies where nothing is said of a domain. */
static enum company company_of(const struct domain *d, const struct route_verdict *v,
			       const struct domain_options *all)
{
	if (!d->options->mx_rollup) {
		return ALONE;
	}
	if (d->options->gateway_count > 0) {
		return domain_options_same_gateways(d->options, all) && fits_within(d->options, all)
			       ? BY_GATEWAYS
			       : ALONE;
	}
	return v->mx != NULL ? BY_MX : ALONE;
}

bool dispatch_goes_by_gateways(struct dispatcher *x, const struct domain *d)
{
	static const struct route_verdict none;

	return d->options->gateway_count > 0 &&
	       company_of(d, &none, x->ops->options(x, d->binding_record, NULL, d->provider)) ==
		       BY_GATEWAYS;
}

static char *key_of(const char *kind, const char *name)
{
	size_t size = strlen(kind) + strlen(name) + 1;
	char *key = check_memory(malloc(size), "a site");

	snprintf(key, size, "%s%s", kind, name);
	return key;
}

/* "gateway PREFERENCE HOST:PORT ..." */
static char *key_of_gateways(const struct domain_options *options)
{
	char *key = NULL;
	size_t size;
	FILE *out = check_memory(open_memstream(&key, &size), "a site");

	fputs(SITE_OF_GATEWAYS, out);
	for (uint32_t i = 0; i < options->gateway_count; i++) {
		const struct gateway *g = &options->gateways[i];

		fprintf(out, strchr(g->host, ':') != NULL ? "%s%u [%s]:%u" : "%s%u %s:%u",
			i == 0 ? "" : " ", g->preference, g->host, g->port);
	}
	if (fclose(out) != 0) {
		fatal("out of memory for a site");
	}
	return key;
}

/* What the domain's provider says holds from now on. False: where its hosts are depends on that, so
 * they are looked up once more. */
bool dispatch_take_options(struct dispatcher *x, struct domain *d, const char *provider)
{
	const struct domain_options *old = d->options;
	const struct domain_options *new = x->ops->options(x, d->binding_record, d->name, provider);

	bool untouched = d->suspended == dispatch_begins_suspended(d);

	d->options = new;
	d->provider = provider;
	if (untouched) {
		d->suspended = dispatch_begins_suspended(d);
	}
	return domain_options_same_gateways(old, new) &&
	       old->remote_smtp_port == new->remote_smtp_port &&
	       old->address_family == new->address_family && old->mta_sts == new->mta_sts &&
	       old->tls == new->tls;
}

const struct domain_options *dispatch_shared_options(struct dispatcher *x, struct binding_record *b,
						     const char *key)
{
	const char *provider = site_key_after(key, SITE_OF_PROVIDER);

	return x->ops->options(x, b, NULL, dispatch_same_provider(x, provider));
}

static struct move *move_of(struct dispatcher *x, struct domain *d, struct route_verdict *v,
			    const char *provider)
{
	struct move *m = check_memory(calloc(1, sizeof(*m)), "a site");

	m->domain = d;
	m->from = x;
	m->first = dispatch_home(x, d->hash);
	m->to = m->first;
	m->verdict = *v;
	m->until_ms = dispatch_now_ms(x) + v->ttl_ms;
	m->site_options = x->ops->options(x, d->binding_record, NULL, provider);
	m->company = (uint8_t)company_of(d, v, m->site_options);
	switch ((enum company)m->company) {
	case ALONE:
		m->key = key_of(SITE_OF_DOMAIN, d->name);
		m->site_options = d->options;
		break;
	case BY_GATEWAYS:
		/* Often all mail that there is: each scheduler has a site of its own for its part.
		 */
		m->key = key_of_gateways(d->options);
		break;
	case BY_MX:
		m->key = provider != NULL ? key_of(SITE_OF_PROVIDER, provider)
					  : key_of(SITE_OF_MX, v->mx);
		m->to = dispatch_home(x, domain_hash(d->binding, m->key, strlen(m->key)));
		break;
	}
	return m;
}

void dispatch_detach(struct dispatcher *x, struct domain *d)
{
	struct lane *l = d->lane;
	struct connection *next;

	/* They count for the domain until they are closed, or its own limit would not hold. */
	for (struct connection *c = d->connections; c != NULL; c = next) {
		next = c->next;
		dispatch_give_up(c);
	}
	lane_leave(d);
	if (l != NULL) {
		dispatch_clean(x, l);
	}
}

/* TLSA records name the domain that they are for, and MTA-STS is a domain's own. */
static bool demands_proof(const struct route_verdict *v)
{
	for (uint32_t i = 0; i < v->count; i++) {
		if (v->hosts[i].dane != NULL || v->hosts[i].sts != HOST_STS_NONE) {
			return true;
		}
	}
	return false;
}

/* What the domain's lane is known by: who has to prove something to one domain has not proven it to
 * another, so such a domain has a lane of its own. */
static char *lane_name(const struct domain *d, const struct move *m)
{
	const char *mx = m->company == BY_MX ? m->verdict.mx : "";
	char *own;
	char *name;

	if (m->company == ALONE || !demands_proof(&m->verdict)) {
		return key_of(mx, "");
	}
	own = key_of(" proven to ", d->name);
	name = key_of(mx, own);
	free(own);
	return name;
}

static struct lane *open_lane(struct dispatcher *x, struct domain *d, const struct move *m)
{
	char *mx = lane_name(d, m);
	struct site *s = site_find(&x->sites, d->binding, m->key);
	struct lane *l;
	bool made;

	if (s == NULL) {
		s = site_create(&x->sites, d->binding, m->key, m->site_options);
		dispatch_adopt_site(x, s);
		relocate_await_site(x, s);
	}
	s->options = m->site_options;
	l = lane_open(s, d->options, mx, m->verdict.mx_secure, &made);
	/* Those that it has may be of the generation before. */
	l->options = d->options;
	free(mx);
	if (made) {
		dispatch_adopt_lane(x, l);
	}
	return l;
}

void dispatch_attach(struct dispatcher *x, struct domain *d, struct move *m)
{
	struct lane *l = open_lane(x, d, m);

	if (d->lane != l) {
		dispatch_detach(x, d);
		lane_enter(l, d);
	}
	host_list_replace(l, m->verdict.hosts, m->verdict.count);
	m->verdict.hosts = NULL;
	d->resolved_until_ms = m->until_ms;
	move_free(m);
}

/* True when the domain has its lane on this scheduler. */
static bool settle_down(struct dispatcher *x, struct domain *d, struct route_verdict *v)
{
	const char *provider = v->mx != NULL ? x->ops->provider(x, d->binding_record, v->mx) : NULL;
	struct move *m;

	if (!dispatch_take_options(x, d, provider)) {
		route_verdict_free(v);
		ask(x, d);
		return false;
	}
	m = move_of(x, d, v, provider);
	if (m->to != x->index) {
		move_begin(x, m);
		return false;
	}
	dispatch_attach(x, d, m);
	return true;
}

void dispatch_resolved(struct dispatcher *x, struct domain *d, struct route_verdict *v)
{
	bool asked = d->resolving;

	OWNER_CHECK(d);
	relocate_note_progress(x, d);
	d->resolving = false;
	count_route(x, v);
	if (x->stopping || v->result == ROUTE_CANCELLED) {
		route_verdict_free(v);
		return;
	}
	if (asked && d->resolving_in_vain) {
		route_verdict_free(v);
		dispatch_domain(x, d);
		return;
	}
	domain_set_trouble(d, v->result != ROUTE_HOSTS ? v->text : NULL);
	if (v->result != ROUTE_HOSTS) {
		if (route_is_permanent(v->result)) {
			refuse(x, d, v);
		} else {
			put_off(x, d, v);
		}
		return;
	}
	if (settle_down(x, d, v) && asked) {
		dispatch_domain(x, d);
	}
}
