/*
 * Mail: a message as policy sees it, while it is received. Header and body are looked at where they
 * are, as a whole and without their stuffed dots, once somebody asks for them; what was changed is
 * written back by policy_mail_settle(). Who owns the message says what happens to the rest.
 *
 * Start reading at policy_mail_header().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/mail/chain.h"
#include "core/mail/envelope.h"
#include "core/policy/pairs.h"
#include "core/policy/text.h"
#include "core/runtime/thread_class.h"

#define POLICY_DOMAIN_MAX 255
#define POLICY_REASON_MAX 255

SINGLE
struct policy_mail {
	/* In wire form; NULL: there is none, before DATA or after the fact. */
	struct chain *body;
	struct pool *buffers;
	char id[MESSAGE_ID_TEXT];
	char batch[24];
	char connection[24];
	/* Without brackets. The recipient is the one whose turn it is; empty: not yet. */
	char sender[ADDRESS_MAX + 1];
	char recipient[ADDRESS_MAX + 1];
	/* What policy has chosen; empty: nothing. */
	char binding[ENVELOPE_BINDING_MAX + 1];
	char routing_domain[POLICY_DOMAIN_MAX + 1];
	/* Of the binding; after the fact. */
	char binding_group[ENVELOPE_BINDING_MAX + 1];
	/* -1: as it would be. enum envelope_durability. */
	int durability;
	int priority;
	/* It is answered as if it were taken, and forgotten. */
	bool discarded;
	bool sender_changed;
	bool recipient_changed;
	/* How often it was changed by what is below. */
	uint32_t changes;
	/* Of the text, since it was given here; and it has bytes above 127. */
	bool changed;
	bool high;
	struct policy_pairs context;
	/* The chain is read by others, too: what is changed goes into one of its own, and `body` is
	 * that then. */
	bool shared;
	struct chain own;
	/* ---- private ---- */
	bool has_header;
	bool has_text;
	bool header_changed;
	bool text_changed;
	/* Bytes of the header in the chain, without the empty line behind it. */
	uint64_t header_wire;
	struct policy_text header;
	struct policy_text text;
};

/* As it is before anybody has looked: all but the private part is the owner's to fill in. */
SINGLE
void policy_mail_init(struct policy_mail *m);

/* The header without the empty line behind it; what is behind that. Of a message without data they
 * are empty. They are valid until the mail is settled or changed. */
SINGLE
const struct policy_text *policy_mail_header(struct policy_mail *m);
SINGLE
const struct policy_text *policy_mail_text(struct policy_mail *m);

/* The whole of it, appended to `to`. */
SINGLE
void policy_mail_raw(struct policy_mail *m, struct policy_text *to);

/* As policy_field_set(). */
SINGLE
void policy_mail_set_field(struct policy_mail *m, const char *name, const char *value, size_t len,
			   enum policy_field_mode mode);
SINGLE
void policy_mail_set_text(struct policy_mail *m, const char *text, size_t len);
SINGLE
void policy_mail_set_raw(struct policy_mail *m, const char *raw, size_t len);

/* Writes changes back to the chain, and forgets what was looked at. */
SINGLE
void policy_mail_settle(struct policy_mail *m);

/* Frees what it has; the chain stays. */
SINGLE
void policy_mail_close(struct policy_mail *m);
