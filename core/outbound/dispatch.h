/*
 * Dispatcher: one scheduler's sending side. It owns the scheduler's domain records and sites,
 * decides which delivery is attempted when and on which connection, under the limits of sites and
 * domains, and reports what became of every attempt to its host (the scheduler agent), which logs
 * it and tells the spool.
 *
 * Start reading at dispatch_domain() in dispatch.c: is there anything to send for a domain? Then at
 * dispatch_lane() in dispatch_site.c: what is sent and opened, and what holds it back.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/mail/smtp_stage.h"
#include "core/outbound/route.h"
#include "core/outbound/tls_report.h"
#include "core/queue/binding.h"
#include "core/queue/domain.h"
#include "core/queue/forward.h"
#include "core/queue/site.h"
#include "core/runtime/agent.h"
#include "core/runtime/thread_class.h"
#include "core/runtime/tls_sessions.h"

struct connection;
struct dispatcher;

#define ATTEMPT_TEXT 512

/* Limits that all schedulers share. */
CONCURRENT
struct outbound_limits {
	_Atomic uint32_t connections_max;
	/* Bytes of what was read back from the spool for an attempt; a little more when schedulers
	 * look at the same time. */
	_Atomic uint64_t loaded_max;
	_Alignas(64) _Atomic uint32_t connections;
	_Atomic uint64_t refused;
	_Atomic uint64_t loaded_bytes;
};

/* What one recipient was told, when it was told something of its own. */
SINGLE
struct recipient_reply {
	uint16_t code;
	char enhanced[12];
	char *text;
};

/* Why recipients fail for good although nobody said so. */
enum attempt_given_up { ATTEMPT_NOT_GIVEN_UP, ATTEMPT_TOO_OLD, ATTEMPT_BY_OPERATOR };

/* What became of one attempt. */
SINGLE
struct attempt {
	struct recipient_set delivered;
	struct recipient_set failed;
	struct recipient_set deferred;
	enum smtp_stage stage;
	/* The reply, or our own words, that decided for those without a reply of their own: code
	 * such as 451, enhanced status such as "4.4.1", text. */
	uint16_t code;
	char enhanced[12];
	char text[ATTEMPT_TEXT];
	/* By place in the delivery; NULL when nobody was told anything of its own. */
	const struct recipient_reply *replies;
	/* Where it was sent; empty when no connection was made. */
	char remote_ip[INET6_ADDRSTRLEN];
	const char *remote_name;
	/* Where it was sent from, if the binding says; empty: wherever the kernel chose. */
	char local_ip[INET6_ADDRSTRLEN];
	/* The session's version, cipher and verification, static; NULL: plain text. */
	const char *tls[3];
	/* The next hop has DSN: it tells the sender what becomes of what it took. */
	bool dsn_handed_on;
	/* Those that failed were given up here. */
	enum attempt_given_up given_up;
	/* Does not count as an attempt: goes back to the front of the active queue. */
	bool not_tried;
	/* An operator failed some: the rest waits for as long as it did. */
	bool keeps_due;
};

/* A reply to this recipient alone decided. */
static inline bool attempt_has_own_reply(const struct attempt *a, unsigned place)
{
	return a->replies != NULL && a->replies[place].text != NULL;
}

/* What this recipient was told. */
static inline const char *attempt_words(const struct attempt *a, unsigned place)
{
	return attempt_has_own_reply(a, place) ? a->replies[place].text : a->text;
}

