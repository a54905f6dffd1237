#include "tests/sim/test_disk.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/runtime/fnv.h"

/* ---- room ---- */

static void test_full_disk_takes_no_more(void **state)
{
	static unsigned char data[8 * PAGE];
	struct disk_node *n = begin(1);
	struct outcome o;
	struct statvfs v;

	(void)state;
	memset(data, 'a', sizeof(data));
	disk_faults(d)->capacity = 10 * PAGE;
	assert_int_equal(disk_allocate(d, n, 0, 6 * PAGE), 0);
	assert_int_equal(disk_statvfs(d, &v), 0);
	assert_int_equal(v.f_blocks * v.f_frsize, 10 * PAGE);
	assert_int_equal(v.f_bavail, 4);
	fill(n, 0, 6 * PAGE, 'a');
	start(DISK_WRITE, n, data, sizeof(data), 6 * PAGE, &o);
	finish_all();
	assert_int_equal(o.result, 4 * PAGE);
	start(DISK_WRITE, n, data, sizeof(data), 10 * PAGE, &o);
	finish_all();
	assert_int_equal(o.result, -ENOSPC);
	assert_int_equal(disk_write(d, n, data, 1, 10 * PAGE), -ENOSPC);
	assert_int_equal(disk_allocate(d, n, 0, 11 * PAGE), -ENOSPC);
	assert_int_equal(disk_statvfs(d, &v), 0);
	assert_int_equal(v.f_bavail, 0);
	assert_int_equal(count_bytes("/sim/file", 'a'), 10 * PAGE);
	assert_int_equal(disk_truncate(d, n, 9 * PAGE), 0);
	assert_int_equal(disk_write(d, n, data, 2 * PAGE, 9 * PAGE), PAGE);
	disk_faults(d)->capacity = 5 * PAGE;
	assert_int_equal(disk_write(d, n, data, PAGE, 10 * PAGE), -ENOSPC);
	assert_int_equal(disk_statvfs(d, &v), 0);
	assert_int_equal(v.f_bavail, 0);
	fill(n, 0, 10 * PAGE, 'b');
	world->calm = true;
	assert_int_equal(disk_write(d, n, data, 2 * PAGE, 10 * PAGE), 2 * PAGE);
	world_destroy();
}

static void test_cut_leaves_the_room_that_files_had(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		struct statvfs v;
		struct stat st;

		disk_faults(d)->capacity = 100 * PAGE;
		assert_int_equal(disk_allocate(d, n, 0, 50 * PAGE), 0);
		assert_int_equal(disk_sync(d, n), 0);
		fill(n, 0, 20 * PAGE, 'a');
		fill(n, 50 * PAGE, 10 * PAGE, 'b');
		cut_power();
		assert_int_equal(disk_stat(d, "/sim/file", &st), 0);
		assert_int_equal(disk_statvfs(d, &v), 0);
		assert_int_equal(v.f_bavail, 100 - st.st_size / PAGE);
		assert_int_equal(v.f_blocks, 100);
		world_destroy();
	}
}

/* ---- operations under way ---- */

static void test_operations_complete_in_any_order(void **state)
{
	static unsigned char data[4][100];
	unsigned first[4] = {0};

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		struct outcome o[4];

		places = 0;
		for (unsigned i = 0; i < 4; i++) {
			start(DISK_WRITE, n, data[i], sizeof(data[i]), 0, &o[i]);
		}
		finish_all();
		for (unsigned i = 0; i < 4; i++) {
			assert_int_equal(o[i].result, sizeof(data[i]));
			first[i] += o[i].place == 1;
		}
		assert_true(world->now_ns <= disk_faults(d)->latency_max_ns);
		world_destroy();
	}
	for (unsigned i = 0; i < 4; i++) {
		assert_true(first[i] > SEEDS / 20);
	}
}

static void test_data_changed_too_early_is_noticed(void **state)
{
	static unsigned char data[6 * PAGE];
	struct tally t = {0};

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		struct outcome o;

		memset(data, 'a', sizeof(data));
		start(DISK_WRITE, n, data, sizeof(data), 100, &o);
		world_advance(NS_PER_US * world_below(500));
		if (!o.done) {
			memset(data, 'b', sizeof(data));
		}
		finish_all();
		tally_count(&t, count_bytes("/sim/file", 'b'), sizeof(data));
		world_destroy();
	}
	assert_true(t.all > SEEDS / 20 && t.none > SEEDS / 20 && t.part > SEEDS / 20);
}

