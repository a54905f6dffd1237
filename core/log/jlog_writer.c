#include "core/log/jlog_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log/jlog_directory.h"
#include "core/log/jlog_dropped.h"
#include "core/log/jlog_index.h"
#include "core/log/jlog_recovery.h"
#include "core/log/jlog_subscriber.h"
#include "core/runtime/check.h"

#define WRITER_MAGIC 0x6a6c6f67U
#define LOCK_WAIT_MS 1000
#define SEGMENT_DEFAULT (4U << 20)
#define SEGMENTS_OF_LIMIT 10
/* Times that a batch may find its segment full, or closed by another writer. */
#define TRIES 4

SINGLE
struct jlog_writer {
	uint32_t magic;
	int directory;
	int meta_fd;
	/* The segment that is written. */
	uint32_t log;
	int fd;
	/* It ends in what could not be taken back, or could not be synced: nothing is appended. */
	bool abandoned;
	uint32_t segment_bytes;
	enum jlog_safety safety;
	struct jlog_limit limit;
	struct jlog_report report;
	struct jlog_writer_counts counts;
};

/* ---- segments ---- */

/* Opens the segment that is to be written; made if it is not there. */
static int open_segment(struct jlog_writer *w, uint32_t log)
{
	int fd = jlog_segment_open(w->directory, log, O_RDWR | O_CREAT);

	if (fd < 0) {
		return fd;
	}
	if (w->fd >= 0) {
		close(w->fd);
	}
	w->fd = fd;
	w->log = log;
	w->abandoned = false;
	w->counts.segments++;
	return 0;
}

static bool has_segment(const struct jlog_writer *w, uint32_t log)
{
	int fd = jlog_segment_open(w->directory, log, O_RDONLY);

	if (fd >= 0) {
		close(fd);
	}
	return fd >= 0;
}

/* The metastore, which somebody has spoiled, as it should be. */
static int mend_meta(struct jlog_writer *w)
{
	const struct jlog_meta meta = {
		.storage_log = w->log,
		.unit_limit = w->segment_bytes,
		.safety = w->safety,
		.magic = JLOG_MAGIC,
	};
	ssize_t n = pwrite(w->meta_fd, &meta, sizeof(meta), 0);

	if (n != sizeof(meta)) {
		return n < 0 ? -errno : -EIO;
	}
	jlog_report(&w->report, JLOG_REPAIRED,
		    "the metastore was spoiled while the journal was written, and put right");
	return 0;
}

/* The segment that is to be written: ours, or one after it that another writer has made. */
static int storage_log(struct jlog_writer *w, uint32_t *log)
{
	ssize_t n = pread(w->meta_fd, log, sizeof(*log), 0);

	if (n < 0) {
		return -errno;
	}
	if (n == sizeof(*log) && (*log == w->log || (*log > w->log && has_segment(w, *log)))) {
		return 0;
	}
	*log = w->log;
	return mend_meta(w);
}

/* The next segment is made, and then named in the metastore, as others do it; a crash between is
 * found by recovery. The metastore is locked. */
static int advance(struct jlog_writer *w)
{
	uint32_t next = w->log + 1;
	uint32_t now;
	ssize_t n;
	int fd;
	int rc = storage_log(w, &now);

	/* Somebody else was faster. */
	if (rc != 0 || now != w->log) {
		return rc;
	}
	fd = jlog_segment_open(w->directory, next, O_RDWR | O_CREAT);
	if (fd < 0) {
		return fd;
	}
	close(fd);
	n = pwrite(w->meta_fd, &next, sizeof(next), offsetof(struct jlog_meta, storage_log));
	if (n != sizeof(next)) {
		return n < 0 ? -errno : -EIO;
	}
	if (w->safety != JLOG_UNSAFE && (fsync(w->directory) != 0 || fdatasync(w->meta_fd) != 0)) {
		return -errno;
	}
	return 0;
}

