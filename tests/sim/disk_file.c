/*
 * A file has its cache, its durable content, and between them a list of records: changes in the
 * order in which they reached the cache. Settling decides for some of them, by lot or by a sync,
 * whether they become durable, and forgets them.
 *
 * A sector is written to the disk as it is in the cache at some moment. So a record becomes durable
 * for a sector only together with all earlier ones that touch the same sector.
 */
#include <errno.h>
#include <string.h>

#include "core/runtime/check.h"
#include "tests/sim/disk_node.h"
#include "tests/sim/world.h"

/* ---- records ---- */

static struct disk_record *record_add(struct disk_node *n, uint64_t stored)
{
	struct disk_record *r = world_alloc(sizeof(*r) + stored);

	r->stored = stored;
	r->prev = n->last;
	if (n->last == NULL) {
		n->first = r;
	} else {
		n->last->next = r;
	}
	n->last = r;
	return r;
}

static void record_drop(struct disk_node *n, struct disk_record *r)
{
	if (r->owner != NULL) {
		*r->owner = NULL;
	}
	if (r->prev == NULL) {
		n->first = r->next;
	} else {
		r->prev->next = r->next;
	}
	if (r->next == NULL) {
		n->last = r->prev;
	} else {
		r->next->prev = r->prev;
	}
	world_free(r, sizeof(*r) + r->stored);
}

/* The part of `r` from the offset `from` on as a record of its own, behind it. */
static void record_add_behind(struct disk_node *n, struct disk_record *r, uint64_t from)
{
	uint64_t len = r->offset + r->len - from;
	uint64_t stored = r->stored != 0 ? len : 0;
	struct disk_record *rest = world_alloc(sizeof(*rest) + stored);

	*rest = *r;
	rest->offset = from;
	rest->len = len;
	rest->stored = stored;
	if (stored != 0) {
		memcpy(rest->data, r->data + (from - r->offset), stored);
	}
	rest->prev = r;
	r->next = rest;
	if (rest->next == NULL) {
		n->last = rest;
	} else {
		rest->next->prev = rest;
	}
}

static uint64_t first_sector(const struct disk_record *r)
{
	return r->offset / DISK_SECTOR;
}

static uint64_t end_sector(const struct disk_record *r)
{
	return (r->offset + r->len + DISK_SECTOR - 1) / DISK_SECTOR;
}

static bool share_sectors(const struct disk_record *a, const struct disk_record *b)
{
	return a->resize || b->resize ||
	       (first_sector(a) < end_sector(b) && first_sector(b) < end_sector(a));
}

/* The size of a file after the record, if it was `size` before. */
static uint64_t size_after(const struct disk_record *r, uint64_t size)
{
	if (r->resize) {
		return r->offset;
	}
	return r->offset + r->len > size ? r->offset + r->len : size;
}

/* ---- making durable ---- */

/* Part of a record: its bytes between two offsets of the file. */
static void apply_part(struct disk_node *n, const struct disk_record *r, uint64_t from, uint64_t to)
{
	if (from < r->offset) {
		from = r->offset;
	}
	if (to > r->offset + r->len) {
		to = r->offset + r->len;
	}
	disk_pages_write(&n->durable, from, r->stored != 0 ? r->data + (from - r->offset) : NULL,
			 to - from);
}

static void apply(struct disk_node *n, const struct disk_record *r)
{
	if (!r->resize) {
		apply_part(n, r, r->offset, r->offset + r->len);
	} else if (r->offset < n->durable_size) {
		disk_pages_cut(&n->durable, r->offset);
	}
	n->durable_size = size_after(r, n->durable_size);
}

/* Chooses what is stamped up to `covers`, and what comes along with it: see above. Returns how many
 * records that is. */
