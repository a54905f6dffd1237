/*
 * Inbound audit: what clients do, by the networks that they are in. Of each scheduler: the sessions
 * that are open now, by service; and, when the configuration has monitors, connections, receptions
 * and rejections in windows of time. A network is one of the client's address: its /32, /24, /16
 * and /8, or /128, /64, /48 and /32.
 *
 * A scheduler writes its own, anyone reads it. It lives as long as the scheduler's place, so that
 * who sums over all schedulers may do so while some come and go.
 *
 * Start reading at inbound_audit_note().
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "core/policy/policy.h"
#include "core/runtime/thread_class.h"

/* Kinds of sessions. */
#define INBOUND_SERVICES 8
/* Networks whose events one scheduler remembers, and memory for them: beyond, the one with the
 * oldest goes. */
#define INBOUND_NETWORKS_MAX 100000
#define INBOUND_BYTES_MAX (UINT64_C(64) << 20)

struct inbound_audit;

/* Never NULL. The monitors are copied. */
SINGLE
struct inbound_audit *inbound_audit_create(const struct inbound_monitor *monitors, uint32_t count);

/* NULL is ignored. */
SINGLE
void inbound_audit_destroy(struct inbound_audit *a);

/* A session of `service` (below INBOUND_SERVICES) begins, or ends. */
BOUND
void inbound_audit_begin(struct inbound_audit *a, uint32_t service, const struct in6_addr *client);
BOUND
void inbound_audit_end(struct inbound_audit *a, uint32_t service, const struct in6_addr *client);

/* Something happened at `now_s`, wall clock seconds; without monitors nothing is noted. */
BOUND
void inbound_audit_note(struct inbound_audit *a, const struct in6_addr *client,
			enum policy_event event, uint64_t now_s);

/* Sessions open now. */
CONCURRENT
uint64_t inbound_audit_sessions(const struct inbound_audit *a, uint32_t service,
				const struct in6_addr *address, unsigned prefix);

/* The monitor with these windows, or -1. */
READONLY
int inbound_audit_monitor(const struct inbound_audit *a, uint32_t interval_s, uint32_t windows);

/* Events in the windows from `first` to `last` (up to the monitor's `windows`) before the one that
 * has `now_s`. */
CONCURRENT
uint64_t inbound_audit_sum(const struct inbound_audit *a, int monitor,
			   const struct policy_events *asked, uint64_t now_s);
