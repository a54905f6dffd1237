/*
 * TLS contexts of a generation: the files that options name are read when it is built, so that what
 * is wrong with them is said like any other mistake. Equal options share one context.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/build.h"
#include "core/runtime/check.h"
#include "core/runtime/text.h"

static struct tls_made *made_new(struct config *config)
{
	struct tls_made *made =
		arena_alloc(&config->tree.arena, sizeof(*made), _Alignof(struct tls_made));
	made->next = config->tls_made;
	config->tls_made = made;
	return made;
}

/* The option that counts for clients of `scope`: its own, or that of the nearest scope around it.
 */
static const struct tree_option *option_of(const struct tree_scope *scope, const char *name)
{
	const struct tree_option *option = NULL;
	for (; scope != NULL && option == NULL; scope = scope->parent) {
		option = tree_option_find(scope, name);
	}
	return option;
}

/* Which option a complaint of core/runtime/tls.c is about. */
static const char *option_in(const char *why)
{
	static const char *const starts[][2] = {
		{"key ", "tls_key"},
		{"ciphers", "tls_ciphers"},
		{"protocols", "tls_protocols"},
		{"roots of clients", "tls_client_ca"},
	};
	for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
		if (strncmp(why, starts[i][0], strlen(starts[i][0])) == 0) {
			return starts[i][1];
		}
	}
	return "tls_certificate";
}

static void report_server(struct builder *b, const struct tree_scope *scope, const char *why)
{
	const char *name = option_in(why);
	const struct tree_option *option = option_of(scope, name);
	if (option == NULL) {
		name = "tls_certificate";
		option = option_of(scope, name);
	}
	report_error(b->report, option != NULL ? option->value.source : scope->source,
		     "option \"%s\": cannot be used: %s", name, why);
}

static bool same_server(const struct tls_server_options *a, const struct tls_server_options *b)
{
	return text_same(a->pair.certificate, b->pair.certificate) &&
	       text_same(a->pair.key, b->pair.key) && text_same(a->ciphers, b->ciphers) &&
	       text_same(a->protocols, b->protocols) && text_same(a->client_ca, b->client_ca) &&
	       a->client_certificate == b->client_certificate;
}

static struct tls_made *find_server(const struct config *config,
				    const struct tls_server_options *options)
{
	struct tls_made *made = config->tls_made;
	while (made != NULL && (made->is_client || !same_server(&made->server, options))) {
		made = made->next;
	}
	return made;
}

void tls_build_server(struct builder *b, const struct tree_scope *scope,
		      struct smtp_options *options)
{
	const struct tls_server_options wanted = {
		.pair = {.certificate = options->tls_certificate, .key = options->tls_key},
		.named = b->config->tls_pairs,
		.named_count = b->config->tls_pair_count,
		.ciphers = options->tls_ciphers,
		.protocols = options->tls_protocols,
		.client_ca = options->tls_client_ca,
		.client_certificate = options->tls_verify_mode,
	};
	char why[TLS_WHY];

	options->tls = NULL;
	const struct tree_option *use_ssl = option_of(scope, "use_ssl");
	if (options->use_ssl && options->proxy_protocol && use_ssl != NULL) {
		report_error(b->report, use_ssl->value.source,
			     "option \"use_ssl\": proxy_protocol is on; expected one of the two, "
			     "as a proxy's header comes before TLS");
	}
	if (options->tls_certificate == NULL) {
		if (options->use_ssl && use_ssl != NULL) {
			report_error(b->report, use_ssl->value.source,
				     "option \"use_ssl\": there is no certificate; expected "
				     "tls_certificate = \"FILE\"");
		}
		return;
	}
	struct tls_made *made = find_server(b->config, &wanted);
	if (made == NULL) {
		made = made_new(b->config);
		made->server = wanted;
		made->context = tls_server_create(&wanted, why);
		if (made->context == NULL) {
			report_server(b, scope, why);
		}
	}
	options->tls = made->context;
}

/* A certificate by name is tried alone, so that a complaint names its stanza. */
static void check_pair(struct builder *b, const struct tree_scope *scope,
		       const struct tls_pair *pair)
{
	const struct tls_server_options alone = {.pair = *pair};
	char why[TLS_WHY];
	struct tls_context *context = tls_server_create(&alone, why);
	if (context == NULL) {
		report_error(b->report, scope->source,
			     "scope tls_certificate \"%.100s\": cannot be used: %s",
			     scope->instance, why);
	}
	tls_context_free(context);
}

