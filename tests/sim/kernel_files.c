/*
 * System calls on files and directories. Those that block take their time: other groups' events go
 * on meanwhile, as far as the world's actors and the disk are concerned.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "tests/sim/disk.h"
#include "tests/sim/kernel_fd.h"
#include "tests/sim/kernel_wrap.h"
#include "tests/sim/world.h"

#define SIM_PATH "/sim"
#define CALL_NS_MAX 20000
#define DIRECT_ALIGN 4096U

/* A directory that is being listed. */
struct listing {
	struct kernel_fd *fd;
	unsigned next;
	struct dirent entry;
};

static bool of_sim(const char *path)
{
	return strncmp(path, SIM_PATH, sizeof SIM_PATH - 1) == 0;
}

/* What comes before each call: the process may end here. */
static void enter(void)
{
	kernel_moment();
	world->now_ns += world_below(CALL_NS_MAX);
}

static struct kernel_fd *file_of(int fd)
{
	struct kernel_fd *f = kernel_open_fd(fd);

	ASSERT(f->kind == KERNEL_FILE);
	return f;
}

/* What every disk is content with: Linux asks for no more, and mostly for less. */
void kernel_check_aligned(const struct kernel_fd *f, const void *data, size_t len, uint64_t offset)
{
	if (f->direct && ((uintptr_t)data | len | offset) % DIRECT_ALIGN != 0) {
		world_fail("%zu bytes at %llu are not aligned, and the file is open with O_DIRECT",
			   len, (unsigned long long)offset);
	}
}

/* ---- names ---- */

static int open_file(struct disk_node *dir, const char *path, int flags, mode_t mode)
{
	struct disk_node *node;
	struct kernel_fd *f;
	int rc;

	enter();
	rc = disk_open(world->disk, dir, path, flags, mode, &node);
	if (rc < 0) {
		return (int)kernel_result(rc);
	}
	f = kernel_new_fd(KERNEL_FILE);
	f->node = node;
	f->append = (flags & O_APPEND) != 0;
	f->direct = (flags & O_DIRECT) != 0;
	return f->number;
}

static mode_t mode_of(int flags, va_list *args)
{
	return (flags & O_CREAT) != 0 ? va_arg(*args, mode_t) : 0;
}

int __wrap_open(const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = mode_of(flags, &args);
	va_end(args);
	return of_sim(path) ? open_file(NULL, path, flags, mode) : __real_open(path, flags, mode);
}

int __wrap_openat(int dir, const char *path, int flags, ...)
{
	va_list args;
	mode_t mode;

	va_start(args, flags);
	mode = mode_of(flags, &args);
	va_end(args);
	if (of_sim(path)) {
		return open_file(NULL, path, flags, mode);
	}
	return kernel_fd(dir) == NULL ? __real_openat(dir, path, flags, mode)
				      : open_file(file_of(dir)->node, path, flags, mode);
}

int __wrap_unlink(const char *path)
{
	if (!of_sim(path)) {
		return __real_unlink(path);
	}
	enter();
	return (int)kernel_result(disk_unlink(world->disk, NULL, path));
}

int __wrap_unlinkat(int dir, const char *path, int flags)
{
	if (kernel_fd(dir) == NULL) {
		return __real_unlinkat(dir, path, flags);
	}
	enter();
	return (int)kernel_result(disk_unlink(world->disk, file_of(dir)->node, path));
}

int __wrap_mkdir(const char *path, mode_t mode)
{
	if (!of_sim(path)) {
		return __real_mkdir(path, mode);
	}
	enter();
	return (int)kernel_result(disk_mkdir(world->disk, path, mode));
}

/* Of the control socket's path. */
int __wrap_chmod(const char *path, mode_t mode)
{
	return of_sim(path) ? 0 : __real_chmod(path, mode);
}

int __wrap_stat(const char *path, struct stat *out)
{
	if (!of_sim(path)) {
		return __real_stat(path, out);
	}
	enter();
	return (int)kernel_result(disk_stat(world->disk, path, out));
}

/* ---- directories ---- */

DIR *__wrap_fdopendir(int fd)
{
	struct listing *l = calloc(1, sizeof *l);

	ASSERT(l != NULL);
	l->fd = file_of(fd);
	return (DIR *)(void *)l;
}

/* The program lists directories by path only for the configuration's include. */
DIR *__wrap_opendir(const char *path)
{
	int fd = __wrap_open(path, O_RDONLY | O_DIRECTORY);

	ASSERT(of_sim(path));
	return fd < 0 ? NULL : __wrap_fdopendir(fd);
}

struct dirent *__wrap_readdir(DIR *dir)
{
	struct listing *l = (struct listing *)(void *)dir;
	const char *name = disk_list(world->disk, l->fd->node, l->next);

