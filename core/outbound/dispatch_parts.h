/*
 * What the dispatcher's files share. dispatch.c: a domain's turn; dispatch_site.c: what a site's
 * lanes send and open; dispatch_route.c: from a verdict of the name service to a lane, here or
 * elsewhere; dispatch_events.c: what connections report; move.c: records that travel; relocate.c:
 * homes that change; orders.c:
 * what operators ask for; obstacle.c: what stands in the
 * way of all that. Nobody else includes this.
 */
#pragma once

#include "core/outbound/dispatch.h"
#include "core/runtime/text.h"

/* Deliveries that one step moves or fails, so that a long queue does not hold up the others. */
#define DISPATCH_SLICE 1024

BOUND
uint64_t dispatch_now_ms(const struct dispatcher *x);

/* ---- dispatch.c ---- */

/* Notes what holds the domain back, until further notice; or until `until_ms`. */
BOUND
void dispatch_hold(struct domain *d, enum domain_hold why);
BOUND
void dispatch_hold_until(struct domain *d, enum domain_hold why, uint64_t until_ms);

/* Whether a record is suspended that has just been made. */
BOUND
static inline bool dispatch_begins_suspended(const struct domain *d)
{
	return d->options->suspend_delivery && d->binding_record->order != BINDING_RESUMED;
}

/* One timer for the earliest of the delayed queue. */
BOUND
void dispatch_arm_delayed(struct dispatcher *x, struct domain *d);
/* A record's timers and binding, when it has come to this dispatcher. */
BOUND
void dispatch_adopt(struct dispatcher *x, struct domain *d);

/* A queue that does not move must expire its mail too. */
BOUND
void dispatch_expire(struct dispatcher *x, struct domain *d);

/* Nothing is queued, sent, settled, looked up or ordered: the record may go some day. */
BOUND
bool dispatch_unused(const struct domain *d);
BOUND
void dispatch_free_record(struct dispatcher *x, struct domain *d);
/* If so, its time runs. */
BOUND
void dispatch_rest(struct dispatcher *x, struct domain *d);

/* An attempt that ends before it had a connection: all pending recipients fail for good, or are
 * deferred. The delivery is in transit. */
BOUND
void dispatch_without_connection(struct dispatcher *x, struct delivery *delivery,
				 const struct attempt *model, bool permanent);

/* An attempt of our own words. */
READONLY
static inline struct attempt dispatch_attempt_text(uint16_t code, const char *enhanced,
						   const char *text)
{
	struct attempt a = {.stage = SMTP_STAGE_NOT_CONNECTED, .code = code};

	text_copy(a.enhanced, sizeof a.enhanced, enhanced);
	text_copy(a.text, sizeof a.text, text);
	return a;
}

/* ---- orders.c ---- */

/* An order to suspend it ends, if it is time. */
BOUND
void dispatch_end_suspension(struct dispatcher *x, struct domain *d);
/* ... those to bindings: a timer's. */
BOUND
void dispatch_on_bindings_timer(struct timer *t);

/* ---- dispatch_site.c ---- */

/* Feeds the lane's idle connections, then opens connections of its site. */
BOUND
void dispatch_lane(struct dispatcher *x, struct lane *l);
/* Makes ready what a lane and a site need of their dispatcher. */
BOUND
void dispatch_adopt_lane(struct dispatcher *x, struct lane *l);
BOUND
void dispatch_adopt_site(struct dispatcher *x, struct site *s);
/* No host of the lane is tried until then: dispatch_why_hosts_fail(), or bind_address stands in the
 * way (DOMAIN_BIND_ADDRESS). */
BOUND
void dispatch_lane_down(struct dispatcher *x, struct lane *l, enum domain_hold why,
			uint64_t until_ms);
/* ... and the one whose turn it is hears of it, `a`; the others wait. */
BOUND
void dispatch_lane_failed(struct dispatcher *x, struct lane *l, enum domain_hold why,
			  uint64_t until_ms, const struct attempt *a);
/* What it means that no host of the lane may be tried now: all have failed, or want of TLS was why
 * each did, or they take no further connection. */
BOUND
enum domain_hold dispatch_why_hosts_fail(const struct lane *l);
/* Operators know better. */
BOUND
void dispatch_lane_forgive(struct lane *l);
/* While a connection works, a further one that fails has met a limit of the peer's. */
BOUND
bool dispatch_lane_works(const struct lane *l);
/* Closes it, unless it carries something: an idle one says goodbye. */
BOUND
void dispatch_give_up(struct connection *c);
/* Whether this connection gives its place to a lane that waits for one. */
BOUND
bool dispatch_must_yield(const struct connection *c);
/* Nothing elsewhere holds the site back any more. */
BOUND
void dispatch_site_go(struct site *s);
/* Frees what has no domains and connections any more. */
BOUND
void dispatch_clean(struct dispatcher *x, struct lane *l);
/* The same of a site and each of its lanes. */
BOUND
void dispatch_clean_site(struct dispatcher *x, struct site *s);
/* A connection counts for `d` (NULL: nobody) from now on. */
BOUND
void dispatch_count_for(struct connection *c, struct domain *d);

