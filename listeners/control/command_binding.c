/*
 * Commands about bindings: what each has queued and sent, and orders to all that it has. Each
 * scheduler has a record of every binding; what they say is added up by name.
 */
#include "listeners/control/command.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "core/runtime/check.h"
#include "listeners/control/rounds.h"

/* Of the domain records of one binding on one scheduler. */
SINGLE
struct binding_sums {
	uint64_t domains;
	uint64_t connections;
	uint64_t active;
	uint64_t delayed;
	uint64_t held;
};

static const char *const numbers[] = {"domains",  "connections", "active", "delayed",  "held",
				      "received", "delivered",   "failed", "transient"};

/* ---- sums ---- */

/* Records may be added while the walk goes on. */
static struct binding_sums *sums_of(struct part *p, const struct binding_record *b)
{
	if (b->index >= p->sum_count) {
		uint32_t count = b->index + 1;

		p->sums = check_memory(realloc(p->sums, count * sizeof(*p->sums)),
				       "the answer to a command");
		memset(p->sums + p->sum_count, 0, (count - p->sum_count) * sizeof(*p->sums));
		p->sum_count = count;
	}
	return &p->sums[b->index];
}

static void add_domain(struct part *p, struct scheduler *s, struct domain *d)
{
	struct binding_sums *sums = sums_of(p, d->binding_record);

	(void)s;
	sums->domains++;
	sums->connections += d->connection_count;
	sums->active += (uint64_t)d->active_count + d->attempt_count;
	sums->delayed += d->delayed_count;
	sums->held += d->held_count;
}

/* ---- the list ---- */

static const char *state_of(const struct binding_record *b)
{
	return !b->configured ? "not configured" : binding_is_suspended(b) ? "suspended" : "";
}

/* By its own name, or that of its group. */
static bool is_asked_for(const struct order *o, const struct binding_record *b)
{
	return o->binding == NULL || strcmp(o->binding, b->name) == 0 ||
	       strcmp(o->binding, binding_group_name(b)) == 0;
}

static void write_row(struct part *p, const struct binding_record *b)
{
	const struct binding_sums *sums = sums_of(p, b);
	json_t *row = value_object();

	value_set_text(row, "binding", b->name);
	value_set_text(row, "group", binding_group_name(b));
	value_set_number(row, "weight", b->weight);
	value_set_text(row, "state", state_of(b));
	value_set_number(row, "domains", sums->domains);
	value_set_number(row, "connections", sums->connections);
	value_set_number(row, "active", sums->active);
	value_set_number(row, "delayed", sums->delayed);
	value_set_number(row, "held", sums->held);
	value_set_number(row, "received", b->received);
	value_set_number(row, "delivered", b->delivered);
	value_set_number(row, "failed", b->failed);
	value_set_number(row, "transient", b->transient);
	value_append(p->json, row);
}

static bool list_step(struct part *p, struct agent *self)
{
	const struct binding_table *t = &order_scheduler_of(self)->dispatcher.bindings;

	if (p->bucket_count != order_scheduler_of(self)->dispatcher.domains.bucket_count) {
		/* The walk starts, or does so anew. */
		p->sum_count = 0;
	}
	if (!part_walk(p, self, ORDER_RECORDS_PER_STEP, add_domain)) {
		return false;
	}
	p->json = value_array();
	for (uint32_t i = 0; i < t->count; i++) {
		if (is_asked_for(p->order, t->records[i])) {
			write_row(p, t->records[i]);
		}
	}
	return true;
}

static void add_numbers(json_t *to, const json_t *from)
{
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		json_t *sum = json_object_get(to, numbers[i]);

		json_integer_set(sum, json_integer_value(sum) + json_integer_value(json_object_get(
									from, numbers[i])));
	}
}

