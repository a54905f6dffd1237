/* Journals left in any state, and what the next start makes of them; and their size limit. */
#include "core/log/jlog_recovery.h"

#include "core/log/jlog_dropped.h"
#include "core/log/jlog_index.h"
#include "core/log/jlog_upkeep.h"
#include "tests/unit/jlog_world.h"

static uint32_t meta_storage_log(void)
{
	struct jlog_meta meta;

	assert_int_equal(world_get_file("metastore", &meta, sizeof(meta)), sizeof(meta));
	return meta.storage_log;
}

static struct jlog_recovery repair(void)
{
	struct jlog_recovery found;

	assert_int_equal(jlog_repair(world.path, &found), 0);
	return found;
}

/* A journal of `n` records of 100 bytes in segments of 1000. */
static void make(unsigned n)
{
	struct jlog_writer *w = world_writer();

	world_write_many(w, "a", n);
	jlog_writer_close(w);
}

/* ---- torn tails ---- */

static void test_open_cuts_a_tail_torn_at_any_byte(void **state)
{
	char name[] = "00000000";

	(void)state;
	for (long cut = 0; cut <= 300; cut++) {
		struct jlog_writer *w;
		struct jlog_reader *r;

		make(3);
		assert_int_equal(truncate(world_file(name), cut), 0);
		w = world_writer();
		assert_int_equal(world_size(name), cut / 100 * 100);
		assert_int_equal(jlog_writer_counts(w)->torn_bytes, cut % 100);
		world_write_many(w, "b", 2);
		r = world_reader(NULL);
		world_expect_many(r, "a", 0, (unsigned)cut / 100);
		world_expect_many(r, "b", 0, 2);
		world_expect(r, NULL);
		jlog_reader_close(r);
		jlog_writer_close(w);
		disk_remove_directory(world.path);
	}
	assert_int_equal(mkdir(world.path, 0700), 0);
}

/* What a power cut may leave of a file that grew: its size, with zeros. */
static void test_open_cuts_zeros(void **state)
{
	struct jlog_writer *w;

	(void)state;
	make(3);
	assert_int_equal(truncate(world_file("00000000"), 777), 0);
	w = world_writer();
	assert_int_equal(world_size("00000000"), 300);
	assert_int_equal(world.events[JLOG_REPAIRED], 1);
	assert_non_null(strstr(world.said, "477 bytes"));
	jlog_writer_close(w);
}

static void spoil(const char *name, long offset)
{
	int fd = open(world_file(name), O_WRONLY | O_CLOEXEC);

	assert_int_equal(pwrite(fd, "XXXX", 4, offset), 4);
	close(fd);
}

/* Whole records after a bad place are not cut off: the journal goes on in a new segment. */
static void test_open_leaves_a_damaged_segment_behind(void **state)
{
	struct jlog_writer *w;
	struct jlog_reader *r;

	(void)state;
	make(5);
	world_subscribe("s", 0, 5);
	spoil("00000000", 200);
	w = world_writer();
	world_write_many(w, "b", 1);
	assert_int_equal(world_size("00000000"), 500);
	assert_int_equal(world_size("00000001"), 100);
	assert_int_equal(meta_storage_log(), 1);
	r = world_reader(NULL);
	world_expect_many(r, "a", 0, 2);
	world_expect_many(r, "a", 3, 5);
	world_expect_many(r, "b", 0, 1);
	assert_int_equal(jlog_reader_skipped(r), 100);
	jlog_reader_close(r);
	/* Who was at its end stays there. */
	r = world_reader("s");
	world_expect_many(r, "b", 0, 1);
	jlog_reader_close(r);
	jlog_writer_close(w);
}

static void test_repair_takes_out_what_is_no_record(void **state)
{
	struct jlog_recovery found;
	struct jlog_reader *r;
	uint32_t records = 0;
	int fd;

	(void)state;
	make(25);
	spoil("00000000", 300);
	spoil("00000001", 900);
	world_subscribe("s", 0, 4);
	found = repair();
	assert_int_equal(found.damaged_bytes, 200);
	assert_int_equal(world_size("00000000"), 900);
	assert_int_equal(world_size("00000001"), 900);
	fd = jlog_directory_open(world.path);
	assert_true(jlog_index_count(fd, 0, &records));
	assert_int_equal(records, 9);
	close(fd);
	r = world_reader("s");
	world_expect_many(r, "a", 5, 19);
	world_expect_many(r, "a", 20, 25);
	world_expect(r, NULL);
	jlog_reader_close(r);
	found = repair();
	assert_int_equal(found.damaged_bytes, 0);
}

