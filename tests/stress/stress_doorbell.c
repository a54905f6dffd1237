/*
 * Request and response between two threads that both sleep in the kernel without a time-out when
 * they have nothing: a lost wake-up is never made good, and the watchdog tells after how many
 * trips.
 */
#include <ck_pr.h>
#include <poll.h>

#include "core/runtime/doorbell.h"
#include "core/runtime/idle.h"
#include "tests/stress/stress.h"

#define LAST UINT64_MAX

struct number {
	uint64_t value;
};

RING_DEFINE(number_ring, number);

struct end {
	struct number_ring inbox;
	struct doorbell bell;
	struct end *peer;
	uint64_t seed;
	uint64_t sleeps;
};

/*
 * How often to look before parking. Mostly long enough for the answer to come while both ends are
 * awake, else about as long as it takes: so parking meets ringing within nanoseconds.
 */
static unsigned looks(struct end *e)
{
	uint64_t r = stress_random(&e->seed);

	return (unsigned)(r % 4 != 0 ? 1000 : 1 + (r >> 8) % 40);
}

static void sleep_in_kernel(struct end *e)
{
	struct pollfd p = {.fd = e->bell.eventfd, .events = POLLIN};
	uint64_t rings;

	e->sleeps++;
	poll(&p, 1, -1);
	if (read(e->bell.eventfd, &rings, sizeof(rings)) != (ssize_t)sizeof(rings)) {
		stress_fail("woken without a ring", e->sleeps);
	}
}

static uint64_t receive(struct end *e)
{
	struct number n;

	for (;;) {
		for (unsigned i = looks(e); i > 0; i--) {
			if (number_ring_receive(&e->inbox, &n)) {
				return n.value;
			}
			ck_pr_stall();
		}
		doorbell_park(&e->bell);
		if (number_ring_empty(&e->inbox)) {
			sleep_in_kernel(e);
		}
		doorbell_wake(&e->bell);
	}
}

static void send_number(struct end *e, uint64_t value)
{
	struct number n = {value};

	stress_expect("room in the ring", number_ring_send(&e->peer->inbox, &n), 1);
	doorbell_ring(&e->peer->bell);
}

static void *respond(void *context)
{
	struct end *e = context;

	for (uint64_t i = 0;; i++) {
		uint64_t value = receive(e);

		if (value == LAST) {
			return NULL;
		}
		stress_expect("request", value, i);
		send_number(e, value + 1);
	}
}

static void end_open(struct end *e, struct end *peer, uint64_t seed)
{
	*e = (struct end){.peer = peer, .seed = seed};
	if (number_ring_init(&e->inbox, 4) != 0 || doorbell_init(&e->bell) != 0) {
		stress_fail("cannot begin", 0);
	}
}

int main(int argc, char **argv)
{
	static struct end a;
	static struct end b;
	pthread_t thread;

	stress_begin("doorbell", argc, argv);
	end_open(&a, &b, 11);
	end_open(&b, &a, 17);
	if (pthread_create(&thread, NULL, respond, &b) != 0) {
		stress_fail("cannot begin", 0);
	}
	for (uint64_t i = 0; i % 1024 != 0 || stress_now_ns() < stress.end_ns; i++) {
		send_number(&a, i);
		stress_expect("response", receive(&a), i + 1);
		stress_progress();
	}
	send_number(&a, LAST);
	pthread_join(thread, NULL);
	if (a.sleeps + b.sleeps == 0) {
		stress_fail("neither end ever slept", 0);
	}
	for (struct end *e = &a; e != NULL; e = e == &a ? &b : NULL) {
		number_ring_close(&e->inbox);
		doorbell_close(&e->bell);
	}
	return stress_end("trips");
}
