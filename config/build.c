#include "config/build.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "config/pattern.h"
#include "config/word.h"
#include "core/mail/envelope.h"

/* In the order of enum config_agent. */
static const char *const agent_names[CONFIG_AGENTS] = {
	"master", "scheduler", "spool", "wheel", "log", "pool", "resolver",
};

/* When nothing else limits it. */
#define MESSAGE_BYTES_DEFAULT (UINT64_C(32) << 20)

static struct tree_scope *open_scope(struct builder *b, const char *name, const char *instance)
{
	struct tree *tree = &b->config->tree;
	const char *text = instance != NULL ? tree_text(tree, instance, strlen(instance)) : NULL;
	struct tree_scope *scope = tree_scope_open(
		tree, tree->root, tree_text(tree, name, strlen(name)), text, SOURCE_DEFAULT);
	scope->kind = schema_scope_find(name, instance, SCOPE_GLOBAL)->scope;
	return scope;
}

/* Where the option that counts was set, or the scope was opened. */
static struct source source_of(const struct tree_scope *scope, const char *name)
{
	const struct tree_option *option = tree_option_find(scope, name);
	return option != NULL ? option->value.source : scope->source;
}

static bool is_set(const struct tree_scope *scope, const char *name)
{
	return tree_option_find(scope, name) != NULL;
}

/* Pass one: is every scope and option one that may stand where it stands? */

static void check_options(struct builder *b, const struct tree_scope *scope)
{
	char advice[320];
	for (struct tree_option *o = scope->first_option; o != NULL; o = o->next) {
		o->row = schema_option_find(o->name, scope->kind);
		if (o->row == NULL) {
			report_error(
				b->report, o->value.source, "option \"%.100s\": %s", o->name,
				schema_advise_option(o->name, scope->kind, advice, sizeof(advice)));
		}
	}
}

static const char *check_instance(const struct tree_scope *scope)
{
	struct cidr network;
	if (scope->kind == SCOPE_DOMAIN) {
		return pattern_is(scope->instance) ? pattern_check(scope->instance)
						   : word_domain(scope->instance);
	}
	if (scope->kind == SCOPE_TLS_CERTIFICATE) {
		return word_domain(scope->instance +
				   (strncmp(scope->instance, "*.", 2) == 0 ? 2 : 0));
	}
	if (scope->kind == SCOPE_ESMTP_PEER) {
		return word_cidr(scope->instance, &network);
	}
	if (scope->kind == SCOPE_DKIM || scope->kind == SCOPE_DKIM_SIGNATURE) {
		return scope->instance[0] == '[' ? "is an address" : word_hostname(scope->instance);
	}
	if ((scope->kind == SCOPE_BINDING || scope->kind == SCOPE_BINDING_GROUP) &&
	    strlen(scope->instance) > ENVELOPE_BINDING_MAX) {
		return "is longer than 64 bytes";
	}
	if (scope->kind == SCOPE_BINDING || scope->kind == SCOPE_BINDING_GROUP ||
	    scope->kind == SCOPE_GROUP) {
		return scope->instance[0] == '\0' || strpbrk(scope->instance, " :\t") != NULL
			       ? "is empty or has a space or colon in it"
			       : NULL;
	}
	return NULL;
}

static const char *expected_instance(const struct tree_scope *scope)
{
	switch (scope->kind) {
	case SCOPE_DOMAIN:
		return pattern_is(scope->instance) ? "a pattern such as \"/\\.example\\.com$/\""
						   : "a domain such as \"example.com\"";
	case SCOPE_TLS_CERTIFICATE:
		return "a host such as \"mx.example.com\" or \"*.example.com\"";
	case SCOPE_ESMTP_PEER:
		return "a network such as \"10.0.0.0/8\"";
	case SCOPE_DKIM:
		return "a domain such as \"example.com\"";
	case SCOPE_DKIM_SIGNATURE:
		return "a selector such as \"s2\"";
	default:
		return "a name such as \"alpha\"";
	}
}

