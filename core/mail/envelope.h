/*
 * Envelope: sender, recipients grouped by domain, and what is known of the reception, in one
 * immutable block of bytes. The same bytes are in memory and in the spool, so that writing and
 * recovering a message convert nothing. Little-endian; all offsets are from the block's start.
 *
 * A delivery is up to ENVELOPE_DELIVERY_RECIPIENTS recipients of one domain; a domain with more of
 * them has several deliveries.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "core/mail/context.h"
#include "core/runtime/thread_class.h"

#define ENVELOPE_VERSION 1
#define ENVELOPE_DELIVERY_RECIPIENTS 128
#define ENVELOPE_RECIPIENTS_MAX 65535
/* RFC 5321 section 4.5.3.1: 64 octets of local part, 255 of domain, one "@". */
#define ADDRESS_MAX 320
/* Longest name of a binding. */
#define ENVELOPE_BINDING_MAX 64

enum envelope_flag {
	ENVELOPE_8BITMIME = 1,
	ENVELOPE_SMTPUTF8 = 2,
	/* The message was made here, such as a delivery status notification. */
	ENVELOPE_INTERNAL = 4,
	/* RET of RFC 3461: how much of it comes back with a notification of failure. */
	ENVELOPE_RET_FULL = 8,
	ENVELOPE_RET_HDRS = 16,
	/* ENVID, behind the sender. */
	ENVELOPE_ENVID = 32,
	/* REQUIRETLS (RFC 8689): the message may only travel over TLS, to a next hop that is
	 * verified and offers REQUIRETLS, and is handed on with it. Who must honour it: reception
	 * (on_mail() in listeners/smtp/dialogue.c), the outbound connection (refuse_here() in
	 * core/outbound/transaction.c), and notifications of it, which carry it as well or no more
	 * than its header (RFC 8689 section 5). */
	ENVELOPE_REQUIRETLS = 64,
	/* No line of the body begins with a dot, so that its wire form is the body itself. Without
	 * it one may. */
	ENVELOPE_UNSTUFFED = 128,
	/* The name of the binding that sends it, behind the sender and its ENVID. */
	ENVELOPE_BINDING = 256,
};

enum envelope_recipient_flag {
	/* NOTIFY of RFC 3461; none of them: failures, as ever. */
	ENVELOPE_NOTIFY_NEVER = 1,
	ENVELOPE_NOTIFY_SUCCESS = 2,
	ENVELOPE_NOTIFY_FAILURE = 4,
	ENVELOPE_NOTIFY_DELAY = 8,
	/* ORCPT, behind the address. */
	ENVELOPE_ORCPT = 16,
};
#define ENVELOPE_NOTIFY                                                                            \
	(ENVELOPE_NOTIFY_NEVER | ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_FAILURE |               \
	 ENVELOPE_NOTIFY_DELAY)

enum envelope_protocol { ENVELOPE_ESMTP, ENVELOPE_SMTP, ENVELOPE_GENERATED };

enum envelope_durability { ENVELOPE_SYNCED, ENVELOPE_CACHED, ENVELOPE_MEMORY };

/* Sorts by time, and is unique across nodes: milliseconds since 1970 (48 bits) and node (16), then
 * agent (8) and a count (56) that starts anew, above all before, with each start. */
SINGLE
struct message_id {
	uint64_t high;
	uint64_t low;
};

#define MESSAGE_ID_TEXT 27

/* 26 characters of Crockford's base 32, lower case, and the final NUL; sorts like the id. */
CONCURRENT
void message_id_format(const struct message_id *id, char text[MESSAGE_ID_TEXT]);
/* 0, or -EINVAL when `text` is no such id. */
CONCURRENT
int message_id_parse(const char *text, struct message_id *id);

READONLY
struct envelope {
	uint32_t size;
	uint16_t version;
	uint16_t flags;
	struct message_id id;
	/* Wall clock, ms. */
	uint64_t received_ms;
	/* Body in wire form, without the final dot. */
	uint64_t body_bytes;
	/* Reserved for scheduling by context; 0. */
	uint64_t deadline_ms;
	uint32_t tenant_offset;
	uint32_t campaign_offset;
	/* Key-value metadata: count of pairs and offset of "key\0value\0..." (context.h); 0. */
	uint32_t context_count;
	uint32_t context_offset;
	uint8_t peer_ip[16];
	uint16_t peer_port;
	uint8_t protocol;
	uint8_t durability;
	uint8_t priority;
	uint8_t unused[3];
	uint32_t delivery_count;
	uint32_t recipient_count;
	/* Sender without brackets, NUL-terminated; empty for the null sender. With ENVELOPE_ENVID
	 * the ENVID follows, xtext as given, with ENVELOPE_BINDING the name of a binding, both
	 * NUL-terminated. */
	uint32_t sender_offset;
	/* struct envelope_delivery[delivery_count], struct envelope_recipient[recipient_count]. */
	uint32_t deliveries_offset;
	uint32_t recipients_offset;
};
_Static_assert(sizeof(struct envelope) == 112, "on-disk layout");

READONLY
struct envelope_delivery {
	/* Lower case, NUL-terminated. */
	uint32_t domain_offset;
	uint16_t first;
	uint16_t count;
};

