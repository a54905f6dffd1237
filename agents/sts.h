/*
 * MTA-STS agent (RFC 8461): knows the policies of domains that mail goes to. A question is answered
 * from the policies that it keeps, while the record in the name service says that they are still
 * the ones; else the policy is fetched, by the thread pool, so many at a time. A question waits for
 * that as long as a fetch may take, then it is answered with what is known; no domain waits for
 * another one. Policies are kept in the file .mta-sts of the spool's folder, as they are to outlive
 * a restart (section 5.1: what an attacker keeps from us now was known before).
 *
 * Start reading at sts_ask(), then on_question() in sts.c.
 */
#pragma once

#include <stdio.h>

#include "agents/resolver.h"
#include "agents/sts_fetch.h"
#include "agents/thread_pool.h"
#include "config/config.h"
#include "core/mail/sts_policy.h"
#include "core/runtime/agent.h"

struct sts;
struct sts_question;

/* On the agent that asked. q->policy and q->trouble say what is known. */
typedef void (*sts_answer_fn)(struct agent *self, struct sts_question *q);

/* Embedded in what it is for; stays where it is until it is answered. */
SINGLE
struct sts_question {
	/* In lower case; stays, too. */
	const char *domain;
	sts_answer_fn on_answer;
	/* The answer: NULL when there is no policy; else the asker's, to release. */
	struct sts_policy *policy;
	/* Why a policy that there should be could not be had; an older one may be there. */
	enum sts_trouble trouble;
	/* The agent's. */
	struct agent *from;
	struct sts_question *next;
};

/* Makes the agent; `name`, `options` and `path`, of the file that it keeps policies in, are not
 * copied. Reads the file, if there is one: what is wrong in it is left out. Never NULL. */
SINGLE
struct sts *sts_create(const char *name, const struct sts_options *options, const char *path);

/* Whom it asks, and who fetches. Before the start. */
SINGLE
void sts_set_helpers(struct sts *s, struct resolver *resolver, struct thread_pool *pool);

SINGLE
struct agent *sts_agent(struct sts *s);

/* Asks; `self` is the asking agent. q->on_answer runs later, once. */
BOUND
void sts_ask(struct sts *s, struct agent *self, struct sts_question *q);

SINGLE
void sts_destroy(struct sts *s);
