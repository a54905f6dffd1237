#include "tests/unit/spool_world.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/runtime/check.h"
#include "spool/account.h"
#include "spool/store.h"

#define NODE 7U

/* ---- the world ---- */

static uint64_t fake_ns(void *context)
{
	return ((struct world *)context)->now_ms * NS_PER_MS;
}

static int client_do_work(struct agent *self)
{
	(void)self;
	return 0;
}

static const struct agent_ops client_ops = {.kind = "client", .do_work = client_do_work};

struct world *world_new(bool simulated)
{
	struct world *w = calloc(1, sizeof(*w));

	ASSERT(w != NULL);
	/* In memory if the disk is simulated: what the real one does is not the question then. */
	strcpy(w->path, "/dev/shm/flywheel-spool-XXXXXX");
	if (!simulated || mkdtemp(w->path) == NULL) {
		strcpy(w->path, "/tmp/flywheel-spool-XXXXXX");
		ASSERT(mkdtemp(w->path) != NULL);
	}
	w->options = (struct spool_options){
		.path = w->path,
		.writers = 1,
		.segment_bytes = 1U << 20,
		.compact_percent = 50,
		.spare_segments = 2,
	};
	w->now_ms = 1000000;
	w->next_id = 1;
	w->backend = MUX_AUTO;
	if (simulated) {
		w->disk = calloc(1, sizeof(*w->disk));
		ASSERT(w->disk != NULL);
		w->disk->seed = 88172645463325252U;
		w->disk->world = w;
	}
	mail_pools_init(&w->pools);
	envelope_builder_init(&w->builder);
	return w;
}

void world_free(struct world *w)
{
	while (w->messages != NULL) {
		struct model_message *m = w->messages;

		w->messages = m->next;
		free(m);
	}
	envelope_builder_close(&w->builder);
	mail_pools_close(&w->pools);
	disk_remove_directory(w->path);
	free(w->disk);
	free(w);
}

struct model_message *world_find(const struct world *w, const struct message_id *id)
{
	struct model_message *m = w->messages;

	while (m != NULL && memcmp(&m->id, id, sizeof(*id)) != 0) {
		m = m->next;
	}
	return m;
}

/* What operators ordered, with the state that says so. */
static const char *check_orders(const struct delivery *d, const struct model_delivery *x)
{
	bool ordered = x->ordered != 0 && d->attempts == x->ordered;

	if (d->held != ordered || d->rerouted != ordered || d->sent_on != ordered) {
		return "other orders";
	}
	return !ordered || (strcmp(d->route->binding, "other") == 0 &&
			    strcmp(d->route->domain, "there.example") == 0)
		       ? NULL
		       : "another route";
}

static const char *check_delivery(const struct world *w, const struct delivery *d,
				  struct model_message **out)
{
	struct model_message *m = world_find(w, &message_envelope(d->message)->id);
	const struct model_delivery *x;

	*out = m;
	if (m == NULL) {
		return "a message that nobody sent";
	}
	if (message_envelope(d->message)->delivery_count != m->delivery_count ||
	    message_envelope(d->message)->body_bytes != m->body_bytes) {
		return "another envelope";
	}
	x = &m->deliveries[d->index];
	if (x->done) {
		return "a delivery that was done";
	}
	if (d->attempts < x->attempts || d->attempts > x->attempts_asked) {
		return "wrong attempts";
	}
	if (d->attempts != 0 && (d->due_ms != m->id.low + d->attempts * 1000U ||
				 recipient_set_count(&d->pending) != 1 || d->last_text == NULL ||
				 strcmp(d->last_text, "4.4.1 try later") != 0)) {
		return "a wrong state";
	}
	return check_orders(d, x);
}

static void on_recovered(struct agent *self, void *context, struct delivery *d)
{
	struct world *w = context;
	struct model_message *m;
	const char *wrong = check_delivery(w, d, &m);
	struct spool_writer *writer = CONTAINER_OF(self, struct spool_writer, base);

	if (wrong != NULL) {
		fatal("recovered message %llu delivery %u: %s",
		      (unsigned long long)message_envelope(d->message)->id.low, d->index, wrong);
	}
	m->entry = d->message->spool;
	m->writer = d->message->writer;
	m->seen |= (uint8_t)(1U << d->index);
	m->deliveries[d->index].attempts = d->attempts;
	m->deliveries[d->index].attempts_asked = d->attempts;
	w->recovered++;
	delivery_destroy(d, &writer->pools);
}

