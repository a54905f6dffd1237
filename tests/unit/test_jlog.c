/* Journals, written and read: batches, segments, subscribers, foreign ones, full disks. */
#include <signal.h>
#include <sys/resource.h>

#include "core/log/jlog_index.h"
#include "tests/unit/jlog_world.h"

#define VECTORS "tests/unit/journals"

/* ---- as others have it ---- */

static void expect_same_file(const char *vector, const char *name)
{
	unsigned char ours[4096];
	unsigned char theirs[4096];
	char path[256];
	size_t len = world_get_file(name, ours, sizeof(ours));
	FILE *f;

	snprintf(path, sizeof(path), VECTORS "/%s/%s", vector, name);
	f = fopen(path, "re");
	assert_non_null(f);
	assert_int_equal(fread(theirs, 1, sizeof(theirs), f), len);
	fclose(f);
	assert_memory_equal(ours, theirs, len);
}

static void test_write_gives_the_bytes_of_the_vector(void **state)
{
	struct jlog_writer *w;

	(void)state;
	world.options.segment_bytes = 48;
	w = world_writer();
	world_subscribe("alice", 0, 1);
	world_subscribe("bob", 1, 1);
	assert_int_equal(world_write(w, "one@1"), 21);
	assert_int_equal(world_write(w, ""), 16);
	assert_int_equal(world_write(w, "{\"three\":3}"), 27);
	assert_int_equal(world_write(w, "four"), 20);
	assert_int_equal(jlog_writer_close(w), 0);
	expect_same_file("two-segments", "metastore");
	expect_same_file("two-segments", "00000000");
	expect_same_file("two-segments", "00000000.idx");
	expect_same_file("two-segments", "00000001");
	expect_same_file("two-segments", "cp.616c696365");
	expect_same_file("two-segments", "cp.626f62");
}

static void test_read_understands_the_vector(void **state)
{
	struct jlog_reader *r;
	struct jlog_record record;
	struct jlog_id first;
	struct jlog_id last;

	(void)state;
	disk_copy_directory(VECTORS "/two-segments", world.path);
	r = world_reader("alice");
	assert_int_equal(jlog_reader_interval(r, &first, &last), 2);
	assert_int_equal(jlog_id_compare(first, (struct jlog_id){0, 2}), 0);
	assert_int_equal(jlog_id_compare(last, (struct jlog_id){0, 3}), 0);
	assert_int_equal(jlog_reader_next(r, &record), 1);
	assert_int_equal(record.len, 0);
	assert_int_equal(record.wall_us, WORLD_WALL_US);
	assert_int_equal(jlog_id_compare(record.id, first), 0);
	world_expect(r, "{\"three\":3}");
	world_expect(r, "four");
	world_expect(r, NULL);
	jlog_reader_close(r);
	r = world_reader("bob");
	world_expect(r, NULL);
	jlog_reader_close(r);
}

/* A writer of libjlog has a gathering buffer, and has just made the next segment's file. */
static void test_open_goes_on_with_a_foreign_journal(void **state)
{
	struct jlog_writer *w;
	struct jlog_reader *r;

	(void)state;
	disk_copy_directory(VECTORS "/two-segments", world.path);
	world_put_file("pre_commit", "\0\0\0\0", 4);
	world.options.segment_bytes = 100;
	w = world_writer();
	assert_int_equal(world_write(w, "five"), 20);
	jlog_writer_close(w);
	assert_int_equal(world_size("00000001"), 40);
	assert_int_equal(world_size("pre_commit"), 4);
	r = world_reader("bob");
	world_expect(r, "five");
	jlog_reader_close(r);
}

static void test_open_refuses_compressed_records(void **state)
{
	struct jlog_writer *w = NULL;
	struct jlog_reader *r = NULL;

	(void)state;
	assert_int_equal(mkdir(world.path, 0700), 0);
	world_put_meta(0, 4096, JLOG_ALMOST_SAFE, JLOG_MAGIC_COMPRESSED | 1);
	assert_int_equal(jlog_writer_open(&w, &world.options), -EPROTONOSUPPORT);
	assert_int_equal(jlog_reader_open(&r, world.path, NULL), -EPROTONOSUPPORT);
	assert_int_equal(world_size("00000000"), -1);
}

/* ---- batches and segments ---- */

