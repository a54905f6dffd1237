/*
 * Scopes and options by the names that people write.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config/ask.h"
#include "config/parser.h"
#include "config/schema.h"
#include "config/tree.h"
#include "core/runtime/check.h"
#include "core/runtime/text.h"

static char *copy(const char *text)
{
	return check_memory(strdup(text), "the configuration");
}

void config_scope_free(struct config_scope *scope)
{
	for (uint32_t i = 0; i < scope->depth; i++) {
		free(scope->steps[i].name);
		free(scope->steps[i].instance);
	}
	*scope = (struct config_scope){.depth = 0};
}

struct config_scope config_scope_copy(const struct config_scope *scope)
{
	struct config_scope made = *scope;

	for (uint32_t i = 0; i < made.depth; i++) {
		made.steps[i].name = copy(made.steps[i].name);
		if (made.steps[i].instance != NULL) {
			made.steps[i].instance = copy(made.steps[i].instance);
		}
	}
	return made;
}

bool config_scope_same(const struct config_scope *a, const struct config_scope *b)
{
	bool same = a->depth == b->depth;

	for (uint32_t i = 0; same && i < a->depth; i++) {
		same = text_same(a->steps[i].name, b->steps[i].name) &&
		       text_same(a->steps[i].instance, b->steps[i].instance);
	}
	return same;
}

struct tree_scope *config_scope_in(const struct tree *tree, const struct config_scope *scope)
{
	struct tree_scope *at = tree->root;

	for (uint32_t i = 0; at != NULL && i < scope->depth; i++) {
		at = tree_scope_find_text(tree, at, scope->steps[i].name, scope->steps[i].instance);
	}
	return at;
}

const char *config_scope_text(const struct config_scope *scope, char *text, size_t size)
{
	size_t used = 0;

	snprintf(text, size, "%s", scope->depth == 0 ? "global" : "");
	for (uint32_t i = 0; i < scope->depth && used < size; i++) {
		const char *instance = scope->steps[i].instance;
		const char *quote = instance != NULL ? "\"" : "";

		used += (size_t)snprintf(text + used, size - used, "%s%s%s%s%s%s", i > 0 ? " " : "",
					 scope->steps[i].name, instance != NULL ? " " : "", quote,
					 instance != NULL ? instance : "", quote);
	}
	return text;
}

/* What a word may open in a scope of kind `parent`: with a name, without one, or both. */
static void instances_of(const char *name, uint32_t parent, bool *with, bool *without)
{
	*with = false;
	*without = false;
	for (uint32_t i = 0; i < schema_scope_row_count(); i++) {
		const struct schema_scope_row *row = &schema_scope_rows[i];

		if ((row->parents >> parent & 1) != 0 && strcasecmp(row->name, name) == 0) {
			*with |= row->instance != INSTANCE_NONE;
			*without |= row->instance != INSTANCE_REQUIRED;
		}
	}
}

/* Whether `word` can be said in the anonymous scope `name`: then it is not that scope's name. */
static bool belongs_in(const char *word, const char *name, uint32_t parent)
{
	char folded[64];
	bool with;
	bool without;
	const struct schema_scope_row *row;

	if (strlen(word) >= sizeof(folded)) {
		return false;
	}
	for (size_t i = 0; i <= strlen(word); i++) {
		folded[i] = word[i] >= 'A' && word[i] <= 'Z' ? (char)(word[i] + 32) : word[i];
	}
	row = schema_scope_find(name, NULL, (enum schema_scope)parent);
	if (row == NULL) {
		return false;
	}
	instances_of(word, row->scope, &with, &without);
	return with || without || schema_option_find(folded, row->scope) != NULL;
}

/* Whether a file can say it, between quotes. */
static bool is_sayable(const char *instance)
{
	for (const char *c = instance; *c != '\0'; c++) {
		if (((unsigned char)*c < ' ' && *c != '\t') || *c == 0x7f) {
			return false;
		}
	}
	return true;
}

/* One step. Returns how many words it took: 0 when they are no scope, or -EINVAL. */
static int parse_step(struct config_scope *scope, struct tree *tree, char *const *words,
		      unsigned count, char why[CONFIG_WHY])
{
	const char *name = tree_text_folded(tree, words[0], strlen(words[0]));
	const char *instance = NULL;
	bool with;
	bool without;
	const struct schema_scope_row *row;

	instances_of(name, scope->kind, &with, &without);
	if (scope->depth == CONFIG_DEPTH_MAX || (!with && !without)) {
		return 0;
	}
	if (with && count > 1 && !(without && belongs_in(words[1], name, scope->kind))) {
		instance = tree_text_instance(tree, name, words[1], strlen(words[1]));
	}
	if (instance == NULL && !without) {
		return 0;
	}
	if (instance != NULL && !is_sayable(instance)) {
		snprintf(why, CONFIG_WHY, "scope %.60s: its name has a control character", name);
		return -EINVAL;
	}
	row = schema_scope_find(name, instance, (enum schema_scope)scope->kind);
	if (row == NULL) {
		char advice[320];

		snprintf(why, CONFIG_WHY, "scope %.60s \"%.100s\": %s", name,
			 instance != NULL ? instance : "",
			 schema_advise_scope(name, instance, (enum schema_scope)scope->kind, advice,
					     sizeof(advice)));
		return -EINVAL;
	}
	scope->kind = row->scope;
	scope->steps[scope->depth].name = copy(name);
	scope->steps[scope->depth].instance = instance != NULL ? copy(instance) : NULL;
	scope->depth++;
	return instance != NULL ? 2 : 1;
}

int config_scope_parse(struct config_scope *scope, char *const *words, unsigned count,
		       unsigned rest, char why[CONFIG_WHY])
{
	unsigned taken = 0;
	int step = 1;
	struct tree tree;

	*scope = (struct config_scope){.kind = SCOPE_GLOBAL};
	if (count > rest && strcasecmp(words[0], "global") == 0) {
		return 1;
	}
	tree_init(&tree);
	while (step > 0 && taken + rest < count) {
		step = parse_step(scope, &tree, words + taken, count - rest - taken, why);
		taken += step > 0 ? (unsigned)step : 0;
	}
	tree_free(&tree);
	if (step < 0) {
		config_scope_free(scope);
		return step;
	}
	return (int)taken;
}

const char *config_option_check(const struct config_scope *scope, const char *option,
				char why[CONFIG_WHY])
{
	char advice[320];

	if (schema_option_find(option, (enum schema_scope)scope->kind) != NULL) {
		return NULL;
	}
	snprintf(why, CONFIG_WHY, "option \"%.100s\": %s", option,
		 schema_advise_option(option, (enum schema_scope)scope->kind, advice,
				      sizeof(advice)));
	return why;
}

const char *config_value_read(const char *text, char **value)
{
	const char *begin;
	const char *end;

	*value = NULL;
	if (parser_value_find(text, &begin, &end) != 0) {
		return "is not one value; expected a word, in quotes if it has spaces or "
		       "punctuation in it, or a list such as ( a b )";
	}
	*value = check_memory(strndup(begin, (size_t)(end - begin)), "the configuration");
	return NULL;
}

bool config_option_exists(const char *option)
{
	bool found = false;

	for (uint32_t i = 0; i < schema_option_count(); i++) {
		found |= strcmp(schema_options[i].name, option) == 0;
	}
	return found;
}

char *config_value_shown(const struct config_scope *scope, const char *option, const char *value)
{
	const struct schema_option *row =
		schema_option_find(option, (enum schema_scope)scope->kind);
	char *mask = row != NULL ? schema_mask(row, value) : NULL;

	return mask != NULL ? mask : copy(value);
}
