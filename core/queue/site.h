/*
 * Site: where mail of one binding goes together, and what all domains that go there share: limits,
 * connections and their counts. Its key is the set of mail exchangers, or the name of the provider
 * that they belong to, or the gateways that all mail of the binding has, or for a domain that is
 * alone its name. It lives on one scheduler; one of gateways has a twin on each other scheduler,
 * with limits of its own, so that mail stays where it is.
 *
 * A site has one lane or more. Domains of one lane have the same next hops, and the same options as
 * far as connections depend on them: a connection of the lane takes mail of each, in turns. What a
 * provider's customers have exchangers of their own for are lanes of one site; so are domains of
 * one MX set of which one has tls = verify and one has not. Limits are the site's, failures of
 * hosts the lane's.
 *
 * These are the containers; core/outbound/dispatch_site.c decides what is sent when.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/queue/domain.h"
#include "core/queue/options.h"
#include "core/runtime/thread_class.h"
#include "core/runtime/timer.h"

#define SITE_MAGIC 0x73697465U
/* First words of keys: "domain NAME", "provider NAME", "mx PREFERENCE HOST ...", "gateway
 * PREFERENCE HOST:PORT ...". */
#define SITE_OF_DOMAIN "domain "
#define SITE_OF_PROVIDER "provider "
#define SITE_OF_MX "mx "
#define SITE_OF_GATEWAYS "gateway "

/* What comes after the first word in `key` if that is `kind`; NULL: it is another one. */
READONLY
const char *site_key_after(const char *key, const char *kind);

struct answers;
struct connection;
struct dane;
struct named;

/* Of an Internet host. */
union host_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* What a domain's MTA-STS policy (RFC 8461) demands of an exchanger. */
enum host_sts {
	HOST_STS_NONE,
	/* That its failures be told of; one that the policy does not list, and one that it does. */
	HOST_STS_TESTING_UNLISTED,
	HOST_STS_TESTING,
	/* A certificate with its name and a trusted root. */
	HOST_STS_ENFORCE,
};

/* One address of a next hop, and what is remembered of it. */
BOUND
struct host {
	/* In the same allocation as the list; hosts with one name share it. */
	const char *name;
	/* TLSA records, there as well; NULL: none. */
	const struct dane *dane;
	union host_address address;
	uint16_t preference;
	uint8_t address_len;
	/* DNSSEC has proven the address. */
	bool secure;
	/* enum host_sts */
	uint8_t sts;
	/* TLS has failed: the next connection gets plain text, however soon that is over. */
	bool plain_owed;
	uint32_t connections;
	/* Left alone until then, monotonic ms; 0: fine. */
	uint64_t failed_until_ms;
	/* TLS failed: gets plain text until then, where that is allowed, monotonic ms. */
	uint64_t plain_until_ms;
	uint64_t failures;
	uint64_t deliveries;
	/* What the last failure was; malloc, NULL: there was none. And whether TLS was. */
	char *trouble;
	bool tls_failed;
};

/* Whether a lane wants one more connection: it has none, and mail; or not enough of them. */
enum lane_hunger { LANE_STARVING, LANE_HUNGRY, LANE_SATED };

BOUND
struct lane {
	struct site *site;
	/* Of the site. */
	struct lane *next;
	/* In one of the site's rings; NULL: in none. */
	struct lane *hungry_next;
	struct lane *hungry_prev;
	/* Of the domain that it was made for, as far as connections depend on them. */
	const struct domain_options *options;
	struct host *hosts;
	/* A ring of domains that have mail to send; the first is the next one. */
	struct domain *ready;
	/* Idle connections, the one that was used last first. */
	struct connection *idle;
	/* Deliveries in active queues of the ring. */
	uint64_t waiting;
	uint32_t host_count;
	uint32_t domain_count;
	uint32_t connection_count;
	uint32_t connecting_count;
	uint32_t idle_count;
	/* enum lane_hunger: the ring that it is in. */
	uint8_t hunger;
	/* DNSSEC has proven the mail exchangers, or that there are none. */
	bool mx_secure;
	/* No domain enters it any more, and its connections end when they have nothing to carry. */
	bool retired;
	/* enum domain_hold: why no host is tried, until then, monotonic ms; 0: some are. */
	uint8_t down_why;
	uint64_t down_until_ms;
	struct timer down_timer;
	/* What the last failure to connect said; malloc, NULL: nothing. */
	char *trouble;
	/* Exchangers, "PREFERENCE HOST ..."; empty: none. In the same allocation. */
	const char *mx;
};

