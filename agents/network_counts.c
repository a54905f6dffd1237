#include "agents/network_counts.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

#define STRIPES 256U
/* How often a reader looks again while chains change; then it takes what it saw. */
#define LOOKS_MAX 1000
/* Rows that a reader who was led astray passes, at most. */
#define STEPS_MAX 1000000

SINGLE
struct key {
	uint64_t high;
	uint64_t low;
	uint64_t prefix;
};

CONCURRENT
struct row {
	_Atomic(struct row *) next;
	_Atomic uint64_t high;
	_Atomic uint64_t low;
	_Atomic uint64_t prefix;
	/* The owner's: in the order in which they were asked for; or the next one that is free. */
	struct row *newer;
	struct row *older;
	_Atomic uint64_t numbers[];
};

struct network_counts {
	uint32_t width;
	uint32_t max;
	uint32_t size;
	uint32_t bucket_count;
	struct row *newest;
	struct row *oldest;
	struct row *free;
	/* Odd: a chain of these buckets is being changed. */
	_Atomic uint32_t versions[STRIPES];
	_Atomic(struct row *) buckets[];
};

struct network_counts *network_counts_create(uint32_t width, uint32_t max, uint32_t chains)
{
	struct network_counts *t = check_memory(
		calloc(1, sizeof(*t) + chains * sizeof(t->buckets[0])), "counts of networks");

	ASSERT(width > 0 && max > 0 && chains > 0);
	t->width = width;
	t->max = max;
	t->bucket_count = chains;
	return t;
}

void network_counts_destroy(struct network_counts *t)
{
	struct row *lists[] = {t->newest, t->free};

	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		for (struct row *r = lists[i], *next; r != NULL; r = next) {
			next = r->older;
			free(r);
		}
	}
	free(t);
}

/* ---- keys ---- */

static uint64_t half_of(const unsigned char *bytes, unsigned bits)
{
	uint64_t v = 0;

	for (int i = 0; i < 8; i++) {
		v = v << 8 | bytes[i];
	}
	return bits == 0 ? 0 : v >> (64 - bits) << (64 - bits);
}

static struct key key_of(const struct in6_addr *address, unsigned prefix)
{
	ASSERT(prefix <= 128);
	return (struct key){
		.high = half_of(address->s6_addr, prefix < 64 ? prefix : 64),
		.low = half_of(address->s6_addr + 8, prefix > 64 ? prefix - 64 : 0),
		.prefix = prefix,
	};
}

static uint32_t bucket_of(const struct network_counts *t, const struct key *k)
{
	uint64_t h = (k->high ^ k->prefix) * UINT64_C(0x9e3779b97f4a7c15);

	h = (h ^ h >> 32 ^ k->low) * UINT64_C(0x9e3779b97f4a7c15);
	return (uint32_t)(h >> 40) % t->bucket_count;
}

/* The loads of a look order those that come after them. */
static bool is_of(const struct row *r, const struct key *k)
{
	return atomic_load_explicit(&r->high, memory_order_acquire) == k->high &&
	       atomic_load_explicit(&r->low, memory_order_acquire) == k->low &&
	       atomic_load_explicit(&r->prefix, memory_order_acquire) == k->prefix;
}

static struct row *find(const struct network_counts *t, const struct key *k, uint32_t bucket)
{
	struct row *r = atomic_load_explicit(&t->buckets[bucket], memory_order_acquire);

	for (uint32_t steps = 0; r != NULL && !is_of(r, k) && steps < STEPS_MAX; steps++) {
		r = atomic_load_explicit(&r->next, memory_order_acquire);
	}
	return r != NULL && is_of(r, k) ? r : NULL;
}

/* ---- the owner ---- */

/* Each store behind it is a release: who sees one of these sees that the version is odd. */
static void begin_change(struct network_counts *t, uint32_t bucket)
{
	_Atomic uint32_t *version = &t->versions[bucket % STRIPES];
	uint32_t now = atomic_load_explicit(version, memory_order_relaxed);

	atomic_store_explicit(version, now + 1, memory_order_relaxed);
}

