/*
 * Domain record: container of deliveries with one routing policy, keyed (binding, domain). Active
 * queue, delayed queue, next hops, limits in force and statistics. It lives on its home scheduler
 * and nowhere else.
 *
 * This is the container; core/outbound/dispatch.c decides what is sent when.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "core/queue/binding.h"
#include "core/queue/delivery.h"
#include "core/queue/options.h"
#include "core/runtime/thread_class.h"
#include "core/runtime/timer.h"

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
	/* The name service says that mail cannot be delivered: until hold_until_ms it fails. */
	DOMAIN_NO_ROUTE,
	/* Every next hop refused; tried again at hold_until_ms. */
	DOMAIN_HOSTS_DOWN,
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
	/* The program stops. */
	DOMAIN_STOPPING,
};

/* Of an Internet host. */
union host_address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

/* One address of a next hop, and what is remembered of it. */
BOUND
struct host {
	/* In the same allocation as the list; hosts with one name share it. */
	const char *name;
	union host_address address;
	uint16_t preference;
	uint8_t address_len;
	/* DNSSEC has proven the address. */
	bool secure;
	uint32_t connections;
	/* Left alone until then, monotonic ms; 0: fine. */
	uint64_t failed_until_ms;
	/* TLS failed: gets plain text until then, where that is allowed, monotonic ms. */
	uint64_t plain_until_ms;
	uint64_t failures;
	uint64_t deliveries;
};

BOUND
struct domain {
	uint32_t magic;
	OWNER_FIELD
	struct domain *hash_next;
	uint64_t hash;
	const char *binding;
	/* The same, on this scheduler. */
	struct binding_record *binding_record;
	/* Lower case, NUL-terminated, in the same allocation. */
	const char *name;
	const struct domain_options *options;
	/* The scheduler's dispatcher. */
	void *owner;

	struct delivery *active_head;
	struct delivery *active_tail;
	uint32_t active_count;
	/* A heap by due time. */
	struct delivery **delayed;
	uint32_t delayed_count;
	uint32_t delayed_slots;
	/* Deliveries on connections, and those that wait for the spool after an attempt. */
	uint32_t attempt_count;
	uint32_t settling_count;
	/* Of messages that were read back for deliveries on connections. */
	uint64_t loaded_bytes;
	/* Orders to the whole queue that are being carried out. */
	uint32_t sweeps;

	struct host *hosts;
	uint32_t host_count;
	uint64_t resolved_until_ms;
	bool resolving;
	/* DNSSEC has proven the mail exchangers, or that there are none. */
	bool mx_secure;
	/* DOMAIN_NO_ROUTE: the reply that mail fails with; its text is `trouble`. */
	uint16_t refusal_code;
	const char *refusal_enhanced;

	/* Connections, in a list of the dispatcher's. */
	struct connection *connections;
	uint32_t connection_count;
	uint32_t connecting_count;
	uint32_t idle_count;

	/* An operator's order. */
	bool suspended;
	enum domain_hold hold;
	/* Monotonic ms. */
	uint64_t hold_until_ms;
	/* What the last failure to look up or connect said. */
	char trouble[160];
	/* Earliest due time of the delayed queue. */
	struct timer delayed_timer;
	/* The end of a hold. */
	struct timer hold_timer;

	uint64_t received;
	uint64_t delivered;
	uint64_t failed;
	uint64_t transient;
	uint64_t connections_opened;
	uint64_t connections_max;
	uint64_t bytes_sent;
};

/* There may be millions of them: with two hosts, and the text and room around, one takes less than
 * a KiB. */
_Static_assert(sizeof(struct domain) + 2 * sizeof(struct host) <= 800, "domain records have grown");

/* All records of one scheduler. */
BOUND
struct domain_table {
	struct domain **buckets;
	uint32_t bucket_count;
	uint32_t count;
	/* Of all domains. */
	uint64_t active;
	uint64_t delayed;
};

/* FNV-1a over binding and lower-case domain: also decides the home. */
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

/* Calls `each` for every record, in no order; it must not add or remove any. */
BOUND
void domain_each(const struct domain_table *t, void (*each)(void *context, struct domain *d),
		 void *context);

/* Active queue: first in, first out. The delivery is in transit. */
BOUND
void domain_push_active(struct domain_table *t, struct domain *d, struct delivery *delivery);
/* In front, after an attempt that was none of its fault. */
BOUND
void domain_push_active_front(struct domain_table *t, struct domain *d, struct delivery *delivery);
/* NULL when empty. The delivery is in transit afterwards. */
BOUND
struct delivery *domain_pop_active(struct domain_table *t, struct domain *d);

/* Delayed queue: by due_ms (wall clock). */
BOUND
void domain_push_delayed(struct domain_table *t, struct domain *d, struct delivery *delivery);
/* The earliest one, or NULL; it stays in the queue. */
BOUND
struct delivery *domain_peek_delayed(const struct domain *d);

/* Takes a delivery out of whichever queue it is in. */
BOUND
void domain_remove(struct domain_table *t, struct domain *d, struct delivery *delivery);

/* Frees a record with empty queues. */
SINGLE
void domain_destroy(struct domain_table *t, struct domain *d);

SINGLE
void domain_table_close(struct domain_table *t);

/* "suspended by operator", "max_outbound_connections", ...; never NULL. */
READONLY
const char *domain_hold_text(enum domain_hold hold);

/* Checks queue links, heap order and counts; for tests and debug builds. */
BOUND
bool domain_validate(const struct domain *d);
