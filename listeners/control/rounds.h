/*
 * An order to all records of every scheduler that is to miss none, and to outlive a kill once it is
 * answered. Records that travel meanwhile are waited for by going through all of them again, until
 * none has moved between two rounds; each is seen once, as it is marked. What was changed is waited
 * for until the spool has it.
 *
 * Start reading at rounds_begin().
 */
#pragma once

#include "core/runtime/thread_class.h"
#include "listeners/control/order.h"

/* Asks every scheduler, again and again, to walk by `step` until all is settled; then `merge`.
 * `written`: when the spool has all that was ordered. */
BOUND
void rounds_begin(struct order *o, order_step_fn step, order_merge_fn merge, bool written);

/* A step of such a walk, as part_walk(): `each` sees records that this order has not seen. Totals
 * go on from round to round. */
BOUND
bool rounds_walk(struct part *p, struct agent *self, uint32_t limit, order_domain_fn each);

/* For walks of their own. The step of the first round, which only looks. */
BOUND
bool rounds_look_step(struct part *p, struct agent *self);
/* The end of the part's walk: which records have left its scheduler. */
BOUND
void rounds_note(struct part *p, const struct scheduler *s);
/* All parts are back: no record was on its way when this round ended, nor when the one before did,
 * none has moved in between, and nobody has joined, so that all were where they are when this one
 * came by; or it is given up, and o->unsettled set. Else another round is to come. */
BOUND
bool rounds_over(struct order *o);
/* Whether the part still waits for the spool to have what its scheduler was ordered: for so long as
 * is bearable, and p->unwritten is how much it has not. */
BOUND
bool rounds_await_spool(struct part *p, const struct scheduler *s);

/* All parts are back: asks again when the spool has all that schedulers were ordered; then `merge`.
 */
BOUND
void rounds_written(struct order *o, order_merge_fn merge);

/* Adds to the answer what could not be made sure. True when there is something. */
BOUND
bool rounds_set_trouble(const struct order *o, json_t *answer);
