/*
 * Agents on one thread, stepped by hand, with a fake clock: life cycle, hand-over, overflow, stop.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/runtime/runtime.h"

#define PLAYERS 3

struct player {
	struct agent base;
	/* Values of the tasks that ran, in order. */
	uint64_t *got;
	unsigned got_count;
	unsigned got_max;
	/* Behaviour. */
	bool busy;
	unsigned start_sends;
	int start_result;
	unsigned works;
	unsigned stops;
};

struct world {
	struct player players[PLAYERS];
	struct runtime rt;
	uint64_t now_ns;
	/* What was called on whom, as "init a;init b;". */
	char story[4096];
};

static struct world *world;

static uint64_t fake_ns(void *context)
{
	return ((struct world *)context)->now_ns;
}

static void tell(struct agent *a, const char *what)
{
	size_t used = strlen(world->story);

	snprintf(world->story + used, sizeof(world->story) - used, "%s %s;", what, a->name);
}

static struct player *player_of(struct agent *a)
{
	CHECK_MAGIC(a, AGENT_MAGIC);
	return CONTAINER_OF(a, struct player, base);
}

static void on_task(struct agent *self, void *object, uint64_t value)
{
	struct player *p = player_of(self);

	assert_ptr_equal(agent_current, self);
	assert_ptr_equal(self->sender, object);
	assert_true(p->got_count < p->got_max);
	p->got[p->got_count++] = value;
}

static void send_task(struct player *from, struct player *to, uint64_t value)
{
	agent_send(&from->base, &to->base, on_task, &from->base, value);
}

static int player_init(struct agent *self)
{
	tell(self, "init");
	return 0;
}

static int player_start(struct agent *self)
{
	struct player *p = player_of(self);

	tell(self, "start");
	assert_ptr_equal(agent_current, self);
	assert_non_null(self->mux);
	for (unsigned i = 0; i < p->start_sends; i++) {
		send_task(p, &world->players[(self->id + 1) % PLAYERS], i);
	}
	return p->start_result;
}

static void player_start_complete(struct agent *self)
{
	/* Nothing has run before. */
	assert_int_equal(player_of(self)->got_count, 0);
	assert_int_equal(player_of(self)->works, 0);
	tell(self, "complete");
}

static int player_do_work(struct agent *self)
{
	player_of(self)->works++;
	return 0;
}

static void player_stop(struct agent *self)
{
	player_of(self)->stops++;
	tell(self, "stop");
}

static bool player_drained(struct agent *self)
{
	return !player_of(self)->busy;
}

static void player_tear_down(struct agent *self)
{
	assert_null(self->sender);
	tell(self, "down");
}

static const struct agent_ops player_ops = {
	.kind = "player",
	.init = player_init,
	.start = player_start,
	.start_complete = player_start_complete,
	.do_work = player_do_work,
	.stop = player_stop,
	.drained = player_drained,
	.tear_down = player_tear_down,
};

static int setup(void **state)
{
	static const char *const names[PLAYERS] = {"a", "b", "c"};

	(void)state;
	world = aligned_alloc(CACHE_LINE, sizeof(*world));
	assert_non_null(world);
	memset(world, 0, sizeof(*world));
	world->now_ns = NS_PER_S;
	for (unsigned i = 0; i < PLAYERS; i++) {
		struct player *p = &world->players[i];

		agent_init(&p->base, &player_ops, names[i], (uint8_t)i);
		p->got_max = 20000;
		p->got = calloc(p->got_max, sizeof(*p->got));
		assert_non_null(p->got);
	}
	return 0;
}

static void start_with_rings(unsigned ring_slots)
{
	const struct idle idle = {.kind = IDLE_NOOP};
	const struct clock clock = {fake_ns, fake_ns, world};
	struct group *g;

	runtime_init(&world->rt, &clock);
	world->rt.backend = MUX_POLL;
	world->rt.ring_slots = ring_slots;
	g = runtime_group(&world->rt, "group", -1, &idle);
	for (unsigned i = 0; i < PLAYERS; i++) {
		runtime_add(&world->rt, g, &world->players[i].base);
	}
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(runtime_invoke_start(&world->rt), 0);
}