static void check_scope(struct builder *b, struct tree_scope *scope)
{
	char advice[320];
	char label[256];
	check_options(b, scope);
	for (struct tree_scope *c = scope->first_child; c != NULL; c = c->next) {
		const struct schema_scope_row *row =
			schema_scope_find(c->name, c->instance, scope->kind);
		tree_scope_label(c, label, sizeof(label));
		c->kind = row != NULL ? row->scope : SCOPE_UNKNOWN;
		if (row == NULL) {
			report_error(b->report, c->source, "scope %.200s: %s", label,
				     schema_advise_scope(c->name, c->instance, scope->kind, advice,
							 sizeof(advice)));
			continue;
		}
		const char *problem = check_instance(c);
		if (problem != NULL) {
			report_error(b->report, c->source, "scope %.200s: its name %s; expected %s",
				     label, problem, expected_instance(c));
			c->kind = SCOPE_UNKNOWN;
			continue;
		}
		check_scope(b, c);
	}
}

/* The program, its groups and agents. */

static void check_idle(struct builder *b, const struct tree_scope *scope,
		       const struct idle_options *idle)
{
	if (idle->min_park_ns > idle->max_park_ns) {
		report_error(
			b->report, source_of(scope, "min_park"),
			"option \"min_park\": longer than max_park; expected at most max_park");
	}
}

static void build_groups(struct builder *b)
{
	struct config *config = b->config;
	uint32_t count = 0;
	for (struct tree_scope *s = config->tree.root->first_child; s != NULL; s = s->next) {
		count += s->kind == SCOPE_GROUP;
	}
	config->groups = arena_alloc(&config->tree.arena, count * sizeof(struct group_options),
				     _Alignof(struct group_options));
	for (struct tree_scope *s = config->tree.root->first_child; s != NULL; s = s->next) {
		if (s->kind != SCOPE_GROUP) {
			continue;
		}
		struct group_options *group = &config->groups[config->group_count++];
		struct targets targets = {
			.base = {[TARGET_GROUP] = group, [TARGET_IDLE] = &group->idle}};
		group->name = s->instance;
		assign_missing(b, s, TARGET_BIT(TARGET_GROUP) | TARGET_BIT(TARGET_IDLE));
		assign_scope(b, s, &targets);
		check_idle(b, s, &group->idle);
	}
}

/* A group decides for all of its agents where its thread runs and how it idles. */
static void check_grouped(struct builder *b, const struct tree_scope *scope, const char *group)
{
	for (const struct tree_option *o = scope->first_option; o != NULL; o = o->next) {
		const struct schema_option *row = o->row;
		if (row != NULL && (row->target == TARGET_IDLE || row->type == TYPE_CORE ||
				    row->type == TYPE_CORES)) {
			report_error(
				b->report, o->value.source,
				"option \"%s\": the agent runs in group \"%s\"; expected it in "
				"that group",
				o->name, group);
		}
	}
	if (config_group(b->config, group) == NULL) {
		report_error(b->report, source_of(scope, "group"),
			     "option \"group\": there is no group \"%s\"; expected group \"%s\" "
			     "{ ... } in the global scope",
			     group, group);
	}
}

static void check_agent(struct builder *b, const struct tree_scope *scope,
			const struct agent_settings *settings)
{
	bool single = strcmp(scope->instance, "master") == 0 ||
		      scope->kind == SCOPE_SERVICE_AGENT || scope->kind == SCOPE_LOG_AGENT;

	if (single && settings->count != 1) {
		report_error(b->report, source_of(scope, "count"),
			     "option \"count\": %u is impossible; expected 1, there is only one %s",
			     settings->count, scope->instance);
	}
	/* NULL: the list was wrong, which was said. */
	if (settings->cores != NULL && settings->core_count != settings->count) {
		report_error(b->report, source_of(scope, "cores"),
			     "option \"cores\": has %u cores for a count of %u; expected one for "
			     "each agent",
			     settings->core_count, settings->count);
	}
	if (is_set(scope, "core") && (settings->count != 1 || is_set(scope, "cores"))) {
		report_error(b->report, source_of(scope, "core"),
			     "option \"core\": is for a count of 1; expected cores = ( ... )");
	}
}

