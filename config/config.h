/*
 * The configuration: load files into one immutable generation, report every error with file and
 * line, and answer what applies where. The stanza language is parsed by config/parser.c, meaning
 * comes from the one table in config/schema_options.c, and scopes fall back as said in README.md.
 *
 * Start reading at config_load().
 */
#pragma once

#include <limits.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "core/log/event.h"
#include "core/log/event_macro.h"
#include "core/log/jlog_format.h"
#include "core/mail/dkim.h"
#include "core/policy/policy.h"
#include "core/policy/scripts.h"
#include "core/queue/options.h"
#include "core/runtime/thread_class.h"
#include "core/runtime/tls.h"

struct config;

/* Idle strategies in the order of their names in the configuration. */
enum config_idle {
	CONFIG_IDLE_BUSY_SPIN,
	CONFIG_IDLE_YIELD,
	CONFIG_IDLE_BACKOFF,
	CONFIG_IDLE_SLEEP,
	CONFIG_IDLE_NOOP,
	CONFIG_IDLE_PARK,
};

READONLY
struct idle_options {
	enum config_idle strategy;
	/* backoff */
	uint32_t max_spins;
	uint32_t max_yields;
	uint64_t min_park_ns;
	uint64_t max_park_ns;
	/* park: how long to spin at most, and to sleep after work */
	uint64_t spin_ns;
	uint64_t coalesce_ns;
	/* sleep */
	uint64_t sleep_ns;
};

/* `group NAME { core = N idle = ... }`: a thread. */
READONLY
struct group_options {
	const char *name;
	/* -1: not pinned. */
	int core;
	struct idle_options idle;
};

/* `agent KIND { count = N cores = ( ... ) group = NAME idle = ... }`: kinds are scheduler, spool,
 * wheel, log, resolver, master, pool. Without `group` each one has a thread of its own; the master
 * shares the first scheduler's. */
READONLY
struct agent_options {
	uint32_t count;
	/* One for each, -1 for not pinned; `count` of them. */
	const int *cores;
	/* NULL: a group of its own. */
	const char *group;
	struct idle_options idle;
};

enum config_agent {
	CONFIG_AGENT_MASTER,
	CONFIG_AGENT_SCHEDULER,
	CONFIG_AGENT_SPOOL,
	CONFIG_AGENT_WHEEL,
	CONFIG_AGENT_LOG,
	CONFIG_AGENT_POOL,
	CONFIG_AGENT_RESOLVER,
	CONFIG_AGENTS
};

enum config_durability { CONFIG_SYNCED, CONFIG_CACHED, CONFIG_MEMORY };
enum config_log_rotate { CONFIG_LOG_NEVER, CONFIG_LOG_HOURLY, CONFIG_LOG_DAILY };
enum config_log_compress { CONFIG_LOG_PLAIN, CONFIG_LOG_ZSTD, CONFIG_LOG_GZIP };
enum config_multiplexor { CONFIG_MUX_AUTO, CONFIG_MUX_URING, CONFIG_MUX_EPOLL, CONFIG_MUX_POLL };
enum config_injection { CONFIG_INJECTION_REJECT, CONFIG_INJECTION_IGNORE, CONFIG_INJECTION_ALLOW };
enum config_bare_lf { CONFIG_BARE_LF_REJECT, CONFIG_BARE_LF_ACCEPT };

/* Whom the resolver asks: `forwarders`, or the name servers of resolv.conf; or, from the root on,
 * those that each domain names. */
enum config_resolver_mode { CONFIG_RESOLVER_FORWARD, CONFIG_RESOLVER_RECURSIVE };

/* resolver { } */
READONLY
struct resolver_options {
	enum config_resolver_mode mode;
	/* "192.0.2.1" or "192.0.2.1@5353" */
	const char *const *forwarders;
	uint32_t forwarder_count;
	const char *resolv_conf;
	const char *hosts_file;
	/* A DS or DNSKEY record, and a file of some; both NULL: nothing is validated. */
	const char *trust_anchor;
	const char *trust_anchor_file;
	/* NULL: built in. */
	const char *root_hints;
	/* Records that need no asking; NULL: none. */
	const char *local_zone_file;
	uint64_t timeout_ms;
	/* Questions under way, and answers that are kept. */
	uint32_t max_pending;
	uint32_t cache_entries;
	/* Bounds of how long an answer is kept. */
	uint64_t min_ttl_ms;
	uint64_t max_ttl_ms;
};

