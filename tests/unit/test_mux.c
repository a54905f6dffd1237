/* Every test runs over each back end, and over io_uring without what older kernels lack. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/runtime/agent.h"
#include "core/runtime/doorbell.h"
#include "core/runtime/mux.h"
#include "core/runtime/mux_backend.h"

/* Far more than anything here takes: running into it is a failure. */
#define PATIENCE_NS (UINT64_C(30) * 1000 * 1000 * 1000)
#define TRIPS 100000
#define MANY 3000

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

static struct probe *probe_of(struct mux_op *op)
{
	assert_int_equal(starting, 0);
	return CONTAINER_OF(op, struct probe, op);
}

static void on_result(struct mux_op *op, int result)
{
	struct probe *p = probe_of(op);

	assert_false(mux_op_busy(op));
	p->runs++;
	p->result = result;
}

static void on_recv(struct mux_op *op, int result)
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

static void on_accept(struct mux_op *op, int result)
{
	struct probe *p = probe_of(op);

	p->runs++;
	p->result = result;
	if (result >= 0) {
		assert_true(mux_op_busy(op));
		p->fds[p->fd_count++] = result;
		if (p->fd_count == p->cancel_after) {
			mux_cancel(p->m, op);
		}
	} else {
		assert_false(mux_op_busy(op));
	}
}

static void probe_init(struct probe *p, struct mux *m, mux_fn fn)
{
	memset(p, 0, sizeof(*p));
	p->m = m;
	mux_op_init(&p->op, NULL, fn);
}

static struct mux *make_sized(void **state, unsigned entries)
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

static struct mux *make(void **state)
{
	return make_sized(state, 256);
}

/* One duty cycle, which sleeps when there is nothing to do. */
static int turn(struct mux *m, int limit)
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
static void run_until(struct mux *m, const int *count, int target)
{
	while (*count < target) {
		turn(m, 64);
	}
}

/* Gives late and doubled callbacks their chance to show up: three rounds through the kernel, in
 * each of which everything that was started is handed over and a new op completes. */
static void settle(struct mux *m)
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

static void make_pair(int fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
			 0);
}

static int make_listener(struct sockaddr_in *address, int backlog)
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

static int connect_blocking(const struct sockaddr_in *address)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)address, sizeof(*address)), 0);
	return fd;
}

static void make_tcp_pair(int fds[2])
{
	struct sockaddr_in address;
	int listener = make_listener(&address, 1);

	fds[0] = connect_blocking(&address);
	fds[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(fds[1] >= 0);
	assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
	close(listener);
}

static void set_address(struct mux_op *op, const struct sockaddr_in *address)
{
	memcpy(&op->address, address, sizeof(*address));
	op->address_len = sizeof(*address);
}

static void write_all(int fd, const void *data, size_t len)
{
	assert_int_equal(write(fd, data, len), (ssize_t)len);
}

static int temp_file(void)
{
	char name[] = "/tmp/test_mux.XXXXXX";
	int fd = mkostemp(name, O_CLOEXEC);

	assert_true(fd >= 0);
	unlink(name);
	return fd;
}

/* accept */

static void test_accept_delivers_each_connection(void **state)
{
	enum { CLIENTS = 300 };
	struct mux *m = make(state);
	struct sockaddr_in address;
	int listener = make_listener(&address, 512);
	int clients[CLIENTS];
	int accepted[CLIENTS];
	struct probe p;

	probe_init(&p, m, on_accept);
	p.fds = accepted;
	starting++;
	mux_accept(m, &p.op, listener);
	starting--;
	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = connect_blocking(&address);
		if (i % 50 == 0) {
			run_until(m, &p.fd_count, i + 1);
		}
	}
	run_until(m, &p.fd_count, CLIENTS);
	assert_int_equal(mux_pending(m), 1);
	for (int i = 0; i < CLIENTS; i++) {
		assert_true(fcntl(accepted[i], F_GETFL) & O_NONBLOCK);
		assert_true(fcntl(accepted[i], F_GETFD) & FD_CLOEXEC);
		mux_close(m, accepted[i]);
		close(clients[i]);
	}
	mux_cancel(m, &p.op);
	assert_int_equal(p.runs, CLIENTS);
	run_until(m, &p.runs, CLIENTS + 1);
	assert_int_equal(p.result, -ECANCELED);
	settle(m);
	assert_int_equal(p.runs, CLIENTS + 1);
	assert_int_equal(mux_pending(m), 0);
	mux_close(m, listener);
	mux_destroy(m);
}

static void test_accept_when_cancelled_by_its_callback(void **state)
{
	enum { CLIENTS = 20, FIRST = 3 };
	struct mux *m = make(state);
	struct sockaddr_in address;
	int listener = make_listener(&address, 64);
	int clients[CLIENTS];
	int accepted[CLIENTS];
	struct probe p;

	for (int i = 0; i < CLIENTS; i++) {
		clients[i] = connect_blocking(&address);
	}
	probe_init(&p, m, on_accept);
	p.fds = accepted;
	p.cancel_after = FIRST;
	mux_accept(m, &p.op, listener);
	while (mux_op_busy(&p.op)) {
		turn(m, 64);
	}
	assert_int_equal(p.result, -ECANCELED);
	assert_true(p.fd_count >= FIRST);
	assert_int_equal(p.runs, p.fd_count + 1);
	/* The rest is still there for the next. */
	p.cancel_after = CLIENTS;
	if (p.fd_count < CLIENTS) {
		mux_accept(m, &p.op, listener);
		while (mux_op_busy(&p.op)) {
			turn(m, 64);
		}
	}
	assert_int_equal(p.fd_count, CLIENTS);
	for (int i = 0; i < CLIENTS; i++) {
		mux_close(m, accepted[i]);
		close(clients[i]);
	}
	mux_close(m, listener);
	mux_destroy(m);
}

