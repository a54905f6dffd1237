/*
 * Snapshots of two schedulers' domain records: which domains have rows, sums over bindings and
 * schedulers, what is left for the others, refusals, and how old a snapshot may be.
 */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "listeners/http/gather.h"
#include "tests/unit/control_world.h"

static struct gatherer g;
static struct order_client client;
static struct process_files files;
static struct gather_wait waiter;
static unsigned told;

static void on_snapshot(struct gather_wait *w, const struct snapshot *s)
{
	assert_ptr_equal(w, &waiter);
	assert_ptr_equal(s, &g.latest);
	told++;
}

static void begin(uint32_t top, uint64_t interval_ms)
{
	world->global.metrics_top_domains = top;
	world->global.metrics_interval_ms = interval_ms;
	order_client_init(&client, &world->schedulers[0]);
	process_files_init(&files, NULL);
	gatherer_init(&g, &world->schedulers[0], &client, &files);
	waiter = (struct gather_wait){.on_snapshot = on_snapshot};
	told = 0;
}

static void ask_for_one(void)
{
	agent_current = &world->schedulers[0].base;
	gather_wait(&g, &waiter);
	agent_current = NULL;
}

static const struct snapshot *gather(void)
{
	unsigned before = told;

	ask_for_one();
	for (int i = 0; i < 1000 && told == before; i++) {
		step(1);
	}
	assert_int_equal(told, before + 1);
	assert_int_equal(client.orders, 0);
	return &g.latest;
}

static void end(void)
{
	gatherer_close(&g);
}

/* A record that has delivered so many. */
static struct domain *delivered(const char *binding, const char *name, uint64_t count)
{
	struct scheduler *s = home_by(binding, name);
	struct domain *d;

	agent_current = &s->base;
	d = dispatch_find(&s->dispatcher, binding, name);
	agent_current = NULL;
	d->delivered += count;
	counter_add(s->delivered, count);
	return d;
}

static const struct gather_row *row_of(const struct gather_row *rows, uint32_t count,
				       const char *name)
{
	for (uint32_t i = 0; i < count; i++) {
		if (strcmp(rows[i].name, name) == 0) {
			return &rows[i];
		}
	}
	return NULL;
}

static void test_rows_when_domains_differ_in_volume(void **state)
{
	const struct snapshot *s;

	(void)state;
	begin(2, 1000);
	delivered(BINDING_DEFAULT, "small.example", 1);
	delivered(BINDING_DEFAULT, "large.example", 100);
	delivered(BINDING_DEFAULT, "larger.example", 50)->transient = 60;
	delivered(BINDING_DEFAULT, "none.example", 0);
	queue_mail("small.example", 1, 300);
	queue_mail("large.example", 1, 0);
	/* Of records that have been forgotten. */
	counter_add(world->schedulers[1].delivered, 7);
	s = gather();
	assert_int_equal(s->domain_count, 2);
	assert_string_equal(s->domains[0].name, "larger.example");
	assert_string_equal(s->domains[1].name, "large.example");
	assert_int_equal(s->domains[0].sums[GATHER_DEFERRED], 60);
	assert_int_equal(s->domains[1].sums[GATHER_DELIVERED], 100);
	assert_int_equal(s->domains[1].sums[GATHER_ACTIVE], 1);
	assert_int_equal(s->totals[GATHER_DELIVERED], 158);
	assert_int_equal(s->other_domains[GATHER_DELIVERED], 8);
	assert_int_equal(s->other_domains[GATHER_DELAYED], 1);
	assert_int_equal(s->other_domains[GATHER_ACTIVE], 0);
	assert_int_equal(s->domain_records, 4);
	end();
}

/* The record of each binding is small; together they are the largest. */
static void test_sums_when_a_domain_has_several_bindings(void **state)
{
	const struct gather_row *row;
	const struct snapshot *s;
	char binding[16];

	(void)state;
	begin(1, 1000);
	delivered(BINDING_DEFAULT, "one.example", 20);
	delivered(BINDING_DEFAULT, "many.example", 21);
	for (int i = 0; i < 8; i++) {
		snprintf(binding, sizeof(binding), "b%d", i);
		delivered(binding, "many.example", 19);
	}
	s = gather();
	assert_string_equal(s->domains[0].name, "many.example");
	s = gather();
	/* Followed by now: all of its records count. */
	assert_string_equal(s->domains[0].name, "many.example");
	assert_int_equal(s->domains[0].sums[GATHER_DELIVERED], 21 + 8 * 19);
	assert_int_equal(s->other_domains[GATHER_DELIVERED], 20);
	assert_int_equal(s->binding_count, 9);
	row = row_of(s->bindings, s->binding_count, "b3");
	assert_non_null(row);
	assert_false(s->more_bindings);
	end();
}

static void test_rows_when_another_domain_grows(void **state)
{
	const struct snapshot *s;

	(void)state;
	begin(1, 1000);
	delivered(BINDING_DEFAULT, "first.example", 5);
	delivered(BINDING_DEFAULT, "second.example", 4);
	assert_string_equal(gather()->domains[0].name, "first.example");
	delivered(BINDING_DEFAULT, "second.example", 4);
	s = gather();
	assert_string_equal(s->domains[0].name, "second.example");
	assert_int_equal(s->domains[0].sums[GATHER_DELIVERED], 8);
	assert_int_equal(s->other_domains[GATHER_DELIVERED], 5);
	end();
}

