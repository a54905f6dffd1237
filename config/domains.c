/*
 * Outbound options: what each scope sets is read once (struct domain_settings) and laid over what
 * it falls back to, from the least specific to the most:
 *
 *     global, domain, binding_group, binding, binding_group::binding,
 *     binding_group::domain, binding::domain, binding_group::binding::domain
 *
 * Global domains are flattened when the generation is built, equal ones to one struct. Bindings
 * times domains may be too many for that: those are flattened when somebody asks, and kept.
 */
#include <stdlib.h>
#include <string.h>

#include "config/build.h"
#include "core/runtime/check.h"

enum { BINDINGS_FIRST = 16, MEMO_BUCKETS_MIN = 64, MEMO_BUCKETS_MAX = 1 << 18 };

/* One (binding, domain) with a stanza of its own somewhere, flattened. */
struct memo_entry {
	struct memo_entry *next;
	const struct binding *binding;
	/* Interned. */
	const char *domain;
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
	if (retry != NULL && retry->value.source.line != 0) {
		report_error(b->report, retry->value.source,
			     "option \"retry_interval\": longer than max_retry_interval; expected "
			     "at most that");
	} else if (max != NULL && max->value.source.line != 0) {
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
		b->config->tls_needed |= values->tls != DOMAIN_TLS_NO;
		b->config->tls_sts |= values->mta_sts;
		b->config->tls_verifies |=
			values->tls == DOMAIN_TLS_VERIFY && values->tls_client == NULL;
		settings.values = share(b, values);
		scope->settings = intern_bytes(&b->config->shared, &settings, sizeof(settings));
	}
	scope->effective = share_finished(b, values);
}

/* Bindings by name. */

static struct binding **binding_slot(const struct config *config, const char *name)
{
	uint32_t i = hash_word((uintptr_t)name) & config->binding_mask;
	while (config->bindings[i] != NULL && config->bindings[i]->name != name) {
		i = (i + 1) & config->binding_mask;
	}
	return &config->bindings[i];
}

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
	struct binding **slot = binding_slot(config, name);
	if (*slot == NULL) {
		*slot = arena_alloc(&config->tree.arena, sizeof(**slot), _Alignof(struct binding));
		(*slot)->name = name;
	}
	return *slot;
}

/* Reading. A scope is read after all that it falls back to. */

