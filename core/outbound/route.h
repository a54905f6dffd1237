/*
 * Route: from a domain to the hosts that take its mail, in the order of RFC 5321 section 5.1, or
 * the reason why there are none. A pure state machine: it says what to ask the name service, is
 * told the answers in any order, and in the end gives a verdict. It knows no time and no threads,
 * and its only randomness is the seed that it is given.
 *
 *     route_create; route_next_question until false; route_answer for each, asking on after each;
 *     when route_done: route_finish, route_destroy.
 *
 * Start reading at route_finish(), last in route.c.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/mail/dns.h"
#include "core/mail/sts_policy.h"
#include "core/queue/site.h"
#include "core/runtime/thread_class.h"

/* Addresses of a route, and mail exchangers that are looked at. */
#define NEXT_HOP_MAX 64
#define ROUTE_TEXT 256

enum route_result {
	ROUTE_HOSTS,
	/* For good: the domain does not exist; it says that it takes no mail (RFC 7505); nothing of
	 * it has an address; mail would come back to this machine; its literal is no address. */
	ROUTE_NXDOMAIN,
	ROUTE_NULL_MX,
	ROUTE_NO_ADDRESS,
	ROUTE_LOOP,
	ROUTE_BAD_LITERAL,
	/* For now: the name service failed, or answered what DNSSEC proves wrong, or did not answer
	 * in time. */
	ROUTE_SERVFAIL,
	ROUTE_BOGUS,
	ROUTE_TIMEOUT,
	/* No host may be used: its TLSA records cannot be had; or there are none, and `tls` demands
	 * some. */
	ROUTE_DANE,
	/* The domain's MTA-STS policy lists no exchanger of it (RFC 8461 section 4.1). */
	ROUTE_STS,
	/* The asker gave up: no verdict. */
	ROUTE_CANCELLED,
	ROUTE_RESULTS
};

/* Where this machine takes mail itself: an address (IPv4 as v4-mapped) and a port. */
READONLY
struct route_listen {
	struct in6_addr address;
	uint16_t port;
};

/* Who we are. An exchanger of that name, or at such an address and port, is this machine. */
READONLY
struct route_self {
	const char *hostname;
	const struct route_listen *listens;
	uint32_t listen_count;
};

SINGLE
struct route_verdict {
	enum route_result result;
	/* ROUTE_HOSTS: in order, in one piece of memory with their names (free). */
	struct host *hosts;
	uint32_t count;
	/* The mail exchangers, "PREFERENCE HOST PREFERENCE HOST ..." in lower case, sorted by
	 * preference, then name: domains with equal ones share an MX set. NULL: there are none, or
	 * they were not asked for. malloc. */
	char *mx;
	/* How long it holds; 0: not at all, for what is ROUTE_SERVFAIL and below. */
	uint64_t ttl_ms;
	/* DNSSEC has proven the MX records, or that there are none. */
	bool mx_secure;
	/* Exchangers that are aliases, that have no address, that are written as addresses. */
	uint32_t alias_count;
	uint32_t dead_count;
	uint32_t literal_count;
	/* Names of next hops that are not used, as their TLSA records cannot be had. */
	uint32_t dane_failed_count;
	/* Why there are no hosts. */
	char text[ROUTE_TEXT];
};

struct route;

/* True when no question is needed: every gateway is an address, or there is none and the domain is
 * written as an address ("[192.0.2.1]"). Then `*verdict` is set. */
READONLY
bool route_literal(const struct domain_options *options, const char *domain,
		   struct route_verdict *verdict);

/* Begins; none of the arguments is copied, and all must stay. Never NULL. */
SINGLE
struct route *route_create(const struct domain_options *options, const char *domain,
			   const struct route_self *self, uint64_t seed);

/* One question that is to be asked now. `id` is for route_answer(); `name` is the route's. False:
 * none, until an answer raises more. */
SINGLE
bool route_next_question(struct route *r, uint32_t *id, const char **name, enum dns_type *type);

/* The answer to a question, to be kept for `ttl_s`, which does not count for a failure; a reference
 * is taken. */
SINGLE
void route_answer(struct route *r, uint32_t id, struct dns_answer *answer, uint32_t ttl_s);

/* All questions have been asked and answered. */
SINGLE
bool route_done(const struct route *r);

/* Nothing that was asked waits for its answer. */
SINGLE
bool route_idle(const struct route *r);

/* The verdict of a route that is done. */
SINGLE
void route_finish(struct route *r, struct route_verdict *verdict);

/* Frees what a verdict brought along. */
SINGLE
void route_verdict_free(struct route_verdict *v);

SINGLE
void route_destroy(struct route *r);

/* Does to a verdict what the domain's policy of MTA-STS demands (RFC 8461 section 5): hosts that it
 * does not list are left out, those that it does have to prove who they are; or, when it is only
 * testing, that is noted. Hosts with TLSA records are none of its business. NULL: no policy. */
SINGLE
void route_obey(struct route_verdict *v, const char *domain, const struct sts_policy *policy);

/* For good, rather than for now. */
READONLY
bool route_is_permanent(enum route_result result);
/* The reply that stands for it: 550 and "5.1.2", and so on. Not for ROUTE_HOSTS. */
READONLY
uint16_t route_code(enum route_result result);
READONLY
const char *route_enhanced(enum route_result result);
