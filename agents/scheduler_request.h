/*
 * A scheduler's request to the spool, and what is to happen when it comes back. Private to the
 * scheduler's files.
 */
#pragma once

#include "agents/scheduler.h"
#include "core/mail/dsn.h"

SINGLE
struct scheduler_request {
	struct spool_request spool;
	struct scheduler *scheduler;
	/* STORE; LOAD. */
	stored_fn on_stored;
	loaded_fn on_loaded;
	void *owner;
	uint64_t began_ns;
	/* STATE and DONE. */
	struct delivery *delivery;
	/* STATE of a delivery that is queued again: the record that it was of. */
	struct domain *domain;
	/* STATE and DONE: an operator's order; counts in orders_waiting. */
	bool ordered;
	/* STATE: what it points to, malloc. */
	char *texts;
};

/* A request with scheduler and times filled in; counted as waiting. */
BOUND
struct scheduler_request *scheduler_request_get(struct scheduler *s, enum spool_verb verb,
						task_fn on_done);

/* Frees it, and counts it no more. */
BOUND
void scheduler_request_put(struct scheduler_request *r);

/* Sets up what the dispatcher asks of the scheduler: outcome.c. */
extern const struct dispatch_ops scheduler_dispatch_ops;

/* A connection was opened while there are traces: tracing.c. */
BOUND
void scheduler_offer_connection(struct dispatcher *x, struct connection *c);

/* Looks next hops up: lookup.c. */
BOUND
void scheduler_resolve(struct dispatcher *x, struct domain *d);

/* A delivery arrives at its home: task. */
BOUND
void scheduler_on_delivery(struct agent *self, void *delivery, uint64_t value);

/* The program stops: what only memory has of a record's queues goes to the spool. */
BOUND
void scheduler_keep_domain(struct scheduler *s, struct domain *d);

/* A delivery is over for this run: the spool is told who remains, for the next start. */
BOUND
void scheduler_leave_delivery(struct scheduler *s, struct delivery *delivery);

/* Keeps a message that was only in memory, then calls on_stored; it is not routed. */
BOUND
void scheduler_keep(struct scheduler *s, struct message *m, stored_fn on_stored, void *owner);

/* One recipient that failed for good, or was delivered where nobody else tells the sender so, with
 * copies of what was said. */
SINGLE
struct bounce_recipient {
	enum dsn_action action;
	/* In the delivery. */
	unsigned place;
	uint16_t code;
	char enhanced[12];
	char *text;
};

/* What one attempt did that the sender is told, in one notification. */
SINGLE
struct bounce {
	struct scheduler *scheduler;
	struct delivery *delivery;
	char remote_name[256];
	/* Called when the notification is as durable as its message. */
	void (*on_done)(struct bounce *b);
	struct timer retry;
	uint32_t count;
	struct bounce_recipient recipients[];
};

/* Makes room for `count` recipients. */
SINGLE
struct bounce *bounce_create(struct scheduler *s, struct delivery *delivery, uint32_t count);

/* Writes the notification, stores and routes it; then on_done, and the bounce is freed after it. */
BOUND
void bounce_send(struct bounce *b);

/* The same for a delivery in transit, while the program stops: it is over for this run. */
BOUND
void scheduler_keep_delivery(struct scheduler *s, struct delivery *delivery);
