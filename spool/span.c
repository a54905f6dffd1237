#include "spool/span.h"

#include <stdlib.h>

#include "core/runtime/check.h"

static bool near(const struct span_want *a, const struct span_want *b)
{
	uint64_t apart = a->offset > b->offset ? a->offset - b->offset : b->offset - a->offset;

	return a->segment == b->segment && apart + a->len <= SPAN_BYTES / 2;
}

static void allocate(struct span *x)
{
	if (x->data != NULL) {
		return;
	}
	x->data = check_memory(malloc(SPAN_BYTES), "the spool");
}

void span_read(struct span *x, const struct span_want *wants, unsigned count)
{
	const struct span_want *middle = &wants[count / 2];
	uint64_t start = UINT64_MAX;
	uint64_t end = 0;
	unsigned found = 0;

	x->segment = NULL;
	for (unsigned i = 0; i < count; i++) {
		const struct span_want *w = &wants[i];

		if (near(w, middle)) {
			start = w->offset < start ? w->offset : start;
			end = w->offset + w->len > end ? w->offset + w->len : end;
			found++;
		}
	}
	if (found < 2 || end - start > (uint64_t)found * SPAN_BYTES_EACH) {
		return;
	}
	ASSERT(end - start <= SPAN_BYTES);
	allocate(x);
	if (segment_read(middle->segment, start, x->data, (size_t)(end - start)) == 0) {
		x->segment = middle->segment;
		x->offset = start;
		x->len = (size_t)(end - start);
	}
}

const unsigned char *span_find(const struct span *x, const struct span_want *want)
{
	if (x->segment == NULL || x->segment != want->segment || want->offset < x->offset ||
	    want->offset + want->len > x->offset + x->len) {
		return NULL;
	}
	return x->data + (want->offset - x->offset);
}

void span_drop(struct span *x)
{
	free(x->data);
	*x = (struct span){0};
}
