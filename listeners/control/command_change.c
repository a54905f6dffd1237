/*
 * Changes of the configuration by the console: `config set`, `unset`, `begin`, `commit`,
 * `rollback`, `writeback`, `reload`. Each becomes a generation (agents/generation.h) of what the
 * files say and what the console has set, or nothing changes. What the console has set belongs to
 * the program and is changed only when a change is done, of which one is under way at a time: so
 * load() may read it on the pool.
 *
 * Start reading at begin().
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "agents/generation.h"
#include "config/writeback.h"
#include "listeners/control/command.h"
#include "listeners/control/draft.h"
#include "listeners/control/setting.h"

#define LASTS "until a restart; config writeback saves it"

/* One change on its way. */
SINGLE
struct console_change {
	struct generation_change change;
	struct order *order;
	/* What changes; NULL: what the console has set is written into the files, or these are
	 * loaded again. */
	struct draft *draft;
	/* It was begun by `config begin`. */
	bool gathered;
	/* Whatever others have changed meanwhile. */
	bool force;
	/* What the console has set then. */
	struct overlay after;
	/* Files that were written. */
	json_t *wrote;
	/* What is told besides. */
	json_t *answer;
};

static struct console_change *change_of(struct generation_change *g)
{
	return CONTAINER_OF(g, struct console_change, change);
}

/* ---- on the pool ---- */

static struct config *load(struct generation_change *g, const struct config *running, FILE *errors)
{
	struct console_change *c = change_of(g);
	const struct overlay *now = &c->order->program->overlay;

	if (c->gathered && !c->force && draft_conflicts(c->draft, running, errors) != 0) {
		fputs("expected config rollback, or config commit force\n", errors);
		return NULL;
	}
	c->after = overlay_copy(now);
	overlay_merge(&c->after, &c->draft->changes);
	return config_load_again(running, &c->after, errors);
}

static void add_path(void *paths, const char *path)
{
	value_append(paths, value_text(path));
}

static struct config *write_back(struct generation_change *g, const struct config *running,
				 FILE *errors)
{
	struct console_change *c = change_of(g);

	return config_writeback(running, &c->order->program->overlay, add_path, c->wrote, errors);
}

/* ---- the end ---- */

static void take_overlay(struct console_change *c)
{
	struct program *p = c->order->program;

	overlay_free(&p->overlay);
	p->overlay = c->after;
	c->after = (struct overlay){.count = 0};
}

/* A transaction that was refused goes on, if its connection is still there. */
static void give_back(struct console_change *c)
{
	struct order *o = c->order;

	if (c->gathered && o->draft != NULL && *o->draft == NULL) {
		*o->draft = c->draft;
		c->draft = NULL;
	}
}

static void answer(struct console_change *c)
{
	json_t *v = command_change_value(&c->change);

	json_object_update_missing(v, c->answer);
	if (c->change.load == write_back) {
		value_set(v, "files", json_incref(c->wrote));
	} else if (c->draft != NULL && c->order->program->overlay.count > 0) {
		value_set_text(v, "lasts", LASTS);
	}
	order_answer(c->order, v);
}

static void on_done(struct generation_change *g)
{
	struct console_change *c = change_of(g);

	if (g->result == 0 && g->load != NULL) {
		take_overlay(c);
	}
	if (order_back(c->order)) {
		if (g->result != 0) {
			give_back(c);
			command_fail_change(c->order, g, c->wrote);
		} else {
			answer(c);
		}
	}
	draft_free(c->draft);
	overlay_free(&c->after);
	json_decref(c->wrote);
	json_decref(c->answer);
	generation_change_close(g);
	free(c);
}

/* Takes over `draft` and `told`. */
static struct console_change *begin(struct order *o, struct draft *draft, json_t *told)
{
	struct console_change *c = check_memory(calloc(1, sizeof(*c)), "a command");

	c->order = o;
	c->draft = draft;
	c->wrote = value_array();
	c->answer = told;
	c->change.load = draft != NULL ? load : write_back;
	c->change.on_done = on_done;
	order_wait(o);
	return c;
}

static void run(struct console_change *c)
{
	generation_begin(c->order->program, &c->change);
}

/* ---- one option ---- */

/* In a transaction when the connection has one. */
static void change_option(struct order *o, const struct setting *s, const char *value)
{
	bool gathering = o->draft != NULL && *o->draft != NULL;
	struct draft *draft = gathering ? *o->draft : draft_create(order_config(o));
	uint64_t now_ns = o->scheduler->base.now.wall_ns;
	char *shown = value != NULL ? config_value_shown(&s->scope, s->option, value) : NULL;
	json_t *v = value_object();

	overlay_append(&draft->changes, &s->scope, s->option, value, o->who, now_ns);
	value_set_text(v, "scope", s->scope_text);
	value_set_text(v, "option", s->option);
	value_set_text(v, "value", shown);
	free(shown);
	if (gathering) {
		value_set_number(v, "changes", draft->changes.count);
		value_set_text(v, "lasts", "takes effect with config commit");
		order_answer(o, v);
		return;
	}
	run(begin(o, draft, v));
}

/* What is the value from argument `index` on, without a leading "=": the rest of the line, as it
 * was written; or a list that a shell took for one word. */
