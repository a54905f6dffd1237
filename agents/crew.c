#include "agents/crew.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agents/master.h"
#include "core/runtime/check.h"

#define SCHEDULER_NAME 24

enum crew_step {
	CREW_IDLE,
	/* Schedulers join. */
	CREW_JOIN,
	/* All hear of the new layout. */
	CREW_ADOPT,
	/* Records go to their homes. */
	CREW_RELOCATE,
	/* What they left behind is dropped. */
	CREW_SETTLE,
	/* Schedulers leave. */
	CREW_LEAVE,
	/* Threads get their cores and strategies. */
	CREW_TUNE,
};

SINGLE
struct crew_request {
	struct crew_request *next;
	struct crew *crew;
	struct crew_plan plan;
	struct agent *from;
	crew_done_fn done;
	void *context;
	int result;
	/* malloc; NULL: there is nothing to say. */
	char *why;
};

BOUND
struct crew {
	struct program *program;
	enum crew_step step;
	/* Under way; and those that wait, the last one first. */
	struct crew_request *request;
	struct crew_request *waiting;
	/* Schedulers that run. */
	uint32_t present;
	/* Homes before the change. */
	uint32_t before;
	/* Schedulers that have not answered; what they have found, and found a round ago. */
	uint32_t answers;
	uint64_t activity;
	uint64_t activity_before;
	uint32_t tuned;
	/* Number of the layout. */
	uint32_t layout;
	int result;
	bool stopped;
	/* Of schedulers that it made. */
	char names[SCHEDULERS_MAX][SCHEDULER_NAME];
};

static void go_on(struct crew *c);

static struct agent *self_of(const struct crew *c)
{
	return master_agent(c->program->master);
}

static struct agent *agent_at(const struct crew *c, uint32_t index)
{
	return &c->program->schedulers[index]->base;
}

/* ---- answers to who asked ---- */

static void on_done(struct agent *self, void *object, uint64_t unused)
{
	struct crew_request *r = object;

	(void)unused;
	r->done(self, r->context, r->result, r->why);
	free(r->why);
	free(r);
}

/* All of a list. */
static void answer(struct crew *c, struct crew_request *list, int result)
{
	struct crew_request *next;

	for (struct crew_request *r = list; r != NULL; r = next) {
		next = r->next;
		r->result = result;
		agent_send(self_of(c), r->from, on_done, r, 0);
	}
}

/* ---- layouts ---- */

/* To those that were homes before or are now. */
static uint32_t involved(const struct crew *c)
{
	uint32_t now = c->request->plan.schedulers;

	return c->before > now ? c->before : now;
}

static void ask_all(struct crew *c, task_fn run, uint64_t value)
{
	uint32_t count = involved(c);

	c->answers = count;
	c->activity = 0;
	for (uint32_t i = 0; i < count; i++) {
		agent_send(self_of(c), agent_at(c, i), run, c, value);
	}
}

/* On the master. */
static void on_answer(struct agent *self, void *object, uint64_t activity)
{
	struct crew *c = object;

	(void)self;
	ASSERT(c->answers > 0);
	c->activity += activity;
	if (--c->answers == 0 && !c->stopped) {
		go_on(c);
	}
}

/* Orders to bindings, for a scheduler that has not heard them. */
SINGLE
struct binding_orders {
	uint32_t count;
	struct binding_told {
		char *name;
		struct suspension *suspension;
		enum binding_order order;
	} told[];
};

static void on_orders(struct agent *self, void *object, uint64_t unused)
{
	struct scheduler *s = CONTAINER_OF(self, struct scheduler, base);
	struct binding_orders *o = object;

	(void)unused;
	for (uint32_t i = 0; i < o->count; i++) {
		struct binding_record *b = binding_open(&s->dispatcher.bindings, o->told[i].name);

		dispatch_order_binding(&s->dispatcher, b, o->told[i].order, o->told[i].suspension);
		free(o->told[i].name);
	}
	free(o);
}

