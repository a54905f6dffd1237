/*
 * Handing sessions on: a scheduler leaves while the program goes on (agents/crew.h), and clients
 * are not to notice. A session moves as it is, with what it has agreed on, what was held back and
 * what it holds of OpenSSL, when nothing is in the middle: between two transactions, when its
 * replies are sent and the kernel has nothing of it. The master chooses the scheduler that goes on
 * with it.
 *
 * What cannot move within stop_timeout, such as a client that does not read its replies, is
 * dismissed then as when the program stops.
 */
#pragma once

#include <stdbool.h>

#include "core/runtime/thread_class.h"
#include "listeners/smtp/listener.h"
#include "listeners/smtp/session.h"

/* It is to be handed on next: nothing more is read or looked at here. A session that is traced ends
 * where it is. */
BOUND
static inline bool smtp_handover_due(const struct smtp_session *ss)
{
	return ss->listener->leaving && smtp_session_is_between(ss) && !ss->eof &&
	       ss->stream.tap == NULL;
}

/* Does so, or what has to come first; it is gone then, or will be tried again. */
BOUND
void smtp_handover_try(struct smtp_session *ss);

/* Goes on with a->session. */
BOUND
void smtp_handover_take(struct smtp_listener *l, struct accept *a);
