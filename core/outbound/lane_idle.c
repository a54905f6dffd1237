#include "core/outbound/lane_idle.h"

void lane_add_idle(struct connection *c)
{
	struct lane *l = c->lane;

	c->idle_prev = NULL;
	c->idle_next = l->idle;
	if (l->idle != NULL) {
		l->idle->idle_prev = c;
	}
	l->idle = c;
	l->idle_count++;
}

void lane_remove_idle(struct connection *c)
{
	*(c->idle_prev != NULL ? &c->idle_prev->idle_next : &c->lane->idle) = c->idle_next;
	if (c->idle_next != NULL) {
		c->idle_next->idle_prev = c->idle_prev;
	}
	c->lane->idle_count--;
}