static const char *value_at(const struct order *o, unsigned index)
{
	if (strcmp(o->arguments[index], "=") == 0 && index + 1 < o->argument_count) {
		index++;
	}
	if (index + 1 == o->argument_count &&
	    (o->arguments[index][0] == '(' || o->arguments[index][0] == '[')) {
		return o->arguments[index];
	}
	return o->line + (o->arguments[index] - o->split);
}

void command_config_set(struct order *o)
{
	struct setting s;
	const char *problem;
	const char *text;
	char *value;

	if (!setting_parse(o, 2, &s)) {
		return;
	}
	if (s.taken + 2 > o->argument_count) {
		command_fail_usage(o);
		config_scope_free(&s.scope);
		return;
	}
	text = value_at(o, s.taken + 1);
	problem = config_value_read(text, &value);
	if (problem != NULL) {
		order_fail_usage(o, "option \"%s\": %.200s %s", s.option, text, problem);
	} else {
		change_option(o, &s, value);
	}
	free(value);
	config_scope_free(&s.scope);
}

static void option_name(const char *word, char *name, size_t size)
{
	snprintf(name, size, "%s", word);
	for (char *c = name; *c != '\0'; c++) {
		*c = (char)tolower((unsigned char)*c);
	}
}

/* The scope and the option are as they were written, the value is as it may be shown. What cannot
 * be understood sets nothing, but may have a secret in it. */
static void set_line_shown(const struct order *o, char *text, size_t size)
{
	const char *value = o->line + (o->arguments[0] - o->split);
	char *shown = NULL;
	char option[64];
	char why[CONFIG_WHY];
	struct config_scope scope;
	int taken = config_scope_parse(&scope, o->arguments, o->argument_count, 2, why);

	if (taken >= 0 && (unsigned)taken + 2 <= o->argument_count) {
		option_name(o->arguments[taken], option, sizeof(option));
		if (config_option_check(&scope, option, why) == NULL) {
			value = o->line + (o->arguments[taken + 1] - o->split);
			shown = config_value_shown(&scope, option, value);
		}
	}
	if (taken >= 0) {
		config_scope_free(&scope);
	}
	snprintf(text, size, "%.*s%s", (int)(value - o->line), o->line,
		 shown != NULL ? shown : "...");
	free(shown);
}

const char *command_line_shown(const struct order *o, char *text, size_t size)
{
	/* Those of scripts are in no table. */
	if (o->command != NULL && o->command->run == command_config_set) {
		set_line_shown(o, text, size);
	} else {
		snprintf(text, size, "%s", o->line);
	}
	return text;
}

static void ignore(void *unused, const struct config_setting *setting)
{
	(void)unused;
	(void)setting;
}

void command_config_unset(struct order *o)
{
	struct setting s;

	if (!setting_parse(o, 1, &s)) {
		return;
	}
	if (s.taken + 1 != o->argument_count) {
		command_fail_usage(o);
	} else if (!config_get(order_config(o), &s.scope, s.option, ignore, NULL) &&
		   (o->draft == NULL || *o->draft == NULL ||
		    overlay_find(&(*o->draft)->changes, &s.scope, s.option) == NULL)) {
		order_fail(o, "option \"%s\" is not set in %.300s", s.option, s.scope_text);
	} else {
		change_option(o, &s, NULL);
	}
	config_scope_free(&s.scope);
}

/* ---- several together ---- */

void command_config_begin(struct order *o)
{
	json_t *v;

	if (o->draft == NULL) {
		order_fail(o, "changes are gathered on a connection of the console only");
		return;
	}
	if (*o->draft != NULL) {
		order_fail(o, "a transaction has begun; expected config commit or config rollback");
		return;
	}
	*o->draft = draft_create(order_config(o));
	v = value_object();
	value_set_text(v, "transaction",
		       "begun: what is set and unset on this connection takes effect with config "
		       "commit");
	order_answer(o, v);
}

/* NULL, and answered: there is none. The order's owner has none any more. */
static struct draft *take_draft(struct order *o)
{
	struct draft *draft = o->draft != NULL ? *o->draft : NULL;

	if (draft == NULL) {
		order_fail(o, "no transaction has begun; expected config begin");
		return NULL;
	}
	*o->draft = NULL;
	return draft;
}

void command_config_commit(struct order *o)
{
	struct draft *draft;
	struct console_change *c;
	json_t *v;

	if (!command_flag(o, 0, "force")) {
		return;
	}
	draft = take_draft(o);
	if (draft == NULL) {
		return;
	}
	v = value_object();
	value_set_number(v, "changes", draft->changes.count);
	c = begin(o, draft, v);
	c->gathered = true;
	c->force = o->flag;
	run(c);
}

void command_config_rollback(struct order *o)
{
	struct draft *draft = take_draft(o);
	json_t *v;

	if (draft == NULL) {
		return;
	}
	v = value_object();
	value_set_number(v, "changes_given_up", draft->changes.count);
	draft_free(draft);
	order_answer(o, v);
}

void command_config_writeback(struct order *o)
{
	json_t *v;

	if (o->program->overlay.count == 0) {
		order_fail(o, "the console has set nothing");
		return;
	}
	v = value_object();
	value_set_number(v, "changes", o->program->overlay.count);
	run(begin(o, NULL, v));
}

void command_config_reload(struct order *o)
{
	struct console_change *c = begin(o, NULL, value_object());

	c->change.load = NULL;
	run(c);
}
