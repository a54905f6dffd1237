#include "tests/unit/spool_disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/runtime/check.h"

#define SECTOR 512U
#define DIRECT_ALIGN 4096U

/* ---- files ---- */

static void path_of(char *out, size_t size, const char *dir, const char *name)
{
	ASSERT((size_t)snprintf(out, size, "%s/%s", dir, name) < size);
}

static unsigned char *read_file(const char *path, size_t *size)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	unsigned char *data;

	ASSERT(f != NULL && fstat(fileno(f), &st) == 0);
	*size = (size_t)st.st_size;
	data = malloc(*size + 1);
	ASSERT(data != NULL && fread(data, 1, *size, f) == *size);
	fclose(f);
	return data;
}

static void write_file(const char *path, const unsigned char *data, size_t size)
{
	FILE *f = fopen(path, "wb");

	ASSERT(f != NULL && fwrite(data, 1, size, f) == size);
	ASSERT(fclose(f) == 0);
}

static void each_file(const char *dir, void (*each)(void *context, const char *name), void *context)
{
	DIR *d = opendir(dir);
	const struct dirent *e;

	ASSERT(d != NULL);
	while ((e = readdir(d)) != NULL) {
		if (e->d_name[0] != '.') {
			each(context, e->d_name);
		}
	}
	closedir(d);
}

struct pair {
	const char *from;
	const char *to;
	struct disk *disk;
	unsigned percent;
};

static void copy_one(void *context, const char *name)
{
	const struct pair *p = context;
	char from[512];
	char to[512];
	size_t size;
	unsigned char *data;

	path_of(from, sizeof(from), p->from, name);
	path_of(to, sizeof(to), p->to, name);
	data = read_file(from, &size);
	write_file(to, data, size);
	free(data);
}

void disk_copy_directory(const char *from, const char *to)
{
	struct pair p = {.from = from, .to = to};

	ASSERT(mkdir(to, 0700) == 0);
	each_file(from, copy_one, &p);
}

static void remove_one(void *context, const char *name)
{
	char path[512];

	path_of(path, sizeof(path), context, name);
	ASSERT(remove(path) == 0);
}

void disk_remove_directory(const char *path)
{
	each_file(path, remove_one, (void *)(uintptr_t)path);
	ASSERT(rmdir(path) == 0);
}

/* ---- the disk ---- */

uint64_t disk_random(struct disk *d)
{
	d->seed ^= d->seed << 13;
	d->seed ^= d->seed >> 7;
	d->seed ^= d->seed << 17;
	return d->seed;
}

static struct disk_file *disk_find(struct disk *d, const char *name)
{
	struct disk_file *f = d->files;

	while (f != NULL && strcmp(f->name, name) != 0) {
		f = f->next;
	}
	return f;
}

/* The file behind a descriptor. At first sight all of it is durable: it was just made, or found. */
static struct disk_file *disk_file(struct disk *d, int fd)
{
	char link[64];
	char path[512];
	ssize_t n;
	struct disk_file *f;
	const char *name;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	ASSERT(n > 0);
	path[n] = '\0';
	name = strrchr(path, '/') + 1;
	f = disk_find(d, name);
	if (f == NULL) {
		f = calloc(1, sizeof(*f));
		ASSERT(f != NULL && strlen(name) < sizeof(f->name));
		strcpy(f->name, name);
		f->durable = read_file(path, &f->size);
		f->last = &f->first;
		f->next = d->files;
		d->files = f;
	}
	return f;
}

static void apply_write(struct disk_file *f, uint64_t offset, const unsigned char *data, size_t len)
{
	if (offset + len > f->size) {
		f->durable = realloc(f->durable, offset + len);
		ASSERT(f->durable != NULL);
		memset(f->durable + f->size, 0, offset + len - f->size);
		f->size = offset + len;
	}
	memcpy(f->durable + offset, data, len);
}

