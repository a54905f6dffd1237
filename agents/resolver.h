/*
 * Resolver: the agent that knows what the name service says. Others ask it by ring and are answered
 * by ring, on their own thread. It keeps answers for as long as they are good, asks one question
 * once however many want to know, bounds how many are under way, and gives up those that take too
 * long. Finding out and validating is done by another thread (resolver_source.h); this agent waits
 * for nothing.
 *
 * Start reading at resolver_ask(), then on_question() in resolver.c.
 */
#pragma once

#include <stdio.h>

#include "agents/thread_pool.h"
#include "config/config.h"
#include "core/mail/dns.h"
#include "core/runtime/agent.h"

struct resolver;
struct dns_question;

/* On the agent that asked. The answer is good for `ttl_s` seconds more, 0 for a failure; hold it to
 * keep it. The question is the asker's again. */
typedef void (*dns_answer_fn)(struct agent *self, struct dns_question *q, struct dns_answer *answer,
			      uint32_t ttl_s);

/* Embedded in what it is for; stays where it is until it is answered. */
SINGLE
struct dns_question {
	/* In any case, with or without a dot at its end; stays, too. */
	const char *name;
	enum dns_type type;
	dns_answer_fn on_answer;
	/* The resolver's. */
	struct agent *from;
	struct dns_question *next;
	struct dns_answer *answer;
	uint32_t ttl_s;
};

/* Makes the agent, and opens what it asks: reads the files that `options` name. `name` is not
 * copied. NULL when that failed, and `errors` has a line. */
SINGLE
struct resolver *resolver_create(const char *name, const struct resolver_options *options,
				 FILE *errors);

SINGLE
struct agent *resolver_agent(struct resolver *r);

/* Where it sends what may block: the making of a new cache. Before the start. */
SINGLE
void resolver_set_pool(struct resolver *r, struct thread_pool *pool);

/* Asks; `self` is the asking agent. q->on_answer runs later, once. */
BOUND
void resolver_ask(struct resolver *r, struct agent *self, struct dns_question *q);

/* All questions of `self` that are not answered yet are so soon, with DNS_CANCELLED. */
BOUND
void resolver_give_up(struct resolver *r, struct agent *self);

/* ---- what operators ask, on the resolver's agent ---- */

/* What is in its own cache; NULL: nothing, else hold it. */
BOUND
struct dns_answer *resolver_peek(struct resolver *r, const char *name, enum dns_type type,
				 uint32_t *ttl_s);

/* What it has done, and what it has. */
SINGLE
struct resolver_stats {
	uint64_t kept;
	uint64_t kept_max;
	uint64_t questions;
	uint64_t hits;
	uint64_t merged;
	uint64_t evicted;
	uint64_t pending;
	uint64_t waiting;
	uint64_t flushes;
};

BOUND
void resolver_stats(const struct resolver *r, struct resolver_stats *stats);

struct resolver_flush;
typedef void (*resolver_flushed_fn)(struct agent *self, struct resolver_flush *f);

/* An order to forget all answers; embedded, and must stay until on_flushed has run. */
SINGLE
struct resolver_flush {
	resolver_flushed_fn on_flushed;
	/* 0, or a negative errno, and what went wrong: then nothing was forgotten. */
	int result;
	char why[256];
	/* Answers that were forgotten. */
	uint32_t count;
	/* The resolver's. */
	struct agent *from;
	struct resolver *resolver;
	struct resolver_source *fresh;
	struct job job;
};

/* Forgets all answers, its own and those of its source: that is made anew, by the pool. What is
 * under way is asked again. `f->on_flushed` runs on `self`. */
BOUND
void resolver_flush(struct resolver *r, struct agent *self, struct resolver_flush *f);

SINGLE
void resolver_destroy(struct resolver *r);
