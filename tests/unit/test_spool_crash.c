/*
 * Power cuts: under random load, at random moments, the spool is opened as the disk would be found.
 * Everything that was answered must be there, and nothing that was done; then it goes on.
 * SPOOL_SEEDS=n runs n seeds instead of the usual few.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/runtime/check.h"
#include "spool/account.h"
#include "spool/store.h"
#include "tests/unit/spool_world.h"

#define LIVE_MAX 256

/* A random load and how much of what. */
struct load {
	uint64_t seed;
	struct model_message *live[LIVE_MAX];
	unsigned count;
	unsigned rounds;
	/* One in so many operations: look at what a cut would leave; cut; fail. 0: never. */
	unsigned check_one_in;
	unsigned cut_one_in;
	unsigned fault_one_in;
	/* Permille of the messages that stay for long. */
	unsigned keep_permille;
	bool cut;
	uint64_t checks;
	uint64_t cuts;
	uint64_t faults;
};

static struct load *current;

static uint64_t pick(struct load *l, uint64_t n)
{
	l->seed ^= l->seed << 13;
	l->seed ^= l->seed >> 7;
	l->seed ^= l->seed << 17;
	return l->seed % n;
}

static unsigned long seeds(unsigned long usual)
{
	const char *text = getenv("SPOOL_SEEDS");

	return text != NULL ? strtoul(text, NULL, 10) : usual;
}

static void on_op(struct world *w)
{
	struct load *l = current;

	if (l->check_one_in != 0 && pick(l, l->check_one_in) == 0) {
		l->checks++;
		if (world_check_power_cut(w) < 0) {
			fatal("the books do not balance");
		}
	}
	if (l->cut_one_in != 0 && pick(l, l->cut_one_in) == 0) {
		l->cut = true;
	}
}

static int on_fault(struct world *w, const struct mux_op *op)
{
	struct load *l = current;

	(void)w;
	if (op->verb == MUX_WRITE && pick(l, 20) == 0 && op->len > 1) {
		return (int)(1 + pick(l, op->len - 1));
	}
	if (l->fault_one_in == 0 || op->verb == MUX_READ || pick(l, l->fault_one_in) != 0) {
		return 0;
	}
	l->faults++;
	return -EIO;
}

static void forget(struct load *l, unsigned i)
{
	l->live[i] = l->live[--l->count];
}

static void some_store(struct world *w, struct load *l)
{
	uint64_t kind = pick(l, 100);
	size_t bytes = kind == 0 ? pick(l, 700000) : kind < 50 ? pick(l, 3000) : pick(l, 30000);

	if (l->count < LIVE_MAX) {
		l->live[l->count++] = world_store(w, (uint32_t)(1 + pick(l, 4) * pick(l, 2)), bytes,
						  ENVELOPE_SYNCED);
	}
}

/* Something for one delivery of a message that waits. */
static void some_progress(struct world *w, struct load *l)
{
	unsigned i = (unsigned)pick(l, l->count);
	struct model_message *m = l->live[i];
	bool open = false;
	uint32_t delivery;

	if (m->state == MODEL_REFUSED) {
		forget(l, i);
		return;
	}
	if (m->state == MODEL_ASKED || m->id.low % 1000 < l->keep_permille) {
		return;
	}
	delivery = (uint32_t)pick(l, m->delivery_count);
	if (!m->deliveries[delivery].done_asked) {
		if (pick(l, 4) == 0) {
			world_defer(w, m, delivery,
				    (uint16_t)(m->deliveries[delivery].attempts_asked + 1), 0);
		} else {
			world_done(w, m, delivery);
		}
	}
	for (uint32_t d = 0; d < m->delivery_count; d++) {
		open |= !m->deliveries[d].done_asked;
	}
	if (!open) {
		forget(l, i);
	}
}

