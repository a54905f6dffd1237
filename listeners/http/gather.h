/*
 * Gathering: what only schedulers know of their domain records, bindings and refusals, in one
 * snapshot for all who want to see it. An order (listeners/control/order.h) walks over all records,
 * so many in each duty cycle of each scheduler; who asks while it is under way gets what it brings.
 *
 * The domains of most volume have rows of their own. Volume is what has been delivered, deferred
 * and failed since the record was made, and what is queued. A walk adds up exactly those domains
 * that had rows before, over all their bindings and schedulers, and finds out which others have
 * grown large enough; such a newcomer is known by its largest records only until the next walk.
 *
 * Start reading at gather_begin().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/outbound/reply_top.h"
#include "listeners/control/order.h"
#include "listeners/http/process.h"

#define GATHER_NAME 256
/* Bindings with rows of their own. */
#define GATHER_BINDINGS 200
#define GATHER_REFUSALS 10

enum gather_sum {
	GATHER_ACTIVE,
	GATHER_DELAYED,
	/* On connections, and waiting for the spool after an attempt. */
	GATHER_IN_DELIVERY,
	GATHER_CONNECTIONS,
	GATHER_DELIVERED,
	GATHER_DEFERRED,
	GATHER_FAILED,
	GATHER_SUMS
};

BOUND
struct gather_row {
	char name[GATHER_NAME];
	uint64_t sums[GATHER_SUMS];
};

BOUND
struct gather_refusal {
	char text[REPLY_TOP_TEXT];
	uint64_t count;
};

BOUND
struct snapshot {
	/* Monotonic. */
	uint64_t at_ms;
	/* Of all records; what is counted is that of the schedulers' counters as the walks began,
	 * as records of domains without mail are forgotten. */
	uint64_t totals[GATHER_SUMS];
	uint64_t domain_records;
	/* By volume, largest first, and all others. */
	struct gather_row *domains;
	uint32_t domain_count;
	uint64_t other_domains[GATHER_SUMS];
	/* The same. */
	struct gather_row *bindings;
	uint32_t binding_count;
	bool more_bindings;
	uint64_t other_bindings[GATHER_SUMS];
	/* Most frequent first. */
	struct gather_refusal refusals[GATHER_REFUSALS];
	uint32_t refusal_count;
};

/* Somebody who waits for a snapshot. */
BOUND
struct gather_wait {
	void (*on_snapshot)(struct gather_wait *w, const struct snapshot *s);
	struct gather_wait *next;
	bool waiting;
};

struct follow_slot;

BOUND
struct gatherer {
	struct scheduler *scheduler;
	struct order_client *client;
	/* Domains with rows of their own, at most, and the time between snapshots. */
	uint32_t top;
	uint64_t interval_ms;
	/* Under way; NULL: nothing is. */
	struct order *order;
	uint64_t began_ms;
	/* What the schedulers had counted by then; of what is counted. */
	uint64_t counted[GATHER_SUMS];
	/* How long the last one took. */
	uint64_t took_ms;
	bool has_snapshot;
	struct snapshot latest;
	struct gather_wait *waits;
	/* Those of them that are being told. */
	struct gather_wait *told;
	/* By name, those of the latest snapshot: a power of two of slots. Not changed while an
	 * order is under way. */
	struct follow_slot *slots;
	uint32_t slot_mask;
	/* Counted along. */
	struct process_files *files;
	struct counter *gatherings;
};

BOUND
void gatherer_init(struct gatherer *g, struct scheduler *s, struct order_client *client,
		   struct process_files *files);

/* The latest snapshot if it is not too old: half the interval, or ten times what it took to make.
 * NULL: gather_wait() for one. It holds until the next call of something here, or the next duty
 * cycle. */
BOUND
const struct snapshot *gather_fresh(const struct gatherer *g);

/* Asks for a new one: w->on_snapshot() runs later, never from within, once. */
BOUND
void gather_wait(struct gatherer *g, struct gather_wait *w);

/* No longer wanted; not waiting is fine. */
BOUND
void gather_forget(struct gatherer *g, struct gather_wait *w);

/* Nobody waits, and nothing is under way that is this one's: the client's orders are over. */
BOUND
void gatherer_close(struct gatherer *g);
