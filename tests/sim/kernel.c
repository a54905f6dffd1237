/*
 * Descriptors, sockets, signals, and the odd calls. Files are in kernel_files.c.
 *
 * __wrap_NAME is what the program's NAME() is linked to; __real_NAME is the system's.
 */
#include "tests/sim/kernel.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/runtime/check.h"
#include "tests/sim/disk.h"
#include "tests/sim/kernel_fd.h"
#include "tests/sim/kernel_wrap.h"
#include "tests/sim/net.h"
#include "tests/sim/scenario.h"
#include "tests/sim/world.h"

#define FDS_MAX 4096
/* What getpid(2) says; the lock file of the spool shows it. */
#define PROCESS_ID 4711

static struct kernel_fd fds[FDS_MAX];
/* None from here on was ever open: most of the table's pages are never touched. */
static int fds_used;
static int signal_fd = -1;
static bool told_to_stop;
static int life_end;
static uint64_t life_end_ns;

/* ---- the process ---- */

void kernel_boot(int end, uint64_t end_ns)
{
	memset(fds, 0, (size_t)fds_used * sizeof fds[0]);
	fds_used = 0;
	signal_fd = -1;
	told_to_stop = false;
	life_end = end;
	life_end_ns = end_ns;
}

void kernel_moment(void)
{
	if (world->now_ns < life_end_ns) {
		return;
	}
	if (life_end == LIFE_KILLED || life_end == LIFE_CUT) {
		world_trace("the end", (uint64_t)life_end, 0);
		_exit(life_end);
	}
	life_end_ns = UINT64_MAX;
	if (life_end == LIFE_STOPPED) {
		kernel_signal(SIGTERM);
	}
}

pid_t __wrap_getpid(void)
{
	return PROCESS_ID;
}

ssize_t __wrap_getrandom(void *data, size_t len, unsigned flags)
{
	unsigned char *out = data;

	(void)flags;
	for (size_t i = 0; i < len; i++) {
		out[i] = (unsigned char)world_random();
	}
	return (ssize_t)len;
}

int __wrap_usleep(unsigned usec)
{
	world_advance(world->now_ns + usec * NS_PER_US);
	kernel_moment();
	return 0;
}

/* Memory in use differs from machine to machine, and goes into the console's answers. */
FILE *__wrap_fopen(const char *path, const char *mode)
{
	static char pages[] = "10000 5000 500 100 0 4000 0\n";

	if (strcmp(path, "/proc/self/statm") == 0) {
		return fmemopen(pages, sizeof pages - 1, "r");
	}
	if (strcmp(path, SCENARIO_SCRIPT) == 0) {
		return fmemopen((void *)(uintptr_t)scenario_script, strlen(scenario_script), "r");
	}
	return __real_fopen(path, mode);
}

/* The same of what the allocator says of itself; under a sanitizer it is another one. */
int __wrap_mallctl(const char *name, void *old, size_t *old_len, void *new, size_t new_len)
{
	(void)name;
	(void)new;
	(void)new_len;
	ASSERT(*old_len <= sizeof(uint64_t));
	memset(old, 0, *old_len);
	return 0;
}

/* ---- descriptors ---- */

long kernel_result(long result)
{
	if (result < 0) {
		errno = (int)-result;
		return -1;
	}
	return result;
}

struct kernel_fd *kernel_fd(int fd)
{
	if (fd < KERNEL_FD || fd >= KERNEL_FD + FDS_MAX) {
		return NULL;
	}
	return &fds[fd - KERNEL_FD];
}

struct kernel_fd *kernel_open_fd(int fd)
{
	struct kernel_fd *f = kernel_fd(fd);

	if (f == NULL || f->kind == KERNEL_FREE) {
		world_fail("the program used descriptor %d, which is not open", fd);
	}
	return f;
}

struct kernel_fd *kernel_new_fd(enum kernel_kind kind)
{
	for (int i = 0; i < FDS_MAX; i++) {
		if (fds[i].kind == KERNEL_FREE) {
			fds[i] = (struct kernel_fd){.kind = kind, .number = KERNEL_FD + i};
			fds_used = i < fds_used ? fds_used : i + 1;
			return &fds[i];
		}
	}
	world_fail("the program has %d descriptors open", FDS_MAX);
}

int __wrap_close(int fd)
{
	struct kernel_fd *f = kernel_fd(fd);

	if (f == NULL) {
		return __real_close(fd);
	}
	kernel_open_fd(fd);
	if (f->reader != NULL || f->writer != NULL) {
		world_fail("descriptor %d was closed while an operation used it", fd);
	}
	switch (f->kind) {
	case KERNEL_FILE:
		disk_release(world->disk, f->node);
		break;
	case KERNEL_CONNECTION:
		net_close(f->end);
		break;
	case KERNEL_LISTENER:
		net_unlisten(world->net, f->listener);
		break;
	case KERNEL_SIGNALFD:
		signal_fd = -1;
		break;
	case KERNEL_FREE:
	case KERNEL_SOCKET:
	case KERNEL_EVENTFD:
		break;
	}
	world_forget(f);
	f->kind = KERNEL_FREE;
	return 0;
}

