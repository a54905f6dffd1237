#include "core/runtime/timer.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/agent.h"
#include "core/runtime/check.h"

void timer_init(struct timer *t, struct agent *owner, timer_fn on_expire)
{
	*t = (struct timer){.on_expire = on_expire, .owner = owner, .slot = TIMER_NO_SLOT};
}

static void slots_grow(struct timer_client *c)
{
	uint32_t count = c->slot_count == 0 ? 64 : c->slot_count * 2;
	struct timer_slot *slots = realloc(c->slots, count * sizeof *slots);

	if (slots == NULL) {
		fatal("out of memory for %u timers", count);
	}
	for (uint32_t i = c->slot_count; i < count; i++) {
		slots[i] = (struct timer_slot){NULL, 0, i + 1 < count ? i + 1 : TIMER_NO_SLOT};
	}
	c->free_slot = c->slot_count;
	c->slots = slots;
	c->slot_count = count;
}

static void tell_wheel(struct agent *owner, uint32_t slot, uint64_t due_ms)
{
	struct timer_client *c = &owner->timers;

	agent_send(owner, c->wheel, c->on_arm, (void *)(uintptr_t)due_ms,
		   TIMER_VALUE(slot, c->slots[slot].generation));
}

static void slot_take(struct timer *t)
{
	struct timer_client *c = &t->owner->timers;

	if (c->free_slot == TIMER_NO_SLOT) {
		slots_grow(c);
	}
	t->slot = c->free_slot;
	c->free_slot = c->slots[t->slot].next_free;
	c->slots[t->slot].timer = t;
	c->armed++;
}

/* The next user of the slot has another generation: what the wheel still sends is not for it. */
static void slot_give_back(struct timer *t)
{
	struct timer_client *c = &t->owner->timers;
	struct timer_slot *s = &c->slots[t->slot];

	s->timer = NULL;
	s->generation++;
	s->next_free = c->free_slot;
	c->free_slot = t->slot;
	c->armed--;
	t->slot = TIMER_NO_SLOT;
}

void timer_arm(struct timer *t, uint64_t due_ms)
{
	ASSERT(due_ms != 0 && t->owner->timers.wheel != NULL);
	t->due_ms = due_ms;
	if (t->slot == TIMER_NO_SLOT) {
		slot_take(t);
	} else if (due_ms >= t->wheel_ms) {
		return;
	}
	t->wheel_ms = due_ms;
	tell_wheel(t->owner, t->slot, due_ms);
}

void timer_cancel(struct timer *t)
{
	t->due_ms = 0;
	if (t->slot != TIMER_NO_SLOT) {
		tell_wheel(t->owner, t->slot, 0);
		slot_give_back(t);
	}
}

void timer_on_expired(struct agent *self, void *due_ms, uint64_t value)
{
	struct timer_client *c = &self->timers;
	uint32_t slot = TIMER_VALUE_SLOT(value);
	struct timer *t;

	ASSERT(slot < c->slot_count);
	t = c->slots[slot].timer;
	if (t == NULL || c->slots[slot].generation != TIMER_VALUE_GENERATION(value)) {
		return;
	}
	/* The word on a deadline that was moved to a later one, which the wheel knows of or will: a
	 * timer that was moved to and fro while an expiry was under way has two of them. */
	if ((uintptr_t)due_ms < t->wheel_ms) {
		return;
	}
	/* The wheel's word on its own deadline stands, even if this group's clock was read earlier.
	 */
	if (t->due_ms > t->wheel_ms && agent_now_ms(self) < t->due_ms) {
		t->wheel_ms = t->due_ms;
		tell_wheel(self, slot, t->due_ms);
		return;
	}
	slot_give_back(t);
	t->due_ms = 0;
	t->on_expire(t);
}

void timer_client_close(struct timer_client *c)
{
	free(c->slots);
	memset(c, 0, sizeof *c);
	c->free_slot = TIMER_NO_SLOT;
}