/* After a start: what was under way before is known now. */
static void renew_model(struct world *w, struct model_message *m)
{
	if (m->state == MODEL_REFUSED && m->seen != 0) {
		w->resurrected++;
		m->state = MODEL_ASKED;
	}
	if (m->state == MODEL_ASKED) {
		m->state = m->seen != 0 ? MODEL_STORED : MODEL_REFUSED;
	}
	for (uint32_t i = 0; i < m->delivery_count && m->state == MODEL_STORED; i++) {
		bool seen = (m->seen >> i & 1) != 0;
		struct model_delivery *d = &m->deliveries[i];

		if (!seen && !d->done_asked && m->durability != ENVELOPE_CACHED) {
			fatal("message %llu delivery %u is lost", (unsigned long long)m->id.low, i);
		}
		d->done_asked = !seen;
		d->done = !seen;
	}
}

static void call_end(struct call *c)
{
	struct world *w = c->world;

	if (c->prev != NULL) {
		c->prev->next = c->next;
	} else {
		w->first_call = c->next;
	}
	if (c->next != NULL) {
		c->next->prev = c->prev;
	}
	w->calls--;
	free(c);
}

static FILE *error_file(struct world *w)
{
	FILE *f = fmemopen(w->errors, sizeof(w->errors), "w");

	ASSERT(f != NULL);
	memset(w->errors, 0, sizeof(w->errors));
	return f;
}

static void use_disk(struct world *w)
{
	struct group *g = w->rt.groups[0];

	mux_destroy(g->mux);
	disk_reset(w->disk);
	g->mux = &w->disk->base;
	for (uint32_t i = 0; i < g->agent_count; i++) {
		g->agents[i]->mux = g->mux;
	}
}

void world_start(struct world *w)
{
	static const char *const names[] = {"spool.0", "spool.1", "spool.2", "spool.3"};
	struct clock clock = {fake_ns, fake_ns, w};
	struct idle idle = {.kind = IDLE_NOOP};
	FILE *errors = error_file(w);
	struct group *g;

	w->spool = spool_open(&w->options, errors, &w->found);
	fclose(errors);
	if (w->spool == NULL) {
		fatal("%s", w->errors);
	}
	if (w->errors[0] != '\0' && !w->expect_errors) {
		fatal("unexpected: %s", w->errors);
	}
	runtime_init(&w->rt, &clock);
	w->rt.backend = w->disk != NULL ? MUX_POLL : w->backend;
	g = runtime_group(&w->rt, "all", -1, &idle);
	for (uint32_t i = 0; i < w->options.writers; i++) {
		spool_writer_init(&w->writers[i], names[i], w->spool, i, on_recovered, w);
		runtime_add(&w->rt, g, &w->writers[i].base);
	}
	agent_init(&w->client, &client_ops, "client", 0);
	runtime_add(&w->rt, g, &w->client);
	ASSERT(runtime_prepare(&w->rt) == 0);
	ASSERT(runtime_invoke_start(&w->rt) == 0);
	if (w->disk != NULL) {
		use_disk(w);
	}
	w->recovered = 0;
	for (struct model_message *m = w->messages; m != NULL; m = m->next) {
		m->seen = 0;
	}
	for (unsigned i = 0; i < 100000 && w->recovered < w->found.deliveries; i++) {
		world_step(w, 1);
	}
	ASSERT(w->recovered == w->found.deliveries);
	for (struct model_message *m = w->messages; m != NULL; m = m->next) {
		renew_model(w, m);
	}
}

void world_kill(struct world *w)
{
	struct mux_op *op;

	while (w->disk != NULL && (op = mux_list_pop(&w->disk->ops)) != NULL) {
		op->verb = MUX_IDLE;
		w->disk->base.pending--;
	}
	group_finish(w->rt.groups[0]);
	for (uint32_t i = 0; i < w->options.writers; i++) {
		agent_close(&w->writers[i].base);
	}
	agent_close(&w->client);
	runtime_close(&w->rt);
	spool_close(w->spool);
	w->spool = NULL;
	while (w->first_call != NULL) {
		struct call *c = w->first_call;

		if (c->request.verb == SPOOL_STORE) {
			message_release(c->request.message, &w->pools);
		} else if (c->request.verb == SPOOL_LOAD) {
			content_release(c->request.content, &w->pools);
		}
		call_end(c);
	}
}

