/*
 * A program of a wheel, two schedulers that have real dispatchers but no scheduler agent's logic,
 * and an idle agent in a group of its own; stepped by hand, a millisecond each step.
 *
 * Start reading at set_up(), then at result_of().
 *
 * It defines what the control listener asks of the scheduler agent and the configuration, in place
 * of the library's: for test_control*.c and test_gather.c only, each of which has its own copy.
 * With CONTROL_WORLD_CONFIG the configuration is the library's, a pool of one worker runs, and the
 * second scheduler is in a group behind those of both: step_groups(2) leaves it out. With
 * CONTROL_WORLD_APART it is in a group behind the first one's: step_groups(1) leaves it out.
 */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>

#include "agents/generation.h"
#include "agents/listen_socket.h"
#include "agents/master.h"
#include "agents/wheel.h"
#include "core/queue/throttle.h"
#include "core/runtime/runtime.h"
#include "listeners/control/control.h"

#define SCHEDULERS 2

struct world {
	struct program program;
	struct instant now;
	struct wheel_agent *wheel;
	struct scheduler schedulers[SCHEDULERS];
	struct agent other;
	void *control;
	struct global_options global;
	struct domain_options options;
	struct throttle throttle;
	/* Connections given back, and deliveries that were failed. */
	unsigned closed;
	unsigned failed;
	bool failed_quietly;
	uint64_t ids;
	int client;
	/* The content of what is queued is dropped, and its envelope is here, that of the last. */
	bool on_disk;
	unsigned char *disk;
	/* How reading it back ends, how often that was asked for, and by whom. */
	int load_result;
	unsigned loads;
	loaded_fn on_loaded;
	void *load_owner;
	/* What scheduler_refuses() says. */
	int refuses;
};

static struct world *world;

/* ---- what the control listener asks of the scheduler agent and the configuration ---- */

uint32_t home_of(const struct program *p, const char *binding, const char *domain)
{
	return (uint32_t)(domain_hash(binding, domain, strlen(domain)) % p->scheduler_count);
}

int64_t program_resident_bytes(const struct program *p)
{
	(void)p;
	return 4711;
}

void scheduler_close_accept(struct scheduler *s, struct accept *a)
{
	mux_close(s->base.mux, a->fd);
	free(a);
	world->closed++;
}

static inline void read_disk(struct agent *self, void *unused, uint64_t size)
{
	struct scheduler *s = CONTAINER_OF(self, struct scheduler, base);
	struct content *content = NULL;

	(void)unused;
	if (world->load_result == 0) {
		content = content_create(&s->pools, size);
		memcpy(content->envelope, world->disk, size);
	}
	world->on_loaded(s, world->load_owner, content, world->load_result);
}

void scheduler_load(struct scheduler *s, const struct message *m, loaded_fn on_loaded, void *owner)
{
	world->loads++;
	world->on_loaded = on_loaded;
	world->load_owner = owner;
	agent_send(&s->base, &s->base, read_disk, NULL, m->envelope_bytes);
}

/* Gone by then. */
static inline void find_nothing(struct agent *self, void *owner, uint64_t on_loaded)
{
	loaded_fn fn = (loaded_fn)(uintptr_t)on_loaded;

	fn(CONTAINER_OF(self, struct scheduler, base), owner, NULL, -ENOENT);
}

void scheduler_load_envelope(struct scheduler *s, uint8_t writer, const struct message_id *id,
			     loaded_fn on_loaded, void *owner)
{
	(void)writer;
	(void)id;
	world->loads++;
	agent_send(&s->base, &s->base, find_nothing, owner, (uint64_t)(uintptr_t)on_loaded);
}

int scheduler_refuses(const struct scheduler *s)
{
	(void)s;
	return world->refuses;
}

#ifndef CONTROL_WORLD_CONFIG
#include "tests/unit/control_config.h"

uint32_t config_binding_count(const struct config *config)
{
	(void)config;
	return 0;
}

const struct binding_options *config_binding(const struct config *config, uint32_t index)
{
	(void)config;
	(void)index;
	return NULL;
}

/* Lines by option, so that tests can tell one from the other; what the program has as a whole is by
 * default. */
