/*
 * What is in one event: rates since the last one, queues, top domains and bindings, agents and
 * threads, the spool, and what next hops refuse most often.
 */
#include <stdlib.h>
#include <string.h>

#include "core/version.h"
#include "listeners/http/events.h"
#include "listeners/http/http.h"
#include "listeners/http/process.h"

/* A shorter time says nothing of rates. */
#define RATE_NS_MIN (50 * NS_PER_MS)

/* ---- counts ---- */

static void count_agents(struct event_counts *n, const struct runtime *rt)
{
	for (uint32_t i = 0; i < rt->agent_count; i++) {
		n->work[i] = counter_get(rt->agents[i]->cycles_work);
		n->idle[i] = counter_get(rt->agents[i]->cycles_idle);
	}
	for (uint32_t i = 0; i < rt->group_count; i++) {
		n->cpu_ns[i] = group_cpu_ns(rt->groups[i]);
	}
}

void event_count(struct event_counts *n, const struct http *http)
{
	const struct program *p = http->scheduler->program;

	memset(n, 0, sizeof(*n));
	n->at_ns = http->scheduler->base.now.mono_ns;
	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		const struct scheduler *s = p->schedulers[i];

		n->received += counter_get(s->received);
		n->received_bytes += counter_get(s->received_bytes);
		n->rejected += counter_get(s->rejected);
		n->delivered += counter_get(s->delivered);
		n->deferred += counter_get(s->transient);
		n->failed += counter_get(s->failed);
	}
	n->commits = counter_total("commits");
	n->records = counter_total("records");
	for (uint32_t i = 0; p->spool != NULL && i < spool_writer_count(p->spool); i++) {
		histogram_merge(&n->commit_ns, spool_commit_ns(p->spool, i));
	}
	count_agents(n, &p->runtime);
}

/* ---- parts of the object ---- */

static void set_rate(json_t *v, const char *key, uint64_t before, uint64_t now, double seconds)
{
	if (seconds > 0) {
		value_set_real(v, key, (double)(now - before) / seconds);
	} else {
		value_set(v, key, json_null());
	}
}

static json_t *rates_of(const struct event_counts *a, const struct event_counts *b, double seconds)
{
	json_t *v = value_object();

	set_rate(v, "received_per_s", a->received, b->received, seconds);
	set_rate(v, "received_bytes_per_s", a->received_bytes, b->received_bytes, seconds);
	set_rate(v, "rejected_per_s", a->rejected, b->rejected, seconds);
	set_rate(v, "delivered_per_s", a->delivered, b->delivered, seconds);
	set_rate(v, "deferred_per_s", a->deferred, b->deferred, seconds);
	set_rate(v, "failed_per_s", a->failed, b->failed, seconds);
	return v;
}

static json_t *totals_of(const struct event_counts *n)
{
	json_t *v = value_object();

	value_set_number(v, "received", n->received);
	value_set_number(v, "received_bytes", n->received_bytes);
	value_set_number(v, "rejected", n->rejected);
	value_set_number(v, "delivered", n->delivered);
	value_set_number(v, "deferred", n->deferred);
	value_set_number(v, "failed", n->failed);
	return v;
}

/* In the order of enum gather_sum. */
static const char *const sums_keys[GATHER_SUMS] = {
	"active", "delayed", "in_delivery", "connections", "delivered", "deferred", "failed"};

static void set_sums(json_t *v, const uint64_t *sums)
{
	for (unsigned i = 0; i < GATHER_SUMS; i++) {
		value_set_number(v, sums_keys[i], sums[i]);
	}
}

static json_t *queues_of(const struct snapshot *s)
{
	json_t *v = value_object();

	value_set_number(v, "active", s->totals[GATHER_ACTIVE]);
	value_set_number(v, "delayed", s->totals[GATHER_DELAYED]);
	value_set_number(v, "in_delivery", s->totals[GATHER_IN_DELIVERY]);
	value_set_number(v, "total",
			 s->totals[GATHER_ACTIVE] + s->totals[GATHER_DELAYED] +
				 s->totals[GATHER_IN_DELIVERY]);
	value_set_number(v, "domains", s->domain_records);
	return v;
}

static json_t *rows_of(const char *key, const struct gather_row *rows, uint32_t count)
{
	json_t *list = value_array();

	for (uint32_t i = 0; i < count; i++) {
		json_t *row = value_object();

		value_set_text(row, key, rows[i].name);
		set_sums(row, rows[i].sums);
		value_append(list, row);
	}
	return list;
}

static json_t *others_of(const uint64_t *sums)
{
	json_t *v = value_object();

	set_sums(v, sums);
	return v;
}

