#include "listeners/control/reload.h"

#include <stdlib.h>

SINGLE
struct reload {
	struct job job;
	struct order *order;
	struct program *program;
	const struct reload_kind *kind;
	void *renewal;
	/* Schedulers that have not taken notice. */
	uint32_t waiting;
	char why[RELOAD_WHY];
};

static void end(struct reload *r)
{
	struct order *o = r->order;

	if (order_back(o)) {
		if (r->renewal == NULL) {
			order_fail(o, "nothing has changed: %s", r->why);
		} else {
			order_answer(o, r->kind->answer(r->renewal));
		}
	}
	r->kind->free(r->renewal);
	free(r);
}

/* On the scheduler of the console. */
static void on_noticed(struct agent *self, void *object, uint64_t unused)
{
	struct reload *r = object;

	(void)self;
	(void)unused;
	if (--r->waiting == 0) {
		end(r);
	}
}

/* On each scheduler: whatever it was doing with the old ones is done. */
static void on_notice(struct agent *self, void *object, uint64_t from)
{
	struct reload *r = object;

	if (r->kind->notice != NULL) {
		r->kind->notice(order_scheduler_of(self));
	}
	agent_send(self, &r->program->schedulers[from]->base, on_noticed, r, 0);
}

static void reload_work(struct job *job)
{
	struct reload *r = CONTAINER_OF(job, struct reload, job);

	r->renewal = r->kind->renew(r->program->config, r->why);
}

static void on_reloaded(struct agent *self, struct job *job, int result)
{
	struct reload *r = CONTAINER_OF(job, struct reload, job);
	struct program *p = r->program;

	if (result != 0) {
		snprintf(r->why, sizeof(r->why), "too many tasks wait (pool backlog)");
	}
	if (r->renewal == NULL || !r->kind->changes(r->renewal)) {
		end(r);
		return;
	}
	r->kind->publish(r->renewal);
	r->waiting = p->scheduler_count;
	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		agent_send(self, &p->schedulers[i]->base, on_notice, r,
			   order_scheduler_of(self)->index);
	}
}

void reload_begin(struct order *o, const struct reload_kind *kind)
{
	struct reload *r;

	if (o->program->pool == NULL) {
		order_fail(o, "no thread pool runs");
		return;
	}
	r = calloc(1, sizeof(*r));
	if (r == NULL) {
		fatal("out of memory for a command");
	}
	r->order = o;
	r->program = o->program;
	r->kind = kind;
	r->job = (struct job){.work = reload_work, .on_done = on_reloaded};
	order_wait(o);
	thread_pool_run(o->program->pool, &o->scheduler->base, &r->job);
}
