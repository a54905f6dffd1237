#include "tests/sim/test_disk.h"

#include <errno.h>

/* ---- what is durable ---- */

static void test_only_what_was_synced_survives_a_cut_for_sure(void **state)
{
	struct tally t = {0};

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);

		fill(n, 0, SECTORS * SECTOR, 'a');
		assert_int_equal(disk_sync(d, n), 0);
		fill(n, SECTORS * SECTOR, SECTORS * SECTOR, 'b');
		cut_power();
		assert_int_equal(count_bytes("/sim/file", 'a'), SECTORS * SECTOR);
		tally_count(&t, count_bytes("/sim/file", 'b'), SECTORS * SECTOR);
		world_destroy();
	}
	assert_true(t.all > SEEDS / 20 && t.none > SEEDS / 20 && t.part > SEEDS / 20);
}

static void test_kill_leaves_all_that_was_written(void **state)
{
	struct disk_node *n = begin(1);

	(void)state;
	fill(n, 0, 100000, 'a');
	disk_process_died(d);
	assert_int_equal(count_bytes("/sim/file", 'a'), 100000);
	world_destroy();
}

static void test_cut_tears_between_sectors_only(void **state)
{
	unsigned torn = 0;
	unsigned holes = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		char last = 'y';
		unsigned changes = 0;
		size_t len;
		char *data;

		fill(n, 0, SECTORS * SECTOR, 'x');
		assert_int_equal(disk_sync(d, n), 0);
		fill(n, 0, SECTORS * SECTOR, 'y');
		cut_power();
		data = disk_content(d, "/sim/file", &len);
		assert_int_equal(len, SECTORS * SECTOR);
		for (size_t i = 0; i < len; i += SECTOR) {
			assert_true(data[i] == 'x' || data[i] == 'y');
			assert_memory_equal(data + i, data + i + 1, SECTOR - 1);
			changes += data[i] != last;
			last = data[i];
		}
		torn += changes > 0 && count_bytes("/sim/file", 'y') > 0;
		holes += changes > 2;
		world_destroy();
	}
	assert_true(torn > SEEDS / 10);
	assert_true(holes > SEEDS / 20);
}

/* A later write to a sector does not get to the disk without the earlier ones. */
static void test_sector_is_as_it_was_at_some_moment(void **state)
{
	struct tally t = {0};

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		unsigned there = 0;
		size_t len;
		char *data;

		assert_int_equal(disk_truncate(d, n, SECTOR), 0);
		assert_int_equal(disk_sync(d, n), 0);
		for (unsigned i = 0; i < 8; i++) {
			fill(n, i * 64, 64, (char)('a' + i));
		}
		cut_power();
		data = disk_content(d, "/sim/file", &len);
		assert_int_equal(len, SECTOR);
		while (there < 8 && data[there * 64] == (char)('a' + there)) {
			there++;
		}
		for (size_t i = there * 64; i < len; i++) {
			assert_int_equal(data[i], 0);
		}
		tally_count(&t, there, 8);
		world_destroy();
	}
	assert_true(t.all > 0 && t.none > 0 && t.part > 0);
}

static void test_size_that_was_not_synced_is_old_or_new_or_between(void **state)
{
	unsigned old = 0;
	unsigned new = 0;
	unsigned between = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		struct stat st;

		fill(n, 0, 1000, 'a');
		assert_int_equal(disk_sync(d, n), 0);
		fill(n, 1000, 1000, 'b');
		fill(n, 2000, 1000, 'c');
		cut_power();
		assert_int_equal(disk_stat(d, "/sim/file", &st), 0);
		old += st.st_size == 1000;
		between += st.st_size == 2000;
		new += st.st_size == 3000;
		world_destroy();
	}
	assert_int_equal(old + new + between, SEEDS);
	assert_true(old > SEEDS / 20 && new > SEEDS / 20 && between > SEEDS / 20);
}

