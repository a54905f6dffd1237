/*
 * Several agents in threads of their own store, defer, read back and finish messages at random with
 * two spool writers in theirs. Every request is answered once; afterwards the spool is opened again
 * and must hold what the answers said: nothing less, nothing more, and each delivery as it was
 * deferred last.
 */
#include <string.h>

#include "agents/spool_writer.h"
#include "core/runtime/check.h"
#include "core/runtime/runtime.h"
#include "tests/stress/stress.h"

#define CLIENTS 3
#define WRITERS 2
#define IN_FLIGHT 64
#define MESSAGES_MAX 200000
#define BODY_MAX 3000

/* What the spool has said about a message. */
struct known {
	/* 0: not stored, or finished. */
	bool alive;
	bool seen;
	uint16_t attempts;
};

struct client {
	struct agent base;
	struct spool *spool;
	struct mail_pools pools;
	struct envelope_builder builder;
	struct call *idle;
	unsigned under_way;
	uint64_t seed;
	uint32_t stored;
	bool over;
	struct known known[MESSAGES_MAX];
};

/* One message's way; it is one request after the other. */
struct call {
	struct spool_request request;
	struct call *next;
	uint32_t number;
	bool asked;
	size_t body_len;
};

static struct client *clients[CLIENTS];
static struct call calls[CLIENTS][IN_FLIGHT];
static _Atomic unsigned working;
static _Atomic uint64_t expected;

static void on_answer(struct agent *self, void *object, uint64_t value);

static struct client *client_of(struct agent *self)
{
	return CONTAINER_OF(self, struct client, base);
}

static void ask(struct client *t, struct call *c, enum spool_verb verb)
{
	struct spool_request *r = &c->request;

	r->verb = verb;
	r->on_done = on_answer;
	c->asked = true;
	if (verb == SPOOL_STATE) {
		r->attempts = (uint16_t)(t->known[c->number].attempts + 1);
		r->due_ms = UINT64_MAX / 2;
		r->pending = recipient_set_first(1);
		r->reason = "451 later";
	}
	spool_submit(t->spool, &t->base, r);
}

static void put_back(struct client *t, struct call *c)
{
	message_release(c->request.message, &t->pools);
	c->next = t->idle;
	t->idle = c;
	t->under_way--;
}

/* Of what is stored a part is left where it is, to be found again. */
static void next_request(struct client *t, struct call *c)
{
	uint64_t r = stress_random(&t->seed);

	if (r % 16 == 0) {
		put_back(t, c);
	} else {
		ask(t, c, r % 4 == 0 ? SPOOL_STATE : r % 4 == 1 ? SPOOL_LOAD : SPOOL_DONE);
	}
}

static void check_body(struct client *t, struct call *c)
{
	unsigned char body[BODY_MAX];

	stress_expect("message", content_envelope(c->request.content)->id.low, c->number);
	stress_expect("bytes of a body", c->request.content->body.len, c->body_len);
	chain_copy_out(&c->request.content->body, 0, body, c->body_len);
	for (size_t i = 0; i < c->body_len; i++) {
		stress_expect("byte of a body", body[i], (unsigned char)(c->number + i));
	}
	content_release(c->request.content, &t->pools);
}

static void on_answer(struct agent *self, void *object, uint64_t value)
{
	struct client *t = client_of(self);
	struct call *c = CONTAINER_OF(object, struct call, request);
	struct known *k = &t->known[c->number];

	(void)value;
	stress_expect("result", (uint64_t)c->request.result, 0);
	stress_expect("asked and not answered yet", c->asked, true);
	c->asked = false;
	stress_progress();
	switch (c->request.verb) {
	case SPOOL_STORE:
		k->alive = true;
		c->request.entry = c->request.message->spool;
		c->request.id = c->request.message->id;
		break;
	case SPOOL_STATE:
		k->attempts++;
		break;
	case SPOOL_LOAD:
		check_body(t, c);
		break;
	default:
		k->alive = false;
		put_back(t, c);
		return;
	}
	next_request(t, c);
}