/* Rows of all schedulers, one for each binding. */
static json_t *add_up(const struct order *o)
{
	json_t *rows = value_array();
	json_t *by_name = value_object();
	json_t *row;
	size_t i;

	for (uint32_t n = 0; n < o->part_count; n++) {
		json_array_foreach(o->parts[n].json, i, row)
		{
			const char *name = json_string_value(json_object_get(row, "binding"));
			json_t *first = json_object_get(by_name, name);

			if (first != NULL) {
				add_numbers(first, row);
			} else {
				json_object_set(by_name, name, row);
				value_append(rows, json_incref(row));
			}
		}
	}
	json_decref(by_name);
	return rows;
}

static void fail_unknown(struct order *o, const char *name)
{
	order_fail(o, "no binding \"%.64s\"; \"bindings\" lists what there is", name);
}

static void merge_list(struct order *o)
{
	json_t *rows = add_up(o);
	json_t *v;

	if (json_array_size(rows) == 0) {
		json_decref(rows);
		fail_unknown(o, o->binding);
		return;
	}
	v = value_object();
	value_set(v, "bindings", rows);
	order_answer(o, v);
}

void command_bindings(struct order *o)
{
	o->binding = o->argument_count > 0 ? o->arguments[0] : NULL;
	order_on_schedulers(o, list_step, merge_list);
}

/* ---- one ---- */

static json_t *addresses_of(const struct domain_options *options)
{
	json_t *list = value_array();
	char text[INET6_ADDRSTRLEN];

	for (uint32_t i = 0; i < options->bind_address_count; i++) {
		const struct in6_addr *ip = &options->bind_addresses[i];
		bool v4 = IN6_IS_ADDR_V4MAPPED(ip);

		inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? ip->s6_addr + 12 : ip->s6_addr, text,
			  sizeof(text));
		value_append(list, value_text(text));
	}
	return list;
}

static void merge_one(struct order *o)
{
	struct dispatcher *x = &o->scheduler->dispatcher;
	json_t *rows = add_up(o);
	json_t *v = NULL;
	json_t *row;
	size_t i;

	json_array_foreach(rows, i, row)
	{
		if (strcmp(json_string_value(json_object_get(row, "binding")), o->binding) == 0) {
			v = json_incref(row);
		}
	}
	json_decref(rows);
	if (v == NULL) {
		fail_unknown(o, o->binding);
		return;
	}
	if (binding_find(&x->bindings, o->binding) != NULL) {
		const struct domain_options *options =
			x->ops->options(x, binding_find(&x->bindings, o->binding), NULL, NULL);

		value_set(v, "bind_addresses", addresses_of(options));
		value_set_text(v, "ehlo_hostname", options->ehlo_hostname);
		value_set_number(v, "max_outbound_connections", options->max_outbound_connections);
	}
	order_answer(o, v);
}

void command_binding_show(struct order *o)
{
	o->binding = o->arguments[0];
	order_on_schedulers(o, list_step, merge_one);
}

/* ---- orders to all records of one ---- */

/* Records whose mail one step begins to fail: some of each is failed at once. */
#define FAILED_PER_STEP 8

enum { RECORDS, MESSAGES, ACTIVE, DELAYED, KNOWN };

static bool is_of(const struct part *p, const struct domain *d)
{
	return strcmp(d->binding, p->order->binding) == 0;
}

static void count(struct part *p, const struct domain *d)
{
	p->totals[RECORDS]++;
	p->totals[ACTIVE] += d->active_count;
	p->totals[DELAYED] += d->delayed_count;
}

/* On every scheduler, where it is known. */
static struct binding_record *known(struct part *p, struct agent *self)
{
	struct binding_record *b =
		binding_find(&order_scheduler_of(self)->dispatcher.bindings, p->order->binding);

	/* The walk starts its totals anew. */
	p->totals[KNOWN] = b != NULL;
	return b;
}

static void obey_one(struct part *p, struct scheduler *s, struct domain *d)
{
	if (is_of(p, d)) {
		dispatch_binding_order(&s->dispatcher, d);
		count(p, d);
	}
}

