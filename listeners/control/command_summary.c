/*
 * `summary`: names and order of the fields are those that Momentum's operators know.
 */
#include <stdlib.h>

#include "listeners/control/command.h"

enum { ACTIVE_DOMAINS, DOMAINS, ACTIVE, DELAYED, HELD, ATTEMPTS, SETTLING };

static void count_domain(struct part *p, struct scheduler *s, struct domain *d)
{
	(void)s;
	p->totals[ACTIVE_DOMAINS] += d->active_count != 0 || d->connection_count != 0;
	p->totals[ATTEMPTS] += d->attempt_count;
	p->totals[SETTLING] += d->settling_count;
}

static bool count_step(struct part *p, struct agent *self)
{
	const struct scheduler *s = order_scheduler_of(self);

	if (!part_walk(p, self, ORDER_RECORDS_PER_STEP, count_domain)) {
		return false;
	}
	p->totals[DOMAINS] = s->dispatcher.domains.count;
	p->totals[ACTIVE] = s->dispatcher.domains.active;
	p->totals[DELAYED] = s->dispatcher.domains.delayed;
	p->totals[HELD] = s->dispatcher.domains.held;
	return true;
}

/* Sums over schedulers of what anybody may read. */
struct counts {
	uint64_t received;
	uint64_t rejected;
	uint64_t delivered;
	uint64_t failed;
	uint64_t transient;
};

static struct counts count_schedulers(const struct program *program)
{
	struct counts n = {0};

	for (uint32_t i = 0; i < program->scheduler_count; i++) {
		const struct scheduler *s = program->schedulers[i];

		n.received += counter_get(s->received);
		n.rejected += counter_get(s->rejected);
		n.delivered += counter_get(s->delivered);
		n.failed += counter_get(s->failed);
		n.transient += counter_get(s->transient);
	}
	return n;
}

static void set_queues(json_t *v, const struct order *o)
{
	uint64_t active = order_total(o, ACTIVE);
	uint64_t delayed = order_total(o, DELAYED);
	uint64_t held = order_total(o, HELD);
	uint64_t attempts = order_total(o, ATTEMPTS);
	uint64_t settling = order_total(o, SETTLING);

	value_set_number(v, "domains", order_total(o, DOMAINS));
	value_set_number(v, "active_domains", order_total(o, ACTIVE_DOMAINS));
	value_set_number(v, "active_queue_size", active);
	value_set_number(v, "delayed_queue_size", delayed);
	value_set_number(v, "held_queue_size", held);
	value_set_number(v, "in_delivery", attempts);
	value_set_number(v, "waiting_for_spool", settling);
	value_set_number(v, "total_queue_size", active + delayed + held + attempts + settling);
}

/* Rates since the last summary, if that was a second ago or more. */
static void set_rates(json_t *v, const struct order *o, const struct counts *n)
{
	struct order_client *c = o->client;
	uint64_t now_ms = agent_now_ms(&o->scheduler->base);
	double seconds = (double)(now_ms - c->rated_ms) / 1000;

	if (seconds <= 0) {
		seconds = 1;
	}
	value_set_real(v, "delivery_rate_per_s",
		       (double)(n->delivered - c->rated_delivered) / seconds);
	value_set_real(v, "reception_rate_per_s",
		       (double)(n->received - c->rated_received) / seconds);
	value_set_real(v, "rates_over_s", seconds);
	if (seconds >= 1) {
		c->rated_ms = now_ms;
		c->rated_delivered = n->delivered;
		c->rated_received = n->received;
	}
}

/* How long messages waited for the spool to make them durable, since the start. */
static void set_store_times(json_t *v, const struct program *program)
{
	struct histogram *all = calloc(1, sizeof *all);

	if (all == NULL) {
		return;
	}
	for (uint32_t i = 0; i < program->scheduler_count; i++) {
		histogram_merge(all, &program->schedulers[i]->store_ns);
	}
	value_set_real(v, "store_time_p50_s", (double)histogram_quantile(all, 0.5) / 1e9);
	value_set_real(v, "store_time_p99_s", (double)histogram_quantile(all, 0.99) / 1e9);
	value_set_real(v, "store_time_p999_s", (double)histogram_quantile(all, 0.999) / 1e9);
	free(all);
}

static void merge(struct order *o)
{
	struct program *program = o->program;
	struct counts n = count_schedulers(program);
	json_t *v = value_object();

	value_set_number(v, "outbound_concurrency",
			 atomic_load_explicit(&program->limits.connections, memory_order_relaxed));
	value_set_number(v, "inbound_concurrency", counter_total("smtp_sessions_open"));
	set_queues(v, o);
	value_set_number(v, "successfully_delivered_messages", n.delivered);
	value_set_number(v, "failed_messages", n.failed);
	value_set_number(v, "transient_failures", n.transient);
	value_set_number(v, "rejected_messages", n.rejected);
	value_set_number(v, "received_messages", n.received);
	set_rates(v, o, &n);
	value_set_number(v, "spool_messages", counter_total("live_messages"));
	value_set_number(v, "spool_bytes", counter_total("live_bytes"));
	set_store_times(v, program);
	command_set_budgets(v, o);
	value_set_real(v, "uptime_s",
		       (double)(agent_now_ms(&o->scheduler->base) - o->client->started_ms) / 1000);
	order_answer(o, v);
}

void command_summary(struct order *o)
{
	order_on_schedulers(o, count_step, merge);
}
