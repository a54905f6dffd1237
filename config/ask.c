#include "config/ask.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "config/build.h"
#include "config/generation.h"
#include "config/scopes.h"
#include "config/word.h"
#include "core/runtime/check.h"

/* ---- settings as texts ---- */

/* How a value is shown, malloc: a word without quotes. */
static char *value_text(const struct tree_value *value)
{
	char *text;
	size_t size;

	if (value->kind == TREE_WORD) {
		text = check_memory(strdup(value->word), "the configuration");
		return text;
	}
	FILE *out = check_memory(open_memstream(&text, &size), "the configuration");
	dump_value(value, out);
	fclose(out);
	return text;
}

/* Secrets are nobody's to be shown; malloc. */
static char *shown_text(const struct tree_option *option)
{
	char *text = value_text(&option->value);
	char *mask = schema_mask(option->row, text);

	if (mask == NULL) {
		return text;
	}
	free(text);
	return mask;
}

/* `binding "b" domain "x"` */
static void scope_text(const struct tree_scope *scope, char *text, size_t size)
{
	const struct tree_scope *chain[CONFIG_DEPTH_MAX];
	uint32_t depth = 0;
	size_t used = 0;

	for (const struct tree_scope *s = scope; s->parent != NULL && depth < CONFIG_DEPTH_MAX;
	     s = s->parent) {
		chain[depth++] = s;
	}
	snprintf(text, size, "global");
	while (depth > 0 && used < size) {
		char label[CONFIG_SCOPE_TEXT];

		used += (size_t)snprintf(text + used, size - used, "%s%s", used > 0 ? " " : "",
					 tree_scope_label(chain[--depth], label, sizeof(label)));
	}
}

static void tell_as(const struct config *config, const struct tree_scope *scope,
		    const struct tree_option *option, const char *value, config_setting_fn tell,
		    void *context)
{
	char where[CONFIG_SCOPE_TEXT];
	char place[PATH_MAX + 16];
	struct config_setting setting = {
		.scope = where,
		.option = option->name,
		.value = value,
		.origin =
			tree_place_text(&config->tree, option->value.source, place, sizeof(place)),
		.is_default = tree_option_is_default(option),
		.superseded = tree_option_comes_again(option),
	};

	scope_text(scope, where, sizeof(where));
	tell(context, &setting);
}

static void tell_option(const struct config *config, const struct tree_scope *scope,
			const struct tree_option *option, config_setting_fn tell, void *context)
{
	char *value = shown_text(option);

	tell_as(config, scope, option, value, tell, context);
	free(value);
}

/* ---- one scope ---- */

/* NULL: nobody set it there; else `*at` is the scope. */
static const struct tree_option *find_setting(const struct config *config,
					      const struct config_scope *scope, const char *option,
					      const struct tree_scope **at)
{
	const struct tree_option *found;

	*at = config_scope_in(&config->tree, scope);
	found = *at != NULL ? tree_option_find(*at, option) : NULL;
	return found != NULL && !tree_option_is_default(found) ? found : NULL;
}

bool config_get(const struct config *config, const struct config_scope *scope, const char *option,
		config_setting_fn tell, void *context)
{
	const struct tree_scope *at;
	const struct tree_option *found = find_setting(config, scope, option, &at);

	if (found != NULL) {
		tell_option(config, at, found, tell, context);
	}
	return found != NULL;
}

bool config_same_setting(const struct config *a, const struct config *b,
			 const struct config_scope *scope, const char *option)
{
	const struct tree_scope *at;
	const struct tree_option *in_a = find_setting(a, scope, option, &at);
	const struct tree_option *in_b = find_setting(b, scope, option, &at);

	return in_a == NULL || in_b == NULL ? in_a == in_b
					    : tree_value_same(&in_a->value, &in_b->value);
}

/* ---- what applies ---- */

static const char *step_of(const struct config_scope *scope, const char *name)
{
	for (uint32_t i = 0; i < scope->depth; i++) {
		if (strcmp(scope->steps[i].name, name) == 0) {
			return scope->steps[i].instance;
		}
	}
	return NULL;
}

