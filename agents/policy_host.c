#include "agents/policy_host.h"

#include <stdlib.h>
#include <string.h>

#include "agents/generation.h"
#include "agents/lock_keeper.h"
#include "agents/policy_macro.h"
#include "agents/scheduler.h"

#define LINE_MAX_BYTES 1024
#define ERRORS_PER_SECOND 100

/* ---- what scripts ask for ---- */

SINGLE
struct question {
	struct dns_question dns;
	struct policy_lookup *lookup;
};

SINGLE
struct errand {
	struct job job;
	struct policy_job *policy;
};

/* One line of the paniclog: "time:scriptlet: text". */
static void print_line(struct scheduler *s, const char *text, size_t len)
{
	char line[LINE_MAX_BYTES];
	int n = snprintf(line, sizeof(line), "%llu:scriptlet: %.*s",
			 (unsigned long long)(agent_wall_ms(&s->base) / 1000), (int)len, text);

	n = n < (int)sizeof(line) ? n : (int)sizeof(line) - 1;
	for (int i = 0; i < n; i++) {
		if ((unsigned char)line[i] < ' ') {
			line[i] = ' ';
		}
	}
	log_line(&s->log, line, (size_t)n);
}

static void on_print(void *context, const char *text, size_t len)
{
	while (len > 0) {
		const char *lf = memchr(text, '\n', len);
		size_t n = lf != NULL ? (size_t)(lf - text) : len;

		print_line(context, text, n < LINE_MAX_BYTES ? n : LINE_MAX_BYTES);
		n += lf != NULL;
		text += n;
		len -= n;
	}
}

/* Of texts that differ each time no more than some find their way to the log. */
static bool tells_errors(void *context)
{
	struct scheduler *s = context;

	if (agent_now_ms(&s->base) - s->policy.errors_since_ms >= 1000) {
		s->policy.errors_since_ms = agent_now_ms(&s->base);
		s->policy.errors_told = 0;
	}
	return s->policy.errors_told < ERRORS_PER_SECOND;
}

/* One entry for each distinct error, its lines joined. */
static void on_error(void *context, const char *text)
{
	struct scheduler *s = context;
	char entry[ERRLOG_TEXT];
	size_t n = 0;

	counter_inc(s->policy.errors);
	if (text == NULL || !tells_errors(s)) {
		return;
	}
	for (; *text != '\0' && n < sizeof(entry) - 1; text++) {
		if (*text != '\t') {
			entry[n++] = *text == '\n' ? ' ' : *text;
		}
	}
	entry[n] = '\0';
	s->policy.errors_told++;
	agent_error(&s->base, 0, "%s", entry);
}

static void on_dns(struct agent *self, struct dns_question *q, struct dns_answer *answer,
		   uint32_t ttl_s)
{
	struct question *question = CONTAINER_OF(q, struct question, dns);
	struct policy_lookup *lookup = question->lookup;

	(void)self;
	(void)ttl_s;
	lookup->on_answer(lookup, answer);
	free(question);
}

static void look_up(void *context, struct policy_lookup *lookup)
{
	struct scheduler *s = context;
	struct question *q = check_memory(calloc(1, sizeof(*q)), "policy");

	q->lookup = lookup;
	q->dns = (struct dns_question){
		.name = lookup->name,
		.type = (enum dns_type)lookup->type,
		.on_answer = on_dns,
	};
	resolver_ask(s->program->resolver, &s->base, &q->dns);
}

static void work(struct job *job)
{
	struct errand *e = CONTAINER_OF(job, struct errand, job);

	e->policy->work(e->policy);
}

static void on_worked(struct agent *self, struct job *job, int result)
{
	struct errand *e = CONTAINER_OF(job, struct errand, job);
	struct policy_job *policy = e->policy;

	(void)self;
	free(e);
	policy->on_done(policy, result);
}

static void run_errand(void *context, struct policy_job *policy)
{
	struct scheduler *s = context;
	struct errand *e = check_memory(calloc(1, sizeof(*e)), "policy");

	e->policy = policy;
	e->job = (struct job){.work = work, .on_done = on_worked, .from = &s->base};
	thread_pool_run(s->program->pool, &s->base, &e->job);
}

static bool is_binding(void *context, const char *name)
{
	struct scheduler *s = context;

	return binding_is_known(&s->dispatcher.bindings, name);
}

