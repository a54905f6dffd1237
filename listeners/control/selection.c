#include "listeners/control/selection.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/word.h"
#include "core/mail/header.h"
#include "core/runtime/check.h"
#include "core/runtime/cpu_clock.h"
#include "listeners/control/rounds.h"

#define LIMIT 100
#define LIMIT_MAX 1000
/* Read by one job: a worker is not kept for long. */
#define PIECE_BYTES (UINT64_C(4) << 20)

static void start(struct selection *sel);
static void walk_begin(struct selection *sel);
static void survey_begin(struct selection *sel, uint32_t writer);

static bool acts(const struct selection *sel)
{
	return sel->verb >= SELECTION_HOLD;
}

/* ---- turns ---- */

static struct selection_turns *turns_of(const struct selection *sel)
{
	return &sel->order->scheduler->selections;
}

/* The next one's turn, if anybody still wants its answer. */
static void next_turn(struct selection_turns *t)
{
	while (t->running == NULL && t->first != NULL) {
		struct selection *sel = t->first;

		t->first = sel->next;
		if (order_back(sel->order)) {
			t->running = sel;
			start(sel);
		}
	}
}

static void turn_over(struct selection *sel)
{
	struct selection_turns *t = turns_of(sel);

	candidates_close(&sel->candidates);
	if (t->running == sel) {
		t->running = NULL;
		next_turn(t);
	}
}

void selection_free(struct order *o)
{
	if (o->selection != NULL) {
		turn_over(o->selection);
		free(o->selection);
		o->selection = NULL;
	}
}

static void wait_for_turn(struct selection *sel)
{
	struct selection **at = &turns_of(sel)->first;

	while (*at != NULL) {
		at = &(*at)->next;
	}
	*at = sel;
	order_wait(sel->order);
}

/* ---- answers ---- */

static json_t *ids_of(const struct order *o)
{
	json_t *rows = value_array();

	for (uint32_t i = 0; i < o->part_count; i++) {
		const struct selection_walk *w = o->parts[i].selection;

		for (unsigned n = 0; w != NULL && n < w->id_count; n++) {
			char id[MESSAGE_ID_TEXT];

			if (json_array_size(rows) < SELECTION_IDS) {
				message_id_format(&w->ids[n], id);
				value_append(rows, value_text(id));
			}
		}
	}
	return rows;
}

static void set_unrecovered(json_t *v, uint64_t messages)
{
	char text[100];

	snprintf(text, sizeof(text), "recovery not finished: %llu messages not yet seen",
		 (unsigned long long)messages);
	value_set_text(v, "trouble", text);
}

void selection_set_gaps(json_t *v, const struct selection *sel)
{
	value_set_number(v, "between_queues", order_total(sel->order, SELECTION_BETWEEN));
	value_set_number(v, "not_recovered", sel->unrecovered);
	if (sel->unrecovered > 0) {
		set_unrecovered(v, sel->unrecovered);
		return;
	}
	if (rounds_set_trouble(sel->order, v)) {
		return;
	}
	if (sel->overloaded) {
		value_set_text(v, "trouble",
			       "too many tasks wait (pool backlog): not all was read");
	} else if (sel->candidates.overflown) {
		value_set_text(v, "trouble",
			       "more messages match than can be looked at: some are missing; say "
			       "more of what is meant");
	} else if (sel->unread_segments > 0) {
		value_set_text(v, "trouble",
			       "a part of the spool cannot be read: some may be missing");
	}
}

static json_t *totals_of(const struct selection *sel, uint64_t shown)
{
	json_t *v = value_object();

	value_set_number(v, "deliveries", order_total(sel->order, SELECTION_MATCHED));
	value_set_number(v, "recipients", order_total(sel->order, SELECTION_RECIPIENTS));
	value_set_number(v, "shown", shown);
	selection_set_gaps(v, sel);
	return v;
}

static void answer_find(struct selection *sel)
{
	struct order *o = sel->order;
	json_t *v = value_object();
	json_t *rows = value_array();

	for (uint32_t i = 0; i < o->part_count; i++) {
		const struct selection_walk *w = o->parts[i].selection;

		for (uint32_t n = 0; w != NULL && n < w->row_count; n++) {
			value_append(rows, json_incref(w->rows[n].row));
		}
	}
	value_set(v, "totals", totals_of(sel, json_array_size(rows)));
	value_set(v, "deliveries", rows);
	order_answer(o, v);
}

static void answer_order(struct selection *sel)
{
	struct order *o = sel->order;
	json_t *v = value_object();

	value_set_text(v, "order", o->command->name);
	value_set_bool(v, "dry_run", sel->dry_run);
	value_set_number(v, "matched", order_total(o, SELECTION_MATCHED));
	value_set_number(v, "recipients", order_total(o, SELECTION_RECIPIENTS));
	value_set_number(v, "changed", order_total(o, SELECTION_CHANGED));
	value_set_number(v, "unchanged", order_total(o, SELECTION_UNCHANGED));
	value_set_number(v, "after_attempt", order_total(o, SELECTION_AFTER_ATTEMPT));
	value_set_number(v, "busy", order_total(o, SELECTION_BUSY));
	selection_set_gaps(v, sel);
	value_set(v, "first_messages", ids_of(o));
	order_answer(o, v);
}

