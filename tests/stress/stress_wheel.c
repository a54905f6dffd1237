/*
 * Several owners, each in a thread of its own, arm, move and cancel timers at random through the
 * wheel agent in its thread, while earlier ones expire: each runs once, on its owner, not before it
 * is due and not after it was cancelled, and none is forgotten. The wheel is validated all along.
 */
#include "agents/wheel.h"
#include "core/runtime/runtime.h"
#include "tests/stress/stress.h"

#define OWNERS 3
#define TIMERS 20000
#define OPERATIONS 100

struct owner;

struct item {
	struct timer timer;
	/* What it was armed for; 0: it must not run. */
	uint64_t due_ms;
};

struct owner {
	struct agent base;
	struct item items[TIMERS];
	uint64_t seed;
	uint64_t armed;
	uint64_t fired;
	bool over;
};

static struct wheel_agent *wheel;
static _Atomic unsigned working = OWNERS;

static struct owner *owner_of(struct agent *self)
{
	return CONTAINER_OF(self, struct owner, base);
}

static void on_expire(struct timer *t)
{
	struct item *it = CONTAINER_OF(t, struct item, timer);
	struct owner *o = owner_of(t->owner);

	if (agent_current != t->owner) {
		stress_fail("a timer ran on another agent", t->owner->id);
	}
	/* By the clock itself: the owner's reading may be older than the wheel's. */
	if (it->due_ms == 0 || stress_now_ns() / NS_PER_MS < it->due_ms) {
		stress_fail(it->due_ms == 0 ? "ran though cancelled or run before" : "ran early",
			    it->due_ms);
	}
	it->due_ms = 0;
	o->armed--;
	o->fired++;
	stress_progress();
}

static void operate(struct owner *o)
{
	uint64_t r = stress_random(&o->seed);
	struct item *it = &o->items[r % TIMERS];

	if ((r >> 16) % 4 == 0) {
		o->armed -= it->due_ms != 0;
		it->due_ms = 0;
		timer_cancel(&it->timer);
		return;
	}
	o->armed += it->due_ms == 0;
	/* Most are due now or soon, some are beyond the wheel's first levels and get moved or
	 * cancelled. */
	it->due_ms = agent_now_ms(&o->base) + (r >> 24) % (UINT64_C(1) << (r >> 40) % 9);
	timer_arm(&it->timer, it->due_ms);
}

static void check_wheel(struct agent *self, void *object, uint64_t value)
{
	(void)self;
	(void)object;
	(void)value;
	if (!wheel_agent_valid(wheel)) {
		stress_fail("the wheel is not valid", 0);
	}
}

/* No new ones, and nobody waits for those that are due in seconds. */
static void wind_up(struct owner *o)
{
	o->over = true;
	for (unsigned i = 0; i < TIMERS; i++) {
		struct item *it = &o->items[i];

		if (it->due_ms > agent_now_ms(&o->base) + 100) {
			it->due_ms = 0;
			o->armed--;
			timer_cancel(&it->timer);
		}
	}
}

static int on_do_work(struct agent *self)
{
	struct owner *o = owner_of(self);

	if (o->over) {
		if (o->armed == 0 && o->seed != 0) {
			o->seed = 0;
			if (atomic_fetch_sub(&working, 1) == 1) {
				runtime_stop(self->runtime);
			}
		}
		return 0;
	}
	if (stress_now_ns() >= stress.end_ns) {
		wind_up(o);
		return 1;
	}
	for (unsigned i = 0; i < OPERATIONS; i++) {
		operate(o);
	}
	if (stress_random(&o->seed) % 16 == 0) {
		agent_send(self, wheel_agent_base(wheel), check_wheel, NULL, 0);
	}
	/* Often idle, so that it parks and is woken by an expiry. */
	return stress_random(&o->seed) % 4 != 0;
}

static void owner_open(struct owner *o, const char *name, uint64_t seed)
{
	static const struct agent_ops ops = {.kind = "owner", .do_work = on_do_work};

	agent_init(&o->base, &ops, name, 0);
	o->seed = seed;
	for (unsigned i = 0; i < TIMERS; i++) {
		timer_init(&o->items[i].timer, &o->base, on_expire);
	}
}

int main(int argc, char **argv)
{
	static const char *const names[OWNERS] = {"a", "b", "c"};
	const struct idle idle = {.kind = IDLE_PARK};
	static struct owner owners[OWNERS];
	struct runtime rt;

	stress_begin("wheel", argc, argv);
	runtime_init(&rt, &clock_system);
	rt.ring_slots = 64;
	wheel = wheel_agent_create("wheel");
	for (unsigned i = 0; i < OWNERS; i++) {
		owner_open(&owners[i], names[i], 77 + i);
		runtime_add(&rt, runtime_group(&rt, names[i], -1, &idle), &owners[i].base);
	}
	runtime_add(&rt, runtime_group(&rt, "wheel", -1, &idle), wheel_agent_base(wheel));
	runtime_set_wheel(&rt, wheel_agent_base(wheel), wheel_agent_on_arm);
	if (runtime_prepare(&rt) != 0 || runtime_run(&rt) != 0) {
		stress_fail("the runtime does not start", 0);
	}
	stress_expect("left in the wheel", counter_total("armed"), 0);
	stress_expect("lost wake-ups", counter_total("park_timeout_with_work"), 0);
	for (unsigned i = 0; i < OWNERS; i++) {
		stress_expect("left armed", owners[i].armed + owners[i].base.timers.armed, 0);
		if (owners[i].fired == 0) {
			stress_fail("no timer ran", i);
		}
		agent_close(&owners[i].base);
	}
	stress_expect("valid", wheel_agent_valid(wheel), 1);
	runtime_close(&rt);
	wheel_agent_destroy(wheel);
	return stress_end("timers run");
}