static void ask_lock(void *context, struct policy_lock *l)
{
	struct scheduler *s = context;

	lock_keeper_ask(s->program->locks, &s->base, l);
}

static void release_lock(void *context, struct policy_lock *l)
{
	struct scheduler *s = context;

	lock_keeper_release(s->program->locks, &s->base, l);
}

static const struct policy_source *find_source(void *context, const char *name)
{
	const struct scheduler *s = context;

	/* Datasources change with a restart only. */
	return config_source(s->program->foundation, name);
}

/* What scripts call listeners, whose own names these are; those of Momentum that are not here have
 * no sessions. */
static const char *const services[][2] = {
	{"SMTP", "esmtp"},  {"Control", "control"}, {"HTTP", "http"},      {"ECStream", NULL},
	{"ECmmove2", NULL}, {"ECCluster", NULL},    {"inbound_cidr", NULL}};

static uint64_t count_sessions(const struct program *p, const char *listener,
			       const struct in6_addr *address, unsigned prefix)
{
	uint32_t count = atomic_load_explicit(&p->scheduler_count, memory_order_acquire);
	uint64_t sum = 0;

	for (uint32_t l = 0; l < p->listener_count; l++) {
		if (strcmp(p->listeners[l]->name, listener) != 0) {
			continue;
		}
		for (uint32_t i = 0; i < count; i++) {
			sum += inbound_audit_sessions(p->schedulers[i]->audit, l, address, prefix);
		}
	}
	return sum;
}

static int64_t sessions(void *context, const char *service, const struct in6_addr *address,
			unsigned prefix)
{
	const struct scheduler *s = context;

	for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++) {
		if (strcmp(services[i][0], service) == 0) {
			return services[i][1] == NULL
				       ? 0
				       : (int64_t)count_sessions(s->program, services[i][1],
								 address, prefix);
		}
	}
	return -1;
}

static int64_t events(void *context, const struct policy_events *asked)
{
	const struct scheduler *s = context;
	const struct program *p = s->program;
	uint32_t count = atomic_load_explicit(&p->scheduler_count, memory_order_acquire);
	int monitor = inbound_audit_monitor(s->audit, asked->interval_s, asked->windows);
	uint64_t sum = 0;

	for (uint32_t i = 0; monitor >= 0 && i < count; i++) {
		sum += inbound_audit_sum(p->schedulers[i]->audit, monitor, asked,
					 agent_wall_ms(&s->base) / 1000);
	}
	return monitor >= 0 ? (int64_t)sum : -1;
}

static const struct policy_ops ops = {
	.print = on_print,
	.error = on_error,
	.tells = tells_errors,
	.lookup = look_up,
	.run = run_errand,
	.is_binding = is_binding,
	.lock = ask_lock,
	.unlock = release_lock,
	.source = find_source,
	.expand = scheduler_expand_macros,
	.sessions = sessions,
	.events = events,
};

/* ---- life ---- */

static struct policy_limits limits_of(const struct scheduler *s)
{
	return (struct policy_limits){
		.memory_bytes = s->global->policy_memory_bytes,
		.instructions = s->global->policy_instructions,
	};
}

/* A state with the scripts of the scheduler's generation. NULL: that failed, and `*why`, malloc,
 * has the error with a traceback. */
static struct policy *make_state(struct scheduler *s, char **why)
{
	const struct policy_start start = {
		.scripts = config_scripts(s->config),
		.limits = limits_of(s),
		.ops = &ops,
		.context = s,
		.before = s->policy.policy,
	};
	size_t len;
	FILE *errors = check_memory(open_memstream(why, &len), "policy");
	struct policy *p;

	p = policy_create(&s->base, &start, errors);
	fclose(errors);
	return p;
}

/* It is the one from now on; NULL: there are no scripts. */
static void use(struct scheduler *s, struct policy *p)
{
	struct policy_host *h = &s->policy;

	h->policy = p;
	h->hooks = policy_hooks(p);
	memcpy(h->digest, config_scripts(s->config)->digest, sizeof(h->digest));
	counter_set_value(h->states, h->old_count + (p != NULL));
}