static void test_accept_when_it_cannot_work(void **state)
{
	struct mux *m = make(state);
	struct sockaddr_in address;
	int unheard = make_listener(&address, -1);
	struct probe p;
	int fds[1];

	probe_init(&p, m, on_accept);
	p.fds = fds;
	mux_accept(m, &p.op, unheard);
	run_until(m, &p.runs, 1);
	assert_int_equal(p.result, -EINVAL);
	mux_close(m, unheard);
	mux_accept(m, &p.op, unheard);
	run_until(m, &p.runs, 2);
	assert_int_equal(p.result, -EBADF);
	mux_destroy(m);
}

/* connect */

static void test_connect_when_accepted_and_when_refused(void **state)
{
	struct mux *m = make(state);
	struct sockaddr_in address;
	int listener = make_listener(&address, 8);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	struct probe p;

	probe_init(&p, m, on_result);
	set_address(&p.op, &address);
	starting++;
	mux_connect(m, &p.op, fd);
	starting--;
	run_until(m, &p.runs, 1);
	assert_int_equal(p.result, 0);
	assert_int_equal(getpeername(fd, (struct sockaddr *)&peer, &len), 0);
	assert_int_equal(peer.sin_port, address.sin_port);
	mux_close(m, fd);
	mux_close(m, listener);

	listener = make_listener(&address, -1);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	set_address(&p.op, &address);
	mux_connect(m, &p.op, fd);
	run_until(m, &p.runs, 2);
	assert_int_equal(p.result, -ECONNREFUSED);
	mux_close(m, fd);
	mux_close(m, listener);
	mux_destroy(m);
}

static void test_connect_when_cancelled(void **state)
{
	struct mux *m = make(state);
	struct sockaddr_in address;
	/* Room for one connection: the kernel then drops what else arrives. */
	int listener = make_listener(&address, 0);
	int first = connect_blocking(&address);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct probe p;

	probe_init(&p, m, on_result);
	set_address(&p.op, &address);
	mux_connect(m, &p.op, fd);
	settle(m);
	assert_int_equal(p.runs, 0);
	mux_cancel(m, &p.op);
	mux_cancel(m, &p.op);
	assert_int_equal(p.runs, 0);
	run_until(m, &p.runs, 1);
	assert_int_equal(p.result, -ECANCELED);
	settle(m);
	assert_int_equal(p.runs, 1);
	mux_close(m, fd);
	close(first);
	mux_close(m, listener);
	mux_destroy(m);
}

/* recv */

static int check_pattern(struct probe *p, const unsigned char *data, int len)
{
	size_t at = p->bytes - (size_t)len;

	for (int i = 0; i < len; i++) {
		if (data[i] != (unsigned char)((at + (size_t)i) * 31 % 251)) {
			return -1;
		}
	}
	return 0;
}

static void fill_pattern(unsigned char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		data[i] = (unsigned char)(i * 31 % 251);
	}
}

static void test_recv_when_there_is_more_than_a_buffer(void **state)
{
	enum { TOTAL = 100000 };
	static unsigned char data[TOTAL];
	struct mux *m = make(state);
	struct probe p;
	int fds[2];

	make_pair(fds);
	fill_pattern(data, TOTAL);
	write_all(fds[1], data, TOTAL);
	shutdown(fds[1], SHUT_WR);
	probe_init(&p, m, on_recv);
	p.again = true;
	p.check = check_pattern;
	starting++;
	mux_recv(m, &p.op, fds[0]);
	starting--;
	while (mux_op_busy(&p.op)) {
		turn(m, 64);
	}
	assert_int_equal(p.result, 0);
	assert_int_equal(p.bytes, TOTAL);
	assert_true(p.runs > TOTAL / MUX_RECV_MAX);
	mux_close(m, fds[0]);
	close(fds[1]);
	mux_destroy(m);
}

static void test_recv_when_data_comes_later_and_when_the_peer_closes(void **state)
{
	struct mux *m = make(state);
	struct probe p;
	int fds[2];

	make_pair(fds);
	probe_init(&p, m, on_recv);
	for (int i = 1; i <= 100; i++) {
		mux_recv(m, &p.op, fds[0]);
		if (i % 10 == 1) {
			settle(m);
		}
		assert_int_equal(p.runs, i - 1);
		write_all(fds[1], "NOOP\r\n", 6);
		run_until(m, &p.runs, i);
		assert_int_equal(p.result, 6);
	}
	mux_recv(m, &p.op, fds[0]);
	settle(m);
	close(fds[1]);
	run_until(m, &p.runs, 101);
	assert_int_equal(p.result, 0);
	mux_close(m, fds[0]);
	mux_destroy(m);
}

/* One event may announce both. */
static void test_recv_when_data_and_end_come_together(void **state)
{
	struct mux *m = make(state);

	for (int i = 0; i < 20; i++) {
		struct probe p;
		int fds[2];

		make_tcp_pair(fds);
		probe_init(&p, m, on_recv);
		mux_recv(m, &p.op, fds[0]);
		if (i % 2 == 0) {
			settle(m);
		}
		write_all(fds[1], "QUIT\r\n", 6);
		close(fds[1]);
		run_until(m, &p.runs, 1);
		assert_int_equal(p.result, 6);
		mux_recv(m, &p.op, fds[0]);
		run_until(m, &p.runs, 2);
		assert_int_equal(p.result, 0);
		mux_close(m, fds[0]);
	}
	mux_destroy(m);
}

