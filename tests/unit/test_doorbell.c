#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "core/runtime/doorbell.h"

static uint64_t read_rings(struct doorbell *d)
{
	uint64_t rings = 0;

	if (read(d->eventfd, &rings, sizeof(rings)) < 0) {
		assert_int_equal(errno, EAGAIN);
		return 0;
	}
	return rings;
}

static void test_ring_when_awake(void **state)
{
	struct doorbell d;

	(void)state;
	assert_int_equal(doorbell_init(&d), 0);
	assert_false(doorbell_ring(&d));
	assert_int_equal(read_rings(&d), 0);
	doorbell_close(&d);
}

static void test_ring_when_parked(void **state)
{
	struct doorbell d;

	(void)state;
	assert_int_equal(doorbell_init(&d), 0);
	doorbell_park(&d);
	assert_true(doorbell_ring(&d));
	/* Once is enough, whoever rings. */
	assert_false(doorbell_ring(&d));
	assert_int_equal(read_rings(&d), 1);
	doorbell_wake(&d);
	assert_false(doorbell_ring(&d));
	doorbell_park(&d);
	assert_true(doorbell_ring(&d));
	assert_int_equal(read_rings(&d), 1);
	doorbell_close(&d);
}

static void test_ring_when_consumer_found_something_itself(void **state)
{
	struct doorbell d;

	(void)state;
	assert_int_equal(doorbell_init(&d), 0);
	doorbell_park(&d);
	doorbell_wake(&d);
	assert_false(doorbell_ring(&d));
	assert_int_equal(read_rings(&d), 0);
	doorbell_close(&d);
	assert_int_equal(d.eventfd, -1);
	doorbell_close(&d);
}

/*
 * Request and response between two threads that both sleep in the kernel when they have nothing.
 * Every trip needs two wake-ups at the most; a lost one shows as a time-out with work waiting.
 */
#if defined(__SANITIZE_THREAD__) || defined(__clang__)
/* ck's ordering is in assembly, which the thread sanitizer cannot see: an element that it sees go
 * into a slot and out again looks like a race to it. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:_ck_ring_enqueue_sp\nrace:_ck_ring_dequeue_sc\n";
}
#endif

#define TRIPS 200000
#define LOST_MS 5000

struct number {
	uint64_t value;
};

RING_DEFINE(number_ring, number);

struct end {
	struct number_ring inbox;
	struct doorbell bell;
	struct end *peer;
	uint64_t seed;
	uint64_t lost;
	uint64_t wrong;
	uint64_t sleeps;
};

/*
 * How often to look before parking. Mostly long enough for the answer to come while both ends are
 * awake, else about as long as it takes: so parking meets ringing within nanoseconds.
 */
static unsigned looks(struct end *e)
{
	e->seed ^= e->seed << 13;
	e->seed ^= e->seed >> 7;
	e->seed ^= e->seed << 17;
	return (unsigned)(e->seed % 4 != 0 ? 1000 : 1 + (e->seed >> 8) % 40);
}

static void sleep_in_kernel(struct end *e)
{
	struct pollfd p = {.fd = e->bell.eventfd, .events = POLLIN};
	uint64_t rings;

	e->sleeps++;
	if (poll(&p, 1, LOST_MS) == 0) {
		e->lost += number_ring_depth(&e->inbox) != 0;
	} else {
		e->wrong += read(e->bell.eventfd, &rings, sizeof(rings)) != sizeof(rings);
	}
}

static struct number receive(struct end *e)
{
	struct number n;

	for (;;) {
		for (unsigned i = looks(e); i > 0; i--) {
			if (number_ring_receive(&e->inbox, &n)) {
				return n;
			}
			ck_pr_stall();
		}
		doorbell_park(&e->bell);
		if (number_ring_depth(&e->inbox) == 0) {
			sleep_in_kernel(e);
		}
		doorbell_wake(&e->bell);
	}
}

static void send(struct end *e, uint64_t value)
{
	struct number n = {value};

	e->wrong += !number_ring_send(&e->peer->inbox, &n);
	doorbell_ring(&e->peer->bell);
}

static void *respond(void *context)
{
	struct end *e = context;

	for (uint64_t i = 0; i < TRIPS; i++) {
		struct number n = receive(e);

		e->wrong += n.value != i;
		send(e, n.value + 1);
	}
	return NULL;
}

static void test_ring_when_both_ends_sleep(void **state)
{
	static struct end a;
	static struct end b;
	pthread_t thread;

	(void)state;
	a = (struct end){.peer = &b, .seed = 11};
	b = (struct end){.peer = &a, .seed = 17};
	assert_int_equal(number_ring_init(&a.inbox, 4), 0);
	assert_int_equal(number_ring_init(&b.inbox, 4), 0);
	assert_int_equal(doorbell_init(&a.bell), 0);
	assert_int_equal(doorbell_init(&b.bell), 0);
	assert_int_equal(pthread_create(&thread, NULL, respond, &b), 0);
	for (uint64_t i = 0; i < TRIPS; i++) {
		send(&a, i);
		a.wrong += receive(&a).value != i + 1;
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(a.lost + b.lost, 0);
	assert_int_equal(a.wrong + b.wrong, 0);
	assert_true(a.sleeps + b.sleeps > 0);
	number_ring_close(&a.inbox);
	number_ring_close(&b.inbox);
	doorbell_close(&a.bell);
	doorbell_close(&b.bell);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ring_when_awake),
		cmocka_unit_test(test_ring_when_parked),
		cmocka_unit_test(test_ring_when_consumer_found_something_itself),
		cmocka_unit_test(test_ring_when_both_ends_sleep),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
