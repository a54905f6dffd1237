#include "spool/commit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "spool/apply.h"
#include "spool/stage.h"

static void on_complete(struct mux_op *op, int result);

void commit_init(struct committer *c, struct segment_store *store, struct agent *agent)
{
	memset(c, 0, sizeof(*c));
	c->store = store;
	c->agent = agent;
	for (unsigned i = 0; i < 2; i++) {
		c->batches[i].buffer =
			check_memory(aligned_alloc(SEGMENT_BLOCK, COMMIT_STAGING), "the spool");
		batch_reset(&c->batches[i]);
	}
	c->next = &c->batches[0];
	mux_op_init(&c->op, agent, on_complete);
}

void commit_close(struct committer *c)
{
	for (unsigned i = 0; i < 2; i++) {
		free(c->batches[i].buffer);
		c->batches[i].buffer = NULL;
	}
}

/* What need not be durable yet is not to wait for the disk: it goes through the page cache. */
static void write_more(struct committer *c)
{
	struct batch *b = c->current;
	struct segment *g = b->segment;
	const unsigned char *from = b->buffer + b->written;
	uint32_t len = b->padded - b->written;
	uint64_t offset = b->offset + b->written;

	if (b->durable) {
		mux_write_synced(c->agent->mux, &c->op, segment_block_fd(g), from, len, offset);
	} else {
		mux_write(c->agent->mux, &c->op, g->fd, from, len, offset);
	}
}

static void write_first(struct committer *c)
{
	struct batch *b = c->current;

	c->state = COMMIT_WRITING;
	b->durable = b->needs_sync && !b->encoding && !b->segment->unsynced;
	batch_pad(c, b);
	write_more(c);
}

static void begin_sync(struct committer *c)
{
	c->state = COMMIT_SYNCING;
	mux_fsync(c->agent->mux, &c->op, c->current->segment->fd);
}

static bool sync_wanted(const struct committer *c)
{
	return c->want_sync && c->store->active != NULL && c->store->active->unsynced;
}

/* Makes the staged batch the current one, or an empty one if only a sync is wanted. False when
 * there is nothing to do. */
static bool start(struct committer *c)
{
	bool empty = c->next->requests.count == 0;

	if (c->current != NULL || (empty && !sync_wanted(c))) {
		return false;
	}
	if (empty) {
		batch_begin(c, c->next);
	}
	c->current = c->next;
	c->next = c->next == &c->batches[0] ? &c->batches[1] : &c->batches[0];
	c->began_ns = c->agent->now.mono_ns;
	c->store->committing = true;
	if (empty) {
		begin_sync(c);
	} else {
		write_first(c);
	}
	return true;
}

static void count_batch(struct committer *c, const struct batch *b)
{
	struct store_stats *t = &c->store->stats;

	counter_inc(t->commits);
	counter_add(t->records, b->records);
	counter_add(t->bytes, b->bytes);
	counter_max(t->batch_max, b->records);
	histogram_record(&t->batch_records, b->records);
	histogram_record(&t->commit_ns, c->agent->now.mono_ns - c->began_ns);
}

/* Everything in the batch is as durable as it asked for: take note, in order, and answer. */
static void finish(struct committer *c)
{
	struct batch *b = c->current;
	struct spool_request *r;

	if (b->records > 0) {
		count_batch(c, b);
		c->failures = 0;
		c->store->trouble = false;
		store_update_full(c->store);
	}
	while ((r = queue_pop(&b->requests)) != NULL) {
		apply_record(c, r, b);
		stage_answer(c, r, 0);
	}
	b->segment->batches--;
	c->store->changes++;
	c->current = NULL;
	c->store->committing = false;
	c->state = COMMIT_IDLE;
	batch_reset(b);
}

/* What asked for no sync is answered before it. Tombstones and copies always ask for one, so the
 * order of the records of a message is kept: who skips the sync skips it for the whole message. */
static void finish_cached(struct committer *c)
{
	struct batch *b = c->current;
	struct request_queue rest;
	struct spool_request *r;

	queue_init(&rest);
	while ((r = queue_pop(&b->requests)) != NULL) {
		if (stage_needs_sync(r)) {
			queue_push(&rest, r);
			continue;
		}
		apply_record(c, r, b);
		stage_answer(c, r, 0);
		b->segment->unsynced = true;
	}
	b->requests = rest;
	if (rest.head == NULL) {
		queue_init(&b->requests);
	}
}

/* Gives back what was staged in the active segment and not committed. */
static void unstage(struct committer *c, struct batch *b, struct request_queue *all)
{
	struct request_queue mine = b->requests;
	struct segment *g = b->segment;

	if (b->requests.count > 0) {
		if (g->state != SEGMENT_ABANDONED) {
			g->end = b->start;
			memcpy(c->tail, b->lead, sizeof(c->tail));
			g->placed = g->index_count;
			g->fresh = b->has_header;
		}
		queue_prepend(all, &mine);
	}
	if (g != NULL) {
		g->batches--;
	}
	batch_reset(b);
}

static bool no_space(int error)
{
	return error == -ENOSPC || error == -EDQUOT;
}

/*
 * A write or a sync failed. All that is staged goes back to the head of the queue; the segment is
 * given up, unless the disk was full: then the same place is written again, and what is there now
 * is known for old by its sequence.
 */
