#include "spool/upkeep.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"

/* One step of preparing, and how many of them to a sync: what is dirty at a time is bounded, so
 * that a commit's sync has not much of it to wait for. */
#define SLICE_BYTES (1024U * 1024)
#define SLICES_PER_SYNC 4
/* So much of the active segment is prepared ahead even while batches are under way. */
#define PREPARE_AHEAD_BYTES (16U * 1024 * 1024)
/* The next segment is made when the active one is filled to this share, percent, and prepared at
 * least as fast as what remains is filled. */
#define PREPARE_AHEAD_PERCENT 25

static void on_prepare(struct mux_op *op, int result);
static void on_seal(struct mux_op *op, int result);
static void on_retire(struct mux_op *op, int result);

static unsigned char *block_new(size_t bytes)
{
	unsigned char *block = check_memory(aligned_alloc(SEGMENT_BLOCK, bytes), "the spool");

	memset(block, 0, bytes);
	return block;
}

void upkeep_init(struct upkeep *u, struct segment_store *store, struct agent *agent)
{
	memset(u, 0, sizeof(*u));
	u->store = store;
	u->agent = agent;
	u->zeros = block_new(SLICE_BYTES);
	u->seal_block = block_new(SEGMENT_BLOCK);
	u->retire_block = block_new(SEGMENT_BLOCK);
	mux_op_init(&u->prepare.op, agent, on_prepare);
	mux_op_init(&u->seal.op, agent, on_seal);
	mux_op_init(&u->retire.op, agent, on_retire);
}

void upkeep_close(struct upkeep *u)
{
	free(u->zeros);
	free(u->seal_block);
	free(u->retire_block);
}

static void write_start(struct upkeep *u, struct upkeep_write *w, const void *data, uint32_t len,
			uint64_t offset)
{
	w->data = data;
	w->len = len;
	w->offset = offset;
	mux_write(u->agent->mux, &w->op, w->segment->fd, data, len, offset);
}

/* After a completion: 1 when all is written, 0 when the rest is under way, or a negative errno. */
static int write_step(struct upkeep *u, struct upkeep_write *w, int result)
{
	if (result == -EINTR || result == -EAGAIN) {
		result = 0;
	} else if (result <= 0) {
		return result == 0 ? -EIO : result;
	}
	if ((uint32_t)result == w->len) {
		return 1;
	}
	write_start(u, w, w->data + result, w->len - (uint32_t)result,
		    w->offset + (uint32_t)result);
	return 0;
}

static void sync_start(struct upkeep *u, struct upkeep_write *w)
{
	mux_fsync(u->agent->mux, &w->op, w->segment->fd);
}

static void report(struct upkeep *u, const struct segment *g, int error, const char *what)
{
	agent_error(u->agent, error, "spool: %s segment %08x failed", what, g->id);
}

/* ---- preparing ---- */

/* Written directly if possible: what a buffered write leaves in the page cache would be in the way
 * of each direct write over it. */
static void prepare_slice(struct upkeep *u, struct segment *g)
{
	uint64_t len = g->size - g->prepared;

	if (len > SLICE_BYTES) {
		len = SLICE_BYTES;
	}
	u->prepare.segment = g;
	u->prepare_step = UPKEEP_INDEX;
	g->prepare_busy = true;
	mux_write(u->agent->mux, &u->prepare.op, segment_block_fd(g), u->zeros, (uint32_t)len,
		  g->prepared);
}

static void prepare_end(struct upkeep *u)
{
	u->prepare.segment = NULL;
	u->prepare_step = UPKEEP_IDLE;
	u->store->changes++;
}

/* It is no use: the segment will do as it is. An error that matters comes again with a commit. */
static void prepare_give_up(struct upkeep *u, struct segment *g, int error)
{
	report(u, g, error, "preparing");
	g->prepared = g->size;
	prepare_end(u);
}