/* What the dispatcher asks of its host. */
READONLY
struct dispatch_ops {
	/* Look up next hops; answer by dispatch_resolved(), later. */
	void (*resolve)(struct dispatcher *x, struct domain *d);
	/* Read the delivery's content back; answer by dispatch_loaded(), later. */
	void (*load)(struct dispatcher *x, struct delivery *delivery);
	/* An attempt has ended. The delivery is in transit and the host's, with delivery->loaded if
	 * its content was read back: it comes back without that by dispatch_enqueue() or
	 * dispatch_delay(), or is over. Without a connection the content may be on disk only. */
	void (*on_attempt)(struct dispatcher *x, struct domain *d, struct delivery *delivery,
			   const struct attempt *attempt);
	/* What applies to (binding, domain); `domain` NULL: to all without a stanza. `provider`:
	 * whose MX set it has, NULL: none, or not known yet. Interned: equal ones are one. */
	const struct domain_options *(*options)(struct dispatcher *x,
						struct binding_record *binding, const char *domain,
						const char *provider);
	/* The provider that an MX set (struct route_verdict) belongs to for `binding`, or NULL. */
	const char *(*provider)(struct dispatcher *x, struct binding_record *binding,
				const char *mx);
	/* The provider of that name of an earlier generation as it is called in this one; NULL:
	 * there is none. NULL itself: providers are always the same. */
	const char *(*same_provider)(struct dispatcher *x, const char *provider);
	/* An operator has changed a delivery in transit (held, sent_on): the spool is told. Then it
	 * comes back by dispatch_enqueue(), dispatch_delay() or dispatch_put_held(), or leaves. */
	void (*reorder)(struct dispatcher *x, struct delivery *delivery);
	/* The program stops: what only memory has of this record's queues goes to the spool. */
	void (*keep)(struct dispatcher *x, struct domain *d);
	/* A connection was opened while x->tracing: somebody may want to listen to its stream. */
	void (*trace)(struct dispatcher *x, struct connection *c);
};

/* A pass is over all records, then over all entries, then over all sites. */
enum relocation_part { RELOCATION_RECORDS, RELOCATION_ENTRIES, RELOCATION_SITES };

/* How far a dispatcher is with taking records to the homes of a new layout. */
BOUND
struct relocation {
	/* Where the pass goes on. */
	enum relocation_part in;
	uint32_t bucket;
	uint32_t bucket_count;
	/* What the pass has found that was not in its place, or will not stay there; and how much
	 * of that it could set going. */
	uint32_t found;
	uint32_t began;
	/* What the last pass found and has not come to its end since: it may be less. */
	uint32_t awaited;
	/* Entries that were handed over and have not been confirmed. */
	uint32_t entries;
	/* Until the next pass, when this one could only wait; how long that is the next time. */
	struct timer timer;
	uint64_t pause_ms;
	/* Goes on until a pass finds nothing. */
	bool running;
	/* Entries that were left while records settled are dropped. */
	bool dropping;
	/* Ever found. */
	uint64_t activity;
};

/* Where going over to another generation of options is. */
BOUND
struct dispatch_renewal {
	bool running;
	/* Sites, after records. */
	bool sites;
	/* Exchangers may have other providers. */
	bool routes;
	uint32_t bucket;
};

BOUND
struct dispatcher {
	struct agent *self;
	const struct dispatch_ops *ops;
	struct mail_pools *pools;
	struct outbound_limits *limits;
	struct binding_table bindings;
	/* The end of the first order to a binding that ends by itself. */
	struct timer bindings_timer;
	struct domain_table domains;
	struct site_table sites;
	struct forward_table forwards;
	/* All dispatchers of the program, how many of them are homes, and which one this is. */
	struct dispatcher *const *peers;
	uint32_t peer_count;
	uint32_t index;
	/* The number of this layout; how many homes there were under the one before, while records
	 * settle under this one, 0: they have; and how far that is. */
	uint32_t layout;
	uint32_t peer_count_before;
	struct relocation relocation;
	/* The latest trip of a record that is known here: a clock that goes from dispatcher to
	 * dispatcher with records, entries and `yours`, so that what follows is later. */
	uint64_t trip;
	/* Records that were sent and have not been confirmed, or are to come back. */
	uint32_t moves;
	/* Those of them that began under an earlier layout. */
	uint32_t moves_before;
	struct pool connections;
	uint32_t connection_count;
	/* Orders to fail a whole queue that are being carried out. */
	uint32_t failing;
	bool stopping;
	bool hurry;
	/* ops->trace wants to know of new connections. */
	bool tracing;
	/* The number of the generation that ops->options answers from. */
	uint64_t generation;
	struct dispatch_renewal renewal;
	struct counter *connections_opened;
	struct counter *connections_open;
	struct counter *connect_failures;
	struct counter *bind_failures;
	struct counter *throttled;
	struct counter *held_by_connections;
	struct counter *held_by_server;
	struct counter *held_by_memory;
	struct counter *moved;
	struct counter *forwarded;
	struct counter *sites_open;
	struct counter *commands_pipelined;
	struct counter *reused;
	/* Verdicts, and what was odd about exchangers. */
	struct counter *routes[ROUTE_RESULTS];
	struct counter *mx_aliases;
	struct counter *mx_dead;
	struct counter *mx_literals;
	/* For hosts whose domain names no roots of its own. */
	const struct tls_context *tls_client;
	/* The same, for MTA-STS: trusts the system's roots. */
	const struct tls_context *tls_roots;
	struct tls_sessions tls_sessions;
	struct tls_reports tls_reports;
	struct counter *tls_12;
	struct counter *tls_13;
	struct counter *tls_resumed;
	struct counter *tls_verified;
	struct counter *tls_failed;
	struct counter *tls_fallbacks;
	struct counter *dane_verified;
	struct counter *dane_unusable;
	struct counter *dane_failed;
	struct counter *dane_lookups_failed;
};