/* What is done once for a segment when it is closed. Errors do not stop the journal. */
static void keep(struct jlog_writer *w, uint32_t closed)
{
	int rc = jlog_index_sync(w->directory, closed, true);

	/* A reader that is at it does the same. */
	if (rc < 0 && rc != -EAGAIN) {
		jlog_report(&w->report, JLOG_TROUBLE, "no index for segment %08x: %s", closed,
			    strerror(-rc));
	}
	rc = jlog_remove_passed(w->directory, w->log);
	if (rc > 0) {
		w->limit.removed_segments += (uint64_t)rc;
	}
	if (rc >= 0) {
		rc = jlog_keep_limit(w->directory, w->log, &w->limit, &w->report);
	}
	if (rc < 0) {
		jlog_report(&w->report, JLOG_TROUBLE, "cannot remove what is not needed: %s",
			    strerror(-rc));
	}
	w->counts.removed_segments = w->limit.removed_segments;
	w->counts.dropped_subscribers = w->limit.dropped_subscribers;
}

static int sync_segment(struct jlog_writer *w)
{
	w->counts.syncs++;
	return fdatasync(w->fd) == 0 ? 0 : -errno;
}

/* Goes on with a new segment, or the one that another writer has begun. */
static int roll(struct jlog_writer *w)
{
	uint32_t closed = w->log;
	uint32_t now = closed;
	int rc = 0;

	if (w->safety != JLOG_UNSAFE && !w->abandoned) {
		rc = sync_segment(w);
		if (rc != 0) {
			/* What it has of it is not known; to sync again would not tell. */
			jlog_report(&w->report, JLOG_TROUBLE, "cannot sync segment %08x: %s",
				    closed, strerror(-rc));
		}
	}
	rc = jlog_lock(w->meta_fd, 0);
	if (rc == 0) {
		rc = advance(w);
		jlog_unlock(w->meta_fd);
	}
	if (rc == 0) {
		rc = storage_log(w, &now);
	}
	if (rc == 0) {
		rc = open_segment(w, now);
	}
	if (rc == 0) {
		keep(w, closed);
	}
	return rc;
}

/* ---- writing ---- */

/* The bytes of whole records at the beginning of `len` bytes, up to the one that reaches `most`. */
static size_t whole_records(const unsigned char *at, size_t len, size_t most)
{
	size_t whole = 0;

	while (whole < most && len - whole >= JLOG_HEADER_BYTES) {
		struct jlog_header h;
		size_t bytes;

		memcpy(&h, at + whole, sizeof(h));
		ASSERT(h.magic == JLOG_MAGIC);
		bytes = sizeof(h) + h.len;
		if (bytes > len - whole) {
			break;
		}
		whole += bytes;
	}
	return whole;
}

/* Appends at `size`, the end of the locked segment. A record that was cut is taken back. */
static ssize_t append(struct jlog_writer *w, const unsigned char *records, size_t len,
		      uint64_t size)
{
	ssize_t n = pwrite(w->fd, records, len, (off_t)size);
	size_t whole;

	if (n < 0) {
		return -errno;
	}
	w->counts.writes++;
	whole = whole_records(records, (size_t)n, (size_t)n);
	if (whole < (size_t)n && ftruncate(w->fd, (off_t)(size + whole)) != 0) {
		w->abandoned = true;
	}
	w->counts.bytes += whole;
	return whole > 0 ? (ssize_t)whole : -ENOSPC;
}

/* The segment, locked, is the one to be written and has room: 0 and its size. 1: it is not. */
static int check_segment(struct jlog_writer *w, uint64_t *size)
{
	struct stat st;
	uint32_t now;
	int rc = storage_log(w, &now);

	if (rc == 0 && fstat(w->fd, &st) != 0) {
		rc = -errno;
	}
	if (rc != 0) {
		return rc;
	}
	*size = (uint64_t)st.st_size;
	if (st.st_nlink == 0) {
		/* Somebody has removed it. */
		w->abandoned = true;
	}
	return now != w->log || w->abandoned || *size >= w->segment_bytes;
}

