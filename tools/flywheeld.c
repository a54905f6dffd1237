/*
 * flywheeld: the mail transfer agent. Reads the configuration, makes the server that it describes
 * (tools/server.c), and runs it on its threads until it is told to stop.
 *
 * Start reading at serve(), near the end.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "agents/master.h"
#include "config/config.h"
#include "core/runtime/runtime.h"
#include "core/runtime/watchdog.h"
#include "core/version.h"
#include "tools/server.h"

/* Of one string of a TXT record (RFC 1035 section 3.3). */
#define TXT_STRING_MAX 255

static const char *const help_text =
	"Usage: flywheeld [--config FILE] [--node NAME] [--check | --dump | --dkim-records |\n"
	"                 --reference | --version | --help]\n"
	"\n"
	"Runs the flywheel mail transfer agent in the foreground until SIGTERM or SIGINT.\n"
	"\n"
	"  -c, --config FILE  configuration (default /etc/flywheel/flywheel.conf)\n"
	"      --node NAME    whose folder of node/ beside FILE is searched for included files\n"
	"                     (default: the machine's name)\n"
	"      --check        say whether the configuration is valid, and exit: 0, or 1 with one\n"
	"                     line for each error: FILE:LINE: what is wrong, what was expected;\n"
	"                     the files that it was read from, if there are several\n"
	"      --dump         print the effective configuration with the origin of each value\n"
	"      --dkim-records print the DNS records that publish the configured DKIM keys\n"
	"      --reference    print every option: type, default, scopes, meaning\n"
	"      --version      print the version\n"
	"  -h, --help         print this text\n"
	"\n"
	"Signals: SIGTERM and SIGINT stop it gracefully: no new connections, what is in flight is\n"
	"finished, everything accepted is synced, exit status 0. SIGHUP loads the configuration\n"
	"again; it and SIGUSR1 open the log files anew. Ask a running one by the console:\n"
	"flywheel help.\n";

static void raise_file_limit(uint32_t wanted)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) {
		return;
	}
	limit.rlim_cur = wanted;
	if (limit.rlim_max < wanted) {
		rlim_t hard = limit.rlim_max;

		limit.rlim_max = wanted;
		if (setrlimit(RLIMIT_NOFILE, &limit) == 0) {
			return;
		}
		limit.rlim_max = hard;
		limit.rlim_cur = hard;
		fprintf(stderr,
			"flywheeld: warning: only %llu file descriptors are allowed, "
			"server_max_file_descriptors asks for %u: raise the limit (ulimit -n, "
			"LimitNOFILE) or lower the option\n",
			(unsigned long long)hard, wanted);
	}
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void say_running(void *master)
{
	master_describe(master, stderr);
	fprintf(stderr, "flywheeld: version %s running, process %ld\n", FLYWHEEL_VERSION,
		(long)getpid());
	sd_notify(0, "READY=1\nSTATUS=takes and sends mail");
}

static void say_stopping(void)
{
	sd_notify(0, "STOPPING=1\nSTATUS=finishes what is in flight");
}

/* A service manager that waits for word gets it, whoever else is told of stalls. */
static struct watchdog *open_watchdog(const struct global_options *g)
{
	struct watchdog_options options = {
		.stall_ns = g->watchdog_stall_ms * NS_PER_MS,
		.abort_ns = g->watchdog_abort_ms * NS_PER_MS,
	};

	return options.stall_ns != 0 || sd_watchdog_enabled(0, NULL) > 0 ? watchdog_create(&options)
									 : NULL;
}

/* A program whose threads sleep although work waits is slow now and then, and nothing else shows.
 */
static void tell_lost_wakeups(void)
{
	uint64_t lost = counter_total("park_timeout_with_work");

	if (lost != 0) {
		fprintf(stderr, "flywheeld: warning: %llu lost wake-ups\n",
			(unsigned long long)lost);
	}
}

