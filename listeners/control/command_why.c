/*
 * "Why is it not moving?": of a domain, of a message, of the longest queues. What is said comes
 * from the scheduler that owns the queue, and is what its dispatcher decides by (why.h).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/outbound/connection.h"
#include "listeners/control/command.h"
#include "listeners/control/found.h"
#include "listeners/control/why.h"

#define WHY_QUEUES 20
/* Of those that are due soon; more are as many. */
#define DUE_COUNTED 100000

/* ---- the scheduler, and the machine ---- */

static uint64_t tasks_waiting(const struct agent *a)
{
	uint64_t depth = 0;

	for (unsigned i = 0; i < AGENT_MAX; i++) {
		depth += a->in[i] != NULL ? task_ring_depth(&a->in[i]->ring) : 0;
	}
	return depth;
}

/* The scheduler took longer to look at this question than a duty cycle should last. */
static bool is_saturated(const struct part *p, const struct scheduler *s)
{
	return s->global->stall_ns != 0 && p->late_ns > s->global->stall_ns;
}

static json_t *home_of_queue(const struct part *p, const struct scheduler *s)
{
	json_t *v = value_object();

	value_set_text(v, "scheduler", s->base.name);
	value_set_number(v, "answered_after_us", p->late_ns / 1000);
	value_set_bool(v, "saturated", is_saturated(p, s));
	value_set_number(v, "tasks_waiting", tasks_waiting(&s->base));
	value_set_number(v, "longest_cycle_ns", counter_get(s->base.cycle_max_ns));
	value_set_number(v, "stalls", counter_get(s->base.stalls));
	return v;
}

static void add_note(json_t *rows, const struct scheduler *s, const char *reason,
		     const char *stanza, const char *option, const char *what)
{
	struct why_option o = {.name = option};
	json_t *row = value_object();
	char at[WHY_TEXT];

	config_program_origin(s->config, stanza, option, &o.origin);
	value_set_text(row, "reason", reason);
	value_set_text(row, "of", "program");
	value_set_bool(row, "holds", false);
	value_set_text(row, "option", option);
	value_set_text(row, "set_at", why_set_at(&o, at, sizeof(at)));
	value_set_text(row, "set_by", o.origin.scope);
	value_set_text(row, "what", what);
	value_append(rows, row);
}

/* What slows everything down. */
static void add_pressure(json_t *rows, const struct part *p, const struct scheduler *s)
{
	char text[256];

	if (is_saturated(p, s)) {
		snprintf(text, sizeof(text),
			 "%s has too much to do: it took %llu ms to look at this question, and a "
			 "duty cycle should last %llu ms at most",
			 s->base.name, (unsigned long long)(p->late_ns / NS_PER_MS),
			 (unsigned long long)(s->global->stall_ns / NS_PER_MS));
		add_note(rows, s, "scheduler", NULL, "stall_threshold", text);
	}
	switch (scheduler_refuses(s)) {
	case -ENOSPC:
		add_note(rows, s, "disk_full", "spool", "min_free",
			 "the spool's disk is full or fails: new mail is refused with 452, queued "
			 "mail goes on");
		break;
	case -ENOMEM:
		add_note(rows, s, "reception_budget", NULL, "reception_budget",
			 "the reception budget is used up: new mail is refused with 452, queued "
			 "mail goes on");
		break;
	default:
		break;
	}
}

/* ---- a queue ---- */

static void set_next(json_t *v, const struct why *w)
{
	uint64_t next_ms =
		w->count != 0 && why_first(w) != DOMAIN_FREE ? why_next_ms(w, &w->items[0]) : 0;
	uint64_t wall_ms = agent_wall_ms(&w->scheduler->base);

	value_set_time(v, "next_attempt_at", next_ms != 0 ? wall_ms + next_ms : 0);
	value_set(v, "next_attempt_in_ms",
		  next_ms != 0 ? json_integer((json_int_t)next_ms) : json_null());
}

