#include "agents/log_schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#define MINUTE 60
#define HOUR 3600
#define DAY 86400

static void use_zone(const char *zone)
{
	assert_int_equal(setenv("TZ", zone, 1), 0);
	tzset();
}

static int64_t local(int year, int month, int day, int hour, int minute)
{
	struct tm tm = {.tm_year = year - 1900,
			.tm_mon = month - 1,
			.tm_mday = day,
			.tm_hour = hour,
			.tm_min = minute,
			.tm_isdst = -1};

	return mktime(&tm);
}

/* How often it is due when it is asked each minute for `seconds`; each time it is rotated. */
static unsigned count_due(struct log_schedule *s, int64_t from, int64_t seconds)
{
	unsigned due = 0;

	for (int64_t now = from; now <= from + seconds; now += MINUTE) {
		if (log_schedule_due(s, now)) {
			due++;
			log_schedule_next(s, now);
			assert_false(log_schedule_due(s, now));
		}
	}
	return due;
}

static void test_hourly_is_at_the_full_hour_of_local_time(void **state)
{
	struct log_schedule s;
	int64_t from;

	(void)state;
	use_zone("Asia/Kolkata");
	from = local(2026, 11, 23, 9, 59);
	log_schedule_start(&s, LOG_PERIOD_HOURLY, from);
	assert_false(log_schedule_due(&s, from));
	assert_false(log_schedule_due(&s, from + MINUTE - 1));
	assert_true(log_schedule_due(&s, from + MINUTE));
	/* Until it is done. */
	assert_true(log_schedule_due(&s, from + MINUTE));
	assert_true(log_schedule_due(&s, from + 2 * MINUTE));
	log_schedule_next(&s, from + 2 * MINUTE);
	assert_false(log_schedule_due(&s, from + HOUR));
	assert_true(log_schedule_due(&s, from + HOUR + MINUTE));
}

static void test_daily_is_at_local_midnight(void **state)
{
	struct log_schedule s;
	int64_t midnight;

	(void)state;
	use_zone("America/New_York");
	midnight = local(2026, 11, 24, 0, 0);
	log_schedule_start(&s, LOG_PERIOD_DAILY, local(2026, 11, 23, 0, 0));
	assert_false(log_schedule_due(&s, midnight - 1));
	assert_true(log_schedule_due(&s, midnight));
}

static void test_days_with_23_and_25_hours_are_one_rotation_each(void **state)
{
	struct log_schedule s;

	(void)state;
	use_zone("Europe/Berlin");
	log_schedule_start(&s, LOG_PERIOD_DAILY, local(2026, 3, 28, 12, 0));
	assert_int_equal(count_due(&s, local(2026, 3, 28, 12, 0), 2 * DAY), 2);
	assert_int_equal(s.next_s, local(2026, 3, 31, 0, 0));
	log_schedule_start(&s, LOG_PERIOD_DAILY, local(2026, 10, 24, 12, 0));
	assert_int_equal(count_due(&s, local(2026, 10, 24, 12, 0), 2 * DAY), 2);
	assert_int_equal(s.next_s, local(2026, 10, 27, 0, 0));
	log_schedule_start(&s, LOG_PERIOD_HOURLY, local(2026, 10, 25, 0, 0));
	assert_int_equal(count_due(&s, local(2026, 10, 25, 0, 0), 25 * HOUR), 25);
}

/* In Beirut clocks go from 23:59 to 1:00. */
static void test_day_without_midnight_has_its_rotation(void **state)
{
	struct log_schedule s;

	(void)state;
	use_zone("Asia/Beirut");
	log_schedule_start(&s, LOG_PERIOD_DAILY, local(2026, 3, 28, 22, 30));
	assert_int_equal(count_due(&s, local(2026, 3, 28, 22, 30), 2 * DAY), 2);
	/* Whatever offset the C library saw last. */
	local(2026, 7, 1, 0, 0);
	log_schedule_start(&s, LOG_PERIOD_DAILY, local(2026, 3, 28, 23, 30));
	assert_true(s.next_s > local(2026, 3, 28, 23, 30));
	local(2026, 7, 1, 0, 0);
	log_schedule_start(&s, LOG_PERIOD_DAILY, local(2026, 3, 29, 1, 0) - 1);
	assert_true(s.next_s >= local(2026, 3, 29, 1, 0));
}

static void test_clock_that_goes_forward_is_one_rotation(void **state)
{
	struct log_schedule s;
	int64_t from;

	(void)state;
	use_zone("UTC");
	from = local(2026, 11, 23, 9, 30);
	log_schedule_start(&s, LOG_PERIOD_DAILY, from);
	assert_true(log_schedule_due(&s, from + 30 * DAY));
	log_schedule_next(&s, from + 30 * DAY);
	assert_int_equal(count_due(&s, from + 30 * DAY, 14 * HOUR), 0);
}

static void test_clock_that_goes_back_is_rotated_at_the_next_hour(void **state)
{
	struct log_schedule s;
	int64_t from;

	(void)state;
	use_zone("UTC");
	from = local(2026, 11, 23, 9, 30);
	log_schedule_start(&s, LOG_PERIOD_HOURLY, from);
	assert_false(log_schedule_due(&s, from - 30 * DAY));
	assert_int_equal(count_due(&s, from - 30 * DAY, 30 * MINUTE), 1);
	/* What was found in the file is from the future. */
	log_schedule_start(&s, LOG_PERIOD_HOURLY, from + DAY);
	assert_int_equal(count_due(&s, from, HOUR), 1);
}

static void test_never_is_never(void **state)
{
	struct log_schedule s;

	(void)state;
	use_zone("UTC");
	log_schedule_start(&s, LOG_PERIOD_NEVER, 0);
	assert_int_equal(count_due(&s, 0, 2 * DAY), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hourly_is_at_the_full_hour_of_local_time),
		cmocka_unit_test(test_daily_is_at_local_midnight),
		cmocka_unit_test(test_days_with_23_and_25_hours_are_one_rotation_each),
		cmocka_unit_test(test_day_without_midnight_has_its_rotation),
		cmocka_unit_test(test_clock_that_goes_forward_is_one_rotation),
		cmocka_unit_test(test_clock_that_goes_back_is_rotated_at_the_next_hour),
		cmocka_unit_test(test_never_is_never),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
