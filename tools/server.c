#include "tools/server.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "agents/crew.h"
#include "agents/generation.h"
#include "agents/lock_keeper.h"
#include "agents/log_writer.h"
#include "agents/master.h"
#include "agents/scheduler.h"
#include "agents/spool_writer.h"
#include "agents/sts.h"
#include "agents/thread_pool.h"
#include "agents/wheel.h"
#include "listeners/control/control.h"
#include "listeners/http/http.h"
#include "listeners/smtp/listener.h"

#define NAME_MAX_LEN 32
#define WRITERS_MAX 16

/* Everything that is made at start and taken down again. */
SINGLE
struct server {
	struct program program;
	FILE *errors;
	struct log_writer *log;
	struct wheel_agent *wheel;
	struct spool_writer *writers[WRITERS_MAX];
	uint32_t writer_count;
	char names[SCHEDULERS_MAX + WRITERS_MAX][NAME_MAX_LEN];
	uint32_t name_count;
	/* The last change of agents could not be made in full: what runs is not what the newest
	 * generation says. The first scheduler's. */
	bool agents_amiss;
	/* Where policies of MTA-STS are kept. */
	char policies[PATH_MAX];
};

static const struct listener_ops *const listeners[] = {&smtp_listener, &control_listener,
						       &http_listener};

static struct idle idle_from(const struct idle_options *o)
{
	static const enum idle_kind kinds[] = {
		[CONFIG_IDLE_BUSY_SPIN] = IDLE_BUSY_SPIN, [CONFIG_IDLE_YIELD] = IDLE_YIELD,
		[CONFIG_IDLE_BACKOFF] = IDLE_BACKOFF,     [CONFIG_IDLE_SLEEP] = IDLE_SLEEP,
		[CONFIG_IDLE_NOOP] = IDLE_NOOP,           [CONFIG_IDLE_PARK] = IDLE_PARK,
	};

	return (struct idle){
		.kind = kinds[o->strategy],
		.max_spins = o->max_spins,
		.max_yields = o->max_yields,
		.min_park_ns = o->min_park_ns,
		.max_park_ns = o->max_park_ns,
		.spin_ns = o->spin_ns,
		.coalesce_ns = o->coalesce_ns,
		.sleep_ns = o->sleep_ns,
	};
}

/* The group that the configuration gives to one agent of a kind: a named one that it shares, or one
 * of its own. */
static struct group *group_for(struct server *s, enum config_agent kind, uint32_t index,
			       const char *name)
{
	struct runtime *rt = &s->program.runtime;
	const struct agent_options *o = config_agent(s->program.config, kind);
	const struct group_options *shared;
	struct group *g;
	struct idle idle;

	if (o->group == NULL) {
		idle = idle_from(&o->idle);
		return runtime_group(rt, name, o->cores[index], &idle);
	}
	g = runtime_find_group(rt, o->group);
	if (g != NULL) {
		return g;
	}
	shared = config_group(s->program.config, o->group);
	ASSERT(shared != NULL);
	idle = idle_from(&shared->idle);
	return runtime_group(rt, shared->name, shared->core, &idle);
}

static const char *make_name(struct server *s, const char *kind, uint32_t index)
{
	char *name = s->names[s->name_count++];

	snprintf(name, NAME_MAX_LEN, "%s.%u", kind, index);
	return name;
}

static void *make_aligned(size_t size)
{
	void *object =
		aligned_alloc(CACHE_LINE, (size + CACHE_LINE - 1) & ~(size_t)(CACHE_LINE - 1));

	if (object == NULL) {
		fatal("out of memory at start");
	}
	memset(object, 0, size);
	return object;
}

/* ---- files ---- */

