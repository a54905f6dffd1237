/*
 * Commands about one message. Its deliveries are looked for in all queues of all schedulers: that
 * takes time in proportion to what is queued, bounded in each duty cycle but for one domain's queue
 * being looked through in one go. What only the envelope says is read back when it is on disk only.
 */
#include "listeners/control/command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/outbound/connection.h"
#include "core/runtime/check.h"
#include "listeners/control/found.h"
#include "listeners/control/rounds.h"

/* Recipients shown of each delivery, unless all are asked for. */
#define RECIPIENTS_SHOWN 10

enum { FOUND };

/* ---- show ---- */

/* A delivery whose row lacks its recipients until the envelope has been read. */
struct unread_row {
	json_t *row;
	uint32_t index;
	struct recipient_set pending;
};

/* What the envelope is read for. */
struct unread {
	struct part *part;
	struct scheduler *scheduler;
	/* Held. */
	struct message *message;
	unsigned count;
	struct unread_row rows[FOUND_MAX];
};

json_t *command_recipients(const struct envelope *e, uint32_t index,
			   const struct recipient_set *pending, bool all)
{
	const struct envelope_delivery *ed = envelope_delivery(e, index);
	json_t *rows = value_array();
	char more[32];
	unsigned shown = 0;

	for (unsigned i = 0; i < ed->count; i++) {
		if (!recipient_set_has(pending, i)) {
			continue;
		}
		if (!all && shown == RECIPIENTS_SHOWN) {
			snprintf(more, sizeof(more), "and %u more",
				 recipient_set_count(pending) - shown);
			value_append(rows, value_text(more));
			break;
		}
		value_append(rows, value_text(envelope_address(e, ed->first + i)));
		shown++;
	}
	return rows;
}

static json_t *delivery_row(const struct scheduler *s, const struct delivery *d)
{
	const struct domain *domain = d->domain;
	json_t *row = value_object();

	value_set_text(row, "domain", domain->name);
	value_set_text(row, "binding", domain->binding);
	value_set_text(row, "place", found_place(d));
	value_set_bool(row, "held", d->held);
	value_set_bool(row, "rerouted", d->rerouted);
	if (d->place == DELIVERY_ATTEMPT && d->connection != NULL) {
		value_set_text(row, "host", d->connection->host_name);
		value_set_text(row, "ip", d->connection->remote_ip);
	}
	if (d->place == DELIVERY_ACTIVE) {
		value_set_text(row, "domain_held_by", command_held_by(s, domain));
	}
	value_set_number(row, "attempts", d->attempts);
	value_set_time(row, "due_at", d->place == DELIVERY_DELAYED ? d->due_ms : 0);
	value_set_number(row, "recipients_pending", recipient_set_count(&d->pending));
	value_set(row, "recipients", json_null());
	value_set_text(row, "last_reply", d->last_text);
	value_set_text(row, "scheduler", s->base.name);
	return row;
}

static void set_message(json_t *v, const struct message *m, uint64_t wall_ms)
{
	char id[MESSAGE_ID_TEXT];

	message_id_format(&m->id, id);
	value_set_text(v, "message", id);
	value_set(v, "sender", json_null());
	value_set_time(v, "received_at", m->received_ms);
	value_set_real(v, "age_s",
		       wall_ms > m->received_ms ? (double)(wall_ms - m->received_ms) / 1000 : 0.0);
	value_set_number(v, "body_bytes", m->body_bytes);
	value_set(v, "recipients_in_all", json_null());
	value_set(v, "durability", json_null());
	value_set(v, "priority", json_null());
	value_set_bool(v, "in_spool", m->spool != NULL);
}

static void set_envelope(json_t *v, const struct envelope *e)
{
	static const char *const durability[] = {"synced", "cached", "memory"};

	value_set_text(v, "sender", e->sender_offset != 0 ? envelope_sender(e) : "");
	value_set_number(v, "recipients_in_all", e->recipient_count);
	value_set_text(v, "durability", e->durability < 3 ? durability[e->durability] : "unknown");
	value_set_number(v, "priority", e->priority);
}

/* ---- envelopes on disk only ---- */

static void unread_free(struct unread *u)
{
	for (unsigned i = 0; i < u->count; i++) {
		json_decref(u->rows[i].row);
	}
	message_release(u->message, &u->scheduler->pools);
	u->part->unread = NULL;
	free(u);
}

/* Its recipients will be added to `row`, those that are pending now. */
static void unread_add(struct part *p, struct scheduler *s, const struct delivery *d, json_t *row)
{
	struct unread *u = p->unread;

	if (u == NULL) {
		u = check_memory(calloc(1, sizeof(*u)), "the answer to a command");
		message_hold(d->message, 1);
		u->part = p;
		u->scheduler = s;
		u->message = d->message;
		p->unread = u;
	}
	if (u->count < FOUND_MAX) {
		u->rows[u->count++] = (struct unread_row){json_incref(row), d->index, d->pending};
	}
}