static void test_repair_removes_a_segment_without_records(void **state)
{
	char zeros[500] = {0};

	(void)state;
	make(25);
	world_put_file("00000001", zeros, sizeof(zeros));
	assert_int_equal(repair().damaged_bytes, 500);
	assert_int_equal(world_size("00000001"), -1);
	assert_int_equal(world_size("00000001.idx"), -1);
	assert_int_equal(world_count(), 15);
}

static void test_repair_of_a_journal_that_is_written(void **state)
{
	struct jlog_writer *w = world_writer();

	(void)state;
	world_write_many(w, "a", 25);
	spoil("00000000", 300);
	/* The segment that is written, too. */
	spoil("00000002", 100);
	assert_int_equal(repair().storage_log, 3);
	world_write_many(w, "b", 1);
	assert_int_equal(world_size("00000003"), 100);
	assert_int_equal(world_size("00000002"), 400);
	assert_int_equal(world_count(), 24);
	jlog_writer_close(w);
}

/* ---- the metastore ---- */

static void expect_storage_log(uint32_t expected)
{
	struct jlog_writer *w = world_writer();

	assert_int_equal(meta_storage_log(), expected);
	world_write_many(w, "b", 1);
	jlog_writer_close(w);
}

static void test_storage_log_behind_is_the_last_file(void **state)
{
	(void)state;
	make(25);
	world_put_meta(0, 1000, JLOG_ALMOST_SAFE, JLOG_MAGIC);
	expect_storage_log(2);
	assert_int_equal(world_size("00000002"), 600);
	assert_int_equal(world.events[JLOG_REPAIRED], 1);
}

static void test_storage_log_ahead_is_the_next_file(void **state)
{
	(void)state;
	make(15);
	world_subscribe("s", 77, 5);
	world_put_meta(77, 1000, JLOG_ALMOST_SAFE, JLOG_MAGIC);
	expect_storage_log(2);
	assert_int_equal(world_size("00000001"), 500);
	assert_int_equal(world_size("00000002"), 100);
	world_expect_checkpoint("s", 2, 0);
}

static void test_storage_log_stays_without_files(void **state)
{
	(void)state;
	assert_int_equal(mkdir(world.path, 0700), 0);
	world_put_meta(41, 1000, JLOG_ALMOST_SAFE, JLOG_MAGIC);
	expect_storage_log(41);
	assert_int_equal(world_size("00000029"), 100);
}

/* As by a reader that a metastore had misled. */
static void test_closed_segment_is_not_written(void **state)
{
	struct jlog_reader *r;
	int fd;

	(void)state;
	make(5);
	fd = jlog_directory_open(world.path);
	assert_int_equal(jlog_index_sync(fd, 0, true), 0);
	assert_int_equal(jlog_index_sync(fd, 0, true), 1);
	close(fd);
	expect_storage_log(1);
	assert_int_equal(world_size("00000000"), 500);
	r = world_reader(NULL);
	world_expect_many(r, "a", 0, 5);
	world_expect_many(r, "b", 0, 1);
	jlog_reader_close(r);
}

static void test_metastore_missing_or_spoiled_is_made_anew(void **state)
{
	static const struct jlog_meta wrong[] = {
		{1, 1000, JLOG_ALMOST_SAFE, 4711},
		{1, 1000, 3, JLOG_MAGIC},
		{1, 0, JLOG_ALMOST_SAFE, JLOG_MAGIC},
	};
	char longer[24] = {0};

	(void)state;
	make(15);
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		world_put_file("metastore", &wrong[i], sizeof(wrong[i]));
		/* Readers manage without it. */
		assert_int_equal(world_count(), 15 + i);
		expect_storage_log(1);
		assert_int_equal(world_size("metastore"), 16);
	}
	for (size_t size = 0; size <= sizeof(longer); size++) {
		world_put_file("metastore", longer, size);
		expect_storage_log(1 + (uint32_t)(size + 7) / 10);
	}
	assert_int_equal(unlink(world_file("metastore")), 0);
	assert_int_equal(world_count(), 15 + 3 + 25);
	expect_storage_log(4);
}