static bool open_spool(struct server *s)
{
	const struct global_options *g = config_global(s->program.foundation);
	struct spool_recovery found;
	struct spool_options options = {
		.path = g->spool_path,
		.writers = config_agent(s->program.foundation, CONFIG_AGENT_SPOOL)->count,
		.segment_bytes = g->spool_segment_bytes,
		.min_free_bytes = g->spool_min_free_bytes,
		.compact_percent = g->spool_compact_percent,
		.spare_segments = g->spool_spare_segments,
	};

	s->program.spool = spool_open(&options, s->errors, &found);
	if (s->program.spool == NULL) {
		return false;
	}
	s->writer_count = options.writers;
	fprintf(s->errors,
		"flywheeld: spool %s: %llu messages with %llu deliveries recovered from %llu "
		"segments (%llu scanned, %llu bytes torn, %llu records damaged)\n",
		options.path, (unsigned long long)found.messages,
		(unsigned long long)found.deliveries, (unsigned long long)found.segments,
		(unsigned long long)found.segments_scanned, (unsigned long long)found.torn_bytes,
		(unsigned long long)found.damaged_records);
	return true;
}

static struct log_rotation rotation_from(const struct global_options *g)
{
	static const enum log_period periods[] = {
		[CONFIG_LOG_NEVER] = LOG_PERIOD_NEVER,
		[CONFIG_LOG_HOURLY] = LOG_PERIOD_HOURLY,
		[CONFIG_LOG_DAILY] = LOG_PERIOD_DAILY,
	};
	static const enum log_compress kinds[] = {
		[CONFIG_LOG_PLAIN] = LOG_COMPRESS_NONE,
		[CONFIG_LOG_ZSTD] = LOG_COMPRESS_ZSTD,
		[CONFIG_LOG_GZIP] = LOG_COMPRESS_GZIP,
	};

	return (struct log_rotation){
		.period = periods[g->log_rotate],
		.size_max = g->log_rotate_size,
		.archive = {.compress = kinds[g->log_compress], .keep = g->log_keep},
	};
}

static bool open_log(struct server *s)
{
	const struct global_options *g = config_global(s->program.foundation);
	struct log_options options = {
		.path = g->log_path,
		.heartbeat_ms = g->log_heartbeat_ms,
		.rotation = rotation_from(g),
		.logs = g->logs,
		.transient_failures = g->log_transient_failures,
		.rules = s->program.bounce_rules,
	};

	options.custom = config_custom_loggers(s->program.foundation, &options.custom_count);
	options.journals = config_journals(s->program.foundation, &options.journal_count);
	s->log = log_writer_create("log", &options, s->errors);
	if (s->log != NULL) {
		s->program.log = log_writer_agent(s->log);
	}
	return s->log != NULL;
}

static bool load_bounce_rules(struct server *s)
{
	const char *path = config_global(s->program.foundation)->bounce_rules_path;

	s->program.bounce_rules = bounce_rules_load(path, s->errors);
	return s->program.bounce_rules != NULL;
}

/* ---- agents ---- */

static void on_recovered(struct agent *self, void *context, struct delivery *delivery)
{
	scheduler_send_home(context, self, delivery);
}

static void add_schedulers(struct server *s)
{
	struct program *p = &s->program;

	p->scheduler_count = config_agent(p->config, CONFIG_AGENT_SCHEDULER)->count;
	p->home_count = p->scheduler_count;
	ASSERT(p->scheduler_count <= SCHEDULERS_MAX);
	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		const char *name = make_name(s, "scheduler", i);

		p->schedulers[i] = make_aligned(sizeof *p->schedulers[i]);
		scheduler_init(p->schedulers[i], name, p, i);
	}
	p->crew = crew_create(p);
}

