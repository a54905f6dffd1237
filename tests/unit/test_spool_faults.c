/*
 * Failing disks: errors of writes and syncs, full file systems, damaged bodies.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "spool/account.h"
#include "spool/store.h"
#include "tests/unit/spool_world.h"

/* What fails, and how. */
static struct {
	enum mux_verb verb;
	int error;
	/* So many more succeed, then so many fail. */
	unsigned skip;
	unsigned count;
	/* Only operations of at least so many bytes. */
	uint32_t len_min;
} plan;

/* MUX_FSYNC is a durable write too. */
static bool planned(const struct mux_op *op)
{
	return op->verb == plan.verb ||
	       (plan.verb == MUX_FSYNC && op->verb == MUX_WRITE && op->synced);
}

static int on_fault(struct world *w, const struct mux_op *op)
{
	(void)w;
	if (plan.count == 0 || !planned(op) || op->len < plan.len_min) {
		return 0;
	}
	if (plan.skip > 0) {
		plan.skip--;
		return 0;
	}
	plan.count--;
	return plan.error;
}

static void fail_next(enum mux_verb verb, int error, unsigned count)
{
	plan.verb = verb;
	plan.error = error;
	plan.skip = 0;
	plan.count = count;
	plan.len_min = 0;
}

/* Nothing is being prepared: what fails next is a commit. */
static struct world *quiet_world(void)
{
	struct world *w = world_new(true);

	memset(&plan, 0, sizeof(plan));
	w->disk->on_fault = on_fault;
	world_start(w);
	world_store(w, 1, 1000, ENVELOPE_SYNCED);
	world_rest(w);
	return w;
}

static void finish_all(struct world *w)
{
	for (struct model_message *m = w->messages; m != NULL; m = m->next) {
		for (uint32_t i = 0; m->state == MODEL_STORED && i < m->delivery_count; i++) {
			if (!m->deliveries[i].done_asked) {
				world_done(w, m, i);
			}
		}
	}
	world_settle(w);
}

/* From now on the active segment has something in it that no sync has covered. */
static void store_cached(struct world *w)
{
	struct model_message *m = world_store(w, 1, 100, ENVELOPE_CACHED);

	world_settle(w);
	world_done(w, m, 0);
	world_settle(w);
	assert_true(world_store_of(w, 0)->active->unsynced);
}

static void failed_once(enum mux_verb verb, bool cached)
{
	struct world *w = quiet_world();
	struct model_message *m[10];

	for (unsigned i = 0; i < 10; i++) {
		m[i] = world_store(w, 2, 5000, ENVELOPE_SYNCED);
	}
	world_settle(w);
	if (cached) {
		store_cached(w);
	}
	world_done(w, m[0], 0);
	world_defer(w, m[1], 1, 1, 0);
	world_store(w, 1, 2000, ENVELOPE_SYNCED);
	fail_next(verb, -EIO, 1);
	world_settle(w);
	assert_int_equal(plan.count, 0);
	assert_int_equal(world_counter(w, "segments_abandoned"), 1);
	assert_int_equal(world_counter(w, "sync_errors"), verb == MUX_FSYNC || !cached);
	assert_int_equal(world_counter(w, "write_errors"), verb == MUX_WRITE && cached);
	assert_int_equal(world_counter(w, "store_refused"), 0);
	assert_false(spool_full(w->spool));
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(m[i]->state, MODEL_STORED);
		assert_int_equal(world_load(w, m[i]), 0);
	}
	/* Of the cached one anything may be left. */
	assert_in_range(world_check_power_cut(w), 1 + 19 + 1, 1 + 19 + 1 + cached);
	world_rest(w);
	/* What lived in the abandoned segment has moved, and its file is gone. */
	assert_true(store_validate(world_store_of(w, 0)));
	for (uint32_t i = 0; i < world_store_of(w, 0)->slot_count; i++) {
		const struct segment *g = world_store_of(w, 0)->segments[i];

		assert_true(g == NULL || g->state != SEGMENT_ABANDONED);
	}
	assert_int_equal(world_check_power_cut(w), 1 + 19 + 1);
	world_stop(w);
	world_start(w);
	assert_int_equal(w->found.messages, 12);
	finish_all(w);
	world_stop(w);
	world_free(w);
}

