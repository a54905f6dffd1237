/*
 * The runtime as a whole: start and its failures, hand-over of objects between threads, stop.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "core/runtime/runtime.h"

#define PLAYERS 3

struct player {
	struct agent base;
	int init_result;
	int start_result;
	bool busy;
	bool busy_until_hurry;
	bool stop_at_once;
	unsigned bursts;
	/* When, in the order of all events of the world; 0: never. */
	unsigned started;
	unsigned completed;
	unsigned stopped;
	unsigned torn_down;
	uint64_t balls_done;
	uint64_t got;
	uint64_t wrong;
};

struct world {
	struct player players[PLAYERS];
	struct runtime rt;
	_Atomic unsigned events;
	uint64_t now_ns;
	_Atomic unsigned warnings;
	char warning[512];
};

static struct world *world;
/* The kernel says of this machine that it has more cores than fit. */
static bool too_many_cores;

/* In place of the C library's. */
int pthread_getaffinity_np(pthread_t thread, size_t size, cpu_set_t *set)
{
	(void)thread;
	return too_many_cores ? EINVAL : sched_getaffinity(0, size, set) == 0 ? 0 : errno;
}

static uint64_t fake_ns(void *context)
{
	return ((struct world *)context)->now_ns;
}

static void on_warning(void *context, const char *text)
{
	struct world *w = context;

	if (atomic_fetch_add(&w->warnings, 1) == 0) {
		snprintf(w->warning, sizeof(w->warning), "%s", text);
	}
}

static struct player *player_of(struct agent *a)
{
	CHECK_MAGIC(a, AGENT_MAGIC);
	return CONTAINER_OF(a, struct player, base);
}

static unsigned event(void)
{
	return atomic_fetch_add(&world->events, 1) + 1;
}

static int player_init(struct agent *self)
{
	return player_of(self)->init_result;
}

static int player_start(struct agent *self)
{
	player_of(self)->started = event();
	return player_of(self)->start_result;
}

static void player_complete(struct agent *self)
{
	player_of(self)->completed = event();
	if (player_of(self)->stop_at_once) {
		runtime_stop(self->runtime);
	}
}

/* A parcel whose owner changes with the hand-over; plain memory, so that the sanitizers watch. */
struct parcel {
	uint64_t number;
	uint64_t sum;
	uint32_t hops;
};

#define BURST 50
#define HOPS 6

static void on_parcel(struct agent *self, void *object, uint64_t number)
{
	struct player *p = player_of(self);
	struct player *next = &world->players[(self->id + 1U) % PLAYERS];
	struct parcel *parcel = object;

	p->wrong += parcel->number != number || parcel->sum != number + parcel->hops;
	p->got++;
	parcel->hops++;
	parcel->sum++;
	if (parcel->hops == HOPS) {
		free(parcel);
		p->balls_done++;
		return;
	}
	agent_send(self, &next->base, on_parcel, parcel, number);
}

static void send_parcel(struct player *p, uint64_t number)
{
	struct player *next = &world->players[(p->base.id + 1U) % PLAYERS];
	struct parcel *parcel = calloc(1, sizeof(*parcel));

	if (parcel == NULL) {
		abort();
	}
	parcel->number = number;
	parcel->sum = number;
	agent_send(&p->base, &next->base, on_parcel, parcel, number);
}

static int player_do_work(struct agent *self)
{
	struct player *p = player_of(self);

	if (p->bursts == 0) {
		return 0;
	}
	p->bursts--;
	for (uint64_t i = 0; i < BURST; i++) {
		send_parcel(p, p->bursts * BURST + i);
	}
	/* In the middle of it all: what is under way must still arrive. */
	if (p->bursts == 0 && self->id == 0) {
		runtime_stop(self->runtime);
	}
	return 1;
}

static void player_stop(struct agent *self)
{
	player_of(self)->stopped = event();
}

static bool player_drained(struct agent *self)
{
	struct player *p = player_of(self);

	if (p->busy_until_hurry) {
		return atomic_load(&self->runtime->hurry);
	}
	return !p->busy && p->bursts == 0;
}

static void player_tear_down(struct agent *self)
{
	player_of(self)->torn_down = event();
}

static const struct agent_ops player_ops = {
	.kind = "player",
	.init = player_init,
	.start = player_start,
	.start_complete = player_complete,
	.do_work = player_do_work,
	.stop = player_stop,
	.drained = player_drained,
	.tear_down = player_tear_down,
};

