/*
 * The owner's side of timers, against a wheel that only writes down what it is told; the test says
 * when something expires. All on one thread with a fake clock.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/runtime/runtime.h"

#define REQUESTS_MAX 1024

struct request {
	uint64_t due_ms;
	uint64_t value;
};

struct world {
	struct agent owner;
	struct agent wheel;
	struct runtime rt;
	uint64_t now_ms;
	struct request requests[REQUESTS_MAX];
	unsigned request_count;
};

static struct world *world;

struct session {
	struct timer timer;
	unsigned fired;
	uint64_t rearm_ms;
	bool free_self;
};

static uint64_t fake_ns(void *context)
{
	return ((struct world *)context)->now_ms * NS_PER_MS;
}

static int do_nothing(struct agent *self)
{
	(void)self;
	return 0;
}

static void on_arm(struct agent *self, void *object, uint64_t value)
{
	assert_ptr_equal(self, &world->wheel);
	assert_ptr_equal(self->sender, &world->owner);
	assert_true(world->request_count < REQUESTS_MAX);
	world->requests[world->request_count++] =
		(struct request){.due_ms = (uintptr_t)object, .value = value};
}

static int setup(void **state)
{
	static const struct agent_ops ops = {.kind = "test", .do_work = do_nothing};
	const struct idle idle = {.kind = IDLE_NOOP};
	struct clock clock = {fake_ns, fake_ns, NULL};
	struct group *g;

	world = aligned_alloc(CACHE_LINE, sizeof(*world));
	assert_non_null(world);
	memset(world, 0, sizeof(*world));
	world->now_ms = 1000;
	clock.context = world;
	runtime_init(&world->rt, &clock);
	world->rt.backend = MUX_POLL;
	g = runtime_group(&world->rt, "group", -1, &idle);
	agent_init(&world->owner, &ops, "owner", 0);
	agent_init(&world->wheel, &ops, "wheel", 6);
	runtime_add(&world->rt, g, &world->owner);
	runtime_add(&world->rt, g, &world->wheel);
	runtime_set_wheel(&world->rt, &world->wheel, on_arm);
	assert_int_equal(runtime_prepare(&world->rt), 0);
	assert_int_equal(runtime_invoke_start(&world->rt), 0);
	*state = world;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	assert_true(runtime_invoke_stop(&world->rt, 100));
	runtime_close(&world->rt);
	agent_close(&world->owner);
	agent_close(&world->wheel);
	free(world);
	world = NULL;
	return 0;
}

/* Steps, and hands over the requests that the wheel got: the last one (zeros without any), and
 * their number. */
static unsigned step(struct request *last)
{
	unsigned count;

	runtime_step(&world->rt);
	runtime_step(&world->rt);
	count = world->request_count;
	*last = world->requests[count > 0 ? count - 1 : 0];
	world->request_count = 0;
	memset(world->requests, 0, sizeof(world->requests));
	return count;
}

/* The wheel says that what `r` asked for has expired. */
static void send_expiry(const struct request *r)
{
	agent_send(&world->wheel, &world->owner, timer_on_expired, (void *)(uintptr_t)r->due_ms,
		   r->value);
}

static void expire(const struct request *r)
{
	struct request unused;

	send_expiry(r);
	step(&unused);
}

static void on_session(struct timer *t)
{
	struct session *s = CONTAINER_OF(t, struct session, timer);

	assert_ptr_equal(agent_current, &world->owner);
	assert_false(timer_armed(t));
	s->fired++;
	if (s->rearm_ms != 0) {
		timer_arm(t, s->rearm_ms);
	}
	if (s->free_self) {
		free(s);
	}
}

static struct session *session_make(void)
{
	struct session *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	timer_init(&s->timer, &world->owner, on_session);
	assert_false(timer_armed(&s->timer));
	return s;
}

