#include "agents/log_output.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/runtime/check.h"

/* An output into memory, whose records are framed "<...>", and which takes what it is told to. */
struct memory {
	struct log_output base;
	char *text;
	size_t len;
	/* Bytes that the next writes take, and what they fail with when there are none left. */
	size_t takes;
	int error;
	/* Of log_output_gather(). */
	uint64_t limit;
	int spans;
	int reopen_error;
	unsigned reopened;
};

static struct agent agent;
static struct log_output_host host;
static struct memory memory;

static void memory_frame(struct log_output *o, char *record, size_t len)
{
	(void)o;
	record[-1] = '<';
	record[len] = '>';
}

static ssize_t memory_write(struct log_output *o)
{
	struct memory *m = CONTAINER_OF(o, struct memory, base);
	struct iovec iov[80];
	int count = log_output_gather(o, iov, m->spans, m->limit);
	size_t taken = 0;

	assert_true(count > 0);
	if (m->takes == 0) {
		return m->error;
	}
	for (int i = 0; i < count && m->takes > 0; i++) {
		size_t n = iov[i].iov_len < m->takes ? iov[i].iov_len : m->takes;

		m->text = realloc(m->text, m->len + n + 1);
		memcpy(m->text + m->len, iov[i].iov_base, n);
		m->len += n;
		m->text[m->len] = '\0';
		m->takes -= n;
		taken += n;
	}
	return (ssize_t)taken;
}

static int memory_reopen(struct log_output *o)
{
	struct memory *m = CONTAINER_OF(o, struct memory, base);

	m->reopened++;
	return m->reopen_error;
}

static int memory_sync(struct log_output *o)
{
	(void)o;
	return 0;
}

static void memory_close(struct log_output *o)
{
	log_output_free(o);
}

static const struct log_output_ops memory_ops = {
	.kind = "memory",
	.head = 1,
	.tail = 1,
	.frame = memory_frame,
	.write = memory_write,
	.reopen = memory_reopen,
	.sync = memory_sync,
	.close = memory_close,
};

static int no_work(struct agent *self)
{
	(void)self;
	return 0;
}

static const struct agent_ops agent_ops = {.kind = "test", .do_work = no_work};

static int set_up(void **state)
{
	(void)state;
	memset(&agent, 0, sizeof(agent));
	memset(&memory, 0, sizeof(memory));
	agent_init(&agent, &agent_ops, "log", 0);
	log_output_host_init(&host, &agent, "/nowhere", NULL);
	log_output_init(&memory.base, &memory_ops, &host, "memory");
	memory.takes = SIZE_MAX;
	memory.error = -ENOSPC;
	memory.limit = UINT64_MAX;
	memory.spans = 80;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	log_output_close(&memory.base);
	log_output_host_close(&host);
	agent_close(&agent);
	free(memory.text);
	return 0;
}

static void put(const char *record)
{
	size_t len = strlen(record);

	memcpy(log_output_reserve(&memory.base, len + 10), record, len);
	log_output_commit(&memory.base, len);
}

static void test_records_are_framed_and_written_in_order(void **state)
{
	struct log_output *o = &memory.base;

	(void)state;
	assert_string_equal(o->path, "/nowhere/memory");
	assert_int_equal(log_output_do_work(o, 1), 0);
	put("one");
	put("");
	put("three");
	assert_int_equal(log_output_committed(o), 3);
	assert_int_equal(log_output_written(o), 0);
	assert_int_equal(log_output_do_work(o, 1), 1);
	assert_string_equal(memory.text, "<one><><three>");
	assert_int_equal(log_output_written(o), 3);
	assert_int_equal(counter_get(host.bytes), 14);
	assert_int_equal(counter_get(o->buffered_bytes), 0);
}

static void test_reserving_without_committing_leaves_no_record(void **state)
{
	(void)state;
	memcpy(log_output_reserve(&memory.base, 20), "never", 5);
	put("one");
	log_output_reserve(&memory.base, LOG_RECORD_MAX);
	log_output_do_work(&memory.base, 1);
	log_output_reserve(&memory.base, LOG_RECORD_MAX);
	log_output_reserve(&memory.base, LOG_RECORD_MAX);
	put("two");
	log_output_do_work(&memory.base, 1);
	assert_string_equal(memory.text, "<one><two>");
	assert_int_equal(log_output_written(&memory.base), 2);
}