static struct message *make_message(struct client *t, struct call *c)
{
	unsigned char body[BODY_MAX];
	struct message *m;
	struct envelope *e;

	c->body_len = 1 + stress_random(&t->seed) % BODY_MAX;
	for (size_t i = 0; i < c->body_len; i++) {
		body[i] = (unsigned char)(c->number + i);
	}
	envelope_builder_reset(&t->builder);
	envelope_set_sender(&t->builder, "a@example.com", 13);
	envelope_add_recipient(&t->builder, "b@example.net", 13);
	m = message_create(&t->pools, envelope_size(&t->builder));
	e = message_envelope(m);
	envelope_build(&t->builder, e);
	e->id = (struct message_id){.high = t->base.id, .low = c->number};
	e->body_bytes = c->body_len;
	chain_append(message_body(m), &t->pools.buffers, body, c->body_len);
	message_set_resident(m, &t->pools);
	return m;
}

static void store_one(struct client *t)
{
	struct call *c = t->idle;

	t->idle = c->next;
	t->under_way++;
	c->number = t->stored++;
	c->request.writer = (uint8_t)spool_writer_of(t->spool, c->number);
	c->request.message = make_message(t, c);
	c->request.delivery = 0;
	ask(t, c, SPOOL_STORE);
}

static int client_do_work(struct agent *self)
{
	struct client *t = client_of(self);
	int work = 0;

	if (t->over) {
		return 0;
	}
	if (stress_now_ns() >= stress.end_ns || t->stored == MESSAGES_MAX) {
		t->over = t->under_way == 0;
		if (t->over && atomic_fetch_sub(&working, 1) == 1) {
			runtime_stop(self->runtime);
		}
		return 0;
	}
	while (t->idle != NULL && t->stored < MESSAGES_MAX) {
		store_one(t);
		work++;
	}
	return work;
}

static const struct agent_ops client_ops = {.kind = "client", .do_work = client_do_work};