bool scheduler_open_policy(struct scheduler *s, FILE *errors)
{
	struct policy *p = NULL;
	char *why = NULL;

	s->policy.errors =
		counter_create(s->base.counters, "policy_errors", COUNTER_SUM,
			       "Errors of scripts, and hooks that were stopped by their budget");
	s->policy.states = counter_create(s->base.counters, "policy_states", COUNTER_GAUGE,
					  "States of scripts, those that end included");
	if (config_scripts(s->config)->count > 0) {
		p = make_state(s, &why);
		if (p == NULL) {
			fprintf(errors, "flywheeld: policy: %s", why);
		}
		free(why);
		if (p == NULL) {
			return false;
		}
	}
	use(s, p);
	return true;
}

void scheduler_start_policy(struct scheduler *s)
{
	policy_start_timers(s->policy.policy);
}

void scheduler_drop_policy_orders(struct scheduler *s)
{
	static const char why[] = "the program stops";

	policy_drop_orders(s->policy.policy, why);
	for (struct policy_old *old = s->policy.old; old != NULL; old = old->next) {
		policy_drop_orders(old->policy, why);
	}
}

/* ---- another generation ---- */

static bool is_the_same(const struct scheduler *s)
{
	const struct policy_scripts *scripts = config_scripts(s->config);
	const struct policy_limits limits = limits_of(s);
	const struct policy_limits *now;

	if (s->policy.policy == NULL || scripts->count == 0) {
		return s->policy.policy == NULL && scripts->count == 0;
	}
	now = policy_limits_of(s->policy.policy);
	return memcmp(scripts->digest, s->policy.digest, sizeof(s->policy.digest)) == 0 &&
	       now->memory_bytes == limits.memory_bytes && now->instructions == limits.instructions;
}

/* Only the error itself is for the one who asked; the log has where it came from, too. */
static void tell_failure(struct scheduler *s, struct generation_change *g, const char *why)
{
	char line[LINE_MAX_BYTES];

	snprintf(line, sizeof(line), "%s: the scripts of before stay: %.*s", s->base.name,
		 (int)strcspn(why, "\n"), why);
	on_error(s, why);
	generation_warn(g, &s->base, line);
}

/* Hooks have waited in it for too long. What goes on in the pool ends by itself. */
static void on_old_timer(struct timer *t)
{
	struct policy_old *old = CONTAINER_OF(t, struct policy_old, timer);
	uint32_t count = policy_end_all(old->policy, "the script was replaced");
	char text[128];

	if (count == 0) {
		return;
	}
	snprintf(text, sizeof(text), "%u hooks and commands ended: their scripts were replaced",
		 count);
	on_error(old->scheduler, text);
}

static void retire(struct scheduler *s, struct policy *p)
{
	struct policy_old *old;

	if (p == NULL) {
		return;
	}
	old = check_memory(calloc(1, sizeof(*old)), "policy");
	old->scheduler = s;
	old->policy = p;
	old->next = s->policy.old;
	s->policy.old = old;
	s->policy.old_count++;
	timer_init(&old->timer, &s->base, on_old_timer);
	timer_arm(&old->timer, agent_now_ms(&s->base) + POLICY_OLD_MS);
	policy_stop_timers(p);
}

void scheduler_renew_policy(struct scheduler *s, struct generation_change *g)
{
	struct policy *fresh = NULL;
	char *why = NULL;

	if (s->stopping || is_the_same(s)) {
		return;
	}
	if (s->policy.old_count == POLICY_OLD_MAX) {
		tell_failure(s, g, "as many states as there may be wait for their hooks to end");
		return;
	}
	if (config_scripts(s->config)->count > 0) {
		fresh = make_state(s, &why);
		if (fresh == NULL) {
			tell_failure(s, g, why);
			free(why);
			return;
		}
		free(why);
	}
	retire(s, s->policy.policy);
	use(s, fresh);
	policy_start_timers(fresh);
}

static void close_old(struct scheduler *s, struct policy_old **place)
{
	struct policy_old *old = *place;

	*place = old->next;
	timer_cancel(&old->timer);
	policy_destroy(old->policy);
	free(old);
	s->policy.old_count--;
	counter_set_value(s->policy.states, s->policy.old_count + (s->policy.policy != NULL));
}

int scheduler_policy_do_work(struct scheduler *s)
{
	struct policy_old **place = &s->policy.old;
	int work = 0;

	while (*place != NULL) {
		if (policy_idle((*place)->policy)) {
			close_old(s, place);
			work++;
		} else {
			place = &(*place)->next;
		}
	}
	return work;
}