/* mta_sts { } */
READONLY
struct sts_options {
	/* Of policy hosts. */
	uint16_t port;
	/* PEM file of the roots of their certificates; NULL: the system's. */
	const char *ca;
	/* Of a fetch, and how long mail waits for one. */
	uint64_t timeout_ms;
	/* Fetches at a time. */
	uint32_t max_fetches;
	/* Policies that are kept. */
	uint32_t cache_entries;
};

/* Where one log goes: destinations as in core/log/destination.h. */
READONLY
struct log_destinations {
	const char *const *names;
	uint32_t count;
};

/* Of journals of which nothing is said. */
#define JOURNAL_SEGMENT_BYTES (4U << 20)
#define JOURNAL_LIMIT_BYTES (UINT64_C(1) << 30)
#define JOURNAL_SEGMENT_BYTES_MIN 4096U

/* How one journal is to be; others are as an empty scope says. */
READONLY
struct log_journal_options {
	/* As in its destination, "jlog:NAME". */
	const char *name;
	/* A segment that has as many is full; at most a tenth of limit_bytes. */
	uint32_t segment_bytes;
	/* 0: none. */
	uint64_t limit_bytes;
	enum jlog_safety safety;
	/* Made if they are not there. */
	const char *const *subscribers;
	uint32_t subscriber_count;
};

enum custom_stage {
	CUSTOM_RECEPTION,
	CUSTOM_DELIVERY,
	CUSTOM_TRANSIENT,
	CUSTOM_PERMANENT,
	CUSTOM_REJECTION,
	CUSTOM_STAGES
};

/* custom_logger { }: for each stage that it logs a destination and a format. */
READONLY
struct custom_logger {
	const char *name;
	const char *destinations[CUSTOM_STAGES];
	/* NULL: it does not log that. */
	const struct event_macro *macros[CUSTOM_STAGES];
	struct event_sanitizer sanitizer;
};

/* graphite { } */
READONLY
struct graphite_options {
	/* As written; NULL: nobody is sent metrics. */
	const char *server;
	struct sockaddr_storage address;
	socklen_t address_len;
	uint64_t interval_ms;
	/* NULL: made from the hostname. */
	const char *prefix;
};

/* What applies to clients of one HTTP listen. */
READONLY
struct http_options {
	/* What clients have to know; NULL: nothing. */
	const char *token;
	/* Where it was read from; NULL: it stood in the configuration. */
	const char *token_file;
	uint64_t idle_ms;
	uint64_t header_bytes;
	uint32_t max_requests;
	uint32_t max_event_clients;
};

/* Of them, at most; of one of them. */
#define INBOUND_MONITORS_MAX 8
#define INBOUND_WINDOWS_MAX 144
#define INBOUND_SECONDS_MAX 31536000

/* What the inbound audit counts in: windows of so many seconds, and how many there are before the
 * one that goes on. */
READONLY
struct inbound_monitor {
	uint32_t interval_s;
	uint32_t windows;
};