/* An order may be given up as soon as it is answered: it stays until the turn is over. */
static void answer(struct selection *sel)
{
	struct order *o = sel->order;

	order_wait(o);
	if (sel->verb == SELECTION_FIND) {
		answer_find(sel);
	} else if (sel->verb == SELECTION_MAILQ) {
		command_mailq_answer(o);
	} else {
		answer_order(sel);
	}
	if (order_back(o)) {
		turn_over(sel);
	}
}

/* ---- rows ---- */

static void merge_rows(struct order *o)
{
	answer(o->selection);
}

static void finish(struct selection *sel)
{
	struct order *o = sel->order;
	uint32_t room = sel->limit;

	for (uint32_t i = 0; i < o->part_count; i++) {
		struct selection_walk *w = o->parts[i].selection;

		if (w != NULL) {
			selection_walk_trim(w, room);
			room -= w->row_count;
		}
	}
	if (sel->verb == SELECTION_FIND) {
		order_again(o, selection_rows_step, merge_rows);
	} else {
		answer(sel);
	}
}

/* ---- rounds ---- */

static void merge_round(struct order *o)
{
	if (rounds_over(o)) {
		finish(o->selection);
	} else {
		order_again(o, selection_walk_step, merge_round);
	}
}

static void walk_begin(struct selection *sel)
{
	order_on_schedulers(sel->order, rounds_look_step, merge_round);
}

/* ---- the spool ---- */

/* On a worker. */
static void take_candidate(void *context, const struct envelope *e, const char *body,
			   size_t body_len)
{
	struct selection *sel = context;

	if (!select_message(&sel->selectors, e, body, body_len, sel->begun_ms)) {
		return;
	}
	for (uint32_t i = 0; i < e->delivery_count; i++) {
		struct recipient_set who = select_recipients(&sel->selectors, e, i);
		unsigned count = recipient_set_count(&who);

		if (count > 0) {
			candidates_add(&sel->candidates, e, i, &who,
				       count == envelope_delivery(e, i)->count);
		}
	}
}

static void read_piece(struct job *job)
{
	struct selection *sel = CONTAINER_OF(job, struct selection, job);
	const struct clock *clock = &sel->order->program->runtime.clock;
	uint64_t began_ns = cpu_clock_ns(clock);

	sel->read_more = survey_read(&sel->survey, PIECE_BYTES, take_candidate, sel);
	sel->piece_ns = cpu_clock_ns(clock) - began_ns;
}

static void on_closed(struct agent *self, void *object, uint64_t value)
{
	struct selection *sel = CONTAINER_OF(object, struct selection, survey);
	struct order *o = sel->order;
	uint32_t next = sel->survey.writer + 1;
	bool enough = sel->candidates.overflown || sel->overloaded || o->scheduler->stopping;

	(void)self;
	(void)value;
	sel->unread_segments += sel->survey.unread;
	if (!order_back(o)) {
		return;
	}
	if (next < spool_writer_count(o->program->spool) && !enough) {
		survey_begin(sel, next);
	} else {
		walk_begin(sel);
	}
}

static void next_piece(struct selection *sel)
{
	struct order *o = sel->order;
	struct agent *self = &o->scheduler->base;

	if (sel->read_more && !sel->overloaded && !o->released && !sel->candidates.overflown &&
	    !o->scheduler->stopping) {
		thread_pool_run(o->program->pool, self, &sel->job);
	} else {
		survey_close(&sel->survey, self, on_closed);
	}
}

static void on_rested(struct timer *t)
{
	next_piece(CONTAINER_OF(t, struct selection, timer));
}

static void on_piece(struct agent *self, struct job *job, int result)
{
	struct selection *sel = CONTAINER_OF(job, struct selection, job);
	uint64_t until_ms = pace_rest_until(&sel->rest, self->now.mono_ns,
					    cpu_clock_ns(self->clock), sel->piece_ns);

	sel->overloaded |= result != 0;
	if (until_ms != 0 && !sel->order->scheduler->stopping) {
		timer_arm(&sel->timer, until_ms);
	} else {
		next_piece(sel);
	}
}

static void on_open(struct agent *self, void *object, uint64_t value)
{
	struct selection *sel = CONTAINER_OF(object, struct selection, survey);

	(void)value;
	sel->job = (struct job){.work = read_piece, .on_done = on_piece};
	thread_pool_run(sel->order->program->pool, self, &sel->job);
}

static void survey_begin(struct selection *sel, uint32_t writer)
{
	struct order *o = sel->order;
	uint32_t body_bytes = select_needs_header(&sel->selectors) ? HEADER_SEARCH_MAX : 0;

	order_wait(o);
	survey_open(&sel->survey, o->program->spool, writer, body_bytes, &o->scheduler->base,
		    on_open, NULL);
}

