#include "agents/generation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "agents/listen_socket.h"
#include "agents/master.h"
#include "core/runtime/check.h"

/* One that is alive, with what depends on it; stays where it is, as readers have it. */
READONLY
struct generation {
	struct config *config;
	struct route_self self;
	/* When nobody has it any more: its end. */
	struct job burial;
};

struct generations {
	struct program *program;
	/* The newest is the last. */
	struct generation *list[GENERATIONS_MAX];
	uint32_t count;
	/* The last of the list, for the crew, which makes schedulers elsewhere. */
	_Atomic(const struct generation *) newest;
	uint64_t number;
	/* Under way, and what waits. */
	struct generation_change *running;
	struct generation_change *first;
	struct generation_change *last;
	struct counter *loaded;
	struct counter *refused;
	struct counter *alive;
	struct counter *newest_number;
};

static const struct generation_ops config_ops;
static void next_change(struct generations *gs);

static struct scheduler *first_of(const struct program *p)
{
	return p->schedulers[0];
}

/* ---- those that are alive ---- */

static void add(struct generations *gs, struct config *config, const struct route_self *self,
		uint64_t since_ms)
{
	ASSERT(gs->count < GENERATIONS_MAX);
	config_set_number(config, ++gs->number, since_ms);
	gs->list[gs->count] = check_memory(calloc(1, sizeof(struct generation)),
					   "a generation of the configuration");
	*gs->list[gs->count] = (struct generation){.config = config, .self = *self};
	atomic_store(&gs->newest, gs->list[gs->count++]);
	gs->program->config = config;
}

/* All but itself. */
static void release(struct generation *g)
{
	config_release(g->config);
	free((struct route_listen *)g->self.listens);
}

static void bury_work(struct job *job)
{
	release(CONTAINER_OF(job, struct generation, burial));
}

static void on_buried(struct agent *self, struct job *job, int result)
{
	struct generation *g = CONTAINER_OF(job, struct generation, burial);

	(void)self;
	if (result != 0) {
		/* The pool has too much to do. */
		release(g);
	}
	free(g);
}

/* To free a large one takes long: a worker does it. */
static void bury(struct generations *gs, struct generation *g)
{
	struct program *p = gs->program;

	if (p->pool == NULL || first_of(p)->stopping) {
		release(g);
		free(g);
		return;
	}
	g->burial = (struct job){.work = bury_work, .on_done = on_buried};
	thread_pool_run(p->pool, &first_of(p)->base, &g->burial);
}

static void show_counts(struct generations *gs)
{
	counter_set_value(gs->alive, gs->count);
	counter_set_value(gs->newest_number, gs->number);
}

int generations_do_work(struct program *p)
{
	struct generations *gs = p->generations;
	uint32_t kept = 0;
	int work = 0;

	if (gs == NULL || gs->count <= 1) {
		return 0;
	}
	for (uint32_t i = 0; i < gs->count; i++) {
		struct generation *g = gs->list[i];

		if (i + 1 < gs->count && config_references(g->config) == 1) {
			bury(gs, g);
			work++;
		} else {
			gs->list[kept++] = g;
		}
	}
	gs->count = kept;
	if (work != 0) {
		show_counts(gs);
	}
	return work;
}

uint32_t generations_list(const struct program *p, struct generation_fact list[GENERATIONS_MAX])
{
	const struct generations *gs = p->generations;

	for (uint32_t i = 0; i < gs->count; i++) {
		const struct config *config = gs->list[gs->count - 1 - i]->config;

		list[i] = (struct generation_fact){
			.number = config_number(config),
			.since_ms = config_since_ms(config),
			.readers = config_references(config) - 1,
		};
	}
	return gs->count;
}

bool generations_busy(const struct program *p)
{
	return p->generations->running != NULL;
}

const struct route_self *generations_self(const struct program *p)
{
	return &atomic_load(&p->generations->newest)->self;
}

/* ---- one change ---- */

static void end(struct generation_change *g)
{
	struct generations *gs = g->program->generations;

	gs->running = NULL;
	counter_inc(g->result == 0 ? gs->loaded : gs->refused);
	if (g->ops->free != NULL) {
		g->ops->free(g);
	}
	/* What it alone may change, such as what the console has set, is ready for the next one. */
	g->on_done(g);
	next_change(gs);
}

/* Nothing has changed. */
static void fail(struct generation_change *g, int result, const char *why)
{
	g->result = result;
	if (why != NULL) {
		free(g->messages);
		g->messages = strdup(why);
	}
	end(g);
}

/* On the first scheduler. */
static void on_taken(struct agent *self, void *object, uint64_t unused)
{
	struct generation_change *g = object;

	(void)self;
	(void)unused;
	ASSERT(g->waiting > 0);
	if (--g->waiting == 0) {
		end(g);
	}
}

void generation_taken(struct generation_change *g, struct agent *self)
{
	agent_send(self, &first_of(g->program)->base, on_taken, g, 0);
}

