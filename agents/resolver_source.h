/*
 * Where the resolver agent has its answers from: a validating, caching resolver that works on its
 * own thread. The real one is libunbound (resolver_unbound.c); the simulator has another.
 *
 * Used by resolver.c alone.
 */
#pragma once

#include "config/config.h"
#include "core/mail/dns.h"
#include "core/runtime/thread_class.h"

struct resolver_source;
struct source_question;

/* Told of an answer, from resolver_source_process(); the reference is the receiver's. */
typedef void (*source_answer_fn)(struct source_question *q, struct dns_answer *answer);

/* A question under way: the asker's, and must stay until it is answered or cancelled. */
BOUND
struct source_question {
	enum dns_type type;
	source_answer_fn on_answer;
	/* The source's. */
	int id;
};

/*
 * Makes one, with an empty cache; reads the files that `options` name, so it may block: for the
 * start, and for the thread pool. 0, or a negative errno, and `why` says what was wrong.
 */
SINGLE
int resolver_source_open(struct resolver_source **out, const struct resolver_options *options,
			 char *why, size_t why_size);

/* Ends it, and waits for its thread: may block for some milliseconds. Nothing may be under way but
 * what was cancelled. */
SINGLE
void resolver_source_close(struct resolver_source *s);

/* Readable when resolver_source_process() has something to do. The descriptor is the caller's, to
 * be closed with mux_close(). */
BOUND
int resolver_source_fd(struct resolver_source *s);

/* Asks for q->type of `name`; the answer comes later, never from within. 0 or a negative errno. It
 * waits for no answer of the network's. */
BOUND
int resolver_source_ask(struct resolver_source *s, struct source_question *q, const char *name);

/* No answer is wanted any more, and none comes. */
BOUND
void resolver_source_cancel(struct resolver_source *s, struct source_question *q);

/* Hands out all answers that are there. */
BOUND
void resolver_source_process(struct resolver_source *s);