READONLY
struct envelope_recipient {
	/* local@domain as given, NUL-terminated. With ENVELOPE_ORCPT the ORCPT follows, type;xtext
	 * as given, NUL-terminated. */
	uint32_t offset;
	uint16_t len;
	/* enum envelope_recipient_flag */
	uint16_t flags;
};

/* Gathers an envelope during a session. Reused for message after message. */
SINGLE
struct envelope_builder {
	char *text;
	size_t text_len;
	size_t text_size;
	struct envelope_recipient *recipients;
	uint32_t recipient_count;
	uint32_t recipient_size;
	size_t sender_len;
	/* Of the text before the recipients': sender and ENVID. */
	size_t head_len;
	/* NULL: the default one. */
	const char *binding;
	/* NULL: none. */
	const struct context *context;
	uint16_t flags;
	bool has_sender;
	/* Recipients are in the order of the block. */
	bool sorted;
	/* Hash table of the recipients' offsets in `text`; 0: free. */
	uint32_t *index;
	uint32_t index_size;
};

SINGLE
void envelope_builder_init(struct envelope_builder *b);
/* Ready for the next message; memory is kept unless it has become large. */
SINGLE
void envelope_builder_reset(struct envelope_builder *b);
/* Once for each message, before its recipients. `address` without brackets, 0 to ADDRESS_MAX bytes;
 * empty: the null sender. */
SINGLE
void envelope_set_sender(struct envelope_builder *b, const char *address, size_t len);
/* A recipient with a domain part, up to ENVELOPE_RECIPIENTS_MAX of them (asserted). Duplicates
 * (same local part, domain equal but for case) are merged: returns false for them. */
SINGLE
bool envelope_add_recipient(struct envelope_builder *b, const char *address, size_t len);
/* What MAIL and RCPT said besides (RFC 3461), checked by dsn_parameter.h: of the sender, before any
 * recipient; of the recipient that was added last (not a duplicate: the first one's stand). `orcpt`
 * NULL: none. */
SINGLE
void envelope_set_envid(struct envelope_builder *b, const char *envid, size_t len);
SINGLE
void envelope_set_notify(struct envelope_builder *b, uint16_t notify, const char *orcpt,
			 size_t orcpt_len);
/* Who sends it, at any time before envelope_size(); the name is kept by the caller until the block
 * is built. 1 to ENVELOPE_BINDING_MAX bytes; NULL: the default binding. */
SINGLE
void envelope_set_binding(struct envelope_builder *b, const char *name);
/* Its context, at any time before envelope_size(); kept by the caller until the block is built.
 * NULL: none. */
SINGLE
void envelope_set_context(struct envelope_builder *b, const struct context *context);
/* Memory that what it was given takes, bytes. */
SINGLE
size_t envelope_builder_bytes(const struct envelope_builder *b);
/* Size in bytes of the block that envelope_build() will write. */
SINGLE
size_t envelope_size(struct envelope_builder *b);
/* Writes the block: offsets, deliveries sorted by domain, and text; the caller fills in id, times,
 * peer, protocol, durability and body_bytes. */
SINGLE
void envelope_build(struct envelope_builder *b, struct envelope *out);
SINGLE
void envelope_builder_close(struct envelope_builder *b);

/* Checks a block that came from a disk: sizes, offsets, termination. 0 or -EINVAL. */
READONLY
int envelope_check(const struct envelope *e, size_t size);

static inline const char *envelope_sender(const struct envelope *e)
{
	return (const char *)e + e->sender_offset;
}

/* NULL: none. */
static inline const char *envelope_envid(const struct envelope *e)
{
	const char *sender = envelope_sender(e);

	return (e->flags & ENVELOPE_ENVID) != 0 ? sender + strlen(sender) + 1 : NULL;
}

/* NULL: the default one. */
static inline const char *envelope_binding(const struct envelope *e)
{
	const char *at = envelope_sender(e);

	if ((e->flags & ENVELOPE_BINDING) == 0) {
		return NULL;
	}
	at += strlen(at) + 1;
	return (e->flags & ENVELOPE_ENVID) != 0 ? at + strlen(at) + 1 : at;
}

/* Pairs of the context, and their bytes; NULL: none. */
READONLY
const char *envelope_context(const struct envelope *e, uint32_t *len);

static inline const struct envelope_delivery *envelope_delivery(const struct envelope *e,
								uint32_t index)
{
	return (const struct envelope_delivery *)(const void *)((const char *)e +
								e->deliveries_offset) +
	       index;
}

static inline const char *envelope_domain(const struct envelope *e, uint32_t delivery)
{
	return (const char *)e + envelope_delivery(e, delivery)->domain_offset;
}

static inline const struct envelope_recipient *envelope_recipient(const struct envelope *e,
								  uint32_t index)
{
	return (const struct envelope_recipient *)(const void *)((const char *)e +
								 e->recipients_offset) +
	       index;
}

static inline const char *envelope_address(const struct envelope *e, uint32_t recipient)
{
	return (const char *)e + envelope_recipient(e, recipient)->offset;
}

/* NULL: none. */
static inline const char *envelope_orcpt(const struct envelope *e, uint32_t recipient)
{
	const struct envelope_recipient *r = envelope_recipient(e, recipient);

	return (r->flags & ENVELOPE_ORCPT) != 0 ? (const char *)e + r->offset + r->len + 1 : NULL;
}
