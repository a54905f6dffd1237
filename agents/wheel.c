#include "agents/wheel.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/runtime/runtime.h"

#define WHEEL_AGENT_MAGIC 0x7768656cU
/* Expiries in one duty cycle; the rest follows in the next one. */
#define EXPIRE_LIMIT 1024
#define CHUNK_ENTRIES 256
/* Other agents may still wait for deadlines while they drain. */
#define STOP_PHASE 6

SINGLE
struct timer_entry {
	struct wheel_entry link;
	uint32_t slot;
	uint32_t generation;
	uint32_t owner;
};

/* The entries of one owner by its slots, in chunks, so that they stay where they are. */
SINGLE
struct owner_entries {
	struct timer_entry **chunks;
	uint32_t chunk_count;
};

BOUND
struct wheel_agent {
	struct agent base;
	uint32_t magic;
	struct wheel wheel;
	struct owner_entries owners[AGENT_MAX];
	struct counter *armed;
	struct counter *arms;
	struct counter *cancels;
	struct counter *expired;
	struct counter *late_max_ms;
};

static struct wheel_agent *wheel_agent_of(struct agent *base)
{
	struct wheel_agent *w = CONTAINER_OF(base, struct wheel_agent, base);

	CHECK_MAGIC(w, WHEEL_AGENT_MAGIC);
	return w;
}

/* NULL when the owner has never armed this slot. */
static struct timer_entry *entry_find(const struct wheel_agent *w, uint32_t owner, uint32_t slot)
{
	const struct owner_entries *o = &w->owners[owner];
	uint32_t chunk = slot / CHUNK_ENTRIES;

	if (chunk >= o->chunk_count || o->chunks[chunk] == NULL) {
		return NULL;
	}
	return &o->chunks[chunk][slot % CHUNK_ENTRIES];
}

static void chunks_grow(struct owner_entries *o, uint32_t wanted)
{
	uint32_t count = o->chunk_count == 0 ? 4 : o->chunk_count;
	struct timer_entry **chunks;

	while (count < wanted) {
		count *= 2;
	}
	chunks = realloc(o->chunks, count * sizeof(*chunks));
	if (chunks == NULL) {
		fatal("out of memory for %u deadlines", count * CHUNK_ENTRIES);
	}
	memset(chunks + o->chunk_count, 0, (count - o->chunk_count) * sizeof(*chunks));
	o->chunks = chunks;
	o->chunk_count = count;
}

static struct timer_entry *chunk_create(uint32_t owner, uint32_t chunk)
{
	struct timer_entry *entries = calloc(CHUNK_ENTRIES, sizeof(*entries));

	if (entries == NULL) {
		fatal("out of memory for %d deadlines", CHUNK_ENTRIES);
	}
	for (uint32_t i = 0; i < CHUNK_ENTRIES; i++) {
		entries[i].slot = chunk * CHUNK_ENTRIES + i;
		entries[i].owner = owner;
	}
	return entries;
}

static struct timer_entry *entry_get(struct wheel_agent *w, uint32_t owner, uint32_t slot)
{
	struct owner_entries *o = &w->owners[owner];
	uint32_t chunk = slot / CHUNK_ENTRIES;

	if (chunk >= o->chunk_count) {
		chunks_grow(o, chunk + 1);
	}
	if (o->chunks[chunk] == NULL) {
		o->chunks[chunk] = chunk_create(owner, chunk);
	}
	return &o->chunks[chunk][slot % CHUNK_ENTRIES];
}

/* An owner's requests come in the order made, so a cancel of another generation than the armed
 * one cannot be: it is ignored all the same. */
static void on_cancel(struct wheel_agent *w, uint32_t owner, uint64_t value)
{
	struct timer_entry *e = entry_find(w, owner, TIMER_VALUE_SLOT(value));

	counter_inc(w->cancels);
	if (e != NULL && e->generation == TIMER_VALUE_GENERATION(value)) {
		wheel_cancel(&w->wheel, &e->link);
	}
}

static void on_arm(struct wheel_agent *w, uint32_t owner, uint64_t value, uint64_t due_ms)
{
	struct timer_entry *e = entry_get(w, owner, TIMER_VALUE_SLOT(value));

	counter_inc(w->arms);
	e->generation = TIMER_VALUE_GENERATION(value);
	wheel_arm(&w->wheel, &e->link, due_ms);
}

