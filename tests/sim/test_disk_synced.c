/*
 * Synced writes, and direct ones.
 */
#include <errno.h>

#include "tests/sim/test_disk.h"

#define BEFORE (4 * PAGE)
#define BYTES (3 * PAGE)

static _Alignas(PAGE) unsigned char data[BYTES];

static void start_write(struct disk_node *n, uint64_t offset, uint32_t len, bool direct,
			struct outcome *o)
{
	struct disk_op op = {
		.verb = DISK_WRITE,
		.node = n,
		.data = data,
		.len = len,
		.offset = offset,
		.direct = direct,
		.synced = true,
	};

	memset(data, 'b', sizeof(data));
	*o = (struct outcome){0};
	disk_start(d, &op, on_done, o);
}

/* A file of zeros, durable, of which 'a's in most of it are not. */
static struct disk_node *begin_dirty(uint64_t seed)
{
	struct disk_node *n = begin(seed);

	fill(n, 0, BEFORE + BYTES + BEFORE, 0);
	assert_int_equal(disk_sync(d, n), 0);
	fill(n, SECTOR, BEFORE, 'a');
	fill(n, BEFORE + BYTES / 2, BEFORE, 'a');
	return n;
}

static void check_range(char c)
{
	size_t len;
	char *content = disk_content(d, "/sim/file", &len);

	assert_non_null(content);
	for (size_t i = BEFORE; i < BEFORE + BYTES; i++) {
		assert_int_equal(content[i], c);
	}
	world_free(content, len);
}

static void test_synced_write_makes_durable_what_it_wrote(void **state)
{
	struct tally t = {0};

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin_dirty(seed);
		size_t before = count_bytes("/sim/file", 'a');
		struct outcome o;

		start_write(n, BEFORE, BYTES, seed % 2 == 0, &o);
		finish_all();
		assert_int_equal(o.result, BYTES);
		check_range('b');
		cut_power();
		check_range('b');
		tally_count(&t, count_bytes("/sim/file", 'a'), before - SECTOR - BYTES / 2);
		world_destroy();
	}
	assert_true(t.all > SEEDS / 20 && t.none > SEEDS / 20 && t.part > SEEDS / 20);
}

/* What was written before and is not durable may become so later, but not over it. */
static void test_sync_undoes_no_synced_write(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin_dirty(seed);
		size_t left;
		struct outcome o;

		start_write(n, BEFORE, BYTES, false, &o);
		finish_all();
		left = count_bytes("/sim/file", 'a');
		fill(n, 0, SECTOR, 'a');
		if (seed % 2 == 0) {
			assert_int_equal(disk_sync(d, n), 0);
			fill(n, 0, 1, 'c');
		}
		/* So that a cut shows what is durable, and not the cache. */
		disk_faults(d)->sync_error = 1000;
		assert_true(disk_sync(d, n) < 0);
		disk_faults(d)->sync_error = 0;
		cut_power();
		check_range('b');
		if (seed % 2 == 0) {
			size_t kept = left + SECTOR - count_bytes("/sim/file", 'c');

			assert_int_equal(count_bytes("/sim/file", 'a'), kept);
		}
		world_destroy();
	}
}

/* The sectors at its ends are written as a whole. */
static void test_synced_write_of_parts_of_sectors(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin_dirty(seed);
		struct outcome o;

		start_write(n, 2 * SECTOR + 100, 2 * SECTOR, false, &o);
		finish_all();
		cut_power();
		assert_int_equal(count_bytes("/sim/file", 'b'), 2 * SECTOR);
		assert_true(count_bytes("/sim/file", 'a') >= SECTOR);
		world_destroy();
	}
}

static void test_failed_synced_write_leaves_any_of_it(void **state)
{
	struct tally t = {0};

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin_dirty(seed);
		struct outcome o;

		disk_faults(d)->sync_error = 1000;
		start_write(n, BEFORE, BYTES, true, &o);
		finish_all();
		assert_true(o.result == -EIO || o.result == -ENOSPC);
		disk_faults(d)->sync_error = 0;
		assert_int_equal(disk_sync(d, n), 0);
		cut_power();
		tally_count(&t, count_bytes("/sim/file", 'b'), BYTES);
		world_destroy();
	}
	assert_true(t.all > SEEDS / 20 && t.none > SEEDS / 20 && t.part > SEEDS / 20);
}

static void test_cut_leaves_any_of_a_synced_write_under_way(void **state)
{
	struct tally t = {0};

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin_dirty(seed);
		struct outcome o;

		start_write(n, BEFORE, BYTES, true, &o);
		world_advance(NS_PER_US * world_below(1000));
		cut_power();
		tally_count(&t, count_bytes("/sim/file", 'b'), BYTES);
		world_destroy();
	}
	assert_true(t.all > SEEDS / 20 && t.none > SEEDS / 20 && t.part > SEEDS / 20);
}

static void test_direct_writes_are_of_whole_sectors(void **state)
{
	unsigned cut_short = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin_dirty(seed);
		struct outcome o;

		disk_faults(d)->write_short = 500;
		disk_faults(d)->write_error = 200;
		start_write(n, BEFORE, BYTES, true, &o);
		finish_all();
		assert_true(o.result < 0 || (o.result > 0 && (unsigned)o.result % SECTOR == 0));
		cut_short += o.result > 0 && o.result < (int)BYTES;
		assert_int_equal(count_bytes("/sim/file", 'b') % SECTOR, 0);
		cut_power();
		assert_true((int)count_bytes("/sim/file", 'b') >= o.result);
		world_destroy();
	}
	assert_true(cut_short > SEEDS / 10);
}

static void test_direct_writes_may_be_refused(void **state)
{
	struct disk_node *n = begin_dirty(1);
	struct disk_node *again;
	struct outcome o;

	(void)state;
	assert_int_equal(try_open("/sim/file", O_WRONLY | O_DIRECT, &again), 0);
	disk_release(d, again);
	disk_set_direct(d, DISK_DIRECT_NOT_WRITTEN);
	assert_int_equal(try_open("/sim/file", O_WRONLY | O_DIRECT, &again), 0);
	disk_release(d, again);
	start_write(n, BEFORE, BYTES, true, &o);
	finish_all();
	assert_int_equal(o.result, -EINVAL);
	assert_int_equal(count_bytes("/sim/file", 'b'), 0);
	start_write(n, BEFORE, BYTES, false, &o);
	finish_all();
	assert_int_equal(o.result, BYTES);
	disk_set_direct(d, DISK_DIRECT_NOT_OPENED);
	assert_int_equal(try_open("/sim/file", O_WRONLY | O_DIRECT, &again), -EINVAL);
	assert_int_equal(try_open("/sim/file", O_WRONLY, &again), 0);
	disk_release(d, again);
	disk_release(d, n);
	disk_check_closed(d);
	world_destroy();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_synced_write_makes_durable_what_it_wrote),
		cmocka_unit_test(test_sync_undoes_no_synced_write),
		cmocka_unit_test(test_synced_write_of_parts_of_sectors),
		cmocka_unit_test(test_failed_synced_write_leaves_any_of_it),
		cmocka_unit_test(test_cut_leaves_any_of_a_synced_write_under_way),
		cmocka_unit_test(test_direct_writes_are_of_whole_sectors),
		cmocka_unit_test(test_direct_writes_may_be_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
