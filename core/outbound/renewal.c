/*
 * A new generation of options: records, then sites with their lanes and connections, go over to it,
 * some in each duty cycle, so that however many there are the others are not held up. What is asked
 * for by dispatch_ops.options and begins meanwhile has it already.
 *
 * A connection has options of one generation for as long as they say the same of it. Where they do
 * not (another bind_address, more TLS, ...), its domain leaves the lane, which ends with its last
 * connection, and gets another one.
 *
 * Start reading at dispatch_renew_step(), last in this file.
 */
#include "core/outbound/connection.h"
#include "core/outbound/dispatch_parts.h"
#include "core/runtime/check.h"

/* In one duty cycle. */
#define RENEW_BUCKETS 2048
#define RENEW_RECORDS 512

void dispatch_renew(struct dispatcher *x, uint64_t generation, bool routes)
{
	x->generation = generation;
	x->renewal = (struct dispatch_renewal){.running = true, .routes = routes};
}

const char *dispatch_same_provider(struct dispatcher *x, const char *provider)
{
	return provider == NULL || x->ops->same_provider == NULL
		       ? provider
		       : x->ops->same_provider(x, provider);
}

/* ---- records ---- */

/* Behind gateways: it shares their site and shall not, or the other way round. */
static bool changes_company(struct dispatcher *x, const struct domain *d)
{
	bool shares =
		d->lane != NULL && site_key_after(d->lane->site->key, SITE_OF_GATEWAYS) != NULL;

	return d->lane != NULL && shares != dispatch_goes_by_gateways(x, d);
}

static void renew_route(struct dispatcher *x, struct domain *d, bool elsewhere)
{
	struct lane *l = d->lane;

	d->resolving_in_vain |= d->resolving && elsewhere;
	if (l != NULL && (elsewhere || !lane_options_agree(l->options, d->options))) {
		d->resolved_until_ms = 0;
		dispatch_detach(x, d);
	} else if (l != NULL) {
		l->options = d->options;
		if (x->renewal.routes) {
			d->resolved_until_ms = 0;
		}
	}
	/* What the name service has said was about other next hops. */
	if (l == NULL && elsewhere && d->hold_until_ms != 0) {
		dispatch_hold(d, DOMAIN_FREE);
		domain_set_trouble(d, NULL);
	}
}

static void renew_record(struct dispatcher *x, struct domain *d)
{
	const struct domain_options *old = d->options;
	const struct lane *lane = d->lane;
	bool elsewhere;
	bool same;

	OWNER_CHECK(d);
	elsewhere = !dispatch_take_options(x, d, dispatch_same_provider(x, d->provider));
	same = domain_options_same(old, d->options);
	if (d->travel != DOMAIN_AT_HOME) {
		return;
	}
	renew_route(x, d,
		    elsewhere || old->mx_rollup != d->options->mx_rollup || changes_company(x, d));
	if (same && d->lane == lane) {
		return;
	}
	if (d->held_count > 0 || d->delayed_count > 0) {
		dispatch_arm_delayed(x, d);
	}
	if (d->active_head != NULL && !x->stopping) {
		dispatch_domain(x, d);
	}
}

/* A bucket's records are few; each stays in it, or goes, but only it. */
static bool renew_records(struct dispatcher *x)
{
	struct dispatch_renewal *r = &x->renewal;
	uint32_t buckets = 0;
	uint32_t count = 0;

	while (r->bucket < x->domains.bucket_count) {
		uint32_t bucket_count = x->domains.bucket_count;
		struct domain *next;

		if (buckets++ == RENEW_BUCKETS || count >= RENEW_RECORDS) {
			return false;
		}
		for (struct domain *d = x->domains.buckets[r->bucket]; d != NULL; d = next) {
			next = d->hash_next;
			renew_record(x, d);
			count++;
		}
		/* Should the table have grown, what was in it is in two now: this, and a later one.
		 */
		r->bucket += x->domains.bucket_count == bucket_count;
	}
	return true;
}

/* ---- sites ---- */

static const struct domain_options *options_of(struct dispatcher *x, const struct site *s)
{
	struct binding_record *b = binding_open(&x->bindings, s->binding);
	const char *name = site_key_after(s->key, SITE_OF_DOMAIN);
	const struct domain *d;

	if (name != NULL) {
		d = domain_find(&x->domains, s->binding, name);
		return d != NULL ? d->options : x->ops->options(x, b, name, NULL);
	}
	return dispatch_shared_options(x, b, s->key);
}

/* Nobody's mail goes there any more, but what is on its connections. */
static void retire_lane(struct lane *l, const struct domain_options *options)
{
	l->retired = true;
	l->options = options;
}

static void renew_connection(struct connection *c)
{
	c->options = c->lane->options;
	if (c->lane->retired) {
		dispatch_give_up(c);
	}
}

static void renew_site(struct dispatcher *x, struct site *s)
{
	const struct domain_options *old = s->options;
	struct connection *next;

	OWNER_CHECK(s);
	s->options = options_of(x, s);
	for (struct lane *l = s->lanes; l != NULL; l = l->next) {
		if (l->domain_count == 0) {
			retire_lane(l, s->options);
		}
	}
	/* It is looked at anew from its timer, as connections may take lanes and the site with
	 * them when they end. */
	if (!x->stopping && !domain_options_same(old, s->options)) {
		timer_arm(&s->hold_timer, dispatch_now_ms(x));
	}
	s->busy = true;
	for (struct connection *c = s->connections; c != NULL; c = next) {
		next = c->site_next;
		renew_connection(c);
	}
	s->busy = false;
	dispatch_clean_site(x, s);
}

static bool renew_sites(struct dispatcher *x)
{
	struct dispatch_renewal *r = &x->renewal;
	uint32_t buckets = 0;
	uint32_t count = 0;

	while (r->bucket < x->sites.bucket_count) {
		struct site *next;

		if (buckets++ == RENEW_BUCKETS || count >= RENEW_RECORDS) {
			return false;
		}
		for (struct site *s = x->sites.buckets[r->bucket]; s != NULL; s = next) {
			next = s->hash_next;
			renew_site(x, s);
			count++;
		}
		r->bucket++;
	}
	return true;
}

bool dispatch_renew_step(struct dispatcher *x)
{
	struct dispatch_renewal *r = &x->renewal;

	ASSERT(r->running);
	if (!r->sites) {
		if (renew_records(x)) {
			r->sites = true;
			r->bucket = 0;
		}
		return false;
	}
	r->running = !renew_sites(x);
	return !r->running;
}