/* The buffer is the disk's until then, but never more of it than is read. */
static void test_read_sees_the_cache_at_its_end(void **state)
{
	static char data[100];
	unsigned scribbled = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		struct outcome o;

		memset(data, 0, sizeof(data));
		fill(n, 0, 60, 'a');
		start(DISK_READ, n, data, sizeof(data), 10, &o);
		fill(n, 0, 60, 'b');
		scribbled += data[0] != 0;
		finish_all();
		assert_int_equal(o.result, 50);
		assert_int_equal(data[0], 'b');
		assert_int_equal(data[49], 'b');
		assert_int_equal(data[50], 0);
		world_destroy();
	}
	assert_true(scribbled > 0 && scribbled < SEEDS / 2);
}

static void test_kill_leaves_any_part_of_what_was_under_way(void **state)
{
	static unsigned char data[6 * PAGE];
	struct tally t = {0};

	(void)state;
	memset(data, 'a', sizeof(data));
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		struct outcome o;
		size_t count;

		start(DISK_WRITE, n, data, sizeof(data), 0, &o);
		world_advance(NS_PER_US * world_below(1000));
		disk_process_died(d);
		count = count_bytes("/sim/file", 'a');
		assert_true(!o.done || count == sizeof(data));
		tally_count(&t, count, sizeof(data));
		/* What was written is there for the next life to sync. */
		o.done = false;
		finish_all();
		assert_false(o.done);
		world->life++;
		n = open_at("/sim/file", O_RDWR);
		assert_int_equal(disk_sync(d, n), 0);
		cut_power();
		assert_int_equal(count_bytes("/sim/file", 'a'), count);
		world_destroy();
	}
	assert_true(t.all > SEEDS / 20 && t.none > SEEDS / 20 && t.part > SEEDS / 20);
}

static void test_sync_under_way_at_a_kill_takes_place_or_not(void **state)
{
	unsigned lost = 0;

	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		struct outcome o;

		fill(n, 0, SECTORS * SECTOR, 'a');
		start(DISK_SYNC, n, NULL, 0, 0, &o);
		cut_power();
		lost += count_bytes("/sim/file", 'a') < SECTORS * SECTOR;
		world_destroy();
	}
	assert_true(lost > SEEDS / 10 && lost < SEEDS * 2 / 5);
}

/* ---- faults ---- */

static void set_faults(unsigned permille)
{
	struct disk_faults *f = disk_faults(d);

	f->write_error = permille;
	f->write_short = permille;
	f->sync_error = permille;
	f->read_error = permille;
	f->create_error = permille;
}

static void test_everything_fails_when_told_to(void **state)
{
	static unsigned char data[4 * PAGE];
	struct disk_node *n = begin(1);
	struct disk_node *other;
	struct outcome o[3];

	(void)state;
	set_faults(1000);
	assert_true(disk_write(d, n, data, 100, 0) < 0);
	assert_int_equal(disk_read(d, n, data, 100, 0), -EIO);
	assert_true(disk_sync(d, n) < 0);
	assert_true(disk_truncate(d, n, 10) < 0);
	assert_true(disk_allocate(d, n, 0, 10) < 0);
	assert_true(disk_mkdir(d, "/sim/a", 0700) < 0);
	assert_true(try_open("/sim/other", O_RDWR | O_CREAT, &other) < 0);
	assert_int_equal(disk_unlink(d, NULL, "/sim/file"), -EIO);
	assert_true(exists("/sim/file"));
	start(DISK_WRITE, n, data, sizeof(data), 0, &o[0]);
	start(DISK_READ, n, data, sizeof(data), 0, &o[1]);
	start(DISK_SYNC, n, NULL, 0, 0, &o[2]);
	finish_all();
	assert_true(o[0].result < 0 && o[1].result < 0 && o[2].result < 0);
	world->calm = true;
	assert_int_equal(disk_write(d, n, data, 100, 0), 100);
	assert_int_equal(disk_read(d, n, data, 100, 0), 100);
	assert_int_equal(disk_sync(d, n), 0);
	assert_int_equal(try_open("/sim/other", O_RDWR | O_CREAT, &other), 0);
	assert_int_equal(disk_unlink(d, NULL, "/sim/file"), 0);
	start(DISK_WRITE, n, data, sizeof(data), 0, &o[0]);
	finish_all();
	assert_int_equal(o[0].result, sizeof(data));
	world_destroy();
}

static void test_failed_write_was_carried_out_in_any_part(void **state)
{
	static unsigned char data[6 * PAGE];
	struct tally t = {0};

	(void)state;
	memset(data, 'a', sizeof(data));
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		struct outcome o;

		disk_faults(d)->write_error = 1000;
		start(DISK_WRITE, n, data, sizeof(data), 0, &o);
		finish_all();
		assert_true(o.result == -EIO || o.result == -ENOSPC);
		tally_count(&t, count_bytes("/sim/file", 'a'), sizeof(data));
		world_destroy();
	}
	assert_true(t.none > SEEDS / 20 && t.part > SEEDS / 20);
}

