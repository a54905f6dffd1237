#include "core/mail/dns_cache.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/runtime/check.h"
#include "core/runtime/fnv.h"

#define BUCKETS_MIN 64

BOUND
struct dns_cache_entry {
	struct dns_cache_entry *hash_next;
	struct dns_cache_entry *next;
	struct dns_cache_entry *prev;
	uint64_t hash;
	uint64_t until_ms;
	struct dns_answer *answer;
	char name[];
};

uint64_t dns_hash(const char *name, enum dns_type type)
{
	uint64_t h = FNV_START ^ (uint64_t)type;

	for (; *name != '\0'; name++) {
		h = fnv_octet(h, (unsigned char)tolower((unsigned char)*name));
	}
	h ^= h >> 32;
	return h * UINT64_C(0x9e3779b97f4a7c15);
}

void dns_cache_init(struct dns_cache *c, uint32_t count_max)
{
	*c = (struct dns_cache){.count_max = count_max, .bucket_count = BUCKETS_MIN};
	while (c->bucket_count < count_max) {
		c->bucket_count *= 2;
	}
	c->buckets = calloc(c->bucket_count, sizeof(struct dns_cache_entry *));
	if (c->buckets == NULL) {
		fatal("out of memory for a cache of %u answers", count_max);
	}
}

static struct dns_cache_entry **slot_of(const struct dns_cache *c, const char *name,
					enum dns_type type)
{
	uint64_t hash = dns_hash(name, type);
	struct dns_cache_entry **at = &c->buckets[hash >> 32 & (c->bucket_count - 1)];

	while (*at != NULL && ((*at)->hash != hash || (*at)->answer->type != type ||
			       strcasecmp((*at)->name, name) != 0)) {
		at = &(*at)->hash_next;
	}
	return at;
}

static void list_remove(struct dns_cache *c, struct dns_cache_entry *e)
{
	*(e->prev != NULL ? &e->prev->next : &c->first) = e->next;
	*(e->next != NULL ? &e->next->prev : &c->last) = e->prev;
}

static void list_put_first(struct dns_cache *c, struct dns_cache_entry *e)
{
	e->prev = NULL;
	e->next = c->first;
	*(c->first != NULL ? &c->first->prev : &c->last) = e;
	c->first = e;
}

static void drop(struct dns_cache *c, struct dns_cache_entry **at)
{
	struct dns_cache_entry *e = *at;

	*at = e->hash_next;
	list_remove(c, e);
	c->count--;
	dns_answer_release(e->answer);
	free(e);
}

struct dns_answer *dns_cache_find(struct dns_cache *c, const char *name, enum dns_type type,
				  uint64_t now_ms, uint32_t *left_s)
{
	struct dns_cache_entry **at = slot_of(c, name, type);
	struct dns_cache_entry *e = *at;

	if (e == NULL) {
		return NULL;
	}
	if (e->until_ms <= now_ms) {
		drop(c, at);
		return NULL;
	}
	list_remove(c, e);
	list_put_first(c, e);
	*left_s = (uint32_t)((e->until_ms - now_ms + 999) / 1000);
	return e->answer;
}

static void make_room(struct dns_cache *c, uint64_t now_ms)
{
	while (c->count >= c->count_max) {
		struct dns_cache_entry *e = c->last;

		c->evicted += e->until_ms > now_ms;
		drop(c, slot_of(c, e->name, e->answer->type));
	}
}

void dns_cache_put(struct dns_cache *c, const char *name, struct dns_answer *answer,
		   uint64_t now_ms, uint64_t until_ms)
{
	struct dns_cache_entry **at = slot_of(c, name, answer->type);
	size_t len = strlen(name) + 1;
	struct dns_cache_entry *e;

	if (*at != NULL) {
		drop(c, at);
	}
	if (c->count_max == 0 || until_ms <= now_ms) {
		return;
	}
	make_room(c, now_ms);
	e = check_memory(malloc(sizeof *e + len), "an answer of the name service");
	e->hash = dns_hash(name, answer->type);
	e->until_ms = until_ms;
	e->answer = dns_answer_hold(answer);
	memcpy(e->name, name, len);
	at = slot_of(c, name, answer->type);
	e->hash_next = *at;
	*at = e;
	list_put_first(c, e);
	c->count++;
}

static void drop_all(struct dns_cache *c)
{
	while (c->last != NULL) {
		drop(c, slot_of(c, c->last->name, c->last->answer->type));
	}
}

uint32_t dns_cache_clear(struct dns_cache *c)
{
	uint32_t count = c->count;

	drop_all(c);
	return count;
}

void dns_cache_close(struct dns_cache *c)
{
	drop_all(c);
	free(c->buckets);
	c->buckets = NULL;
}
