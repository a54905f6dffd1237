#include "core/mail/message.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "core/queue/delivery.h"

static struct mail_pools pools;

static int set_up(void **state)
{
	(void)state;
	mail_pools_init(&pools);
	return 0;
}

/* No test may leak an object of any pool, or a resident byte. */
static int tear_down(void **state)
{
	int64_t live =
		pools.buffers.live + pools.deliveries.live + (int64_t)mail_pools_live(&pools);

	(void)state;
	mail_pools_close(&pools);
	return live == 0 && atomic_load(&pools.resident_bytes) == 0 ? 0 : -1;
}

static struct message *make(const char *const *recipients, unsigned count)
{
	struct envelope_builder b;
	struct message *m;

	envelope_builder_init(&b);
	envelope_set_sender(&b, "s@x", 3);
	for (unsigned i = 0; i < count; i++) {
		envelope_add_recipient(&b, recipients[i], strlen(recipients[i]));
	}
	m = message_create(&pools, envelope_size(&b));
	envelope_build(&b, message_envelope(m));
	envelope_builder_close(&b);
	message_envelope(m)->id = (struct message_id){4711, 42};
	message_envelope(m)->received_ms = 1750000000000;
	message_envelope(m)->body_bytes = 10;
	chain_append(message_body(m), &pools.buffers, "0123456789", 10);
	return m;
}

static const char *const one[] = {"a@x"};

static void test_content_picks_the_size_class(void **state)
{
	size_t header = sizeof(struct content);
	const struct {
		size_t bytes;
		unsigned size_class;
	} cases[] = {
		{0, 0},
		{256 - header, 0},
		{257 - header, 1},
		{384 - header, 1},
		{385 - header, 2},
		{768 - header, 2},
		{769 - header, 3},
		{2048 - header, 3},
		{2049 - header, 4},
		{1000000, 4},
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct message *m = message_create(&pools, cases[i].bytes);

		assert_int_equal(m->content->size_class, cases[i].size_class);
		assert_int_equal((uintptr_t)message_envelope(m) % 8, 0);
		memset(message_envelope(m), 0xff, cases[i].bytes);
		assert_false(m->content->resident);
		assert_null(m->spool);
		assert_int_equal(message_body(m)->len, 0);
		assert_int_equal(m->envelope_bytes, cases[i].bytes);
		message_release(m, &pools);
	}
}

static void test_release_frees_with_the_last_reference(void **state)
{
	struct message *m = message_create(&pools, 200);

	(void)state;
	message_hold(m, 2);
	message_release(m, &pools);
	message_release(m, &pools);
	assert_int_equal(mail_pools_live(&pools), 2);
	message_release(m, &pools);
	assert_int_equal(mail_pools_live(&pools), 0);
}

/* The block counts with what it takes of memory, so that many small envelopes count too. */
static void test_resident_content_is_counted_until_dropped(void **state)
{
	struct message *m = make(one, 1);

	(void)state;
	assert_int_equal(atomic_load(&pools.resident_bytes), 0);
	message_set_resident(m, &pools);
	assert_true(m->content->resident);
	assert_int_equal(atomic_load(&pools.resident_bytes), CHAIN_BUFFER_SIZE + 256);
	message_use_content(m, 2);
	assert_false(message_give_up_content(m, &pools));
	assert_int_equal(atomic_load(&pools.resident_bytes), CHAIN_BUFFER_SIZE + 256);
	assert_true(message_give_up_content(m, &pools));
	assert_null(m->content);
	assert_int_equal(atomic_load(&pools.resident_bytes), 0);
	assert_int_equal(pools.buffers.live, 0);
	assert_int_equal(mail_pools_live(&pools), 1);
	message_release(m, &pools);
}

