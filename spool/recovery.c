#include "spool/recovery.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/runtime/check.h"
#include "spool/scan.h"

#define LOCK_NAME "lock"

struct tomb_list {
	struct spool_tomb *items;
	uint32_t count;
	uint32_t size;
};

/* The work in progress. */
struct recovery {
	const struct spool_options *options;
	FILE *errors;
	struct spool_recovery *found;
	/* All segments and messages, before they are dealt out. */
	struct segment_store all;
	/* Union-find over slots: segments that know of the same message. */
	uint32_t *parent;
	uint32_t parents;
	uint32_t *ids;
	uint32_t id_count;
	uint32_t highest_segment;
	uint64_t highest_id;
	uint64_t highest_sequence;
	/* Tombstones older than the copy of their message that counts. */
	bool old_tombs;
	struct tomb_list tombs;
};

static void warn(struct recovery *x, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

static void warn(struct recovery *x, const char *format, ...)
{
	va_list args;

	fprintf(x->errors, "spool %s: ", x->options->path);
	va_start(args, format);
	vfprintf(x->errors, format, args);
	va_end(args);
	fputc('\n', x->errors);
}

static void *grow(void *items, uint32_t count, uint32_t *size, size_t item)
{
	if (count < *size) {
		return items;
	}
	*size = *size == 0 ? 64 : *size * 2;
	items = realloc(items, *size * item);
	if (items == NULL) {
		fatal("spool: out of memory");
	}
	return items;
}

/* ---- the files ---- */

static int compare_ids(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static int list_files(struct recovery *x)
{
	int fd = openat(x->all.dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	uint32_t size = 0;

	if (dir == NULL) {
		int rc = -errno;

		warn(x, "cannot be listed: %s", strerror(errno));
		return rc;
	}
	while ((entry = readdir(dir)) != NULL) {
		uint32_t id;

		if (!segment_name_parse(entry->d_name, &id)) {
			if (entry->d_name[0] != '.' && strcmp(entry->d_name, LOCK_NAME) != 0 &&
			    strcmp(entry->d_name, "lost+found") != 0) {
				warn(x, "warning: %s is not a file of the spool, ignored",
				     entry->d_name);
			}
			continue;
		}
		x->ids = grow(x->ids, x->id_count, &size, sizeof(*x->ids));
		x->ids[x->id_count++] = id;
		x->highest_segment = id > x->highest_segment ? id : x->highest_segment;
	}
	closedir(dir);
	if (x->id_count > 0) {
		qsort(x->ids, x->id_count, sizeof(*x->ids), compare_ids);
	}
	return 0;
}

static void add_segment(struct recovery *x, struct segment *g)
{
	store_add_segment(&x->all, g);
	if (x->all.slot_count > x->parents) {
		x->parent = realloc(x->parent, x->all.slot_count * sizeof(*x->parent));
		if (x->parent == NULL) {
			fatal("spool: out of memory");
		}
		while (x->parents < x->all.slot_count) {
			x->parent[x->parents] = x->parents;
			x->parents++;
		}
	}
}

static void discard(struct recovery *x, struct segment *g)
{
	int rc = segment_unlink(g, x->all.dir_fd);

	if (rc != 0) {
		warn(x, "warning: seg-%08x.fws cannot be removed: %s", g->id, strerror(-rc));
	}
	segment_free(g, &x->all.chunks);
}

/* Nothing in it counts: kept to be used again, or removed. */
static void take_free(struct recovery *x, struct segment *g)
{
	uint64_t limit = (uint64_t)x->options->writers * (x->options->spare_segments + 1);

	if (g->size != x->options->segment_bytes || x->all.spare_count >= limit) {
		discard(x, g);
		return;
	}
	add_segment(x, g);
	segment_index_drop(g, &x->all.chunks);
	g->index_crc = 0;
	store_add_spare(&x->all, g);
}

/* Reads a sealed segment's index; chunks of `g` stay empty. `*records` is the caller's to free. */
static int read_index(struct recovery *x, const struct segment *g, struct index_record **records,
		      uint32_t *count)
{
	unsigned char head[SEGMENT_INDEX_HEAD];
	struct record_header h;
	struct record_index index;
	int rc = segment_read(g, g->index_offset, head, sizeof(head));

	*records = NULL;
	if (rc != 0) {
		return rc;
	}
	memcpy(&h, head, sizeof(h));
	memcpy(&index, head + sizeof(h), sizeof(index));
	if (!record_plausible(&h, g->id, g->generation, g->size - g->index_offset) ||
	    h.type != RECORD_INDEX || !record_head_ok(&h, &index) ||
	    h.length != segment_index_bytes(index.count) - sizeof(h)) {
		return -EBADMSG;
	}
	if (h.sequence > x->highest_sequence) {
		x->highest_sequence = h.sequence;
	}
	*records = malloc((index.count + 1) * sizeof(**records));
	if (*records == NULL) {
		fatal("spool: out of memory");
	}
	rc = segment_read(g, g->index_offset + sizeof(head), *records,
			  index.count * sizeof(**records));
	if (rc == 0 && record_crc(0, *records, index.count * sizeof(**records)) != index.crc) {
		rc = -EBADMSG;
	}
	if (rc != 0) {
		free(*records);
		*records = NULL;
	}
	*count = index.count;
	return rc;
}

/* Writes the index and the header of a scanned segment, so that the next start need not scan it. */
static int seal(struct recovery *x, struct segment *g)
{
	unsigned char block[SEGMENT_BLOCK];
	unsigned char head[SEGMENT_INDEX_HEAD];
	uint64_t at = g->end;
	int rc;

	g->index_offset = g->end;
	segment_index_head(g, ++x->highest_sequence, head);
	rc = segment_write(g, at, head, sizeof(head));
	at += sizeof(head);
	for (const struct index_chunk *c = g->chunks; rc == 0 && c != NULL; c = c->next) {
		rc = segment_write(g, at, c->records, c->count * sizeof(c->records[0]));
		at += c->count * sizeof(c->records[0]);
	}
	segment_encode_header(g, g->id % x->options->writers, SEGMENT_DISK_SEALED, block);
	rc = rc != 0 ? rc : segment_write(g, 0, block, sizeof(block));
	if (rc == 0 && fdatasync(g->fd) != 0) {
		rc = -errno;
	}
	return rc;
}

static int scan(struct recovery *x, struct segment *g, uint64_t limit, bool search)
{
	struct scan_result result;
	int rc = scan_segment(g, &x->all.chunks, limit, search, &result);

	x->found->segments_scanned++;
	x->found->torn_bytes += result.torn_bytes;
	x->found->damaged_records += result.damaged;
	if (result.sequence > x->highest_sequence) {
		x->highest_sequence = result.sequence;
	}
	if (rc != 0) {
		warn(x, "warning: seg-%08x.fws cannot be read further: %s; "
			"what comes after is not delivered",
		     g->id, strerror(-rc));
		x->found->damaged_records++;
	}
	if (result.damaged > 0) {
		warn(x, "warning: seg-%08x.fws has %llu damaged records", g->id,
		     (unsigned long long)result.damaged);
	}
	return rc;
}

/* Scanned segments are sealed; one that cannot be written to is kept as it is, and read. */
static void take_scanned(struct recovery *x, struct segment *g, int error)
{
	if (g->index_count == 0 && error == 0) {
		take_free(x, g);
		return;
	}
	g->state = SEGMENT_FULL;
	g->fresh = false;
	if (error != 0) {
		g->state = SEGMENT_ABANDONED;
		g->stuck = true;
	}
	x->found->segments++;
	add_segment(x, g);
}

static void take_sealed(struct recovery *x, struct segment *g, const struct segment_header *h)
{
	struct index_record *records;
	uint32_t count = 0;
	int rc;

	g->index_offset = h->index_offset;
	g->end = h->index_offset;
	rc = h->index_offset < SEGMENT_BLOCK || h->index_offset > g->size
		     ? -EBADMSG
		     : read_index(x, g, &records, &count);
	if (rc != 0) {
		bool sane = h->index_offset >= SEGMENT_BLOCK && h->index_offset <= g->size;

		warn(x, "warning: the index of seg-%08x.fws is damaged; the segment is scanned",
		     g->id);
		x->found->damaged_records++;
		take_scanned(x, g, scan(x, g, sane ? h->index_offset : g->size, true));
		return;
	}
	free(records);
	g->state = SEGMENT_SEALED;
	g->fresh = false;
	g->index_count = count;
	g->placed = count;
	x->found->segments++;
	add_segment(x, g);
}

static void take_damaged(struct recovery *x, struct segment *g)
{
	if (!scan_generation(g, &g->generation)) {
		warn(x, "warning: seg-%08x.fws is no segment of this spool, ignored", g->id);
		segment_free(g, &x->all.chunks);
		return;
	}
	warn(x, "warning: the header of seg-%08x.fws is damaged; the segment is scanned", g->id);
	x->found->damaged_records++;
	take_scanned(x, g, scan(x, g, g->size, true));
}

/* A file that was being made when the program ended has no header yet. */
static void take_empty(struct recovery *x, struct segment *g)
{
	uint32_t generation;

	if (scan_generation(g, &generation)) {
		take_damaged(x, g);
	} else {
		discard(x, g);
	}
}

static int take_header(struct recovery *x, struct segment *g, const unsigned char *block)
{
	struct segment_header h;
	int rc = segment_header_decode(block, &h);

	if (rc == -ENODATA) {
		take_empty(x, g);
		return 0;
	}
	if (rc == -EPROTO) {
		warn(x, "seg-%08x.fws is of format version %u; this program knows versions up to %u",
		     g->id, h.version, SPOOL_FORMAT_VERSION);
		segment_free(g, &x->all.chunks);
		return rc;
	}
	if (rc != 0) {
		take_damaged(x, g);
		return 0;
	}
	if (h.id != g->id) {
		warn(x, "warning: seg-%08x.fws says that it is segment %08x, ignored", g->id, h.id);
		segment_free(g, &x->all.chunks);
		return 0;
	}
	g->size = h.size;
	g->generation = h.generation;
	g->prepared = h.prepared;
	if (h.state == SEGMENT_DISK_FREE) {
		take_free(x, g);
	} else if (h.state == SEGMENT_DISK_SEALED) {
		take_sealed(x, g, &h);
	} else {
		take_scanned(x, g, scan(x, g, g->size, false));
	}
	return 0;
}

static int take_file(struct recovery *x, uint32_t id)
{
	unsigned char block[SEGMENT_BLOCK] = {0};
	struct segment *g = segment_new(id, 0);
	char name[SEGMENT_NAME_MAX];
	struct stat st;
	int rc;

	segment_name(id, name);
	g->fd = openat(x->all.dir_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (g->fd < 0 || fstat(g->fd, &st) != 0) {
		rc = -errno;
		if (rc == -ELOOP || rc == -EISDIR || rc == -ENXIO) {
			warn(x, "warning: %s is not a regular file, ignored", name);
			rc = 0;
		} else {
			warn(x, "%s cannot be opened: %s", name, strerror(-rc));
		}
		segment_free(g, &x->all.chunks);
		return rc;
	}
	if (!S_ISREG(st.st_mode)) {
		warn(x, "warning: %s is not a regular file, ignored", name);
		segment_free(g, &x->all.chunks);
		return 0;
	}
	g->size = (uint64_t)st.st_size;
	rc = segment_read(g, 0, block, sizeof(block));
	if (rc != 0 && rc != -ENODATA) {
		warn(x, "%s cannot be read: %s", name, strerror(-rc));
		segment_free(g, &x->all.chunks);
		return rc;
	}
	return take_header(x, g, block);
}

/* ---- the records ---- */

static uint32_t root(struct recovery *x, uint32_t slot)
{
	while (x->parent[slot] != slot) {
		x->parent[slot] = x->parent[x->parent[slot]];
		slot = x->parent[slot];
	}
	return slot;
}

static void join(struct recovery *x, const struct segment *a, const struct segment *b)
{
	uint32_t ra = root(x, a->slot);
	uint32_t rb = root(x, b->slot);

	if (ra != rb) {
		x->parent[ra] = rb;
	}
}

static void pass_messages(struct recovery *x, struct segment *g, const struct index_record *r)
{
	uint64_t count = r->id.low & ((UINT64_C(1) << 56) - 1);
	struct spool_entry *e;

	if (count > x->highest_id) {
		x->highest_id = count;
	}
	if (r->sequence > x->highest_sequence) {
		x->highest_sequence = r->sequence;
	}
	if (r->type != RECORD_MESSAGE) {
		return;
	}
	if (r->delivery == 0 || r->delivery >= 1U << 24) {
		x->found->damaged_records++;
		return;
	}
	e = index_find(&x->all.index, &r->id);
	if (e == NULL) {
		store_put_message(&x->all, g, r, false);
		return;
	}
	join(x, g, e->segment);
	if (e->delivery_count != r->delivery) {
		x->found->damaged_records++;
	} else if (r->sequence > e->sequence) {
		store_hold_copy(g, e->segment);
		store_move_message(&x->all, e, g, r);
	} else {
		store_hold_copy(e->segment, g);
	}
}

/* A tombstone is not where, or not what, it should be to outlive its message for certain: write it
 * again, and keep its segment until then. */
static void tomb_again(struct recovery *x, struct segment *g, const struct spool_entry *e,
		       const struct index_record *r)
{
	x->tombs.items =
		grow(x->tombs.items, x->tombs.count, &x->tombs.size, sizeof(*x->tombs.items));
	x->tombs.items[x->tombs.count++] = (struct spool_tomb){
		.id = e->id,
		.first = r->delivery,
		.count = r->count,
		.target = e->segment,
		.pin = g,
	};
}

static void pass_rest(struct recovery *x, struct segment *g, const struct index_record *r)
{
	struct spool_entry *e;

	if (r->type != RECORD_DONE && r->type != RECORD_STATE) {
		return;
	}
	e = index_find(&x->all.index, &r->id);
	if (e == NULL) {
		return;
	}
	join(x, g, e->segment);
	if (r->type == RECORD_STATE) {
		store_put_state(&x->all, e, g, r);
	} else if (r->sequence > e->sequence) {
		if (r->units != e->segment->id) {
			tomb_again(x, g, e, r);
		}
		store_put_done(&x->all, e, g, r->delivery, r->count);
	} else {
		x->old_tombs = true;
	}
}

static bool all_done(const struct spool_entry *e, const struct index_record *r)
{
	uint64_t end = r->count == 0 ? e->delivery_count : (uint64_t)r->delivery + r->count;

	if (e->deliveries == NULL) {
		return false;
	}
	for (uint64_t i = r->count == 0 ? 0 : r->delivery; i < end && i < e->delivery_count; i++) {
		if (!e->deliveries[i].done) {
			return false;
		}
	}
	return true;
}

/*
 * The message was copied after this was written, and the copy has no tombstone of its own: the
 * program ended between the two. It gets one now, and this one's segment stays until then.
 */
static void pass_old_tombs(struct recovery *x, struct segment *g, const struct index_record *r)
{
	struct spool_entry *e;

	if (r->type != RECORD_DONE) {
		return;
	}
	e = index_find(&x->all.index, &r->id);
	if (e == NULL || r->sequence > e->sequence || all_done(e, r)) {
		return;
	}
	tomb_again(x, g, e, r);
	store_put_done(&x->all, e, NULL, r->delivery, r->count);
}

typedef void (*pass_fn)(struct recovery *x, struct segment *g, const struct index_record *r);

static int each_record(struct recovery *x, struct segment *g, pass_fn pass)
{
	struct index_record *records;
	uint32_t count;
	int rc;

	if (g->state != SEGMENT_SEALED) {
		for (const struct index_chunk *c = g->chunks; c != NULL; c = c->next) {
			for (uint32_t i = 0; i < c->count; i++) {
				pass(x, g, &c->records[i]);
			}
		}
		return 0;
	}
	rc = read_index(x, g, &records, &count);
	if (rc != 0) {
		warn(x, "the index of seg-%08x.fws cannot be read again: %s", g->id, strerror(-rc));
		return rc;
	}
	for (uint32_t i = 0; i < count; i++) {
		pass(x, g, &records[i]);
	}
	free(records);
	return 0;
}

static int each_segment(struct recovery *x, pass_fn pass)
{
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < x->all.slot_count; i++) {
		struct segment *g = x->all.segments[i];

		if (g != NULL && g->state != SEGMENT_SPARE) {
			rc = each_record(x, g, pass);
		}
	}
	return rc;
}

static int read_records(struct recovery *x)
{
	int rc = each_segment(x, pass_messages);

	rc = rc != 0 ? rc : each_segment(x, pass_rest);
	return rc != 0 || !x->old_tombs ? rc : each_segment(x, pass_old_tombs);
}

static void seal_scanned(struct recovery *x)
{
	for (uint32_t i = 0; i < x->all.slot_count; i++) {
		struct segment *g = x->all.segments[i];
		int rc;

		if (g == NULL || g->state != SEGMENT_FULL) {
			continue;
		}
		rc = seal(x, g);
		if (rc != 0) {
			warn(x, "warning: seg-%08x.fws cannot be sealed: %s", g->id,
			     strerror(-rc));
			g->state = SEGMENT_ABANDONED;
			continue;
		}
		g->state = SEGMENT_SEALED;
		segment_index_drop(g, &x->all.chunks);
	}
}

/* ---- dealing out ---- */

/* Which writer gets the segments of each root: the one of the lowest id among them. */
static uint32_t *choose_writers(struct recovery *x)
{
	uint32_t *lowest = malloc((x->all.slot_count + 1) * sizeof(*lowest));

	if (lowest == NULL) {
		fatal("spool: out of memory");
	}
	for (uint32_t i = 0; i < x->all.slot_count; i++) {
		lowest[i] = UINT32_MAX;
	}
	for (uint32_t i = 0; i < x->all.slot_count; i++) {
		if (x->all.segments[i] != NULL) {
			uint32_t r = root(x, i);
			uint32_t id = x->all.segments[i]->id;

			lowest[r] = id < lowest[r] ? id : lowest[r];
		}
	}
	for (uint32_t i = 0; i < x->all.slot_count; i++) {
		lowest[i] %= x->options->writers;
	}
	return lowest;
}

/* The sets speak of slots: from the old ones, `from`, to the new. */
static void renumber(struct segment_set *set, struct segment **from, uint32_t slots)
{
	struct segment_set renamed = {0};

	for (uint32_t i = 0; i < slots; i++) {
		if (segment_set_has(set, i)) {
			segment_set_add(&renamed, from[i]->slot);
		}
	}
	free(set->words);
	*set = renamed;
}

struct deal {
	struct recovery *x;
	struct segment_store *stores;
	/* Writer of a segment, by its old slot. */
	const uint32_t *writers;
};

static uint32_t writer_of(const struct deal *d, const struct segment *g)
{
	for (uint32_t w = 0; w < d->x->options->writers; w++) {
		if (g->slot < d->stores[w].slot_count && d->stores[w].segments[g->slot] == g) {
			return w;
		}
	}
	fatal("spool: segment %08x has no writer", g->id);
}

static void deal_entry(void *context, struct spool_entry *e)
{
	struct deal *d = context;

	index_transfer(&d->x->all.index, &d->stores[writer_of(d, e->segment)].index, e);
	d->x->found->messages++;
	d->x->found->deliveries += e->pending;
}

static void deal_segments(struct deal *d)
{
	struct segment_store *all = &d->x->all;
	struct segment *next;

	for (uint32_t i = 0; i < all->slot_count; i++) {
		struct segment *g = all->segments[i];

		if (g != NULL && g->state != SEGMENT_SPARE) {
			store_add_segment(&d->stores[d->writers[root(d->x, i)]], g);
		}
	}
	for (uint32_t i = 0; i < all->slot_count; i++) {
		struct segment *g = all->segments[i];

		if (g != NULL && g->state != SEGMENT_SPARE) {
			renumber(&g->holds, all->segments, all->slot_count);
			renumber(&g->copies, all->segments, all->slot_count);
		}
	}
	for (struct segment *g = all->spares; g != NULL; g = next) {
		struct segment_store *s = &d->stores[g->id % d->x->options->writers];

		next = g->next_spare;
		store_add_segment(s, g);
		store_add_spare(s, g);
	}
}

static int compare_messages(const void *a, const void *b)
{
	const struct message_id *x = a;
	const struct message_id *y = b;

	if (x->high != y->high) {
		return x->high < y->high ? -1 : 1;
	}
	return x->low < y->low ? -1 : x->low > y->low;
}

static void list_entry(void *context, struct spool_entry *e)
{
	struct recovered_list *list = context;

	list->ids[list->count++] = e->id;
}

static void list_recovered(struct segment_store *s)
{
	struct recovered_list *list = &s->recovered;

	list->ids = malloc((s->index.count + 1) * sizeof(*list->ids));
	if (list->ids == NULL) {
		fatal("spool: out of memory");
	}
	index_each(&s->index, list_entry, list);
	qsort(list->ids, list->count, sizeof(*list->ids), compare_messages);
}

static void deal_out(struct recovery *x, struct segment_store *stores)
{
	uint32_t *writers = choose_writers(x);
	struct deal d = {.x = x, .stores = stores, .writers = writers};
	uint32_t step = x->options->writers;

	deal_segments(&d);
	index_each(&x->all.index, deal_entry, &d);
	for (uint32_t i = 0; i < x->tombs.count; i++) {
		store_tomb(&stores[writer_of(&d, x->tombs.items[i].target)], &x->tombs.items[i]);
	}
	for (uint32_t w = 0; w < step; w++) {
		if (x->id_count > 0) {
			stores[w].next_id = (x->highest_segment / step + 1) * step + w;
		}
		stores[w].next_sequence = x->highest_sequence + 1;
		list_recovered(&stores[w]);
	}
	free(writers);
}

/* What was not dealt out, because recovery failed. */
static void give_up(struct recovery *x)
{
	for (uint32_t i = 0; i < x->all.slot_count; i++) {
		if (x->all.segments[i] != NULL) {
			segment_free(x->all.segments[i], &x->all.chunks);
		}
	}
}

int recovery_run(struct segment_store *stores, const struct spool_options *options, int dir_fd,
		 FILE *errors, struct spool_recovery *found, uint64_t *highest)
{
	struct recovery x = {.options = options, .errors = errors, .found = found};
	int rc;

	store_init(&x.all, options, 0, dir_fd, NULL);
	rc = list_files(&x);
	for (uint32_t i = 0; rc == 0 && i < x.id_count; i++) {
		rc = take_file(&x, x.ids[i]);
	}
	rc = rc != 0 ? rc : read_records(&x);
	if (rc == 0) {
		seal_scanned(&x);
		deal_out(&x, stores);
		*highest = x.highest_id;
	} else {
		give_up(&x);
	}
	x.all.slot_count = 0;
	free(x.all.segments);
	x.all.segments = NULL;
	store_close(&x.all);
	free(x.parent);
	free(x.ids);
	free(x.tombs.items);
	return rc;
}
