#include "core/mail/address.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Parses from memory of just its size, so that the sanitizer sees a byte too far. */
static int parse(struct address *a, const char *path, size_t len, enum address_role role,
		 bool smtputf8, struct smtp_refusal *refusal)
{
	char *copy = malloc(len > 0 ? len : 1);
	int result;

	assert_non_null(copy);
	memcpy(copy, path, len);
	result = address_parse(a, copy, len, role, smtputf8, refusal);
	free(copy);
	return result;
}

static void assert_is(const char *path, const char *text)
{
	struct smtp_refusal refusal;
	struct address a;

	assert_int_equal(parse(&a, path, strlen(path), ADDRESS_RECIPIENT, false, &refusal), 0);
	assert_string_equal(a.text, text);
	assert_int_equal(a.len, strlen(text));
	assert_int_equal(parse(&a, path, strlen(path), ADDRESS_SENDER, false, &refusal), 0);
	assert_string_equal(a.text, text);
}

static void assert_refused(const char *path, int error, unsigned code, const char *status)
{
	struct smtp_refusal refusal = {.code = 0};
	struct address a;

	assert_int_equal(parse(&a, path, strlen(path), ADDRESS_RECIPIENT, false, &refusal), error);
	assert_int_equal(refusal.code, code);
	assert_string_equal(refusal.status, status);
	assert_true(strlen(refusal.text) > 0);
}

static void test_parse_plain_addresses(void **state)
{
	(void)state;
	assert_is("<a@b>", "a@b");
	assert_is("<User.Name+tag@Example.COM>", "User.Name+tag@example.com");
	assert_is("<!#$%&'*+-/=?^_`{|}~@x.y>", "!#$%&'*+-/=?^_`{|}~@x.y");
	assert_is("<a@1-2.3com>", "a@1-2.3com");
	assert_is("<a@xn--bcher-kva.example>", "a@xn--bcher-kva.example");
}

static void test_parse_fills_in_the_parts(void **state)
{
	static const char path[] = "<\"a@b\"@Mail.Example>";
	struct smtp_refusal refusal;
	struct address a;

	(void)state;
	assert_int_equal(parse(&a, path, sizeof(path) - 1, ADDRESS_SENDER, false, &refusal), 0);
	assert_int_equal(a.local_len, 5);
	assert_int_equal(a.domain_offset, 6);
	assert_int_equal(a.domain_len, 12);
	assert_string_equal(address_domain(&a), "mail.example");
	assert_false(a.literal);
	assert_false(a.utf8);
}

static void test_parse_quoted_local_parts_in_canonical_form(void **state)
{
	(void)state;
	assert_is("<\"plain\"@x>", "plain@x");
	assert_is("<\"dot.ted\"@x>", "dot.ted@x");
	assert_is("<\"\\p\\l\\a\\i\\n\"@x>", "plain@x");
	assert_is("<\"with space\"@x>", "\"with space\"@x");
	assert_is("<\"a\\\"b\\\\c\"@x>", "\"a\\\"b\\\\c\"@x");
	assert_is("<\"\"@x>", "\"\"@x");
	assert_is("<\".a\"@x>", "\".a\"@x");
	assert_is("<\"a..b\"@x>", "\"a..b\"@x");
	assert_is("<\"a>b\"@x>", "\"a>b\"@x");
	assert_is("<\"\\@\"@x>", "\"@\"@x");
}

static void test_parse_drops_source_routes(void **state)
{
	(void)state;
	assert_is("<@a.example:u@b.example>", "u@b.example");
	assert_is("<@a,@b.c,@d:\"q q\"@e>", "\"q q\"@e");
	assert_refused("<@a>", -EINVAL, 501, "5.1.3");
	assert_refused("<@a,:u@b>", -EINVAL, 501, "5.1.3");
	assert_refused("<@a,b:u@b>", -EINVAL, 501, "5.1.3");
	assert_refused("<@:u@b>", -EINVAL, 501, "5.1.3");
	assert_refused("<@-a:u@b>", -EINVAL, 501, "5.1.3");
	assert_refused("<@a:>", -EINVAL, 501, "5.1.3");
}

