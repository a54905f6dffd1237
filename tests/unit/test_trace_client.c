#include "agents/trace_client.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "agents/trace_file.h"
#include "agents/wheel.h"
#include "config/word.h"
#include "core/runtime/runtime.h"

/* A scheduler that only listens, and a log agent that only writes traces, stepped by hand. The
 * streams have no sockets: what they carry is told to their taps. */
struct world {
	struct runtime rt;
	struct instant now;
	struct wheel_agent *wheel;
	struct agent scheduler;
	struct agent log;
	struct trace_client client;
	struct trace trace;
	char directory[64];
	unsigned received;
	bool opened;
	bool closed;
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

static int scheduler_do_work(struct agent *self)
{
	(void)self;
	trace_client_flush(&world.client);
	return 0;
}

static int log_do_work(struct agent *self)
{
	(void)self;
	return 0;
}

static const struct agent_ops scheduler_ops = {.kind = "scheduler", .do_work = scheduler_do_work};
static const struct agent_ops log_ops = {.kind = "log", .do_work = log_do_work};

static void step(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		runtime_step(&world.rt);
	}
}

static void on_received(struct stream *s, const unsigned char *data, int result)
{
	(void)s;
	(void)data;
	(void)result;
	world.received++;
}

static void on_sent(struct stream *s, int result)
{
	(void)s;
	(void)result;
}

static void on_opened(struct trace *t, int result)
{
	assert_ptr_equal(t, &world.trace);
	assert_int_equal(result, 0);
	world.opened = true;
}

static void on_closed(struct trace *t)
{
	assert_ptr_equal(t, &world.trace);
	world.closed = true;
}

static int set_up(void **state)
{
	struct clock clock = {fake_monotonic, fake_wall, &world};
	struct idle idle = {.kind = IDLE_NOOP};
	struct group *g;

	(void)state;
	memset(&world, 0, sizeof(world));
	snprintf(world.directory, sizeof(world.directory), "/tmp/test_trace_client.XXXXXX");
	assert_non_null(mkdtemp(world.directory));
	world.now = (struct instant){NS_PER_S, 1700000000 * NS_PER_S};
	runtime_init(&world.rt, &clock);
	world.rt.backend = MUX_POLL;
	g = runtime_group(&world.rt, "all", -1, &idle);
	world.wheel = wheel_agent_create("wheel");
	runtime_add(&world.rt, g, wheel_agent_base(world.wheel));
	runtime_set_wheel(&world.rt, wheel_agent_base(world.wheel), wheel_agent_on_arm);
	agent_init(&world.scheduler, &scheduler_ops, "scheduler", 1);
	runtime_add(&world.rt, g, &world.scheduler);
	agent_init(&world.log, &log_ops, "log", 4);
	runtime_add(&world.rt, g, &world.log);
	trace_client_init(&world.client, &world.scheduler, &world.log);
	assert_int_equal(runtime_prepare(&world.rt), 0);
	assert_int_equal(runtime_invoke_start(&world.rt), 0);
	step(2);
	world.trace = (struct trace){
		.magic = TRACE_MAGIC,
		.spec = {.sample = 1, .sessions_max = 100, .bytes_max = 1 << 20},
		.slot = 3,
		.number = 1,
		.owner = &world.scheduler,
		.users = 1,
		.until_wall_ms = UINT64_MAX,
		.on_opened = on_opened,
		.on_closed = on_closed,
	};
	strcpy(world.trace.path, world.directory);
	return 0;
}

static void begin(void)
{
	agent_send(&world.scheduler, &world.log, trace_file_on_open, &world.trace, 0);
	step(4);
	assert_true(world.opened);
	trace_client_add(&world.client, &world.trace);
}

static void end(void)
{
	trace_client_remove(&world.client, &world.trace);
	assert_true(trace_client_idle(&world.client));
	step(6);
	assert_true(world.closed);
	assert_true(trace_client_drained(&world.client));
}

