#include "agents/log_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "agents/thread_pool.h"
#include "agents/wheel.h"
#include "core/runtime/runtime.h"

/* 2026-11-23 09:59:00 UTC */
#define WALL_S UINT64_C(1795427940)
#define HOUR_S 3600
#define NO_PERIOD LOG_PERIOD_NEVER

/* The wheel, the log writer, a thread pool, and an agent that logs, stepped by hand. */
struct world {
	struct runtime rt;
	struct instant now;
	struct wheel_agent *wheel;
	struct log_writer *writer;
	struct thread_pool *pool;
	struct agent talker;
	struct log_client client;
	char directory[64];
	char path[256];
	unsigned said;
	/* Of the last log_writer_rotate(): of paniclog and of bouncelog. */
	int results[2];
	char rotated[256];
};

static struct world world;

static uint64_t fake_monotonic(void *context)
{
	return ((struct world *)context)->now.mono_ns;
}

static uint64_t fake_wall(void *context)
{
	return ((struct world *)context)->now.wall_ns;
}

static void ignore_warning(void *context, const char *text)
{
	(void)context;
	(void)text;
}

static int talker_do_work(struct agent *self)
{
	(void)self;
	log_client_flush(&world.client);
	return 0;
}

static bool talker_drained(struct agent *self)
{
	(void)self;
	return log_client_drained(&world.client);
}

static const struct agent_ops talker_ops = {
	.kind = "talker", .do_work = talker_do_work, .drained = talker_drained};

static void step(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		runtime_step(&world.rt);
	}
}

static void pass_s(uint64_t s)
{
	world.now.mono_ns += s * NS_PER_S;
	world.now.wall_ns += s * NS_PER_S;
	step(40);
}

static const char *path_of(const char *name)
{
	snprintf(world.path, sizeof(world.path), "%s/log/%s", world.directory, name);
	return world.path;
}

static void start(enum log_period period, uint64_t size_max, enum log_compress compress)
{
	struct clock clock = {fake_monotonic, fake_wall, &world};
	struct idle idle = {.kind = IDLE_NOOP};
	char path[128];
	struct log_options options = {
		.path = path,
		.rotation = {.period = period,
			     .size_max = size_max,
			     .archive = {.compress = compress, .keep = 3}},
	};
	struct group *g;

	snprintf(path, sizeof(path), "%s/log", world.directory);
	runtime_init(&world.rt, &clock);
	world.rt.backend = MUX_POLL;
	world.rt.warn = ignore_warning;
	g = runtime_group(&world.rt, "all", -1, &idle);
	world.wheel = wheel_agent_create("wheel");
	runtime_add(&world.rt, g, wheel_agent_base(world.wheel));
	runtime_set_wheel(&world.rt, wheel_agent_base(world.wheel), wheel_agent_on_arm);
	world.writer = log_writer_create("log", &options, stderr);
	assert_non_null(world.writer);
	runtime_add(&world.rt, g, log_writer_agent(world.writer));
	agent_init(&world.talker, &talker_ops, "talker", 2);
	runtime_add(&world.rt, g, &world.talker);
	assert_int_equal(thread_pool_create(&world.pool, &world.rt, g, 2, 10, &idle), 0);
	log_writer_set_jobs(world.writer, world.pool);
	log_client_init(&world.client, &world.talker, log_writer_agent(world.writer));
	assert_int_equal(runtime_prepare(&world.rt), 0);
	assert_int_equal(runtime_invoke_start(&world.rt), 0);
	step(2);
}

static void stop(void)
{
	assert_true(runtime_invoke_stop(&world.rt, 200));
	runtime_close(&world.rt);
	log_client_close(&world.client);
	agent_close(&world.talker);
	thread_pool_destroy(world.pool);
	log_writer_destroy(world.writer);
	wheel_agent_destroy(world.wheel);
}

static int set_up(void **state)
{
	(void)state;
	setenv("TZ", "UTC", 1);
	tzset();
	signal(SIGXFSZ, SIG_IGN);
	memset(&world, 0, sizeof(world));
	world.now = (struct instant){NS_PER_S, WALL_S * NS_PER_S};
	snprintf(world.directory, sizeof(world.directory), "/tmp/test_log_rotation.XXXXXX");
	assert_non_null(mkdtemp(world.directory));
	return 0;
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", world.directory);
	return system(command);
}

