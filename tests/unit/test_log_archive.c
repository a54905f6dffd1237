#include "agents/log_archive.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* 2026-11-23 10:00:00 UTC */
#define WALL_S 1795428000
#define MIB ((size_t)1 << 20)

struct world {
	char folder[64];
	char path[512];
	struct log_archive archive;
	/* Of all passes. */
	struct log_archive_report sum;
};

static struct world world;

static const char *path_of(const char *name)
{
	snprintf(world.path, sizeof(world.path), "%s/%s", world.folder, name);
	return world.path;
}

static void make_file(const char *name, const char *text, size_t times)
{
	FILE *f = fopen(path_of(name), "w");

	assert_non_null(f);
	for (size_t i = 0; i < times; i++) {
		fputs(text, f);
	}
	assert_int_equal(fclose(f), 0);
}

static bool exists(const char *name)
{
	return access(path_of(name), F_OK) == 0;
}

/* What the shell command prints, NUL-terminated; the caller frees it. */
static char *output_of(const char *format, const char *name)
{
	char command[700];
	char *text = NULL;
	size_t len = 0;
	FILE *copy = open_memstream(&text, &len);
	FILE *f;
	int c;

	snprintf(command, sizeof(command), format, path_of(name));
	f = popen(command, "r");
	assert_non_null(f);
	while ((c = getc(f)) != EOF) {
		putc(c, copy);
	}
	fclose(copy);
	assert_int_equal(pclose(f), 0);
	return text;
}

/* Names of all files, sorted, each with a blank behind it. */
static void assert_files(const char *expected)
{
	char *text = output_of("ls %s | LC_ALL=C sort | tr '\\n' ' '", "");

	assert_string_equal(text, expected);
	free(text);
}

static void open_archive(enum log_compress compress, uint32_t keep)
{
	struct log_archive_options options = {.compress = compress, .keep = keep};

	log_archive_close(&world.archive);
	log_archive_init(&world.archive, path_of("mainlog"), &options);
}

static int set_up(void **state)
{
	struct log_archive_options options = {0};

	(void)state;
	setenv("TZ", "UTC", 1);
	tzset();
	signal(SIGXFSZ, SIG_IGN);
	memset(&world, 0, sizeof(world));
	snprintf(world.folder, sizeof(world.folder), "/tmp/test_log_archive.XXXXXX");
	assert_non_null(mkdtemp(world.folder));
	assert_false(log_archive_init(&world.archive, path_of("mainlog"), &options));
	return 0;
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	log_archive_close(&world.archive);
	snprintf(command, sizeof(command), "rm -rf %s", world.folder);
	return system(command);
}

static int run_pass(uint64_t below)
{
	struct log_archive_report r;
	bool over = false;

	log_archive_begin(&world.archive, below);
	while (!over) {
		over = log_archive_step(&world.archive, &r);
		world.sum.compressed += r.compressed;
		world.sum.compressed_bytes += r.compressed_bytes;
		world.sum.removed += r.removed;
	}
	log_archive_end(&world.archive);
	world.sum.what = r.what;
	return r.error;
}

static void test_files_are_added_in_order_whatever_the_clock_does(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		make_file("mainlog", i == 0 ? "one\n" : i == 1 ? "two\n" : "three\n", 1);
		assert_int_equal(log_archive_add(&world.archive, WALL_S - i * 86400), 0);
	}
	assert_files("mainlog.000001-20261123T100000 mainlog.000002-20261122T100000 "
		     "mainlog.000003-20261121T100000 ");
	assert_string_equal(world.archive.last, path_of("mainlog.000003-20261121T100000"));
	assert_int_equal(log_archive_add(&world.archive, WALL_S), -ENOENT);
	/* A restart counts on. */
	open_archive(LOG_COMPRESS_NONE, 0);
	make_file("mainlog", "four\n", 1);
	assert_int_equal(log_archive_add(&world.archive, WALL_S), 0);
	assert_true(exists("mainlog.000004-20261123T100000"));
}

