#include "config/schema.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "config/generation.h"
#include "config/word.h"
#include "core/mail/envelope.h"
#include "core/runtime/clock.h"

#define BIT(scope) (UINT32_C(1) << (scope))

#define GLOBAL BIT(SCOPE_GLOBAL)
#define SPOOL BIT(SCOPE_SPOOL)
#define LOG BIT(SCOPE_LOG)
#define CUSTOM BIT(SCOPE_CUSTOM_LOGGER)
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
#define TO_CUSTOM(member) .target = TARGET_CUSTOM, FIELD(struct custom_settings, member)
#define TO_HTTP(member) .target = TARGET_HTTP, FIELD(struct http_options, member)
#define TO_DKIM(member) .target = TARGET_DKIM, FIELD(struct dkim_settings, member)

static const char *const verify_mode_choices[] = {"optional", "none", "require", NULL};
static const char *const injection_choices[] = {"reject", "ignore", "allow", NULL};
static const char *const tls_choices[] = {
	"no", "opportunistic", "required", "verify", "dane", "dane-or-opportunistic", NULL,
};
static const char *const idle_choices[] = {
	"busy-spin", "yield", "backoff", "sleep", "noop", "park", NULL,
};
static const char *const durability_choices[] = {"synced", "cached", "memory", NULL};
static const char *const log_rotate_choices[] = {"never", "hourly", "daily", NULL};
static const char *const log_compress_choices[] = {"none", "zstd", "gzip", NULL};
static const char *const multiplexor_choices[] = {"auto", "uring", "epoll", "poll", NULL};
static const char *const resolver_mode_choices[] = {"forward", "recursive", NULL};
static const char *const family_choices[] = {"any", "ipv4", "ipv6", NULL};
static const char *const downgrade_choices[] = {"send", "bounce", NULL};
static const char *const bare_lf_choices[] = {"reject", "accept_as_data", NULL};

/* As canons[] of dkim.c knows them. */
static const char *const canon_choices[] = {"relaxed/relaxed", "relaxed/simple", "simple/relaxed",
					    "simple/simple", NULL};

static const char *const io_agents[] = {"master", "scheduler", "spool", NULL};
static const char *const service_agents[] = {"wheel", "resolver", NULL};
static const char *const log_agents[] = {"log", NULL};
static const char *const pool_agents[] = {"pool", NULL};

const struct schema_scope_row schema_scope_rows[] = {
	{"spool", "where accepted mail is kept", SCOPE_SPOOL, GLOBAL, INSTANCE_NONE, NULL},
	{"log", "what became of each message", SCOPE_LOG, GLOBAL, INSTANCE_NONE, NULL},
	{"custom_logger", "a log of one's own layout", SCOPE_CUSTOM_LOGGER, GLOBAL,
	 INSTANCE_REQUIRED, NULL},
	{"resolver", "who knows where mail goes", SCOPE_RESOLVER, GLOBAL, INSTANCE_NONE, NULL},
	{"mta_sts", "how policies of MTA-STS are fetched", SCOPE_STS, GLOBAL, INSTANCE_NONE, NULL},
	{"group", "a thread that agents share", SCOPE_GROUP, GLOBAL, INSTANCE_REQUIRED, NULL},
	{"agent", "agents that do I/O", SCOPE_AGENT, GLOBAL, INSTANCE_REQUIRED, io_agents},
	{"agent", "agents that serve others", SCOPE_SERVICE_AGENT, GLOBAL, INSTANCE_REQUIRED,
	 service_agents},
	{"agent", "the agent that writes the logs", SCOPE_LOG_AGENT, GLOBAL, INSTANCE_REQUIRED,
	 log_agents},
	{"agent", "threads for what may block", SCOPE_POOL_AGENT, GLOBAL, INSTANCE_REQUIRED,
	 pool_agents},
	{"esmtp_listener", "receives mail by SMTP", SCOPE_ESMTP_LISTENER, GLOBAL, INSTANCE_OPTIONAL,
	 NULL},
	{"listen", "one socket to receive mail", SCOPE_ESMTP_LISTEN, BIT(SCOPE_ESMTP_LISTENER),
	 INSTANCE_REQUIRED, NULL},
	{"peer", "clients of one network", SCOPE_ESMTP_PEER, ESMTP, INSTANCE_REQUIRED, NULL},
	{"control_listener", "serves the console", SCOPE_CONTROL_LISTENER, GLOBAL,
	 INSTANCE_OPTIONAL, NULL},
	{"listen", "one socket for consoles", SCOPE_CONTROL_LISTEN, BIT(SCOPE_CONTROL_LISTENER),
	 INSTANCE_REQUIRED, NULL},
	{"http_listener", "serves metrics, health and what the console shows", SCOPE_HTTP_LISTENER,
	 GLOBAL, INSTANCE_OPTIONAL, NULL},
	{"listen", "one socket for HTTP", SCOPE_HTTP_LISTEN, BIT(SCOPE_HTTP_LISTENER),
	 INSTANCE_REQUIRED, NULL},
	{"graphite", "who is sent metrics", SCOPE_GRAPHITE, GLOBAL, INSTANCE_NONE, NULL},
	{"dkim", "signs mail of a domain", SCOPE_DKIM, GLOBAL, INSTANCE_REQUIRED, NULL},
	{"signature", "one more signature, with a key of its own", SCOPE_DKIM_SIGNATURE,
	 BIT(SCOPE_DKIM), INSTANCE_REQUIRED, NULL},
	{"tls_certificate", "a certificate for clients that ask for a name", SCOPE_TLS_CERTIFICATE,
	 GLOBAL, INSTANCE_REQUIRED, NULL},
	{"binding_group", "bindings that share options", SCOPE_BINDING_GROUP, GLOBAL,
	 INSTANCE_REQUIRED, NULL},
	{"binding", "an identity that mail is sent by", SCOPE_BINDING,
	 GLOBAL | BIT(SCOPE_BINDING_GROUP), INSTANCE_REQUIRED, NULL},
	{"provider", "whoever takes mail of many domains", SCOPE_PROVIDER,
	 GLOBAL | BIT(SCOPE_BINDING), INSTANCE_REQUIRED, NULL},
	{"domain", "a destination", SCOPE_DOMAIN,
	 GLOBAL | BIT(SCOPE_BINDING_GROUP) | BIT(SCOPE_BINDING), INSTANCE_REQUIRED, NULL},
};