/* What applies to the whole program. */
READONLY
struct global_options {
	const char *hostname;
	/* Distinguishes the machines of a cluster in message ids; default derived from hostname. */
	uint16_t node_id;
	enum config_multiplexor multiplexor;
	/* Bodies kept in memory, in all. */
	uint64_t memory_budget_bytes;
	/* Messages under reception, in all; above it new mail is refused with 452. */
	uint64_t reception_budget_bytes;
	uint32_t server_max_outbound_connections;
	uint32_t server_max_file_descriptors;
	uint64_t stop_timeout_ms;
	/* 0: nobody watches. */
	uint64_t watchdog_stall_ms;
	/* 0: never. */
	uint64_t watchdog_abort_ms;
	/* Default of every listener: sessions in all. */
	/* spool { } */
	const char *spool_path;
	uint64_t spool_segment_bytes;
	/* Reception stops with 452 while the file system has less free. */
	uint64_t spool_min_free_bytes;
	/* A sealed segment with a smaller share of live bytes is compacted, percent. */
	uint32_t spool_compact_percent;
	/* Unused segments kept ready for reuse, 0 or more. */
	uint32_t spool_spare_segments;
	enum config_durability durability;
	/* log { } */
	const char *log_path;
	uint64_t log_heartbeat_ms;
	bool log_transient_failures;
	enum config_log_rotate log_rotate;
	/* Bytes; 0: any. */
	uint64_t log_rotate_size;
	/* Rotated files of each log; 0: all. */
	uint32_t log_keep;
	enum config_log_compress log_compress;
	/* By enum log_file. */
	struct log_destinations logs[LOG_FILES];
	/* Fields whose values are kept as metadata of a message, lower case. */
	const char *const *context_headers;
	uint32_t context_header_count;
	/* NULL: the built-in ones. */
	const char *bounce_rules_path;
	/* ring slots between two agents: a power of two */
	uint32_t ring_slots;
	/* a duty cycle longer than this is counted as a stall */
	uint64_t stall_ns;
	/* thread pool { }: queue bound */
	uint32_t pool_backlog;
	struct resolver_options resolver;
	struct sts_options sts;
	uint32_t metrics_top_domains;
	uint64_t metrics_interval_ms;
	struct graphite_options graphite;
	/* inbound_audit { } */
	const struct inbound_monitor *monitors;
	uint32_t monitor_count;
	/* scriptlet { }: of one call, and of one scheduler */
	uint64_t policy_instructions;
	uint64_t policy_memory_bytes;
};

/* `network/prefix`, IPv4 as v4-mapped IPv6. */
READONLY
struct cidr {
	struct in6_addr address;
	uint8_t prefix;
};

/* So many in so many seconds; a count of 0: no limit. */
READONLY
struct rate {
	uint32_t count;
	uint32_t period_s;
};

/* What applies to one SMTP client, once listener, listen and peer scopes are merged. */
READONLY
struct smtp_options {
	const char *hostname;
	/* What follows the hostname in the greeting. */
	const char *banner;
	const struct cidr *relay_hosts;
	uint32_t relay_host_count;
	/* Lower case; ".example.com" matches subdomains, "*" all. */
	const char *const *relay_domains;
	uint32_t relay_domain_count;
	/* The same; what comes for them is understood as a bounce. */
	const char *const *bounce_domains;
	uint32_t bounce_domain_count;
	uint64_t max_message_bytes;
	uint32_t max_line_bytes;
	uint32_t max_recipients_per_message;
	/* Commands in a row that move no mail (NOOP, RSET, HELP, VRFY, unknown ones). */
	uint32_t max_idle_commands;
	/* Accepted messages on one connection, then 421; 0: no limit. */
	uint32_t max_receptions_per_connection;
	uint64_t idle_timeout_ms;
	uint64_t session_timeout_ms;
	enum config_bare_lf bare_lf;
	enum config_durability durability;
	bool dkim_sign;
	/* A binding's or a group's name; NULL: the default binding. */
	const char *binding;
	/* Empty: no field is looked for. */
	const char *binding_header;
	/* PEM files; NULL: none. */
	const char *tls_certificate;
	const char *tls_key;
	const char *tls_ciphers;
	const char *tls_protocols;
	const char *tls_client_ca;
	enum tls_client_certificate tls_verify_mode;
	enum config_injection starttls_injection;
	/* TLS from the first byte. */
	bool use_ssl;
	/* A client whose certificate was verified may send to any domain. */
	bool tls_verified_peer_can_relay;
	/* Made from the above; NULL: TLS is not offered. */
	const struct tls_context *tls;
	/* Users and hashes of their passwords; NULL: nobody can authenticate. */
	const char *auth_file;
	/* On connections without TLS, too. */
	bool allow_plain_auth;
	/* Mail is taken only from users. */
	bool require_authentication;
	/* From one address, on each scheduler. */
	struct rate max_auth_failures;
	/* Who may say whose a connection is, by XCLIENT, and must by PROXY where `proxy_protocol`
	 * is on. */
	const struct cidr *xclient_hosts;
	uint32_t xclient_host_count;
	bool proxy_protocol;
};

/* A binding, for those who give mail to one. */
READONLY
struct binding_options {
	const char *name;
	/* NULL: in none. */
	const char *group;
	/* 1 or more. */
	uint32_t weight;
	bool suspend_delivery;
};

