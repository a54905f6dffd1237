#include "core/queue/recent.h"

#include <string.h>

void recent_turn(struct recent *r, uint64_t now_ms)
{
	uint32_t span = (uint32_t)(now_ms / RECENT_SPAN_MS);

	if (span - r->span >= RECENT_SPANS) {
		memset(r->counts, 0, sizeof(r->counts));
	} else {
		for (uint32_t s = r->span + 1; s != span + 1; s++) {
			r->counts[s % RECENT_SPANS] = 0;
		}
	}
	r->span = span;
}

double recent_per_s(const struct recent *r, uint64_t now_ms)
{
	struct recent now = *r;
	uint64_t sum = 0;
	uint64_t first_ms = now_ms;

	recent_turn(&now, now_ms);
	for (uint32_t back = 0; back < RECENT_SPANS && back <= now.span; back++) {
		uint32_t count = now.counts[(now.span - back) % RECENT_SPANS];

		if (count != 0) {
			sum += count;
			first_ms = (uint64_t)(now.span - back) * RECENT_SPAN_MS;
		}
	}
	return sum == 0                   ? 0
	       : now_ms - first_ms < 1000 ? (double)sum
					  : (double)sum * 1000 / (double)(now_ms - first_ms);
}
