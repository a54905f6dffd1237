/*
 * An entry's place follows from its due tick and the wheel's present: the level is that of the
 * highest digit (of WHEEL_BITS bits) in which both differ, the slot is the due tick's digit there.
 * So on every level but the last only slots after the present's digit are in use, and everything
 * on a level comes before everything on the next one.
 *
 * Time jumps from event to event: to the next occupied slot of level 0, or to the start of the next
 * occupied slot above, which is then dealt out to the levels below.
 */
#include "core/runtime/wheel.h"

#include "core/runtime/check.h"

#define LAST_LEVEL (WHEEL_LEVELS - 1)
#define SLOT_MASK ((uint64_t)WHEEL_SLOTS - 1)

_Static_assert(WHEEL_SLOTS == 32, "a level's slots are the bits of a uint32_t");

static unsigned level_shift(unsigned level)
{
	return level * WHEEL_BITS;
}

static unsigned digit_of(uint64_t tick, unsigned level)
{
	return (unsigned)((tick >> level_shift(level)) & SLOT_MASK);
}

static struct wheel_entry *slot_at(struct wheel *w, unsigned index)
{
	return &w->slots[0][0] + index;
}

/* Number of the slot, over all levels, where an entry due at `due` (not past) belongs now. */
static unsigned place_of(const struct wheel *w, uint64_t due)
{
	uint64_t differ = due ^ w->now;
	uint64_t reach = (uint64_t)(WHEEL_SLOTS - 1) << level_shift(LAST_LEVEL);
	unsigned level = 0;

	if (differ != 0) {
		level = (63U - (unsigned)__builtin_clzll(differ)) / WHEEL_BITS;
	}
	if (level > LAST_LEVEL) {
		/* Around the last level, or as far on it as one turn goes. */
		level = LAST_LEVEL;
		if (due - w->now > reach) {
			due = w->now + reach;
		}
	}
	return level * WHEEL_SLOTS + digit_of(due, level);
}

static void link_entry(struct wheel *w, struct wheel_entry *e)
{
	unsigned place = place_of(w, e->due);
	struct wheel_entry *head = slot_at(w, place);

	e->next = head;
	e->prev = head->prev;
	head->prev->next = e;
	head->prev = e;
	w->occupied[place / WHEEL_SLOTS] |= 1U << (place % WHEEL_SLOTS);
}

static void unlink_entry(struct wheel *w, struct wheel_entry *e)
{
	e->next->prev = e->prev;
	e->prev->next = e->next;
	if (e->next == e->prev) {
		/* It was alone: what is left is the slot itself. */
		unsigned place = (unsigned)(e->next - &w->slots[0][0]);

		w->occupied[place / WHEEL_SLOTS] &= ~(1U << (place % WHEEL_SLOTS));
	}
	e->next = NULL;
	e->prev = NULL;
}

void wheel_init(struct wheel *w, uint64_t now)
{
	w->now = now;
	w->count = 0;
	for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
		w->occupied[level] = 0;
	}
	for (unsigned i = 0; i < WHEEL_LEVELS * WHEEL_SLOTS; i++) {
		struct wheel_entry *head = slot_at(w, i);

		*head = (struct wheel_entry){.next = head, .prev = head};
	}
}

void wheel_arm(struct wheel *w, struct wheel_entry *e, uint64_t due)
{
	wheel_cancel(w, e);
	/* The present's own slot on level 0 is for what is overdue. */
	e->due = due < w->now ? w->now : due;
	link_entry(w, e);
	w->count++;
}

void wheel_cancel(struct wheel *w, struct wheel_entry *e)
{
	if (!wheel_armed(e)) {
		return;
	}
	unlink_entry(w, e);
	w->count--;
}

/* Slots of `level` after the present's digit; bit 0 is the first of them. */
static uint32_t slots_ahead(const struct wheel *w, unsigned level)
{
	unsigned after = digit_of(w->now, level) + 1;
	uint32_t bits = w->occupied[level];
	uint32_t ahead = after == WHEEL_SLOTS ? 0 : bits >> after;

	/* The last level alone goes round. */
	if (level == LAST_LEVEL) {
		ahead |= bits << (WHEEL_SLOTS - after);
	}
	return ahead;
}