static void test_rows_when_there_are_many_domains(void **state)
{
	enum { DOMAINS = 9000, TOP = 50 };
	const struct snapshot *s;
	char name[32];

	(void)state;
	begin(TOP, 1000);
	for (unsigned i = 0; i < DOMAINS; i++) {
		snprintf(name, sizeof(name), "d%u.example", i);
		/* 1 to DOMAINS, in an order of its own. */
		delivered(BINDING_DEFAULT, name, 1 + i * 7919U % DOMAINS);
	}
	for (unsigned round = 0; round < 2; round++) {
		s = gather();
		assert_int_equal(s->domain_count, TOP);
		for (unsigned i = 0; i < TOP; i++) {
			assert_int_equal(s->domains[i].sums[GATHER_DELIVERED], DOMAINS - i);
		}
		assert_int_equal(s->totals[GATHER_DELIVERED], DOMAINS * (DOMAINS + 1) / 2);
		assert_int_equal(s->domain_records, DOMAINS);
	}
	end();
}

/* All of it is of a domain that has a row. */
static void test_others_when_mail_is_delivered_meanwhile(void **state)
{
	(void)state;
	begin(2, 1000);
	delivered(BINDING_DEFAULT, "only.example", 5);
	for (unsigned round = 0; round < 3; round++) {
		unsigned before = told;

		ask_for_one();
		for (unsigned i = 0; i < 1000 && told == before; i++) {
			step(1);
			delivered(BINDING_DEFAULT, "only.example", 1);
		}
		assert_int_equal(told, before + 1);
		assert_true(g.latest.domains[0].sums[GATHER_DELIVERED] >= 5);
		assert_int_equal(g.latest.other_domains[GATHER_DELIVERED], 0);
	}
	end();
}

static void test_rows_when_none_are_wanted(void **state)
{
	const struct snapshot *s;

	(void)state;
	begin(0, 1000);
	delivered(BINDING_DEFAULT, "a.example", 5);
	s = gather();
	assert_int_equal(s->domain_count, 0);
	assert_int_equal(s->other_domains[GATHER_DELIVERED], 5);
	end();
}

static void test_bindings_when_there_are_more_than_rows(void **state)
{
	const struct snapshot *s;
	char name[16];

	(void)state;
	begin(1, 1000);
	for (unsigned i = 0; i < GATHER_BINDINGS + 50; i++) {
		struct binding_record *b;

		snprintf(name, sizeof(name), "b%u", i);
		b = binding_open(&world->schedulers[i % 2].dispatcher.bindings, name);
		b->delivered = i + 1;
		binding_open(&world->schedulers[(i + 1) % 2].dispatcher.bindings, name)->delivered =
			1000;
	}
	s = gather();
	assert_true(s->more_bindings);
	assert_int_equal(s->binding_count, GATHER_BINDINGS);
	assert_string_equal(s->bindings[0].name, "b249");
	assert_int_equal(s->bindings[0].sums[GATHER_DELIVERED], 1250);
	/* The default one has sent nothing. */
	assert_int_equal(s->other_bindings[GATHER_DELIVERED], 50 * 1000 + 50 * 51 / 2);
	end();
}

static void test_refusals_when_schedulers_heard_the_same(void **state)
{
	const struct snapshot *s;
	char text[32];

	(void)state;
	begin(1, 1000);
	for (unsigned i = 0; i < SCHEDULERS; i++) {
		struct reply_top *t = &world->schedulers[i].refusals;

		reply_top_count(t, "550 nobody", 5, 100000);
		reply_top_count(t, i == 0 ? "451 first" : "451 second", 7, 100000);
		for (char c = 'a'; c < 'a' + GATHER_REFUSALS; c++) {
			snprintf(text, sizeof(text), "452 %c", c);
			reply_top_count(t, text, 1, 100000);
		}
	}
	s = gather();
	assert_int_equal(s->refusal_count, GATHER_REFUSALS);
	assert_string_equal(s->refusals[0].text, "550 nobody");
	assert_int_equal(s->refusals[0].count, 10);
	assert_string_equal(s->refusals[1].text, "451 first");
	assert_string_equal(s->refusals[2].text, "451 second");
	assert_int_equal(s->refusals[3].count, 2);
	end();
}

static void test_fresh_until_it_is_too_old(void **state)
{
	(void)state;
	begin(1, 10000);
	assert_null(gather_fresh(&g));
	gather();
	assert_ptr_equal(gather_fresh(&g), &g.latest);
	pass_s(4);
	assert_non_null(gather_fresh(&g));
	pass_s(1);
	assert_null(gather_fresh(&g));
	gather();
	assert_non_null(gather_fresh(&g));
	/* One that took long may be old. */
	g.took_ms = 2000;
	pass_s(19);
	assert_non_null(gather_fresh(&g));
	pass_s(1);
	assert_null(gather_fresh(&g));
	end();
}

static void test_wait_when_forgotten_or_under_way(void **state)
{
	struct gather_wait other = {.on_snapshot = on_snapshot};

	(void)state;
	begin(1, 1000);
	ask_for_one();
	gather_wait(&g, &other);
	gather_forget(&g, &other);
	gather_forget(&g, &other);
	step(20);
	assert_int_equal(told, 1);
	assert_int_equal(counter_get(g.gatherings), 1);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_rows_when_domains_differ_in_volume),
		TEST(test_sums_when_a_domain_has_several_bindings),
		TEST(test_rows_when_another_domain_grows),
		TEST(test_rows_when_there_are_many_domains),
		TEST(test_others_when_mail_is_delivered_meanwhile),
		TEST(test_rows_when_none_are_wanted),
		TEST(test_bindings_when_there_are_more_than_rows),
		TEST(test_refusals_when_schedulers_heard_the_same),
		TEST(test_fresh_until_it_is_too_old),
		TEST(test_wait_when_forgotten_or_under_way),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