void world_power_cut(struct world *w)
{
	char copy[300];

	snprintf(copy, sizeof(copy), "%s.cut", w->path);
	disk_power_cut(w->disk, w->path, copy);
	world_kill(w);
	disk_remove_directory(w->path);
	ASSERT(rename(copy, w->path) == 0);
}

void world_stop(struct world *w)
{
	ASSERT(runtime_invoke_stop(&w->rt, UINT32_MAX));
	for (uint32_t i = 0; i < w->options.writers; i++) {
		agent_close(&w->writers[i].base);
	}
	agent_close(&w->client);
	runtime_close(&w->rt);
	spool_close(w->spool);
	w->spool = NULL;
}

void world_step(struct world *w, unsigned steps)
{
	for (unsigned i = 0; i < steps; i++) {
		runtime_step(&w->rt);
		w->now_ms++;
	}
}

/* Steps are fast, and a real disk is not. */
static unsigned steps_max(const struct world *w)
{
	return w->disk != NULL ? 100000 : UINT32_MAX;
}

void world_settle(struct world *w)
{
	for (unsigned i = 0; i < steps_max(w) && w->calls > 0; i++) {
		world_step(w, 1);
	}
	ASSERT(w->calls == 0);
}

void world_rest(struct world *w)
{
	unsigned quiet = 0;

	world_settle(w);
	for (unsigned i = 0; i < steps_max(w) && quiet < 100; i++) {
		quiet = runtime_step(&w->rt) == 0 ? quiet + 1 : 0;
		w->now_ms++;
	}
	ASSERT(quiet == 100);
}

/* ---- requests ---- */

unsigned char world_body_byte(const struct message_id *id, size_t at)
{
	return (unsigned char)(id->low * 31 + at * 7 + at / 251);
}

static struct message *make_message(struct world *w, struct model_message *m)
{
	struct message *message;
	struct envelope *e;
	unsigned char *body = malloc(m->body_bytes + 1);
	char address[64];

	envelope_builder_reset(&w->builder);
	envelope_set_sender(&w->builder, "sender@example.com", 18);
	for (uint32_t i = 0; i < m->delivery_count; i++) {
		int len = snprintf(address, sizeof(address), "user@d%u.example", i);

		ASSERT(envelope_add_recipient(&w->builder, address, (size_t)len));
	}
	message = message_create(&w->pools, envelope_size(&w->builder));
	e = message_envelope(message);
	envelope_build(&w->builder, e);
	e->id = m->id;
	e->durability = (uint8_t)m->durability;
	e->body_bytes = m->body_bytes;
	for (size_t i = 0; i < m->body_bytes; i++) {
		body[i] = world_body_byte(&m->id, i);
	}
	chain_append(message_body(message), &w->pools.buffers, body, m->body_bytes);
	message_set_resident(message, &w->pools);
	free(body);
	return message;
}

static struct call *call_new(struct world *w, struct model_message *m, enum spool_verb verb,
			     task_fn on_done)
{
	struct call *c = calloc(1, sizeof(*c));

	ASSERT(c != NULL);
	c->world = w;
	c->model = m;
	c->request.verb = verb;
	c->request.writer = (uint8_t)m->writer;
	c->request.owner = c;
	c->request.on_done = on_done;
	c->request.entry = m->entry;
	c->request.id = m->id;
	c->next = w->first_call;
	if (c->next != NULL) {
		c->next->prev = c;
	}
	w->first_call = c;
	w->calls++;
	return c;
}

static void submit(struct call *c)
{
	struct agent *self = &c->world->client;

	agent_current = self;
	spool_submit(c->world->spool, self, &c->request);
	agent_flush(self);
	agent_current = NULL;
}

static void on_stored(struct agent *self, void *object, uint64_t value)
{
	struct spool_request *r = object;
	struct call *c = r->owner;
	struct model_message *m = c->model;

	(void)self;
	(void)value;
	m->error = r->result;
	m->state = r->result == 0 ? MODEL_STORED : MODEL_REFUSED;
	if (r->result == 0) {
		ASSERT(r->message->spool != NULL && r->message->writer == m->writer);
		m->entry = r->message->spool;
	}
	message_release(r->message, &c->world->pools);
	call_end(c);
}