static void send_orders(struct scheduler *s, struct agent *to)
{
	const struct binding_table *t = &s->dispatcher.bindings;
	struct binding_orders *o =
		check_memory(calloc(1, sizeof *o + t->count * sizeof o->told[0]), "the crew");

	for (uint32_t i = 0; i < t->count; i++) {
		const struct binding_record *b = t->records[i];

		if (b->order != BINDING_AS_CONFIGURED) {
			o->told[o->count++] = (struct binding_told){
				.name = check_memory(strdup(b->name), "the crew"),
				.suspension = suspension_copy(b->suspension),
				.order = b->order,
			};
		}
	}
	agent_send(&s->base, to, on_orders, o, 0);
}

static void on_adopt(struct agent *self, void *object, uint64_t layout)
{
	uint32_t count = (uint32_t)layout;
	struct scheduler *s = CONTAINER_OF(self, struct scheduler, base);
	struct crew *c = object;

	/* Who has just come knows no orders; the first scheduler always does. */
	for (uint32_t i = s->dispatcher.peer_count; s->index == 0 && i < count; i++) {
		send_orders(s, agent_at(c, i));
	}
	relocate_adopt(&s->dispatcher, count, (uint32_t)(layout >> 32));
	agent_send(self, self_of(c), on_answer, c, 0);
}

static void on_probe(struct agent *self, void *object, uint64_t begin)
{
	struct scheduler *s = CONTAINER_OF(self, struct scheduler, base);

	(void)object;
	if (begin != 0) {
		relocate_begin(&s->dispatcher);
	}
	s->probed = true;
}

void crew_answer_probe(struct scheduler *s)
{
	struct crew *c = s->program->crew;

	s->probed = false;
	agent_send(&s->base, self_of(c), on_answer, c, s->dispatcher.relocation.activity);
}

static void on_settle(struct agent *self, void *object, uint64_t unused)
{
	struct scheduler *s = CONTAINER_OF(self, struct scheduler, base);

	(void)object;
	(void)unused;
	relocate_end(&s->dispatcher);
	s->probed = true;
}

/* ---- totals of who leaves ---- */

SINGLE
struct totals {
	struct reply_top refusals;
	uint32_t count;
	struct binding_totals {
		char *name;
		uint64_t received;
		uint64_t delivered;
		uint64_t failed;
		uint64_t transient;
	} bindings[];
};

/* On the first scheduler. */
static void on_totals(struct agent *self, void *object, uint64_t unused)
{
	struct scheduler *s = CONTAINER_OF(self, struct scheduler, base);
	struct totals *t = object;

	(void)unused;
	for (uint32_t i = 0; i < t->count; i++) {
		const struct binding_totals *from = &t->bindings[i];
		struct binding_record *b = binding_open(&s->dispatcher.bindings, from->name);

		b->received += from->received;
		b->delivered += from->delivered;
		b->failed += from->failed;
		b->transient += from->transient;
		free(from->name);
	}
	for (uint32_t i = 0; i < t->refusals.used; i++) {
		const struct reply_top_entry *e = &t->refusals.entries[i];

		reply_top_count(&s->refusals, e->text, e->count, agent_now_ms(self));
	}
	free(t);
}

void crew_leave_totals(struct scheduler *s)
{
	const struct binding_table *table = &s->dispatcher.bindings;
	struct totals *t = check_memory(calloc(1, sizeof *t + table->count * sizeof t->bindings[0]),
					"the crew");

	t->refusals = s->refusals;
	for (uint32_t i = 0; i < table->count; i++) {
		const struct binding_record *b = table->records[i];

		t->bindings[t->count++] = (struct binding_totals){
			.name = check_memory(strdup(b->name), "the crew"),
			.received = b->received,
			.delivered = b->delivered,
			.failed = b->failed,
			.transient = b->transient,
		};
	}
	agent_send(&s->base, &s->program->schedulers[0]->base, on_totals, t, 0);
}

/* ---- who comes and who goes ---- */

/* It cannot be done: who has come for it leaves again. */
static void give_up(struct crew *c, int result)
{
	c->result = result;
	c->request->plan.schedulers = c->before;
	c->step = result == -ESHUTDOWN ? CREW_TUNE : CREW_LEAVE;
	go_on(c);
}

static void on_joined(void *context, int result)
{
	struct crew *c = context;

	if (c->stopped) {
		return;
	}
	if (result != 0) {
		scheduler_shut(c->program->schedulers[c->present]);
		give_up(c, result);
		return;
	}
	c->present++;
	if (c->present > c->program->scheduler_count) {
		atomic_store(&c->program->scheduler_count, c->present);
	}
	go_on(c);
}