static int tear_down(void **state)
{
	(void)state;
	assert_true(runtime_invoke_stop(&world.rt, 200));
	runtime_close(&world.rt);
	trace_client_close(&world.client);
	agent_close(&world.scheduler);
	agent_close(&world.log);
	wheel_agent_destroy(world.wheel);
	unlink(world.trace.path);
	return rmdir(world.directory);
}

static void open_stream(struct stream *s)
{
	stream_init(s, &world.scheduler, on_received, on_sent);
}

static void offer(struct stream *s, const char *domain)
{
	struct trace_facts f = {.inbound = true, .port = 25, .listener = "*:25", .domain = domain};

	assert_null(word_ip("192.0.2.1", &f.peer));
	trace_client_offer(&world.client, s, &f, 0x2a, NULL);
}

static void client_says(struct stream *s, const char *text)
{
	s->on_received(s, (const unsigned char *)text, (int)strlen(text));
}

static void server_says(struct stream *s, const char *text)
{
	struct iovec iov = {(void *)(uintptr_t)text, strlen(text)};

	assert_false(s->direct);
	s->tap->ops->sending(s->tap, &iov, 1);
}

/* Text without the time of each line, and without the last one. */
static void assert_file(const char *expected)
{
	FILE *f = fopen(world.trace.path, "r");
	char text[8192] = "";
	char line[4096];
	size_t len = 0;

	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		assert_int_equal(strncmp(line, "1700000000.000 ", 15), 0);
		if (strstr(line, "* the trace ends") == NULL) {
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s", line + 15);
		}
	}
	fclose(f);
	assert_string_equal(text, expected);
}

static void test_what_is_said_is_written_and_passed_on(void **state)
{
	struct stream s;

	(void)state;
	open_stream(&s);
	offer(&s, NULL);
	assert_null(s.tap);
	assert_true(s.direct);
	begin();
	offer(&s, NULL);
	assert_non_null(s.tap);
	server_says(&s, "220 x\r\n");
	client_says(&s, "NOOP\r\n");
	assert_int_equal(world.received, 1);
	stream_note(&s, "a\x1b note %d", 1);
	s.on_received(&s, NULL, 0);
	assert_int_equal(world.received, 2);
	stream_release(&s);
	assert_null(s.tap);
	assert_true(s.direct);
	assert_ptr_equal(s.on_received, on_received);
	assert_int_equal(world.trace.open, 0);
	end();
	assert_file("in  2a * from 192.0.2.1:25 to *:25\nin  2a S: 220 x\nin  2a C: NOOP\n"
		    "in  2a * a\\x1b note 1\nin  2a * the peer closed its side\nin  2a * closed\n");
}

static void test_a_removed_trace_lets_go_of_streams(void **state)
{
	struct stream s;

	(void)state;
	begin();
	open_stream(&s);
	offer(&s, NULL);
	assert_int_equal(world.trace.open, 1);
	end();
	assert_null(s.tap);
	assert_ptr_equal(s.on_received, on_received);
	assert_int_equal(world.trace.open, 0);
	client_says(&s, "NOOP\r\n");
	assert_file("in  2a * from 192.0.2.1:25 to *:25\n");
}

static void test_a_domain_s_trace_has_what_came_before_its_recipient(void **state)
{
	struct stream mine;
	struct stream other;

	(void)state;
	strcpy(world.trace.spec.domain, "a.test");
	begin();
	open_stream(&mine);
	open_stream(&other);
	offer(&mine, NULL);
	offer(&other, NULL);
	client_says(&other, "RCPT TO:<x@b.test>\r\n");
	client_says(&mine, "MAIL FROM:<x@a.test>\r\n");
	assert_int_equal(world.trace.sessions, 0);
	client_says(&mine, "RCPT TO:<x@A.test>\r\nRCPT TO:<y@a.test>\r\n");
	assert_int_equal(world.trace.sessions, 1);
	stream_release(&mine);
	stream_release(&other);
	end();
	assert_file(
		"in  2a * from 192.0.2.1:25 to *:25\nin  2a C: MAIL FROM:<x@a.test>\n"
		"in  2a C: RCPT TO:<x@A.test>\nin  2a C: RCPT TO:<y@a.test>\nin  2a * closed\n");
}

