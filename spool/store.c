#include "spool/store.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "core/runtime/check.h"
#include "spool/account.h"

/* Chunks of indexes kept for reuse, 64 KiB each. */
#define CHUNKS_KEEP 64
/* Share of a segment that is kept for STATE and DONE, and its bounds. */
#define RESERVE_SHARE 64
#define RESERVE_MIN (16U * 1024)

void queue_init(struct request_queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
	q->count = 0;
}

void queue_push(struct request_queue *q, struct spool_request *r)
{
	r->next = NULL;
	*q->tail = r;
	q->tail = &r->next;
	q->count++;
}

struct spool_request *queue_pop(struct request_queue *q)
{
	struct spool_request *r = q->head;

	if (r != NULL) {
		q->head = r->next;
		q->count--;
		if (q->head == NULL) {
			q->tail = &q->head;
		}
	}
	return r;
}

void queue_prepend(struct request_queue *q, struct request_queue *front)
{
	if (front->head == NULL) {
		return;
	}
	*front->tail = q->head;
	if (q->head == NULL) {
		q->tail = front->tail;
	}
	q->head = front->head;
	q->count += front->count;
	queue_init(front);
}

static void stats_init(struct store_stats *t)
{
	struct counter **each[] = {
		&t->commits,         &t->syncs,
		&t->records,         &t->bytes,
		&t->batch_max,       &t->write_errors,
		&t->sync_errors,     &t->store_refused,
		&t->given_up,        &t->segments_sealed,
		&t->segments_spare,  &t->segments_made,
		&t->segments_reused, &t->segments_abandoned,
		&t->live_messages,   &t->live_bytes,
		&t->compactions,     &t->compacted,
		&t->loads,           &t->load_errors,
		&t->damaged,
	};

	for (size_t i = 0; i < sizeof(each) / sizeof(each[0]); i++) {
		*each[i] = &t->unseen;
	}
}

void store_init(struct segment_store *s, const struct spool_options *options, uint32_t writer,
		int dir_fd, _Atomic uint64_t *full_bits)
{
	memset(s, 0, sizeof(*s));
	s->magic = STORE_MAGIC;
	s->writer = writer;
	s->next_id = writer;
	s->id_step = options->writers;
	s->dir_fd = dir_fd;
	s->options = options;
	s->full_bits = full_bits;
	s->next_sequence = 1;
	s->changes = 1;
	index_init(&s->index);
	pool_init(&s->chunks, "spool index chunk", sizeof(struct index_chunk), CHUNKS_KEEP);
	queue_init(&s->queue);
	queue_init(&s->loads);
	stats_init(&s->stats);
}

static void tomb_free(struct spool_tomb *t)
{
	if (t->prev != NULL) {
		t->prev->next = t->next;
	} else {
		t->store->tombs = t->next;
	}
	if (t->next != NULL) {
		t->next->prev = t->prev;
	}
	free(t);
}

void store_close(struct segment_store *s)
{
	CHECK_MAGIC(s, STORE_MAGIC);
	for (uint32_t i = 0; i < s->slot_count; i++) {
		if (s->segments[i] != NULL) {
			segment_free(s->segments[i], &s->chunks);
		}
	}
	while (s->tombs != NULL) {
		tomb_free(s->tombs);
	}
	free(s->segments);
	span_drop(&s->recovered.heads);
	span_drop(&s->recovered.states);
	free(s->recovered.messages);
	index_close(&s->index);
	pool_close(&s->chunks);
	s->magic = 0;
}

static void stats_sync(struct segment_store *s)
{
	counter_set_value(s->stats.segments_spare, s->spare_count);
	counter_set_value(s->stats.live_messages, s->index.count);
}

void store_stats_create(struct segment_store *s, struct counter_set *set)
{
	struct store_stats *t = &s->stats;

	t->commits = counter_create(set, "commits", COUNTER_SUM, "Batches committed");
	t->syncs = counter_create(set, "syncs", COUNTER_SUM, "Segment syncs for commits");
	t->records = counter_create(set, "records", COUNTER_SUM, "Records committed");
	t->bytes = counter_create(set, "bytes", COUNTER_SUM, "Bytes of records committed");
	t->batch_max = counter_create(set, "batch_max", COUNTER_MAX, "Most records in one batch");
	t->write_errors =
		counter_create(set, "write_errors", COUNTER_SUM, "Failed writes to a segment");
	t->sync_errors =
		counter_create(set, "sync_errors", COUNTER_SUM, "Failed syncs of a segment");
	t->store_refused = counter_create(set, "store_refused", COUNTER_SUM,
					  "Messages that could not be stored");
	t->given_up = counter_create(set, "given_up", COUNTER_SUM,
				     "Changes that a stop did not wait for the disk to take");
	t->segments_sealed =
		counter_create(set, "segments_sealed", COUNTER_GAUGE, "Sealed segments");
	t->segments_spare =
		counter_create(set, "segments_spare", COUNTER_GAUGE, "Segments ready to be used");
	t->segments_made = counter_create(set, "segments_made", COUNTER_SUM, "Segment files made");
	t->segments_reused =
		counter_create(set, "segments_reused", COUNTER_SUM, "Segment files used again");
	t->segments_abandoned = counter_create(set, "segments_abandoned", COUNTER_SUM,
					       "Segments given up after an error");
	t->live_messages = counter_create(set, "live_messages", COUNTER_GAUGE,
					  "Messages with a delivery not over");
	t->live_bytes =
		counter_create(set, "live_bytes", COUNTER_GAUGE, "Bytes of records still needed");
	t->recovery_left = counter_create(set, "recovery_left", COUNTER_GAUGE,
					  "Messages found at the start and not yet queued");
	t->compactions = counter_create(set, "compactions", COUNTER_SUM, "Segments compacted");
	t->compacted =
		counter_create(set, "compacted", COUNTER_SUM, "Records copied by compaction");
	t->loads = counter_create(set, "loads", COUNTER_SUM, "Messages read back");
	t->load_errors = counter_create(set, "load_errors", COUNTER_SUM,
					"Bodies that could not be read back");
	t->damaged = counter_create(set, "damaged", COUNTER_SUM, "Damaged records found");
	for (uint32_t i = 0; i < s->slot_count; i++) {
		if (s->segments[i] != NULL) {
			counter_add(t->live_bytes, s->segments[i]->live_bytes);
			counter_add(t->segments_sealed,
				    s->segments[i]->state == SEGMENT_SEALED ? 1 : 0);
		}
	}
	stats_sync(s);
	store_count_recovered(s);
}