/* Whatever sizes fill a buffer up to its last byte, and wherever each write stops. */
static void test_every_byte_arrives_whatever_sizes_records_have(void **state)
{
	struct log_output *o = &memory.base;
	unsigned seed = 4711;
	char *expected = malloc(8 << 20);
	size_t len = 0;

	(void)state;
	for (unsigned i = 0; i < 40000; i++) {
		/* At first of 8 bytes with frame and end: they fill buffers without a rest. */
		size_t size = i < 20000 ? 2 : (size_t)rand_r(&seed) % (i % 7 == 0 ? 400 : 4);
		char *at = log_output_reserve(o, size);

		memset(at, 'a' + (int)(i % 26), size);
		log_output_commit(o, size);
		expected[len++] = '<';
		memset(expected + len, 'a' + (int)(i % 26), size);
		len += size;
		expected[len++] = '>';
		if (i % 5000 == 4999) {
			uint64_t before = len - memory.len;

			memory.takes = (size_t)rand_r(&seed) % 100000;
			log_output_do_work(o, i * 2000);
			assert_int_equal(counter_get(o->buffered_bytes), len - memory.len);
			assert_true(len - memory.len <= before);
		}
	}
	memory.takes = SIZE_MAX;
	log_output_do_work(o, UINT64_MAX / 2);
	assert_int_equal(memory.len, len);
	assert_memory_equal(memory.text, expected, len);
	assert_int_equal(log_output_written(o), 40000);
	assert_true(log_output_empty(o));
	free(expected);
}

static void test_record_counts_when_its_last_byte_is_written(void **state)
{
	struct log_output *o = &memory.base;

	(void)state;
	put("aaaa");
	put("bbbb");
	memory.takes = 11;
	assert_int_equal(log_output_do_work(o, 1000), 1);
	assert_true(o->failed);
	assert_int_equal(log_output_written(o), 1);
	assert_true(log_output_in_record(o));
	assert_int_equal(counter_get(o->buffered_bytes), 1);
	assert_int_equal(counter_get(o->waiting_records), 1);
	memory.takes = SIZE_MAX;
	assert_int_equal(log_output_do_work(o, 1999), 0);
	assert_int_equal(log_output_do_work(o, 2000), 1);
	assert_false(log_output_in_record(o));
	assert_string_equal(memory.text, "<aaaa><bbbb>");
	assert_int_equal(log_output_written(o), 2);
	assert_int_equal(agent.errors.count, 1);
	assert_string_equal(agent.errors.entries[0].text,
			    "cannot write memory /nowhere/memory: No space left on device; "
			    "trying again every second");
}

static void test_reopen_begins_a_record_anew(void **state)
{
	struct log_output *o = &memory.base;

	(void)state;
	put("aaaa");
	put("bbbb");
	memory.takes = 8;
	log_output_do_work(o, 1000);
	memory.takes = SIZE_MAX;
	log_output_reopen(o, 1000);
	assert_int_equal(memory.reopened, 1);
	log_output_do_work(o, 1001);
	assert_string_equal(memory.text, "<aaaa><b<bbbb>");
	assert_int_equal(counter_get(o->buffered_bytes), 0);
}

static void test_reopen_that_fails_is_tried_again_while_the_old_one_works(void **state)
{
	struct log_output *o = &memory.base;

	(void)state;
	memory.reopen_error = -EACCES;
	log_output_reopen(o, 1000);
	put("old");
	assert_int_equal(log_output_do_work(o, 1500), 1);
	assert_true(log_output_failed(o));
	assert_int_equal(memory.reopened, 1);
	log_output_do_work(o, 2000);
	assert_int_equal(memory.reopened, 2);
	memory.reopen_error = 0;
	log_output_do_work(o, 3000);
	assert_int_equal(memory.reopened, 3);
	assert_false(log_output_failed(o));
}

static void test_gather_stops_between_records(void **state)
{
	struct log_output *o = &memory.base;

	(void)state;
	put("aaaa");
	put("bb");
	put("cccc");
	memory.limit = 13;
	memory.error = 0;
	assert_int_equal(memory_write(o), 10);
	memory.limit = 10;
	assert_int_equal(memory_write(o), 10);
	/* The first one always goes, however long. */
	memory.limit = 1;
	assert_int_equal(memory_write(o), 6);
	memory.limit = 16;
	assert_int_equal(memory_write(o), 16);
	/* The rest of one counts as one. */
	memory.limit = UINT64_MAX;
	memory.takes = 8;
	log_output_do_work(o, 1);
	memory.takes = SIZE_MAX;
	memory.limit = 2;
	assert_int_equal(memory_write(o), 2);
	memory.limit = 7;
	assert_int_equal(memory_write(o), 2);
	memory.limit = 8;
	assert_int_equal(memory_write(o), 8);
}

static void test_gather_goes_over_buffers_up_to_the_limit(void **state)
{
	struct log_output *o = &memory.base;
	const size_t framed = 20002;
	struct iovec iov[3];

	(void)state;
	for (unsigned i = 0; i < 12; i++) {
		memset(log_output_reserve(o, 20000), 'x', 20000);
		log_output_commit(o, 20000);
	}
	assert_int_equal(o->pieces, 4);
	assert_int_equal(log_output_gather(o, iov, 3, UINT64_MAX), 3);
	assert_int_equal(iov[2].iov_len, 3 * framed);
	assert_int_equal(log_output_gather(o, iov, 3, 5 * framed - 1), 2);
	assert_int_equal(iov[1].iov_len, framed);
	assert_int_equal(log_output_gather(o, iov, 3, 3 * framed), 1);
	log_output_do_work(o, 1);
	assert_int_equal(memory.len, 12 * framed);
	assert_int_equal(o->pieces, 1);
}

