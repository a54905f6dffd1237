#include "core/mail/header.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUE_SIZE 65

static struct pool buffers;

static int set_up(void **state)
{
	(void)state;
	pool_init(&buffers, "chain buffer", CHAIN_BUFFER_SIZE, 16);
	return 0;
}

/* No test may leak a buffer. */
static int tear_down(void **state)
{
	(void)state;
	pool_close(&buffers);
	return buffers.live == 0 ? 0 : -1;
}

/* A chain of `text` whose buffers have `piece` bytes each, the first `first`. */
static struct chain chain_of(const char *text, size_t len, size_t first, size_t piece)
{
	struct chain all = CHAIN_EMPTY;
	size_t at = 0;

	while (at < len) {
		struct chain last = CHAIN_EMPTY;
		size_t n = at == 0 && first != 0 ? first : piece;

		n = n < len - at ? n : len - at;
		chain_append(&last, &buffers, text + at, n);
		at += n;
		chain_prepend_chain(&last, &all);
		all = last;
	}
	return all;
}

static void assert_is(struct chain *c, const char *text, size_t len)
{
	char *copy = malloc(len + 1);
	uint32_t count = 0;
	uint64_t sum = 0;

	assert_non_null(copy);
	for (const struct chain_buffer *b = c->head; b != NULL; b = b->next) {
		count++;
		sum += b->len;
		assert_true(b->len > 0);
		assert_true(b->next != NULL || c->tail == b);
	}
	assert_int_equal(count, c->buffers);
	assert_int_equal(sum, c->len);
	assert_int_equal(c->len, len);
	chain_copy_out(c, 0, copy, len);
	assert_memory_equal(copy, text, len);
	free(copy);
}

static const struct sample {
	const char *before;
	unsigned count;
	const char *value;
	const char *after;
} samples[] = {
	{"A: 1\r\nX-Binding: promo\r\nB: 2\r\n\r\nbody\r\n", 1, "promo",
	 "A: 1\r\nB: 2\r\n\r\nbody\r\n"},
	/* First, last, alone, without a body, without the empty line. */
	{"X-Binding: a\r\nB: 2\r\n\r\nx\r\n", 1, "a", "B: 2\r\n\r\nx\r\n"},
	{"B: 2\r\nX-Binding: a\r\n\r\nx\r\n", 1, "a", "B: 2\r\n\r\nx\r\n"},
	{"X-Binding: a\r\n\r\nx\r\n", 1, "a", "\r\nx\r\n"},
	{"X-Binding: a\r\n\r\n", 1, "a", "\r\n"},
	{"X-Binding: a\r\n", 1, "a", ""},
	{"B: 2\r\nX-Binding: a\r\n", 1, "a", "B: 2\r\n"},
	/* Any case; blanks around; nothing before the value. */
	{"x-bINDING:a\r\n\r\n", 1, "a", "\r\n"},
	{"X-BINDING :  a b\t\r\n\r\n", 1, "a b", "\r\n"},
	{"X-Binding \t:a\r\n\r\n", 1, "a", "\r\n"},
	/* Folded: the value may begin in any line. */
	{"X-Binding:\r\n promo\r\nB: 2\r\n\r\n", 1, "promo", "B: 2\r\n\r\n"},
	{"X-Binding: one\r\n\ttwo\r\n  three\r\nB: 2\r\n\r\n", 1, "one two  three", "B: 2\r\n\r\n"},
	{"B: 2\r\n X-Binding: no\r\nX-Binding: yes\r\n\r\n", 1, "yes",
	 "B: 2\r\n X-Binding: no\r\n\r\n"},
	/* All of them go; the first counts, empty or not. */
	{"X-Binding: a\r\nX-Binding: b\r\nB: 2\r\nx-binding: c\r\n\r\n", 3, "a", "B: 2\r\n\r\n"},
	{"X-Binding:\r\nB: 2\r\nX-Binding: b\r\n\r\n", 2, "", "B: 2\r\n\r\n"},
	{"X-Binding: \t \r\n\r\n", 1, "", "\r\n"},
	/* Octets above 127 are part of a name, controls are not. */
	{"X-Binding: b\xc3\xbc"
	 "cher\r\n\r\n",
	 1,
	 "b\xc3\xbc"
	 "cher",
	 "\r\n"},
	{"X-Binding: a\x01"
	 "b\r\n\r\n",
	 1, "a b", "\r\n"},
	/* What is none stays, and the body is nobody's to look at. */
	{"X-Bindings: a\r\nX-Bindin: b\r\nBinding: c\r\n\r\n", 0, "",
	 "X-Bindings: a\r\nX-Bindin: b\r\nBinding: c\r\n\r\n"},
	{"X-Binding a: b\r\n\r\n", 0, "", "X-Binding a: b\r\n\r\n"},
	{"X-Binding\r\n\r\n", 0, "", "X-Binding\r\n\r\n"},
	{"B: 2\r\n\r\nX-Binding: a\r\n", 0, "", "B: 2\r\n\r\nX-Binding: a\r\n"},
	{"\r\nX-Binding: a\r\n\r\n", 0, "", "\r\nX-Binding: a\r\n\r\n"},
	{"X-Binding: a\r\n\r\nX-Binding: b\r\n", 1, "a", "\r\nX-Binding: b\r\n"},
	{"", 0, "", ""},
};