static void test_shorter_file_may_be_long_again(void **state)
{
	unsigned back = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		struct stat st;
		size_t count;

		fill(n, 0, 3 * PAGE, 'a');
		assert_int_equal(disk_sync(d, n), 0);
		assert_int_equal(disk_truncate(d, n, 100), 0);
		assert_int_equal(count_bytes("/sim/file", 'a'), 100);
		if (seed % 2 == 0) {
			assert_int_equal(disk_sync(d, n), 0);
		}
		cut_power();
		count = count_bytes("/sim/file", 'a');
		assert_true(count == 100 || (seed % 2 != 0 && count == 3 * PAGE));
		back += count > 100;
		n = open_at("/sim/file", O_RDWR);
		assert_int_equal(disk_fstat(d, n, &st), 0);
		assert_int_equal(st.st_blocks, count == 100 ? 8 : 24);
		assert_int_equal(disk_truncate(d, n, 4 * PAGE), 0);
		assert_int_equal(count_bytes("/sim/file", 'a'), count);
		world_destroy();
	}
	assert_true(back > SEEDS / 10 && back < SEEDS / 2 - SEEDS / 20);
}

/* Writes, sizes and syncs, some of them under way at once; returns when all are done. */
static void change_a_lot(struct disk_node *n)
{
	static unsigned char data[40][8 * PAGE];
	struct outcome outcomes[40];

	for (unsigned i = 0; i < 40; i++) {
		uint64_t offset = world_below(100000);
		uint32_t len = (uint32_t)world_between(1, i % 2 == 0 ? 100 : sizeof(data[i]));

		memset(data[i], (int)(i % 7 == 0 ? 0 : i), len);
		if (i % 8 == 7) {
			assert_int_equal(disk_truncate(d, n, offset), 0);
		}
		start(i % 5 == 4 ? DISK_SYNC : DISK_WRITE, n, data[i], len, offset, &outcomes[i]);
		world_advance(world->now_ns + world_below(NS_PER_MS));
	}
	finish_all();
}

/* A sync that finds all completed leaves nothing to chance, whatever earlier ones left out. */
static void test_sync_after_any_changes_makes_all_durable(void **state)
{
	unsigned lost = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		char *before;
		char *after;
		size_t before_len;
		size_t after_len;

		change_a_lot(n);
		assert_int_equal(disk_sync(d, n), 0);
		before = disk_content(d, "/sim/file", &before_len);
		/* When this is lost, all of the file is read from the disk again. */
		fill(n, 200000, 1, 'a');
		cut_power();
		after = disk_content(d, "/sim/file", &after_len);
		assert_true(after_len == before_len || after_len == 200001);
		assert_memory_equal(before, after, before_len);
		for (size_t i = before_len; i < after_len && i < 200000; i++) {
			assert_int_equal(after[i], 0);
		}
		lost += after_len < 200001 || after[200000] == 0;
		world_destroy();
	}
	assert_true(lost > SEEDS / 2);
}

/* And without such a sync: beyond its end there is nothing, in the cache and on the disk. */
static void test_cut_after_any_changes_leaves_a_sound_file(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		char *before;
		char *after;
		size_t before_len;
		size_t after_len;

		change_a_lot(n);
		cut_power();
		before = disk_content(d, "/sim/file", &before_len);
		n = open_at("/sim/file", O_RDWR);
		assert_int_equal(disk_truncate(d, n, 200000), 0);
		for (int look = 0; look < 2; look++) {
			after = disk_content(d, "/sim/file", &after_len);
			assert_memory_equal(before, after, before_len);
			for (size_t i = before_len; i < 200000; i++) {
				assert_int_equal(after[i], 0);
			}
			assert_int_equal(disk_sync(d, n), 0);
			fill(n, 200000, 1, 'a');
			cut_power();
		}
		world_destroy();
	}
}

