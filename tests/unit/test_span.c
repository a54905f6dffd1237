/* Records read together: which, and what is not. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "spool/span.h"

#define FILE_BYTES (4U * 1024 * 1024)

/* A file in which each byte says where it is, nearly. */
static struct segment *file_new(void)
{
	char path[] = "/tmp/flywheel-span-XXXXXX";
	struct segment *g = segment_new(1, FILE_BYTES);
	unsigned char *data = malloc(FILE_BYTES);

	g->fd = mkstemp(path);
	assert_true(g->fd >= 0);
	unlink(path);
	assert_non_null(data);
	for (size_t i = 0; i < FILE_BYTES; i++) {
		data[i] = (unsigned char)(i * 7 + i / 251);
	}
	assert_int_equal(segment_write(g, 0, data, FILE_BYTES), 0);
	free(data);
	return g;
}

static struct span_want want(const struct segment *g, uint64_t offset, size_t len)
{
	return (struct span_want){.segment = g, .offset = offset, .len = len};
}

static void assert_has(const struct span *x, const struct span_want *w)
{
	const unsigned char *data = span_find(x, w);

	assert_non_null(data);
	for (size_t i = 0; i < w->len; i++) {
		uint64_t at = w->offset + i;

		assert_int_equal(data[i], (unsigned char)(at * 7 + at / 251));
	}
}

static void close_all(struct span *x, struct segment *g)
{
	span_drop(x);
	segment_free(g, NULL);
}

static void test_read_takes_neighbours_in_any_order(void **state)
{
	struct segment *g = file_new();
	struct span_want wants[5] = {want(g, 9000, 512), want(g, 4096, 512), want(g, 6500, 100),
				     want(g, 12000, 512), want(g, 4608, 8)};
	struct span x = {0};

	(void)state;
	span_read(&x, wants, 5);
	assert_int_equal(x.offset, 4096);
	assert_int_equal(x.len, 12512 - 4096);
	/* What is in memory does not come from the file again. */
	assert_int_equal(ftruncate(g->fd, 0), 0);
	for (unsigned i = 0; i < 5; i++) {
		assert_has(&x, &wants[i]);
	}
	close_all(&x, g);
}

static void test_read_leaves_out_what_is_far_away(void **state)
{
	struct segment *g = file_new();
	struct segment *other = file_new();
	struct span_want wants[7] = {want(g, 8, 512),       want(other, 1000000, 512),
				     want(g, 1000000, 512), want(g, 1001000, 512),
				     want(g, 1000500, 512), want(other, 1200000, 512),
				     want(g, 3000000, 512)};
	struct span x = {0};

	(void)state;
	span_read(&x, wants, 7);
	assert_has(&x, &wants[2]);
	assert_has(&x, &wants[3]);
	assert_has(&x, &wants[4]);
	assert_null(span_find(&x, &wants[0]));
	assert_null(span_find(&x, &wants[1]));
	assert_null(span_find(&x, &wants[5]));
	assert_null(span_find(&x, &wants[6]));
	segment_free(other, NULL);
	close_all(&x, g);
}

/* Of large messages only the beginnings are read. */
static void test_read_copies_no_more_than_pays(void **state)
{
	struct segment *g = file_new();
	struct span_want wants[40];
	struct span x = {0};

	(void)state;
	for (unsigned each = 2048; each <= 65536; each *= 2) {
		for (unsigned i = 0; i < 40; i++) {
			wants[i] = want(g, (uint64_t)i * each, 512);
		}
		span_read(&x, wants, 40);
		assert_int_equal(span_find(&x, &wants[20]) != NULL, each <= SPAN_BYTES_EACH);
	}
	/* Nothing, and one alone, are not worth it. */
	span_read(&x, wants, 1);
	assert_null(span_find(&x, &wants[0]));
	span_read(&x, wants, 0);
	assert_null(span_find(&x, &wants[0]));
	close_all(&x, g);
}

static void test_read_stays_within_its_memory(void **state)
{
	struct segment *g = file_new();
	struct span_want wants[1024];
	struct span x = {0};

	(void)state;
	for (unsigned i = 0; i < 1024; i++) {
		wants[i] =
			want(g, (uint64_t)i * 2048 + (i == 900 ? 24 : 0), i % 2 == 0 ? 512 : 2048);
	}
	span_read(&x, wants, 1024);
	assert_true(x.len > SPAN_BYTES / 2 && x.len <= SPAN_BYTES);
	assert_has(&x, &wants[512]);
	assert_null(span_find(&x, &wants[0]));
	assert_null(span_find(&x, &wants[1023]));
	close_all(&x, g);
}

static void test_find_gives_all_or_nothing(void **state)
{
	struct segment *g = file_new();
	struct span_want wants[2] = {want(g, 4096, 512), want(g, 6000, 512)};
	struct span_want before = want(g, 4095, 8);
	struct span_want behind = want(g, 6505, 8);
	struct span_want last = want(g, 6504, 8);
	struct span x = {0};

	(void)state;
	assert_null(span_find(&x, &wants[0]));
	span_read(&x, wants, 2);
	assert_null(span_find(&x, &before));
	assert_null(span_find(&x, &behind));
	assert_has(&x, &last);
	span_drop(&x);
	assert_null(span_find(&x, &wants[0]));
	close_all(&x, g);
}

static void test_read_that_fails_leaves_nothing(void **state)
{
	struct segment *g = file_new();
	struct span_want wants[2] = {want(g, 4096, 512), want(g, 5000, 512)};
	struct span x = {0};

	(void)state;
	span_read(&x, wants, 2);
	assert_has(&x, &wants[0]);
	assert_int_equal(ftruncate(g->fd, 5100), 0);
	span_read(&x, wants, 2);
	assert_null(span_find(&x, &wants[0]));
	close_all(&x, g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read_takes_neighbours_in_any_order),
		cmocka_unit_test(test_read_leaves_out_what_is_far_away),
		cmocka_unit_test(test_read_copies_no_more_than_pays),
		cmocka_unit_test(test_read_stays_within_its_memory),
		cmocka_unit_test(test_find_gives_all_or_nothing),
		cmocka_unit_test(test_read_that_fails_leaves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
