#include "config/scopes.h"

#include <string.h>

#include "config/intern.h"
#include "config/pattern.h"

struct binding **scopes_binding_slot(const struct config *config, const char *name)
{
	uint32_t i = hash_word((uintptr_t)name) & config->binding_mask;
	while (config->bindings[i] != NULL && config->bindings[i]->name != name) {
		i = (i + 1) & config->binding_mask;
	}
	return &config->bindings[i];
}

static const char *interned(const struct config *config, const char *name, size_t len)
{
	return name == NULL ? NULL : intern_find(&config->tree.strings, name, len);
}

static const struct binding *binding_find(const struct config *config, const char *name)
{
	const char *known = interned(config, name, name == NULL ? 0 : strlen(name));
	return known == NULL ? NULL : *scopes_binding_slot(config, known);
}

struct scopes_key scopes_key(const struct config *config, const char *binding, const char *provider,
			     const char *domain, size_t domain_len)
{
	return (struct scopes_key){
		.binding = binding_find(config, binding),
		.provider = interned(config, provider, provider == NULL ? 0 : strlen(provider)),
		.domain = interned(config, domain, domain_len),
		.text = domain,
		.text_len = domain_len,
	};
}

const struct tree_scope *scopes_stanza_in(const struct config *config,
					  const struct tree_scope *scope, const char *name,
					  const char *instance)
{
	return scope == NULL || instance == NULL
		       ? NULL
		       : tree_scope_find(&config->tree, scope, name, instance);
}

const struct tree_scope *scopes_domain_in(const struct config *config,
					  const struct tree_scope *scope,
					  const struct scopes_key *key)
{
	const struct tree_scope *found =
		scopes_stanza_in(config, scope, config->name_domain, key->domain);
	if (found != NULL || config->patterns == NULL || scope == NULL || key->text == NULL) {
		return found;
	}
	return pattern_find(config, scope, key->text, key->text_len);
}

struct scopes scopes_find(const struct config *config, const struct scopes_key *key)
{
	const struct tree_scope *root = config->tree.root;
	const char *provider = config->name_provider;
	const struct binding *b = key->binding;
	struct scopes s = {{NULL}};

	s.at[SCOPES_PROVIDER] = scopes_stanza_in(config, root, provider, key->provider);
	s.at[SCOPES_DOMAIN] = scopes_domain_in(config, root, key);
	if (b != NULL) {
		s.at[SCOPES_GROUP] = b->group;
		s.at[SCOPES_BINDING] = b->global;
		s.at[SCOPES_GROUPED] = b->grouped;
		s.at[SCOPES_PROVIDER_IN_BINDING] =
			scopes_stanza_in(config, b->global, provider, key->provider);
		s.at[SCOPES_PROVIDER_IN_GROUPED] =
			scopes_stanza_in(config, b->grouped, provider, key->provider);
		s.at[SCOPES_DOMAIN_IN_GROUP] = scopes_domain_in(config, b->group, key);
		s.at[SCOPES_DOMAIN_IN_BINDING] = scopes_domain_in(config, b->global, key);
		s.at[SCOPES_DOMAIN_IN_GROUPED] = scopes_domain_in(config, b->grouped, key);
	}
	return s;
}

const struct tree_option *scopes_decide(const struct config *config, const struct scopes *scopes,
					const char *option, const struct tree_scope **at)
{
	for (int i = SCOPES_PLACES - 1; i >= 0; i--) {
		const struct tree_option *set =
			scopes->at[i] != NULL ? tree_option_find(scopes->at[i], option) : NULL;

		if (set != NULL) {
			*at = scopes->at[i];
			return set;
		}
	}
	*at = config->tree.root;
	return tree_option_find(*at, option);
}