void kernel_check_closed(void)
{
	for (int i = 0; i < fds_used; i++) {
		if (fds[i].kind != KERNEL_FREE) {
			world_fail("descriptor %d (kind %d) is open after the stop", KERNEL_FD + i,
				   (int)fds[i].kind);
		}
	}
}

/* ---- doorbells and signals ---- */

int __wrap_eventfd(unsigned count, int flags)
{
	(void)count;
	(void)flags;
	return kernel_new_fd(KERNEL_EVENTFD)->number;
}

void kernel_ring(struct kernel_fd *f)
{
	f->rung = true;
}

bool kernel_take_bell(int eventfd)
{
	struct kernel_fd *f = kernel_open_fd(eventfd);
	bool rung = f->rung;

	f->rung = false;
	return rung;
}

int __wrap_signalfd(int fd, const sigset_t *mask, int flags)
{
	(void)fd;
	(void)mask;
	(void)flags;
	signal_fd = kernel_new_fd(KERNEL_SIGNALFD)->number;
	return signal_fd;
}

int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	(void)how;
	(void)set;
	(void)old;
	return 0;
}

void kernel_signal(int signal)
{
	struct kernel_fd *f;

	world_trace("signal", (uint64_t)signal, 0);
	if (signal_fd < 0) {
		/* Not there yet, or no more: as by default, the process ends. */
		_exit(LIFE_KILLED);
	}
	told_to_stop = told_to_stop || signal == SIGTERM;
	f = kernel_open_fd(signal_fd);
	f->signals |= UINT64_C(1) << signal;
	mux_sim_look(f, NET_READABLE);
}

bool kernel_told_to_stop(void)
{
	return told_to_stop;
}

ssize_t kernel_read_signal(struct kernel_fd *f, void *data, size_t len)
{
	struct signalfd_siginfo info = {0};

	if (f->signals == 0) {
		return -EAGAIN;
	}
	ASSERT(len >= sizeof info);
	info.ssi_signo = (uint32_t)__builtin_ctzll(f->signals);
	f->signals &= f->signals - 1;
	memcpy(data, &info, sizeof info);
	return (ssize_t)sizeof info;
}

/* ---- sockets ---- */

int __wrap_socket(int family, int type, int protocol)
{
	struct kernel_fd *f;

	(void)type;
	(void)protocol;
	kernel_moment();
	f = kernel_new_fd(KERNEL_SOCKET);
	f->address.ss_family = (sa_family_t)family;
	return f->number;
}

int __wrap_bind(int fd, const struct sockaddr *address, socklen_t len)
{
	struct kernel_fd *f = kernel_open_fd(fd);

	ASSERT(f->kind == KERNEL_SOCKET && len <= sizeof f->address);
	memcpy(&f->address, address, len);
	f->address_len = len;
	return 0;
}

static void on_arrival(void *context)
{
	mux_sim_look(context, NET_READABLE);
}

int __wrap_listen(int fd, int backlog)
{
	struct kernel_fd *f = kernel_open_fd(fd);
	int rc;

	ASSERT(f->kind == KERNEL_SOCKET);
	rc = net_listen_program(world->net, (const struct sockaddr *)&f->address, f->address_len,
				backlog, on_arrival, f, &f->listener);
	if (rc == 0) {
		f->kind = KERNEL_LISTENER;
	}
	return (int)kernel_result(rc);
}

/* Only asked whether somebody listens on the path of the control socket: nobody does. */
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t len)
{
	kernel_open_fd(fd);
	(void)address;
	(void)len;
	return (int)kernel_result(-ECONNREFUSED);
}

int __wrap_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	kernel_open_fd(fd);
	(void)level;
	(void)name;
	(void)value;
	(void)len;
	return 0;
}

/* Who speaks on the control socket: the same user. */
int __wrap_getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
	struct ucred credentials = {1, geteuid(), getegid()};

	kernel_open_fd(fd);
	(void)level;
	if (name == SO_PEERCRED) {
		ASSERT(*len >= sizeof credentials);
		memcpy(value, &credentials, sizeof credentials);
		*len = sizeof credentials;
	} else {
		*len = 0;
	}
	return 0;
}

int __wrap_getpeername(int fd, struct sockaddr *address, socklen_t *len)
{
	const struct kernel_fd *f = kernel_open_fd(fd);

	if (f->kind != KERNEL_CONNECTION) {
		return (int)kernel_result(-ENOTCONN);
	}
	memcpy(address, &f->end->address, *len < f->end->address_len ? *len : f->end->address_len);
	*len = f->end->address_len;
	return 0;
}

int __wrap_shutdown(int fd, int how)
{
	struct kernel_fd *f = kernel_open_fd(fd);

	ASSERT(f->kind == KERNEL_CONNECTION && how == SHUT_WR);
	net_shutdown(f->end);
	return 0;
}

ssize_t __wrap_send(int fd, const void *data, size_t len, int flags)
{
	struct kernel_fd *f = kernel_open_fd(fd);

	(void)flags;
	ASSERT(f->kind == KERNEL_CONNECTION);
	kernel_moment();
	return kernel_result(net_send(f->end, data, len));
}
