/*
 * Next hops of a domain: its gateways if it has any, else its own addresses. Addresses that are
 * written as such need no look-up; names are looked up by the system's resolver, which blocks, so
 * that part is for the thread pool.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/queue/domain.h"

#define NEXT_HOP_MAX 64
/* The system's resolver tells no time to live. */
#define NEXT_HOP_TTL_MS 300000

/* True when every next hop is an address; then `*hosts` (malloc) and `*count` are set. */
READONLY
bool next_hop_literal(const struct domain_options *options, struct host **hosts, uint32_t *count);

SINGLE
struct next_hop_answer {
	struct host *hosts;
	uint32_t count;
	char trouble[160];
};

/* Looks them up; blocks. `domain` may be an address literal, "[192.0.2.1]". At most NEXT_HOP_MAX
 * addresses are kept. With count 0, `trouble` says why; that is never final, as a domain without
 * addresses may have mail exchangers. */
CONCURRENT
void next_hop_lookup(const struct domain_options *options, const char *domain,
		     struct next_hop_answer *answer);
