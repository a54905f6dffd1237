#include "core/log/event_json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "core/mail/context.h"

static char object[EVENT_JSON_MAX];

static struct event event_of(enum event_kind kind)
{
	return (struct event){
		.kind = kind,
		.stage = SMTP_STAGE_DURING_RCPT,
		.code = 550,
		.bounce_class = 10,
		.retries = 2,
		.time_ms = 1753000000123,
		.id = {0x0198c0ffee000001, 0x0200000000000003},
		.batch = 0x2a,
		.connection = 0xdeadbeef,
		.size = 1234,
		.queued_ms = 61999,
		.text = {[EVENT_RECIPIENT] = "to@b.example",
			 [EVENT_REPLY] = "550 5.1.1 \"no\"\tsuch\\user\x01\x7f \xc3\xa4",
			 [EVENT_DOMAIN] = "b.example"}};
}

/* What jansson reads back; the caller's. */
static json_t *read_back(const struct event *e, const struct bounce_rules *rules)
{
	json_error_t error;
	size_t len = event_json(object, sizeof(object), e, rules);
	json_t *o = json_loadb(object, len, JSON_REJECT_DUPLICATES, &error);

	if (o == NULL) {
		fail_msg("%s: %.*s", error.text, (int)len, object);
	}
	assert_null(memchr(object, '\n', len));
	return o;
}

static const char *text_of(const json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

static void test_failure_has_all_that_is_known(void **state)
{
	struct event e = event_of(EVENT_BOUNCE);
	struct bounce_rules *rules = bounce_rules_load(NULL, stderr);
	json_t *o = read_back(&e, rules);

	(void)state;
	assert_string_equal(text_of(o, "type"), "bounce");
	assert_int_equal(json_integer_value(json_object_get(o, "time_ms")), 1753000000123);
	assert_int_equal(strlen(text_of(o, "id")), 26);
	assert_string_equal(text_of(o, "batch"), "2a");
	assert_string_equal(text_of(o, "connection"), "deadbeef");
	assert_int_equal(json_integer_value(json_object_get(o, "size_bytes")), 1234);
	assert_int_equal(json_integer_value(json_object_get(o, "attempt")), 3);
	assert_int_equal(json_integer_value(json_object_get(o, "queued_ms")), 61999);
	assert_int_equal(json_integer_value(json_object_get(o, "stage")), 4);
	assert_string_equal(text_of(o, "stage_name"), "during RCPT TO");
	assert_int_equal(json_integer_value(json_object_get(o, "code")), 550);
	assert_int_equal(json_integer_value(json_object_get(o, "bounce_class")), 10);
	assert_string_equal(text_of(o, "bounce_class_name"), "Invalid Recipient");
	assert_string_equal(text_of(o, "recipient"), "to@b.example");
	assert_string_equal(text_of(o, "sender"), "");
	assert_string_equal(text_of(o, "text"), e.text[EVENT_REPLY]);
	assert_null(json_object_get(o, "binding"));
	json_decref(o);
	bounce_rules_free(rules);
}

static void test_context_is_told_by_what_it_is(void **state)
{
	struct event e = event_of(EVENT_RECEPTION);
	static const char pairs[] = "subject:\0\xe4 wide\0tenant\0t1\0:dkim\0a.example b.example\0"
				    "from:\0me\0:other\0secret";
	json_t *o;
	json_t *list;

	(void)state;
	e.context = pairs;
	e.context_len = sizeof(pairs);
	o = read_back(&e, NULL);
	assert_string_equal(text_of(json_object_get(o, "headers"), "subject"), "\xef\xbf\xbd wide");
	assert_string_equal(text_of(json_object_get(o, "headers"), "from"), "me");
	assert_int_equal(json_object_size(json_object_get(o, "headers")), 2);
	assert_string_equal(text_of(json_object_get(o, "context"), "tenant"), "t1");
	assert_int_equal(json_object_size(json_object_get(o, "context")), 1);
	list = json_object_get(o, "dkim_domains");
	assert_int_equal(json_array_size(list), 2);
	assert_string_equal(json_string_value(json_array_get(list, 1)), "b.example");
	/* Not the name of a class without rules, nor of an attempt. */
	assert_null(json_object_get(o, "bounce_class_name"));
	assert_null(json_object_get(o, "attempt"));
	json_decref(o);
}

/* Octets at random, in all strings: always JSON, always UTF-8, and the same where they were. */
static void test_any_octets_become_utf8(void **state)
{
	unsigned seed = 3;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		char text[60];
		struct event e = event_of((enum event_kind)(i % EVENT_KINDS));
		bool ascii = i % 3 == 0;
		json_t *o;

		for (unsigned k = 0; k + 1 < sizeof(text); k++) {
			seed = seed * 1103515245U + 12345U;
			text[k] = (char)(seed >> 16 & (ascii ? 0x7f : 0xff));
			text[k] = text[k] == 0 ? '"' : text[k];
		}
		text[sizeof(text) - 1] = '\0';
		e.text[EVENT_REPLY] = text;
		e.text[EVENT_SENDER] = text + 30;
		o = read_back(&e, NULL);
		assert_non_null(text_of(o, "text"));
		assert_true(!ascii || strcmp(text_of(o, "text"), text) == 0);
		json_decref(o);
	}
}