static void test_arm_when_not_armed(void **state)
{
	struct session *s = session_make();
	struct request r;

	(void)state;
	timer_arm(&s->timer, 1500);
	assert_true(timer_armed(&s->timer));
	assert_int_equal(step(&r), 1);
	assert_int_equal(r.due_ms, 1500);
	assert_int_equal(world->owner.timers.armed, 1);
	world->now_ms = 1500;
	expire(&r);
	assert_int_equal(s->fired, 1);
	assert_false(timer_armed(&s->timer));
	assert_int_equal(world->owner.timers.armed, 0);
	/* The same word again is stale. */
	expire(&r);
	assert_int_equal(s->fired, 1);
	free(s);
}

/* Moving a deadline later costs nothing until the old one fires. */
static void test_arm_when_moved_later(void **state)
{
	struct session *s = session_make();
	struct request armed;
	struct request r;

	(void)state;
	timer_arm(&s->timer, 1500);
	assert_int_equal(step(&armed), 1);
	for (uint64_t due = 1501; due < 2000; due++) {
		timer_arm(&s->timer, due);
	}
	assert_int_equal(step(&r), 0);
	world->now_ms = 1500;
	send_expiry(&armed);
	assert_int_equal(step(&r), 1);
	assert_int_equal(s->fired, 0);
	assert_int_equal(r.due_ms, 1999);
	world->now_ms = 1999;
	expire(&r);
	assert_int_equal(s->fired, 1);
	free(s);
}

static void test_expired_when_moved_later_but_due_by_now(void **state)
{
	struct session *s = session_make();
	struct request r;

	(void)state;
	timer_arm(&s->timer, 1500);
	assert_int_equal(step(&r), 1);
	timer_arm(&s->timer, 1600);
	world->now_ms = 1700;
	expire(&r);
	assert_int_equal(s->fired, 1);
	free(s);
}

static void test_arm_when_moved_earlier(void **state)
{
	struct session *s = session_make();
	struct request first;
	struct request r;

	(void)state;
	timer_arm(&s->timer, 1500);
	assert_int_equal(step(&first), 1);
	timer_arm(&s->timer, 1200);
	assert_int_equal(step(&r), 1);
	assert_int_equal(r.due_ms, 1200);
	assert_true(r.value == first.value);
	world->now_ms = 1200;
	expire(&r);
	assert_int_equal(s->fired, 1);
	free(s);
}

/* Later, and then earlier than that but not than what the wheel knows. */
static void test_arm_when_moved_to_and_fro(void **state)
{
	struct session *s = session_make();
	struct request r;

	(void)state;
	timer_arm(&s->timer, 1500);
	timer_arm(&s->timer, 1900);
	timer_arm(&s->timer, 1600);
	assert_int_equal(step(&r), 1);
	world->now_ms = 1500;
	send_expiry(&r);
	assert_int_equal(step(&r), 1);
	assert_int_equal(r.due_ms, 1600);
	timer_cancel(&s->timer);
	step(&r);
	free(s);
}

static void test_cancel_when_expiry_is_on_its_way(void **state)
{
	struct session *s = session_make();
	struct request armed;
	struct request r;

	(void)state;
	timer_arm(&s->timer, 1500);
	assert_int_equal(step(&armed), 1);
	world->now_ms = 1500;
	send_expiry(&armed);
	timer_cancel(&s->timer);
	assert_false(timer_armed(&s->timer));
	/* The memory may go at once. */
	free(s);
	assert_int_equal(step(&r), 1);
	assert_int_equal(r.due_ms, 0);
	assert_true(r.value == armed.value);
}

static void test_cancel_when_not_armed(void **state)
{
	struct session *s = session_make();
	struct request r;

	(void)state;
	timer_cancel(&s->timer);
	timer_arm(&s->timer, 1500);
	timer_cancel(&s->timer);
	timer_cancel(&s->timer);
	assert_int_equal(step(&r), 2);
	assert_int_equal(world->owner.timers.armed, 0);
	free(s);
}