void store_add_segment(struct segment_store *s, struct segment *g)
{
	uint32_t slot = 0;

	while (slot < s->slot_count && s->segments[slot] != NULL) {
		slot++;
	}
	if (slot == s->slot_count) {
		uint32_t slots = s->slot_count == 0 ? 16 : s->slot_count * 2;
		struct segment **grown = check_memory(
			realloc(s->segments, slots * sizeof(struct segment *)), "the spool");

		memset(grown + s->slot_count, 0,
		       (slots - s->slot_count) * sizeof(struct segment *));
		s->segments = grown;
		s->slot_count = slots;
	}
	s->segments[slot] = g;
	s->segment_count++;
	g->slot = slot;
}

void store_forget(struct segment_store *s, struct segment *g)
{
	for (uint32_t i = 0; i < s->slot_count; i++) {
		if (s->segments[i] != NULL) {
			segment_set_remove(&s->segments[i]->holds, g->slot);
			segment_set_remove(&s->segments[i]->copies, g->slot);
		}
	}
	segment_set_clear(&g->holds);
	segment_set_clear(&g->copies);
	s->changes++;
}

void store_drop_segment(struct segment_store *s, struct segment *g)
{
	ASSERT(s->segments[g->slot] == g && segment_dead(g) && g->pins == 0);
	s->segments[g->slot] = NULL;
	s->segment_count--;
	segment_free(g, &s->chunks);
}

void store_add_spare(struct segment_store *s, struct segment *g)
{
	ASSERT(segment_dead(g) && g->holds.count == 0 && g->copies.count == 0);
	segment_index_drop(g, &s->chunks);
	g->state = SEGMENT_SPARE;
	g->end = SEGMENT_BLOCK;
	g->fresh = true;
	g->stuck = false;
	g->tombs_moved = false;
	g->placed = 0;
	g->index_count = 0;
	g->index_crc = 0;
	g->index_offset = 0;
	g->unsynced = false;
	segment_open_direct(g, s->dir_fd);
	g->next_spare = s->spares;
	s->spares = g;
	s->spare_count++;
	stats_sync(s);
}

static bool enough_space(const struct segment_store *s, uint64_t bytes)
{
	struct statvfs v;

	if (fstatvfs(s->dir_fd, &v) != 0) {
		return true;
	}
	return (uint64_t)v.f_bavail * v.f_frsize >= s->options->min_free_bytes + bytes;
}

int store_make_segment(struct segment_store *s, uint64_t size, bool urgent, struct segment **out)
{
	struct segment *g;
	int rc;

	if (!urgent && !enough_space(s, size)) {
		return -ENOSPC;
	}
	g = segment_new(s->next_id, size);
	rc = segment_create_file(g, s->dir_fd, s->writer);
	if (rc == -EEXIST) {
		/* A file that was not a segment of ours when the spool was opened: left alone. */
		s->next_id += s->id_step;
	}
	if (rc != 0) {
		segment_free(g, &s->chunks);
		return rc;
	}
	s->next_id += s->id_step;
	segment_open_direct(g, s->dir_fd);
	store_add_segment(s, g);
	counter_inc(s->stats.segments_made);
	*out = g;
	return 0;
}

static struct segment *take_spare(struct segment_store *s, uint64_t size)
{
	for (struct segment **at = &s->spares; *at != NULL; at = &(*at)->next_spare) {
		struct segment *g = *at;

		if (g->size >= size) {
			*at = g->next_spare;
			s->spare_count--;
			stats_sync(s);
			return g;
		}
	}
	return NULL;
}