static void test_parse_address_literals_in_canonical_form(void **state)
{
	struct smtp_refusal refusal;
	struct address a;

	(void)state;
	assert_is("<u@[192.0.2.1]>", "u@[192.0.2.1]");
	assert_is("<u@[IPv6:2001:DB8:0:0::1]>", "u@[ipv6:2001:db8::1]");
	assert_is("<u@[ipv6:::1]>", "u@[ipv6:::1]");
	assert_int_equal(parse(&a, "<u@[1.2.3.4]>", 13, ADDRESS_SENDER, false, &refusal), 0);
	assert_true(a.literal);
	assert_refused("<u@[]>", -EINVAL, 501, "5.1.3");
	assert_refused("<u@[1.2.3]>", -EINVAL, 501, "5.1.3");
	assert_refused("<u@[1.2.3.256]>", -EINVAL, 501, "5.1.3");
	assert_refused("<u@[1.2.3.4>", -EINVAL, 501, "5.1.3");
	assert_refused("<u@[1.2.3.4]x>", -EINVAL, 501, "5.1.3");
	assert_refused("<u@[::1]>", -EINVAL, 501, "5.1.3");
	assert_refused("<u@[IPv6:1::2::3]>", -EINVAL, 501, "5.1.3");
	assert_refused("<u@[IPv6:1111:2222:3333:4444:5555:6666:7777:8888:9999:aaaa:bbbb:cccc]>",
		       -EINVAL, 501, "5.1.3");
	assert_refused("<u@[x:general]>", -EINVAL, 501, "5.1.3");
}

static void test_parse_null_sender_is_for_senders_only(void **state)
{
	struct smtp_refusal refusal;
	struct address a;

	(void)state;
	assert_int_equal(parse(&a, "<>", 2, ADDRESS_SENDER, false, &refusal), 0);
	assert_string_equal(a.text, "");
	assert_int_equal(a.len, 0);
	assert_int_equal(a.domain_len, 0);
	assert_refused("<>", -EINVAL, 501, "5.1.3");
}

static void test_parse_postmaster_without_domain_is_for_recipients_only(void **state)
{
	struct smtp_refusal refusal;
	struct address a;

	(void)state;
	assert_int_equal(parse(&a, "<PostMaster>", 12, ADDRESS_RECIPIENT, false, &refusal), 0);
	assert_string_equal(a.text, "postmaster");
	assert_int_equal(a.domain_len, 0);
	assert_string_equal(address_domain(&a), "");
	assert_int_equal(parse(&a, "<postmaster>", 12, ADDRESS_SENDER, false, &refusal), -EINVAL);
	assert_int_equal(refusal.code, 553);
	assert_string_equal(refusal.status, "5.1.7");
	assert_refused("<someone>", -EINVAL, 553, "5.1.3");
}

static void test_parse_when_syntax_is_bad_refuses(void **state)
{
	static const char *const bad[] = {
		"",          "<",          ">",          "a@b",
		"<a@b",      "a@b>",       "<a b@c>",    "<a@>",
		"<@b>",      "<.a@b>",     "<a.@b>",     "<a..b@c>",
		"<a@b@c>",   "<a@.b>",     "<a@b.>",     "<a@b..c>",
		"<a@-b>",    "<a@b->",     "<a@b_c>",    "<a@b c>",
		"<\"a@b>",   "<\"a\"b@c>", "<a\"b\"@c>", "<\"a\\\"@c>",
		"<a(b)@c>",  "<a,b@c>",    "<a;b@c>",    "<a:b@c>",
		"<a\\b@c>",  "<a<b@c>",    "<a\tb@c>",   "<\"a\tb\"@c>",
		"<a\x7f@c>", "<a@b\x01>",  "<<a@b>>",    "<a@b>>",
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_refused(bad[i], -EINVAL, 501, "5.1.3");
	}
}

static void test_parse_when_nul_inside_refuses(void **state)
{
	struct smtp_refusal refusal;
	struct address a;

	(void)state;
	assert_int_equal(parse(&a, "<a\0b@c>", 7, ADDRESS_SENDER, false, &refusal), -EINVAL);
	assert_int_equal(parse(&a, "<a@b\0c>", 7, ADDRESS_SENDER, false, &refusal), -EINVAL);
	assert_int_equal(parse(&a, "<\"\0\"@c>", 7, ADDRESS_SENDER, false, &refusal), -EINVAL);
	assert_int_equal(parse(&a, "<a@[1.2.3.4\0]>", 14, ADDRESS_SENDER, false, &refusal),
			 -EINVAL);
}

static void test_parse_limits(void **state)
{
	struct smtp_refusal refusal;
	struct address a;
	char path[600];
	char local[80];
	char domain[300];

	(void)state;
	memset(local, 'l', sizeof(local));
	for (size_t i = 0; i < sizeof(domain); i++) {
		domain[i] = i % 50 == 49 ? '.' : 'd';
	}
	for (int local_len = 63; local_len <= 66; local_len++) {
		for (int domain_len = 253; domain_len <= 257; domain_len++) {
			int n = snprintf(path, sizeof(path), "<%.*s@%.*s>", local_len, local,
					 domain_len, domain);
			bool good = local_len <= 64 && domain_len <= 255;

			assert_int_equal(
				parse(&a, path, (size_t)n, ADDRESS_SENDER, false, &refusal),
				good ? 0 : -ENAMETOOLONG);
			assert_int_equal(good ? a.len : n - 2, n - 2);
		}
	}
	/* A label. */
	memset(domain, 'd', 64);
	snprintf(path, sizeof(path), "<a@%.63s.x>", domain);
	assert_is(path, strndupa(path + 1, strlen(path) - 2));
	snprintf(path, sizeof(path), "<a@%.64s.x>", domain);
	assert_refused(path, -EINVAL, 501, "5.1.3");
}

