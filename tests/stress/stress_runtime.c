/*
 * Programs of several agents that start, hand parcels around and are told to stop in the midst of
 * it, by one of their own or by another thread, again and again: no parcel is dropped, later phases
 * stop after earlier ones, and everything ends. Groups, idle strategies, back ends, ring sizes and
 * phases are drawn.
 */
#include "core/runtime/runtime.h"
#include "tests/stress/stress.h"

#define PLAYERS 5
#define BURST 50
#define HOPS 6

struct player {
	struct agent base;
	unsigned bursts;
	bool stops;
	bool stopped;
	uint64_t sent;
	uint64_t done;
};

/* Plain memory whose owner changes with the hand-over, so that the sanitizers watch. */
struct parcel {
	uint64_t number;
	uint64_t sum;
	uint32_t hops;
};

static struct player players[PLAYERS];
static unsigned player_count;

static struct player *player_of(struct agent *self)
{
	return CONTAINER_OF(self, struct player, base);
}

static void on_parcel(struct agent *self, void *object, uint64_t number)
{
	struct player *next = &players[(self->id + 1U) % player_count];
	struct parcel *parcel = object;

	stress_expect("parcel", parcel->number, number);
	stress_expect("its sum", parcel->sum, number + parcel->hops);
	parcel->hops++;
	parcel->sum++;
	if (parcel->hops == HOPS) {
		free(parcel);
		player_of(self)->done++;
		return;
	}
	agent_send(self, &next->base, on_parcel, parcel, number);
}

static int play(struct agent *self)
{
	struct player *p = player_of(self);
	struct player *next = &players[(self->id + 1U) % player_count];

	if (p->bursts == 0) {
		return 0;
	}
	for (unsigned i = 0; i < BURST; i++) {
		struct parcel *parcel = calloc(1, sizeof(*parcel));

		if (parcel == NULL) {
			stress_fail("out of memory", 0);
		}
		parcel->number = parcel->sum = ++p->sent;
		agent_send(self, &next->base, on_parcel, parcel, parcel->number);
	}
	if (--p->bursts == 0 && p->stops) {
		runtime_stop(self->runtime);
	}
	return 1;
}

/* Those of an earlier phase have said their last by now, but for parcels that are on their way. */
static void on_stop(struct agent *self)
{
	for (unsigned i = 0; i < player_count; i++) {
		const struct agent *other = &players[i].base;

		if (other->stop_phase < self->stop_phase &&
		    atomic_load(&other->state) < AGENT_STOPPING) {
			stress_fail("stopped before an earlier phase", other->stop_phase);
		}
	}
	player_of(self)->stopped = true;
}

static bool on_drained(struct agent *self)
{
	return player_of(self)->bursts == 0;
}

static void *stop_from_outside(void *runtime)
{
	runtime_stop(runtime);
	return NULL;
}

static const struct agent_ops ops = {
	.kind = "player", .do_work = play, .stop = on_stop, .drained = on_drained};

static void set_up(struct runtime *rt, uint64_t *seed)
{
	static const enum idle_kind kinds[] = {IDLE_PARK, IDLE_PARK, IDLE_BACKOFF, IDLE_YIELD};
	/* liburing unmaps a ring by a bare system call: where a thread ends early and another one's
	 * ring gets the same address, the thread sanitizer takes them for one. */
	static const enum mux_backend backends[] = {MUX_EPOLL, MUX_POLL};
	static const char *const names[PLAYERS] = {"a", "b", "c", "d", "e"};
	struct group *g = NULL;

	runtime_init(rt, &clock_system);
	rt->backend = backends[stress_random(seed) % 2];
	rt->mux_entries = 64;
	rt->ring_slots = 4U << stress_random(seed) % 6;
	player_count = 2 + (unsigned)(stress_random(seed) % (PLAYERS - 1));
	for (unsigned i = 0; i < player_count; i++) {
		const struct idle idle = {.kind = kinds[stress_random(seed) % 4],
					  .max_spins = 10,
					  .max_yields = 5,
					  .min_park_ns = 1000,
					  .max_park_ns = 1000000};

		players[i] = (struct player){.bursts = 1 + (unsigned)(stress_random(seed) % 4)};
		agent_init(&players[i].base, &ops, names[i],
			   (uint8_t)(stress_random(seed) % RUNTIME_PHASES));
		if (g == NULL || stress_random(seed) % 4 != 0) {
			g = runtime_group(rt, names[i], -1, &idle);
		}
		runtime_add(rt, g, &players[i].base);
	}
}

static void run_once(uint64_t *seed)
{
	struct runtime rt;
	pthread_t thread = 0;
	bool outside = stress_random(seed) % 4 == 0;
	uint64_t sent = 0;
	uint64_t done = 0;

	set_up(&rt, seed);
	players[stress_random(seed) % player_count].stops = !outside;
	if (runtime_prepare(&rt) != 0 ||
	    (outside && pthread_create(&thread, NULL, stop_from_outside, &rt) != 0) ||
	    runtime_run(&rt) != 0) {
		stress_fail("the runtime does not start", 0);
	}
	if (outside) {
		pthread_join(thread, NULL);
	}
	for (unsigned i = 0; i < player_count; i++) {
		stress_expect("told to stop", players[i].stopped, 1);
		sent += players[i].sent;
		done += players[i].done;
	}
	stress_expect("parcels that arrived", done, sent);
	stress_expect("lost wake-ups", counter_total("park_timeout_with_work"), 0);
	runtime_close(&rt);
	for (unsigned i = 0; i < player_count; i++) {
		agent_close(&players[i].base);
	}
}

int main(int argc, char **argv)
{
	uint64_t seed = 4711;

	stress_begin("runtime", argc, argv);
	do {
		run_once(&seed);
		stress_progress();
	} while (stress_now_ns() < stress.end_ns);
	return stress_end("starts and stops");
}
