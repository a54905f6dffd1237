/*
 * Outbound options: what each scope sets is read once (struct domain_settings) and laid over what
 * it falls back to, from the least specific to the most (a binding is that of its group over that
 * of the global scope, wherever one is named):
 *
 *     global, binding_group, binding, provider, domain,
 *     binding::provider, binding_group::domain, binding::domain
 *
 * Global domains are flattened when the generation is built, equal ones to one struct. Bindings
 * times providers times domains may be too many for that: those are flattened when somebody asks,
 * and kept.
 */
#include <stdlib.h>
#include <string.h>

#include "config/build.h"
#include "config/scopes.h"
#include "core/runtime/check.h"

enum { BINDINGS_FIRST = 16, MEMO_BUCKETS_MIN = 64, MEMO_BUCKETS_MAX = 1 << 18 };

/* The scopes of a binding, provider and domain with a stanza of their own somewhere, flattened. */
struct memo_entry {
	struct memo_entry *next;
	struct scopes scopes;
	struct domain_options options;
	struct gateway gateways[];
};

static void overlay(struct domain_options *options, const struct tree_scope *scope)
{
	if (scope != NULL && scope->settings != NULL) {
		const struct domain_settings *settings = scope->settings;
		assign_overlay(TARGET_DOMAIN, &settings->set, options, settings->values);
	}
}

static bool needs_ports(const struct domain_options *options)
{
	for (uint32_t i = 0; i < options->gateway_count; i++) {
		if (options->gateways[i].port == 0) {
			return true;
		}
	}
	return false;
}

/* Copies the gateways to `gateways`, zeroed. Which remote_smtp_port one without a port has is known
 * only when all scopes were applied. */
static void fill_ports(struct domain_options *options, struct gateway *gateways)
{
	for (uint32_t i = 0; i < options->gateway_count; i++) {
		const struct gateway *from = &options->gateways[i];
		gateways[i].host = from->host;
		gateways[i].port = from->port != 0 ? from->port : options->remote_smtp_port;
		gateways[i].preference = from->preference;
	}
	options->gateways = gateways;
}

/* Scopes that are right each by itself may meet in a way that nobody foresaw. */
static void fit_intervals(struct domain_options *options)
{
	if (options->retry_interval_ms > options->max_retry_interval_ms) {
		options->retry_interval_ms = options->max_retry_interval_ms;
	}
}

/* The one copy of options as the scopes say them, or as readers want them. Build time only. */
static const struct domain_options *share(struct builder *b, const struct domain_options *options)
{
	return intern_bytes(&b->config->shared, options, sizeof(*options));
}

static const struct domain_options *share_finished(struct builder *b,
						   const struct domain_options *values)
{
	struct domain_options options = *values;
	size_t bytes = options.gateway_count * sizeof(struct gateway);
	if (needs_ports(&options)) {
		fill_ports(&options,
			   arena_alloc(&b->config->tree.arena, bytes, _Alignof(struct gateway)));
		options.gateways = intern_bytes(&b->config->shared, options.gateways, bytes);
	}
	fit_intervals(&options);
	return share(b, &options);
}

static void check_intervals(struct builder *b, const struct tree_scope *scope,
			    const struct domain_options *options)
{
	const struct tree_option *retry = tree_option_find(scope, "retry_interval");
	const struct tree_option *max = tree_option_find(scope, "max_retry_interval");
	if (options->retry_interval_ms <= options->max_retry_interval_ms) {
		return;
	}
	if (retry != NULL && !tree_option_is_default(retry)) {
		report_error(b->report, retry->value.source,
			     "option \"retry_interval\": longer than max_retry_interval; expected "
			     "at most that");
	} else if (max != NULL && !tree_option_is_default(max)) {
		report_error(b->report, max->value.source,
			     "option \"max_retry_interval\": shorter than retry_interval; expected "
			     "at least that");
	}
}

