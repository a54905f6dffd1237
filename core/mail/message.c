#include "core/mail/message.h"

#include <stdlib.h>
#include <string.h>

/* For the size of what the last pool holds, and nothing else. */
#include "core/queue/delivery.h"

/* Objects that each agent keeps for reuse: 32 MiB of buffers at most. */
#define KEEP_BUFFERS 8192
#define KEEP_MESSAGES 8192
#define KEEP_DELIVERIES 16384
/* Of each kind, in one call. */
#define TRIM_MAX 1024

static const size_t class_bytes[CONTENT_SIZE_CLASSES] = {256, 384, 768, 2048};

void mail_pools_init(struct mail_pools *p)
{
	static const char *const names[CONTENT_SIZE_CLASSES] = {"content single", "content small",
								"content medium", "content large"};

	pool_init(&p->buffers, "chain buffer", CHAIN_BUFFER_SIZE, KEEP_BUFFERS);
	pool_init(&p->messages, "message", sizeof(struct message), KEEP_MESSAGES);
	for (unsigned i = 0; i < CONTENT_SIZE_CLASSES; i++) {
		pool_init(&p->contents[i], names[i], class_bytes[i], KEEP_MESSAGES);
	}
	pool_init(&p->deliveries, "delivery", sizeof(struct delivery), KEEP_DELIVERIES);
	atomic_init(&p->resident_bytes, 0);
}

void mail_pools_trim(struct mail_pools *p)
{
	pool_trim(&p->buffers, TRIM_MAX);
	pool_trim(&p->messages, TRIM_MAX);
	for (unsigned i = 0; i < CONTENT_SIZE_CLASSES; i++) {
		pool_trim(&p->contents[i], TRIM_MAX);
	}
	pool_trim(&p->deliveries, TRIM_MAX);
}

void mail_pools_empty(struct mail_pools *p)
{
	pool_empty(&p->buffers);
	pool_empty(&p->messages);
	for (unsigned i = 0; i < CONTENT_SIZE_CLASSES; i++) {
		pool_empty(&p->contents[i]);
	}
	pool_empty(&p->deliveries);
}

void mail_pools_close(struct mail_pools *p)
{
	pool_close(&p->buffers);
	pool_close(&p->messages);
	for (unsigned i = 0; i < CONTENT_SIZE_CLASSES; i++) {
		pool_close(&p->contents[i]);
	}
	pool_close(&p->deliveries);
}

uint64_t mail_pools_live(const struct mail_pools *p)
{
	uint64_t live = (uint64_t)p->messages.live;

	for (unsigned i = 0; i < CONTENT_SIZE_CLASSES; i++) {
		live += (uint64_t)p->contents[i].live;
	}
	return live;
}

/* ---- content ---- */

static uint8_t size_class_of(size_t bytes)
{
	uint8_t i = 0;

	while (i < CONTENT_SIZE_CLASSES && bytes > class_bytes[i]) {
		i++;
	}
	return i;
}

static void *content_allocate(struct mail_pools *p, uint8_t size_class, size_t bytes)
{
	void *object;

	if (size_class < CONTENT_SIZE_CLASSES) {
		return pool_get(&p->contents[size_class]);
	}
	object = malloc(bytes);
	if (object == NULL) {
		fatal("out of memory: message of %zu bytes", bytes);
	}
	return object;
}

struct content *content_create(struct mail_pools *p, size_t envelope_bytes)
{
	size_t bytes = sizeof(struct content) + envelope_bytes;
	uint8_t size_class = size_class_of(bytes);
	struct content *c = content_allocate(p, size_class, bytes);

	c->size_class = size_class;
	c->resident = false;
	c->envelope_bytes = (uint32_t)envelope_bytes;
	c->body = CHAIN_EMPTY;
	return c;
}

/* One writer, so a load and a store will do. */
static void resident_add(struct mail_pools *p, int64_t bytes)
{
	int64_t sum = atomic_load_explicit(&p->resident_bytes, memory_order_relaxed);

	atomic_store_explicit(&p->resident_bytes, sum + bytes, memory_order_relaxed);
}

static int64_t content_memory(const struct content *c)
{
	size_t block = c->size_class < CONTENT_SIZE_CLASSES
			       ? class_bytes[c->size_class]
			       : sizeof(struct content) + c->envelope_bytes;

	return (int64_t)(block + c->body.buffers * (size_t)CHAIN_BUFFER_SIZE);
}

static void content_drop_body(struct content *c, struct mail_pools *p)
{
	if (c->resident) {
		resident_add(p, -content_memory(c));
		c->resident = false;
	}
	chain_release(&c->body, &p->buffers);
}

void content_release(struct content *c, struct mail_pools *p)
{
	if (c == NULL) {
		return;
	}
	content_drop_body(c, p);
	if (c->size_class < CONTENT_SIZE_CLASSES) {
		pool_put(&p->contents[c->size_class], c);
	} else {
		free(c);
	}
}

/* ---- messages ---- */

struct message *message_create(struct mail_pools *p, size_t envelope_bytes)
{
	struct message *m = pool_get(&p->messages);

	memset(m, 0, sizeof(*m));
	m->magic = MESSAGE_MAGIC;
	atomic_init(&m->references, 1);
	m->envelope_bytes = (uint32_t)envelope_bytes;
	m->content = content_create(p, envelope_bytes);
	return m;
}

void message_hold(struct message *m, uint32_t references)
{
	CHECK_MAGIC(m, MESSAGE_MAGIC);
	atomic_fetch_add_explicit(&m->references, references, memory_order_relaxed);
}

void message_release(struct message *m, struct mail_pools *p)
{
	uint32_t before;

	CHECK_MAGIC(m, MESSAGE_MAGIC);
	/* Acquire and release: whoever frees it sees what the others did with it. */
	before = atomic_fetch_sub_explicit(&m->references, 1, memory_order_acq_rel);
	ASSERT(before > 0);
	if (before == 1) {
		content_release(m->content, p);
		m->magic = 0;
		pool_put(&p->messages, m);
	}
}

void message_seal(struct message *m)
{
	const struct envelope *e = message_envelope(m);

	CHECK_MAGIC(m, MESSAGE_MAGIC);
	m->id = e->id;
	m->received_ms = e->received_ms;
	m->body_bytes = e->body_bytes;
	m->has_sender = strchr(envelope_sender(e), '@') != NULL;
}

void message_set_resident(struct message *m, struct mail_pools *p)
{
	message_seal(m);
	ASSERT(!m->content->resident);
	m->content->resident = true;
	resident_add(p, content_memory(m->content));
}

void message_drop_body(struct message *m, struct mail_pools *p)
{
	CHECK_MAGIC(m, MESSAGE_MAGIC);
	ASSERT(m->content != NULL && m->content->resident);
	content_drop_body(m->content, p);
}

void message_use_content(struct message *m, uint32_t users)
{
	CHECK_MAGIC(m, MESSAGE_MAGIC);
	atomic_fetch_add_explicit(&m->content_users, users, memory_order_relaxed);
}

bool message_give_up_content(struct message *m, struct mail_pools *p)
{
	uint32_t before;

	CHECK_MAGIC(m, MESSAGE_MAGIC);
	/* Acquire and release: whoever drops it does so after the others have read it. */
	before = atomic_fetch_sub_explicit(&m->content_users, 1, memory_order_acq_rel);
	ASSERT(before > 0);
	/* From here on it is the others': one of them may be dropping it. */
	if (before != 1) {
		return false;
	}
	ASSERT(m->content != NULL);
	content_release(m->content, p);
	m->content = NULL;
	return true;
}
