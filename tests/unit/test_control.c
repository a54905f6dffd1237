#include "listeners/control/control.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "listeners/control/command.h"
#include "listeners/control/peer.h"
#include "tests/unit/control_world.h"

/* ---- tests: commands as text ---- */

static void test_unknown_commands_are_told_apart(void **state)
{
	(void)state;
	assert_error("sumary", "unknown command \"sumary\"; \"help\" lists");
	assert_error("flush", "did you mean \"flush domain NAME [BINDING]\"?");
	assert_error("suspend example.net",
		     "did you mean \"suspend domain NAME [BINDING] [for TIME | until MOMENT]\"?");
	assert_error("", "an empty command");
	assert_error("   \t ", "an empty command");
	assert_error("domain \"a", "a double quote is not closed");
	assert_error("active", "usage: active N");
	assert_error("summary now", "usage: summary");
	assert_error("active -3", "\"-3\" is not a whole number");
	assert_error("active 3x", "is not a whole number");
	assert_error("fail domain x.example a loudly", "usage: fail domain NAME [BINDING] [quiet]");
	assert_error("w w w w w w w w w w w w w w w w w w w w w w w w w "
		     "w w w w w w w w w w w w w w w w w w w w w w w w",
		     "at most 48 words");
	assert_error("domain user@x", "is not a domain name");
	assert_error("message 123", "is not a message id");
}

static void test_help_lists_every_command(void **state)
{
	json_t *all = result_of("help");
	json_t *one = result_of("HELP Flush DOMAIN");
	size_t count = 0;

	(void)state;
	while (command_table[count].name != NULL) {
		count++;
	}
	assert_int_equal(json_array_size(all), count);
	assert_string_equal(text_at(one, "command"), "flush domain");
	assert_string_equal(text_at(one, "arguments"), "NAME [BINDING]");
	json_decref(all);
	json_decref(one);
	assert_error("help nothing", "no command \"nothing\"");
}

static void test_pipelined_lines_are_answered_in_order(void **state)
{
	json_t *answer;

	(void)state;
	tell(world->client, "version\r\nactive x\nmail");
	answer = hear(world->client);
	assert_string_equal(text_at(answer, "result.hostname"), "mx.example");
	json_decref(answer);
	answer = hear(world->client);
	assert_non_null(strstr(text_at(answer, "error"), "\"x\" is not"));
	json_decref(answer);
	tell(world->client, "q\n");
	answer = hear(world->client);
	assert_int_equal(json_array_size(at(answer, "result.queues")), 0);
	json_decref(answer);
}

static void test_long_line_is_refused_and_the_connection_closed(void **state)
{
	char *line = calloc(1, 5001);
	json_t *answer;

	(void)state;
	memset(line, 'x', 5000);
	tell(world->client, line);
	free(line);
	answer = hear(world->client);
	assert_non_null(strstr(text_at(answer, "error"), "at most 4096 bytes"));
	json_decref(answer);
	assert_null(hear(world->client));
	assert_int_equal(world->closed, 1);
}

static void test_nul_in_a_line_is_refused(void **state)
{
	json_t *answer;

	(void)state;
	assert_int_equal(write(world->client, "sum\0mary\n", 9), 9);
	answer = hear(world->client);
	assert_string_equal(text_at(answer, "error"), "a command line has no NUL bytes");
	json_decref(answer);
}

/* ---- tests: sessions ---- */

static void test_idle_session_is_closed_after_a_minute(void **state)
{
	(void)state;
	pass_s(59);
	json_decref(result_of("version"));
	pass_s(59);
	assert_int_equal(world->closed, 0);
	pass_s(2);
	assert_int_equal(world->closed, 1);
	assert_null(hear(world->client));
}

static void test_idle_session_in_a_transaction_stays(void **state)
{
	(void)state;
	json_decref(result_of("config begin"));
	pass_s(600);
	assert_int_equal(world->closed, 0);
	json_decref(result_of("config rollback"));
	pass_s(61);
	assert_int_equal(world->closed, 1);
}

