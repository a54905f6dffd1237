#include "agents/log_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/runtime/check.h"

/* Buffers given to one writev. */
#define GATHER_PIECES 16

BOUND
struct log_file {
	struct log_output base;
	int fd;
	/* The file ends in a part of a line: the program was killed while it wrote. */
	bool torn;
};

static struct log_file *log_file_of(struct log_output *o)
{
	return CONTAINER_OF(o, struct log_file, base);
}

static void log_file_frame(struct log_output *o, char *record, size_t len)
{
	(void)o;
	record[len] = '\n';
}

/* Does a file that is there end in the middle of a line? */
static bool ends_torn(const char *path, int fd)
{
	struct stat st;
	char last = '\n';
	int reader;

	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size == 0) {
		return false;
	}
	reader = open(path, O_RDONLY | O_CLOEXEC);
	if (reader < 0) {
		return false;
	}
	if (pread(reader, &last, 1, st.st_size - 1) != 1) {
		last = '\n';
	}
	close(reader);
	return last != '\n';
}

static int open_file(struct log_file *f)
{
	int fd = open(f->base.path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);

	if (fd < 0) {
		return -errno;
	}
	f->torn = ends_torn(f->base.path, fd);
	f->fd = fd;
	return 0;
}

static ssize_t log_file_write(struct log_output *o)
{
	struct log_file *f = log_file_of(o);
	struct iovec iov[GATHER_PIECES];
	ssize_t n;

	if (f->torn) {
		n = write(f->fd, "\n", 1);
		f->torn = n != 1;
		return n < 0 ? -errno : 0;
	}
	n = writev(f->fd, iov, log_output_gather(o, iov, GATHER_PIECES, UINT64_MAX));
	return n < 0 ? -errno : n;
}

static int log_file_reopen(struct log_output *o)
{
	struct log_file *f = log_file_of(o);
	int old = f->fd;
	int rc = open_file(f);

	if (rc == 0) {
		close(old);
	}
	return rc;
}

static int log_file_sync(struct log_output *o)
{
	if (fdatasync(log_file_of(o)->fd) == 0) {
		return 0;
	}
	/* EINVAL: not a file that can be synced, such as a device. */
	return errno == EINVAL || errno == EROFS ? 0 : -errno;
}

static void log_file_close(struct log_output *o)
{
	struct log_file *f = log_file_of(o);

	if (f->fd >= 0) {
		close(f->fd);
	}
	log_output_free(o);
	free(f);
}

static const struct log_output_ops log_file_ops = {
	.kind = "log file",
	.tail = 1,
	.frame = log_file_frame,
	.write = log_file_write,
	.reopen = log_file_reopen,
	.sync = log_file_sync,
	.close = log_file_close,
};

int log_file_open(struct log_output **out, struct log_output_host *h, const char *name,
		  FILE *errors)
{
	struct log_file *f = calloc(1, sizeof(*f));
	int rc;

	if (f == NULL) {
		fatal("out of memory for log file %s", name);
	}
	f->fd = -1;
	log_output_init(&f->base, &log_file_ops, h, name);
	rc = open_file(f);
	if (rc != 0) {
		fprintf(errors, "cannot open log file %s: %s\n", f->base.path, strerror(-rc));
		log_file_close(&f->base);
		return rc;
	}
	*out = &f->base;
	return 0;
}
