/*
 * An operation under way is some events of this life: a write's data is taken from the program's
 * memory piece by piece, at moments and in an order of the disk's own; the last event is the
 * completion.
 */
#include <errno.h>
#include <string.h>

#include "core/runtime/check.h"
#include "tests/sim/disk_node.h"
#include "tests/sim/world.h"

#define PIECES_MAX 3U
/* Of reads: whose buffer is scribbled on before they are done, permille. */
#define SCRIBBLE 100

struct disk_flight {
	struct disk_flight *prev;
	struct disk_flight *next;
	struct disk *disk;
	struct disk_op op;
	disk_done_fn on_done;
	void *context;
	/* What a write will say. */
	int result;
	unsigned pieces;
	/* Where the pieces begin, and the end of the last. */
	uint32_t cut[PIECES_MAX + 1];
	struct disk_record *records[PIECES_MAX];
};

static uint64_t draw_latency(const struct disk_faults *f)
{
	if (disk_fault(f->stall)) {
		return f->stall_ns;
	}
	return world_between(f->latency_min_ns, f->latency_max_ns);
}

static void flight_free(struct disk_flight *f)
{
	struct disk *d = f->disk;
	struct disk_node *n = f->op.node;

	if (f->prev == NULL) {
		d->flights = f->next;
	} else {
		f->prev->next = f->next;
	}
	if (f->next != NULL) {
		f->next->prev = f->prev;
	}
	n->flights--;
	disk_node_update(d, n);
	world_free(f, sizeof(*f));
}

/* ---- writes ---- */

static void take_piece(void *object, uint64_t i)
{
	struct disk_flight *f = object;
	uint32_t from = f->cut[i];

	disk_file_write(f->disk, f->op.node, f->op.offset + from, f->op.data + from,
			f->cut[i + 1] - from, &f->records[i]);
}

/* A page is copied as a whole, so pieces meet where the file's pages do. */
static uint32_t draw_cut(const struct disk_op *op, uint32_t bytes)
{
	uint64_t at = op->offset + world_below((uint64_t)bytes + 1);

	at -= at % DISK_PAGE;
	return at > op->offset ? (uint32_t)(at - op->offset) : 0;
}

static void start_write(struct disk_flight *f, uint64_t latency_ns)
{
	uint32_t unit = f->op.direct ? DISK_SECTOR : 1;
	uint32_t bytes;

	if (f->op.direct && f->disk->direct == DISK_DIRECT_NOT_WRITTEN) {
		f->result = -EINVAL;
		return;
	}
	bytes = disk_file_draw_write(f->disk, f->op.node, f->op.offset, f->op.len, unit,
				     &f->result);

	f->pieces = (unsigned)world_between(1, PIECES_MAX);
	for (unsigned i = 1; i < f->pieces; i++) {
		uint32_t cut = draw_cut(&f->op, bytes);

		f->cut[i] = cut > f->cut[i - 1] ? cut : f->cut[i - 1];
	}
	f->cut[f->pieces] = bytes;
	for (unsigned i = 0; i < f->pieces; i++) {
		if (f->cut[i + 1] > f->cut[i]) {
			world_at_life(world_between(0, latency_ns), take_piece, f, i);
		}
	}
}

/* ---- completion ---- */

static int finish_read(struct disk_flight *f)
{
	if (disk_fault(f->disk->faults.read_error)) {
		return -EIO;
	}
	return disk_file_read(f->op.node, f->op.offset, f->op.data, f->op.len);
}

/* All that was written is durable; unless it fails, then any of it. */
static int finish_synced(struct disk_flight *f)
{
	enum disk_lot lot = DISK_LOT_ALL;
	int result = f->result;

	if (result > 0 && disk_fault(f->disk->faults.sync_error)) {
		result = disk_draw_error();
	}
	if (result < 0) {
		lot = disk_draw_lot();
	}
	disk_file_settle_write(f->op.node, f->records, f->pieces, lot);
	return result;
}

static int finish_flight(struct disk_flight *f)
{
	switch (f->op.verb) {
	case DISK_READ:
		return finish_read(f);
	case DISK_WRITE:
		if (f->op.synced) {
			f->result = finish_synced(f);
		}
		disk_file_complete(f->op.node, f->records, f->pieces);
		return f->result;
	case DISK_SYNC:
		return disk_node_sync(f->disk, f->op.node, f->op.covers);
	}
	ASSERT(false);
}

static void finish(void *object, uint64_t unused)
{
	static const char *const names[] = {"disk read", "disk write", "disk sync"};
	struct disk_flight *f = object;
	disk_done_fn on_done = f->on_done;
	void *context = f->context;
	int result = finish_flight(f);

	(void)unused;
	world_trace(names[f->op.verb], f->op.node->number, (uint64_t)(int64_t)result);
	flight_free(f);
	on_done(context, result);
}

/* ---- start ---- */

/* The buffer is the disk's until the read is done. */
static void scribble(const struct disk_op *op)
{
	uint64_t size = op->node->size;

	if (op->offset < size && world_chance(SCRIBBLE)) {
		uint64_t rest = size - op->offset;

		memset(op->data, 0x5a, op->len < rest ? op->len : rest);
	}
}

void disk_start(struct disk *d, const struct disk_op *op, disk_done_fn on_done, void *context)
{
	struct disk_flight *f = world_alloc(sizeof(*f));
	uint64_t latency_ns = draw_latency(&d->faults);

	ASSERT(op->verb == DISK_SYNC || !op->node->directory);
	f->disk = d;
	f->op = *op;
	f->op.covers = op->node->clock;
	f->on_done = on_done;
	f->context = context;
	f->next = d->flights;
	if (f->next != NULL) {
		f->next->prev = f;
	}
	d->flights = f;
	op->node->flights++;
	if (op->verb == DISK_WRITE) {
		start_write(f, latency_ns);
	} else if (op->verb == DISK_READ) {
		scribble(op);
	}
	/* After the pieces, which may fall on the same moment. */
	world_at_life(latency_ns, finish, f, 0);
}

/* ---- the end of a life ---- */

void disk_flights_drop(struct disk *d)
{
	while (d->flights != NULL) {
		struct disk_flight *f = d->flights;
		struct disk_node *n = f->op.node;

		if (f->op.verb == DISK_WRITE) {
			disk_file_complete(n, f->records, f->pieces);
		} else if (f->op.verb == DISK_SYNC && world_chance(500)) {
			if (n->directory) {
				disk_dir_settle(d, n, f->op.covers, DISK_LOT_ALL);
			} else {
				disk_file_settle(n, f->op.covers, DISK_LOT_ALL);
			}
		}
		world_forget(f);
		flight_free(f);
	}
}
