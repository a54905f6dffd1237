#include "agents/spool_writer.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/runtime/runtime.h"
#include "spool/commit.h"
#include "spool/compaction.h"
#include "spool/load.h"
#include "spool/store.h"
#include "spool/upkeep.h"

/* After everybody who could still send requests. */
#define STOP_PHASE 3
/* Recovered deliveries handed out in one duty cycle. */
#define RECOVERED_PER_CYCLE 64
#define CHECK_SPACE_MS 1000

BOUND
struct spool_commit {
	struct segment_store *store;
	struct committer commit;
	struct upkeep upkeep;
	struct compaction compaction;
	struct loader loader;
	uint64_t check_ms;
	bool recovered;
	bool stopping;
};

static struct spool_writer *writer_of(struct agent *self)
{
	CHECK_MAGIC(self, AGENT_MAGIC);
	return CONTAINER_OF(self, struct spool_writer, base);
}

static int spool_writer_start(struct agent *self)
{
	struct spool_writer *w = writer_of(self);
	struct spool_commit *c = check_memory(calloc(1, sizeof(*c)), "the spool");

	c->store = spool_store(w->spool, w->index);
	commit_init(&c->commit, c->store, self);
	upkeep_init(&c->upkeep, c->store, self);
	compaction_init(&c->compaction, c->store, self);
	load_init(&c->loader, c->store, self, &w->pools);
	w->commit = c;
	/* Before the first message asks. */
	store_check_space(c->store);
	return 0;
}

static int hand_out_recovered(struct spool_writer *w)
{
	struct spool_commit *c = w->commit;
	int work = 0;

	if (c->recovered || c->stopping) {
		return 0;
	}
	while (work < RECOVERED_PER_CYCLE) {
		struct delivery *d = spool_next_recovered(w->spool, w->index, &w->pools);

		if (d == NULL) {
			c->recovered = !spool_recovered_waits(w->spool, w->index);
			break;
		}
		w->on_recovered(&w->base, w->context, d);
		work++;
	}
	/* Now: who reads that none is left finds all of them on their way home. */
	store_count_recovered(c->store);
	return work;
}

/* Free space is looked at about once a second. */
static void check_space(struct spool_writer *w)
{
	struct spool_commit *c = w->commit;
	uint64_t now_ms = agent_now_ms(&w->base);

	if (now_ms >= c->check_ms) {
		c->check_ms = now_ms + CHECK_SPACE_MS;
		store_check_space(c->store);
	}
}

static void spool_writer_stop(struct agent *self)
{
	struct spool_writer *w = writer_of(self);

	w->commit->stopping = true;
	compaction_stop(&w->commit->compaction);
	upkeep_stop(&w->commit->upkeep);
}

static bool spool_writer_drained(struct agent *self)
{
	struct spool_commit *c = writer_of(self)->commit;

	return commit_idle(&c->commit) && load_idle(&c->loader) &&
	       compaction_idle(&c->compaction) && upkeep_idle(&c->upkeep);
}

static uint64_t earlier(uint64_t a_ms, uint64_t b_ms)
{
	return b_ms != 0 && b_ms < a_ms ? b_ms : a_ms;
}

static uint64_t spool_writer_sleep_max_ns(struct agent *self)
{
	struct spool_commit *c = writer_of(self)->commit;
	uint64_t now_ms = agent_now_ms(self);
	uint64_t due_ms = c->check_ms;

	due_ms = earlier(due_ms, c->commit.retry_ms);
	due_ms = earlier(due_ms, c->upkeep.retry_ms);
	due_ms = earlier(due_ms, compaction_due_ms(&c->compaction));
	return due_ms > now_ms ? (due_ms - now_ms) * NS_PER_MS : 1;
}

static void spool_writer_tear_down(struct agent *self)
{
	struct spool_writer *w = writer_of(self);
	struct spool_commit *c = w->commit;

	store_drop_recovered(c->store, &w->pools);
	commit_close(&c->commit);
	upkeep_close(&c->upkeep);
	compaction_close(&c->compaction);
	load_close(&c->loader);
	free(c);
	w->commit = NULL;
	mail_pools_close(&w->pools);
}

static int spool_writer_do_work(struct agent *self);

static const struct agent_ops spool_writer_ops = {
	.kind = "spool",
	.start = spool_writer_start,
	.do_work = spool_writer_do_work,
	.stop = spool_writer_stop,
	.drained = spool_writer_drained,
	.sleep_max_ns = spool_writer_sleep_max_ns,
	.tear_down = spool_writer_tear_down,
};

void spool_writer_init(struct spool_writer *w, const char *name, struct spool *spool,
		       uint32_t index, spool_recovered_fn on_recovered, void *context)
{
	memset(w, 0, sizeof(*w));
	agent_init(&w->base, &spool_writer_ops, name, STOP_PHASE);
	w->spool = spool;
	w->index = index;
	w->on_recovered = on_recovered;
	w->context = context;
	mail_pools_init(&w->pools);
	spool_set_writer(spool, index, &w->base);
	store_stats_create(spool_store(spool, index), w->base.counters);
}

/*
 * The requests that came in this cycle are in the store's queues by now; completions of the disk
 * ran before. Mail first: reads, commits, then what keeps the segments in order.
 */
static int spool_writer_do_work(struct agent *self)
{
	struct spool_writer *w = writer_of(self);
	struct spool_commit *c = w->commit;
	int work = 0;

	/* Whatever phase the stop is in: schedulers cannot drain while the disk takes nothing. */
	if (atomic_load_explicit(&self->runtime->hurry, memory_order_relaxed)) {
		commit_give_up(&c->commit, -EIO);
	}
	check_space(w);
	work += load_work(&c->loader);
	work += commit_work(&c->commit);
	work += hand_out_recovered(w);
	work += compaction_work(&c->compaction);
	work += upkeep_work(&c->upkeep);
	c->commit.want_sync = c->upkeep.want_sync || c->stopping;
	return work;
}