/* `cores` says how many there are, where `count` does not. */
static void imply_count(struct builder *b, struct tree_scope *scope)
{
	const struct tree_option *cores = tree_option_find(scope, "cores");
	char text[16];
	if (cores != NULL && cores->value.kind == TREE_LIST && cores->value.count != 0 &&
	    !is_set(scope, "count")) {
		snprintf(text, sizeof(text), "%u", cores->value.count);
		assign_implied(b, scope, "count", text, cores->value.source);
	}
}

/* One core number for each of the agents. */
static const int *list_cores(struct builder *b, const struct agent_settings *settings)
{
	if (settings->core_count == settings->count) {
		return settings->cores;
	}
	int *cores =
		arena_alloc(&b->config->tree.arena, settings->count * sizeof(int), _Alignof(int));
	for (uint32_t i = 0; i < settings->count; i++) {
		cores[i] = i == 0 ? settings->core : -1;
	}
	return cores;
}

static void build_agent(struct builder *b, enum config_agent kind)
{
	struct tree_scope *scope = open_scope(b, "agent", agent_names[kind]);
	struct agent_settings settings = {.count = 1, .core = -1};
	struct targets targets = {.base = {[TARGET_AGENT] = &settings,
					   [TARGET_IDLE] = &settings.idle,
					   [TARGET_GLOBAL] = &b->config->global}};
	uint32_t defaults = TARGET_BIT(TARGET_AGENT) | TARGET_BIT(TARGET_GLOBAL);
	const struct tree_option *group = tree_option_find(scope, "group");

	if (group != NULL && group->value.kind == TREE_WORD) {
		check_grouped(b, scope, group->value.word);
	} else {
		defaults |= TARGET_BIT(TARGET_IDLE);
	}
	imply_count(b, scope);
	assign_missing(b, scope, defaults);
	assign_scope(b, scope, &targets);
	check_agent(b, scope, &settings);
	check_idle(b, scope, &settings.idle);
	b->config->agents[kind] = (struct agent_options){
		.count = settings.count,
		.cores = list_cores(b, &settings),
		.group = settings.group,
		.idle = settings.idle,
	};
}

static void build_agents(struct builder *b)
{
	struct config *config = b->config;
	for (enum config_agent kind = 0; kind < CONFIG_AGENTS; kind++) {
		build_agent(b, kind);
	}
	for (uint32_t g = 0; g < config->group_count; g++) {
		const char *name = config->groups[g].name;
		bool used = false;
		for (enum config_agent kind = 0; kind < CONFIG_AGENTS; kind++) {
			used |= config->agents[kind].group != NULL &&
				strcmp(config->agents[kind].group, name) == 0;
		}
		if (!used) {
			report_warning(b->report, open_scope(b, "group", name)->source,
				       "group \"%s\": no agent runs in it", name);
		}
	}
}

/* Defaults of the global scope that are made from other values. */
static void derive_defaults(struct builder *b)
{
	struct tree_scope *root = b->config->tree.root;
	struct global_options *global = &b->config->global;
	static const char *const durability[] = {"synced", "cached", "memory"};
	char text[320];

	if (!is_set(root, "node_id")) {
		uint32_t hash = hash_bytes(global->hostname, strlen(global->hostname));
		snprintf(text, sizeof(text), "%u", hash & UINT16_MAX);
		assign_implied(b, root, "node_id", text, SOURCE_DEFAULT);
		global->node_id = (uint16_t)(hash & UINT16_MAX);
	}
	if (!is_set(root, "ehlo_hostname")) {
		assign_implied(b, root, "ehlo_hostname", global->hostname, SOURCE_DEFAULT);
	}
	if (!is_set(root, "mailerdaemon")) {
		snprintf(text, sizeof(text), "mailer-daemon@%s", global->hostname);
		assign_implied(b, root, "mailerdaemon", text, SOURCE_DEFAULT);
	}
	if (!is_set(root, "durability")) {
		assign_implied(b, root, "durability", durability[global->durability],
			       SOURCE_DEFAULT);
	}
	if (!is_set(root, "max_message_size")) {
		uint64_t bytes = MESSAGE_BYTES_DEFAULT;
		if (bytes > global->spool_segment_bytes / 2) {
			bytes = global->spool_segment_bytes / 2;
		}
		if (bytes > global->reception_budget_bytes) {
			bytes = global->reception_budget_bytes;
		}
		word_format_size(bytes, text, sizeof(text));
		assign_implied(b, root, "max_message_size", text, SOURCE_DEFAULT);
	}
}