static void test_write_splits_a_batch_at_the_ends_of_segments(void **state)
{
	struct jlog_writer *w = world_writer();
	struct jlog_reader *r;

	(void)state;
	world_write_many(w, "a", 25);
	assert_int_equal(world_size("00000000"), 1000);
	assert_int_equal(world_size("00000001"), 1000);
	assert_int_equal(world_size("00000002"), 500);
	assert_int_equal(world_size("00000000.idx"), 11 * 8);
	assert_int_equal(world_size("00000002.idx"), -1);
	assert_int_equal(jlog_writer_counts(w)->writes, 3);
	assert_int_equal(jlog_writer_counts(w)->bytes, 2500);
	jlog_writer_close(w);
	r = world_reader(NULL);
	world_expect_many(r, "a", 0, 25);
	world_expect(r, NULL);
	jlog_reader_close(r);
}

static void test_write_takes_a_record_larger_than_a_segment(void **state)
{
	struct jlog_writer *w;
	struct jlog_reader *r;
	char text[3001];

	(void)state;
	memset(text, 'x', 3000);
	text[3000] = '\0';
	w = world_writer();
	assert_int_equal(world_write(w, text), 3016);
	assert_int_equal(world_write(w, "after"), 21);
	assert_int_equal(world_size("00000000"), 3016);
	assert_int_equal(world_size("00000001"), 21);
	jlog_writer_close(w);
	r = world_reader(NULL);
	world_expect(r, text);
	world_expect(r, "after");
	jlog_reader_close(r);
}

static void test_read_of_a_record_larger_than_the_buffer(void **state)
{
	struct jlog_writer *w;
	struct jlog_reader *r;
	struct jlog_record record;
	size_t len = 300000;
	unsigned char *data = malloc(JLOG_HEADER_BYTES + len);

	(void)state;
	assert_non_null(data);
	jlog_put_header(data, (uint32_t)len, WORLD_WALL_US);
	memset(data + JLOG_HEADER_BYTES, 'y', len);
	w = world_writer();
	assert_int_equal(jlog_writer_write(w, data, JLOG_HEADER_BYTES + len),
			 JLOG_HEADER_BYTES + len);
	world_write(w, "after");
	r = world_reader(NULL);
	assert_int_equal(jlog_reader_next(r, &record), 1);
	assert_int_equal(record.len, len);
	assert_memory_equal(record.data, data + JLOG_HEADER_BYTES, len);
	world_expect(r, "after");
	jlog_reader_close(r);
	jlog_writer_close(w);
	free(data);
}

static void test_two_writers_take_turns(void **state)
{
	struct jlog_writer *a = world_writer();
	struct jlog_writer *b = world_writer();
	struct jlog_reader *r = world_reader(NULL);

	(void)state;
	world_write_many(a, "a", 6);
	world_write_many(b, "b", 6);
	/* The second has closed the segment that the first one has open. */
	world_write_many(a, "c", 6);
	world_expect_many(r, "a", 0, 6);
	world_expect_many(r, "b", 0, 6);
	world_expect_many(r, "c", 0, 6);
	world_expect(r, NULL);
	assert_int_equal(world_size("00000000"), 1000);
	assert_int_equal(world_size("00000001"), 800);
	jlog_reader_close(r);
	jlog_writer_close(a);
	jlog_writer_close(b);
}

/* Its segments are smaller: it has closed one that the first takes for half full. */
static void test_write_leaves_a_segment_that_another_has_closed(void **state)
{
	struct jlog_writer *a = world_writer();
	struct jlog_writer *b;

	(void)state;
	world_write_many(a, "a", 6);
	world.options.segment_bytes = 500;
	b = world_writer();
	world_write_many(b, "b", 1);
	world_write_many(a, "c", 1);
	assert_int_equal(world_size("00000000"), 600);
	assert_int_equal(world_size("00000001"), 200);
	jlog_writer_close(a);
	jlog_writer_close(b);
}

