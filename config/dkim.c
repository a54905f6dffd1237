/*
 * DKIM: `dkim "example.com" { }` and the `signature "s2" { }` scopes in it become a policy, whose
 * keys are read now, so that what is wrong with them is said at their line. A key file that several
 * scopes name is read once; all keys are freed with the generation. A renewal reads them again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/build.h"
#include "config/word.h"
#include "core/runtime/check.h"
#include "core/runtime/clock.h"

enum { KEYS_FIRST = 16 };

/* In the order of `canonicalization`'s choices. */
static const enum dkim_canon canons[4][2] = {
	{DKIM_RELAXED, DKIM_RELAXED},
	{DKIM_RELAXED, DKIM_SIMPLE},
	{DKIM_SIMPLE, DKIM_RELAXED},
	{DKIM_SIMPLE, DKIM_SIMPLE},
};

/* ---- keys ---- */

/* Paths are interned, so that equal ones are one. */
static struct dkim_file *file_slot(const struct dkim_files *files, const char *path)
{
	uint32_t i = hash_word((uintptr_t)path) & files->mask;
	while (files->slots[i].path != NULL && files->slots[i].path != path) {
		i = (i + 1) & files->mask;
	}
	return &files->slots[i];
}

/* Twice as many slots as files, so that every search ends. */
static void make_room(struct dkim_files *files)
{
	struct dkim_files old = *files;
	uint32_t slots = old.slots != NULL ? (old.mask + 1) * 2 : KEYS_FIRST;
	if (old.slots != NULL && (old.count + 1) * 2 <= old.mask + 1) {
		return;
	}
	files->slots = calloc(slots, sizeof(*files->slots));
	if (files->slots == NULL) {
		fatal("configuration: out of memory (%u keys)", slots);
	}
	files->mask = slots - 1;
	for (uint32_t i = 0; old.slots != NULL && i <= old.mask; i++) {
		if (old.slots[i].path != NULL) {
			*file_slot(files, old.slots[i].path) = old.slots[i];
		}
	}
	free(old.slots);
}

static void warn_key(struct builder *b, struct source source, const char *path,
		     const struct dkim_key *key)
{
	if (dkim_key_algorithm(key) == DKIM_RSA_SHA256 && dkim_key_bits(key) < DKIM_RSA_BITS_GOOD) {
		report_warning(b->report, source,
			       "option \"key\": \"%.100s\" has an RSA key of %u bits; expected "
			       "%u or more",
			       path, dkim_key_bits(key), DKIM_RSA_BITS_GOOD);
	}
	if (dkim_key_is_exposed(key)) {
		report_warning(b->report, source,
			       "option \"key\": \"%.100s\" can be read by anybody on this "
			       "machine; expected a mode such as 0640",
			       path);
	}
}

/* Without a key after an error, which is reported where the file is named first. */
static const struct dkim_file *load_key(struct builder *b, struct source source, const char *path)
{
	struct dkim_files *files = &b->config->dkim_files;
	const char *problem = NULL;
	make_room(files);
	struct dkim_file *file = file_slot(files, path);
	if (file->path == NULL) {
		file->path = path;
		file->number = files->count++;
		file->key = dkim_key_load(path, &problem);
		if (file->key != NULL) {
			warn_key(b, source, path, file->key);
		} else {
			report_error(b->report, source,
				     "option \"key\": \"%.100s\": %s; expected a PEM file with an "
				     "RSA key of 1024 to 4096 bits, or an Ed25519 key",
				     path, problem);
		}
	}
	return file;
}

/* The table by path has done its duty. */
static void store_keys(struct config *config)
{
	struct dkim_files *files = &config->dkim_files;
	struct dkim_store *store = config->dkim_store;
	const struct dkim_key **list = calloc(files->count + 1, sizeof(const struct dkim_key *));
	if (list == NULL) {
		fatal("configuration: out of memory (%u keys)", files->count);
	}
	store->count = files->count;
	store->paths = arena_alloc(&config->tree.arena, files->count * sizeof(const char *),
				   _Alignof(const char *));
	for (uint32_t i = 0; files->slots != NULL && i <= files->mask; i++) {
		const struct dkim_file *file = &files->slots[i];
		if (file->path != NULL) {
			store->paths[file->number] = file->path;
			list[file->number] = file->key;
		}
	}
	dkim_keys_exchange(&store->used, list);
	free(files->slots);
	*files = (struct dkim_files){0};
}

