/*
 * Counts by network: rows that come and go, and a reader beside their writer.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agents/network_counts.h"

#define WIDTH 3
#define CHANGES 2000000

static struct in6_addr address(const char *text)
{
	struct in6_addr a;

	assert_int_equal(inet_pton(AF_INET6, text, &a), 1);
	return a;
}

static void add(struct network_counts *t, const char *text, unsigned prefix, uint64_t n)
{
	struct in6_addr a = address(text);
	_Atomic uint64_t *row = network_counts_row(t, &a, prefix);

	for (int i = 0; i < WIDTH; i++) {
		network_counts_set(&row[i], network_counts_get(&row[i]) + n);
	}
}

/* The last number; 0: there is no row. */
static uint64_t count(const struct network_counts *t, const char *text, unsigned prefix)
{
	struct in6_addr a = address(text);
	uint64_t row[WIDTH] = {0};

	return network_counts_read(t, &a, prefix, row) ? row[WIDTH - 1] : 0;
}

static void test_row_is_that_of_all_in_the_network(void **state)
{
	struct network_counts *t = network_counts_create(WIDTH, 100, 4);

	(void)state;
	add(t, "::ffff:192.0.2.1", 120, 1);
	add(t, "::ffff:192.0.2.200", 120, 2);
	add(t, "::ffff:192.0.3.1", 120, 4);
	add(t, "::ffff:192.0.2.1", 128, 8);
	add(t, "2001:db8:1:2:3::", 64, 16);
	add(t, "2001:db8:1:2::ffff", 64, 32);
	add(t, "2001:db8::", 0, 64);
	assert_int_equal(count(t, "::ffff:192.0.2.99", 120), 3);
	assert_int_equal(count(t, "::ffff:192.0.3.99", 120), 4);
	assert_int_equal(count(t, "::ffff:192.0.2.1", 128), 8);
	assert_int_equal(count(t, "::ffff:192.0.2.2", 128), 0);
	assert_int_equal(count(t, "2001:db8:1:2::", 64), 48);
	assert_int_equal(count(t, "2001:db8:1:3::", 64), 0);
	assert_int_equal(count(t, "::1", 0), 64);
	assert_int_equal(network_counts_size(t), 5);
	network_counts_destroy(t);
}

static void test_row_is_empty_when_it_comes_again(void **state)
{
	struct network_counts *t = network_counts_create(WIDTH, 100, 4);
	struct in6_addr a = address("::1");

	(void)state;
	add(t, "::1", 128, 7);
	network_counts_drop(t, &a, 128);
	network_counts_drop(t, &a, 128);
	assert_int_equal(count(t, "::1", 128), 0);
	assert_int_equal(network_counts_size(t), 0);
	add(t, "::2", 128, 1);
	assert_int_equal(count(t, "::2", 128), 1);
	assert_int_equal(count(t, "::1", 128), 0);
	network_counts_destroy(t);
}

static void test_row_asked_for_longest_ago_goes_first(void **state)
{
	struct network_counts *t = network_counts_create(WIDTH, 3, 4);

	(void)state;
	add(t, "::1", 128, 1);
	add(t, "::2", 128, 1);
	add(t, "::3", 128, 1);
	add(t, "::1", 128, 1);
	add(t, "::4", 128, 1);
	assert_int_equal(count(t, "::1", 128), 2);
	assert_int_equal(count(t, "::2", 128), 0);
	assert_int_equal(count(t, "::3", 128), 1);
	assert_int_equal(count(t, "::4", 128), 1);
	assert_int_equal(network_counts_size(t), 3);
	network_counts_destroy(t);
}

/* ---- two threads ---- */

struct race {
	struct network_counts *t;
	_Atomic bool looks;
	_Atomic bool over;
	_Atomic uint64_t missing;
	_Atomic uint64_t wrong;
};

/* One row is there all the time, with the same number in each place; one before it comes and goes,
 * in this chain and the other one. */
static void *look(void *context)
{
	struct race *r = context;
	struct in6_addr a = address("::ffff:10.0.0.1");

	while (!atomic_load(&r->over)) {
		uint64_t row[WIDTH] = {0};

		if (!network_counts_read(r->t, &a, 128, row)) {
			atomic_fetch_add(&r->missing, 1);
		} else if (row[0] != 4711 || row[1] != 4711 || row[2] != 4711) {
			atomic_fetch_add(&r->wrong, 1);
		}
		atomic_store(&r->looks, true);
	}
	return NULL;
}

static void test_reader_finds_what_is_there_all_the_time(void **state)
{
	struct race r = {.t = network_counts_create(WIDTH, 1000000, 2)};
	pthread_t reader;

	(void)state;
	add(r.t, "::ffff:10.0.0.1", 128, 4711);
	assert_int_equal(pthread_create(&reader, NULL, look, &r), 0);
	while (!atomic_load(&r.looks)) {
		sched_yield();
	}
	for (uint32_t i = 0; i < CHANGES; i++) {
		struct in6_addr a = address("::ffff:11.0.0.0");

		a.s6_addr[14] = (unsigned char)(i >> 8);
		a.s6_addr[15] = (unsigned char)i;
		network_counts_set(network_counts_row(r.t, &a, 128), i);
		network_counts_drop(r.t, &a, 128);
	}
	atomic_store(&r.over, true);
	pthread_join(reader, NULL);
	assert_int_equal(r.missing, 0);
	assert_int_equal(r.wrong, 0);
	network_counts_destroy(r.t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_row_is_that_of_all_in_the_network),
		cmocka_unit_test(test_row_is_empty_when_it_comes_again),
		cmocka_unit_test(test_row_asked_for_longest_ago_goes_first),
		cmocka_unit_test(test_reader_finds_what_is_there_all_the_time),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
