/*
 * Bindings as mail is given to them: their names, groups and weights; that what names one is right;
 * that their addresses are this machine's. What applies to mail that they send is in domains.c.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "config/build.h"
#include "config/word.h"
#include "core/queue/binding.h"
#include "core/runtime/check.h"

#define WEIGHT_DEFAULT 1

/* `weight`, of the binding in its group, else of the one in the global scope. */
static void read_weight(struct builder *b, const struct tree_scope *scope,
			struct binding_options *options)
{
	struct targets targets = {.base = {[TARGET_BINDING] = options}};

	assign_scope(b, scope, &targets);
}

static const struct tree_scope *find(const struct builder *b, const char *kind, const char *name)
{
	struct tree *tree = &b->config->tree;

	return tree_scope_find(tree, tree->root, tree_text(tree, kind, strlen(kind)), name);
}

static void add(struct builder *b, const struct tree_scope *scope, const struct tree_scope *group)
{
	struct config *config = b->config;
	const struct tree_scope *global = find(b, "binding", scope->instance);
	struct binding_options *options = &config->binding_options[config->binding_count++];

	*options = (struct binding_options){
		.name = scope->instance,
		.group = group != NULL ? group->instance : NULL,
		.weight = WEIGHT_DEFAULT,
		.suspend_delivery =
			config_domain(config, scope->instance, NULL, 0)->suspend_delivery,
	};
	if (global != NULL) {
		read_weight(b, global, options);
	}
	if (scope != global) {
		read_weight(b, scope, options);
	}
}

static bool is_grouped(const struct builder *b, const struct tree_scope *binding)
{
	for (uint32_t i = 0; i < b->config->binding_count; i++) {
		if (b->config->binding_options[i].name == binding->instance) {
			return true;
		}
	}
	return false;
}

/* Those of groups, in the order of the files, then the others. */
static void list_bindings(struct builder *b)
{
	struct config *config = b->config;
	struct tree_scope *root = config->tree.root;
	uint32_t count = 0;

	for (const struct tree_scope *s = root->first_child; s != NULL; s = s->next) {
		count += s->kind == SCOPE_BINDING;
		for (const struct tree_scope *c = s->first_child; c != NULL; c = c->next) {
			count += c->kind == SCOPE_BINDING;
		}
	}
	config->binding_options =
		arena_alloc(&config->tree.arena, count * sizeof(struct binding_options),
			    _Alignof(struct binding_options));
	for (const struct tree_scope *s = root->first_child; s != NULL; s = s->next) {
		for (const struct tree_scope *c = s->first_child;
		     s->kind == SCOPE_BINDING_GROUP && c != NULL; c = c->next) {
			/* One that is in two groups was refused by domains.c. */
			if (c->kind == SCOPE_BINDING && !is_grouped(b, c)) {
				add(b, c, s);
			}
		}
	}
	for (const struct tree_scope *s = root->first_child; s != NULL; s = s->next) {
		if (s->kind == SCOPE_BINDING && !is_grouped(b, s)) {
			add(b, s, NULL);
		}
	}
}

/* A name stands for one of them. */
static void check_names(struct builder *b)
{
	const struct config *config = b->config;

	for (uint32_t i = 0; i < config->binding_count; i++) {
		const char *name = config->binding_options[i].name;
		const struct tree_scope *group = find(b, "binding_group", name);

		if (group != NULL && strcmp(name, BINDING_GROUP_DEFAULT) != 0) {
			report_error(b->report, group->source,
				     "scope binding_group \"%s\": a binding has the same name; "
				     "expected each name once",
				     name);
		}
	}
}

static bool is_known(const struct builder *b, const char *name)
{
	const struct config *config = b->config;

	for (uint32_t i = 0; i < config->binding_count; i++) {
		const struct binding_options *o = &config->binding_options[i];

		if (strcmp(o->name, name) == 0 ||
		    (o->group != NULL && strcmp(o->group, name) == 0)) {
			return true;
		}
	}
	return strcmp(name, BINDING_DEFAULT) == 0;
}

/* What listeners give their clients' mail to. */
static void check_listener(struct builder *b, const struct tree_scope *scope)
{
	const struct tree_option *option = tree_option_find(scope, "binding");

	if (option != NULL && option->value.kind == TREE_WORD && !is_known(b, option->value.word)) {
		report_error(b->report, option->value.source,
			     "option \"binding\": there is no binding \"%.100s\", and no "
			     "binding_group with a binding in it; expected the name of one",
			     option->value.word);
	}
	for (const struct tree_scope *s = scope->first_child; s != NULL; s = s->next) {
		if (s->kind == SCOPE_ESMTP_LISTENER || s->kind == SCOPE_ESMTP_LISTEN ||
		    s->kind == SCOPE_ESMTP_PEER) {
			check_listener(b, s);
		}
	}
}

/* The kernel knows best which addresses may be used: some are this machine's without being on an
 * interface. 0, or the errno of a bind. */
static int try_address(const char *word)
{
	struct sockaddr_storage address = {0};
	struct in6_addr ip;
	socklen_t len;
	int rc = 0;
	int fd;

	if (word_ip(word, &ip) != NULL) {
		return 0;
	}
	len = word_socket_address(&ip, &address);
	fd = socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		return errno == EAFNOSUPPORT ? errno : 0;
	}
	if (bind(fd, (const struct sockaddr *)&address, len) != 0) {
		rc = errno;
	}
	close(fd);
	return rc;
}

static void warn_address(struct builder *b, const struct tree_value *value)
{
	int rc = value->kind == TREE_WORD ? try_address(value->word) : 0;

	if (rc != 0) {
		report_warning(
			b->report, value->source,
			"option \"bind_address\": \"%.100s\" cannot be used on this machine: "
			"%s; its mail will wait",
			value->word, strerror(rc));
	}
}

static void warn_addresses(struct builder *b, const struct tree_scope *scope)
{
	const struct tree_option *option = tree_option_find(scope, "bind_address");

	if (option != NULL && option->value.kind == TREE_WORD) {
		warn_address(b, &option->value);
	} else if (option != NULL && option->value.kind == TREE_LIST) {
		for (const struct tree_value *v = option->value.first; v != NULL; v = v->next) {
			warn_address(b, v);
		}
	}
	for (const struct tree_scope *s = scope->first_child; s != NULL; s = s->next) {
		if (s->kind == SCOPE_BINDING || s->kind == SCOPE_BINDING_GROUP) {
			warn_addresses(b, s);
		}
	}
}

void bindings_build(struct builder *b)
{
	const struct tree_scope *root = b->config->tree.root;

	list_bindings(b);
	check_names(b);
	check_listener(b, root);
	warn_addresses(b, root);
}

uint32_t config_binding_count(const struct config *config)
{
	return config->binding_count;
}

const struct binding_options *config_binding(const struct config *config, uint32_t index)
{
	ASSERT(index < config->binding_count);
	return &config->binding_options[index];
}
