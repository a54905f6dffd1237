/*
 * Commands: the table, and what is told from a command line by it. A command's run function either
 * answers at once or asks agents (order.h) and answers when they have.
 *
 * Start reading at command_table.
 */
#pragma once

#include <stdbool.h>

#include "core/runtime/thread_class.h"
#include "listeners/control/order.h"

struct connection;

READONLY
struct command {
	/* Words separated by one space. */
	const char *name;
	/* For people: capitals stand for something, brackets for what may be left out. */
	const char *syntax;
	const char *help;
	unsigned arguments_min;
	unsigned arguments_max;
	/* Alters something: it is written to paniclog with who gave the order. */
	bool changes;
	void (*run)(struct order *o);
};

/* Ends with a command without a name. */
extern const struct command command_table[];

/* Splits o->line into words (blanks separate, double quotes keep together) and finds the command;
 * the longest name wins. False when that failed: then the order is answered. */
BOUND
bool command_parse(struct order *o);

/* Does the parsed command alter anything? */
BOUND
bool command_changes(const struct order *o);

BOUND
void command_run(struct order *o);

/* Argument `index` as a whole number, into o->number; false and answered when it is none. */
BOUND
bool command_number(struct order *o, unsigned index);

/* Argument `index` in lower case, in place; false and answered when it cannot be a domain. */
BOUND
bool command_domain(struct order *o, unsigned index);

/* Argument `index` as a message id, into o->id; false and answered when it is none. */
BOUND
bool command_message_id(struct order *o, unsigned index);

/* Argument `index`, when it is there, must be `word`: o->flag says whether it is. False and
 * answered when it is something else. */
BOUND
bool command_flag(struct order *o, unsigned index, const char *word);

/* Takes "for TIME" or "until MOMENT" (2027-01-31T15:00:00Z, seconds may be left out) off the end,
 * into o->until_ms; `max` arguments may be before it. False and answered: it is wrong. */
BOUND
bool command_until(struct order *o, unsigned max);

/* Who gave the order, when, and until when (malloc); NULL: it is one to resume. */
BOUND
struct suspension *command_suspension(const struct order *o, struct agent *self);

/* Answers that the command was not used as it is to be. */
BOUND
void command_fail_usage(struct order *o);

/* What holds the domain's queue: a limit's name or a reason; empty when nothing does. */
BOUND
const char *command_held_by(const struct scheduler *s, const struct domain *d);
/* "suspended", "held", "sending", ... */
BOUND
const char *command_domain_state(const struct scheduler *s, const struct domain *d);
/* All that `domain` shows of a record. */
BOUND
json_t *command_describe_domain(struct scheduler *s, const struct domain *d);

/* ---- records of the domain that is argument 0, by the binding that is meant (command_domain.c)
 * ---- */

/* The sum of command_each_record(): how many there were. Others are command_domain.c's. */
#define COMMAND_TOTAL_RECORDS 0

/* Argument `index` is a binding's name, or not there: then all are meant. */
BOUND
void command_take_binding(struct order *o, unsigned index);
/* Asks every scheduler, if argument 0 is a domain name. */
BOUND
void command_ask_records(struct order *o, order_step_fn step, order_merge_fn merge);
/*
 * For a step: looks after the records of the domain that have their first home on this scheduler,
 * one for each binding, so that each is seen once: of one that is away where it is, and comes back
 * for the next. True when all have been seen, or the program stops. `make`: there is one of each
 * binding that is configured.
 */
BOUND
bool command_each_record(struct part *p, struct agent *self, bool make, order_domain_fn each);
/* True when there was a record, and each was seen; else the order is answered. */
BOUND
bool command_found_records(struct order *o);
/* One more value of the part, an array; and the answer made of them: one by itself, several in a
 * list called "bindings". */
SINGLE
void command_add_value(struct part *p, json_t *value);
BOUND
void command_answer_records(struct order *o);

/* What a connection is doing: "waiting for the banner", "body", ... */
BOUND
const char *command_connection_text(const struct connection *c);

/* Next hops of a lane (NULL: none), an array. */
BOUND
json_t *command_hosts(const struct scheduler *s, const struct lane *l);

/* What next hops of a site (NULL: none) said lately that did not take mail, the latest first. */
BOUND
json_t *command_answers(const struct site *site);

/* Addresses of the pending recipients of delivery `index`, an array: `all`, or the first ones. */
SINGLE
json_t *command_recipients(const struct envelope *e, uint32_t index,
			   const struct recipient_set *pending, bool all);

/* `mailq` by selectors: a record has so many deliveries that match; and the answer. */
BOUND
void command_mailq_row(struct part *p, struct scheduler *s, const struct domain *d,
		       uint64_t matching);
BOUND
void command_mailq_answer(struct order *o);

/* Sets what of the memory and reception budgets is used, and the budgets. */
BOUND
void command_set_budgets(json_t *v, const struct order *o);

