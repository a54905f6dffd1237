#include "spool/index.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

#define INDEX_KEEP 4096
/* Entries lie anywhere in memory: a walk asks for them so many buckets ahead. */
#define LOOK_AHEAD 8

void index_init(struct spool_index *x)
{
	memset(x, 0, sizeof(*x));
	pool_init(&x->entries, "spool entries", sizeof(struct spool_entry), INDEX_KEEP);
	pool_init(&x->singles, "spool deliveries", sizeof(struct entry_delivery), INDEX_KEEP);
	x->levels[0] = check_memory(calloc(2, sizeof(struct spool_entry *)), "the spool");
	x->buckets = 2;
}

static void free_deliveries(struct spool_index *x, struct spool_entry *e)
{
	if (e->delivery_count == 1) {
		pool_put(&x->singles, e->deliveries);
	} else {
		free(e->deliveries);
	}
	e->deliveries = NULL;
}

static uint64_t hash_id(const struct message_id *id)
{
	uint64_t h = (id->high ^ (id->low * UINT64_C(0x9e3779b97f4a7c15))) *
		     UINT64_C(0xbf58476d1ce4e5b9);

	h ^= h >> 32;
	h *= UINT64_C(0x94d049bb133111eb);
	return h ^ (h >> 29);
}

static unsigned level_of(uint64_t bucket)
{
	return bucket < 2 ? 0 : 63U - (unsigned)__builtin_clzll(bucket);
}

static struct spool_entry **bucket_at(const struct spool_index *x, uint64_t bucket)
{
	unsigned level = level_of(bucket);

	return &x->levels[level][level == 0 ? bucket : bucket - (UINT64_C(1) << level)];
}

static struct spool_entry **bucket_of(const struct spool_index *x, const struct message_id *id)
{
	uint64_t h = hash_id(id);
	uint64_t half = UINT64_C(1) << level_of(x->buckets - 1);
	uint64_t bucket = h & (2 * half - 1);

	return bucket_at(x, bucket < x->buckets ? bucket : h & (half - 1));
}

static void level_make(struct spool_index *x, unsigned level)
{
	if (x->levels[level] != NULL) {
		return;
	}
	x->levels[level] = check_memory(calloc(UINT64_C(1) << level, sizeof(struct spool_entry *)),
					"the spool");
}

void index_reserve(struct spool_index *x, uint64_t count)
{
	ASSERT(x->count == 0);
	for (unsigned level = 1; level < INDEX_LEVELS && x->buckets < count; level++) {
		uint64_t end = UINT64_C(2) << level;

		level_make(x, level);
		x->buckets = end < count ? end : count;
	}
}

/* One bucket more: what it takes comes from the one that shared its place so far. */
static void grow(struct spool_index *x)
{
	uint64_t added = x->buckets;
	unsigned level = level_of(added);
	struct spool_entry *e;
	struct spool_entry **from;

	if (level >= INDEX_LEVELS) {
		return;
	}
	level_make(x, level);
	from = bucket_at(x, added - (UINT64_C(1) << level));
	e = *from;
	*from = NULL;
	x->buckets++;
	while (e != NULL) {
		struct spool_entry *next = e->next;
		struct spool_entry **to = bucket_of(x, &e->id);

		e->next = *to;
		*to = e;
		e = next;
	}
}

struct spool_entry *index_find(const struct spool_index *x, const struct message_id *id)
{
	struct spool_entry *e = *bucket_of(x, id);

	while (e != NULL && (e->id.high != id->high || e->id.low != id->low)) {
		e = e->next;
	}
	return e;
}

void index_prefetch(const struct spool_index *x, const struct message_id *id)
{
	__builtin_prefetch(bucket_of(x, id));
}

static void insert(struct spool_index *x, struct spool_entry *e)
{
	struct spool_entry **bucket;

	if (x->count >= x->buckets) {
		grow(x);
	}
	bucket = bucket_of(x, &e->id);
	e->next = *bucket;
	*bucket = e;
	x->count++;
}

static void unlink_entry(struct spool_index *x, struct spool_entry *e)
{
	struct spool_entry **at = bucket_of(x, &e->id);

	while (*at != e) {
		ASSERT(*at != NULL);
		at = &(*at)->next;
	}
	*at = e->next;
	x->count--;
}

struct spool_entry *index_add(struct spool_index *x, const struct message_id *id,
			      uint32_t delivery_count)
{
	struct spool_entry *e = pool_get(&x->entries);

	ASSERT(delivery_count > 0 && delivery_count < 1U << 24);
	memset(e, 0, sizeof(*e));
	e->id = *id;
	e->delivery_count = delivery_count & 0xffffffU;
	e->pending = delivery_count;
	insert(x, e);
	return e;
}

void index_remove(struct spool_index *x, struct spool_entry *e)
{
	unlink_entry(x, e);
	if (e->deliveries != NULL) {
		free_deliveries(x, e);
	}
	pool_put(&x->entries, e);
}

void index_transfer(struct spool_index *from, struct spool_index *to, struct spool_entry *e)
{
	unlink_entry(from, e);
	insert(to, e);
}

struct entry_delivery *index_deliveries(struct spool_index *x, struct spool_entry *e)
{
	if (e->deliveries == NULL && e->delivery_count == 1) {
		e->deliveries = pool_get(&x->singles);
		memset(e->deliveries, 0, sizeof(*e->deliveries));
	} else if (e->deliveries == NULL) {
		e->deliveries = check_memory(calloc(e->delivery_count, sizeof(*e->deliveries)),
					     "the spool");
	}
	return e->deliveries;
}

void index_each(struct spool_index *x, void (*each)(void *context, struct spool_entry *e),
		void *context)
{
	for (uint64_t b = 0; b < x->buckets; b++) {
		struct spool_entry *e = *bucket_at(x, b);

		if (x->buckets - b > LOOK_AHEAD) {
			__builtin_prefetch(*bucket_at(x, b + LOOK_AHEAD));
		}
		while (e != NULL) {
			struct spool_entry *next = e->next;

			each(context, e);
			e = next;
		}
	}
}

static void drop(void *context, struct spool_entry *e)
{
	index_remove(context, e);
}

void index_close(struct spool_index *x)
{
	index_each(x, drop, x);
	for (unsigned i = 0; i < INDEX_LEVELS; i++) {
		free(x->levels[i]);
		x->levels[i] = NULL;
	}
	pool_close(&x->entries);
	pool_close(&x->singles);
}
