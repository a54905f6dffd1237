#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/queue/domain.h"

#define DELIVERIES 400
#define OPERATIONS 30000

static const struct domain_options options = {.max_outbound_connections = 1};

/* Received one after the other, the last one first. */
static struct message messages[DELIVERIES];

/* Table, one record, and deliveries of as many messages. */
struct fixture {
	struct domain_table table;
	struct domain *domain;
	struct delivery deliveries[DELIVERIES];
	/* The model: the active queue in order, and who is delayed. */
	struct delivery *active[DELIVERIES];
	unsigned active_count;
	bool delayed[DELIVERIES];
	unsigned delayed_count;
	uint64_t seed;
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);

	assert_non_null(f);
	domain_table_init(&f->table);
	f->domain = domain_create(&f->table, "default", "example.net", &options);
	for (unsigned i = 0; i < DELIVERIES; i++) {
		f->deliveries[i].magic = DELIVERY_MAGIC;
		f->deliveries[i].index = (uint16_t)i;
		f->deliveries[i].message = &messages[i];
		messages[i].received_ms = 1000 - i;
	}
	f->seed = 0x2545f4914f6cdd1d;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	while (domain_pop_active(&f->table, f->domain) != NULL) {
	}
	while (domain_peek_delayed(f->domain) != NULL) {
		domain_remove(&f->table, f->domain, domain_peek_delayed(f->domain));
	}
	domain_table_close(&f->table);
	free(f);
	return 0;
}

static uint64_t draw(struct fixture *f, uint64_t below)
{
	f->seed ^= f->seed << 13;
	f->seed ^= f->seed >> 7;
	f->seed ^= f->seed << 17;
	return (f->seed >> 11) % below;
}

static struct delivery *draw_in(struct fixture *f, enum delivery_place place)
{
	for (unsigned tries = 0; tries < 50; tries++) {
		struct delivery *d = &f->deliveries[draw(f, DELIVERIES)];

		if (d->place == place) {
			return d;
		}
	}
	return NULL;
}

/* ---- the model ---- */

static void model_insert(struct fixture *f, unsigned at, struct delivery *d)
{
	memmove(&f->active[at + 1], &f->active[at], (f->active_count - at) * sizeof f->active[0]);
	f->active[at] = d;
	f->active_count++;
}

static void model_remove(struct fixture *f, const struct delivery *d)
{
	unsigned at = 0;

	while (f->active[at] != d) {
		at++;
		assert_true(at < f->active_count);
	}
	f->active_count--;
	memmove(&f->active[at], &f->active[at + 1], (f->active_count - at) * sizeof f->active[0]);
}

static uint64_t model_earliest(const struct fixture *f)
{
	uint64_t earliest = UINT64_MAX;

	for (unsigned i = 0; i < DELIVERIES; i++) {
		if (f->delayed[i] && f->deliveries[i].due_ms < earliest) {
			earliest = f->deliveries[i].due_ms;
		}
	}
	return earliest;
}

static void model_compare(const struct fixture *f)
{
	const struct delivery *x = f->domain->active_head;

	assert_true(domain_validate(f->domain));
	assert_int_equal(f->domain->active_count, f->active_count);
	assert_int_equal(f->domain->delayed_count, f->delayed_count);
	assert_int_equal(f->table.active, f->active_count);
	assert_int_equal(f->table.delayed, f->delayed_count);
	for (unsigned i = 0; i < f->active_count; i++) {
		assert_ptr_equal(x, f->active[i]);
		x = x->next;
	}
	assert_null(x);
	if (f->delayed_count == 0) {
		assert_null(domain_peek_delayed(f->domain));
	} else {
		assert_int_equal(domain_peek_delayed(f->domain)->due_ms, model_earliest(f));
	}
}

/* ---- operations ---- */

static unsigned model_urgent(const struct fixture *f)
{
	unsigned count = 0;

	while (count < f->active_count && f->active[count]->urgent) {
		count++;
	}
	return count;
}

static void push(struct fixture *f, bool front)
{
	struct delivery *d = draw_in(f, DELIVERY_TRANSIT);

	if (d == NULL) {
		return;
	}
	d->urgent = draw(f, 4) == 0;
	if (front) {
		domain_push_active_front(&f->table, f->domain, d);
		model_insert(f, d->urgent ? 0 : model_urgent(f), d);
	} else {
		domain_push_active(&f->table, f->domain, d);
		model_insert(f, d->urgent ? model_urgent(f) : f->active_count, d);
	}
}

static void pop(struct fixture *f)
{
	struct delivery *d = domain_pop_active(&f->table, f->domain);

	if (f->active_count == 0) {
		assert_null(d);
		return;
	}
	assert_ptr_equal(d, f->active[0]);
	assert_int_equal(d->place, DELIVERY_TRANSIT);
	model_remove(f, d);
}

static void delay(struct fixture *f)
{
	struct delivery *d = draw_in(f, DELIVERY_TRANSIT);

	if (d != NULL) {
		/* Few values, so that many are equal. */
		d->due_ms = draw(f, 200);
		domain_push_delayed(&f->table, f->domain, d);
		f->delayed[d->index] = true;
		f->delayed_count++;
	}
}

