#include "core/runtime/pool.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

struct object {
	char bytes[48];
};

static void test_get_when_empty_allocates(void **state)
{
	struct pool p;
	void *a;
	void *b;

	(void)state;
	pool_init(&p, "test", sizeof(struct object), 4);
	a = pool_get(&p);
	b = pool_get(&p);
	assert_non_null(a);
	assert_ptr_not_equal(a, b);
	memset(a, 1, sizeof(struct object));
	memset(b, 2, sizeof(struct object));
	assert_int_equal(p.live, 2);
	assert_int_equal(p.allocations, 2);
	pool_put(&p, a);
	pool_put(&p, b);
	assert_int_equal(p.live, 0);
	assert_int_equal(p.kept, 2);
	pool_close(&p);
	assert_int_equal(p.kept, 0);
}

static void test_get_when_kept_reuses_the_latest(void **state)
{
	struct pool p;
	void *a;
	void *b;

	(void)state;
	pool_init(&p, "test", sizeof(struct object), 4);
	a = pool_get(&p);
	b = pool_get(&p);
	pool_put(&p, a);
	pool_put(&p, b);
	assert_ptr_equal(pool_get(&p), b);
	assert_ptr_equal(pool_get(&p), a);
	assert_int_equal(p.allocations, 2);
	memset(a, 3, sizeof(struct object));
	pool_put(&p, a);
	pool_put(&p, b);
	pool_close(&p);
}

static void test_put_above_keep_max_frees(void **state)
{
	struct pool p;
	void *objects[10];

	(void)state;
	pool_init(&p, "test", sizeof(struct object), 3);
	for (unsigned i = 0; i < 10; i++) {
		objects[i] = pool_get(&p);
	}
	for (unsigned i = 0; i < 10; i++) {
		pool_put(&p, objects[i]);
	}
	assert_int_equal(p.kept, 3);
	assert_int_equal(p.live, 0);
	pool_close(&p);
}

/* What was not used between two calls goes, half of it each time, and no more than is allowed. */
static void test_trim_gives_back_what_lay_unused(void **state)
{
	struct pool p;
	void *objects[10];

	(void)state;
	pool_init(&p, "test", sizeof(struct object), 16);
	for (unsigned i = 0; i < 10; i++) {
		objects[i] = pool_get(&p);
	}
	for (unsigned i = 0; i < 10; i++) {
		pool_put(&p, objects[i]);
	}
	/* None was there all the time. */
	pool_trim(&p, 100);
	assert_int_equal(p.kept, 10);
	for (unsigned i = 0; i < 4; i++) {
		objects[i] = pool_get(&p);
	}
	for (unsigned i = 0; i < 4; i++) {
		pool_put(&p, objects[i]);
	}
	pool_trim(&p, 100);
	assert_int_equal(p.kept, 7);
	pool_trim(&p, 2);
	assert_int_equal(p.kept, 5);
	for (unsigned i = 0; i < 3; i++) {
		pool_trim(&p, 100);
	}
	assert_int_equal(p.kept, 0);
	assert_int_equal(p.live, 0);
	pool_trim(&p, 100);
	objects[0] = pool_get(&p);
	pool_put(&p, objects[0]);
	assert_int_equal(p.kept, 1);
	pool_empty(&p);
	assert_int_equal(p.kept, 0);
	pool_close(&p);
}

static void test_put_null_is_ignored(void **state)
{
	struct pool p;

	(void)state;
	pool_init(&p, "test", sizeof(struct object), 3);
	pool_put(&p, NULL);
	assert_int_equal(p.live, 0);
	assert_int_equal(p.kept, 0);
	pool_close(&p);
}

static void test_put_into_another_pool_balances_in_sum(void **state)
{
	struct pool a;
	struct pool b;
	void *object;

	(void)state;
	pool_init(&a, "one", sizeof(struct object), 3);
	pool_init(&b, "other", sizeof(struct object), 3);
	object = pool_get(&a);
	pool_put(&b, object);
	assert_int_equal(a.live, 1);
	assert_int_equal(b.live, -1);
	assert_ptr_equal(pool_get(&b), object);
	pool_put(&b, object);
	pool_close(&a);
	pool_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_get_when_empty_allocates),
		cmocka_unit_test(test_get_when_kept_reuses_the_latest),
		cmocka_unit_test(test_put_above_keep_max_frees),
		cmocka_unit_test(test_trim_gives_back_what_lay_unused),
		cmocka_unit_test(test_put_null_is_ignored),
		cmocka_unit_test(test_put_into_another_pool_balances_in_sum),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
