#include "core/mail/message.h"

#include <stdlib.h>

/* For the size of what the third pool holds, and nothing else. */
#include "core/queue/delivery.h"
#include "core/runtime/check.h"

/* Objects that each agent keeps for reuse: 32 MiB of buffers at most. */
#define KEEP_BUFFERS 8192
#define KEEP_MESSAGES 8192
#define KEEP_DELIVERIES 16384

static const size_t class_bytes[MESSAGE_SIZE_CLASSES] = {256, 384, 768, 2048};

void mail_pools_init(struct mail_pools *p)
{
	static const char *const names[MESSAGE_SIZE_CLASSES] = {"message single", "message small",
								"message medium", "message large"};

	pool_init(&p->buffers, "chain buffer", CHAIN_BUFFER_SIZE, KEEP_BUFFERS);
	for (unsigned i = 0; i < MESSAGE_SIZE_CLASSES; i++) {
		pool_init(&p->messages[i], names[i], class_bytes[i], KEEP_MESSAGES);
	}
	pool_init(&p->deliveries, "delivery", sizeof(struct delivery), KEEP_DELIVERIES);
	atomic_init(&p->body_bytes, 0);
}

void mail_pools_close(struct mail_pools *p)
{
	pool_close(&p->buffers);
	for (unsigned i = 0; i < MESSAGE_SIZE_CLASSES; i++) {
		pool_close(&p->messages[i]);
	}
	pool_close(&p->deliveries);
}

uint64_t mail_pools_messages(const struct mail_pools *p)
{
	uint64_t live = 0;

	for (unsigned i = 0; i < MESSAGE_SIZE_CLASSES; i++) {
		live += (uint64_t)p->messages[i].live;
	}
	return live;
}

/* One writer, so a load and a store will do. */
static void body_bytes_add(struct mail_pools *p, int64_t bytes)
{
	int64_t sum = atomic_load_explicit(&p->body_bytes, memory_order_relaxed);

	atomic_store_explicit(&p->body_bytes, sum + bytes, memory_order_relaxed);
}

static uint8_t size_class_of(size_t bytes)
{
	uint8_t i = 0;

	while (i < MESSAGE_SIZE_CLASSES && bytes > class_bytes[i]) {
		i++;
	}
	return i;
}

static void *message_allocate(struct mail_pools *p, uint8_t size_class, size_t bytes)
{
	void *object;

	if (size_class < MESSAGE_SIZE_CLASSES) {
		return pool_get(&p->messages[size_class]);
	}
	object = malloc(bytes);
	if (object == NULL) {
		fatal("out of memory: message of %zu bytes", bytes);
	}
	return object;
}

struct message *message_create(struct mail_pools *p, size_t envelope_bytes)
{
	size_t bytes = sizeof(struct message) + envelope_bytes;
	uint8_t size_class = size_class_of(bytes);
	struct message *m = message_allocate(p, size_class, bytes);

	m->magic = MESSAGE_MAGIC;
	m->size_class = size_class;
	m->writer = 0;
	m->resident = false;
	atomic_init(&m->references, 1);
	m->spool = NULL;
	m->body = CHAIN_EMPTY;
	return m;
}

void message_hold(struct message *m, uint32_t references)
{
	CHECK_MAGIC(m, MESSAGE_MAGIC);
	atomic_fetch_add_explicit(&m->references, references, memory_order_relaxed);
}

static void message_free(struct message *m, struct mail_pools *p)
{
	message_drop_body(m, p);
	m->magic = 0;
	if (m->size_class < MESSAGE_SIZE_CLASSES) {
		pool_put(&p->messages[m->size_class], m);
	} else {
		free(m);
	}
}

void message_release(struct message *m, struct mail_pools *p)
{
	uint32_t before;

	CHECK_MAGIC(m, MESSAGE_MAGIC);
	/* Acquire and release: whoever frees it sees what the others did with it. */
	before = atomic_fetch_sub_explicit(&m->references, 1, memory_order_acq_rel);
	ASSERT(before > 0);
	if (before == 1) {
		message_free(m, p);
	}
}

static int64_t body_memory(const struct message *m)
{
	return (int64_t)m->body.buffers * CHAIN_BUFFER_SIZE;
}

void message_set_resident(struct message *m, struct mail_pools *p)
{
	CHECK_MAGIC(m, MESSAGE_MAGIC);
	ASSERT(!m->resident);
	m->resident = true;
	body_bytes_add(p, body_memory(m));
}

void message_drop_body(struct message *m, struct mail_pools *p)
{
	CHECK_MAGIC(m, MESSAGE_MAGIC);
	if (m->resident) {
		body_bytes_add(p, -body_memory(m));
		m->resident = false;
	}
	chain_release(&m->body, &p->buffers);
}
