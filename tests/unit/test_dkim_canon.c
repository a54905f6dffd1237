/*
 * Canonical forms: the examples of RFC 6376 section 3.4, and what they leave open; however the text
 * is split, the form is the same.
 */
#include "core/mail/dkim_canon.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define OUT_MAX 70000

struct out {
	size_t len;
	char text[OUT_MAX];
};

static void take(void *context, const void *data, size_t len)
{
	struct out *out = context;

	assert_true(len <= OUT_MAX - out->len);
	memcpy(out->text + out->len, data, len);
	out->len += len;
}

/* The canonical form of a body that comes in two pieces. */
static void body_in(enum dkim_canon canon, const char *text, size_t len, size_t split,
		    struct out *out)
{
	struct dkim_sink sink;
	struct dkim_body b;

	out->len = 0;
	dkim_sink_init(&sink, take, out);
	dkim_body_init(&b, canon, &sink);
	dkim_body_add(&b, text, split);
	dkim_body_add(&b, text + split, len - split);
	dkim_body_end(&b);
}

static void header_in(enum dkim_canon canon, const char *text, size_t len, size_t split,
		      struct out *out)
{
	struct dkim_sink sink;
	struct dkim_header h;

	out->len = 0;
	dkim_sink_init(&sink, take, out);
	dkim_header_init(&h, canon, &sink);
	dkim_header_add(&h, text, split);
	dkim_header_add(&h, text + split, len - split);
	dkim_header_end(&h);
	dkim_sink_flush(&sink);
}

struct form {
	const char *text;
	const char *simple;
	const char *relaxed;
};

static void check_forms(const struct form *forms, size_t count,
			void (*make)(enum dkim_canon, const char *, size_t, size_t, struct out *))
{
	struct out *out = malloc(sizeof(*out));

	for (size_t i = 0; i < count; i++) {
		const char *wanted[DKIM_CANONS] = {forms[i].simple, forms[i].relaxed};
		size_t len = strlen(forms[i].text);

		for (int canon = 0; canon < DKIM_CANONS; canon++) {
			for (size_t split = 0; split <= len; split++) {
				make((enum dkim_canon)canon, forms[i].text, len, split, out);
				out->text[out->len] = '\0';
				assert_string_equal(out->text, wanted[canon]);
			}
		}
	}
	free(out);
}

static const struct form bodies[] = {
	/* Section 3.4.5, example 1. */
	{" C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n", " C\r\nD E\r\n"},
	/* Sections 3.4.3 and 3.4.4: empty bodies. */
	{"", "\r\n", ""},
	{"\r\n", "\r\n", ""},
	{"\r\n\r\n\r\n", "\r\n", ""},
	{" \t\r\n \r\n", " \t\r\n \r\n", ""},
	{" ", " \r\n", ""},
	/* The last line has no end. */
	{"a", "a\r\n", "a\r\n"},
	{"a \t", "a \t\r\n", "a\r\n"},
	/* Empty lines count when text follows. */
	{"\r\n\r\na\r\n\r\nb\r\n\r\n", "\r\n\r\na\r\n\r\nb\r\n", "\r\n\r\na\r\n\r\nb\r\n"},
	{"a\r\n \r\nb\r\n", "a\r\n \r\nb\r\n", "a\r\n\r\nb\r\n"},
	{"\ta  b\t \tc \r\n", "\ta  b\t \tc \r\n", " a b c\r\n"},
	{"a b c d e f g h i j k l m n o  p q r s t u v w x\ty z\r\n",
	 "a b c d e f g h i j k l m n o  p q r s t u v w x\ty z\r\n",
	 "a b c d e f g h i j k l m n o p q r s t u v w x y z\r\n"},
	/* The second blank is the first of the next block. */
	{"0123456789abcde  123456789abcdef0123456789abcde\t 123456789abcdef\r\n",
	 "0123456789abcde  123456789abcdef0123456789abcde\t 123456789abcdef\r\n",
	 "0123456789abcde 123456789abcdef0123456789abcde 123456789abcdef\r\n"},
	{"0123456789 \tabcdef0123456789abcdef\r\n", "0123456789 \tabcdef0123456789abcdef\r\n",
	 "0123456789 abcdef0123456789abcdef\r\n"},
	/* Stuffed dots, and those that are none. */
	{"..\r\n...x\r\na..b\r\n.y\r\n", ".\r\n..x\r\na..b\r\ny\r\n", ".\r\n..x\r\na..b\r\ny\r\n"},
	{".. \r\n", ". \r\n", ".\r\n"},
	/* Bare ends of lines are text like any other. */
	{"a\rb\n\r\n\r", "a\rb\n\r\n\r\r\n", "a\rb\n\r\n\r\r\n"},
	{"a \r b\r\r\n", "a \r b\r\r\n", "a \r b\r\r\n"},
};

