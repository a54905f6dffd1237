/*
 * Commands about the program itself: agents and threads, counters, errors, memory.
 */
#include "listeners/control/command.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/runtime/group.h"
#include "core/version.h"

#define ERRORS_PATIENCE_MS 2000

/* jemalloc's, when it is linked. */
int mallctl(const char *name, void *old, size_t *old_len, void *new, size_t new_len)
	__attribute__((weak));

/* ---- threads ---- */

static json_t *agent_row(const struct agent *a)
{
	json_t *row = value_object();

	value_set_text(row, "agent", a->name);
	value_set_text(row, "kind", a->ops->kind);
	value_set_text(row, "thread", a->group->name);
	value_set_number(row, "cycles_work", counter_get(a->cycles_work));
	value_set_number(row, "cycles_idle", counter_get(a->cycles_idle));
	value_set_number(row, "tasks", counter_get(a->tasks_run));
	value_set_number(row, "longest_cycle_ns", counter_get(a->cycle_max_ns));
	value_set_number(row, "stalls", counter_get(a->stalls));
	value_set_number(row, "ring_in", agent_ring_depth_in(a));
	value_set_number(row, "ring_out", agent_ring_depth_out(a));
	value_set_number(row, "overflow_max", counter_get(a->overflow_max));
	return row;
}

static json_t *group_row(struct group *g)
{
	int core = atomic_load(&g->core);
	json_t *row = value_object();

	value_set_text(row, "thread", g->name);
	value_set(row, "core", core >= 0 ? json_integer(core) : json_null());
	value_set_bool(row, "pinned", atomic_load(&g->pinned));
	value_set_text(row, "idle", idle_name((enum idle_kind)atomic_load(&g->idle_kind)));
	value_set_number(row, "cycles", counter_get(g->cycles));
	value_set_number(row, "cycles_idle", counter_get(g->idle_cycles));
	value_set_number(row, "parks", counter_get(g->parks));
	value_set_number(row, "lost_wakeups", counter_get(g->park_timeout_with_work));
	value_set_number(row, "completions", counter_get(g->completions));
	value_set_number(row, "cpu_ns", group_cpu_ns(g));
	return row;
}

/* Agents that have left (roster.h) stay in the tables, and so do their threads. */
static bool is_inhabited(const struct runtime *rt, const struct group *g)
{
	uint32_t i = 0;

	while (i < rt->agent_count &&
	       (rt->agents[i]->group != g || !atomic_load(&rt->agents[i]->live))) {
		i++;
	}
	return i < rt->agent_count;
}

void command_threads(struct order *o)
{
	const struct runtime *rt = &o->program->runtime;
	json_t *agents = value_array();
	json_t *threads = value_array();
	json_t *v = value_object();

	for (uint32_t i = 0; i < rt->agent_count; i++) {
		if (atomic_load(&rt->agents[i]->live)) {
			value_append(agents, agent_row(rt->agents[i]));
		}
	}
	for (uint32_t i = 0; i < rt->group_count; i++) {
		if (is_inhabited(rt, rt->groups[i])) {
			value_append(threads, group_row(rt->groups[i]));
		}
	}
	value_set(v, "agents", agents);
	value_set(v, "threads", threads);
	order_answer(o, v);
}

/* ---- counters ---- */

struct selection {
	const char *pattern;
	json_t *rows;
};

static bool selected(const char *pattern, const char *name)
{
	if (pattern == NULL) {
		return true;
	}
	if (strpbrk(pattern, "*?[") == NULL) {
		return strstr(name, pattern) != NULL;
	}
	return fnmatch(pattern, name, 0) == 0;
}

static void add_counter(void *context, const char *name, const char *label, enum counter_kind kind,
			uint64_t value)
{
	struct selection *s = context;
	json_t *row;

	(void)kind;
	if (!selected(s->pattern, name)) {
		return;
	}
	row = value_object();
	value_set_text(row, "counter", name);
	value_set_number(row, "value", value);
	value_set_text(row, "meaning", label);
	value_append(s->rows, row);
}

void command_counters(struct order *o)
{
	struct selection s = {o->argument_count == 1 ? o->arguments[0] : NULL, value_array()};

	counter_each(add_counter, &s);
	if (s.pattern != NULL && json_array_size(s.rows) == 0) {
		json_decref(s.rows);
		order_fail(o, "no counter matches \"%.64s\"; \"counters\" lists all", s.pattern);
		return;
	}
	order_answer(o, s.rows);
}

/* ---- errors ---- */

static bool errors_step(struct part *p, struct agent *self)
{
	const struct errlog *log = &self->errors;

	p->json = value_array();
	for (uint32_t i = 0; i < log->count; i++) {
		const struct errlog_entry *e = &log->entries[i];
		json_t *row = value_object();

		value_set_text(row, "agent", self->name);
		value_set_number(row, "count", e->count);
		value_set_time(row, "first_at", e->first_ns / NS_PER_MS);
		value_set_time(row, "last_at", e->last_ns / NS_PER_MS);
		value_set_text(row, "code", e->code != 0 ? strerrorname_np(-e->code) : "");
		value_set_text(row, "error", e->text);
		value_append(p->json, row);
	}
	p->totals[0] = log->overflow;
	return true;
}

