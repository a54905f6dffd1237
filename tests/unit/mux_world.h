/*
 * A multiplexor under test: ops that note what became of them, and the sockets they work on. Each
 * test runs over each back end, and over io_uring without what older kernels lack; start reading at
 * run_each_backend(). For test_mux*.c only, each of which has its own copy.
 */
#pragma once

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/runtime/mux.h"
#include "core/runtime/mux_backend.h"

/* Far more than anything here takes: running into it is a failure. */
#define PATIENCE_NS (UINT64_C(30) * 1000 * 1000 * 1000)

struct variant {
	const char *name;
	enum mux_backend backend;
	unsigned lacks;
};

static struct variant variants[] = {
	{"uring", MUX_URING, 0},
	{"uring as on an old kernel", MUX_URING,
	 MUX_LACK_DEFER_TASKRUN | MUX_LACK_BUFFER_RING | MUX_LACK_MULTISHOT_ACCEPT |
		 MUX_LACK_WAITALL},
	{"uring in difficulties", MUX_URING, MUX_LACK_WAITALL | MUX_LACK_WAITING | MUX_LACK_ROOM},
	{"epoll", MUX_EPOLL, 0},
	{"poll", MUX_POLL, 0},
};

/* An op, and what became of it. */
struct probe {
	struct mux_op op;
	struct mux *m;
	int runs;
	int result;
	/* recv */
	size_t bytes;
	bool again;
	int (*check)(struct probe *p, const unsigned char *data, int len);
	/* accept */
	int *fds;
	int fd_count;
	int cancel_after;
};

/* Above 0 while a verb is being started: no callback may run then. */
static int starting;

static inline struct probe *probe_of(struct mux_op *op)
{
	assert_int_equal(starting, 0);
	return CONTAINER_OF(op, struct probe, op);
}

static inline void on_result(struct mux_op *op, int result)
{
	struct probe *p = probe_of(op);

	assert_false(mux_op_busy(op));
	p->runs++;
	p->result = result;
}

static inline void on_recv(struct mux_op *op, int result)
{
	struct probe *p = probe_of(op);
	int fd = op->fd;

	p->runs++;
	p->result = result;
	if (result > 0) {
		assert_in_range(result, 1, MUX_RECV_MAX);
		p->bytes += (size_t)result;
		if (p->check != NULL) {
			assert_int_equal(p->check(p, op->data, result), 0);
		}
		if (p->again) {
			mux_recv(p->m, op, fd);
		}
	}
}

static inline void probe_init(struct probe *p, struct mux *m, mux_fn fn)
{
	memset(p, 0, sizeof(*p));
	p->m = m;
	mux_op_init(&p->op, NULL, fn);
}

static inline struct mux *make_sized(void **state, unsigned entries)
{
	const struct variant *v = *state;
	struct mux *m = NULL;
	int error;

	if (v->backend == MUX_URING) {
		error = mux_uring_create(&m, entries, v->lacks);
	} else {
		error = mux_create(&m, v->backend, entries, NULL);
	}
	if (error != 0 && v->backend == MUX_URING) {
		fprintf(stderr, "*** SKIPPED: io_uring is not available here (error %d) ***\n",
			-error);
		skip();
	}
	assert_int_equal(error, 0);
	return m;
}

static inline struct mux *make(void **state)
{
	return make_sized(state, 256);
}

/* One duty cycle, which sleeps when there is nothing to do. */
static inline int turn(struct mux *m, int limit)
{
	int ran = mux_reap(m, limit);

	if (ran == 0) {
		mux_submit(m);
		ran = mux_reap(m, limit);
	}
	if (ran == 0) {
		assert_true(mux_wait(m, PATIENCE_NS));
	}
	return ran;
}

/* Until `*count` has reached `target`. */
static inline void run_until(struct mux *m, const int *count, int target)
{
	while (*count < target) {
		turn(m, 64);
	}
}

/* Gives late and doubled callbacks their chance to show up: three rounds through the kernel, in
 * each of which everything that was started is handed over and a new op completes. */
static inline void settle(struct mux *m)
{
	for (int i = 0; i < 3; i++) {
		struct probe p;
		int fds[2];

		assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
		probe_init(&p, m, on_result);
		mux_poll_fd(m, &p.op, fds[1], POLLOUT);
		run_until(m, &p.runs, 1);
		mux_close(m, fds[1]);
		close(fds[0]);
	}
}

static inline void make_pair(int fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
			 0);
}

static inline int make_listener(struct sockaddr_in *address, int backlog)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	socklen_t len = sizeof(*address);

	assert_true(fd >= 0);
	*address = (struct sockaddr_in){.sin_family = AF_INET,
					.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	assert_int_equal(bind(fd, (struct sockaddr *)address, len), 0);
	if (backlog >= 0) {
		assert_int_equal(listen(fd, backlog), 0);
	}
	assert_int_equal(getsockname(fd, (struct sockaddr *)address, &len), 0);
	return fd;
}

static inline int connect_blocking(const struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)address, sizeof(*address)), 0);
	return fd;
}

static inline void make_tcp_pair(int fds[2])
{
	struct sockaddr_in address;
	int listener = make_listener(&address, 1);

	fds[0] = connect_blocking(&address);
	fds[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(fds[1] >= 0);
	assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
	close(listener);
}

static inline void write_all(int fd, const void *data, size_t len)
{
	assert_int_equal(write(fd, data, len), (ssize_t)len);
}

static inline void fill_pattern(unsigned char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		data[i] = (unsigned char)(i * 31 % 251);
	}
}

static inline int check_pattern(struct probe *p, const unsigned char *data, int len)
{
	size_t at = p->bytes - (size_t)len;

	for (int i = 0; i < len; i++) {
		if (data[i] != (unsigned char)((at + (size_t)i) * 31 % 251)) {
			return -1;
		}
	}
	return 0;
}

static inline int run_backend(struct variant *v, const struct CMUnitTest *each, size_t count)
{
	struct CMUnitTest tests[count];

	printf("--- %s ---\n", v->name);
	fflush(stdout);
	for (size_t i = 0; i < count; i++) {
		tests[i] = each[i];
		tests[i].initial_state = v;
	}
	return cmocka_run_group_tests_name(v->name, tests, NULL, NULL);
}

/* Runs `count` tests over each variant, with as many open files as are allowed. Returns how many
 * failed. */
static inline int run_each_backend(const struct CMUnitTest *tests, size_t count)
{
	struct rlimit files;
	int failed = 0;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	for (size_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++) {
		failed += run_backend(&variants[i], tests, count);
	}
	return failed;
}
