/*
 * fwsink: an SMTP server that takes mail, checks that it is whole and came once, and throws it
 * away; or misbehaves on request. See perf/README.md.
 */
#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "perf/endpoint.h"
#include "perf/moment.h"
#include "perf/number.h"
#include "perf/sink.h"

static const char help[] =
	"Usage: fwsink [OPTION]...\n"
	"Accept mail over SMTP on a loopback address, check that each message of fwload arrives once\n"
	"and whole, and discard it. Can misbehave in many ways on request.\n"
	"\n"
	"Where:\n"
	"  --listen HOST:PORT     address to listen on (default 127.0.0.1:2526); port 0 takes a free\n"
	"                         one; \"listening on HOST:PORT\" is printed once it is open\n"
	"  --port-file FILE       write the port number to FILE\n"
	"  --hostname NAME        name in the banner (default sink.example)\n"
	"\n"
	"How long:\n"
	"  --expect N             end after N distinct messages\n"
	"  --expect-deliveries N  end after N distinct pairs of message and recipient\n"
	"  --linger S             then give open connections S seconds to end (default 1)\n"
	"  Without these it runs until SIGTERM or SIGINT.\n"
	"\n"
	"What is kept:\n"
	"  --record FILE          append a line for each accepted message:\n"
	"                         ID RECIPIENTS FIRST-RECIPIENT SIZE ok|BAD DUPLICATE-RECIPIENTS\n"
	"                         (ID is - for foreign messages)\n"
	"  --ids                  write only the ids of fwload's messages to the record\n"
	"  --save DIR             save each foreign message (one that is not from fwload, such as a\n"
	"                         bounce) as DIR/NUMBER.eml\n"
	"  --log FILE             write the dialogue of all connections\n"
	"  --stats-file FILE      write the summary as JSON at the end and each second while it\n"
	"                         changes; a reader always sees a complete file\n"
	"\n"
	"What is offered:\n"
	"  --cert FILE            offer STARTTLS with this certificate (PEM)\n"
	"  --key FILE             its key (default: the same file)\n"
	"  --tls                  TLS from the first byte instead\n"
	"  --no-pipelining        do not offer PIPELINING\n"
	"  --chunking             offer CHUNKING: messages may come by BDAT\n"
	"  --no-ehlo              answer EHLO with 502\n"
	"  --max-size BYTES       offer SIZE and refuse what is bigger (default 64m)\n"
	"  --max-connections N    answer 421 to connections above N at a time\n"
	"  --max-messages-per-connection N\n"
	"                         answer 421 to MAIL after N messages\n"
	"  --slow-read BYTES      read that many bytes per second from each connection\n"
	"  --reject-rcpt PATTERN  answer 550 to recipients that match the shell pattern\n"
	"  --defer-rcpt PATTERN   answer 450 to recipients that match; both may be repeated\n"
	"  --reply STAGE:TEXT     answer TEXT instead; \\n in TEXT starts another line\n"
	"\n"
	"What goes wrong:\n"
	"  --fault STAGE:ACTION[:VALUE][@RATE]\n"
	"                         may be repeated; for each stage the first rule drawn applies\n"
	"      STAGE   connect banner ehlo mail rcpt data body dot rset quit\n"
	"      ACTION  4xx[:CODE]  5xx[:CODE]  421 (answer and close)  delay[:MS] (default 1000)\n"
	"              drop (close without an answer)  garbage (answer nonsense)\n"
	"              flood[:LINES] (a reply of so many lines, or without end)\n"
	"              silence (never answer again)\n"
	"      RATE    how often, from 0 to 1 (default 1)\n"
	"      body means in the middle of the message: there 4xx and 5xx also close. connect means\n"
	"      before the banner: there 4xx and 5xx also close; at banner they wait for QUIT.\n"
	"  --seed N               seed of the draws (default 1)\n"
	"\n"
	"What is printed:\n"
	"  --progress             the counts each second while they change, on stderr; SIGUSR1\n"
	"                         prints them at any time, and brings the record up to date\n"
	"  --json                 the final summary as JSON\n"
	"  --help                 this text\n"
	"\n"
	"Exit status: 0; 1 when a message was not whole; 2 for wrong use or a failure.\n";

