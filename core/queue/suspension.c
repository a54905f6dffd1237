#include "core/queue/suspension.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

struct suspension *suspension_new(const char *by, uint64_t since_ms, uint64_t until_ms)
{
	size_t size = strlen(by) + 1;
	struct suspension *s = check_memory(malloc(sizeof(*s) + size), "an order");

	s->since_ms = since_ms;
	s->until_ms = until_ms;
	memcpy(s->by, by, size);
	return s;
}

struct suspension *suspension_copy(const struct suspension *s)
{
	return s != NULL ? suspension_new(s->by, s->since_ms, s->until_ms) : NULL;
}

void suspension_keep(struct suspension **at, struct suspension *s)
{
	free(*at);
	*at = s;
}