static void test_failed_write_is_written_elsewhere(void **state)
{
	(void)state;
	failed_once(MUX_WRITE, true);
}

static void test_failed_sync_abandons_the_segment(void **state)
{
	(void)state;
	failed_once(MUX_FSYNC, true);
}

static void test_failed_durable_write_is_a_failed_sync(void **state)
{
	(void)state;
	failed_once(MUX_WRITE, false);
}

static bool is_listed(struct world *w, const struct segment *g)
{
	const struct segment_store *s = world_store_of(w, 0);

	return s->segments[g->slot] == g;
}

/* An unlinked segment may come back with the power when its directory's sync failed, whatever the
 * next sync says: it counts as there, so that tombstones of its messages stay. */
static void test_unlinked_segment_counts_when_its_directory_was_not_synced(void **state)
{
	struct world *w = quiet_world();
	struct segment_store *s = world_store_of(w, 0);
	struct segment *g = s->active;
	int dir_fd = s->dir_fd;
	char name[SEGMENT_NAME_MAX];

	(void)state;
	fail_next(MUX_FSYNC, -EIO, 1);
	world_store(w, 1, 5000, ENVELOPE_SYNCED);
	world_settle(w);
	assert_int_equal(g->state, SEGMENT_ABANDONED);
	/* Names in it can be unlinked, but it cannot be synced. */
	s->dir_fd = open(w->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	w->expect_errors = true;
	finish_all(w);
	world_step(w, 1000);
	segment_name(g->id, name);
	assert_int_equal(faccessat(dir_fd, name, F_OK, 0), -1);
	assert_true(is_listed(w, g));
	close(s->dir_fd);
	s->dir_fd = dir_fd;
	world_step(w, 5000);
	assert_true(is_listed(w, g));
	world_stop(w);
	world_free(w);
}

static void test_failing_disk_refuses_mail_and_keeps_promises(void **state)
{
	struct world *w = quiet_world();
	struct model_message *old = w->messages;
	struct model_message *m;

	(void)state;
	fail_next(MUX_FSYNC, -EIO, 1000000);
	m = world_store(w, 1, 5000, ENVELOPE_SYNCED);
	world_defer(w, old, 0, 1, 0);
	world_step(w, 5000);
	assert_int_equal(m->state, MODEL_REFUSED);
	assert_int_equal(m->error, -EIO);
	assert_true(spool_full(w->spool));
	/* The state waits, however long that takes. */
	assert_int_equal(w->calls, 1);
	m = world_store(w, 1, 5000, ENVELOPE_SYNCED);
	world_step(w, 2500);
	assert_int_equal(m->state, MODEL_REFUSED);
	plan.count = 0;
	world_settle(w);
	world_rest(w);
	assert_false(spool_full(w->spool));
	assert_int_equal(old->deliveries[0].attempts, 1);
	m = world_store(w, 1, 5000, ENVELOPE_SYNCED);
	world_settle(w);
	assert_int_equal(m->state, MODEL_STORED);
	world_power_cut(w);
	world_start(w);
	assert_int_equal(w->found.messages, 2);
	assert_int_equal(w->resurrected, 0);
	world_stop(w);
	world_free(w);
}

/* What its sender was told of is not given back, however long the disk fails. */
static void test_failing_disk_keeps_what_was_promised(void **state)
{
	struct world *w = quiet_world();
	struct model_message *m;

	(void)state;
	fail_next(MUX_WRITE, -EIO, 1000000);
	w->promised = true;
	m = world_store(w, 1, 5000, ENVELOPE_MEMORY);
	world_step(w, 5000);
	assert_int_equal(w->calls, 1);
	assert_int_equal(world_counter(w, "store_refused"), 0);
	plan.count = 0;
	world_settle(w);
	assert_int_equal(m->state, MODEL_STORED);
	world_rest(w);
	assert_int_equal(world_check_power_cut(w), 2);
	world_stop(w);
	world_free(w);
}

static void test_hurried_stop_counts_what_it_gives_up(void **state)
{
	struct world *w = quiet_world();
	struct model_message *old = w->messages;

	(void)state;
	fail_next(MUX_FSYNC, -EIO, 1000000);
	world_store(w, 1, 5000, ENVELOPE_SYNCED);
	world_defer(w, old, 0, 1, 0);
	world_step(w, 2500);
	assert_int_equal(world_counter(w, "given_up"), 0);
	atomic_store(&w->rt.hurry, true);
	world_step(w, 2500);
	/* The state, and the tombstone of what was refused. */
	assert_int_equal(world_counter(w, "given_up"), 2);
	assert_int_equal(w->calls, 0);
	plan.count = 0;
	world_stop(w);
	world_free(w);
}

static void test_full_clears_without_requests(void **state)
{
	struct world *w = quiet_world();

	(void)state;
	fail_next(MUX_FSYNC, -EIO, 4);
	world_store(w, 1, 5000, ENVELOPE_SYNCED);
	world_settle(w);
	assert_true(spool_full(w->spool));
	world_step(w, 10000);
	assert_false(spool_full(w->spool));
	world_stop(w);
	world_free(w);
}

static void test_no_space_on_write_refuses_and_goes_on(void **state)
{
	struct world *w = quiet_world();
	struct model_message *old = w->messages;
	struct model_message *m[3];

	(void)state;
	if (world_store_of(w, 0)->active->direct_fd < 0) {
		print_message("the file system knows no O_DIRECT: skipped\n");
		world_stop(w);
		world_free(w);
		skip();
	}
	fail_next(MUX_WRITE, -ENOSPC, 1);
	plan.len_min = 5000;
	for (unsigned i = 0; i < 3; i++) {
		m[i] = world_store(w, 1, 5000, ENVELOPE_SYNCED);
	}
	world_defer(w, old, 0, 1, 0);
	world_step(w, 10);
	assert_int_equal(w->calls, 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(m[i]->state, MODEL_REFUSED);
		assert_int_equal(m[i]->error, -ENOSPC);
	}
	assert_int_equal(old->deliveries[0].attempts, 1);
	assert_true(spool_full(w->spool));
	assert_int_equal(world_counter(w, "segments_abandoned"), 0);
	world_step(w, 2500);
	assert_false(spool_full(w->spool));
	world_power_cut(w);
	world_start(w);
	assert_int_equal(w->found.messages, 1);
	assert_int_equal(w->resurrected, 0);
	world_stop(w);
	world_free(w);
}

static void test_min_free_refuses_mail_and_finishes_old(void **state)
{
	struct world *w = quiet_world();
	struct model_message *old = w->messages;
	struct model_message *m;

	(void)state;
	world_stop(w);
	w->options.min_free_bytes = UINT64_C(1) << 60;
	world_start(w);
	world_step(w, 10);
	assert_true(spool_full(w->spool));
	m = world_store(w, 1, 1000, ENVELOPE_SYNCED);
	world_settle(w);
	assert_int_equal(m->state, MODEL_REFUSED);
	assert_int_equal(m->error, -ENOSPC);
	assert_int_equal(world_load(w, old), 0);
	world_done(w, old, 0);
	world_settle(w);
	assert_true(old->deliveries[0].done);
	world_stop(w);
	w->options.min_free_bytes = 0;
	world_start(w);
	assert_int_equal(w->found.messages, 0);
	assert_false(spool_full(w->spool));
	world_stop(w);
	world_free(w);
}

/* On a small file system of its own. */
static void test_full_file_system(void **state)
{
	struct world *w = world_new(false);
	struct model_message *m = NULL;
	unsigned stored = 0;
	unsigned refused = 0;

	(void)state;
	if (mount("none", w->path, "tmpfs", 0, "size=6m") != 0) {
		print_message("no permission to mount a file system: skipped\n");
		world_free(w);
		skip();
	}
	w->options.min_free_bytes = 0;
	world_start(w);
	for (unsigned i = 0; i < 2000 && refused < 10; i++) {
		m = world_store(w, 1, 20000, ENVELOPE_SYNCED);
		world_settle(w);
		stored += m->state == MODEL_STORED;
		refused += m->state == MODEL_REFUSED;
	}
	assert_int_equal(m->error, -ENOSPC);
	assert_true(stored > 150);
	assert_true(spool_full(w->spool));
	for (m = w->messages; m != NULL; m = m->next) {
		if (m->state == MODEL_STORED) {
			assert_int_equal(world_load(w, m), 0);
			world_defer(w, m, 0, 1, 0);
			world_settle(w);
			world_done(w, m, 0);
		}
	}
	world_settle(w);
	world_step(w, 3000);
	world_rest(w);
	assert_false(spool_full(w->spool));
	m = world_store(w, 1, 20000, ENVELOPE_SYNCED);
	world_settle(w);
	assert_int_equal(m->state, MODEL_STORED);
	world_stop(w);
	assert_int_equal(umount(w->path), 0);
	world_free(w);
}

/* One byte of the message's record, so far from its start, is not what was written. */
static void damage(const struct model_message *m, off_t offset)
{
	const struct segment *g = m->entry->segment;
	off_t at = (off_t)m->entry->place * RECORD_ALIGN + offset;
	unsigned char byte;

	assert_int_equal(pread(g->fd, &byte, 1, at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(g->fd, &byte, 1, at), 1);
}

static void test_damaged_body_is_not_delivered(void **state)
{
	struct world *w = quiet_world();
	struct model_message *m = world_store(w, 1, 200000, ENVELOPE_SYNCED);

	(void)state;
	world_settle(w);
	damage(m, 100000);
	assert_int_equal(world_load(w, m), -EIO);
	assert_true(w->loaded_envelope);
	assert_int_equal(world_counter(w, "damaged"), 1);
	world_done(w, m, 0);
	world_settle(w);
	world_stop(w);
	world_free(w);
}

static void test_damaged_envelope_is_not_given_back(void **state)
{
	struct world *w = quiet_world();
	struct model_message *m = world_store(w, 1, 200000, ENVELOPE_SYNCED);

	(void)state;
	world_settle(w);
	damage(m, (off_t)sizeof(struct record_header) + 60);
	assert_int_equal(world_load(w, m), -EIO);
	assert_false(w->loaded_envelope);
	assert_int_equal(world_counter(w, "damaged"), 1);
	world_done(w, m, 0);
	world_settle(w);
	world_stop(w);
	world_free(w);
}

/* Who asks for it need not know whether it is there. */
static void test_load_of_what_is_over_finds_nothing(void **state)
{
	struct world *w = quiet_world();
	struct model_message *m = world_store(w, 1, 2000, ENVELOPE_SYNCED);

	(void)state;
	world_settle(w);
	world_done(w, m, 0);
	world_settle(w);
	assert_int_equal(world_load(w, m), -ENOENT);
	assert_false(w->loaded_envelope);
	world_stop(w);
	world_free(w);
}

static void test_failed_read_is_reported(void **state)
{
	struct world *w = quiet_world();

	(void)state;
	fail_next(MUX_READ, -EIO, 1);
	assert_int_equal(world_load(w, w->messages), -EIO);
	assert_int_equal(world_load(w, w->messages), 0);
	world_stop(w);
	world_free(w);
}

/* Says of a direct write that it cannot be. */
static int on_direct(struct world *w, const struct mux_op *op)
{
	(void)w;
	return op->verb == MUX_WRITE && (fcntl(op->fd, F_GETFL) & O_DIRECT) != 0 ? -EINVAL : 0;
}

static void test_direct_writes_may_be_refused(void **state)
{
	struct world *w = world_new(true);

	(void)state;
	w->disk->on_fault = on_direct;
	world_start(w);
	for (unsigned i = 0; i < 200; i++) {
		world_store(w, 1, 20000, ENVELOPE_SYNCED);
		world_settle(w);
	}
	assert_int_equal(world_check_power_cut(w), 200);
	world_rest(w);
	assert_int_equal(w->disk->direct_writes, 0);
	assert_true(w->disk->synced_writes >= 200);
	assert_int_equal(world_counter(w, "write_errors"), 0);
	assert_int_equal(world_counter(w, "sync_errors"), 0);
	assert_int_equal(world_counter(w, "segments_abandoned"), 0);
	finish_all(w);
	world_stop(w);
	world_free(w);
}

/* Behind a buffered write that finds no space other pages may be lost: the segment is given up. */
static void test_no_space_on_a_buffered_durable_write(void **state)
{
	struct world *w = quiet_world();
	struct segment *g = world_store_of(w, 0)->active;
	struct model_message *m;

	(void)state;
	g->direct_refused = true;
	fail_next(MUX_WRITE, -ENOSPC, 1);
	m = world_store(w, 1, 5000, ENVELOPE_SYNCED);
	world_settle(w);
	assert_int_equal(m->state, MODEL_STORED);
	assert_int_equal(world_counter(w, "sync_errors"), 1);
	assert_int_equal(world_counter(w, "segments_abandoned"), 1);
	assert_int_equal(world_check_power_cut(w), 2);
	finish_all(w);
	world_stop(w);
	world_free(w);
}

/* Many segments fill while each operation of preparing fails. */
static void test_preparing_may_fail(void **state)
{
	struct world *w = world_new(true);

	(void)state;
	memset(&plan, 0, sizeof(plan));
	w->disk->on_fault = on_fault;
	world_start(w);
	fail_next(MUX_WRITE, -EIO, 1000);
	plan.len_min = 500000;
	for (unsigned i = 0; i < 300; i++) {
		struct model_message *m = world_store(w, 1, 20000, ENVELOPE_SYNCED);

		world_settle(w);
		assert_int_equal(m->state, MODEL_STORED);
		world_done(w, m, 0);
	}
	world_settle(w);
	assert_true(plan.count < 1000);
	world_stop(w);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_failed_write_is_written_elsewhere),
		cmocka_unit_test(test_failed_sync_abandons_the_segment),
		cmocka_unit_test(test_failed_durable_write_is_a_failed_sync),
		cmocka_unit_test(test_unlinked_segment_counts_when_its_directory_was_not_synced),
		cmocka_unit_test(test_failing_disk_refuses_mail_and_keeps_promises),
		cmocka_unit_test(test_failing_disk_keeps_what_was_promised),
		cmocka_unit_test(test_hurried_stop_counts_what_it_gives_up),
		cmocka_unit_test(test_full_clears_without_requests),
		cmocka_unit_test(test_no_space_on_write_refuses_and_goes_on),
		cmocka_unit_test(test_min_free_refuses_mail_and_finishes_old),
		cmocka_unit_test(test_full_file_system),
		cmocka_unit_test(test_damaged_body_is_not_delivered),
		cmocka_unit_test(test_damaged_envelope_is_not_given_back),
		cmocka_unit_test(test_load_of_what_is_over_finds_nothing),
		cmocka_unit_test(test_failed_read_is_reported),
		cmocka_unit_test(test_direct_writes_may_be_refused),
		cmocka_unit_test(test_no_space_on_a_buffered_durable_write),
		cmocka_unit_test(test_preparing_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
