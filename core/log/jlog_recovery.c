#include "core/log/jlog_recovery.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/log/jlog_directory.h"
#include "core/log/jlog_index.h"
#include "core/log/jlog_scan.h"
#include "core/log/jlog_subscriber.h"

#define LOCK_WAIT_MS 1000
#define UNIT_LIMIT_DEFAULT (4U << 20)

/* ---- the metastore ---- */

static uint32_t last_checkpoint_log(int directory)
{
	struct jlog_subscribers list;
	uint32_t log = 0;

	if (jlog_subscribers_list(directory, &list) == 0) {
		for (unsigned i = 0; i < list.count; i++) {
			if (list.items[i].checkpoint.log > log) {
				log = list.items[i].checkpoint.log;
			}
		}
		jlog_subscribers_free(&list);
	}
	return log;
}

/* The segment to go on with. Files say it; the metastore may be one behind (it was about to be
 * written) or ahead (a new file was lost in a power cut), and is not believed beyond that. */
static int choose_storage_log(int directory, const struct jlog_meta *meta, uint32_t *log)
{
	struct jlog_segments list;
	int rc = jlog_segments_list(directory, &list);

	if (rc != 0) {
		return rc;
	}
	if (list.count == 0) {
		*log = meta != NULL ? meta->storage_log : last_checkpoint_log(directory);
	} else {
		*log = list.items[list.count - 1].log;
		if (meta != NULL && meta->storage_log > *log) {
			(*log)++;
		}
	}
	jlog_segments_free(&list);
	return 0;
}

static int write_meta(int fd, const struct jlog_meta *meta, bool sync)
{
	ssize_t n = pwrite(fd, meta, sizeof(*meta), 0);

	if (n != sizeof(*meta)) {
		return n < 0 ? -errno : -ENOSPC;
	}
	if (ftruncate(fd, sizeof(*meta)) != 0 || (sync && fdatasync(fd) != 0)) {
		return -errno;
	}
	return 0;
}

/* ---- the segment that is written ---- */

/* Cuts off a record that is not whole. `*records` is the number of those that are; 1: there is more
 * after something that is no record, so nobody should append. */
static int mend_tail(int fd, uint32_t log, uint32_t *records, struct jlog_recovery *found)
{
	struct jlog_scan scan;
	struct jlog_record r;
	struct stat st;
	int rc;

	jlog_scan_begin(&scan, fd, log);
	while ((rc = jlog_scan_next(&scan, &r)) == 1) {
	}
	rc = rc == -EBADMSG ? 0 : rc;
	if (rc == 0 && fstat(fd, &st) != 0) {
		rc = -errno;
	}
	if (rc == 0 && (uint64_t)st.st_size > scan.offset) {
		uint64_t end = scan.offset;

		rc = jlog_scan_skip(&scan);
		if (rc == 0) {
			found->torn_bytes += (uint64_t)st.st_size - end;
			rc = ftruncate(fd, (off_t)end) == 0 ? 0 : -errno;
		}
		while (rc == 1 && jlog_scan_next_closed(&scan, &r) == 1) {
		}
	}
	*records = scan.last.marker;
	jlog_scan_end(&scan);
	return rc;
}

/* Looks at the segment that is written; `*end` is its end. 1: nobody may append to it. */
static int mend_segment(int directory, struct jlog_id *end, struct jlog_recovery *found)
{
	int rc;
	int fd = jlog_segment_open(directory, end->log, O_RDWR);

	if (fd < 0) {
		return fd == -ENOENT ? 0 : fd;
	}
	rc = jlog_lock(fd, LOCK_WAIT_MS);
	if (rc == 0) {
		rc = mend_tail(fd, end->log, &end->marker, found);
		jlog_unlock(fd);
	}
	close(fd);
	if (rc == 0) {
		rc = jlog_index_sync(directory, end->log, false);
	}
	return rc;
}

/* ---- checkpoints ---- */

static int mend_checkpoint(int directory, const struct jlog_subscriber *s, struct jlog_id oldest,
			   struct jlog_id end, struct jlog_recovery *found)
{
	struct jlog_id right = s->checkpoint;

	if (right.log == 0 && right.marker == 0) {
		right = oldest;
	} else if (jlog_id_compare(right, end) > 0) {
		right = end;
		found->checkpoints++;
	} else {
		return 0;
	}
	/* Not ours to write, as it seems; its reader knows what to do with it. */
	(void)jlog_checkpoint_write(directory, s->name, right, false);
	return 0;
}

/* `ends`: that of the segment found first, and of the one that is written. */
static int mend_checkpoints(int directory, const struct jlog_id ends[2],
			    struct jlog_recovery *found)
{
	struct jlog_subscribers list;
	struct jlog_segments segments;
	struct jlog_id oldest = {.log = ends[1].log};
	int rc = jlog_segments_list(directory, &segments);

	if (rc != 0) {
		return rc;
	}
	if (segments.count > 0) {
		oldest.log = segments.items[0].log;
	}
	jlog_segments_free(&segments);
	rc = jlog_subscribers_list(directory, &list);
	for (unsigned i = 0; rc == 0 && i < list.count; i++) {
		const struct jlog_subscriber *s = &list.items[i];

		rc = mend_checkpoint(directory, s, oldest, ends[s->checkpoint.log > ends[0].log],
				     found);
	}
	jlog_subscribers_free(&list);
	return rc;
}

/* ---- all of it ---- */