/* ---- beginning ---- */

static void start(struct selection *sel)
{
	struct order *o = sel->order;
	struct selection_turns *t = turns_of(sel);

	if (++t->mark == 0) {
		t->mark = 1;
	}
	sel->mark = t->mark;
	timer_init(&sel->timer, &o->scheduler->base, on_rested);
	sel->begun_ms = agent_wall_ms(&o->scheduler->base);
	sel->unrecovered = counter_total("recovery_left");
	if (select_needs_envelope(&sel->selectors)) {
		survey_begin(sel, 0);
	} else {
		walk_begin(sel);
	}
}

static bool take_limit(struct selection *sel, const char *word)
{
	uint64_t limit;

	if (word_number(word, &limit) != NULL || limit < 1 || limit > LIMIT_MAX) {
		order_fail_usage(sel->order, "limit: \"%.64s\" is no number from 1 to %d", word,
				 LIMIT_MAX);
		return false;
	}
	sel->limit = (uint32_t)limit;
	return true;
}

static bool is_binding(const struct config *config, const char *name)
{
	for (uint32_t i = 0; i < config_binding_count(config); i++) {
		if (strcmp(config_binding(config, i)->name, name) == 0) {
			return true;
		}
	}
	return strcmp(name, BINDING_DEFAULT) == 0;
}

static bool take_target(struct selection *sel, unsigned index)
{
	struct order *o = sel->order;
	const char *wrong;

	if (sel->verb == SELECTION_REBIND) {
		sel->to = o->arguments[index];
		if (!is_binding(order_config(o), sel->to)) {
			order_fail(o, "there is no binding \"%.64s\"; \"bindings\" lists them",
				   sel->to);
			return false;
		}
		return true;
	}
	if (!command_domain(o, index)) {
		return false;
	}
	sel->to = o->arguments[index];
	wrong = word_hostname(sel->to);
	if (wrong != NULL) {
		order_fail_usage(o, "\"%.64s\" %s", sel->to, wrong);
		return false;
	}
	return true;
}

static bool sends_on(const struct selection *sel)
{
	return sel->verb == SELECTION_REROUTE || sel->verb == SELECTION_REBIND;
}

/* One word after the selectors, or two. Returns how many it takes; 0 and answered when it is none.
 */
static unsigned take_option(struct selection *sel, unsigned at)
{
	struct order *o = sel->order;
	const char *word = o->arguments[at];
	bool has_value = at + 1 < o->argument_count;

	if (acts(sel) && strcasecmp(word, "dry_run") == 0) {
		sel->dry_run = true;
		return 1;
	}
	if (sel->verb == SELECTION_FAIL && strcasecmp(word, "quiet") == 0) {
		sel->quiet = true;
		return 1;
	}
	if (sel->verb == SELECTION_FIND && has_value && strcasecmp(word, "limit") == 0) {
		return take_limit(sel, o->arguments[at + 1]) ? 2 : 0;
	}
	if (sends_on(sel) && has_value && strcasecmp(word, "to") == 0) {
		return take_target(sel, at + 1) ? 2 : 0;
	}
	order_fail_usage(o, "\"%.64s\" is no selector%s; \"help %s\" says what may follow", word,
			 has_value ? "" : ", or needs a value", o->command->name);
	return 0;
}

/* All words; false and answered when they are wrong. */
static bool take_words(struct selection *sel, unsigned first)
{
	struct order *o = sel->order;
	char why[SELECT_WHY];
	int taken =
		select_parse(&sel->selectors, o->arguments + first, o->argument_count - first, why);

	if (taken < 0) {
		order_fail_usage(o, "%s", why);
		return false;
	}
	for (unsigned at = first + (unsigned)taken; at < o->argument_count;) {
		unsigned words = take_option(sel, at);

		if (words == 0) {
			return false;
		}
		at += words;
	}
	if (sel->selectors.count == 0) {
		order_fail_usage(o, "which mail? say so by selectors, or \"all\"; \"help %s\"",
				 o->command->name);
		return false;
	}
	if (sends_on(sel) && sel->to == NULL) {
		order_fail_usage(o, "%s: to where? \"to\" and a name is missing", o->command->name);
		return false;
	}
	if (select_needs_envelope(&sel->selectors) && o->program->pool == NULL) {
		order_fail(o, "no thread pool runs: nobody can read the spool");
		return false;
	}
	return true;
}

void selection_begin(struct order *o, enum selection_verb verb, unsigned first)
{
	struct selection *sel = check_memory(calloc(1, sizeof(*sel)), "a command");

	o->selection = sel;
	sel->order = o;
	sel->verb = verb;
	sel->limit = LIMIT;
	if (!take_words(sel, first)) {
		return;
	}
	if (turns_of(sel)->running != NULL) {
		wait_for_turn(sel);
		return;
	}
	turns_of(sel)->running = sel;
	start(sel);
}