void wheel_agent_on_arm(struct agent *wheel, void *due_ms, uint64_t value)
{
	struct wheel_agent *w = wheel_agent_of(wheel);

	ASSERT(wheel->sender != NULL);
	if (due_ms == NULL) {
		on_cancel(w, wheel->sender->id, value);
	} else {
		on_arm(w, wheel->sender->id, value, (uintptr_t)due_ms);
	}
	counter_set_value(w->armed, w->wheel.count);
}

static void on_expired(void *context, struct wheel_entry *link)
{
	struct wheel_agent *w = context;
	struct timer_entry *e = CONTAINER_OF(link, struct timer_entry, link);

	counter_inc(w->expired);
	counter_max(w->late_max_ms, agent_now_ms(&w->base) - e->link.due);
	agent_send(&w->base, w->base.runtime->agents[e->owner], timer_on_expired,
		   (void *)(uintptr_t)e->link.due, TIMER_VALUE(e->slot, e->generation));
}

static int wheel_agent_start(struct agent *self)
{
	wheel_init(&wheel_agent_of(self)->wheel, agent_now_ms(self));
	return 0;
}

/* A group that sleeps must wake for the next deadline. */
static uint64_t wheel_agent_sleep_max_ns(struct agent *self)
{
	uint64_t due_ms = wheel_next_deadline(&wheel_agent_of(self)->wheel);
	uint64_t due_ns;

	if (due_ms > UINT64_MAX / NS_PER_MS) {
		return UINT64_MAX;
	}
	due_ns = due_ms * NS_PER_MS;
	return due_ns > self->now.mono_ns ? due_ns - self->now.mono_ns : 1;
}

static void wheel_agent_tear_down(struct agent *self)
{
	ASSERT(wheel_validate(&wheel_agent_of(self)->wheel));
}

static int wheel_agent_do_work(struct agent *self)
{
	struct wheel_agent *w = wheel_agent_of(self);
	unsigned expired = wheel_expire(&w->wheel, agent_now_ms(self), EXPIRE_LIMIT, on_expired, w);

	counter_set_value(w->armed, w->wheel.count);
	return (int)expired;
}

static const struct agent_ops wheel_agent_ops = {
	.kind = "wheel",
	.start = wheel_agent_start,
	.do_work = wheel_agent_do_work,
	.sleep_max_ns = wheel_agent_sleep_max_ns,
	.tear_down = wheel_agent_tear_down,
};

struct wheel_agent *wheel_agent_create(const char *name)
{
	struct wheel_agent *w = aligned_alloc(CACHE_LINE, sizeof(*w));
	struct counter_set *set;

	if (w == NULL) {
		fatal("out of memory for agent %s", name);
	}
	memset(w, 0, sizeof(*w));
	w->magic = WHEEL_AGENT_MAGIC;
	agent_init(&w->base, &wheel_agent_ops, name, STOP_PHASE);
	wheel_init(&w->wheel, 0);
	set = w->base.counters;
	w->armed = counter_create(set, "armed", COUNTER_GAUGE, "Deadlines that wait");
	w->arms = counter_create(set, "arms", COUNTER_SUM, "Requests to arm or move a deadline");
	w->cancels = counter_create(set, "cancels", COUNTER_SUM, "Requests to cancel a deadline");
	w->expired = counter_create(set, "expired", COUNTER_SUM, "Deadlines that expired");
	w->late_max_ms = counter_create(set, "late_max_ms", COUNTER_MAX,
					"Longest time by which a deadline was seen too late, ms");
	return w;
}

struct agent *wheel_agent_base(struct wheel_agent *w)
{
	return &w->base;
}

bool wheel_agent_valid(const struct wheel_agent *w)
{
	return wheel_validate(&w->wheel);
}

void wheel_agent_destroy(struct wheel_agent *w)
{
	if (w == NULL) {
		return;
	}
	CHECK_MAGIC(w, WHEEL_AGENT_MAGIC);
	agent_close(&w->base);
	for (uint32_t owner = 0; owner < AGENT_MAX; owner++) {
		for (uint32_t chunk = 0; chunk < w->owners[owner].chunk_count; chunk++) {
			free(w->owners[owner].chunks[chunk]);
		}
		free(w->owners[owner].chunks);
	}
	w->magic = 0;
	free(w);
}
