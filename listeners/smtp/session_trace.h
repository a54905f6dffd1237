/*
 * Offers SMTP sessions to the traces of their scheduler (agents/trace_client.h): when they begin,
 * when another client is told to be at the other end, and, of those that are open, when a trace
 * begins.
 */
#pragma once

#include "core/runtime/thread_class.h"
#include "listeners/smtp/session.h"

BOUND
void smtp_session_offer_always(struct smtp_session *ss);

/* A session begins. With PROXY it is not known yet whose it is. */
BOUND
static inline void smtp_session_offer(struct smtp_session *ss)
{
	if (!trace_client_idle(&ss->listener->scheduler->trace) &&
	    ss->state != SMTP_SESSION_PROXY) {
		smtp_session_offer_always(ss);
	}
}

/* Its client is another one, as `how` told. */
BOUND
void smtp_session_offer_told(struct smtp_session *ss, const char *how);

/* It was there before the trace. */
BOUND
void smtp_session_offer_running(struct smtp_session *ss);