static void test_a_file_that_is_there_is_never_replaced(void **state)
{
	(void)state;
	make_file("mainlog.000001-20261123T100000", "theirs\n", 1);
	make_file("mainlog", "ours\n", 1);
	assert_int_equal(log_archive_add(&world.archive, WALL_S), 0);
	assert_files("mainlog.000001-20261123T100000 mainlog.000002-20261123T100000 ");
	make_file("mainlog", "new\n", 1);
	assert_int_equal(log_archive_undo(&world.archive), -EEXIST);
	unlink(path_of("mainlog"));
	assert_int_equal(log_archive_undo(&world.archive), 0);
	assert_files("mainlog mainlog.000001-20261123T100000 ");
}

static void test_others_names_are_left_alone(void **state)
{
	static const char *const names[] = {
		"mainlog.000001",
		"mainlog.00001-20261123T100000",
		"mainlog.000001-20261123T10000",
		"mainlog.000001-20261123T100000.zst.old",
		"mainlog.000001-20261123T100000.tmp",
		"mainlog.000001-20261123-100000",
		"mainlog-20261123",
		"mainlog.1.gz",
		"mainlog.x00001-20261123T100000",
		"mainlog.99999999999999999999-20261123T100000",
		"mainlogs.000001-20261123T100000",
		"rejectlog.000001-20261123T100000",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		make_file(names[i], "x\n", 1);
	}
	open_archive(LOG_COMPRESS_GZIP, 1);
	assert_int_equal(world.archive.next_number, 1);
	assert_int_equal(run_pass(UINT64_MAX), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		assert_true(exists(names[i]));
	}
}