static void test_recv_when_reset(void **state)
{
	struct linger hard = {.l_onoff = 1, .l_linger = 0};
	struct mux *m = make(state);
	struct probe p;
	int fds[2];

	make_tcp_pair(fds);
	probe_init(&p, m, on_recv);
	mux_recv(m, &p.op, fds[0]);
	settle(m);
	setsockopt(fds[1], SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	close(fds[1]);
	run_until(m, &p.runs, 1);
	assert_int_equal(p.result, -ECONNRESET);
	mux_close(m, fds[0]);
	mux_recv(m, &p.op, fds[0]);
	run_until(m, &p.runs, 2);
	assert_int_equal(p.result, -EBADF);
	mux_recv(m, &p.op, -1);
	run_until(m, &p.runs, 3);
	assert_int_equal(p.result, -EBADF);
	mux_destroy(m);
}

static void test_recv_when_cancelled(void **state)
{
	struct mux *m = make(state);
	struct probe p;
	int fds[2];

	make_pair(fds);
	probe_init(&p, m, on_recv);
	/* In the kernel already, and not handed over yet. */
	for (int i = 0; i < 2; i++) {
		mux_recv(m, &p.op, fds[0]);
		if (i == 0) {
			settle(m);
		}
		mux_cancel(m, &p.op);
		assert_int_equal(p.runs, i);
		run_until(m, &p.runs, i + 1);
		assert_int_equal(p.result, -ECANCELED);
		settle(m);
		assert_int_equal(p.runs, i + 1);
	}
	/* Idle: nothing happens. */
	mux_cancel(m, &p.op);
	settle(m);
	assert_int_equal(p.runs, 2);
	/* It works as before afterwards. */
	mux_recv(m, &p.op, fds[0]);
	write_all(fds[1], "QUIT\r\n", 6);
	run_until(m, &p.runs, 3);
	assert_int_equal(p.result, 6);
	mux_close(m, fds[0]);
	close(fds[1]);
	mux_destroy(m);
}

/* The cancel and the data race: whoever wins, no byte is lost and there is one callback. */
static void test_recv_when_cancelled_with_data_there(void **state)
{
	struct mux *m = make(state);
	struct probe p;
	int fds[2];

	make_pair(fds);
	for (int i = 0; i < 100; i++) {
		probe_init(&p, m, on_recv);
		mux_recv(m, &p.op, fds[0]);
		if (i % 2 == 0) {
			mux_submit(m);
		}
		write_all(fds[1], "RSET\r\n", 6);
		if (i % 4 < 2) {
			assert_true(mux_wait(m, PATIENCE_NS));
		}
		mux_cancel(m, &p.op);
		run_until(m, &p.runs, 1);
		if (p.result == -ECANCELED) {
			mux_recv(m, &p.op, fds[0]);
			run_until(m, &p.runs, 2);
		}
		assert_int_equal(p.result, 6);
	}
	mux_close(m, fds[0]);
	close(fds[1]);
	mux_destroy(m);
}

/* A cancel must not hit the op's next life. */
static void on_cancelled_start_again(struct mux_op *op, int result)
{
	struct probe *p = probe_of(op);

	p->runs++;
	p->result = result;
	if (p->runs < 100) {
		mux_recv(p->m, op, op->fd);
		if (p->runs < 99) {
			mux_cancel(p->m, op);
		}
	}
}

static void test_recv_when_started_again_after_cancel(void **state)
{
	struct mux *m = make(state);
	struct probe p;
	int fds[2];

	make_pair(fds);
	probe_init(&p, m, on_cancelled_start_again);
	mux_recv(m, &p.op, fds[0]);
	mux_cancel(m, &p.op);
	run_until(m, &p.runs, 99);
	assert_int_equal(p.result, -ECANCELED);
	settle(m);
	assert_int_equal(p.runs, 99);
	write_all(fds[1], "x", 1);
	run_until(m, &p.runs, 100);
	assert_int_equal(p.result, 1);
	mux_close(m, fds[0]);
	close(fds[1]);
	mux_destroy(m);
}

/* Thousands of idle connections, then data on all of them, far more than there are buffers. */
static void test_recv_when_buffers_run_out(void **state)
{
	struct mux *m = make(state);
	struct probe *probes = calloc(MANY, sizeof(*probes));
	int(*fds)[2] = calloc(MANY, sizeof(*fds));
	size_t bytes = 0;

	assert_non_null(probes);
	assert_non_null(fds);
	for (int i = 0; i < MANY; i++) {
		make_pair(fds[i]);
		probe_init(&probes[i], m, on_recv);
		mux_recv(m, &probes[i].op, fds[i][0]);
	}
	settle(m);
	assert_int_equal(mux_pending(m), MANY);
	/* One alone is served though all the others wait. */
	write_all(fds[MANY / 2][1], "EHLO x\r\n", 8);
	run_until(m, &probes[MANY / 2].runs, 1);
	mux_recv(m, &probes[MANY / 2].op, fds[MANY / 2][0]);
	settle(m);
	for (int i = 0; i < MANY; i++) {
		write_all(fds[i][1], "MAIL\r\n", 6);
	}
	/* A few at a time, so that they stay scarce. */
	while (mux_pending(m) > 0) {
		turn(m, 7);
	}
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(probes[i].result, 6);
		write_all(fds[i][1], "RCPT\r\n", 6);
	}
	/* With the data there first, the kernel takes all buffers while ops are handed over. */
	for (int i = 0; i < MANY; i++) {
		mux_recv(m, &probes[i].op, fds[i][0]);
	}
	while (mux_pending(m) > 0) {
		turn(m, 7);
	}
	for (int i = 0; i < MANY; i++) {
		bytes += probes[i].bytes;
		mux_close(m, fds[i][0]);
		close(fds[i][1]);
	}
	assert_int_equal(bytes, MANY * 12 + 8);
	mux_destroy(m);
	free(fds);
	free(probes);
}