static void test_file_cut_short_and_extended_has_zeros_there(void **state)
{
	unsigned zeros = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		size_t count;
		struct stat st;

		fill(n, 0, 3 * PAGE, 'a');
		assert_int_equal(disk_sync(d, n), 0);
		assert_int_equal(disk_truncate(d, n, 100), 0);
		assert_int_equal(disk_truncate(d, n, 3 * PAGE), 0);
		assert_int_equal(count_bytes("/sim/file", 'a'), 100);
		cut_power();
		count = count_bytes("/sim/file", 'a');
		assert_true(count == 100 || count == 3 * PAGE);
		assert_int_equal(disk_stat(d, "/sim/file", &st), 0);
		zeros += count == 100 && st.st_size == 3 * PAGE;
		world_destroy();
	}
	assert_true(zeros > SEEDS / 3);
}

static void test_cut_may_leave_a_later_write_and_not_an_earlier_one(void **state)
{
	unsigned first = 0;
	unsigned second = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		size_t a;
		size_t b;

		assert_int_equal(disk_truncate(d, n, 2 * SECTORS * SECTOR), 0);
		assert_int_equal(disk_sync(d, n), 0);
		fill(n, 0, SECTORS * SECTOR, 'a');
		fill(n, SECTORS * SECTOR, SECTORS * SECTOR, 'b');
		cut_power();
		a = count_bytes("/sim/file", 'a');
		b = count_bytes("/sim/file", 'b');
		first += a == SECTORS * SECTOR && b == 0;
		second += a == 0 && b == SECTORS * SECTOR;
		world_destroy();
	}
	assert_true(first > SEEDS / 20 && second > SEEDS / 20);
}

/* What the disk writes is sectors: what stands beside a byte that is synced comes along. */
static void test_sync_brings_what_is_under_way_in_the_same_sector(void **state)
{
	static unsigned char data[100];
	unsigned under_way = 0;

	(void)state;
	memset(data, 'a', sizeof(data));
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		struct outcome o;

		start(DISK_WRITE, n, data, sizeof(data), 0, &o);
		world_advance(NS_PER_US * world_below(1000));
		if (!o.done && count_bytes("/sim/file", 'a') > 0) {
			under_way++;
			fill(n, 200, 100, 'b');
			assert_int_equal(disk_sync(d, n), 0);
			fill(n, PAGE, 100, 'c');
			cut_power();
			assert_int_equal(count_bytes("/sim/file", 'b'), 100);
			assert_int_equal(count_bytes("/sim/file", 'a'), 100);
		}
		world_destroy();
	}
	assert_true(under_way > SEEDS / 20);
}

static void test_failed_sync_is_not_made_up_for_by_a_later_one(void **state)
{
	struct tally t = {0};

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);

		fill(n, 0, SECTORS * SECTOR, 'a');
		disk_faults(d)->sync_error = 1000;
		assert_true(disk_sync(d, n) < 0);
		disk_faults(d)->sync_error = 0;
		fill(n, SECTORS * SECTOR, SECTORS * SECTOR, 'b');
		assert_int_equal(disk_sync(d, n), 0);
		assert_int_equal(count_bytes("/sim/file", 'a'), SECTORS * SECTOR);
		disk_process_died(d);
		assert_int_equal(count_bytes("/sim/file", 'a'), SECTORS * SECTOR);
		cut_power();
		tally_count(&t, count_bytes("/sim/file", 'a'), SECTORS * SECTOR);
		assert_int_equal(count_bytes("/sim/file", 'b'), SECTORS * SECTOR);
		world_destroy();
	}
	assert_true(t.all > SEEDS / 20 && t.none > SEEDS / 20 && t.part > SEEDS / 20);
}