enum option_code {
	OPTION_LISTEN = 256,
	OPTION_PORT_FILE,
	OPTION_HOSTNAME,
	OPTION_EXPECT,
	OPTION_EXPECT_DELIVERIES,
	OPTION_LINGER,
	OPTION_RECORD,
	OPTION_IDS,
	OPTION_SAVE,
	OPTION_LOG,
	OPTION_STATS_FILE,
	OPTION_CERT,
	OPTION_KEY,
	OPTION_TLS,
	OPTION_NO_PIPELINING,
	OPTION_CHUNKING,
	OPTION_NO_EHLO,
	OPTION_MAX_SIZE,
	OPTION_MAX_CONNECTIONS,
	OPTION_MAX_MESSAGES,
	OPTION_SLOW_READ,
	OPTION_REJECT,
	OPTION_DEFER,
	OPTION_REPLY,
	OPTION_FAULT,
	OPTION_SEED,
	OPTION_PROGRESS,
	OPTION_JSON,
	OPTION_HELP,
};

static const struct option options[] = {
	{"listen", required_argument, NULL, OPTION_LISTEN},
	{"port-file", required_argument, NULL, OPTION_PORT_FILE},
	{"hostname", required_argument, NULL, OPTION_HOSTNAME},
	{"expect", required_argument, NULL, OPTION_EXPECT},
	{"expect-deliveries", required_argument, NULL, OPTION_EXPECT_DELIVERIES},
	{"linger", required_argument, NULL, OPTION_LINGER},
	{"record", required_argument, NULL, OPTION_RECORD},
	{"ids", no_argument, NULL, OPTION_IDS},
	{"save", required_argument, NULL, OPTION_SAVE},
	{"log", required_argument, NULL, OPTION_LOG},
	{"stats-file", required_argument, NULL, OPTION_STATS_FILE},
	{"cert", required_argument, NULL, OPTION_CERT},
	{"key", required_argument, NULL, OPTION_KEY},
	{"tls", no_argument, NULL, OPTION_TLS},
	{"no-pipelining", no_argument, NULL, OPTION_NO_PIPELINING},
	{"chunking", no_argument, NULL, OPTION_CHUNKING},
	{"no-ehlo", no_argument, NULL, OPTION_NO_EHLO},
	{"max-size", required_argument, NULL, OPTION_MAX_SIZE},
	{"max-connections", required_argument, NULL, OPTION_MAX_CONNECTIONS},
	{"max-messages-per-connection", required_argument, NULL, OPTION_MAX_MESSAGES},
	{"slow-read", required_argument, NULL, OPTION_SLOW_READ},
	{"reject-rcpt", required_argument, NULL, OPTION_REJECT},
	{"defer-rcpt", required_argument, NULL, OPTION_DEFER},
	{"reply", required_argument, NULL, OPTION_REPLY},
	{"fault", required_argument, NULL, OPTION_FAULT},
	{"seed", required_argument, NULL, OPTION_SEED},
	{"progress", no_argument, NULL, OPTION_PROGRESS},
	{"json", no_argument, NULL, OPTION_JSON},
	{"help", no_argument, NULL, OPTION_HELP},
	{0},
};

struct command_line {
	const char *listen;
	const char *port_file;
	const char *record;
	const char *log;
	const char *certificate;
	const char *key;
	bool json;
};

static uint64_t number(const char *name, const char *word, uint64_t min, uint64_t max)
{
	uint64_t value;

	if (number_parse(word, min, max, &value) != 0) {
		errx(2, "--%s: \"%s\" is not a number of %lu to %lu", name, word, min, max);
	}
	return value;
}

static uint64_t seconds(const char *name, const char *word)
{
	double value;

	if (number_parse_real(word, 1e6, &value) != 0) {
		errx(2, "--%s: \"%s\" is not a number of seconds", name, word);
	}
	return (uint64_t)(value * (double)NS_PER_S);
}

static void add_pattern(const char ***list, const char *pattern)
{
	size_t count = 0;

	while (*list != NULL && (*list)[count] != NULL) {
		count++;
	}
	*list = realloc(*list, (count + 2) * sizeof(**list));
	if (*list == NULL) {
		err(2, "pattern");
	}
	(*list)[count] = pattern;
	(*list)[count + 1] = NULL;
}

