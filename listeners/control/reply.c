#include "listeners/control/reply.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

void reply_take(struct reply *r, char *text, size_t len)
{
	if (text == NULL || len == 0) {
		free(text);
		return;
	}
	ASSERT(r->count < REPLY_PIECES);
	r->owned[r->count] = text;
	r->iov[r->count].iov_base = text;
	r->iov[r->count].iov_len = len;
	r->count++;
}

void reply_text(struct reply *r, const char *text)
{
	char *copy = check_memory(strdup(text), "the answer to a command");

	reply_take(r, copy, strlen(copy));
}

void reply_close(struct reply *r)
{
	for (unsigned i = 0; i < r->count; i++) {
		free(r->owned[i]);
	}
	r->count = 0;
}