static void set_delayed(json_t *v, const struct scheduler *s, const struct domain *d)
{
	const struct delivery *first = domain_peek_delayed(d);
	uint64_t wall_ms = agent_wall_ms(&s->base);

	if (first != NULL) {
		value_set_time(v, "next_due_at", first->due_ms);
		value_set_number(v, "due_in_a_minute",
				 domain_count_due(d, wall_ms + 60000, DUE_COUNTED));
		value_set_number(v, "due_in_an_hour",
				 domain_count_due(d, wall_ms + 3600000, DUE_COUNTED));
	}
}

static void explain_one(struct part *p, struct scheduler *s, struct domain *d)
{
	json_t *v = value_object();
	json_t *reasons;
	struct why w;
	char text[2 * WHY_TEXT];

	why_find(&w, s, d);
	why_headline(&w, text, sizeof(text));
	value_set_text(v, "why", text);
	value_set_text(v, "domain", d->name);
	value_set_text(v, "binding", d->binding);
	value_set_text(v, "reason", domain_hold_key(why_first(&w)));
	value_set_number(v, "active", d->active_count);
	value_set_number(v, "delayed", d->delayed_count);
	value_set_number(v, "held", d->held_count);
	value_set_number(v, "on_connections", d->attempt_count);
	value_set_number(v, "waiting_for_spool", d->settling_count);
	set_next(v, &w);
	set_delayed(v, s, d);
	value_set_real(v, "last_minute_per_s", recent_per_s(&d->done, agent_now_ms(&s->base)));
	reasons = why_reasons(&w);
	add_pressure(reasons, p, s);
	value_set(v, "reasons", reasons);
	value_set(v, "drain", why_drain(&w));
	value_set(v, "next_hops", command_hosts(s, d->lane));
	value_set(v, "home", home_of_queue(p, s));
	command_add_value(p, v);
}

static bool explain_step(struct part *p, struct agent *self)
{
	return command_each_record(p, self, false, explain_one);
}

void command_why_domain(struct order *o)
{
	command_take_binding(o, 1);
	command_ask_records(o, explain_step, command_answer_records);
}

/* ---- the longest queues ---- */

static json_t *queue_row(struct scheduler *s, const struct domain *d)
{
	json_t *row = value_object();
	struct why w;
	uint64_t next_ms;
	char text[WHY_TEXT] = "";

	why_find(&w, s, d);
	if (why_first(&w) != DOMAIN_FREE) {
		why_clause(&w, &w.items[0], text, sizeof(text));
	}
	next_ms = why_first(&w) != DOMAIN_FREE ? why_next_ms(&w, &w.items[0]) : 0;
	value_set_text(row, "domain", d->name);
	value_set_text(row, "binding", d->binding);
	value_set_number(row, "active", d->active_count);
	value_set_number(row, "delayed", d->delayed_count);
	value_set_number(row, "held", d->held_count);
	value_set_text(row, "reason", domain_hold_key(why_first(&w)));
	value_set(row, "next_in_ms",
		  next_ms != 0 ? json_integer((json_int_t)next_ms) : json_null());
	value_set_text(row, "why", text);
	return row;
}

void command_why(struct order *o)
{
	o->number = WHY_QUEUES;
	o->row = queue_row;
	command_longest(o);
}

/* ---- a message ---- */

static uint64_t deliveries_ahead(const struct delivery *x)
{
	uint64_t ahead = 0;

	for (const struct delivery *d = x->prev; d != NULL; d = d->prev) {
		ahead++;
	}
	return ahead;
}