/* What `scope` sets, over `values`, which become those of the scope. */
static void read_scope(struct builder *b, struct tree_scope *scope, struct domain_options *values)
{
	struct targets targets = {.base = {[TARGET_DOMAIN] = values}};
	struct domain_settings settings = {0};
	if (scope->first_option != NULL) {
		settings.set = assign_scope(b, scope, &targets);
		check_intervals(b, scope, values);
		b->config->tls_sts |= values->mta_sts && values->tls != DOMAIN_TLS_NO;
		b->config->tls_verifies |=
			values->tls == DOMAIN_TLS_VERIFY && values->tls_client == NULL;
		settings.values = share(b, values);
		scope->settings = intern_bytes(&b->config->shared, &settings, sizeof(settings));
	}
	scope->effective = share_finished(b, values);
}

/* Bindings by name. */

static struct binding **binding_table(uint32_t count)
{
	struct binding **table = calloc(count, sizeof(*table));
	if (table == NULL) {
		fatal("configuration: out of memory (%u bindings)", count);
	}
	return table;
}

/* Twice as many slots as bindings, so that every search ends. */
static void make_binding_table(struct config *config)
{
	uint32_t count = 1;
	uint32_t slots = BINDINGS_FIRST;
	for (const struct tree_scope *s = config->tree.root->first_child; s != NULL; s = s->next) {
		count += s->kind == SCOPE_BINDING;
		for (const struct tree_scope *c = s->first_child; c != NULL; c = c->next) {
			count += c->kind == SCOPE_BINDING;
		}
	}
	while (slots < count * 2) {
		slots *= 2;
	}
	config->bindings = binding_table(slots);
	config->binding_mask = slots - 1;
}

static struct binding *binding_open(struct config *config, const char *name)
{
	struct binding **slot = scopes_binding_slot(config, name);
	if (*slot == NULL) {
		*slot = arena_alloc(&config->tree.arena, sizeof(**slot), _Alignof(struct binding));
		(*slot)->name = name;
	}
	return *slot;
}

/* Reading. A scope is read after all that it falls back to. */

static void overlay_binding(struct domain_options *options, const struct binding *binding)
{
	overlay(options, binding->group);
	overlay(options, binding->global);
	overlay(options, binding->grouped);
}

/* Who finds domains by their exchangers has to say which: here, or in the global scope. */
static void check_provider(struct builder *b, const struct tree_scope *scope)
{
	const struct config *config = b->config;
	const struct tree_scope *global =
		scopes_stanza_in(config, config->tree.root, config->name_provider, scope->instance);

	if (tree_option_find(scope, "mx_suffix") == NULL &&
	    (global == NULL || tree_option_find(global, "mx_suffix") == NULL)) {
		report_error(b->report, scope->source,
			     "scope provider \"%s\": has no mail exchangers; expected mx_suffix",
			     scope->instance);
	}
}

/* The providers and domains of a scope, in that order. */
static void read_destinations(struct builder *b, const struct tree_scope *scope,
			      const struct domain_options *values, const struct binding *binding)
{
	struct config *config = b->config;
	const enum schema_scope kinds[] = {SCOPE_PROVIDER, SCOPE_DOMAIN};

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		for (struct tree_scope *s = scope->first_child; s != NULL; s = s->next) {
			struct domain_options own = *values;

			if (s->kind != kinds[i]) {
				continue;
			}
			if (binding != NULL) {
				overlay_binding(&own, binding);
			} else if (scope->parent != NULL) {
				overlay(&own, scope);
			}
			overlay(&own,
				scopes_stanza_in(config, config->tree.root, s->name, s->instance));
			if (kinds[i] == SCOPE_PROVIDER) {
				check_provider(b, s);
			}
			read_scope(b, s, &own);
		}
	}
}

