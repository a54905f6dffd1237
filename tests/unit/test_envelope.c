#include "core/mail/envelope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static struct envelope_builder builder;

static int set_up(void **state)
{
	(void)state;
	envelope_builder_init(&builder);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	envelope_builder_close(&builder);
	return 0;
}

static bool add(const char *address)
{
	return envelope_add_recipient(&builder, address, strlen(address));
}

static void set_sender(const char *address)
{
	envelope_set_sender(&builder, address, strlen(address));
}

/* The caller frees it. Filled with a pattern first, so that an unwritten byte shows. */
static struct envelope *build(void)
{
	size_t size = envelope_size(&builder);
	struct envelope *e = malloc(size);

	assert_non_null(e);
	memset(e, 0xa5, size);
	envelope_build(&builder, e);
	assert_int_equal(e->size, size);
	assert_int_equal(envelope_check(e, size), 0);
	return e;
}

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void test_id_text_goes_both_ways(void **state)
{
	uint64_t seed = 99;

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		struct message_id id = {random_next(&seed), random_next(&seed)};
		struct message_id back;
		char text[MESSAGE_ID_TEXT];

		message_id_format(&id, text);
		assert_int_equal(strlen(text), MESSAGE_ID_TEXT - 1);
		assert_int_equal(message_id_parse(text, &back), 0);
		assert_true(back.high == id.high && back.low == id.low);
	}
}

static void test_id_text_of_known_ids(void **state)
{
	char text[MESSAGE_ID_TEXT];

	(void)state;
	message_id_format(&(struct message_id){0, 0}, text);
	assert_string_equal(text, "00000000000000000000000000");
	message_id_format(&(struct message_id){UINT64_MAX, UINT64_MAX}, text);
	assert_string_equal(text, "7zzzzzzzzzzzzzzzzzzzzzzzzz");
	message_id_format(&(struct message_id){0, 33}, text);
	assert_string_equal(text, "00000000000000000000000011");
	message_id_format(&(struct message_id){1, 0}, text);
	assert_string_equal(text, "0000000000000g000000000000");
}

static void test_id_text_sorts_like_the_id(void **state)
{
	uint64_t seed = 7;

	(void)state;
	for (unsigned i = 0; i < 1000; i++) {
		struct message_id a = {random_next(&seed), random_next(&seed)};
		struct message_id b = {a.high, random_next(&seed)};
		char a_text[MESSAGE_ID_TEXT];
		char b_text[MESSAGE_ID_TEXT];

		if (i % 2 == 0) {
			b.high = random_next(&seed);
		}
		message_id_format(&a, a_text);
		message_id_format(&b, b_text);
		assert_true((strcmp(a_text, b_text) < 0) ==
			    (a.high < b.high || (a.high == b.high && a.low < b.low)));
	}
}

static void test_id_parse_when_no_id_is_refused(void **state)
{
	static const char *const bad[] = {"",
					  "0",
					  "0000000000000000000000000",
					  "000000000000000000000000000",
					  "80000000000000000000000000",
					  "0000000000000i000000000000",
					  "0000000000000l000000000000",
					  "0000000000000o000000000000",
					  "0000000000000u000000000000",
					  "0000000000000-000000000000",
					  " 0000000000000000000000000"};
	struct message_id id;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(message_id_parse(bad[i], &id), -EINVAL);
	}
	assert_int_equal(message_id_parse("0000000000000G00000000000Z", &id), 0);
	assert_true(id.high == 1 && id.low == 31);
}

