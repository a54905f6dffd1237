#include "listeners/control/order.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "listeners/control/selection.h"

/* ---- life ---- */

void order_client_init(struct order_client *client, const struct scheduler *s)
{
	memset(client, 0, sizeof(*client));
	client->started_ms = agent_now_ms(&s->base);
	client->rated_ms = client->started_ms;
}

struct order *order_create(struct order_client *client, struct scheduler *s, const char *line,
			   size_t len)
{
	struct order *o = check_memory(calloc(1, sizeof(*o)), "a command");

	ASSERT(len <= ORDER_LINE_MAX);
	o->magic = ORDER_MAGIC;
	o->client = client;
	o->scheduler = s;
	o->program = s->program;
	memcpy(o->line, line, len);
	memcpy(o->split, o->line, sizeof(o->split));
	client->orders++;
	return o;
}

static void order_destroy(struct order *o)
{
	for (uint32_t i = 0; i < o->part_count; i++) {
		json_decref(o->parts[i].json);
		free(o->parts[i].text);
		free(o->parts[i].sums);
		free(o->parts[i].found);
		selection_walk_free(o->parts[i].selection);
	}
	selection_free(o);
	free(o->parts);
	reply_close(&o->reply);
	o->client->orders--;
	o->magic = 0;
	free(o);
}

static void end_patience(struct order *o)
{
	if (o->patience.owner != NULL) {
		timer_cancel(&o->patience);
	}
}

void order_release(struct order *o)
{
	CHECK_MAGIC(o, ORDER_MAGIC);
	end_patience(o);
	o->on_answer = NULL;
	o->released = true;
	if (o->waiting == 0) {
		order_destroy(o);
	}
}

/* ---- answers ---- */

static void answered(struct order *o)
{
	ASSERT(!o->answered);
	o->answered = true;
	if (o->on_answer != NULL) {
		o->on_answer(o->context, o);
	}
}

static void reply_value(struct order *o, json_t *value)
{
	char *text = value_dump(value);

	reply_take(&o->reply, text, strlen(text));
	json_decref(value);
}

struct config *order_config(const struct order *o)
{
	return o->scheduler->config;
}

void order_answer(struct order *o, json_t *result)
{
	reply_text(&o->reply, "{\"ok\":true,\"result\":");
	reply_value(o, result);
	reply_text(&o->reply, "}\n");
	answered(o);
}

static void fail_text(struct order *o, enum order_outcome outcome, const char *text)
{
	json_t *answer = value_object();

	o->outcome = outcome;
	value_set_bool(answer, "ok", false);
	value_set_text(answer, "error", text);
	reply_value(o, answer);
	reply_text(&o->reply, "\n");
	answered(o);
}

static void fail(struct order *o, enum order_outcome outcome, const char *format, va_list args)
{
	char text[ORDER_LINE_MAX + 512];

	vsnprintf(text, sizeof(text), format, args);
	fail_text(o, outcome, text);
}

void order_fail(struct order *o, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fail(o, ORDER_NOT_FOUND, format, args);
	va_end(args);
}

void order_fail_lines(struct order *o, const char *text)
{
	fail_text(o, ORDER_BAD_USAGE, text);
}

void order_fail_usage(struct order *o, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fail(o, ORDER_BAD_USAGE, format, args);
	va_end(args);
}

static void reply_rows(struct order *o)
{
	bool first = true;

	for (uint32_t i = 0; i < o->part_count; i++) {
		struct part *p = &o->parts[i];

		if (!p->back || p->text_len == 0) {
			continue;
		}
		if (!first) {
			reply_text(&o->reply, ",");
		}
		reply_take(&o->reply, p->text, p->text_len);
		p->text = NULL;
		first = false;
	}
}

void order_answer_rows(struct order *o, const char *key, const char *more_key, json_t *more)
{
	reply_text(&o->reply, "{\"ok\":true,\"result\":{\"");
	reply_text(&o->reply, key);
	reply_text(&o->reply, "\":[");
	reply_rows(o);
	reply_text(&o->reply, "]");
	if (more != NULL) {
		reply_text(&o->reply, ",\"");
		reply_text(&o->reply, more_key);
		reply_text(&o->reply, "\":");
		reply_value(o, more);
	}
	reply_text(&o->reply, "}}\n");
	answered(o);
}