/* One that was there before is in its place still. */
static struct scheduler *make_scheduler(struct crew *c, uint32_t index)
{
	struct program *p = c->program;
	struct scheduler *s = p->schedulers[index];
	size_t size = (sizeof *s + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;

	if (s != NULL) {
		scheduler_reopen(s);
		return s;
	}
	s = check_memory(aligned_alloc(CACHE_LINE, size), "a scheduler");
	snprintf(c->names[index], SCHEDULER_NAME, "scheduler.%u", index);
	scheduler_init(s, c->names[index], p, index);
	p->schedulers[index] = s;
	return s;
}

/* NULL: there is no room. */
static struct group *group_for(struct crew *c, const struct scheduler *s)
{
	const struct crew_plan *plan = &c->request->plan;
	struct runtime *rt = &c->program->runtime;
	const char *name = plan->group[0] != '\0' ? plan->group : s->base.name;
	struct group *g = runtime_find_group(rt, name);

	if (g == NULL) {
		return rt->group_count < RUNTIME_GROUPS_MAX
			       ? runtime_group(rt, s->base.name, plan->cores[s->index], &plan->idle)
			       : NULL;
	}
	if (g->live && g->agent_count == GROUP_AGENTS_MAX) {
		return NULL;
	}
	if (!g->live) {
		atomic_store(&g->core, plan->cores[s->index]);
		g->idle = plan->idle;
		atomic_store(&g->idle_kind, (int)plan->idle.kind);
	}
	return g;
}

/* False: its scripts fail, and the request knows why. */
static bool open_policy(struct crew *c, struct scheduler *s)
{
	char *text = NULL;
	size_t len;
	FILE *errors = check_memory(open_memstream(&text, &len), "the crew");
	bool opened;

	opened = scheduler_open_policy(s, errors);
	fclose(errors);
	if (opened) {
		free(text);
		return true;
	}
	/* The rest says where it came from. */
	text[strcspn(text, "\n")] = '\0';
	c->request->why = text;
	return false;
}

static void join_next(struct crew *c)
{
	struct scheduler *s = make_scheduler(c, c->present);
	struct runtime *rt = &c->program->runtime;
	struct group *g = group_for(c, s);
	int rc = g != NULL ? roster_enlist(rt, &s->base) : -ENOSPC;

	if (rc == 0 && !open_policy(c, s)) {
		rc = -EINVAL;
	}
	if (rc == 0) {
		rc = roster_join(rt, g, &s->base, on_joined, c);
	}
	if (rc != 0) {
		on_joined(c, rc);
	}
}

static void on_left(void *context, int result)
{
	struct crew *c = context;

	if (c->stopped) {
		return;
	}
	if (result != 0) {
		give_up(c, -ESHUTDOWN);
		return;
	}
	c->present--;
	scheduler_shut(c->program->schedulers[c->present]);
	go_on(c);
}

static void leave_next(struct crew *c)
{
	int rc = roster_leave(&c->program->runtime, agent_at(c, c->present - 1), on_left, c);

	if (rc != 0) {
		give_up(c, rc);
	}
}

/* ---- threads ---- */

/* What the plan says of a thread; false: nothing. */
static bool wanted_of(const struct crew_plan *plan, const struct crew *c, const struct group *g,
		      int *core, const struct idle **idle)
{
	for (uint32_t i = 0; i < c->present; i++) {
		if (strcmp(g->name, agent_at(c, i)->name) == 0) {
			*core = plan->cores[i];
			*idle = &plan->idle;
			return true;
		}
	}
	for (uint32_t i = 0; i < plan->thread_count; i++) {
		if (strcmp(g->name, plan->threads[i].name) == 0) {
			*core = plan->threads[i].core;
			*idle = &plan->threads[i].idle;
			return true;
		}
	}
	return false;
}

static void on_tuned(void *context, int result)
{
	struct crew *c = context;

	(void)result;
	if (!c->stopped) {
		go_on(c);
	}
}

/* False: there is none left, or it cannot be done. */
static bool tune_next(struct crew *c)
{
	struct runtime *rt = &c->program->runtime;
	const struct idle *idle;
	int core;
	int rc;

	while (c->tuned < rt->group_count) {
		struct group *g = rt->groups[c->tuned++];

		if (g->live && wanted_of(&c->request->plan, c, g, &core, &idle)) {
			rc = roster_tune(rt, g, core, idle, on_tuned, c);
			c->result = c->result == 0 ? rc : c->result;
			return rc == 0;
		}
	}
	return false;
}

/* ---- life ---- */

struct crew *crew_create(struct program *program)
{
	struct crew *c = check_memory(calloc(1, sizeof *c), "the crew");

