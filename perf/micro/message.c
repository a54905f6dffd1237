/*
 * A message with one recipient: its envelope gathered and built, the message made and given back.
 * The reference is malloc() and free() of as many bytes.
 */
#include "core/mail/message.h"

#include <err.h>
#include <stdlib.h>

#include "perf/micro/body.h"
#include "perf/micro/measure.h"
#include "perf/micro/micro.h"

#define REPEATS 16

static const char sender[] = "news@sender.example";
static const char recipient[] = "someone@receiver.example";

static struct {
	struct mail_pools pools;
	struct envelope_builder builder;
	unsigned char body[BODY_10K];
} world;

static void begin(void)
{
	mail_pools_init(&world.pools);
	envelope_builder_init(&world.builder);
	body_fill(world.body, sizeof(world.body));
}

static void end(void)
{
	envelope_builder_close(&world.builder);
	mail_pools_close(&world.pools);
}

static void gather(void)
{
	envelope_builder_reset(&world.builder);
	envelope_set_sender(&world.builder, sender, sizeof(sender) - 1);
	envelope_add_recipient(&world.builder, recipient, sizeof(recipient) - 1);
}

/* A message with its envelope, and a body of `body` bytes; gone again. */
static void build(size_t body)
{
	struct message *m;

	gather();
	m = message_create(&world.pools, envelope_size(&world.builder));
	envelope_build(&world.builder, message_envelope(m));
	if (body > 0) {
		chain_append(message_body(m), &world.pools.buffers, world.body, body);
		message_set_resident(m, &world.pools);
	}
	measure_use(message_envelope(m)->recipient_count);
	message_release(m, &world.pools);
}

static uint64_t build_empty(const void *own)
{
	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		build(0);
	}
	return REPEATS;
}

static uint64_t build_10k(const void *own)
{
	(void)own;
	for (unsigned i = 0; i < REPEATS; i++) {
		build(BODY_10K);
	}
	return REPEATS;
}

static uint64_t create(const void *own)
{
	size_t bytes;

	(void)own;
	gather();
	bytes = envelope_size(&world.builder);
	for (unsigned i = 0; i < REPEATS; i++) {
		struct message *m = message_create(&world.pools, bytes);

		measure_use(m->references);
		message_release(m, &world.pools);
	}
	return REPEATS;
}

static uint64_t allocate(const void *own)
{
	size_t bytes;

	(void)own;
	gather();
	bytes = sizeof(struct message) + envelope_size(&world.builder);
	for (unsigned i = 0; i < REPEATS; i++) {
		unsigned char *m = malloc(bytes);

		if (m == NULL) {
			errx(2, "out of memory");
		}
		m[0] = 1;
		measure_hide(m);
		free(m);
	}
	return REPEATS;
}

static const struct micro_case cases[] = {
	{.run = measure_case_ns,
	 .step = create,
	 .rows = {{"message.create", "ns", "message.malloc"}}},
	{.run = measure_case_ns, .step = allocate, .rows = {{"message.malloc", "ns", NULL}}},
	{.run = measure_case_ns,
	 .step = build_empty,
	 .rows = {{"message.build", "ns", "message.malloc"}}},
	{.run = measure_case_ns, .step = build_10k, .rows = {{"message.body-10k", "ns", NULL}}},
};

const struct micro_group micro_message = {
	.name = "message",
	.label = "a message with its envelope, made and given back",
	.begin = begin,
	.end = end,
	MICRO_CASES(cases),
};
