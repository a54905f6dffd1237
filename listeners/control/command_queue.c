/*
 * Lists of domain records. Each scheduler writes its own rows, so many in a duty cycle.
 */
#include "listeners/control/command.h"

#include <stdlib.h>
#include <string.h>

#include "listeners/control/rounds.h"
#include "listeners/control/selection.h"

#define MAILQ_ROWS 20
#define MAILQ_ROWS_MAX 1000

enum { RECORDS, CONNECTIONS, ACTIVE, DELAYED, DELIVERED, FAILED, TRANSIENT, HELD };

static void write_row(struct part *p, const struct scheduler *s, const struct domain *d)
{
	json_t *row = value_object();

	value_set_text(row, "domain", d->name);
	value_set_text(row, "binding", d->binding);
	value_set_number(row, "connections", d->connection_count);
	value_set_number(row, "active", d->active_count);
	value_set_number(row, "delayed", d->delayed_count);
	value_set_number(row, "held", d->held_count);
	value_set_number(row, "delivered", d->delivered);
	value_set_number(row, "failed", d->failed);
	value_set_number(row, "transient", d->transient);
	value_set_text(row, "held_by", command_held_by(s, d));
	part_row(p, row);
}

static void add_totals(struct part *p, const struct domain *d)
{
	p->totals[RECORDS]++;
	p->totals[CONNECTIONS] += d->connection_count;
	p->totals[ACTIVE] += d->active_count;
	p->totals[DELAYED] += d->delayed_count;
	p->totals[HELD] += d->held_count;
	p->totals[DELIVERED] += d->delivered;
	p->totals[FAILED] += d->failed;
	p->totals[TRANSIENT] += d->transient;
}

static json_t *totals_of(const struct order *o)
{
	json_t *v = value_object();

	value_set_number(v, "domains", order_total(o, RECORDS));
	value_set_number(v, "connections", order_total(o, CONNECTIONS));
	value_set_number(v, "active", order_total(o, ACTIVE));
	value_set_number(v, "delayed", order_total(o, DELAYED));
	value_set_number(v, "held", order_total(o, HELD));
	value_set_number(v, "delivered", order_total(o, DELIVERED));
	value_set_number(v, "failed", order_total(o, FAILED));
	value_set_number(v, "transient", order_total(o, TRANSIENT));
	return v;
}

static void merge_rows(struct order *o)
{
	order_answer_rows(o, "domains", "totals", totals_of(o));
}

/* ---- all ---- */

static void each_row(struct part *p, struct scheduler *s, struct domain *d)
{
	add_totals(p, d);
	write_row(p, s, d);
}

static bool domains_step(struct part *p, struct agent *self)
{
	return part_walk(p, self, ORDER_ROWS_PER_STEP, each_row);
}

void command_domains(struct order *o)
{
	order_on_schedulers(o, domains_step, merge_rows);
}

/* ---- those with long queues ---- */

static void each_active(struct part *p, struct scheduler *s, struct domain *d)
{
	add_totals(p, d);
	if (d->active_count > p->order->number) {
		write_row(p, s, d);
	}
}

static bool active_step(struct part *p, struct agent *self)
{
	return part_walk(p, self, ORDER_ROWS_PER_STEP, each_active);
}

void command_active(struct order *o)
{
	if (command_number(o, 0)) {
		order_on_schedulers(o, active_step, merge_rows);
	}
}

static void each_delayed(struct part *p, struct scheduler *s, struct domain *d)
{
	add_totals(p, d);
	if (d->delayed_count > p->order->number) {
		write_row(p, s, d);
	}
}

static bool delayed_step(struct part *p, struct agent *self)
{
	return part_walk(p, self, ORDER_ROWS_PER_STEP, each_delayed);
}

void command_delayed(struct order *o)
{
	if (command_number(o, 0)) {
		order_on_schedulers(o, delayed_step, merge_rows);
	}
}

/* ---- the longest queues ---- */

/* What a row is sorted by. */
static uint64_t number_of(const json_t *row, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(row, key));
}

static uint64_t length_of(const json_t *row)
{
	return json_object_get(row, "matching") != NULL
		       ? number_of(row, "matching")
		       : number_of(row, "active") + number_of(row, "delayed") +
				 number_of(row, "held");
}

static json_t *mailq_row(struct scheduler *s, const struct domain *d)
{
	json_t *row = value_object();

	value_set_text(row, "binding", d->binding);
	value_set_text(row, "domain", d->name);
	value_set_number(row, "active", d->active_count);
	value_set_number(row, "delayed", d->delayed_count);
	value_set_number(row, "held", d->held_count);
	value_set_number(row, "connections", d->connection_count);
	value_set_text(row, "held_by", command_held_by(s, d));
	return row;
}

/* Is a queue of this length among the longest so far? p->json has at most order->number rows. */
static bool is_long(const struct part *p, uint64_t length)
{
	size_t count = json_array_size(p->json);

	return length > 0 &&
	       (count < p->order->number || length > length_of(json_array_get(p->json, count - 1)));
}

