#include "perf/domain_tally.h"

#include <err.h>
#include <stdlib.h>
#include <string.h>

#include "perf/fingerprint.h"

static uint32_t *slot_of(const struct domain_tally *tally, uint64_t f)
{
	uint32_t i = (uint32_t)f & tally->mask;

	while (tally->slots[i] != 0 && tally->domains[tally->slots[i] - 1].fingerprint != f) {
		i = (i + 1) & tally->mask;
	}
	return &tally->slots[i];
}

/* Twice the room for domains, and twice as many slots as that. */
static void grow(struct domain_tally *tally)
{
	uint32_t capacity = tally->capacity == 0 ? 64 : 2 * tally->capacity;

	tally->domains = realloc(tally->domains, capacity * sizeof(*tally->domains));
	free(tally->slots);
	tally->slots = calloc(2UL * capacity, sizeof(*tally->slots));
	if (tally->domains == NULL || tally->slots == NULL) {
		err(2, "%u domains", capacity);
	}
	tally->capacity = capacity;
	tally->mask = 2 * capacity - 1;
	for (uint32_t i = 0; i < tally->count; i++) {
		*slot_of(tally, tally->domains[i].fingerprint) = i + 1;
	}
}

uint32_t domain_tally_number(struct domain_tally *tally, const char *name, size_t len)
{
	uint64_t f = fingerprint(name, len);
	uint32_t *slot;
	char *copy;

	if (tally->count == tally->capacity) {
		grow(tally);
	}
	slot = slot_of(tally, f);
	if (*slot == 0) {
		copy = strndup(name, len);
		if (copy == NULL) {
			err(2, "domain");
		}
		tally->domains[tally->count] =
			(struct domain_counts){.name = copy, .fingerprint = f};
		*slot = ++tally->count;
	}
	return *slot - 1;
}

void domain_tally_move(struct domain_tally *tally, uint32_t from, uint32_t to)
{
	if (from == to) {
		return;
	}
	if (from != UINT32_MAX) {
		tally->domains[from].connections--;
	}
	if (to != UINT32_MAX) {
		struct domain_counts *d = &tally->domains[to];
		d->connections++;
		if (d->connections > d->connections_peak) {
			d->connections_peak = d->connections;
		}
	}
}

void domain_tally_append_json(const struct domain_tally *tally, struct text *t)
{
	text_append_string(t, "{");
	for (uint32_t i = 0; i < tally->count; i++) {
		const struct domain_counts *d = &tally->domains[i];
		text_append_string(t, i > 0 ? ",\n    " : "\n    ");
		text_append_json(t, d->name);
		text_printf(t, ": {\"messages\": %lu, \"recipients\": %lu, ", d->messages,
			    d->recipients);
		text_printf(t, "\"connections\": %u, \"connections_peak\": %u}", d->connections,
			    d->connections_peak);
	}
	text_append_string(t, tally->count > 0 ? "\n  }" : "}");
}

void domain_tally_free(struct domain_tally *tally)
{
	for (uint32_t i = 0; i < tally->count; i++) {
		free(tally->domains[i].name);
	}
	free(tally->domains);
	free(tally->slots);
	*tally = (struct domain_tally){0};
}
