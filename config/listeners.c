/*
 * Listeners: their sockets, and for each socket what applies to which client. A client gets what
 * one peer scope sets, over its listen, its listener and the global scope.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config/build.h"
#include "config/word.h"
#include "core/runtime/check.h"

/* What one scope of a listener sets for SMTP clients. */
struct smtp_settings {
	struct schema_set set;
	struct smtp_options values;
};

static void warn_open_hosts(struct builder *b, const struct tree_scope *scope,
			    const struct smtp_options *options)
{
	const struct tree_option *option = tree_option_find(scope, "relay_hosts");
	for (uint32_t i = 0; option != NULL && i < options->relay_host_count; i++) {
		const struct cidr *c = &options->relay_hosts[i];
		if (c->prefix == 0 || (c->prefix == 96 && IN6_IS_ADDR_V4MAPPED(&c->address))) {
			report_warning(b->report, option->value.source,
				       "option \"relay_hosts\": anybody may send to any domain");
			return;
		}
	}
}

static void warn_open_domains(struct builder *b, const struct tree_scope *scope,
			      const struct smtp_options *options)
{
	const struct tree_option *option = tree_option_find(scope, "relay_domains");
	for (uint32_t i = 0; option != NULL && i < options->relay_domain_count; i++) {
		if (strcmp(options->relay_domains[i], "*") == 0) {
			report_warning(b->report, option->value.source,
				       "option \"relay_domains\": anybody may send to any domain");
			return;
		}
	}
}

/* A message is spooled whole, in one segment, and counted while it is received. */
static void check_message_size(struct builder *b, const struct tree_scope *scope,
			       const struct smtp_options *options)
{
	const struct tree_option *option = tree_option_find(scope, "max_message_size");
	const struct global_options *global = &b->config->global;
	uint64_t half = global->spool_segment_bytes / 2;
	uint64_t budget = global->reception_budget_bytes;
	uint64_t limit = half < budget ? half : budget;
	char text[32];
	if (option != NULL && options->max_message_bytes > limit) {
		report_error(b->report, option->value.source,
			     "option \"max_message_size\": more than %s; expected at most %s",
			     limit == half ? "half of the spool's segment_size"
					   : "the reception_budget",
			     word_format_size(limit, text, sizeof(text)));
	}
}

/* It is read when somebody authenticates, and may be made until then. */
static void warn_auth_file(struct builder *b, const struct tree_scope *scope,
			   const struct smtp_options *options)
{
	const struct tree_option *option = tree_option_find(scope, "auth_file");
	if (option != NULL && options->auth_file != NULL && access(options->auth_file, R_OK) != 0) {
		report_warning(b->report, option->value.source,
			       "option \"auth_file\": \"%.100s\" cannot be read: %s",
			       options->auth_file, strerror(errno));
	}
}

static void check_smtp(struct builder *b, const struct tree_scope *scope,
		       const struct smtp_options *options)
{
	check_message_size(b, scope, options);
	warn_open_hosts(b, scope, options);
	warn_open_domains(b, scope, options);
	warn_auth_file(b, scope, options);
}

/* Reads what `scope` sets: for its clients into scope->settings, for its sockets into `listen`. */
static void read_scope(struct builder *b, struct tree_scope *scope, struct listen_settings *listen)
{
	struct smtp_settings *settings = arena_alloc(&b->config->tree.arena, sizeof(*settings),
						     _Alignof(struct smtp_settings));
	struct targets targets = {.base = {[TARGET_SMTP] = &settings->values,
					   [TARGET_LISTEN] = listen,
					   [TARGET_HTTP] = listen != NULL ? &listen->http : NULL}};
	settings->set = assign_scope(b, scope, &targets);
	scope->settings = settings;
	check_smtp(b, scope, &settings->values);
	if (scope->kind == SCOPE_HTTP_LISTENER || scope->kind == SCOPE_HTTP_LISTEN) {
		http_check(b, scope, &listen->http);
	}
}

