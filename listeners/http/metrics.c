#include "listeners/http/metrics.h"

#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "core/version.h"
#include "listeners/http/http.h"
#include "listeners/http/process.h"
#include "listeners/http/prometheus.h"

/* What has no row of its own is under this name. */
#define OTHER "other"

/* ---- counters ---- */

/* A counter by the name of its metric. */
struct metric {
	char name[PROMETHEUS_NAME];
	struct counter_view view;
	double divisor;
	/* Of its set: order among the samples of one metric. */
	uint32_t number;
};

struct metrics {
	struct metric *list;
	uint32_t count;
	uint32_t room;
};

static void add_counter(void *context, const struct counter_view *view)
{
	struct metrics *m = context;
	struct metric *one;

	if (m->count == m->room) {
		m->room = m->room != 0 ? 2 * m->room : 1024;
		m->list = check_memory(realloc(m->list, m->room * sizeof(*m->list)), "metrics");
	}
	one = &m->list[m->count];
	one->view = *view;
	one->divisor = prometheus_name(one->name, view);
	one->number = m->count++;
}

/* All samples of a metric stand together, those of the first set first. */
static int compare_metrics(const void *a, const void *b)
{
	const struct metric *x = a;
	const struct metric *y = b;
	int order = strcmp(x->name, y->name);

	return order != 0 ? order : (x->number > y->number) - (x->number < y->number);
}

static void write_counters(struct text *t)
{
	struct metrics m = {0};
	char help[PROMETHEUS_HELP];

	counter_each_view(add_counter, &m);
	if (m.count != 0) {
		qsort(m.list, m.count, sizeof(*m.list), compare_metrics);
	}
	for (uint32_t i = 0; i < m.count; i++) {
		const struct metric *one = &m.list[i];
		struct prometheus_label labels[] = {
			{prometheus_owner(&one->view), one->view.prefix}, {NULL, NULL}};

		if (i == 0 || strcmp(one[-1].name, one->name) != 0) {
			prometheus_help(help, &one->view);
			prometheus_family(t, one->name,
					  one->view.kind == COUNTER_SUM ? "counter" : "gauge",
					  help);
		}
		if (one->divisor == 1) {
			prometheus_number(t, one->name, labels, one->view.value);
		} else {
			prometheus_real(t, one->name, labels,
					(double)one->view.value / one->divisor);
		}
	}
	free(m.list);
}

/* ---- one family with one sample ---- */

static void write_gauge(struct text *t, const char *name, const char *help, double value)
{
	prometheus_family(t, name, "gauge", help);
	prometheus_real(t, name, NULL, value);
}

static void write_process(struct text *t, const struct http *http)
{
	const struct process_memory memory = process_memory();
	const struct prometheus_label version[] = {{"version", FLYWHEEL_VERSION}, {NULL, NULL}};

	prometheus_family(t, "flywheel_build_info", "gauge", "Always 1; its label has the version");
	prometheus_number(t, "flywheel_build_info", version, 1);
	prometheus_family(t, "process_cpu_seconds_total", "counter", "CPU time of the process");
	prometheus_real(t, "process_cpu_seconds_total", NULL, process_cpu_s());
	write_gauge(t, "process_start_time_seconds", "When the process began, since 1970",
		    process_start_s());
	write_gauge(t, "process_resident_memory_bytes", "Resident memory of the process",
		    (double)memory.resident_bytes);
	write_gauge(t, "process_virtual_memory_bytes", "Virtual memory of the process",
		    (double)memory.virtual_bytes);
	write_gauge(t, "process_max_fds", "File descriptors that the process may open",
		    (double)process_files_max());
	if (!http->files.unknown) {
		write_gauge(t, "process_open_fds", "Open file descriptors, counted now and then",
			    (double)http->files.open);
	}
}