/* Nothing that is done to its files stops a writer. */
static void test_write_goes_on_when_files_are_spoiled(void **state)
{
	static const uint32_t wrong[] = {0, 7, 0x7fffffff};
	struct jlog_writer *w = world_writer();

	(void)state;
	world_write_many(w, "a", 15);
	for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		world_put_meta(wrong[i], 1000, JLOG_ALMOST_SAFE, JLOG_MAGIC);
		world_write_many(w, "b", 1);
		assert_int_equal(meta_storage_log(), 1);
	}
	assert_int_equal(truncate(world_file("metastore"), 0), 0);
	world_write_many(w, "b", 1);
	assert_int_equal(world_size("metastore"), 16);
	assert_int_equal(world.events[JLOG_REPAIRED], 4);
	assert_int_equal(world_count(), 19);
	assert_int_equal(unlink(world_file("00000001")), 0);
	world_write_many(w, "c", 1);
	assert_int_equal(world_size("00000002"), 100);
	assert_int_equal(world_count(), 11);
	jlog_writer_close(w);
}

/* ---- indexes and checkpoints ---- */

static void test_index_that_contradicts_is_made_right(void **state)
{
	static const uint64_t indexes[][4] = {
		{0, 100, 200, 300},
		{0, 100, 201, 300},
		{0, 100, 200, 1000},
		{7, 0, 0, 0},
	};
	static const long kept[] = {32, 16, 24, 0};

	(void)state;
	make(4);
	for (unsigned i = 0; i < 4; i++) {
		world_put_file("00000000.idx", indexes[i], sizeof(indexes[i]));
		jlog_writer_close(world_writer());
		assert_int_equal(world_size("00000000.idx"), kept[i]);
	}
	world_put_file("00000000.idx", indexes[0], 13);
	jlog_writer_close(world_writer());
	assert_int_equal(world_size("00000000.idx"), 8);
}

static void test_checkpoint_beyond_the_end_is_set_back(void **state)
{
	struct jlog_reader *r;
	struct jlog_writer *w;

	(void)state;
	make(15);
	world_subscribe("here", 1, 5);
	world_subscribe("beyond", 1, 6);
	world_subscribe("ahead", 2, 1);
	world_subscribe("closed", 0, 400);
	world_put_file("cp.6e6577", "", 0);
	w = world_writer();
	world_expect_checkpoint("here", 1, 5);
	world_expect_checkpoint("beyond", 1, 5);
	world_expect_checkpoint("ahead", 1, 5);
	world_expect_checkpoint("closed", 0, 400);
	world_expect_checkpoint("new", 0, 0);
	assert_int_equal(world_size("cp.6e6577"), 8);
	world_write_many(w, "b", 1);
	r = world_reader("ahead");
	world_expect_many(r, "b", 0, 1);
	jlog_reader_close(r);
	r = world_reader("closed");
	world_expect_many(r, "a", 10, 15);
	jlog_reader_close(r);
	jlog_writer_close(w);
}

/* ---- the limit ---- */

static unsigned segments(void)
{
	struct jlog_segments list;
	unsigned count;
	int fd = jlog_directory_open(world.path);

	assert_int_equal(jlog_segments_list(fd, &list), 0);
	count = list.count;
	jlog_segments_free(&list);
	close(fd);
	return count;
}

static uint64_t bytes(void)
{
	struct jlog_segments list;
	uint64_t sum = 0;
	int fd = jlog_directory_open(world.path);

	assert_int_equal(jlog_segments_list(fd, &list), 0);
	for (unsigned i = 0; i < list.count; i++) {
		sum += list.items[i].bytes + list.items[i].index_bytes;
	}
	jlog_segments_free(&list);
	close(fd);
	return sum;
}

static void test_limit_without_subscribers_keeps_the_newest(void **state)
{
	struct jlog_writer *w;
	struct jlog_reader *r;

	(void)state;
	world.options.limit_bytes = 20000;
	w = world_writer();
	for (unsigned i = 0; i < 100; i++) {
		world_write_many(w, "a", 10);
		assert_true(bytes() <= 20000);
	}
	assert_true(segments() >= 17);
	assert_int_equal(world.events[JLOG_NEARLY_FULL] + world.events[JLOG_DROPPED], 0);
	assert_int_equal(jlog_writer_counts(w)->removed_segments, 100 - segments());
	r = world_reader(NULL);
	world_expect_many(r, "a", 0, 10);
	jlog_reader_close(r);
	jlog_writer_close(w);
}