static void test_build_groups_recipients_by_domain(void **state)
{
	struct envelope *e;

	(void)state;
	set_sender("me@here.example");
	assert_true(add("one@b.example"));
	assert_true(add("two@A.example"));
	assert_true(add("three@B.Example"));
	assert_true(add("four@a.example"));
	e = build();
	assert_string_equal(envelope_sender(e), "me@here.example");
	assert_int_equal(e->delivery_count, 2);
	assert_int_equal(e->recipient_count, 4);
	assert_string_equal(envelope_domain(e, 0), "a.example");
	assert_int_equal(envelope_delivery(e, 0)->first, 0);
	assert_int_equal(envelope_delivery(e, 0)->count, 2);
	assert_string_equal(envelope_domain(e, 1), "b.example");
	assert_int_equal(envelope_delivery(e, 1)->first, 2);
	assert_string_equal(envelope_address(e, 0), "two@A.example");
	assert_string_equal(envelope_address(e, 1), "four@a.example");
	assert_string_equal(envelope_address(e, 2), "one@b.example");
	assert_string_equal(envelope_address(e, 3), "three@B.Example");
	assert_int_equal(envelope_recipient(e, 3)->len, 15);
	free(e);
}

static void test_build_with_null_sender(void **state)
{
	struct envelope *e;

	(void)state;
	set_sender("");
	assert_true(add("a@b"));
	e = build();
	assert_string_equal(envelope_sender(e), "");
	assert_string_equal(envelope_domain(e, 0), "b");
	free(e);
}

static void test_add_when_duplicate_is_merged(void **state)
{
	struct envelope *e;

	(void)state;
	set_sender("s@x");
	assert_true(add("user@example.com"));
	assert_false(add("user@example.com"));
	assert_false(add("user@EXAMPLE.com"));
	assert_true(add("User@example.com"));
	assert_true(add("user@example.co"));
	assert_true(add("\"a@b\"@example.com"));
	assert_true(add("\"a@B\"@example.com"));
	assert_false(add("\"a@b\"@example.COM"));
	e = build();
	assert_int_equal(e->recipient_count, 5);
	free(e);
}

static void test_add_after_size_is_still_sorted_and_merged(void **state)
{
	struct envelope *e;

	(void)state;
	set_sender("s@x");
	assert_true(add("a@z"));
	assert_true(add("a@y"));
	assert_true(envelope_size(&builder) > 0);
	assert_true(add("a@a"));
	assert_false(add("a@z"));
	assert_false(add("a@y"));
	e = build();
	assert_string_equal(envelope_domain(e, 0), "a");
	assert_string_equal(envelope_domain(e, 2), "z");
	free(e);
}

static void test_build_splits_domains_above_128_recipients(void **state)
{
	static const uint32_t counts[] = {1, 127, 128, 129, 256, 257, 1000};
	char address[64];

	(void)state;
	for (unsigned c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
		struct envelope *e;
		uint32_t deliveries = (counts[c] + 127) / 128;

		envelope_builder_reset(&builder);
		set_sender("s@x");
		assert_true(add("first@aaa"));
		for (uint32_t i = 0; i < counts[c]; i++) {
			snprintf(address, sizeof(address), "user%u@big.example", i);
			assert_true(add(address));
		}
		e = build();
		assert_int_equal(e->delivery_count, 1 + deliveries);
		for (uint32_t i = 1; i < e->delivery_count; i++) {
			assert_string_equal(envelope_domain(e, i), "big.example");
			assert_int_equal(envelope_delivery(e, i)->first, 1 + (i - 1) * 128);
		}
		for (uint32_t i = 0; i < counts[c]; i++) {
			snprintf(address, sizeof(address), "user%u@big.example", i);
			assert_string_equal(envelope_address(e, 1 + i), address);
		}
		free(e);
	}
}

static void test_reset_forgets_the_message_before(void **state)
{
	struct envelope *e;

	(void)state;
	set_sender("s@x");
	assert_true(add("a@b"));
	builder.flags = ENVELOPE_8BITMIME;
	envelope_builder_reset(&builder);
	set_sender("t@y");
	assert_true(add("a@b"));
	e = build();
	assert_int_equal(e->recipient_count, 1);
	assert_int_equal(e->flags, 0);
	assert_string_equal(envelope_sender(e), "t@y");
	free(e);
}