static void read_domains(struct builder *b, const struct tree_scope *scope,
			 const struct domain_options *values, const struct binding *binding)
{
	struct config *config = b->config;
	for (struct tree_scope *s = scope->first_child; s != NULL; s = s->next) {
		if (s->kind != SCOPE_DOMAIN) {
			continue;
		}
		struct domain_options own = *values;
		overlay(&own,
			tree_scope_find(&config->tree, config->tree.root, s->name, s->instance));
		overlay(&own, scope->parent != NULL ? scope : NULL);
		if (binding != NULL && binding->grouped == scope) {
			overlay(&own, binding->group);
			overlay(&own, binding->global);
			overlay(&own, binding->grouped);
		}
		read_scope(b, s, &own);
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
		read_domains(b, s, values, binding);
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
			read_domains(b, s, values, NULL);
		}
	}
	for (struct tree_scope *s = root->first_child; s != NULL; s = s->next) {
		struct domain_options own = *values;
		if (s->kind == SCOPE_BINDING_GROUP) {
			read_scope(b, s, &own);
			read_domains(b, s, values, NULL);
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
			overlay(&own, binding->group);
			overlay(&own, binding->global);
			overlay(&own, binding->grouped);
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

void domains_build(struct builder *b)
{
	struct config *config = b->config;
	struct tree_scope *root = config->tree.root;
	struct domain_options values = {0};

	config->name_domain = tree_text(&config->tree, "domain", strlen("domain"));
	read_scope(b, root, &values);
	config->domain = root->effective;
	root->settings = NULL;
	read_domains(b, root, &values, NULL);
	make_binding_table(config);
	read_bindings(b, &values);
	finish_bindings(b, &values);
	config->domain_values = share(b, &values);
	make_memo(config);
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
}

/* Looking up. */

/* The stanzas about one domain for one binding, the least specific first; NULL: there is none. */
struct stanzas {
	const struct tree_scope *domain;
	const struct tree_scope *in_group;
	const struct tree_scope *in_binding;
	const struct tree_scope *in_grouped;
};

static const struct tree_scope *stanza_in(const struct config *config,
					  const struct tree_scope *scope, const char *domain)
{
	return scope == NULL ? NULL
			     : tree_scope_find(&config->tree, scope, config->name_domain, domain);
}

static struct stanzas find_stanzas(const struct config *config, const struct binding *binding,
				   const char *domain)
{
	return (struct stanzas){
		.domain = stanza_in(config, config->tree.root, domain),
		.in_group = stanza_in(config, binding->group, domain),
		.in_binding = stanza_in(config, binding->global, domain),
		.in_grouped = stanza_in(config, binding->grouped, domain),
	};
}

static struct memo_entry *memo_entry_new(const struct config *config, const struct binding *binding,
					 const char *domain, const struct stanzas *stanzas)
{
	struct domain_options options = *config->domain_values;
	overlay(&options, stanzas->domain);
	overlay(&options, binding->group);
	overlay(&options, binding->global);
	overlay(&options, binding->grouped);
	overlay(&options, stanzas->in_group);
	overlay(&options, stanzas->in_binding);
	overlay(&options, stanzas->in_grouped);
	fit_intervals(&options);

	struct memo_entry *entry =
		calloc(1, sizeof(*entry) + options.gateway_count * sizeof(struct gateway));
	if (entry == NULL) {
		fatal("configuration: out of memory (options of %s)", domain);
	}
	fill_ports(&options, entry->gateways);
	entry->binding = binding;
	entry->domain = domain;
	entry->options = options;
	return entry;
}

static struct memo_entry *memo_find(struct memo_entry *first, const struct binding *binding,
				    const char *domain)
{
	while (first != NULL && (first->binding != binding || first->domain != domain)) {
		first = first->next;
	}
	return first;
}

/* The entry, made by whoever asks first. Entries are only ever added, at the head, so a reader
 * needs no more than the acquire that pairs with the release of the exchange. */
static const struct memo_entry *memo_get(const struct config *config, const struct binding *binding,
					 const char *domain, const struct stanzas *stanzas)
{
	uint32_t hash =
		hash_word((uintptr_t)binding * UINT64_C(0x9e3779b97f4a7c15) ^ (uintptr_t)domain);
	_Atomic(struct memo_entry *) *bucket = &config->memo.buckets[hash & config->memo.mask];
	struct memo_entry *head = atomic_load_explicit(bucket, memory_order_acquire);
	struct memo_entry *found = memo_find(head, binding, domain);
	if (found != NULL) {
		return found;
	}
	struct memo_entry *entry = memo_entry_new(config, binding, domain, stanzas);
	do {
		/* Another thread may have made it meanwhile. */
		found = memo_find(head, binding, domain);
		if (found != NULL) {
			free(entry);
			return found;
		}
		entry->next = head;
	} while (!atomic_compare_exchange_weak_explicit(bucket, &head, entry, memory_order_acq_rel,
							memory_order_acquire));
	return entry;
}

static const struct binding *binding_find(const struct config *config, const char *name)
{
	const char *interned =
		name == NULL ? NULL : intern_find(&config->tree.strings, name, strlen(name));
	return interned == NULL ? NULL : *binding_slot(config, interned);
}

const struct domain_options *config_domain(const struct config *config, const char *binding_name,
					   const char *domain, size_t domain_len)
{
	const char *name = intern_find(&config->tree.strings, domain, domain_len);
	const struct binding *binding = binding_find(config, binding_name);
	if (binding == NULL) {
		const struct tree_scope *stanza =
			name == NULL ? NULL : stanza_in(config, config->tree.root, name);
		return stanza == NULL ? config->domain : stanza->effective;
	}
	if (name == NULL) {
		return binding->options;
	}
	struct stanzas stanzas = find_stanzas(config, binding, name);
	if (stanzas.domain == NULL && stanzas.in_group == NULL && stanzas.in_binding == NULL &&
	    stanzas.in_grouped == NULL) {
		return binding->options;
	}
	return &memo_get(config, binding, name, &stanzas)->options;
}