void config_outbound_origin(const struct config *config, const char *binding, const char *provider,
			    const char *domain, size_t domain_len, const char *option,
			    struct config_origin *origin)
{
	(void)config;
	(void)provider;
	(void)domain_len;
	*origin = (struct config_origin){.file = "test.conf", .line = (uint32_t)strlen(option)};
	snprintf(origin->scope, sizeof(origin->scope), "%s of %s", domain != NULL ? domain : "all",
		 binding);
}

void config_program_origin(const struct config *config, const char *scope, const char *option,
			   struct config_origin *origin)
{
	(void)config;
	(void)scope;
	(void)option;
	*origin = (struct config_origin){.file = "default", .scope = "default"};
}

uint32_t config_control_listen_count(const struct config *config)
{
	(void)config;
	return 0;
}

const struct listen_options *config_control_listen(const struct config *config, uint32_t index)
{
	(void)config;
	(void)index;
	return NULL;
}

uint32_t config_smtp_listen_count(const struct config *config)
{
	(void)config;
	return 0;
}

const struct listen_options *config_smtp_listen(const struct config *config, uint32_t index)
{
	(void)config;
	(void)index;
	return NULL;
}

void config_release(struct config *config)
{
	(void)config;
}

const char *config_path(const struct config *config)
{
	(void)config;
	return "test.conf";
}

void generation_begin(struct program *p, struct generation_change *g)
{
	(void)p;
	(void)g;
	fail();
}

void generation_begin_other(struct program *p, struct generation_change *g,
			    const struct generation_ops *ops)
{
	(void)p;
	(void)g;
	(void)ops;
	fail();
}

void generation_change_close(struct generation_change *g)
{
	(void)g;
}

void generation_taken(struct generation_change *g, struct agent *self)
{
	(void)g;
	(void)self;
}

uint32_t generations_list(const struct program *p, struct generation_fact list[GENERATIONS_MAX])
{
	(void)p;
	list[0] = (struct generation_fact){.number = 1};
	return 1;
}

bool generations_busy(const struct program *p)
{
	(void)p;
	return false;
}
#else
/* Generations are the library's, their master and schedulers are not. */
struct agent *master_agent(struct master *m)
{
	(void)m;
	return &world->schedulers[0].base;
}

void master_on_generation(struct agent *self, void *change, uint64_t unused)
{
	(void)unused;
	generation_taken(change, self);
}

struct listen_sockets *listen_sockets_open(const struct program *p, const struct config *config,
					   const struct config *running, int patience_ms,
					   FILE *errors)
{
	(void)p;
	(void)config;
	(void)running;
	(void)patience_ms;
	(void)errors;
	return calloc(1, 64);
}

void listen_sockets_close(struct listen_sockets *sockets)
{
	free(sockets);
}

void program_find_self(const struct config *config, struct route_self *self)
{
	(void)config;
	*self = (struct route_self){.hostname = "mx.example"};
}

void scheduler_take(struct scheduler *s, struct generation_change *g, struct config *config,
		    const struct route_self *self)
{
	(void)config;
	(void)self;
	generation_taken(g, &s->base);
}
#endif

/* ---- the program ---- */

static inline uint64_t fake_monotonic(void *context)
{
	return ((struct world *)context)->now.mono_ns;
}

static inline uint64_t fake_wall(void *context)
{
	return ((struct world *)context)->now.wall_ns;
}

static inline int no_work(struct agent *self)
{
	(void)self;
	return 0;
}

static const struct agent_ops fake_ops = {.kind = "fake", .do_work = no_work};

static inline void never_resolve(struct dispatcher *x, struct domain *d)
{
	(void)x;
	(void)d;
}

static inline void on_attempt(struct dispatcher *x, struct domain *d, struct delivery *delivery,
			      const struct attempt *attempt)
{
	(void)d;
	assert_int_equal(attempt->code, 554);
	world->failed++;
	world->failed_quietly = delivery->doomed_quiet;
	delivery_destroy(delivery, x->pools);
}

static inline const struct domain_options *options_for(struct dispatcher *x,
						       struct binding_record *binding,
						       const char *domain, const char *provider)
{
	(void)x;
	(void)binding;
	(void)domain;
	(void)provider;
	return &world->options;
}

