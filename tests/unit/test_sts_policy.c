/* Records and policies of MTA-STS: what RFC 8461 has them be, and nothing else. */
#include "core/mail/sts_policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* ---- records ---- */

static struct dns_answer *txt(const char *const *texts, uint32_t count)
{
	static unsigned char data[4][256];
	const unsigned char *rdata[4];
	size_t len[4];
	const struct dns_raw raw = {.type = DNS_TXT,
				    .status = DNS_FOUND,
				    .rdata = rdata,
				    .rdata_len = len,
				    .count = count};

	for (uint32_t i = 0; i < count; i++) {
		data[i][0] = (unsigned char)strlen(texts[i]);
		memcpy(data[i] + 1, texts[i], data[i][0]);
		rdata[i] = data[i];
		len[i] = data[i][0] + 1U;
	}
	return dns_answer_create(&raw);
}

/* The id; "": none. */
static const char *id_of(const char *const *texts, uint32_t count)
{
	static char id[STS_ID_MAX + 1];
	struct dns_answer *a = txt(texts, count);
	bool found = sts_record_id(a, id);

	dns_answer_release(a);
	return found ? id : "";
}

static void test_ids_of_records(void **state)
{
	static const char *const cases[][2] = {
		{"v=STSv1; id=20160831085700Z;", "20160831085700Z"},
		{"v=STSv1;id=1", "1"},
		{"v=STSv1 \t; \tid=1 ; ", "1"},
		{"v=STSv1; later=x-y; id=1; more.of_it=(%$)", "1"},
		{"v=STSv1; id=12345678901234567890123456789012",
		 "12345678901234567890123456789012"},
		{"v=STSv1; id=123456789012345678901234567890123", ""},
		{"v=STSv1", ""},
		{"v=STSv1;", ""},
		{"v=STSv1; id=", ""},
		{"v=STSv1; id=a-b", ""},
		{"v=STSv1; id=1; id=2", ""},
		{"v=STSv1; id=1; ; x=y", ""},
		{"v=STSv1; id=1; x", ""},
		{"v=STSv1; id=1; x=", ""},
		{"v=STSv1; id=1; -x=y", ""},
		{"v=STSv1; id=1; x=a b", ""},
		{"v=STSv1; id=1; x=a=b", ""},
		{"v=stsv1; id=1", ""},
		{" v=STSv1; id=1", ""},
		{"v=STSv12; id=1", ""},
		{"id=1; v=STSv1", ""},
		{"", ""},
	};

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		if (strcmp(id_of(&cases[i][0], 1), cases[i][1]) != 0) {
			fail_msg("\"%s\": found \"%s\"", cases[i][0], id_of(&cases[i][0], 1));
		}
	}
}

/* Others are none of its business, two of its own are none at all. */
static void test_several_records(void **state)
{
	static const char *const others[] = {"v=spf1 -all", "v=STSv1; id=1;", "v=STSv2; id=2"};
	static const char *const two[] = {"v=STSv1; id=1;", "v=STSv1; id=1;"};
	static const char *const one_is_wrong[] = {"v=STSv1; id=1;", "v=STSv1; id=;"};

	(void)state;
	assert_string_equal(id_of(others, 3), "1");
	assert_string_equal(id_of(two, 2), "");
	assert_string_equal(id_of(one_is_wrong, 2), "");
}

/* ---- policies ---- */

static struct sts_policy *parse(const char *text, char why[STS_WHY])
{
	/* Its end is watched by AddressSanitizer. */
	size_t len = strlen(text);
	char *copy = test_malloc(len + 1);
	struct sts_policy *p;

	memcpy(copy, text, len);
	why[0] = '\0';
	p = sts_policy_parse(copy, len, why);
	test_free(copy);
	return p;
}

