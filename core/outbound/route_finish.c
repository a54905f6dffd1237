/*
 * The end of a route, its verdict: hosts in the order in which they are tried, or why there are
 * none.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/outbound/route_parts.h"
#include "core/runtime/check.h"

/* Hosts are used for as long at least, or they would be looked up again before they are. */
#define HOSTS_MS_MIN 1000

/* ---- loops ---- */

static bool is_ours(const struct route *r, const struct in6_addr *address, uint16_t port)
{
	for (uint32_t i = 0; i < r->self->listen_count; i++) {
		const struct route_listen *l = &r->self->listens[i];

		if (l->port == port && memcmp(&l->address, address, sizeof *address) == 0) {
			return true;
		}
	}
	return false;
}

static bool has_our_address(const struct route *r, const struct target *t)
{
	for (enum family f = FAMILY_V6; f < FAMILIES; f++) {
		const struct dns_answer *a = t->answers[f];

		for (uint32_t i = 0; a != NULL && i < a->count; i++) {
			struct in6_addr address = a->records[i].aaaa;

			if (f == FAMILY_V4) {
				address = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
				memcpy(address.s6_addr + 12, &a->records[i].a, 4);
			}
			if (is_ours(r, &address, t->port)) {
				return true;
			}
		}
	}
	return false;
}

/* RFC 5321 section 5.1: when this machine is listed, what is not preferred to it is left out, or
 * two exchangers would send mail to and fro. Returns how many targets are left; they are sorted.
 * What an operator has configured as a gateway is taken as it is. */
static uint32_t cut_at_ourselves(struct route *r)
{
	uint32_t kept = r->target_count;

	for (uint32_t i = 0; r->options->gateway_count == 0 && i < kept; i++) {
		struct target *t = &r->targets[i];

		t->self = t->self || has_our_address(r, t);
		if (t->self) {
			kept = i;
			while (kept > 0 && r->targets[kept - 1].preference == t->preference) {
				kept--;
			}
		}
	}
	return kept;
}

/* ---- the verdict ---- */

/* The worse one of two reasons why there is no address: what may pass comes before what will not,
 * and among those what DNSSEC says, then failures, then silence. */
static enum dns_status worse(enum dns_status a, enum dns_status b)
{
	static const uint8_t rank[DNS_STATUSES] = {
		[DNS_FOUND] = 0,    [DNS_NODATA] = 1, [DNS_NXDOMAIN] = 2,  [DNS_TIMEOUT] = 3,
		[DNS_SERVFAIL] = 4, [DNS_BOGUS] = 5,  [DNS_CANCELLED] = 6,
	};

	return rank[b] > rank[a] ? b : a;
}

/* What stands in the way of a look-up, in words. */
static void explain(struct route_verdict *v, const char *what, const char *name,
		    enum dns_status status, const struct dns_answer *a)
{
	const char *why = a != NULL && a->why != NULL ? a->why : NULL;
	const char *text = status == DNS_BOGUS     ? "DNSSEC validation failed"
			   : status == DNS_TIMEOUT ? "no answer from the name service in time"
						   : "the name service failed (SERVFAIL)";

	snprintf(v->text, sizeof v->text, "cannot look up %s of %.80s: %s%s%.100s", what, name,
		 text, why != NULL ? ": " : "", why != NULL ? why : "");
}

static bool judge_mx(struct route *r, struct route_verdict *v)
{
	const struct dns_answer *mx = r->mx;

	if (mx == NULL) {
		return true;
	}
	v->mx_secure = mx->secure;
	if (mx->status == DNS_NXDOMAIN) {
		v->result = ROUTE_NXDOMAIN;
		snprintf(v->text, sizeof v->text, "domain %.120s does not exist (NXDOMAIN)",
			 r->domain);
		return false;
	}
	if (route_is_null_mx(mx)) {
		v->result = ROUTE_NULL_MX;
		snprintf(v->text, sizeof v->text, "domain %.120s accepts no mail (null MX)",
			 r->domain);
		return false;
	}
	if (route_transient_of(mx->status) != ROUTE_NO_ADDRESS) {
		v->result = route_transient_of(mx->status);
		explain(v, "MX", r->domain, mx->status, mx);
		return false;
	}
	return true;
}

static void add_host(struct host *hosts, struct route_verdict *v, const struct target *t,
		     const struct dns_answer *a, uint32_t i)
{
	struct host *h;

	if (v->count == NEXT_HOP_MAX) {
		return;
	}
	h = &hosts[v->count++];
	memset(h, 0, sizeof *h);
	h->name = t->name;
	h->preference = t->preference;
	h->secure = a->secure;
	h->dane = a->secure ? t->dane : NULL;
	if (a->type == DNS_AAAA) {
		route_set_v6(h, &a->records[i].aaaa, t->port);
	} else {
		route_set_v4(h, &a->records[i].a, t->port);
	}
}