/* 'a' had completed when the sync started, 'b' was under way, 'c' came after. */
static void test_sync_covers_what_had_completed_when_it_started(void **state)
{
	static unsigned char data[2][SECTORS * SECTOR];
	struct tally b = {0};
	struct tally c = {0};

	(void)state;
	memset(data[0], 'a', sizeof(data[0]));
	memset(data[1], 'b', sizeof(data[1]));
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		struct outcome writes[2];
		struct outcome sync;
		bool under_way;

		start(DISK_WRITE, n, data[0], sizeof(data[0]), 0, &writes[0]);
		finish_all();
		start(DISK_WRITE, n, data[1], sizeof(data[1]), sizeof(data[0]), &writes[1]);
		world_advance(world->now_ns + NS_PER_US * world_below(1500));
		under_way = !writes[1].done;
		start(DISK_SYNC, n, NULL, 0, 0, &sync);
		fill(n, 2 * sizeof(data[0]), SECTORS * SECTOR, 'c');
		finish_all();
		assert_true(sync.done && sync.result == 0 && writes[1].done);
		cut_power();
		assert_int_equal(count_bytes("/sim/file", 'a'), SECTORS * SECTOR);
		if (under_way) {
			tally_count(&b, count_bytes("/sim/file", 'b'), SECTORS * SECTOR);
		}
		tally_count(&c, count_bytes("/sim/file", 'c'), SECTORS * SECTOR);
		world_destroy();
	}
	assert_true(b.all > 0 && b.none > 0 && b.part > 0);
	assert_true(c.all > 0 && c.none > SEEDS / 20 && c.part > SEEDS / 20);
}

/* Its data is in the cache, and that is not enough. */
static void test_sync_covers_no_write_that_has_not_completed(void **state)
{
	static unsigned char data[SECTOR];
	struct tally t = {0};

	(void)state;
	memset(data, 'a', sizeof(data));
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		struct outcome o;

		start(DISK_WRITE, n, data, sizeof(data), 0, &o);
		world_advance(NS_PER_US * world_below(1500));
		if (!o.done && count_bytes("/sim/file", 'a') == sizeof(data)) {
			assert_int_equal(disk_sync(d, n), 0);
			finish_all();
			assert_int_equal(o.result, sizeof(data));
			cut_power();
			tally_count(&t, count_bytes("/sim/file", 'a'), sizeof(data));
		}
		world_destroy();
	}
	assert_true(t.all > 5 && t.none > 5 && t.part == 0);
}

/* ---- names ---- */

static void test_created_file_may_vanish_until_its_directory_is_synced(void **state)
{
	unsigned there = 0;
	unsigned empty = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n;

		begin(seed);
		n = open_at("/sim/synced", O_RDWR | O_CREAT | O_EXCL);
		fill(n, 0, 1000, 'a');
		assert_int_equal(disk_sync(d, n), 0);
		sync_path("/sim");
		n = open_at("/sim/other", O_RDWR | O_CREAT | O_EXCL);
		fill(n, 0, 1000, 'a');
		if (seed % 2 == 0) {
			assert_int_equal(disk_sync(d, n), 0);
		}
		cut_power();
		assert_int_equal(count_bytes("/sim/synced", 'a'), 1000);
		if (exists("/sim/other")) {
			size_t count = count_bytes("/sim/other", 'a');

			there++;
			empty += count == 0;
			assert_true(seed % 2 != 0 || count == 1000);
		}
		world_destroy();
	}
	assert_true(there > SEEDS / 10 && there < SEEDS - SEEDS / 10);
	assert_true(empty > 0);
}

static void test_unlinked_file_may_be_back_until_its_directory_is_synced(void **state)
{
	unsigned back = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		bool synced = seed % 3 == 0;

		fill(n, 0, 5000, 'a');
		assert_int_equal(disk_sync(d, n), 0);
		disk_release(d, n);
		assert_int_equal(disk_unlink(d, NULL, "/sim/file"), 0);
		assert_false(exists("/sim/file"));
		if (synced) {
			sync_path("/sim");
		}
		cut_power();
		if (exists("/sim/file")) {
			back++;
			assert_false(synced);
			assert_int_equal(count_bytes("/sim/file", 'a'), 5000);
		}
		world_destroy();
	}
	assert_true(back > SEEDS / 10 && back < SEEDS * 2 / 3 - SEEDS / 10);
}

