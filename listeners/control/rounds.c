#include "listeners/control/rounds.h"

#include <string.h>

/* Records that never come to rest are given up. */
#define ROUNDS_MAX 64
/* So long an order waits for the spool to have what it changed. */
#define SPOOL_PATIENCE_MS 10000U

/* ---- records ---- */

void rounds_note(struct part *p, const struct scheduler *s)
{
	p->moved = (uint64_t)counter_get(s->dispatcher.moved);
	p->moves = s->dispatcher.moves;
}

bool rounds_look_step(struct part *p, struct agent *self)
{
	rounds_note(p, order_scheduler_of(self));
	return true;
}

bool rounds_over(struct order *o)
{
	uint64_t moves = 0;
	uint64_t moved = 0;
	bool settled;

	for (uint32_t i = 0; i < o->part_count; i++) {
		moves += o->parts[i].moves;
		moved += o->parts[i].moved;
	}
	settled = o->rounds > 0 && moves == 0 && moved == o->moved &&
		  o->part_count == o->program->scheduler_count;
	/* While some are on their way this is never what it is when none is. */
	o->moved = moves == 0 ? moved : UINT64_MAX;
	o->unsettled = !settled && (o->rounds == ROUNDS_MAX || o->scheduler->stopping);
	if (settled || o->unsettled) {
		return true;
	}
	order_take_on(o);
	o->rounds++;
	return false;
}

static void see_once(struct part *p, struct scheduler *s, struct domain *d)
{
	if (d->order_mark != p->order->mark) {
		d->order_mark = p->order->mark;
		p->each(p, s, d);
	}
}

bool rounds_walk(struct part *p, struct agent *self, uint32_t limit, order_domain_fn each)
{
	bool anew = p->bucket_count != order_scheduler_of(self)->dispatcher.domains.bucket_count;
	uint64_t before[ORDER_TOTALS];
	bool over;

	memcpy(before, p->totals, sizeof(before));
	p->each = each;
	over = part_walk(p, self, limit, see_once);
	for (unsigned i = 0; anew && i < ORDER_TOTALS; i++) {
		p->totals[i] += before[i];
	}
	if (over) {
		rounds_note(p, order_scheduler_of(self));
	}
	return over;
}

/* ---- the spool ---- */

bool rounds_await_spool(struct part *p, const struct scheduler *s)
{
	uint64_t now_ms = agent_now_ms(&s->base);

	p->unwritten = (uint64_t)s->orders_waiting + s->dispatcher.failing;
	if (p->unwritten == 0) {
		return false;
	}
	if (p->waits_since_ms == 0) {
		p->waits_since_ms = now_ms;
	}
	return now_ms < p->waits_since_ms + SPOOL_PATIENCE_MS;
}

static bool written_step(struct part *p, struct agent *self)
{
	const struct scheduler *s = order_scheduler_of(self);

	return !rounds_await_spool(p, s) || s->stopping;
}

void rounds_written(struct order *o, order_merge_fn merge)
{
	order_again(o, written_step, merge);
}

/* ---- both ---- */

static void merge_round(struct order *o)
{
	if (!rounds_over(o)) {
		order_again(o, o->walk, merge_round);
	} else if (o->written) {
		rounds_written(o, o->conclude);
	} else {
		o->conclude(o);
	}
}

void rounds_begin(struct order *o, order_step_fn step, order_merge_fn merge, bool written)
{
	struct selection_turns *t = &o->scheduler->selections;

	if (++t->order_mark == 0) {
		t->order_mark = 1;
	}
	o->mark = t->order_mark;
	o->walk = step;
	o->conclude = merge;
	o->written = written;
	order_on_schedulers(o, rounds_look_step, merge_round);
}

bool rounds_set_trouble(const struct order *o, json_t *answer)
{
	uint64_t unwritten = 0;

	for (uint32_t i = 0; i < o->part_count; i++) {
		unwritten += o->parts[i].unwritten;
	}
	if (unwritten > 0) {
		value_set_text(answer, "trouble",
			       "the spool has not written all of it yet: a kill or a "
			       "power cut may undo some");
		value_set_number(answer, "not_yet_written", unwritten);
	} else if (o->unsettled) {
		value_set_text(answer, "trouble",
			       "domain records kept moving: some may be missing");
	}
	return unwritten > 0 || o->unsettled;
}
