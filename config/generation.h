/*
 * One generation, from inside: what config.h hands out and how it is found. Built by build.c,
 * listeners.c and domains.c, immutable from then on but for the memo of domains.c, which grows.
 * Private to config/.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "config/intern.h"
#include "config/schema.h"
#include "config/tree.h"
#include "core/queue/throttle.h"
#include "core/runtime/tls.h"

/* `agent KIND { }` while it is put together. */
SINGLE
struct agent_settings {
	uint32_t count;
	int core;
	const int *cores;
	uint32_t core_count;
	const char *group;
	struct idle_options idle;
};

/* What a listener or a listen says about its sockets. */
SINGLE
struct listen_settings {
	struct listen_options options;
	struct http_options http;
	bool enable;
};

READONLY
struct peer {
	struct cidr network;
	const struct smtp_options *smtp;
};

/* What a `dkim` or `signature` scope says. */
SINGLE
struct dkim_settings {
	const char *selector;
	const char *key;
	uint32_t canonicalization;
	const char *const *fields;
	uint32_t field_count;
	const char *const *oversigned;
	uint32_t oversigned_count;
	uint64_t expiration_ms;
};

/* What a `script` scope says. */
SINGLE
struct script_settings {
	const char *source;
};

/* What a `custom_logger` scope says, by enum custom_stage. */
SINGLE
struct custom_settings {
	const char *mainlog;
	const char *logfile[CUSTOM_STAGES];
	const char *format[CUSTOM_STAGES];
	const char *const *sanitize;
	uint32_t sanitize_count;
};

/* A domain that mail is signed for. */
READONLY
struct dkim_domain {
	const char *name;
	struct dkim_policy policy;
};

/* A file with a key, and its number; NULL `key`: it is of no use, which was reported. */
SINGLE
struct dkim_file {
	const char *path;
	struct dkim_key *key;
	uint32_t number;
};

/* All of them by path while the generation is built: open addressing, a power of two of slots. */
SINGLE
struct dkim_files {
	struct dkim_file *slots;
	uint32_t mask;
	uint32_t count;
};

/* Keys in use by the numbers of their files. Beside the generation, as config_dkim_publish()
 * changes them. */
CONCURRENT
struct dkim_store {
	struct dkim_keys used;
	const char **paths;
	uint32_t count;
	/* There is a struct dkim_renewal: never two at a time. */
	_Atomic bool renewing;
};

/* A socket of an SMTP listener. */
READONLY
struct smtp_listen {
	struct listen_options options;
	const struct smtp_options *smtp;
	/* In order of search: the listen's own, then its listener's, longest prefixes first. */
	struct peer *peers;
	uint32_t peer_count;
};

/* A socket of an HTTP listener. */
READONLY
struct http_listen {
	struct listen_options options;
	struct http_options http;
};

/* Outbound options that one scope sets, and a struct in which those have their values as written.
 * Interned: equal settings are one struct. */
READONLY
struct domain_settings {
	struct schema_set set;
	const struct domain_options *values;
};

/* A binding as mail is sent through it. */
READONLY
struct binding {
	const char *name;
	const struct tree_scope *group;
	/* `binding` in the global scope, and in its group; NULL: not there. */
	const struct tree_scope *global;
	const struct tree_scope *grouped;
	/* For domains without a stanza. */
	const struct domain_options *options;
};

/* Combinations of a binding, a provider and a domain that were asked for: insert-only lists. */
CONCURRENT
struct memo {
	_Atomic(struct memo_entry *) *buckets;
	uint32_t mask;
};

/* A throttle, and whose option it is. */
READONLY
struct throttle_use {
	struct throttle *throttle;
	const struct tree_scope *scope;
	const struct schema_option *option;
};

/* A context that was made for options like these. NULL `context`: that failed, and was said. */
SINGLE
struct tls_made {
	struct tls_made *next;
	struct tls_server_options server;
	/* A client's. */
	bool is_client;
	const char *ca;
	struct tls_context *context;
};

/* Header fields that are captured of a message. */
#define CAPTURED_MAX 32

#define CONFIG_MAGIC UINT32_C(0x434f4e46)

READONLY
struct config {
	uint32_t magic;
	_Atomic uint32_t references;
	/* Of the program's generations, and when it became the one, wall clock; set by it. */
	uint64_t number;
	uint64_t since_ms;
	struct tree tree;
	/* Where it was loaded from, in the arena; NULL: from memory. */
	const char *path;
	const char *node;
	/* What was read then; what the tree says may come from others, too. */
	const struct tree_file *files;
	uint32_t file_count;
	/* Flattened options and lists of them. */
	struct intern shared;

	struct global_options global;
	struct agent_options agents[CONFIG_AGENTS];
	struct group_options *groups;
	uint32_t group_count;

	/* TLS contexts, and the certificates of tls_certificate { }. */
	struct tls_made *tls_made;
	/* What config_tls_open() made; and whether anybody needs the system's roots in it. */
	struct tls_context *tls_client;
	bool tls_verifies;
	/* The same for MTA-STS. */
	struct tls_context *tls_roots;
	bool tls_sts;
	struct tls_pair *tls_pairs;
	uint32_t tls_pair_count;

	struct smtp_listen *smtp_listens;
	uint32_t smtp_listen_count;
	struct listen_options *control_listens;
	uint32_t control_listen_count;
	struct http_listen *http_listens;
	uint32_t http_listen_count;

	/* What the global scope says to all others, */
	struct smtp_options smtp;
	struct listen_settings listen;
	const struct domain_options *domain_values;
	/* and for domains without a stanza. */
	const struct domain_options *domain;

	/* In the order of the files. */
	struct custom_logger *custom_loggers;
	uint32_t custom_logger_count;
	struct log_journal_options *journals;
	uint32_t journal_count;
	/* Keys of what is captured of messages' headers. */
	const char *captured[CAPTURED_MAX];
	uint32_t captured_count;

	struct throttle_use *throttles;
	uint32_t throttle_count;

	/* `domain "/REGEX/"`: NULL when there are none. */
	struct pattern_set *patterns;
	/* Of each match; struct pcre2_real_match_context_8. */
	void *pattern_limits;
	/* Matches that were given up. Beside the generation, as it changes. */
	_Atomic uint64_t *pattern_failures;

	struct policy_scripts scripts;
	/* Their names and texts are the tree's. */
	struct policy_source *sources;
	uint32_t source_count;

	struct dkim_domain *dkim;
	uint32_t dkim_count;
	struct dkim_files dkim_files;
	/* In the arena. */
	struct dkim_store *dkim_store;
	/* Interned "dkim". */
	const char *name_dkim;

	struct binding_options *binding_options;
	uint32_t binding_count;

	/* By name: open addressing, a power of two. */
	struct binding **bindings;
	uint32_t binding_mask;
	/* Interned "domain" and "provider". */
	const char *name_domain;
	const char *name_provider;
	/* Names of providers, in the order of the files. */
	const char **providers;
	uint32_t provider_count;
	struct memo memo;
};