static void on_warning(struct agent *self, void *object, uint64_t text)
{
	struct generation_change *g = object;
	char *line = (char *)(uintptr_t)text;
	size_t len = g->messages != NULL ? strlen(g->messages) : 0;
	char *all = check_memory(realloc(g->messages, len + strlen(line) + 2), "a warning");

	(void)self;
	sprintf(all + len, "%s\n", line);
	g->messages = all;
	free(line);
}

void generation_warn(struct generation_change *g, struct agent *self, const char *line)
{
	char *copy = check_memory(strdup(line), "a warning");

	agent_send(self, &first_of(g->program)->base, on_warning, g, (uint64_t)(uintptr_t)copy);
}

static void on_take(struct agent *self, void *object, uint64_t unused)
{
	struct generation_change *g = object;

	(void)unused;
	g->ops->take(g, CONTAINER_OF(self, struct scheduler, base));
}

static void tell_readers(struct generation_change *g)
{
	struct program *p = g->program;
	struct agent *self = &first_of(p)->base;

	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		/* Who has left, or is about to, takes none; who comes back has the newest. */
		if (agent_reaches(self, &p->schedulers[i]->base)) {
			g->waiting++;
			agent_send(self, &p->schedulers[i]->base, on_take, g, 0);
		}
	}
}

static void on_prepared(struct agent *self, struct job *job, int result)
{
	struct generation_change *g = CONTAINER_OF(job, struct generation_change, job);

	(void)self;
	if (result != 0) {
		fail(g, -EAGAIN, "too many tasks wait (pool backlog)\n");
	} else if (g->result != 0) {
		fail(g, g->result, NULL);
	} else if (first_of(g->program)->stopping) {
		fail(g, -ECANCELED, "the program stops\n");
	} else if (g->ops->publish(g)) {
		tell_readers(g);
	} else {
		end(g);
	}
}

static void prepare(struct job *job)
{
	struct generation_change *g = CONTAINER_OF(job, struct generation_change, job);
	size_t len;
	FILE *errors = check_memory(open_memstream(&g->messages, &len),
				    "a generation of the configuration");

	g->result = g->ops->prepare(g, g->program->config, errors) ? 0 : -EINVAL;
	fclose(errors);
}

static void on_refused(struct agent *self, void *object, uint64_t result)
{
	struct generation_change *g = object;

	(void)self;
	fail(g, -(int)result,
	     result == EAGAIN ? "as many generations are in use as there may be; expected sessions "
				"and connections that have them to end\n"
			      : "no thread pool runs, or the program stops\n");
}

static void next_change(struct generations *gs)
{
	struct program *p = gs->program;
	struct generation_change *g = gs->first;
	struct agent *self = &first_of(p)->base;

	if (g == NULL || gs->running != NULL) {
		return;
	}
	gs->first = g->next;
	gs->last = gs->first != NULL ? gs->last : NULL;
	gs->running = g;
	if (p->pool == NULL || first_of(p)->stopping) {
		agent_send(self, self, on_refused, g, ECANCELED);
	} else if (g->ops == &config_ops && gs->count >= GENERATIONS_MAX) {
		agent_send(self, self, on_refused, g, EAGAIN);
	} else {
		g->job = (struct job){.work = prepare, .on_done = on_prepared};
		thread_pool_run(p->pool, self, &g->job);
	}
}

void generation_begin_other(struct program *p, struct generation_change *g,
			    const struct generation_ops *ops)
{
	struct generations *gs = p->generations;

	g->result = 0;
	g->messages = NULL;
	g->number = 0;
	g->kept = NULL;
	g->ops = ops;
	g->program = p;
	g->next = NULL;
	g->config = NULL;
	g->sockets = NULL;
	g->waiting = 0;
	if (gs->last != NULL) {
		gs->last->next = g;
	} else {
		gs->first = g;
	}
	gs->last = g;
	next_change(gs);
}

void generation_change_close(struct generation_change *g)
{
	free(g->messages);
	config_kept_free(g->kept);
	g->messages = NULL;
	g->kept = NULL;
}

/* ---- the configuration ---- */

static bool prepare_config(struct generation_change *g, struct config *running, FILE *errors)
{
	struct program *p = g->program;
	struct config *fresh = g->load != NULL ? g->load(g, running, errors)
					       : config_load_again(running, &p->overlay, errors);

	if (fresh == NULL) {
		return false;
	}
	if (p->check != NULL && !p->check(fresh, errors)) {
		config_release(fresh);
		return false;
	}
	fresh = config_follow(fresh, running, &g->kept, errors);
	if (fresh == NULL) {
		return false;
	}
	if (config_tls_open(fresh, errors) == 0) {
		g->sockets =
			listen_sockets_open(p, fresh, running, LISTEN_AGAIN_PATIENCE_MS, errors);
	}
	if (g->sockets == NULL) {
		config_release(fresh);
		return false;
	}
	program_find_self(fresh, &g->self);
	g->reroutes = !config_providers_agree(running, fresh);
	g->config = fresh;
	return true;
}

