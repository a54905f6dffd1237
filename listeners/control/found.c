#include "listeners/control/found.h"

#include "core/outbound/connection.h"

static void look_at(struct found *f, struct delivery *d, const struct message_id *id)
{
	const struct message_id *own = &d->message->id;

	if (own->high == id->high && own->low == id->low && f->count < FOUND_MAX) {
		f->deliveries[f->count++] = d;
	}
}

void found_in(struct found *f, const struct domain *d, const struct message_id *id)
{
	f->count = 0;
	for (struct delivery *x = d->active_head; x != NULL; x = x->next) {
		look_at(f, x, id);
	}
	for (uint32_t i = 0; i < d->delayed_count; i++) {
		look_at(f, d->delayed[i], id);
	}
	for (uint32_t i = 0; i < d->held_count; i++) {
		look_at(f, d->held[i], id);
	}
	for (const struct connection *c = d->connections; c != NULL; c = c->next) {
		if (c->delivery != NULL) {
			look_at(f, c->delivery, id);
		}
	}
}

const char *found_place(const struct delivery *d)
{
	switch ((enum delivery_place)d->place) {
	case DELIVERY_TRANSIT:
		return "between queues";
	case DELIVERY_ACTIVE:
		return "active queue";
	case DELIVERY_DELAYED:
		return "delayed queue";
	case DELIVERY_ATTEMPT:
		return "on a connection";
	case DELIVERY_HELD:
		return "held";
	}
	return "unknown";
}

void found_nothing(struct order *o)
{
	order_fail(o,
		   "no delivery of message %s is queued here: it was delivered, failed or never "
		   "here (mainlog says), or it is between two queues at this moment: try again",
		   o->arguments[0]);
}
