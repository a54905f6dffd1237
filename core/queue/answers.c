#include "core/queue/answers.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

static bool is_like(const struct answer *a, const struct answer *b)
{
	return a->failed == b->failed && strcmp(a->text, b->text) == 0 &&
	       strcmp(a->domain, b->domain) == 0 && strcmp(a->host, b->host) == 0;
}

static struct answer *answer_copy(const struct answer *said)
{
	size_t domain = strlen(said->domain) + 1;
	size_t host = strlen(said->host) + 1;
	size_t text = strlen(said->text) + 1;
	struct answer *a =
		check_memory(malloc(sizeof(*a) + domain + host + text), "an answer of a next hop");
	char *at = (char *)(a + 1);

	*a = *said;
	a->domain = memcpy(at, said->domain, domain);
	a->host = memcpy(at + domain, said->host, host);
	a->text = memcpy(at + domain + host, said->text, text);
	return a;
}

void answers_add(struct answers **answers, const struct answer *said)
{
	struct answers *all = *answers;
	struct answer *row;
	uint32_t i = 0;

	if (all == NULL) {
		all = *answers = check_memory(calloc(1, sizeof(*all)), "answers of next hops");
	}
	while (i < all->count && !is_like(all->rows[i], said)) {
		i++;
	}
	if (i < all->count) {
		row = all->rows[i];
		row->count += said->count;
		row->at_ms = said->at_ms;
	} else {
		row = answer_copy(said);
		if (all->count < ANSWERS_MAX) {
			all->count++;
		} else {
			free(all->rows[--i]);
		}
	}
	memmove(&all->rows[1], &all->rows[0], i * sizeof(all->rows[0]));
	all->rows[0] = row;
}

void answers_free(struct answers *answers)
{
	for (uint32_t i = 0; answers != NULL && i < answers->count; i++) {
		free(answers->rows[i]);
	}
	free(answers);
}
