/*
 * What one writer keeps, in memory: an entry for each message with a delivery not over, found by
 * message id. Entries are small, for there may be millions; only a message with several deliveries,
 * or one that was deferred, has more.
 *
 * The table grows by one bucket for each message beyond its size (linear hashing), so no insertion
 * ever rehashes everything.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/mail/envelope.h"
#include "core/runtime/pool.h"
#include "core/runtime/thread_class.h"
#include "spool/segment.h"

/* One delivery of a message: whether it is over, and where its latest state is. */
SINGLE
struct entry_delivery {
	/* NULL: never deferred. */
	struct segment *segment;
	uint64_t stamp;
	uint32_t place;
	uint16_t units;
	bool done;
};

SINGLE
struct spool_entry {
	struct message_id id;
	/* Where the message is. */
	struct segment *segment;
	struct spool_entry *next;
	/* NULL, or one for each delivery. */
	struct entry_delivery *deliveries;
	/* Of its MESSAGE record. */
	uint64_t sequence;
	uint32_t place;
	uint32_t units;
	/* Deliveries not over. */
	uint32_t pending;
	uint32_t delivery_count : 24;
	/* Nothing of this message needs a sync. */
	uint32_t cached : 1;
	uint32_t unused : 7;
};
_Static_assert(sizeof(struct spool_entry) == 64, "one for each queued message");

#define INDEX_LEVELS 32

SINGLE
struct spool_index {
	/* Level 0: buckets 0 and 1; level n: buckets 2^n to 2^(n+1) - 1. */
	struct spool_entry **levels[INDEX_LEVELS];
	/* Buckets in use: 2^round to 2^(round+1). */
	uint64_t buckets;
	uint64_t count;
	struct pool entries;
	struct pool singles;
};

SINGLE
void index_init(struct spool_index *x);
/* Frees all entries. */
SINGLE
void index_close(struct spool_index *x);

/* Makes room for `count` entries, none of which is there yet: as many can be added without one
 * bucket being divided. */
SINGLE
void index_reserve(struct spool_index *x, uint64_t count);

/* NULL when it is not there. */
SINGLE
struct spool_entry *index_find(const struct spool_index *x, const struct message_id *id);
/* It will be looked for soon. */
SINGLE
void index_prefetch(const struct spool_index *x, const struct message_id *id);
/* A new entry with all deliveries pending, found from now on; the caller knows that `id` is new. */
SINGLE
struct spool_entry *index_add(struct spool_index *x, const struct message_id *id,
			      uint32_t delivery_count);
SINGLE
void index_remove(struct spool_index *x, struct spool_entry *e);
/* The message's deliveries, made when there are none yet. */
SINGLE
struct entry_delivery *index_deliveries(struct spool_index *x, struct spool_entry *e);

/* Calls `each` for every entry; it may remove that one, and must not add any. */
SINGLE
void index_each(struct spool_index *x, void (*each)(void *context, struct spool_entry *e),
		void *context);

/* Takes `e` out of `from` and puts it into `to`. */
SINGLE
void index_transfer(struct spool_index *from, struct spool_index *to, struct spool_entry *e);
