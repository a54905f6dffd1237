/*
 * Commands about sites: MX sets, providers, gateways and domains that are alone, each with what its
 * domains share. Each scheduler writes its own rows, so many in a duty cycle.
 */
#include "listeners/control/command.h"

#include <string.h>
#include <strings.h>

#include "core/queue/answers.h"

enum { SITES, DOMAINS, CONNECTIONS };

/* ---- a site, on its scheduler ---- */

static unsigned failed_hosts(const struct lane *l, uint64_t now_ms)
{
	unsigned count = 0;

	for (uint32_t i = 0; i < l->host_count; i++) {
		count += l->hosts[i].failed_until_ms > now_ms;
	}
	return count;
}

static uint64_t waiting_in(const struct site *s)
{
	uint64_t sum = 0;

	for (const struct lane *l = s->lanes; l != NULL; l = l->next) {
		sum += l->waiting;
	}
	return sum;
}

/* What holds the domain whose turn it is. */
static const char *held_by(const struct scheduler *s, const struct site *site)
{
	const struct lane *l = site->lanes;

	while (l != NULL && l->ready == NULL) {
		l = l->next;
	}
	return l != NULL ? command_held_by(s, l->ready) : "";
}

static json_t *row_of(const struct scheduler *s, const struct site *site)
{
	json_t *row = value_object();
	unsigned failed = 0;
	unsigned hosts = 0;

	for (const struct lane *l = site->lanes; l != NULL; l = l->next) {
		failed += failed_hosts(l, agent_now_ms(&s->base));
		hosts += l->host_count;
	}
	value_set_text(row, "site", site->key);
	value_set_text(row, "binding", site->binding);
	value_set_text(row, "home", s->base.name);
	value_set_number(row, "domains", site->domain_count);
	value_set_number(row, "waiting", waiting_in(site));
	value_set_number(row, "connections", site->connection_count);
	value_set_number(row, "limit", site->options->max_outbound_connections);
	value_set_number(row, "hosts", hosts);
	value_set_number(row, "hosts_failed", failed);
	value_set_text(row, "held_by", held_by(s, site));
	return row;
}

static json_t *lane_of(const struct scheduler *s, const struct lane *l)
{
	json_t *v = value_object();

	value_set_number(v, "domains", l->domain_count);
	value_set_number(v, "waiting", l->waiting);
	value_set_number(v, "connections", l->connection_count);
	value_set_number(v, "connecting", l->connecting_count);
	value_set_number(v, "idle", l->idle_count);
	if (l->trouble != NULL) {
		value_set_text(v, "last_trouble", l->trouble);
	}
	value_set(v, "next_hops", command_hosts(s, l));
	return v;
}

json_t *command_answers(const struct site *site)
{
	json_t *rows = value_array();

	for (uint32_t i = 0; site != NULL && site->answers != NULL && i < site->answers->count;
	     i++) {
		const struct answer *a = site->answers->rows[i];
		json_t *row = value_object();

		value_set_time(row, "at", a->at_ms);
		value_set_text(row, "outcome", a->failed ? "failed" : "deferred");
		value_set_number(row, "recipients", a->count);
		value_set_text(row, "domain", a->domain);
		value_set_text(row, "address", a->host);
		value_set_text(row, "answer", a->text);
		value_append(rows, row);
	}
	return rows;
}

static json_t *describe(const struct scheduler *s, const struct site *site)
{
	json_t *v = row_of(s, site);
	json_t *lanes = value_array();

	value_set_number(v, "connections_opened", site->connections_opened);
	value_set_number(v, "most_connections", site->connections_max);
	value_set_number(v, "delivered", site->delivered);
	value_set_number(v, "sent_bytes", site->bytes_sent);
	for (const struct lane *l = site->lanes; l != NULL; l = l->next) {
		value_append(lanes, lane_of(s, l));
	}
	value_set(v, "lanes", lanes);
	value_set(v, "answers", command_answers(site));
	return v;
}

/* ---- walks ---- */

typedef void (*each_site_fn)(struct part *p, struct scheduler *s, const struct site *site);

/* As part_walk(), over sites. */
static bool walk(struct part *p, struct agent *self, each_site_fn each)
{
	struct scheduler *s = order_scheduler_of(self);
	const struct site_table *t = &s->dispatcher.sites;

	if (p->bucket_count != t->bucket_count) {
		part_walk_restart(p, t->bucket_count);
	}
	for (uint32_t seen = 0; p->bucket < p->bucket_count && seen < ORDER_ROWS_PER_STEP;
	     p->bucket++) {
		for (const struct site *site = t->buckets[p->bucket]; site != NULL;
		     site = site->hash_next) {
			each(p, s, site);
			seen++;
		}
		seen += p->bucket % 16 == 0;
	}
	return p->bucket == p->bucket_count;
}

static void add_totals(struct part *p, const struct site *site)
{
	p->totals[SITES]++;
	p->totals[DOMAINS] += site->domain_count;
	p->totals[CONNECTIONS] += site->connection_count;
}

static void each_row(struct part *p, struct scheduler *s, const struct site *site)
{
	add_totals(p, site);
	part_row(p, row_of(s, site));
}

static bool sites_step(struct part *p, struct agent *self)
{
	return walk(p, self, each_row);
}

static void merge_rows(struct order *o)
{
	json_t *v = value_object();

	value_set_number(v, "sites", order_total(o, SITES));
	value_set_number(v, "domains", order_total(o, DOMAINS));
	value_set_number(v, "connections", order_total(o, CONNECTIONS));
	order_answer_rows(o, "sites", "totals", v);
}

void command_sites(struct order *o)
{
	order_on_schedulers(o, sites_step, merge_rows);
}

/* The name is one of the key's words: a provider, an exchanger, a gateway, a domain that is alone;
 * or that of a domain whose mail goes there. */
static bool is_named(const struct scheduler *s, const struct site *site, const char *name)
{
	const struct domain *d = domain_find(&s->dispatcher.domains, site->binding, name);
	size_t len = strlen(name);

	if (d != NULL && d->lane != NULL && d->lane->site == site) {
		return true;
	}

	for (const char *at = strchr(site->key, ' '); at != NULL; at = strchr(at + 1, ' ')) {
		if (strncasecmp(at + 1, name, len) == 0 &&
		    (at[1 + len] == '\0' || at[1 + len] == ' ')) {
			return true;
		}
	}
	return false;
}

static void each_named(struct part *p, struct scheduler *s, const struct site *site)
{
	if (is_named(s, site, p->order->arguments[0])) {
		p->totals[SITES]++;
		part_row(p, describe(s, site));
	}
}

static bool site_step(struct part *p, struct agent *self)
{
	return walk(p, self, each_named);
}

static void merge_named(struct order *o)
{
	if (order_total(o, SITES) == 0) {
		order_fail(
			o,
			"no site \"%s\": no mail goes to a provider, exchanger or domain of that "
			"name now; \"sites\" lists what there is",
			o->arguments[0]);
		return;
	}
	order_answer_rows(o, "sites", NULL, NULL);
}

void command_site_show(struct order *o)
{
	order_on_schedulers(o, site_step, merge_named);
}