static void fail(struct committer *c, int error, bool syncing)
{
	struct segment_store *s = c->store;
	struct segment *g = c->current->segment;
	struct request_queue all;
	struct request_queue keep;
	struct spool_request *r;
	bool space = no_space(error) && !syncing;

	counter_inc(syncing ? s->stats.sync_errors : s->stats.write_errors);
	agent_error(c->agent, error, "spool: %s of segment %08x failed", syncing ? "sync" : "write",
		    g->id);
	if (!space) {
		store_abandon(s, g);
	}
	queue_init(&all);
	queue_init(&keep);
	unstage(c, c->next, &all);
	unstage(c, c->current, &all);
	c->current = NULL;
	c->store->committing = false;
	c->state = COMMIT_IDLE;
	c->failures++;
	if (!space && c->failures == 1) {
		queue_prepend(&s->queue, &all);
		return;
	}
	while ((r = queue_pop(&all)) != NULL) {
		if (stage_refusable(r)) {
			stage_refuse(c, r, error);
		} else {
			queue_push(&keep, r);
		}
	}
	queue_prepend(&s->queue, &keep);
	if (space) {
		s->roll_error = error;
		s->roll_retry_ms = agent_now_ms(c->agent) + STORE_RETRY_MS;
	} else {
		s->trouble = true;
	}
	store_update_full(s);
	if (c->failures > 1) {
		stage_retry_later(c, error);
	}
}

/*
 * A durable write that fails is a failed sync: nobody knows what of it is on the disk. That a disk
 * is full a direct one says of itself; behind a buffered one it may be other pages that are lost.
 */
static bool fails_as_sync(const struct committer *c, int error)
{
	const struct batch *b = c->current;

	return b->durable && !(no_space(error) && c->op.fd == b->segment->direct_fd);
}

static void on_written(struct committer *c, int result)
{
	struct batch *b = c->current;

	if (result == -EINTR || result == -EAGAIN ||
	    segment_direct_refused(b->segment, c->op.fd, result)) {
		write_more(c);
		return;
	}
	if (result <= 0) {
		result = result == 0 ? -EIO : result;
		fail(c, result, fails_as_sync(c, result));
		return;
	}
	if (b->segment->sync_failed) {
		fail(c, -EIO, true);
		return;
	}
	/* What was written of a block is written again with the rest of it. */
	b->written += (uint32_t)segment_block_floor((uint32_t)result);
	if (b->written == b->padded && b->encoding) {
		b->offset += b->padded;
		b->filled = 0;
		b->written = 0;
		batch_fill(b);
		batch_pad(c, b);
	}
	if (b->written < b->padded) {
		write_more(c);
		return;
	}
	if (b->durable) {
		counter_inc(c->store->stats.syncs);
		finish(c);
		return;
	}
	finish_cached(c);
	if (b->needs_sync) {
		begin_sync(c);
	} else {
		finish(c);
	}
}

static void on_synced(struct committer *c, int result)
{
	struct segment *g = c->current->segment;

	if (result == -EINTR) {
		begin_sync(c);
		return;
	}
	/* The kernel reports an error once: to whoever synced the segment first. */
	if (result < 0 || g->sync_failed) {
		fail(c, result < 0 ? result : -EIO, true);
		return;
	}
	counter_inc(c->store->stats.syncs);
	g->unsynced = false;
	finish(c);
}

static void on_complete(struct mux_op *op, int result)
{
	struct committer *c = CONTAINER_OF(op, struct committer, op);

	if (c->state == COMMIT_WRITING) {
		on_written(c, result);
	} else {
		ASSERT(c->state == COMMIT_SYNCING);
		on_synced(c, result);
	}
	if (c->current == NULL) {
		commit_work(c);
	}
}

bool commit_idle(const struct committer *c)
{
	return c->current == NULL && c->next->requests.count == 0 && c->store->queue.count == 0 &&
	       !sync_wanted(c);
}

void commit_give_up(struct committer *c, int error)
{
	struct segment_store *s = c->store;
	struct spool_request *r;
	uint32_t count = 0;

	/* Only what the disk did not take, and not because it is slow. */
	if (c->retry_ms == 0 || c->current != NULL || c->next->requests.count > 0) {
		return;
	}
	while ((r = queue_pop(&s->queue)) != NULL) {
		s->gave_up = true;
		count += !stage_refusable(r);
		stage_answer(c, r, error);
	}
	if (count > 0) {
		counter_add(s->stats.given_up, count);
		agent_error(c->agent, error,
			    "spool: the disk does not take %u changes, and the program stops: "
			    "mail that was delivered or refused may be sent after the next start",
			    count);
	}
}

/* A sync of the active segment failed that was not a commit's. */
static void leave_failed(struct committer *c)
{
	struct segment *g = c->store->active;
	struct request_queue all;

	if (c->current != NULL || g == NULL || !g->sync_failed) {
		return;
	}
	queue_init(&all);
	unstage(c, c->next, &all);
	queue_prepend(&c->store->queue, &all);
	store_abandon(c->store, g);
}

int commit_work(struct committer *c)
{
	int work;

	leave_failed(c);
	if (c->retry_ms != 0 && agent_now_ms(c->agent) < c->retry_ms) {
		return 0;
	}
	c->retry_ms = 0;
	work = stage_work(c);
	if (start(c)) {
		work += 1 + stage_work(c);
	}
	return work;
}