static void test_recv_when_cancelled_for_want_of_buffers(void **state)
{
	struct mux *m = make(state);
	struct probe *probes = calloc(MANY, sizeof(*probes));
	int(*fds)[2] = calloc(MANY, sizeof(*fds));
	int ran;

	assert_non_null(probes);
	assert_non_null(fds);
	for (int i = 0; i < MANY; i++) {
		make_pair(fds[i]);
		write_all(fds[i][1], "DATA\r\n", 6);
		probe_init(&probes[i], m, on_recv);
		mux_recv(m, &probes[i].op, fds[i][0]);
	}
	/* Enough to have met ops that got no buffer, too few to have served them. */
	mux_submit(m);
	ran = mux_reap(m, 900);
	mux_submit(m);
	for (int i = 0; i < MANY; i++) {
		mux_cancel(m, &probes[i].op);
	}
	assert_int_equal(mux_pending(m), MANY - ran);
	while (mux_pending(m) > 0) {
		turn(m, 64);
	}
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(probes[i].runs, 1);
		if (probes[i].result == -ECANCELED) {
			mux_recv(m, &probes[i].op, fds[i][0]);
			run_until(m, &probes[i].runs, 2);
		}
		assert_int_equal(probes[i].result, 6);
		mux_close(m, fds[i][0]);
		close(fds[i][1]);
	}
	mux_destroy(m);
	free(fds);
	free(probes);
}

/* send */

static void test_send_when_the_reader_is_slow(void **state)
{
	enum { TOTAL = 24 * 1024 * 1024, PIECES = 1000 };
	struct mux *m = make(state);
	unsigned char *data = malloc(TOTAL);
	struct iovec iov[PIECES];
	struct probe out;
	struct probe in;
	size_t at = 0;
	int fds[2];

	assert_non_null(data);
	fill_pattern(data, TOTAL);
	for (size_t i = 0; i < PIECES; i++) {
		/* Pieces from nothing to 90 kB; the last one takes the rest. */
		size_t len = i * 7919 % 90001 % (i % 10 == 0 ? 1 : 90001);

		len = i == PIECES - 1 || len > TOTAL - at ? TOTAL - at : len;
		len = i == PIECES - 1 ? len : len / 4;
		iov[i] = (struct iovec){.iov_base = data + at, .iov_len = len};
		at += len;
	}
	assert_int_equal(at, TOTAL);
	make_tcp_pair(fds);
	probe_init(&out, m, on_result);
	probe_init(&in, m, on_recv);
	in.check = check_pattern;
	starting++;
	mux_send(m, &out.op, fds[0], iov, PIECES);
	starting--;
	settle(m);
	assert_int_equal(out.runs, 0);
	for (int i = 1; in.bytes < TOTAL; i++) {
		mux_recv(m, &in.op, fds[1]);
		run_until(m, &in.runs, i);
		assert_true(in.result > 0);
		if (i % 200 == 0) {
			/* The socket's buffer fills while nobody reads. */
			settle(m);
		}
	}
	run_until(m, &out.runs, 1);
	assert_int_equal(out.result, TOTAL);
	mux_close(m, fds[0]);
	mux_close(m, fds[1]);
	mux_destroy(m);
	free(data);
}

static void test_send_when_nothing_is_to_be_sent(void **state)
{
	struct mux *m = make(state);
	struct iovec iov[2] = {{.iov_base = NULL, .iov_len = 0}, {.iov_base = NULL, .iov_len = 0}};
	struct probe p;
	int fds[2];

	make_pair(fds);
	probe_init(&p, m, on_result);
	mux_send(m, &p.op, fds[0], iov, 2);
	run_until(m, &p.runs, 1);
	assert_int_equal(p.result, 0);
	mux_close(m, fds[0]);
	close(fds[1]);
	mux_destroy(m);
}

/* No SIGPIPE: it would kill this program. */
static void test_send_when_the_peer_is_gone(void **state)
{
	struct mux *m = make(state);
	struct iovec iov = {.iov_base = (char[]){"QUIT\r\n"}, .iov_len = 6};
	struct probe p;
	int fds[2];

	make_pair(fds);
	close(fds[1]);
	probe_init(&p, m, on_result);
	mux_send(m, &p.op, fds[0], &iov, 1);
	run_until(m, &p.runs, 1);
	assert_int_equal(p.result, -EPIPE);
	mux_close(m, fds[0]);
	mux_destroy(m);
}

