/*
 * Limits, as a peer sees them: how many connections, transactions, recipients.
 */
#include <string.h>

#include "tests/sim/books_parts.h"
#include "tests/sim/world.h"

void books_limits_new_life(struct books *b)
{
	for (uint32_t i = 0; i < SCENARIO_DOMAINS_MAX; i++) {
		b->domains[i].transactions = 0;
	}
	b->life_began_ns = world->now_ns;
	memset(b->binding_ordered, 0, sizeof(b->binding_ordered));
}

static const struct scenario_domain *configured(const char *domain)
{
	return world->scenario != NULL ? scenario_domain(world->scenario, domain) : NULL;
}

struct book_domain *books_domain(struct books *b, const char *domain)
{
	const struct scenario_domain *d = configured(domain);

	return d != NULL ? &b->domains[d - world->scenario->domains] : NULL;
}

static uint32_t own_limit(const struct scenario_domain *d)
{
	return d->max_connections != 0 ? d->max_connections : UINT32_MAX / 64;
}

static uint32_t least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* One that may have more than all behind the gateway together is alone. */
static bool shares_gateway(const struct scenario_domain *d)
{
	return d->behind_gateway && own_limit(d) <= world->scenario->gateway_connections;
}

/* Domains that share a receiver may all be connected to it. Those of the family together as their
 * sites may: one for each set, or one. Those behind the global gateway as its site on each
 * scheduler may. And each that is alone as it may. */
static uint32_t connections_allowed(const struct scenario_domain *d)
{
	const struct scenario *s = world->scenario;
	uint32_t schedulers = s->crew_changes ? SCENARIO_SCHEDULERS_MAX : s->schedulers;
	uint32_t alone = 0;
	uint32_t family = 0;
	uint32_t behind = 0;

	for (uint32_t i = 0; i < s->domain_count; i++) {
		const struct scenario_domain *other = &s->domains[i];

		if (other->port == d->port) {
			*(!other->rollup          ? &alone
			  : other->in_family      ? &family
			  : shares_gateway(other) ? &behind
						  : &alone) += own_limit(other);
		}
	}
	return alone + least(behind, s->gateway_connections * schedulers) +
	       least(family, s->family_connections * (s->family_provider ? 1 : s->family_sets));
}

/* All domains of a receiver count in the first of them. */
static struct book_domain *receiver_of(struct books *b, const struct scenario_domain *d)
{
	const struct scenario_domain *first = world->scenario->domains;

	while (first->port != d->port) {
		first++;
	}
	return &b->domains[first - world->scenario->domains];
}

void books_connection(struct books *b, const char *domain, uint32_t binding, int change)
{
	const struct scenario_domain *d = configured(domain);
	int *connections;

	if (d == NULL) {
		world_fail("a connection was made to %s, which is not there", domain);
	}
	connections = &receiver_of(b, d)->connections[binding];
	*connections += change;
	if (*connections < 0) {
		world_fail("%s has %d connections", domain, *connections);
	}
	if ((uint32_t)*connections > connections_allowed(d)) {
		world_fail("%d connections to %s, where %u are allowed", *connections, domain,
			   connections_allowed(d));
	}
}

/*
 * What a throttle lets through since it was new: a burst, and one each interval (GCRA, see
 * core/queue/throttle.c). A transaction is seen later than it was let through, never earlier, so
 * this holds at any time. When a peer hangs up, a transaction that got no answer does not count for
 * the program; and each connection may bring one on of the life before.
 */
static void check_throttle(const struct books *b, const struct scenario_domain *d, uint64_t count)
{
	uint64_t per_s = d->throttle_messages / (d->throttle_ns / NS_PER_S);
	uint64_t interval_ns = d->throttle_ns / d->throttle_messages;
	uint64_t burst = per_s > 1 ? per_s : 1;
	uint64_t passed_ns = world->now_ns - b->life_began_ns;

	if (world->scenario->net_faults || world->scenario->tempers) {
		return;
	}
	if (count >
	    burst + passed_ns / interval_ns + 1 +
		    d->max_connections * world->scenario->binding_count * (world->life > 1)) {
		world_fail("%llu messages to %s in %.3f s, where %u per %.0f s are allowed",
			   (unsigned long long)count, d->name, (double)passed_ns / 1e9,
			   d->throttle_messages, (double)d->throttle_ns / 1e9);
	}
}

void books_transaction(struct books *b, const char *domain, uint32_t recipients)
{
	const struct scenario_domain *d = configured(domain);
	struct book_domain *r = books_domain(b, domain);

	if (d == NULL) {
		world_fail("a transaction was begun for %s, which is not there", domain);
	}
	r->transactions++;
	if (d->max_recipients != 0 && recipients > d->max_recipients) {
		world_fail("%u recipients in a transaction for %s, where %u are allowed",
			   recipients, domain, d->max_recipients);
	}
	if (d->throttle_messages != 0) {
		check_throttle(b, d, r->transactions);
	}
}

void books_delivery_of_connection(struct books *b, const char *domain, uint32_t count)
{
	const struct scenario_domain *d = configured(domain);

	(void)b;
	if (d != NULL && d->max_deliveries_per_connection != 0 &&
	    count > d->max_deliveries_per_connection) {
		world_fail("%u deliveries on one connection to %s, where %u are allowed", count,
			   domain, d->max_deliveries_per_connection);
	}
}