/* ---- signatures ---- */

static struct source source_of(const struct tree_scope *scope, const char *name)
{
	const struct tree_option *option = tree_option_find(scope, name);
	return option != NULL ? option->value.source : scope->source;
}

/* A name that comes twice is signed no more than once: interned texts, equal ones are one. */
static uint32_t drop_duplicates(struct builder *b, const char *const **names, uint32_t count)
{
	const char **unique = arena_alloc(&b->config->tree.arena, count * sizeof(*unique),
					  _Alignof(const char *));
	uint32_t kept = 0;
	for (uint32_t i = 0; i < count; i++) {
		uint32_t at = 0;
		while (at < kept && unique[at] != (*names)[i]) {
			at++;
		}
		if (at == kept) {
			unique[kept++] = (*names)[i];
		}
	}
	*names = unique;
	return kept;
}

static bool has_from(const char *const *names, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (strcmp(names[i], "from") == 0) {
			return true;
		}
	}
	return false;
}

/* A signature without it would say nothing (RFC 6376 section 5.4). Said of the scope that sets what
 * is signed. */
static void check_from(struct builder *b, const struct tree_scope *scope,
		       const struct dkim_settings *settings)
{
	bool says = tree_option_find(scope, "headers") != NULL ||
		    tree_option_find(scope, "oversign") != NULL;
	if (says && !has_from(settings->fields, settings->field_count) &&
	    !has_from(settings->oversigned, settings->oversigned_count)) {
		report_error(b->report, source_of(scope, "headers"),
			     "option \"headers\": without \"from\"; expected it there or in "
			     "oversign");
	}
}

static void check_selector(struct builder *b, const struct tree_scope *scope,
			   const struct dkim_policy *policy, const struct dkim_signature *g)
{
	if (g->selector[0] == '[') {
		report_error(b->report, source_of(scope, "selector"),
			     "option \"selector\": \"%.100s\" is an address; expected a name such "
			     "as \"s1\"",
			     g->selector);
	}
	for (uint32_t i = 0; i < policy->count; i++) {
		if (strcmp(policy->signatures[i].selector, g->selector) == 0) {
			report_error(b->report, source_of(scope, "selector"),
				     "selector \"%.100s\": comes twice in dkim \"%.100s\"; "
				     "expected one for each signature",
				     g->selector, g->domain);
		}
	}
}

static void add_signature(struct builder *b, const struct tree_scope *scope,
			  const struct dkim_settings *settings, const char *domain,
			  struct dkim_policy *policy, struct dkim_signature *to)
{
	const struct dkim_file *file = load_key(b, source_of(scope, "key"), settings->key);
	if (file->key == NULL || settings->selector == NULL) {
		return;
	}
	*to = (struct dkim_signature){
		.domain = domain,
		.selector = settings->selector,
		.key = file->number,
		.header = canons[settings->canonicalization][0],
		.body = canons[settings->canonicalization][1],
		.fields = settings->fields,
		.oversigned = settings->oversigned,
		.expiration_s = settings->expiration_ms / (NS_PER_S / NS_PER_MS),
	};
	to->field_count = drop_duplicates(b, &to->fields, settings->field_count);
	to->oversigned_count = drop_duplicates(b, &to->oversigned, settings->oversigned_count);
	check_selector(b, scope, policy, to);
	policy->count++;
}