/* The kernel's name for this machine, where it can be one in a greeting. */
static void derive_hostname(struct builder *b)
{
	struct tree_scope *root = b->config->tree.root;
	char name[256] = "";
	if (is_set(root, "hostname")) {
		return;
	}
	if (gethostname(name, sizeof(name) - 1) != 0 || word_hostname(name) != NULL) {
		report_warning(b->report, root->source,
			       "the machine's name \"%s\" is no host name, it is called localhost; "
			       "expected option \"hostname\"",
			       name);
		snprintf(name, sizeof(name), "localhost");
	}
	assign_implied(b, root, "hostname", name, SOURCE_DEFAULT);
}

static void check_descriptors(struct builder *b, const struct tree_scope *root)
{
	const struct global_options *global = &b->config->global;
	uint32_t descriptors = global->server_max_file_descriptors;
	uint32_t connections = global->server_max_outbound_connections;
	const struct tree_option *said = tree_option_find(root, "server_max_file_descriptors");
	if (descriptors >= connections) {
		return;
	}
	if (said != NULL && !tree_option_is_default(said)) {
		report_error(b->report, said->value.source,
			     "option \"server_max_file_descriptors\": less than "
			     "server_max_outbound_connections; expected at least %u",
			     connections);
	} else {
		report_error(b->report, source_of(root, "server_max_outbound_connections"),
			     "option \"server_max_outbound_connections\": more than "
			     "server_max_file_descriptors; expected at most %u",
			     descriptors);
	}
}

static void check_resolver(struct builder *b, const struct tree_scope *scope)
{
	const struct resolver_options *o = &b->config->global.resolver;

	if (o->mode == CONFIG_RESOLVER_RECURSIVE && o->forwarder_count != 0) {
		report_error(b->report, source_of(scope, "forwarders"),
			     "option \"forwarders\": mode is recursive; expected forwarders, or "
			     "that mode");
	}
	if (o->min_ttl_ms > o->max_ttl_ms) {
		report_error(b->report, source_of(scope, "min_ttl"),
			     "option \"min_ttl\": longer than max_ttl; expected at most that");
	}
}

static void build_program(struct builder *b)
{
	struct config *config = b->config;
	struct tree_scope *root = config->tree.root;
	struct tree_scope *scopes[] = {
		root,
		open_scope(b, "spool", NULL),
		open_scope(b, "log", NULL),
		open_scope(b, "resolver", NULL),
		open_scope(b, "mta_sts", NULL),
		open_scope(b, "graphite", NULL),
		open_scope(b, "scriptlet", "scriptlet"),
		open_scope(b, "inbound_audit", NULL),
	};
	struct targets targets = {.base = {[TARGET_GLOBAL] = &config->global}};

	config->global.hostname = "localhost";
	derive_hostname(b);
	for (size_t i = 0; i < sizeof(scopes) / sizeof(scopes[0]); i++) {
		assign_missing(b, scopes[i], UINT32_MAX);
		assign_scope(b, scopes[i], &targets);
	}
	derive_defaults(b);
	check_descriptors(b, root);
	check_resolver(b, scopes[3]);
	graphite_build(b, scopes[5]);
}

void build_generation(struct config *config, struct report *report)
{
	struct builder builder = {.config = config, .report = report};
	struct tree_scope *root = config->tree.root;
	root->kind = SCOPE_GLOBAL;
	/* Line 0 of the first file: the configuration as a whole. */
	root->source = (struct source){0};
	check_scope(&builder, root);
	build_program(&builder);
	logs_build(&builder);
	journals_build(&builder);
	build_groups(&builder);
	build_agents(&builder);
	tls_build(&builder);
	listeners_build(&builder);
	patterns_build(&builder);
	domains_build(&builder);
	bindings_build(&builder);
	dkim_build(&builder);
	scripts_build(&builder);
	/* After an error it may only seem so. */
	if (config->smtp_listen_count == 0 && report->errors == 0) {
		report_warning(report, root->source,
			       "no mail is received; expected esmtp_listener { listen "
			       "\"127.0.0.1:25\" { } }");
	}
}
