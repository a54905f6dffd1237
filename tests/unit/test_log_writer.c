#include "agents/log_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "agents/wheel.h"
#include "core/runtime/runtime.h"

/* A program of three agents, stepped by hand: the wheel, the log writer, and one that logs. */
struct world {
	struct runtime rt;
	struct instant now;
	struct wheel_agent *wheel;
	struct log_writer *writer;
	struct agent talker;
	struct log_client client;
	char directory[64];
	char path[128];
	bool flushing;
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

static int talker_do_work(struct agent *self)
{
	(void)self;
	if (world.flushing) {
		log_client_flush(&world.client);
	}
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

static void pass_ms(uint64_t ms)
{
	world.now.mono_ns += ms * NS_PER_MS;
	world.now.wall_ns += ms * NS_PER_MS;
	step(8);
}

static void say(const char *line)
{
	log_line(&world.client, line, strlen(line));
}

/* An event of each log is enough to see where they go. */
static void tell(enum event_kind kind, const char *text)
{
	log_event(&world.client, &(struct event){.kind = kind,
						 .permanent = true,
						 .text = {[EVENT_RECIPIENT] = "to@b.example",
							  [EVENT_USER] = "tim",
							  [EVENT_FEEDBACK_TYPE] = "abuse",
							  [EVENT_REPLY] = text}});
}

static const char *path_of(const char *name)
{
	snprintf(world.path, sizeof(world.path), "%s/log/%s", world.directory, name);
	return world.path;
}

/* The whole file, NUL-terminated; the caller frees it. */
static char *content_of(const char *name)
{
	FILE *f = fopen(path_of(name), "r");
	char *text = NULL;
	size_t len = 0;
	FILE *copy = open_memstream(&text, &len);
	int c;

	assert_non_null(f);
	assert_non_null(copy);
	while ((c = getc(f)) != EOF) {
		putc(c, copy);
	}
	fclose(f);
	fclose(copy);
	return text;
}

static void assert_content(const char *name, const char *expected)
{
	char *text = content_of(name);

	assert_string_equal(text, expected);
	free(text);
}

static void make_directory(void)
{
	snprintf(world.directory, sizeof(world.directory), "/tmp/test_log_writer.XXXXXX");
	assert_non_null(mkdtemp(world.directory));
}

static void start(uint64_t heartbeat_ms)
{
	struct clock clock = {fake_monotonic, fake_wall, &world};
	struct idle idle = {.kind = IDLE_NOOP};
	char path[128];
	struct log_options options = {.path = path, .heartbeat_ms = heartbeat_ms};
	struct group *g;

	snprintf(path, sizeof(path), "%s/log", world.directory);
	world.now = (struct instant){NS_PER_S, 1700000000 * NS_PER_S};
	world.flushing = true;
	runtime_init(&world.rt, &clock);
	world.rt.backend = MUX_POLL;
	g = runtime_group(&world.rt, "all", -1, &idle);
	world.wheel = wheel_agent_create("wheel");
	runtime_add(&world.rt, g, wheel_agent_base(world.wheel));
	runtime_set_wheel(&world.rt, wheel_agent_base(world.wheel), wheel_agent_on_arm);
	world.writer = log_writer_create("log", &options, stderr);
	assert_non_null(world.writer);
	runtime_add(&world.rt, g, log_writer_agent(world.writer));
	agent_init(&world.talker, &talker_ops, "talker", 2);
	runtime_add(&world.rt, g, &world.talker);
	log_client_init(&world.client, &world.talker, log_writer_agent(world.writer));
	assert_int_equal(runtime_prepare(&world.rt), 0);
	assert_int_equal(runtime_invoke_start(&world.rt), 0);
	step(2);
}

static int set_up(void **state)
{
	(void)state;
	memset(&world, 0, sizeof(world));
	make_directory();
	return 0;
}

static void stop(void)
{
	assert_true(runtime_invoke_stop(&world.rt, 200));
	runtime_close(&world.rt);
	log_client_close(&world.client);
	agent_close(&world.talker);
	log_writer_destroy(world.writer);
	wheel_agent_destroy(world.wheel);
}

static int tear_down(void **state)
{
	static const char *const names[] = {"mainlog", "rejectlog", "paniclog",  "bouncelog",
					    "fbllog",  "acctlog",   "paniclog.1"};

	(void)state;
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		unlink(path_of(names[i]));
		rmdir(path_of(names[i]));
	}
	rmdir(path_of(""));
	return rmdir(world.directory);
}

#define BOUNCE_TAIL "@0@0@0@@"

static void test_events_reach_their_files(void **state)
{
	struct stat st;

	(void)state;
	start(0);
	tell(EVENT_RECEPTION, NULL);
	tell(EVENT_BOUNCE, "550 no");
	tell(EVENT_TRANSIENT, "450 later");
	tell(EVENT_OUT_OF_BAND, "came back");
	tell(EVENT_REJECTION, "refused");
	tell(EVENT_AUTHENTICATION, NULL);
	tell(EVENT_FEEDBACK, NULL);
	step(4);
	/* Transient failures are not wanted in the bounce log here. */
	assert_content("mainlog", "0@@@@R@to@b.example@@@@0@@@\n0@@@@P@@0@@@0@0@0@@550 no\n"
				  "0@@@@T@@0@@@0@0@0@@450 later\n");
	assert_content("bouncelog", "0@@@@B@to@b.example@@@@" BOUNCE_TAIL "550 no\n"
				    "0@@@@B@to@b.example@@@@" BOUNCE_TAIL "came back\n");
	assert_content("rejectlog", "0@@@@J@@0@0@@@to@b.example@refused\n");
	assert_content("acctlog", "0@N@esmtp@@tim@0\n");
	assert_content("fbllog", "0@@F@to@b.example@@@abuse@@\n");
	assert_content("paniclog", "");
	assert_true(log_client_drained(&world.client));
	assert_int_equal(stat(path_of("mainlog"), &st), 0);
	assert_int_equal(st.st_mode & 0777 & ~0644U, 0);
	stop();
}

/* Where several records make a block, and more than one block. */
static void test_shared_events_survive_the_ends_of_blocks(void **state)
{
	struct event e = {.kind = EVENT_TRANSIENT,
			  .text = {[EVENT_DOMAIN] = "b.example", [EVENT_RECIPIENT] = "x"}};
	char reply[600];
	char *text;
	char *at;

	(void)state;
	start(0);
	memset(reply, 'r', sizeof(reply));
	for (unsigned i = 0; i < 500; i++) {
		snprintf(reply, 8, "%06u", i);
		reply[6] = ' ';
		reply[sizeof(reply) - 1] = '\0';
		e.text[EVENT_REPLY] = reply;
		if (i == 0) {
			log_event(&world.client, &e);
		} else {
			log_event_again(&world.client, &e, EVENT_BIT(EVENT_REPLY));
		}
	}
	step(10);
	assert_true(world.client.begun[LOG_MAIN] > 5);
	assert_true(log_client_drained(&world.client));
	text = content_of("mainlog");
	at = text;
	for (unsigned i = 0; i < 500; i++) {
		at = strstr(at, "@T@b.example@");
		assert_non_null(at);
		at = strstr(at, "@0@0@0@@");
		assert_non_null(at);
		assert_int_equal(strtoul(at + 8, NULL, 10), i);
	}
	free(text);
	stop();
}

static void test_lines_are_appended_when_the_file_is_there(void **state)
{
	FILE *f;

	(void)state;
	assert_int_equal(mkdir(path_of(""), 0755), 0);
	f = fopen(path_of("paniclog"), "w");
	fputs("old\n", f);
	fclose(f);
	start(0);
	say("new");
	stop();
	assert_content("paniclog", "old\nnew\n");
}

/* Killed in the middle of a write: the next line is one of its own. */
static void test_torn_line_is_ended_before_the_next(void **state)
{
	FILE *f;

	(void)state;
	assert_int_equal(mkdir(path_of(""), 0755), 0);
	f = fopen(path_of("paniclog"), "w");
	fputs("old\ntor", f);
	fclose(f);
	start(0);
	assert_content("paniclog", "old\ntor");
	say("new");
	say("newer");
	stop();
	assert_content("paniclog", "old\ntor\nnew\nnewer\n");
}

/* Lines of 1 000 bytes with a number in front. */
static void say_numbered(unsigned from, unsigned to)
{
	char line[1000];

	for (unsigned i = from; i < to; i++) {
		memset(line, '.', sizeof(line));
		line[snprintf(line, 12, "%06u", i)] = ' ';
		log_line(&world.client, line, sizeof(line));
	}
}

static void assert_numbered(unsigned to)
{
	char *text = content_of("paniclog");

	assert_int_equal(strlen(text), to * 1001);
	for (unsigned i = 0; i < to; i++) {
		assert_int_equal(strtoul(text + i * 1001, NULL, 10), i);
		assert_int_equal(text[i * 1001 + 1000], '\n');
	}
	free(text);
}

static void test_order_is_kept_when_blocks_fill_up(void **state)
{
	(void)state;
	start(0);
	say_numbered(0, 1000);
	assert_true(world.client.outstanding > 20);
	step(10);
	assert_true(log_client_drained(&world.client));
	assert_numbered(1000);
	stop();
}

static void test_longest_line_fits_a_block(void **state)
{
	static char line[LOG_BLOCK_SIZE - 1];
	char *text;

	(void)state;
	start(0);
	memset(line, 'x', sizeof(line));
	say("short");
	log_line(&world.client, line, sizeof(line));
	stop();
	text = content_of("paniclog");
	assert_int_equal(strlen(text), 6 + sizeof(line) + 1);
	free(text);
}

static void test_unwritable_file_keeps_lines_until_reopened(void **state)
{
	struct agent *writer;

	(void)state;
	assert_int_equal(mkdir(path_of(""), 0755), 0);
	assert_int_equal(symlink("/dev/full", path_of("paniclog")), 0);
	start(0);
	writer = log_writer_agent(world.writer);
	say("kept");
	step(4);
	assert_int_equal(world.client.outstanding, 1);
	assert_int_equal(writer->errors.count, 1);
	assert_int_equal(writer->errors.entries[0].code, -ENOSPC);
	pass_ms(500);
	assert_int_equal(writer->errors.entries[0].count, 1);
	pass_ms(600);
	assert_int_equal(writer->errors.entries[0].count, 2);
	assert_int_equal(unlink(path_of("paniclog")), 0);
	agent_send(&world.talker, writer, log_writer_on_reopen, NULL, 0);
	step(6);
	assert_true(log_client_drained(&world.client));
	assert_content("paniclog", "kept\n");
	assert_int_equal(writer->errors.count, 1);
	stop();
}

static void limit_file_size(rlim_t bytes)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void test_partial_write_is_resumed_where_it_stopped(void **state)
{
	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	start(0);
	limit_file_size(100 * 1001 + 17);
	say_numbered(0, 300);
	step(10);
	assert_false(log_client_drained(&world.client));
	limit_file_size(RLIM_INFINITY);
	step(4);
	assert_false(log_client_drained(&world.client));
	pass_ms(1000);
	assert_true(log_client_drained(&world.client));
	assert_numbered(300);
	stop();
}

static void test_reopen_writes_a_torn_line_anew(void **state)
{
	char *text;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	start(0);
	limit_file_size(10);
	say("first");
	say("second");
	step(4);
	limit_file_size(RLIM_INFINITY);
	assert_int_equal(unlink(path_of("paniclog")), 0);
	agent_send(&world.talker, log_writer_agent(world.writer), log_writer_on_reopen, NULL, 0);
	step(6);
	text = content_of("paniclog");
	assert_string_equal(text, "second\n");
	free(text);
	stop();
}

static void test_rotation_goes_on_in_the_new_file(void **state)
{
	char old[128];

	(void)state;
	start(0);
	say("before");
	step(4);
	snprintf(old, sizeof(old), "%s/log/paniclog.1", world.directory);
	assert_int_equal(rename(path_of("paniclog"), old), 0);
	say("between");
	step(4);
	agent_send(&world.talker, log_writer_agent(world.writer), log_writer_on_reopen, NULL, 0);
	step(4);
	say("after");
	stop();
	assert_content("paniclog.1", "before\nbetween\n");
	assert_content("paniclog", "after\n");
}

static void test_reopen_that_fails_uses_the_old_file_until_it_works(void **state)
{
	char old[128];

	(void)state;
	start(0);
	snprintf(old, sizeof(old), "%s/log/paniclog.1", world.directory);
	assert_int_equal(rename(path_of("paniclog"), old), 0);
	assert_int_equal(mkdir(path_of("paniclog"), 0755), 0);
	agent_send(&world.talker, log_writer_agent(world.writer), log_writer_on_reopen, NULL, 0);
	step(4);
	say("still here");
	step(4);
	assert_content("paniclog.1", "still here\n");
	assert_int_equal(rmdir(path_of("paniclog")), 0);
	pass_ms(1000);
	say("here again");
	stop();
	assert_content("paniclog", "here again\n");
}

struct waiting {
	struct log_wait wait;
	unsigned told;
	int result;
};

static void on_waited(struct log_wait *w, int result)
{
	struct waiting *x = CONTAINER_OF(w, struct waiting, wait);

	x->told++;
	x->result = result;
}

static void test_wait_ends_when_the_lines_are_written(void **state)
{
	static const char bounces[] = "0@@@@B@to@b.example@@@@" BOUNCE_TAIL "one\n"
				      "0@@@@B@to@b.example@@@@" BOUNCE_TAIL "two\n";
	struct waiting x[3] = {{.wait = {.on_written = on_waited}},
			       {.wait = {.on_written = on_waited}},
			       {.wait = {.on_written = on_waited}}};

	(void)state;
	start(0);
	/* Nothing to wait for; and not from within. */
	log_client_wait(&world.client, LOG_BOUNCE, &x[0].wait);
	assert_int_equal(x[0].told, 0);
	step(4);
	assert_int_equal(x[0].told, 1);
	assert_int_equal(x[0].result, 0);
	x[0].told = 0;
	world.flushing = false;
	tell(EVENT_OUT_OF_BAND, "one");
	log_client_wait(&world.client, LOG_BOUNCE, &x[0].wait);
	tell(EVENT_OUT_OF_BAND, "two");
	log_client_wait(&world.client, LOG_BOUNCE, &x[1].wait);
	say("other");
	log_client_wait(&world.client, LOG_PANIC, &x[2].wait);
	step(4);
	assert_int_equal(x[0].told + x[1].told + x[2].told, 0);
	assert_content("bouncelog", "");
	world.flushing = true;
	while (x[0].told == 0) {
		step(1);
	}
	assert_content("bouncelog", bounces);
	step(4);
	assert_int_equal(x[1].told, 1);
	assert_int_equal(x[2].told, 1);
	stop();
}

static void test_pressure_when_the_writer_holds_many_blocks(void **state)
{
	(void)state;
	assert_int_equal(mkdir(path_of(""), 0755), 0);
	assert_int_equal(symlink("/dev/full", path_of("paniclog")), 0);
	start(0);
	for (unsigned i = 0; i < 200; i++) {
		say("a short line each cycle fills blocks once the writer is slow");
		step(1);
	}
	assert_int_equal(world.client.outstanding, LOG_BLOCKS_EAGER);
	assert_false(log_client_pressure(&world.client));
	say_numbered(0, (LOG_BLOCKS_HIGH + 2) * LOG_BLOCK_SIZE / 1001);
	step(2);
	assert_true(log_client_pressure(&world.client));
	assert_int_equal(unlink(path_of("paniclog")), 0);
	agent_send(&world.talker, log_writer_agent(world.writer), log_writer_on_reopen, NULL, 0);
	step(20);
	assert_false(log_client_pressure(&world.client));
	assert_true(log_client_drained(&world.client));
	stop();
}

static void test_heartbeat_by_the_wall_clock(void **state)
{
	(void)state;
	start(60000);
	pass_ms(59000);
	assert_content("mainlog", "");
	pass_ms(1000);
	assert_content("mainlog", "1700000060@@@@M1\n");
	pass_ms(60000);
	assert_content("mainlog", "1700000060@@@@M1\n1700000120@@@@M1\n");
	stop();
}

static void test_panic_line_is_escaped(void **state)
{
	struct errlog *errors = &world.talker.errors;

	(void)state;
	start(0);
	errors->on_new = log_panic_on_new;
	errors->context = &world.client;
	errlog_record(errors, 12 * NS_PER_S, -EIO, "a@b\\c\nd\x01 \xc3\xa4");
	errlog_record(errors, 13 * NS_PER_S, -EIO, "a@b\\c\nd\x01 \xc3\xa4");
	stop();
	assert_content("paniclog", "12@talker: a\\@b\\\\c\\nd\\x01 \xc3\xa4: Input/output error\n");
}

static void test_stop_does_not_hang_on_a_full_disk(void **state)
{
	struct waiting x = {.wait = {.on_written = on_waited}};

	(void)state;
	assert_int_equal(mkdir(path_of(""), 0755), 0);
	assert_int_equal(symlink("/dev/full", path_of("paniclog")), 0);
	start(0);
	say("goes to stderr");
	/* Who waits for it is told that it is not in the file. */
	log_client_wait(&world.client, LOG_PANIC, &x.wait);
	step(4);
	assert_int_equal(x.told, 0);
	runtime_stop(&world.rt);
	step(20);
	assert_int_equal(atomic_load(&world.rt.state), RUNTIME_STOPPING);
	world.now.mono_ns += 9 * NS_PER_S;
	stop();
	assert_int_equal(x.told, 1);
	assert_int_equal(x.result, -EIO);
}

static void test_create_fails_when_the_path_is_wrong(void **state)
{
	struct log_options options = {.path = "/dev/null/log"};
	char *text = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&text, &len);