static void drop_writes(struct disk_file *f, bool apply)
{
	while (f->first != NULL) {
		struct disk_write *x = f->first;

		if (apply) {
			apply_write(f, x->offset, x->data, x->len);
		}
		f->first = x->next;
		free(x);
	}
	f->last = &f->first;
}

static struct disk_write *write_new(const struct mux_op *op, size_t len)
{
	struct disk_write *x = malloc(sizeof(*x) + len);

	ASSERT(x != NULL);
	x->next = NULL;
	x->offset = op->offset;
	x->len = len;
	memcpy(x->data, op->data, len);
	return x;
}

/* What is not durable yet must not undo it later: where both have written, it is the same now. */
static void apply_synced(struct disk_file *f, const struct disk_write *x)
{
	apply_write(f, x->offset, x->data, x->len);
	for (struct disk_write *y = f->first; y != NULL; y = y->next) {
		uint64_t from = x->offset > y->offset ? x->offset : y->offset;
		uint64_t to = x->offset + x->len < y->offset + y->len ? x->offset + x->len
								      : y->offset + y->len;

		if (from < to) {
			memcpy(y->data + (from - y->offset), x->data + (from - x->offset),
			       to - from);
		}
	}
}

static bool is_direct(const struct mux_op *op)
{
	return (fcntl(op->fd, F_GETFL) & O_DIRECT) != 0;
}

/* As Linux does, for every disk. */
static void check_aligned(const struct mux_op *op)
{
	ASSERT(!is_direct(op) || ((uintptr_t)op->data | op->len | op->offset) % DIRECT_ALIGN == 0);
}

static int disk_write(struct disk *d, struct mux_op *op, uint32_t len)
{
	struct disk_file *f = disk_file(d, op->fd);
	bool direct = is_direct(op);
	struct disk_write *x;
	ssize_t n;

	if (direct && len % SECTOR != 0) {
		len = len < SECTOR ? SECTOR : len - len % SECTOR;
	}
	n = pwrite(op->fd, op->data, len, (off_t)op->offset);
	d->writes++;
	d->direct_writes += direct;
	d->synced_writes += op->synced;
	if (n <= 0) {
		return n == 0 ? 0 : -errno;
	}
	x = write_new(op, (size_t)n);
	if (op->synced) {
		apply_synced(f, x);
		free(x);
	} else {
		*f->last = x;
		f->last = &x->next;
	}
	return (int)n;
}

static void apply_sectors(struct disk *d, unsigned char *image, size_t size,
			  const struct disk_write *x, unsigned percent);

/* Of a synced write that failed any sectors are there. */
static void tear_write(struct disk *d, const struct mux_op *op)
{
	struct disk_file *f = disk_file(d, op->fd);
	struct disk_write *x = write_new(op, op->len);

	apply_sectors(d, f->durable, f->size, x, 50);
	free(x);
}

/* After a failed sync nobody knows what is on the disk, and nothing of it is written again. */
static void lose_writes(struct disk *d, struct disk_file *f)
{
	for (const struct disk_write *x = f->first; x != NULL; x = x->next) {
		apply_sectors(d, f->durable, f->size, x, 50);
	}
	drop_writes(f, false);
}

static int disk_run(struct disk *d, struct mux_op *op)
{
	int fault = d->on_fault != NULL ? d->on_fault(d->world, op) : 0;
	ssize_t n;

	if (op->cancelled) {
		return -ECANCELED;
	}
	if (fault < 0) {
		if (op->verb == MUX_FSYNC) {
			lose_writes(d, disk_file(d, op->fd));
		} else if (op->verb == MUX_WRITE && op->synced && fault != -EINVAL) {
			tear_write(d, op);
		}
		return fault;
	}
	switch (op->verb) {
	case MUX_WRITE:
		return disk_write(d, op, fault > 0 ? (uint32_t)fault : op->len);
	case MUX_READ:
		n = pread(op->fd, op->data, op->len, (off_t)op->offset);
		return n < 0 ? -errno : (int)n;
	case MUX_FSYNC:
		d->syncs++;
		drop_writes(disk_file(d, op->fd), true);
		return 0;
	default:
		fatal("the simulated disk knows only files");
	}
}

