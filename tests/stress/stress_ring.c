/*
 * The ring between two threads: one way and back and forth, with sizes from the smallest on, so
 * that it is full or empty most of the time; and the link between two agents, whose overflow takes
 * what the ring cannot. Every element arrives once, whole and in order.
 */
#include <sched.h>

#include "core/runtime/runtime.h"
#include "tests/stress/stress.h"

#define BATCH 50000
#define BURST 5000

struct element {
	uint64_t number;
	uint64_t check;
	uint32_t small;
};

RING_DEFINE(element_ring, element);

struct pair {
	struct element_ring there;
	struct element_ring back;
};

static struct element make(uint64_t n)
{
	return (struct element){.number = n, .check = ~n, .small = (uint32_t)n};
}

static void put(struct element_ring *r, uint64_t n)
{
	struct element e = make(n);

	while (!element_ring_send(r, &e)) {
		sched_yield();
	}
}

static void take(struct element_ring *r, uint64_t n)
{
	struct element e;

	while (!element_ring_receive(r, &e)) {
		sched_yield();
	}
	stress_expect("element", e.number, n);
	stress_expect("its complement", e.check, ~n);
	stress_expect("its low half", e.small, (uint32_t)n);
}

static void *produce(void *context)
{
	struct pair *p = context;

	for (uint64_t i = 0; i < BATCH; i++) {
		put(&p->there, i);
	}
	return NULL;
}

static void *echo(void *context)
{
	struct pair *p = context;

	for (uint64_t i = 0; i < BATCH; i++) {
		take(&p->there, i);
		put(&p->back, i);
	}
	return NULL;
}

static void one_way(struct pair *p)
{
	for (uint64_t i = 0; i < BATCH; i++) {
		take(&p->there, i);
		stress_progress();
	}
}

/* As many on their way as both rings hold, so that both are full at times. */
static void back_and_forth(struct pair *p, unsigned slots)
{
	uint64_t sent = 0;

	for (uint64_t got = 0; got < BATCH; got++) {
		while (sent < BATCH && sent - got < 2 * (slots - 1)) {
			put(&p->there, sent++);
		}
		take(&p->back, got);
		stress_progress();
	}
}

static void run_pair(unsigned slots, bool forth)
{
	struct pair p;
	pthread_t thread = 0;

	if (element_ring_init(&p.there, slots) != 0 || element_ring_init(&p.back, slots) != 0 ||
	    pthread_create(&thread, NULL, forth ? echo : produce, &p) != 0) {
		stress_fail("cannot begin", slots);
	}
	if (forth) {
		back_and_forth(&p, slots);
	} else {
		one_way(&p);
	}
	pthread_join(thread, NULL);
	stress_expect("left in the ring", element_ring_depth(&p.there), 0);
	stress_expect("left in the ring back", element_ring_depth(&p.back), 0);
	element_ring_close(&p.there);
	element_ring_close(&p.back);
}

/* ---- the link of two agents ---- */

struct end {
	struct agent base;
	struct end *peer;
	uint64_t sent;
	uint64_t got;
	unsigned bursts;
};

static void on_number(struct agent *self, void *object, uint64_t value)
{
	struct end *e = CONTAINER_OF(self, struct end, base);

	(void)object;
	stress_expect("task", value, e->got);
	e->got++;
	stress_progress();
}

/* Far more than the ring holds, whether the other end takes them or not. */
static int send_burst(struct agent *self)
{
	struct end *e = CONTAINER_OF(self, struct end, base);

	if (e->bursts == 0) {
		return 0;
	}
	for (unsigned i = 0; i < BURST; i++) {
		agent_send(self, &e->peer->base, on_number, NULL, e->sent++);
	}
	if (--e->bursts == 0 && self->id == 0) {
		runtime_stop(self->runtime);
	}
	return 1;
}

static bool has_sent_all(struct agent *self)
{
	return CONTAINER_OF(self, struct end, base)->bursts == 0;
}

static void run_overflow(unsigned slots)
{
	static const struct agent_ops ops = {
		.kind = "end", .do_work = send_burst, .drained = has_sent_all};
	const struct idle idle = {.kind = IDLE_PARK};
	static struct end ends[2];
	struct runtime rt;

	runtime_init(&rt, &clock_system);
	rt.backend = MUX_EPOLL;
	rt.ring_slots = slots;
	for (unsigned i = 0; i < 2; i++) {
		ends[i] = (struct end){.peer = &ends[1 - i], .bursts = 10};
		agent_init(&ends[i].base, &ops, i == 0 ? "a" : "b", 0);
		runtime_add(&rt, runtime_group(&rt, i == 0 ? "group.a" : "group.b", -1, &idle),
			    &ends[i].base);
	}
	if (runtime_prepare(&rt) != 0 || runtime_run(&rt) != 0) {
		stress_fail("the runtime does not start", 0);
	}
	for (unsigned i = 0; i < 2; i++) {
		stress_expect("tasks", ends[i].got, ends[1 - i].sent);
		stress_expect("tasks of all bursts", ends[i].got, (uint64_t)10 * BURST);
	}
	stress_expect("lost wake-ups", counter_total("park_timeout_with_work"), 0);
	if (counter_total("overflow_max") < LINK_HIGH_WATER) {
		stress_fail("no overflow", counter_total("overflow_max"));
	}
	runtime_close(&rt);
	agent_close(&ends[0].base);
	agent_close(&ends[1].base);
}

int main(int argc, char **argv)
{
	unsigned turn = 0;

	stress_begin("ring", argc, argv);
	do {
		run_pair(2U << turn % 10, turn % 2 == 0);
		run_pair(2U << turn % 10, turn % 2 != 0);
		run_overflow(2U << turn % 5);
		turn++;
	} while (stress_now_ns() < stress.end_ns);
	return stress_end("elements");
}