	(void)state;
	assert_int_equal(mkdir(path_of(""), 0755), 0);
	assert_null(log_writer_create("log", &options, errors));
	options.path = "/proc";
	assert_null(log_writer_create("log", &options, errors));
	fclose(errors);
	assert_non_null(strstr(text, "cannot make log directory /dev/null/log: Not a directory\n"));
	assert_non_null(strstr(text, "cannot open log file /proc/mainlog: "));
	free(text);
}

static void test_client_without_writer_is_drained_at_once(void **state)
{
	struct log_client c;

	(void)state;
	assert_int_equal(mkdir(path_of(""), 0755), 0);
	log_client_init(&c, NULL, NULL);
	log_line(&c, "to stderr", 9);
	log_event(&c, &(struct event){.kind = EVENT_HEARTBEAT});
	log_client_flush(&c);
	assert_true(log_client_drained(&c));
	assert_false(log_client_pressure(&c));
	log_client_close(&c);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_events_reach_their_files),
		TEST(test_shared_events_survive_the_ends_of_blocks),
		TEST(test_lines_are_appended_when_the_file_is_there),
		TEST(test_torn_line_is_ended_before_the_next),
		TEST(test_order_is_kept_when_blocks_fill_up),
		TEST(test_longest_line_fits_a_block),
		TEST(test_unwritable_file_keeps_lines_until_reopened),
		TEST(test_partial_write_is_resumed_where_it_stopped),
		TEST(test_reopen_writes_a_torn_line_anew),
		TEST(test_rotation_goes_on_in_the_new_file),
		TEST(test_reopen_that_fails_uses_the_old_file_until_it_works),
		TEST(test_wait_ends_when_the_lines_are_written),
		TEST(test_pressure_when_the_writer_holds_many_blocks),
		TEST(test_heartbeat_by_the_wall_clock),
		TEST(test_panic_line_is_escaped),
		TEST(test_stop_does_not_hang_on_a_full_disk),
		TEST(test_create_fails_when_the_path_is_wrong),
		TEST(test_client_without_writer_is_drained_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
