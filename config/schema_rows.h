/*
 * What the rows of the two tables are made of: sets of scopes, units, and where values go. For
 * schema.c, with the table of scopes, and schema_options.c, with that of options.
 */
#pragma once

#include <stddef.h>

#include "config/generation.h"
#include "config/schema.h"

#define BIT(scope) (UINT32_C(1) << (scope))

#define GLOBAL BIT(SCOPE_GLOBAL)
#define SPOOL BIT(SCOPE_SPOOL)
#define LOG BIT(SCOPE_LOG)
#define CUSTOM BIT(SCOPE_CUSTOM_LOGGER)
#define JOURNAL BIT(SCOPE_JOURNAL)
#define SINGLE_AGENTS (BIT(SCOPE_SERVICE_AGENT) | BIT(SCOPE_LOG_AGENT))
#define SERVICE (SINGLE_AGENTS | BIT(SCOPE_POOL_AGENT))
#define AGENTS (BIT(SCOPE_AGENT) | SERVICE)
#define RESOLVER BIT(SCOPE_RESOLVER)
#define STS BIT(SCOPE_STS)
#define GROUP BIT(SCOPE_GROUP)
#define ESMTP (BIT(SCOPE_ESMTP_LISTENER) | BIT(SCOPE_ESMTP_LISTEN))
#define CONTROL (BIT(SCOPE_CONTROL_LISTENER) | BIT(SCOPE_CONTROL_LISTEN))
#define HTTP (BIT(SCOPE_HTTP_LISTENER) | BIT(SCOPE_HTTP_LISTEN))
#define CLIENT (ESMTP | BIT(SCOPE_ESMTP_PEER))
#define GRAPHITE BIT(SCOPE_GRAPHITE)
#define DKIM (BIT(SCOPE_DKIM) | BIT(SCOPE_DKIM_SIGNATURE))
#define ROUTED (GLOBAL | BIT(SCOPE_BINDING_GROUP) | BIT(SCOPE_BINDING) | BIT(SCOPE_DOMAIN))
#define OUTBOUND (ROUTED | BIT(SCOPE_PROVIDER))

#define KIB(n) (UINT64_C(n) << 10)
#define MIB(n) (UINT64_C(n) << 20)
#define GIB(n) (UINT64_C(n) << 30)
#define TIME_MS_MAX (UINT64_C(366) * 86400 * 1000)
#define PATH_LEN_MAX 1024
#define PAUSE_NS_MAX (UINT64_C(60) * 1000 * 1000 * 1000)

#define FIELD(type, member)                                                                        \
	.offset = (uint16_t)offsetof(type, member), .size = sizeof(((type *)NULL)->member)
#define COUNT(type, member) .count_offset = (uint16_t)offsetof(type, member)
#define TO_GLOBAL(member) .target = TARGET_GLOBAL, FIELD(struct global_options, member)
#define TO_SMTP(member) .target = TARGET_SMTP, FIELD(struct smtp_options, member)
#define TO_LISTEN(member) .target = TARGET_LISTEN, FIELD(struct listen_settings, member)
#define TO_DOMAIN(member) .target = TARGET_DOMAIN, FIELD(struct domain_options, member)
#define TO_AGENT(member) .target = TARGET_AGENT, FIELD(struct agent_settings, member)
#define TO_GROUP(member) .target = TARGET_GROUP, FIELD(struct group_options, member)
#define TO_TLS_PAIR(member) .target = TARGET_TLS_PAIR, FIELD(struct tls_pair, member)
#define TO_IDLE(member) .target = TARGET_IDLE, FIELD(struct idle_options, member)
#define TO_BINDING(member) .target = TARGET_BINDING, FIELD(struct binding_options, member)
#define TO_SOURCE(member) .target = TARGET_SOURCE, FIELD(struct policy_source, member)
#define TO_SCRIPT(member) .target = TARGET_SCRIPT, FIELD(struct script_settings, member)
#define TO_CUSTOM(member) .target = TARGET_CUSTOM, FIELD(struct custom_settings, member)
#define TO_HTTP(member) .target = TARGET_HTTP, FIELD(struct http_options, member)
#define TO_JOURNAL(member) .target = TARGET_JOURNAL, FIELD(struct log_journal_options, member)
#define TO_DKIM(member) .target = TARGET_DKIM, FIELD(struct dkim_settings, member)
