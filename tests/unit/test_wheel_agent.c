/*
 * The wheel agent with its clients, on one thread with a fake clock.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agents/wheel.h"
#include "core/runtime/runtime.h"

#define OWNERS 3
#define TIMERS 400

struct item {
	struct timer timer;
	/* The model: 0 is not armed. */
	uint64_t due_ms;
	unsigned fired;
};

struct owner {
	struct agent base;
	struct item items[TIMERS];
};

struct world {
	struct owner owners[OWNERS];
	struct wheel_agent *wheel;
	struct runtime rt;
	uint64_t now_ms;
	uint64_t seed;
	unsigned fired;
};

static struct world *world;

static uint64_t fake_ns(void *context)
{
	return ((struct world *)context)->now_ms * NS_PER_MS;
}

static uint64_t random_next(void)
{
	world->seed ^= world->seed << 13;
	world->seed ^= world->seed >> 7;
	world->seed ^= world->seed << 17;
	return world->seed;
}

static int do_nothing(struct agent *self)
{
	(void)self;
	return 0;
}

static void on_expire(struct timer *t)
{
	struct item *it = CONTAINER_OF(t, struct item, timer);

	assert_ptr_equal(agent_current, t->owner);
	assert_int_not_equal(it->due_ms, 0);
	assert_true(it->due_ms <= world->now_ms);
	it->due_ms = 0;
	it->fired++;
	world->fired++;
}

static int setup(void **state)
{
	static const struct agent_ops ops = {.kind = "owner", .do_work = do_nothing};
	static const char *const names[OWNERS] = {"a", "b", "c"};
	const struct idle idle = {.kind = IDLE_NOOP};
	struct clock clock = {fake_ns, fake_ns, NULL};
	struct group *g;

	(void)state;
	world = aligned_alloc(CACHE_LINE, sizeof(*world));
	assert_non_null(world);
	memset(world, 0, sizeof(*world));
	world->now_ms = 123456789;
	world->seed = 42;
	clock.context = world;
	runtime_init(&world->rt, &clock);
	world->rt.backend = MUX_POLL;
	g = runtime_group(&world->rt, "group", -1, &idle);
	world->wheel = wheel_agent_create("wheel");
	for (unsigned i = 0; i < OWNERS; i++) {
		agent_init(&world->owners[i].base, &ops, names[i], 0);
		runtime_add(&world->rt, g, &world->owners[i].base);
		for (unsigned j = 0; j < TIMERS; j++) {
			timer_init(&world->owners[i].items[j].timer, &world->owners[i].base,
				   on_expire);
		}
	}
	runtime_add(&world->rt, g, wheel_agent_base(world->wheel));
	runtime_set_wheel(&world->rt, wheel_agent_base(world->wheel), wheel_agent_on_arm);
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(runtime_invoke_start(&world->rt), 0);
	runtime_step(&world->rt);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_true(runtime_invoke_stop(&world->rt, 1000));
	runtime_close(&world->rt);
	for (unsigned i = 0; i < OWNERS; i++) {
		agent_close(&world->owners[i].base);
	}
	wheel_agent_destroy(world->wheel);
	free(world);
	return 0;
}

static void arm(struct item *it, uint64_t due_ms)
{
	it->due_ms = due_ms;
	timer_arm(&it->timer, due_ms);
}

/* Until nothing moves at this time. */
static void settle(void)
{
	for (unsigned idle = 0; idle < 2;) {
		idle = runtime_step(&world->rt) == 0 ? idle + 1 : 0;
	}
}

static uint64_t sleep_max_ms(void)
{
	struct agent *wheel = wheel_agent_base(world->wheel);
	uint64_t ns = wheel->ops->sleep_max_ns(wheel);

	return ns == UINT64_MAX ? UINT64_MAX : (ns + NS_PER_MS - 1) / NS_PER_MS;
}

static void test_expire_when_due(void **state)
{
	struct item *it = &world->owners[0].items[0];
	uint64_t due_ms = world->now_ms + 100;

	(void)state;
	arm(it, due_ms);
	settle();
	assert_int_equal(counter_total("armed"), 1);
	world->now_ms = due_ms - 1;
	settle();
	assert_int_equal(it->fired, 0);
	world->now_ms = due_ms;
	settle();
	assert_int_equal(it->fired, 1);
	assert_int_equal(counter_total("armed"), 0);
	assert_int_equal(counter_total("expired"), 1);
	assert_int_equal(counter_total("late_max_ms"), 0);
}

static void test_expire_when_armed_in_the_past(void **state)
{
	struct item *it = &world->owners[1].items[0];

	(void)state;
	arm(it, 1);
	settle();
	assert_int_equal(it->fired, 1);
}

/* The same slot number with three owners is three deadlines. */
static void test_expire_when_owners_use_the_same_slot(void **state)
{
	uint64_t now_ms = world->now_ms;

	(void)state;
	for (unsigned i = 0; i < OWNERS; i++) {
		arm(&world->owners[i].items[0], now_ms + 10 * (i + 1));
	}
	settle();
	for (unsigned i = 0; i < OWNERS; i++) {
		assert_int_equal(world->owners[i].items[0].timer.slot, 0);
	}
	timer_cancel(&world->owners[1].items[0].timer);
	world->owners[1].items[0].due_ms = 0;
	settle();
	world->now_ms = now_ms + 10;
	settle();
	assert_int_equal(world->owners[0].items[0].fired, 1);
	assert_int_equal(world->fired, 1);
	world->now_ms = now_ms + 30;
	settle();
	assert_int_equal(world->owners[2].items[0].fired, 1);
	assert_int_equal(world->fired, 2);
	assert_int_equal(counter_total("cancels"), 1);
	assert_int_equal(counter_total("arms"), 3);
}

