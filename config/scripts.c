/*
 * Policy: `scriptlet "scriptlet" { script "NAME" { source = "policy.lua" } }`. Scripts are read and
 * compiled here, so that what is wrong with them is said when the configuration is checked. And
 * `datasource "NAME" { uri = "sqlite:PATH" }`: what they may ask.
 */
#include <stdlib.h>
#include <string.h>

#include "config/build.h"
#include "core/policy/db.h"
#include "core/policy/policy.h"
#include "core/policy/scripts.h"
#include "core/runtime/check.h"

/* Relative paths are so to the file that names them. */
static const char *find_path(struct builder *b, const struct tree_value *value)
{
	struct tree *tree = &b->config->tree;
	const char *file = tree_path(tree, value->source);
	const char *slash = strrchr(file, '/');
	char path[2 * PATH_MAX];
	int len;

	if (value->word[0] == '/' || slash == NULL) {
		return value->word;
	}
	len = snprintf(path, sizeof(path), "%.*s/%s", (int)(slash - file), file, value->word);
	return tree_text(tree, path, (size_t)len < sizeof(path) ? (size_t)len : sizeof(path) - 1);
}

static void build_source(struct builder *b, struct tree_scope *scope)
{
	struct config *c = b->config;
	struct policy_source *grown =
		reallocarray(c->sources, c->source_count + 1, sizeof(*c->sources));
	const struct tree_option *uri = tree_option_find(scope, "uri");
	struct targets targets = {.base = {NULL}};
	const char *target;

	if (grown == NULL) {
		fatal("configuration: out of memory (%u datasources)", c->source_count);
	}
	c->sources = grown;
	grown += c->source_count++;
	*grown = (struct policy_source){.name = scope->instance};
	targets.base[TARGET_SOURCE] = grown;
	assign_missing(b, scope, TARGET_BIT(TARGET_SOURCE));
	assign_scope(b, scope, &targets);
	if (uri == NULL || (grown->uri != NULL && db_driver_of(grown->uri, &target) == NULL)) {
		report_error(b->report, uri != NULL ? uri->value.source : scope->source,
			     "datasource \"%.100s\": expected option \"uri\", sqlite:PATH or "
			     "redis:HOST",
			     scope->instance);
	}
}

static void build_script(struct builder *b, struct tree_scope *scope)
{
	struct script_settings settings = {0};
	struct targets targets = {.base = {[TARGET_SCRIPT] = &settings}};
	const struct tree_option *source = tree_option_find(scope, "source");
	char why[POLICY_WHY];

	assign_scope(b, scope, &targets);
	if (source == NULL) {
		report_error(b->report, scope->source,
			     "script \"%.100s\": expected option \"source\", the file of it",
			     scope->instance);
		return;
	}
	if (settings.source == NULL || source->value.kind != TREE_WORD) {
		return;
	}
	if (policy_scripts_add(&b->config->scripts, scope->instance, find_path(b, &source->value),
			       why) != 0) {
		report_error(b->report, source->value.source,
			     "option \"source\": %.400s; expected a file with a script in Lua",
			     why);
	}
}

void scripts_build(struct builder *b)
{
	for (struct tree_scope *s = b->config->tree.root->first_child; s != NULL; s = s->next) {
		if (s->kind == SCOPE_DATASOURCE) {
			build_source(b, s);
		}
		if (s->kind != SCOPE_SCRIPTLET) {
			continue;
		}
		for (struct tree_scope *c = s->first_child; c != NULL; c = c->next) {
			if (c->kind == SCOPE_SCRIPT) {
				build_script(b, c);
			}
		}
	}
}