static int teardown(void **state)
{
	(void)state;
	if (atomic_load(&world->rt.state) < RUNTIME_FINISHED) {
		for (unsigned i = 0; i < PLAYERS; i++) {
			world->players[i].busy = false;
		}
		assert_true(runtime_invoke_stop(&world->rt, 100000));
	}
	runtime_close(&world->rt);
	for (unsigned i = 0; i < PLAYERS; i++) {
		agent_close(&world->players[i].base);
		free(world->players[i].got);
	}
	free(world);
	return 0;
}

static void test_life_when_started_and_stopped(void **state)
{
	(void)state;
	start_with_rings(64);
	runtime_step(&world->rt);
	assert_string_equal(world->story, "init a;init b;init c;start a;start b;start c;"
					  "complete a;complete b;complete c;");
	assert_int_equal(world->players[0].works, 1);
	world->story[0] = '\0';
	assert_true(runtime_invoke_stop(&world->rt, 1000));
	assert_string_equal(world->story, "stop a;stop b;stop c;down c;down b;down a;");
}

static void test_send_when_before_start_complete(void **state)
{
	struct player *b = &world->players[1];
	struct player *a = &world->players[0];

	(void)state;
	a->start_sends = 100;
	b->start_sends = 5;
	/* Less room than tasks, too. */
	start_with_rings(8);
	for (int i = 0; i < 40; i++) {
		runtime_step(&world->rt);
	}
	assert_int_equal(b->got_count, 100);
	for (unsigned i = 0; i < 100; i++) {
		assert_int_equal(b->got[i], i);
	}
	assert_int_equal(world->players[2].got_count, 5);
}

static void test_send_when_order_of_one_sender(void **state)
{
	struct player *p = world->players;

	(void)state;
	start_with_rings(64);
	runtime_step(&world->rt);
	for (unsigned i = 0; i < 20; i++) {
		send_task(&p[0], &p[2], i);
		send_task(&p[1], &p[2], 1000 + i);
	}
	/* Nothing is published before the sender's duty cycle ends. */
	assert_false(agent_has_input(&p[2].base));
	runtime_step(&world->rt);
	assert_int_equal(p[2].got_count, 40);
	for (unsigned i = 0, a = 0, b = 1000; i < 40; i++) {
		assert_int_equal(p[2].got[i], p[2].got[i] < 1000 ? a++ : b++);
	}
	assert_int_equal(counter_get(p[2].base.tasks_run), 40);
}

/* A bit for each sender, set when its cycle ends, taken when the receiver looks. */
static void test_flush_when_several_senders(void **state)
{
	struct player *p = world->players;

	(void)state;
	start_with_rings(64);
	runtime_step(&world->rt);
	send_task(&p[0], &p[2], 1);
	assert_int_equal(atomic_load(&p[2].base.in_bits), 0);
	agent_flush(&p[0].base);
	assert_int_equal(atomic_load(&p[2].base.in_bits), 1U << 0);
	send_task(&p[1], &p[2], 2);
	agent_flush(&p[1].base);
	assert_int_equal(atomic_load(&p[2].base.in_bits), 1U << 0 | 1U << 1);
	assert_true(agent_has_input(&p[2].base));
	assert_false(agent_has_input(&p[1].base));
	runtime_step(&world->rt);
	assert_int_equal(atomic_load(&p[2].base.in_bits), 0);
	assert_int_equal(p[2].got_count, 2);
	assert_false(agent_has_input(&p[2].base));
}

/* One ring gives at most AGENT_DRAIN_LIMIT tasks a cycle; the rest needs no new event. */
static void test_duty_when_ring_holds_more_than_the_limit(void **state)
{
	struct player *p = world->players;

	(void)state;
	start_with_rings(1024);
	runtime_step(&world->rt);
	for (unsigned i = 0; i < 2 * AGENT_DRAIN_LIMIT + 10; i++) {
		send_task(&p[0], &p[1], i);
	}
	runtime_step(&world->rt);
	assert_int_equal(p[1].got_count, AGENT_DRAIN_LIMIT);
	assert_true(agent_has_input(&p[1].base));
	runtime_step(&world->rt);
	assert_int_equal(p[1].got_count, 2 * AGENT_DRAIN_LIMIT);
	assert_true(agent_has_input(&p[1].base));
	runtime_step(&world->rt);
	assert_int_equal(p[1].got_count, 2 * AGENT_DRAIN_LIMIT + 10);
	assert_false(agent_has_input(&p[1].base));
	assert_int_equal(runtime_step(&world->rt), 0);
}