/* o->flag: suspend, or resume. */
static bool suspend_step(struct part *p, struct agent *self)
{
	struct binding_record *b = known(p, self);
	enum binding_order wanted = p->order->flag ? BINDING_SUSPENDED : BINDING_RESUMED;
	bool done = b == NULL;

	/* Said again, it has another end. */
	if (b != NULL && (b->order != wanted || p->bucket_count == UINT32_MAX)) {
		dispatch_order_binding(&order_scheduler_of(self)->dispatcher, b, wanted,
				       command_suspension(p->order, self));
	}
	done = done || part_walk(p, self, ORDER_ROWS_PER_STEP, obey_one);
	known(p, self);
	return done;
}

static json_t *begin_answer(struct order *o)
{
	json_t *v;

	if (order_total(o, KNOWN) == 0) {
		fail_unknown(o, o->binding);
		return NULL;
	}
	v = value_object();
	value_set_text(v, "binding", o->binding);
	return v;
}

static void merge_suspend(struct order *o)
{
	json_t *v = begin_answer(o);

	if (v != NULL) {
		value_set_text(v, "state", o->flag ? "suspended" : "resumed");
		if (o->until_ms != 0) {
			value_set_time(v, "until_at", o->until_ms);
		}
		value_set_number(v, "domains", order_total(o, RECORDS));
		value_set_number(v, "active", order_total(o, ACTIVE));
		value_set_number(v, "delayed", order_total(o, DELAYED));
		order_answer(o, v);
	}
}

void command_binding_suspend(struct order *o)
{
	o->flag = true;
	if (command_until(o, 1)) {
		o->binding = o->arguments[0];
		order_on_schedulers(o, suspend_step, merge_suspend);
	}
}

void command_binding_resume(struct order *o)
{
	o->binding = o->arguments[0];
	order_on_schedulers(o, suspend_step, merge_suspend);
}

/* A record that travels meanwhile is reached, too. */
static void flush_one(struct part *p, struct scheduler *s, struct domain *d)
{
	if (is_of(p, d) && (d->delayed_count != 0 || d->active_count != 0)) {
		count(p, d);
		p->totals[MESSAGES] += d->delayed_count;
		dispatch_flush(&s->dispatcher, d);
	}
}

static bool flush_step(struct part *p, struct agent *self)
{
	bool done = rounds_walk(p, self, ORDER_ROWS_PER_STEP, flush_one);

	known(p, self);
	return done;
}

static void merge_flush(struct order *o)
{
	json_t *v = begin_answer(o);

	if (v != NULL) {
		value_set_number(v, "domains", order_total(o, RECORDS));
		value_set_number(v, "messages_flushed", order_total(o, MESSAGES));
		rounds_set_trouble(o, v);
		order_answer(o, v);
	}
}

void command_binding_flush(struct order *o)
{
	o->binding = o->arguments[0];
	rounds_begin(o, flush_step, merge_flush, false);
}

static void fail_one(struct part *p, struct scheduler *s, struct domain *d)
{
	if (is_of(p, d)) {
		count(p, d);
		p->totals[MESSAGES] += dispatch_fail(&s->dispatcher, d, p->order->flag);
	}
}

static bool fail_step(struct part *p, struct agent *self)
{
	bool done = rounds_walk(p, self, FAILED_PER_STEP, fail_one);

	known(p, self);
	return done;
}

static void merge_fail(struct order *o)
{
	json_t *v = begin_answer(o);

	if (v != NULL) {
		value_set_number(v, "domains", order_total(o, RECORDS));
		value_set_number(v, "messages_failed", order_total(o, MESSAGES));
		rounds_set_trouble(o, v);
		order_answer(o, v);
	}
}

void command_binding_fail(struct order *o)
{
	if (command_fail_selects(o)) {
		return;
	}
	if (o->argument_count > 2) {
		command_fail_usage(o);
		return;
	}
	o->binding = o->arguments[0];
	if (command_flag(o, 1, "quiet")) {
		rounds_begin(o, fail_step, merge_fail, true);
	}
}
