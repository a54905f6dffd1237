/*
 * The spool as its users see it: store, defer, finish, read back, restart.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "spool/account.h"
#include "spool/store.h"
#include "tests/unit/spool_world.h"

static void test_store_is_answered_and_survives_restart(void **state)
{
	struct world *w = world_new(true);
	struct model_message *m;

	(void)state;
	world_start(w);
	m = world_store(w, 1, 10000, ENVELOPE_SYNCED);
	world_settle(w);
	assert_int_equal(m->state, MODEL_STORED);
	assert_int_equal(world_load(w, m), 0);
	world_stop(w);
	world_start(w);
	assert_int_equal(w->found.messages, 1);
	assert_int_equal(w->recovered, 1);
	assert_int_equal(world_load(w, m), 0);
	world_done(w, m, 0);
	world_settle(w);
	world_stop(w);
	world_start(w);
	assert_int_equal(w->found.messages, 0);
	world_stop(w);
	world_free(w);
}

static void test_restart_brings_back_what_is_unfinished(void **state)
{
	struct world *w = world_new(true);
	struct model_message *m[20];

	(void)state;
	world_start(w);
	for (unsigned i = 0; i < 20; i++) {
		m[i] = world_store(w, 1 + i % 4, 100 * i, ENVELOPE_SYNCED);
	}
	world_settle(w);
	for (unsigned i = 0; i < 20; i++) {
		world_defer(w, m[i], 0, 1, 0);
		world_defer(w, m[i], 0, 2, 0);
		if (i % 4 != 0) {
			world_done(w, m[i], 1);
		}
		if (i % 2 == 0) {
			world_done(w, m[i], 0);
		}
	}
	world_settle(w);
	assert_true(store_validate(world_store_of(w, 0)));
	world_stop(w);
	world_start(w);
	assert_int_equal(w->found.messages, 15);
	assert_int_equal(w->recovered, 5 * 1 + 5 * 1 + 5 * 3);
	assert_int_equal(counter_get(world_store_of(w, 0)->stats.recovery_left), 0);
	assert_int_equal(spool_highest_id(w->spool), 20);
	assert_true(store_validate(world_store_of(w, 0)));
	world_stop(w);
	world_free(w);
}

static void test_orders_survive_restarts_and_copies(void **state)
{
	struct world *w = world_new(true);
	struct model_message *m[3];

	(void)state;
	world_start(w);
	for (unsigned i = 0; i < 3; i++) {
		m[i] = world_store(w, 2, 100, ENVELOPE_SYNCED);
	}
	world_settle(w);
	world_order(w, m[0], 0, 1);
	world_order(w, m[1], 1, 1);
	world_settle(w);
	world_defer(w, m[1], 1, 2, 0);
	world_settle(w);
	for (unsigned i = 0; i < 2; i++) {
		world_stop(w);
		world_start(w);
		assert_int_equal(w->recovered, 6);
	}
	world_stop(w);
	world_free(w);
}

static void test_requests_of_one_cycle_share_one_sync(void **state)
{
	struct world *w = world_new(true);
	uint64_t syncs;

	(void)state;
	world_start(w);
	world_store(w, 1, 1000, ENVELOPE_SYNCED);
	world_settle(w);
	syncs = world_counter(w, "syncs");
	for (unsigned i = 0; i < 100; i++) {
		world_store(w, 1, 1000, ENVELOPE_SYNCED);
	}
	world_settle(w);
	assert_int_equal(world_counter(w, "syncs"), syncs + 1);
	assert_int_equal(world_counter(w, "batch_max"), 100);
	world_stop(w);
	world_free(w);
}

static void test_cached_is_answered_without_sync(void **state)
{
	struct world *w = world_new(true);
	struct model_message *m;

	(void)state;
	world_start(w);
	m = world_store(w, 1, 1000, ENVELOPE_CACHED);
	world_settle(w);
	assert_int_equal(m->state, MODEL_STORED);
	world_done(w, m, 0);
	m = world_store(w, 1, 1000, ENVELOPE_CACHED);
	world_settle(w);
	assert_int_equal(world_counter(w, "syncs"), 0);
	world_stop(w);
	world_start(w);
	assert_int_equal(w->found.messages, 1);
	assert_int_equal(world_load(w, m), 0);
	world_stop(w);
	world_free(w);
}

static void test_memory_is_stored_like_synced(void **state)
{
	struct world *w = world_new(true);

	(void)state;
	world_start(w);
	world_store(w, 1, 1000, ENVELOPE_MEMORY);
	world_settle(w);
	assert_int_equal(world_counter(w, "syncs"), 1);
	world_stop(w);
	world_free(w);
}

static void test_big_message_spans_staging_buffers(void **state)
{
	struct world *w = world_new(true);
	struct model_message *big;
	struct model_message *small;

	(void)state;
	world_start(w);
	world_store(w, 1, 10, ENVELOPE_SYNCED);
	big = world_store(w, 2, 7U << 20, ENVELOPE_SYNCED);
	small = world_store(w, 1, 20, ENVELOPE_SYNCED);
	world_settle(w);
	assert_int_equal(big->state, MODEL_STORED);
	assert_int_equal(world_load(w, big), 0);
	assert_int_equal(world_load(w, small), 0);
	world_stop(w);
	world_start(w);
	assert_int_equal(w->found.messages, 3);
	assert_int_equal(world_load(w, big), 0);
	world_stop(w);
	world_free(w);
}

static void test_segments_are_recycled(void **state)
{
	struct world *w = world_new(true);
	struct model_message *m[64];

	(void)state;
	world_start(w);
	for (unsigned round = 0; round < 50; round++) {
		for (unsigned i = 0; i < 64; i++) {
			m[i] = world_store(w, 1, 10000, ENVELOPE_SYNCED);
		}
		world_settle(w);
		for (unsigned i = 0; i < 64; i++) {
			world_done(w, m[i], 0);
		}
		world_settle(w);
	}
	world_rest(w);
	assert_true(store_validate(world_store_of(w, 0)));
	assert_true(world_store_of(w, 0)->segment_count <= 4);
	assert_true(world_counter(w, "segments_reused") > 10);
	world_stop(w);
	world_start(w);
	assert_int_equal(w->found.messages, 0);
	world_stop(w);
	world_free(w);
}

static void test_mostly_dead_segments_are_compacted(void **state)
{
	struct world *w = world_new(true);
	struct model_message *kept[16];
	struct model_message *m;
	unsigned count = 0;

	(void)state;
	world_start(w);
	for (unsigned i = 0; i < 1600; i++) {
		m = world_store(w, 2, 5000, ENVELOPE_SYNCED);
		world_settle(w);
		if (i % 100 == 50) {
			world_defer(w, m, 0, 3, 0);
			world_done(w, m, 1);
			kept[count++] = m;
		} else {
			world_done(w, m, 0);
			world_done(w, m, 1);
		}
	}
	world_rest(w);
	assert_true(world_counter(w, "compactions") > 0);
	assert_true(world_store_of(w, 0)->segment_count <= 6);
	assert_true(store_validate(world_store_of(w, 0)));
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(world_load(w, kept[i]), 0);
	}
	world_stop(w);
	world_start(w);
	assert_int_equal(w->found.messages, 16);
	assert_int_equal(w->found.deliveries, 16);
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(world_load(w, kept[i]), 0);
		world_done(w, kept[i], 0);
	}
	world_rest(w);
	world_stop(w);
	world_start(w);
	assert_int_equal(w->found.messages, 0);
	world_stop(w);
	world_free(w);
}

static void restart_with(struct world *w, uint32_t writers, uint32_t messages)
{
	w->options.writers = writers;
	world_start(w);
	assert_int_equal(w->found.messages, messages);
	for (uint32_t i = 0; i < writers; i++) {
		assert_true(store_validate(world_store_of(w, i)));
	}
}

static void test_writer_count_may_change(void **state)
{
	static const uint32_t counts[] = {1, 2, 4, 1, 3, 1};
	struct world *w = world_new(true);
	uint32_t live = 0;

	(void)state;
	for (unsigned round = 0; round < 6; round++) {
		struct model_message *m[100];

		restart_with(w, counts[round], live);
		for (unsigned i = 0; i < 100; i++) {
			m[i] = world_store(w, 2, 8000, ENVELOPE_SYNCED);
		}
		world_settle(w);
		for (unsigned i = 0; i < 100; i++) {
			world_done(w, m[i], 0);
			if (i % 5 != 0) {
				world_done(w, m[i], 1);
			} else {
				world_defer(w, m[i], 1, 1, 0);
			}
		}
		live += 20;
		/* Some that an earlier count of writers stored. */
		world_settle(w);
		for (struct model_message *x = w->messages; x != NULL; x = x->next) {
			if (round > 0 && x->id.low == (round - 1) * 100 + 1 &&
			    !x->deliveries[1].done_asked) {
				world_done(w, x, 1);
				live--;
			}
		}
		world_rest(w);
		world_stop(w);
	}
	restart_with(w, 1, live);
	world_stop(w);
	world_free(w);
}

