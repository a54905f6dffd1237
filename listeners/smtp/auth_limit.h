/*
 * How often a client may fail to authenticate: failures by peer address within a period, in a table
 * of fixed size. IPv6 clients count by /64. One table on each scheduler; where many addresses fail
 * at once, those that did so longest ago are forgotten.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "core/runtime/thread_class.h"

#define AUTH_LIMIT_ROWS 512
#define AUTH_LIMIT_ROW 8

BOUND
struct auth_limit {
	struct auth_failures {
		struct in6_addr peer;
		/* When the period began, monotonic ms; failures in it, 0: the place is free. */
		uint64_t began_ms;
		uint32_t count;
	} places[AUTH_LIMIT_ROWS][AUTH_LIMIT_ROW];
};

/* Counts an attempt of `peer` (IPv4 as v4-mapped) before it is known how it ends. False when it has
 * failed as often as `rate` allows: it is not to be tried. A rate of 0 is no limit. */
BOUND
bool auth_limit_take(struct auth_limit *l, const struct in6_addr *peer, struct rate rate,
		     uint64_t now_ms);

/* The attempt was no failure. */
BOUND
void auth_limit_return(struct auth_limit *l, const struct in6_addr *peer);