void scheduler_close_policy(struct scheduler *s)
{
	ASSERT(s->policy.old == NULL);
	policy_destroy(s->policy.policy);
	s->policy.policy = NULL;
	s->policy.hooks = 0;
}

/* ---- what became of a message ---- */

BOUND
struct policy_outcome {
	struct policy_outcome *next;
	struct policy_outcome **place;
	struct policy_subject subject;
	struct policy_mail mail;
	struct policy_call call;
	char note[512];
};

static void release(struct policy_outcome *o)
{
	if (o->place != NULL) {
		*o->place = o->next;
		if (o->next != NULL) {
			o->next->place = o->place;
		}
	}
	policy_subject_close(&o->subject);
	policy_mail_close(&o->mail);
	free(o);
}

static void on_outcome_done(struct policy_call *c)
{
	release(CONTAINER_OF(c, struct policy_outcome, call));
}

static void keep(struct scheduler *s, struct policy_outcome *o)
{
	o->next = s->policy.outcomes;
	o->place = &s->policy.outcomes;
	if (o->next != NULL) {
		o->next->place = &o->next;
	}
	s->policy.outcomes = o;
}

bool scheduler_policy_drained(struct scheduler *s, bool hurry)
{
	policy_stop_timers(s->policy.policy);
	while (hurry && s->policy.outcomes != NULL) {
		policy_call_cancel(&s->policy.outcomes->call);
		release(s->policy.outcomes);
	}
	/* The duty cycle closes those of before when nothing waits in them. */
	return s->policy.outcomes == NULL && s->policy.old == NULL &&
	       policy_drained(s->policy.policy);
}

/* What was kept with the message at its reception; keys of the program's own are none of that. */
static void load_context(struct policy_mail *m, const struct envelope *e)
{
	uint32_t len;
	const char *pairs = envelope_context(e, &len);
	const char *key;
	const char *value;
	size_t at = 0;

	while (pairs != NULL && context_next(pairs, len, &at, &key, &value)) {
		if (strchr(key, ':') == NULL) {
			policy_pairs_set(&m->context, key, value, strlen(value));
		}
	}
}

static void describe(struct policy_mail *m, const struct delivery *delivery, unsigned place)
{
	const struct envelope *e = delivery_envelope(delivery);
	const struct envelope_delivery *d = envelope_delivery(e, delivery->index);
	const struct binding_record *b = delivery->domain->binding_record;

	policy_mail_init(m);
	message_id_format(&delivery->message->id, m->id);
	snprintf(m->sender, sizeof(m->sender), "%s", envelope_sender(e));
	snprintf(m->recipient, sizeof(m->recipient), "%s", envelope_address(e, d->first + place));
	snprintf(m->binding, sizeof(m->binding), "%s", b->name);
	snprintf(m->binding_group, sizeof(m->binding_group), "%s", binding_group_name(b));
	snprintf(m->routing_domain, sizeof(m->routing_domain), "%.255s",
		 envelope_domain(e, delivery->index));
	load_context(m, e);
}

void scheduler_policy_outcome(struct scheduler *s, const struct delivery *delivery,
			      const struct recipient_set *set, const struct attempt *a,
			      enum policy_hook hook)
{
	static const struct policy_subject_ops no_ops = {.known = NULL};

	/* Only who has the envelope can say whom it is about. */
	if (delivery_content(delivery) == NULL) {
		return;
	}
	for (unsigned place = recipient_set_next(set, 0); place < ENVELOPE_DELIVERY_RECIPIENTS;
	     place = recipient_set_next(set, place + 1)) {
		struct policy_outcome *o = check_memory(calloc(1, sizeof(*o)), "policy");

		describe(&o->mail, delivery, place);
		snprintf(o->note, sizeof(o->note), "%s", attempt_words(a, place));
		policy_subject_init(&o->subject, s->policy.policy, &no_ops, o);
		policy_subject_set_mail(&o->subject, &o->mail);
		o->call = (struct policy_call){
			.subject = &o->subject,
			.hook = hook,
			.argument = o->note,
			.number = a->code,
			.on_done = on_outcome_done,
		};
		if (policy_call_begin(&o->call)) {
			release(o);
		} else {
			keep(s, o);
		}
	}
}
