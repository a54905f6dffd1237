/*
 * Pairs: names with values, in the order in which they were set. Context of a message or a
 * connection: few of them, so a walk finds each.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

/* Of one set: pairs, and bytes of all names and values. */
#define POLICY_PAIRS_MAX 256
#define POLICY_PAIRS_BYTES (UINT32_C(64) << 10)

SINGLE
struct policy_pair {
	char *name;
	char *value;
	size_t value_len;
};

SINGLE
struct policy_pairs {
	struct policy_pair *list;
	uint32_t count;
	uint32_t size;
	size_t bytes;
};

/* Sets or replaces. 0, or -ENOSPC when that is more than a set may hold. */
SINGLE
int policy_pairs_set(struct policy_pairs *p, const char *name, const char *value, size_t len);

/* NULL: not there. */
SINGLE
const struct policy_pair *policy_pairs_find(const struct policy_pairs *p, const char *name);

/* Takes it out, if it is there. */
SINGLE
void policy_pairs_delete(struct policy_pairs *p, const char *name);

/* Copies all of `from` into `to`, which is empty. */
SINGLE
void policy_pairs_copy(struct policy_pairs *to, const struct policy_pairs *from);

SINGLE
void policy_pairs_clear(struct policy_pairs *p);