static void read_grouped(struct builder *b, struct tree_scope *group,
			 const struct domain_options *values)
{
	for (struct tree_scope *s = group->first_child; s != NULL; s = s->next) {
		if (s->kind != SCOPE_BINDING) {
			continue;
		}
		struct binding *binding = binding_open(b->config, s->instance);
		struct domain_options own = *values;
		if (binding->grouped != NULL) {
			report_error(b->report, s->source,
				     "scope binding \"%s\": is in binding_group \"%s\" already; "
				     "expected each binding in one group",
				     s->instance, binding->group->instance);
			continue;
		}
		binding->group = group;
		binding->grouped = s;
		overlay(&own, group);
		overlay(&own, binding->global);
		read_scope(b, s, &own);
		read_destinations(b, s, values, binding);
	}
}

static void read_bindings(struct builder *b, const struct domain_options *values)
{
	struct tree_scope *root = b->config->tree.root;
	for (struct tree_scope *s = root->first_child; s != NULL; s = s->next) {
		struct domain_options own = *values;
		if (s->kind == SCOPE_BINDING) {
			binding_open(b->config, s->instance)->global = s;
			read_scope(b, s, &own);
			read_destinations(b, s, values, NULL);
		}
	}
	for (struct tree_scope *s = root->first_child; s != NULL; s = s->next) {
		struct domain_options own = *values;
		if (s->kind == SCOPE_BINDING_GROUP) {
			read_scope(b, s, &own);
			read_destinations(b, s, values, NULL);
			read_grouped(b, s, values);
		}
	}
}

static void finish_bindings(struct builder *b, const struct domain_options *values)
{
	for (uint32_t i = 0; i <= b->config->binding_mask; i++) {
		struct binding *binding = b->config->bindings[i];
		struct domain_options own = *values;
		if (binding != NULL) {
			overlay_binding(&own, binding);
			binding->options = share_finished(b, &own);
		}
	}
}

/* One bucket for each two scopes: there cannot be many more domains that anybody asks about. */
static void make_memo(struct config *config)
{
	uint32_t count = MEMO_BUCKETS_MIN;
	while (count < config->tree.scope_count / 2 && count < MEMO_BUCKETS_MAX) {
		count *= 2;
	}
	config->memo.buckets = calloc(count, sizeof(*config->memo.buckets));
	if (config->memo.buckets == NULL) {
		fatal("configuration: out of memory (%u buckets)", count);
	}
	config->memo.mask = count - 1;
}

static void list_provider(struct config *config, const char *name)
{
	uint32_t i = 0;

	while (i < config->provider_count && config->providers[i] != name) {
		i++;
	}
	if (i == config->provider_count) {
		config->providers = realloc(config->providers, (i + 1) * sizeof(name));
		if (config->providers == NULL) {
			fatal("configuration: out of memory (%u providers)", i + 1);
		}
		config->providers[config->provider_count++] = name;
	}
}

/* In the order of the files: the tree has scopes in the order in which they were opened. */
static void list_in(struct config *config, const struct tree_scope *scope)
{
	for (const struct tree_scope *s = scope->first_child; s != NULL; s = s->next) {
		if (s->kind == SCOPE_PROVIDER) {
			list_provider(config, s->instance);
		} else if (s->kind == SCOPE_BINDING || s->kind == SCOPE_BINDING_GROUP) {
			list_in(config, s);
		}
	}
}

static void list_providers(struct builder *b)
{
	list_in(b->config, b->config->tree.root);
}

void domains_build(struct builder *b)
{
	struct config *config = b->config;
	struct tree_scope *root = config->tree.root;
	struct domain_options values = {0};

	config->name_domain = tree_text(&config->tree, "domain", strlen("domain"));
	config->name_provider = tree_text(&config->tree, "provider", strlen("provider"));
	read_scope(b, root, &values);
	config->domain = root->effective;
	root->settings = NULL;
	read_destinations(b, root, &values, NULL);
	make_binding_table(config);
	read_bindings(b, &values);
	finish_bindings(b, &values);
	config->domain_values = share(b, &values);
	make_memo(config);
	list_providers(b);
}

