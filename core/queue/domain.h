/*
 * Domain record: container of deliveries with one routing policy, keyed (binding, domain). Active
 * queue, delayed queue, held deliveries, options and statistics of its own; next hops and
 * connections are those of its site (site.h), which it shares with the other domains of an MX set.
 * It lives on one scheduler, that of its site, and nowhere else.
 *
 * This is the container; core/outbound/dispatch.c decides what is sent when.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/queue/binding.h"
#include "core/queue/delivery.h"
#include "core/queue/options.h"
#include "core/queue/recent.h"
#include "core/queue/suspension.h"
#include "core/runtime/thread_class.h"
#include "core/runtime/timer.h"

struct connection;
struct lane;
struct move;

#define DOMAIN_MAGIC 0x646f6d61U
/* Why a domain with active deliveries opens no further connection: the answer to "why is it not
 * moving?". */
enum domain_hold {
	DOMAIN_FREE,
	/* suspend_delivery, or an operator's suspend. */
	DOMAIN_SUSPENDED,
	/* An operator suspended the binding. */
	DOMAIN_BINDING_SUSPENDED,
	/* Next hops are being looked up. */
	DOMAIN_RESOLVING,
	/* The look-up failed, was answered what DNSSEC proves wrong, or was not answered in time;
	 * tried again at hold_until_ms. */
	DOMAIN_UNRESOLVED,
	DOMAIN_DNS_BOGUS,
	DOMAIN_DNS_TIMEOUT,
	/* What TLSA records, MTA-STS or `tls` demand of next hops cannot be had: no next hop may be
	 * used, or each failed for that; tried again later. */
	DOMAIN_TLS_POLICY,
	/* The name service says that mail cannot be delivered: until hold_until_ms it fails. */
	DOMAIN_NO_ROUTE,
	/* Every next hop of its lane refused; tried again later. */
	DOMAIN_HOSTS_DOWN,
	/* Every next hop refuses further connections, while some work. */
	DOMAIN_PEER_LIMIT,
	/* No next hop can be reached from bind_address; tried again at hold_until_ms. */
	DOMAIN_BIND_ADDRESS,
	/* max_outbound_connections */
	DOMAIN_CONNECTIONS,
	/* server_max_outbound_connections */
	DOMAIN_SERVER_CONNECTIONS,
	/* outbound_throttle_messages, outbound_throttle_connections; until hold_until_ms */
	DOMAIN_THROTTLE_MESSAGES,
	DOMAIN_THROTTLE_CONNECTIONS,
	/* memory_budget: no room to read a message back; tried again at hold_until_ms. */
	DOMAIN_MEMORY,
	/* The record goes to another scheduler, or is awaited from there. */
	DOMAIN_MOVING,
	/* The program stops. */
	DOMAIN_STOPPING,

	/* From here on: what mail waits for although nothing holds it back. Never in a `hold`. */
	/* The delayed queue: its first due time. */
	DOMAIN_RETRY,
	/* As many connections are being opened as there are to be at a time. */
	DOMAIN_OPENING,
	/* Messages on connections are being read back from the spool. */
	DOMAIN_READING_BACK,
	/* The spool writes down what became of attempts. */
	DOMAIN_SETTLING,
	/* An operator holds some, whatever becomes of the rest. */
	DOMAIN_HELD_MAIL,
	DOMAIN_HOLDS
};

/* Is the record where it belongs? core/outbound/move.h has the protocol. */
enum domain_travel {
	DOMAIN_AT_HOME,
	/* Goes as soon as nothing of it is on a connection, at the spool or in an operator's hands.
	 */
	DOMAIN_LEAVING,
	/* ... and the first home has been asked whether it may; ... and has said yes. */
	DOMAIN_ASKING,
	DOMAIN_RELEASED,
	/* At its first home, in place of the record that is on its way back: what comes waits. */
	DOMAIN_EXPECTED,
};

