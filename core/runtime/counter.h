/*
 * Counters with one writer each, read by anyone. They are made while the program is set up and
 * live as long as it does; names are dotted, label is a phrase in English.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

CONCURRENT
struct counter {
	_Atomic uint64_t value;
};

enum counter_kind { COUNTER_SUM, COUNTER_GAUGE, COUNTER_MAX };

struct counter_set;

/* A set of counters with a common name prefix such as "scheduler.0"; one writer, so that its
 * cache lines are not shared. Linked into the program-wide list for counter_each(). */
SINGLE
struct counter_set *counter_set_create(const char *prefix);

/* `name` and `label` are not copied. Never NULL; a set holds at most 256. Of a name that the set
 * has already it is that counter: what comes back counts on. */
SINGLE
struct counter *counter_create(struct counter_set *set, const char *name, enum counter_kind kind,
			       const char *label);

SINGLE
void counter_set_destroy(struct counter_set *set);

/* Calls `each` for every counter of every set, in order of creation. The name is "prefix.name". */
CONCURRENT
void counter_each(void (*each)(void *context, const char *name, const char *label,
			       enum counter_kind kind, uint64_t value),
		  void *context);

/* A counter as it is now. Prefix and name live as long as its set. */
CONCURRENT
struct counter_view {
	const char *prefix;
	const char *name;
	const char *label;
	enum counter_kind kind;
	uint64_t value;
};

/* The same, with the set's prefix and the counter's name apart. `each` makes no sets. */
CONCURRENT
void counter_each_view(void (*each)(void *context, const struct counter_view *view), void *context);

/* Sum of the values of all counters called `name`, whatever their set. */
CONCURRENT
uint64_t counter_total(const char *name);

/* The writer only: a plain load and store, no bus lock. */
static inline void counter_add(struct counter *c, uint64_t n)
{
	uint64_t v = atomic_load_explicit(&c->value, memory_order_relaxed);

	atomic_store_explicit(&c->value, v + n, memory_order_relaxed);
}

static inline void counter_inc(struct counter *c)
{
	counter_add(c, 1);
}

static inline void counter_sub(struct counter *c, uint64_t n)
{
	counter_add(c, -n);
}

static inline void counter_set_value(struct counter *c, uint64_t v)
{
	atomic_store_explicit(&c->value, v, memory_order_relaxed);
}

static inline void counter_max(struct counter *c, uint64_t v)
{
	if (v > atomic_load_explicit(&c->value, memory_order_relaxed)) {
		atomic_store_explicit(&c->value, v, memory_order_relaxed);
	}
}

static inline uint64_t counter_get(const struct counter *c)
{
	return atomic_load_explicit(&c->value, memory_order_relaxed);
}
