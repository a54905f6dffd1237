#include "core/log/jlog_index.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log/jlog_directory.h"
#include "core/log/jlog_scan.h"
#include "core/runtime/check.h"

#define ENTRY sizeof(uint64_t)
/* Entries compared at a time. */
#define PIECE 512

SINGLE
struct offsets {
	uint64_t *items;
	size_t count;
};

static void offsets_add(struct offsets *o, uint64_t offset)
{
	if ((o->count & (o->count - 1)) == 0) {
		o->items =
			check_memory(realloc(o->items, (o->count == 0 ? 1 : 2 * o->count) * ENTRY),
				     "the index of a journal");
	}
	o->items[o->count++] = offset;
}

/* Where the records of a segment are that are whole. */
static int find_offsets(int directory, uint32_t log, struct offsets *o)
{
	struct jlog_scan scan;
	struct jlog_record r;
	int rc = 1;
	int fd = jlog_segment_open(directory, log, O_RDONLY);

	*o = (struct offsets){0};
	if (fd < 0) {
		return fd;
	}
	jlog_scan_begin(&scan, fd, log);
	while ((rc = jlog_scan_next_closed(&scan, &r)) == 1) {
		offsets_add(o, scan.offset - JLOG_HEADER_BYTES - r.len);
	}
	jlog_scan_end(&scan);
	close(fd);
	return rc;
}

/* How many entries of an index of `have` entries are as they should be. */
static size_t right_entries(int fd, const struct offsets *o, size_t have)
{
	uint64_t piece[PIECE];
	size_t right = 0;
	size_t most = have < o->count ? have : o->count;

	while (right < most) {
		size_t n = most - right < PIECE ? most - right : PIECE;

		if (pread(fd, piece, n * ENTRY, (off_t)(right * ENTRY)) != (ssize_t)(n * ENTRY)) {
			return right;
		}
		for (size_t i = 0; i < n; i++) {
			if (piece[i] != o->items[right + i]) {
				return right + i;
			}
		}
		right += n;
	}
	return right;
}

/* One entry of 0 after that of the last record. That of the first is 0, too: so an index of no
 * records cannot be closed. */
static bool is_closed(int fd, const struct offsets *o, size_t have)
{
	uint64_t last = 1;

	return o->count > 0 && have == o->count + 1 &&
	       pread(fd, &last, ENTRY, (off_t)(o->count * ENTRY)) == (ssize_t)ENTRY && last == 0;
}

/* Writes what is missing of an index from entry `from` on, and closes it. */
static int complete(int fd, struct offsets *o, size_t from)
{
	size_t bytes;
	ssize_t n;

	if (o->count == 0) {
		return 0;
	}
	offsets_add(o, 0);
	bytes = (o->count - from) * ENTRY;
	n = pwrite(fd, o->items + from, bytes, (off_t)(from * ENTRY));
	if (n == (ssize_t)bytes) {
		return 0;
	}
	return n < 0 ? -errno : -ENOSPC;
}

static int index_sync(int fd, struct offsets *o, bool close)
{
	struct stat st;
	size_t have;
	size_t right;

	if (fstat(fd, &st) != 0) {
		return -errno;
	}
	have = (size_t)st.st_size / ENTRY;
	right = right_entries(fd, o, have);
	if ((size_t)st.st_size % ENTRY == 0 && right == o->count && is_closed(fd, o, have)) {
		return 1;
	}
	if ((size_t)st.st_size != right * ENTRY && ftruncate(fd, (off_t)(right * ENTRY)) != 0) {
		return -errno;
	}
	return close ? complete(fd, o, right) : 0;
}

/* The index itself, locked, against its segment. */
static int sync_locked(int fd, int directory, uint32_t log, bool close_it)
{
	struct offsets o;
	int rc = find_offsets(directory, log, &o);

	if (rc == 0) {
		rc = index_sync(fd, &o, close_it);
	}
	free(o.items);
	return rc;
}

int jlog_index_sync(int directory, uint32_t log, bool close_it)
{
	char name[JLOG_INDEX_NAME];
	int rc;
	int fd;

	jlog_index_name(log, name);
	fd = openat(directory, name, O_RDWR | O_CLOEXEC | (close_it ? O_CREAT : 0), 0644);
	if (fd < 0) {
		return errno == ENOENT && !close_it ? 0 : -errno;
	}
	rc = jlog_lock(fd, 0);
	if (rc == 0) {
		rc = sync_locked(fd, directory, log, close_it);
		/* There is no such segment. */
		if (rc == -ENOENT) {
			unlinkat(directory, name, 0);
			rc = 0;
		}
		jlog_unlock(fd);
	}
	close(fd);
	return rc;
}

bool jlog_index_count(int directory, uint32_t log, uint32_t *records)
{
	char name[JLOG_INDEX_NAME];
	struct stat st;
	uint64_t last = 1;
	bool closed = false;
	int fd;

	jlog_index_name(log, name);
	fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		return false;
	}
	if (fstat(fd, &st) == 0 && st.st_size % (off_t)ENTRY == 0 && st.st_size > (off_t)ENTRY &&
	    pread(fd, &last, ENTRY, st.st_size - (off_t)ENTRY) == (ssize_t)ENTRY && last == 0) {
		*records = (uint32_t)((size_t)st.st_size / ENTRY - 1);
		closed = true;
	}
	close(fd);
	return closed;
}
