/*
 * What next hops say most often: texts made alike, counted in a table that does not grow, and
 * forgotten in time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "core/outbound/reply_top.h"

#define MINUTE_MS UINT64_C(60000)

static struct reply_top top;

static int set_up(void **state)
{
	(void)state;
	memset(&top, 0, sizeof(top));
	return 0;
}

static void check(const char *text, const char *wanted)
{
	char made[REPLY_TOP_TEXT];

	reply_top_normalise(made, text);
	assert_string_equal(made, wanted);
}

static void test_normalise_when_texts_name_somebody(void **state)
{
	(void)state;
	check("550 5.1.1 <bob@example.com>: no such user", "550 5.1.1 <address> no such user");
	check("452 4.2.2 mailbox of alice@x full", "452 4.2.2 mailbox of <address> full");
	check("421 4.7.0 [192.0.2.1] try later (a1-20020a17)", "421 4.7.0 # try later #");
	check("550 5.7.606 Access denied", "550 5.7.606 Access denied");
	check("550 30 seconds", "550 30 seconds");
	check("  550\r\n 5.1.1\tunknown ", "550 5.1.1 unknown");
	check("", "");
	check("550 \001\377", "550 ??");
}

static void test_normalise_when_a_text_is_long(void **state)
{
	char text[2 * REPLY_TOP_TEXT];
	char made[REPLY_TOP_TEXT];

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	reply_top_normalise(made, text);
	assert_int_equal(strlen(made), REPLY_TOP_TEXT - 1);
}

static uint64_t count_of(const char *text)
{
	for (uint32_t i = 0; i < top.used; i++) {
		if (strcmp(top.entries[i].text, text) == 0) {
			return top.entries[i].count;
		}
	}
	return 0;
}

static void test_count_when_texts_are_alike(void **state)
{
	(void)state;
	reply_top_count(&top, "550 5.1.1 <a@b.c> unknown", 1, 1000);
	reply_top_count(&top, "550 5.1.1 <d@e.f> unknown", 4, 1000);
	reply_top_count(&top, "451 later", 2, 1000);
	assert_int_equal(top.used, 2);
	assert_int_equal(count_of("550 5.1.1 <address> unknown"), 5);
	assert_int_equal(count_of("451 later"), 2);
}

/* Whatever is frequent stays, however many rare texts come by, and no count is too low. */
static void test_count_when_there_are_more_texts_than_room(void **state)
{
	char text[32];

	(void)state;
	for (unsigned i = 0; i < 10000; i++) {
		snprintf(text, sizeof(text), "550 %c%c%c", 'a' + i % 26, 'a' + i / 26 % 26,
			 'a' + i / 676 % 26);
		reply_top_count(&top, text, 1, 1000);
		if (i % 10 == 0) {
			reply_top_count(&top, "452 often", 1, 1000);
		}
	}
	assert_int_equal(top.used, REPLY_TOP_ENTRIES);
	assert_true(count_of("452 often") >= 1000);
	for (uint32_t i = 0; i < top.used; i++) {
		const struct reply_top_entry *e = &top.entries[i];

		assert_true(e->count > e->error);
		if (strcmp(e->text, "452 often") == 0) {
			assert_true(e->count - e->error <= 1000);
		}
	}
}

/* What a newcomer may have had before, unseen, is no more than what the rarest one has. */
static void test_count_when_a_text_takes_anothers_place(void **state)
{
	char text[32];

	(void)state;
	for (unsigned i = 0; i < REPLY_TOP_ENTRIES; i++) {
		snprintf(text, sizeof(text), "550 %c%c", 'a' + i % 26, 'a' + i / 26);
		reply_top_count(&top, text, 10 + i, 1000);
	}
	reply_top_count(&top, "451 new", 2, 1000);
	assert_int_equal(count_of("550 aa"), 0);
	assert_int_equal(count_of("451 new"), 12);
	assert_int_equal(top.entries[0].error, 10);
}

static void test_age_halves_and_forgets(void **state)
{
	(void)state;
	reply_top_count(&top, "550 often", 8, MINUTE_MS);
	reply_top_count(&top, "550 once", 1, MINUTE_MS);
	reply_top_age(&top, 10 * MINUTE_MS);
	assert_int_equal(count_of("550 often"), 8);
	reply_top_age(&top, 11 * MINUTE_MS);
	assert_int_equal(count_of("550 often"), 4);
	assert_int_equal(count_of("550 once"), 0);
	assert_int_equal(top.used, 1);
	reply_top_count(&top, "550 often", 1, 31 * MINUTE_MS);
	assert_int_equal(count_of("550 often"), 2);
	reply_top_age(&top, 100000 * MINUTE_MS);
	assert_int_equal(top.used, 0);
	/* Time goes on from there. */
	reply_top_count(&top, "550 often", 4, 100000 * MINUTE_MS);
	reply_top_age(&top, 100010 * MINUTE_MS);
	assert_int_equal(count_of("550 often"), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_normalise_when_texts_name_somebody, set_up),
		cmocka_unit_test_setup(test_normalise_when_a_text_is_long, set_up),
		cmocka_unit_test_setup(test_count_when_texts_are_alike, set_up),
		cmocka_unit_test_setup(test_count_when_there_are_more_texts_than_room, set_up),
		cmocka_unit_test_setup(test_count_when_a_text_takes_anothers_place, set_up),
		cmocka_unit_test_setup(test_age_halves_and_forgets, set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