static void read_pair(struct builder *b, const struct tree_scope *scope)
{
	struct config *config = b->config;
	struct tls_pair *pair = &config->tls_pairs[config->tls_pair_count];
	struct targets targets = {.base = {[TARGET_TLS_PAIR] = pair}};

	pair->name = scope->instance;
	assign_scope(b, scope, &targets);
	if (pair->certificate == NULL) {
		report_error(b->report, scope->source,
			     "scope tls_certificate \"%.100s\": has no file; expected certificate "
			     "= \"FILE\"",
			     scope->instance);
		return;
	}
	check_pair(b, scope, pair);
	config->tls_pair_count++;
}

void tls_build(struct builder *b)
{
	struct config *config = b->config;
	uint32_t count = 0;
	for (struct tree_scope *s = config->tree.root->first_child; s != NULL; s = s->next) {
		count += s->kind == SCOPE_TLS_CERTIFICATE;
	}
	config->tls_pairs = arena_alloc(&config->tree.arena, count * sizeof(struct tls_pair),
					_Alignof(struct tls_pair));
	for (struct tree_scope *s = config->tree.root->first_child; s != NULL; s = s->next) {
		if (s->kind == SCOPE_TLS_CERTIFICATE) {
			read_pair(b, s);
		}
	}
}

const char *tls_build_client(struct builder *b, const char *ca, struct tls_context **context)
{
	struct tls_made *made = b->config->tls_made;
	char why[TLS_WHY];

	while (made != NULL && (!made->is_client || !text_same(made->ca, ca))) {
		made = made->next;
	}
	if (made == NULL) {
		made = made_new(b->config);
		made->is_client = true;
		made->ca = ca;
		made->context = tls_client_create(ca, why);
	}
	*context = made->context;
	return made->context != NULL ? NULL : "cannot be read as one";
}

/* Opportunistic TLS has a context without roots: what is not asked for need not be checked. */
int config_tls_open(struct config *config, FILE *errors)
{
	char why[TLS_WHY];
	ASSERT(config->tls_client == NULL);
	config->tls_client = tls_client_create(NULL, why);
	config->tls_roots = config->tls_client != NULL ? tls_client_create(NULL, why) : NULL;
	if (config->tls_roots == NULL) {
		fprintf(errors, "TLS for sending cannot be set up: %s\n", why);
		return -ENOMEM;
	}
	if (config->tls_verifies && tls_client_trust_system(config->tls_client, why) != 0) {
		fprintf(errors, "tls = verify: %s; expected tls_ca = \"FILE\"\n", why);
		return -ENOENT;
	}
	if (config->tls_sts && tls_client_trust_system(config->tls_roots, why) != 0) {
		fprintf(errors,
			"flywheeld: warning: mta_sts: %s; domains that enforce it get no mail; "
			"expected tls_ca = \"FILE\", or mta_sts = false\n",
			why);
	}
	return 0;
}

const struct tls_context *config_tls_roots(const struct config *config)
{
	return config->tls_roots;
}

const struct tls_context *config_tls_client(const struct config *config)
{
	return config->tls_client;
}

void tls_free(struct config *config)
{
	tls_context_free(config->tls_client);
	tls_context_free(config->tls_roots);
	for (struct tls_made *made = config->tls_made; made != NULL; made = made->next) {
		tls_context_free(made->context);
	}
}

/* ---- renewal ---- */

/* A context in use, and what takes its place, or after that what was there before. */
SINGLE
struct renewed {
	struct tls_context *used;
	struct tls_context *other;
};

SINGLE
struct tls_renewal {
	uint32_t count;
	struct renewed list[];
};

struct tls_renewal *config_tls_renew(const struct config *config, char why[TLS_WHY])
{
	uint32_t count = 0;
	for (const struct tls_made *made = config->tls_made; made != NULL; made = made->next) {
		count += !made->is_client;
	}
	struct tls_renewal *renewal =
		calloc(1, sizeof(*renewal) + count * sizeof(renewal->list[0]));
	if (renewal == NULL) {
		snprintf(why, TLS_WHY, "out of memory");
		return NULL;
	}
	for (const struct tls_made *made = config->tls_made; made != NULL; made = made->next) {
		if (made->is_client) {
			continue;
		}
		struct renewed *r = &renewal->list[renewal->count];
		r->used = made->context;
		r->other = tls_server_create(&made->server, why);
		if (r->other == NULL) {
			config_tls_renewal_free(renewal);
			return NULL;
		}
		renewal->count++;
	}
	return renewal;
}

void config_tls_publish(struct tls_renewal *renewal)
{
	for (uint32_t i = 0; i < renewal->count; i++) {
		tls_context_exchange(renewal->list[i].used, renewal->list[i].other);
	}
}

uint32_t config_tls_renewal_count(const struct tls_renewal *renewal)
{
	return renewal->count;
}

void config_tls_renewal_free(struct tls_renewal *renewal)
{
	if (renewal == NULL) {
		return;
	}
	for (uint32_t i = 0; i < renewal->count; i++) {
		tls_context_free(renewal->list[i].other);
	}
	free(renewal);
}