/* So many lines of 10 bytes, with their number. */
static void say(unsigned count)
{
	char line[16];

	for (unsigned i = 0; i < count; i++) {
		snprintf(line, sizeof(line), "%09u", world.said++);
		log_line(&world.client, line, 9);
	}
	step(10);
}

/* All of paniclog's files, oldest first, hold each line that was said once and in order. */
static void assert_all_lines(void)
{
	char command[256];
	char line[64];
	unsigned expected = 0;
	FILE *f;

	snprintf(command, sizeof(command),
		 "cd %s/log; for f in paniclog.0* paniclog; do case $f in *.zst) zstd -qdc $f;; "
		 "*.gz) gzip -dc $f;; *) [ ! -e $f ] || cat $f;; esac; done",
		 world.directory);
	f = popen(command, "r");
	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		assert_int_equal(strlen(line), 10);
		assert_int_equal(strtoul(line, NULL, 10), expected);
		expected++;
	}
	assert_int_equal(pclose(f), 0);
	assert_int_equal(expected, world.said);
}

/* Files whose name matches. */
static size_t count_files(const char *pattern)
{
	glob_t found;
	size_t count = 0;

	if (glob(path_of(pattern), 0, NULL, &found) == 0) {
		count = found.gl_pathc;
		globfree(&found);
	}
	return count;
}

static off_t size_of(const char *name)
{
	struct stat st;

	assert_int_equal(stat(path_of(name), &st), 0);
	return st.st_size;
}

struct found {
	const char *name;
	uint64_t value;
};

static void look_at_counter(void *context, const char *name, const char *label,
			    enum counter_kind kind, uint64_t value)
{
	struct found *f = context;

	(void)label;
	(void)kind;
	if (strcmp(name, f->name) == 0) {
		f->value = value;
	}
}

static uint64_t counter_of(const char *name)
{
	struct found f = {.name = name, .value = UINT64_MAX};

	counter_each(look_at_counter, &f);
	assert_true(f.value != UINT64_MAX);
	return f.value;
}

static void on_rotated(void *context, const struct log_output *o, int result)
{
	(void)context;
	if (strstr(o->path, "/paniclog") != NULL) {
		world.results[0] = result;
		snprintf(world.rotated, sizeof(world.rotated), "%s", o->rotated ? o->rotated : "");
	} else if (strstr(o->path, "/bouncelog") != NULL) {
		world.results[1] = result;
	}
}

static void rotate_task(struct agent *self, void *object, uint64_t value)
{
	(void)object;
	(void)value;
	log_writer_rotate(self, on_rotated, NULL);
}

/* As an operator does. */
static int rotate(void)
{
	agent_send(&world.talker, log_writer_agent(world.writer), rotate_task, NULL, 0);
	step(40);
	return world.results[0];
}

static void test_rotates_at_the_full_hour(void **state)
{
	(void)state;
	start(LOG_PERIOD_HOURLY, 0, LOG_COMPRESS_NONE);
	say(3);
	pass_s(59);
	assert_int_equal(count_files("paniclog.*"), 0);
	/* Though nobody says anything. */
	pass_s(1);
	assert_int_equal(size_of("paniclog.000001-20261123T100000"), 30);
	assert_int_equal(size_of("paniclog"), 0);
	assert_int_equal(counter_of("log.paniclog.rotations"), 1);
	say(2);
	assert_int_equal(size_of("paniclog"), 20);
	assert_all_lines();
	stop();
}

static void test_rotates_at_midnight_and_leaves_empty_files_alone(void **state)
{
	(void)state;
	start(LOG_PERIOD_DAILY, 0, LOG_COMPRESS_NONE);
	pass_s(14 * HOUR_S + 60);
	assert_int_equal(count_files("*.0*"), 0);
	say(1);
	pass_s(23 * HOUR_S);
	assert_int_equal(count_files("*.0*"), 0);
	pass_s(HOUR_S);
	assert_int_equal(count_files("*.0*"), 1);
	assert_int_equal(size_of("paniclog.000001-20261125T000000"), 10);
	stop();
}

