/*
 * What next hops of a site said: the latest that differ, counted.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "core/queue/answers.h"

static struct answers *answers;

static int set_up(void **state)
{
	(void)state;
	answers = NULL;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	answers_free(answers);
	return 0;
}

static struct answer answer_of(const char *text, uint64_t at_ms)
{
	return (struct answer){
		.count = 1, .at_ms = at_ms, .domain = "x.test", .host = "192.0.2.1", .text = text};
}

static void add(const char *text, uint64_t at_ms)
{
	struct answer said = answer_of(text, at_ms);

	answers_add(&answers, &said);
}

static void test_add_when_texts_are_lent(void **state)
{
	char text[16] = "450 later";
	struct answer said = answer_of(text, 1);

	(void)state;
	said.failed = true;
	answers_add(&answers, &said);
	text[0] = 'x';
	assert_int_equal(answers->count, 1);
	assert_string_equal(answers->rows[0]->text, "450 later");
	assert_string_equal(answers->rows[0]->domain, "x.test");
	assert_string_equal(answers->rows[0]->host, "192.0.2.1");
	assert_true(answers->rows[0]->failed);
}

static void test_add_when_it_comes_again(void **state)
{
	struct answer said = answer_of("450 a", 5);

	(void)state;
	add("450 a", 1);
	add("450 b", 2);
	said.count = 3;
	answers_add(&answers, &said);
	assert_int_equal(answers->count, 2);
	assert_string_equal(answers->rows[0]->text, "450 a");
	assert_int_equal(answers->rows[0]->count, 4);
	assert_int_equal(answers->rows[0]->at_ms, 5);
	assert_string_equal(answers->rows[1]->text, "450 b");
	assert_int_equal(answers->rows[1]->count, 1);
}

static void test_add_when_it_differs_in_one_thing(void **state)
{
	struct answer of_other = answer_of("450 a", 2);
	struct answer by_other = answer_of("450 a", 3);
	struct answer for_good = answer_of("450 a", 4);

	(void)state;
	of_other.domain = "y.test";
	by_other.host = "";
	for_good.failed = true;
	add("450 a", 1);
	answers_add(&answers, &of_other);
	answers_add(&answers, &by_other);
	answers_add(&answers, &for_good);
	assert_int_equal(answers->count, 4);
	assert_true(answers->rows[0]->failed);
	assert_string_equal(answers->rows[1]->host, "");
	assert_string_equal(answers->rows[2]->domain, "y.test");
}

static void test_add_when_there_are_too_many(void **state)
{
	char text[16];

	(void)state;
	for (unsigned i = 0; i < ANSWERS_MAX; i++) {
		snprintf(text, sizeof(text), "450 %u", i);
		add(text, i);
	}
	/* The oldest one has been heard again: the one after it gives way. */
	add("450 0", 100);
	add("450 new", 101);
	assert_int_equal(answers->count, ANSWERS_MAX);
	assert_string_equal(answers->rows[0]->text, "450 new");
	assert_string_equal(answers->rows[1]->text, "450 0");
	assert_string_equal(answers->rows[ANSWERS_MAX - 1]->text, "450 2");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_add_when_texts_are_lent, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_add_when_it_comes_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_add_when_it_differs_in_one_thing, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_add_when_there_are_too_many, set_up,
						tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