static void test_only_the_last_lines_before_it_are_kept(void **state)
{
	struct stream s;
	char text[256];
	FILE *f;

	(void)state;
	strcpy(world.trace.spec.domain, "a.test");
	begin();
	open_stream(&s);
	offer(&s, NULL);
	for (unsigned i = 0; i < 10000; i++) {
		client_says(&s, "NOOP\r\n");
	}
	client_says(&s, "RCPT TO:<x@a.test>\r\n");
	stream_release(&s);
	end();
	assert_true(world.trace.bytes < TRACE_KEPT_MAX + 256);
	f = fopen(world.trace.path, "r");
	assert_non_null(fgets(text, sizeof(text), f));
	fclose(f);
	assert_non_null(strstr(text, "earlier lines were not kept"));
}

/* The log agent does not run meanwhile. */
static void test_lines_are_dropped_when_the_log_agent_does_not_keep_up(void **state)
{
	struct stream s;

	(void)state;
	world.trace.spec.bytes_max = UINT64_MAX / 2;
	begin();
	open_stream(&s);
	offer(&s, NULL);
	for (unsigned i = 0; i < 100000; i++) {
		client_says(&s, "NOOP\r\n");
	}
	assert_int_equal(world.received, 100000);
	assert_int_equal(world.client.blocks_in_use, TRACE_BLOCKS_MAX);
	assert_int_equal(world.trace.lines + world.trace.dropped, 100001);
	assert_in_range(world.trace.bytes, TRACE_BLOCKS_MAX * (TRACE_BLOCK_SIZE - 64),
			TRACE_BLOCKS_MAX * TRACE_BLOCK_SIZE);
	step(6);
	assert_int_equal(world.client.blocks_in_use, 0);
	client_says(&s, "QUIT\r\n");
	assert_int_equal(world.client.blocks_in_use, 1);
	stream_release(&s);
	end();
}

static void test_what_a_disk_does_not_take_is_dropped(void **state)
{
	struct stream s;
	int full = open("/dev/full", O_WRONLY);

	(void)state;
	if (full < 0) {
		skip();
	}
	begin();
	assert_int_equal(dup2(full, world.trace.fd), world.trace.fd);
	close(full);
	open_stream(&s);
	offer(&s, NULL);
	client_says(&s, "NOOP\r\n");
	step(4);
	client_says(&s, "NOOP\r\n");
	step(4);
	assert_true(world.trace.failed);
	assert_int_equal(world.trace.lines, 0);
	assert_int_equal(world.trace.dropped, 3);
	stream_release(&s);
	end();
}

static void test_as_many_connections_as_are_wanted(void **state)
{
	struct stream s[3];

	(void)state;
	world.trace.spec.sessions_max = 2;
	begin();
	for (unsigned i = 0; i < 3; i++) {
		open_stream(&s[i]);
		offer(&s[i], NULL);
		assert_int_equal(s[i].tap != NULL, i < 2);
	}
	assert_int_equal(world.client.session_count, 2);
	for (unsigned i = 0; i < 3; i++) {
		stream_release(&s[i]);
	}
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_is_said_is_written_and_passed_on, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_a_removed_trace_lets_go_of_streams, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(
			test_a_domain_s_trace_has_what_came_before_its_recipient, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(test_only_the_last_lines_before_it_are_kept, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(
			test_lines_are_dropped_when_the_log_agent_does_not_keep_up, set_up,
			tear_down),
		cmocka_unit_test_setup_teardown(test_what_a_disk_does_not_take_is_dropped, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_as_many_connections_as_are_wanted, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