/* Outbound options fall back across the tree. */
static struct scopes outbound_scopes(const struct config *config, const struct config_scope *scope)
{
	const char *group = step_of(scope, "binding_group");
	const char *domain = step_of(scope, "domain");
	struct scopes_key key =
		scopes_key(config, step_of(scope, "binding"), step_of(scope, "provider"), domain,
			   domain != NULL ? strlen(domain) : 0);
	struct scopes scopes = scopes_find(config, &key);

	if (group != NULL && key.binding == NULL) {
		const struct tree_scope *at = tree_scope_find_text(&config->tree, config->tree.root,
								   "binding_group", group);

		scopes.at[SCOPES_GROUP] = at;
		scopes.at[SCOPES_DOMAIN_IN_GROUP] = scopes_domain_in(config, at, &key);
	}
	return scopes;
}

static bool eval_outbound(const struct config *config, const struct config_scope *scope,
			  const char *option, config_setting_fn tell, void *context)
{
	struct scopes scopes = outbound_scopes(config, scope);
	const struct tree_scope *at;
	const struct tree_option *found = scopes_decide(config, &scopes, option, &at);

	if (found != NULL) {
		tell_option(config, at, found, tell, context);
	}
	return found != NULL;
}

/* All others fall back to the scopes around them, of which some may not be there. */
static bool eval_around(const struct config *config, const struct config_scope *scope,
			const char *option, config_setting_fn tell, void *context)
{
	struct config_scope around = *scope;

	for (;; around.depth--) {
		const struct tree_scope *at = config_scope_in(&config->tree, &around);
		const struct tree_option *found = at != NULL ? tree_option_find(at, option) : NULL;

		if (found != NULL) {
			tell_option(config, at, found, tell, context);
			return true;
		}
		if (around.depth == 0) {
			return false;
		}
	}
}

bool config_eval(const struct config *config, const struct config_scope *scope, const char *option,
		 config_setting_fn tell, void *context)
{
	const struct schema_option *row =
		schema_option_find(option, (enum schema_scope)scope->kind);
	bool outbound = row != NULL && row->target == TARGET_DOMAIN;
	bool found = outbound ? eval_outbound(config, scope, option, tell, context)
			      : eval_around(config, scope, option, tell, context);

	if (!found && row != NULL && row->fallback != NULL) {
		struct config_setting setting = {
			.scope = "global",
			.option = row->name,
			.value = row->fallback,
			.origin = "default",
			.is_default = true,
		};

		tell(context, &setting);
		found = true;
	}
	return found;
}

/* ---- lists ---- */

static void show_options(const struct config *config, const struct tree_scope *scope,
			 config_setting_fn tell, void *context)
{
	const struct tree_option *effective[SCHEMA_OPTIONS_MAX] = {NULL};

	for (const struct tree_option *o = scope->first_option; o != NULL; o = o->next) {
		effective[schema_number(o->row)] = o;
	}
	for (uint32_t i = 0; i < schema_option_count(); i++) {
		if (effective[i] != NULL) {
			tell_option(config, scope, effective[i], tell, context);
		}
	}
}

static void show(const struct config *config, const struct tree_scope *scope,
		 config_setting_fn tell, void *context)
{
	show_options(config, scope, tell, context);
	for (const struct tree_scope *s = scope->first_child; s != NULL; s = s->next) {
		show(config, s, tell, context);
	}
}

bool config_show(const struct config *config, const struct config_scope *scope,
		 config_setting_fn tell, void *context)
{
	const struct tree_scope *at = config_scope_in(&config->tree, scope);

	if (at != NULL) {
		show(config, at, tell, context);
	}
	return at != NULL;
}

static void locate(const struct config *config, const struct tree_scope *scope, const char *option,
		   const char *value, config_setting_fn tell, void *context)
{
	for (const struct tree_option *o = scope->first_option; o != NULL; o = o->next) {
		if (tree_option_is_default(o) || !word_same(o->name, option)) {
			continue;
		}
		char *text = shown_text(o);
		if (value == NULL || strcmp(text, value) == 0) {
			tell_as(config, scope, o, text, tell, context);
		}
		free(text);
	}
	for (const struct tree_scope *s = scope->first_child; s != NULL; s = s->next) {
		locate(config, s, option, value, tell, context);
	}
}

