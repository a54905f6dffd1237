/*
 * Deliveries of one message in a domain's queues and on its connections.
 */
#pragma once

#include "core/mail/message.h"
#include "core/queue/domain.h"
#include "core/runtime/thread_class.h"
#include "listeners/control/order.h"

/* Deliveries of one message and domain, found at a time. */
#define FOUND_MAX 512

BOUND
struct found {
	struct delivery *deliveries[FOUND_MAX];
	unsigned count;
};

/* All deliveries of the message in this record. O(what is queued). */
BOUND
void found_in(struct found *f, const struct domain *d, const struct message_id *id);

/* "active queue", "on a connection", ... */
READONLY
const char *found_place(const struct delivery *d);

/* Answers that there was none of the message that is argument 0. */
BOUND
void found_nothing(struct order *o);
