/*
 * Questions about the configuration: `config get`, `eval`, `show`, `locate`, `diff`. What may be
 * long, or reads files, is done by the thread pool on a generation that it holds.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/ask.h"
#include "config/overlay.h"
#include "listeners/control/command.h"
#include "listeners/control/draft.h"
#include "listeners/control/setting.h"

/* ---- what is asked for ---- */

bool setting_parse(struct order *o, unsigned rest, struct setting *s)
{
	char why[CONFIG_WHY];
	int taken = config_scope_parse(&s->scope, o->arguments, o->argument_count, rest, why);

	if (taken < 0) {
		order_fail_usage(o, "%s", why);
		return false;
	}
	s->taken = (unsigned)taken;
	config_scope_text(&s->scope, s->scope_text, sizeof(s->scope_text));
	if (rest == 0) {
		return true;
	}
	s->option = o->arguments[taken];
	for (char *c = s->option; *c != '\0'; c++) {
		*c = (char)tolower((unsigned char)*c);
	}
	if (config_option_check(&s->scope, s->option, why) != NULL) {
		order_fail_usage(o, "%s", why);
		config_scope_free(&s->scope);
		return false;
	}
	return true;
}

/* A scope and an option, and nothing behind them. */
static bool parse_question(struct order *o, struct setting *s)
{
	if (!setting_parse(o, 1, s)) {
		return false;
	}
	if (s->taken + 1 != o->argument_count) {
		order_fail_usage(o, "\"%.64s\" is too much; expected %s",
				 o->arguments[s->taken + 1], o->command->syntax);
		config_scope_free(&s->scope);
		return false;
	}
	return true;
}

/* ---- rows ---- */

static void set_setting(json_t *row, const struct config_setting *setting)
{
	value_set_text(row, "scope", setting->scope);
	value_set_text(row, "option", setting->option);
	value_set_text(row, "value", setting->value);
	value_set_text(row, "origin", setting->origin);
}

static void add_setting(void *rows, const struct config_setting *setting)
{
	json_t *row = value_object();

	set_setting(row, setting);
	value_append(rows, row);
}

static void add_place(void *rows, const struct config_setting *setting)
{
	json_t *row = value_object();

	set_setting(row, setting);
	value_set_bool(row, "counts", !setting->superseded);
	value_append(rows, row);
}

/* ---- one option ---- */

static void fill_get(void *answer, const struct config_setting *setting)
{
	value_set_text(answer, "value", setting->value);
	value_set_text(answer, "origin", setting->origin);
}

static void fill_eval(void *answer, const struct config_setting *setting)
{
	value_set_text(answer, "value", setting->value);
	value_set_text(answer, "set_in", setting->is_default ? "default" : setting->scope);
	value_set_text(answer, "origin", setting->origin);
}

static json_t *begin_answer(const struct setting *s)
{
	json_t *v = value_object();

	value_set_text(v, "scope", s->scope_text);
	value_set_text(v, "option", s->option);
	return v;
}

void command_config_get(struct order *o)
{
	struct setting s;
	json_t *v;

	if (!parse_question(o, &s)) {
		return;
	}
	v = begin_answer(&s);
	if (!config_get(order_config(o), &s.scope, s.option, fill_get, v)) {
		value_set_text(v, "value", NULL);
		value_set_text(v, "origin", "not set here");
	}
	config_scope_free(&s.scope);
	order_answer(o, v);
}

void command_config_eval(struct order *o)
{
	struct setting s;
	json_t *v;

	if (!parse_question(o, &s)) {
		return;
	}
	v = begin_answer(&s);
	if (!config_eval(order_config(o), &s.scope, s.option, fill_eval, v)) {
		value_set_text(v, "value", NULL);
		value_set_text(v, "set_in", NULL);
		value_set_text(v, "origin", "not set");
	}
	config_scope_free(&s.scope);
	order_answer(o, v);
}

/* ---- on the pool ---- */

/* A question that takes its time. */
SINGLE
struct inquiry {
	struct job job;
	struct order *order;
	/* Held, and let go of where it came from. */
	struct config *config;
	struct config_scope scope;
	/* `locate`: NULL: a scope is meant. */
	char *option;
	char *value;
	/* `diff`. */
	struct overlay overlay;
	struct overlay draft;
	json_t *(*make)(struct inquiry *q);
	json_t *answer;
	char problem[512];
};

static void inquiry_free(struct inquiry *q)
{
	config_release(q->config);
	config_scope_free(&q->scope);
	free(q->option);
	free(q->value);
	overlay_free(&q->overlay);
	overlay_free(&q->draft);
	free(q);
}

static void inquire(struct job *job)
{
	struct inquiry *q = CONTAINER_OF(job, struct inquiry, job);

	q->answer = q->make(q);
}

static void on_answer(struct agent *self, struct job *job, int result)
{
	struct inquiry *q = CONTAINER_OF(job, struct inquiry, job);

	(void)self;
	if (!order_back(q->order)) {
		json_decref(q->answer);
	} else if (result != 0) {
		order_fail(q->order, "too many tasks wait (pool backlog)");
	} else if (q->answer == NULL) {
		order_fail(q->order, "%s", q->problem);
	} else {
		order_answer(q->order, q->answer);
	}
	inquiry_free(q);
}

static struct inquiry *inquiry_new(struct order *o, json_t *(*make)(struct inquiry *q))
{
	struct inquiry *q = check_memory(calloc(1, sizeof(*q)), "a command");

	q->order = o;
	q->make = make;
	q->config = config_hold(order_config(o));
	q->job = (struct job){.work = inquire, .on_done = on_answer};
	return q;
}