/* The next tick after the present at which a slot is due, or is to be dealt out. */
static uint64_t next_event(const struct wheel *w)
{
	for (unsigned level = 0; level < WHEEL_LEVELS; level++) {
		uint32_t ahead = slots_ahead(w, level);

		if (ahead != 0) {
			uint64_t slots = (uint64_t)__builtin_ctz(ahead) + 1;

			return ((w->now >> level_shift(level)) + slots) << level_shift(level);
		}
	}
	return WHEEL_NONE;
}

uint64_t wheel_next_deadline(const struct wheel *w)
{
	if ((w->occupied[0] & (1U << digit_of(w->now, 0))) != 0) {
		return w->now;
	}
	return next_event(w);
}

/* Deals out the slot of `level` that the present has just reached: each entry goes straight to its
 * place below, so the order of levels does not matter. */
static void cascade(struct wheel *w, unsigned level)
{
	unsigned digit = digit_of(w->now, level);
	struct wheel_entry *head = &w->slots[level][digit];
	struct wheel_entry *e = head->next;

	if (e == head) {
		return;
	}
	head->prev->next = NULL;
	head->next = head;
	head->prev = head;
	w->occupied[level] &= ~(1U << digit);
	while (e != NULL) {
		struct wheel_entry *next = e->next;

		link_entry(w, e);
		e = next;
	}
}

/* Moves the present to `tick`, the next event or before it. */
static void advance(struct wheel *w, uint64_t tick)
{
	w->now = tick;
	for (unsigned level = 1; level < WHEEL_LEVELS; level++) {
		if ((tick & ((UINT64_C(1) << level_shift(level)) - 1)) != 0) {
			return;
		}
		cascade(w, level);
	}
}

/* Expires what is due now, at most `limit`. Returns how many. */
static unsigned expire_present(struct wheel *w, unsigned limit, wheel_fn expire, void *context)
{
	struct wheel_entry *head = &w->slots[0][digit_of(w->now, 0)];
	unsigned expired = 0;

	while (expired < limit && head->next != head) {
		struct wheel_entry *e = head->next;

		wheel_cancel(w, e);
		expired++;
		expire(context, e);
	}
	return expired;
}

unsigned wheel_expire(struct wheel *w, uint64_t now, unsigned limit, wheel_fn expire, void *context)
{
	unsigned expired = 0;

	for (;;) {
		uint64_t event;

		expired += expire_present(w, limit - expired, expire, context);
		if (expired == limit || w->now >= now) {
			return expired;
		}
		event = next_event(w);
		advance(w, event < now ? event : now);
	}
}

/* Whether an entry may sit in this slot: where a fresh arm would put it, but on the last level,
 * where entries far away stay until the slot is reached. */
static bool entry_valid(const struct wheel *w, const struct wheel_entry *e, unsigned place)
{
	unsigned turn = (place - digit_of(w->now, LAST_LEVEL)) % WHEEL_SLOTS;
	uint64_t reached = ((w->now >> level_shift(LAST_LEVEL)) + turn) << level_shift(LAST_LEVEL);

	if (e->due < w->now || e->next->prev != e || e->prev->next != e) {
		return false;
	}
	if (place / WHEEL_SLOTS == LAST_LEVEL) {
		return turn != 0 && reached <= e->due;
	}
	return place_of(w, e->due) == place;
}

bool wheel_validate(const struct wheel *w)
{
	uint64_t count = 0;

	for (unsigned place = 0; place < WHEEL_LEVELS * WHEEL_SLOTS; place++) {
		const struct wheel_entry *head = &w->slots[0][0] + place;
		bool bit = (w->occupied[place / WHEEL_SLOTS] >> (place % WHEEL_SLOTS)) & 1;

		if (head->next == NULL || head->prev == NULL || bit != (head->next != head)) {
			return false;
		}
		for (const struct wheel_entry *e = head->next; e != head; e = e->next) {
			if (e->next == NULL || count == w->count || !entry_valid(w, e, place)) {
				return false;
			}
			count++;
		}
	}
	return count == w->count;
}