/* One socket to listen on. */
READONLY
struct listen_options {
	/* "127.0.0.1:2525", "[::1]:25", "*:25" (the IPv6 wildcard, for both families), or a path
	 * for a Unix socket. */
	const char *name;
	struct sockaddr_storage address;
	socklen_t address_len;
	uint32_t backlog;
	/* Of all the connections of this listener, and from one peer address; 0: no limit. */
	uint32_t max_connections;
	uint32_t max_connections_per_peer;
	/* Of all the listens of its listener together; 0: no limit. */
	uint32_t max_service_connections;
	/* Unix sockets. */
	uint32_t file_mode;
};

/* Load `path` and all it includes. Returns the generation, with one reference, or NULL when there
 * was any error; each error is one line on `errors`: FILE:LINE: what is wrong and what was
 * expected. Warnings go there too, with "warning: " after the position. */
SINGLE
struct config *config_load(const char *path, FILE *errors);

/* The same from memory: `path` names the text in messages, and includes are relative to its
 * folder. */
SINGLE
struct config *config_load_text(const char *path, const char *text, size_t len, FILE *errors);

struct overlay;

/* What a generation is made from. */
READONLY
struct config_source {
	/* The main file. */
	const char *path;
	/* Whose folder of `node/` counts; NULL: the machine's name. */
	const char *node;
	/* What the console has set, over the files; NULL: nothing. */
	const struct overlay *overlay;
};

/* The same as config_load(), from files and an overlay. */
SINGLE
struct config *config_load_from(const struct config_source *source, FILE *errors);
/* From what `config` was loaded from, and an overlay. */
SINGLE
struct config *config_load_again(const struct config *config, const struct overlay *overlay,
				 FILE *errors);

/* Files that were read, 0 to count - 1, in order; one that is included twice comes twice. */
READONLY
uint32_t config_file_count(const struct config *config);
READONLY
const char *config_file(const struct config *config, uint32_t index);

/* How often a pattern of domains took too long for a name, and so did not match it. */
READONLY
uint64_t config_pattern_failures(const struct config *config);

CONCURRENT
struct config *config_hold(struct config *config);
/* NULL is ignored. */
CONCURRENT
void config_release(struct config *config);
/* How many there are. Who has the only one, and gives it to nobody, has it alone. */
CONCURRENT
uint32_t config_references(const struct config *config);

/* Which of the program's generations it is, from 1 on, and since when, wall clock ms: set before it
 * is shared. 0: none. */
SINGLE
void config_set_number(struct config *config, uint64_t number, uint64_t since_ms);
READONLY
uint64_t config_number(const struct config *config);
READONLY
uint64_t config_since_ms(const struct config *config);
/* The file that was loaded, as it was named. */
READONLY
const char *config_path(const struct config *config);

/* What the program goes on with although the files say something else: it takes effect with a
 * restart only. */
SINGLE
struct config_kept {
	struct config_kept *next;
	/* `agent "scheduler"`, "the global scope"; and its option, "" for the scope itself. */
	char scope[256];
	char option[64];
	/* As `--dump` has them, without secrets; "" for what is not there. malloc. */
	char *running;
	char *wanted;
	/* Where that is said: FILE:LINE, or what the console has set; where it used to be, when it
	 * is no more; "default" where nobody says anything. malloc. */
	char *place;
};

/* What takes effect with a restart only, and nothing else, as a generation of its own: for who
 * keeps it for as long as the program runs. Never NULL. */
SINGLE
struct config *config_foundation(const struct config *config);

/*
 * Makes `fresh`, which was loaded now, fit to follow `running`: what takes effect with a restart
 * only is as in `running`, which `*kept` says (NULL: nothing differs), and throttles go on where
 * those of the same scopes are. Takes `fresh` over. NULL: what is new does not go together with
 * what is kept, and `errors` says why. May take as long as a load.
 */
SINGLE
struct config *config_follow(struct config *fresh, const struct config *running,
			     struct config_kept **kept, FILE *errors);
SINGLE
void config_kept_free(struct config_kept *kept);

/* The throttles of a generation that followed another have their own rates from now on,
 * monotonic. */