int jlog_recover(int directory, int meta_fd, const struct jlog_meta *wanted,
		 struct jlog_recovery *found)
{
	struct jlog_meta meta = *wanted;
	struct jlog_meta had = {0};
	struct jlog_id ends[2] = {{0}};
	struct stat st;
	int rc = jlog_meta_read(directory, &had);
	bool sound = rc == 0;

	*found = (struct jlog_recovery){0};
	if (rc != 0 && rc != -EBADMSG) {
		return rc;
	}
	if (fstat(meta_fd, &st) != 0) {
		return -errno;
	}
	rc = choose_storage_log(directory, sound ? &had : NULL, &ends[0].log);
	if (rc != 0) {
		return rc;
	}
	ends[1] = ends[0];
	rc = mend_segment(directory, &ends[0], found);
	if (rc < 0) {
		return rc;
	}
	if (rc == 1) {
		ends[1].log++;
	} else {
		ends[1] = ends[0];
	}
	meta.storage_log = found->storage_log = ends[1].log;
	/* A new journal's is empty. */
	found->metastore = st.st_size > 0 && (!sound || had.storage_log != meta.storage_log);
	if (!sound || memcmp(&meta, &had, sizeof(meta)) != 0) {
		rc = write_meta(meta_fd, &meta, meta.safety == JLOG_SAFE);
	} else {
		rc = 0;
	}
	return rc == 0 ? mend_checkpoints(directory, ends, found) : rc;
}

/* Copies what is whole of a segment. */
static int copy_records(int from, uint32_t log, int to, uint64_t *bytes)
{
	struct jlog_scan scan;
	struct jlog_record r;
	int rc;

	*bytes = 0;
	jlog_scan_begin(&scan, from, log);
	while ((rc = jlog_scan_next_closed(&scan, &r)) == 1) {
		size_t len = JLOG_HEADER_BYTES + r.len;

		/* Its header stands before it. */
		if (to >= 0 &&
		    pwrite(to, r.data - JLOG_HEADER_BYTES, len, (off_t)*bytes) != (ssize_t)len) {
			rc = -EIO;
			break;
		}
		*bytes += len;
	}
	jlog_scan_end(&scan);
	return rc;
}

/* A file without what is no record takes the segment's place. Its markers stay what they are. */
static int rewrite_segment(int directory, uint32_t log, int from)
{
	char fresh[32];
	char name[JLOG_INDEX_NAME];
	uint64_t bytes;
	int rc;
	int to;

	snprintf(fresh, sizeof(fresh), "new.%ld", (long)getpid());
	to = openat(directory, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (to < 0) {
		return -errno;
	}
	rc = copy_records(from, log, to, &bytes);
	if (rc == 0 && fdatasync(to) != 0) {
		rc = -errno;
	}
	close(to);
	jlog_segment_name(log, name);
	if (rc == 0 && renameat(directory, fresh, directory, name) != 0) {
		rc = -errno;
	}
	if (rc != 0) {
		unlinkat(directory, fresh, 0);
		return rc;
	}
	jlog_index_name(log, name);
	unlinkat(directory, name, 0);
	return 0;
}

static int repair_segment(int directory, const struct jlog_segment *s, struct jlog_recovery *found)
{
	uint64_t whole;
	int rc;
	int fd = jlog_segment_open(directory, s->log, O_RDONLY);

	if (fd < 0) {
		return fd == -ENOENT ? 0 : fd;
	}
	rc = copy_records(fd, s->log, -1, &whole);
	if (rc == 0 && whole < s->bytes) {
		rc = rewrite_segment(directory, s->log, fd);
		found->damaged_bytes += rc == 0 ? s->bytes - whole : 0;
	}
	close(fd);
	if (rc != 0) {
		return rc;
	}
	if (whole == 0) {
		return jlog_segment_remove(directory, s->log);
	}
	rc = jlog_index_sync(directory, s->log, true);
	return rc == 1 ? 0 : rc;
}

static int repair_all(int directory, int meta_fd, struct jlog_recovery *found)
{
	struct jlog_meta meta = {
		.unit_limit = UNIT_LIMIT_DEFAULT,
		.safety = JLOG_ALMOST_SAFE,
		.magic = JLOG_MAGIC,
	};
	struct jlog_segments list;
	int rc = jlog_meta_read(directory, &meta);

	if (rc == 0 || rc == -EBADMSG) {
		rc = jlog_recover(directory, meta_fd, &meta, found);
	}
	if (rc == 0) {
		rc = jlog_segments_list(directory, &list);
	}
	if (rc != 0) {
		return rc;
	}
	for (unsigned i = 0; rc == 0 && i < list.count; i++) {
		if (list.items[i].log < found->storage_log) {
			rc = repair_segment(directory, &list.items[i], found);
		}
	}
	jlog_segments_free(&list);
	return rc;
}

int jlog_repair(const char *path, struct jlog_recovery *found)
{
	int meta_fd;
	int rc;
	int directory = jlog_directory_open(path);

	*found = (struct jlog_recovery){0};
	if (directory < 0) {
		return directory;
	}
	meta_fd = openat(directory, "metastore", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	rc = meta_fd < 0 ? -errno : jlog_lock(meta_fd, LOCK_WAIT_MS);
	if (rc == 0) {
		rc = repair_all(directory, meta_fd, found);
	}
	if (meta_fd >= 0) {
		close(meta_fd);
	}
	close(directory);
	return rc;
}