static void on_prepare(struct mux_op *op, int result)
{
	struct upkeep *u = CONTAINER_OF(op, struct upkeep, prepare.op);
	struct segment *g = u->prepare.segment;

	if (u->prepare_step == UPKEEP_SYNC) {
		if (result < 0 && result != -EINTR) {
			counter_inc(u->store->stats.sync_errors);
			g->sync_failed = true;
			report(u, g, result, "syncing");
		}
		prepare_end(u);
		return;
	}
	g->prepare_busy = false;
	if (segment_direct_refused(g, op->fd, result)) {
		prepare_end(u);
		return;
	}
	if (result <= 0 && result != -EINTR && result != -EAGAIN) {
		counter_inc(u->store->stats.write_errors);
		prepare_give_up(u, g, result);
		return;
	}
	g->prepared += result > 0 ? segment_block_floor((uint32_t)result) : 0;
	u->slices++;
	if (u->slices % SLICES_PER_SYNC == 0 || g->prepared == g->size) {
		u->prepare_step = UPKEEP_SYNC;
		sync_start(u, &u->prepare);
		return;
	}
	prepare_end(u);
}

static bool wants_preparing(const struct segment *g)
{
	return g->prepared < g->size && !g->prepare_busy && !g->sync_failed;
}

/* Does it have to be done now, beside the mail, to be ready in time? */
static bool pressing(const struct segment *active, const struct segment *g)
{
	uint64_t ahead = active->size / 100 * PREPARE_AHEAD_PERCENT;

	if (g == active) {
		return g->prepared < g->end + PREPARE_AHEAD_BYTES;
	}
	return active->end > ahead &&
	       (double)g->prepared / (double)g->size <
		       (double)(active->end - ahead) / (double)(active->size - ahead);
}

/* The active segment first, then one that will follow it; made if there is none. */
static struct segment *prepare_choose(struct upkeep *u)
{
	struct segment_store *s = u->store;
	struct segment *g = s->active;

	if (g == NULL) {
		return NULL;
	}
	if (wants_preparing(g)) {
		return g;
	}
	for (struct segment *spare = s->spares; spare != NULL; spare = spare->next_spare) {
		if (wants_preparing(spare)) {
			return spare;
		}
	}
	if (s->spares != NULL || s->low_space || agent_now_ms(u->agent) < u->prepare_retry_ms ||
	    g->end * 100 < g->size * PREPARE_AHEAD_PERCENT) {
		return NULL;
	}
	if (store_make_segment(s, s->options->segment_bytes, false, &g) != 0) {
		/* Not an error yet: it is when the segment is needed. */
		u->prepare_retry_ms = agent_now_ms(u->agent) + STORE_RETRY_MS;
		return NULL;
	}
	store_add_spare(s, g);
	return g;
}

static int prepare_work(struct upkeep *u)
{
	struct segment *g;

	if (u->prepare_step != UPKEEP_IDLE || u->stopping) {
		return 0;
	}
	g = prepare_choose(u);
	if (g == NULL || (u->store->committing && !pressing(u->store->active, g))) {
		return 0;
	}
	prepare_slice(u, g);
	return 1;
}

/* ---- sealing ---- */

static void seal_next(struct upkeep *u)
{
	struct index_chunk *chunk = u->seal_chunk;
	struct segment *g = u->seal.segment;
	uint64_t offset = u->seal.offset + u->seal.len;

	if (chunk != NULL) {
		u->seal_chunk = chunk->next;
		write_start(u, &u->seal, chunk->records,
			    chunk->count * (uint32_t)sizeof(chunk->records[0]), offset);
		return;
	}
	u->seal_step = UPKEEP_HEADER;
	segment_encode_header(g, u->store->writer, SEGMENT_DISK_SEALED, u->seal_block);
	write_start(u, &u->seal, u->seal_block, SEGMENT_BLOCK, 0);
}

static void seal_start(struct upkeep *u, struct segment *g)
{
	g->index_offset = g->end;
	u->seal.segment = g;
	u->seal_step = UPKEEP_INDEX;
	u->seal_chunk = g->chunks;
	segment_index_head(g, u->store->next_sequence++, u->seal_head);
	write_start(u, &u->seal, u->seal_head, sizeof(u->seal_head), g->index_offset);
}

