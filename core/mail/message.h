/*
 * Message: what queues need to know of a mail, shared by its deliveries, and its content: envelope
 * and body in one block. The content never changes once it was received. It may be dropped when the
 * spool holds it; whoever needs it then reads content of his own back. A message with deliveries on
 * several schedulers is shared by them, so what counts its users is atomic.
 *
 * There may be millions of messages and few whose content is in memory: what is kept of each is one
 * cache line.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/mail/chain.h"
#include "core/mail/envelope.h"
#include "core/runtime/check.h"
#include "core/runtime/thread_class.h"

#define MESSAGE_MAGIC 0x6d73U

#define CONTENT_SIZE_CLASSES 4

struct spool_entry;

/* One agent's pools for mail. */
BOUND
struct mail_pools {
	struct pool buffers;
	struct pool messages;
	/* Content with envelopes by size: up to 256, 384, 768 and 2 048 bytes in all. */
	struct pool contents[CONTENT_SIZE_CLASSES];
	struct pool deliveries;
	/* Memory of content that became resident here less that given up here, for the budget: the
	 * sum over all agents is what is resident. Written by the owner, read by all. */
	_Atomic int64_t resident_bytes;
};

/* Envelope and body: a message's own, or read back for one that needs them. */
SINGLE
struct content {
	/* Size class of the allocation; CONTENT_SIZE_CLASSES: malloc. */
	uint8_t size_class;
	/* Counts among the resident bytes. */
	bool resident;
	uint32_t envelope_bytes;
	struct chain body;
	/* Follows; see content_envelope(). */
	_Alignas(8) unsigned char envelope[];
};

SINGLE
struct message {
	uint16_t magic;
	/* Which spool writer keeps it. */
	uint8_t writer;
	/* The sender has an address to which failures can be reported. */
	bool has_sender;
	_Atomic uint32_t references;
	/* Deliveries that may still read the content: the last one to give it up drops it. */
	_Atomic uint32_t content_users;
	/* As in the envelope, which may be on disk only: message_seal(). */
	uint32_t envelope_bytes;
	struct message_id id;
	uint64_t received_ms;
	uint64_t body_bytes;
	/* Where it is in the spool; the writer's. NULL: not spooled. */
	struct spool_entry *spool;
	/* NULL: dropped. */
	struct content *content;
};
_Static_assert(sizeof(struct message) == 64, "one for each queued message");

SINGLE
void mail_pools_init(struct mail_pools *p);

/* Gives back what was not needed for reuse since the last call, some of it: see pool_trim(). */
SINGLE
void mail_pools_trim(struct mail_pools *p);

/* Gives back all of that; the pools go on. */
SINGLE
void mail_pools_empty(struct mail_pools *p);

SINGLE
void mail_pools_close(struct mail_pools *p);

/* Messages and contents made and not freed, here as in all pools that they were passed between. */
SINGLE
uint64_t mail_pools_live(const struct mail_pools *p);

/* Content with room for an envelope of `envelope_bytes`, no body. Never NULL. */
SINGLE
struct content *content_create(struct mail_pools *p, size_t envelope_bytes);

/* Frees envelope and body into `p`; NULL is ignored. */
SINGLE
void content_release(struct content *c, struct mail_pools *p);

CONCURRENT
static inline struct envelope *content_envelope(const struct content *c)
{
	return (struct envelope *)(uintptr_t)(const void *)c->envelope;
}

/* A message with room for an envelope of `envelope_bytes`, one reference, no body. Never NULL. */
SINGLE
struct message *message_create(struct mail_pools *p, size_t envelope_bytes);

/* Only for those who know that the content has not been dropped: who makes or stores the message,
 * and its users. */
CONCURRENT
static inline struct envelope *message_envelope(const struct message *m)
{
	ASSERT(m->content != NULL);
	return content_envelope(m->content);
}

CONCURRENT
static inline struct chain *message_body(const struct message *m)
{
	ASSERT(m->content != NULL);
	return &m->content->body;
}

/* Bytes that reading the content back takes, about. */
CONCURRENT
static inline uint64_t message_content_bytes(const struct message *m)
{
	return m->body_bytes + m->envelope_bytes;
}

CONCURRENT
void message_hold(struct message *m, uint32_t references);

/* The last one frees message and content into `p`. */
SINGLE
void message_release(struct message *m, struct mail_pools *p);

/* The envelope is complete: takes over what is needed of it while it is on disk only. */
SINGLE
void message_seal(struct message *m);

/* Seals the message; its content counts as resident from here on. */
SINGLE
void message_set_resident(struct message *m, struct mail_pools *p);

/* Drops the body of a message with resident content, which the spool has. The envelope stays for
 * the way of the deliveries to their homes, and is not resident. Only one knows the message. */
SINGLE
void message_drop_body(struct message *m, struct mail_pools *p);

/* `users` more deliveries may read the content; the caller is one of those who may, or the only one
 * who knows the message. */
CONCURRENT
void message_use_content(struct message *m, uint32_t users);

/* One user less. The last one drops the content, which the spool then holds: true. */
SINGLE
bool message_give_up_content(struct message *m, struct mail_pools *p);
