/*
 * The options that shape one domain's deliveries, flattened: what the configuration's scopes say
 * about (binding group, binding, provider, domain) once the fallback is done. Made by config/, read
 * by core/queue and core/outbound. One struct is shared by all domains with the same answers.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/runtime/thread_class.h"

struct throttle;
struct tls_context;

/* How mail is sent: RFC 3207, RFC 7435. The order is that of the configuration's words. */
enum domain_tls {
	DOMAIN_TLS_NO,
	/* Where the peer offers it, unverified; else, and when it fails, plain text. */
	DOMAIN_TLS_OPPORTUNISTIC,
	/* Never plain text, unverified. */
	DOMAIN_TLS_REQUIRED,
	/* Never plain text, and the peer's certificate has its name and a trusted root. */
	DOMAIN_TLS_VERIFY,
	/* By TLSA records (RFC 7672), or not at all. */
	DOMAIN_TLS_DANE,
	/* By TLSA records where there are some, else opportunistic. */
	DOMAIN_TLS_DANE_OR_OPPORTUNISTIC,
};

/* One next hop: `host` is an address literal without brackets, or a name to look up. */
READONLY
struct gateway {
	const char *host;
	uint16_t port;
	/* Lower is tried first; equal ones share the load. */
	uint16_t preference;
};

/* Which addresses of next hops are used. */
enum address_family { ADDRESS_FAMILY_ANY, ADDRESS_FAMILY_IPV4, ADDRESS_FAMILY_IPV6 };
/* What becomes of a body with octets above 127 at a next hop without 8BITMIME. */
enum domain_downgrade { DOMAIN_DOWNGRADE_SEND, DOMAIN_DOWNGRADE_BOUNCE };

READONLY
struct domain_options {
	/* Next hops; 0 of them: the domain's mail exchangers. Sorted by preference. */
	const struct gateway *gateways;
	uint32_t gateway_count;
	uint16_t remote_smtp_port;
	/* Of names that are looked up. */
	enum address_family address_family;
	/* Where connections come from, one of a family at most, IPv4 as v4-mapped; 0 of them: the
	 * kernel chooses. */
	const struct in6_addr *bind_addresses;
	uint32_t bind_address_count;
	uint32_t max_outbound_connections;
	/* Successful deliveries on one connection before it is closed; 0: no limit. */
	uint32_t max_deliveries_per_connection;
	/* Recipients in one transaction, 1 to 128. */
	uint32_t max_recipients_per_batch;
	uint64_t retry_interval_ms;
	uint64_t max_retry_interval_ms;
	uint64_t message_expiration_ms;
	uint64_t connect_timeout_ms;
	uint64_t ehlo_timeout_ms;
	uint64_t mailfrom_timeout_ms;
	uint64_t rcptto_timeout_ms;
	uint64_t body_timeout_ms;
	uint64_t rset_timeout_ms;
	/* How long an idle connection waits for the next message. */
	uint64_t idle_timeout_ms;
	/* How long a host that refused a connection is left alone. */
	uint64_t host_failure_retry_ms;
	enum domain_tls tls;
	/* Trusts the roots of tls_ca; NULL: the program's client context. */
	const struct tls_context *tls_client;
	/* Policies of MTA-STS are obeyed. */
	bool mta_sts;
	/* How long a host with which TLS failed gets plain text, when it may. */
	uint64_t tls_failure_retry_ms;
	/* After how long a sender is told that its mail waits. */
	uint64_t delay_dsn_retry_interval_ms;
	/* Domains of one MX set, or one provider, share a site. */
	bool mx_rollup;
	bool suspend_delivery;
	bool generate_bounces;
	/* Of mail that waits as well, if its sender asked for nothing. */
	bool generate_delay_dsn;
	/* By BDAT to next hops that offer it. */
	bool use_chunking;
	enum domain_downgrade downgrade_8bit;
	const char *ehlo_hostname;
	/* From: address of delivery status notifications. */
	const char *mailerdaemon;
	/* Shared with every scope that falls back to the one which set it; NULL: none. */
	struct throttle *throttle_messages;
	struct throttle *throttle_connections;
	/* Of a provider, which finds its domains by them. Lower case; ".example.com" matches
	 * subdomains. */
	const char *const *mx_suffixes;
	uint32_t mx_suffix_count;
};

/* They say the same, be they of one generation of the configuration or of two. Padding is zero. */
READONLY
bool domain_options_same(const struct domain_options *a, const struct domain_options *b);
/* The same of their gateways, and of their bind_address. */
READONLY
bool domain_options_same_gateways(const struct domain_options *a, const struct domain_options *b);
READONLY
bool domain_options_same_bind(const struct domain_options *a, const struct domain_options *b);
