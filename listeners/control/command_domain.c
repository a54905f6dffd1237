/*
 * Commands about one domain, by one binding or all, and orders to it.
 */
#include "listeners/control/command.h"

#include <string.h>
#include <strings.h>

#include "listeners/control/rounds.h"

void command_take_binding(struct order *o, unsigned index)
{
	o->binding = index < o->argument_count ? o->arguments[index] : NULL;
}

enum { RECORDS = COMMAND_TOTAL_RECORDS, MESSAGES, ACTIVE, DELAYED, UNREACHED };

static void at_record(struct part *p, struct scheduler *s, struct domain *d, order_domain_fn each)
{
	p->totals[RECORDS]++;
	each(p, s, d);
}

/*
 * A record of the domain, by the binding, has its first home on this scheduler. True when `each`
 * has seen it, or there is none; else the step has to run elsewhere, or later: it is away, or on
 * its way back, or, while records settle under a new layout, maybe at its home of the layout
 * before. `make`: there is one now, of a binding that is configured.
 */
static bool first_home_record(struct part *p, struct scheduler *s, const struct binding_record *b,
			      bool make, order_domain_fn each)
{
	const char *domain = p->order->arguments[0];
	struct domain *d = domain_find(&s->dispatcher.domains, b->name, domain);
	const struct dispatcher *away = NULL;

	if (d == NULL) {
		away = dispatch_away(&s->dispatcher, b->name, domain);
	}
	if (d == NULL && away == NULL && p->absent != p->bucket + 1) {
		away = dispatch_before(&s->dispatcher, b->name, domain);
	} else if (d == NULL && away == NULL) {
		dispatch_heard(&s->dispatcher, p->absent_trip);
	}
	if (away != NULL) {
		p->away_by = b->name;
		p->pass_to = away->self;
		return false;
	}
	if (d == NULL && make && b->configured) {
		d = dispatch_find(&s->dispatcher, b->name, domain);
	}
	if (d != NULL && d->travel == DOMAIN_EXPECTED) {
		return false;
	}
	if (d != NULL) {
		at_record(p, s, d, each);
	}
	return true;
}

/* Where it has gone to: seen, it is over with this binding; else the first home looks again. */
static void away_record(struct part *p, struct scheduler *s, order_domain_fn each)
{
	const char *domain = p->order->arguments[0];
	struct domain *d = domain_find(&s->dispatcher.domains, p->away_by, domain);
	const struct dispatcher *away =
		d == NULL ? dispatch_away(&s->dispatcher, p->away_by, domain) : NULL;

	if (d != NULL && d->travel == DOMAIN_EXPECTED) {
		return;
	}
	if (d != NULL) {
		at_record(p, s, d, each);
		p->bucket++;
	} else if (away != NULL && away->self != p->agent) {
		p->pass_to = away->self;
		return;
	} else {
		uint64_t yours = 0;

		/* Nothing is known here, nor will be, or that it went to its first home, which may
		 * make one. */
		dispatch_elsewhere(&s->dispatcher, p->away_by, domain, &yours);
		p->absent = yours != 0 ? p->bucket + 1 : 0;
		p->absent_trip = yours;
	}
	p->away_by = NULL;
	p->pass_to = p->agent;
}

static bool see_records(struct part *p, struct agent *self, bool make, order_domain_fn each)
{
	struct scheduler *s = order_scheduler_of(self);
	const struct order *o = p->order;

	if (p->away_by != NULL) {
		away_record(p, s, each);
		return false;
	}
	for (; p->bucket < s->dispatcher.bindings.count; p->bucket++) {
		const struct binding_record *b = s->dispatcher.bindings.records[p->bucket];

		if ((o->binding == NULL || strcmp(o->binding, b->name) == 0) &&
		    dispatch_is_home(&s->dispatcher, b->name, o->arguments[0]) &&
		    !first_home_record(p, s, b, make, each)) {
			return false;
		}
	}
	return true;
}

/* When the program stops records stay where they are, and what is on its way may never arrive. */
bool command_each_record(struct part *p, struct agent *self, bool make, order_domain_fn each)
{
	if (see_records(p, self, make, each)) {
		return true;
	}
	if (!runtime_stopping(self->runtime)) {
		return false;
	}
	p->pass_to = NULL;
	p->away_by = NULL;
	p->totals[UNREACHED]++;
	return true;
}

bool command_found_records(struct order *o)
{
	if (order_total(o, UNREACHED) != 0) {
		order_fail(o, "flywheeld stops: not every record of domain \"%s\" was reached",
			   o->arguments[0]);
		return false;
	}
	if (order_total(o, RECORDS) != 0) {
		return true;
	}
	order_fail(o,
		   "no record of domain \"%s\"%s%s%s: nothing has been queued for it since the "
		   "start; \"domains\" lists what there is",
		   o->arguments[0], o->binding != NULL ? " by binding \"" : "",
		   o->binding != NULL ? o->binding : "", o->binding != NULL ? "\"" : "");
	return false;
}

void command_ask_records(struct order *o, order_step_fn step, order_merge_fn merge)
{
	if (command_domain(o, 0)) {
		order_on_schedulers(o, step, merge);
	}
}

