/*
 * Draft: changes of the configuration that one connection gathers between `config begin` and
 * `config commit`. It knows the generation that it began with: what was changed by others since is
 * not overwritten unknowingly. A connection that ends takes its draft with it.
 */
#pragma once

#include "config/overlay.h"
#include "core/runtime/thread_class.h"

BOUND
struct draft {
	/* One after the other, as they were given. */
	struct overlay changes;
	/* Held. */
	struct config *base;
};

/* With a reference of its own to `base`. */
SINGLE
struct draft *draft_create(struct config *base);

/* NULL is ignored. */
SINGLE
void draft_free(struct draft *draft);

/* What in `running` is not as it was when the draft began, of what it changes, as lines into
 * `errors`; how many there are. */
SINGLE
unsigned draft_conflicts(const struct draft *draft, const struct config *running, FILE *errors);