/* The scope itself is a signature when it has a key. */
static bool read_own(struct builder *b, struct tree_scope *scope, struct dkim_settings *settings)
{
	struct targets targets = {.base = {[TARGET_DKIM] = settings}};
	bool others = scope->first_child != NULL;
	assign_missing(b, scope, TARGET_BIT(TARGET_DKIM));
	assign_scope(b, scope, &targets);
	if (settings->key == NULL && !others && tree_option_find(scope, "key") == NULL) {
		report_error(b->report, scope->source,
			     "scope dkim \"%.100s\": no key; expected key = \"/PATH\" or "
			     "signature \"SELECTOR\" { key = \"/PATH\" }",
			     scope->instance);
	}
	if (settings->key != NULL && settings->selector == NULL &&
	    tree_option_find(scope, "selector") == NULL) {
		report_error(b->report, source_of(scope, "key"),
			     "scope dkim \"%.100s\": a key without selector; expected selector = "
			     "\"s1\"",
			     scope->instance);
	}
	check_from(b, scope, settings);
	return settings->key != NULL;
}

/* A `signature` scope: what it does not say is as in the scope around it. */
static bool read_nested(struct builder *b, const struct tree_scope *scope,
			struct dkim_settings *settings)
{
	struct targets targets = {.base = {[TARGET_DKIM] = settings}};
	settings->selector = scope->instance;
	settings->key = NULL;
	assign_scope(b, scope, &targets);
	if (settings->key == NULL && tree_option_find(scope, "key") == NULL) {
		report_error(b->report, scope->source,
			     "scope signature \"%.100s\": no key; expected key = \"/PATH\"",
			     scope->instance);
	}
	check_from(b, scope, settings);
	return settings->key != NULL;
}

static void build_domain(struct builder *b, struct tree_scope *scope, struct dkim_domain *domain)
{
	struct dkim_settings settings = {0};
	struct dkim_signature *signatures;
	uint32_t count = 1;
	for (const struct tree_scope *s = scope->first_child; s != NULL; s = s->next) {
		count++;
	}
	signatures = arena_alloc(&b->config->tree.arena, count * sizeof(*signatures),
				 _Alignof(struct dkim_signature));
	domain->name = scope->instance;
	domain->policy.signatures = signatures;
	domain->policy.keys = &b->config->dkim_store->used;
	if (read_own(b, scope, &settings)) {
		add_signature(b, scope, &settings, domain->name, &domain->policy, signatures);
	}
	for (const struct tree_scope *s = scope->first_child; s != NULL; s = s->next) {
		struct dkim_settings own = settings;
		if (s->kind == SCOPE_DKIM_SIGNATURE && read_nested(b, s, &own)) {
			add_signature(b, s, &own, domain->name, &domain->policy,
				      &signatures[domain->policy.count]);
		}
	}
	scope->effective = &domain->policy;
}

void dkim_build(struct builder *b)
{
	struct config *config = b->config;
	struct tree *tree = &config->tree;
	uint32_t count = 0;

	config->name_dkim = tree_text(tree, "dkim", strlen("dkim"));
	for (const struct tree_scope *s = tree->root->first_child; s != NULL; s = s->next) {
		count += s->kind == SCOPE_DKIM;
	}
	config->dkim = arena_alloc(&tree->arena, count * sizeof(struct dkim_domain),
				   _Alignof(struct dkim_domain));
	config->dkim_store =
		arena_alloc(&tree->arena, sizeof(*config->dkim_store), _Alignof(struct dkim_store));
	for (struct tree_scope *s = tree->root->first_child; s != NULL; s = s->next) {
		if (s->kind == SCOPE_DKIM) {
			build_domain(b, s, &config->dkim[config->dkim_count++]);
		}
	}
	store_keys(config);
}

/* Frees a list of keys, and those in it that are not in `kept` (NULL: all). */
static void free_list(const struct dkim_key *const *list, const struct dkim_key *const *kept,
		      uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (kept == NULL || list[i] != kept[i]) {
			dkim_key_free((struct dkim_key *)list[i]);
		}
	}
	free((void *)list);
}

void dkim_free(struct config *config)
{
	struct dkim_store *store = config->dkim_store;
	if (store != NULL) {
		free_list(dkim_keys_now(&store->used), NULL, store->count);
	}
}

/* ---- renewal ---- */