static void end_change(struct network_counts *t, uint32_t bucket)
{
	_Atomic uint32_t *version = &t->versions[bucket % STRIPES];
	uint32_t now = atomic_load_explicit(version, memory_order_relaxed);

	atomic_store_explicit(version, now + 1, memory_order_release);
}

static void unlink_age(struct network_counts *t, struct row *r)
{
	*(r->newer != NULL ? &r->newer->older : &t->newest) = r->older;
	*(r->older != NULL ? &r->older->newer : &t->oldest) = r->newer;
}

static void link_newest(struct network_counts *t, struct row *r)
{
	r->newer = NULL;
	r->older = t->newest;
	*(r->older != NULL ? &r->older->newer : &t->oldest) = r;
	t->newest = r;
}

static void drop(struct network_counts *t, struct row *r)
{
	const struct key k = {r->high, r->low, r->prefix};
	uint32_t bucket = bucket_of(t, &k);
	_Atomic(struct row *) *at = &t->buckets[bucket];
	struct row *here;

	while ((here = atomic_load_explicit(at, memory_order_relaxed)) != r) {
		at = &here->next;
	}
	begin_change(t, bucket);
	atomic_store_explicit(at, atomic_load_explicit(&r->next, memory_order_relaxed),
			      memory_order_release);
	end_change(t, bucket);
	unlink_age(t, r);
	t->size--;
	r->older = t->free;
	t->free = r;
}

static struct row *take(struct network_counts *t)
{
	struct row *r;

	if (t->size >= t->max) {
		drop(t, t->oldest);
	}
	r = t->free;
	if (r == NULL) {
		return check_memory(calloc(1, sizeof(*r) + t->width * sizeof(r->numbers[0])),
				    "counts of networks");
	}
	t->free = r->older;
	return r;
}

static struct row *add(struct network_counts *t, const struct key *k, uint32_t bucket)
{
	struct row *r = take(t);

	begin_change(t, bucket);
	atomic_store_explicit(&r->high, k->high, memory_order_release);
	atomic_store_explicit(&r->low, k->low, memory_order_release);
	atomic_store_explicit(&r->prefix, k->prefix, memory_order_release);
	for (uint32_t i = 0; i < t->width; i++) {
		network_counts_set(&r->numbers[i], 0);
	}
	atomic_store_explicit(&r->next,
			      atomic_load_explicit(&t->buckets[bucket], memory_order_relaxed),
			      memory_order_release);
	atomic_store_explicit(&t->buckets[bucket], r, memory_order_release);
	end_change(t, bucket);
	link_newest(t, r);
	t->size++;
	return r;
}

_Atomic uint64_t *network_counts_row(struct network_counts *t, const struct in6_addr *address,
				     unsigned prefix)
{
	struct key k = key_of(address, prefix);
	uint32_t bucket = bucket_of(t, &k);
	struct row *r = find(t, &k, bucket);

	if (r == NULL) {
		r = add(t, &k, bucket);
	} else if (r != t->newest) {
		unlink_age(t, r);
		link_newest(t, r);
	}
	return r->numbers;
}

void network_counts_drop(struct network_counts *t, const struct in6_addr *address, unsigned prefix)
{
	struct key k = key_of(address, prefix);
	struct row *r = find(t, &k, bucket_of(t, &k));

	if (r != NULL) {
		drop(t, r);
	}
}

uint32_t network_counts_size(const struct network_counts *t)
{
	return t->size;
}

/* ---- all others ---- */

bool network_counts_read(const struct network_counts *t, const struct in6_addr *address,
			 unsigned prefix, uint64_t *numbers)
{
	struct key k = key_of(address, prefix);
	uint32_t bucket = bucket_of(t, &k);
	const _Atomic uint32_t *version = &t->versions[bucket % STRIPES];
	struct row *r = NULL;

	for (int looks = 0; looks < LOOKS_MAX; looks++) {
		uint32_t before = atomic_load_explicit(version, memory_order_acquire);

		r = find(t, &k, bucket);
		for (uint32_t i = 0; r != NULL && i < t->width; i++) {
			numbers[i] = atomic_load_explicit(&r->numbers[i], memory_order_acquire);
		}
		if (before % 2 == 0 &&
		    atomic_load_explicit(version, memory_order_relaxed) == before) {
			break;
		}
	}
	return r != NULL;
}