/* ---- obstacle.c ---- */

BOUND
void dispatch_return_limit(struct dispatcher *x);
BOUND
bool dispatch_server_is_full(const struct dispatcher *x);

/* ---- dispatch_route.c ---- */

/* Whether its mail goes together with all that its binding sends by the same gateways. */
BOUND
bool dispatch_goes_by_gateways(struct dispatcher *x, const struct domain *d);

/* Where its mail goes is known, and still holds; if not, a look-up is under way now. */
BOUND
bool dispatch_hosts_known(struct dispatcher *x, struct domain *d);
BOUND
bool dispatch_is_refused(const struct dispatcher *x, const struct domain *d);
/* What the name service says no to fails, all of it, in slices. */
BOUND
void dispatch_refuse_active(struct dispatcher *x, struct domain *d);
/* What applies to it and its provider holds from now on. False: where its hosts are depends on
 * that.
 */
BOUND
bool dispatch_take_options(struct dispatcher *x, struct domain *d, const char *provider);
/* What applies to the site of that key, which is not a domain's own. */
BOUND
const struct domain_options *dispatch_shared_options(struct dispatcher *x, struct binding_record *b,
						     const char *key);
/* In renewal.c: the provider as it is called in this generation. */
BOUND
const char *dispatch_same_provider(struct dispatcher *x, const char *provider);
/* A record has come to the home of its site, with what the name service said of it. */
BOUND
void dispatch_attach(struct dispatcher *x, struct domain *d, struct move *m);
/* It leaves its lane: connections that counted for it and carry nothing close. */
BOUND
void dispatch_detach(struct dispatcher *x, struct domain *d);

/* ---- relocate.c ---- */

/* Where a site of (binding, key), or a domain's record at first, lives. */
BOUND
uint32_t dispatch_home(const struct dispatcher *x, uint64_t hash);
/* A record comes, or has gone to its first home. */
BOUND
void relocate_note_arrival(struct dispatcher *x, const struct domain *d);
/* It has come, and knows its site: it may have to go on. */
BOUND
void relocate_note_place(struct dispatcher *x, const struct domain *d);
BOUND
void relocate_note_departure(struct dispatcher *x, const struct move *m);
/* What a pass may wait for has come to its end: before the record leaves, before its place is told
 * of its return, or before its next hops count as known. */
BOUND
void relocate_note_progress(struct dispatcher *x, const struct domain *d);
/* A site was made that may have connections elsewhere still: it opens none before those are closed.
 * And one has none any more. */
BOUND
void relocate_await_site(struct dispatcher *x, struct site *s);
BOUND
void relocate_site_gone(struct dispatcher *x, struct site *s);

SINGLE
void relocate_close(struct dispatcher *x);

/* ---- move.c ---- */

/* What a travelling record has with it. */
SINGLE
struct move {
	struct domain *domain;
	struct dispatcher *from;
	/* What its binding was ordered there when it left, and by whom; malloc, NULL. */
	enum binding_order order;
	struct suspension *suspension;
	/* The layout that it began under, and the generation of options. */
	uint32_t layout;
	uint64_t generation;
	/* Later than all before: dispatcher.trip. */
	uint64_t trip;
	/* It was suspended, or not, as its options said. */
	bool suspended_as_configured;
	/* Its first home, and where it goes, by index. */
	uint32_t first;
	uint32_t to;
	/* Key of its site; NULL: it goes to its first home, which looks that up, or, when it is
	 * `unused`, frees it. */
	char *key;
	bool unused;
	const struct domain_options *site_options;
	/* Whom it shares that with: enum company of dispatch_route.c. */
	uint8_t company;
	struct route_verdict verdict;
	/* How long the verdict holds, monotonic ms. */
	uint64_t until_ms;
};

/* Takes over `m`, whose domain leaves for m->to. */
BOUND
void move_begin(struct dispatcher *x, struct move *m);
/* The same, to its first home; `unused`: to be freed there, if it still is. */
BOUND
void move_home(struct dispatcher *x, struct domain *d, bool unused);
/* Something of a record has come to its end: maybe it can go now. */
BOUND
void move_review(struct domain *d);
SINGLE
void move_free(struct move *m);
