/*
 * Spool writers and their clients on threads of their own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agents/spool_writer.h"
#include "core/runtime/check.h"
#include "core/runtime/runtime.h"
#include "tests/unit/spool_world.h"

#define CLIENTS 2
#define MESSAGES 2000
#define IN_FLIGHT 64

struct tester {
	struct agent base;
	struct spool *spool;
	struct mail_pools pools;
	struct envelope_builder builder;
	struct spool_request requests[IN_FLIGHT];
	struct spool_request *idle[IN_FLIGHT];
	unsigned idle_count;
	unsigned stored;
	unsigned finished;
	unsigned failed;
	_Atomic unsigned *running;
};

static struct tester *tester_of(struct agent *self)
{
	return CONTAINER_OF(self, struct tester, base);
}

static void next_step(struct agent *self, void *object, uint64_t value);

static void ask(struct tester *t, struct spool_request *r, enum spool_verb verb)
{
	r->verb = verb;
	r->on_done = next_step;
	spool_submit(t->spool, &t->base, r);
}

/* Store, read back, finish. */
static void next_step(struct agent *self, void *object, uint64_t value)
{
	struct tester *t = tester_of(self);
	struct spool_request *r = object;

	(void)value;
	t->failed += r->result != 0;
	switch (r->verb) {
	case SPOOL_STORE:
		r->entry = r->message->spool;
		ask(t, r, SPOOL_LOAD);
		return;
	case SPOOL_LOAD:
		t->failed += r->body.len != r->message->body.len;
		chain_release(&r->body, &t->pools.buffers);
		message_release(r->message, &t->pools);
		ask(t, r, SPOOL_DONE);
		return;
	default:
		t->finished++;
		t->idle[t->idle_count++] = r;
	}
}

static struct message *make_message(struct tester *t)
{
	struct message *m;
	struct envelope *e;
	char body[500];

	memset(body, 'b', sizeof(body));
	envelope_builder_reset(&t->builder);
	envelope_set_sender(&t->builder, "a@example.com", 13);
	envelope_add_recipient(&t->builder, "b@example.net", 13);
	m = message_create(&t->pools, envelope_size(&t->builder));
	e = message_envelope(m);
	envelope_build(&t->builder, e);
	e->id = (struct message_id){.high = t->base.id, .low = t->stored};
	e->body_bytes = sizeof(body);
	chain_append(&m->body, &t->pools.buffers, body, sizeof(body));
	message_set_resident(m, &t->pools);
	return m;
}

static int tester_do_work(struct agent *self)
{
	struct tester *t = tester_of(self);
	int work = 0;

	while (t->idle_count > 0 && t->stored < MESSAGES) {
		struct spool_request *r = t->idle[--t->idle_count];

		r->writer = (uint8_t)spool_writer_of(t->spool, t->stored);
		r->message = make_message(t);
		r->delivery = 0;
		t->stored++;
		ask(t, r, SPOOL_STORE);
		work++;
	}
	if (t->finished == MESSAGES && t->running != NULL) {
		if (atomic_fetch_sub(t->running, 1) == 1) {
			runtime_stop(self->runtime);
		}
		t->running = NULL;
	}
	return work;
}

static const struct agent_ops tester_ops = {.kind = "tester", .do_work = tester_do_work};

static void unexpected(struct agent *self, void *context, struct delivery *d)
{
	(void)self;
	(void)context;
	(void)d;
	fatal("recovered a delivery from an empty spool");
}

static struct tester *tester_new(struct spool *spool, _Atomic unsigned *running)
{
	struct tester *t = calloc(1, sizeof(*t));

	assert_non_null(t);
	agent_init(&t->base, &tester_ops, "tester", 0);
	t->spool = spool;
	t->running = running;
	mail_pools_init(&t->pools);
	envelope_builder_init(&t->builder);
	for (unsigned i = 0; i < IN_FLIGHT; i++) {
		t->idle[t->idle_count++] = &t->requests[i];
	}
	return t;
}

static void tester_free(struct tester *t)
{
	assert_int_equal(t->finished, MESSAGES);
	assert_int_equal(t->failed, 0);
	agent_close(&t->base);
	envelope_builder_close(&t->builder);
	mail_pools_close(&t->pools);
	free(t);
}

static void test_threads(void **state)
{
	struct world *w = world_new(false);
	struct idle idle = {.kind = IDLE_PARK};
	struct spool_writer *writers[2];
	struct tester *testers[CLIENTS];
	_Atomic unsigned running = CLIENTS;
	struct spool *spool;
	struct runtime rt;

	(void)state;
	w->options.writers = 2;
	spool = spool_open(&w->options, stderr, NULL);
	assert_non_null(spool);
	runtime_init(&rt, &clock_system);
	for (unsigned i = 0; i < CLIENTS; i++) {
		testers[i] = tester_new(spool, &running);
		runtime_add(&rt, runtime_group(&rt, "tester", -1, &idle), &testers[i]->base);
	}
	for (unsigned i = 0; i < 2; i++) {
		writers[i] = aligned_alloc(CACHE_LINE, sizeof(struct spool_writer));
		assert_non_null(writers[i]);
		spool_writer_init(writers[i], "spool", spool, i, unexpected, NULL);
		runtime_add(&rt, runtime_group(&rt, "spool", -1, &idle), &writers[i]->base);
	}
	assert_int_equal(runtime_prepare(&rt), 0);
	assert_int_equal(runtime_run(&rt), 0);
	runtime_close(&rt);
	for (unsigned i = 0; i < CLIENTS; i++) {
		tester_free(testers[i]);
	}
	for (unsigned i = 0; i < 2; i++) {
		agent_close(&writers[i]->base);
		free(writers[i]);
	}
	spool_close(spool);
	world_start(w);
	assert_int_equal(w->found.messages, 0);
	world_stop(w);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