static void test_write_waits_for_nobody(void **state)
{
	struct jlog_writer *w = world_writer();
	int fd = open(world_file("00000000"), O_RDWR | O_CLOEXEC);

	(void)state;
	assert_int_equal(jlog_lock(fd, 0), 0);
	assert_int_equal(world_write(w, "a"), -EAGAIN);
	jlog_unlock(fd);
	assert_int_equal(world_write(w, "a"), 17);
	close(fd);
	/* A segment that is full takes more while the next cannot be made. */
	fd = open(world_file("metastore"), O_RDWR | O_CLOEXEC);
	assert_int_equal(jlog_lock(fd, 0), 0);
	world_write_many(w, "b", 20);
	assert_int_equal(world_size("00000000"), 2017);
	jlog_unlock(fd);
	close(fd);
	world_write_many(w, "c", 1);
	assert_int_equal(world_size("00000001"), 100);
	jlog_writer_close(w);
}

static void test_write_takes_back_what_a_full_disk_cuts(void **state)
{
	struct jlog_writer *w = world_writer();
	struct rlimit old;
	struct rlimit limit;
	unsigned char batch[300];
	size_t len = 0;

	(void)state;
	len += world_frame(batch, "first");
	len += world_frame(batch + len, "second, and this one is longer");
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	limit = old;
	for (rlim_t most = 0; most < len; most++) {
		limit.rlim_cur = most;
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
		/* Whole records, or an error. */
		if (most < 21) {
			assert_true(jlog_writer_write(w, batch, len) < 0);
			assert_int_equal(world_size("00000000"), 0);
		} else {
			assert_int_equal(jlog_writer_write(w, batch, len), 21);
			assert_int_equal(world_size("00000000"), 21);
			assert_int_equal(truncate(world_file("00000000"), 0), 0);
		}
	}
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(jlog_writer_write(w, batch, len), len);
	assert_int_equal(world_count(), 2);
	jlog_writer_close(w);
}

static void test_safety_says_when_to_sync(void **state)
{
	static const struct {
		enum jlog_safety safety;
		unsigned syncs;
	} cases[] = {{JLOG_UNSAFE, 0}, {JLOG_ALMOST_SAFE, 1}, {JLOG_SAFE, 4}};

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		struct jlog_writer *w;

		if (i > 0) {
			disk_remove_directory(world.path);
		}
		world.options.safety = cases[i].safety;
		w = world_writer();
		/* Three writes, one end of a segment. */
		world_write_many(w, "a", 4);
		world_write_many(w, "a", 6);
		world_write_many(w, "a", 1);
		assert_int_equal(jlog_writer_counts(w)->syncs, cases[i].syncs);
		jlog_writer_close(w);
	}
}

/* ---- subscribers ---- */

static void test_subscribers_read_at_their_own_pace(void **state)
{
	struct jlog_writer *w;
	struct jlog_reader *fast;
	struct jlog_reader *slow;

	(void)state;
	world.options.subscribers = (const char *const[]){"fast", "slow"};
	world.options.subscriber_count = 2;
	w = world_writer();
	world_write_many(w, "a", 25);
	fast = world_reader("fast");
	slow = world_reader("slow");
	world_expect_many(fast, "a", 0, 25);
	assert_int_equal(jlog_reader_checkpoint(fast, jlog_reader_position(fast)), 0);
	world_expect_checkpoint("fast", 2, 5);
	assert_int_equal(world_size("00000000"), 1000);
	world_expect_many(slow, "a", 0, 10);
	assert_int_equal(jlog_reader_checkpoint(slow, jlog_reader_position(slow)), 0);
	assert_int_equal(world_size("00000000"), 1000);
	world_expect_many(slow, "a", 10, 11);
	assert_int_equal(jlog_reader_checkpoint(slow, jlog_reader_position(slow)), 0);
	/* The last one has passed it. */
	assert_int_equal(world_size("00000000"), -1);
	assert_int_equal(world_size("00000000.idx"), -1);
	assert_int_equal(world_size("00000001"), 1000);
	jlog_reader_close(fast);
	jlog_reader_close(slow);
	slow = world_reader("slow");
	world_expect_many(slow, "a", 11, 25);
	world_expect(slow, NULL);
	jlog_reader_close(slow);
	jlog_writer_close(w);
}

