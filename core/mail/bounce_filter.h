/*
 * A first look at a text for many regexes at once. Most regexes cannot match without one of a few
 * words; the text is walked once, and only those whose words may be there are left.
 *
 * Start reading at bounce_filter_mark().
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

/* Of what one regex needs, this much is looked for. */
#define BOUNCE_FILTER_NEEDS 8

READONLY
struct bounce_filter;

/* For regexes 0 to `count` - 1. Never NULL. */
SINGLE
struct bounce_filter *bounce_filter_create(uint32_t count);
SINGLE
void bounce_filter_free(struct bounce_filter *f);

/* Notes which words `pattern`, regex `index`, cannot do without: PCRE2 syntax, matched in any case
 * of ASCII. Where that is not understood, or there are none, it is always left. */
SINGLE
void bounce_filter_add(struct bounce_filter *f, uint32_t index, const char *pattern);

/* How many are always left. */
READONLY
uint32_t bounce_filter_always(const struct bounce_filter *f);

/* Which of them may match `len` bytes of `text`: `seen` has `count` bytes, each of which becomes 1
 * or 0. */
READONLY
void bounce_filter_mark(const struct bounce_filter *f, const char *text, size_t len, uint8_t *seen);