static void undelay(struct fixture *f, struct delivery *d)
{
	if (d != NULL) {
		domain_remove(&f->table, f->domain, d);
		assert_int_equal(d->place, DELIVERY_TRANSIT);
		f->delayed[d->index] = false;
		f->delayed_count--;
	}
}

static void remove_active(struct fixture *f)
{
	struct delivery *d = draw_in(f, DELIVERY_ACTIVE);

	if (d != NULL) {
		domain_remove(&f->table, f->domain, d);
		assert_int_equal(d->place, DELIVERY_TRANSIT);
		model_remove(f, d);
	}
}

static void operate(struct fixture *f, unsigned bias)
{
	switch (draw(f, 8 + bias)) {
	case 0:
		pop(f);
		break;
	case 1:
		remove_active(f);
		break;
	case 2:
		undelay(f, draw_in(f, DELIVERY_DELAYED));
		break;
	case 3:
		undelay(f, domain_peek_delayed(f->domain));
		break;
	case 4:
		push(f, true);
		break;
	case 5:
	case 8:
		push(f, false);
		break;
	default:
		delay(f);
		break;
	}
}

static void test_queues_when_operated_at_random(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < OPERATIONS; i++) {
		/* Fuller, emptier, and again. */
		operate(f, i / 3000 % 2 == 0 ? 4 : 0);
		model_compare(f);
	}
}

static void test_delayed_comes_out_in_order(void **state)
{
	struct fixture *f = *state;
	uint64_t last = 0;

	for (unsigned i = 0; i < DELIVERIES; i++) {
		f->deliveries[i].due_ms = draw(f, 1000);
		domain_push_delayed(&f->table, f->domain, &f->deliveries[i]);
	}
	for (unsigned i = 0; i < DELIVERIES; i++) {
		struct delivery *d = domain_peek_delayed(f->domain);

		assert_true(d->due_ms >= last);
		last = d->due_ms;
		domain_remove(&f->table, f->domain, d);
		assert_true(domain_validate(f->domain));
	}
	assert_null(domain_peek_delayed(f->domain));
}

static void test_due_ones_are_counted_up_to_a_number(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < DELIVERIES; i++) {
		f->deliveries[i].due_ms = draw(f, 1000);
		domain_push_delayed(&f->table, f->domain, &f->deliveries[i]);
	}
	for (uint64_t until_ms = 0; until_ms <= 1000; until_ms += 50) {
		uint32_t count = 0;

		for (unsigned i = 0; i < DELIVERIES; i++) {
			count += f->deliveries[i].due_ms <= until_ms;
		}
		assert_int_equal(domain_count_due(f->domain, until_ms, UINT32_MAX), count);
		assert_int_equal(domain_count_due(f->domain, until_ms, 7), count < 7 ? count : 7);
	}
}

static void test_active_is_first_in_first_out(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 3; i++) {
		domain_push_active(&f->table, f->domain, &f->deliveries[i]);
		assert_ptr_equal(f->deliveries[i].domain, f->domain);
	}
	domain_push_active_front(&f->table, f->domain, &f->deliveries[3]);
	assert_int_equal(domain_pop_active(&f->table, f->domain)->index, 3);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(domain_pop_active(&f->table, f->domain)->index, i);
	}
	assert_null(domain_pop_active(&f->table, f->domain));
}

static void test_urgent_ones_go_first(void **state)
{
	static const unsigned order[] = {5, 1, 3, 6, 0, 2, 4};
	struct fixture *f = *state;

	for (unsigned i = 0; i < 7; i++) {
		f->deliveries[i].urgent = i % 2 != 0;
	}
	for (unsigned i = 0; i < 5; i++) {
		domain_push_active(&f->table, f->domain, &f->deliveries[i]);
	}
	domain_push_active_front(&f->table, f->domain, &f->deliveries[5]);
	domain_push_active_front(&f->table, f->domain, &f->deliveries[6]);
	assert_true(domain_validate(f->domain));
	assert_int_equal(domain_oldest_active(f->domain)->index, 6);
	f->deliveries[5].urgent = false;
	assert_false(domain_validate(f->domain));
	f->deliveries[5].urgent = true;
	for (unsigned i = 0; i < 7; i++) {
		assert_int_equal(domain_pop_active(&f->table, f->domain)->index, order[i]);
	}
	assert_null(f->domain->urgent_tail);
}

/* The validator is what other tests rely on: it must see what is wrong. */
static void test_validate_when_something_is_wrong(void **state)
{
	struct fixture *f = *state;
	struct delivery *d = f->deliveries;

	for (unsigned i = 0; i < 4; i++) {
		domain_push_active(&f->table, f->domain, &d[i]);
		d[10 + i].due_ms = i;
		domain_push_delayed(&f->table, f->domain, &d[10 + i]);
	}
	assert_true(domain_validate(f->domain));
	d[2].prev = &d[0];
	assert_false(domain_validate(f->domain));
	d[2].prev = &d[1];
	f->domain->active_count++;
	assert_false(domain_validate(f->domain));
	f->domain->active_count--;
	d[10].due_ms = 100;
	assert_false(domain_validate(f->domain));
	d[10].due_ms = 0;
	d[12].heap_index = 1;
	assert_false(domain_validate(f->domain));
	d[12].heap_index = 2;
	d[1].place = DELIVERY_TRANSIT;
	assert_false(domain_validate(f->domain));
	d[1].place = DELIVERY_ACTIVE;
	assert_true(domain_validate(f->domain));
}

