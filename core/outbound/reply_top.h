/*
 * Reply top: what next hops say most often when they refuse, lately. A table of a fixed size of
 * texts with counts, in which a new text takes the place of the rarest one and begins with its
 * count (space-saving, Metwally et al. 2005): whatever makes up more than one part in
 * REPLY_TOP_ENTRIES of all is in it, and its count is too high by `error` at most.
 *
 * Texts are made alike first: addresses, ids and numbers in them become "<address>" and "#". Counts
 * are halved every ten minutes, so that what was said long ago gives way.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

#define REPLY_TOP_ENTRIES 64
/* With its NUL; longer ones are cut. */
#define REPLY_TOP_TEXT 160

BOUND
struct reply_top_entry {
	uint64_t hash;
	uint64_t count;
	uint64_t error;
	char text[REPLY_TOP_TEXT];
};

BOUND
struct reply_top {
	struct reply_top_entry entries[REPLY_TOP_ENTRIES];
	uint32_t used;
	/* When counts were halved last, monotonic ms. */
	uint64_t halved_ms;
};

/* Makes a reply's text ("550 5.1.1 <a@b.c> unknown") like others of its kind. */
READONLY
void reply_top_normalise(char to[REPLY_TOP_TEXT], const char *text);

/* `text` was said to so many recipients. O(entries). */
BOUND
void reply_top_count(struct reply_top *t, const char *text, uint64_t recipients, uint64_t now_ms);

/* Halves what has grown old; before the entries are looked at. */
BOUND
void reply_top_age(struct reply_top *t, uint64_t now_ms);