static void merge_errors(struct order *o)
{
	json_t *rows = value_array();
	json_t *missing = value_array();
	json_t *v = value_object();
	uint64_t overflow = 0;

	for (uint32_t i = 0; i < o->part_count; i++) {
		const struct part *p = &o->parts[i];

		if (p->back) {
			json_array_extend(rows, p->json);
			overflow += p->totals[0];
		} else {
			value_append(missing, value_text(p->agent->name));
		}
	}
	value_set(v, "errors", rows);
	if (overflow != 0) {
		value_set_number(v, "not_kept", overflow);
	}
	if (json_array_size(missing) != 0) {
		value_set(v, "agents_that_did_not_answer", missing);
	} else {
		json_decref(missing);
	}
	order_answer(o, v);
}

/* A worker may be busy with something that blocks. */
void command_errors(struct order *o)
{
	order_on_agents(o, ERRORS_PATIENCE_MS, errors_step, merge_errors);
}

/* ---- memory ---- */

static void pool_row(json_t *rows, const char *agent, const struct pool *p)
{
	json_t *row = value_object();

	value_set_text(row, "agent", agent);
	value_set_text(row, "pool", p->name);
	value_set_number(row, "size_bytes", p->size);
	/* Objects may go back to another agent's pool. */
	value_set(row, "live", json_integer((json_int_t)p->live));
	value_set_number(row, "kept", p->kept);
	value_set_number(row, "kept_size_bytes", (uint64_t)p->kept * p->size);
	value_set_number(row, "allocations", p->allocations);
	value_append(rows, row);
}

static bool pools_step(struct part *p, struct agent *self)
{
	const struct scheduler *s = order_scheduler_of(self);
	const char *name = self->name;

	p->json = value_array();
	pool_row(p->json, name, &s->pools.buffers);
	pool_row(p->json, name, &s->pools.messages);
	for (unsigned i = 0; i < CONTENT_SIZE_CLASSES; i++) {
		pool_row(p->json, name, &s->pools.contents[i]);
	}
	pool_row(p->json, name, &s->pools.deliveries);
	pool_row(p->json, name, &s->requests);
	pool_row(p->json, name, &s->log.blocks);
	pool_row(p->json, name, &s->dispatcher.connections);
	return true;
}

static void set_process(json_t *v)
{
	FILE *f = fopen("/proc/self/statm", "re");
	unsigned long long total, resident;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

	if (f == NULL) {
		return;
	}
	if (fscanf(f, "%llu %llu", &total, &resident) == 2) {
		value_set_number(v, "resident_bytes", resident * page);
		value_set_number(v, "virtual_bytes", total * page);
	}
	fclose(f);
}

static void set_allocator(json_t *v)
{
	static const char *const names[][2] = {
		{"stats.allocated", "allocated_bytes"}, {"stats.active", "active_bytes"},
		{"stats.metadata", "metadata_bytes"},   {"stats.resident", "heap_resident_bytes"},
		{"stats.mapped", "mapped_bytes"},       {"stats.retained", "retained_bytes"}};
	uint64_t epoch = 1;
	size_t len = sizeof(epoch);

	if (mallctl == NULL || mallctl("epoch", &epoch, &len, &epoch, sizeof(epoch)) != 0) {
		return;
	}
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		size_t value = 0;

		len = sizeof(value);
		if (mallctl(names[i][0], &value, &len, NULL, 0) == 0) {
			value_set_number(v, names[i][1], value);
		}
	}
}

void command_set_budgets(json_t *v, const struct order *o)
{
	const struct program *p = o->program;
	const struct global_options *g = o->scheduler->global;
	int64_t bodies = program_resident_bytes(p);
	uint64_t receiving = 0;

	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		receiving += atomic_load_explicit(&p->schedulers[i]->receiving_bytes,
						  memory_order_relaxed);
	}
	value_set_number(v, "resident_body_bytes", bodies > 0 ? (uint64_t)bodies : 0);
	value_set_number(v, "loaded_body_bytes",
			 atomic_load_explicit(&p->limits.loaded_bytes, memory_order_relaxed));
	value_set_number(v, "memory_budget_bytes", g->memory_budget_bytes);
	value_set_number(v, "receiving_bytes", receiving);
	value_set_number(v, "reception_budget_bytes", g->reception_budget_bytes);
}

static void merge_memory(struct order *o)
{
	json_t *v = value_object();
	json_t *pools = value_array();

	set_process(v);
	set_allocator(v);
	command_set_budgets(v, o);
	for (uint32_t i = 0; i < o->part_count; i++) {
		json_array_extend(pools, o->parts[i].json);
	}
	value_set(v, "pools", pools);
	order_answer(o, v);
}

void command_memory(struct order *o)
{
	order_on_schedulers(o, pools_step, merge_memory);
}

/* ---- the rest ---- */

void command_version(struct order *o)
{
	json_t *v = value_object();

	value_set_text(v, "program", "flywheel");
	value_set_text(v, "version", FLYWHEEL_VERSION);
	value_set_number(v, "pid", (uint64_t)getpid());
	value_set_text(v, "hostname", o->scheduler->global->hostname);
	order_answer(o, v);
}

void command_reopen_logs(struct order *o)
{
	json_t *v;

	if (o->program->log == NULL) {
		order_fail(o, "no log agent runs: logs go to stderr");
		return;
	}
	agent_send(&o->scheduler->base, o->program->log, log_writer_on_reopen, NULL, 0);
	v = value_object();
	value_set_text(v, "logs", "are being opened anew; \"errors\" says when that fails");
	order_answer(o, v);
}

void command_shutdown(struct order *o)
{
	json_t *v = value_object();

	value_set_text(v, "program", "is stopping");
	order_answer(o, v);
	runtime_stop(&o->program->runtime);
}
