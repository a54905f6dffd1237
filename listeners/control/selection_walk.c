/*
 * What a selection does on each scheduler: goes through all queues in bounded pieces, shows or
 * changes what is meant, and reads the envelopes of what is shown.
 *
 * A long queue changes between two pieces. The active one has a cursor, which moves on when its
 * delivery leaves. The heaps have none: there an index goes up, and as what enters and leaves may
 * bring a delivery behind it, a record that has changed is gone through once more in one go, which
 * is fast, as all that have been looked at are marked.
 *
 * Start reading at selection_walk_step(), last in this file.
 */
#include <stdlib.h>
#include <string.h>

#include "core/mail/header.h"
#include "core/outbound/connection.h"
#include "core/runtime/check.h"
#include "core/runtime/cpu_clock.h"
#include "listeners/control/rounds.h"
#include "listeners/control/selection.h"

/* Deliveries that one step of an order looks at: what it does with them takes longer. */
#define STEP_CHANGES 4096
/* A step that changes mail waits while so many requests of its scheduler do. */
#define PRESSURE 1024U
/* Deliveries lie anywhere in memory: they are asked for so many ahead, their messages half as far.
 */
#define LOOK_AHEAD 16U

/* A step of a part's walk. */
struct step {
	struct part *part;
	struct scheduler *scheduler;
	struct selection *selection;
	struct selection_walk *walk;
	int budget;
};

enum stage { ACTIVE, DELAYED, HELD, CONNECTIONS, AGAIN };

static bool acts(const struct selection *sel)
{
	return sel->verb >= SELECTION_HOLD && !sel->dry_run;
}

/* ---- rows ---- */

static const char *state_text(const struct delivery *d)
{
	switch ((enum delivery_place)d->place) {
	case DELIVERY_DELAYED:
		return "delayed";
	case DELIVERY_HELD:
		return "held";
	case DELIVERY_ATTEMPT:
		return d->held ? "on a connection, then held" : "on a connection";
	case DELIVERY_ACTIVE:
	case DELIVERY_TRANSIT:
		break;
	}
	return "active";
}

static void set_envelope(struct selection_row *r, const struct envelope *e)
{
	value_set_text(r->row, "sender", e->sender_offset != 0 ? envelope_sender(e) : "");
	value_set(r->row, "recipients", command_recipients(e, r->delivery, &r->pending, false));
	r->complete = true;
}

static json_t *row_of(const struct step *t, const struct delivery *d)
{
	const struct message *m = d->message;
	json_t *row = value_object();
	char id[MESSAGE_ID_TEXT];

	message_id_format(&m->id, id);
	value_set_text(row, "message", id);
	value_set(row, "sender", json_null());
	value_set(row, "recipients", json_null());
	value_set_text(row, "domain", d->domain->name);
	value_set_text(row, "binding", d->domain->binding);
	value_set_text(row, "state", state_text(d));
	value_set_time(row, "due_at", d->place == DELIVERY_DELAYED ? d->due_ms : 0);
	value_set_number(row, "attempts", d->attempts);
	value_set_time(row, "received_at", m->received_ms);
	value_set_number(row, "body_bytes", m->body_bytes);
	value_set_text(row, "last_reply", d->last_text);
	value_set_text(row, "scheduler", t->scheduler->base.name);
	return row;
}

static void add_row(struct step *t, const struct delivery *d)
{
	struct selection_walk *w = t->walk;
	const struct content *content = delivery_content(d);
	struct selection_row *r;

	if (w->row_count == t->selection->limit) {
		return;
	}
	if (w->row_count == w->row_slots) {
		w->row_slots = w->row_slots == 0 ? 16 : w->row_slots * 2;
		w->rows = check_memory(realloc(w->rows, w->row_slots * sizeof(*w->rows)),
				       "the answer to a command");
	}
	r = &w->rows[w->row_count++];
	*r = (struct selection_row){.row = row_of(t, d),
				    .part = t->part,
				    .id = d->message->id,
				    .pending = d->pending,
				    .delivery = d->index,
				    .writer = d->message->writer};
	if (content != NULL) {
		set_envelope(r, content_envelope(content));
	}
}

