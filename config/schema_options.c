#include "config/schema_rows.h"
#include "core/mail/envelope.h"

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
/* As enum jlog_safety. */
static const char *const journal_sync_choices[] = {"never", "segment", "batch", NULL};
static const char *const multiplexor_choices[] = {"auto", "uring", "epoll", "poll", NULL};
static const char *const resolver_mode_choices[] = {"forward", "recursive", NULL};
static const char *const family_choices[] = {"any", "ipv4", "ipv6", NULL};
static const char *const downgrade_choices[] = {"send", "bounce", NULL};
static const char *const bare_lf_choices[] = {"reject", "accept_as_data", NULL};

/* As canons[] of dkim.c knows them. */
static const char *const canon_choices[] = {"relaxed/relaxed", "relaxed/simple", "simple/relaxed",
					    "simple/simple", NULL};

/* clang-format off */
#define LOG_ROW(word, log, what) \
	{ .name = word, .type = TYPE_DESTINATIONS, .fallback = "( \"file:" word "log\" )", \
	  TO_GLOBAL(logs[log].names), COUNT(struct global_options, logs[log].count), \
	  .scopes = LOG, .restart = true, \
	  .help = "Destinations of the " what ": file:NAME or jlog:NAME as text, json:NAME as " \
		  "JSON; none: it is off." }
#define CUSTOM_ROWS(word, kind, what) \
	{ .name = word "_logfile", .type = TYPE_DESTINATION, TO_CUSTOM(logfile[kind]), \
	  .scopes = CUSTOM, .restart = true, \
	  .help = "Where " what " go; by default the mainlog." }, \
	{ .name = word "_format", .type = TYPE_TEXT, .max = 4096, TO_CUSTOM(format[kind]), \
	  .scopes = CUSTOM, .restart = true, \
	  .help = "A line for " what ", with macros; without one they are not logged." }