static uint32_t choose(struct disk_node *n, uint64_t covers)
{
	uint32_t count = 0;

	for (struct disk_record *r = n->last; r != NULL; r = r->prev) {
		r->chosen = r->stamp <= covers;
		for (const struct disk_record *q = r->next; q != NULL && !r->chosen && count > 0;
		     q = q->next) {
			r->chosen = q->chosen && share_sectors(r, q);
		}
		count += r->chosen;
	}
	return count;
}

/* ---- losing a part ---- */

/* While a part of the chosen records is lost: `through[i]` is the number, from 1 on, of the last
 * one that became durable for the sector `low` + i. */
struct tear {
	uint32_t *through;
	uint64_t low;
	uint64_t sectors;
	/* Changes of size up to this one are durable. */
	uint32_t sizes_through;
};

static void tear_range(struct tear *t, const struct disk_node *n)
{
	uint64_t high = 0;

	t->low = UINT64_MAX;
	for (const struct disk_record *r = n->first; r != NULL; r = r->next) {
		if (r->chosen && !r->resize) {
			t->low = first_sector(r) < t->low ? first_sector(r) : t->low;
			high = end_sector(r) > high ? end_sector(r) : high;
		}
	}
	t->sectors = high > 0 ? high - t->low : 0;
	t->through = world_alloc(t->sectors * sizeof(*t->through));
}

/* Most often a write is there or not, as a whole; sometimes its beginning, sometimes any of it. */
static void tear_draw(struct tear *t, const struct disk_record *r, uint32_t number)
{
	uint32_t *through = t->through + (first_sector(r) - t->low);
	uint64_t count = end_sector(r) - first_sector(r);
	uint64_t way = world_below(10);
	unsigned chance = 1000;

	if (way < 3) {
		return;
	}
	if (way == 6) {
		count = world_below(count + 1);
	} else if (way > 6) {
		chance = (unsigned)world_between(1, 999);
	}
	for (uint64_t i = 0; i < count; i++) {
		if (world_chance(chance)) {
			through[i] = number;
		}
	}
}

static void tear_apply(struct tear *t, struct disk_node *n, const struct disk_record *r,
		       uint32_t number)
{
	uint64_t end = end_sector(r);

	for (uint64_t s = first_sector(r); s < end;) {
		uint64_t from = s;

		while (s < end && t->through[s - t->low] >= number) {
			s++;
		}
		if (s > from) {
			apply_part(n, r, from * DISK_SECTOR, s * DISK_SECTOR);
		} else {
			s++;
		}
	}
}

static uint32_t draw_sizes(uint32_t count)
{
	uint64_t way = world_below(4);

	return way == 0 ? 0 : way == 1 ? count : (uint32_t)world_below(count + 1);
}

static void tear(struct disk_node *n, uint32_t count)
{
	struct tear t = {.sizes_through = draw_sizes(count)};
	uint64_t size = n->durable_size;
	uint32_t number = 0;

	tear_range(&t, n);
	for (const struct disk_record *r = n->first; r != NULL; r = r->next) {
		if (r->chosen && ++number > 0 && !r->resize) {
			tear_draw(&t, r, number);
		}
	}
	number = 0;
	for (const struct disk_record *r = n->first; r != NULL; r = r->next) {
		if (!r->chosen) {
			continue;
		}
		number++;
		if (!r->resize) {
			tear_apply(&t, n, r, number);
		} else if (number <= t.sizes_through && r->offset < size) {
			disk_pages_cut(&n->durable, r->offset);
		}
		size = number <= t.sizes_through ? size_after(r, size) : size;
	}
	disk_pages_cut(&n->durable, size);
	n->durable_size = size;
	world_free(t.through, t.sectors * sizeof(*t.through));
}

void disk_file_settle(struct disk_node *n, uint64_t covers, enum disk_lot lot)
{
	uint32_t count = choose(n, covers);
	struct disk_record *next;

	if (count == 0) {
		return;
	}
	n->lost |= lot != DISK_LOT_ALL;
	if (lot == DISK_LOT_MIXED) {
		tear(n, count);
	}
	for (struct disk_record *r = n->first; r != NULL; r = next) {
		next = r->next;
		if (r->chosen) {
			if (lot == DISK_LOT_ALL) {
				apply(n, r);
			}
			record_drop(n, r);
		}
	}
}

