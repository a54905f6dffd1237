#include "core/mail/dot_walk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define ROOM 256

/* All of `text`, in pieces of `piece` bytes; each dot that was found doubled, or dropped. */
static void walk(const char *text, size_t len, size_t piece, bool stuff, char *out)
{
	struct dot_walk w;

	dot_walk_init(&w);
	for (size_t at = 0; at < len;) {
		size_t size = len - at < piece ? len - at : piece;
		/* Of just its size, so that the sanitizer sees a byte too far. */
		unsigned char *copy = malloc(size);
		bool dot;
		size_t n;

		assert_non_null(copy);
		memcpy(copy, text + at, size);
		n = dot_walk_next(&w, copy, size, &dot);
		assert_true(n > 0 && n <= size);
		if (dot && stuff) {
			*out++ = '.';
		}
		memcpy(out, copy + (dot && !stuff), n - (dot && !stuff));
		out += n - (dot && !stuff);
		at += n;
		free(copy);
	}
	*out = '\0';
}

static const struct {
	const char *plain;
	const char *wire;
} cases[] = {
	{"", ""},
	{".", ".."},
	{"..", "..."},
	{".\r\n", "..\r\n"},
	{"a.b\r\n.\r\n", "a.b\r\n..\r\n"},
	{"a\r\n.b\r\n..c\r\nd", "a\r\n..b\r\n...c\r\nd"},
	{"\r\n.\r\n.\r\n", "\r\n..\r\n..\r\n"},
	/* Bare line ends begin no line. */
	{"a\n.b", "a\n.b"},
	{"a\r.b", "a\r.b"},
	{"a\r\r\n.b", "a\r\r\n..b"},
	{"a\n\r.b", "a\n\r.b"},
	{"\r\n\n.", "\r\n\n."},
};

static void test_walk_finds_dots_however_it_is_split(void **state)
{
	char out[ROOM];

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t plain_len = strlen(cases[i].plain);
		size_t wire_len = strlen(cases[i].wire);

		for (size_t piece = 1; piece <= wire_len + 1; piece++) {
			walk(cases[i].plain, plain_len, piece, true, out);
			assert_string_equal(out, cases[i].wire);
			walk(cases[i].wire, wire_len, piece, false, out);
			assert_string_equal(out, cases[i].plain);
		}
	}
}

static void test_at_line_start(void **state)
{
	static const struct {
		const char *text;
		bool expected;
	} ends[] = {
		{"a", false},    {"a\r", false},   {"a\n", true},
		{"a\r\n", true}, {"\r\n.", false}, {"\r\n\r", false},
	};
	struct dot_walk w;

	(void)state;
	dot_walk_init(&w);
	assert_true(dot_walk_at_line_start(&w));
	for (unsigned i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		dot_walk_init(&w);
		for (const char *p = ends[i].text; *p != '\0'; p++) {
			bool dot;

			dot_walk_next(&w, (const unsigned char *)p, 1, &dot);
		}
		assert_int_equal(dot_walk_at_line_start(&w), ends[i].expected);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_walk_finds_dots_however_it_is_split),
		cmocka_unit_test(test_at_line_start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