static void test_client_that_leaves_during_an_order_harms_nothing(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		char name[32];

		snprintf(name, sizeof(name), "d%u.example", i);
		queue_mail(name, 1, 0);
	}
	tell(world->client, "domains\n");
	step(2);
	close(world->client);
	world->client = connect_client();
	step(20);
	assert_int_equal(world->closed, 1);
	json_decref(result_of("version"));
}

static void test_stop_closes_idle_sessions_and_lets_orders_end(void **state)
{
	struct scheduler *s = &world->schedulers[0];
	int second = connect_client();
	json_t *answer;

	(void)state;
	tell(world->client, "domains\n");
	step(1);
	assert_false(control_listener.drained(s, world->control));
	control_listener.stop(s, world->control, false);
	assert_null(hear(second));
	answer = hear(world->client);
	assert_true(json_is_true(at(answer, "ok")));
	json_decref(answer);
	assert_null(hear(world->client));
	assert_true(control_listener.drained(s, world->control));
	close(second);
}

static void test_peer_must_be_root_or_of_our_user_or_group(void **state)
{
	struct peer peer;
	int pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(peer_credentials(pair[0], &peer), 0);
	assert_int_equal(peer.pid, getpid());
	assert_int_equal(peer.uid, geteuid());
	assert_true(peer_authorised(pair[0], &peer));
	assert_true(peer_authorised(-1, &(struct peer){.uid = 0, .gid = getegid() + 1}));
	assert_true(peer_authorised(-1, &(struct peer){.uid = geteuid(), .gid = getegid() + 1}));
	assert_true(peer_authorised(-1, &(struct peer){.uid = geteuid() + 7, .gid = getegid()}));
	assert_false(
		peer_authorised(-1, &(struct peer){.uid = geteuid() + 7, .gid = getegid() + 1}));
	assert_int_equal(peer_credentials(-1, &peer), -EBADF);
	close(pair[0]);
	close(pair[1]);
}

/* A socket whose other end belongs to nobody. */
static int connect_nobody(pid_t *child)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);
	socklen_t len = sizeof(address);
	int fd;

	/* An abstract name, chosen by the kernel. */
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
	assert_int_equal(listen(listener, 1), 0);
	*child = fork();
	if (*child == 0) {
		fd = socket(AF_UNIX, SOCK_STREAM, 0);
		if (setgid(65534) != 0 || setuid(65534) != 0 ||
		    connect(fd, (struct sockaddr *)&address, len) != 0) {
			_exit(1);
		}
		for (char octet; read(fd, &octet, 1) == 1;) {
			(void)write(STDERR_FILENO, &octet, 1);
		}
		_exit(0);
	}
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	assert_true(fd >= 0);
	close(listener);
	return fd;
}

static void test_stranger_is_refused_and_noted(void **state)
{
	struct accept *a;
	pid_t child;
	int status;

	(void)state;
	if (geteuid() != 0) {
		skip();
	}
	a = calloc(1, sizeof(*a));
	a->magic = ACCEPT_MAGIC;
	a->fd = connect_nobody(&child);
	/* The child has left root's supplementary groups with it: what counts is ours. */
	control_listener.serve(&world->schedulers[0], world->control, a);
	step(10);
	waitpid(child, &status, 0);
	assert_int_equal(status, 0);
	assert_int_equal(world->closed, 1);
	assert_int_equal(world->schedulers[0].base.errors.count, 1);
	assert_int_equal(world->schedulers[0].base.errors.entries[0].code, -EPERM);
}

/* ---- tests: the program ---- */

static void test_threads_shows_agents_and_their_threads(void **state)
{
	json_t *v = result_of("threads");

	(void)state;
	assert_int_equal(json_array_size(at(v, "agents")), 4);
	assert_string_equal(text_at(v, "agents.1.agent"), "scheduler.0");
	assert_string_equal(text_at(v, "agents.3.thread"), "worker");
	assert_string_equal(text_at(v, "threads.1.idle"), "noop");
	assert_int_equal(number_at(v, "threads.1.core"), 3);
	assert_true(json_is_null(at(v, "threads.0.core")));
	json_decref(v);
}

