/*
 * What the dispatcher's two files share: dispatch.c decides, orders.c carries out what operators
 * ask for. Nobody else includes this.
 */
#pragma once

#include "core/outbound/dispatch.h"

/* Deliveries that one step moves or fails, so that a long queue does not hold up the others. */
#define DISPATCH_SLICE 1024

/* Notes what holds the domain back, until further notice. */
BOUND
void dispatch_hold(struct domain *d, enum domain_hold why);

/* Whether a record is suspended that has just been made. */
BOUND
static inline bool dispatch_begins_suspended(const struct domain *d)
{
	return d->options->suspend_delivery && d->binding_record->order != BINDING_RESUMED;
}

/* One timer for the earliest of the delayed queue. */
BOUND
void dispatch_arm_delayed(struct dispatcher *x, struct domain *d);

/* An attempt that ends before it had a connection: all pending recipients fail for good, or are
 * deferred. The delivery is in transit. */
BOUND
void dispatch_without_connection(struct dispatcher *x, struct delivery *delivery,
				 const struct attempt *model, bool permanent);

/* An attempt of our own words. */
READONLY
struct attempt dispatch_attempt_text(uint16_t code, const char *enhanced, const char *text);