/* ---- parts ---- */

/* On the order's scheduler: a part is back. */
static void on_back(struct agent *self, void *object, uint64_t unused)
{
	struct part *p = object;
	struct order *o = p->order;

	(void)unused;
	CHECK_MAGIC(o, ORDER_MAGIC);
	ASSERT(self == &o->scheduler->base && o->waiting > 0);
	p->back = true;
	if (--o->waiting > 0) {
		return;
	}
	end_patience(o);
	if (o->released) {
		order_destroy(o);
	} else if (!o->answered) {
		o->merge(o);
	}
}

void part_complete(struct part *p, struct agent *self)
{
	agent_send(self, &p->order->scheduler->base, on_back, p, 0);
}

/* On the part's agent. A task that an agent sends to itself may run in the same duty cycle: then
 * it only goes round. */
static void on_step(struct agent *self, void *object, uint64_t unused)
{
	struct part *p = object;

	(void)unused;
	if (p->cycle_ns != self->now.mono_ns) {
		if (p->cycle_ns == 0) {
			/* Another group's clock may be a little behind. */
			p->late_ns =
				self->now.mono_ns > p->sent_ns ? self->now.mono_ns - p->sent_ns : 0;
		}
		p->cycle_ns = self->now.mono_ns;
		if (p->order->step(p, self)) {
			part_complete(p, self);
			return;
		}
		if (p->pass_to != NULL) {
			struct agent *to = p->pass_to;

			p->pass_to = NULL;
			p->cycle_ns = 0;
			p->sent_ns = self->now.mono_ns;
			if (agent_reaches(self, to)) {
				agent_send(self, to, on_step, p, 0);
			} else {
				part_complete(p, self);
			}
			return;
		}
		if (p->waits) {
			return;
		}
	}
	agent_send(self, self, on_step, p, 0);
}

void part_resume(struct part *p, struct agent *self)
{
	ASSERT(p->waits);
	p->waits = false;
	agent_send(self, self, on_step, p, 0);
}

static void parts_make(struct order *o, uint32_t count, order_step_fn step, order_merge_fn merge)
{
	ASSERT(o->parts == NULL && count > 0);
	o->step = step;
	o->merge = merge;
	/* Schedulers may join meanwhile, and parts stay where they are. */
	o->parts = check_memory(
		calloc(count > SCHEDULERS_MAX ? count : SCHEDULERS_MAX, sizeof(*o->parts)),
		"a command");
	o->part_count = count;
	o->waiting = count;
}

static void part_send(struct order *o, uint32_t index, struct agent *to)
{
	struct part *p = &o->parts[index];

	p->order = o;
	p->agent = to;
	p->bucket_count = UINT32_MAX;
	p->moves = 0;
	p->unwritten = 0;
	p->sent_ns = o->scheduler->base.now.mono_ns;
	/* Who has left, or is about to, has nothing to add. */
	if (agent_reaches(&o->scheduler->base, to)) {
		agent_send(&o->scheduler->base, to, on_step, p, 0);
	} else {
		part_complete(p, &o->scheduler->base);
	}
}

void order_on_schedulers(struct order *o, order_step_fn step, order_merge_fn merge)
{
	parts_make(o, o->program->scheduler_count, step, merge);
	for (uint32_t i = 0; i < o->part_count; i++) {
		part_send(o, i, &o->program->schedulers[i]->base);
	}
}

void order_again(struct order *o, order_step_fn step, order_merge_fn merge)
{
	ASSERT(o->waiting == 0 && o->part_count > 0);
	o->step = step;
	o->merge = merge;
	o->waiting = o->part_count;
	for (uint32_t i = 0; i < o->part_count; i++) {
		o->parts[i].back = false;
		o->parts[i].waits = false;
		o->parts[i].cycle_ns = 0;
		part_send(o, i, o->parts[i].agent);
	}
}

