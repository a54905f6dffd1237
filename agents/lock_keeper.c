#include "agents/lock_keeper.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/runtime/fnv.h"

#define LOCK_KEEPER_MAGIC 0x6c6f636bU
#define BUCKETS 1024

/* One who asked: waits, then holds. */
SINGLE
struct lock_claim {
	struct lock_keeper *keeper;
	struct agent *from;
	struct policy_lock *lock;
	struct lock_claim *next;
	char name[POLICY_LOCK_NAME];
};

/* A lock that is held. */
BOUND
struct lock_entry {
	struct lock_entry *next;
	struct lock_claim *holder;
	struct lock_claim *first;
	struct lock_claim **last;
};

BOUND
struct lock_keeper {
	uint32_t magic;
	struct agent *home;
	uint32_t waiting;
	struct lock_entry *buckets[BUCKETS];
};

static struct lock_entry **place_of(struct lock_keeper *k, const char *name)
{
	struct lock_entry **at = &k->buckets[fnv_text(FNV_START, name) % BUCKETS];

	while (*at != NULL && strcmp((*at)->holder->name, name) != 0) {
		at = &(*at)->next;
	}
	return at;
}

/* On the agent that asked. */
static void on_granted(struct agent *self, void *object, uint64_t unused)
{
	struct lock_claim *c = object;

	(void)self;
	(void)unused;
	c->lock->host = c;
	c->lock->on_granted(c->lock, 0);
}

static void on_refused(struct agent *self, void *object, uint64_t unused)
{
	struct lock_claim *c = object;
	struct policy_lock *l = c->lock;

	(void)self;
	(void)unused;
	free(c);
	l->on_granted(l, -EAGAIN);
}

static void on_ask(struct agent *self, void *object, uint64_t unused)
{
	struct lock_claim *c = object;
	struct lock_keeper *k = c->keeper;
	struct lock_entry **at = place_of(k, c->name);

	(void)unused;
	CHECK_MAGIC(k, LOCK_KEEPER_MAGIC);
	if (*at == NULL) {
		*at = check_memory(calloc(1, sizeof(**at)), "a lock");
		(*at)->holder = c;
		(*at)->last = &(*at)->first;
		agent_send(self, c->from, on_granted, c, 0);
	} else if (k->waiting >= LOCK_KEEPER_WAITING_MAX) {
		agent_send(self, c->from, on_refused, c, 0);
	} else {
		*(*at)->last = c;
		(*at)->last = &c->next;
		k->waiting++;
	}
}

static void on_release(struct agent *self, void *object, uint64_t unused)
{
	struct lock_claim *c = object;
	struct lock_keeper *k = c->keeper;
	struct lock_entry **at = place_of(k, c->name);
	struct lock_entry *e = *at;

	(void)unused;
	ASSERT(e != NULL && e->holder == c);
	if (e->first == NULL) {
		*at = e->next;
		free(e);
	} else {
		e->holder = e->first;
		e->first = e->holder->next;
		if (e->first == NULL) {
			e->last = &e->first;
		}
		k->waiting--;
		agent_send(self, e->holder->from, on_granted, e->holder, 0);
	}
	free(c);
}

void lock_keeper_ask(struct lock_keeper *k, struct agent *self, struct policy_lock *l)
{
	struct lock_claim *c = check_memory(calloc(1, sizeof(*c)), "a lock");

	c->keeper = k;
	c->from = self;
	c->lock = l;
	strcpy(c->name, l->name);
	agent_send(self, k->home, on_ask, c, 0);
}

void lock_keeper_release(struct lock_keeper *k, struct agent *self, struct policy_lock *l)
{
	agent_send(self, k->home, on_release, l->host, 0);
}

struct lock_keeper *lock_keeper_create(struct agent *home)
{
	struct lock_keeper *k = check_memory(calloc(1, sizeof(*k)), "a lock");

	k->magic = LOCK_KEEPER_MAGIC;
	k->home = home;
	return k;
}

void lock_keeper_destroy(struct lock_keeper *k)
{
	if (k == NULL) {
		return;
	}
	CHECK_MAGIC(k, LOCK_KEEPER_MAGIC);
	k->magic = 0;
	free(k);
}