static void test_samples_in_buffers_of_any_size(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
		const struct sample *s = &samples[i];

		for (size_t piece = 1; piece <= 40; piece++) {
			struct chain c = chain_of(s->before, strlen(s->before), piece / 2, piece);
			char value[VALUE_SIZE];

			if (header_take(&c, &buffers, "X-Binding", value, sizeof(value)) !=
				    s->count ||
			    strcmp(value, s->value) != 0) {
				fail_msg("%s: %s", s->before, value);
			}
			assert_is(&c, s->after, strlen(s->after));
			chain_release(&c, &buffers);
		}
	}
}

static void test_long_values_are_cut(void **state)
{
	char text[4000] = "X-Binding: ";
	char value[VALUE_SIZE];
	struct chain c;

	(void)state;
	memset(text + strlen(text), 'v', 3000);
	strcat(text, "\r\nB: 2\r\n\r\n");
	c = chain_of(text, strlen(text), 0, 500);
	assert_int_equal(header_take(&c, &buffers, "X-Binding", value, sizeof(value)), 1);
	assert_int_equal(strspn(value, "v"), VALUE_SIZE - 1);
	assert_is(&c, "B: 2\r\n\r\n", 8);
	chain_release(&c, &buffers);
}

/* Behind more header than anybody else looks at; and many of them, in a time that grows with the
 * header and no faster: with a walk from the start for each this would take an hour. */
static void test_long_headers(void **state)
{
	enum { FIELDS = 200000 };
	static const char field[] = "X-Binding: a\r\nReceived: by somebody\r\n";
	char *text = malloc(FIELDS * sizeof(field) + 100);
	char *wanted = malloc(FIELDS * sizeof(field) + 100);
	char value[VALUE_SIZE];
	size_t len = 0;
	size_t wanted_len = 0;
	struct chain c;

	(void)state;
	assert_non_null(text);
	assert_non_null(wanted);
	for (unsigned i = 0; i < FIELDS; i++) {
		len += (size_t)sprintf(text + len, "%s", field);
		wanted_len += (size_t)sprintf(wanted + wanted_len, "%s", strchr(field, '\n') + 1);
	}
	len += (size_t)sprintf(text + len, "\r\nX-Binding: b\r\n");
	wanted_len += (size_t)sprintf(wanted + wanted_len, "\r\nX-Binding: b\r\n");
	c = chain_of(text, len, 0, CHAIN_BUFFER_DATA);
	assert_int_equal(header_take(&c, &buffers, "X-Binding", value, sizeof(value)), FIELDS);
	assert_string_equal(value, "a");
	assert_is(&c, wanted, wanted_len);
	chain_release(&c, &buffers);
	free(text);
	free(wanted);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_samples_in_buffers_of_any_size),
		TEST(test_long_values_are_cut),
		TEST(test_long_headers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