static void check_compressed(enum log_compress kind, const char *name, const char *unpack)
{
	const char *line = "0123456789 one line of many in a log that is longer than one part\n";
	size_t lines = 20 * MIB / strlen(line);
	struct stat st;
	char *text;

	make_file("mainlog.000001-20261123T100000", line, lines);
	assert_int_equal(chmod(path_of("mainlog.000001-20261123T100000"), 0640), 0);
	open_archive(kind, 7);
	assert_int_equal(run_pass(UINT64_MAX), 0);
	assert_int_equal(stat(path_of(name), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	assert_true(st.st_size > 100 && st.st_size < (off_t)MIB);
	assert_int_equal(world.sum.compressed, 1);
	assert_int_equal(world.sum.compressed_bytes, lines * strlen(line));
	text = output_of(unpack, name);
	assert_int_equal(strlen(text), lines * strlen(line));
	for (size_t i = 0; i < lines; i++) {
		assert_memory_equal(text + i * strlen(line), line, strlen(line));
	}
	free(text);
	assert_int_equal(unlink(path_of(name)), 0);
	assert_files("");
}

static void test_files_are_compressed_as_their_tools_read_them(void **state)
{
	(void)state;
	check_compressed(LOG_COMPRESS_GZIP, "mainlog.000001-20261123T100000.gz", "gzip -dc %s");
	memset(&world.sum, 0, sizeof(world.sum));
	check_compressed(LOG_COMPRESS_ZSTD, "mainlog.000001-20261123T100000.zst", "zstd -qdc %s");
}

/* Larger than the compressor's own buffers, in and out. */
static void check_incompressible(enum log_compress kind, const char *name, const char *compare)
{
	unsigned seed = 4711;
	char *same;
	FILE *f = fopen(path_of("mainlog.000001-20261123T100000"), "w");
	FILE *copy = fopen(path_of("copy"), "w");

	assert_non_null(f);
	assert_non_null(copy);
	/* The last block of zstd, of 128 KiB, is just not full. */
	for (unsigned i = 0; i < 3 * MIB - 1; i++) {
		int c = rand_r(&seed) >> 8 & 0xff;

		putc(c, f);
		putc(c, copy);
	}
	fclose(f);
	fclose(copy);
	open_archive(kind, 7);
	assert_int_equal(run_pass(UINT64_MAX), 0);
	same = output_of(compare, name);
	assert_string_equal(same, "same\n");
	free(same);
	assert_int_equal(unlink(path_of(name)), 0);
	assert_int_equal(unlink(path_of("copy")), 0);
	assert_files("");
}

static void test_what_does_not_become_smaller_is_whole(void **state)
{
	(void)state;
	check_incompressible(LOG_COMPRESS_GZIP, "mainlog.000001-20261123T100000.gz",
			     "cd $(dirname %s) && gzip -dc *.gz | cmp - copy && echo same");
	check_incompressible(LOG_COMPRESS_ZSTD, "mainlog.000001-20261123T100000.zst",
			     "cd $(dirname %s) && zstd -qdc *.zst | cmp - copy && echo same");
}

static void test_an_empty_file_is_compressed(void **state)
{
	char *text;

	(void)state;
	make_file("mainlog.000001-20261123T100000", "", 0);
	open_archive(LOG_COMPRESS_ZSTD, 7);
	assert_int_equal(run_pass(UINT64_MAX), 0);
	text = output_of("zstd -qdc %s", "mainlog.000001-20261123T100000.zst");
	assert_string_equal(text, "");
	free(text);
}

static void test_so_many_are_kept(void **state)
{
	(void)state;
	make_file("mainlog.000001-20261123T100000.gz", "x", 1);
	make_file("mainlog.000002-20261123T100000", "x", 1);
	make_file("mainlog.000010-20261123T100000", "x", 1);
	make_file("mainlog.000010-20261123T100000.zst", "x", 1);
	make_file("mainlog.1000000-20261123T100000", "x", 1);
	open_archive(LOG_COMPRESS_NONE, 0);
	assert_int_equal(world.archive.next_number, 1000001);
	assert_int_equal(run_pass(UINT64_MAX), 0);
	assert_int_equal(world.sum.removed, 0);
	open_archive(LOG_COMPRESS_NONE, 3);
	assert_int_equal(run_pass(UINT64_MAX), 0);
	assert_int_equal(world.sum.removed, 1);
	open_archive(LOG_COMPRESS_NONE, 2);
	assert_int_equal(run_pass(UINT64_MAX), 0);
	assert_int_equal(world.sum.removed, 2);
	open_archive(LOG_COMPRESS_NONE, 1);
	assert_int_equal(run_pass(UINT64_MAX), 0);
	assert_int_equal(world.sum.removed, 4);
	assert_files("mainlog.1000000-20261123T100000 ");
}

static void test_files_above_the_limit_are_left_alone(void **state)
{
	(void)state;
	make_file("mainlog.000001-20261123T100000", "x", 1);
	make_file("mainlog.000002-20261123T100000", "x", 1);
	open_archive(LOG_COMPRESS_GZIP, 7);
	assert_int_equal(run_pass(2), 0);
	assert_files("mainlog.000001-20261123T100000.gz mainlog.000002-20261123T100000 ");
}

/* Wherever it was interrupted: a part of a compressed file, or both of them. */
static void test_what_was_interrupted_is_done_again(void **state)
{
	char *text;

	(void)state;
	make_file("mainlog.000001-20261123T100000", "one\n", 1);
	make_file("mainlog.000001-20261123T100000.gz.tmp", "half", 1);
	make_file("mainlog.000002-20261123T100000", "two\n", 1);
	make_file("mainlog.000002-20261123T100000.gz", "an older one", 1);
	make_file("mainlog.000003-20261123T100000.zst.tmp", "nobody's", 1);
	open_archive(LOG_COMPRESS_GZIP, 7);
	assert_int_equal(run_pass(UINT64_MAX), 0);
	assert_files("mainlog.000001-20261123T100000.gz mainlog.000002-20261123T100000.gz ");
	text = output_of("gzip -dc %s*", "mainlog.00000");
	assert_string_equal(text, "one\ntwo\n");
	free(text);
}

static void limit_file_size(rlim_t bytes)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_the_original_stays_when_there_is_no_room(void **state)
{
	(void)state;
	make_file("mainlog.000001-20261123T100000", "no room for this\n", 100000);
	open_archive(LOG_COMPRESS_ZSTD, 7);
	limit_file_size(10);
	assert_int_equal(run_pass(UINT64_MAX), -EFBIG);
	limit_file_size(RLIM_INFINITY);
	assert_string_equal(world.sum.what, "compress");
	assert_int_equal(world.sum.compressed, 0);
	assert_files("mainlog.000001-20261123T100000 ");
	assert_int_equal(run_pass(UINT64_MAX), 0);
	assert_files("mainlog.000001-20261123T100000.zst ");
}

static void test_a_pass_may_end_at_any_time(void **state)
{
	struct log_archive_report r;

	(void)state;
	make_file("mainlog.000001-20261123T100000", "more than a part has\n", MIB);
	open_archive(LOG_COMPRESS_ZSTD, 7);
	log_archive_begin(&world.archive, UINT64_MAX);
	assert_false(log_archive_step(&world.archive, &r));
	assert_files("mainlog.000001-20261123T100000 ");
	assert_false(log_archive_step(&world.archive, &r));
	assert_int_equal(r.compressed_bytes, 8 * MIB);
	assert_true(exists("mainlog.000001-20261123T100000.zst.tmp"));
	log_archive_end(&world.archive);
	assert_files("mainlog.000001-20261123T100000 ");
	assert_int_equal(run_pass(UINT64_MAX), 0);
	assert_files("mainlog.000001-20261123T100000.zst ");
}

static void test_a_file_that_somebody_took_is_passed_over(void **state)
{
	struct log_archive_report r;

	(void)state;
	make_file("mainlog.000001-20261123T100000", "x\n", 1);
	make_file("mainlog.000002-20261123T100000", "y\n", 1);
	open_archive(LOG_COMPRESS_ZSTD, 7);
	log_archive_begin(&world.archive, UINT64_MAX);
	assert_false(log_archive_step(&world.archive, &r));
	unlink(path_of("mainlog.000001-20261123T100000"));
	assert_false(log_archive_step(&world.archive, &r));
	assert_true(log_archive_step(&world.archive, &r));
	assert_int_equal(r.error, 0);
	log_archive_end(&world.archive);
	assert_files("mainlog.000002-20261123T100000.zst ");
}

static void test_what_cannot_be_removed_is_told(void **state)
{
	char away[80];

	(void)state;
	snprintf(away, sizeof(away), "%s.away", world.folder);
	assert_int_equal(mkdir(path_of("mainlog.000001-20261123T100000"), 0755), 0);
	make_file("mainlog.000002-20261123T100000", "y\n", 1);
	open_archive(LOG_COMPRESS_NONE, 1);
	assert_int_equal(run_pass(UINT64_MAX), -EISDIR);
	assert_string_equal(world.sum.what, "remove");
	open_archive(LOG_COMPRESS_NONE, 0);
	assert_int_equal(rename(world.folder, away), 0);
	assert_int_equal(run_pass(UINT64_MAX), -ENOENT);
	assert_string_equal(world.sum.what, "list");
	assert_int_equal(rename(away, world.folder), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_files_are_added_in_order_whatever_the_clock_does),
		TEST(test_a_file_that_is_there_is_never_replaced),
		TEST(test_others_names_are_left_alone),
		TEST(test_files_are_compressed_as_their_tools_read_them),
		TEST(test_what_does_not_become_smaller_is_whole),
		TEST(test_an_empty_file_is_compressed),
		TEST(test_so_many_are_kept),
		TEST(test_files_above_the_limit_are_left_alone),
		TEST(test_what_was_interrupted_is_done_again),
		TEST(test_the_original_stays_when_there_is_no_room),
		TEST(test_a_pass_may_end_at_any_time),
		TEST(test_a_file_that_somebody_took_is_passed_over),
		TEST(test_what_cannot_be_removed_is_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