#define FLOOD 5000

static void test_send_when_rings_are_tiny(void **state)
{
	struct player *p = world->players;
	unsigned sent = 0;

	(void)state;
	/* Room for a single task. */
	start_with_rings(2);
	runtime_step(&world->rt);
	while (sent < FLOOD) {
		/* In waves, so that the overflow wraps around. */
		for (unsigned i = 0; i < 97 && sent < FLOOD; i++) {
			send_task(&p[0], &p[1], sent++);
		}
		for (unsigned i = 0; i < 50; i++) {
			runtime_step(&world->rt);
		}
	}
	for (unsigned i = 0; i < FLOOD + 10; i++) {
		runtime_step(&world->rt);
	}
	assert_int_equal(p[1].got_count, FLOOD);
	for (unsigned i = 0; i < FLOOD; i++) {
		assert_int_equal(p[1].got[i], i);
	}
	assert_int_equal(p[0].base.out[1]->overflow_count, 0);
	assert_int_equal(p[0].base.out_dirty, 0);
}

static void test_pressure_when_overflow_is_above_its_mark(void **state)
{
	struct player *p = world->players;

	(void)state;
	start_with_rings(2);
	runtime_step(&world->rt);
	for (unsigned i = 0; i <= LINK_HIGH_WATER; i++) {
		send_task(&p[0], &p[1], i);
	}
	runtime_step(&world->rt);
	assert_false(p[0].base.pressure);
	for (unsigned i = 0; i < 10; i++) {
		send_task(&p[0], &p[1], i);
	}
	runtime_step(&world->rt);
	assert_true(p[0].base.pressure);
	assert_false(p[1].base.pressure);
	/* It has not drained, though nothing comes in. */
	assert_false(agent_has_input(&p[0].base));
	assert_int_equal(p[0].base.out_dirty, UINT64_C(1) << p[1].base.id);
	assert_true(counter_get(p[0].base.overflow_max) > LINK_HIGH_WATER);
	for (unsigned i = 0; i < 20; i++) {
		runtime_step(&world->rt);
	}
	assert_false(p[0].base.pressure);
	assert_int_not_equal(p[0].base.out_dirty, 0);
}

/* Two full rings that face each other do not lock each other. */
static void on_echo(struct agent *self, void *object, uint64_t value)
{
	on_task(self, object, value);
	if (value > 0) {
		agent_send(self, self->sender, on_echo, self, value - 1);
	}
}

static void test_send_when_both_rings_are_full(void **state)
{
	struct player *p = world->players;

	(void)state;
	start_with_rings(2);
	runtime_step(&world->rt);
	for (unsigned i = 0; i < 500; i++) {
		agent_send(&p[0].base, &p[1].base, on_echo, &p[0].base, 5);
		agent_send(&p[1].base, &p[0].base, on_echo, &p[1].base, 5);
	}
	for (unsigned i = 0; i < 10000; i++) {
		runtime_step(&world->rt);
	}
	/* 500 balls from each side, each seen 6 times, alternately. */
	assert_int_equal(p[0].got_count + p[1].got_count, 6000);
	assert_int_equal(runtime_step(&world->rt), 0);
}

static void on_chain(struct agent *self, void *object, uint64_t value)
{
	on_task(self, object, value);
	if (value > 0) {
		agent_send(self, self, on_chain, self, value - 1);
	}
}

/* A task to oneself runs later, and an endless chain of them does not hold the thread. */
static void test_send_when_to_oneself(void **state)
{
	struct player *a = &world->players[0];

	(void)state;
	start_with_rings(64);
	runtime_step(&world->rt);
	agent_send(&a->base, &a->base, on_chain, a, 999);
	assert_int_equal(a->got_count, 0);
	for (unsigned i = 0; i < 2; i++) {
		runtime_step(&world->rt);
	}
	assert_in_range(a->got_count, 1, 2 * AGENT_DRAIN_LIMIT);
	for (unsigned i = 0; i < 1000; i++) {
		runtime_step(&world->rt);
	}
	assert_int_equal(a->got_count, 1000);
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(a->got[i], 999 - i);
	}
}

