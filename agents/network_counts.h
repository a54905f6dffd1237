/*
 * Counts by network: one writer, read by all without a lock. A network has a row of numbers, whose
 * meaning is the owner's (agents/inbound_audit.h).
 *
 * A hash table with chains of rows, which are never freed before the table is, but used again. The
 * owner changes a chain between two changes of its stripe's version, so that a reader who was led
 * astray in between sees that, and looks again.
 *
 * Start reading at network_counts_read().
 */
#pragma once

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

struct network_counts;

/* Rows of `width` numbers, 1 or more, `max` of them at most, in so many chains. Never NULL. */
SINGLE
struct network_counts *network_counts_create(uint32_t width, uint32_t max, uint32_t chains);

SINGLE
void network_counts_destroy(struct network_counts *t);

/* The row of the network that has `address` (IPv4 as v4-mapped) and `prefix` bits, 0 to 128. There
 * is none yet: a new one, all 0, for which the one that was asked for longest ago goes when there
 * are `max`. The owner changes its numbers with network_counts_set(). */
BOUND
_Atomic uint64_t *network_counts_row(struct network_counts *t, const struct in6_addr *address,
				     unsigned prefix);

/* Its row goes, if there is one. */
BOUND
void network_counts_drop(struct network_counts *t, const struct in6_addr *address, unsigned prefix);

/* What is set before is seen by who sees this. */
BOUND
static inline void network_counts_set(_Atomic uint64_t *number, uint64_t value)
{
	atomic_store_explicit(number, value, memory_order_release);
}

BOUND
static inline uint64_t network_counts_get(const _Atomic uint64_t *number)
{
	return atomic_load_explicit(number, memory_order_relaxed);
}

/* Copies a network's numbers, in their order; false: it has none. What is changed meanwhile may be
 * seen in part. */
CONCURRENT
bool network_counts_read(const struct network_counts *t, const struct in6_addr *address,
			 unsigned prefix, uint64_t *numbers);

/* How many networks have a row. */
BOUND
uint32_t network_counts_size(const struct network_counts *t);