static void test_reset_after_a_huge_message_gives_memory_back(void **state)
{
	struct envelope *e;
	char address[64];

	(void)state;
	set_sender("s@x");
	for (unsigned i = 0; i < ENVELOPE_RECIPIENTS_MAX; i++) {
		snprintf(address, sizeof(address), "user%u@d%u.example", i, i % 1000);
		assert_true(add(address));
	}
	e = build();
	assert_int_equal(e->recipient_count, ENVELOPE_RECIPIENTS_MAX);
	assert_int_equal(e->delivery_count, 1000);
	free(e);
	envelope_builder_reset(&builder);
	assert_int_equal(builder.text_size, 0);
	set_sender("s@x");
	assert_true(add("user1@d1.example"));
	e = build();
	assert_int_equal(e->recipient_count, 1);
	free(e);
}

static void test_build_carries_flags_and_pads_with_zeros(void **state)
{
	struct envelope *e;

	(void)state;
	set_sender("s@x");
	assert_true(add("a@b"));
	builder.flags = ENVELOPE_8BITMIME | ENVELOPE_SMTPUTF8;
	e = build();
	assert_int_equal(e->flags, ENVELOPE_8BITMIME | ENVELOPE_SMTPUTF8);
	assert_int_equal(e->version, ENVELOPE_VERSION);
	assert_int_equal(e->size % 8, 0);
	assert_int_equal(e->deadline_ms, 0);
	assert_int_equal(((const char *)e)[e->size - 1], 0);
	free(e);
}

/* Against a list that is searched from the start each time. */
static void test_random_recipients_match_a_naive_list(void **state)
{
	static char list[3000][64];
	uint64_t seed = 4711;
	char address[64];

	(void)state;
	for (unsigned round = 0; round < 5; round++) {
		uint32_t count = 0;
		struct envelope *e;

		envelope_builder_reset(&builder);
		set_sender("s@x");
		for (unsigned i = 0; i < 3000; i++) {
			uint64_t r = random_next(&seed);
			bool known = false;

			snprintf(address, sizeof(address), "u%u@d%u.%s", (unsigned)(r % 300),
				 (unsigned)(r / 1000 % 10), r / 100000 % 2 != 0 ? "NET" : "net");
			for (uint32_t k = 0; k < count && !known; k++) {
				known = strcasecmp(list[k], address) == 0;
			}
			assert_int_equal(add(address), !known);
			if (!known) {
				memcpy(list[count++], address, sizeof(address));
			}
		}
		e = build();
		assert_int_equal(e->recipient_count, count);
		for (uint32_t d = 1; d < e->delivery_count; d++) {
			assert_true(strcmp(envelope_domain(e, d - 1), envelope_domain(e, d)) <= 0);
		}
		free(e);
	}
}

static void test_build_keeps_notification_parameters(void **state)
{
	struct envelope *e;

	(void)state;
	set_sender("s@x");
	builder.flags = ENVELOPE_RET_FULL;
	envelope_set_envid(&builder, "QQ+2B", 5);
	assert_true(add("z@y"));
	envelope_set_notify(&builder, ENVELOPE_NOTIFY_SUCCESS, "rfc822;z+2B@y", 13);
	assert_true(add("b@x"));
	envelope_set_notify(&builder, ENVELOPE_NOTIFY_NEVER, NULL, 0);
	assert_true(add("a@x"));
	envelope_set_notify(&builder, 0, "t;a", 3);
	assert_false(add("Z@Y") && add("z@y"));
	e = build();
	assert_int_equal(e->flags, ENVELOPE_RET_FULL | ENVELOPE_ENVID);
	assert_string_equal(envelope_sender(e), "s@x");
	assert_string_equal(envelope_envid(e), "QQ+2B");
	/* Sorted by domain. */
	assert_string_equal(envelope_address(e, 0), "b@x");
	assert_int_equal(envelope_recipient(e, 0)->flags, ENVELOPE_NOTIFY_NEVER);
	assert_null(envelope_orcpt(e, 0));
	assert_string_equal(envelope_address(e, 1), "a@x");
	assert_string_equal(envelope_orcpt(e, 1), "t;a");
	assert_int_equal(envelope_recipient(e, 1)->flags, ENVELOPE_ORCPT);
	assert_string_equal(envelope_address(e, 2), "z@y");
	assert_string_equal(envelope_orcpt(e, 2), "rfc822;z+2B@y");
	assert_int_equal(envelope_recipient(e, 2)->flags, ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_ORCPT);
	free(e);
	/* The next message has none of that. */
	envelope_builder_reset(&builder);
	set_sender("s@x");
	assert_true(add("a@x"));
	e = build();
	assert_null(envelope_envid(e));
	assert_null(envelope_orcpt(e, 0));
	free(e);
}

