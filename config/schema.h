/*
 * What the language can say: one table of scopes and one of options. An option's row has its type,
 * range, default, scopes, and where its value goes; parsing, errors, --dump, the reference and the
 * tests are all made from it. To add an option, add a row (and a sample to
 * tests/unit/test_config.c, which fails without one).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

/* Kinds of scopes. A name may stand for several: `agent wheel` is not `agent scheduler`. */
enum schema_scope {
	SCOPE_GLOBAL,
	SCOPE_SPOOL,
	SCOPE_LOG,
	SCOPE_CUSTOM_LOGGER,
	SCOPE_JOURNAL,
	SCOPE_RESOLVER,
	SCOPE_STS,
	SCOPE_SCRIPTLET,
	SCOPE_SCRIPT,
	SCOPE_DATASOURCE,
	SCOPE_INBOUND_AUDIT,
	SCOPE_GROUP,
	SCOPE_AGENT,
	SCOPE_SERVICE_AGENT,
	SCOPE_LOG_AGENT,
	SCOPE_POOL_AGENT,
	SCOPE_ESMTP_LISTENER,
	SCOPE_ESMTP_LISTEN,
	SCOPE_ESMTP_PEER,
	SCOPE_CONTROL_LISTENER,
	SCOPE_CONTROL_LISTEN,
	SCOPE_HTTP_LISTENER,
	SCOPE_HTTP_LISTEN,
	SCOPE_GRAPHITE,
	SCOPE_DKIM,
	SCOPE_DKIM_SIGNATURE,
	SCOPE_TLS_CERTIFICATE,
	SCOPE_BINDING_GROUP,
	SCOPE_BINDING,
	SCOPE_PROVIDER,
	SCOPE_DOMAIN,
	SCOPES,
	SCOPE_UNKNOWN = SCOPES
};

enum schema_instance { INSTANCE_NONE, INSTANCE_OPTIONAL, INSTANCE_REQUIRED };

READONLY
struct schema_scope_row {
	const char *name;
	const char *help;
	enum schema_scope scope;
	/* Bits of the scopes it may stand in. */
	uint32_t parents;
	enum schema_instance instance;
	/* When only some instances are this kind of scope: their names, NULL at the end. */
	const char *const *instances;
};

enum schema_type {
	TYPE_BOOLEAN,
	TYPE_NUMBER,
	TYPE_POWER_OF_TWO,
	TYPE_PERCENT,
	TYPE_MODE,
	TYPE_SIZE,
	/* Stored in milliseconds, or nanoseconds. */
	TYPE_TIME_MS,
	TYPE_TIME_NS,
	TYPE_CHOICE,
	TYPE_TEXT,
	TYPE_HOSTNAME,
	TYPE_ADDRESS,
	TYPE_CORE,
	TYPE_CORES,
	TYPE_NETWORKS,
	TYPE_DOMAINS,
	TYPE_NAME_SERVERS,
	TYPE_GATEWAYS,
	TYPE_THROTTLE,
	TYPE_FIELDS,
	/* A file of trusted roots; stored as a client's context. */
	TYPE_TLS_CA,
	/* The name of a header field, or "" for none. */
	TYPE_FIELD,
	/* struct in6_addr, IPv4 as v4-mapped; one of a family. */
	TYPE_BIND_ADDRESSES,
	/* struct rate: a throttle that is no shared object. */
	TYPE_RATE,
	/* Where records of a log go; and one such destination. */
	TYPE_DESTINATIONS,
	TYPE_DESTINATION,
	/* Rules of what becomes of octets in a custom log. */
	TYPE_SANITIZERS,
	/* Names of those who read a journal. */
	TYPE_SUBSCRIBERS,
	/* "300,6": struct inbound_monitor */
	TYPE_MONITORS,
	TYPES
};

