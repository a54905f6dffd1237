#include "core/log/jlog_dropped.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/log/jlog_subscriber.h"
#include "core/runtime/clock.h"

#define PREFIX "dr."
#define PREFIX_LEN 3
#define MAGIC UINT64_C(0x646570706f72646a)

static int read_file(int directory, const char *file, struct jlog_dropped *d)
{
	ssize_t n;
	int fd = openat(directory, file, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		return -errno;
	}
	n = pread(fd, d, sizeof(*d), 0);
	close(fd);
	return n == sizeof(*d) && d->magic == MAGIC ? 0 : -EBADMSG;
}

/* In one piece, so that no reader sees a part. */
static int write_file(int directory, const char *file, const struct jlog_dropped *d)
{
	int rc = 0;
	int fd = openat(directory, file, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0) {
		return -errno;
	}
	if (pwrite(fd, d, sizeof(*d), 0) != sizeof(*d)) {
		rc = errno != 0 ? -errno : -EIO;
	}
	close(fd);
	return rc;
}

int jlog_dropped_put(int directory, const char *name, struct jlog_id at)
{
	char file[JLOG_SUBSCRIBER_FILE];
	struct jlog_dropped d;
	struct jlog_dropped before;

	if (!jlog_subscriber_file(PREFIX, name, file)) {
		return -EINVAL;
	}
	d = (struct jlog_dropped){
		.magic = MAGIC,
		.wall_ms = clock_system.wall_ns(clock_system.context) / NS_PER_MS,
		.at = at,
		.back_at = {UINT32_MAX, UINT32_MAX},
	};
	if (jlog_dropped_get(directory, name, at, &before)) {
		d.lost_records = before.lost_records;
		d.lost_bytes = before.lost_bytes;
	}
	return write_file(directory, file, &d);
}

static bool is_back(const struct jlog_dropped *d)
{
	return d->back_at.log != UINT32_MAX;
}

static void lose(struct jlog_dropped *d, const struct jlog_segment *s, uint32_t records)
{
	uint32_t passed = d->at.log == s->log ? d->at.marker : 0;

	if (s->log < d->at.log) {
		return;
	}
	if (records > passed) {
		d->lost_records += records - passed;
	}
	/* Of a segment that was begun it is not known without a look at each record. */
	d->lost_bytes += passed == 0 ? s->bytes : 0;
}

void jlog_dropped_lose(int directory, const struct jlog_segment *segment, uint32_t records)
{
	const struct dirent *e;
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *list = fd >= 0 ? fdopendir(fd) : NULL;

	if (list == NULL) {
		if (fd >= 0) {
			close(fd);
		}
		return;
	}
	while ((e = readdir(list)) != NULL) {
		struct jlog_dropped d;

		if (strncmp(e->d_name, PREFIX, PREFIX_LEN) == 0 &&
		    read_file(directory, e->d_name, &d) == 0 && !is_back(&d)) {
			lose(&d, segment, records);
			(void)write_file(directory, e->d_name, &d);
		}
	}
	closedir(list);
}

void jlog_dropped_return(int directory, const char *name, struct jlog_id at)
{
	char file[JLOG_SUBSCRIBER_FILE];
	struct jlog_dropped d;

	if (jlog_subscriber_file(PREFIX, name, file) && read_file(directory, file, &d) == 0) {
		d.back_at = at;
		(void)write_file(directory, file, &d);
	}
}

bool jlog_dropped_get(int directory, const char *name, struct jlog_id checkpoint,
		      struct jlog_dropped *dropped)
{
	char file[JLOG_SUBSCRIBER_FILE];

	return jlog_subscriber_file(PREFIX, name, file) &&
	       read_file(directory, file, dropped) == 0 && is_back(dropped) &&
	       jlog_id_compare(dropped->back_at, checkpoint) == 0;
}

void jlog_dropped_forget(int directory, const char *name)
{
	char file[JLOG_SUBSCRIBER_FILE];

	if (jlog_subscriber_file(PREFIX, name, file)) {
		(void)unlinkat(directory, file, 0);
	}
}
