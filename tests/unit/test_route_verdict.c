/* Verdicts: what policies of MTA-STS leave of them, and the replies that they mean. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/mail/sts_policy.h"
#include "core/outbound/route.h"

#define HOSTS 3
#define TTL_MS 60000

/* Hosts in one piece of memory, as a look-up finds them. */
static struct route_verdict verdict_of(const char *const names[HOSTS])
{
	struct route_verdict v = {.result = ROUTE_HOSTS, .count = HOSTS, .ttl_ms = TTL_MS};

	v.hosts = calloc(HOSTS, sizeof *v.hosts);
	v.mx = strdup("10 a.test 20 b.test 30 c.test");
	assert_non_null(v.hosts);
	assert_non_null(v.mx);
	for (unsigned i = 0; i < HOSTS; i++) {
		v.hosts[i].name = names[i];
		v.hosts[i].preference = (uint16_t)(10 * (i + 1));
	}
	return v;
}

static struct route_verdict three(void)
{
	static const char *const names[HOSTS] = {"a.test", "b.test", "c.test"};

	return verdict_of(names);
}

static void obey(struct route_verdict *v, const char *mode, const char *mx)
{
	char text[128];
	char why[STS_WHY];
	struct sts_policy *p;
	int len = snprintf(text, sizeof text, "version: STSv1\nmode: %s\nmax_age: 86400\nmx: %s\n",
			   mode, mx);

	p = sts_policy_parse(text, (size_t)len, why);
	assert_non_null(p);
	route_obey(v, "d.test", p);
	sts_policy_release(p);
}

static void test_hosts_that_a_policy_does_not_list_are_left_out(void **state)
{
	struct route_verdict v = three();

	(void)state;
	obey(&v, "enforce", "b.test");
	assert_int_equal(v.result, ROUTE_HOSTS);
	assert_int_equal(v.count, 1);
	assert_string_equal(v.hosts[0].name, "b.test");
	assert_int_equal(v.hosts[0].preference, 20);
	assert_int_equal(v.hosts[0].sts, HOST_STS_ENFORCE);
	assert_int_equal(v.ttl_ms, TTL_MS);
	route_verdict_free(&v);
}

static void test_order_stays_when_hosts_are_left_out(void **state)
{
	static const char *const names[HOSTS] = {"x.other.test", "b.test", "y.other.test"};
	struct route_verdict v = verdict_of(names);

	(void)state;
	obey(&v, "enforce", "*.other.test");
	assert_int_equal(v.count, 2);
	assert_string_equal(v.hosts[0].name, "x.other.test");
	assert_string_equal(v.hosts[1].name, "y.other.test");
	route_verdict_free(&v);
}

/* Hosts and exchangers are freed: there are none. */
static void test_nothing_is_left_when_a_policy_lists_nobody(void **state)
{
	struct route_verdict v = three();

	(void)state;
	obey(&v, "enforce", "elsewhere.test");
	assert_int_equal(v.result, ROUTE_STS);
	assert_int_equal(v.count, 0);
	assert_null(v.hosts);
	assert_null(v.mx);
	assert_int_equal(v.ttl_ms, 0);
	assert_string_equal(v.text, "the MTA-STS policy of d.test lists none of its mail "
				    "exchangers, such as a.test");
	/* Nor a second time. */
	obey(&v, "enforce", "elsewhere.test");
	assert_int_equal(v.result, ROUTE_STS);
	route_verdict_free(&v);
}

static void test_testing_leaves_nobody_out(void **state)
{
	struct route_verdict v = three();

	(void)state;
	obey(&v, "testing", "b.test");
	assert_int_equal(v.count, HOSTS);
	assert_int_equal(v.hosts[0].sts, HOST_STS_TESTING_UNLISTED);
	assert_int_equal(v.hosts[1].sts, HOST_STS_TESTING);
	assert_int_equal(v.hosts[2].sts, HOST_STS_TESTING_UNLISTED);
	route_verdict_free(&v);
}

static void test_no_policy_changes_nothing(void **state)
{
	struct route_verdict v = three();

	(void)state;
	route_obey(&v, "d.test", NULL);
	obey(&v, "none", "elsewhere.test");
	assert_int_equal(v.count, HOSTS);
	for (unsigned i = 0; i < HOSTS; i++) {
		assert_int_equal(v.hosts[i].sts, HOST_STS_NONE);
	}
	route_verdict_free(&v);
}

/* DANE comes first (RFC 8461 section 2). */
static void test_hosts_with_tlsa_records_are_none_of_its_business(void **state)
{
	/* Only that there is one counts. */
	static const char records[64];
	struct route_verdict v = three();

	(void)state;
	v.hosts[2].dane = (const struct dane *)(const void *)records;
	obey(&v, "enforce", "elsewhere.test");
	assert_int_equal(v.result, ROUTE_HOSTS);
	assert_int_equal(v.count, 1);
	assert_string_equal(v.hosts[0].name, "c.test");
	assert_int_equal(v.hosts[0].sts, HOST_STS_NONE);
	route_verdict_free(&v);
}

static void test_a_failed_look_up_stays_what_it_is(void **state)
{
	struct route_verdict v = {.result = ROUTE_SERVFAIL, .text = "no answer"};

	(void)state;
	obey(&v, "enforce", "elsewhere.test");
	assert_int_equal(v.result, ROUTE_SERVFAIL);
	assert_string_equal(v.text, "no answer");
	route_verdict_free(&v);
}

static void test_what_results_mean(void **state)
{
	static const struct {
		enum route_result result;
		bool permanent;
		uint16_t code;
		const char *enhanced;
	} cases[] = {
		{ROUTE_NXDOMAIN, true, 550, "5.1.2"},    {ROUTE_NULL_MX, true, 556, "5.1.10"},
		{ROUTE_NO_ADDRESS, true, 550, "5.4.4"},  {ROUTE_LOOP, true, 550, "5.4.6"},
		{ROUTE_BAD_LITERAL, true, 550, "5.1.3"}, {ROUTE_SERVFAIL, false, 451, "4.4.3"},
		{ROUTE_BOGUS, false, 451, "4.7.5"},      {ROUTE_TIMEOUT, false, 451, "4.4.3"},
		{ROUTE_DANE, false, 451, "4.7.5"},       {ROUTE_STS, false, 451, "4.7.5"},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		assert_int_equal(route_is_permanent(cases[i].result), cases[i].permanent);
		assert_int_equal(route_code(cases[i].result), cases[i].code);
		assert_string_equal(route_enhanced(cases[i].result), cases[i].enhanced);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hosts_that_a_policy_does_not_list_are_left_out),
		cmocka_unit_test(test_order_stays_when_hosts_are_left_out),
		cmocka_unit_test(test_nothing_is_left_when_a_policy_lists_nobody),
		cmocka_unit_test(test_testing_leaves_nobody_out),
		cmocka_unit_test(test_no_policy_changes_nothing),
		cmocka_unit_test(test_hosts_with_tlsa_records_are_none_of_its_business),
		cmocka_unit_test(test_a_failed_look_up_stays_what_it_is),
		cmocka_unit_test(test_what_results_mean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