BOUND
struct site {
	uint32_t magic;
	OWNER_FIELD
	uint32_t connection_count;
	struct site *hash_next;
	uint64_t hash;
	const char *binding;
	/* In the same allocation. */
	const char *key;
	/* Limits: of (binding, provider), or of the domain that is alone. */
	const struct domain_options *options;
	/* The scheduler's dispatcher. */
	void *owner;
	struct lane *lanes;
	/* Rings of lanes that are starving, and that are hungry: the next one of each. */
	struct lane *hungry[LANE_SATED];
	struct connection *connections;
	uint32_t lane_count;
	uint32_t domain_count;
	/* Under a decision; and another event came meanwhile. */
	bool busy;
	bool again;
	/* A lane had nobody left meanwhile. */
	bool stale;
	/* It may have connections at its home of the layout before: opens none. */
	bool awaited;
	/* Who has made it elsewhere, under a new layout, and waits until this one is gone. */
	struct named *awaiting;
	/* enum domain_hold, of all lanes. */
	uint8_t hold;
	uint64_t hold_until_ms;
	struct timer hold_timer;
	/* Of messages that were read back for deliveries on connections. */
	uint64_t loaded_bytes;
	uint64_t connections_opened;
	uint64_t delivered;
	uint64_t bytes_sent;
	uint32_t connections_max;
	/* What next hops that did not take mail said; NULL: nothing. */
	struct answers *answers;
};

/* All sites of one scheduler. */
BOUND
struct site_table {
	struct site **buckets;
	uint32_t bucket_count;
	uint32_t count;
};

SINGLE
void site_table_init(struct site_table *t);
/* NULL: not there. */
BOUND
struct site *site_find(const struct site_table *t, const char *binding, const char *key);
/* Makes one; none may be there yet. `binding` is not copied, `key` is. */
BOUND
struct site *site_create(struct site_table *t, const char *binding, const char *key,
			 const struct domain_options *options);
/* Frees one without lanes. */
SINGLE
void site_destroy(struct site_table *t, struct site *s);
SINGLE
void site_each(const struct site_table *t, void (*each)(void *context, struct site *s),
	       void *context);
/* Frees all sites and lanes; their domains and connections have left them. */
SINGLE
void site_table_close(struct site_table *t);

/* Mail of domains with these options may share a connection: they agree in bind_address, port,
 * family, TLS, name in EHLO, and in what is waited for before and between transactions. */
READONLY
bool lane_options_agree(const struct domain_options *a, const struct domain_options *b);

/* The lane for a domain with these options and exchangers; made if it is not there (`*made`). */
BOUND
struct lane *lane_open(struct site *s, const struct domain_options *options, const char *mx,
		       bool mx_secure, bool *made);
/* Frees a lane without domains and connections. */
SINGLE
void lane_destroy(struct lane *l);
BOUND
void lane_set_trouble(struct lane *l, const char *text);
/* Frees the list of next hops, and what is remembered of them. */
SINGLE
void lane_free_hosts(struct lane *l);

/* A domain of no lane enters one; it leaves its lane and the lane's ring. */
BOUND
void lane_enter(struct lane *l, struct domain *d);
BOUND
void lane_leave(struct domain *d);

/* The ring: in at its end, out, and the first one becomes the last. */
BOUND
void lane_push_ready(struct domain *d);
BOUND
void lane_remove_ready(struct domain *d);
BOUND
void lane_turn(struct lane *l);
static inline bool lane_is_ready(const struct domain *d)
{
	return d->ready_next != NULL;
}

/* Into the ring for that, at its end; or out of all. */
SINGLE
void lane_set_hunger(struct lane *l, enum lane_hunger hunger);
/* Whose turn it is to get a connection, a starving one first; NULL: nobody wants one. */
BOUND
static inline struct lane *site_hungry(const struct site *s)
{
	return s->hungry[LANE_STARVING] != NULL ? s->hungry[LANE_STARVING] : s->hungry[LANE_HUNGRY];
}
/* `l` has had its turn. */
BOUND
void site_turn(struct site *s, const struct lane *l);

/* Checks rings and counts; for tests. */
BOUND
bool site_validate(const struct site *s);
