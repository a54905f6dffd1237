/*
 * The next hops of a lane: which one to try, and what is remembered of each.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/queue/site.h"

/* The host with the lowest preference that is not left alone at `now_ms`, among equals the one with
 * fewest connections. NULL: none; `*until_ms` says when the first may be tried again, UINT64_MAX
 * that bind_address allows none. */
BOUND
struct host *host_choose(struct lane *l, uint64_t now_ms, uint64_t *until_ms);

/* It failed, as `text` says, for want of the TLS that it has to have (`tls`) or otherwise, and is
 * left alone until then (monotonic ms). */
BOUND
void host_fail(struct host *h, uint64_t until_ms, const char *text, bool tls);

/* Each that may be connected to failed last for want of TLS. */
BOUND
bool host_all_lack_tls(const struct lane *l);

/* The host at the other end of a connection; NULL when it is listed no more. */
BOUND
struct host *host_of(const struct connection *c);

/* Takes over a new list (malloc, 1 or more): an address that is listed twice is one host; what was
 * remembered of those that were in the old list is kept. */
BOUND
void host_list_replace(struct lane *l, struct host *hosts, uint32_t count);