/* What a start found is what is live. */
static void gather(struct world *w, struct load *l)
{
	l->count = 0;
	for (struct model_message *m = w->messages; m != NULL; m = m->next) {
		if (m->state == MODEL_STORED && m->seen != 0) {
			assert_true(l->count < LIVE_MAX);
			l->live[l->count++] = m;
		}
	}
}

static void cut(struct world *w, struct load *l)
{
	l->cut = false;
	l->cuts++;
	world_power_cut(w);
	/* A fault may have left a torn or an abandoned segment, and recovery says so. */
	world_start(w);
	gather(w, l);
}

static void check_loads(struct world *w, struct load *l)
{
	for (unsigned i = 0; i < 5 && l->count > 0; i++) {
		struct model_message *m = l->live[pick(l, l->count)];
		bool pending = false;

		for (uint32_t d = 0; d < m->delivery_count; d++) {
			pending |= !m->deliveries[d].done_asked;
		}
		if (m->state == MODEL_STORED && pending && !l->cut) {
			assert_int_equal(world_load(w, m), 0);
		}
	}
}

static void run(struct load *l)
{
	struct world *w = world_new(true);

	current = l;
	w->expect_errors = true;
	w->disk->seed = l->seed;
	w->disk->on_op = on_op;
	w->disk->on_fault = on_fault;
	world_start(w);
	for (unsigned i = 0; i < l->rounds; i++) {
		for (uint64_t n = pick(l, 12); n > 0; n--) {
			some_store(w, l);
		}
		for (uint64_t n = pick(l, 24); n > 0 && l->count > 0; n--) {
			some_progress(w, l);
		}
		w->disk->per_reap = (int)pick(l, 4);
		world_step(w, (unsigned)(1 + pick(l, 8)));
		if (pick(l, 50) == 0) {
			check_loads(w, l);
		}
		if (pick(l, 100) == 0) {
			world_settle(w);
			assert_true(store_validate(world_store_of(w, 0)));
		}
		if (l->cut) {
			cut(w, l);
		}
	}
	l->check_one_in = 0;
	l->cut_one_in = 0;
	l->fault_one_in = 0;
	w->disk->per_reap = 0;
	/* A moment for what is tried again every second. */
	world_step(w, 3000);
	world_rest(w);
	assert_true(store_validate(world_store_of(w, 0)));
	w->resurrected = 0;
	world_stop(w);
	world_start(w);
	assert_int_equal(w->resurrected, 0);
	world_stop(w);
	world_free(w);
}

static void test_books_balance_at_any_power_cut(void **state)
{
	uint64_t checks = 0;

	(void)state;
	for (unsigned long seed = 1; seed <= seeds(4); seed++) {
		struct load l = {.seed = seed * 7919,
				 .rounds = 300,
				 .check_one_in = 25,
				 .keep_permille = 20};

		run(&l);
		checks += l.checks;
	}
	assert_true(checks > 50);
}

static void test_books_balance_after_many_power_cuts(void **state)
{
	uint64_t cuts = 0;

	(void)state;
	for (unsigned long seed = 1; seed <= seeds(4); seed++) {
		struct load l = {.seed = seed * 104729,
				 .rounds = 400,
				 .check_one_in = 200,
				 .cut_one_in = 100,
				 .keep_permille = 20};

		run(&l);
		cuts += l.cuts;
	}
	assert_true(cuts > 10);
}

static void test_books_balance_with_failing_disk(void **state)
{
	uint64_t faults = 0;

	(void)state;
	for (unsigned long seed = 1; seed <= seeds(4); seed++) {
		struct load l = {.seed = seed * 1299709,
				 .rounds = 300,
				 .check_one_in = 50,
				 .cut_one_in = 400,
				 .fault_one_in = 60,
				 .keep_permille = 20};

		run(&l);
		faults += l.faults;
	}
	assert_true(faults > 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_books_balance_at_any_power_cut),
		cmocka_unit_test(test_books_balance_after_many_power_cuts),
		cmocka_unit_test(test_books_balance_with_failing_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
