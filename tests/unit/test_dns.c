#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/mail/dns.h"
#include "core/mail/dns_cache.h"

/* One record of `len` bytes as the only one of an answer. */
static struct dns_answer *answer_of(enum dns_type type, const void *rdata, size_t len)
{
	/* Exactly as long, so that a sanitizer sees who reads on. */
	unsigned char *copy = malloc(len > 0 ? len : 1);
	const unsigned char *rows[1] = {copy};
	struct dns_raw raw = {.type = type, .rdata = rows, .rdata_len = &len, .count = 1};
	struct dns_answer *a;

	assert_non_null(copy);
	memcpy(copy, rdata, len);
	a = dns_answer_create(&raw);
	free(copy);
	return a;
}

struct parse_case {
	enum dns_type type;
	const char *rdata;
	size_t len;
	/* NULL: malformed. */
	const char *text;
};

#define CASE(type, rdata, text)                                                                    \
	{                                                                                          \
		type, rdata, sizeof(rdata) - 1, text                                               \
	}

static const struct parse_case cases[] = {
	CASE(DNS_A, "\xc0\0\2\1", "192.0.2.1"),
	CASE(DNS_A, "\xc0\0\2", NULL),
	CASE(DNS_A, "\xc0\0\2\1\0", NULL),
	CASE(DNS_AAAA, "\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1", "2001:db8::1"),
	CASE(DNS_AAAA, "\x20\1\xd\xb8", NULL),
	CASE(DNS_MX, "\0\xa\2mX\4TEST\0", "10 mx.test."),
	CASE(DNS_MX, "\xff\xff\0", "65535 ."),
	CASE(DNS_MX, "\0\xa", NULL),
	CASE(DNS_MX, "\0\xa\2mx\4test", NULL),
	CASE(DNS_MX, "\0\xa\2mx\x3ftest\0", NULL),
	CASE(DNS_MX, "\0\xa\2mx\0more", NULL),
	CASE(DNS_MX, "\0\xa\xc0\x0c", NULL),
	CASE(DNS_MX, "\0\xa\3a.b\1\x07\2\\ \0", "10 a\\.b.\\007.\\\\\\032."),
	CASE(DNS_PTR, "\4host\0", "host."),
	CASE(DNS_PTR, "", NULL),
	CASE(DNS_TXT, "\5hello\6 world", "\"hello world\""),
	CASE(DNS_TXT, "\0", "\"\""),
	CASE(DNS_TXT, "\3\"\\\n", "\"\\\"\\\\\\010\""),
	CASE(DNS_TXT, "\6hello", NULL),
	CASE(DNS_TXT, "", NULL),
	CASE(DNS_TLSA, "\3\1\1\xab\xcd", "3 1 1 abcd"),
	CASE(DNS_TLSA, "\3\1\1", NULL),
};

static void test_parse_each_type(void **state)
{
	char text[256];

	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		const struct parse_case *c = &cases[i];
		struct dns_answer *a = answer_of(c->type, c->rdata, c->len);

		if (c->text == NULL) {
			assert_int_equal(a->count, 0);
			assert_int_equal(a->malformed, 1);
			assert_int_equal(a->status, DNS_SERVFAIL);
		} else {
			assert_int_equal(a->count, 1);
			dns_record_format(c->type, &a->records[0], text, sizeof text);
			assert_string_equal(text, c->text);
		}
		dns_answer_release(a);
	}
}

static void test_parse_the_longest_name(void **state)
{
	unsigned char wire[300];
	char text[DNS_NAME_TEXT];
	size_t at = 0;

	(void)state;
	while (at < 192) {
		wire[at] = 63;
		memset(wire + at + 1, 0xff, 63);
		at += 64;
	}
	wire[at] = 61;
	memset(wire + at + 1, 0xff, 61);
	wire[254] = 0;
	assert_int_equal(dns_name_parse(wire, 255, text), 255);
	assert_int_equal(strlen(text), 4 * (63 * 3 + 61) + 3);
	wire[at] = 62;
	wire[254] = 'x';
	wire[255] = 0;
	assert_int_equal(dns_name_parse(wire, 256, text), 0);
}

/* What is malformed is left out, and the rest kept. */
static void test_parse_some(void **state)
{
	static const unsigned char good[] = "\0\xa\1a\0";
	const unsigned char *rows[3] = {good, good, good};
	const size_t len[3] = {5, 4, 5};
	struct dns_raw raw = {.type = DNS_MX,
			      .rdata = rows,
			      .rdata_len = len,
			      .count = 3,
			      .canonical = "b.test.",
			      .secure = true};
	struct dns_answer *a = dns_answer_create(&raw);

	(void)state;
	assert_int_equal(a->status, DNS_FOUND);
	assert_int_equal(a->count, 2);
	assert_int_equal(a->malformed, 1);
	assert_string_equal(a->records[1].mx.exchange, "a");
	assert_string_equal(a->canonical, "b.test");
	assert_true(a->secure);
	dns_answer_release(dns_answer_hold(a));
	dns_answer_release(a);
	dns_answer_release(NULL);
}

