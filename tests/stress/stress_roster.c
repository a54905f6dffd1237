/*
 * Agents that join a program while it runs and leave it again, 1 -> 4 -> 2 -> 1 and in any other
 * order, while parcels go to and fro over rings and timers run: each parcel comes back once, all
 * that was counted is still there, cores and idle strategies change, and the end comes at any
 * moment. Groups, shared or not, back ends and ring sizes are drawn.
 */
#include <errno.h>

#include "agents/wheel.h"
#include "core/runtime/runtime.h"
#include "tests/stress/stress.h"

#define ROAMERS 3
#define CHANGES 24
#define BURST 20
#define HOPS 5
/* Of all but the wheel. */
#define PHASE 1

struct traveller {
	struct agent base;
	struct group *group;
	bool present;
	/* Parcels of its own that are not back. */
	uint64_t away;
	uint64_t sent;
	struct timer timer;
	uint64_t ticks;
};

struct parcel {
	struct traveller *owner;
	uint64_t number;
	uint64_t sum;
	uint32_t hops;
};

/* The first one conducts, the second stays, the others roam. */
static struct traveller travellers[2 + ROAMERS];
static struct runtime rt;
static uint64_t seed;
static unsigned changes;
static bool changing;
static uint64_t changing_since_ns;
static struct traveller *changed;

static struct traveller *traveller_of(struct agent *self)
{
	return CONTAINER_OF(self, struct traveller, base);
}

static void on_home(struct agent *self, void *object, uint64_t number)
{
	struct traveller *t = traveller_of(self);
	struct parcel *p = object;

	stress_expect("parcel", p->number, number);
	stress_expect("its sum", p->sum, number + p->hops);
	stress_expect("its hops", p->hops, HOPS);
	t->away--;
	free(p);
	stress_progress();
}

static void on_hop(struct agent *self, void *object, uint64_t number)
{
	struct parcel *p = object;
	/* Only to who may get something new; the owner waits for what is its own. */
	struct agent *next = rt.agents[(number + p->hops) % rt.agent_count];

	p->hops++;
	p->sum++;
	if (p->hops == HOPS) {
		agent_send(self, &p->owner->base, on_home, p, number);
	} else if (next->stop_phase == PHASE && agent_reaches(self, next)) {
		agent_send(self, next, on_hop, p, number);
	} else {
		agent_send(self, self, on_hop, p, number);
	}
}

static int play(struct agent *self)
{
	struct traveller *t = traveller_of(self);

	if (t->away >= BURST || atomic_load(&self->state) != AGENT_RUNNING) {
		return 0;
	}
	for (int i = 0; i < BURST; i++) {
		struct parcel *p = calloc(1, sizeof(*p));

		if (p == NULL) {
			stress_fail("out of memory", 0);
		}
		p->owner = t;
		p->number = p->sum = ++t->sent;
		t->away++;
		agent_send(self, self, on_hop, p, p->number);
	}
	return 1;
}

static void on_tick(struct timer *timer)
{
	struct traveller *t = CONTAINER_OF(timer, struct traveller, timer);

	t->ticks++;
	timer_arm(timer, agent_now_ms(&t->base) + 1);
}

static void on_started(struct agent *self)
{
	struct traveller *t = traveller_of(self);

	timer_init(&t->timer, self, on_tick);
	timer_arm(&t->timer, agent_now_ms(self) + 1);
}

static void on_stop(struct agent *self)
{
	timer_cancel(&traveller_of(self)->timer);
}

static bool on_drained(struct agent *self)
{
	return traveller_of(self)->away == 0;
}

/* ---- who comes and goes ---- */

static void on_changed(void *context, int result)
{
	(void)context;
	if (result != 0 && result != -ECANCELED) {
		stress_fail("a change failed", (uint64_t)-result);
	}
	if (changed != NULL && result == 0) {
		changed->present = !changed->present;
	}
	changing = false;
	if (++changes == CHANGES) {
		runtime_stop(&rt);
	}
}

