#include "core/mail/chain.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* jemalloc's, when it is linked. */
int mallctl(const char *name, void *old, size_t *old_len, void *new, size_t new_len)
	__attribute__((weak));

static struct pool buffers;

static int set_up(void **state)
{
	(void)state;
	pool_init(&buffers, "chain buffer", CHAIN_BUFFER_SIZE, 16);
	return 0;
}

/* No test may leak a buffer. */
static int tear_down(void **state)
{
	(void)state;
	pool_close(&buffers);
	return buffers.live == 0 ? 0 : -1;
}

static unsigned char *pattern(size_t len, unsigned seed)
{
	unsigned char *p = malloc(len + 1);

	assert_non_null(p);
	for (size_t i = 0; i < len; i++) {
		seed = seed * 1103515245U + 12345U;
		p[i] = (unsigned char)(seed >> 16);
	}
	return p;
}

/* Whether all ways to read the chain give `expected`. */
static void assert_chain_is(const struct chain *c, const unsigned char *expected, size_t len)
{
	unsigned char *copy = malloc(len + 1);
	struct chain_buffer *cursor = NULL;
	struct iovec iov[3];
	size_t at = 0;

	assert_non_null(copy);
	assert_int_equal(c->len, len);
	chain_copy_out(c, 0, copy, len);
	assert_memory_equal(copy, expected, len);
	do {
		unsigned n = chain_iov(c, &cursor, iov, 3);

		for (unsigned i = 0; i < n; i++) {
			assert_true(iov[i].iov_len <= len - at);
			assert_memory_equal(iov[i].iov_base, expected + at, iov[i].iov_len);
			at += iov[i].iov_len;
		}
	} while (cursor != NULL);
	assert_int_equal(at, len);
	free(copy);
}

static void test_empty_chain_has_nothing(void **state)
{
	struct chain c = CHAIN_EMPTY;
	struct chain_buffer *cursor = NULL;
	struct iovec iov[1];

	(void)state;
	assert_int_equal(chain_iov(&c, &cursor, iov, 1), 0);
	assert_null(cursor);
	chain_append(&c, &buffers, "", 0);
	assert_null(c.head);
	chain_release(&c, &buffers);
	assert_int_equal(c.len, 0);
}

static void test_append_in_pieces_of_all_kinds_keeps_order(void **state)
{
	static const size_t pieces[] = {
		1, 2, 7, 100, CHAIN_BUFFER_DATA - 1, CHAIN_BUFFER_DATA, 4096, 5000, 30000};
	size_t len = 60000;
	unsigned char *data = pattern(len, 1);

	(void)state;
	for (size_t p = 0; p < sizeof(pieces) / sizeof(pieces[0]); p++) {
		struct chain c = CHAIN_EMPTY;

		for (size_t at = 0; at < len; at += pieces[p]) {
			size_t n = len - at < pieces[p] ? len - at : pieces[p];

			chain_append(&c, &buffers, data + at, n);
		}
		assert_int_equal(c.buffers, (len + CHAIN_BUFFER_DATA - 1) / CHAIN_BUFFER_DATA);
		assert_chain_is(&c, data, len);
		chain_release(&c, &buffers);
		assert_null(c.head);
		assert_int_equal(c.buffers, 0);
	}
	free(data);
}

static void test_copy_out_at_any_offset(void **state)
{
	size_t len = 3 * CHAIN_BUFFER_DATA;
	unsigned char *data = pattern(len, 2);
	unsigned char copy[128];
	struct chain c = CHAIN_EMPTY;

	(void)state;
	chain_append(&c, &buffers, data, len);
	for (size_t at = 0; at + sizeof(copy) <= len; at += 31) {
		chain_copy_out(&c, at, copy, sizeof(copy));
		assert_memory_equal(copy, data + at, sizeof(copy));
	}
	chain_copy_out(&c, len - sizeof(copy), copy, sizeof(copy));
	assert_memory_equal(copy, data + len - sizeof(copy), sizeof(copy));
	chain_copy_out(&c, len, copy, 0);
	chain_release(&c, &buffers);
	free(data);
}

