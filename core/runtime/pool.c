#include "core/runtime/pool.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define POOL_POISON 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define POOL_POISON 1
#endif

#ifdef POOL_POISON
#include <sanitizer/asan_interface.h>
#endif

struct pool_item {
	struct pool_item *next;
};

/* What lies on the free list is nobody's to touch: say so to the address sanitizer, and spoil it in
 * other debug builds. */
static void item_hide(struct pool *p, void *object)
{
#ifdef POOL_POISON
	ASAN_POISON_MEMORY_REGION(object, p->size);
#elif defined(FLYWHEEL_DEBUG)
	memset((char *)object + sizeof(struct pool_item), 0xdb, p->size - sizeof(struct pool_item));
#else
	(void)p;
	(void)object;
#endif
}

static void item_show(struct pool *p, void *object)
{
#ifdef POOL_POISON
	ASAN_UNPOISON_MEMORY_REGION(object, p->size);
#else
	(void)p;
	(void)object;
#endif
}

void pool_init(struct pool *p, const char *name, size_t size, uint32_t keep_max)
{
	ASSERT(size >= sizeof(struct pool_item));
	*p = (struct pool){.name = name, .size = size, .keep_max = keep_max};
}

static void *pool_pop(struct pool *p)
{
	struct pool_item *item = p->free;

	ASSERT(p->kept > 0);
	item_show(p, item);
	p->free = item->next;
	p->kept--;
	p->spare = p->kept < p->spare ? p->kept : p->spare;
	return item;
}

void *pool_get(struct pool *p)
{
	void *object;

	p->live++;
	if (p->free != NULL) {
		return pool_pop(p);
	}
	object = malloc(p->size);
	if (object == NULL) {
		fatal("out of memory: pool %s, %zu bytes", p->name, p->size);
	}
	p->allocations++;
	return object;
}

void pool_put(struct pool *p, void *object)
{
	struct pool_item *item = object;

	if (object == NULL) {
		return;
	}
	p->live--;
	if (p->kept >= p->keep_max) {
		free(object);
		return;
	}
	item->next = p->free;
	p->free = item;
	p->kept++;
	item_hide(p, item);
}

void pool_trim(struct pool *p, uint32_t max)
{
	uint32_t count = (p->spare + 1) / 2;

	count = count < max ? count : max;
	while (count-- > 0) {
		free(pool_pop(p));
	}
	p->spare = p->kept;
}

void pool_empty(struct pool *p)
{
	while (p->free != NULL) {
		free(pool_pop(p));
	}
}

void pool_close(struct pool *p)
{
	pool_empty(p);
}
