/*
 * Cache of answers: by name and type, for as long as they may be kept, the least recently used one
 * gives way. One owner, no clock of its own.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "core/mail/dns.h"
#include "core/runtime/thread_class.h"

struct dns_cache_entry;

BOUND
struct dns_cache {
	struct dns_cache_entry **buckets;
	uint32_t bucket_count;
	uint32_t count;
	uint32_t count_max;
	/* By use, the latest first. */
	struct dns_cache_entry *first;
	struct dns_cache_entry *last;
	/* Entries that gave way to others before their time. */
	uint64_t evicted;
};

/* `count_max`: answers kept; 0: none. */
SINGLE
void dns_cache_init(struct dns_cache *c, uint32_t count_max);

/* NULL: not there, or no longer good. `*left_s`: how long it is, rounded up. The answer is the
 * cache's; hold it to keep it. `name` in any case. */
BOUND
struct dns_answer *dns_cache_find(struct dns_cache *c, const char *name, enum dns_type type,
				  uint64_t now_ms, uint32_t *left_s);

/* Keeps an answer until `until_ms`, in place of an older one; takes a reference. */
BOUND
void dns_cache_put(struct dns_cache *c, const char *name, struct dns_answer *answer,
		   uint64_t now_ms, uint64_t until_ms);

/* Forgets all; returns how many there were. */
BOUND
uint32_t dns_cache_clear(struct dns_cache *c);

SINGLE
void dns_cache_close(struct dns_cache *c);

/* Of a name in any case and a type. */
READONLY
uint64_t dns_hash(const char *name, enum dns_type type);
