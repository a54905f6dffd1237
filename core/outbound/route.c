#include "core/outbound/route.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/outbound/route_parts.h"
#include "core/runtime/check.h"
#include "core/runtime/clock.h"

/* Questions: the domain's MX, then up to four for each target: AAAA, A, and TLSA of what it is an
 * alias of and of its own name. */
#define QUESTION_MX 0
#define QUESTIONS (FAMILIES + DANE_STEPS)
#define QUESTION_OF(target, which) (1 + QUESTIONS * (target) + (which))

enum route_result route_transient_of(enum dns_status status)
{
	switch (status) {
	case DNS_SERVFAIL:
		return ROUTE_SERVFAIL;
	case DNS_BOGUS:
		return ROUTE_BOGUS;
	case DNS_TIMEOUT:
		return ROUTE_TIMEOUT;
	case DNS_CANCELLED:
		return ROUTE_CANCELLED;
	case DNS_FOUND:
	case DNS_NXDOMAIN:
	case DNS_NODATA:
	case DNS_STATUSES:
		break;
	}
	return ROUTE_NO_ADDRESS;
}

/* ---- addresses ---- */

void route_set_v4(struct host *h, const struct in_addr *address, uint16_t port)
{
	h->address.v4 = (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = *address};
	h->address_len = sizeof h->address.v4;
}

void route_set_v6(struct host *h, const struct in6_addr *address, uint16_t port)
{
	h->address.v6 = (struct sockaddr_in6){
		.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = *address};
	h->address_len = sizeof h->address.v6;
}

bool route_set_text(struct host *h, const char *text, uint16_t port)
{
	struct in_addr v4;
	struct in6_addr v6;

	memset(h, 0, sizeof *h);
	if (inet_pton(AF_INET, text, &v4) == 1) {
		route_set_v4(h, &v4, port);
	} else if (inet_pton(AF_INET6, text, &v6) == 1) {
		route_set_v6(h, &v6, port);
	} else {
		return false;
	}
	return true;
}

/* An exchanger has to be a name (RFC 5321 section 5.1): "192.0.2.1" and "[192.0.2.1]" are none. */
static bool is_address(const char *name)
{
	struct host h;
	char bare[INET6_ADDRSTRLEN] = "";
	size_t len = strlen(name);

	if (name[0] != '[') {
		return route_set_text(&h, name, 0);
	}
	if (len > 2 && len - 2 < sizeof bare) {
		memcpy(bare, name + 1, len - 2);
	}
	return route_set_text(&h, bare, 0);
}

/* Whether there is another one than for the host before. */
static bool has_own_name(const struct host *hosts, uint32_t i)
{
	return i == 0 || hosts[i].name != hosts[i - 1].name;
}

static bool has_own_dane(const struct host *hosts, uint32_t i)
{
	return hosts[i].dane != NULL && (i == 0 || hosts[i].dane != hosts[i - 1].dane);
}