static void test_send_when_cancelled(void **state)
{
	enum { TOTAL = 16 * 1024 * 1024 };
	struct mux *m = make(state);
	struct iovec iov = {.iov_base = calloc(1, TOTAL), .iov_len = TOTAL};
	void *memory = iov.iov_base;
	struct probe p;
	struct probe in;
	int fds[2];

	assert_non_null(memory);
	make_tcp_pair(fds);
	probe_init(&p, m, on_result);
	probe_init(&in, m, on_recv);
	mux_send(m, &p.op, fds[0], &iov, 1);
	/* A reader of the same socket is not disturbed. */
	mux_recv(m, &in.op, fds[0]);
	settle(m);
	assert_int_equal(p.runs, 0);
	mux_cancel(m, &p.op);
	assert_int_equal(p.runs, 0);
	run_until(m, &p.runs, 1);
	assert_int_equal(p.result, -ECANCELED);
	assert_int_equal(in.runs, 0);
	write_all(fds[1], "421 \r\n", 6);
	run_until(m, &in.runs, 1);
	assert_int_equal(in.result, 6);
	settle(m);
	assert_int_equal(p.runs, 1);
	mux_close(m, fds[0]);
	close(fds[1]);
	mux_destroy(m);
	free(memory);
}

/* poll_fd */

static void test_poll_fd_tells_events(void **state)
{
	struct mux *m = make(state);
	struct probe p;
	int fds[2];

	make_pair(fds);
	probe_init(&p, m, on_result);
	starting++;
	mux_poll_fd(m, &p.op, fds[0], POLLOUT);
	starting--;
	run_until(m, &p.runs, 1);
	assert_int_equal(p.result, POLLOUT);
	mux_poll_fd(m, &p.op, fds[0], POLLIN | POLLOUT);
	run_until(m, &p.runs, 2);
	assert_int_equal(p.result, POLLOUT);
	mux_poll_fd(m, &p.op, fds[0], POLLIN);
	settle(m);
	assert_int_equal(p.runs, 2);
	write_all(fds[1], "x", 1);
	run_until(m, &p.runs, 3);
	assert_int_equal(p.result, POLLIN);
	/* Nobody has read: it is still so. */
	mux_poll_fd(m, &p.op, fds[0], POLLIN | POLLOUT);
	run_until(m, &p.runs, 4);
	assert_int_equal(p.result, POLLIN | POLLOUT);
	close(fds[1]);
	mux_poll_fd(m, &p.op, fds[0], POLLIN);
	run_until(m, &p.runs, 5);
	assert_int_equal(p.result & (POLLIN | POLLHUP), POLLIN | POLLHUP);
	mux_close(m, fds[0]);
	mux_destroy(m);
}

static void test_poll_fd_when_cancelled(void **state)
{
	struct mux *m = make(state);
	struct probe p;
	struct probe again;
	int fds[2];

	make_pair(fds);
	probe_init(&p, m, on_result);
	probe_init(&again, m, on_result);
	mux_poll_fd(m, &p.op, fds[0], POLLIN);
	settle(m);
	mux_cancel(m, &p.op);
	assert_int_equal(p.runs, 0);
	run_until(m, &p.runs, 1);
	assert_int_equal(p.result, -ECANCELED);
	mux_poll_fd(m, &again.op, fds[0], POLLIN);
	write_all(fds[1], "x", 1);
	run_until(m, &again.runs, 1);
	assert_int_equal(again.result, POLLIN);
	settle(m);
	assert_int_equal(p.runs, 1);
	mux_close(m, fds[0]);
	close(fds[1]);
	mux_destroy(m);
}

/* Files */

static void test_files_are_written_synced_and_read(void **state)
{
	static char wrote[40000];
	static char got[50000];
	struct mux *m = make(state);
	int fd = temp_file();
	struct probe p;

	fill_pattern((unsigned char *)wrote, sizeof(wrote));
	probe_init(&p, m, on_result);
	starting++;
	mux_write(m, &p.op, fd, wrote, sizeof(wrote), 4096);
	starting--;
	run_until(m, &p.runs, 1);
	assert_int_equal(p.result, sizeof(wrote));
	starting++;
	mux_fsync(m, &p.op, fd);
	starting--;
	run_until(m, &p.runs, 2);
	assert_int_equal(p.result, 0);
	starting++;
	mux_read(m, &p.op, fd, got, sizeof(got), 4096);
	starting--;
	run_until(m, &p.runs, 3);
	assert_int_equal(p.result, sizeof(wrote));
	assert_memory_equal(got, wrote, sizeof(wrote));
	mux_read(m, &p.op, fd, got, sizeof(got), 1000000);
	run_until(m, &p.runs, 4);
	assert_int_equal(p.result, 0);
	close(fd);
	mux_destroy(m);
}

static void test_files_when_they_fail(void **state)
{
	struct mux *m = make(state);
	int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
	struct probe p;
	char byte = 'x';

	assert_true(fd >= 0);
	probe_init(&p, m, on_result);
	mux_write(m, &p.op, fd, &byte, 1, 0);
	run_until(m, &p.runs, 1);
	assert_int_equal(p.result, -ENOSPC);
	close(fd);
	mux_write(m, &p.op, fd, &byte, 1, 0);
	run_until(m, &p.runs, 2);
	assert_int_equal(p.result, -EBADF);
	mux_read(m, &p.op, -1, &byte, 1, 0);
	run_until(m, &p.runs, 3);
	assert_int_equal(p.result, -EBADF);
	mux_fsync(m, &p.op, fd);
	run_until(m, &p.runs, 4);
	assert_int_equal(p.result, -EBADF);
	mux_destroy(m);
}

