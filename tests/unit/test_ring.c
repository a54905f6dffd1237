#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/runtime/ring.h"

struct element {
	uint64_t number;
	uint64_t check;
	uint32_t small;
};

RING_DEFINE(element_ring, element);

static struct element make(uint64_t n)
{
	return (struct element){.number = n, .check = ~n, .small = (uint32_t)n};
}

static void test_layout_when_rings_stand_side_by_side(void **state)
{
	(void)state;
	assert_int_equal(_Alignof(struct element_ring), CACHE_LINE);
	assert_int_equal(sizeof(struct element_ring) % CACHE_LINE, 0);
}

/* Of n slots n-1 hold something, in every position of the ring. */
static void test_send_when_full(void **state)
{
	struct element_ring r;
	struct element e;

	(void)state;
	for (unsigned slots = 2; slots <= 64; slots *= 2) {
		assert_int_equal(element_ring_init(&r, slots), 0);
		for (unsigned turn = 0; turn < 3 * slots; turn++) {
			for (unsigned i = 0; i < slots - 1; i++) {
				e = make(i);
				assert_int_equal(element_ring_depth(&r), i);
				assert_int_equal(element_ring_empty(&r), i == 0);
				assert_true(element_ring_send(&r, &e));
			}
			assert_false(element_ring_send(&r, &e));
			for (unsigned i = 0; i < slots - 1; i++) {
				assert_true(element_ring_receive(&r, &e));
				assert_int_equal(e.number, i);
				assert_true(e.check == ~e.number);
			}
			assert_false(element_ring_receive(&r, &e));
			/* Move the start by one. */
			assert_true(element_ring_send(&r, &e));
			assert_true(element_ring_receive(&r, &e));
		}
		element_ring_close(&r);
	}
}

static void test_receive_when_empty(void **state)
{
	struct element_ring r;
	struct element e = make(7);

	(void)state;
	assert_int_equal(element_ring_init(&r, 8), 0);
	assert_false(element_ring_receive(&r, &e));
	assert_int_equal(e.number, 7);
	assert_int_equal(element_ring_depth(&r), 0);
	element_ring_close(&r);
}

/* Turns are counted in 32 bits; the ring goes on when they begin anew. */
static void test_send_when_the_count_wraps(void **state)
{
	struct element_ring r;
	struct element e;

	(void)state;
	assert_int_equal(element_ring_init(&r, 4), 0);
	atomic_store(&r.put, UINT32_MAX - 5);
	atomic_store(&r.received, UINT32_MAX - 5);
	r.published = UINT32_MAX - 5;
	r.taken = UINT32_MAX - 5;
	r.received_seen = UINT32_MAX - 5;
	for (unsigned turn = 0; turn < 12; turn++) {
		for (unsigned i = 0; i < 3; i++) {
			e = make(turn * 3 + i);
			assert_true(element_ring_send(&r, &e));
			assert_int_equal(element_ring_depth(&r), i + 1);
		}
		assert_false(element_ring_send(&r, &e));
		for (unsigned i = 0; i < 3; i++) {
			assert_true(element_ring_receive(&r, &e));
			assert_int_equal(e.number, turn * 3 + i);
		}
		assert_true(element_ring_empty(&r));
		assert_false(element_ring_receive(&r, &e));
	}
	element_ring_close(&r);
}

/* What is put is nobody's before it is published, all of it at once. */
static void test_receive_when_put_and_published(void **state)
{
	struct element_ring r;
	struct element e;

	(void)state;
	assert_int_equal(element_ring_init(&r, 8), 0);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 7; i++) {
			e = make(i);
			assert_true(element_ring_put(&r, &e));
			assert_true(element_ring_empty(&r));
			assert_false(element_ring_receive(&r, &e));
		}
		assert_false(element_ring_put(&r, &e));
		element_ring_publish(&r);
		for (unsigned i = 0; i < 7; i++) {
			assert_true(element_ring_receive(&r, &e));
			assert_int_equal(e.number, i);
		}
		assert_false(element_ring_receive(&r, &e));
	}
	element_ring_close(&r);
}

/* A large ring's producer sees all of the room when the consumer has looked in vain. */
static void test_put_when_the_consumer_tells_late(void **state)
{
	struct element_ring r;
	struct element e = make(1);

	(void)state;
	assert_int_equal(element_ring_init(&r, 64), 0);
	for (unsigned i = 0; i < 63; i++) {
		assert_true(element_ring_send(&r, &e));
	}
	for (unsigned i = 0; i < RING_LAG - 1; i++) {
		assert_true(element_ring_receive(&r, &e));
		assert_false(element_ring_send(&r, &e));
	}
	assert_true(element_ring_receive(&r, &e));
	assert_true(element_ring_send(&r, &e));
	while (element_ring_receive(&r, &e)) {
	}
	assert_int_equal(element_ring_depth(&r), 0);
	for (unsigned i = 0; i < 63; i++) {
		assert_true(element_ring_send(&r, &e));
	}
	element_ring_close(&r);
}

/* A size that is wrong is the caller's mistake. */
static void test_init_when_size_is_wrong(void **state)
{
	static const unsigned wrong[] = {0, 1, 3, 6, 1000, 1U << 31};

	(void)state;
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		pid_t pid = fork();
		int status;

		if (pid == 0) {
			struct rlimit none = {0, 0};
			struct element_ring r;

			setrlimit(RLIMIT_CORE, &none);
			signal(SIGABRT, SIG_DFL);
			fclose(stderr);
			(void)element_ring_init(&r, wrong[i]);
			_exit(0);
		}
		assert_true(pid > 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGABRT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout_when_rings_stand_side_by_side),
		cmocka_unit_test(test_send_when_full),
		cmocka_unit_test(test_receive_when_empty),
		cmocka_unit_test(test_receive_when_put_and_published),
		cmocka_unit_test(test_put_when_the_consumer_tells_late),
		cmocka_unit_test(test_send_when_the_count_wraps),
		cmocka_unit_test(test_init_when_size_is_wrong),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