static void set_reply(struct sink_options *o, const char *spec)
{
	struct text t = {0};
	enum sink_stage stage;
	const char *words = sink_stage_parse(spec, &stage);

	if (words == NULL || words[0] < '2' || words[0] > '5' || stage == STAGE_CONNECT ||
	    stage == STAGE_BODY) {
		errx(2, "--reply: \"%s\" is not STAGE:TEXT with a reply code first", spec);
	}
	for (; *words != '\0'; words++) {
		if (words[0] == '\\' && words[1] == 'n') {
			text_append(&t, "\r\n", 2);
			words++;
		} else {
			text_append(&t, words, 1);
		}
	}
	text_append(&t, "\r\n", 3);
	free(o->replies[stage]);
	o->replies[stage] = t.data;
}

static void set_output(struct sink *sink, struct command_line *c, int code)
{
	switch (code) {
	case OPTION_LISTEN:
		c->listen = optarg;
		break;
	case OPTION_PORT_FILE:
		c->port_file = optarg;
		break;
	case OPTION_RECORD:
		c->record = optarg;
		break;
	case OPTION_IDS:
		sink->ledger.ids_only = true;
		break;
	case OPTION_SAVE:
		sink->ledger.save_dir = optarg;
		break;
	case OPTION_LOG:
		c->log = optarg;
		break;
	case OPTION_STATS_FILE:
		sink->options.stats_file = optarg;
		break;
	case OPTION_PROGRESS:
		sink->options.progress = true;
		break;
	case OPTION_JSON:
		c->json = true;
		break;
	case OPTION_CERT:
		c->certificate = optarg;
		break;
	case OPTION_KEY:
		c->key = optarg;
		break;
	case OPTION_TLS:
		sink->options.tls_first = true;
		break;
	case OPTION_HELP:
		fputs(help, stdout);
		exit(0);
	default:
		fputs("Try 'fwsink --help'.\n", stderr);
		exit(2);
	}
}

static bool set_behaviour(struct sink *sink, int code)
{
	struct sink_options *o = &sink->options;

	switch (code) {
	case OPTION_HOSTNAME:
		o->hostname = optarg;
		return true;
	case OPTION_NO_PIPELINING:
		o->no_pipelining = true;
		return true;
	case OPTION_CHUNKING:
		o->chunking = true;
		return true;
	case OPTION_NO_EHLO:
		o->no_ehlo = true;
		return true;
	case OPTION_REJECT:
		add_pattern(&o->reject_recipients, optarg);
		return true;
	case OPTION_DEFER:
		add_pattern(&o->defer_recipients, optarg);
		return true;
	case OPTION_REPLY:
		set_reply(o, optarg);
		return true;
	case OPTION_FAULT:
		if (fault_add(&sink->faults, optarg) != 0) {
			errx(2, "--fault: \"%s\" is not STAGE:ACTION[:VALUE][@RATE]", optarg);
		}
		return true;
	case OPTION_LINGER:
		o->linger_ns = seconds("linger", optarg);
		return true;
	default:
		return false;
	}
}

static bool set_number(struct sink *sink, int code, const char *name)
{
	struct sink_options *o = &sink->options;

	switch (code) {
	case OPTION_EXPECT:
		o->expect_messages = number(name, optarg, 1, UINT64_MAX);
		return true;
	case OPTION_EXPECT_DELIVERIES:
		o->expect_deliveries = number(name, optarg, 1, UINT64_MAX);
		return true;
	case OPTION_MAX_SIZE:
		o->size_max = number(name, optarg, 1, UINT64_MAX);
		return true;
	case OPTION_MAX_CONNECTIONS:
		o->connections_max = number(name, optarg, 1, UINT64_MAX);
		return true;
	case OPTION_MAX_MESSAGES:
		o->messages_per_connection_max = number(name, optarg, 1, UINT64_MAX);
		return true;
	case OPTION_SLOW_READ:
		o->slow_read_bytes_s = number(name, optarg, 1, UINT64_MAX);
		return true;
	case OPTION_SEED:
		sink->faults.random = number(name, optarg, 0, UINT64_MAX);
		return true;
	default:
		return false;
	}
}