	c->program = program;
	c->present = program->scheduler_count;
	return c;
}

void crew_stop(struct crew *c)
{
	c->stopped = true;
	answer(c, c->request, -ESHUTDOWN);
	answer(c, c->waiting, -ESHUTDOWN);
	c->request = NULL;
	c->waiting = NULL;
	c->step = CREW_IDLE;
}

void crew_destroy(struct crew *c)
{
	free(c);
}

static void on_request(struct agent *self, void *object, uint64_t unused)
{
	struct crew_request *r = object;
	struct crew *c = r->crew;

	(void)self;
	(void)unused;
	if (c->stopped) {
		answer(c, r, -ESHUTDOWN);
		return;
	}
	r->next = c->waiting;
	c->waiting = r;
	if (c->step == CREW_IDLE) {
		go_on(c);
	}
}

void crew_set(struct crew *c, struct agent *self, const struct crew_plan *plan, crew_done_fn done,
	      void *context)
{
	struct crew_request *r = check_memory(calloc(1, sizeof *r), "the crew");

	ASSERT(plan->schedulers >= 1 && plan->schedulers <= SCHEDULERS_MAX);
	r->crew = c;
	r->plan = *plan;
	r->from = self;
	r->done = done;
	r->context = context;
	agent_send(self, self_of(c), on_request, r, 0);
}

/* The last one that was asked for; those before it are answered with it. */
static void take_request(struct crew *c)
{
	c->request = c->waiting;
	c->waiting = NULL;
	c->before = c->program->home_count;
	c->tuned = 0;
	c->result = 0;
	c->step = CREW_JOIN;
}

static void finish(struct crew *c)
{
	answer(c, c->request, c->result);
	c->request = NULL;
	c->step = CREW_IDLE;
}

/* From step to step of the layout; true: the answers to a question are awaited. */
static bool change_layout(struct crew *c)
{
	uint32_t wanted = c->request->plan.schedulers;

	switch (c->step) {
	case CREW_JOIN:
		if (wanted == c->before) {
			c->step = CREW_LEAVE;
			return false;
		}
		atomic_store(&c->program->home_count, wanted);
		c->step = CREW_ADOPT;
		ask_all(c, on_adopt, (uint64_t)++c->layout << 32 | wanted);
		return true;
	case CREW_ADOPT:
		c->step = CREW_RELOCATE;
		c->activity_before = UINT64_MAX;
		ask_all(c, on_probe, 1);
		return true;
	case CREW_RELOCATE:
		/* Once more, until two rounds in a row have found the same: nothing was under way
		 * between them. */
		if (c->activity != c->activity_before) {
			c->activity_before = c->activity;
			ask_all(c, on_probe, 1);
		} else {
			c->step = CREW_SETTLE;
			ask_all(c, on_settle, 0);
		}
		return true;
	default:
		c->step = CREW_LEAVE;
		return false;
	}
}

/* The next step of what is under way, or the next plan. */
static void go_on(struct crew *c)
{
	uint32_t wanted;

	if (c->step == CREW_IDLE) {
		if (c->waiting == NULL || c->stopped) {
			return;
		}
		take_request(c);
	}
	wanted = c->request->plan.schedulers;
	if (c->step == CREW_JOIN && c->present < wanted) {
		join_next(c);
		return;
	}
	if (c->step < CREW_LEAVE && change_layout(c)) {
		return;
	}
	if (c->step == CREW_LEAVE && c->present > wanted) {
		leave_next(c);
		return;
	}
	c->step = CREW_TUNE;
	if (!tune_next(c)) {
		finish(c);
		go_on(c);
	}
}
