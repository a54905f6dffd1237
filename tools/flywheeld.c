/*
 * flywheeld: the mail transfer agent. Reads the configuration, opens spool, logs and sockets,
 * composes agents into groups as configured, and runs them until it is told to stop.
 *
 * Start reading at serve(), near the end.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "agents/log_writer.h"
#include "agents/master.h"
#include "agents/scheduler.h"
#include "agents/spool_writer.h"
#include "agents/thread_pool.h"
#include "agents/wheel.h"
#include "config/config.h"
#include "core/runtime/runtime.h"
#include "core/version.h"
#include "listeners/control/control.h"
#include "listeners/smtp/listener.h"

#define NAME_MAX_LEN 32
#define WRITERS_MAX 16

static const char *const help_text =
	"Usage: flywheeld [--config FILE] [--check | --dump | --reference | --version | --help]\n"
	"\n"
	"Runs the flywheel mail transfer agent in the foreground until SIGTERM or SIGINT.\n"
	"\n"
	"  -c, --config FILE  configuration (default /etc/flywheel/flywheel.conf)\n"
	"      --check        say whether the configuration is valid, and exit: 0, or 1 with one\n"
	"                     line for each error: FILE:LINE: what is wrong, what was expected\n"
	"      --dump         print the effective configuration with the origin of each value\n"
	"      --reference    print every option: type, default, scopes, meaning\n"
	"      --version      print the version\n"
	"  -h, --help         print this text\n"
	"\n"
	"Signals: SIGTERM and SIGINT stop it gracefully: no new connections, what is in flight is\n"
	"finished, everything accepted is synced, exit status 0. SIGHUP and SIGUSR1 open the log\n"
	"files anew. Ask a running one by the console: flywheel help.\n";

/* Everything that main() makes and takes down again. */
SINGLE
struct server {
	struct program program;
	struct log_writer *log;
	struct wheel_agent *wheel;
	struct spool_writer *writers[WRITERS_MAX];
	uint32_t writer_count;
	char names[SCHEDULERS_MAX + WRITERS_MAX][NAME_MAX_LEN];
	uint32_t name_count;
};

static const struct listener_ops *const listeners[] = {&smtp_listener, &control_listener};

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
		.sleep_ns = o->sleep_ns,
	};
}

static struct group *find_group(struct runtime *rt, const char *name)
{
	for (uint32_t i = 0; i < rt->group_count; i++) {
		if (strcmp(rt->groups[i]->name, name) == 0) {
			return rt->groups[i];
		}
	}
	return NULL;
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
	g = find_group(rt, o->group);
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

static void raise_file_limit(uint32_t wanted)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
		return;
	}
	limit.rlim_cur = wanted;
	if (limit.rlim_max < wanted) {
		rlim_t hard = limit.rlim_max;

		limit.rlim_max = wanted;
		if (setrlimit(RLIMIT_NOFILE, &limit) == 0) {
			return;
		}
		limit.rlim_max = hard;
		limit.rlim_cur = hard;
		fprintf(stderr,
			"flywheeld: warning: only %llu file descriptors are allowed, "
			"server_max_file_descriptors asks for %u: raise the limit (ulimit -n, "
			"LimitNOFILE) or lower the option\n",
			(unsigned long long)hard, wanted);
	}
	setrlimit(RLIMIT_NOFILE, &limit);
}

static bool open_spool(struct server *s)
{
	const struct global_options *g = config_global(s->program.config);
	struct spool_recovery found;
	struct spool_options options = {
		.path = g->spool_path,
		.writers = config_agent(s->program.config, CONFIG_AGENT_SPOOL)->count,
		.segment_bytes = g->spool_segment_bytes,
		.min_free_bytes = g->spool_min_free_bytes,
		.compact_percent = g->spool_compact_percent,
		.spare_segments = g->spool_spare_segments,
	};

	s->program.spool = spool_open(&options, stderr, &found);
	if (s->program.spool == NULL) {
		return false;
	}
	s->writer_count = options.writers;
	fprintf(stderr,
		"flywheeld: spool %s: %llu messages with %llu deliveries recovered from %llu "
		"segments (%llu scanned, %llu bytes torn, %llu records damaged)\n",
		options.path, (unsigned long long)found.messages,
		(unsigned long long)found.deliveries, (unsigned long long)found.segments,
		(unsigned long long)found.segments_scanned, (unsigned long long)found.torn_bytes,
		(unsigned long long)found.damaged_records);
	return true;
}