/* Without a spool: where it was sent it goes at once, if that is here. */
static inline void reorder(struct dispatcher *x, struct delivery *delivery)
{
	struct domain *d = delivery->domain;

	if (delivery->sent_on) {
		d = dispatch_find(x, delivery->route->binding, delivery->route->domain);
		delivery_end_route(delivery);
	}
	if (delivery->held) {
		dispatch_put_held(x, d, delivery);
	} else if (delivery->due_ms != 0) {
		dispatch_delay(x, d, delivery);
	} else {
		dispatch_enqueue(x, d, delivery);
	}
}

static const struct dispatch_ops dispatch_ops = {.resolve = never_resolve,
						 .on_attempt = on_attempt,
						 .options = options_for,
						 .reorder = reorder};

static inline void scheduler_make(uint32_t index, struct group *g)
{
	static const char *const names[SCHEDULERS] = {"scheduler.0", "scheduler.1"};
	struct scheduler *s = &world->schedulers[index];
	struct counter_set *set;

	agent_init(&s->base, &fake_ops, names[index], 2);
	s->program = &world->program;
	s->index = index;
	s->global = &world->global;
	set = s->base.counters;
	s->connections_open = counter_create(set, "inbound.open", COUNTER_GAUGE, "open now");
	s->received = counter_create(set, "received", COUNTER_SUM, "messages");
	s->rejected = counter_create(set, "rejected", COUNTER_SUM, "refused");
	s->delivered = counter_create(set, "delivered", COUNTER_SUM, "recipients");
	s->failed = counter_create(set, "failed", COUNTER_SUM, "recipients");
	s->transient = counter_create(set, "transient", COUNTER_SUM, "recipients");
	mail_pools_init(&s->pools);
	pool_init(&s->requests, "requests", 64, 1);
	log_client_init(&s->log, &s->base, NULL);
	dispatcher_init(&s->dispatcher, &s->base, &dispatch_ops, &s->pools, &world->program.limits);
	world->program.dispatchers[index] = &s->dispatcher;
	dispatcher_join(&s->dispatcher, world->program.dispatchers, SCHEDULERS, index);
	runtime_add(&world->program.runtime, g, &s->base);
	world->program.schedulers[world->program.scheduler_count++] = s;
}

static inline void options_make(void)
{
	world->global = (struct global_options){.hostname = "mx.example",
						.memory_budget_bytes = 1000000,
						.reception_budget_bytes = 500000};
	world->options = (struct domain_options){.max_outbound_connections = 20,
						 .message_expiration_ms = 86400000,
						 .max_recipients_per_batch = 100};
	world->program.limits.connections_max = 1000;
}

static inline void step_groups(uint32_t count, unsigned times)
{
	for (unsigned i = 0; i < times; i++) {
		world->now.mono_ns += NS_PER_MS;
		world->now.wall_ns += NS_PER_MS;
		for (uint32_t g = 0; g < count; g++) {
			group_cycle(world->program.runtime.groups[g]);
		}
	}
}

static inline void step(unsigned times)
{
	step_groups(world->program.runtime.group_count, times);
}

static inline void pass_s(uint64_t seconds)
{
	world->now.mono_ns += seconds * NS_PER_S;
	world->now.wall_ns += seconds * NS_PER_S;
	step(10);
}

/* Connects a client; returns its end. */
static inline int connect_client(void)
{
	struct accept *a = calloc(1, sizeof(*a));
	int pair[2];

	assert_non_null(a);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair),
			 0);
	a->magic = ACCEPT_MAGIC;
	a->fd = pair[0];
	control_listener.serve(&world->schedulers[0], world->control, a);
	return pair[1];
}

#ifdef CONTROL_WORLD_CONFIG
static inline void schedulers_make(struct runtime *rt, struct group *g, const struct idle *idle)
{
	scheduler_make(0, g);
	assert_int_equal(thread_pool_create(&world->program.pool, rt, g, 1, 10, idle), 0);
	scheduler_make(1, runtime_group(rt, "second", -1, idle));
}
#elif defined(CONTROL_WORLD_APART)
static inline void schedulers_make(struct runtime *rt, struct group *g, const struct idle *idle)
{
	scheduler_make(0, g);
	scheduler_make(1, runtime_group(rt, "second", -1, idle));
}
#else
static inline void schedulers_make(struct runtime *rt, struct group *g, const struct idle *idle)
{
	(void)rt;
	(void)idle;
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		scheduler_make(i, g);
	}
}
#endif

