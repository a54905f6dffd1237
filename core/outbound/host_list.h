/*
 * The next hops of a lane: which one to try, and what is remembered of each.
 */
#pragma once

#include <stdint.h>

#include "core/queue/site.h"

/* The host with the lowest preference that is not left alone at `now_ms`, among equals the one with
 * fewest connections. NULL: none; `*until_ms` says when the first may be tried again, UINT64_MAX
 * that bind_address allows none. */
BOUND
struct host *host_choose(struct lane *l, uint64_t now_ms, uint64_t *until_ms);

/* The host at the other end of a connection; NULL when it is listed no more. */
BOUND
struct host *host_of(const struct connection *c);

/* Takes over a new list (malloc, 1 or more): an address that is listed twice is one host; what was
 * remembered of those that were in the old list is kept. */
BOUND
void host_list_replace(struct lane *l, struct host *hosts, uint32_t count);