/* One option is one paragraph. */
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
	  .fallback = "100ms", TO_GLOBAL(stall_ns), .scopes = GLOBAL, .restart = true,
	  .help = "A longer duty cycle of an agent is counted as a stall." },
	{ .name = "watchdog_stall", .type = TYPE_TIME_MS, .max = TIME_MS_MAX, .fallback = "10s",
	  TO_GLOBAL(watchdog_stall_ms), .scopes = GLOBAL, .restart = true,
	  .help = "After how long in one duty cycle a thread's stack is printed; 0: none "
		  "is, and the service manager is told that all is well, whatever is. Threads of the pool may take as long as they like." },
	{ .name = "watchdog_abort", .type = TYPE_TIME_MS, .max = TIME_MS_MAX, .fallback = "0",
	  TO_GLOBAL(watchdog_abort_ms), .scopes = GLOBAL, .restart = true,
	  .help = "After how long of that the program is aborted, for a restart; not before "
		  "watchdog_stall; 0: never." },
	{ .name = "bounce_rules", .type = TYPE_TEXT, .max = PATH_LEN_MAX,
	  TO_GLOBAL(bounce_rules_path), .scopes = GLOBAL, .restart = true,
	  .help = "File of the rules that tell what kind of failure a reply means; by default "
		  "those that the program has built in." },

	/* scriptlet { } */
	{ .name = "source", .type = TYPE_TEXT, .max = PATH_LEN_MAX, TO_SCRIPT(source),
	  .scopes = BIT(SCOPE_SCRIPT),
	  .help = "File of the script, relative to that of the configuration." },
	{ .name = "max_instructions", .type = TYPE_NUMBER, .min = 10000, .max = 1000000000,
	  .fallback = "1000000", TO_GLOBAL(policy_instructions),
	  .scopes = BIT(SCOPE_SCRIPTLET),
	  .help = "What one call of a script may take: with more it is stopped, and the client "
		  "gets 451." },
	{ .name = "max_memory", .type = TYPE_SIZE, .min = MIB(2), .max = GIB(64),
	  .fallback = "64M", TO_GLOBAL(policy_memory_bytes), .scopes = BIT(SCOPE_SCRIPTLET),
	  .help = "What the scripts of one scheduler may hold, in all." },

	/* datasource "NAME" { } */
	{ .name = "uri", .type = TYPE_TEXT, .max = PATH_LEN_MAX, TO_SOURCE(uri),
	  .scopes = BIT(SCOPE_DATASOURCE), .restart = true, .password_after = "redis:",
	  .help = "The database: sqlite:PATH, or redis:[PASSWORD@]HOST[:PORT][/DATABASE]; --dump "
		  "leaves the password out." },
	{ .name = "max_rows", .type = TYPE_NUMBER, .min = 1, .max = 1000000, .fallback = "100",
	  TO_SOURCE(max_rows), .scopes = BIT(SCOPE_DATASOURCE), .restart = true,
	  .help = "Rows of one answer; what is beyond is left out." },
	{ .name = "max_connections", .type = TYPE_NUMBER, .min = 1, .max = 64, .fallback = "4",
	  TO_SOURCE(max_connections), .scopes = BIT(SCOPE_DATASOURCE), .restart = true,
	  .help = "Connections of one scheduler to the database; who finds none free waits." },
	{ .name = "query_timeout", .type = TYPE_TIME_MS, .min = 1, .max = 600000,
	  .fallback = "10s", TO_SOURCE(timeout_ms), .scopes = BIT(SCOPE_DATASOURCE),
	  .restart = true, .help = "For a connection to be made, and for each query." },

	/* inbound_audit { } */
	{ .name = "monitors", .type = TYPE_MONITORS, .max = INBOUND_MONITORS_MAX, .fallback = "( )",
	  TO_GLOBAL(monitors), COUNT(struct global_options, monitor_count),
	  .scopes = BIT(SCOPE_INBOUND_AUDIT), .restart = true,
	  .help = "What msys.audit counts connections, receptions and rejections in: windows of "
		  "so many seconds, and how many are kept beside the one that goes on." },

	/* spool { } */
	{ .name = "path", .type = TYPE_TEXT, .max = PATH_LEN_MAX,
	  .fallback = "/var/spool/flywheel", TO_GLOBAL(spool_path), .scopes = SPOOL,
	  .restart = true, .help = "Folder of the spool." },
	{ .name = "segment_size", .type = TYPE_SIZE, .min = MIB(1), .max = GIB(4),
	  .fallback = "256M", TO_GLOBAL(spool_segment_bytes), .scopes = SPOOL, .restart = true,
	  .help = "Size of one segment file; no message is larger than half of it." },
	{ .name = "min_free", .type = TYPE_SIZE, .max = GIB(65536), .fallback = "256M",
	  TO_GLOBAL(spool_min_free_bytes), .scopes = SPOOL, .restart = true,
	  .help = "New mail is put off with 452 while the file system has less free." },
	{ .name = "compact_below", .type = TYPE_PERCENT, .max = 90, .fallback = "25",
	  TO_GLOBAL(spool_compact_percent), .scopes = SPOOL, .restart = true,
	  .help = "Segments with a smaller share of live bytes are compacted." },
	{ .name = "spare_segments", .type = TYPE_NUMBER, .max = 1024, .fallback = "2",
	  TO_GLOBAL(spool_spare_segments), .scopes = SPOOL, .restart = true,
	  .help = "Unused segments kept ready for each spool writer." },
	{ .name = "durability", .type = TYPE_CHOICE, .choices = durability_choices,
	  .fallback = "synced", TO_GLOBAL(durability), .scopes = SPOOL,
	  .help = "What an accepted message survives, unless its listener says otherwise: synced "
		  "a power cut, cached the end of the process, memory neither." },

	/* log { } */
	{ .name = "path", .type = TYPE_TEXT, .max = PATH_LEN_MAX, .fallback = "/var/log/flywheel",
	  TO_GLOBAL(log_path), .scopes = LOG, .restart = true, .help = "Folder of the logs." },
	{ .name = "heartbeat", .type = TYPE_TIME_MS, .min = 10, .max = TIME_MS_MAX,
	  .fallback = "60s", TO_GLOBAL(log_heartbeat_ms), .scopes = LOG, .restart = true,
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

	LOG_ROW("main", LOG_MAIN, "main log"),
	LOG_ROW("bounce", LOG_BOUNCE, "bounce log"),
	LOG_ROW("reject", LOG_REJECT, "reject log"),
	LOG_ROW("fbl", LOG_FEEDBACK, "feedback log"),
	{ .name = "panic", .type = TYPE_DESTINATIONS, .fallback = "( \"file:paniclog\" )",
	  TO_GLOBAL(logs[LOG_PANIC].names), COUNT(struct global_options, logs[LOG_PANIC].count),
	  .scopes = LOG, .restart = true,
	  .help = "Destinations of what went wrong in the program, always as text; "
		  "none: it is off." },
	LOG_ROW("acct", LOG_ACCT, "log of authentications"),
	{ .name = "context_headers", .type = TYPE_FIELDS, .fallback = "( )",
	  TO_GLOBAL(context_headers), COUNT(struct global_options, context_header_count),
	  .scopes = LOG,
	  .help = "Header fields whose values are kept as metadata of a message, for logs." },

	/* custom_logger { } */
	{ .name = "mainlog", .type = TYPE_DESTINATION, TO_CUSTOM(mainlog), .scopes = CUSTOM,
	  .restart = true,
	  .help = "Where what has no destination of its own goes." },
	CUSTOM_ROWS("reception", CUSTOM_RECEPTION, "received messages"),
	CUSTOM_ROWS("delivery", CUSTOM_DELIVERY, "deliveries"),
	CUSTOM_ROWS("transient_failure", CUSTOM_TRANSIENT, "recipients that failed and are tried again"),
	CUSTOM_ROWS("permanent_failure", CUSTOM_PERMANENT, "recipients that failed for good"),
	CUSTOM_ROWS("rejection", CUSTOM_REJECTION, "refusals of what clients sent"),
	{ .name = "sanitize", .type = TYPE_SANITIZERS, .fallback = "( )", TO_CUSTOM(sanitize),
	  COUNT(struct custom_settings, sanitize_count), .scopes = CUSTOM, .restart = true,
	  .help = "What becomes of characters in values: special_characters get a backslash, "
		  "non_printable become ?, tr/ABC/abc/ replaces one by the other." },

	/* journal { } */
	{ .name = "segment_size", .type = TYPE_SIZE, .min = JOURNAL_SEGMENT_BYTES_MIN, .max = GIB(2),
	  TO_JOURNAL(segment_bytes), .scopes = JOURNAL, .restart = true,
	  .help = "A file of the journal that has as many bytes is full, and may be removed when all "
		  "have read it; by default 4M, or a tenth of size_limit where that is less." },
	{ .name = "size_limit", .type = TYPE_SIZE, .max = GIB(1024), .fallback = "1G",
	  TO_JOURNAL(limit_bytes), .scopes = JOURNAL, .restart = true,
	  .help = "What the journal may take: rather than go beyond it, it drops the subscriber that is "
		  "furthest behind, and removes what nobody needs then; 0: any size." },
	{ .name = "sync", .type = TYPE_CHOICE, .choices = journal_sync_choices, .fallback = "segment",
	  TO_JOURNAL(safety), .scopes = JOURNAL, .restart = true,
	  .help = "What is synced to the disk: nothing, each full segment, or each batch of records "
		  "before it counts as written." },
	{ .name = "subscribers", .type = TYPE_SUBSCRIBERS, .fallback = "( )", TO_JOURNAL(subscribers),
	  COUNT(struct log_journal_options, subscriber_count), .scopes = JOURNAL, .restart = true,
	  .help = "Who reads the journal: made at the start where they are not there, and what they "
		  "have not read is kept for them." },

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
	  .dynamic_in = "scheduler", .help = "How many of this kind." },
	{ .name = "count", .type = TYPE_NUMBER, .min = 1, .max = 256, .fallback = "4",
	  TO_AGENT(count), .scopes = BIT(SCOPE_POOL_AGENT), .restart = true,
	  .help = "Worker threads of the pool." },
	{ .name = "cores", .type = TYPE_CORES, .max = 1023, TO_AGENT(cores),
	  COUNT(struct agent_settings, core_count), .scopes = AGENTS,
	  .help = "The core of each one's thread; -1 is not pinned." },
	{ .name = "core", .type = TYPE_CORE, .max = 1023, TO_AGENT(core), .scopes = AGENTS, .help = "The core of the thread of the only one." },
	{ .name = "group", .type = TYPE_TEXT, .max = 64, TO_AGENT(group), .scopes = AGENTS,
	  .restart = true,
	  .help = "The group whose thread it shares; by default each has its own." },
	{ .name = "backlog", .type = TYPE_NUMBER, .min = 1, .max = 1000000, .fallback = "1024",
	  TO_GLOBAL(pool_backlog), .scopes = BIT(SCOPE_POOL_AGENT), .restart = true,
	  .help = "Tasks that may wait for a worker." },
	{ .name = "core", .type = TYPE_CORE, .max = 1023, .fallback = "-1", TO_GROUP(core),
	  .scopes = GROUP, .help = "The core of the thread; -1 is not pinned." },
	{ .name = "idle", .type = TYPE_CHOICE, .choices = idle_choices, .fallback = "park",
	  TO_IDLE(strategy), .scopes = AGENTS | GROUP,
	  .help = "What the thread does when a whole duty cycle found no work." },
	{ .name = "spin", .type = TYPE_TIME_NS, .max = PAUSE_NS_MAX, .fallback = "50us",
	  TO_IDLE(spin_ns), .scopes = BIT(SCOPE_AGENT) | GROUP,
	  .help = "Idle strategy park: how long to look for work, at most, before asking the "
		  "kernel; it does so while work mostly comes sooner and no other thread needs "
		  "the core." },
	{ .name = "spin", .type = TYPE_TIME_NS, .max = PAUSE_NS_MAX, .fallback = "0",
	  TO_IDLE(spin_ns), .scopes = SERVICE,
	  .help = "Idle strategy park: how long to look for work, at most, before asking the "
		  "kernel; it does so while work mostly comes sooner and no other thread needs "
		  "the core." },
	{ .name = "coalesce", .type = TYPE_TIME_NS, .max = PAUSE_NS_MAX, .fallback = "0",
	  TO_IDLE(coalesce_ns), .scopes = BIT(SCOPE_AGENT) | GROUP,
	  .help = "Idle strategy park: after work the thread sleeps this long, whatever comes in, "
		  "to do more at once." },
	{ .name = "coalesce", .type = TYPE_TIME_NS, .max = PAUSE_NS_MAX, .fallback = "1ms",
	  TO_IDLE(coalesce_ns), .scopes = BIT(SCOPE_SERVICE_AGENT) | BIT(SCOPE_POOL_AGENT),
	  .help = "Idle strategy park: after work the thread sleeps this long, whatever comes in, "
		  "to do more at once." },
	{ .name = "coalesce", .type = TYPE_TIME_NS, .max = PAUSE_NS_MAX, .fallback = "5ms",
	  TO_IDLE(coalesce_ns), .scopes = BIT(SCOPE_LOG_AGENT),
	  .help = "Idle strategy park: after work the thread sleeps this long, whatever comes in, "
		  "to do more at once." },
	{ .name = "max_spins", .type = TYPE_NUMBER, .max = 1000000, .fallback = "10",
	  TO_IDLE(max_spins), .scopes = AGENTS | GROUP,
	  .help = "Idle strategy backoff: pauses before it yields." },
	{ .name = "max_yields", .type = TYPE_NUMBER, .max = 1000000, .fallback = "20",
	  TO_IDLE(max_yields), .scopes = AGENTS | GROUP,
	  .help = "Idle strategy backoff: yields before it sleeps." },
	{ .name = "min_park", .type = TYPE_TIME_NS, .min = 1, .max = PAUSE_NS_MAX,
	  .fallback = "1us", TO_IDLE(min_park_ns), .scopes = AGENTS | GROUP,
	  .help = "Idle strategy backoff: its first sleep; each one is twice the last." },
	{ .name = "max_park", .type = TYPE_TIME_NS, .min = 1, .max = PAUSE_NS_MAX,
	  .fallback = "50ms", TO_IDLE(max_park_ns), .scopes = AGENTS | GROUP,
	  .help = "Idle strategy backoff: its longest sleep." },
	{ .name = "sleep", .type = TYPE_TIME_NS, .min = 1, .max = PAUSE_NS_MAX, .fallback = "1ms",
	  TO_IDLE(sleep_ns), .scopes = AGENTS | GROUP,
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
	  .secret = true,
	  .help = "What clients have to know (Authorization: Bearer TOKEN); where others than this "
		  "machine can connect one has to be set. Better in token_file; --dump leaves it "
		  "out." },
	{ .name = "token_file", .type = TYPE_TEXT, .max = PATH_LEN_MAX, TO_HTTP(token_file),
	  .scopes = HTTP,
	  .help = "A file whose first line is the token." },
	{ .name = "idle_time", .type = TYPE_TIME_MS, .min = 1000, .max = 86400000,
	  .fallback = "60s", TO_HTTP(idle_ms), .scopes = HTTP,
	  .help = "A client that asks nothing, and takes nothing of its answer, for so long is "
		  "dismissed; whole seconds." },
	{ .name = "max_header_size", .type = TYPE_SIZE, .min = KIB(4), .max = MIB(1),
	  .fallback = "16K", TO_HTTP(header_bytes), .scopes = HTTP,
	  .help = "Memory for the header of a request and that of its answer; a larger one is "
		  "refused." },
	{ .name = "max_requests", .type = TYPE_NUMBER, .min = 1, .max = 10000, .fallback = "64",
	  TO_HTTP(max_requests), .scopes = HTTP,
	  .help = "Requests of one listen under way at a time, but for those of events; others are "
		  "answered 503." },
	{ .name = "max_event_clients", .type = TYPE_NUMBER, .max = 10000, .fallback = "200",
	  TO_HTTP(max_event_clients), .scopes = HTTP,
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
	  TO_BINDING(weight), .scopes = BIT(SCOPE_BINDING),
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
		  "provider, or the gateways of all domains (then from each scheduler), or a "
		  "domain with mx_rollup = false. In a domain scope: those for that domain, "
		  "within them." },
	{ .name = "mx_rollup", .type = TYPE_BOOLEAN, .fallback = "true", TO_DOMAIN(mx_rollup),
	  .scopes = OUTBOUND,
	  .help = "Domains with the same mail exchangers, or the same provider, or the gateways "
		  "that all domains have, share connections and limits." },
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

enum { OPTION_COUNT = sizeof(schema_options) / sizeof(schema_options[0]) };
_Static_assert((int)OPTION_COUNT <= (int)SCHEMA_OPTIONS_MAX, "struct schema_set is too small");

uint32_t schema_option_count(void)
{
	return OPTION_COUNT;
}