/* Keeps p->json sorted, longest first. */
static void insert_row(struct part *p, json_t *row, uint64_t length)
{
	size_t at = json_array_size(p->json);

	while (at > 0 && length_of(json_array_get(p->json, at - 1)) < length) {
		at--;
	}
	json_array_insert_new(p->json, at, row);
	if (json_array_size(p->json) > p->order->number) {
		json_array_remove(p->json, json_array_size(p->json) - 1);
	}
}

static void each_queue(struct part *p, struct scheduler *s, struct domain *d)
{
	uint64_t length = (uint64_t)d->active_count + d->delayed_count + d->held_count;

	if (p->order->binding != NULL && strcmp(p->order->binding, d->binding) != 0) {
		return;
	}
	add_totals(p, d);
	if (is_long(p, length)) {
		insert_row(p, p->order->row(s, d), length);
	}
}

void command_mailq_row(struct part *p, struct scheduler *s, const struct domain *d,
		       uint64_t matching)
{
	json_t *row;

	if (p->json == NULL) {
		p->json = value_array();
	}
	if (is_long(p, matching)) {
		row = mailq_row(s, d);
		value_set_number(row, "matching", matching);
		insert_row(p, row, matching);
	}
}

static bool mailq_step(struct part *p, struct agent *self)
{
	const struct domain_table *t = &order_scheduler_of(self)->dispatcher.domains;

	if (p->json == NULL || p->bucket_count != t->bucket_count) {
		json_decref(p->json);
		p->json = value_array();
	}
	return part_walk(p, self, ORDER_ROWS_PER_STEP, each_queue);
}

static int compare_length(const void *a, const void *b)
{
	uint64_t x = length_of(*(json_t *const *)a);
	uint64_t y = length_of(*(json_t *const *)b);

	return (x < y) - (x > y);
}

/* All rows, sorted; the caller frees the array, not the rows. */
static json_t **sorted_rows(const struct order *o, size_t *count)
{
	json_t **rows = calloc(o->part_count * (size_t)o->number + 1, sizeof(*rows));
	json_t *row;
	size_t i;

	*count = 0;
	for (uint32_t n = 0; rows != NULL && n < o->part_count; n++) {
		json_array_foreach(o->parts[n].json, i, row)
		{
			rows[(*count)++] = row;
		}
	}
	if (rows != NULL) {
		qsort(rows, *count, sizeof(json_t *), compare_length);
	}
	return rows;
}

static json_t *longest_rows(const struct order *o)
{
	size_t count;
	json_t **rows = sorted_rows(o, &count);
	json_t *queues = value_array();

	for (size_t i = 0; i < count && i < o->number; i++) {
		value_append(queues, json_incref(rows[i]));
	}
	free(rows);
	return queues;
}

static void merge_mailq(struct order *o)
{
	json_t *v = value_object();

	value_set(v, "queues", longest_rows(o));
	value_set(v, "totals", totals_of(o));
	order_answer(o, v);
}

void command_mailq_answer(struct order *o)
{
	json_t *v = value_object();

	value_set(v, "queues", longest_rows(o));
	value_set_number(v, "deliveries_matching", order_total(o, SELECTION_MATCHED));
	selection_set_gaps(v, o->selection);
	order_answer(o, v);
}

void command_longest(struct order *o)
{
	order_on_schedulers(o, mailq_step, merge_mailq);
}

void command_mailq(struct order *o)
{
	bool has_number = o->argument_count > 0 &&
			  o->arguments[0][strspn(o->arguments[0], "0123456789")] == '\0';
	unsigned first = has_number ? 1 : 0;

	o->number = MAILQ_ROWS;
	if (has_number && !command_number(o, 0)) {
		return;
	}
	if (o->number < 1 || o->number > MAILQ_ROWS_MAX) {
		order_fail_usage(o, "mailq shows 1 to %d queues", MAILQ_ROWS_MAX);
		return;
	}
	if (o->argument_count > first &&
	    (o->argument_count > first + 1 || strchr(o->arguments[first], '=') != NULL)) {
		selection_begin(o, SELECTION_MAILQ, first);
		return;
	}
	if (o->argument_count > first) {
		o->binding = o->arguments[first];
	}
	o->row = mailq_row;
	command_longest(o);
}

/* ---- flush ---- */

enum { FLUSHED_DOMAINS, FLUSHED_MESSAGES };

static void flush_one(struct part *p, struct scheduler *s, struct domain *d)
{
	if (d->delayed_count != 0 || d->active_count != 0) {
		p->totals[FLUSHED_DOMAINS]++;
		p->totals[FLUSHED_MESSAGES] += d->delayed_count;
		dispatch_flush(&s->dispatcher, d);
	}
}

static bool flush_step(struct part *p, struct agent *self)
{
	return rounds_walk(p, self, ORDER_ROWS_PER_STEP, flush_one);
}

static void merge_flush(struct order *o)
{
	json_t *v = value_object();

	value_set_number(v, "domains", order_total(o, FLUSHED_DOMAINS));
	value_set_number(v, "messages_flushed", order_total(o, FLUSHED_MESSAGES));
	rounds_set_trouble(o, v);
	order_answer(o, v);
}

void command_flush_all(struct order *o)
{
	rounds_begin(o, flush_step, merge_flush, false);
}