static void test_check_when_notification_parameters_are_bad_refuses(void **state)
{
	struct envelope *e;
	char *at;

	(void)state;
	set_sender("s@x");
	envelope_set_envid(&builder, "QQ", 2);
	assert_true(add("a@x"));
	envelope_set_notify(&builder, 0, "t;a", 3);
	e = build();
	at = (char *)(uintptr_t)envelope_envid(e);
	at[0] = '\r';
	assert_int_equal(envelope_check(e, e->size), -EINVAL);
	at[0] = '\0';
	assert_int_equal(envelope_check(e, e->size), -EINVAL);
	at[0] = 'Q';
	assert_int_equal(envelope_check(e, e->size), 0);
	at = (char *)(uintptr_t)envelope_orcpt(e, 0);
	at[1] = '\n';
	assert_int_equal(envelope_check(e, e->size), -EINVAL);
	at[1] = ';';
	assert_int_equal(envelope_check(e, e->size), 0);
	free(e);
	/* The last text of the block has none behind it. */
	envelope_builder_reset(&builder);
	set_sender("s@x");
	assert_true(add("a@xxxx"));
	e = build();
	e->flags |= ENVELOPE_ENVID;
	e->sender_offset = e->size - 1;
	assert_int_equal(envelope_check(e, e->size), -EINVAL);
	free(e);
}

static void test_build_keeps_the_binding(void **state)
{
	struct envelope *plain;
	struct envelope *e;

	(void)state;
	set_sender("s@x");
	envelope_set_envid(&builder, "QQ", 2);
	assert_true(add("z@y"));
	envelope_set_notify(&builder, 0, "t;z", 3);
	assert_true(add("a@x"));
	plain = build();
	assert_null(envelope_binding(plain));
	envelope_set_binding(&builder, "promo-a");
	e = build();
	assert_int_equal(e->flags, ENVELOPE_ENVID | ENVELOPE_BINDING);
	assert_string_equal(envelope_binding(e), "promo-a");
	assert_string_equal(envelope_envid(e), "QQ");
	assert_string_equal(envelope_domain(e, 0), "x");
	assert_string_equal(envelope_address(e, 0), "a@x");
	assert_string_equal(envelope_address(e, 1), "z@y");
	assert_string_equal(envelope_orcpt(e, 1), "t;z");
	free(e);
	/* The default one takes no byte. */
	envelope_set_binding(&builder, NULL);
	e = build();
	assert_int_equal(e->size, plain->size);
	assert_memory_equal(e, plain, e->size);
	free(e);
	free(plain);
	/* The next message has none; and without an ENVID it is found all the same. */
	envelope_set_binding(&builder, "promo-a");
	envelope_builder_reset(&builder);
	set_sender("");
	assert_true(add("a@x"));
	e = build();
	assert_null(envelope_binding(e));
	free(e);
	envelope_set_binding(&builder, "b");
	e = build();
	assert_string_equal(envelope_sender(e), "");
	assert_string_equal(envelope_binding(e), "b");
	assert_string_equal(envelope_address(e, 0), "a@x");
	free(e);
}

