#include "core/runtime/counter.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/runtime/ring.h"

#define COUNTER_SET_MAGIC 0x636f756eU
#define COUNTERS_PER_SET 256

_Static_assert(sizeof(struct counter) == 8, "eight counters to a cache line");

struct counter_info {
	const char *name;
	const char *label;
	enum counter_kind kind;
};

struct counter_set {
	uint32_t magic;
	/* Published with release after `info` was filled in: counter_each() may run meanwhile. */
	_Atomic uint32_t count;
	char *prefix;
	struct counter_set *next;
	struct counter_info info[COUNTERS_PER_SET];
	/* The writer's own cache lines. */
	_Alignas(CACHE_LINE) struct counter values[COUNTERS_PER_SET];
};

/*
 * All sets, oldest first. The lock is for making and destroying sets, which happens at set-up and
 * at the end; writing a counter takes none.
 */
static struct counter_set *sets;
static pthread_rwlock_t sets_lock = PTHREAD_RWLOCK_INITIALIZER;

static void sets_append(struct counter_set *set)
{
	struct counter_set **at = &sets;

	ASSERT(pthread_rwlock_wrlock(&sets_lock) == 0);
	while (*at != NULL) {
		at = &(*at)->next;
	}
	*at = set;
	ASSERT(pthread_rwlock_unlock(&sets_lock) == 0);
}

static void sets_remove(struct counter_set *set)
{
	struct counter_set **at = &sets;

	ASSERT(pthread_rwlock_wrlock(&sets_lock) == 0);
	while (*at != set) {
		ASSERT(*at != NULL);
		at = &(*at)->next;
	}
	*at = set->next;
	ASSERT(pthread_rwlock_unlock(&sets_lock) == 0);
}

struct counter_set *counter_set_create(const char *prefix)
{
	struct counter_set *set = aligned_alloc(CACHE_LINE, sizeof(*set));

	if (set == NULL) {
		fatal("out of memory for the counters of %s", prefix);
	}
	memset(set, 0, sizeof(*set));
	set->magic = COUNTER_SET_MAGIC;
	set->prefix = strdup(prefix);
	if (set->prefix == NULL) {
		fatal("out of memory for the counters of %s", prefix);
	}
	sets_append(set);
	return set;
}

struct counter *counter_create(struct counter_set *set, const char *name, enum counter_kind kind,
			       const char *label)
{
	uint32_t n;

	CHECK_MAGIC(set, COUNTER_SET_MAGIC);
	ASSERT(name != NULL && label != NULL);
	n = atomic_load_explicit(&set->count, memory_order_relaxed);
	for (uint32_t i = 0; i < n; i++) {
		if (strcmp(set->info[i].name, name) == 0) {
			return &set->values[i];
		}
	}
	ASSERT(n < COUNTERS_PER_SET);
	set->info[n] = (struct counter_info){.name = name, .label = label, .kind = kind};
	/* Pairs with the acquire in set_each(). */
	atomic_store_explicit(&set->count, n + 1, memory_order_release);
	return &set->values[n];
}

void counter_set_destroy(struct counter_set *set)
{
	if (set == NULL) {
		return;
	}
	CHECK_MAGIC(set, COUNTER_SET_MAGIC);
	sets_remove(set);
	set->magic = 0;
	free(set->prefix);
	free(set);
}

static uint64_t set_total(const struct counter_set *set, const char *name)
{
	uint32_t n = atomic_load_explicit(&set->count, memory_order_acquire);
	uint64_t total = 0;

	for (uint32_t i = 0; i < n; i++) {
		if (strcmp(set->info[i].name, name) == 0) {
			total += counter_get(&set->values[i]);
		}
	}
	return total;
}

uint64_t counter_total(const char *name)
{
	uint64_t total = 0;

	ASSERT(pthread_rwlock_rdlock(&sets_lock) == 0);
	for (const struct counter_set *set = sets; set != NULL; set = set->next) {
		total += set_total(set, name);
	}
	ASSERT(pthread_rwlock_unlock(&sets_lock) == 0);
	return total;
}

static void set_each(const struct counter_set *set,
		     void (*each)(void *context, const struct counter_view *view), void *context)
{
	uint32_t n = atomic_load_explicit(&set->count, memory_order_acquire);

	for (uint32_t i = 0; i < n; i++) {
		const struct counter_info *info = &set->info[i];
		struct counter_view view = {set->prefix, info->name, info->label, info->kind,
					    counter_get(&set->values[i])};

		each(context, &view);
	}
}

void counter_each_view(void (*each)(void *context, const struct counter_view *view), void *context)
{
	ASSERT(pthread_rwlock_rdlock(&sets_lock) == 0);
	for (const struct counter_set *set = sets; set != NULL; set = set->next) {
		set_each(set, each, context);
	}
	ASSERT(pthread_rwlock_unlock(&sets_lock) == 0);
}

/* For counter_each(): both names in one. */
struct joined {
	void (*each)(void *context, const char *name, const char *label, enum counter_kind kind,
		     uint64_t value);
	void *context;
};

static void join_name(void *context, const struct counter_view *view)
{
	const struct joined *j = context;
	char name[256];

	snprintf(name, sizeof(name), "%s.%s", view->prefix, view->name);
	j->each(j->context, name, view->label, view->kind, view->value);
}

void counter_each(void (*each)(void *context, const char *name, const char *label,
			       enum counter_kind kind, uint64_t value),
		  void *context)
{
	struct joined j = {each, context};

	counter_each_view(join_name, &j);
}