void selection_walk_trim(struct selection_walk *w, uint32_t limit)
{
	while (w->row_count > limit) {
		json_decref(w->rows[--w->row_count].row);
	}
}

void selection_walk_free(struct selection_walk *w)
{
	if (w != NULL) {
		ASSERT(w->at == NULL && w->loading == 0);
		selection_walk_trim(w, 0);
		free(w->rows);
		free(w);
	}
}

static void on_envelope(struct scheduler *s, void *owner, struct content *content, int result)
{
	struct selection_row *r = owner;
	struct part *p = r->part;

	(void)result;
	if (content != NULL) {
		set_envelope(r, content_envelope(content));
	}
	content_release(content, &s->pools);
	if (--p->selection->loading == 0) {
		part_complete(p, &s->base);
	}
}

bool selection_rows_step(struct part *p, struct agent *self)
{
	struct scheduler *s = order_scheduler_of(self);
	struct selection_walk *w = p->selection;

	for (uint32_t i = 0; w != NULL && i < w->row_count && !s->stopping; i++) {
		struct selection_row *r = &w->rows[i];

		if (!r->complete) {
			w->loading++;
			scheduler_load_envelope(s, r->writer, &r->id, on_envelope, r);
		}
	}
	p->waits = w != NULL && w->loading > 0;
	return !p->waits;
}

/* ---- is it meant? ---- */

/* Content is at hand, and the spool had it not when it was read. */
static struct recipient_set look_into(const struct selection *sel, const struct delivery *d)
{
	const struct content *c = delivery_content(d);
	char header[HEADER_SEARCH_MAX];
	const struct envelope *e;
	size_t len = 0;

	if (c == NULL || content_envelope(c)->durability != ENVELOPE_MEMORY) {
		return (struct recipient_set){{0, 0}};
	}
	e = content_envelope(c);
	for (const struct chain_buffer *b = c->body.head;
	     select_needs_header(&sel->selectors) && b != NULL && len < sizeof(header);
	     b = b->next) {
		size_t room = sizeof(header) - len;
		size_t bytes = b->len < room ? b->len : room;

		memcpy(header + len, b->data, bytes);
		len += bytes;
	}
	if (!select_message(&sel->selectors, e, header, len, sel->begun_ms)) {
		return (struct recipient_set){{0, 0}};
	}
	return select_recipients(&sel->selectors, e, d->index);
}

/* The pending recipients that are meant; empty: it is not. */
static struct recipient_set meant(const struct selection *sel, const struct delivery *d)
{
	struct recipient_set who;

	if (!select_delivery(&sel->selectors, d, sel->begun_ms)) {
		return (struct recipient_set){{0, 0}};
	}
	if (!select_needs_envelope(&sel->selectors)) {
		return d->pending;
	}
	who = candidates_find(&sel->candidates, &d->message->id, d->index);
	if (recipient_set_empty(&who)) {
		who = look_into(sel, d);
	}
	return (struct recipient_set){
		{who.bits[0] & d->pending.bits[0], who.bits[1] & d->pending.bits[1]}};
}

/* ---- what is done to it ---- */

static bool is_all_of(const struct delivery *d, const struct recipient_set *who)
{
	struct recipient_set rest = recipient_set_without(&d->pending, who);

	return recipient_set_empty(&rest);
}

static enum selection_total fate_of(const struct selection *sel, const struct delivery *d,
				    const struct recipient_set *who)
{
	bool on_connection = d->place == DELIVERY_ATTEMPT;

	switch (sel->verb) {
	case SELECTION_HOLD:
		return d->held         ? SELECTION_UNCHANGED
		       : on_connection ? SELECTION_AFTER_ATTEMPT
				       : SELECTION_CHANGED;
	case SELECTION_RELEASE:
		return d->held ? SELECTION_CHANGED : SELECTION_UNCHANGED;
	case SELECTION_FAIL:
		return !on_connection      ? SELECTION_CHANGED
		       : is_all_of(d, who) ? SELECTION_AFTER_ATTEMPT
					   : SELECTION_BUSY;
	case SELECTION_REROUTE:
		return strcmp(d->domain->name, sel->to) == 0 ? SELECTION_UNCHANGED
		       : on_connection                       ? SELECTION_BUSY
							     : SELECTION_CHANGED;
	case SELECTION_REBIND:
		return strcmp(d->domain->binding, sel->to) == 0 ? SELECTION_UNCHANGED
		       : on_connection                          ? SELECTION_BUSY
								: SELECTION_CHANGED;
	case SELECTION_FIND:
	case SELECTION_MAILQ:
		break;
	}
	return SELECTION_UNCHANGED;
}

