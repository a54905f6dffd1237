/*
 * What the two parts of a route share: route.c asks the name service, route_finish.c says what its
 * answers come to. Private to them.
 */
#pragma once

#include "core/outbound/dane.h"
#include "core/outbound/route.h"

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
CONCURRENT
enum route_result route_transient_of(enum dns_status status);

/* The address of a host. */
CONCURRENT
void route_set_v4(struct host *h, const struct in_addr *address, uint16_t port);
CONCURRENT
void route_set_v6(struct host *h, const struct in6_addr *address, uint16_t port);
/* The same, of text; false: it is no address. */
CONCURRENT
bool route_set_text(struct host *h, const char *text, uint16_t port);

/* Copies hosts, their TLSA records and their names into one piece of memory of the exact size: the
 * caller's, by free(). Neighbours that have the same share them. */
CONCURRENT
struct host *route_hosts_pack(const struct host *hosts, uint32_t count);

/* One record, whose exchanger is the root: RFC 7505 section 3. */
CONCURRENT
bool route_is_null_mx(const struct dns_answer *mx);

/* TLSA records count where DNSSEC has proven everything on the way to them: who the exchanger is,
 * and its address, the answer with which is returned (RFC 7672 section 2.2). NULL: they do not, or
 * that is not known yet. */
SINGLE
const struct dns_answer *route_proven_address(const struct route *r, const struct target *t);
