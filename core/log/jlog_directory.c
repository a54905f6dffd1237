#include "core/log/jlog_directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/runtime/check.h"
#include "core/runtime/hex.h"

#define LOCK_STEP_NS 5000000L

int jlog_directory_open(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int meta_check(const struct jlog_meta *meta)
{
	if ((meta->magic & JLOG_MAGIC_COMPRESSED) == JLOG_MAGIC_COMPRESSED) {
		return -EPROTONOSUPPORT;
	}
	if (meta->magic != JLOG_MAGIC || meta->unit_limit == 0 || meta->safety > JLOG_SAFE) {
		return -EBADMSG;
	}
	return 0;
}

int jlog_meta_read(int directory, struct jlog_meta *meta)
{
	struct jlog_meta found;
	ssize_t n;
	int rc;
	int fd = openat(directory, "metastore", O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		return -errno;
	}
	n = pread(fd, &found, sizeof(found), 0);
	rc = n < 0 ? -errno : 0;
	close(fd);
	if (rc == 0) {
		rc = n == sizeof(found) ? meta_check(&found) : -EBADMSG;
	}
	if (rc == 0) {
		*meta = found;
	}
	return rc;
}

int jlog_storage_log(int directory, uint32_t *log)
{
	struct jlog_segments list;
	struct jlog_meta meta;
	int rc = jlog_meta_read(directory, &meta);

	if (rc == 0) {
		*log = meta.storage_log;
		return 0;
	}
	if (rc != -ENOENT && rc != -EBADMSG) {
		return rc;
	}
	rc = jlog_segments_list(directory, &list);
	if (rc == 0) {
		*log = list.count > 0 ? list.items[list.count - 1].log : 0;
		jlog_segments_free(&list);
	}
	return rc;
}

int jlog_lock(int fd, unsigned wait_ms)
{
	const struct timespec step = {.tv_nsec = LOCK_STEP_NS};
	long tries = 1 + (long)wait_ms * 1000000L / LOCK_STEP_NS;

	for (;;) {
		struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

		if (fcntl(fd, F_OFD_SETLK, &lock) == 0) {
			return 0;
		}
		if (errno != EAGAIN && errno != EACCES && errno != EINTR) {
			return -errno;
		}
		if (--tries <= 0) {
			return -EAGAIN;
		}
		nanosleep(&step, NULL);
	}
}

void jlog_unlock(int fd)
{
	struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};

	fcntl(fd, F_OFD_SETLK, &lock);
}

/* ---- segments ---- */

void jlog_segment_name(uint32_t log, char name[JLOG_SEGMENT_NAME])
{
	snprintf(name, JLOG_SEGMENT_NAME, "%08x", log);
}

void jlog_index_name(uint32_t log, char name[JLOG_INDEX_NAME])
{
	snprintf(name, JLOG_INDEX_NAME, "%08x.idx", log);
}

bool jlog_segment_parse(const char *name, uint32_t *log)
{
	uint32_t value = 0;

	for (unsigned i = 0; i < JLOG_SEGMENT_NAME - 1; i++) {
		int digit = hex_own_value(name[i]);

		if (digit < 0) {
			return false;
		}
		value = value << 4 | (uint32_t)digit;
	}
	*log = value;
	return name[JLOG_SEGMENT_NAME - 1] == '\0';
}

int jlog_segment_open(int directory, uint32_t log, int flags)
{
	char name[JLOG_SEGMENT_NAME];
	int fd;

	jlog_segment_name(log, name);
	fd = openat(directory, name, flags | O_CLOEXEC, 0644);
	return fd < 0 ? -errno : fd;
}

static int compare_segments(const void *a, const void *b)
{
	const struct jlog_segment *x = a;
	const struct jlog_segment *y = b;

	return (x->log > y->log) - (x->log < y->log);
}

/* Sizes are 0 of what was removed meanwhile. */
static struct jlog_segment describe(int directory, uint32_t log)
{
	struct jlog_segment s = {.log = log};
	char name[JLOG_INDEX_NAME];
	struct stat st;

	jlog_segment_name(log, name);
	if (fstatat(directory, name, &st, 0) == 0) {
		s.bytes = (uint64_t)st.st_size;
	}
	jlog_index_name(log, name);
	if (fstatat(directory, name, &st, 0) == 0) {
		s.index_bytes = (uint64_t)st.st_size;
	}
	return s;
}

static void add_segment(struct jlog_segments *list, struct jlog_segment s)
{
	if ((list->count & (list->count - 1)) == 0) {
		unsigned size = list->count == 0 ? 1 : 2 * list->count;

		list->items = check_memory(realloc(list->items, size * sizeof(list->items[0])),
					   "the segments of a journal");
	}
	list->items[list->count++] = s;
}

int jlog_segments_list(int directory, struct jlog_segments *list)
{
	const struct dirent *e;
	uint32_t log;
	DIR *d;
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	*list = (struct jlog_segments){0};
	d = fd >= 0 ? fdopendir(fd) : NULL;
	if (d == NULL) {
		int rc = -errno;

		if (fd >= 0) {
			close(fd);
		}
		return rc;
	}
	while ((e = readdir(d)) != NULL) {
		if (jlog_segment_parse(e->d_name, &log)) {
			add_segment(list, describe(directory, log));
		}
	}
	closedir(d);
	if (list->count > 0) {
		qsort(list->items, list->count, sizeof(list->items[0]), compare_segments);
	}
	return 0;
}

void jlog_segments_free(struct jlog_segments *list)
{
	free(list->items);
	*list = (struct jlog_segments){0};
}

int jlog_segment_remove(int directory, uint32_t log)
{
	char name[JLOG_INDEX_NAME];

	jlog_segment_name(log, name);
	if (unlinkat(directory, name, 0) != 0 && errno != ENOENT) {
		return -errno;
	}
	jlog_index_name(log, name);
	if (unlinkat(directory, name, 0) != 0 && errno != ENOENT) {
		return -errno;
	}
	return 0;
}