static int setup(void **state)
{
	static const char *const names[PLAYERS] = {"a", "b", "c"};
	static const char *const groups[PLAYERS] = {"group.a", "group.b", "group.c"};
	const struct idle idle = {.kind = IDLE_PARK};

	(void)state;
	world = aligned_alloc(CACHE_LINE, sizeof(*world));
	assert_non_null(world);
	memset(world, 0, sizeof(*world));
	runtime_init(&world->rt, &clock_system);
	/* liburing unmaps a ring by a bare system call: where a thread ends early and another one's
	 * ring gets the same address, the thread sanitizer takes them for one. */
	world->rt.backend = MUX_EPOLL;
	world->rt.mux_entries = 64;
	world->rt.ring_slots = 16;
	world->rt.warn = on_warning;
	world->rt.warn_context = world;
	for (unsigned i = 0; i < PLAYERS; i++) {
		struct player *p = &world->players[i];

		agent_init(&p->base, &player_ops, names[i], 0);
		runtime_add(&world->rt, runtime_group(&world->rt, groups[i], -1, &idle), &p->base);
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	runtime_close(&world->rt);
	for (unsigned i = 0; i < PLAYERS; i++) {
		agent_close(&world->players[i].base);
	}
	free(world);
	return 0;
}

static void use_fake_clock(void)
{
	const struct clock clock = {fake_ns, fake_ns, world};

	world->rt.clock = clock;
	world->now_ns = NS_PER_S;
}

static void test_prepare_when_an_init_fails(void **state)
{
	(void)state;
	world->players[1].init_result = -ENOENT;
	assert_int_equal(runtime_prepare(&world->rt), -ENOENT);
	assert_int_equal(atomic_load(&world->events), 0);
}

/* No agent completes its start before every agent has started. */
static void test_run_when_all_start(void **state)
{
	(void)state;
	world->players[2].stop_at_once = true;
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(runtime_run(&world->rt), 0);
	for (unsigned i = 0; i < PLAYERS; i++) {
		struct player *p = &world->players[i];

		assert_in_range(p->started, 1, PLAYERS);
		assert_in_range(p->completed, PLAYERS + 1, 4 * PLAYERS);
		assert_true(p->stopped > p->completed && p->torn_down > p->stopped);
	}
}

static void test_run_when_a_start_fails(void **state)
{
	(void)state;
	world->players[1].start_result = -EADDRINUSE;
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(runtime_run(&world->rt), -EADDRINUSE);
	for (unsigned i = 0; i < PLAYERS; i++) {
		assert_int_equal(world->players[i].completed, 0);
		assert_int_equal(world->players[i].stopped, 0);
		/* What was started is torn down; what was not is not. */
		assert_int_equal(world->players[i].torn_down != 0, i != 1);
	}
}

static void test_run_when_the_first_group_fails(void **state)
{
	(void)state;
	world->players[0].start_result = -EACCES;
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(runtime_run(&world->rt), -EACCES);
	assert_int_equal(world->players[0].completed + world->players[1].completed, 0);
}

static void test_stop_when_asked_before_the_start(void **state)
{
	(void)state;
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_false(runtime_stopping(&world->rt));
	runtime_stop(&world->rt);
	assert_true(runtime_stopping(&world->rt));
	assert_int_equal(runtime_run(&world->rt), 0);
	for (unsigned i = 0; i < PLAYERS; i++) {
		assert_int_not_equal(world->players[i].completed, 0);
		assert_int_not_equal(world->players[i].stopped, 0);
	}
}

static void *stop_from_outside(void *context)
{
	runtime_stop(context);
	return NULL;
}

static void test_stop_when_asked_by_another_thread(void **state)
{
	pthread_t thread;

	(void)state;
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(pthread_create(&thread, NULL, stop_from_outside, &world->rt), 0);
	assert_int_equal(runtime_run(&world->rt), 0);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_not_equal(world->players[2].torn_down, 0);
}

/* Between threads, too, a later phase waits for an earlier one. */
static void test_stop_when_phases_are_in_different_threads(void **state)
{
	(void)state;
	world->players[0].base.stop_phase = 7;
	world->players[1].base.stop_phase = 3;
	world->players[2].base.stop_phase = 0;
	world->players[0].stop_at_once = true;
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(runtime_run(&world->rt), 0);
	assert_true(world->players[2].stopped < world->players[1].stopped);
	assert_true(world->players[1].stopped < world->players[0].stopped);
	assert_true(world->players[0].stopped < world->players[2].torn_down);
}

static void test_stop_when_it_takes_too_long(void **state)
{
	(void)state;
	use_fake_clock();
	world->players[1].busy_until_hurry = true;
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(runtime_invoke_start(&world->rt), 0);
	runtime_step(&world->rt);
	assert_false(runtime_invoke_stop(&world->rt, 100));
	world->now_ns += world->rt.stop_timeout_ns;
	assert_false(runtime_invoke_stop(&world->rt, 100));
	world->now_ns += 1;
	assert_true(runtime_invoke_stop(&world->rt, 100));
	assert_int_not_equal(world->players[1].torn_down, 0);
}

/* Nobody has to wait for a time-out of the longest park to see the next phase. */
static void test_stop_when_nothing_is_under_way(void **state)
{
	unsigned steps = 0;

	(void)state;
	use_fake_clock();
	for (unsigned i = 0; i < PLAYERS; i++) {
		world->players[i].base.stop_phase = (uint8_t)(2 * i);
	}
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(runtime_invoke_start(&world->rt), 0);
	runtime_step(&world->rt);
	runtime_stop(&world->rt);
	/* Each step moves on: no group ever finds nothing new and parks. */
	while (atomic_load(&world->rt.state) != RUNTIME_FINISHED) {
		int phase = atomic_load(&world->rt.stop_phase);

		runtime_step(&world->rt);
		assert_true(phase != atomic_load(&world->rt.stop_phase) ||
			    atomic_load(&world->rt.state) == RUNTIME_FINISHED);
		assert_true(++steps < 100);
	}
	assert_true(runtime_invoke_stop(&world->rt, 1));
}

/* Stop comes while parcels are handed around: none is dropped. Many times, because it is a race. */
static void test_stop_when_parcels_are_on_their_way(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 100; round++) {
		uint64_t done = 0;

		if (round > 0) {
			teardown(NULL);
			setup(NULL);
		}
		world->rt.backend = round % 2 == 0 ? MUX_EPOLL : MUX_POLL;
		for (unsigned i = 0; i < PLAYERS; i++) {
			world->players[i].bursts = 4;
		}
		assert_int_equal(runtime_prepare(&world->rt), 0);
		assert_int_equal(runtime_run(&world->rt), 0);
		for (unsigned i = 0; i < PLAYERS; i++) {
			done += world->players[i].balls_done;
			assert_int_equal(world->players[i].wrong, 0);
		}
		assert_int_equal(done, PLAYERS * 4 * BURST);
	}
}

