/*
 * The wheel against a model: a plain array of deadlines in which the earliest is looked for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/runtime/check.h"
#include "core/runtime/wheel.h"

#define ENTRIES 300
#define LEVEL_TICKS(level) (UINT64_C(1) << (WHEEL_BITS * (level)))
#define TURN LEVEL_TICKS(WHEEL_LEVELS)

struct item {
	struct wheel_entry entry;
	/* The model's view. */
	bool armed;
	uint64_t due;
};

struct world {
	struct wheel wheel;
	struct item items[ENTRIES];
	uint64_t seed;
	uint64_t now;
	/* Due tick of the last one that expired: they come in order. */
	uint64_t last_due;
	unsigned expired;
	unsigned rearm_percent;
};

static uint64_t random_next(struct world *w)
{
	w->seed ^= w->seed << 13;
	w->seed ^= w->seed >> 7;
	w->seed ^= w->seed << 17;
	return w->seed;
}

static struct world *world_make(uint64_t now, uint64_t seed)
{
	struct world *w = calloc(1, sizeof(*w));

	assert_non_null(w);
	wheel_init(&w->wheel, now);
	w->now = now;
	w->seed = seed;
	assert_true(wheel_validate(&w->wheel));
	return w;
}

static uint64_t model_earliest(const struct world *w)
{
	uint64_t earliest = WHEEL_NONE;

	for (unsigned i = 0; i < ENTRIES; i++) {
		if (w->items[i].armed && w->items[i].due < earliest) {
			earliest = w->items[i].due;
		}
	}
	return earliest;
}

static void check_world(const struct world *w)
{
	uint64_t earliest = model_earliest(w);
	uint64_t told = wheel_next_deadline(&w->wheel);
	uint64_t count = 0;

	assert_true(wheel_validate(&w->wheel));
	for (unsigned i = 0; i < ENTRIES; i++) {
		assert_int_equal(wheel_armed(&w->items[i].entry), w->items[i].armed);
		count += w->items[i].armed;
	}
	assert_int_equal(w->wheel.count, count);
	assert_true(told <= earliest);
	assert_int_equal(told == WHEEL_NONE, count == 0);
	if (earliest != WHEEL_NONE && (earliest ^ w->wheel.now) < WHEEL_SLOTS) {
		assert_true(told == earliest);
	}
	/* A sleep until then gets somewhere. */
	assert_true(told == WHEEL_NONE || told > w->wheel.now || earliest <= w->wheel.now);
}

static void arm(struct world *w, struct item *it, uint64_t due)
{
	it->armed = true;
	it->due = due < w->wheel.now ? w->wheel.now : due;
	wheel_arm(&w->wheel, &it->entry, due);
}

/* A due tick on a random level, sometimes in the past, sometimes beyond the wheel. */
static uint64_t random_due(struct world *w)
{
	unsigned level = (unsigned)(random_next(w) % (WHEEL_LEVELS + 2));
	uint64_t ahead = random_next(w) % (LEVEL_TICKS(level) * 4);

	if (random_next(w) % 16 == 0) {
		return w->now > ahead ? w->now - ahead : 0;
	}
	/* Borders of slots are where mistakes are. */
	if (random_next(w) % 4 == 0) {
		return ((w->now + ahead) & ~(LEVEL_TICKS(level) - 1)) + random_next(w) % 3;
	}
	return w->now + ahead;
}

static void on_expire(void *context, struct wheel_entry *entry)
{
	struct world *w = context;
	struct item *it = CONTAINER_OF(entry, struct item, entry);

	assert_true(it->armed);
	assert_false(wheel_armed(entry));
	assert_true(entry->due == it->due);
	assert_true(it->due <= w->now);
	assert_true(it->due >= w->last_due);
	w->last_due = it->due;
	it->armed = false;
	w->expired++;
	if (random_next(w) % 100 < w->rearm_percent) {
		arm(w, it, w->now + 1 + random_next(w) % LEVEL_TICKS(3));
	}
}

static void advance(struct world *w, uint64_t now, unsigned limit)
{
	unsigned expired;

	w->now = now > w->now ? now : w->now;
	do {
		w->expired = 0;
		expired = wheel_expire(&w->wheel, now, limit, on_expire, w);
		assert_int_equal(expired, w->expired);
		assert_true(expired <= limit);
		assert_true(wheel_validate(&w->wheel));
	} while (expired == limit);
	assert_true(w->wheel.now == w->now);
	assert_true(model_earliest(w) > now);
}