static void seal_end(struct upkeep *u, int error)
{
	struct segment *g = u->seal.segment;

	u->seal.segment = NULL;
	u->seal_step = UPKEEP_IDLE;
	u->store->changes++;
	if (error != 0) {
		report(u, g, error, "sealing");
		store_abandon(u->store, g);
		return;
	}
	g->state = SEGMENT_SEALED;
	g->unsynced = false;
	if (g->prepared < g->index_offset + segment_index_bytes(g->index_count)) {
		g->prepared =
			segment_block_ceil(g->index_offset + segment_index_bytes(g->index_count));
	}
	segment_index_drop(g, &u->store->chunks);
	segment_close_direct(g);
	counter_add(u->store->stats.segments_sealed, 1);
}

static void on_seal(struct mux_op *op, int result)
{
	struct upkeep *u = CONTAINER_OF(op, struct upkeep, seal.op);
	int rc;

	if (u->seal_step == UPKEEP_SYNC) {
		if (result < 0) {
			counter_inc(u->store->stats.sync_errors);
		} else if (u->seal.segment->sync_failed) {
			result = -EIO;
		}
		seal_end(u, result < 0 ? result : 0);
		return;
	}
	rc = write_step(u, &u->seal, result);
	if (rc < 0) {
		counter_inc(u->store->stats.write_errors);
		seal_end(u, rc);
	} else if (rc > 0 && u->seal_step == UPKEEP_INDEX) {
		seal_next(u);
	} else if (rc > 0) {
		u->seal_step = UPKEEP_SYNC;
		sync_start(u, &u->seal);
	}
}

static bool can_seal(const struct segment *g)
{
	return g->state == SEGMENT_FULL && g->batches == 0 && !g->prepare_busy;
}

/* ---- making free ---- */

/* Gone for good, on the disk too: what was held back by it may follow. */
static void retire_end(struct upkeep *u, struct segment *g, bool spare)
{
	u->retire.segment = NULL;
	u->retire_step = UPKEEP_IDLE;
	store_forget(u->store, g);
	if (spare) {
		store_add_spare(u->store, g);
	} else {
		store_drop_segment(u->store, g);
	}
}

static void retire_unlink(struct upkeep *u, struct segment *g)
{
	int rc = segment_unlink(g, u->store->dir_fd);

	if (rc == 0) {
		retire_end(u, g, false);
		return;
	}
	report(u, g, rc, "unlinking");
	g->state = SEGMENT_ABANDONED;
	u->retire.segment = NULL;
	u->retire_step = UPKEEP_IDLE;
	u->retry_ms = agent_now_ms(u->agent) + STORE_RETRY_MS;
}

static void on_retire(struct mux_op *op, int result)
{
	struct upkeep *u = CONTAINER_OF(op, struct upkeep, retire.op);
	struct segment *g = u->retire.segment;
	int rc = result;

	if (u->retire_step == UPKEEP_HEADER) {
		rc = write_step(u, &u->retire, result);
		if (rc == 0) {
			return;
		}
		if (rc > 0) {
			u->retire_step = UPKEEP_SYNC;
			sync_start(u, &u->retire);
			return;
		}
	}
	if (rc < 0 || g->sync_failed) {
		report(u, g, rc, "making free");
		retire_unlink(u, g);
		return;
	}
	retire_end(u, g, true);
}

static bool unneeded(const struct upkeep *u, const struct segment *g)
{
	bool idle = g->batches == 0 && g->pins == 0 && !g->prepare_busy &&
		    u->prepare.segment != g && u->seal.segment != g;
	bool outlived = g->copies.count == 0 && (g->holds.count == 0 || g->tombs_moved);

	/* What may come back holds the tombstones of its messages until the next start. */
	if (!idle || !segment_dead(g) || g->unlinked) {
		return false;
	}
	switch (g->state) {
	case SEGMENT_FULL:
		return outlived && !g->unsynced;
	case SEGMENT_SEALED:
		return outlived;
	case SEGMENT_ABANDONED:
		return outlived || g->index_count == 0;
	case SEGMENT_SPARE:
	case SEGMENT_ACTIVE:
	case SEGMENT_RETIRING:
		break;
	}
	return false;
}

