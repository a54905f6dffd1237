/* Surveys: all that lies in the spool, while that goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "spool/store.h"
#include "spool/survey.h"
#include "tests/unit/spool_world.h"

#define MESSAGES 200U

struct look {
	struct survey survey;
	struct world *world;
	bool answered;
	/* How often each message was seen, by the low part of its id. */
	uint8_t seen[4 * MESSAGES];
	size_t body_min;
};

static void on_done(struct agent *self, void *object, uint64_t value)
{
	struct look *l = ((struct survey *)object)->owner;

	(void)self;
	(void)value;
	l->answered = true;
}

static void await(struct look *l)
{
	for (unsigned i = 0; i < 100 && !l->answered; i++) {
		world_step(l->world, 1);
	}
	assert_true(l->answered);
	l->answered = false;
}

static struct look *look_open(struct world *w, uint32_t body_bytes)
{
	struct look *l = calloc(1, sizeof(*l));

	assert_non_null(l);
	l->world = w;
	agent_current = &w->client;
	survey_open(&l->survey, w->spool, 0, body_bytes, &w->client, on_done, l);
	agent_current = NULL;
	await(l);
	return l;
}

static void look_close(struct look *l)
{
	agent_current = &l->world->client;
	survey_close(&l->survey, &l->world->client, on_done);
	agent_current = NULL;
	await(l);
	free(l);
}

static void note(void *context, const struct envelope *e, const char *body, size_t body_len)
{
	struct look *l = context;

	assert_true(e->id.low < 4 * MESSAGES);
	l->seen[e->id.low]++;
	for (size_t i = 0; i < body_len; i++) {
		assert_int_equal((unsigned char)body[i], world_body_byte(&e->id, i));
	}
	assert_int_equal(body_len, e->body_bytes < l->survey.body_bytes ? e->body_bytes
									: l->survey.body_bytes);
}

/* Reads to the end, little at a time; how many pieces that took. */
static unsigned look_at_all(struct look *l)
{
	unsigned pieces = 1;

	while (survey_read(&l->survey, 100000, note, l)) {
		pieces++;
	}
	return pieces;
}

/* Of all sizes, over many segments of 1 MiB; every fifth of many sizes is over. */
static void fill(struct world *w, struct model_message *m[MESSAGES])
{
	for (unsigned i = 0; i < MESSAGES; i++) {
		m[i] = world_store(w, 1 + i % 3, i % 10 == 0 ? 100000 : 50 * i, ENVELOPE_SYNCED);
		world_settle(w);
	}
}

static void test_sees_every_message_once(void **state)
{
	struct world *w = world_new(false);
	struct model_message *m[MESSAGES];
	struct look *l;

	(void)state;
	world_start(w);
	fill(w, m);
	for (unsigned body = 0; body < 2; body++) {
		l = look_open(w, body * 16384);
		assert_true(look_at_all(l) > 5);
		for (unsigned i = 0; i < MESSAGES; i++) {
			assert_int_equal(l->seen[m[i]->id.low], 1);
		}
		assert_int_equal(l->survey.messages, MESSAGES);
		assert_int_equal(l->survey.damaged, 0);
		assert_int_equal(l->survey.unread, 0);
		look_close(l);
	}
	world_stop(w);
	world_free(w);
}

static void test_long_bodies_are_passed_over_unread(void **state)
{
	struct world *w = world_new(false);
	struct look *l;

	(void)state;
	world_start(w);
	for (unsigned i = 0; i < 20; i++) {
		world_store(w, 1, 400000, ENVELOPE_SYNCED);
		world_settle(w);
	}
	l = look_open(w, 0);
	look_at_all(l);
	assert_int_equal(l->survey.messages, 20);
	/* The first of each segment is read with what follows. */
	assert_true(l->survey.bytes_read < 20 * 400000 / 2);
	look_close(l);
	world_stop(w);
	world_free(w);
}

/* What is over meanwhile, and what is stored, changes nothing of what the survey has. */
static void test_sees_what_was_there_when_it_was_opened(void **state)
{
	struct world *w = world_new(false);
	struct model_message *m[MESSAGES];
	struct model_message *late;
	struct look *l;

	(void)state;
	world_start(w);
	fill(w, m);
	l = look_open(w, 0);
	assert_true(survey_read(&l->survey, 100000, note, l));
	for (unsigned i = 0; i < MESSAGES; i++) {
		for (uint32_t d = 0; d < m[i]->delivery_count; d++) {
			world_done(w, m[i], d);
		}
	}
	world_settle(w);
	late = world_store(w, 1, 3000000, ENVELOPE_SYNCED);
	world_settle(w);
	world_step(w, 2000);
	look_at_all(l);
	for (unsigned i = 0; i < MESSAGES; i++) {
		assert_int_equal(l->seen[m[i]->id.low], 1);
	}
	assert_int_equal(l->seen[late->id.low], 0);
	assert_int_equal(world_store_of(w, 0)->stats.segments_reused->value, 0);
	look_close(l);
	world_rest(w);
	l = look_open(w, 0);
	look_at_all(l);
	assert_int_equal(l->seen[late->id.low], 1);
	assert_int_equal(l->survey.messages, 1);
	look_close(l);
	world_stop(w);
	world_free(w);
}

/* One damaged message hides no other. */
static void test_goes_on_behind_what_is_damaged(void **state)
{
	struct world *w = world_new(false);
	struct model_message *m[MESSAGES];
	const struct segment *g;
	unsigned char zero[64] = {0};
	struct look *l;
	unsigned seen = 0;

	(void)state;
	world_start(w);
	fill(w, m);
	g = m[7]->entry->segment;
	assert_int_equal(
		pwrite(g->fd, zero, sizeof(zero), (off_t)(m[7]->entry->place * RECORD_ALIGN)),
		sizeof(zero));
	l = look_open(w, 0);
	look_at_all(l);
	for (unsigned i = 0; i < MESSAGES; i++) {
		seen += l->seen[m[i]->id.low];
	}
	assert_int_equal(l->seen[m[7]->id.low], 0);
	assert_int_equal(seen, MESSAGES - 1);
	assert_true(l->survey.damaged > 0);
	look_close(l);
	world_stop(w);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sees_every_message_once),
		cmocka_unit_test(test_long_bodies_are_passed_over_unread),
		cmocka_unit_test(test_sees_what_was_there_when_it_was_opened),
		cmocka_unit_test(test_goes_on_behind_what_is_damaged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
