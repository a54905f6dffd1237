/*
 * What `top` and the Tab key ask for: short answers, however many domain records there are.
 */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/runtime/check.h"
#include "listeners/control/command.h"

#define BUSIEST_ROWS 20
#define BUSIEST_ROWS_MAX 1000
#define NAMES_MAX 100

/* ---- the busiest ---- */

enum key { RATE, QUEUED, CONNECTIONS, KEYS };

static const char *const key_names[] = {"rate_per_s", "queued", "connections"};
/* What rows are sorted by; the first one that differs decides. */
static const enum key orders[][KEYS] = {
	{RATE, QUEUED, CONNECTIONS},
	{QUEUED, RATE, CONNECTIONS},
	{CONNECTIONS, RATE, QUEUED},
};
static const char *const order_words[] = {"rate", "queue", "connections"};

#define ORDERS (sizeof(orders) / sizeof(orders[0]))

static double key_of_row(const json_t *row, enum key key)
{
	return json_number_value(json_object_get(row, key_names[key]));
}

static const char *name_of_row(const json_t *row)
{
	return json_string_value(json_object_get(row, "domain"));
}

/* As its row would say. */
static double key_of(const struct scheduler *s, const struct domain *d, enum key key)
{
	switch (key) {
	case QUEUED:
		return (double)((uint64_t)d->active_count + d->delayed_count);
	case CONNECTIONS:
		return d->connection_count;
	case RATE:
	case KEYS:
		break;
	}
	return value_real(recent_per_s(&d->done, agent_now_ms(&s->base)));
}

/* Does row `a` come first? The domain's name makes it an order. */
static bool is_before(const struct order *o, const json_t *a, const json_t *b)
{
	for (unsigned i = 0; i < KEYS; i++) {
		double x = key_of_row(a, orders[o->sort][i]);
		double y = key_of_row(b, orders[o->sort][i]);

		if (x != y) {
			return x > y;
		}
	}
	return strcmp(name_of_row(a), name_of_row(b)) < 0;
}

/* Would the record's row be kept among `rows`? Most are not, and are not made. */
static bool is_busy(const struct order *o, const json_t *rows, const struct scheduler *s,
		    const struct domain *d)
{
	size_t count = json_array_size(rows);
	const json_t *last;

	if (count < o->number) {
		return true;
	}
	last = json_array_get(rows, count - 1);
	for (unsigned i = 0; i < KEYS; i++) {
		double x = key_of(s, d, orders[o->sort][i]);
		double y = key_of_row(last, orders[o->sort][i]);

		if (x != y) {
			return x > y;
		}
	}
	return strcmp(d->name, name_of_row(last)) < 0;
}

static json_t *row_of(const struct scheduler *s, const struct domain *d)
{
	json_t *row = value_object();

	value_set_text(row, "domain", d->name);
	value_set_text(row, "binding", d->binding);
	value_set_real(row, "rate_per_s", recent_per_s(&d->done, agent_now_ms(&s->base)));
	value_set_number(row, "queued", (uint64_t)d->active_count + d->delayed_count);
	value_set_number(row, "active", d->active_count);
	value_set_number(row, "delayed", d->delayed_count);
	value_set_number(row, "connections", d->connection_count);
	value_set_text(row, "held_by", command_held_by(s, d));
	return row;
}

/* Keeps `rows` sorted, and as many as are asked for; takes `row` over. */
static void insert(const struct order *o, json_t *rows, json_t *row)
{
	size_t count = json_array_size(rows);
	size_t at = count;

	while (at > 0 && is_before(o, row, json_array_get(rows, at - 1))) {
		at--;
	}
	if (at < o->number) {
		json_array_insert_new(rows, at, row);
		if (count == o->number) {
			json_array_remove(rows, count);
		}
	} else {
		json_decref(row);
	}
}

static void each_record(struct part *p, struct scheduler *s, struct domain *d)
{
	if (d->active_count == 0 && d->delayed_count == 0 && d->connection_count == 0 &&
	    recent_per_s(&d->done, agent_now_ms(&s->base)) <= 0) {
		return;
	}
	if (is_busy(p->order, p->json, s, d)) {
		insert(p->order, p->json, row_of(s, d));
	}
}

