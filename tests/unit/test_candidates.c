/* Candidates: added by one, found by many. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/queue/binding.h"
#include "core/queue/domain.h"
#include "listeners/control/candidates.h"

#define MANY 50000U

/* To bob and carol at `domain`, and dave at z.example. */
static struct envelope *envelope_to(const char *domain, const char *binding)
{
	struct envelope_builder b;
	struct envelope *e;
	char address[64];

	envelope_builder_init(&b);
	envelope_set_sender(&b, "a@b", 3);
	for (unsigned i = 0; i < 2; i++) {
		int len = snprintf(address, sizeof(address), "%s@%s", i == 0 ? "bob" : "carol",
				   domain);

		envelope_add_recipient(&b, address, (size_t)len);
	}
	envelope_add_recipient(&b, "dave@z.example", 14);
	envelope_set_binding(&b, binding);
	e = calloc(1, envelope_size(&b));
	assert_non_null(e);
	envelope_build(&b, e);
	envelope_builder_close(&b);
	return e;
}

static uint64_t hash_of(const char *binding, const char *domain)
{
	return domain_hash(binding, domain, strlen(domain));
}

static void test_finds_what_was_added_and_nothing_else(void **state)
{
	struct envelope *e = envelope_to("a.example", NULL);
	struct candidates c = {.count = 0};
	struct recipient_set found;

	(void)state;
	found = candidates_find(&c, &(struct message_id){1, 1}, 0);
	assert_true(recipient_set_empty(&found));
	for (uint64_t i = 1; i <= MANY; i++) {
		struct recipient_set one = {{UINT64_C(1) << (i % 2), 0}};

		e->id = (struct message_id){i / 7, i};
		candidates_add(&c, e, i % 3 == 0, &one, i % 3 == 0);
	}
	assert_int_equal(c.count, MANY);
	for (uint64_t i = 1; i <= MANY + 100; i++) {
		struct message_id id = {i / 7, i};
		bool all = i % 3 == 0;

		found = candidates_find(&c, &id, all);
		assert_int_equal(recipient_set_count(&found), i > MANY ? 0
							      : all ? ENVELOPE_DELIVERY_RECIPIENTS
								    : 1);
		if (i <= MANY && !all) {
			assert_true(recipient_set_has(&found, i % 2));
		}
		found = candidates_find(&c, &id, !all);
		assert_true(recipient_set_empty(&found));
	}
	candidates_close(&c);
	free(e);
}

static void test_copies_count_once(void **state)
{
	struct envelope *e = envelope_to("a.example", NULL);
	struct recipient_set one = {{1, 0}};
	struct candidates c = {.count = 0};

	(void)state;
	e->id = (struct message_id){3, 4};
	candidates_add(&c, e, 0, &one, false);
	candidates_add(&c, e, 0, &one, false);
	assert_int_equal(c.count, 1);
	candidates_close(&c);
	free(e);
}

static void test_knows_the_records_of_what_was_added(void **state)
{
	struct envelope *plain = envelope_to("a.example", NULL);
	struct envelope *bound = envelope_to("b.example", "news");
	struct recipient_set all = recipient_set_first(2);
	struct candidates c = {.count = 0};
	unsigned others = 0;
	char name[32];

	(void)state;
	assert_false(candidates_may_be_in(&c, hash_of(BINDING_DEFAULT, "a.example")));
	plain->id = (struct message_id){1, 1};
	bound->id = (struct message_id){1, 2};
	candidates_add(&c, plain, 0, &all, true);
	candidates_add(&c, bound, 0, &all, true);
	assert_true(candidates_may_be_in(&c, hash_of(BINDING_DEFAULT, "a.example")));
	assert_true(candidates_may_be_in(&c, hash_of("news", "b.example")));
	for (unsigned i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "d%u.example", i);
		others += candidates_may_be_in(&c, hash_of(BINDING_DEFAULT, name));
	}
	assert_true(others < 10);
	candidates_close(&c);
	free(plain);
	free(bound);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_finds_what_was_added_and_nothing_else),
		cmocka_unit_test(test_copies_count_once),
		cmocka_unit_test(test_knows_the_records_of_what_was_added),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