CONCURRENT
void config_apply_throttles(const struct config *config, uint64_t now_ns);

/* The effective configuration in the language it is written in, with each value's origin; and
 * without. */
READONLY
void config_dump(const struct config *config, FILE *out);
READONLY
void config_dump_values(const struct config *config, FILE *out);

READONLY
const struct global_options *config_global(const struct config *config);
READONLY
const struct agent_options *config_agent(const struct config *config, enum config_agent agent);
/* NULL when no such group was configured. */
READONLY
const struct group_options *config_group(const struct config *config, const char *name);
/* All of them, 0 to count - 1. */
READONLY
uint32_t config_group_count(const struct config *config);
READONLY
const struct group_options *config_group_at(const struct config *config, uint32_t index);

/* Listens of the SMTP listeners, and of control and HTTP listeners, 0 to count - 1. */
READONLY
uint32_t config_smtp_listen_count(const struct config *config);
READONLY
const struct listen_options *config_smtp_listen(const struct config *config, uint32_t index);
/* Which one has the address of `same`, which may be of another generation; false: none. */
READONLY
bool config_smtp_listen_find(const struct config *config, const struct listen_options *same,
			     uint32_t *index);
READONLY
uint32_t config_control_listen_count(const struct config *config);
READONLY
const struct listen_options *config_control_listen(const struct config *config, uint32_t index);
READONLY
uint32_t config_http_listen_count(const struct config *config);
READONLY
const struct listen_options *config_http_listen(const struct config *config, uint32_t index);
/* What applies to its clients. */
READONLY
const struct http_options *config_http(const struct config *config, uint32_t index);

/* What applies to a client at `peer` (IPv4 as v4-mapped) on listen `index`: most specific CIDR of
 * the listen's peers, else of its listener's, else the listen itself. Never NULL. */
READONLY
const struct smtp_options *config_smtp(const struct config *config, uint32_t index,
				       const struct in6_addr *peer);

/* What applies to mail for `domain` (lower case; NULL: for all without a stanza) sent through
 * `binding`, when its mail exchangers belong to `provider` (NULL: to none, or it is not known yet).
 * Never NULL; equal answers are mostly one struct. O(1). */
READONLY
const struct domain_options *config_outbound(const struct config *config, const char *binding,
					     const char *provider, const char *domain,
					     size_t domain_len);
/* The same without a provider. */
READONLY
static inline const struct domain_options *config_domain(const struct config *config,
							 const char *binding, const char *domain,
							 size_t domain_len)
{
	return config_outbound(config, binding, NULL, domain, domain_len);
}

/* Where the value of an option comes from. */
READONLY
struct config_origin {
	/* The file as it was named, and the line; "default" and 0: nobody set it. */
	const char *file;
	uint32_t line;
	/* The scope that set it: `domain "x" in binding "b"`, "the global scope", "default". */
	char scope[512];
};

/* Which scope decided on an outbound option, by its name in the schema, for what config_outbound()
 * is asked for. O(options of those scopes). */
READONLY
void config_outbound_origin(const struct config *config, const char *binding, const char *provider,
			    const char *domain, size_t domain_len, const char *option,
			    struct config_origin *origin);
/* The same of one of the program's own: in the scope called `scope`, such as "spool"; NULL: in the
 * global one. */
READONLY
void config_program_origin(const struct config *config, const char *scope, const char *option,
			   struct config_origin *origin);

/* The provider that a domain with these exchangers ("PREFERENCE HOST ...", sorted, lower case)
 * belongs to for mail sent through `binding`: the first in the order of the files all of whose
 * exchangers of best preference match. NULL: none. O(providers). */
READONLY
const char *config_provider(const struct config *config, const char *binding, const char *mx);

/* The provider of that name, as config_provider() calls it; NULL: there is none. */
READONLY
const char *config_same_provider(const struct config *config, const char *name);

/* Both generations say the same of who is whose provider. O(providers). */
READONLY
bool config_providers_agree(const struct config *a, const struct config *b);

/* All bindings of the configuration, 0 to count - 1; those of a group are in its order. */
READONLY
uint32_t config_binding_count(const struct config *config);
READONLY
const struct binding_options *config_binding(const struct config *config, uint32_t index);