static void test_bodies(void **state)
{
	(void)state;
	check_forms(bodies, sizeof(bodies) / sizeof(bodies[0]), body_in);
}

static const struct form headers[] = {
	/* Section 3.4.5, example 1. */
	{"A: X\r\n", "A: X\r\n", "a:X\r\n"},
	{"B : Y\t\r\n\tZ  \r\n", "B : Y\t\r\n\tZ  \r\n", "b:Y Z\r\n"},
	{"Subject:\r\n", "Subject:\r\n", "subject:\r\n"},
	{"Subject: \t \r\n  \r\n", "Subject: \t \r\n  \r\n", "subject:\r\n"},
	{"SUBJect\t :\r\n a\r\n\t  b\r\n", "SUBJect\t :\r\n a\r\n\t  b\r\n", "subject:a b\r\n"},
	{"X:a:b : C\r\n", "X:a:b : C\r\n", "x:a:b : C\r\n"},
	{"..x: y\r\n. z\r\n", ".x: y\r\n z\r\n", ".x:y z\r\n"},
};

static void test_header_fields(void **state)
{
	(void)state;
	check_forms(headers, sizeof(headers) / sizeof(headers[0]), header_in);
}

static void test_the_signature_field_gets_no_line_end(void **state)
{
	struct out *out = malloc(sizeof(*out));
	struct dkim_sink sink;
	struct dkim_header h;

	(void)state;
	for (int canon = 0; canon < DKIM_CANONS; canon++) {
		out->len = 0;
		dkim_sink_init(&sink, take, out);
		dkim_header_init(&h, (enum dkim_canon)canon, &sink);
		dkim_header_add(&h, "X: y;\r\n\tb=", 10);
		dkim_header_end_bare(&h);
		dkim_sink_flush(&sink);
		out->text[out->len] = '\0';
		assert_string_equal(out->text, canon == DKIM_RELAXED ? "x:y; b=" : "X: y;\r\n\tb=");
	}
	free(out);
}

/* Longer than the sink, in pieces that are and are not. */
static void test_long_lines_and_many_empty_ones(void **state)
{
	enum { LEN = 30000 };
	struct out *out = malloc(sizeof(*out));
	char *text = malloc(LEN);

	(void)state;
	memset(text, 'x', LEN);
	for (int canon = 0; canon < DKIM_CANONS; canon++) {
		for (size_t split = 0; split <= LEN; split += 1000) {
			body_in((enum dkim_canon)canon, text, LEN, split, out);
			assert_int_equal(out->len, LEN + 2);
			assert_memory_equal(out->text, text, LEN);
		}
	}
	for (size_t i = 0; i + 1 < LEN; i += 2) {
		memcpy(text + i, "\r\n", 2);
	}
	for (int canon = 0; canon < DKIM_CANONS; canon++) {
		body_in((enum dkim_canon)canon, text, LEN, 1, out);
		assert_int_equal(out->len, canon == DKIM_SIMPLE ? 2 : 0);
		text[LEN - 2] = 'x';
		text[LEN - 1] = 'y';
		body_in((enum dkim_canon)canon, text, LEN, 4097, out);
		assert_int_equal(out->len, LEN + 2);
		assert_memory_equal(out->text, text, LEN);
		memcpy(text + LEN - 2, "\r\n", 2);
	}
	free(text);
	free(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bodies),
		cmocka_unit_test(test_header_fields),
		cmocka_unit_test(test_the_signature_field_gets_no_line_end),
		cmocka_unit_test(test_long_lines_and_many_empty_ones),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
