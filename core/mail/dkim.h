/*
 * DKIM signer: makes the DKIM-Signature fields of a message (RFC 6376, RFC 8301, RFC 8463). One
 * signer for each agent; what to sign with is configuration, which all share.
 *
 * The message is a chain in SMTP wire form, whose dots are stuffed; signed is the text without
 * them. It is not copied: its header is walked once to find the fields, its body once for all
 * signatures of a message together.
 *
 * Start reading at dkim_sign(), last in dkim.c.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/chain.h"
#include "core/mail/dkim_author.h"
#include "core/mail/dkim_canon.h"
#include "core/mail/dkim_key.h"
#include "core/runtime/thread_class.h"

/* Fields with names that can be signed, in one message. */
#define DKIM_FIELDS_MAX 1000
/* Longest name of a field that can be signed, with its NUL. */
#define DKIM_NAME_MAX 64
/* Longest DKIM-Signature field. */
#define DKIM_FIELD_MAX 8192
#define DKIM_DOMAIN_MAX DKIM_AUTHOR_MAX

/* One signature that mail of a domain gets. */
READONLY
struct dkim_signature {
	const char *domain;
	const char *selector;
	/* Its index among the policy's keys. */
	uint32_t key;
	enum dkim_canon header;
	enum dkim_canon body;
	/* Names of fields in lower case, each once. Those in `fields` are signed as often as they
	 * are there; those in `oversigned` once more, so that none can be added. "from" is among
	 * them. */
	const char *const *fields;
	uint32_t field_count;
	const char *const *oversigned;
	uint32_t oversigned_count;
	/* How long the signature is good for; 0: for ever. */
	uint64_t expiration_s;
};

/* All of them. */
READONLY
struct dkim_policy {
	const struct dkim_signature *signatures;
	uint32_t count;
	const struct dkim_keys *keys;
};

struct dkim_signer;

/* Never NULL. */
SINGLE
struct dkim_signer *dkim_signer_create(void);
SINGLE
void dkim_signer_destroy(struct dkim_signer *s);

/* Lets go of the keys that it has ready: dkim_keyring_clear(). */
SINGLE
void dkim_signer_forget(struct dkim_signer *s);

/*
 * Reads the header of `message`, which must not change up to dkim_sign(). Returns 0 and the domain
 * of its author in lower case: that of the first address of its From field. -ENOENT: there is no
 * From field, or none with a domain, or more than one (RFC 5322 section 3.6 wants exactly one, and
 * who sees which is anybody's guess: RFC 6376 section 8.15). -E2BIG: more than DKIM_FIELDS_MAX
 * fields.
 */
SINGLE
int dkim_read(struct dkim_signer *s, const struct chain *message, char author[DKIM_DOMAIN_MAX]);

/*
 * Signs what was read last, at `time_s` (seconds since 1970): appends a DKIM-Signature field for
 * each signature of the policy to `to`, folded below 79 columns where names allow it, ready to be
 * put before the message. Returns how many: one is left out when it would be longer than
 * DKIM_FIELD_MAX, or OpenSSL failed.
 */
SINGLE
uint32_t dkim_sign(struct dkim_signer *s, const struct dkim_policy *policy, uint64_t time_s,
		   struct chain *to, struct pool *buffers);