static void test_a_restart_rotates_what_is_from_another_day(void **state)
{
	struct timespec times[2] = {{.tv_sec = WALL_S - 86400}, {.tv_sec = WALL_S - 86400}};

	(void)state;
	start(LOG_PERIOD_DAILY, 0, LOG_COMPRESS_NONE);
	say(2);
	stop();
	assert_int_equal(utimensat(AT_FDCWD, path_of("paniclog"), times, 0), 0);
	start(LOG_PERIOD_DAILY, 0, LOG_COMPRESS_NONE);
	step(10);
	assert_int_equal(count_files("paniclog.*"), 1);
	say(1);
	stop();
	/* What is of today stays. */
	times[0].tv_sec = times[1].tv_sec = WALL_S - 60;
	assert_int_equal(utimensat(AT_FDCWD, path_of("paniclog"), times, 0), 0);
	start(LOG_PERIOD_DAILY, 0, LOG_COMPRESS_NONE);
	step(10);
	assert_int_equal(count_files("paniclog.*"), 1);
	assert_all_lines();
	stop();
}

static void test_a_clock_that_goes_back_loses_nothing(void **state)
{
	(void)state;
	start(LOG_PERIOD_HOURLY, 0, LOG_COMPRESS_NONE);
	say(1);
	pass_s(60);
	world.now.wall_ns -= 100 * 86400 * NS_PER_S;
	say(1);
	pass_s(60);
	assert_int_equal(count_files("paniclog.*"), 1);
	for (unsigned i = 0; i < 59; i++) {
		pass_s(60);
	}
	assert_int_equal(count_files("paniclog.*"), 2);
	assert_int_equal(size_of("paniclog.000002-20260815T110000"), 10);
	assert_all_lines();
	stop();
}

static void test_no_file_exceeds_its_size(void **state)
{
	struct stat st;
	glob_t found;

	(void)state;
	start(NO_PERIOD, 1005, LOG_COMPRESS_NONE);
	say(150);
	assert_int_equal(size_of("paniclog.000001-20261123T095900"), 1000);
	assert_int_equal(size_of("paniclog"), 500);
	assert_all_lines();
	say(100);
	assert_int_equal(count_files("paniclog.*"), 2);
	assert_int_equal(glob(path_of("paniclog*"), 0, NULL, &found), 0);
	for (size_t i = 0; i < found.gl_pathc; i++) {
		assert_int_equal(stat(found.gl_pathv[i], &st), 0);
		assert_true(st.st_size <= 1005);
	}
	globfree(&found);
	assert_all_lines();
	stop();
	start(NO_PERIOD, 1005, LOG_COMPRESS_NONE);
	/* What is there counts. */
	say(60);
	assert_int_equal(counter_of("log.paniclog.rotations"), 1);
	assert_all_lines();
	stop();
}

static void test_one_line_may_be_longer(void **state)
{
	(void)state;
	start(NO_PERIOD, 5, LOG_COMPRESS_NONE);
	say(3);
	assert_int_equal(count_files("paniclog.*"), 2);
	assert_all_lines();
	stop();
}

static void test_rotated_files_are_compressed_and_so_many_kept(void **state)
{
	(void)state;
	start(NO_PERIOD, 0, LOG_COMPRESS_ZSTD);
	for (unsigned i = 0; i < 3; i++) {
		say(100);
		assert_int_equal(rotate(), 0);
		assert_int_equal(count_files("paniclog.*.zst"), i + 1);
	}
	assert_all_lines();
	assert_string_equal(world.rotated, path_of("paniclog.000003-20261123T095900"));
	assert_int_equal(counter_of("log.paniclog.compressed_files"), 3);
	assert_int_equal(counter_of("log.paniclog.compressed_bytes"), 3000);
	say(1);
	assert_int_equal(rotate(), 0);
	assert_int_equal(count_files("paniclog.*"), 3);
	assert_int_equal(count_files("paniclog.000001*"), 0);
	assert_int_equal(counter_of("log.paniclog.removed_files"), 1);
	stop();
}

