/*
 * text.h, mail.h, pairs.h of core/policy: header fields, wire form, and what is written back.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/policy/mail.h"

static struct pool buffers;

static int set_up(void **state)
{
	(void)state;
	pool_init(&buffers, "buffers", CHAIN_BUFFER_SIZE, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	pool_close(&buffers);
	return 0;
}

static void assert_chain(const struct chain *c, const char *wanted)
{
	char *text = calloc(1, c->len + 1);

	chain_copy_out(c, 0, text, c->len);
	assert_string_equal(text, wanted);
	free(text);
}

/* A mail with this wire form. */
static struct policy_mail mail_of(struct chain *c, const char *wire)
{
	struct policy_mail m;

	*c = CHAIN_EMPTY;
	chain_append(c, &buffers, wire, strlen(wire));
	policy_mail_init(&m);
	m.body = c;
	m.buffers = &buffers;
	return m;
}

static void close_mail(struct policy_mail *m, struct chain *c)
{
	policy_mail_close(m);
	chain_release(c, &buffers);
}

static void test_header_ends_at_the_empty_line(void **state)
{
	static const char *const samples[][3] = {
		{"A: 1\r\nB: 2\r\n\r\nbody\r\n", "A: 1\r\nB: 2\r\n", "body\r\n"},
		{"A: 1\r\n", "A: 1\r\n", ""},
		{"A: 1\r\n\r\n", "A: 1\r\n", ""},
		{"\r\nbody\r\n", "", "body\r\n"},
		{"A: 1\r\n\r\n\r\nx\r\n", "A: 1\r\n", "\r\nx\r\n"},
		{"A: 1\r\n\r\n..dot\r\n", "A: 1\r\n", ".dot\r\n"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(samples) / sizeof(samples[0]); i++) {
		struct chain c;
		struct policy_mail m = mail_of(&c, samples[i][0]);
		const struct policy_text *h = policy_mail_header(&m);
		const struct policy_text *t = policy_mail_text(&m);

		assert_int_equal(h->len, strlen(samples[i][1]));
		assert_memory_equal(h->data, samples[i][1], h->len);
		assert_int_equal(t->len, strlen(samples[i][2]));
		assert_memory_equal(t->data, samples[i][2], t->len);
		policy_mail_settle(&m);
		assert_false(m.changed);
		assert_chain(&c, samples[i][0]);
		close_mail(&m, &c);
	}
}

static void test_header_ends_wherever_buffers_do(void **state)
{
	static char wire[2 * CHAIN_BUFFER_SIZE];

	(void)state;
	for (size_t len = CHAIN_BUFFER_DATA - 8; len < CHAIN_BUFFER_DATA + 8; len++) {
		struct chain c;
		struct policy_mail m;

		memset(wire, 'x', len);
		memcpy(wire, "A:", 2);
		strcpy(wire + len, "\r\n\r\nbody\r\n");
		m = mail_of(&c, wire);
		assert_int_equal(policy_mail_header(&m)->len, len + 2);
		assert_int_equal(policy_mail_text(&m)->len, 6);
		assert_memory_equal(policy_mail_text(&m)->data, "body\r\n", 6);
		close_mail(&m, &c);
	}
}

static void test_fields_are_changed_in_place(void **state)
{
	struct chain c;
	struct policy_mail m = mail_of(&c, "A: 1\r\nB: 2\r\n x\r\nb: 3\r\n\r\n..x\r\n");

	(void)state;
	policy_mail_set_field(&m, "B", "new", 3, POLICY_FIELD_REPLACE);
	policy_mail_set_field(&m, "A", NULL, 0, POLICY_FIELD_REPLACE);
	policy_mail_set_field(&m, "First", "f", 1, POLICY_FIELD_PREPEND);
	policy_mail_set_field(&m, "Last", "l\r\nEvil: x\r\n y", 14, POLICY_FIELD_APPEND);
	policy_mail_settle(&m);
	assert_true(m.changed);
	assert_chain(&c, "First: f\r\nB: new\r\nLast: l Evil: x\r\n y\r\n\r\n..x\r\n");
	close_mail(&m, &c);
}

static void test_text_is_written_in_wire_form(void **state)
{
	struct chain c;
	struct policy_mail m = mail_of(&c, "A: 1\r\n\r\nold\r\n");

	(void)state;
	policy_mail_set_text(&m, ".\n.a\rb\r\n\303\244", 10);
	policy_mail_settle(&m);
	assert_true(m.high);
	assert_chain(&c, "A: 1\r\n\r\n..\r\n..a\r\nb\r\n\303\244\r\n");
	close_mail(&m, &c);
}

static void test_raw_has_header_and_text(void **state)
{
	struct chain c;
	struct policy_mail m = mail_of(&c, "A: 1\r\n\r\nold\r\n");

	(void)state;
	policy_mail_set_raw(&m, "B: 2\n\nnew", 9);
	policy_mail_settle(&m);
	assert_chain(&c, "B: 2\r\n\r\nnew\r\n");
	close_mail(&m, &c);
}

static void test_shared_text_is_left_alone(void **state)
{
	struct chain c;
	struct policy_mail m = mail_of(&c, "A: 1\r\n\r\nold\r\n");

	(void)state;
	m.shared = true;
	policy_mail_set_field(&m, "B", "2", 1, POLICY_FIELD_APPEND);
	policy_mail_settle(&m);
	assert_chain(&c, "A: 1\r\n\r\nold\r\n");
	assert_ptr_equal(m.body, &m.own);
	assert_chain(m.body, "A: 1\r\nB: 2\r\n\r\nold\r\n");
	close_mail(&m, &c);
}

static void test_values_are_unfolded(void **state)
{
	const char *header = "Subject : one\r\n two\r\nSubjects: no\r\n";
	struct policy_field f;
	char value[64];

	(void)state;
	assert_true(policy_field_next(header, strlen(header), "SUBJECT", 0, &f));
	assert_int_equal(policy_field_value(header, &f, value), 7);
	assert_memory_equal(value, "one two", 7);
	assert_false(policy_field_next(header, strlen(header), "subject", f.at + f.len, &f));
}

static void test_pairs_are_bounded(void **state)
{
	static char large[POLICY_PAIRS_BYTES];
	struct policy_pairs p = {0};
	char name[16];

	(void)state;
	assert_int_equal(policy_pairs_set(&p, "a", large, sizeof(large)), -ENOSPC);
	assert_int_equal(policy_pairs_set(&p, "a", large, sizeof(large) - 1), 0);
	assert_int_equal(policy_pairs_set(&p, "a", "1", 1), 0);
	for (int i = 1; i < POLICY_PAIRS_MAX; i++) {
		snprintf(name, sizeof(name), "k%d", i);
		assert_int_equal(policy_pairs_set(&p, name, "v", 1), 0);
	}
	assert_int_equal(policy_pairs_set(&p, "more", "v", 1), -ENOSPC);
	policy_pairs_delete(&p, "k7");
	assert_null(policy_pairs_find(&p, "k7"));
	assert_int_equal(policy_pairs_set(&p, "more", "v", 1), 0);
	assert_string_equal(policy_pairs_find(&p, "a")->value, "1");
	policy_pairs_clear(&p);
	assert_int_equal(p.bytes, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header_ends_at_the_empty_line),
		cmocka_unit_test(test_header_ends_wherever_buffers_do),
		cmocka_unit_test(test_fields_are_changed_in_place),
		cmocka_unit_test(test_text_is_written_in_wire_form),
		cmocka_unit_test(test_raw_has_header_and_text),
		cmocka_unit_test(test_shared_text_is_left_alone),
		cmocka_unit_test(test_values_are_unfolded),
		cmocka_unit_test(test_pairs_are_bounded),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