static bool open_log(struct server *s)
{
	const struct global_options *g = config_global(s->program.config);
	struct log_options options = {.path = g->log_path, .heartbeat_ms = g->log_heartbeat_ms};

	s->log = log_writer_create("log", &options, stderr);
	if (s->log != NULL) {
		s->program.log = log_writer_agent(s->log);
	}
	return s->log != NULL;
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
	ASSERT(p->scheduler_count <= SCHEDULERS_MAX);
	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		const char *name = make_name(s, "scheduler", i);

		p->schedulers[i] = make_aligned(sizeof *p->schedulers[i]);
		scheduler_init(p->schedulers[i], name, p, i);
	}
}

/* The master comes first, as the first group runs on the first thread. */
static void compose(struct server *s)
{
	struct program *p = &s->program;
	struct runtime *rt = &p->runtime;
	struct group *first;

	first = config_agent(p->config, CONFIG_AGENT_MASTER)->group == NULL
			? group_for(s, CONFIG_AGENT_SCHEDULER, 0, p->schedulers[0]->base.name)
			: group_for(s, CONFIG_AGENT_MASTER, 0, "master");
	runtime_add(rt, first, master_agent(p->master));
	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		const char *name = p->schedulers[i]->base.name;
		struct group *g = find_group(rt, name);

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
}

/* The pool hands out; its workers, each with a thread of its own, are what has cores. */
static int add_pool(struct server *s)
{
	struct program *p = &s->program;
	const struct agent_options *o = config_agent(p->config, CONFIG_AGENT_POOL);
	struct group *g = group_for(s, CONFIG_AGENT_POOL, 0, "pool");
	struct idle idle = {.kind = IDLE_PARK};
	int rc = thread_pool_create(&p->pool, &p->runtime, g, o->count,
				    config_global(p->config)->pool_backlog, &idle);

	for (uint32_t i = 0; rc == 0 && i < o->count; i++) {
		char name[NAME_MAX_LEN];

		snprintf(name, sizeof name, "worker.%u", i);
		find_group(&p->runtime, name)->core = o->cores[i];
	}
	return rc;
}

static void set_up_runtime(struct server *s)
{
	static const enum mux_backend backends[] = {
		[CONFIG_MUX_AUTO] = MUX_AUTO,
		[CONFIG_MUX_URING] = MUX_URING,
		[CONFIG_MUX_EPOLL] = MUX_EPOLL,
		[CONFIG_MUX_POLL] = MUX_POLL,
	};
	const struct global_options *g = config_global(s->program.config);
	struct runtime *rt = &s->program.runtime;

	runtime_init(rt, &clock_system);
	rt->backend = backends[g->multiplexor];
	rt->ring_slots = g->ring_slots;
	rt->stall_ns = g->stall_ns;
	rt->stop_timeout_ns = g->stop_timeout_ms * NS_PER_MS;
	s->program.limits.connections_max = g->server_max_outbound_connections;
	s->program.limits.loaded_max = g->memory_budget_bytes;
	s->program.epoch = (uint64_t)time(NULL) << 24;
	if (s->program.epoch <= spool_highest_id(s->program.spool)) {
		s->program.epoch = spool_highest_id(s->program.spool) + 1;
	}
}

static void take_down(struct server *s)
{
	struct program *p = &s->program;

	/* While all agents are still there to be disconnected. */
	runtime_close(&p->runtime);
	for (uint32_t i = 0; i < s->writer_count; i++) {
		if (s->writers[i] != NULL) {
			agent_close(&s->writers[i]->base);
			free(s->writers[i]);
		}
	}
	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		scheduler_close(p->schedulers[i]);
		free(p->schedulers[i]);
	}
	if (p->pool != NULL) {
		thread_pool_destroy(p->pool);
	}
	if (s->wheel != NULL) {
		wheel_agent_destroy(s->wheel);
	}
	if (p->master != NULL) {
		master_destroy(p->master);
	}
	if (s->log != NULL) {
		log_writer_destroy(s->log);
	}
	if (p->spool != NULL) {
		spool_close(p->spool);
	}
	config_release(p->config);
}

static void say_running(void *master)
{
	master_describe(master, stderr);
	fprintf(stderr, "flywheeld: version %s running, process %ld\n", FLYWHEEL_VERSION,
		(long)getpid());
}

/* A program whose threads sleep although work waits is slow now and then, and nothing else shows.
 */
