#include "core/queue/binding.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/runtime/fnv.h"

#define BUCKETS_MIN 16

SINGLE
struct binding_group {
	struct binding_group *next;
	/* In the order of the configuration. */
	struct binding_record *first;
	struct binding_record *last;
	char name[];
};

static struct binding_record **bucket_of(const struct binding_table *t, const char *name)
{
	uint64_t h = fnv_text(FNV_START, name);

	return &t->buckets[(h ^ h >> 32) & (t->bucket_count - 1)];
}

static void grow(struct binding_table *t)
{
	t->room = t->room != 0 ? 2 * t->room : BUCKETS_MIN;
	t->records = realloc(t->records, t->room * sizeof(struct binding_record *));
	if (t->records == NULL) {
		fatal("out of memory for %u bindings", t->room);
	}
	free(t->buckets);
	t->bucket_count = t->room;
	t->buckets = check_memory(calloc(1, t->bucket_count * sizeof(struct binding_record *)),
				  "bindings");
	for (uint32_t i = 0; i < t->count; i++) {
		struct binding_record **bucket = bucket_of(t, t->records[i]->name);

		t->records[i]->hash_next = *bucket;
		*bucket = t->records[i];
	}
}

static struct binding_record *record_new(struct binding_table *t, const char *name)
{
	size_t len = strlen(name);
	struct binding_record *b = check_memory(calloc(1, sizeof(*b) + len + 1), "bindings");
	struct binding_record **bucket;

	if (t->count == t->room) {
		grow(t);
	}
	memcpy(b->name, name, len + 1);
	b->weight = 1;
	b->index = t->count;
	t->records[t->count++] = b;
	bucket = bucket_of(t, name);
	b->hash_next = *bucket;
	*bucket = b;
	return b;
}

static struct binding_record *record_find(const struct binding_table *t, const char *name)
{
	struct binding_record *b = *bucket_of(t, name);

	while (b != NULL && strcmp(b->name, name) != 0) {
		b = b->hash_next;
	}
	return b;
}

static struct binding_record *record_open(struct binding_table *t, const char *name)
{
	struct binding_record *b = record_find(t, name);

	return b != NULL ? b : record_new(t, name);
}

void binding_table_init(struct binding_table *t)
{
	*t = (struct binding_table){.count = 0};
	grow(t);
	record_new(t, BINDING_DEFAULT)->configured = true;
	t->configured = 1;
}

static void free_groups(struct binding_table *t)
{
	while (t->groups != NULL) {
		struct binding_group *next = t->groups->next;

		free(t->groups);
		t->groups = next;
	}
}

void binding_table_renew(struct binding_table *t)
{
	free_groups(t);
	for (uint32_t i = 0; i < t->count; i++) {
		struct binding_record *b = t->records[i];

		b->configured = b == binding_default(t);
		b->group = NULL;
		b->group_next = NULL;
		b->weight = 1;
		b->suspend_delivery = false;
	}
	t->configured = 1;
}

void binding_table_close(struct binding_table *t)
{
	free_groups(t);
	for (uint32_t i = 0; i < t->count; i++) {
		free(t->records[i]->suspension);
		free(t->records[i]);
	}
	free(t->records);
	free(t->buckets);
	*t = (struct binding_table){.count = 0};
}

static struct binding_group *group_find(const struct binding_table *t, const char *name)
{
	struct binding_group *g = t->groups;

	while (g != NULL && strcmp(g->name, name) != 0) {
		g = g->next;
	}
	return g;
}

static struct binding_group *group_open(struct binding_table *t, const char *name)
{
	struct binding_group *g = group_find(t, name);
	size_t len = strlen(name);

	if (g == NULL) {
		g = check_memory(calloc(1, sizeof(*g) + len + 1), "bindings");
		memcpy(g->name, name, len + 1);
		g->next = t->groups;
		t->groups = g;
	}
	return g;
}

void binding_add(struct binding_table *t, const char *name, const char *group, uint32_t weight,
		 bool suspend_delivery)
{
	struct binding_record *b = record_open(t, name);

	ASSERT(b->group == NULL && weight > 0);
	t->configured += !b->configured;
	b->configured = true;
	b->missed = false;
	b->weight = weight;
	b->suspend_delivery = suspend_delivery;
	if (group != NULL) {
		struct binding_group *g = group_open(t, group);

		b->group = g;
		*(g->last != NULL ? &g->last->group_next : &g->first) = b;
		g->last = b;
	}
}

struct binding_record *binding_find(const struct binding_table *t, const char *name)
{
	return record_find(t, name);
}

struct binding_record *binding_open(struct binding_table *t, const char *name)
{
	return record_open(t, name);
}

/* Everyone's credit grows by his weight; who has most is next, and pays for all. */
static struct binding_record *take_turn(struct binding_group *g, bool suspended_too)
{
	struct binding_record *best = NULL;
	int64_t sum = 0;

	for (struct binding_record *b = g->first; b != NULL; b = b->group_next) {
		if (!suspended_too && binding_is_suspended(b)) {
			continue;
		}
		b->credit += b->weight;
		sum += b->weight;
		if (best == NULL || b->credit > best->credit) {
			best = b;
		}
	}
	if (best != NULL) {
		best->credit -= sum;
	}
	return best;
}

static struct binding_record *next_of(struct binding_group *g)
{
	struct binding_record *b = take_turn(g, false);

	return b != NULL ? b : take_turn(g, true);
}

void binding_pass_turns(struct binding_table *t, uint32_t turns)
{
	for (struct binding_group *g = t->groups; g != NULL; g = g->next) {
		for (uint32_t i = 0; i < turns; i++) {
			next_of(g);
		}
	}
}

struct binding_record *binding_choose(struct binding_table *t, const char *name)
{
	struct binding_record *b = record_find(t, name);
	struct binding_group *g;

	if (b != NULL && b->configured) {
		return b;
	}
	g = group_find(t, name);
	return g != NULL ? next_of(g) : NULL;
}

bool binding_is_known(const struct binding_table *t, const char *name)
{
	const struct binding_record *b = record_find(t, name);

	return (b != NULL && b->configured) || group_find(t, name) != NULL;
}

void binding_set_order(struct binding_record *b, enum binding_order order)
{
	b->order = order;
	suspension_keep(&b->suspension, NULL);
	for (struct binding_record *x = b->group != NULL ? b->group->first : NULL; x != NULL;
	     x = x->group_next) {
		x->credit = 0;
	}
}

const char *binding_group_name(const struct binding_record *b)
{
	return b->group != NULL ? b->group->name : BINDING_GROUP_DEFAULT;
}