/* One option is one paragraph. */
/* clang-format off */
const struct schema_option schema_options[] = {
	/* The program */
	{ .name = "hostname", .type = TYPE_HOSTNAME, TO_GLOBAL(hostname), .scopes = GLOBAL,
	  .restart = true,
	  .help = "This machine's name in greetings, trace headers and message ids." },
	{ .name = "node_id", .type = TYPE_NUMBER, .max = UINT16_MAX, TO_GLOBAL(node_id),
	  .scopes = GLOBAL, .restart = true,
	  .help = "Tells the machines of a cluster apart in message ids." },
	{ .name = "multiplexor", .type = TYPE_CHOICE, .choices = multiplexor_choices,
	  .fallback = "auto", TO_GLOBAL(multiplexor), .scopes = GLOBAL, .restart = true,
	  .help = "How schedulers wait for the network; auto takes the best that works." },
	{ .name = "memory_budget", .type = TYPE_SIZE, .min = MIB(1), .max = GIB(1024),
	  .fallback = "256M", TO_GLOBAL(memory_budget_bytes), .scopes = GLOBAL,
	  .help = "Envelopes and bodies kept in memory, in all; those read back for an attempt "
		  "may take as much again." },
	{ .name = "reception_budget", .type = TYPE_SIZE, .min = KIB(64), .max = GIB(1024),
	  .fallback = "128M", TO_GLOBAL(reception_budget_bytes), .scopes = GLOBAL,
	  .help = "Memory of mail being received, in all: above it new mail is put off with 452, "
		  "and messages that stall or are large give way; above twice as much all that "
		  "hold more than an equal share." },
	{ .name = "server_max_outbound_connections", .type = TYPE_NUMBER, .min = 1,
	  .max = 1000000, .fallback = "20000", TO_GLOBAL(server_max_outbound_connections),
	  .scopes = GLOBAL, .help = "Outbound connections, in all." },
	{ .name = "server_max_file_descriptors", .type = TYPE_NUMBER, .min = 64, .max = 16777216,
	  .fallback = "80000", TO_GLOBAL(server_max_file_descriptors), .scopes = GLOBAL,
	  .restart = true,
	  .help = "File descriptors to ask the kernel for; clients get at most half of them." },
	{ .name = "stop_timeout", .type = TYPE_TIME_MS, .max = TIME_MS_MAX, .fallback = "8s",
	  TO_GLOBAL(stop_timeout_ms), .scopes = GLOBAL,
	  .help = "How long a stop waits for what is in flight." },
	{ .name = "ring_slots", .type = TYPE_POWER_OF_TWO, .min = 64, .max = 65536,
	  .fallback = "1024", TO_GLOBAL(ring_slots), .scopes = GLOBAL, .restart = true,
	  .help = "Messages that the ring between two agents holds." },
	{ .name = "stall_threshold", .type = TYPE_TIME_NS, .min = 1000, .max = PAUSE_NS_MAX,
	  .fallback = "100ms", TO_GLOBAL(stall_ns), .scopes = GLOBAL,
	  .help = "A longer duty cycle of an agent is counted as a stall." },
	{ .name = "bounce_rules", .type = TYPE_TEXT, .max = PATH_LEN_MAX,
	  TO_GLOBAL(bounce_rules_path), .scopes = GLOBAL, .restart = true,
	  .help = "File of the rules that tell what kind of failure a reply means; by default "
		  "those that the program has built in." },

	/* spool { } */
	{ .name = "path", .type = TYPE_TEXT, .max = PATH_LEN_MAX,
	  .fallback = "/var/spool/flywheel", TO_GLOBAL(spool_path), .scopes = SPOOL,
	  .restart = true, .help = "Folder of the spool." },
	{ .name = "segment_size", .type = TYPE_SIZE, .min = MIB(1), .max = GIB(4),
	  .fallback = "256M", TO_GLOBAL(spool_segment_bytes), .scopes = SPOOL, .restart = true,
	  .help = "Size of one segment file; no message is larger than half of it." },
	{ .name = "min_free", .type = TYPE_SIZE, .max = GIB(65536), .fallback = "256M",
	  TO_GLOBAL(spool_min_free_bytes), .scopes = SPOOL,
	  .help = "New mail is put off with 452 while the file system has less free." },
	{ .name = "compact_below", .type = TYPE_PERCENT, .max = 90, .fallback = "25",
	  TO_GLOBAL(spool_compact_percent), .scopes = SPOOL,
	  .help = "Segments with a smaller share of live bytes are compacted." },
	{ .name = "spare_segments", .type = TYPE_NUMBER, .max = 1024, .fallback = "2",
	  TO_GLOBAL(spool_spare_segments), .scopes = SPOOL,
	  .help = "Unused segments kept ready for each spool writer." },
	{ .name = "durability", .type = TYPE_CHOICE, .choices = durability_choices,
	  .fallback = "synced", TO_GLOBAL(durability), .scopes = SPOOL,
	  .help = "What an accepted message survives, unless its listener says otherwise: synced "
		  "a power cut, cached the end of the process, memory neither." },

	/* log { } */
	{ .name = "path", .type = TYPE_TEXT, .max = PATH_LEN_MAX, .fallback = "/var/log/flywheel",
	  TO_GLOBAL(log_path), .scopes = LOG, .restart = true, .help = "Folder of the logs." },
	{ .name = "heartbeat", .type = TYPE_TIME_MS, .min = 10, .max = TIME_MS_MAX,
	  .fallback = "60s", TO_GLOBAL(log_heartbeat_ms), .scopes = LOG,
	  .help = "How often the log says that the program is alive." },
	{ .name = "log_transient_failures", .type = TYPE_BOOLEAN, .fallback = "true",
	  TO_GLOBAL(log_transient_failures), .scopes = LOG, .restart = true,
	  .help = "Whether the bouncelog has those recipients too that will be tried again." },
	{ .name = "rotate", .type = TYPE_CHOICE, .choices = log_rotate_choices,
	  .fallback = "never", TO_GLOBAL(log_rotate), .scopes = LOG, .restart = true,
	  .help = "When log files are put aside and begun anew: at the full hour, at midnight, or "
		  "only when rotate_size or an operator says so." },
	{ .name = "rotate_size", .type = TYPE_SIZE, .max = GIB(1024), .fallback = "0",
	  TO_GLOBAL(log_rotate_size), .scopes = LOG, .restart = true,
	  .help = "A log file that would become larger is put aside first; 0: any size." },
	{ .name = "keep", .type = TYPE_NUMBER, .max = 1000000, .fallback = "7",
	  TO_GLOBAL(log_keep), .scopes = LOG, .restart = true,
	  .help = "Files put aside that are kept of each log, the newest; 0: all." },
	{ .name = "compress", .type = TYPE_CHOICE, .choices = log_compress_choices,
	  .fallback = "none", TO_GLOBAL(log_compress), .scopes = LOG, .restart = true,
	  .help = "How files put aside are compressed." },

	{ .name = "main", .type = TYPE_DESTINATIONS, .fallback = "( \"file:mainlog\" )",
	  TO_GLOBAL(logs[LOG_MAIN].names), COUNT(struct global_options, logs[LOG_MAIN].count),
	  .scopes = LOG, .restart = true,
	  .help = "Destinations of the main log: file:NAME as text, json:NAME as JSON; "
		  "none: it is off." },
	{ .name = "bounce", .type = TYPE_DESTINATIONS, .fallback = "( \"file:bouncelog\" )",
	  TO_GLOBAL(logs[LOG_BOUNCE].names), COUNT(struct global_options, logs[LOG_BOUNCE].count),
	  .scopes = LOG, .restart = true,
	  .help = "Destinations of the bounce log: file:NAME as text, json:NAME as JSON; "
		  "none: it is off." },
	{ .name = "reject", .type = TYPE_DESTINATIONS, .fallback = "( \"file:rejectlog\" )",
	  TO_GLOBAL(logs[LOG_REJECT].names), COUNT(struct global_options, logs[LOG_REJECT].count),
	  .scopes = LOG, .restart = true,
	  .help = "Destinations of the reject log: file:NAME as text, json:NAME as JSON; "
		  "none: it is off." },
	{ .name = "fbl", .type = TYPE_DESTINATIONS, .fallback = "( \"file:fbllog\" )",
	  TO_GLOBAL(logs[LOG_FEEDBACK].names), COUNT(struct global_options, logs[LOG_FEEDBACK].count),
	  .scopes = LOG, .restart = true,
	  .help = "Destinations of the feedback log: file:NAME as text, json:NAME as JSON; "
		  "none: it is off." },
	{ .name = "panic", .type = TYPE_DESTINATIONS, .fallback = "( \"file:paniclog\" )",
	  TO_GLOBAL(logs[LOG_PANIC].names), COUNT(struct global_options, logs[LOG_PANIC].count),
	  .scopes = LOG, .restart = true,
	  .help = "Destinations of what went wrong in the program, always as text; "
		  "none: it is off." },
	{ .name = "acct", .type = TYPE_DESTINATIONS, .fallback = "( \"file:acctlog\" )",
	  TO_GLOBAL(logs[LOG_ACCT].names), COUNT(struct global_options, logs[LOG_ACCT].count),
	  .scopes = LOG, .restart = true,
	  .help = "Destinations of the log of authentications: file:NAME as text, json:NAME as JSON; "
		  "none: it is off." },
	{ .name = "context_headers", .type = TYPE_FIELDS, .fallback = "( )",
	  TO_GLOBAL(context_headers), COUNT(struct global_options, context_header_count),
	  .scopes = LOG, .restart = true,
	  .help = "Header fields whose values are kept as metadata of a message, for logs." },

	/* custom_logger { } */
	{ .name = "mainlog", .type = TYPE_DESTINATION, TO_CUSTOM(mainlog), .scopes = CUSTOM,
	  .restart = true,
	  .help = "Where what has no destination of its own goes." },
	{ .name = "reception_logfile", .type = TYPE_DESTINATION, TO_CUSTOM(logfile[CUSTOM_RECEPTION]),
	  .scopes = CUSTOM, .restart = true, .help = "Where received messages go; by default the mainlog." },
	{ .name = "reception_format", .type = TYPE_TEXT, .max = 4096, TO_CUSTOM(format[CUSTOM_RECEPTION]),
	  .scopes = CUSTOM, .restart = true,
	  .help = "A line for received messages, with macros; without one they are not logged." },
	{ .name = "delivery_logfile", .type = TYPE_DESTINATION, TO_CUSTOM(logfile[CUSTOM_DELIVERY]),
	  .scopes = CUSTOM, .restart = true, .help = "Where deliveries go; by default the mainlog." },
	{ .name = "delivery_format", .type = TYPE_TEXT, .max = 4096, TO_CUSTOM(format[CUSTOM_DELIVERY]),
	  .scopes = CUSTOM, .restart = true,
	  .help = "A line for deliveries, with macros; without one they are not logged." },
	{ .name = "transient_failure_logfile", .type = TYPE_DESTINATION, TO_CUSTOM(logfile[CUSTOM_TRANSIENT]),
	  .scopes = CUSTOM, .restart = true, .help = "Where recipients that failed and are tried again go; by default the mainlog." },
	{ .name = "transient_failure_format", .type = TYPE_TEXT, .max = 4096, TO_CUSTOM(format[CUSTOM_TRANSIENT]),
	  .scopes = CUSTOM, .restart = true,
	  .help = "A line for recipients that failed and are tried again, with macros; without one they are not logged." },
	{ .name = "permanent_failure_logfile", .type = TYPE_DESTINATION, TO_CUSTOM(logfile[CUSTOM_PERMANENT]),
	  .scopes = CUSTOM, .restart = true, .help = "Where recipients that failed for good go; by default the mainlog." },
	{ .name = "permanent_failure_format", .type = TYPE_TEXT, .max = 4096, TO_CUSTOM(format[CUSTOM_PERMANENT]),
	  .scopes = CUSTOM, .restart = true,
	  .help = "A line for recipients that failed for good, with macros; without one they are not logged." },
	{ .name = "rejection_logfile", .type = TYPE_DESTINATION, TO_CUSTOM(logfile[CUSTOM_REJECTION]),
	  .scopes = CUSTOM, .restart = true, .help = "Where what clients were refused goes; by default the mainlog." },
	{ .name = "rejection_format", .type = TYPE_TEXT, .max = 4096, TO_CUSTOM(format[CUSTOM_REJECTION]),
	  .scopes = CUSTOM, .restart = true,
	  .help = "A line for what clients were refused, with macros; without one they are not logged." },
	{ .name = "sanitize", .type = TYPE_SANITIZERS, .fallback = "( )", TO_CUSTOM(sanitize),
	  COUNT(struct custom_settings, sanitize_count), .scopes = CUSTOM, .restart = true,
	  .help = "What becomes of characters in values: special_characters get a backslash, "
		  "non_printable become ?, tr/ABC/abc/ replaces one by the other." },

	/* resolver { } */
	{ .name = "mode", .type = TYPE_CHOICE, .choices = resolver_mode_choices,
	  .fallback = "forward", TO_GLOBAL(resolver.mode), .scopes = RESOLVER, .restart = true,
	  .help = "Whom to ask: forward asks forwarders, recursive asks from the root on." },
	{ .name = "forwarders", .type = TYPE_NAME_SERVERS, .fallback = "( )",
	  TO_GLOBAL(resolver.forwarders), COUNT(struct global_options, resolver.forwarder_count),
	  .scopes = RESOLVER, .restart = true,
	  .help = "Name servers to ask; by default those of resolv_conf." },
	{ .name = "resolv_conf", .type = TYPE_TEXT, .max = PATH_LEN_MAX,
	  .fallback = "/etc/resolv.conf", TO_GLOBAL(resolver.resolv_conf), .scopes = RESOLVER,
	  .restart = true, .help = "Where the machine's name servers are written." },
	{ .name = "hosts_file", .type = TYPE_TEXT, .max = PATH_LEN_MAX, .fallback = "/etc/hosts",
	  TO_GLOBAL(resolver.hosts_file), .scopes = RESOLVER, .restart = true,
	  .help = "Names with addresses that nobody is asked for, as in hosts(5)." },
	{ .name = "trust_anchor", .type = TYPE_TEXT, .max = 4096,
	  TO_GLOBAL(resolver.trust_anchor), .scopes = RESOLVER, .restart = true,
	  .help = "A DS or DNSKEY record; answers below its name are validated." },
	{ .name = "trust_anchor_file", .type = TYPE_TEXT, .max = PATH_LEN_MAX,
	  TO_GLOBAL(resolver.trust_anchor_file), .scopes = RESOLVER, .restart = true,
	  .help = "A file of such records; Debian has the root's in /usr/share/dns/root.key." },
	{ .name = "root_hints", .type = TYPE_TEXT, .max = PATH_LEN_MAX,
	  TO_GLOBAL(resolver.root_hints), .scopes = RESOLVER, .restart = true,
	  .help = "The root's name servers, for mode recursive; by default those built in." },
	{ .name = "local_zone_file", .type = TYPE_TEXT, .max = PATH_LEN_MAX,
	  TO_GLOBAL(resolver.local_zone_file), .scopes = RESOLVER, .restart = true,
	  .help = "Records, one a line, that nobody is asked for; a zone whose SOA is there is "
		  "answered from it alone." },
	{ .name = "timeout", .type = TYPE_TIME_MS, .min = 1, .max = 600000, .fallback = "20s",
	  TO_GLOBAL(resolver.timeout_ms), .scopes = RESOLVER, .restart = true,
	  .help = "How long an answer is waited for." },
	{ .name = "max_pending", .type = TYPE_NUMBER, .min = 1, .max = 65536, .fallback = "1024",
	  TO_GLOBAL(resolver.max_pending), .scopes = RESOLVER, .restart = true,
	  .help = "Questions under way at a time; others wait." },
	{ .name = "cache_entries", .type = TYPE_NUMBER, .max = 10000000, .fallback = "100000",
	  TO_GLOBAL(resolver.cache_entries), .scopes = RESOLVER, .restart = true,
	  .help = "Answers that are kept at hand." },
	{ .name = "min_ttl", .type = TYPE_TIME_MS, .max = TIME_MS_MAX, .fallback = "30s",
	  TO_GLOBAL(resolver.min_ttl_ms), .scopes = RESOLVER, .restart = true,
	  .help = "How long an answer is kept at least, that there is nothing too." },
	{ .name = "max_ttl", .type = TYPE_TIME_MS, .max = TIME_MS_MAX, .fallback = "1d",
	  TO_GLOBAL(resolver.max_ttl_ms), .scopes = RESOLVER, .restart = true,
	  .help = "How long an answer is kept at most." },

	/* mta_sts { } */
	{ .name = "port", .type = TYPE_NUMBER, .min = 1, .max = UINT16_MAX, .fallback = "443",
	  TO_GLOBAL(sts.port), .scopes = STS, .restart = true,
	  .help = "Port of policy hosts; the standard knows no other than 443." },
	{ .name = "ca", .type = TYPE_TEXT, .max = PATH_LEN_MAX, TO_GLOBAL(sts.ca), .scopes = STS,
	  .restart = true,
	  .help = "PEM file of the roots that certificates of policy hosts may have; by default "
		  "those that the system trusts." },
	{ .name = "timeout", .type = TYPE_TIME_MS, .min = 100, .max = 600000, .fallback = "30s",
	  TO_GLOBAL(sts.timeout_ms), .scopes = STS, .restart = true,
	  .help = "How long a fetch may take, and how long mail waits for a policy." },
	{ .name = "max_fetches", .type = TYPE_NUMBER, .min = 1, .max = 16, .fallback = "2",
	  TO_GLOBAL(sts.max_fetches), .scopes = STS, .restart = true,
	  .help = "Fetches at a time; each takes a worker of the pool." },
	{ .name = "cache_entries", .type = TYPE_NUMBER, .max = 1000000, .fallback = "10000",
	  TO_GLOBAL(sts.cache_entries), .scopes = STS, .restart = true,
	  .help = "Policies that are kept." },

	/* group, agent { } */
	{ .name = "count", .type = TYPE_NUMBER, .min = 1, .max = 256, .fallback = "1",
	  TO_AGENT(count), .scopes = BIT(SCOPE_AGENT) | SINGLE_AGENTS, .restart = true,
	  .help = "How many of this kind." },
	{ .name = "count", .type = TYPE_NUMBER, .min = 1, .max = 256, .fallback = "4",
	  TO_AGENT(count), .scopes = BIT(SCOPE_POOL_AGENT), .restart = true,
	  .help = "Worker threads of the pool." },
	{ .name = "cores", .type = TYPE_CORES, .max = 1023, TO_AGENT(cores),
	  COUNT(struct agent_settings, core_count), .scopes = AGENTS, .restart = true,
	  .help = "The core of each one's thread; -1 is not pinned." },
	{ .name = "core", .type = TYPE_CORE, .max = 1023, TO_AGENT(core), .scopes = AGENTS,
	  .restart = true, .help = "The core of the thread of the only one." },
	{ .name = "group", .type = TYPE_TEXT, .max = 64, TO_AGENT(group), .scopes = AGENTS,
	  .restart = true,
	  .help = "The group whose thread it shares; by default each has its own." },
	{ .name = "backlog", .type = TYPE_NUMBER, .min = 1, .max = 1000000, .fallback = "1024",
	  TO_GLOBAL(pool_backlog), .scopes = BIT(SCOPE_POOL_AGENT), .restart = true,
	  .help = "Tasks that may wait for a worker." },
	{ .name = "core", .type = TYPE_CORE, .max = 1023, .fallback = "-1", TO_GROUP(core),
	  .scopes = GROUP, .restart = true, .help = "The core of the thread; -1 is not pinned." },
	{ .name = "idle", .type = TYPE_CHOICE, .choices = idle_choices, .fallback = "park",
	  TO_IDLE(strategy), .scopes = AGENTS | GROUP, .restart = true,
	  .help = "What the thread does when a whole duty cycle found no work." },
	{ .name = "spin", .type = TYPE_TIME_NS, .max = PAUSE_NS_MAX, .fallback = "50us",
	  TO_IDLE(spin_ns), .scopes = BIT(SCOPE_AGENT) | GROUP, .restart = true,
	  .help = "Idle strategy park: how long to look for work, at most, before asking the "
		  "kernel; it does so while work mostly comes sooner and no other thread needs "
		  "the core." },
	{ .name = "spin", .type = TYPE_TIME_NS, .max = PAUSE_NS_MAX, .fallback = "0",
	  TO_IDLE(spin_ns), .scopes = SERVICE, .restart = true,
	  .help = "Idle strategy park: how long to look for work, at most, before asking the "
		  "kernel; it does so while work mostly comes sooner and no other thread needs "
		  "the core." },
	{ .name = "coalesce", .type = TYPE_TIME_NS, .max = PAUSE_NS_MAX, .fallback = "0",
	  TO_IDLE(coalesce_ns), .scopes = BIT(SCOPE_AGENT) | GROUP, .restart = true,
	  .help = "Idle strategy park: after work the thread sleeps this long, whatever comes in, "
		  "to do more at once." },
	{ .name = "coalesce", .type = TYPE_TIME_NS, .max = PAUSE_NS_MAX, .fallback = "1ms",
	  TO_IDLE(coalesce_ns), .scopes = BIT(SCOPE_SERVICE_AGENT) | BIT(SCOPE_POOL_AGENT),
	  .restart = true,
	  .help = "Idle strategy park: after work the thread sleeps this long, whatever comes in, "
		  "to do more at once." },
	{ .name = "coalesce", .type = TYPE_TIME_NS, .max = PAUSE_NS_MAX, .fallback = "5ms",
	  TO_IDLE(coalesce_ns), .scopes = BIT(SCOPE_LOG_AGENT), .restart = true,
	  .help = "Idle strategy park: after work the thread sleeps this long, whatever comes in, "
		  "to do more at once." },
	{ .name = "max_spins", .type = TYPE_NUMBER, .max = 1000000, .fallback = "10",
	  TO_IDLE(max_spins), .scopes = AGENTS | GROUP, .restart = true,
	  .help = "Idle strategy backoff: pauses before it yields." },
	{ .name = "max_yields", .type = TYPE_NUMBER, .max = 1000000, .fallback = "20",
	  TO_IDLE(max_yields), .scopes = AGENTS | GROUP, .restart = true,
	  .help = "Idle strategy backoff: yields before it sleeps." },
	{ .name = "min_park", .type = TYPE_TIME_NS, .min = 1, .max = PAUSE_NS_MAX,
	  .fallback = "1us", TO_IDLE(min_park_ns), .scopes = AGENTS | GROUP, .restart = true,
	  .help = "Idle strategy backoff: its first sleep; each one is twice the last." },
	{ .name = "max_park", .type = TYPE_TIME_NS, .min = 1, .max = PAUSE_NS_MAX,
	  .fallback = "50ms", TO_IDLE(max_park_ns), .scopes = AGENTS | GROUP, .restart = true,
	  .help = "Idle strategy backoff: its longest sleep." },
	{ .name = "sleep", .type = TYPE_TIME_NS, .min = 1, .max = PAUSE_NS_MAX, .fallback = "1ms",
	  TO_IDLE(sleep_ns), .scopes = AGENTS | GROUP, .restart = true,
	  .help = "Idle strategy sleep: how long." },

	/* Sockets of listeners */
	{ .name = "enable", .type = TYPE_BOOLEAN, .fallback = "true", TO_LISTEN(enable),
	  .scopes = ESMTP | CONTROL | HTTP, .help = "false closes the socket." },
	{ .name = "listen_backlog", .type = TYPE_NUMBER, .min = 1, .max = 65535,
	  .fallback = "500", TO_LISTEN(options.backlog), .scopes = GLOBAL | ESMTP | CONTROL | HTTP,
	  .help = "Connections that may wait in the kernel to be accepted." },
	{ .name = "listener_sessions", .type = TYPE_NUMBER, .max = 1000000, .fallback = "0",
	  TO_LISTEN(options.max_connections), .scopes = GLOBAL | ESMTP | CONTROL | HTTP,
	  .help = "Connections of one listen at a time; 0 is no limit." },
	{ .name = "service_sessions", .type = TYPE_NUMBER, .max = 1000000, .fallback = "0",
	  TO_LISTEN(options.max_service_connections),
	  .scopes = GLOBAL | BIT(SCOPE_ESMTP_LISTENER) | BIT(SCOPE_CONTROL_LISTENER) |
		    BIT(SCOPE_HTTP_LISTENER),
	  .help = "Connections of all listens of a listener at a time; 0 is no limit." },
	{ .name = "max_connections_per_peer", .type = TYPE_NUMBER, .max = 1000000,
	  .fallback = "0", TO_LISTEN(options.max_connections_per_peer),
	  .scopes = GLOBAL | ESMTP | CONTROL | HTTP,
	  .help = "Connections of one listen from one address at a time; 0 is no limit." },
	{ .name = "file_mode", .type = TYPE_MODE, .max = 0777, .fallback = "0660",
	  TO_LISTEN(options.file_mode), .scopes = GLOBAL | ESMTP | CONTROL | HTTP,
	  .help = "Permissions of a Unix socket, in octal." },

	/* HTTP listeners, and those who are sent metrics */
	{ .name = "token", .type = TYPE_TEXT, .max = 1024, TO_HTTP(token), .scopes = HTTP,
	  .restart = true,
	  .help = "What clients have to know (Authorization: Bearer TOKEN); where others than this "
		  "machine can connect one has to be set." },
	{ .name = "token_file", .type = TYPE_TEXT, .max = PATH_LEN_MAX, TO_HTTP(token_file),
	  .scopes = HTTP, .restart = true,
	  .help = "A file whose first line is the token." },
	{ .name = "idle_time", .type = TYPE_TIME_MS, .min = 1000, .max = 86400000,
	  .fallback = "60s", TO_HTTP(idle_ms), .scopes = HTTP, .restart = true,
	  .help = "A client that asks nothing, and takes nothing of its answer, for so long is "
		  "dismissed; whole seconds." },
	{ .name = "max_header_size", .type = TYPE_SIZE, .min = KIB(4), .max = MIB(1),
	  .fallback = "16K", TO_HTTP(header_bytes), .scopes = HTTP, .restart = true,
	  .help = "Memory for the header of a request and that of its answer; a larger one is "
		  "refused." },
	{ .name = "max_requests", .type = TYPE_NUMBER, .min = 1, .max = 10000, .fallback = "64",
	  TO_HTTP(max_requests), .scopes = HTTP, .restart = true,
	  .help = "Requests of one listen under way at a time, but for those of events; others are "
		  "answered 503." },
	{ .name = "max_event_clients", .type = TYPE_NUMBER, .max = 10000, .fallback = "200",
	  TO_HTTP(max_event_clients), .scopes = HTTP, .restart = true,
	  .help = "Clients of one listen that follow events; others are answered 503." },
	{ .name = "metrics_top_domains", .type = TYPE_NUMBER, .max = 1000, .fallback = "20",
	  TO_GLOBAL(metrics_top_domains), .scopes = GLOBAL, .restart = true,
	  .help = "Domains that have metrics of their own, those with the most recipients "
		  "delivered, deferred, failed and queued; the rest is the domain \"other\"." },
	{ .name = "metrics_interval", .type = TYPE_TIME_MS, .min = 100, .max = 3600000,
	  .fallback = "1s", TO_GLOBAL(metrics_interval_ms), .scopes = GLOBAL, .restart = true,
	  .help = "How often events are sent, and how old numbers of domains and bindings may "
		  "be." },
	{ .name = "server", .type = TYPE_TEXT, .max = 256, TO_GLOBAL(graphite.server),
	  .fallback = "none", .scopes = GRAPHITE, .restart = true,
	  .help = "Address and port of a Graphite server (line protocol over TCP), or none." },
	{ .name = "interval", .type = TYPE_TIME_MS, .min = 100, .max = 86400000,
	  .fallback = "60s", TO_GLOBAL(graphite.interval_ms), .scopes = GRAPHITE, .restart = true,
	  .help = "How often it is sent metrics." },
	{ .name = "prefix", .type = TYPE_TEXT, .max = 256, TO_GLOBAL(graphite.prefix),
	  .scopes = GRAPHITE, .restart = true,
	  .help = "What their names begin with; by default flywheel. and the hostname with "
		  "underscores for its dots." },

	/* Clients of SMTP listeners */
	{ .name = "hostname", .type = TYPE_HOSTNAME, TO_SMTP(hostname), .scopes = CLIENT,
	  .help = "The name that greets the client; by default the global hostname." },
	{ .name = "banner", .type = TYPE_TEXT, .max = 200, .fallback = "\"ESMTP flywheel\"",
	  TO_SMTP(banner), .scopes = GLOBAL | CLIENT,
	  .help = "What follows the hostname in the greeting." },
	{ .name = "relay_hosts", .type = TYPE_NETWORKS,
	  .fallback = "( \"127.0.0.0/8\" \"::1/128\" )", TO_SMTP(relay_hosts),
	  COUNT(struct smtp_options, relay_host_count), .scopes = GLOBAL | CLIENT,
	  .help = "Networks that may send to any domain." },
	{ .name = "relay_domains", .type = TYPE_DOMAINS, .fallback = "( )",
	  TO_SMTP(relay_domains), COUNT(struct smtp_options, relay_domain_count),
	  .scopes = GLOBAL | CLIENT,
	  .help = "Domains that anybody may send to; .example.com is all below, * is any." },
	{ .name = "bounce_domains", .type = TYPE_DOMAINS, .fallback = "( )",
	  TO_SMTP(bounce_domains), COUNT(struct smtp_options, bounce_domain_count),
	  .scopes = GLOBAL | CLIENT,
	  .help = "Domains that bounces and complaints come back to: mail for them is taken from "
		  "anybody, understood, logged and then over." },
	{ .name = "max_message_size", .type = TYPE_SIZE, .min = KIB(1), .max = GIB(2),
	  TO_SMTP(max_message_bytes), .scopes = GLOBAL | CLIENT,
	  .help = "The largest message; by default 32M, or less where the spool or the reception "
		  "budget is small." },
	{ .name = "max_line_length", .type = TYPE_SIZE, .min = 1000, .max = MIB(1),
	  .fallback = "8K", TO_SMTP(max_line_bytes), .scopes = GLOBAL | CLIENT,
	  .help = "The longest line of a message, with its line end." },
	{ .name = "max_recipients_per_message", .type = TYPE_NUMBER, .min = 1, .max = 100000,
	  .fallback = "1000", TO_SMTP(max_recipients_per_message), .scopes = GLOBAL | CLIENT,
	  .help = "Recipients in one transaction." },
	{ .name = "max_idle_commands", .type = TYPE_NUMBER, .min = 1, .max = 1000000,
	  .fallback = "100", TO_SMTP(max_idle_commands), .scopes = GLOBAL | CLIENT,
	  .help = "Commands in a row that move no mail." },
	{ .name = "max_receptions_per_connection", .type = TYPE_NUMBER, .max = UINT32_MAX,
	  .fallback = "0", TO_SMTP(max_receptions_per_connection), .scopes = GLOBAL | CLIENT,
	  .help = "Messages of one connection, then 421; 0 is no limit." },
	{ .name = "idle_time", .type = TYPE_TIME_MS, .min = 1, .max = TIME_MS_MAX,
	  .fallback = "300s", TO_SMTP(idle_timeout_ms), .scopes = GLOBAL | CLIENT,
	  .help = "A client that is silent for longer is dismissed." },
	{ .name = "session_timeout", .type = TYPE_TIME_MS, .min = 1, .max = TIME_MS_MAX,
	  .fallback = "1h", TO_SMTP(session_timeout_ms), .scopes = GLOBAL | CLIENT,
	  .help = "A session that is longer is dismissed after its transaction." },
	{ .name = "bare_lf", .type = TYPE_CHOICE, .choices = bare_lf_choices,
	  .fallback = "reject", TO_SMTP(bare_lf), .scopes = GLOBAL | CLIENT,
	  .help = "What to do with a line feed without its carriage return." },
	{ .name = "durability", .type = TYPE_CHOICE, .choices = durability_choices,
	  TO_SMTP(durability), .scopes = GLOBAL | CLIENT,
	  .help = "What an accepted message survives; by default what the spool scope says." },
	{ .name = "auth_file", .type = TYPE_TEXT, .max = PATH_LEN_MAX, TO_SMTP(auth_file),
	  .scopes = GLOBAL | CLIENT,
	  .help = "File of users, lines user:hash, who may authenticate (AUTH) and then send to "
		  "any domain; hashes by argon2id or crypt, such as mkpasswd makes." },
	{ .name = "allow_plain_auth", .type = TYPE_BOOLEAN, .fallback = "false",
	  TO_SMTP(allow_plain_auth), .scopes = GLOBAL | CLIENT,
	  .help = "AUTH without TLS, too: for networks that nobody listens to." },
	{ .name = "require_authentication", .type = TYPE_BOOLEAN, .fallback = "false",
	  TO_SMTP(require_authentication), .scopes = GLOBAL | CLIENT,
	  .help = "No mail is taken from clients that have not authenticated." },
	{ .name = "max_auth_failures", .type = TYPE_RATE, .max = 1000000,
	  .fallback = "10/min", TO_SMTP(max_auth_failures), .scopes = GLOBAL | CLIENT,
	  .help = "Failures to authenticate from one address (IPv6: /64), as each scheduler counts "
		  "them; above it attempts are refused. none is no limit." },
	{ .name = "xclient_hosts", .type = TYPE_NETWORKS, .fallback = "( )",
	  TO_SMTP(xclient_hosts), COUNT(struct smtp_options, xclient_host_count),
	  .scopes = GLOBAL | CLIENT,
	  .help = "Networks of proxies, which are believed whose a connection is: by XCLIENT, and "
		  "by proxy_protocol." },
	{ .name = "proxy_protocol", .type = TYPE_BOOLEAN, .fallback = "false",
	  TO_SMTP(proxy_protocol), .scopes = ESMTP,
	  .help = "Connections begin with a header of the PROXY protocol, version 1 or 2, and come "
		  "from xclient_hosts only." },

	{ .name = "binding", .type = TYPE_TEXT, .max = ENVELOPE_BINDING_MAX, TO_SMTP(binding),
	  .scopes = GLOBAL | CLIENT,
	  .help = "The binding, or the binding_group whose turn decides, that clients' mail is sent "
		  "by; what binding_header names goes before it." },
	{ .name = "binding_header", .type = TYPE_FIELD, .fallback = "X-Binding",
	  TO_SMTP(binding_header), .scopes = GLOBAL | CLIENT,
	  .help = "Header field in which clients that may send to any domain name a binding or a "
		  "binding_group; it is taken out of the mail. \"\": none." },
	{ .name = "dkim_sign", .type = TYPE_BOOLEAN, .fallback = "true", TO_SMTP(dkim_sign),
	  .scopes = GLOBAL | CLIENT,
	  .help = "Mail is signed, if there is a dkim scope for the domain of its From field." },

	/* dkim { } */
	{ .name = "selector", .type = TYPE_HOSTNAME, TO_DKIM(selector), .scopes = DKIM,
	  .help = "Under which name the key is published: SELECTOR._domainkey.DOMAIN; a signature "
		  "scope's own name if not said." },
	{ .name = "key", .type = TYPE_TEXT, .max = PATH_LEN_MAX, TO_DKIM(key), .scopes = DKIM,
	  .help = "File with the private key, RSA or Ed25519, in PEM; read with the "
		  "configuration." },
	{ .name = "canonicalization", .type = TYPE_CHOICE, .choices = canon_choices,
	  .fallback = "relaxed/relaxed", TO_DKIM(canonicalization), .scopes = DKIM,
	  .help = "What may happen on the way to header and body: white space may change when "
		  "relaxed, nothing when simple." },
	{ .name = "headers", .type = TYPE_FIELDS,
	  .fallback = "( from sender reply-to subject date message-id to cc mime-version "
		      "content-type content-transfer-encoding in-reply-to references list-id "
		      "list-help list-unsubscribe list-unsubscribe-post list-subscribe list-post "
		      "list-owner )",
	  TO_DKIM(fields), COUNT(struct dkim_settings, field_count), .scopes = DKIM,
	  .help = "Header fields that are signed, as often as they are there." },
	{ .name = "oversign", .type = TYPE_FIELDS, .fallback = "( from )", TO_DKIM(oversigned),
	  COUNT(struct dkim_settings, oversigned_count), .scopes = DKIM,
	  .help = "Header fields that are signed so that none can be added." },
	{ .name = "expiration", .type = TYPE_TIME_MS, .min = 1000, .max = TIME_MS_MAX,
	  TO_DKIM(expiration_ms), .scopes = DKIM,
	  .help = "How long a signature is good for; without it, for ever." },

	{ .name = "tls_certificate", .type = TYPE_TEXT, .max = PATH_LEN_MAX,
	  TO_SMTP(tls_certificate), .scopes = GLOBAL | CLIENT,
	  .help = "PEM file of the certificate, with its chain; STARTTLS is offered where there "
		  "is one." },
	{ .name = "tls_key", .type = TYPE_TEXT, .max = PATH_LEN_MAX, TO_SMTP(tls_key),
	  .scopes = GLOBAL | CLIENT,
	  .help = "PEM file of its key; by default the certificate's file." },
	{ .name = "tls_ciphers", .type = TYPE_TEXT, .max = 1000, TO_SMTP(tls_ciphers),
	  .scopes = GLOBAL | CLIENT,
	  .help = "What clients may choose from, as ciphers(1) writes it, with the names of TLS "
		  "1.3; by default what has forward secrecy and AEAD." },
	{ .name = "tls_protocols", .type = TYPE_TEXT, .max = 100, TO_SMTP(tls_protocols),
	  .scopes = GLOBAL | CLIENT,
	  .help = "TLSv1.2, TLSv1.3, or by default both: TLSv1.2:TLSv1.3." },
	{ .name = "tls_client_ca", .type = TYPE_TEXT, .max = PATH_LEN_MAX, TO_SMTP(tls_client_ca),
	  .scopes = GLOBAL | CLIENT,
	  .help = "PEM file of the roots of clients' certificates; without it none is asked "
		  "for." },
	{ .name = "tls_verify_mode", .type = TYPE_CHOICE, .choices = verify_mode_choices,
	  .fallback = "optional", TO_SMTP(tls_verify_mode), .scopes = GLOBAL | CLIENT,
	  .help = "With tls_client_ca: a client may show a certificate, is not asked, or is "
		  "refused without a good one." },
	{ .name = "tls_verified_peer_can_relay", .type = TYPE_BOOLEAN, .fallback = "false",
	  TO_SMTP(tls_verified_peer_can_relay), .scopes = GLOBAL | CLIENT,
	  .help = "A client with a certificate of tls_client_ca may send to any domain." },
	{ .name = "use_ssl", .type = TYPE_BOOLEAN, .fallback = "false", TO_SMTP(use_ssl),
	  .scopes = GLOBAL | CLIENT,
	  .help = "TLS from the first byte, instead of STARTTLS." },
	{ .name = "starttls_injection_policy", .type = TYPE_CHOICE,
	  .choices = injection_choices, .fallback = "reject", TO_SMTP(starttls_injection),
	  .scopes = GLOBAL | CLIENT,
	  .help = "What to do with commands that came with STARTTLS, in plain text: refuse, "
		  "forget, or obey them after the handshake." },

	/* tls_certificate "mx.example.com" { } */
	{ .name = "certificate", .type = TYPE_TEXT, .max = PATH_LEN_MAX, TO_TLS_PAIR(certificate),
	  .scopes = BIT(SCOPE_TLS_CERTIFICATE),
	  .help = "PEM file of the certificate, with its chain." },
	{ .name = "key", .type = TYPE_TEXT, .max = PATH_LEN_MAX, TO_TLS_PAIR(key),
	  .scopes = BIT(SCOPE_TLS_CERTIFICATE),
	  .help = "PEM file of its key; by default the certificate's file." },

	/* binding { } */
	{ .name = "weight", .type = TYPE_NUMBER, .min = 1, .max = 1000000, .fallback = NULL,
	  TO_BINDING(weight), .scopes = BIT(SCOPE_BINDING), .restart = true,
	  .help = "Its share of the mail that its binding_group is given, beside the others'; 1 if "
		  "not said." },

	/* Outbound */
	{ .name = "bind_address", .type = TYPE_BIND_ADDRESSES, TO_DOMAIN(bind_addresses),
	  COUNT(struct domain_options, bind_address_count),
	  .scopes = GLOBAL | BIT(SCOPE_BINDING_GROUP) | BIT(SCOPE_BINDING),
	  .help = "Address that connections come from; one IPv4 and one IPv6 address are possible. "
		  "Next hops of a family without one are left out." },
	{ .name = "gateway", .type = TYPE_GATEWAYS, .max = UINT16_MAX, TO_DOMAIN(gateways),
	  COUNT(struct domain_options, gateway_count), .scopes = ROUTED,
	  .help = "Next hops instead of the domain's mail exchangers; a lower pref is tried first." },
	{ .name = "remote_smtp_port", .type = TYPE_NUMBER, .min = 1, .max = UINT16_MAX,
	  .fallback = "25", TO_DOMAIN(remote_smtp_port), .scopes = OUTBOUND,
	  .help = "Port of next hops that do not name one." },
	{ .name = "address_family", .type = TYPE_CHOICE, .choices = family_choices,
	  .fallback = "any", TO_DOMAIN(address_family), .scopes = OUTBOUND,
	  .help = "Which addresses of next hops with a name are used." },
	{ .name = "max_outbound_connections", .type = TYPE_NUMBER, .min = 1, .max = 1000000,
	  .fallback = "32", TO_DOMAIN(max_outbound_connections), .scopes = OUTBOUND,
	  .help = "Connections to one site by one binding at a time; a site is an MX set, or a "
		  "provider, or a domain with mx_rollup = false. In a domain scope: those for "
		  "that domain, within them." },
	{ .name = "mx_rollup", .type = TYPE_BOOLEAN, .fallback = "true", TO_DOMAIN(mx_rollup),
	  .scopes = OUTBOUND,
	  .help = "Domains with the same mail exchangers, or the same provider, share "
		  "connections and limits." },
	{ .name = "mx_suffix", .type = TYPE_DOMAINS, TO_DOMAIN(mx_suffixes),
	  COUNT(struct domain_options, mx_suffix_count), .scopes = BIT(SCOPE_PROVIDER),
	  .help = "Names of mail exchangers; a domain is the provider's whose exchangers of best "
		  "preference all match." },
	{ .name = "max_deliveries_per_connection", .type = TYPE_NUMBER, .max = UINT32_MAX,
	  .fallback = "0", TO_DOMAIN(max_deliveries_per_connection), .scopes = OUTBOUND,
	  .help = "Successful deliveries, then the connection is closed; 0 is no limit." },
	{ .name = "max_recipients_per_batch", .type = TYPE_NUMBER, .min = 1, .max = 128,
	  .fallback = "100", TO_DOMAIN(max_recipients_per_batch), .scopes = OUTBOUND,
	  .help = "Recipients in one transaction." },
	{ .name = "retry_interval", .type = TYPE_TIME_MS, .min = 1, .max = TIME_MS_MAX,
	  .fallback = "1200s", TO_DOMAIN(retry_interval_ms), .scopes = OUTBOUND,
	  .help = "Time to the first retry; each one waits twice as long as the last." },
	{ .name = "max_retry_interval", .type = TYPE_TIME_MS, .min = 1, .max = TIME_MS_MAX,
	  .fallback = "43200s", TO_DOMAIN(max_retry_interval_ms), .scopes = OUTBOUND,
	  .help = "The longest time between two attempts." },
	{ .name = "message_expiration", .type = TYPE_TIME_MS, .min = 1, .max = TIME_MS_MAX,
	  .fallback = "86400s", TO_DOMAIN(message_expiration_ms), .scopes = OUTBOUND,
	  .help = "Mail that is older fails for good." },
	{ .name = "connect_timeout", .type = TYPE_TIME_MS, .min = 1, .max = TIME_MS_MAX,
	  .fallback = "300s", TO_DOMAIN(connect_timeout_ms), .scopes = OUTBOUND,
	  .help = "From the connect to the greeting." },
	{ .name = "ehlo_timeout", .type = TYPE_TIME_MS, .min = 1, .max = TIME_MS_MAX,
	  .fallback = "300s", TO_DOMAIN(ehlo_timeout_ms), .scopes = OUTBOUND,
	  .help = "For the answer to EHLO or HELO." },
	{ .name = "mailfrom_timeout", .type = TYPE_TIME_MS, .min = 1, .max = TIME_MS_MAX,
	  .fallback = "300s", TO_DOMAIN(mailfrom_timeout_ms), .scopes = OUTBOUND,
	  .help = "For the answer to MAIL FROM." },
	{ .name = "rcptto_timeout", .type = TYPE_TIME_MS, .min = 1, .max = TIME_MS_MAX,
	  .fallback = "300s", TO_DOMAIN(rcptto_timeout_ms), .scopes = OUTBOUND,
	  .help = "For the answer to RCPT TO." },
	{ .name = "body_timeout", .type = TYPE_TIME_MS, .min = 1, .max = TIME_MS_MAX,
	  .fallback = "600s", TO_DOMAIN(body_timeout_ms), .scopes = OUTBOUND,
	  .help = "For DATA, each part of the body, and the answer to the final dot." },
	{ .name = "rset_timeout", .type = TYPE_TIME_MS, .min = 1, .max = TIME_MS_MAX,
	  .fallback = "30s", TO_DOMAIN(rset_timeout_ms), .scopes = OUTBOUND,
	  .help = "For the answer to RSET and QUIT." },
	{ .name = "idle_timeout", .type = TYPE_TIME_MS, .max = TIME_MS_MAX, .fallback = "5s",
	  TO_DOMAIN(idle_timeout_ms), .scopes = OUTBOUND,
	  .help = "How long an idle connection waits for the next message." },
	{ .name = "host_failure_retry", .type = TYPE_TIME_MS, .min = 100, .max = TIME_MS_MAX,
	  .fallback = "120s", TO_DOMAIN(host_failure_retry_ms), .scopes = OUTBOUND,
	  .help = "How long a host that refused a connection is left alone." },
	{ .name = "tls", .type = TYPE_CHOICE, .choices = tls_choices,
	  .fallback = "dane-or-opportunistic", TO_DOMAIN(tls), .scopes = OUTBOUND,
	  .help = "Never; where it is offered and works; always, or not at all; the same with a "
		  "certificate that is verified; the same with one that TLSA records prove (DANE), "
		  "or that where there are some." },
	{ .name = "tls_ca", .type = TYPE_TLS_CA, .max = PATH_LEN_MAX, TO_DOMAIN(tls_client),
	  .scopes = OUTBOUND,
	  .help = "For tls = verify and MTA-STS: PEM file of the trusted roots; by default those "
		  "that the system trusts." },
	{ .name = "mta_sts", .type = TYPE_BOOLEAN, .fallback = "true", TO_DOMAIN(mta_sts),
	  .scopes = OUTBOUND,
	  .help = "A domain's policy of MTA-STS is asked for and obeyed; not of one with a "
		  "gateway, and not where tls is no or dane." },
	{ .name = "tls_failure_retry", .type = TYPE_TIME_MS, .min = 1, .max = TIME_MS_MAX,
	  .fallback = "1h", TO_DOMAIN(tls_failure_retry_ms), .scopes = OUTBOUND,
	  .help = "How long a host with which TLS failed gets plain text, where tls allows "
		  "that." },
	{ .name = "suspend_delivery", .type = TYPE_BOOLEAN, .fallback = "false",
	  TO_DOMAIN(suspend_delivery), .scopes = OUTBOUND,
	  .help = "Mail is accepted and kept, not delivered." },
	{ .name = "generate_delay_dsn", .type = TYPE_BOOLEAN, .fallback = "false",
	  TO_DOMAIN(generate_delay_dsn), .scopes = OUTBOUND,
	  .help = "Senders who asked for nothing are told once that their mail waits." },
	{ .name = "delay_dsn_retry_interval", .type = TYPE_TIME_MS, .min = 1, .max = TIME_MS_MAX,
	  .fallback = "3600s", TO_DOMAIN(delay_dsn_retry_interval_ms), .scopes = OUTBOUND,
	  .help = "After how long senders are told that mail waits." },
	{ .name = "generate_bounces", .type = TYPE_BOOLEAN, .fallback = "true",
	  TO_DOMAIN(generate_bounces), .scopes = OUTBOUND,
	  .help = "Senders are told about mail that failed." },
	{ .name = "use_chunking", .type = TYPE_BOOLEAN, .fallback = "true",
	  TO_DOMAIN(use_chunking), .scopes = OUTBOUND,
	  .help = "Bodies go by BDAT where the next hop offers CHUNKING." },
	{ .name = "downgrade_8bit", .type = TYPE_CHOICE, .choices = downgrade_choices,
	  .fallback = "send", TO_DOMAIN(downgrade_8bit), .scopes = OUTBOUND,
	  .help = "What to do with a body of 8 bits where the next hop does not offer 8BITMIME: "
		  "send it as it is, or bounce it (5.6.3)." },
	{ .name = "ehlo_hostname", .type = TYPE_HOSTNAME, TO_DOMAIN(ehlo_hostname),
	  .scopes = OUTBOUND, .help = "The name in EHLO; by default the global hostname." },
	{ .name = "mailerdaemon", .type = TYPE_ADDRESS, TO_DOMAIN(mailerdaemon),
	  .scopes = OUTBOUND,
	  .help = "From: address of notifications; by default mailer-daemon@ the global "
		  "hostname." },
	{ .name = "outbound_throttle_messages", .type = TYPE_THROTTLE, .min = 1,
	  .max = 1000000000, TO_DOMAIN(throttle_messages), .scopes = OUTBOUND,
	  .help = "Deliveries a second, shared by all that fall back to the scope that sets "
		  "it." },
	{ .name = "outbound_throttle_connections", .type = TYPE_THROTTLE, .min = 1,
	  .max = 1000000000, TO_DOMAIN(throttle_connections), .scopes = OUTBOUND,
	  .help = "New connections a second, shared like outbound_throttle_messages." },
};
/* clang-format on */

