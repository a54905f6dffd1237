/*
 * Answers: what was said lately by next hops of a site that did not take mail, or of them by us:
 * the latest ones that differ, each with how often it came. What was taken is counted elsewhere,
 * and leaves nothing here, so that a site without trouble has none of this.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

#define ANSWERS_MAX 8

BOUND
struct answer {
	/* Recipients, and when the last of them was told, wall clock. */
	uint64_t count;
	uint64_t at_ms;
	/* For good; else mail waits. */
	bool failed;
	/* Of the recipients, and of the next hop (empty: there was no connection); all three in the
	 * same allocation. */
	const char *domain;
	const char *host;
	const char *text;
};

BOUND
struct answers {
	/* The latest first. */
	struct answer *rows[ANSWERS_MAX];
	uint32_t count;
};

/* Remembers `said`, whose texts are copied, in `*answers`, which is made when it is NULL. One like
 * it in all but count and time is counted; else the oldest one gives way. O(ANSWERS_MAX). */
BOUND
void answers_add(struct answers **answers, const struct answer *said);

/* NULL is fine. */
SINGLE
void answers_free(struct answers *answers);