static inline int set_up(void **state)
{
	struct runtime *rt;
	struct clock clock;
	struct idle idle = {.kind = IDLE_NOOP};
	struct group *g;

	(void)state;
	world = aligned_alloc(64, (sizeof(*world) + 63) & ~(size_t)63);
	memset(world, 0, sizeof(*world));
	clock = (struct clock){fake_monotonic, fake_wall, world};
	rt = &world->program.runtime;
	world->now = (struct instant){100 * NS_PER_S, 1700000000 * NS_PER_S};
	options_make();
	runtime_init(rt, &clock);
	rt->backend = MUX_POLL;
	g = runtime_group(rt, "main", -1, &idle);
	world->wheel = wheel_agent_create("wheel");
	runtime_add(rt, g, wheel_agent_base(world->wheel));
	runtime_set_wheel(rt, wheel_agent_base(world->wheel), wheel_agent_on_arm);
	schedulers_make(rt, g, &idle);
	agent_init(&world->other, &fake_ops, "worker.0", 6);
	runtime_add(rt, runtime_group(rt, "worker", 3, &idle), &world->other);
	assert_int_equal(runtime_prepare(rt), 0);
	assert_int_equal(runtime_invoke_start(rt), 0);
	step(2);
	assert_int_equal(control_listener.open(&world->schedulers[0], &world->control), 0);
	world->client = connect_client();
	return 0;
}

static inline int tear_down(void **state)
{
	struct runtime *rt = &world->program.runtime;

	(void)state;
	close(world->client);
	control_listener.stop(&world->schedulers[0], world->control, true);
	step(10);
	assert_true(control_listener.drained(&world->schedulers[0], world->control));
	control_listener.close(&world->schedulers[0], world->control);
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		struct scheduler *s = &world->schedulers[i];

		agent_current = &s->base;
		dispatcher_drop(&s->dispatcher);
		dispatcher_close(&s->dispatcher);
		agent_current = NULL;
	}
	assert_true(runtime_invoke_stop(rt, 200));
	runtime_close(rt);
	for (uint32_t i = 0; i < SCHEDULERS; i++) {
		struct scheduler *s = &world->schedulers[i];

		mail_pools_close(&s->pools);
		pool_close(&s->requests);
		log_client_close(&s->log);
		agent_close(&s->base);
	}
	agent_close(&world->other);
	if (world->program.pool != NULL) {
		thread_pool_destroy(world->program.pool);
	}
	wheel_agent_destroy(world->wheel);
	free(world->disk);
	free(world);
	return 0;
}

/* ---- mail ---- */

static inline struct scheduler *home_by(const char *binding, const char *domain)
{
	return &world->schedulers[home_of(&world->program, binding, domain)];
}

static inline struct scheduler *home(const char *domain)
{
	return home_by(BINDING_DEFAULT, domain);
}

static inline struct domain *record_by(const char *binding, const char *domain)
{
	struct domain *d =
		domain_find(&home_by(binding, domain)->dispatcher.domains, binding, domain);

	assert_non_null(d);
	return d;
}

static inline struct domain *record(const char *domain)
{
	return record_by(BINDING_DEFAULT, domain);
}

static inline void move_to_disk(struct delivery *d, struct mail_pools *pools)
{
	size_t size = d->message->envelope_bytes;

	free(world->disk);
	world->disk = malloc(size);
	assert_non_null(world->disk);
	memcpy(world->disk, d->message->content->envelope, size);
	assert_true(delivery_give_up_content(d, pools));
}

