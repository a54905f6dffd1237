#include "core/policy/pairs.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

static char *copy(const char *text, size_t len)
{
	char *c = check_memory(malloc(len + 1), "a context");

	memcpy(c, text, len);
	c[len] = '\0';
	return c;
}

static struct policy_pair *find(const struct policy_pairs *p, const char *name)
{
	for (uint32_t i = 0; i < p->count; i++) {
		if (strcmp(p->list[i].name, name) == 0) {
			return &p->list[i];
		}
	}
	return NULL;
}

const struct policy_pair *policy_pairs_find(const struct policy_pairs *p, const char *name)
{
	return find(p, name);
}

static void make_room(struct policy_pairs *p)
{
	if (p->count < p->size) {
		return;
	}
	p->size = p->size != 0 ? 2 * p->size : 8;
	p->list = check_memory(reallocarray(p->list, p->size, sizeof(*p->list)), "a context");
}

int policy_pairs_set(struct policy_pairs *p, const char *name, const char *value, size_t len)
{
	struct policy_pair *old = find(p, name);
	size_t name_len = strlen(name);
	size_t before = old != NULL ? old->value_len : 0;
	size_t more = (old != NULL ? 0 : name_len) + len;

	if (p->bytes - before + more > POLICY_PAIRS_BYTES ||
	    (old == NULL && p->count == POLICY_PAIRS_MAX)) {
		return -ENOSPC;
	}
	if (old == NULL) {
		make_room(p);
		old = &p->list[p->count++];
		*old = (struct policy_pair){.name = copy(name, name_len)};
	}
	free(old->value);
	old->value = copy(value, len);
	old->value_len = len;
	p->bytes = p->bytes - before + more;
	return 0;
}

static void release(struct policy_pair *pair)
{
	free(pair->name);
	free(pair->value);
}

void policy_pairs_delete(struct policy_pairs *p, const char *name)
{
	struct policy_pair *pair = find(p, name);
	uint32_t index;

	if (pair == NULL) {
		return;
	}
	index = (uint32_t)(pair - p->list);
	p->bytes -= strlen(pair->name) + pair->value_len;
	release(pair);
	memmove(pair, pair + 1, (p->count - index - 1) * sizeof(*pair));
	p->count--;
}

void policy_pairs_copy(struct policy_pairs *to, const struct policy_pairs *from)
{
	ASSERT(to->count == 0);
	for (uint32_t i = 0; i < from->count; i++) {
		const struct policy_pair *pair = &from->list[i];

		policy_pairs_set(to, pair->name, pair->value, pair->value_len);
	}
}

void policy_pairs_clear(struct policy_pairs *p)
{
	for (uint32_t i = 0; i < p->count; i++) {
		release(&p->list[i]);
	}
	free(p->list);
	*p = (struct policy_pairs){0};
}