/* A full segment takes more when no other can be had: no file, no lock of the metastore. */
static int lock_full(struct jlog_writer *w, uint64_t *size)
{
	int rc = jlog_lock(w->fd, 0);

	if (rc == 0) {
		rc = check_segment(w, size);
		if (rc < 0) {
			jlog_unlock(w->fd);
			return rc;
		}
	}
	return rc == 1 ? 0 : rc;
}

/* Locks a segment that takes records. */
static int lock_segment(struct jlog_writer *w, uint64_t *size)
{
	for (unsigned i = 0; i < TRIES; i++) {
		uint32_t now;
		int rc = jlog_lock(w->fd, 0);

		if (rc != 0) {
			return rc;
		}
		rc = check_segment(w, size);
		if (rc == 0) {
			return 0;
		}
		jlog_unlock(w->fd);
		if (rc == 1) {
			rc = storage_log(w, &now);
		}
		if (rc == 0 && now != w->log) {
			rc = open_segment(w, now);
		} else if (rc == 0) {
			rc = roll(w);
			if (rc != 0 && !w->abandoned) {
				return lock_full(w, size);
			}
		}
		if (rc != 0) {
			return rc;
		}
	}
	return -EAGAIN;
}

static ssize_t write_part(struct jlog_writer *w, const unsigned char *records, size_t len)
{
	uint64_t size;
	size_t room;
	ssize_t n;
	int rc = lock_segment(w, &size);

	if (rc != 0) {
		return rc;
	}
	room = size < w->segment_bytes ? (size_t)(w->segment_bytes - size) : 1;
	n = append(w, records, whole_records(records, len, room), size);
	jlog_unlock(w->fd);
	if (n > 0 && w->safety == JLOG_SAFE) {
		rc = sync_segment(w);
		if (rc != 0) {
			w->abandoned = true;
			return rc;
		}
	}
	return n;
}

