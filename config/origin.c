/*
 * Where an option's value comes from: the file, the line and the scope that decided.
 */
#include <stdio.h>
#include <string.h>

#include "config/config.h"
#include "config/scopes.h"

/* `domain "x" in binding "b" in binding_group "g"` */
static void describe_scope(const struct tree_scope *scope, char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	do {
		char label[256];

		used += (size_t)snprintf(text + used, size - used, "%s%s", used == 0 ? "" : " in ",
					 tree_scope_label(scope, label, sizeof(label)));
		scope = scope->parent;
	} while (scope != NULL && scope->parent != NULL && used < size);
}

/* `set` NULL: nobody did. */
static void tell(const struct config *config, const struct tree_scope *scope,
		 const struct tree_option *set, struct config_origin *origin)
{
	*origin = (struct config_origin){.file = "default", .scope = "default"};
	if (set != NULL && !tree_option_is_default(set)) {
		origin->file = tree_path(&config->tree, set->value.source);
		origin->line = set->value.source.line;
		describe_scope(scope, origin->scope, sizeof(origin->scope));
	}
}

void config_outbound_origin(const struct config *config, const char *binding, const char *provider,
			    const char *domain, size_t domain_len, const char *option,
			    struct config_origin *origin)
{
	struct scopes_key key = scopes_key(config, binding, provider, domain, domain_len);
	struct scopes scopes = scopes_find(config, &key);
	const struct tree_scope *at;
	const struct tree_option *set = scopes_decide(config, &scopes, option, &at);

	tell(config, at, set, origin);
}

void config_program_origin(const struct config *config, const char *scope, const char *option,
			   struct config_origin *origin)
{
	const struct tree_scope *at = config->tree.root;
	const char *name = scope;

	if (scope != NULL) {
		name = intern_find(&config->tree.strings, scope, strlen(scope));
		at = name != NULL ? tree_scope_find(&config->tree, at, name, NULL) : NULL;
	}
	tell(config, at, at != NULL ? tree_option_find(at, option) : NULL, origin);
}
