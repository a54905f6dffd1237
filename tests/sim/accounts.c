#include "tests/sim/accounts.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "config/include.h"
#include "core/runtime/check.h"
#include "core/runtime/tls.h"
#include "tests/sim/accounts_wrap.h"
#include "tests/sim/kernel_wrap.h"
#include "tests/sim/world.h"

#define POOL_NAMES_MAX 64

/* All pools of a name: an object taken from one may be given back to another. */
struct pool_account {
	const char *name;
	uint32_t open;
	/* Of those that are closed: objects handed out and not taken back. */
	int64_t live;
};

/* The process's own, as the pools are. */
static struct pool_account pools[POOL_NAMES_MAX];
static uint32_t pool_count;
/* Of mail pools that are closed. */
static int64_t resident_bytes;
/* Of this process's one thread, at the beginning. */
static uint64_t heap_bytes;

/* ---- the heap ---- */

static uint64_t allocator_says(const char *name)
{
	uint64_t value = 0;
	size_t len = sizeof value;

	if (__real_mallctl != NULL) {
		ASSERT(__real_mallctl(name, &value, &len, NULL, 0) == 0);
	}
	return value;
}

static uint64_t heap_in_use(void)
{
	return allocator_says("thread.allocated") - allocator_says("thread.deallocated");
}

void accounts_begin(void)
{
	unsigned char digest[TREE_DIGEST];
	char why[TLS_WHY];

	/* The C library keeps the time zone from its first use on, OpenSSL its algorithms. */
	tzset();
	include_digest("", 0, digest);
	tls_context_free(tls_client_create(NULL, why));
	heap_bytes = heap_in_use();
}

/* ---- pools ---- */

static struct pool_account *account_of(const char *name)
{
	for (uint32_t i = 0; i < pool_count; i++) {
		if (strcmp(pools[i].name, name) == 0) {
			return &pools[i];
		}
	}
	ASSERT(pool_count < POOL_NAMES_MAX);
	pools[pool_count] = (struct pool_account){.name = name};
	return &pools[pool_count++];
}

void __wrap_pool_init(struct pool *p, const char *name, size_t size, uint32_t keep_max)
{
	account_of(name)->open++;
	__real_pool_init(p, name, size, keep_max);
}

void __wrap_pool_close(struct pool *p)
{
	struct pool_account *a = account_of(p->name);

	ASSERT(a->open > 0);
	a->open--;
	a->live += p->live;
	__real_pool_close(p);
}

void __wrap_mail_pools_close(struct mail_pools *p)
{
	resident_bytes += atomic_load(&p->resident_bytes);
	__real_mail_pools_close(p);
}

void accounts_check_closed(void)
{
	for (uint32_t i = 0; i < pool_count; i++) {
		const struct pool_account *a = &pools[i];

		if (a->open != 0 || a->live != 0) {
			world_fail("after the stop %" PRIu32 " pools of %s are open, and %" PRId64
				   " objects are not given back",
				   a->open, a->name, a->live);
		}
	}
	if (resident_bytes != 0) {
		world_fail("after the stop %" PRId64 " bytes of content count as resident",
			   resident_bytes);
	}
	if (heap_in_use() != heap_bytes) {
		world_fail("after the stop %" PRId64 " bytes of memory are not given back",
			   (int64_t)(heap_in_use() - heap_bytes));
	}
}

/* ---- tasks, operations, timers ---- */

static void check_link(const struct link *l)
{
	unsigned depth = task_ring_empty(&l->ring) ? 0 : task_ring_depth(&l->ring);

	if (depth != 0 || l->overflow_count != 0) {
		world_fail("after the stop %u tasks from %s to %s wait, and %" PRIu32
			   " in the overflow",
			   depth, l->from->name, l->to->name, l->overflow_count);
	}
}

static void check_tasks(const struct agent *a)
{
	for (unsigned i = 0; i < AGENT_MAX; i++) {
		if (a->out[i] != NULL) {
			check_link(a->out[i]);
		}
	}
}

void accounts_check_drained(const struct program *p)
{
	const struct runtime *rt = &p->runtime;
	uint64_t slots = 0;
	uint64_t armed = counter_total("armed");

	for (uint32_t i = 0; i < rt->agent_count; i++) {
		check_tasks(rt->agents[i]);
		slots += rt->agents[i]->timers.armed;
	}
	if (armed != slots) {
		world_fail("after the stop the wheel keeps %" PRIu64
			   " deadlines, and its owners know of %" PRIu64,
			   armed, slots);
	}
	for (uint32_t i = 0; i < rt->group_count; i++) {
		const struct mux *mux = rt->groups[i]->live ? rt->groups[i]->mux : NULL;
		unsigned pending = mux != NULL ? mux_pending(mux) : 0;

		if (pending != 0) {
			world_fail("after the stop %u operations of group %s are under way",
				   pending, rt->groups[i]->name);
		}
	}
}

/* ---- what the program counts itself ---- */

static void expect_none(const char *who, const char *what, uint64_t count)
{
	if (count != 0) {
		world_fail("after the stop %s counts %" PRIu64 " %s", who, count, what);
	}
}

static void check_scheduler(const struct scheduler *s)
{
	const char *name = s->base.name;

	expect_none(name, "bytes under reception", atomic_load(&s->receiving_bytes));
	expect_none(name, "transactions under reception", atomic_load(&s->receiving_count));
	expect_none(name, "requests at the spool", s->spool_waiting);
	expect_none(name, "notifications being made", s->bounces_waiting);
	expect_none(name, "names being looked up", s->lookups_waiting);
	expect_none(name, "inbound connections", counter_get(s->connections_open));
	expect_none(name, "outbound connections", s->dispatcher.connection_count);
	expect_none(name, "outbound connections in its counter",
		    counter_get(s->dispatcher.connections_open));
	expect_none(name, "blocks at the log", s->log.outstanding);
}

void accounts_check_torn_down(const struct program *p)
{
	for (uint32_t i = 0; i < p->runtime.agent_count; i++) {
		expect_none(p->runtime.agents[i]->name, "armed timers",
			    p->runtime.agents[i]->timers.armed);
	}
	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		check_scheduler(p->schedulers[i]);
	}
	expect_none("the program", "outbound connections", atomic_load(&p->limits.connections));
	expect_none("the program", "bytes of loaded bodies", atomic_load(&p->limits.loaded_bytes));
}
