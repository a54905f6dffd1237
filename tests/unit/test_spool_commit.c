/*
 * How batches are written: in whole blocks, with one durable write where that is enough.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "spool/store.h"
#include "tests/unit/spool_world.h"

/* Nothing is being prepared: what is written next is a batch. */
static struct world *quiet_world(void)
{
	struct world *w = world_new(true);

	world_start(w);
	world_store(w, 1, 1000, ENVELOPE_SYNCED);
	world_rest(w);
	return w;
}

static void close_world(struct world *w)
{
	world_stop(w);
	world_free(w);
}

static void cut_many_times(struct world *w, long least, long most)
{
	for (unsigned i = 0; i < 50; i++) {
		assert_in_range(world_check_power_cut(w), least, most);
	}
}

static void test_synced_batch_is_one_durable_write(void **state)
{
	struct world *w = quiet_world();
	bool direct = world_store_of(w, 0)->active->direct_fd >= 0;
	struct disk before = *w->disk;

	(void)state;
	for (unsigned i = 0; i < 10; i++) {
		world_store(w, 1, 1000, ENVELOPE_SYNCED);
	}
	world_settle(w);
	assert_int_equal(w->disk->writes, before.writes + 1);
	assert_int_equal(w->disk->synced_writes, before.synced_writes + 1);
	assert_int_equal(w->disk->direct_writes, before.direct_writes + direct);
	assert_int_equal(w->disk->syncs, before.syncs);
	cut_many_times(w, 11, 11);
	close_world(w);
}

/* A durable write behind them would leave a hole where the power takes them. */
static void test_what_was_cached_is_synced_before_what_follows(void **state)
{
	struct world *w = quiet_world();
	struct disk before = *w->disk;

	(void)state;
	world_store(w, 1, 30000, ENVELOPE_CACHED);
	world_settle(w);
	assert_int_equal(w->disk->synced_writes, before.synced_writes);
	assert_int_equal(w->disk->direct_writes, before.direct_writes);
	assert_int_equal(w->disk->syncs, before.syncs);
	cut_many_times(w, 1, 2);
	world_store(w, 1, 1000, ENVELOPE_SYNCED);
	world_settle(w);
	assert_int_equal(w->disk->synced_writes, before.synced_writes);
	assert_int_equal(w->disk->syncs, before.syncs + 1);
	cut_many_times(w, 3, 3);
	world_store(w, 1, 1000, ENVELOPE_SYNCED);
	world_settle(w);
	assert_int_equal(w->disk->synced_writes, before.synced_writes + 1);
	assert_int_equal(w->disk->syncs, before.syncs + 1);
	cut_many_times(w, 4, 4);
	close_world(w);
}

/* Each begins with the last block of the one before, at every place in it. */
static void test_batches_share_blocks(void **state)
{
	struct world *w = quiet_world();

	(void)state;
	for (unsigned i = 0; i < 200; i++) {
		world_store(w, 1, i * 8, ENVELOPE_SYNCED);
		/* The next one is staged while this one is written. */
		world_step(w, i % 3);
	}
	world_settle(w);
	assert_int_equal(world_check_power_cut(w), 201);
	for (struct model_message *m = w->messages; m != NULL; m = m->next) {
		assert_int_equal(world_load(w, m), 0);
	}
	close_world(w);
}

static void test_batch_after_a_big_message(void **state)
{
	struct world *w = quiet_world();

	(void)state;
	w->disk->per_reap = 1;
	for (unsigned i = 0; i < 4; i++) {
		world_store(w, 1, (3U << 20) + i * 1000, ENVELOPE_SYNCED);
		for (unsigned n = 0; n < 20; n++) {
			world_step(w, 1);
			world_store(w, 1, 100, ENVELOPE_SYNCED);
		}
	}
	world_settle(w);
	cut_many_times(w, 1 + 4 * 21, 1 + 4 * 21);
	for (struct model_message *m = w->messages; m != NULL; m = m->next) {
		assert_int_equal(world_load(w, m), 0);
	}
	close_world(w);
}

static unsigned failures;

static int on_full(struct world *w, const struct mux_op *op)
{
	(void)w;
	if (op->verb != MUX_WRITE || failures == 0) {
		return 0;
	}
	failures--;
	return -ENOSPC;
}

/* What was in the last block is there again for the batch that takes the place. */
static void test_no_space_leaves_the_last_block_as_it_was(void **state)
{
	struct world *w = quiet_world();
	struct model_message *refused;

	(void)state;
	w->disk->on_fault = on_full;
	for (unsigned i = 0; i < 20; i++) {
		/* A failed write may be that of the second. */
		failures = 1;
		refused = world_store(w, 1, 900 * i, ENVELOPE_CACHED);
		world_step(w, i % 2);
		world_store(w, 1, 700 * i, ENVELOPE_CACHED);
		world_step(w, 1);
		world_settle(w);
		assert_int_equal(refused->state, MODEL_REFUSED);
		/* Until there is space. */
		world_step(w, 3000);
		world_store(w, 1, 500 * i, ENVELOPE_SYNCED);
		world_settle(w);
	}
	assert_true(world_check_power_cut(w) >= 21);
	for (struct model_message *m = w->messages; m != NULL; m = m->next) {
		if (m->state == MODEL_STORED) {
			assert_int_equal(world_load(w, m), 0);
		}
	}
	close_world(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_synced_batch_is_one_durable_write),
		cmocka_unit_test(test_what_was_cached_is_synced_before_what_follows),
		cmocka_unit_test(test_batches_share_blocks),
		cmocka_unit_test(test_batch_after_a_big_message),
		cmocka_unit_test(test_no_space_leaves_the_last_block_as_it_was),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