static void write_budgets(struct text *t, const struct http *http)
{
	const struct program *p = http->scheduler->program;
	const struct global_options *g = http->scheduler->global;
	int64_t bodies = program_resident_bytes(p);
	uint64_t receiving = 0;

	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		receiving += atomic_load_explicit(&p->schedulers[i]->receiving_bytes,
						  memory_order_relaxed);
	}
	write_gauge(t, "flywheel_memory_used_bytes", "Envelopes and bodies in memory",
		    bodies > 0 ? (double)bodies : 0);
	write_gauge(t, "flywheel_memory_budget_bytes", "memory_budget",
		    (double)g->memory_budget_bytes);
	write_gauge(t, "flywheel_reception_used_bytes", "Memory of mail being received",
		    (double)receiving);
	write_gauge(t, "flywheel_reception_budget_bytes", "reception_budget",
		    (double)g->reception_budget_bytes);
	write_gauge(t, "flywheel_outbound_connections_open", "Outbound connections of the program",
		    (double)atomic_load_explicit(&p->limits.connections, memory_order_relaxed));
	write_gauge(t, "flywheel_accepting", "1 while new mail is taken, 0 while it is put off",
		    scheduler_refuses(http->scheduler) == 0);
}

/* ---- agents and threads ---- */

static double share_of_work(const struct agent *a)
{
	double work = (double)counter_get(a->cycles_work);
	double all = work + (double)counter_get(a->cycles_idle);

	return all > 0 ? work / all : 0;
}

static void write_agents(struct text *t, const struct runtime *rt)
{
	prometheus_family(t, "flywheel_agent_work_ratio", "gauge",
			  "Share of duty cycles that found work, since the start");
	for (uint32_t i = 0; i < rt->agent_count; i++) {
		const struct prometheus_label labels[] = {{"agent", rt->agents[i]->name},
							  {NULL, NULL}};

		prometheus_real(t, "flywheel_agent_work_ratio", labels,
				share_of_work(rt->agents[i]));
	}
	prometheus_family(t, "flywheel_agent_ring_tasks", "gauge",
			  "Tasks in the rings to an agent, and from it");
	for (uint32_t i = 0; i < rt->agent_count; i++) {
		const struct agent *a = rt->agents[i];
		const struct prometheus_label in[] = {
			{"agent", a->name}, {"direction", "in"}, {NULL, NULL}};
		const struct prometheus_label out[] = {
			{"agent", a->name}, {"direction", "out"}, {NULL, NULL}};

		prometheus_number(t, "flywheel_agent_ring_tasks", in, agent_ring_depth_in(a));
		prometheus_number(t, "flywheel_agent_ring_tasks", out, agent_ring_depth_out(a));
	}
	prometheus_family(t, "flywheel_thread_cpu_seconds_total", "counter",
			  "CPU time of a thread and the agents in it");
	for (uint32_t i = 0; i < rt->group_count; i++) {
		const struct prometheus_label labels[] = {{"thread", rt->groups[i]->name},
							  {NULL, NULL}};

		prometheus_real(t, "flywheel_thread_cpu_seconds_total", labels,
				(double)group_cpu_ns(rt->groups[i]) / 1e9);
	}
}

/* ---- histograms ---- */

static void write_scheduler_times(struct text *t, const struct program *p, const char *name,
				  const char *help, size_t offset)
{
	prometheus_family(t, name, "histogram", help);
	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		const struct scheduler *s = p->schedulers[i];
		const struct prometheus_label label[] = {{"agent", s->base.name}, {NULL, NULL}};
		const char *at = (const char *)s + offset;

		prometheus_histogram(t, name, label, (const struct histogram *)(const void *)at,
				     &prometheus_times);
	}
}

static void write_writers(struct text *t, const struct spool *spool, const char *name,
			  const char *help,
			  const struct histogram *(*of)(const struct spool *s, uint32_t writer),
			  const struct prometheus_buckets *buckets)
{
	char agent[32];

	prometheus_family(t, name, "histogram", help);
	for (uint32_t i = 0; i < spool_writer_count(spool); i++) {
		const struct prometheus_label label[] = {{"agent", agent}, {NULL, NULL}};

		snprintf(agent, sizeof(agent), "spool.%u", i);
		prometheus_histogram(t, name, label, of(spool, i), buckets);
	}
}

