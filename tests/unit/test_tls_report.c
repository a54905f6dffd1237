/* Counts of TLS sessions by domain, day, policy and result: what is kept, and for how long. */
#include "core/outbound/tls_report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define DAY_MS UINT64_C(86400000)
#define TODAY UINT64_C(20000)

static struct tls_reports reports;

static int close_reports(void **state)
{
	(void)state;
	tls_reports_close(&reports);
	return 0;
}

static void count(const char *domain, uint64_t day, enum tls_report_result result)
{
	tls_report_count(&reports, domain, TLS_REPORT_STS, result, day * DAY_MS + 5);
}

static const struct tls_report_day *find(const char *domain, uint32_t day)
{
	const struct tls_report *t = tls_report_find(&reports, domain);

	for (int i = 0; t != NULL && i < TLS_REPORT_DAYS; i++) {
		if (t->days[i].day == day) {
			return &t->days[i];
		}
	}
	return NULL;
}

static void test_counts_by_domain_policy_and_result(void **state)
{
	const struct tls_report_day *d;

	(void)state;
	assert_null(tls_report_find(&reports, "a.test"));
	count("a.test", TODAY, TLS_REPORT_SUCCESS);
	count("a.test", TODAY, TLS_REPORT_SUCCESS);
	count("a.test", TODAY, TLS_REPORT_EXPIRED);
	count("b.test", TODAY, TLS_REPORT_EXPIRED);
	tls_report_count(&reports, "a.test", TLS_REPORT_TLSA, TLS_REPORT_SUCCESS,
			 TODAY * DAY_MS + DAY_MS - 1);
	d = find("a.test", TODAY);
	assert_non_null(d);
	assert_int_equal(d->counts[TLS_REPORT_STS][TLS_REPORT_SUCCESS], 2);
	assert_int_equal(d->counts[TLS_REPORT_STS][TLS_REPORT_EXPIRED], 1);
	assert_int_equal(d->counts[TLS_REPORT_TLSA][TLS_REPORT_SUCCESS], 1);
	assert_int_equal(d->counts[TLS_REPORT_NO_POLICY][TLS_REPORT_SUCCESS], 0);
	assert_int_equal(find("b.test", TODAY)->counts[TLS_REPORT_STS][TLS_REPORT_SUCCESS], 0);
	assert_null(find("c.test", TODAY));
}

static void test_so_many_days(void **state)
{
	(void)state;
	for (uint32_t day = TODAY; day < TODAY + TLS_REPORT_DAYS; day++) {
		count("a.test", day, TLS_REPORT_SUCCESS);
	}
	assert_non_null(find("a.test", TODAY));
	count("a.test", TODAY + TLS_REPORT_DAYS, TLS_REPORT_EXPIRED);
	assert_null(find("a.test", TODAY));
	for (uint32_t day = TODAY + 1; day < TODAY + TLS_REPORT_DAYS; day++) {
		assert_int_equal(find("a.test", day)->counts[TLS_REPORT_STS][0], 1);
	}
	/* Nothing of the day whose place it took. */
	assert_int_equal(find("a.test", TODAY + TLS_REPORT_DAYS)->counts[TLS_REPORT_STS][0], 0);
}

static void test_so_many_domains(void **state)
{
	char name[32];

	(void)state;
	for (unsigned i = 0; i < TLS_REPORT_DOMAINS_MAX; i++) {
		snprintf(name, sizeof name, "d%u.test", i);
		count(name, TODAY, TLS_REPORT_SUCCESS);
	}
	assert_int_equal(reports.count, TLS_REPORT_DOMAINS_MAX);
	/* The one used last but for this has to go. */
	count("d0.test", TODAY, TLS_REPORT_SUCCESS);
	count("new.test", TODAY, TLS_REPORT_SUCCESS);
	assert_int_equal(reports.count, TLS_REPORT_DOMAINS_MAX);
	assert_non_null(find("d0.test", TODAY));
	assert_null(find("d1.test", TODAY));
	assert_non_null(find("d2.test", TODAY));
	assert_non_null(find("new.test", TODAY));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_counts_by_domain_policy_and_result, close_reports),
		cmocka_unit_test_teardown(test_so_many_days, close_reports),
		cmocka_unit_test_teardown(test_so_many_domains, close_reports),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