void config_locate(const struct config *config, const char *option, const char *value,
		   config_setting_fn tell, void *context)
{
	locate(config, config->tree.root, option, value, tell, context);
}

/* ---- differences ---- */

/* Everything that is set, in an array: an option of a scope comes once, with what counts. */
struct settings {
	const struct config *config;
	struct settings_row {
		char *scope;
		const struct tree_option *option;
	} * rows;
	size_t count;
	size_t room;
};

static void collect(struct settings *s, const struct tree_scope *scope)
{
	char where[CONFIG_SCOPE_TEXT];

	scope_text(scope, where, sizeof(where));
	for (const struct tree_option *o = scope->first_option; o != NULL; o = o->next) {
		if (tree_option_is_default(o) || tree_option_comes_again(o)) {
			continue;
		}
		if (s->count == s->room) {
			s->room = s->room * 2 + 64;
			s->rows = check_memory(realloc(s->rows, s->room * sizeof(*s->rows)),
					       "the configuration");
		}
		char *copy = check_memory(strdup(where), "the configuration");
		s->rows[s->count++] = (struct settings_row){.scope = copy, .option = o};
	}
	for (const struct tree_scope *c = scope->first_child; c != NULL; c = c->next) {
		collect(s, c);
	}
}

static int compare_rows(const void *a, const void *b)
{
	const struct settings_row *x = a;
	const struct settings_row *y = b;
	int order = strcmp(x->scope, y->scope);

	return order != 0 ? order : strcmp(x->option->name, y->option->name);
}

static struct settings settings_of(const struct config *config)
{
	struct settings s = {.config = config};

	collect(&s, config->tree.root);
	if (s.count != 0) {
		qsort(s.rows, s.count, sizeof(*s.rows), compare_rows);
	}
	return s;
}

static void settings_free(struct settings *s)
{
	for (size_t i = 0; i < s->count; i++) {
		free(s->rows[i].scope);
	}
	free(s->rows);
}

/* One setting, with texts of its own. */
struct told {
	struct config_setting setting;
	char *value;
	char place[PATH_MAX + 16];
};

static const struct config_setting *told_row(const struct settings *s,
					     const struct settings_row *row, struct told *told)
{
	if (row == NULL) {
		return NULL;
	}
	told->value = shown_text(row->option);
	told->setting = (struct config_setting){
		.scope = row->scope,
		.option = row->option->name,
		.value = told->value,
		.origin = tree_place_text(&s->config->tree, row->option->value.source, told->place,
					  sizeof(told->place)),
	};
	return &told->setting;
}

static void compare_pair(const struct settings *a, const struct settings_row *row_a,
			 const struct settings *b, const struct settings_row *row_b,
			 config_difference_fn tell, void *context)
{
	struct told told_a = {.value = NULL};
	struct told told_b = {.value = NULL};

	if (row_a != NULL && row_b != NULL &&
	    tree_value_same(&row_a->option->value, &row_b->option->value)) {
		return;
	}
	tell(context, told_row(a, row_a, &told_a), told_row(b, row_b, &told_b));
	free(told_a.value);
	free(told_b.value);
}

void config_compare(const struct config *config_a, const struct config *config_b,
		    config_difference_fn tell, void *context)
{
	struct settings a = settings_of(config_a);
	struct settings b = settings_of(config_b);
	size_t i = 0;
	size_t j = 0;

	while (i < a.count || j < b.count) {
		int order = i == a.count   ? 1
			    : j == b.count ? -1
					   : compare_rows(&a.rows[i], &b.rows[j]);

		compare_pair(&a, order <= 0 ? &a.rows[i] : NULL, &b, order >= 0 ? &b.rows[j] : NULL,
			     tell, context);
		i += order <= 0;
		j += order >= 0;
	}
	settings_free(&a);
	settings_free(&b);
}