void order_take_on(struct order *o)
{
	ASSERT(o->waiting == 0);
	while (o->part_count < o->program->scheduler_count) {
		o->parts[o->part_count].agent = &o->program->schedulers[o->part_count]->base;
		o->part_count++;
	}
}

void order_on_agent(struct order *o, struct agent *agent, order_step_fn step, order_merge_fn merge)
{
	parts_make(o, 1, step, merge);
	part_send(o, 0, agent);
}

void order_wait(struct order *o)
{
	o->waiting++;
}

bool order_back(struct order *o)
{
	CHECK_MAGIC(o, ORDER_MAGIC);
	ASSERT(o->waiting > 0);
	o->waiting--;
	if (o->released) {
		order_destroy(o);
		return false;
	}
	return true;
}

void order_on_scheduler(struct order *o, uint32_t index, order_step_fn step, order_merge_fn merge)
{
	ASSERT(index < o->program->scheduler_count);
	order_on_agent(o, &o->program->schedulers[index]->base, step, merge);
}

static void on_impatient(struct timer *t)
{
	struct order *o = CONTAINER_OF(t, struct order, patience);

	if (!o->answered) {
		o->merge(o);
	}
}

void order_on_agents(struct order *o, uint64_t patience_ms, order_step_fn step,
		     order_merge_fn merge)
{
	struct runtime *rt = &o->program->runtime;
	struct agent *self = &o->scheduler->base;

	parts_make(o, rt->agent_count, step, merge);
	timer_init(&o->patience, self, on_impatient);
	timer_arm(&o->patience, agent_now_ms(self) + patience_ms);
	for (uint32_t i = 0; i < o->part_count; i++) {
		part_send(o, i, rt->agents[i]);
	}
}

static int append_text(const char *text, size_t len, void *context)
{
	struct part *p = context;

	if (p->text_len + len > p->text_size) {
		size_t size = p->text_size == 0 ? 4096 : p->text_size;

		while (size < p->text_len + len) {
			size *= 2;
		}
		p->text = check_memory(realloc(p->text, size), "the answer to a command");
		p->text_size = size;
	}
	memcpy(p->text + p->text_len, text, len);
	p->text_len += len;
	return 0;
}

void part_row(struct part *p, json_t *row)
{
	if (p->text_len != 0) {
		append_text(",", 1, p);
	}
	json_dump_callback(row, append_text, p, JSON_COMPACT | JSON_REAL_PRECISION(12));
	json_decref(row);
}

struct scheduler *order_scheduler_of(struct agent *self)
{
	return CONTAINER_OF(self, struct scheduler, base);
}

void part_walk_restart(struct part *p, uint32_t bucket_count)
{
	p->bucket = 0;
	p->bucket_count = bucket_count;
	p->text_len = 0;
	memset(p->totals, 0, sizeof(p->totals));
}

bool part_walk(struct part *p, struct agent *self, uint32_t limit, order_domain_fn each)
{
	struct scheduler *s = order_scheduler_of(self);
	const struct domain_table *t = &s->dispatcher.domains;
	uint32_t seen = 0;

	if (p->bucket_count != t->bucket_count) {
		part_walk_restart(p, t->bucket_count);
	}
	while (p->bucket < p->bucket_count && seen < limit) {
		struct domain *next;

		for (struct domain *d = t->buckets[p->bucket]; d != NULL; d = next) {
			next = d->hash_next;
			each(p, s, d);
			seen++;
			if (p->bucket_count != t->bucket_count) {
				return false;
			}
		}
		p->bucket++;
		/* Empty buckets cost something too. */
		seen += p->bucket % 16 == 0;
	}
	return p->bucket == p->bucket_count;
}

uint64_t order_total(const struct order *o, unsigned index)
{
	uint64_t total = 0;

	ASSERT(index < ORDER_TOTALS);
	for (uint32_t i = 0; i < o->part_count; i++) {
		total += o->parts[i].totals[index];
	}
	return total;
}
