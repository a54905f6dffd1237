#include "core/outbound/route.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/outbound/dane.h"
#include "core/runtime/check.h"
#include "core/runtime/clock.h"

/* Hosts are used for as long at least, or they would be looked up again before they are. */
#define HOSTS_MS_MIN 1000

/* Questions: the domain's MX, then up to four for each target: AAAA, A, and TLSA of what it is an
 * alias of and of its own name. */
#define QUESTION_MX 0
#define QUESTIONS (FAMILIES + DANE_STEPS)
#define QUESTION_OF(target, which) (1 + QUESTIONS * (target) + (which))

enum family { FAMILY_V6, FAMILY_V4, FAMILIES };

/* A name to be looked up: an exchanger, a gateway, or the domain itself. */
SINGLE
struct target {
	const char *name;
	uint16_t preference;
	uint16_t port;
	/* A gateway that is written as an address. */
	bool literal;
	/* This machine, by name or by address. */
	bool self;
	/* Asked: the next question is not for this one. */
	bool asked[FAMILIES];
	/* NULL: not asked, or not answered yet. */
	struct dns_answer *answers[FAMILIES];
	struct dane_lookup tlsa;
	/* What that came to, in the verdict; NULL: nothing. */
	struct dane *dane;
};

SINGLE
struct route {
	const struct domain_options *options;
	const char *domain;
	const struct route_self *self;
	uint64_t random;
	/* Questions asked and not answered. */
	uint32_t waiting;
	bool mx_asked;
	struct dns_answer *mx;
	/* Targets are known; implicit: the domain is its own exchanger. */
	bool targets_known;
	bool implicit;
	uint32_t ttl_s;
	uint32_t literal_count;
	uint32_t target_count;
	struct target targets[NEXT_HOP_MAX];
};

/* The result of a look-up that failed for now; ROUTE_NO_ADDRESS: it did not. */
static enum route_result transient_of(enum dns_status status)
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

static void set_v4(struct host *h, const struct in_addr *address, uint16_t port)
{
	h->address.v4 = (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = *address};
	h->address_len = sizeof h->address.v4;
}

static void set_v6(struct host *h, const struct in6_addr *address, uint16_t port)
{
	h->address.v6 = (struct sockaddr_in6){
		.sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = *address};
	h->address_len = sizeof h->address.v6;
}

static bool set_text(struct host *h, const char *text, uint16_t port)
{
	struct in_addr v4;
	struct in6_addr v6;

	memset(h, 0, sizeof *h);
	if (inet_pton(AF_INET, text, &v4) == 1) {
		set_v4(h, &v4, port);
	} else if (inet_pton(AF_INET6, text, &v6) == 1) {
		set_v6(h, &v6, port);
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
		return set_text(&h, name, 0);
	}
	if (len > 2 && len - 2 < sizeof bare) {
		memcpy(bare, name + 1, len - 2);
	}
	return set_text(&h, bare, 0);
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

/* Copies hosts, their TLSA records and their names into one piece of memory of the exact size.
 * Neighbours that have the same share them. */
static struct host *hosts_pack(const struct host *hosts, uint32_t count)
{
	struct host *packed = malloc(hosts_size(hosts, count));
	size_t used = count * sizeof *packed;
	char *at = (char *)packed;

	if (packed == NULL) {
		fatal("out of memory for next hops");
	}
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

		if (!set_text(&hosts[i], g->host, g->port)) {
			return false;
		}
		hosts[i].name = g->host;
		hosts[i].preference = g->preference;
	}
	v->hosts = hosts_pack(hosts, count);
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
	if (!set_text(&h, text, options->remote_smtp_port)) {
		v->result = ROUTE_BAD_LITERAL;
		snprintf(v->text, sizeof v->text, "%.80s is no address", domain);
		return;
	}
	h.name = text;
	v->hosts = hosts_pack(&h, 1);
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
			set_text(&h, g->host, g->port);
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

/* RFC 7505 section 3: one record, whose exchanger is the root. */
static bool is_null_mx(const struct dns_answer *mx)
{
	return mx->status == DNS_FOUND && mx->count == 1 && mx->records[0].mx.exchange[0] == '\0';
}

static void on_mx(struct route *r)
{
	if (r->mx->status == DNS_FOUND && !is_null_mx(r->mx)) {
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
	struct route *r = malloc(sizeof *r);

	if (r == NULL) {
		fatal("out of memory for a look-up");
	}
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

/* TLSA records count where DNSSEC has proven everything on the way to them: who the exchanger is,
 * and its address, the answer with which is returned (RFC 7672 section 2.2). NULL: they do not, or
 * that is not known yet. */
static const struct dns_answer *proven_address(const struct route *r, const struct target *t)
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
		const struct dns_answer *address = proven_address(r, t);

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
	dane_next_question(&t->tlsa, t->name, proven_address(r, t)->canonical, t->port, &step,
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
	if (transient_of(answer->status) == ROUTE_NO_ADDRESS) {
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
	if (is_null_mx(mx)) {
		v->result = ROUTE_NULL_MX;
		snprintf(v->text, sizeof v->text, "domain %.120s accepts no mail (null MX)",
			 r->domain);
		return false;
	}
	if (transient_of(mx->status) != ROUTE_NO_ADDRESS) {
		v->result = transient_of(mx->status);
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
		set_v6(h, &a->records[i].aaaa, t->port);
	} else {
		set_v4(h, &a->records[i].a, t->port);
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
	t->dane = dane_create(tlsa, step == DANE_OWN ? t->name : proven_address(r, t)->canonical,
			      names);
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

			set_text(h, t->name, t->port);
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
		g->incomplete |= transient_of(status) != ROUTE_NO_ADDRESS;
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
	v->result = g->worst_target != NULL ? transient_of(g->worst) : ROUTE_NO_ADDRESS;
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
	text = malloc(size);
	if (text == NULL) {
		fatal("out of memory for an MX set");
	}
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
			v->hosts = hosts_pack(g.hosts, v->count);
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
