#include "listeners/control/traces.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agents/trace_file.h"
#include "core/runtime/check.h"
#include "core/runtime/text.h"

/* What the console knows of a trace, and nobody else. */
BOUND
struct entry {
	struct trace trace;
	struct traces *traces;
	/* Schedulers that have not taken notice yet. */
	uint32_t waiting;
	bool begun;
	bool ending;
	traces_done_fn done;
	void *context;
};

static struct entry *entry_of(struct trace *t)
{
	CHECK_MAGIC(t, TRACE_MAGIC);
	return CONTAINER_OF(t, struct entry, trace);
}

static struct program *program_of(const struct traces *ts)
{
	return ts->scheduler->program;
}

static void tell(struct entry *e, int result)
{
	traces_done_fn done = e->done;

	e->done = NULL;
	if (done != NULL) {
		done(e->context, &e->trace, result);
	}
}

static void forget(struct entry *e)
{
	e->traces->slots[e->trace.slot] = NULL;
	e->trace.magic = 0;
	free(e);
}

static void tell_schedulers(struct entry *e, task_fn run)
{
	struct program *p = program_of(e->traces);
	struct agent *self = &e->traces->scheduler->base;

	e->waiting = 0;
	for (uint32_t i = 0; i < p->scheduler_count; i++) {
		struct agent *to = &p->schedulers[i]->base;

		/* One that leaves has ended its part; one that has come since the beginning, and
		 * takes the place of one that was there, has none. */
		if (agent_reaches(self, to)) {
			e->waiting++;
			agent_send(self, to, run, &e->trace, 0);
		}
	}
}

/* ---- the end ---- */

static void on_closed(struct trace *t)
{
	struct entry *e = entry_of(t);

	e->traces->under_way--;
	tell(e, 0);
	forget(e);
}

static void on_ended(struct agent *self, void *object, uint64_t unused)
{
	struct scheduler *s = CONTAINER_OF(self, struct scheduler, base);
	struct trace *t = object;

	(void)unused;
	/* It has come, or come back, since the trace began. */
	if (s->trace.traces[t->slot] == t) {
		scheduler_trace_no_more(s, t);
	}
}

static void end(struct entry *e)
{
	e->ending = true;
	e->traces->under_way++;
	timer_cancel(&e->trace.timer);
	tell_schedulers(e, on_ended);
}

static void on_time(struct timer *timer)
{
	end(entry_of(CONTAINER_OF(timer, struct trace, timer)));
}

int traces_end(struct traces *ts, uint64_t number, traces_done_fn done, void *context)
{
	for (unsigned i = 0; i < TRACES_MAX; i++) {
		struct entry *e = ts->slots[i] != NULL ? entry_of(ts->slots[i]) : NULL;

		if (e == NULL || e->trace.number != number) {
			continue;
		}
		if (!e->begun || e->ending || ts->stopping) {
			return -EAGAIN;
		}
		e->done = done;
		e->context = context;
		end(e);
		return 0;
	}
	return -ENOENT;
}

/* ---- the beginning ---- */

/* On the console's scheduler: one more listens. */
static void on_listens(struct agent *self, void *object, uint64_t unused)
{
	struct entry *e = entry_of(object);

	(void)unused;
	if (--e->waiting > 0) {
		return;
	}
	e->begun = true;
	e->traces->under_way--;
	if (!e->traces->stopping) {
		timer_arm(&e->trace.timer, agent_now_ms(self) + e->trace.spec.time_ms);
	}
	tell(e, 0);
}

static void on_begun(struct agent *self, void *object, uint64_t unused)
{
	struct trace *t = object;

	(void)unused;
	scheduler_trace(CONTAINER_OF(self, struct scheduler, base), t);
	agent_send(self, t->owner, on_listens, t, 0);
}

static void on_opened(struct trace *t, int result)
{
	struct entry *e = entry_of(t);
	struct traces *ts = e->traces;

	ts->opening = false;
	if (result != 0) {
		ts->under_way--;
		tell(e, result);
		forget(e);
		return;
	}
	ts->last_number = t->number;
	t->until_wall_ms = agent_wall_ms(t->owner) + t->spec.time_ms;
	tell_schedulers(e, on_begun);
	/* Before anybody has heard of it. */
	t->users = e->waiting;
}

int traces_begin(struct traces *ts, const struct trace_spec *spec, traces_done_fn done,
		 void *context)
{
	struct agent *self = &ts->scheduler->base;
	struct program *p = program_of(ts);
	struct entry *e;
	unsigned slot = 0;

	if (p->log == NULL || ts->stopping) {
		return -ENOTSUP;
	}
	if (ts->opening) {
		return -EAGAIN;
	}
	while (slot < TRACES_MAX && ts->slots[slot] != NULL) {
		slot++;
	}
	if (slot == TRACES_MAX) {
		return -EBUSY;
	}
	e = check_memory(
		aligned_alloc(CACHE_LINE, (sizeof(*e) + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE),
		"a trace");
	memset(e, 0, sizeof(*e));
	e->traces = ts;
	e->done = done;
	e->context = context;
	e->trace.magic = TRACE_MAGIC;
	e->trace.spec = *spec;
	e->trace.slot = slot;
	e->trace.number = ts->last_number + 1;
	e->trace.owner = self;
	e->trace.fd = -1;
	e->trace.on_opened = on_opened;
	e->trace.on_closed = on_closed;
	text_copy(e->trace.path, sizeof(e->trace.path), ts->scheduler->global->log_path);
	timer_init(&e->trace.timer, self, on_time);
	ts->slots[slot] = &e->trace;
	ts->under_way++;
	ts->opening = true;
	agent_send(self, p->log, trace_file_on_open, &e->trace, 0);
	return 0;
}

/* ---- life ---- */

void traces_init(struct traces *ts, struct scheduler *s)
{
	*ts = (struct traces){.scheduler = s};
}

void traces_stop(struct traces *ts)
{
	ts->stopping = true;
	for (unsigned i = 0; i < TRACES_MAX; i++) {
		if (ts->slots[i] != NULL) {
			timer_cancel(&ts->slots[i]->timer);
		}
	}
}

void traces_close(struct traces *ts)
{
	for (unsigned i = 0; i < TRACES_MAX; i++) {
		struct trace *t = ts->slots[i];

		if (t != NULL) {
			close(t->fd);
			forget(entry_of(t));
		}
	}
}