static void test_cancel_when_the_result_is_there(void **state)
{
	struct mux *m = make(state);
	int fd = temp_file();
	struct probe p;

	probe_init(&p, m, on_result);
	mux_write(m, &p.op, fd, "abc", 3, 0);
	assert_true(mux_wait(m, PATIENCE_NS));
	assert_true(mux_ready(m));
	mux_cancel(m, &p.op);
	run_until(m, &p.runs, 1);
	assert_int_equal(p.result, 3);
	settle(m);
	assert_int_equal(p.runs, 1);
	close(fd);
	mux_destroy(m);
}

/* The cancel has not gone out when the op ends by itself, and finds nobody later. */
static void test_cancel_when_the_queue_is_full(void **state)
{
	enum { FILLERS = 20 };
	struct mux *m = make_sized(state, 8);
	struct probe fillers[FILLERS];
	struct probe p;
	int fd = temp_file();
	int fds[2];

	make_pair(fds);
	probe_init(&p, m, on_recv);
	mux_recv(m, &p.op, fds[0]);
	settle(m);
	write_all(fds[1], "x", 1);
	for (int i = 0; i < FILLERS; i++) {
		probe_init(&fillers[i], m, on_result);
		mux_write(m, &fillers[i].op, fd, "x", 1, (uint64_t)i);
	}
	mux_cancel(m, &p.op);
	mux_cancel(m, &p.op);
	while (p.runs == 0) {
		mux_reap(m, 1);
	}
	if (p.result == -ECANCELED) {
		mux_recv(m, &p.op, fds[0]);
		run_until(m, &p.runs, 2);
	}
	assert_int_equal(p.result, 1);
	p.runs = 0;
	mux_recv(m, &p.op, fds[0]);
	while (mux_pending(m) > 1) {
		turn(m, 64);
	}
	settle(m);
	assert_int_equal(p.runs, 0);
	write_all(fds[1], "x", 1);
	run_until(m, &p.runs, 1);
	assert_int_equal(p.result, 1);
	mux_close(m, fds[0]);
	close(fds[1]);
	close(fd);
	mux_destroy(m);
}

/* The multiplexor itself */

static void test_reap_honours_its_limit(void **state)
{
	enum { OPS = 50 };
	struct mux *m = make(state);
	struct probe probes[OPS];
	int fds[OPS][2];
	unsigned left = OPS;

	for (int i = 0; i < OPS; i++) {
		make_pair(fds[i]);
		write_all(fds[i][1], "x", 1);
		probe_init(&probes[i], m, on_recv);
		mux_recv(m, &probes[i].op, fds[i][0]);
	}
	while (left > 0) {
		int ran;

		assert_true(mux_wait(m, PATIENCE_NS));
		ran = mux_reap(m, 7);
		assert_in_range(ran, 0, 7);
		left -= (unsigned)ran;
		assert_int_equal(mux_pending(m), left);
	}
	for (int i = 0; i < OPS; i++) {
		assert_int_equal(probes[i].runs, 1);
		mux_close(m, fds[i][0]);
		close(fds[i][1]);
	}
	mux_destroy(m);
}

static void test_wait_when_nothing_happens(void **state)
{
	const struct variant *v = *state;
	struct mux *m = make(state);
	struct probe p;
	int fds[2];

	assert_false(mux_ready(m));
	assert_false(mux_wait(m, 1));
	assert_false(mux_wait(m, 1500000));
	make_pair(fds);
	probe_init(&p, m, on_recv);
	mux_recv(m, &p.op, fds[0]);
	settle(m);
	assert_false(mux_wait(m, 2000000));
	assert_int_equal(mux_reap(m, 10), 0);
	assert_false(mux_ready(m));
	write_all(fds[1], "x", 1);
	/* Only a ring learns that without a system call. */
	assert_int_equal(mux_ready(m), v->backend == MUX_URING);
	assert_true(mux_wait(m, PATIENCE_NS));
	assert_int_equal(p.runs, 0);
	run_until(m, &p.runs, 1);
	mux_close(m, fds[0]);
	close(fds[1]);
	mux_destroy(m);
}

/* A group that spins calls nothing but reap and submit. */
static void test_reap_when_never_waiting(void **state)
{
	struct mux *m = make(state);
	struct probe p;
	int fds[2];

	make_pair(fds);
	probe_init(&p, m, on_recv);
	mux_recv(m, &p.op, fds[0]);
	mux_submit(m);
	assert_int_equal(mux_reap(m, 10), 0);
	for (int i = 1; i <= 50; i++) {
		write_all(fds[1], "x", 1);
		while (p.runs < i) {
			mux_reap(m, 10);
			mux_submit(m);
		}
		mux_recv(m, &p.op, fds[0]);
		mux_submit(m);
	}
	mux_cancel(m, &p.op);
	while (mux_pending(m) > 0) {
		mux_reap(m, 10);
		mux_submit(m);
	}
	mux_close(m, fds[0]);
	close(fds[1]);
	mux_destroy(m);
}

static void on_free(struct mux_op *op, int result)
{
	struct probe *p = probe_of(op);

	*p->fds += result;
	free(p);
}

static void test_callback_may_free_its_op(void **state)
{
	struct mux *m = make(state);
	int fd = temp_file();
	int sum = 0;
	int fds[2];

	make_pair(fds);
	write_all(fds[1], "xyz", 3);
	for (int i = 0; i < 3; i++) {
		struct probe *p = malloc(sizeof(*p));

		assert_non_null(p);
		probe_init(p, m, on_free);
		p->fds = &sum;
		if (i == 0) {
			mux_write(m, &p->op, fd, "ab", 2, 0);
		} else if (i == 1) {
			mux_recv(m, &p->op, fds[0]);
		} else {
			mux_poll_fd(m, &p->op, fds[0], POLLOUT);
		}
	}
	while (mux_pending(m) > 0) {
		turn(m, 64);
	}
	assert_int_equal(sum, 2 + 3 + POLLOUT);
	mux_close(m, fds[0]);
	close(fds[1]);
	close(fd);
	mux_destroy(m);
}

