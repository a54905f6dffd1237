/*
 * The scenario of a seed: the program's configuration, how much mail of which kind, which faults,
 * and when lives end. Drawn once, at the start, from the world's randomness.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/mail/envelope.h"

#define SCENARIO_DOMAINS_MAX 12
/* The default one is the first. */
#define SCENARIO_BINDINGS_MAX 4
#define SCENARIO_GROUP "g"
#define SCENARIO_CONFIG "/sim/flywheel.conf"
#define SCENARIO_CONTROL "/sim/control"
/* Where senders come from, and notifications go to; the last of the domains. */
#define SCENARIO_BOUNCES "bounces.test"
/* Where the exchangers are that domains share. */
#define SCENARIO_FAMILY "family.test"

/* A destination and its receivers' temper; what the configuration says of it, too. */
struct scenario_domain {
	char name[64];
	/* The gateway's address; domains without limits may share a receiver. */
	uint16_t port;
	/* As configured; 0: no limit. */
	uint32_t max_connections;
	uint32_t max_deliveries_per_connection;
	/* Recipients in one transaction. */
	uint32_t max_recipients;
	/* Messages per throttle_ns. */
	uint32_t throttle_messages;
	uint64_t throttle_ns;
	/* Mail that is older fails. */
	uint64_t expiration_ns;
	/* generate_bounces */
	bool bounces;
	/* No gateway: the name service knows its exchangers (resolver.c). */
	bool by_mx;
	/* Its exchangers are the family's, of this set now; else its own. */
	bool in_family;
	unsigned set;
	/* Goes by the gateway of the global scope. */
	bool behind_gateway;
	/* mx_rollup */
	bool rollup;
	/* Of its answers, permille: failures, of which those that are for good; silence. */
	unsigned dns_fail;
	unsigned dns_refuse;
	unsigned dns_silence;
	/* It has said that there is no such domain, or that it takes no mail. */
	bool said_nxdomain;
	bool said_null_mx;
	/* Receivers' answers, permille: see receiver.h. */
	unsigned defer;
	unsigned fail;
	unsigned drop;
	unsigned garbage;
	unsigned silence;
	unsigned slow;
	/* Set while sudden limits hold (421 to all beyond this many connections); 0: none. */
	uint32_t sudden_limit;
};

/* Who sends; each from an address of its own. */
struct scenario_binding {
	const char *name;
	/* In SCENARIO_GROUP; else in none. */
	bool grouped;
	uint32_t weight;
	/* suspend_delivery */
	bool suspended;
};

/* That there are at any time. */
#define SCENARIO_SCHEDULERS_MAX 4

struct scenario {
	char *config;
	size_t config_len;
	uint32_t schedulers;
	/* ... at first: it changes while mail flows. */
	bool crew_changes;
	uint32_t spool_writers;
	struct scenario_domain domains[SCENARIO_DOMAINS_MAX];
	/* Domains whose exchangers are in SCENARIO_FAMILY, with one receiver: how many MX sets they
	 * change between, how often they do (permille of answers), what a site of them may have of
	 * connections, and whether all sets are one provider's. */
	unsigned family_sets;
	unsigned family_moves;
	uint32_t family_connections;
	bool family_provider;
	/* The global scope's gateway, to which each scheduler may have so many connections for all
	 * domains behind it; 0: none. */
	uint16_t gateway_port;
	uint32_t gateway_connections;
	/* With SCENARIO_BOUNCES, which gets no mail of the senders'. */
	uint32_t domain_count;
	/* 1: the default one only, and no field of the header is obeyed. */
	struct scenario_binding bindings[SCENARIO_BINDINGS_MAX];
	uint32_t binding_count;
	/* Listens: one for each durability, and the name of what its mail is sent by; NULL: the
	 * default binding. */
	uint16_t ports[3];
	const char *listen_bindings[3];
	uint32_t messages;
	uint32_t body_max;
	uint32_t senders;
	/* Mail passes a script at every hook. */
	bool scripted;
	/* No faults, tempers, operators or ends of lives: the strictest rules hold. */
	bool clean;
	bool disk_faults;
	bool net_faults;
	bool tempers;
	bool operators;
	/* ... who send mail by other bindings than it had. */
	bool rebinds;
	/* Commands and signals that operators give, at most. */
	uint32_t orders;
	/* Data blocks of the disk are limited: part of disk_faults. */
	bool small_disk;
	/* Lives that end by a kill, a cut or an order to stop, before the last. */
	uint32_t lives;
	/* Of them: which ends there may be. */
	bool kills;
	bool cuts;
	bool stops;
	/* Mean simulated time of a life but the last. */
	uint64_t life_ns;
	/* How many lives scenario_next_life() has begun. */
	uint32_t begun;
};

/* Draws it, writes the configuration onto the disk, sets the faults of disk and network, makes the
 * actors. World memory. */
struct scenario *scenario_create(void);
/* The first half: draws it and writes the text, nothing else. */
struct scenario *scenario_draw(void);

/* What is written behind the configuration by operators, with its NUL. */
#define SCENARIO_MORE_MAX 1024

/* The file is the scenario's own configuration and `more`, from now on. */
void scenario_write_config(const struct scenario *s, const char *more);

/* What a new life starts with: how it will end (enum life_end) and when (simulated time from now;
 * UINT64_MAX for the last, which runs until the books are settled). */
struct scenario_life {
	int end;
	uint64_t after_ns;
};
struct scenario_life scenario_next_life(struct scenario *s);

/* The script, where there is one; its file is no file of the simulated disk. */
#define SCENARIO_SCRIPT "/sim/policy.lua"
extern const char scenario_script[];

/* The binding that sends from an IPv4 address, in host order. */
uint32_t scenario_binding_at(uint32_t address);

/* By name, in any case and with a dot at its end or not; NULL: no such. */
const struct scenario_domain *scenario_domain(const struct scenario *s, const char *name);
