/*
 * Retry schedule: the n-th failure waits retry_interval * 2^(n-1), at most max_retry_interval.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/queue/options.h"

/* Wait in ms after `attempts` (1 or more) failed attempts. */
READONLY
uint64_t retry_wait_ms(const struct domain_options *options, uint32_t attempts);

/* True when a message received at `received_ms` has expired at `wall_ms`. */
READONLY
bool retry_expired(const struct domain_options *options, uint64_t received_ms, uint64_t wall_ms);