/* However long strings are, and whatever room there is. */
static void test_object_fits_its_room(void **state)
{
	char *big = malloc(4001);
	char pairs[EVENT_CONTEXT_MAX];
	static const char fills[] = {'\x01', 'x', '\xff'};

	(void)state;
	assert_non_null(big);
	for (unsigned f = 0; f < sizeof(fills); f++) {
		struct event e = event_of(EVENT_BOUNCE);

		memset(big, fills[f], 4000);
		big[4000] = '\0';
		memset(pairs, fills[f], sizeof(pairs));
		for (unsigned k = 0; k < sizeof(pairs); k += 16) {
			pairs[k] = (char)('a' + k % 24);
			pairs[k + 1] = (char)('a' + k / 24 % 26);
			pairs[k + 2] = (char)('a' + k / 624);
			pairs[k + 3] = '\0';
			pairs[k + 15] = '\0';
		}
		for (unsigned i = 0; i < EVENT_FIELDS; i++) {
			e.text[i] = big;
		}
		e.context = pairs;
		e.context_len = sizeof(pairs);
		for (size_t size = 1536; size < EVENT_JSON_MAX; size += 517) {
			char *to = malloc(size);
			size_t len = event_json(to, size, &e, NULL);
			json_t *o = json_loadb(to, len, 0, NULL);

			assert_true(len <= size);
			assert_non_null(o);
			assert_string_equal(text_of(o, "type"), "bounce");
			json_decref(o);
			free(to);
		}
	}
	free(big);
}

/* What event_json_room() says is enough for nothing to be cut. */
static void test_room_is_enough(void **state)
{
	struct event e = event_of(EVENT_BOUNCE);
	struct event back = {0};
	unsigned char record[EVENT_SIZE_MAX];
	char text[2001];
	json_t *o;

	(void)state;
	memset(text, '\x02', 2000);
	text[2000] = '\0';
	e.text[EVENT_REPLY] = text;
	event_encode(&e, record, sizeof(record));
	assert_true(event_decode(record, sizeof(record), &back) > 0);
	o = json_loadb(object, event_json(object, event_json_room(&back), &back, NULL), 0, NULL);
	assert_int_equal(strlen(text_of(o, "text")), 2000);
	json_decref(o);
}

static void test_other_kinds_have_their_own(void **state)
{
	struct event e = event_of(EVENT_OUT_OF_BAND);
	json_t *o = read_back(&e, NULL);

	(void)state;
	assert_true(json_is_false(json_object_get(o, "permanent")));
	json_decref(o);
	e = (struct event){
		.kind = EVENT_AUTHENTICATION, .granted = true, .text = {[EVENT_USER] = "tim"}};
	o = read_back(&e, NULL);
	assert_true(json_is_true(json_object_get(o, "granted")));
	assert_string_equal(text_of(o, "user"), "tim");
	assert_null(json_object_get(o, "sender"));
	assert_null(json_object_get(o, "id"));
	json_decref(o);
	e = (struct event){.kind = EVENT_HEARTBEAT, .time_ms = 5};
	o = read_back(&e, NULL);
	assert_int_equal(json_object_size(o), 2);
	json_decref(o);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_failure_has_all_that_is_known),
		cmocka_unit_test(test_context_is_told_by_what_it_is),
		cmocka_unit_test(test_any_octets_become_utf8),
		cmocka_unit_test(test_object_fits_its_room),
		cmocka_unit_test(test_room_is_enough),
		cmocka_unit_test(test_other_kinds_have_their_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
