/*
 * Order: one command under way. Commands run on the thread that owns what they touch: an order has
 * one part for each agent that it asks; a task carries the part there, its step function runs,
 * once in each duty cycle until it says that it is done, and the part comes back. When all are
 * back, the order's merge function makes the answer.
 *
 * An order is its client's: the control listener's or the HTTP listener's, both of which are served
 * on the master's scheduler. While parts are away, what they read of it does not change.
 *
 * Start reading at order_on_schedulers().
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agents/scheduler.h"
#include "core/mail/idna.h"
#include "core/runtime/agent.h"
#include "core/runtime/timer.h"
#include "listeners/control/reply.h"
#include "listeners/control/value.h"

#define ORDER_MAGIC 0x6f726465U
/* A command line, without its newline. */
#define ORDER_LINE_MAX 4096
/* Words of a command. */
#define ORDER_WORDS_MAX 48
#define ORDER_TOTALS 10
/* Domain records that one step looks at when it writes rows, and when it only counts. */
#define ORDER_ROWS_PER_STEP 256
#define ORDER_RECORDS_PER_STEP 4096

struct binding_sums;
struct command;
struct draft;
struct order;
struct part;
struct selection;
struct selection_walk;
struct unread;

/* Runs on the part's agent; true when the part is complete, false to be called again in a later
 * duty cycle, or, if the part waits, not at all. */
typedef bool (*order_step_fn)(struct part *p, struct agent *self);
/* Runs on the client's agent when all parts are back: answers. */
typedef void (*order_merge_fn)(struct order *o);
/* Of a walk: looks at one domain record. */
typedef void (*order_domain_fn)(struct part *p, struct scheduler *s, struct domain *d);

/* Who gives orders: a listener on its scheduler. */
BOUND
struct order_client {
	/* Orders that are not freed yet. */
	uint32_t orders;
	uint64_t started_ms;
	/* Counts at the last summary from which rates were made, monotonic ms. */
	uint64_t rated_ms;
	uint64_t rated_delivered;
	uint64_t rated_received;
};

/* What kind of answer it is, for clients that tell errors apart by a number. */
enum order_outcome {
	ORDER_GOOD,
	/* The command's arguments are wrong. */
	ORDER_BAD_USAGE,
	/* There is no such command, or nothing that it could be about. */
	ORDER_NOT_FOUND,
};

/* What one agent is asked, and what it found. */
SINGLE
struct part {
	struct order *order;
	struct agent *agent;
	bool back;
	/* Set by a step that asked for something: when that has come, part_complete() ends it. */
	bool waits;
	/* Set by a step that returns false: the next one runs on this agent. */
	struct agent *pass_to;
	/* A domain's record by this binding is what it is there for; NULL: it is no such visit. */
	const char *away_by;
	/* The step of the binding, plus one, of which the home of the layout before has no record,
	 * and what dispatch_elsewhere() said there. */
	uint32_t absent;
	uint64_t absent_trip;
	/* What it found: a value, or text of JSON values separated by commas. */
	json_t *json;
	char *text;
	size_t text_len;
	size_t text_size;
	/* Sums for the command's own use; the walk starts them at 0. */
	uint64_t totals[ORDER_TOTALS];
	uint64_t cycle_ns;
	/* When it was sent to where it is, and how long it waited there for its first step. */
	uint64_t sent_ns;
	uint64_t late_ns;
	/* `bindings`: sums of domain records by index of the binding, malloc. */
	struct binding_sums *sums;
	uint32_t sum_count;
	/* `message`: what is still to be read of it; NULL: nothing. */
	struct unread *unread;
	/* Of a selection; NULL: it is none. */
	struct selection_walk *selection;
	/* Of the client's own use; malloc. */
	void *found;
	/* Of an order in rounds: what sees a record; records that have left the scheduler so far,
	 * and those on their way; since when it waits for the spool, monotonic ms (0: it does not),
	 * and orders that the spool has not written. */
	order_domain_fn each;
	uint64_t moved;
	uint64_t moves;
	uint64_t waits_since_ms;
	uint64_t unwritten;
	/* A walk over domain records: the next bucket, and how many there were. */
	uint32_t bucket;
	uint32_t bucket_count;
};

BOUND
struct order {
	uint32_t magic;
	struct order_client *client;
	/* The client's scheduler. */
	struct scheduler *scheduler;
	struct program *program;
	/* Who gave it: "uid 0 (pid 4711)". */
	char who[48];
	/* Told when the answer is there; NULL: nobody waits for it any more. */
	void (*on_answer)(void *context, struct order *o);
	void *context;