static void test_read_resumes_at_each_checkpoint(void **state)
{
	struct jlog_writer *w = world_writer();

	(void)state;
	world_subscribe("s", 0, 0);
	world_write_many(w, "a", 35);
	for (unsigned i = 0; i < 35; i++) {
		struct jlog_reader *r = world_reader("s");

		world_expect_many(r, "a", i, 35);
		world_expect(r, NULL);
		jlog_reader_close(r);
		r = world_reader("s");
		world_expect_many(r, "a", i, i + 1);
		assert_int_equal(jlog_reader_checkpoint(r, jlog_reader_position(r)), 0);
		jlog_reader_close(r);
	}
	world_expect_checkpoint("s", 3, 5);
	jlog_writer_close(w);
}

static void test_read_goes_back_and_beyond(void **state)
{
	struct jlog_writer *w = world_writer();
	struct jlog_reader *r;

	(void)state;
	world_subscribe("s", 0, 0);
	world_write_many(w, "a", 25);
	r = world_reader("s");
	world_expect_many(r, "a", 0, 14);
	assert_int_equal(jlog_reader_checkpoint(r, jlog_reader_position(r)), 0);
	assert_int_equal(jlog_reader_seek(r, (struct jlog_id){1, 2}), 0);
	world_expect_many(r, "a", 12, 25);
	assert_int_equal(jlog_reader_checkpoint(r, (struct jlog_id){1, 2}), 0);
	world_expect_checkpoint("s", 1, 2);
	/* Its segment is gone; and nothing is there yet. */
	assert_int_equal(jlog_reader_seek(r, (struct jlog_id){0, 3}), 0);
	world_expect_many(r, "a", 10, 12);
	assert_int_equal(jlog_reader_seek(r, (struct jlog_id){2, 99}), 0);
	world_expect(r, NULL);
	world_write_many(w, "b", 1);
	world_expect_many(r, "b", 0, 1);
	jlog_reader_close(r);
	jlog_writer_close(w);
}

static void test_checkpoint_of_a_dropped_subscriber_says_so(void **state)
{
	struct jlog_writer *w = world_writer();
	struct jlog_reader *r;
	int fd = jlog_directory_open(world.path);

	(void)state;
	world_subscribe("s", 0, 0);
	world_write_many(w, "a", 2);
	r = world_reader("s");
	world_expect_many(r, "a", 0, 1);
	assert_int_equal(jlog_subscriber_remove(fd, "s"), 0);
	assert_int_equal(jlog_reader_checkpoint(r, jlog_reader_position(r)), -ESRCH);
	jlog_reader_close(r);
	assert_int_equal(jlog_reader_open(&r, world.path, "s"), -ESRCH);
	assert_int_equal(jlog_subscriber_remove(fd, "s"), -ESRCH);
	close(fd);
	jlog_writer_close(w);
}

static void test_names_of_subscribers(void **state)
{
	char longest[JLOG_SUBSCRIBER_MAX + 2];
	struct jlog_subscribers list;
	struct jlog_writer *w = world_writer();
	int fd = jlog_directory_open(world.path);

	(void)state;
	memset(longest, 'n', sizeof(longest) - 1);
	longest[JLOG_SUBSCRIBER_MAX + 1] = '\0';
	assert_int_equal(jlog_subscriber_add(fd, longest, (struct jlog_id){0}), -EINVAL);
	assert_int_equal(jlog_subscriber_add(fd, "", (struct jlog_id){0}), -EINVAL);
	longest[JLOG_SUBSCRIBER_MAX] = '\0';
	assert_int_equal(jlog_subscriber_add(fd, longest, (struct jlog_id){0, 7}), 0);
	assert_int_equal(jlog_subscriber_add(fd, longest, (struct jlog_id){0}), -EEXIST);
	assert_int_equal(jlog_subscriber_add(fd, "b\xc3\xbc/../x", (struct jlog_id){.log = 1}), 0);
	/* No checkpoints, whatever they are. */
	world_put_file("cp.6g", "", 0);
	world_put_file("cp.616", "", 0);
	world_put_file("cp.00", "", 0);
	world_put_file("cp.", "", 0);
	assert_int_equal(jlog_subscribers_list(fd, &list), 0);
	assert_int_equal(list.count, 2);
	assert_string_equal(list.items[0].name, "b\xc3\xbc/../x");
	assert_string_equal(list.items[1].name, longest);
	assert_int_equal(list.items[1].checkpoint.marker, 7);
	jlog_subscribers_free(&list);
	close(fd);
	jlog_writer_close(w);
}

/* ---- reading while it is written ---- */

