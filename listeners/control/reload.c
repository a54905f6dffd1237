#include "listeners/control/reload.h"

#include <stdlib.h>
#include <string.h>

#include "agents/generation.h"

SINGLE
struct reload {
	struct generation_change change;
	struct order *order;
	const struct reload_kind *kind;
	void *renewal;
};

static struct reload *reload_of(struct generation_change *g)
{
	return CONTAINER_OF(g, struct reload, change);
}

static bool prepare(struct generation_change *g, struct config *running, FILE *errors)
{
	struct reload *r = reload_of(g);
	char why[RELOAD_WHY];

	r->renewal = r->kind->renew(running, why);
	if (r->renewal == NULL) {
		fputs(why, errors);
	}
	return r->renewal != NULL;
}

static bool publish(struct generation_change *g)
{
	struct reload *r = reload_of(g);

	if (!r->kind->changes(r->renewal)) {
		return false;
	}
	r->kind->publish(r->renewal);
	return true;
}

/* Whatever it was doing with the old ones is done. */
static void take(struct generation_change *g, struct scheduler *s)
{
	const struct reload_kind *kind = reload_of(g)->kind;

	if (kind->notice != NULL) {
		kind->notice(s);
	}
	generation_taken(g, &s->base);
}

static const struct generation_ops ops = {
	.prepare = prepare,
	.publish = publish,
	.take = take,
};

static void on_done(struct generation_change *g)
{
	struct reload *r = reload_of(g);
	struct order *o = r->order;

	if (order_back(o)) {
		if (g->result != 0) {
			order_fail(o, "nothing has changed: %.*s", (int)strcspn(g->messages, "\n"),
				   g->messages);
		} else {
			order_answer(o, r->kind->answer(r->renewal));
		}
	}
	r->kind->free(r->renewal);
	generation_change_close(g);
	free(r);
}

void reload_begin(struct order *o, const struct reload_kind *kind)
{
	struct reload *r = check_memory(calloc(1, sizeof(*r)), "a command");

	r->order = o;
	r->kind = kind;
	r->change.on_done = on_done;
	order_wait(o);
	generation_begin_other(o->program, &r->change, &ops);
}