static void test_limit_warns_and_then_drops_who_never_reads(void **state)
{
	struct jlog_writer *w;
	struct jlog_reader *r;
	struct jlog_record record;

	(void)state;
	world.options.limit_bytes = 20000;
	world.options.subscribers = (const char *const[]){"dead", "live"};
	world.options.subscriber_count = 2;
	w = world_writer();
	r = world_reader("live");
	for (unsigned i = 0; i < 100; i++) {
		world_write_many(w, "a", 10);
		world_expect_many(r, "a", 0, 10);
		assert_int_equal(jlog_reader_next(r, &record), 0);
		assert_int_equal(jlog_reader_checkpoint(r, jlog_reader_position(r)), 0);
		assert_true(bytes() <= 20000);
		/* Said once, and before. */
		assert_int_equal(world.events[JLOG_NEARLY_FULL], i >= 15);
		assert_int_equal(world.events[JLOG_DROPPED], i >= 18);
	}
	assert_non_null(strstr(world.said, "\"dead\" does not keep up"));
	assert_non_null(strstr(world.said, "\"dead\" was dropped"));
	assert_int_equal(world_checkpoint("dead").log, UINT32_MAX);
	assert_int_equal(jlog_writer_counts(w)->dropped_subscribers, 1);
	/* What only it needed went with it. */
	assert_int_equal(segments(), 1);
	jlog_reader_close(r);
	jlog_writer_close(w);
}

/* Whether "dead", dropped, knows; what it has lost into `d`. */
static bool has_notice(struct jlog_dropped *d)
{
	int fd = jlog_directory_open(world.path);
	bool found = jlog_dropped_get(fd, "dead", world_checkpoint("dead"), d);

	close(fd);
	return found;
}

/* "dead" has read 15 records, of 10 a segment, and loses the rest of what is removed. Reopened. */
static struct jlog_writer *drop_and_reopen(void)
{
	static const char *const names[] = {"dead"};
	struct jlog_writer *w;

	world.options.limit_bytes = 20000;
	world.options.subscribers = names;
	world.options.subscriber_count = 1;
	w = world_writer();
	world_write_many(w, "a", 20);
	int fd = jlog_directory_open(world.path);
	assert_int_equal(jlog_checkpoint_write(fd, "dead", (struct jlog_id){1, 5}, false), 0);
	close(fd);
	for (unsigned i = 2; i < 40; i++) {
		world_write_many(w, "a", 10);
	}
	assert_int_equal(world.events[JLOG_DROPPED], 1);
	assert_int_equal(jlog_writer_close(w), 0);
	return world_writer();
}

static void test_dropped_subscriber_is_told_when_it_is_back(void **state)
{
	struct jlog_dropped d;
	struct jlog_segments list;
	struct jlog_reader *r;
	struct jlog_writer *w = drop_and_reopen();
	int fd = jlog_directory_open(world.path);

	(void)state;
	assert_int_equal(world.events[JLOG_RETURNED], 1);
	assert_non_null(
		strstr(world.said, "\"dead\" is back: dropped at 00000001:00000005, on at "));
	assert_int_equal(jlog_segments_list(fd, &list), 0);
	assert_true(has_notice(&d));
	assert_true(d.wall_ms > 0);
	assert_int_equal(d.at.log, 1);
	/* All up to what is there, but 10 and 5 that it has read. */
	assert_int_equal(d.lost_records, 10 * list.items[0].log - 15);
	assert_int_equal(d.lost_bytes, list.items[0].bytes * (list.items[0].log - 2));
	jlog_segments_free(&list);
	close(fd);
	/* Once, but it is there until the subscriber reads. */
	jlog_writer_close(w);
	w = world_writer();
	assert_int_equal(world.events[JLOG_RETURNED], 1);
	assert_true(has_notice(&d));
	r = world_reader("dead");
	world_expect_many(r, "a", 0, 3);
	assert_int_equal(jlog_reader_checkpoint(r, jlog_reader_position(r)), 0);
	assert_false(has_notice(&d));
	assert_int_equal(world_size("dr.64656164"), sizeof(d));
	jlog_writer_close(w);
	w = world_writer();
	assert_int_equal(world_size("dr.64656164"), -1);
	assert_int_equal(world.events[JLOG_RETURNED], 1);
	jlog_reader_close(r);
	jlog_writer_close(w);
}

