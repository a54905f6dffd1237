#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ring_when_awake),
		cmocka_unit_test(test_ring_when_parked),
		cmocka_unit_test(test_ring_when_consumer_found_something_itself),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
