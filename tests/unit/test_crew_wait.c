/*
 * Schedulers that go: what is waited for, and for how long; and a stop at any step of a change.
 */
#include "tests/unit/crew_world.h"

/* ---- sessions ---- */

static int connect_client(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&door_options.address,
				 door_options.address_len),
			 0);
	settle();
	return fd;
}

/* One on each of two schedulers. */
static void connect_two(int clients[2])
{
	clients[0] = connect_client();
	clients[1] = connect_client();
	assert_int_equal(doors[0].session_count, 1);
	assert_int_equal(doors[1].session_count, 1);
}

static void close_two(const int clients[2])
{
	close(clients[0]);
	close(clients[1]);
}

static void end_sessions(uint32_t index)
{
	struct scheduler *s = rig->program.schedulers[index];

	enter(s);
	close_sessions(s, &doors[index]);
	leave(s);
}

/* What is under way is waited for. */
static void begin_in_vain(uint32_t schedulers)
{
	begin(schedulers);
	for (unsigned i = 0; i < 20; i++) {
		pass_ms(PASS_MS);
	}
	assert_int_equal(answers, 0);
}

/* New ones come to who stays; whose that goes on is waited for. */
static void test_sessions_are_waited_for(void **state)
{
	int clients[2];
	int third;

	(void)state;
	connect_two(clients);
	begin_in_vain(1);
	assert_int_equal(rig->program.home_count, 1);
	assert_true(rig->schedulers[1].base.live);
	third = connect_client();
	assert_int_equal(doors[0].session_count, 2);
	assert_int_equal(doors[1].session_count, 1);
	mail_for_all();
	settle();
	check_records(1, DOMAINS);
	end_sessions(1);
	wait_until_answered();
	assert_int_equal(answers, 1);
	assert_int_equal(result, 0);
	check_crew(1);
	assert_false(doors[1].hurried);
	end_sessions(0);
	close_two(clients);
	close(third);
}

static void test_sessions_end_when_it_takes_too_long(void **state)
{
	int clients[2];

	(void)state;
	connect_two(clients);
	begin(1);
	settle();
	pass_ms(PASS_MS);
	assert_int_equal(answers, 0);
	pass_ms(rig->program.runtime.stop_timeout_ns / NS_PER_MS + 1);
	wait_until_answered();
	assert_int_equal(answers, 1);
	assert_int_equal(result, 0);
	check_crew(1);
	assert_true(doors[1].hurried);
	assert_int_equal(doors[0].session_count, 1);
	end_sessions(0);
	close_two(clients);
}

/* Mail on a connection is waited for before anybody leaves. */
static void test_transactions_are_waited_for(void **state)
{
	const char *name = domain_of(1, 2);

	(void)state;
	rig->good->reply[PEER_BODY] = PEER_SILENT;
	mail("a", name);
	settle();
	assert_int_equal(record_at(1, name)->attempt_count, 1);
	begin_in_vain(1);
	assert_int_equal(doors_open(), 2);
	outbound_answer_bodies(rig->good);
	wait_until_answered();
	assert_int_equal(answers, 1);
	check_crew(1);
	assert_int_equal(delivered(), 1);
	assert_non_null(record_at(0, name));
}

/* ---- stops ---- */

/* At any step of a change: who asked is told once, and all mail is there. */
static void stop_at_each_step(uint32_t count, unsigned steps_max)
{
	bool done = false;
	bool was_stopped = false;

	for (unsigned steps = 0; steps < steps_max; steps++) {
		nothing_is_sent();
		mail_for_all();
		settle();
		begin(count);
		set(&(struct crew_plan){.schedulers = 2}, 2);
		for (unsigned i = 0; i < steps; i++) {
			rig->now.mono_ns += NS_PER_MS;
			runtime_step(&rig->program.runtime);
		}
		stop(false);
		assert_int_equal(answers, 2);
		assert_true(result == 0 || result == -ESHUTDOWN);
		done |= result == 0;
		was_stopped |= result != 0;
		start();
		assert_int_equal(rig->found.messages, DOMAINS);
		pass_ms(1000);
		assert_int_equal(delivered(), DOMAINS);
	}
	assert_true(was_stopped);
	assert_true(done);
}

static void test_stop_while_schedulers_join(void **state)
{
	(void)state;
	stop_at_each_step(4, 60);
}

static void test_stop_while_schedulers_leave(void **state)
{
	(void)state;
	stop_at_each_step(1, 60);
}

/* It goes with all the others. */
static void test_stop_while_one_waits_for_its_sessions(void **state)
{
	int clients[2];

	(void)state;
	connect_two(clients);
	begin_in_vain(1);
	stop(true);
	assert_int_equal(answers, 1);
	assert_int_equal(result, -ESHUTDOWN);
	close_two(clients);
	start();
	check_crew(2);
}

/* Sessions keep the program from ending for as long. */
static void test_plan_when_the_program_stops(void **state)
{
	int clients[2];

	(void)state;
	connect_two(clients);
	runtime_stop(&rig->program.runtime);
	settle();
	begin(3);
	settle();
	assert_int_equal(answers, 1);
	assert_int_equal(result, -ESHUTDOWN);
	assert_int_equal(rig->program.scheduler_count, 2);
	close_two(clients);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CREW(test_sessions_are_waited_for),
		CREW(test_sessions_end_when_it_takes_too_long),
		CREW(test_transactions_are_waited_for),
		CREW(test_stop_while_schedulers_join),
		CREW(test_stop_while_schedulers_leave),
		CREW(test_stop_while_one_waits_for_its_sessions),
		CREW(test_plan_when_the_program_stops),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