static void test_an_operator_rotates_what_is_not_empty(void **state)
{
	struct stat st;

	(void)state;
	start(NO_PERIOD, 0, LOG_COMPRESS_NONE);
	assert_int_equal(rotate(), -ENODATA);
	say(1);
	assert_int_equal(chmod(path_of("paniclog"), 0600), 0);
	assert_int_equal(rotate(), 0);
	assert_int_equal(stat(path_of("paniclog"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(world.results[1], -ENODATA);
	assert_int_equal(rotate(), -ENODATA);
	assert_int_equal(count_files("*.0*"), 1);
	assert_int_equal(counter_of("log.paniclog.rotation_errors"), 0);
	stop();
}

static void test_what_a_run_left_is_compressed_by_the_next(void **state)
{
	(void)state;
	start(NO_PERIOD, 0, LOG_COMPRESS_NONE);
	say(10);
	rotate();
	say(10);
	stop();
	assert_int_equal(count_files("paniclog.*T095900"), 1);
	start(NO_PERIOD, 0, LOG_COMPRESS_GZIP);
	step(20);
	assert_int_equal(count_files("paniclog.*"), 1);
	assert_int_equal(count_files("paniclog.*.gz"), 1);
	assert_all_lines();
	stop();
}

static void test_a_stop_does_not_wait_for_compression(void **state)
{
	FILE *f;

	(void)state;
	assert_int_equal(mkdir(path_of(""), 0755), 0);
	f = fopen(path_of("paniclog.000001-20261123T090000"), "w");
	assert_non_null(f);
	for (unsigned i = 0; i < 4000000; i++) {
		fprintf(f, "%09u\n", world.said++);
	}
	assert_int_equal(fclose(f), 0);
	start(NO_PERIOD, 0, LOG_COMPRESS_ZSTD);
	stop();
	assert_int_equal(count_files("paniclog.*"), 1);
	assert_int_equal(count_files("paniclog.*0000"), 1);
	assert_all_lines();
}

static void limit_file_size(rlim_t bytes)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_compression_without_room_is_tried_again_each_minute(void **state)
{
	const struct agent *writer;

	(void)state;
	start(NO_PERIOD, 0, LOG_COMPRESS_GZIP);
	writer = log_writer_agent(world.writer);
	say(1000);
	limit_file_size(10);
	rotate();
	pass_s(59);
	assert_int_equal(counter_of("log.paniclog.archive_errors"), 1);
	pass_s(1);
	assert_int_equal(counter_of("log.paniclog.archive_errors"), 2);
	limit_file_size(RLIM_INFINITY);
	assert_int_equal(writer->errors.count, 1);
	assert_int_equal(writer->errors.entries[0].code, -EFBIG);
	assert_non_null(strstr(writer->errors.entries[0].text, "cannot compress rotated files of"));
	assert_int_equal(count_files("paniclog.*"), 1);
	assert_all_lines();
	pass_s(60);
	assert_int_equal(count_files("paniclog.*.gz"), 1);
	assert_int_equal(counter_of("log.paniclog.archive_errors"), 2);
	assert_all_lines();
	stop();
}

/* So many names in the way that it gives up. */
static void test_a_rotation_that_fails_is_tried_again_and_the_file_goes_on(void **state)
{
	char name[64];

	(void)state;
	start(NO_PERIOD, 100, LOG_COMPRESS_NONE);
	for (unsigned i = 1; i <= 100; i++) {
		snprintf(name, sizeof(name), "paniclog.%06u-20261123T095900", i);
		assert_int_equal(mkdir(path_of(name), 0755), 0);
	}
	say(25);
	assert_int_equal(size_of("paniclog"), 250);
	assert_int_equal(counter_of("log.paniclog.rotation_errors"), 1);
	assert_int_equal(log_writer_agent(world.writer)->errors.entries[0].code, -EEXIST);
	for (unsigned i = 1; i <= 100; i++) {
		snprintf(name, sizeof(name), "paniclog.%06u-20261123T095900", i);
		assert_int_equal(rmdir(path_of(name)), 0);
	}
	pass_s(1);
	say(1);
	assert_int_equal(size_of("paniclog.000101-20261123T095901"), 250);
	assert_int_equal(size_of("paniclog"), 10);
	assert_all_lines();
	stop();
}

static void limit_files(rlim_t count)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = count;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

static void test_a_file_whose_successor_cannot_be_opened_is_put_back(void **state)
{
	struct rlimit limit;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	start(NO_PERIOD, 0, LOG_COMPRESS_NONE);
	say(2);
	limit_files(3);
	assert_int_equal(rotate(), -EMFILE);
	limit_files(limit.rlim_cur);
	assert_int_equal(count_files("paniclog*"), 1);
	say(2);
	assert_all_lines();
	assert_int_equal(rotate(), 0);
	say(2);
	assert_int_equal(count_files("paniclog*"), 2);
	assert_all_lines();
	stop();
}

static void test_a_line_under_way_is_finished_first(void **state)
{
	(void)state;
	start(NO_PERIOD, 0, LOG_COMPRESS_NONE);
	limit_file_size(25);
	say(5);
	assert_int_equal(rotate(), -EAGAIN);
	limit_file_size(RLIM_INFINITY);
	assert_int_equal(count_files("paniclog.*"), 0);
	pass_s(1);
	/* It was the rest of all that was there, so the new file is empty. */
	assert_int_equal(count_files("paniclog.*"), 1);
	say(1);
	assert_int_equal(size_of("paniclog"), 10);
	assert_all_lines();
	stop();
}

static void test_a_file_that_others_moved_is_opened_anew(void **state)
{
	char old[128];

	(void)state;
	start(NO_PERIOD, 0, LOG_COMPRESS_NONE);
	say(1);
	snprintf(old, sizeof(old), "%s/log/paniclog.000000-20261123T000000", world.directory);
	assert_int_equal(rename(path_of("paniclog"), old), 0);
	assert_int_equal(rotate(), -ESTALE);
	say(1);
	assert_int_equal(size_of("paniclog"), 10);
	assert_int_equal(count_files("paniclog.*"), 1);
	assert_all_lines();
	stop();
}

static void test_what_is_no_file_is_not_rotated(void **state)
{
	(void)state;
	assert_int_equal(mkdir(path_of(""), 0755), 0);
	assert_int_equal(symlink("elsewhere", path_of("paniclog")), 0);
	assert_int_equal(symlink("/dev/null", path_of("bouncelog")), 0);
	start(LOG_PERIOD_HOURLY, 15, LOG_COMPRESS_GZIP);
	say(5);
	assert_int_equal(rotate(), -ENOTSUP);
	assert_int_equal(world.results[1], -ENOTSUP);
	pass_s(HOUR_S);
	assert_int_equal(size_of("elsewhere"), 50);
	assert_int_equal(count_files("*.0*"), 0);
	stop();
}

static void test_the_folder_may_be_gone_for_a_while(void **state)
{
	char away[96];

	(void)state;
	start(NO_PERIOD, 30, LOG_COMPRESS_NONE);
	say(3);
	snprintf(away, sizeof(away), "%s/away", world.directory);
	path_of("");
	world.path[strlen(world.path) - 1] = '\0';
	assert_int_equal(rename(world.path, away), 0);
	say(2);
	assert_int_equal(rotate(), -ENOENT);
	path_of("");
	world.path[strlen(world.path) - 1] = '\0';
	assert_int_equal(rename(away, world.path), 0);
	pass_s(1);
	say(1);
	assert_all_lines();
	stop();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_rotates_at_the_full_hour),
		TEST(test_rotates_at_midnight_and_leaves_empty_files_alone),
		TEST(test_a_restart_rotates_what_is_from_another_day),
		TEST(test_a_clock_that_goes_back_loses_nothing),
		TEST(test_no_file_exceeds_its_size),
		TEST(test_one_line_may_be_longer),
		TEST(test_rotated_files_are_compressed_and_so_many_kept),
		TEST(test_an_operator_rotates_what_is_not_empty),
		TEST(test_what_a_run_left_is_compressed_by_the_next),
		TEST(test_a_stop_does_not_wait_for_compression),
		TEST(test_compression_without_room_is_tried_again_each_minute),
		TEST(test_a_rotation_that_fails_is_tried_again_and_the_file_goes_on),
		TEST(test_a_file_whose_successor_cannot_be_opened_is_put_back),
		TEST(test_a_line_under_way_is_finished_first),
		TEST(test_a_file_that_others_moved_is_opened_anew),
		TEST(test_what_is_no_file_is_not_rotated),
		TEST(test_the_folder_may_be_gone_for_a_while),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