static void test_read_shows_nothing_that_is_not_whole(void **state)
{
	unsigned char record[64];
	size_t len = world_frame(record, "as a whole");
	struct jlog_writer *w = world_writer();
	struct jlog_reader *r;

	(void)state;
	world_write(w, "before");
	r = world_reader(NULL);
	world_expect(r, "before");
	for (size_t i = 0; i < len; i++) {
		int fd = open(world_file("00000000"), O_WRONLY | O_APPEND | O_CLOEXEC);

		world_expect(r, NULL);
		assert_int_equal(write(fd, record + i, 1), 1);
		close(fd);
	}
	world_expect(r, "as a whole");
	world_expect(r, NULL);
	jlog_reader_close(r);
	jlog_writer_close(w);
}

/* The writer was killed within a record, and its successor wrote another one to its place. */
static void test_read_forgets_what_was_cut_off(void **state)
{
	unsigned char record[64];
	size_t len = world_frame(record, "was never written in whole");
	struct jlog_record after;
	struct jlog_writer *w = world_writer();
	struct jlog_reader *r;
	int fd;

	(void)state;
	world_write(w, "before");
	fd = open(world_file("00000000"), O_WRONLY | O_APPEND | O_CLOEXEC);
	assert_int_equal(write(fd, record, len - 1), len - 1);
	close(fd);
	r = world_reader(NULL);
	world_expect(r, "before");
	world_expect(r, NULL);
	jlog_writer_close(w);
	w = world_writer();
	world_write(w, "its successor, which is no shorter than that");
	assert_int_equal(jlog_reader_next(r, &after), 1);
	assert_int_equal(after.len, strlen("its successor, which is no shorter than that"));
	assert_memory_equal(after.data, "its successor, which is no shorter than that", after.len);
	jlog_reader_close(r);
	jlog_writer_close(w);
}

static void test_wait_ends_when_something_was_written(void **state)
{
	struct jlog_writer *w = world_writer();
	struct jlog_reader *r = world_reader(NULL);
	unsigned seen = 0;

	(void)state;
	jlog_reader_wait(r, 600000);
	for (unsigned i = 0; i < 25; i++) {
		world_write_many(w, "a", 1);
		jlog_reader_wait(r, 600000);
		world_expect_many(r, "a", 0, 1);
		seen++;
	}
	assert_int_equal(seen, 25);
	/* Checkpoints of others are no news: this one ends by its time. */
	world_subscribe("s", 0, 0);
	jlog_reader_wait(r, 1);
	world_expect(r, NULL);
	jlog_reader_close(r);
	jlog_writer_close(w);
}

static void test_index_tells_how_many_records_there_are(void **state)
{
	struct jlog_writer *w = world_writer();
	uint32_t records = 0;
	int fd = jlog_directory_open(world.path);

	(void)state;
	world_write_many(w, "a", 15);
	assert_true(jlog_index_count(fd, 0, &records));
	assert_int_equal(records, 10);
	assert_false(jlog_index_count(fd, 1, &records));
	close(fd);
	jlog_writer_close(w);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, world_setup, world_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_write_gives_the_bytes_of_the_vector),
		TEST(test_read_understands_the_vector),
		TEST(test_open_goes_on_with_a_foreign_journal),
		TEST(test_open_refuses_compressed_records),
		TEST(test_write_splits_a_batch_at_the_ends_of_segments),
		TEST(test_write_takes_a_record_larger_than_a_segment),
		TEST(test_read_of_a_record_larger_than_the_buffer),
		TEST(test_two_writers_take_turns),
		TEST(test_write_leaves_a_segment_that_another_has_closed),
		TEST(test_write_waits_for_nobody),
		TEST(test_write_takes_back_what_a_full_disk_cuts),
		TEST(test_safety_says_when_to_sync),
		TEST(test_subscribers_read_at_their_own_pace),
		TEST(test_read_resumes_at_each_checkpoint),
		TEST(test_read_goes_back_and_beyond),
		TEST(test_checkpoint_of_a_dropped_subscriber_says_so),
		TEST(test_names_of_subscribers),
		TEST(test_read_shows_nothing_that_is_not_whole),
		TEST(test_read_forgets_what_was_cut_off),
		TEST(test_wait_ends_when_something_was_written),
		TEST(test_index_tells_how_many_records_there_are),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