static void test_full_while_the_limit_is_reached(void **state)
{
	struct log_output *o = &memory.base;
	unsigned count = 0;

	(void)state;
	memory.takes = 0;
	while (!log_output_full(o)) {
		log_output_reserve(o, 1000);
		log_output_commit(o, 1000);
		log_output_do_work(o, 1);
		count++;
	}
	assert_true(count > 63 * 60 && count < 64 * 66);
	/* What is under way still goes in. */
	put("one more");
	memory.takes = SIZE_MAX;
	log_output_do_work(o, 5000);
	assert_false(log_output_full(o));
	assert_true(log_output_empty(o));
}

static void test_abandon_ends_the_wait(void **state)
{
	struct log_output *o = &memory.base;

	(void)state;
	put("aaaa");
	put("goes to stderr");
	put("goes there, too");
	memory.takes = 9;
	log_output_do_work(o, 1000);
	assert_int_equal(log_output_written(o), 1);
	log_output_abandon(o);
	assert_int_equal(log_output_written(o), 3);
	assert_int_equal(counter_get(o->buffered_bytes), 0);
	assert_string_equal(memory.text, "<aaaa><go");
}

static void test_destination_of_no_kind_is_refused(void **state)
{
	char *text = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&text, &len);
	struct log_output *o;

	(void)state;
	assert_int_equal(log_output_open(&o, &host, "pipe:x", errors), -EINVAL);
	assert_int_equal(log_output_open(&o, &host, "file:x", errors), -ENOENT);
	assert_null(o);
	fclose(errors);
	assert_string_equal(text, "cannot log to \"pipe:x\"; expected file:NAME, jlog:NAME or "
				  "json:NAME\n"
				  "cannot open log file /nowhere/x: No such file or directory\n");
	free(text);
}

/* A quiet program sleeps until then. */
static void test_host_is_woken_for_what_is_due(void **state)
{
	const struct log_rotation hourly = {.period = LOG_PERIOD_HOURLY};
	char directory[] = "/tmp/test_log_output.XXXXXX";
	char path[64];
	char away[64];
	struct log_output_host h;
	struct log_output *o;

	(void)state;
	assert_non_null(mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/x", directory);
	log_output_host_init(&h, &agent, directory, NULL);
	assert_int_equal(log_output_open(&o, &h, "file:x", stderr), 0);
	log_output_do_work(o, 1000);
	assert_int_equal(log_output_host_wake_ms(&h), 0);
	log_output_close(o);
	log_output_host_close(&h);

	log_output_host_init(&h, &agent, directory, &hourly);
	assert_int_equal(log_output_open(&o, &h, "file:x", stderr), 0);
	/* 9:59:30: half a minute; earlier: the clock may jump, so a minute. */
	agent.now.wall_ns = UINT64_C(1795427970) * NS_PER_S;
	log_output_do_work(o, 1000);
	assert_int_equal(log_output_host_wake_ms(&h), 31000);
	agent.now.wall_ns -= 600 * NS_PER_S;
	log_output_do_work(o, 2000);
	assert_int_equal(log_output_host_wake_ms(&h), 62000);
	/* A failure is tried again sooner. */
	snprintf(away, sizeof(away), "%s.away", directory);
	assert_int_equal(rename(directory, away), 0);
	log_output_reopen(o, 3000);
	assert_int_equal(log_output_host_wake_ms(&h), 4000);
	assert_int_equal(rename(away, directory), 0);
	/* Who stops waits for nothing. */
	log_output_host_stop(&h);
	assert_int_equal(log_output_host_wake_ms(&h), 0);
	log_output_close(o);
	log_output_host_close(&h);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(directory), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_records_are_framed_and_written_in_order),
		TEST(test_reserving_without_committing_leaves_no_record),
		TEST(test_every_byte_arrives_whatever_sizes_records_have),
		TEST(test_record_counts_when_its_last_byte_is_written),
		TEST(test_reopen_begins_a_record_anew),
		TEST(test_reopen_that_fails_is_tried_again_while_the_old_one_works),
		TEST(test_gather_stops_between_records),
		TEST(test_gather_goes_over_buffers_up_to_the_limit),
		TEST(test_full_while_the_limit_is_reached),
		TEST(test_abandon_ends_the_wait),
		TEST(test_host_is_woken_for_what_is_due),
		TEST(test_destination_of_no_kind_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
