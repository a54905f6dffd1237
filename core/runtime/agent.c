#include "core/runtime/agent.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/runtime/group.h"
#include "core/runtime/runtime.h"

_Thread_local struct agent *agent_current;

void agent_init(struct agent *a, const struct agent_ops *ops, const char *name, uint8_t stop_phase)
{
	memset(a, 0, sizeof *a);
	a->magic = AGENT_MAGIC;
	a->ops = ops;
	a->name = name;
	a->stop_phase = stop_phase;
	a->timers.free_slot = TIMER_NO_SLOT;
	ASSERT(ops->do_work != NULL);
	ASSERT(errlog_init(&a->errors) == 0);
	a->counters = counter_set_create(name);
	a->tasks_run = counter_create(a->counters, "tasks", COUNTER_SUM,
				      "Tasks that other agents sent and this one ran");
	a->cycles_work = counter_create(a->counters, "cycles_work", COUNTER_SUM,
					"Duty cycles that found work");
	a->cycles_idle = counter_create(a->counters, "cycles_idle", COUNTER_SUM,
					"Duty cycles that found none");
	a->cycle_max_ns =
		counter_create(a->counters, "cycle_max_ns", COUNTER_MAX, "Longest duty cycle, ns");
	a->stalls = counter_create(a->counters, "stalls", COUNTER_SUM,
				   "Duty cycles longer than stall_threshold");
	a->overflow_max = counter_create(a->counters, "overflow_max", COUNTER_MAX,
					 "Most tasks that ever waited for room in one ring");
}

static void overflow_push(struct agent *self, struct link *l, const struct task *t)
{
	if (l->overflow_count == l->overflow_slots) {
		uint32_t slots = l->overflow_slots == 0 ? 64 : l->overflow_slots * 2;
		struct task *grown = calloc(slots, sizeof *grown);

		if (grown == NULL) {
			fatal("out of memory for %u tasks that wait for a ring", slots);
		}
		for (uint32_t i = 0; i < l->overflow_count; i++) {
			grown[i] = l->overflow[(l->overflow_head + i) & (l->overflow_slots - 1)];
		}
		free(l->overflow);
		l->overflow = grown;
		l->overflow_head = 0;
		l->overflow_slots = slots;
	}
	l->overflow[(l->overflow_head + l->overflow_count++) & (l->overflow_slots - 1)] = *t;
	counter_max(self->overflow_max, l->overflow_count);
}

void agent_send(struct agent *self, struct agent *to, task_fn run, void *object, uint64_t value)
{
	struct link *l = self->out[to->id];
	struct task t = {run, object, value};

	ASSERT(l != NULL);
	ASSERT(agent_current == self || agent_current == NULL);
	if (l->overflow_count != 0 || !task_ring_put(&l->ring, &t)) {
		overflow_push(self, l, &t);
	}
	self->out_dirty |= UINT64_C(1) << to->id;
}

/* Moves what the ring has room for; true when nothing waits any more. */
static bool overflow_retry(struct link *l)
{
	while (l->overflow_count != 0) {
		if (!task_ring_put(&l->ring, &l->overflow[l->overflow_head])) {
			return false;
		}
		l->overflow_head = (l->overflow_head + 1) & (l->overflow_slots - 1);
		l->overflow_count--;
	}
	return true;
}

void agent_flush(struct agent *self)
{
	uint64_t dirty = self->out_dirty;
	uint64_t remaining = 0;
	bool pressure = false;

	while (dirty != 0) {
		unsigned id = (unsigned)__builtin_ctzll(dirty);
		struct link *l = self->out[id];
		struct agent *to = l->to;

		dirty &= dirty - 1;
		if (!overflow_retry(l)) {
			remaining |= UINT64_C(1) << id;
			pressure |= l->overflow_count > LINK_HIGH_WATER;
		}
		task_ring_publish(&l->ring);
		/* Pairs with the exchange in take_input(): what was published is seen by who takes
		 * the bit. */
		atomic_fetch_or_explicit(&to->in_bits, UINT64_C(1) << self->id,
					 memory_order_release);
		if (to->group != self->group) {
			doorbell_ring(&to->group->doorbell);
		}
	}
	self->out_dirty = remaining;
	self->pressure = pressure;
}

