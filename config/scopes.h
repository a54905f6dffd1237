/*
 * Which scopes of outbound options apply to a binding, a provider and a domain, in order: what is
 * said in the later ones decides. Both the options themselves (domains.c) and what is told of where
 * they come from (origin.c) go by it. Private to config/.
 */
#pragma once

#include "config/generation.h"
#include "config/tree.h"
#include "core/runtime/thread_class.h"

/* What is asked for: NULL where there is none, or nothing is said about it. Names are interned. */
READONLY
struct scopes_key {
	const struct binding *binding;
	const char *provider;
	const char *domain;
	/* The domain as it was asked for, interned or not, for patterns; NULL: none. */
	const char *text;
	size_t text_len;
};

/* The order, after the global scope. */
enum scopes_place {
	SCOPES_GROUP,
	SCOPES_BINDING,
	SCOPES_GROUPED,
	SCOPES_PROVIDER,
	SCOPES_DOMAIN,
	SCOPES_PROVIDER_IN_BINDING,
	SCOPES_PROVIDER_IN_GROUPED,
	SCOPES_DOMAIN_IN_GROUP,
	SCOPES_DOMAIN_IN_BINDING,
	SCOPES_DOMAIN_IN_GROUPED,
	SCOPES_PLACES
};

/* NULL: there is no such scope. */
READONLY
struct scopes {
	const struct tree_scope *at[SCOPES_PLACES];
};

/* From names; each may be NULL. */
READONLY
struct scopes_key scopes_key(const struct config *config, const char *binding, const char *provider,
			     const char *domain, size_t domain_len);

READONLY
struct scopes scopes_find(const struct config *config, const struct scopes_key *key);

/* What decides of an option: the last of them that sets it, else the global scope, which is `*at`
 * then. NULL: nobody says anything. */
READONLY
const struct tree_option *scopes_decide(const struct config *config, const struct scopes *scopes,
					const char *option, const struct tree_scope **at);

/* The child of `scope` with that name and instance; NULL: none, or there is no such scope. */
READONLY
const struct tree_scope *scopes_stanza_in(const struct config *config,
					  const struct tree_scope *scope, const char *name,
					  const char *instance);

/* The domain's own scope in `scope`, else that of the first pattern there that matches it; NULL:
 * there is none. */
READONLY
const struct tree_scope *scopes_domain_in(const struct config *config,
					  const struct tree_scope *scope,
					  const struct scopes_key *key);

/* Where the binding of an interned name is in config->bindings, or belongs. */
READONLY
struct binding **scopes_binding_slot(const struct config *config, const char *name);
