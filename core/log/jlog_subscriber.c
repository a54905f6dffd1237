#include "core/log/jlog_subscriber.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/log/jlog_directory.h"
#include "core/log/jlog_dropped.h"
#include "core/runtime/check.h"
#include "core/runtime/hex.h"

#define PREFIX "cp."
#define PREFIX_LEN 3
#define LOCK_WAIT_MS 1000

bool jlog_subscriber_file(const char *prefix, const char *name, char file[JLOG_SUBSCRIBER_FILE])
{
	size_t len = strnlen(name, JLOG_SUBSCRIBER_MAX + 1);

	if (len == 0 || len > JLOG_SUBSCRIBER_MAX) {
		return false;
	}
	memcpy(file, prefix, PREFIX_LEN + 1);
	for (size_t i = 0; i < len; i++) {
		snprintf(file + PREFIX_LEN + 2 * i, 3, "%02x", (unsigned char)name[i]);
	}
	return true;
}

/* Of its checkpoint. */
static bool file_name(const char *name, char file[JLOG_SUBSCRIBER_FILE])
{
	return jlog_subscriber_file(PREFIX, name, file);
}

/* Whose checkpoint it is; false: no file of a checkpoint. */
static bool name_of(const char *file, char name[JLOG_SUBSCRIBER_MAX + 1])
{
	size_t len = strlen(file);
	size_t n = 0;

	if (strncmp(file, PREFIX, PREFIX_LEN) != 0 || len == PREFIX_LEN ||
	    (len - PREFIX_LEN) % 2 != 0 || (len - PREFIX_LEN) / 2 > JLOG_SUBSCRIBER_MAX) {
		return false;
	}
	for (const char *at = file + PREFIX_LEN; *at != '\0'; at += 2) {
		int high = hex_own_value(at[0]);
		int low = hex_own_value(at[1]);

		if (high < 0 || low < 0 || (high == 0 && low == 0)) {
			return false;
		}
		name[n++] = (char)(high << 4 | low);
	}
	name[n] = '\0';
	return true;
}

/* A number of the file is read in one piece; so without a lock what comes is old or new. */
static int read_checkpoint(int directory, const char *file, struct jlog_id *id)
{
	struct jlog_id found;
	ssize_t n;
	int rc = 0;
	int fd = openat(directory, file, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		return errno == ENOENT ? -ESRCH : -errno;
	}
	n = pread(fd, &found, sizeof(found), 0);
	if (n < 0) {
		rc = -errno;
	} else {
		*id = n == sizeof(found) ? found : (struct jlog_id){0};
	}
	close(fd);
	return rc;
}

static int compare_names(const void *a, const void *b)
{
	const struct jlog_subscriber *x = a;
	const struct jlog_subscriber *y = b;

	return strcmp(x->name, y->name);
}

static void add_item(struct jlog_subscribers *list, const struct jlog_subscriber *s)
{
	if ((list->count & (list->count - 1)) == 0) {
		unsigned size = list->count == 0 ? 1 : 2 * list->count;

		list->items = check_memory(realloc(list->items, size * sizeof(list->items[0])),
					   "the subscribers of a journal");
	}
	list->items[list->count++] = *s;
}

int jlog_subscribers_list(int directory, struct jlog_subscribers *list)
{
	const struct dirent *e;
	DIR *d;
	int rc = 0;
	int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	*list = (struct jlog_subscribers){0};
	d = fd >= 0 ? fdopendir(fd) : NULL;
	if (d == NULL) {
		rc = -errno;
		if (fd >= 0) {
			close(fd);
		}
		return rc;
	}
	while (rc == 0 && (e = readdir(d)) != NULL) {
		struct jlog_subscriber s = {0};

		if (name_of(e->d_name, s.name)) {
			rc = read_checkpoint(directory, e->d_name, &s.checkpoint);
			if (rc == 0) {
				add_item(list, &s);
			}
			rc = rc == -ESRCH ? 0 : rc;
		}
	}
	closedir(d);
	if (rc != 0) {
		jlog_subscribers_free(list);
	} else if (list->count > 0) {
		qsort(list->items, list->count, sizeof(list->items[0]), compare_names);
	}
	return rc;
}

void jlog_subscribers_free(struct jlog_subscribers *list)
{
	free(list->items);
	*list = (struct jlog_subscribers){0};
}

int jlog_subscriber_add(int directory, const char *name, struct jlog_id at)
{
	char file[JLOG_SUBSCRIBER_FILE];
	char fresh[32];
	int rc = 0;
	int fd;

	if (!file_name(name, file)) {
		return -EINVAL;
	}
	/* Whoever lists subscribers must not find one without a checkpoint. */
	snprintf(fresh, sizeof(fresh), "new.%ld", (long)getpid());
	fd = openat(directory, fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0) {
		return -errno;
	}
	if (pwrite(fd, &at, sizeof(at), 0) != sizeof(at) || fdatasync(fd) != 0 ||
	    linkat(directory, fresh, directory, file, 0) != 0) {
		rc = errno != 0 ? -errno : -EIO;
	}
	close(fd);
	unlinkat(directory, fresh, 0);
	if (rc == 0) {
		jlog_dropped_return(directory, name, at);
	}
	return rc;
}

int jlog_subscriber_remove(int directory, const char *name)
{
	char file[JLOG_SUBSCRIBER_FILE];

	if (!file_name(name, file)) {
		return -ESRCH;
	}
	if (unlinkat(directory, file, 0) != 0) {
		return errno == ENOENT ? -ESRCH : -errno;
	}
	return 0;
}

int jlog_checkpoint_read(int directory, const char *name, struct jlog_id *id)
{
	char file[JLOG_SUBSCRIBER_FILE];

	return file_name(name, file) ? read_checkpoint(directory, file, id) : -ESRCH;
}

int jlog_checkpoint_write(int directory, const char *name, struct jlog_id id, bool sync)
{
	char file[JLOG_SUBSCRIBER_FILE];
	ssize_t n;
	int fd;
	int rc;

	if (!file_name(name, file)) {
		return -ESRCH;
	}
	fd = openat(directory, file, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		return errno == ENOENT ? -ESRCH : -errno;
	}
	rc = jlog_lock(fd, LOCK_WAIT_MS);
	if (rc == 0) {
		n = pwrite(fd, &id, sizeof(id), 0);
		if (n != sizeof(id)) {
			rc = n < 0 ? -errno : -EIO;
		} else if (sync && fdatasync(fd) != 0) {
			rc = -errno;
		}
		jlog_unlock(fd);
	}
	close(fd);
	return rc;
}