static void retire_start(struct upkeep *u, struct segment *g)
{
	struct segment_store *s = u->store;
	bool keep = g->state != SEGMENT_ABANDONED && !g->sync_failed &&
		    g->size == s->options->segment_bytes &&
		    s->spare_count < s->options->spare_segments;

	if (g->state == SEGMENT_SEALED) {
		counter_sub(s->stats.segments_sealed, 1);
	}
	g->state = SEGMENT_RETIRING;
	u->retire.segment = g;
	if (!keep) {
		retire_unlink(u, g);
		return;
	}
	u->retire_step = UPKEEP_HEADER;
	segment_encode_header(g, s->writer, SEGMENT_DISK_FREE, u->retire_block);
	write_start(u, &u->retire, u->retire_block, SEGMENT_BLOCK, 0);
}

/* A spare whose sync failed is worth nothing. */
static int drop_bad_spare(struct upkeep *u)
{
	struct segment_store *s = u->store;

	for (struct segment **at = &s->spares; *at != NULL; at = &(*at)->next_spare) {
		struct segment *g = *at;

		if (g->sync_failed && !g->prepare_busy) {
			*at = g->next_spare;
			s->spare_count--;
			store_abandon(s, g);
			return 1;
		}
	}
	return 0;
}

bool upkeep_idle(const struct upkeep *u)
{
	const struct segment_store *s = u->store;

	for (uint32_t i = 0; u->stopping && i < s->slot_count; i++) {
		const struct segment *g = s->segments[i];

		if (g != NULL &&
		    (g->state == SEGMENT_FULL || (g->state == SEGMENT_ACTIVE && !g->fresh))) {
			return false;
		}
	}
	return u->prepare_step == UPKEEP_IDLE && u->seal_step == UPKEEP_IDLE &&
	       u->retire_step == UPKEEP_IDLE;
}

void upkeep_stop(struct upkeep *u)
{
	u->stopping = true;
	u->store->changes++;
}

/* The last act: nothing is written any more, and the next start reads an index, not the records. */
static void retire_active(struct upkeep *u)
{
	struct segment_store *s = u->store;
	struct segment *g = s->active;

	if (u->stopping && g != NULL && !g->fresh && g->batches == 0 && s->queue.count == 0) {
		g->state = SEGMENT_FULL;
		s->active = NULL;
		s->changes++;
	}
}

/* A message may be over only because of a record that a power cut would still undo. */
static bool any_unsynced(const struct segment_store *s)
{
	for (uint32_t i = 0; i < s->slot_count; i++) {
		const struct segment *g = s->segments[i];

		if (g != NULL && g->unsynced && g->state != SEGMENT_ABANDONED) {
			return true;
		}
	}
	return false;
}

/* Looks at every segment: at most one is sealed and one made free at a time. */
static int look(struct upkeep *u)
{
	struct segment_store *s = u->store;
	bool unsynced = any_unsynced(s);
	bool later = agent_now_ms(u->agent) < u->retry_ms;
	int work = drop_bad_spare(u);

	u->want_sync = false;
	for (uint32_t i = 0; i < s->slot_count; i++) {
		struct segment *g = s->segments[i];

		if (g == NULL) {
			continue;
		}
		/* What was given up is over in memory only: then nothing is unneeded. */
		if (!s->gave_up && unneeded(u, g)) {
			u->want_sync |= unsynced;
			if (!unsynced && !later && u->retire_step == UPKEEP_IDLE) {
				retire_start(u, g);
				later = true;
				work++;
			}
		} else if (can_seal(g) && u->seal_step == UPKEEP_IDLE) {
			seal_start(u, g);
			work++;
		}
	}
	return work;
}

int upkeep_work(struct upkeep *u)
{
	int work = prepare_work(u);

	retire_active(u);
	if (u->seen_changes != u->store->changes || u->retry_ms != 0) {
		u->seen_changes = u->store->changes;
		work += look(u);
		if (agent_now_ms(u->agent) >= u->retry_ms) {
			u->retry_ms = 0;
		}
	}
	return work;
}