static void test_send_when_objects_change_threads(void **state)
{
	uint64_t got = 0;

	(void)state;
	world->rt.backend = MUX_AUTO;
	for (unsigned i = 0; i < PLAYERS; i++) {
		world->players[i].bursts = 400;
	}
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(runtime_run(&world->rt), 0);
	for (unsigned i = 0; i < PLAYERS; i++) {
		got += world->players[i].got;
		assert_int_equal(world->players[i].wrong, 0);
	}
	assert_int_equal(got, PLAYERS * 400 * BURST * HOPS);
	assert_int_equal(counter_total("park_timeout_with_work"), 0);
}

/* Failing to pin is a warning. */
static void test_run_when_a_core_is_not_usable(void **state)
{
	(void)state;
	world->rt.groups[1]->core = CPU_SETSIZE - 1;
	world->players[0].stop_at_once = true;
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(runtime_run(&world->rt), 0);
	assert_false(world->rt.groups[1]->pinned);
	assert_true(atomic_load(&world->warnings) >= 1);
	assert_non_null(strstr(world->warning, "group.b cannot be pinned to core 1023"));
}

/* Which ones there are is needed only to unpin. */
static void test_run_when_there_are_too_many_cores(void **state)
{
	int rc;

	(void)state;
	too_many_cores = true;
	rc = runtime_prepare(&world->rt);
	too_many_cores = false;
	assert_int_equal(rc, 0);
	world->players[0].stop_at_once = true;
	assert_int_equal(runtime_run(&world->rt), 0);
	assert_int_equal(atomic_load(&world->warnings), 0);
}

/* On one thread all groups run in the order made, with the clock of the caller. */
static void test_step_when_invoked(void **state)
{
	(void)state;
	use_fake_clock();
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(runtime_invoke_start(&world->rt), 0);
	assert_int_equal(world->players[0].started, 1);
	assert_int_equal(world->players[2].started, 3);
	runtime_step(&world->rt);
	assert_int_equal(world->players[0].completed, 4);
	assert_int_equal(world->players[2].completed, 6);
	assert_int_equal(agent_now_ms(&world->players[1].base), 1000);
	world->now_ns += 5 * NS_PER_MS;
	world->players[0].bursts = 1;
	assert_true(runtime_step(&world->rt) > 0);
	assert_int_equal(agent_now_ms(&world->players[1].base), 1005);
	assert_true(runtime_stopping(&world->rt));
	assert_true(runtime_invoke_stop(&world->rt, 100));
	assert_int_equal(world->players[0].balls_done, BURST);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_prepare_when_an_init_fails),
		TEST(test_run_when_all_start),
		TEST(test_run_when_a_start_fails),
		TEST(test_run_when_the_first_group_fails),
		TEST(test_stop_when_asked_before_the_start),
		TEST(test_stop_when_asked_by_another_thread),
		TEST(test_stop_when_phases_are_in_different_threads),
		TEST(test_stop_when_it_takes_too_long),
		TEST(test_stop_when_nothing_is_under_way),
		TEST(test_stop_when_parcels_are_on_their_way),
		TEST(test_send_when_objects_change_threads),
		TEST(test_run_when_a_core_is_not_usable),
		TEST(test_run_when_there_are_too_many_cores),
		TEST(test_step_when_invoked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