enum {
	OPTION_COUNT = sizeof(schema_options) / sizeof(schema_options[0]),
	SCOPE_ROW_COUNT = sizeof(schema_scope_rows) / sizeof(schema_scope_rows[0]),
};
_Static_assert((int)OPTION_COUNT <= (int)SCHEMA_OPTIONS_MAX, "struct schema_set is too small");
_Static_assert(SCOPES <= 32, "scopes are bits of a word");

READONLY
struct type_row {
	const char *name;
	const char *unit;
	/* What a value looks like; a range may follow. */
	const char *expectation;
};

static const struct type_row types[TYPES] = {
	[TYPE_BOOLEAN] = {"boolean", "-", "true or false"},
	[TYPE_NUMBER] = {"number", "-", "a number"},
	[TYPE_POWER_OF_TWO] = {"number", "-", "a power of two"},
	[TYPE_PERCENT] = {"number", "percent", "a percentage"},
	[TYPE_MODE] = {"mode", "octal", "an octal mode such as 0660"},
	[TYPE_SIZE] = {"size", "bytes, K, M, G, T", "a size such as 16M,"},
	[TYPE_TIME_MS] = {"time", "seconds, or ms, s, m, h, d", "a time such as 30s,"},
	[TYPE_TIME_NS] = {"time", "seconds, or ns, us, ms, s, m, h, d", "a time such as 50us,"},
	[TYPE_CHOICE] = {"choice", "-", NULL},
	[TYPE_TEXT] = {"text", "-", "text"},
	[TYPE_HOSTNAME] = {"hostname", "-", "a host name such as \"mta1.example.com\""},
	[TYPE_ADDRESS] = {"address", "-", "an address such as \"mailer-daemon@example.com\""},
	[TYPE_CORE] = {"core", "-", "the number of a core, or -1"},
	[TYPE_CORES] = {"cores", "-", "a list of core numbers such as ( 0 1 )"},
	[TYPE_NETWORKS] = {"networks", "-",
			   "a list of networks such as ( \"10.0.0.0/8\" \"::1\" )"},
	[TYPE_DOMAINS] = {"domains", "-",
			  "a list of domains such as ( \"example.com\" \".example.net\" )"},
	[TYPE_NAME_SERVERS] = {"name servers", "-",
			       "a list of name servers such as ( \"192.0.2.1\" \"::1@5353\" )"},
	[TYPE_GATEWAYS] = {"gateways", "-",
			   "next hops such as \"mx.example.com:25?pref=10\" or \"[::1]:25\""},
	[TYPE_TLS_CA] = {"path", "-", "a file of PEM certificates"},
	[TYPE_THROTTLE] = {"throttle", "per second, or N/sec, N/min, N/hour, N/SECONDS",
			   "a rate such as 50, 300/min or 100/60, or none"},
	[TYPE_FIELDS] = {"fields", "-", "a list of header field names such as ( from subject )"},
	[TYPE_FIELD] = {"field", "-", "the name of a header field such as X-Binding, or \"\""},
	[TYPE_BIND_ADDRESSES] =
		{"addresses", "-",
		 "an address such as \"192.0.2.1\", or one of each family in a list"},
	[TYPE_DESTINATIONS] = {"destinations", "-",
			       "destinations such as ( \"file:mainlog\" \"json:events\" )"},
	[TYPE_DESTINATION] = {"destination", "-", "a destination such as \"file:my.log\""},
	[TYPE_SANITIZERS] = {"rules", "-",
			     "rules such as ( special_characters non_printable \"tr/@/_/\" )"},
	[TYPE_RATE] = {"rate", "per second, or N/sec, N/min, N/hour, N/SECONDS",
		       "a rate such as 10/min or 100/60, or none"},
};