static void test_parse_quoted_limits_are_of_the_canonical_form(void **state)
{
	char path[300] = "<\"";
	char expected[80];
	size_t len = 2;

	(void)state;
	/* 64 letters with a backslash each. */
	for (unsigned i = 0; i < 64; i++) {
		memcpy(path + len, "\\a", 2);
		len += 2;
	}
	memcpy(path + len, "\"@x>", 5);
	memset(expected, 'a', 64);
	memcpy(expected + 64, "@x", 3);
	assert_is(path, expected);
	/* 62 characters fit between two quotes, 63 do not. */
	memset(path + 2, ' ', 62);
	memcpy(path + 64, "\"@x>", 5);
	assert_is(path, strndupa(path + 1, strlen(path) - 2));
	memset(path + 2, ' ', 63);
	memcpy(path + 65, "\"@x>", 5);
	assert_refused(path, -ENAMETOOLONG, 501, "5.1.3");
	memset(path + 2, ' ', 120);
	memcpy(path + 122, "\"@x>", 5);
	assert_refused(path, -ENAMETOOLONG, 501, "5.1.3");
}

static void test_parse_utf8_needs_smtputf8(void **state)
{
	static const char path[] = "<j\xc3\xb6rg@B\xc3\xbc"
				   "cher.EXAMPLE>";
	static const char quoted[] = "<\"\xe2\x82\xac \"@x>";
	struct smtp_refusal refusal;
	struct address a;

	(void)state;
	assert_refused(path, -EILSEQ, 553, "5.6.7");
	assert_int_equal(parse(&a, path, sizeof(path) - 1, ADDRESS_SENDER, true, &refusal), 0);
	assert_string_equal(a.text, "j\xc3\xb6rg@xn--bcher-kva.example");
	assert_int_equal(a.domain_len, strlen("xn--bcher-kva.example"));
	assert_string_equal(address_domain(&a), "xn--bcher-kva.example");
	assert_true(a.utf8);
	assert_int_equal(parse(&a, quoted, sizeof(quoted) - 1, ADDRESS_SENDER, true, &refusal), 0);
	assert_string_equal(a.text, "\"\xe2\x82\xac \"@x");
}

/* Not allowed by IDNA2008, or longer than the DNS takes; a long U-label may have a short A-label.
 */
static void test_parse_when_domain_is_no_international_name_refuses(void **state)
{
	static const char *const bad[] = {"<a@\xe2\x98\x83.x>", "<a@-\xc3\xbc.x>",
					  "<a@\xc3\xbc..x>", "<a@\xc3\xbc_.x>",
					  "<a@\xc3\xbc\xe2\x80\xae.x>"};
	struct smtp_refusal refusal;
	struct address a;
	char path[200] = "<a@";

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(
			parse(&a, bad[i], strlen(bad[i]), ADDRESS_RECIPIENT, true, &refusal),
			-EINVAL);
		assert_int_equal(refusal.code, 553);
		assert_string_equal(refusal.status, "5.1.3");
	}
	for (unsigned i = 0; i < 40; i++) {
		strcat(path, "\xd0\xb0");
	}
	strcat(path, ".x>");
	assert_int_equal(parse(&a, path, strlen(path), ADDRESS_SENDER, true, &refusal), 0);
	assert_memory_equal(a.text, "a@xn--", 6);
}

static void test_parse_when_utf8_is_malformed_refuses(void **state)
{
	static const char *const bad[] = {
		"<\x80@x>",         "<\xc3@x>",         "<a@\xc0\x80>",
		"<\xe0\x80\x80@x>", "<\xed\xa0\x80@x>", "<\xf4\x90\x80\x80@x>",
		"<\xff@x>",         "<\xe2\x82@x>",     "<a@x\xf0\x80\x80\x80>",
		"<a\xc3>",
	};
	struct smtp_refusal refusal;
	struct address a;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(parse(&a, bad[i], strlen(bad[i]), ADDRESS_SENDER, true, &refusal),
				 -EILSEQ);
		assert_int_equal(refusal.code, 501);
		assert_string_equal(refusal.status, "5.1.7");
	}
}

