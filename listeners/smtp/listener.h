/*
 * The SMTP listener: receives mail by ESMTP (RFC 5321, with PIPELINING 2920, SIZE 1870, 8BITMIME
 * 6152, ENHANCEDSTATUSCODES 2034, SMTPUTF8 6531, CHUNKING 3030, DSN 3461, AUTH 4954, STARTTLS
 * 3207). One state on each scheduler, which serves the connections that were sharded to it.
 *
 * Start reading at listener_do_work() in listener.c, then session.h.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agents/scheduler.h"
#include "core/runtime/pool.h"
#include "core/runtime/thread_class.h"
#include "listeners/smtp/auth_limit.h"
#include "listeners/smtp/counts.h"
#include "listeners/smtp/session_list.h"

#define SMTP_LISTENER_MAGIC 0x6c73746eU

struct smtp_transaction;

/* The listener's state on one scheduler. */
BOUND
struct smtp_listener {
	uint32_t magic;
	OWNER_FIELD
	struct scheduler *scheduler;
	struct pool session_pool;
	/* Transactions kept for reuse, with the memory of their envelope builders. */
	struct smtp_transaction *spare;
	uint32_t spare_count;
	/* Every session. */
	struct session_link sessions;
	uint32_t session_count;
	/* Of them, those that have not been told of another generation. */
	uint32_t renewals;
	/* To be greeted in the next duty cycle, and in this one: whoever has sent something by then
	 * talks too early. */
	struct session_link arrivals;
	struct session_link greeting;
	/* Not read from until the pressure is over. */
	struct session_link paused;
	/* When to look for transactions that stall next, monotonic ms; 0: the reception budget is
	 * not used up. */
	uint64_t relieve_ms;
	/* Transactions so far, to number them in the logs. */
	uint64_t batches;
	/* Names of bindings that nobody knows and operators were told of. */
	uint32_t unknown_bindings;
	bool stopping;
	/* Its scheduler leaves: sessions are handed on (handover.h), until it stops. */
	bool leaving;
	struct smtp_counts counts;
	struct auth_limit auth_limit;
	/* Of the message that is stored now. */
	struct context context;
};

extern const struct listener_ops smtp_listener;

/* Sessions are not to be read from: what they bring could not be passed on. */
BOUND
static inline bool smtp_listener_pressure(const struct smtp_listener *l)
{
	return l->scheduler->base.pressure || log_client_pressure(&l->scheduler->log);
}