static void test_dropped_again_before_it_is_told_adds_up(void **state)
{
	struct jlog_dropped first;
	struct jlog_dropped second;
	struct jlog_writer *w = drop_and_reopen();

	(void)state;
	assert_true(has_notice(&first));
	for (unsigned i = 0; i < 40; i++) {
		world_write_many(w, "a", 10);
	}
	assert_int_equal(world.events[JLOG_DROPPED], 2);
	jlog_writer_close(w);
	w = world_writer();
	assert_int_equal(world.events[JLOG_RETURNED], 2);
	assert_true(has_notice(&second));
	assert_true(second.lost_records > first.lost_records);
	assert_true(second.lost_records > 200 && second.lost_records <= 785);
	jlog_writer_close(w);
}

/* A folder in its place: not even root can unlink that. */
static void test_what_cannot_be_removed_is_not_lost(void **state)
{
	struct jlog_limit limit = {.bytes = 1, .segment_bytes = 1000};
	struct jlog_dropped d;
	struct jlog_segments list;
	int fd;

	(void)state;
	make(40);
	fd = jlog_directory_open(world.path);
	assert_int_equal(jlog_segments_list(fd, &list), 0);
	assert_int_equal(jlog_dropped_put(fd, "dead", (struct jlog_id){0, 0}), 0);
	assert_int_equal(renameat(fd, "00000000", fd, "away"), 0);
	assert_int_equal(mkdirat(fd, "00000000", 0755), 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(jlog_keep_limit(fd, 2, &limit, NULL), -EISDIR);
	}
	assert_int_equal(unlinkat(fd, "00000000", AT_REMOVEDIR), 0);
	assert_int_equal(renameat(fd, "away", fd, "00000000"), 0);
	assert_int_equal(jlog_keep_limit(fd, 2, &limit, NULL), 0);
	assert_int_equal(limit.removed_segments, 2);
	jlog_dropped_return(fd, "dead", (struct jlog_id){2, 0});
	assert_true(jlog_dropped_get(fd, "dead", (struct jlog_id){2, 0}, &d));
	assert_int_equal(d.lost_records, 20);
	assert_int_equal(d.lost_bytes, list.items[0].bytes + list.items[1].bytes);
	jlog_segments_free(&list);
	close(fd);
}

static void test_limit_drops_the_slowest_first(void **state)
{
	struct jlog_writer *w;

	(void)state;
	world.options.limit_bytes = 10000;
	w = world_writer();
	world_subscribe("slow", 0, 1);
	world_subscribe("slower", 0, 0);
	world_subscribe("other", 4, 0);
	for (unsigned i = 0; i < 11; i++) {
		world_write_many(w, "a", 10);
	}
	assert_int_equal(world_checkpoint("slower").log, UINT32_MAX);
	assert_int_equal(world_checkpoint("slow").log, UINT32_MAX);
	assert_true(strstr(world.said, "\"slower\" was") < strstr(world.said, "\"slow\" was"));
	world_expect_checkpoint("other", 4, 0);
	assert_true(bytes() <= 10000);
	jlog_writer_close(w);
}

static void test_limit_makes_segments_small_enough(void **state)
{
	struct jlog_writer *w;

	(void)state;
	world.options.segment_bytes = 100000;
	world.options.limit_bytes = 5000;
	w = world_writer();
	for (unsigned i = 0; i < 100; i++) {
		world_write_many(w, "a", 1);
		assert_true(bytes() <= 5000);
	}
	assert_true(segments() > 3);
	jlog_writer_close(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_open_cuts_a_tail_torn_at_any_byte),
		TEST(test_open_cuts_zeros),
		TEST(test_open_leaves_a_damaged_segment_behind),
		TEST(test_repair_takes_out_what_is_no_record),
		TEST(test_repair_removes_a_segment_without_records),
		TEST(test_repair_of_a_journal_that_is_written),
		TEST(test_storage_log_behind_is_the_last_file),
		TEST(test_storage_log_ahead_is_the_next_file),
		TEST(test_storage_log_stays_without_files),
		TEST(test_closed_segment_is_not_written),
		TEST(test_metastore_missing_or_spoiled_is_made_anew),
		TEST(test_write_goes_on_when_files_are_spoiled),
		TEST(test_index_that_contradicts_is_made_right),
		TEST(test_checkpoint_beyond_the_end_is_set_back),
		TEST(test_limit_without_subscribers_keeps_the_newest),
		TEST(test_limit_warns_and_then_drops_who_never_reads),
		TEST(test_dropped_subscriber_is_told_when_it_is_back),
		TEST(test_dropped_again_before_it_is_told_adds_up),
		TEST(test_what_cannot_be_removed_is_not_lost),
		TEST(test_limit_drops_the_slowest_first),
		TEST(test_limit_makes_segments_small_enough),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
