#include "core/runtime/fnv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

/* As its authors publish them. */
static void test_text_is_hashed_as_published(void **state)
{
	(void)state;
	assert_true(fnv_text(FNV_START, "") == UINT64_C(0xcbf29ce484222325));
	assert_true(fnv_text(FNV_START, "a") == UINT64_C(0xaf63dc4c8601ec8c));
	assert_true(fnv_text(FNV_START, "foobar") == UINT64_C(0x85944171f73967e8));
}

static void test_pieces_are_hashed_as_the_whole(void **state)
{
	uint64_t hash = fnv_text(FNV_START, "f\xe4o");

	(void)state;
	assert_true(fnv_bytes(FNV_START, "f\xe4o", 3) == hash);
	assert_true(fnv_text(fnv_octet(FNV_START, 'f'), "\xe4o") == hash);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text_is_hashed_as_published),
		cmocka_unit_test(test_pieces_are_hashed_as_the_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