SINGLE
void dispatcher_init(struct dispatcher *x, struct agent *self, const struct dispatch_ops *ops,
		     struct mail_pools *pools, struct outbound_limits *limits);

/* This is dispatcher `index`; the first `count` of `peers` are homes of records, which they send to
 * each other; `peers` stays. Without it there is one. Before any record is there. */
SINGLE
void dispatcher_join(struct dispatcher *x, struct dispatcher *const *peers, uint32_t count,
		     uint32_t index);

/* ops->options answers from another generation, of that number, from now on: what has options of
 * the one before goes over to it by dispatch_renew_step(), some each time, until that says that
 * nothing is left of it. `routes`: providers have changed. */
BOUND
void dispatch_renew(struct dispatcher *x, uint64_t generation, bool routes);
BOUND
bool dispatch_renew_step(struct dispatcher *x);

/* Finds or makes the record of (binding, `domain` in lower case), which is not away. */
BOUND
struct domain *dispatch_find(struct dispatcher *x, const char *binding, const char *domain);

/*
 * Where mail and orders for (binding, `domain`) are to go that has no record here: NULL: nowhere
 * else, a record may be made; else to that dispatcher, which has it, or knows. `*yours` 0: as it
 * is; else what is sent there says `yours`, as it would be sent back otherwise, by that number.
 * `*yours` before: it came with that.
 */
BOUND
struct dispatcher *dispatch_elsewhere(struct dispatcher *x, const char *binding, const char *domain,
				      uint64_t *yours);

/* A record may be made for what came with `yours`: its trips are to be later than all before. */
BOUND
void dispatch_heard(struct dispatcher *x, uint64_t trip);

/* The dispatcher that a record has moved to which has its first home here; NULL: it is not away. It
 * is there when a task that is sent now arrives, and stays until then. */
BOUND
struct dispatcher *dispatch_away(const struct dispatcher *x, const char *binding,
				 const char *domain);

/* The first home of a record is here, by what this dispatcher knows of layouts; and the dispatcher
 * that may have it still, while records settle, as it was its home before: NULL: nobody else has.
 */
BOUND
bool dispatch_is_home(const struct dispatcher *x, const char *binding, const char *domain);
BOUND
struct dispatcher *dispatch_before(const struct dispatcher *x, const char *binding,
				   const char *domain);

/*
 * Another layout, of that number (relocate.c has the protocol): the first `count` of all
 * dispatchers are homes from now on. Then, when all have heard so, relocate_begin() has records
 * taken to their new homes, by relocate_step(), a bounded number at a time, until
 * relocate_complete(); what was found is told by relocation.activity. When all are complete, again
 * and again, without finding anything: relocate_end(). One layout after the other.
 */
BOUND
void relocate_adopt(struct dispatcher *x, uint32_t count, uint32_t layout);
BOUND
void relocate_begin(struct dispatcher *x);
/* Returns the work done. */
BOUND
int relocate_step(struct dispatcher *x);
BOUND
bool relocate_complete(const struct dispatcher *x);
BOUND
void relocate_end(struct dispatcher *x);

/* A delivery in transit becomes active in its domain's record. */
BOUND
void dispatch_enqueue(struct dispatcher *x, struct domain *d, struct delivery *delivery);

/* ... or waits until delivery->due_ms. */
BOUND
void dispatch_delay(struct dispatcher *x, struct domain *d, struct delivery *delivery);

