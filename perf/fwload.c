/*
 * fwload: sends test mail over SMTP as fast as the server takes it, or at a steady rate, and
 * says what became of it. See perf/README.md.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "perf/load.h"
#include "perf/moment.h"
#include "perf/number.h"

static const char help[] =
	"Usage: fwload [OPTION]...\n"
	"Send test messages over SMTP to a server on a loopback address, on many connections at once,\n"
	"and report rates, refusals and latency. Each message carries an id and the sum of its body,\n"
	"which fwsink checks.\n"
	"\n"
	"What is sent:\n"
	"  --to HOST:PORT         the server (default 127.0.0.1:2525); [::1]:PORT works too\n"
	"  --messages N           how many messages in all (default 1000)\n"
	"  --size BYTES           size of each on the wire with its header, without the final dot\n"
	"                         (default 10k; k and m stand for 1024 and 1024 * 1024)\n"
	"  --recipients N         recipients of each message (default 1)\n"
	"  --domains N            recipient domains d0.example to d(N-1).example, in turn from one\n"
	"                         recipient to the next (default 1)\n"
	"  --domain-format TEXT   name of the domains, %u being the number (default d%u.example);\n"
	"                         without %u there is one domain\n"
	"  --same-domain          all recipients of one message in one domain\n"
	"  --from ADDRESS         envelope sender (default sender@load.example); may be empty\n"
	"  --id-prefix TEXT       ids are TEXT-0, TEXT-1, ... (default fw)\n"
	"  --hostname NAME        name in EHLO and Message-ID (default load.example)\n"
	"  --seed N               seed of the bodies (default 1)\n"
	"\n"
	"How:\n"
	"  --sessions N           connections at a time (default 20)\n"
	"  --gather               send nothing until every session is connected; the clock starts then,\n"
	"                         and \"connected\" is printed on stderr\n"
	"  --turns                idle sessions send in turn (default: the one that was used last, so\n"
	"                         that at a low --rate most of them stay silent)\n"
	"  --per-connection N     messages per connection, then QUIT and connect again (default 0:\n"
	"                         no limit)\n"
	"  --rate N               N messages per second whatever the server does; latency then runs\n"
	"                         from the time at which a message was due (default: each session\n"
	"                         sends as soon as it has its reply)\n"
	"  --starttls             say STARTTLS, and go on in TLS; the server is not verified\n"
	"  --tls                  TLS from the first byte\n"
	"  --no-pipelining        one command at a time, even if the server offers PIPELINING\n"
	"  --timeout S            how long to wait for a reply (default 60)\n"
	"  --connect-retry S      go on for S seconds when no connection can be made (default 0)\n"
	"  --retry                send again what was refused with 4xx or lost with its connection,\n"
	"                         until it is accepted; a message whose 250 was lost is sent twice\n"
	"  --retry-delay MS       wait before that (default 100)\n"
	"\n"
	"What is printed:\n"
	"  --accepted-file FILE   append the id of each accepted message at once, as its 250 arrives\n"
	"  --progress             a line each second on stderr\n"
	"  --json                 the summary as JSON\n"
	"  --help                 this text\n"
	"\n"
	"Latency is from MAIL (or from when the message was due) to the last 250. A message counts as\n"
	"accepted when it was accepted for all of its recipients.\n"
	"\n"
	"Exit status: 0 when all messages were accepted; 1 when not; 2 for wrong use or a failure.\n";

enum option_code {
	OPTION_TO = 256,
	OPTION_MESSAGES,
	OPTION_SIZE,
	OPTION_RECIPIENTS,
	OPTION_DOMAINS,
	OPTION_DOMAIN_FORMAT,
	OPTION_SAME_DOMAIN,
	OPTION_FROM,
	OPTION_ID_PREFIX,
	OPTION_HOSTNAME,
	OPTION_SEED,
	OPTION_SESSIONS,
	OPTION_GATHER,
	OPTION_TURNS,
	OPTION_PER_CONNECTION,
	OPTION_RATE,
	OPTION_STARTTLS,
	OPTION_TLS,
	OPTION_NO_PIPELINING,
	OPTION_TIMEOUT,
	OPTION_CONNECT_RETRY,
	OPTION_RETRY,
	OPTION_RETRY_DELAY,
	OPTION_ACCEPTED_FILE,
	OPTION_PROGRESS,
	OPTION_JSON,
	OPTION_HELP,
};

static const struct option options[] = {
	{"to", required_argument, NULL, OPTION_TO},
	{"messages", required_argument, NULL, OPTION_MESSAGES},
	{"size", required_argument, NULL, OPTION_SIZE},
	{"recipients", required_argument, NULL, OPTION_RECIPIENTS},
	{"domains", required_argument, NULL, OPTION_DOMAINS},
	{"domain-format", required_argument, NULL, OPTION_DOMAIN_FORMAT},
	{"same-domain", no_argument, NULL, OPTION_SAME_DOMAIN},
	{"from", required_argument, NULL, OPTION_FROM},
	{"id-prefix", required_argument, NULL, OPTION_ID_PREFIX},
	{"hostname", required_argument, NULL, OPTION_HOSTNAME},
	{"seed", required_argument, NULL, OPTION_SEED},
	{"sessions", required_argument, NULL, OPTION_SESSIONS},
	{"gather", no_argument, NULL, OPTION_GATHER},
	{"turns", no_argument, NULL, OPTION_TURNS},
	{"per-connection", required_argument, NULL, OPTION_PER_CONNECTION},
	{"rate", required_argument, NULL, OPTION_RATE},
	{"starttls", no_argument, NULL, OPTION_STARTTLS},
	{"tls", no_argument, NULL, OPTION_TLS},
	{"no-pipelining", no_argument, NULL, OPTION_NO_PIPELINING},
	{"timeout", required_argument, NULL, OPTION_TIMEOUT},
	{"connect-retry", required_argument, NULL, OPTION_CONNECT_RETRY},
	{"retry", no_argument, NULL, OPTION_RETRY},
	{"retry-delay", required_argument, NULL, OPTION_RETRY_DELAY},
	{"accepted-file", required_argument, NULL, OPTION_ACCEPTED_FILE},
	{"progress", no_argument, NULL, OPTION_PROGRESS},
	{"json", no_argument, NULL, OPTION_JSON},
	{"help", no_argument, NULL, OPTION_HELP},
	{0},
};

static uint64_t number(const char *name, uint64_t min, uint64_t max)
{
	uint64_t value;

	if (number_parse(optarg, min, max, &value) != 0) {
		errx(2, "--%s: \"%s\" is not a number of %lu to %lu", name, optarg, min, max);
	}
	return value;
}

static double real(const char *name, double max)
{
	double value;

	if (number_parse_real(optarg, max, &value) != 0) {
		errx(2, "--%s: \"%s\" is not a number of 0 to %g", name, optarg, max);
	}
	return value;
}

static uint64_t seconds(const char *name)
{
	return (uint64_t)(real(name, 1e6) * (double)NS_PER_S);
}

static void set_server(struct load_options *o, const char *spec)
{
	int rc = endpoint_parse(&o->to, spec);

	if (rc != 0) {
		errx(2, "--to: \"%s\" is not %s", spec,
		     rc == -EPERM ? "a loopback address" : "HOST:PORT");
	}
}

/* Cuts the format at its %u. */
static void set_domain_format(struct load_options *o, char *format)
{
	char *percent = strchr(format, '%');

	o->domain_prefix = format;
	o->domain_suffix = NULL;
	if (percent == NULL) {
		return;
	}
	if (percent[1] != 'u' || strchr(percent + 1, '%') != NULL) {
		errx(2, "--domain-format: only one %%u may stand in it");
	}
	*percent = '\0';
	o->domain_suffix = percent + 2;
}