static void change(struct step *t, struct delivery *d, const struct recipient_set *who)
{
	const struct selection *sel = t->selection;
	struct dispatcher *x = &t->scheduler->dispatcher;

	switch (sel->verb) {
	case SELECTION_HOLD:
	case SELECTION_RELEASE:
		dispatch_hold_delivery(x, d, sel->verb == SELECTION_HOLD);
		break;
	case SELECTION_FAIL:
		if (is_all_of(d, who)) {
			dispatch_fail_delivery(x, d, sel->quiet);
		} else {
			dispatch_fail_some(x, d, who, sel->quiet);
		}
		break;
	case SELECTION_REROUTE:
		dispatch_send_on(x, d, d->domain->binding, sel->to);
		break;
	case SELECTION_REBIND:
		dispatch_send_on(x, d, sel->to, d->domain->name);
		break;
	case SELECTION_FIND:
	case SELECTION_MAILQ:
		break;
	}
	t->walk->changed++;
}

static void note_id(struct selection_walk *w, const struct message_id *id)
{
	if (w->id_count < SELECTION_IDS &&
	    (w->id_count == 0 || memcmp(&w->ids[w->id_count - 1], id, sizeof(*id)) != 0)) {
		w->ids[w->id_count++] = *id;
	}
}

static void order_one(struct step *t, struct delivery *d, const struct recipient_set *who)
{
	enum selection_total fate = fate_of(t->selection, d, who);

	note_id(t->walk, &d->message->id);
	t->part->totals[fate]++;
	if (acts(t->selection) && (fate == SELECTION_CHANGED || fate == SELECTION_AFTER_ATTEMPT)) {
		change(t, d, who);
	}
}

static void visit(struct step *t, struct delivery *d)
{
	const struct selection *sel = t->selection;
	struct recipient_set who;

	if (d->mark == sel->mark) {
		return;
	}
	d->mark = sel->mark;
	/* Bounces of what is failed are not, whatever is meant. */
	if (acts(sel) && d->message->received_ms > sel->begun_ms) {
		return;
	}
	who = meant(sel, d);
	if (recipient_set_empty(&who)) {
		return;
	}
	t->walk->matched++;
	t->part->totals[SELECTION_MATCHED]++;
	t->part->totals[SELECTION_RECIPIENTS] += recipient_set_count(&who);
	if (sel->verb == SELECTION_FIND) {
		add_row(t, d);
	} else if (sel->verb != SELECTION_MAILQ) {
		order_one(t, d, &who);
	}
}

/* ---- the queues of one record ---- */

static bool may_go_on(struct step *t)
{
	const struct scheduler *s = t->scheduler;

	return t->budget-- > 0 &&
	       (!acts(t->selection) || s->spool_waiting + s->bounces_waiting < PRESSURE);
}

static struct delivery **cursor_of(struct step *t)
{
	return &t->scheduler->dispatcher.domains.cursor;
}

/* All of it; false: more at the next step. */
static bool walk_active(struct step *t)
{
	struct delivery **cursor = cursor_of(t);
	struct delivery *x;

	while ((x = *cursor) != NULL) {
		if (!may_go_on(t)) {
			return false;
		}
		*cursor = x->next;
		__builtin_prefetch(x->next);
		visit(t, x);
	}
	return true;
}

static void prefetch(struct delivery *const *heap, uint32_t at, uint32_t count)
{
	if (at + LOOK_AHEAD < count) {
		__builtin_prefetch(heap[at + LOOK_AHEAD]);
		__builtin_prefetch(heap[at + LOOK_AHEAD / 2]->message);
	}
}

