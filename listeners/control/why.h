/*
 * Why a queue does not move: what core/outbound/obstacle.h says of a domain record, with the option
 * that set each limit, its file and line, and what would change it; in words (why_words.c), and as
 * rows for programs (why.c). Every command that says what holds a queue asks here.
 *
 * Start reading at why_find().
 */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "config/config.h"
#include "core/outbound/drain.h"
#include "core/outbound/obstacle.h"
#include "core/runtime/thread_class.h"
#include "listeners/control/order.h"

#define WHY_TEXT 1536

/* What holds a record on its scheduler, at one moment: nothing of it outlives the step. */
BOUND
struct why {
	struct scheduler *scheduler;
	const struct domain *domain;
	/* What binds first. */
	struct obstacle items[OBSTACLES_MAX];
	unsigned count;
	struct drain drain;
};

/* The option that an obstacle is about: its name, its value as it would be written, and who set it.
 * Name NULL: none. */
SINGLE
struct why_option {
	const char *name;
	char value[128];
	struct config_origin origin;
};

BOUND
void why_find(struct why *w, struct scheduler *s, const struct domain *d);

/* What binds; DOMAIN_FREE: nothing. That others wait for their next try, or are held, is nothing to
 * the active queue. */
BOUND
static inline enum domain_hold why_first(const struct why *w)
{
	enum domain_hold why = w->count != 0 ? w->items[0].why : DOMAIN_FREE;
	bool of_others = why == DOMAIN_RETRY || why == DOMAIN_HELD_MAIL;

	return of_others && w->domain->active_count != 0 ? DOMAIN_FREE : why;
}

BOUND
void why_option(const struct why *w, const struct obstacle *o, struct why_option *option);
/* "/etc/flywheel.conf:31", or "default". Returns `text`. */
READONLY
const char *why_set_at(const struct why_option *option, char *text, size_t size);
/* Milliseconds until it ends or is looked at again, rounded up; 0: when something happens. */
BOUND
uint64_t why_next_ms(const struct why *w, const struct obstacle *o);

/* One row for each obstacle, an array. */
BOUND
json_t *why_reasons(const struct why *w);
/* When it will be empty, and what that assumes. */
BOUND
json_t *why_drain(const struct why *w);

/* ---- why_words.c; each fills `text` of `size` ---- */

/* One obstacle, with its numbers: `max_outbound_connections = 2 (flywheel.conf:31), 2 in use`. */
BOUND
void why_clause(const struct why *w, const struct obstacle *o, char *text, size_t size);
/* The whole in one sentence. */
BOUND
void why_headline(const struct why *w, char *text, size_t size);
/* What ends it or changes the limit: `resume domain x`, `max_outbound_connections in domain "x"`;
 * may be empty. */
BOUND
void why_change(const struct why *w, const struct obstacle *o, char *text, size_t size);
/* What the estimate assumes: "at the rate of the last minute, 12/s". */
BOUND
void why_assumption(const struct why *w, char *text, size_t size);
