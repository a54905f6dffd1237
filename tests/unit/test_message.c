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
	int64_t live = pools.buffers.live + pools.deliveries.live;

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		live += pools.messages[i].live;
	}
	mail_pools_close(&pools);
	return live == 0 && atomic_load(&pools.body_bytes) == 0 ? 0 : -1;
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
	return m;
}

static void test_create_picks_the_size_class(void **state)
{
	size_t header = sizeof(struct message);
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

		assert_int_equal(m->size_class, cases[i].size_class);
		assert_int_equal((uintptr_t)message_envelope(m) % 8, 0);
		memset(message_envelope(m), 0xff, cases[i].bytes);
		assert_false(m->resident);
		assert_null(m->spool);
		assert_int_equal(m->body.len, 0);
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
	assert_int_equal(pools.messages[m->size_class].live, 1);
	message_release(m, &pools);
	assert_int_equal(mail_pools_messages(&pools), 0);
}

static void test_resident_body_is_counted_until_dropped(void **state)
{
	struct message *m = message_create(&pools, 200);

	(void)state;
	chain_append(&m->body, &pools.buffers, "0123456789", 10);
	assert_int_equal(atomic_load(&pools.body_bytes), 0);
	message_set_resident(m, &pools);
	assert_true(m->resident);
	assert_int_equal(atomic_load(&pools.body_bytes), CHAIN_BUFFER_SIZE);
	message_drop_body(m, &pools);
	assert_false(m->resident);
	assert_int_equal(atomic_load(&pools.body_bytes), 0);
	assert_int_equal(pools.buffers.live, 0);
	message_drop_body(m, &pools);
	message_release(m, &pools);
}

static void test_release_gives_up_the_body_too(void **state)
{
	struct message *m = message_create(&pools, 200);

	(void)state;
	chain_append(&m->body, &pools.buffers, "0123456789", 10);
	message_set_resident(m, &pools);
	message_release(m, &pools);
	assert_int_equal(atomic_load(&pools.body_bytes), 0);
	m = message_create(&pools, 200);
	chain_append(&m->body, &pools.buffers, "not resident", 12);
	message_release(m, &pools);
	assert_int_equal(atomic_load(&pools.body_bytes), 0);
}

static void test_release_elsewhere_balances_in_sum(void **state)
{
	struct mail_pools other;
	struct message *m = message_create(&pools, 200);

	(void)state;
	mail_pools_init(&other);
	chain_append(&m->body, &pools.buffers, "0123456789", 10);
	message_set_resident(m, &pools);
	message_release(m, &other);
	assert_int_equal(atomic_load(&pools.body_bytes) + atomic_load(&other.body_bytes), 0);
	assert_int_equal(pools.buffers.live + other.buffers.live, 0);
	/* As if it had been made and freed there. */
	pools.buffers.live = 0;
	for (unsigned i = 0; i < MESSAGE_SIZE_CLASSES; i++) {
		pools.messages[i].live = 0;
	}
	atomic_store(&pools.body_bytes, 0);
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
	static const char *const recipients[] = {"a@x"};
	struct message *m = make(recipients, 1);
	struct delivery *d = delivery_create(&pools, m, 0);

	(void)state;
	chain_append(&d->body, &pools.buffers, "read back", 9);
	d->last_text = strdup("451 later");
	delivery_destroy(d, &pools);
	assert_int_equal(pools.deliveries.live, 0);
	assert_int_equal(pools.buffers.live, 0);
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
		TEST(test_create_picks_the_size_class),
		TEST(test_release_frees_with_the_last_reference),
		TEST(test_resident_body_is_counted_until_dropped),
		TEST(test_release_gives_up_the_body_too),
		TEST(test_release_elsewhere_balances_in_sum),
		TEST(test_delivery_starts_with_all_its_recipients),
		TEST(test_delivery_destroy_frees_all_it_has),
		TEST(test_recipient_set_holds_128),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