/* Agents of a later phase are not told before those of an earlier one have drained. */
static void test_stop_when_an_early_phase_is_busy(void **state)
{
	struct player *p = world->players;

	(void)state;
	start_with_rings(64);
	runtime_step(&world->rt);
	p[1].busy = true;
	assert_false(runtime_invoke_stop(&world->rt, 50));
	assert_int_equal(p[0].stops, 1);
	assert_int_equal(p[1].stops, 1);
	assert_int_equal(p[2].stops, 0);
	assert_int_equal(atomic_load(&p[0].base.state), AGENT_DRAINED);
	assert_int_equal(atomic_load(&p[1].base.state), AGENT_STOPPING);
	assert_int_equal(atomic_load(&p[2].base.state), AGENT_RUNNING);
	/* All go on working meanwhile. */
	send_task(&p[2], &p[0], 7);
	runtime_step(&world->rt);
	runtime_step(&world->rt);
	assert_int_equal(p[0].got_count, 1);
	p[1].busy = false;
	assert_true(runtime_invoke_stop(&world->rt, 50));
	assert_int_equal(p[2].stops, 1);
	assert_int_equal(p[0].stops + p[1].stops, 2);
}

static void on_pass(struct agent *self, void *object, uint64_t value)
{
	struct player *next = &world->players[(self->id + 1U) % PLAYERS];

	on_task(self, object, value);
	if (value > 0) {
		agent_send(self, &next->base, on_pass, self, value - 1);
	}
}

/* What is still handed around among agents that have nothing else to do is handed on to its end. */
static void test_stop_when_tasks_are_on_their_way(void **state)
{
	struct player *p = world->players;

	(void)state;
	for (unsigned i = 0; i < PLAYERS; i++) {
		p[i].base.stop_phase = 0;
	}
	start_with_rings(2);
	runtime_step(&world->rt);
	for (unsigned i = 0; i < 100; i++) {
		agent_send(&p[0].base, &p[1].base, on_pass, &p[0].base, 29);
	}
	assert_true(runtime_invoke_stop(&world->rt, 100000));
	assert_int_equal(p[0].got_count + p[1].got_count + p[2].got_count, 3000);
}

static void test_error_when_recorded_by_an_agent(void **state)
{
	struct agent *a = &world->players[0].base;

	(void)state;
	start_with_rings(64);
	runtime_step(&world->rt);
	agent_error(a, -EIO, "segment %d", 3);
	world->now_ns += NS_PER_S;
	runtime_step(&world->rt);
	agent_error(a, -EIO, "segment %d", 3);
	assert_int_equal(a->errors.count, 1);
	assert_int_equal(a->errors.entries[0].count, 2);
	assert_string_equal(a->errors.entries[0].text, "segment 3");
	assert_int_equal(a->errors.entries[0].first_ns, NS_PER_S);
	assert_int_equal(a->errors.entries[0].last_ns, 2 * NS_PER_S);
}

static void on_slow(struct agent *self, void *object, uint64_t ns)
{
	(void)self;
	((struct world *)object)->now_ns += ns;
}

static void test_duty_when_a_cycle_is_long(void **state)
{
	struct agent *a = &world->players[0].base;

	(void)state;
	start_with_rings(64);
	runtime_step(&world->rt);
	agent_send(a, a, on_slow, world, 100 * NS_PER_MS);
	runtime_step(&world->rt);
	runtime_step(&world->rt);
	assert_int_equal(counter_get(a->cycle_max_ns), 100 * NS_PER_MS);
	assert_int_equal(counter_get(a->stalls), 0);
	agent_send(a, a, on_slow, world, 100 * NS_PER_MS + 1);
	runtime_step(&world->rt);
	runtime_step(&world->rt);
	assert_int_equal(counter_get(a->cycle_max_ns), 100 * NS_PER_MS + 1);
	assert_int_equal(counter_get(a->stalls), 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_life_when_started_and_stopped),
		TEST(test_send_when_before_start_complete),
		TEST(test_send_when_order_of_one_sender),
		TEST(test_flush_when_several_senders),
		TEST(test_duty_when_ring_holds_more_than_the_limit),
		TEST(test_send_when_rings_are_tiny),
		TEST(test_pressure_when_overflow_is_above_its_mark),
		TEST(test_send_when_both_rings_are_full),
		TEST(test_send_when_to_oneself),
		TEST(test_stop_when_an_early_phase_is_busy),
		TEST(test_stop_when_tasks_are_on_their_way),
		TEST(test_error_when_recorded_by_an_agent),
		TEST(test_duty_when_a_cycle_is_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