static uint64_t random_step(struct world *w)
{
	unsigned level = (unsigned)(random_next(w) % (WHEEL_LEVELS + 1));

	if (random_next(w) % 3 == 0 && wheel_next_deadline(&w->wheel) != WHEEL_NONE) {
		return wheel_next_deadline(&w->wheel);
	}
	return w->now + random_next(w) % (LEVEL_TICKS(level) + 1);
}

static void operate(struct world *w)
{
	struct item *it = &w->items[random_next(w) % ENTRIES];

	switch (random_next(w) % 8) {
	case 0:
		wheel_cancel(&w->wheel, &it->entry);
		it->armed = false;
		break;
	case 1:
		advance(w, random_step(w), (unsigned)(1 + random_next(w) % 8));
		break;
	default:
		arm(w, it, random_due(w));
		break;
	}
	check_world(w);
}

static void test_operations_when_random(void **state)
{
	static const uint64_t starts[] = {
		0,
		1,
		31,
		32,
		1000000,
		TURN - 1,
		TURN * 5 - 3,
		LEVEL_TICKS(5) * 31 - 1,
		UINT64_C(1) << 60,
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		struct world *w = world_make(starts[i], 0x9e3779b97f4a7c15U + i);

		w->rearm_percent = i % 2 == 0 ? 20 : 0;
		for (unsigned n = 0; n < 20000; n++) {
			operate(w);
		}
		w->rearm_percent = 0;
		advance(w, w->now + 200 * TURN, 7);
		assert_int_equal(w->wheel.count, 0);
		check_world(w);
		free(w);
	}
}

/* One entry for each level, alone, at the start, the middle and the end of the level's reach. */
static void test_expire_when_alone_on_each_level(void **state)
{
	(void)state;
	for (unsigned level = 0; level <= WHEEL_LEVELS + 1; level++) {
		for (unsigned turns = 1; turns <= 31; turns += 15) {
			struct world *w = world_make(12345, 1);
			uint64_t due = w->now + LEVEL_TICKS(level) * turns;

			arm(w, &w->items[0], due);
			check_world(w);
			advance(w, due - 1, 1000);
			assert_true(w->items[0].armed);
			assert_true(wheel_next_deadline(&w->wheel) == due);
			advance(w, due, 1000);
			assert_false(w->items[0].armed);
			free(w);
		}
	}
}

/* Waking at each next deadline expires everything on its tick, after at most one wake a level. */
static void test_next_deadline_when_followed(void **state)
{
	struct world *w = world_make(777, 5);
	uint64_t due = w->now + TURN - 1;
	unsigned wakes = 0;

	(void)state;
	arm(w, &w->items[0], due);
	while (w->items[0].armed) {
		uint64_t next = wheel_next_deadline(&w->wheel);

		assert_true(next > w->now && next <= due);
		advance(w, next, 1000);
		wakes++;
	}
	assert_true(w->now == due);
	assert_in_range(wakes, 1, WHEEL_LEVELS + 1);
	free(w);
}

static void test_expire_when_due_is_past(void **state)
{
	struct world *w = world_make(1000, 1);

	(void)state;
	arm(w, &w->items[0], 1);
	arm(w, &w->items[1], 1000);
	assert_true(wheel_next_deadline(&w->wheel) == 1000);
	check_world(w);
	/* No time needs to pass. */
	assert_int_equal(wheel_expire(&w->wheel, 1000, 10, on_expire, w), 2);
	assert_int_equal(w->wheel.count, 0);
	free(w);
}

static void test_expire_when_time_goes_back(void **state)
{
	struct world *w = world_make(1000, 1);

	(void)state;
	arm(w, &w->items[0], 1001);
	assert_int_equal(wheel_expire(&w->wheel, 500, 10, on_expire, w), 0);
	assert_int_equal(w->wheel.now, 1000);
	advance(w, 1001, 10);
	assert_false(w->items[0].armed);
	free(w);
}