static void test_prepend_puts_front_first_and_empties_it(void **state)
{
	size_t front_len = 5000;
	size_t len = 9000;
	unsigned char *data = pattern(len, 3);
	struct chain c = CHAIN_EMPTY;
	struct chain front = CHAIN_EMPTY;

	(void)state;
	chain_append(&front, &buffers, data, front_len);
	chain_append(&c, &buffers, data + front_len, len - front_len - 100);
	chain_prepend_chain(&c, &front);
	assert_null(front.head);
	assert_int_equal(front.len, 0);
	chain_append(&c, &buffers, data + len - 100, 100);
	assert_chain_is(&c, data, len);
	chain_prepend_chain(&c, &front);
	assert_chain_is(&c, data, len);
	chain_release(&c, &buffers);
	free(data);
}

static void test_prepend_to_empty_can_be_appended_to(void **state)
{
	struct chain c = CHAIN_EMPTY;
	struct chain front = CHAIN_EMPTY;

	(void)state;
	chain_append(&front, &buffers, "abc", 3);
	chain_prepend_chain(&c, &front);
	chain_append(&c, &buffers, "def", 3);
	assert_chain_is(&c, (const unsigned char *)"abcdef", 6);
	chain_release(&c, &buffers);
}

static void test_remove_anywhere(void **state)
{
	enum { LEN = 3 * CHAIN_BUFFER_DATA + 100 };
	static const size_t cuts[] = {0,
				      1,
				      CHAIN_BUFFER_DATA - 1,
				      CHAIN_BUFFER_DATA,
				      CHAIN_BUFFER_DATA + 1,
				      3 * CHAIN_BUFFER_DATA,
				      LEN - 1,
				      LEN};
	enum { CUTS = sizeof(cuts) / sizeof(cuts[0]) };

	(void)state;
	for (size_t i = 0; i < CUTS; i++) {
		for (size_t j = i; j < CUTS; j++) {
			unsigned char *data = pattern(LEN + 3, 7);
			struct chain c = CHAIN_EMPTY;
			size_t rest = LEN - cuts[j];

			chain_append(&c, &buffers, data, LEN);
			chain_remove(&c, &buffers, cuts[i], cuts[j] - cuts[i]);
			memmove(data + cuts[i], data + cuts[j], rest);
			assert_chain_is(&c, data, cuts[i] + rest);
			/* The end is still an end. */
			chain_append(&c, &buffers, "end", 3);
			memcpy(data + cuts[i] + rest, "end", 3);
			assert_chain_is(&c, data, cuts[i] + rest + 3);
			chain_release(&c, &buffers);
			free(data);
		}
	}
}

static void test_printf_appends_formatted_text(void **state)
{
	struct chain c = CHAIN_EMPTY;

	(void)state;
	chain_append(&c, &buffers, "<", 1);
	chain_printf(&c, &buffers, "%s-%05u", "x", 42U);
	assert_chain_is(&c, (const unsigned char *)"<x-00042", 8);
	chain_release(&c, &buffers);
}

static void test_printf_takes_2000_bytes(void **state)
{
	struct chain c = CHAIN_EMPTY;
	unsigned char expected[2000];

	(void)state;
	memset(expected, ' ', sizeof(expected));
	expected[1999] = 'x';
	chain_printf(&c, &buffers, "%2000s", "x");
	assert_chain_is(&c, expected, sizeof(expected));
	chain_release(&c, &buffers);
}

static size_t allocator_number(const char *format, unsigned bin)
{
	char name[64];
	size_t value = 0;
	size_t len = sizeof(value);

	snprintf(name, sizeof(name), format, bin);
	assert_int_equal(mallctl(name, &value, &len, NULL, 0), 0);
	return value;
}

static void test_allocator_makes_room_for_many_buffers_at_a_time(void **state)
{
	unsigned bin = 0;

	(void)state;
	if (mallctl == NULL) {
		skip();
	}
	while (allocator_number("arenas.bin.%u.size", bin) != CHAIN_BUFFER_SIZE) {
		bin++;
	}
	assert_in_range(allocator_number("arenas.bin.%u.slab_size", bin), 16 * CHAIN_BUFFER_SIZE,
			64 * CHAIN_BUFFER_SIZE);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_empty_chain_has_nothing),
		TEST(test_append_in_pieces_of_all_kinds_keeps_order),
		TEST(test_copy_out_at_any_offset),
		TEST(test_prepend_puts_front_first_and_empties_it),
		TEST(test_prepend_to_empty_can_be_appended_to),
		TEST(test_remove_anywhere),
		TEST(test_printf_appends_formatted_text),
		TEST(test_printf_takes_2000_bytes),
		TEST(test_allocator_makes_room_for_many_buffers_at_a_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