static void test_directory_may_vanish_with_all_that_is_in_it(void **state)
{
	unsigned there = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct statvfs before;
		struct statvfs after;
		struct disk_node *n;

		begin(seed);
		assert_int_equal(disk_statvfs(d, &before), 0);
		assert_int_equal(disk_mkdir(d, "/sim/spool", 0700), 0);
		n = open_at("/sim/spool/file", O_RDWR | O_CREAT);
		fill(n, 0, 5000, 'a');
		assert_int_equal(disk_sync(d, n), 0);
		sync_path("/sim/spool");
		if (seed % 2 == 0) {
			sync_path("/sim");
		}
		cut_power();
		assert_int_equal(disk_statvfs(d, &after), 0);
		if (exists("/sim/spool")) {
			there++;
			assert_int_equal(count_bytes("/sim/spool/file", 'a'), 5000);
		} else {
			assert_true(seed % 2 != 0);
			assert_int_equal(after.f_blocks, before.f_blocks);
		}
		world_destroy();
	}
	assert_true(there > SEEDS / 2 + SEEDS / 20 && there < SEEDS - SEEDS / 20);
}

static void test_sync_of_a_directory_covers_what_was_there_when_it_started(void **state)
{
	unsigned there = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct outcome o;

		begin(seed);
		open_at("/sim/early", O_RDWR | O_CREAT);
		start(DISK_SYNC, open_at("/sim", O_RDONLY), NULL, 0, 0, &o);
		open_at("/sim/late", O_RDWR | O_CREAT);
		finish_all();
		assert_int_equal(o.result, 0);
		cut_power();
		assert_true(exists("/sim/early"));
		there += exists("/sim/late");
		world_destroy();
	}
	assert_true(there > SEEDS / 10 && there < SEEDS - SEEDS / 10);
}

static void test_failed_sync_of_a_directory_leaves_names_to_chance(void **state)
{
	unsigned there = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *dir;

		begin(seed);
		open_at("/sim/other", O_RDWR | O_CREAT);
		dir = open_at("/sim", O_RDONLY | O_DIRECTORY);
		disk_faults(d)->sync_error = 1000;
		assert_true(disk_sync(d, dir) < 0);
		disk_faults(d)->sync_error = 0;
		assert_int_equal(disk_sync(d, dir), 0);
		assert_true(exists("/sim/other"));
		cut_power();
		there += exists("/sim/other");
		world_destroy();
	}
	assert_true(there > SEEDS / 10 && there < SEEDS - SEEDS / 10);
}

static void test_paths_and_flags_are_answered_as_by_the_kernel(void **state)
{
	struct disk_node *n = begin(1);
	struct disk_node *dir;
	struct stat st;

	(void)state;
	assert_int_equal(disk_mkdir(d, "/sim/a", 0755), 0);
	assert_int_equal(disk_mkdir(d, "/sim/a", 0755), -EEXIST);
	assert_int_equal(disk_mkdir(d, "/sim", 0755), -EEXIST);
	assert_int_equal(disk_mkdir(d, "/sim/b/c", 0755), -ENOENT);
	assert_int_equal(disk_mkdir(d, "/sim/file/c", 0755), -ENOTDIR);
	assert_int_equal(try_open("/sim/none", O_RDONLY, &n), -ENOENT);
	assert_int_equal(try_open("/other/file", O_RDONLY, &n), -ENOENT);
	assert_int_equal(try_open("/simfile", O_RDONLY | O_CREAT, &n), -ENOENT);
	assert_int_equal(try_open("/sim/file", O_RDWR | O_CREAT | O_EXCL, &n), -EEXIST);
	assert_int_equal(try_open("/sim/file", O_RDONLY | O_DIRECTORY, &n), -ENOTDIR);
	assert_int_equal(try_open("/sim/a", O_RDWR, &n), -EISDIR);
	assert_int_equal(disk_unlink(d, NULL, "/sim/a"), -EISDIR);
	assert_int_equal(disk_unlink(d, NULL, "/sim/none"), -ENOENT);
	dir = open_at("/sim/a/", O_RDONLY | O_DIRECTORY);
	assert_int_equal(disk_open(d, dir, "x", O_RDWR | O_CREAT, 0640, &n), 0);
	fill(n, 0, 10, 'a');
	assert_int_equal(disk_fstat(d, n, &st), 0);
	assert_int_equal(st.st_mode, S_IFREG | 0640);
	assert_int_equal(st.st_size, 10);
	assert_string_equal(disk_list(d, dir, 0), "x");
	assert_null(disk_list(d, dir, 1));
	disk_release(d, n);
	assert_int_equal(disk_open(d, dir, "../a/./x", O_RDWR | O_TRUNC, 0, &n), 0);
	assert_int_equal(count_bytes("/sim/a/x", 'a'), 0);
	disk_release(d, n);
	assert_int_equal(disk_open(d, dir, ".", O_RDONLY, 0, &n), 0);
	assert_ptr_equal(n, dir);
	assert_int_equal(disk_read(d, dir, &st, 1, 0), -EISDIR);
	assert_int_equal(disk_unlink(d, dir, "x"), 0);
	assert_false(exists("/sim/a/x"));
	world_destroy();
}