static void inquiry_begin(struct inquiry *q)
{
	struct order *o = q->order;

	if (o->program->pool == NULL) {
		inquiry_free(q);
		order_fail(o, "no thread pool runs");
		return;
	}
	order_wait(o);
	thread_pool_run(o->program->pool, &o->scheduler->base, &q->job);
}

static json_t *make_show(struct inquiry *q)
{
	json_t *v = value_object();
	json_t *rows = value_array();
	char scope[CONFIG_SCOPE_TEXT];

	if (!config_show(q->config, &q->scope, add_setting, rows)) {
		snprintf(q->problem, sizeof(q->problem), "there is no scope %.400s",
			 config_scope_text(&q->scope, scope, sizeof(scope)));
		json_decref(rows);
		json_decref(v);
		return NULL;
	}
	value_set(v, "settings", rows);
	return v;
}

void command_config_show(struct order *o)
{
	struct setting s;
	struct inquiry *q;

	if (!setting_parse(o, 0, &s)) {
		return;
	}
	if (s.taken != o->argument_count) {
		order_fail_usage(o, "there is no scope \"%.64s\"", o->arguments[s.taken]);
		config_scope_free(&s.scope);
		return;
	}
	q = inquiry_new(o, make_show);
	q->scope = s.scope;
	inquiry_begin(q);
}

/* ---- locate ---- */

/* All but defaults, of scopes that are shown. */
static void add_located(void *context, const struct config_setting *setting)
{
	if (!setting->is_default) {
		add_place(context, setting);
	}
}

static json_t *make_locate(struct inquiry *q)
{
	json_t *v = value_object();
	json_t *rows = value_array();

	if (q->option != NULL) {
		config_locate(q->config, q->option, q->value, add_place, rows);
	} else {
		(void)config_show(q->config, &q->scope, add_located, rows);
	}
	value_set(v, "places", rows);
	return v;
}

/* All words are a scope, or the first one is an option, in whatever scope. */
void command_config_locate(struct order *o)
{
	char why[CONFIG_WHY];
	struct config_scope scope;
	struct inquiry *q;
	int taken = config_scope_parse(&scope, o->arguments, o->argument_count, 0, why);

	if (taken < 0 || ((unsigned)taken != o->argument_count && o->argument_count > 2)) {
		if (taken >= 0) {
			config_scope_free(&scope);
		}
		command_fail_usage(o);
		return;
	}
	q = inquiry_new(o, make_locate);
	if ((unsigned)taken == o->argument_count) {
		q->scope = scope;
	} else {
		config_scope_free(&scope);
		q->option = check_memory(strdup(o->arguments[0]), "a command");
		for (char *c = q->option; *c != '\0'; c++) {
			*c = (char)tolower((unsigned char)*c);
		}
		q->value = o->argument_count > 1
				   ? check_memory(strdup(o->arguments[1]), "a command")
				   : NULL;
		if (!config_option_exists(q->option)) {
			order_fail(o, "no option is called \"%.64s\"", q->option);
			inquiry_free(q);
			return;
		}
	}
	inquiry_begin(q);
}

/* ---- diff ---- */

static json_t *change_rows(const struct overlay *overlay)
{
	json_t *rows = value_array();

	for (uint32_t i = 0; i < overlay->count; i++) {
		const struct overlay_change *c = &overlay->changes[i];
		char *value = c->value == NULL ? NULL
					       : config_value_shown(&c->scope, c->option, c->value);
		char scope[CONFIG_SCOPE_TEXT];
		json_t *row = value_object();

		value_set_text(row, "scope", config_scope_text(&c->scope, scope, sizeof(scope)));
		value_set_text(row, "option", c->option);
		value_set_text(row, "change", c->value != NULL ? "set" : "unset");
		value_set_text(row, "value", value);
		value_set_text(row, "by", c->who);
		value_set_time(row, "set_at", c->wall_ns / NS_PER_MS);
		value_append(rows, row);
		free(value);
	}
	return rows;
}

static void add_difference(void *rows, const struct config_setting *running,
			   const struct config_setting *files)
{
	const struct config_setting *either = running != NULL ? running : files;
	json_t *row = value_object();

	value_set_text(row, "scope", either->scope);
	value_set_text(row, "option", either->option);
	value_set_text(row, "running", running != NULL ? running->value : NULL);
	value_set_text(row, "running_origin", running != NULL ? running->origin : NULL);
	value_set_text(row, "files", files != NULL ? files->value : NULL);
	value_set_text(row, "files_origin", files != NULL ? files->origin : NULL);
	value_append(rows, row);
}

/* What the files say now, without the console; else why they cannot be loaded. */
static void set_differences(const struct inquiry *q, json_t *v)
{
	char *errors = NULL;
	size_t size;
	FILE *out = check_memory(open_memstream(&errors, &size), "a command");
	json_t *rows = value_array();
	struct config *files;

	files = config_load_again(q->config, NULL, out);
	fclose(out);
	if (files != NULL) {
		config_compare(q->config, files, add_difference, rows);
		config_release(files);
	}
	value_set(v, "differences", rows);
	value_set_text(v, "problems_of_the_files", files == NULL ? errors : NULL);
	free(errors);
}

static json_t *make_diff(struct inquiry *q)
{
	json_t *v = value_object();

	value_set(v, "transaction", change_rows(&q->draft));
	value_set(v, "console", change_rows(&q->overlay));
	set_differences(q, v);
	return v;
}

void command_config_diff(struct order *o)
{
	struct inquiry *q = inquiry_new(o, make_diff);

	q->overlay = overlay_copy(&o->program->overlay);
	if (o->draft != NULL && *o->draft != NULL) {
		q->draft = overlay_copy(&(*o->draft)->changes);
	}
	inquiry_begin(q);
}
