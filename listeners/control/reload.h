/*
 * What is read anew while the program runs: by the thread pool, then used from one moment on. What
 * was used before is freed when every scheduler has taken notice, so that none is just about to use
 * it.
 */
#pragma once

#include "listeners/control/command.h"

/* The longest of them. */
#define RELOAD_WHY DKIM_WHY

/* Of one kind of files. A renewal is what was read. */
READONLY
struct reload_kind {
	/* On the thread pool. NULL: `why` says why nothing changes. */
	void *(*renew)(const struct config *config, char why[RELOAD_WHY]);
	/* Whether it is to be published. */
	bool (*changes)(const void *renewal);
	void (*publish)(void *renewal);
	/* On each scheduler, between two tasks: it lets go of what it has from before. May be NULL.
	 */
	void (*notice)(struct scheduler *s);
	json_t *(*answer)(const void *renewal);
	/* Frees it and what it took the place of; NULL is fine. */
	void (*free)(void *renewal);
};

/* The order is answered later. */
BOUND
void reload_begin(struct order *o, const struct reload_kind *kind);