/* What all schedulers share, at once. */
static void publish_limits(struct program *p, const struct config *config)
{
	const struct global_options *o = config_global(config);

	atomic_store_explicit(&p->limits.connections_max, o->server_max_outbound_connections,
			      memory_order_relaxed);
	atomic_store_explicit(&p->limits.loaded_max, o->memory_budget_bytes, memory_order_relaxed);
	atomic_store_explicit(&p->runtime.stop_timeout_ns, o->stop_timeout_ms * NS_PER_MS,
			      memory_order_relaxed);
	config_apply_throttles(config, first_of(p)->base.now.mono_ns);
}

static bool publish_config(struct generation_change *g)
{
	struct program *p = g->program;
	struct generations *gs = p->generations;
	struct config *before = p->config;

	add(gs, g->config, &g->self, agent_wall_ms(&first_of(p)->base));
	g->self_of = generations_self(p);
	g->number = gs->number;
	show_counts(gs);
	publish_limits(p, g->config);
	g->waiting = 1;
	agent_send(&first_of(p)->base, master_agent(p->master), master_on_generation, g, 0);
	/* Until that is done no other generation comes: who joins meanwhile has this one. */
	if (p->on_agents_changed != NULL && p->on_agents_changed(p, before, g->config, g)) {
		g->waiting++;
	}
	return true;
}

static void take_config(struct generation_change *g, struct scheduler *s)
{
	scheduler_take(s, g, g->config, g->self_of);
}

static void free_config(struct generation_change *g)
{
	listen_sockets_close(g->sockets);
	g->sockets = NULL;
	if (g->number == 0 && g->config != NULL) {
		/* It did not become one. */
		struct generation *gone =
			check_memory(calloc(1, sizeof(*gone)), "a generation of the configuration");

		*gone = (struct generation){.config = g->config, .self = g->self};
		bury(g->program->generations, gone);
	}
}

static const struct generation_ops config_ops = {
	.prepare = prepare_config,
	.publish = publish_config,
	.take = take_config,
	.free = free_config,
};

void generation_begin(struct program *p, struct generation_change *g)
{
	generation_begin_other(p, g, &config_ops);
}

/* ---- SIGHUP ---- */

static void log_lines(struct agent *self, const char *lines)
{
	for (const char *at = lines; at != NULL && *at != '\0'; at += strspn(at, "\n")) {
		size_t len = strcspn(at, "\n");

		agent_error(self, 0, "configuration: %.*s", (int)len, at);
		at += len;
	}
}

static void on_hangup_done(struct generation_change *g)
{
	struct agent *self = &first_of(g->program)->base;

	log_lines(self, g->messages);
	if (g->result != 0) {
		agent_error(self, 0, "the configuration was not reloaded, nothing has changed");
	}
	for (const struct config_kept *k = g->kept; k != NULL; k = k->next) {
		agent_error(self, 0, "%s: %s of %s takes effect with a restart only", k->place,
			    k->option[0] != '\0' ? k->option : "the presence", k->scope);
	}
	generation_change_close(g);
	free(g);
}

void generations_on_hangup(struct agent *self, void *program, uint64_t unused)
{
	struct generation_change *g =
		check_memory(calloc(1, sizeof(*g)), "a generation of the configuration");

	(void)self;
	(void)unused;
	g->on_done = on_hangup_done;
	generation_begin(program, g);
}

/* ---- life ---- */

struct generations *generations_create(struct program *p)
{
	struct generations *gs =
		check_memory(calloc(1, sizeof(*gs)), "a generation of the configuration");
	struct route_self self;

	gs->program = p;
	program_find_self(p->config, &self);
	add(gs, p->config, &self, 0);
	return gs;
}

void generations_open(struct program *p, uint64_t now_ms)
{
	struct generations *gs = p->generations;
	struct counter_set *set = first_of(p)->base.counters;

	config_set_number(p->config, gs->number, now_ms);
	gs->loaded = counter_create(set, "config.changes", COUNTER_SUM,
				    "Times the configuration, or keys of it, were reloaded");
	gs->refused = counter_create(set, "config.refused", COUNTER_SUM,
				     "... that failed, and changed nothing");
	gs->alive = counter_create(set, "config.generations", COUNTER_GAUGE,
				   "Generations of the configuration that somebody has");
	gs->newest_number = counter_create(set, "config.generation", COUNTER_GAUGE,
					   "Number of the newest generation");
	show_counts(gs);
}

void generations_destroy(struct generations *gs)
{
	if (gs == NULL) {
		return;
	}
	for (uint32_t i = 0; i < gs->count; i++) {
		release(gs->list[i]);
		free(gs->list[i]);
	}
	free(gs);
}