static void test_a_policy(void **state)
{
	char why[STS_WHY];
	struct sts_policy *p = parse("version: STSv1\r\nmode: enforce\r\nmx: Mail.Example.com\r\n"
				     "mx:\t*.example.net \r\nmax_age: 604800\r\n",
				     why);

	(void)state;
	assert_non_null(p);
	assert_int_equal(p->mode, STS_MODE_ENFORCE);
	assert_int_equal(p->max_age_s, 604800);
	assert_int_equal(p->mx_count, 2);
	assert_string_equal(p->mx[0], "mail.example.com");
	assert_string_equal(p->mx[1], "*.example.net");
	assert_true(sts_policy_lists(p, "mail.example.COM"));
	assert_true(sts_policy_lists(p, "mx1.example.net"));
	/* RFC 8461 section 4.1: one label, and the first. */
	assert_false(sts_policy_lists(p, "example.net"));
	assert_false(sts_policy_lists(p, ".example.net"));
	assert_false(sts_policy_lists(p, "a.b.example.net"));
	assert_false(sts_policy_lists(p, "xexample.net"));
	assert_false(sts_policy_lists(p, "a.mail.example.com"));
	assert_false(sts_policy_lists(p, "*.example.com"));
	assert_false(sts_policy_lists(p, ""));
	sts_policy_release(p);
}

static void test_what_may_be_in_a_policy(void **state)
{
	static const char *const good[] = {
		"version: STSv1\nmode: none\nmax_age: 0",
		"version:STSv1\nmode:testing\nmx:a\nmax_age:1\n",
		/* The first of each counts, in any order; what is not known is passed over. */
		("max_age: 5\nmode: testing\nmode: strange\nversion: STSv1\nversion: STSv2\n"
		 "max_age: x\nmx: a.b\nnew.field-1_: \xc3\xa4 : any\n"),
	};
	char why[STS_WHY];

	(void)state;
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		struct sts_policy *p = parse(good[i], why);

		assert_string_equal(why, "");
		assert_int_equal(p->mode, i == 0 ? STS_MODE_NONE : STS_MODE_TESTING);
		assert_int_equal(p->max_age_s, i == 2 ? 5 : i);
		sts_policy_release(p);
	}
}

static void test_an_age_has_an_end(void **state)
{
	char why[STS_WHY];
	struct sts_policy *p = parse("version: STSv1\nmode: none\nmax_age: 9999999999", why);

	(void)state;
	assert_int_equal(p->max_age_s, STS_MAX_AGE_MAX);
	sts_policy_release(p);
}

static void test_what_is_no_policy(void **state)
{
#define WITH(line) "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 1\n" line
	static const char *const cases[][2] = {
		{"", "lacks"},
		{"mode: enforce\nmx: a.test\nmax_age: 1\n", "lacks"},
		{"version: STSv1\nmx: a.test\nmax_age: 1\n", "lacks"},
		{"version: STSv1\nmode: enforce\nmx: a.test\n", "lacks"},
		{"version: STSv1\nmode: enforce\nmax_age: 1\n", "lists no mx"},
		{"version: STSv2\nmode: none\nmax_age: 1\n", "version"},
		{"version: STSv1\nmode: Enforce\nmx: a.test\nmax_age: 1\n", "mode"},
		{"version: STSv1\nmode: none\nmax_age: -1\n", "max_age"},
		{"version: STSv1\nmode: none\nmax_age: 1d\n", "max_age"},
		{"version: STSv1\nmode: none\nmax_age:\n", "max_age"},
		{"version: STSv1\nmode: none\nmax_age: 12345678901\n", "max_age"},
		{WITH("mx: \n"), "mx"},
		{WITH("mx: *\n"), "mx"},
		{WITH("mx: *.\n"), "mx"},
		{WITH("mx: a..test\n"), "mx"},
		{WITH("mx: .test\n"), "mx"},
		{WITH("mx: a.test.\n"), "mx"},
		{WITH("mx: a.*.test\n"), "mx"},
		{WITH("mx: *a.test\n"), "mx"},
		{WITH("mx: a b\n"), "mx"},
		{WITH("mx: a@b\n"), "mx"},
		{WITH("\n"), "colon"},
		{WITH("no field\n"), "colon"},
		{WITH(": x\n"), "no name"},
		{WITH("a b: x\n"), "no name"},
		{WITH("mode : x\n"), "no name"},
		{WITH("x: a\rb\n"), "control"},
		{WITH("x: \x7f\n"), "control"},
	};
	char why[STS_WHY];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sts_policy *p = parse(cases[i][0], why);

		if (p != NULL || strstr(why, cases[i][1]) == NULL) {
			fail_msg("\"%s\": \"%s\"", cases[i][0], why);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ids_of_records),
		cmocka_unit_test(test_several_records),
		cmocka_unit_test(test_a_policy),
		cmocka_unit_test(test_what_may_be_in_a_policy),
		cmocka_unit_test(test_an_age_has_an_end),
		cmocka_unit_test(test_what_is_no_policy),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