static void set_accepted_file(struct load_options *o, const char *path)
{
	o->accepted_file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
	if (o->accepted_file < 0) {
		err(2, "%s", path);
	}
}

static bool set_message(struct load_options *o, int code, const char *name)
{
	switch (code) {
	case OPTION_TO:
		set_server(o, optarg);
		return true;
	case OPTION_MESSAGES:
		o->messages = number(name, 1, UINT64_MAX);
		return true;
	case OPTION_SIZE:
		o->size = number(name, 1, 1UL << 30);
		return true;
	case OPTION_RECIPIENTS:
		o->recipients = (unsigned)number(name, 1, 100000);
		return true;
	case OPTION_DOMAINS:
		o->domains = (unsigned)number(name, 1, UINT32_MAX);
		return true;
	case OPTION_DOMAIN_FORMAT:
		set_domain_format(o, optarg);
		return true;
	case OPTION_SAME_DOMAIN:
		o->same_domain = true;
		return true;
	case OPTION_FROM:
		o->from = optarg;
		return true;
	case OPTION_ID_PREFIX:
		o->id_prefix = optarg;
		return true;
	case OPTION_HOSTNAME:
		o->hostname = optarg;
		return true;
	case OPTION_SEED:
		o->seed = number(name, 0, UINT64_MAX);
		return true;
	default:
		return false;
	}
}