/* Makes the client contexts of outbound TLS, whoever says tls = no: connections of the generation
 * before may be about to use them. Once, before the generation is shared. 0, or a negative errno
 * after one line on `errors`. */
SINGLE
int config_tls_open(struct config *config, FILE *errors);
READONLY
const struct tls_context *config_tls_client(const struct config *config);
/* The same; it trusts the roots of the system, if anybody obeys MTA-STS. */
READONLY
const struct tls_context *config_tls_roots(const struct config *config);

struct tls_renewal;

/* Reads the certificates and keys of listeners anew, from the files that the configuration names:
 * may block. NULL: `why` says which cannot be used, and nothing has changed. */
CONCURRENT
struct tls_renewal *config_tls_renew(const struct config *config, char why[TLS_WHY]);
/* From now on sessions begin with them. */
CONCURRENT
void config_tls_publish(struct tls_renewal *renewal);
/* How many contexts there are. */
READONLY
uint32_t config_tls_renewal_count(const struct tls_renewal *renewal);
/* Frees what is not, or no longer, in use: after a publication when every scheduler has gone on to
 * something else. NULL is ignored. */
SINGLE
void config_tls_renewal_free(struct tls_renewal *renewal);

/* Custom loggers in the order of the files, 0 to count - 1, as an array. */
READONLY
const struct custom_logger *config_custom_loggers(const struct config *config, uint32_t *count);

/* Journals of which something is said, in the order of the files, as an array. */
READONLY
const struct log_journal_options *config_journals(const struct config *config, uint32_t *count);

/* Header fields that are captured at reception: keys of a message's context (core/mail/context.h),
 * `*count` of them, none twice. A key with a colon at its end is the field of that name; one
 * without is the name of a field whose value becomes metadata. */
READONLY
const char *const *config_captured(const struct config *config, uint32_t *count);

/* All throttles of this generation, 0 to count - 1, for display. */
READONLY
uint32_t config_throttle_count(const struct config *config);
READONLY
const struct throttle *config_throttle(const struct config *config, uint32_t index);

/* What mail is signed with whose author is of `domain` (lower case): the policy of that domain,
 * else of its nearest parent that has one; NULL: nothing. O(labels). */
READONLY
const struct dkim_policy *config_dkim(const struct config *config, const char *domain);

/* All of them, 0 to count - 1. */
READONLY
uint32_t config_dkim_count(const struct config *config);
READONLY
const struct dkim_policy *config_dkim_at(const struct config *config, uint32_t index);

/* What is wrong with a key file: its path, the reason. */
#define DKIM_WHY (PATH_MAX + 256)

struct dkim_renewal;

/* Reads all keys anew, from the files that the configuration names: may block. NULL: `why` says
 * which file cannot be used, or that another renewal is under way, and nothing has changed. */
CONCURRENT
struct dkim_renewal *config_dkim_renew(const struct config *config, char why[DKIM_WHY]);
/* How many keys are others than those in use, and how many the same. */
READONLY
uint32_t config_dkim_renewal_changed(const struct dkim_renewal *renewal);
READONLY
uint32_t config_dkim_renewal_unchanged(const struct dkim_renewal *renewal);
/* From now on messages are signed with them. Once. */
CONCURRENT
void config_dkim_publish(struct dkim_renewal *renewal);
/* Frees what is not, or no longer, in use: after a publication when every scheduler has gone on to
 * something else. Another renewal may then begin. NULL is ignored. */
SINGLE
void config_dkim_renewal_free(struct dkim_renewal *renewal);

/* Scripts of policy, compiled, in the order of the files; none: there is no policy. */
READONLY
const struct policy_scripts *config_scripts(const struct config *config);

/* A database that scripts may ask, or NULL: there is none of this name. */
READONLY
const struct policy_source *config_source(const struct config *config, const char *name);

/* One line per option: name, type, unit, default, scopes, what it does. For `--help` and docs. */
READONLY
void config_reference(FILE *out);

/* Whether they are one socket, whatever else is said of it. */
READONLY
static inline bool config_same_address(const struct listen_options *a,
				       const struct listen_options *b)
{
	return a->address_len == b->address_len &&
	       memcmp(&a->address, &b->address, a->address_len) == 0;
}