void domains_free(struct config *config)
{
	for (uint32_t i = 0; config->memo.buckets != NULL && i <= config->memo.mask; i++) {
		struct memo_entry *entry =
			atomic_load_explicit(&config->memo.buckets[i], memory_order_relaxed);
		while (entry != NULL) {
			struct memo_entry *next = entry->next;
			free(entry);
			entry = next;
		}
	}
	free(config->memo.buckets);
	free(config->bindings);
	free(config->providers);
}

/* Looking up. */

/* Something is said about the provider or the domain. */
static bool has_stanza(const struct scopes *s)
{
	for (int i = SCOPES_PROVIDER; i < SCOPES_PLACES; i++) {
		if (s->at[i] != NULL) {
			return true;
		}
	}
	return false;
}

static struct memo_entry *memo_entry_new(const struct config *config, const struct scopes *s)
{
	struct domain_options options = *config->domain_values;
	for (int i = 0; i < SCOPES_PLACES; i++) {
		overlay(&options, s->at[i]);
	}
	fit_intervals(&options);

	struct memo_entry *entry =
		calloc(1, sizeof(*entry) + options.gateway_count * sizeof(struct gateway));
	if (entry == NULL) {
		fatal("configuration: out of memory (options of a domain)");
	}
	fill_ports(&options, entry->gateways);
	entry->scopes = *s;
	entry->options = options;
	return entry;
}

static struct memo_entry *memo_find(struct memo_entry *first, const struct scopes *s)
{
	while (first != NULL && memcmp(&first->scopes, s, sizeof(*s)) != 0) {
		first = first->next;
	}
	return first;
}

/* The entry, made by whoever asks first. Entries are only ever added, at the head, so a reader
 * needs no more than the acquire that pairs with the release of the exchange. */
static const struct memo_entry *memo_get(const struct config *config, const struct scopes *scopes)
{
	uint32_t hash = hash_bytes(scopes, sizeof(*scopes));
	_Atomic(struct memo_entry *) *bucket = &config->memo.buckets[hash & config->memo.mask];
	struct memo_entry *head = atomic_load_explicit(bucket, memory_order_acquire);
	struct memo_entry *found = memo_find(head, scopes);
	if (found != NULL) {
		return found;
	}
	struct memo_entry *entry = memo_entry_new(config, scopes);
	do {
		/* Another thread may have made it meanwhile. */
		found = memo_find(head, scopes);
		if (found != NULL) {
			free(entry);
			return found;
		}
		entry->next = head;
	} while (!atomic_compare_exchange_weak_explicit(bucket, &head, entry, memory_order_acq_rel,
							memory_order_acquire));
	return entry;
}

const struct domain_options *config_outbound(const struct config *config, const char *binding,
					     const char *provider, const char *domain,
					     size_t domain_len)
{
	struct scopes_key key = scopes_key(config, binding, provider, domain, domain_len);
	struct scopes stanzas = scopes_find(config, &key);

	if (key.binding == NULL && stanzas.at[SCOPES_PROVIDER] == NULL) {
		return stanzas.at[SCOPES_DOMAIN] == NULL ? config->domain
							 : stanzas.at[SCOPES_DOMAIN]->effective;
	}
	if (!has_stanza(&stanzas)) {
		return key.binding->options;
	}
	/* Names that merely occur somewhere make no difference: it is the same scopes that do. */
	return &memo_get(config, &stanzas)->options;
}

/* ---- providers ---- */

static bool sets_suffixes(const struct tree_scope *scope)
{
	return scope != NULL && tree_option_find(scope, "mx_suffix") != NULL;
}

/* Who says which exchangers are the provider's: the binding, else the global scope; NULL: nobody
 * whom that binding listens to. */