static bool set_manner(struct load_options *o, int code, const char *name)
{
	switch (code) {
	case OPTION_SESSIONS:
		o->sessions = (unsigned)number(name, 1, 1000000);
		return true;
	case OPTION_GATHER:
		o->gather = true;
		return true;
	case OPTION_TURNS:
		o->turns = true;
		return true;
	case OPTION_PER_CONNECTION:
		o->per_connection = number(name, 0, UINT64_MAX);
		return true;
	case OPTION_RATE:
		o->rate = real(name, 1e9);
		return true;
	case OPTION_STARTTLS:
	case OPTION_TLS:
		o->starttls = code == OPTION_STARTTLS;
		o->tls = o->tls != NULL ? o->tls : link_context(NULL, NULL);
		return true;
	case OPTION_NO_PIPELINING:
		o->no_pipelining = true;
		return true;
	case OPTION_TIMEOUT:
		o->timeout_ns = seconds(name);
		return true;
	case OPTION_CONNECT_RETRY:
		o->connect_retry_ns = seconds(name);
		return true;
	case OPTION_RETRY:
		o->retry = true;
		return true;
	case OPTION_RETRY_DELAY:
		o->retry_delay_ns = number(name, 0, 86400000) * NS_PER_MS;
		return true;
	default:
		return false;
	}
}

static void set_output(struct load_options *o, int code, bool *json)
{
	switch (code) {
	case OPTION_ACCEPTED_FILE:
		set_accepted_file(o, optarg);
		break;
	case OPTION_PROGRESS:
		o->progress = true;
		break;
	case OPTION_JSON:
		*json = true;
		break;
	case OPTION_HELP:
		fputs(help, stdout);
		exit(0);
	default:
		fputs("Try 'fwload --help'.\n", stderr);
		exit(2);
	}
}

static void check_size(struct load_options *o)
{
	size_t header_len = load_header_len(o);

	if (o->size < header_len) {
		errx(2, "--size: the header alone takes %zu bytes", header_len);
	}
	/* No line is one byte long. */
	if (o->size == header_len + 1) {
		o->size++;
	}
}

static bool parse_command_line(struct load_options *o, int argc, char **argv)
{
	bool json = false;
	int which = 0;
	int code;

	while ((code = getopt_long(argc, argv, "", options, &which)) != -1) {
		const char *name = code == '?' ? "" : options[which].name;
		if (!set_message(o, code, name) && !set_manner(o, code, name)) {
			set_output(o, code, &json);
		}
	}
	if (optind < argc) {
		errx(2, "what is \"%s\"? Try 'fwload --help'", argv[optind]);
	}
	if (o->to.len == 0) {
		set_server(o, "127.0.0.1:2525");
	}
	check_size(o);
	return json;
}

/* Each session takes a descriptor. */
static void raise_descriptor_limit(unsigned sessions)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
		if (limit.rlim_max < sessions + 16UL) {
			errx(2, "--sessions: only %lu descriptors are allowed", limit.rlim_max);
		}
	}
}

static void print_summary(const struct load *load, bool json)
{
	struct text t = {0};

	if (json) {
		load_append_json(load, &t);
	} else {
		load_append_summary(load, &t);
	}
	fwrite(t.data, 1, t.len, stdout);
	text_free(&t);
}

int main(int argc, char **argv)
{
	static struct load load = {
		.options =
			{
				.sessions = 20,
				.messages = 1000,
				.size = 10240,
				.recipients = 1,
				.domains = 1,
				.domain_prefix = "d",
				.domain_suffix = ".example",
				.from = "sender@load.example",
				.id_prefix = "fw",
				.hostname = "load.example",
				.retry_delay_ns = 100 * NS_PER_MS,
				.accepted_file = -1,
				.timeout_ns = 60 * NS_PER_S,
				.seed = 1,
			},
	};
	bool json = parse_command_line(&load.options, argc, argv);
	int rc;

	raise_descriptor_limit(load.options.sessions);
	rc = load_run(&load);
	if (rc != 0) {
		errno = -rc;
		err(2, "load");
	}
	print_summary(&load, json);
	text_free(&load.first_trouble);
	SSL_CTX_free(load.options.tls);
	return load_succeeded(&load) ? 0 : 1;
}
