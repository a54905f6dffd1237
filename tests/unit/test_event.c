#include "core/log/event.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/mail/context.h"

static unsigned char record[EVENT_SIZE_MAX];

static struct event full(void)
{
	static char texts[EVENT_FIELDS][24];
	struct event e = {.kind = EVENT_BOUNCE,
			  .stage = SMTP_STAGE_DURING_RCPT,
			  .permanent = true,
			  .code = 550,
			  .bounce_class = 10,
			  .retries = 70000,
			  .time_ms = 1753000000123,
			  .id = {1, 2},
			  .batch = 3,
			  .connection = UINT64_MAX,
			  .size = UINT64_C(1) << 40,
			  .queued_ms = 5,
			  .context = "subject:\0hello\0tenant\0",
			  .context_len = 23};

	for (unsigned i = 0; i < EVENT_FIELDS; i++) {
		snprintf(texts[i], sizeof(texts[i]), "text number %u", i);
		e.text[i] = texts[i];
	}
	return e;
}

static void assert_same(const struct event *a, const struct event *b)
{
	assert_int_equal(a->kind, b->kind);
	assert_int_equal(a->stage, b->stage);
	assert_int_equal(a->permanent, b->permanent);
	assert_int_equal(a->granted, b->granted);
	assert_int_equal(a->code, b->code);
	assert_int_equal(a->bounce_class, b->bounce_class);
	assert_int_equal(a->retries, b->retries);
	assert_int_equal(a->time_ms, b->time_ms);
	assert_memory_equal(&a->id, &b->id, sizeof(a->id));
	assert_int_equal(a->batch, b->batch);
	assert_int_equal(a->connection, b->connection);
	assert_int_equal(a->size, b->size);
	assert_int_equal(a->queued_ms, b->queued_ms);
	for (unsigned i = 0; i < EVENT_FIELDS; i++) {
		assert_string_equal(event_field(a, (enum event_field)i),
				    event_field(b, (enum event_field)i));
	}
	assert_int_equal(a->context_len, b->context_len);
	if (a->context_len > 0) {
		assert_memory_equal(a->context, b->context, a->context_len);
	}
}

static void test_decodes_what_was_encoded(void **state)
{
	struct event e = full();
	struct event back = {.text = {"what was there before"}};
	size_t len = event_encode(&e, record, sizeof(record));

	(void)state;
	assert_true(len > EVENT_HEAD_BYTES);
	assert_int_equal(event_decode(record, sizeof(record), &back), len);
	assert_same(&back, &e);
	assert_int_equal(back.record_bytes, len);
	e = (struct event){.kind = EVENT_HEARTBEAT, .granted = true};
	len = event_encode(&e, record, sizeof(record));
	assert_int_equal(len, EVENT_HEAD_BYTES);
	assert_int_equal(event_decode(record, len, &back), len);
	assert_same(&back, &e);
}

static void test_series_has_only_what_differs(void **state)
{
	struct event e = full();
	struct event back = {0};
	size_t first = event_encode(&e, record, sizeof(record));
	size_t second;

	(void)state;
	e.text[EVENT_RECIPIENT] = "other@b.example";
	e.text[EVENT_REPLY] = "";
	e.code = 551;
	second = event_encode_again(&e, EVENT_BIT(EVENT_RECIPIENT) | EVENT_BIT(EVENT_REPLY),
				    record + first, sizeof(record) - first);
	assert_true(second > 0 && second < EVENT_HEAD_BYTES + 24);
	assert_int_equal(event_decode(record, sizeof(record), &back), first);
	assert_int_equal(event_decode(record + first, second, &back), second);
	assert_same(&back, &e);
	assert_int_equal(back.record_bytes, first + second);
}

static void test_needs_room_for_all_of_it(void **state)
{
	struct event e = full();
	size_t len = event_encode(&e, record, sizeof(record));
	unsigned char *exact = malloc(len);

	(void)state;
	assert_non_null(exact);
	assert_int_equal(event_encode(&e, exact, len), len);
	for (size_t room = 0; room < len; room++) {
		unsigned char *less = malloc(room + 1);

		assert_int_equal(event_encode(&e, less, room), 0);
		free(less);
	}
	free(exact);
}

static void test_longest_strings_are_cut_and_fit(void **state)
{
	struct event e = full();
	struct event back;
	char *big = malloc(100001);
	char pairs[EVENT_CONTEXT_MAX];
	size_t len;

	(void)state;
	assert_non_null(big);
	memset(big, 'x', 100000);
	big[100000] = '\0';
	memset(pairs, 'y', sizeof(pairs));
	pairs[10] = '\0';
	pairs[sizeof(pairs) - 1] = '\0';
	for (unsigned i = 0; i < EVENT_FIELDS; i++) {
		e.text[i] = big;
	}
	e.context = pairs;
	e.context_len = sizeof(pairs);
	len = event_encode(&e, record, sizeof(record));
	assert_int_equal(len, EVENT_SIZE_MAX);
	assert_int_equal(event_decode(record, len, &back), len);
	assert_int_equal(strlen(back.text[EVENT_REPLY]), EVENT_LONG_MAX);
	assert_int_equal(strlen(back.text[EVENT_DOMAIN]), EVENT_MEDIUM_MAX);
	assert_int_equal(strlen(back.text[EVENT_ENHANCED]), EVENT_WORD_MAX);
	free(big);
}

/* Each byte of a record, changed: it is refused, or is another record of the same length. */
static void test_decode_when_damaged_stays_inside(void **state)
{
	struct event e = full();
	size_t len = event_encode(&e, record, sizeof(record));

	(void)state;
	for (size_t i = 0; i < len; i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			unsigned char *copy = malloc(len);
			struct event back = {0};
			int rc;

			assert_non_null(copy);
			memcpy(copy, record, len);
			copy[i] ^= (unsigned char)(1U << bit);
			rc = event_decode(copy, len, &back);
			assert_true(rc == -EINVAL || rc == (int)len);
			for (unsigned f = 0; rc > 0 && f < EVENT_FIELDS; f++) {
				assert_true(strlen(event_field(&back, (enum event_field)f)) <=
					    EVENT_LONG_MAX);
			}
			free(copy);
		}
	}
	for (size_t cut = 0; cut < len; cut++) {
		struct event back = {0};

		assert_int_equal(event_decode(record, cut, &back), -EINVAL);
	}
}

static void test_every_kind_has_a_name_and_a_log(void **state)
{
	(void)state;
	for (unsigned i = 0; i < EVENT_KINDS; i++) {
		assert_true(strlen(event_kind_name((enum event_kind)i)) > 5);
		assert_true((event_logs((enum event_kind)i) & 1U << LOG_PANIC) == 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decodes_what_was_encoded),
		cmocka_unit_test(test_series_has_only_what_differs),
		cmocka_unit_test(test_needs_room_for_all_of_it),
		cmocka_unit_test(test_longest_strings_are_cut_and_fit),
		cmocka_unit_test(test_decode_when_damaged_stays_inside),
		cmocka_unit_test(test_every_kind_has_a_name_and_a_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
