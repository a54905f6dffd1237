#include "spool/recovery_files.h"

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

#define REWRITE_BYTES (256U * 1024)
#define LOCK_NAME "lock"

void recovery_warn(struct recovery *x, const char *format, ...)
{
	va_list args;

	fprintf(x->errors, "spool %s: ", x->options->path);
	va_start(args, format);
	vfprintf(x->errors, format, args);
	va_end(args);
	fputc('\n', x->errors);
}

void *recovery_grow(void *items, uint32_t count, uint32_t *size, size_t item)
{
	if (count < *size) {
		return items;
	}
	*size = *size == 0 ? 64 : *size * 2;
	items = check_memory(realloc(items, *size * item), "the spool");
	return items;
}

static int compare_ids(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a;
	uint32_t y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

int recovery_list(struct recovery *x)
{
	int fd = openat(x->all.dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *entry;
	uint32_t size = 0;

	if (dir == NULL) {
		int rc = -errno;

		recovery_warn(x, "cannot be listed: %s", strerror(errno));
		return rc;
	}
	while ((entry = readdir(dir)) != NULL) {
		uint32_t id;

		if (!segment_name_parse(entry->d_name, &id)) {
			if (entry->d_name[0] != '.' && strcmp(entry->d_name, LOCK_NAME) != 0 &&
			    strcmp(entry->d_name, "lost+found") != 0) {
				recovery_warn(x, "warning: %s is not a file of the spool, ignored",
					      entry->d_name);
			}
			continue;
		}
		x->ids = recovery_grow(x->ids, x->id_count, &size, sizeof(*x->ids));
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
		x->parent = check_memory(realloc(x->parent, x->all.slot_count * sizeof(*x->parent)),
					 "the spool");
		while (x->parents < x->all.slot_count) {
			x->parent[x->parents] = x->parents;
			x->parents++;
		}
	}
}

static void discard(struct recovery *x, struct segment *g)
{
	int rc = x->options->read_only ? 0 : segment_unlink(g, x->all.dir_fd);

	if (rc != 0) {
		recovery_warn(x, "warning: seg-%08x.fws cannot be removed: %s", g->id,
			      strerror(-rc));
	}
	segment_free(g, &x->all.chunks);
}

/* Nothing in it counts: kept to be used again, or removed. */
static void take_free(struct recovery *x, struct segment *g)
{
	uint64_t limit = (uint64_t)x->options->writers * (x->options->spare_segments + 1);

	if (!x->options->read_only &&
	    (g->size != x->options->segment_bytes || x->all.spare_count >= limit)) {
		discard(x, g);
		return;
	}
	add_segment(x, g);
	segment_index_drop(g, &x->all.chunks);
	g->index_crc = 0;
	store_add_spare(&x->all, g);
}

int recovery_read_index(struct recovery *x, const struct segment *g, struct index_record **records,
			uint32_t *count)
{
	uint64_t sequence = 0;
	int rc = segment_read_index(g, records, count, &sequence);

	if (sequence > x->highest_sequence) {
		x->highest_sequence = sequence;
	}
	return rc;
}

/*
 * What was read may be in the page cache alone: when a sync failed and the program was killed
 * before it could write elsewhere, the kernel takes those pages for clean, and no later sync writes
 * them. So everything is written again, as it is.
 */
static int write_again(struct segment *g)
{
	unsigned char *data = check_memory(malloc(REWRITE_BYTES), "the spool");
	int rc = 0;

	for (uint64_t at = SEGMENT_BLOCK; rc == 0 && at < g->end; at += REWRITE_BYTES) {
		uint64_t left = g->end - at;
		size_t len = left < REWRITE_BYTES ? (size_t)left : REWRITE_BYTES;

		rc = segment_read(g, at, data, len);
		rc = rc != 0 ? rc : segment_write(g, at, data, len);
	}
	free(data);
	return rc;
}

/* Makes sure of a scanned segment, and writes its index and header, so that the next start need not
 * scan it. */
int recovery_seal(struct recovery *x, struct segment *g)
{
	unsigned char block[SEGMENT_BLOCK];
	unsigned char head[SEGMENT_INDEX_HEAD];
	uint64_t at = g->end;
	int rc = write_again(g);

	g->index_offset = g->end;
	segment_index_head(g, ++x->highest_sequence, head);
	rc = rc != 0 ? rc : segment_write(g, at, head, sizeof(head));
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

/*
 * Without what a segment holds nobody knows what was delivered already: a start that cannot read
 * one fails, and says what can be done.
 */
static int unreadable(struct recovery *x, struct segment *g, int error)
{
	recovery_warn(x,
		      "seg-%08x.fws cannot be read: %s; repair the disk, or move the file away to "
		      "go on without the mail and the records of deliveries in it",
		      g->id, strerror(-error));
	segment_free(g, &x->all.chunks);
	return error;
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
	if (rc == 0 && result.damaged > 0) {
		recovery_warn(x, "warning: seg-%08x.fws has %llu damaged records", g->id,
			      (unsigned long long)result.damaged);
	}
	return rc;
}

/* Scanned segments are sealed; one that cannot be written to is kept as it is, and read. */
static int take_scanned(struct recovery *x, struct segment *g, uint64_t limit, bool search)
{
	int rc = scan(x, g, limit, search);

	if (rc != 0) {
		return unreadable(x, g, rc);
	}
	if (g->index_count == 0) {
		take_free(x, g);
		return 0;
	}
	g->state = SEGMENT_FULL;
	g->fresh = false;
	x->found->segments++;
	add_segment(x, g);
	return 0;
}

static int take_sealed(struct recovery *x, struct segment *g, const struct segment_header *h)
{
	struct index_record *records;
	uint32_t count = 0;
	int rc;

	g->index_offset = h->index_offset;
	g->end = h->index_offset;
	rc = h->index_offset < SEGMENT_BLOCK || h->index_offset > g->size
		     ? -EBADMSG
		     : recovery_read_index(x, g, &records, &count);
	if (rc != 0 && rc != -EBADMSG && rc != -ENODATA) {
		return unreadable(x, g, rc);
	}
	if (rc != 0) {
		bool sane = h->index_offset >= SEGMENT_BLOCK && h->index_offset <= g->size;

		recovery_warn(
			x, "warning: the index of seg-%08x.fws is damaged; the segment is scanned",
			g->id);
		x->found->damaged_records++;
		return take_scanned(x, g, sane ? h->index_offset : g->size, true);
	}
	free(records);
	g->state = SEGMENT_SEALED;
	g->fresh = false;
	g->index_count = count;
	g->placed = count;
	x->found->segments++;
	add_segment(x, g);
	return 0;
}

static int take_damaged(struct recovery *x, struct segment *g)
{
	int rc = scan_generation(g, &g->generation);

	if (rc < 0) {
		return unreadable(x, g, rc);
	}
	if (rc == 0) {
		recovery_warn(x, "warning: seg-%08x.fws is no segment of this spool, ignored",
			      g->id);
		segment_free(g, &x->all.chunks);
		return 0;
	}
	recovery_warn(x, "warning: the header of seg-%08x.fws is damaged; the segment is scanned",
		      g->id);
	x->found->damaged_records++;
	return take_scanned(x, g, g->size, true);
}

/* A file that was being made when the program ended has no header yet. */
static int take_empty(struct recovery *x, struct segment *g)
{
	uint32_t generation;

	if (scan_generation(g, &generation) != 0) {
		return take_damaged(x, g);
	}
	discard(x, g);
	return 0;
}

static int take_header(struct recovery *x, struct segment *g, const unsigned char *block)
{
	struct segment_header h;
	int rc = segment_header_decode(block, &h);

	if (rc == -ENODATA) {
		return take_empty(x, g);
	}
	if (rc == -EPROTO) {
		recovery_warn(
			x,
			"seg-%08x.fws is of format version %u; this program knows versions up to %u",
			g->id, h.version, SPOOL_FORMAT_VERSION);
		segment_free(g, &x->all.chunks);
		return rc;
	}
	if (rc != 0) {
		return take_damaged(x, g);
	}
	if (h.id != g->id) {
		recovery_warn(x, "warning: seg-%08x.fws says that it is segment %08x, ignored",
			      g->id, h.id);
		segment_free(g, &x->all.chunks);
		return 0;
	}
	g->size = h.size;
	g->generation = h.generation;
	g->prepared = segment_block_ceil(h.prepared);
	if (h.state == SEGMENT_DISK_FREE) {
		take_free(x, g);
		return 0;
	}
	return h.state == SEGMENT_DISK_SEALED ? take_sealed(x, g, &h)
					      : take_scanned(x, g, g->size, false);
}

int recovery_take_file(struct recovery *x, uint32_t id)
{
	unsigned char block[SEGMENT_BLOCK] = {0};
	struct segment *g = segment_new(id, 0);
	char name[SEGMENT_NAME_MAX];
	struct stat st;
	int rc;

	segment_name(id, name);
	g->fd = openat(x->all.dir_fd, name,
		       (x->options->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOFOLLOW |
			       O_NONBLOCK);
	if (g->fd < 0 || fstat(g->fd, &st) != 0) {
		rc = -errno;
		if (rc == -ELOOP || rc == -EISDIR || rc == -ENXIO) {
			recovery_warn(x, "warning: %s is not a regular file, ignored", name);
			rc = 0;
		} else {
			recovery_warn(x, "%s cannot be opened: %s", name, strerror(-rc));
		}
		segment_free(g, &x->all.chunks);
		return rc;
	}
	if (!S_ISREG(st.st_mode)) {
		recovery_warn(x, "warning: %s is not a regular file, ignored", name);
		segment_free(g, &x->all.chunks);
		return 0;
	}
	g->size = (uint64_t)st.st_size;
	rc = segment_read(g, 0, block, sizeof(block));
	if (rc != 0 && rc != -ENODATA) {
		return unreadable(x, g, rc);
	}
	return take_header(x, g, block);
}