/* A late expiry for the slot's last user does not hit its next one. */
static void test_expired_when_slot_has_another_user(void **state)
{
	struct session *a = session_make();
	struct session *b = session_make();
	struct request old;
	struct request new;

	(void)state;
	timer_arm(&a->timer, 1500);
	assert_int_equal(step(&old), 1);
	timer_cancel(&a->timer);
	timer_arm(&b->timer, 1800);
	assert_int_equal(step(&new), 2);
	assert_int_equal(TIMER_VALUE_SLOT(old.value), TIMER_VALUE_SLOT(new.value));
	assert_int_not_equal(TIMER_VALUE_GENERATION(old.value), TIMER_VALUE_GENERATION(new.value));
	world->now_ms = 1500;
	expire(&old);
	assert_int_equal(a->fired + b->fired, 0);
	assert_true(timer_armed(&b->timer));
	world->now_ms = 1800;
	expire(&new);
	assert_int_equal(b->fired, 1);
	free(a);
	free(b);
}

/* The owner's clock was read before the wheel's. */
static void test_expired_when_owner_clock_is_behind(void **state)
{
	struct session *s = session_make();
	struct request r;

	(void)state;
	timer_arm(&s->timer, 1500);
	assert_int_equal(step(&r), 1);
	world->now_ms = 1499;
	expire(&r);
	assert_int_equal(s->fired, 1);
	free(s);
}

static void test_callback_when_it_arms_again_or_frees(void **state)
{
	struct session *s = session_make();
	struct session *gone = session_make();
	struct request r;

	(void)state;
	s->rearm_ms = 2500;
	timer_arm(&s->timer, 1500);
	assert_int_equal(step(&r), 1);
	world->now_ms = 1500;
	send_expiry(&r);
	assert_int_equal(step(&r), 1);
	assert_int_equal(s->fired, 1);
	assert_int_equal(r.due_ms, 2500);
	assert_true(timer_armed(&s->timer));
	timer_cancel(&s->timer);
	gone->free_self = true;
	timer_arm(&gone->timer, 1500);
	assert_int_equal(step(&r), 2);
	expire(&r);
	assert_int_equal(world->owner.timers.armed, 0);
	free(s);
}

#define MANY 500

static void test_arm_when_there_are_many(void **state)
{
	struct session *s[MANY];
	struct request r;

	(void)state;
	for (unsigned i = 0; i < MANY; i++) {
		s[i] = session_make();
		timer_arm(&s[i]->timer, 2000 + i);
	}
	runtime_step(&world->rt);
	runtime_step(&world->rt);
	runtime_step(&world->rt);
	assert_int_equal(world->request_count, MANY);
	assert_int_equal(world->owner.timers.armed, MANY);
	world->now_ms = 5000;
	for (unsigned i = 0; i < MANY; i += 2) {
		assert_int_equal(world->requests[i].due_ms, 2000 + i);
		send_expiry(&world->requests[i]);
	}
	step(&r);
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(s[i]->fired, i % 2 == 0);
		assert_int_equal(timer_armed(&s[i]->timer), i % 2 != 0);
		timer_cancel(&s[i]->timer);
		free(s[i]);
	}
	assert_int_equal(world->owner.timers.armed, 0);
	step(&r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_arm_when_not_armed),
		TEST(test_arm_when_moved_later),
		TEST(test_expired_when_moved_later_but_due_by_now),
		TEST(test_arm_when_moved_earlier),
		TEST(test_arm_when_moved_to_and_fro),
		TEST(test_cancel_when_expiry_is_on_its_way),
		TEST(test_cancel_when_not_armed),
		TEST(test_expired_when_slot_has_another_user),
		TEST(test_expired_when_owner_clock_is_behind),
		TEST(test_callback_when_it_arms_again_or_frees),
		TEST(test_arm_when_there_are_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