	/* The command as it was sent, and its words: those of the command's name, then arguments.
	 */
	char line[ORDER_LINE_MAX + 1];
	char split[ORDER_LINE_MAX + 1];
	char *words[ORDER_WORDS_MAX];
	unsigned word_count;
	const struct command *command;
	char **arguments;
	unsigned argument_count;
	/* What commands make of their arguments. */
	uint64_t number;
	struct message_id id;
	char ascii_domain[IDNA_MAX];
	bool flag;
	/* Of suspensions: their end, wall clock, ms; 0: none. */
	uint64_t until_ms;
	/* Of lists: what becomes of one domain record. */
	json_t *(*row)(struct scheduler *s, const struct domain *d);
	/* `busiest`: what rows are sorted by. */
	unsigned sort;
	/* `lua eval`: what is run. */
	char code[ORDER_LINE_MAX + 1];
	/* The binding that is meant; NULL: all. */
	const char *binding;
	/* NULL: it selects no mail. */
	struct selection *selection;
	/* Of an order in rounds (rounds.h): how often schedulers have been asked, how many records
	 * had left them the last time, the mark of those it has seen, and what it goes on with. */
	unsigned rounds;
	uint64_t moved;
	bool unsettled;
	bool written;
	uint32_t mark;
	order_step_fn walk;
	order_merge_fn conclude;
	/* Where its connection gathers changes of the configuration, until the order is released;
	 * NULL: it has no connection of its own. */
	struct draft **draft;

	order_step_fn step;
	order_merge_fn merge;
	struct part *parts;
	uint32_t part_count;
	uint32_t waiting;
	struct timer patience;

	struct reply reply;
	enum order_outcome outcome;
	bool answered;
	/* Nobody wants it: freed when its last part is back. */
	bool released;
};

/* Makes an order for `line` (`len` bytes, at most ORDER_LINE_MAX, no newline). */
BOUND
struct order *order_create(struct order_client *client, struct scheduler *s, const char *line,
			   size_t len);

/* A client begins: nothing is under way, and rates are from now on. */
BOUND
void order_client_init(struct order_client *client, const struct scheduler *s);

/* Gives it up, answered or not. */
BOUND
void order_release(struct order *o);

/* The configuration as it is where the order is. */
BOUND
struct config *order_config(const struct order *o);

/* Answers; on_answer() runs at once. Takes over `result`. */
BOUND
void order_answer(struct order *o, json_t *result);

/* Answers with an error: there is nothing that the order could be about. */
BOUND
void order_fail(struct order *o, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with a text of any length: what the order is about is wrong. */
BOUND
void order_fail_lines(struct order *o, const char *text);

/* The same: the command's arguments are wrong. */
BOUND
void order_fail_usage(struct order *o, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Answers with an object that has the rows which the parts wrote as an array called `key`, and
 * `more` (taken over; may be NULL) after it, called `more_key`. */
BOUND
void order_answer_rows(struct order *o, const char *key, const char *more_key, json_t *more);

/* Asks every scheduler. */
BOUND
void order_on_schedulers(struct order *o, order_step_fn step, order_merge_fn merge);

/* All parts are back: asks the same agents again, parts with what they have. */
BOUND
void order_again(struct order *o, order_step_fn step, order_merge_fn merge);

/* Before that, of all schedulers: those that have joined since are asked, too. */
BOUND
void order_take_on(struct order *o);

/* Asks one agent. */
BOUND
void order_on_agent(struct order *o, struct agent *agent, order_step_fn step, order_merge_fn merge);

/* The order waits for something that is no part of it, and stays until order_back(). */
BOUND
void order_wait(struct order *o);

/* It has come. True: the order is to be answered. False: nobody wants that, and the order is gone.
 */
BOUND
bool order_back(struct order *o);

/* Asks one scheduler. */
BOUND
void order_on_scheduler(struct order *o, uint32_t index, order_step_fn step, order_merge_fn merge);

/* Asks every agent. One that has not answered after `patience_ms` is left out: its part is not
 * `back` when merge runs. */
BOUND
void order_on_agents(struct order *o, uint64_t patience_ms, order_step_fn step,
		     order_merge_fn merge);

/* On the part's agent: the part goes back. Only for one that waits. */
BOUND
void part_complete(struct part *p, struct agent *self);

/* The same: it takes its next step. */
BOUND
void part_resume(struct part *p, struct agent *self);

/* On the part's agent: writes one row, which it takes over. */
SINGLE
void part_row(struct part *p, json_t *row);

/* The scheduler whose agent this is. */
BOUND
struct scheduler *order_scheduler_of(struct agent *self);

/* A step of a walk over a scheduler's domain records: `each` for about `limit` of them. True at the
 * end. When the table has grown meanwhile, the walk starts anew. */
BOUND
bool part_walk(struct part *p, struct agent *self, uint32_t limit, order_domain_fn each);

/* A walk begins, or begins again: over so many buckets. */
BOUND
void part_walk_restart(struct part *p, uint32_t bucket_count);

/* Sum of total `index` over all parts. */
BOUND
uint64_t order_total(const struct order *o, unsigned index);