/* The master comes first, as the first group runs on the first thread. */
static void compose(struct server *s)
{
	struct program *p = &s->program;
	struct runtime *rt = &p->runtime;
	struct group *first;
	struct group *names;

	first = config_agent(p->foundation, CONFIG_AGENT_MASTER)->group == NULL
			? group_for(s, CONFIG_AGENT_SCHEDULER, 0, p->schedulers[0]->base.name)
			: group_for(s, CONFIG_AGENT_MASTER, 0, "master");
	runtime_add(rt, first, master_agent(p->master));
	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		const char *name = p->schedulers[i]->base.name;
		struct group *g = runtime_find_group(rt, name);

		runtime_add(rt, g != NULL ? g : group_for(s, CONFIG_AGENT_SCHEDULER, i, name),
			    &p->schedulers[i]->base);
	}
	for (uint32_t i = 0; i < s->writer_count; i++) {
		const char *name = make_name(s, "spool", i);

		s->writers[i] = make_aligned(sizeof *s->writers[i]);
		spool_writer_init(s->writers[i], name, p->spool, i, on_recovered, p);
		runtime_add(rt, group_for(s, CONFIG_AGENT_SPOOL, i, name), &s->writers[i]->base);
	}
	s->wheel = wheel_agent_create("wheel");
	runtime_add(rt, group_for(s, CONFIG_AGENT_WHEEL, 0, "wheel"), wheel_agent_base(s->wheel));
	runtime_set_wheel(rt, wheel_agent_base(s->wheel), wheel_agent_on_arm);
	runtime_add(rt, group_for(s, CONFIG_AGENT_LOG, 0, "log"), p->log);
	names = group_for(s, CONFIG_AGENT_RESOLVER, 0, "resolver");
	runtime_add(rt, names, resolver_agent(p->resolver));
	runtime_add(rt, names, sts_agent(p->sts));
}

/* The pool hands out; its workers, each with a thread of its own, are what has cores. */
static int add_pool(struct server *s)
{
	struct program *p = &s->program;
	const struct agent_options *o = config_agent(p->config, CONFIG_AGENT_POOL);
	struct group *g = group_for(s, CONFIG_AGENT_POOL, 0, "pool");
	struct idle idle = {.kind = IDLE_PARK};
	int rc = thread_pool_create(&p->pool, &p->runtime, g, o->count,
				    config_global(p->foundation)->pool_backlog, &idle);

	for (uint32_t i = 0; rc == 0 && i < o->count; i++) {
		char name[NAME_MAX_LEN];

		snprintf(name, sizeof name, "worker.%u", i);
		runtime_find_group(&p->runtime, name)->core = o->cores[i];
	}
	resolver_set_pool(p->resolver, p->pool);
	sts_set_helpers(p->sts, p->resolver, p->pool);
	log_writer_set_jobs(s->log, p->pool);
	return rc;
}

static void set_up_runtime(struct server *s, const struct clock *clock)
{
	static const enum mux_backend backends[] = {
		[CONFIG_MUX_AUTO] = MUX_AUTO,
		[CONFIG_MUX_URING] = MUX_URING,
		[CONFIG_MUX_EPOLL] = MUX_EPOLL,
		[CONFIG_MUX_POLL] = MUX_POLL,
	};
	const struct global_options *g = config_global(s->program.foundation);
	struct runtime *rt = &s->program.runtime;

	runtime_init(rt, clock);
	rt->backend = backends[g->multiplexor];
	rt->ring_slots = g->ring_slots;
	rt->stall_ns = g->stall_ns;
	rt->stop_timeout_ns = g->stop_timeout_ms * NS_PER_MS;
	s->program.limits.connections_max =
		config_global(s->program.config)->server_max_outbound_connections;
	s->program.limits.loaded_max = config_global(s->program.config)->memory_budget_bytes;
	s->program.epoch = clock->wall_ns(clock->context) / NS_PER_S << 24;
	if (s->program.epoch <= spool_highest_id(s->program.spool)) {
		s->program.epoch = spool_highest_id(s->program.spool) + 1;
	}
}

/* ---- agents that change ---- */

/* Agents of a kind that are on a thread of their group. */
static uint32_t group_share(const struct config *config, int kind, const char *group)
{
	const struct agent_options *o = config_agent(config, (enum config_agent)kind);
	const char *its = o->group;

	/* Without a group the master is with the first scheduler. */
	if (kind == CONFIG_AGENT_MASTER && its == NULL) {
		its = config_agent(config, CONFIG_AGENT_SCHEDULER)->group;
	}
	if (its == NULL || strcmp(its, group) != 0) {
		return 0;
	}
	/* Workers of the pool have threads of their own; who knows of MTA-STS is with the resolver.
	 */
	return kind == CONFIG_AGENT_POOL ? 1 : kind == CONFIG_AGENT_RESOLVER ? 2 : o->count;
}