/* An expiry is under way when its timer is moved to an earlier time, which expires too, and then to
 * a later one: neither of the two may be taken for that. */
static void test_expire_when_moved_to_and_fro(void **state)
{
	struct agent *owner = &world->owners[0].base;
	struct item *it = &world->owners[0].items[0];
	uint64_t due_ms = world->now_ms + 100;

	(void)state;
	arm(it, due_ms);
	settle();
	world->now_ms = due_ms;
	runtime_step(&world->rt);
	arm(it, due_ms - 1);
	arm(it, due_ms + 5000);
	agent_flush(owner);
	agent_duty(wheel_agent_base(world->wheel), clock_read(&world->rt.clock));
	assert_int_equal(counter_total("expired"), 2);
	settle();
	assert_int_equal(it->fired, 0);
	world->now_ms = due_ms + 4999;
	settle();
	assert_int_equal(it->fired, 0);
	world->now_ms = due_ms + 5000;
	settle();
	assert_int_equal(it->fired, 1);
}

/* The group may sleep just until the next deadline. */
static void test_sleep_max_when_deadlines_wait(void **state)
{
	struct item *it = &world->owners[0].items[0];
	uint64_t due_ms = (world->now_ms | 31) - 3;

	(void)state;
	settle();
	assert_true(sleep_max_ms() == UINT64_MAX);
	arm(it, due_ms);
	settle();
	assert_int_equal(sleep_max_ms(), due_ms - world->now_ms);
	world->now_ms = due_ms - 1;
	settle();
	assert_int_equal(sleep_max_ms(), 1);
	world->now_ms = due_ms;
	settle();
	assert_int_equal(it->fired, 1);
	assert_true(sleep_max_ms() == UINT64_MAX);
	arm(it, world->now_ms + 10 * 24 * 3600 * UINT64_C(1000));
	settle();
	assert_in_range(sleep_max_ms(), 1, 10 * 24 * 3600 * UINT64_C(1000));
	timer_cancel(&it->timer);
}

/* A park to the next deadline again and again meets the far deadline, in a few steps. */
static void test_sleep_max_when_followed(void **state)
{
	struct item *it = &world->owners[0].items[0];
	uint64_t due_ms = world->now_ms + 5 * 24 * 3600 * UINT64_C(1000) + 123;
	unsigned sleeps = 0;

	(void)state;
	arm(it, due_ms);
	settle();
	while (it->fired == 0) {
		world->now_ms += sleep_max_ms();
		settle();
		assert_true(++sleeps <= WHEEL_LEVELS + 1);
	}
	assert_int_equal(world->now_ms, due_ms);
}

/* More than the wheel expires in one cycle: all come, and lateness is told. */
static void test_expire_when_many_at_once(void **state)
{
	uint64_t due_ms = world->now_ms + 50;

	(void)state;
	for (unsigned i = 0; i < OWNERS; i++) {
		for (unsigned j = 0; j < TIMERS; j++) {
			arm(&world->owners[i].items[j], due_ms);
		}
	}
	settle();
	assert_int_equal(counter_total("armed"), OWNERS * TIMERS);
	world->now_ms = due_ms + 7;
	runtime_step(&world->rt);
	assert_int_equal(counter_total("expired"), 1024);
	settle();
	assert_int_equal(world->fired, OWNERS * TIMERS);
	assert_int_equal(counter_total("late_max_ms"), 7);
	assert_int_equal(counter_total("armed"), 0);
}

static void check_all_due_fired(void)
{
	for (unsigned i = 0; i < OWNERS; i++) {
		for (unsigned j = 0; j < TIMERS; j++) {
			struct item *it = &world->owners[i].items[j];

			assert_int_equal(timer_armed(&it->timer), it->due_ms != 0);
			assert_true(it->due_ms == 0 || it->due_ms > world->now_ms);
		}
	}
}

static void operate(void)
{
	struct item *it = &world->owners[random_next() % OWNERS].items[random_next() % TIMERS];

	switch (random_next() % 4) {
	case 0:
		timer_cancel(&it->timer);
		it->due_ms = 0;
		break;
	case 1:
		/* Time goes on, and expiries are under way while requests are made. */
		world->now_ms += random_next() % 20;
		runtime_step(&world->rt);
		break;
	default:
		arm(it, world->now_ms + random_next() % (UINT64_C(1) << (random_next() % 16)));
		break;
	}
}

/* Against the model: each fires once for each time armed, not early, and none is forgotten. */
static void test_operations_when_random(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 300; round++) {
		for (unsigned n = 0; n < 100; n++) {
			operate();
		}
		settle();
		check_all_due_fired();
	}
	world->now_ms += 1 << 17;
	settle();
	check_all_due_fired();
	assert_true(world->fired > 1000);
	assert_int_equal(counter_total("armed"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_expire_when_due),
		TEST(test_expire_when_armed_in_the_past),
		TEST(test_expire_when_owners_use_the_same_slot),
		TEST(test_expire_when_moved_to_and_fro),
		TEST(test_sleep_max_when_deadlines_wait),
		TEST(test_sleep_max_when_followed),
		TEST(test_expire_when_many_at_once),
		TEST(test_operations_when_random),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