static void test_envelope_without_its_body_is_not_counted(void **state)
{
	struct message *m = make(one, 1);

	(void)state;
	message_set_resident(m, &pools);
	message_drop_body(m, &pools);
	assert_false(m->content->resident);
	assert_int_equal(atomic_load(&pools.resident_bytes), 0);
	assert_int_equal(pools.buffers.live, 0);
	assert_string_equal(envelope_address(message_envelope(m), 0), "a@x");
	message_use_content(m, 1);
	assert_true(message_give_up_content(m, &pools));
	assert_int_equal(atomic_load(&pools.resident_bytes), 0);
	message_release(m, &pools);
}

static void test_large_envelope_is_counted_as_it_is(void **state)
{
	struct message *m = message_create(&pools, 1000000);

	(void)state;
	memset(message_envelope(m), 0, 1000000);
	message_set_resident(m, &pools);
	assert_int_equal(atomic_load(&pools.resident_bytes), 1000000 + sizeof(struct content));
	message_release(m, &pools);
}

static void test_what_queues_need_outlives_the_envelope(void **state)
{
	struct message *m = make(one, 1);
	uint32_t size = message_envelope(m)->size;

	(void)state;
	message_set_resident(m, &pools);
	message_use_content(m, 1);
	assert_true(message_give_up_content(m, &pools));
	assert_int_equal(m->id.high, 4711);
	assert_int_equal(m->id.low, 42);
	assert_int_equal(m->received_ms, 1750000000000);
	assert_int_equal(m->body_bytes, 10);
	assert_int_equal(message_content_bytes(m), 10 + size);
	assert_true(m->has_sender);
	message_release(m, &pools);
}

static void test_null_sender_and_one_without_domain_are_no_senders(void **state)
{
	static const char *const senders[] = {"", "postmaster"};
	struct envelope_builder b;

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct message *m;

		envelope_builder_init(&b);
		envelope_set_sender(&b, senders[i], strlen(senders[i]));
		envelope_add_recipient(&b, "a@x", 3);
		m = message_create(&pools, envelope_size(&b));
		envelope_build(&b, message_envelope(m));
		envelope_builder_close(&b);
		message_seal(m);
		assert_false(m->has_sender);
		message_release(m, &pools);
	}
}

static void test_release_gives_up_the_content_too(void **state)
{
	struct message *m = make(one, 1);

	(void)state;
	message_set_resident(m, &pools);
	message_release(m, &pools);
	assert_int_equal(atomic_load(&pools.resident_bytes), 0);
	message_release(make(one, 1), &pools);
	assert_int_equal(atomic_load(&pools.resident_bytes), 0);
}

static void test_release_elsewhere_balances_in_sum(void **state)
{
	struct mail_pools other;
	struct message *m = make(one, 1);

	(void)state;
	mail_pools_init(&other);
	message_set_resident(m, &pools);
	message_release(m, &other);
	assert_int_equal(atomic_load(&pools.resident_bytes) + atomic_load(&other.resident_bytes),
			 0);
	assert_int_equal(pools.buffers.live + other.buffers.live, 0);
	/* As if it had been made and freed there. */
	pools.buffers.live = 0;
	pools.messages.live = 0;
	pools.contents[0].live = 0;
	atomic_store(&pools.resident_bytes, 0);
	mail_pools_close(&other);
}

static void test_delivery_starts_with_all_its_recipients(void **state)
{
	static const char *const recipients[] = {"a@x", "b@x", "c@x", "d@y"};
	struct message *m = make(recipients, 4);
	struct delivery *x;
	struct delivery *y;

	(void)state;
	message_hold(m, 1);
	x = delivery_create(&pools, m, 0);
	y = delivery_create(&pools, m, 1);
	assert_int_equal(recipient_set_count(&x->pending), 3);
	assert_int_equal(recipient_set_count(&y->pending), 1);
	assert_int_equal(x->place, DELIVERY_TRANSIT);
	assert_int_equal(x->attempts, 0);
	assert_int_equal(x->due_ms, 0);
	assert_ptr_equal(x->message, m);
	assert_int_equal(y->index, 1);
	delivery_destroy(x, &pools);
	delivery_destroy(y, &pools);
}