static void activate(struct segment_store *s, struct segment *g)
{
	if (s->active != NULL) {
		s->active->state = SEGMENT_FULL;
		s->changes++;
	}
	g->state = SEGMENT_ACTIVE;
	segment_renew(g);
	s->active = g;
	/* What failed to be written there is written here again; the older copies go first. */
	for (uint32_t i = 0; i < s->slot_count; i++) {
		if (s->segments[i] != NULL && s->segments[i]->state == SEGMENT_ABANDONED) {
			store_hold_copy(g, s->segments[i]);
		}
	}
}

int store_roll(struct segment_store *s, uint64_t bytes, bool urgent)
{
	uint64_t size = segment_size_for(bytes + store_reserve(s));
	struct segment *g = take_spare(s, size);
	uint64_t now_ms = agent_now_ms(s->agent);
	int rc;

	if (g != NULL) {
		if (g->generation > 0) {
			counter_inc(s->stats.segments_reused);
		}
	} else {
		if (s->roll_error != 0 && !urgent && now_ms < s->roll_retry_ms) {
			return s->roll_error;
		}
		if (size < s->options->segment_bytes) {
			size = s->options->segment_bytes;
		}
		rc = store_make_segment(s, segment_block_ceil(size), urgent, &g);
		if (rc != 0) {
			s->roll_error = rc;
			s->roll_retry_ms = now_ms + STORE_RETRY_MS;
			agent_error(s->agent, rc, "spool: a new segment cannot be made in %s",
				    s->options->path);
			store_update_full(s);
			return rc;
		}
	}
	s->roll_error = 0;
	activate(s, g);
	return 0;
}

void store_abandon(struct segment_store *s, struct segment *g)
{
	if (g->state == SEGMENT_ABANDONED) {
		return;
	}
	if (g->state == SEGMENT_SEALED) {
		counter_sub(s->stats.segments_sealed, 1);
	}
	g->state = SEGMENT_ABANDONED;
	if (s->active == g) {
		s->active = NULL;
	} else if (s->active != NULL) {
		store_hold_copy(s->active, g);
	}
	s->changes++;
	counter_inc(s->stats.segments_abandoned);
}

uint64_t store_reserve(const struct segment_store *s)
{
	uint64_t bytes = s->options->segment_bytes / RESERVE_SHARE;

	return bytes < RESERVE_MIN ? RESERVE_MIN : bytes;
}

void store_update_full(struct segment_store *s)
{
	uint64_t bit = UINT64_C(1) << s->writer;
	bool full = s->trouble || s->low_space || s->roll_error != 0;

	if (full) {
		atomic_fetch_or_explicit(s->full_bits, bit, memory_order_relaxed);
	} else {
		atomic_fetch_and_explicit(s->full_bits, ~bit, memory_order_relaxed);
	}
}

/* Can a segment be made, and written to? Its place is among the spares. */
static bool probe(struct segment_store *s)
{
	unsigned char block[SEGMENT_BLOCK];
	struct segment *g = s->spares;

	if (g == NULL) {
		int rc = store_make_segment(s, s->options->segment_bytes, false, &g);

		if (rc != 0) {
			return false;
		}
		store_add_spare(s, g);
		return true;
	}
	if (g->prepare_busy) {
		return false;
	}
	segment_encode_header(g, s->writer, SEGMENT_DISK_FREE, block);
	return segment_write(g, 0, block, sizeof(block)) == 0 && fdatasync(g->fd) == 0;
}

void store_check_space(struct segment_store *s)
{
	s->low_space = !enough_space(s, 0);
	if ((s->roll_error != 0 || (s->trouble && s->queue.count == 0)) && !s->low_space &&
	    probe(s)) {
		s->roll_error = 0;
		s->trouble = false;
	}
	store_update_full(s);
}

struct segment *store_segment(const struct segment_store *s, uint32_t id)
{
	for (uint32_t i = 0; i < s->slot_count; i++) {
		struct segment *g = s->segments[i];

		if (g != NULL && g->id == id && g->state != SEGMENT_SPARE) {
			return g;
		}
	}
	return NULL;
}

static void tomb_written(struct agent *self, void *object, uint64_t value)
{
	struct spool_tomb *t = CONTAINER_OF(object, struct spool_tomb, request);

	(void)self;
	(void)value;
	if (t->pin != NULL) {
		t->pin->pins--;
	}
	if (t->target != NULL) {
		t->target->pins--;
	}
	t->store->changes++;
	if (t->on_written != NULL) {
		t->on_written(t->owner);
	}
	tomb_free(t);
}

void store_tomb(struct segment_store *s, const struct spool_tomb *t)
{
	struct spool_tomb *copy = check_memory(malloc(sizeof(*copy)), "the spool");

	*copy = *t;
	copy->store = s;
	copy->prev = NULL;
	copy->next = s->tombs;
	if (s->tombs != NULL) {
		s->tombs->prev = copy;
	}
	s->tombs = copy;
	copy->request.verb = SPOOL_TOMB;
	copy->request.from = NULL;
	copy->request.on_done = tomb_written;
	if (copy->pin != NULL) {
		copy->pin->pins++;
	}
	if (copy->target != NULL) {
		copy->target->pins++;
	}
	queue_push(&s->queue, &copy->request);
}