static void client_open(unsigned i)
{
	static const char *const names[CLIENTS] = {"client.0", "client.1", "client.2"};
	struct client *t =
		aligned_alloc(CACHE_LINE, (sizeof(*t) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);

	if (t == NULL) {
		stress_fail("out of memory", 0);
	}
	memset(t, 0, sizeof(*t));
	agent_init(&t->base, &client_ops, names[i], 0);
	mail_pools_init(&t->pools);
	envelope_builder_init(&t->builder);
	t->seed = 1000 + i;
	for (unsigned n = 0; n < IN_FLIGHT; n++) {
		struct call *c = &calls[i][n];

		c->request.from = &t->base;
		c->next = t->idle;
		t->idle = c;
	}
	clients[i] = t;
}

static void client_close(struct client *t)
{
	stress_expect("under way at the end", t->under_way, 0);
	agent_close(&t->base);
	envelope_builder_close(&t->builder);
	mail_pools_close(&t->pools);
	free(t);
}

/* ---- what is found again ---- */

/* The clients rest meanwhile; a message has one writer, so nobody else looks at its entry. */
static void on_recovered(struct agent *self, void *context, struct delivery *d)
{
	const struct message_id *id = &message_envelope(d->message)->id;
	struct mail_pools *pools = context;
	struct known *k;

	if (id->high >= CLIENTS || id->low >= clients[id->high]->stored) {
		stress_fail("a message that nobody stored", id->low);
	}
	k = &clients[id->high]->known[id->low];
	stress_expect("alive", k->alive, true);
	stress_expect("recovered before", k->seen, false);
	stress_expect("attempts", d->attempts, k->attempts);
	k->seen = true;
	delivery_destroy(d, pools);
	stress_progress();
	if (atomic_fetch_sub(&expected, 1) == 1) {
		runtime_stop(self->runtime);
	}
}

static void unexpected(struct agent *self, void *context, struct delivery *d)
{
	(void)self;
	(void)context;
	(void)d;
	stress_fail("recovered a delivery from an empty spool", 0);
}

/* ---- one life of the program ---- */

static void run_with(struct spool *spool, bool again)
{
	static const char *const names[WRITERS] = {"spool.0", "spool.1"};
	const struct idle idle = {.kind = IDLE_PARK};
	struct spool_writer *writers[WRITERS];
	struct mail_pools pools[WRITERS];
	struct runtime rt;

	runtime_init(&rt, &clock_system);
	for (unsigned i = 0; i < CLIENTS; i++) {
		clients[i]->spool = spool;
		runtime_add(&rt, runtime_group(&rt, clients[i]->base.name, -1, &idle),
			    &clients[i]->base);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		mail_pools_init(&pools[i]);
		writers[i] = aligned_alloc(CACHE_LINE, sizeof(struct spool_writer));
		if (writers[i] == NULL) {
			stress_fail("out of memory", 0);
		}
		spool_writer_init(writers[i], names[i], spool, i, again ? on_recovered : unexpected,
				  &pools[i]);
		runtime_add(&rt, runtime_group(&rt, names[i], -1, &idle), &writers[i]->base);
	}
	if (runtime_prepare(&rt) != 0) {
		stress_fail("the runtime is not ready", 0);
	}
	if (again && atomic_load(&expected) == 0) {
		runtime_stop(&rt);
	}
	stress_expect("the runtime's end", (uint64_t)runtime_run(&rt), 0);
	stress_expect("lost wake-ups", counter_total("park_timeout_with_work"), 0);
	runtime_close(&rt);
	for (unsigned i = 0; i < WRITERS; i++) {
		agent_close(&writers[i]->base);
		free(writers[i]);
		mail_pools_close(&pools[i]);
	}
	spool_close(spool);
}

static struct spool *open_spool(const char *path, struct spool_recovery *found)
{
	const struct spool_options options = {.path = path,
					      .writers = WRITERS,
					      .segment_bytes = UINT64_C(1) << 20,
					      .compact_percent = 25,
					      .spare_segments = 2};
	struct spool *spool = spool_open(&options, stderr, found);

	if (spool == NULL) {
		stress_fail("cannot open the spool", 0);
	}
	return spool;
}

static uint64_t count_alive(void)
{
	uint64_t alive = 0;

	for (unsigned i = 0; i < CLIENTS; i++) {
		for (uint32_t n = 0; n < clients[i]->stored; n++) {
			alive += clients[i]->known[n].alive;
		}
	}
	return alive;
}

int main(int argc, char **argv)
{
	char path[] = "/tmp/flywheel-stress-XXXXXX";
	char command[64];
	struct spool_recovery found;

	stress_begin("spool", argc, argv);
	if (mkdtemp(path) == NULL) {
		stress_fail("cannot make a directory", 0);
	}
	for (unsigned i = 0; i < CLIENTS; i++) {
		client_open(i);
	}
	atomic_store(&working, CLIENTS);
	run_with(open_spool(path, NULL), false);
	for (unsigned i = 0; i < CLIENTS; i++) {
		clients[i]->base.stop_phase = 0;
		atomic_store(&clients[i]->base.state, AGENT_INIT);
	}
	atomic_store(&expected, count_alive());
	{
		struct spool *spool = open_spool(path, &found);

		stress_expect("messages found again", found.messages, count_alive());
		run_with(spool, true);
	}
	stress_expect("not found again", atomic_load(&expected), 0);
	for (unsigned i = 0; i < CLIENTS; i++) {
		client_close(clients[i]);
	}
	snprintf(command, sizeof(command), "rm -r %s", path);
	stress_expect("rm", (uint64_t)system(command), 0);
	return stress_end("answers");
}