/* What is accepted is canonical: it parses again, to itself. */
static void test_parse_of_mutations_is_canonical(void **state)
{
	static const char *const seeds[] = {
		"<user@example.com>",
		"<\"a \\\"b\"@x.y>",
		"<@a,@b:c@d.e>",
		"<u@[1.2.3.4]>",
		"<u@[IPv6:1:2::3]>",
		"<postmaster>",
		"<>",
		"<\xc3\xbc@\xc3\xa4.b>",
	};
	static const char letters[] = "<>@\"\\.,:[] aZ0-\x80\xc3\xa4\t";
	unsigned seed = 5;
	unsigned accepted = 0;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		char path[64];
		char again[ADDRESS_MAX + 3];
		struct smtp_refusal refusal = {.code = 0};
		struct address a;
		struct address b;
		size_t len = strlen(seeds[i % 8]);
		int result;

		memcpy(path, seeds[i % 8], len);
		for (unsigned n = 0; n < 1 + i % 3 && len > 0; n++) {
			seed = seed * 1103515245U + 12345U;
			path[(seed >> 8) % len] = letters[(seed >> 20) % (sizeof(letters) - 1)];
		}
		result = parse(&a, path, len, (enum address_role)(i / 8 % 2), true, &refusal);
		if (result != 0) {
			assert_true(refusal.code == 501 || refusal.code == 553);
			continue;
		}
		accepted++;
		assert_int_equal(strlen(a.text), a.len);
		len = (size_t)snprintf(again, sizeof(again), "<%s>", a.text);
		assert_int_equal(
			parse(&b, again, len, (enum address_role)(i / 8 % 2), true, &refusal), 0);
		assert_string_equal(a.text, b.text);
		assert_int_equal(a.domain_offset, b.domain_offset);
	}
	assert_true(accepted > 1000);
}

static void test_domain_valid(void **state)
{
	(void)state;
	assert_true(address_domain_valid("a", 1, false));
	assert_true(address_domain_valid("a.b-c.d1", 8, false));
	assert_false(address_domain_valid("", 0, false));
	assert_false(address_domain_valid(".", 1, false));
	assert_false(address_domain_valid("a.", 2, false));
	assert_false(address_domain_valid("\xc3\xa4", 2, false));
	assert_true(address_domain_valid("\xc3\xa4", 2, true));
	assert_false(address_domain_valid("\xc3", 1, true));
	assert_false(address_domain_valid("[1.2.3.4]", 9, false));
	assert_false(address_domain_valid("a\0b", 3, false));
}

static void test_literal_parse(void **state)
{
	static const unsigned char v4[16] = {
		[10] = 255, [11] = 255, [12] = 192, [14] = 2, [15] = 1};
	static const unsigned char v6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1};
	unsigned char ip[16];

	(void)state;
	assert_int_equal(address_literal_parse("[192.0.2.1]", 11, ip), 0);
	assert_memory_equal(ip, v4, 16);
	assert_int_equal(address_literal_parse("[ipv6:2001:db8::1]", 18, ip), 0);
	assert_memory_equal(ip, v6, 16);
	assert_int_equal(address_literal_parse("[IPV6:2001:db8::1]", 18, ip), 0);
	assert_int_equal(address_literal_parse("192.0.2.1", 9, ip), -EINVAL);
	assert_int_equal(address_literal_parse("[2001:db8::1]", 13, ip), -EINVAL);
	assert_int_equal(address_literal_parse("[", 1, ip), -EINVAL);
	assert_int_equal(address_literal_parse("", 0, ip), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse_plain_addresses),
		cmocka_unit_test(test_parse_fills_in_the_parts),
		cmocka_unit_test(test_parse_quoted_local_parts_in_canonical_form),
		cmocka_unit_test(test_parse_drops_source_routes),
		cmocka_unit_test(test_parse_address_literals_in_canonical_form),
		cmocka_unit_test(test_parse_null_sender_is_for_senders_only),
		cmocka_unit_test(test_parse_postmaster_without_domain_is_for_recipients_only),
		cmocka_unit_test(test_parse_when_syntax_is_bad_refuses),
		cmocka_unit_test(test_parse_when_nul_inside_refuses),
		cmocka_unit_test(test_parse_limits),
		cmocka_unit_test(test_parse_quoted_limits_are_of_the_canonical_form),
		cmocka_unit_test(test_parse_utf8_needs_smtputf8),
		cmocka_unit_test(test_parse_when_domain_is_no_international_name_refuses),
		cmocka_unit_test(test_parse_when_utf8_is_malformed_refuses),
		cmocka_unit_test(test_parse_of_mutations_is_canonical),
		cmocka_unit_test(test_domain_valid),
		cmocka_unit_test(test_literal_parse),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
