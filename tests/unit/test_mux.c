/* The multiplexor itself over each back end: readiness, files, cancelling, waiting, waking. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/runtime/agent.h"
#include "core/runtime/doorbell.h"
#include "tests/unit/mux_world.h"

#define TRIPS 100000

static int temp_file(void)
{
	char name[] = "/tmp/test_mux.XXXXXX";
	int fd = mkostemp(name, O_CLOEXEC);

	assert_true(fd >= 0);
	unlink(name);
	return fd;
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

static void test_synced_writes_write(void **state)
{
	static char wrote[40000];
	static char got[40000];
	struct mux *m = make(state);
	int fd = temp_file();
	struct probe p;

	fill_pattern((unsigned char *)wrote, sizeof(wrote));
	probe_init(&p, m, on_result);
	starting++;
	mux_write_synced(m, &p.op, fd, wrote, sizeof(wrote), 4096);
	starting--;
	assert_true(p.op.synced);
	run_until(m, &p.runs, 1);
	assert_int_equal(p.result, sizeof(wrote));
	assert_int_equal(pread(fd, got, sizeof(got), 4096), sizeof(got));
	assert_memory_equal(got, wrote, sizeof(wrote));
	mux_write(m, &p.op, fd, "x", 1, 0);
	assert_false(p.op.synced);
	run_until(m, &p.runs, 2);
	assert_int_equal(p.result, 1);
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

static void on_nop(struct mux_op *op, int result)
{
	struct probe *p = probe_of(op);

	p->runs++;
	p->result = result;
	assert_false(mux_op_busy(op));
	if (p->again) {
		p->again = false;
		mux_nop(p->m, op);
	}
}

static void test_nop_completes_at_the_next_reap(void **state)
{
	struct mux *m = make(state);
	struct probe p;

	settle(m);
	probe_init(&p, m, on_nop);
	p.again = true;
	starting++;
	mux_nop(m, &p.op);
	starting--;
	assert_true(mux_ready(m));
	assert_int_equal(mux_pending(m), 1);
	/* A sleep does not come between. */
	assert_true(mux_wait(m, PATIENCE_NS));
	assert_int_equal(p.runs, 0);
	run_until(m, &p.runs, 2);
	assert_int_equal(p.result, 0);
	/* One that was cancelled runs once, too. */
	mux_nop(m, &p.op);
	mux_cancel(m, &p.op);
	run_until(m, &p.runs, 3);
	settle(m);
	assert_int_equal(p.runs, 3);
	assert_int_equal(mux_pending(m), 0);
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

/* The kernel may end a wait early for something of its own, but not for ever. */
static void assert_times_out(struct mux *m, uint64_t timeout_ns)
{
	unsigned early = 0;

	while (mux_wait(m, timeout_ns)) {
		assert_int_equal(mux_reap(m, 10), 0);
		assert_true(++early < 100);
	}
}

static void test_wait_when_nothing_happens(void **state)
{
	const struct variant *v = *state;
	struct mux *m = make(state);
	struct probe p;
	int fds[2];

	assert_false(mux_ready(m));
	assert_times_out(m, 1);
	assert_times_out(m, 1500000);
	make_pair(fds);
	probe_init(&p, m, on_recv);
	mux_recv(m, &p.op, fds[0]);
	settle(m);
	assert_times_out(m, 2000000);
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
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pwritev2, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
		return -1;
	}
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

static bool writes_synced(struct mux *m)
{
	int fd = temp_file();
	char got[3];
	struct probe p;

	probe_init(&p, m, on_result);
	mux_write_synced(m, &p.op, fd, "abc", 3, 5);
	run_until(m, &p.runs, 1);
	return p.result == 3 && pread(fd, got, 3, 5) == 3 && memcmp(got, "abc", 3) == 0 &&
	       close(fd) == 0;
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
	/* Without pwritev2() a durable write is two calls. */
	if (!writes_synced(m)) {
		return 4;
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
	cmocka_unit_test(test_poll_fd_tells_events),
	cmocka_unit_test(test_poll_fd_when_cancelled),
	cmocka_unit_test(test_files_are_written_synced_and_read),
	cmocka_unit_test(test_synced_writes_write),
	cmocka_unit_test(test_files_when_they_fail),
	cmocka_unit_test(test_nop_completes_at_the_next_reap),
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

int main(void)
{
	const struct CMUnitTest creation[] = {
		cmocka_unit_test(test_create_explains_the_fallback),
		cmocka_unit_test(test_create_when_io_uring_is_denied),
	};
	int failed = cmocka_run_group_tests_name("creation", creation, NULL, NULL);

	return failed +
	       run_each_backend(each_backend, sizeof(each_backend) / sizeof(each_backend[0]));
}