static void test_check_when_the_binding_is_bad_refuses(void **state)
{
	char name[ENVELOPE_BINDING_MAX + 1] = "";
	struct envelope *e;
	char *at;

	(void)state;
	memset(name, 'n', sizeof(name) - 1);
	set_sender("s@x");
	assert_true(add("a@x"));
	envelope_set_binding(&builder, name);
	e = build();
	at = (char *)(uintptr_t)envelope_binding(e);
	/* One byte more than may be. */
	at[ENVELOPE_BINDING_MAX] = 'n';
	assert_int_equal(envelope_check(e, e->size), -EINVAL);
	at[ENVELOPE_BINDING_MAX] = '\0';
	assert_int_equal(envelope_check(e, e->size), 0);
	at[0] = '\0';
	assert_int_equal(envelope_check(e, e->size), -EINVAL);
	at[0] = 'n';
	e->sender_offset = e->size - 1;
	assert_int_equal(envelope_check(e, e->size), -EINVAL);
	free(e);
}

static void test_check_when_header_is_bad_refuses(void **state)
{
	struct envelope *e;
	struct envelope good;

	(void)state;
	set_sender("s@x");
	assert_true(add("a@b"));
	assert_true(add("a@c"));
	e = build();
	good = *e;
	assert_int_equal(envelope_check(e, e->size - 1), -EINVAL);
	assert_int_equal(envelope_check(e, sizeof(*e) - 1), -EINVAL);
#define REFUSED(field, value)                                                                      \
	do {                                                                                       \
		*e = good;                                                                         \
		e->field = (value);                                                                \
		assert_int_equal(envelope_check(e, good.size), -EINVAL);                           \
	} while (0)
	REFUSED(size, good.size + 8);
	REFUSED(version, ENVELOPE_VERSION + 1);
	REFUSED(sender_offset, good.size);
	REFUSED(sender_offset, 8);
	REFUSED(deliveries_offset, good.deliveries_offset + 1);
	REFUSED(deliveries_offset, good.size - 8);
	REFUSED(deliveries_offset, UINT32_MAX - 3);
	REFUSED(recipients_offset, good.size);
	REFUSED(recipient_count, 3);
	REFUSED(recipient_count, 1);
	REFUSED(recipient_count, UINT32_MAX);
	REFUSED(delivery_count, 1);
	REFUSED(delivery_count, 3);
	REFUSED(tenant_offset, good.size);
	REFUSED(campaign_offset, good.size);
	REFUSED(context_offset, good.size);
#undef REFUSED
	*e = good;
	((char *)e)[e->size - 1] = 'x';
	assert_int_equal(envelope_check(e, good.size), -EINVAL);
	free(e);
}

/* Reads all that an accepted envelope offers: the sanitizer sees it if that leads outside. */
static void read_all(const struct envelope *e)
{
	size_t sum = strlen(envelope_sender(e));

	for (uint32_t d = 0; d < e->delivery_count; d++) {
		const struct envelope_delivery *delivery = envelope_delivery(e, d);

		sum += strlen(envelope_domain(e, d));
		sum += envelope_envid(e) != NULL ? strlen(envelope_envid(e)) : 0;
		sum += envelope_binding(e) != NULL ? strlen(envelope_binding(e)) : 0;
		for (uint32_t i = 0; i < delivery->count; i++) {
			const char *address = envelope_address(e, delivery->first + i);

			const char *orcpt = envelope_orcpt(e, delivery->first + i);

			sum += strlen(address) + (orcpt != NULL ? strlen(orcpt) : 0);
			assert_int_equal(strlen(address),
					 envelope_recipient(e, delivery->first + i)->len);
			assert_non_null(strchr(address, '@'));
		}
	}
	assert_true(sum > 0 || e->delivery_count == 0);
}