static void read_peers(struct builder *b, struct tree_scope *scope)
{
	for (struct tree_scope *s = scope->first_child; s != NULL; s = s->next) {
		if (s->kind == SCOPE_ESMTP_PEER) {
			read_scope(b, s, NULL);
		}
	}
}

static void overlay(struct smtp_options *options, const struct tree_scope *scope)
{
	const struct smtp_settings *settings = scope->settings;
	assign_overlay(TARGET_SMTP, &settings->set, options, &settings->values);
}

/* The one copy of what applies to clients of `scope`. */
static const struct smtp_options *share(struct builder *b, const struct tree_scope *scope,
					struct smtp_options *options)
{
	tls_build_server(b, scope, options);
	return intern_bytes(&b->config->shared, options, sizeof(*options));
}

static uint32_t count_children(const struct tree_scope *scope, enum schema_scope kind)
{
	uint32_t count = 0;
	for (const struct tree_scope *s = scope->first_child; s != NULL; s = s->next) {
		count += s->kind == (uint32_t)kind;
	}
	return count;
}

static int compare_peers(const void *a, const void *b)
{
	const struct peer *x = a;
	const struct peer *y = b;
	return (x->network.prefix < y->network.prefix) - (x->network.prefix > y->network.prefix);
}

/* Appends the peers of `scope` (a listen, or its listener) as clients of `listen` see them. */
static void add_peers(struct builder *b, const struct tree_scope *scope, struct smtp_listen *listen)
{
	struct peer *first = listen->peers + listen->peer_count;
	uint32_t count = 0;
	for (const struct tree_scope *s = scope->first_child; s != NULL; s = s->next) {
		struct smtp_options options = *listen->smtp;
		if (s->kind == SCOPE_ESMTP_PEER &&
		    word_cidr(s->instance, &first[count].network) == NULL) {
			overlay(&options, s);
			first[count].smtp = share(b, s, &options);
			count++;
		}
	}
	if (count != 0) {
		qsort(first, count, sizeof(*first), compare_peers);
	}
	listen->peer_count += count;
}

static void add_smtp_listen(struct builder *b, const struct tree_scope *listener,
			    const struct tree_scope *scope, const struct listen_options *socket)
{
	struct config *config = b->config;
	struct smtp_listen *listen = &config->smtp_listens[config->smtp_listen_count++];
	struct smtp_options options = config->smtp;
	uint32_t peers = count_children(scope, SCOPE_ESMTP_PEER) +
			 count_children(listener, SCOPE_ESMTP_PEER);

	overlay(&options, listener);
	overlay(&options, scope);
	listen->options = *socket;
	listen->smtp = share(b, scope, &options);
	listen->peers = arena_alloc(&config->tree.arena, peers * sizeof(struct peer),
				    _Alignof(struct peer));
	add_peers(b, scope, listen);
	add_peers(b, listener, listen);
}

/* Two sockets of one address would be one too many, but for a port that the kernel chooses. */
static bool is_same(const struct listen_options *a, const struct listen_options *b)
{
	const struct sockaddr_in *in = (const void *)&a->address;
	bool any_port =
		(in->sin_family == AF_INET || in->sin_family == AF_INET6) && in->sin_port == 0;

	return !any_port && config_same_address(a, b);
}

static bool is_taken(const struct config *config, const struct listen_options *socket)
{
	for (uint32_t i = 0; i < config->smtp_listen_count; i++) {
		if (is_same(&config->smtp_listens[i].options, socket)) {
			return true;
		}
	}
	for (uint32_t i = 0; i < config->control_listen_count; i++) {
		if (is_same(&config->control_listens[i], socket)) {
			return true;
		}
	}
	for (uint32_t i = 0; i < config->http_listen_count; i++) {
		if (is_same(&config->http_listens[i].options, socket)) {
			return true;
		}
	}
	return false;
}

static void build_listen(struct builder *b, const struct tree_scope *listener,
			 struct tree_scope *scope, struct listen_settings *settings)
{
	struct config *config = b->config;
	struct listen_options *socket = &settings->options;
	bool listener_enabled = settings->enable;