static void real_disk(enum mux_backend backend)
{
	struct world *w = world_new(false);
	struct model_message *m[32];

	w->backend = backend;
	w->options.segment_bytes = 4U << 20;
	world_start(w);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 32; i++) {
			m[i] = world_store(w, 1, 20000, ENVELOPE_SYNCED);
		}
		world_settle(w);
		assert_int_equal(world_load(w, m[7]), 0);
		for (unsigned i = round < 19 ? 0 : 16; i < 32; i++) {
			world_done(w, m[i], 0);
		}
		world_settle(w);
	}
	world_stop(w);
	world_start(w);
	assert_int_equal(w->found.messages, 16);
	assert_int_equal(world_load(w, m[3]), 0);
	world_stop(w);
	world_free(w);
}

static void test_real_disk_by_uring(void **state)
{
	(void)state;
	real_disk(MUX_AUTO);
}

static void test_real_disk_without_uring(void **state)
{
	(void)state;
	real_disk(MUX_POLL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_store_is_answered_and_survives_restart),
		cmocka_unit_test(test_restart_brings_back_what_is_unfinished),
		cmocka_unit_test(test_orders_survive_restarts_and_copies),
		cmocka_unit_test(test_requests_of_one_cycle_share_one_sync),
		cmocka_unit_test(test_cached_is_answered_without_sync),
		cmocka_unit_test(test_memory_is_stored_like_synced),
		cmocka_unit_test(test_big_message_spans_staging_buffers),
		cmocka_unit_test(test_segments_are_recycled),
		cmocka_unit_test(test_mostly_dead_segments_are_compacted),
		cmocka_unit_test(test_writer_count_may_change),
		cmocka_unit_test(test_real_disk_by_uring),
		cmocka_unit_test(test_real_disk_without_uring),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