static void tell_lost_wakeups(void)
{
	uint64_t lost = counter_total("park_timeout_with_work");

	if (lost != 0) {
		fprintf(stderr, "flywheeld: warning: %llu lost wake-ups\n",
			(unsigned long long)lost);
	}
}

/* Opens everything in the order in which it can fail, then runs. */
static int serve(struct server *s)
{
	struct program *p = &s->program;
	int rc = 1;

	raise_file_limit(config_global(p->config)->server_max_file_descriptors);
	/* A name server that does not answer must not hold up a stop for long. */
	setenv("RES_OPTIONS", "timeout:2 attempts:2", 0);
	for (size_t i = 0; i < sizeof listeners / sizeof listeners[0]; i++) {
		p->listeners[p->listener_count++] = listeners[i];
	}
	if (!open_spool(s) || !open_log(s)) {
		goto out;
	}
	set_up_runtime(s);
	add_schedulers(s);
	p->master = master_create("master", p, stderr);
	if (p->master == NULL) {
		goto out;
	}
	compose(s);
	rc = add_pool(s);
	if (rc == 0) {
		rc = runtime_prepare(&p->runtime);
	}
	if (rc == 0) {
		p->runtime.on_running = say_running;
		p->runtime.on_running_context = p->master;
		rc = runtime_run(&p->runtime);
	}
	if (rc != 0) {
		fprintf(stderr, "flywheeld: cannot start: %s\n", strerror(-rc));
		rc = 1;
	} else {
		tell_lost_wakeups();
		fprintf(stderr, "flywheeld: stopped\n");
	}
out:
	take_down(s);
	return rc;
}

static bool count_fits(const struct config *config, enum config_agent kind, const char *name,
		       uint32_t max)
{
	uint32_t count = config_agent(config, kind)->count;

	if (count > max) {
		fprintf(stderr, "flywheeld: agent %s: count = %u; expected at most %u\n", name,
			count, max);
	}
	return count <= max;
}

/* What this program can hold of each kind, and of all. */
static bool agents_fit(const struct config *config)
{
	bool fit = count_fits(config, CONFIG_AGENT_SCHEDULER, "scheduler", SCHEDULERS_MAX);
	uint32_t sum = 0;

	fit = count_fits(config, CONFIG_AGENT_SPOOL, "spool", WRITERS_MAX) && fit;
	fit = count_fits(config, CONFIG_AGENT_POOL, "pool", THREAD_POOL_WORKERS_MAX) && fit;
	for (int kind = 0; kind < CONFIG_AGENTS; kind++) {
		sum += config_agent(config, (enum config_agent)kind)->count;
	}
	/* The pool itself is an agent, and so is each of its workers. */
	if (fit && sum + 1 > AGENT_MAX) {
		fprintf(stderr, "flywheeld: %u agents in all; expected counts of at most %d\n",
			sum + 1, AGENT_MAX);
		fit = false;
	}
	return fit;
}

enum action { ACTION_SERVE, ACTION_CHECK, ACTION_DUMP };

static int run(const char *path, enum action action)
{
	struct server *s = make_aligned(sizeof *s);
	int rc = 0;

	s->program.config = config_load(path, stderr);
	if (s->program.config == NULL) {
		rc = 1;
	} else if (!agents_fit(s->program.config)) {
		config_release(s->program.config);
		rc = 1;
	} else if (action == ACTION_CHECK) {
		puts("configuration valid");
		config_release(s->program.config);
	} else if (action == ACTION_DUMP) {
		config_dump(s->program.config, stdout);
		config_release(s->program.config);
	} else {
		rc = serve(s);
	}
	free(s);
	return rc;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, 'k'},
		{"dump", no_argument, NULL, 'd'},
		{"reference", no_argument, NULL, 'r'},
		{"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	const char *path = "/etc/flywheel/flywheel.conf";
	enum action action = ACTION_SERVE;
	int c;

	while ((c = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			path = optarg;
			break;
		case 'k':
			action = ACTION_CHECK;
			break;
		case 'd':
			action = ACTION_DUMP;
			break;
		case 'r':
			config_reference(stdout);
			return 0;
		case 'v':
			puts("flywheeld " FLYWHEEL_VERSION);
			return 0;
		case 'h':
			fputs(help_text, stdout);
			return 0;
		default:
			fputs("Try flywheeld --help.\n", stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "flywheeld: unexpected argument \"%s\"; try flywheeld --help\n",
			argv[optind]);
		return 2;
	}
	return run(path, action);
}
