#include "agents/policy_host.h"

#include <stdlib.h>
#include <string.h>

#include "agents/scheduler.h"

#define LINE_MAX_BYTES 1024

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

static void *make(size_t size)
{
	void *block = calloc(1, size);

	if (block == NULL) {
		fatal("out of memory for policy");
	}
	return block;
}

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

/* One entry for each distinct error, its lines joined. */
static void on_error(void *context, const char *text)
{
	struct scheduler *s = context;
	char entry[ERRLOG_TEXT];
	size_t n = 0;

	for (; *text != '\0' && n < sizeof(entry) - 1; text++) {
		if (*text != '\t') {
			entry[n++] = *text == '\n' ? ' ' : *text;
		}
	}
	entry[n] = '\0';
	counter_inc(s->policy.errors);
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
	struct question *q = make(sizeof(*q));

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
	struct errand *e = make(sizeof(*e));

	e->policy = policy;
	e->job = (struct job){.work = work, .on_done = on_worked, .from = &s->base};
	thread_pool_run(s->program->pool, &s->base, &e->job);
}

static bool is_binding(void *context, const char *name)
{
	struct scheduler *s = context;

	return binding_is_known(&s->dispatcher.bindings, name);
}

static const struct policy_ops ops = {
	.print = on_print,
	.error = on_error,
	.lookup = look_up,
	.run = run_errand,
	.is_binding = is_binding,
};

/* ---- life ---- */

bool scheduler_open_policy(struct scheduler *s, FILE *errors)
{
	const struct policy_scripts *scripts = config_scripts(s->program->config);
	const struct policy_limits limits = {
		.memory_bytes = s->global->policy_memory_bytes,
		.instructions = s->global->policy_instructions,
	};

	s->policy.errors =
		counter_create(s->base.counters, "policy_errors", COUNTER_SUM,
			       "Errors of scripts, and hooks that were stopped by their budget");
	if (scripts->count == 0) {
		return true;
	}
	s->policy.policy = policy_create(&s->base, scripts, &limits, &ops, s, errors);
	s->policy.hooks = policy_hooks(s->policy.policy);
	return s->policy.policy != NULL;
}

void scheduler_close_policy(struct scheduler *s)
{
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
	while (hurry && s->policy.outcomes != NULL) {
		policy_call_cancel(&s->policy.outcomes->call);
		release(s->policy.outcomes);
	}
	return s->policy.outcomes == NULL && policy_drained(s->policy.policy);
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

static void describe(struct scheduler *s, struct policy_mail *m, const struct delivery *delivery,
		     unsigned place)
{
	const struct envelope *e = delivery_envelope(delivery);
	const struct envelope_delivery *d = envelope_delivery(e, delivery->index);
	const struct binding_record *b = delivery->domain->binding_record;

	(void)s;
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
		struct policy_outcome *o = make(sizeof(*o));

		describe(s, &o->mail, delivery, place);
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
