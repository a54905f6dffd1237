/*
 * What becomes of internationalized mail (SMTPUTF8, RFC 6531) at a next hop that does not know it.
 * Domains are A-labels since reception (core/mail/address.h), so that only local parts and the
 * header may need it.
 */
#pragma once

#include "core/mail/message.h"
#include "core/queue/delivery.h"
#include "core/runtime/thread_class.h"

/*
 * Those of `recipients`, places in the delivery that has `content`, to whom the message cannot go
 * without SMTPUTF8: all of them when its sender or its header is not ASCII, else those whose local
 * part is not. Reads the header; only for messages that came with SMTPUTF8.
 */
SINGLE
struct recipient_set international_recipients(const struct content *content, uint32_t index,
					      const struct recipient_set *recipients);