/* Takes the bytes between two offsets out of what is not durable. A write under way may still bring
 * its own. */
static void cut_out(struct disk_node *n, uint64_t from, uint64_t to)
{
	struct disk_record *next;

	for (struct disk_record *r = n->first; r != NULL; r = next) {
		uint64_t end = r->offset + r->len;

		next = r->next;
		if (r->resize || r->owner != NULL || r->offset >= to || end <= from) {
			continue;
		}
		if (end > to) {
			record_add_behind(n, r, to);
		}
		if (r->offset < from) {
			r->len = from - r->offset;
		} else {
			record_drop(n, r);
		}
	}
}

/* Sectors are durable as they are in the cache. */
static void settle_sectors(struct disk_node *n, uint64_t first, uint64_t end)
{
	uint64_t from = first * DISK_SECTOR;
	uint64_t to = end * DISK_SECTOR < n->size ? end * DISK_SECTOR : n->size;

	if (from >= to) {
		return;
	}
	disk_pages_copy_part(&n->durable, &n->cache, from, to - from);
	n->durable_size = to > n->durable_size ? to : n->durable_size;
	cut_out(n, from, to);
}

/* Where a run of sectors ends that share a fate: all, or what a lot says of each. */
static uint64_t run_end(uint64_t first, uint64_t end, enum disk_lot lot)
{
	return lot == DISK_LOT_MIXED ? first + world_between(1, end - first) : end;
}

void disk_file_settle_write(struct disk_node *n, struct disk_record **records, unsigned count,
			    enum disk_lot lot)
{
	n->lost |= lot != DISK_LOT_ALL;
	for (unsigned i = 0; i < count; i++) {
		struct disk_record *r = records[i];
		uint64_t end = r != NULL ? end_sector(r) : 0;
		uint64_t next;

		if (r == NULL) {
			continue;
		}
		next = first_sector(r);
		record_drop(n, r);
		for (uint64_t at = next; at < end; at = next) {
			next = run_end(at, end, lot);
			if (lot == DISK_LOT_ALL || (lot == DISK_LOT_MIXED && world_chance(500))) {
				settle_sectors(n, at, next);
			}
		}
	}
}

void disk_file_revert(struct disk_node *n)
{
	ASSERT(n->first == NULL);
	if (!n->lost) {
		return;
	}
	n->lost = false;
	disk_pages_copy(&n->cache, &n->durable);
	/* Blocks stay with the file as far as its size goes; where there is data there are blocks.
	 */
	disk_pages_cut(&n->cache, n->durable_size);
	n->size = n->durable_size;
	n->allocated = disk_pages_account(&n->cache);
}

void disk_file_free(struct disk_node *n)
{
	while (n->first != NULL) {
		record_drop(n, n->first);
	}
	disk_pages_free(&n->cache);
	disk_pages_free(&n->durable);
}

/* ---- the cache ---- */

/* A change has completed: later syncs cover it. Before the first life all is durable at once. */
static uint64_t complete(struct disk_node *n)
{
	n->modified_ns = world->now_ns;
	return ++n->clock;
}

static void settle_at_once(struct disk_node *n)
{
	if (world->life == 0) {
		disk_file_settle(n, n->clock, DISK_LOT_ALL);
	}
}

/* How many of `len` bytes have room, taken for them. */
static uint64_t reserve(struct disk *d, struct disk_node *n, uint64_t offset, uint64_t len,
			uint64_t limit)
{
	uint64_t taken;
	uint64_t fit = disk_pages_reserve(&n->cache, offset, len, limit, &taken);

	n->allocated += taken;
	d->used += n->counted ? taken : 0;
	return fit;
}