/* RFC 8305 section 4: families take turns, IPv6 first; within one the name service's order. */
static void add_interleaved(struct host *hosts, struct route_verdict *v, const struct target *t)
{
	const struct dns_answer *const *a = (const struct dns_answer *const *)t->answers;
	uint32_t most = 0;

	for (enum family f = FAMILY_V6; f < FAMILIES; f++) {
		most = a[f] != NULL && a[f]->count > most ? a[f]->count : most;
	}
	for (uint32_t i = 0; i < most; i++) {
		for (enum family f = FAMILY_V6; f < FAMILIES; f++) {
			if (a[f] != NULL && i < a[f]->count) {
				add_host(hosts, v, t, a[f], i);
			}
		}
	}
}

static bool is_alias(const struct target *t)
{
	for (enum family f = FAMILY_V6; f < FAMILIES; f++) {
		const struct dns_answer *a = t->answers[f];

		if (a != NULL && a->canonical != NULL && strcasecmp(a->canonical, t->name) != 0) {
			return true;
		}
	}
	return false;
}

/* The worst that was said when its addresses were asked for; `*said` by which answer. */
static enum dns_status status_of(const struct target *t, const struct dns_answer **said)
{
	enum dns_status status = DNS_FOUND;

	for (enum family f = FAMILY_V6; f < FAMILIES; f++) {
		const struct dns_answer *a = t->answers[f];

		if (a != NULL && worse(status, a->status) != status) {
			status = a->status;
			*said = a;
		}
	}
	return status;
}

/* ---- TLSA records ---- */

static void use_tlsa(const struct route *r, struct target *t, const struct dns_answer *tlsa,
		     enum dane_step step)
{
	const char *names[DANE_NAMES_MAX] = {NULL};

	if (r->mx != NULL) {
		names[0] = r->domain;
		names[1] = r->mx->canonical;
	}
	t->dane = dane_create(
		tlsa, step == DANE_OWN ? t->name : route_proven_address(r, t)->canonical, names);
}

/* Finds out what DANE says of a target that has addresses. False: it is not to be used, and why. */
static bool judge_tlsa(const struct route *r, struct target *t, struct route_verdict *v)
{
	const struct dns_answer *tlsa;
	enum dane_step step;

	switch (dane_state(&t->tlsa, &tlsa, &step)) {
	case DANE_FAILED:
		v->dane_failed_count++;
		explain(v, "TLSA", t->tlsa.names[step], tlsa->status, tlsa);
		return false;
	case DANE_PRESENT:
		use_tlsa(r, t, tlsa, step);
		break;
	case DANE_ABSENT:
		break;
	}
	if (r->options->tls != DOMAIN_TLS_DANE || (t->dane != NULL && t->dane->count > 0)) {
		return true;
	}
	snprintf(v->text, sizeof v->text, "DANE is required, and %.120s has no %s", t->name,
		 t->dane != NULL ? "usable TLSA record" : "TLSA record that DNSSEC proves");
	return false;
}

/* ---- hosts ---- */

/* What all targets together give: hosts, and the worst reason for those that gave none. */
SINGLE
struct gathering {
	struct host hosts[NEXT_HOP_MAX];
	enum dns_status worst;
	const struct target *worst_target;
	const struct dns_answer *worst_answer;
	/* Something of it may be better soon. */
	bool incomplete;
	/* A target with addresses was left out; the verdict's text says why. */
	bool without_dane;
};

static bool has_address(const struct target *t)
{
	return (t->answers[FAMILY_V6] != NULL && t->answers[FAMILY_V6]->count > 0) ||
	       (t->answers[FAMILY_V4] != NULL && t->answers[FAMILY_V4]->count > 0);
}

static void gather(struct route *r, struct route_verdict *v, struct gathering *g, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		struct target *t = &r->targets[i];
		const struct dns_answer *said = NULL;
		enum dns_status status = status_of(t, &said);
		uint32_t before = v->count;

		if (t->literal && v->count < NEXT_HOP_MAX) {
			struct host *h = &g->hosts[v->count++];

			route_set_text(h, t->name, t->port);
			h->name = t->name;
			h->preference = t->preference;
			continue;
		}
		if (has_address(t) && !judge_tlsa(r, t, v)) {
			g->without_dane = true;
			g->incomplete = true;
			continue;
		}
		add_interleaved(g->hosts, v, t);
		v->alias_count += is_alias(t);
		g->incomplete |= route_transient_of(status) != ROUTE_NO_ADDRESS;
		if (v->count == before && v->count < NEXT_HOP_MAX) {
			v->dead_count++;
			if (g->worst_target == NULL || worse(g->worst, status) != g->worst) {
				g->worst = status;
				g->worst_target = t;
				g->worst_answer = said;
			}
		}
	}
}