/* ---- the table ---- */

#define RECORDS 5000

static void name_of(unsigned i, char name[32])
{
	snprintf(name, 32, "d%u.example", i);
}

static void test_table_grows_and_finds_all(void **state)
{
	struct fixture *f = *state;
	struct domain *made[RECORDS];
	char name[32];

	for (unsigned i = 0; i < RECORDS; i++) {
		name_of(i, name);
		assert_null(domain_find(&f->table, "default", name));
		made[i] = domain_create(&f->table, "default", name, &options);
		assert_string_equal(made[i]->name, name);
	}
	assert_int_equal(f->table.count, RECORDS + 1);
	assert_true(f->table.bucket_count >= RECORDS);
	for (unsigned i = 0; i < RECORDS; i++) {
		name_of(i, name);
		assert_ptr_equal(domain_find(&f->table, "default", name), made[i]);
		assert_null(domain_find(&f->table, "other", name));
	}
	assert_ptr_equal(domain_find(&f->table, "default", "example.net"), f->domain);
	/* Every second one goes; the others stay. */
	for (unsigned i = 0; i < RECORDS; i += 2) {
		domain_destroy(&f->table, made[i]);
	}
	assert_int_equal(f->table.count, RECORDS / 2 + 1);
	for (unsigned i = 0; i < RECORDS; i++) {
		name_of(i, name);
		assert_ptr_equal(domain_find(&f->table, "default", name),
				 i % 2 == 0 ? NULL : made[i]);
	}
}

static void count_record(void *context, struct domain *d)
{
	unsigned *seen = context;

	if (strcmp(d->name, "example.net") != 0) {
		seen[atoi(d->name + 1)]++;
	}
}

static void test_each_visits_every_record_once(void **state)
{
	struct fixture *f = *state;
	unsigned seen[1000] = {0};
	char name[32];

	for (unsigned i = 0; i < 1000; i++) {
		name_of(i, name);
		domain_create(&f->table, "default", name, &options);
	}
	domain_each(&f->table, count_record, seen);
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(seen[i], 1);
	}
}

/* A binding and a domain are two words: where one ends and the other begins matters. */
static void test_key_is_binding_and_domain(void **state)
{
	struct fixture *f = *state;
	struct domain *a = domain_create(&f->table, "one", "x.example", &options);
	struct domain *b = domain_create(&f->table, "onex", ".example", &options);
	struct domain *c = domain_create(&f->table, "two", "x.example", &options);

	assert_ptr_equal(domain_find(&f->table, "one", "x.example"), a);
	assert_ptr_equal(domain_find(&f->table, "onex", ".example"), b);
	assert_ptr_equal(domain_find(&f->table, "two", "x.example"), c);
	assert_null(domain_find(&f->table, "on", "ex.example"));
	assert_true(domain_hash("one", "x.example", 9) != domain_hash("onex", ".example", 8));
	assert_int_equal(domain_hash("one", "x.example!", 9), a->hash);
}

/* Homes are chosen by the hash: they must share the work evenly. */
static void test_hash_spreads_over_homes(void **state)
{
	unsigned homes[8] = {0};
	char name[32];

	(void)state;
	for (unsigned i = 0; i < 8000; i++) {
		name_of(i, name);
		homes[domain_hash("default", name, strlen(name)) % 8]++;
	}
	for (unsigned i = 0; i < 8; i++) {
		assert_in_range(homes[i], 850, 1150);
	}
}

static void test_create_takes_suspend_from_options(void **state)
{
	struct fixture *f = *state;
	const struct domain_options suspended = {.suspend_delivery = true};

	assert_true(domain_create(&f->table, "default", "s.example", &suspended)->suspended);
	assert_false(f->domain->suspended);
}

static void test_hold_text_names_the_option(void **state)
{
	(void)state;
	for (int i = DOMAIN_FREE; i <= DOMAIN_STOPPING; i++) {
		assert_string_not_equal(domain_hold_text((enum domain_hold)i), "unknown");
	}
	assert_string_equal(domain_hold_text(DOMAIN_CONNECTIONS), "max_outbound_connections");
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_queues_when_operated_at_random),
		TEST(test_delayed_comes_out_in_order),
		TEST(test_due_ones_are_counted_up_to_a_number),
		TEST(test_active_is_first_in_first_out),
		TEST(test_urgent_ones_go_first),
		TEST(test_validate_when_something_is_wrong),
		TEST(test_table_grows_and_finds_all),
		TEST(test_each_visits_every_record_once),
		TEST(test_key_is_binding_and_domain),
		cmocka_unit_test(test_hash_spreads_over_homes),
		TEST(test_create_takes_suspend_from_options),
		cmocka_unit_test(test_hold_text_names_the_option),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
