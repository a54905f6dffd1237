/* The log agent's outputs into journals. */
#include "agents/log_journal.h"

#include "tests/unit/jlog_world.h"

static struct agent agent;
static struct log_output_host host;
static struct log_output *output;

static int no_work(struct agent *self)
{
	(void)self;
	return 0;
}

static const struct agent_ops agent_ops = {.kind = "test", .do_work = no_work};

static int open_output(const char *destination)
{
	char *text = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&text, &len);
	int rc = log_output_open(&output, &host, destination, errors);

	fclose(errors);
	assert_true((rc == 0) == (len == 0));
	free(text);
	return rc;
}

static int set_up(void **state)
{
	world_setup(state);
	memset(&agent, 0, sizeof(agent));
	agent_init(&agent, &agent_ops, "log", 0);
	agent.now.wall_ns = WORLD_WALL_US * 1000;
	log_output_host_init(&host, &agent, world.directory, NULL);
	output = NULL;
	return 0;
}

static int tear_down(void **state)
{
	log_output_close(output);
	log_output_host_close(&host);
	agent_close(&agent);
	return world_teardown(state);
}

static void put(const char *text)
{
	size_t len = strlen(text);

	memcpy(log_output_reserve(output, len), text, len);
	log_output_commit(output, len);
}

/* Works until nothing is left, or it fails. */
static void work(void)
{
	while (!log_output_empty(output) && !log_output_failed(output)) {
		log_output_do_work(output, 1);
	}
}

static void test_records_are_read_as_they_were_committed(void **state)
{
	struct jlog_reader *r;
	struct jlog_record record;

	(void)state;
	assert_int_equal(open_output("jlog:main.jlog"), 0);
	assert_false(output->json);
	put("one");
	put("");
	put("three");
	work();
	assert_int_equal(log_output_written(output), 3);
	r = world_reader(NULL);
	assert_int_equal(jlog_reader_next(r, &record), 1);
	assert_int_equal(record.wall_us, WORLD_WALL_US);
	assert_int_equal(record.len, 3);
	world_expect(r, "");
	world_expect(r, "three");
	world_expect(r, NULL);
	jlog_reader_close(r);
}

static void test_json_goes_to_a_journal_by_its_name(void **state)
{
	struct stat st;

	(void)state;
	assert_int_equal(open_output("json:main.jlog"), 0);
	assert_true(output->json);
	assert_int_equal(world_size("metastore"), 16);
	log_output_close(output);
	assert_int_equal(open_output("json:main.json"), 0);
	assert_int_equal(stat(output->path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(unlink(output->path), 0);
	log_output_close(output);
	assert_int_equal(open_output("jlog:/nowhere/main.jlog"), -ENOENT);
}

static void test_options_are_those_of_its_name(void **state)
{
	const struct log_journal_options journals[] = {
		{.name = "other.jlog", .segment_bytes = 50},
		{.name = "main.jlog",
		 .segment_bytes = 1000,
		 .limit_bytes = 20000,
		 .safety = JLOG_SAFE,
		 .subscribers = (const char *const[]){"billing"},
		 .subscriber_count = 1},
	};
	struct jlog_meta meta;

	(void)state;
	host.journals = journals;
	host.journal_count = 2;
	assert_int_equal(open_output("jlog:main.jlog"), 0);
	assert_int_equal(world_get_file("metastore", &meta, sizeof(meta)), 16);
	assert_int_equal(meta.unit_limit, 1000);
	assert_int_equal(meta.safety, JLOG_SAFE);
	world_expect_checkpoint("billing", 0, 0);
	for (unsigned i = 0; i < 400; i++) {
		put("a record that is quite long, as far as records of this test go, so that it counts");
		work();
	}
	/* It was never read, and the mail goes on. */
	assert_int_equal(log_output_written(output), 400);
	assert_int_equal(world_checkpoint("billing").log, UINT32_MAX);
	assert_int_equal(counter_total("dropped_subscribers"), 1);
	assert_int_equal(agent.errors.count, 2);
	assert_non_null(strstr(agent.errors.entries[1].text, "\"billing\" was dropped"));
}

static void test_records_wait_while_others_hold_the_segment(void **state)
{
	int fd;

	(void)state;
	assert_int_equal(open_output("jlog:main.jlog"), 0);
	fd = open(world_file("00000000"), O_RDWR | O_CLOEXEC);
	assert_int_equal(jlog_lock(fd, 0), 0);
	put("one");
	work();
	assert_true(log_output_failed(output));
	assert_int_equal(log_output_written(output), 0);
	close(fd);
	log_output_do_work(output, output->retry_ms);
	assert_int_equal(log_output_written(output), 1);
	assert_int_equal(world_count(), 1);
}

static void test_reopen_begins_a_journal_that_was_moved_away(void **state)
{
	char moved[128];

	(void)state;
	assert_int_equal(open_output("jlog:main.jlog"), 0);
	put("one");
	work();
	snprintf(moved, sizeof(moved), "%s/old.jlog", world.directory);
	assert_int_equal(rename(world.path, moved), 0);
	put("two");
	log_output_reopen(output, 1);
	assert_false(log_output_failed(output));
	work();
	disk_remove_directory(moved);
	assert_int_equal(world_count(), 1);
	assert_int_equal(counter_total("segments"), 2);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_records_are_read_as_they_were_committed),
		TEST(test_json_goes_to_a_journal_by_its_name),
		TEST(test_options_are_those_of_its_name),
		TEST(test_records_wait_while_others_hold_the_segment),
		TEST(test_reopen_begins_a_journal_that_was_moved_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