/* Addresses, as what is done to a delivery may make the heap another one. */
static bool walk_heap(struct step *t, struct delivery *const *const *heap, const uint32_t *count)
{
	struct selection_walk *w = t->walk;

	while (w->index < *count) {
		struct delivery *x = (*heap)[w->index];

		if (!may_go_on(t)) {
			return false;
		}
		prefetch(*heap, w->index, *count);
		visit(t, x);
		w->index += w->index < *count && (*heap)[w->index] == x;
	}
	w->index = 0;
	return true;
}

static void walk_connections(struct step *t, const struct domain *d)
{
	for (const struct connection *c = d->connections; c != NULL; c = c->next) {
		if (c->delivery != NULL && c->delivery->domain == d) {
			visit(t, c->delivery);
		}
	}
}

/* Whatever has come behind the walk, in one go; until there is nothing more of it. */
static void walk_again(struct step *t, struct domain *d)
{
	struct delivery **cursor = cursor_of(t);
	uint32_t changes;

	do {
		changes = d->changes;
		t->budget = INT32_MAX;
		*cursor = d->active_head;
		for (struct delivery *x = *cursor; x != NULL; x = *cursor) {
			*cursor = x->next;
			visit(t, x);
		}
		for (uint32_t i = 0; i < d->delayed_count; i++) {
			prefetch(d->delayed, i, d->delayed_count);
			visit(t, d->delayed[i]);
		}
		for (uint32_t i = 0; i < d->held_count; i++) {
			prefetch(d->held, i, d->held_count);
			visit(t, d->held[i]);
		}
		walk_connections(t, d);
	} while (d->changes != changes);
	t->budget = 0;
}

/* False: it is not done with it. */
static bool walk_record(struct step *t, struct domain *d)
{
	struct selection_walk *w = t->walk;

	switch ((enum stage)w->stage) {
	case ACTIVE:
		if (!walk_active(t)) {
			return false;
		}
		w->stage = DELAYED;
		/* fall through */
	case DELAYED:
		if (!walk_heap(t, (struct delivery *const *const *)&d->delayed,
			       &d->delayed_count)) {
			return false;
		}
		w->stage = HELD;
		/* fall through */
	case HELD:
		if (!walk_heap(t, (struct delivery *const *const *)&d->held, &d->held_count)) {
			return false;
		}
		w->stage = CONNECTIONS;
		/* fall through */
	case CONNECTIONS:
		walk_connections(t, d);
		w->stage = AGAIN;
		/* fall through */
	case AGAIN:
		if (d->changes != w->changes) {
			walk_again(t, d);
		}
	}
	return true;
}

/* ---- all records ---- */

static bool is_wanted(const struct step *t, const struct domain *d)
{
	const struct selection *sel = t->selection;
	bool empty = d->active_count == 0 && d->delayed_count == 0 && d->held_count == 0 &&
		     d->attempt_count == 0;

	return !(empty && d->settling_count == 0) && select_record(&sel->selectors, d);
}

/* None of its mail can be among what was found in the spool, nor is only in memory. */
static bool is_passed_over(const struct step *t, const struct domain *d)
{
	const struct selection *sel = t->selection;

	return select_needs_envelope(&sel->selectors) && !d->has_unlisted &&
	       !candidates_may_be_in(&sel->candidates, d->hash);
}

static void begin_record(struct step *t, struct domain *d)
{
	struct selection_walk *w = t->walk;

	if (t->part->order->rounds == 1) {
		t->part->totals[SELECTION_BETWEEN] += d->settling_count;
	}
	w->stage = ACTIVE;
	w->index = 0;
	w->matched = 0;
	w->changed = 0;
	w->changes = d->changes;
	*cursor_of(t) = d->active_head;
	w->at = d;
	w->pinned = acts(t->selection);
	if (w->pinned) {
		dispatch_pin(d);
	}
}