struct model_message *world_store(struct world *w, uint32_t deliveries, size_t body_bytes,
				  enum envelope_durability durability)
{
	struct model_message *m = calloc(1, sizeof(*m));
	struct call *c;

	ASSERT(m != NULL && deliveries > 0 && deliveries <= WORLD_DELIVERIES_MAX);
	m->id = (struct message_id){.high = (w->now_ms << 16) | NODE, .low = w->next_id++};
	m->delivery_count = deliveries;
	m->body_bytes = body_bytes;
	m->durability = durability;
	m->writer = spool_writer_of(w->spool, (uint32_t)m->id.low);
	m->next = w->messages;
	w->messages = m;
	w->message_count++;
	c = call_new(w, m, SPOOL_STORE, on_stored);
	c->request.message = make_message(w, m);
	c->request.promised = w->promised;
	submit(c);
	return m;
}

static void on_done(struct agent *self, void *object, uint64_t value)
{
	struct spool_request *r = object;
	struct call *c = r->owner;

	(void)self;
	(void)value;
	ASSERT(r->result == 0);
	c->model->deliveries[c->delivery].done = true;
	call_end(c);
}

void world_done(struct world *w, struct model_message *m, uint32_t delivery)
{
	struct call *c = call_new(w, m, SPOOL_DONE, on_done);

	ASSERT(m->state == MODEL_STORED && !m->deliveries[delivery].done_asked);
	m->deliveries[delivery].done_asked = true;
	c->delivery = delivery;
	c->request.delivery = delivery;
	submit(c);
}

static void on_deferred(struct agent *self, void *object, uint64_t value)
{
	struct spool_request *r = object;
	struct call *c = r->owner;

	(void)value;
	ASSERT(r->result == 0 || atomic_load(&self->runtime->hurry));
	if (r->result == 0) {
		c->model->deliveries[c->delivery].attempts = c->attempts;
	}
	call_end(c);
}

static struct call *state_call(struct world *w, struct model_message *m, uint32_t delivery,
			       uint16_t attempts)
{
	struct call *c = call_new(w, m, SPOOL_STATE, on_deferred);

	ASSERT(m->state == MODEL_STORED && !m->deliveries[delivery].done_asked);
	m->deliveries[delivery].attempts_asked = attempts;
	c->delivery = delivery;
	c->attempts = attempts;
	c->request.delivery = delivery;
	c->request.attempts = attempts;
	c->request.due_ms = m->id.low + attempts * 1000U;
	c->request.pending = recipient_set_first(1);
	c->request.reason = "4.4.1 try later";
	return c;
}

void world_defer(struct world *w, struct model_message *m, uint32_t delivery, uint16_t attempts,
		 uint64_t due_ms)
{
	(void)due_ms;
	submit(state_call(w, m, delivery, attempts));
}

void world_order(struct world *w, struct model_message *m, uint32_t delivery, uint16_t attempts)
{
	struct call *c = state_call(w, m, delivery, attempts);

	m->deliveries[delivery].ordered = attempts;
	c->request.held = true;
	c->request.binding = "other";
	c->request.domain = "there.example";
	submit(c);
}

static void on_loaded(struct agent *self, void *object, uint64_t value)
{
	struct spool_request *r = object;
	struct call *c = r->owner;

	(void)self;
	(void)value;
	c->done = true;
}

int world_load(struct world *w, struct model_message *m)
{
	struct call *c = call_new(w, m, SPOOL_LOAD, on_loaded);
	unsigned char *body = malloc(m->body_bytes + 1);
	int result;

	submit(c);
	for (unsigned i = 0; i < steps_max(w) && !c->done; i++) {
		world_step(w, 1);
	}
	ASSERT(c->done);
	result = c->request.result;
	if (result == 0) {
		const struct content *content = c->request.content;

		ASSERT(content_envelope(content)->id.low == m->id.low);
		ASSERT(content_envelope(content)->delivery_count == m->delivery_count);
		ASSERT(content->body.len == m->body_bytes);
		chain_copy_out(&content->body, 0, body, m->body_bytes);
		for (size_t i = 0; i < m->body_bytes; i++) {
			ASSERT(body[i] == world_body_byte(&m->id, i));
		}
	}
	w->loaded_envelope = c->request.content != NULL;
	content_release(c->request.content, &w->pools);
	free(body);
	call_end(c);
	return result;
}