static void write_histograms(struct text *t, const struct program *p)
{
	write_scheduler_times(t, p, "flywheel_store_seconds",
			      "How long accepted messages waited for the spool",
			      offsetof(struct scheduler, store_ns));
	write_scheduler_times(t, p, "flywheel_dkim_signing_seconds",
			      "How long it took to sign a message",
			      offsetof(struct scheduler, signing.ns));
	if (p->spool != NULL) {
		write_writers(t, p->spool, "flywheel_spool_commit_seconds",
			      "From the first write of a batch to its answers", spool_commit_ns,
			      &prometheus_times);
		write_writers(t, p->spool, "flywheel_spool_batch_records", "Records of a batch",
			      spool_batch_records, &prometheus_counts);
	}
}

/* ---- domains and bindings ---- */

/* What is told of each, in the order of enum gather_sum. */
static const struct column {
	const char *name;
	const char *type;
	const char *help;
} columns[GATHER_SUMS] = {
	{"active_deliveries", "gauge", "Deliveries that are due"},
	{"delayed_deliveries", "gauge", "Deliveries that wait for their next attempt"},
	{"deliveries_under_way", "gauge",
	 "Deliveries on a connection, or waiting for the spool after it"},
	{"connections_open", "gauge", "Outbound connections"},
	{"delivered_total", "counter", "Recipients delivered to"},
	{"deferred_total", "counter", "Recipients deferred, each time they are"},
	{"failed_total", "counter", "Recipients failed for good"},
};

/* A row whose own name is that of the rest is in the rest. */
static void write_rows(struct text *t, const char *label, const struct gather_row *rows,
		       uint32_t count, const uint64_t *rest, bool has_rest)
{
	char name[PROMETHEUS_NAME];

	for (unsigned c = 0; c < GATHER_SUMS; c++) {
		const struct prometheus_label other[] = {{label, OTHER}, {NULL, NULL}};
		uint64_t remains = rest[c];

		snprintf(name, sizeof(name), "flywheel_%s_%s", label, columns[c].name);
		prometheus_family(t, name, columns[c].type, columns[c].help);
		for (uint32_t i = 0; i < count; i++) {
			const struct prometheus_label own[] = {{label, rows[i].name}, {NULL, NULL}};

			if (has_rest && strcmp(rows[i].name, OTHER) == 0) {
				remains += rows[i].sums[c];
			} else {
				prometheus_number(t, name, own, rows[i].sums[c]);
			}
		}
		if (has_rest) {
			prometheus_number(t, name, other, remains);
		}
	}
}

static void write_queues(struct text *t, const struct snapshot *s)
{
	static const char *const states[] = {"active", "delayed", "under_way"};

	prometheus_family(t, "flywheel_queue_deliveries", "gauge",
			  "Deliveries, by what they wait for");
	for (unsigned i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		const struct prometheus_label labels[] = {{"state", states[i]}, {NULL, NULL}};

		prometheus_number(t, "flywheel_queue_deliveries", labels, s->totals[i]);
	}
	write_gauge(t, "flywheel_domain_records", "Domains that have mail, or had some lately",
		    (double)s->domain_records);
}

void metrics_write(struct text *t, const struct http *http, const struct snapshot *s)
{
	const struct program *p = http->scheduler->program;

	write_process(t, http);
	write_counters(t);
	write_budgets(t, http);
	write_agents(t, &p->runtime);
	write_histograms(t, p);
	write_queues(t, s);
	write_rows(t, "domain", s->domains, s->domain_count, s->other_domains, true);
	write_rows(t, "binding", s->bindings, s->binding_count, s->other_bindings,
		   s->more_bindings);
}