void command_add_value(struct part *p, json_t *value)
{
	if (p->json == NULL) {
		p->json = value_array();
	}
	value_append(p->json, value);
}

static void show_one(struct part *p, struct scheduler *s, struct domain *d)
{
	command_add_value(p, command_describe_domain(s, d));
}

static bool show_step(struct part *p, struct agent *self)
{
	return command_each_record(p, self, false, show_one);
}

void command_answer_records(struct order *o)
{
	json_t *rows = value_array();
	json_t *v;

	for (uint32_t i = 0; i < o->part_count; i++) {
		if (o->parts[i].json != NULL) {
			json_array_extend(rows, o->parts[i].json);
		}
	}
	if (!command_found_records(o)) {
		json_decref(rows);
		return;
	}
	if (json_array_size(rows) == 1) {
		order_answer(o, json_incref(json_array_get(rows, 0)));
		json_decref(rows);
		return;
	}
	v = value_object();
	value_set_text(v, "domain", o->arguments[0]);
	value_set(v, "bindings", rows);
	order_answer(o, v);
}

void command_domain_show(struct order *o)
{
	if (strcasecmp(o->arguments[0], "all") == 0) {
		command_domains(o);
	} else {
		command_take_binding(o, 1);
		command_ask_records(o, show_step, command_answer_records);
	}
}

static void flush_one(struct part *p, struct scheduler *s, struct domain *d)
{
	p->totals[MESSAGES] += d->delayed_count;
	dispatch_flush(&s->dispatcher, d);
}

static bool flush_step(struct part *p, struct agent *self)
{
	return command_each_record(p, self, false, flush_one);
}

static void answer_messages(struct order *o, const char *key)
{
	json_t *v;

	if (command_found_records(o)) {
		v = value_object();
		value_set_text(v, "domain", o->arguments[0]);
		value_set_number(v, key, order_total(o, MESSAGES));
		rounds_set_trouble(o, v);
		order_answer(o, v);
	}
}

static void merge_flush(struct order *o)
{
	answer_messages(o, "messages_flushed");
}

void command_domain_flush(struct order *o)
{
	if (strcasecmp(o->arguments[0], "all") == 0 && o->argument_count == 1) {
		command_flush_all(o);
	} else {
		command_take_binding(o, 1);
		command_ask_records(o, flush_step, merge_flush);
	}
}

static void fail_one(struct part *p, struct scheduler *s, struct domain *d)
{
	p->totals[MESSAGES] += dispatch_fail(&s->dispatcher, d, p->order->flag);
}

static bool fail_step(struct part *p, struct agent *self)
{
	return command_each_record(p, self, false, fail_one);
}

static void merge_fail(struct order *o)
{
	answer_messages(o, "messages_failed");
}

static void merge_failed(struct order *o)
{
	rounds_written(o, merge_fail);
}

void command_domain_fail(struct order *o)
{
	/* `quiet` is the last word, whether there is a binding before it or not. */
	bool quiet = o->argument_count > 1 &&
		     strcasecmp(o->arguments[o->argument_count - 1], "quiet") == 0;

	if (command_fail_selects(o)) {
		return;
	}
	if (o->argument_count > 3) {
		command_fail_usage(o);
		return;
	}
	if (o->argument_count == 3 && !command_flag(o, 2, "quiet")) {
		return;
	}
	o->flag = quiet;
	o->argument_count -= quiet;
	command_take_binding(o, 1);
	command_ask_records(o, fail_step, merge_failed);
}

/* o->flag: suspend, or resume. */
static void suspend_one(struct part *p, struct scheduler *s, struct domain *d)
{
	dispatch_suspend(&s->dispatcher, d, command_suspension(p->order, &s->base));
	p->totals[ACTIVE] += d->active_count;
	p->totals[DELAYED] += d->delayed_count;
	p->json = p->json != NULL ? p->json : value_text(command_domain_state(s, d));
}

/* A domain may be suspended before it has mail. */
static bool suspend_step(struct part *p, struct agent *self)
{
	return command_each_record(p, self, p->order->flag, suspend_one);
}

static void merge_suspend(struct order *o)
{
	json_t *v;

	if (!command_found_records(o)) {
		return;
	}
	v = value_object();
	value_set_text(v, "domain", o->arguments[0]);
	for (uint32_t i = 0; i < o->part_count; i++) {
		if (o->parts[i].json != NULL) {
			json_object_set(v, "state", o->parts[i].json);
		}
	}
	if (o->until_ms != 0) {
		value_set_time(v, "until_at", o->until_ms);
	}
	value_set_number(v, "active", order_total(o, ACTIVE));
	value_set_number(v, "delayed", order_total(o, DELAYED));
	order_answer(o, v);
}

void command_domain_suspend(struct order *o)
{
	o->flag = true;
	if (command_until(o, 2)) {
		command_take_binding(o, 1);
		command_ask_records(o, suspend_step, merge_suspend);
	}
}

void command_domain_resume(struct order *o)
{
	command_take_binding(o, 1);
	command_ask_records(o, suspend_step, merge_suspend);
}