/* Hot fields first: what each message touches is in three cache lines. */
BOUND
struct domain {
	uint32_t magic;
	OWNER_FIELD
	uint32_t active_count;
	struct domain *hash_next;
	uint64_t hash;
	const struct domain_options *options;
	/* Where its mail goes; NULL: not known yet, or nowhere. */
	struct lane *lane;
	struct delivery *active_head;
	struct delivery *active_tail;
	/* The scheduler's dispatcher. */
	void *owner;
	/* Its binding, on this scheduler. */
	struct binding_record *binding_record;

	/* In the lane's ring of domains with mail to send; NULL: not there. */
	struct domain *ready_next;
	struct domain *ready_prev;
	/* Deliveries on connections, and those that wait for the spool after an attempt. */
	uint32_t attempt_count;
	uint32_t settling_count;
	/* Connections that carry its mail, carried it last, or were opened for it. */
	uint32_t connection_count;
	/* Counts what enters and leaves its queues. */
	uint32_t changes;
	/* States of its deliveries that the spool is writing; the deliveries may be anywhere by
	 * now.
	 */
	uint32_t writing_count;
	/* The last order to many records that came by (struct selection_turns). */
	uint32_t order_mark;
	/* Monotonic ms. */
	uint64_t resolved_until_ms;
	uint64_t hold_until_ms;
	/* enum domain_hold, enum domain_travel */
	uint8_t hold;
	uint8_t travel;
	/* DOMAIN_NO_ROUTE: the reply that mail fails with; its text is `trouble`. */
	uint16_t refusal_code;
	/* Orders to the whole queue that are being carried out. */
	uint32_t sweeps : 26;
	bool resolving : 1;
	/* ... by options that hold no more: what is answered does not count. */
	bool resolving_in_vain : 1;
	/* An operator's order. */
	bool suspended : 1;
	/* A task of its journey is on its way to itself. */
	bool travel_posted : 1;
	/* Mail has come of which no envelope in the spool says this domain and binding: it was sent
	 * on, or is only in memory. */
	bool has_unlisted : 1;
	/* Its first home under a new layout has been told that it stays here. */
	bool first_told : 1;

	/* Heaps: by due time; and of what operators hold, by time of reception. */
	uint32_t delayed_count;
	uint32_t held_count;
	struct delivery **delayed;
	struct delivery **held;
	/* Of the active queue the last of those in front that go before others; NULL: there are
	 * none. Nobody else looks at it. */
	struct delivery *urgent_tail;

	const char *binding;
	/* Lower case, NUL-terminated, in the same allocation. */
	const char *name;
	/* What the name service said; malloc, NULL: nothing bad. */
	char *trouble;
	const char *refusal_enhanced;
	/* Connections that count for it (connection_count), in a list of the dispatcher's. */
	struct connection *connections;
	/* Where it goes while it travels. */
	struct move *move;
	/* Monotonic ms. */
	union {
		/* Nothing has happened since. */
		uint64_t unused_since_ms;
		/* While `resolving`: next hops have been asked for since. */
		uint64_t resolving_since_ms;
	};
	/* Earliest due time of the delayed queue, or end of something held. */
	struct timer delayed_timer;
	/* The end of a hold, and of the record when it is not used. */
	struct timer hold_timer;

	uint64_t received;
	uint64_t delivered;
	uint64_t failed;
	uint64_t transient;
	uint64_t connections_opened;
	uint64_t bytes_sent;
	uint32_t connections_max;

	/* Deliveries that were over after an attempt. */
	struct recent done;
	/* Whose exchangers it has, of the configuration; NULL: nobody's, or not known yet. */
	const char *provider;
	/* An operator's order, while `suspended` by one; malloc, NULL. */
	struct suspension *suspension;
};

/* There may be millions of them; with a name behind it one takes 448 bytes of the heap. */
#ifndef FLYWHEEL_DEBUG
_Static_assert(sizeof(struct domain) <= 400, "domain records have grown");
#endif

