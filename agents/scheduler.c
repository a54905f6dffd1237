#include "agents/scheduler.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "agents/master.h"
#include "agents/scheduler_request.h"

#define REQUESTS_KEEP 4096

static struct scheduler *scheduler_of(struct agent *self)
{
	return CONTAINER_OF(self, struct scheduler, base);
}

uint32_t home_of(const struct program *p, const char *binding, const char *domain)
{
	return (uint32_t)(domain_hash(binding, domain, strlen(domain)) % p->scheduler_count);
}

int64_t program_resident_bytes(const struct program *p)
{
	int64_t sum = 0;

	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		sum += atomic_load_explicit(&p->schedulers[i]->pools.resident_bytes,
					    memory_order_relaxed);
	}
	return sum;
}

static uint64_t receiving_bytes(const struct program *p)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		sum += atomic_load_explicit(&p->schedulers[i]->receiving_bytes,
					    memory_order_relaxed);
	}
	return sum;
}

static uint64_t receiving_count(const struct program *p)
{
	uint64_t sum = 0;

	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		sum += atomic_load_explicit(&p->schedulers[i]->receiving_count,
					    memory_order_relaxed);
	}
	return sum;
}

struct message_id scheduler_new_id(struct scheduler *s)
{
	return (struct message_id){
		.high = agent_wall_ms(&s->base) << 16 | s->global->node_id,
		.low = (uint64_t)s->index << 56 |
		       ((s->program->epoch + ++s->id_count) & UINT64_C(0x00ffffffffffffff)),
	};
}

void scheduler_format_number(const struct scheduler *s, uint64_t number, char text[24])
{
	snprintf(text, 24, "%02x-%08llx", s->index, (unsigned long long)number);
}

int scheduler_refuses(const struct scheduler *s)
{
	if (s->stopping) {
		return -ESHUTDOWN;
	}
	if (spool_full(s->program->spool)) {
		return -ENOSPC;
	}
	if (receiving_bytes(s->program) > s->global->reception_budget_bytes) {
		return -ENOMEM;
	}
	return 0;
}

/* One writer, so a load and a store will do. */
static void add(_Atomic uint64_t *sum, int64_t delta)
{
	uint64_t now = atomic_load_explicit(sum, memory_order_relaxed);

	atomic_store_explicit(sum, now + (uint64_t)delta, memory_order_relaxed);
}

void scheduler_receiving(struct scheduler *s, int64_t bytes, int transactions)
{
	add(&s->receiving_bytes, bytes);
	if (transactions != 0) {
		add(&s->receiving_count, transactions);
	}
}

uint64_t scheduler_reception_share(const struct scheduler *s, bool stalls)
{
	uint64_t budget = s->global->reception_budget_bytes;
	uint64_t count;

	if (receiving_bytes(s->program) <= (stalls ? budget : 2 * budget)) {
		return UINT64_MAX;
	}
	count = receiving_count(s->program);
	return budget / (count != 0 ? count : 1);
}

void scheduler_close_accept(struct scheduler *s, struct accept *a)
{
	CHECK_MAGIC(a, ACCEPT_MAGIC);
	OWNER_CHECK(a);
	if (a->fd >= 0) {
		mux_close(s->base.mux, a->fd);
		a->fd = -1;
	}
	counter_sub(s->connections_open, 1);
	OWNER_RELEASE(a);
	agent_send(&s->base, master_agent(s->program->master), master_on_closed, a, 0);
}

void scheduler_on_accept(struct agent *self, void *object, uint64_t value)
{
	struct scheduler *s = scheduler_of(self);
	struct accept *a = object;

	(void)value;
	CHECK_MAGIC(a, ACCEPT_MAGIC);
	ASSERT(a->scheduler == s->index);
	OWNER_CLAIM(a);
	counter_inc(s->connections_in);
	counter_add(s->connections_open, 1);
	s->program->listeners[a->listener]->serve(s, s->listener_state[a->listener], a);
}

static void make_counters(struct scheduler *s)
{
	struct counter_set *set = s->base.counters;

	s->connections_in = counter_create(set, "inbound.connections", COUNTER_SUM,
					   "Connections that were sharded to this scheduler");
	s->connections_open =
		counter_create(set, "inbound.open", COUNTER_GAUGE, "Inbound connections open now");
	s->received = counter_create(set, "received", COUNTER_SUM,
				     "Messages accepted and as durable as promised");
	s->received_bytes =
		counter_create(set, "received_bytes", COUNTER_SUM, "Bytes of their bodies");
	s->recipients = counter_create(set, "recipients", COUNTER_SUM, "Their recipients");
	s->rejected = counter_create(set, "rejected", COUNTER_SUM, "Commands and messages refused");
	s->rejected_busy =
		counter_create(set, "rejected_busy", COUNTER_SUM,
			       "Messages tempfailed because the spool could not keep them");
	s->delivered = counter_create(set, "delivered", COUNTER_SUM, "Recipients delivered to");
	s->failed = counter_create(set, "failed", COUNTER_SUM, "Recipients failed for good");
	s->transient = counter_create(set, "transient", COUNTER_SUM,
				      "Recipients deferred, each time they are");
	s->bounces =
		counter_create(set, "bounces", COUNTER_SUM, "Delivery status notifications sent");
	s->bodies_dropped =
		counter_create(set, "bodies_dropped", COUNTER_SUM,
			       "Bodies and their envelopes given up in memory; the spool has them");
	s->bodies_loaded = counter_create(
		set, "bodies_loaded", COUNTER_SUM,
		"Bodies and their envelopes read back from the spool for an attempt");
	s->captures_cut = counter_create(
		set, "captures_cut", COUNTER_SUM,
		"Messages with header fields that were too long to be kept for logs whole");
	signing_init(&s->signing, set);
	s->out_of_band = counter_create(set, "out_of_band", COUNTER_SUM,
					"Messages to bounce domains that were understood, or not");
	s->feedback_reports = counter_create(set, "feedback_reports", COUNTER_SUM,
					     "Those of them that were complaints");
}