/* No host is left: why. */
static void judge_none(struct route *r, struct route_verdict *v, const struct gathering *g,
		       uint32_t kept)
{
	const char *name = g->worst_target != NULL ? g->worst_target->name : "";

	if (g->without_dane) {
		v->result = ROUTE_DANE;
		return;
	}
	v->result = g->worst_target != NULL ? route_transient_of(g->worst) : ROUTE_NO_ADDRESS;
	if (v->result != ROUTE_NO_ADDRESS) {
		explain(v, "addresses", name, g->worst, g->worst_answer);
	} else if (kept == 0 && r->target_count > 0) {
		v->result = ROUTE_LOOP;
		snprintf(v->text, sizeof v->text, "mail for %.80s loops back to myself (%.80s)",
			 r->domain, r->targets[0].name);
	} else if (r->implicit) {
		snprintf(v->text, sizeof v->text,
			 "domain %.120s has neither mail exchangers nor addresses", r->domain);
	} else if (g->worst_target == NULL) {
		snprintf(v->text, sizeof v->text,
			 "no mail exchanger of %.80s is a host name (%u are addresses)", r->domain,
			 r->literal_count);
	} else {
		snprintf(v->text, sizeof v->text, "no %s of %.80s has an address: %.80s (%s)",
			 r->options->gateway_count > 0 ? "gateway" : "mail exchanger", r->domain,
			 name, g->worst == DNS_NXDOMAIN ? "NXDOMAIN" : "no such record");
	}
}

/* ---- the MX set ---- */

static int compare_exchangers(const void *a, const void *b)
{
	const struct dns_record *x = *(const struct dns_record *const *)a;
	const struct dns_record *y = *(const struct dns_record *const *)b;

	if (x->mx.preference != y->mx.preference) {
		return x->mx.preference < y->mx.preference ? -1 : 1;
	}
	return strcasecmp(x->mx.exchange, y->mx.exchange);
}

/* As the name service gives them: dead ones and our own too, or a set would change with its
 * members' health. */
static char *describe_set(const struct dns_answer *mx)
{
	const struct dns_record *sorted[DNS_RECORDS_MAX];
	size_t size = 1;
	size_t used = 0;
	char *text;

	for (uint32_t i = 0; i < mx->count; i++) {
		sorted[i] = &mx->records[i];
		size += strlen(mx->records[i].mx.exchange) + 8;
	}
	qsort(sorted, mx->count, sizeof(sorted[0]), compare_exchangers);
	text = check_memory(malloc(size), "an MX set");
	text[0] = '\0';
	for (uint32_t i = 0; i < mx->count; i++) {
		used += (size_t)snprintf(text + used, size - used, "%s%u %s", i > 0 ? " " : "",
					 sorted[i]->mx.preference, sorted[i]->mx.exchange);
	}
	for (size_t i = 0; i < used; i++) {
		text[i] = (char)tolower((unsigned char)text[i]);
	}
	return text;
}

void route_finish(struct route *r, struct route_verdict *v)
{
	struct gathering g = {.worst = DNS_FOUND};
	uint32_t kept;

	ASSERT(route_done(r));
	*v = (struct route_verdict){.result = ROUTE_HOSTS, .literal_count = r->literal_count};
	if (judge_mx(r, v)) {
		kept = cut_at_ourselves(r);
		gather(r, v, &g, kept);
		if (v->count > 0) {
			v->hosts = route_hosts_pack(g.hosts, v->count);
			v->mx = r->mx != NULL && !r->implicit ? describe_set(r->mx) : NULL;
		} else {
			judge_none(r, v, &g, kept);
		}
	}
	if (v->result == ROUTE_HOSTS || route_is_permanent(v->result)) {
		v->ttl_ms = r->ttl_s == UINT32_MAX ? UINT64_MAX / 4 : (uint64_t)r->ttl_s * 1000;
	}
	if (v->result == ROUTE_HOSTS && v->ttl_ms < HOSTS_MS_MIN) {
		v->ttl_ms = HOSTS_MS_MIN;
	}
	if (g.incomplete && v->ttl_ms > r->options->host_failure_retry_ms) {
		v->ttl_ms = r->options->host_failure_retry_ms;
	}
}