static void parse_command_line(struct sink *sink, struct command_line *c, int argc, char **argv)
{
	int which = 0;
	int code;

	while ((code = getopt_long(argc, argv, "", options, &which)) != -1) {
		const char *name = code == '?' ? "" : options[which].name;
		if (!set_number(sink, code, name) && !set_behaviour(sink, code)) {
			set_output(sink, c, code);
		}
	}
	if (optind < argc) {
		errx(2, "what is \"%s\"? Try 'fwsink --help'", argv[optind]);
	}
}

static void open_tls(struct sink *sink, const struct command_line *c)
{
	if (c->certificate != NULL) {
		sink->options.tls =
			link_context(c->certificate, c->key != NULL ? c->key : c->certificate);
	} else if (sink->options.tls_first || c->key != NULL) {
		errx(2, "TLS needs --cert");
	}
}

static FILE *open_output(const char *path)
{
	FILE *file = NULL;

	if (path != NULL) {
		file = fopen(path, "ae");
		if (file == NULL) {
			err(2, "%s", path);
		}
		setvbuf(file, NULL, _IOFBF, 1 << 16);
	}
	return file;
}

static void open_listener(struct sink *sink, const struct command_line *c)
{
	struct endpoint e;
	char name[ENDPOINT_TEXT_MAX];
	struct text port = {0};
	int rc = endpoint_parse(&e, c->listen);

	if (rc != 0) {
		errx(2, "--listen: \"%s\" is not %s", c->listen,
		     rc == -EPERM ? "a loopback address" : "HOST:PORT");
	}
	sink->listener = endpoint_listen(&e, 4096);
	if (sink->listener < 0) {
		errno = -sink->listener;
		err(2, "%s", c->listen);
	}
	endpoint_local_name(sink->listener, name);
	if (c->port_file != NULL) {
		text_printf(&port, "%s\n", strrchr(name, ':') + 1);
		rc = text_write_file(&port, c->port_file);
		if (rc != 0) {
			errno = -rc;
			err(2, "%s", c->port_file);
		}
		text_free(&port);
	}
	printf("listening on %s\n", name);
	fflush(stdout);
}

/* Each connection takes a descriptor. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static void close_output(FILE *file, const char *path)
{
	if (file != NULL && fclose(file) != 0) {
		err(2, "%s", path);
	}
}

static void print_summary(const struct sink *sink, bool json)
{
	struct text t = {0};

	if (json) {
		sink_ledger_append_json(&sink->ledger, &t, true);
	} else {
		sink_ledger_append_summary(&sink->ledger, &t);
	}
	fwrite(t.data, 1, t.len, stdout);
	text_free(&t);
}

static void release(struct sink *sink)
{
	sink_ledger_free(&sink->ledger);
	for (unsigned i = 0; i < STAGE_COUNT; i++) {
		free(sink->options.replies[i]);
	}
	free(sink->options.reject_recipients);
	free(sink->options.defer_recipients);
	SSL_CTX_free(sink->options.tls);
}

int main(int argc, char **argv)
{
	static struct sink sink = {
		.options = {.hostname = "sink.example", .size_max = 64UL << 20},
		.faults = {.random = 1},
	};
	struct command_line c = {.listen = "127.0.0.1:2526"};
	bool whole;
	int rc;

	sink.options.linger_ns = NS_PER_S;
	parse_command_line(&sink, &c, argc, argv);
	raise_descriptor_limit();
	open_tls(&sink, &c);
	sink.ledger.record = open_output(c.record);
	sink.options.log = open_output(c.log);
	open_listener(&sink, &c);
	rc = sink_run(&sink);
	if (rc == 0) {
		rc = sink_write_stats(&sink, true);
	}
	if (rc != 0) {
		errno = -rc;
		err(2, "sink");
	}
	close_output(sink.ledger.record, c.record);
	close_output(sink.options.log, c.log);
	print_summary(&sink, c.json);
	whole = sink.ledger.bad == 0;
	release(&sink);
	return whole ? 0 : 1;
}