static json_t *agents_of(const struct runtime *rt, const struct event_counts *a,
			 const struct event_counts *b)
{
	json_t *list = value_array();

	for (uint32_t i = 0; i < rt->agent_count; i++) {
		const struct agent *agent = rt->agents[i];
		double work = (double)(b->work[i] - a->work[i]);
		double all = work + (double)(b->idle[i] - a->idle[i]);
		json_t *row = value_object();

		value_set_text(row, "agent", agent->name);
		value_set_text(row, "thread", agent->group->name);
		value_set_real(row, "work_ratio", all > 0 ? work / all : 0);
		value_set_number(row, "ring_in", agent_ring_depth_in(agent));
		value_set_number(row, "ring_out", agent_ring_depth_out(agent));
		value_append(list, row);
	}
	return list;
}

static json_t *threads_of(const struct runtime *rt, const struct event_counts *a,
			  const struct event_counts *b, double seconds)
{
	json_t *list = value_array();

	for (uint32_t i = 0; i < rt->group_count; i++) {
		json_t *row = value_object();

		value_set_text(row, "thread", rt->groups[i]->name);
		set_rate(row, "cpu_ratio", a->cpu_ns[i], b->cpu_ns[i], seconds * 1e9);
		value_append(list, row);
	}
	return list;
}

/* Of the batches since the last event; null when there was none. */
static void set_latency(json_t *v, const char *key, const struct histogram *h, double quantile)
{
	if (atomic_load_explicit(&h->count, memory_order_relaxed) != 0) {
		value_set_real(v, key, (double)histogram_quantile(h, quantile) / 1e6);
	} else {
		value_set(v, key, json_null());
	}
}

static json_t *spool_of(const struct event_counts *a, const struct event_counts *b, double seconds)
{
	struct histogram *lately = malloc(sizeof(*lately));
	uint64_t commits = b->commits - a->commits;
	json_t *v = value_object();

	set_rate(v, "commits_per_s", a->commits, b->commits, seconds);
	set_rate(v, "records_per_s", a->records, b->records, seconds);
	value_set_real(v, "batch_records",
		       commits != 0 ? (double)(b->records - a->records) / (double)commits : 0);
	if (lately != NULL) {
		histogram_difference(lately, &b->commit_ns, &a->commit_ns);
		set_latency(v, "commit_p50_ms", lately, 0.5);
		set_latency(v, "commit_p99_ms", lately, 0.99);
		free(lately);
	}
	value_set_number(v, "messages", counter_total("live_messages"));
	value_set_number(v, "bytes", counter_total("live_bytes"));
	return v;
}

static json_t *refusals_of(const struct snapshot *s)
{
	json_t *list = value_array();

	for (uint32_t i = 0; i < s->refusal_count; i++) {
		json_t *row = value_object();

		value_set_text(row, "text", s->refusals[i].text);
		value_set_number(row, "count", s->refusals[i].count);
		value_append(list, row);
	}
	return list;
}

static json_t *program_of(const struct http *http)
{
	const struct scheduler *s = http->scheduler;
	json_t *v = value_object();

	value_set_text(v, "hostname", s->global->hostname);
	value_set_text(v, "version", FLYWHEEL_VERSION);
	value_set_real(v, "uptime_s",
		       (double)(agent_now_ms(&s->base) - http->client.started_ms) / 1000);
	value_set_bool(v, "accepting", scheduler_refuses(s) == 0);
	value_set_real(v, "interval_s", (double)http->gatherer.interval_ms / 1000);
	value_set_number(v, "resident_bytes", process_memory().resident_bytes);
	value_set_number(v, "disk_free_bytes", http->files.disk_free_bytes);
	value_set_number(v, "disk_size_bytes", http->files.disk_size_bytes);
	value_set_number(v, "inbound_connections", counter_total("smtp_sessions_open"));
	value_set_number(
		v, "outbound_connections",
		atomic_load_explicit(&s->program->limits.connections, memory_order_relaxed));
	return v;
}

/* ---- the object ---- */

char *http_event_text(const struct http *http, const struct snapshot *s,
		      const struct event_counts *before, const struct event_counts *now)
{
	const struct runtime *rt = &http->scheduler->program->runtime;
	uint64_t ns = now->at_ns - before->at_ns;
	double seconds = ns >= RATE_NS_MIN ? (double)ns / 1e9 : 0;
	json_t *v = value_object();
	char *text;

	value_set_time(v, "at", agent_wall_ms(&http->scheduler->base));
	value_set_real(v, "over_s", seconds);
	value_set(v, "program", program_of(http));
	value_set(v, "rates", rates_of(before, now, seconds));
	value_set(v, "totals", totals_of(now));
	value_set(v, "queues", queues_of(s));
	value_set(v, "domains", rows_of("domain", s->domains, s->domain_count));
	value_set(v, "other_domains", others_of(s->other_domains));
	value_set(v, "bindings", rows_of("binding", s->bindings, s->binding_count));
	value_set(v, "agents", agents_of(rt, before, now));
	value_set(v, "threads", threads_of(rt, before, now, seconds));
	value_set(v, "spool", spool_of(before, now, seconds));
	value_set(v, "refusals", refusals_of(s));
	text = value_dump(v);
	json_decref(v);
	return text;
}
