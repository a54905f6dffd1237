/*
 * Delivery: one message's recipients in one domain (at most 128 of them), with its attempts and due
 * time. It sits in exactly one place: a mail queue, an outbound connection, or on its way through a
 * ring. Its home scheduler owns it.
 *
 * An operator may hold it, and send it on: to the queue of another domain or binding than its
 * envelope says. Both outlive a restart, by the spool's record of its state.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/mail/message.h"
#include "core/runtime/thread_class.h"

#define DELIVERY_MAGIC 0x64656c69U

struct connection;
struct domain;

/* A set of recipients, by their place in the delivery. */
SINGLE
struct recipient_set {
	uint64_t bits[2];
};

enum delivery_place {
	/* Not in a queue: on its way, or waiting for the spool. */
	DELIVERY_TRANSIT,
	DELIVERY_ACTIVE,
	DELIVERY_DELAYED,
	/* On an outbound connection. */
	DELIVERY_ATTEMPT,
	/* Held by an operator until it is released, or its time is over. */
	DELIVERY_HELD,
};

/* Where a delivery goes instead of where its envelope says. */
SINGLE
struct delivery_route {
	char binding[ENVELOPE_BINDING_MAX + 1];
	/* Lower case, NUL-terminated. */
	char domain[];
};

SINGLE
struct delivery {
	uint32_t magic;
	OWNER_FIELD
	/* Index into the envelope's deliveries. */
	uint16_t index;
	/* The operator's selection that has looked at it last. */
	uint16_t mark;
	uint16_t attempts;
	uint8_t place;
	/* To be held, or held already; its domain or binding is not that of its envelope; and it is
	 * on its way there, by `route`. */
	bool held : 1;
	bool rerouted : 1;
	bool sent_on : 1;
	/* An order's state is not in the spool yet: it counts in its scheduler's orders_waiting. */
	bool ordered : 1;
	/* Its message has a priority: it goes before those of its domain that have none. */
	bool urgent : 1;
	/* An operator's order that came while an attempt was under way: fail it afterwards. */
	bool doomed;
	bool doomed_quiet;
	/* Counts among the message's content_users: it reads the message's own content. */
	bool uses_content;
	/* Its sender was told that it waits (RFC 3461); once is enough. */
	bool delay_told;
	struct message *message;
	struct domain *domain;
	/* Last reply or reason, for people and bounces; malloc, NULL if none. */
	char *last_text;
	/* When to try again, wall clock, ms; 0: now. */
	uint64_t due_ms;
	/* Recipients still to be delivered. */
	struct recipient_set pending;
	/* Those of them that were deferred since the last wait: others have their turn first. */
	struct recipient_set tried;
	/* What it is part of there, by place. */
	union {
		/* ACTIVE: the queue. */
		struct {
			struct delivery *next;
			struct delivery *prev;
		};
		/* DELAYED and HELD: place in the heap. */
		uint32_t heap_index;
		/* TRANSIT, sent_on: malloc. */
		struct delivery_route *route;
		/* ATTEMPT and TRANSIT: on whose connection, NULL outside of an attempt; and content
		 * that was read back for this attempt, NULL when none was. */
		struct {
			struct connection *connection;
			struct content *loaded;
		};
	};
};
#ifndef FLYWHEEL_DEBUG
_Static_assert(sizeof(struct delivery) == 96, "one or more for each queued message");
#endif

static inline bool recipient_set_has(const struct recipient_set *s, unsigned i)
{
	return (s->bits[i >> 6] >> (i & 63) & 1U) != 0;
}

/* The first place from `from` on that is in the set; ENVELOPE_DELIVERY_RECIPIENTS: there is none.
 */
static inline unsigned recipient_set_next(const struct recipient_set *s, unsigned from)
{
	for (unsigned at = from; at < ENVELOPE_DELIVERY_RECIPIENTS; at = (at | 63) + 1) {
		uint64_t bits = s->bits[at >> 6] >> (at & 63);

		if (bits != 0) {
			return at + (unsigned)__builtin_ctzll(bits);
		}
	}
	return ENVELOPE_DELIVERY_RECIPIENTS;
}

static inline void recipient_set_add(struct recipient_set *s, unsigned i)
{
	s->bits[i >> 6] |= UINT64_C(1) << (i & 63);
}

static inline void recipient_set_remove(struct recipient_set *s, unsigned i)
{
	s->bits[i >> 6] &= ~(UINT64_C(1) << (i & 63));
}

/* What is in `a` and not in `b`. */
static inline struct recipient_set recipient_set_without(const struct recipient_set *a,
							 const struct recipient_set *b)
{
	return (struct recipient_set){{a->bits[0] & ~b->bits[0], a->bits[1] & ~b->bits[1]}};
}

/* Adds all of `from` to `s`. */
static inline void recipient_set_join(struct recipient_set *s, const struct recipient_set *from)
{
	s->bits[0] |= from->bits[0];
	s->bits[1] |= from->bits[1];
}

static inline unsigned recipient_set_count(const struct recipient_set *s)
{
	return (unsigned)(__builtin_popcountll(s->bits[0]) + __builtin_popcountll(s->bits[1]));
}

static inline bool recipient_set_empty(const struct recipient_set *s)
{
	return (s->bits[0] | s->bits[1]) == 0;
}

/* The first `count` recipients, 0 to 128. */
static inline struct recipient_set recipient_set_first(unsigned count)
{
	struct recipient_set s = {{0, 0}};

	for (unsigned i = 0; i < count; i++) {
		recipient_set_add(&s, i);
	}
	return s;
}

/* A delivery for `index` of the message's envelope, all recipients pending, in transit. Takes over
 * one reference to the message, and is no user of its content yet. */
SINGLE
struct delivery *delivery_create(struct mail_pools *p, struct message *m, uint32_t index);

/* Envelope and body as this delivery may read them; NULL when they are on disk only. */
SINGLE
static inline struct content *delivery_content(const struct delivery *d)
{
	if (d->uses_content) {
		return d->message->content;
	}
	return d->place == DELIVERY_TRANSIT || d->place == DELIVERY_ATTEMPT ? d->loaded : NULL;
}

/* For those who know that the content is there: during an attempt it is. */
SINGLE
static inline const struct envelope *delivery_envelope(const struct delivery *d)
{
	const struct content *c = delivery_content(d);

	ASSERT(c != NULL);
	return content_envelope(c);
}

/* It is in transit, and goes to another record than its envelope says. `binding`: 1 to
 * ENVELOPE_BINDING_MAX bytes; `domain`: lower case, 1 to 255 bytes. */
SINGLE
void delivery_send_on(struct delivery *d, const char *binding, const char *domain);

/* It has come there, or stays where it is: the route is forgotten. */
SINGLE
void delivery_end_route(struct delivery *d);

/* It reads the message's own content no more. True when no other delivery does either: then the
 * content was dropped, and the spool must have it. */
SINGLE
bool delivery_give_up_content(struct delivery *d, struct mail_pools *p);

/* Frees what was read back for it, if anything; it is in transit. */
SINGLE
void delivery_unload(struct delivery *d, struct mail_pools *p);

/* Frees it, what was read back for it and its reference to the message; it is in transit. */
SINGLE
void delivery_destroy(struct delivery *d, struct mail_pools *p);