static bool busiest_step(struct part *p, struct agent *self)
{
	const struct domain_table *t = &order_scheduler_of(self)->dispatcher.domains;

	if (p->json == NULL || p->bucket_count != t->bucket_count) {
		json_decref(p->json);
		p->json = value_array();
	}
	return part_walk(p, self, ORDER_ROWS_PER_STEP, each_record);
}

static void merge_busiest(struct order *o)
{
	json_t *rows = value_array();

	for (uint32_t i = 0; i < o->part_count; i++) {
		json_t *row;
		size_t k;

		json_array_foreach(o->parts[i].json, k, row)
		{
			insert(o, rows, json_incref(row));
		}
	}
	order_answer(o, rows);
}

void command_busiest(struct order *o)
{
	unsigned next = 0;

	o->number = BUSIEST_ROWS;
	o->sort = 0;
	if (o->argument_count > 0 && strspn(o->arguments[0], "0123456789") > 0) {
		if (!command_number(o, next++)) {
			return;
		}
	}
	if (o->number < 1 || o->number > BUSIEST_ROWS_MAX) {
		order_fail(o, "busiest shows 1 to %d domains", BUSIEST_ROWS_MAX);
		return;
	}
	if (next < o->argument_count) {
		while (o->sort < ORDERS &&
		       strcasecmp(o->arguments[next], order_words[o->sort]) != 0) {
			o->sort++;
		}
		next++;
	}
	if (o->sort == ORDERS || next != o->argument_count) {
		order_fail(o, "usage: busiest [N] [rate|queue|connections]");
		return;
	}
	order_on_schedulers(o, busiest_step, merge_busiest);
}

/* ---- names ---- */

static const char *prefix_of(const struct order *o)
{
	return o->argument_count == 2 ? o->arguments[1] : "";
}

static void each_name(struct part *p, struct scheduler *s, struct domain *d)
{
	const char *prefix = prefix_of(p->order);

	(void)s;
	if (json_array_size(p->json) < NAMES_MAX &&
	    strncasecmp(d->name, prefix, strlen(prefix)) == 0) {
		value_append(p->json, value_text(d->name));
	}
}

static bool names_step(struct part *p, struct agent *self)
{
	const struct domain_table *t = &order_scheduler_of(self)->dispatcher.domains;

	if (p->json == NULL || p->bucket_count != t->bucket_count) {
		json_decref(p->json);
		p->json = value_array();
	}
	return part_walk(p, self, ORDER_RECORDS_PER_STEP, each_name);
}

static bool bindings_step(struct part *p, struct agent *self)
{
	const struct binding_table *t = &order_scheduler_of(self)->dispatcher.bindings;
	const char *prefix = prefix_of(p->order);

	p->json = value_array();
	for (uint32_t i = 0; i < t->count && json_array_size(p->json) < NAMES_MAX; i++) {
		if (strncmp(t->records[i]->name, prefix, strlen(prefix)) == 0) {
			value_append(p->json, value_text(t->records[i]->name));
		}
	}
	return true;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(json_string_value(*(json_t *const *)a),
		      json_string_value(*(json_t *const *)b));
}

/* Sorted, each once. */
static void merge_names(struct order *o)
{
	json_t **all = check_memory(calloc((size_t)o->part_count * NAMES_MAX + 1, sizeof(*all)),
				    "the answer to a command");
	json_t *names = value_array();
	const char *last = "";
	size_t count = 0;

	for (uint32_t i = 0; i < o->part_count; i++) {
		json_t *name;
		size_t k;

		json_array_foreach(o->parts[i].json, k, name)
		{
			all[count++] = name;
		}
	}
	qsort(all, count, sizeof(*all), compare_names);
	for (size_t i = 0; i < count && json_array_size(names) < NAMES_MAX; i++) {
		if (strcmp(json_string_value(all[i]), last) != 0) {
			value_append(names, json_incref(all[i]));
			last = json_string_value(all[i]);
		}
	}
	free(all);
	order_answer(o, names);
}

void command_complete(struct order *o)
{
	if (strcasecmp(o->arguments[0], "domain") == 0) {
		order_on_schedulers(o, names_step, merge_names);
	} else if (strcasecmp(o->arguments[0], "binding") == 0) {
		order_on_schedulers(o, bindings_step, merge_names);
	} else {
		order_fail(o, "usage: complete domain|binding [PREFIX]");
	}
}