uint32_t disk_file_draw_write(struct disk *d, struct disk_node *n, uint64_t offset, uint32_t len,
			      uint32_t unit, int *result)
{
	uint32_t bytes = len;
	uint32_t fit;

	if (offset > DISK_FILE_MAX || len > DISK_FILE_MAX - offset) {
		*result = -EFBIG;
		return 0;
	}
	*result = (int)len;
	if (disk_fault(d->faults.write_error)) {
		*result = world_chance(250) ? -ENOSPC : -EIO;
		bytes = world_chance(500) ? 0 : (uint32_t)world_below((uint64_t)len + 1);
		bytes -= bytes % unit;
	} else if (len > unit && disk_fault(d->faults.write_short)) {
		bytes = (uint32_t)world_between(1, len / unit - 1) * unit;
		*result = (int)bytes;
	}
	fit = (uint32_t)reserve(d, n, offset, bytes, disk_pages_left(d));
	if (*result > 0 && fit < bytes) {
		*result = fit > 0 ? (int)fit : -ENOSPC;
	}
	return fit;
}

static bool all_zero(const unsigned char *data, uint64_t len)
{
	return data[0] == 0 && memcmp(data, data + 1, len - 1) == 0;
}

void disk_file_write(struct disk *d, struct disk_node *n, uint64_t offset,
		     const unsigned char *data, uint64_t len, struct disk_record **owner)
{
	struct disk_record *r;

	if (len == 0) {
		return;
	}
	data = all_zero(data, len) ? NULL : data;
	/* Already taken, unless the file was cut short meanwhile. */
	reserve(d, n, offset, len, UINT64_MAX);
	disk_pages_write(&n->cache, offset, data, len);
	r = record_add(n, data != NULL ? len : 0);
	r->offset = offset;
	r->len = len;
	if (data != NULL) {
		memcpy(r->data, data, len);
	}
	n->size = size_after(r, n->size);
	if (owner != NULL) {
		r->stamp = DISK_UNDER_WAY;
		r->owner = owner;
		*owner = r;
	} else {
		r->stamp = complete(n);
		settle_at_once(n);
	}
}

void disk_file_complete(struct disk_node *n, struct disk_record **records, unsigned count)
{
	uint64_t stamp = complete(n);

	for (unsigned i = 0; i < count; i++) {
		if (records[i] != NULL) {
			ASSERT(records[i]->owner == &records[i]);
			records[i]->stamp = stamp;
			records[i]->owner = NULL;
			records[i] = NULL;
		}
	}
}

int disk_file_read(const struct disk_node *n, uint64_t offset, void *out, uint64_t len)
{
	if (offset >= n->size) {
		return 0;
	}
	if (len > n->size - offset) {
		len = n->size - offset;
	}
	disk_pages_read(&n->cache, offset, out, len);
	return (int)len;
}

static void resize(struct disk_node *n, uint64_t size)
{
	struct disk_record *r = record_add(n, 0);

	r->resize = true;
	r->offset = size;
	r->stamp = complete(n);
	n->size = size;
	settle_at_once(n);
}

void disk_file_resize(struct disk *d, struct disk_node *n, uint64_t size)
{
	if (size < n->size) {
		uint64_t freed = disk_pages_cut(&n->cache, size);

		n->allocated -= freed;
		d->used -= n->counted ? freed : 0;
	}
	if (size != n->size) {
		resize(n, size);
	}
}

int disk_file_allocate(struct disk *d, struct disk_node *n, uint64_t offset, uint64_t len)
{
	uint64_t left = disk_pages_left(d);

	if (offset > DISK_FILE_MAX || len > DISK_FILE_MAX - offset) {
		return -EFBIG;
	}
	/* What fitted stays with the file, as it does with ext4. */
	if (reserve(d, n, offset, len, left) < len) {
		return -ENOSPC;
	}
	if (offset + len > n->size) {
		resize(n, offset + len);
	}
	return 0;
}