static void test_type_names(void **state)
{
	enum dns_type type;

	(void)state;
	assert_true(dns_type_parse("tlsa", &type));
	assert_int_equal(type, DNS_TLSA);
	assert_string_equal(dns_type_name(DNS_AAAA), "AAAA");
	assert_false(dns_type_parse("SOA", &type));
	assert_null(dns_type_name((enum dns_type)6));
}

/* ---- the cache ---- */

static struct dns_answer *address(unsigned char last)
{
	const unsigned char rdata[4] = {192, 0, 2, last};

	return answer_of(DNS_A, rdata, 4);
}

static void put(struct dns_cache *c, const char *name, unsigned char last, uint64_t now_ms,
		uint64_t until_ms)
{
	struct dns_answer *a = address(last);

	dns_cache_put(c, name, a, now_ms, until_ms);
	dns_answer_release(a);
}

/* Last byte of the address; 0: not there. */
static unsigned get(struct dns_cache *c, const char *name, uint64_t now_ms)
{
	uint32_t left_s;
	const struct dns_answer *a = dns_cache_find(c, name, DNS_A, now_ms, &left_s);

	return a != NULL ? ntohl(a->records[0].a.s_addr) & 0xff : 0;
}

static void test_cache_keeps_until_it_is_over(void **state)
{
	struct dns_cache c;
	uint32_t left_s = 0;

	(void)state;
	dns_cache_init(&c, 10);
	put(&c, "a.test", 1, 1000, 6000);
	assert_int_equal(get(&c, "A.Test", 1000), 1);
	assert_non_null(dns_cache_find(&c, "a.test", DNS_A, 1500, &left_s));
	assert_int_equal(left_s, 5);
	assert_null(dns_cache_find(&c, "a.test", DNS_MX, 1500, &left_s));
	assert_int_equal(get(&c, "b.test", 1500), 0);
	assert_int_equal(get(&c, "a.test", 5999), 1);
	assert_int_equal(get(&c, "a.test", 6000), 0);
	assert_int_equal(c.count, 0);
	put(&c, "a.test", 2, 7000, 7000);
	assert_int_equal(c.count, 0);
	dns_cache_close(&c);
}

static void test_cache_replaces(void **state)
{
	struct dns_cache c;

	(void)state;
	dns_cache_init(&c, 10);
	put(&c, "a.test", 1, 0, 1000);
	put(&c, "A.test", 2, 0, 2000);
	assert_int_equal(c.count, 1);
	assert_int_equal(get(&c, "a.test", 1500), 2);
	/* One that is not to be kept takes the old one away. */
	put(&c, "a.test", 3, 1500, 1500);
	assert_int_equal(c.count, 0);
	dns_cache_close(&c);
}

static void test_cache_gives_up_what_was_not_used(void **state)
{
	struct dns_cache c;
	char name[32];

	(void)state;
	dns_cache_init(&c, 3);
	for (unsigned char i = 1; i <= 3; i++) {
		snprintf(name, sizeof name, "h%u.test", i);
		put(&c, name, i, 0, 1000);
	}
	assert_int_equal(get(&c, "h1.test", 0), 1);
	put(&c, "h4.test", 4, 0, 1000);
	assert_int_equal(c.count, 3);
	assert_int_equal(c.evicted, 1);
	assert_int_equal(get(&c, "h2.test", 0), 0);
	assert_int_equal(get(&c, "h1.test", 0) + get(&c, "h3.test", 0) + get(&c, "h4.test", 0), 8);
	assert_int_equal(dns_cache_clear(&c), 3);
	assert_int_equal(get(&c, "h1.test", 0), 0);
	dns_cache_close(&c);
}

static void test_cache_of_nothing(void **state)
{
	struct dns_cache c;

	(void)state;
	dns_cache_init(&c, 0);
	put(&c, "a.test", 1, 0, 1000);
	assert_int_equal(get(&c, "a.test", 0), 0);
	dns_cache_close(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_each_type),
		cmocka_unit_test(test_parse_the_longest_name),
		cmocka_unit_test(test_parse_some),
		cmocka_unit_test(test_type_names),
		cmocka_unit_test(test_cache_keeps_until_it_is_over),
		cmocka_unit_test(test_cache_replaces),
		cmocka_unit_test(test_cache_gives_up_what_was_not_used),
		cmocka_unit_test(test_cache_of_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