static void test_close_forgets_the_number(void **state)
{
	struct mux *m = make(state);
	int number = -1;

	for (int i = 0; i < 50; i++) {
		struct probe p;
		int fds[2];

		make_pair(fds);
		assert_true(number == -1 || fds[0] == number);
		number = fds[0];
		probe_init(&p, m, on_recv);
		mux_recv(m, &p.op, fds[0]);
		settle(m);
		write_all(fds[1], "x", 1);
		run_until(m, &p.runs, 1);
		assert_int_equal(p.result, 1);
		mux_close(m, fds[0]);
		close(fds[1]);
	}
	mux_destroy(m);
}

static void test_start_when_the_ring_is_small(void **state)
{
	enum { OPS = 1000 };
	struct mux *m = make_sized(state, 1);
	struct probe *probes = calloc(OPS, sizeof(*probes));
	struct probe *idle = calloc(OPS, sizeof(*idle));
	int fd = temp_file();
	int fds[2];
	int copies[OPS];

	assert_non_null(probes);
	assert_non_null(idle);
	make_pair(fds);
	for (int i = 0; i < OPS; i++) {
		copies[i] = dup(fds[0]);
		probe_init(&probes[i], m, on_result);
		probe_init(&idle[i], m, on_recv);
		mux_write(m, &probes[i].op, fd, "flywheel", 8, (uint64_t)i * 8);
		mux_recv(m, &idle[i].op, copies[i]);
	}
	while (mux_pending(m) > OPS) {
		turn(m, 16);
	}
	for (int i = 0; i < OPS; i++) {
		assert_int_equal(probes[i].result, 8);
		mux_cancel(m, &idle[i].op);
	}
	while (mux_pending(m) > 0) {
		turn(m, 16);
	}
	for (int i = 0; i < OPS; i++) {
		assert_int_equal(idle[i].result, -ECANCELED);
		mux_close(m, copies[i]);
	}
	assert_int_equal(lseek(fd, 0, SEEK_END), OPS * 8);
	mux_close(m, fds[0]);
	close(fds[1]);
	close(fd);
	mux_destroy(m);
	free(idle);
	free(probes);
}

static struct agent *seen;

static void on_note_agent(struct mux_op *op, int result)
{
	on_result(op, result);
	seen = agent_current;
}

static void test_callback_runs_as_its_agent(void **state)
{
	static struct agent agent;
	struct mux *m = make(state);
	int fd = temp_file();
	struct probe p;

	probe_init(&p, m, on_note_agent);
	p.op.agent = &agent;
	mux_write(m, &p.op, fd, "x", 1, 0);
	run_until(m, &p.runs, 1);
	assert_ptr_equal(seen, &agent);
	assert_null(agent_current);
	close(fd);
	mux_destroy(m);
}

/* Doorbell: requests and answers, so that a lost wake-up cannot hide behind the next one. */

struct rally {
	struct doorbell bell;
	_Alignas(64) _Atomic int asked;
	_Alignas(64) _Atomic int answered;
	int trips;
};

static void *rally_ask(void *arg)
{
	struct rally *r = arg;
	unsigned random = 1;

	for (int i = 1; i <= r->trips; i++) {
		atomic_store_explicit(&r->asked, i, memory_order_release);
		doorbell_ring(&r->bell);
		for (unsigned spins = 1;
		     atomic_load_explicit(&r->answered, memory_order_acquire) != i; spins++) {
			if (spins % 1024 == 0) {
				sched_yield();
			}
		}
		/* Meets the consumer now before, now after it has gone to sleep. */
		random = random * 1664525U + 1013904223U;
		for (unsigned spins = random >> 26; spins > 0; spins--) {
			__asm__ volatile("pause");
		}
	}
	return NULL;
}

/* True when a request was there. */
static bool rally_answer(struct rally *r, int *answered)
{
	int asked = atomic_load_explicit(&r->asked, memory_order_acquire);

	if (asked == *answered) {
		return false;
	}
	*answered = asked;
	atomic_store_explicit(&r->answered, asked, memory_order_release);
	return true;
}

static void rally_play(struct rally *r, struct mux *m)
{
	int answered = 0;
	int lost = 0;

	while (answered < r->trips) {
		if (rally_answer(r, &answered)) {
			continue;
		}
		mux_reap(m, 16);
		doorbell_park(&r->bell);
		if (rally_answer(r, &answered) || mux_ready(m)) {
			doorbell_wake(&r->bell);
			continue;
		}
		if (!mux_wait(m, UINT64_C(2) * 1000 * 1000 * 1000) &&
		    atomic_load_explicit(&r->asked, memory_order_acquire) != answered) {
			lost++;
		}
		doorbell_wake(&r->bell);
	}
	assert_int_equal(lost, 0);
}

static void test_doorbell_wakes_the_wait(void **state)
{
	struct mux *m = make(state);
	struct rally r = {.trips = TRIPS};
	pthread_t thread;

	assert_int_equal(doorbell_init(&r.bell), 0);
	mux_watch_doorbell(m, r.bell.eventfd);
	assert_int_equal(pthread_create(&thread, NULL, rally_ask, &r), 0);
	rally_play(&r, m);
	assert_int_equal(pthread_join(thread, NULL), 0);
	/* And lets it sleep when nobody rings. */
	for (int i = 0; i < 3; i++) {
		mux_submit(m);
		mux_reap(m, 16);
	}
	assert_false(mux_wait(m, 1000000));
	mux_destroy(m);
	doorbell_close(&r.bell);
}

