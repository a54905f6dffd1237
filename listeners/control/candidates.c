#include "listeners/control/candidates.h"

#include <stdlib.h>
#include <string.h>

#include "core/queue/binding.h"
#include "core/queue/domain.h"
#include "core/runtime/check.h"

#define SLOTS_MIN 1024U

static uint64_t hash_of(const struct message_id *id, uint32_t delivery)
{
	uint64_t h = (id->high ^ (id->low * UINT64_C(0x9e3779b97f4a7c15))) + delivery;

	h *= UINT64_C(0xbf58476d1ce4e5b9);
	h ^= h >> 32;
	h *= UINT64_C(0x94d049bb133111eb);
	return h ^ (h >> 29);
}

static bool is_free(const struct candidate *at)
{
	return (at->id.high | at->id.low) == 0;
}

/* Where it is, or would be: there is a free place always. */
static struct candidate *place_of(const struct candidates *c, const struct message_id *id,
				  uint32_t delivery)
{
	uint32_t i = (uint32_t)hash_of(id, delivery) & (c->slot_count - 1);

	for (;;) {
		struct candidate *at = &c->slots[i];

		if (is_free(at) || (at->id.low == id->low && at->id.high == id->high &&
				    at->delivery == delivery)) {
			return at;
		}
		i = (i + 1) & (c->slot_count - 1);
	}
}

static void *grown(void *old, size_t bytes)
{
	return check_memory(realloc(old, bytes), "the answer to a command");
}

static void make_room(struct candidates *c)
{
	struct candidate *old = c->slots;
	uint32_t old_count = c->slot_count;

	if (c->count < old_count / 4 * 3) {
		return;
	}
	c->slot_count = old_count == 0 ? SLOTS_MIN : old_count * 2;
	c->slots =
		check_memory(calloc(c->slot_count, sizeof(*c->slots)), "the answer to a command");
	for (uint32_t i = 0; i < old_count; i++) {
		if (!is_free(&old[i])) {
			*place_of(c, &old[i].id, old[i].delivery) = old[i];
		}
	}
	free(old);
}

static void note_record(struct candidates *c, const struct envelope *e, uint32_t delivery)
{
	const char *binding = envelope_binding(e);
	const char *domain = envelope_domain(e, delivery);
	uint64_t bit =
		domain_hash(binding != NULL ? binding : BINDING_DEFAULT, domain, strlen(domain)) %
		CANDIDATES_RECORD_BITS;

	if (c->records == NULL) {
		c->records = check_memory(calloc(CANDIDATES_RECORD_BITS / 64, sizeof(uint64_t)),
					  "the answer to a command");
	}
	c->records[bit / 64] |= UINT64_C(1) << (bit % 64);
}

static uint32_t add_set(struct candidates *c, const struct recipient_set *who)
{
	if (c->set_count == c->set_slots) {
		c->set_slots = c->set_slots == 0 ? SLOTS_MIN : c->set_slots * 2;
		c->sets = grown(c->sets, c->set_slots * sizeof(*c->sets));
	}
	c->sets[c->set_count] = *who;
	return c->set_count++;
}

void candidates_add(struct candidates *c, const struct envelope *e, uint32_t delivery,
		    const struct recipient_set *who, bool all)
{
	struct candidate *at;

	if (c->count == CANDIDATES_MAX) {
		c->overflown = true;
		return;
	}
	make_room(c);
	at = place_of(c, &e->id, delivery);
	if (!is_free(at)) {
		return;
	}
	at->id = e->id;
	at->delivery = delivery;
	at->set = all ? CANDIDATE_ALL : add_set(c, who);
	c->count++;
	note_record(c, e, delivery);
}

bool candidates_may_be_in(const struct candidates *c, uint64_t record_hash)
{
	uint64_t bit = record_hash % CANDIDATES_RECORD_BITS;

	return c->records != NULL && (c->records[bit / 64] >> (bit % 64) & 1) != 0;
}

struct recipient_set candidates_find(const struct candidates *c, const struct message_id *id,
				     uint32_t delivery)
{
	const struct candidate *at;

	if (c->count == 0) {
		return (struct recipient_set){{0, 0}};
	}
	at = place_of(c, id, delivery);
	if (is_free(at)) {
		return (struct recipient_set){{0, 0}};
	}
	return at->set == CANDIDATE_ALL ? recipient_set_first(ENVELOPE_DELIVERY_RECIPIENTS)
					: c->sets[at->set];
}

void candidates_close(struct candidates *c)
{
	free(c->slots);
	free(c->sets);
	free(c->records);
	*c = (struct candidates){.count = 0};
}