static uint32_t group_agents(const struct config *config, const char *name)
{
	uint32_t sum = 0;

	for (int kind = 0; kind < CONFIG_AGENTS; kind++) {
		sum += group_share(config, kind, name);
	}
	return sum;
}

static struct crew_thread *plan_thread(struct crew_plan *plan, int core,
				       const struct idle_options *idle)
{
	struct crew_thread *t = &plan->threads[plan->thread_count++];

	ASSERT(plan->thread_count <= CREW_THREADS_MAX);
	t->core = core;
	t->idle = idle_from(idle);
	return t;
}

/* Threads of agents that have one for themselves; scheduler's come and go. */
static void plan_agents(struct crew_plan *plan, const struct config *config)
{
	static const char *const names[CONFIG_AGENTS] = {
		[CONFIG_AGENT_MASTER] = "master", [CONFIG_AGENT_SPOOL] = "spool.",
		[CONFIG_AGENT_WHEEL] = "wheel",   [CONFIG_AGENT_LOG] = "log",
		[CONFIG_AGENT_POOL] = "pool",     [CONFIG_AGENT_RESOLVER] = "resolver",
	};

	for (int kind = 0; kind < CONFIG_AGENTS; kind++) {
		const struct agent_options *o = config_agent(config, (enum config_agent)kind);
		bool numbered = kind == CONFIG_AGENT_SPOOL;

		if (kind == CONFIG_AGENT_SCHEDULER || o->group != NULL) {
			continue;
		}
		for (uint32_t i = 0; i < (numbered ? o->count : 1); i++) {
			struct crew_thread *t = plan_thread(plan, o->cores[i], &o->idle);

			snprintf(t->name, sizeof t->name, numbered ? "%s%u" : "%s", names[kind], i);
		}
	}
}

static void plan_workers(struct crew_plan *plan, const struct config *config)
{
	static const struct idle_options idle = {.strategy = CONFIG_IDLE_PARK};
	const struct agent_options *o = config_agent(config, CONFIG_AGENT_POOL);

	for (uint32_t i = 0; i < o->count; i++) {
		snprintf(plan_thread(plan, o->cores[i], &idle)->name, CREW_NAME_MAX, "worker.%u",
			 i);
	}
}

void server_set_agents(struct server *s, const struct config *config, struct agent *self,
		       crew_done_fn done, void *context)
{
	const struct agent_options *o = config_agent(config, CONFIG_AGENT_SCHEDULER);
	struct crew_plan plan = {.schedulers = o->count, .idle = idle_from(&o->idle)};

	memcpy(plan.cores, o->cores, o->count * sizeof plan.cores[0]);
	if (o->group != NULL) {
		snprintf(plan.group, sizeof plan.group, "%s", o->group);
	}
	for (uint32_t i = 0; i < config_group_count(config); i++) {
		const struct group_options *g = config_group_at(config, i);

		/* Others have no thread. */
		if (group_agents(config, g->name) > 0) {
			struct crew_thread *t = plan_thread(&plan, g->core, &g->idle);

			snprintf(t->name, sizeof t->name, "%s", g->name);
		}
	}
	plan_agents(&plan, config);
	plan_workers(&plan, config);
	crew_set(s->program.crew, self, &plan, done, context);
}

static bool idles_agree(const struct idle_options *a, const struct idle_options *b)
{
	return a->strategy == b->strategy && a->max_spins == b->max_spins &&
	       a->max_yields == b->max_yields && a->min_park_ns == b->min_park_ns &&
	       a->max_park_ns == b->max_park_ns && a->spin_ns == b->spin_ns &&
	       a->coalesce_ns == b->coalesce_ns && a->sleep_ns == b->sleep_ns;
}