	enter();
	if (name == NULL) {
		return NULL;
	}
	l->next++;
	ASSERT(strlen(name) < sizeof l->entry.d_name);
	strcpy(l->entry.d_name, name);
	return &l->entry;
}

int __wrap_closedir(DIR *dir)
{
	struct listing *l = (struct listing *)(void *)dir;
	int fd = l->fd->number;

	free(l);
	return __wrap_close(fd);
}

/* ---- contents ---- */

ssize_t __wrap_read(int fd, void *data, size_t len)
{
	struct kernel_fd *f = kernel_fd(fd);
	ssize_t n;

	if (f == NULL) {
		return __real_read(fd, data, len);
	}
	if (f->kind == KERNEL_SIGNALFD) {
		return kernel_result(kernel_read_signal(f, data, len));
	}
	enter();
	n = disk_read(world->disk, file_of(fd)->node, data, len, f->position);
	f->position += n > 0 ? (uint64_t)n : 0;
	return kernel_result(n);
}

static uint64_t write_position(struct kernel_fd *f)
{
	struct stat st;

	if (!f->append) {
		return f->position;
	}
	ASSERT(disk_fstat(world->disk, f->node, &st) == 0);
	return (uint64_t)st.st_size;
}

ssize_t __wrap_write(int fd, const void *data, size_t len)
{
	struct kernel_fd *f = kernel_fd(fd);
	ssize_t n;

	if (f == NULL) {
		return __real_write(fd, data, len);
	}
	if (f->kind == KERNEL_EVENTFD) {
		kernel_ring(f);
		return (ssize_t)len;
	}
	enter();
	n = disk_write(world->disk, file_of(fd)->node, data, len, write_position(f));
	f->position += n > 0 ? (uint64_t)n : 0;
	return kernel_result(n);
}

ssize_t __wrap_writev(int fd, const struct iovec *iov, int count)
{
	ssize_t sum = 0;

	if (kernel_fd(fd) == NULL) {
		return __real_writev(fd, iov, count);
	}
	for (int i = 0; i < count; i++) {
		ssize_t n = __wrap_write(fd, iov[i].iov_base, iov[i].iov_len);

		if (n < 0) {
			return sum > 0 ? sum : n;
		}
		sum += n;
		if ((size_t)n < iov[i].iov_len) {
			break;
		}
	}
	return sum;
}

ssize_t __wrap_pread(int fd, void *data, size_t len, off_t offset)
{
	if (kernel_fd(fd) == NULL) {
		return __real_pread(fd, data, len, offset);
	}
	enter();
	kernel_check_aligned(file_of(fd), data, len, (uint64_t)offset);
	return kernel_result(
		disk_read(world->disk, file_of(fd)->node, data, len, (uint64_t)offset));
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t len, off_t offset)
{
	if (kernel_fd(fd) == NULL) {
		return __real_pwrite(fd, data, len, offset);
	}
	enter();
	kernel_check_aligned(file_of(fd), data, len, (uint64_t)offset);
	return kernel_result(
		disk_write(world->disk, file_of(fd)->node, data, len, (uint64_t)offset));
}

int __wrap_fdatasync(int fd)
{
	if (kernel_fd(fd) == NULL) {
		return __real_fdatasync(fd);
	}
	enter();
	return (int)kernel_result(disk_sync(world->disk, file_of(fd)->node));
}

int __wrap_fsync(int fd)
{
	return kernel_fd(fd) == NULL ? __real_fsync(fd) : __wrap_fdatasync(fd);
}

int __wrap_ftruncate(int fd, off_t size)
{
	if (kernel_fd(fd) == NULL) {
		return __real_ftruncate(fd, size);
	}
	enter();
	return (int)kernel_result(disk_truncate(world->disk, file_of(fd)->node, (uint64_t)size));
}

int __wrap_fallocate(int fd, int mode, off_t offset, off_t len)
{
	if (kernel_fd(fd) == NULL) {
		return __real_fallocate(fd, mode, offset, len);
	}
	enter();
	return (int)kernel_result(
		disk_allocate(world->disk, file_of(fd)->node, (uint64_t)offset, (uint64_t)len));
}

int __wrap_fstat(int fd, struct stat *out)
{
	if (kernel_fd(fd) == NULL) {
		return __real_fstat(fd, out);
	}
	return (int)kernel_result(disk_fstat(world->disk, file_of(fd)->node, out));
}

int __wrap_fstatvfs(int fd, struct statvfs *out)
{
	if (kernel_fd(fd) == NULL) {
		return __real_fstatvfs(fd, out);
	}
	return (int)kernel_result(disk_statvfs(world->disk, out));
}

/* Locks: nobody else is there. */
int __wrap_fcntl(int fd, int command, ...)
{
	va_list args;
	void *argument;

	if (kernel_fd(fd) != NULL) {
		return 0;
	}
	va_start(args, command);
	argument = va_arg(args, void *);
	va_end(args);
	return __real_fcntl(fd, command, argument);
}
