/*
 * A selection under way: what selectors (select.h) mean is found in all queues, and shown, counted,
 * or changed. At first the spool is read on the thread pool, if it takes envelopes or headers to
 * say; then every scheduler goes through its queues in bounded pieces.
 *
 * Every delivery that is queued from the order's beginning to its end is looked at, once: each is
 * marked with the selection's number, and records that travel meanwhile are waited for by going
 * through the queues again. What is delivered meanwhile may have been looked at or not. A delivery
 * that waits neither in a queue nor on a connection, but for the spool or for its bounce to be
 * made, cannot be looked at: those are counted apart. One selection runs at a time, whichever
 * listener it came from, and others wait: marks and turns are the scheduler's on which orders are
 * given (struct selection_turns).
 *
 * Start reading at selection_begin() in selection.c; selection_walk.c is what schedulers do.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agents/thread_pool.h"
#include "core/runtime/thread_class.h"
#include "listeners/control/candidates.h"
#include "listeners/control/command.h"
#include "listeners/control/select.h"
#include "spool/survey.h"

/* Ids that an order's answer names. */
#define SELECTION_IDS 10

enum selection_verb {
	SELECTION_FIND,
	SELECTION_MAILQ,
	SELECTION_HOLD,
	SELECTION_RELEASE,
	SELECTION_FAIL,
	SELECTION_REROUTE,
	SELECTION_REBIND,
};

/* A part's totals. Each delivery that is meant is counted by one of CHANGED, UNCHANGED (it is as it
 * was asked to be), AFTER_ATTEMPT (it is on a connection, and will be changed as soon as it is
 * not), and BUSY (it is on a connection, and stays as it is). */
enum selection_total {
	SELECTION_MATCHED,
	SELECTION_RECIPIENTS,
	SELECTION_CHANGED,
	SELECTION_UNCHANGED,
	SELECTION_AFTER_ATTEMPT,
	SELECTION_BUSY,
	/* Of records that were looked through: neither in a queue nor on a connection. */
	SELECTION_BETWEEN,
	/* Records that have left the scheduler so far, and those on their way. */
	SELECTION_MOVED,
	SELECTION_MOVES,
	/* Changes that the spool has not written after a while. */
	SELECTION_UNWRITTEN,
};

BOUND
struct selection {
	struct order *order;
	/* Waits for its turn. */
	struct selection *next;
	enum selection_verb verb;
	struct selectors selectors;
	bool dry_run;
	bool quiet;
	/* Rows. */
	uint32_t limit;
	/* Of REROUTE, of REBIND. */
	const char *to;
	/* In deliveries that were looked at. */
	uint16_t mark;
	/* Wall clock: ages are those of this moment, and mail that came later is not changed. */
	uint64_t begun_ms;

	/* The spool is read: of which writer, and what was found. */
	struct survey survey;
	struct job job;
	bool read_more;
	bool overloaded;
	struct candidates candidates;
	uint64_t unread_segments;

	/* How often schedulers have been asked, and how many records had left them the last time.
	 */
	unsigned rounds;
	uint64_t moved;
	bool unsettled;
};

/* A row of `find` whose envelope has to be read. */
SINGLE
struct selection_row {
	json_t *row;
	struct part *part;
	struct message_id id;
	struct recipient_set pending;
	uint32_t delivery;
	uint8_t writer;
	bool complete;
};

/* A part's walk over its scheduler's queues. */
BOUND
struct selection_walk {
	/* The record that it is in the middle of; NULL: none. */
	struct domain *at;
	bool pinned;
	/* Which of its queues, and where there; what it had changed when the walk came. */
	unsigned stage;
	uint32_t index;
	uint32_t changes;
	/* Of this record. */
	uint64_t matched;
	uint64_t changed;
	struct selection_row *rows;
	uint32_t row_count;
	uint32_t row_slots;
	unsigned loading;
	/* Since when the walk waits for the spool, monotonic ms; 0: it does not. */
	uint64_t waits_since_ms;
	struct message_id ids[SELECTION_IDS];
	unsigned id_count;
};

/* Takes the order's words from argument `first` on, selectors and then what the verb knows, and
 * does it; answers when that is done. False and answered when words are wrong. */
BOUND
void selection_begin(struct order *o, enum selection_verb verb, unsigned first);

/* The order is freed: whatever is its selection's goes with it. */
BOUND
void selection_free(struct order *o);

/* ---- selection_walk.c: steps of parts ---- */

/* Tells SELECTION_MOVED and SELECTION_MOVES. */
BOUND
bool selection_look_step(struct part *p, struct agent *self);
/* Goes through all queues. */
BOUND
bool selection_walk_step(struct part *p, struct agent *self);
/* Reads the envelopes of its rows. */
BOUND
bool selection_rows_step(struct part *p, struct agent *self);
/* Rows beyond `limit` are dropped. */
SINGLE
void selection_walk_trim(struct selection_walk *w, uint32_t limit);
SINGLE
void selection_walk_free(struct selection_walk *w);