static bool agents_agree(const struct config *a, const struct config *b)
{
	bool same = config_group_count(a) == config_group_count(b);

	for (int kind = 0; same && kind < CONFIG_AGENTS; kind++) {
		const struct agent_options *x = config_agent(a, (enum config_agent)kind);
		const struct agent_options *y = config_agent(b, (enum config_agent)kind);

		same = x->count == y->count && idles_agree(&x->idle, &y->idle) &&
		       memcmp(x->cores, y->cores, x->count * sizeof x->cores[0]) == 0;
	}
	for (uint32_t i = 0; same && i < config_group_count(a); i++) {
		const struct group_options *x = config_group_at(a, i);
		const struct group_options *y = config_group(b, x->name);

		same = y != NULL && x->core == y->core && idles_agree(&x->idle, &y->idle);
	}
	return same;
}

static void on_agents_set(struct agent *self, void *context, int result, const char *why)
{
	struct generation_change *change = context;
	char line[512];

	CONTAINER_OF(change->program, struct server, program)->agents_amiss = result != 0;
	if (result != 0 && result != -ESHUTDOWN) {
		snprintf(line, sizeof line, "agents are not as the configuration says: %s",
			 why != NULL ? why : strerror(-result));
		agent_error(self, 0, "%s", line);
		generation_warn(change, self, line);
	}
	generation_taken(change, self);
}

static bool on_agents_changed(struct program *p, const struct config *before,
			      const struct config *after, struct generation_change *g)
{
	struct server *s = CONTAINER_OF(p, struct server, program);

	if (!s->agents_amiss && agents_agree(before, after)) {
		return false;
	}
	server_set_agents(s, after, &p->schedulers[0]->base, on_agents_set, g);
	return true;
}

/* ---- life ---- */

void server_destroy(struct server *s)
{
	struct program *p = &s->program;

	/* While all agents are still there. */
	runtime_close(&p->runtime);
	for (uint32_t i = 0; i < s->writer_count; i++) {
		if (s->writers[i] != NULL) {
			agent_close(&s->writers[i]->base);
			free(s->writers[i]);
		}
	}
	for (uint32_t i = 0; i < SCHEDULERS_MAX; i++) {
		if (p->schedulers[i] != NULL) {
			scheduler_close(p->schedulers[i]);
			free(p->schedulers[i]);
		}
	}
	crew_destroy(p->crew);
	if (p->pool != NULL) {
		thread_pool_destroy(p->pool);
	}
	sts_destroy(p->sts);
	resolver_destroy(p->resolver);
	if (s->wheel != NULL) {
		wheel_agent_destroy(s->wheel);
	}
	if (p->master != NULL) {
		master_destroy(p->master);
	}
	lock_keeper_destroy(p->locks);
	if (s->log != NULL) {
		log_writer_destroy(s->log);
	}
	if (p->spool != NULL) {
		spool_close(p->spool);
	}
	bounce_rules_free(p->bounce_rules);
	overlay_free(&p->overlay);
	generations_destroy(p->generations);
	config_release(p->foundation);
	free(s);
}

/* Opens everything in the order in which it can fail. 0 when it can run, else 1 or a negative
 * errno. */
static int open_all(struct server *s, const struct clock *clock)
{
	struct program *p = &s->program;
	int rc;

	for (size_t i = 0; i < sizeof listeners / sizeof listeners[0]; i++) {
		p->listeners[p->listener_count++] = listeners[i];
	}
	if (!load_bounce_rules(s) || !open_spool(s) || !open_log(s)) {
		return 1;
	}
	set_up_runtime(s, clock);
	p->resolver =
		resolver_create("resolver", &config_global(p->foundation)->resolver, s->errors);
	if (p->resolver == NULL) {
		return 1;
	}
	snprintf(s->policies, sizeof s->policies, "%s/.mta-sts",
		 config_global(p->foundation)->spool_path);
	p->sts = sts_create("sts", &config_global(p->foundation)->sts, s->policies);
	add_schedulers(s);
	generations_open(p, clock->wall_ns(clock->context) / NS_PER_MS);
	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		if (!scheduler_open_policy(p->schedulers[i], s->errors)) {
			return 1;
		}
	}
	p->master = master_create("master", p, s->errors);
	if (p->master == NULL) {
		return 1;
	}
	p->locks = lock_keeper_create(master_agent(p->master));
	compose(s);
	rc = add_pool(s);
	return rc == 0 ? runtime_prepare(&p->runtime) : rc;
}