static void test_expire_when_limited(void **state)
{
	struct world *w = world_make(0, 1);

	(void)state;
	for (unsigned i = 0; i < 100; i++) {
		arm(w, &w->items[i], 50);
	}
	arm(w, &w->items[100], 60);
	w->now = 100;
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(wheel_expire(&w->wheel, 100, 10, on_expire, w), 10);
		assert_int_equal(w->wheel.now, 50);
		assert_true(wheel_validate(&w->wheel));
	}
	assert_int_equal(wheel_expire(&w->wheel, 100, 10, on_expire, w), 1);
	assert_int_equal(w->wheel.now, 100);
	assert_int_equal(wheel_expire(&w->wheel, 100, 0, on_expire, w), 0);
	free(w);
}

static void rearm_now(void *context, struct wheel_entry *entry)
{
	struct world *w = context;

	w->expired++;
	wheel_arm(&w->wheel, entry, 0);
}

/* An entry that arms itself in the past at each expiry does not hold the caller for ever. */
static void test_expire_when_rearmed_at_once(void **state)
{
	struct world *w = world_make(10, 1);

	(void)state;
	wheel_arm(&w->wheel, &w->items[0].entry, 11);
	assert_int_equal(wheel_expire(&w->wheel, 20, 64, rearm_now, w), 64);
	assert_int_equal(w->expired, 64);
	assert_true(wheel_validate(&w->wheel));
	wheel_cancel(&w->wheel, &w->items[0].entry);
	assert_int_equal(wheel_expire(&w->wheel, 20, 64, rearm_now, w), 0);
	assert_int_equal(w->wheel.now, 20);
	free(w);
}

static void cancel_others(void *context, struct wheel_entry *entry)
{
	struct world *w = context;

	(void)entry;
	w->expired++;
	for (unsigned i = 0; i < ENTRIES; i++) {
		wheel_cancel(&w->wheel, &w->items[i].entry);
	}
}

static void test_cancel_when_called_from_expiry(void **state)
{
	struct world *w = world_make(0, 1);

	(void)state;
	for (unsigned i = 0; i < ENTRIES; i++) {
		wheel_arm(&w->wheel, &w->items[i].entry, 5 + i % 40);
	}
	assert_int_equal(wheel_expire(&w->wheel, 100, 1000, cancel_others, w), 1);
	assert_int_equal(w->wheel.count, 0);
	assert_true(wheel_validate(&w->wheel));
	free(w);
}

static void test_cancel_when_not_armed(void **state)
{
	struct world *w = world_make(0, 1);

	(void)state;
	wheel_cancel(&w->wheel, &w->items[0].entry);
	wheel_arm(&w->wheel, &w->items[0].entry, 1);
	wheel_cancel(&w->wheel, &w->items[0].entry);
	wheel_cancel(&w->wheel, &w->items[0].entry);
	assert_int_equal(w->wheel.count, 0);
	assert_true(wheel_next_deadline(&w->wheel) == WHEEL_NONE);
	assert_true(wheel_validate(&w->wheel));
	free(w);
}

static void test_validate_when_broken(void **state)
{
	struct world *w = world_make(0, 1);

	(void)state;
	arm(w, &w->items[0], 7);
	arm(w, &w->items[1], 7);
	assert_true(wheel_validate(&w->wheel));
	w->wheel.count++;
	assert_false(wheel_validate(&w->wheel));
	w->wheel.count--;
	w->wheel.occupied[0] = 0;
	assert_false(wheel_validate(&w->wheel));
	w->wheel.occupied[0] = 1U << 7;
	w->items[0].entry.due = 8;
	assert_false(wheel_validate(&w->wheel));
	w->items[0].entry.due = 7;
	w->items[1].entry.prev = &w->items[1].entry;
	assert_false(wheel_validate(&w->wheel));
	free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_operations_when_random),
		cmocka_unit_test(test_expire_when_alone_on_each_level),
		cmocka_unit_test(test_next_deadline_when_followed),
		cmocka_unit_test(test_expire_when_due_is_past),
		cmocka_unit_test(test_expire_when_time_goes_back),
		cmocka_unit_test(test_expire_when_limited),
		cmocka_unit_test(test_expire_when_rearmed_at_once),
		cmocka_unit_test(test_cancel_when_called_from_expiry),
		cmocka_unit_test(test_cancel_when_not_armed),
		cmocka_unit_test(test_validate_when_broken),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