static void test_delivery_destroy_frees_all_it_has(void **state)
{
	struct message *m = make(one, 1);
	struct delivery *d = delivery_create(&pools, m, 0);

	(void)state;
	d->loaded = content_create(&pools, 100);
	chain_append(&d->loaded->body, &pools.buffers, "read back", 9);
	d->last_text = strdup("451 later");
	delivery_destroy(d, &pools);
	assert_int_equal(pools.deliveries.live, 0);
	assert_int_equal(pools.buffers.live, 0);
}

/* Whoever goes without a word must not keep others' content in memory for good. */
static void test_delivery_destroyed_is_no_user_any_more(void **state)
{
	static const char *const recipients[] = {"a@x", "b@y"};
	struct message *m = make(recipients, 2);
	struct delivery *x = delivery_create(&pools, m, 0);
	struct delivery *y;

	(void)state;
	message_hold(m, 1);
	y = delivery_create(&pools, m, 1);
	message_set_resident(m, &pools);
	message_use_content(m, 2);
	x->uses_content = true;
	y->uses_content = true;
	delivery_destroy(x, &pools);
	assert_non_null(m->content);
	assert_true(delivery_give_up_content(y, &pools));
	assert_false(delivery_give_up_content(y, &pools));
	assert_null(m->content);
	delivery_destroy(y, &pools);
}

static void test_delivery_reads_what_is_its_own(void **state)
{
	struct message *m = make(one, 1);
	struct delivery *d = delivery_create(&pools, m, 0);

	(void)state;
	assert_null(delivery_content(d));
	message_use_content(m, 1);
	d->uses_content = true;
	assert_ptr_equal(delivery_content(d), m->content);
	assert_ptr_equal(delivery_envelope(d), message_envelope(m));
	message_set_resident(m, &pools);
	assert_true(delivery_give_up_content(d, &pools));
	assert_null(delivery_content(d));
	d->loaded = content_create(&pools, 100);
	d->place = DELIVERY_ATTEMPT;
	assert_ptr_equal(delivery_envelope(d), d->loaded->envelope);
	d->place = DELIVERY_TRANSIT;
	delivery_unload(d, &pools);
	/* What stands there in a queue is another thing. */
	d->place = DELIVERY_ACTIVE;
	d->prev = d;
	assert_null(delivery_content(d));
	d->place = DELIVERY_TRANSIT;
	d->prev = NULL;
	delivery_destroy(d, &pools);
}

static void test_recipient_set_holds_128(void **state)
{
	struct recipient_set s = recipient_set_first(128);

	(void)state;
	assert_int_equal(recipient_set_count(&s), 128);
	for (unsigned i = 0; i < 128; i++) {
		assert_true(recipient_set_has(&s, i));
		recipient_set_remove(&s, i);
		assert_false(recipient_set_has(&s, i));
	}
	assert_true(recipient_set_empty(&s));
	s = recipient_set_first(65);
	assert_true(recipient_set_has(&s, 64));
	assert_false(recipient_set_has(&s, 65));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_content_picks_the_size_class),
		TEST(test_release_frees_with_the_last_reference),
		TEST(test_resident_content_is_counted_until_dropped),
		TEST(test_envelope_without_its_body_is_not_counted),
		TEST(test_large_envelope_is_counted_as_it_is),
		TEST(test_what_queues_need_outlives_the_envelope),
		TEST(test_null_sender_and_one_without_domain_are_no_senders),
		TEST(test_release_gives_up_the_content_too),
		TEST(test_release_elsewhere_balances_in_sum),
		TEST(test_delivery_starts_with_all_its_recipients),
		TEST(test_delivery_destroy_frees_all_it_has),
		TEST(test_delivery_destroyed_is_no_user_any_more),
		TEST(test_delivery_reads_what_is_its_own),
		TEST(test_recipient_set_holds_128),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