/* What only the whole program knows of a configuration. */
static bool can_run(const struct config *config, FILE *errors)
{
	return server_agents_fit(config, errors) && server_bounce_rules_valid(config, errors);
}

struct server *server_create(struct config *config, const struct clock *clock, FILE *errors)
{
	struct server *s = make_aligned(sizeof *s);
	int rc;

	s->program.config = config;
	s->program.foundation = config_foundation(config);
	s->program.generations = generations_create(&s->program);
	s->program.check = can_run;
	s->program.on_agents_changed = on_agents_changed;
	s->errors = errors;
	rc = config_tls_open(config, errors) == 0 ? open_all(s, clock) : 1;
	if (rc == 0) {
		return s;
	}
	if (rc < 0) {
		fprintf(errors, "flywheeld: cannot start: %s\n", strerror(-rc));
	}
	server_destroy(s);
	return NULL;
}

struct program *server_program(struct server *s)
{
	return &s->program;
}

bool server_bounce_rules_valid(const struct config *config, FILE *errors)
{
	struct bounce_rules *rules =
		bounce_rules_load(config_global(config)->bounce_rules_path, errors);

	bounce_rules_free(rules);
	return rules != NULL;
}

static bool count_fits(const struct config *config, enum config_agent kind, const char *name,
		       uint32_t max, FILE *errors)
{
	uint32_t count = config_agent(config, kind)->count;

	if (count > max) {
		fprintf(errors, "flywheeld: agent %s: count = %u; expected at most %u\n", name,
			count, max);
	}
	return count <= max;
}

static bool group_fits(const struct config *config, const char *name, FILE *errors)
{
	uint32_t sum = group_agents(config, name);
	bool short_enough = sum == 0 || strlen(name) < CREW_NAME_MAX;

	if (sum > GROUP_AGENTS_MAX) {
		fprintf(errors, "flywheeld: group \"%s\": %u agents; expected at most %d\n", name,
			sum, GROUP_AGENTS_MAX);
	}
	if (!short_enough) {
		fprintf(errors, "flywheeld: group \"%s\": expected a name of at most %d bytes\n",
			name, CREW_NAME_MAX - 1);
	}
	return sum <= GROUP_AGENTS_MAX && short_enough;
}

bool server_agents_fit(const struct config *config, FILE *errors)
{
	bool fit = count_fits(config, CONFIG_AGENT_SCHEDULER, "scheduler", SCHEDULERS_MAX, errors);
	uint32_t sum = 0;

	fit = count_fits(config, CONFIG_AGENT_SPOOL, "spool", WRITERS_MAX, errors) && fit;
	fit = count_fits(config, CONFIG_AGENT_POOL, "pool", THREAD_POOL_WORKERS_MAX, errors) && fit;
	for (int kind = 0; kind < CONFIG_AGENTS; kind++) {
		sum += config_agent(config, (enum config_agent)kind)->count;
	}
	/* The pool itself is an agent beside its workers, and so is who knows of MTA-STS. */
	if (fit && sum + 2 > AGENT_MAX) {
		fprintf(errors, "flywheeld: %u agents in all; expected counts of at most %d\n",
			sum + 2, AGENT_MAX);
		fit = false;
	}
	for (uint32_t i = 0; i < config_group_count(config); i++) {
		fit = group_fits(config, config_group_at(config, i)->name, errors) && fit;
	}
	return fit;
}
