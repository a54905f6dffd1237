/*
 * A selection under way: what selectors (select.h) mean is found in all queues, and shown, counted,
 * or changed. At first the spool is read on the thread pool, if it takes envelopes or headers to
 * say; then every scheduler goes through its queues in bounded pieces.
 *
 * Every delivery that is queued from the order's beginning to its end is looked at, once: each is
 * marked with the selection's number, and records that travel meanwhile are waited for by going
 * through the queues again. What is delivered meanwhile may have been looked at or not. A delivery
 * that waits neither in a queue nor on a connection, but for the spool or for its bounce to be
 * made, cannot be looked at: those are counted apart, as are messages that a start has found in the
 * spool and not handed out yet. One selection runs at a time, whichever
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
#include "listeners/control/pace.h"
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
	/* Messages of the last run of the program that were not queued yet at this moment. */
	uint64_t unrecovered;

	/* The spool is read: of which writer, and what was found. */
	struct survey survey;
	struct job job;
	bool read_more;
	/* What the last piece took of the worker's CPU time, and the rest after it. */
	uint64_t piece_ns;
	struct pace_rest rest;
	struct timer timer;
	bool overloaded;
	struct candidates candidates;
	uint64_t unread_segments;
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
	struct pace pace;
	struct part *part;
	struct timer timer;
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
	struct message_id ids[SELECTION_IDS];
	unsigned id_count;
};

/* Takes the order's words from argument `first` on, selectors and then what the verb knows, and
 * does it; answers when that is done. False and answered when words are wrong. */
BOUND
void selection_begin(struct order *o, enum selection_verb verb, unsigned first);

/* Sets in an answer what the counts leave out, which is nothing as a rule. */
BOUND
void selection_set_gaps(json_t *v, const struct selection *sel);

/* The order is freed: whatever is its selection's goes with it. */
BOUND
void selection_free(struct order *o);

/* ---- selection_walk.c: steps of parts ---- */

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