static void test_unlinked_file_is_used_until_it_is_closed(void **state)
{
	struct disk_node *n = begin(1);
	static unsigned char data[100];
	struct outcome o;
	struct statvfs before;
	struct statvfs v;
	char byte;

	(void)state;
	disk_faults(d)->capacity = 20 * PAGE;
	assert_int_equal(disk_statvfs(d, &before), 0);
	fill(n, 0, 5 * PAGE, 'a');
	assert_int_equal(disk_unlink(d, NULL, "/sim/file"), 0);
	assert_int_equal(disk_read(d, n, &byte, 1, 4 * PAGE), 1);
	assert_int_equal(byte, 'a');
	assert_int_equal(disk_statvfs(d, &v), 0);
	assert_int_equal(v.f_bavail, before.f_bavail - 5);
	start(DISK_WRITE, n, data, sizeof(data), 0, &o);
	disk_release(d, n);
	assert_int_equal(disk_statvfs(d, &v), 0);
	assert_int_equal(v.f_bavail, before.f_bavail - 5);
	finish_all();
	assert_int_equal(o.result, sizeof(data));
	assert_int_equal(disk_statvfs(d, &v), 0);
	assert_int_equal(v.f_bavail, before.f_bavail);
	world_destroy();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_what_was_synced_survives_a_cut_for_sure),
		cmocka_unit_test(test_kill_leaves_all_that_was_written),
		cmocka_unit_test(test_cut_tears_between_sectors_only),
		cmocka_unit_test(test_sector_is_as_it_was_at_some_moment),
		cmocka_unit_test(test_size_that_was_not_synced_is_old_or_new_or_between),
		cmocka_unit_test(test_shorter_file_may_be_long_again),
		cmocka_unit_test(test_sync_after_any_changes_makes_all_durable),
		cmocka_unit_test(test_cut_after_any_changes_leaves_a_sound_file),
		cmocka_unit_test(test_file_cut_short_and_extended_has_zeros_there),
		cmocka_unit_test(test_cut_may_leave_a_later_write_and_not_an_earlier_one),
		cmocka_unit_test(test_sync_brings_what_is_under_way_in_the_same_sector),
		cmocka_unit_test(test_failed_sync_is_not_made_up_for_by_a_later_one),
		cmocka_unit_test(test_sync_covers_what_had_completed_when_it_started),
		cmocka_unit_test(test_sync_covers_no_write_that_has_not_completed),
		cmocka_unit_test(test_created_file_may_vanish_until_its_directory_is_synced),
		cmocka_unit_test(test_unlinked_file_may_be_back_until_its_directory_is_synced),
		cmocka_unit_test(test_directory_may_vanish_with_all_that_is_in_it),
		cmocka_unit_test(test_sync_of_a_directory_covers_what_was_there_when_it_started),
		cmocka_unit_test(test_failed_sync_of_a_directory_leaves_names_to_chance),
		cmocka_unit_test(test_paths_and_flags_are_answered_as_by_the_kernel),
		cmocka_unit_test(test_unlinked_file_is_used_until_it_is_closed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
