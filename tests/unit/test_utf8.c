#include "core/mail/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdbool.h>

/* RFC 3629 section 3, without a look at what is allowed. */
static size_t encode(unsigned code, char to[4])
{
	if (code < 0x80) {
		to[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		to[0] = (char)(0xc0 | code >> 6);
		to[1] = (char)(0x80 | (code & 63));
		return 2;
	}
	if (code < 0x10000) {
		to[0] = (char)(0xe0 | code >> 12);
		to[1] = (char)(0x80 | (code >> 6 & 63));
		to[2] = (char)(0x80 | (code & 63));
		return 3;
	}
	to[0] = (char)(0xf0 | code >> 18);
	to[1] = (char)(0x80 | (code >> 12 & 63));
	to[2] = (char)(0x80 | (code >> 6 & 63));
	to[3] = (char)(0x80 | (code & 63));
	return 4;
}

static void test_decode_takes_each_character_and_no_surrogate(void **state)
{
	(void)state;
	for (unsigned code = 0; code < 0x200000; code++) {
		bool good = code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
		char text[4];
		size_t n = encode(code, text);
		unsigned back = 0;

		assert_int_equal(utf8_decode(text, n, &back), good ? n : 0);
		assert_int_equal(back, good ? code : 0);
		assert_int_equal(utf8_sequence(text, n - 1 + (n == 1)), n == 1 ? 1 : 0);
	}
}

/* All that is accepted is what encoding the result gives: so nothing overlong is. */
static void test_decode_accepts_one_form_only(void **state)
{
	(void)state;
	for (unsigned bytes = 0; bytes < 0x1000000; bytes++) {
		char text[3] = {(char)(bytes >> 16), (char)(bytes >> 8), (char)bytes};
		char again[4];
		unsigned code;
		size_t n = utf8_decode(text, 3, &code);

		if (n != 0) {
			assert_int_equal(encode(code, again), n);
			assert_memory_equal(again, text, n);
		}
	}
}

static void test_clean_replaces_what_is_no_character(void **state)
{
	static const char mixed[] = "a\xff\xc3\xa9\xe2\x82z\xc3";
	char to[3 * sizeof(mixed)];

	(void)state;
	assert_int_equal(utf8_clean(mixed, sizeof(mixed) - 1, "?", to), 8);
	assert_memory_equal(to, "a?\xc3\xa9??z?", 8);
	assert_int_equal(utf8_clean(mixed, 3, "\xef\xbf\xbd", to), 7);
	assert_memory_equal(to, "a\xef\xbf\xbd\xef\xbf\xbd", 7);
	assert_int_equal(utf8_clean(mixed, 0, "?", to), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decode_takes_each_character_and_no_surrogate),
		cmocka_unit_test(test_decode_accepts_one_form_only),
		cmocka_unit_test(test_clean_replaces_what_is_no_character),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