static const struct domain_options *suffixes_of(const struct config *config,
						const struct binding *binding, const char *provider)
{
	struct scopes_key key = {.binding = binding, .provider = provider};
	struct scopes s = scopes_find(config, &key);
	const struct tree_scope *scope =
		sets_suffixes(s.at[SCOPES_PROVIDER_IN_GROUPED])   ? s.at[SCOPES_PROVIDER_IN_GROUPED]
		: sets_suffixes(s.at[SCOPES_PROVIDER_IN_BINDING]) ? s.at[SCOPES_PROVIDER_IN_BINDING]
		: sets_suffixes(s.at[SCOPES_PROVIDER])            ? s.at[SCOPES_PROVIDER]
								  : NULL;

	return scope == NULL ? NULL : scope->effective;
}

static bool suffix_matches(const struct domain_options *options, const char *host, size_t len)
{
	for (uint32_t i = 0; i < options->mx_suffix_count; i++) {
		const char *suffix = options->mx_suffixes[i];
		size_t suffix_len = strlen(suffix);

		if (strcmp(suffix, "*") == 0 ||
		    (len >= suffix_len && (suffix[0] == '.' || len == suffix_len) &&
		     memcmp(host + len - suffix_len, suffix, suffix_len) == 0)) {
			return true;
		}
	}
	return false;
}

/* All exchangers of the first preference match. */
static bool best_match(const struct domain_options *options, const char *mx)
{
	size_t best = strcspn(mx, " ");
	const char *at = mx;

	while (strcspn(at, " ") == best && memcmp(at, mx, best) == 0 && at[best] == ' ') {
		const char *host = at + best + 1;
		size_t len = strcspn(host, " ");

		if (!suffix_matches(options, host, len)) {
			return false;
		}
		if (host[len] == '\0') {
			break;
		}
		at = host + len + 1;
	}
	return at != mx || mx[best] == ' ';
}

const char *config_provider(const struct config *config, const char *binding, const char *mx)
{
	const struct binding *b = scopes_key(config, binding, NULL, NULL, 0).binding;

	for (uint32_t i = 0; i < config->provider_count; i++) {
		const struct domain_options *options = suffixes_of(config, b, config->providers[i]);

		if (options != NULL && best_match(options, mx)) {
			return config->providers[i];
		}
	}
	return NULL;
}

const char *config_same_provider(const struct config *config, const char *name)
{
	for (uint32_t i = 0; i < config->provider_count; i++) {
		if (strcmp(config->providers[i], name) == 0) {
			return config->providers[i];
		}
	}
	return NULL;
}

static bool suffixes_agree(const struct domain_options *a, const struct domain_options *b)
{
	uint32_t i = 0;

	if (a == NULL || b == NULL || a->mx_suffix_count != b->mx_suffix_count) {
		return a == NULL && b == NULL;
	}
	while (i < a->mx_suffix_count && strcmp(a->mx_suffixes[i], b->mx_suffixes[i]) == 0) {
		i++;
	}
	return i == a->mx_suffix_count;
}

static bool agree_by(const struct config *a, const struct config *b, const char *binding)
{
	const struct binding *in_a = scopes_key(a, binding, NULL, NULL, 0).binding;
	const struct binding *in_b = scopes_key(b, binding, NULL, NULL, 0).binding;

	for (uint32_t i = 0; i < a->provider_count; i++) {
		if (!suffixes_agree(suffixes_of(a, in_a, a->providers[i]),
				    suffixes_of(b, in_b, b->providers[i]))) {
			return false;
		}
	}
	return true;
}

bool config_providers_agree(const struct config *a, const struct config *b)
{
	if (a->provider_count != b->provider_count) {
		return false;
	}
	for (uint32_t i = 0; i < a->provider_count; i++) {
		if (strcmp(a->providers[i], b->providers[i]) != 0) {
			return false;
		}
	}
	for (uint32_t i = 0; a->provider_count != 0 && i < b->binding_count; i++) {
		if (!agree_by(a, b, b->binding_options[i].name)) {
			return false;
		}
	}
	return agree_by(a, b, NULL);
}
