/*
 * The message at its end, on its way through the hooks that see all of it: first as a whole, then
 * once for each recipient. Recipients for whom nothing was changed stay together; those for whom
 * something was get a message of their own. What comes out is stored one after the other, and the
 * client is answered when all of it is.
 *
 * Start reading at smtp_copies_begin().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/mail/envelope.h"
#include "core/mail/message.h"
#include "core/policy/policy.h"
#include "core/runtime/thread_class.h"

struct smtp_copies;
struct smtp_session;

/* One message that comes out. */
BOUND
struct smtp_copy {
	struct smtp_copy *next;
	struct envelope_builder envelope;
	struct message_id id;
	/* Its text is its own; else the transaction's. */
	bool own;
	struct chain body;
	/* Of the text, since it was received. */
	bool changed;
	bool high;
	/* Empty: policy has not said. */
	char binding[ENVELOPE_BINDING_MAX + 1];
	char routing[POLICY_DOMAIN_MAX + 1];
	/* -1: not said. */
	int durability;
	int priority;
	struct policy_pairs context;
};

/* Whether any module sees messages. */
BOUND
bool smtp_copies_wanted(const struct smtp_session *ss);

/* The transaction has all its data, and is to be taken. It goes on with smtp_transaction_store(),
 * smtp_transaction_refuse() or smtp_transaction_discard(). */
BOUND
void smtp_copies_begin(struct smtp_session *ss);

/* The copy that the transaction is now; NULL: policy had nothing to do with it. */
BOUND
const struct smtp_copy *smtp_copies_current(const struct smtp_session *ss);

/* The transaction becomes the next copy; false: there is none. */
BOUND
bool smtp_copies_next(struct smtp_session *ss);

/* Recipients take their turns. */
BOUND
bool smtp_copies_turns(const struct smtp_copies *c);

/* One copy more, with the text as it is now, or `text` of `len` bytes if that is not NULL. 0, or
 * -EBUSY when that cannot be. */
BOUND
int smtp_copies_inject(struct smtp_session *ss, const char *sender, const char *recipient,
		       const char *text, size_t len);

/* Idempotent. */
BOUND
void smtp_copies_free(struct smtp_session *ss);

/* Sender (NULL: that of `from`), ENVID and flags of an envelope, without recipients. */
BOUND
void smtp_policy_copy_head(struct envelope_builder *to, const struct envelope_builder *from,
			   const char *sender);