/* ---- checking ---- */

struct seen {
	const struct world *world;
	/* A bit for each delivery, by place in the list of messages. */
	uint8_t *deliveries;
};

static uint32_t place_of(const struct world *w, const struct model_message *m)
{
	uint32_t i = 0;

	for (const struct model_message *x = w->messages; x != m; x = x->next) {
		i++;
	}
	return i;
}

/* Every delivery of a stored message whose end was not asked for must have been found. */
static long missing(const struct world *w, const uint8_t *seen)
{
	uint32_t place = 0;

	for (const struct model_message *m = w->messages; m != NULL; m = m->next, place++) {
		for (uint32_t i = 0; i < m->delivery_count; i++) {
			if (m->state == MODEL_STORED && m->durability != ENVELOPE_CACHED &&
			    !m->deliveries[i].done_asked && (seen[place] >> i & 1) == 0) {
				fprintf(stderr, "message %llu delivery %u is missing\n",
					(unsigned long long)m->id.low, i);
				return 1;
			}
		}
	}
	return 0;
}

static long check_spool(const struct world *w, struct spool *s, const struct spool_options *o)
{
	static struct agent_ops ops = {.kind = "check", .do_work = client_do_work};
	uint8_t *seen = calloc(w->message_count + 1, 1);
	struct mail_pools pools;
	struct agent agent;
	struct delivery *d;
	long count = 0;

	ASSERT(seen != NULL);
	mail_pools_init(&pools);
	agent_init(&agent, &ops, "check", 0);
	for (uint32_t writer = 0; writer < o->writers; writer++) {
		spool_set_writer(s, writer, &agent);
		ASSERT(store_validate(spool_store(s, writer)));
		while ((d = spool_next_recovered(s, writer, &pools)) != NULL) {
			struct model_message *m;
			const char *wrong = check_delivery(w, d, &m);

			if (wrong != NULL && m != NULL && m->durability != ENVELOPE_CACHED) {
				fprintf(stderr, "message %llu delivery %u: %s\n",
					(unsigned long long)m->id.low, d->index, wrong);
				count = -1000000000;
			} else if (m != NULL) {
				seen[place_of(w, m)] |= (uint8_t)(1U << d->index);
			}
			count++;
			delivery_destroy(d, &pools);
		}
	}
	if (missing(w, seen) != 0) {
		count = -1;
	}
	agent_close(&agent);
	mail_pools_close(&pools);
	free(seen);
	return count < 0 ? -1 : count;
}

long world_check_copy(const struct world *w, const char *path)
{
	struct spool_options options = w->options;
	struct spool_recovery found;
	struct spool *s;
	char *text = NULL;
	size_t len = 0;
	FILE *errors = open_memstream(&text, &len);
	long count;

	options.path = path;
	s = spool_open(&options, errors, &found);
	fclose(errors);
	if (s == NULL) {
		fprintf(stderr, "%s", text);
		free(text);
		return -1;
	}
	count = check_spool(w, s, &options);
	spool_close(s);
	free(text);
	return count;
}

long world_check_power_cut(struct world *w)
{
	char copy[300];
	long count;

	snprintf(copy, sizeof(copy), "%s.cut", w->path);
	disk_power_cut(w->disk, w->path, copy);
	count = world_check_copy(w, copy);
	disk_remove_directory(copy);
	return count;
}

struct find {
	const char *name;
	uint64_t value;
};

static void add_counter(void *context, const char *name, const char *label, enum counter_kind kind,
			uint64_t value)
{
	struct find *f = context;
	const char *dot = strrchr(name, '.');

	(void)label;
	(void)kind;
	if (strncmp(name, "spool.", 6) == 0 && dot != NULL && strcmp(dot + 1, f->name) == 0) {
		f->value += value;
	}
}

uint64_t world_counter(const struct world *w, const char *name)
{
	struct find f = {.name = name};

	(void)w;
	counter_each(add_counter, &f);
	return f.value;
}

struct segment_store *world_store_of(struct world *w, uint32_t writer)
{
	return spool_store(w->spool, writer);
}