/* All records of one scheduler. */
BOUND
struct domain_table {
	struct domain **buckets;
	uint32_t bucket_count;
	uint32_t count;
	/* Of all domains. */
	uint64_t active;
	uint64_t delayed;
	uint64_t held;
	/* Somebody looks at an active queue piece by piece: where it goes on; NULL: at its end, or
	 * nobody does. */
	struct delivery *cursor;
};

/* FNV-1a over binding and lower-case domain (or a site's key): also decides the home. */
READONLY
uint64_t domain_hash(const char *binding, const char *name, size_t name_len);

SINGLE
void domain_table_init(struct domain_table *t);

/* NULL: not there. */
BOUND
struct domain *domain_find(const struct domain_table *t, const char *binding, const char *name);

/* Makes a record; none may be there yet. `binding` is not copied, `name` is. */
BOUND
struct domain *domain_create(struct domain_table *t, const char *binding, const char *name,
			     const struct domain_options *options);

/* Takes the record out of the table, queues and all, and puts it into another one: a move. */
BOUND
void domain_take(struct domain_table *t, struct domain *d);
BOUND
void domain_put(struct domain_table *t, struct domain *d);

/* Remembers what the name service said; NULL or empty: all is well. */
BOUND
void domain_set_trouble(struct domain *d, const char *text);

/* Calls `each` for every record, in no order; it must not add or remove any. */
BOUND
void domain_each(const struct domain_table *t, void (*each)(void *context, struct domain *d),
		 void *context);

/* Active queue: first in, first out, but urgent deliveries before others. The delivery is in
 * transit. */
BOUND
void domain_push_active(struct domain_table *t, struct domain *d, struct delivery *delivery);
/* In front of those like it, after an attempt that was none of its fault. */
BOUND
void domain_push_active_front(struct domain_table *t, struct domain *d, struct delivery *delivery);
/* NULL when empty. The delivery is in transit afterwards. */
BOUND
struct delivery *domain_pop_active(struct domain_table *t, struct domain *d);

/* Of the active queue the one that was received first, as far as its order tells; NULL: none. */
BOUND
struct delivery *domain_oldest_active(const struct domain *d);

/* Delayed queue: by due_ms (wall clock). */
BOUND
void domain_push_delayed(struct domain_table *t, struct domain *d, struct delivery *delivery);
/* The earliest one, or NULL; it stays in the queue. */
BOUND
struct delivery *domain_peek_delayed(const struct domain *d);

/* How many of the delayed queue are due by `until_ms` (wall clock), counted up to `max`. */
BOUND
uint32_t domain_count_due(const struct domain *d, uint64_t until_ms, uint32_t max);

/* What an operator holds. */
BOUND
void domain_push_held(struct domain_table *t, struct domain *d, struct delivery *delivery);
/* The one that was received first, or NULL; it stays. */
BOUND
struct delivery *domain_peek_held(const struct domain *d);

/* Takes a delivery out of whichever queue it is in. */
BOUND
void domain_remove(struct domain_table *t, struct domain *d, struct delivery *delivery);

/* Frees a record with empty queues, which is in no lane. */
SINGLE
void domain_destroy(struct domain_table *t, struct domain *d);

SINGLE
void domain_table_close(struct domain_table *t);

/* For people: "suspended", "max_outbound_connections", ...; never NULL. */
READONLY
const char *domain_hold_text(enum domain_hold hold);
/* For programs, one word: "suspended", "max_outbound_connections", "hosts_failed", ... */
READONLY
const char *domain_hold_key(enum domain_hold hold);

/* It keeps mail back by a decision, unlike what mail merely waits for. */
READONLY
static inline bool domain_hold_is_hold(enum domain_hold hold)
{
	return hold > DOMAIN_FREE && hold <= DOMAIN_STOPPING;
}

/* Checks queue links, heap order and counts; for tests and debug builds. */
BOUND
bool domain_validate(const struct domain *d);