/* Until it is told to stop. Returns the exit status. */
static int serve(struct config *config)
{
	struct server *s;
	struct runtime *rt;
	int rc;

	raise_file_limit(config_global(config)->server_max_file_descriptors);
	/* A name server that does not answer must not hold up a stop for long. */
	setenv("RES_OPTIONS", "timeout:2 attempts:2", 0);
	s = server_create(config, &clock_system, stderr);
	if (s == NULL) {
		return 1;
	}
	rt = &server_program(s)->runtime;
	rt->on_running = say_running;
	rt->on_running_context = server_program(s)->master;
	rt->on_stopping = say_stopping;
	rt->watchdog = open_watchdog(config_global(config));
	rc = runtime_run(rt);
	if (rt->watchdog != NULL) {
		watchdog_destroy(rt->watchdog);
	}
	if (rc != 0) {
		fprintf(stderr, "flywheeld: cannot start: %s\n", strerror(-rc));
	} else {
		tell_lost_wakeups();
		fprintf(stderr, "flywheeld: stopped\n");
	}
	server_destroy(s);
	return rc == 0 ? 0 : 1;
}

/* As a zone file has it: in strings of at most 255 bytes. */
static void print_record(const struct dkim_signature *g, const struct dkim_key *key)
{
	char text[DKIM_RECORD_MAX];
	size_t len = dkim_key_record(key, text);

	printf("%s._domainkey.%s. IN TXT (", g->selector, g->domain);
	for (size_t at = 0; at < len; at += TXT_STRING_MAX) {
		printf(" \"%.*s\"", TXT_STRING_MAX, text + at);
	}
	puts(" )");
}

static void print_records(const struct config *config)
{
	for (uint32_t i = 0; i < config_dkim_count(config); i++) {
		const struct dkim_policy *policy = config_dkim_at(config, i);
		const struct dkim_key *const *keys = dkim_keys_now(policy->keys);

		for (uint32_t j = 0; j < policy->count; j++) {
			const struct dkim_signature *g = &policy->signatures[j];

			print_record(g, keys[g->key]);
		}
	}
}

enum action { ACTION_SERVE, ACTION_CHECK, ACTION_DUMP, ACTION_DKIM_RECORDS };

static void print_files(const struct config *config, const char *before)
{
	for (uint32_t i = 0; i < config_file_count(config); i++) {
		printf("%s%s\n", before, config_file(config, i));
	}
}

static int run(const struct config_source *source, enum action action)
{
	struct config *config = config_load_from(source, stderr);

	if (config == NULL) {
		return 1;
	}
	if (!server_agents_fit(config, stderr)) {
		config_release(config);
		return 1;
	}
	if (action == ACTION_SERVE) {
		return serve(config);
	}
	if (action == ACTION_CHECK) {
		if (!server_bounce_rules_valid(config, stderr)) {
			config_release(config);
			return 1;
		}
		puts("configuration valid");
		if (config_file_count(config) > 1) {
			print_files(config, "  ");
		}
	} else if (action == ACTION_DKIM_RECORDS) {
		print_records(config);
	} else {
		print_files(config, "# from ");
		config_dump(config, stdout);
	}
	config_release(config);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"node", required_argument, NULL, 'n'},
		{"check", no_argument, NULL, 'k'},
		{"dump", no_argument, NULL, 'd'},
		{"dkim-records", no_argument, NULL, 'm'},
		{"reference", no_argument, NULL, 'r'},
		{"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	struct config_source source = {.path = "/etc/flywheel/flywheel.conf"};
	enum action action = ACTION_SERVE;
	int c;

	while ((c = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			source.path = optarg;
			break;
		case 'n':
			source.node = optarg;
			break;
		case 'k':
			action = ACTION_CHECK;
			break;
		case 'd':
			action = ACTION_DUMP;
			break;
		case 'm':
			action = ACTION_DKIM_RECORDS;
			break;
		case 'r':
			config_reference(stdout);
			return 0;
		case 'v':
			puts("flywheeld " FLYWHEEL_VERSION);
			return 0;
		case 'h':
			fputs(help_text, stdout);
			return 0;
		default:
			fputs("Try flywheeld --help.\n", stderr);
			return 2;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "flywheeld: unexpected argument \"%s\"; try flywheeld --help\n",
			argv[optind]);
		return 2;
	}
	return run(&source, action);
}
