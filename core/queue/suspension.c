#include "core/queue/suspension.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

void suspension_note(struct suspension **at, const char *by, uint64_t since_ms, uint64_t until_ms)
{
	size_t size;

	free(*at);
	*at = NULL;
	if (by == NULL) {
		return;
	}
	size = strlen(by) + 1;
	*at = malloc(sizeof(**at) + size);
	if (*at == NULL) {
		fatal("out of memory for an order");
	}
	(*at)->since_ms = since_ms;
	(*at)->until_ms = until_ms;
	memcpy((*at)->by, by, size);
}