/* Queues a message with `recipients` of `domain`; `due_s` from now, 0: active. Returns its id. */
static inline struct message_id queue_mail_by(const char *binding, const char *domain,
					      unsigned recipients, uint64_t due_s)
{
	struct scheduler *s = home_by(binding, domain);
	struct envelope_builder b;
	struct message *m;
	struct envelope *e;
	struct delivery *d;
	struct message_id id;
	char address[300];

	envelope_builder_init(&b);
	envelope_set_sender(&b, "sender@here.example", 19);
	for (unsigned i = 0; i < recipients; i++) {
		int len = snprintf(address, sizeof(address), "r%03u@%s", i, domain);

		assert_true(envelope_add_recipient(&b, address, (size_t)len));
	}
	m = message_create(&s->pools, envelope_size(&b));
	e = message_envelope(m);
	envelope_build(&b, e);
	envelope_builder_close(&b);
	e->id = (struct message_id){0x123456789abc0001, ++world->ids};
	e->received_ms = world->now.wall_ns / NS_PER_MS;
	e->body_bytes = 2048;
	agent_current = &s->base;
	message_seal(m);
	message_use_content(m, 1);
	d = delivery_create(&s->pools, m, 0);
	d->uses_content = true;
	id = m->id;
	d->due_ms = due_s != 0 ? e->received_ms + due_s * 1000 : 0;
	if (world->on_disk) {
		move_to_disk(d, &s->pools);
	}
	if (due_s != 0) {
		d->attempts = 1;
		d->last_text = strdup("451 4.2.0 greylisted");
		dispatch_delay(&s->dispatcher, dispatch_find(&s->dispatcher, binding, domain), d);
	} else {
		dispatch_enqueue(&s->dispatcher, dispatch_find(&s->dispatcher, binding, domain), d);
	}
	agent_current = NULL;
	return id;
}

static inline struct message_id queue_mail(const char *domain, unsigned recipients, uint64_t due_s)
{
	return queue_mail_by(BINDING_DEFAULT, domain, recipients, due_s);
}

/* ---- the conversation ---- */

static inline void tell(int client, const char *text)
{
	assert_int_equal(write(client, text, strlen(text)), strlen(text));
}

/* The next answer, stepping until it is there; NULL when the connection was closed. */
static inline json_t *hear(int client)
{
	static char line[8 << 20];
	size_t len = 0;
	json_t *answer;

	for (unsigned idle = 0; idle < 3000; idle++) {
		ssize_t n = recv(client, line + len, 1, 0);

		if (n == 0) {
			return NULL;
		}
		if (n < 0) {
			step(1);
			continue;
		}
		idle = 0;
		if (line[len++] == '\n') {
			answer = json_loadb(line, len, 0, NULL);
			assert_non_null(answer);
			return answer;
		}
		assert_true(len < sizeof(line));
	}
	fail_msg("no answer");
	return NULL;
}

static inline json_t *ask(const char *command)
{
	tell(world->client, command);
	tell(world->client, "\n");
	return hear(world->client);
}

/* The result of a command that succeeds; the caller's. */
static inline json_t *result_of(const char *command)
{
	json_t *answer = ask(command);
	json_t *result;

	assert_non_null(answer);
	if (!json_is_true(json_object_get(answer, "ok"))) {
		fail_msg("%s: %s", command, json_string_value(json_object_get(answer, "error")));
	}
	result = json_incref(json_object_get(answer, "result"));
	json_decref(answer);
	assert_non_null(result);
	return result;
}

static inline void assert_error(const char *command, const char *part)
{
	json_t *answer = ask(command);

	assert_non_null(answer);
	assert_true(json_is_false(json_object_get(answer, "ok")));
	if (strstr(json_string_value(json_object_get(answer, "error")), part) == NULL) {
		fail_msg("%s: %s", command, json_string_value(json_object_get(answer, "error")));
	}
	json_decref(answer);
}

/* By a path such as "queue.active" or "limits.2.value". */
static inline const json_t *at(const json_t *value, const char *path)
{
	char copy[128];
	char *rest = copy;
	char *name;

	snprintf(copy, sizeof(copy), "%s", path);
	while ((name = strsep(&rest, ".")) != NULL) {
		value = json_is_array(value) ? json_array_get(value, strtoul(name, NULL, 10))
					     : json_object_get(value, name);
		if (value == NULL) {
			fail_msg("no %s in %s", name, path);
		}
	}
	return value;
}

static inline long long number_at(const json_t *value, const char *path)
{
	assert_true(json_is_integer(at(value, path)));
	return json_integer_value(at(value, path));
}

static inline const char *text_at(const json_t *value, const char *path)
{
	assert_true(json_is_string(at(value, path)));
	return json_string_value(at(value, path));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
