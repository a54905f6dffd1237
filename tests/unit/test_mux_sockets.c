/* Connections over each back end: accept, connect, receive and send. */
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/mux_world.h"

#define MANY 3000

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

static void set_address(struct mux_op *op, const struct sockaddr_in *address)
{
	memcpy(&op->address, address, sizeof(*address));
	op->address_len = sizeof(*address);
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

static uint32_t segments_received(int fd)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);

	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len), 0);
	return info.tcpi_segs_in;
}

/* Words and the end that follows them are one segment, with mux_send() two. */
static void test_send_when_these_are_the_last_words(void **state)
{
	struct mux *m = make(state);
	struct probe out;
	struct probe in;
	uint32_t before;
	int fds[2];

	make_tcp_pair(fds);
	probe_init(&out, m, on_result);
	probe_init(&in, m, on_recv);
	before = segments_received(fds[1]);
	for (int round = 0; round < 2; round++) {
		struct iovec iov = {.iov_base = (char[]){"221 Bye\r\n"}, .iov_len = 9};

		if (round == 0) {
			mux_send(m, &out.op, fds[0], &iov, 1);
		} else {
			mux_send_last(m, &out.op, fds[0], &iov, 1);
		}
		run_until(m, &out.runs, round + 1);
		assert_int_equal(out.result, 9);
	}
	mux_close(m, fds[0]);
	for (int i = 1; in.bytes < 18; i++) {
		mux_recv(m, &in.op, fds[1]);
		run_until(m, &in.runs, i);
		assert_true(in.result > 0);
	}
	mux_recv(m, &in.op, fds[1]);
	run_until(m, &in.runs, in.runs + 1);
	assert_int_equal(in.result, 0);
	assert_int_equal(segments_received(fds[1]) - before, 2);
	mux_close(m, fds[1]);
	mux_destroy(m);
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
	cmocka_unit_test(test_send_when_these_are_the_last_words),
	cmocka_unit_test(test_send_when_nothing_is_to_be_sent),
	cmocka_unit_test(test_send_when_the_peer_is_gone),
	cmocka_unit_test(test_send_when_cancelled),
};

int main(void)
{
	return run_each_backend(each_backend, sizeof(each_backend) / sizeof(each_backend[0]));
}
