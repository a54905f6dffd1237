#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/runtime/errlog.h"

static void count_new(void *context, const struct errlog_entry *entry)
{
	unsigned *count = context;

	assert_int_equal(entry->count, 1);
	++*count;
}

static void test_record_when_the_same_error_again(void **state)
{
	struct errlog log;
	unsigned new = 0;

	(void)state;
	assert_int_equal(errlog_init(&log), 0);
	log.on_new = count_new;
	log.context = &new;
	for (uint64_t t = 1; t <= 1000000; t++) {
		errlog_record(&log, t, -ENOSPC, "spool %s", "a");
	}
	assert_int_equal(new, 1);
	assert_int_equal(log.count, 1);
	assert_int_equal(log.entries[0].count, 1000000);
	assert_int_equal(log.entries[0].first_ns, 1);
	assert_int_equal(log.entries[0].last_ns, 1000000);
	assert_int_equal(log.entries[0].code, -ENOSPC);
	assert_string_equal(log.entries[0].text, "spool a");
	errlog_close(&log);
}

static void test_record_when_code_or_text_differ(void **state)
{
	struct errlog log;

	(void)state;
	assert_int_equal(errlog_init(&log), 0);
	errlog_record(&log, 1, -EIO, "spool a");
	errlog_record(&log, 2, -EIO, "spool b");
	errlog_record(&log, 3, -ENOSPC, "spool a");
	errlog_record(&log, 4, -EIO, "spool a");
	assert_int_equal(log.count, 3);
	assert_int_equal(log.entries[0].count, 2);
	assert_int_equal(log.entries[0].last_ns, 4);
	assert_string_equal(log.entries[1].text, "spool b");
	assert_int_equal(log.entries[2].code, -ENOSPC);
	errlog_close(&log);
}

static void test_record_when_more_distinct_errors_than_entries(void **state)
{
	struct errlog log;
	unsigned new = 0;

	(void)state;
	assert_int_equal(errlog_init(&log), 0);
	log.on_new = count_new;
	log.context = &new;
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < ERRLOG_ENTRIES + 10; i++) {
			errlog_record(&log, 5, 0, "error %d", i);
		}
	}
	assert_int_equal(new, ERRLOG_ENTRIES);
	assert_int_equal(log.count, ERRLOG_ENTRIES);
	assert_int_equal(log.overflow, 20);
	for (int i = 0; i < ERRLOG_ENTRIES; i++) {
		assert_int_equal(log.entries[i].count, 2);
	}
	errlog_close(&log);
}

static void test_record_when_text_is_too_long(void **state)
{
	struct errlog log;
	char text[ERRLOG_TEXT * 2];

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	assert_int_equal(errlog_init(&log), 0);
	errlog_record(&log, 1, -EIO, "%s", text);
	text[ERRLOG_TEXT] = 'y';
	errlog_record(&log, 2, -EIO, "%s", text);
	assert_int_equal(log.count, 1);
	assert_int_equal(log.entries[0].count, 2);
	assert_int_equal(strlen(log.entries[0].text), ERRLOG_TEXT - 1);
	errlog_close(&log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_record_when_the_same_error_again),
		cmocka_unit_test(test_record_when_code_or_text_differ),
		cmocka_unit_test(test_record_when_more_distinct_errors_than_entries),
		cmocka_unit_test(test_record_when_text_is_too_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