/* The struct that an option's value goes to. */
enum schema_target {
	/* struct global_options */
	TARGET_GLOBAL,
	/* struct smtp_options */
	TARGET_SMTP,
	/* struct listen_settings */
	TARGET_LISTEN,
	/* struct domain_options */
	TARGET_DOMAIN,
	/* struct agent_settings */
	TARGET_AGENT,
	/* struct group_options */
	TARGET_GROUP,
	/* struct tls_pair */
	TARGET_TLS_PAIR,
	/* struct idle_options */
	TARGET_IDLE,
	/* struct script_settings */
	TARGET_SCRIPT,
	/* struct dkim_settings */
	TARGET_DKIM,
	/* struct custom_settings */
	TARGET_CUSTOM,
	/* struct log_journal_options */
	TARGET_JOURNAL,
	/* struct binding_options */
	TARGET_BINDING,
	/* struct http_options */
	TARGET_HTTP,
	/* struct policy_source */
	TARGET_SOURCE,
	TARGETS
};

READONLY
struct schema_option {
	const char *name;
	/* As it would be written; NULL: none, or made from other options. */
	const char *fallback;
	const char *help;
	/* TYPE_CHOICE: in the order of the enum, NULL at the end. */
	const char *const *choices;
	/* In the unit of the type; of each item of a list. */
	uint64_t min;
	uint64_t max;
	/* Bits of the scopes it may stand in. */
	uint32_t scopes;
	enum schema_type type;
	enum schema_target target;
	/* Takes effect with a restart only. */
	bool restart;
	/* ... but not in this instance of its scopes; NULL: in none. */
	const char *dynamic_in;
	/* Whoever prints the configuration leaves the value out; or of a value with this in it what
	 * follows, up to the last @; NULL: nothing. */
	bool secret;
	const char *password_after;
	/* Of the field in the target; of the field with the number of items, for lists. */
	uint16_t offset;
	uint16_t size;
	uint16_t count_offset;
};

/* A set of options, one bit each. */
enum { SCHEMA_OPTIONS_MAX = 256 };

READONLY
struct schema_set {
	uint64_t words[SCHEMA_OPTIONS_MAX / 64];
};

/* All options; their number. The index of a row is the option's number. */
extern const struct schema_option schema_options[];
READONLY
uint32_t schema_option_count(void);

/* All kinds of scopes but the global one; their number. */
extern const struct schema_scope_row schema_scope_rows[];
READONLY
uint32_t schema_scope_row_count(void);

/* The option `name` (lower case) of scopes of this kind, or NULL. A walk over the table. */
READONLY
const struct schema_option *schema_option_find(const char *name, enum schema_scope scope);

/* What `name` opens in a scope of kind `parent`; NULL when it may not stand there, or when
 * `instance` (NULL: none) does not suit it. */
READONLY
const struct schema_scope_row *schema_scope_find(const char *name, const char *instance,
						 enum schema_scope parent);

/* For the reference: "time", and "seconds, or ms, s, m, h, d". */
READONLY
const char *schema_type_name(enum schema_type type);
READONLY
const char *schema_type_unit(enum schema_type type);

/* What a value has to look like, for "expected ...". Returns `text`. */
READONLY
const char *schema_expectation(const struct schema_option *option, char *text, size_t size);

/* What is shown of `value`, a word of `option` or as it is written: "(a secret)", or *** in place
 * of its password; malloc. NULL: there is no secret in it, and it is shown as it is. */
SINGLE
char *schema_mask(const struct schema_option *option, const char *value);

/* What to say about `name`, which is no option or scope of a scope of this kind: "unknown; expected
 * ..." with where it belongs, or what it resembles. Returns `text`. In advice.c. */
READONLY
const char *schema_advise_option(const char *name, enum schema_scope scope, char *text,
				 size_t size);
READONLY
const char *schema_advise_scope(const char *name, const char *instance, enum schema_scope scope,
				char *text, size_t size);

/* The option's place in the table. */
READONLY
static inline uint32_t schema_number(const struct schema_option *option)
{
	return (uint32_t)(option - schema_options);
}

SINGLE
static inline void schema_set_add(struct schema_set *set, const struct schema_option *option)
{
	uint32_t n = schema_number(option);
	set->words[n / 64] |= UINT64_C(1) << (n % 64);
}

READONLY
static inline bool schema_set_has(const struct schema_set *set, const struct schema_option *option)
{
	uint32_t n = schema_number(option);
	return (set->words[n / 64] >> (n % 64) & 1) != 0;
}