ssize_t jlog_writer_write(struct jlog_writer *w, const void *records, size_t len)
{
	const unsigned char *at = records;
	size_t done = 0;

	CHECK_MAGIC(w, WRITER_MAGIC);
	while (done < len) {
		ssize_t n = write_part(w, at + done, len - done);

		if (n < 0) {
			return done > 0 ? (ssize_t)done : n;
		}
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* ---- life ---- */

/* It comes back after it was dropped: behind a gap. */
static void tell_gap(const struct jlog_writer *w, const char *name, struct jlog_id at)
{
	struct jlog_dropped d;

	if (jlog_dropped_get(w->directory, name, at, &d)) {
		jlog_report(&w->report, JLOG_RETURNED,
			    "subscriber \"%s\" is back: dropped at %08x:%08x, on at %08x:%08x, "
			    "lost at least %llu records, %llu bytes",
			    name, d.at.log, d.at.marker, at.log, at.marker,
			    (unsigned long long)d.lost_records, (unsigned long long)d.lost_bytes);
	}
}

/* Added if it is not there. */
static int add_subscriber(const struct jlog_writer *w, const char *name, struct jlog_id oldest)
{
	struct jlog_dropped d;
	struct jlog_id at;
	int rc = jlog_subscriber_add(w->directory, name, oldest);

	if (rc == 0) {
		tell_gap(w, name, oldest);
		return 0;
	}
	if (rc != -EEXIST) {
		return rc;
	}
	if (jlog_checkpoint_read(w->directory, name, &at) == 0 &&
	    !jlog_dropped_get(w->directory, name, at, &d)) {
		jlog_dropped_forget(w->directory, name);
	}
	return 0;
}

static int add_subscribers(struct jlog_writer *w, const struct jlog_options *o)
{
	struct jlog_segments list;
	struct jlog_id oldest = {.log = w->log};
	int rc = jlog_segments_list(w->directory, &list);

	if (rc != 0) {
		return rc;
	}
	if (list.count > 0) {
		oldest.log = list.items[0].log;
	}
	jlog_segments_free(&list);
	for (unsigned i = 0; rc == 0 && i < o->subscriber_count; i++) {
		rc = add_subscriber(w, o->subscribers[i], oldest);
	}
	return rc;
}

static void tell(const struct jlog_writer *w, const struct jlog_recovery *found)
{
	if (found->torn_bytes > 0) {
		jlog_report(&w->report, JLOG_REPAIRED,
			    "%llu bytes of a record that was not whole were cut off segment %08x",
			    (unsigned long long)found->torn_bytes, found->storage_log);
	}
	if (found->metastore) {
		jlog_report(&w->report, JLOG_REPAIRED,
			    "the metastore was put right: it goes on with segment %08x",
			    found->storage_log);
	}
	if (found->checkpoints > 0) {
		jlog_report(&w->report, JLOG_REPAIRED,
			    "%u checkpoints were beyond the end and set back", found->checkpoints);
	}
}

static int prepare(struct jlog_writer *w, const struct jlog_options *o)
{
	const struct jlog_meta meta = {
		.unit_limit = w->segment_bytes,
		.safety = w->safety,
		.magic = JLOG_MAGIC,
	};
	struct jlog_recovery found;
	int rc;

	w->directory = jlog_directory_open(o->path);
	if (w->directory < 0) {
		return w->directory;
	}
	w->meta_fd = openat(w->directory, "metastore", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	rc = w->meta_fd < 0 ? -errno : jlog_lock(w->meta_fd, LOCK_WAIT_MS);
	if (rc != 0) {
		return rc;
	}
	rc = jlog_recover(w->directory, w->meta_fd, &meta, &found);
	jlog_unlock(w->meta_fd);
	if (rc == 0) {
		rc = open_segment(w, found.storage_log);
	}
	if (rc == 0) {
		w->counts.torn_bytes = found.torn_bytes;
		tell(w, &found);
		rc = jlog_keep_limit(w->directory, w->log, &w->limit, &w->report);
	}
	/* Behind that: in a journal at its limit they would be dropped as they come. */
	return rc == 0 ? add_subscribers(w, o) : rc;
}

static void release(struct jlog_writer *w)
{
	if (w->fd >= 0) {
		close(w->fd);
	}
	if (w->meta_fd >= 0) {
		close(w->meta_fd);
	}
	if (w->directory >= 0) {
		close(w->directory);
	}
	w->magic = 0;
	free(w);
}

int jlog_writer_open(struct jlog_writer **writer, const struct jlog_options *o)
{
	struct jlog_writer *w = calloc(1, sizeof(*w));
	int rc;

	if (w == NULL) {
		fatal("out of memory for journal %s", o->path);
	}
	w->magic = WRITER_MAGIC;
	w->directory = w->meta_fd = w->fd = -1;
	w->segment_bytes = o->segment_bytes != 0 ? o->segment_bytes : SEGMENT_DEFAULT;
	if (o->limit_bytes != 0 && w->segment_bytes > o->limit_bytes / SEGMENTS_OF_LIMIT) {
		w->segment_bytes = (uint32_t)(o->limit_bytes / SEGMENTS_OF_LIMIT);
	}
	w->safety = o->safety;
	w->limit = (struct jlog_limit){.bytes = o->limit_bytes, .segment_bytes = w->segment_bytes};
	w->report = o->report;
	if (mkdir(o->path, 0755) != 0 && errno != EEXIST) {
		rc = -errno;
	} else {
		rc = prepare(w, o);
	}
	if (rc != 0) {
		release(w);
		return rc;
	}
	*writer = w;
	return 0;
}

int jlog_writer_sync(struct jlog_writer *w)
{
	int rc;

	CHECK_MAGIC(w, WRITER_MAGIC);
	rc = sync_segment(w);
	if (rc != 0) {
		w->abandoned = true;
	}
	return rc;
}

const struct jlog_writer_counts *jlog_writer_counts(const struct jlog_writer *w)
{
	CHECK_MAGIC(w, WRITER_MAGIC);
	return &w->counts;
}

int jlog_writer_close(struct jlog_writer *w)
{
	int rc = 0;

	if (w == NULL) {
		return 0;
	}
	CHECK_MAGIC(w, WRITER_MAGIC);
	if (w->safety != JLOG_UNSAFE) {
		rc = sync_segment(w);
	}
	release(w);
	return rc;
}
