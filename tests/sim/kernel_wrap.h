/*
 * What ld's --wrap links the program's system calls to. Each takes a call on simulated descriptors
 * and paths, and passes others on. The list here and SIM_WRAP in the Makefile are one.
 */
#pragma once

#include <dirent.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "core/runtime/mux.h"

struct kernel_fd;

/* Of kernel.c, for kernel_files.c. */
void kernel_ring(struct kernel_fd *f);
ssize_t kernel_read_signal(struct kernel_fd *f, void *data, size_t len);

pid_t __wrap_getpid(void);
ssize_t __wrap_getrandom(void *data, size_t len, unsigned flags);
int __wrap_usleep(unsigned usec);
FILE *__wrap_fopen(const char *path, const char *mode);
FILE *__real_fopen(const char *path, const char *mode);
int __wrap_mallctl(const char *name, void *old, size_t *old_len, void *new, size_t new_len);
/* NULL without jemalloc. */
__attribute__((weak)) int __real_mallctl(const char *name, void *old, size_t *old_len, void *new,
					 size_t new_len);
int __wrap_close(int fd);
int __real_close(int fd);
int __wrap_eventfd(unsigned count, int flags);
int __wrap_signalfd(int fd, const sigset_t *mask, int flags);
int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);
int __wrap_socket(int family, int type, int protocol);
int __wrap_bind(int fd, const struct sockaddr *address, socklen_t len);
int __wrap_listen(int fd, int backlog);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t len);
int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len);
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len);
int __wrap_getpeername(int fd, struct sockaddr *address, socklen_t *len);
int __wrap_shutdown(int fd, int how);
ssize_t __wrap_send(int fd, const void *data, size_t len, int flags);

int __wrap_open(const char *path, int flags, ...);
int __real_open(const char *path, int flags, ...);
int __wrap_openat(int dir, const char *path, int flags, ...);
int __real_openat(int dir, const char *path, int flags, ...);
ssize_t __wrap_read(int fd, void *data, size_t len);
ssize_t __real_read(int fd, void *data, size_t len);
ssize_t __wrap_write(int fd, const void *data, size_t len);
ssize_t __real_write(int fd, const void *data, size_t len);
ssize_t __wrap_writev(int fd, const struct iovec *iov, int count);
ssize_t __real_writev(int fd, const struct iovec *iov, int count);
ssize_t __wrap_pread(int fd, void *data, size_t len, off_t offset);
ssize_t __real_pread(int fd, void *data, size_t len, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t len, off_t offset);
ssize_t __real_pwrite(int fd, const void *data, size_t len, off_t offset);
int __wrap_fdatasync(int fd);
int __real_fdatasync(int fd);
int __wrap_fsync(int fd);
int __real_fsync(int fd);
int __wrap_ftruncate(int fd, off_t size);
int __real_ftruncate(int fd, off_t size);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t len);
int __real_fallocate(int fd, int mode, off_t offset, off_t len);
int __wrap_fstat(int fd, struct stat *out);
int __real_fstat(int fd, struct stat *out);
int __wrap_stat(const char *path, struct stat *out);
int __real_stat(const char *path, struct stat *out);
int __wrap_fstatvfs(int fd, struct statvfs *out);
int __real_fstatvfs(int fd, struct statvfs *out);
int __wrap_unlink(const char *path);
int __real_unlink(const char *path);
int __wrap_unlinkat(int dir, const char *path, int flags);
int __real_unlinkat(int dir, const char *path, int flags);
int __wrap_mkdir(const char *path, mode_t mode);
int __real_mkdir(const char *path, mode_t mode);
int __wrap_chmod(const char *path, mode_t mode);
int __real_chmod(const char *path, mode_t mode);
int __wrap_fcntl(int fd, int command, ...);
int __real_fcntl(int fd, int command, ...);
DIR *__wrap_fdopendir(int fd);
DIR *__wrap_opendir(const char *path);
struct dirent *__wrap_readdir(DIR *dir);
int __wrap_closedir(DIR *dir);

int __wrap_mux_create(struct mux **out, enum mux_backend backend, unsigned entries,
		      const char **why);
