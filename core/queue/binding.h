/*
 * Bindings: the identities that mail is sent by, and groups of them. When a message has been
 * received it is given to a binding, by its name or by the turn of its group; from then on it is
 * queued, limited and counted by (binding, domain).
 *
 * Each scheduler has a table of its own, so that turns, orders and counts are nobody else's. Start
 * reading at binding_choose().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/queue/suspension.h"
#include "core/runtime/thread_class.h"

/* The binding of mail that was given to no other, and the group of bindings that are in none. */
#define BINDING_DEFAULT "default"
#define BINDING_GROUP_DEFAULT "default"

enum binding_order {
	/* suspend_delivery decides. */
	BINDING_AS_CONFIGURED,
	/* What an operator said last. */
	BINDING_SUSPENDED,
	BINDING_RESUMED,
};

struct binding_group;

BOUND
struct binding_record {
	struct binding_record *hash_next;
	/* In the table, from 0 on. */
	uint32_t index;
	/* False: mail of an earlier start names it, and the configuration does no more. */
	bool configured;
	/* ... and operators have heard so. */
	bool missed;
	/* suspend_delivery of the binding. */
	bool suspend_delivery;
	enum binding_order order;
	/* NULL: in none. */
	struct binding_group *group;
	struct binding_record *group_next;
	/* Its share of the group's mail, and what it is short of that (binding_choose()). */
	uint32_t weight;
	int64_t credit;
	/* Recipients. */
	uint64_t received;
	uint64_t delivered;
	uint64_t failed;
	uint64_t transient;
	/* Who gave the order, while it is BINDING_SUSPENDED; malloc, NULL: not known here. */
	struct suspension *suspension;
	char name[];
};

BOUND
struct binding_table {
	/* By name; a power of two of buckets. */
	struct binding_record **buckets;
	uint32_t bucket_count;
	/* By index. */
	struct binding_record **records;
	uint32_t count;
	uint32_t room;
	/* Of them, those of the configuration; the default one always is. */
	uint32_t configured;
	struct binding_group *groups;
};

/* A table with the default binding. */
SINGLE
void binding_table_init(struct binding_table *t);
SINGLE
void binding_table_close(struct binding_table *t);

/* A binding of the configuration, once each, before the table is used. `group` NULL: in none;
 * `weight` is 1 or more. Names are copied. */
SINGLE
void binding_add(struct binding_table *t, const char *name, const char *group, uint32_t weight,
		 bool suspend_delivery);

/* No binding is of the configuration any more, but the default one, and there are no groups: those
 * of the next generation are added. Records stay, with their orders and counts. */
BOUND
void binding_table_renew(struct binding_table *t);

/* Each group lets so many turns pass, lest all schedulers begin with the same binding. */
SINGLE
void binding_pass_turns(struct binding_table *t, uint32_t turns);

static inline struct binding_record *binding_default(const struct binding_table *t)
{
	return t->records[0];
}

/* NULL: there is none. */
BOUND
struct binding_record *binding_find(const struct binding_table *t, const char *name);

/* Finds it, or makes one that is not configured. */
BOUND
struct binding_record *binding_open(struct binding_table *t, const char *name);

/*
 * The binding of a message that is to be sent by `name`: the binding of that name, suspended or
 * not; else the next one of the group of that name; NULL when the configuration has neither.
 *
 * Turns are spread evenly by weight, and in as many of them as all weights together each binding of
 * the group has as many as its own. Those that are suspended are passed over, unless all are.
 * O(bindings of the group).
 */
BOUND
struct binding_record *binding_choose(struct binding_table *t, const char *name);

/* Whether binding_choose() would find one. */
BOUND
bool binding_is_known(const struct binding_table *t, const char *name);

/* An operator's order. The turns of its group begin anew. */
BOUND
void binding_set_order(struct binding_record *b, enum binding_order order);

/* "default" for those that are in none. */
READONLY
const char *binding_group_name(const struct binding_record *b);

/* Mail that it is given now would wait until somebody resumes it. */
static inline bool binding_is_suspended(const struct binding_record *b)
{
	return b->order == BINDING_SUSPENDED ||
	       (b->order == BINDING_AS_CONFIGURED && b->suspend_delivery);
}