static void test_short_write_says_how_much_was_written(void **state)
{
	static unsigned char data[6 * PAGE];

	(void)state;
	memset(data, 'a', sizeof(data));
	for (uint64_t seed = 1; seed <= SEEDS; seed++) {
		struct disk_node *n = begin(seed);
		struct outcome o;

		disk_faults(d)->write_short = 1000;
		start(DISK_WRITE, n, data, sizeof(data), 0, &o);
		advance_until(&o);
		assert_true(o.result > 0 && o.result < (int)sizeof(data));
		assert_int_equal(count_bytes("/sim/file", 'a'), o.result);
		world_destroy();
	}
}

static void test_stall_is_a_latency_of_its_own(void **state)
{
	struct disk_node *n = begin(1);
	struct outcome o;

	(void)state;
	disk_faults(d)->stall = 1000;
	disk_faults(d)->stall_ns = 5 * NS_PER_S;
	start(DISK_SYNC, n, NULL, 0, 0, &o);
	advance_until(&o);
	assert_int_equal(world->now_ns, 5 * NS_PER_S);
	world_destroy();
}

/* ---- the rest ---- */

static void test_what_is_made_before_the_first_life_is_durable(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= SEEDS / 10; seed++) {
		struct disk_node *n;

		world_create(seed);
		d = disk_create();
		set_faults(1000);
		assert_int_equal(disk_mkdir(d, "/sim/a", 0755), 0);
		n = open_at("/sim/a/file", O_RDWR | O_CREAT);
		fill(n, 0, 5000, 'a');
		world->life = 1;
		cut_power();
		assert_int_equal(count_bytes("/sim/a/file", 'a'), 5000);
		world_destroy();
	}
}

static int exit_of_check(void)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		disk_check_closed(d);
		_exit(LIFE_STOPPED);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_check_finds_open_files_and_operations(void **state)
{
	struct disk_node *n = begin(1);
	struct outcome o;

	(void)state;
	assert_int_equal(exit_of_check(), LIFE_FAILED);
	assert_string_equal(world->failure, "the program stopped and left file open");
	start(DISK_SYNC, n, NULL, 0, 0, &o);
	disk_release(d, n);
	assert_int_equal(exit_of_check(), LIFE_FAILED);
	finish_all();
	assert_int_equal(exit_of_check(), LIFE_STOPPED);
	world_destroy();
}

/* A life of everything, twice, and a cut after each; the hash of what is left. */
static uint64_t live(uint64_t seed)
{
	static unsigned char data[30][2 * PAGE];
	struct disk_node *n = begin(seed);
	uint64_t hash;
	struct outcome o[30];
	size_t len;
	char *content;

	set_faults(50);
	disk_faults(d)->capacity = 60 * PAGE;
	for (unsigned life = 0; life < 2; life++) {
		for (unsigned i = 0; i < 30; i++) {
			memset(data[i], (int)(i + 1), sizeof(data[i]));
			start(i % 4 == 3 ? DISK_SYNC : DISK_WRITE, n, data[i], sizeof(data[i]),
			      world_below(200000), &o[i]);
			world_advance(world->now_ns + world_below(NS_PER_MS));
		}
		cut_power();
		n = open_at("/sim/file", O_RDWR);
	}
	content = disk_content(d, "/sim/file", &len);
	hash = fnv_bytes(FNV_START, content, len) ^ world->trace;
	world_destroy();
	return hash;
}

static void test_same_seed_leaves_the_same_content(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		uint64_t hash = live(seed);

		assert_true(live(seed) == hash);
		assert_true(live(seed + 1000) != hash);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_disk_takes_no_more),
		cmocka_unit_test(test_cut_leaves_the_room_that_files_had),
		cmocka_unit_test(test_operations_complete_in_any_order),
		cmocka_unit_test(test_data_changed_too_early_is_noticed),
		cmocka_unit_test(test_read_sees_the_cache_at_its_end),
		cmocka_unit_test(test_kill_leaves_any_part_of_what_was_under_way),
		cmocka_unit_test(test_sync_under_way_at_a_kill_takes_place_or_not),
		cmocka_unit_test(test_everything_fails_when_told_to),
		cmocka_unit_test(test_failed_write_was_carried_out_in_any_part),
		cmocka_unit_test(test_short_write_says_how_much_was_written),
		cmocka_unit_test(test_stall_is_a_latency_of_its_own),
		cmocka_unit_test(test_what_is_made_before_the_first_life_is_durable),
		cmocka_unit_test(test_check_finds_open_files_and_operations),
		cmocka_unit_test(test_same_seed_leaves_the_same_content),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