static void end_record(struct step *t)
{
	struct selection_walk *w = t->walk;
	struct domain *d = w->at;

	if (t->selection->verb == SELECTION_MAILQ && w->matched > 0) {
		command_mailq_row(t->part, t->scheduler, d, w->matched);
	}
	*cursor_of(t) = NULL;
	w->at = NULL;
	if (w->pinned) {
		dispatch_unpin(&t->scheduler->dispatcher, d);
	}
}

/* The walk goes on at the next step: until then it stays. */
static void rest_at(struct selection_walk *w)
{
	if (!w->pinned) {
		w->pinned = true;
		dispatch_pin(w->at);
	}
}

/* A bucket's records from `d` on; false: more at the next step. */
static bool walk_bucket(struct step *t, struct domain *d)
{
	struct domain *next;

	for (; d != NULL; d = next) {
		if (d != t->walk->at) {
			next = d->hash_next;
			t->budget--;
			if (!is_wanted(t, d) || is_passed_over(t, d)) {
				continue;
			}
			begin_record(t, d);
		}
		if (!walk_record(t, d)) {
			rest_at(t->walk);
			return false;
		}
		next = d->hash_next;
		end_record(t);
	}
	return true;
}

/* What it is in the middle of is let go. */
static void walk_stop(struct step *t)
{
	if (t->walk->at != NULL) {
		end_record(t);
	}
}

static bool walk(struct step *t)
{
	struct part *p = t->part;
	const struct domain_table *table = &t->scheduler->dispatcher.domains;
	struct domain *d = t->walk->at;

	while (p->bucket_count != table->bucket_count || p->bucket < p->bucket_count) {
		if (p->bucket_count != table->bucket_count && d == NULL) {
			/* It has grown: marks tell what has been looked at. */
			p->bucket = 0;
			p->bucket_count = table->bucket_count;
		}
		if (d == NULL && t->budget <= 0) {
			return false;
		}
		if (!walk_bucket(t, d != NULL ? d : table->buckets[p->bucket])) {
			return false;
		}
		d = NULL;
		p->bucket++;
		/* Empty buckets cost something too. */
		t->budget -= p->bucket % 16 == 0;
	}
	return true;
}

/* What was changed outlives whatever comes when the order is answered; unless the disk takes long.
 */
static bool waits_for_spool(struct step *t)
{
	return acts(t->selection) && rounds_await_spool(t->part, t->scheduler);
}

/* True: the part is done. */
static bool go_on(struct step *t)
{
	if (t->scheduler->stopping) {
		walk_stop(t);
		return true;
	}
	return walk(t) && !waits_for_spool(t);
}

static void on_rested(struct timer *t)
{
	order_scheduler_of(t->owner)->selections.resting--;
	part_resume(CONTAINER_OF(t, struct selection_walk, timer)->part, t->owner);
}

static struct selection_walk *walk_create(struct part *p, struct agent *self)
{
	struct selection_walk *w = check_memory(calloc(1, sizeof(*w)), "the answer to a command");

	w->part = p;
	timer_init(&w->timer, self, on_rested);
	return w;
}

/* What it looks at is little; an order's changes are mail's own work, and do not rest. */
bool selection_walk_step(struct part *p, struct agent *self)
{
	struct scheduler *s = order_scheduler_of(self);
	struct step t = {.part = p, .scheduler = s, .selection = p->order->selection};
	bool done;
	int most;

	if (p->selection == NULL) {
		p->selection = walk_create(p, self);
	}
	t.walk = p->selection;
	most = pace_begin(&t.walk->pace, self->now.mono_ns, cpu_clock_ns(self->clock));
	most = acts(t.selection) ? STEP_CHANGES : most;
	t.budget = most;
	done = go_on(&t);
	/* Less than nothing is left when the last bucket had many records. */
	pace_end(&t.walk->pace, cpu_clock_ns(self->clock), (unsigned)(most - t.budget));
	if (done) {
		rounds_note(p, s);
	} else if (t.walk->pace.rests && !acts(t.selection)) {
		p->waits = true;
		s->selections.resting++;
		timer_arm(&t.walk->timer, agent_now_ms(self) + PACE_REST_MS);
	}
	return done;
}
