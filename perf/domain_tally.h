/*
 * Counts by recipient domain. A domain is named by its number once it was seen.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "perf/text.h"

struct domain_counts {
	char *name;
	uint64_t fingerprint;
	/* Transactions whose first recipient is in the domain. */
	uint64_t messages;
	uint64_t recipients;
	/* Connections whose latest recipient is in the domain, now and at most. */
	uint32_t connections;
	uint32_t connections_peak;
};

/* Zeroed memory is an empty tally. */
struct domain_tally {
	struct domain_counts *domains;
	uint32_t count;
	uint32_t capacity;
	/* Numbers plus one, by fingerprint; 0 is free. */
	uint32_t *slots;
	uint32_t mask;
};

/* Returns the number of the domain `name` of `len` bytes, in lower case; adds it when new. */
uint32_t domain_tally_number(struct domain_tally *tally, const char *name, size_t len);

/* A connection that was sending to `from` (or UINT32_MAX) now sends to `to` (or UINT32_MAX). */
void domain_tally_move(struct domain_tally *tally, uint32_t from, uint32_t to);

/* Appends {"NAME": {"messages": ..., ...}, ...} */
void domain_tally_append_json(const struct domain_tally *tally, struct text *t);

void domain_tally_free(struct domain_tally *tally);