	settings->enable = true;
	socket->name = scope->instance;
	read_scope(b, scope, settings);
	read_peers(b, scope);
	const char *problem = word_listen(scope->instance, &socket->address, &socket->address_len);
	if (problem != NULL) {
		report_error(b->report, scope->source,
			     "scope listen \"%.100s\": its address %s; expected \"127.0.0.1:25\", "
			     "\"[::1]:25\", \"*:25\" or a path",
			     scope->instance, problem);
		return;
	}
	if (!settings->enable || !listener_enabled) {
		return;
	}
	if (is_taken(config, socket)) {
		report_error(b->report, scope->source,
			     "scope listen \"%.100s\": another listen has the same address; "
			     "expected each address once",
			     scope->instance);
		return;
	}
	if (scope->kind == SCOPE_ESMTP_LISTEN) {
		add_smtp_listen(b, listener, scope, socket);
	} else if (scope->kind == SCOPE_HTTP_LISTEN) {
		http_add_listen(b, scope, settings);
	} else {
		config->control_listens[config->control_listen_count++] = *socket;
	}
}

static void build_listener(struct builder *b, struct tree_scope *listener)
{
	struct listen_settings settings = b->config->listen;
	assign_missing(b, listener, TARGET_BIT(TARGET_HTTP));
	read_scope(b, listener, &settings);
	read_peers(b, listener);
	for (struct tree_scope *s = listener->first_child; s != NULL; s = s->next) {
		if (s->kind == SCOPE_ESMTP_LISTEN || s->kind == SCOPE_CONTROL_LISTEN ||
		    s->kind == SCOPE_HTTP_LISTEN) {
			struct listen_settings own = settings;
			build_listen(b, listener, s, &own);
		}
	}
}

/* Room for all the listens there are. */
static void make_room(struct builder *b)
{
	struct config *config = b->config;
	uint32_t smtp = 0;
	uint32_t control = 0;
	uint32_t http = 0;
	for (struct tree_scope *s = config->tree.root->first_child; s != NULL; s = s->next) {
		smtp += count_children(s, SCOPE_ESMTP_LISTEN);
		control += count_children(s, SCOPE_CONTROL_LISTEN);
		http += count_children(s, SCOPE_HTTP_LISTEN);
	}
	config->http_listens = arena_alloc(&config->tree.arena, http * sizeof(struct http_listen),
					   _Alignof(struct http_listen));
	config->smtp_listens = arena_alloc(&config->tree.arena, smtp * sizeof(struct smtp_listen),
					   _Alignof(struct smtp_listen));
	config->control_listens =
		arena_alloc(&config->tree.arena, control * sizeof(struct listen_options),
			    _Alignof(struct listen_options));
}

void listeners_build(struct builder *b)
{
	struct config *config = b->config;
	struct tree_scope *root = config->tree.root;
	struct targets targets = {
		.base = {[TARGET_SMTP] = &config->smtp, [TARGET_LISTEN] = &config->listen}};

	config->smtp.hostname = config->global.hostname;
	config->listen.enable = true;
	assign_scope(b, root, &targets);
	check_smtp(b, root, &config->smtp);
	make_room(b);
	for (struct tree_scope *s = root->first_child; s != NULL; s = s->next) {
		if (s->kind == SCOPE_ESMTP_LISTENER || s->kind == SCOPE_CONTROL_LISTENER ||
		    s->kind == SCOPE_HTTP_LISTENER) {
			build_listener(b, s);
		}
	}
}

const struct smtp_options *config_smtp(const struct config *config, uint32_t index,
				       const struct in6_addr *peer)
{
	ASSERT(index < config->smtp_listen_count);
	const struct smtp_listen *listen = &config->smtp_listens[index];
	for (uint32_t i = 0; i < listen->peer_count; i++) {
		if (word_cidr_has(&listen->peers[i].network, peer)) {
			return listen->peers[i].smtp;
		}
	}
	return listen->smtp;
}