static void on_envelope(struct scheduler *s, void *owner, struct content *content, int result)
{
	struct unread *u = owner;
	struct part *p = u->part;
	char text[128];

	if (content != NULL) {
		const struct envelope *e = content_envelope(content);

		set_envelope(p->json, e);
		for (unsigned i = 0; i < u->count; i++) {
			value_set(u->rows[i].row, "recipients",
				  command_recipients(e, u->rows[i].index, &u->rows[i].pending,
						     p->order->flag));
		}
	} else {
		snprintf(text, sizeof(text), "the envelope cannot be read back: %s",
			 strerror(-result));
		value_set_text(p->json, "trouble", text);
	}
	content_release(content, &s->pools);
	unread_free(u);
	part_complete(p, &s->base);
}

/* ---- the walk ---- */

static void show_delivery(struct part *p, struct scheduler *s, const struct delivery *d)
{
	const struct content *content = delivery_content(d);
	json_t *row = delivery_row(s, d);

	if (p->json == NULL) {
		p->json = value_object();
		set_message(p->json, d->message, agent_wall_ms(&s->base));
		value_set(p->json, "deliveries", value_array());
	}
	if (content != NULL) {
		set_envelope(p->json, content_envelope(content));
		value_set(row, "recipients",
			  command_recipients(content_envelope(content), d->index, &d->pending,
					     p->order->flag));
	} else {
		unread_add(p, s, d, row);
	}
	value_append(json_object_get(p->json, "deliveries"), row);
}

static void show_in(struct part *p, struct scheduler *s, struct domain *d)
{
	struct found f;

	found_in(&f, d, &p->order->id);
	for (unsigned i = 0; i < f.count; i++) {
		show_delivery(p, s, f.deliveries[i]);
	}
}

/* What was found before the table grew is found again. */
static void forget_if_restarted(struct part *p, struct agent *self)
{
	const struct scheduler *s = order_scheduler_of(self);

	if (p->json != NULL && p->bucket_count != s->dispatcher.domains.bucket_count) {
		json_decref(p->json);
		p->json = NULL;
		if (p->unread != NULL) {
			unread_free(p->unread);
		}
	}
}

static bool show_step(struct part *p, struct agent *self)
{
	forget_if_restarted(p, self);
	if (!part_walk(p, self, ORDER_ROWS_PER_STEP, show_in)) {
		return false;
	}
	if (p->unread != NULL) {
		p->waits = true;
		scheduler_load(order_scheduler_of(self), p->unread->message, on_envelope,
			       p->unread);
		return false;
	}
	return true;
}

static void merge_show(struct order *o)
{
	json_t *v = NULL;

	for (uint32_t i = 0; i < o->part_count; i++) {
		struct part *p = &o->parts[i];

		if (p->json == NULL) {
			continue;
		}
		if (v == NULL) {
			v = p->json;
			p->json = NULL;
		} else {
			json_array_extend(json_object_get(v, "deliveries"),
					  json_object_get(p->json, "deliveries"));
		}
	}
	if (v == NULL) {
		found_nothing(o);
		return;
	}
	order_answer(o, v);
}

void command_message_show(struct order *o)
{
	if (command_message_id(o, 0) && command_flag(o, 1, "full")) {
		order_on_schedulers(o, show_step, merge_show);
	}
}

/* ---- fail and retry ---- */

static void fail_in(struct part *p, struct scheduler *s, struct domain *d)
{
	struct found f;

	found_in(&f, d, &p->order->id);
	for (unsigned i = 0; i < f.count; i++) {
		dispatch_fail_delivery(&s->dispatcher, f.deliveries[i], p->order->flag);
	}
	p->totals[FOUND] += f.count;
}

static void retry_in(struct part *p, struct scheduler *s, struct domain *d)
{
	struct found f;

	found_in(&f, d, &p->order->id);
	for (unsigned i = 0; i < f.count; i++) {
		dispatch_retry_delivery(&s->dispatcher, f.deliveries[i]);
	}
	p->totals[FOUND] += f.count;
}

static bool fail_step(struct part *p, struct agent *self)
{
	return rounds_walk(p, self, ORDER_ROWS_PER_STEP, fail_in);
}

static bool retry_step(struct part *p, struct agent *self)
{
	return rounds_walk(p, self, ORDER_ROWS_PER_STEP, retry_in);
}

static void merge_changed(struct order *o)
{
	uint64_t count = order_total(o, FOUND);
	json_t *v;

	if (count == 0) {
		found_nothing(o);
		return;
	}
	v = value_object();
	value_set_text(v, "message", o->arguments[0]);
	value_set_number(v, "deliveries", count);
	rounds_set_trouble(o, v);
	order_answer(o, v);
}

void command_message_fail(struct order *o)
{
	if (command_message_id(o, 0) && command_flag(o, 1, "quiet")) {
		rounds_begin(o, fail_step, merge_changed, true);
	}
}

void command_message_retry(struct order *o)
{
	if (command_message_id(o, 0)) {
		rounds_begin(o, retry_step, merge_changed, false);
	}
}