uint32_t schema_option_count(void)
{
	return OPTION_COUNT;
}

const struct schema_option *schema_option_find(const char *name, enum schema_scope scope)
{
	for (const struct schema_option *o = schema_options; o < schema_options + OPTION_COUNT;
	     o++) {
		if ((o->scopes & BIT(scope)) != 0 && word_same(o->name, name)) {
			return o;
		}
	}
	return NULL;
}

static bool has_word(const char *const *words, const char *word)
{
	for (; words != NULL && *words != NULL; words++) {
		if (strcmp(*words, word) == 0) {
			return true;
		}
	}
	return false;
}

static bool suits(const struct schema_scope_row *row, const char *instance)
{
	switch (row->instance) {
	case INSTANCE_NONE:
		return instance == NULL;
	case INSTANCE_REQUIRED:
		return instance != NULL &&
		       (row->instances == NULL || has_word(row->instances, instance));
	case INSTANCE_OPTIONAL:
		break;
	}
	return true;
}

const struct schema_scope_row *schema_scope_find(const char *name, const char *instance,
						 enum schema_scope parent)
{
	for (size_t i = 0; i < SCOPE_ROW_COUNT; i++) {
		const struct schema_scope_row *row = &schema_scope_rows[i];
		if ((row->parents & BIT(parent)) != 0 && word_same(row->name, name) &&
		    suits(row, instance)) {
			return row;
		}
	}
	return NULL;
}

