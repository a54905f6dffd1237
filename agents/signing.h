/*
 * Signing of mail by DKIM, on the scheduler that received or made it: which domain it is of, what
 * the configuration has for that, and the counts.
 */
#pragma once

#include "core/mail/chain.h"
#include "core/mail/dkim.h"
#include "core/runtime/counter.h"
#include "core/runtime/histogram.h"
#include "core/runtime/thread_class.h"

struct scheduler;

/* A scheduler's part of it. */
BOUND
struct signing {
	/* NULL before the first message that may be signed. */
	struct dkim_signer *signer;
	struct counter *messages;
	struct counter *signatures;
	struct counter *failed;
	/* Messages that were not signed, by cause. */
	struct counter *no_author;
	struct counter *no_policy;
	struct counter *too_many_fields;
	struct counter *unsigned_failed;
	/* For each message that was signed, ns. */
	struct histogram ns;
};

SINGLE
void signing_init(struct signing *g, struct counter_set *set);
SINGLE
void signing_close(struct signing *g);

/* Other keys were published: those of before are let go. */
BOUND
void signing_forget_keys(struct signing *g);

/* Puts the DKIM-Signature fields that the configuration asks for before the message, which is
 * complete: nothing in it changes after that. Returns what it was signed with; NULL: it is as it
 * was, and the counters say why. */
BOUND
const struct dkim_policy *scheduler_sign(struct scheduler *s, struct chain *message);