static void take_input(struct agent *self)
{
	if (atomic_load_explicit(&self->in_bits, memory_order_relaxed) == 0) {
		return;
	}
	/* Who sees the bits gone sees that the agent has not drained: pairs with the loads in
	 * agent_quiet(). */
	if (atomic_load_explicit(&self->state, memory_order_relaxed) == AGENT_DRAINED) {
		atomic_store_explicit(&self->state, AGENT_STOPPING, memory_order_relaxed);
	}
	self->in_pending |= atomic_exchange_explicit(&self->in_bits, 0, memory_order_acq_rel);
}

/* Runs at most AGENT_DRAIN_LIMIT tasks of one sender; false when its ring holds more. */
static bool drain_link(struct agent *self, struct link *l, int *work)
{
	struct task t;

	self->sender = l->from;
	for (int i = 0; i < AGENT_DRAIN_LIMIT; i++) {
		if (!task_ring_receive(&l->ring, &t)) {
			return true;
		}
		t.run(self, t.object, t.value);
		++*work;
	}
	return task_ring_empty(&l->ring);
}

static int drain_input(struct agent *self)
{
	uint64_t pending;
	int work = 0;

	take_input(self);
	pending = self->in_pending;
	while (pending != 0) {
		unsigned id = (unsigned)__builtin_ctzll(pending);

		pending &= pending - 1;
		if (drain_link(self, self->in[id], &work)) {
			self->in_pending &= ~(UINT64_C(1) << id);
		}
	}
	self->sender = NULL;
	counter_add(self->tasks_run, (uint64_t)work);
	return work;
}

bool agent_has_input(struct agent *self)
{
	if (atomic_load_explicit(&self->state, memory_order_relaxed) < AGENT_RUNNING) {
		return false;
	}
	return self->in_pending != 0 ||
	       atomic_load_explicit(&self->in_bits, memory_order_relaxed) != 0;
}

static void track_cycle(struct agent *self, int work, uint64_t began_ns)
{
	uint64_t took_ns;

	if (work == 0) {
		counter_inc(self->cycles_idle);
		return;
	}
	counter_inc(self->cycles_work);
	took_ns = self->clock->monotonic_ns(self->clock->context) - began_ns;
	counter_max(self->cycle_max_ns, took_ns);
	if (took_ns > self->stall_ns) {
		counter_inc(self->stalls);
	}
}

int agent_duty(struct agent *self, struct instant now)
{
	int work;

	agent_current = self;
	agent_role_assert();
	self->now = now;
	work = drain_input(self);
	work += self->ops->do_work(self);
	agent_flush(self);
	track_cycle(self, work, now.mono_ns);
	agent_current = NULL;
	return work;
}

void agent_error(struct agent *self, int code, const char *format, ...)
{
	char text[ERRLOG_TEXT];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	errlog_record(&self->errors, self->now.wall_ns, code, "%s", text);
}

static uint64_t ring_depth(const struct agent *from, const struct agent *to)
{
	const struct link *l =
		atomic_load_explicit(&from->runtime->links[from->id][to->id], memory_order_acquire);

	return l != NULL ? task_ring_depth(&l->ring) : 0;
}

uint64_t agent_ring_depth_in(const struct agent *a)
{
	uint64_t depth = 0;

	for (uint32_t i = 0; i < a->runtime->agent_count; i++) {
		depth += ring_depth(a->runtime->agents[i], a);
	}
	return depth;
}

uint64_t agent_ring_depth_out(const struct agent *a)
{
	uint64_t depth = 0;

	for (uint32_t i = 0; i < a->runtime->agent_count; i++) {
		depth += ring_depth(a, a->runtime->agents[i]);
	}
	return depth;
}

void agent_close(struct agent *a)
{
	timer_client_close(&a->timers);
	errlog_close(&a->errors);
	counter_set_destroy(a->counters);
	a->counters = NULL;
}