/* ... or is held until an operator releases it, or its time is over. */
BOUND
void dispatch_put_held(struct dispatcher *x, struct domain *d, struct delivery *delivery);

/* Sends what may be sent now, and notes what holds the rest back. */
BOUND
void dispatch_domain(struct dispatcher *x, struct domain *d);

/* What keeps the domain's active deliveries from being sent: its own hold, or its lane's, or its
 * site's; `*until_ms` (monotonic) when it is looked at again, 0: when something happens. `*scope`
 * says which of the three: "domain", "lane", "site". */
BOUND
enum domain_hold dispatch_held(const struct domain *d, uint64_t *until_ms, const char **scope);
/* What the name service or the last failed connection said; NULL: nothing. */
BOUND
const char *dispatch_trouble(const struct domain *d);

/* The host (scheduler agent) has done with a delivery that it had counted in settling_count: to be
 * called last. */
BOUND
void dispatch_settled(struct domain *d);
/* The same of a state that it had counted in writing_count. */
BOUND
void dispatch_written(struct domain *d);

/* Answer to ops->resolve; takes over what the verdict has. A permanent verdict fails what is
 * active, and what becomes so while the verdict holds; for a transient one mail waits for
 * host_failure_retry.
 */
BOUND
void dispatch_resolved(struct dispatcher *x, struct domain *d, struct route_verdict *verdict);

/* Answer to ops->load: 0 and `content`, which is taken over; or a negative errno and what content
 * could be had, NULL if none. */
BOUND
void dispatch_loaded(struct dispatcher *x, struct delivery *delivery, struct content *content,
		     int result);

/* An operator's orders (orders.c). Those to a whole queue work in slices, the first one at once. */
BOUND
void dispatch_flush(struct dispatcher *x, struct domain *d);
/* `suspension` is taken over; NULL: resumes. At its end what the configuration says holds again. */
BOUND
void dispatch_suspend(struct dispatcher *x, struct domain *d, struct suspension *suspension);
/* An order to a binding, with the same. */
BOUND
void dispatch_order_binding(struct dispatcher *x, struct binding_record *b,
			    enum binding_order order, struct suspension *suspension);
/* The binding's order was changed: obeys it in one record of the binding. */
BOUND
void dispatch_binding_order(struct dispatcher *x, struct domain *d);
/* Fails what is queued; deliveries on a connection are failed when their attempt has ended without
 * success. `quiet`: no bounce. Returns how many. */
BOUND
uint64_t dispatch_fail(struct dispatcher *x, struct domain *d, bool quiet);
/* One delivery of the record: fail it, or try it now. */
BOUND
void dispatch_fail_delivery(struct dispatcher *x, struct delivery *delivery, bool quiet);
BOUND
void dispatch_retry_delivery(struct dispatcher *x, struct delivery *delivery);

/* One delivery of a record is held, or released, as far as it has been neither: true. One on a
 * connection is held when its attempt has ended and left something of it. */
BOUND
bool dispatch_hold_delivery(struct dispatcher *x, struct delivery *delivery, bool hold);
/* A queued one goes to the queue of (binding, `domain` in lower case), held if it was. Whoever
 * wants more than one done sees to dispatch_domain() of its old record in the end. */
BOUND
void dispatch_send_on(struct dispatcher *x, struct delivery *delivery, const char *binding,
		      const char *domain);
/* Fails these recipients, pending ones, of a queued one; the rest stays where it is. */
BOUND
void dispatch_fail_some(struct dispatcher *x, struct delivery *delivery,
			const struct recipient_set *who, bool quiet);

/* Somebody goes through its queues piece by piece: it stays until it is unpinned, which sends what
 * may be sent now. */
BOUND
void dispatch_pin(struct domain *d);
BOUND
void dispatch_unpin(struct dispatcher *x, struct domain *d);

/* No new connection from now on; idle ones close. `hurry`: those in a transaction too. */
BOUND
void dispatch_stop(struct dispatcher *x, bool hurry);
BOUND
bool dispatch_drained(const struct dispatcher *x);

/* Frees the deliveries still queued (the spool has them); no connection is left. */
BOUND
void dispatcher_drop(struct dispatcher *x);

/* Frees records and sites, whose queues are empty, and what dispatcher_init() made. */
SINGLE
void dispatcher_close(struct dispatcher *x);
