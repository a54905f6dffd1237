/*
 * Message: refcounted envelope and body. The envelope never changes. The body is filled by the
 * receiving scheduler, then only read; it may be dropped when the spool holds it. A message with
 * deliveries on several schedulers is shared by them, so the count is atomic, and each delivery
 * that needs the body of a spooled, dropped message reads a chain of its own.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/mail/chain.h"
#include "core/mail/envelope.h"
#include "core/runtime/thread_class.h"

#define MESSAGE_MAGIC 0x6d657373U

#define MESSAGE_SIZE_CLASSES 4

struct spool_entry;

/* One agent's pools for mail. */
BOUND
struct mail_pools {
	struct pool buffers;
	/* Messages with envelopes by size: up to 256, 384, 768 and 2 048 bytes in all. */
	struct pool messages[MESSAGE_SIZE_CLASSES];
	struct pool deliveries;
	/* Memory of bodies that became resident here less those given up here, for the budget: the
	 * sum over all agents is what is resident. Written by the owner, read by all. */
	_Atomic int64_t body_bytes;
};

SINGLE
struct message {
	uint32_t magic;
	/* Size class of the allocation; MESSAGE_SIZE_CLASSES: malloc. */
	uint8_t size_class;
	/* Which spool writer keeps it. */
	uint8_t writer;
	/* True while `body` holds the whole body. Written only while one agent holds it. */
	bool resident;
	_Atomic uint32_t references;
	/* Deliveries that may still read the resident body: the last one to give it up drops it. */
	_Atomic uint32_t body_users;
	/* Where it is in the spool; the writer's. NULL: not spooled. */
	struct spool_entry *spool;
	struct chain body;
	/* Follows; see message_envelope(). */
	_Alignas(8) unsigned char envelope[];
};

SINGLE
void mail_pools_init(struct mail_pools *p);
SINGLE
void mail_pools_close(struct mail_pools *p);

/* Messages made and not freed, here as in all pools that messages were passed between. */
SINGLE
uint64_t mail_pools_messages(const struct mail_pools *p);

/* A message with room for an envelope of `envelope_bytes`, one reference, no body. Never NULL. */
SINGLE
struct message *message_create(struct mail_pools *p, size_t envelope_bytes);

CONCURRENT
static inline struct envelope *message_envelope(const struct message *m)
{
	return (struct envelope *)(uintptr_t)(const void *)m->envelope;
}

CONCURRENT
void message_hold(struct message *m, uint32_t references);

/* The last one frees message and body into `p`. */
SINGLE
void message_release(struct message *m, struct mail_pools *p);

/* Body bytes count as resident from here on. */
SINGLE
void message_set_resident(struct message *m, struct mail_pools *p);

/* Drops the body; the caller knows that the spool holds it, and that nobody else reads it. */
SINGLE
void message_drop_body(struct message *m, struct mail_pools *p);
