#include "listeners/smtp/sasl.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Of just its size, so that the sanitizer sees a byte too far. */
static char *copy_of(const char *text)
{
	size_t len = strlen(text);
	char *copy = malloc(len + (len == 0));

	assert_non_null(copy);
	return len > 0 ? memcpy(copy, text, len) : copy;
}

static void test_base64(void **state)
{
	static const struct {
		const char *text;
		/* NULL: it is none. */
		const char *plain;
	} cases[] = {
		/* RFC 4648 section 10. */
		{"", ""},
		{"Zg==", "f"},
		{"Zm8=", "fo"},
		{"Zm9v", "foo"},
		{"Zm9vYg==", "foob"},
		{"Zm9vYmE=", "fooba"},
		{"Zm9vYmFy", "foobar"},
		{"+/+/", "\xfb\xff\xbf"},
		{"=", NULL},
		{"====", NULL},
		{"Z===", NULL},
		{"Zg=", NULL},
		{"Zg", NULL},
		{"Zg==Zg==", NULL},
		{"Zm=v", NULL},
		{"Z=9v", NULL},
		{"Zm9v ", NULL},
		{" m9v", NULL},
		{"Zm-_", NULL},
		{"Zm\xc3\xbc", NULL},
		/* Bits that the padding leaves over. */
		{"Zh==", NULL},
		{"Zm9=", NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t len = strlen(cases[i].text);
		char *text = copy_of(cases[i].text);
		unsigned char *to = malloc(len / 4 * 3 + 1);
		int n = sasl_base64_decode(text, len, to);

		assert_non_null(to);
		if (cases[i].plain == NULL) {
			assert_int_equal(n, -EINVAL);
		} else {
			assert_int_equal(n, strlen(cases[i].plain));
			assert_memory_equal(to, cases[i].plain, (size_t)n);
		}
		free(to);
		free(text);
	}
}

static char *encode(const char *data, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *text = calloc(1, len * 2 + 8);
	size_t n = 0;

	assert_non_null(text);
	for (size_t i = 0; i < len; i += 3) {
		uint32_t bits = 0;

		for (size_t j = 0; j < 3; j++) {
			bits = bits << 8 | (i + j < len ? (unsigned char)data[i + j] : 0U);
		}
		for (unsigned j = 0; j < 4; j++) {
			text[n++] = i + j > len ? '=' : digits[bits >> (18 - 6 * j) & 63];
		}
	}
	return text;
}

static int parse_plain(const char *data, size_t len, struct sasl_credentials *c)
{
	char *text = encode(data, len);
	int rc = sasl_plain_parse(text, strlen(text), c);

	free(text);
	return rc;
}

#define PLAIN(data, c) parse_plain(data, sizeof(data) - 1, c)

static void test_plain(void **state)
{
	struct sasl_credentials c;

	(void)state;
	assert_int_equal(PLAIN("\0tim\0tanstaaftanstaaf", &c), 0);
	assert_string_equal(c.user, "tim");
	assert_string_equal(c.password, "tanstaaftanstaaf");
	assert_int_equal(PLAIN("tim\0tim\0x", &c), 0);
	assert_string_equal(c.user, "tim");
	/* RFC 4616 section 4: an authorization identity. */
	assert_int_equal(PLAIN("Ursel\0Kurt\0xipj3plmq", &c), -EACCES);
	assert_int_equal(PLAIN("ti\0tim\0x", &c), -EACCES);
	assert_int_equal(PLAIN("timm\0tim\0x", &c), -EACCES);
	assert_int_equal(PLAIN("", &c), -EINVAL);
	assert_int_equal(PLAIN("tim", &c), -EINVAL);
	assert_int_equal(PLAIN("\0tim", &c), -EINVAL);
	assert_int_equal(PLAIN("\0tim\0", &c), -EINVAL);
	assert_int_equal(PLAIN("\0\0secret", &c), -EINVAL);
	assert_int_equal(PLAIN("\0tim\0a\0b", &c), -EINVAL);
	assert_int_equal(PLAIN("\0\0\0", &c), -EINVAL);
	assert_int_equal(sasl_plain_parse("AHRpbQB4 ", 9, &c), -EINVAL);
}

/* `longer`: one byte more than may be, of this word. */
static int parse_long(unsigned longer)
{
	char data[3 * SASL_WORD_MAX + 8];
	struct sasl_credentials c;
	size_t at = 0;

	for (unsigned i = 0; i < 3; i++) {
		bool more = longer == i || (longer == 1 && i == 0);
		size_t len = SASL_WORD_MAX + (size_t)more;

		memset(data + at, i == 2 ? 'p' : 'u', len);
		at += len;
		data[at++] = '\0';
	}
	return parse_plain(data, at - 1, &c);
}

static void test_longest_words(void **state)
{
	char word[SASL_WORD_MAX + 1];
	char data[SASL_WORD_MAX + 2];
	char *text;

	(void)state;
	assert_int_equal(parse_long(3), 0);
	assert_int_not_equal(parse_long(0), 0);
	assert_int_equal(parse_long(1), -EINVAL);
	assert_int_equal(parse_long(2), -EINVAL);
	memset(data, 'x', sizeof(data));
	text = encode(data, SASL_WORD_MAX);
	assert_int_equal(sasl_login_parse(text, strlen(text), word), 0);
	assert_int_equal(strlen(word), SASL_WORD_MAX);
	free(text);
	text = encode(data, SASL_WORD_MAX + 1);
	assert_int_equal(sasl_login_parse(text, strlen(text), word), -EINVAL);
	free(text);
	text = calloc(1, 4097);
	memset(text, 'A', 4096);
	assert_int_equal(sasl_login_parse(text, 4096, word), -EINVAL);
	free(text);
}

static void test_login(void **state)
{
	char word[SASL_WORD_MAX + 1];

	(void)state;
	assert_int_equal(sasl_login_parse("Zm9v", 4, word), 0);
	assert_string_equal(word, "foo");
	assert_int_equal(sasl_login_parse("", 0, word), -EINVAL);
	assert_int_equal(sasl_login_parse("AAAA", 4, word), -EINVAL);
	assert_int_equal(sasl_login_parse("foo!", 4, word), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base64),
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_longest_words),
		cmocka_unit_test(test_login),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
