#include "core/outbound/chunk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

static struct pool buffers;

static int set_up(void **state)
{
	(void)state;
	pool_init(&buffers, "chain buffer", CHAIN_BUFFER_SIZE, 16);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	pool_close(&buffers);
	return buffers.live == 0 ? 0 : -1;
}

/* The chunk of `wire` is `plain`, however many pieces are asked for at once. */
static void expect_chunk(const char *wire, size_t wire_len, const char *plain, size_t plain_len)
{
	struct chain body = CHAIN_EMPTY;

	chain_append(&body, &buffers, wire, wire_len);
	assert_int_equal(chunk_length(&body, true), plain_len);
	for (unsigned max = 1; max <= 64; max += 9) {
		struct chunk_cursor c;
		struct iovec iov[64];
		size_t at = 0;
		unsigned n;

		chunk_begin(&c, &body, true);
		while ((n = chunk_iov(&c, iov, max)) > 0) {
			assert_true(n <= max);
			for (unsigned i = 0; i < n; i++) {
				assert_true(iov[i].iov_len > 0 && at + iov[i].iov_len <= plain_len);
				assert_memory_equal(iov[i].iov_base, plain + at, iov[i].iov_len);
				at += iov[i].iov_len;
			}
		}
		assert_int_equal(at, plain_len);
		assert_true(chunk_ended(&c));
	}
	chain_release(&body, &buffers);
}

static void test_small_bodies(void **state)
{
	(void)state;
	expect_chunk("", 0, "", 0);
	expect_chunk("a\r\n", 3, "a\r\n", 3);
	expect_chunk("..\r\n", 4, ".\r\n", 3);
	expect_chunk("a\r\n..\r\n...b\r\n", 14, "a\r\n.\r\n..b\r\n", 12);
	/* Of a dot alone nothing is left. */
	expect_chunk(".", 1, "", 0);
}

/* Dots at each place around the end of a buffer. */
static void test_bodies_of_several_buffers(void **state)
{
	size_t size = 3 * CHAIN_BUFFER_DATA;
	char *wire = malloc(size + 64);
	char *plain = malloc(size + 64);

	(void)state;
	assert_true(wire != NULL && plain != NULL);
	for (size_t shift = 0; shift < 8; shift++) {
		size_t before = CHAIN_BUFFER_DATA - shift;

		memset(wire, 'x', size);
		memset(plain, 'x', size);
		memcpy(wire + before, "\r\n..\r\n..", 8);
		memcpy(plain + before, "\r\n.\r\n.", 6);
		expect_chunk(wire, size, plain, size - 2);
	}
	free(plain);
	free(wire);
}

/* Where there are no dots to be dropped, none are looked for. */
static void test_bodies_known_to_be_plain(void **state)
{
	struct chain body = CHAIN_EMPTY;
	struct chunk_cursor c;
	struct iovec iov[4];

	(void)state;
	chain_append(&body, &buffers, "..\r\n", 4);
	assert_int_equal(chunk_length(&body, false), 4);
	chunk_begin(&c, &body, false);
	assert_int_equal(chunk_iov(&c, iov, 4), 1);
	assert_int_equal(iov[0].iov_len, 4);
	assert_int_equal(chunk_iov(&c, iov, 4), 0);
	chain_release(&body, &buffers);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_small_bodies),
		TEST(test_bodies_of_several_buffers),
		TEST(test_bodies_known_to_be_plain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