/* Creation */

static void test_create_explains_the_fallback(void **state)
{
	const char *why = "unset";
	struct mux *m;

	(void)state;
	assert_int_equal(mux_create(&m, MUX_AUTO, 64, &why), 0);
	assert_int_equal(strcmp(mux_name(m), "uring") == 0, why == NULL);
	mux_destroy(m);
	assert_int_equal(mux_create(&m, MUX_EPOLL, 64, &why), 0);
	assert_string_equal(mux_name(m), "epoll");
	assert_null(why);
	mux_destroy(m);
	assert_int_equal(mux_create(&m, MUX_POLL, 64, NULL), 0);
	assert_string_equal(mux_name(m), "poll");
	mux_destroy(m);
}

/* As a container does it, or a kernel that has neither. */
static int deny_new_calls(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_pwait2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
		return -1;
	}
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static int child_without_io_uring(void)
{
	const char *why = NULL;
	struct mux *m;

	if (deny_new_calls() != 0) {
		return 77;
	}
	if (mux_create(&m, MUX_URING, 64, &why) != -EPERM || why == NULL ||
	    strstr(why, "seccomp") == NULL) {
		return 1;
	}
	why = NULL;
	if (mux_create(&m, MUX_AUTO, 64, &why) != 0 || strcmp(mux_name(m), "epoll") != 0 ||
	    why == NULL || strstr(why, "seccomp") == NULL) {
		return 2;
	}
	/* Without epoll_pwait2() it waits in milliseconds. */
	if (mux_wait(m, 1500000)) {
		return 3;
	}
	mux_destroy(m);
	return 0;
}

static void test_create_when_io_uring_is_denied(void **state)
{
	int status;
	pid_t child = fork();

	(void)state;
	assert_true(child >= 0);
	if (child == 0) {
		_exit(child_without_io_uring());
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77) {
		fprintf(stderr, "*** SKIPPED: no seccomp filters here ***\n");
		skip();
	}
	assert_int_equal(WEXITSTATUS(status), 0);
}

static const struct CMUnitTest each_backend[] = {
	cmocka_unit_test(test_accept_delivers_each_connection),
	cmocka_unit_test(test_accept_when_cancelled_by_its_callback),
	cmocka_unit_test(test_accept_when_it_cannot_work),
	cmocka_unit_test(test_connect_when_accepted_and_when_refused),
	cmocka_unit_test(test_connect_when_cancelled),
	cmocka_unit_test(test_recv_when_there_is_more_than_a_buffer),
	cmocka_unit_test(test_recv_when_data_comes_later_and_when_the_peer_closes),
	cmocka_unit_test(test_recv_when_data_and_end_come_together),
	cmocka_unit_test(test_recv_when_reset),
	cmocka_unit_test(test_recv_when_cancelled),
	cmocka_unit_test(test_recv_when_cancelled_with_data_there),
	cmocka_unit_test(test_recv_when_started_again_after_cancel),
	cmocka_unit_test(test_recv_when_buffers_run_out),
	cmocka_unit_test(test_recv_when_cancelled_for_want_of_buffers),
	cmocka_unit_test(test_send_when_the_reader_is_slow),
	cmocka_unit_test(test_send_when_nothing_is_to_be_sent),
	cmocka_unit_test(test_send_when_the_peer_is_gone),
	cmocka_unit_test(test_send_when_cancelled),
	cmocka_unit_test(test_poll_fd_tells_events),
	cmocka_unit_test(test_poll_fd_when_cancelled),
	cmocka_unit_test(test_files_are_written_synced_and_read),
	cmocka_unit_test(test_files_when_they_fail),
	cmocka_unit_test(test_cancel_when_the_result_is_there),
	cmocka_unit_test(test_cancel_when_the_queue_is_full),
	cmocka_unit_test(test_reap_honours_its_limit),
	cmocka_unit_test(test_wait_when_nothing_happens),
	cmocka_unit_test(test_reap_when_never_waiting),
	cmocka_unit_test(test_callback_may_free_its_op),
	cmocka_unit_test(test_close_forgets_the_number),
	cmocka_unit_test(test_start_when_the_ring_is_small),
	cmocka_unit_test(test_callback_runs_as_its_agent),
	cmocka_unit_test(test_doorbell_wakes_the_wait),
};

#define EACH (sizeof(each_backend) / sizeof(each_backend[0]))

static int run_backend(struct variant *v)
{
	struct CMUnitTest tests[EACH];

	printf("--- %s ---\n", v->name);
	fflush(stdout);
	for (size_t i = 0; i < EACH; i++) {
		tests[i] = each_backend[i];
		tests[i].initial_state = v;
	}
	return cmocka_run_group_tests_name(v->name, tests, NULL, NULL);
}

int main(void)
{
	const struct CMUnitTest creation[] = {
		cmocka_unit_test(test_create_explains_the_fallback),
		cmocka_unit_test(test_create_when_io_uring_is_denied),
	};
	struct rlimit files;
	int failed = cmocka_run_group_tests_name("creation", creation, NULL, NULL);

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	for (size_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++) {
		failed += run_backend(&variants[i]);
	}
	return failed;
}
