#include "core/queue/forward.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

#define BUCKETS_MIN 64

void forward_table_init(struct forward_table *t)
{
	*t = (struct forward_table){.bucket_count = BUCKETS_MIN};
	t->buckets = check_memory(calloc(t->bucket_count, sizeof(struct forward *)),
				  "forwarding entries");
}

static struct forward **bucket_of(const struct forward_table *t, uint32_t hash)
{
	return &t->buckets[hash & (t->bucket_count - 1)];
}

struct forward *forward_find(const struct forward_table *t, const char *binding, const char *name,
			     uint64_t hash)
{
	struct forward *f = *bucket_of(t, (uint32_t)(hash >> 32));

	while (f != NULL && !(f->hash == (uint32_t)(hash >> 32) && strcmp(f->name, name) == 0 &&
			      strcmp(f->binding, binding) == 0)) {
		f = f->next;
	}
	return f;
}

static void table_grow(struct forward_table *t)
{
	struct forward **old = t->buckets;
	uint32_t old_count = t->bucket_count;

	t->bucket_count *= 2;
	t->buckets = calloc(t->bucket_count, sizeof(struct forward *));
	if (t->buckets == NULL) {
		fatal("out of memory for %u forwarding entries", t->bucket_count);
	}
	for (uint32_t i = 0; i < old_count; i++) {
		struct forward *next;

		for (struct forward *f = old[i]; f != NULL; f = next) {
			struct forward **bucket = bucket_of(t, f->hash);

			next = f->next;
			f->next = *bucket;
			*bucket = f;
		}
	}
	free(old);
}

void forward_add(struct forward_table *t, const char *binding, const char *name, uint64_t hash,
		 uint8_t home, uint64_t trip)
{
	size_t len = strlen(name) + 1;
	struct forward *f = malloc(offsetof(struct forward, name) + len);
	struct forward **bucket;

	if (f == NULL) {
		fatal("out of memory for the forwarding entry of %s", name);
	}
	if (t->count >= t->bucket_count) {
		table_grow(t);
	}
	f->binding = binding;
	f->hash = (uint32_t)(hash >> 32);
	f->home = home;
	f->trip = trip;
	memcpy(f->name, name, len);
	bucket = bucket_of(t, f->hash);
	f->next = *bucket;
	*bucket = f;
	t->count++;
}

void forward_remove(struct forward_table *t, struct forward *f)
{
	struct forward **at = bucket_of(t, f->hash);

	while (*at != f) {
		at = &(*at)->next;
	}
	*at = f->next;
	t->count--;
	free(f);
}

void forward_table_close(struct forward_table *t)
{
	for (uint32_t i = 0; t->buckets != NULL && i < t->bucket_count; i++) {
		while (t->buckets[i] != NULL) {
			forward_remove(t, t->buckets[i]);
		}
	}
	free(t->buckets);
	t->buckets = NULL;
}