static size_t hosts_size(const struct host *hosts, uint32_t count)
{
	size_t size = count * sizeof *hosts;

	size = (size + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
	for (uint32_t i = 0; i < count; i++) {
		size += has_own_name(hosts, i) ? strlen(hosts[i].name) + 1 : 0;
		size += has_own_dane(hosts, i) ? hosts[i].dane->size : 0;
	}
	return size;
}

struct host *route_hosts_pack(const struct host *hosts, uint32_t count)
{
	struct host *packed = check_memory(malloc(hosts_size(hosts, count)), "next hops");
	size_t used = count * sizeof *packed;
	char *at = (char *)packed;

	at += (used + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
	for (uint32_t i = 0; i < count; i++) {
		packed[i] = hosts[i];
		if (has_own_dane(hosts, i)) {
			packed[i].dane = dane_copy(hosts[i].dane, at);
			at += hosts[i].dane->size;
		} else if (hosts[i].dane != NULL) {
			packed[i].dane = packed[i - 1].dane;
		}
	}
	for (uint32_t i = 0; i < count; i++) {
		size_t len = strlen(hosts[i].name) + 1;

		if (!has_own_name(hosts, i)) {
			packed[i].name = packed[i - 1].name;
			continue;
		}
		packed[i].name = memcpy(at, hosts[i].name, len);
		at += len;
	}
	return packed;
}

/* ---- literals ---- */

static bool literal_gateways(const struct domain_options *options, struct route_verdict *v)
{
	struct host hosts[NEXT_HOP_MAX];
	uint32_t count =
		options->gateway_count < NEXT_HOP_MAX ? options->gateway_count : NEXT_HOP_MAX;

	for (uint32_t i = 0; i < count; i++) {
		const struct gateway *g = &options->gateways[i];

		if (!route_set_text(&hosts[i], g->host, g->port)) {
			return false;
		}
		hosts[i].name = g->host;
		hosts[i].preference = g->preference;
	}
	v->hosts = route_hosts_pack(hosts, count);
	v->count = count;
	return true;
}

/* "[192.0.2.1]" or "[IPv6:2001:db8::1]", RFC 5321 section 4.1.3. */
static void literal_domain(const struct domain_options *options, const char *domain,
			   struct route_verdict *v)
{
	char text[INET6_ADDRSTRLEN] = "";
	size_t len = strlen(domain);
	const char *from = domain + 1;
	struct host h;

	if (strncasecmp(from, "ipv6:", 5) == 0) {
		from += 5;
	}
	len -= (size_t)(from - domain);
	if (len > 0 && len <= sizeof text && from[len - 1] == ']') {
		memcpy(text, from, len - 1);
	}
	if (!route_set_text(&h, text, options->remote_smtp_port)) {
		v->result = ROUTE_BAD_LITERAL;
		snprintf(v->text, sizeof v->text, "%.80s is no address", domain);
		return;
	}
	h.name = text;
	v->hosts = route_hosts_pack(&h, 1);
	v->count = 1;
}

bool route_literal(const struct domain_options *options, const char *domain,
		   struct route_verdict *v)
{
	*v = (struct route_verdict){.result = ROUTE_HOSTS, .ttl_ms = UINT64_MAX / 4};
	if (options->gateway_count > 0) {
		return literal_gateways(options, v);
	}
	if (domain[0] != '[') {
		return false;
	}
	literal_domain(options, domain, v);
	return true;
}

/* ---- targets ---- */

/* splitmix64 */
static uint64_t random_next(struct route *r)
{
	uint64_t z = (r->random += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

static struct target *target_add(struct route *r, const char *name, uint16_t port,
				 uint16_t preference)
{
	struct target *t = &r->targets[r->target_count++];

	*t = (struct target){.name = name, .port = port, .preference = preference};
	return t;
}

static void gateways_to_targets(struct route *r)
{
	const struct domain_options *o = r->options;
	struct host h;

	for (uint32_t i = 0; i < o->gateway_count && i < NEXT_HOP_MAX; i++) {
		const struct gateway *g = &o->gateways[i];

		target_add(r, g->host, g->port, g->preference)->literal =
			route_set_text(&h, g->host, g->port);
	}
	r->targets_known = true;
}

/* The domain takes its mail itself. */
static void domain_to_target(struct route *r)
{
	r->implicit = true;
	target_add(r, r->domain, r->options->remote_smtp_port, 0)->self =
		strcasecmp(r->domain, r->self->hostname) == 0;
}

/* By preference; equal ones, drawn before, stay as they are. */
static void sort_exchangers(const struct dns_record **mx, uint32_t count)
{
	for (uint32_t i = 1; i < count; i++) {
		const struct dns_record *moved = mx[i];
		uint32_t at = i;

		while (at > 0 && mx[at - 1]->mx.preference > moved->mx.preference) {
			mx[at] = mx[at - 1];
			at--;
		}
		mx[at] = moved;
	}
}

static bool is_listed(const struct route *r, const char *name)
{
	for (uint32_t i = 0; i < r->target_count; i++) {
		if (strcmp(r->targets[i].name, name) == 0) {
			return true;
		}
	}
	return false;
}

static void exchangers_to_targets(struct route *r)
{
	const struct dns_record *mx[DNS_RECORDS_MAX];
	uint32_t count = r->mx->count;

	for (uint32_t i = 0; i < count; i++) {
		uint32_t at = (uint32_t)(random_next(r) % (i + 1));

		mx[i] = mx[at];
		mx[at] = &r->mx->records[i];
	}
	sort_exchangers(mx, count);
	for (uint32_t i = 0; i < count && r->target_count < NEXT_HOP_MAX; i++) {
		const char *name = mx[i]->mx.exchange;

		if (is_address(name)) {
			r->literal_count++;
		} else if (name[0] != '\0' && !is_listed(r, name)) {
			target_add(r, name, r->options->remote_smtp_port, mx[i]->mx.preference)
				->self = strcasecmp(name, r->self->hostname) == 0;
		}
	}
}

bool route_is_null_mx(const struct dns_answer *mx)
{
	return mx->status == DNS_FOUND && mx->count == 1 && mx->records[0].mx.exchange[0] == '\0';
}

static void on_mx(struct route *r)
{
	if (r->mx->status == DNS_FOUND && !route_is_null_mx(r->mx)) {
		exchangers_to_targets(r);
	} else if (r->mx->status == DNS_NODATA) {
		domain_to_target(r);
	}
	r->targets_known = true;
}

/* ---- questions ---- */

struct route *route_create(const struct domain_options *options, const char *domain,
			   const struct route_self *self, uint64_t seed)
{
	struct route *r = check_memory(malloc(sizeof *r), "a look-up");

	memset(r, 0, offsetof(struct route, targets));
	r->options = options;
	r->domain = domain;
	r->self = self;
	r->random = seed;
	r->ttl_s = UINT32_MAX;
	if (options->gateway_count > 0) {
		gateways_to_targets(r);
	}
	return r;
}

static bool wants(const struct route *r, enum family family)
{
	return r->options->address_family !=
	       (family == FAMILY_V6 ? ADDRESS_FAMILY_IPV4 : ADDRESS_FAMILY_IPV6);
}

/* Where the next question for an address is; false: all have been asked. */
static bool find_question(const struct route *r, uint32_t *target, enum family *family)
{
	for (uint32_t i = 0; i < r->target_count; i++) {
		const struct target *t = &r->targets[i];

		for (enum family f = FAMILY_V6; f < FAMILIES; f++) {
			if (!t->asked[f] && !t->literal && !t->self && wants(r, f)) {
				*target = i;
				*family = f;
				return true;
			}
		}
	}
	return false;
}

const struct dns_answer *route_proven_address(const struct route *r, const struct target *t)
{
	const struct dns_answer *proven = NULL;

	if (r->options->tls != DOMAIN_TLS_DANE &&
	    r->options->tls != DOMAIN_TLS_DANE_OR_OPPORTUNISTIC) {
		return NULL;
	}
	if (t->literal || t->self || (r->mx != NULL && !r->mx->secure)) {
		return NULL;
	}
	for (enum family f = FAMILY_V6; f < FAMILIES; f++) {
		const struct dns_answer *a = t->answers[f];

		if (a == NULL && wants(r, f)) {
			return NULL;
		}
		if (a != NULL && a->status == DNS_FOUND && a->secure && proven == NULL) {
			proven = a;
		}
	}
	return proven;
}

static bool find_tlsa(const struct route *r, uint32_t *target)
{
	for (uint32_t i = 0; i < r->target_count; i++) {
		const struct target *t = &r->targets[i];
		const struct dns_answer *address = route_proven_address(r, t);

		if (address != NULL && dane_has_question(&t->tlsa, t->name, address->canonical)) {
			*target = i;
			return true;
		}
	}
	return false;
}

static bool has_questions(const struct route *r)
{
	uint32_t target;
	enum family family;

	return find_question(r, &target, &family) || find_tlsa(r, &target);
}

static bool next_tlsa(struct route *r, uint32_t *id, const char **name)
{
	uint32_t target;
	enum dane_step step;
	struct target *t;

	if (!find_tlsa(r, &target)) {
		return false;
	}
	t = &r->targets[target];
	dane_next_question(&t->tlsa, t->name, route_proven_address(r, t)->canonical, t->port, &step,
			   name);
	*id = QUESTION_OF(target, FAMILIES + step);
	return true;
}

bool route_next_question(struct route *r, uint32_t *id, const char **name, enum dns_type *type)
{
	uint32_t target;
	enum family family;

	if (!r->targets_known) {
		*id = QUESTION_MX;
		*name = r->domain;
		*type = DNS_MX;
		if (r->mx_asked) {
			return false;
		}
		r->mx_asked = true;
		r->waiting++;
		return true;
	}
	if (next_tlsa(r, id, name)) {
		*type = DNS_TLSA;
		r->waiting++;
		return true;
	}
	if (!find_question(r, &target, &family)) {
		return false;
	}
	r->targets[target].asked[family] = true;
	r->waiting++;
	*id = QUESTION_OF(target, family);
	*name = r->targets[target].name;
	*type = family == FAMILY_V6 ? DNS_AAAA : DNS_A;
	return true;
}

void route_answer(struct route *r, uint32_t id, struct dns_answer *answer, uint32_t ttl_s)
{
	struct dns_answer **slot = &r->mx;
	uint32_t which = id != QUESTION_MX ? (id - 1) % QUESTIONS : 0;

	ASSERT(r->waiting > 0);
	r->waiting--;
	if (which >= FAMILIES) {
		dane_answer(&r->targets[(id - 1) / QUESTIONS].tlsa, which - FAMILIES, answer);
	} else {
		if (id != QUESTION_MX) {
			slot = &r->targets[(id - 1) / QUESTIONS].answers[which];
		}
		ASSERT(*slot == NULL);
		*slot = dns_answer_hold(answer);
	}
	/* A failure is good for no time, which does not make what was found so. */
	if (route_transient_of(answer->status) == ROUTE_NO_ADDRESS) {
		r->ttl_s = ttl_s < r->ttl_s ? ttl_s : r->ttl_s;
	}
	if (id == QUESTION_MX) {
		on_mx(r);
	}
}

bool route_done(const struct route *r)
{
	return r->targets_known && r->waiting == 0 && !has_questions(r);
}

bool route_idle(const struct route *r)
{
	return r->waiting == 0;
}

void route_destroy(struct route *r)
{
	for (uint32_t i = 0; i < r->target_count; i++) {
		dns_answer_release(r->targets[i].answers[FAMILY_V6]);
		dns_answer_release(r->targets[i].answers[FAMILY_V4]);
		dane_lookup_close(&r->targets[i].tlsa);
		free(r->targets[i].dane);
	}
	dns_answer_release(r->mx);
	free(r);
}
