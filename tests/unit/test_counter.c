#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "core/runtime/counter.h"

struct seen {
	char text[1024];
	unsigned count;
};

static void note(void *context, const char *name, const char *label, enum counter_kind kind,
		 uint64_t value)
{
	struct seen *s = context;
	size_t used = strlen(s->text);

	snprintf(s->text + used, sizeof(s->text) - used, "%s=%llu/%d/%s;", name,
		 (unsigned long long)value, (int)kind, label);
	s->count++;
}

static void test_arithmetic_when_one_writer(void **state)
{
	struct counter_set *set = counter_set_create("t");
	struct counter *c = counter_create(set, "n", COUNTER_SUM, "Things");

	(void)state;
	assert_int_equal(counter_get(c), 0);
	counter_inc(c);
	counter_add(c, 41);
	assert_int_equal(counter_get(c), 42);
	counter_sub(c, 2);
	assert_int_equal(counter_get(c), 40);
	counter_max(c, 39);
	assert_int_equal(counter_get(c), 40);
	counter_max(c, 50);
	assert_int_equal(counter_get(c), 50);
	counter_set_value(c, 7);
	assert_int_equal(counter_get(c), 7);
	counter_set_destroy(set);
}

static void test_each_when_sets_in_order_of_creation(void **state)
{
	char prefix[] = "scheduler.0";
	struct counter_set *a = counter_set_create(prefix);
	struct counter_set *b = counter_set_create("wheel");
	struct counter_set *c = counter_set_create("last");
	struct seen s = {.count = 0};

	(void)state;
	/* The prefix is the set's own copy. */
	memset(prefix, 'x', sizeof(prefix) - 1);
	counter_add(counter_create(b, "armed", COUNTER_GAUGE, "Deadlines"), 3);
	counter_add(counter_create(a, "sent", COUNTER_SUM, "Messages"), 1);
	counter_add(counter_create(a, "longest", COUNTER_MAX, "Longest"), 2);
	counter_create(c, "zero", COUNTER_SUM, "Nothing");
	counter_each(note, &s);
	assert_string_equal(s.text, "scheduler.0.sent=1/0/Messages;scheduler.0.longest=2/2/Longest;"
				    "wheel.armed=3/1/Deadlines;last.zero=0/0/Nothing;");
	counter_set_destroy(b);
	s = (struct seen){.count = 0};
	counter_each(note, &s);
	assert_string_equal(s.text, "scheduler.0.sent=1/0/Messages;scheduler.0.longest=2/2/Longest;"
				    "last.zero=0/0/Nothing;");
	counter_set_destroy(a);
	counter_set_destroy(c);
	s = (struct seen){.count = 0};
	counter_each(note, &s);
	assert_int_equal(s.count, 0);
}

static void test_total_when_name_in_several_sets(void **state)
{
	struct counter_set *a = counter_set_create("a");
	struct counter_set *b = counter_set_create("b");

	(void)state;
	counter_add(counter_create(a, "sent", COUNTER_SUM, "Sent"), 5);
	counter_add(counter_create(b, "sent", COUNTER_SUM, "Sent"), 6);
	counter_add(counter_create(b, "sentry", COUNTER_SUM, "Other"), 100);
	assert_int_equal(counter_total("sent"), 11);
	assert_int_equal(counter_total("a.sent"), 0);
	counter_set_destroy(a);
	assert_int_equal(counter_total("sent"), 6);
	counter_set_destroy(b);
	assert_int_equal(counter_total("sent"), 0);
}

static void test_create_when_set_is_full(void **state)
{
	static char names[256][16];
	struct counter_set *set = counter_set_create("full");
	struct counter *last = NULL;

	(void)state;
	for (int i = 0; i < 256; i++) {
		struct counter *c;

		snprintf(names[i], sizeof(names[i]), "x%d", i);
		c = counter_create(set, names[i], COUNTER_SUM, "X");
		assert_ptr_not_equal(c, last);
		counter_inc(c);
		last = c;
	}
	/* One that is there already needs no room. */
	assert_ptr_equal(counter_create(set, "x255", COUNTER_SUM, "X"), last);
	assert_int_equal(counter_total("x255"), 1);
	counter_set_destroy(set);
}

#define WRITES 200000

static void *write_counter(void *context)
{
	struct counter *c = context;

	for (int i = 0; i < WRITES; i++) {
		counter_inc(c);
	}
	return NULL;
}

/* Readers and makers of sets run beside a writer; the sanitizers watch. */
static void test_each_when_written_meanwhile(void **state)
{
	struct counter_set *set = counter_set_create("busy");
	struct counter *c = counter_create(set, "n", COUNTER_SUM, "Things");
	uint64_t before = 0;
	pthread_t thread;

	(void)state;
	assert_int_equal(pthread_create(&thread, NULL, write_counter, c), 0);
	for (int i = 0; i < 100; i++) {
		struct counter_set *other = counter_set_create("other");
		uint64_t now = counter_total("n");

		assert_true(now >= before && now <= WRITES);
		before = now;
		counter_set_destroy(other);
	}
	pthread_join(thread, NULL);
	assert_int_equal(counter_total("n"), WRITES);
	counter_set_destroy(set);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_arithmetic_when_one_writer),
		cmocka_unit_test(test_each_when_sets_in_order_of_creation),
		cmocka_unit_test(test_total_when_name_in_several_sets),
		cmocka_unit_test(test_create_when_set_is_full),
		cmocka_unit_test(test_each_when_written_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