static void add_bindings(struct scheduler *s)
{
	const struct config *config = s->program->config;

	for (uint32_t i = 0; i < config_binding_count(config); i++) {
		const struct binding_options *o = config_binding(config, i);

		binding_add(&s->dispatcher.bindings, o->name, o->group, o->weight,
			    o->suspend_delivery);
	}
	binding_pass_turns(&s->dispatcher.bindings, s->index);
}

static int on_start(struct agent *self)
{
	struct scheduler *s = scheduler_of(self);
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < s->program->listener_count; i++) {
		const struct listener_ops *l = s->program->listeners[i];

		if (!l->on_master || s->index == 0) {
			rc = l->open(s, &s->listener_state[i]);
		}
	}
	return rc;
}

static void tell_listeners_to_stop(struct scheduler *s, bool hurry)
{
	for (uint32_t i = 0; i < s->program->listener_count; i++) {
		if (s->listener_state[i] != NULL) {
			s->program->listeners[i]->stop(s, s->listener_state[i], hurry);
		}
	}
}

static void on_stop(struct agent *self)
{
	struct scheduler *s = scheduler_of(self);

	s->stopping = true;
	tell_listeners_to_stop(s, false);
	dispatch_stop(&s->dispatcher, false);
	resolver_give_up(s->program->resolver, self);
	scheduler_keep_all(s);
}

static bool listeners_drained(struct scheduler *s)
{
	for (uint32_t i = 0; i < s->program->listener_count; i++) {
		if (s->listener_state[i] != NULL &&
		    !s->program->listeners[i]->drained(s, s->listener_state[i])) {
			return false;
		}
	}
	return true;
}

static bool on_drained(struct agent *self)
{
	struct scheduler *s = scheduler_of(self);

	if (!s->hurried && atomic_load(&s->program->runtime.hurry)) {
		s->hurried = true;
		tell_listeners_to_stop(s, true);
		dispatch_stop(&s->dispatcher, true);
	}
	return listeners_drained(s) && dispatch_drained(&s->dispatcher) && s->spool_waiting == 0 &&
	       s->bounces_waiting == 0 && s->lookups_waiting == 0 && log_client_drained(&s->log) &&
	       trace_client_drained(&s->trace);
}

static void on_tear_down(struct agent *self)
{
	struct scheduler *s = scheduler_of(self);

	for (uint32_t i = 0; i < s->program->listener_count; i++) {
		if (s->listener_state[i] != NULL) {
			s->program->listeners[i]->close(s, s->listener_state[i]);
		}
	}
	dispatcher_drop(&s->dispatcher);
}

void scheduler_close(struct scheduler *s)
{
	dispatcher_close(&s->dispatcher);
	log_client_close(&s->log);
	trace_client_close(&s->trace);
	envelope_builder_close(&s->bounce_envelope);
	signing_close(&s->signing);
	bounce_classifier_close(&s->classifier);
	pool_close(&s->requests);
	mail_pools_close(&s->pools);
	agent_close(&s->base);
}

static int on_do_work(struct agent *self)
{
	struct scheduler *s = scheduler_of(self);
	int work = 0;

	for (uint32_t i = 0; i < s->program->listener_count; i++) {
		const struct listener_ops *l = s->program->listeners[i];

		if (s->listener_state[i] != NULL && l->do_work != NULL) {
			work += l->do_work(s, s->listener_state[i]);
		}
	}
	log_client_flush(&s->log);
	trace_client_flush(&s->trace);
	return work;
}

/* Sockets, timers and peers reach a scheduler as completions and tasks, which its group runs before
 * this; what is left for the duty cycle is what listeners put off, and the log. */
static const struct agent_ops scheduler_ops = {
	.kind = "scheduler",
	.start = on_start,
	.do_work = on_do_work,
	.stop = on_stop,
	.drained = on_drained,
	.tear_down = on_tear_down,
};

void scheduler_init(struct scheduler *s, const char *name, struct program *program, uint32_t index)
{
	memset(s, 0, sizeof *s);
	agent_init(&s->base, &scheduler_ops, name, 1);
	s->program = program;
	s->index = index;
	s->global = config_global(program->config);
	if (getrandom(&s->route_seed, sizeof s->route_seed, 0) != sizeof s->route_seed) {
		fatal("no random numbers at start");
	}
	mail_pools_init(&s->pools);
	pool_init(&s->requests, "spool request", sizeof(struct scheduler_request), REQUESTS_KEEP);
	log_client_init(&s->log, &s->base, program->log);
	trace_client_init(&s->trace, &s->base, program->log);
	s->base.errors.on_new = log_panic_on_new;
	s->base.errors.context = &s->log;
	envelope_builder_init(&s->bounce_envelope);
	bounce_classifier_init(&s->classifier, program->bounce_rules);
	make_counters(s);
	dispatcher_init(&s->dispatcher, &s->base, &scheduler_dispatch_ops, &s->pools,
			&program->limits);
	program->dispatchers[index] = &s->dispatcher;
	dispatcher_join(&s->dispatcher, program->dispatchers, program->scheduler_count, index);
	add_bindings(s);
	s->dispatcher.tls_client = config_tls_client(program->config);
	s->dispatcher.tls_roots = config_tls_roots(program->config);
}