/* What one delivery waits for, in `text`; how long, ms, 0: not known. */
static uint64_t explain_delivery(const struct why *w, const struct delivery *x, char *text,
				 size_t size)
{
	uint64_t wall_ms = agent_wall_ms(&w->scheduler->base);
	const struct connection *c = x->connection;
	char id[MESSAGE_ID_TEXT];

	switch ((enum delivery_place)x->place) {
	case DELIVERY_DELAYED:
		snprintf(text, size, "it waits for its try %u", x->attempts + 1U);
		return x->due_ms > wall_ms ? x->due_ms - wall_ms : 0;
	case DELIVERY_ATTEMPT:
		snprintf(text, size, "it is on a connection to %s (%s): %s, since %llu ms",
			 c->host_name, c->remote_ip, command_connection_text(c),
			 (unsigned long long)(agent_now_ms(&w->scheduler->base) - c->since_ms));
		return 0;
	case DELIVERY_TRANSIT:
		snprintf(text, size, "it is between queues");
		return 0;
	case DELIVERY_HELD:
		message_id_format(&x->message->id, id);
		snprintf(text, size, "an operator holds it; \"release id %s\" ends it", id);
		return 0;
	case DELIVERY_ACTIVE:
		break;
	}
	if (why_first(w) == DOMAIN_FREE) {
		snprintf(text, size, "nothing holds its queue: it waits for its turn");
		return 0;
	}
	why_clause(w, &w->items[0], text, size);
	return why_next_ms(w, &w->items[0]);
}

static json_t *delivery_row(const struct why *w, const struct delivery *x)
{
	static const char *const reasons[] = {[DELIVERY_TRANSIT] = "settling",
					      [DELIVERY_DELAYED] = "retry",
					      [DELIVERY_ATTEMPT] = "on_a_connection",
					      [DELIVERY_HELD] = "held_mail"};
	bool active = x->place == DELIVERY_ACTIVE;
	json_t *row = value_object();
	char text[WHY_TEXT];
	uint64_t next_ms = explain_delivery(w, x, text, sizeof(text));

	value_set_text(row, "domain", w->domain->name);
	value_set_text(row, "binding", w->domain->binding);
	value_set_text(row, "place", found_place(x));
	value_set_text(row, "reason", active ? domain_hold_key(why_first(w)) : reasons[x->place]);
	value_set_number(row, "attempts", x->attempts);
	value_set(row, "ahead",
		  active ? json_integer((json_int_t)deliveries_ahead(x)) : json_null());
	value_set_time(row, "next_at",
		       next_ms != 0 ? agent_wall_ms(&w->scheduler->base) + next_ms : 0);
	value_set(row, "next_in_ms",
		  next_ms != 0 ? json_integer((json_int_t)next_ms) : json_null());
	value_set_text(row, "last_reply", x->last_text);
	value_set_text(row, "why", text);
	return row;
}

static void message_in(struct part *p, struct scheduler *s, struct domain *d)
{
	struct found f;
	struct why w;

	found_in(&f, d, &p->order->id);
	if (f.count == 0) {
		return;
	}
	why_find(&w, s, d);
	for (unsigned i = 0; i < f.count; i++) {
		command_add_value(p, delivery_row(&w, f.deliveries[i]));
	}
}

static bool message_step(struct part *p, struct agent *self)
{
	if (p->json != NULL &&
	    p->bucket_count != order_scheduler_of(self)->dispatcher.domains.bucket_count) {
		/* The walk begins anew. */
		json_decref(p->json);
		p->json = NULL;
	}
	return part_walk(p, self, ORDER_ROWS_PER_STEP, message_in);
}

static void merge_message(struct order *o)
{
	json_t *rows = value_array();
	json_t *v;

	for (uint32_t i = 0; i < o->part_count; i++) {
		if (o->parts[i].json != NULL) {
			json_array_extend(rows, o->parts[i].json);
		}
	}
	if (json_array_size(rows) == 0) {
		json_decref(rows);
		found_nothing(o);
		return;
	}
	v = value_object();
	value_set(v, "why", json_incref(json_object_get(json_array_get(rows, 0), "why")));
	value_set_text(v, "message", o->arguments[0]);
	value_set(v, "deliveries", rows);
	order_answer(o, v);
}

void command_why_message(struct order *o)
{
	if (command_message_id(o, 0)) {
		order_on_schedulers(o, message_step, merge_message);
	}
}
