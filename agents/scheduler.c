#include "agents/scheduler.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "agents/crew.h"
#include "agents/generation.h"
#include "agents/master.h"
#include "agents/scheduler_request.h"
#include "core/runtime/hex.h"

#define REQUESTS_KEEP 4096
/* A second's ebb of mail is not a reason to ask the allocator again. */
#define TRIM_INTERVAL_MS 1000

static const struct route_self nobody = {.hostname = "localhost"};

static struct scheduler *scheduler_of(struct agent *self)
{
	return CONTAINER_OF(self, struct scheduler, base);
}

uint32_t home_of(const struct program *p, const char *binding, const char *domain)
{
	return (uint32_t)(domain_hash(binding, domain, strlen(domain)) % p->home_count);
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

/* So many digits, or more if it needs them; returns their end. */
static char *put_hex(char *to, uint64_t number, unsigned digits)
{
	while (digits < 16 && number >> (4 * digits) != 0) {
		digits++;
	}
	while (digits-- > 0) {
		*to++ = HEX_DIGITS[number >> (4 * digits) & 15];
	}
	return to;
}

void scheduler_format_number(const struct scheduler *s, uint64_t number, char text[24])
{
	char *at = put_hex(text, s->index & 0xffff, 2);

	/* Twice for each message that policy sees, so not by snprintf(). */
	*at++ = '-';
	*put_hex(at, number, 8) = '\0';
}

int scheduler_refuses(const struct scheduler *s)
{
	if (s->stopping && !s->leaves) {
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

/* It is no connection of this scheduler any more. */
static void let_go(struct scheduler *s, struct accept *a)
{
	counter_sub(s->connections_open, 1);
	if (a->counted) {
		inbound_audit_end(s->audit, a->listener, &a->client);
	}
	OWNER_RELEASE(a);
}

void scheduler_close_accept(struct scheduler *s, struct accept *a)
{
	CHECK_MAGIC(a, ACCEPT_MAGIC);
	OWNER_CHECK(a);
	if (a->fd >= 0) {
		mux_close(s->base.mux, a->fd);
		a->fd = -1;
	}
	let_go(s, a);
	agent_send(&s->base, master_agent(s->program->master), master_on_closed, a, 0);
}

void scheduler_hand_on(struct scheduler *s, struct accept *a)
{
	CHECK_MAGIC(a, ACCEPT_MAGIC);
	OWNER_CHECK(a);
	ASSERT(s->leaves && a->session != NULL);
	let_go(s, a);
	agent_send(&s->base, master_agent(s->program->master), master_on_handed_on, a, 0);
}

void scheduler_on_accept(struct agent *self, void *object, uint64_t value)
{
	struct scheduler *s = scheduler_of(self);
	struct accept *a = object;

	(void)value;
	CHECK_MAGIC(a, ACCEPT_MAGIC);
	ASSERT(a->scheduler == s->index);
	OWNER_CLAIM(a);
	counter_add(s->connections_in, a->session == NULL);
	counter_add(s->connections_open, 1);
	if (a->session == NULL) {
		a->client = a->peer;
	}
	/* Nobody but scripts asks. */
	a->counted = s->policy.policy != NULL;
	if (a->counted) {
		inbound_audit_begin(s->audit, a->listener, &a->client);
	}
	s->program->listeners[a->listener]->serve(s, s->listener_state[a->listener], a);
}

static void use(struct scheduler *s, struct config *config)
{
	s->config = config;
	s->global = config_global(config);
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
	for (uint32_t i = 0; i < config_binding_count(s->config); i++) {
		const struct binding_options *o = config_binding(s->config, i);

		binding_add(&s->dispatcher.bindings, o->name, o->group, o->weight,
			    o->suspend_delivery);
	}
	binding_pass_turns(&s->dispatcher.bindings, s->index);
}

/* ---- generations ---- */

void scheduler_take(struct scheduler *s, struct generation_change *g, struct config *config,
		    const struct route_self *self)
{
	struct dispatcher *x = &s->dispatcher;

	ASSERT(s->taking == NULL && s->old == NULL);
	s->taking = g;
	s->old = s->config;
	use(s, config_hold(config));
	s->self = self;
	x->tls_client = config_tls_client(config);
	x->tls_roots = config_tls_roots(config);
	binding_table_renew(&x->bindings);
	add_bindings(s);
	signing_forget_keys(&s->signing);
	scheduler_renew_policy(s, g);
	for (uint32_t i = 0; i < s->program->listener_count; i++) {
		const struct listener_ops *l = s->program->listeners[i];

		if (s->listener_state[i] != NULL && l->renew != NULL) {
			l->renew(s, s->listener_state[i]);
		}
	}
	dispatch_renew(x, config_number(config), g->reroutes);
}

/* Some of what is left of the generation before. */
static int renew(struct scheduler *s)
{
	struct generation_change *g = s->taking;

	if (g == NULL) {
		return 0;
	}
	if (dispatch_renew_step(&s->dispatcher)) {
		config_release(s->old);
		s->old = NULL;
		s->taking = NULL;
		generation_taken(g, &s->base);
	}
	return 1;
}

static void close_listeners(struct scheduler *s)
{
	for (uint32_t i = 0; i < s->program->listener_count; i++) {
		if (s->listener_state[i] != NULL) {
			s->program->listeners[i]->close(s, s->listener_state[i]);
			s->listener_state[i] = NULL;
		}
	}
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
	/* It is not torn down, and may start again; when it is the first one the program ends. */
	if (rc != 0 && s->index != 0) {
		close_listeners(s);
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

static void tell_listeners_to_leave(struct scheduler *s)
{
	for (uint32_t i = 0; i < s->program->listener_count; i++) {
		const struct listener_ops *l = s->program->listeners[i];

		if (s->listener_state[i] != NULL && l->leave != NULL) {
			l->leave(s, s->listener_state[i]);
		} else if (s->listener_state[i] != NULL) {
			l->stop(s, s->listener_state[i], false);
		}
	}
}

static void on_stop(struct agent *self)
{
	struct scheduler *s = scheduler_of(self);

	s->stopping = true;
	s->leaves = !runtime_stopping(self->runtime);
	if (s->leaves) {
		tell_listeners_to_leave(s);
		scheduler_trace_leave(s);
	} else {
		tell_listeners_to_stop(s, false);
	}
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

/* It was to leave, and now the program stops. */
static void leave_no_more(struct scheduler *s)
{
	if (s->leaves && runtime_stopping(s->base.runtime)) {
		s->leaves = false;
		tell_listeners_to_stop(s, false);
	}
}

static bool on_drained(struct agent *self)
{
	struct scheduler *s = scheduler_of(self);

	leave_no_more(s);
	if (!s->hurried && (atomic_load(&s->program->runtime.hurry) || atomic_load(&self->hurry))) {
		s->hurried = true;
		s->leaves = false;
		scheduler_drop_policy_orders(s);
		tell_listeners_to_stop(s, true);
		dispatch_stop(&s->dispatcher, true);
	}
	return listeners_drained(s) && dispatch_drained(&s->dispatcher) && s->spool_waiting == 0 &&
	       scheduler_policy_drained(s, s->hurried) && s->bounces_waiting == 0 &&
	       s->lookups_waiting == 0 && s->selections.resting == 0 &&
	       log_client_drained(&s->log) && trace_client_drained(&s->trace) &&
	       (s->taking == NULL || !atomic_load(&self->leaving));
}

static void on_tear_down(struct agent *self)
{
	struct scheduler *s = scheduler_of(self);

	close_listeners(s);
	dispatcher_drop(&s->dispatcher);
	if (atomic_load(&self->leaving)) {
		crew_leave_totals(s);
	}
}

void scheduler_shut(struct scheduler *s)
{
	if (s->shut) {
		return;
	}
	s->shut = true;
	scheduler_close_policy(s);
	dispatcher_close(&s->dispatcher);
	log_client_close(&s->log);
	trace_client_close(&s->trace);
	envelope_builder_close(&s->bounce_envelope);
	config_release(s->old);
	config_release(s->config);
	signing_close(&s->signing);
	bounce_classifier_close(&s->classifier);
	pool_close(&s->requests);
	mail_pools_empty(&s->pools);
	timer_client_close(&s->base.timers);
}

void scheduler_close(struct scheduler *s)
{
	scheduler_shut(s);
	inbound_audit_destroy(s->audit);
	mail_pools_close(&s->pools);
	agent_close(&s->base);
}

/* Mail that comes on one scheduler and goes on another takes memory from one to the other: without
 * this each would keep all that it may. */
static void trim(struct scheduler *s)
{
	uint64_t now_ms = agent_now_ms(&s->base);

	if (now_ms >= s->trim_ms) {
		s->trim_ms = now_ms + TRIM_INTERVAL_MS;
		mail_pools_trim(&s->pools);
	}
}

/* Sockets, timers and peers reach a scheduler as completions and tasks, which its group runs before
 * this; what is left for the duty cycle is what listeners put off, and the log. */
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
	work += relocate_step(&s->dispatcher);
	if (s->probed && relocate_complete(&s->dispatcher)) {
		crew_answer_probe(s);
	}
	work += renew(s);
	work += scheduler_policy_do_work(s);
	if (s->index == 0) {
		work += generations_do_work(s->program);
	}
	log_client_flush(&s->log);
	trace_client_flush(&s->trace);
	trim(s);
	return work;
}

static void on_start_complete(struct agent *self)
{
	scheduler_start_policy(scheduler_of(self));
}

static const struct agent_ops scheduler_ops = {
	.kind = "scheduler",
	.start = on_start,
	.start_complete = on_start_complete,
	.do_work = on_do_work,
	.stop = on_stop,
	.drained = on_drained,
	.tear_down = on_tear_down,
};

/* What is there while the scheduler is. */
static void make_parts(struct scheduler *s)
{
	struct program *program = s->program;

	s->self = program->generations != NULL ? generations_self(program) : &nobody;
	use(s, config_hold(program->config));
	pool_init(&s->requests, "spool request", sizeof(struct scheduler_request), REQUESTS_KEEP);
	log_client_init(&s->log, &s->base, program->log);
	trace_client_init(&s->trace, &s->base, program->log);
	s->base.errors.on_new = log_panic_on_new;
	s->base.errors.context = &s->log;
	envelope_builder_init(&s->bounce_envelope);
	bounce_classifier_init(&s->classifier, program->bounce_rules);
	dispatcher_init(&s->dispatcher, &s->base, &scheduler_dispatch_ops, &s->pools,
			&program->limits);
	program->dispatchers[s->index] = &s->dispatcher;
	add_bindings(s);
	s->dispatcher.generation = config_number(s->config);
	s->dispatcher.tls_client = config_tls_client(s->config);
	s->dispatcher.tls_roots = config_tls_roots(s->config);
	dispatcher_join(&s->dispatcher, program->dispatchers, program->home_count, s->index);
}

static void make_audit(struct scheduler *s)
{
	const struct program *p = s->program;
	const struct global_options *global =
		config_global(p->foundation != NULL ? p->foundation : p->config);

	s->audit = inbound_audit_create(global->monitors, global->monitor_count);
}

void scheduler_init(struct scheduler *s, const char *name, struct program *program, uint32_t index)
{
	/* Nobody runs yet. */
	agent_role_assert();
	memset(s, 0, sizeof *s);
	agent_init(&s->base, &scheduler_ops, name, 1);
	s->program = program;
	s->index = index;
	if (getrandom(&s->route_seed, sizeof s->route_seed, 0) != sizeof s->route_seed) {
		fatal("no random numbers at start");
	}
	make_audit(s);
	mail_pools_init(&s->pools);
	make_counters(s);
	make_parts(s);
}

void scheduler_reopen(struct scheduler *s)
{
	/* It does not run yet. */
	agent_role_assert();
	ASSERT(s->shut);
	s->shut = false;
	s->stopping = false;
	s->leaves = false;
	s->hurried = false;
	s->probed = false;
	memset(&s->refusals, 0, sizeof s->refusals);
	memset(&s->selections, 0, sizeof s->selections);
	s->old = NULL;
	make_parts(s);
}