uint32_t schema_scope_row_count(void)
{
	return SCOPE_ROW_COUNT;
}

const char *schema_type_name(enum schema_type type)
{
	return types[type].name;
}

const char *schema_type_unit(enum schema_type type)
{
	return types[type].unit;
}

static void expect_choice(const struct schema_option *option, char *text, size_t size)
{
	size_t used = (size_t)snprintf(text, size, "one of");
	for (const char *const *c = option->choices; *c != NULL && used < size; c++) {
		used += (size_t)snprintf(text + used, size - used, "%s %s",
					 c == option->choices ? "" : ",", *c);
	}
}

/* The ends of the range, in the words that the option itself would be written in. */
static void format_limit(const struct schema_option *option, uint64_t limit, char *text,
			 size_t size)
{
	if (option->type == TYPE_SIZE) {
		word_format_size(limit, text, size);
	} else if (option->type == TYPE_TIME_MS) {
		word_format_time(limit * NS_PER_MS, text, size);
	} else if (option->type == TYPE_TIME_NS) {
		word_format_time(limit, text, size);
	} else {
		snprintf(text, size, "%" PRIu64, limit);
	}
}

const char *schema_expectation(const struct schema_option *option, char *text, size_t size)
{
	char min[32];
	char max[32];
	switch (option->type) {
	case TYPE_NUMBER:
	case TYPE_POWER_OF_TWO:
	case TYPE_PERCENT:
	case TYPE_SIZE:
	case TYPE_TIME_MS:
	case TYPE_TIME_NS:
		format_limit(option, option->min, min, sizeof(min));
		format_limit(option, option->max, max, sizeof(max));
		snprintf(text, size, "%s from %s to %s", types[option->type].expectation, min, max);
		break;
	case TYPE_TEXT:
		snprintf(text, size, "1 to %" PRIu64 " bytes of text", option->max);
		break;
	case TYPE_CHOICE:
		expect_choice(option, text, size);
		break;
	default:
		snprintf(text, size, "%s", types[option->type].expectation);
	}
	return text;
}
