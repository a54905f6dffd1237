/*
 * Forwarding entries: at the first home of a domain record that lives elsewhere, where that is. 29
 * bytes and the name, for as long as the record is away.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

BOUND
struct forward {
	struct forward *next;
	const char *binding;
	/* The trip of the record that it knows of: of two entries the later one is right. */
	uint64_t trip;
	/* The upper half of the record's hash, which the buckets are chosen by. */
	uint32_t hash;
	/* The scheduler. */
	uint8_t home;
	char name[];
};

BOUND
struct forward_table {
	struct forward **buckets;
	uint32_t bucket_count;
	uint32_t count;
};

SINGLE
void forward_table_init(struct forward_table *t);
/* `hash` is domain_hash() of both names. NULL: the record is not away. */
BOUND
struct forward *forward_find(const struct forward_table *t, const char *binding, const char *name,
			     uint64_t hash);
/* A record has gone to scheduler `home` by `trip`; there is no entry. `binding` is not copied. */
BOUND
void forward_add(struct forward_table *t, const char *binding, const char *name, uint64_t hash,
		 uint8_t home, uint64_t trip);
/* It comes back. */
SINGLE
void forward_remove(struct forward_table *t, struct forward *f);
SINGLE
void forward_table_close(struct forward_table *t);