static void test_counters_match_patterns(void **state)
{
	json_t *v = result_of("counters scheduler.?.delivered");

	(void)state;
	assert_int_equal(json_array_size(v), 2);
	assert_string_equal(text_at(v, "1.counter"), "scheduler.1.delivered");
	json_decref(v);
	v = result_of("counters inbound.open");
	assert_int_equal(json_array_size(v), 2);
	json_decref(v);
	v = result_of("counters");
	assert_true(json_array_size(v) > 20);
	json_decref(v);
	assert_error("counters nonsense", "no counter matches \"nonsense\"");
}

static void test_errors_come_from_all_agents(void **state)
{
	json_t *v;

	(void)state;
	agent_error(&world->other, -ENOSPC, "disk %d", 1);
	agent_error(&world->other, -ENOSPC, "disk %d", 1);
	agent_error(&world->schedulers[1].base, 0, "odd");
	v = result_of("errors");
	assert_int_equal(json_array_size(at(v, "errors")), 2);
	assert_string_equal(text_at(v, "errors.1.agent"), "worker.0");
	assert_string_equal(text_at(v, "errors.1.code"), "ENOSPC");
	assert_int_equal(number_at(v, "errors.1.count"), 2);
	assert_null(json_object_get(v, "agents_that_did_not_answer"));
	json_decref(v);
}

static void test_errors_do_not_wait_for_a_blocked_agent(void **state)
{
	char line[4096] = "";
	json_t *answer;

	(void)state;
	tell(world->client, "errors\n");
	step_groups(1, 10);
	assert_int_equal(recv(world->client, line, sizeof(line), 0), -1);
	world->now.mono_ns += 3 * NS_PER_S;
	step_groups(1, 10);
	assert_true(recv(world->client, line, sizeof(line), 0) > 0);
	answer = json_loads(line, 0, NULL);
	assert_string_equal(text_at(answer, "result.agents_that_did_not_answer.0"), "worker.0");
	json_decref(answer);
	step(5);
	json_decref(result_of("version"));
}

static void test_memory_shows_budgets_and_pools(void **state)
{
	json_t *v = result_of("memory");

	(void)state;
	assert_true(number_at(v, "resident_bytes") > 0);
	assert_int_equal(number_at(v, "memory_budget_bytes"), 1000000);
	assert_int_equal(json_array_size(at(v, "pools")), 2 * 10);
	json_decref(v);
}

static void test_shutdown_answers_then_stops(void **state)
{
	json_t *v = result_of("shutdown");

	(void)state;
	assert_true(runtime_stopping(&world->program.runtime));
	json_decref(v);
}

static void test_reopen_logs_without_a_log_agent(void **state)
{
	(void)state;
	assert_error("reopen logs", "no log agent runs");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_unknown_commands_are_told_apart),
		TEST(test_help_lists_every_command),
		TEST(test_pipelined_lines_are_answered_in_order),
		TEST(test_long_line_is_refused_and_the_connection_closed),
		TEST(test_nul_in_a_line_is_refused),
		TEST(test_idle_session_is_closed_after_a_minute),
		TEST(test_idle_session_in_a_transaction_stays),
		TEST(test_client_that_leaves_during_an_order_harms_nothing),
		TEST(test_stop_closes_idle_sessions_and_lets_orders_end),
		TEST(test_peer_must_be_root_or_of_our_user_or_group),
		TEST(test_stranger_is_refused_and_noted),
		TEST(test_threads_shows_agents_and_their_threads),
		TEST(test_counters_match_patterns),
		TEST(test_errors_come_from_all_agents),
		TEST(test_errors_do_not_wait_for_a_blocked_agent),
		TEST(test_memory_shows_budgets_and_pools),
		TEST(test_shutdown_answers_then_stops),
		TEST(test_reopen_logs_without_a_log_agent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