SINGLE
struct dkim_renewal {
	struct dkim_store *store;
	uint32_t changed;
	/* What takes the place of the list in use, or after that what was in use before. A key that
	 * has not changed is in both. */
	const struct dkim_key *const *other;
};

/* The key of a file, which is the one in use if that is the same; NULL: `*problem` says why. */
static const struct dkim_key *renew_key(const char *path, const struct dkim_key *used,
					const char **problem)
{
	struct dkim_key *key = dkim_key_load(path, problem);
	if (key != NULL && dkim_key_same_file(key, used)) {
		dkim_key_free(key);
		return used;
	}
	return key;
}

/* The first file that cannot be used is named, others are counted. */
static bool renew_keys(struct dkim_renewal *renewal, const struct dkim_key **list,
		       char why[DKIM_WHY])
{
	const struct dkim_store *store = renewal->store;
	const struct dkim_key *const *used = dkim_keys_now(&store->used);
	uint32_t failed = 0;
	for (uint32_t i = 0; i < store->count; i++) {
		const char *problem = NULL;
		list[i] = renew_key(store->paths[i], used[i], &problem);
		renewal->changed += list[i] != used[i];
		if (list[i] == NULL && failed++ == 0) {
			snprintf(why, DKIM_WHY, "\"%.*s\": %s", PATH_MAX, store->paths[i], problem);
		}
	}
	if (failed > 1) {
		size_t len = strlen(why);
		snprintf(why + len, DKIM_WHY - len, " (and %u more)", failed - 1);
	}
	return failed == 0;
}

struct dkim_renewal *config_dkim_renew(const struct config *config, char why[DKIM_WHY])
{
	struct dkim_store *store = config->dkim_store;
	if (atomic_exchange_explicit(&store->renewing, true, memory_order_acquire)) {
		snprintf(why, DKIM_WHY, "keys are being read already");
		return NULL;
	}
	struct dkim_renewal *renewal = check_memory(calloc(1, sizeof(*renewal)), "DKIM keys");
	const struct dkim_key **list = check_memory(
		calloc(store->count + 1, sizeof(const struct dkim_key *)), "DKIM keys");
	*renewal = (struct dkim_renewal){.store = store, .other = list};
	if (!renew_keys(renewal, list, why)) {
		config_dkim_renewal_free(renewal);
		return NULL;
	}
	return renewal;
}

uint32_t config_dkim_renewal_changed(const struct dkim_renewal *renewal)
{
	return renewal->changed;
}

uint32_t config_dkim_renewal_unchanged(const struct dkim_renewal *renewal)
{
	return renewal->store->count - renewal->changed;
}

void config_dkim_publish(struct dkim_renewal *renewal)
{
	renewal->other = dkim_keys_exchange(&renewal->store->used, renewal->other);
}

void config_dkim_renewal_free(struct dkim_renewal *renewal)
{
	if (renewal == NULL) {
		return;
	}
	struct dkim_store *store = renewal->store;
	free_list(renewal->other, dkim_keys_now(&store->used), store->count);
	free(renewal);
	atomic_store_explicit(&store->renewing, false, memory_order_release);
}

/* ---- looking up ---- */

uint32_t config_dkim_count(const struct config *config)
{
	return config->dkim_count;
}

const struct dkim_policy *config_dkim_at(const struct config *config, uint32_t index)
{
	ASSERT(index < config->dkim_count);
	return &config->dkim[index].policy;
}

static const struct dkim_policy *policy_of(const struct config *config, const char *domain)
{
	const char *name = intern_find(&config->tree.strings, domain, strlen(domain));
	const struct tree_scope *scope = name == NULL
						 ? NULL
						 : tree_scope_find(&config->tree, config->tree.root,
								   config->name_dkim, name);
	return scope == NULL ? NULL : scope->effective;
}

const struct dkim_policy *config_dkim(const struct config *config, const char *domain)
{
	const struct dkim_policy *policy = NULL;
	while (policy == NULL && domain != NULL) {
		const char *dot = strchr(domain, '.');
		policy = policy_of(config, domain);
		domain = dot != NULL ? dot + 1 : NULL;
	}
	return policy;
}