/* The run functions, by file. */
BOUND
void command_summary(struct order *o);
/* command_domain.c: one domain */
BOUND
void command_domain_show(struct order *o);
BOUND
void command_domain_flush(struct order *o);
BOUND
void command_domain_fail(struct order *o);
BOUND
void command_domain_suspend(struct order *o);
BOUND
void command_suspensions(struct order *o);
BOUND
void command_domain_resume(struct order *o);
/* command_why.c: why is it not moving? */
BOUND
void command_why(struct order *o);
BOUND
void command_why_domain(struct order *o);
BOUND
void command_why_message(struct order *o);
/* command_site.c: what domains share */
BOUND
void command_site_show(struct order *o);
BOUND
void command_sites(struct order *o);
/* command_binding.c */
BOUND
void command_bindings(struct order *o);
BOUND
void command_binding_show(struct order *o);
BOUND
void command_binding_suspend(struct order *o);
BOUND
void command_binding_resume(struct order *o);
BOUND
void command_binding_flush(struct order *o);
BOUND
void command_binding_fail(struct order *o);
/* command_queue.c: lists of domains */
BOUND
void command_domains(struct order *o);
BOUND
void command_active(struct order *o);
BOUND
void command_delayed(struct order *o);
BOUND
void command_mailq(struct order *o);
BOUND
void command_flush_all(struct order *o);
/* Answers with the o->number longest queues, those of o->binding if it is set: rows made by o->row,
 * which has "active", "delayed" and "held" among its keys. */
BOUND
void command_longest(struct order *o);
/* command_busiest.c: the busiest domains; names that begin so */
BOUND
void command_busiest(struct order *o);
BOUND
void command_complete(struct order *o);
/* command_select.c: whatever selectors mean */
BOUND
void command_find(struct order *o);
BOUND
void command_hold(struct order *o);
BOUND
void command_release(struct order *o);
BOUND
void command_fail(struct order *o);
BOUND
void command_reroute(struct order *o);
BOUND
void command_rebind(struct order *o);
/* A command "fail KEY NAME" goes on with selectors, of which KEY is the first: they are taken, and
 * answered later. False: it does not. */
BOUND
bool command_fail_selects(struct order *o);
/* command_message.c */
BOUND
void command_message_show(struct order *o);
BOUND
void command_message_fail(struct order *o);
BOUND
void command_message_retry(struct order *o);
/* command_signing.c */
BOUND
void command_signing_stats(struct order *o);
BOUND
void command_dkim_reload(struct order *o);
/* command_config.c: generations of the configuration */
BOUND
void command_config_reload(struct order *o);
BOUND
void command_config_status(struct order *o);
/* What came of a change of the configuration that was made: an object; of one that was not:
 * answers.
 */
struct generation_change;
BOUND
json_t *command_change_value(const struct generation_change *g);
/* `wrote`: paths of files that were written nevertheless; NULL, or none: none. */
BOUND
void command_fail_change(struct order *o, const struct generation_change *g, const json_t *wrote);
/* command_tls.c */
BOUND
void command_tls_reload(struct order *o);
/* command_tlsrpt.c */
BOUND
void command_tlsrpt(struct order *o);
/* command_policy.c: scripts; the first of them is any command that a script has registered */
BOUND
bool command_is_policy(const struct order *o);
BOUND
void command_policy(struct order *o);
BOUND
void command_lua_eval(struct order *o);
BOUND
void command_lua_check(struct order *o);
BOUND
void command_hooks(struct order *o);
/* command_setting.c: questions about the configuration */
BOUND
void command_config_get(struct order *o);
BOUND
void command_config_eval(struct order *o);
BOUND
void command_config_show(struct order *o);
BOUND
void command_config_locate(struct order *o);
BOUND
void command_config_diff(struct order *o);
/* command_change.c: changes of it; first the order's line as it may be written down, without a
 * secret that it sets, into `text`. Returns `text`. */
BOUND
const char *command_line_shown(const struct order *o, char *text, size_t size);
BOUND
void command_config_set(struct order *o);
BOUND
void command_config_unset(struct order *o);
BOUND
void command_config_begin(struct order *o);
BOUND
void command_config_commit(struct order *o);
BOUND
void command_config_rollback(struct order *o);
BOUND
void command_config_writeback(struct order *o);
/* command_bounce.c */
BOUND
void command_bounce_stats(struct order *o);
/* command_dns.c */
BOUND
void command_dig(struct order *o);
BOUND
void command_dns_cache_stats(struct order *o);
BOUND
void command_dns_cache_flush(struct order *o);
BOUND
void command_dns_cache_lookup(struct order *o);
/* command_log.c */
BOUND
void command_log_rotate(struct order *o);
/* command_trace.c */
BOUND
void command_trace_add(struct order *o);
BOUND
void command_trace_remove(struct order *o);
BOUND
void command_trace_list(struct order *o);
/* command_program.c */
BOUND
void command_threads(struct order *o);
BOUND
void command_counters(struct order *o);
BOUND
void command_errors(struct order *o);
BOUND
void command_memory(struct order *o);
BOUND
void command_version(struct order *o);
BOUND
void command_reopen_logs(struct order *o);
BOUND
void command_shutdown(struct order *o);