static const struct idle *any_idle(void)
{
	static const struct idle kinds[] = {
		{.kind = IDLE_PARK},
		{.kind = IDLE_PARK, .spin_ns = 1000},
		{.kind = IDLE_BACKOFF,
		 .max_spins = 10,
		 .max_yields = 5,
		 .min_park_ns = 1000,
		 .max_park_ns = 1000000},
		{.kind = IDLE_YIELD},
	};

	return &kinds[stress_random(&seed) % 4];
}

static int conduct(struct agent *self)
{
	int work = play(self);
	int rc;

	/* Parcels go to and fro all the same. */
	if (changing &&
	    stress_now_ns() - changing_since_ns > STRESS_PATIENCE_S * UINT64_C(1000000000)) {
		stress_fail("a change does not come to its end", changes);
	}
	if (changing || changes >= CHANGES) {
		return work;
	}
	changed = &travellers[2 + stress_random(&seed) % ROAMERS];
	if (stress_random(&seed) % 4 == 0) {
		changed = NULL;
		rc = roster_tune(&rt, self->group, (int)(stress_random(&seed) % 3) - 1, any_idle(),
				 on_changed, NULL);
	} else if (changed->present) {
		rc = roster_leave(&rt, &changed->base, on_changed, NULL);
	} else {
		rc = roster_enlist(&rt, &changed->base);
		rc = rc == 0 ? roster_join(&rt, changed->group, &changed->base, on_changed, NULL)
			     : rc;
	}
	if (rc != 0 && rc != -ESHUTDOWN) {
		stress_fail("a change was refused", (uint64_t)-rc);
	}
	changing = rc == 0;
	changing_since_ns = stress_now_ns();
	return work + 1;
}

static const struct agent_ops conductor_ops = {.kind = "conductor",
					       .start_complete = on_started,
					       .do_work = conduct,
					       .stop = on_stop,
					       .drained = on_drained};
static const struct agent_ops ops = {.kind = "traveller",
				     .start_complete = on_started,
				     .do_work = play,
				     .stop = on_stop,
				     .drained = on_drained};

static struct wheel_agent *set_up(void)
{
	static const enum mux_backend backends[] = {MUX_EPOLL, MUX_POLL};
	static const char *const names[] = {"first", "second", "a", "b", "c"};
	struct wheel_agent *wheel = wheel_agent_create("wheel");
	struct group *g = NULL;

	runtime_init(&rt, &clock_system);
	rt.warn_context = NULL;
	rt.backend = backends[stress_random(&seed) % 2];
	rt.mux_entries = 64;
	rt.ring_slots = 4U << stress_random(&seed) % 8;
	changes = 0;
	changing = false;
	for (unsigned i = 0; i < 2 + ROAMERS; i++) {
		struct traveller *t = &travellers[i];

		/* Those that are there at the start leave threads that were made for all. */
		*t = (struct traveller){.present = i < 2 || stress_random(&seed) % 3 == 0};
		agent_init(&t->base, i == 0 ? &conductor_ops : &ops, names[i], PHASE);
		if (i < 3 || stress_random(&seed) % 4 != 0) {
			g = runtime_group(&rt, names[i], -1, any_idle());
		}
		t->group = g;
		if (t->present) {
			runtime_add(&rt, g, &t->base);
		}
	}
	runtime_add(&rt, travellers[1].group, wheel_agent_base(wheel));
	runtime_set_wheel(&rt, wheel_agent_base(wheel), wheel_agent_on_arm);
	return wheel;
}

static void run_once(void)
{
	struct wheel_agent *wheel = set_up();

	if (runtime_prepare(&rt) != 0 || runtime_run(&rt) != 0) {
		stress_fail("the runtime does not start", 0);
	}
	stress_expect("lost wake-ups", counter_total("park_timeout_with_work"), 0);
	runtime_close(&rt);
	for (unsigned i = 0; i < 2 + ROAMERS; i++) {
		stress_expect("parcels that are not back", travellers[i].away, 0);
		agent_close(&travellers[i].base);
	}
	wheel_agent_destroy(wheel);
}

int main(int argc, char **argv)
{
	seed = 4711;
	stress_begin("roster", argc, argv);
	do {
		run_once();
	} while (stress_now_ns() < stress.end_ns);
	return stress_end("parcels, by agents that come and go");
}