static void disk_start(struct mux *m, struct mux_op *op)
{
	struct disk *d = (struct disk *)(void *)m;

	if (op->verb == MUX_WRITE || op->verb == MUX_FSYNC) {
		disk_file(d, op->fd);
	}
	if (op->verb != MUX_FSYNC) {
		check_aligned(op);
	}
	mux_list_push(&d->ops, op);
}

static int disk_reap(struct mux *m, int limit)
{
	struct disk *d = (struct disk *)(void *)m;
	int ran = 0;
	unsigned waiting = m->pending;

	while (waiting-- > 0 && ran < limit && (d->per_reap == 0 || ran < d->per_reap)) {
		struct mux_op *op = mux_list_pop(&d->ops);
		int result;

		if (op == NULL) {
			break;
		}
		result = disk_run(d, op);
		if (d->on_op != NULL) {
			d->on_op(d->world);
		}
		ran++;
		mux_finish(m, op, result);
	}
	return ran;
}

static void disk_cancel(struct mux *m, struct mux_op *op)
{
	(void)m;
	(void)op;
}

static void disk_close_fd(struct mux *m, int fd)
{
	(void)m;
	close(fd);
}

static void disk_watch(struct mux *m, int fd)
{
	(void)m;
	(void)fd;
}

static void disk_submit(struct mux *m)
{
	(void)m;
}

static bool disk_ready(struct mux *m)
{
	return m->pending > 0;
}

static bool disk_wait(struct mux *m, uint64_t timeout_ns)
{
	(void)timeout_ns;
	return m->pending > 0;
}

static void disk_destroy(struct mux *m)
{
	struct disk *d = (struct disk *)(void *)m;

	while (d->files != NULL) {
		struct disk_file *f = d->files;

		d->files = f->next;
		drop_writes(f, false);
		free(f->durable);
		free(f);
	}
	d->base.magic = 0;
}

static const struct mux_ops disk_ops = {
	.name = "sim",
	.start = disk_start,
	.cancel = disk_cancel,
	.close_fd = disk_close_fd,
	.watch_doorbell = disk_watch,
	.reap = disk_reap,
	.submit = disk_submit,
	.ready = disk_ready,
	.wait = disk_wait,
	.destroy = disk_destroy,
};

static void apply_sectors(struct disk *d, unsigned char *image, size_t size,
			  const struct disk_write *x, unsigned percent)
{
	for (size_t at = 0; at < x->len;) {
		size_t n = SECTOR - (size_t)((x->offset + at) % SECTOR);

		if (n > x->len - at) {
			n = x->len - at;
		}
		if (disk_random(d) % 100 < percent && x->offset + at + n <= size) {
			memcpy(image + x->offset + at, x->data + at, n);
		}
		at += n;
	}
}

static void cut_one(void *context, const char *name)
{
	const struct pair *p = context;
	const struct disk_file *f = disk_find(p->disk, name);
	unsigned char *image;
	char to[512];

	if (f == NULL) {
		copy_one(context, name);
		return;
	}
	image = malloc(f->size);
	ASSERT(image != NULL);
	memcpy(image, f->durable, f->size);
	for (const struct disk_write *x = f->first; x != NULL; x = x->next) {
		apply_sectors(p->disk, image, f->size, x, p->percent);
	}
	path_of(to, sizeof(to), p->to, name);
	write_file(to, image, f->size);
	free(image);
}

void disk_power_cut(struct disk *d, const char *from, const char *to)
{
	static const unsigned percents[] = {0, 30, 70, 95, 100};
	struct pair p = {
		.from = from, .to = to, .disk = d, .percent = percents[disk_random(d) % 5]};

	ASSERT(mkdir(to, 0700) == 0);
	each_file(from, cut_one, &p);
}

void disk_reset(struct disk *d)
{
	d->base.magic = MUX_MAGIC;
	d->base.ops = &disk_ops;
	d->base.pending = 0;
}