static void test_check_when_bytes_are_damaged_never_leads_outside(void **state)
{
	uint64_t seed = 2024;
	struct envelope *e;
	struct envelope *damaged;
	size_t size;
	unsigned accepted = 0;

	(void)state;
	set_sender("s@x");
	envelope_set_envid(&builder, "e+20", 4);
	envelope_set_binding(&builder, "b");
	for (char c = 'a'; c <= 'h'; c++) {
		char address[] = {c, '@', (char)(c < 'e' ? 'x' : 'y'), '\0'};

		assert_true(add(address));
		if (c % 2 == 0) {
			envelope_set_notify(&builder, ENVELOPE_NOTIFY_DELAY, "t;x", 3);
		}
	}
	e = build();
	size = e->size;
	damaged = malloc(size);
	assert_non_null(damaged);
	for (unsigned i = 0; i < 100000; i++) {
		memcpy(damaged, e, size);
		for (uint64_t n = random_next(&seed) % 3; n < 3; n++) {
			((unsigned char *)damaged)[random_next(&seed) % size] =
				(unsigned char)random_next(&seed);
		}
		if (envelope_check(damaged, size) == 0) {
			read_all(damaged);
			accepted++;
		}
	}
	assert_true(accepted > 0);
	free(damaged);
	free(e);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

/* Pairs of the context, behind everything; and damage to them is found. */
static void test_context_travels_with_the_block(void **state)
{
	struct envelope_builder b;
	struct context context;
	struct envelope *e;
	const char *pairs;
	uint32_t len;
	size_t size;

	(void)state;
	envelope_builder_init(&b);
	envelope_set_sender(&b, "a@b", 3);
	envelope_add_recipient(&b, "c@d", 3);
	size = envelope_size(&b);
	e = calloc(1, size);
	envelope_build(&b, e);
	assert_null(envelope_context(e, &len));
	assert_int_equal(len, 0);
	free(e);
	context_reset(&context);
	context_add(&context, "subject:", "hello", 5, CONTEXT_MAX);
	context_add(&context, "tenant", "t1", 2, CONTEXT_MAX);
	envelope_set_context(&b, &context);
	size = envelope_size(&b);
	e = calloc(1, size);
	envelope_build(&b, e);
	assert_int_equal(envelope_check(e, size), 0);
	pairs = envelope_context(e, &len);
	assert_int_equal(len, context.len);
	assert_memory_equal(pairs, context.pairs, len);
	assert_string_equal(envelope_address(e, 0), "c@d");
	e->context_count = 3;
	assert_int_equal(envelope_check(e, size), -EINVAL);
	e->context_count = UINT32_MAX;
	assert_int_equal(envelope_check(e, size), -EINVAL);
	e->context_count = 2;
	e->context_offset = (uint32_t)size - 1;
	assert_int_equal(envelope_check(e, size), -EINVAL);
	free(e);
	/* The next message has none. */
	envelope_builder_reset(&b);
	envelope_set_sender(&b, "a@b", 3);
	assert_null(b.context);
	envelope_builder_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_id_text_goes_both_ways),
		TEST(test_id_text_of_known_ids),
		TEST(test_id_text_sorts_like_the_id),
		TEST(test_id_parse_when_no_id_is_refused),
		TEST(test_build_groups_recipients_by_domain),
		TEST(test_build_with_null_sender),
		TEST(test_add_when_duplicate_is_merged),
		TEST(test_add_after_size_is_still_sorted_and_merged),
		TEST(test_build_splits_domains_above_128_recipients),
		TEST(test_reset_forgets_the_message_before),
		TEST(test_reset_after_a_huge_message_gives_memory_back),
		TEST(test_build_carries_flags_and_pads_with_zeros),
		TEST(test_random_recipients_match_a_naive_list),
		TEST(test_build_keeps_notification_parameters),
		TEST(test_check_when_notification_parameters_are_bad_refuses),
		TEST(test_build_keeps_the_binding),
		TEST(test_check_when_the_binding_is_bad_refuses),
		TEST(test_check_when_header_is_bad_refuses),
		TEST(test_check_when_bytes_are_damaged_never_leads_outside),
		cmocka_unit_test(test_context_travels_with_the_block),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
